"""The model as a list of parts: where the weights come from, how many there are, and the work each part did."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn

from pellucid.model import DecoderLM
from pellucid.model.block import Block
from pellucid.report.walkthrough.sources import file_of
from pellucid.report.walkthrough.subject import Origin, Subject
from pellucid.report.walkthrough.values import Section, Table

_ORDER = ("token table", "positions", "norms", "attention", "cross attention", "feed forward", "head")


def parts_section(subject: Subject) -> Section:
    model, flops = subject.model, subject.observation.flops
    parameters, work = dict[str, int](), dict[str, int]()
    for name, module in sorted(_parts(model), key=lambda found: _rank(_part_of(found[0]))):
        part = _part_of(name)
        own = sum(parameter.numel() for parameter in module.parameters())
        parameters[part] = parameters.get(part, 0) + own
        work[part] = work.get(part, 0) + flops.get(name, 0)
    all_parameters = sum(parameter.numel() for parameter in model.parameters())
    all_work = flops[""]
    head = "head" if model.output is not None else "head (the token table)"
    work[head] = work.get(head, 0) + all_work - sum(work.values())  # what the pass did outside all parts
    parameters.setdefault(head, 0)

    def row(part: str, count: int, done: int) -> tuple[str, ...]:
        shares = f"{count / all_parameters:.1%}", f"{done / all_work:.1%}"
        return part, f"{count:,}", shares[0], f"{done:,}", shares[1]

    rows = [
        row(part, count, work.get(part, 0))
        for part, count in parameters.items()
        if count or work.get(part, 0)  # not a position scheme without weights
    ]
    rows.append(row("all", all_parameters, all_work))
    return Section(
        "The model",
        _words(subject),
        {
            "origin": _origin_numbers(subject.origin),
            "parameters": {**parameters, "all": all_parameters},
            "flops": {**{part: work.get(part, 0) for part in parameters}, "all": all_work},
        },
        (Table(("part", "parameters", "", "FLOPs", ""), tuple(rows)),),
        remarks=("FLOPs: products and sums of matrices, counted while the sentence passed through.",),
        files=file_of(model),
    )


def _parts(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The model cut into parts by name: blocks and stacks are opened, everything else is a part."""
    for name, module in model.named_children():
        path = f"{prefix}{name}"
        if path in ("blocks", "encoder", "decoder") or isinstance(module, (Block, nn.ModuleList)):
            yield from _parts(module, f"{path}.")
        else:
            yield path, module


def _part_of(name: str) -> str:
    """What a module is called in the table, by the last word of its name."""
    leaf = name.rpartition(".")[2]
    if leaf.endswith("norm"):
        return "norms"
    if leaf.endswith("embedding"):
        return "token table"
    if leaf == "position":
        return "positions"
    return "head" if leaf == "output" else leaf.replace("_", " ")


def _rank(part: str) -> int:
    return _ORDER.index(part) if part in _ORDER else len(_ORDER)


def _words(subject: Subject) -> str:
    model, origin = subject.model, subject.origin
    layers = (
        f"{model.config.num_layers} blocks"
        if isinstance(model, DecoderLM)
        else f"{model.config.num_encoder_layers} encoder and {model.config.num_decoder_layers} decoder blocks"
    )
    kind = "A decoder" if isinstance(model, DecoderLM) else "An encoder-decoder"
    what = (
        f"{kind} of {layers}, {model.config.num_heads} heads and a residual stream "
        f"{model.config.d_model} numbers wide."
    )
    if origin.is_random:
        return (
            f"{what} This is {origin.name} with random weights (seed {origin.seed}): it has learned nothing. "
            "Where its attention looks and which token it puts next mean nothing yet; the machinery that you see is "
            "the same after training."
        )
    trained = f" after {origin.step:,} updates" if origin.step is not None else ""
    loss = (
        ""
        if origin.loss is None
        else f"; its validation loss is {origin.loss:.4f} nats a token, as if it hesitated between "
        f"{math.exp(origin.loss):.1f} equally likely tokens"
    )
    return f"{what} Its weights are those of {origin.name}{trained}{loss}."


def _origin_numbers(origin: Origin) -> dict[str, str | int | float | bool | None]:
    return {
        "name": origin.name,
        "is_random": origin.is_random,
        "seed": origin.seed,
        "step": origin.step,
        "validation_loss": origin.loss,
    }
