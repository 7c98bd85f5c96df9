"""A model whose matrices are stored to be read fast, for writing text. Read in this order: formats → layers.

What remains of the parameters (gains, biases, positions, experts) is float32, and so are the numbers that flow
between layers.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from pellucid.model.embeddings import TokenEmbedding
from pellucid.model.packed.formats import Quantised
from pellucid.model.packed.layers import Format, PackedEmbedding, PackedLinear, PackedMatrix, bits_per_weight


def pack(model: nn.Module, form: Format, stored: Mapping[str, Tensor] | None = None) -> None:
    """Replace every linear layer and token table of a float32 model by a packed one, in place.

    In 4 bits, token tables and the head have 8, as in llama.cpp's files: rounding them costs more than all the rest.
    The model can be scored and sampled afterwards, not trained or saved. stored: what `packed_tensors` gave of the
    same model packed before, so that nothing is computed again.
    """
    stored = stored or {}
    of_tokens: Format = "q8" if form == "q4" else form
    head = getattr(model, "output", None)
    for path, module in list(model.named_modules()):
        for name, child in list(module.named_children()):
            before = stored.get(f"{path}.{name}".lstrip("."))
            if isinstance(child, nn.Linear):
                setattr(module, name, PackedLinear(child, of_tokens if child is head else form, before))
            elif isinstance(child, TokenEmbedding):
                setattr(module, name, PackedEmbedding(child, of_tokens, before))


def packed_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What the packed matrices of a model are stored as, by the names of their layers."""
    modules = model.named_modules()
    return {path.removesuffix(".packed"): m.data for path, m in modules if isinstance(m, PackedMatrix)}


def weight_bytes(model: nn.Module) -> int:
    """Memory of all weights, packed ones as they are stored."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


__all__ = [
    "Format",
    "PackedEmbedding",
    "PackedLinear",
    "PackedMatrix",
    "Quantised",
    "bits_per_weight",
    "pack",
    "packed_tensors",
    "weight_bytes",
]
