"""``ilvr ask``: one question to a running server, with its steps as they happen."""

import argparse
import base64
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import EngineDead, GenerationFailed, InvalidRequest, NotReady
from ilvr.defaults import DEFAULT_URL

if TYPE_CHECKING:
    import httpx

    from contracts.events import Event

# The server pings every 10 s; three missed pings are a dead connection.
READ_TIMEOUT_S = 30.0
CANCEL_TIMEOUT_S = 5.0

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
        GenerationFailed, EngineDead: the answer failed or the connection broke.
    """
    import httpx

    request = _request(args)
    url = httpx.URL(args.url.rstrip("/"))
    # A proxy that the environment names is not asked about this machine.
    is_local = url.host in ("localhost", "127.0.0.1", "::1")
    timeout = httpx.Timeout(10.0, read=READ_TIMEOUT_S)
    try:
        with httpx.Client(base_url=url, timeout=timeout, trust_env=not is_local) as client:
            return _ask(client, request, is_json=args.json)
    except httpx.ConnectError:
        raise NotReady(f"no server answers at {args.url}; start it with: ilvr serve") from None
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise InvalidRequest(f"--url {args.url}: {error}") from None
    except httpx.TransportError as error:
        raise EngineDead(f"the connection to {args.url} broke: {error or type(error).__name__}") from None


def _request(args: argparse.Namespace) -> dict[str, Any]:
    if Path(args.question).is_file():
        raise InvalidRequest(f"the last argument is the question, but {args.question} is a file; add the question")
    if any("\ud800" <= character <= "\udfff" for character in args.question):
        raise InvalidRequest("the question is not valid UTF-8")
    if args.temperature is not None and not math.isfinite(args.temperature):
        raise InvalidRequest(f"--temperature must be a finite number, not {args.temperature}")
    optional = {
        "max_tokens": args.max_tokens,
        "temperature": args.temperature,
        "seed": args.seed,
        "latent": args.latent and {"mode": args.latent},
    }
    return {
        "question": args.question,
        "images": [{"type": "base64", "data": _read_base64(path)} for path in args.images],
        "stream": True,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _read_base64(path: Path) -> str:
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}") from None


def _ask(client: "httpx.Client", request: Mapping[str, Any], *, is_json: bool) -> int:
    import httpx

    from ilvr.step_view import JsonView, view_for

    view = JsonView(sys.stdout) if is_json else view_for(sys.stdout, sys.stderr, _latent_sizes(client))
    response_id = None
    try:
        with client.stream("POST", "/v1/reason", json=request) as answer:
            if answer.status_code != httpx.codes.OK:
                raise _refused(answer)
            for event in _events(answer):
                response_id = event.response_id
                view.show(event)
    except KeyboardInterrupt:
        if response_id is not None:
            with suppress(httpx.HTTPError):  # then the server notices by itself that nobody reads any more
                client.post(f"/v1/reason/{response_id}/cancel", timeout=CANCEL_TIMEOUT_S)
        view.interrupt()
        raise
    if view.ended is None:
        raise EngineDead(f"the stream broke off; GET {client.base_url}v1/reason/{response_id} has what came of it")
    if view.ended.error is not None:
        raise GenerationFailed(f"the response failed: {view.ended.error.message} ({view.ended.error.code})")
    return 0 if view.ended.status in ("completed", "incomplete") else 1


def _events(answer: "httpx.Response") -> Iterator["Event"]:
    """Of a stream. Split by hand: ``iter_lines`` also breaks at U+2028 and the like, which a text may hold."""
    from contracts.events import decode_event

    waiting = b""
    for chunk in answer.iter_bytes():
        *lines, waiting = (waiting + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data: "):
                yield decode_event(line.removeprefix(b"data: "))


def _latent_sizes(client: "httpx.Client") -> dict[str, int]:
    """K of each served model, for the length of the bar."""
    answer = client.get("/v1/models")
    try:
        return {model["id"]: model["latent_size"] for model in answer.json()["data"]}
    except (ValueError, KeyError, TypeError):
        return {}  # not our server; the question will tell


def _refused(answer: "httpx.Response") -> InvalidRequest | NotReady:
    answer.read()
    try:
        message = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return InvalidRequest(f"{answer.url} answered HTTP {answer.status_code}; is that an ilvr server?")
    return (NotReady if answer.status_code == 503 else InvalidRequest)(f"the server refused: {message}")
