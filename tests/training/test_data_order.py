"""Each sample once an epoch, in an order that does not depend on the number of processes."""

import pytest

from training.data_order import DataOrder


def order(**changes: int) -> DataOrder:
    return DataOrder(**{"num_samples": 11, "batch_size": 2, "passes": 2, "epochs": 3, "seed": 1, **changes})


def test_an_epoch_has_every_sample_once_and_the_next_another_order() -> None:
    one = order()
    assert (one.steps_per_epoch, one.num_steps) == (3, 9)  # 4 + 4 + 3 samples
    epochs = [[number for step in range(first, first + 3) for number in one.samples_of(step)] for first in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != [n for step in range(3) for n in order(seed=2).samples_of(step)]


def test_weights_make_the_mean_over_samples() -> None:
    """The mean over passes of the weighted losses is the mean over samples, whose losses here are their numbers."""
    for step in range(3):
        one = order()
        passes = one.micro_batches(step)
        mean = sum(micro.weight * number for micro in passes for number in micro.samples) / len(passes)
        samples = one.samples_of(step)
        assert mean == pytest.approx(sum(samples) / len(samples))


def test_a_step_without_enough_samples_is_filled_with_passes_that_weigh_nothing() -> None:
    one = order(num_samples=5, batch_size=1, passes=4)
    assert [len(micro.samples) for micro in one.micro_batches(1)] == [1, 1, 1, 1]
    assert [micro.weight for micro in one.micro_batches(1)] == [4.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_processes_deal_out_the_same_passes(num_processes: int) -> None:
    one = order(passes=4, batch_size=1)
    shares = [one.share(1, process, num_processes) for process in range(num_processes)]
    assert [micro for turn in zip(*shares, strict=True) for micro in turn] == one.micro_batches(1)


def test_every_pass_has_a_seed_of_its_own() -> None:
    one = order(num_samples=1000, batch_size=1, passes=10)
    seeds = [micro.seed for step in range(300) for micro in one.micro_batches(step)]
    assert len(set(seeds)) == 3000
    assert all(0 <= seed < 2**63 for seed in seeds)
