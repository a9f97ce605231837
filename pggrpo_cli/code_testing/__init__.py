"""Programs against tests that they cannot see: the formats of tests, and the running of them."""
