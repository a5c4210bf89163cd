"""What the libraries below read from the environment. Set before any of them is imported; a user's own value wins."""

import os

QUIET_AND_OFFLINE = {
    "HF_HUB_OFFLINE": "1",  # a checkpoint is a folder here; nothing is ever fetched
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_PLUGINS": "ilvr",
    "TORCH_LOGS": "-torch._library.triton",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore",
}


def set_environment() -> None:
    """Imports nothing heavy."""
    for name, value in QUIET_AND_OFFLINE.items():
        os.environ.setdefault(name, value)


def set_cpu_environment() -> None:
    """For vLLM on a CPU.

    One engine process that does the work itself, instead of a worker below it, is quicker to start and to step. One
    core is left to the gateway: threads that wait for each other spin, and a spinning thread without a core to itself
    makes every step several times slower.
    """
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) - 1)))
