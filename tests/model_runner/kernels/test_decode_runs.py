"""Runs of decode steps against the simulator: any tokens, any pace, any neighbours, for each implementation."""

import random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.manifest import BlockRule
from model_runner.kernels.latent_step import latent_step
from tests.model_runner.kernels.cases import EXAMPLES, HIDDEN, RULES, TEXT, ints, make_state, on_cpu, rows
from tests.model_runner.simulator import END, PAD, START, TOKENS, Block, make_spec

WIDTH = 32  # positions that a block table has room for


@st.composite
def choices(draw: st.DrawFn) -> list[int]:
    """What a sampler might choose, piece by piece, so that every case of a block is common and not a coincidence."""
    text = st.lists(st.sampled_from(TEXT), max_size=3)
    pads = st.integers(0, 6).map(lambda num: [PAD] * num)  # up to more than K
    pieces = st.one_of(
        text,
        pads.map(lambda inner: [START, *inner, END]),  # a block: ended early, in time, or too late
        pads.map(lambda inner: [START, *inner, START]),  # a restart, also right after START or after K pads
        text.map(lambda inner: [START, *inner]),  # text chosen inside a block, the end of the text included
        pads,  # stray, or going on
        st.just([END]),
        st.sampled_from(TOKENS).map(lambda token: [token]),
    )
    return [token for piece in draw(st.lists(pieces, min_size=1, max_size=7)) for token in piece][: WIDTH - 1]


@on_cpu
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    sampled=st.lists(choices().filter(bool), min_size=1, max_size=4),
    size=st.integers(1, 4),
    block_size=st.sampled_from([1, 2, 3, 4, 5, 16, 32]),
    rule=st.sampled_from(RULES),
    is_decided=st.booleans(),
    rng=st.randoms(use_true_random=False),
)
def test_a_run_of_decode_steps_as_the_simulator(
    implementation: str,
    sampled: list[list[int]],
    size: int,
    block_size: int,
    rule: BlockRule,
    is_decided: bool,
    rng: random.Random,
) -> None:
    """Requests move at their own pace, in any order, with padded rows between them, on scattered blocks.

    is_decided: whether the sampler's choices pass through ``decide``, with the phases that ``commit`` left for it, as
    in an engine; or whether they are fed as they are, as another engine's history might be.
    """
    inject, commit, decide, _ = latent_step(implementation)
    width = -(-WIDTH // block_size)
    blocks = list(range(len(sampled) * width))
    rng.shuffle(blocks)
    tables = [blocks[i * width : (i + 1) * width] for i in range(len(sampled))]
    state = make_state(num_blocks=len(blocks), block_size=block_size)
    spec = make_spec(size, rule)
    simulated = [Block(size) for _ in sampled]
    pending = [choices[0] for choices in sampled]  # the token of each request to be fed next
    hidden: list[list[float]] = [[] for _ in sampled]
    marker = 0.0
    while any(len(hidden[r]) < len(choices) for r, choices in enumerate(sampled)):
        open_ones = [r for r, choices in enumerate(sampled) if len(hidden[r]) < len(choices)]
        batch: list[int | None] = [*rng.sample(open_ones, rng.randint(1, len(open_ones)))]
        batch += [None] * rng.randint(0, 2)
        at = [len(hidden[r]) if r is not None else 0 for r in batch]
        slots = [
            tables[r][p // block_size] * block_size + p % block_size if r is not None else -1
            for r, p in zip(batch, at, strict=True)
        ]
        plain = [-1.0 - row for row in range(len(batch))]
        embeds = rows(*plain)
        phase = inject(
            ints(*(pending[r] if r is not None else PAD for r in batch)),
            embeds,
            ints(*(p + 1 if r is not None else 0 for r, p in zip(batch, at, strict=True))),
            torch.tensor([tables[r] if r is not None else [0] * width for r in batch], dtype=torch.int32),
            torch.tensor(slots),
            state,
            spec,
        )
        markers = [marker + row for row in range(len(batch))]
        marker += len(batch)
        commit(rows(*markers), phase, torch.tensor(slots), state)
        next_ones = [sampled[r][p + 1 : p + 2] if r is not None else [] for r, p in zip(batch, at, strict=True)]
        choices_R = [choice for one in next_ones for choice in (one or [PAD])]
        decided = decide(torch.tensor(choices_R), state.request_phase_R[: len(batch)], spec).tolist()
        for row, (r, p) in enumerate(zip(batch, at, strict=True)):
            if r is None:
                assert embeds[row].tolist() == [plain[row]] * HIDDEN
                continue
            is_latent = simulated[r].read(pending[r])
            assert embeds[row].tolist() == [hidden[r][p - 1] if is_latent else plain[row]] * HIDDEN
            assert int(phase[row]) == simulated[r].phase
            assert decided[row] == simulated[r].decide(choices_R[row], rule)
            pending[r] = decided[row] if is_decided else choices_R[row]
            hidden[r].append(markers[row])
