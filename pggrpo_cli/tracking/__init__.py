"""Trackers (wandb, mlflow, trackio), each in a process of its own: training never waits for one."""
