"""``ilvr serve``: everything in one process tree."""

import argparse
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from contracts.errors import BadSettings
from contracts.manifest import BlockRule
from ilvr.defaults import DEFAULT_HOST, DEFAULT_PORT, EMBEDDED_MODEL

DESCRIPTION = """\
Start gateway, broker and engine with one command. Without --model it serves the embedded maze model, about 1 M
parameters trained by this project, which needs no GPU and no download.

examples:
  ilvr serve
  ilvr serve --model /data/ilvr-7b --port 9000 --dtype bfloat16
  ilvr serve --latent-exit fixed --max-num-seqs 128
  ilvr serve --latent-ablation swap        for evaluation: does the answer depend on the latents at all?

When it is ready it prints one line with its address. Ctrl-C or SIGTERM ends it and every process it started.
Every option is also an environment variable (ILVR_RUNNER_MAX_NUM_SEQS=128); limits of requests are
ILVR_SERVICE_* variables.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ilvr serve``. What is not given is left to the environment and the settings' defaults."""
    add = parser.add_argument
    add("--model", type=Path, metavar="DIR", help="checkpoint folder (default: the embedded maze model)")
    add("--served-model-name", metavar="NAME", help="name in the API (default: the folder's name)")
    add("--host", default=DEFAULT_HOST, help=f"address to listen on (default {DEFAULT_HOST})")
    add("--port", type=int, default=DEFAULT_PORT, help=f"port; 0 takes a free one (default {DEFAULT_PORT})")
    add("--engine", choices=("vllm", "transformers"), help="transformers: one request at a time, as a reference")
    add("--latent-exit", choices=get_args(BlockRule), help="how latent blocks end (default: as the checkpoint says)")
    add("--dtype", choices=("float32", "bfloat16", "float16", "auto"), help="auto: float32 on a CPU, bfloat16 on a GPU")
    add("--max-num-seqs", type=int, metavar="N", help="requests decoded together (default 64)")
    add("--max-model-len", type=int, metavar="N", help="context in tokens (default: the checkpoint's, at most 8192)")
    add("--max-num-batched-tokens", type=int, metavar="N", help="tokens computed in one step")
    add("--block-size", type=int, metavar="N", help="tokens in a KV block (default 32)")
    add("--kv-cache-mib", type=int, metavar="N", help="size of the KV cache (default on a CPU: 512)")
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
        choices=("none", "zero", "noise", "swap"),
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


def run(args: argparse.Namespace) -> int:
    """Serve until told to end. Raises ``StartError``."""
    from model_runner.environment import set_environment
    from service.settings import load_settings

    runner = runner_settings(args)
    _require_engine(runner.engine)
    # One bound for both: a request that the gateway admits must not fail in the engine.
    service = load_settings()
    service = load_settings(max_images=min(service.max_images, runner.max_images))
    set_environment()
    from ilvr.server import serve

    ablated = {
        "none": "",
        "zero": " with zeros for latents",
        "noise": " with noise for latents",
        "swap": " with other samples' latents",
    }[runner.latent_ablation]

    def on_ready(address: str) -> None:
        served = f"{runner.model_name}{ablated}"
        print(f"ilvr is ready: {address} serves {served}; try {address}/docs, stop with Ctrl-C", flush=True)

    serve(runner, service, host=args.host, port=args.port, on_ready=on_ready)
    return 0


def _require_engine(name: str) -> None:
    """Raises ``BadSettings`` if the engine's library is not installed; the gateway installs without."""
    if find_spec(name) is None:
        raise BadSettings(f"{name} is not installed; install ilvr[cpu] (or ilvr[cuda] on a GPU)")


def runner_settings(args: argparse.Namespace) -> Any:
    """``RunnerSettings`` of the arguments that were given. Raises ``BadSettings``."""
    from model_runner.settings import RunnerSettings, load_settings

    given = {name: getattr(args, name, None) for name in RunnerSettings.model_fields}
    told = {name: value for name, value in given.items() if value is not None}
    if "ILVR_RUNNER_MODEL" not in os.environ:
        told.setdefault("model", EMBEDDED_MODEL)
    return load_settings(**told)
