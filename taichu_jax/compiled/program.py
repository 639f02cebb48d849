"""Compiles a config's real train step for devices that need not be there, and reads the result."""

from __future__ import annotations

import dataclasses
import re
import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from taichu_jax.compiled import hlo, memory, topology
from taichu_jax.compiled.advice import advice, without_remat
from taichu_jax.compiled.collectives import Collective, collectives, totals
from taichu_jax.compiled.memory import Memory
from taichu_jax.compiled.products import product_flops
from taichu_jax.compiled.roofline import Estimate, estimate
from taichu_jax.compiled.work import Work, work
from taichu_jax.training.experiment import Experiment
from taichu_jax.training.sharding import batch_sharding

LARGEST = 8  # collectives that a report lists one by one


@dataclasses.dataclass(frozen=True)
class Report:
    """All that is known of one program. Numbers are of one device and one step if nothing else is said.

    Attributes:
      topology: its name; empty for devices of this machine.
      chip, devices: the chip's name and the number of devices.
      mesh: axis -> devices.
      precision: of the networks.
      parameters: how many the model has.
      model_flops: products of the model, all devices, nothing computed twice.
      step_flops: the same with what rematerialisation computes again.
      memory: what it needs.
      advice: what to change if it does not fit.
      work, xla_flops, found, estimate: None and empty if it does not fit.
      warnings: what the compiler said about resharding by copying whole arrays.
      seconds: of tracing and of compiling.
    """

    name: str
    topology: str
    chip: str
    devices: int
    mesh: dict[str, int]
    precision: str
    parameters: int
    model_flops: float
    step_flops: float
    memory: Memory
    advice: list[str]
    work: Work | None
    xla_flops: float | None
    found: list[Collective]
    estimate: Estimate | None
    warnings: list[str]
    seconds: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values; collectives as totals by kind and the largest ones."""
        plain = dataclasses.asdict(self)
        largest = sorted(self.found, key=lambda c: -c.times * c.wire)[:LARGEST]
        plain["found"] = {
            "totals": {k: dataclasses.asdict(v) for k, v in sorted(totals(self.found).items())},
            "largest": [dataclasses.asdict(c) for c in largest],
        }
        plain["memory"]["fits"] = self.memory.fits
        return plain


def for_topology(config: ConfigDict, name: str) -> tuple[Report, str]:
    """Compiles for a TPU slice, in bfloat16 unless the config asks for another precision.

    Returns:
      (report, the compiled program's text, empty if there is none).
    """
    config = config.copy_and_resolve_references()
    if config.precision == "auto":  # would look at this machine, not at the slice
        config.precision = "bfloat16"
    return for_devices(config, topology.devices_of(name), name)


def for_devices(config: ConfigDict, devices: list, name: str = "") -> tuple[Report, str]:
    """Compiles for these devices; as `for_topology`."""
    chip = topology.chip_of(devices)
    experiment = Experiment.from_config(config, devices=devices)
    batch = abstract_batch(experiment)
    state = experiment.abstract_state()
    used = experiment.mesh.devices.size
    started = time.monotonic()
    lowered, step_flops = _lower(experiment)
    plain = without_remat(config)
    model_flops = step_flops
    if plain != config:
        model_flops = _lower(Experiment.from_config(plain, devices=devices), lower=False)[1]
    traced = time.monotonic() - started
    parts = memory.parts_of(state, batch)
    capacity = chip.hbm // chip.devices
    started = time.monotonic()
    compiled, needs, warnings = _compile(lowered, parts, capacity)
    common = {
        "name": config.name,
        "topology": name,
        "chip": chip.name,
        "devices": used,
        "mesh": dict(experiment.mesh.shape),
        "precision": str(experiment.compute_dtype or "float32"),
        "parameters": sum(int(np.prod(x.shape)) for x in jax.tree.leaves(state.params)),
        "model_flops": model_flops,
        "step_flops": step_flops,
        "memory": needs,
        "advice": advice(experiment, devices, needs),
        "warnings": warnings,
        "seconds": (traced, time.monotonic() - started),
    }
    if compiled is None:
        return Report(**common, work=None, xla_flops=None, found=[], estimate=None), ""
    text = compiled.as_text()
    module = hlo.parse(text)
    done, found = work(module), collectives(module, used)
    report = Report(
        **common,
        work=done,
        xla_flops=compiled.cost_analysis()["flops"],
        found=found,
        estimate=estimate(
            chip,
            flops=done.flops,
            moved=done.bytes,
            sent=sum(c.times * c.wire for c in found),
            model_flops=model_flops,
            devices=used,
        ),
    )
    return report, text


def abstract_batch(experiment: Experiment) -> Any:
    """Shapes and shardings of a step's batch."""
    where = batch_sharding(experiment.mesh)
    return jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), experiment.batch_shapes()
    )


def _lower(experiment: Experiment, lower: bool = True) -> tuple[Any, float]:
    """The step before the compiler, and the floating-point operations that it asks for."""
    traced = experiment.train_step().trace(experiment.abstract_state(), abstract_batch(experiment))
    return traced.lower() if lower else None, product_flops(traced.jaxpr)


def _compile(lowered: Any, parts: dict[str, int], capacity: int):
    """(program or None, its memory, the compiler's warnings)."""
    with topology.errors_kept() as said:
        try:
            compiled, refusal = lowered.compile(), None
        except jax.errors.JaxRuntimeError as error:
            compiled, refusal = None, error
    warnings = [_shorter(line) for line in said if "rematerialization" in line.lower()]
    if refusal is None:
        return compiled, memory.of_program(compiled.memory_analysis(), parts, capacity), warnings
    needs = memory.of_refusal(str(refusal), parts, capacity)
    if needs is None:
        raise refusal
    return None, needs, warnings


def _shorter(line: str) -> str:
    """A warning without the time and place in XLA's sources, so that runs can be compared."""
    return re.sub(r"^[A-Z]\d+ .*?\] ", "", line)[:400]
