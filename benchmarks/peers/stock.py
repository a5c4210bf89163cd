"""vLLM's own OpenAI server with its Qwen2.5-VL class, and the settings of the engine of ``ilvr serve``.

    python -m benchmarks.peers.stock --model DIR --port 8001

Latent tokens are ordinary tokens to it. Pictures go through our image processor and its model has our kernels for a
CPU, as in part (c) of `benchmarks.decode`, which holds the engines alone against each other.
"""

import argparse
from pathlib import Path
from typing import Any

import uvloop

from model_runner.checkpoint import read_checkpoint
from model_runner.engine.vllm_arguments import engine_arguments
from model_runner.environment import set_cpu_environment, set_environment, set_runner_environment
from model_runner.settings import RunnerSettings


def server_arguments(folder: Path, dtype: Any, port: int) -> argparse.Namespace:
    """vLLM's defaults but for the address, the engine's settings, and that requests are not logged."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    from benchmarks.decode.stock import STOCK

    settings = RunnerSettings(model=folder, dtype=dtype)
    told = engine_arguments(settings, read_checkpoint(folder, is_cpu=True), is_cpu=True, uses_v2=False)
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(["--host", "127.0.0.1", "--port", str(port)])
    vars(args).update({**told, **STOCK, "disable_uvicorn_access_log": True, "model_tag": None})
    args.served_model_name = [folder.name]
    args.additional_config = {}
    validate_parsed_serve_args(args)
    return args


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    set_environment()
    set_runner_environment(is_cpu=True)
    set_cpu_environment()
    from vllm.entrypoints.launchers.api_server.entry import run_server

    from benchmarks.decode.stock import register

    register()
    uvloop.run(run_server(server_arguments(given.model, given.dtype, given.port)))


if __name__ == "__main__":
    main()
