"""The numbers of each request of a step, in the order of the batch: what ablated latents are made from.

A logits processor that changes no logits: it is how vLLM tells of requests that come, go and change places, before the
model runs. The rows lie in one buffer that is never replaced, so a captured graph reads the ones of its step.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from model_runner.ablation.donors import OWN, Row
from model_runner.model.keys import FEED_ROW

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig


class FeedRows(LogitsProcessor):
    """rows_R3: [max requests, 3] int64, on the device. Copied only when the batch changes."""

    def __init__(self, vllm_config: "VllmConfig", device: torch.device, is_pin_memory: bool) -> None:
        max_requests = vllm_config.scheduler_config.max_num_seqs
        self.rows_R3 = torch.tensor([OWN] * max_requests, dtype=torch.int64, device=device)
        self.requests: dict[int, Row] = {}

    def is_argmax_invariant(self) -> bool:
        return True

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if process_dict_updates(self.requests, batch_update, _row):
            rows = [self.requests.get(index, OWN) for index in range(len(self.rows_R3))]
            self.rows_R3.copy_(torch.tensor(rows, dtype=torch.int64))

    def apply(self, logits: Tensor) -> Tensor:
        return logits


def _row(params: "SamplingParams", prompt_ids: list[int] | None, output_ids: list[int]) -> Row:
    seed, first, count = (params.extra_args or {}).get(FEED_ROW, OWN)
    return seed, first, count
