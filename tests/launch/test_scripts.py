"""The scripts for TPU pods and Slurm run the expected commands; the Kubernetes files fit the program.

`gcloud`, `srun` and `scontrol` are small programs that write their arguments down. Nothing here shows
that a cloud or a cluster accepts them.
"""

import json
import math
import os
import pathlib
import runpy
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from taichu_jax.errors import UserError
from taichu_jax.training import processes
from tests.conftest import ROOT

TPU, SLURM = ROOT / "launch/tpu_pod.sh", ROOT / "launch/slurm.sh"
SCRIPTS = (TPU, SLURM)
TPU_SETTINGS = {"ZONE": "us-central2-b", "TYPE": "v4-32", "PAUSE": "0", "ATTEMPTS": "3"}
RUN = ("--config", "configs/x.py", "--run_dir", "/mnt/shared/runs/a b")
FAKE = """#!{python}
import json, os, pathlib, sys
folder = pathlib.Path({folder!r})
name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
with open(folder / "calls", "a") as calls:
    calls.write(json.dumps([name, *arguments]) + "\\n")
line = " ".join([name, *arguments])
for number, answer in enumerate(json.loads((folder / "answers").read_text())):
    used = folder / f"used{{number}}"
    if answer["to"] in line and not used.exists():
        if not answer.get("always"):
            used.touch()
        print(answer.get("says", ""))
        sys.exit(answer.get("code", 0))
"""


@pytest.fixture
def shell(tmp_path):
    """Runs a script with fake programs: (exit code, stdout, stderr, calls of all but tar)."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("gcloud", "srun", "scontrol", "tar"):
        path = programs / name
        path.write_text(FAKE.format(python=sys.executable, folder=str(tmp_path)))
        path.chmod(0o755)

    def shell(script, *arguments, answers=(), **environment):
        (tmp_path / "answers").write_text(json.dumps(answers))
        (tmp_path / "calls").write_text("")
        for used in tmp_path.glob("used*"):
            used.unlink()
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
        done = subprocess.run(
            ["bash", str(script), *arguments],
            env=clean
            | {"PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
            | environment,
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
        )
        calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
        calls = [call for call in calls if call[0] != "tar"]
        return done.returncode, done.stdout, done.stderr, calls

    return shell


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_shell_can_read_it(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "set -euo pipefail" in script.read_text()


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / "launch/setup.sh"], ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    where = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    program = shutil.which("shellcheck", path=where)
    if program is None:
        pytest.skip("shellcheck is not installed: pip install -r requirements-test.txt")
    done = subprocess.run([program, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help(shell, script):
    code, said, errors, calls = shell(script, "--help")
    assert (code, errors, calls) == (0, "", [])
    assert "--config FILE" in said and "DRY_RUN" in said and "#" not in said and "set -" not in said


# --------------------------------------------------------------------------------- TPU pod


@pytest.mark.parametrize(
    ("arguments", "change", "expected"),
    [
        ((), {}, "a command is needed: create, setup, train, logs, status, stop or delete"),
        (("trian", "pod"), {}, "trian: no such command; create, setup"),
        (("create",), {}, "create: NAME is needed"),
        (("create", "Pod"), {}, "Pod: not a name of a TPU"),
        (("create", "--help"), {}, "--help: not a name of a TPU"),
        (("logs", "pod", "more"), {}, "logs: takes NAME alone, not more"),
        (("status", "pod"), {"ZONE": ""}, "ZONE is needed"),
        (("create", "pod"), {"TYPE": ""}, "TYPE is needed"),
        (("create", "pod"), {"SPOT": "yes"}, "SPOT=yes: must be 0 or 1"),
        (("create", "pod"), {"ATTEMPTS": "0"}, "ATTEMPTS=0: must be a number from 1 on"),
        (("create", "pod"), {"PAUSE": "a while"}, "PAUSE=a while: must be a number of seconds"),
        (("create", "pod"), {"SHARED": "gs://b; rm"}, "SHARED=gs://b; rm: must be HOST:/EXPORT"),
        (("train", "pod", "--run_dir=/s"), {}, "train: --config FILE is needed"),
        (("train", "pod", "--config=c.py"), {}, "train: --run_dir is needed, with the full path"),
        (
            ("train", "pod", "--config=c.py", "--run_dir", "runs/a"),
            {},
            "train: --run_dir is needed",
        ),
        (("train", "pod", "--config", "c.py", "--run_dir=gs://b/r"), {}, "not a URL"),
        (("train", "pod", "--config", "c.py", "--run_dir", "gs://b/r"), {}, "not a URL"),
    ],
)
def test_tpu_pod_refuses_with_one_line(shell, arguments, change, expected):
    code, said, errors, calls = shell(TPU, *arguments, **(TPU_SETTINGS | change))
    assert (code, said, calls) == (2, "", [])
    assert errors.startswith("error: ") and errors.count("\n") == 1 and expected in errors


def states(*shown):
    """What `gcloud ... list` says, one call after the other; the last for ever."""
    answers = [{"to": "queued-resources list", "says": state} for state in shown]
    answers[-1]["always"] = True
    return answers


ZONE = ["--zone", "us-central2-b"]
CREATE = [
    *("gcloud", "compute", "tpus", "queued-resources", "create", "pod", "--node-id", "pod"),
    *("--accelerator-type", "v4-32", "--runtime-version", "tpu-ubuntu2204-base", "--spot"),
    *(*ZONE, "--quiet"),
]
DELETE = ["gcloud", "compute", "tpus", "queued-resources", "delete", "pod", "--force", *ZONE]
DELETE.append("--quiet")


def kinds(calls):
    """The sub-command of each call of gcloud, and whether it starts the training."""
    found = []
    for call in calls:
        name = "train" if "--distributed true" in call[-1] else call[4]
        found.append(name)
    return found


def test_tpu_pod_makes_and_deletes(shell):
    code, _, _, calls = shell(TPU, "create", "pod", answers=states("", "ACTIVE"), **TPU_SETTINGS)
    assert code == 0 and calls[1] == CREATE
    kept = shell(TPU, "create", "pod", answers=states("", "ACTIVE"), **TPU_SETTINGS, SPOT="0")[3][1]
    assert kept == [word for word in CREATE if word != "--spot"]
    _, _, errors, calls = shell(
        TPU, "create", "pod", answers=states("PROVISIONING", "FAILED", "", "ACTIVE"), **TPU_SETTINGS
    )
    assert kinds(calls) == ["list", "list", "delete", "list", "create", "list"]
    assert "pod is FAILED: it is made anew" in errors
    assert shell(TPU, "delete", "pod", **TPU_SETTINGS)[3] == [DELETE]
    assert shell(TPU, "create", "pod", answers=states("ACTIVE"), **TPU_SETTINGS)[0] == 0


def test_tpu_pod_trains_through_a_preemption(shell):
    answers = [
        *states("", "ACTIVE", "SUSPENDED", "", "ACTIVE"),
        {"to": "--distributed true", "code": 134},
    ]
    code, said, errors, calls = shell(
        TPU, "train", "pod", *RUN, answers=answers, **TPU_SETTINGS, SHARED="10.0.0.2:/vol"
    )
    assert code == 0 and said.endswith("done\n")
    assert "attempt 1 of 3 ended with 134" in errors and "pod is SUSPENDED" in errors
    start = ["scp", "ssh", "ssh", "train"]
    first = ["list", "create", "list", *start]
    assert kinds(calls) == [*first, "list", "delete", "list", "create", "list", *start]
    first, second = (call for call in calls if "--distributed true" in call[-1])
    assert first == second  # the same command goes on
    assert first[:-1] == [
        *("gcloud", "compute", "tpus", "tpu-vm", "ssh", "pod", *ZONE, "--worker", "all"),
        "--command",
    ]
    words = shlex.split(first[-1].partition("launch/train.py --dist")[2].partition("2>&1")[0])
    assert words == ["ributed", "true", "--exit_when_stopped", "75", *RUN]
    (mount,) = {call[-1] for call in calls if "mount -t nfs" in call[-1]}
    assert "sudo mount -t nfs 10.0.0.2:/vol /mnt/shared" in mount
    subprocess.run(["bash", "-n", "-c", first[-1]], check=True)  # what the workers' shells get
    subprocess.run(["bash", "-n", "-c", mount], check=True)


@pytest.mark.parametrize(("code", "expected", "starts"), [(2, 2, 1), (75, 1, 3), (255, 1, 3)])
def test_tpu_pod_ends_where_going_on_is_no_use(shell, code, expected, starts):
    failing = [*states("ACTIVE"), {"to": "--distributed true", "code": code, "always": True}]
    ended, _, errors, calls = shell(TPU, "train", "pod", *RUN, answers=failing, **TPU_SETTINGS)
    assert ended == expected and kinds(calls).count("train") == starts
    last = "a setting is wrong" if code == 2 else "gave up after 3 attempts"
    assert last in errors.splitlines()[-1]


def test_tpu_pod_does_not_train_on_a_half_done_setup(shell):
    answers = [*states("ACTIVE"), {"to": "tpu-vm scp", "code": 1}]
    code, _, errors, calls = shell(TPU, "train", "pod", *RUN, answers=answers, **TPU_SETTINGS)
    assert code == 0 and "attempt 1 of 3 ended with 1" in errors
    assert kinds(calls) == ["list", "scp", "list", "scp", "ssh", "train"]


def test_tpu_pod_looks_after_a_run(shell):
    for task, words in (
        ("logs", ["0", "tail -n 100 -f ~/taichu_jax.log"]),
        ("stop", ["0", "pkill -TERM -f '^[.]venv/bin/python launch/train.py'"]),
    ):
        _, _, _, ((*_, worker, flag, command),) = shell(TPU, task, "pod", **TPU_SETTINGS)
        assert ([worker, command], flag) == (words, "--command")
    (status,) = shell(TPU, "status", "pod", **TPU_SETTINGS)[3]
    assert status[3:6] == ["queued-resources", "describe", "pod"]


def test_a_dry_run_prints_the_commands_of_a_real_one(shell):
    _, _, _, calls = shell(TPU, "train", "pod", *RUN, answers=states("", "ACTIVE"), **TPU_SETTINGS)
    code, said, errors, none = shell(TPU, "train", "pod", *RUN, **TPU_SETTINGS, DRY_RUN="1")
    assert (code, errors, none) == (0, "", [])
    shown = [shlex.split(line)[1:] for line in said.splitlines() if line.startswith("+ gcloud")]
    assert shown == [call for call in calls if "list" not in call]


# ----------------------------------------------------------------------------------- Slurm

JOB = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "8"}


def slurm(shell, *arguments, **options):
    return shell(SLURM, *arguments, **(JOB | options))


def test_slurm_starts_every_task_the_same(shell):
    code, _, errors, calls = slurm(shell, *RUN)
    assert (code, errors) == (0, "")
    assert calls == [
        [
            *("srun", "--kill-on-bad-exit=1", "--gpu-bind=none", ".venv/bin/python"),
            *("launch/train.py", "--distributed", "true", "--exit_when_stopped", "75", *RUN),
        ]
    ]
    _, said, _, none = slurm(shell, *RUN, DRY_RUN="1")
    assert [shlex.split(line)[1:] for line in said.splitlines()] == calls and none == []


@pytest.mark.parametrize("code", [75, 134, 1])
def test_slurm_queues_a_run_again_that_is_not_done(shell, code):
    failing = [{"to": "srun", "code": code}]
    ended, _, errors, calls = slurm(shell, *RUN, answers=failing)
    assert (ended, calls[1:]) == (code, [["scontrol", "requeue", "7"]])
    assert errors == f"the run ended with {code} before its last step\n"
    ended, _, errors, calls = slurm(shell, *RUN, answers=failing, SLURM_RESTART_COUNT="20")
    assert (ended, len(calls)) == (code, 1)
    assert "was queued again 20 times, and is not any more" in errors


@pytest.mark.parametrize(
    ("arguments", "change", "expected"),
    [
        ((), {}, "--config FILE is needed"),
        (RUN, {"SLURM_JOB_ID": ""}, "this is a job script: sbatch launch/slurm.sh"),
        (RUN, {"RESTARTS": "many"}, "RESTARTS=many: must be a number"),
        (RUN, {"SLURM_SUBMIT_DIR": "/"}, "/: is not the project's folder"),
    ],
)
def test_slurm_refuses_with_one_line(shell, arguments, change, expected):
    code, said, errors, calls = slurm(shell, *arguments, **change)
    assert (code, said, calls) == (2, "", [])
    assert errors.startswith("error: ") and errors.count("\n") == 1 and expected in errors
    wrong = [{"to": "srun", "code": 2}]
    code, _, errors, calls = slurm(shell, *RUN, answers=wrong)
    assert (code, len(calls)) == (2, 1) and "a setting is wrong" in errors


def test_slurm_signals_the_tasks_before_the_time_is_over():
    lines = SLURM.read_text().splitlines()
    options = dict(line.split(" ")[1].lstrip("-").partition("=")[::2] for line in lines if
                   line.startswith("#SBATCH"))  # fmt: skip
    assert options["signal"] == "TERM@180"  # not B:, which would reach the shell alone
    assert options["ntasks-per-node"] == options["gpus-per-node"]  # JAX gives each task one GPU
    assert "requeue" in options and options["open-mode"] == "append"


# ------------------------------------------------------------------------------ Kubernetes

FILES = [ROOT / "launch/kubernetes.yaml", ROOT / "launch/kubernetes_tpu.yaml"]


def parsed(path):
    """(service, job, its only container)."""
    service, job = yaml.safe_load_all(path.read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return service, job, container


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_pods_find_each_other_and_come_back(path):
    service, job, container = parsed(path)
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    assert pod["restartPolicy"] == "Never"  # else a policy for failed pods is not allowed
    first, second, third = spec["podFailurePolicy"]["rules"]
    assert (first["action"], first["onExitCodes"]["values"]) == ("FailJob", [2])
    assert (second["action"], second["onExitCodes"]["values"]) == ("Ignore", [75])
    assert third["onPodConditions"] == [{"type": "DisruptionTarget"}]
    for rule in (first, second):
        assert rule["onExitCodes"]["containerName"] == container["name"]
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_program_takes_what_pods_start(path, monkeypatch):
    command = parsed(path)[2]["command"]
    assert command[:2] == ["python", "launch/train.py"]  # no shell, which would keep SIGTERM
    assert "--exit_when_stopped=75" in command and "--distributed=true" in command
    monkeypatch.chdir(ROOT)
    run = runpy.run_path(str(ROOT / "launch/train.py"))["run"]
    with pytest.raises(UserError, match="--config CONFIG: no such file"):  # all flags are known
        run(command[2:])
    arguments = [word.replace("CONFIG", "tests/training/tiny_config.py") for word in command[2:]]
    with pytest.raises(UserError, match=r"^--stop: no such flag"):
        run([*arguments, "--stop=1"])


def test_gpu_pods_say_what_the_program_reads():
    service, job, container = parsed(FILES[0])
    values = {}
    for entry in container["env"]:
        if entry["name"] == "JAX_PROCESS_ID":
            path = entry["valueFrom"]["fieldRef"]["fieldPath"]
            assert path == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
            values[entry["name"]] = "1"
        else:
            values[entry["name"]] = entry["value"]
    name, port = job["metadata"]["name"], container["ports"][0]["containerPort"]
    assert set(values) == set(processes._SETTINGS)
    assert processes.settings(values) == {
        "coordinator_address": f"{name}-0.{service['metadata']['name']}:{port}",
        "num_processes": job["spec"]["completions"],
        "process_id": 1,
    }


def test_tpu_pods_fill_the_slice():
    _, job, container = parsed(FILES[1])
    selector = job["spec"]["template"]["spec"]["nodeSelector"]
    chips = math.prod(map(int, selector["cloud.google.com/gke-tpu-topology"].split("x")))
    assert job["spec"]["completions"] * container["resources"]["limits"]["google.com/tpu"] == chips
    assert "env" not in container  # JAX reads what GKE sets
