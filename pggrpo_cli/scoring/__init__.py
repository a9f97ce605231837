"""Rewards at work: called here or in processes of their own, checked, gated, weighted and summed."""
