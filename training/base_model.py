"""The base model of a run: a Qwen2.5-VL folder, with ILVR's three tokens in tokenizer and embeddings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.utils import logging

from contracts.errors import BadCheckpoint
from contracts.manifest import LATENT_FIELDS, read_json
from training.encoding import LATENT_TOKENS, Encoder, load_encoder
from training.recipes import StageRecipe

# New rows are the mean of the old ones plus noise of this share of their spread: equal rows could not be told apart
# by a model whose embeddings are frozen, and START, END and pad would stay one token to it.
NEW_ROW_SPREAD = 0.1


@dataclass(frozen=True)
class BaseModel:
    """A base model ready for training. ``config`` is ``config.json`` as it should stand in checkpoints.

    is_tied: whether the head is the embedding. num_added_tokens: those of ILVR's tokens that the tokenizer lacked.
    num_new_rows: rows that the embeddings lacked.
    """

    folder: Path
    model: Qwen2_5_VLForConditionalGeneration
    encoder: Encoder
    config: dict[str, Any]
    is_tied: bool
    num_added_tokens: int
    num_new_rows: int


def open_base(folder: Path, recipe: StageRecipe) -> BaseModel:
    """Load a folder in float32, add tokens that are missing and resize the embeddings.

    Raises:
        BadCheckpoint: the folder is no Qwen2.5-VL checkpoint, or lacks a file.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") != "qwen2_5_vl":
        raise BadCheckpoint(f"{folder}: model_type is {config.get('model_type')!r}; the base must be a 'qwen2_5_vl'")
    encoder = load_encoder(folder, recipe.latent_size)
    num_added = add_latent_tokens(encoder)
    model = _load(folder, recipe.attention)
    num_new_rows = resize_vocabulary(model, encoder.tokenizer.get_vocab_size(), recipe.cut_vocabulary, recipe.seed)
    ids = [encoder.id_of(token) for token in LATENT_TOKENS]
    config |= dict(zip(LATENT_FIELDS, [*ids, recipe.latent_size], strict=True))
    config["stage"] = recipe.stage
    text = config.get("text_config")
    sections = [config, text] if isinstance(text, dict) else [config]
    for section in sections:
        if "vocab_size" in section or section is sections[-1]:
            section["vocab_size"] = len(_row_weights(model)["embedding"])
    is_tied = len(_row_weights(model)) == 1
    return BaseModel(folder, model, encoder, config, is_tied, num_added, num_new_rows)


def _load(folder: Path, attention: str) -> Qwen2_5_VLForConditionalGeneration:
    untyped: Any = logging
    model_class: Any = Qwen2_5_VLForConditionalGeneration  # its annotation does not know of loading info
    untyped.disable_progress_bar()  # a bar of its own would break the one of the run
    try:
        model, found = model_class.from_pretrained(
            folder, dtype=torch.float32, attn_implementation=attention, output_loading_info=True
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:  # each for some kind of bad folder
        raise BadCheckpoint(f"{folder} cannot be loaded: {' '.join(str(error).split())}") from error
    finally:
        untyped.enable_progress_bar()
    missing = sorted(found["missing_keys"])
    if missing:
        raise BadCheckpoint(f"{folder}: {len(missing)} tensors are missing from the weights, {missing[0]} for one")
    loaded: Qwen2_5_VLForConditionalGeneration = model
    return loaded


def add_latent_tokens(encoder: Encoder) -> int:
    """Add those of ILVR's tokens that the tokenizer lacks, at its end and in the released order; how many they were."""
    missing = [token for token in LATENT_TOKENS if encoder.tokenizer.token_to_id(token) is None]
    added: int = encoder.tokenizer.add_special_tokens(
        [AddedToken(one, special=True, normalized=False) for one in missing]
    )
    return added


@torch.no_grad()
def resize_vocabulary(model: Qwen2_5_VLForConditionalGeneration, num_tokens: int, cut: bool, seed: int) -> int:
    """Make a row for each token; the number of rows that the base had not.

    A row that the base has keeps its value, as in the released code: Qwen2.5-VL-7B has 152,064 rows for 151,665 tokens,
    so that ILVR's tokens take over rows that were never used. Other rows begin as the mean of the old rows, plus a
    little seeded noise. ``cut`` drops rows beyond the last token.
    """
    old_rows = len(_row_weights(model)["embedding"])
    if not (num_tokens > old_rows or (cut and num_tokens < old_rows)):
        return 0
    means = {name: _row_statistics(weight, old_rows) for name, weight in _row_weights(model).items()}
    model.resize_token_embeddings(num_tokens, mean_resizing=False)
    num_new = max(0, num_tokens - old_rows)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in _row_weights(model).items():
        if num_new and weight.device.type != "meta":
            mean_H, spread_H = means[name]
            noise_RH = torch.randn(num_new, weight.shape[1], generator=generator)
            weight[old_rows:] = mean_H + NEW_ROW_SPREAD * spread_H * noise_RH.to(weight)
    return num_new


def _row_weights(model: Qwen2_5_VLForConditionalGeneration) -> dict[str, nn.Parameter]:
    """The matrices with a row for each token: one if they are tied."""
    embedding: Any = model.get_input_embeddings().weight
    head: nn.Parameter = model.lm_head.weight
    return {"embedding": embedding} if head is embedding else {"embedding": embedding, "head": head}


def _row_statistics(weight: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    return weight[:num_rows].mean(0), weight[:num_rows].std(0)
