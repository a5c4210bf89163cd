"""``ilvr evaluate``: how often a model is right, and whether its latents have a part in it."""

import argparse
import asyncio
import random
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import BadSettings, InvalidRequest

if TYPE_CHECKING:
    from ilvr.sample_prompts import SamplePrompts
    from training.answer_log import Ablation
    from training.evaluate import Answerers
    from training.samples import Sample

DESCRIPTION = """\
Ask a model every sample of a file and say how often it is right, with the 95 % interval (Wilson), by maze size or
subtask, with latency, tokens and latents. And say whether the latents matter: the same samples are asked again with

  on      the model's own latents
  off     no latent block at all: it never begins one
  zero    zeros fed back in place of each latent
  noise   random vectors of the same length, seeded by request and position
  swap    the latents of another sample of the file

If zero, noise and swap are as good as on, then nothing that a latent holds is used, however much better on is than off.

The data is JSONL as published for ILVR: text_input, image_input, original_final_answer, and map_desc for mazes, whose
paths are walked. Two versions of answer matching are known; their scores cannot be compared with each other:

  2026-01   reads prompt and answer, keeps <|im_end|> in the answer, takes the first "answer:"
  2026-08   reads the answer alone, takes the last \\boxed{}, else the last "final answer" or "answer:"

examples:
  ilvr evaluate --data mazes.jsonl --out results                          the embedded model, latents in all five ways
  ilvr evaluate --model DIR --data TEST.jsonl --out results --limit 200   200 samples by lot
  ilvr evaluate --model DIR --data TEST.jsonl --out plain --engine transformers     a cross-check, one at a time
  ilvr evaluate --data mazes.jsonl --out served --engine http://127.0.0.1:8000      a running server
  ilvr evaluate --data mazes.jsonl --out results --match 2026-01          judge the answers there anew

Written to --out: answers.jsonl, a line as each answer comes, and in the end results.json, results.md and results.png. A
run that was stopped goes on where it was when the same command is given again. All is greedy. Settings of the engine,
such as ILVR_RUNNER_DTYPE or ILVR_RUNNER_KV_CACHE_MIB, are read from the environment ('ilvr serve --help').
"""
ABLATIONS_BY_DEFAULT = "on,off,zero,noise,swap"
ABLATIONS_OF_A_SERVER = "on,off"
DEFAULT_CONCURRENCY = 16
DEFAULT_MAX_TOKENS = 512


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ilvr evaluate``."""
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="FILE", help="samples, one JSON object a line")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the results, made if missing")
    add("--model", type=Path, metavar="DIR", help="checkpoint folder (default: the embedded maze model)")
    add(
        "--engine",
        default="vllm",
        metavar="ENGINE",
        help="vllm (default), transformers, or the http:// address of a running server; then --model is only needed "
        "for --match 2026-01",
    )
    add(
        "--ablation",
        metavar="LIST",
        help=f"of {ABLATIONS_BY_DEFAULT}, separated by commas (default: all; of a server {ABLATIONS_OF_A_SERVER})",
    )
    add(
        "--match",
        default="2026-08",
        choices=("2026-01", "2026-08"),
        help="version of answer matching (default 2026-08)",
    )
    add("--images", type=Path, metavar="DIR", help="where relative picture paths begin (default: the data's folder)")
    add("--limit", type=int, metavar="N", help="ask N samples, drawn by lot with --seed (default: all)")
    add("--seed", type=int, default=0, metavar="N", help="of --limit, and of noise and swap (default 0)")
    add(
        "--max-tokens",
        type=int,
        default=DEFAULT_MAX_TOKENS,
        metavar="N",
        help=f"text and latents of one answer together, at most (default {DEFAULT_MAX_TOKENS})",
    )
    add(
        "--concurrency",
        type=int,
        default=DEFAULT_CONCURRENCY,
        metavar="N",
        help=f"samples asked at once (default {DEFAULT_CONCURRENCY}; transformers takes one at a time)",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate, write the results and print the tables; progress goes to stderr.

    Raises:
        InvalidRequest: an argument or the data is wrong, or --out holds another run.
        StartError: the checkpoint or a setting is wrong.
        NotReady, EngineError: the engine or the server failed; what was answered is kept.
    """
    for name in ("limit", "max_tokens", "concurrency"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise InvalidRequest(f"--{name.replace('_', '-')} must be at least 1, not {value}", param=name)
    is_server = args.engine.startswith(("http://", "https://"))
    if not is_server and args.engine not in ("vllm", "transformers"):
        raise InvalidRequest(
            f"--engine is vllm, transformers or the http:// address of a server, not {args.engine!r}", param="engine"
        )
    ablations = parse_ablations(args.ablation or (ABLATIONS_OF_A_SERVER if is_server else ABLATIONS_BY_DEFAULT))
    _require("matplotlib", "ilvr[train]")  # at once: the chart comes last, and should not fail then
    if not is_server:
        _require(args.engine, "ilvr[cpu] (or ilvr[cuda] on a GPU)")
    from training.samples import read_samples

    samples = read_samples(args.data, args.images, needs_steps=False)
    _check_answers(samples)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(f"cannot make the folder {args.out}: {error.strerror}", param="out") from error
    try:
        return asyncio.run(_evaluate(args, samples, drawn(samples, args.limit, args.seed), ablations))
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        raise


def parse_ablations(text: str) -> tuple["Ablation", ...]:
    """Of a list with commas; in the order in which an engine is started least often. Raises ``InvalidRequest``."""
    from training.answer_log import ABLATIONS

    asked = [name.strip() for name in text.split(",")]
    if unknown := [name for name in asked if name not in ABLATIONS]:
        raise InvalidRequest(f"--ablation takes {', '.join(ABLATIONS)}, not {unknown[0]!r}", param="ablation")
    return tuple(name for name in ABLATIONS if name in asked)


def drawn(samples: Sequence["Sample"], limit: int | None, seed: int) -> dict[int, "Sample"]:
    """``limit`` samples by lot, in the order of the file and by their index in it. A file is often sorted by size."""
    indices: Sequence[int] = range(len(samples))
    if limit is not None and limit < len(samples):
        indices = sorted(random.Random(f"evaluate:{seed}").sample(indices, limit))
    return {index: samples[index] for index in indices}


async def _evaluate(
    args: argparse.Namespace,
    samples: Sequence["Sample"],
    asked: Mapping[int, "Sample"],
    ablations: tuple["Ablation", ...],
) -> int:
    from model_runner.environment import set_environment

    set_environment()
    from ilvr.evaluation_facts import context
    from ilvr.evaluation_progress import EvaluationProgress
    from training.answer_log import AnswerLog
    from training.evaluate import collect
    from training.evaluation_report import Report, markdown, write_report
    from training.evaluation_results import results_of

    answerers, engine_facts = await _answerers(args, samples, ablations)
    facts: dict[str, str | int | None] = {
        **engine_facts,
        "data": args.data.name,
        "data_sha256": sha256(args.data.read_bytes()).hexdigest()[:16],
        "max_tokens": args.max_tokens,
        "seed": args.seed,
    }
    try:
        with AnswerLog(args.out / "answers.jsonl", facts) as log:
            with EvaluationProgress(log, ablations, asked) as progress:
                await collect(asked, ablations, answerers, log, concurrency=args.concurrency, on_entry=progress.advance)
            entries = dict(log.entries)
    finally:
        await answerers.aclose()
    failed = [entry for entry in entries.values() if entry.answered is None and entry.index in asked]
    if len(failed) == len(asked) * len(ablations):
        first = min(failed, key=lambda entry: entry.index)  # of the file, not the first to come back
        raise InvalidRequest(f"not one sample could be asked: {first.error}")
    results = results_of(asked, entries, ablations, args.match)
    report = Report(run=facts, match=args.match, context=context(), results=results)
    write_report(args.out, report)
    print(markdown(report))
    print(f"wrote {args.out}/results.json, results.md and results.png", file=sys.stderr)
    if failed:
        print(
            f"{len(failed)} could not be asked and count as wrong, such as {failed[0].error}; the same command tries "
            "them again",
            file=sys.stderr,
        )
    return 0


async def _answerers(
    args: argparse.Namespace, samples: Sequence["Sample"], ablations: tuple["Ablation", ...]
) -> tuple["Answerers", dict[str, str | int | None]]:
    """What answers, and what decides its answers."""
    from ilvr.defaults import EMBEDDED_MODEL
    from ilvr.evaluation_facts import checkpoint_digest

    if args.engine.startswith("http"):
        from ilvr.evaluation_http import HttpAnswerers, check_ablations

        check_ablations(ablations)
        server = HttpAnswerers(args.engine, _prompts(args.model), max_tokens=args.max_tokens, seed=args.seed)
        return server, {"model": await server.model_name(), "engine": args.engine}
    from ilvr.evaluation_engines import Asking, EngineAnswerers

    folder = args.model or EMBEDDED_MODEL
    asking = Asking(folder, max_tokens=args.max_tokens, seed=args.seed)
    engines = EngineAnswerers(asking, args.engine, samples, concurrency=args.concurrency)
    settings = engines.settings("none")
    return engines, {
        "model": folder.resolve().name,
        "model_digest": checkpoint_digest(folder),
        "engine": args.engine,
        "dtype": settings.dtype,
        "latent_exit": settings.latent_exit,
        "max_model_len": settings.max_model_len,
    }


def _prompts(folder: Path | None) -> "SamplePrompts | None":
    if folder is None:
        return None
    from ilvr.sample_prompts import SamplePrompts
    from model_runner.checkpoint import read_checkpoint

    return SamplePrompts(read_checkpoint(folder, is_cpu=False))


def _require(package: str, extra: str) -> None:
    """Raises ``BadSettings`` if a package is not installed."""
    if find_spec(package) is None:
        raise BadSettings(f"{package} is not installed; install {extra}")


def _check_answers(samples: Sequence["Sample"]) -> None:
    for sample in samples:
        if sample.map_desc is None and sample.final_answer is None:
            raise InvalidRequest(
                f"{sample.where}: neither map_desc nor original_final_answer is there to judge an answer by",
                param="original_final_answer",
            )
