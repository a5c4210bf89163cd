"""Our worker on a CPU, which notes when each step begins, and more. Named to vLLM as ``worker_cls``."""

import time
from typing import Any

import torch

from model_runner.model.cpu_worker import ILVRWorker

Step = tuple[float, int, int]  # seconds on this process's clock, tokens, requests


class ClockedWorker(ILVRWorker):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._steps: list[Step] = []

    def execute_model(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        num_requests = len(scheduler_output.num_scheduled_tokens)
        self._steps.append((time.perf_counter(), scheduler_output.total_num_scheduled_tokens, num_requests))
        return super().execute_model(scheduler_output, *args, **kwargs)

    # Called by name over collective_rpc.

    def take_steps(self) -> list[Step]:
        steps, self._steps = self._steps, []
        return steps

    def skip_known_rows(self, on: bool) -> None:
        self.model_runner.get_model().skips_known_rows = on

    def encoder_cache_bytes(self) -> int:
        """Of the embeddings of pictures that are kept until they are prefilled, or longer."""
        return sum(one.nbytes for one in self.model_runner.encoder_cache.values())

    @torch.inference_mode()
    def products_s(self, num_rows: int, min_s: float) -> float:
        """Seconds of one step's matrix products, those of the decoder's layers and of the head, on random rows."""
        language_model = self.model_runner.get_model().language_model
        layers, head = language_model.model.layers, language_model.lm_head
        text = self.vllm_config.model_config.hf_text_config
        dtype = self.vllm_config.model_config.dtype
        wide_RD = torch.randn(num_rows, text.hidden_size).to(dtype)
        inner_RI = torch.randn(num_rows, text.intermediate_size).to(dtype)
        num_steps, started_s = -1, time.perf_counter()
        while num_steps < 1 or time.perf_counter() - started_s < min_s:
            for layer in layers:
                layer.self_attn.qkv_proj(wide_RD)
                layer.self_attn.o_proj(wide_RD)
                layer.mlp.gate_up_proj(wide_RD)
                layer.mlp.down_proj(inner_RI)
            head.quant_method.apply(head, wide_RD)
            num_steps += 1
            if num_steps == 0:  # the first does not count
                started_s = time.perf_counter()
        return (time.perf_counter() - started_s) / num_steps
