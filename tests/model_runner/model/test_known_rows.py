"""``fixed`` blocks: the head does not run for rows whose next token is known, and nothing else changes."""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace as changed
from torch import Tensor

from tests.model_runner.model.conftest import add_in_a_block
from tests.parity.stepper import Stepper

NUM_TOKENS = 24


@pytest.fixture
def fixed_stepper(maze_stepper: Stepper) -> Iterator[Stepper]:
    model = maze_stepper.model
    spec, model.spec = model.spec, changed(model.spec, rule="fixed")
    some_from = model.skips_some_from
    yield maze_stepper
    model.spec, model.skips_known_rows, model.skips_some_from = spec, True, some_from


def answers(stepper: Stepper) -> tuple[dict[str, list[int]], list[tuple[int, int]]]:
    """Ids of three requests that begin one step after the other, and (rows, rows through the head) of each step."""
    rows: list[tuple[int, int]] = []
    through_head: list[int] = []
    language_model, compute_logits = stepper.model.language_model, stepper.model.compute_logits
    head = language_model.compute_logits

    def counted_head(hidden_RD: Tensor) -> Tensor:
        through_head.append(len(hidden_RD))
        logits_RV: Tensor = head(hidden_RD)
        return logits_RV

    def counted(hidden_RD: Tensor) -> Tensor:
        through_head.clear()
        logits_RV: Tensor = compute_logits(hidden_RD)
        rows.append((len(hidden_RD), sum(through_head)))
        return logits_RV

    stepper.start_over()
    language_model.compute_logits, stepper.model.compute_logits = counted_head, counted
    try:
        for n in range(3):
            add_in_a_block(stepper, f"known-{n}", max_tokens=NUM_TOKENS)
            stepper.step()
        stepper.run()
    finally:
        del language_model.compute_logits, stepper.model.compute_logits
    return {name: list(ids) for name, ids in stepper.ids.items()}, rows


def test_the_head_runs_for_open_rows_alone_and_the_tokens_are_the_same(fixed_stepper: Stepper) -> None:
    spec = fixed_stepper.model.spec
    fixed_stepper.model.skips_some_from = 1
    skipped, rows = answers(fixed_stepper)
    fixed_stepper.model.skips_known_rows = False
    whole, all_rows = answers(fixed_stepper)
    assert skipped == whole
    assert all(ids[:9] == [spec.pad_id] * 8 + [spec.end_id] for ids in skipped.values())
    assert all(num_rows == num_computed for num_rows, num_computed in all_rows)
    assert [num_rows for num_rows, _ in rows] == [num_rows for num_rows, _ in all_rows]
    # Known are the pads and END of each block; outside of blocks neither is possible.
    known = sum(token in (spec.pad_id, spec.end_id) for ids in skipped.values() for token in ids)
    assert sum(num_rows - num_computed for num_rows, num_computed in rows) == known >= 3 * 9
    assert any(num_computed == 0 for _, num_computed in rows)
    assert any(0 < num_computed < num_rows for num_rows, num_computed in rows)


def test_few_known_rows_of_a_small_head_are_not_worth_picking_the_others(fixed_stepper: Stepper) -> None:
    """A head of 384 by 128: 2**20 multiplications are 22 rows. Three are never that many: all or none are skipped."""
    assert fixed_stepper.model.skips_some_from == 22
    kept, rows = answers(fixed_stepper)
    fixed_stepper.model.skips_some_from = 1
    assert kept == answers(fixed_stepper)[0]
    assert {num_computed for _, num_computed in rows} == {0, 1, 2, 3}
    assert all(num_computed in (0, num_rows) for num_rows, num_computed in rows)
