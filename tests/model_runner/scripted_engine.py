"""An engine that says what a script says, and remembers what it was asked."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from contracts.errors import BadSettings, EngineDead
from model_runner.engine.base import EngineRequest, EngineStats, PromptInfo, StopReason, TokenDelta

HOLD = "hold"  # in a script: wait here until the test says go on
Script = Sequence[TokenDelta | BaseException | str]
PROMPT = PromptInfo(num_tokens=30, num_image_tokens=9, num_cached_tokens=4, queue_ms=2.0)


def delta(ids: Sequence[int], stop_reason: StopReason | None = None) -> TokenDelta:
    return TokenDelta(ids=tuple(ids), stop_reason=stop_reason)


class ScriptedEngine:
    """``scripts`` by response id, ``script`` for all others. ``open``: requests that hold a slot now."""

    name = "scripted"
    latent_ablation = "none"

    def __init__(self, script: Script) -> None:
        self.script = script
        self.scripts: dict[str, Script] = {}
        self.requests: list[EngineRequest] = []
        self.open: set[str] = set()
        self.most_open = 0
        self.may_go_on = asyncio.Event()
        self.is_dead = False
        self.answers = asyncio.Event()  # questions about itself; cleared, it hangs
        self.answers.set()
        self.closing_takes_s = 0.0
        self.is_closing = asyncio.Event()
        self._changed = asyncio.Event()
        self.num_prepared = 0
        self.cannot: BadSettings | None = None

    async def prepare(self) -> None:
        self.num_prepared += 1
        if self.cannot is not None:
            raise self.cannot

    async def generate(self, request: EngineRequest) -> AsyncGenerator[TokenDelta, None]:
        self.requests.append(request)
        self.open.add(request.request_id)
        self.most_open = max(self.most_open, len(self.open))
        self._notify()
        prompt: PromptInfo | None = PROMPT
        try:
            for line in self.scripts.get(request.request_id.rpartition("-")[0], self.script):
                if self.is_dead:
                    raise EngineDead("gone")
                if isinstance(line, BaseException):
                    raise line
                if isinstance(line, str):
                    await self.may_go_on.wait()
                    continue
                yield TokenDelta(ids=line.ids, prompt=prompt, stop_reason=line.stop_reason)
                prompt = None
        finally:
            if self.closing_takes_s:
                self.is_closing.set()
                await asyncio.sleep(self.closing_takes_s)
            self.open.discard(request.request_id)
            self._notify()

    def die(self) -> None:
        self.is_dead = True
        self.may_go_on.set()

    async def until_open(self, count: int) -> None:
        """Wait until as many requests hold a slot."""
        while len(self.open) != count:
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def is_alive(self) -> bool:
        return not self.is_dead

    async def stats(self) -> EngineStats:
        if self.is_dead:
            raise EngineDead("gone")
        await self.answers.wait()
        return EngineStats(num_running=len(self.open), num_preemptions=3, model={"images_encoded": 5})

    async def aclose(self) -> None: ...
