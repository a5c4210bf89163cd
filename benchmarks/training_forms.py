"""One training pass, forward and backward, in each form that ``benchmarks.training`` compares. Batches of one sample,
as released.

No form has the optimizer's step or the teacher's own: they are the same in all.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from benchmarks.naive_training import naive_stage1_loss, naive_stage2_loss
from benchmarks.training_model import IDS, SELECTION, Setting, build, random_sample
from training.batch import collate
from training.frozen_tower import FrozenTower
from training.objective import Objective, Weights
from training.teacher import Targets, Teacher

# Who computes it: the released code's form, and ours.
NAIVE, EMA, CACHED, OURS = "naive", "EMA teacher", "cached targets", "cached keys and values"
STAGE1, STAGE2 = (NAIVE, EMA, CACHED), (NAIVE, OURS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """``stage`` 1 or 2; ``by``: one of STAGE1 or STAGE2; ``recomputed``: activations in the backward pass."""

    stage: int
    by: str
    recomputed: bool

    @property
    def name(self) -> str:
        return f"stage {self.stage}, {self.by}, activations {'recomputed' if self.recomputed else 'kept'}"


FORMS = tuple(
    Form(stage=stage, by=by, recomputed=recomputed)
    for stage, all_by in ((1, STAGE1), (2, STAGE2))
    for recomputed in (True, False)
    for by in all_by
)


@dataclass(frozen=True, slots=True)
class Pass:
    """A form made ready: ``loss`` computes it, and ``targets`` are the last ones that stage 1 was aligned to."""

    loss: Callable[[], Tensor]
    targets: Callable[[], Targets | None]
    model: Qwen2_5_VLForConditionalGeneration
    num_tokens: int

    def run(self) -> float:
        """Loss of one pass, gradients left in the model."""
        self.model.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())


def prepare(form: Form, setting: Setting) -> Pass:
    """The same weights and the same sample for every form of a setting."""
    batch = collate([random_sample(setting)], IDS.end_of_text)
    model = build(setting)
    seen: list[Targets] = []

    def ready(loss: Callable[[], Tensor]) -> Pass:
        model.train()
        if form.recomputed and form.stage == 1:
            model.model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        return Pass(loss, lambda: seen[-1] if seen else None, model, batch.lengths[0])

    if form.by == NAIVE:
        model.model.visual.requires_grad_(False)
        if form.stage == 2:
            return ready(lambda: naive_stage2_loss(model, batch, checkpointed=form.recomputed))
        teacher = Teacher(model, SELECTION)

        def naive_stage1() -> Tensor:
            loss, found = naive_stage1_loss(model, teacher.model, batch, SELECTION)
            seen[:] = [found]
            return loss

        return ready(naive_stage1)

    tower = FrozenTower(model)
    objective = Objective(model, Weights(noise_std=0.0), checkpointed=form.recomputed)
    if form.stage == 2:
        without_helpers = replace(batch, helpers=None)
        return ready(lambda: objective(tower.see(without_helpers), "stage2").total[0])
    teacher = Teacher(model, SELECTION)
    if form.by == CACHED:
        seen.append(teacher.targets(tower.see(batch)))
        del teacher
        without_helpers = replace(batch, helpers=None)
        return ready(lambda: objective(tower.see(without_helpers), "stage1", seen[-1]).total[0])

    def with_teacher() -> Tensor:
        looked_at = tower.see(batch)
        seen[:] = [teacher.targets(looked_at)]
        return objective(looked_at, "stage1", seen[-1]).total[0]

    return ready(with_teacher)
