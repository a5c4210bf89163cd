"""vLLM's Qwen2 decoder layer in one function: with few rows on a CPU, the modules in between cost as much as they do.

What is computed, and in which order, stays the same to the last bit. T tokens, D hidden size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu
from vllm.model_executor.layers.attention.attention import unified_attention_with_output, unified_kv_cache_update
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.models.qwen2 import Qwen2DecoderLayer

LayerForward = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


def can_be_flat(layer: Qwen2DecoderLayer) -> bool:
    """Whether it has nothing that :func:`flat` leaves out."""
    attention, mlp = layer.self_attn, layer.mlp
    linears = (attention.qkv_proj, attention.o_proj, mlp.gate_up_proj, mlp.down_proj)
    has_plain_cache = attention.attn.kv_sharing_target_layer_name is None and attention.attn.query_quant is None
    return are_plain(*linears) and has_plain_cache and not attention.qk_norm


def flat(layer: Qwen2DecoderLayer) -> LayerForward:
    """As ``Qwen2DecoderLayer.forward``: positions are [T] or [3, T]; hidden states and residual, [T, D], come back."""
    attention, mlp = layer.self_attn, layer.mlp
    before: Any = layer.input_layernorm
    after: Any = layer.post_attention_layernorm
    rotary: Any = attention.rotary_emb
    qkv, out, gate_up, down = attention.qkv_proj, attention.o_proj, mlp.gate_up_proj, mlp.down_proj
    sizes = [attention.q_size, attention.kv_size, attention.kv_size]
    width, name = attention.head_dim, attention.attn.layer_name

    def forward(positions: Tensor, hidden_states: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        if residual is None:
            residual, x_TD = hidden_states, before.forward(hidden_states)
        else:
            x_TD, residual = before.forward(hidden_states, residual)
        query, key, value = torch.split(linear(qkv, x_TD), sizes, dim=-1)
        query, key = rotary.forward(positions, query, key)
        key, value = key.view(-1, sizes[1] // width, width), value.view(-1, sizes[2] // width, width)
        attended = torch.empty((len(x_TD), sizes[0] // width, width), dtype=x_TD.dtype)
        unified_kv_cache_update(key, value, name)
        unified_attention_with_output(query.view(attended.shape), key, value, attended, name)
        x_TD, residual = after.forward(linear(out, attended.view(-1, sizes[0])), residual)
        gate, up = linear(gate_up, x_TD).chunk(2, dim=-1)
        return linear(down, silu(gate).mul_(up)), residual

    return forward


def are_plain(*linears: Any) -> bool:
    """Whether :func:`linear` may compute them."""
    return all(type(one.quant_method) is UnquantizedLinearMethod and one.tp_size == 1 for one in linears)


def linear(layer: Any, x: Tensor) -> Tensor:
    """``cpu_linear`` is there once the weights are loaded."""
    product: Tensor = layer.cpu_linear(x, layer.weight, layer.bias)
    return product
