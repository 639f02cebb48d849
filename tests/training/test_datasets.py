"""Data are prepared when they must be, and the first line says which they are."""

import json

import pytest

from taichu_jax.data.streams import Pictures
from taichu_jax.errors import UserError
from taichu_jax.training import datasets
from taichu_jax.training.experiment import defaults
from tests.training import tiny


@pytest.fixture
def prepared(monkeypatch):
    """The calls of `prepare_stamps`."""
    calls = []
    monkeypatch.setattr(datasets, "prepare_stamps", lambda *arguments: calls.append(arguments))
    return calls


def test_prepares_what_is_missing_only_a_sample_or_asked_for(tmp_path, prepared, capsys):
    data = defaults().data
    data.dir = str(tmp_path)
    streams = {"a": Pictures(batch_size=2), "b": Pictures(batch_size=4), "c": tiny.Rows()}
    datasets.prepare_data(streams, data)
    assert prepared == [(str(tmp_path), None)]

    status = tmp_path / "tuxpaint_stamps" / "status.json"
    status.parent.mkdir()
    report = {"name": "tuxpaint_stamps", "fingerprint": "", "splits": {}}
    status.write_text(json.dumps(report | {"kind": "sample", "message": "data: the sample"}))
    datasets.prepare_data(streams, data)
    assert len(prepared) == 2

    status.write_text(json.dumps(report | {"kind": "package", "message": "data: the package"}))
    datasets.prepare_data(streams, data)
    assert len(prepared) == 2
    assert capsys.readouterr().out == "data: the package\n"

    data.source = "stamps"
    datasets.prepare_data(streams, data)
    assert prepared[2:] == [(str(tmp_path), "stamps")]


def test_streams_without_a_data_set_need_none(tmp_path, prepared, capsys):
    datasets.prepare_data({"rows": tiny.Rows()}, defaults().data)
    assert prepared == []
    assert capsys.readouterr().out == "data: made by the streams themselves\n"


def test_somebody_elses_data_set_must_be_there(tmp_path, prepared):
    data = defaults().data
    data.dir = str(tmp_path)
    with pytest.raises(
        UserError, match=r"no prepared data set 'mine' in .* --name mine --manifest"
    ):
        datasets.prepare_data({"a": Pictures(batch_size=2, dataset="mine")}, data)
    assert prepared == []
