"""Renders one SVG, from standard input to a PNG on standard output: `svg_renderer.py LONGEST_SIDE`.

A program of its own, run by svg.py: what a drawing from elsewhere makes the renderer do (open files,
take memory for a picture as tall as it likes, overflow the stack, never end) happens to this process
only, and is forbidden where the system can forbid it. Imports nothing of the package.
"""

import resource
import sys

import resvg_py

MEMORY = 2**29  # bytes
SECONDS = 10  # of processor time


def main() -> int:
    """Exit code 1: the drawing is not one; the reason is on standard error."""
    longest, drawing = int(sys.argv[1]), sys.stdin.buffer.read()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Not one file or socket more than the three that are open.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    try:
        png = render(drawing.decode("utf8"), longest)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(png)
    return 0


def render(drawing: str, longest: int) -> bytes:
    """PNG whose longer side has that many pixels."""

    def at(width: int | None = None, height: int | None = None) -> bytes:
        # dpi: the default, 0, refuses sizes in pt, cm and mm. System fonts differ between
        # machines, and the data must not.
        return bytes(
            resvg_py.svg_to_bytes(
                svg_string=drawing, width=width, height=height, dpi=96.0, skip_system_fonts=True
            )
        )

    if _height(at(width=1)) == 1:  # else it may be as tall as it likes
        png = at(width=longest)
        if _height(png) <= longest:
            return png
    return at(height=longest)


def _height(png: bytes) -> int:
    return int.from_bytes(png[20:24], "big")


if __name__ == "__main__":
    sys.exit(main())
