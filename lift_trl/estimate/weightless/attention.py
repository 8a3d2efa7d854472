"""Attention as a GPU runs it, on tensors that hold nothing."""

import torch
from torch import Tensor
from torch.nn import functional as F


aten = torch.ops.aten
# Values, of a mask: where its rows may begin in memory.
_ALIGNED = 8


def _by_math() -> bool:
    backends = torch.backends.cuda
    return not (backends.flash_sdp_enabled() or backends.mem_efficient_sdp_enabled() or backends.cudnn_sdp_enabled())


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """
    `F.scaled_dot_product_attention`: in half precision as a GPU runs it, memory-efficient under a mask and else flash,
    unless only the arithmetic itself is allowed (`sdpa_kernel`).
    """
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if enable_gqa and key.shape[-3] != query.shape[-3]:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    if _by_math():
        with torch.autocast("cpu", enabled=False):  # as a GPU runs it, in float32
            whole: Tensor = aten._scaled_dot_product_attention_math(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale
            )[0]
        return whole
    width = query.shape[-1]
    scale = scale or width**-0.5
    if attn_mask is not None:
        attn_mask = _additive(attn_mask, query.dtype).expand(*query.shape[:-1], key.shape[-2])
    out: Tensor
    if query.dtype == torch.float32:  # models are float32 on a CPU only
        out = aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
        )[0]
        return out
    if attn_mask is None:
        query, key, value = (F.pad(one, (0, -width % 8)) if width % 8 else one for one in (query, key, value))
        out = aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[0]
        return out[..., :width]
    needs_grad = torch.is_grad_enabled() and any(one.requires_grad for one in (query, key, value))
    out = aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, needs_grad, dropout_p, is_causal, scale=scale
    )[0]
    return out


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """
    `mask` as the memory-efficient kernel takes it: one in bool is written out in `dtype`, and one whose rows do not begin at
    whole pieces of memory is copied.

    Source: `convert_boolean_attn_mask` and `preprocess_mask` in aten/src/ATen/native/transformers/attention.cpp.
    """
    if mask.dtype == torch.bool:
        mask = torch.where(mask, torch.zeros((), dtype=dtype), torch.full((), float("-inf"), dtype=dtype))
    mask, length = mask.to(dtype), mask.shape[-1]
    if any(stride % _ALIGNED for stride in mask.stride()[:-1]):
        mask = F.pad(mask, (0, _ALIGNED - length % _ALIGNED))[..., :length]
    return mask
