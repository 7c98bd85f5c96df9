"""What a walkthrough looks at: a model, its tokenizer, a sentence, and the pass that was observed."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from pellucid.model import Transformer
from pellucid.model.block import Block
from pellucid.model.norms import NoNorm
from pellucid.model.observe import Observation, Step
from pellucid.tokenizers import Tokenizer


@dataclass(frozen=True)
class Origin:
    """Where the weights come from."""

    name: str
    """What the user would call it: a preset's name, a checkpoint's path."""
    seed: int | None = None
    """Of random weights; None for weights that were read from a checkpoint."""
    step: int | None = None
    """Updates done, where the checkpoint says so."""
    loss: float | None = None
    """Its validation loss in nats a token, where the checkpoint says so."""

    @classmethod
    def random(cls, name: str, *, seed: int) -> Origin:
        return cls(name, seed=seed)

    @property
    def is_random(self) -> bool:
        return self.seed is not None


@dataclass(frozen=True, eq=False)
class Tower:
    """A stack of blocks in the pass, and what it read."""

    name: str
    """"decoder" or "encoder"."""
    reads: str
    """What its ids are called: "sentence", "source", "target"."""
    prefix: str
    """What its modules' names begin with."""
    ids: Int[Tensor, " T"]
    labels: tuple[str, ...]
    """The ids as short, printable text."""
    embedding: Step
    num_layers: int
    layer: int
    """The block that is shown."""
    observation: Observation

    @property
    def final_norm(self) -> Step | None:
        """None where the last block has normalised already, and in a model without norms."""
        name = f"{self.prefix}final_norm"
        return self.observation.step(name) if self.has_norms and name in self.observation else None

    @property
    def has_norms(self) -> bool:
        return not isinstance(self.part("attention_norm").module, NoNorm)

    def block(self, layer: int) -> Step:
        return self.observation.step(f"{self.prefix}blocks.{layer}")

    def part(self, name: str, layer: int | None = None) -> Step:
        """The call of a module inside a block, by default the block that is shown."""
        return self.observation.step(self.part_name(name, layer))

    def has(self, name: str, layer: int | None = None) -> bool:
        return self.part_name(name, layer) in self.observation

    def part_name(self, name: str, layer: int | None = None) -> str:
        return f"{self.prefix}blocks.{self.layer if layer is None else layer}.{name}"

    @property
    def layout(self) -> str:
        """Where the norms of its blocks sit."""
        block = self.block(self.layer).module
        assert isinstance(block, Block)
        return block.layout


@dataclass(frozen=True, eq=False)
class Subject:
    """Everything a section may look at."""

    model: Transformer
    tokenizer: Tokenizer
    origin: Origin
    text: str
    observation: Observation
    towers: tuple[Tower, ...]
    head: int | None
    """The head that was asked for."""
    target_note: str = ""

    @property
    def decoder(self) -> Tower:
        return self.towers[-1]


def rms(x: Tensor) -> float:
    """Root mean square of all numbers: the scale of a vector, whatever its width."""
    return x.double().square().mean().sqrt().item()


def beginning(vector: Tensor) -> str:
    """A vector's first numbers."""
    numbers = " ".join(f"{x:6.3f}" for x in vector[:4].tolist())
    return f"{numbers} …" if len(vector) > 4 else numbers


def show(x: float) -> str:
    """A number in at most 8 characters."""
    return f"{x + 0.0:.3f}" if x == 0 or 0.001 <= abs(x) < 10_000 else f"{x:.1e}"
