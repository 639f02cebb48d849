"""launch/compile.py compiles for slices that are not there, and refuses nonsense with one line."""

import importlib.util
import json
import math
import runpy
import sys

import jax
import pytest

from taichu_jax.compiled.chips import CHIPS
from taichu_jax.compiled.hlo import parse
from taichu_jax.compiled.topology import EXAMPLES, devices_of
from taichu_jax.compiled.work import work
from taichu_jax.training.sharding import MeshShape
from tests.conftest import ROOT

COMPILE = str(ROOT / "launch/compile.py")
CONFIG = "configs/vision/mae_stamps.py"
BLOCKS = "tests/compiled/blocks.py"
with_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu (pip install 'jax[tpu]')"
)


@pytest.fixture
def launch(monkeypatch, capfd):
    """Runs the launcher inside this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "120")
    cached = jax.config.jax_enable_compilation_cache

    def launch(*arguments):
        monkeypatch.setattr(sys, "argv", [COMPILE, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(COMPILE, run_name="__main__")
        return ended.value.code, *capfd.readouterr()

    yield launch
    jax.config.update("jax_enable_compilation_cache", cached)


@with_libtpu
@pytest.mark.parametrize("name", [*EXAMPLES.split(", "), "v5e:1x1"])
def test_every_slice_that_is_named_exists(name):
    mesh = MeshShape().make(devices_of(name))
    size = math.prod(map(int, name.partition(":")[2].split("x")))
    assert mesh.size == size * CHIPS[mesh.devices.flat[0].device_kind].devices


@with_libtpu
def test_a_config_on_a_slice(launch, tmp_path):
    file = tmp_path / "report.json"
    code, said, errors = launch(
        *("--config", BLOCKS, "--config.networks.blocks.depth=1", "--topology", "v5e:2x2"),
        *("--config.mesh.fsdp=2", "--json", file, "--text", tmp_path),
    )
    assert (code, errors) == (0, "")
    assert "blocks on v5e:2x2: 2 data x 2 fsdp, bfloat16" in said
    assert "fits: " in said
    (report,) = json.loads(file.read_text("utf8"))
    assert (report["chip"], report["devices"], report["precision"]) == ("TPU v5e", 4, "bfloat16")
    m = report["memory"]
    assert m["fits"]
    assert m["capacity"] == 16 * 2**30
    assert m["aliased"] >= sum(v for k, v in m["parts"].items() if k != "batch")
    assert m["needed"] == (
        m["arguments"] + m["outputs"] - m["aliased"] + m["temporaries"] + m["code"]
    )
    # The compiled devices do together what the step asks for, and nothing twice.
    assert report["work"]["flops"] * 4 == pytest.approx(report["model_flops"], rel=0.02)
    assert report["model_flops"] == report["step_flops"]
    assert report["work"]["flops"] <= report["xla_flops"]
    assert report["found"]["totals"]["all-gather"]["payload"] > 0
    assert {c["group"] for c in report["found"]["largest"]} <= {2, 4}
    text = (tmp_path / "blocks_v5e_2x2.hlo").read_text("utf8")
    assert work(parse(text)).flops == report["work"]["flops"]
    assert 0 < report["estimate"]["utilisation"][1] < report["estimate"]["utilisation"][0] <= 1


NONSENSE = [
    (("--config", CONFIG), "--topology NAME is needed"),
    (("--config", CONFIG, "--topology"), "--topology: needs a value"),
    (("--topology", "v5e:2x2"), "--config FILE is needed"),
    (("--config", CONFIG, "--topology", "v5e:2x2", "--jsn", "x"), "did you mean '--json'?"),
    (("--config", CONFIG, "--topology", "v5e:2x2", "--json", "/no/x"), "there is no folder /no"),
]
NEEDS_LIBTPU = [
    (("--config", CONFIG, "--topology", "v9:2x2"), "--topology v9:2x2: "),
    (("--config", CONFIG, "--topology", "v5e"), "valid are for example v5e:16x16"),
    (("--config", CONFIG, "--topology=v5e:3x3"), "not divisible"),
    (
        ("--config", CONFIG, "--topology=v5e:2x2", "--config.mesh.fsdp=3"),
        "does not divide the 4 devices",
    ),
]


@pytest.mark.parametrize(("arguments", "expected"), NONSENSE)
def test_nonsense_is_refused_in_one_line(launch, arguments, expected):
    code, said, errors = launch(*arguments)
    assert (code, said, errors.count("\n")) == (2, "", 1)
    assert expected in errors


@with_libtpu
@pytest.mark.parametrize(("arguments", "expected"), NEEDS_LIBTPU)
def test_slices_and_meshes_that_cannot_be(launch, arguments, expected):
    code, said, errors = launch(*arguments)
    assert (code, said, errors.count("\n")) == (2, "", 1)
    assert expected in errors


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_libtpu_it_says_what_to_install(launch):
    code, said, errors = launch("--config", CONFIG, "--topology", "v5e:2x2")
    assert (code, said, errors.count("\n")) == (2, "", 1)
    assert "pip install 'jax[tpu]'" in errors
