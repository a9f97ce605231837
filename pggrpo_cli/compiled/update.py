"""Whether the update (forward and backward of policy and reference) is computed by compiled code, and by which."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _get_current_dispatch_mode

from pggrpo_cli.compiled.library import Uncompiled, library

_WANTED: ContextVar[bool] = ContextVar("compiled code wanted", default=True)


def library_or_none(dtype: torch.dtype, device: torch.device) -> Any:
    """A ctypes library, for products in `dtype` on `device`; None: torch computes, as it does where there is no compiler."""
    if device.type != "cpu" or not _WANTED.get():
        return None
    found = _library(dtype)
    return _Ghost() if found is not None and isinstance(_get_current_dispatch_mode(), FakeTensorMode) else found


class _Ghost:
    """The library for tensors of shapes alone, which have no numbers: every function does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


@contextmanager
def in_torch() -> Iterator[None]:
    """Without compiled code, to compare with. A backward computes as its forward did."""
    token = _WANTED.set(False)
    try:
        yield
    finally:
        _WANTED.reset(token)


def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    if dtype not in (torch.float32, torch.bfloat16):
        return None
    try:
        return library(bfloat16=dtype == torch.bfloat16)
    except Uncompiled:
        return None
