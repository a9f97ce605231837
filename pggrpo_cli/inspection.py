"""One step seen again, token by token: its completions under the policies before and after it, and before training.

samples.jsonl holds the tokens and what the sampler made of them; checkpoints hold some of the policies, and the nearest stand
for those that are not there. Of a run of an earlier release the texts are tokenised again. `notes` says how far that is from
what was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pggrpo_cli.config import MAPPING_KEYS
from pggrpo_cli.devices import resolve_device
from pggrpo_cli.errors import CheckpointError, DataError
from pggrpo_cli.instantiate import component
from pggrpo_cli.origin import model_digest
from pggrpo_cli.packing import pack
from pggrpo_cli.policy import LoadedModel, ModelSettings, Policy, resolve_compute_dtype
from pggrpo_cli.report.run import Run
from pggrpo_cli.report.samples_file import Completion
from pggrpo_cli.run_directory import SAMPLES
from pggrpo_cli.run_overrides import refuse_targets
from pggrpo_cli.types import TokenScores, TrainBatch
from pggrpo_cli.weights import load_folder

BUILT = ("model", "loss")
"""Groups whose components are made again here; nothing else of the configuration is."""


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """One completion; the lists have an entry a token."""

    completion: Completion
    tokens: list[str]
    old: list[float]
    new: list[float]
    reference: list[float] | None
    ratio: float | None
    """What the run's loss calls the importance ratio: of the completion, or the largest of its tokens."""
    clipped: float | None
    """Share of it that the clip holds: 0 or 1 where the ratio is of a completion."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    completions: list[Inspected]
    old: str
    new: str
    notes: list[str]


def inspect_step(run: Run, step: int, chosen: Sequence[Completion], allow_targets: Sequence[str] = ()) -> Inspection:
    """`chosen`: completions of `step`. Raises CheckpointError if there is no checkpoint of that step or later, ConfigError
    if the run's model or loss is code that `allow_targets` does not list, DataError for a token that the model has not."""
    refuse_targets({group: run.config.get(group) for group in BUILT}, allow_targets, typed=())
    later = [one for one in run.checkpoints if one >= step]
    if not later:
        there = ", ".join(map(str, run.checkpoints)) or "none"
        raise CheckpointError(
            f"{run.path}: no checkpoint of step {step} or later is there (there are: {there}). A run with "
            "checkpoint.every=1 and a larger checkpoint.keep_last keeps what is needed."
        )
    notes: list[str] = []
    settings, device = run.config["model"], resolve_device(run.config["device"])
    after = _policy(load_folder(_folder(run, later[0]), "model.path"), settings, device)
    original = _original(run, settings, device, notes)
    if _have_tokens(chosen):
        _refuse_unknown_tokens(run, chosen, after.config.vocab_size)
        prompts, ids = _recorded(chosen)
    else:
        prompts, ids = _tokenised(run, chosen, after, notes)
    temperature = float(run.config["sampler"].get("temperature") or 1.0)
    olds = _as_sampled(chosen)
    if olds is None:
        before, old_name = _before(run, step, settings, device, original)
        olds = _scores(before, prompts, ids, temperature)
        if later[0] != step or old_name != _name(step - 1):
            notes.append(
                f"not the step's own policies, which were not kept: from {old_name} to {_name(later[0])} lie more steps "
                "than one"
            )
    else:
        old_name = "as sampled"
        if later[0] != step:
            notes.append(f"new is not the policy after step {step}, which was not kept, but {_name(later[0])}")
    news = _scores(after, prompts, ids, temperature)
    references = None if original is None else _scores(original, prompts, ids, temperature)
    found = []
    for place, completion in enumerate(chosen):
        old, new = olds[place], news[place]
        reference = None if references is None else references[place]
        ratio, clipped = _under_the_loss(run, completion, old, new, reference)
        tokens = [after.tokenizer.decode([token]) for token in ids[place].tolist()]
        found.append(
            Inspected(
                completion=completion,
                tokens=tokens,
                old=old.tolist(),
                new=new.tolist(),
                reference=None if reference is None else reference.tolist(),
                ratio=ratio,
                clipped=clipped,
            )
        )
    return Inspection(completions=found, old=old_name, new=_name(later[0]), notes=notes)


def _name(step: int) -> str:
    return f"step {step}" if step > 0 else "before training"


def _folder(run: Run, step: int) -> Path:
    return run.path / "checkpoints" / f"step-{step:06d}"


def _policy(loaded: LoadedModel, settings: Mapping[str, Any], device: torch.device) -> Policy:
    own = ModelSettings(**{name: settings[name] for name in MAPPING_KEYS["model"]})
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[own.weight_dtype]
    return Policy(loaded.module.to(device, dtype), loaded.tokenizer, resolve_compute_dtype(own.compute_dtype, device))


def _original(run: Run, settings: Mapping[str, Any], device: torch.device, notes: list[str]) -> Policy | None:
    """The model before training, if it can still be had and is the one that the run began with."""
    policy = _policy(component(settings, "model").load(), settings, device)
    state = json.loads((_folder(run, run.checkpoints[-1]) / "state.json").read_text(encoding="utf-8"))
    if state["progress"].get("origin", {}).get("model") != model_digest(policy.module.named_parameters()):
        notes.append("no reference: the model's files are not those that the run began with")
        return None
    return policy


def _before(
    run: Run, step: int, settings: Mapping[str, Any], device: torch.device, original: Policy | None
) -> tuple[Policy, str]:
    """The newest policy from before `step`, and its name."""
    earlier = [one for one in run.checkpoints if one < step]
    if earlier:
        return _policy(load_folder(_folder(run, earlier[-1]), "model.path"), settings, device), _name(earlier[-1])
    if original is None:
        raise CheckpointError(
            f"{run.path}: no checkpoint from before step {step} is there, nor the model it began with."
        )
    return original, _name(0)


def _have_tokens(chosen: Sequence[Completion]) -> bool:
    return all(one.prompt_ids is not None and one.completion_ids is not None for one in chosen)


def _refuse_unknown_tokens(run: Run, chosen: Sequence[Completion], vocabulary: int) -> None:
    """Raises DataError for a token that is none of the model's: the file was changed, or is another run's."""
    for one in chosen:
        for key, ids in (("prompt_ids", one.prompt_ids), ("completion_ids", one.completion_ids)):
            wrong = next((token for token in ids or () if token >= vocabulary), None)
            if wrong is not None:
                raise DataError(
                    f"{run.path / SAMPLES}: step {one.step}, prompt_index {one.prompt_index}, sample {one.sample}: `{key}` "
                    f"has the token {wrong}, and the model only those below {vocabulary:,}. The file is not as the run wrote "
                    "it; bring that back, or take prompt_ids, completion_ids and logprobs out of the step's lines: then "
                    "its texts are tokenised again."
                )


def _recorded(chosen: Sequence[Completion]) -> tuple[list[list[int]], list[torch.Tensor]]:
    """Prompts and completions as the tokens that training saw; all have some."""
    return [list(one.prompt_ids or ()) for one in chosen], [torch.tensor(one.completion_ids) for one in chosen]


def _as_sampled(chosen: Sequence[Completion]) -> list[torch.Tensor] | None:
    """The sampler's log-probabilities [length] of each completion; None if one has none."""
    if not _have_tokens(chosen):
        return None
    found = [one.logprobs for one in chosen if one.logprobs is not None]
    lengths = [len(one.completion_ids or ()) for one in chosen]
    return [torch.tensor(one) for one in found] if [len(one) for one in found] == lengths else None


def _tokenised(
    run: Run, chosen: Sequence[Completion], policy: Policy, notes: list[str]
) -> tuple[list[list[int]], list[torch.Tensor]]:
    """Prompts and completions as token ids; what the whole step's lengths tell of that goes into `notes`."""
    tokenizer = policy.tokenizer
    bos, stops = tokenizer.bos_token, bool(run.config["sampler"].get("stop"))

    def completion_ids(one: Completion) -> list[int]:
        ids: list[int] = list(tokenizer(one.completion, add_special_tokens=False)["input_ids"])
        ended = one.finish_reason != "length" and not stops
        return [*ids, policy.end_token_ids[0]] if (ended or not ids) and policy.end_token_ids else ids

    prompts = []
    for one in chosen:
        # A chat template writes its own beginning; a plain text gets the tokenizer's.
        ids = list(tokenizer(one.prompt, add_special_tokens=not (bos and one.prompt.startswith(bos)))["input_ids"])
        prompts.append(ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] and len(ids) > 1 else ids)
    of_step = run.samples.read(chosen[0].step, held_out=False)
    lengths = [len(completion_ids(one)) for one in of_step]
    logged = run.metrics.get("completions/mean_length")
    there = dict(zip(logged.steps.tolist(), logged.values.tolist(), strict=True)).get(float(chosen[0].step))
    mean = sum(lengths) / len(lengths)
    words = "the texts of samples.jsonl, tokenised again"
    if there is not None and abs(there - mean) < 1e-6:
        notes.append(f"tokens: {words}; their mean length in this step, {mean:.2f}, is what training logged")
    else:
        logged_words = "was not logged" if there is None else f"was {there:.2f}"
        notes.append(f"tokens: {words}, and not those sampled: mean length {mean:.2f}; in training it {logged_words}")
    return prompts, [torch.tensor(completion_ids(one), dtype=torch.long) for one in chosen]


def _scores(
    policy: Policy, prompts: Sequence[Sequence[int]], ids: Sequence[torch.Tensor], temperature: float
) -> list[torch.Tensor]:
    """Log-probabilities [length] of each completion, float32 on the CPU."""
    packed = pack(prompts, [[one] for one in ids]).to(policy.device)
    with torch.no_grad():
        flat = policy.score(packed, temperature, with_entropy=False).logprobs.float().cpu()
    return list(flat.split([len(one) for one in ids]))


def _under_the_loss(
    run: Run, completion: Completion, old: torch.Tensor, new: torch.Tensor, reference: torch.Tensor | None
) -> tuple[float | None, float | None]:
    """(ratio/max, clip_ratio/region_mean) that the run's own loss gives for this completion alone; None if it has none."""
    node = run.config["loss"]
    if completion.advantage is None:
        return None, None
    loss = component(node, "loss")
    if not loss.needs_old_logprobs or (loss.needs_reference and reference is None):
        return None, None
    batch = TrainBatch(
        sequence_index=torch.zeros(len(old), dtype=torch.long),
        lengths=torch.tensor([len(old)]),
        advantages=torch.tensor([completion.advantage]),
        old_logprobs=old,
        ref_logprobs=reference if loss.needs_reference else None,
        token_weight=None,
        importance_weight=None,
        pairs=None,
        num_sequences=1,
        num_tokens=len(old),
        num_pairs=0,
        max_new_tokens=len(old),
    )
    metrics = loss(TokenScores(logprobs=new, entropies=torch.zeros_like(new)), batch).metrics
    ratio, clipped = metrics.get("ratio/max"), metrics.get("clip_ratio/region_mean")
    return (None if ratio is None else ratio.value), (None if clipped is None else clipped.value)
