"""``ilvr data`` as a user runs it: what is written, what is refused, what a check says of good and bad files."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from contracts.maze_pictures import draw_maze
from contracts.maze_pictures import draw_solution as draw_maze_solution
from contracts.mazes import MOVES, is_test_split, run_path
from contracts.trail_pictures import draw_solution, draw_trail
from contracts.trails import follow
from ilvr.cli import main
from training import balanced, dataset_folder
from training.contact_sheet import CARD_WIDTH, MARGIN, chosen, contact_sheet, wrap
from training.data_summary import spread, visual_tokens
from training.samples import LatentStep, Sample, TextStep, read_samples


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balanced, "MIN_DRAWS", 50)
    monkeypatch.setattr(balanced, "MAZE_DRAWS", 5)


def make(task: str, out: Path, *more: str) -> int:
    return main(["data", task, "--out", str(out), "--train", "12", "--test", "6", "--sizes", "3,4", *more])


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_mazes_are_written_in_the_released_form(tmp_path: Path) -> None:
    assert make("maze", tmp_path / "out") == 0
    train, test = rows_of(tmp_path / "out/train.jsonl"), rows_of(tmp_path / "out/test.jsonl")
    assert Counter(row["group"] for row in train) == {"3x3": 6, "4x4": 6}
    assert Counter(row["group"] for row in test) == {"3x3": 3, "4x4": 3}
    names = {1: "S", 2: "G", -1: "H", 0: "."}
    for row in train + test:
        grid = tuple("".join(names[cell] for cell in line) for line in row["map_desc"])
        assert is_test_split(grid) == (row in test)
        assert row["text_input"] == "Find a safe path from S to G."
        moves = row["original_final_answer"]
        assert run_path(grid, moves)
        thought, latent, answer = row["sequence_plan"]
        assert thought == {"type": "text", "content": "I picture the path."}
        assert answer == {"type": "text", "content": f"\\boxed{{{moves}}}"}
        assert latent["type"] == "latent"
        cell, walked = "".join(grid).index("S"), ["".join(grid).index("S")]
        for move in moves:
            cell += MOVES[move][0] * len(grid) + MOVES[move][1]
            walked.append(cell)
        assert latent["target_cells"] == walked
        for name, picture in (
            (row["image_input"], draw_maze(grid)),
            (latent["helper_image"], draw_maze_solution(grid, moves)),
        ):
            with Image.open(tmp_path / "out" / name) as written:
                assert written.mode == "RGB"
                assert written.tobytes() == picture.tobytes()
    assert len(list((tmp_path / "out/images").iterdir())) == 2 * 18


def test_trails_are_written_in_the_released_form(tmp_path: Path) -> None:
    assert make("trail", tmp_path / "out") == 0
    for split in ("train", "test"):
        for row in rows_of(tmp_path / f"out/{split}.jsonl"):
            cells = follow(row["trail"])
            assert is_test_split(row["trail"]) == (split == "test")
            assert row["text_input"] == "Where does the trail end?"
            end_row, end_column = cells[-1]
            assert row["original_final_answer"] == "abcdef"[end_column] + str(end_row + 1)
            thought, latent, answer = row["sequence_plan"]
            assert thought["content"] == "I follow the arrows."
            assert answer["content"] == f"\\boxed{{{row['original_final_answer']}}}"
            assert latent["target_cells"] == [line * len(row["trail"]) + column for line, column in cells]
            with Image.open(tmp_path / "out" / row["image_input"]) as written:
                assert written.tobytes() == draw_trail(row["trail"]).tobytes()
            with Image.open(tmp_path / "out" / latent["helper_image"]) as written:
                assert written.tobytes() == draw_solution(row["trail"]).tobytes()


@pytest.mark.parametrize("task", ["maze", "trail"])
def test_what_is_written_can_be_read(task: str, tmp_path: Path) -> None:
    make(task, tmp_path / "out")
    samples = read_samples(tmp_path / "out/train.jsonl")
    assert len(samples) == 12
    assert {sample.group for sample in samples} == {"3x3", "4x4"}
    assert all(sample.steps[1].target_cells for sample in samples)  # type: ignore[union-attr]
    assert all((sample.map_desc is not None) == (task == "maze") for sample in samples)


@pytest.mark.parametrize("task", ["maze", "trail"])
def test_a_seed_repeats_and_another_differs(task: str, tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        make(task, tmp_path / name, "--seed", seed)
    written = {
        name: {file.relative_to(tmp_path / name): file.read_bytes() for file in (tmp_path / name).rglob("*.*")}
        for name in "abc"
    }
    assert written["a"] == written["b"]
    assert written["a"] != written["c"]


def test_the_summary_says_what_could_not_be_balanced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "maze", "--out", str(tmp_path / "out"), "--train", "0", "--sizes", "3"]
    assert main([*command, "--test", "1000"]) == 0
    told = capsys.readouterr().out
    assert "3x3    408 samples; of path length  2: 243, 3: 125*, 4: 35*, 5: 5*" in told
    assert "* fewer than the even share: all that were found" in told
    assert "only 408 of 1000 were found" in told
    assert not (tmp_path / "out/train.jsonl").exists()


def test_lengths_by_lot_are_those_of_the_maze_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "maze", "--out", str(tmp_path / "out"), "--train", "0", "--sizes", "3-4", "--lengths", "drawn"]
    assert main([*command, "--test", "840"]) == 0
    told = capsys.readouterr().out
    assert "3x3    408 samples" in told
    assert "4x4    432 samples" in told
    assert "not balanced: of 3x3 all 408 that were found are taken" in told
    assert "*" not in told


@pytest.mark.parametrize("state", ["a file", "a full folder"])
def test_what_is_there_is_not_written_over(state: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "out" if state == "a file" else tmp_path / "out/kept"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine")
    assert make("maze", tmp_path / "out") == 1
    assert "is there and not an empty folder; name a new one" in capsys.readouterr().err
    assert kept.read_text() == "mine"


def test_an_empty_folder_is_filled_and_missing_parents_are_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert make("trail", tmp_path / "empty") == 0
    assert (tmp_path / "empty/train.jsonl").exists()
    assert make("trail", tmp_path / "a/b/c") == 0
    assert (tmp_path / "a/b/c/test.jsonl").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_folder_is_whole_or_not_there(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = []

    def fail_at_the_second_split(folder: Path, split: str, samples: Any) -> None:
        written.append(split)
        (folder / f"{split}.jsonl").write_text("{}")
        if split == "test":
            raise error

    monkeypatch.setattr(dataset_folder, "write_split", fail_at_the_second_split)
    assert make("trail", tmp_path / "out") == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert written == ["train", "test"]
    assert list(tmp_path.iterdir()) == []
    if isinstance(error, OSError):
        assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--sizes", "2-4"], "within 3 to 6, not '2-4'"),
        (["--sizes", "5-4"], "within 3 to 6"),
        (["--sizes", "3,,4"], "within 3 to 6"),
        (["--sizes", "x"], "within 3 to 6"),
        (["--sizes", "3-7"], "within 3 to 6"),
        (["--train", "-1"], "--train and --test must be numbers of samples"),
        (["--train", "0", "--test", "0"], "not both 0"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make("maze", tmp_path / "out", *arguments) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("ilvr data: ")
    assert told in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_sizes_may_be_a_range_a_list_or_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, (sizes, groups) in enumerate((("3-5", {3, 4, 5}), ("6,3", {3, 6}), ("4", {4}), ("3,5-6", {3, 5, 6}))):
        assert make("trail", tmp_path / str(number), "--sizes", sizes) == 0
        rows = rows_of(tmp_path / str(number) / "train.jsonl")
        assert {row["group"] for row in rows} == {f"{size}x{size}" for size in groups}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Three samples of two groups: 2x3 and 4x4 visual tokens, up to two blocks."""
    Image.new("RGB", (84, 56), "red").save(tmp_path / "a.png")
    Image.new("RGB", (112, 112), "blue").save(tmp_path / "b.png")
    latent = {"type": "latent", "helper_image": "b.png"}
    text = {"type": "text", "content": "12345"}
    rows = [
        {
            "text_input": "ab",
            "image_input": "a.png",
            "sequence_plan": [text, latent, text],
            "original_final_answer": "x",
        },
        {
            "text_input": "abcd",
            "image_input": ["a.png", "b.png"],
            "sequence_plan": [latent | {"target_cells": [15]}, {"type": "latent", "helper_image": "a.png"}],
            "original_final_answer": "x",
            "group": "two",
        },
        {"text_input": "abc", "sequence_plan": [text], "group": "two", "map_desc": [[1, 2]]},
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "data.jsonl"


def check(file: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, str], str]:
    """The exit status, the summary by its names, and all that was printed."""
    status = main(["data", "check", str(file), *more])
    told = capsys.readouterr().out
    lines = [line.strip().split("  ", 1) for line in told.splitlines()[1:]]
    return status, {line[0]: line[1].strip() for line in lines if len(line) == 2}, told


def test_check_counts_what_a_file_holds(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, summary, _ = check(good, capsys)
    assert status == 0
    assert summary == {
        "samples": "3",
        "by group": "(none): 1, two: 2",
        "pictures a sample": "0: 1, 1: 1, 2: 1",
        "blocks a sample": "0: 1, 1: 1, 2: 1",
        "helper images": "3, visual tokens 6 / 16 / 16",
        "target cells": "in 0 samples",  # one of the two blocks has them
        "map_desc": "in 1 samples",
        "answers": "1 different; most frequent x (2)",
        "without answer": "1",
        "without steps": "0",
        "question length": "2 / 3 / 4 characters",
        "said in all": "0 / 5 / 10 characters",
        "problems": "0",
    }


def test_check_lists_every_problem_and_fails(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(good)
    (good.parent / "broken.png").write_text("no picture")
    rows += [
        rows[0] | {"image_input": "c.png"},
        rows[0] | {"image_input": ["a.png", "broken.png"]},
        rows[0] | {"text_input": "<image> <image>"},
        rows[0] | {"sequence_plan": [{"type": "latent", "helper_image": "broken.png"}]},
        rows[0] | {"sequence_plan": [{"type": "latent", "helper_image": "a.png", "target_cells": [0, 6, 1]}]},
    ]
    good.write_text("\n".join(map(json.dumps, rows)) + "\n{\n")
    status, summary, told = check(good, capsys)
    assert status == 1
    assert (summary["samples"], summary["problems"]) == ("7", "6")
    problems = told.splitlines()[-6:]
    assert problems[0].startswith("  data.jsonl:4: image_input names a picture that is not there: ")
    assert problems[1].startswith("  data.jsonl:5: image_input[1]: ")
    assert problems[1].endswith("broken.png: not a picture, or of a format that is not known here")
    assert problems[2].startswith("  data.jsonl:6: text_input has 2 <image> for 1 pictures")
    assert problems[3].startswith("  data.jsonl:7: sequence_plan[0].helper_image: ")
    assert (
        problems[4] == "  data.jsonl:8: sequence_plan[0].target_cells names cell 6 of a helper image of 6 visual tokens"
    )
    assert problems[5].startswith("  data.jsonl:9: not JSON")


def test_check_lists_no_more_than_twenty_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data.jsonl").write_text("{\n" * 25)
    status, summary, told = check(tmp_path / "data.jsonl", capsys)
    assert (status, summary["problems"]) == (1, "25")
    assert told.count("not JSON") == 20
    assert told.splitlines()[-1].strip() == "and 5 more"


def test_check_finds_a_picture_that_no_processor_takes(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for width, status in ((2000, 0), (2001, 1)):
        Image.new("RGB", (width, 10)).save(good.parent / "a.png")
        assert check(good, capsys)[0] == status


def test_check_takes_pictures_from_another_folder(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = good.parent / "elsewhere"
    moved.mkdir()
    file = good.rename(moved / "data.jsonl")
    assert check(file, capsys)[0] == 1
    assert check(file, capsys, "--images", str(good.parent))[0] == 0


def test_check_writes_a_sheet(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = good.parent / "sheet.png"
    assert check(good, capsys, "--sheet", str(sheet))[0] == 0
    with Image.open(sheet) as image:
        assert image.width == MARGIN + 3 * (CARD_WIDTH + MARGIN)
        found = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
        assert {(255, 0, 0), (0, 0, 255)} <= found  # both pictures are on it


def test_a_sheet_that_cannot_be_written_or_would_be_empty_is_told(
    good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(good), "--sheet", str(good.parent / "none/sheet.png")]) == 1
    assert "No such file or directory" in capsys.readouterr().err
    good.write_text("{\n")
    assert main(["data", "check", str(good), "--sheet", str(good.parent / "sheet.png")]) == 1
    assert "there is no sample to show on the sheet" in capsys.readouterr().err


def test_check_of_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(tmp_path / "none.jsonl")]) == 1
    assert "none.jsonl: No such file or directory" in capsys.readouterr().err


def sample(group: str | None, number: int = 0, **changes: Any) -> Sample:
    fields = {
        "text_input": "What?",
        "images": (),
        "steps": (TextStep(content="x"),),
        "final_answer": "A",
        "map_desc": None,
    }
    return Sample(**(fields | {"group": group, "where": f"f.jsonl:{number}"} | changes))


def test_a_sheet_shows_all_groups_in_equal_numbers_spread_over_the_file() -> None:
    samples = [sample("a", number) for number in range(100)] + [sample("b", number) for number in range(2)]
    shown = chosen(samples, 6)
    assert Counter(one.group for one in shown) == {"a": 4, "b": 2}
    assert [one.where for one in shown if one.group == "a"] == [f"f.jsonl:{number}" for number in (0, 25, 50, 75)]
    assert chosen(samples[:3], 12) == samples[:3]
    assert chosen([sample(None)], 12) == [sample(None)]


def test_a_sheet_holds_any_sample(tmp_path: Path) -> None:
    Image.new("RGB", (5000, 10), "red").save(tmp_path / "wide.png")
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    steps = tuple(LatentStep(helper_image=tmp_path / "dot.png") for _ in range(9))
    odd = sample(
        "g" * 200,
        text_input="word " * 500 + "w" * 500 + "\x00\n\t",
        images=(tmp_path / "wide.png",) * 4,
        steps=(*steps, TextStep(content="y" * 5000)),
        final_answer="z" * 500,
    )
    image = contact_sheet([odd, sample(None, text_input="", steps=(), final_answer=None)])
    assert image.width == MARGIN + 2 * (CARD_WIDTH + MARGIN)
    assert image.height < 1000
    right_edge = image.crop(
        (MARGIN + CARD_WIDTH - 12, MARGIN + 20, MARGIN + CARD_WIDTH - 2, image.height - MARGIN - 20)
    )
    assert {colour for _, colour in right_edge.getcolors()} == {(255, 255, 255)}  # nothing runs over the card's edge


def test_wrapped_lines_keep_all_words_in_order() -> None:
    text = "one two three four five six seven eight nine ten"
    lines = wrap(text, 16, 120, 20)
    assert len(lines) > 2
    assert " ".join(lines) == text
    assert wrap(text, 16, 120, 2)[-1].endswith("…")
    assert wrap(text, 16, 120, 2)[0] == lines[0]
    assert "".join(wrap("a" * 200, 16, 120, 50)) == "a" * 200
    assert wrap("", 16, 120, 3) == [""]


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        ((84, 84), 9),  # 3x3 cells of 28 pixels
        ((168, 84), 18),
        ((100, 100), 16),  # rounds to 4 x 4
        ((28, 28), 4),  # grows to 56 x 56, the smallest picture
        ((28, 56), 6),  # grows by the square root of 2 to 40 x 80, rounded up to 56 x 84
        ((8000, 8000), 128 * 128),  # shrinks to 3584 x 3584, the largest picture: 12,845,056 pixels
    ],
)
def test_visual_tokens_as_qwen_counts_them(size: tuple[int, int], tokens: int) -> None:
    assert visual_tokens(*size) == tokens


def test_visual_tokens_are_those_of_the_image_processor() -> None:
    """Side by side with the published rule, as transformers has it."""
    smart = pytest.importorskip("transformers.models.qwen2_vl.image_processing_qwen2_vl").smart_resize
    for width in (28, 41, 56, 98, 500, 3000, 5999):
        for height in (30, 70, 84, 777, 2048, 5000):
            rows, columns = smart(height, width, factor=28, min_pixels=56 * 56, max_pixels=12_845_056)
            assert visual_tokens(width, height) == rows * columns // 28**2, (width, height)


def test_spread() -> None:
    assert (spread([]), spread([4, 4]), spread([9, 1, 5, 7])) == ("none", "4", "1 / 6 / 9")


def test_the_command_needs_no_torch() -> None:
    import subprocess
    import sys

    script = (
        "import sys, ilvr.commands.data, training.balanced, training.dataset_folder, training.data_summary, "
        "training.contact_sheet\nassert not {'torch', 'transformers', 'fastapi'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
