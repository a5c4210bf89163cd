"""How rows lie in memory, and what they hold: checks of what a compiled implementation does with that."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model_runner.kernels.latent_step import Implementation, LatentState, latent_step
from tests.model_runner.kernels.steps import SPEC, Step, check, check_states, in_wider_rows, make_step
from tests.model_runner.simulator import PAD


def check_bits(implementation: Implementation, device: str, dtype: torch.dtype) -> None:
    """Every pattern of 16 bits, as one number or as two halves of one: NaN with their payloads, subnormals, -0."""
    inject, commit, *_ = latent_step(implementation)
    patterns = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype).view(16, -1).to(device)
    state = LatentState.allocate(
        num_blocks=16, block_size=1, max_requests=16, hidden_size=patterns.shape[1], dtype=dtype, device=device
    )
    at = torch.arange(16, device=device)
    commit(patterns, torch.ones(16, dtype=torch.int32, device=device), at, state)
    embeds = torch.zeros_like(patterns)
    table = torch.stack([at, (at + 1) % 16], dim=1).int()
    inject(torch.full_like(at, PAD), embeds, torch.full_like(at, 2), table, (at + 1) % 16, state, SPEC)
    assert torch.equal(state.feedback_BD[:16].view(torch.int16), patterns.view(torch.int16))
    assert torch.equal(embeds.view(torch.int16), patterns.view(torch.int16))


def every_other(vector: Tensor, fill: int) -> Tensor:
    """The same numbers in every other place of a longer vector, and others between them."""
    wide = vector.new_full((2 * len(vector),), fill)
    wide[::2] = vector
    return wide[::2]


def check_strided(implementation: Implementation, device: str, step: Step) -> None:
    """And nothing is written between the rows."""
    _, commit, *_ = latent_step(implementation)
    want, moved = step.to("cpu", torch.float64), step.to(device)
    got = replace(
        moved,
        ids_R=every_other(moved.ids_R, PAD),
        seq_lens_R=every_other(moved.seq_lens_R, 2),
        slots_R=every_other(moved.slots_R, 0),
        embeds_RD=in_wider_rows(moved.embeds_RD),
        hidden_RD=in_wider_rows(moved.hidden_RD),
        table_RB=in_wider_rows(moved.table_RB),
    )
    check(got, want, implementation)
    num_requests, hidden_size = step.embeds_RD.shape
    margins = got.embeds_RD.as_strided((num_requests - 1, 5), (hidden_size + 5, 1), storage_offset=hidden_size + 3)
    assert torch.equal(margins, torch.zeros_like(margins))
    # Once more, of phases that are strided too: nothing changes.
    phases_R = every_other(got.state.step_phase_R[:num_requests], 9)
    commit(got.hidden_RD, phases_R, got.slots_R, got.state)
    check_states(got.state, want.state)


def check_turned_is_refused(implementation: Implementation, name: str) -> None:
    inject, commit, *_ = latent_step(implementation)
    step = make_step(3, 64, torch.float32, 5)
    turned = replace(step, **{name: getattr(step, name).t().contiguous().t()})
    calls = {"hidden_RD": lambda: commit(turned.hidden_RD, step.state.step_phase_R[:3], step.slots_R, step.state)}
    with pytest.raises(ValueError, match="contiguous within a row"):
        calls.get(name, lambda: turned.inject(inject))()


def check_too_short_is_refused(implementation: Implementation) -> None:
    inject, commit, *_ = latent_step(implementation)
    step = make_step(3, 64, torch.float32, 5)
    phase_T, kept_T = step.state.step_phase_R[:3], torch.ones(3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"float16.*float32"):
        replace(step, embeds_RD=step.embeds_RD.half()).inject(inject)
    with pytest.raises(ValueError, match=r"float16.*float32"):
        commit(step.hidden_RD.half(), phase_T, step.slots_R, step.state)
    with pytest.raises(ValueError, match=r"63 wide.*64"):
        replace(step, embeds_RD=step.embeds_RD[:, 1:]).inject(inject)
    with pytest.raises(ValueError, match=r"63 wide.*64"):
        commit(step.hidden_RD[:, 1:], phase_T, step.slots_R, step.state)
    with pytest.raises(ValueError, match="3 requests"):
        replace(step, slots_R=step.slots_R[:2]).inject(inject)
    with pytest.raises(ValueError, match="3 tokens"):
        commit(step.hidden_RD, phase_T[:2], step.slots_R, step.state)
    with pytest.raises(ValueError, match="3 tokens"):
        commit(step.hidden_RD, phase_T, step.slots_R, step.state, kept_T[:2], torch.tensor([0]))
    with pytest.raises(ValueError, match="71 requests"):
        commit(step.hidden_RD, phase_T, step.slots_R, step.state, kept_T, torch.zeros(71, dtype=torch.int64))
    many = make_step(71, 64, torch.float32, 5)
    with pytest.raises(ValueError, match="71 requests"):
        many.inject(inject)
    with pytest.raises(ValueError, match="71 requests"):
        commit(many.hidden_RD, torch.zeros(71, dtype=torch.int32), many.slots_R, many.state)
