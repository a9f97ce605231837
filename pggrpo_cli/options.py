"""Options of the commands that Hydra does not compose, with refusals in our own words."""

from __future__ import annotations

import argparse
from typing import NoReturn

from pggrpo_cli.errors import UsageError
from pggrpo_cli.suggestions import did_you_mean


class Options(argparse.ArgumentParser):
    """argparse that raises UsageError. The help page is the command's own text, that of its first word."""

    def __init__(self, command: str) -> None:
        super().__init__(prog=f"pggrpo {command}", add_help=False, allow_abbrev=False)
        self._page = f"pggrpo {command.partition(' ')[0]} --help"

    def error(self, message: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        unknown = message.partition("unrecognized arguments: ")[2].split(" ")[0].partition("=")[0]
        meant = did_you_mean(unknown, [*known, "--help"]) if unknown else ""
        if unknown.startswith("-"):
            raise UsageError(f"`{unknown}`: {self.prog} has no such option.{meant} See {self._page}.")
        raise UsageError(f"{self.prog}: {message}.{meant} See {self._page}.")
