"""Rows to prompts: system prompt and suffix, chat template, token ids; what is too long is dropped, cut or an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pggrpo_cli.errors import DataError
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


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedPrompts:
    """Prompts with how many rows were too long."""

    prompts: list[Prompt]
    dropped: int
    truncated: int


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
    """Renders and tokenises. `context_limit`: tokens of the model's context that a prompt and its offline completions
    may take. Prompt.row carries the formatted prompt. Raises DataError if nothing is left."""
    prompts: list[Prompt] = []
    dropped = truncated = 0
    limit = context_limit
    for index, row in enumerate(rows):
        own = prompt_format.of(row)
        limit = min(context_limit, own.max_prompt_tokens or context_limit)
        formatted = apply_format(row, prompt_format)
        text = _prompt_text(formatted, tokenizer)
        ids = _prompt_ids(formatted, text, tokenizer)
        answers = _completion_ids(formatted, text, tokenizer, end_token_ids)
        room = min(limit, context_limit - max((len(answer) for answer in answers), default=0))
        if len(ids) > room:
            if own.overlong == "error" or (room < 1 and own.overlong != "drop"):
                raise DataError(
                    f"{row.source}: the prompt has {len(ids)} tokens, {max(room, 0)} are left for it (context, "
                    "max_new_tokens, data.max_prompt_tokens). Allow fewer new tokens, or data.overlong=drop."
                )
            if own.overlong == "drop":
                dropped += 1
                continue
            ids = ids[-room:]
            truncated += 1
        prompts.append(
            Prompt(row=formatted, index=index, text=text, token_ids=tuple(ids), completion_ids=tuple(answers))
        )
    if not prompts:
        raise DataError(
            f"`data`: all {len(rows)} rows were dropped: their prompts are longer than {limit} tokens. "
            "Raise data.max_prompt_tokens, lower sampler.max_new_tokens, or use data.overlong=truncate_left."
        )
    return RenderedPrompts(prompts=prompts, dropped=dropped, truncated=truncated)


def _rendered(messages: list[Message], tokenizer: Any, source: str, *, generation: bool) -> str:
    if getattr(tokenizer, "chat_template", None) is None:
        raise DataError(
            f"`model.chat_template`: the data is conversational ({source}) and the tokenizer has no chat template. "
            "Give one (Jinja text or a file), or use plain prompts with data.as_chat=false."
        )
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
    except Exception as error:
        # Templates raise what they like (jinja2's own errors, TypeErrors of odd contents): all mean this row.
        raise DataError(f"{source}: the chat template cannot render this row: {error}") from error
    return text


def _prompt_text(row: Row, tokenizer: Any) -> str:
    if isinstance(row.prompt, str):
        return row.prompt
    return _rendered(row.prompt, tokenizer, row.source, generation=True)


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


def _completion_ids(row: Row, prompt_text: str, tokenizer: Any, end_token_ids: Sequence[int]) -> list[tuple[int, ...]]:
    """Token ids of the data set's own completions, each with its end token."""
    result: list[tuple[int, ...]] = []
    for completion in row.completions:
        if isinstance(completion.content, str):
            text = completion.content
        else:
            assert isinstance(row.prompt, list)
            whole = _rendered([*row.prompt, *completion.content], tokenizer, row.source, generation=False)
            if not whole.startswith(prompt_text):
                raise DataError(
                    f"{row.source}: rendered by the chat template, prompt and completion do not begin with the prompt; "
                    "this template cannot be used for offline completions. Give another model.chat_template."
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
