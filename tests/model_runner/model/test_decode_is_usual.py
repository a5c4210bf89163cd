"""Decode steps of vLLM are such as the compiled latent step knows at a glance, and does not look at any closer."""

from typing import Any

import pytest

from model_runner.kernels.latent_step import host
from tests.model_runner.model.conftest import add_in_a_block
from tests.parity.stepper import Stepper


def test_no_decode_step_is_looked_at_closely(maze_stepper: Stepper, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    check_commit = host.check_commit

    def closely_at_commit(*arguments: Any) -> None:
        looked_at.append("a prompt" if arguments[-1] is not None else "a decode step")
        check_commit(*arguments)

    monkeypatch.setattr(host, "check_inject", lambda *_: looked_at.append("a decode step"))
    monkeypatch.setattr(host, "check_commit", closely_at_commit)
    maze_stepper.start_over()
    for n in range(2):
        add_in_a_block(maze_stepper, f"usual-{n}", max_tokens=20)
    maze_stepper.run()
    assert [len(ids) for ids in maze_stepper.ids.values()] == [20, 20]
    assert set(looked_at) == {"a prompt"}
