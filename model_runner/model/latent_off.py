"""``latent.mode: off``: START is impossible for requests that say so (``SamplingParams.extra_args``).

One class for each runner: Model Runner V1 tells of requests by their place in the batch, V2 by a slot that they keep.

Shape letters: R rows of logits, S slots, V vocabulary.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as LogitsProcessorV2

from model_runner.kernels.latent_step import latent_step
from model_runner.model.keys import LATENT_OFF, spec_of

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig


class LatentOff(LogitsProcessor):
    """Touches the rows of such requests only, and costs nothing when there is none."""

    def __init__(self, vllm_config: "VllmConfig", device: torch.device, is_pin_memory: bool) -> None:
        self.device = device
        self.start = torch.tensor([spec_of(vllm_config).start_id], device=device)
        self.mask_logits = latent_step("host" if device.type == "cpu" else "reference").mask_logits
        self.requests: dict[int, bool] = {}
        self.rows = torch.empty(0, dtype=torch.long, device=device)

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if process_dict_updates(self.requests, batch_update, _is_off_or_none):
            self.rows = torch.tensor(sorted(self.requests), dtype=torch.long, device=self.device)

    def apply(self, logits: Tensor) -> Tensor:
        if self.requests:
            self.mask_logits(logits, self.start, self.rows)
        return logits


class LatentOffV2(LogitsProcessorV2):
    """The same for Model Runner V2."""

    def __init__(self, vllm_config: "VllmConfig", req_states: Any) -> None:
        from vllm.v1.worker.gpu.buffer_utils import UvaBackedTensor  # not where requests are only validated

        self.start_id: int = spec_of(vllm_config).start_id
        self._is_off_S = UvaBackedTensor(req_states.max_num_reqs, dtype=torch.int32)

    def add_request(self, req_idx: int, sampling_params: "SamplingParams") -> bool:
        self._is_off_S.np[req_idx] = is_off(sampling_params)
        return is_off(sampling_params)

    def apply_staged_writes(self) -> None:
        self._is_off_S.copy_to_uva()

    def apply(self, logits: Tensor, ctx: Any) -> Tensor:
        if self._is_off_S.np[ctx.idx_mapping_np].any():
            is_off_R = self._is_off_S.gpu[ctx.expanded_idx_mapping].bool()
            logits[:, self.start_id].masked_fill_(is_off_R, float("-inf"))
        return logits


def is_off(params: "SamplingParams") -> bool:
    return bool((params.extra_args or {}).get(LATENT_OFF))


def _is_off_or_none(params: "SamplingParams", prompt_ids: list[int] | None, output_ids: list[int]) -> bool | None:
    return is_off(params) or None
