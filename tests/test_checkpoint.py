"""A checkpoint is whole or not there, whatever happens to the process, the disk and the files."""

from __future__ import annotations

import builtins
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pggrpo_cli import checkpoint as module
from pggrpo_cli import manifest, whole_folder
from pggrpo_cli.checkpoint import clean_leftovers, load_checkpoint, newest_checkpoint, purge, save_checkpoint
from pggrpo_cli.errors import CheckpointError

STATES = {
    "updater": {"scheduler": {"updates": 3}, "bad": 0, "ema": torch.tensor([1.5, float("nan")])},
    "reference/cache": {"a/b": torch.arange(6, dtype=torch.int64).view(2, 3)},
    "empty": {},
}


def export(folder: Path) -> None:
    save_file({"weight": torch.ones(3, 2)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    (folder / "templates").mkdir()
    (folder / "templates" / "chat.jinja").write_text("{{ messages }}")


def save(folder: Path, step: int, **changes: Any) -> Path:
    arguments: dict[str, Any] = {
        "export": export,
        "optimizer_tensors": {"weight/exp_avg": torch.randn(3, 2), "weight/step": torch.tensor(float(step))},
        "component_states": {"updater": STATES["updater"], "empty": {}},
        "progress": {"step": step, "best": {}},
    }
    return save_checkpoint(folder, step, **{**arguments, **changes})


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*"))


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("step-*"))


def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    tensors = {"a/x": shared, "b/x": shared[:2], "c/y": torch.randn(3, 2).T, "d/step": torch.tensor(2.0)}
    states = {"updater": STATES["updater"], "cache": STATES["reference/cache"], "empty": {}}
    path = save(tmp_path, 12, optimizer_tensors=tensors, component_states=states, progress={"step": 12, "x": 0.1})
    assert path == tmp_path / "step-000012"
    assert hidden(tmp_path) == []
    found = load_checkpoint(path)
    assert (found.path, found.step, found.progress) == (path, 12, {"step": 12, "x": 0.1})
    assert found.optimizer_tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.optimizer_tensors[name].dtype == tensor.dtype
        assert torch.equal(found.optimizer_tensors[name], tensor)
    assert found.component_states["empty"] == {}
    assert found.component_states["updater"]["scheduler"] == {"updates": 3}
    assert found.component_states["updater"]["ema"].isnan().tolist() == [False, True]
    assert torch.equal(found.component_states["cache"]["a/b"], STATES["reference/cache"]["a/b"])
    assert torch.equal(load_file(path / "model.safetensors")["weight"], torch.ones(3, 2))


def test_optimizer_without_state(tmp_path: Path) -> None:
    assert load_checkpoint(save(tmp_path, 1, optimizer_tensors={})).optimizer_tensors == {}


def test_what_json_cannot_hold_is_a_bug_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save(tmp_path, 1, progress={"x": float("nan")})
    assert (hidden(tmp_path), steps(tmp_path)) == ([], [])


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


@pytest.mark.fault("T8")
def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    files = files_of(path)
    assert len(files) == 7
    for file in files:
        whole = file.read_bytes()
        for place in {0, len(whole) // 3, len(whole) // 2, len(whole) - 2}:
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(CheckpointError, match=file.name):
                load_checkpoint(path)
        file.write_bytes(whole)
    load_checkpoint(path)


@pytest.mark.fault("T8")
def test_truncated_empty_and_missing_files_are_named(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    for file in files_of(path):
        whole = file.read_bytes()
        for damage in (whole[:-2], b""):
            file.write_bytes(damage)
            with pytest.raises(CheckpointError, match=file.name):
                load_checkpoint(path)
        file.unlink()
        with pytest.raises(CheckpointError, match=rf"{file.name} is missing"):
            load_checkpoint(path)
        file.write_bytes(whole)
    with pytest.raises(CheckpointError, match="no such folder") as caught:
        load_checkpoint(tmp_path / "step-000002")
    assert caught.value.exit_code == 4


@pytest.mark.fault("T8")
def test_files_outside_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    outside = tmp_path / "outside"
    shutil.move(path / "model.safetensors", outside)
    (path / "model.safetensors").symlink_to(outside)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a link"):
        load_checkpoint(path)


def rewritten_manifest(path: Path, **changes: Any) -> None:
    body = json.loads((path / "manifest.json").read_text())
    del body["sha256"]
    body |= changes
    (path / "manifest.json").write_text(json.dumps({**body, "sha256": manifest._digest(body)}))


@pytest.mark.fault("T10")
def test_a_newer_format_is_not_taken_for_broken(tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    rewritten_manifest(path, format_version=manifest.FORMAT_VERSION + 1, pggrpo_version="9.1.0")
    for attempt in (lambda: load_checkpoint(path), lambda: newest_checkpoint(tmp_path)):
        with pytest.raises(CheckpointError, match=r"made by pggrpo 9\.1\.0, needs ≥ 9\.1\.0"):
            attempt()


@pytest.mark.fault("T8")
def test_paths_that_lead_out_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (tmp_path / "secret").write_text("x")
    rewritten_manifest(path, files={"../secret": {"size": 1, "sha256": manifest.sha256(tmp_path / "secret")}})
    with pytest.raises(CheckpointError, match="outside"):
        load_checkpoint(path)


@pytest.mark.fault("T8")
def test_newest_skips_broken_ones_loudly(tmp_path: Path) -> None:
    said: list[str] = []
    assert newest_checkpoint(tmp_path / "nowhere", said.append) is None
    first, second, third = (save(tmp_path, step) for step in (3, 20, 100))
    (tmp_path / ".tmp-step-000200-1").mkdir()
    (tmp_path / "step-notes").mkdir()
    assert newest_checkpoint(tmp_path, said.append) == third
    assert said == []
    (third / "manifest.json").unlink()
    (second / "optimizer.safetensors").write_bytes(b"")
    assert newest_checkpoint(tmp_path, said.append) == first
    assert len(said) == 2
    assert "step-000100: manifest.json is missing" in said[0]
    assert "optimizer.safetensors" in said[1]
    shutil.rmtree(first)
    assert newest_checkpoint(tmp_path, said.append) is None


def test_purge_keeps_the_last_and_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step)
    (tmp_path / "step-000004" / "manifest.json").unlink()
    purge(tmp_path, 2, 1)
    assert steps(tmp_path) == ["step-000001", "step-000003", "step-000005"]
    assert hidden(tmp_path) == []
    said: list[str] = []
    monkeypatch.setattr(module.shutil, "rmtree", refuse)
    purge(tmp_path, 1, None, said.append)
    assert steps(tmp_path) == ["step-000005"]
    assert len(said) == 2
    assert "could not be deleted" in said[0]
    purge(tmp_path, None, None)
    assert steps(tmp_path) == ["step-000005"]


def refuse(*arguments: Any, **options: Any) -> None:
    raise OSError(errno.EIO, "input/output error")


@pytest.mark.fault("T2")
def test_what_an_interrupted_save_left_goes_at_the_next(tmp_path: Path) -> None:
    first = save(tmp_path, 1)
    (tmp_path / ".tmp-step-000002-77").mkdir()
    (tmp_path / ".trash-step-000000-77").mkdir()
    os.rename(first, tmp_path / ".replaced-step-000001-77")
    assert newest_checkpoint(tmp_path) == tmp_path / ".replaced-step-000001-77"
    clean_leftovers(tmp_path)
    assert (hidden(tmp_path), steps(tmp_path)) == ([], ["step-000001"])
    load_checkpoint(first)
    shutil.copytree(first, tmp_path / ".replaced-step-000001-77")
    save(tmp_path, 2)
    assert (hidden(tmp_path), steps(tmp_path)) == ([], ["step-000001", "step-000002"])


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    (tmp_path / "step-000001").mkdir()
    save(tmp_path, 1)
    save(tmp_path, 1, progress={"again": True})
    assert load_checkpoint(tmp_path / "step-000001").progress == {"again": True}
    assert hidden(tmp_path) == []


def test_going_back_sets_later_steps_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        save(tmp_path, 16)
        save(tmp_path, 12)
    assert steps(tmp_path) == ["step-000012"]
    assert {path.name for path in tmp_path.glob("abandoned-*")} == {"abandoned-step-000016", "abandoned-step-000016-2"}
    assert "step 12 left" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:626] . unexpected pos 640 vs 534"),
    ],
)
@pytest.mark.fault("T6")
def test_every_guise_of_a_full_disk(tmp_path: Path, error: Exception) -> None:
    def fail(folder: Path) -> None:
        (folder / "part").write_bytes(b"x")
        raise error

    first = save(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"step 2 .* disk is full, \d+\.\d\d GB are free"):
        save(tmp_path, 2, export=fail)
    assert (hidden(tmp_path), steps(tmp_path)) == ([], ["step-000001"])
    load_checkpoint(first)


@pytest.mark.fault("T6")
def test_a_disk_too_small_is_noticed_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = save(tmp_path, 1)
    size = sum(file.stat().st_size for file in files_of(first))
    usage = shutil._ntuple_diskusage(10 * size, 9 * size, int(1.1 * size))  # type: ignore[attr-defined]
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    written: list[Path] = []
    with pytest.raises(CheckpointError, match="disk is full"):
        save(tmp_path, 2, export=written.append)
    assert written == []


def test_other_refusals_and_bugs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not be saved"):
        save(tmp_path / "file", 1)

    def bug(folder: Path) -> None:
        raise RuntimeError("tensors share memory")

    with pytest.raises(RuntimeError, match="share memory"):
        save(tmp_path, 1, export=bug)
    assert hidden(tmp_path) == []


class Killed(BaseException):
    """The process is gone: from here on none of its calls has an effect."""


CALLS: list[tuple[Any, str]] = [
    (os, "fsync"),
    (os, "rename"),
    (os, "mkdir"),
    (builtins, "open"),
    (module, "save_file"),
    (shutil, "rmtree"),
    (Path, "write_text"),
]


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, nth: int, error: BaseException) -> Iterator[list[int]]:
    """The nth call of CALLS raises `error`; if that is Killed, all later ones raise too."""
    count = [0]

    def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] == nth or (isinstance(error, Killed) and count[0] > nth):
                raise error
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for owner, name in CALLS:
            patch.setattr(owner, name, wrapped(getattr(owner, name)))
        yield count


@pytest.mark.fault("T2")
def test_everything_is_on_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    flush, rename = whole_folder.flush, os.rename

    def noted_flush(path: Path) -> None:
        events.append(path.name)
        flush(path)

    def noted_rename(source: Path, target: Path) -> None:
        events.append(f"rename to {target.name}")
        rename(source, target)

    for owner in (module, whole_folder):
        monkeypatch.setattr(owner, "flush", noted_flush)
    monkeypatch.setattr(os, "rename", noted_rename)
    path = save(tmp_path, 1)
    names = {entry.name for entry in path.rglob("*")} - {"manifest.json"}
    assert set(events[: len(names)]) == names
    temporary = f".tmp-{path.name}-{os.getpid()}"
    assert events[len(names) :] == ["manifest.json", temporary, f"rename to {path.name}", tmp_path.name]


@pytest.mark.parametrize("error", [Killed(), OSError(errno.ENOSPC, "No space left on device")], ids=["kill", "full"])
@pytest.mark.parametrize("again", [False, True], ids=["new step", "same step"])
@pytest.mark.fault("T2")
def test_no_matter_which_call_is_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, again: bool
) -> None:
    """Previous or new checkpoint, never a mix, never none; the next save works and leaves no rest."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # still counted, but a disk is slow
    for nth in range(1, 100):
        folder = tmp_path / str(nth)
        save(folder, 1, progress={"attempt": "first"})
        step = 1 if again else 2
        with failing(monkeypatch, nth, error) as count, suppress(Killed, CheckpointError):
            save(folder, step, progress={"attempt": "second"})
            purge(folder, 1, None)
        newest = newest_checkpoint(folder)
        assert newest is not None
        found = load_checkpoint(newest)
        assert (found.step, found.progress) in [(1, {"attempt": "first"}), (step, {"attempt": "second"})]
        if not isinstance(error, Killed):
            assert [name for name in hidden(folder) if name.startswith(".tmp")] == []
        save(folder, 3, progress={"attempt": "third"})
        purge(folder, 1, None)
        assert (hidden(folder), steps(folder)) == ([], ["step-000003"])
        if count[0] < nth:
            break
    assert nth > 20
