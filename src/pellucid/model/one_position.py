"""All blocks of a decoder as one native call, for one new position of a few rows: what writing a text repeats.

Between the products with matrices, each block makes thirty small calls from Python. They cost as much as a third of
reading 124M weights, and more once those weights have driven Python out of the processor's caches. kernels.cpp has the
usual parts of a block; a stack that is made of these runs through it, any other as its modules say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ctypes import Array, addressof, c_void_p
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary, ref

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.model import native
from pellucid.model.attention import Attention, AttentionConfig
from pellucid.model.block import Block
from pellucid.model.cache import KVCache
from pellucid.model.feedforward.gated import GatedMLP
from pellucid.model.feedforward.mlp import MLP, gelu, gelu_tanh, relu2
from pellucid.model.kernels import AttentionContext
from pellucid.model.native.blocks import ACTIVATIONS, NORMS, Blocks, Layer, Matrix, Norm
from pellucid.model.norms import LayerNorm, NoNorm, RMSNorm
from pellucid.model.packed.layers import FEW_ROWS, FEW_ROWS_QUANTISED, PackedLinear
from pellucid.model.positions import Position, RotaryPosition

_ACTIVATIONS: dict[Callable[[Tensor], Tensor], int] = {
    F.silu: ACTIVATIONS["silu"],
    gelu: ACTIVATIONS["gelu"],
    gelu_tanh: ACTIVATIONS["gelu_tanh"],
    F.relu: ACTIVATIONS["relu"],
    relu2: ACTIVATIONS["relu2"],
}
_CACHES = {torch.float32: native.FORMATS["fp32"], torch.bfloat16: native.FORMATS["bf16"]}


class Parts(Protocol):
    @property
    def position(self) -> Position: ...
    @property
    def blocks(self) -> nn.ModuleList: ...


class UnknownPartError(Exception):
    """kernels.cpp has no such part."""


def run_blocks(
    parts: Parts,
    attention: AttentionConfig,
    x: Float[Tensor, "B 1 D"],
    contexts: Mapping[int | None, AttentionContext],
    source_context: AttentionContext | None,
    cache: KVCache,
) -> Float[Tensor, "B 1 D"] | None:
    """What the blocks make of x, with its keys and values written into the cache; None where they cannot run so.

    The cache's length is left to `advance`, as by the blocks themselves. Raises ValueError when it is full.
    """
    if not (
        x.shape[1] == 1
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and cache.keys.dtype in _CACHES
        and (source_context is None) == (cache.cross is None)
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and native.is_available()
    ):
        return None
    if cache not in _PLANS or _PLANS[cache][0]() is not parts:
        _PLANS[cache] = ref(parts), _plan(parts)
    plan = _PLANS[cache][1]
    if plan is None or x.shape[0] > plan.few_rows or not plan.fits(cache):
        return None
    return plan.run(x, attention, contexts, source_context, cache)


class _Plan:
    """A stack in the words of kernels.cpp. What it points to is kept alive by `_tensors`; few_rows: see layers.py."""

    def __init__(self, parts: Parts) -> None:
        self._tensors: list[Tensor] = []
        self.few_rows = FEW_ROWS_QUANTISED
        blocks = [self._known(block, Block.forward) for block in parts.blocks]
        layers = [self._layer(block) for block in blocks]
        self._layers = (Layer * len(layers))(*layers)
        first: Attention = blocks[0].attention
        self._widths = (
            first.num_heads,
            first.num_kv_heads,
            first.head_dim,
            max(each.up.n for each in layers),
        )

    def fits(self, cache: KVCache) -> bool:
        """Whether the cache is one of this stack."""
        layers, _, kv_heads, _, e = cache.keys.shape
        return (layers, kv_heads, e) == (len(self._layers), self._widths[1], self._widths[2])

    def run(
        self,
        x: Float[Tensor, "B 1 D"],
        attention: AttentionConfig,
        contexts: Mapping[int | None, AttentionContext],
        source_context: AttentionContext | None,
        cache: KVCache,
    ) -> Float[Tensor, "B 1 D"]:
        cache.require_room(x.shape[0], 1)
        heads, kv_heads, e, d_ff = self._widths
        (rows, _, d), now = x.shape, cache.length + 1
        masks = {window: _bytes(context, now) for window, context in contexts.items()}
        seen = [_address(masks[attention.window_of(layer)]) for layer in range(len(self._layers))]
        pointers: Array[Any] = (c_void_p * len(seen))(*seen)
        context, mask = (
            next(iter(contexts.values())),
            next((m for m in masks.values() if m is not None), None),
        )
        bias = None if context.bias is None else _for_all_heads(context.bias, heads, now)
        angles = context.angles or (None, None)
        cosines, sines = (None if each is None else each.contiguous() for each in angles)
        source = cache.cross
        source_length = 0 if source is None else source.keys.shape[3]
        source_seen = None if source_context is None else _bytes(source_context, source_length)
        y = x.clone(memory_format=torch.contiguous_format)
        scores = heads * max(cache.max_length, source_length)
        scratch = y.new_empty(rows * (d + 2 * (heads + kv_heads) * e + 2 * d_ff + scores))
        native.run_blocks(
            Blocks(
                layers=addressof(self._layers),
                num_layers=len(self._layers),
                rows=rows,
                d=d,
                heads=heads,
                kv_heads=kv_heads,
                e=e,
                d_ff=d_ff,
                keys=cache.keys.data_ptr(),
                values=cache.values.data_ptr(),
                cache_format=_CACHES[cache.keys.dtype],
                max_length=cache.max_length,
                length=cache.length,
                cosines=_address(cosines),
                sines=_address(sines),
                turning=0 if cosines is None else cosines.shape[-1],
                angle_stride=_row_stride(cosines, dimensions=3),
                seen=addressof(pointers),
                bias=_address(bias),
                seen_stride=_row_stride(mask, dimensions=4),
                bias_stride=_row_stride(bias, dimensions=4),
                source_keys=None if source is None else source.keys.data_ptr(),
                source_values=None if source is None else source.values.data_ptr(),
                source_seen=_address(source_seen),
                source_length=source_length,
                source_seen_stride=_row_stride(source_seen, dimensions=4),
                x=y.data_ptr(),
                scratch=scratch.data_ptr(),
            )
        )
        return y

    # Modules → structures ------------------------------------------------------------------------

    def _layer(self, block: Block) -> Layer:
        if block.layout not in ("pre_norm", "sandwich_norm"):
            raise UnknownPartError
        attention, feed_forward = self._attention(block.attention), cast(Any, block.feed_forward)
        has_gate = type(feed_forward).forward is GatedMLP.forward
        self._known(feed_forward, GatedMLP.forward if has_gate else MLP.forward)
        return Layer(
            attention_norm=self._norm(block.attention_norm),
            query_norm=self._norm(attention.query_norm),
            key_norm=self._norm(attention.key_norm),
            attention_out_norm=self._norm(block.attention_out_norm),
            feed_norm=self._norm(block.feed_forward_norm),
            feed_out_norm=self._norm(block.feed_forward_out_norm),
            query=self._matrix(attention.query),
            key=self._matrix(attention.key),
            value=self._matrix(attention.value),
            output=self._matrix(attention.output),
            gate=self._matrix(feed_forward.gate) if has_gate else Matrix(),
            up=self._matrix(feed_forward.up),
            down=self._matrix(feed_forward.down),
            activation=self._activation(feed_forward.activation),
            scale=attention.scale,
            softcap=attention.softcap or 0.0,
            **self._cross(block),
        )

    def _cross(self, block: Block) -> dict[str, Any]:
        if block.cross_attention is None:
            return {}
        attention = self._attention(block.cross_attention)
        if (attention.scale, attention.softcap) != (block.attention.scale, block.attention.softcap):
            raise UnknownPartError
        return {
            "cross_norm": self._norm(block.cross_attention_norm),
            "cross_query_norm": self._norm(attention.query_norm),
            "cross_out_norm": self._norm(block.cross_attention_out_norm),
            "cross_query": self._matrix(attention.query),
            "cross_output": self._matrix(attention.output),
        }

    def _attention(self, attention: Attention) -> Attention:
        self._known(attention, Attention.forward)
        if attention.kernel != "auto" or attention.head_dim % 16:
            raise UnknownPartError
        return attention

    def _known(self, module: nn.Module, forward: Callable[..., Any]) -> Any:
        """The module, if it does what `forward` says and nobody listens."""
        is_changed = type(module).forward is not forward or "forward" in vars(module)
        if is_changed or module._forward_hooks or module._forward_pre_hooks:
            raise UnknownPartError
        return module

    def _activation(self, function: Callable[[Tensor], Tensor]) -> int:
        if function not in _ACTIVATIONS:
            raise UnknownPartError
        return _ACTIVATIONS[function]

    def _norm(self, norm: nn.Module | None) -> Norm:
        if norm is None:
            return Norm(kind=NORMS["none"])
        if type(norm) is NoNorm:
            self._known(norm, NoNorm.forward)
            return Norm(kind=NORMS["none"])
        if type(norm) is RMSNorm:
            self._known(norm, RMSNorm.forward)
            return Norm(gain=self._vector(norm.gain), kind=NORMS["rmsnorm"], eps=norm.eps)
        if type(norm) is LayerNorm:
            self._known(norm, LayerNorm.forward)
            bias = None if norm.bias is None else self._vector(norm.bias)
            return Norm(gain=self._vector(norm.gain), bias=bias, kind=NORMS["layernorm"], eps=norm.eps)
        raise UnknownPartError

    def _matrix(self, linear: nn.Module) -> Matrix:
        if type(linear) is PackedLinear:
            packed = self._known(linear, PackedLinear.forward).packed
            if not packed.is_native:
                raise UnknownPartError
            numbers, form, n, k = packed.data, packed.form, packed.rows, packed.columns
            self.few_rows = min(self.few_rows, packed.few_rows)
        elif type(linear) is nn.Linear:
            self._known(linear, nn.Linear.forward)
            numbers, form, (n, k) = linear.weight, "fp32", linear.weight.shape
            self.few_rows = min(self.few_rows, FEW_ROWS)
            if numbers.dtype != torch.float32 or k % 16:
                raise UnknownPartError
        else:
            raise UnknownPartError
        bias = None if linear.bias is None else self._vector(linear.bias)
        return Matrix(numbers=self._kept(numbers), bias=bias, format=native.FORMATS[form], n=n, k=k)

    def _vector(self, vector: Tensor) -> int:
        if vector.dtype != torch.float32 or vector.numel() % 16:
            raise UnknownPartError
        return self._kept(vector)

    def _kept(self, tensor: Tensor) -> int:
        if tensor.device.type != "cpu" or not tensor.is_contiguous():
            raise UnknownPartError
        self._tensors.append(tensor.detach())
        return tensor.data_ptr()


_PLANS: WeakKeyDictionary[KVCache, tuple[ref[Parts], _Plan | None]] = WeakKeyDictionary()
"""Made once for each text, so that a model which has changed since the last one is read anew."""


def _plan(parts: Parts) -> _Plan | None:
    turns = type(parts.position).rotate
    if turns is not Position.rotate and turns is not RotaryPosition.rotate:
        return None
    try:
        return _Plan(parts)
    except UnknownPartError:
        return None


def _bytes(context: AttentionContext, keys: int) -> Tensor | None:
    """Which keys each row's position sees [B or 1, 1, 1, S], a byte each; None: all."""
    seen = context.seen(1, keys, torch.device("cpu"))
    return None if seen is None else seen.to(torch.uint8).contiguous()


def _for_all_heads(bias: Tensor, heads: int, keys: int) -> Tensor:
    """[rows, H, 1, S] or [H, 1, S], in float32, as it lies in memory."""
    return bias.float().expand(*bias.shape[:-3], heads, 1, keys).contiguous()


def _row_stride(tensor: Tensor | None, dimensions: int) -> int:
    """From one row's part to the next one's; 0 where all rows share one."""
    has_rows = tensor is not None and tensor.dim() == dimensions and tensor.shape[0] > 1
    return tensor.stride(0) if tensor is not None and has_rows else 0


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
