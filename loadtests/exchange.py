"""One request from when it is due to its end, whatever that is; what came of it goes into the recorder."""

import http.client
import json
import time
from collections.abc import Callable

from loadtests.bodies import Posted, posted
from loadtests.connection import Connection
from loadtests.mix import Ask
from loadtests.profile import Profile
from loadtests.recorder import CANCEL, LATENT_BLOCK, TIME_TO_ANSWER, Recorder
from loadtests.streams import ChatStream, ReasonStream, Stream

SLOW_PAUSE_S = 0.05
REFUSALS = (429, 503)


class Exchange:
    """``due_s`` counts from ``began_at``, a time of the clock. Latencies are from then, not from when it was sent."""

    def __init__(
        self, host: str, model: str, profile: Profile, ask: Ask, recorder: Recorder, *, began_at: float, due_s: float
    ) -> None:
        self._host = host
        self._profile = profile
        self._ask = ask
        self._posted: Posted = posted(ask, profile, model)
        self._recorder = recorder
        self._due_s = due_s
        self._due_at = began_at + due_s
        self._is_over = False
        self.outcome = "unfinished"
        self.reason: str | None = None
        self.num_bytes = 0

    @property
    def name(self) -> str:
        return self._ask.name

    @property
    def path(self) -> str:
        return self._posted.path

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._due_at

    def run(self) -> None:
        """Until its end, or until it is killed, which is the end of the load: then it counts as unfinished."""
        self._recorder.began(self._due_s, max(self.age_s, 0.0), self._ask.is_repeated)
        connection = Connection(self._host, self._profile.timeout_s, is_slow=self._ask.manner == "slow")
        try:
            self._talk(connection)
        except (OSError, http.client.HTTPException) as error:
            self.outcome, self.reason = "failed", f"{type(error).__name__}: {error}"
        except (ValueError, KeyError) as error:
            self.outcome, self.reason = "failed", f"an answer that cannot be read: {error!r}"
        finally:
            connection.close()
            self.num_bytes = connection.num_bytes
            # Who is still waiting has waited so long at least, and is not to be left out of the times.
            if self.outcome == "unfinished" or (self.outcome == "answered" and self._ask.manner != "slow"):
                self._tell(TIME_TO_ANSWER, self.age_s)
            self._recorder.ended(self.name, self._due_s, self.outcome, self.reason)

    def _talk(self, connection: Connection) -> None:
        response = connection.post(self._posted.path, self._posted.body, self._posted.content_type)
        if response.status != 200:
            body = response.read()
            self.outcome = "refused" if response.status in REFUSALS else "failed"
            self.reason = f"{response.status} {_code(body)}".strip()
        elif self._posted.is_stream:
            self._read_stream(connection, response)
        else:
            body = response.read()
            connection.num_bytes = len(body)
            self._read_whole(body)

    def _read_whole(self, body: bytes) -> None:
        answer = json.loads(body)
        if "choices" in answer:
            self.outcome = "answered"
            return
        for step in answer["steps"]:
            if step["type"] == "latent":
                self._tell(LATENT_BLOCK, step["duration_ms"] / 1000)
        if answer["status"] in ("completed", "incomplete"):
            self.outcome = "answered"
        else:
            self.outcome, self.reason = "failed", answer["status"]

    def _read_stream(self, connection: Connection, response: http.client.HTTPResponse) -> None:
        manner = self._ask.manner
        tell: Callable[[str, float], None] = self._tell if manner != "slow" else lambda measure, seconds: None
        stream: Stream = (ChatStream if self._ask.kind == "chat_stream" else ReasonStream)(self._due_at, tell)
        cancelled_at: float | None = None
        for line in connection.lines(response):
            stream.hear(line, time.monotonic())
            if stream.has_begun and manner == "hang_up":
                self.outcome = "left"
                return
            if stream.has_begun and manner == "cancel" and cancelled_at is None and isinstance(stream, ReasonStream):
                cancelled_at = time.monotonic()
                self._cancel(stream.response_id)
            if manner == "slow":
                time.sleep(SLOW_PAUSE_S)
        if stream.end is None:
            self.outcome, self.reason = "failed", "the stream broke off"
            return
        if cancelled_at is not None:
            self._tell(CANCEL, time.monotonic() - cancelled_at)
        self.outcome, self.reason = stream.end, stream.reason

    def _cancel(self, response_id: str | None) -> None:
        connection = Connection(self._host, self._profile.timeout_s)
        try:
            response = connection.post(f"/v1/reason/{response_id}/cancel", b"", "application/json")
            response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise OSError(f"cancel was answered with {response.status}")

    def _tell(self, measure: str, seconds: float) -> None:
        self._recorder.time(measure, self.name, self._due_s, seconds)


def _code(body: bytes) -> str:
    """Of an error of the server; nothing where it is from something before it, as a proxy's page is."""
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""
