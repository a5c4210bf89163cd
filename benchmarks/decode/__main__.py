"""Speed of decoding on a CPU, in parts that can be run one by one.

    python -m benchmarks.decode                    # all of them, some 40 minutes on 2 idle cores
    python -m benchmarks.decode --part a,roof      # these, and the others stay as they were measured
    python -m benchmarks.decode --quick --out DIR  # the embedded model, once: does it run?

a: throughput against plain transformers. roof: the matrix products alone. b, f: a latent step against a text step, and
without the head. c: latents off against stock vLLM. d: a latent block against a helper image. e: a second question
about a picture. g: a history with latent blocks. profile: where a step's time goes. Writes decode.json, decode.md and
profile.md. Run it on an otherwise idle machine: threads that wait for a core spin, and change every ratio.
"""

import argparse
import asyncio
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.decode import report
from benchmarks.decode.checkpoint import ROOT
from benchmarks.decode.environment import environment
from benchmarks.decode.figures import PartReport
from benchmarks.decode.plan import Plan, quick

PARTS = ("profile", "a", "roof", "b", "c", "d", "e", "g")  # (f) is measured with (b)
REPORTS = ROOT / "benchmarks" / "reports"


async def run_part(key: str, plan: Plan) -> Sequence[PartReport]:
    """Imports what it needs: vLLM reads the environment when it is imported."""
    if key == "a":
        from benchmarks.decode import throughput

        return [await throughput.measure(plan)]
    if key == "roof":
        from benchmarks.decode import roof

        return [await roof.measure(plan)]
    if key == "b":
        from benchmarks.decode import step_times

        return await step_times.measure(plan)
    if key == "c":
        from benchmarks.decode import stock

        return [await stock.measure(plan)]
    if key == "d":
        from benchmarks.decode import helper_image

        return [await helper_image.measure(plan)]
    if key == "e":
        from benchmarks.decode import second_question

        return [await second_question.measure(plan)]
    if key == "g":
        from benchmarks.decode import histories

        return [await histories.measure(plan)]
    from benchmarks.decode import step_profile

    return [await step_profile.measure(plan)]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write after each part, print the page. 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default=",".join(PARTS), help="some of %(default)s")
    parser.add_argument("--quick", action="store_true", help="the embedded model alone, once")
    parser.add_argument("--model", choices=Plan().models, help="one of them; both if not given")
    parser.add_argument(
        "--repetitions", type=int, help="that count, in all parts but (b), (c) and (f) (default: see plan.py)"
    )
    parser.add_argument("--threads", type=int, help=f"of either side (default {Plan().threads})")
    parser.add_argument("--out", type=Path, default=REPORTS, help="folder of the report (default benchmarks/reports)")
    args = parser.parse_args(argv)
    keys = args.part.split(",")
    if unknown := set(keys) - set(PARTS):
        parser.error(f"unknown parts {sorted(unknown)}; there are {', '.join(PARTS)}, and f is measured with b")
    words = sys.argv[1:] if argv is None else argv
    command = " ".join(["python -m benchmarks.decode", *words])
    plan = plan_of(args)
    parts = report.read(args.out / "decode.json")
    for key in (key for key in PARTS if key in keys):
        found: dict[str, Any] = {**environment(command), "threads": plan.threads}
        for part in asyncio.run(run_part(key, plan)):
            parts[part.key] = replace(part, environment=found)
            print(f"\n{part.markdown()}", flush=True)
        written = report.write(args.out, parts)
    print("written:", *written)
    return 0 if all(bar.is_met for part in parts.values() for bar in part.bars) else 1


def plan_of(args: argparse.Namespace) -> Plan:
    plan = quick() if args.quick else Plan()
    if args.model is not None:
        plan = replace(plan, models=(args.model,))
    if args.repetitions is not None:
        both = dict.fromkeys(plan.throughput_repetitions, args.repetitions)
        plan = replace(plan, repetitions=args.repetitions, throughput_repetitions=both, second_repetitions=both)
    if args.threads is not None:
        plan = replace(plan, threads=dict.fromkeys(plan.threads, args.threads))
    return plan


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
