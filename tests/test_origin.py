"""A run goes on only with what it began with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pggrpo_cli.assemble import find_checkpoint, run_training
from pggrpo_cli.errors import ConfigError, StoppedEarly
from pggrpo_cli.interruption import Interruption
from pggrpo_cli.origin import model_digest, prompts_digest
from pggrpo_cli.types import Prompt, Row
from tests.conftest import tiny_policy
from tests.test_exact_resume import config

pytestmark = pytest.mark.fault("T9")


def prompt(token_ids: tuple[int, ...] = (1, 2), completion: tuple[int, ...] = (3,), answer: object = "4") -> Prompt:
    row = Row(prompt="", columns={"answer": answer})
    return Prompt(row=row, index=0, text="", token_ids=token_ids, completion_ids=(completion,))


def test_the_digest_is_of_all_that_training_reads() -> None:
    seen = {
        prompts_digest(prompts)
        for prompts in (
            [prompt()],
            [prompt(), prompt()],
            [prompt(token_ids=(1, 3))],
            [prompt(completion=(4,))],
            [prompt(answer="5")],
            [prompt(answer=object())],
        )
    }
    assert len(seen) == 6
    assert prompts_digest([prompt()]) == prompts_digest([prompt()])
    assert prompts_digest([prompt(answer=object())]) == prompts_digest([prompt(answer=object())])


def test_one_weight_makes_another_model() -> None:
    module = tiny_policy().module
    before = model_digest(module.named_parameters())
    assert before == model_digest(tiny_policy().module.named_parameters())
    with torch.no_grad():
        next(module.parameters())[0, 0] += 1e-6
    assert model_digest(module.named_parameters()) != before
    assert model_digest(module.bfloat16().named_parameters()) != before


def rows(file: Path, answer: int) -> None:
    lines = [{"prompt": f"{a} + 1", "answer": str(a + answer)} for a in range(12)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_data_or_model_that_changed_behind_the_configuration(tmp_path: Path) -> None:
    data, model, run = tmp_path / "data.jsonl", tmp_path / "model", tmp_path / "run"
    run.mkdir()
    rows(data, 1)
    policy = tiny_policy()

    def save() -> None:
        policy.module.save_pretrained(model)
        policy.tokenizer.save_pretrained(model)

    save()
    line = [
        "model=hf", f"model.path={model}", "data=jsonl", f"data.path={data}", "data.eval_size=2", "loss=pg_grpo",
        "sampler.max_new_tokens=4",
    ]  # fmt: skip
    with pytest.raises(StoppedEarly):
        run_training(config([*line, "trainer.max_minutes=1e-9"], 2), run, None, Interruption())

    def resume(*more: str) -> None:
        run_training(config([*line, *more], 2), run, find_checkpoint(run), Interruption())

    rows(data, 2)  # other answers to the same questions
    with pytest.raises(ConfigError, match=r"`data`: the prompts are not those .* resume.allow_changed=\[data\]"):
        resume()
    rows(data, 1)
    with torch.no_grad():
        next(policy.module.parameters()).mul_(1.5)
    save()
    with pytest.raises(ConfigError, match=r"`model`: the weights are not those .* resume.allow_changed=\[model\]"):
        resume()
    resume("resume.allow_changed=[model]")
    assert (run / "finished.json").exists()
