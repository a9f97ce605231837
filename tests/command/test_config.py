"""`pggrpo config`: lists, shows, copies, checks."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import yaml
from hydra.core.hydra_config import HydraConfig

from pggrpo_cli.cli import main
from pggrpo_cli.conf_files import comment_behind, commented, first_comment, group_comments, groups, key_comments
from pggrpo_cli.config import conf_dir
from tests.command_line import ROOT, make_groups, run_all

GOLDEN = ROOT / "tests" / "golden" / "0.1.0" / "run"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_shown_without_torch(tmp_path: Path) -> None:
    lines = [
        ["config", "--help"], ["config", "ls"], ["config", "ls", "loss"], ["config", "show", "loss/pg_grpo"],
        ["config", "show", "train"], ["config", "show", "loss=dapo", "trainer.max_steps=5"], ["config", "show"],
    ]  # fmt: skip
    found = run_all(lines, tmp_path)
    assert [(code, err, heavy) for code, _, err, heavy in found] == [(0, "", [])] * len(lines)
    outs = [out for _, out, _, _ in found]
    assert "usage: pggrpo config ls" in outs[0]
    for group, files in groups().items():
        assert f"\n{group}" in f"\n{outs[1]}"
        assert all(f" {name} " in outs[1] or f" {name}\n" in outs[1] for name in files)
    assert "loss: the objective" in outs[2]
    assert "  * pg_grpo     PG-GRPO: GRPO with the preference ratio" in outs[2]
    assert "    grpo        GRPO with the ratio of the whole completion" in outs[2]
    assert outs[3] == (conf_dir() / "loss" / "pg_grpo.yaml").read_text()
    assert outs[4] == (conf_dir() / "train.yaml").read_text()
    assert yaml.safe_load(outs[5])["loss"]["clip_high"] == 0.28
    assert yaml.safe_load(outs[5])["trainer"]["max_steps"] == 5
    assert yaml.safe_load(outs[6])["loss"]["beta"] == 0.1


def test_the_whole_configuration_has_the_comments_of_its_files(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "show", "loss=dapo", "reward=[exact_answer,overlong]"]) == 0
    out = capsys.readouterr().out
    for words in (
        "# auto | cpu | cuda | cuda:1",  # of train.yaml
        "# dual clip for negative advantages; null: off",  # of a group
        "# a number such as -1,234.5; the last match counts; its first group, if it has one",  # above its key
        "# multiplies the score …",  # two levels down
    ):
        assert words in out
    assert "divides the surrogate by β" not in out  # of pg_grpo, which was not chosen
    assert main(["train", "--help", "loss=dapo"]) == 0
    page = capsys.readouterr().out
    assert "# dual clip for negative advantages; null: off" in page
    assert "loss: cispo, dapo" in page


@pytest.mark.parametrize(("words", "said"), [
    (["shw"], "Did you mean show?"),
    (["ls", "los"], "`los`: there is no such group. Did you mean loss?"),
    (["show", "loss"], "write loss/OPTION. There are: cispo"),
    (["show", "loss/grop"], "Did you mean grpo?"),
    (["show", "loss=grop"], "Did you mean grpo?"),
    (["copy", "loss/grpo"], "DIR"),
    (["copy", "train", "my"], "GROUP/OPTION"),
    (["copy", "loss/grpo", "my", "--as", "pg_grpo"], "one of pggrpo's own"),
    (["copy", "loss/grpo", "my", "--as", "../x"], "letters, digits and _"),
    (["copy", "loss/grpo", "file"], "cannot be written"),
    (["ls", "--config-dir", "nowhere"], "no folder nowhere"),
    (["ls", "--confg-dir", "x"], "Did you mean --config-dir?"),
    (["validate", "sampler.top_p=2", "trainer.max_steps=0"], "`sampler.top_p`: 2 is not ≤ 1"),
    (["validate", "sampler.top_p=2", "trainer.max_steps=0"], "`trainer.max_steps`: 0 is not ≥ 1"),
    (["validate", "optimizer.lrr=1"], "Did you mean optimizer.lr?"),
    (["validate", "+optimizer.lrr=1"], "torch.optim.AdamW has no such key. Did you mean lr?"),
    (["validate", "nowhere.yaml"], "cannot be read"),
    (["validate", "odd.yaml"], "a file of a group"),
])  # fmt: skip
def test_refused(words: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "file").write_text("")
    (folder / "odd.yaml").write_text("a: 1\n")
    assert main(["config", *words]) == 2
    found = capsys.readouterr()
    assert said in found.err
    assert found.err.startswith("error: ")
    assert found.out == ""
    assert not (folder / "my").exists()


def test_a_copy_is_a_start_for_ones_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "copy", "loss/grpo", "my", "--as", "gentle"]) == 0
    assert "pggrpo train --config-dir my loss=gentle" in capsys.readouterr().out
    assert (folder / "my/loss/gentle.yaml").read_text() == (conf_dir() / "loss/grpo.yaml").read_text()
    assert main(["config", "copy", "loss/grpo", "my", "--as", "gentle"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["config", "copy", "reward/exact_answer", "my"]) == 0
    assert main(["config", "show", "--config-dir", "my", "loss=gentle", "reward=[exact_answer,my_exact_answer]"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out.partition("\nname: train")[2].join(["name: train", ""]))
    assert set(shown["reward"]) == {"exact_answer", "my_exact_answer"}
    for option, group in (("data/preference_jsonl", "data"), ("experiment/grpo_arithmetic", "experiment")):
        assert main(["config", "copy", option, "my"]) == 0
        assert (folder / "my" / group / f"my_{option.partition('/')[2]}.yaml").exists()
    assert main(["config", "ls", "experiment", "-cd", "my"]) == 0
    assert "my_grpo_arithmetic" in capsys.readouterr().out
    assert main(["config", "validate", "-cd", "my", "experiment=my_grpo_arithmetic"]) == 0


def test_valid(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_groups(folder / "mine")
    assert main(["config", "validate"]) == 0
    assert main(["config", "validate", "loss=grpo", "sampler.top_p=0.5"]) == 0
    assert main(["config", "validate", "mine/loss/other.yaml"]) == 0
    assert main(["config", "validate", "mine/reward/mine.yaml", "seed=2"]) == 0
    assert main(["config", "validate", str(GOLDEN)]) == 0
    assert capsys.readouterr().out.count("ok: ") == 5
    (folder / "mine/loss/other.yaml").write_text("{_target_: parts.Part, bta: 1}\n")
    assert main(["config", "validate", "mine/loss/other.yaml"]) == 2
    assert "Did you mean beta?" in capsys.readouterr().err


def test_a_strangers_run_is_checked_and_its_code_not_imported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(GOLDEN, "run")
    (folder / "evil.py").write_text("open('canary', 'w')\n")
    values = yaml.safe_load((folder / "run/config.yaml").read_text())
    values["loss"] = {"_target_": "evil.Loss"}
    (folder / "run/config.yaml").write_text(yaml.safe_dump(values))
    monkeypath = [*sys.path, str(folder)]
    sys.path[:] = monkeypath
    assert main(["config", "validate", "run/config.yaml"]) == 0
    assert "not looked into: evil.Loss" in capsys.readouterr().out
    assert not (folder / "canary").exists()
    values["sampler"]["temperature"] = -1
    (folder / "run/config.yaml").write_text(yaml.safe_dump(values))
    assert main(["config", "validate", "run/config.yaml"]) == 2
    assert "`sampler.temperature`" in capsys.readouterr().err


def test_every_file_of_ours_says_what_it_is() -> None:
    assert all(first_comment(file) for files in groups().values() for file in files.values())
    assert {"model", "data", "loss", "reward", "experiment"} <= group_comments().keys()


@pytest.mark.parametrize(("text", "comment"), [
    (" 1 # one", "one"),
    (' "a # b" # c', "c"),
    (" 'it''s # b'", ""),
    (" a#b", ""),
    (r' "a \" # b" # c', "c"),
    (" [a, '#'] # list", "list"),
])  # fmt: skip
def test_what_is_a_comment(text: str, comment: str) -> None:
    assert comment_behind(text) == comment


def test_comments_find_their_keys(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("# header\n# more\na: 1 # one\nb:   # two\n  # above\n  c: x\n  d:\n    - 1\ne: 2\n")
    found = key_comments(file, "p")
    assert found == {"p.a": "one", "p.b": "two", "p.b.c": "above"}
    shown = commented("p:\n  a: 1\n  b:\n    c: x\n    d:\n    - 1\n  e: 2\n", found)
    assert yaml.safe_load(shown) == {"p": {"a": 1, "b": {"c": "x", "d": [1]}, "e": 2}}
    assert [line.partition("# ")[2] for line in shown.splitlines()] == ["", "one", "two", "above", "", "", ""]


def test_what_is_shown_leaves_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    """From Python, a training after it lies in a directory of its own."""
    for words in (["config", "show", "loss=grpo"], ["train", "--help"], ["train", "--cfg", "job"]):
        assert main(words) == 0
        assert not HydraConfig.initialized()
    assert "kl_coef" in capsys.readouterr().out
