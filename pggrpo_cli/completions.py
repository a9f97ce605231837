"""What a shell may offer for a word that is being typed. Read from conf/ and from the sources: no Hydra, no torch."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from pggrpo_cli.conf_files import first_comment, group_comments, groups
from pggrpo_cli.config import conf_dir
from pggrpo_cli.printable import one_line

Candidate = tuple[str, str]
"""The whole word, and what it is. One that ends with = . / [ or , goes on; behind any other the shell sets a blank."""

SHELLS = ("bash", "zsh", "fish")
COMMANDS_ON_RUNS = ("resume", "export", "report", "eval", "generate")
"""Their first word is the directory of a run."""
COMMANDS_ON_MODELS = ("eval", "generate")
"""It may also be a model that is no run's: an option of the group model that needs no path."""
HYDRA_OPTIONS = {
    "--multirun": "a sweep over every combination of values",
    "--cfg": "show the configuration instead of running it: job, hydra, all",
    "--config-dir": "groups of your own",
    "--help": "the groups, keys and what they are now",
    "--info": "where the configuration comes from",
    "--hydra-help": "the options of Hydra itself",
    "--resolve": "with --cfg: interpolations resolved",
    "--version": "",
}
VALUES_OF_OPTIONS = {"--cfg": ("job", "hydra", "all"), "-c": ("job", "hydra", "all")}
FOLDER_OPTIONS = ("--config-dir", "-cd")


def main(arguments: list[str]) -> int:
    """`pggrpo __complete WORD…`, the last word being typed, or `pggrpo __complete --line LINE`, up to the cursor.

    Prints a candidate a line, with a tab and what it is. Whatever goes wrong, a user who presses a key must not be
    answered with a traceback: then nothing is offered, and the tests call `complete` itself.
    """
    try:
        words = _split(arguments[1]) if arguments[:1] == ["--line"] else arguments
        found = complete(words)
        lines = "".join(f"{word}\t{one_line(what)}\n" for word, what in found)
        sys.stdout.buffer.write(os.fsencode(lines))
    except Exception:
        return 0
    return 0


def complete(words: Sequence[str]) -> list[Candidate]:
    """`words` after `pggrpo`, the last one (perhaps empty) being typed."""
    *before, word = words or [""]
    return list(dict(_candidates(before, word)).items())


def _split(line: str) -> list[str]:
    """Words after the program's name; an open quote ends with the line."""
    for closing in ("", "'", '"'):
        try:
            words = shlex.split(line + closing)
        except ValueError:
            continue
        return words[1:] + ([""] if line[-1:].isspace() and not closing else [])
    return []


def _candidates(before: Sequence[str], word: str) -> Iterable[Candidate]:
    from pggrpo_cli.cli import commands

    if not before:
        known = {**commands(), "--help": "", "--version": ""}
        return _matching(word, known.items())
    command, rest = before[0], before[1:]
    if rest and rest[-1] in (*FOLDER_OPTIONS, *VALUES_OF_OPTIONS):
        options = VALUES_OF_OPTIONS.get(rest[-1])
        return _matching(word, [(one, "") for one in options]) if options else paths(word, folders_only=True)
    if command == "config":
        return _of_config(rest, word)
    if command == "completion":
        return [] if rest else _matching(word, [(one, "") for one in SHELLS])
    if command == "sweep":
        return _of_sweep(rest, word)
    if (conf_dir() / f"{command}.yaml").exists() or command in ("doctor", "plan"):
        name = command if command not in ("doctor", "plan") else "train"
        if word.startswith("-"):
            return _matching(word, HYDRA_OPTIONS.items() if command == name else _options_in_help(command).items())
        return _overrides(name, rest, word)
    of_command = _options_in_help(command)
    if rest and "|" in of_command.get(rest[-1], ""):
        return _matching(word, [(one, "") for one in of_command[rest[-1]].split("|")])
    if word.startswith("-"):
        return _matching(word, of_command.items())
    if command in COMMANDS_ON_RUNS and not _positional(rest):
        return [*runs(word), *(_models(word) if command in COMMANDS_ON_MODELS else ())]
    if command in COMMANDS_ON_MODELS:
        keys, files = list(_overrides("train", rest, word)), paths(word)
        return (files or keys) if rest[-1].startswith("-") else (keys or files)  # behind an option perhaps its file
    return _overrides("train", rest, word) if command == "resume" else paths(word)


def _models(word: str) -> Iterable[Candidate]:
    files = groups()["model"].items()
    return _matching(
        word, [(name, first_comment(file)) for name, file in files if "???" not in file.read_text("utf-8")]
    )


def _of_config(rest: Sequence[str], word: str) -> Iterable[Candidate]:
    """`pggrpo config <action> …`"""
    if not rest:
        return _matching(word, {"ls": "list", "show": "print", "copy": "start one's own", "validate": "check"}.items())
    action, files = rest[0], groups(_folders(rest))
    if word.startswith("-"):
        return _matching(word, [("--config-dir", "groups of your own"), ("--as", "the copy's name")])
    if action == "ls":
        said = group_comments()
        return _matching(word, [(group, said.get(group, "")) for group in files])
    given = _positional(rest[1:])
    if action == "copy" and given:
        return paths(word, folders_only=True)
    whole = [(f"{group}/{name}", first_comment(file)) for group in files for name, file in files[group].items()]
    if action == "copy":
        return _matching(word, whole)
    overrides = list(_overrides("train", rest[1:], word))
    if action == "show":
        return [*_matching(word, [] if given else whole), *overrides]
    return overrides or paths(word)


def _of_sweep(rest: Sequence[str], word: str) -> Iterable[Candidate]:
    """`pggrpo sweep <action> DIR …`"""
    if not rest:
        return _matching(word, {"status": "how far its jobs are", "resume": "go on with it"}.items())
    if word.startswith("-"):
        return _matching(word, [("--help", ""), *([("--json", "")] if rest[0] == "status" else [])])
    if _positional(rest[1:]):
        return _overrides("train", rest[1:], word) if rest[0] == "resume" else []
    found = sorted((str(file.parent) for file in Path().glob("outputs/sweeps/*/*/sweep.json")), reverse=True)
    return list(_matching(word, [(one, "") for one in found])) or paths(word, folders_only=True)


def _overrides(name: str, words: Sequence[str], word: str) -> Iterable[Candidate]:
    from pggrpo_cli.key_completions import overrides

    return overrides(name, words, _folders(words), word)


def _positional(words: Sequence[str]) -> list[str]:
    """Without options and the folders that belong to them."""
    values = {place + 1 for place, one in enumerate(words) if one in FOLDER_OPTIONS}
    return [one for place, one in enumerate(words) if not one.startswith("-") and place not in values]


def _folders(words: Sequence[str]) -> list[Path]:
    places = [place for place, one in enumerate(words[:-1]) if one in FOLDER_OPTIONS]
    return [Path(words[place + 1]).expanduser() for place in places]


def _options_in_help(command: str) -> dict[str, str]:
    """{--option: its choices or what it is}, out of the source of a command, which has its help page as text."""
    file = Path(__file__).parent / "command" / f"{command}.py"
    if not re.fullmatch(r"[a-z]\w*", command) or not file.is_file():
        return {}
    text = file.read_text(encoding="utf-8")
    found = dict.fromkeys(re.findall(r"(?<![\w`-])--[a-z][a-z-]+", text), "")
    choices = dict(re.findall(r"(--[a-z][a-z-]+) ([\w-]+(?:\|[\w-]+)+)", text))
    return {"--help": ""} | found | choices


def runs(word: str) -> list[Candidate]:
    """Directories of runs below outputs/, else paths."""
    patterns = ("outputs/*/*/config.yaml", "outputs/sweeps/*/*/*/config.yaml")
    found = [str(file.parent) for pattern in patterns for file in Path().glob(pattern)]
    return list(_matching(word, [(one, "") for one in sorted(found, reverse=True)])) or paths(word)


def paths(word: str, *, folders_only: bool = False) -> list[Candidate]:
    """Files and folders whose path begins with `word`; a folder ends with a slash."""
    head, slash, start = word.rpartition("/")
    folder = Path(os.path.expanduser(head + slash) or ".")
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []  # no such folder: nothing to offer
    shown = [one for one in entries if one.name.startswith(start) and (start.startswith(".") or one.name[:1] != ".")]
    return [
        (f"{head}{slash}{one.name}{'/' if one.is_dir() else ''}", "")
        for one in shown
        if one.is_dir() or not folders_only
    ]


def _matching(word: str, known: Iterable[Candidate]) -> list[Candidate]:
    return [(one, what) for one, what in known if one.startswith(word)]
