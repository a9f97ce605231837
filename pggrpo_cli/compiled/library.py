"""The C code of this package, compiled on the machine that runs it, once, and kept in the cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from pggrpo_cli.cache import cache_folder

SOURCES = ("decode.c", "choose.c", "head.c", "packed_attention.c", "layer.c")
HEADERS = ("vectors.h", "products.h", "attention.h", "tiles.h", "packed.h")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fPIC", "-std=gnu11")
SECONDS = 120
"""For one call of the compiler."""


class Uncompiled(Exception):
    """Why there is no compiled code here, in a few words."""


class Storage(ctypes.Structure):
    """struct storage of attention.h."""

    _fields_ = [("keys", ctypes.c_void_p), ("values", ctypes.c_void_p), ("capacity", ctypes.c_int64)]


class Layer(ctypes.Structure):
    """struct layer of decode.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("attention_norm", "mlp_norm", "query_norm", "key_norm")),
        *((name, ctypes.c_void_p) for name in ("qkv", "out", "gate_up", "down")),
        *((name, ctypes.c_void_p) for name in ("qkv_bias", "out_bias", "gate_up_bias", "down_bias")),
        ("prompts", Storage),
        ("rows", Storage),
    ]


class Model(ctypes.Structure):
    """struct model of decode.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("layers", "hidden", "heads", "key_heads", "size", "inner", "vocabulary")),
        ("threads", ctypes.c_int64),
        *((name, ctypes.c_float) for name in ("epsilon", "scaling")),
        ("layer", ctypes.POINTER(Layer)),
        *((name, ctypes.c_void_p) for name in ("final_norm", "head", "head_bias")),
    ]


class Tokens(ctypes.Structure):
    """struct tokens of decode.c."""

    _fields_ = [
        ("count", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("cosine", "sine", "slots", "held", "prompt_lengths", "wanted")),
        ("logits", ctypes.c_int64),
    ]


class Draw(ctypes.Structure):
    """struct draw of choose.c."""

    _fields_ = [(name, ctypes.c_int64) for name in ("top", "golden", "rest")]


@lru_cache(maxsize=2)
def library(*, bfloat16: bool) -> ctypes.CDLL:
    """Raises Uncompiled where there is no compiler, no OpenMP of torch's, or a processor that lacks the instructions."""
    if bfloat16 and "avx512_bf16" not in _processor():
        raise Uncompiled("the processor has no AVX512-BF16")
    # The team of threads must be torch's own: two would take the processors from each other.
    ctypes.CDLL(_openmp(), mode=ctypes.RTLD_GLOBAL)
    loaded = ctypes.CDLL(str(_compiled(compiler(), bfloat16)))
    loaded.scratch_floats.restype = ctypes.c_int64
    whole, address = ctypes.c_int64, ctypes.c_void_p
    for name, kinds in {
        "scratch_floats": [ctypes.POINTER(Model), whole],
        "decode": [ctypes.POINTER(Model), ctypes.POINTER(Tokens), *[address] * 3],
        "pack": [address, whole, whole, address, whole, whole, whole],
        "head_sums": [address, *[whole] * 3, address, ctypes.c_float, *[address] * 4, whole],
        "head_gradient": [address, *[whole] * 3, address, ctypes.c_float, *[address] * 4, whole],
        "packed_attention": [address] * 6,
        "packed_attention_gradients": [address] * 10,
        "normalized": [address, address, whole, whole, address, ctypes.c_float, address, address, whole],
        "added": [address, address, whole, address, whole],
        "normalized_gradient": [*[address] * 3, whole, whole, address, ctypes.c_float, *[address] * 3, whole],
        "rotated": [address, *[whole] * 4, *[address] * 5, whole, whole],
        "gated": [address, whole, whole, address, whole],
        "gated_gradient": [address, address, whole, whole, address, whole],
        "choose": [address, whole, whole, ctypes.c_float, address, ctypes.POINTER(Draw), whole, address, address],
    }.items():
        getattr(loaded, name).argtypes = kinds
    return loaded


def compiler() -> str:
    """Its path. Raises Uncompiled."""
    found = next(filter(None, map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))), None)
    if found is None:
        raise Uncompiled("there is no C compiler (cc, gcc, clang or $CC)")
    return found


def _compiled(program: str, bfloat16: bool) -> Path:
    """Atomic: another process sees the whole file or none. The name says all that the code depends on."""
    flags = (*FLAGS, f"-DBFLOAT16={int(bfloat16)}")
    version = subprocess.run([program, "--version"], capture_output=True, timeout=SECONDS).stdout
    here = Path(__file__).parent
    sources = b"".join((here / name).read_bytes() for name in (*SOURCES, *HEADERS))
    parts = (sources, version, " ".join(flags).encode(), _processor().encode())
    name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]
    folder = cache_folder() / "compiled"
    found = folder / f"{name}.so"
    if found.exists():
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            whole = Path(scratch) / "whole.so"
            objects = [str(Path(scratch) / f"{name}.o") for name in SOURCES]
            for name, target in zip(SOURCES, objects, strict=True):
                _call([program, *flags, "-fopenmp", "-c", str(here / name), "-o", target])
            # Linked without -fopenmp, which would name the compiler's OpenMP.
            _call([program, "-shared", *objects, "-lm", "-o", str(whole)])
            whole.rename(found)
    except OSError as error:
        raise Uncompiled(f"{folder} cannot be written ({error.strerror})") from None
    return found


def _call(command: list[str]) -> None:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise Uncompiled(f"{command[0]} took more than {SECONDS} s") from None
    if ended.returncode:
        said = next((line for line in ended.stderr.splitlines() if "error" in line), ended.stderr.strip()[:200])
        raise Uncompiled(f"{command[0]} cannot compile it ({said})")


def _openmp() -> str:
    """The OpenMP that torch has loaded."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise Uncompiled(f"{platform.system()} does not tell which OpenMP torch has loaded") from None
    found = sorted(set(re.findall(r"/\S*lib(?:gomp|iomp5|omp)\b\S*", maps)), key=lambda path: "torch" not in path)
    if not found:
        raise Uncompiled("torch has loaded no OpenMP")
    return found[0]


@lru_cache(maxsize=1)
def _processor() -> str:
    """What -march=native looks at: a cache may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    wanted = ("flags", "Features", "model name", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))
