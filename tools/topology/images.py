"""Roots of the images that ``make images`` has built."""

import json
import subprocess
from pathlib import Path

from tools.topology.composed import ROOT
from tools.topology.container import Root

STORE = ROOT / "build/images"


def image_root(image: str) -> Root:
    """Mounts an image, in the mount namespace of the caller. Raises ``RuntimeError`` if it was not built."""
    config = json.loads(_buildah("inspect", "--type", "image", f"localhost/{image}"))["OCIv1"]["config"]
    container = _buildah("from", "--pull-never", f"localhost/{image}")
    environment = dict(pair.split("=", 1) for pair in config["Env"])
    return Root(folder=Path(_buildah("mount", container)), path=environment.pop("PATH"), environment=environment)


def forget_roots() -> None:
    """Of this run and of those that were killed."""
    _buildah("rm", "--all")


def _buildah(*words: str) -> str:
    store = ["--storage-driver", "overlay", "--root", str(STORE / "store"), "--runroot", str(STORE / "runroot")]
    try:
        done = subprocess.run(["buildah", *store, *words], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise RuntimeError("buildah is not installed: run `make images`") from error
    if done.returncode != 0:
        raise RuntimeError(f"run `make images`: {done.stderr}")
    return done.stdout.strip()
