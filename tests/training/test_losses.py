"""Losses by numbers worked out by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from training.batch import IGNORED_LABEL
from training.losses import alignment_loss, mean_by_row, text_cross_entropy

IGNORED = IGNORED_LABEL
LN3 = math.log(3)


def test_cross_entropy_predicts_each_label_from_the_state_before_it() -> None:
    """Logits (ln 3, 0) give 3/4 and 1/4: -log p is ln 4/3 for label 0 and ln 4 for label 1."""
    states = torch.tensor([[[LN3, 0.0], [LN3, 0.0], [-99.0, 99.0]]])
    loss = text_cross_entropy(states, torch.tensor([[IGNORED, 0, 1]]), nn.Identity())
    assert loss.tolist() == pytest.approx([(math.log(4 / 3) + math.log(4)) / 2])


def test_cross_entropy_is_of_each_sample_by_itself() -> None:
    """A sample of two labels and one of one weigh the same; a label at the first position has no state before it."""
    states = torch.tensor([[[LN3, 0.0]] * 3, [[0.0, 0.0]] * 3, [[9.0, 0.0]] * 3])
    labels = torch.tensor([[0, 0, 0], [1, IGNORED, 1], [0, IGNORED, IGNORED]])
    loss = text_cross_entropy(states, labels, nn.Identity())
    assert loss.tolist() == pytest.approx([math.log(4 / 3), math.log(2), 0.0])


def test_logits_are_computed_only_where_there_is_a_label() -> None:
    seen = []

    def head(states: Tensor) -> Tensor:
        seen.append(tuple(states.shape))
        return states

    text_cross_entropy(torch.zeros(2, 5, 3), torch.tensor([[IGNORED, 1, IGNORED, 2, IGNORED], [IGNORED] * 5]), head)
    assert seen == [(2, 3)]


def test_cross_entropy_of_half_precision_logits_is_float32() -> None:
    states = torch.zeros(1, 2, 3, dtype=torch.bfloat16)
    loss = text_cross_entropy(states, torch.tensor([[IGNORED, 0]]), nn.Identity())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(3), rel=1e-6)  # bfloat16 would be off by 1e-3


def test_alignment_is_one_minus_the_mean_cosine_with_the_state_before() -> None:
    """Sample 0: cosines 1 and 0; sample 1: none; sample 2: -1. The states at the latents themselves do not count."""
    states = torch.full((3, 4, 2), 7.0)
    states[0, 0], states[0, 1], states[2, 2] = torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, -1.0]])
    targets = torch.tensor([[5.0, 0.0], [4.0, 0.0], [0.0, 9.0]])
    row, column = torch.tensor([0, 0, 2]), torch.tensor([1, 2, 3])
    loss, cosine = alignment_loss(states, row, column, targets, noise_std=0.0)
    assert loss.tolist() == pytest.approx([0.5, 0.0, 2.0])
    assert cosine.tolist() == pytest.approx([1.0, 0.0, -1.0])


def test_noise_is_added_to_the_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """eps = (0, 1), std 0.75: the target (1, 0) becomes (1, 0.75), whose cosine with (1, 0) is 1 / 1.25."""
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.tensor([[0.0, 1.0]]).expand_as(like))
    states = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    at = torch.tensor([0]), torch.tensor([1])
    loss, _ = alignment_loss(states, *at, torch.tensor([[1.0, 0.0]]), noise_std=0.75)
    assert loss.tolist() == pytest.approx([1 - 0.8])


def test_noise_has_its_standard_deviation_and_none_draws_no_number() -> None:
    """For small noise 1 - cos is half the squared noise across the target: std² (H - 1) / 2 on average."""
    num_targets, size, std = 2_000, 32, 0.01
    states = torch.zeros(1, num_targets + 1, size)
    states[..., 0] = 1.0
    row, column = torch.zeros(num_targets, dtype=torch.long), torch.arange(1, num_targets + 1)
    targets = states[0, 1:].clone()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert alignment_loss(states, row, column, targets, noise_std=0.0)[0].item() == pytest.approx(0.0, abs=1e-6)
    assert torch.equal(torch.get_rng_state(), before)
    noisy, _ = alignment_loss(states, row, column, targets, noise_std=std)
    # The relative deviation of such a mean is sqrt(2 / (2,000 x 31)) = 0.6 %.
    assert noisy.item() == pytest.approx(std**2 * (size - 1) / 2, rel=0.05)


def test_targets_bear_no_gradient_and_states_do() -> None:
    states = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.ones(1, 4, requires_grad=True)
    loss, _ = alignment_loss(states, torch.tensor([0]), torch.tensor([2]), targets, noise_std=0.0)
    loss.sum().backward()
    assert targets.grad is None
    assert states.grad is not None
    assert states.grad.abs().sum(-1).gt(0).tolist() == [[False, True, False]]


def test_no_latent_anywhere_is_no_alignment_and_no_gradient() -> None:
    states = torch.ones(2, 3, 4, requires_grad=True)
    nowhere = torch.zeros(0, dtype=torch.long)
    loss, cosine = alignment_loss(states, nowhere, nowhere, torch.zeros(0, 4), noise_std=0.01)
    assert loss.tolist() == [0.0, 0.0]
    assert len(cosine) == 0
    loss.sum().backward()
    assert not states.grad.any()


def test_mean_by_row_of_rows_without_values_is_zero() -> None:
    means = mean_by_row(torch.tensor([1.0, 5.0, 3.0]), torch.tensor([1, 3, 1]), 5)
    assert means.tolist() == [0.0, 2.0, 0.0, 5.0, 0.0]
    assert mean_by_row(torch.zeros(0), torch.zeros(0, dtype=torch.long), 2).tolist() == [0.0, 0.0]
