"""Asking and keeping answers, with a model that is a function of the sample: nothing here loads an engine."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from contracts.errors import EngineDead, InvalidRequest, PromptTooLong
from training.answer_log import Ablation, Answered, AnswerLog, Entry
from training.evaluate import collect
from training.samples import Sample

RUN = {"model": "m", "seed": 0}


def sample(index: int) -> Sample:
    return Sample(
        text_input=str(index),
        images=(),
        steps=(),
        final_answer="4",
        map_desc=None,
        group=None,
        where=f"t.jsonl:{index + 1}",
    )


SAMPLES = {index: sample(index) for index in range(6)}


def answered(text: str) -> Answered:
    return Answered(text=text, whole_text=None, num_output_tokens=3, num_latents=1, latency_s=0.5)


@dataclass
class Scripted:
    """Answers with ablation and question. ``starts`` and ``asked`` are what it was told to do."""

    max_concurrency: int | None = None
    fail_at: dict[str, Exception] = field(default_factory=dict)
    starts: list[Ablation] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    num_closed: int = 0
    num_open: int = 0
    most_open: int = 0
    _ablation: Ablation = "on"

    async def start(self, ablation: Ablation) -> "Scripted":
        self.starts.append(ablation)
        self._ablation = ablation
        return self

    async def answer(self, sample: Sample) -> Answered:
        name = f"{self._ablation}-{sample.text_input}"
        self.asked.append(name)
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        await asyncio.sleep(0.001)
        self.num_open -= 1
        if name in self.fail_at:
            raise self.fail_at[name]
        return answered(name)

    async def aclose(self) -> None:
        self.num_closed += 1


async def asked(folder: Path, model: Scripted, ablations=("on", "off"), concurrency=2, samples=SAMPLES):
    with AnswerLog(folder / "answers.jsonl", RUN) as log:
        await collect(samples, ablations, model, log, concurrency=concurrency)
        return dict(log.entries)


async def test_every_sample_is_asked_under_every_ablation(tmp_path):
    model = Scripted()
    entries = await asked(tmp_path, model)
    assert model.starts == ["on", "off"]
    assert {key: entry.answered.text for key, entry in entries.items()} == {
        (ablation, index): f"{ablation}-{index}" for ablation in ("on", "off") for index in range(6)
    }
    assert model.num_closed == 1


@pytest.mark.parametrize(("concurrency", "bound", "most"), [(3, None, 3), (4, 1, 1), (2, 5, 2)])
async def test_as_many_at_once_as_asked_for_and_as_are_of_use(tmp_path, concurrency, bound, most):
    model = Scripted(max_concurrency=bound)
    await asked(tmp_path, model, concurrency=concurrency)
    assert model.most_open == most


async def test_new_entries_are_told(tmp_path):
    told = []
    with AnswerLog(tmp_path / "a.jsonl", RUN) as log:
        log.add(Entry(ablation="on", index=0, answered=answered("x")))
        await collect(SAMPLES, ["on"], Scripted(), log, concurrency=2, on_entry=told.append)
    assert sorted(entry.index for entry in told) == [1, 2, 3, 4, 5]


async def test_a_run_that_broke_off_keeps_its_answers_and_goes_on(tmp_path):
    broken = Scripted(fail_at={"off-2": EngineDead("gone")})
    with pytest.raises(EngineDead, match="gone"):
        await asked(tmp_path, broken, concurrency=1)
    assert broken.num_closed == 1
    again = Scripted()
    entries = await asked(tmp_path, again)
    assert again.starts == ["off"]  # on was complete, so nothing is loaded for it
    assert sorted(again.asked) == ["off-2", "off-3", "off-4", "off-5"]
    assert len(entries) == 12
    third = Scripted()
    await asked(tmp_path, third)
    assert third.starts == []


async def test_a_run_that_was_cancelled_goes_on(tmp_path):
    model = Scripted()
    task = asyncio.create_task(asked(tmp_path, model, ["on"], concurrency=1))
    while len(model.asked) < 3:  # noqa: ASYNC110 - the model has no event for its third question
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.num_closed == 1
    again = Scripted()
    await asked(tmp_path, again, ["on"])
    assert sorted(again.asked) == ["on-2", "on-3", "on-4", "on-5"]


async def test_more_samples_and_ablations_can_be_asked_later(tmp_path):
    await asked(tmp_path, Scripted(), ["on"], samples={index: SAMPLES[index] for index in (1, 4)})
    later = Scripted()
    await asked(tmp_path, later, ["on", "zero"])
    assert sorted(name for name in later.asked if name.startswith("on")) == ["on-0", "on-2", "on-3", "on-5"]
    assert sum(name.startswith("zero") for name in later.asked) == 6


async def test_a_sample_that_cannot_be_asked_is_kept_as_such_and_asked_again(tmp_path):
    model = Scripted(fail_at={"on-3": PromptTooLong("too long")})
    entries = await asked(tmp_path, model, ["on"])
    assert len(model.asked) == 6
    assert entries["on", 3].answered is None
    assert entries["on", 3].error == "t.jsonl:4: too long (prompt_too_long)"
    again = Scripted(fail_at={"on-3": PromptTooLong("t.jsonl:4: far too long")})
    entries = await asked(tmp_path, again, ["on"])
    assert entries["on", 3].error == "t.jsonl:4: far too long (prompt_too_long)"  # its place is named once
    again = Scripted()
    entries = await asked(tmp_path, again, ["on"])
    assert again.asked == ["on-3"]
    assert entries["on", 3].answered.text == "on-3"


def test_a_torn_last_line_is_forgotten(tmp_path):
    path = tmp_path / "a.jsonl"
    with AnswerLog(path, RUN) as log:
        for index in range(3):
            log.add(Entry(ablation="on", index=index, answered=answered("x")))
    path.write_bytes(path.read_bytes()[:-9])
    with AnswerLog(path, RUN) as log:
        assert sorted(log.entries) == [("on", 0), ("on", 1)]
        log.add(Entry(ablation="on", index=2, answered=answered("y")))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("index") for line in lines] == [None, 0, 1, 2]
    assert lines[3]["answered"]["text"] == "y"


def test_a_torn_first_line_is_begun_anew(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"format": "ilvr-ans')
    with AnswerLog(path, RUN) as log:
        assert log.entries == {}
    assert json.loads(path.read_text())["run"] == RUN


@pytest.mark.parametrize(
    ("run", "named"),
    [({"model": "n", "seed": 0}, "model 'm' there, 'n' here"), ({"model": "m", "seed": 0, "dtype": "x"}, "dtype None")],
)
def test_answers_of_another_run_are_not_mixed_in(tmp_path, run, named):
    AnswerLog(tmp_path / "a.jsonl", RUN).__exit__(None, None, None)
    with pytest.raises(InvalidRequest, match=f"another run .*{named}.*--out"):
        AnswerLog(tmp_path / "a.jsonl", run)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"text_input": "x"}\n', "no answers of an evaluation"),
        ('{"format":"other/1","run":{}}\n', "format is 'other/1'"),
        ('{"format":"ilvr-answers/1","run":{"model":"m","seed":0}}\n{"ablation":"on"}\n', "a.jsonl:2 is no answer"),
        ('{"format":"ilvr-answers/1","run":{"model":"m","seed":0}}\n{"ablation":"x","index":0}\n', "a.jsonl:2"),
    ],
)
def test_a_file_that_is_no_log_is_told_and_left_alone(tmp_path, content, named):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(InvalidRequest, match=named):
        AnswerLog(path, RUN)
    assert path.read_text() == content


def test_two_runs_do_not_write_to_one_file(tmp_path):
    with AnswerLog(tmp_path / "a.jsonl", RUN), pytest.raises(InvalidRequest, match="being written by another run"):
        AnswerLog(tmp_path / "a.jsonl", RUN)
    AnswerLog(tmp_path / "a.jsonl", RUN).__exit__(None, None, None)


def test_a_folder_that_is_none_is_told(tmp_path):
    with pytest.raises(InvalidRequest, match="cannot write"):
        AnswerLog(tmp_path / "none" / "a.jsonl", RUN)
