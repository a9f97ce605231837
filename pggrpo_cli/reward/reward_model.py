"""reward=reward_model: the score of a sequence classifier, such as a reward model, for prompt and completion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch

from pggrpo_cli.chat_template import use_chat_template
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.prompts import rendered
from pggrpo_cli.ranges import Range
from pggrpo_cli.scoring.second_models import classifier_bytes, context_of, foreseen, placed, size
from pggrpo_cli.types import RewardContext, Sample, ScoreError, Scores
from pggrpo_cli.weights import load_classifier

KEY = "reward.reward_model"
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""How far padding may move a score, times its size, before the model is taken to read it."""


@dataclass(frozen=True, kw_only=True)
class RewardModel:
    """The logit of `label`, or its sigmoid or softmax (`activation`), of any sequence classifier of transformers; a model
    with one label needs none named. A reward model's score has no scale of its own: advantage=group_normalized takes it
    out, and `scale` and `clip` bound it.

    Messages go through the model's own chat template, prompt and completion as one conversation; plain prompts go before
    their completion, with the special tokens of the model's own tokenizer (TRL adds none). What is longer than the model's
    context loses its beginning.
    """

    path: str
    revision: str | None
    label: int | str | None
    activation: Literal["none", "sigmoid", "softmax"]
    chat_template: str | None
    dtype: Literal["auto", "float32", "bfloat16"]
    device: str | None
    batch_tokens: Annotated[int, Range(ge=1)]

    @contextmanager
    def open(self, context: RewardContext) -> Iterator[OpenRewardModel]:
        """Loads the model once. Raises ConfigError if the folder is none, or of a model without a score head."""
        dtype, device = placed(self.dtype, self.device, context, KEY)
        loaded = load_classifier(self.path, self.revision, f"{KEY}.path", dtype)
        use_chat_template(loaded.tokenizer, self.chat_template, f"{KEY}.chat_template")
        loaded.tokenizer.truncation_side = "left"
        column = self._column(loaded.module.config)
        yield OpenRewardModel(self, _prepared(loaded.module).to(device), loaded.tokenizer, column)

    def model_bytes(self, run_device: torch.device) -> int:
        """Of its weights beside the run's, before any is read. Raises ConfigError if there is no such model."""
        dtype = foreseen(self.dtype, self.device, run_device, KEY)
        return 0 if dtype is None else classifier_bytes(self.path, self.revision, dtype, f"{KEY}.path")

    def _column(self, config: Any) -> int:
        names = [str(config.id2label[index]) for index in range(config.num_labels)]
        if self.label is None and len(names) > 1:
            raise ConfigError(
                f"`{KEY}.label`: the model has {len(names)} labels ({', '.join(names[:8])}); name the one whose score is "
                f"the reward, for example {KEY}.label={names[0]}."
            )
        if len(names) == 1 and self.activation == "softmax":
            raise ConfigError(f"`{KEY}.activation`: the softmax of one label is always 1; use none or sigmoid.")
        if self.label is None:
            return 0
        if self.label in names:
            return names.index(str(self.label))
        if isinstance(self.label, int) and 0 <= self.label < len(names):
            return self.label
        raise ConfigError(f"`{KEY}.label`: {self.label!r} is no label of the model; it has {', '.join(names[:8])}.")


class OpenRewardModel:
    """The model at work, without gradient."""

    def __init__(self, settings: RewardModel, module: Any, tokenizer: Any, column: int) -> None:
        self._settings, self._module, self._tokenizer, self._column = settings, module, tokenizer, column
        self._device, self._dtype = module.device, module.dtype
        self._context = context_of(module.config, tokenizer)
        self._padding: int | None = module.config.get_text_config().pad_token_id
        self._pads = self._padding_is_not_read()

    def describe(self) -> str:
        """For the plan."""
        words = (
            f"{type(self._module).__name__} of {self._settings.path}, {size(self._module)}, "
            f"{str(self._dtype).removeprefix('torch.')} on {self._device}"
        )
        return words if self._pads else f"{words}; one completion at a time, as padding would change its scores"

    def score(self, samples: Sequence[Sample]) -> Scores:
        rows: list[list[int]] = []
        truncated = 0
        for sample in samples:
            ids, cut = self._token_ids(sample)
            rows.append(ids)
            truncated += cut
        scores: list[float | ScoreError | None] = [ScoreError(message="prompt and completion have no token")] * len(
            rows
        )
        for places in self._batches([len(row) for row in rows]):
            values = self._scores([rows[place] for place in places])
            for place, value in zip(places, values, strict=True):
                scores[place] = value
        note = (
            f"prompts with completions of more than {self._context} tokens, the model's context, lose their beginning; "
            "reward_model/truncated counts them."
        )
        return Scores(
            scores=scores,
            metrics={"reward_model/truncated": truncated / max(len(samples), 1)},
            notes=[note] if truncated else [],
        )

    def _token_ids(self, sample: Sample) -> tuple[list[int], bool]:
        """(token ids, whether something had to be cut off)."""
        plain = isinstance(sample.prompt, str)
        if isinstance(sample.prompt, str):
            text = sample.prompt + sample.completion
        else:
            messages = [*sample.prompt, {"role": "assistant", "content": sample.completion}]
            text = rendered(messages, self._tokenizer, f"rows of {KEY}", KEY, generation=False)
        # A template writes its own special tokens; a plain text gets the tokenizer's, and keeps them when it is cut.
        ids: list[int] = self._tokenizer(text, add_special_tokens=plain, verbose=False)["input_ids"]
        if len(ids) <= self._context:
            return ids, False
        cut = self._tokenizer(text, add_special_tokens=plain, truncation=True, max_length=self._context)
        return list(cut["input_ids"]), True

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Places of rows, the longest first: at most `batch_tokens` with their padding, or one row. Empty rows: none."""
        held: list[int] = []
        for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
            if not lengths[place]:
                break
            if held and (not self._pads or (len(held) + 1) * lengths[held[0]] > self._settings.batch_tokens):
                yield held
                held = []
            held.append(place)
        if held:
            yield held

    def _scores(self, rows: Sequence[Sequence[int]]) -> list[float]:
        logits = self._logits(rows)
        if self._settings.activation == "softmax":
            logits = logits.softmax(-1)
        chosen = logits[:, self._column]
        values: list[float] = (chosen.sigmoid() if self._settings.activation == "sigmoid" else chosen).tolist()
        return values

    def _logits(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """[B, labels] float32 on the CPU. Padding stands on the right, whatever the tokenizer's habit: there no position
        moves, and nothing that comes before looks at it."""
        width = max(map(len, rows))
        pad = self._pad_token(rows)
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=self._device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self._device)
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            logits: torch.Tensor = self._module(input_ids=ids, attention_mask=mask).logits
        return logits.float().cpu()

    def _pad_token(self, rows: Sequence[Sequence[int]]) -> int:
        """The model's own. Decoders read their score at the last token that is not padding; one without a padding token
        gets, for these rows, one that none of them ends with: so its score stays that of the last token."""
        if self._padding is not None:
            return self._padding
        ends = {row[-1] for row in rows}
        token = next(token for token in range(len(ends) + 1) if token not in ends)
        self._module.config.get_text_config().pad_token_id = token
        return token

    def _padding_is_not_read(self) -> bool:
        """Asked of the model itself: a short text, alone and beside a longer one."""
        vocabulary = self._module.config.get_text_config().vocab_size
        short, long = ([token % vocabulary for token in row] for row in ((31, 17, 3, 11), (7, 2, 29, 41, 5, 19, 23)))
        try:
            alone, padded = self._logits([short])[0], self._logits([long, short])[1]
        except (RuntimeError, ValueError, IndexError):  # some encoder-decoders demand end tokens that these rows lack
            return False
        return bool(((alone - padded).abs() <= TOLERANCE[self._dtype] * alone.abs().clamp_min(1)).all())


def _prepared(module: Any) -> Any:
    """Ready to score. A decoder's score head computes in float32: bfloat16 would round a score of 10 to sixteenths."""
    module.eval().requires_grad_(False)
    module.config.use_cache = False
    head = getattr(module, "score", None)
    if isinstance(head, torch.nn.Linear):
        head.float()
        head.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    return module
