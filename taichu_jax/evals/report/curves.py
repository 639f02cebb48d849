"""Small line charts of a run's metrics, as SVG."""

from __future__ import annotations

import math

import numpy as np

from taichu_jax.evals.report.page import esc

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 280, 118, 34, 16, 8
POINTS = 240  # more than a chart has pixels for is averaged


def chart(name: str, steps: np.ndarray, values: np.ndarray, warn_below: float = -np.inf) -> str:
    """A card with the raw line, a smoothed one over it, and the last smoothed value.

    Args:
      name: 'objective/metric', or a metric of the whole step.
      warn_below: a last value below it stands out.
    """
    good = np.isfinite(values)
    steps, values = steps[good], values[good]
    if values.size == 0:
        return ""
    steps, values = _thin(steps), _thin(values)
    smooth = _smooth(values)
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    pad = 0.04 * (high - low)
    low, high = low - pad, high + pad
    x0, x1 = float(steps[0]), float(max(steps[-1], steps[0] + 1))

    def x(step):
        return LEFT + (step - x0) / (x1 - x0) * (WIDTH - LEFT - 4)

    def y(value):
        share = (value - low) / (high - low)
        return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)

    def line(numbers):
        return "M" + "L".join(f"{x(s):.1f} {y(v):.1f}" for s, v in zip(steps, numbers, strict=True))

    parts = []
    for tick in _ticks(low, high):
        parts.append(
            f'<path class="rule" d="M{LEFT} {y(tick):.1f}H{WIDTH - 4}"/>'
            f'<text x="{LEFT - 5}" y="{y(tick) + 3:.1f}" text-anchor="end">{short(tick)}</text>'
        )
    for step, anchor in ((x0, "start"), (x1, "end")):
        parts.append(
            f'<text x="{x(step):.1f}" y="{HEIGHT - 3}" text-anchor="{anchor}">{step:,.0f}</text>'
        )
    parts.append(f'<path class="raw" d="{line(values)}"/><path class="line" d="{line(smooth)}"/>')
    owner, _, metric = name.rpartition("/")
    metric = metric.replace("_", " ")
    title = f"<small>{esc(owner)}</small> {esc(metric)}" if owner else esc(metric)
    warn = ' class=warn title="collapsing"' if smooth[-1] < warn_below else ""
    return (
        f'<div class="card chart"><h4><span title="{esc(name)}">{title}</span>'
        f"<span{warn}>{short(smooth[-1])}</span></h4>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{esc(name)} over steps">'
        f"{''.join(parts)}</svg></div>"
    )


def short(value: float) -> str:
    """Three significant digits."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
        return text
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def _ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 3
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= rough)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _thin(values: np.ndarray) -> np.ndarray:
    if values.size <= POINTS:
        return values.astype(np.float64)
    return np.array([part.mean() for part in np.array_split(values.astype(np.float64), POINTS)])


def _smooth(values: np.ndarray) -> np.ndarray:
    """Exponential moving average over about a twelfth of the line, without a start-up bias."""
    keep = 1 - 1 / max(1.0, values.size / 12)
    total = weight = 0.0
    result = []
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        result.append(total / weight)
    return np.array(result)
