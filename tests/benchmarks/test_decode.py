"""The arithmetic of the decode benchmark by hand-made numbers, and that its quick form runs."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.decode import report
from benchmarks.decode.__main__ import PARTS
from benchmarks.decode.checkpoint import CONFIG, ROOT, TEXT, TOWER, shapes
from benchmarks.decode.figures import Bar, PartReport, decode_intervals, interval_of_median, ratios, spread, table
from benchmarks.decode.helper_image import BLOCK, Cost
from benchmarks.decode.helper_image import rows_of as images_rows
from benchmarks.decode.models import EMBEDDED, load
from benchmarks.decode.step_profile import INSIDE, largest
from benchmarks.decode.step_profile import rows_of as profile_rows
from benchmarks.decode.step_times import Kind, report_latent, report_skipped
from benchmarks.decode.throughput import Turn, bars_of, turn_of
from benchmarks.decode.throughput import rows_of as throughput_rows


def at_least(limit: float, *values: float) -> Bar:
    return Bar(what="ours over theirs", values=list(values), limit=limit, kind="at least")


class TestFigures:
    def test_median_and_range(self) -> None:
        assert spread([3.0, 1.0, 100.0]) == "3.0 (1.0–100.0)"
        assert spread([0.25], 2) == "0.25 (0.25–0.25)"

    def test_ratios_are_taken_within_a_repetition(self) -> None:
        assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
        with pytest.raises(ValueError, match="zip"):
            ratios([1.0], [1.0, 2.0])

    def test_a_bar_is_judged_by_the_median(self) -> None:
        assert at_least(6, 1.0, 6.0, 7.0).is_met
        assert not at_least(6, 100.0, 5.99, 1.0).is_met
        assert Bar(what="", values=[1.05], limit=1.05, kind="at most").is_met
        assert not Bar(what="", values=[1.06], limit=1.05, kind="at most").is_met

    def test_a_missed_bar_says_so(self) -> None:
        assert str(at_least(6, 5.0)) == "ours over theirs: 5.00 (5.00–5.00), at least 6 was asked: MISSED"
        assert str(at_least(6, 7.0)).endswith(": met")

    def test_where_the_median_lies(self) -> None:
        """Of 6 values it is between the least and the greatest in 31 of 32 cases, of 9 between the second ones."""
        assert interval_of_median([1.0, 2.0, 3.0, 4.0, 5.0]) is None
        assert interval_of_median([6.0, 1.0, 5.0, 2.0, 4.0, 3.0]) == (1.0, 6.0)
        assert interval_of_median([*map(float, range(9))]) == (1.0, 7.0)
        close = str(at_least(6, 5.0, 5.5, 6.0, 6.5, 7.0, 8.0))
        assert close.endswith(": met, but the median is only known to lie between 5.00 and 8.00")
        assert str(at_least(6, 6.1, 6.2, 6.3, 6.4, 6.5, 6.6)).endswith(": met")

    def test_table(self) -> None:
        assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"

    def test_steps_count_where_the_whole_batch_decodes_before_and_after(self) -> None:
        """A prompt of 20 tokens for two, two decode steps, one more, and one in which one request is left."""
        steps = [(0.0, 20, 2), (5.0, 2, 2), (6.0, 2, 2), (8.0, 2, 2), (8.5, 1, 1), (9.0, 1, 1)]
        assert decode_intervals(steps, 2) == [1.0, 2.0]
        assert decode_intervals(steps, 1) == [0.5]


FOUND = {
    "counts": {"1": 4, "16": 16},
    "sequential_count": 16,
    "ours": {"1": [12.0, 8.0, 10.0], "16": [60.0, 80.0, 50.0]},
    "sequential": [10.0, 10.0, 10.0],
    "sequential_off": [9.0, 9.0, 9.0],
    "generate": [10.0, 12.0, 9.0],
    "latents": {"sequential": 0.25, "1": 0.2, "16": 0.3},
    "length": {"sequential": 32.0, "1": 32.0, "16": 31.2},
    "generated_count": 4,
}


class TestThroughput:
    def test_rows(self) -> None:
        rows = throughput_rows("0.6B", FOUND)
        assert rows[0] == ["0.6B", "sequential", "1", "16", "32", "25", "10.0 (10.0–10.0)", "1"]
        assert rows[2] == ["0.6B", "ours", "16", "16", "31", "30", "60.0 (50.0–80.0)", "6.00 (5.00–8.00)"]
        assert rows[4] == ["0.6B", "`generate()`, latents off", "1", "4", "", "0", "10.0 (9.0–12.0)", ""]

    def test_bars(self) -> None:
        speedup, generate = bars_of("0.6B", FOUND)
        assert speedup.values == [6.0, 8.0, 5.0]
        assert speedup.is_met
        assert generate.values == [0.9, 0.75, 1.0]
        assert generate.is_met
        assert [bar.limit for bar in bars_of("embedded", FOUND)] == [0.8]  # 32 at once were not measured

    def test_the_large_model_is_asked_less_often(self) -> None:
        assert turn_of("embedded", 4) == Turn(4, 16)
        assert [turn_of("0.6B", at_once).count for at_once in (1, 4, 16, 64)] == [4, 4, 16, 64]


def test_latent_steps_over_text_steps_and_without_the_head() -> None:
    found = {"text": [4.0, 5.0], "latent": [4.0, 5.5], "latent, head skipped": [3.0, 5.5]}
    latent, skipped = report_latent({"0.6B, batch 1": found}), report_skipped({"0.6B, batch 1": found})
    assert latent.bars[0].values == [1.0, 1.1]
    assert latent.bars[0].is_met  # 1.05 is asked
    assert skipped.bars[0].values == [0.75, 1.0]
    assert [row[1] for row in skipped.rows] == ["all"]  # half of one row is none
    halves = {**found, "half latent": [2.0], "half latent, head skipped": [3.0]}
    assert not report_skipped({"0.6B, batch 8": halves}).bars[1].is_met


def test_what_a_block_and_an_image_hold() -> None:
    """256 px are 9 by 9 visual tokens, and two marks."""
    costs = {BLOCK: [Cost(0.5, 0), Cost(1.0, 0)], "256": [Cost(1.0, 2**19), Cost(3.0, 2**19)]}
    model = load(EMBEDDED)
    assert (model.checkpoint.spec.size, model.kv_bytes_of_token) == (8, 4096)
    assert images_rows(model, costs) == [
        ["latent block of 8", "0.750 (0.500–1.000)", "1", "10", "0.04", "0.00", "1"],
        ["image of 256 px", "2.000 (1.000–3.000)", "2.5 (2.0–3.0)", "83", "0.32", "0.50", "21.1"],
    ]


def test_every_second_row_is_latent() -> None:
    assert [Kind("", 2, True).is_latent(row) for row in range(4)] == [True, False, True, False]
    assert not Kind("", 0, True).is_latent(0)
    assert Kind("", 1, True).is_latent(3)


def test_profile_rows_lie_in_each_other_and_leave_a_rest() -> None:
    ms = {"step": 10.0, "execute": 8.0, "forward": 6.0, "linear": 4.0, "sample": 1.0}
    ms |= {"sampler": 0.75, "block rule": 0.25}
    found = {"ms": ms, "steps": 50, "tokens_a_second": 1000.0, "front_end_cpu_ms": 2.5}
    assert profile_rows(found) == [
        ["step (50 steps, 1000 tokens/s)", "10.00", "100"],
        ["· execute", "8.00", "80.0"],
        ["· · forward", "6.00", "60.0"],
        ["· · · linear", "4.00", "40.0"],
        ["· · · *the rest of the language model*", "2.00", "20.0"],
        ["· · *inputs and the rest of the runner*", "2.00", "20.0"],
        ["· sample", "1.00", "10.0"],
        ["· · sampler", "0.75", "7.5"],
        ["· · · block rule", "0.25", "2.5"],
        ["· · · *vLLM's sampler*", "0.50", "5.0"],
        ["· · *the rest of sampling*", "0.25", "2.5"],
        ["· *engine core*", "1.00", "10.0"],
        ["front end, processor time", "2.50", ""],
    ]
    told = "linear 40 %, inputs and the rest of the runner 20 %, the rest of the language model 20 %"
    assert set(largest(found | {"ms": ms}, 3).split(", ")) == set(told.split(", "))


class TestReport:
    def part(self, *values: float) -> PartReport:
        return PartReport(
            key="a", title="(a) Throughput", text="How.", header=["x"], rows=[["1"]], bars=[at_least(6, *values)]
        )

    def test_parts_survive_the_file(self, tmp_path: Path) -> None:
        parts = {"a": self.part(5.0)}
        report.write(tmp_path, parts)
        assert report.read(tmp_path / "decode.json") == parts
        assert json.loads((tmp_path / "decode.json").read_text())["parts"]["a"]["bars"][0]["is_met"] is False

    def test_the_roof_stands_beside_the_throughput_of_the_page(self, tmp_path: Path) -> None:
        """Which may have been measured after it."""
        raw: dict[str, Any] = {"embedded": {"1": [100.0], "4": [200.0]}}
        roof = PartReport(key="roof", title="", text="", header=[], rows=[], raw=raw)
        throughput = replace(self.part(7.0), raw={"embedded": {"ours": {"1": [25.0]}}})
        report.write(tmp_path, {"a": throughput, "roof": roof})
        assert report.read(tmp_path / "decode.json")["roof"].rows == [
            ["embedded", "1", "100.0 (100.0–100.0)", "25.0 (25.0–25.0)", "25"],
            ["embedded", "4", "200.0 (200.0–200.0)", "not measured", ""],
        ]

    def test_the_page_begins_with_what_is_missed(self) -> None:
        assert "Of 1 bars 0 are met, and missed:\n\n* (a) Throughput: ours" in report.page([self.part(5.0)])
        assert "Of 1 bars 1 are met.\n" in report.page([self.part(7.0)])


def test_the_random_checkpoint_has_the_size_that_is_said() -> None:
    """Qwen2.5-0.5B has 494 M parameters with a shared head of 151,936 rows; the head of its own adds 136 M."""
    sizes = {name: _product(shape) for name, shape in shapes()}
    tower = sum(size for name, size in sizes.items() if name.startswith("visual."))
    assert sum(sizes.values()) - tower == pytest.approx(630e6, rel=0.005)
    layers = sum(size for name, size in sizes.items() if name.startswith("model.layers."))
    merger = sum(size for name, size in sizes.items() if ".merger." in name)
    assert (4 * (tower - merger) + merger) / layers == pytest.approx(0.40, abs=0.02)  # of Qwen2.5-VL-7B
    assert CONFIG["hidden_size"] == TOWER["out_hidden_size"] == 896
    assert TEXT["num_attention_heads"] * 64 == 896


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def test_quick_form_runs(tmp_path: Path) -> None:
    """Throughput of the embedded model, its tokens checked against plain transformers; bars may be missed here."""
    command = [sys.executable, "-m", "benchmarks.decode", "--quick", "--part", "a", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode in (0, 1), done.stderr
    found = report.read(tmp_path / "decode.json")["a"]
    assert len(found.raw["embedded"]["ours"]["32"]) == 1
    assert found.raw["embedded, own answers"]["latents"]["sequential"] > 0.2  # a maze is answered with a block of 8
    assert found.raw["embedded"]["length"] == {"sequential": 32, "1": 32, "32": 32}
    assert "ours over sequential at 32 concurrent" in (tmp_path / "decode.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_quick_form_of_all_parts_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.decode", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode in (0, 1), done.stderr
    found = report.read(tmp_path / "decode.json")
    assert set(found) == {*PARTS, "f"}
    assert set(found["profile"].raw["embedded"]["ms"]) == {"step", *INSIDE}
