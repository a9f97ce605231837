"""Our losses against TRL 1.16's own code: the same log-probabilities in float64, loss and gradient to 1e-9.

TRL's methods are called unbound on an object that has only what they read; the model's part is played by tensors.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pggrpo_cli.loss.cispo import Cispo
from pggrpo_cli.loss.dapo import Dapo
from pggrpo_cli.loss.dpo import Dpo
from pggrpo_cli.loss.dr_grpo import DrGrpo
from pggrpo_cli.loss.grpo_token import GrpoToken
from pggrpo_cli.loss.gspo import Gspo
from pggrpo_cli.loss.hinge import Hinge
from pggrpo_cli.loss.ipo import Ipo
from pggrpo_cli.metrics import values
from pggrpo_cli.types import TrainBatch
from tests.loss.batches import CLIP, KL, entropies, gradient, make_batch, scores, value

pytestmark = pytest.mark.oracle

WIDTH = 6
WIDE: dict[str, Any] = {**CLIP, "clip_high": 0.28}
ONLINE: dict[str, tuple[Any, dict[str, Any]]] = {
    "grpo_token": (GrpoToken(**CLIP, **KL), {"loss_type": "grpo"}),
    "dapo": (Dapo(**WIDE, **KL), {"loss_type": "dapo", "epsilon_high": 0.28}),
    "dapo with kl": (Dapo(**WIDE, **(KL | {"kl_coef": 0.1})), {"loss_type": "dapo", "epsilon_high": 0.28, "beta": 0.1}),
    "dr_grpo": (DrGrpo(**CLIP, **KL), {"loss_type": "dr_grpo"}),
    "gspo": (Gspo(**CLIP, **KL), {"loss_type": "grpo", "importance_sampling_level": "sequence"}),
    "cispo": (Cispo(ratio_max=1.1, **KL), {"loss_type": "cispo", "epsilon_high": 1.1}),
}
OFFLINE: dict[str, tuple[Any, str]] = {
    "dpo": (
        Dpo(beta=0.3, label_smoothing=0.0, length_normalized=False, reference_free=False, nll_coef=0.0),
        "sigmoid",
    ),
    "dpo length_normalized": (
        Dpo(beta=0.3, label_smoothing=0.0, length_normalized=True, reference_free=False, nll_coef=0.0),
        "sigmoid_norm",
    ),
    "ipo length_normalized": (Ipo(beta=0.3, length_normalized=True), "ipo"),
    "hinge": (Hinge(beta=0.3, length_normalized=False), "hinge"),
}


def rectangle(tokens: torch.Tensor, batch: TrainBatch, order: list[int] | None = None) -> torch.Tensor:
    """[T] → [B, WIDTH], right-padded with zeros, rows in `order`."""
    rows = []
    for row in order or range(len(batch.lengths)):
        own = tokens[batch.sequence_index == row]
        rows.append(torch.cat([own, own.new_zeros(WIDTH - own.shape[0])]))
    return torch.stack(rows)


def accelerator() -> SimpleNamespace:
    same = lambda tensor, **_: tensor  # noqa: E731
    return SimpleNamespace(
        num_processes=1, gather=same, gather_for_metrics=same, reduce=same, device=torch.device("cpu")
    )


def bare(cls: type, **attributes: Any) -> Any:
    made = object.__new__(cls)
    made.__dict__.update(
        aux_loss_enabled=False,
        accelerator=accelerator(),
        model=SimpleNamespace(training=True),
        _metrics={"train": defaultdict(list)},
        **attributes,
    )
    return made


@pytest.mark.parametrize("name", ONLINE)
def test_online_losses(name: str) -> None:
    from trl import GRPOTrainer

    loss, options = ONLINE[name]
    logprobs, batch = make_batch()
    settings = {"epsilon_low": 0.2, "epsilon_high": 0.2, "beta": 0.0, "importance_sampling_level": "token"} | options
    trainer = bare(
        GRPOTrainer,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        max_completion_length=batch.max_new_tokens,
        _entropy_bonus_enabled=False,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        **settings,
    )
    answers = (rectangle(logprobs, batch), rectangle(entropies(batch), batch), None)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: answers
    assert batch.old_logprobs is not None
    assert batch.ref_logprobs is not None
    mask = rectangle(torch.ones_like(logprobs), batch)
    nothing = torch.zeros(len(batch.lengths), 1, dtype=torch.long)
    inputs = {
        "prompt_ids": nothing,
        "prompt_mask": nothing,
        "completion_ids": mask.long(),
        "completion_mask": mask,
        "advantages": batch.advantages,
        "old_per_token_logps": rectangle(batch.old_logprobs, batch),
        "ref_per_token_logps": rectangle(batch.ref_logprobs, batch),
        "num_items_in_batch": torch.tensor(float(batch.num_tokens)),
    }
    theirs = GRPOTrainer._compute_loss(trainer, None, inputs)
    assert abs(float(theirs - value(loss, logprobs, batch))) < 1e-9
    assert (torch.autograd.grad(theirs, logprobs)[0] - gradient(loss, logprobs, batch)).abs().max() < 1e-9
    ours = values(loss(scores(logprobs, batch), batch).metrics)
    logged = trainer._metrics["train"]
    for key in {"kl", "entropy", "clip_ratio/low_mean", "clip_ratio/high_mean"} & logged.keys() & ours.keys():
        assert ours[key] == pytest.approx(logged[key][0], abs=1e-6), key


@pytest.mark.parametrize("name", OFFLINE)
def test_preference_losses(name: str) -> None:
    from trl import DPOTrainer

    loss, kind = OFFLINE[name]
    logprobs, batch = make_batch()
    order = [0, 2, 1, 3]  # TRL stacks all chosen, then all rejected
    assert batch.ref_logprobs is not None
    own = rectangle(logprobs, batch, order)
    reference = [float(batch.ref_logprobs[batch.sequence_index == row].sum()) for row in order]
    completion_mask = torch.cat([torch.zeros(4, 1), rectangle(torch.ones_like(logprobs), batch, order)], dim=1).long()
    outputs = SimpleNamespace(
        log_probs=own, entropy=torch.zeros_like(own), mean_logits=torch.zeros_like(own), is_top1=own > 0
    )
    trainer = bare(
        DPOTrainer,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[kind],
        loss_weights=[1.0],
        beta=0.3,
        label_smoothing=0.0,
        use_weighting=False,
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": completion_mask,
        "attention_mask": completion_mask,
        "completion_mask": completion_mask,
        "ref_chosen_logps": torch.tensor(reference[:2], dtype=torch.float64),
        "ref_rejected_logps": torch.tensor(reference[2:], dtype=torch.float64),
    }
    theirs = DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, False)
    assert abs(float(theirs - value(loss, logprobs, batch))) < 1e-9
    assert (torch.autograd.grad(theirs, logprobs)[0] - gradient(loss, logprobs, batch)).abs().max() < 1e-9
    ours = values(loss(scores(logprobs, batch), batch).metrics)
    if "length" not in name:
        for key in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen"):
            assert ours[key] == pytest.approx(trainer._metrics["train"][key][0], abs=1e-6), key


def test_the_comparison_can_fail() -> None:
    """A loss with another clip range is not TRL's."""
    logprobs, batch = make_batch()
    one, other = ONLINE["dapo"][0], replace(ONLINE["dapo"][0], clip_high=0.2)
    assert abs(float(value(one, logprobs, batch) - value(other, logprobs, batch))) > 1e-6
