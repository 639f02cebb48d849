"""Using what was trained: decoding, synthesis."""
