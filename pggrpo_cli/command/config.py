"""pggrpo config: list, show, copy and check configurations: pggrpo config ls|show|copy|validate."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pggrpo_cli.errors import ConfigError, UsageError
from pggrpo_cli.options import Options
from pggrpo_cli.suggestions import did_you_mean

HELP = """\
usage: pggrpo config ls [GROUP]                       the groups and their options, a line each
       pggrpo config show GROUP/OPTION                a file of ours
       pggrpo config show [key=value …]               the whole configuration of a run, with comments
       pggrpo config copy GROUP/OPTION DIR [--as NAME] a file of ours as a start for one of yours
       pggrpo config validate [key=value … | FILE]    what would be refused, without a run; exit code 2 if anything is

Each takes --config-dir DIR, the folder that holds groups of your own. FILE is one of these (DIR/loss/mine.yaml), or the
config.yaml of a run.

examples:
  pggrpo config ls loss
  pggrpo config show loss/pg_grpo
  pggrpo config copy loss/grpo my --as gentle && pggrpo train --config-dir my loss=gentle
  pggrpo config validate loss=grpo sampler.top_p=0.9
"""


def main(arguments: list[str]) -> int:
    if not arguments or set(arguments) & {"-h", "--help"}:
        print(HELP, end="")
        return 0 if arguments else 2
    actions: dict[str, Callable[[list[str]], None]] = {"ls": _ls, "show": _show, "copy": _copy, "validate": _validate}
    if arguments[0] not in actions:
        raise UsageError(
            f"`{arguments[0]}`: is nothing that pggrpo config does.{did_you_mean(arguments[0], actions)} It does "
            f"{', '.join(actions)}; pggrpo config --help explains them."
        )
    actions[arguments[0]](arguments[1:])
    return 0


def _ls(arguments: list[str]) -> None:
    from pggrpo_cli.conf_files import default_options, first_comment, group_comments

    options = _options("ls")
    options.add_argument("group", nargs="?")
    given = options.parse_intermixed_args(arguments)
    found = _groups(given.config_dir)
    if given.group is not None:
        found = {given.group: _of_group(given.group, found)}
    chosen, said = default_options(), group_comments()
    for group, files in found.items():
        print(f"{group}: {said[group]}" if group in said else group)
        width = max(len(name) for name in files)
        for name, file in files.items():
            mark = "*" if name in chosen.get(group, ()) else " "
            print(f"  {mark} {name:{width}}  {first_comment(file)}".rstrip())
    print("\n* unless you choose another: GROUP=OPTION. pggrpo config show GROUP/OPTION prints a file.")


def _show(arguments: list[str]) -> None:
    options = _options("show")
    options.add_argument("words", nargs="*")
    given = options.parse_intermixed_args(arguments)
    if len(given.words) == 1 and "=" not in given.words[0] and not given.words[0].startswith("~"):
        print(_file(given.words[0], given.config_dir).read_text(encoding="utf-8"), end="")
        return
    from pggrpo_cli.composing import shown

    print(shown("train", given.words, given.config_dir), end="")


def _copy(arguments: list[str]) -> None:
    from pggrpo_cli.conf_files import groups
    from pggrpo_cli.config import NAMED_GROUPS, conf_dir

    options = _options("copy")
    options.add_argument("option", metavar="GROUP/OPTION")
    options.add_argument("folder", metavar="DIR")
    options.add_argument("--as", dest="name")
    given = options.parse_intermixed_args(arguments)
    source = _file(given.option, given.config_dir)
    if source.parent == conf_dir():
        raise UsageError(f"`{given.option}`: is the whole configuration; write GROUP/OPTION, such as loss/grpo.")
    group, name = source.parent.name, given.name or f"my_{source.stem}"
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise UsageError(f"`--as`: {name!r} becomes a name in the configuration; allowed are letters, digits and _.")
    if name in groups()[group]:
        raise UsageError(f"`--as`: {group}={name} is one of pggrpo's own, which yours would hide. Give another name.")
    folder = Path(given.folder).expanduser()
    target = folder / group / f"{name}.yaml"
    if target.exists():
        raise UsageError(f"{target}: is there already. Give another name with --as, or another folder.")
    text = source.read_text(encoding="utf-8")
    if group in NAMED_GROUPS:  # both can then be used side by side, and their metrics have different names
        text = re.sub(rf"(?m)^{source.stem}:", f"{name}:", text)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}. Give another folder.") from error
    print(f"{target}: change it, then use it with\n\n  pggrpo train --config-dir {folder} {group}={name}")


def _validate(arguments: list[str]) -> None:
    options = _options("validate")
    options.add_argument("words", nargs="*")
    given = options.parse_intermixed_args(arguments)
    words, folder = given.words, given.config_dir
    files = [word for word in words if "=" not in word and (Path(word).exists() or word.endswith((".yaml", ".yml")))]
    if files and len(words) == 1 and (values := _of_a_run(Path(files[0]))) is not None:
        _validate_run(values)
        return
    if files:
        words = [word for word in words if word not in files]
        folder, chosen = _own_file(Path(files[0]), folder)
        words = [chosen, *words]
    from pggrpo_cli.check import check_foreign_targets, checked
    from pggrpo_cli.composing import compose

    config = checked(compose("train", words, folder))
    if sys.stderr.isatty():
        print("loading torch …", end="\r", file=sys.stderr, flush=True)
    check_foreign_targets(config)
    print("ok: every key, every value and every class; data, model and rewards: pggrpo doctor")


def _validate_run(values: dict[str, Any]) -> None:
    """A configuration read from disk: code that is not ours is named, not imported."""
    from pggrpo_cli.check import check_values, foreign_nodes
    from pggrpo_cli.config import brought_up_to_date
    from pggrpo_cli.foreign_code import in_words

    values = brought_up_to_date(values)
    check_values(values)
    foreign = dict.fromkeys(in_words(node.target, node.arguments) for node in foreign_nodes(values))
    print("ok: every key and every value" + (f"; not looked into: {', '.join(foreign)}" if foreign else ""))


def _of_a_run(path: Path) -> dict[str, Any] | None:
    """The values of a run's directory or config.yaml; None if the file is something else. Raises ConfigError."""
    import yaml

    from pggrpo_cli.config import SECTIONS

    file = path / "config.yaml" if path.is_dir() else path
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: cannot be read: {' '.join(str(error).split())}. Give a file of YAML.") from error
    whole = isinstance(values, dict) and "defaults" not in values and sum(name in values for name in SECTIONS) > 3
    return values if whole else None


def _own_file(file: Path, folder: str | None) -> tuple[str, str]:
    """The --config-dir and the override that choose a user's own file of a group."""
    from pggrpo_cli.config import NAMED_GROUPS, conf_dir

    group, root = file.absolute().parent.name, file.absolute().parent.parent
    if group not in _groups(str(root)) or not (conf_dir() / group).is_dir():
        raise UsageError(
            f"{file}: is neither a run's config.yaml nor a file of a group; such a file lies in a folder named after its "
            "group: DIR/loss/mine.yaml."
        )
    if folder is not None and Path(folder).absolute() != root:
        raise UsageError(f"`--config-dir`: {folder} is not the folder of {file}; leave it out.")
    return str(root), f"{group}=[{file.stem}]" if group in NAMED_GROUPS else f"{group}={file.stem}"


def _options(action: str) -> Options:
    options = Options(f"config {action}")
    options.add_argument("--config-dir", "-cd")
    return options


def _groups(config_dir: str | None) -> dict[str, dict[str, Path]]:
    from pggrpo_cli.conf_files import groups

    if config_dir is not None and not Path(config_dir).is_dir():
        raise UsageError(f"`--config-dir`: there is no folder {config_dir}. Give the folder that holds your groups.")
    return groups([] if config_dir is None else [Path(config_dir)])


def _of_group(group: str, found: dict[str, dict[str, Path]]) -> dict[str, Path]:
    if group not in found:
        raise UsageError(
            f"`{group}`: there is no such group.{did_you_mean(group, found)} There are: {', '.join(found)}."
        )
    return found[group]


def _file(word: str, config_dir: str | None) -> Path:
    """The file of GROUP/OPTION, or of a whole configuration such as train. Raises UsageError."""
    from pggrpo_cli.config import conf_dir

    group, slash, option = word.removesuffix(".yaml").partition("/")
    found = _groups(config_dir)
    if not slash:
        whole = {file.stem: file for file in conf_dir().glob("*.yaml")}
        if group in whole:
            return whole[group]
        files = _of_group(group, found)
        raise UsageError(f"`{word}`: is a group; write {group}/OPTION. There are: {', '.join(files)}.")
    files = _of_group(group, found)
    if option not in files:
        raise UsageError(
            f"`{word}`: there is no {option} in {group}.{did_you_mean(option, files)} There are: {', '.join(files)}."
        )
    return files[option]
