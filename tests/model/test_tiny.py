"""The tiny model and its byte tokenizer."""

from __future__ import annotations

import torch

from pggrpo_cli.model.tiny import byte_tokenizer
from tests.conftest import tiny_model


def test_the_tokenizer_is_lossless() -> None:
    tokenizer = byte_tokenizer()
    text = "grüße, 世界 \n\t 🙂"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer(text)["input_ids"]) == len(text.encode())


def test_weights_depend_on_the_seed_alone_and_draw_nothing() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one = tiny_model(init_seed=4).load().module
    assert torch.equal(torch.rand(3), expected)
    two, other = tiny_model(init_seed=4).load().module, tiny_model(init_seed=5).load().module
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
