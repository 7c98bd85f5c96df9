"""Linear layers and token tables whose matrix is stored to be read fast: in fp32, fp16, bf16, 8 or 4 bits."""

from __future__ import annotations

from typing import Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.model import native
from pellucid.model.embeddings import TokenEmbedding
from pellucid.model.packed.formats import BITS, GROUP, Quantised, bytes_of, dequantise, quantise, rows_of
from pellucid.runtime.device import cpu_has_bf16

Format = Literal["fp32", "bf16", "fp16", "q8", "q4"]
"""How a matrix is stored."""

DENSE: dict[Format, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

FEW_ROWS, FEW_ROWS_QUANTISED = 16, 64
"""Rows of x up to which the native kernel is the faster one: torch has to compute a quantised matrix back first."""


class PackedMatrix(nn.Module):
    """A matrix W [n, k] in one of the formats: x · Wᵀ for x in float32 (on GPUs: in any dtype), and its rows.

    Few rows of x are multiplied in float32, straight from the stored numbers. For many, as a prompt has, the
    matrix is taken in bf16 where the processor multiplies that, else in float32. A matrix whose columns are no
    multiple of 32 cannot be quantised and stays bf16. `stored` is what an earlier one had as `data`, which
    is not taken where it has another size.
    """

    data: Tensor

    def __init__(self, matrix: Float[Tensor, "n k"], form: Format, stored: Tensor | None = None) -> None:
        super().__init__()
        self.rows, self.columns = matrix.shape
        if form in BITS and self.columns % GROUP:
            form = "bf16"
        self.form: Format = form
        is_stored = stored is not None and _fits(stored, self.rows, self.columns, form)
        self.register_buffer("data", stored if is_stored else _stored(matrix.detach(), form))
        self._number = native.FORMATS[form]
        self.is_native = self.columns % 16 == 0
        self.few_rows = FEW_ROWS_QUANTISED if form in BITS else FEW_ROWS
        self._wide = torch.bfloat16 if cpu_has_bf16() else torch.float32

    def forward(self, x: Float[Tensor, "*rows k"]) -> Float[Tensor, "*rows n"]:
        if (
            x.numel() <= self.few_rows * self.columns
            and self.is_native
            and x.shape[-1] == self.columns
            and x.dtype == torch.float32
            and x.device.type == "cpu"
            and native.is_available()
        ):
            return native.linear(self._number, self.data, x, self.rows)
        matrix = self.matrix(self._dtype_of_many(x))
        return F.linear(x.to(matrix.dtype), matrix).to(x.dtype)

    def matrix(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "n k"]:
        """The whole matrix as numbers of this dtype."""
        if self.form in DENSE:
            return self.data.to(dtype)
        form = cast(Quantised, self.form)
        if (
            self.data.device.type == "cpu"
            and dtype in (torch.float32, torch.bfloat16)
            and native.is_available()
        ):
            return native.unpack(self._number, self.data, self.rows, self.columns, dtype)
        return dequantise(self.data, self.rows, form).to(dtype)

    def take(self, ids: Int[Tensor, "*ids"]) -> Float[Tensor, "*ids k"]:
        """Rows of the matrix, in float32."""
        if self.form in DENSE:
            return F.embedding(ids, self.data).float()
        return rows_of(self.data, ids, cast(Quantised, self.form))

    def _dtype_of_many(self, x: Tensor) -> torch.dtype:
        """In what many rows are multiplied."""
        if x.device.type != "cpu":
            return x.dtype
        return torch.float32 if self.form in ("fp32", "fp16") else self._wide


class PackedLinear(nn.Module):
    """x · Wᵀ + bias, with W packed. Input [..., in], output [..., out]."""

    def __init__(self, linear: nn.Linear, form: Format, stored: Tensor | None = None) -> None:
        super().__init__()
        self.packed = PackedMatrix(linear.weight, form, stored)
        bias = cast(Tensor | None, linear.bias)
        self.bias = None if bias is None else nn.Parameter(bias.detach().float(), requires_grad=False)

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """The matrix that is computed with, made anew in float32 each time."""
        return self.packed.matrix()

    def forward(self, x: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows out"]:
        y = self.packed(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class PackedEmbedding(TokenEmbedding):
    """A token table, packed: rows for ids, and as a tied head the logits of states."""

    def __init__(self, embedding: TokenEmbedding, form: Format, stored: Tensor | None = None) -> None:
        nn.Module.__init__(self)
        self.factor = embedding.factor
        self.packed = PackedMatrix(embedding.table, form, stored)

    @property
    def table(self) -> Float[Tensor, "V D"]:
        """The numbers that are computed with, made anew in float32 each time."""
        return self.packed.matrix()

    @property
    def device(self) -> torch.device:
        return self.packed.data.device

    @property
    def cache_dtype(self) -> torch.dtype:
        """Keys and values are worth no more bits than the weights that made them; there is no fp16 for them here."""
        return torch.float32 if self.packed.form in ("fp32", "fp16") else torch.bfloat16

    def forward(self, input_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        x = self.packed.take(input_ids)
        return x if self.factor is None else x * self.factor

    def logits(self, states: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows V"]:
        return self.packed(states)


def _stored(matrix: Float[Tensor, "n k"], form: Format) -> Tensor:
    return matrix.to(DENSE[form]).contiguous() if form in DENSE else quantise(matrix, cast(Quantised, form))


def _fits(stored: Tensor, rows: int, columns: int, form: Format) -> bool:
    if form in DENSE:
        return (stored.dtype, stored.shape) == (DENSE[form], (rows, columns))
    return stored.dtype == torch.uint8 and stored.numel() == bytes_of(rows, columns, cast(Quantised, form))


def bits_per_weight(form: Format) -> float:
    """What a weight of a matrix takes, scales included."""
    return 8.0 * DENSE[form].itemsize if form in DENSE else BITS[cast(Quantised, form)] + 16 / GROUP
