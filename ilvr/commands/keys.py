"""``ilvr keys``: make an API key, and look at those that a server would know."""

import argparse
import json
from pathlib import Path

from contracts.errors import BadSettings

DESCRIPTION = """\
API keys of a server. Only the SHA-256 of a key is ever written down.

examples:
  ilvr keys new --name web
  ilvr keys new --name batch --scope reason --rate 60 --burst 10 --max-open 8
  ilvr keys check keys.toml

'new' prints the key, which goes to whoever will use it and is not shown again, and below it the line for the file
that ILVR_SERVICE_API_KEYS_FILE names. A running server sees a changed file within a second.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ilvr keys``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    new = actions.add_parser("new", help="make a key and the line for the file")
    new.add_argument("--name", required=True, help="who it is for: letters, digits, - and _")
    new.add_argument(
        "--scope",
        action="append",
        choices=("reason", "images", "admin"),
        help="what it may do, once for each: ask and follow, upload, /metrics and /docs where they need a key "
        "(default: reason and images)",
    )
    new.add_argument("--rate", type=float, metavar="N", help="questions and uploads a minute, together with --burst")
    new.add_argument("--burst", type=int, metavar="N", help="how many of them at once")
    new.add_argument("--max-open", type=int, metavar="N", help="responses that may be open at once")
    new.add_argument("--json", action="store_true", help="the line as JSON, for ILVR_SERVICE_API_KEYS")
    check = actions.add_parser("check", help="read the keys as a server would, and list them")
    check.add_argument("file", type=Path, nargs="?", help="default: what ILVR_SERVICE_API_KEYS_FILE or …_KEYS says")


def run(args: argparse.Namespace) -> int:
    """Raises ``BadSettings``."""
    return _new(args) if args.action == "new" else _check(args.file)


def _new(args: argparse.Namespace) -> int:
    from service.keys import hash_of, new_token, parse_keys

    token = new_token()
    fields = {
        "sha256": hash_of(token),
        "scopes": args.scope or ["reason", "images"],
        "rate_per_minute": args.rate,
        "burst": args.burst,
        "max_open": args.max_open,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    as_json = json.dumps({args.name: given})
    parse_keys(as_json, "this key")  # what it prints, a server reads
    print(token)
    print(as_json if args.json else f"{args.name} = {_inline_table(given)}")
    return 0


def _inline_table(fields: dict[str, object]) -> str:
    """TOML on one line. Its strings, numbers and lists of them are written as JSON writes them."""
    return "{" + ", ".join(f"{name} = {json.dumps(value)}" for name, value in fields.items()) + "}"


def _check(file: Path | None) -> int:
    from service.key_source import open_keys, read_keys
    from service.settings import load_settings

    if file is not None:
        ring = read_keys(file)
    else:
        source = open_keys(load_settings())
        if source is None:
            raise BadSettings(
                "no file is given, and neither ILVR_SERVICE_API_KEYS_FILE nor ILVR_SERVICE_API_KEYS is set"
            )
        ring = source.now()
    for caller in ring:
        limit = caller.rate_limit
        rate = f"{limit.per_minute:g} a minute, {limit.burst} at once" if limit else "any rate"
        most = f"{caller.max_open} open" if caller.max_open else "any number open"
        print(f"{caller.owner}  {', '.join(sorted(caller.scopes))}  {rate}, {most}")
    print(f"{len(ring)} {'key' if len(ring) == 1 else 'keys'}")
    return 0
