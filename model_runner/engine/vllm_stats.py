"""What vLLM's scheduler says of itself at every step, remembered."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

from vllm.v1.metrics.loggers import PrometheusStatLogger, StatLoggerBase


class LatePrometheus(PrometheusStatLogger):
    """vLLM's own metrics, counted once those who wait for the tokens of a step have them."""

    def record(self, *args: Any, **kwargs: Any) -> None:
        asyncio.get_running_loop().call_soon(partial(super().record, *args, **kwargs))


@dataclass
class StatRecorder:
    num_running: int = 0
    num_waiting: int = 0
    num_preemptions: int = 0


def recorder_factory() -> tuple[StatRecorder, Any]:
    """A recorder, and the stat logger factory that feeds it."""
    recorder = StatRecorder()

    class Logger(StatLoggerBase):
        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None: ...

        def record(
            self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
        ) -> None:
            if scheduler_stats is not None:
                recorder.num_running = scheduler_stats.num_running_reqs
                recorder.num_waiting = scheduler_stats.num_waiting_reqs
            if iteration_stats is not None:
                recorder.num_preemptions += iteration_stats.num_preempted_reqs

        def log_engine_initialized(self) -> None: ...

    return recorder, Logger
