#!/usr/bin/env bash
# A training run on a TPU pod: Cloud TPU VMs through queued resources, by gcloud.
#
#   bash launch/tpu_pod.sh train NAME --config FILE --run_dir DIR [--config.KEY=VALUE ...]
#
# create NAME            asks for the TPU and waits until it is there
# setup NAME             copies this checkout to every worker and installs it
# train NAME ARGUMENTS   create and setup where needed, then launch/train.py with ARGUMENTS on every worker;
#                        what is preempted is made anew and the run goes on, until it is done
# logs NAME              follows the output of worker 0
# status NAME            the state of the TPU
# stop NAME              asks the run to save and end (SIGTERM); interrupt `train` first, it would go on
# delete NAME            gives the TPU back
#
# Variables: ZONE and TYPE (for example us-central2-b, v4-32) are needed; VERSION (tpu-ubuntu2204-base),
# SPOT (1: may be preempted; 0), SHARED (HOST:/EXPORT of an NFS server, for example Filestore, mounted at
# /mnt/shared on every worker; empty: nothing is mounted), ATTEMPTS (20: starts before it gives up),
# PAUSE (30 seconds between two looks), DRY_RUN (1: prints the commands that it would run).
# --run_dir must lie in a folder that all workers share: gs:// paths cannot be used (docs/scaling.md).
set -euo pipefail

usage() { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//;p}' "$0"; }
wrong() { echo "error: $*" >&2; exit 2; }

case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  create | setup | train | logs | status | stop | delete) task=$1 ;;
  "") wrong "a command is needed: create, setup, train, logs, status, stop or delete" ;;
  *) wrong "$1: no such command; create, setup, train, logs, status, stop or delete" ;;
esac
shift
[ $# -gt 0 ] || wrong "$task: NAME is needed"
name=$1
shift
[[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
  wrong "$name: not a name of a TPU (small letters, digits and -, from a letter on, 40 at most)"
[ "$task" = train ] || [ $# -eq 0 ] || wrong "$task: takes NAME alone, not $1"
zone=${ZONE:-}
type=${TYPE:-}
version=${VERSION:-tpu-ubuntu2204-base}
spot=${SPOT:-1}
shared=${SHARED:-}
attempts=${ATTEMPTS:-20}
pause=${PAUSE:-30}
[ -n "$zone" ] || wrong "ZONE is needed, for example ZONE=us-central2-b"
[ -n "$type" ] || [[ $task != create && $task != train ]] || wrong "TYPE is needed, for example TYPE=v4-32"
[[ $spot =~ ^[01]$ ]] || wrong "SPOT=$spot: must be 0 or 1"
[[ $attempts =~ ^[1-9][0-9]*$ ]] || wrong "ATTEMPTS=$attempts: must be a number from 1 on"
[[ $pause =~ ^[0-9]+$ ]] || wrong "PAUSE=$pause: must be a number of seconds"
[[ -z $shared || $shared =~ ^[A-Za-z0-9.-]+:/[A-Za-z0-9/._-]*$ ]] ||
  wrong "SHARED=$shared: must be HOST:/EXPORT"
running='^[.]venv/bin/python launch/train.py' # of all command lines, that of the run
root=$(cd "$(dirname "$0")/.." && pwd)

run() {
  if [ "${DRY_RUN:-0}" = 1 ]; then
    printf '+'
    printf ' %q' "$@"
    echo
  else
    "$@"
  fi
}
queued() { run gcloud compute tpus queued-resources "$@" --zone "$zone" --quiet; }
on() { # WORKERS COMMAND
  run gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker "$1" --command "$2"
}
state() { # of the queued resource; empty: there is none
  [ "${DRY_RUN:-0}" = 1 ] && { echo "${DRY_STATE:-}"; return; }
  gcloud compute tpus queued-resources list --zone "$zone" --filter "name~/$name\$" \
    --format 'value(state.state)'
}

create() {
  local now
  while true; do
    now=$(state)
    case "$now" in
      ACTIVE) return ;;
      "")
        local more=()
        [ "$spot" = 0 ] || more=(--spot)
        queued create "$name" --node-id "$name" --accelerator-type "$type" \
          --runtime-version "$version" ${more[@]+"${more[@]}"}
        ;;
      SUSPENDED | SUSPENDING | FAILED) # preempted, or never came: it has to be asked for again
        echo "$name is $now: it is made anew" >&2
        queued delete "$name" --force
        [ "${DRY_RUN:-0}" = 1 ] && DRY_STATE="" && continue
        ;;
      *) echo "$name is $now; the next look in $pause s" >&2 ;;
    esac
    [ "${DRY_RUN:-0}" = 1 ] && return
    sleep "$pause"
  done
}

setup() {
  local archive=${TMPDIR:-/tmp}/taichu_jax.$name.tar.gz
  run tar -czf "$archive" -C "$root" --exclude=.git --exclude=.venv --exclude=.cache --exclude=./runs \
    --exclude=./data .
  run gcloud compute tpus tpu-vm scp "$archive" "$name:taichu_jax.tar.gz" --zone "$zone" --worker all
  rm -f "$archive"
  if [ -n "$shared" ]; then
    on all "mountpoint -q /mnt/shared || { sudo apt-get -qq update && \
sudo apt-get -qq install -y nfs-common && sudo mkdir -p /mnt/shared && \
sudo mount -t nfs $shared /mnt/shared; }"
  fi
  # The image's own Python is 3.10.
  on all "sudo apt-get -qq install -y python3.11 python3.11-venv && mkdir -p ~/taichu_jax && \
tar -xzf ~/taichu_jax.tar.gz -C ~/taichu_jax && cd ~/taichu_jax && sh launch/setup.sh .venv && \
.venv/bin/pip install -q \"jax[tpu]==\$(sed -n 's/^jax==//p' requirements.txt)\""
}

train() {
  local arguments attempt code
  case " $* " in
    *" --config "* | *" --config="*) ;;
    *) wrong "train: --config FILE is needed" ;;
  esac
  case " $* " in
    *" --run_dir "*"://"* | *" --run_dir="*"://"*)
      wrong "train: --run_dir must be a folder that all workers share, not a URL (docs/scaling.md)" ;;
    *" --run_dir /"* | *" --run_dir=/"*) ;;
    *) wrong "train: --run_dir is needed, with the full path of a folder that all workers share" ;;
  esac
  arguments=$(printf ' %q' "$@")
  for ((attempt = 1; attempt <= attempts; attempt++)); do
    create
    code=0
    bash "$0" setup "$name" || code=$? # a process of its own: in `f || ...`, f would not stop at errors
    if [ "$code" = 0 ]; then
      # A run whose connection broke goes on, with its output in the file: it saves and ends first.
      on all "cd ~/taichu_jax && set -o pipefail && pkill -TERM -f '$running'; \
while pgrep -f '$running' >/dev/null; do sleep 1; done; .venv/bin/python launch/train.py \
--distributed true --exit_when_stopped 75$arguments 2>&1 | tee -ap ~/taichu_jax.log" || code=$?
    fi
    case "$code" in
      0) echo "done"; return ;;
      2) echo "error: a setting is wrong, see above" >&2; exit 2 ;;
    esac
    echo "attempt $attempt of $attempts ended with $code" >&2
    [ "${DRY_RUN:-0}" = 1 ] || sleep "$pause"
  done
  echo "error: gave up after $attempts attempts" >&2
  exit 1
}

case "$task" in
  create) create ;;
  setup) setup ;;
  train) train "$@" ;;
  logs) on 0 "tail -n 100 -f ~/taichu_jax.log" ;;
  status) queued describe "$name" --format "yaml(state,tpu.nodeSpec)" ;;
  stop) on 0 "pkill -TERM -f '$running'" ;;
  delete) queued delete "$name" --force ;;
esac
