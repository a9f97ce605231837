"""The data set's own pairs."""

from __future__ import annotations

import pytest
import torch

from pggrpo_cli.errors import DataError
from pggrpo_cli.pairing.dataset import Dataset


def test_chosen_first_whatever_the_rewards_say() -> None:
    found = Dataset()(torch.tensor([0.0, 1.0, 1.0, 0.0]), torch.tensor([0, 0, 1, 1]))
    assert found.tolist() == [[0, 1], [2, 3]]


def test_groups_of_another_size_are_refused() -> None:
    with pytest.raises(DataError, match="a group of 3 completions is no pair"):
        Dataset()(torch.zeros(3), torch.tensor([0, 0, 0]))
