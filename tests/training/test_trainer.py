"""The trainer in one process: what a step is, going on after a stop, the teacher, memory savers, refusals."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLDecoderLayer

from contracts.errors import BadSettings, InvalidRequest
from tests.training.base_folder import TOLERANCE, Workplace, recipe, workplace
from training import trainer
from training.optimizer import learning_rate
from training.recipes import tiny_paper
from training.run_log import METRICS_FILE

# AdamW with so large an epsilon moves each parameter nearly in proportion to its gradient; with the usual one it moves
# by the gradient's sign, and that of a gradient of 1e-9 is chance.
SMOOTH = {"adam_epsilon": 1.0, "learning_rate": 0.1, "warmup_steps": 0, "target_noise": 0.0}


def state(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Parameters as the run goes on with them: ``objective.model.*`` and, if it moves, ``teacher.*``."""
    return load_file(checkpoint / "state" / "model.safetensors")


def assert_equal(got: Path, want: Path) -> None:
    ours, theirs = state(got), state(want)
    assert ours.keys() == theirs.keys()
    assert [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])] == []


def assert_close(got: Path, want: Path) -> None:
    """Parameters differ by no more than float32 sums in another order do: a thousandth of what a step moves them."""
    ours, theirs = state(got), state(want)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-6, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return workplace(tmp_path_factory.mktemp("trainer"))


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_eight_passes_of_one_are_one_pass_of_eight(tmp_path: Path, stage: str) -> None:
    """Also in the second step, for which six samples are left: two passes have none and weigh nothing."""
    made = workplace(tmp_path, count=14)
    ones, heard_ones = made.run("ones", recipe(stage=stage, batch_size=1, accumulation=8, epochs=1, **SMOOTH))
    eight, heard_eight = made.run("eight", recipe(stage=stage, batch_size=8, accumulation=1, epochs=1, **SMOOTH))
    assert [one.num_samples for one in heard_ones.metrics] == [8, 6]
    assert heard_ones.losses == pytest.approx(heard_eight.losses, rel=TOLERANCE)
    norms = [[one.gradient_norm for one in heard.metrics] for heard in (heard_ones, heard_eight)]
    assert norms[0] == pytest.approx(norms[1], rel=TOLERANCE)
    assert_close(ones, eight)


@pytest.mark.parametrize(
    "wanted",
    [
        {"teacher": "ema", "ema_decay": 0.5},
        {"teacher": "frozen", "lora": True, "lora_dropout": 0.5},
        {"stage": "stage2", "batch_size": 2, "accumulation": 1},
    ],
    ids=["stage1-ema", "stage1-lora", "stage2"],
)
def test_a_run_that_was_stopped_goes_on_bit_by_bit(made: Workplace, tmp_path: Path, wanted: dict[str, Any]) -> None:
    """With noise on targets and dropout, and stopped within an epoch; the optimizer's moments decide later steps."""
    whole, heard = made.run(str(tmp_path / "whole"), recipe(**wanted))
    _, first = made.run(str(tmp_path / "parts"), recipe(**wanted), stop_after=1)
    # What happens between the two parts must not matter.
    torch.manual_seed(1234)
    _, second = made.run(str(tmp_path / "parts"), recipe(**wanted), resume=True, stop_after=3)
    parts, third = made.run(str(tmp_path / "parts"), recipe(**wanted), resume=True)
    assert first.losses + second.losses + third.losses == heard.losses
    assert_equal(parts, whole)
    names = ("model.safetensors", "ilvr.json")
    assert [(parts / name).read_bytes() == (whole / name).read_bytes() for name in names] == [True, True]
    lines = [(tmp_path / out / METRICS_FILE).read_text().splitlines() for out in ("whole", "parts")]
    timeless = [[{k: v for k, v in json.loads(one).items() if not k.endswith("_s")} for one in part] for part in lines]
    assert timeless[0] == timeless[1]


def test_resume_begins_where_there_is_nothing(made: Workplace, tmp_path: Path) -> None:
    _, heard = made.run(str(tmp_path / "new"), recipe(), resume=True, stop_after=1)
    assert [one.step for one in heard.metrics] == [1]


def test_a_finished_run_has_nothing_to_go_on_with(made: Workplace, tmp_path: Path) -> None:
    last, _ = made.run(str(tmp_path / "out"), recipe(epochs=1))
    again, heard = made.run(str(tmp_path / "out"), recipe(epochs=1), resume=True)
    assert (again, heard.metrics) == (last, [])


def test_the_teacher_follows_by_moving_average(made: Workplace, tmp_path: Path) -> None:
    """After one step xi = 0.75 xi + 0.25 theta, and the teacher began as the student."""
    wanted = recipe(teacher="ema", ema_decay=0.75, warmup_steps=0)
    after = state(made.run(str(tmp_path / "ema"), wanted, stop_after=1)[0])
    before = state(made.run(str(tmp_path / "none"), recipe(teacher="ema", learning_rate=1e-30), stop_after=1)[0])
    moved = 0
    for name, tensor in after.items():
        if name.startswith("teacher."):
            student = name.replace("teacher.", "objective.model.")
            moved += not torch.equal(after[student], before[student])
            torch.testing.assert_close(tensor, 0.75 * before[student] + 0.25 * after[student], rtol=1e-6, atol=1e-7)
    assert moved > 20


def test_a_moving_teacher_gives_other_targets_from_the_second_step_on(made: Workplace, tmp_path: Path) -> None:
    quick = {"learning_rate": 1e-2, "warmup_steps": 0, "epochs": 1}
    _, frozen = made.run(str(tmp_path / "frozen"), recipe(**quick))
    _, moving = made.run(str(tmp_path / "moving"), recipe(teacher="ema", ema_decay=0.0, **quick))
    assert moving.losses[0] == pytest.approx(frozen.losses[0], rel=TOLERANCE)
    assert moving.losses[1] != pytest.approx(frozen.losses[1], rel=1e-3)


def test_losses_fall(made: Workplace, tmp_path: Path) -> None:
    _, heard = made.run(str(tmp_path / "out"), recipe(learning_rate=1e-2, epochs=5))
    assert heard.losses[-1] < 0.7 * heard.losses[0]
    assert all(one.loss == pytest.approx(one.cross_entropy + (one.similarity or 0)) for one in heard.metrics)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_recomputed_activations_give_the_same_gradients(
    made: Workplace, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [0]
    real = Qwen2_5_VLDecoderLayer.forward

    def counting(*given: Any, **named: Any) -> Any:
        calls[0] += 1
        return real(*given, **named)

    monkeypatch.setattr(Qwen2_5_VLDecoderLayer, "forward", counting)
    found = []
    for checkpointed in (False, True):
        calls[0] = 0
        wanted = recipe(stage=stage, gradient_checkpointing=checkpointed, **SMOOTH)
        out = str(tmp_path / f"{checkpointed}")
        found.append((*made.run(out, wanted, stop_after=1, cache=tmp_path / "cache"), calls[0]))
    (plain, heard_plain, calls_plain), (recomputed, heard_recomputed, calls_recomputed) = found
    teacher_calls = 2 * 4 if stage == "stage1" else 0  # 2 layers, 4 samples, in the first run only
    assert calls_recomputed == 2 * (calls_plain - teacher_calls)
    assert heard_recomputed.metrics[0].gradient_norm == pytest.approx(heard_plain.metrics[0].gradient_norm, rel=1e-6)
    assert_close(recomputed, plain)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_bf16_stays_near_float32_and_keeps_float32_weights(made: Workplace, tmp_path: Path, stage: str) -> None:
    _, exact = made.run(str(tmp_path / "fp32"), recipe(stage=stage, epochs=1))
    wanted = recipe(stage=stage, epochs=1, precision="bf16", saved_dtype="bfloat16")
    last, heard = made.run(str(tmp_path / "bf16"), wanted)
    assert heard.losses == pytest.approx(exact.losses, rel=0.02)  # bf16 has 8 bits: 0.4 % a rounding
    assert heard.losses != exact.losses
    assert {tensor.dtype for tensor in state(last).values()} == {torch.float32}
    assert {tensor.dtype for tensor in load_file(last / "model.safetensors").values()} == {torch.bfloat16}


def test_a_tower_is_trained_only_if_the_recipe_says_so(made: Workplace, tmp_path: Path) -> None:
    base = load_file(made.base / "model.safetensors")
    for is_frozen in (True, False):
        last, _ = made.run(str(tmp_path / str(is_frozen)), recipe(freeze_tower=is_frozen, epochs=1))
        got = load_file(last / "model.safetensors")
        assert got.keys() == base.keys()
        same = {name for name in base if torch.equal(got[name], base[name])}
        tower = {name for name in base if name.startswith("visual.")}
        assert tower
        assert same == (tower if is_frozen else set())


def test_a_frozen_and_a_trained_tower_see_the_same(made: Workplace, tmp_path: Path) -> None:
    losses = [
        made.run(
            str(tmp_path / f"{is_frozen}{teacher}"), recipe(freeze_tower=is_frozen, teacher=teacher), stop_after=1
        )[1].losses[0]
        for is_frozen in (True, False)
        for teacher in ("frozen", "ema")
    ]
    assert losses == pytest.approx([losses[0]] * 4, rel=TOLERANCE)


def test_an_interrupted_save_leaves_no_checkpoint(
    made: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(folder: Path, *given: Any) -> None:
        (folder / "model.safetensors").write_bytes(b"half of it")
        raise KeyboardInterrupt

    wanted = recipe(save_every_steps=1, epochs=1)
    out = str(tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "write_checkpoint", stopped)
        with pytest.raises(KeyboardInterrupt):
            made.run(out, wanted)
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == [".partial-step-00000001"]
    last, heard = made.run(out, wanted, resume=True)
    assert [one.step for one in heard.metrics] == [1, 2]
    names = sorted(path.name for path in last.parent.iterdir())
    assert names == ["step-00000001", "step-00000002"]


def test_long_samples_are_left_out_aloud_or_refused(made: Workplace, tmp_path: Path) -> None:
    """Samples of three blocks and of two stand in turn in the file, and differ in length."""
    with pytest.raises(InvalidRequest, match=r"longer than max_length 10: train.jsonl:1 ") as caught:
        made.run(str(tmp_path / "none"), recipe(max_length=10))
    lengths = sorted({int(number) for number in re.findall(r"\((\d+) tokens\)", str(caught.value))})
    assert len(lengths) == 2
    _, heard = made.run(str(tmp_path / "drop"), recipe(max_length=lengths[0], epochs=1))
    (warning,) = heard.notes
    assert warning.startswith(f"warning: left out 2 of 4 samples, longer than max_length {lengths[0]}: train.jsonl:")
    assert sum(one.num_samples for one in heard.metrics) == 2
    with pytest.raises(InvalidRequest, match=f"longer than max_length {lengths[0]}: train.jsonl:"):
        made.run(str(tmp_path / "error"), recipe(max_length=lengths[0], too_long="error"))


def test_another_run_is_not_gone_on_with(made: Workplace, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    made.run(out, recipe(), stop_after=1)
    with pytest.raises(BadSettings, match="has checkpoints of a run; go on with --resume"):
        made.run(out, recipe())
    for changed, told in (
        (recipe(learning_rate=0.5), "was made with learning_rate 0.001, not 0.5"),
        (recipe(accumulation=4), "samples_per_step was 2 and is 4 now"),
    ):
        with pytest.raises(BadSettings, match=told):
            made.run(out, changed, resume=True)
    other = tmp_path / "other.jsonl"
    other.write_text(made.data.read_text().replace("0. ", "9. ", 1))
    with pytest.raises(BadSettings, match="data_sha256 was"):
        made.run(out, recipe(), resume=True, data=other)


def test_a_loss_that_is_no_number_stops_the_run(made: Workplace, tmp_path: Path) -> None:
    told = "training has diverged; start another run with a smaller learning_rate and another --out$"
    with pytest.raises(BadSettings, match=told):
        made.run(str(tmp_path / "out"), recipe(learning_rate=1e30, warmup_steps=0, max_grad_norm=1e30))


def test_a_gradient_that_is_no_number_is_not_saved(
    made: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the second step. The advice can be followed: the checkpoint before it begins a run with another rate."""
    norms = iter([1.0, float("inf")])
    with monkeypatch.context() as patched:
        patched.setattr(Accelerator, "clip_grad_norm_", lambda *_: torch.tensor(next(norms)))
        with pytest.raises(BadSettings, match="the gradient norm of step 2 is inf: training has diverged") as caught:
            made.run(str(tmp_path / "out"), recipe(save_every_steps=1, epochs=1))
    (checkpoint,) = (tmp_path / "out" / "checkpoints").iterdir()
    assert f"--model {checkpoint} and another --out" in str(caught.value)
    _, heard = made.run(str(tmp_path / "new"), recipe(learning_rate=1e-5, epochs=1), model=checkpoint)
    assert [one.step for one in heard.metrics] == [1, 2]


def test_an_order_that_the_data_lacks_is_told_before_the_weights_are_read(
    made: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third row lacks it in its last block. Stage 2 has no targets, and needs none."""
    rows = [json.loads(line) for line in made.data.read_text().splitlines()]
    latents = [[step for step in row["sequence_plan"] if step["type"] == "latent"] for row in rows]
    for step in [one for row in latents for one in row]:
        step["target_cells"] = [0]
    del latents[2][-1]["target_cells"]
    data = tmp_path / "some.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    place = rows[2]["sequence_plan"].index(latents[2][-1])
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "open_base", lambda *_: pytest.fail("the weights were read"))
        with pytest.raises(InvalidRequest, match=rf"^some\.jsonl:3: sequence_plan\[{place}\] has no target_cells"):
            made.run(str(tmp_path / "out"), recipe(selection="ordered"), data=data)
    made.run(str(tmp_path / "two"), recipe(stage="stage2", selection="ordered"), data=data, stop_after=1)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: disk full")])
def test_a_disk_that_is_full_is_told_with_its_folder(
    made: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(trainer, "write_checkpoint", full)
    checkpoints = tmp_path / "out" / "checkpoints"
    with pytest.raises(BadSettings, match=rf"^cannot write to {checkpoints}: (No space left|I/O error)"):
        made.run(str(tmp_path / "out"), recipe(), stop_after=1)


def test_the_rate_rises_and_falls_linearly() -> None:
    """10 of 110 steps of warm-up from 0; then to 0 at step 110, which is never taken."""
    wanted = recipe(learning_rate=1.0, warmup_steps=10)
    assert [learning_rate(wanted, step, 110) for step in (0, 5, 10, 60, 109)] == pytest.approx([0, 0.5, 1, 0.5, 0.01])
    assert learning_rate(recipe(learning_rate=1.0, warmup_steps=10, schedule="constant"), 109, 110) == 1.0
    assert tiny_paper("stage1").schedule == "linear"


def test_workers_encode_ahead_and_change_nothing(made: Workplace, tmp_path: Path) -> None:
    _, alone = made.run(str(tmp_path / "alone"), recipe(epochs=1))
    _, helped = made.run(str(tmp_path / "helped"), recipe(epochs=1), num_workers=1)
    assert helped.losses == alone.losses
