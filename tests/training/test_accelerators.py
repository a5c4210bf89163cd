"""The files for ``accelerate launch``, and what a recipe cannot have under what shards it.

FSDP2 and DDP run in ``test_trainer_processes``; DeepSpeed is no dependency, and only its refusals are tested here.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl

from contracts.errors import BadSettings
from tests.training.base_folder import recipe
from training import accelerators
from training.accelerators import make_accelerator
from training.recipes import StageRecipe, comt_7b_paper

FILES = Path(accelerators.__file__).parent / "accelerate"


@pytest.mark.parametrize("name", ["single", "cpu_two_processes", "fsdp2", "deepspeed_zero3"])
def test_accelerate_reads_every_file(name: str) -> None:
    config = load_config_from_file(str(FILES / f"{name}.yaml"))
    assert config.num_processes == {"single": 1, "cpu_two_processes": 2, "fsdp2": 8, "deepspeed_zero3": 8}[name]


def test_fsdp2_gathers_decoder_layers() -> None:
    config = load_config_from_file(str(FILES / "fsdp2.yaml"))
    assert config.distributed_type == DistributedType.FSDP
    assert config.fsdp_config["fsdp_version"] == 2
    assert issubclass(
        getattr(modeling_qwen2_5_vl, config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"]), torch.nn.Module
    )
    assert not config.fsdp_config["fsdp_activation_checkpointing"]


def test_deepspeed_leaves_accumulation_and_clipping_to_the_recipe() -> None:
    config = load_config_from_file(str(FILES / "deepspeed_zero3.yaml"))
    assert config.deepspeed_config["zero_stage"] == 3
    assert not config.deepspeed_config.keys() & {"gradient_accumulation_steps", "gradient_clipping"}


def pretend(monkeypatch: pytest.MonkeyPatch, kind: DistributedType, *, is_fsdp2: bool = False) -> Any:
    """What Accelerate would give under that kind of distribution."""
    given = SimpleNamespace(
        distributed_type=kind,
        is_fsdp2=is_fsdp2,
        gradient_state=SimpleNamespace(plugin_kwargs={}),
        state=SimpleNamespace(
            fsdp_plugin=SimpleNamespace(mixed_precision_policy=None),
            deepspeed_plugin=SimpleNamespace(deepspeed_config={}),
        ),
    )
    monkeypatch.setattr(accelerators, "Accelerator", lambda **_: given)
    return given


@pytest.mark.parametrize(
    ("kind", "is_fsdp2", "wanted", "told"),
    [
        (DistributedType.FSDP, False, recipe(), "needs fsdp_version: 2"),
        (DistributedType.FSDP, True, recipe(stage="stage2", attention="flash_attention_2"), "needs attention: sdpa"),
        (DistributedType.DEEPSPEED, False, recipe(teacher="ema"), "round to nothing; use FSDP2"),
        (DistributedType.DEEPSPEED, False, recipe(freeze_tower=False), "trained tower; use FSDP2"),
    ],
)
def test_what_cannot_be_sharded_is_refused(
    monkeypatch: pytest.MonkeyPatch, kind: DistributedType, is_fsdp2: bool, wanted: StageRecipe, told: str
) -> None:
    pretend(monkeypatch, kind, is_fsdp2=is_fsdp2)
    with pytest.raises(BadSettings, match=told):
        make_accelerator(wanted)


def test_fsdp2_computes_in_bf16_and_sums_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """No output is rounded to bf16: it is the loss."""
    given = pretend(monkeypatch, DistributedType.FSDP, is_fsdp2=True)
    make_accelerator(comt_7b_paper("stage1"))
    policy = given.state.fsdp_plugin.mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (torch.bfloat16, torch.float32, None)
    assert given.gradient_state.plugin_kwargs["sync_each_batch"]


def test_deepspeed_gets_the_recipes_batch_and_clipping(monkeypatch: pytest.MonkeyPatch) -> None:
    given = pretend(monkeypatch, DistributedType.DEEPSPEED)
    make_accelerator(recipe(batch_size=3, max_grad_norm=0.5))
    config = given.state.deepspeed_plugin.deepspeed_config
    assert config == {"train_micro_batch_size_per_gpu": 3, "gradient_clipping": 0.5}
