"""Two processes over gloo compute what one does: with all parameters each (DDP), and sharded (FSDP2).

One launch serves all cases. There are two CPU processes and no GPU: what NCCL and several GPUs would add is not tested.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.base_folder import Workplace, recipe, workplace
from training.base_model import open_base
from training.frozen_tower import FrozenTower
from training.lesson import Lesson
from training.memory_estimate import sharding_plan
from training.run_log import METRICS_FILE
from training.teacher import SelectionSettings

ROOT = Path(__file__).parents[2]
LAUNCH = ("-m", "accelerate.commands.launch", "--config_file", "training/accelerate/cpu_two_processes.yaml")
# float32, sums in another order, over six steps of AdamW.
TOLERANCE = 1e-4
NUM_SAMPLES = 5  # the third step of an epoch has one sample: the second process fills up
CASES: dict[str, dict[str, Any]] = {
    "ddp-stage1": {"fsdp2": False, "recipe": {"teacher": "ema", "ema_decay": 0.5}},
    "ddp-stage2": {"fsdp2": False, "recipe": {"stage": "stage2"}},
    "fsdp2-stage1": {"fsdp2": True, "recipe": {"teacher": "ema", "ema_decay": 0.5, "gradient_checkpointing": True}},
    "fsdp2-stage2": {"fsdp2": True, "recipe": {"stage": "stage2", "epochs": 1}},
    "ddp-accumulated": {"fsdp2": False, "recipe": {"stage": "stage2", "accumulation": 2}},
    "fsdp2-accumulated": {"fsdp2": True, "recipe": {"teacher": "ema", "ema_decay": 0.5, "accumulation": 2}},
    "fsdp2-lora": {"fsdp2": True, "recipe": {"teacher": "frozen", "lora": True, "lora_dropout": 0.5, "epochs": 1}},
}
# The same as fsdp2-stage1, stopped and gone on with.
STOPPED = {**CASES["fsdp2-stage1"], "out": "stopped"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """With the runs of two processes done. A text-only sample beside others must not hold up sharded ranks."""
    made = workplace(tmp_path_factory.mktemp("processes"), count=NUM_SAMPLES)
    rows = [json.loads(line) for line in made.data.read_text().splitlines()]
    said = [{"type": "text", "content": "no picture at all"}]
    rows[3] = {"text_input": "A question of words.", "image_input": [], "sequence_plan": said}
    made.data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs = {name: {**case, "recipe": {"accumulation": 1, **case["recipe"]}} for name, case in CASES.items()}
    stopped = {**STOPPED, "recipe": runs["fsdp2-stage1"]["recipe"]}
    runs |= {"first": {**stopped, "run": {"stop_after": 2}}, "second": {**stopped, "run": {"resume": True}}}
    (made.folder / "runs.json").write_text(json.dumps(runs))
    done = subprocess.run(
        [sys.executable, *LAUNCH, "-m", "tests.training.two_processes", str(made.folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return made


def logged(made: Workplace, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (made.folder / name / METRICS_FILE).read_text().splitlines()]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_take_the_steps_of_one(made: Workplace, name: str) -> None:
    changes = CASES[name]["recipe"]
    per_step = 2 * changes.get("accumulation", 1)
    last, one = made.run(f"one-{name}", recipe(**{**changes, "accumulation": per_step}))
    two = logged(made, name)
    assert [line["num_samples"] for line in two] == [metrics.num_samples for metrics in one.metrics]
    assert [line["num_samples"] for line in two][:2] == [per_step, min(per_step, NUM_SAMPLES - per_step)]
    assert [line["num_tokens"] for line in two] == [metrics.num_tokens for metrics in one.metrics]
    assert [line["loss"] for line in two] == pytest.approx(one.losses, rel=TOLERANCE)
    assert [line["gradient_norm"] for line in two] == pytest.approx(
        [metrics.gradient_norm for metrics in one.metrics], rel=TOLERANCE
    )
    ours = load_file(made.folder / name / "checkpoints" / last.name / "model.safetensors")
    theirs = load_file(last / "model.safetensors")
    assert ours.keys() == theirs.keys()
    # AdamW moves by signs where gradients are nearly 0; what it moves by in a step is 1e-3 at most.
    far = sum(int(((ours[key] - theirs[key]).abs() > 1e-4).sum()) for key in ours)
    assert far < 1e-3 * sum(tensor.numel() for tensor in ours.values())


def test_a_sharded_run_goes_on_as_if_never_stopped(made: Workplace) -> None:
    whole, parts = logged(made, "fsdp2-stage1"), logged(made, "stopped")
    assert [line["loss"] for line in parts] == [line["loss"] for line in whole]
    weights = [
        load_file(made.folder / name / "checkpoints" / f"step-{len(whole):08}" / "model.safetensors")
        for name in ("fsdp2-stage1", "stopped")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_the_sharding_plan_is_what_fsdp2_does(made: Workplace) -> None:
    """Of the run with a teacher: two decoder layers in student and teacher each, and the root."""
    wanted = recipe(teacher="ema")
    base = open_base(made.base, wanted)
    FrozenTower(base.model)
    lesson = Lesson(base.model, wanted, SelectionSettings(latent_size=8, no_text_ids=frozenset(), image_token_id=0))
    plan = sharding_plan(lesson, 2)
    found = json.loads((made.folder / "plan.json").read_text())[0]
    assert sum(unit.count for unit in plan) == found["units"] == 5
    assert sum(unit.count * unit.part for unit in plan) == found["held"]
