"""The rows of a run, one file each: ``python -m tests.faults.table FOLDER`` prints them as a table.

``FOLDER.json`` then holds all of them, with the machine and the commit.
"""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.faults.verdict import Verdict

FOLDER_VARIABLE = "ILVR_FAULTS_REPORT"
COLUMNS = (
    "scenario",
    "requests",
    "completed",
    "failed",
    "restarted",
    "resumed",
    "refused",
    "lost",
    "twice",
    "wrong",
    "seconds",
)


def keep(model: str, verdict: Verdict) -> None:
    """Write a row to the folder that the environment names, if it names one."""
    if folder := os.environ.get(FOLDER_VARIABLE):
        name = re.sub(r"\W+", "-", f"{model} {verdict.scenario}")
        path = Path(folder) / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"model": model, **verdict.row()}))


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    lines = [f"| {' | '.join(('model', *COLUMNS))} |", f"|{' --- |' * (len(COLUMNS) + 1)}"]
    lines += [f"| {' | '.join(str(row[name]) for name in ('model', *COLUMNS))} |" for row in rows]
    return "\n".join(lines)


def main(folder: Path) -> None:
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    print(table(rows))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    report = {
        "commit": commit.strip(),
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "rows": rows,
    }
    folder.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
