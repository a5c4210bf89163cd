"""FULL graphs are refused in steps that Python must see, by vLLM's own choosers: of both runners."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.config import CUDAGraphMode
from vllm.forward_context import BatchDescriptor
from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher
from vllm.v1.worker.gpu import cudagraph_utils

from model_runner.engine.base import EngineRequest, SamplingSettings
from model_runner.model.graph_gate import gate_dispatcher, gate_manager
from tests.model_runner.model.conftest import add_in_a_block
from tests.parity.stepper import Stepper

SIZES = [1, 2, 4, 8, 16]
FULL, PIECEWISE, NONE = CUDAGraphMode.FULL, CUDAGraphMode.PIECEWISE, CUDAGraphMode.NONE


class Gate:
    is_closed = False

    def __call__(self) -> bool:
        return self.is_closed


def config_of(mode: CUDAGraphMode) -> Any:
    """As much of vLLM's configuration as its choosers read."""
    compilation = SimpleNamespace(
        cudagraph_mode=mode,
        cudagraph_capture_sizes=SIZES,
        max_cudagraph_capture_size=SIZES[-1],
        compile_sizes=[],
        is_attention_compiled_piecewise=lambda: True,
    )
    return SimpleNamespace(
        compilation_config=compilation,
        scheduler_config=SimpleNamespace(max_num_seqs=SIZES[-1]),
        parallel_config=SimpleNamespace(tensor_parallel_size=1, data_parallel_size=1),
        cache_config=SimpleNamespace(use_kda_recoverssm=False),
        lora_config=None,
        speculative_config=None,
        num_speculative_tokens=0,
    )


Choose = Callable[[int], Any]  # the mode for so many requests of one token each


def of_v1(mode: CUDAGraphMode, gate: Gate) -> Choose:
    dispatcher = CudagraphDispatcher(config_of(mode))
    dispatcher.initialize_cudagraph_keys(mode)
    gate_dispatcher(dispatcher, gate)
    return lambda num: dispatcher.dispatch(
        num_tokens=num, uniform_decode=True, has_lora=False, num_active_loras=0, valid_modes=None, invalid_modes=None
    )[0]


@pytest.fixture
def of_v2(monkeypatch: pytest.MonkeyPatch) -> Callable[[CUDAGraphMode, Gate], Choose]:
    one_rank = SimpleNamespace(is_first_rank=True, is_last_rank=True)
    monkeypatch.setattr(cudagraph_utils, "get_pp_group", lambda: one_rank)
    monkeypatch.setattr(cudagraph_utils, "current_platform", SimpleNamespace(get_global_graph_pool=lambda: None))

    def make(mode: CUDAGraphMode, gate: Gate) -> Choose:
        manager = cudagraph_utils.CudaGraphManager(config_of(mode), "cpu", mode, decode_query_len=1)
        manager._graphs_captured = True
        gate_manager(manager, gate)
        return lambda num: manager.dispatch(num, num, 1, num_active_loras=0, max_query_len=1).cg_mode

    return make


@pytest.fixture(params=["V1", "V2"])
def runner(request: pytest.FixtureRequest, of_v2: Any) -> Callable[[CUDAGraphMode, Gate], Choose]:
    return of_v1 if request.param == "V1" else of_v2


@pytest.mark.parametrize(
    ("mode", "opened", "closed"),
    [
        (CUDAGraphMode.FULL_AND_PIECEWISE, FULL, PIECEWISE),
        (CUDAGraphMode.FULL_DECODE_ONLY, FULL, NONE),
        (CUDAGraphMode.PIECEWISE, PIECEWISE, PIECEWISE),
        (CUDAGraphMode.NONE, NONE, NONE),
    ],
    ids=str,
)
def test_no_full_graph_while_the_gate_is_closed(
    mode: CUDAGraphMode, opened: CUDAGraphMode, closed: CUDAGraphMode, runner: Any
) -> None:
    gate = Gate()
    choose = runner(mode, gate)
    for num_requests in (1, 3, SIZES[-1]):
        for gate.is_closed, expected in ((False, opened), (True, closed), (False, opened)):
            assert choose(num_requests) == expected
    assert choose(SIZES[-1] + 1) == NONE  # more than any graph is for


def test_what_else_is_forbidden_stays_so() -> None:
    gate = Gate()
    dispatcher = CudagraphDispatcher(config_of(CUDAGraphMode.FULL_AND_PIECEWISE))
    dispatcher.initialize_cudagraph_keys(CUDAGraphMode.FULL_AND_PIECEWISE)
    gate_dispatcher(dispatcher, gate)
    for gate.is_closed, expected in ((False, FULL), (True, NONE)):
        assert dispatcher.dispatch(3, uniform_decode=True, invalid_modes={PIECEWISE})[0] == expected
    assert dispatcher.dispatch(3, uniform_decode=True, valid_modes={NONE})[0] == NONE


def test_a_graph_of_mixed_batches_is_never_taken_for_want_of_another(of_v2: Any) -> None:
    """The worker refuses to capture such graphs. Should one be there all the same, the step stops."""
    gate = Gate()
    choose = of_v2(CUDAGraphMode.FULL, gate)
    assert choose(3) == FULL
    gate.is_closed = True
    with pytest.raises(RuntimeError, match="would skip latents"):
        choose(3)


@pytest.fixture
def modes(maze_stepper: Stepper) -> Iterator[list[CUDAGraphMode]]:
    """What the engine's own dispatcher says to each step, told that there are graphs as on a GPU; none is taken."""
    dispatcher = maze_stepper.worker.model_runner.cudagraph_dispatcher
    with_graphs = CudagraphDispatcher(config_of(CUDAGraphMode.FULL_AND_PIECEWISE))
    with_graphs.initialize_cudagraph_keys(CUDAGraphMode.FULL_AND_PIECEWISE)
    told: list[CUDAGraphMode] = []
    kept = dict(vars(dispatcher))
    vars(dispatcher).update(vars(with_graphs))
    dispatch = dispatcher.dispatch  # of the instance where the worker has put a gate there

    def heard(num_tokens: int, **kwargs: Any) -> tuple[CUDAGraphMode, BatchDescriptor]:
        told.append(dispatch(num_tokens=num_tokens, **kwargs)[0])
        return NONE, BatchDescriptor(num_tokens)

    dispatcher.dispatch = heard
    yield told
    vars(dispatcher).clear()
    vars(dispatcher).update(kept)


def test_the_worker_has_closed_the_gate_of_its_engine(maze_stepper: Stepper, modes: list[CUDAGraphMode]) -> None:
    """Steps of one token per request, of which vLLM would replay each: those of newcomers and traces it may not."""
    stepper = maze_stepper
    stepper.start_over()
    add_in_a_block(stepper, "first", max_tokens=6)
    stepper.step()
    modes.clear()
    stepper.step()
    newcomer = EngineRequest(
        request_id="newcomer",
        prompt_ids=(stepper.checkpoint.spec.start_id,),
        sampling=SamplingSettings(max_tokens=4),
    )
    stepper.add(newcomer, stop_token_ids=[])
    assert set(stepper.step().values()) == {1}
    stepper.step()
    with stepper.fed():
        stepper.step()
    stepper.step()
    assert modes == [FULL, PIECEWISE, FULL, PIECEWISE, FULL]
