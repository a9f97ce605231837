"""pggrpo generate: what is printed where, from what prompts, and its refusals; groups against the run's own."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pggrpo_cli import train
from pggrpo_cli.cli import main
from pggrpo_cli.composing import compose
from tests.command_line import run, run_all

TINY = ["tiny", "model.init_std=0.5", "sampler.max_new_tokens=12"]
WORDS = [
    *("debug=fast", "logger=[]", "model.init_std=0.5", "trainer.max_steps=3", "checkpoint.keep_last=5", "seed=4"),
    *("reward=[repetition,length]", "reward.repetition.unit=token", "reward.repetition.ngram_size=1"),
    *("sampler.max_new_tokens=8", "sampler.group_size=4", "trainer.prompts_per_step=3", "optimizer.lr=0.01"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate") / "run"
    train(compose("train", WORDS), run_dir=folder)
    return folder


def lines(*words: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["generate", *words, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_text_and_objects_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = lines(*TINY, "One", "Two", capsys=capsys)
    assert main(["generate", *TINY, "One", "Two"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{first['completion']}\n{second['completion']}\n"
    assert first["completion"] != second["completion"]
    assert "2 completions, 24 tokens in" in said.err
    assert first["prompt"] == [{"role": "user", "content": "One"}]
    assert (first["sample"], first["finish_reason"], len(first["completion_ids"])) == (0, "length", 12)


def test_samples_seed_and_greedy(capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> list[list[int]]:
        return [one["completion_ids"] for one in lines(*TINY, "Hello", *words, capsys=capsys)]

    several = said("--samples", "3")
    assert len({tuple(ids) for ids in several}) == 3
    assert said() == several[:1]
    assert said("--seed", "9") != several[:1]
    assert said("--greedy") == said("--greedy", "--seed", "9") == said("sampler.temperature=0")
    assert len(said("--max-new-tokens", "5")[0]) == 5


def test_a_model_speaks_longer_than_a_training_unless_told(capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = lines("tiny", "model.context_length=64", "model.init_std=0.5", "Hi", capsys=capsys)
    assert len(one["completion_ids"]) == 32  # half of the context


@pytest.mark.slow
def test_system_prompt_raw_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    def prompt(*words: str) -> Any:
        return lines(*TINY, "Hi", *words, capsys=capsys)[0]["prompt"]

    assert prompt("--system", "Be brief.")[0] == {"role": "system", "content": "Be brief."}
    assert prompt("--raw") == "Hi"
    # chain_sum's suffix is for its own questions, not for those of a model that is no run's
    assert prompt("data.prompt_suffix='!'") == [{"role": "user", "content": "Hi"}]


def test_a_run_asks_as_in_training(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = lines(str(finished), "3 + 4 =", capsys=capsys)
    assert one["prompt"][0]["content"] == "3 + 4 = Answer with only the number."
    (bare,) = lines(str(finished), "3 + 4 =", "data.prompt_suffix=", capsys=capsys)
    assert bare["prompt"][0]["content"] == "3 + 4 ="
    assert main(["generate", str(finished), "3 + 4 ="]) == 0
    assert "' Answer with only the number.' is put behind each prompt" in capsys.readouterr().err


@pytest.mark.slow
def test_prompts_of_the_data(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = lines(str(finished), "--rows", "1:3", capsys=capsys)
    assert first["answer"] != second["answer"] or first["prompt"] != second["prompt"]
    assert first["prompt"][0]["content"].endswith(" Answer with only the number.")
    (other,) = lines(str(finished), "--data", "--rows", "1", "--split", "train", capsys=capsys)
    assert other["prompt"] != first["prompt"]


@pytest.mark.slow
def test_files_and_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "q.jsonl").write_text('{"prompt": "a", "answer": "7"}\n{"prompt": "b", "answer": "8"}\n')
    both = lines(*TINY, "--file", str(tmp_path / "q.jsonl"), capsys=capsys)
    assert [one["answer"] for one in both] == ["7", "8"]
    (second,) = lines(*TINY, "--file", str(tmp_path / "q.jsonl"), "--rows", "1", capsys=capsys)
    assert second["answer"] == "8"
    monkeypatch.setattr("sys.stdin", io.StringIO("two\nlines\n"))
    (piped,) = lines(*TINY, capsys=capsys)
    assert piped["prompt"][0]["content"] == "two\nlines"
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["generate", *TINY]) == 2
    assert "nothing was piped in" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_said_can_be_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "q.jsonl").write_text('{"prompt": "a", "answer": "7"}\n')
    assert main(["generate", *TINY, "--file", str(tmp_path / "q.jsonl"), "--samples", "2", "--json"]) == 0
    (tmp_path / "c.jsonl").write_text(capsys.readouterr().out)
    assert main(["reward", "test", "--completions", str(tmp_path / "c.jsonl"), "--json"]) == 0
    scored = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["group"] for one in scored] == [0, 0]


def test_a_terminal_is_not_steered(monkeypatch: pytest.MonkeyPatch) -> None:
    from pggrpo_cli.generating.answer_display import TextDisplay
    from pggrpo_cli.generating.aside import Aside
    from tests.conftest import make_prompts

    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    display = TextDisplay(make_prompts([[1]]), 1, 9, Aside())
    display.begin(0, 0)
    for piece in ("a\x1b", "[2J[/bold]\x9b1mm\r", "\n\tb\u202e"):
        display.write(piece)
    display.end([1], "…", "stop")
    assert out.getvalue() == "a[2J[/bold]m\n    b\n"


def typed(monkeypatch: pytest.MonkeyPatch, texts: list[str | type[BaseException]]) -> Terminal:
    """A person who types these and then Ctrl-D."""
    out, left = Terminal(), iter(texts)

    def read(mark: str) -> str:
        one = next(left, EOFError)
        if isinstance(one, str):
            return one
        raise one

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", out)
    return out


def test_a_person_types(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (one["completion"] for one in lines(*TINY, "One", "Two", "--seed", "3", capsys=capsys))
    (alone,) = lines(*TINY, "Two", "--seed", "3", capsys=capsys)
    assert alone["completion"] != second  # what comes second has random numbers of its own
    out = typed(monkeypatch, ["One", "", KeyboardInterrupt, "x" * 600, "Two"])
    assert main(["generate", *TINY, "--seed", "3"]) == 0
    from pggrpo_cli.printable import printable

    shown = [printable(text.replace("\t", "    ")) for text in (first, second)]
    assert out.getvalue() == "".join(text if text.endswith("\n") else f"{text}\n" for text in shown)
    err = capsys.readouterr().err
    assert "Ctrl-C stops an answer, Ctrl-D ends" in err
    assert "leaves 500 beside 12 new ones" in err  # and the loop goes on
    assert err.count("12 tokens in") == 2


def interrupting(after: int) -> Callable[..., str]:
    """A write that a Ctrl-C comes into."""
    from pggrpo_cli.generating.answer_display import TextDisplay

    written: list[str] = []
    own = TextDisplay.write

    def write(self: TextDisplay, text: str) -> None:
        own(self, text)
        written.append(text)
        if len(written) == after:
            raise KeyboardInterrupt

    return write  # type: ignore[return-value]


def test_ctrl_c_keeps_what_was_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (whole,) = (one["completion"] for one in lines(*TINY, "One", capsys=capsys))
    monkeypatch.setattr("pggrpo_cli.generating.answer_display.TextDisplay.write", interrupting(3))
    assert main(["generate", *TINY, "One"]) == 130
    said = capsys.readouterr().out
    assert said.endswith("\n")
    assert 0 < len(said) - 1 < len(whole)
    assert whole.startswith(said[:-1])


def test_ctrl_c_ends_an_answer_and_not_the_talk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, ["One", "Two"])
    monkeypatch.setattr("pggrpo_cli.generating.answer_display.TextDisplay.write", interrupting(3))
    assert main(["generate", *TINY]) == 0
    err = capsys.readouterr().err
    assert "stopped" in err
    assert err.count("12 tokens in") == 1


def test_groups_of_a_step_are_those_that_the_run_had(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = [json.loads(line) for line in (finished / "samples.jsonl").read_text().splitlines()]
    for step in (1, 3):
        own = [line for line in recorded if line["step"] == step and not line["held_out"]]
        assert len(own) == 12
        for rows, expected in (("0:3", own), ("2", own[8:])):
            seen = lines(str(finished), "--group", "--step", str(step), "--rows", rows, capsys=capsys)
            for one, line in zip(seen, expected, strict=True):
                for key in (
                    "prompt_index",
                    "sample",
                    "prompt",
                    "completion",
                    "finish_reason",
                    "reward",
                    "reward_terms",
                ):
                    assert one[key] == line[key], key
                assert one["advantage"] == pytest.approx(line["advantage"])
                assert one["recorded"] == line["completion"]
    assert len({line["reward"] for line in own}) > 1


def test_a_group_is_shown(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for width in ("100", "40"):
        monkeypatch.setenv("COLUMNS", width)
        assert main(["generate", str(finished), "--group", "--rows", "0:2", "reward.length.weight=0.5"]) == 0
        said = capsys.readouterr()
        assert max(map(len, said.out.splitlines())) <= int(width)
        text = " ".join(said.out.split())
        assert text.count("advantage") == 8
        assert "×0.5" in text
        assert "Answer with only the number.<|end|><|assistant|>" in text.replace(" <|", "<|")
        assert "signal" in text
    assert "sampled as in step 4" in " ".join(said.err.split())


@pytest.mark.slow
def test_pairs_of_a_group(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = lines("tiny", "model.init_std=0.5", "loss=dpo", "reward=repetition", "reward.repetition.unit=token",
        "reward.repetition.ngram_size=1", "--group", capsys=capsys)  # fmt: skip
    rewards = [one["reward"] for one in seen]
    (best,) = [one for one in seen if one["chosen_over"]]
    (worst,) = best["chosen_over"]
    assert (best["reward"], rewards[worst]) == (max(rewards), min(rewards))
    assert [one["trained"] for one in seen] == [one["sample"] in (best["sample"], worst) for one in seen]


@pytest.mark.slow
def test_a_group_of_given_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "q.jsonl").write_text('{"prompt": "3 + 4 =", "answer": "7"}\n')
    words = ["tiny", "model.init_std=0.5", "--group", "--file", str(tmp_path / "q.jsonl"), "sampler.group_size=3"]
    seen = lines(*words, "reward=[exact_answer,length]", capsys=capsys)
    assert len(seen) == 3
    assert seen[0]["reward_terms"].keys() == {"exact_answer", "length"}
    mean = math.fsum(one["reward"] for one in seen) / 3
    assert [one["advantage"] for one in seen] == pytest.approx([one["reward"] - mean for one in seen], abs=1e-6)
    (tmp_path / "q.jsonl").write_text('{"prompt": "3 + 4 ="}\n')
    assert main(["generate", *words]) == 2
    assert "answer" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "said"), [
    (["nowhere", "a"], "is no run, checkpoint, model folder"),
    (["smollm2_135", "a"], "Did you mean smollm2_135m"),
    (["tiny", "--checkpoint", "best", "a"], "`--checkpoint`: tiny is no run"),
    (["tiny", " "], "`prompt`: the prompt is empty"),
    (["tiny", "a", "--smaples", "3"], "Did you mean --samples?"),
    (["tiny", "a", "sampler.tempature=1"], "Did you mean sampler.temperature?"),
    (["tiny", "a", "--samples", "0"], "`--samples`: 0 is less than 1"),
    (["tiny", "a", "--samples", "2", "--greedy"], "would be the same"),
    (["tiny", "a", "--max-new-tokens", "512"], "`--max-new-tokens`: 512 leaves no room"),
    (["tiny", "a" * 600], "`prompt 1`: has 6"),
    (["tiny", "why", "is", "it", "--max-new-tokens", "512"], "3 prompts of one word each"),
    (["tiny", "--file", "nowhere.txt"], "`--file`: nowhere.txt does not exist"),
    (["tiny", "a", "--file", "x"], "prompts come from one of them"),
    (["tiny", "a", "--data"], "prompts come from one of them"),
    (["tiny", "--rows", "70"], "there are 64 held-out rows, 0 to 63"),
    (["tiny", "--rows", "1-3"], "`--rows`: '1-3' is none of"),
    (["tiny", "--data", "data.eval_size=0"], "holds no rows out"),
    (["tiny", "a", "--raw", "--system", "b"], "--raw takes the prompt as it stands"),
    (["tiny", "a", "--step", "3"], "it goes with --group"),
    (["tiny", "a", "--group"], "has no columns for the rewards"),
    (["tiny", "--group", "--samples", "3"], "sampler.group_size=N"),
    (["tiny", "--group", "--system", ""], "`--system`: --group takes data.system_prompt"),
    (["tiny", "--group", "--step", "1"], "tiny is no run"),
    (["tiny", "--group", "sampler.group_size=1"], "leaves nothing to compare"),
])  # fmt: skip
def test_refusals(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", *words]) == 2
    caught = capsys.readouterr()
    assert said in caught.err
    assert caught.out == ""


def test_a_folder_of_runs_is_none(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(finished.parent), "hi"]) == 2
    assert f"It holds runs; give one of them, such as {finished}" in capsys.readouterr().err
    assert main(["generate", str(finished / "checkpoints"), "hi"]) == 2
    assert "which would hold a config.json" in capsys.readouterr().err


def test_steps_that_are_not_there(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(finished), "--group", "--step", "9"]) == 4
    assert (
        "`--step`: 9 cannot be sampled again, as the run is at step 3. Those that can: 1, " in capsys.readouterr().err
    )


def of_somebody(finished: Path, folder: Path, changes: dict[str, Any]) -> Path:
    """A run with the checkpoints of another, and a configuration that was changed on disk."""
    stranger = folder / "run"
    stranger.mkdir(exist_ok=True)
    if not (stranger / "checkpoints").exists():
        (stranger / "checkpoints").symlink_to(finished / "checkpoints")
    values = yaml.safe_load((finished / "config.yaml").read_text())
    (stranger / "config.yaml").write_text(yaml.safe_dump(values | changes))
    return stranger


@pytest.mark.fault("T30")
def test_code_of_a_run_is_not_run_unasked(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for group, node in (("reward", {"x": {"_target_": "os.system", "command": f"touch {tmp_path}/canary"}}),
                        ("sampler", {"_target_": "os.system", "command": f"touch {tmp_path}/canary"})):  # fmt: skip
        stranger = of_somebody(finished, tmp_path, {group: node})
        assert main(["generate", str(stranger), "--group"]) == 2
        assert "security.allow_targets=[os.system]" in capsys.readouterr().err
        # An answer needs no reward, so one of somebody's own is in nobody's way; the sampler is needed.
        assert main(["generate", str(stranger), "Hi"]) == (0 if group == "reward" else 2)
        capsys.readouterr()
    assert not (tmp_path / "canary").exists()


@pytest.mark.fault("T30")
def test_data_of_a_run_are_looked_at_only_if_their_code_may_run(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the run's prompts may be plain texts, its data tell how a prompt of the line is meant."""
    canary = tmp_path / "canary"
    (tmp_path / "mine.py").write_text(f"open({str(canary)!r}, 'w')\ndef keep(answer):\n    return True\n")
    (tmp_path / "q.jsonl").write_text('{"prompt": "3 + 4 ="}\n{"prompt": "3 + 5 ="}\n')
    node = yaml.safe_load((finished / "config.yaml").read_text())["data"]
    node = {key: node[key] for key in ("max_prompt_tokens", "overlong", "where", "deduplicate", "limit")} | {
        "_target_": "pggrpo_cli.data.jsonl.Jsonl", "path": str(tmp_path / "q.jsonl"), "eval_path": None, "eval_size": 1,
        "columns": {}, "as_chat": False, "streaming": False, "system_prompt": None, "prompt_suffix": "",
        "keep": {"path": str(tmp_path / "mine.py"), "name": "keep"},
    }  # fmt: skip
    stranger = str(of_somebody(finished, tmp_path, {"data": node}))
    chat = [{"role": "user", "content": "Hi"}]
    assert main(["generate", stranger, "Hi"]) == 2
    said = capsys.readouterr().err
    assert "`data.keep" in said
    assert "--raw, or data.as_chat=true" in said
    for words, prompt in ((["--raw"], "Hi"), (["data.as_chat=true"], chat)):
        assert lines(stranger, "Hi", *words, capsys=capsys)[0]["prompt"] == prompt
    assert not canary.exists()

    (one,) = lines(stranger, "Hi", "security.allow_targets=[pggrpo_cli.filters.Sieve]", capsys=capsys)
    assert one["prompt"] == "Hi"  # as the run's own are
    assert canary.exists()

    (tmp_path / "q.jsonl").unlink()
    stranger = str(of_somebody(finished, tmp_path, {"data": node | {"keep": {"path": None, "name": None}}}))
    assert main(["generate", stranger, "Hi", "--json"]) == 0
    there = capsys.readouterr()
    assert json.loads(there.out)["prompt"] == chat
    assert "taken as a user's message" in there.err
    assert f"{tmp_path / 'q.jsonl'} does not exist" in there.err


def test_refusals_load_no_torch(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text("{\n")
    commands = [["--help"], ["tiny", "a", "--smaples", "1"], ["tiny", "--file", "q.jsonl"], ["tiny", "seeed=3"],
                ["nowhere", "a"], ["tiny", "sampler.top_p=2", "a"]]  # fmt: skip
    for code, _, err, heavy in run_all([["generate", *words] for words in commands], tmp_path):
        assert code == (0 if not err else 2)
        assert heavy == []


@pytest.mark.slow
def test_whoever_reads_may_go_away(tmp_path: Path) -> None:
    """`| head -1`: the program ends quietly."""
    import subprocess

    from tests.command_line import environment

    command = f"{sys.executable} -m pggrpo_cli generate tiny model.init_std=0.5 a --samples 40 | head -1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=tmp_path, env=environment(), capture_output=True, timeout=60
    )
    assert done.stdout.count(b"\n") == 1
    assert b"Traceback" not in done.stderr
    assert done.returncode == 141


def test_a_closed_stderr_is_no_matter(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = lines(*TINY, "Hi", capsys=capsys)
    monkeypatch.setattr(sys, "stderr", None)  # as Python has it after `2>&-`
    assert main(["generate", *TINY, "Hi"]) == 0
    assert capsys.readouterr().out == f"{one['completion']}\n"


@pytest.mark.slow
def test_only_completions_go_to_stdout(tmp_path: Path) -> None:
    done = run(["generate", *TINY, "--greedy", "Hi"], tmp_path)
    assert done.returncode == 0
    assert "tiny (random llama" in done.stderr
    assert "12 tokens in" in done.stderr
    assert len(done.stdout.splitlines()) >= 1
    assert "tokens" not in done.stdout
