"""Runs side by side: at equal samples, at equal time, over seeds."""

from __future__ import annotations

import math
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from pggrpo_cli.report.comparison import compare, value_at
from pggrpo_cli.report.grouping import grouped
from pggrpo_cli.report.headline import of_comparison, of_run, status
from pggrpo_cli.report.intervals import interquartile_mean
from pggrpo_cli.report.page import render
from pggrpo_cli.report.run import Run, read_run
from tests.report.html_reading import Page
from tests.report.run_files import held_out_rewards, make_run, metrics_of, write_lines


def reward(step: int, seed: int) -> float:
    return sum(held_out_rewards(step, seed)) / 20


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """loss × seed; the runs of grpo have twice as many steps, so equal samples are not the end of all."""
    folder = tmp_path_factory.mktemp("sweep")
    for number, (loss, seed) in enumerate(product(("pg_grpo", "grpo"), (1, 2, 3))):
        make_run(folder / str(number), f"loss={loss}", steps=10 if loss == "pg_grpo" else 20, seed=seed)
    return folder


def read(folder: Path) -> list[Run]:
    return [read_run(path, path.name) for path in sorted(folder.iterdir()) if path.is_dir()]


def by_hand(values: list[float]) -> tuple[float, float, float]:
    every = [float(interquartile_mean(np.array(one))) for one in product(values, repeat=len(values))]
    low, high = np.percentile(every, [2.5, 97.5])
    return float(interquartile_mean(np.array(values))), float(low), float(high)


def test_at_equal_samples_and_time(sweep: Path) -> None:
    found = compare(grouped(read(sweep)))
    assert found.metric == "eval/reward"
    # 8 completions a step; the fastest seed of the shorter runs has step_time 2.1
    assert found.limits == pytest.approx({"completions": 80, "num_tokens": 3000, "seconds": 21.0})
    by_label = {one.group.label.partition(" ")[0]: one for one in found.standings}
    for loss in ("loss=pg_grpo", "loss=grpo"):
        standing = by_label[loss]
        assert standing.at_equal["completions"] == pytest.approx(by_hand([reward(10, seed) for seed in (1, 2, 3)]))
        at_21_seconds = []
        for seed in (1, 2, 3):
            step = 21.0 / (2.0 + 0.1 * seed)
            share = (step - 5) / 5
            at_21_seconds.append(reward(5, seed) + share * (reward(10, seed) - reward(5, seed)))
        assert standing.at_equal["seconds"] == pytest.approx(by_hand(at_21_seconds))
    last = by_label["loss=grpo"].last
    assert last == pytest.approx(by_hand([reward(20, seed) for seed in (1, 2, 3)]))


def test_a_run_that_broke_off_does_not_set_the_measure(sweep: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    shutil.copytree(sweep, folder)
    broken = folder / "1"
    (broken / "finished.json").unlink()
    write_lines(broken / "metrics.jsonl", [metrics_of(step, 2) for step in range(6)])
    runs = read(folder)
    found = compare(grouped(runs))
    assert found.limits["completions"] == 80
    assert math.isnan(value_at(runs[1], "eval/reward", "completions", 80))
    (standing,) = [one for one in found.standings if one.group.label.startswith("loss=pg_grpo")]
    assert standing.at_equal["completions"] == pytest.approx(by_hand([reward(10, seed) for seed in (1, 3)]))
    assert "stopped at step 5 of 10" in Page(render(runs)).text


def test_the_page_of_a_sweep(sweep: Path) -> None:
    page = Page(render(read(sweep)))
    assert page.wrong == []
    chart = page.chart("Held-out reward at equal completions")
    labels = [line["label"] for line in chart["lines"]]
    assert [label.partition(" ")[0] for label in labels] == ["loss=pg_grpo", "loss=grpo"]
    found = page.line("Held-out reward at equal completions", labels[1])
    assert found[160] == pytest.approx(by_hand([reward(20, seed) for seed in (1, 2, 3)]), rel=1e-5)
    kl = page.chart("KL to the policy before training")["lines"][1]
    assert kl["y"][-1] == pytest.approx(0.02)
    assert "after 80 completions" in page.text
    differing = page.text[page.text.index("What differs between the runs") :]
    assert "loss._target_" in differing
    assert "pggrpo_cli.loss.grpo.Grpo" in differing


def test_the_headline_says_when_nothing_can_be_told(sweep: Path, tmp_path: Path) -> None:
    said = of_comparison(compare(grouped(read(sweep))))
    assert "after 80 completions" in said
    assert "cannot be told apart" in said
    one = of_comparison(compare(grouped(read(sweep)[:3])))
    assert "over 3 seeds went from" in one
    pair = [read(sweep)[0], read(sweep)[3]]
    assert "With one seed each" in of_comparison(compare(grouped(pair)))
    empty = make_run(tmp_path / "empty", steps=2)
    (empty / "metrics.jsonl").unlink()
    assert "None of these runs" in of_comparison(compare(grouped([read_run(empty, "empty")])))


def test_a_group_that_is_apart(tmp_path: Path) -> None:
    runs = []
    for loss, shift in (("grpo", 0.0), ("pg_grpo", 0.5)):
        for seed in (1, 2, 3):
            folder = make_run(tmp_path / f"{loss}{seed}", f"loss={loss}", steps=10, seed=seed)
            lines = [metrics_of(step, seed) for step in range(11)]
            write_lines(folder / "metrics.jsonl", [one | {"eval/reward": shift + 0.01 * seed} for one in lines])
            runs.append(read_run(folder, folder.name))
    said = of_comparison(compare(grouped(runs)))
    assert said.startswith("Highest held-out reward after 80 completions: loss=pg_grpo, 0.520 [0.51")
    assert "overlap" not in said


def test_groups_that_are_level(tmp_path: Path) -> None:
    runs = []
    for loss in ("grpo", "pg_grpo"):
        for seed in (1, 2):
            folder = make_run(tmp_path / f"{loss}{seed}", f"loss={loss}", steps=10, seed=seed)
            lines = [metrics_of(step, seed) | {"eval/reward": 0.25} for step in range(11)]
            write_lines(folder / "metrics.jsonl", lines)
            runs.append(read_run(folder, folder.name))
    said = of_comparison(compare(grouped(runs)))
    assert said.startswith("Highest held-out reward after 80 completions: loss=grpo and loss=pg_grpo alike, 0.250")


def test_more_groups_than_colours(tmp_path: Path) -> None:
    runs = []
    for number in range(10):
        folder = make_run(tmp_path / str(number), f"optimizer.lr={number + 1}e-5", steps=5)
        runs.append(read_run(folder, folder.name))
    page = Page(render(runs))
    assert "The charts show the best 8 groups; 2 more are in the table only" in page.text
    assert len(page.chart("Held-out reward at equal tokens")["lines"]) == 8
    assert page.text.count("optimizer.lr=10e-5") >= 1


def test_many_long_runs_with_long_texts_are_a_small_page(tmp_path: Path) -> None:
    first = make_run(tmp_path / "0", steps=300, text="word " * 5000)
    runs = []
    for number in range(12):
        folder = tmp_path / str(number)
        if number:
            shutil.copytree(first, folder)
        text = (folder / "config.yaml").read_text().replace("minibatches: 1", f"minibatches: {number // 2 + 1}")
        (folder / "config.yaml").write_text(text.replace("seed: 1", f"seed: {number % 2}"))
        runs.append(read_run(folder, folder.name))
    assert len(grouped(runs)) == 6
    assert len(render(runs).encode()) < 1_000_000


def test_the_headline_of_a_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=20, finished=False)
    run = read_run(folder, "run")
    assert status(run) == "stopped at step 20 of 100"
    assert "The run stopped at step 20 of 100" in of_run(run)
    lines = [metrics_of(step) for step in range(21)]
    flat = [
        {key: value for key, value in one.items() if not key.startswith("eval/")} | {"reward": 0.5} for one in lines
    ]
    write_lines(folder / "metrics.jsonl", [one | {"rewards/accuracies": one["step"] / 20} for one in flat])
    assert "The share of pairs ranked right went from 0.100 to 0.900" in of_run(read_run(folder, "run"))
    fallen = [one | {"eval/reward": 0.9 - one["step"] / 100} if one["step"] % 5 == 0 else one for one in lines]
    write_lines(folder / "metrics.jsonl", fallen)
    (folder / "samples.jsonl").unlink()
    assert "The held-out reward went from 0.900 to 0.700 at step 20; best 0.900 at step 0." in of_run(
        read_run(folder, "run")
    )
