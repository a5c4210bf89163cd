"""A cell is made once, goes on where it was stopped, and leaves one result file with every ablation."""

import fcntl
import json
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.errors import BadSettings
from training.grids import train as grid_train
from training.grids.state import GridRun
from training.paper import run as paper_run
from training.paper.cells import Cell, cells
from training.paper.report import BEGIN, END
from training.paper.report import main as report


def small(name: str) -> Cell:
    cell = next(cell for cell in cells() if cell.name == name)
    first, *rest = cell.recipe.phases
    phases = (replace(first, steps=2), *(replace(phase, steps=1) for phase in rest))
    recipe = replace(cell.recipe, phases=phases, batch_size=2, decay_steps=1, first_steps=1)
    return Cell(cell.name, recipe, cell.seed, 2)


def make(cell: Cell, states: Path, results: Path) -> None:
    states.mkdir(exist_ok=True)
    paper_run.make_trunk(cell, states)
    paper_run.make_cell(cell, states, results, per_size=2)


@pytest.mark.parametrize("name", ["trail-ordered-seed0", "trail-direct-seed0", "maze-ordered-k0-seed0"])
def test_a_cell_leaves_a_result(name: str, tmp_path: Path) -> None:
    cell = small(name)
    make(cell, tmp_path / "states", tmp_path / "results")
    result = json.loads((tmp_path / "results" / f"{name}.json").read_text())
    assert result["steps"] == cell.recipe.num_steps
    assert paper_run.is_made(cell, tmp_path / "results")
    with pytest.raises(BadSettings, match="another recipe"):
        paper_run.is_made(replace(cell, recipe=replace(cell.recipe, learning_rate=1.0)), tmp_path / "results")
    assert set(result["scores"]) == {"on", "off", "zero", "noise", "swap"}
    assert set(result["scores"]["swap"]) == {"3", "4", "5", "6", "full_block"}
    assert name in result["command"]
    assert (tmp_path / "states" / f"{name.partition('-')[0]}-trunk-seed0.pt").exists()


def test_a_cell_stopped_while_it_trains_loses_no_point_of_its_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at the worst moments: each time a state is about to be written, and right after."""
    cell = small("trail-ordered-seed0")
    make(cell, tmp_path / "whole", tmp_path / "one")
    monkeypatch.setattr(grid_train, "SAVE_EVERY_STEPS", 1)
    monkeypatch.setattr(paper_run, "CURVE_EVERY_STEPS", 1)
    save, saved = GridRun.save, []

    def stopping(self: GridRun, file: Path) -> None:
        saved.append(self.step)
        if saved.count(self.step) == 1:
            raise KeyboardInterrupt
        save(self, file)
        if saved.count(self.step) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(GridRun, "save", stopping)
    for _ in range(50):
        try:
            make(cell, tmp_path / "stopped", tmp_path / "two")
            break
        except KeyboardInterrupt:
            continue
    one, two = (json.loads((tmp_path / name / f"{cell.name}.json").read_text()) for name in ("one", "two"))
    assert one["scores"] == two["scores"]
    assert [entry["step"] for entry in two["curve"]] == list(range(3, cell.recipe.num_steps + 1))


def test_a_stopped_cell_goes_on_to_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = small("trail-ordered-seed0")
    make(cell, tmp_path / "whole", tmp_path / "one")
    evaluate = paper_run.evaluate
    monkeypatch.setattr(paper_run, "evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make(cell, tmp_path / "stopped", tmp_path / "two")
    assert not list((tmp_path / "two").iterdir())
    monkeypatch.setattr(paper_run, "evaluate", evaluate)
    monkeypatch.setattr(paper_run, "train", _no_step(paper_run.train))
    make(cell, tmp_path / "stopped", tmp_path / "two")
    one, two = (json.loads((tmp_path / name / f"{cell.name}.json").read_text()) for name in ("one", "two"))
    assert one["scores"] == two["scores"]
    assert [entry["loss"] for entry in one["curve"]] == [entry["loss"] for entry in two["curve"]]


def _no_step(train):
    """A run that is finished trains no more."""

    def checked(recipe, seed, report, **more):
        run = train(recipe, seed, lambda progress: pytest.fail("it trained again"), **more)
        return run

    return checked


def test_main_leaves_what_is_done_and_what_another_works_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []
    three = [small(f"trail-direct-seed{seed}") for seed in (0, 1, 2)]
    monkeypatch.setattr(paper_run, "cells", lambda: three)
    monkeypatch.setattr(paper_run, "make_trunk", lambda *_: None)
    monkeypatch.setattr(paper_run, "make_cell", lambda cell, *_: made.append(cell.name))
    states, results = tmp_path / "states", tmp_path / "results"
    results.mkdir()
    (results / "trail-direct-seed0.json").write_text(json.dumps({"recipe": paper_run.recipe_as_json(three[0])}))
    arguments = ["--states", str(states), "--results", str(results)]
    states.mkdir()
    with (states / "trail-direct-seed1.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        paper_run.main(arguments)
    assert made == ["trail-direct-seed2"]
    assert "trail-direct-seed1: another process makes it" in capsys.readouterr().err
    # A lock whose process has ended, however it ended, stops nobody.
    paper_run.main(arguments)
    assert made == ["trail-direct-seed2", "trail-direct-seed1", "trail-direct-seed2"]


def test_the_report_fills_the_page_and_counts_what_is_missing(tmp_path: Path) -> None:
    results, paper = tmp_path / "results", tmp_path / "PAPER.md"
    results.mkdir()
    by_name = {cell.name: cell for cell in cells()}
    for seed, success in ((0, 90.0), (1, 94.0)):
        scores = {"3": success, "4": success, "5": success, "6": success, "full_block": 100.0}
        entry = {"step": 10, "cpu_s": 5.0, "success": {"5": success}}
        content = {
            "scores": dict.fromkeys(("on", "off", "zero", "noise", "swap"), scores),
            "recipe": paper_run.recipe_as_json(by_name[f"trail-ordered-seed{seed}"]),
            "cpu_s": 10.0,
            "latent_size": 8,
            "curve": [entry],
        }
        (results / f"trail-ordered-seed{seed}.json").write_text(json.dumps(content))
    paper.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert report(["--results", str(results), "--paper", str(paper)]) == 0
    text = paper.read_text()
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "old" not in text
    assert f"2 of {len(cells())} cells" in text
    assert "trail-direct-seed0" in text.split("Missing:")[1]
    assert "92.0 ± 2.8" in text  # mean and sample standard deviation of 90 and 94
    assert (tmp_path / "curves" / "trail.png").stat().st_size > 1000


def test_phases_of_the_small_cells_are_those_of_the_real_ones() -> None:
    assert [phase.kind for phase in small("trail-ordered-seed0").recipe.phases] == [
        "direct",
        "stage1",
        "sampled",
        "sampled",
    ]
    assert [phase.kind for phase in small("maze-chain-seed0").recipe.phases] == ["direct", "chain"]
