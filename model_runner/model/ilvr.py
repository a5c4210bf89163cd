"""Qwen2.5-VL for vLLM that thinks in latent blocks (ILVR, arXiv 2512.05665, section 3).

After START the model's own last hidden state, after the final norm, is the next input embedding, for K steps. The state
lives here, addressed like the KV cache (see ``kernels.latent_step``), so that text and latent rows share every batch
and no runner is patched.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from vllm.config import VllmConfig
from vllm.forward_context import get_forward_context, is_forward_context_available
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.platforms import current_platform

from model_runner.ablation.feedback import Feedback
from model_runner.kernels.latent_step import LatentState, latent_step
from model_runner.model.chunk import NO_LINK, Chunk, kept_tokens, read_chunk
from model_runner.model.counters import LatentCounters
from model_runner.model.cpu_kernels import use_cpu_kernels
from model_runner.model.keys import spec_of
from model_runner.model.processing import ILVRDummyInputsBuilder, ILVRMultiModalProcessor, ILVRProcessingInfo
from model_runner.model.supported import refuse_unsupported

# Multiplications of the head for so many rows take longer than to pick the other rows and put their logits in place:
# with 0.8 million picking gained nothing, with hundreds of millions it did ((f) of benchmarks/reports/decode.md).
WORTH_PICKING = 2**20


@MULTIMODAL_REGISTRY.register_processor(
    ILVRMultiModalProcessor, info=ILVRProcessingInfo, dummy_inputs=ILVRDummyInputsBuilder
)
class ILVRForConditionalGeneration(Qwen2_5_VLForConditionalGeneration):
    requires_raw_input_tokens = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        refuse_unsupported(vllm_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.spec = spec_of(vllm_config)
        self._never_chosen = torch.tensor([self.spec.pad_id, self.spec.end_id])  # on the device, as vLLM sees to
        self._max_num_tokens = vllm_config.scheduler_config.max_num_batched_tokens
        self._text_TD: Tensor | None = None  # allocated in the first call, when width and type are known
        self.counters = LatentCounters()
        self.state: LatentState | None = None  # set by the worker as soon as the KV cache exists
        self.inject, self.commit, self.decide, self.mask_logits = latent_step(
            "host" if current_platform.is_cpu() else "triton"
        )
        self.skips_known_rows = current_platform.is_cpu()
        text = vllm_config.model_config.hf_text_config
        self.skips_some_from = -(-WORTH_PICKING // (text.vocab_size * text.hidden_size))  # so many known rows
        if current_platform.is_cpu() and vllm_config.model_config.enforce_eager:
            use_cpu_kernels(self)
        self.has_newcomers = False  # set by the worker for each step
        self.feedback: Feedback | None = None  # what is fed back if not the own hidden states

    @staticmethod
    def get_model_state_cls() -> type:
        """What Model Runner V2 asks for; V1 does not."""
        from model_runner.model.model_state import ILVRModelState

        return ILVRModelState

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
        assert input_ids is not None  # requires_raw_input_tokens
        if inputs_embeds is None:
            inputs_embeds = self._embed_text(input_ids)
        metadata = get_forward_context().attn_metadata if is_forward_context_available() else None
        if not metadata or self.state is None:
            # Called as in every step, and not by the base class with ids: what is compiled here is used there.
            return self._language_model(positions, inputs_embeds)
        assert isinstance(metadata, dict)  # a list only with micro-batches, which latent steps do not use
        attention: Any = next(iter(metadata.values()))  # one KV cache group: the worker has checked it
        if attention.max_query_len == 1 and not self.has_newcomers:
            return self.decode(
                input_ids,
                positions,
                inputs_embeds,
                attention.seq_lens,
                attention.block_table,
                attention.slot_mapping,
                self.state,
            )
        return self._prefill(input_ids, positions, inputs_embeds, attention, self.state)

    def _embed_text(self, ids_T: Tensor) -> Tensor:
        """Embeddings where vLLM gives none: no images are served. At one address, as the inputs of graphs must be."""
        embeds_TD: Tensor = self.embed_input_ids(ids_T)
        if self._text_TD is None:
            self._text_TD = embeds_TD.new_zeros(self._max_num_tokens, embeds_TD.shape[1])
        return self._text_TD[: len(ids_T)].copy_(embeds_TD)

    def decode(
        self,
        ids_T: Tensor,
        positions: Tensor,
        embeds_TD: Tensor,
        seq_lens_R: Tensor,
        block_table_RB: Tensor,
        slots_T: Tensor,
        state: LatentState,
    ) -> Tensor:
        """One token per request: text and latent rows alike. Hidden states, [T, D]; ``embeds_TD`` is written to.

        What a CUDA graph captures: no host sync, no branch on what a tensor holds, no buffer but those of ``state`` and
        of the step. T is R, or more where vLLM pads tokens but not requests.
        """
        num_requests = seq_lens_R.shape[0]
        ids_R, embeds_RD = _first(ids_T, num_requests), _first(embeds_TD, num_requests)
        table_RB, slots_R = _first(block_table_RB, num_requests), _first(slots_T, num_requests)
        phase_R = self.inject(ids_R, embeds_RD, seq_lens_R, table_RB, slots_R, state, self.spec)
        if self.feedback is not None:
            fed_RD = self.feedback.feed(embeds_RD, seq_lens_R - 1, phase_R, self.feed_rows_R3[:num_requests])
            embeds_RD.copy_(torch.where((phase_R > 1)[:, None], fed_RD, embeds_RD))
        if self.counters.is_tracing:
            self.counters.trace_decode(ids_R == self.spec.pad_id, phase_R, seq_lens_R, embeds_RD)
        hidden_TD = self._language_model(positions, embeds_TD)
        self.commit(_first(hidden_TD, num_requests), phase_R, slots_R, state)
        return hidden_TD

    def _prefill(
        self, ids_T: Tensor, positions: Tensor, embeds_TD: Tensor, attention: Any, state: LatentState
    ) -> Tensor:
        """Several tokens of some request: pads among them are replayed exactly."""
        num_tokens = attention.num_actual_tokens
        ids_T, slots_T = ids_T[:num_tokens], attention.slot_mapping[:num_tokens]
        if not (ids_T == self.spec.pad_id).any():  # as most prompts: nothing to feed, and no phase but START's
            hidden_TD = self._language_model(positions, embeds_TD)
            kept_T, last_R = kept_tokens(attention.query_start_loc, slots_T, state)
            self.commit(hidden_TD[:num_tokens], (ids_T == self.spec.start_id).int(), slots_T, state, kept_T, last_R)
            return hidden_TD
        chunk = read_chunk(
            ids_T,
            attention.query_start_loc,
            attention.seq_lens,
            attention.block_table,
            slots_T,
            state,
            self.spec,
        )
        hidden_TD = self._replay(positions, embeds_TD, chunk, state)
        self.commit(hidden_TD[:num_tokens], chunk.phase_T, slots_T, state, chunk.kept_T, chunk.last_R)
        return hidden_TD

    def _replay(self, positions: Tensor, embeds_TD: Tensor, chunk: Chunk, state: LatentState) -> Tensor:
        """Hidden states of the step, its inner pads fed with the hidden state before them, or what stands for it.

        Latents form a causal chain: pass n makes the first n pads of each sequence exact, and a pass that changes
        nothing proves that all are. KV slots are overwritten by each pass, and so are its inputs: norms that work in
        place, vLLM's kernels, add to them. What was fed is kept, and put back at the address that graphs know.
        """
        stored = (chunk.inner_T & (chunk.link_T == NO_LINK)).nonzero().squeeze(1)
        embeds_TD[stored] = self._fed(state.feedback_BD[chunk.row_T[stored]], chunk, stored)
        pads = (chunk.inner_T & (chunk.link_T != NO_LINK)).nonzero().squeeze(1)
        fed_TD = embeds_TD.clone() if len(pads) or self.counters.is_tracing else embeds_TD
        hidden_TD = self._language_model(positions, embeds_TD)
        num_passes = 0
        while num_passes < len(pads):
            fed_PD = self._fed(hidden_TD[chunk.link_T[pads]], chunk, pads)
            if torch.equal(fed_PD, fed_TD[pads]):
                break
            fed_TD[pads] = fed_PD
            hidden_TD = self._language_model(positions, embeds_TD.copy_(fed_TD))
            num_passes += 1
        self.counters.count_replay(num_pads=len(pads), num_passes=num_passes, num_tokens=len(chunk.phase_T))
        if self.counters.is_tracing:
            self.counters.trace_prefill(chunk.inner_T, chunk.positions_T, fed_TD)
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
        """As the base class, [R, vocabulary]; with ``fixed`` blocks a pad or END is never the sampler's to choose.

        Inside a block the sampler's choice is replaced anyway, so the mask needs no look at phases.
        """
        if self.spec.rule == "learned":
            return super().compute_logits(hidden_states)
        if self.skips_known_rows and self.state is not None and self.state.memory.is_inside:
            logits = self._logits_of_open_rows(hidden_states, self.state.memory.request_phases[: len(hidden_states)])
        else:
            logits = super().compute_logits(hidden_states)
        if logits is not None:
            self.mask_logits(logits, self._never_chosen)
        return logits

    def _logits_of_open_rows(self, hidden_RD: Tensor, phases: NDArray[np.int32]) -> Tensor | None:
        """Rows inside a ``fixed`` block may have zeros: their next token is known. [R, vocabulary].

        For a CPU: it asks what a tensor holds, which elsewhere is a host sync that costs more than the rows do.
        """
        num_known = np.count_nonzero(phases)
        if num_known < min(self.skips_some_from, len(phases)):
            logits: Tensor | None = super().compute_logits(hidden_RD)
            return logits
        language_model: Any = self.language_model
        logits_RV = hidden_RD.new_zeros(hidden_RD.shape[0], language_model.logits_processor.org_vocab_size)
        if num_known < len(phases):
            open_rows = torch.from_numpy(np.flatnonzero(phases == 0))
            of_open: Any = super().compute_logits(hidden_RD[open_rows])
            logits_RV[open_rows] = of_open
        return logits_RV


def _first(rows: Tensor, count: int) -> Tensor:
    """Those rows, which mostly are all there are: a view of them would cost more than to ask."""
    return rows if rows.shape[0] == count else rows[:count]
