"""``latent.mode: off``: START is impossible for requests that say so (``SamplingParams.extra_args``)."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from model_runner.model.keys import LATENT_OFF, spec_of

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig


class LatentOff(LogitsProcessor):
    """Touches the rows of such requests only, and costs nothing when there is none."""

    def __init__(self, vllm_config: "VllmConfig", device: torch.device, is_pin_memory: bool) -> None:
        self.start_id: int = spec_of(vllm_config).start_id
        self.device = device
        self.requests: dict[int, bool] = {}
        self.rows = torch.empty(0, dtype=torch.long, device=device)

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if process_dict_updates(self.requests, batch_update, _is_off):
            self.rows = torch.tensor(sorted(self.requests), dtype=torch.long, device=self.device)

    def apply(self, logits: Tensor) -> Tensor:
        if self.requests:
            logits[self.rows, self.start_id] = float("-inf")
        return logits


def _is_off(params: "SamplingParams", prompt_ids: list[int] | None, output_ids: list[int]) -> bool | None:
    return True if (params.extra_args or {}).get(LATENT_OFF) else None
