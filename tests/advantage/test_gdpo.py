"""Each reward standardised by itself: hand numbers, what is missing or constant, TRL's own lines."""

from __future__ import annotations

import ast
import inspect
import math
import statistics
from types import SimpleNamespace

import pytest
import torch

from pggrpo_cli.advantage.gdpo import Gdpo

NAN = math.nan


def advantages(
    terms: list[list[float]], groups: list[int], weights: list[float] | None = None, epsilon: float = 1e-4
) -> list[float]:
    """`terms`: one list a reward."""
    made = torch.tensor(terms, dtype=torch.float64).T
    given = torch.tensor(weights or [1.0] * len(terms), dtype=torch.float64)
    rewards = torch.where(made.isnan().all(1), NAN, (made * given).nansum(1))
    return Gdpo(epsilon=epsilon)(rewards, made, given, torch.tensor(groups)).tolist()


def standardised(values: list[float], epsilon: float) -> list[float]:
    centre, std = statistics.mean(values), statistics.stdev(values)
    return [(value - centre) / (std + epsilon) for value in values]


def test_by_hand() -> None:
    """One group, two rewards of very different size: their weights alone decide which counts how much."""
    right, style = [1.0, 0.0, 0.0, 1.0], [100.0, 300.0, 200.0, 0.0]
    summed = [2 * a + 0.5 * b for a, b in zip(standardised(right, 1e-4), standardised(style, 1e-4), strict=True)]
    std = statistics.stdev(summed) + 1e-4
    assert advantages([right, style], [0] * 4, [2.0, 0.5]) == pytest.approx([value / std for value in summed])


def test_numbers_written_out() -> None:
    """Without epsilon: each column is ±1/√2, sums are √2, −√2, 0, 0 and their deviation √(4/3)."""
    found = advantages([[1, 0, 5, 3], [9, 7, 0, 2]], [0, 0, 1, 1], epsilon=0.0)
    assert found == pytest.approx([math.sqrt(1.5), -math.sqrt(1.5), 0.0, 0.0])


def test_a_weight_is_not_undone_and_a_scale_is() -> None:
    one, two = [1.0, 0.0, 0.5], [0.0, 3.0, 1.0]
    scaled = advantages([[1000 * value for value in one], two], [0] * 3, [1.0, 2.0], epsilon=0.0)
    assert scaled == pytest.approx(advantages([one, two], [0] * 3, [1.0, 2.0], epsilon=0.0))
    assert scaled != pytest.approx(advantages([one, two], [0] * 3, [1.0, 1.0], epsilon=0.0))


def test_missing_terms_are_left_out() -> None:
    """The second reward is there for two of the three: their own mean and deviation."""
    found = advantages([[1, 2, 3], [NAN, 5, 7]], [0] * 3, epsilon=0.0)
    summed = [-1.0, 0 - math.sqrt(0.5), 1 + math.sqrt(0.5)]
    std = math.sqrt(sum(value**2 for value in summed) / 2)
    assert found == pytest.approx([value / std for value in summed])


@pytest.mark.fault("T24")
def test_what_is_constant_or_missing_gives_exactly_zero() -> None:
    assert advantages([[1, 0, NAN], [NAN, NAN, NAN]], [0] * 3)[2] == 0
    assert advantages([[1, 0, 0.1 + 0.2, 0.3]], [0, 0, 1, 1])[2:] == [0, 0]
    assert advantages([[7, 7], [0.3, 0.1 + 0.2]], [0, 0], epsilon=0.0) == [0, 0]
    assert advantages([[NAN, NAN]], [0, 0]) == [0, 0]
    assert advantages([[4.0]], [0], epsilon=0.0) == [0]
    # the first is constant, so the second alone counts
    assert advantages([[7, 7], [1, 0]], [0, 0]) == pytest.approx(advantages([[1, 0]], [0, 0]))


def test_terms_that_cancel_are_no_signal() -> None:
    assert advantages([[0.1, 0.2, 0.7], [0.7, 0.6, 0.1]], [0] * 3, epsilon=0.0) == [0, 0, 0]


@pytest.mark.oracle
@pytest.mark.parametrize("missing", [False, True])
def test_trl(missing: bool) -> None:
    """TRL's own branch, taken out of its method and run on our numbers."""
    from trl import GRPOTrainer
    from trl.trainer.utils import nanstd

    generator = torch.Generator().manual_seed(1)
    terms = torch.randn(12, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 50.0, 0.1])
    terms[4:8, 0] = 0.5
    if missing:
        terms[[1, 2, 9], [0, 2, 1]] = NAN
        terms[5] = NAN
    unscorable = terms.isnan().all(1)
    weights = torch.tensor([1.0, 0.3, 2.0], dtype=torch.float64)
    source = inspect.getsource(inspect.getmodule(GRPOTrainer))  # type: ignore[arg-type]
    (branch,) = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.If)
        and ast.unparse(node.test) == "self.multi_objective_aggregation == 'normalize_then_sum'"
    )
    names = {
        **{"torch": torch, "nanstd": nanstd, "rewards_per_func": terms, "num_generations": 4, "device": "cpu"},
        **{"self": SimpleNamespace(reward_funcs=[0, 1, 2], reward_weights=weights), "unscorable_mask": unscorable},
    }
    exec(compile(ast.Module(branch.body, []), "trl", "exec"), names)
    theirs = torch.nan_to_num(names["advantages"], nan=0.0)  # type: ignore[arg-type]
    rewards = torch.where(unscorable, NAN, (terms * weights).nansum(1))
    ours = Gdpo(epsilon=1e-4)(rewards, terms, weights, torch.arange(3).repeat_interleave(4))
    assert torch.allclose(ours, theirs, atol=1e-9)
    assert ours.abs().max() > 0.5
