"""Figures worked out by hand from a handful of answers, and what is written of them."""

import json
from itertools import groupby, pairwise

import numpy as np
import pytest
from PIL import Image

from contracts.errors import InvalidRequest
from training.answer_log import Answered, Entry
from training.evaluation_report import Report, markdown, write_report
from training.evaluation_results import results_of
from training.samples import Sample

MAP = ((1, 0), (-1, 2))  # RD leads to the goal, DR through a hole


def maze(index, group):
    return Sample(
        text_input="?", images=(), steps=(), final_answer=None, map_desc=MAP, group=group, where=f"t.jsonl:{index + 1}"
    )


def entry(ablation, index, path, *, latency_s=1.0, tokens=10, latents=8, is_cut=False, whole_text=None):
    answer = Answered(
        text=f"\\boxed{{{path}}}",
        whole_text=whole_text,
        num_output_tokens=tokens,
        num_latents=latents,
        latency_s=latency_s,
        is_cut=is_cut,
    )
    return (ablation, index), Entry(ablation=ablation, index=index, answered=answer)


SAMPLES = {0: maze(0, "9x9"), 1: maze(1, "9x9"), 2: maze(2, "10x10"), 3: maze(3, "10x10"), 7: maze(7, None)}
ENTRIES = dict(
    [
        entry("on", 0, "RD", latency_s=1.0, tokens=10),
        entry("on", 1, "RD", latency_s=2.0, tokens=20),
        entry("on", 2, "DR", latency_s=3.0, tokens=30),
        entry("on", 3, "RD", latency_s=4.0, tokens=40),
        entry("on", 7, "RD", latency_s=10.0, tokens=50, is_cut=True),
        entry("off", 0, "r, d", latents=0),  # the same answer, written in another way
        entry("off", 1, "DR", latents=0),  # changed, and now wrong
        entry("off", 2, "DD", latents=0),  # changed, and wrong as before
        (("off", 3), Entry(ablation="off", index=3, error="t.jsonl:4: too long (prompt_too_long)")),
        entry("off", 7, "RD", latents=2),
        entry("off", 99, "RD"),  # of a sample that is not asked now
    ]
)


@pytest.fixture
def results():
    return results_of(SAMPLES, ENTRIES, ["on", "off"], "2026-08")


def test_accuracy_with_its_interval(results):
    on, off = results
    assert (on.ablation, on.total.num_samples, on.total.num_right, on.total.accuracy) == ("on", 5, 4, 0.8)
    # Wilson for 4 of 5: z² = 3.841459; centre (0.8 + 0.384146) / 1.768292 = 0.669655;
    # half 1.959964 · √(0.032 + 0.038415) / 1.768292 = 1.959964 · 0.265358 / 1.768292 = 0.294120
    assert on.total.interval_95 == pytest.approx((0.375535, 0.963775), abs=5e-6)
    assert (off.total.num_right, off.total.accuracy) == (2, 0.4)


def test_groups_in_natural_order_and_what_has_none_last(results):
    on, off = results
    assert list(on.groups) == ["9x9", "10x10", "other"]
    assert [figures.num_right for figures in on.groups.values()] == [2, 1, 1]
    assert [figures.num_samples for figures in off.groups.values()] == [2, 2, 1]
    assert [figures.accuracy for figures in off.groups.values()] == [0.5, 0.0, 1.0]


def test_one_group_is_not_repeated():
    samples = {0: SAMPLES[0], 1: SAMPLES[1]}
    assert results_of(samples, ENTRIES, ["on"], "2026-08")[0].groups == {}


def test_latency_tokens_and_latents(results):
    total = results[0].total
    assert (total.latency_mean_s, total.latency_p50_s, total.latency_p95_s) == (4.0, 3.0, 10.0)
    assert (total.output_tokens_mean, total.latents_mean, total.num_cut) == (30.0, 8.0, 1)
    assert results[1].total.latents_mean == 0.5  # of the four that were answered


def test_what_could_not_be_asked_is_wrong_and_counted(results):
    assert (results[1].total.num_errors, results[1].groups["10x10"].num_errors) == (1, 1)
    assert results[0].total.num_errors == 0


def test_changed_answers_are_counted_among_those_that_both_gave(results):
    on, off = results
    assert on.total.changed == 0.0
    assert off.total.changed == 0.5  # two of four
    assert off.groups["9x9"].changed == 0.5
    assert off.groups["10x10"].changed == 1.0
    assert results_of(SAMPLES, ENTRIES, ["off"], "2026-08")[0].total.changed == 0.5  # on was asked before


def test_without_latents_on_nothing_is_said_of_changes():
    entries = {key: one for key, one in ENTRIES.items() if key[0] == "off"}
    assert results_of(SAMPLES, entries, ["off"], "2026-08")[0].total.changed is None


def test_the_version_decides_which_text_is_read():
    sample = Sample(text_input="?", images=(), steps=(), final_answer="4", map_desc=None, group=None, where="t.jsonl:1")
    answer = Answered(
        text="answer: 4", whole_text="answer: 3\nanswer: 4", num_output_tokens=1, num_latents=0, latency_s=1.0
    )
    entries = {("on", 0): Entry(ablation="on", index=0, answered=answer)}
    assert results_of({0: sample}, entries, ["on"], "2026-08")[0].total.num_right == 1
    assert results_of({0: sample}, entries, ["on"], "2026-01")[0].total.num_right == 0


def test_2026_01_needs_the_prompt():
    with pytest.raises(InvalidRequest, match="--model DIR"):
        results_of(SAMPLES, ENTRIES, ["on"], "2026-01")


def test_a_missing_answer_is_told():
    entries = {key: one for key, one in ENTRIES.items() if key != ("on", 2)}
    with pytest.raises(InvalidRequest, match="1 answers are missing"):
        results_of(SAMPLES, entries, ["on"], "2026-08")


def report(results):
    run = {"model": "tiny_$x$", "data": "t.jsonl", "dtype": None, "seed": 0}
    return Report(run=run, match="2026-08", context={"command": "ilvr evaluate", "machine": "2 cores"}, results=results)


MARKDOWN = """\
Success in percent with its 95 % interval (Wilson), answers matched as in 2026-08: model tiny_$x$, data t.jsonl, seed 0.

| latents | all (5) | 9x9 (2) | 10x10 (2) | other (1) |
| --- | --- | --- | --- | --- |
| on | 80.0 (37.6–96.4) | 100.0 (34.2–100.0) | 50.0 (9.5–90.5) | 100.0 (20.7–100.0) |
| off | 40.0 (11.8–76.9) | 50.0 (9.5–90.5) | 0.0 (0.0–65.8) | 100.0 (20.7–100.0) |

| latents | answers changed from on % | latency mean s | median s | 95th percentile s | tokens | of them latents | \
cut | not asked |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| on | – | 4.000 | 3.000 | 10.000 | 30.0 | 8.0 | 1 | 0 |
| off | 50.0 | 1.000 | 1.000 | 1.000 | 10.0 | 0.5 | 0 | 1 |

- command: ilvr evaluate
- machine: 2 cores
"""


def test_markdown(results):
    """Intervals of few trials have a closed form: n of n is (n / (n + z²), 1), 1 of 2 is ½ ± ½ z / √(2 + z²)."""
    assert markdown(report(results)) == MARKDOWN


def test_a_group_cannot_break_the_table():
    samples = {0: maze(0, "a|b"), 1: maze(1, "c")}
    header = markdown(report(results_of(samples, ENTRIES, ["on"], "2026-08"))).splitlines()[2]
    assert header == "| latents | all (2) | a\\|b (1) | c (1) |"


def test_files(results, tmp_path):
    write_report(tmp_path, report(results))
    content = json.loads((tmp_path / "results.json").read_text())
    assert (content["format"], content["match"], content["run"]["seed"]) == ("ilvr-evaluation/1", "2026-08", 0)
    assert [one["ablation"] for one in content["results"]] == ["on", "off"]
    assert content["results"][0]["total"]["accuracy"] == 0.8
    assert content["results"][1]["groups"]["9x9"]["num_right"] == 1
    assert (tmp_path / "results.md").read_text() == MARKDOWN


def bar_heights(path, colour):
    """Pixels of a colour in the tallest column of each run of columns that have any."""
    with Image.open(path) as chart:
        pixels = np.asarray(chart.convert("RGB"))
    counts = (pixels == colour).all(axis=-1).sum(axis=0).tolist()
    return [max(run) for has_any, run in groupby(counts, key=bool) if has_any]


def test_the_chart_has_a_bar_for_each_share(results, tmp_path):
    """Blue is on: 80, 100, 50 and 100 percent. Its last run is the patch of the legend."""
    write_report(tmp_path, report(results))
    bars = [height for height in bar_heights(tmp_path / "results.png", (0x00, 0x72, 0xB2)) if height > 50]
    shares = [100 * height / max(bars) for height in bars]
    # The line of an interval may split a bar in two, so neighbours of one height are one bar.
    distinct = shares[:1] + [after for before, after in pairwise(shares) if abs(before - after) > 2]
    assert distinct == pytest.approx([80, 100, 50, 100], abs=2)


def test_a_folder_that_cannot_be_written_is_told(results, tmp_path):
    with pytest.raises(InvalidRequest, match="cannot write"):
        write_report(tmp_path / "none", report(results))
