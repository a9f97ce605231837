"""pggrpo generate: what a model says, as it says it: pggrpo generate RUN|MODEL [prompt …] [--group]."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pggrpo_cli.errors import CheckpointError, ConfigError, UsageError
from pggrpo_cli.generating.aside import Aside
from pggrpo_cli.options import Options

if TYPE_CHECKING:
    from pggrpo_cli.generating.answer_display import JsonDisplay, TextDisplay
    from pggrpo_cli.generating.answering import Answering, Wishes
    from pggrpo_cli.subject import Subject
    from pggrpo_cli.types import Prompt, Row

HELP = """\
usage: pggrpo generate RUN|CHECKPOINT|MODEL [prompt …] [key=value …] [options]

What a model says, as it says it. MODEL is a folder, a .gguf file, a hub id, or a name of the group model. Prompts are the
words of the line (behind -- all of them), or --file, or --data, or what is piped in; on a terminal without any of these they
are typed one by one: Ctrl-C stops an answer, Ctrl-D ends. A prompt is a user's message if the model has a chat template;
with a run it gets the run's system prompt and suffix, as in training. Several answers are decoded together and shown in
order. Only they go to stdout; all else goes to stderr.

  --file FILE         a prompt a line, or of a .jsonl file a record with prompt or messages (-: lines of stdin)
  --data              prompts of the run's data, held out unless --split train
  --rows R            which of them, or of the file: 3, 0:8, 5: or 0,2,7 (of the data 0:3)
  --split evaluation|train
  --samples N         answers a prompt (1)
  --greedy            always the likeliest token; else the run's temperature: sampler.temperature=0.7
  --max-new-tokens N  tokens of an answer (the run's; of a model 512)
  --seed N            of the random numbers (the run's): the same seed, the same text
  --system TEXT       the system prompt
  --raw               the prompt as it stands: no chat template, system prompt or suffix
  --checkpoint best|last|step-N
                      of a run; the best, if one was kept, unless you say
  --json              an object an answer, which pggrpo reward test can score
  -cd, --config-dir D groups of your own, as for pggrpo train

  --group             a whole group as the trainer sees it: the run's sampler, rewards, advantage and pairs, for --rows (0) of
                      the data to train on, or for rows of --file with the columns that the rewards need
  --step N            with --group: groups of that step of the run, sampled again from the checkpoint before it

examples:
  pggrpo generate smollm2_135m "Why is the sky blue?" sampler.temperature=0.7
  pggrpo generate outputs/2026-11-23/12-00-00-train-1a2b3c --data --rows 0:5 --samples 4
  pggrpo generate outputs/2026-11-23/12-00-00-train-1a2b3c --group --rows 2
"""
GREEDY = r"sampler\.temperature=0(\.0*)?"
"""What a training refuses, and an answer may be: --greedy in other words."""


def main(arguments: list[str]) -> int:
    if not arguments or set(arguments[: (*arguments, "--").index("--")]) & {"-h", "--help"}:
        print(HELP, end="")
        return 0 if arguments else 2
    given, prompts, overrides = _parse(arguments)
    _refuse_odd_values(given)
    _refuse_several_origins(given, prompts)
    aside = Aside()
    if given.group:
        _groups(given, overrides, aside)
    else:
        _answers(given, prompts, overrides, aside)
    return 0


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str], list[str]]:
    """(options, prompts, key=value)"""
    from pggrpo_cli.generating.given_prompts import divided_words

    options = Options("generate")
    options.add_argument("subject", metavar="RUN|CHECKPOINT|MODEL")
    options.add_argument("words", nargs="*", metavar="prompt")
    options.add_argument("--file")
    options.add_argument("--data", action="store_true")
    options.add_argument("--rows")
    options.add_argument("--split", choices=("evaluation", "train"))
    options.add_argument("--samples", type=int)
    options.add_argument("--greedy", action="store_true")
    options.add_argument("--max-new-tokens", type=int)
    options.add_argument("--seed", type=int)
    options.add_argument("--system")
    options.add_argument("--raw", action="store_true")
    options.add_argument("--checkpoint")
    options.add_argument("--json", action="store_true")
    options.add_argument("--group", action="store_true")
    options.add_argument("--step", type=int)
    options.add_argument("-cd", "--config-dir")
    end = (*arguments, "--").index("--")
    given = options.parse_intermixed_args(arguments[:end])
    prompts, overrides = divided_words(given.words)
    if not given.group and any(re.fullmatch(GREEDY, word) for word in overrides):
        overrides = [word for word in overrides if not re.fullmatch(GREEDY, word)]
        given.greedy = True
    return given, [*prompts, *arguments[end + 1 :]], overrides


def _refuse_odd_values(given: argparse.Namespace) -> None:
    from pggrpo_cli.generating.given_prompts import refuse_rows

    for option, least in (("samples", 1), ("max_new_tokens", 1), ("seed", 0), ("step", 1)):
        value = getattr(given, option)
        if value is not None and value < least:
            raise UsageError(f"`--{option.replace('_', '-')}`: {value} is less than {least}.")
    if given.rows is not None:
        refuse_rows(given.rows)
    if given.greedy and (given.samples or 1) > 1:
        raise UsageError(f"`--samples`: with --greedy all {given.samples} would be the same; leave one of them out.")
    if given.raw and given.system is not None:
        raise UsageError("`--system`: --raw takes the prompt as it stands; leave one of them out.")
    if not given.group:
        if given.step is not None:
            raise UsageError("`--step`: shows groups of a step again; it goes with --group.")
        return
    for option, instead in (
        ("samples", "sampler.group_size=N"),
        ("greedy", "the run's sampler as it is; sampler.temperature=… changes it"),
        ("max_new_tokens", "sampler.max_new_tokens=N"),
        ("system", "data.system_prompt=…"),
        ("raw", "the run's own prompts"),
    ):
        if getattr(given, option) not in (None, False):
            raise UsageError(f"`--{option.replace('_', '-')}`: --group takes {instead} instead.")
    if given.step is not None and (given.checkpoint or given.split or given.file or given.seed is not None):
        raise UsageError(
            "`--step`: names checkpoint, rows and seed itself; leave --checkpoint, --split, --file and --seed out."
        )


def _refuse_several_origins(given: argparse.Namespace, prompts: list[str]) -> None:
    if given.group and prompts:
        raise UsageError(
            f"`{prompts[0]}`: a prompt by itself has no columns for the rewards. Give --file rows.jsonl, or --rows of the "
            "run's own data."
        )
    of_data = given.data or given.split is not None or (given.rows is not None and given.file is None)
    origins = [words for words, there in (
        ("prompts on the line", bool(prompts)), ("--file", given.file is not None), ("--data or --rows", of_data)
    ) if there]  # fmt: skip
    if len(origins) > 1:
        raise UsageError(f"`prompt`: {' and '.join(origins)}; prompts come from one of them.")
    given.data = of_data
    if of_data and given.raw:
        raise UsageError("`--raw`: the run's own prompts are rendered as in training; it goes with prompts of yours.")


def _groups(given: argparse.Namespace, overrides: list[str], aside: Aside) -> None:
    from pggrpo_cli.generating.given_prompts import rows_of_file

    rows = None if given.file is None else rows_of_file(given.file)
    subject = _before_step(given, overrides) if given.step is not None else _subject(given, overrides, given.checkpoint)
    aside.meanwhile("loading torch …")
    from pggrpo_cli.generating.group_display import as_records, show
    from pggrpo_cli.generating.seen_groups import GroupWishes, see_groups

    wishes = GroupWishes(
        rows=given.rows or "0", split=given.split or "train", given=rows, step=given.step, seed=given.seed
    )
    seen = see_groups(subject, wishes, aside.say)
    if given.json:
        for line in as_records(seen):
            print(line)
    else:
        show(seen)


def _before_step(given: argparse.Namespace, overrides: list[str]) -> Subject:
    """The policy that sampled the step."""
    from pggrpo_cli.check import check_values
    from pggrpo_cli.config import as_dict, build

    before = given.step - 1
    _refuse_missing_step(Path(given.subject).expanduser(), given.step)
    subject = _subject(given, overrides, f"step-{before}" if before else None)
    if subject.run_dir is None:
        raise UsageError(f"`--step`: {given.subject} is no run; only a run has steps.")
    if before:
        return subject
    values = as_dict(subject.config) | {"model": dict(subject.base or {})}
    check_values(values)
    return replace(subject, config=build(values), step=0, label="before training")


def _refuse_missing_step(run: Path, step: int) -> None:
    """Raises CheckpointError if the run has no checkpoint that the step began with."""
    from pggrpo_cli import run_directory as runs

    if step == 1 or not runs.has_checkpoints(run) or step - 1 in runs.saved_steps(run):
        return
    done = runs.newest_step(run)
    there = [1, *(saved + 1 for saved in runs.saved_steps(run) if 0 < saved < done)]
    listed = ", ".join(map(str, there))
    why = f"the run is at step {done}" if step > done else f"there is no checkpoint of step {step - 1}"
    raise CheckpointError(
        f"`--step`: {step} cannot be sampled again, as {why}. Those that can: {listed}. checkpoint.every and "
        "checkpoint.keep_last say what a run keeps."
    )


def _subject(given: argparse.Namespace, overrides: list[str], checkpoint: str | None) -> Subject:
    """Of a run, code that is not pggrpo's is refused in what will be made of its configuration."""
    from pggrpo_cli.subject import SCORES, SPEAKS, find_subject

    def found(built: Sequence[str]) -> Subject:
        return find_subject(given.subject, overrides, checkpoint, given.config_dir, built)

    if given.group or given.data:
        return found(SCORES if given.group else (*SPEAKS, "data"))
    subject = found(SPEAKS)
    if given.raw or not subject.perhaps_plain:
        return subject
    try:
        return found((*SPEAKS, "data"))
    except ConfigError as error:
        raise ConfigError(
            f"{error} The data would tell whether the run's prompts are plain texts; --raw, or data.as_chat=true for a "
            "user's message, does without them."
        ) from error


def _answers(given: argparse.Namespace, texts: list[str], overrides: list[str], aside: Aside) -> None:
    rows = _given_rows(given, texts, aside)
    subject = _subject(given, overrides, given.checkpoint)
    aside.meanwhile("loading torch …")
    from pggrpo_cli.generating.answering import Wishes, answering, chosen_rows

    wishes = Wishes(
        samples=given.samples or 1,
        greedy=given.greedy,
        seed=given.seed,
        max_new_tokens=given.max_new_tokens,
        length_given=any(word.lstrip("+").startswith("sampler.max_new_tokens=") for word in overrides),
        system=given.system,
        raw=given.raw,
    )
    of_data = chosen_rows(subject.config, given.split or "evaluation", given.rows or "0:3") if given.data else None
    with answering(subject, wishes, aside.say) as model:
        if of_data is not None:
            _answer(model, model.of_data(*of_data[1:]), wishes, given, aside)
            return
        of_run = subject.run_dir is not None
        chat = model.chats(subject.perhaps_plain, aside.say)
        if rows is not None:
            _say_what_is_added(model, wishes, of_run, aside)
            prompts = [model.given(row, chat=chat, of_run=of_run) for row in rows]
            _answer(model, prompts, wishes, given, aside)
            return
        from pggrpo_cli.generating.given_prompts import rows_of_texts
        from pggrpo_cli.generating.prompt_loop import prompt_loop

        _say_what_is_added(model, wishes, of_run, aside)

        def answer(text: str) -> None:
            (row,) = rows_of_texts([text])
            _answer(model, [model.given(row, chat=chat, of_run=of_run)], wishes, given, aside)

        prompt_loop(answer, aside)


def _given_rows(given: argparse.Namespace, texts: list[str], aside: Aside) -> list[Row] | None:
    """None: the data's, or to be typed."""
    from pggrpo_cli.generating.given_prompts import places, rows_of_file, rows_of_stdin, rows_of_texts

    if given.data:
        return None
    if given.file is not None:
        rows = rows_of_file(given.file)
        return [rows[place] for place in places(given.rows or ":", len(rows), "prompts in the file")]
    if len(texts) > 2 and not any(" " in text for text in texts):
        aside.say(f"{len(texts)} prompts of one word each; one prompt of several words stands in quotes")
    if texts:
        return rows_of_texts(texts)
    return None if sys.stdin is not None and sys.stdin.isatty() else rows_of_stdin()


def _say_what_is_added(model: Answering, wishes: Wishes, of_run: bool, aside: Aside) -> None:
    if of_run and not wishes.raw and model.suffix:
        aside.say(
            f"as in training, {model.suffix!r} is put behind each prompt; data.prompt_suffix= leaves it out", dim=True
        )


def _answer(model: Answering, prompts: list[Prompt], wishes: Wishes, given: argparse.Namespace, aside: Aside) -> None:
    from pggrpo_cli.generating.answer_display import JsonDisplay, TextDisplay

    display: JsonDisplay | TextDisplay
    display = JsonDisplay(prompts, aside) if given.json else TextDisplay(prompts, wishes.samples, model.limit, aside)
    try:
        model.answer(prompts, display)
    except KeyboardInterrupt:
        display.interrupted()
        raise
    display.finish()
