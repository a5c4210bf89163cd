"""A tiny base model as a folder, and a data file, for the tests of the trainer: seconds for a whole run."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import save_file

from training.base_model import open_base
from training.published_layout import published_name
from training.recipes import StageRecipe, tiny_released
from training.run import Run, Silent
from training.run_log import Metrics
from training.tiny_tokenizer import CHAT_TEMPLATE, SPECIAL_TOKENS, SpecialIds, build_tokenizer, special_ids
from training.trainer import train

GOLDEN = Path(__file__).parents[1] / "golden"
ROWS: list[dict[str, Any]] = [one["sample"] for one in json.loads((GOLDEN / "train.json").read_text())["samples"]]
LATENTS = SPECIAL_TOKENS[-3:]
# No rounding but that of float32 sums in another order.
TOLERANCE = 1e-5


def recipe(**changes: Any) -> StageRecipe:
    """Stage 1 with a frozen teacher, two steps of two passes an epoch on ``write_data``, in float32."""
    quick: dict[str, Any] = {"batch_size": 1, "accumulation": 2, "epochs": 2, "warmup_steps": 1, "learning_rate": 1e-3}
    quick |= {"save_every_steps": 100, "name": "test"}
    stage = changes.pop("stage", "stage1")
    return replace(tiny_released(stage), **{**quick, **changes})


def write_data(folder: Path, count: int = 4) -> Path:
    """Recorded samples of three blocks and of two, in turn, told apart by their question."""
    file = folder / "train.jsonl"
    rows = [{**ROWS[index % 2], "text_input": f"{index}. {ROWS[index % 2]['text_input']}"} for index in range(count)]
    file.write_text("".join(json.dumps(_absolute(row)) + "\n" for row in rows))
    return file


def write_base(
    folder: Path, *, with_latents: bool = True, num_spare_rows: int = 5, is_tied: bool = False, seed: int = 0
) -> Path:
    """Random weights under published names, in float32.

    num_spare_rows: rows of the embedding beyond the tokens. is_tied: the head is the embedding.
    """
    folder.mkdir(parents=True)
    said = [step["content"] for row in ROWS for step in row["sequence_plan"] if step["type"] == "text"]
    tokenizer = build_tokenizer([*said, *(row["text_input"] for row in ROWS)], vocab_size=300)
    ids = special_ids(tokenizer)
    content = json.loads(tokenizer.to_str())
    if not with_latents:
        content["added_tokens"] = [one for one in content["added_tokens"] if one["content"] not in LATENTS]
    num_tokens = tokenizer.get_vocab_size() - (0 if with_latents else len(LATENTS))
    pixels = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16}
    processor = json.loads((GOLDEN / "tok" / "preprocessor_config.json").read_text())
    processor |= {"size": pixels, "min_pixels": pixels["shortest_edge"], "max_pixels": pixels["longest_edge"]}
    special = {str(one["id"]): {k: v for k, v in one.items() if k != "id"} for one in content["added_tokens"]}
    config = {**_config(ids, num_tokens + num_spare_rows), "tie_word_embeddings": is_tied}
    for name, value in {
        "config.json": config,
        "tokenizer.json": content,
        "tokenizer_config.json": {"added_tokens_decoder": special, "tokenizer_class": "PreTrainedTokenizerFast"},
        "preprocessor_config.json": processor,
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
        "generation_config.json": {"do_sample": False, "eos_token_id": ids.im_end},
    }.items():
        (folder / name).write_text(json.dumps(value, indent=2))
    _write_weights(folder, config, seed)
    return folder


def base_state(folder: Path) -> dict[str, torch.Tensor]:
    """Parameters of a folder under published names."""
    state = open_base(folder, recipe(cut_vocabulary=False)).model.state_dict()
    return {published_name(name): tensor for name, tensor in state.items()}


def _write_weights(folder: Path, config: dict[str, Any], seed: int) -> None:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration._from_config(Qwen2_5_VLConfig.from_dict(json.loads(json.dumps(config))))
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in model.named_parameters():
        is_norm = tensor.ndim == 1 and name.endswith("weight")
        noise = 0.05 * torch.randn(tensor.shape, generator=generator)
        state[published_name(name)] = noise + 1 if is_norm else noise  # one that is tied is not among them
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _config(ids: SpecialIds, num_rows: int) -> dict[str, Any]:
    """As of recorded checkpoint b, which is in the published layout, before it had latent tokens."""
    config: dict[str, Any] = json.loads((GOLDEN / "ckpt-b-config" / "config.json").read_text())
    for name in ("latent_token_id", "latent_start_id", "latent_end_id", "latent_size", "stage", "vision_token_id"):
        del config[name]
    return config | {
        "bos_token_id": ids.end_of_text,
        "eos_token_id": ids.im_end,
        "image_token_id": ids.image_pad,
        "video_token_id": ids.video_pad,
        "vision_start_token_id": ids.vision_start,
        "vision_end_token_id": ids.vision_end,
        "max_position_embeddings": 4096,
        "vocab_size": num_rows,
    }


def _absolute(row: dict[str, Any]) -> dict[str, Any]:
    """With the pictures of the recorded samples, wherever the file lies."""
    images = GOLDEN / "images"
    plan = [
        {**step, "helper_image": str(images / step["helper_image"])} if step["type"] == "latent" else step
        for step in row["sequence_plan"]
    ]
    given = row["image_input"] if isinstance(row["image_input"], list) else [row["image_input"]]
    return {**row, "image_input": [str(images / name) for name in given], "sequence_plan": plan}


@dataclass
class Heard(Silent):
    """What a run reported."""

    notes: list[str] = field(default_factory=list)
    metrics: list[Metrics] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, metrics: Metrics) -> None:
        self.metrics.append(metrics)

    @property
    def losses(self) -> list[float]:
        return [one.loss for one in self.metrics]


@dataclass(frozen=True)
class Workplace:
    """A base model, data, and room for runs."""

    folder: Path
    base: Path
    data: Path

    def run(self, out: str, wanted: StageRecipe, **changes: Any) -> tuple[Path, Heard]:
        """Train in this process; the last checkpoint and what was reported."""
        heard = Heard()
        given: dict[str, Any] = {"model": self.base, "data": self.data, "created_by": {"command": "a test"}, **changes}
        _forget_accelerate()
        return train(Run(recipe=wanted, out=self.folder / out, **given), heard), heard


def workplace(folder: Path, *, count: int = 4, **base: Any) -> Workplace:
    """In an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    return Workplace(folder, write_base(folder / "base", **base), write_data(folder, count))


def _forget_accelerate() -> None:
    """Accelerate keeps one state for a process; each run of a test is as in a process of its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
