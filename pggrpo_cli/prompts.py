"""Rows to prompts: system prompt and suffix, chat template, token ids; what is too long is dropped, cut or an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.ranges import Range
from pggrpo_cli.types import Message, Prompt, Row


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """The keys of the data node that hold for every data set; the others belong to its class."""

    system_prompt: str | None
    prompt_suffix: str
    max_prompt_tokens: Annotated[int | None, Range(ge=1)]
    overlong: Literal["drop", "truncate_left", "error"]

    def of(self, row: Row) -> PromptFormat:
        """With what the row's part of a mixture says itself."""
        return replace(self, **row.format) if row.format else self


def format_of(node: Mapping[str, Any]) -> PromptFormat:
    """From the data node."""
    return PromptFormat(**{field.name: node[field.name] for field in fields(PromptFormat)})


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedPrompts:
    """Prompts with how many rows were too long, of all or of those looked at."""

    prompts: Sequence[Prompt]
    dropped: int
    truncated: int
    sample: Sequence[Prompt]
    """All of them; of prompts that are rendered when their turn comes, those looked at before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Renderer:
    """How rows become prompts of one model."""

    tokenizer: Any
    prompt_format: PromptFormat
    context_limit: int
    """Tokens of the model's context that a prompt and its offline completions may take."""
    end_token_ids: Sequence[int]

    @property
    def limit(self) -> int:
        """Tokens of a prompt without completions."""
        return self._limit(self.prompt_format)

    def whole(self, row: Row, index: int) -> Prompt:
        """With all its tokens, however many. Prompt.row carries the formatted prompt."""
        formatted = apply_format(row, self.prompt_format)
        text, ids, answers = tokenise(formatted, self.tokenizer, self.end_token_ids)
        return Prompt(row=formatted, index=index, text=text, token_ids=tuple(ids), completion_ids=tuple(answers))

    def room(self, prompt: Prompt) -> int:
        """Tokens that the prompt may have beside the longest of its completions; may be negative."""
        limit = self._limit(self.prompt_format.of(prompt.row))
        return min(limit, self.context_limit - max((len(answer) for answer in prompt.completion_ids), default=0))

    def fitted(self, row: Row, index: int) -> Prompt | None:
        """Cut if it is too long, or None if it is to be dropped. Raises DataError if it may be neither."""
        prompt = self.whole(row, index)
        room, length = self.room(prompt), len(prompt.token_ids)
        if length <= room:
            return prompt
        overlong = self.prompt_format.of(row).overlong
        if overlong == "error" or (room < 1 and overlong != "drop"):
            raise DataError(
                f"{row.source}: the prompt has {length} tokens, {max(room, 0)} are left for it (context, "
                "max_new_tokens, data.max_prompt_tokens). Allow fewer new tokens, or data.overlong=drop."
            )
        return None if overlong == "drop" else replace(prompt, token_ids=prompt.token_ids[-room:], truncated=True)

    def _limit(self, prompt_format: PromptFormat) -> int:
        return min(self.context_limit, prompt_format.max_prompt_tokens or self.context_limit)

    def none_fits(self, count: int) -> DataError:
        return DataError(
            f"`data`: all {count} rows were dropped: their prompts are longer than {self.limit} tokens. "
            "Raise data.max_prompt_tokens, lower sampler.max_new_tokens, or use data.overlong=truncate_left."
        )


def prompt_room(context_length: int, new_tokens: int, key: str) -> int:
    """Tokens of the context that are left for a prompt. Raises ConfigError naming `key`, where new_tokens comes from."""
    if new_tokens >= context_length:
        raise ConfigError(
            f"`{key}`: {new_tokens} leaves no room for a prompt: the model's context is {context_length} "
            "tokens. Lower it."
        )
    return context_length - new_tokens


def apply_format(row: Row, prompt_format: PromptFormat) -> Row:
    """The row with system prompt and suffix in its prompt: what rewards see, and what is rendered."""
    prompt = row.prompt
    prompt_format = prompt_format.of(row)
    system, suffix = prompt_format.system_prompt, prompt_format.prompt_suffix
    if isinstance(prompt, str):
        return replace(row, prompt=(f"{system}\n\n" if system else "") + prompt + suffix)
    messages = [dict(message) for message in prompt]
    if system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    if suffix:
        last_user = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=None)
        if last_user is None or not isinstance(messages[last_user]["content"], str):
            raise DataError(f"{row.source}: data.prompt_suffix needs a user message with text to be appended to.")
        messages[last_user]["content"] += suffix
    return replace(row, prompt=messages)


def render_rows(
    rows: Sequence[Row],
    tokenizer: Any,
    prompt_format: PromptFormat,
    context_limit: int,
    end_token_ids: Sequence[int],
) -> RenderedPrompts:
    """Renders and tokenises all of them; see Renderer. Raises DataError if nothing is left."""
    renderer = Renderer(
        tokenizer=tokenizer, prompt_format=prompt_format, context_limit=context_limit, end_token_ids=end_token_ids
    )
    fitted = [renderer.fitted(row, index) for index, row in enumerate(rows)]
    prompts = [prompt for prompt in fitted if prompt is not None]
    if not prompts:
        raise renderer.none_fits(len(rows))
    truncated = sum(prompt.truncated for prompt in prompts)
    return RenderedPrompts(prompts=prompts, dropped=len(rows) - len(prompts), truncated=truncated, sample=prompts)


def tokenise(
    row: Row, tokenizer: Any, end_token_ids: Sequence[int], key: str = "model"
) -> tuple[str, list[int], list[tuple[int, ...]]]:
    """(the prompt rendered, its ids, the ids of row.completions, each with its end token). `key`: whose tokenizer it is."""
    text = row.prompt
    if not isinstance(text, str):
        text = rendered(text, tokenizer, row.source, key, generation=True)
    return text, _prompt_ids(row, text, tokenizer), _completion_ids(row, text, tokenizer, end_token_ids, key)


def rendered(messages: Sequence[Message], tokenizer: Any, source: str, key: str, *, generation: bool) -> str:
    """Messages as text. `generation`: open for the assistant's next turn. Raises DataError naming `source`."""
    if getattr(tokenizer, "chat_template", None) is None:
        raise DataError(
            f"`{key}.chat_template`: the data is conversational ({source}) and the tokenizer has no chat template. "
            "Give one (Jinja text or a file), or use plain prompts with data.as_chat=false."
        )
    try:
        text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=generation)
    except Exception as error:
        # Templates raise what they like (jinja2's own errors, TypeErrors of odd contents): all mean this row.
        raise DataError(f"{source}: the chat template cannot render this row: {error}") from error
    return text


def _prompt_ids(row: Row, text: str, tokenizer: Any) -> list[int]:
    # A template writes its own BOS; a plain text gets the tokenizer's. Never both.
    plain = isinstance(row.prompt, str)
    ids: list[int] = tokenizer(text, add_special_tokens=plain)["input_ids"]
    if plain and ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(tokenizer.eos_token or "\0"):
        ids = ids[:-1]  # some tokenizers close every text; a prompt must stay open
    if not ids and tokenizer.bos_token_id is not None:
        ids = [tokenizer.bos_token_id]
    if not ids:
        raise DataError(f"{row.source}: the prompt is empty, and the tokenizer has no BOS to begin with.")
    return ids


def _completion_ids(
    row: Row, prompt_text: str, tokenizer: Any, end_token_ids: Sequence[int], key: str
) -> list[tuple[int, ...]]:
    """Token ids of the data set's own completions, each with its end token."""
    result: list[tuple[int, ...]] = []
    for completion in row.completions:
        if isinstance(completion.content, str):
            text = completion.content
        else:
            assert isinstance(row.prompt, list)
            messages = [*row.prompt, *completion.content]
            whole = rendered(messages, tokenizer, row.source, key, generation=False)
            if not whole.startswith(prompt_text):
                raise DataError(
                    f"{row.source}: rendered by the chat template, prompt and completion do not begin with the prompt; "
                    f"this template cannot be used for completions that are given. Give another {key}.chat_template."
                )
            text = whole[len(prompt_text) :]
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        ids = _closed(ids, end_token_ids, tokenizer)
        if not ids:
            raise DataError(f"{row.source}: a completion has no token and the tokenizer no end token.")
        result.append(tuple(ids))
    return result


def _closed(ids: list[int], end_token_ids: Sequence[int], tokenizer: Any) -> list[int]:
    """Up to and with the end token; what a template writes behind it (a line break) was never sampled."""
    ends = set(end_token_ids)
    last = max((place for place, token in enumerate(ids) if token in ends), default=None)
    if last is not None and not tokenizer.decode(ids[last + 1 :]).strip():
        return ids[: last + 1]
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else next(iter(end_token_ids), None)
    return ids if end is None else [*ids, end]
