#!/usr/bin/env bash
# A training run under Slurm: one task for each GPU.
#
#   sbatch --nodes 2 --gpus-per-node 8 --ntasks-per-node 8 launch/slurm.sh --config FILE --run_dir DIR
#
# Arguments are those of launch/train.py; --config is needed, and DIR must lie in a folder that all nodes
# share. Submit it from the project's folder. Options of sbatch change what is below: as many tasks as GPUs
# on a node; on nodes without GPUs --gpus-per-node 0 --ntasks-per-node 1.
#
# 3 minutes before the time is over, and when Slurm preempts the job, every task gets SIGTERM: the run
# saves, ends, and is queued again, as it is after a node has failed. The same command goes on later too.
#
# Variables: PYTHON (.venv/bin/python), RESTARTS (20: times it is queued again), DRY_RUN (1: prints the
# commands that it would run).
#SBATCH --job-name=taichu_jax
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
set -euo pipefail

wrong() { echo "error: $*" >&2; exit 2; }
run() {
  if [ "${DRY_RUN:-0}" = 1 ]; then
    printf '+'
    printf ' %q' "$@"
    echo
  else
    "$@"
  fi
}

case "${1:-}" in
  -h | --help) sed -n '2,/^#SBATCH/{/^#SBATCH/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
esac
case " $* " in
  *" --config "* | *" --config="*) ;;
  *) wrong "--config FILE is needed" ;;
esac
restarts=${RESTARTS:-20}
[[ $restarts =~ ^[0-9]+$ ]] || wrong "RESTARTS=$restarts: must be a number"
[ -n "${SLURM_JOB_ID:-}" ] || wrong "this is a job script: sbatch launch/slurm.sh --config FILE ..."
cd "${SLURM_SUBMIT_DIR:-.}" # Slurm runs a copy of this file from elsewhere
[ -f launch/train.py ] || wrong "$PWD: is not the project's folder; submit the job from there"

# A preempted job's own shell gets SIGTERM too, and has to outlive the tasks.
trap ':' TERM
# srun forgets this option of sbatch. GPUs are not bound to tasks: JAX takes the one of SLURM_LOCALID.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
code=0
run srun --kill-on-bad-exit=1 --gpu-bind=none "${PYTHON:-.venv/bin/python}" launch/train.py \
  --distributed true --exit_when_stopped 75 "$@" || code=$?
case "$code" in
  0) exit 0 ;;
  2) wrong "a setting is wrong, see above" ;;
esac
echo "the run ended with $code before its last step" >&2
if [ "${SLURM_RESTART_COUNT:-0}" -lt "$restarts" ]; then
  run scontrol requeue "$SLURM_JOB_ID"
else
  echo "error: was queued again $restarts times, and is not any more" >&2
fi
exit "$code"
