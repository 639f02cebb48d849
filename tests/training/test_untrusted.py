"""A run that somebody else made is data: opening it executes, deletes and unpickles nothing."""

import ast
import contextlib
import io
import json
import os
import pathlib
import pickle
import shutil

import pytest

from taichu_jax.config import spec
from taichu_jax.errors import UserError
from taichu_jax.training.checkpoint import load_params, seal
from taichu_jax.training.run import Run
from tests.conftest import ROOT
from tests.training import tiny


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(tiny.finished_run(), tmp_path / "run")


class Planted:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def test_what_is_planted_beside_the_weights_is_not_executed(run, tmp_path):
    trace = tmp_path / "trace"
    pickled = pickle.dumps(Planted(trace))
    code = f"import os; os.mkdir({str(trace)!r})"
    for folder in (run, run / "checkpoints", run / "checkpoints/12", run / "checkpoints/12/params"):
        for name in ("state.pkl", "params.pickle", "data.npy", "model.joblib"):
            (folder / name).write_bytes(pickled)
        for name in ("__init__.py", "conftest.py", "sitecustomize.py", "taichu_config.py"):
            (folder / name).write_text(code)
    seal(run / "checkpoints", 12)
    assert Run.open(run).step == 12
    assert not trace.exists()
    pickle.load(io.BytesIO(pickled))
    assert trace.exists()  # it would have left one


@pytest.mark.parametrize("file", ["params/_METADATA", "_CHECKPOINT_METADATA", "rest/_METADATA"])
def test_metadata_that_is_a_pickle_is_not_read_as_one(run, tmp_path, file):
    trace = tmp_path / "trace"
    path = run / "checkpoints/12" / file
    assert path.is_file()
    path.write_bytes(pickle.dumps(Planted(trace)))
    seal(run / "checkpoints", 12)  # whoever planted it sealed it too
    with contextlib.suppress(Exception):  # Orbax raises what it likes, or does without
        load_params(run)
    assert not trace.exists()


@pytest.mark.parametrize(
    "kind", ["os:system", "subprocess:run", "taichu_jax.training.files:write_whole"]
)
def test_a_saved_config_names_no_function(run, tmp_path, kind):
    saved = json.loads((run / "config.json").read_text())
    evil = {"kind": kind, "command": f"touch {tmp_path}/trace", "path": "x", "text": "x"}
    for section in ("networks", "streams", "objectives", "evaluations"):
        (run / "config.json").write_text(json.dumps(saved | {section: {"x": evil}}))
        with pytest.raises(UserError, match="kind="):
            Run.open(run)
    nested = json.loads(json.dumps(saved))
    nested["optimizer"]["rules"][0] = evil
    (run / "config.json").write_text(json.dumps(nested))
    with pytest.raises(UserError, match="kind="):
        Run.open(run)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["/tmp/victim", "a/b", "", "a b", ".", "~"])
def test_names_that_become_folders_lead_nowhere_else(run, name):
    """The results of an evaluation lie under its name, which is deleted first."""
    saved = json.loads((run / "config.json").read_text())
    mixer = json.loads(json.dumps(spec(tiny.Mixer).to_dict()))
    saved["evaluations"] = {name: mixer}
    (run / "config.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"config.evaluations|config.json: cannot be read"):
        Run.open(run)


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            owner = getattr(function, "value", None)
            yield (
                getattr(owner, "id", ""),
                getattr(function, "attr", getattr(function, "id", "")),
                node,
            )


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


def test_the_code_has_no_way_to_unpickle():
    """PyTorch's files are pickles; the one module that reads them has it look at weights only."""
    files = [*(ROOT / "taichu_jax").rglob("*.py"), *(ROOT / "launch").glob("*.py")]
    reads_torch = ROOT / "taichu_jax/interop/s3prl.py"
    loads = 0
    for file in files:
        tree = ast.parse(pathlib.Path(file).read_text("utf8"))
        forbidden = {
            "pickle",
            "cloudpickle",
            "dill",
            "joblib",
            "marshal",
            "shelve",
            "torch",
            "yaml",
        }
        if file == reads_torch:
            forbidden.remove("torch")
        assert not forbidden & set(imports(tree)), file
        for owner, name, node in calls(tree):
            assert (owner, name) not in {("", "eval"), ("", "exec"), ("", "__import__")}, file
            if owner in ("np", "numpy") and name in ("load", "save"):
                told = {
                    k.arg: ast.literal_eval(k.value)
                    for k in node.keywords
                    if k.arg == "allow_pickle"
                }
                assert told == {"allow_pickle": False}, f"{file}: np.{name}"
                loads += 1
            if (owner, name) == ("torch", "load"):
                told = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert told["weights_only"] == "True", file
                loads += 1
    assert loads >= 4
