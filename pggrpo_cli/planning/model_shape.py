"""A model's size in numbers, from its module: a real one, or one of shapes alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """Counts of numbers, not of bytes."""

    parameters: int
    linear: int
    """Of those in linear layers that are neither embedding nor output head: products of the compute dtype read them."""
    head: int
    """Of the output head, tied to the embeddings or not."""
    tied: bool
    largest: int
    """Of the largest parameter."""
    layers: int
    hidden: int
    heads: int
    """1 where there is no attention."""
    vocabulary: int
    key_values: int
    """Keys and values of one token in all layers; 0 where there is no attention."""
    context: int

    @classmethod
    def of(cls, module: Any) -> ModelShape:
        """Of a transformers causal language model."""
        config = module.config.get_text_config()
        embeddings, head = module.get_input_embeddings().weight, module.get_output_embeddings().weight
        tables = {id(embeddings), id(head)}
        linear = sum(
            layer.weight.numel()
            for layer in module.modules()
            if isinstance(layer, nn.Linear) and id(layer.weight) not in tables
        )
        layers = getattr(config, "num_hidden_layers", None) or 1
        hidden = getattr(config, "hidden_size", None) or head.shape[1]
        heads = getattr(config, "num_attention_heads", None) or 0
        key_heads = getattr(config, "num_key_value_heads", None) or heads
        head_size = getattr(config, "head_dim", None) or hidden // max(heads, 1)
        sizes = [parameter.numel() for parameter in module.parameters()]
        return cls(
            parameters=sum(sizes),
            linear=linear,
            head=head.numel(),
            tied=embeddings is head,
            largest=max(sizes),
            layers=layers,
            hidden=hidden,
            heads=max(heads, 1),
            vocabulary=head.shape[0],
            key_values=2 * layers * key_heads * head_size if heads else 0,
            context=int(getattr(config, "max_position_embeddings", 0) or 1 << 30),
        )
