"""Greedy free running on many puzzles at once: what serving does, without its engine, to watch and score training runs.

Shape letters: B puzzles, H hidden size, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from transformers import DynamicCache, Qwen2_5_VLForConditionalGeneration

from training.answer_log import Ablation
from training.forward import embeddings
from training.grids.batches import GridBatches
from training.grids.tasks import GridTask, Puzzle
from training.positions import mrope_positions

# A thought, a chain of 15 cells or a block, and the longest answer fit; what is longer is wrong anyway.
MAX_NEW_TOKENS = 80
# Other puzzles than the benchmark's, up to chance overlap; at 3x3, where few mazes exist, the watched are among them.
WATCH_SEED = 1
# Puzzles decoded at once: enough to fill one core, small enough for its cache.
CHUNK = 125


@dataclass(frozen=True, slots=True)
class Score:
    """Share of puzzles solved, and share of answers with a complete latent block."""

    success: float
    full_block: float


def scores_by_size(
    model: Qwen2_5_VLForConditionalGeneration,
    batches: GridBatches,
    task: GridTask,
    latent_size: int,
    per_size: int,
    *,
    latents: Ablation = "on",
    seed: int = 0,
) -> Mapping[int, Score]:
    """Scores on unseen puzzles of each size, under the standard question."""
    return {
        size: score(model, batches, task, task.test_puzzles(size, per_size, seed), latent_size, latents)
        for size in task.sizes
    }


def watch(
    model: Qwen2_5_VLForConditionalGeneration, batches: GridBatches, latent_size: int, per_size: int
) -> Mapping[str, Mapping[int, Score]]:
    """Scores of every task, on few puzzles."""
    return {
        name: scores_by_size(model, batches, task, latent_size, per_size, seed=WATCH_SEED)
        for name, task in batches.tasks.items()
    }


def score(
    model: Qwen2_5_VLForConditionalGeneration,
    batches: GridBatches,
    task: GridTask,
    puzzles: Sequence[Puzzle],
    latent_size: int,
    latents: Ablation = "on",
) -> Score:
    """Score on puzzles of one size."""
    ids = batches.ids
    block = [ids.latent_start, *[ids.latent_pad] * latent_size, ids.latent_end]
    num_right = num_full = 0
    for chunk in _chunks(puzzles):
        donors = generate(model, batches, task, chunk, latent_size).latents if latents == "swap" else None
        answers = generate(model, batches, task, chunk, latent_size, latents=latents, donors=donors).token_ids
        for puzzle, answer_ids in zip(chunk, answers, strict=True):
            said = batches.tokenizer.decode(answer_ids)
            num_right += task.is_right(puzzle, said.rpartition("\\boxed{")[2].partition("}")[0])
            start = answer_ids.index(ids.latent_start) if ids.latent_start in answer_ids else len(answer_ids)
            num_full += answer_ids[start : start + len(block)] == block
    return Score(num_right / len(puzzles), num_full / len(puzzles))


@dataclass(frozen=True, slots=True)
class Generated:
    """token_ids: of each puzzle, up to and without ``<|im_end|>``. latents: what each fed back in its first block, in
    order, [steps, H]; fewer than K rows if it had no whole block."""

    token_ids: list[list[int]]
    latents: list[Tensor]


@torch.no_grad()
def generate(
    model: Qwen2_5_VLForConditionalGeneration,
    batches: GridBatches,
    task: GridTask,
    puzzles: Sequence[Puzzle],
    latent_size: int,
    *,
    latents: Ablation = "on",
    donors: Sequence[Tensor] | None = None,
) -> Generated:
    """Answers to the standard question. All puzzles of one size; `fixed` blocks.

    latents: what is fed back; `noise` are Gaussian vectors of the norm of the own states, `swap` is what another puzzle
    fed back in a run of its own, and with `off` START is never chosen, so that there is no block.

    START opens a block of exactly ``latent_size`` pads and END; pad and END are impossible outside a block. ``swap``
    feeds each puzzle the ``donors`` latents of the next one, and needs two puzzles at least.

    Raises:
        ValueError: ``swap`` without donors, or with one puzzle.
    """
    if latents == "swap" and (donors is None or len(puzzles) < 2):
        raise ValueError("swap needs the latents of two puzzles or more")
    donated = _padded(donors, latent_size).roll(1, 0) if donors is not None else None
    ids = batches.ids
    prompt = batches.collate(task, puzzles, task.question, "prompt").batch
    inputs, _ = embeddings(model, prompt)
    num_prompt = prompt.ids_BT.shape[1]
    side = len(puzzles[0].rows)
    text_to_come = [ids.im_end] * MAX_NEW_TOKENS
    positions = mrope_positions([*prompt.ids_BT[0].tolist(), *text_to_come], ids.image_pad, [(1, side, side)])
    noise = torch.Generator().manual_seed(0)
    cache = DynamicCache()
    # 0 outside a block, 1 after START, 1 + n after n pads: the `phase` of serving.
    phase_B = torch.zeros(len(puzzles), dtype=torch.long)
    has_ended_B = torch.zeros(len(puzzles), dtype=torch.bool)
    at = torch.arange(num_prompt)
    generated: list[Tensor] = []
    fed: list[list[Tensor]] = [[] for _ in puzzles]
    while len(generated) < MAX_NEW_TOKENS and not bool(has_ended_B.all()):
        output = model.model.language_model(
            inputs_embeds=inputs,
            position_ids=positions[:, None, at].expand(-1, len(puzzles), -1),
            past_key_values=cache,
            use_cache=True,
        )
        state_BH = output.last_hidden_state[:, -1]
        logits_BV = model.lm_head(state_BH)
        logits_BV[:, [ids.latent_pad, ids.latent_end]] = -torch.inf
        if latents == "off":
            logits_BV[:, ids.latent_start] = -torch.inf
        chosen_B = logits_BV.argmax(-1)
        in_block_B = phase_B > 0
        chosen_B[in_block_B] = ids.latent_pad
        chosen_B[phase_B == latent_size + 1] = ids.latent_end
        phase_B = torch.where(in_block_B, phase_B + 1, (chosen_B == ids.latent_start).long())
        phase_B[chosen_B == ids.latent_end] = 0
        has_ended_B |= chosen_B == ids.im_end
        generated.append(chosen_B)
        is_latent = (chosen_B == ids.latent_pad)[:, None]
        embedded = model.get_input_embeddings()(chosen_B)
        fed_back_BH = _fed_back(state_BH, latents, noise)
        if donated is not None and latent_size:
            # After START the phase is 1 and the first latent comes next; it has been counted when it is chosen.
            step_B = (phase_B - 2).clamp(0, latent_size - 1)
            fed_back_BH = donated[torch.arange(len(puzzles)), step_B]
        for row in is_latent[:, 0].nonzero()[:, 0].tolist():
            fed[row].append(fed_back_BH[row])
        inputs = torch.where(is_latent, fed_back_BH, embedded)[:, None]
        at = at[-1:] + 1
    token_ids = [_until(row, ids.im_end) for row in torch.stack(generated, dim=1).tolist()]
    width = model.lm_head.weight.shape[1]
    return Generated(token_ids, [torch.stack(row[:latent_size]) if row else torch.zeros(0, width) for row in fed])


def _fed_back(state_BH: Tensor, latents: Ablation, noise: torch.Generator) -> Tensor:
    if latents == "zero":
        return torch.zeros_like(state_BH)
    if latents == "noise":
        drawn = torch.randn(state_BH.shape, generator=noise)
        scaled: Tensor = drawn * (state_BH.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True))
        return scaled
    return state_BH


def _padded(donors: Sequence[Tensor], latent_size: int) -> Tensor:
    """[puzzles, K, H]: zeros where a donor had no latent."""
    padded = torch.zeros(len(donors), max(1, latent_size), donors[0].shape[1])
    for row, vectors in enumerate(donors):
        padded[row, : len(vectors)] = vectors
    return padded


def _chunks(puzzles: Sequence[Puzzle]) -> list[Sequence[Puzzle]]:
    """Of at most CHUNK and nearly equal length, so that none is left with a single puzzle."""
    number = -(-len(puzzles) // CHUNK)
    bounds = [len(puzzles) * index // number for index in range(number + 1)]
    return [puzzles[first:last] for first, last in pairwise(bounds)]


def _until(token_ids: list[int], stop_id: int) -> list[int]:
    return token_ids[: token_ids.index(stop_id)] if stop_id in token_ids else token_ids
