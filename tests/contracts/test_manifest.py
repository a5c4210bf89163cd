"""The latent ids and K of a checkpoint folder, from its two files."""

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import BadCheckpoint
from contracts.manifest import FORMAT, LatentSpec, read_json, read_latent_spec

IDS = {"latent_token_id": 5, "latent_start_id": 6, "latent_end_id": 7, "latent_size": 8}


def write(folder: Path, config: dict[str, Any], manifest: dict[str, Any] | None = None) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    if manifest is not None:
        (folder / "ilvr.json").write_text(json.dumps({"format": "ilvr-checkpoint/1", **manifest}))
    return folder


def spec(rule: str = "learned", size: int = 8) -> LatentSpec:
    return LatentSpec(pad_id=5, start_id=6, end_id=7, size=size, rule=rule)


class TestReads:
    def test_a_published_folder_has_no_manifest_and_learned_blocks(self, tmp_path: Path) -> None:
        assert read_latent_spec(write(tmp_path, IDS)) == spec("learned")

    def test_a_manifest_alone(self, tmp_path: Path) -> None:
        assert read_latent_spec(write(tmp_path, {}, {**IDS, "latent_exit": "fixed"})) == spec("fixed")

    def test_both_files_each_a_part(self, tmp_path: Path) -> None:
        config = {**IDS, "latent_size": None}
        assert read_latent_spec(write(tmp_path, config, {"latent_size": 3, "latent_token_id": 5})) == spec(size=3)

    @pytest.mark.parametrize("stated", ["learned", "fixed"])
    @pytest.mark.parametrize("asked", ["learned", "fixed"])
    def test_the_rule_can_be_overridden(self, stated: str, asked: Any, tmp_path: Path) -> None:
        folder = write(tmp_path, IDS, {"latent_exit": stated})
        assert read_latent_spec(folder, rule=asked) == spec(asked)

    def test_k_of_1_is_the_least(self, tmp_path: Path) -> None:
        assert read_latent_spec(write(tmp_path, {**IDS, "latent_size": 1})).size == 1


def changed(**changes: Any) -> dict[str, Any]:
    return {**IDS, **changes}


@pytest.mark.parametrize(
    ("config", "manifest", "message"),
    [
        ({}, None, "latent_token_id is in neither config.json nor ilvr.json"),
        (changed(latent_start_id=None), None, "latent_start_id is in neither"),
        ({name: value for name, value in IDS.items() if name != "latent_size"}, {}, "latent_size is in neither"),
        (IDS, {"latent_end_id": 9}, "latent_end_id is 7 in config.json but 9 in ilvr.json"),
        (IDS, {"latent_size": 4}, "latent_size is 8 in config.json but 4 in ilvr.json"),
        (changed(latent_token_id=6), None, "three different ids, found 6, 6, 7"),
        (changed(latent_end_id=-1), None, "three different ids"),
        (changed(latent_size=0), None, r"latent_size \(K\) is 0"),
        (changed(latent_size=-3), None, r"latent_size \(K\) is -3"),
        (changed(latent_size="8"), None, "latent_size must be a whole number, found '8'"),
        (changed(latent_size=8.0), None, "latent_size must be a whole number, found 8.0"),
        (changed(latent_start_id=True), None, "latent_start_id must be a whole number, found True"),
        (IDS, {"latent_end_id": "7"}, "latent_end_id must be a whole number, found '7'"),
        (IDS, {"latent_exit": "sometimes"}, "latent_exit is 'sometimes'"),
        (IDS, {"latent_exit": ["fixed"]}, "latent_exit is"),
        (IDS, {"format": "ilvr-checkpoint/2"}, "format is 'ilvr-checkpoint/2', expected 'ilvr-checkpoint/1'"),
        (IDS, {"format": None}, "format is None"),
    ],
)
def test_refuses(config: dict[str, Any], manifest: dict[str, Any] | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=message):
        read_latent_spec(write(tmp_path, config, manifest))


def test_what_it_says_of_missing_ids_is_a_remedy_that_works(tmp_path: Path) -> None:
    """Its words, with the ellipses filled in, are a manifest."""
    with pytest.raises(BadCheckpoint) as caught:
        read_latent_spec(write(tmp_path, {}))
    remedy = str(caught.value)
    text = remedy[remedy.index("{") : remedy.index("}") + 1]
    for token_id in ("5", "6", "7"):
        text = text.replace("…", token_id, 1)
    (tmp_path / "ilvr.json").write_text(text)
    assert read_latent_spec(tmp_path) == spec()


class TestReadJson:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(BadCheckpoint, match=r"config\.json does not exist"):
            read_latent_spec(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"{", b"not json", b"\xff\xfe", b'{"a": "\xff"}'])
    def test_no_json(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(BadCheckpoint, match="cannot be read"):
            read_json(tmp_path / "config.json")

    @pytest.mark.parametrize("content", [b"[]", b"null", b"3"])
    def test_no_object(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(BadCheckpoint, match="holds no JSON object"):
            read_json(tmp_path / "config.json")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(BadCheckpoint, match="cannot be read"):
            read_json(tmp_path)


def test_the_format_is_the_one_that_is_written_down() -> None:
    """Folders outside this repository carry it."""
    assert FORMAT == "ilvr-checkpoint/1"
