"""Steps of several tokens per request, against the simulator, on a small scheduler with a prefix cache.

The scheduler does what makes it hard in vLLM: blocks are shared as soon as they are scheduled, before they are filled.
The "hidden state" after a prefix is a number of its own, so that a wrong row or link is seen at once.
"""

import itertools
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from contracts.manifest import LatentSpec
from model_runner.kernels.latent_step import LatentState, latent_step
from model_runner.model.chunk import NO_LINK, Chunk, read_chunk
from tests.model_runner.kernels.cases import EXAMPLES, on_cpu
from tests.model_runner.simulator import END, PAD, START, TOKENS, A, B, make_spec, read_all

TABLE_WIDTH = 32


@dataclass
class Request:
    ids: list[int]
    blocks: list[int] = field(default_factory=list)
    num_computed: int = 0

    def prefix(self, position: int) -> tuple[int, ...]:
        """What determines the hidden state at a position: the tokens up to it."""
        return tuple(self.ids[: position + 1])


class World:
    """A prefix-caching scheduler, latent state, and the checks. One step at a time.

    decodes: whether steps of one token per request, none of which (re)starts, are decode steps, as in the model class.
    """

    def __init__(
        self,
        requests: list[list[int]],
        *,
        block_size: int,
        spec: LatentSpec,
        implementation: str = "reference",
        decodes: bool = False,
    ) -> None:
        self.inject, self.commit, *_ = latent_step(implementation)
        self.decodes = decodes
        self.requests = [Request(ids) for ids in requests]
        self.block_size = block_size
        self.spec = spec
        self.cached: dict[tuple[int, ...], int] = {}
        self.num_blocks = 0
        self.numbers: dict[tuple[int, ...], int] = {}
        self.state = LatentState.allocate(
            num_blocks=512, block_size=block_size, max_requests=8, hidden_size=2, dtype=torch.float32, device="cpu"
        )
        self.state.phase_B[:512] = 2  # stale: as if every block had been used before
        self.state.feedback_BD[:512] = float("nan")

    def preempt(self, index: int) -> None:
        self.requests[index].blocks = []
        self.requests[index].num_computed = 0

    def step(self, plan: list[tuple[int, int]], order: list[int] | None = None) -> Chunk | None:
        """plan: (request, most tokens to compute), as scheduled; order: their rows in the batch. Checks everything.

        None after a decode step.
        """
        has_newcomers = any(not self.requests[index].blocks for index, _ in plan)
        ranges = {index: self._schedule(self.requests[index], wanted) for index, wanted in plan}
        rows = [index for index, _ in plan] if order is None else [plan[at][0] for at in order]
        tokens = [(self.requests[index], position) for index in rows for position in ranges[index]]
        slots = [
            request.blocks[position // self.block_size] * self.block_size + position % self.block_size
            for request, position in tokens
        ]
        starts = [0]
        for index in rows:
            starts.append(starts[-1] + len(ranges[index]))
        table = torch.zeros(len(rows), TABLE_WIDTH, dtype=torch.int32)
        for row, index in enumerate(rows):
            blocks = self.requests[index].blocks
            table[row, : len(blocks)] = torch.tensor(blocks)
        ids_T = torch.tensor([request.ids[position] for request, position in tokens], dtype=torch.int32)
        seq_lens_R = torch.tensor([self.requests[index].num_computed for index in rows], dtype=torch.int32)
        slots_T = torch.tensor(slots, dtype=torch.int64)
        hidden_TD = torch.tensor([[float(self._number(request.prefix(at)))] * 2 for request, at in tokens])
        if self.decodes and not has_newcomers and len(tokens) == len(rows):
            embeds_TD = torch.full((len(rows), 2), -1.0)
            phase_T = self.inject(ids_T, embeds_TD, seq_lens_R, table, slots_T, self.state, self.spec)
            self._check_decode(embeds_TD, phase_T, tokens)
            self.commit(hidden_TD, phase_T, slots_T, self.state)
            return None
        starts_R = torch.tensor(starts, dtype=torch.int32)
        chunk = read_chunk(ids_T, starts_R, seq_lens_R, table, slots_T, self.state, self.spec)
        self._check(chunk, tokens, slots, starts)
        self.commit(hidden_TD, chunk.phase_T, slots_T, self.state, chunk.kept_T, chunk.last_R)
        return chunk

    def _schedule(self, request: Request, wanted: int) -> range:
        """Positions to compute. A new or preempted request starts after the blocks that others hold of its prefix."""
        if not request.blocks:
            while self._block_end(request) < len(request.ids):  # at least one token is left to compute
                block = self.cached.get(request.prefix(self._block_end(request) - 1))
                if block is None:
                    break
                request.blocks.append(block)
            request.num_computed = len(request.blocks) * self.block_size
        first = request.num_computed
        last = min(first + wanted, len(request.ids))
        while len(request.blocks) * self.block_size < last:
            request.blocks.append(self.num_blocks)
            self.num_blocks += 1
        for at, block in enumerate(request.blocks):
            end = (at + 1) * self.block_size
            if end <= last:
                self.cached.setdefault(request.prefix(end - 1), block)
        request.num_computed = last
        return range(first, last)

    def _block_end(self, request: Request) -> int:
        """One past the last position of the next block."""
        return (len(request.blocks) + 1) * self.block_size

    def _number(self, prefix: tuple[int, ...]) -> int:
        return self.numbers.setdefault(prefix, len(self.numbers))

    def _check_decode(self, embeds_TD: Tensor, phase_T: Tensor, tokens: list[tuple[Request, int]]) -> None:
        for at, (request, position) in enumerate(tokens):
            is_latent, phase = read_all(request.ids, self.spec.size)[position]
            fed = self._number(request.prefix(position - 1)) if is_latent else -1.0
            assert embeds_TD[at].tolist() == [fed] * 2
            assert int(phase_T[at]) == phase

    def _check(self, chunk: Chunk, tokens: list[tuple[Request, int]], slots: list[int], starts: list[int]) -> None:
        for at, (request, position) in enumerate(tokens):
            is_latent, phase = read_all(request.ids, self.spec.size)[position]
            assert int(chunk.positions_T[at]) == position
            assert bool(chunk.inner_T[at]) is is_latent
            assert int(chunk.phase_T[at]) == phase
            is_last = at + 1 in starts
            assert bool(chunk.kept_T[at]) is (is_last or (position + 1) % self.block_size == 0)
            link = int(chunk.link_T[at])
            if position == 0:
                assert link == NO_LINK
                continue
            before = position - 1
            block = request.blocks[before // self.block_size]
            slot = block * self.block_size + before % self.block_size
            assert link == (slots.index(slot) if slot in slots else NO_LINK)
            if link == NO_LINK:
                assert int(chunk.row_T[at]) == block
                if is_latent:  # the row holds the hidden state of exactly this prefix
                    assert self.state.feedback_BD[block].tolist() == [self._number(request.prefix(before))] * 2
        assert chunk.last_R.tolist() == [start - 1 for start in starts[1:]]
        lengths = [after - before for before, after in itertools.pairwise(starts)]
        assert chunk.request_T.tolist() == [row for row, length in enumerate(lengths) for _ in range(length)]


def test_one_prompt_at_once() -> None:
    chunk = World([[A, START, PAD, PAD, END, PAD, B]], block_size=4, spec=make_spec(size=3)).step([(0, 99)])
    assert chunk.phase_T.tolist() == [0, 1, 2, 3, 0, 0, 0]
    assert chunk.inner_T.tolist() == [False, False, True, True, False, False, False]
    assert chunk.link_T.tolist() == [NO_LINK, 0, 1, 2, 3, 4, 5]
    assert chunk.kept_T.tolist() == [False, False, False, True, False, False, True]


def test_a_block_goes_on_in_the_next_chunk() -> None:
    """Its state comes from the row, whether or not a block of the cache ends where the chunk does."""
    for block_size in (1, 2, 3, 4):
        world = World([[START, PAD, PAD, PAD, END, A]], block_size=block_size, spec=make_spec(size=3))
        world.step([(0, 3)])
        chunk = world.step([(0, 3)])
        assert chunk.phase_T.tolist() == [4, 0, 0]
        assert chunk.inner_T.tolist() == [True, False, False]
        assert chunk.link_T.tolist() == [NO_LINK, 0, 1]


def test_no_more_than_k_latents_across_chunks() -> None:
    world = World([[START, PAD, PAD, PAD, PAD, PAD]], block_size=2, spec=make_spec(size=3))
    world.step([(0, 3)])
    assert world.step([(0, 3)]).inner_T.tolist() == [True, False, False]


def test_the_first_of_a_request_does_not_follow_its_neighbour_in_the_batch() -> None:
    world = World([[A, START], [PAD, PAD], [B, PAD]], block_size=8, spec=make_spec())
    assert world.step([(0, 9), (1, 9), (2, 9)]).phase_T.tolist() == [0, 1, 0, 0, 0, 0]


def test_a_block_that_another_request_is_filling() -> None:
    """The position before the second request's first token is computed in this very step, by the first."""
    first = [A, START, PAD, PAD]
    world = World([first, [*first, PAD, END]], block_size=4, spec=make_spec(size=3))
    chunk = world.step([(0, 9), (1, 9)])
    assert chunk.link_T.tolist() == [NO_LINK, 0, 1, 2, 3, 4]
    assert chunk.phase_T.tolist() == [0, 1, 2, 3, 4, 0]
    assert chunk.inner_T.tolist() == [False, False, True, True, True, False]


def test_a_chain_of_three_in_any_order() -> None:
    """The third begins in a block of the second, which begins in a block of the first."""
    ids = [A, START, PAD, PAD, PAD, END]
    orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
    for order in orders:
        world = World([ids[:2], ids[:4], ids], block_size=2, spec=make_spec(size=3))
        chunk = world.step([(0, 9), (1, 9), (2, 9)], order)
        at = {index: 2 * row for row, index in enumerate(order)}  # each computes 2 tokens
        assert int(chunk.link_T[at[1]]) == at[0] + 1
        assert int(chunk.link_T[at[2]]) == at[1] + 1
        assert chunk.phase_T[at[2] : at[2] + 2].tolist() == [4, 0]


def test_a_chain_of_three_with_one_token_each() -> None:
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        world = World([[START], [START, PAD], [START, PAD, PAD]], block_size=1, spec=make_spec(size=3))
        chunk = world.step([(0, 1), (1, 1), (2, 1)], order)
        assert [int(chunk.phase_T[order.index(index)]) for index in range(3)] == [1, 2, 3]
        assert [int(chunk.link_T[order.index(index)]) for index in (1, 2)] == [order.index(0), order.index(1)]


def test_a_preempted_request_starts_anew_from_what_is_cached() -> None:
    world = World([[A, START, PAD, PAD, PAD, END, B]], block_size=2, spec=make_spec(size=3))
    for _ in range(6):
        world.step([(0, 1)])
    world.preempt(0)
    chunk = world.step([(0, 99)])
    assert chunk.positions_T.tolist() == [6]  # three full blocks were kept
    world.cached.clear()
    world.preempt(0)
    chunk = world.step([(0, 99)])
    assert chunk.inner_T.tolist() == [False, False, True, True, True, False, False]


def test_padded_requests_and_tokens() -> None:
    """Requests of length 0 at the end, as a padded batch has them."""
    spec = make_spec(size=3)
    state = World([], block_size=4, spec=spec).state
    chunk = read_chunk(
        torch.tensor([START, PAD]),
        torch.tensor([0, 2, 2, 2], dtype=torch.int32),
        torch.tensor([2, 0, 0], dtype=torch.int32),
        torch.zeros(3, 2, dtype=torch.int32),
        torch.tensor([0, 1]),
        state,
        spec,
    )
    assert chunk.phase_T.tolist() == [1, 2]
    assert chunk.link_T.tolist() == [NO_LINK, 0]
    assert chunk.last_R.tolist() == [1, 1, 1]


@st.composite
def families(draw: st.DrawFn) -> list[list[int]]:
    """Sequences of which some begin as others do: what a prefix cache is for.

    Mostly pads and STARTs: so blocks end early, run over K and restart, and prefixes fork inside of them.
    """
    tokens = st.sampled_from(TOKENS + (PAD,) * 8 + (START,) * 2)
    family = [draw(st.lists(tokens, min_size=1, max_size=14))]
    for _ in range(draw(st.integers(0, 4))):
        parent = draw(st.sampled_from(family))
        kept = parent[: draw(st.integers(0, len(parent)))] if draw(st.booleans()) else parent
        family.append([*kept, *draw(st.lists(tokens, min_size=1, max_size=6))])
    return family


@on_cpu
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    family=families(),
    block_size=st.sampled_from([1, 2, 3, 4, 5, 16]),
    size=st.integers(1, 4),
    decodes=st.booleans(),
    most=st.sampled_from([1, 6]),
    data=st.data(),
)
def test_any_schedule_as_the_simulator(
    implementation: str,
    family: list[list[int]],
    block_size: int,
    size: int,
    decodes: bool,
    most: int,
    data: st.DataObject,
) -> None:
    """Any split into chunks, any neighbours, any order in the batch, preemptions: :meth:`World.step` checks it all.

    Chunks end anywhere in a block and in a block of the cache; steps of one token are prefill or decode steps.
    """
    world = World(family, block_size=block_size, spec=make_spec(size), implementation=implementation, decodes=decodes)
    for _ in range(60):
        unfinished = [at for at, request in enumerate(world.requests) if request.num_computed < len(request.ids)]
        if not unfinished:
            break
        if data.draw(st.integers(0, 9)) == 0:
            world.preempt(data.draw(st.sampled_from(unfinished)))
        chosen = data.draw(st.lists(st.sampled_from(unfinished), min_size=1, unique=True))
        plan = [(at, data.draw(st.integers(1, most))) for at in chosen]
        world.step(plan, data.draw(st.permutations(range(len(plan)))))


@on_cpu
@settings(max_examples=60, deadline=None)
@given(family=families(), block_size=st.integers(1, 3), size=st.integers(1, 4), data=st.data())
def test_all_at_once_on_a_cold_cache(
    implementation: str, family: list[list[int]], block_size: int, size: int, data: st.DataObject
) -> None:
    """The most sharing there can be of blocks that are being filled."""
    world = World(family, block_size=block_size, spec=make_spec(size), implementation=implementation)
    world.step([(at, 99) for at in range(len(family))], data.draw(st.permutations(range(len(family)))))


def test_the_checks_notice_a_row_that_was_not_committed() -> None:
    """The bound has teeth: without the commit at the end of a block, the next reader sees a stale row."""
    world = World([[START, PAD, PAD, PAD, END]], block_size=2, spec=make_spec(size=3))
    world.step([(0, 2)])
    world.state.phase_B[0] = 0
    with pytest.raises(AssertionError):
        world.step([(0, 2)])
