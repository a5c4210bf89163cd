"""The numbers of requests follow them through the batch."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from model_runner.model.keys import FEED_ROW

OWN = [0, 0, 0]


@pytest.fixture
def rows() -> Any:
    from model_runner.model.feed_rows import FeedRows

    config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=4))
    return FeedRows(config, torch.device("cpu"), False)


def change(rows: Any, *, added: Any = (), removed: Any = (), moved: Any = ()) -> list[list[int]]:
    from vllm.v1.sample.logits_processor import BatchUpdate

    def params(row: list[int] | None) -> Any:
        return SimpleNamespace(extra_args={FEED_ROW: row} if row else None)

    new = [(index, params(row), [], []) for index, row in added]
    rows.update_state(BatchUpdate(batch_size=4, removed=list(removed), added=new, moved=list(moved)))
    return rows.rows_R3.tolist()


def test_requests_come_go_and_change_places(rows: Any) -> None:
    from vllm.v1.sample.logits_processor import MoveDirectionality

    one_way, swap = MoveDirectionality.UNIDIRECTIONAL, MoveDirectionality.SWAP
    a, b, c = [2**63 - 1, 0, 0], [5, 6, 7], [8, 9, 1]
    buffer = rows.rows_R3
    assert change(rows, added=[(0, a), (1, b), (2, None)]) == [a, b, OWN, OWN]
    assert change(rows, moved=[(0, 1, swap)]) == [b, a, OWN, OWN]
    assert change(rows, removed=[0], moved=[(1, 0, one_way)]) == [a, OWN, OWN, OWN]
    assert change(rows, added=[(0, c), (3, b)]) == [c, OWN, OWN, b]
    assert change(rows, added=[(0, None)]) == [OWN, OWN, OWN, b]  # a donor, or a request without numbers
    assert rows.rows_R3 is buffer  # a captured graph reads this one


def test_a_step_in_which_nobody_moves_changes_nothing(rows: Any) -> None:
    change(rows, added=[(1, [1, 2, 3])])
    rows.update_state(None)
    assert rows.rows_R3[1].tolist() == [1, 2, 3]


def test_logits_are_left_alone(rows: Any) -> None:
    change(rows, added=[(0, [1, 2, 3])])
    logits = torch.tensor([[1.0, 2.0]])
    assert rows.apply(logits.clone()).tolist() == logits.tolist()
    assert rows.is_argmax_invariant()
