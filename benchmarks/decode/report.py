"""The report in two files: JSON, which holds each part as it was measured last, and a page made from it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.decode.environment import sentence
from benchmarks.decode.figures import PartReport
from benchmarks.decode.roof_share import rows_of

ORDER = ("a", "roof", "b", "f", "c", "d", "e", "g")
PROFILE = "profile"

HEAD = """# Speed of decoding on a CPU

Two models: *embedded*, `models/maze-tiny` in float32, asked about unseen mazes; and *0.6B*, \
random weights in the shape of Qwen2.5-0.5B with an untied head (0.63 billion parameters beside the tower) in \
bfloat16, asked random words about random pixels, answering a fixed number of tokens, whose head is drawn so that \
START is chosen every few tokens (`benchmarks/decode/checkpoint.py`). Values are medians with their range over \
repetitions.
"""
FOOT = """Not measured: a GPU, models of published size, several users over HTTP, prompts of thousands of tokens.
"""


def read(path: Path) -> dict[str, PartReport]:
    """Parts that were measured before, by key; none if there is no file."""
    if not path.exists():
        return {}
    return {key: PartReport.from_dict(part) for key, part in json.loads(path.read_text())["parts"].items()}


def write(folder: Path, parts: dict[str, PartReport]) -> list[Path]:
    """``decode.json``, ``decode.md`` and, if there is a profile, ``profile.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    if {"a", "roof"} <= parts.keys():
        parts = {**parts, "roof": replace(parts["roof"], rows=rows_of(parts["roof"].raw, parts["a"].raw))}
    content: dict[str, Any] = {"parts": {key: part.as_dict() for key, part in parts.items()}}
    files = [(folder / "decode.json", json.dumps(content, indent=1) + "\n")]
    files.append((folder / "decode.md", page([parts[key] for key in ORDER if key in parts])))
    if PROFILE in parts:
        files.append((folder / "profile.md", f"# Profile\n\n{section(parts[PROFILE])}"))
    for path, text in files:
        path.write_text(text, encoding="utf-8")
    return [path for path, _ in files]


def page(parts: list[PartReport]) -> str:
    bars = [bar for part in parts for bar in part.bars]
    missed = [f"* {part.title}: {bar}" for part in parts for bar in part.bars if not bar.is_met]
    verdict = f"Of {len(bars)} bars {len(bars) - len(missed)} are met" + (", and missed:" if missed else ".")
    return "\n".join([HEAD, verdict, *(["", *missed] if missed else []), "", *map(section, parts), FOOT])


def section(part: PartReport) -> str:
    known = part.environment
    return part.markdown() + (f"\n{sentence(known, known['threads'])}\n" if known else "")
