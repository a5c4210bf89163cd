"""The same where tensors lie in the host's memory: NumPy works on them in place.

With few rows the definition takes longer to call than to compute, and a look at the data costs nothing here. So a step
is NumPy's, at a fraction of the price of PyTorch operations, and of as few of them as will do: each costs more than
what it does to a few numbers. What is read and written is what ``reference`` reads and writes, bit for bit, but for
vectors of phase 0, which nobody reads and which are not written here.
"""

import numpy as np
import torch
from torch import Tensor, from_numpy

from contracts.manifest import LatentSpec
from model_runner.kernels.latent_step.reference import LatentState


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
    arrays, ids, is_real = state.arrays, ids_R.numpy(), slots_R.numpy() >= 0
    phase = arrays.step_phase[: len(ids)]
    np.logical_and(ids == spec.start_id, is_real, out=phase)
    pads = np.flatnonzero((ids == spec.pad_id) & is_real)
    if len(pads):
        before = seq_lens_R.numpy()[pads] - 2
        rows = block_table_RB.numpy()[pads, before // state.block_size]  # -1: any row, and not fed
        previous = arrays.phase[rows]
        is_fed = (before >= 0) & (previous >= 1) & (previous <= spec.size)
        if not is_fed.all():
            pads, rows, previous = pads[is_fed], rows[is_fed], previous[is_fed]
        phase[pads] = previous + 1
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
    arrays.is_inside = bool(of_requests.any())
    rows = slots_T.numpy() // state.block_size  # of a padded token -1: the last row, which is ``discard``
    if kept_T is not None:
        kept = np.flatnonzero(kept_T.numpy())
        rows, phase = rows[kept], phase[kept]
    arrays.phase[rows] = phase
    if phase.any():
        hidden_TD = hidden_TD if kept_T is None else hidden_TD[from_numpy(kept)]
        arrays.feedback[rows] = hidden_TD.view(torch.uint8).numpy()


def decide(chosen_R: Tensor, phase_R: Tensor, spec: LatentSpec) -> Tensor:
    """As ``reference.decide``."""
    chosen, phase = chosen_R.numpy(), phase_R.numpy()
    is_forced = phase >= 1
    if spec.rule == "learned":
        is_forced &= (chosen != spec.start_id) & (chosen != spec.end_id)
    forced = np.where(phase > spec.size, spec.end_id, spec.pad_id)
    return from_numpy(np.where(is_forced, forced, chosen).astype(chosen.dtype, copy=False))
