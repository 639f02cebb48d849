"""What every launcher does with its arguments and its errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from taichu_jax.errors import UserError


def main(run: Callable[[list[str]], object], help_text: str) -> NoReturn:
    """Runs a launcher and ends the process.

    Exit code 0, or 2 after a UserError, which is one line on stderr. `--help` prints the launcher's
    docstring; launchers import JAX inside `run`, so that the answer is immediate.
    """
    arguments = sys.argv[1:]
    if "--help" in arguments or "-h" in arguments:
        print((help_text or "").strip())
        sys.exit(0)
    try:
        run(arguments)
    except UserError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # before there was anything to save
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def flag(name: str, text: str) -> bool:
    """A flag that is 'true' or 'false'."""
    if text.lower() not in ("true", "false"):
        raise UserError(f"--{name}={text}: must be true or false")
    return text.lower() == "true"


def parse(
    arguments: list[str], flags: dict[str, str], switches: tuple[str, ...] = ()
) -> dict[str, str]:
    """`--name value` and `--name=value` over the defaults; a switch alone means 'true'.

    Raises:
      UserError: no such flag, or no value.
    """
    from taichu_jax.config import choices

    values, rest = dict(flags), list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("--") or name[2:] not in values:
            raise UserError(f"{name}: no such flag; {choices(name, [f'--{k}' for k in flags])}")
        if not equals and name[2:] in switches:
            value = "true"
        elif not equals:
            if not rest:
                raise UserError(f"{name}: needs a value")
            value = rest.pop(0)
        values[name[2:]] = value
    return values


def number(name: str, text: str, kind: type[int] | type[float] = int) -> float:
    """A flag that is a number; its range is checked where it is used."""
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise UserError(f"--{name}={text}: must be {what}") from None
