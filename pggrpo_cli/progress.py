"""How far a run has come."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Progress:
    """All that the loop itself carries from step to step; a checkpoint holds it whole."""

    step: int = 0
    prompts_consumed: int = 0
    num_tokens: float = 0
    seconds: float = 0
    evaluated: bool = False
    """Whether the evaluation before the first step is done."""
    unevaluated: dict[str, float | None] = field(default_factory=dict)
    """Metrics of `step`, null for what is not finite, whose evaluation is still to be done: a server that scores went
    down. Else empty."""
    best: dict[str, float] = field(default_factory=dict)
    """{"step": …, "value": …} of checkpoint.keep_best; empty before the first."""
    target_met: float | None = None
    """The reward with which the run ended at trainer.target_reward."""
    origin: dict[str, str] = field(default_factory=dict)
    """What the run began with, in digests (origin.py)."""
