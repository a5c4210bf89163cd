"""Which samples each optimizer step sees, as a pure function of seed, step and sizes.

Nothing here depends on the number of processes: they deal out the micro-batches of a step in turn. So a run goes on at
any step, and with any number of processes that leaves the size of a step as it was.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch

# Apart from each other, so that no micro-batch shares its seed with an epoch's order.
_NOISE_SEED, _ORDER_SEED = 1, 2
_MAX_SEED = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Samples of one forward pass, by their number in the data.

    weight: of each sample's loss, so that a step's gradient is that of the mean over its samples. seed: of all that is
    random in the pass (noise on targets, dropout).
    """

    samples: tuple[int, ...]
    weight: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOrder:
    """The order of a run. ``passes``: micro-batches of a step, in all processes together."""

    num_samples: int
    batch_size: int
    passes: int
    epochs: int
    seed: int

    @property
    def samples_per_step(self) -> int:
        """Of every step but the last of an epoch, which has what is left."""
        return self.batch_size * self.passes

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_samples / self.samples_per_step)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps_per_epoch * self.epochs

    def samples_of(self, step: int) -> list[int]:
        """Samples of a step, counted from 0; each once an epoch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = _permutation(self.num_samples, _derived_seed(self.seed, _ORDER_SEED, epoch))
        return order[place * self.samples_per_step : (place + 1) * self.samples_per_step]

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """All ``passes`` of a step.

        Where an epoch's last step has too few samples for them, the rest repeat its first sample with weight 0, since
        all processes must make the same number of passes.
        """
        samples = self.samples_of(step)
        chunks = [tuple(samples[at : at + self.batch_size]) for at in range(0, len(samples), self.batch_size)]
        found = []
        for index in range(self.passes):
            is_filler = index >= len(chunks)
            found.append(
                MicroBatch(
                    samples=(samples[0],) if is_filler else chunks[index],
                    # Gradients are averaged over all passes; this turns them into a mean over samples.
                    weight=0.0 if is_filler else self.passes / len(samples),
                    seed=_derived_seed(self.seed, _NOISE_SEED, step, index),
                )
            )
        return found

    def share(self, step: int, process: int, num_processes: int) -> list[MicroBatch]:
        """The micro-batches of a step that fall to one process."""
        return self.micro_batches(step)[process::num_processes]


@lru_cache(maxsize=2)  # the epoch, and the one that follows
def _permutation(num_samples: int, seed: int) -> list[int]:
    order: list[int] = torch.randperm(num_samples, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


def _derived_seed(*numbers: int) -> int:
    """A seed that depends on all numbers: FNV-1a (Fowler, Noll, Vo) over them, 64 bits each."""
    state = 0xCBF29CE484222325
    for number in numbers:
        for byte in (number % _MAX_SEED).to_bytes(8, "little"):
            state = ((state ^ byte) * 0x100000001B3) % 2**64
    return state % _MAX_SEED
