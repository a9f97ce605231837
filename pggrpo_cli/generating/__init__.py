"""What `pggrpo generate` does: prompts, answers as they grow, whole groups."""
