"""What the libraries below read from the environment. Set before any of them is imported; a user's own value wins."""

import os

from contracts.errors import BadSettings

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
    core is left to the gateway, which keeps to it (``cores.py``): threads that wait for each other spin, and a spinning
    thread without a core to itself makes every step several times slower.
    """
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) - 1)))


def set_runner_environment(*, is_cpu: bool) -> bool:
    """Decide which of vLLM's model runners serves; returns whether it is V2, for which logits processors differ.

    A user's own ``VLLM_USE_V2_MODEL_RUNNER`` wins. Else V2 on a GPU, as vLLM has it, and V1 on a CPU, where V2 needs a
    Triton that can run there. vLLM would decide by itself, but silently, and by what is installed.

    Raises ``BadSettings`` for a value that vLLM does not read either.
    """
    chosen = os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0" if is_cpu else "1")
    if chosen not in ("0", "1"):
        raise BadSettings(f"VLLM_USE_V2_MODEL_RUNNER is {chosen!r}; vLLM reads 0 or 1")
    return chosen == "1"


def set_gpu_environment(*, is_float32: bool) -> None:
    """For vLLM on a GPU. Engine processes are started anew, as on a CPU: a fork would inherit the locks of our threads.

    float32 is float32: kernels that Triton compiles would otherwise multiply in TF32.
    """
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if is_float32:
        os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")
