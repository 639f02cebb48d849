"""Vector drawings to pixels, by a process of its own (svg_renderer.py says why)."""

import signal
import subprocess
import sys
from pathlib import Path

from taichu_jax.data.items import Damaged

_PROGRAM = Path(__file__).with_name("svg_renderer.py")
_PATIENCE = 300  # seconds; the process itself stops after far fewer of processor time


def rasterise(drawing: bytes, longest: int) -> bytes:
    """PNG of an SVG, its longer side `longest` pixels.

    References to other files and addresses are not followed: what they would show is missing.

    Raises:
      Damaged: not an SVG, or one that takes too much time, memory or depth.
    """
    command = [sys.executable, "-I", str(_PROGRAM), str(longest)]
    try:
        done = subprocess.run(command, input=drawing, capture_output=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise Damaged("picture cannot be decoded (drawing it takes too long)") from error
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise Damaged("picture cannot be decoded (drawing it takes too long)")
    if done.returncode < 0:
        raise Damaged("picture cannot be decoded (drawing it takes too much memory or depth)")
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise Damaged(f"picture cannot be decoded ({reason[-1]})")
    return done.stdout
