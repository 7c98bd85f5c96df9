"""Models for the contract tests: each member of each union and each option alone, and all pairs of them.

What can be listed is listed from the config classes: the members of a union, the words of a Literal, both values
of a bool. Numbers have their values in VALUES, and a new one asks to be written there.
"""

from __future__ import annotations

import copy
import itertools
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.config import Config, Tree, from_tree, members
from pellucid.model import DecoderConfig, EncoderDecoderConfig
from pellucid.model.feedforward import MoEConfig

FAMILIES: dict[str, type[Config]] = {"decoder": DecoderConfig, "encoder_decoder": EncoderDecoderConfig}

SIZES = {
    "vocab_size": 29,
    "d_model": 16,
    "num_heads": 4,
    "max_seq_len": 16,
    "num_layers": 2,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
}
"""Every model's sizes, none of them a default."""

VALUES: Mapping[str, tuple[Any, ...]] = {
    "num_kv_heads": (2, 1),
    "head_dim": (8,),
    "dropout": (0.2,),
    "vocab_multiple": (8,),
    "logit_softcap": (3.0,),
    "start_id": (3,),
    "norm.eps": (1e-3,),
    "position.theta": (100.0,),
    "position.fraction": (0.5,),
    "position.scaling.factor": (4.0,),
    "position.scaling.original_max_seq_len": (14,),
    "position.scaling.beta_fast": (3.0,),
    "position.scaling.beta_slow": (0.5,),
    "position.scaling.attention_factor": (1.3,),
    "position.scaling.low_frequency_factor": (0.5,),
    "position.scaling.high_frequency_factor": (2.0,),
    "position.num_buckets": (8,),
    "position.max_distance": (7,),
    "attention.window": (3,),
    "attention.window_pattern": ("LG", "GLL"),
    "attention.softcap": (2.0,),
    "attention.dropout": (0.3,),
    "attention.scale": (0.7,),
    "attention.bias": (True, False),
    "feed_forward.d_ff": (24,),
    "feed_forward.num_experts": (5,),
    "feed_forward.top_k": (3,),
    "feed_forward.balance_coefficient": (0.5,),
    "feed_forward.z_coefficient": (0.25,),
}
"""What a key is set to, where its type does not say what it may be. Keys of all kinds of a table are together."""

COMPANIONS: Mapping[str, Tree] = {
    "attention.window_pattern": {"attention": {"window": 3}},
    "attention.bias=False": {"bias": True},
}
"""What a change means nothing without."""

IMPOSSIBLE: tuple[tuple[Tree, Tree], ...] = (
    ({"attention": {"qk_norm": True}}, {"norm": {"kind": "none"}}),
    ({"attention": {"kernel": "sdpa"}}, {"attention": {"softcap": 2.0}}),
    ({"attention": {"kernel": "flex"}}, {"attention": {"dropout": 0.3}}),
    ({"feed_forward": {"kind": "moe"}}, {"bias": True}),
)
"""Changes that do not go together; every other pair must."""


def laid(*trees: Tree) -> Tree:
    """One tree of several, the keys of a table together."""
    result: Tree = {}
    for tree in trees:
        for key, value in tree.items():
            below = result.get(key)
            both = isinstance(below, dict) and isinstance(value, dict)
            result[key] = laid(below, value) if both else value
    return copy.deepcopy(result)


def is_impossible(tree: Tree) -> bool:
    return any(fits(laid(*pair), tree) for pair in IMPOSSIBLE)


def names(tree: Tree) -> list[str]:
    """The keys that a tree sets, without the tables that they are in; a table's kind by the table's name."""
    found: list[str] = []
    for key, value in tree.items():
        found += [key] if not isinstance(value, dict) or "kind" in value else names(value)
    return found


def fits(part: Tree, whole: Tree) -> bool:
    """Whether every key of `part` has its value in `whole`."""
    return all(
        key in whole and (fits(value, whole[key]) if isinstance(value, dict) else whole[key] == value)
        for key, value in part.items()
    )


# Each change alone ----------------------------------------------------------------------------------


def values_of(path: str, annotation: Any, default: Any) -> list[Any]:
    """What a single key is set to, other than its default."""
    if path in VALUES:
        return list(VALUES[path])
    if annotation is bool:
        return [not default]
    choices = [
        choice
        for choice in (annotation, *typing.get_args(annotation))
        if typing.get_origin(choice) is Literal
    ]
    if choices:  # also of `Literal[...] | None`
        return [word for word in typing.get_args(choices[0]) if word != default]
    raise LookupError(
        f"say in VALUES (tests/contracts/conftest.py) what {path} is set to in the contract tests"
    )


def tables_of(path: str, annotation: Any) -> Iterator[tuple[str, Tree]]:
    """Every member of a union: with what it needs alone, then with all its other keys changed as well."""
    for kind, member in members(annotation).items():
        needed, changed, nested = {"kind": kind}, {"kind": kind}, []
        for name, field in member.model_fields.items():
            here = f"{path}.{name}"
            if name == "kind":
                continue
            if members(field.annotation):
                nested.append((name, field.annotation))
                continue
            value = values_of(here, field.annotation, field.default)[0]
            changed[name] = value
            if field.is_required():
                needed[name] = value
        yield kind, needed
        if changed != needed:
            yield f"{kind}, changed", changed
        for name, below in nested:
            for label, table in tables_of(f"{path}.{name}", below):
                yield f"{kind}, {name} {label}", needed | {name: table}


def changes_of(cls: type[Config], path: str = "") -> Iterator[tuple[str, str, Tree]]:
    """(key, name, tree) of every change that can be made alone."""
    for name, field in cls.model_fields.items():
        if name in SIZES or name == "kind":
            continue
        here = f"{path}{name}"
        kinds = members(field.annotation)
        if "" in kinds:  # one class, not a union
            for key, label, tree in changes_of(kinds[""], f"{here}."):
                yield key, label, {name: tree}
        elif kinds:
            for label, table in tables_of(here, field.annotation):
                yield here, f"{here}={label}", {name: table}
        else:
            for value in values_of(here, field.annotation, field.default):
                yield here, f"{here}={value}", {name: value}


def singles(cls: type[Config]) -> dict[str, tuple[str, Tree]]:
    """Name → (key, tree), companions included."""
    found = {}
    for key, name, tree in changes_of(cls):
        found[name] = key, laid(tree, COMPANIONS.get(key, {}), COMPANIONS.get(name, {}))
    return found


# All pairs of changes -------------------------------------------------------------------------------


def pairwise(factors: Mapping[str, list[Tree]]) -> list[Tree]:
    """Few trees in which every two values of two factors meet, but for those that do not go together.

    Greedy: each tree begins with a pair that is not yet covered, then takes for each factor in turn the value that
    covers most. No randomness, so every process counts the same trees.
    """
    keys = list(factors)
    values = [(key, index) for key in keys for index in range(len(factors[key]))]

    def forbids(one: tuple[str, int], other: tuple[str, int]) -> bool:
        return is_impossible(laid(factors[one[0]][one[1]], factors[other[0]][other[1]]))

    forbidden = {
        frozenset(p) for p in itertools.combinations(values, 2) if p[0][0] != p[1][0] and forbids(*p)
    }
    uncovered = {
        frozenset(p): None
        for p in itertools.combinations(values, 2)
        if p[0][0] != p[1][0] and frozenset(p) not in forbidden
    }
    trees = []
    while uncovered:
        row = sorted(next(iter(uncovered)), key=values.index)
        for key in keys:
            if any(key == chosen for chosen, _ in row):
                continue
            allowed = [
                (key, index)
                for index in range(len(factors[key]))
                if not any(frozenset(((key, index), chosen)) in forbidden for chosen in row)
            ]
            row.append(max(allowed, key=lambda v: sum(frozenset((v, chosen)) in uncovered for chosen in row)))
        for pair in itertools.combinations(row, 2):
            uncovered.pop(frozenset(pair), None)
        trees.append(laid(*(factors[key][index] for key, index in row)))
    return trees


def factors_of(cls: type[Config]) -> dict[str, list[Tree]]:
    """Each key, with leaving it alone and every change of it; of a union, each member with its defaults.

    A window and its pattern are one factor, since a pattern is nothing without a window. Of the tables inside a
    table (RoPE's scalings) the factor has one: they do the same to everything else.
    """
    factors: dict[str, list[Tree]] = {}
    for name, (key, tree) in singles(cls).items():
        if "," not in name or name.endswith("yarn"):
            leave = [] if isinstance(tree.get(key), dict) else [{}]  # a union's members include the default
            factors.setdefault(key.removesuffix("_pattern"), leave).append(tree)
    return factors


# Models ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A config by its tree, and what every contract does with it."""

    family: str
    name: str
    tree: Any

    def __str__(self) -> str:
        return f"{self.family}: {self.name}"

    @cached_property
    def config(self) -> Any:
        cls = FAMILIES[self.family]
        sizes = {key: value for key, value in SIZES.items() if key in cls.model_fields}
        return from_tree(cls, laid(sizes, self.tree))

    @property
    def is_short(self) -> bool:
        """Whether it is worth a place among the cases that most contracts are tried on, besides the pairs."""
        return self.family == "decoder" and "," not in self.name

    @property
    def reads_source(self) -> bool:
        return self.family == "encoder_decoder"

    @property
    def can_train(self) -> bool:
        return self.config.attention.kernel != "flex"  # which has no backward pass on CPUs

    @property
    def has_experts(self) -> bool:
        """Whose tokens are computed in an order that depends on all of them: equal up to rounding alone."""
        return isinstance(self.config.feed_forward, MoEConfig)

    def with_changes(self, **changes: Any) -> Case:
        return Case(self.family, self.name, laid(self.tree, changes))

    def with_layers(self, count: int) -> Case:
        keys = [key for key in SIZES if key.endswith("layers") and key in FAMILIES[self.family].model_fields]
        return self.with_changes(**dict.fromkeys(keys, count))

    def build(self, dtype: torch.dtype = torch.float64) -> Any:
        """In evaluation mode, with every parameter drawn wide, so that each matters and none hides another."""
        model = self.config.build().eval()
        generator = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for name, role in model.parameter_roles().items():
                parameter = model.get_parameter(name)
                noise = torch.empty(parameter.shape).normal_(generator=generator)
                size = parameter.shape[-1] ** -0.5 if role.endswith("matrix") else 0.3
                size *= 0.5 if role == "residual_matrix" else 1  # else a stream without norms explodes
                parameter.copy_(size * noise + (role == "gain"))
        return model.to(dtype)

    def ids(self, batch: int = 2, time: int = 12, *, seed: int = 2) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, SIZES["vocab_size"], (batch, time), generator=generator)

    def source(self, batch: int = 2) -> dict[str, Tensor]:
        """What `hidden` takes besides: an encoder-decoder's source."""
        return {"encoder_ids": self.ids(batch, 7, seed=5)} if self.reads_source else {}

    def logits(self, model: Any, ids: Tensor, **how: Any) -> Tensor:
        return model.head(model.hidden(ids, **{**self.source(len(ids)), **how}).states)

    def loss_and_gradients(self, model: Any, **how: Any) -> tuple[Tensor, dict[str, Tensor | None]]:
        """Cross-entropy and side losses; dropout draws the same at every call."""
        torch.manual_seed(0)
        model.zero_grad()
        ids = self.ids(time=13)
        hidden = model.hidden(ids[:, :-1], **{**self.source(), **how})
        loss = F.cross_entropy(model.head(hidden.states).flatten(0, 1), ids[:, 1:].flatten())
        for total, weight in hidden.auxiliary.values():
            loss = loss + total / weight
        loss.backward()
        return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def options(family: str) -> dict[str, Tree]:
    """Each change alone. What only reaches inside one part is tried in the decoder."""
    found: dict[str, Tree] = {"the default": {}}
    for name, (_, tree) in singles(FAMILIES[family]).items():
        if family == "decoder" or "," not in name:
            found[name] = tree
    return found


OPTIONS = [Case(family, name, tree) for family in FAMILIES for name, tree in options(family).items()]
PAIRS = [
    Case(family, f"pairs {number}", tree)
    for family, cls in FAMILIES.items()
    for number, tree in enumerate(pairwise(factors_of(cls)))
]


def one_of_each(family: str) -> list[Case]:
    """Few of the pairs' configs in which every change is made."""
    values = [value for values in factors_of(FAMILIES[family]).values() for value in values]
    missing, chosen = {str(value): value for value in values}, []
    while missing:
        best = max(
            (case for case in PAIRS if case.family == family),
            key=lambda case: sum(fits(value, case.tree) for value in missing.values()),
        )
        chosen.append(best)
        missing = {name: value for name, value in missing.items() if not fits(value, best.tree)}
    return chosen


FEW = {family: one_of_each(family) for family in FAMILIES}
PLACED = [
    Case(family, f"{position}, {window}", laid({"position": table}, {"attention": attention}))
    for family in FAMILIES
    for position, table in tables_of("position", DecoderConfig.model_fields["position"].annotation)
    if table.get("scaling") != {"kind": "none"}  # which is the default
    for window, attention in {
        "no window": {},
        "window": {"window": 3},
        "window pattern": {"window": 3, "window_pattern": "LG"},
    }.items()
]


@pytest.fixture(params=OPTIONS, ids=str)
def option(request: pytest.FixtureRequest) -> Case:
    """Each member of each union and each option, alone, in both families."""
    return request.param


@pytest.fixture(params=[*(case for case in OPTIONS if case.is_short), *PAIRS], ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    """Each member and option alone in a decoder, and configs in which every two of them meet in both families."""
    return request.param


@pytest.fixture(params=PAIRS, ids=str)
def pair(request: pytest.FixtureRequest) -> Case:
    """The configs in which every two changes meet."""
    return request.param


@pytest.fixture(params=[*FEW["decoder"], *FEW["encoder_decoder"]], ids=str)
def few(request: pytest.FixtureRequest) -> Case:
    """A few configs in which every change is made, for what is slow."""
    return request.param


@pytest.fixture(params=[*FEW["decoder"], FEW["encoder_decoder"][0]], ids=str)
def very_few(request: pytest.FixtureRequest) -> Case:
    """A few in which every change is made in a decoder, and one encoder-decoder, for what takes seconds."""
    return request.param


@pytest.fixture(params=PLACED, ids=str)
def placed(request: pytest.FixtureRequest) -> Case:
    """Every position scheme with and without a sliding window: what the cache has to do with."""
    return request.param


@pytest.fixture(
    params=[case for case in PLACED if case.name.count(",") == 1 and "no window" not in case.name], ids=str
)
def windowed(request: pytest.FixtureRequest) -> Case:
    """Every position scheme as it is left to itself, with windows."""
    return request.param


@pytest.fixture(scope="session")
def changes() -> SimpleNamespace:
    """What the cases above were made of."""
    return SimpleNamespace(
        factors={family: factors_of(cls) for family, cls in FAMILIES.items()},
        pairs={family: [case.tree for case in PAIRS if case.family == family] for family in FAMILIES},
        impossible=IMPOSSIBLE,
        is_impossible=is_impossible,
        fits=fits,
        laid=laid,
        names=names,
        case=lambda family, tree: Case(family, "", tree),
    )


@pytest.fixture
def compiles_nothing() -> Iterator[None]:
    """FlexAttention's own form for CPUs is traced anew for every shape, which takes longer than all else."""
    with torch.compiler.set_stance("force_eager"):
        yield
