"""A runner from its settings: check the checkpoint, start the engine, put the parts together."""

import os
import secrets
import socket
from collections.abc import Sequence
from typing import Protocol

from contracts.broker import Broker
from model_runner.attempt import Answering
from model_runner.checkpoint import Checkpoint, read_checkpoint
from model_runner.engine.base import Engine, EngineRequest
from model_runner.engine.vllm_engine import VllmEngine, is_cpu_engine
from model_runner.generation import GenerationDefaults, read_generation_defaults
from model_runner.image_processor import ImageSizes
from model_runner.metrics import RunnerMetrics
from model_runner.prompt import PromptBuilder
from model_runner.runner import Runner
from model_runner.settings import RunnerSettings
from model_runner.vocabulary import read_vocabulary


class StartEngine(Protocol):
    def __call__(
        self,
        settings: RunnerSettings,
        checkpoint: Checkpoint,
        defaults: GenerationDefaults,
        donors: Sequence[EngineRequest] | None = None,
    ) -> Engine: ...


def start_engine(settings: RunnerSettings, donors: Sequence[EngineRequest] | None = None) -> Answering:
    """Check the folder and all small files in it, then load the model. Blocks until the engine answers.

    donors: samples whose latents ``--latent-ablation swap`` feeds; as the settings say if None.

    Raises:
        BadCheckpoint: something in the folder is missing or wrong.
        BadSettings: no engine is installed, or donors cannot be read.
    """
    start = _engine_starter(settings)
    is_cpu = settings.engine == "vllm" and is_cpu_engine()
    checkpoint = read_checkpoint(settings.model, rule=settings.latent_exit, is_cpu=is_cpu)
    defaults = read_generation_defaults(checkpoint.folder, checkpoint.config)
    vocabulary = read_vocabulary(checkpoint.folder)
    prompts = PromptBuilder(checkpoint)
    return Answering(
        model_name=settings.model_name,
        engine=start(settings, checkpoint, defaults, donors),
        spec=checkpoint.spec,
        defaults=defaults,
        prompts=prompts,
        image_sizes=ImageSizes(str(checkpoint.folder)),
        vocabulary=vocabulary,
        context_tokens=settings.context_tokens(checkpoint.context_tokens),
    )


def _engine_starter(settings: RunnerSettings) -> StartEngine:
    if settings.engine == "transformers":
        from model_runner.engine.transformers_engine import TransformersEngine

        return TransformersEngine.start
    return VllmEngine.start


def make_runner(settings: RunnerSettings, *, broker: Broker, tools: Answering, metrics: RunnerMetrics) -> Runner:
    """The runner of a started engine."""
    return Runner(
        runner_id=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        broker=broker,
        tools=tools,
        max_num_seqs=settings.max_num_seqs if settings.engine == "vllm" else 1,
        metrics=metrics,
    )
