"""vLLM's engine in this process, stepped by hand: what happens between two steps is for the test to say.

The arguments, the prompts and the sampling parameters are those of the engine of production (``VllmEngine``).
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from model_runner.ablation.donors import OWN, Ablation
from model_runner.checkpoint import Checkpoint
from model_runner.engine.base import EngineRequest
from model_runner.engine.vllm_arguments import engine_arguments
from model_runner.engine.vllm_engine import VllmEngine
from model_runner.engine.vllm_prompts import raw_prompt
from model_runner.environment import set_cpu_environment, set_environment, set_runner_environment
from model_runner.generation import GenerationDefaults
from model_runner.settings import RunnerSettings

BLOCK_SIZE = 32  # of most tests: the smallest that the attention kernel for CPUs knows
ALL_PADS = 1000  # max_replayed_pads: as many as there are


class Stepper:
    """ids: what each request answered so far, by its id. reasons: why it ended. scheduled: tokens of each step."""

    def __init__(self, llm: Any, checkpoint: Checkpoint, defaults: GenerationDefaults) -> None:
        self.llm = llm
        self.checkpoint = checkpoint
        self.defaults = defaults
        self.core = llm.engine_core.engine_core
        self.scheduler = self.core.scheduler
        self.worker = self.core.model_executor.driver_worker.worker
        self.model = self.worker.model_runner.get_model()
        self.block_size: int = self.model.state.block_size
        self.ids: dict[str, list[int]] = {}
        self.reasons: dict[str, str] = {}
        self.num_cached: dict[str, int] = {}
        self.scheduled: list[dict[str, int]] = []
        self._inner: dict[str, str] = {}  # vLLM gives every request a second id of its own
        self._production = VllmEngine(None, None, checkpoint, defaults.end_ids, 0, Ablation("none"))
        self._budget: int = self.scheduler.max_num_scheduled_tokens

    def add(self, request: EngineRequest, **changes: Any) -> None:
        """``changes``: of vLLM's ``SamplingParams``."""
        params = replace(self._production._sampling_params(request, OWN), **changes)
        self._inner[request.request_id] = self.llm.add_request(request.request_id, raw_prompt(request), params)
        for n in range(params.n):
            name = request.request_id if params.n == 1 else f"{request.request_id}#{n}"
            self.ids[name] = []
            if params.n > 1:
                self._inner[name] = f"{n}_{self._inner[request.request_id]}"

    def step(self, budget: int | None = None) -> dict[str, int]:
        """One step, of at most ``budget`` tokens. Tokens that were computed, by request."""
        self.scheduler.max_num_scheduled_tokens = budget or self._budget
        schedule = self.scheduler.schedule
        seen: dict[str, int] = {}

        def keep(*args: Any, **kwargs: Any) -> Any:
            output = schedule(*args, **kwargs)
            seen.update(output.num_scheduled_tokens)
            return output

        self.scheduler.schedule = keep
        try:
            outputs = self.llm.step()
        finally:
            del self.scheduler.schedule
            self.scheduler.max_num_scheduled_tokens = self._budget
        for output in outputs:
            for completion in output.outputs:
                name = output.request_id
                name = f"{name}#{completion.index}" if name not in self.ids else name
                self.ids[name] += completion.token_ids
                if output.num_cached_tokens is not None:
                    self.num_cached.setdefault(name, output.num_cached_tokens)
                if completion.finish_reason is not None:
                    self.reasons[name] = completion.finish_reason
        names = {inner: name for name, inner in self._inner.items()}
        self.scheduled.append({names[inner]: count for inner, count in seen.items()})
        return self.scheduled[-1]

    def run(self) -> None:
        """Until nothing is left to do."""
        while self.llm.has_unfinished_requests():
            self.step()

    def answer(self, request: EngineRequest, **changes: Any) -> tuple[int, ...]:
        """The whole answer of a request, beside whatever else is there."""
        self.add(request, **changes)
        self.run()
        return tuple(self.ids[request.request_id])

    def run_until(self, name: str, num_ids: int) -> None:
        """Step until a request has answered so many tokens; the last one is then known but not computed."""
        while len(self.ids[name]) < num_ids:
            self.step()
        assert len(self.ids[name]) == num_ids

    def compute_until(self, name: str, position: int) -> None:
        """Step so that a chunk of the request, which must be alone, ends right before this position."""
        while self.num_computed(name) < position:
            self.step(position - self.num_computed(name))
        assert self.num_computed(name) == position

    def num_computed(self, name: str) -> int:
        computed: int = self.scheduler.requests[self._inner[name]].num_computed_tokens
        return computed

    def preempt(self, *names: str) -> None:
        """Take running requests, or all, from their KV blocks now, as the scheduler does when it is short of them."""
        wanted = {self._inner[name] for name in names} or {one.request_id for one in self.scheduler.running}
        for request in reversed([one for one in self.scheduler.running if one.request_id in wanted]):
            self.scheduler.running.remove(request)
            self.scheduler._preempt_request(request, time.monotonic(), drop_stale_output=True)
            # As vLLM's own forced preemption does: it resumes in the very next step, and must not look as if it stayed.
            self.scheduler.prev_step_scheduled_req_ids.discard(request.request_id)

    def abort(self, name: str) -> None:
        self.llm.abort_request([name])

    def forget(self) -> None:
        """Cached prefixes and images; requests that run are preempted."""
        self.llm.reset_mm_cache()
        self.llm.reset_encoder_cache()
        assert self.llm.reset_prefix_cache(reset_running_requests=True)

    def start_over(self, *, max_replayed_pads: int = 0) -> None:
        """As if newly started, except for the counters of the model."""
        if unfinished := [name for name in self.ids if name not in self.reasons]:
            self.llm.abort_request(unfinished)
        self.step()  # the model runner hears of the end of a request in the next step
        self.forget()
        self.scheduler._max_replayed_pads = max_replayed_pads
        for kept in (self.ids, self.reasons, self.num_cached, self.scheduled, self._inner):
            kept.clear()

    def is_empty(self) -> bool:
        """No request is known to anybody, and all KV blocks are free but the one that vLLM keeps for nothing."""
        self.step()
        pool = self.scheduler.kv_cache_manager.block_pool
        known = (self.scheduler.requests, self.llm.output_processor.request_states, self.worker.model_runner.requests)
        return not any(known) and pool.get_num_free_blocks() == pool.num_gpu_blocks - 1

    @property
    def counters(self) -> dict[str, int]:
        counters: dict[str, int] = self.model.counters.as_dict()
        return counters

    @contextmanager
    def counted(self) -> Iterator[dict[str, int]]:
        """What is counted while the context is open; filled in when it closes."""
        before, counts = self.counters, {}
        yield counts
        counts.update({name: count - before[name] for name, count in self.counters.items()})

    @contextmanager
    def fed(self) -> Iterator[dict[int, Any]]:
        """Vectors that the one request there is was fed, by position; filled in when the context closes."""
        vectors: dict[int, Any] = {}
        self.model.counters.is_tracing = True
        try:
            yield vectors
        finally:
            self.model.counters.is_tracing = False
            vectors.update(self.model.counters.take_vectors())


@contextmanager
def running_stepper(checkpoint: Checkpoint, defaults: GenerationDefaults, **told: Any) -> Iterator[Stepper]:
    """An engine in this process, which afterwards is as it was: environment, signals, process group."""
    set_environment()
    uses_v2 = set_runner_environment(is_cpu=True)
    set_cpu_environment()
    environment, on_interrupt = dict(os.environ), signal.getsignal(signal.SIGINT)
    import torch
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # torch may have read the variable before it was set
    told = {"dtype": "float32", "max_num_seqs": 8, "kv_cache_mib": 64, "max_model_len": 512, **told}
    settings = RunnerSettings(model=checkpoint.folder, **told)
    arguments = engine_arguments(settings, checkpoint, is_cpu=True, uses_v2=uses_v2)
    try:
        llm = LLMEngine.from_engine_args(EngineArgs(**arguments))
    finally:
        signal.signal(signal.SIGINT, on_interrupt)
        os.environ.clear()
        os.environ.update(environment)
    try:
        yield Stepper(llm, checkpoint, defaults)
    finally:
        llm.engine_core.shutdown()
