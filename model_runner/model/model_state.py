"""What Model Runner V2 asks the model class for: the rule after the sampler, and the numbers of each request.

Requests have slots that they keep, and places in the batch that change from step to step.

Shape letters: R requests of this step, S slots.
"""

from typing import Any

import torch
from torch import Tensor, nn
from vllm.v1.worker.gpu.buffer_utils import UvaBackedTensor
from vllm.v1.worker.gpu.model_states.default import DefaultModelState

from model_runner.ablation.donors import OWN
from model_runner.model.block_rule import apply_block_rule
from model_runner.model.keys import FEED_ROW


class ILVRModelState(DefaultModelState):
    """rows_R3: [max requests, 3] int64, on the device: what :class:`FeedRows` is on Model Runner V1."""

    def __init__(self, vllm_config: Any, model: nn.Module, encoder_cache: Any, device: torch.device) -> None:
        super().__init__(vllm_config, model, encoder_cache, device)
        self.rows_R3 = torch.tensor([OWN] * self.max_num_reqs, dtype=torch.int64, device=device)
        self._rows_S3 = UvaBackedTensor((self.max_num_reqs, len(OWN)), dtype=torch.int64)

    def custom_sampler(self, sampler: Any) -> tuple[Any, Any]:
        """(sampler that keeps the rule of the block, no rejection sampler: nothing is decoded ahead)."""
        return BlockRuleSampler(sampler, self.model), None

    def add_request(self, req_index: int, new_req_data: Any) -> None:
        super().add_request(req_index, new_req_data)
        params = new_req_data.sampling_params
        told = (params.extra_args or {}) if params is not None else {}
        self._rows_S3.np[req_index] = told.get(FEED_ROW, OWN)

    def apply_staged_writes(self) -> None:
        super().apply_staged_writes()
        self._rows_S3.copy_to_uva()

    def preprocess_state(self, input_batch: Any, *args: Any, **kwargs: Any) -> None:
        """Before each real step: rows in the order of the batch, in a buffer that is never replaced."""
        super().preprocess_state(input_batch, *args, **kwargs)
        self.rows_R3[: input_batch.num_reqs].copy_(self._rows_S3.gpu[input_batch.idx_mapping])


class BlockRuleSampler:
    """vLLM's sampler with the rule of the block after it; in all else it is the sampler."""

    def __init__(self, sampler: Any, model: nn.Module) -> None:
        self._sampler = sampler
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)

    def __call__(self, logits: Tensor, input_batch: Any) -> Any:
        output = self._sampler(logits, input_batch)
        apply_block_rule(self._model, output)
        return output
