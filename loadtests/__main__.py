"""``python -m loadtests``: a load, its results and the verdict on them. ``make loadtest ARGS=…`` is the same."""

import argparse
import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests.afterwards import held
from loadtests.check_slo import OBJECTIVES, judge, load_objectives, table
from loadtests.connection import get_json
from loadtests.own_server import own_server
from loadtests.profile import Profile, Stage, load_profile
from loadtests.recorder import Recorder
from loadtests.report import page
from loadtests.results import summary, write_csv

ROOT = Path(__file__).parent.parent
DEFAULT_HOST = "http://127.0.0.1:8000"
# Beyond what requests have to end in, for locust itself.
STOP_SLACK_S = 5
INTERRUPTED = 130
DESCRIPTION = """\
Put a load on a server and check what came of it. Without --host it starts `ilvr serve` with the embedded model on a
free port, and stops it afterwards; --host alone means http://127.0.0.1:8000. A key is taken from ILVR_API_KEY.

examples:
  python -m loadtests                                       the profile `steady`, five minutes, on a server of its own
  python -m loadtests --host --rate 20 --seconds 60         20 requests a second, whatever the server does
  python -m loadtests --host --profile crowd                closed loop: 1, 8 and 32 users, each waits for its answer
  python -m loadtests --host --kinds chat=1,chat_stream=1   OpenAI's format instead
  python -m loadtests --host http://gateway:8000 --processes 4
  python -m loadtests --host http://gateway:8000 --expect-workers 2    and on two other machines:
  python -m loadtests --worker-of THIS-MACHINE

The open loop is the default: a request comes when it is due, and its times count from then, so a server that falls
behind cannot slow down those who ask. Profiles are TOML files in loadtests/profiles; options change single values.
The folder of --out then holds report.html, results.json, metrics.csv, over_time.csv and locust's own locust.html and
CSV files. Exit status 1: an objective is broken or its number is missing; 2: there was no load.
"""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", nargs="?", const=DEFAULT_HOST, help="a running server; without it one is started")
    parser.add_argument("--profile", default="steady", help="name or .toml file (default %(default)s)")
    parser.add_argument("--loop", choices=("open", "closed"), help="arrivals at their time, or users that wait")
    parser.add_argument("--arrivals", choices=("poisson", "even"), help="in bunches as people, or like a metronome")
    parser.add_argument("--rate", type=float, help="requests a second (open) or users (closed), in one stage")
    parser.add_argument("--seconds", type=float, help="length of that stage (default 60)")
    parser.add_argument(
        "--kinds", type=_kinds, help="weights: json, form, stream, chat, chat_stream; as json=1,stream=2"
    )
    parser.add_argument("--repeated-share", type=float, help="share of requests with one of a few pictures")
    parser.add_argument("--cancel-share", type=float, help="share of streams that are cancelled once they have begun")
    parser.add_argument(
        "--hang-up-share", type=float, help="share of streams whose client goes away once they have begun"
    )
    parser.add_argument("--slow-reader-share", type=float, help="share of streams that are read a little at a time")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--seed", type=int, help="of arrivals, pictures and kinds")
    parser.add_argument("--objectives", type=Path, default=OBJECTIVES, help="TOML file (default %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "loadtest", help="folder, emptied before")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--processes", type=int, help="so many processes of locust on this machine")
    where.add_argument("--expect-workers", type=int, metavar="N", help="be the master of N workers elsewhere")
    where.add_argument("--worker-of", metavar="MASTER", help="be one of these workers; all else comes from the master")
    parser.add_argument("--master-port", type=int, default=5557, help="(default %(default)s)")
    return parser


def _kinds(text: str) -> dict[str, float]:
    return {name: float(weight) for name, _, weight in (part.partition("=") for part in text.split(","))}


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if args.worker_of:
        where = ["--worker", "--master-host", args.worker_of, "--master-port", str(args.master_port)]
        return subprocess.run([*LOCUST, *where], cwd=ROOT).returncode
    try:
        profile, objectives = load_profile(args.profile, _changes(args)), load_objectives(args.objectives)
    except (OSError, ValueError) as error:
        print(f"loadtests: {error}", file=sys.stderr)
        return 2
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    try:
        with contextlib.ExitStack() as stack:
            host = args.host.rstrip("/") if args.host else stack.enter_context(own_server())
            results = _load(host, profile, args)
    except (OSError, RuntimeError) as error:
        print(f"loadtests: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    verdicts = judge(objectives, results)
    (args.out / "results.json").write_text(json.dumps(results, indent=1))
    write_csv(results, args.out)
    (args.out / "report.html").write_text(page(results, verdicts))
    print(f"{table(verdicts)}\n{args.out / 'report.html'}")
    return 0 if all(verdict.is_kept for verdict in verdicts) else 1


def _changes(args: argparse.Namespace) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(Profile)}
    changes = {name: value for name, value in vars(args).items() if name in names and value is not None}
    if args.rate is not None:
        changes["stages"] = [dataclasses.asdict(Stage(seconds=args.seconds or 60.0, level=args.rate))]
    elif args.seconds is not None:
        raise ValueError("--seconds goes with --rate; the stages of a profile have their own")
    return changes


def _load(host: str, profile: Profile, args: argparse.Namespace) -> dict[str, Any]:
    """Raises ``OSError``: there is no server; ``RuntimeError``: locust did not come to its end."""
    server = get_json(host, "/version")
    get_json(host, "/readyz")
    record = args.out / "record.json"
    num_processes = args.processes or args.expect_workers or 1
    plan = json.dumps({**dataclasses.asdict(profile), "num_processes": num_processes})
    command = [*LOCUST, "--host", host, "--plan", plan, "--record", str(record), "--only-summary"]
    command += ["--csv", str(args.out / "locust"), "--html", str(args.out / "locust.html")]
    command += ["--stop-timeout", str(int(profile.drain_s) + STOP_SLACK_S), "--exit-code-on-error", "0"]
    if args.processes:
        command += ["--processes", str(args.processes), "--master-bind-port", str(args.master_port)]
        command += ["--master-port", str(args.master_port)]
    elif args.expect_workers:
        command += ["--master", "--expect-workers", str(num_processes), "--master-bind-port", str(args.master_port)]
    began_at, began_s = datetime.now(UTC), time.monotonic()
    status = subprocess.run(command, cwd=ROOT).returncode
    if status != 0 or not record.exists():
        raise RuntimeError(f"locust ended with status {status}")
    recorder = Recorder(profile.window_s)
    recorder.add(json.loads(record.read_text()))
    record.unlink()
    return {
        "host": host,
        "began_at": began_at.isoformat(timespec="seconds"),
        "took_s": round(time.monotonic() - began_s, 1),
        "server": server,
        "profile": dataclasses.asdict(profile),
        **summary(profile, recorder),
        "afterwards": held(host),
    }


LOCUST = [sys.executable, "-m", "locust", "-f", str(Path(__file__).parent / "locustfile.py"), "--headless"]

if __name__ == "__main__":
    sys.exit(main())
