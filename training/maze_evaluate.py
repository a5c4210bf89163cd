"""Success of a maze checkpoint on unseen mazes in plain transformers, with its latents on, off, zeroed and swapped.

    python -m training.maze_evaluate models/maze-tiny --per-size 500

A cross-check of the served numbers, and the ablations that a claim about latents needs.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration

from contracts.mazes import SIZES, distinct
from training.configs import maze_tiny
from training.free_running import Latents, Score, score
from training.maze_data import MazeBatches, TilePixels

# Mazes decoded at once: enough to fill one core, small enough for its cache.
CHUNK_MAZES = 125


def evaluate(folder: Path, per_size: int) -> dict[str, dict[int, Score]]:
    """Scores by ablation and size, on the mazes that ``benchmarks.maze_accuracy`` sends to a server."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    latent_size = json.loads((folder / "ilvr.json").read_text())["latent_size"]
    batches = MazeBatches(Tokenizer.from_file(str(folder / "tokenizer.json")), TilePixels(), maze_tiny(), seed=0)
    results: dict[str, dict[int, Score]] = {}
    for latents in get_args(Latents):
        results[latents] = {}
        for size in SIZES:
            mazes = distinct(size, "test", per_size)
            chunks = [mazes[first : first + CHUNK_MAZES] for first in range(0, len(mazes), CHUNK_MAZES)]
            scores = [(score(model, batches, chunk, latent_size, latents), len(chunk)) for chunk in chunks]
            success = sum(one.success * count for one, count in scores) / len(mazes)
            full_block = sum(one.full_block * count for one, count in scores) / len(mazes)
            results[latents][size] = Score(success, full_block)
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Print a Markdown table in percent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the checkpoint")
    parser.add_argument("--per-size", type=int, default=500, help="mazes a size; 3x3 has 408 (default %(default)s)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    results = evaluate(args.folder, args.per_size)
    print("| latents | " + " | ".join(f"{size}x{size}" for size in SIZES) + " | full block |")
    print("| --- " * (len(SIZES) + 2) + "|")
    for latents, scores in results.items():
        cells = " | ".join(f"{100 * scores[size].success:.1f}" for size in SIZES)
        full = min(one.full_block for one in scores.values())
        print(f"| {latents} | {cells} | {100 * full:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
