"""Free running obeys the `fixed` rule, whatever the model wants, and feeds back what it is told to."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from tests.training.conftest import TASKS, Setup
from training.answer_log import Ablation
from training.grids import free_running
from training.grids.free_running import MAX_NEW_TOKENS, generate


@contextmanager
def wanting(setup: Setup, wanted: list[int], unwanted: list[int]) -> Iterator[None]:
    def want(_module: torch.nn.Module, _inputs: object, logits: torch.Tensor) -> None:
        logits[..., wanted] = 1e4
        logits[..., unwanted] = -1e4

    with setup.model.lm_head.register_forward_hook(want):
        yield


@contextmanager
def opening_a_block(setup: Setup) -> Iterator[None]:
    """START is wanted as the first token, the end of the answer after the block."""
    calls = []

    def want(_module: torch.nn.Module, _inputs: object, logits: torch.Tensor) -> None:
        logits[..., setup.ids.latent_start if not calls else setup.ids.im_end] = 1e4
        calls.append(None)
        if len(calls) == setup.recipe.latent_size + 3:
            calls.clear()

    with setup.model.lm_head.register_forward_hook(want):
        yield


def run(setup: Setup, latents: Ablation = "on") -> list[list[int]]:
    return generate(
        setup.model, setup.batches, TASKS["maze"], setup.puzzles(3, 2), setup.recipe.latent_size, latents=latents
    ).token_ids


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


@pytest.mark.parametrize("latents", ["on", "zero", "noise"])
def test_what_is_fed_back(latents: Ablation) -> None:
    state = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    fed = free_running._fed_back(state, latents, torch.Generator().manual_seed(0))
    if latents == "on":
        assert torch.equal(fed, state)
    elif latents == "zero":
        assert torch.equal(fed, torch.zeros(2, 2))
    else:
        torch.testing.assert_close(fed.norm(dim=-1), torch.tensor([5.0, 2.0]))
        assert not torch.allclose(fed, state)


def test_swap_feeds_what_the_next_puzzle_fed_back_by_itself(setup: Setup) -> None:
    task, puzzles, k = TASKS["trail"], setup.puzzles(4, 3, "trail"), setup.recipe.latent_size
    # The last prompt's token decides nothing here: START is wanted once, then the answer's end.
    with opening_a_block(setup):
        own = generate(setup.model, setup.batches, task, puzzles, k)
        alone = generate(setup.model, setup.batches, task, puzzles[1:2], k)
        swapped = generate(setup.model, setup.batches, task, puzzles, k, latents="swap", donors=own.latents)
    assert [vectors.shape for vectors in own.latents] == [(k, 128)] * 3
    torch.testing.assert_close(own.latents[1], alone.latents[0], rtol=1e-4, atol=1e-4)
    for index in range(3):
        assert torch.equal(swapped.latents[index], own.latents[index - 1])


def test_swap_needs_somebody_else(setup: Setup) -> None:
    with pytest.raises(ValueError, match="two puzzles"):
        generate(setup.model, setup.batches, TASKS["maze"], setup.puzzles(3, 1), 8, latents="swap", donors=[])


def test_chunks_are_nearly_equal_so_that_none_is_left_with_a_single_puzzle(
    monkeypatch: pytest.MonkeyPatch, setup: Setup
) -> None:
    monkeypatch.setattr(free_running, "CHUNK", 4)
    assert [len(chunk) for chunk in free_running._chunks(setup.puzzles(3, 9))] == [3, 3, 3]
