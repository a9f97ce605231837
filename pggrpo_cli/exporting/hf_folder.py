"""A checkpoint's model as a folder for everybody: weights in safetensors, configuration, tokenizer, template, card.

The folder is written beside its place, read back as a stranger would read it, compared with the checkpoint, and only then
renamed. Nothing of the run is instantiated and no code of a checkpoint is run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from pggrpo_cli.errors import CheckpointError, UsageError
from pggrpo_cli.model_outline import end_token_ids
from pggrpo_cli.weights import refuse_unsafe
from pggrpo_cli.whole_folder import flush, put_in_place, remove

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CARD = "README.md"
QUESTION = "What is 3 + 4?"
"""The prompt whose logits are compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What was written and how it was compared."""

    files: int
    gigabytes: float
    dtype: str
    tensors: int
    prompt_tokens: int
    tied: bool


def export_folder(checkpoint: Path, out: Path, dtype: str | None, card: Callable[[str], str]) -> Exported:
    """Writes `out` from a verified checkpoint. `dtype`: a key of DTYPES; None: the checkpoint's own. `card` gives
    README.md for the name of the dtype.

    Raises CheckpointError if the checkpoint cannot be read, or if what is read back differs from it; UsageError if the
    disk refuses. Then `out` is as it was.
    """
    refuse_unsafe(checkpoint, "checkpoint")
    wanted = DTYPES[dtype] if dtype is not None else _dtype_of(checkpoint)
    name = str(wanted).removeprefix("torch.")
    temporary = out.absolute().with_name(f".tmp-{out.absolute().name}-{os.getpid()}")
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        expected = _write_model(checkpoint, temporary, wanted)
        (temporary / CARD).write_text(card(name), encoding="utf-8")
        tensors = _compare_tensors(checkpoint, temporary, wanted)
        _compare(expected, _answer(temporary, wanted, "the exported folder"))
        for path in temporary.rglob("*"):
            path.chmod((temporary / CARD).stat().st_mode)  # safetensors lets nobody else read its files
            flush(path)
        flush(temporary)
        sizes = [path.stat().st_size for path in temporary.rglob("*") if path.is_file()]
        put_in_place(temporary, out.absolute())
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"{out}: cannot be written: {' '.join(str(error).split())}. Nothing of it is left there."
        ) from error
    finally:
        if temporary.exists():
            remove(temporary)
    return Exported(
        files=len(sizes),
        gigabytes=sum(sizes) / 1e9,
        dtype=name,
        tensors=tensors,
        prompt_tokens=len(expected.token_ids),
        tied=expected.tied,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    """What a model folder makes of a prompt."""

    token_ids: list[int]
    logits: torch.Tensor
    """[T, V]"""
    tied: bool
    chat_template: str | None
    end_token_ids: Any


def _write_model(checkpoint: Path, folder: Path, dtype: torch.dtype) -> _Answer:
    module, tokenizer = _load(checkpoint, dtype, "the checkpoint")
    generation = module.generation_config
    ends = end_token_ids(module.generation_config, tokenizer)
    if ends:  # what ended a completion in training ends one here
        generation.eos_token_id = ends[0] if len(ends) == 1 else list(ends)
    if generation.pad_token_id is None:
        generation.pad_token_id = (
            tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(ends, default=None)
        )
    answer = _ask(module, tokenizer)
    for name in ("local_files_only", "is_local"):  # how it was loaded here is nobody else's business
        tokenizer.init_kwargs.pop(name, None)
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return answer


def _answer(folder: Path, dtype: torch.dtype, what: str) -> _Answer:
    return _ask(*_load(folder, dtype, what))


def _load(folder: Path, dtype: torch.dtype, what: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **options)
        module = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, use_safetensors=True, **options)
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{what} cannot be loaded by transformers: {reason}") from error
    with torch.no_grad():
        # Out of the mapped file: where a matrix begins in memory decides the last bit of its products.
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()
    return module.eval(), tokenizer


def _ask(module: Any, tokenizer: Any) -> _Answer:
    template = getattr(tokenizer, "chat_template", None)
    text = QUESTION
    if template is not None:
        message = [{"role": "user", "content": QUESTION}]
        text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    token_ids: list[int] = tokenizer(text, add_special_tokens=template is None)["input_ids"]
    with torch.inference_mode():
        logits = module(input_ids=torch.tensor([token_ids]), use_cache=False).logits[0]
    head = module.get_output_embeddings()
    return _Answer(
        token_ids=token_ids,
        logits=logits,
        tied=head is not None and head.weight is module.get_input_embeddings().weight,
        chat_template=template,
        end_token_ids=module.generation_config.eos_token_id,
    )


def _compare(expected: _Answer, found: _Answer) -> None:
    """Raises CheckpointError if the folder that was written answers otherwise than the checkpoint."""
    for name in ("token_ids", "tied", "chat_template", "end_token_ids"):
        one, other = getattr(expected, name), getattr(found, name)
        if one != other:
            raise CheckpointError(f"read back, the exported folder has another {name}: {other!r} instead of {one!r}.")
    if not torch.equal(expected.logits, found.logits):
        difference = float((expected.logits.float() - found.logits.float()).abs().max())
        raise CheckpointError(
            f"read back, the exported model's logits differ from the checkpoint's by up to {difference:.3g}; they must be equal."
        )


def _compare_tensors(checkpoint: Path, folder: Path, dtype: torch.dtype) -> int:
    """Every saved tensor, bit for bit, after the cast; how many there are. Raises CheckpointError."""
    before, after = _places(checkpoint), _places(folder)
    if before.keys() != after.keys():
        names = sorted(before.keys() ^ after.keys())
        raise CheckpointError(f"the exported tensors are not the checkpoint's: {', '.join(names[:4])}.")
    for name in before:
        one, other = _tensor(before[name], name), _tensor(after[name], name)
        if one.is_floating_point() and other.dtype not in (dtype, torch.float32):
            raise CheckpointError(f"the exported tensor {name} is {other.dtype}, not {dtype}.")
        if not torch.equal(one.to(other.dtype), other):
            raise CheckpointError(f"the exported tensor {name} is not the checkpoint's.")
    return len(before)


def _places(folder: Path) -> dict[str, Path]:
    """Which file holds which tensor."""
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, "pt") as opened:
            found |= dict.fromkeys(opened.keys(), file)
    return found


def _tensor(file: Path, name: str) -> torch.Tensor:
    with safe_open(file, "pt") as opened:
        tensor: torch.Tensor = opened.get_tensor(name)
    return tensor


def _dtype_of(checkpoint: Path) -> torch.dtype:
    """Of the first matrix of the weights."""
    for name, file in _places(checkpoint).items():
        tensor = _tensor(file, name)
        if tensor.is_floating_point():
            return tensor.dtype
    raise CheckpointError(f"checkpoint {checkpoint}: holds no weights.")
