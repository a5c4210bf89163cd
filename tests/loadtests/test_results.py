"""Numbers: quantiles, what several processes add up to, the tables, the page, and the verdict on them."""

import csv
import json
import subprocess
import sys

import pytest

from loadtests.check_slo import OBJECTIVES, judge, load_objectives, main
from loadtests.histogram import GROWTH, Histogram
from loadtests.profile import Profile, Stage
from loadtests.recorder import TIME_TO_ANSWER, Recorder
from loadtests.report import page
from loadtests.results import summary, write_csv
from tests.servers import ROOT

PROFILE = Profile(stages=[Stage(seconds=10, level=1)], arrivals="even")


def test_quantiles_are_exact_to_a_bucket():
    times = Histogram()
    for ms in range(1, 1001):
        times.add(ms / 1000)
    for share in (0.5, 0.9, 0.99):
        assert share <= times.quantile(share) <= share * GROWTH
    assert (times.quantile(1), times.max_s, times.count) == (1.0, 1.0, 1000)
    with pytest.raises(ValueError, match="no time"):
        Histogram().quantile(0.5)


def recorded(index=0):
    recorder = Recorder(PROFILE.window_s)
    for second in range(1, 10):
        if second % 2 == index:
            recorder.began(second, 0.001, is_repeated=second < 4)
            recorder.time(TIME_TO_ANSWER, "json", second, second / 10)
            recorder.ended("json", second, "failed" if second == 9 else "answered", "500 oops" if second == 9 else None)
    recorder.done()
    return recorder


def test_what_two_processes_sent_in_pieces_adds_up():
    whole = Recorder(PROFILE.window_s)
    for index in (0, 1):
        recorder = recorded(index)
        whole.add(json.loads(json.dumps(recorder.take())))
        whole.add(json.loads(json.dumps(recorder.take())))  # nothing since
    results = summary(PROFILE, whole)
    assert whole.num_done == 2
    assert results["load"] == {
        "num_due": 9,
        "num_begun": 9,
        "begun_share": 1.0,
        "repeated_picture_share": pytest.approx(3 / 9),
        "duration_s": 10,
    }
    assert results["requests"]["by_kind"] == {"json": {"answered": 8, "failed": 1}}
    assert results["requests"]["failed_share"] == pytest.approx(1 / 9)
    assert results["requests"]["reasons"] == {"json: 500 oops": 1}
    assert results["metrics"][TIME_TO_ANSWER]["p50_s"] == pytest.approx(0.5, rel=0.02)
    assert results["metrics"][TIME_TO_ANSWER]["by_kind"]["json"]["max_s"] == 0.9
    assert [row["begun"] for row in results["over_time"]] == [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]


def test_requests_that_were_due_and_never_made_are_missed():
    assert summary(PROFILE, recorded(0))["load"]["begun_share"] == pytest.approx(4 / 9)


def results():
    facts = {"host": "http://x", "began_at": "then", "profile": {"loop": "open"}}
    return {**facts, **summary(PROFILE, recorded(1)), "afterwards": {"responses_in_flight": 0.0}}


def test_tables_and_page_hold_the_numbers(tmp_path):
    write_csv(results(), tmp_path)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert [(row["metric"], row["kind"]) for row in rows] == [
        ("time_to_answer", "all"),
        ("time_to_answer", "json"),
        ("lateness", "all"),
    ]
    assert len(list(csv.DictReader((tmp_path / "over_time.csv").read_text().splitlines()))) == 10
    html = page(results(), judge(load_objectives(OBJECTIVES), results()))
    # What became of requests; and of each of two measures its course and its distribution.
    assert html.count("<svg") == html.count("</svg>") == 5
    for word in ("time to answer", "500 oops", "BROKEN", "MISSING", "kept"):
        assert word in html


@pytest.mark.parametrize(
    ("objectives", "status", "word"),
    [
        ('"load.begun_share" = { at_most = 1 }', 0, "kept"),
        ('"load.begun_share" = { at_least = 0.999 }', 1, "BROKEN"),
        ('"load.begun_share" = { at_least = 0.1, at_most = 0.2 }', 1, "BROKEN"),
        ('"metrics.text_gap.p99_s" = { at_most = 9 }', 1, "MISSING"),
        ('"requests.by_kind" = { at_most = 9 }', 1, "MISSING"),
        ('"load.begun_share" = { at_most = 1 }\n"no.such" = { at_least = 0 }', 1, "MISSING"),
        ("", 2, "at least one objective"),
        ('"load.begun_share" = {}', 2, "at_most or at_least"),
        ('"load.begun_share" = { atmost = 1 }', 2, "atmost"),
        ("= 3", 2, "objectives.toml"),
    ],
)
def test_the_verdict_and_its_status(objectives, status, word, tmp_path, capsys):
    (tmp_path / "results.json").write_text(json.dumps(results()))
    (tmp_path / "objectives.toml").write_text(objectives)
    assert main([str(tmp_path / "results.json"), "--objectives", str(tmp_path / "objectives.toml")]) == status
    printed = capsys.readouterr()
    assert word in printed.out + printed.err


def test_help_teaches():
    done = subprocess.run([sys.executable, "-m", "loadtests", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert "--host" in done.stdout
    assert "examples:" in done.stdout


def test_without_a_server_there_is_no_load(tmp_path):
    command = [sys.executable, "-m", "loadtests", "--host", "http://127.0.0.1:1", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Connection refused" in done.stderr
