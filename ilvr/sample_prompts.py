"""The prompt of a training sample: pictures stand where its ``<image>`` placeholders stood, as in training."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contracts.errors import BadCheckpoint
from model_runner.prompt import PromptBuilder

# Stands for the n-th text while the template is rendered; private-use characters, which no template contains.
PLACEHOLDER = "\ue000{}\ue001"


class SamplePrompts(PromptBuilder):
    """As for requests, but for texts and pictures in any order. Texts are data here too: no special token in them."""

    def build_parts(self, parts: Sequence[str | Path]) -> tuple[int, ...]:
        """Prompt ids of texts and pictures (paths) in order, with one image token for each picture.

        Raises ``BadCheckpoint`` for a template that loses a text.
        """
        content: list[dict[str, str]] = []
        texts: dict[str, str] = {}
        for part in parts:
            if isinstance(part, Path):
                content.append({"type": "image"})
            else:
                name = PLACEHOLDER.format(len(texts))
                texts[name] = part
                content.append({"type": "text", "text": name})
        rendered = self._rendered_content(content)
        if any(rendered.count(name) != 1 for name in texts):
            raise BadCheckpoint(f"{self._folder}: the chat template must contain the user's text exactly once")
        special = "|".join(re.escape(token) for token in sorted(self._special, key=len, reverse=True))
        names = re.compile("|".join(map(re.escape, texts)) or "(?!)")
        ids: list[int] = []
        for piece in re.split(f"({special})", rendered):
            if piece in self._special:
                ids.append(self._special[piece])
            else:
                ids += self._encode(names.sub(lambda found: texts[found[0]], piece))
        return tuple(ids)

    def text_of(self, ids: Sequence[int]) -> str:
        """The ids as text, special tokens included: what the released evaluation of January 2026 reads."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def _rendered_content(self, content: Sequence[dict[str, str]]) -> str:
        from transformers.utils.chat_template_utils import render_jinja_template

        messages = [{"role": "user", "content": list(content)}]
        rendered: Any = render_jinja_template([messages], chat_template=self._template, add_generation_prompt=True)
        return str(rendered[0][0])
