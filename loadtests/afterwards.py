"""What the server still holds when all clients have gone."""

import re
import time

from loadtests.connection import get_text

GAUGES = ("responses_in_flight", "stream_readers")
# Longer than a stream whose reader is gone may go on by default (5 s).
SETTLE_S = 15.0


def held(host: str) -> dict[str, float]:
    """The gauges of the gateway, once they are 0 or after ``SETTLE_S``. One that is not exported is left out.

    Raises ``OSError``: the server does not answer.
    """
    deadline = time.monotonic() + SETTLE_S
    while True:
        text = get_text(host, "/metrics")
        found = {name: re.search(rf"^ilvr_gateway_{name} (\S+)$", text, re.MULTILINE) for name in GAUGES}
        values = {name: float(match[1]) for name, match in found.items() if match}
        if not any(values.values()) or time.monotonic() > deadline:
            return values
        time.sleep(0.2)
