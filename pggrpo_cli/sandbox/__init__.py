"""Programs that a model wrote, run where they can do no harm. docs/sandbox.md says what is kept from them, and how it is tested."""
