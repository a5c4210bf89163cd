"""Qwen2.5-VL for vLLM that thinks in latent blocks (ILVR, arXiv 2512.05665, section 3).

After START the model's own last hidden state, after the final norm, is the next input embedding, for K steps. The state
lives here, addressed like the KV cache (see ``kernels.latent_step``), so that text and latent rows share every batch
and no runner is patched.
"""

from typing import Any

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.forward_context import get_forward_context, is_forward_context_available
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from vllm.multimodal import MULTIMODAL_REGISTRY

from model_runner.ablation.feedback import Feedback
from model_runner.kernels.latent_step import LatentState, commit, inject
from model_runner.model.chunk import NO_LINK, Chunk, read_chunk
from model_runner.model.counters import LatentCounters
from model_runner.model.keys import spec_of
from model_runner.model.processing import ILVRDummyInputsBuilder, ILVRMultiModalProcessor, ILVRProcessingInfo


@MULTIMODAL_REGISTRY.register_processor(
    ILVRMultiModalProcessor, info=ILVRProcessingInfo, dummy_inputs=ILVRDummyInputsBuilder
)
class ILVRForConditionalGeneration(Qwen2_5_VLForConditionalGeneration):
    requires_raw_input_tokens = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.spec = spec_of(vllm_config)
        self.counters = LatentCounters()
        self.state: LatentState | None = None  # set by the worker as soon as the KV cache exists
        self.has_newcomers = False  # set by the worker for each step
        self.feedback: Feedback | None = None  # what is fed back if not the own hidden states

    def ablate(self, feedback: Feedback, rows_R3: Tensor) -> None:
        """Feed back something else from now on. ``rows_R3`` are the numbers of the requests of each step, in order."""
        self.feedback = feedback
        self.feed_rows_R3 = rows_R3

    def embed_multimodal(self, **kwargs: object) -> Any:
        embeddings = super().embed_multimodal(**kwargs)
        self.counters.images_encoded += len(embeddings)
        return embeddings

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: object,
    ) -> Any:
        """As the base class, [tokens, D] out; latent steps happen on the way. Without attention metadata (a profiling
        run) there are no requests and so no latent steps."""
        metadata = get_forward_context().attn_metadata if is_forward_context_available() else None
        if not metadata or self.state is None:
            return super().forward(input_ids, positions, intermediate_tensors, inputs_embeds, **kwargs)
        assert input_ids is not None  # requires_raw_input_tokens
        if inputs_embeds is None:
            inputs_embeds = self.embed_input_ids(input_ids)
        assert isinstance(metadata, dict)  # a list only with micro-batches, which latent steps do not use
        attention: Any = next(iter(metadata.values()))  # one KV cache group: the worker has checked it
        is_decode = attention.max_query_len == 1 and not self.has_newcomers
        step = self._decode if is_decode else self._prefill
        return step(input_ids, positions, inputs_embeds, attention, self.state)

    def _decode(
        self, ids_T: Tensor, positions: Tensor, embeds_TD: Tensor, attention: Any, state: LatentState
    ) -> Tensor:
        """One token per request: text and latent rows alike, no host sync."""
        num_requests = attention.seq_lens.shape[0]
        ids_R, block_table_RB = ids_T[:num_requests], attention.block_table[:num_requests]
        injected_RD, phase_R = inject(
            ids_R, embeds_TD[:num_requests], attention.seq_lens, block_table_RB, state, self.spec
        )
        if self.feedback is not None:
            rows_R3 = self.feed_rows_R3[:num_requests]
            fed_RD = self.feedback.feed(injected_RD, attention.seq_lens - 1, phase_R, rows_R3)
            injected_RD = torch.where((phase_R > 1)[:, None], fed_RD, injected_RD)
        embeds_TD[:num_requests] = injected_RD
        if self.counters.is_tracing:
            self.counters.trace_decode(ids_R == self.spec.pad_id, phase_R, attention.seq_lens, injected_RD)
        hidden_TD = self._language_model(positions, embeds_TD)
        slots_R = attention.slot_mapping[:num_requests]
        commit(hidden_TD[:num_requests], phase_R, slots_R, None, state)
        state.request_phase_R[:num_requests] = phase_R
        return hidden_TD

    def _prefill(
        self, ids_T: Tensor, positions: Tensor, embeds_TD: Tensor, attention: Any, state: LatentState
    ) -> Tensor:
        """Several tokens of some request: pads among them are replayed exactly."""
        num_tokens = attention.num_actual_tokens
        slots_T = attention.slot_mapping[:num_tokens]
        chunk = read_chunk(
            ids_T[:num_tokens],
            attention.query_start_loc,
            attention.seq_lens,
            attention.block_table,
            slots_T,
            state,
            self.spec,
        )
        hidden_TD = self._replay(positions, embeds_TD, chunk, state)
        commit(hidden_TD[:num_tokens], chunk.phase_T, slots_T, chunk.kept_T, state)
        state.request_phase_R[: chunk.last_R.shape[0]] = chunk.phase_T[chunk.last_R]
        return hidden_TD

    def _replay(self, positions: Tensor, embeds_TD: Tensor, chunk: Chunk, state: LatentState) -> Tensor:
        """Hidden states of the step, its inner pads fed with the hidden state before them, or what stands for it.

        Latents form a causal chain: pass n makes the first n pads of each sequence exact, and a pass that changes
        nothing proves that all are. KV slots are overwritten by each pass.
        """
        stored = (chunk.inner_T & (chunk.link_T == NO_LINK)).nonzero().squeeze(1)
        embeds_TD[stored] = self._fed(state.feedback_BD[chunk.row_T[stored]], chunk, stored)
        pads = (chunk.inner_T & (chunk.link_T != NO_LINK)).nonzero().squeeze(1)
        hidden_TD = self._language_model(positions, embeds_TD)
        num_passes = 0
        while num_passes < len(pads):
            fed_TD = self._fed(hidden_TD[chunk.link_T[pads]], chunk, pads)
            if torch.equal(fed_TD, embeds_TD[pads]):
                break
            embeds_TD[pads] = fed_TD
            hidden_TD = self._language_model(positions, embeds_TD)
            num_passes += 1
        self.counters.count_replay(num_pads=len(pads), num_passes=num_passes)
        if self.counters.is_tracing:
            self.counters.trace_prefill(chunk.inner_T, chunk.positions_T, embeds_TD)
        return hidden_TD

    def _fed(self, own_PD: Tensor, chunk: Chunk, pads_P: Tensor) -> Tensor:
        """What is fed at inner pads, given by their indices in the step; ``own_PD`` is the hidden state before each."""
        if self.feedback is None:
            return own_PD
        rows_P3 = self.feed_rows_R3[chunk.request_T[pads_P]]
        return self.feedback.feed(own_PD, chunk.positions_T[pads_P], chunk.phase_T[pads_P], rows_P3)

    def _language_model(self, positions: Tensor, embeds_TD: Tensor) -> Tensor:
        language_model: Any = self.language_model
        hidden_TD: Tensor = language_model.model(
            input_ids=None, positions=positions, intermediate_tensors=None, inputs_embeds=embeds_TD
        )
        return hidden_TD

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """As the base class; with ``fixed`` blocks a pad or END is never the sampler's to choose.

        Inside a block the sampler's choice is replaced anyway, so the mask needs no look at phases.
        """
        logits = super().compute_logits(hidden_states)
        if logits is not None and self.spec.rule == "fixed":
            logits[:, [self.spec.pad_id, self.spec.end_id]] = float("-inf")
        return logits
