"""Time that passes for the broker and its keys when a test says so."""

import hashlib

import pytest

from broker.redis.broker import RedisBroker
from broker.redis.scripts import Script, script
from tests.broker.redis_brokers import client_of

READ_CLOCK = b"redis.call('TIME')"
LATER = """
for _, name in ipairs(redis.call('KEYS', ARGV[1])) do
  local left = redis.call('PTTL', name)
  if left >= 0 then
    redis.call('PEXPIRE', name, left - ARGV[2])
  end
end
"""


class SimulatedTime:
    """Moves three clocks by as much: that which scripts read, that by which Redis lets keys expire, and the sweeper's.

    Real time goes on beside it. What is simulated: where a script reads the clock of Redis, seconds are added to the
    answer; what is left of each key's time to live is shortened by PEXPIRE. A key without one stays.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now_s = 0
        self._scripts: dict[str, Script] = {}
        self._forgets: dict[str, tuple[bytes, bytes]] = {}
        monkeypatch.setattr("broker.redis.link.script", self._script)
        monkeypatch.setattr("broker.redis.sweeper.time", self)

    def monotonic(self) -> float:
        """Of the sweeper."""
        return float(self._now_s)

    def forget(self, name: str, line: str) -> None:
        """From here on the script runs without this part of it."""
        assert script(name).source.count(line.encode()) == 1
        self._forgets[name] = (line.encode(), b"")

    async def pass_by(self, seconds: int, broker: RedisBroker, pattern: str) -> None:
        """All keys of ``pattern`` get older at once."""
        self._now_s += seconds
        self._scripts.clear()
        await client_of(broker).eval(LATER, 0, pattern, seconds * 1000)

    def _script(self, name: str) -> Script:
        if name not in self._scripts:
            self._scripts[name] = self._moved(name)
        return self._scripts[name]

    def _moved(self, name: str) -> Script:
        source = script(name).source.replace(*self._forgets.get(name, (b"", b"")))
        moved = f"local function moved(time) return {{time[1] + {self._now_s}, time[2]}} end\n".encode()
        source = moved + source.replace(READ_CLOCK, b"moved(" + READ_CLOCK + b")")
        return Script(source, hashlib.sha1(source).hexdigest())
