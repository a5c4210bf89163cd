"""Question and images into prompt ids, as the checkpoint's chat template says.

User text is data: it is tokenised with special tokens off, so that a question that contains ``<|im_end|>`` or
``<|latent_start|>`` holds just these characters. Everything else is as the published code tokenises it.
"""

import json
import re
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from contracts.chat_template import read_chat_template
from contracts.errors import BadCheckpoint
from model_runner.checkpoint import Checkpoint
from model_runner.vocabulary import read_tokenizer

# Stands for the question while the template is rendered; private-use characters, which no template contains.
PLACEHOLDER = "\ue000question\ue001"


class PromptBuilder:
    """Build one per checkpoint; :meth:`build` is pure.

    Raises ``BadCheckpoint`` for a template that loses the text, and for latent ids that a text could contain.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        content = read_tokenizer(checkpoint.folder)
        spec = checkpoint.spec
        control_ids = {spec.pad_id, spec.start_id, spec.end_id, checkpoint.image_token_id}
        _check_no_text_makes(control_ids, content, checkpoint.folder)
        for token in content["added_tokens"]:
            token["special"] = token["special"] or token["id"] in control_ids
        self._special = {token["content"]: token["id"] for token in content["added_tokens"] if token["special"]}
        self._tokenizer = Tokenizer.from_str(json.dumps(content))
        self._tokenizer.encode_special_tokens = True  # that is: special tokens in a text are encoded as text
        self._template = read_chat_template(checkpoint.folder)
        self._folder = checkpoint.folder
        self._render_cache: dict[int, str] = {}
        for num_images in (0, 1):  # a template that cannot serve is told at the start, not to a request
            self._rendered(num_images)

    def build(self, question: str, *, num_images: int) -> tuple[int, ...]:
        """Prompt ids with one image token per image, images first, ready for the assistant's turn."""
        rendered = self._rendered(num_images)
        pattern = "|".join(re.escape(content) for content in sorted(self._special, key=len, reverse=True))
        ids: list[int] = []
        plain = ""
        for piece in re.split(f"({pattern})", rendered):
            if piece in self._special:
                ids += [*self._encode(plain), self._special[piece]]
                plain = ""
            else:
                plain += piece.replace(PLACEHOLDER, question)
        return (*ids, *self._encode(plain))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids if text else []
        return ids

    def _rendered(self, num_images: int) -> str:
        if num_images not in self._render_cache:
            content = [*({"type": "image"} for _ in range(num_images)), {"type": "text", "text": PLACEHOLDER}]
            rendered = _render(self._template, [{"role": "user", "content": content}])
            if rendered.count(PLACEHOLDER) != 1:
                raise BadCheckpoint(f"{self._folder}: the chat template must contain the user's text exactly once")
            self._render_cache[num_images] = rendered
        return self._render_cache[num_images]


def _check_no_text_makes(control_ids: set[int], tokenizer: dict[str, Any], folder: Path) -> None:
    added = {token["id"] for token in tokenizer["added_tokens"]}
    ordinary = control_ids.intersection(tokenizer["model"]["vocab"].values()) - added
    if ordinary:
        raise BadCheckpoint(
            f"{folder}: latent ids {sorted(ordinary)} are ordinary tokens in tokenizer.json, which any text may contain"
        )


def _render(template: str, messages: list[dict[str, Any]]) -> str:
    """As ``apply_chat_template`` of transformers renders it."""
    from transformers.utils.chat_template_utils import render_jinja_template

    result: Any = render_jinja_template([messages], chat_template=template, add_generation_prompt=True)
    return str(result[0][0])
