"""Nothing is left over: every key has a time to live, and those of ended work are gone after it."""

import re
from collections import Counter
from contextlib import aclosing

import pytest

from broker.limits import BrokerLimits
from broker.redis.broker import RedisBroker
from broker.redis.keys import Keys
from broker.redis.scripts import COMMON, script
from broker.settings import BrokerSettings
from contracts.errors import BrokerUnavailable
from contracts.jobs import Idempotency
from tests.broker.every_kind import ABANDONED_EVERY, many_requests
from tests.broker.redis_brokers import client_of, settings
from tests.broker.redis_server import RedisServer
from tests.broker.samples import done, job, read, types
from tests.broker.simulated_time import READ_CLOCK, SimulatedTime
from tests.servers import ROOT

NUM_REQUESTS, FEW_REQUESTS = 1000, 60
HOUR_S, MINUTE_S = 3600, 60
STEP_S = 10  # of simulated time, with a sweep after each, where a real process sweeps once a second
STILL_KEPT_S = 14 * 60  # a minute less than it is kept, for the real time that passes beside it
KEPT_S = 17 * 60  # after which no finished response is kept, nor the picture of one that never was
FOR_EVER_S = -0.001  # in ms it is what PTTL says of a key without a time to live
GONE = (-2, 0)  # what PTTL says of a key that is not there, or is about to go
DOCUMENT = ROOT / "docs" / "redis.md"
UNSERVED = [f"resp_unserved{number}" for number in range(10)]
Found = dict[str, tuple[str, float]]  # type and seconds left, of each key


async def keys_of(broker: RedisBroker, of: BrokerSettings) -> Found:
    client = client_of(broker)
    names = [name async for name in client.scan_iter(f"{of.key_prefix}:*", count=1000)]
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.type(name)
        pipe.pttl(name)
    answers = await pipe.execute()
    found = zip(names, answers[::2], answers[1::2], strict=True)
    return {name.decode(): (kind.decode(), ms / 1000) for name, kind, ms in found if ms not in GONE}


def pattern_of(name: str) -> str:
    """As the document writes it: ``ilvr:1:{resp_…}:state``."""
    name = re.sub(r"^[^:]+", "ilvr", name)
    name = re.sub(r"\{(resp|img)_[^}]*\}", r"{\1_…}", name)
    name = re.sub(r"\{owner-[^}]*\}", "{owner-…}", name)
    return re.sub(r":claim:.*", ":claim:…", name)


def documented() -> dict[str, str]:
    """The table of keys in the document: name and type."""
    rows = re.findall(r"^\| `(ilvr:1:[^`]+)` \| (\w+) \|", DOCUMENT.read_text(), re.MULTILINE)
    return dict(rows)


class Watch:
    """Which keys there ever were, with the least favourable of what was seen of each: for ever, or the longest time."""

    def __init__(self, of: BrokerSettings) -> None:
        self._of = of
        self.seen: Found = {}

    async def look(self, broker: RedisBroker) -> None:
        for name, (kind, left_s) in (await keys_of(broker, self._of)).items():
            before_s = self.seen.get(name, (kind, 0.0))[1]
            self.seen[name] = (kind, left_s if before_s >= 0 else before_s)

    def require_documented(self) -> None:
        kinds = {pattern_of(name): kind for name, (kind, _) in self.seen.items()}
        assert kinds == {name: kind for name, kind in documented().items() if name in kinds}
        assert len(kinds) > 20  # some are there for a moment only, and may not have been seen


async def test_of_a_thousand_requests_no_key_is_left_after_an_hour(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the default settings. The requests take their real time. Of the hours after it, see ``SimulatedTime``.

    For a minute and an hour one gateway lives and sweeps, a sweep for each ten that there would be: what nobody serves
    ends in the minute, and after the hour only the load is left, which the living refresh. Then nobody lives, for an
    hour, and nothing is left.
    """
    time, of = SimulatedTime(monkeypatch), settings(redis_server)
    pattern, watch = f"{of.key_prefix}:*", Watch(of)
    ends = await many_requests(of, NUM_REQUESTS, watch.look, every_s=1.0)
    assert sum(ends.values()) == NUM_REQUESTS
    assert min(ends["completed"] / 8, ends["failed"]) > NUM_REQUESTS * 0.09  # what was told to fail, or was too late
    assert len(watch.seen) > 2 * NUM_REQUESTS
    assert [name for name, (_, left_s) in watch.seen.items() if not 0 < left_s <= HOUR_S] == []
    watch.require_documented()

    async with aclosing(RedisBroker(of)) as gateway:
        for response_id in UNSERVED:  # no runner lives any more
            await gateway.submit(job(response_id), idempotency=Idempotency(key=response_id, body_sha256="x"))
        for now_s in range(STEP_S, MINUTE_S + HOUR_S + 1, STEP_S):
            await time.pass_by(STEP_S, gateway, pattern)
            await gateway._sweeper.sweep()
            if now_s == MINUTE_S:  # and with these all requests have ended
                assert {types(await read(gateway, response_id))[-1] for response_id in UNSERVED} == {"failed"}
            if now_s == STILL_KEPT_S:
                await require_kept(gateway)
            if now_s == KEPT_S:
                left = Counter(pattern_of(name) for name in await keys_of(gateway, of))
                assert not left.keys() & {"ilvr:1:{resp_…}:state", "ilvr:1:{resp_…}:events", "ilvr:1:{img_…}:file"}
                assert left["ilvr:1:{owner-…}:claim:…"] == NUM_REQUESTS // ABANDONED_EVERY  # whose response never was
        assert set(await keys_of(gateway, of)) == {Keys(of.key_prefix).queue[3]}

    async with aclosing(RedisBroker(settings(redis_server))) as other:
        await time.pass_by(HOUR_S, other, pattern)
        assert await keys_of(other, of) == {}


async def require_kept(gateway: RedisBroker) -> None:
    """What has ended can be read, and the same request finds it."""
    for response_id, owner, key, end in (
        ("resp_15", "owner-1", "key-7", "completed"),
        (UNSERVED[0], "", UNSERVED[0], "failed"),
    ):
        assert types(await gateway.events(response_id))[-1] == end
        again = job("resp_again", owner=owner)
        assert await gateway.submit(again, idempotency=Idempotency(key=key, body_sha256="x")) == response_id


FORGOTTEN = [
    ("spend", ", 'PX', math.ceil(full_at - now)"),
    ("claim", "redis.call('PEXPIRE', KEYS[1], ARGV[3])"),
    ("create", "redis.call('PEXPIRE', state, ARGV[4])"),
    ("note_reading", "redis.call('PEXPIRE', KEYS[3], ARGV[2])"),
    ("settle", "redis.call('PEXPIRE', key.ended, RATE_WINDOW_S * 1000)"),
    ("file_write", "redis.call('PEXPIRE', KEYS[1], ARGV[2])"),
]


@pytest.mark.parametrize(("name", "line"), FORGOTTEN, ids=[name for name, _ in FORGOTTEN])
async def test_a_time_to_live_that_a_script_forgets_is_found(
    name: str, line: str, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = SimulatedTime(monkeypatch)
    time.forget(name, line)
    of = settings(redis_server, BrokerLimits(deadline_slack_s=0.2))
    watch = Watch(of)
    await many_requests(of, FEW_REQUESTS, watch.look, every_s=0.2)
    async with aclosing(RedisBroker(settings(redis_server))) as other:
        await time.pass_by(2 * HOUR_S, other, f"{of.key_prefix}:*")
        assert {left_s for _, left_s in (await keys_of(other, of)).values()} == {FOR_EVER_S}


async def test_an_ending_that_dies_half_way_leaves_no_key(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a response whose gateway died before it was visible: its first event is there, its end never comes."""

    async def dies(*_: object) -> None:
        raise BrokerUnavailable("dead")

    time, of = SimulatedTime(monkeypatch), settings(redis_server)
    async with aclosing(RedisBroker(of)) as broker:
        await broker._logs.create(job("resp_a"), "")
        monkeypatch.setattr(broker._logs, "append", dies)
        with pytest.raises(BrokerUnavailable):
            await broker._logs.end("resp_a", lambda of, *_: done(of))
        found = {name: left_s for name, (_, left_s) in (await keys_of(broker, of)).items() if "resp_a" in name}
        assert set(found) == set(broker._keys.response("resp_a"))
        assert min(found.values()) > 0
    async with aclosing(RedisBroker(settings(redis_server))) as other:
        await time.pass_by(2 * HOUR_S, other, f"{of.key_prefix}:*")
        assert await keys_of(other, of) == {}


def test_no_script_reads_another_clock() -> None:
    """Which simulated time would not move."""
    for name in [name for names in COMMON.values() for name in names]:
        source = script(name).source
        assert source.count(b"TIME'") == source.count(READ_CLOCK)


def test_every_key_is_in_the_document() -> None:
    keys = Keys("ilvr")
    ids = [*keys.queue, *keys.images, *keys.readers("resp_a"), *keys.file("img_a"), *keys.bucket("o")]
    assert {pattern_of(name) for name in (*ids, *keys.claim("o", "k"))} == set(documented())
