"""Calls of one moment in one pipeline.

A step of an engine ends with an event for each response in its batch, each written by a task of its own. Sent one by
one, half of what a call costs here is the send and the receipt.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ConnectionError

from broker.redis.cancellation import heeding

Call = tuple[tuple[Any, ...], asyncio.Future[Any]]


class Together:
    """A client of redis-py. Who is cancelled no longer waits, and what was sent for them is done all the same."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._calls: list[Call] = []
        self._deliveries: set[asyncio.Task[None]] = set()

    async def execute(self, *command: Any) -> Any:
        """The answer to a command, which travels with all that are asked for until the loop's next round.

        Raises redis-py's errors; ``ConnectionError`` too if the client is closed meanwhile.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._calls.append((command, answer))
        if len(self._calls) == 1:
            loop.call_soon(self._send)
        return await answer

    async def execute_alone(self, *command: Any) -> Any:
        """For what is large, in one direction or the other: nobody waits behind it."""
        return await heeding(self.client.execute_command(*command))

    async def aclose(self) -> None:
        for _, answer in self._calls:
            answer.cancel()  # and so is not sent any more
        for delivery in self._deliveries:
            delivery.cancel()
        await asyncio.gather(*self._deliveries, return_exceptions=True)
        await self.client.aclose()
        await self.client.connection_pool.disconnect()

    def _send(self) -> None:
        calls, self._calls = self._calls, []
        delivery = asyncio.create_task(self._deliver([call for call in calls if not call[1].done()]))
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)

    async def _deliver(self, calls: Sequence[Call]) -> None:
        answers: Sequence[Any] = [ConnectionError("closed")] * len(calls)
        try:
            answers = await heeding(self._answers([command for command, _ in calls]))
        except Exception as error:
            answers = [error] * len(calls)
        finally:
            for (_, answer), value in zip(calls, answers, strict=True):
                if answer.done():
                    continue
                if isinstance(value, Exception):
                    answer.set_exception(value)
                else:
                    answer.set_result(value)

    async def _answers(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """An answer to each; of many, an error that concerns one of them is its answer."""
        if len(commands) == 1:
            return [await self.client.execute_command(*commands[0])]
        async with self.client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return list(await pipe.execute(raise_on_error=False))
