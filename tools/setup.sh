#!/usr/bin/env bash
# Makes an environment from lock files, without the gigabytes of CUDA that a plain install brings.
#   tools/setup.sh FOLDER LOCK...
# .venv is the CPU engine and the test tools; .venv-kernels the same and triton. Called by make, which knows when it is
# needed.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
uv=0.13.9
# A lock file also overrides: pyproject.toml's own overrides, which keep triton out of cpu.txt, would keep it out here.
locks=()
for lock in "${@:2}"; do locks+=(-r "$lock" --overrides "$lock"); done

find_python() {
  for candidate in python3.11 python3 python; do
    if "$candidate" -c 'import sys, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "setup: Python 3.11 with the venv module is needed (on Debian 12: apt-get install python3-venv)" >&2
  return 1
}

# Tests start a redis-server of their own, and check alerts with promtool, which comes with Debian's prometheus; what the
# packages would start as services must not run beside them.
find_tools() {
  local packages=()
  command -v redis-server >/dev/null || packages+=(redis-server)
  command -v promtool >/dev/null || packages+=(prometheus)
  [ ${#packages[@]} = 0 ] && return
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "setup: tests need ${packages[*]} (on Debian 12, as root: apt-get install ${packages[*]})" >&2
    return
  fi
  echo "setup: installing ${packages[*]}"
  # The package asks this script whether it may start a service. If there is one, it is the machine's and stays.
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    made=yes
  fi
  local options=(-y -qq -o Dpkg::Use-Pty=0 --no-install-recommends) is_done=
  export DEBIAN_FRONTEND=noninteractive
  if apt-get install "${options[@]}" "${packages[@]}" >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install "${options[@]}" "${packages[@]}" >/dev/null; }; then is_done=yes; fi
  if [ -n "$made" ]; then rm -f "$policy"; fi
  if [ -z "$is_done" ]; then echo "setup: ${packages[*]} could not be installed; tests that need them will fail" >&2; fi
}

started=$SECONDS
find_tools
python=$(find_python)
echo "setup: making $venv with $("$python" --version)"
"$python" -m venv --clear "$venv"
"$venv"/bin/python -m pip install --quiet --disable-pip-version-check "uv==$uv" 2>/dev/null ||
  "$venv"/bin/python -m pip install "uv==$uv"

# uv does not read pip's find-links, where a CPU build of torch may lie; otherwise it is told to find one.
backend=(--torch-backend cpu)
if [ -n "${PIP_FIND_LINKS:-}" ]; then
  export UV_FIND_LINKS="$PIP_FIND_LINKS"
  backend=()
fi
# --no-deps: the lock file is complete, and leaves out triton, torchaudio and torchcodec on purpose.
# Compiled at once, not at first import: an engine start imports some thousand modules, in two processes.
"$venv"/bin/uv pip install --quiet --python "$venv" --no-deps --compile-bytecode "${backend[@]}" "${locks[@]}"
"$venv"/bin/uv pip install --quiet --python "$venv" --no-deps -e .

bash tools/mend_torchvision.sh "$venv"
echo "setup: done in $((SECONDS - started)) s, $(du -sh "$venv" | cut -f1)"
