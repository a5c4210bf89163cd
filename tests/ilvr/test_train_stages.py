"""``ilvr train stage1|stage2`` as it is typed."""

import json
from pathlib import Path

import pytest

from ilvr.commands.train_stages import DESCRIPTION, main
from model_runner.checkpoint import read_checkpoint
from tests.training.base_folder import GOLDEN, Workplace, workplace

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    made = workplace(tmp_path_factory.mktemp("command"))
    (made.folder / "quick.toml").write_text('base = "tiny_released"\nbatch_size = 2\nepochs = 1\n')
    return made


def arguments(made: Workplace, out: str, *more: str) -> list[str]:
    given = ("--config", made.folder / "quick.toml", "--model", made.base, "--data", made.data)
    return ["stage1", *map(str, given), "--out", str(made.folder / out), "--workers", "0", *more]


def test_a_run_ends_with_how_to_serve_it(made: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(made, "out")) == 0
    last = made.folder / "out" / "checkpoints" / "step-00000002"
    assert capsys.readouterr().out == f"serve it with: ilvr serve --model {last}\n"
    read_checkpoint(last, is_cpu=True)
    created_by = json.loads((last / "ilvr.json").read_text())["created_by"]
    assert created_by["command"] == "ilvr train stage1 --config quick.toml"
    assert (created_by["base"], created_by["data"]) == ("base", "train.jsonl")
    assert len(created_by["git_commit"].rstrip("+")) == 40
    assert {"torch", "transformers", "accelerate"} <= created_by["packages"].keys()
    assert str(made.folder) not in json.dumps(created_by)
    # Once more without --resume is refused, with it there is nothing left to do.
    assert main(arguments(made, "out")) == 1
    assert "go on with --resume" in capsys.readouterr().err
    assert main(arguments(made, "out", "--resume")) == 0
    assert f"going on from {last}, step 2 of 2" in capsys.readouterr().err.replace("\n", " ").replace("  ", " ")


def test_pictures_may_lie_apart_from_the_data(made: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    """Under the same name as in ``ilvr data check`` and ``ilvr evaluate``."""
    images = GOLDEN / "images"
    data = made.folder / "relative.jsonl"
    data.write_text(made.data.read_text().replace(f"{images}/", ""))
    given = arguments(made, "apart", "--data", str(data), "--stop-after", "1")
    assert main(given) == 1
    assert "relative.jsonl:1: image_input[0] names a picture that is not there" in capsys.readouterr().err
    assert main([*given, "--images", str(images)]) == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--config", "nothing"], "no recipe 'nothing'; there is comt_7b_paper"),
        (["--model", "nowhere"], "nowhere/config.json does not exist"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl: No such file"),
        (["--stop-after", "0"], "--stop-after must be at least 1"),
        (["--workers", "-1"], "--workers must not be negative"),
        (["--dry-run", "--gpus", "0"], "--gpus must be at least 1"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    made: Workplace, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    assert main(arguments(made, "wrong", *more)) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.startswith("ilvr train: ")
    assert error.count("\n") == 1


def test_missing_arguments_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stage2", "--config", "tiny_paper", "--data", "x"]) == 1
    assert "--model and --out must be given, or --dry-run" in capsys.readouterr().err


def test_a_dry_run_needs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stage1", "--config", "comt_7b_released", "--dry-run", "--gpus", "4"]) == 0
    assert "Qwen2.5-VL-7B on 4 GPUs" in capsys.readouterr().out


def test_files_that_help_names_are_there() -> None:
    named = [word for word in DESCRIPTION.split() if word.endswith(".yaml")]
    assert named
    assert all((ROOT / name).is_file() for name in named)
