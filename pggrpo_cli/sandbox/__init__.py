"""Programs that a model wrote, run where they can do no harm. docs/sandbox.md says what that means, and how it is tested."""
