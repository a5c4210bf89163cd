"""The part of a vLLM worker that ILVR adds: latent state beside the KV cache, and the rule after the sampler.

The engine argument ``worker_cls`` names ``cpu_worker.ILVRWorker`` or ``gpu_worker.ILVRWorker`` beside this file.
"""

import signal
from collections.abc import Sequence
from typing import Any

from torch import nn

from model_runner.ablation.donors import BANK_CAPACITY
from model_runner.ablation.feedback import DonorBank, Feedback
from model_runner.kernels.latent_step import LatentState, decide
from model_runner.model.feed_rows import FeedRows
from model_runner.model.keys import ABLATION_KEY


class LatentWorkerMixin:
    """Wires the model class to the runner once both the weights and the KV cache exist."""

    model_runner: Any
    vllm_config: Any
    cache_config: Any
    device: Any

    def initialize_from_config(self, kv_cache_config: Any) -> None:
        # Ctrl-C in a terminal reaches every process; when the engine ends is for the server to say.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        super().initialize_from_config(kv_cache_config)  # type: ignore[misc]
        block_tables = self.model_runner.input_batch.block_table.block_tables
        block_size = self.cache_config.block_size
        if len(block_tables) != 1 or block_tables[0].block_size != block_size:
            raise RuntimeError(
                "latent state is addressed by KV block: it needs one KV cache group whose kernel block size is the "
                f"cache block size {block_size}, found {[table.block_size for table in block_tables]}"
            )
        model = self.model_runner.get_model()
        model.state = LatentState.allocate(
            num_blocks=kv_cache_config.num_blocks,
            block_size=block_size,
            max_requests=self.vllm_config.scheduler_config.max_num_seqs,
            hidden_size=self.vllm_config.model_config.get_hidden_size(),
            dtype=self.vllm_config.model_config.dtype,
            device=str(self.device),
        )
        self.model_runner.sampler.register_forward_hook(self._apply_block_rule)
        mode = self.vllm_config.additional_config[ABLATION_KEY]
        if mode != "none":
            bank = DonorBank.allocate(
                capacity=BANK_CAPACITY if mode == "swap" else 0,
                size=model.spec.size,
                hidden_size=self.vllm_config.model_config.get_hidden_size(),
                dtype=self.vllm_config.model_config.dtype,
                device=str(self.device),
            )
            processors = self.model_runner.input_batch.logitsprocs.all
            rows = next(one.rows_R3 for one in processors if isinstance(one, FeedRows))
            model.ablate(Feedback(mode, bank), rows)

    def execute_model(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """A request that (re)starts may share a block with a token of this very step, even if each has one token only:
        then the step is not a plain decode step."""
        has_newcomers = bool(
            scheduler_output.scheduled_new_reqs or scheduler_output.scheduled_cached_reqs.resumed_req_ids
        )
        self.model_runner.get_model().has_newcomers = has_newcomers
        return super().execute_model(scheduler_output, *args, **kwargs)  # type: ignore[misc]

    def _apply_block_rule(self, sampler: nn.Module, args: Any, output: Any) -> None:
        """What was sampled inside a block becomes what the rule of the block says, before anyone sees it.

        It comes after penalties and after sampling, as in the published code, and before stop checks and the client.
        """
        model = self.model_runner.get_model()
        if model.state is None:
            return
        ids = output.sampled_token_ids  # [R, 1]
        phase = model.state.request_phase_R[: ids.shape[0]]
        output.sampled_token_ids = decide(ids.squeeze(1), phase, model.spec).unsqueeze(1)

    # Called by name over collective_rpc.

    def latent_counters(self) -> dict[str, int]:
        counters: dict[str, int] = self.model_runner.get_model().counters.as_dict()
        return counters

    def num_known_requests(self) -> int:
        """Requests that the model runner keeps state of."""
        return len(self.model_runner.requests)

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
