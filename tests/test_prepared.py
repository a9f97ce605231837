"""Prepared linear layers compute what they computed, and leave the module as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pggrpo_cli import prepared
from pggrpo_cli.prepared import prepared_linears, prepared_product


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_product(dtype: torch.dtype, bias: bool, packs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not packs:
        monkeypatch.setattr(prepared, "_packs", lambda: False)
    layer = nn.Linear(64, 40, bias=bias)
    for rows in (1, 3, 70):
        x = torch.randn(1, rows, 64)
        found = prepared_product(layer.weight, layer.bias, dtype)(x)
        assert found.dtype == dtype
        assert torch.allclose(found.float(), layer(x), atol=0.03 if dtype == torch.bfloat16 else 1e-5)


class Odd(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1


def test_only_plain_linears_and_only_for_a_while() -> None:
    module = nn.Sequential(nn.Linear(8, 8), Odd(8, 8))
    x = torch.randn(2, 8)
    before = module(x)
    with torch.no_grad(), prepared_linears(module, torch.float32):
        assert torch.allclose(module(x), before, atol=1e-6)
        assert "forward" in vars(module[0])
        assert "forward" not in vars(module[1])
    assert "forward" not in vars(module[0])
    assert torch.equal(module(x), before)


def test_left_after_an_error() -> None:
    module = nn.Sequential(nn.Linear(8, 8))
    with pytest.raises(RuntimeError, match="stop"), prepared_linears(module, torch.float32):
        raise RuntimeError("stop")
    assert "forward" not in vars(module[0])
