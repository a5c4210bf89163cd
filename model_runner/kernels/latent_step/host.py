"""The same where tensors lie in the host's memory: NumPy works on them in place.

With few rows the definition takes longer to call than to compute, and a look at the data costs nothing here. So vectors
of a step are NumPy's, at a fraction of the price of a PyTorch operation, and only embeddings of latents are moved.
What is read and written is what ``reference`` reads and writes, bit for bit.
"""

import numpy as np
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
    ids, is_real = ids_R.numpy(), slots_R.numpy() >= 0
    phase_R = state.step_phase_R[: len(ids)]
    phase = phase_R.numpy()
    phase[:] = (ids == spec.start_id) & is_real
    pads = np.flatnonzero((ids == spec.pad_id) & is_real)
    if len(pads):
        before = seq_lens_R.numpy()[pads] - 2
        rows = block_table_RB.numpy()[pads, np.maximum(before, 0) // state.block_size]
        previous = np.where(before >= 0, state.phase_B.numpy()[rows], 0)
        is_fed = (previous >= 1) & (previous <= spec.size)
        pads, rows = pads[is_fed], rows[is_fed]
        phase[pads] = previous[is_fed] + 1
        embeds_RD[from_numpy(pads)] = state.feedback_BD[from_numpy(rows).long()]
    return phase_R


def commit(
    hidden_TD: Tensor,
    phase_T: Tensor,
    slots_T: Tensor,
    state: LatentState,
    kept_T: Tensor | None = None,
    last_R: Tensor | None = None,
) -> None:
    """As ``reference.commit``, except that ``discard`` is not written."""
    slots, phase = slots_T.numpy(), phase_T.numpy()
    is_written = slots >= 0 if kept_T is None else kept_T.numpy() & (slots >= 0)
    written = np.flatnonzero(is_written)
    rows = slots[written] // state.block_size
    state.phase_B.numpy()[rows] = phase[written]
    hidden = hidden_TD if len(written) == len(slots) else hidden_TD[from_numpy(written)]
    state.feedback_BD.index_copy_(0, from_numpy(rows).long(), hidden)
    of_requests = phase if last_R is None else phase[last_R.numpy()]
    state.request_phase_R.numpy()[: len(of_requests)] = of_requests
