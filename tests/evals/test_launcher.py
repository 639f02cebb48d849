"""launch/evaluate.py refuses nonsense in one line and makes the report again from files alone."""

import importlib.util
import pathlib

import pytest

from taichu_jax.errors import UserError
from tests.evals.test_report import everything, write

FILE = pathlib.Path(__file__).parents[2] / "launch" / "evaluate.py"


def launcher():
    module_spec = importlib.util.spec_from_file_location("launch_evaluate", FILE)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--run DIR is needed"),
        (["--rum", "x"], "did you mean '--run'"),
        (["--run"], "needs a value"),
        (["--run", "x", "--report", "maybe"], "must be true or false"),
        (["--run", "x", "--step=ten"], "must be a number"),
        (["--run=/nonexistent"], "holds no run"),
        (["--run=/nonexistent", "--only=none"], r"results\.json"),
    ],
)
def test_nonsense_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        launcher().run(arguments)


def test_the_report_is_made_again_without_a_checkpoint(tmp_path, capsys):
    path = write(tmp_path, everything(tmp_path))
    before = path.read_text("utf8")
    path.unlink()
    launcher().run(["--run", str(tmp_path), "--only", "none"])
    assert path.read_text("utf8") == before
    assert "report:" in capsys.readouterr().out


def test_progress_estimates_from_the_last_time(tmp_path, capsys):
    from taichu_jax.evals.progress import ASSUMED, Progress

    write(tmp_path, everything(tmp_path))  # each took one second
    with Progress(tmp_path, ("retrieval", "captions", "unknown")) as progress:
        assert progress._left() == pytest.approx(2 + ASSUMED)
        progress.say("retrieval")
    assert "retrieval (1 of 3), about 00:22 left" in capsys.readouterr().out
