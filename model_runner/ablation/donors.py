"""Which numbers go with a request, and for ``swap`` whose latents: everything about ablations outside the model."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from contracts.errors import BadSettings, GenerationFailed, RequestError
from contracts.manifest import LatentSpec
from model_runner.ablation.samples import MAX_DONORS, sample_of, seed_of
from model_runner.engine.base import EngineRequest
from model_runner.settings import LatentAblation

MAX_BLOCKS_PER_DONOR = 4
BANK_CAPACITY = MAX_DONORS * MAX_BLOCKS_PER_DONOR

Row = tuple[int, int, int]  # seed of the request; first of its donor's blocks in the bank, and their number
OWN: Row = (0, 0, 0)  # no donor: `swap` feeds the own hidden states, as donors themselves are fed


@dataclass(frozen=True)
class Donor:
    """A sample whose latents are in the bank: ``count`` blocks from ``first`` on. ``sizes`` of its pictures."""

    sample: bytes
    sizes: tuple[tuple[int, int], ...]
    first: int
    count: int


class Ablation:
    """One for each engine. :meth:`prepare` comes before the first :meth:`row`."""

    def __init__(self, mode: LatentAblation, requests: Sequence[EngineRequest] = ()) -> None:
        """``requests``: samples that may lend their latents; only ``swap`` asks them."""
        self.mode = mode
        self._requests = requests if mode == "swap" else ()
        self._donors: list[Donor] = []
        self._failure: BadSettings | None = None
        self._is_prepared = mode != "swap"
        self._preparing = asyncio.Lock()

    async def prepare(self, record: Callable[[EngineRequest], Awaitable[int]]) -> None:
        """Have the donors recorded, once, and one at a time so that their latents depend on no batch.

        ``record`` answers a request with its own latents, keeps the blocks in the bank and returns their number.
        Raises ``BadSettings`` unless two different samples have latents to lend: one may be the one asked about.
        """
        if self._is_prepared:
            return
        async with self._preparing:
            if self._failure is not None:
                raise self._failure
            if not self._is_prepared:
                await self._record_all(record)

    async def _record_all(self, record: Callable[[EngineRequest], Awaitable[int]]) -> None:
        num_blocks = 0
        for request in self._requests:
            try:
                count = await record(request)
            except (RequestError, GenerationFailed) as error:
                self._failure = BadSettings(f"--latent-donors: a donor cannot be asked: {error}")
                raise self._failure from error
            if count:
                self._donors.append(Donor(sample_of(request), _sizes(request), num_blocks, count))
                num_blocks += count
        if len({donor.sample for donor in self._donors}) < 2:
            self._failure = BadSettings(
                "--latent-ablation swap needs two different samples with latents, and of the "
                f"{len(self._requests)} asked {len(self._donors)} began a latent block; name more samples of the "
                "model's own task with --latent-donors"
            )
            raise self._failure
        self._is_prepared = True

    def row(self, request: EngineRequest) -> Row:
        """The request's numbers: a function of the request and of the donors' samples, and of nothing else.

        The donor is another sample, of pictures of the same sizes if there is one: a latent of a small picture is
        out of place in a large one for reasons that have nothing to do with what it shows.
        """
        if self.mode in ("none", "zero"):
            return OWN
        sample = sample_of(request)
        seed = seed_of(request, sample)
        if self.mode == "noise":
            return (seed, 0, 0)
        others = [donor for donor in self._donors if donor.sample != sample]
        alike = [donor for donor in others if donor.sizes == _sizes(request)] or others
        donor = alike[seed % len(alike)]
        return (seed, donor.first, donor.count)


def _sizes(request: EngineRequest) -> tuple[tuple[int, int], ...]:
    return tuple(image.rgb.size for image in request.images)


def block_positions(ids: Sequence[int], first_position: int, spec: LatentSpec) -> list[list[int]]:
    """Positions of the pads of each block in an answer, whose first token has ``first_position``; the first few blocks.

    The last token of an answer was chosen and never fed, so it is left out. An answer holds no pad of a block that
    began in its prompt: a donor's prompt has no latents.
    """
    blocks: list[list[int]] = []
    is_open = False
    for position, token in enumerate(ids[:-1], first_position):
        if token == spec.start_id:
            blocks.append([])
            is_open = True
        elif is_open and token == spec.pad_id and len(blocks[-1]) < spec.size:
            blocks[-1].append(position)
        else:
            is_open = False
    return blocks[:MAX_BLOCKS_PER_DONOR]


def has_enough(ids: Sequence[int], spec: LatentSpec) -> bool:
    """Whether an answer has as many complete blocks as are kept of one donor."""
    return list(ids).count(spec.start_id) > MAX_BLOCKS_PER_DONOR
