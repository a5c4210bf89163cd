#!/usr/bin/env bash
# OpenAI's JavaScript client, which a test of service/openai runs on node; it has no dependencies of its own.
#   tools/javascript_client.sh
set -euo pipefail
cd "$(dirname "$0")/.."
openai=7.57.0

folder=build/javascript-client
if [ "$(cat "$folder/.openai" 2>/dev/null)" != "$openai" ]; then
  mkdir -p "$folder"
  npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts --prefix "$folder" "openai@$openai"
  echo "$openai" >"$folder/.openai"
fi
