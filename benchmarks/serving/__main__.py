"""The service beside vLLM's own server and beside plain transformers, over HTTP, in one run.

    python -m benchmarks.serving                    # both models: some 40 minutes on 2 idle cores
    python -m benchmarks.serving --model embedded   # this one, and the other stays as it was measured
    python -m benchmarks.serving --quick --out DIR  # the embedded model, once: does it run?

Writes serving.json and serving.md. Run it on an otherwise idle machine. Ends with 1 if a bar is missed.
"""

import argparse
import asyncio
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from benchmarks.decode.checkpoint import ROOT
from benchmarks.decode.environment import environment
from benchmarks.serving import report
from benchmarks.serving.measure import measure
from benchmarks.serving.plan import Plan, quick

REPORTS = ROOT / "benchmarks" / "reports"
STARTED_S = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - STARTED_S:6.0f} s] {text}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write after each model, print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the embedded model alone, once")
    parser.add_argument("--model", choices=Plan().models, help="one of them; both if not given")
    parser.add_argument("--out", type=Path, default=REPORTS, help="folder of the report (default benchmarks/reports)")
    args = parser.parse_args(argv)
    plan = quick() if args.quick else Plan()
    command = " ".join(["python -m benchmarks.serving", *(sys.argv[1:] if argv is None else argv)])
    measured = report.read(args.out / "serving.json")
    text = ""
    for name in (args.model,) if args.model else plan.models:
        known = environment(command)
        measured[name] = {"environment": known, "found": asyncio.run(measure(name, plan, say))}
        text = report.write(args.out, measured)
    print(text)
    return 0 if report.all_met(measured) else 1


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
