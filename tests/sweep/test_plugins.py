"""Sweepers and launchers of others: Optuna, joblib, SLURM by submitit. They are optional; the development extra has them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pggrpo_cli.cli import main
from pggrpo_cli.sweep import launcher
from tests.command_line import run, run_all
from tests.sweep.pretended import command_of, notes
from tests.tracking.fake_library import need

pytest_plugins = ["tests.command_fixtures"]
for plugin in ("hydra_optuna_sweeper", "hydra_joblib_launcher", "hydra_submitit_launcher"):
    need(f"hydra_plugins.{plugin}")
OPTUNA = ["hydra/sweeper=optuna", "hydra.sweeper.direction=${sweep.direction}", "hydra.sweeper.n_jobs=2"]
FAST = ["debug=fast", "logger=[]", "evaluation.every=null", "data.eval_size=0", "checkpoint.every=null"]


@pytest.fixture
def search(groups: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setattr(launcher, "command_of", command_of)
    monkeypatch.setattr("pggrpo_cli.sweep.processes.LOOK_SECONDS", 0.02)

    def search(*words: str, **behaviour: str) -> int:
        monkeypatch.setenv("BEHAVIOUR", json.dumps({name[4:]: one for name, one in behaviour.items()}))
        return main(["train", "-m", "model=tiny", "logger=[]", "hydra.sweep.dir=swept", *OPTUNA, *words])

    return search


def results() -> dict[str, object]:
    found = yaml.safe_load(Path("swept/optimization_results.yaml").read_text())
    return {"params": found["best_params"], "value": found["best_value"]}


def seeds() -> dict[int, int]:
    return {
        int(file.parent.name): yaml.safe_load(file.read_text())["seed"] for file in Path("swept").glob("*/config.yaml")
    }


def ordered(monkeypatch: pytest.MonkeyPatch, *places: int) -> None:
    """The points of a grid come in that order."""
    choose = SimpleNamespace(choice=lambda left: min(left, key=places.index))
    monkeypatch.setattr("pggrpo_cli.sweep.searching.Random", lambda seed: choose)


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize("order", [(2, 0, 1), (0, 2, 1), (0, 1, 2)], ids=["first", "middle", "last"])
def test_a_failed_job_is_no_end_of_a_grid(
    search: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    order: tuple[int, ...],
    at_once: int,
) -> None:
    """Wherever it comes: behind the last one the grid asks for a loop to end, and there is none. The pretended reward is highest
    at seed 4, and seed 6 is killed."""
    ordered(monkeypatch, *order)
    words = ["hydra/sweeper/sampler=grid", "seed=choice(1,4,6)", "hydra.sweeper.max_failure_rate=1"]
    assert search(*words, f"hydra.sweeper.n_jobs={at_once}", seed6="killed") == 137
    assert results() == {"params": {"seed": 4}, "value": 0.5}
    assert [seeds()[number] for number in range(3)] == [(1, 4, 6)[place] for place in order]
    failed = order.index(2)
    assert [path.parent.name for path in Path("swept").glob("*/error.json")] == [str(failed)]
    err = capsys.readouterr().err
    assert f"1 of the jobs in swept failed: job {failed} with exit code 137. The others are done." in err
    assert err.startswith("sweep in swept:")  # and nothing of Optuna's or Hydra's own


@pytest.mark.slow
def test_the_lowest_may_be_the_best(search: Callable[..., int]) -> None:
    assert search("hydra/sweeper/sampler=grid", "seed=choice(1,4,6)", "sweep.direction=minimize") == 0
    assert results()["params"] == {"seed": 1}


@pytest.mark.slow
def test_a_search_of_which_nothing_came(search: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["hydra/sweeper/sampler=grid", "seed=choice(1,4)", "hydra.sweeper.max_failure_rate=1"]
    assert search(*words, seed1="killed", seed4="killed") == 137
    err = capsys.readouterr().err
    assert err.startswith("the search ended: no trial came to a value\n")
    assert "all jobs in swept failed: job 0 with exit code 137; job 1 with exit code 137" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "best"), [((2, 0, 1), None), ((0, 2, 1), 1), ((1, 0, 2), 4)], ids=["first", "middle", "last"]
)
def test_a_search_that_bears_no_failure(
    search: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    order: tuple[int, ...],
    best: int | None,
) -> None:
    """As the plugin has it unless told otherwise: the first failure is the end. The best until then is written."""
    ordered(monkeypatch, *order)
    words = ["hydra/sweeper/sampler=grid", "seed=choice(1,4,6)", "hydra.sweeper.n_jobs=1"]
    assert search(*words, seed6="killed") == 137
    err = capsys.readouterr().err
    assert err.startswith(f"the search ended: job {order.index(2)} (")
    assert "Failed" not in err
    assert "Error executing" not in err
    assert Path("swept/optimization_results.yaml").exists() == (best is not None)
    if best is not None:
        assert results()["params"] == {"seed": best}


@pytest.mark.slow
def test_optuna_speaks_as_we_do(search: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """Of a study that is kept, which goes on; and numbers of 17 digits are for files."""
    words = ["loss.beta=interval(0.1,0.9)", "hydra.sweeper.n_trials=2", "hydra/sweeper/sampler=random"]
    kept = ["hydra.sweeper.sampler.seed=5", "hydra.sweeper.storage=sqlite:///study.db", "hydra.sweeper.study_name=x"]
    assert search(*words, *kept) == 0
    out, err = capsys.readouterr()
    assert err.splitlines()[0] == "Optuna: A new study created in RDB with name: x"
    drawn = [yaml.safe_load(Path(f"swept/{number}/config.yaml").read_text())["loss"]["beta"] for number in (0, 1)]
    assert all(len(str(beta)) > 12 for beta in drawn)
    for number, beta in enumerate(drawn):
        assert f"job {number} begins: loss.beta={beta:.4g} (" in out
        assert f"job {number}: loss.beta={beta:.4g}\n" in err
    assert "[I " not in err
    assert main(["sweep", "status", "swept"]) == 0
    out = capsys.readouterr().out
    assert f"loss.beta={drawn[0]:.4g}\n" in out
    assert search(*words, *kept) == 0
    assert capsys.readouterr().err.startswith(
        "Optuna: Using an existing study with name 'x' instead of creating a new one."
    )


@pytest.mark.slow
def test_a_search_goes_on(search: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """Drawn by a seed, the same trials come again and are done; a study that is kept goes on with further ones."""
    words = [
        "hydra/sweeper/sampler=random",
        "hydra.sweeper.sampler.seed=5",
        "seed=range(1,99)",
        "hydra.sweeper.n_trials=3",
    ]
    assert search(*words) == 0
    first = seeds()
    assert len(first) == 3
    assert search(*words) == 0
    assert seeds() == first
    assert capsys.readouterr().out.count("was done before") == 3
    kept = ["hydra.sweeper.storage=sqlite:///study.db", "hydra.sweeper.study_name=x", "hydra.sweeper.sampler.seed=6"]
    assert search(*words, *kept) == 0
    assert main(["sweep", "resume", "swept"]) == 0
    assert len(seeds()) == 9
    assert {number: seeds()[number] for number in first} == first
    assert [len(notes(Path("swept") / str(number))) for number in range(9)] == [1] * 9


@pytest.mark.slow
def test_a_grid_goes_on(search: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert search("hydra/sweeper/sampler=grid", "seed=choice(1,2,3,4,5,6)") == 0
    first = seeds()
    assert list(first.values()) != sorted(first.values())
    assert main(["sweep", "resume", "swept"]) == 0
    assert seeds() == first
    assert capsys.readouterr().out.count("was done before") == 6


@pytest.mark.slow
def test_what_differs_of_a_search(search: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["hydra/sweeper/sampler=grid", "seed=choice(1,4)"]
    assert search(*words) == 0
    for word, said in (
        ("loss.beta=0.5", "`loss.beta`: swept was begun without loss.beta=0.5. A sweep goes on with"),
        ("trainer.max_steps=1", "`trainer.max_steps`: 1, and job 0 of swept is at step 2 already"),
    ):
        capsys.readouterr()
        assert main(["sweep", "resume", "swept", word]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_trial_is_checked_as_it_comes(search: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert search("hydra/sweeper/sampler=grid", "sampler.top_p=choice(0.5,2.0)") == 2
    assert "it was not started, nor were those chosen with it" in capsys.readouterr().err
    assert not list(Path("swept").glob("*/notes.jsonl"))
    assert search("hydra/sweeper/sampler=grid", "seed=choice(1,2)", "sweep.metric=nll", "hydra.sweep.dir=other") == 2
    assert "`sweep.metric`: no job logged nll. There were: reward, step_time." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["hydra/launcher=slurm"],
            '`hydra/launcher`: it cannot run the jobs here (RuntimeError: Could not detect "srun"',
        ),
        (
            ["hydra/sweeper=optuna", "hydra.sweeper.storage=foo"],
            "`hydra.sweeper.storage`: the trials cannot be kept there (",
        ),
        (["hydra.sweeper.params={seed: 1}"], "`hydra.sweeper.params`: holds nothing"),
        (["+hydra.sweeper.params.seed=1"], "`hydra.sweeper.params`: holds nothing"),
    ],
)
def test_what_a_plugin_refuses(
    groups: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(groups))
    assert main(["train", "-m", "model=tiny", "logger=[]", "hydra.sweep.dir=swept", "seed=choice(1,2)", *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {said}")
    assert "Traceback" not in err


def test_a_bug_keeps_its_traceback(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a plugin, and of ours below one."""

    def fails(*args: object, **given: object) -> None:
        raise RuntimeError("ours")

    line = ["train", "-m", "model=tiny", "logger=[]", OPTUNA[0], "seed=choice(1,2)"]
    monkeypatch.setattr(launcher, "setup_globals", fails)
    with pytest.raises(RuntimeError, match="ours"):
        main([*line, "hydra.sweep.dir=ours"])
    monkeypatch.setattr("optuna.create_study", lambda **given: given["no such key"])
    with pytest.raises(KeyError, match="no such key"):
        main([*line, "hydra.sweep.dir=of_the_plugin"])


@pytest.mark.slow
def test_examples_are_whole(tmp_path: Path) -> None:
    lines = [
        ["train", "experiment=tune_pg_grpo", "--cfg", "hydra", "-p", "hydra.sweeper"],
        ["train", "hydra/launcher=slurm", "--cfg", "hydra", "-p", "hydra.launcher"],
        ["train", "hydra/launcher=joblib", "--cfg", "hydra", "-p", "hydra.launcher"],
        ["train", "-m", "experiment=tune_pg_grpo", "sweep.metric=evel/reward"],
    ]
    (optuna, slurm, joblib, refused) = run_all(lines, tmp_path)
    sweeper = yaml.safe_load(optuna[1].partition("\n")[2])
    assert list(sweeper["params"]) == ["loss.beta", "optimizer.lr", "loss.kl_coef"]
    assert sweeper["_target_"].endswith("OptunaSweeper")
    assert sweeper["sampler"]["_target_"] == "optuna.samplers.TPESampler"
    found = yaml.safe_load(slurm[1].partition("\n")[2])
    assert found["_target_"].endswith("SlurmLauncher")
    assert (found["gpus_per_node"], found["timeout_min"]) == (1, 720)
    assert found["submitit_folder"] == "${hydra.sweep.dir}/.submitit/%j"
    assert joblib[0] == 0
    assert refused[0] == 2
    assert "'evel/reward' is no metric. Did you mean eval/reward" in refused[2]


@pytest.mark.slow
def test_a_plugin_that_is_missing_is_named(tmp_path: Path) -> None:
    hide = (
        "import sys; sys.modules['hydra_plugins'] = None; from pggrpo_cli.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    import subprocess

    from tests.command_line import environment

    for word, extra in (
        ("experiment=tune_pg_grpo", "optuna"),
        ("hydra/launcher=joblib", "joblib"),
        ("hydra/launcher=slurm", "slurm"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", hide, "train", "-m", word],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert f"pip install 'pggrpo[{extra}]'" in done.stderr


@pytest.mark.slow
def test_optuna_with_real_runs(tmp_path: Path) -> None:
    words = [
        "hydra/sweeper/sampler=grid",
        "loss.beta=choice(0.1,0.5)",
        "sweep.jobs=2",
        "sweep.metric=rewards/length/mean",
    ]
    done = run(["train", "-m", *OPTUNA, *FAST, *words, "reward=length", "hydra.sweep.dir=swept"], tmp_path)
    assert done.returncode == 0, done.stderr
    reached = {}
    for number in "01":
        metrics = [
            json.loads(line) for line in (tmp_path / "swept" / number / "metrics.jsonl").read_text().splitlines()
        ]
        beta = yaml.safe_load((tmp_path / "swept" / number / "config.yaml").read_text())["loss"]["beta"]
        reached[beta] = metrics[-1]["rewards/length/mean"]
    found = yaml.safe_load((tmp_path / "swept/optimization_results.yaml").read_text())
    assert found["best_value"] == pytest.approx(max(reached.values()))
    assert reached[found["best_params"]["loss.beta"]] == max(reached.values())


@pytest.mark.slow
def test_joblib_with_real_runs(tmp_path: Path) -> None:
    line = [
        "train",
        "-m",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "seed=1,2",
        *FAST,
        "hydra.sweep.dir=swept",
    ]
    done = run(line, tmp_path)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / "swept" / number / "finished.json").exists() for number in "01")
    assert "compare them: pggrpo report swept" in done.stderr
    again = run(["sweep", "resume", "swept"], tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("nothing is left to do") == 2
