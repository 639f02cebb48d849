"""experiments/scale: its table is that of its results, and says of every big config whether it fits."""

import json
import pathlib

from experiments.scale import run, table
from tests.conftest import ROOT

HERE = ROOT / "experiments" / "scale"


def results():
    return json.loads((HERE / "results.json").read_text("utf8"))


def test_the_table_is_that_of_the_results(tmp_path):
    table.write(results(), tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text("utf8") == (HERE / "table.md").read_text("utf8")


def test_every_program_has_its_result_and_fits():
    wanted = {
        f"{pathlib.Path(config).stem} {topology} {' '.join(changes)}".strip()
        for config, topology, changes in run.PROGRAMS
    }
    found = results()
    assert set(found) == wanted
    for name, report in found.items():
        assert report["memory"]["fits"], name
        assert report["work"]["unknown_loops"] == 0, name
        assert report["precision"] == "bfloat16", name


def test_compiled_work_is_what_the_step_asks_for():
    """Nothing is computed on two devices that one could do alone, within a twentieth."""
    for name, report in results().items():
        done = report["work"]["flops"] * report["devices"]
        assert 0.95 < done / report["step_flops"] < 1.05, name


def test_a_program_that_does_not_fit_is_a_row_too(tmp_path):
    report = next(iter(results().values()))
    report["memory"] |= {"fits": False, "needed": 2 * report["memory"]["capacity"]}
    report |= {"work": None, "estimate": None, "found": {"totals": {}, "largest": []}}
    cells = table.row(report)
    assert len(cells) == len(table.COLUMNS)
    assert "does not fit" in cells[5]
