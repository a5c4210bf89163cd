"""The part of a vLLM worker that ILVR adds: latent state beside the KV cache, and the rule after the sampler.

The engine argument ``worker_cls`` names ``cpu_worker.ILVRWorker`` or ``gpu_worker.ILVRWorker`` beside this file. Both
of vLLM's model runners are known here: V1, and V2, which has a model state (``model_state.py``) of its own.
"""

import signal
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from model_runner.ablation.donors import BANK_CAPACITY
from model_runner.ablation.feedback import DonorBank, Feedback
from model_runner.kernels.latent_step import LatentState
from model_runner.model.block_rule import apply_block_rule
from model_runner.model.feed_rows import FeedRows
from model_runner.model.graph_gate import gate_dispatcher, gate_manager
from model_runner.model.keys import ABLATION_KEY
from model_runner.model.supported import is_known, refused_backend


class LatentWorkerMixin:
    """Wires the model class to the runner once both the weights and the KV cache exist."""

    model_runner: Any
    vllm_config: Any
    cache_config: Any
    device: Any
    use_v2_model_runner: bool

    def initialize_from_config(self, kv_cache_config: Any) -> None:
        # Ctrl-C in a terminal reaches every process; when the engine ends is for the server to say.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        super().initialize_from_config(kv_cache_config)  # type: ignore[misc]
        self._check_attention()
        self._preempted: set[str] = set()  # requests that are to resume
        model = self.model_runner.get_model()
        model.state = LatentState.allocate(
            num_blocks=kv_cache_config.num_blocks,
            block_size=self.cache_config.block_size,
            max_requests=self.vllm_config.scheduler_config.max_num_seqs,
            hidden_size=self.vllm_config.model_config.get_hidden_size(),
            dtype=self.vllm_config.model_config.dtype,
            device=str(self.device),
        )
        if self.use_v2_model_runner:
            gate_manager(self.model_runner.cudagraph_manager, self._needs_python)
        else:
            self._keep_block_rule(self.model_runner.sampler, model)
            gate_dispatcher(self.model_runner.cudagraph_dispatcher, self._needs_python)
        mode = self.vllm_config.additional_config[ABLATION_KEY]
        if mode != "none":
            bank = DonorBank.allocate(
                capacity=BANK_CAPACITY if mode == "swap" else 0,
                size=model.spec.size,
                hidden_size=self.vllm_config.model_config.get_hidden_size(),
                dtype=self.vllm_config.model_config.dtype,
                device=str(self.device),
            )
            model.ablate(Feedback(mode, bank), self._feed_rows())

    def _keep_block_rule(self, sampler: Any, model: Any) -> None:
        """On the instance, for a hook makes PyTorch take a slower way to call the sampler."""
        sample = sampler.forward

        def by_rule(*args: Any, **kwargs: Any) -> Any:
            output = sample(*args, **kwargs)
            apply_block_rule(model, output)
            return output

        sampler.forward = by_rule

    def _check_attention(self) -> None:
        """Raises ``ValueError`` where latent state could not be found by KV block, with one line."""
        runner = self.model_runner
        if self.use_v2_model_runner:
            block_sizes, kernel_block_sizes = runner.block_tables.block_sizes, runner.kernel_block_sizes
        else:
            block_sizes = [table.block_size for table in runner.input_batch.block_table.block_tables]
            kernel_block_sizes = runner._kernel_block_sizes
        block_size = self.cache_config.block_size
        if block_sizes != [block_size] or kernel_block_sizes != [block_size]:
            raise ValueError(
                "latent state is addressed by KV block: it needs one KV cache group whose kernel block size is the "
                f"cache block size {block_size}, found {block_sizes} and in kernels {kernel_block_sizes}"
            )
        for group in runner.attn_groups[0]:
            if not is_known(group.backend.get_name()):
                raise ValueError(f"ILVR cannot be served with {refused_backend(group.backend.get_name())}")

    def _feed_rows(self) -> Tensor:
        """The numbers of the requests of each step, in the order of the batch, from whoever keeps them."""
        if self.use_v2_model_runner:
            rows: Tensor = self.model_runner.model_state.rows_R3
            return rows
        processors = self.model_runner.input_batch.logitsprocs.all
        return next(one.rows_R3 for one in processors if isinstance(one, FeedRows))

    def _needs_python(self) -> bool:
        """Whether the model class must see this step, because a graph of plain decoding would get it wrong."""
        model = self.model_runner.get_model()
        return bool(model.has_newcomers or model.counters.is_tracing)

    def execute_model(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """A request that (re)starts may share a block with a token of this very step, even if each has one token only:
        then the step is not a plain decode step."""
        has_newcomers = bool(
            scheduler_output.scheduled_new_reqs or scheduler_output.scheduled_cached_reqs.resumed_req_ids
        )
        model = self.model_runner.get_model()
        model.has_newcomers = has_newcomers
        if scheduler_output.scheduled_new_reqs:  # to Model Runner V2 what resumes is new again
            new = [one for one in scheduler_output.scheduled_new_reqs if one.req_id not in self._preempted]
            model.counters.encoder_cache_hits += self._num_images_known(new)
            self._preempted.difference_update(one.req_id for one in scheduler_output.scheduled_new_reqs)
        self._preempted -= scheduler_output.finished_req_ids
        self._preempted |= scheduler_output.preempted_req_ids or set()
        return super().execute_model(scheduler_output, *args, **kwargs)  # type: ignore[misc]

    def _num_images_known(self, new_requests: Sequence[Any]) -> int:
        """Images of these requests that need no encoder, for what came before them."""
        cache = self.model_runner.encoder_cache
        features = cache.encoder_outputs if self.use_v2_model_runner and cache is not None else cache or ()
        return sum(
            image.identifier in features
            or image.mm_position.offset + image.mm_position.length <= request.num_computed_tokens
            for request in new_requests
            for image in request.mm_features
        )

    # Called by name over collective_rpc.

    def latent_counters(self) -> dict[str, int]:
        counters: dict[str, int] = self.model_runner.get_model().counters.as_dict()
        return counters

    def num_known_requests(self) -> int:
        """Requests that the model runner keeps state of."""
        runner = self.model_runner
        return runner.req_states.num_reqs if self.use_v2_model_runner else len(runner.requests)

    def add_donor(self, blocks: Sequence[Sequence[int]]) -> int:
        """Keep blocks of the one request that was traced; each is given by the positions of its pads."""
        model = self.model_runner.get_model()
        num_kept: int = model.feedback.bank.add(model.counters.take_vectors(), blocks)
        return num_kept

    def trace_latents(self, on: bool) -> None:
        self.model_runner.get_model().counters.is_tracing = on

    def take_latent_trace(self) -> tuple[list[int], list[list[float]]]:
        trace: tuple[list[int], list[list[float]]] = self.model_runner.get_model().counters.take_trace()
        return trace
