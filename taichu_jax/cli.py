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
