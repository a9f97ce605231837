"""A chat template of the user's in place of a tokenizer's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pggrpo_cli.errors import ConfigError


def use_chat_template(tokenizer: Any, template: str | None, key: str) -> None:
    """`template`: a file, Jinja text, or None for the tokenizer's own. Raises ConfigError, blaming `key`, if there is no
    such file."""
    if template is None:
        return
    file = Path(template).expanduser()
    is_file = len(template) < 4096 and "\n" not in template and "{" not in template
    if is_file and not file.is_file():
        raise ConfigError(f"`{key}`: there is no file {template}, and it is no Jinja text.")
    tokenizer.chat_template = file.read_text(encoding="utf-8") if is_file else template
