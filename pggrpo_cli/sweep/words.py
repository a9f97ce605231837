"""What tells the jobs of a sweep apart, in few words."""

from __future__ import annotations

import re
from collections.abc import Sequence

LONG_NUMBER = re.compile(
    r"(?<![\w.])-?\d+\.\d{6,}(?:[eE][-+]?\d+)?(?![\w.])|(?<![\w.])-?\d\.\d{5,}[eE][-+]?\d+(?![\w.])"
)
"""As a search draws it, with all 17 digits."""


def telling(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Of each job's overrides those that not all have, as one text, numbers shortened; of equal ones all."""
    of_all = set(jobs[0]).intersection(*jobs) if jobs else set()
    return shortened([" ".join([word for word in words if word not in of_all] or words) for words in jobs])


def shortened(texts: Sequence[str]) -> list[str]:
    """With four digits of each long number, unless that made two texts alike that are not."""
    short = [LONG_NUMBER.sub(lambda found: four_digits(float(found[0])), text) for text in texts]
    return short if len(set(short)) == len(set(texts)) else list(texts)


def four_digits(value: float) -> str:
    """0.1295, 3.75e-5."""
    return re.sub(r"e([-+])0*", lambda found: "e-" if found[1] == "-" else "e", f"{value:.4g}")
