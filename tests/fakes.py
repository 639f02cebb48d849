"""Networks that return what a test tells them to, so that a loss can be checked to the last digit."""

from __future__ import annotations

import jax.numpy as jnp


class FakeNets:
    """Calls plain functions in place of networks and remembers what they were given.

    Args:
      functions: network name (or 'name.method') -> function of the call's arguments.
    """

    step = jnp.int32(0)

    def __init__(self, **functions):
        self.functions = {name.replace("__", "."): f for name, f in functions.items()}
        self.calls = []  # (name, args, kwargs), in order

    def __call__(self, name, *args, method=None, **kwargs):
        name = f"{name}.{method}" if method else name
        self.calls.append((name, args, kwargs))
        return self.functions[name](*args, **kwargs)

    def frozen(self, name, *args, method=None, **kwargs):
        """Remembered as 'name.method, frozen'."""
        name = f"{name}.{method}" if method else name
        self.calls.append((f"{name}, frozen", args, kwargs))
        return self.functions[name](*args, **kwargs)

    def asked(self, name):
        """(args, kwargs) of the only call of a network."""
        ((_, args, kwargs),) = [call for call in self.calls if call[0] == name]
        return args, kwargs
