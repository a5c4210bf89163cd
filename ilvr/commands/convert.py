"""``ilvr convert``: a published checkpoint into a folder that ``ilvr serve`` loads."""

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import InvalidRequest

if TYPE_CHECKING:
    from training.convert.conversion import Converted, Progress
    from training.convert.plan import Options

GIB = 1 << 30
DESCRIPTION = """\
Turn a published checkpoint into a folder that 'ilvr serve' loads: safetensors in one dtype, with a manifest.

SRC is a Qwen2.5-VL folder with latent tokens on this machine. Its weights are pytorch_model.bin or model.safetensors,
or shards of either with their index; .bin files are read as plain tensors, and code in them is refused. They are
converted tensor by tensor, so that memory stays small whatever the size: count on the size of the largest tensor.

Latent ids are taken from config.json and the tokenizer, which must agree. Everything is checked before the first byte
is written, and what was written is read back and compared. DST appears when it is complete. Until then the work lies
beside it in DST.partial-PID, which Ctrl-C removes and, if the process was killed, the next run.

examples:
  ilvr convert comt_ckpt comt-7b                              the published checkpoint: 31.8 GB become 16.6 GB
  ilvr convert comt_ckpt comt-7b --base Qwen2.5-VL-7B-Instruct
                                                              with the tokenizer or image processor that SRC lacks
  ilvr convert comt_ckpt comt-7b --vocab resize:152064        as many vocabulary rows as the base model has
  ilvr convert my-run my-7b --latent-exit fixed               trained with the code of August 2026
  ilvr serve --model comt-7b                                  serve it
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ilvr convert``."""
    parser.add_argument("src", type=Path, metavar="SRC", help="folder of the checkpoint; it is only read")
    parser.add_argument("dst", type=Path, metavar="DST", help="folder to make; it must not exist")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32", "keep"),
        default="bfloat16",
        help="of all weights; keep leaves each as it is (default bfloat16)",
    )
    parser.add_argument(
        "--latent-exit",
        choices=("learned", "fixed"),
        help="how a latent block ends (docs/checkpoints.md); default: as SRC's ilvr.json says, or else learned, as in "
        "the published code of January 2026",
    )
    parser.add_argument(
        "--latent-size", type=int, metavar="K", help="latents in a block, for a checkpoint that does not say it"
    )
    parser.add_argument(
        "--vocab",
        default="keep",
        metavar="keep|resize:N",
        help="cut or pad embedding and head to N rows, never below an id in use; new rows are the mean of all "
        "(default keep)",
    )
    parser.add_argument(
        "--base", type=Path, metavar="DIR", help="take tokenizer, image processor and chat template from DIR if missing"
    )
    parser.add_argument(
        "--max-shard-gib", type=float, default=4.0, metavar="X", help="largest weight file in GiB (default 4)"
    )


def run(args: argparse.Namespace) -> int:
    """Convert, with a bar on stderr.

    Raises:
        InvalidRequest: an argument is wrong, or DST exists or cannot be written.
        BadCheckpoint: SRC is incomplete, damaged, or no ILVR checkpoint.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise InvalidRequest("converting needs PyTorch: install the 'cpu' or 'cuda' extra of ilvr") from error

    from importlib.metadata import version

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as ProgressBar

    from model_runner.checkpoint import read_checkpoint
    from training.convert.conversion import convert

    options = _options(args)
    # The disk is what is waited for; more threads would only disturb what else runs here.
    torch.set_num_threads(1)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    try:
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        with ProgressBar(*columns, *times, console=console, transient=True) as bar:
            task = bar.add_task("looking at the source", total=None)

            def show(progress: "Progress") -> None:
                bar.update(task, description=progress.what, total=progress.total_bytes, completed=progress.done_bytes)

            converted = convert(
                args.src,
                args.dst,
                options,
                created_by={"command": _command(args), "ilvr": version("ilvr")},
                check=lambda folder: read_checkpoint(folder, is_cpu=False),
                on_progress=show,
            )
    except KeyboardInterrupt:
        if not args.dst.exists():
            print(f"interrupted; {args.dst} was not made and nothing is left of it", file=sys.stderr)
        raise
    _report(args, converted)
    print(f"serve it with: ilvr serve --model {args.dst}")
    return 0


def _options(args: argparse.Namespace) -> "Options":
    from training.convert.plan import Options

    wanted = re.fullmatch(r"keep|resize:([1-9]\d{0,8})", args.vocab)
    if wanted is None:
        raise InvalidRequest(f"--vocab is keep or resize:N, as in resize:152064; found {args.vocab!r}", param="vocab")
    if args.latent_size is not None and args.latent_size < 1:
        raise InvalidRequest("--latent-size must be at least 1", param="latent_size")
    if not 0 < args.max_shard_gib < float("inf"):
        raise InvalidRequest("--max-shard-gib must be greater than 0", param="max_shard_gib")
    if args.base is not None and not args.base.is_dir():
        raise InvalidRequest(f"--base: {args.base} is not a folder", param="base")
    return Options(
        dtype=args.dtype,
        num_rows=int(wanted[1]) if wanted[1] else None,
        latent_exit=args.latent_exit,
        latent_size=args.latent_size,
        base=args.base,
        max_shard_bytes=int(args.max_shard_gib * GIB),
    )


def _command(args: argparse.Namespace) -> str:
    """What was typed, with names of folders for their paths, which mean nothing elsewhere."""
    words = ["ilvr convert", args.src.resolve().name, args.dst.resolve().name, f"--dtype {args.dtype}"]
    words += [f"--vocab {args.vocab}", f"--max-shard-gib {args.max_shard_gib:g}"]
    words += [f"--latent-exit {args.latent_exit}"] if args.latent_exit else []
    words += [f"--latent-size {args.latent_size}"] if args.latent_size else []
    words += [f"--base {args.base.resolve().name}"] if args.base else []
    return " ".join(words)


def _report(args: argparse.Namespace, converted: "Converted") -> None:
    from rich.filesize import decimal

    plan, manifest = converted.plan, converted.plan.manifest
    for note in plan.notes:
        print(note, file=sys.stderr)
    num_tensors, num_files = sum(len(shard) for shard in plan.shards), len(plan.shards)
    print(
        f"wrote {args.dst}: {num_tensors} tensors in {num_files} {'file' if num_files == 1 else 'files'}, "
        f"{decimal(plan.source.num_bytes)} became {decimal(plan.num_weight_bytes)}; read back and compared",
        file=sys.stderr,
    )
    ids = ", ".join(str(manifest[name]) for name in ("latent_token_id", "latent_start_id", "latent_end_id"))
    print(f"latent ids {ids} (pad, start, end), K = {manifest['latent_size']}, blocks end as {manifest['latent_exit']}")
