"""A few hundred damaged files: read, or refused with a reason (experiments/faults/fuzz.py)."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from experiments.faults import fuzz

SLOW = {"svg": 6, "record": 12, "units": 20, "manifest": 20}  # fewer cases of these


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    return folder, fuzz.originals(folder)


def test_originals_are_read(files):
    folder, kinds = files
    for kind, originals in kinds.items():
        for name, data in originals:
            assert fuzz.read(fuzz.Case(0, kind, name, data), folder) == "decoded", (kind, name)


@pytest.mark.parametrize("kind", sorted(fuzz._READERS))
def test_damaged_files_are_read_or_refused(files, kind):
    folder, kinds = files
    outcomes = collections.Counter(
        fuzz.read(fuzz.one(kinds, 1234, number, kind), folder)
        for number in range(SLOW.get(kind, 30))
    )
    assert outcomes["refused"] and set(outcomes) <= {"decoded", "refused"}


def test_a_case_depends_on_its_number_alone(files):
    _, kinds = files
    first = list(fuzz.cases(kinds, 5, 40))
    assert first == list(fuzz.cases(kinds, 5, 60))[:40]
    assert len({case.data for case in first}) > 35
    names = sorted(kinds)
    assert fuzz.one(kinds, 5, 33, names[33 % len(names)]) == first[33]


def test_failures_are_found_and_kept(monkeypatch, tmp_path, files):
    class Broken:
        def __init__(self, *_):
            self._rng = np.random.default_rng(0)

        def outcome(self, case):
            return "KeyError: 'x'" if case.number == 3 else "refused"

        def close(self):
            return

    monkeypatch.setattr(fuzz, "_Reader", Broken)
    result = fuzz.run(6, 9, 1.0, tmp_path / "kept")
    assert [(f["seed"], f["case"], f["what"]) for f in result["failures"]] == [
        (9, 3, "KeyError: 'x'")
    ]
    assert len(list((tmp_path / "kept").iterdir())) == 1
    assert sum(sum(row.values()) for row in result["counts"].values()) == 6


def test_a_reader_outlives_what_kills_and_what_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "_child", _fragile)
    reader = fuzz._Reader(tmp_path, 1.0)
    die, hang, fine = (fuzz.Case(0, name, "", b"") for name in ("die", "hang", "fine"))
    assert reader.outcome(die) == "the process died (-9)"
    assert reader.outcome(hang) == "took longer than 1.0 s"
    reader._seconds = 60.0
    assert reader.outcome(fine) == "decoded"
    reader.close()


def _fragile(folder, pipe):
    import os
    import signal
    import time

    while (case := pipe.recv()) is not None:
        if case.kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if case.kind == "hang":
            time.sleep(100)
        pipe.send("decoded")
