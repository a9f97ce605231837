"""Rows to token ids: templates, suffixes, end tokens, what is too long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pggrpo_cli.errors import DataError
from pggrpo_cli.model.tiny import byte_tokenizer
from pggrpo_cli.prompts import PromptFormat, RenderedPrompts, apply_format, render_rows
from pggrpo_cli.types import OfflineCompletion, Row

FORMAT = PromptFormat(system_prompt=None, prompt_suffix="", max_prompt_tokens=None, overlong="drop")
CHAT = Row(prompt=[{"role": "user", "content": "2 + 2?"}], columns={"answer": "4"}, source="x.jsonl:1")
PLAIN = Row(prompt="2 + 2 =", source="x.jsonl:2")
TOKENIZER = byte_tokenizer()
END = TOKENIZER.eos_token_id


def render(*rows: Row, prompt_format: PromptFormat = FORMAT, limit: int = 200) -> RenderedPrompts:
    return render_rows(rows, TOKENIZER, prompt_format, limit, [END])


def test_plain_text_stays_as_it_is() -> None:
    (prompt,) = render(PLAIN).prompts
    assert prompt.text == "2 + 2 ="
    assert TOKENIZER.decode(prompt.token_ids) == "2 + 2 ="


def test_messages_go_through_the_template_and_wait_for_the_assistant() -> None:
    (prompt,) = render(CHAT).prompts
    assert prompt.text == "<|user|>2 + 2?<|end|><|assistant|>"
    assert TOKENIZER.decode(prompt.token_ids) == prompt.text
    assert prompt.token_ids[0] == TOKENIZER.convert_tokens_to_ids("<|user|>")


def test_system_prompt_and_suffix() -> None:
    prompt_format = replace(FORMAT, system_prompt="Be brief.", prompt_suffix=" Only the number.")
    (prompt,) = render(CHAT, prompt_format=prompt_format).prompts
    assert prompt.text == "<|system|>Be brief.<|end|><|user|>2 + 2? Only the number.<|end|><|assistant|>"
    assert apply_format(PLAIN, prompt_format).prompt == "Be brief.\n\n2 + 2 = Only the number."
    own = replace(CHAT, prompt=[{"role": "system", "content": "Mine."}, *CHAT.prompt])
    assert render(own, prompt_format=prompt_format).prompts[0].text.count("<|system|>") == 1
    assert CHAT.prompt == [{"role": "user", "content": "2 + 2?"}]  # the row itself is untouched


def test_offline_completions_end_with_the_end_token_and_continue_the_prompt() -> None:
    pair = (
        OfflineCompletion(content=[{"role": "assistant", "content": "4"}], preference=1.0),
        OfflineCompletion(content=[{"role": "assistant", "content": "five"}], preference=0.0),
    )
    (prompt,) = render(replace(CHAT, completions=pair)).prompts
    assert [TOKENIZER.decode(ids) for ids in prompt.completion_ids] == ["4<|end|>", "five<|end|>"]
    whole = TOKENIZER.apply_chat_template([*CHAT.prompt, *pair[0].content], tokenize=False)
    assert TOKENIZER.decode([*prompt.token_ids, *prompt.completion_ids[0]]) == whole
    (plain,) = render(replace(PLAIN, completions=(OfflineCompletion(content=" 4", preference=None),))).prompts
    assert plain.completion_ids == ((*TOKENIZER(" 4")["input_ids"], END),)


@pytest.mark.fault("T20")
def test_overlong_prompts_are_dropped_cut_or_refused() -> None:
    long = Row(prompt="x" * 50, source="x.jsonl:9")
    dropped = render(PLAIN, long, limit=20)
    assert (len(dropped.prompts), dropped.dropped, dropped.prompts[0].index) == (1, 1, 0)
    cut = render(Row(prompt="a" * 30 + "b" * 20), prompt_format=replace(FORMAT, overlong="truncate_left"), limit=25)
    assert cut.truncated == 1
    assert TOKENIZER.decode(cut.prompts[0].token_ids) == "aaaaa" + "b" * 20
    with pytest.raises(DataError, match=r"x.jsonl:9: the prompt has 50 tokens, 20 are left"):
        render(PLAIN, long, prompt_format=replace(FORMAT, overlong="error"), limit=20)
    with pytest.raises(DataError, match="all 1 rows were dropped"):
        render(long, limit=20)
    assert render(PLAIN, long, prompt_format=replace(FORMAT, max_prompt_tokens=49)).dropped == 1
    assert render(PLAIN, long, prompt_format=replace(FORMAT, max_prompt_tokens=50)).dropped == 0


@pytest.mark.fault("T20")
def test_the_longest_completion_takes_its_room_from_the_prompt() -> None:
    row = replace(PLAIN, completions=(OfflineCompletion(content="y" * 30, preference=None),))
    assert render(row, PLAIN, limit=37).dropped == 1
    assert render(row, PLAIN, limit=38).dropped == 0


@pytest.mark.fault("T20")
def test_an_empty_prompt_needs_a_bos() -> None:
    with pytest.raises(DataError, match="prompt is empty"):
        render(Row(prompt="", source="x:1"))
    tokenizer = byte_tokenizer()
    tokenizer.bos_token = "<|user|>"
    (prompt,) = render_rows([Row(prompt="")], tokenizer, FORMAT, 100, [END]).prompts
    assert prompt.token_ids == (tokenizer.bos_token_id,)


@pytest.mark.fault("T25")
def test_messages_without_a_template_are_an_error_that_says_what_to_do() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(DataError, match=r"`model.chat_template`.*no chat template"):
        render_rows([CHAT], tokenizer, FORMAT, 100, [END])


@pytest.mark.fault("T25")
def test_a_template_that_raises_names_the_row() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('system first') }}"
    with pytest.raises(DataError, match=r"x.jsonl:1: the chat template cannot render this row: system first"):
        render_rows([CHAT], tokenizer, FORMAT, 100, [END])
