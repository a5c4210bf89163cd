"""A runner between the real embedded broker and a scripted engine."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tokenizers import Tokenizer

from broker.embedded import EmbeddedBroker
from contracts.events import Event, Failed, Terminal, event_type
from contracts.jobs import Job
from contracts.responses import Response, TextStep
from model_runner.attempt import Answering
from model_runner.checkpoint import Checkpoint
from model_runner.generation import GenerationDefaults
from model_runner.image_processor import ImageSizes
from model_runner.metrics import RunnerMetrics
from model_runner.prompt import PromptBuilder
from model_runner.runner import Runner
from model_runner.vocabulary import Vocabulary
from tests.broker.samples import read
from tests.model_runner.folders import MAZE_TINY
from tests.model_runner.scripted_engine import HOLD, ScriptedEngine, delta

PAD, START, END, EOS = 381, 382, 383, 376
TOKENIZER = Tokenizer.from_file(str(MAZE_TINY / "tokenizer.json"))
SOON_S = 5.0  # far more than anything here takes


def ids(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False).ids)


ANSWER = [delta([*ids("Go. "), START]), delta([PAD] * 8), delta([END, *ids("\\boxed{RD}")]), delta([EOS], "stop")]
HELD = [delta([*ids("Go. "), START, PAD]), HOLD, *ANSWER[1:]]


@dataclass
class World:
    broker: EmbeddedBroker
    engine: ScriptedEngine
    runner: Runner
    registry: CollectorRegistry
    task: asyncio.Task[Any]

    async def submit(self, response_id: str, **fields: Any) -> None:
        await self.broker.submit(
            Job(response_id=response_id, created_at=0, model="m", question=fields.pop("question", "?"), **fields)
        )

    async def ended(self, response_id: str) -> Response:
        """The response object of its one terminal event; the order of all events is checked on the way."""
        return check(await asyncio.wait_for(read(self.broker, response_id), SOON_S))

    def count(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def check(events: Sequence[Event]) -> Response:
    """The grammar of a log, and the steps in it against those of the response object."""
    open_index = None
    completed = []
    for event in events[:-1]:
        kind = event_type(event)
        if kind == "step.started":
            assert open_index is None
            open_index = event.index
        elif kind == "step.delta":
            assert event.index == open_index
        elif kind == "step.completed":
            assert event.index == open_index == len(completed)
            open_index = None
            completed.append(event.text if event.step_type == "text" else (event.size, event.exit))
        else:
            assert kind in ("response.created", "response.queued", "response.in_progress", "response.restarted")
            completed = [] if kind == "response.restarted" else completed
            open_index = None if kind == "response.restarted" else open_index
    assert isinstance(events[-1], Terminal)
    # The broker, which ends what a runner gave back, completes no step that it knows but the beginning of.
    assert open_index is None or (isinstance(events[-1], Failed) and events[-1].error.code == "engine_dead")
    steps = events[-1].response.steps
    assert completed == [step.text if isinstance(step, TextStep) else (step.size, step.exit) for step in steps]
    return events[-1].response


MakeTools = Callable[..., Answering]


@pytest.fixture
def make_tools(
    maze_checkpoint: Checkpoint, maze_prompts: PromptBuilder, maze_vocabulary: Vocabulary
) -> Callable[..., Answering]:
    """What goes with a scripted engine."""

    def make_tools(engine: ScriptedEngine, *, context_tokens: int = 4096) -> Answering:
        return Answering(
            model_name="m",
            engine=engine,
            spec=maze_checkpoint.spec,
            defaults=GenerationDefaults(end_ids=(EOS,)),
            prompts=maze_prompts,
            image_sizes=ImageSizes(str(MAZE_TINY)),
            vocabulary=maze_vocabulary,
            context_tokens=context_tokens,
        )

    return make_tools


@pytest.fixture
def start(make_tools: MakeTools) -> Callable[..., Any]:
    """``async with start(script, max_num_seqs=2) as world``."""

    @asynccontextmanager
    async def start(
        script: Any,
        *,
        max_num_seqs: int = 4,
        context_tokens: int = 4096,
        broker: EmbeddedBroker | None = None,
    ) -> AsyncIterator[World]:
        broker = broker or EmbeddedBroker()
        engine, registry = ScriptedEngine(script), CollectorRegistry()
        runner = Runner(
            runner_id="r1",
            broker=broker,
            tools=make_tools(engine, context_tokens=context_tokens),
            max_num_seqs=max_num_seqs,
            metrics=RunnerMetrics(registry),
        )
        await runner.announce()
        task: asyncio.Task[Any] = asyncio.create_task(runner.run())
        try:
            yield World(broker, engine, runner, registry, task)
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=SOON_S)
            await broker.aclose()
            assert task.done(), "the runner does not end"

    return start


Start = Callable[..., Any]
