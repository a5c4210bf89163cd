"""Asks a model every sample under every ablation. How it is asked is injected: see ``ilvr.evaluation_engines``."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from contracts.errors import RequestError
from training.answer_log import Ablation, Answered, AnswerLog, Entry
from training.samples import Sample


class Answerer(Protocol):
    """A model under one ablation."""

    @property
    def max_concurrency(self) -> int | None:
        """How many calls at once are of use; None if there is no bound."""
        ...

    async def answer(self, sample: Sample) -> Answered:
        """Greedy.

        Raises:
            RequestError: this sample cannot be asked; others can.
            IlvrError: any other ends the evaluation, which can be gone on with.
        """
        ...


class Answerers(Protocol):
    """Starts what answers under an ablation."""

    async def start(self, ablation: Ablation) -> Answerer:
        """Ready to answer. It ends what was started before, unless that serves this ablation as well."""
        ...

    async def aclose(self) -> None:
        """End what was started last. Idempotent."""
        ...


async def collect(
    samples: Mapping[int, Sample],
    ablations: Sequence[Ablation],
    answerers: Answerers,
    log: AnswerLog,
    *,
    concurrency: int,
    on_entry: Callable[[Entry], None] = lambda entry: None,
) -> None:
    """Fill the log with what it lacks, ``concurrency`` samples at once; an ablation that lacks nothing starts nothing.

    samples: by their index in the data file. ``on_entry`` is called for each new entry.
    """
    try:
        for ablation in ablations:
            open_samples = [(at, sample) for at, sample in samples.items() if not log.is_answered(ablation, at)]
            if not open_samples:
                continue
            answerer = await answerers.start(ablation)
            num_workers = min(concurrency, answerer.max_concurrency or concurrency)
            queue = iter(open_samples)
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(num_workers):
                        group.create_task(_work(queue, ablation, answerer, log, on_entry))
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None
    finally:
        await answerers.aclose()


async def _work(
    queue: Iterator[tuple[int, Sample]],
    ablation: Ablation,
    answerer: Answerer,
    log: AnswerLog,
    on_entry: Callable[[Entry], None],
) -> None:
    for index, sample in queue:
        try:
            entry = Entry(ablation=ablation, index=index, answered=await answerer.answer(sample))
        except RequestError as error:
            where = "" if str(error).startswith(sample.where) else f"{sample.where}: "
            entry = Entry(ablation=ablation, index=index, error=f"{where}{error} ({error.code})")
        log.add(entry)
        on_entry(entry)
