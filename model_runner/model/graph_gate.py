"""Steps that no FULL CUDA graph may take.

A FULL graph replays what was captured, which is the decode path of the model class, and Python never runs. vLLM
chooses it by shape: one token per request. But such a step is not always plain decoding. A request that has just
(re)started may need the hidden state of a token that another request computes in this very step, and a trace of latents
is written by Python. In those steps vLLM is told that there is no FULL graph: it takes piecewise graphs or none, and
the model class sees the step.

Each runner has its own chooser. Both are wrapped on the instance, and only their answer is narrowed.
"""

from collections.abc import Callable
from typing import Any

from vllm.config import CUDAGraphMode


def gate_dispatcher(dispatcher: Any, is_closed: Callable[[], bool]) -> None:
    """For the ``CudagraphDispatcher`` of Model Runner V1: no FULL graph in a step for which ``is_closed`` says so."""
    dispatch = dispatcher.dispatch

    def gated(*args: Any, invalid_modes: Any = None, **kwargs: Any) -> Any:
        if is_closed():
            invalid_modes = {CUDAGraphMode.FULL, *(invalid_modes or ())}
        return dispatch(*args, invalid_modes=invalid_modes, **kwargs)

    dispatcher.dispatch = gated


def gate_manager(manager: Any, is_closed: Callable[[], bool]) -> None:
    """The same for the ``CudaGraphManager`` of Model Runner V2.

    There a FULL graph serves batches with a known number of tokens per request; of others it is not offered one.
    """
    dispatch = manager.dispatch

    def gated(
        num_reqs: int,
        num_tokens: int,
        uniform_token_count: int | None,
        num_active_loras: int,
        max_query_len: int | None = None,
        num_ubatches: int = 1,
    ) -> Any:
        if is_closed():
            uniform_token_count = max_query_len = None
        found = dispatch(num_reqs, num_tokens, uniform_token_count, num_active_loras, max_query_len, num_ubatches)
        if is_closed() and found.cg_mode == CUDAGraphMode.FULL:
            raise RuntimeError(f"a graph of mixed batches was captured, and would skip latents: {found}")
        return found

    manager.dispatch = gated
