"""What the model card promises of the embedded model, measured as it says: through a server, on all 1,908 mazes."""

import json
from pathlib import Path

import pytest

from ilvr.cli import main
from ilvr.defaults import EMBEDDED_MODEL
from tests.servers import Server, running_server
from training.configs import RECIPES

# Successes that the checkpoint owes, in percent of 500 unseen mazes (408 at 3x3, where there are no more).
BARS = {"3x3": 99, "4x4": 99, "5x5": 96, "6x6": 86}
# Points that another maze's latents cost on 5x5 at least.
SWAP_COSTS = 30
# Of one core, that its training may have taken.
MOST_MINUTES = 30


@pytest.fixture(scope="module")
def mazes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mazes") / "data"
    assert main(["data", "maze", "--out", str(folder), "--train", "0", "--test", "1908", "--lengths", "drawn"]) == 0
    return folder / "test.jsonl"


def success(data: Path, server: Server) -> dict[str, float]:
    """In percent, of all and by size."""
    out = data.parent / server.url.rsplit(":", 1)[1]
    arguments = ["--data", str(data), "--out", str(out), "--engine", server.url, "--ablation", "on"]
    assert main(["evaluate", *arguments, "--concurrency", "32"]) == 0
    (result,) = json.loads((out / "results.json").read_text())["results"]
    assert result["total"]["num_errors"] == 0
    assert result["total"]["latents_mean"] == 8
    return {name: 100 * figures["accuracy"] for name, figures in {"all": result["total"], **result["groups"]}.items()}


@pytest.mark.timeout(900)
def test_unseen_mazes_are_solved_and_another_mazes_latents_undo_it(maze_server: Server, mazes: Path) -> None:
    own = success(mazes, maze_server)
    missed = {size: own[size] for size, bar in BARS.items() if own[size] < bar}
    assert not missed
    middle = mazes.with_name("middle.jsonl")
    rows = mazes.read_text().splitlines(keepends=True)
    middle.write_text("".join(row for row in rows if len(json.loads(row)["map_desc"]) == 5))
    with running_server("--latent-ablation", "swap") as swapping:
        swapped = success(middle, swapping)
    assert swapped["all"] <= own["5x5"] - SWAP_COSTS


def test_it_was_made_by_the_recipe_of_today_within_half_an_hour() -> None:
    made = json.loads((EMBEDDED_MODEL / "ilvr.json").read_text())["created_by"]
    assert made["command"] == "ilvr train --config maze_tiny --seed 0"
    assert made["steps"] == RECIPES[made["recipe"]]().num_steps
    assert made["minutes"] <= MOST_MINUTES
