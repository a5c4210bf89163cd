"""The small files beside the weights: which are copied, and from which folder."""

from collections.abc import Mapping
from pathlib import Path

from contracts.errors import BadCheckpoint
from contracts.manifest import read_json

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
IMAGES = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
TEMPLATE = ("chat_template.jinja", "chat_template.json")
# Not taken from another folder: how to sample and under which licence are properties of the checkpoint itself.
OWN = ("generation_config.json", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE")


def find_side_files(source: Path, base: Path | None) -> Mapping[str, Path]:
    """Where to copy each file from. What belongs together comes from one folder: ``source``, or else ``base``.

    Raises:
        BadCheckpoint: neither has a tokenizer, an image processor or a chat template.
    """
    folders = [source] if base is None else [source, base]
    files = _first_with(folders, TOKENIZER, "tokenizer.json") | _first_with(folders, IMAGES, "preprocessor_config.json")
    templates = [_existing(folder, TEMPLATE) for folder in folders]
    files |= next((found for found in templates if found), {})
    if not (files.keys() & set(TEMPLATE) or _has_template(files.get("tokenizer_config.json"))):
        raise BadCheckpoint(
            f"{_named(folders)}: no chat template (chat_template.jinja, chat_template.json or in "
            "tokenizer_config.json); name a folder that has one with --base DIR"
        )
    return files | _existing(source, OWN)


def _first_with(folders: list[Path], names: tuple[str, ...], needed: str) -> dict[str, Path]:
    for folder in folders:
        if (folder / needed).exists():
            return _existing(folder, names)
    raise BadCheckpoint(
        f"{_named(folders)}: {needed} is missing; name the folder of the model it was trained from with --base DIR"
    )


def _existing(folder: Path, names: tuple[str, ...]) -> dict[str, Path]:
    return {name: folder / name for name in names if (folder / name).is_file()}


def _has_template(tokenizer_config: Path | None) -> bool:
    return tokenizer_config is not None and isinstance(read_json(tokenizer_config).get("chat_template"), str)


def _named(folders: list[Path]) -> str:
    return " and ".join(str(folder) for folder in folders)
