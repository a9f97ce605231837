"""Who meets whom."""

from __future__ import annotations

from collections import Counter

import pytest

from pggrpo_cli.scoring.tournament import Comparison, comparisons, shares
from pggrpo_cli.types import ScoreError


@pytest.mark.parametrize("size", range(1, 10))
@pytest.mark.parametrize("opponents", range(1, 6))
def test_everybody_meets_the_same_number_of_others_in_both_orders(size: int, opponents: int) -> None:
    found = comparisons([7] * size, opponents)
    assert len(set(found)) == len(found)
    assert {one.turned() for one in found} == set(found)
    assert all(one.first != one.second for one in found)
    wanted = min(opponents, size - 1)
    wanted += size % 2 and wanted % 2
    assert Counter(one.first for one in found) == dict.fromkeys(range(size) if wanted else [], wanted)


def test_groups_do_not_meet() -> None:
    assert set(comparisons([0, 1, 0, 1, 2], 3)) == {
        *(Comparison(0, 2), Comparison(2, 0), Comparison(1, 3), Comparison(3, 1)),
    }


def test_shares_by_hand() -> None:
    a, b, c = Comparison(0, 1), Comparison(1, 2), Comparison(0, 2)
    worth = {a: 1.0, a.turned(): 0.0, b: 0.5, b.turned(): 1.0, c: 0.0, c.turned(): 0.0}
    # Of four comparisons each, 0 wins both against 1 and one against 2; 1 has a tie against 2 and nothing else.
    assert shares(4, worth) == [0.75, 0.125, 0.625, None]
    assert sum(share for share in shares(3, worth) if isinstance(share, float)) == 1.5
    error = ScoreError(message="no")
    assert shares(2, {a: 1.0, a.turned(): error}) == [error, error]
