"""The page: its numbers, its escaping, its size, its bytes."""

from __future__ import annotations

import json
import math
import re
import statistics
from pathlib import Path

import numpy as np
import pytest
import yaml

from pggrpo_cli.report.grouping import grouped
from pggrpo_cli.report.page import render
from pggrpo_cli.report.run import Run, read_run
from tests.report.html_reading import Page
from tests.report.run_files import HOSTILE, held_out_rewards, make_run, metrics_of, samples_of, write_lines

CLOSE = {"rel": 1e-5}


def read(folder: Path) -> Run:
    return read_run(folder, folder.name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "single", "loss=grpo", "loss.kl_coef=0.5", steps=20)


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return render([read(folder)])


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_it_is_whole_and_asks_nothing_of_a_network(html: str, page: Page) -> None:
    assert page.open == []
    assert page.wrong == []
    assert not re.search(r"https?://|//cdn|@import|url\(", html)
    names = {name for _, attributes in page.elements for name in attributes}
    assert not names & {"src", "href", "style", "srcset", "action"}
    assert not [name for name in names if name.startswith("on")]
    (policy,) = [a["content"] for tag, a in page.elements if tag == "meta" and a.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert len(page.scripts) == 1
    assert len(page.scripts[0]) < 5000


CANARY = "Canary7x"


@pytest.mark.fault("T31")
def test_what_is_private_is_not_shown(tmp_path: Path) -> None:
    """Secrets and folders of the configuration, the words typed, and errors; in a page of one run and of several."""
    secrets = {
        "url": f"https://me:{CANARY}@h/score?token={CANARY}&x=1", "api_keys": [f"{CANARY}a"], "password": f"{CANARY}b",
        "headers": {"X": f"Bearer {CANARY}cdef"}, "extra": [{"client_secret": f"{CANARY}d"}], "path": f"/home/{CANARY}/m/q.jsonl",
    }  # fmt: skip
    folders = []
    for name in ("one", "two"):
        folder = make_run(tmp_path / name, steps=10)
        values = yaml.safe_load((folder / "config.yaml").read_text())
        values["loss"] |= {f"my_{key}": value for key, value in secrets.items()} | {
            "kl_coef": 0.5 if name == "one" else 0.25
        }
        values["loss"]["my_url"] += name
        words = [
            f"+loss.my_url=https://h/score?token={CANARY}{name}", f"+loss.my_api_key={CANARY}",
            f"+loss.my_extra={{secret: {CANARY}, a: 1}}", f"+loss.my_path=/home/{CANARY}/m/q{name}.jsonl",
        ]  # fmt: skip
        (folder / "config.yaml").write_text(yaml.safe_dump(values))
        (folder / "overrides.yaml").write_text(yaml.safe_dump(words))
        environment = json.loads((folder / "environment.json").read_text())
        argv = [f"/home/{CANARY}/pggrpo", "train", "--config-dir", f"/home/{CANARY}/conf", *words]
        environment |= {"argv": argv, "earlier": [{"time": "2026", "argv": argv}]}
        (folder / "environment.json").write_text(json.dumps(environment))
        (folder / "error.json").write_text(
            json.dumps({"error": f"asked https://h/?key={CANARY}, read /home/{CANARY}/q"})
        )
        folders.append(folder)
    for runs in (folders[:1], folders):
        html = render([read(one) for one in runs])
        assert CANARY not in html
        assert "https://h/score?…" in html
        assert "/qone.jsonl" in html
    assert "+loss.my_path=…/qtwo.jsonl" in html
    page = Page(html)
    labels = [run.label for run in grouped([read(one) for one in folders])]
    assert len(set(labels)) == 2
    assert page.wrong == []


def test_numbers_are_those_of_the_file(page: Page) -> None:
    lines = [metrics_of(step) for step in range(21)]
    for title, label, name in (
        ("KL to the policy before training", "kl", "kl"),
        ("Entropy, nats a token", "entropy", "entropy"),
        ("Clipped and clamped ratios", "clipped above", "clip_ratio/high_mean"),
        ("Gradient norm, before clipping", "grad_norm", "grad_norm"),
        ("Learning rate", "learning_rate", "learning_rate"),
        ("Groups without signal", "all rewards equal", "frac_reward_zero_std"),
        ("Completions cut by max_new_tokens", "training", "completions/clipped_ratio"),
        ("Completion tokens a second", "tokens_per_second", "tokens_per_second"),
        ("Peak memory, GB", "memory/peak_gb", "memory/peak_gb"),
        ("Seconds of a step", "rollout", "time/rollout"),
        ("Reward", "training, each step", "reward"),
    ):
        found = {x: y for x, (y, _, _) in page.line(title, label).items()}
        assert found == pytest.approx({line["step"]: line[name] for line in lines if name in line}, **CLOSE), title
    lengths = page.line("Tokens of a completion", "training, mean")
    assert lengths[7] == pytest.approx((metrics_of(7)["completions/mean_length"], 3.0, 24.0), **CLOSE)


def test_intervals_are_computed_from_the_lines(page: Page) -> None:
    rewards = {step: metrics_of(step)["reward"] for step in range(1, 21)}
    found = page.line("Reward", "training, mean of 5 steps")
    window = [rewards[step] for step in range(8, 13)]
    half = 2.7764 * statistics.stdev(window) / math.sqrt(5)
    mean = statistics.mean(window)
    assert found[12] == pytest.approx((mean, mean - half, mean + half), rel=1e-4)
    assert found[1] == (pytest.approx(rewards[1], **CLOSE), None, None)
    held_out = page.line("Reward", "held out")
    assert sorted(held_out) == [0, 5, 10, 15, 20]
    share, n, z = statistics.mean(held_out_rewards(10)), 20, 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    assert held_out[10] == pytest.approx((share, centre - half, centre + half), **CLOSE)


def test_it_says_what_happened(page: Page) -> None:
    first, last = statistics.mean(held_out_rewards(0)), statistics.mean(held_out_rewards(20))
    assert f"The held-out reward rose from {first:.3f} to {last:.3f} at step 20" in page.text
    assert "its best, whose checkpoint is kept" in page.text
    assert "finished, after 20 steps, 42.0 seconds of training steps" in page.text
    for expected in ("loss=grpo", "loss.kl_coef", "0.02", "0.5", "torch 2.13.0", "2026-11-23T12:00:00+00:00"):
        assert expected in page.text
    assert "secret" not in page.text  # the folder, and what lies before the program's name
    assert "pggrpo train model=tiny" in page.text


def test_completions_best_worst_and_by_lot(page: Page) -> None:
    of_step = [line for line in samples_of(20) if not line["held_out"]]
    best = max(of_step, key=lambda line: line["reward"])
    worst = min(of_step, key=lambda line: line["reward"])
    tail = page.text[page.text.index("Step 20") :]
    for why, line in (("best", best), ("worst", worst)):
        said = f"{why} reward {line['reward']:.3f}"
        assert said in " ".join(tail.split())
        assert line["completion"] in tail
    assert "gained most: 0.000 → 1.000" in page.text


def test_a_run_of_pairs_is_told_by_how_they_are_ranked(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=12)
    lines = [{key: value for key, value in metrics_of(step).items() if "eval" not in key} for step in range(1, 13)]
    write_lines(
        folder / "metrics.jsonl",
        [one | {"reward": 0.5, "rewards/accuracies": min(1, one["step"] / 3)} for one in lines],
    )
    html = render([read(folder)])
    page = Page(html)
    assert page.data[0]["title"] == "Pairs ranked right"
    assert [one["title"] for one in page.data].count("Pairs ranked right") == 1
    assert "share of pairs ranked right, first → last step0.333 → 1.000" in "".join(page.text.split("\n"))
    drawing = html[html.index("<svg") : html.index("</svg>")]
    assert re.findall(r">([−\d.]+%)<", drawing) == ["0%", "20%", "40%", "60%", "80%", "100%"]


@pytest.mark.fault("T38")
def test_the_same_input_gives_the_same_bytes(folder: Path, html: str) -> None:
    assert render([read(folder)]) == html


@pytest.mark.fault("T38")
def test_whatever_a_model_says_is_text(tmp_path: Path, html: str) -> None:
    folder = make_run(tmp_path / "run", "loss=grpo", "loss.kl_coef=0.5", steps=20, text=HOSTILE + "{}")
    (folder / "overrides.yaml").write_text("- x\n")
    write_lines(
        folder / "metrics.jsonl",
        ({**metrics_of(step), HOSTILE: 1.0, f"rewards/{HOSTILE}/mean": 0.5} for step in range(21)),
    )
    text = (
        (folder / "config.yaml")
        .read_text()
        .replace("name: train", "name: " + json.dumps(HOSTILE[:-60].replace("\ud800", "")))
    )
    (folder / "config.yaml").write_text(text)
    written = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps(written | {"processor": HOSTILE, "argv": [HOSTILE, HOSTILE]}))
    hostile = render([read(folder)])
    hostile.encode("utf-8")
    found, harmless = Page(hostile), Page(html)
    assert found.open == []
    assert found.wrong == []
    kinds = {tag for tag, _ in found.elements}
    assert kinds == {tag for tag, _ in harmless.elements}
    assert "img" not in kinds
    assert len([1 for tag, _ in found.elements if tag == "script"]) == 2
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in found.text
    assert "{{7*7}}{% raw %}" in found.text
    assert "␛[2J" in found.text
    assert "[U+202E]evil[U+2066]" in found.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\ud800-\udfff]", hostile)
    blocks = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', hostile, re.DOTALL)
    assert len(blocks) == 1
    assert "<" not in blocks[0]
    assert HOSTILE.split("\u2028")[0] in json.dumps([one["title"] for one in found.data], ensure_ascii=False).replace(
        '\\"', '"'
    )


@pytest.mark.fault("T38")
@pytest.mark.parametrize(
    "state",
    [
        "empty",
        "nothing",
        "only evaluated",
        "running",
        "one step",
        "cut off",
        "only NaN",
        "no samples",
        "no configuration",
    ],
)
def test_there_is_always_a_page(tmp_path: Path, state: str) -> None:
    folder = make_run(tmp_path / "run", steps=20, finished=False)
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    if state == "empty":
        metrics.write_text("")
        (folder / "samples.jsonl").write_text("")
    elif state == "nothing":
        for name in ("metrics.jsonl", "samples.jsonl", "environment.json", "overrides.yaml"):
            (folder / name).unlink()
    elif state in ("only evaluated", "one step"):
        metrics.write_text("".join(lines[: 1 if state == "only evaluated" else 2]))
    elif state == "cut off":
        metrics.write_text("".join(lines)[:-20])
    elif state == "only NaN":
        records = [json.loads(line) for line in lines]
        write_lines(metrics, [{key: value if key == "step" else None for key, value in one.items()} for one in records])
    elif state == "no samples":
        (folder / "samples.jsonl").unlink()
    elif state == "no configuration":
        (folder / "config.yaml").unlink()
    page = Page(render([read(folder)]))
    assert page.wrong == []
    assert not re.search(r"(?i)\bnan\b", page.text.replace("NaN and infinite", ""))
    if state == "cut off":
        assert max(page.line("Loss", "loss")) == 19
    if state == "no samples":
        assert page.line("Reward", "held out")[10][1:] == (None, None)
    if state in ("empty", "nothing"):
        assert "Nothing has been logged yet" in page.text
    assert "stopped at step" in page.text or state == "no configuration"


def test_nan_is_a_gap(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=20)
    lines = [metrics_of(step) for step in range(21)]
    lines[7]["kl"] = None
    write_lines(folder / "metrics.jsonl", lines)
    html = render([read(folder)])
    assert Page(html).line("KL to the policy before training", "kl")[7][0] is None
    drawing = html[html.index("KL to the policy") :]
    path = re.search(r'class="stroke" d="([^"]*)"', drawing)
    assert path is not None
    assert path[1].count("M") == 2


@pytest.mark.fault("T38")
def test_a_long_run_is_a_small_page(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=3)
    steps = 20_000
    rng = np.random.default_rng(0)
    noise = rng.normal(size=steps + 1)
    noise[12_345] = 99.0
    write_lines(folder / "metrics.jsonl", ({**metrics_of(step), "loss": noise[step]} for step in range(steps + 1)))
    html = render([read(folder)])
    assert len(html.encode()) < 1_000_000
    found = Page(html).line("Loss", "loss")
    assert len(found) <= 240
    assert max(high for _, _, high in found.values()) == 99.0
    size = math.ceil((steps + 1) / 240)
    assert next(iter(found.values()))[0] == pytest.approx(noise[:size].mean(), rel=1e-4)
    assert f"each point is {size} steps" in html


@pytest.mark.slow
@pytest.mark.fault("T38")
def test_a_million_steps(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=3)
    with open(folder / "metrics.jsonl", "w") as out:
        for step in range(1, 1_000_001):
            out.write(f'{{"step": {step}, "reward": {step % 977 / 977}, "loss": {-step % 13}, "step_time": 1.5}}\n')
    with open(folder / "samples.jsonl", "w") as out:
        for step in range(1, 1_000_001):
            out.write(f'{{"step": {step}, "held_out": false, "completion": "of {step}", "reward": 0.5}}\n')
    html = render([read(folder)])
    assert len(html.encode()) < 1_000_000
    assert "of 1000000" in html


def test_several_sessions_are_told(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    written = json.loads((folder / "environment.json").read_text())
    again = written | {"time": "2026-11-24T08:00:00+00:00", "argv": ["pggrpo", "resume", "run"], "earlier": [written]}
    (folder / "environment.json").write_text(json.dumps(again))
    page = Page(render([read(folder)]))
    assert "the run was resumed" in page.text
    assert "pggrpo resume run" in page.text
    assert "Started 2026-11-23T12:00:00+00:00" in page.text
