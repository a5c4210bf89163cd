"""Server-sent events, parsed to the letter."""

import json
from collections.abc import Iterable, Iterator
from typing import Any


def parse_sse(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Events as their data, after a check that ``id``, ``event`` and ``data`` agree. Comments are skipped."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            event = json.loads(fields["data"])
            assert fields["event"] == event["type"]
            assert int(fields["id"]) == event["sequence_number"]
            fields = {}
            yield event
