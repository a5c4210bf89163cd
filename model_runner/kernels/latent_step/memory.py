"""The buffers of a latent state as the compiled loops of a CPU are told of them: by address."""

from torch import Tensor


class HostMemory:
    """Where the buffers lie and how large they are, asked once, and what of them the host looks at.

    step_phases: views of ``step_phase_R``, the first so many of it. request_phases: ``request_phase_R`` as NumPy sees
    it. is_inside: whether a request may be inside a block after the last commit; ``host.commit`` alone knows when none
    is.
    """

    def __init__(self, feedback_BD: Tensor, phase_B: Tensor, step_phase_R: Tensor, request_phase_R: Tensor) -> None:
        self.feedback = feedback_BD.data_ptr()
        self.phase = phase_B.data_ptr()
        self.step_phase = step_phase_R.data_ptr()
        self.request_phase = request_phase_R.data_ptr()
        self.num_rows, self.hidden_size = feedback_BD.shape
        self.dtype = feedback_BD.dtype
        self.item_bytes = self.dtype.itemsize
        self.row_bytes = self.item_bytes * self.hidden_size
        self.max_requests = len(step_phase_R)
        self.step_phases = [step_phase_R[:count] for count in range(self.max_requests + 1)]
        self.request_phases = request_phase_R.numpy()
        self.is_inside = True
