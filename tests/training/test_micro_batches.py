"""What a process gets to compute on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from contracts.errors import InvalidRequest
from tests.training.base_folder import write_base, write_data
from training.data_order import DataOrder
from training.encoding import load_encoder
from training.micro_batches import MicroBatches, loaded
from training.samples import read_samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("batches")
    write_base(folder / "base")
    write_data(folder, 3)
    return folder


def batches(folder: Path, *, process: int, first_step: int = 0, with_helpers: bool = True) -> MicroBatches:
    return MicroBatches(
        samples=read_samples(folder / "train.jsonl"),
        encoder=load_encoder(folder / "base", 8),
        order=DataOrder(num_samples=3, batch_size=1, passes=4, epochs=2, seed=0),
        first_step=first_step,
        process=process,
        num_processes=2,
        with_helpers=with_helpers,
    )


def test_two_processes_share_a_step_and_count_each_sample_once(folder: Path) -> None:
    shares = [list(loaded(batches(folder, process=process), 0)) for process in (0, 1)]
    assert [len(share) for share in shares] == [4, 4]  # two passes of two steps each
    assert [[one.num_samples for one in share] for share in shares] == [[1, 1, 1, 1], [1, 0, 1, 0]]
    assert [[one.weight for one in share] for share in shares] == [[4 / 3] * 4, [4 / 3, 0, 4 / 3, 0]]
    assert shares[1][1].num_tokens == 0
    assert shares[0][0].num_tokens == shares[0][0].batch.lengths[0]


def test_a_run_goes_on_with_what_would_have_come(folder: Path) -> None:
    whole, rest = batches(folder, process=1), batches(folder, process=1, first_step=1)
    assert len(rest) == len(whole) - 2
    assert [rest[at].seed for at in (0, 1)] == [whole[at].seed for at in (2, 3)]
    assert torch.equal(rest[0].batch.ids_BT, whole[2].batch.ids_BT)


def test_helper_images_are_opened_for_a_teacher_only(folder: Path) -> None:
    seen = batches(folder, process=0)[0].batch
    assert seen.helpers is not None
    bare = batches(folder, process=0, with_helpers=False)[0].batch
    assert bare.helpers is None
    assert bare.blocks == seen.blocks
    assert torch.equal(bare.ids_BT, seen.ids_BT)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_is_wrong_with_a_sample_is_one_line_from_a_worker_too(
    folder: Path, tmp_path: Path, num_workers: int
) -> None:
    """A picture that was there when the run began. Micro-batches before its own come as they are."""
    data = batches(folder, process=0)
    second = data.order.share(0, 0, 2)[1].samples[0]
    samples = list(data.samples)
    samples[second] = replace(samples[second], images=(tmp_path / "gone.png",))
    found = loaded(replace(data, samples=samples), num_workers)
    assert next(found).num_samples == 1
    with pytest.raises(InvalidRequest) as caught:
        next(found)
    assert str(caught.value) == f"{samples[second].where}: {tmp_path / 'gone.png'}: there is no such picture"
