#!/usr/bin/env bash
# What tests of deploy/ and the topology run, as far as it is not there: docker-compose (for its `config` alone, there is
# no container engine), haproxy, prometheus with promtool, redis, what namespaces are made with, and the linter of compose
# files.
#   tools/deploy_tools.sh [images]
# With "images" also what `make images` builds them with: buildah and debootstrap.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
dclint=3.1.0

packages=()
want() { command -v "$1" >/dev/null || packages+=("${2:-$1}"); }
want docker-compose
want haproxy
want promtool prometheus
want redis-server
want ip iproute2
want tini
want npm
if [ "${1:-}" = images ]; then
  want buildah
  want debootstrap
fi

if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "deploy tools: missing; on Debian 12, as root: apt-get install ${packages[*]}" >&2
    exit 1
  fi
  # Debian starts what it installs. No daemon is wanted here: whoever needs one starts it.
  policy=/usr/sbin/policy-rc.d made=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    made=yes
  fi
  export DEBIAN_FRONTEND=noninteractive
  options=(-y -qq -o Dpkg::Use-Pty=0 --no-install-recommends)
  apt-get install "${options[@]}" "${packages[@]}" >/dev/null 2>&1 || {
    apt-get update -qq
    apt-get install "${options[@]}" "${packages[@]}" >/dev/null
  }
  if [ -n "$made" ]; then rm -f "$policy"; fi
fi

folder=build/deploy-tools
if [ "$(cat "$folder/.dclint" 2>/dev/null)" != "$dclint" ]; then
  mkdir -p "$folder"
  npm install --silent --no-audit --no-fund --no-package-lock --prefix "$folder" "dclint@$dclint"
  echo "$dclint" >"$folder/.dclint"
fi
bash tools/javascript_client.sh  # for a test of service/openai, and npm is here
echo "deploy tools: done in $((SECONDS - started)) s"
