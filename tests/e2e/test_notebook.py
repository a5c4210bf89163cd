"""The code cells of ``examples/tour.ipynb``, in order, on the embedded model."""

import json

from PIL import Image

from tests.servers import ROOT

NOTEBOOK = json.loads((ROOT / "examples" / "tour.ipynb").read_text())
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_every_cell_runs_and_shows_what_is_stored(maze_server, monkeypatch, capsys):
    monkeypatch.setenv("ILVR_URL", maze_server.url)
    shown: list[Image.Image] = []
    names = {"display": shown.append}
    for cell in CODE:
        num_shown = len(shown)
        exec(compile("".join(cell["source"]), "tour.ipynb", "exec"), names)
        stored = [output["data"] for output in cell["outputs"] if output["output_type"] == "display_data"]
        assert len(shown) - num_shown == len(stored) == sum("image/png" in data for data in stored)
        printed = "".join("".join(output.get("text", [])) for output in cell["outputs"])
        assert capsys.readouterr().out == printed
    assert len(shown) == 2
    maze, solution = shown
    assert maze.size == solution.size == (140, 140)
    assert maze.tobytes() != solution.tobytes()


def test_it_is_a_notebook_whose_outputs_belong_to_its_code():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
