#!/bin/sh
# Creates a virtual environment with the pinned versions of requirements.txt. Needs no root.
#   sh launch/setup.sh DIR
set -eu
venv=$1
python=""
for candidate in python3 python3.13 python3.12 python3.11; do
  if command -v "$candidate" >/dev/null 2>&1 &&
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "Python 3.11 or newer is needed: sudo apt install python3 python3-venv" >&2
  exit 2
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  echo "$python lacks the venv module: sudo apt install python3-venv" >&2
  exit 2
fi
rm -f "$venv/installed"
echo "environment: $venv ($("$python" --version)), about a minute and 1.6 GB ..."
[ -x "$venv/bin/pip" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --requirement requirements.txt
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --editable .
touch "$venv/installed"
