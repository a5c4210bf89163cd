"""Where a checkpoint folder keeps its chat template; serving and training render the same one."""

from pathlib import Path

from contracts.errors import BadCheckpoint
from contracts.manifest import read_json


def read_chat_template(folder: Path) -> str:
    """From ``chat_template.jinja``, ``chat_template.json`` or ``tokenizer_config.json``, as Hugging Face keeps it.

    Raises:
        BadCheckpoint: there is none.
    """
    if (folder / "chat_template.jinja").exists():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = read_json(folder / name).get("chat_template") if (folder / name).exists() else None
        if isinstance(template, str):
            return template
    raise BadCheckpoint(
        f"{folder}: no chat template (chat_template.jinja, chat_template.json or tokenizer_config.json); copy it from "
        "the base model's folder"
    )
