"""Compare training with recorded numbers of the published code: ``python -m training.golden DIR``.

DIR holds a recorded training step of the released code (``train.json``, ``train.npz``) and what its tiny checkpoint is
made from (``spec-X.json``, ``gen_weights.py``, ``build_ckpts.py``, ``tok/``, ``ckpt-X-config/``) with ``images/``. Only
the checkpoint that ``train.json`` names is made. Prints the largest differences and ends with 1 if a label or an index
differs, or a number by more than its bound.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from contracts.manifest import LatentSpec, read_latent_spec
from training.batch import Batch, PixelImages, collate
from training.comparison import Comparison
from training.encoding import Encoder, load_encoder
from training.forward import embeddings, hidden_states, self_fed_hidden_states
from training.objective import Losses, Objective, Stage, Weights
from training.published_layout import published_name
from training.samples import Sample, read_samples
from training.selection import NUM_GROUPS
from training.teacher import SelectionSettings, Targets, targets, targets_from_states


@dataclass(frozen=True)
class Recording:
    """A folder of recorded numbers, opened: the checkpoint is made and loaded in float32."""

    folder: Path
    content: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    encoder: Encoder
    model: Qwen2_5_VLForConditionalGeneration
    spec: LatentSpec
    samples: Sequence[Sample]

    @property
    def settings(self) -> SelectionSettings:
        """The recorded hyperparameters."""
        return SelectionSettings(
            latent_size=self.spec.size,
            no_text_ids=self.encoder.no_text_ids,
            image_token_id=self.encoder.image_token_id,
            top_p=self.content["hyper"]["coverage_p"],
            num_groups=self.content["hyper"].get("helper_group_L", NUM_GROUPS),
        )

    @property
    def weights(self) -> Weights:
        """The recorded weights of the losses and the noise."""
        hyper = self.content["hyper"]
        return Weights(cross_entropy=hyper["ce_weight"], alignment=hyper["sim_weight"], noise_std=hyper["target_noise"])


def open_recording(folder: Path, scratch: Path) -> Recording:
    """Make and load the checkpoint that the recording names, in ``scratch``."""
    content = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    name = content["checkpoint"].removeprefix("ckpt-")
    command = [sys.executable, str(folder / "build_ckpts.py"), str(scratch), name]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise SystemExit(f"the checkpoint cannot be made: {made.stdout}{made.stderr}")
    checkpoint = scratch / content["checkpoint"]
    spec = read_latent_spec(checkpoint)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation=content.get("attn", "eager")
    )
    model.model.visual.requires_grad_(False)  # the released code trains everything else
    with np.load(folder / "train.npz") as arrays:
        recorded = dict(arrays)
    rows = scratch / "samples.jsonl"
    rows.write_text("".join(json.dumps(one["sample"]) + "\n" for one in content["samples"]), encoding="utf-8")
    samples = read_samples(rows, folder / "images")
    return Recording(folder, content, recorded, load_encoder(checkpoint, spec.size), model, spec, samples)


def compare(recording: Recording) -> Comparison:
    """All recorded quantities of all samples."""
    found = Comparison()
    for number, (sample, recorded) in enumerate(zip(recording.samples, recording.content["samples"], strict=True)):
        batch = collate([recording.encoder.encode(sample)], recording.encoder.padding_id)
        where = f"sample {number}"
        _compare_inputs(found, recording, batch, number, recorded, where)
        with torch.no_grad():
            embedded, _ = embeddings(recording.model, batch)
            states = hidden_states(recording.model, embedded, batch.positions_3BT)
        selected = targets_from_states(recording.model, batch, states, recording.settings)
        _compare_selection(found, recording, selected, states, number, recorded["stage1"], where)
        _compare_stage1(found, recording, batch, selected, recorded["stage1"], number, where)
        _compare_stage2(found, recording, batch, selected, recorded.get("stage2", {}), number, where)
        _compare_raw_pads(found, recording, batch, recorded, where)
    _compare_cut_vocabulary(found, recording)
    return found


def _compare_inputs(
    found: Comparison, recording: Recording, batch: Batch, number: int, recorded: Mapping[str, Any], where: str
) -> None:
    found.exact("input ids", batch.ids_BT[0].tolist(), recorded["input_ids"], where)
    found.exact("labels", batch.labels_BT[0].tolist(), recorded["labels"], where)
    for name, images in (("pixel_values", batch.images), ("pixel_values_latent", batch.helpers)):
        want = recording.arrays.get(f"s{number}_{name}")
        if want is not None and isinstance(images, PixelImages):
            found.vector("pixel values", images.values_PX, want, f"{where} {name}")


def _compare_selection(
    found: Comparison,
    recording: Recording,
    selected: Targets,
    states_BTH: Tensor,
    number: int,
    recorded: Mapping[str, Any],
    where: str,
) -> None:
    arrays, prefix = recording.arrays, f"s{number}_st1"
    found.vector("teacher's hidden states", states_BTH[0], arrays[f"{prefix}_teacher_hidden"], where)
    if selected.users_BH:
        found.vector("u", selected.users_BH[0], arrays[f"{prefix}_u"], where)
    found.exact("selected candidates", selected.chosen[0], recorded["selected"], where)
    found.exact("K*", [len(block.chosen) for block in selected.blocks[0]], recorded["Kstar"], where)
    found.exact("filled positions", selected.column_S.tolist(), recorded["firstK_positions"], where)
    for index, block in enumerate(selected.blocks[0]):
        assert block.query_H is not None
        assert block.similarity_C is not None
        found.vector("queries", block.query_H, arrays[f"{prefix}_q"][index], f"{where} block {index}")
        found.vector("similarities", block.similarity_C, arrays[f"{prefix}_sim{index}"], f"{where} block {index}")
    found.vector("teacher's latents", selected.vectors_SH, arrays[f"{prefix}_teacher_latents"], where)


def _compare_stage1(
    found: Comparison,
    recording: Recording,
    batch: Batch,
    selected: Targets,
    recorded: Mapping[str, Any],
    number: int,
    where: str,
) -> None:
    losses = _run(found, recording, batch, "stage1", selected, recorded, "stage 1", where)
    assert losses.cosine_S is not None
    want = np.asarray(recorded["per_position_cos"], dtype=np.float32)
    found.vector("stage 1 cosine of each latent", losses.cosine_S, want, where)
    found.vector("stage 1 hidden states", losses.states_BTH[0], recording.arrays[f"s{number}_st1_hidden"], where)


def _compare_stage2(
    found: Comparison,
    recording: Recording,
    batch: Batch,
    selected: Targets,
    recorded: Mapping[str, Any],
    number: int,
    where: str,
) -> None:
    """The released trainer on a stage-2 model, with a teacher of either stage, and the plain loss."""
    if "ce_only_forward" in recorded:
        losses = _run(found, recording, batch, "stage2", None, recorded["ce_only_forward"], "stage 2", where)
        hidden = recording.arrays.get(f"s{number}_st2_ce_hidden")
        if hidden is not None:
            found.vector("stage 2 hidden states", losses.states_BTH[0], hidden, where)
    for key, name in (
        ("trainer_teacher_stage1", "stage 2 aligned"),
        ("trainer_teacher_stage2", "stage 2 self-fed teacher"),
    ):
        if key not in recorded:
            continue
        chosen = selected
        if key == "trainer_teacher_stage2":
            with torch.no_grad():
                embedded, _ = embeddings(recording.model, batch)
                states = self_fed_hidden_states(recording.model, batch, embedded)
            chosen = targets_from_states(recording.model, batch, states, recording.settings)
        found.exact(f"{name} selected", chosen.chosen[0], recorded[key]["selected"], where)
        _run(found, recording, batch, "stage2", chosen, recorded[key], name, where)


def _compare_raw_pads(
    found: Comparison, recording: Recording, batch: Batch, recorded: Mapping[str, Any], where: str
) -> None:
    if "plain_ce_no_latents" in recorded:
        nothing = Targets(recording.model.lm_head.weight[:0], torch.zeros(0).long(), torch.zeros(0).long())
        loss = Objective(recording.model, recording.weights)(batch, "stage1", nothing).cross_entropy
        found.number("cross entropy with raw pads", loss.item(), recorded["plain_ce_no_latents"], where)


def _compare_cut_vocabulary(found: Comparison, recording: Recording) -> None:
    """Stage 1 after the embeddings are resized to the tokens that there are. Last: it changes the model."""
    for number, (sample, whole) in enumerate(zip(recording.samples, recording.content["samples"], strict=True)):
        for key in (key for key in whole if key.startswith("stage1_vocab_resized")):
            recording.model.resize_token_embeddings(whole[key]["vocab_size"])
            batch = collate([recording.encoder.encode(sample)], recording.encoder.padding_id)
            selected = targets(recording.model, batch, recording.settings)
            _run(found, recording, batch, "stage1", selected, whole[key], "stage 1 resized", f"sample {number}")


def _run(
    found: Comparison,
    recording: Recording,
    batch: Batch,
    stage: Stage,
    selected: Targets | None,
    recorded: Mapping[str, Any],
    name: str,
    where: str,
) -> Losses:
    """Losses and norms of gradients of one forward and backward pass."""
    recording.model.zero_grad()
    losses: Losses = Objective(recording.model, recording.weights)(batch, stage, selected)
    found.number(f"{name} cross entropy", losses.cross_entropy.item(), recorded["ce"], where)
    if losses.similarity is not None and losses.cosine_S is not None:
        if "cos" in recorded:
            found.number(f"{name} cosine", losses.cosine_S.mean().item(), recorded["cos"], where)
        found.number(f"{name} L_sim", losses.similarity.item(), recorded["sim_loss"], where)
        found.number(f"{name} total", losses.total.item(), recorded["total"], where)
    losses.total.sum().backward()  # type: ignore[no-untyped-call]
    named = recording.model.named_parameters(remove_duplicate=False)  # a tied head has a name of its own
    parameters = {published_name(current): parameter for current, parameter in named}
    for published, gradient in recorded.get("grads", {}).items():
        parameter = parameters.get(published)
        got = None if parameter is None else parameter.grad
        norm = float("nan") if got is None else float(got.norm())
        found.number(f"{name} gradient norms", norm, gradient["l2"], f"{where} {published}")
    return losses


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 if something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="recorded training step, with images and checkpoint")
    args = parser.parse_args(argv)
    missing = [name for name in ("train.json", "train.npz", "build_ckpts.py") if not (args.folder / name).exists()]
    if missing:
        print(f"{args.folder}: {', '.join(missing)} missing; a recorded training step has them", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        found = compare(open_recording(args.folder, Path(scratch)))
    print(found.table())
    if found.failed:
        print(f"different: {', '.join(found.failed)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
