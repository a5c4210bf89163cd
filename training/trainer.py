"""Stage 1 and stage 2 on any data, on one process or many: base model, data and recipe in, checkpoints out.

One process, DDP, FSDP2 and DeepSpeed ZeRO-3 run the same code, by Accelerate. What a step computes depends neither on
how many processes share it (see ``training.data_order``) nor on where a run was stopped and went on.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.utils import DistributedType, broadcast_object_list, gather_object  # type: ignore[import-untyped]
from torch import Tensor

from contracts.errors import BadSettings
from training.accelerators import is_sharded, make_accelerator
from training.base_model import open_base
from training.checkpoint_folders import CheckpointFolders
from training.data_order import DataOrder
from training.forward import pads_by_round
from training.frozen_targets import fill_cache
from training.frozen_tower import FrozenTower
from training.lesson import Lesson, has_moving_teacher
from training.lora import inject_lora
from training.micro_batches import MicroBatches, Prepared, loaded
from training.optimizer import learning_rate, make_optimizer
from training.run import Reporter, Run, Silent
from training.run_log import Metrics, RunLog
from training.run_state import Identity, load_state, save_state
from training.sample_lengths import fitting
from training.samples import Sample, read_samples
from training.stage_checkpoint import write_checkpoint
from training.start_checks import check_order_is_given, check_out, check_tower_sees
from training.target_cache import TargetCache, file_sha256, folder_sha256
from training.teacher import SelectionSettings, Targets
from training.writing import writing

LOSSES = ("total", "cross_entropy", "similarity")


def train(run: Run, reporter: Reporter) -> Path:
    """The last checkpoint of the run.

    Raises:
        BadSettings, BadCheckpoint, InvalidRequest: recipe, model or data cannot be used, in one sentence each.
    """
    accelerator = make_accelerator(run.recipe)
    return Trainer(run, accelerator, reporter if accelerator.is_main_process else Silent()).train()


class Trainer:
    """One run. Everything up to the first step happens in the constructor."""

    def __init__(self, run: Run, accelerator: Accelerator, reporter: Reporter) -> None:
        self._run, self._accelerator, self._reporter = run, accelerator, reporter
        recipe = run.recipe
        self._folders = CheckpointFolders(run.out, recipe.keep_checkpoints)
        check_out(run, self._folders)
        found = read_samples(run.data, run.image_root)  # before the weights, which take minutes
        check_order_is_given(recipe, found)
        self._base = open_base(run.model, recipe)
        self._tell_about_tokens()
        self._samples = self._fitting(found)
        self._tower = FrozenTower(self._base.model) if recipe.freeze_tower else None
        if self._tower is not None:
            self._tower.module.to(accelerator.device, torch.bfloat16 if recipe.precision == "bf16" else torch.float32)
        self._settings = SelectionSettings(
            latent_size=recipe.latent_size,
            no_text_ids=self._base.encoder.no_text_ids,
            image_token_id=self._base.encoder.image_token_id,
            top_p=recipe.top_p,
            grouping=recipe.grouping,
            selection=recipe.selection,
        )
        self._model_sha256 = self._on_main(lambda: folder_sha256(run.model))
        self._cache, self._keys = self._frozen_targets()
        self._lesson, self._optimizer = self._prepared()
        self._order = DataOrder(
            num_samples=len(self._samples),
            batch_size=recipe.batch_size,
            passes=recipe.accumulation * accelerator.num_processes,
            epochs=recipe.epochs,
            seed=recipe.seed,
        )
        self._identity = Identity.of(recipe, self._order, file_sha256(run.data), self._model_sha256)
        self._step = 0
        latest = self._folders.latest()
        if latest is not None:
            self._step = load_state(accelerator, latest, self._identity)
            reporter.note(f"going on from {latest}, step {self._step} of {self._order.num_steps}")

    def train(self) -> Path:
        """Run to the end, or to the step to stop after; the last checkpoint."""
        recipe, accelerator = self._run.recipe, self._accelerator
        last_step = min(self._order.num_steps, self._run.stop_after or self._order.num_steps)
        data = MicroBatches(
            samples=self._samples,
            encoder=self._base.encoder,
            order=self._order,
            first_step=self._step,
            process=accelerator.process_index,
            num_processes=accelerator.num_processes,
            with_helpers=has_moving_teacher(recipe),
            cache=self._cache,
            keys=self._keys,
        )
        self._lesson.train()
        batches = loaded(data, self._run.num_workers)
        log = RunLog(self._run.out, self._step + 1) if accelerator.is_main_process else None
        try:
            while self._step < last_step:
                metrics = self._make_step(batches)
                if log is not None:
                    log.write(metrics)
                self._reporter.step(metrics)
                if self._step % recipe.save_every_steps == 0 or self._step == last_step:
                    with writing(self._folders.folder):
                        self._save()
        finally:
            if log is not None:
                log.close()
        latest = self._folders.latest()
        assert latest is not None  # the last step was saved
        return latest

    def _make_step(self, batches: Iterator[Prepared]) -> Metrics:
        """All passes of one optimizer step, and the teacher's step after it."""
        recipe, accelerator = self._run.recipe, self._accelerator
        started_s = time.monotonic()
        rate = learning_rate(recipe, self._step, self._order.num_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        sums = torch.zeros(3, dtype=torch.float64, device=accelerator.device)  # of the losses
        counts = torch.zeros(2, dtype=torch.int64, device=accelerator.device)  # samples, tokens
        norm: Any = None
        for _ in range(recipe.accumulation):
            prepared = next(batches)
            with accelerator.accumulate(self._lesson):
                losses = self._forward(prepared)
                accelerator.backward(losses["total"].sum() * prepared.weight)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(self._lesson.parameters(), recipe.max_grad_norm)
                self._optimizer.step()
                self._optimizer.zero_grad()
            share = prepared.weight / self._order.passes  # of each sample in the mean over the step
            found = [losses.get(name, losses["total"].new_zeros(1)) for name in LOSSES]
            sums += share * torch.stack([one.detach().double().sum() for one in found])
            counts += torch.tensor([prepared.num_samples, prepared.num_tokens], device=accelerator.device)
        accelerator.unwrap_model(self._lesson).follow()
        sums, counts = (accelerator.reduce(one, "sum") for one in (sums, counts))
        self._step += 1
        has_similarity = "similarity" in losses
        return self._metrics(sums.tolist(), counts.tolist(), rate, norm, time.monotonic() - started_s, has_similarity)

    def _metrics(
        self, sums: list[float], counts: list[int], rate: float, norm: Any, step_s: float, has_similarity: bool
    ) -> Metrics:
        total, cross_entropy, similarity = sums
        num_samples, num_tokens = counts
        gradient_norm = None if norm is None else float(norm)
        self._check_finite({"loss": total, "gradient norm": 0.0 if gradient_norm is None else gradient_norm})
        return Metrics(
            step=self._step,
            num_steps=self._order.num_steps,
            epoch=(self._step - 1) // self._order.steps_per_epoch,
            loss=total,
            cross_entropy=cross_entropy,
            similarity=similarity if has_similarity else None,
            learning_rate=rate,
            gradient_norm=gradient_norm,
            num_samples=num_samples,
            num_tokens=num_tokens,
            step_s=step_s,
            tokens_per_s=num_tokens / step_s,
        )

    def _check_finite(self, values: Mapping[str, float]) -> None:
        """Raises ``BadSettings`` before anything of a step that has diverged is saved."""
        for name, value in values.items():
            if not math.isfinite(value):
                latest = self._folders.latest()
                # Not --resume, which keeps the rate that diverged.
                begin = "" if latest is None else f", --model {latest}"
                raise BadSettings(
                    f"the {name} of step {self._step} is {value}: training has diverged; start another run with a "
                    f"smaller learning_rate{begin} and another --out"
                )

    def _forward(self, prepared: Prepared) -> dict[str, Tensor]:
        device = self._accelerator.device
        torch.manual_seed(prepared.seed)  # noise and dropout: the same in whichever process, after whichever stop
        batch, given = prepared.batch.to(device), prepared.targets
        if self._tower is not None:
            batch = self._tower.see(batch)
        if given is not None:
            given = Targets(given.vectors_SH.to(device), given.row_S.to(device), given.column_S.to(device))
        least_pads: Sequence[int] = ()
        if self._run.recipe.stage == "stage2" and is_sharded(self._accelerator):
            needed: list[list[int]] = gather_object([pads_by_round(batch)])
            least_pads = [max(pads) for pads in _columns(needed)]
        losses: dict[str, Tensor] = self._lesson(batch, given, least_pads)
        return losses

    def _tell_about_tokens(self) -> None:
        if self._base.num_added_tokens:
            self._reporter.note(f"{self._base.num_added_tokens} of ILVR's tokens were added to the tokenizer")
        if self._base.num_new_rows:
            self._reporter.note(f"{self._base.num_new_rows} embedding rows were added, near the mean of the others")

    def _fitting(self, found: Sequence[Sample]) -> list[Sample]:
        recipe = self._run.recipe
        fit = fitting(
            self._base.encoder,
            found,
            recipe.max_length,
            is_error=recipe.too_long == "error",
            with_helpers=recipe.stage == "stage1",
        )
        if fit.warning:
            self._reporter.note(f"warning: {fit.warning}")
        check_tower_sees(recipe, fit.samples, self._accelerator.num_processes)
        return fit.samples

    def _frozen_targets(self) -> tuple[TargetCache | None, Sequence[str]]:
        """Nothing where no frozen teacher is needed."""
        run, recipe = self._run, self._run.recipe
        if recipe.stage != "stage1" or has_moving_teacher(recipe):
            return None, ()
        return fill_cache(
            run.cache or run.out / "targets",
            self._accelerator,
            self._base,
            self._model_sha256,
            self._tower,
            self._samples,
            recipe,
            self._settings,
            self._reporter.targets,
        )

    def _prepared(self) -> tuple[Any, Any]:
        """The lesson and its optimizer, wrapped for whatever distributes them."""
        recipe, model = self._run.recipe, self._base.model
        if recipe.lora:
            model.requires_grad_(False)
            inject_lora(model.model.language_model, recipe)
        if recipe.gradient_checkpointing and recipe.stage == "stage1":
            # In stage 2 this would drop the keys and values that latents look back at; the objective does it there.
            model.model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        lesson = Lesson(model, recipe, self._settings)
        lesson, optimizer = self._accelerator.prepare(lesson, make_optimizer(lesson, recipe))
        if self._accelerator.gradient_accumulation_steps != recipe.accumulation:
            raise BadSettings("gradient_accumulation_steps of the DeepSpeed config must be the recipe's: leave it out")
        return lesson, optimizer

    def _save(self) -> None:
        """A checkpoint of this step: weights to serve, and the state to go on from."""
        accelerator, recipe = self._accelerator, self._run.recipe
        partial = self._folders.partial(self._step)
        if accelerator.is_main_process:
            self._folders.begin(self._step)
        accelerator.wait_for_everyone()
        save_state(accelerator, partial, self._identity, self._step)
        # DeepSpeed gathers what it has wrapped; from others only the student is asked for, and not its teacher.
        is_deepspeed = accelerator.distributed_type == DistributedType.DEEPSPEED
        whole = self._lesson if is_deepspeed else accelerator.unwrap_model(self._lesson).objective
        tensors = accelerator.get_state_dict(whole)
        if accelerator.is_main_process:
            prefix = "objective.model." if is_deepspeed else "model."
            trained = {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
            tower = self._tower.module.state_dict() if self._tower else {}
            made = {**self._run.created_by, "step": self._step, **self._identity.described()}
            write_checkpoint(partial, self._base, trained, tower, recipe, made)
            self._folders.finish(self._step)
        accelerator.wait_for_everyone()

    def _on_main(self, compute: Any) -> Any:
        """A value that the main process computes, in all of them."""
        found = [compute() if self._accelerator.is_main_process else None]
        return broadcast_object_list(found)[0]


def _columns(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    for index in range(max(map(len, rows))):
        yield [row[index] for row in rows if index < len(row)]
