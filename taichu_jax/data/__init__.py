"""Data: fetched, prepared once, then drawn as streams of named numpy fields."""
