"""The same where tensors lie in the host's memory: NumPy works on them in place.

With few rows the definition takes longer to call than to compute, and a look at the data costs nothing here. So a step
is NumPy's, at a fraction of the price of PyTorch operations, and of as few of them as will do: each costs more than
what it does to a few numbers, and more than to ask a list whether it is needed. What is read and written is what
``reference`` reads and writes, bit for bit, but for vectors of phase 0: nobody reads them, and they are not written.
"""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from contracts.manifest import LatentSpec
from model_runner.kernels.latent_step.reference import LatentState

NOTHING = -1


def inject(
    ids_R: Tensor,
    embeds_RD: Tensor,
    seq_lens_R: Tensor,
    block_table_RB: Tensor,
    slots_R: Tensor,
    state: LatentState,
    spec: LatentSpec,
) -> Tensor:
    """As ``reference.inject``."""
    arrays, ids, slots = state.arrays, ids_R.numpy(), slots_R.numpy()
    phase = arrays.step_phase[: len(ids)]
    phase.fill(0)
    if min(slots.tolist(), default=0) < 0:
        ids = np.where(slots < 0, NOTHING, ids)
    tokens = ids.tolist()
    if spec.start_id in tokens:
        phase[ids == spec.start_id] = 1
    if spec.pad_id in tokens:
        (pads,) = (ids == spec.pad_id).nonzero()
        before = seq_lens_R.numpy()[pads] - 2
        rows = block_table_RB.numpy()[pads, before // state.block_size]
        after = _after_a_pad(spec.size)[arrays.phase[rows]]
        if min(before.tolist()) < 0:  # the first position: its row is any
            after[before < 0] = 0
        if 0 in after.tolist():
            pads, rows, after = pads[after > 0], rows[after > 0], after[after > 0]
        phase[pads] = after
        embeds_RD.view(torch.uint8).numpy()[pads] = arrays.feedback[rows]
    return state.step_phase_R[: len(ids)]


def commit(
    hidden_TD: Tensor,
    phase_T: Tensor,
    slots_T: Tensor,
    state: LatentState,
    kept_T: Tensor | None = None,
    last_R: Tensor | None = None,
) -> None:
    """As ``reference.commit``."""
    arrays, phase = state.arrays, phase_T.numpy()
    of_requests = phase if last_R is None else phase[last_R.numpy()]
    arrays.request_phase[: len(of_requests)] = of_requests
    arrays.is_inside = any(of_requests.tolist())
    rows = slots_T.numpy() // state.block_size  # of a padded token -1: the last row, which is ``discard``
    if kept_T is not None:
        (kept,) = kept_T.numpy().nonzero()
        rows, phase = rows[kept], phase[kept]
    arrays.phase[rows] = phase
    if any(phase.tolist()):
        hidden_TD = hidden_TD if kept_T is None else hidden_TD[from_numpy(kept)]
        arrays.feedback[rows] = hidden_TD.view(torch.uint8).numpy()


def decide(chosen_R: Tensor, phase_R: Tensor, spec: LatentSpec) -> Tensor:
    """As ``reference.decide``."""
    chosen, forced = chosen_R.numpy(), _forced(spec.size, spec.pad_id, spec.end_id)[phase_R.numpy()]
    if spec.rule == "learned" and not {spec.start_id, spec.end_id}.isdisjoint(chosen.ravel().tolist()):
        forced[(chosen == spec.start_id) | (chosen == spec.end_id)] = NOTHING
    if NOTHING in forced.ravel().tolist():
        forced = np.where(forced == NOTHING, chosen, forced)
    return from_numpy(forced.astype(chosen.dtype, copy=False))


@cache
def _after_a_pad(size: int) -> NDArray[np.int32]:
    """The phase after a pad, by the phase before it."""
    return np.array([0, *range(2, size + 2), 0], np.int32)


@cache
def _forced(size: int, pad_id: int, end_id: int) -> NDArray[np.int32]:
    """The token that must come, by phase, or ``NOTHING``."""
    return np.array([NOTHING, *[pad_id] * size, end_id], np.int32)
