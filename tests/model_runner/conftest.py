"""The two tokenizers and the embedded checkpoint, read once."""

from pathlib import Path

import pytest

from model_runner.checkpoint import Checkpoint, read_checkpoint
from model_runner.prompt import PromptBuilder
from model_runner.vocabulary import Vocabulary, read_vocabulary
from tests.model_runner.folders import GOLDEN, MAZE_TINY
from tests.model_runner.world import make_tools, start

__all__ = ["make_tools", "start"]


@pytest.fixture(scope="session")
def golden_vocabulary() -> Vocabulary:
    return read_vocabulary(GOLDEN / "tok")


@pytest.fixture(scope="session")
def maze_vocabulary() -> Vocabulary:
    return read_vocabulary(MAZE_TINY)


@pytest.fixture(scope="session")
def maze_checkpoint() -> Checkpoint:
    return read_checkpoint(MAZE_TINY, is_cpu=True)


@pytest.fixture(scope="session")
def maze_prompts(maze_checkpoint: Checkpoint) -> PromptBuilder:
    return PromptBuilder(maze_checkpoint)


@pytest.fixture(scope="session")
def golden_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Configuration and tokenizer of recorded checkpoint b, without its weights."""
    from contracts.manifest import read_json, read_latent_spec

    folder: Path = tmp_path_factory.mktemp("golden-b")
    for source in (*(GOLDEN / "tok").iterdir(), *(GOLDEN / "ckpt-b-config").iterdir()):
        (folder / source.name).symlink_to(source)
    return Checkpoint(folder, read_latent_spec(folder), read_json(folder / "config.json"))
