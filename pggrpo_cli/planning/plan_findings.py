"""Whether a run fits the machine: its memory and its disk against what there is, and what would help."""

from __future__ import annotations

from pggrpo_cli.findings import Finding, ok, trouble, warning
from pggrpo_cli.planning.run_plan import RunPlan


def plan_findings(plan: RunPlan) -> list[Finding]:
    """Of memory and of the disk; trouble only where it cannot fit."""
    return [_memory_finding(plan), _disk_finding(plan)]


def fits(plan: RunPlan) -> bool:
    return all(one.status != "trouble" for one in plan_findings(plan))


def _memory_finding(plan: RunPlan) -> Finding:
    needed = plan.memory.peak + (sum(plan.beside.values()) if plan.on_cpu else 0)
    said = (
        f"about {gigabytes(needed)} at most; {gigabytes(plan.memory_free)} of {gigabytes(plan.memory_total)} are free"
    )
    advice = smaller(plan)
    if needed > plan.memory_total:
        return trouble("memory", said, advice)
    if needed > plan.memory_free:
        return warning("memory", said, f"end other programs, or {advice}")
    return ok("memory", said)


def smaller(plan: RunPlan) -> str:
    """What would help most, by the largest part that a key can change."""
    ways = {
        "activations": "lower trainer.micro_batch_tokens (the result is the same), or model.gradient_checkpointing=true",
        "keys and values": "lower sampler.max_rows or evaluation.num_prompts",
        "logits": "lower sampler.max_rows or evaluation.num_prompts",
        "optimizer": "take an optimizer that keeps less (optimizer=adafactor or sgd), or a smaller model",
        "reference": "loss.kl_coef=0 needs no reference; or take a smaller model",
        "reward models": "a smaller reward model, or one on a server (reward=http)",
    }
    return next((ways[part] for part in plan.memory.parts if part in ways), "a smaller model")


def _disk_finding(plan: RunPlan) -> Finding:
    disk = plan.disk
    said = (
        f"a checkpoint takes {gigabytes(disk.checkpoint)}, all of the run up to {gigabytes(disk.peak)}; "
        f"{gigabytes(plan.disk_free)} are free"
    )
    advice = "free some, lower checkpoint.keep_last, or give another hydra.run.dir"
    if disk.checkpoint > plan.disk_free:
        return trouble("disk", said, advice)
    return warning("disk", said, advice) if disk.peak > plan.disk_free else ok("disk", said)


def gigabytes(size: float) -> str:
    """In 10⁹ bytes, or 10⁶ where that says more."""
    return f"{size / 1e9:.2f} GB" if size >= 9.5e7 else f"{size / 1e6:.1f} MB"
