"""One head's attention, as a picture."""

from __future__ import annotations

from pellucid.model.attention import AttentionConfig
from pellucid.report.walkthrough.attended import Attended, attend_again
from pellucid.report.walkthrough.sources import file_of, formula_of
from pellucid.report.walkthrough.subject import Subject, Tower
from pellucid.report.walkthrough.values import Heatmap, Section

_WORDS = {
    "decoder": (
        "Here tokens look at each other. Each row is a token that asks (its query), each column one that answers "
        "(its key); the fuller the cell, the more of that token's value is taken. A row adds up to 1. "
    ),
    "encoder": (
        "The encoder's tokens look at each other in both directions. Each row is a token that asks (its query), "
        "each column one that answers (its key); a row adds up to 1. "
    ),
    "target": "In the decoder the target's tokens look at each other. ",
    "cross": (
        "Here the target reads the source: each row is a target token that asks, each column a source token that "
        "answers. In a trained translator this picture can show which word became which."
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


def _sight(config: AttentionConfig, seen: Attended, layer: int) -> str:
    """Which tokens a token sees in a block, and what its neighbours' blocks let it see."""
    mask = seen.context.mask
    if mask.window is None:
        words = "A token sees only itself and those before it." if mask.is_causal else "Nothing is hidden."
    elif mask.window == 1:
        words = "A token sees only itself."
    else:
        reach = mask.window - 1
        near = f"the {reach} before it" if reach > 1 else "the one before it"
        words = f"A token sees only itself and {near}{'' if mask.is_causal else ', and as many after it'}."
    if config.window is None:
        return words
    pattern, window = config.window_pattern, config.window
    if "G" not in pattern:
        return f"{words} Every block has this window of {window}."
    if mask.window is None:
        return f"{words} Block {layer} is global (window_pattern {pattern}); local blocks have a window of {window}."
    return f"{words} Block {layer} is local, its window is {window} (window_pattern {pattern}); global ones have none."


def _used(seen: Attended) -> str:
    """What of attention's formula a layer makes use of."""
    attention, context = seen.attention, seen.context
    used = [f"a scale of {attention.scale:.3g}"]
    if attention.query_norm is not None:
        used.append("queries and keys normed first (QK-norm)")
    if attention.softcap is not None:
        used.append(f"scores capped at ±{attention.softcap:g}")
    if context.bias is not None:
        used.append("a bias by distance")
    if context.mask.is_causal:
        used.append("the causal mask")
    if context.mask.window is not None:
        used.append(f"a window of {context.mask.window}")
    heads = attention.num_heads // attention.num_kv_heads
    used.append(f"a key/value head for {'each query head' if heads == 1 else f'every {heads} query heads'}")
    return ", ".join(used)


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
    if part == "attention":
        words += _sight(subject.model.config.attention, seen, tower.layer)
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
        (f"Used here: {_used(seen)}.", remark),
        files=file_of(seen.attention),
        formula=formula_of(seen.attention) if is_first else "",
    )
