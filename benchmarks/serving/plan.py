"""How much is measured: in full, or just enough to see that everything runs."""

from dataclasses import dataclass, field

from benchmarks.decode.models import EMBEDDED, RANDOM

FIRST_RATE = 0.5  # that is tried


@dataclass(frozen=True, kw_only=True)
class Plan:
    """repetitions: by how many are asked at once; most where a bar is, because the machine's speed changes within a
    second. max_tokens: of every answer, no more and no less. rates: of the open loop, as shares of what the contender
    answered a second with 32 at once, climbed from FIRST_RATE; the large model is too slow for one. num_generated:
    requests by which the sequential loop and stock ``generate()`` are compared."""

    models: tuple[str, ...] = (EMBEDDED, RANDOM)
    repetitions: dict[str, dict[int, int]] = field(
        default_factory=lambda: {EMBEDDED: {1: 5, 8: 5, 32: 15, 128: 3}, RANDOM: {1: 3, 8: 3, 16: 3}}
    )
    max_tokens: dict[str, int] = field(default_factory=lambda: {EMBEDDED: 128, RANDOM: 32})
    threads: dict[str, int] = field(default_factory=lambda: {EMBEDDED: 1, RANDOM: 2})
    num_generated: dict[str, int] = field(default_factory=lambda: {EMBEDDED: 16, RANDOM: 4})
    rates: dict[str, tuple[float, ...]] = field(
        default_factory=lambda: {EMBEDDED: (0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0, 1.15, 1.3, 1.5, 2.0), RANDOM: ()}
    )
    rate_repetitions: int = 3
    rate_s: float = 15.0  # in which what is more than a server can do piles up for seconds

    def count(self, name: str, concurrency: int, *, is_sequential: bool) -> int:
        """Requests of a turn: several for each place where that is quick, so that begin and end weigh little."""
        if name == EMBEDDED and not is_sequential:
            return max(16, min(2 * concurrency, 256))
        return max(8 if name == EMBEDDED else 4, concurrency)


def quick() -> Plan:
    """The embedded model alone, once."""
    return Plan(
        models=(EMBEDDED,),
        repetitions={EMBEDDED: {1: 1, 8: 1, 32: 1}},
        max_tokens={EMBEDDED: 24},
        rates={EMBEDDED: (FIRST_RATE,)},
        rate_repetitions=1,
        rate_s=2.0,
    )
