"""The comparison with PyTorch: its arithmetic, its mistakes, and two workloads from end to end."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments.speed import compare, machine, startup, table
from experiments.speed import run as speed
from experiments.speed.medians import agree, ratio
from experiments.speed.process import ALLOCATOR, Failed, Side, environment
from experiments.speed.workloads import ALL, WORKLOADS
from taichu_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
CPU = "cpu"
needs_torch = pytest.mark.skipif(
    bool(speed.missing()),
    reason="PyTorch is not installed; see requirements-test.txt",
)


def test_the_ratio_is_that_of_the_medians():
    found = ratio([2.0, 4.0, 9.0], [1.0, 2.0, 100.0])
    assert found.value == 2.0
    assert ratio([3.0] * 5, [2.0] * 5) == (1.5, 1.5, 1.5)


def test_the_interval_of_seven_turns_is_exact():
    """The median of 7 draws is at most the k-th smallest with P(Binomial(7, k / 7) >= 4): 0.010 for
    k = 1 and 0.108 for k = 2, so the 2.5 % quantile is the second, and by symmetry the last but one.
    """
    times = [5.0, 1.0, 7.0, 2.0, 6.0, 3.0, 4.0]
    assert ratio(times, [2.0] * 7) == (2.0, 1.0, 3.0)


def test_turns_stay_together():
    """What slows both sides alike does not widen the interval."""
    load = np.array([1.0, 3.0, 2.0, 9.0, 1.5, 4.0, 2.5])
    assert ratio(list(2 * load), list(load)) == pytest.approx((2, 2, 2))


def test_a_ratio_needs_as_many_times():
    for ours, theirs in (([], []), ([1.0], [1.0, 2.0])):
        with pytest.raises(ValueError, match="as many"):
            ratio(ours, theirs)


def test_losses_agree_within_the_tolerance():
    assert agree(10.009, 10.0, 1e-3) and not agree(10.011, 10.0, 1e-3)
    assert agree(0.0009, 0.0, 1e-3) and not agree(0.0011, 0.0, 1e-3)
    assert not agree(float("nan"), 1.0, 1e-3) and not agree(1.0, float("nan"), 1e-3)


def test_on_a_gpu_networks_have_fused_attention():
    from experiments.speed.ours import with_fused
    from taichu_jax.models.recurrent import RecurrentEncoder
    from taichu_jax.models.text import TextEncoder

    text, recurrent = TextEncoder(vocab_size=9, width=8, depth=1, heads=2), RecurrentEncoder()
    assert text.stack.attention == "plain" and with_fused(text).stack.attention == "fused"
    assert with_fused(recurrent) is recurrent


def flags(**changed):
    given = {"only": "", "size": "tiny", "repeats": "2", "cores": "", "torch": "best", "out": ""}
    first = str(min(machine.cores()))
    return given | {"cores": first} | changed


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"only": "brt"}, "--only=brt: no such workload; did you mean 'bert'"),
        ({"size": "huge"}, "--size=huge: valid: base, tiny"),
        ({"torch": "eagr"}, "--torch=eagr: did you mean 'eager'"),
        ({"repeats": "0"}, "--repeats=0: must be at least 1"),
        ({"repeats": "6", "size": "base"}, "--repeats=6: must be at least 7"),
        ({"repeats": "few"}, "--repeats=few: must be a whole number"),
        ({"cores": "x"}, "--cores=x: 'x' is no core"),
        ({"cores": "4096"}, "--cores=4096: '4096' is no core"),
    ],
)
def test_mistakes(wrong, message):
    with pytest.raises(UserError) as caught:
        speed.check(flags(**wrong), tuple(WORKLOADS), CPU)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_options():
    names, options = speed.check(flags(only="gpt2, bert"), tuple(WORKLOADS), CPU)
    assert names == ["bert", "gpt2"] and options.modes == ("eager", "compile")
    names, options = speed.check(flags(torch="eager"), tuple(WORKLOADS), CPU)
    assert names == list(WORKLOADS) and options.modes == ("eager",) and options.repeats == 2


def test_every_workload_is_described():
    text = (ROOT / "experiments" / "speed" / "README.md").read_text("utf8")
    for workload in ALL:
        assert f"`{workload.name}`" in text, workload.name
        for size in ("tiny", "base"):
            assert workload.units(workload.sizes(size, CPU)) > 0
    assert len(WORKLOADS) == len(ALL)


def test_results_of_another_machine_are_dropped(tmp_path, capsys):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"machine": 1, "size": "tiny", "rows": {"bert": {}}}))
    assert speed.begin(path, {"machine": 1, "size": "tiny"})["rows"] == {"bert": {}}
    assert speed.begin(path, {"machine": 2, "size": "tiny"})["rows"] == {}
    assert "another machine" in capsys.readouterr().out
    path.write_text("[")
    with pytest.raises(UserError, match=r"results\.json"):
        speed.begin(path, {})


def row(ours, theirs, **more):
    return {
        "label": "a net",
        "unit": "tokens",
        "units": 100,
        "goal": 1.0,
        "memory_goal": 1.1,
        "same_work": True,
        "ratio": ratio(ours, theirs)._asdict(),
        "peak": 1e9,
        "ours": {
            "seconds": ours,
            "memory": 12 * 2**20,
            "flops": 2e8,
            "device": "cpu",
            "cold": {"trace": 1.0, "compile": 2.0},
            "warm": {"trace": 0.5, "compile": 0.25},
        },
        "theirs": {"seconds": theirs, "memory": 10 * 2**20, "mode": "eager", "first_step": 3.0},
    } | more


def test_the_table_says_what_was_measured():
    cells = table.cells(row([0.4] * 3, [0.5] * 3), CPU)
    assert cells == [
        "a net",
        "0.4",
        "0.5 (eager)",
        "0.80 (0.80–0.80)",
        "≤ 1",
        "250, 200 tokens",
        "50 %, 40 %",
        "12, 10, 1.20 (≤ 1.1 **missed**)",
        "1.00 + 2.00; 0.50 + 0.25",
        "3.00",
    ]
    slow = table.cells(row([0.6] * 3, [0.5] * 3, same_work=False), CPU)
    assert slow[4] == "≤ 1 **missed**" and slow[6] == "33 %, –"
    card = row([0.4] * 3, [0.5] * 3)
    card["ours"]["device"] = "NVIDIA H100 80GB HBM3"
    card["ours"]["flops"] = 0.4 * 98.94e12
    assert table.cells(card, "gpu")[6] == "10 %, 8 % (MFU)"


def test_the_table_says_what_was_not_measured():
    around = {
        "machine": {"cpu": "a CPU"},
        "versions": {"jax": "1"},
        "flags": {"MALLOC_ARENA_MAX": "1"},
        "cores": [0],
        "size": "tiny",
        "device": CPU,
    }
    commands = {"import x": {"seconds": [3.0, 1.0, 2.0], "goal": 1.0}}
    rows = {
        "a": {"label": "a net", "refused": "first losses differ: ours 1, PyTorch 2"},
        "b": {"label": "b net", "failed": "ours: ended | with code 1"},
        "start": {"commands": commands},
    }
    text = table.markdown(around | {"rows": rows})
    assert "| a net | **refused**: first losses differ: ours 1, PyTorch 2 |" in text
    assert "| b net | **failed**: ours: ended / with code 1 |" in text
    assert "| `import x` | 2.00 | ≤ 1 **missed** |" in text
    assert "a CPU; cores 0; size tiny; jax 1. MALLOC_ARENA_MAX=1" in text
    widths = {
        line.count("|") for line in text.splitlines() if line.startswith("| ") and "net" in line
    }
    assert widths == {len(table.COLUMNS) + 1}


def test_start_is_measured_in_turn(tmp_path):
    cores = (min(machine.cores()),)
    wanted = {"nothing": (["-S", "-c", "pass"], 5.0)}
    found = startup.measure(2, tmp_path, cores, wanted)
    assert len(found["nothing"]["seconds"]) == 2 and found["nothing"]["goal"] == 5.0
    with pytest.raises(Failed, match=r"broken: ended with code 3: ouch"):
        code = "import sys; print('ouch', file=sys.stderr); sys.exit(3)"
        startup.measure(1, tmp_path, cores, {"broken": (["-S", "-c", code], None)})
    labels = startup.commands()
    assert labels["launch/train.py --help"][1] == startup.HELP_GOAL
    assert labels["import taichu_jax"][1] == startup.IMPORT_GOAL


def test_both_sides_have_the_same_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "8")
    found = environment(tmp_path, (0, 1), CPU)
    assert ALLOCATOR.items() <= found.items() and found["OMP_NUM_THREADS"] == "2"
    assert "JAX_NUM_CPU_DEVICES" not in found and found["JAX_PLATFORMS"] == CPU


def test_a_side_that_dies_is_a_row(tmp_path):
    """It never comes so far as to import PyTorch: there is no such workload."""
    job = {"workload": "none", "size": "tiny", "device": CPU, "side": "ours", "folder": "x"}
    with pytest.raises(Failed, match=r"^ours: KeyError: 'none'$"):
        Side(job, tmp_path, tuple(machine.cores()))


@needs_torch
def test_flavas_masked_pairs_are_those_of_transformers():
    """The loss over given places, and FlavaForPreTraining's own forward, which finds them itself."""
    import torch

    from experiments.speed.theirs import tensor

    flava = WORKLOADS["flava"]
    sizes, draw = flava.tiny, np.random.default_rng(0)
    batch, count = flava.batch(sizes), (sizes["side"] // sizes["patch"]) ** 2
    rows = sizes["batch"]
    drawn = {
        "corrupted": draw.integers(0, sizes["vocabulary"], batch["text"].shape),
        "hidden_words": draw.random(batch["text"].shape) < 0.4,
        "hidden_patches": draw.random((rows, count)) < 0.4,
        "source": np.array([0, 3, 2, 3]),
        "codes": draw.integers(0, sizes["codes"], (rows, count)),
    }
    torch.manual_seed(0)
    model = flava.model(sizes)
    inputs = {k: tensor(v) for k, v in flava.inputs(batch, drawn, sizes).items()}
    model.net.global_contrastive_weight = 0
    source = drawn["source"]
    labels = np.where(drawn["hidden_words"], batch["text"], -100)[source]
    with torch.no_grad():
        found = flava.loss(model, inputs)
        whole = model.net(
            input_ids=tensor(batch["text"][source]),
            input_ids_masked=tensor(drawn["corrupted"][source]),
            pixel_values=inputs["pixel_values"],
            bool_masked_pos=tensor(drawn["hidden_patches"]),
            mlm_labels=tensor(labels),
            mim_labels=tensor(drawn["codes"]),
            itm_labels=tensor(np.array([1, 0, 1, 1])),
        )
    losses = whole.loss_info
    assert min(losses.itm, losses.mmm_text, losses.mmm_image) > 0.1
    assert found.item() == pytest.approx(whole.loss.item(), rel=1e-5)


@needs_torch
def test_two_workloads_from_end_to_end(tmp_path):
    """A recurrent net, whose losses agree after an update too, and BERT, whose masks are handed on."""
    core = str(min(machine.cores()))
    command = ["experiments/speed/run.py", "--only=apc_gru,bert", "--size=tiny", "--torch=eager"]
    ended = subprocess.run(
        [sys.executable, *command, "--repeats=2", f"--cores={core}", f"--out={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    results = json.loads((tmp_path / "results.json").read_text("utf8"))
    assert list(results["rows"]) == ["bert", "apc_gru"]
    for found in results["rows"].values():
        ours, theirs = found["first_losses"]
        assert ours == pytest.approx(theirs, rel=compare.TOLERANCE) and ours > 0.1
        assert 0 < found["ratio"]["low"] <= found["ratio"]["value"] <= found["ratio"]["high"]
        assert len(found["ours"]["seconds"]) == len(found["theirs"]["seconds"]) == 2
        assert found["ours"]["flops"] > 0 and found["peak"] > 1e6
        assert min(found["ours"]["memory"], found["theirs"]["memory"]) > 2**20
        assert found["ours"]["warm"]["compile"] < found["ours"]["cold"]["compile"]
    assert table.markdown(results) == (tmp_path / "table.md").read_text("utf8")
