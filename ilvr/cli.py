"""The one command line, ``ilvr``.

Each command is a module in ``ilvr.commands`` with ``SUMMARY``, ``add_arguments(parser)`` and ``run(args)``.
Modules are imported only when their command is the one typed, so that ``ilvr --help`` and ``ilvr maze`` import
neither torch nor FastAPI.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from contracts.errors import IlvrError

# The summaries stand here, not in the modules, so that ``ilvr --help`` imports none of them.
COMMANDS = {
    "serve": "start gateway, broker and engine: one process tree, one line when ready",
    "gateway": "start the HTTP API of a fleet, on Redis; no engine needed",
    "runner": "start an engine of a fleet, on Redis",
    "keys": "make API keys, and look at those of a server",
    "ask": "ask a running server about an image and watch it think",
    "maze": "draw a maze picture with its question and solution",
    "data": "make data to train on, and check data before training",
    "train": "train a checkpoint from a named recipe",
    "evaluate": "measure accuracy, latency and whether the latents matter",
    "convert": "turn a published checkpoint into safetensors with a manifest, ready to serve",
    "doctor": "check this machine and environment",
}

EPILOG = """\
a first session:
  ilvr serve                                     the embedded maze model on port 8000
  ilvr maze --size 4 --seed 7 --out maze.png     a real picture
  ilvr ask maze.png "Find a safe path from S to G."

'ilvr COMMAND --help' says what a command takes.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 for a failure that was explained, or 2 for wrong usage."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="ilvr",
        description="Serve and train models that reason in text and in latent visual steps.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ilvr {_version()}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = next((word for word in argv if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        sub = subparsers.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == named:
            module = importlib.import_module(f"ilvr.commands.{name}")
            sub.description = module.DESCRIPTION
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        status: int = args.run(args)
    except IlvrError as error:
        print(f"ilvr {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _version() -> str:
    from importlib.metadata import version

    return version("ilvr")
