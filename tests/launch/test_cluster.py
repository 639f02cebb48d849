"""launch/cluster.py writes units that a stream reads, survives kill -9, and refuses nonsense."""

import os
import runpy
import signal
import subprocess
import sys
import time

import pytest

from taichu_jax import config as configs
from taichu_jax.config import build
from taichu_jax.data import builder, fetch
from taichu_jax.data.units import CENTROIDS, INFO, UNITS, open_units
from taichu_jax.evals.clustering import STATE, WORK
from tests.conftest import ROOT

CLUSTER = str(ROOT / "launch/cluster.py")
CONFIG = "configs/speech/hubert_stamps.py"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A data folder with the sample."""
    folder = tmp_path_factory.mktemp("data")
    builder.prepare_stamps(folder, source=fetch.SAMPLE)
    return folder


@pytest.fixture
def launch(monkeypatch, capfd):
    """Runs the launcher inside this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(ROOT)

    def launch(*arguments):
        monkeypatch.setattr(sys, "argv", [CLUSTER, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(CLUSTER, run_name="__main__")
        return ended.value.code, *capfd.readouterr()

    return launch


def arguments(data_dir, folder, *more):
    where = (f"--config.data.dir={data_dir}", f"--config.data.source={fetch.SAMPLE}")
    return ("--config", CONFIG, *where, "--features=mfcc", f"--to={folder}", *more)


def test_units_join_the_stream_and_killed_it_goes_on(launch, data_dir, tmp_path):
    short = ("--clusters", "20", "--chunk", "8", "--passes", "3")
    code, said, errors = launch(*arguments(data_dir, tmp_path / "whole", *short))
    assert (code, errors) == (0, "")
    *_, last = said.splitlines()
    units = open_units(tmp_path / "whole")
    frames = units.facts["frames"]
    assert last == f"units: {tmp_path / 'whole'}, {frames:,} of 20 kinds, 100 a second"
    assert "features: 0 of " in said and "k-means: 0 of " in said

    killed = tmp_path / "killed"
    command = [sys.executable, CLUSTER, *map(str, arguments(data_dir, killed, *short))]
    with open(tmp_path / "out", "w") as out:
        program = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
        deadline = time.monotonic() + 200
        while not (killed / WORK / STATE).exists() and time.monotonic() < deadline:
            assert program.poll() is None, (tmp_path / "out").read_text()
            time.sleep(0.002)
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
    assert not (killed / INFO).exists()
    assert launch(*arguments(data_dir, killed, *short))[0] == 0
    for name in (UNITS, CENTROIDS, INFO):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    config = configs.load(str(ROOT / CONFIG))
    voices = config.streams.voices
    voices.units, voices.unit_clusters, voices.batch_size = str(killed), 20, 4
    batch = build(voices).batches(data_dir, None, seed=0)[0]
    assert batch["units"].shape == (4, 200)
    assert 0 <= batch["units"].max() < 20
    for row in range(4):
        real = batch["mel_lengths"][row]
        assert (batch["units"][row, : real - 1] >= 0).all()
        assert (batch["units"][row, real:] == -1).all()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((), "either --features mfcc or mfcc_cmvn, or --run DIR with --layer N, is needed"),
        (("--features=mfcc", "--run=x"), "either --features mfcc or mfcc_cmvn, or --run"),
        (("--features=mfc",), "--features mfc: did you mean 'mfcc'?"),
        (("--run=/no/run",), "--run DIR and --layer N go together"),
        (("--run=/no/run", "--layer=1"), "/no/run: holds no run"),
        (("--features=mfcc", "--clusters=0", "--to=x"), "--clusters 0: must be at least 1"),
        (("--features=mfcc", "--clusters=ten"), "--clusters ten: must be a whole number"),
        (("--features=mfcc", "--passes=0"), "--passes 0: must be at least 1"),
        (("--features=mfcc", "--stream=voice"), "no stream of recordings 'voice'"),
        (
            ("--features=mfcc", "--clusters=50"),
            "runs/units_mfcc: would get 50 clusters, 100 a second",
        ),
        (("--feature=mfcc",), "--feature: no such flag; did you mean '--features'?"),
    ],
)
def test_refuses_with_one_line(launch, changes, expected):
    code, said, errors = launch("--config", CONFIG, *changes)
    assert (code, said) == (2, "")
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert expected in errors


def test_too_few_frames(launch, data_dir, tmp_path):
    code, _, errors = launch(*arguments(data_dir, tmp_path / "many", "--clusters=1000000"))
    assert (code, errors.count("\n")) == (2, 1)
    assert "--clusters 1000000: the recordings have " in errors


def test_training_without_units_gives_the_command(monkeypatch, capfd, data_dir, tmp_path):
    monkeypatch.chdir(ROOT)
    train = str(ROOT / "launch/train.py")
    where = (f"--config.data.dir={data_dir}", f"--config.data.source={fetch.SAMPLE}")
    missing = f"--config.streams.voices.units={tmp_path / 'none'}"
    tiny = ("--config.networks.speech.depth=1", "--config.mesh.data=1", "--config.data.workers=0")
    argv = [train, "--config", CONFIG, *where, missing, *tiny, f"--run_dir={tmp_path / 'run'}"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(train, run_name="__main__")
    errors = capfd.readouterr().err
    assert ended.value.code == 2 and errors.count("\n") == 1
    assert f"python launch/cluster.py --config FILE --to {tmp_path / 'none'}" in errors


def test_help_is_quick_and_imports_nothing_heavy():
    code = "import sys; sys.argv[1:] = ['--help']; import runpy\n"
    code += f"try: runpy.run_path({CLUSTER!r}, run_name='__main__')\n"
    code += "finally: assert not {'jax', 'flax', 'sklearn'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    assert "--layer N" in done.stdout
