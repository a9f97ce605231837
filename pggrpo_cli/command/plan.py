"""pggrpo plan: the run, or the sweep, without running it: steps, updates, memory, disk, time."""

from __future__ import annotations

import contextlib
import sys
from argparse import Namespace
from collections.abc import Iterator

from pggrpo_cli.errors import UsageError
from pggrpo_cli.options import Options

HELP = """\
usage: pggrpo plan [--probe] [--json] [--config-dir DIR] [key=value …]
       pggrpo plan -m [--json] [--config-dir DIR] [key=first,second …]

Says what `pggrpo train key=value …` would do, without doing it: how many prompts, completions, tokens, updates,
evaluations and checkpoints; the model's size; memory by part, and in which phase its peak will be; the disk it needs.
No weights are read and nothing is written.

With -m the sweep that `pggrpo train -m` would be: how many jobs, what is swept, memory of those that run at a time, disk and
steps of all together. A job that is wrong is refused in the words of train, before any would be started.

  --probe             also how long it takes: loads the model and does two small steps with the run's own code
  --json              the same as one JSON object; sizes in bytes, times in seconds
  -m, --multirun      a sweep: every combination of the values that are given, or what hydra/sweeper chooses
  -cd, --config-dir   a folder with groups of your own, as for pggrpo train

  ✓  fits     !  fits the machine, but not what is free now     ✗  does not fit: exit code 2

examples:
  pggrpo plan
  pggrpo plan sampler.max_new_tokens=512 trainer.prompts_per_step=16
  pggrpo plan -m loss=grpo,pg_grpo seed=1,2,3 sweep.jobs=2
  pggrpo plan model=hf model.path=./my-model data=jsonl data.path=questions.jsonl --probe
"""


def main(arguments: list[str]) -> int:
    if set(arguments) & {"-h", "--help"}:
        print(HELP, end="")
        return 0
    options = Options("plan")
    options.add_argument("--probe", action="store_true")
    options.add_argument("--json", action="store_true")
    options.add_argument("--multirun", "-m", action="store_true")
    options.add_argument("--config-dir", "-cd")
    options.add_argument("overrides", nargs="*")
    given = options.parse_intermixed_args(arguments)
    if given.multirun and given.probe:
        raise UsageError("--probe runs one job: pggrpo plan --probe key=value, with the values of one.")
    return _sweep(given) if given.multirun else _run(given)


def _run(given: Namespace) -> int:
    from pggrpo_cli.check import checked
    from pggrpo_cli.composing import compose_with_place
    from pggrpo_cli.config import as_dict
    from pggrpo_cli.data_files import check_files

    cfg, place = compose_with_place("train", given.overrides, given.config_dir)
    config = checked(cfg)
    check_files(as_dict(config))
    with _for_the_plan_alone():
        from pggrpo_cli.planning import plan_display
        from pggrpo_cli.planning.plan_findings import fits
        from pggrpo_cli.planning.run_plan import plan_run

        plan = plan_run(config, place)
        time = None
        if given.probe:
            from pggrpo_cli.planning.probe import probe

            time = probe(config, plan)
    print(plan_display.as_json(plan, time)) if given.json else plan_display.show(plan, time)
    return 0 if fits(plan) else 2


def _sweep(given: Namespace) -> int:
    from pggrpo_cli.command.train import check_all
    from pggrpo_cli.planning.swept_jobs import swept_jobs

    found = swept_jobs(given.overrides, given.config_dir, check_all)
    with _for_the_plan_alone():
        from pggrpo_cli.planning import sweep_display
        from pggrpo_cli.planning.sweep_findings import sweep_fits
        from pggrpo_cli.planning.sweep_plan import plan_sweep

        plan = plan_sweep(found)
    print(sweep_display.as_json(plan)) if given.json else sweep_display.show(plan)
    return 0 if sweep_fits(plan) else 2


@contextlib.contextmanager
def _for_the_plan_alone() -> Iterator[None]:
    """What a user's own code prints is no part of the plan."""
    with contextlib.redirect_stdout(sys.stderr):
        from transformers.utils import logging

        logging.set_verbosity_error()
        yield
