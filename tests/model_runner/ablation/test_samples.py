"""When two requests are one sample, and which samples lend their latents."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from contracts.errors import BadSettings
from contracts.maze_pictures import draw_maze
from contracts.mazes import SIZES, distinct
from model_runner.ablation.samples import donor_requests, sample_of, seed_of
from model_runner.checkpoint import Checkpoint
from model_runner.engine.base import EngineImage, EngineRequest, SamplingSettings
from model_runner.generation import GenerationDefaults
from model_runner.prompt import PromptBuilder

DEFAULTS = GenerationDefaults(end_ids=(376,), repetition_penalty=1.05)
GREEDY = SamplingSettings(max_tokens=9)


def picture(colour: str, name: str = "x", size: tuple[int, int] = (28, 28)) -> EngineImage:
    return EngineImage(id=name, rgb=Image.new("RGB", size, colour))


def request(*ids: int, images: tuple[EngineImage, ...] = (), seed: int | None = None) -> EngineRequest:
    return EngineRequest(
        request_id="r", prompt_ids=ids, images=images, sampling=replace(GREEDY, seed=seed), latent_mode="on"
    )


class TestSample:
    def test_pixels_count_and_names_do_not(self) -> None:
        asked = request(1, 2, images=(picture("red", "a"),))
        assert sample_of(asked) == sample_of(request(1, 2, images=(picture("red", "b"),)))
        assert sample_of(asked) == sample_of(request(9, images=(picture("red"),)))  # another question about it
        assert sample_of(asked) != sample_of(request(1, 2, images=(picture("blue", "a"),)))

    def test_the_shape_of_a_picture_counts(self) -> None:
        """Of one colour, both have the same bytes."""
        wide, high = (request(1, images=(picture("red", size=size),)) for size in ((56, 28), (28, 56)))
        assert sample_of(wide) != sample_of(high)

    def test_without_pictures_it_is_the_prompt(self) -> None:
        assert sample_of(request(1, 2)) == sample_of(request(1, 2))
        assert sample_of(request(1, 2)) != sample_of(request(2, 1))


class TestSeed:
    @staticmethod
    def seed(asked: EngineRequest) -> int:
        return seed_of(asked, sample_of(asked))

    def test_it_is_of_the_request_and_not_of_its_name(self) -> None:
        asked = request(1, 2, images=(picture("red", "a"),), seed=3)
        renamed = replace(asked, request_id="other", images=(picture("red", "b"),))
        assert self.seed(asked) == self.seed(renamed)

    def test_everything_that_is_asked_counts(self) -> None:
        red, blue = (picture("red"),), (picture("blue"),)
        asked = [
            request(1, 2, images=red),
            request(1, 3, images=red),
            request(1, 2, images=blue),
            request(1, 2),
            request(1, 2, images=red, seed=0),
            request(1, 2, images=red, seed=1),
        ]
        assert len({self.seed(one) for one in asked}) == len(asked)

    def test_it_fits_a_signed_word_of_64_bits(self) -> None:
        seeds = [self.seed(request(number)) for number in range(100)]
        assert 0 <= min(seeds) < max(seeds) < 2**63
        assert max(seeds) > 2**62  # and fills it


class TestDonorRequests:
    def test_without_a_file_they_are_training_mazes_of_every_size(self, maze_checkpoint: Checkpoint) -> None:
        found = donor_requests(None, maze_checkpoint, DEFAULTS)
        sizes = [asked.images[0].rgb.size[0] // 28 for asked in found]
        assert {size: sizes.count(size) for size in SIZES} == dict.fromkeys(SIZES, 6)
        assert len({sample_of(asked) for asked in found}) == 24
        unseen = {draw_maze(maze.rows).tobytes() for maze in distinct(3, "test", 408)}
        assert not any(asked.images[0].rgb.tobytes() in unseen for asked in found)
        assert {asked.sampling for asked in found} == {SamplingSettings(max_tokens=512, repetition_penalty=1.05)}

    def test_a_file_of_released_data(
        self, tmp_path: Path, maze_checkpoint: Checkpoint, maze_prompts: PromptBuilder
    ) -> None:
        Image.new("RGBA", (28, 56), (255, 0, 0, 0)).save(tmp_path / "a.png")
        rows = [
            {"text_input": "<image>Where to?", "image_input": "a.png", "sequence_plan": []},
            {"text_input": "Both?", "image_input": ["a.png", "a.png"]},
            {"text_input": "None?"},
        ]
        path = tmp_path / "donors.jsonl"
        path.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n")
        found = donor_requests(path, maze_checkpoint, DEFAULTS)
        assert [len(asked.images) for asked in found] == [1, 2, 0]
        assert found[0].prompt_ids == maze_prompts.build("Where to?", num_images=1)
        assert found[0].images[0].rgb.tobytes() == Image.new("RGB", (28, 56), (255, 0, 0)).tobytes()
        assert found[2].prompt_ids == maze_prompts.build("None?", num_images=0)

    def test_of_a_long_file_64_from_beginning_to_end(self, tmp_path: Path, maze_checkpoint: Checkpoint) -> None:
        """Data are often sorted by size."""
        path = tmp_path / "donors.jsonl"
        path.write_text("".join(json.dumps({"text_input": f"{n}"}) + "\n" for n in range(640)))
        found = donor_requests(path, maze_checkpoint, DEFAULTS)
        assert len(found) == 64
        last = path.read_text().splitlines()[630]
        path.write_text(last)
        assert donor_requests(path, maze_checkpoint, DEFAULTS)[0].prompt_ids == found[-1].prompt_ids

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            ("", "has no rows"),
            ('{"text_input": "a"}\nnot json', r"donors.jsonl:2 is no JSON object with text_input"),
            ('{"question": "a"}', r"donors.jsonl:1 is no JSON object with text_input"),
            ("[1]", r"donors.jsonl:1 is no JSON object with text_input"),
            ('{"text_input": 3}', r"donors.jsonl:1: text_input must be a text"),
            ('{"text_input": "a", "image_input": [1]}', r"donors.jsonl:1: .* a path or a list of paths"),
            ('{"text_input": "a", "image_input": "nowhere.png"}', r"picture .*nowhere.png cannot be read"),
            ('{"text_input": "a", "image_input": "donors.jsonl"}', r"picture .*donors.jsonl cannot be read"),
        ],
    )
    def test_what_cannot_be_read_is_one_line(
        self, content: str, told: str, tmp_path: Path, maze_checkpoint: Checkpoint
    ) -> None:
        path = tmp_path / "donors.jsonl"
        path.write_text(content)
        with pytest.raises(BadSettings, match=rf"^--latent-donors: .*{told}[^\n]*$"):
            donor_requests(path, maze_checkpoint, DEFAULTS)

    def test_a_file_that_is_not_there(self, tmp_path: Path, maze_checkpoint: Checkpoint) -> None:
        with pytest.raises(BadSettings, match=r"--latent-donors: .*nowhere.jsonl cannot be read"):
            donor_requests(tmp_path / "nowhere.jsonl", maze_checkpoint, DEFAULTS)
