"""What is about to happen, said before the first step: how much of what, how much memory, what β does here."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pggrpo_cli.config import TrainConfig
from pggrpo_cli.filters import Sieve
from pggrpo_cli.lazy_prompts import LazyPrompts
from pggrpo_cli.parts import some_of_each_part
from pggrpo_cli.planning.memory_estimate import MemoryEstimate
from pggrpo_cli.planning.run_counts import RunCounts
from pggrpo_cli.prompts import RenderedPrompts
from pggrpo_cli.protocols import Loss
from pggrpo_cli.types import Dataset, Prompt

PAPER_ADVANTAGE = {
    "PgGrpo": "group_mean",
    "Grpo": "group_mean",
    "GrpoToken": "group_normalized",
    "DrGrpo": "group_mean",
    "Dapo": "group_normalized",
    "Gspo": "group_normalized",
    "Cispo": "group_normalized",
}
GUESSED = "activations are guessed for this architecture"


def describe(
    config: TrainConfig, loss: Loss, counts: RunCounts, mean_prompt: float, memory: MemoryEstimate | None
) -> list[str]:
    """The plan, a line each. `memory`: None if it could not be estimated."""
    at_most = f" × ≤{counts.completion_tokens} tokens" if counts.samples else " from the data set"
    updates, micro = counts.updates_per_step, counts.micro_batches
    return [
        f"each step: {counts.prompts_per_step} prompts × {counts.group_size} completions = "
        f"{counts.completions_per_step}{at_most}; "
        f"{updates} update{'s' if updates > 1 else ''} of ≤{micro} micro-batch{'es' if micro > 1 else ''}",
        f"{counts.steps} steps see {counts.steps * counts.prompts_per_step} of {counts.rows} prompts "
        f"({counts.epochs:.1f} epochs), {mean_prompt:.0f} tokens each",
        _about_memory(memory),
        *remarks(config, loss),
    ]


def remarks(config: TrainConfig, loss: Loss) -> list[str]:
    """What β does here, and pairings that are not a paper's."""
    lines = []
    if config.sampler.get("max_new_tokens") and not (loss.needs_advantages or loss.needs_pairs):
        lines.append(
            "note: this loss looks at no reward, so it trains on whatever is sampled; sampler=offline gives it data"
        )
    return lines + _about_beta(config, loss) + _about_pairing(config, loss)


def _about_memory(memory: MemoryEstimate | None) -> str:
    """The peak and its three largest parts."""
    if memory is None:
        return "memory: not known for this model"
    largest = ", ".join(f"{name} {size / 1e9:.2g}" for name, size in list(memory.parts.items())[:3])
    guessed = f"; {GUESSED}" if memory.activations_guessed else ""
    return f"memory: at most about {memory.peak / 1e9:.1f} GB, in the {memory.peak_phase} phase ({largest}){guessed}"


def about_data(sieve: Sieve, rendered: RenderedPrompts, *, whole: bool = True) -> list[str]:
    """What the filters left out, and what is too long. `whole`: whether all rows were rendered, not some of them."""
    lines = [f"data: {words}"] if (words := sieve.words()) else []
    looked_at = len(rendered.sample) + rendered.dropped
    if isinstance(rendered.prompts, LazyPrompts):
        fate = f"{rendered.dropped} are overlong; in such a row's place comes the next that fits"
        words = fate if rendered.dropped else f"{rendered.truncated} are truncated"
        lines.append(f"data: rows are read when their turn comes; of {looked_at} looked at {words}")
    elif (rendered.dropped or rendered.truncated) and not whole:
        fates = {"overlong, to be dropped": rendered.dropped, "overlong, to be truncated": rendered.truncated}
        words = ", ".join(f"{count:,} are {fate}" for fate, count in fates.items() if count)
        lines.append(f"data: of {looked_at:,} rows looked at {words}")
    elif rendered.dropped or rendered.truncated:
        lines.append(f"data: {rendered.dropped} overlong prompts dropped, {rendered.truncated} truncated")
    return lines


def describe_parts(config: TrainConfig, rows: Dataset, prompts: Sequence[Prompt]) -> list[str]:
    """What each source of a mixture has of the run, a line each."""
    total = sum(rows.weights.values())
    lines = []
    for name, weight in rows.weights.items():
        count = sum(prompt.row.part == name for prompt in prompts)
        each_step = weight / total * config.trainer.prompts_per_step
        epochs = each_step * config.trainer.max_steps / max(count, 1)
        lines.append(f"source {name}: {each_step:.3g} of the prompts of a step, {count} in all ({epochs:.1f} epochs)")
    return lines


def unused_labels(rows: Dataset, config: TrainConfig) -> list[str]:
    """Notes on what the data set brings and this run does not use."""
    firsts = some_of_each_part(rows.train, 1)
    completions = [completion for row in firsts for completion in row.completions]
    mixed = "online" in config.sampler
    offline = "max_new_tokens" not in config.sampler
    if mixed and not completions:
        return ["note: no row brings completions, so all are sampled; sampler=native says the same"]
    if completions and not offline and not mixed:
        return [
            "note: the data set's own completions are not used, new ones are sampled; sampler=offline trains on them, "
            "sampler=mixed where some rows bring none"
        ]
    labelled = any(completion.preference is not None for completion in completions)
    if labelled and not any("preference" in str(node["_target_"]) for node in config.reward.values()):
        return ["note: chosen and rejected are not used as labels; reward=preference pairing=dataset does that"]
    return []


def _about_beta(config: TrainConfig, loss: Loss) -> list[str]:
    """What PG-GRPO's β does under this optimizer; nothing for other losses."""
    options = config.loss
    if not hasattr(loss, "gradient_scale"):
        return []
    beta, low, high = options["beta"], options["clip_low"], options["clip_high"]
    per = "|y| " if options["length_normalized"] else ""
    line = (
        f"β = {beta:g}: the clip binds where log π_θ − log π_old of a completion leaves "
        f"[{math.log(1 - low) / beta:.2f}, {math.log(1 + high) / beta:.2f}] {per}nats"
    )
    adaptive = "SGD" not in str(config.optimizer.get("_target_", ""))
    if options["gradient_scale"] == "inverse_beta":
        return [line + "; the surrogate is divided by β, so β changes nothing else"]
    if adaptive:
        weight = options["kl_coef"] / beta
        return [line + f"; under this optimizer β leaves the step and weighs the KL: kl_coef/β = {weight:g}"]
    return [line + f"; under SGD it also scales the first step by {beta:g}"]


def _about_pairing(config: TrainConfig, loss: Loss) -> list[str]:
    paper = PAPER_ADVANTAGE.get(type(loss).__name__)
    chosen = str(config.advantage["_target_"]).split(".")[-2]
    if paper is None or chosen == paper:
        return []
    return [f"note: this loss was published with advantage={paper}; you run it with {chosen}"]
