"""Tests marked ``gpu`` need a GPU and vLLM's build for it: ``make test-gpu``, docs/gpu.md."""

import pytest
import torch

from model_runner.engine.vllm_engine import is_cpu_engine


def _why_not() -> str | None:
    if not torch.cuda.is_available():
        return "no GPU here; docs/gpu.md says what to install and run where there is one"
    if is_cpu_engine():
        return "vLLM's CPU build is installed; docs/gpu.md says what to install for a GPU"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    reason = _why_not() if marked else None
    for item in marked:
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
