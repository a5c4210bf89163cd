"""The queue in Redis: who waits, who works on what, and which runners there are."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from broker.limits import MIB, BrokerLimits
from broker.rate import retry_after_s
from broker.redis.keys import Keys
from broker.redis.link import Link
from contracts.broker import RunnerStatus
from contracts.errors import Overloaded, RateLimited
from contracts.jobs import Job

AFFINITY_S = 300.0  # how long a runner is taken to have the encoding of an image that it has worked on
WALK = 50
MS = 1000

encode_status = msgspec.json.Encoder().encode
decode_status = msgspec.json.Decoder(RunnerStatus).decode


@dataclass(frozen=True, slots=True)
class Offered:
    """A job that waits or was taken; ``epoch`` is that of its response when it was offered."""

    response_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Held:
    """A job that a runner has; of a response that it may not have leased yet."""

    response_id: str
    epoch: int
    runner_id: str
    for_s: float = 0.0
    is_runner_known: bool = True


@dataclass(frozen=True, slots=True)
class Findings:
    """Of a sweep."""

    lost: Sequence[Held]
    unserved: Sequence[Offered]
    overdue: Sequence[tuple[Offered, bool]]
    """With whether it waits."""


class Queue:
    """Raises ``BrokerUnavailable`` everywhere."""

    def __init__(self, link: Link, keys: Keys, limits: BrokerLimits, *, ttl_s: float, affinity_s: float) -> None:
        """affinity_s: how long a job waits at most for the runner that knows its images."""
        self._link = link
        self._keys = keys
        self._limits = limits
        self._ttl_ms = int(ttl_s * MS)
        self._reserved_ms = int(affinity_s * MS)

    async def admit(self, job: Job, num_bytes: int, max_open: int | None, deadline_ms: str) -> int | None:
        """Returns the position at which it waits, ``None`` if there is room for it.

        Raises ``Overloaded``, ``RateLimited``.
        """
        limits = self._limits
        answer = await self._run(
            "admit",
            job.response_id,
            job.owner,
            num_bytes,
            "" if max_open is None else max_open,
            deadline_ms,
            limits.max_waiting,
            limits.num_reserved,
            limits.max_waiting_bytes,
            limits.reserved_bytes,
            int(AFFINITY_S * MS),
            self._reserved_ms,
            *dict.fromkeys(image.id for image in job.images),
        )
        if answer[0] == b"owner":
            raise RateLimited(f"{answer[1]} requests of this key are open, which is as many as it may have.")
        if answer[0] != b"ok":
            raise self._overloaded(answer)
        return int(answer[2]) if int(answer[1]) >= 0 else None

    async def check_room(self, num_bytes: int, owner: str) -> None:
        """Raises ``Overloaded``."""
        limits = self._limits
        answer = await self._run(
            "check_room",
            owner,
            num_bytes,
            limits.max_waiting,
            limits.num_reserved,
            limits.max_waiting_bytes,
            limits.reserved_bytes,
        )
        if answer is not None:
            raise self._overloaded(answer)

    async def take(self, runner_id: str, room: int, token: str) -> tuple[list[Offered], float | None]:
        """Jobs that are the runner's to lease now; else in how many seconds to look again, if that is known."""
        answer = await self._run("take", runner_id, room, token)
        return _pairs(answer[1:]), answer[0] / MS if answer[0] >= 0 else None

    async def untake(self, runner_id: str, token: str) -> list[Offered]:
        return _pairs(await self._run("untake", runner_id, token))

    async def reoffer(self, held: Held, new_epoch: int) -> None:
        await self._run("reoffer", held.response_id, held.runner_id, held.epoch, new_epoch)

    async def settle(self, response_id: str, *, has_ended: bool = True) -> list[str] | None:
        """Returns its images; ``None`` if it was settled before."""
        images = await self._run("settle", response_id, int(has_ended))
        return None if images is None else [image.decode() for image in images]

    async def ask_runner(self, response_id: str) -> None:
        await self._run("ask_runner", response_id)

    async def asked(self, runner_id: str) -> set[str]:
        return {response_id.decode() for response_id in await self._run("asked", runner_id)}

    async def heartbeat(self, status: RunnerStatus) -> None:
        await self._run("heartbeat", status.runner_id, encode_status(status), int(status.is_ready))

    async def runners(self) -> list[RunnerStatus]:
        answer = await self._run("runners", int(self._limits.runner_silence_s * MS))
        return sorted((decode_status(status) for status in answer if status), key=lambda status: status.runner_id)

    async def is_any_ready(self, *, besides: str) -> bool:
        return any(status.is_ready and status.runner_id != besides for status in await self.runners())

    async def farewell(self, runner_id: str) -> None:
        await self._run("farewell", runner_id)

    async def held(self, runner_id: str, *, for_s: float) -> list[Held]:
        answer = await self._run("held", runner_id, int(for_s * MS))
        return [Held(pair.response_id, pair.epoch, runner_id) for pair in _pairs(answer)]

    async def sweep(self, *, interval_s: float, is_hurry: bool) -> Findings | None:
        """``None`` if somebody else has just swept."""
        limits = self._limits
        seconds = (interval_s, limits.runner_silence_s, limits.no_runner_grace_s, limits.deadline_slack_s)
        answer = await self._run("sweep", *(int(each * MS) for each in seconds), int(is_hurry), int(AFFINITY_S * MS))
        if answer is None:
            return None
        lost, unserved, overdue = answer
        return Findings(
            [
                Held(response_id.decode(), int(epoch), runner_id.decode())
                for runner_id, response_id, epoch in zip(lost[::3], lost[1::3], lost[2::3], strict=True)
            ],
            _pairs(unserved),
            _overdue(overdue),
        )

    async def overdue(self) -> tuple[list[tuple[Offered, bool]], float | None]:
        """Jobs whose time is up, with whether each waits; and in how many seconds the next one's will be, if any."""
        next_ms, overdue = await self._run("overdue", int(self._limits.deadline_slack_s * MS))
        return _overdue(overdue), None if next_ms < 0 else next_ms / MS

    async def walk(self, cursor: str) -> tuple[str, list[Held]]:
        """Some of the open jobs, and where to go on; ``0`` is the beginning. ``runner_id`` is empty if a job waits."""
        answer = await self._run("walk", cursor, WALK)
        return answer[0].decode(), [
            Held(response_id.decode(), int(epoch), runner_id.decode(), held_ms / MS, bool(is_known))
            for response_id, runner_id, epoch, held_ms, is_known in answer[1:]
        ]

    def _overloaded(self, answer: Any) -> Overloaded:
        reason, num_waiting, num_ahead, waiting_bytes, max_bytes, num_ended, span_ms = answer
        if reason == b"full":
            message = f"{num_ahead} requests are waiting, which is as many as the queue admits."
        else:
            message = (
                f"Requests of {waiting_bytes / MIB:.1f} MiB are waiting, and with this one there would be more than "
                f"the {max_bytes / MIB:.1f} MiB that the queue admits."
            )
        return Overloaded(message, retry_after_s=retry_after_s(num_waiting, num_ended, span_ms / MS))

    async def _run(self, name: str, *args: Any) -> Any:
        return await self._link.run(name, self._keys.queue, self._ttl_ms, *args)


def new_token() -> str:
    return secrets.token_hex(8)


def _pairs(answer: Any) -> list[Offered]:
    return [
        Offered(response_id.decode(), int(epoch)) for response_id, epoch in zip(answer[::2], answer[1::2], strict=True)
    ]


def _overdue(answer: Any) -> list[tuple[Offered, bool]]:
    return [
        (Offered(response_id.decode(), int(epoch)), bool(waits))
        for response_id, epoch, waits in zip(answer[::3], answer[1::3], answer[2::3], strict=True)
    ]
