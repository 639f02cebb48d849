"""The config file of the smallest run."""

from tests.training.tiny import get_config

__all__ = ["get_config"]
