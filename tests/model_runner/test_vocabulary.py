"""What a token stands for, compared with the tokenizer library's own decoder."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from contracts.errors import BadCheckpoint
from model_runner.vocabulary import read_vocabulary
from tests.model_runner.folders import GOLDEN, MAZE_TINY

FOLDERS = {"golden": GOLDEN / "tok", "maze-tiny": MAZE_TINY}


@pytest.mark.parametrize("name", FOLDERS)
def test_as_the_tokenizer_decodes(name: str) -> None:
    """Token by token, and in runs of ids, whose characters lie across tokens."""
    tokenizer, vocabulary = Tokenizer.from_file(str(FOLDERS[name] / "tokenizer.json")), read_vocabulary(FOLDERS[name])
    num_tokens = tokenizer.get_vocab_size(with_added_tokens=False)
    sampled = [*range(min(num_tokens, 1000)), *range(1000, num_tokens, 29)]
    for token_id in sampled:
        assert vocabulary.bytes_of(token_id).decode(errors="replace") == tokenizer.decode([token_id])
    for begin in range(0, len(sampled) - 7, 7):
        ids = sampled[begin : begin + 7]
        joined = b"".join(vocabulary.bytes_of(token_id) for token_id in ids)
        assert joined.decode(errors="replace") == tokenizer.decode(ids)


@pytest.mark.parametrize("name", FOLDERS)
def test_every_byte_is_a_token(name: str) -> None:
    vocabulary = read_vocabulary(FOLDERS[name])
    assert {bytes([byte]) for byte in range(256)} <= {vocabulary.bytes_of(token_id) for token_id in range(400)}


@pytest.mark.parametrize("name", FOLDERS)
def test_added_and_unknown_tokens_show_nothing(name: str) -> None:
    vocabulary = read_vocabulary(FOLDERS[name])
    added = json.loads((FOLDERS[name] / "tokenizer.json").read_text())["added_tokens"]
    assert len(added) >= 10
    for token_id in [*(token["id"] for token in added), 10**7, -1]:
        assert vocabulary.bytes_of(token_id) == b""


def write_tokenizer(folder: Path, **changes: object) -> None:
    tokenizer = {"model": {"type": "BPE", "vocab": {"a": 0}}, "decoder": {"type": "ByteLevel"}, "added_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | changes))


def test_a_small_one(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, model={"type": "BPE", "vocab": {"a": 0, "ĠĊ": 1, "Ã©": 2}})
    vocabulary = read_vocabulary(tmp_path)
    assert [vocabulary.bytes_of(token_id) for token_id in range(4)] == [b"a", b" \n", "é".encode(), b""]


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"type": "Unigram", "vocab": []}},
        {"decoder": {"type": "Metaspace"}},
        {"decoder": None},
        {"model": {"type": "BPE", "vocab": {"two words": 0}}},  # a space is no character of a byte-level vocabulary
    ],
    ids=["unigram", "metaspace", "no decoder", "not bytes"],
)
def test_another_kind_of_tokenizer_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    write_tokenizer(tmp_path, **changes)
    with pytest.raises(BadCheckpoint, match="byte-level BPE"):
        read_vocabulary(tmp_path)


def test_no_json(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(BadCheckpoint, match=r"tokenizer\.json cannot be read"):
        read_vocabulary(tmp_path)


@pytest.mark.parametrize(
    "content", ["{}", '{"model": null}', '{"model": {"type": "BPE"}, "decoder": {"type": "ByteLevel"}}']
)
def test_a_file_without_its_parts(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BadCheckpoint, match=r"tokenizer\.json is"):
        read_vocabulary(tmp_path)
