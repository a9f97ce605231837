"""The C code of this package, compiled on the machine that runs it, once, and kept in the cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import torch

from pggrpo_cli.cache import cache_folder
from pggrpo_cli.saying import saying

HERE = Path(__file__).parent

SOURCES = ("decode.c", "choose.c", "head.c", "packed_attention.c", "layer.c")
HEADERS = ("vectors.h", "products.h", "attention.h", "tiles.h", "packed.h")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fPIC", "-std=gnu11")
SECONDS = 120
"""For one call of the compiler."""


class Uncompiled(Exception):
    """Why there is no compiled code here, in a few words."""


class NoCompiler(Uncompiled):
    """Something that can be mended by installing one."""


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


def library(*, bfloat16: bool) -> ctypes.CDLL:
    """Raises Uncompiled where there is no compiler, no OpenMP of torch's, a processor that lacks the instructions, or where
    $PGGRPO_COMPILED says never."""
    if os.environ.get("PGGRPO_COMPILED") == "never":
        raise Uncompiled("$PGGRPO_COMPILED says never")
    found = _library(bfloat16)
    if isinstance(found, str):
        raise Uncompiled(found)
    return found


def code_name(*, bfloat16: bool) -> str:
    """Of the compiled code, another for another compiler, processor or source; or "torch: " and why there is none."""
    try:
        return Path(library(bfloat16=bfloat16)._name).stem
    except Uncompiled as reason:
        return f"torch: {reason}"


@lru_cache(maxsize=2)
def _library(bfloat16: bool) -> ctypes.CDLL | str:
    """Once a process; the reason where there is none."""
    try:
        if bfloat16 and "avx512_bf16" not in _processor():
            raise Uncompiled("the processor has no AVX512-BF16")
        # The team of threads must be torch's own: two would take the processors from each other.
        ctypes.CDLL(_openmp(), mode=ctypes.RTLD_GLOBAL)
        return _loaded(compiler(), bfloat16)
    except Uncompiled as reason:
        return str(reason)
    except (OSError, subprocess.SubprocessError) as error:
        return f"it cannot be used ({error})"


def _loaded(program: list[str], bfloat16: bool) -> ctypes.CDLL:
    found = _place(program, bfloat16)
    if found.exists() and _is_ours(found):
        try:
            return _declared(ctypes.CDLL(str(found)))
        except OSError:  # cut off by a full disk, or built for another C library
            found.unlink()
    return _declared(_compiled(program, bfloat16, found))


def _declared(loaded: ctypes.CDLL) -> ctypes.CDLL:
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


def compiler() -> list[str]:
    """Its command. Raises Uncompiled."""
    for words in (shlex.split(os.environ.get("CC", "")), ["cc"], ["gcc"]):
        if words and shutil.which(words[0]):
            return words
    raise NoCompiler("there is no C compiler (cc, gcc or $CC)")


def _place(program: list[str], bfloat16: bool) -> Path:
    """In the cache; the name says all that the code depends on."""
    version = subprocess.run([*program, "--version"], capture_output=True, timeout=SECONDS).stdout
    sources = b"".join((HERE / name).read_bytes() for name in (*SOURCES, *HEADERS))
    parts = (sources, version, " ".join(_flags(bfloat16)).encode(), _processor().encode())
    return cache_folder() / "compiled" / f"{hashlib.sha256(bytes(0).join(parts)).hexdigest()[:20]}.so"


def _is_ours(file: Path) -> bool:
    """Whether nobody else could have written it: a cache may be shared."""
    for place in (file, file.parent):
        about = place.stat()
        if about.st_uid not in (os.getuid(), 0) or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Uncompiled(f"others may write {place}; set $PGGRPO_CACHE to a folder of your own")
    return True


def _flags(bfloat16: bool) -> tuple[str, ...]:
    return (*FLAGS, f"-DBFLOAT16={int(bfloat16)}")


def _compiled(program: list[str], bfloat16: bool, target: Path) -> ctypes.CDLL:
    """Loaded, then put in place: another process sees a whole file that works or none."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch_folder = tempfile.TemporaryDirectory(dir=target.parent)
    except OSError as error:
        raise Uncompiled(f"{target.parent} cannot be written ({error.strerror})") from None
    with scratch_folder as scratch:
        whole = Path(scratch) / "whole.so"
        objects = [str(Path(scratch) / f"{name}.o") for name in SOURCES]
        commands = [
            [*program, *_flags(bfloat16), "-fopenmp", "-c", str(HERE / name), "-o", place]
            for name, place in zip(SOURCES, objects, strict=True)
        ]
        with saying("compiling …"), ThreadPoolExecutor(len(commands)) as at_once:
            list(at_once.map(_call, commands))
        # Linked without -fopenmp, which would name the compiler's OpenMP.
        _call([*program, "-shared", *objects, "-lm", "-o", str(whole)])
        ctypes.CDLL(str(whole))
        whole.chmod(0o700)
        whole.rename(target)
    _is_ours(target)
    return ctypes.CDLL(str(target))


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
    paths = dict.fromkeys(line.split(maxsplit=5)[5] for line in maps.splitlines() if line.count("/"))
    found = [path for path in paths if re.search(r"/lib(gomp|iomp5|omp)\b[^/]*$", path)]
    torchs = Path(torch.__file__).parent
    if not found:
        raise Uncompiled("torch has loaded no OpenMP")
    return min(found, key=lambda path: not path.startswith((f"{torchs}/", f"{torchs}.libs/")))


@lru_cache(maxsize=1)
def _processor() -> str:
    """What -march=native looks at: a cache may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    wanted = ("flags", "Features", "model name", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))
