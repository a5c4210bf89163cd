"""The batched passes against the stock model, and self-fed latents against decoding one token at a time."""

import pytest
import torch
from torch import Tensor

from contracts.maze_pictures import draw_maze
from contracts.mazes import SIZES, generate
from tests.training.conftest import Setup
from training.forward import (
    hidden_states,
    image_features,
    mrope_positions,
    prompt_embeddings,
    self_fed_hidden_states,
    token_embeddings,
)
from training.maze_data import image_processor

# float32, sums of at most 1,176 terms in another order.
TOLERANCE = 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_features_are_the_stock_towers(setup: Setup, size: int) -> None:
    mazes = [generate(size, seed, "train") for seed in range(3)]
    seen = image_processor()(images=[draw_maze(maze.rows) for maze in mazes], return_tensors="pt")
    with torch.no_grad():
        stock = setup.model.model.visual(seen["pixel_values"], grid_thw=seen["image_grid_thw"]).pooler_output
        tiles = torch.tensor([setup.batches.pixels.tiles(maze) for maze in mazes])
        ours = image_features(setup.model, setup.batches.pixels.table_TPX, tiles)
    torch.testing.assert_close(ours.flatten(0, 1), stock, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("size", SIZES)
def test_positions_are_the_stock_models(setup: Setup, size: int) -> None:
    prompt = setup.batch(size, 1).prompt_ids
    ids = torch.tensor([prompt + [setup.ids.latent_start] * 5])
    grid = torch.tensor([[1, 2 * size, 2 * size]])
    is_image = (ids == setup.ids.image_pad).int()
    stock, _ = setup.model.model.get_rope_index(ids, is_image, image_grid_thw=grid)
    assert torch.equal(mrope_positions(prompt, setup.ids.image_pad, 5), stock[:, 0])


def test_a_prompt_gives_the_stock_models_logits(setup: Setup) -> None:
    batch = setup.batch(4, 2)
    seen = image_processor()(images=[draw_maze(maze.rows) for maze in batch.mazes], return_tensors="pt")
    ids = torch.tensor([batch.prompt_ids] * 2)
    with torch.no_grad():
        is_image = (ids == setup.ids.image_pad).int()
        stock = setup.model(input_ids=ids, mm_token_type_ids=is_image, use_cache=False, **seen).logits
        features = image_features(setup.model, setup.batches.pixels.table_TPX, batch.tiles_BN)
        embeddings = prompt_embeddings(setup.model, batch.prompt_ids, features)
        positions = mrope_positions(batch.prompt_ids, setup.ids.image_pad, 0)
        ours = setup.model.lm_head(hidden_states(setup.model, embeddings, positions))
    torch.testing.assert_close(ours, stock, rtol=10 * TOLERANCE, atol=10 * TOLERANCE)


def _sequence(setup: Setup) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings up to START, embeddings from END on, and positions, of two mazes."""
    batch = setup.batch(4, 2)
    features = image_features(setup.model, setup.batches.pixels.table_TPX, batch.tiles_BN)
    said = token_embeddings(setup.model, [*batch.thought_ids, setup.ids.latent_start], 2)
    before = torch.cat([prompt_embeddings(setup.model, batch.prompt_ids, features), said], dim=1)
    after = token_embeddings(setup.model, [setup.ids.latent_end, setup.ids.im_end], 2)
    num_after = said.shape[1] + setup.recipe.latent_size + 2
    return before, after, mrope_positions(batch.prompt_ids, setup.ids.image_pad, num_after)


def test_self_fed_latents_are_those_of_a_decode_without_a_cache(setup: Setup) -> None:
    """START's own state is latent 1; each latent is the state before it; END and text follow as ordinary embeddings."""
    with torch.no_grad():
        before, after, positions = _sequence(setup)
        ours = self_fed_hidden_states(setup.model, before, after, positions, setup.recipe.latent_size)
        grown = before
        for _ in range(setup.recipe.latent_size):
            states = hidden_states(setup.model, grown, positions[:, : grown.shape[1]])
            grown = torch.cat([grown, states[:, -1:]], dim=1)
        grown = torch.cat([grown, after], dim=1)
        decoded = hidden_states(setup.model, grown, positions)
    torch.testing.assert_close(ours, decoded, rtol=10 * TOLERANCE, atol=10 * TOLERANCE)


def test_gradients_through_the_latents_agree_with_finite_differences(setup: Setup) -> None:
    """A cache that dropped the graph anywhere on the way would give a smaller gradient."""
    before, after, positions = _sequence(setup)
    before = before.detach().requires_grad_()
    loss = self_fed_hidden_states(setup.model, before, after, positions, setup.recipe.latent_size)[:, -1].sum()
    (gradient,) = torch.autograd.grad(loss, before)
    direction = gradient / gradient.norm()
    step = 1e-2
    with torch.no_grad():
        up, down = (
            self_fed_hidden_states(setup.model, moved, after, positions, setup.recipe.latent_size)[:, -1].sum()
            for moved in (before + step * direction, before - step * direction)
        )
    assert (up - down).item() / (2 * step) == pytest.approx((gradient * direction).sum().item(), rel=0.02)
