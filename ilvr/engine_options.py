"""The options of an engine, which ``ilvr serve`` and ``ilvr runner`` have in common."""

import argparse
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from contracts.errors import BadSettings
from contracts.manifest import BlockRule
from ilvr.defaults import EMBEDDED_MODEL

ABLATED = {
    "none": "",
    "zero": " with zeros for latents",
    "noise": " with noise for latents",
    "swap": " with other samples' latents",
}


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """What is not given is left to the environment and the settings' defaults."""
    add = parser.add_argument
    add("--model", type=Path, metavar="DIR", help="checkpoint folder (default: the embedded maze model)")
    add("--served-model-name", metavar="NAME", help="name in the API (default: the folder's name)")
    add("--engine", choices=("vllm", "transformers"), help="transformers: one request at a time, as a reference")
    add("--latent-exit", choices=get_args(BlockRule), help="how latent blocks end (default: as the checkpoint says)")
    add("--dtype", choices=("float32", "bfloat16", "float16", "auto"), help="auto: float32 on a CPU, bfloat16 on a GPU")
    add("--max-num-seqs", type=int, metavar="N", help="requests decoded together (default 64)")
    add("--max-model-len", type=int, metavar="N", help="context in tokens (default: the checkpoint's, at most 8192)")
    add("--max-num-batched-tokens", type=int, metavar="N", help="tokens computed in one step")
    add("--block-size", type=int, metavar="N", help="tokens in a KV block (default 32)")
    add("--kv-cache-mib", type=int, metavar="N", help="size of the KV cache (default on a CPU: 512)")
    add(
        "--gpu-memory-utilization",
        type=float,
        metavar="PART",
        help="part of a GPU's memory that must be free and may be taken (default 0.92); less on a shared GPU",
    )
    add("--num-kv-blocks", type=int, metavar="N", help="size of the KV cache in blocks instead")
    add("--max-images", type=int, metavar="N", help="images in one request (default 8)")
    add("--max-history-latents", type=int, metavar="N", help="latents in a prompt; more are refused (default 512)")
    add(
        "--max-replayed-pads",
        type=int,
        metavar="N",
        help="latents of a prompt that a step may compute by replaying it, at a pass each (default 0: a step for each)",
    )
    add("--prefix-caching", action=argparse.BooleanOptionalAction, help="reuse the KV cache of equal prompt beginnings")
    add(
        "--latent-ablation",
        choices=tuple(ABLATED),
        help="feed back in latent blocks, instead of the model's own hidden states: zeros; seeded noise of the same "
        "length; another sample's latents. Every request of this server is answered so, without prefix caching",
    )
    add(
        "--latent-donors",
        type=Path,
        metavar="FILE",
        help="JSONL with text_input and image_input: samples whose latents swap feeds (default: mazes)",
    )
    add("--enforce-eager", action=argparse.BooleanOptionalAction, help="no compilation and no CUDA graphs")


def runner_settings(args: argparse.Namespace) -> Any:
    """``RunnerSettings`` of the arguments that were given. Raises ``BadSettings``."""
    from model_runner.settings import RunnerSettings, load_settings

    given = {name: getattr(args, name, None) for name in RunnerSettings.model_fields}
    told = {name: value for name, value in given.items() if value is not None}
    if "ILVR_RUNNER_MODEL" not in os.environ:
        told.setdefault("model", EMBEDDED_MODEL)
    settings = load_settings(**told)
    _require_engine(settings.engine)
    return settings


def served(settings: Any) -> str:
    """The model's name, and what is fed back if not its own latents: for the line that says "ready"."""
    return f"{settings.model_name}{ABLATED[settings.latent_ablation]}"


def _require_engine(name: str) -> None:
    """Raises ``BadSettings`` if the engine's library is not installed; the gateway installs without."""
    if find_spec(name) is None:
        raise BadSettings(f"{name} is not installed; install ilvr[cpu] (or ilvr[cuda] on a GPU)")
