"""State, step, loop and what hangs off it."""
