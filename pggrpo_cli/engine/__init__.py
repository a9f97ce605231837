"""The rollout engine: prompts once a group, one flat row of live tokens a step, keyed draws."""
