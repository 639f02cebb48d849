#!/bin/sh
# Creates a virtual environment with the pinned versions of requirements.txt. Needs no root.
#   sh launch/setup.sh DIR
set -eu
venv=$1
python=""
old="no Python 3.11 or newer"
for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
  if command -v "$candidate" >/dev/null 2>&1 &&
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
      python=$candidate
      break
    fi
    old="$candidate lacks its venv module"
  fi
done
if [ -z "$python" ]; then
  echo "$old: sudo apt install python3 python3-venv" >&2
  exit 2
fi
rm -f "$venv/installed"
echo "environment: $venv ($("$python" --version)), one to three minutes and 1.6 GB ..."
[ -x "$venv/bin/pip" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --requirement requirements.txt
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --editable .
touch "$venv/installed"
