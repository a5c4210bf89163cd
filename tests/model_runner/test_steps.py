"""Ids into steps: by hand, against a slow oracle, and on the recorded answers of the published code."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from contracts.manifest import LatentSpec
from model_runner.steps import BlockEnded, PadsAdded, Started, StepMachine, TextAdded, TextEnded, Update
from model_runner.vocabulary import Vocabulary, read_vocabulary
from tests.model_runner.folders import GOLDEN, MAZE_TINY
from tests.model_runner.simulator import END, EOS, PAD, START, make_spec, read_all

# A vocabulary of one byte per id from 100 on, so that a text can be cut anywhere.
BYTES = Vocabulary({100 + byte: bytes([byte]) for byte in range(256)})
K = 3


def text(content: str | bytes) -> list[int]:
    data = content.encode() if isinstance(content, str) else content
    return [100 + byte for byte in data]


def run(ids: Sequence[int], *, feeds: Sequence[int] = (), stop: Sequence[str] = ()) -> tuple[list[Update], StepMachine]:
    """All updates; ``feeds``: where the ids are cut."""
    machine = StepMachine(make_spec(K), BYTES, stop)
    cuts = [0, *sorted(feeds), len(ids)]
    updates = [update for begin, end in pairwise(cuts) for update in machine.feed(ids[begin:end])]
    return updates + machine.finish(), machine


def steps_of(updates: Sequence[Update]) -> list[tuple[Any, ...]]:
    """The finished steps, and on the way the grammar of updates: a step starts, grows, ends, and only then the next."""
    steps: list[tuple[Any, ...]] = []
    open_type, shown, size = None, "", 0
    for update in updates:
        assert update.index == len(steps)
        match update:
            case Started():
                assert open_type is None
                open_type, shown, size = update.step_type, "", 0
            case TextAdded():
                assert open_type == "text"
                assert update.text
                shown += update.text
            case PadsAdded():
                assert open_type == "latent"
                assert update.size > size
                size = update.size
            case TextEnded():
                assert (open_type, update.text) == ("text", shown)
                open_type = None
                steps.append(("text", shown))
            case BlockEnded():
                assert (open_type, update.size) == ("latent", size)
                open_type = None
                steps.append(("latent", size, update.exit))
    assert open_type is None
    return steps


def steps(ids: Sequence[int], **kwargs: Any) -> list[tuple[Any, ...]]:
    return steps_of(run(ids, **kwargs)[0])


def block(num_pads: int) -> list[int]:
    return [START, *[PAD] * num_pads]


class TestExits:
    def test_full(self) -> None:
        assert steps([*text("a"), *block(K), END, *text("b")]) == [("text", "a"), ("latent", 3, "full"), ("text", "b")]

    def test_early(self) -> None:
        assert steps([*block(2), END, *text("b")]) == [("latent", 2, "early"), ("text", "b")]

    def test_early_right_after_start(self) -> None:
        assert steps([START, END, *text("b")]) == [("latent", 0, "early"), ("text", "b")]

    def test_restart(self) -> None:
        assert steps([*block(2), *block(K), END]) == [("latent", 2, "restart"), ("latent", 3, "full")]

    def test_a_start_right_after_start_is_a_step_of_size_0(self) -> None:
        assert steps([START, *block(1), END]) == [("latent", 0, "restart"), ("latent", 1, "early")]

    def test_a_start_instead_of_the_forced_end_is_a_restart(self) -> None:
        assert steps([*block(K), *block(1), END]) == [("latent", 3, "restart"), ("latent", 1, "early")]

    @pytest.mark.parametrize("num_pads", [0, 1, 2])
    def test_cut(self, num_pads: int) -> None:
        assert steps([*text("a"), *block(num_pads)]) == [("text", "a"), ("latent", num_pads, "cut")]

    def test_cut_after_k_pads_is_full(self) -> None:
        """All latents were there; only END, which is no latent, is missing."""
        assert steps(block(K)) == [("latent", 3, "full")]

    def test_a_pad_beyond_k_is_no_latent(self) -> None:
        """No engine of ours emits it: END or START is forced there. It closes the block, as for the model."""
        updates, machine = run([*block(K), PAD, PAD, END, *text("b")])
        assert steps_of(updates) == [("latent", 3, "full"), ("text", "b")]
        assert machine.num_latent_steps == 3

    def test_counts(self) -> None:
        _, machine = run([*block(2), *block(K), END, PAD, *text("a"), *block(0)])
        assert (machine.num_latent_steps, machine.num_latent_blocks) == (5, 3)


class TestText:
    def test_stray_markers_are_dropped_and_the_text_around_them_is_one_step(self) -> None:
        assert steps([*text("a"), PAD, *text("b"), END, END, *text("c")]) == [("text", "abc")]

    def test_other_special_tokens_show_nothing(self) -> None:
        assert steps([*text("a"), EOS]) == [("text", "a")]

    def test_empty_texts_are_no_steps(self) -> None:
        assert steps([]) == []
        assert steps([PAD, END, EOS]) == []
        assert steps([PAD, *block(1), END, END, PAD, *block(1), END, EOS]) == [("latent", 1, "early")] * 2

    def test_text_is_verbatim(self) -> None:
        assert steps(text(" \n a\t\x00 ")) == [("text", " \n a\t\x00 ")]

    def test_each_token_is_shown_at_once(self) -> None:
        updates, _ = run(text("ab"), feeds=[1])
        assert updates == [Started(0, "text"), TextAdded(0, "a"), TextAdded(0, "b"), TextEnded(0, "ab")]

    def test_pads_of_one_feed_are_one_update(self) -> None:
        updates, _ = run([*block(K), END], feeds=[3])
        assert updates == [Started(0, "latent"), PadsAdded(0, 2), PadsAdded(0, 3), BlockEnded(0, 3, "full")]


class TestCharacters:
    def test_half_a_character_is_never_shown(self) -> None:
        updates, _ = run(text("x€🙂"), feeds=[2, 3, 5, 6, 7])
        assert [update.text for update in updates if isinstance(update, TextAdded)] == ["x", "€", "🙂"]

    def test_a_character_does_not_mind_stray_markers(self) -> None:
        euro = text("€")
        assert steps([euro[0], PAD, euro[1], END, EOS, euro[2]], feeds=[1, 2, 4]) == [("text", "€")]

    def test_half_a_character_at_the_end_of_a_text_is_a_replacement(self) -> None:
        euro = text("€")
        assert steps([*text("a"), *euro[:2]]) == [("text", "a\ufffd")]
        assert steps([*euro[:2], *block(1), END, euro[2]]) == [
            ("text", "\ufffd"),
            ("latent", 1, "early"),
            ("text", "\ufffd"),
        ]

    def test_bytes_that_are_no_text(self) -> None:
        assert steps(text(b"a\xffb")) == [("text", "a\ufffdb")]


class TestStop:
    def test_the_text_ends_before_the_stop_string(self) -> None:
        updates, machine = run([*text("one. two"), *block(1), END], feeds=[2, 3, 4], stop=[". "])
        assert steps_of(updates) == [("text", "one")]
        assert machine.is_stopped

    def test_nothing_of_a_stop_string_is_shown_on_the_way(self) -> None:
        updates, _ = run(text("aEND"), feeds=[1, 2, 3, 4], stop=["END"])
        assert [update.text for update in updates if isinstance(update, TextAdded)] == ["a"]

    def test_what_only_began_like_one_is_shown_in_the_end(self) -> None:
        assert steps([*text("aEN"), *block(1), END, *text("D")], stop=["END"]) == [
            ("text", "aEN"),
            ("latent", 1, "early"),
            ("text", "D"),
        ]

    def test_a_stop_string_at_once_leaves_no_step(self) -> None:
        updates, machine = run(text("END"), feeds=[1], stop=["END"])
        assert updates == []
        assert machine.is_stopped

    def test_nothing_begins_after_the_end(self) -> None:
        """The stop string appears only when the text is closed: half a character becomes U+FFFD."""
        updates, machine = run([*text("a"), text("€")[0], *block(1), END], stop=["\ufffd"])
        assert machine.is_stopped
        assert steps_of(updates) == [("text", "a")]

    @given(content=st.text("ab", max_size=12), stop=st.lists(st.text("ab", min_size=1, max_size=3), max_size=2))
    def test_cut_where_the_first_stop_string_begins(self, content: str, stop: list[str]) -> None:
        """The first to be complete ends it; of those complete at one character, the longest."""
        shown = content
        for end in range(len(content) + 1):
            begins = [end - len(one) for one in stop if content[:end].endswith(one)]
            if begins:
                shown = content[: min(begins)]
                break
        for feeds in ([], range(len(content))):
            assert "".join(step[1] for step in steps(text(content), feeds=feeds, stop=stop)) == shown


def oracle(ids: Sequence[int], spec: LatentSpec, vocabulary: Vocabulary) -> list[tuple[Any, ...]]:
    """The steps of a finished answer, all ids in view."""
    found: list[tuple[Any, ...]] = []
    data, is_open, size = b"", False, 0
    is_latent = [latent for latent, _ in read_all(_renamed(ids, spec), spec.size)]
    for at, token in enumerate([*ids, None]):
        if is_open:
            if token is not None and is_latent[at]:
                size += 1
                continue
            unfinished = "full" if size == spec.size else "cut" if token is None else "early"
            found.append(("latent", size, "restart" if token == spec.start_id else unfinished))
            is_open = False
        if token is None or token == spec.start_id:
            if data:
                found.append(("text", data.decode(errors="replace")))
            data, is_open, size = b"", token is not None, 0
        elif token not in (spec.pad_id, spec.end_id):
            data += vocabulary.bytes_of(token)
    return found


def _renamed(ids: Sequence[int], spec: LatentSpec) -> list[int]:
    """Into the ids of the simulator."""
    names = {spec.pad_id: PAD, spec.start_id: START, spec.end_id: END}
    return [names.get(token, EOS) for token in ids]


_tokens = st.sampled_from([PAD, PAD, PAD, START, END, EOS, *text("a€🙂"), 100 + 0xFF])


@settings(max_examples=300)
@given(ids=st.lists(_tokens, max_size=30), data=st.data())
def test_any_split_gives_the_steps_of_the_oracle(ids: list[int], data: st.DataObject) -> None:
    feeds = data.draw(st.lists(st.integers(0, len(ids)), max_size=6))
    updates, machine = run(ids, feeds=feeds)
    found = steps_of(updates)
    assert found == oracle(ids, make_spec(K), BYTES)
    assert found == steps(ids)
    sizes = [step[1] for step in found if step[0] == "latent"]
    assert (machine.num_latent_steps, machine.num_latent_blocks) == (sum(sizes), len(sizes))
    assert sum(sizes) == sum(is_latent for is_latent, _ in read_all(ids, K))


TOKENIZERS = {
    "golden": (GOLDEN / "tok", LatentSpec(pad_id=151665, start_id=151666, end_id=151667, size=8, rule="learned")),
    "maze-tiny": (MAZE_TINY, LatentSpec(pad_id=381, start_id=382, end_id=383, size=8, rule="fixed")),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_with_real_tokenizers(name: str) -> None:
    """Texts come back whole however their ids are cut and whatever stands between them; specials never show."""
    folder, spec = TOKENIZERS[name]
    tokenizer, vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")), read_vocabulary(folder)
    added = {int(token_id): str(token) for token_id, token in tokenizer.get_added_tokens_decoder().items()}
    assert {spec.pad_id, spec.start_id, spec.end_id} <= added.keys()
    fillers = [token_id for token_id in added if token_id != spec.start_id]

    @settings(max_examples=60, deadline=None)
    @given(contents=st.lists(st.text(max_size=12), max_size=4), data=st.data())
    def check(contents: list[str], data: st.DataObject) -> None:
        ids: list[int] = []
        expected: list[tuple[Any, ...]] = []
        for content in contents:
            tokenizer.normalizer = None  # so that the text comes back as it is
            tokenizer.encode_special_tokens = True
            for token_id in tokenizer.encode(content, add_special_tokens=False).ids:
                ids += [token_id, *data.draw(st.lists(st.sampled_from(fillers), max_size=1))]
            num_pads = data.draw(st.integers(0, spec.size))
            ids += [spec.start_id, *[spec.pad_id] * num_pads, spec.end_id]
            expected += [("text", content)] if content else []
            expected += [("latent", num_pads, "full" if num_pads == spec.size else "early")]
        machine = StepMachine(spec, vocabulary)
        updates = [update for token_id in ids for update in machine.feed([token_id])] + machine.finish()
        assert steps_of(updates) == expected

    check()


@pytest.mark.parametrize("name", ["b", "c"])
def test_recorded_answers_give_the_recorded_blocks(name: str, golden_vocabulary: Vocabulary) -> None:
    exits = {"forced": "full", "natural": "early", "restarted_by_latent_start": "restart", "max_new_tokens": "cut"}
    spec = TOKENIZERS["golden"][1]
    specials = json.loads((GOLDEN / "tok" / "added_tokens.json").read_text())
    for prompt in json.loads((GOLDEN / f"generate-{name}.json").read_text())["prompts"]:
        machine = StepMachine(spec, golden_vocabulary)
        found = steps_of([*machine.feed(prompt["output_ids"]), *machine.finish()])
        recorded = [("latent", block["n_pads"], exits[block["end"]]) for block in prompt["blocks"]]
        assert [step for step in found if step[0] == "latent"] == recorded
        assert machine.num_latent_steps == sum(block["n_pads"] for block in prompt["blocks"])
        plain = prompt["output_text"]
        for special in specials:
            plain = plain.replace(special, "")
        assert "".join(step[1] for step in found if step[0] == "text") == plain
