"""The next token of each row by choose.c: what engine/selection.py does, without truncation."""

from __future__ import annotations

import ctypes

import torch

from pggrpo_cli.compiled.library import Draw
from pggrpo_cli.engine.draws import GOLDEN, REST, TOP_TOKENS
from pggrpo_cli.engine.selection import Selection


def choose(
    library: ctypes.CDLL, selection: Selection, logits: torch.Tensor, keys: torch.Tensor, threads: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """logits [B, V] float32, keys int64 [B] → tokens int64 [B], logprobs float32 [B], as Selection.choose.

    Of equal logits the token with the lower number counts as the larger; torch leaves that open.
    """
    if selection.temperature > 0 and selection.truncates:
        raise ValueError("choose.c does not truncate")
    rows, vocabulary = logits.shape
    tokens, logprobs = torch.empty(rows, dtype=torch.long), torch.empty(rows)
    logits, keys = logits.contiguous(), keys.contiguous()
    draw = Draw(top=TOP_TOKENS, golden=GOLDEN, rest=REST)
    library.choose(
        *(logits.data_ptr(), rows, vocabulary, selection.temperature, keys.data_ptr()),
        *(ctypes.byref(draw), threads, tokens.data_ptr(), logprobs.data_ptr()),
    )
    return tokens, logprobs
