"""Sweeps (pggrpo train -m): their jobs as processes, what is on disk of them, and going on with one that stopped."""
