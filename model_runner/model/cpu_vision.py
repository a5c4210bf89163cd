"""vLLM's Qwen2.5 vision block in one function: with the patches of few pictures on a CPU, what lies between the matrix
products costs as much as they do.

What is computed, and in which order, stays the same, in float32 to the last bit. S patches of all pictures, C width of
the encoder, H heads, D head size.
"""

from collections.abc import Callable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VisionBlock
from vllm.platforms import current_platform
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from model_runner.model.cpu_layers import are_plain, linear


def can_be_flat(block: Qwen2_5_VisionBlock) -> bool:
    """Whether it has nothing that :func:`flat` leaves out."""
    attention, mlp = block.attn, block.mlp
    return (
        are_plain(attention.qkv, attention.proj, mlp.gate_up_proj, mlp.down_proj)
        and isinstance(mlp.act_fn, SiluAndMul)
        and attention.attn.attn_backend is AttentionBackendEnum.TORCH_SDPA
        and not current_platform.is_zen_cpu()  # which has an attention of its own
    )


def flat(block: Qwen2_5_VisionBlock) -> Callable[..., Tensor]:
    """As ``Qwen2_5_VisionBlock.forward``: [S, 1, C] in, which is overwritten, and out."""
    attention, mlp = block.attn, block.mlp
    before: Any = block.norm1
    after: Any = block.norm2
    num_heads, head_size = attention.num_attention_heads_per_partition, attention.hidden_size_per_attention_head
    scale = attention.attn.scale

    def forward(
        x: Tensor, cu_seqlens: Tensor, rotary_pos_emb_cos: Tensor, rotary_pos_emb_sin: Tensor, **unused: object
    ) -> Tensor:
        x_SC = x.squeeze(1)
        qkv_S3HD = linear(attention.qkv, before.forward(x_SC)).view(-1, 3, num_heads, head_size)
        rotated_S2HD = rotate(qkv_S3HD[:, :2], rotary_pos_emb_cos, rotary_pos_emb_sin)
        attended_SHD = attend(rotated_S2HD[:, 0], rotated_S2HD[:, 1], qkv_S3HD[:, 2], cu_seqlens, scale)
        attended_SC = linear(attention.proj, attended_SHD.flatten(1))
        normed_SC, residual_SC = after.forward(x_SC, attended_SC)
        gate, up = linear(mlp.gate_up_proj, normed_SC).chunk(2, dim=-1)
        encoded_SC: Tensor = residual_SC.add_(linear(mlp.down_proj, silu(gate).mul_(up)))
        return encoded_SC.unsqueeze(1)

    return forward


def rotate(x_S2HD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Queries and keys as ``ApplyRotaryEmb.forward_static`` has them; cos and sin are [S, D / 2]."""
    cos, sin = cos[:, None, None].to(x_S2HD.dtype), sin[:, None, None].to(x_S2HD.dtype)
    low, high = x_S2HD.chunk(2, dim=-1)
    rotated = torch.empty(x_S2HD.shape, dtype=x_S2HD.dtype)
    out_low, out_high = rotated.chunk(2, dim=-1)
    torch.mul(low, cos, out=out_low).sub_(high * sin)
    torch.mul(high, cos, out=out_high).add_(low * sin)
    return rotated


def attend(q_SHD: Tensor, k_SHD: Tensor, v_SHD: Tensor, cu_seqlens: Tensor, scale: float) -> Tensor:
    """Attention within each window, or each picture, as ``torch_sdpa_wrapper``; neighbours of one length in one call.

    cu_seqlens: where the windows begin, and the end. [S, H, D].
    """
    outputs = []
    begin = 0
    for length, windows in groupby(cu_seqlens.diff().tolist()):
        end = begin + length * len(list(windows))
        q, k, v = (x[begin:end].view(-1, length, *x.shape[1:]).transpose(1, 2) for x in (q_SHD, k_SHD, v_SHD))
        outputs.append(scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(0, 1))
        begin = end
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
