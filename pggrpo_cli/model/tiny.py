"""model=tiny: a few-layer random model with a byte tokenizer made on the spot. For tests and smoke runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.model_outline import ModelOutline, outline
from pggrpo_cli.policy import LoadedModel
from pggrpo_cli.ranges import Range

FAMILIES = ("llama", "qwen2", "qwen3", "gemma3", "mistral")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
END = "<|end|>"


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """Random weights from `init_seed`; vocabulary: 256 bytes, an end token and three roles."""

    family: Literal["llama", "qwen2", "qwen3", "gemma3", "mistral"]
    hidden_size: Annotated[int, Range(ge=8)]
    layers: Annotated[int, Range(ge=1)]
    heads: Annotated[int, Range(ge=1)]
    key_value_heads: Annotated[int, Range(ge=1)]
    context_length: Annotated[int, Range(ge=16)]
    sliding_window: int | None
    init_seed: int
    init_std: Annotated[float, Range(gt=0)]

    def load(self) -> LoadedModel:
        import torch

        tokenizer = byte_tokenizer()
        config = self._config(tokenizer)
        from transformers import AutoModelForCausalLM

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.init_seed)
            module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        module.generation_config.eos_token_id = tokenizer.eos_token_id
        module.generation_config.pad_token_id = tokenizer.pad_token_id
        return LoadedModel(module=module, tokenizer=tokenizer, source=f"random {self.family}, seed {self.init_seed}")

    def outline(self) -> ModelOutline:
        tokenizer = byte_tokenizer()
        config = self._config(tokenizer)
        return outline(tokenizer, config, config)

    def _config(self, tokenizer: Any) -> Any:
        for key, value, divisor, of in (
            ("heads", self.hidden_size, self.heads, "model.hidden_size"),
            ("key_value_heads", self.heads, self.key_value_heads, "model.heads"),
        ):
            if value % divisor:
                raise ConfigError(f"`model.{key}`: {divisor} does not divide {of}={value}.")
        from transformers import Gemma3TextConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

        kinds: dict[str, Any] = {
            "llama": LlamaConfig,
            "qwen2": Qwen2Config,
            "qwen3": Qwen3Config,
            "gemma3": Gemma3TextConfig,
            "mistral": MistralConfig,
        }
        options: dict[str, Any] = {
            "vocab_size": len(tokenizer),
            "hidden_size": self.hidden_size,
            "intermediate_size": 2 * self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "max_position_embeddings": self.context_length,
            "initializer_range": self.init_std,
            "tie_word_embeddings": True,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
            "pad_token_id": tokenizer.pad_token_id,
        }
        if self.family in ("qwen3", "gemma3"):
            options["head_dim"] = self.hidden_size // self.heads
        if self.sliding_window is not None:
            options["sliding_window"] = self.sliding_window
        if self.family == "gemma3":
            options["query_pre_attn_scalar"] = self.hidden_size // self.heads
            options["layer_types"] = [
                "full_attention" if layer % 2 else "sliding_attention" for layer in range(self.layers)
            ]
        return kinds[self.family](**options)


def byte_tokenizer() -> Any:
    """A tokenizer of 256 bytes with a chat template; <|end|> ends a turn and pads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=list(ROLES),
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
