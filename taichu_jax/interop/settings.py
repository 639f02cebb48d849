"""Another library's config.json, read so that what is not supported here is refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from taichu_jax.config import choices
from taichu_jax.errors import UserError

_NEEDED = object()
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
}


class Settings:
    """The values of a config.json.

    Args:
      values: as they were read.
      where: what errors begin with.
    """

    def __init__(self, values: Mapping[str, Any], where: str):
        self.values, self.where = values, where

    def __call__(self, key: str, default: Any = _NEEDED) -> Any:
        """A value; older files lack what had its default."""
        if key not in self.values and default is _NEEDED:
            raise UserError(f"{self.where}: lacks {key}")
        return self.values.get(key, default)

    def only(self, **valid: Any) -> None:
        """Refuses other values than these for keys that are there."""
        for key, value in valid.items():
            found = self.values.get(key, value)
            if found != value:
                raise UserError(f"{self.where}: {key}={found!r} is not supported; valid: {value!r}")

    def number(self, key: str, default: int) -> int:
        """A whole number, where other models have a pair: one side of a square."""
        value = self(key, default)
        if not isinstance(value, int):
            raise UserError(f"{self.where}: {key}={value!r} is not supported; valid: one number")
        return value

    def activation(self, key: str = "hidden_act", default: str = "gelu") -> str:
        """The name that `Style.activation` has for it."""
        name = self(key, default)
        if name not in ACTIVATIONS:
            raise UserError(f"{self.where}: {key}={name!r}; {choices(name, ACTIVATIONS)}")
        return ACTIVATIONS[name]

    def section(self, key: str) -> Settings:
        """A part of it."""
        found = self(key)
        if not isinstance(found, Mapping):
            raise UserError(f"{self.where}: {key} is not a section")
        return Settings(found, f"{self.where}: {key}")


def their_activation(name: str) -> str:
    """The inverse of `Settings.activation`."""
    return next(theirs for theirs, ours in ACTIVATIONS.items() if ours == name)


def expansion(hidden: int, width: int) -> float:
    """The factor that makes `hidden` units of a width: int(factor * width) is exactly `hidden`."""
    factor = hidden / width
    return factor if int(factor * width) == hidden else math.nextafter(factor, math.inf)
