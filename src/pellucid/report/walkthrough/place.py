"""How the model knows where a token stands: whichever hooks of its position scheme were at work in the pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.model.positions.rope import RotaryPosition
from pellucid.model.positions.rope_scaling import NoScaling
from pellucid.report.walkthrough.attended import Attended, attend_again
from pellucid.report.walkthrough.heads import choose_head
from pellucid.report.walkthrough.sources import file_of, formula_of
from pellucid.report.walkthrough.subject import Subject, beginning, rms, show
from pellucid.report.walkthrough.values import Picture, Section, Table, Turn, Turns

MOST_PLACES = 4


class _Explained(NamedTuple):
    words: str
    numbers: Mapping[str, Any]
    pictures: tuple[Picture, ...]


def place_section(subject: Subject) -> Section:
    tower = subject.decoder
    scheme = subject.model.get_submodule(f"{tower.prefix}position")
    seen = attend_again(tower.observation, tower.part_name("attention"))
    added = (tower.block(0).input - tower.embedding.result)[0]  # [T, D]
    is_learned = any(True for _ in scheme.parameters())
    found: list[tuple[str, _Explained]] = []
    if rms(added) > 0:
        found.append(("added", _added(added, is_learned=is_learned)))
    if seen.context.angles is not None:
        found.append(
            (
                "turned",
                _turned(seen, tower.labels, *seen.context.angles, head=choose_head(seen, subject.head)),
            )
        )
    if seen.context.bias is not None:
        found.append(("biased", _biased(seen.context.bias, seen.weights.shape[1], is_learned=is_learned)))
    words = "Attention by itself sees a set of tokens without an order. "
    more = _rope_words(scheme) if isinstance(scheme, RotaryPosition) else ""
    if not found:
        words += _without_help(subject)
    return Section(
        "Where a token stands",
        words + " ".join(explained.words for _, explained in found) + more,
        {"block": tower.layer, **{how: explained.numbers for how, explained in found}},
        tuple(picture for _, explained in found for picture in explained.pictures),
        files=file_of(scheme),
        formula=formula_of(scheme),
    )


def _without_help(subject: Subject) -> str:
    """What is left to tell places apart by where there is no position scheme."""
    is_pair, window = len(subject.towers) == 2, subject.model.config.attention.window
    words = (
        f"This model gives it no help: {'in the decoder ' if is_pair else ''}only the mask, which hides what comes "
        f"after a token{'' if window is None else ' and, where there is a window, what lies far behind it'}, tells "
        "places apart."
    )
    if is_pair and window is None:
        words += " From the encoder nothing is hidden, so it cannot know the order of the source."
    elif is_pair:
        words += " The encoder has its window alone, which hides what lies far away."
    return words


def _added(added: Tensor, *, is_learned: bool) -> _Explained:
    """A vector for each place, found as the difference between block 0's input and the token vectors."""
    likeness = F.cosine_similarity(added[:1], added, dim=-1)
    sizes = [rms(vector) for vector in added]
    rows = tuple(
        (str(place), beginning(added[place]), show(sizes[place]), f"{likeness[place].item():.3f}")
        for place in range(min(len(added), MOST_PLACES))
    )
    kind = "learned, a row of a table for each place" if is_learned else "fixed waves, slow and quick ones"
    return _Explained(
        "So before the first block every token's vector gets a second one added that belongs to its place: "
        f"{kind}. The last column compares it with place 0's, from 1 (the same direction) through 0 (nothing in "
        "common) to -1.",
        {"rms": sizes, "likeness_to_place_0": likeness.tolist()},
        (Table(("place", "what is added", "RMS", "like place 0"), rows),),
    )


def _turned(seen: Attended, labels: tuple[str, ...], cos: Tensor, sin: Tensor, *, head: int) -> _Explained:
    """The pairs (i, i + R/2) of the queries, before and after the pass's own rotation."""
    cos, sin = (x[0] if x.dim() == 3 else x for x in (cos, sin))  # [T, R]
    half = cos.shape[-1] // 2
    angles = torch.atan2(sin, cos)[:, :half]  # [T, pairs]
    before, after = (x[0, head][:, [0, half]] for x in (seen.plain_queries, seen.queries))  # [T, 2]
    turns = tuple(
        Turn(f"{place} {labels[place]}", (b[0], b[1]), (a[0], a[1]), angle)
        for place, (b, a, angle) in enumerate(
            zip(before.tolist(), after.tolist(), angles[:, 0].tolist(), strict=True)
        )
    )
    pictures: list[Picture] = [
        Turns(f"head {head}: features 0 and {half} of each query", turns[:MOST_PLACES])
    ]
    speeds = (angles[1] - angles[0]).tolist() if len(angles) > 1 else []
    if speeds:
        rows = tuple(
            (
                f"pair {pair}",
                f"{math.degrees(speeds[pair]):.4g}°",
                f"{2 * math.pi / speeds[pair]:,.1f} places",
            )
            for pair in sorted({0, half // 2, half - 1})
        )
        pictures.append(Table(("", "turns a place", "full circle in"), rows))
    return _Explained(
        "So the features of queries and keys are taken in pairs, as arrows in a plane, and each arrow is turned by "
        "an angle that grows with the token's place. When a query meets a key, only the difference of their angles "
        "counts: their distance. Quick pairs tell neighbours apart, slow ones far places.",
        {
            "head": head,
            "angles": angles[:, 0].tolist(),
            "before": before.tolist(),
            "after": after.tolist(),
            "radians_a_place": speeds,
        },
        tuple(pictures),
    )


def _rope_words(scheme: RotaryPosition) -> str:
    """Where this rotation departs from the plain one."""
    words = ""
    if scheme.rotated < scheme.head_dim:
        words += f" Only the first {scheme.rotated} of a head's {scheme.head_dim} features turn."
    if not isinstance(scheme.scaling, NoScaling):
        words += (
            f" To read further than in training, the angles are changed from those of the formula "
            f"({scheme.scaling.kind} scaling)."
        )
    if scheme.scaling.magnitude != 1:
        words += f" Each arrow also becomes {scheme.scaling.magnitude:.3f} times as long."
    return words


def _biased(bias: Tensor, num_heads: int, *, is_learned: bool) -> _Explained:
    """What each head's scores get, by how far the key lies before the newest query."""
    bias = bias[0] if bias.dim() == 4 else bias  # [H, T, S]
    newest = bias.shape[2] - 1
    distances = [distance for distance in (0, 1, 2, 4, 8, 16, 32, 64) if distance <= newest]
    by_head = [[bias[head, newest, newest - d].item() for d in distances] for head in range(num_heads)]
    shown = sorted({0, num_heads // 3, 2 * num_heads // 3, num_heads - 1})
    rows = tuple((f"head {head}", *(show(x) for x in by_head[head])) for head in shown)
    how = (
        "a learned number for each bucket of distances; far ones share a bucket"
        if is_learned
        else "the further away the key, the lower, and each head falls at its own slope"
    )
    return _Explained(
        "So every score of a query with a key is shifted by a number that depends on their distance alone, before "
        f"the softmax: {how}.",
        {"distances": distances, "bias_by_head": by_head},
        (Table(("keys before", *(str(d) for d in distances)), rows),),
    )
