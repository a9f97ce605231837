"""What a judge is asked: a Jinja2 template filled with a completion, its prompt and its row."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.types import Sample


class JudgePrompt:
    """A template, or the path of a file with one. It sees `prompt` (a conversation as lines "role: text"), `messages`,
    `columns` and `completion`, or `completion_a` and `completion_b` of two; and `fence`, eight signs that depend on all of
    it: a completion cannot know them, so it cannot write the mark that ends it.
    """

    def __init__(self, template: str, key: str) -> None:
        self._key = key
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=False)
        try:
            self._template = environment.from_string(_read(template, key))
        except TemplateSyntaxError as error:
            raise ConfigError(f"`{key}`: line {error.lineno} is no Jinja2: {error.message}") from error

    def of(self, sample: Sample) -> str:
        return self._filled(sample, {"completion": sample.completion})

    def of_pair(self, first: Sample, second: Sample) -> str:
        return self._filled(first, {"completion_a": first.completion, "completion_b": second.completion})

    def _filled(self, sample: Sample, completions: dict[str, str]) -> str:
        prompt = _as_text(sample.prompt)
        text = "\0".join([prompt, *completions.values()])
        fence = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
        messages = sample.prompt if isinstance(sample.prompt, list) else [{"role": "user", "content": prompt}]
        try:
            return self._template.render(
                prompt=prompt, messages=messages, columns=sample.columns, fence=fence, **completions
            )
        except SecurityError as error:
            raise ConfigError(f"`{self._key}`: does what the sandbox forbids: {error}") from error
        except (TemplateError, TypeError, ValueError, ZeroDivisionError) as error:
            raise DataError(
                f"`{self._key}`: {error}. It may use prompt, messages, fence, {', '.join(completions)} and columns: "
                f"{', '.join(map(repr, sample.columns)) or 'none beside the prompt'}."
            ) from error


def _read(template: str, key: str) -> str:
    """As model.chat_template: text with a line break or a brace is a template, anything else a path."""
    if "\n" in template or "{" in template:
        return template
    file = Path(template).expanduser()
    if not file.is_file():
        raise ConfigError(f"`{key}`: there is no file {template}, and it is no Jinja2 text.")
    return file.read_text(encoding="utf-8")


def _as_text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{message['role']}: {message.get('content')}" for message in prompt)
