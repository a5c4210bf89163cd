"""Greedy free running on many mazes at once: what serving does, without its engine, to watch a training run.

Shape letters: B batch, H hidden size, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import DynamicCache, Qwen2_5_VLForConditionalGeneration

from contracts.mazes import QUESTION, SIZES, Maze, distinct, run_path
from training.forward import hidden_states, image_features, mrope_positions, prompt_embeddings
from training.maze_data import MazeBatches

# Thought, block and the longest safe path of a 6x6 maze fit; an answer that is longer than this is wrong anyway.
MAX_NEW_TOKENS = 48
# Other mazes than the benchmark's, up to chance overlap; at 3x3, where few exist, the watched ones are among them.
WATCH_SEED = 1

# What is fed back in a block: `on` the model's own states, `zero` zeros, `swap` the states of another maze.
# `off`: START is never chosen, so there is no block.
Latents = Literal["on", "off", "zero", "swap"]


@dataclass(frozen=True, slots=True)
class Score:
    """Share of mazes whose answer is a safe path, and share of answers with one complete latent block."""

    success: float
    full_block: float


@torch.no_grad()
def generate_ids(
    model: Qwen2_5_VLForConditionalGeneration,
    batches: MazeBatches,
    mazes: Sequence[Maze],
    latent_size: int,
    *,
    question: str = QUESTION,
    latents: Latents = "on",
) -> list[list[int]]:
    """Generated token ids of each maze, up to and without ``<|im_end|>``. All mazes of one size; `fixed` blocks.

    START opens a block of exactly ``latent_size`` pads and END; pad and END are impossible outside a block.
    """
    ids, batch = batches.ids, batches.collate(mazes, question)
    features = image_features(model, batches.pixels.table_TPX, batch.tiles_BN)
    embeddings = prompt_embeddings(model, batch.prompt_ids, features)
    num_prompt = len(batch.prompt_ids)
    positions = mrope_positions(batch.prompt_ids, ids.image_pad, MAX_NEW_TOKENS)
    cache = DynamicCache()
    # 0 outside a block, 1 after START, 1 + n after n pads: the `phase` of serving.
    phase_B = torch.zeros(len(mazes), dtype=torch.long)
    step_positions = positions[:, :num_prompt]
    generated = []
    for index in range(MAX_NEW_TOKENS):
        state_BH = hidden_states(model, embeddings, step_positions, cache)[:, -1]
        logits = model.lm_head(state_BH)
        logits[:, [ids.latent_pad, ids.latent_end]] = -torch.inf
        if latents == "off":
            logits[:, ids.latent_start] = -torch.inf
        chosen_B = logits.argmax(-1)
        in_block_B = phase_B > 0
        chosen_B[in_block_B] = ids.latent_pad
        chosen_B[phase_B == latent_size + 1] = ids.latent_end
        phase_B = torch.where(in_block_B, phase_B + 1, (chosen_B == ids.latent_start).long())
        phase_B[chosen_B == ids.latent_end] = 0
        generated.append(chosen_B)
        is_latent = (chosen_B == ids.latent_pad)[:, None]
        embedded = model.model.language_model.embed_tokens(chosen_B)
        fed_back_BH = {"zero": torch.zeros_like(state_BH), "swap": state_BH.roll(1, 0)}.get(latents, state_BH)
        embeddings = torch.where(is_latent, fed_back_BH, embedded)[:, None]
        step_positions = positions[:, num_prompt + index : num_prompt + index + 1]
    return [_until(row, ids.im_end) for row in torch.stack(generated, dim=1).tolist()]


def score(
    model: Qwen2_5_VLForConditionalGeneration,
    batches: MazeBatches,
    mazes: Sequence[Maze],
    latent_size: int,
    latents: Latents = "on",
) -> Score:
    """Success and share of full blocks on mazes of one size, under the standard question."""
    ids = batches.ids
    block = [ids.latent_start, *[ids.latent_pad] * latent_size, ids.latent_end]
    num_right = num_full = 0
    answers = generate_ids(model, batches, mazes, latent_size, latents=latents)
    for maze, answer_ids in zip(mazes, answers, strict=True):
        text = batches.tokenizer.decode(answer_ids)
        num_right += run_path(maze.rows, text.rpartition("\\boxed{")[2].partition("}")[0])
        start = answer_ids.index(ids.latent_start) if ids.latent_start in answer_ids else len(answer_ids)
        num_full += answer_ids[start : start + len(block)] == block
    return Score(num_right / len(mazes), num_full / len(mazes))


def watch(
    model: Qwen2_5_VLForConditionalGeneration, batches: MazeBatches, latent_size: int, num_mazes: int
) -> Mapping[int, Score]:
    """Scores per size on unseen mazes."""
    return {size: score(model, batches, distinct(size, "test", num_mazes, WATCH_SEED), latent_size) for size in SIZES}


def _until(token_ids: list[int], stop_id: int) -> list[int]:
    return token_ids[: token_ids.index(stop_id)] if stop_id in token_ids else token_ids
