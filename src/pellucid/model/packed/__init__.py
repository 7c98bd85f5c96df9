"""A model whose matrices are stored to be read fast, for writing text. Read in this order: formats → layers.

What remains of the parameters (gains, biases, positions, experts) is float32, and so are the numbers that flow
between layers.
"""

from __future__ import annotations

from torch import nn

from pellucid.model.embeddings import TokenEmbedding
from pellucid.model.packed.formats import Quantised
from pellucid.model.packed.layers import Format, PackedEmbedding, PackedLinear, PackedMatrix, bits_per_weight


def pack(model: nn.Module, form: Format) -> None:
    """Replace every linear layer and token table of a float32 model by a packed one, in place.

    The model can be scored and sampled afterwards, not trained or saved.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, PackedLinear(child, form))
            elif isinstance(child, TokenEmbedding):
                setattr(module, name, PackedEmbedding(child, form))


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
    "weight_bytes",
]
