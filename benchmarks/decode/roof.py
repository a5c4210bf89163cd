"""The roof: tokens a second if a step were the matrix products of its linear layers and nothing else."""

from typing import Any

from benchmarks.decode.engines import CLOCKED, served, set_threads
from benchmarks.decode.figures import PartReport, spread
from benchmarks.decode.models import load
from benchmarks.decode.plan import Plan
from benchmarks.decode.roof_share import rows_of

MIN_S = 0.3

TEXT = """Tokens a second of decoding, were a step of so many rows only the matrix products of the decoder's layers \
and of the head: the engine's own layers, called one after the other in the engine's process on random rows. The \
share is that of (a), whose time holds pictures and prompts too, and a batch that does not start and end at once."""


async def measure(plan: Plan) -> PartReport:
    """Its rows are made for the page, where they stand beside part (a)."""
    raw: dict[str, Any] = {}
    for name in plan.models:
        set_threads(plan.threads[name])
        async with served(load(name), CLOCKED) as engine:
            raw[name] = {}
            for batch in plan.concurrencies:
                seconds = [await engine.worker_call("products_s", batch, MIN_S) for _ in range(plan.repetitions)]
                raw[name][f"{batch}"] = [batch / one for one in seconds]
                plan.say(f"(roof) {name}, {batch} rows: {spread(raw[name][f'{batch}'])} tokens/s")
    header = ["model", "rows", "roof, tokens/s", "ours (a), tokens/s", "share, %"]
    title = "The roof of the matrix products"
    return PartReport(key="roof", title=title, text=TEXT, header=header, rows=rows_of(raw, {}), raw=raw)
