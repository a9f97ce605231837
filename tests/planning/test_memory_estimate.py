"""The estimate's arithmetic against sums by hand, what it asks of a model against shapes counted by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pggrpo_cli.check import checked
from pggrpo_cli.compiled.update import in_torch
from pggrpo_cli.composing import compose
from pggrpo_cli.planning.activations import kept_for_backward, outline_policy
from pggrpo_cli.planning.memory_estimate import FIRST_USE, MemoryEstimate, MemoryFacts, memory_estimate
from pggrpo_cli.planning.memory_facts import models_of_rewards, reward_processes
from pggrpo_cli.planning.model_shape import ModelShape
from pggrpo_cli.planning.optimizer_memory import optimizer_memory
from pggrpo_cli.planning.run_counts import Lengths, RunCounts, run_counts
from pggrpo_cli.policy import Policy
from tests.compiled.here import compiled_library
from tests.conftest import FAMILIES, save_classifier, save_tiny, tiny_model, tiny_policy

SHAPE = ModelShape(
    parameters=1_000_000, linear=600_000, head=300_000, tied=True, largest=300_000, layers=10, hidden=100,
    heads=4, vocabulary=3000, key_values=400, context=512,
)  # fmt: skip
FACTS = MemoryFacts(
    base=10**9, shape=SHAPE, weight_width=4, compute_width=2, rollout_copies=2, keeps_freed=True,
    kept_per_token=50_000, kept_fixed=1_200_000, activations_guessed=False,
    checkpoints_activations=False, reference=2_800_000, reference_loading=1_200_000, optimizer=8_000_000,
    optimizer_working=0, rewards=0, longest_prompt=60, max_rows=256, loads_twice=False,
)  # fmt: skip
LENGTHS = Lengths.of([(60, []), (40, [])], prompts=100, held_out=64)


def counts(*overrides: str) -> RunCounts:
    return run_counts(checked(compose("train", ["model=tiny", *overrides])), LENGTHS)


def estimate(*overrides: str, **changes: Any) -> MemoryEstimate:
    return memory_estimate(replace(FACTS, **changes), counts(*overrides))


def test_of_the_update() -> None:
    found = estimate()
    assert found.peak_phase == "update"
    parts = found.parts
    assert parts["libraries and data"] == 10**9 + FIRST_USE
    assert parts["activations"] == 8 * (60 + 8 * 24) * 50_000
    assert parts["weights"] == 4_000_000
    assert parts["optimizer"] == 8_000_000
    assert parts["gradients"] == 4 * 300_000  # of the head alone while all activations wait
    assert found.peak == sum(parts.values())
    assert list(parts.values()) == sorted(parts.values(), reverse=True)
    quiet = estimate("evaluation.every=null")
    rollout, parts = quiet.phases["rollout"], quiet.parts
    assert parts["freed, not reused"] == 1_200_000 + rollout["rollout weights"]
    assert "freed, not reused" not in estimate(keeps_freed=False).parts
    several = estimate("trainer.micro_batch_tokens=500").phases["update"]
    assert several["gradients"] == 4 * (300_000 + 1_000_000)  # those of the micro-batches before it
    assert several["activations"] == 500 * 50_000


def test_a_single_update_has_no_moments_beside_activations() -> None:
    assert "optimizer" not in estimate("trainer.max_steps=1").phases["update"]
    assert "optimizer" in estimate("trainer.max_steps=1").phases["checkpoint"]


def test_gradients_are_the_peak_where_activations_are_few() -> None:
    large = replace(SHAPE, parameters=10**9)
    update = estimate(kept_per_token=1, shape=large).phases["update"]
    assert update["gradients"] == 4 * (10**9 + 300_000)
    assert "freed, not reused" not in update  # gradients lie where activations and the rollout's copies were


def test_of_rollout_and_evaluation() -> None:
    phases = estimate("evaluation.num_prompts=20", "evaluation.max_new_tokens=100").phases
    assert phases["rollout"]["keys and values"] == (8 * 60 + 64 * 24) * 400 * 2
    assert phases["rollout"]["rollout weights"] == 900_000 * 2 * 2
    assert phases["rollout"]["logits"] == 64 * 3000 * 14
    assert phases["evaluation"]["keys and values"] == (20 * 60 + 20 * 100) * 400 * 2
    assert "evaluation" not in estimate("evaluation.every=null").phases
    waves = estimate(max_rows=16).phases["rollout"]
    assert waves["keys and values"] == (4 * 60 + 16 * 24) * 400 * 2
    assert "rollout weights" not in estimate(rollout_copies=0).phases["rollout"]


def test_gradient_checkpointing_keeps_a_layers_input_and_one_layer() -> None:
    update = estimate(checkpoints_activations=True).phases["update"]
    assert update["activations"] == 2016 * 10 * 100 * 4 + 2016 * 50_000 // 10


def test_loading_and_a_gpu() -> None:
    found = estimate(base=0, loads_twice=True)
    assert found.phases["load"] == {"weights": 4_000_000, "reference": 4_000_000, "on the way": 4_000_000}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shapes_alone_keep_what_the_model_keeps(family: str, dtype: torch.dtype) -> None:
    real = tiny_policy(family)
    real = Policy(real.module, real.tokenizer, dtype)
    outline = tiny_model(family).outline()
    shapes = outline_policy(outline.config, outline.tokenizer, torch.float32, dtype)
    assert ModelShape.of(shapes.module) == ModelShape.of(real.module)
    assert kept_for_backward(shapes) == kept_for_backward(real)
    assert all(parameter.grad is None for parameter in real.module.parameters())


def test_what_a_llama_keeps_is_what_can_be_counted() -> None:
    """d = 32, f = 64, 4 query and 2 key heads of 8. In float32 a layer of torch's keeps, a token: two norms their input, what
    they normalised and their output (3 d each), q and k rotated, v, the attention's output (2 d + 2 · 16), gate, its silu, up,
    their product (4 f). A compiled one: two norms their input and output (2 d each), the same of attention and two numbers a
    head, gate, up and what the activation made of them (3 f)."""
    with in_torch():
        kept = kept_for_backward(tiny_policy())
    a_layer = 4 * (6 * 32 + 2 * 32 + 2 * 16 + 4 * 64)
    assert abs(kept.per_token - 2 * a_layer) < 0.15 * 2 * a_layer
    assert kept.fixed < 5000
    compiled_library()
    kept = kept_for_backward(tiny_policy())
    a_layer = 4 * (4 * 32 + 2 * 32 + 2 * 16 + 2 * 4 + 3 * 64)
    assert abs(kept.per_token - 2 * a_layer) < 0.1 * 2 * a_layer
    assert kept.fixed == 2 * 4 * 32 * (32 + 2 * 16 + 2 * 64)  # weights that read the same are joined
    assert not kept.guessed
    casting = Policy(tiny_policy().module, tiny_policy().tokenizer, torch.bfloat16)
    assert kept_for_backward(casting).fixed == pytest.approx(2 * ModelShape.of(casting.module).linear, rel=0.1)


def outlined(config: Any) -> Policy:
    tokenizer = tiny_model().outline().tokenizer
    return outline_policy(config, tokenizer, torch.float32, torch.float32)


def test_experts_are_guessed_and_torch_says_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    """Two of four experts compute a token; what a whole layer keeps is asked of the same model with numbers."""
    from transformers import AutoModelForCausalLM, MixtralConfig

    config = MixtralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    kept = kept_for_backward(outlined(config))
    assert kept.guessed
    assert caplog.text == ""
    real = Policy(AutoModelForCausalLM.from_config(config), tiny_policy().tokenizer, torch.float32)
    asked = kept_for_backward(real)
    assert not asked.guessed
    assert 0.6 < kept.per_token / asked.per_token < 1.6
    guess = memory_estimate(replace(FACTS, activations_guessed=True), counts())
    (line,) = [one for one in describe_memory(guess) if one.startswith("memory:")]
    assert line.endswith("; activations are guessed for this architecture")


def describe_memory(memory: MemoryEstimate | None) -> list[str]:
    from pggrpo_cli.instantiate import component
    from pggrpo_cli.planning.plan import describe

    config = checked(compose("train", ["model=tiny"]))
    return describe(config, component(config.loss, "loss"), counts(), 50.0, memory)


def test_memory_that_is_not_known_is_no_reason_to_end() -> None:
    assert "memory: not known for this model" in describe_memory(None)


def test_a_model_without_attention_has_a_shape() -> None:
    from transformers import MambaConfig

    policy = outlined(MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=3, state_size=8))
    shape = ModelShape.of(policy.module)
    assert (shape.layers, shape.hidden, shape.heads, shape.key_values) == (3, 32, 1, 0)
    assert kept_for_backward(policy).per_token > 0


def test_checkpointed_models_are_asked_for_all_of_it() -> None:
    plain = tiny_policy()
    expected = kept_for_backward(plain)
    saving = Policy(plain.module, plain.tokenizer, torch.float32, gradient_checkpointing=True)
    assert kept_for_backward(saving) == expected
    assert saving.module.training


@pytest.mark.parametrize(
    "words",
    [
        [], ["optimizer=sgd"], ["optimizer=sgd", "optimizer.momentum=0.9"], ["optimizer=adafactor"], ["optimizer=muon"],
        ["++optimizer.amsgrad=true", "optimizer.fused=false"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_optimizer_keeps_what_is_foreseen(words: list[str]) -> None:
    from pggrpo_cli.instantiate import component

    config = checked(compose("train", ["model=tiny", *words]))
    module = tiny_policy().module
    optimizer = component(config.optimizer, "optimizer")(list(module.named_parameters()))
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kept = sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and name != "step"
    )
    assert optimizer_memory(config.optimizer, module.named_parameters()).kept == kept


def test_models_that_score(tmp_path: Path) -> None:
    save_classifier(tmp_path / "classifier")
    save_tiny(tmp_path / "policy")
    words = ["model=tiny", "reward=[reward_model,implicit]", f"reward.reward_model.path={tmp_path / 'classifier'}"]
    words += [f"reward.implicit.path={tmp_path / 'policy'}", f"reward.implicit.reference_path={tmp_path / 'policy'}"]
    words += ["reward.implicit.dtype=bfloat16", "reward.reward_model.dtype=float32"]
    config = checked(compose("train", words))
    found = models_of_rewards(config, torch.device("cpu"), isolated=False)
    shape = ModelShape.of(tiny_policy().module)
    assert found["implicit"] == 2 * (2 * shape.linear + 4 * (shape.parameters - shape.linear))
    assert found["reward_model"] == 4 * (shape.parameters + 32)  # and a score head of one label
    assert not reward_processes(config)
    apart = checked(compose("train", [*words, "reward.implicit.isolated=true", "scoring.workers=3"]))
    assert set(models_of_rewards(apart, torch.device("cpu"), isolated=False)) == {"reward_model"}
    assert list(reward_processes(apart)) == ["3 reward processes"]
    assert reward_processes(apart)["3 reward processes"] > 3 * found["implicit"]
