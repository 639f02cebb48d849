"""Losses that plug into the train step: one paper, one file."""
