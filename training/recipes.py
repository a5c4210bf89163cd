"""Named recipes of ILVR's two stages: plain data, each value with its source. Nothing here runs.

Sources, in short: *released* is the code XD111ds/ILVR of January 2026; *paper* is arXiv 2512.05665; *unknown* means
that neither says, and that the value is this project's choice. Where the released code does not fix a value, its
*script* is ``run_training.sh``, whose task is Zebra-CoT and which leaves some values empty, and its *default* is that
of an argument of the command line. That CoMT and VSP were trained with the script's values is not known. Two recipes
for each data set:

* ``…_paper``: the teacher follows the student by exponential moving average, and helper images of 256 to 511 visual
  tokens are looked at as a whole.
* ``…_released``: what the released code does in truth. Its EMA hook is never called, so that the teacher is the base
  model for ever, and its grouping keeps the first 256 of 256 to 511 visual tokens.

``training.configs`` holds the recipes of the grid tasks, which train from random weights with another schedule.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Stage = Literal["stage1", "stage2"]
TeacherMode = Literal["ema", "frozen"]
Precision = Literal["bf16", "fp32"]

# The projections of a decoder layer. All of them bear adapters in the released code (default).
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecipe:
    """One run of one stage, complete: with the base model and the data it decides every step."""

    name: str
    stage: Stage

    # Latents and targets.
    latent_size: int = 8  # K; released (script and default)
    teacher: TeacherMode  # stage 1 only: stage 2 has no targets
    ema_decay: float = 0.999  # paper, and the released code's unused hook
    grouping: Literal["released", "whole"]
    selection: Literal["published", "ordered"] = "published"  # `ordered` needs target_cells, which published data lacks
    top_p: float = 0.9  # released (default); never binds, since a softmax of cosines is nearly flat
    cross_entropy_weight: float = 1.0  # released (script and default)
    alignment_weight: float = 1.0  # released (default)
    target_noise: float = 0.01  # released: std of the noise added to targets
    latent_exit: Literal["fixed", "learned"] = "learned"  # how the published checkpoint is decoded; for the manifest

    # Optimizer: AdamW. Released stage 1 asks for the fused kernel, which rounds otherwise and computes the same.
    learning_rate: float = 1e-5  # released
    weight_decay: float = 0.01  # released; here of matrices only, as Hugging Face's Trainer leaves biases out
    adam_betas: tuple[float, float] = (0.9, 0.999)  # defaults of the Trainer that the released code runs on
    adam_epsilon: float = 1e-8  # likewise
    schedule: Literal["linear", "constant"] = "linear"  # released: to 0 at the last step
    warmup_steps: int = 10  # released (default; the script leaves it empty)
    epochs: int = 15  # released (script; the default is 2); unknown for stage 2, whose trainer was not released
    batch_size: int = 1  # samples of one forward pass of one process; released
    accumulation: int = 8  # forward passes of one optimizer step; released (script; the default is 1)
    max_grad_norm: float = 1.0  # released

    # Arithmetic and memory.
    precision: Precision = "bf16"  # released; master weights and optimizer states stay in float32
    gradient_checkpointing: bool = True  # released
    # Released: flash_attention_2. All compute the same; sdpa needs no further package, and runs on a CPU too.
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    freeze_tower: bool = True  # released: all but the visual tower is trained
    cut_vocabulary: bool = True  # released: embeddings resized to the tokens that there are, 152,064 to 151,668

    # Low-rank adapters in place of full fine-tuning: an option of the released code, off as published.
    lora: bool = False
    lora_rank: int = 32  # released (default)
    lora_alpha: int = 64  # released (default)
    lora_dropout: float = 0.05  # released (default)
    lora_targets: tuple[str, ...] = LORA_TARGETS

    # Data.
    max_length: int  # tokens; 32,768 in stage 1 (released), 8,192 in stage 2 (released, default)
    too_long: Literal["drop", "error"] = "drop"  # never cut: a cut sample loses its answer
    seed: int = 42  # released

    # Checkpoints: no matter of results. Released: every 612 steps (default; the script leaves it empty), one is kept.
    save_every_steps: int = 500  # this project's choice
    keep_checkpoints: int = 2  # likewise: the one before is there if the last turns out to be bad
    saved_dtype: Literal["bfloat16", "float32"] = "bfloat16"  # of the weights to serve; what resumes is kept in float32


def comt_7b_paper(stage: Stage) -> StageRecipe:
    """CoMT on Qwen2.5-VL-7B-Instruct as the paper describes it; else as for Zebra-CoT."""
    return _published("comt_7b_paper", stage, as_released=False)


def comt_7b_released(stage: Stage) -> StageRecipe:
    """CoMT on Qwen2.5-VL-7B-Instruct as the released code trains: ``shuai22/comt_ckpt``, as far as it is known."""
    return _published("comt_7b_released", stage, as_released=True)


def zebra_7b_paper(stage: Stage) -> StageRecipe:
    """Zebra-CoT, 10,000 samples whose ids are unpublished. The released script is for this data."""
    return _published("zebra_7b_paper", stage, as_released=False)


def zebra_7b_released(stage: Stage) -> StageRecipe:
    """As ``zebra_7b_paper``, with the released teacher and grouping."""
    return _published("zebra_7b_released", stage, as_released=True)


def vsp_7b_paper(stage: Stage) -> StageRecipe:
    """VSP, 1,000 mazes of 3x3 to 6x6; settings of its own are unknown, and so those of Zebra-CoT."""
    return _published("vsp_7b_paper", stage, as_released=False)


def vsp_7b_released(stage: Stage) -> StageRecipe:
    """As ``vsp_7b_paper``, with the released teacher and grouping."""
    return _published("vsp_7b_released", stage, as_released=True)


def tiny_paper(stage: Stage) -> StageRecipe:
    """A model of a million parameters on generated data (``ilvr data``), on one CPU core."""
    return _tiny("tiny_paper", stage, as_released=False)


def tiny_released(stage: Stage) -> StageRecipe:
    """As ``tiny_paper``, with the released teacher and grouping."""
    return _tiny("tiny_released", stage, as_released=True)


RECIPES: Mapping[str, Callable[[Stage], StageRecipe]] = {
    recipe.__name__: recipe
    for recipe in (
        comt_7b_paper,
        comt_7b_released,
        zebra_7b_paper,
        zebra_7b_released,
        vsp_7b_paper,
        vsp_7b_released,
        tiny_paper,
        tiny_released,
    )
}


def _published(name: str, stage: Stage, *, as_released: bool) -> StageRecipe:
    return StageRecipe(
        name=name,
        stage=stage,
        teacher="frozen" if as_released else "ema",
        grouping="released" if as_released else "whole",
        max_length=32_768 if stage == "stage1" else 8_192,
    )


def _tiny(name: str, stage: Stage, *, as_released: bool) -> StageRecipe:
    """All values that differ from the published ones are this project's, for models and data made here."""
    return StageRecipe(
        name=name,
        stage=stage,
        teacher="frozen" if as_released else "ema",
        grouping="released" if as_released else "whole",
        latent_exit="fixed",  # with no loss on pads a small model forgets when a block ends
        learning_rate=5e-4,
        epochs=3,
        batch_size=8,  # at this size a pass over one sample is mostly overhead
        accumulation=1,
        precision="fp32",
        gradient_checkpointing=False,
        cut_vocabulary=False,
        max_length=4_096,  # the context of the embedded model
        saved_dtype="float32",
    )
