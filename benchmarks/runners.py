"""Which of vLLM's two model runners the engines that are started meanwhile have."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Runner = Literal["V1", "V2"]
VARIABLE = "VLLM_USE_V2_MODEL_RUNNER"


@contextmanager
def chosen(runner: Runner) -> Iterator[None]:
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1" if runner == "V2" else "0"
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before
