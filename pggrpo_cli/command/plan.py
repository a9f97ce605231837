"""pggrpo plan: the run without running it: steps, updates, memory, disk, time."""

from __future__ import annotations

import contextlib
import sys

from pggrpo_cli.options import Options

HELP = """\
usage: pggrpo plan [--probe] [--json] [--config-dir DIR] [key=value …]

Says what `pggrpo train key=value …` would do, without doing it: how many prompts, completions, tokens, updates,
evaluations and checkpoints; the model's size; memory by part, and in which phase its peak will be; the disk it needs.
No weights are read and nothing is written.

  --probe             also how long it takes: loads the model and does two small steps with the run's own code
  --json              the same as one JSON object; sizes in bytes, times in seconds
  -cd, --config-dir   a folder with groups of your own, as for pggrpo train

  ✓  fits     !  fits the machine, but not what is free now     ✗  does not fit: exit code 2

examples:
  pggrpo plan
  pggrpo plan sampler.max_new_tokens=512 trainer.prompts_per_step=16
  pggrpo plan model=hf model.path=./my-model data=jsonl data.path=questions.jsonl --probe
"""


def main(arguments: list[str]) -> int:
    if set(arguments) & {"-h", "--help"}:
        print(HELP, end="")
        return 0
    options = Options("plan")
    options.add_argument("--probe", action="store_true")
    options.add_argument("--json", action="store_true")
    options.add_argument("--config-dir", "-cd")
    options.add_argument("overrides", nargs="*")
    given = options.parse_intermixed_args(arguments)
    from pggrpo_cli.check import checked
    from pggrpo_cli.composing import compose_with_place
    from pggrpo_cli.config import as_dict
    from pggrpo_cli.data_files import check_files

    cfg, place = compose_with_place("train", given.overrides, given.config_dir)
    config = checked(cfg)
    check_files(as_dict(config))
    with contextlib.redirect_stdout(sys.stderr):  # what a user's own code prints is no part of the plan
        from transformers.utils import logging

        logging.set_verbosity_error()
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
