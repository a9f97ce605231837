"""A language model as the trainer and the sampler see it: packed prompts in, hidden states and log-probabilities out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from pggrpo_cli.attention import ATTENTION_NAME, AttentionPlan
from pggrpo_cli.compiled.layers import compile_layers
from pggrpo_cli.logprobs import Head, token_logprobs
from pggrpo_cli.model_outline import context_length, end_token_ids
from pggrpo_cli.packed_attention import PackedPlan
from pggrpo_cli.packing import Packed, pack
from pggrpo_cli.prepared import prepared_linears
from pggrpo_cli.types import TokenScores


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The keys of the model node that hold for every model; the others belong to its class."""

    weight_dtype: Literal["float32", "bfloat16"]
    compute_dtype: Literal["auto", "float32", "bfloat16"]
    gradient_checkpointing: bool
    chat_template: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """What a model component loads."""

    module: Any
    """A transformers causal language model, float32, on the CPU."""
    tokenizer: Any
    source: str
    """Where the weights came from, for people."""


def resolve_compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """auto: bfloat16 where the hardware multiplies it, else float32."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu":
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.float32


class Policy:
    """π: the module, how it computes, and whether it runs packed.

    Weights stay in their own dtype; matrix products run in `compute_dtype` (autocast), the residual stream, norms and
    everything summed over a vocabulary or a sequence in float32. The module never drops out: π_θ of the update is the
    policy that sampled.
    """

    def __init__(
        self,
        module: Any,
        tokenizer: Any,
        compute_dtype: torch.dtype,
        *,
        gradient_checkpointing: bool = False,
        like: Policy | None = None,
    ) -> None:
        """`like`: a policy of which this one is a copy; what was asked of it need not be asked again."""
        self.module = module
        self.tokenizer = tokenizer
        self.compute_dtype = compute_dtype
        self.device = next(module.parameters()).device
        self._prepared_head: Head | None = None
        self._plain_attention = _plain_attention(module)
        module.eval()
        self.packable_reason: str | None = self._probe_packed() if like is None else like.packable_reason
        module.set_attn_implementation(self._plain_attention if self.packable_reason else ATTENTION_NAME)
        self.uncompiled_reason: str | None = self._compile_layers() if like is None else like.uncompiled_reason
        if gradient_checkpointing:
            _checkpoint_activations(module)

    @property
    def packable(self) -> bool:
        """Whether prompts are shared and completions packed; if not, it goes sequence by sequence."""
        return self.packable_reason is None

    @property
    def config(self) -> Any:
        """The text model's transformers configuration."""
        return self.module.config.get_text_config()

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        return end_token_ids(self.module.generation_config, self.tokenizer)

    @property
    def context_length(self) -> int:
        return context_length(self.module.config)

    @property
    def autocasts(self) -> bool:
        weights = next(self.module.parameters()).dtype
        return self.compute_dtype != weights and self.compute_dtype != torch.float64

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Autocast to the compute dtype where weights are of another."""
        with torch.autocast(self.device.type, dtype=self.compute_dtype, enabled=self.autocasts):
            yield

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """No gradient, and weights prepared once for all the forwards within."""
        trains = self.module.training
        self.module.eval()
        try:
            with torch.no_grad(), self.computing(), prepared_linears(self.module.base_model, self._product_dtype):
                self._prepared_head = self.head().prepared_for_few_rows()
                yield
        finally:
            self._prepared_head = None
            self.module.train(trains)

    @contextmanager
    def plain_attention(self) -> Iterator[None]:
        """The module as transformers made it, with its own attention: for generate()."""
        self.module.set_attn_implementation(self._plain_attention)
        try:
            yield
        finally:
            if self.packable:
                self.module.set_attn_implementation(ATTENTION_NAME)

    def hidden(self, input_ids: torch.Tensor, position_ids: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
        """input_ids, position_ids int64 [N] → last hidden states [N, d]. Call inside computing() or sampling()."""
        outputs = self.module.base_model(
            input_ids=input_ids[None], position_ids=position_ids[None], use_cache=False, attention_plan=plan
        )
        return outputs.last_hidden_state[0]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden [T, d] → logits [T, V] float32, without gradient."""
        return (self._prepared_head or self.head().prepared()).logits(hidden)

    def score(self, packed: Packed, temperature: float, *, with_entropy: bool) -> TokenScores:
        """Log-probabilities and entropies of packed.targets under softmax(logits / temperature), [T] each."""
        if not self.packable:
            return self._scores_one_by_one(packed, temperature, with_entropy)
        with self.computing():
            plan = PackedPlan(packed.groups, self.compute_dtype)
            states = self.hidden(packed.input_ids, packed.position_ids, plan)[packed.predictor_index]
        logprobs, entropies = token_logprobs(states, self.head(), packed.targets, temperature, with_entropy)
        return TokenScores(logprobs=logprobs, entropies=entropies)

    def _scores_one_by_one(self, packed: Packed, temperature: float, with_entropy: bool) -> TokenScores:
        """The same from one ordinary forward a sequence and the module's own logits: any model, no sharing."""
        logprobs: list[torch.Tensor] = []
        entropies: list[torch.Tensor] = []
        completions = iter(packed.completion_ids)
        # One autocast for all of them: it keeps the cast weights while it lasts, and so does the graph of each sequence.
        with self.computing():
            for prompt, group in zip(packed.prompt_ids, packed.groups, strict=True):
                for _ in group.completion_lengths:
                    completion = next(completions).to(self.device)
                    ids = torch.cat([torch.tensor(prompt, device=self.device), completion[:-1]])
                    logits = self.module(input_ids=ids[None], use_cache=False).logits[0, len(prompt) - 1 :]
                    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
                    table = logits.log_softmax(-1)
                    logprobs.append(table.gather(1, completion[:, None]).squeeze(1))
                    if with_entropy:
                        entropies.append(-(table.exp() * table).sum(-1))
        return TokenScores(logprobs=torch.cat(logprobs), entropies=torch.cat(entropies) if with_entropy else None)

    def head(self) -> Head:
        projection = self.module.get_output_embeddings()
        softcap = getattr(self.config, "final_logit_softcapping", None)
        bias = getattr(projection, "bias", None)
        return Head(projection.weight, bias, softcap, self._product_dtype, scale=_logit_scale(self.config))

    @property
    def _product_dtype(self) -> torch.dtype:
        return self.compute_dtype if self.autocasts else next(self.module.parameters()).dtype

    def _compile_layers(self) -> str | None:
        """None if its layers are computed by compiled code where that is possible, else why not."""
        return compile_layers(self.module, self.compute_dtype) if self.packable else "it does not run packed"

    def _probe_packed(self) -> str | None:
        """None if a packed forward gives the module's own logits, else why not, in one line.

        Asked of the model itself, on two short prompts with two completions each: no list of families to keep.
        """
        vocabulary = min(self.config.vocab_size, 1000)
        prompts = [[token % vocabulary for token in part] for part in ((5, 17, 3, 11), (7, 2, 29))]
        completions = [[torch.tensor([t % vocabulary for t in part]) for part in ((9, 4, 21), (13, 6))]] * 2
        packed = pack(prompts, completions).to(self.device)
        try:
            with torch.no_grad():
                self.module.set_attn_implementation(self._plain_attention)
                ours_head = self.head()
                own: list[torch.Tensor] = []
                for prompt, members in zip(prompts, completions, strict=True):
                    for member in members:
                        ids = torch.tensor([*prompt, *member.tolist()[:-1]], device=self.device)[None]
                        own.append(self.module(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :])
                self.module.set_attn_implementation(ATTENTION_NAME)
                plan = PackedPlan(packed.groups, next(self.module.parameters()).dtype)
                states = self.hidden(packed.input_ids, packed.position_ids, plan)[packed.predictor_index]
                head = replace(ours_head, dtype=ours_head.weight.dtype)
                expected = torch.cat(own).float().log_softmax(-1)
                difference = float((head.logits(states).log_softmax(-1) - expected).abs().max())
        except (RuntimeError, NotImplementedError, AttributeError, TypeError, ValueError, KeyError) as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        tolerance = 1e-3 if next(self.module.parameters()).dtype == torch.float32 else 0.2
        return None if difference < tolerance else f"packed log-probabilities differ by {difference:.2g}"


def _checkpoint_activations(module: Any) -> None:
    """Activations are computed again in the backward; transformers does it in training mode only."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
        for name in ("attention_dropout", "dropout"):  # what attention layers hand to their kernels
            if isinstance(getattr(layer, name, None), float):
                setattr(layer, name, 0.0)
    module.train()
    if hasattr(module, "activation_checkpointing_enable"):
        module.activation_checkpointing_enable({"use_reentrant": False})
    else:  # older transformers
        module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _plain_attention(module: Any) -> str:
    """The attention of transformers that this model knows, the faster first."""
    for name in ("sdpa", "eager"):
        try:
            module.set_attn_implementation(name)
        except ValueError:
            continue
        return name
    return str(module.config._attn_implementation)


def _logit_scale(config: Any) -> float:
    """What Granite divides its logits by, and Cohere multiplies them with; 1 elsewhere."""
    divisor, factor = getattr(config, "logits_scaling", None), getattr(config, "logit_scale", None)
    if isinstance(divisor, (int, float)) and divisor:
        return 1.0 / divisor
    return float(factor) if isinstance(factor, (int, float)) else 1.0
