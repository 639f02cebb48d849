"""launch/train.py trains, and refuses nonsense with one line."""

import os
import pathlib
import runpy
import shutil
import signal
import subprocess
import sys
import time

import pytest

from taichu_jax.training.checkpoint import newest
from tests.conftest import ROOT
from tests.training import tiny

TRAIN = str(ROOT / "launch/train.py")
CONFIG = "tests/training/tiny_config.py"


@pytest.fixture
def launch(monkeypatch, capfd):
    """Runs the launcher inside this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(ROOT)

    def launch(*arguments):
        monkeypatch.setattr(sys, "argv", [TRAIN, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(TRAIN, run_name="__main__")
        return ended.value.code, *capfd.readouterr()

    return launch


def test_trains_and_goes_on(launch, tmp_path):
    arguments = ("--config", CONFIG, "--config.mesh.data=1", f"--run_dir={tmp_path / 'run'}")
    code, said, errors = launch(*arguments)
    assert (code, errors) == (0, "")
    first, second, *_, last = said.splitlines()
    assert first.startswith("data: ")
    assert second == f"run: {tmp_path / 'run'} (new), 64 parameters, float32, cpu"
    assert last == f"done: 12 steps, {tmp_path / 'run'}"
    assert tiny.losses(tmp_path / "run") == tiny.losses(tiny.finished_run())
    code, said, _ = launch(*arguments, "--config.steps", "13")
    assert code == 0
    assert "resumed at step 12" in said
    assert len(tiny.losses(tmp_path / "run")) == 13


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "--config FILE is needed"),
        (("--config", "configs/none.py"), "--config configs/none.py: no such file"),
        (("config",), "config: not a flag; did you mean '--config'?"),
        (
            ("--config", CONFIG, "--rundir", "x"),
            "--rundir: no such flag; did you mean '--run_dir'?",
        ),
        (("--config", CONFIG, "--resume"), "--resume: needs a value"),
        (("--config", CONFIG, "--resume", "maybe"), "--resume=maybe: must be true or false"),
        (
            ("--config", CONFIG, "--config.stepz=3"),
            "--config.stepz: no such key; did you mean 'steps'?",
        ),
        (("--config", CONFIG, "--config.steps=many"), "--config.steps=many: must be int"),
        (("--config", CONFIG, "--config.steps=0"), "config.steps=0: must be at least 1"),
        (("--config", CONFIG, "--config.precision=int8"), "config.precision='int8'"),
        (("--config", CONFIG, "--config.mesh.data=3"), "does not divide the 8 devices"),
        (
            ("--config", CONFIG, "--config.optimizer.learning_rat=1"),
            "did you mean 'learning_rate'?",
        ),
        (
            ("--config", CONFIG, "--config.streams.rows.batch_size=7"),
            "config.streams.rows.batch_size=7: not divisible by 8",
        ),
        (
            ("--config", CONFIG, "--config.objectives.distance.net=mixr"),
            "there is no network 'mixr'; did you mean 'mixer'?",
        ),
        (
            ("--config", CONFIG, "--config.objectives.distance.source=row"),
            "config.objectives.distance.source='row': no such stream; did you mean 'rows'?",
        ),
        (
            ("--config", CONFIG, "--config.networks.mixer.width=5"),
            "config: networks and objectives do not fit",
        ),
        (
            ("--config", CONFIG, "--config.objectives.distance.teacher.restore=/no/run"),
            "config.objectives.distance.teacher.restore: /no/run: holds no checkpoint",
        ),
    ],
)
def test_refuses_with_one_line(launch, tmp_path, arguments, expected):
    if "--config" in arguments and "--resume" not in arguments:
        arguments = ("--run_dir", tmp_path / "run", *arguments)
    code, said, errors = launch(*arguments)
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert expected in errors
    assert "done" not in said


def test_refuses_folders_with_one_line(launch, tmp_path):
    run = shutil.copytree(tiny.finished_run(), tmp_path / "run")
    data = ("--config", CONFIG, "--config.mesh.data=1")
    table = [
        ((*data, "--run_dir", run, "--resume=false"), "run: is not empty; name another run_dir"),
        ((*data, "--run_dir", run, "--config.seed=1"), "with another config: seed: 0 -> 1"),
        ((*data, "--run_dir", "/proc/run"), "/proc/run: cannot be used: No such file or directory"),
    ]
    for arguments, expected in table:
        code, _, errors = launch(*arguments)
        assert (code, errors.count("\n")) == (2, 1)
        assert expected in errors


def test_a_terminated_program_saves_and_exits_with_0(tmp_path):
    run = tmp_path / "run"
    arguments = ["--config", CONFIG, "--config.mesh.data=1", "--run_dir", str(run)]
    slow = [*arguments, "--config.streams.rows.delay=0.2", "--config.checkpoint_every=1000"]
    with open(tmp_path / "out", "w+") as out:
        program = subprocess.Popen(
            [sys.executable, TRAIN, *slow, "--config.steps=1000"], cwd=ROOT, stdout=out, stderr=out
        )
        deadline = time.monotonic() + 100
        while "step 4/" not in (tmp_path / "out").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(program.pid, signal.SIGTERM)
        code = program.wait(timeout=100)
    said = (tmp_path / "out").read_text()
    assert code == 0, said
    step, notes = newest(run / "checkpoints")
    assert step >= 4
    assert notes == []
    assert f"stopped and saved at step {step}; the same command goes on from there" in said
    expected = tiny.losses(tiny.finished_run())
    assert tiny.losses(run)[:12] == expected[: min(step, 12)]


def test_help_is_quick_and_imports_nothing_heavy():
    start = time.monotonic()
    code = "import sys; sys.argv[1:] = ['--help']; import runpy\n"
    code += f"try: runpy.run_path({TRAIN!r}, run_name='__main__')\n"
    code += "finally: assert not {'jax', 'flax', 'orbax'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    assert "--config FILE" in done.stdout
    assert "--run_dir DIR" in done.stdout
    assert time.monotonic() - start < 2


def test_the_compilation_cache_is_the_cpus_own(monkeypatch, tmp_path):
    import jax

    from taichu_jax.training import runtime

    kept = (
        jax.config.jax_compilation_cache_dir,
        jax.config.jax_persistent_cache_min_compile_time_secs,
    )
    monkeypatch.setattr(pathlib.Path, "home", lambda: tmp_path)
    try:
        runtime.use_compilation_cache()  # the environment says where
        assert jax.config.jax_compilation_cache_dir == kept[0]
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        runtime.use_compilation_cache()
        folder = pathlib.Path(jax.config.jax_compilation_cache_dir)
        assert folder.parent == tmp_path / ".cache/taichu_jax/jax"
        assert folder.name.startswith(jax.lib.__version__)
        before = folder
        monkeypatch.setattr(runtime, "_cpu", lambda: "another CPU")
        runtime.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir != str(before)
    finally:
        jax.config.update("jax_compilation_cache_dir", kept[0])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", kept[1])
