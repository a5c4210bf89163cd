"""Engine processes as forks of one that has imported vLLM already: a start takes a third of the time.

A server starts its engine with an interpreter of its own, as vLLM does on a CPU; tests that start servers do so too. A
fork sees the environment as it was at the first start.
"""

import multiprocessing
from multiprocessing.context import BaseContext

IMPORTED = [
    "vllm.v1.engine.core",
    "vllm.v1.worker.cpu_worker",
    "model_runner.model.cpu_worker",
    "model_runner.model.ilvr",
]


def fork_engine_processes() -> None:
    """From now on, in this process. It is forked from a process without threads and without a model."""
    import vllm.v1.engine.utils as starting

    def forking() -> BaseContext:
        return multiprocessing.get_context("forkserver")

    forking().set_forkserver_preload(IMPORTED)
    starting.get_mp_context = forking
