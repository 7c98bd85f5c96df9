"""What `run_blocks` of kernels.cpp takes, field by field."""

from __future__ import annotations

from ctypes import Structure, c_double, c_int64, c_void_p

ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "relu": 3, "relu2": 4}
NORMS = {"none": 0, "rmsnorm": 1, "layernorm": 2}


class Matrix(Structure):
    """A linear layer. Without numbers: none."""

    _fields_ = (
        ("numbers", c_void_p),
        ("bias", c_void_p),
        ("format", c_int64),
        ("n", c_int64),
        ("k", c_int64),
    )


class Norm(Structure):
    _fields_ = (("gain", c_void_p), ("bias", c_void_p), ("kind", c_int64), ("eps", c_double))


class Layer(Structure):
    """A block."""

    _fields_ = (
        ("attention_norm", Norm),
        ("query_norm", Norm),
        ("key_norm", Norm),
        ("attention_out_norm", Norm),
        ("cross_norm", Norm),
        ("cross_query_norm", Norm),
        ("cross_out_norm", Norm),
        ("feed_norm", Norm),
        ("feed_out_norm", Norm),
        ("query", Matrix),
        ("key", Matrix),
        ("value", Matrix),
        ("output", Matrix),
        ("cross_query", Matrix),
        ("cross_output", Matrix),
        ("gate", Matrix),
        ("up", Matrix),
        ("down", Matrix),
        ("activation", c_int64),
        ("scale", c_double),
        ("softcap", c_double),
    )


class Blocks(Structure):
    """All blocks, and what one call of them reads and writes."""

    _fields_ = (
        ("layers", c_void_p),
        ("num_layers", c_int64),
        ("rows", c_int64),
        ("d", c_int64),
        ("heads", c_int64),
        ("kv_heads", c_int64),
        ("e", c_int64),
        ("d_ff", c_int64),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("cache_format", c_int64),
        ("max_length", c_int64),
        ("length", c_int64),
        ("cosines", c_void_p),
        ("sines", c_void_p),
        ("turning", c_int64),
        ("angle_stride", c_int64),
        ("seen", c_void_p),
        ("bias", c_void_p),
        ("seen_stride", c_int64),
        ("bias_stride", c_int64),
        ("source_keys", c_void_p),
        ("source_values", c_void_p),
        ("source_seen", c_void_p),
        ("source_length", c_int64),
        ("source_seen_stride", c_int64),
        ("x", c_void_p),
        ("scratch", c_void_p),
    )
