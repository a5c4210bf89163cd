"""Rows of the released data: what is read, in which order it is asked, and what is said about each thing wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from contracts.errors import InvalidRequest
from training.samples import (
    LatentStep,
    Sample,
    TextStep,
    load_image,
    question_parts,
    read_samples,
    scan_samples,
)

Read = Callable[..., list[Sample]]
MISSING = object()


def row(**changes: Any) -> dict[str, Any]:
    """A good row; a change to MISSING takes the key away."""
    good = {
        "text_input": "How many?",
        "image_input": "a.png",
        "sequence_plan": [{"type": "text", "content": "Three."}, {"type": "latent", "helper_image": "h.png"}],
        "original_final_answer": "3",
    }
    return {key: value for key, value in (good | changes).items() if value is not MISSING}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "h.png"):
        Image.new("RGB", (28, 28)).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def read(folder: Path) -> Read:
    def read_rows(*rows: Any, **options: Any) -> list[Sample]:
        lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in rows]
        (folder / "data.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        return read_samples(folder / "data.jsonl", **options)

    return read_rows


def test_a_row_becomes_a_sample(read: Read, folder: Path) -> None:
    steps = [
        {"type": "text", "content": "I look. "},
        {"type": "latent", "helper_image": "h.png"},
        {"type": "latent", "helper_image": "b.png", "target_cells": [0, 4, 2]},
        {"type": "text", "content": ""},
    ]
    assert read(row(image_input=["a.png", "b.png"], sequence_plan=steps)) == [
        Sample(
            text_input="How many?",
            images=(folder / "a.png", folder / "b.png"),
            steps=(
                TextStep(content="I look. "),
                LatentStep(helper_image=folder / "h.png", target_cells=None),
                LatentStep(helper_image=folder / "b.png", target_cells=(0, 4, 2)),
                TextStep(content=""),
            ),
            final_answer="3",
            map_desc=None,
            group=None,
            where="data.jsonl:1",
        )
    ]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("a.png", ["a.png"]),
        (["a.png"], ["a.png"]),
        (["b.png", "a.png", "b.png"], ["b.png", "a.png", "b.png"]),
        ([], []),
        ("", []),
        (None, []),
        (MISSING, []),
    ],
)
def test_image_input_is_a_path_a_list_or_nothing(read: Read, folder: Path, value: Any, names: list[str]) -> None:
    (sample,) = read(row(image_input=value))
    assert sample.images == tuple(folder / name for name in names)


def test_relative_paths_start_at_the_image_root_and_absolute_ones_stay(read: Read, folder: Path) -> None:
    pictures = folder / "elsewhere"
    pictures.mkdir()
    Image.new("RGB", (28, 28)).save(pictures / "c.png")
    plan = [{"type": "latent", "helper_image": "c.png"}]
    (sample,) = read(row(image_input=[str(folder / "a.png"), "c.png"], sequence_plan=plan), image_root=pictures)
    assert sample.images == (folder / "a.png", pictures / "c.png")
    assert sample.steps == (LatentStep(helper_image=pictures / "c.png"),)


def test_lines_are_counted_in_the_file_and_empty_ones_skipped(read: Read) -> None:
    samples = read(b"\xef\xbb\xbf" + json.dumps(row()).encode(), b"", b"  \r", row())
    assert [sample.where for sample in samples] == ["data.jsonl:1", "data.jsonl:4"]


def test_a_line_separator_in_a_text_ends_no_line(read: Read) -> None:
    text = "one\u2028two\u0085three"
    (sample,) = read(json.dumps(row(text_input=text), ensure_ascii=False).encode())
    assert sample.text_input == text


@pytest.mark.parametrize(
    ("value", "answer"), [("A", "A"), (2, "2"), (2.5, "2.5"), ("", ""), (None, None), (MISSING, None)]
)
def test_an_answer_is_text_and_a_number_becomes_text(read: Read, value: Any, answer: str | None) -> None:
    assert read(row(original_final_answer=value))[0].final_answer == answer


def test_other_keys_are_ignored(read: Read) -> None:
    plan = [{"type": "text", "content": "x", "note": 1}]
    assert read(row(id=7, image_output={"x": []}, sequence_plan=plan))[0].steps == (TextStep(content="x"),)


VSP = [[1, 0, -1], [0, 0, 0], [-1, 0, 2]]


@pytest.mark.parametrize(
    ("changes", "group"),
    [
        ({"map_desc": VSP}, "3x3"),
        ({"map_desc": [[1, 0, 0, 2], [0, 0, -1, 0]]}, "2x4"),
        ({"map_desc": VSP, "group": "hard"}, "hard"),
        ({"subtask": "creation"}, "creation"),
        ({"category": "chess", "type": "x"}, "chess"),
        ({"type": 5}, None),
        ({"image_input": "creation/a.png"}, "creation"),
        ({"image_input": "images_comt/update/a.png"}, "update"),
        ({"image_input": "images/a.png"}, None),
    ],
)
def test_what_results_are_broken_down_by(read: Read, changes: dict[str, Any], group: str | None) -> None:
    assert read(row(**changes), check_images=False)[0].group == group


def test_a_vsp_row_keeps_its_map(read: Read) -> None:
    assert read(row(map_desc=VSP))[0].map_desc == ((1, 0, -1), (0, 0, 0), (-1, 0, 2))


def test_a_test_file_may_lack_steps_only_if_told_so(read: Read) -> None:
    assert read(row(sequence_plan=MISSING), needs_steps=False)[0].steps == ()
    assert read(row(sequence_plan=[]), needs_steps=False)[0].steps == ()
    with pytest.raises(InvalidRequest, match=r"^data.jsonl:1: sequence_plan is missing$"):
        read(row(sequence_plan=MISSING))
    with pytest.raises(InvalidRequest, match=r"^data.jsonl:1: sequence_plan is empty"):
        read(row(sequence_plan=[]))


def latent(**changes: Any) -> dict[str, Any]:
    step = {"type": "latent", "helper_image": "h.png"} | changes
    return row(sequence_plan=[{"type": "text", "content": "x"}, {k: v for k, v in step.items() if v is not MISSING}])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (b'{"text_input": ', "not JSON: Expecting value at character"),
        (b'{"text_input": "\xff"}', "the line is not UTF-8 text"),
        (b"[" * 100_000, "not JSON that can be read"),
        (b'{"text_input": ' + b"9" * 5000 + b"}", "not JSON that can be read"),
        ([1], "the line must hold a JSON object, not a list"),
        (None, "the line must hold a JSON object, not null"),
        (row(text_input=MISSING), "text_input is missing"),
        (row(text_input=None), "text_input must be text, not null"),
        (row(text_input=["a"]), "text_input must be text, not a list"),
        (row(text_input="\ud800"), "text_input holds half of a surrogate pair"),
        (row(image_input=7), "image_input must be a path or a list of paths, not a number"),
        (row(image_input={"path": "a.png"}), "image_input must be a path or a list of paths, not an object"),
        (row(image_input=["a.png", 7]), "image_input[1] must be the path of a picture, not a number"),
        (row(image_input=["a.png", ""]), "image_input[1] must be the path of a picture, not an empty text"),
        (row(image_input="c.png"), "image_input names a picture that is not there: "),
        (row(image_input=["a.png", "c.png"]), "image_input[1] names a picture that is not there: "),
        (row(image_input="."), "image_input names a picture that is not there: "),
        (row(sequence_plan=None), "sequence_plan is missing"),
        (row(sequence_plan="x"), "sequence_plan must be a list, not text"),
        (row(sequence_plan=["x"]), "sequence_plan[0] must be an object, not text"),
        (row(sequence_plan=[{"type": "image"}]), "sequence_plan[0].type must be 'text' or 'latent', not 'image'"),
        (row(sequence_plan=[{"content": "x"}]), "sequence_plan[0].type must be 'text' or 'latent', not None"),
        (row(sequence_plan=[{"type": "text"}]), "sequence_plan[0].content is missing"),
        (row(sequence_plan=[{"type": "text", "content": 1}]), "sequence_plan[0].content must be text, not a number"),
        (latent(helper_image=MISSING), "sequence_plan[1].helper_image is missing"),
        (latent(helper_image=[1]), "sequence_plan[1].helper_image must be the path of a picture, not a list"),
        (latent(helper_image="c.png"), "sequence_plan[1].helper_image names a picture that is not there: "),
        (latent(target_cells=[1, -1]), "sequence_plan[1].target_cells must be a list of numbers"),
        (latent(target_cells=[True]), "sequence_plan[1].target_cells must be a list of numbers"),
        (latent(target_cells=[]), "sequence_plan[1].target_cells must be a list of numbers"),
        (latent(target_cells=3), "sequence_plan[1].target_cells must be a list of numbers"),
        (row(original_final_answer=True), "original_final_answer must be text or a number, not true or false"),
        (row(original_final_answer=["A"]), "original_final_answer must be text or a number, not a list"),
        (row(map_desc="S.G"), "map_desc must be a list of rows"),
        (row(map_desc=[1, 2]), "map_desc must be a list of rows"),
        (row(map_desc=[[1, 0], [2]]), "map_desc must have rows of one length"),
        (row(map_desc=[[1, 2], [0, 3]]), "map_desc may hold 1 (start), 2 (goal), -1 (hole) and 0 (free) only"),
        (row(map_desc=[[1, 2], [0, 0.0]]), "map_desc may hold"),
        (row(map_desc=[[0, 2], [0, 0]]), "map_desc must have one start (1) and a goal (2)"),
        (row(map_desc=[[1, 0], [0, 0]]), "map_desc must have one start (1) and a goal (2)"),
        (row(map_desc=[[1, 1], [0, 2]]), "map_desc must have one start (1) and a goal (2)"),
        (row(group=3), "group must be text, not a number"),
    ],
)
def test_what_is_wrong_is_told_with_file_line_and_field(read: Read, wrong: Any, told: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(row(), b"", wrong, row())
    assert str(raised.value).startswith(f"data.jsonl:3: {told}")
    assert "\n" not in str(raised.value)


def test_pictures_are_not_looked_for_if_not_asked(read: Read) -> None:
    assert len(read(row(image_input="c.png"), check_images=False)) == 1


def test_all_problems_can_be_listed(folder: Path) -> None:
    lines = [row(), row(text_input=1), b"", row(image_input="c.png"), row()]
    file = folder / "data.jsonl"
    file.write_bytes(b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines))
    found = list(scan_samples(file))
    assert [isinstance(one, Sample) for one in found] == [True, False, False, True]
    assert str(found[1]) == "data.jsonl:2: text_input must be text, not a number"


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_refused(folder: Path, content: bytes) -> None:
    (folder / "data.jsonl").write_bytes(content)
    with pytest.raises(InvalidRequest, match="the file is empty"):
        read_samples(folder / "data.jsonl")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"nothing\.jsonl: No such file or directory"):
        read_samples(tmp_path / "nothing.jsonl")


def test_pictures_come_first_where_no_placeholder_says_otherwise(read: Read, folder: Path) -> None:
    (sample,) = read(row(image_input=["b.png", "a.png"], text_input="Which <think> of <image_1>?"))
    assert question_parts(sample) == [folder / "b.png", folder / "a.png", "Which <think> of <image_1>?"]


def test_each_placeholder_gives_way_to_its_picture(read: Read, folder: Path) -> None:
    (sample,) = read(row(image_input=["b.png", "a.png"], text_input="Is <image> like<image> this?"))
    assert question_parts(sample) == ["Is ", folder / "b.png", " like", folder / "a.png", " this?"]
    (sample,) = read(row(image_input=["b.png", "a.png"], text_input="<image><image>"))
    assert question_parts(sample) == [folder / "b.png", folder / "a.png"]


def test_a_question_may_be_text_alone_or_a_picture_alone(read: Read, folder: Path) -> None:
    assert question_parts(read(row(image_input=[]))[0]) == ["How many?"]
    assert question_parts(read(row(text_input=""))[0]) == [folder / "a.png"]


@pytest.mark.parametrize(
    ("text", "images"), [("<image> <image>", "a.png"), ("<image>", ["a.png", "b.png"]), ("<image>", [])]
)
def test_too_many_or_too_few_placeholders_are_refused(read: Read, text: str, images: Any) -> None:
    (sample,) = read(row(text_input=text, image_input=images))
    with pytest.raises(InvalidRequest, match=r"^data\.jsonl:1: text_input has \d <image> for \d pictures"):
        question_parts(sample)


def test_a_picture_becomes_rgb_as_pil_converts(tmp_path: Path) -> None:
    Image.new("LA", (3, 2), (200, 0)).save(tmp_path / "grey.png")
    image = load_image(tmp_path / "grey.png")
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (3, 2), (200, 200, 200))


def test_an_unreadable_picture_is_named(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:1000])
    (tmp_path / "text.png").write_text("not a picture")
    for name, told in (("cut.png", "cannot be read"), ("text.png", "not a picture"), ("none.png", "no such picture")):
        with pytest.raises(InvalidRequest, match=rf"{name}: .*{told}"):
            load_image(tmp_path / name)


def zebra(**changes: Any) -> dict[str, Any]:
    good = {
        "Question": "Is <image_start>[problem_image_1]<image_end> safe?",
        "Text Reasoning Trace": (
            "THOUGHT 0: I see <image_start>[problem_image_1]<image_end> and draw. "
            "<image_start>[reasoning_image_1]<image_end>\nTHOUGHT 1: Then "
            "<image_start>[reasoning_image_2]<image_end>"
        ),
        "Final Answer": "yes",
        "problem_image_1": "a.png",
        "reasoning_image_1": "h.png",
        "reasoning_image_2": {"path": "b.png", "bytes": None},
        "reasoning_image_3": None,
    }
    return {key: value for key, value in (good | changes).items() if value is not MISSING}


def test_a_row_of_zebra_cot_as_its_authors_publish_it(read: Read, folder: Path) -> None:
    (sample,) = read(zebra(category="chess"))
    assert question_parts(sample) == ["Is ", folder / "a.png", " safe?"]
    assert sample.steps == (
        TextStep(content="THOUGHT 0: I see  and draw. "),
        LatentStep(helper_image=folder / "h.png"),
        TextStep(content="\nTHOUGHT 1: Then "),
        LatentStep(helper_image=folder / "b.png"),
    )
    assert (sample.final_answer, sample.group) == ("yes", "chess")


def test_zebra_pictures_that_the_question_does_not_name_come_first(read: Read, folder: Path) -> None:
    more = {"problem_image_10": "h.png", "problem_image_2": "b.png"}
    (sample,) = read(zebra(Question="Safe?", **more))
    assert question_parts(sample) == [folder / "a.png", folder / "b.png", folder / "h.png", "Safe?"]
    (sample,) = read(zebra(**more))
    assert question_parts(sample) == [folder / "b.png", folder / "h.png", "Is ", folder / "a.png", " safe?"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (zebra(Question=7), "Question must be text"),
        (zebra(reasoning_image_1=MISSING), "a text names reasoning_image_1, but the row has no such picture"),
        (zebra(problem_image_1=None), "a text names problem_image_1, but the row has no such picture"),
        (zebra(reasoning_image_1="c.png"), "sequence_plan[1].helper_image names a picture that is not there"),
        (zebra(reasoning_image_1={"bytes": "x"}), "sequence_plan[1].helper_image is missing"),
    ],
)
def test_what_is_wrong_with_a_zebra_row(read: Read, wrong: Any, told: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(wrong)
    assert str(raised.value).startswith(f"data.jsonl:1: {told}")
