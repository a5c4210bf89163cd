"""A sample of the released data format as the model sees it: chat layout, image tokens, latent blocks, labels.

The text is made as the released code makes it (``collate_fn_stage1``): by the checkpoint's chat template, with special
tokens of the sample's own text taken as such, each helper image as a block of K pads, and labels on all that follows
``<|im_start|>assistant`` but the pads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils.chat_template_utils import render_jinja_template

from contracts.chat_template import read_chat_template
from contracts.errors import BadCheckpoint, InvalidRequest
from training.batch import IGNORED_LABEL, Block, Encoded, PixelImages
from training.positions import mrope_positions
from training.sample_pictures import load_pictures
from training.samples import IMAGE_PLACEHOLDER, LatentStep, Sample, question_parts

IMAGE_MARKUP = "<|vision_start|><|image_pad|><|vision_end|>"
LATENT_TOKENS = ("<|latent_pad|>", "<|latent_start|>", "<|latent_end|>")
VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>")


@dataclass(frozen=True)
class Encoder:
    """Encodes for one checkpoint folder and K. Build it with ``load_encoder``."""

    tokenizer: Tokenizer
    template: str
    processor: Qwen2VLImageProcessorPil
    latent_size: int

    @cached_property
    def header(self) -> list[int]:
        """Ids of ``<|im_start|>assistant``."""
        return self._ids("<|im_start|>assistant")

    @cached_property
    def image_token_id(self) -> int:
        return self.id_of("<|image_pad|>")

    @cached_property
    def no_text_ids(self) -> frozenset[int]:
        """Ids that are no text for the selection: latent, vision and image tokens."""
        return frozenset(map(self.id_of, (*LATENT_TOKENS, *VISION_TOKENS)))

    @cached_property
    def padding_id(self) -> int:
        return self.id_of("<|endoftext|>")

    def id_of(self, token: str) -> int:
        """Raises ``BadCheckpoint`` if the tokenizer has no such token."""
        token_id = self.tokenizer.token_to_id(token)
        if token_id is None:
            raise BadCheckpoint(f"the tokenizer has no {token}; add ILVR's three tokens first")
        return int(token_id)

    def encode(self, sample: Sample, *, with_helpers: bool = True) -> Encoded:
        """``with_helpers=False`` opens no helper image, for where no teacher looks at them.

        Raises ``InvalidRequest`` for a sample that cannot be encoded, naming file and line.
        """
        images = self._pixels(sample.images, sample.where)
        latents = [step for step in sample.steps if isinstance(step, LatentStep)]
        helpers = self._pixels([step.helper_image for step in latents] if with_helpers else [], sample.where)
        ids = self._expanded(self._ids(self.text(sample)), images, sample)
        prompt_length = _find(ids, self.header)
        labels = torch.tensor(ids)
        labels[: prompt_length + len(self.header)] = IGNORED_LABEL
        pad = self.id_of("<|latent_pad|>")
        labels[(labels == pad) | (labels == self.padding_id)] = IGNORED_LABEL
        blocks = _blocks(ids, pad, self.id_of("<|latent_start|>"), self.id_of("<|latent_end|>"))
        if self.latent_size and len(blocks) != len(latents):
            raise InvalidRequest(f"{sample.where}: the text contains a latent block of its own; take its tokens out")
        _check_cells(sample.where, latents, helpers)
        return Encoded(
            input_ids=torch.tensor(ids),
            labels=labels,
            positions_3T=mrope_positions(ids, self.image_token_id, images.token_grids if images else ()),
            prompt_length=prompt_length,
            blocks=blocks,
            images=images,
            helpers=helpers,
            target_cells=tuple(step.target_cells for step in latents),
        )

    def text(self, sample: Sample) -> str:
        """The whole conversation, one image token for each image."""
        block = LATENT_TOKENS[1] + LATENT_TOKENS[0] * self.latent_size + LATENT_TOKENS[2]
        said = "".join(block if isinstance(step, LatentStep) else step.content for step in sample.steps)
        messages = [
            {"role": "user", "content": self._asked(sample)},
            {"role": "assistant", "content": [{"type": "text", "text": said}]},
        ]
        rendered: Any = render_jinja_template([messages], chat_template=self.template)
        return str(rendered[0][0])

    def _asked(self, sample: Sample) -> list[dict[str, str]]:
        """Images before the text, or each in the place of its ``<image>``; then image markup in the text is dropped."""
        has_places = IMAGE_PLACEHOLDER in sample.text_input
        content = []
        for part in question_parts(sample):
            if isinstance(part, str):
                content.append({"type": "text", "text": part.replace(IMAGE_MARKUP, "") if has_places else part})
            else:
                content.append({"type": "image"})
        return content

    def _pixels(self, paths: Sequence[Path], where: str) -> PixelImages | None:
        if not paths:
            return None
        made = self.processor(images=load_pictures(self.processor, paths, where), return_tensors="pt")
        return PixelImages(made["pixel_values"], made["image_grid_thw"], self.processor.merge_size)

    def _expanded(self, ids: list[int], images: PixelImages | None, sample: Sample) -> list[int]:
        """Each image token as many times as its image has visual tokens."""
        counts = iter(images.num_tokens if images else ())
        expanded: list[int] = []
        for token_id in ids:
            count = next(counts, None) if token_id == self.image_token_id else 1
            if count is None:
                raise InvalidRequest(f"{sample.where}: the text contains more image tokens than there are images")
            expanded += [token_id] * count
        return expanded

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)


def load_encoder(folder: Path, latent_size: int) -> Encoder:
    """From a checkpoint folder. The image processor is PIL's, as in serving.

    Raises:
        BadCheckpoint: tokenizer, image processor or chat template is missing or damaged.
    """
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers has no class of its own for a damaged file
        raise BadCheckpoint(_cannot_load(folder / "tokenizer.json", error)) from error
    try:
        processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
    except (OSError, ValueError, TypeError, AttributeError) as error:  # missing, not JSON, or JSON of something else
        raise BadCheckpoint(_cannot_load(folder / "preprocessor_config.json", error)) from error
    return Encoder(tokenizer, read_chat_template(folder), processor, latent_size)


def _cannot_load(file: Path, error: Exception) -> str:
    what = f"cannot be loaded ({' '.join(str(error).split())})" if file.exists() else "is missing"
    return f"{file.parent}: {file.name} {what}; copy it from the base model's folder"


def _blocks(ids: list[int], pad_id: int, start_id: int, end_id: int) -> tuple[Block, ...]:
    """START, pads, END, wherever they stand."""
    found = []
    for index, token_id in enumerate(ids):
        if token_id != start_id:
            continue
        end = index + 1
        while end < len(ids) and ids[end] == pad_id:
            end += 1
        if end > index + 1 and end < len(ids) and ids[end] == end_id:
            found.append(Block(index + 1, end - index - 1))
    return tuple(found)


def _check_cells(where: str, latents: list[LatentStep], helpers: PixelImages | None) -> None:
    for step, num_tokens in zip(latents, helpers.num_tokens if helpers else (), strict=False):
        if step.target_cells and max(step.target_cells) >= num_tokens:
            raise InvalidRequest(
                f"{where}: target_cells names visual token {max(step.target_cells)}, but {step.helper_image.name} has "
                f"{num_tokens}, counted from 0"
            )


def _find(ids: list[int], pattern: list[int]) -> int:
    for index in range(len(ids) - len(pattern) + 1):
        if ids[index : index + len(pattern)] == pattern:
            return index
    raise BadCheckpoint("the chat template gives no <|im_start|>assistant")
