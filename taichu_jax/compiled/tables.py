"""A report as tables for the terminal, and as a row of Markdown."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from taichu_jax.compiled.chips import GIB
from taichu_jax.compiled.collectives import totals
from taichu_jax.compiled.program import Report

NAMES = {"opt_state": "optimiser", "params": "parameters", "memory": "objectives' memory"}


def show(report: Report, console: Console | None = None) -> None:
    """Prints everything about one program."""
    console = console or Console()
    table = Table(title=_title(report), title_justify="left", show_header=False)
    table.add_column("", justify="left", no_wrap=True)
    table.add_column("", justify="right")
    for row in rows(report):
        if row is None:
            table.add_section()
        else:
            table.add_row(*row)
    console.print(table)
    console.print(verdict(report), highlight=False)
    for line in report.advice:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    for line in report.warnings:
        console.print(f"  compiler: {line}", highlight=False, markup=False, soft_wrap=True)


def _title(report: Report) -> str:
    mesh = " x ".join(f"{n} {axis}" for axis, n in report.mesh.items() if n > 1) or "one device"
    return f"{report.name} on {report.topology or report.chip}: {mesh}, {report.precision}"


def verdict(report: Report) -> str:
    """'fits: ...' or 'does not fit: ...'."""
    m = report.memory
    share = f"{m.needed / GIB:.2f} of {m.capacity / GIB:.2f} GiB a device"
    return f"fits: {share}" if m.fits else f"does not fit: wants {share}; what to change:"


def rows(report: Report) -> list[tuple[str, str] | None]:
    """What the table says; None for a line between sections."""
    m = report.memory
    result: list[tuple[str, str] | None] = [
        ("number of parameters", f"{report.parameters:,}"),
        ("devices", f"{report.devices} ({report.chip})"),
        None,
    ]
    result += [(NAMES.get(name, name), _gib(size)) for name, size in m.parts.items()]
    if m.compiled:
        padding = m.arguments - sum(m.parts.values())
        result.append(("padding of arguments", _gib(padding)))
        result.append(("outputs that take no argument's place", _gib(m.outputs - m.aliased)))
        result.append(("temporaries", _gib(m.temporaries)))
        result.append(("code", _gib(m.code)))
        result.append(("donated (counted once above)", _gib(m.aliased)))
    result.append(("memory needed", f"{_gib(m.needed)} of {_gib(m.capacity)}"))
    result.append(None)
    result.append(("model FLOPs a step, all devices", _si(report.model_flops)))
    again = report.step_flops / report.model_flops - 1 if report.model_flops else 0.0
    result.append(("computed again (remat)", f"{100 * again:.0f} %"))
    w, e = report.work, report.estimate
    if w is None or e is None or report.xla_flops is None:
        return result
    share = w.flops * report.devices / report.step_flops - 1 if report.step_flops else 0.0
    result.append(("compiled FLOPs a device", _si(w.flops)))
    result.append(("  more than its share of the step", f"{100 * share:.0f} %"))
    result.append(("  by XLA's cost analysis, loops once", _si(report.xla_flops)))
    result.append(("bytes of memory moved a device", _si(w.bytes)))
    if w.unknown_loops:
        result.append(("loops of unknown length, counted once", str(w.unknown_loops)))
    result.append(None)
    for kind, total in sorted(totals(report.found).items()):
        text = f"{total.count:,} x, {_si(total.payload)}B, sent {_si(total.wire)}B"
        result.append((kind, text))
    if not report.found:
        result.append(("collectives", "none"))
    result.append(None)
    for name in ("compute", "memory", "network"):
        result.append((f"{name} time at the peak", _ms(getattr(e, name))))
    result.append((f"step, overlapped (bound by {e.bound})", _ms(e.overlapped)))
    result.append(("step, one after the other", _ms(e.serial)))
    most, least = (f"{100 * u:.0f} %" for u in e.utilisation)
    result.append(("model FLOPs utilisation, at most", f"{most} ({least} without overlap)"))
    result.append(None)
    traced, compiled = report.seconds
    result.append(("time to trace, to compile", f"{traced:.0f} s, {compiled:.0f} s"))
    return result


def _gib(size: int) -> str:
    return f"{size / GIB:.3f} GiB"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.1f} ms"


def _si(number: float) -> str:
    for unit, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number:.3g} "
