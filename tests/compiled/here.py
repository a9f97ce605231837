"""The compiled code, where this machine can compile it."""

from __future__ import annotations

import ctypes
import os

import pytest

from pggrpo_cli.compiled.library import Uncompiled, library


def compiled_library(*, bfloat16: bool = False) -> ctypes.CDLL:
    """In CI a missing compiler is a failure; a processor without bfloat16 is not."""
    try:
        return library(bfloat16=bfloat16)
    except Uncompiled as reason:
        if os.environ.get("CI") and "AVX512-BF16" not in str(reason):
            raise
        pytest.skip(str(reason))
