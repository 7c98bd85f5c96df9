"""One head's attention, as a picture."""

from __future__ import annotations

from pellucid.report.walkthrough.attended import Attended, attend_again
from pellucid.report.walkthrough.sources import file_of, formula_of
from pellucid.report.walkthrough.subject import Subject, Tower
from pellucid.report.walkthrough.values import Heatmap, Section

_WORDS = {
    "decoder": (
        "Here tokens look at each other. Each row is a token that asks (its query), each column one that answers "
        "(its key); the fuller the cell, the more of that token's value is taken. A row adds up to 1, and a token "
        "sees only itself and those before it."
    ),
    "encoder": (
        "The encoder's tokens look at each other in both directions: nothing in the source is hidden. Each row is "
        "a token that asks (its query), each column one that answers (its key); a row adds up to 1."
    ),
    "target": "In the decoder a target token sees only itself and what came before it.",
    "cross": (
        "Here the target reads the source: each row is a target token that asks, each column a source token that "
        "answers. In a trained translator this picture shows which word became which."
    ),
}


def attention_sections(subject: Subject) -> list[Section]:
    if len(subject.towers) == 1:
        tower = subject.decoder
        return [_section(subject, "Attention", tower, "attention", tower.labels, _WORDS["decoder"])]
    encoder, decoder = subject.towers
    return [
        _section(
            subject, "Attention in the encoder", encoder, "attention", encoder.labels, _WORDS["encoder"]
        ),
        _section(
            subject,
            "Attention in the decoder",
            decoder,
            "attention",
            decoder.labels,
            _WORDS["target"],
            is_first=False,
        ),
        _section(
            subject,
            "Attention to the source",
            decoder,
            "cross_attention",
            encoder.labels,
            _WORDS["cross"],
            is_first=False,
        ),
    ]


def choose_head(seen: Attended, asked: int | None) -> int:
    """The head that was asked for, else the one whose attention is the least evenly spread."""
    return int(seen.spread().argmin()) if asked is None else asked


def _section(
    subject: Subject,
    title: str,
    tower: Tower,
    part: str,
    keys: tuple[str, ...],
    words: str,
    *,
    is_first: bool = True,
) -> Section:
    """is_first: whether what holds for all of them is said."""
    layers = [attend_again(tower.observation, tower.part_name(part, n)) for n in range(tower.num_layers)]
    seen, spreads = layers[tower.layer], [layer.spread().tolist() for layer in layers]
    head = choose_head(seen, subject.head)
    mask = seen.seen
    shares = tuple(
        tuple(round(share, 6) if mask is None or mask[query, key] else None for key, share in enumerate(row))
        for query, row in enumerate(seen.weights[0, head].tolist())
    )
    sharpest = min((spread, layer, n) for layer, row in enumerate(spreads) for n, spread in enumerate(row))
    why = "as asked" if subject.head is not None else f"the sharpest of the {len(spreads[0])} in this block"
    remark = (
        f"Head {head} is {why}, {spreads[tower.layer][head]:.1%} of evenly spread (0% is one token alone); the "
        f"sharpest of all: --layer {sharpest[1]} --head {sharpest[2]}, {sharpest[0]:.1%}."
    )
    if is_first:
        remark += (
            " The pass keeps no weights: these are computed beside it, and agree with its result to within "
            f"{seen.error:.0e}."
        )
    return Section(
        title,
        words,
        {
            "block": tower.layer,
            "head": head,
            "weights": [[share or 0.0 for share in row] for row in shares],
            "spread_by_block_and_head": spreads,
            "largest_difference_from_pass": seen.error,
        },
        (
            Heatmap(
                f"block {tower.layer}, head {head} of {len(spreads[0])} (rows ask, columns answer)",
                tower.labels,
                keys,
                shares,
            ),
        ),
        (remark,),
        files=file_of(seen.attention),
        formula=formula_of(seen.attention) if is_first else "",
    )
