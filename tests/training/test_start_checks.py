"""What must be so before the first step, where no run of one process shows it."""

from pathlib import Path

import pytest

from contracts.errors import BadSettings
from tests.training.base_folder import recipe
from training.samples import Sample
from training.start_checks import check_tower_sees


def sample(*images: Path) -> Sample:
    return Sample(
        text_input="Where?",
        images=images,
        steps=(),
        final_answer=None,
        map_desc=None,
        group=None,
        where="train.jsonl:1",
    )


def test_processes_that_train_the_tower_each_need_an_image() -> None:
    seeing, blind = [sample(Path("maze.png"))], [sample(Path("maze.png")), sample()]
    with pytest.raises(BadSettings, match="needs an image in every sample"):
        check_tower_sees(recipe(freeze_tower=False), blind, 2)
    check_tower_sees(recipe(freeze_tower=False), seeing, 2)
    check_tower_sees(recipe(freeze_tower=False), blind, 1)
    check_tower_sees(recipe(freeze_tower=True), blind, 2)
