"""Scores of sequence classifiers against plain forwards of transformers, one text at a time in float32."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.reward.reward_model import OpenRewardModel, RewardModel
from pggrpo_cli.types import RewardContext, Sample, ScoreError
from tests.command_line import run
from tests.conftest import save_classifier, save_tiny

CONTEXT = RewardContext(run_dir=None, device="cpu", seed=1)
TEXTS = ["", "yes", "a much longer answer, with a comma", "no!", "maybe so", "a much longer answer, with a period."]


def sample(completion: str, prompt: Any = "How much? ") -> Sample:
    return Sample(prompt=prompt, completion=completion, completion_ids=[1], finish_reason="stop", columns={})


PLAIN = [sample(text) for text in TEXTS]
CHATS = [sample(text, [{"role": "user", "content": "How much?"}]) for text in TEXTS]


def reward(folder: Path | str, **keys: Any) -> RewardModel:
    defaults: dict[str, Any] = {
        **{"path": str(folder), "revision": None, "label": None, "activation": "none", "chat_template": None},
        **{"dtype": "float32", "device": None, "batch_tokens": 16384},
    }
    return RewardModel(**defaults | keys)


def opened(folder: Path | str, **keys: Any) -> AbstractContextManager[OpenRewardModel]:
    return reward(folder, **keys).open(CONTEXT)


def scores(folder: Path, samples: Sequence[Sample], **keys: Any) -> list[Any]:
    with opened(folder, **keys) as working:
        return list(working.score(samples).scores)


def plain_logits(folder: Path, samples: Sequence[Sample], last: int = 10_000) -> torch.Tensor:
    """[B, labels]: each text alone, its last tokens only."""
    module = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for one in samples:
        if isinstance(one.prompt, str):
            ids = tokenizer(one.prompt + one.completion)["input_ids"]
        else:
            messages = [*one.prompt, {"role": "assistant", "content": one.completion}]
            ids = tokenizer(tokenizer.apply_chat_template(messages, tokenize=False), add_special_tokens=False)[
                "input_ids"
            ]
        with torch.no_grad():
            found.append(module(input_ids=torch.tensor([ids[-last:]])).logits[0])
    return torch.stack(found)


@pytest.mark.parametrize(
    ("family", "pads", "side"),
    [
        *(("llama", True, "left"), ("llama", False, "right"), ("mistral", False, "left"), ("qwen3", True, "right")),
        *(("bert", True, "right"), ("bert", True, "left")),
    ],
)
def test_every_score_is_that_of_the_text_alone(tmp_path: Path, family: str, side: str, pads: bool) -> None:
    """Whatever stands beside it, in the order of the samples: with and without a padding token, which is also the token
    that every conversation ends with, and whatever side the tokenizer pads on."""
    folder = save_classifier(tmp_path, family, pads=pads)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"padding_side": side}))
    samples = [*PLAIN, *CHATS]
    alone = plain_logits(folder, samples)[:, 0].tolist()
    assert max(alone) - min(alone) > 0.1
    for batch_tokens in (60, 16384):
        assert scores(folder, samples, batch_tokens=batch_tokens) == pytest.approx(alone, abs=1e-4)


def test_batches_keep_to_their_budget_and_padding_is_used(tmp_path: Path) -> None:
    with opened(save_classifier(tmp_path), batch_tokens=60) as working:
        module, shapes = working._module, []
        forward = module.forward
        module.forward = lambda input_ids, attention_mask: (
            shapes.append(tuple(input_ids.shape)) or forward(input_ids=input_ids, attention_mask=attention_mask)
        )
        working.score(PLAIN)
        assert all(rows * width <= 60 for rows, width in shapes)
        assert max(rows for rows, _ in shapes) > 1
        assert "one completion at a time" not in working.describe()
        assert "LlamaForSequenceClassification" in working.describe()


def test_a_model_that_reads_padding_goes_one_by_one(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, "bert")
    alone = plain_logits(folder, PLAIN)[:, 0].tolist()
    module = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    forward = module.forward
    module.forward = lambda input_ids, attention_mask: forward(input_ids=input_ids)
    working = OpenRewardModel(reward(folder), module, AutoTokenizer.from_pretrained(folder), 0)
    assert "one completion at a time" in working.describe()
    assert working.score(PLAIN).scores == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("prompt", ["x" * 500, [{"role": "user", "content": "x" * 500}]])
def test_what_is_too_long_loses_its_beginning(tmp_path: Path, prompt: Any) -> None:
    folder = save_classifier(tmp_path)
    long = [sample("yes", prompt), sample("no", prompt)]
    alone = plain_logits(folder, long, last=256)[:, 0].tolist()
    with opened(folder) as working:
        scored = working.score([*long, *PLAIN[:2]])
        assert scored.scores[:2] == pytest.approx(alone, abs=1e-4)
        assert scored.metrics == {"reward_model/truncated": 0.5}
        assert "more than 256 tokens" in scored.notes[0]
        assert working.score(PLAIN).notes == []


@pytest.mark.parametrize("label", ["LABEL_1", 1])
def test_labels_and_activations(tmp_path: Path, label: Any) -> None:
    folder = save_classifier(tmp_path, labels=3)
    logits = plain_logits(folder, PLAIN)
    assert scores(folder, PLAIN, label=label) == pytest.approx(logits[:, 1].tolist(), abs=1e-4)
    expected = logits.softmax(-1)[:, 1].tolist()
    assert scores(folder, PLAIN, label=label, activation="softmax") == pytest.approx(expected, abs=1e-4)
    expected = logits[:, 1].sigmoid().tolist()
    assert scores(folder, PLAIN, label=label, activation="sigmoid") == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("labels", "keys", "message"),
    [
        (3, {}, r"`reward.reward_model.label`: the model has 3 labels \(LABEL_0, LABEL_1, LABEL_2\); name the one"),
        (3, {"label": "good"}, r"`reward.reward_model.label`: 'good' is no label"),
        (3, {"label": 3}, r"`reward.reward_model.label`: 3 is no label"),
        (1, {"activation": "softmax"}, r"`reward.reward_model.activation`: the softmax of one label"),
        (1, {"device": "gpu"}, r"`reward.reward_model.device`: 'gpu' is no device"),
        (1, {"chat_template": "./none.jinja"}, r"`reward.reward_model.chat_template`: there is no file"),
    ],
)
def test_keys_that_do_not_fit_the_model(tmp_path: Path, labels: int, keys: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message), opened(save_classifier(tmp_path, labels=labels), **keys):
        pass


@pytest.mark.fault("T27")
def test_a_language_model_is_no_reward_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers would give it a head of random numbers, and say so on stderr before us."""
    folder = save_tiny(tmp_path)
    said: list[str] = []
    monkeypatch.setattr(logging.Handler, "handle", lambda handler, record: said.append(record.getMessage()))
    with (
        pytest.raises(ConfigError, match=r"no weights for score.weight.*LlamaForCausalLM.*no reward model"),
        opened(folder),
    ):
        pass
    assert not [words for words in said if "MISSING" in words]


@pytest.mark.fault("T27", "T28", "T29")
def test_folders_that_are_refused(tmp_path: Path) -> None:
    def refused(path: Path | str, message: str) -> None:
        with pytest.raises(ConfigError, match=rf"`reward.reward_model.path`: .*{message}"), opened(path):
            pass

    refused("./nowhere", "there is no folder")
    refused("model.gguf", "GGUF")
    folder = save_classifier(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Evil"}}))
    refused(folder, "its own Python code")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "pickle.*AutoModelForSequenceClassification")


def test_messages_need_a_chat_template(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(DataError, match=r"`reward.reward_model.chat_template`.*no chat template"):
        scores(folder, CHATS)
    template = "{% for m in messages %}{{ m['content'] }}|{% endfor %}"
    assert scores(folder, CHATS, chat_template=template) == pytest.approx(
        scores(folder, [sample(f"|{text}|", "How much?") for text in TEXTS]), abs=1e-4
    )


def test_a_text_without_a_token_is_an_error_of_its_own(tmp_path: Path) -> None:
    found = scores(save_classifier(tmp_path), [sample("", ""), sample("x", "")])
    assert found[0] == ScoreError(message="prompt and completion have no token")
    assert isinstance(found[1], float)


def test_it_disturbs_nothing_and_nothing_disturbs_it(tmp_path: Path) -> None:
    """No random number is drawn, no gradient recorded, and the policy's autocast does not reach it."""
    folder = save_classifier(tmp_path)
    expected = scores(folder, PLAIN)
    state = torch.get_rng_state()
    with opened(folder) as working, torch.autocast("cpu", dtype=torch.bfloat16):
        assert working.score(PLAIN).scores == expected
        assert not any(parameter.requires_grad for parameter in working._module.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_bfloat16_has_its_head_in_float32(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path)
    with opened(folder, dtype="bfloat16") as working:
        found = list(working.score(PLAIN).scores)
        assert "bfloat16" in working.describe()
    assert found == pytest.approx(scores(folder, PLAIN), abs=0.5)
    assert torch.tensor(found).bfloat16().float().tolist() != found


def test_a_whole_run(tmp_path: Path) -> None:
    """With a reward model and an implicit reward, each standardised by itself."""
    save_classifier(tmp_path / "judge")
    save_tiny(tmp_path / "after", init_seed=1)
    save_tiny(tmp_path / "before", init_seed=2)
    rows = [{"prompt": f"Tell me {number}."} for number in range(6)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["train", "experiment=reward_model", "debug=fast", "reward=[reward_model,implicit]", "advantage=gdpo"]
    words += ["reward.reward_model.path=judge", "reward.implicit.path=after", "reward.implicit.reference_path=before"]
    words += ["data.path=prompts.jsonl", "data.as_chat=true", "data.eval_size=2", "hydra.run.dir=run"]
    done = run([*words, "sampler.max_new_tokens=8"], tmp_path)
    assert done.returncode == 0, done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    assert "reward.reward_model: LlamaForSequenceClassification of judge" in said
    assert "reward.implicit: after against π_ref before" in said
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    for line in lines[1:]:
        total = line["rewards/reward_model/mean"] + line["rewards/implicit/mean"]
        assert line["reward"] == pytest.approx(total)
        assert line["reward_model/truncated"] == line["implicit/truncated"] == 0
    written = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    trained = [one for one in written if not one["held_out"]]
    assert len({one["reward_terms"]["reward_model"] for one in trained}) == len(trained) == 8
    assert any(one["advantage"] for one in trained)
