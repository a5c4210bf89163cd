"""How much is measured: in full, or just enough to see that everything runs."""

import time
from dataclasses import dataclass, field

from benchmarks.decode.models import EMBEDDED, RANDOM

STARTED_S = time.monotonic()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """num_sequential: requests that the sequential engine answers in a repetition. num_generated: that ``generate()``
    and the sequential engine answer without latents. throughput_repetitions: of (a), second_repetitions: of (e).
    num_steps: of a turn in which steps are timed. num_turns: of that, for each kind of step. The machine's speed
    changes within a second, so turns that are compared are short and many."""

    models: tuple[str, ...] = (EMBEDDED, RANDOM)
    repetitions: int = 3
    throughput_repetitions: dict[str, int] = field(default_factory=lambda: {EMBEDDED: 9, RANDOM: 3})
    second_repetitions: dict[str, int] = field(default_factory=lambda: {EMBEDDED: 15, RANDOM: 3})
    concurrencies: tuple[int, ...] = (1, 4, 16, 32, 64)
    batches: tuple[int, ...] = (1, 8, 32)
    image_px: tuple[int, ...] = (256, 512, 1024)
    threads: dict[str, int] = field(default_factory=lambda: {EMBEDDED: 1, RANDOM: 2})
    max_tokens: dict[str, int] = field(default_factory=lambda: {EMBEDDED: 128, RANDOM: 32})
    # By how many are asked at once.
    stock_repetitions: dict[str, dict[int, int]] = field(
        default_factory=lambda: {EMBEDDED: {1: 600, 16: 150, 64: 60}, RANDOM: {1: 12, 16: 8, 64: 6}}
    )
    # Of a turn: for each of those that are asked at once.
    stock_rounds: dict[str, int] = field(default_factory=lambda: {EMBEDDED: 2, RANDOM: 1})
    stock_max_tokens: dict[str, int] = field(default_factory=lambda: {EMBEDDED: 64, RANDOM: 24})
    num_steps: dict[str, int] = field(default_factory=lambda: {EMBEDDED: 24, RANDOM: 16})
    num_turns: dict[str, int] = field(default_factory=lambda: {EMBEDDED: 120, RANDOM: 8})
    # 16 blocks of the large model would be replayed for minutes.
    block_counts: dict[str, tuple[int, ...]] = field(default_factory=lambda: {EMBEDDED: (1, 4, 16), RANDOM: (1, 4)})
    num_sequential: dict[str, int] = field(default_factory=lambda: {EMBEDDED: 32, RANDOM: 8})
    num_generated: dict[str, int] = field(default_factory=lambda: {EMBEDDED: 8, RANDOM: 4})

    def say(self, text: str) -> None:
        """Progress."""
        print(f"[{time.monotonic() - STARTED_S:6.0f} s] {text}", flush=True)


def quick() -> Plan:
    """The embedded model alone, once."""
    return Plan(
        models=(EMBEDDED,),
        repetitions=1,
        throughput_repetitions={EMBEDDED: 1},
        second_repetitions={EMBEDDED: 1},
        stock_repetitions={EMBEDDED: {16: 2}},
        concurrencies=(1, 32),
        batches=(1, 8),
        block_counts={EMBEDDED: (1,)},
        num_turns={EMBEDDED: 4},
        max_tokens={EMBEDDED: 32, RANDOM: 32},
        num_sequential={EMBEDDED: 16},
        num_generated={EMBEDDED: 4},
    )
