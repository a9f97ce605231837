"""Implicit rewards against plain forwards of transformers in float64, one completion at a time, and against loss=dpo."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pggrpo_cli.batching import TrainGroup, TrainRow, micro_batches
from pggrpo_cli.check import check
from pggrpo_cli.composing import compose
from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.model.hf import Hf
from pggrpo_cli.policy import Policy
from pggrpo_cli.preference import implicit_rewards
from pggrpo_cli.prompts import PromptFormat, render_rows
from pggrpo_cli.reward.implicit import Implicit
from pggrpo_cli.types import (
    FinishReason,
    OfflineCompletion,
    RewardContext,
    Rollout,
    Row,
    Sample,
    ScoreError,
    TrainBatch,
)
from tests.conftest import save_tiny

CONTEXT = RewardContext(run_dir=None, device="cpu", seed=1)
TEXTS = ["", "yes", "a longer answer", "no", "maybe", "yes"]
PROMPTS: list[Any] = ["How much? ", "And now? "]
END = "<|end|>"


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def sample(completion: str, prompt: Any, group: int = 0, finish: FinishReason = "stop") -> Sample:
    return Sample(
        prompt=prompt, completion=completion, completion_ids=[1], finish_reason=finish, columns={}, group=group
    )


PLAIN = [sample(text, PROMPTS[place % 2], place % 2) for place, text in enumerate(TEXTS)]
CHATS = [replace(one, prompt=chat(one.prompt)) for one in PLAIN]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(π, π_ref)"""
    base = tmp_path_factory.mktemp("models")
    return save_tiny(base / "after", init_seed=1), save_tiny(base / "before", init_seed=2)


def settings(path: Path | str, reference: Path | None, **keys: Any) -> Implicit:
    defaults: dict[str, Any] = {
        **{"path": str(path), "reference_path": None if reference is None else str(reference), "beta": 0.3},
        **{
            "length_normalized": False,
            "chat_template": None,
            "dtype": "float32",
            "device": None,
            "batch_tokens": 16384,
        },
    }
    return Implicit(**defaults | keys)


def scores(path: Path | str, reference: Path | None, samples: Sequence[Sample], **keys: Any) -> list[Any]:
    with settings(path, reference, **keys).open(CONTEXT) as working:
        return list(working.score(samples).scores)


@lru_cache(maxsize=2)
def in_float64(folder: Path) -> tuple[Any, Any]:
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).double().eval()
    return module, AutoTokenizer.from_pretrained(folder)


def log_likelihood(folder: Path, one: Sample) -> tuple[float, int]:
    """(log π(y|x) in float64, tokens), by hand: the template's text, then the end."""
    module, tokenizer = in_float64(folder)
    plain = isinstance(one.prompt, str)
    before = one.prompt if plain else f"<|user|>{one.prompt[0]['content']}{END}<|assistant|>"
    after = one.completion + (END if one.finish_reason == "stop" else "")
    prompt, completion = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, after))
    with torch.no_grad():
        table = module(input_ids=torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return sum(float(table[place, token]) for place, token in zip(places, completion, strict=True)), len(completion)


@pytest.mark.parametrize(
    ("batch_tokens", "normalized"), [(1, False), (40, True), (16384, False)], ids=["one by one", "some", "together"]
)
def test_beta_times_the_log_ratio(folders: tuple[Path, Path], batch_tokens: int, normalized: bool) -> None:
    samples = [*PLAIN, *(replace(one, group=one.group + 2) for one in CHATS)]
    expected = []
    for one in samples:
        (own, length), (other, _) = (log_likelihood(folder, one) for folder in folders)
        expected.append(0.3 * (own - other) / (length if normalized else 1))
    assert max(expected) - min(expected) > 0.1
    found = scores(*folders, samples, length_normalized=normalized, batch_tokens=batch_tokens)
    assert found == pytest.approx(expected, abs=2e-4)


def test_without_a_reference_its_term_is_left_out(folders: tuple[Path, Path]) -> None:
    expected = [0.3 * log_likelihood(folders[0], one)[0] for one in PLAIN]
    assert scores(folders[0], None, PLAIN) == pytest.approx(expected, abs=2e-4)


def test_a_model_against_itself_is_exactly_zero(folders: tuple[Path, Path]) -> None:
    assert scores(folders[0], folders[0], CHATS) == [0.0] * len(CHATS)


def test_a_completion_that_was_cut_has_no_end_token(folders: tuple[Path, Path]) -> None:
    cut = [sample("a longer answer", PROMPTS[0], finish="length"), sample("a longer answer", PROMPTS[0])]
    expected = [0.3 * log_likelihood(folders[0], one)[0] for one in cut]
    assert scores(folders[0], None, cut) == pytest.approx(expected, abs=2e-4)
    assert abs(expected[0] - expected[1]) > 0.01


def test_they_are_the_rewards_that_dpo_logs(folders: tuple[Path, Path]) -> None:
    """rewards/chosen and rewards/rejected of a data set's pair."""
    loaded = [Hf(path=str(folder), revision=None).load() for folder in folders]
    policy, reference = (Policy(one.module, one.tokenizer, torch.float32) for one in loaded)
    pair = tuple(
        OfflineCompletion(content=[{"role": "assistant", "content": text}], preference=value)
        for text, value in (("a longer answer", 1.0), ("no", 0.0))
    )
    as_is = PromptFormat(system_prompt=None, prompt_suffix="", max_prompt_tokens=None, overlong="error")
    rows = [Row(prompt=chat("How much?"), completions=pair)]
    (prompt,) = render_rows(rows, policy.tokenizer, as_is, 256, policy.end_token_ids).prompts
    rollouts = [
        Rollout(completion_ids=torch.tensor(ids), logprobs=None, text="", finish_reason="offline")
        for ids in prompt.completion_ids
    ]
    rows_ = tuple(TrainRow(rollout=one, advantage=0.0, sample=place) for place, one in enumerate(rollouts))
    group = TrainGroup(prompt_index=0, prompt_ids=prompt.token_ids, rows=rows_, num_sequences=2, pairs=((0, 1),))
    (micro,) = micro_batches([group], 1000)
    own, other = (one.score(micro.packed, 1.0, with_entropy=False) for one in (policy, reference))
    batch = TrainBatch(
        sequence_index=micro.packed.sequence_index,
        lengths=micro.lengths,
        advantages=micro.advantages,
        old_logprobs=None,
        ref_logprobs=other.logprobs,
        token_weight=None,
        importance_weight=None,
        pairs=micro.pairs,
        num_sequences=2,
        num_tokens=int(micro.lengths.sum()),
        num_pairs=1,
        max_new_tokens=32,
    )
    logged = implicit_rewards(own, batch, 0.3, length_normalized=False)
    found = scores(*folders, [sample(text, chat("How much?")) for text in ("a longer answer", "no")])
    assert found == pytest.approx([*logged.chosen.tolist(), *logged.rejected.tolist()], abs=1e-5)


def test_what_is_too_long(folders: tuple[Path, Path]) -> None:
    """A context of 256 tokens: a prompt loses its beginning, a completion that fills it cannot be scored."""
    after, before = folders
    long = "".join(chr(97 + place % 26) for place in range(400))
    with settings(after, before, batch_tokens=1000).open(CONTEXT) as working:
        scored = working.score([sample("yes", long), sample("x" * 300, long), sample("no", "short", group=1)])
    kept = [sample("yes", long[-252:]), sample("no", "short", group=1)]  # yes and its end token take four
    assert [scored.scores[0], scored.scores[2]] == pytest.approx(scores(after, before, kept), abs=1e-5)
    assert isinstance(scored.scores[1], ScoreError)
    assert "context of 256" in scored.scores[1].message
    assert scored.metrics["implicit/truncated"] == pytest.approx(1 / 3)
    assert len(scored.notes) == 1


def test_a_pair_must_share_its_vocabulary(folders: tuple[Path, Path], tmp_path: Path) -> None:
    other = save_tiny(tmp_path)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(
        ConfigError, match=r"`reward.implicit.reference_path`.*do not share a vocabulary.*2 differ.*'a'"
    ):
        scores(folders[0], other, PLAIN)


@pytest.mark.fault("T27")
def test_models_that_are_not_there_and_missing_templates(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`reward.implicit.path`: there is no folder"):
        scores("./nowhere", None, PLAIN)
    with pytest.raises(ConfigError, match=r"`reward.implicit.reference_path`: there is no folder"):
        scores(folders[0], Path("/nowhere/at/all"), PLAIN)
    bare = save_tiny(tmp_path)
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(DataError, match=r"`reward.implicit.chat_template`"):
        scores(bare, None, CHATS)
    template = (folders[0] / "chat_template.jinja").read_text()
    assert len(scores(bare, None, CHATS, chat_template=template)) == len(CHATS)


def test_it_disturbs_nothing_and_nothing_disturbs_it(folders: tuple[Path, Path]) -> None:
    """No random number is drawn, and the policy's autocast does not reach it."""
    state = torch.get_rng_state()
    with settings(*folders).open(CONTEXT) as working:
        expected = working.score(PLAIN).scores
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert working.score(PLAIN).scores == expected
    assert torch.equal(torch.get_rng_state(), state)


def test_the_experiment() -> None:
    words = ["experiment=implicit", "model=tiny", "data.path=x.jsonl", "reward.implicit.path=y"]
    cfg = compose("train", words, None)
    check(cfg)
    assert cfg.reward.implicit.reference_path is None
    with pytest.raises(ConfigError, match=r"`reward.implicit.path`: is not set"):
        check(compose("train", words[:-1], None))
