"""The connection to Redis: bounded retries, and one line in the log for each outage."""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from typing import Any

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from broker.redis.scripts import script
from broker.redis.servers import open_servers
from broker.settings import BrokerSettings
from contracts.errors import BrokerUnavailable

log = logging.getLogger(__name__)

UNREACHABLE = (
    ConnectionError,
    TimeoutError,
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
    OSError,
)
# What Redis answers while it takes no writes: its disk fails, its replicas are gone, a script of somebody's hangs.
# redis-py knows no classes for them.
REFUSALS = ("MISCONF", "NOREPLICAS", "BUSY")
CLOSED_TRANSPORT = "the handler is closed"  # a RuntimeError of uvloop, where asyncio has a ConnectionError
MAYBE_UNREACHABLE = (*UNREACHABLE, ResponseError, RuntimeError)  # to catch, and to ask about
CONNECT_S = 2.0
ANSWER_S = 3.0
RETRY_S = 4.0  # from the first failure of a call until it gives up
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 0.5
Argument = str | bytes | int | float


class Link:
    """Runs scripts. Any number of calls at once."""

    def __init__(self, settings: BrokerSettings) -> None:
        assert settings.redis_url is not None
        options: dict[str, Any] = {
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": CONNECT_S,
            "socket_timeout": ANSWER_S,
            "socket_keepalive": True,
            "protocol": 2,
        }
        if settings.redis_password is not None:
            options["password"] = settings.redis_password.get_secret_value()
        self._servers = open_servers(settings.redis_url, is_cluster=settings.redis_cluster, wait_s=ANSWER_S, **options)
        self._down_since: float | None = None
        self._failed_at = -math.inf
        self._refused: set[str] = set()  # scripts, in this outage

    @property
    def good_for_s(self) -> float:
        """How long ago a call last found that Redis was away. Sweeps call once a second, so an outage is noticed."""
        return time.monotonic() - self._failed_at

    async def run(
        self, name: str, keys: Sequence[str], *args: Argument, alone: bool = False, once: bool = False
    ) -> Any:
        """The answer of a script. ``alone``: what goes or comes may be large, and nothing small should wait behind it.
        ``once``: it is not repeated, since what it does may be wrong after an outage.

        Raises ``BrokerUnavailable``.
        """
        wanted = script(name)
        told = (len(keys), *keys, *args)
        give_up_at, pause_s = time.monotonic() + RETRY_S, FIRST_PAUSE_S
        while True:
            try:
                try:
                    answer = await self._servers.execute(keys[0], "EVALSHA", wanted.sha, *told, alone=alone)
                except NoScriptError:  # a server that has just started, or SCRIPT FLUSH
                    answer = await self._servers.execute(keys[0], "EVAL", wanted.source, *told, alone=alone)
            except MAYBE_UNREACHABLE as error:
                if not is_unreachable(error):
                    raise
                self._note_down(name, error)
                # When it has been away for so long, a caller does not have to wait for the same news again.
                has_been_away = time.monotonic() - (self._down_since or math.inf) > RETRY_S
                if once or has_been_away or time.monotonic() + pause_s > give_up_at:
                    raise BrokerUnavailable("The broker cannot be reached. Try again shortly.") from error
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            self._note_up(name)
            return answer

    async def subscriber(self) -> Any:
        """A client for pub/sub."""
        return await self._servers.any_client()

    async def aclose(self) -> None:
        await self._servers.aclose()

    def _note_down(self, name: str, error: BaseException) -> None:
        if isinstance(error, ResponseError):
            self._refused.add(name)
        self._failed_at = time.monotonic()
        if self._down_since is None:
            self._down_since = time.monotonic()
            log.warning("Redis cannot be reached (%s); trying again until it can", _reason(error))

    def _note_up(self, name: str) -> None:
        """A Redis that takes no writes lets itself be read, so only what was refused says that it is over."""
        if self._down_since is not None and (not self._refused or name in self._refused):
            log.warning("Redis is there again after %.1f s", time.monotonic() - self._down_since)
            self._down_since = None
            self._refused.clear()


def is_unreachable(error: BaseException) -> bool:
    """Of what was caught: whether it only says that there is no connection, or that nothing may be written now."""
    is_refusal = isinstance(error, ResponseError) and str(error).partition(" ")[0] in REFUSALS
    return isinstance(error, UNREACHABLE) or is_refusal or CLOSED_TRANSPORT in str(error)


def _reason(error: BaseException) -> str:
    """One line; redis-py's messages hold addresses, never a password."""
    return " ".join(str(error).split()) or type(error).__name__
