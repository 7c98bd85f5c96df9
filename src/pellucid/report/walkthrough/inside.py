"""The feed-forward layer: what happens to each token alone."""

from __future__ import annotations

from torch import Tensor

from pellucid.model.feedforward import MoE
from pellucid.model.feedforward.moe.routing import route
from pellucid.report.walkthrough.sources import file_of, formula_of
from pellucid.report.walkthrough.subject import Subject, Tower, rms, show
from pellucid.report.walkthrough.values import Bars, Picture, Section, Strip, Table


def feed_forward_section(subject: Subject) -> Section:
    tower = subject.decoder
    step = tower.part("feed_forward")
    given = rms(step.result)
    words = "Attention moves information between tokens; the feed-forward layer works on each token alone. "
    numbers: dict[str, object] = {
        "block": tower.layer,
        "rms_in": rms(step.input),
        "rms_out": given,
    }
    pictures: tuple[Picture, ...] = ()
    if isinstance(step.module, MoE):
        more, found, pictures = _experts(tower, step.module)
        numbers |= found
    elif tower.has("feed_forward.down"):
        more, found, pictures = _units(tower, tower.part("feed_forward.down").input[0])
        numbers |= found
    else:
        more = ""
    adds = f"adds vectors of RMS {show(given)}"
    if tower.has("feed_forward_out_norm") and tower.has_norms:
        added = rms(tower.part("feed_forward_out_norm").result)
        adds = f"gives vectors of RMS {show(given)}, which the norm behind it makes {show(added)} to be added"
    return Section(
        "The feed-forward layer",
        words + more,
        numbers,
        pictures,
        remarks=(f"In block {tower.layer} it reads vectors of RMS {show(rms(step.input))} and {adds}.",),
        files=file_of(step.module),
        formula=formula_of(step.module),
    )


Found = tuple[str, dict[str, object], tuple[Picture, ...]]


def _units(tower: Tower, inside: Tensor) -> Found:
    """How many of the F units inside, [T, F], a token makes use of."""
    size = inside.abs()
    largest = size.amax(dim=-1, keepdim=True)
    active = (size > largest / 10).double().mean(dim=-1)
    silent = (inside == 0).double().mean().item()
    strongest = size.argmax(dim=-1)
    places = sorted({0, len(tower.ids) - 1})
    rows = tuple(
        (
            f"{place} {tower.labels[place]}",
            f"{active[place].item():.1%}",
            str(int(strongest[place])),
            show(inside[place, strongest[place]].item()),
        )
        for place in places
    )
    is_wider = inside.shape[-1] > tower.part("feed_forward").input.shape[-1]
    there, back = (
        ("widens the vector to", "narrows it again") if is_wider else ("turns the vector into", "back")
    )
    words = (
        f"It {there} {inside.shape[-1]:,} units, each of which answers to some pattern, and {back}. Active are units "
        "above a tenth of the token's strongest one"
    )
    words += f"; {silent:.0%} are exactly 0." if silent > 0.001 else "."
    return (
        words,
        {
            "width": inside.shape[-1],
            "active": active.tolist(),
            "zero": silent,
            "strongest": strongest.tolist(),
        },
        (Table(("token", "active units", "strongest unit", "its value"), rows),),
    )


def _experts(tower: Tower, layer: MoE) -> Found:
    """Where the router sent each token, computed again from what the layer read in the pass."""
    logits = layer.router(tower.part("feed_forward").input[0])  # [T, X]
    routing = route(logits, layer.top_k, normalize=layer.normalize_top_k)
    counts = routing.counts.tolist()
    best = "one that suits it" if layer.top_k == 1 else f"{layer.top_k} that suit it"
    words = (
        f"This one is a mixture of {len(counts)} experts: a router sends each token to the {best} "
        "best, so the model has the weights of all and does the work of a few."
    )
    cells = tuple(
        (label, ",".join(map(str, chosen)))
        for label, chosen in zip(tower.labels, routing.chosen.tolist(), strict=True)
    )
    bars = tuple((f"expert {n}", float(count), str(count)) for n, count in enumerate(counts))
    return (
        words,
        {
            "experts": routing.chosen.tolist(),
            "expert_weights": routing.weights.tolist(),
            "tokens_by_expert": counts,
        },
        (
            Strip("each token's experts, the likeliest first", cells),
            Bars("tokens by expert", bars, is_written=False),
        ),
    )
