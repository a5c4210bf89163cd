"""vLLM's kernels in place of PyTorch's operations give what those give, and are what the served model computes with."""

import pytest
import torch
from torch import nn
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.fusion.mm_input_norm import FusedMMInputNorm
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.rotary_embedding.mrope import MRotaryEmbedding
from vllm.model_executor.models.qwen2 import Qwen2DecoderLayer

from model_runner.model import cpu_kernels
from model_runner.model.cpu_kernels import use_cpu_kernels
from model_runner.model.cpu_layers import can_be_flat
from tests.model_runner.model.conftest import add_in_a_block

# Both round the same sums, in another order: two units in the last place of the type, at values up to 4 and above.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.04, torch.float16: 0.005}
every_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
NUM_HEADS, NUM_KV_HEADS = 3, 1


def modules(dtype, size=96, head_size=32):
    """A norm and a rotary embedding as Qwen2.5-VL has them, before and after."""
    with set_current_vllm_config(VllmConfig()):
        norm = RMSNorm(size, eps=1e-6, dtype=dtype)
        rotary = MRotaryEmbedding(
            head_size, head_size, 64, 1e6, True, torch.float32, mrope_section=[4, 6, head_size // 2 - 10]
        )
    norm.weight.data.normal_()
    use_cpu_kernels(nn.ModuleList([norm, rotary]))
    return norm, rotary


@every_dtype
@pytest.mark.parametrize("num_tokens", [0, 1, 33])
def test_norms(dtype, num_tokens):
    norm, _ = modules(dtype)
    wide = torch.randn(num_tokens, 200, dtype=dtype)
    for x in (torch.randn(num_tokens, 96, dtype=dtype), wide[:, 64:160]):
        torch.testing.assert_close(norm(x), norm.forward_native(x), atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
        residual = torch.randn(num_tokens, 96, dtype=dtype)
        expected = norm.forward_native(x.clone(), residual.clone())
        normed, added = norm(x, residual)
        assert added is residual
        for one, native in zip((normed, added), expected, strict=True):
            torch.testing.assert_close(one, native, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_a_width_that_the_kernels_would_end_the_process_at():
    for module in modules(torch.bfloat16, size=80, head_size=28):
        assert "forward" not in vars(module)


@every_dtype
@pytest.mark.parametrize("num_tokens", [1, 33])
@pytest.mark.parametrize("num_axes", [1, 3])
@pytest.mark.parametrize("head_size", [32, 64, 128])
def test_rotary(dtype, num_tokens, num_axes, head_size):
    """Query and key are parts of one tensor, as the model hands them over; the third part is not touched."""
    _, rotary = modules(dtype, head_size=head_size)
    positions = torch.randint(64, (3, num_tokens))
    positions = positions if num_axes == 3 else positions[0]
    sizes = [n * head_size for n in (NUM_HEADS, NUM_KV_HEADS, NUM_KV_HEADS)]
    qkv = torch.randn(num_tokens, sum(sizes), dtype=dtype)
    query, key, value = qkv.clone().split(sizes, dim=-1)
    expected = rotary.forward_native(positions, query.clone(), key.clone())
    value_before = value.clone()
    for one, native in zip(rotary(positions, query, key), expected, strict=True):
        torch.testing.assert_close(one, native, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    assert torch.equal(value, value_before)


def test_positions_that_change_where_they_lie():
    """The runner writes each step's positions to one buffer: what was made of the last step's is not used for them."""
    _, rotary = modules(torch.float32)
    positions = torch.zeros(3, 5, dtype=torch.int64)
    query, key = torch.randn(5, 96), torch.randn(5, 32)
    for step in range(3):
        positions.fill_(step)
        for _ in range(2):  # layers
            expected = rotary.forward_native(positions, query.clone(), key.clone())
            for one, native in zip(rotary(positions, query.clone(), key.clone()), expected, strict=True):
                torch.testing.assert_close(one, native)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pixels", [torch.uint8, torch.float32])
def test_pixels(dtype, pixels):
    """The same to the last bit, and the picture is left as it was."""
    with set_current_vllm_config(VllmConfig()):
        norm = FusedMMInputNorm([0.48, 0.45, 0.40], [0.26, 0.25, 0.27], 1 / 255)
    use_cpu_kernels(nn.ModuleList([norm]))
    patches = torch.randint(256, (7, 3 * 2 * 14 * 14)).to(pixels)
    before = patches.clone()
    assert torch.equal(norm(patches, dtype), norm.forward_native(patches, dtype))
    assert torch.equal(patches, before)
    assert norm.forward.func is cpu_kernels.normalise_pixels


def test_the_served_model_uses_them(maze_stepper):
    """All its norms, those of the vision tower too, and the rotary embedding of the language model."""
    model = maze_stepper.model
    used = [getattr(module.forward, "func", None) for module in model.modules() if "forward" in vars(module)]
    assert used.count(cpu_kernels.rms_norm) == sum(isinstance(module, RMSNorm) for module in model.modules()) > 8
    assert cpu_kernels.rotary in used
    assert cpu_kernels.normalise_pixels in used
    assert all(module.use_direct_call for module in model.modules() if isinstance(module, Attention))
    assert all("forward" in vars(layer) for layer in layers_of(maze_stepper))


def layers_of(stepper):
    found = [module for module in stepper.model.modules() if isinstance(module, Qwen2DecoderLayer)]
    assert len(found) == 4
    return found


def test_flat_layers_give_the_bits_of_their_modules(maze_stepper, monkeypatch):
    """Of a prompt, of text steps and of latent ones, several requests at once."""
    hidden = {True: [], False: []}
    language_model = maze_stepper.model._language_model
    for is_flat in (True, False):
        if not is_flat:
            for layer in layers_of(maze_stepper):
                monkeypatch.delitem(vars(layer), "forward")

        def keep(*arguments, kept=hidden[is_flat]):
            kept.append(language_model(*arguments).clone())
            return kept[-1]

        monkeypatch.setattr(maze_stepper.model, "_language_model", keep)
        maze_stepper.start_over()
        for number in range(3):
            add_in_a_block(maze_stepper, f"{is_flat}-{number}", max_tokens=12)
        maze_stepper.run()
    assert len(hidden[True]) == len(hidden[False]) >= 12
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(hidden[True], hidden[False], strict=True))


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        ("self_attn", "qk_norm", True),
        ("self_attn.o_proj", "tp_size", 2),
        ("mlp.down_proj", "quant_method", None),
        ("self_attn.attn", "query_quant", "fp8"),
    ],
)
def test_a_layer_with_more_to_do_keeps_its_modules(maze_stepper, monkeypatch, owner, name, value):
    layer = layers_of(maze_stepper)[0]
    assert can_be_flat(layer)
    monkeypatch.setattr(layer.get_submodule(owner), name, value)
    assert not can_be_flat(layer)
