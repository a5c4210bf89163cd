"""What a process computes on, in order: micro-batches, encoded in the background, with their cached targets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from contracts.errors import IlvrError
from training.batch import Batch, collate
from training.data_order import DataOrder
from training.encoding import Encoder
from training.samples import Sample
from training.target_cache import TargetCache, joined
from training.teacher import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A micro-batch on the CPU. ``num_samples`` and ``num_tokens`` are 0 for one that only fills up a step."""

    batch: Batch
    targets: Targets | None
    weight: float
    seed: int
    num_samples: int
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatches(Dataset[Prepared | IlvrError]):
    """Those of one process from ``first_step`` on. ``keys``: of each sample's targets in ``cache``.

    Where a sample cannot be encoded, or its targets not be read, the error stands in the place of its micro-batch: a
    DataLoader would turn one raised in a worker into the text of a traceback.
    """

    samples: Sequence[Sample]
    encoder: Encoder
    order: DataOrder
    first_step: int
    process: int
    num_processes: int
    with_helpers: bool
    cache: TargetCache | None = None
    keys: Sequence[str] = ()

    @property
    def _per_step(self) -> int:
        return self.order.passes // self.num_processes

    def __len__(self) -> int:
        return max(0, self.order.num_steps - self.first_step) * self._per_step

    def __getitem__(self, index: int) -> Prepared | IlvrError:
        try:
            return self._prepared(index)
        except IlvrError as error:
            return error

    def _prepared(self, index: int) -> Prepared:
        steps, place = divmod(index, self._per_step)
        mine = self.order.share(self.first_step + steps, self.process, self.num_processes)[place]
        encoded = [self.encoder.encode(self.samples[at], with_helpers=self.with_helpers) for at in mine.samples]
        targets = None
        if self.cache is not None:
            targets = joined([self.cache.read(self.keys[at]) for at in mine.samples], torch.device("cpu"))
        is_filler = mine.weight == 0
        return Prepared(
            batch=collate(encoded, self.encoder.padding_id),
            targets=targets,
            weight=mine.weight,
            seed=mine.seed,
            num_samples=0 if is_filler else len(encoded),
            num_tokens=0 if is_filler else sum(len(one.input_ids) for one in encoded),
        )


def loaded(data: MicroBatches, num_workers: int) -> Iterator[Prepared]:
    """In order; ``num_workers`` processes encode ahead, 0 encodes when asked.

    Raises:
        InvalidRequest: a sample cannot be encoded; told when its turn has come.
        BadSettings: its targets cannot be read from the cache.
    """
    # Workers begin here and now, not at the first batch: by then the log has threads, which are not to be forked.
    return _raising(iter(DataLoader(data, batch_size=None, num_workers=num_workers)))


def _raising(batches: Iterator[Prepared | IlvrError]) -> Iterator[Prepared]:
    for found in batches:
        if isinstance(found, IlvrError):
            raise found
        yield found
