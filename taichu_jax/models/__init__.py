"""Flax modules; each returns plain arrays or an `Encoded`."""
