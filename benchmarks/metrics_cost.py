"""What vLLM's Prometheus metrics cost a decode step: with them and without, in turns, in one engine.

    python -m benchmarks.metrics_cost

The embedded model, 32 requests at once. The logger runs in the runner's event loop, not in the engine process, so where
the two have cores of their own its time is hidden by the engine's step; beside the times of a step stands what the
logger itself took for each.
"""

import argparse
import asyncio
import statistics
import time
from typing import Any

from benchmarks.decode.engines import ask, forget, served
from benchmarks.decode.environment import environment
from benchmarks.decode.models import EMBEDDED, endless, load
from model_runner.environment import set_environment

CONCURRENCY = 32


class Timed:
    """A stat logger that does what the one inside it does, and adds up how long that took."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.seconds = 0.0
        self.num_records = 0

    def record(self, *args: Any, **kwargs: Any) -> None:
        started_s = time.perf_counter()
        self._inner.record(*args, **kwargs)
        self.seconds += time.perf_counter() - started_s
        self.num_records += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


async def measure(num_turns: int, max_tokens: int) -> None:
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    model = endless(load(EMBEDDED))
    step_ms: dict[bool, list[float]] = {True: [], False: []}
    async with served(model) as engine:
        loggers = engine._llm.logger_manager.stat_loggers
        (prometheus,) = (logger for logger in loggers if isinstance(logger, PrometheusStatLogger))
        timed, rest = Timed(prometheus), [logger for logger in loggers if logger is not prometheus]
        await ask(engine, model.requests(CONCURRENCY, 8, seed=1000), CONCURRENCY)
        for turn in range(2 * num_turns):
            is_on = turn % 4 in (0, 3)  # on, off, off, on: a machine that slows down takes from both
            loggers[:] = [*rest, timed] if is_on else rest
            await forget(engine)
            answers = await ask(engine, model.requests(CONCURRENCY, max_tokens, seed=turn), CONCURRENCY)
            step_ms[is_on].append(1000 * answers.seconds * CONCURRENCY / answers.num_tokens)
            print(f"{'with' if is_on else 'without'}: {step_ms[is_on][-1]:.3f} ms a step", flush=True)
    record_ms = 1000 * timed.seconds / timed.num_records
    without = statistics.median(step_ms[False])
    ratios = [on / off for on, off in zip(step_ms[True], step_ms[False], strict=True)]
    print(f"a step: {statistics.median(step_ms[True]):.3f} ms with, {without:.3f} ms without (medians)")
    print(f"ratio in turns: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")
    print(f"the logger itself: {record_ms:.3f} ms a step, {100 * record_ms / without:.1f} % of one")
    print(environment("python -m benchmarks.metrics_cost"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=8, help="with the metrics, and as many without")
    parser.add_argument("--max-tokens", type=int, default=192)
    args = parser.parse_args()
    set_environment()
    asyncio.run(measure(args.turns, args.max_tokens))


if __name__ == "__main__":
    main()
