"""Vision blocks in one function give the bits of their modules."""

import pytest
import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.rotary_embedding.common import ApplyRotaryEmb
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VisionBlock
from vllm.v1.attention.ops.vit_attn_wrappers import torch_sdpa_wrapper

from model_runner.model.cpu_vision import attend, can_be_flat, rotate

NUM_PATCHES, NUM_HEADS, HEAD_SIZE = 40, 3, 16
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)


def blocks_of(stepper):
    found = [module for module in stepper.model.visual.modules() if isinstance(module, Qwen2_5_VisionBlock)]
    assert len(found) == 4
    return found


def heads(dtype):
    """Queries, keys and values as parts of one tensor, as the model hands them over."""
    return torch.randn(NUM_PATCHES, 3, NUM_HEADS, HEAD_SIZE).to(dtype)


# In patches: one window; windows cut on both sides; two pictures of one size between others.
@pytest.mark.parametrize("grids", [[(8, 8)], [(10, 18)], [(4, 4), (16, 16), (16, 16), (12, 10)]], ids=str)
def test_the_served_encoder(maze_stepper, monkeypatch, grids):
    """In windows, in two blocks, and over the whole picture; what was handed in is left as it was."""
    visual = maze_stepper.model.visual
    monkeypatch.setattr(visual, "fullatt_block_indexes", [1, 3])
    pixels = torch.randn(sum(height * width for height, width in grids), 3 * 2 * 14 * 14)
    before = pixels.clone()
    grid_thw = [[1, height, width] for height, width in grids]
    with torch.inference_mode():
        ours = visual(pixels, grid_thw)
        for block in blocks_of(maze_stepper):
            monkeypatch.delitem(vars(block), "forward")
        theirs = visual(pixels, grid_thw)
    assert torch.equal(ours, theirs)
    assert torch.equal(pixels, before)


@every_dtype
def test_rotation(dtype):
    qkv = heads(dtype)
    cos, sin = torch.randn(2, NUM_PATCHES, HEAD_SIZE // 2)
    for part, rotated in zip(qkv.unbind(1), rotate(qkv[:, :2], cos, sin).unbind(1), strict=False):
        assert torch.equal(rotated, ApplyRotaryEmb.forward_static(part, cos, sin))


@every_dtype
@pytest.mark.parametrize("lengths", [[40], [16, 16, 8], [4, 16, 16, 4], [8, 16, 8, 8]], ids=str)
def test_attention(dtype, lengths):
    qkv = heads(dtype)
    ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    with set_current_vllm_config(VllmConfig()):
        theirs = torch_sdpa_wrapper(*(x[None] for x in qkv.unbind(1)), scale=0.25, cu_seqlens=ends)[0]
    assert torch.equal(attend(*qkv.unbind(1), ends, 0.25), theirs)


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        ("attn.proj", "tp_size", 2),
        ("mlp.down_proj", "quant_method", None),
        ("attn.attn", "attn_backend", None),
    ],
)
def test_a_block_with_more_to_do_keeps_its_modules(maze_stepper, monkeypatch, owner, name, value):
    block = blocks_of(maze_stepper)[0]
    assert can_be_flat(block)
    monkeypatch.setattr(block.get_submodule(owner), name, value)
    assert not can_be_flat(block)


def test_a_block_with_another_activation_keeps_its_modules(maze_stepper, monkeypatch):
    block = blocks_of(maze_stepper)[0]
    monkeypatch.setitem(vars(block.mlp)["_modules"], "act_fn", torch.nn.GELU())
    assert not can_be_flat(block)
