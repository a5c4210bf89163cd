"""The vectors fed in place of own hidden states, against a slow form in plain Python and by hand."""

import math

import pytest
import torch
from torch import Tensor

from model_runner.ablation.feedback import DonorBank, Feedback, _mix, standard_normal
from model_runner.settings import LatentAblation

MODES: tuple[LatentAblation, ...] = ("zero", "noise", "swap")
SEED = 0x0123_4567_89AB_CDEF
D, K = 6, 3


def feed(
    mode: LatentAblation,
    own: Tensor,
    positions: list[int],
    phases: list[int],
    rows: list[tuple[int, int, int]],
    bank: DonorBank | None = None,
) -> Tensor:
    feedback = Feedback(mode, bank or bank_of(0))
    return feedback.feed(own, torch.tensor(positions), torch.tensor(phases, dtype=torch.int32), torch.tensor(rows))


def bank_of(num_blocks: int) -> DonorBank:
    """Latent n of block m, counted from 0, is [10 m + n, …]."""
    bank = DonorBank.allocate(capacity=num_blocks, size=K, hidden_size=D, dtype=torch.float32, device="cpu")
    for block in range(num_blocks):
        assert bank.add({at: torch.full((D,), 10.0 * block + at) for at in range(K)}, [list(range(K))]) == 1
    return bank


def plain_mix(bits: int) -> int:
    for _ in range(2):
        bits = ((bits >> 16) ^ bits) * 0x45D9F3B % 2**32
    return (bits >> 16) ^ bits


def plain_hash(*words: int) -> int:
    state = 0
    for word in words:
        state = plain_mix(((state ^ word) + 0x9E3779B9) % 2**32)
    return state


def plain_normal(seed: int, position: int, num: int) -> list[float]:
    place = plain_hash(seed % 2**32, seed >> 32, position)
    uniform = [(plain_hash(place, index) + 0.5) / 2**32 for index in range(2 * num)]
    return [math.sqrt(-2 * math.log(uniform[d])) * math.cos(2 * math.pi * uniform[num + d]) for d in range(num)]


class TestHash:
    def test_its_published_inverse_undoes_it(self) -> None:
        """The inverse multiplies by 0x119de1f3 instead; a bijection loses nothing of seed and position."""
        words = torch.tensor([0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xDEADBEEF, 0xFFFFFFFF])
        bits = _mix(words)
        for _ in range(2):
            bits = ((bits >> 16) ^ bits) * 0x119DE1F3 & 0xFFFFFFFF
        assert ((bits >> 16) ^ bits).tolist() == words.tolist()

    def test_the_largest_product_does_not_overflow(self) -> None:
        assert 0xFFFFFFFF * 0x45D9F3B < 2**63


class TestNoise:
    def test_as_in_plain_python(self) -> None:
        seeds, positions = [SEED, 0, 2**63 - 1], [7, 0, 8191]
        got = standard_normal(torch.tensor(seeds), torch.tensor(positions), D)
        want = [plain_normal(seed, position, D) for seed, position in zip(seeds, positions, strict=True)]
        torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-12, atol=1e-12)

    def test_it_is_normal(self) -> None:
        """Moments of 200,000 values: 0, 1, 0 and 3, each within five standard errors."""
        num = 200_000
        values = standard_normal(torch.arange(50), torch.arange(50) * 3, num // 50).flatten()
        for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            assert abs(float((values**power).mean()) - moment) < 5 * math.sqrt(variance / num)

    def test_places_and_seeds_have_nothing_in_common(self) -> None:
        """Correlations of 40 long vectors, neighbours in seed or position: all within five standard errors of 0."""
        seeds = torch.arange(40) // 8
        vectors = standard_normal(seeds, torch.arange(40) % 8, 4096)
        correlations = torch.corrcoef(vectors) - torch.eye(40)
        assert float(correlations.abs().max()) < 5 / math.sqrt(4096)

    def test_it_is_as_long_as_the_own_state_and_its_direction_is_not(self) -> None:
        own = torch.randn(2, D, generator=torch.Generator().manual_seed(0))
        row = (SEED, 0, 0)
        got = feed("noise", torch.stack([own[0], 3 * own[0], own[1]]), [9, 9, 9], [2, 2, 2], [row] * 3)
        lengths = torch.stack([own[0], 3 * own[0], own[1]]).norm(dim=1)
        torch.testing.assert_close(got.norm(dim=1), lengths, rtol=1e-6, atol=0)
        directions = got / lengths[:, None]
        torch.testing.assert_close(directions, directions[:1].expand(3, -1), rtol=1e-5, atol=1e-6)

    def test_a_zero_state_has_no_noise(self) -> None:
        assert feed("noise", torch.zeros(1, D), [1], [2], [(SEED, 0, 0)]).tolist() == [[0.0] * D]


class TestSwap:
    def test_each_step_gets_the_donors_latent_of_the_same_number(self) -> None:
        """A donor with one block, the second of the bank; phases 2, 3 and 4 are the first to third pad."""
        got = feed("swap", torch.ones(3, D), [20, 21, 22], [2, 3, 4], [(SEED, 1, 1)] * 3, bank_of(3))
        assert got[:, 0].tolist() == [10, 11, 12]

    def test_all_steps_of_a_block_are_of_one_block(self) -> None:
        bank = bank_of(4)
        seen = set()
        for start in range(30):
            positions, phases = [start + 1, start + 2, start + 3], [2, 3, 4]
            got = feed("swap", torch.ones(3, D), positions, phases, [(SEED, 1, 3)] * 3, bank)[:, 0].tolist()
            block = plain_hash(SEED % 2**32, SEED >> 32, start) % 3 + 1
            assert got == [10 * block, 10 * block + 1, 10 * block + 2]
            seen.add(block)
        assert seen == {1, 2, 3}

    def test_without_a_donor_it_is_the_own_state(self) -> None:
        own = torch.tensor([[5.0] * D, [6.0] * D])
        got = feed("swap", own, [3, 3], [2, 2], [(0, 0, 0), (SEED, 1, 1)], bank_of(2))
        assert got[:, 0].tolist() == [5, 10]


def test_zero_is_zeros() -> None:
    assert feed("zero", torch.ones(2, D), [1, 2], [2, 3], [(SEED, 0, 0)] * 2).tolist() == [[0.0] * D] * 2


@pytest.mark.parametrize("mode", MODES)
def test_neighbours_in_the_batch_change_nothing(mode: LatentAblation) -> None:
    """To the last bit, whatever the number of tokens: what a request is fed when it is computed again."""
    own = torch.randn(33, D, generator=torch.Generator().manual_seed(1))
    positions, phases = list(range(5, 38)), [2 + at % K for at in range(33)]
    rows = [(SEED + at // 4, at % 2, 2) for at in range(33)]
    together = feed(mode, own, positions, phases, rows, bank_of(4))
    for at in range(33):
        alone = feed(mode, own[at : at + 1], positions[at : at + 1], phases[at : at + 1], rows[at : at + 1], bank_of(4))
        assert torch.equal(alone[0], together[at])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_looks_at_the_data(mode: LatentAblation, dtype: torch.dtype) -> None:
    """A tensor on the meta device has none: a host sync or a shape that depends on data raises here."""
    bank = DonorBank.allocate(capacity=2, size=K, hidden_size=D, dtype=dtype, device="meta")
    places = (torch.zeros(5, dtype=torch.int32, device="meta"), torch.zeros(5, dtype=torch.int32, device="meta"))
    rows = torch.zeros(5, 3, dtype=torch.int64, device="meta")
    fed = Feedback(mode, bank).feed(torch.zeros(5, D, dtype=dtype, device="meta"), *places, rows)
    assert (fed.shape, fed.dtype) == ((5, D), dtype)


class TestBank:
    def test_a_block_that_ended_early_is_repeated(self) -> None:
        bank = DonorBank.allocate(capacity=4, size=K, hidden_size=1, dtype=torch.float32, device="cpu")
        vectors = {at: torch.tensor([float(at)]) for at in range(20)}
        assert bank.add(vectors, [[5, 6], [], [9]]) == 2
        assert bank.vectors_NKD[:, :, 0].tolist() == [[5, 6, 5], [9, 9, 9], [0, 0, 0], [0, 0, 0]]

    def test_a_full_bank_keeps_no_more(self) -> None:
        bank = bank_of(1)
        assert bank.add({0: torch.ones(D)}, [[0]]) == 0
        assert bank.num_blocks == 1
