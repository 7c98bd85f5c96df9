"""Weights under other names: one table a family, ours → theirs, from which both directions follow.

Most tensors are merely renamed; the classes below are the other ways in which a family stores them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pellucid.errors import CheckpointError
from pellucid.model import ModelConfig
from pellucid.model.stats import on_meta

# How a tensor is stored ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Joined:
    """Ours, as they are; several of ours are joined along their first axis."""

    name: str
    """Their name, with {layer} for the number of the block."""

    def to_theirs(self, ours: Sequence[Tensor], vocab_size: int) -> dict[str, Tensor]:
        """Their tensors by name."""
        del vocab_size
        return {self.name: ours[0] if len(ours) == 1 else torch.cat(tuple(ours))}

    def to_ours(self, theirs: Mapping[str, Tensor], like: Sequence[Tensor]) -> Sequence[Tensor]:
        """The inverse; `like` are meta tensors of the shapes that ours have."""
        return theirs[self.name].split([tensor.shape[0] for tensor in like])


@dataclass(frozen=True)
class Transposed(Joined):
    """As `Joined`, then transposed: a matrix stored as [in, out]."""

    def to_theirs(self, ours: Sequence[Tensor], vocab_size: int) -> dict[str, Tensor]:
        return {name: tensor.T for name, tensor in super().to_theirs(ours, vocab_size).items()}

    def to_ours(self, theirs: Mapping[str, Tensor], like: Sequence[Tensor]) -> Sequence[Tensor]:
        return super().to_ours({self.name: theirs[self.name].T}, like)


@dataclass(frozen=True)
class VocabularyRows(Joined):
    """A row an id, without the rows that pad our tables (`vocab_multiple`); coming back, those are 0."""

    def to_theirs(self, ours: Sequence[Tensor], vocab_size: int) -> dict[str, Tensor]:
        return {self.name: ours[0][:vocab_size]}

    def to_ours(self, theirs: Mapping[str, Tensor], like: Sequence[Tensor]) -> Sequence[Tensor]:
        rows = theirs[self.name]
        padding = like[0].shape[0] - rows.shape[0]
        return [torch.cat((rows, rows.new_zeros(padding, rows.shape[1]))) if padding else rows]


@dataclass(frozen=True)
class Unstacked(Joined):
    """A stack [X, …] as X tensors; {expert} in the name is their number."""

    def to_theirs(self, ours: Sequence[Tensor], vocab_size: int) -> dict[str, Tensor]:
        return dict(zip(self._names(ours[0]), ours[0].unbind(), strict=True))

    def to_ours(self, theirs: Mapping[str, Tensor], like: Sequence[Tensor]) -> Sequence[Tensor]:
        return [torch.stack([theirs[name] for name in self._names(like[0])])]

    def _names(self, stack: Tensor) -> list[str]:
        return [self.name.replace("{expert}", str(expert)) for expert in range(stack.shape[0])]


@dataclass(frozen=True)
class AboveOne(Joined):
    """A gain as its distance from 1. Added and subtracted in float64; from a 16-bit file, ours is float32."""

    def to_theirs(self, ours: Sequence[Tensor], vocab_size: int) -> dict[str, Tensor]:
        return {self.name: (ours[0].double() - 1).to(ours[0].dtype)}

    def to_ours(self, theirs: Mapping[str, Tensor], like: Sequence[Tensor]) -> Sequence[Tensor]:
        distance = theirs[self.name]
        return [(distance.double() + 1).to(torch.promote_types(distance.dtype, torch.float32))]


# The table -------------------------------------------------------------------------------------------

Names = Mapping[str | tuple[str, ...], str | Joined]
"""Ours → theirs, {layer} standing for the number of a block. A string is a new name and nothing else."""


@dataclass(frozen=True)
class NameTable:
    """A family's names, and the two translations that follow from them. Every tensor must have its row."""

    names: Names
    copies: Mapping[str, str] = field(default_factory=dict)
    """Tensors that some writers repeat where a config ties them: their name → the name of what they repeat."""
    ignored: tuple[str, ...] = ()
    """Ends of names that hold nothing trained, such as the masks in old files."""
    prefix: str = ""
    """What names begin with, and may leave out in files of a model without its head."""

    def weights_to_hf(self, weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        """The weights under their names. Raises CheckpointError listing the tensors that do not fit the config."""
        _require_fit(weights, on_meta(config).state_dict())
        return self._to_theirs(weights, config)

    def weights_from_hf(self, weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        """The weights under our names, for `load_state_dict` of the config's model.

        Raises CheckpointError listing the tensors that do not fit the config, and for a copy that is none.
        """
        like = on_meta(config).state_dict()
        expected = self._to_theirs(like, config)
        has_prefix = any(name.startswith(self.prefix) for name in weights)
        kept = {
            name if has_prefix else self.prefix + name: tensor
            for name, tensor in weights.items()
            if not name.endswith(self.ignored)
        }
        for copy, original in self.copies.items():
            if copy in expected or copy not in kept or original not in kept:
                continue
            if not torch.equal(kept.pop(copy), kept[original]):
                raise CheckpointError(
                    f"{copy} differs from {original} although the config ties them; "
                    "set tie_word_embeddings to false if it is the head"
                )
        _require_fit(kept, expected)
        back: dict[str, Tensor] = {}
        for ours, stored in self._rows(like):
            tensors = stored.to_ours(kept, [like[name] for name in ours])
            back |= {name: tensor.contiguous() for name, tensor in zip(ours, tensors, strict=True)}
        return {name: back[name] for name in like}

    def _to_theirs(self, weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        assert config.vocab_size is not None  # a config without one builds no model
        theirs: dict[str, Tensor] = {}
        for ours, stored in self._rows(weights):
            added = stored.to_theirs([weights[name] for name in ours], config.vocab_size)
            theirs |= {name: tensor.contiguous() for name, tensor in added.items()}
        return theirs

    def _rows(self, ours: Mapping[str, Tensor]) -> Iterator[tuple[tuple[str, ...], Joined]]:
        """Which of our tensors are stored together, and how, with the layer's number in all names."""
        rows: dict[str, tuple[tuple[str, ...], Joined]] = {}
        for key, value in self.names.items():
            members = (key,) if isinstance(key, str) else key
            stored = Joined(value) if isinstance(value, str) else value
            rows |= dict.fromkeys(members, (members, stored))
        for name in ours:
            number = _LAYER.search(name)
            layer = number[0] if number else ""
            template = _LAYER.sub("{layer}", name)
            members, stored = rows[template]
            if template == members[0]:
                filled = tuple(member.replace("{layer}", layer) for member in members)
                yield filled, replace(stored, name=stored.name.replace("{layer}", layer))


_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")
"""The number of a block in a name of ours."""


def _require_fit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    faults = [
        f"missing: {name} {list(tensor.shape)}" for name, tensor in expected.items() if name not in weights
    ]
    faults += [
        f"unexpected: {name} {list(tensor.shape)}" for name, tensor in weights.items() if name not in expected
    ]
    faults += [
        f"wrong shape: {name} is {list(weights[name].shape)}, the config says {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if faults:
        raise CheckpointError(f"{len(faults)} tensors do not fit the config:\n" + "\n".join(faults))
