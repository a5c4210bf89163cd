"""Who lends latents to whom."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from PIL import Image

from contracts.errors import BadSettings, EngineDead, GenerationFailed
from model_runner.ablation.donors import OWN, Ablation, block_positions, has_enough
from model_runner.engine.base import EngineImage, EngineRequest, SamplingSettings
from model_runner.settings import LatentAblation
from tests.model_runner.simulator import END, EOS, PAD, START, A, make_spec


def request(shade: int, side: int = 28, *, seed: int | None = None, prompt: int = 1) -> EngineRequest:
    """About a picture of one shade of grey."""
    image = EngineImage(id="x", rgb=Image.new("RGB", (side, side), (shade,) * 3))
    sampling = SamplingSettings(max_tokens=9, seed=seed)
    return EngineRequest(request_id=f"{shade}", prompt_ids=(prompt,), images=(image,), sampling=sampling)


async def prepared(donors: Sequence[EngineRequest], num_blocks: Sequence[int] | None = None) -> Ablation:
    """``swap`` with these donors, that have so many blocks each; 1 if not told."""
    counts = iter(num_blocks or [1] * len(donors))

    async def record(donor: EngineRequest) -> int:
        return next(counts)

    ablation = Ablation("swap", donors)
    await ablation.prepare(record)
    return ablation


class TestRow:
    @pytest.mark.parametrize("mode", ["none", "zero"])
    def test_some_modes_need_no_numbers(self, mode: LatentAblation) -> None:
        assert Ablation(mode).row(request(1)) == OWN

    def test_noise_needs_a_seed(self) -> None:
        ablation = Ablation("noise")
        seed, first, count = ablation.row(request(1))
        assert seed > 0
        assert (first, count) == (0, 0)
        assert ablation.row(request(1)) == (seed, 0, 0)
        assert ablation.row(request(1, seed=5)) != (seed, 0, 0)
        assert ablation.row(request(2)) != (seed, 0, 0)

    async def test_blocks_lie_in_the_bank_in_the_order_of_their_donors(self) -> None:
        ablation = await prepared([request(shade) for shade in (1, 2, 3)], [2, 0, 3])
        assert ablation.row(request(1))[1:] == (2, 3)
        assert ablation.row(request(3))[1:] == (0, 2)
        assert {ablation.row(request(shade))[1:] for shade in range(10, 40)} == {(0, 2), (2, 3)}

    async def test_never_the_own_sample_whatever_is_asked_about_it(self) -> None:
        donors = [request(shade) for shade in range(5)]
        ablation = await prepared(donors)
        for at in range(5):
            for prompt in range(30):
                assert ablation.row(request(at, prompt=prompt))[1] != at

    async def test_every_other_sample_may_be_the_donor(self) -> None:
        ablation = await prepared([request(shade) for shade in range(5)])
        assert {ablation.row(request(0, seed=seed))[1] for seed in range(100)} == {1, 2, 3, 4}

    async def test_a_donor_with_pictures_of_the_same_size_if_there_is_one(self) -> None:
        donors = [request(1, 28), request(2, 56), request(3, 28), request(4, 56), request(5, 84)]
        ablation = await prepared(donors)
        assert {ablation.row(request(9, 56, seed=seed))[1] for seed in range(50)} == {1, 3}
        assert {ablation.row(request(2, 56, seed=seed))[1] for seed in range(50)} == {3}  # one of them is itself
        assert {ablation.row(request(5, 84, seed=seed))[1] for seed in range(50)} == {0, 1, 2, 3}
        assert {ablation.row(request(9, 112, seed=seed))[1] for seed in range(99)} == {0, 1, 2, 3, 4}

    async def test_the_seed_of_the_sampling_counts(self) -> None:
        ablation = await prepared([request(1), request(2)])
        assert ablation.row(request(9, seed=1)) != ablation.row(request(9, seed=2))
        assert ablation.row(request(9, seed=1)) == ablation.row(replace(request(9, seed=1), request_id="again"))


class TestPrepare:
    async def test_each_donor_is_asked_once_and_one_at_a_time(self) -> None:
        asked, num_open, most_open = [], 0, 0

        async def record(donor: EngineRequest) -> int:
            nonlocal num_open, most_open
            num_open += 1
            most_open = max(most_open, num_open)
            await asyncio.sleep(0)
            num_open -= 1
            asked.append(donor.request_id)
            return 1

        ablation = Ablation("swap", [request(shade) for shade in (1, 2, 3)])
        await asyncio.gather(*(ablation.prepare(record) for _ in range(4)))
        assert asked == ["1", "2", "3"]
        assert most_open == 1

    @pytest.mark.parametrize("mode", ["none", "zero", "noise"])
    async def test_other_modes_ask_nobody(self, mode: LatentAblation) -> None:
        async def record(donor: EngineRequest) -> int:
            raise AssertionError

        await Ablation(mode, [request(1), request(2)]).prepare(record)

    @pytest.mark.parametrize("num_blocks", [[0, 0, 0], [0, 4, 0]])
    async def test_too_few_with_latents_are_refused_each_time(self, num_blocks: list[int]) -> None:
        counts = iter(num_blocks)

        async def record(donor: EngineRequest) -> int:
            return next(counts)

        ablation = Ablation("swap", [request(shade) for shade in (1, 2, 3)])
        for _ in range(2):
            with pytest.raises(BadSettings, match=r"two different samples .* of the 3 asked [01] began"):
                await ablation.prepare(record)

    async def test_the_same_sample_twice_is_one(self) -> None:
        with pytest.raises(BadSettings, match="needs two different samples"):
            await prepared([request(1), request(1, prompt=2)])

    async def test_a_donor_that_cannot_be_asked_stops_the_start(self) -> None:
        async def record(donor: EngineRequest) -> int:
            raise GenerationFailed("too long")

        with pytest.raises(BadSettings, match="--latent-donors: a donor cannot be asked: too long"):
            await Ablation("swap", [request(1), request(2)]).prepare(record)

    async def test_a_dead_engine_stays_a_dead_engine(self) -> None:
        async def record(donor: EngineRequest) -> int:
            raise EngineDead("gone")

        with pytest.raises(EngineDead):
            await Ablation("swap", [request(1), request(2)]).prepare(record)


@pytest.mark.parametrize(
    ("ids", "blocks"),
    [
        ([A, A, EOS], []),
        ([A, START, PAD, PAD, PAD, END, A, EOS], [[12, 13, 14]]),
        ([START, PAD, END, A, START, PAD, START, PAD, PAD, END], [[11], [15], [17, 18]]),
        ([START, PAD, PAD], [[11]]),  # cut: the last token was never fed
        ([PAD, START, END, PAD, PAD], [[]]),  # pads outside a block are tokens like any other
        ([START, PAD, PAD, PAD, PAD, PAD], [[11, 12, 13]]),  # and so are those beyond K
        ([START, PAD, END] * 6, [[11], [14], [17], [20]]),
    ],
)
def test_positions_of_blocks(ids: list[int], blocks: list[list[int]]) -> None:
    assert block_positions(ids, 10, make_spec(size=3)) == blocks


def test_a_donor_is_heard_until_its_fourth_block_is_closed() -> None:
    spec = make_spec()
    assert not has_enough([START, PAD, END] * 4 + [A], spec)
    assert has_enough([START, PAD, END] * 4 + [A, START], spec)
