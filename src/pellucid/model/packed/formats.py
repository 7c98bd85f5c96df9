"""8- and 4-bit matrices: groups of 32 columns share a scale in fp16, as in llama.cpp's Q8_0 and Q4_0.

A number is stored as a whole number q times its group's scale: 8.5 and 4.5 bits a weight. They lie in panels of 16
rows (kernels.cpp reads a row in each lane): uint8 [panels, groups, bytes], where the bytes of a group are 16 scales,
then words of 32 bits for the 16 rows, each with 4 columns in 8 bits or 8 columns in 4 bits, the first in the lowest.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

Quantised = Literal["q8", "q4"]
BITS: dict[Quantised, int] = {"q8": 8, "q4": 4}
GROUP, LANES = 32, 16

_FACTORS = (1.0, 0.95, 0.9)
"""Shares of the scale at which a group's largest weight just fits that are tried in 4 bits."""

_ROWS_AT_ONCE = 256  # of a size that stays in a cache of the processor


def bytes_of(n: int, k: int, form: Quantised) -> int:
    """Memory of a packed matrix of n rows and k columns."""
    return -(-n // LANES) * (k // GROUP) * _group_bytes(form)


def quantise(matrix: Float[Tensor, "n k"], form: Quantised) -> UInt8[Tensor, "P G bytes"]:
    """Pack a matrix. Raises ValueError unless its columns are a multiple of 32."""
    if matrix.shape[1] % GROUP:
        raise ValueError(
            f"{matrix.shape[1]} columns are no multiple of {GROUP}: such a matrix cannot be packed"
        )
    whole = F.pad(matrix, (0, 0, 0, -matrix.shape[0] % LANES))
    return torch.cat([_panels(rows.float(), form) for rows in whole.split(_ROWS_AT_ONCE)])


def dequantise(packed: UInt8[Tensor, "P G bytes"], n: int, form: Quantised) -> Float[Tensor, "n k"]:
    """The matrix that is computed with, in float32."""
    scales, q = _parts(packed, form)
    values = q * scales[:, :, None]  # [P, G, 32, 16]
    return values.permute(0, 3, 1, 2).flatten(0, 1).flatten(1)[:n].contiguous()


def rows_of(
    packed: UInt8[Tensor, "P G bytes"], ids: Int[Tensor, "*ids"], form: Quantised
) -> Float[Tensor, "*ids k"]:
    """Single rows of that matrix, as an embedding takes them."""
    flat = ids.flatten()
    scales, q = _parts(packed[flat // LANES], form)  # of the whole panels, of which one lane each is wanted
    lane = (flat % LANES)[:, None, None]
    scale = scales.gather(2, lane.expand(-1, scales.shape[1], 1))  # [N, G, 1]
    column = q.gather(3, lane[..., None].expand(-1, *q.shape[1:3], 1))[..., 0]  # [N, G, 32]
    return (column * scale).flatten(1).unflatten(0, ids.shape)


def _group_bytes(form: Quantised) -> int:
    return 2 * LANES + GROUP * LANES * BITS[form] // 8


def _panels(rows: Float[Tensor, "n k"], form: Quantised) -> UInt8[Tensor, "P G bytes"]:
    groups = rows.unflatten(1, (-1, GROUP))  # [n, G, 32]
    scales, q = _eight(groups) if form == "q8" else _four(groups)
    per_word, bits = 32 // BITS[form], BITS[form]
    lanes = q.to(torch.int32).unflatten(0, (-1, LANES)).permute(0, 2, 3, 1)  # [P, G, 32, 16]
    columns = (lanes & (2**bits - 1)).unflatten(2, (-1, per_word))  # [P, G, words, per_word, 16]
    shifts = bits * torch.arange(per_word, dtype=torch.int32)[:, None]
    words = (columns << shifts).sum(dim=3, dtype=torch.int32)  # no two share a bit: a sum is an or
    halves = scales.unflatten(0, (-1, LANES)).permute(0, 2, 1).contiguous()  # [P, G, 16]
    return torch.cat((halves.view(torch.uint8), words.flatten(2).view(torch.uint8)), dim=2)


def _eight(groups: Float[Tensor, "n G 32"]) -> tuple[Tensor, Tensor]:
    """The largest of a group becomes ±127."""
    scales = (groups.abs().amax(dim=2) / 127).half()
    return scales, _nearest(groups, scales.float(), 127)


def _four(groups: Float[Tensor, "n G 32"]) -> tuple[Tensor, Tensor]:
    """Whole numbers from -8 to 7, and of several scales the one with the least error

        Σ (x² + mean of x²) · (x - q · scale)²

    in which large weights, which do most, count more. llama.cpp's Q4_0 takes the scale at which the largest weight
    becomes -8. A smaller one cuts that weight off and is closer to the others; each candidate's scale is then the best
    one for its whole numbers.
    """
    weight = groups.square() + groups.square().mean(dim=2, keepdim=True)
    largest = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))[..., 0]
    best = torch.full_like(largest, torch.inf)
    chosen, chosen_q = torch.zeros_like(largest), torch.zeros_like(groups)
    for factor in (*_FACTORS, *(-factor for factor in _FACTORS)):
        q = _nearest(groups, factor * largest / -8, 8)
        fitted = (weight * groups * q).sum(dim=2) / (weight * q.square()).sum(dim=2).clamp(min=1e-30)
        scale = fitted.half().float()
        error = (weight * (groups - q * scale[..., None]).square()).sum(dim=2)
        better = error < best
        best = torch.where(better, error, best)
        chosen = torch.where(better, scale, chosen)
        chosen_q = torch.where(better[..., None], q, chosen_q)
    return chosen.half(), chosen_q


def _nearest(
    groups: Float[Tensor, "n G 32"], scales: Float[Tensor, "n G"], most: int
) -> Float[Tensor, "n G 32"]:
    """The whole number of scales nearest to each weight; from -most, to 127 in 8 bits and 7 in 4."""
    inverse = torch.where(scales == 0, 0, 1 / scales)[..., None]
    return (groups * inverse).round().clamp(-most, 127 if most == 127 else most - 1)


def _parts(
    packed: UInt8[Tensor, "P G bytes"], form: Quantised
) -> tuple[Float[Tensor, "P G 16"], Float[Tensor, "P G 32 16"]]:
    """Scales and whole numbers, as float32."""
    scales = packed[..., : 2 * LANES].contiguous().view(torch.float16).float()
    words = packed[..., 2 * LANES :].contiguous().view(torch.int32).unflatten(2, (-1, 1, LANES))
    bits = BITS[form]
    lowest = torch.arange(0, 32, bits, dtype=torch.int32, device=packed.device)[:, None]
    q = (words << (32 - bits - lowest)) >> (32 - bits)  # the sign comes down with the bits
    return scales, q.flatten(2, 3).float()
