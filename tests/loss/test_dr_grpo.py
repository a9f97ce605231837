"""Dr. GRPO: a constant length."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pggrpo_cli.loss.dr_grpo import DrGrpo
from tests.loss.batches import CLIP, KL, check_all, make_batch, value

FIELDS: dict[str, Any] = {**CLIP, **KL}


def test_the_equation_by_hand() -> None:
    logprobs, batch = make_batch()
    assert batch.old_logprobs is not None
    expected = 0.0
    for token, row in enumerate(batch.sequence_index.tolist()):
        advantage, length = float(batch.advantages[row]), int(batch.lengths[row])
        ratio = math.exp(float(logprobs[token] - batch.old_logprobs[token]))
        surrogate = min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
        expected -= surrogate / (4 * batch.max_new_tokens)
        assert length > 0
    assert math.isclose(float(value(DrGrpo(**FIELDS), logprobs, batch)), expected, rel_tol=1e-12)


@pytest.mark.parametrize("changes", [{}, {"kl_coef": 0.2}, {"entropy_coef": 0.3}, {"nll_coef": 0.4}])
def test_what_holds_for_every_loss(changes: dict[str, Any]) -> None:
    check_all(lambda: DrGrpo(**(FIELDS | changes)))
