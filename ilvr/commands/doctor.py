"""``ilvr doctor``: is this machine and environment able to serve, and if not, what to do."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ilvr.defaults import DEFAULT_PORT, EMBEDDED_MODEL

if TYPE_CHECKING:
    from rich.console import Console

    from ilvr.checks import Check

DESCRIPTION = """\
Check this machine and environment and say what to do about each thing that is wrong. The exit status is 1 if
something stands in the way of 'ilvr serve'.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ilvr doctor``."""
    parser.add_argument("--model", type=Path, default=EMBEDDED_MODEL, metavar="DIR", help="the checkpoint to look at")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"the port to look at (default {DEFAULT_PORT})")


def run(args: argparse.Namespace) -> int:
    """Print a table; 1 if a check failed."""
    from rich.console import Console

    from ilvr import checks

    console = Console()
    with console.status("importing torch as the engine will, which takes some seconds"):
        found = [
            checks.python_version(),
            *checks.packages(),
            *checks.engine(),
            checks.cores(),
            checks.memory(),
            checks.port(args.port),
            checks.model_folder(args.model),
            checks.redis(),
        ]
    _print(console, found)
    num_failed = sum(check.status is checks.Status.FAIL for check in found)
    if num_failed:
        print(f"{num_failed} {'thing stands' if num_failed == 1 else 'things stand'} in the way of: ilvr serve")
        return 1
    print("ready for: ilvr serve")
    return 0


def _print(console: "Console", found: Sequence["Check"]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}
    table = Table("check", "", "found", "what to do", box=box.SIMPLE_HEAD)
    for check in found:
        status = Text(check.status.value, style=styles[check.status.value])
        # Text, not str: rich would take brackets in a version or a path for markup.
        table.add_row(Text(check.name), status, Text(check.found), Text(check.advice))
    console.print(table)
