"""Entry point of ``vllm.general_plugins``: every vLLM process calls this before it builds a model."""

import multiprocessing

from contracts.logs import configure_engine_logs
from model_runner.parent import end_with_parent

ARCHITECTURE = "ILVRForConditionalGeneration"


def register() -> None:
    """Make the architecture known by name; the class is imported only when a model asks for it.

    A process that vLLM started ends with the one that started it, from here on, and writes its log as that one does.
    """
    end_with_parent()
    if multiprocessing.parent_process() is not None:
        configure_engine_logs()
    from vllm import ModelRegistry

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, f"model_runner.model.ilvr:{ARCHITECTURE}")
