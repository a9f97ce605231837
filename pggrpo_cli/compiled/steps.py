"""Decoding by decode.c: weights packed once a rollout, keys in its layout, one call a token for all layers and rows."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from pggrpo_cli.compiled.choosing import choose
from pggrpo_cli.compiled.family import Decoder, Unlike, decoder_of
from pggrpo_cli.compiled.library import Layer, Model, Storage, Tokens, Uncompiled, code_name, library
from pggrpo_cli.compiled.update import in_torch
from pggrpo_cli.engine.selection import Selection
from pggrpo_cli.engine.steps import Capacity, LiveRows, Steps, TorchSteps
from pggrpo_cli.out_of_memory import first_line
from pggrpo_cli.packed_attention import PackedPlan
from pggrpo_cli.packing import pack
from pggrpo_cli.policy import Policy

WIDTH = 16
"""Keys, and output columns, in a block of decode.c."""

PROBE_TOLERANCE = 1e-4
"""How far compiled log-probabilities may be from torch's in float32, as a share of their own spread: SmolLM2 is at 4e-6."""
PROBE = (tuple(range(3, 27)), (7, 2, 29))
"""Two prompts."""


@dataclass(frozen=True, slots=True)
class CompiledDecoding:
    """decode.c for one policy."""

    decoder: Decoder
    library: ctypes.CDLL
    dtype: torch.dtype

    @classmethod
    def of(cls, policy: Policy, before: str | None = None) -> CompiledDecoding:
        """Raises Uncompiled or Unlike where it cannot be, or where it does not compute what the policy's module does.

        Asked is the module itself, in float32, where a difference is no rounding: at the first positions and at the last
        that its context has.
        """
        decoder = decoder_of(policy.module)
        if policy.compute_dtype not in (torch.float32, torch.bfloat16):
            raise Unlike(f"it computes in {str(policy.compute_dtype).removeprefix('torch.')}")
        if policy.head().softcap is not None:
            raise Unlike("its logits are capped")
        found = cls(decoder, library(bfloat16=policy.compute_dtype == torch.bfloat16), policy.compute_dtype)
        if found.name == before:
            return found
        try:
            difference = _difference(policy, cls(decoder, library(bfloat16=False), torch.float32))
        except (
            RuntimeError,
            MemoryError,
            NotImplementedError,
            AttributeError,
            TypeError,
            ValueError,
            KeyError,
        ) as error:
            raise Unlike(f"{type(error).__name__}: {first_line(error)}") from None
        if not difference < PROBE_TOLERANCE:
            raise Unlike(f"its log-probabilities differ by {difference:.2g} of their spread")
        return found

    @property
    def name(self) -> str:
        """Of the code: another compiler, processor or source has another."""
        return code_name(bfloat16=self.dtype == torch.bfloat16)

    @contextmanager
    def open_steps(self, policy: Policy, capacity: Capacity) -> Iterator[CompiledSteps]:
        with torch.no_grad():
            yield CompiledSteps(self, policy, capacity)


_FOUND: WeakKeyDictionary[Policy, CompiledDecoding | str] = WeakKeyDictionary()


def decoding_of(policy: Policy, before: str | None) -> CompiledDecoding | str:
    """CompiledDecoding.of, once for each policy; or why it cannot be. `before`: the name of what decoded this run until now:
    the same code is not asked again, lest other weights give another answer."""
    if policy not in _FOUND:
        try:
            _FOUND[policy] = CompiledDecoding.of(policy, before)
        except (Uncompiled, Unlike) as reason:
            _FOUND[policy] = str(reason)
    return _FOUND[policy]


def _difference(policy: Policy, compiled: CompiledDecoding) -> float:
    """Of log-probabilities behind two prompts and two tokens of two completions each, and behind the prompts at the end of
    the context. The module computes without any compiled code."""
    trains = policy.module.training
    exact = Policy(policy.module, policy.tokenizer, torch.float32, like=policy)
    vocabulary = min(policy.config.vocab_size, 1000)
    prompts = [[token % vocabulary for token in prompt] for prompt in PROBE]
    capacity = Capacity(slots=2, prompt_tokens=max(map(len, prompts)), rows=4, row_tokens=2)
    shift = max(0, policy.context_length - capacity.prompt_tokens)
    packed = pack(prompts, [[] for _ in prompts])
    try:
        with in_torch(), exact.sampling():
            expected = _stepped(TorchSteps(exact, capacity), prompts, vocabulary)
            plan = PackedPlan(packed.groups, torch.float32)
            last = torch.tensor([group.start + group.num_tokens - 1 for group in packed.groups])
            expected_far = exact.logits(exact.hidden(packed.input_ids, packed.position_ids + shift, plan)[last])
        with compiled.open_steps(exact, capacity) as steps:
            found = _stepped(steps, prompts, vocabulary)
            found_far = steps.prefill(prompts, 0, shift)
    finally:
        policy.module.train(trains)
    return max(_typical(expected, found), _typical(expected_far, found_far))


def _typical(expected: torch.Tensor, found: torch.Tensor) -> float:
    """The median over rows of how far their log-probabilities are apart on average, as a share of their spread. The median,
    because the odd text is so ill-conditioned that float32 itself is a thousandth off."""
    one, other = expected.log_softmax(1), found.log_softmax(1)
    return float((one - other).abs().mean(1).median() / one.std())


def _stepped(steps: Steps, prompts: Sequence[Sequence[int]], vocabulary: int) -> torch.Tensor:
    found = [steps.prefill(prompts, 0).clone()]
    for held, tokens in enumerate(((9, 4, 21, 13), (6, 8, 1, 30))):
        live = LiveRows(slots=[0, 0, 1, 1], held=[held] * 4, prompt_lengths=[len(prompt) for prompt in prompts])
        found.append(steps.next_logits([token % vocabulary for token in tokens], live).clone())
    return torch.cat(found)


class CompiledSteps:
    def __init__(self, compiled: CompiledDecoding, policy: Policy, capacity: Capacity) -> None:
        self._compiled, self._decoder = compiled, compiled.decoder
        self._step = 2 if compiled.dtype == torch.bfloat16 else 1
        self._threads = torch.get_num_threads()
        self._prompts = [self._storage(capacity.slots, capacity.prompt_tokens) for _ in self._decoder.blocks]
        self._rows = [self._storage(capacity.rows, capacity.row_tokens) for _ in self._decoder.blocks]
        self._kept: list[torch.Tensor] = []
        """What the structures below point to."""
        self._layers = (Layer * len(self._decoder.blocks))(*map(self._layer, range(len(self._decoder.blocks))))
        first, head = self._decoder.blocks[0], policy.head()
        self._scale, self._vocabulary = head.scale, head.weight.shape[0]
        self._model = Model(
            layers=len(self._layers),
            hidden=first.query.in_features,
            heads=first.query.out_features // self._decoder.size,
            key_heads=self._decoder.key_heads,
            size=self._decoder.size,
            inner=first.gate.out_features,
            vocabulary=self._vocabulary,
            threads=self._threads,
            epsilon=self._decoder.epsilon,
            scaling=self._decoder.scaling,
            layer=self._layers,
            final_norm=self._address(self._decoder.final_norm.weight),
            head=self._packed(head.weight),
            head_bias=self._bias(head.bias),
        )
        self._scratch = torch.empty(0)

    def prefill(self, prompts: Sequence[Sequence[int]], first_slot: int, shift: int = 0) -> torch.Tensor:
        """`shift`: the position of the first token."""
        lengths = [len(prompt) for prompt in prompts]
        slots = [slot for slot, length in enumerate(lengths, first_slot) for _ in range(length)]
        held = [position for length in lengths for position in range(length)]
        tokens = [token for prompt in prompts for token in prompt]
        last = [end - 1 for end in accumulate(lengths)]
        return self._computed(tokens, [shift + position for position in held], slots, held, None, last)

    def next_logits(self, tokens: Sequence[int], live: LiveRows) -> torch.Tensor:
        positions = [live.prompt_lengths[slot] + own for slot, own in zip(live.slots, live.held, strict=True)]
        return self._computed(tokens, positions, live.slots, live.held, live.prompt_lengths, None)

    def _computed(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        slots: Sequence[int],
        held: Sequence[int],
        prompt_lengths: Sequence[int] | None,
        wanted: Sequence[int] | None,
    ) -> torch.Tensor:
        """struct tokens of decode.c → logits [wanted, V]."""
        decoder, library = self._decoder, self._compiled.library
        x = decoder.embedding(torch.tensor(tokens)).contiguous()
        cosine, sine = (table[0].contiguous() for table in decoder.rotation(x[None], torch.tensor([positions])))
        if cosine.shape != (len(tokens), decoder.size):
            raise ValueError("it rotates a part of a head")
        numbers = [None if part is None else torch.tensor(part) for part in (slots, held, prompt_lengths, wanted)]
        logits = torch.empty(len(tokens if wanted is None else wanted), self._vocabulary)
        floats = library.scratch_floats(ctypes.byref(self._model), len(tokens))
        if self._scratch.numel() < floats:
            self._scratch = torch.empty(floats)
        described = Tokens(
            len(tokens),
            *(None if table is None else table.data_ptr() for table in (cosine, sine, *numbers)),
            logits.shape[0],
        )
        addresses = (x.data_ptr(), self._scratch.data_ptr(), logits.data_ptr())
        library.decode(ctypes.byref(self._model), ctypes.byref(described), *addresses)
        return logits if self._scale == 1 else logits.mul_(self._scale)

    def choose(
        self, selection: Selection, logits: torch.Tensor, keys: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if selection.truncates and selection.temperature > 0:
            return selection.choose(logits, keys)
        return choose(self._compiled.library, selection, logits, keys, self._threads)

    def move_prompt(self, source: int, target: int, length: int) -> None:
        _move(self._prompts, source, target, length)

    def move_row(self, source: int, target: int, length: int) -> None:
        _move(self._rows, source, target, length)

    def _storage(self, count: int, capacity: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys [count, K, blocks, size / step, 16, step] and values [count, K, 16 · blocks, padded size]."""
        blocks = _blocks(capacity)
        size, heads, step = self._decoder.size, self._decoder.key_heads, self._step
        keys = torch.zeros(count, heads, blocks, size // step, WIDTH, step, dtype=self._compiled.dtype)
        return keys, torch.zeros(count, heads, WIDTH * blocks, WIDTH * _blocks(size), dtype=self._compiled.dtype)

    def _layer(self, number: int) -> Layer:
        block = self._decoder.blocks[number]
        return Layer(
            attention_norm=self._address(block.attention_norm.weight),
            mlp_norm=self._address(block.mlp_norm.weight),
            query_norm=self._address(block.query_norm.weight if block.query_norm is not None else None),
            key_norm=self._address(block.key_norm.weight if block.key_norm is not None else None),
            qkv=self._packed(*(part.weight for part in (block.query, block.key, block.value))),
            out=self._packed(block.out.weight),
            gate_up=self._packed(block.gate.weight, block.up.weight, alternating=True),
            down=self._packed(block.down.weight),
            qkv_bias=self._bias(*(part.bias for part in (block.query, block.key, block.value))),
            out_bias=self._bias(block.out.bias),
            gate_up_bias=self._bias(block.gate.bias, block.up.bias, alternating=True),
            down_bias=self._bias(block.down.bias),
            prompts=_described(*self._prompts[number]),
            rows=_described(*self._rows[number]),
        )

    def _packed(self, *weights: torch.Tensor, alternating: bool = False) -> int:
        """Weights [out, in] below each other, or their blocks of 16 columns in turn."""
        if not alternating and len(weights) > 1:
            weights = (torch.cat(weights),)
        every, depth = len(weights), weights[0].shape[1]
        # Products take blocks two at a time.
        blocks = sum(_blocks(weight.shape[0]) for weight in weights)
        packed = torch.zeros((blocks + blocks % 2) * WIDTH * depth, dtype=self._compiled.dtype)
        for first, weight in enumerate(weights):
            source = weight.detach().contiguous()
            sizes = (*weight.shape, packed.data_ptr(), first, every, self._threads)
            self._compiled.library.pack(source.data_ptr(), *sizes)
        self._kept.append(packed)
        return int(packed.data_ptr())

    def _bias(self, *biases: torch.Tensor | None, alternating: bool = False) -> int | None:
        """The same of biases [out], rounded as the products' dtype is; None where there are none."""
        present = [bias.detach().to(self._compiled.dtype).float() for bias in biases if bias is not None]
        if not present:
            return None
        if not alternating:
            present = [torch.cat(present)]
        blocks = [nn.functional.pad(bias, (0, -len(bias) % WIDTH)).reshape(-1, WIDTH) for bias in present]
        bias = torch.stack(blocks, dim=1).reshape(-1)
        return self._address(nn.functional.pad(bias, (0, WIDTH)))

    def _address(self, tensor: Any) -> int | None:
        if tensor is None:
            return None
        self._kept.append(tensor.detach().contiguous())
        return int(self._kept[-1].data_ptr())


def _blocks(count: int) -> int:
    return (count + WIDTH - 1) // WIDTH


def _described(keys: torch.Tensor, values: torch.Tensor) -> Storage:
    return Storage(keys.data_ptr(), values.data_ptr(), values.shape[2])


def _move(layers: list[tuple[torch.Tensor, torch.Tensor]], source: int, target: int, length: int) -> None:
    for keys, values in layers:
        keys[target, :, : _blocks(length)] = keys[source, :, : _blocks(length)]
        values[target, :, :length] = values[source, :, :length]
