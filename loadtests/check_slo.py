"""Whether results keep their objectives: ``python -m loadtests.check_slo RESULTS.json [--objectives FILE.toml]``.

Exit status 0: all are kept. 1: one is broken, or its number is missing from the results. 2: a file cannot be used.
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

OBJECTIVES = Path(__file__).parent / "objectives.toml"


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at_most: float | None = None
    at_least: float | None = None

    def __str__(self) -> str:
        told = ((">=", self.at_least), ("<=", self.at_most))
        return ", ".join(f"{sign} {bound:g}" for sign, bound in told if bound is not None)

    def hold(self, value: float) -> bool:
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``value`` is None if the results have no such number, which is no less bad than a wrong one."""

    path: str
    bounds: Bounds
    value: float | None

    @property
    def is_kept(self) -> bool:
        return self.value is not None and self.bounds.hold(self.value)

    @property
    def word(self) -> str:
        return "kept" if self.is_kept else "MISSING" if self.value is None else "BROKEN"


def load_objectives(file: Path) -> dict[str, Bounds]:
    """Raises ``ValueError``: there is none in it, or one without a bound; ``OSError``."""
    try:
        objectives = msgspec.convert(tomllib.loads(file.read_text()), dict[str, Bounds])
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"{file}: {error}") from None
    if not objectives or not all(str(bounds) for bounds in objectives.values()):
        raise ValueError(f"{file}: at least one objective is needed, each with at_most or at_least")
    return objectives


def judge(objectives: Mapping[str, Bounds], results: Mapping[str, Any]) -> list[Verdict]:
    return [Verdict(path, bounds, _number_at(results, path)) for path, bounds in objectives.items()]


def _number_at(results: Mapping[str, Any], path: str) -> float | None:
    value: Any = results
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def table(verdicts: Sequence[Verdict]) -> str:
    width = max(len(verdict.path) for verdict in verdicts)
    return "\n".join(
        f"{verdict.path:<{width}}  {verdict.bounds!s:>10}  "
        f"{'-' if verdict.value is None else format(verdict.value, '.4g'):>10}  {verdict.word}"
        for verdict in verdicts
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.check_slo", description=__doc__)
    parser.add_argument("results", type=Path, help="results.json of a load")
    parser.add_argument("--objectives", type=Path, default=OBJECTIVES, help="default: %(default)s")
    args = parser.parse_args(arguments)
    try:
        verdicts = judge(load_objectives(args.objectives), json.loads(args.results.read_text()))
    except (OSError, ValueError) as error:
        print(f"check_slo: {error}", file=sys.stderr)
        return 2
    print(table(verdicts))
    return 0 if all(verdict.is_kept for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
