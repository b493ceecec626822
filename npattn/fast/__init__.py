"""Other ways to compute primitives of large float arrays: the same numbers, sooner."""
