"""Which models decode.c computes, and what is said of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pggrpo_cli.compiled.family import Unlike, decoder_of
from pggrpo_cli.compiled.steps import CompiledDecoding
from pggrpo_cli.policy import Policy
from tests.compiled.here import compiled_library
from tests.conftest import tiny_model, tiny_policy


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_members(family: str) -> None:
    compiled_library()
    found = CompiledDecoding.of(tiny_policy(family)).decoder
    assert len(found.blocks) == 2
    assert (found.key_heads, found.size) == (2, 8)
    assert (found.blocks[0].query_norm is not None) == (family == "qwen3")


def test_members_with_other_heads() -> None:
    """Every query head its own key head; one key head for all; sizes that do not fill blocks of 16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    compiled_library()
    for heads, key_heads, size, inner, vocabulary in ((4, 4, 16, 50, 256), (5, 1, 24, 34, 301), (8, 2, 10, 18, 77)):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=vocabulary, hidden_size=40, intermediate_size=inner, num_hidden_layers=3, head_dim=size,
            num_attention_heads=heads, num_key_value_heads=key_heads, attention_bias=True, mlp_bias=True,
            tie_word_embeddings=False, initializer_range=0.3,
        )  # fmt: skip
        module = LlamaForCausalLM(config)
        for name, parameter in module.named_parameters():
            if "bias" in name:
                nn.init.normal_(parameter)
        policy = Policy(module, tiny_policy().tokenizer, torch.float32)
        assert CompiledDecoding.of(policy).decoder.size == size


def other_model(family: str, **options: Any) -> Policy:
    import transformers

    torch.manual_seed(0)
    sizes = {
        **{"vocab_size": 256, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "head_dim": 16},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0},
    }
    config = getattr(transformers, f"{family}Config")(**{**sizes, **options})
    module = getattr(transformers, f"{family}ForCausalLM")(config)
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.05)
    return Policy(module, tiny_policy().tokenizer, torch.float32)


def far_in_its_context(factor: float) -> dict[str, Any]:
    rotation = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16384}
    return {"rope_parameters": {**rotation, "llama_4_scaling_beta": factor}, "max_position_embeddings": 65536}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("family", "options", "said"),
    [
        ("SmolLM3", {"no_rope_layers": [1, 1, 1, 0]}, "do not rotate"),
        ("Helium", {}, "differ by"),
        ("Ernie4_5", {}, "differ by"),
        ("Granite", {"residual_multiplier": 0.97}, "differ by"),
        ("Granite", {"embedding_multiplier": 2.0}, "differ by"),
        ("Ministral3", far_in_its_context(0.1), "grow with their position"),
        ("Llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "has seen before"),
    ],
)
def test_models_that_look_alike(family: str, options: dict[str, Any], said: str, dtype: torch.dtype) -> None:
    compiled_library(bfloat16=dtype == torch.bfloat16)
    policy = other_model(family, **options)
    if "embedding_multiplier" not in options:  # which is before the layers
        assert Policy(policy.module, policy.tokenizer, dtype).uncompiled_reason is not None
    policy.compute_dtype = dtype
    with pytest.raises(Unlike, match=said):
        CompiledDecoding.of(policy)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("Granite", {"residual_multiplier": 1.0, "attention_multiplier": 0.3}),
        ("SeedOss", {}),
        ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    ],
)
def test_models_that_are_alike(family: str, options: dict[str, Any]) -> None:
    compiled_library()
    CompiledDecoding.of(other_model(family, **options))


def test_a_layer_that_changes_late_in_the_context() -> None:
    """What is computed at the first positions is the same."""
    compiled_library()
    loaded = tiny_model().load()
    for layer in loaded.module.model.layers:
        plain = type(layer)

        class Late(plain):  # type: ignore[misc, valid-type]
            def forward(self, x: torch.Tensor, *args: Any, plain: Any = plain, **rest: Any) -> torch.Tensor:
                return plain.forward(self, x, *args, **rest) * (1.5 if int(rest["position_ids"].max()) > 200 else 1.0)

        layer.__class__ = Late
    policy = Policy(loaded.module, loaded.tokenizer, torch.float32)
    assert "differs by" in (policy.uncompiled_reason or "")
    with pytest.raises(Unlike, match="differ by"):
        CompiledDecoding.of(policy)


def pruned(policy: Policy) -> None:
    mlp = policy.module.model.layers[1].mlp
    mlp.gate_proj, mlp.up_proj, mlp.down_proj = (
        nn.Linear(32, 48, bias=False), nn.Linear(32, 48, bias=False), nn.Linear(48, 32, bias=False),
    )  # fmt: skip


def steered(policy: Policy) -> None:
    policy.module.model.layers[1].register_forward_hook(lambda _, __, output: output)


def windowed(policy: Policy) -> None:
    policy.module.config.layer_types = ["sliding_attention", "full_attention"]


def hooked(policy: Policy) -> None:
    policy.module.model.layers[1].mlp.up_proj.register_forward_hook(lambda *_: None)


def wrapped(policy: Policy) -> None:
    class Lora(nn.Linear):
        pass

    attention = policy.module.model.layers[0].self_attn
    old = attention.q_proj
    attention.q_proj = Lora(old.in_features, old.out_features, bias=False)


def with_a_part(policy: Policy) -> None:
    policy.module.model.layers[0].mlp.gate_of_its_own = nn.Linear(4, 4)


def with_gelu(policy: Policy) -> None:
    policy.module.model.layers[0].mlp.act_fn = nn.GELU()


def narrow(policy: Policy) -> None:
    policy.module.bfloat16()


def with_another_epsilon(policy: Policy) -> None:
    policy.module.model.norm.variance_epsilon = 0.5


def with_a_factor_in_its_forward(policy: Policy) -> None:
    inner = type(policy.module.model.layers[0].mlp).forward

    class Doubling(type(policy.module.model.layers[0].mlp)):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * inner(self, x)

    policy.module.model.layers[0].mlp.__class__ = Doubling


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (windowed, "it attends in windows"),
        (hooked, "hooks"),
        (steered, "hooks"),
        (pruned, "differ in size"),
        (wrapped, "linear layers are others"),
        (with_a_part, "parts of its own"),
        (with_gelu, "activation is GELU"),
        (narrow, "weights are bfloat16"),
        (with_another_epsilon, "norms differ"),
        (with_a_factor_in_its_forward, "of their spread"),
    ],
)
def test_others(change: Callable[[Policy], Any], said: str) -> None:
    compiled_library()
    policy = tiny_policy()
    CompiledDecoding.of(policy)
    change(policy)
    with pytest.raises(Unlike, match=said):
        CompiledDecoding.of(policy)


@pytest.mark.parametrize("family", ["gemma3", "mistral"])
def test_families_that_are_not_read(family: str) -> None:
    with pytest.raises(Unlike, match="windows"):
        decoder_of(tiny_policy(family).module)


def test_another_architecture() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=256, n_embd=32, n_layer=1, n_head=2)
    with pytest.raises(Unlike, match="its parts are others"):
        decoder_of(GPT2LMHeadModel(config))
