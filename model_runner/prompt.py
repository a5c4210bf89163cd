"""Conversation, question and images into prompt ids, as the checkpoint's chat template says.

User text is data: it is tokenised with special tokens off, so that a question that contains ``<|im_end|>`` or
``<|latent_start|>`` holds just these characters. Everything else is as the published code tokenises it. An answer of
ours goes in as the ids that were generated, so a prompt begins with what the cache of its predecessor holds.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from contracts.chat_template import read_chat_template
from contracts.errors import BadCheckpoint, InvalidRequest
from contracts.jobs import Turn
from model_runner.checkpoint import Checkpoint
from model_runner.vocabulary import read_tokenizer


def _place(index: int) -> str:
    """Stands for a text while the template is rendered; private-use characters, which no template contains."""
    return f"\ue000{index}\ue001"


PLACEHOLDER = _place(0)


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
        self._spec = spec
        self._render_cache: dict[int, str] = {}
        for num_images in (0, 1):  # a template that cannot serve is told at the start, not to a request
            self._rendered_alone(num_images)

    def build(self, question: str, *, num_images: int, history: Sequence[Turn] = ()) -> tuple[int, ...]:
        """Prompt ids with one image token per image, images of a turn first, ready for the assistant's turn.

        ``num_images`` are the question's own. Raises ``InvalidRequest`` where the template renders no such history.
        """
        turns = (*history, Turn(role="user", text=question, num_images=num_images))
        rendered = self._rendered(turns) if history else self._rendered_alone(num_images)
        places = {_place(index): turn for index, turn in enumerate(turns)}
        marks = sorted((*self._special, *places), key=len, reverse=True)
        ids: list[int] = []
        plain = ""
        for piece in re.split(f"({'|'.join(map(re.escape, marks))})", rendered):
            turn = places.get(piece)
            if turn is not None and turn.token_ids is not None:
                ids += [*self._encode(plain), *self._without_end(turn.token_ids)]
                plain = ""
            elif turn is not None:
                plain += turn.text
            elif piece in self._special:
                ids += [*self._encode(plain), self._special[piece]]
                plain = ""
            else:
                plain += piece
        return (*ids, *self._encode(plain))

    def _without_end(self, token_ids: tuple[int, ...]) -> tuple[int, ...]:
        """An answer up to where the template goes on: without its end token, which the template says itself, and
        without a block in which it was cut off, which no answer of the training has."""
        spec = self._spec
        latent_ids = {spec.pad_id, spec.start_id, spec.end_id}
        if token_ids and token_ids[-1] in self._special.values() and token_ids[-1] not in latent_ids:
            return token_ids[:-1]
        last_end = max((at for at, token in enumerate(token_ids) if token == spec.end_id), default=-1)
        opened = [at for at in range(last_end + 1, len(token_ids)) if token_ids[at] == spec.start_id]
        return token_ids[: opened[0]] if opened else token_ids

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids if text else []
        return ids

    def _rendered_alone(self, num_images: int) -> str:
        """A question without a history."""
        if num_images not in self._render_cache:
            rendered = self._render((Turn(role="user", num_images=num_images),))
            if rendered.count(PLACEHOLDER) != 1:
                raise BadCheckpoint(f"{self._folder}: the chat template must contain the user's text exactly once")
            self._render_cache[num_images] = rendered
        return self._render_cache[num_images]

    def _rendered(self, turns: Sequence[Turn]) -> str:
        rendered = self._render(turns)
        places = [_place(index) for index in range(len(turns))]
        if re.findall("\ue000\\d+\ue001", rendered) != places:
            raise InvalidRequest("The checkpoint's chat template does not render a conversation of these messages.")
        return rendered

    def _render(self, turns: Sequence[Turn]) -> str:
        messages = []
        for index, turn in enumerate(turns):
            images = ({"type": "image"} for _ in range(turn.num_images))
            messages.append({"role": turn.role, "content": [*images, {"type": "text", "text": _place(index)}]})
        return _render(self._template, messages)


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
