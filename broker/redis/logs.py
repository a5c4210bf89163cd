"""Responses in Redis: the state of each and its events."""

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from broker.log import TERMINAL_TYPES
from broker.redis.keys import Keys, is_key_part
from broker.redis.link import Link
from broker.redis.news import ONLY_DELTAS
from contracts.errors import ResponseNotFound
from contracts.events import Created, Event, Queued, StepDelta, decode_event, encode_event
from contracts.jobs import Job

PAGE = 256
NEW_TTL_S = 60.0  # of a response that was not admitted yet
BEFORE_ANY = 0

ReleaseKind = Literal["lost", "given", "unused"]

encode_job = msgspec.msgpack.Encoder().encode
encode_ids = msgspec.msgpack.Encoder().encode
decode_ids = msgspec.msgpack.Decoder(tuple[int, ...]).decode
decode_job = msgspec.msgpack.Decoder(Job).decode


@dataclass(frozen=True, slots=True)
class State:
    """``gone``, ``void``, ``closed`` or ``open``; the rest is known of an open one."""

    status: str
    runner_id: str = ""
    epoch: int = 0
    is_cancel_asked: bool = False
    is_visible: bool = False
    claimed_key: str = ""
    job: Job | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    num_events: int
    claimed_key: str


@dataclass(frozen=True, slots=True)
class Leased:
    job: Job
    attempt: int
    num_events: int
    age_ms: int
    time_left_s: float | None


@dataclass(frozen=True, slots=True)
class Released:
    epoch: int
    num_lost: int
    is_cancel_asked: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What asking for the end of a response found: ``closed``, ``waiting``, ``running``, or ``read`` by others."""

    found: str
    epoch: int = 0
    read_for_s: float = 0.0


class Logs:
    """Raises ``BrokerUnavailable`` everywhere."""

    def __init__(self, link: Link, keys: Keys, *, ttl_s: float, keep_finished_s: float) -> None:
        self._link = link
        self._keys = keys
        self._ttl_ms = int(ttl_s * 1000)
        self._keep_ms = int(keep_finished_s * 1000)

    def channel(self, response_id: str) -> str:
        return self._keys.response(response_id)[1]

    async def create(self, job: Job, claimed_key: str) -> tuple[bool, str]:
        """A response that nobody can see yet. Returns whether there is one, and its deadline (ms, or empty)."""
        encoded = encode_job(job)
        decode_job(encoded)  # what nobody could read must not get in
        created = encode_event(Created(response_id=job.response_id, model=job.model, images=job.images))
        timeout_ms = "" if job.timeout_s is None else int(job.timeout_s * 1000)
        status, deadline = await self._run(
            "create", job.response_id, encoded, created, timeout_ms, int(NEW_TTL_S * 1000), claimed_key
        )
        return status == b"ok", deadline.decode()

    async def open(self, response_id: str, position: int | None) -> bool:
        """Make it visible; it waits at a position, or not. Returns whether it is there."""
        queued = b"" if position is None else encode_event(Queued(response_id=response_id, position=position))
        return bool(await self._run("open", response_id, queued, self._ttl_ms) == b"ok")

    async def void(self, response_id: str) -> bool:
        """Whether it is certain now that this id will never be a response."""
        return bool(await self._run("void", response_id, self._ttl_ms) == b"void")

    async def discard(self, response_id: str) -> bool:
        """Forget it, unless it is visible. Returns whether it is gone."""
        return bool(await self._run("discard", response_id))

    async def look(self, response_id: str) -> State:
        found = await self._run("look", response_id, self._ttl_ms)
        if len(found) == 1:
            return State(found[0].decode())
        status, runner_id, epoch, cancel, opened, claimed_key, job = found
        return State(
            status.decode(),
            runner_id=runner_id.decode(),
            epoch=int(epoch),
            is_cancel_asked=cancel == b"1",
            is_visible=opened == b"1",
            claimed_key=claimed_key.decode(),
            job=decode_job(job),
        )

    async def lease(self, response_id: str, runner_id: str, epoch: int) -> Leased | str:
        """The lease, or why there is none: ``over``, ``stale``, ``cancelled``, ``overdue``."""
        answer = await self._run("lease", response_id, runner_id, epoch, self._ttl_ms, response_id)
        if len(answer) == 1:
            return str(answer[0].decode())
        _, job, attempt, num_events, age_ms, left_ms = answer
        time_left_s = int(left_ms) / 1000 if left_ms else None
        return Leased(decode_job(job), int(attempt), int(num_events), int(age_ms), time_left_s)

    async def append(
        self,
        response_id: str,
        epoch: int,
        at_least: int,
        events: Sequence[Event],
        *,
        num_before: int | None = None,
        token_ids: Sequence[int] | None = None,
    ) -> Appended | str:
        """Or why not: ``lost``, ``behind``."""
        is_terminal = bool(events) and isinstance(events[-1], TERMINAL_TYPES)
        encoded = [encode_event(event) for event in events]
        answer = await self._run(
            "append",
            response_id,
            epoch,
            at_least,
            secrets.token_hex(8),
            int(is_terminal),
            self._ttl_ms,
            self._keep_ms,
            "" if num_before is None else num_before,
            "" if token_ids is None else encode_ids(token_ids),
            ONLY_DELTAS if all(isinstance(event, StepDelta) for event in events) else "",
            *encoded,
        )
        if answer[0] != b"ok":
            return str(answer[0].decode())
        return Appended(int(answer[1]), (answer[2] or b"").decode())

    async def end(
        self, response_id: str, make: Callable[[Job, Sequence[Event], float], Event], *, epoch: int | None = None
    ) -> tuple[Job, str] | None:
        """Append the terminal event, made of the job, the events so far and the age in ms.

        Returns the job and its idempotency key. Not if the response has moved on from ``epoch``, where one is given,
        or has ended: then it returns ``None``.
        """
        described = await self._run("describe", response_id, self._ttl_ms)
        if described is None:
            return None
        job, now_epoch = decode_job(described[0]), int(described[2])
        if epoch is not None and now_epoch != epoch:
            return None
        events = [event async for event in self.pages(response_id)]
        answer = await self.append(
            response_id, now_epoch, BEFORE_ANY, [make(job, events, round(float(described[3]), 3))]
        )
        return (job, answer.claimed_key) if isinstance(answer, Appended) else None

    async def release(self, response_id: str, runner_id: str, epoch: int, how: ReleaseKind) -> Released | str:
        """Take it from a runner; or ``gone``, ``stale``."""
        answer = await self._run("release", response_id, runner_id, epoch, how)
        if len(answer) == 1:
            return str(answer[0].decode())
        return Released(int(answer[1]), int(answer[2]), answer[3] == b"1")

    async def ask_cancel(self, response_id: str) -> Asked:
        """Raises ``ResponseNotFound``."""
        return _asked(response_id, await self._run("cancel", response_id))

    async def note_reading(self, response_id: str, reader: str, for_s: float) -> None:
        keys = self._keys.readers(response_id)
        if is_key_part(response_id):
            await self._link.run("note_reading", keys, reader, int(for_s * 1000))

    async def cancel_unread(self, response_id: str, reader: str) -> Asked:
        """In one try: after an outage words may have run out. Raises ``ResponseNotFound``."""
        if not is_key_part(response_id):
            raise not_found(response_id)
        answer = await self._link.run("cancel_unread", self._keys.readers(response_id), reader, once=True)
        return _asked(response_id, answer)

    async def job(self, response_id: str) -> Job:
        """Raises ``ResponseNotFound``."""
        found = await self._run("job", response_id)
        if found is None:
            raise not_found(response_id)
        return decode_job(found)

    async def token_ids(self, response_id: str) -> tuple[int, ...] | None:
        """Raises ``ResponseNotFound``."""
        found = await self._run("tokens", response_id)
        if found is None:
            raise not_found(response_id)
        return decode_ids(found) if found else None

    async def page(self, response_id: str, first: int) -> tuple[list[Event], int, bool]:
        """Events from a sequence number on, some of them; how many there are, and whether the last is terminal.

        Raises ``ResponseNotFound``.
        """
        found = await self._run("read", response_id, first, PAGE)
        if found is None:
            raise not_found(response_id)
        num_events, is_closed, entries = found
        return [_decode(entry) for entry in entries], int(num_events), is_closed == b"1"

    async def pages(self, response_id: str) -> AsyncIterator[Event]:
        """The log so far. Raises ``ResponseNotFound``."""
        position = 0
        while True:
            events, _, _ = await self.page(response_id, position)
            for event in events:
                yield event
            if len(events) < PAGE:
                return
            position = events[-1].sequence_number + 1  # the beginning of a long log may be trimmed

    async def _run(self, name: str, response_id: str, *args: Any) -> Any:
        if not is_key_part(response_id):
            raise not_found(response_id)
        return await self._link.run(name, self._keys.response(response_id), *args)


def not_found(response_id: str) -> ResponseNotFound:
    return ResponseNotFound(f"No response {response_id} is known (any more).")


def _asked(response_id: str, answer: Any) -> Asked:
    found = answer[0].decode()
    if found == "gone":
        raise not_found(response_id)
    if found == "read":
        return Asked(found, read_for_s=answer[1] / 1000)
    return Asked(found, epoch=int(answer[2]) if found == "waiting" else 0)


def _decode(entry: Any) -> Event:
    """The number of an event is that of its entry, less one."""
    entry_id, (_, data) = entry
    number = int(entry_id.partition(b"-")[0]) - 1
    return msgspec.structs.replace(decode_event(data), sequence_number=number)
