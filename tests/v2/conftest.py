"""Only where vLLM was made to believe in an interpreted Triton: ``make test-v2``."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.v2.small_vocabulary import SmallVocabulary, cut

IS_FORCED = "sitecustomize" in sys.modules and Path(sys.modules["sitecustomize"].__file__ or "").parent.name == "forced"
REASON = "Model Runner V2 on a CPU needs Triton interpreted, in an environment of its own: make test-v2"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if IS_FORCED and os.environ.get("TRITON_INTERPRET") == "1":
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=REASON))


SmallOf = Callable[[str], tuple[Path, SmallVocabulary]]


@pytest.fixture(scope="session")
def small_of(golden_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> SmallOf:
    """(folder of a recorded checkpoint cut to few tokens, its vocabulary), by name."""
    made: dict[str, tuple[Path, SmallVocabulary]] = {}

    def get(name: str) -> tuple[Path, SmallVocabulary]:
        if name not in made:
            folder = tmp_path_factory.mktemp("small") / f"ckpt-{name}"
            made[name] = folder, cut(golden_folders[name], name, folder)
        return made[name]

    return get
