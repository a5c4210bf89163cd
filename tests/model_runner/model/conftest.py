"""The embedded model in an engine that is stepped by hand, started once for this folder."""

from collections.abc import Iterator

import pytest

from model_runner.checkpoint import Checkpoint
from model_runner.engine.base import EngineRequest, SamplingSettings
from model_runner.generation import read_generation_defaults
from tests.parity.stepper import Stepper, running_stepper


@pytest.fixture(scope="package")
def maze_stepper(maze_checkpoint: Checkpoint) -> Iterator[Stepper]:
    defaults = read_generation_defaults(maze_checkpoint.folder, maze_checkpoint.config)
    with running_stepper(maze_checkpoint, defaults, max_model_len=2048) as engine:
        yield engine


def add_in_a_block(stepper: Stepper, name: str, *, max_tokens: int) -> None:
    """A request that is in a latent block from its first token on, and ends by ``max_tokens`` alone."""
    ids = (5, 6, 7, stepper.checkpoint.spec.start_id)
    request = EngineRequest(request_id=name, prompt_ids=ids, sampling=SamplingSettings(max_tokens=max_tokens))
    stepper.add(request, stop_token_ids=[])
