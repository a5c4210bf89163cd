"""Batched passes against the stock model, and self-fed latents against a pass over the whole prefix for each."""

from collections.abc import Callable
from itertools import zip_longest

import pytest
import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl

from benchmarks.naive_training import self_fed_by_whole_prefixes
from tests.training.tiny import (
    IDS,
    Said,
    assert_close,
    batch_of,
    gradients,
    mixed_samples,
    sample,
    tiny_model,
)
from training.batch import Batch
from training.forward import embeddings, hidden_states, pads_by_round, self_fed_hidden_states

# float64, sums in another order.
TOLERANCE = 1e-9
THREE_BLOCKS = [Said(3, 4), Said(0, 2), Said(2, 3)]


@pytest.fixture(autouse=True)
def _softmax_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stock eager attention goes through float32, where 1e-9 cannot be seen."""
    stock = modeling_qwen2_5_vl.nn.functional.softmax

    def softmax(x: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
        return stock(x, dim=dim, dtype=torch.float64 if x.dtype == torch.float64 else dtype)

    monkeypatch.setattr(modeling_qwen2_5_vl.nn.functional, "softmax", softmax)


def _stock_states(model: Qwen2_5_VLForConditionalGeneration, batch: Batch) -> Tensor:
    """Of one sample by the stock model's own way from pixels to hidden states."""
    output = model.model(
        input_ids=batch.ids_BT,
        pixel_values=batch.images.values_PX.double(),
        image_grid_thw=batch.images.grids,
        mm_token_type_ids=(batch.ids_BT == IDS.image_pad).int(),
        use_cache=False,
    )
    return output.last_hidden_state


def _weighted(states: Tensor) -> Tensor:
    """A number that depends on every state, through weights without pattern."""
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(5), dtype=states.dtype)
    return (states * weights).sum()


def _positions_through_layers(model: Qwen2_5_VLForConditionalGeneration) -> list[list[int]]:
    """For each layer, filled as passes are made: token positions that each call computes."""
    counts: list[list[int]] = []
    for layer in model.model.language_model.layers:
        calls: list[int] = []
        counts.append(calls)

        def hook(_: object, args: tuple[Tensor, ...], __: object, calls: list[int] = calls) -> None:
            calls.append(args[0].shape[0] * args[0].shape[1])

        layer.register_forward_hook(hook)
    return counts


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_sample_gives_the_stock_models_states(attention: str) -> None:
    model, batch = tiny_model(attention=attention), batch_of(sample(THREE_BLOCKS, images=[(2, 3), (1, 2)]))
    with torch.no_grad():
        ours = hidden_states(model, embeddings(model, batch)[0], batch.positions_3BT)
        torch.testing.assert_close(ours, _stock_states(model, batch), rtol=TOLERANCE, atol=TOLERANCE)


def test_image_features_stand_where_the_image_tokens_are() -> None:
    """In a batch of samples with one, no and two images, in this order."""
    model, samples = tiny_model(), mixed_samples()
    with torch.no_grad():
        embedded, features = embeddings(model, batch_of(*samples))
        first = model.model.visual(samples[0].images.values_PX.double(), grid_thw=samples[0].images.grids)
        last = model.model.visual(samples[2].images.values_PX.double(), grid_thw=samples[2].images.grids)
    expected = torch.cat([first.pooler_output, last.pooler_output])
    torch.testing.assert_close(features, expected, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(embedded[0, 1:7], expected[:6], rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(embedded[2, [1, 2, 5, 6, 7, 8]], expected[6:], rtol=TOLERANCE, atol=TOLERANCE)
    assert torch.equal(embedded[1], model.get_input_embeddings().weight[batch_of(*samples).ids_BT[1]])


def test_without_latents_self_fed_states_are_the_plain_ones() -> None:
    model, batch = tiny_model(), batch_of(sample([]))
    with torch.no_grad():
        embedded, _ = embeddings(model, batch)
        plain = hidden_states(model, embedded, batch.positions_3BT)
        fed = self_fed_hidden_states(model, batch, embedded)
    torch.testing.assert_close(fed, plain, rtol=TOLERANCE, atol=TOLERANCE)


def test_a_latent_is_the_normed_state_before_it() -> None:
    """The rule itself: with the fed-back states put in as embeddings, a plain pass gives those states again."""
    model, batch = tiny_model(), batch_of(sample(THREE_BLOCKS))
    with torch.no_grad():
        embedded, _ = embeddings(model, batch)
        fed = self_fed_hidden_states(model, batch, embedded)
        filled = embedded.clone()
        for block in batch.blocks[0]:
            filled[:, block.first_pad : block.end] = fed[:, block.first_pad - 1 : block.end - 1]
        plain = hidden_states(model, filled, batch.positions_3BT)
    torch.testing.assert_close(fed, plain, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_states_and_gradients_are_those_of_whole_prefixes(attention: str, checkpointed: bool) -> None:
    """Three blocks, two of them with no text between."""
    model, batch = tiny_model(attention=attention), batch_of(sample(THREE_BLOCKS))
    results = []

    def by_cache(embedded: Tensor) -> Tensor:
        return self_fed_hidden_states(model, batch, embedded, checkpointed=checkpointed)

    def by_prefixes(embedded: Tensor) -> Tensor:
        return self_fed_by_whole_prefixes(model, batch, embedded)

    for form in (by_cache, by_prefixes):
        embedded = embeddings(model, batch)[0].detach().requires_grad_()
        states = form(embedded)
        found = gradients(model, _weighted(states))
        results.append(found | {"states": states.detach(), "embeddings": embedded.grad})
    assert_close(*results, rtol=TOLERANCE)


def test_that_comparison_notices_a_latent_without_gradient() -> None:
    """A cache cut from the graph gives the same states and other gradients."""
    model, batch = tiny_model(), batch_of(sample(THREE_BLOCKS))
    found = []
    for cut in (lambda states: states, torch.Tensor.detach):
        embedded, _ = embeddings(model, batch)
        states = self_fed_by_whole_prefixes(model, batch, embedded, fed=cut)
        found.append(gradients(model, _weighted(states)) | {"states": states.detach()})
    assert torch.equal(found[0].pop("states"), found[1].pop("states"))
    with pytest.raises(AssertionError):
        assert_close(found[1], found[0], rtol=1e-2)


def test_passes_that_each_round_needs() -> None:
    """The most pads of a first, a second and a third block, and a round for what follows them."""
    assert pads_by_round(batch_of(*mixed_samples())) == [5, 3, 1, 0]
    assert pads_by_round(batch_of(sample([]))) == [0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_more_passes_than_needed_change_nothing(attention: str) -> None:
    """As where another rank has more blocks, longer ones, or any at all."""
    model = tiny_model(attention=attention)
    for batch, least_pads in (
        (batch_of(*mixed_samples()), [2, 6, 0, 2, 1, 0]),
        (batch_of(sample(THREE_BLOCKS)), [5, 2]),
        (batch_of(sample([])), [3, 0]),
    ):
        results = []
        for least in ((), least_pads):
            embedded, _ = embeddings(model, batch)
            states = self_fed_hidden_states(model, batch, embedded, least_pads=least)
            results.append(gradients(model, _weighted(states)) | {"states": states.detach()})
        assert_close(*results, rtol=TOLERANCE)


def test_least_passes_make_the_calls_of_another_rank() -> None:
    """Layers are called as often as where the blocks are, so that sharded parameters are gathered in step."""
    model = tiny_model(torch.float32)
    counts = _positions_through_layers(model)
    calls = []
    several, one = batch_of(*mixed_samples()), batch_of(sample([Said(2, 7)]))
    least_pads = [max(pair) for pair in zip_longest(pads_by_round(several), pads_by_round(one), fillvalue=0)]
    for batch in (several, one):
        with torch.no_grad():
            self_fed_hidden_states(model, batch, embeddings(model, batch)[0], least_pads=least_pads)
        calls.append([len(of_layer) for of_layer in counts])
        for of_layer in counts:
            of_layer.clear()
    assert calls[0] == calls[1] == [4 + 7 + 3 + 1] * len(counts)


def test_given_pads_keep_their_embedding() -> None:
    """Of a block of four the second is given: the third follows from it."""
    model, batch = tiny_model(), batch_of(sample([Said(3, 4)]))
    first = batch.blocks[0][0].first_pad
    is_given = torch.zeros_like(batch.ids_BT, dtype=torch.bool)
    is_given[0, first + 1] = True
    with torch.no_grad():
        embedded, _ = embeddings(model, batch)
        fed = self_fed_hidden_states(model, batch, embedded, is_given_BT=is_given)
        filled = embedded.clone()
        for pad in (first, first + 2, first + 3):
            filled[:, pad] = hidden_states(model, filled[:, :pad], batch.positions_3BT[..., :pad])[:, -1]
        plain = hidden_states(model, filled, batch.positions_3BT)
    torch.testing.assert_close(fed, plain, rtol=TOLERANCE, atol=TOLERANCE)


def _plain(model: Qwen2_5_VLForConditionalGeneration, batch: Batch) -> Tensor:
    return hidden_states(model, embeddings(model, batch)[0], batch.positions_3BT)


def _self_fed(model: Qwen2_5_VLForConditionalGeneration, batch: Batch) -> Tensor:
    return self_fed_hidden_states(model, batch, embeddings(model, batch)[0])


@pytest.mark.parametrize("form", [_plain, _self_fed], ids=["plain", "self-fed"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_changes_no_state(
    attention: str, form: Callable[[Qwen2_5_VLForConditionalGeneration, Batch], Tensor]
) -> None:
    """Samples with 0, 1 and 3 blocks; the longest is not always the first."""
    model, samples = tiny_model(attention=attention), mixed_samples()
    with torch.no_grad():
        alone = [form(model, batch_of(one))[0] for one in samples]
        for order in ((0, 1, 2), (2, 1)):
            states = form(model, batch_of(*(samples[index] for index in order)))
            for row, index in enumerate(order):
                got = states[row, : len(alone[index])]
                torch.testing.assert_close(got, alone[index], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("num_pads", [1, 8])
def test_each_token_goes_through_the_layers_once(num_pads: int, checkpointed: bool) -> None:
    """Cost grows with tokens, not with latents times prefix; whole prefixes cost N + 1 passes."""
    model = tiny_model(torch.float32)
    batch = batch_of(*[sample([Said(3, num_pads), Said(2, num_pads)], seed=seed) for seed in range(2)])
    counts = _positions_through_layers(model)
    with torch.no_grad():
        self_fed_hidden_states(model, batch, embeddings(model, batch)[0], checkpointed=checkpointed)
    assert [sum(calls) for calls in counts] == [sum(batch.lengths)] * len(counts)
    for calls in counts:
        calls.clear()
    alone = batch_of(sample([Said(3, num_pads), Said(2, num_pads)]))
    with torch.no_grad():
        self_fed_by_whole_prefixes(model, alone, embeddings(model, alone)[0])
    pads = [pad for block in alone.blocks[0] for pad in range(block.first_pad, block.end)]
    assert [sum(calls) for calls in counts] == [sum(pads) + alone.lengths[0]] * len(counts)


def test_bfloat16_runs_forward_and_back() -> None:
    model, batch = tiny_model(torch.bfloat16), batch_of(*mixed_samples())
    states = _self_fed(model, batch)
    assert states.dtype == torch.bfloat16
    found = gradients(model, states.float().pow(2).mean())
    assert found
    assert all(one.isfinite().all() for one in found.values())
