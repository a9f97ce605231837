"""What many tests need: tiny random models, prompts for them, a run context. No network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pggrpo_cli.model.tiny import Tiny, byte_tokenizer
from pggrpo_cli.policy import Policy
from pggrpo_cli.types import Prompt, Row, RunContext
from tests.fault_table import FaultTable

FAMILIES = ("llama", "qwen2", "qwen3", "gemma3", "mistral")


def tiny_model(family: str = "llama", init_seed: int = 0) -> Tiny:
    """A component; gemma3 and mistral with a window shorter than the tests' sequences."""
    window = 8 if family in ("gemma3", "mistral") else None
    return Tiny(
        family=family,  # type: ignore[arg-type]
        hidden_size=32,
        layers=2,
        heads=4,
        key_value_heads=2,
        context_length=256,
        sliding_window=window,
        init_seed=init_seed,
        init_std=0.1 if window else 0.5,  # greedy text that does not repeat one token
    )


def tiny_policy(family: str = "llama", init_seed: int = 0, dtype: torch.dtype = torch.float32) -> Policy:
    loaded = tiny_model(family, init_seed).load()
    module = loaded.module.to(torch.float64) if dtype == torch.float64 else loaded.module
    return Policy(module, loaded.tokenizer, dtype)


def save_tiny(folder: Path, family: str = "llama", init_seed: int = 0) -> Path:
    """The tiny model as a folder, such as a checkpoint is."""
    loaded = tiny_model(family, init_seed).load()
    loaded.module.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def save_classifier(folder: Path, family: str = "llama", labels: int = 1, *, pads: bool = True) -> Path:
    """A tiny sequence classifier as a folder. `pads`: whether it has a padding token, which is its end token then."""
    from transformers import AutoModelForSequenceClassification, BertConfig

    tokenizer = byte_tokenizer()
    if family == "bert":
        config: Any = BertConfig(
            **{"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"intermediate_size": 64, "initializer_range": 0.5, "max_position_embeddings": 256, "num_labels": labels},
        )
    else:
        config = tiny_model(family).load().module.config
        config.num_labels = labels
    config.pad_token_id = tokenizer.pad_token_id if pads else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = AutoModelForSequenceClassification.from_config(config)
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_prompts(token_ids: Sequence[Sequence[int]]) -> list[Prompt]:
    return [
        Prompt(row=Row(prompt=""), index=index, text="", token_ids=tuple(ids)) for index, ids in enumerate(token_ids)
    ]


def random_prompts(lengths: Sequence[int], seed: int = 0, vocabulary: int = 256) -> list[Prompt]:
    generator = torch.Generator().manual_seed(seed)
    return make_prompts([torch.randint(0, vocabulary, (n,), generator=generator).tolist() for n in lengths])


@pytest.fixture(scope="session", params=FAMILIES)
def any_policy(request: pytest.FixtureRequest) -> Policy:
    return tiny_policy(request.param)


@pytest.fixture
def policy() -> Policy:
    return tiny_policy()


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    return RunContext(run_dir=tmp_path, device=torch.device("cpu"), seed=1, run_id="test", resumed=False)


@pytest.fixture
def random_completions() -> Callable[..., list[torch.Tensor]]:
    def make(lengths: Sequence[int], seed: int = 1, vocabulary: int = 256) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [torch.randint(0, vocabulary, (n,), generator=generator) for n in lengths]

    return make


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", metavar="FILE", help="write there what was tried of each fault (docs/faults.md)")


def pytest_configure(config: pytest.Config) -> None:
    target = config.getoption("--faults")
    if target:
        config.pluginmanager.register(FaultTable(Path(target)))
