"""Free running obeys the `fixed` rule, whatever the model wants, and feeds back what it is told to."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from tests.training.conftest import TASKS, Setup
from training.grids import free_running
from training.grids.free_running import MAX_NEW_TOKENS, Latents, generate_ids


@contextmanager
def wanting(setup: Setup, wanted: list[int], unwanted: list[int]) -> Iterator[None]:
    def want(_module: torch.nn.Module, _inputs: object, logits: torch.Tensor) -> None:
        logits[..., wanted] = 1e4
        logits[..., unwanted] = -1e4

    with setup.model.lm_head.register_forward_hook(want):
        yield


def run(setup: Setup, latents: Latents = "on") -> list[list[int]]:
    return generate_ids(
        setup.model, setup.batches, TASKS["maze"], setup.puzzles(3, 2), setup.recipe.latent_size, latents=latents
    )


def test_a_model_that_always_wants_start_gets_it_only_outside_blocks(setup: Setup) -> None:
    ids = setup.ids
    with wanting(setup, [ids.latent_start], []):
        answers = run(setup)
    block = [ids.latent_start, *[ids.latent_pad] * setup.recipe.latent_size, ids.latent_end]
    assert answers == [(block * MAX_NEW_TOKENS)[:MAX_NEW_TOKENS]] * 2


def test_pad_and_end_are_never_chosen_outside_a_block(setup: Setup) -> None:
    ids = setup.ids
    with wanting(setup, [ids.latent_pad, ids.latent_end], [ids.latent_start]):
        answers = run(setup)
    assert not {ids.latent_pad, ids.latent_end} & {token for answer in answers for token in answer}


def test_latents_off_means_no_block_even_if_the_model_wants_one(setup: Setup) -> None:
    ids = setup.ids
    with wanting(setup, [ids.latent_start], []):
        answers = run(setup, "off")
    assert not {ids.latent_start, ids.latent_pad} & {token for answer in answers for token in answer}


def test_generation_ends_when_all_have_ended(setup: Setup) -> None:
    calls = []
    hook = setup.model.lm_head.register_forward_hook(lambda *_: calls.append(None))
    with hook, wanting(setup, [setup.ids.im_end], []):
        assert run(setup) == [[], []]
    assert len(calls) == 1


@pytest.mark.parametrize("latents", ["on", "zero", "noise", "swap"])
def test_what_is_fed_back(latents: Latents) -> None:
    state = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    fed = free_running._fed_back(state, latents, torch.Generator().manual_seed(0))
    if latents == "on":
        assert torch.equal(fed, state)
    elif latents == "zero":
        assert torch.equal(fed, torch.zeros(2, 2))
    elif latents == "swap":
        assert torch.equal(fed, torch.tensor([[0.0, 2.0], [3.0, 4.0]]))
    else:
        torch.testing.assert_close(fed.norm(dim=-1), torch.tensor([5.0, 2.0]))
        assert not torch.allclose(fed, state)
