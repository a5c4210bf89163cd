"""Losses and selection by hand-made cases."""

import math

import pytest
import torch

from tests.training.conftest import Setup
from training.losses import alignment_loss, text_cross_entropy
from training.maze_data import IGNORED_LABEL
from training.selection import select, user_pooling


def test_cross_entropy_leaves_out_ignored_labels() -> None:
    logits = torch.tensor([[[0.0, 0.0], [100.0, 0.0]]])
    assert text_cross_entropy(logits, torch.tensor([[0, IGNORED_LABEL]])).item() == pytest.approx(math.log(2))


def test_alignment_is_one_minus_the_mean_cosine_of_the_filled_places() -> None:
    states = torch.tensor([[[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]]])
    targets = torch.tensor([[[5.0, 0.0], [4.0, 0.0], [-1.0, 0.0]]])
    is_filled = torch.tensor([[True, True, False]])
    assert alignment_loss(states, targets, is_filled, noise_std=0.0).item() == pytest.approx(0.5)  # cosines 1 and 0


def test_selection_takes_the_most_similar_first_and_at_most_k() -> None:
    query = torch.tensor([[1.0, 0.0]])
    candidates = torch.tensor([[[0.0, 1.0], [3.0, 0.0], [1.0, 1.0], [-1.0, 0.0]]])
    targets, is_filled = select(query, candidates, latent_size=2, top_p=0.9)
    assert targets.tolist() == [[[3.0, 0.0], [1.0, 1.0]]]
    assert is_filled.tolist() == [[True, True]]


def test_selection_stops_where_the_mass_is_reached() -> None:
    """Cosines 1 and -1: softmax masses 0.881 and 0.119, so 0.88 needs one candidate and 0.9 needs both."""
    query = torch.tensor([[1.0, 0.0]])
    candidates = torch.tensor([[[-1.0, 0.0], [1.0, 0.0]]])
    for top_p, expected in ((0.88, [True, False, False]), (0.9, [True, True, False])):
        _, is_filled = select(query, candidates, latent_size=3, top_p=top_p)
        assert is_filled.tolist() == [expected]


def test_pooling_with_equal_keys_is_the_mean_of_both_means(setup: Setup) -> None:
    hidden_size = setup.recipe.model.hidden_size
    prompt = torch.randn(1, 3, hidden_size, generator=torch.Generator().manual_seed(0))
    image = torch.ones(1, 4, hidden_size)
    pooled = user_pooling(setup.model, prompt, image)
    torch.testing.assert_close(pooled, (1 + prompt.mean(1)) / 2)
