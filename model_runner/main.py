"""A runner from its settings: check the checkpoint, start the engine, put the parts together."""

import os
import secrets
import socket
from collections.abc import Callable

from contracts.broker import Broker
from contracts.errors import BadSettings
from model_runner.attempt import Answering
from model_runner.checkpoint import DEFAULT_MAX_MODEL_LEN, Checkpoint, read_checkpoint
from model_runner.engine.base import Engine
from model_runner.engine.vllm_engine import VllmEngine, is_cpu_engine
from model_runner.generation import GenerationDefaults, read_generation_defaults
from model_runner.image_processor import ImageSizes
from model_runner.metrics import RunnerMetrics
from model_runner.prompt import PromptBuilder
from model_runner.runner import Runner
from model_runner.settings import RunnerSettings
from model_runner.vocabulary import read_vocabulary

StartEngine = Callable[[RunnerSettings, Checkpoint, GenerationDefaults], Engine]


def start_engine(settings: RunnerSettings) -> tuple[Engine, Checkpoint, GenerationDefaults]:
    """Check the folder, then load the model. Blocks until the engine answers.

    Raises:
        BadCheckpoint: something in the folder is missing or wrong.
        BadSettings: no engine is installed.
    """
    is_cpu = settings.engine == "vllm" and is_cpu_engine()
    checkpoint = read_checkpoint(settings.model, rule=settings.latent_exit, is_cpu=is_cpu)
    defaults = read_generation_defaults(checkpoint.folder, checkpoint.config)
    return _engine_class(settings)(settings, checkpoint, defaults), checkpoint, defaults


def _engine_class(settings: RunnerSettings) -> StartEngine:
    if settings.engine == "transformers":
        from model_runner.engine.transformers_engine import TransformersEngine

        return TransformersEngine.start
    from importlib.util import find_spec

    if find_spec("vllm") is None:
        raise BadSettings("vLLM is not installed; install ilvr[cpu] or ilvr[cuda], or use --engine transformers")
    return VllmEngine.start


def make_runner(
    settings: RunnerSettings,
    *,
    broker: Broker,
    engine: Engine,
    checkpoint: Checkpoint,
    defaults: GenerationDefaults,
    metrics: RunnerMetrics,
) -> Runner:
    """The runner of a started engine. Raises ``BadCheckpoint`` for a tokenizer or chat template that cannot serve."""
    runner_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    return Runner(
        runner_id=runner_id,
        model_name=settings.model_name,
        broker=broker,
        tools=Answering(
            engine=engine,
            spec=checkpoint.spec,
            defaults=defaults,
            prompts=PromptBuilder(checkpoint),
            image_sizes=ImageSizes(str(checkpoint.folder)),
            vocabulary=read_vocabulary(checkpoint.folder),
            context_tokens=min(settings.max_model_len or DEFAULT_MAX_MODEL_LEN, checkpoint.context_tokens),
        ),
        max_num_seqs=settings.max_num_seqs if settings.engine == "vllm" else 1,
        metrics=metrics,
    )
