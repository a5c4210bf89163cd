"""Selection by numbers worked out by hand."""

import math

import pytest
import torch
from torch import nn

from training.selection import (
    NUM_GROUPS,
    block_query,
    candidates,
    select,
    user_pooling,
    user_pooling_without_attention,
)

LN2, LN3 = math.log(2), math.log(3)


class _Attention(nn.Module):
    """Projections of an attention layer."""

    def __init__(self, q: list[list[float]], k: list[list[float]], head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        for name, weights in (("q_proj", q), ("k_proj", k)):
            linear = nn.Linear(len(weights[0]), len(weights), bias=False)
            linear.weight.data = torch.tensor(weights)
            self.add_module(name, linear)


def test_user_pooling_of_two_prompt_and_two_image_tokens() -> None:
    """Prompt token 1 has logits (ln 3, 0) and weights (3/4, 1/4); token 2 has (0, ln 4) and (1/5, 4/5). Their mean is
    (0.475, 0.525), so r_img = 0.475 (1, 0) + 0.525 (0, 2) = (0.475, 1.05) and r_txt = (0.5, 0.5)."""
    root2 = math.sqrt(2)  # makes up for the division by the root of head_dim
    attention = _Attention([[root2, 0.0], [0.0, root2]], [[LN3, 0.0], [0.0, LN2]], head_dim=2)
    prompt = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    image = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    torch.testing.assert_close(user_pooling(prompt, image, attention), torch.tensor([0.4875, 0.775]))


def test_user_pooling_averages_heads_after_the_softmax_and_shares_keys() -> None:
    """Two query heads over one key head. Logits (ln 3, 0) and (0, 0), weights (3/4, 1/4) and (1/2, 1/2), mean
    (5/8, 3/8). Averaged before the softmax it would be (0.634, 0.366)."""
    attention = _Attention([[LN3, 0.0], [0.0, 0.0]], [[1.0, 0.0]], head_dim=1)
    prompt = torch.tensor([[1.0, 1.0]])
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(user_pooling(prompt, image, attention), torch.tensor([0.8125, 0.6875]))


def test_without_attention_the_user_is_the_mean_of_the_text() -> None:
    text = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    assert user_pooling_without_attention(text, []).tolist() == [2.0, 2.0]


def test_without_attention_images_are_averaged_in_eight_groups_each() -> None:
    """Three features are repeated to eight, 1 2 3 1 2 3 1 2: mean 15/8. Of 17 the last is cut: 0 to 15 have mean 7.5.
    Both images weigh the same: (1.875 + 7.5) / 2 = 4.6875; with text of mean 1 that is 2.84375."""
    few = torch.tensor([[1.0], [2.0], [3.0]])
    many = torch.arange(17.0)[:, None]
    user = user_pooling_without_attention(torch.tensor([[1.0]]), [few, many])
    assert user.tolist() == [2.84375]


@pytest.mark.parametrize(
    ("text", "previous", "expected"),
    [
        ([], None, [6.0, 0.0]),
        ([[0.0, 2.0], [0.0, 4.0]], None, [3.0, 1.5]),
        ([], [0.0, 3.0], [3.0, 1.5]),
        ([[0.0, 2.0], [0.0, 4.0]], [3.0, 0.0], [3.0, 1.0]),
    ],
    ids=["user", "user and text", "user and block before", "all three"],
)
def test_a_query_is_the_mean_of_what_there_is(
    text: list[list[float]], previous: list[float] | None, expected: list[float]
) -> None:
    query = block_query(
        torch.tensor([6.0, 0.0]),
        torch.tensor(text).reshape(-1, 2),
        None if previous is None else torch.tensor(previous),
    )
    assert query.tolist() == expected


def test_fewer_features_than_groups_are_candidates_as_they_are() -> None:
    features = torch.arange(255.0)[:, None]
    for grouping in ("released", "whole"):
        assert candidates(features, grouping).tolist() == features.tolist()


def test_as_many_features_as_groups_are_candidates_as_they_are() -> None:
    features = torch.arange(256.0)[:, None]
    for grouping in ("released", "whole"):
        assert candidates(features, grouping).tolist() == features.tolist()


def test_of_300_features_the_released_code_keeps_the_first_256() -> None:
    features = torch.arange(300.0)[:, None]
    assert candidates(features).tolist() == features[:256].tolist()


def test_of_513_features_the_released_code_averages_pairs_and_drops_the_last() -> None:
    """Group g is the mean of 2g and 2g + 1."""
    expected = [[2.0 * group + 0.5] for group in range(256)]
    assert candidates(torch.arange(513.0)[:, None]).tolist() == expected


@pytest.mark.parametrize(
    ("num_features", "first", "last"),
    [
        (300, 0.5, 298.5),  # groups begin at floor(300 g / 256) and end before ceil(300 (g + 1) / 256): 0-1 and 298-299
        (513, 1.0, 511.0),  # 0-2 and 510-512
    ],
)
def test_whole_grouping_covers_the_image_in_order(num_features: int, first: float, last: float) -> None:
    groups = candidates(torch.arange(float(num_features))[:, None], "whole")[:, 0]
    assert len(groups) == NUM_GROUPS
    assert (groups[0].item(), groups[-1].item()) == (first, last)
    assert (groups.diff() > 0).all()
    weights_of_features = candidates(torch.eye(num_features), "whole").sum(0)
    assert (weights_of_features > 0).all()


def test_the_most_similar_come_first_and_at_most_k() -> None:
    """Cosines with (1, 0): 0, 1, 1/sqrt 2, -1. Length does not count."""
    found = torch.tensor([[0.0, 1.0], [3.0, 0.0], [9.0, 9.0], [-1.0, 0.0]])
    chosen, similarity = select(torch.tensor([2.0, 0.0]), found, latent_size=2, top_p=0.9)
    assert chosen == [1, 2]
    torch.testing.assert_close(similarity, torch.tensor([0.0, 1.0, math.sqrt(0.5), -1.0]))


@pytest.mark.parametrize(("top_p", "expected"), [(0.78, 1), (0.79, 2), (0.9, 3), (1.0, 3)])
def test_top_p_binds_on_a_peak(top_p: float, expected: int) -> None:
    """Cosines -1, 1, -1: masses e / (e + 2/e) = 0.787 and twice 0.1065, so 0.78 needs one, 0.79 two and 0.9 three."""
    found = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    chosen, _ = select(torch.tensor([1.0, 0.0]), found, latent_size=8, top_p=top_p)
    assert len(chosen) == expected
    assert chosen[0] == 1


def test_top_p_does_not_bind_on_equal_similarities() -> None:
    """Twenty masses of 0.05: 0.88 needs 18 of them, so that K = 8 decides, and K = 20 would not."""
    found = torch.ones(20, 2)
    for latent_size, expected in ((8, 8), (20, 18)):
        chosen, _ = select(torch.tensor([1.0, 1.0]), found, latent_size, top_p=0.88)
        assert len(chosen) == len(set(chosen)) == expected


def test_top_p_does_not_bind_on_any_256_candidates() -> None:
    """Similarity lies in [-1, 1], so no mass exceeds e² / (e² + 255) = 0.028: K = 8 candidates hold 0.23 at most."""
    found = torch.tensor([[1.0, 0.0]] * 8 + [[-1.0, 0.0]] * 248)
    chosen, _ = select(torch.tensor([1.0, 0.0]), found, latent_size=8, top_p=0.9)
    assert sorted(chosen) == list(range(8))


def test_fewer_candidates_than_k_are_all_chosen() -> None:
    found = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    chosen, _ = select(torch.tensor([1.0, 0.1]), found, latent_size=8, top_p=0.99)
    assert chosen == [1, 2, 0]
