"""Objectives on pictures, words and voices together."""
