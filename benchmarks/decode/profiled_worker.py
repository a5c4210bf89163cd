"""Our worker on a CPU with clocks around its parts, which cost some 2 % of a step. Named to vLLM as ``worker_cls``.

Parts lie within each other, as ``step_profile.INSIDE`` says.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from model_runner.model import cpu_layers, worker
from model_runner.model.cpu_worker import ILVRWorker

KINDS = {
    "QKVParallelLinear": "linear",
    "RowParallelLinear": "linear",
    "MergedColumnParallelLinear": "linear",
    "RMSNorm": "norm",
    "MRotaryEmbedding": "rotary",
}


class ProfiledWorker(ILVRWorker):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seconds: dict[str, float] = defaultdict(float)
        self._begin_s: float | None = None

    def initialize_from_config(self, kv_cache_config: Any) -> None:
        super().initialize_from_config(kv_cache_config)
        model, runner = self.model_runner.get_model(), self.model_runner
        for name in ("forward", "inject", "commit"):
            setattr(model, name, self._clocked(name, getattr(model, name)))
        model.compute_logits = self._clocked("head", model.compute_logits)
        model.embed_multimodal = self._clocked("encoder", model.embed_multimodal)
        worker.apply_block_rule = self._clocked("block rule", worker.apply_block_rule)
        runner.sampler.forward = self._clocked("sampler", runner.sampler.forward)
        for name, module in model.named_modules():
            kind = KINDS.get(type(module).__name__)
            if kind is not None and not name.startswith("visual"):
                of_layer = "cpu_linear" if kind == "linear" else "forward"  # what ``cpu_layers`` calls
                setattr(module, of_layer, self._clocked(kind, getattr(module, of_layer)))
        for name in ("unified_kv_cache_update", "unified_attention_with_output"):
            setattr(cpu_layers, name, self._clocked("attention", getattr(cpu_layers, name)))

    def execute_model(self, *args: Any, **kwargs: Any) -> Any:
        now_s = time.perf_counter()
        if self._begin_s is not None:
            self._seconds["step"] += now_s - self._begin_s
            self._seconds["steps"] += 1
        self._begin_s = now_s
        return self._clocked("execute", super().execute_model)(*args, **kwargs)

    def sample_tokens(self, *args: Any, **kwargs: Any) -> Any:
        return self._clocked("sample", super().sample_tokens)(*args, **kwargs)

    def _clocked(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            begin_s = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._seconds[part] += time.perf_counter() - begin_s

        return call

    # Called by name over collective_rpc.

    def take_seconds(self) -> dict[str, float]:
        """Seconds in each part since the last call, the number of ``steps``, and the processor's ``cpu`` seconds."""
        seconds, self._seconds = dict(self._seconds), defaultdict(float)
        self._begin_s = None
        return seconds | {"cpu": time.process_time()}
