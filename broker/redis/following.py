"""Following a response in Redis: by what messages bring, and by its log where they bring too little."""

import time
from collections.abc import AsyncGenerator, Callable, Sequence

from broker.log import TERMINAL_TYPES
from broker.redis.logs import Logs
from broker.redis.wakeups import Wakeups
from contracts.errors import BrokerUnavailable, ResponseNotFound
from contracts.events import Event, StepDelta

FOLLOW_WITHOUT_REDIS_S = 30.0  # how long a follower waits for a Redis that is away
LATE_S = 0.5  # of messages about what the log has already said, how long they are let pass
LOST = "The broker has lost this response. Send the request again."


async def follow(
    logs: Logs, wakeups: Wakeups, response_id: str, position: int, *, deltas: bool, is_closed: Callable[[], bool]
) -> AsyncGenerator[Event, None]:
    """Events from a number on, until the terminal one or until this process has closed its broker.

    Raises ``BrokerUnavailable``, and ``ResponseNotFound`` at the first step.
    """
    # Who follows has just submitted or asked, so it was there a moment ago.
    num_seen, num_open = 0, -1  # events; and as many as there were when it had not ended
    reached_at = looked_at = time.monotonic()
    async with wakeups.listening(logs.channel(response_id), deltas=deltas) as told:
        has_to_look, num_vague = True, told.num_vague
        while not is_closed():
            num_told = told.num_told
            if told.num_vague != num_vague:
                has_to_look, num_vague = True, told.num_vague
            if not has_to_look and told.news.is_behind(position) and time.monotonic() - looked_at < LATE_S:
                await told.wait_beyond(num_told, at_most_s=LATE_S)
                continue
            news = None if has_to_look else told.news.since(position, deltas=deltas)
            if news is not None:
                events, position = news
                num_seen, reached_at = max(num_seen, position), time.monotonic()
                is_over = bool(events) and isinstance(events[-1], TERMINAL_TYPES)
                num_open = num_open if is_over else num_seen
            else:
                try:
                    events, num_events, is_closed_log = await logs.page(response_id, position)
                except BrokerUnavailable:
                    if time.monotonic() - reached_at > FOLLOW_WITHOUT_REDIS_S:
                        raise
                    has_to_look = True
                    await told.wait_beyond(num_told)
                    continue
                except ResponseNotFound:
                    if num_seen:  # a Redis that has forgotten everything; or the reader took longer than it is kept
                        raise BrokerUnavailable(LOST) from None
                    raise
                # Fewer than there were, or an end in the place of another event: Redis came back as it was before.
                is_older = num_events < num_seen or (is_closed_log and num_events <= num_open)
                # Or its beginning was trimmed, and with it what is wanted.
                if is_older or (position < num_events and not _begins_at(events, position)):
                    raise BrokerUnavailable(LOST)
                num_seen, num_open = num_events, num_open if is_closed_log else num_events
                reached_at = looked_at = time.monotonic()
                position += len(events)  # an entry goes only with all before it
                has_to_look = position < num_events
                is_over = is_closed_log and not has_to_look
            for event in events:
                if deltas or not isinstance(event, StepDelta):
                    yield event
            if is_over:
                return
            if not has_to_look:
                await told.wait_beyond(num_told)
                has_to_look = told.num_told == num_told  # nobody said anything for a long time


def _begins_at(page: Sequence[Event], position: int) -> bool:
    return bool(page) and page[0].sequence_number == position
