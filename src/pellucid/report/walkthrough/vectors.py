"""Vectors on their way: the embedding, the norm, and how the residual stream grows."""

from __future__ import annotations

from torch import Tensor

from pellucid.report.walkthrough.sources import file_of, formula_of
from pellucid.report.walkthrough.subject import Subject, Tower, beginning, rms, show
from pellucid.report.walkthrough.values import Bars, Section, Table


def embedding_section(subject: Subject) -> Section:
    tower = subject.towers[0]
    step = tower.embedding
    vectors = step.result[0]
    shown, twins = _shown_tokens(tower)
    words = (
        f"Each id picks its row of a table of {step.module.get_parameter('table').shape[0]:,} rows: a vector of "
        f"{vectors.shape[1]} numbers, the token's first meaning. With it the residual stream starts, which every "
        "block reads and adds to."
    )
    if twins:
        first, second = twins
        words += (
            f" Tokens {first} and {second} are both {tower.labels[first]!r}, so their vectors are equal: only "
            "position and attention can tell them apart."
        )
    rows = tuple(
        (f"{place} {tower.labels[place]}", beginning(vectors[place]), show(rms(vectors[place])))
        for place in shown
    )
    return Section(
        "Ids become vectors",
        words,
        {
            "shape": list(step.result.shape),
            "rms": [rms(vector) for vector in vectors],
            "equal_tokens": list(twins),
        },
        (Table(("token", "vector", "RMS"), rows),),
        files=file_of(step.module),
        formula=formula_of(step.module),
    )


def norm_section(subject: Subject) -> Section:
    tower = subject.decoder
    step = tower.part("attention_norm")
    before, after = step.input[0], step.result[0]
    gain = getattr(step.module, "gain", None)
    words = (
        "RMS (root mean square) is the size of a vector's typical number. A norm brings the vectors of all tokens "
        "to one size, however large the stream has become, so that every branch reads numbers of the same scale."
    )
    if tower.layout == "post_norm":
        words += " In this model's layout it stands after each branch, on the stream itself."
    if isinstance(gain, Tensor):
        low, high = gain.min().item(), gain.max().item()
        words += f" Then each feature is multiplied by a learned gain, here from {low:.3f} to {high:.3f}."
    elif rms(after - before) == 0:
        words += " This model has none: what goes in comes out."
    sizes = {"before": before, "after": after}
    numbers = {f"mean_{when}": x.mean(dim=-1).tolist() for when, x in sizes.items()}
    numbers |= {f"rms_{when}": [rms(vector) for vector in x] for when, x in sizes.items()}
    columns = ("mean_before", "rms_before", "mean_after", "rms_after")
    rows = tuple(
        (f"{place} {tower.labels[place]}", *(f"{numbers[column][place]:.3f}" for column in columns))
        for place in _spread(len(tower.ids), 3)
    )
    return Section(
        "A norm sets the scale",
        words,
        {
            "block": tower.layer,
            **numbers,
            "gain": None if not isinstance(gain, Tensor) else [gain.min().item(), gain.max().item()],
        },
        (Table(("token", "mean before", "RMS before", "mean after", "RMS after"), rows),),
        files=file_of(step.module),
        formula=formula_of(step.module),
    )


def stream_section(subject: Subject) -> Section:
    pictures: list[Bars] = []
    numbers: dict[str, dict[str, object]] = {}
    remarks: list[str] = []
    for tower in subject.towers:
        rows = [("token vectors", rms(tower.embedding.result), "")]
        entering = rms(tower.block(0).input)
        if tower.block(0).input is not tower.embedding.result:
            rows.append(("+ positions", entering, ""))
        measured: list[dict[str, float | None]] = []
        adds: dict[str, float] = {}
        for layer in range(tower.num_layers):
            block = tower.block(layer)
            added = {
                name: _added(tower, name, layer) for name in ("attention", "cross_attention", "feed_forward")
            }
            adds = {name: size for name, size in added.items() if size is not None}
            size = rms(block.result)
            rows.append((f"after block {layer}", size, " ".join(f"+ {show(x)}" for x in adds.values())))
            measured.append({"before": rms(block.input), **added, "after": size})
        branches = ", ".join(adds).replace("_", " ")
        pictures.append(Bars(f"{tower.name}: RMS of the stream; added by {branches}", tuple(rows)))
        numbers[tower.name] = {"token_vectors": rms(tower.embedding.result), "blocks": measured}
        if tower.final_norm is not None:
            numbers[tower.name]["final_norm"] = size = rms(tower.final_norm.result)
            remarks.append(f"The {tower.name}'s final norm brings it to RMS {size:.3f}.")
    block = subject.decoder.block(subject.decoder.layer).module
    if subject.decoder.layout == "post_norm":
        how = "In this layout a norm follows every branch, so the stream keeps its size."
    else:
        how = "So it tends to grow with depth, and every reader of it norms it first."
    return Section(
        "The residual stream grows",
        "Every block adds what its attention and its feed-forward layer found and passes the rest on: the stream "
        f"is the sum of all that was said about a token. {how}",
        numbers,
        tuple(pictures),
        tuple(remarks),
        files=file_of(block),
    )


def _added(tower: Tower, branch: str, layer: int) -> float | None:
    """RMS of what a branch adds to the stream; None where the block has no such branch."""
    for name in (f"{branch}_out_norm", branch):
        if tower.has(name, layer):
            return rms(tower.part(name, layer).result)
    return None


def _shown_tokens(tower: Tower) -> tuple[list[int], tuple[int, int] | tuple[()]]:
    """Places to show: the first, and two that hold the same token where there are such, else the last."""
    seen: dict[int, int] = {}
    for place, number in enumerate(tower.ids.tolist()):
        if number in seen:
            return sorted({0, seen[number], place}), (seen[number], place)
        seen[number] = place
    return sorted({0, len(tower.ids) - 1}), ()


def _spread(count: int, most: int) -> list[int]:
    """Up to `most` numbers from 0 to count - 1, evenly apart, the ends included."""
    if count <= most:
        return list(range(count))
    return [round(index * (count - 1) / (most - 1)) for index in range(most)]
