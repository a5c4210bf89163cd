"""``ilvr ask``: one question to a running server, with its steps as they happen."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import GenerationFailed, InvalidRequest, NotReady
from ilvr.defaults import DEFAULT_URL

if TYPE_CHECKING:
    from ilvr.client import Events

# A person waits: a connection that breaks is made again, a server without room is left to them.
MAX_WAIT_S = 2.0

DESCRIPTION = """\
Ask a running server a question about images and watch it think: text as it comes, a bar for each latent step, then
the answer. Ctrl-C cancels the response on the server.

examples:
  ilvr ask maze.png "Find a safe path from S to G."
  ilvr ask before.png after.png "What has changed?" --max-tokens 256 --seed 7
  ilvr ask maze.png "Find a safe path from S to G." | tail -1          prints: answer: RRDD
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ilvr ask``."""
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="picture files, in order")
    parser.add_argument("question", metavar="QUESTION", help="what to ask, verbatim; write it after the images")
    parser.add_argument("--url", default=DEFAULT_URL, help=f"the server (default {DEFAULT_URL})")
    parser.add_argument("--api-key", metavar="KEY", help="key of a server that wants one (default: $ILVR_API_KEY)")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="text and latent steps together, at most")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 is greedy; default: the checkpoint's")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same sample")
    parser.add_argument("--latent", choices=("on", "off"), help="off: text only (default on)")
    parser.add_argument("--json", action="store_true", help="print the response object and nothing else")


def run(args: argparse.Namespace) -> int:
    """Ask and show; 0 if there was an answer.

    Raises:
        InvalidRequest: a file cannot be read, or the server refused the request.
        NotReady: no server is there, or it has no model ready.
        GenerationFailed, ConnectionFailed: the answer failed or the connection broke for good.
    """
    from ilvr.client import Client, UnexpectedAnswer

    if Path(args.question).is_file():
        raise InvalidRequest(f"the last argument is the question, but {args.question} is a file; add the question")
    given: dict[str, Any] = {name: getattr(args, name) for name in ("max_tokens", "temperature", "seed", "latent")}
    try:
        with (
            Client(args.url, api_key=args.api_key, max_wait_s=MAX_WAIT_S) as client,
            client.reason(args.images, args.question, stream=True, **given) as events,  # reads the files, asks nothing
        ):
            return _show(events, _latent_sizes(args), is_json=args.json)
    except UnexpectedAnswer as error:
        raise InvalidRequest(str(error)) from None


def _latent_sizes(args: argparse.Namespace) -> dict[str, int]:
    """K of each served model, for the length of the bar. Raises ``NotReady`` if no server is there."""
    from ilvr.client import Client, ConnectionFailed

    try:
        with Client(args.url, api_key=args.api_key, max_retries=0) as client:
            return {model["id"]: model["latent_size"] for model in client.models()}
    except ConnectionFailed as error:
        raise NotReady(f"no server answers at {args.url}; start it with: ilvr serve") from error


def _show(events: "Events", latent_sizes: dict[str, int], *, is_json: bool) -> int:
    from ilvr.step_view import JsonView, view_for

    view = JsonView(sys.stdout) if is_json else view_for(sys.stdout, sys.stderr, latent_sizes)
    try:
        for event in events:
            view.show(event)
    except KeyboardInterrupt:
        view.interrupt()
        raise
    ended = events.end.response
    if ended.error is not None:
        raise GenerationFailed(f"the response failed: {ended.error.message} ({ended.error.code})")
    return 0 if ended.status in ("completed", "incomplete") else 1
