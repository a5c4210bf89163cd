#!/usr/bin/env bash
# A torchvision built for CUDA cannot register its operators beside a CPU torch, and then cannot be imported, which
# vLLM's Qwen2-VL module needs although nothing here uses those operators. An empty module in the place of the
# registrations mends it, also in subprocesses.
#   tools/mend_torchvision.sh ENVIRONMENT
set -euo pipefail
venv=$1
if ! "$venv"/bin/python -c 'import torchvision' 2>/dev/null; then
  site=$("$venv"/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  name=torchvision._meta_registrations
  echo "import sys, types; sys.modules.setdefault('$name', types.ModuleType('$name'))" >"$site/ilvr_torchvision.pth"
  "$venv"/bin/python -c 'import torchvision'
  echo "setup: torchvision is a CUDA build beside a CPU torch; its operators are switched off (ilvr_torchvision.pth)"
fi
