"""What vLLM's model classes do for GPUs and compilers, done as a CPU likes it.

Norms and rotary embeddings run in vLLM's own C++ kernels: there they are some ten PyTorch operations each, which with
few rows cost more than what they compute. Attention is called without the operator that hides it from a compiler, and
pixels are normalised in place. T tokens, D the width of the last dimension, C the rotary dimension, P patches.
"""

from functools import partial

import torch
from torch import Tensor, nn
from vllm import _custom_ops as ops
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.fusion.mm_input_norm import FusedMMInputNorm
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.rotary_embedding.mrope import MRotaryEmbedding
from vllm.model_executor.models.qwen2 import Qwen2DecoderLayer
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VisionBlock

from model_runner.model import cpu_layers, cpu_vision

WIDTH_MULTIPLE = 32  # the kernels load whole vectors and end the process where a row is not aligned to them


def use_cpu_kernels(model: nn.Module) -> None:
    """Change how these modules of a model compute, in place. Not for a model that is compiled, which fuses them."""
    for module in model.modules():
        if isinstance(module, RMSNorm) and _is_plain(module):
            module.forward = partial(rms_norm, module)  # type: ignore[method-assign]
        elif isinstance(module, MRotaryEmbedding) and _has_plain_sections(module):
            axis_of_half = torch.arange(3).repeat_interleave(torch.tensor(module.mrope_section))
            module.forward = partial(rotary, module, RotaryRows(axis_of_half.repeat(2)))  # type: ignore[method-assign]
        elif isinstance(module, Attention):
            module.use_direct_call = True
        elif isinstance(module, Qwen2DecoderLayer) and cpu_layers.can_be_flat(module):
            module.forward = cpu_layers.flat(module)  # type: ignore[method-assign,assignment]
        elif isinstance(module, Qwen2_5_VisionBlock) and cpu_vision.can_be_flat(module):
            module.forward = cpu_vision.flat(module)  # type: ignore[method-assign]
        elif isinstance(module, FusedMMInputNorm):
            module.forward = partial(normalise_pixels, module)  # type: ignore[method-assign]


def _is_plain(norm: RMSNorm) -> bool:
    return norm.has_weight and norm.variance_size_override is None and norm.hidden_size % WIDTH_MULTIPLE == 0


def _has_plain_sections(rotary: MRotaryEmbedding) -> bool:
    return bool(rotary.mrope_section) and not rotary.mrope_interleaved and rotary.rotary_dim % WIDTH_MULTIPLE == 0


def rms_norm(module: RMSNorm, x: Tensor, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
    """As ``RMSNorm.forward_native``; x and residual are [..., D]. A residual and its x are overwritten and returned."""
    x = x.contiguous()
    if residual is not None:
        ops.fused_add_rms_norm(x, residual, module.weight, module.variance_epsilon)
        return x, residual
    normed = torch.empty_like(x)
    ops.rms_norm(normed, x, module.weight, module.variance_epsilon)
    return normed


class RotaryRows:
    """Cosines and sines of each token of a step, made for its first layer: the others ask for the same positions.

    The kernel knows one position a token. So each token gets a row of its own, with the cosines and sines of the axis
    that each column belongs to, ``axis_C``.
    """

    def __init__(self, axis_C: Tensor) -> None:
        self._axis_C = axis_C
        self._made_of: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))
        self._made = self._made_of

    def of(self, positions_3T: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, the row of each token); ``cache`` is the module's, [positions, C]."""
        if self._made_of[1] is not cache or not torch.equal(self._made_of[0], positions_3T):
            num_columns = len(self._axis_C)
            at_TC = positions_3T.T[:, self._axis_C] * num_columns + torch.arange(num_columns)
            self._made = cache.take(at_TC), torch.arange(len(at_TC))
            self._made_of = positions_3T.clone(), cache
        return self._made


def rotary(
    module: MRotaryEmbedding,
    rows: RotaryRows,
    positions: Tensor,
    query: Tensor,
    key: Tensor,
    offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As ``MRotaryEmbedding.forward_native``, but query and key, [T, heads * head size], are overwritten.

    Positions are [T], or [3, T] by axis.
    """
    cache = module._match_cos_sin_cache_dtype(query)
    if positions.ndim == 2:
        cache, positions = rows.of(positions, cache)
    ops.rotary_embedding(positions, query, key, module.head_size, cache, module.is_neox_style)
    return query, key


def normalise_pixels(module: FusedMMInputNorm, pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """As ``FusedMMInputNorm.forward_native``, to the last bit; pixels are [P, channels * pixels of a patch].

    In place, and not on bytes that are converted while they are multiplied, which is slow.
    """
    values = pixels.to(torch.float32, copy=True).view(len(pixels), module.channel, -1)
    values.mul_(module.get_buffer("weight").view(1, -1, 1)).add_(module.get_buffer("bias").view(1, -1, 1))
    return values.view(pixels.shape).to(dtype)
