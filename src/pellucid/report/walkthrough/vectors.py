"""Vectors on their way: the embedding, the norm, and how the residual stream grows."""

from __future__ import annotations

from torch import Tensor

from pellucid.model.embeddings import TokenEmbedding
from pellucid.model.norms import LayerNorm
from pellucid.report.walkthrough.sources import file_of, formula_of
from pellucid.report.walkthrough.subject import Subject, Tower, beginning, rms, show
from pellucid.report.walkthrough.values import Bars, Section, Table

_NORM_PLACES = {
    "pre_norm": "In this model one stands before each branch.",
    "post_norm": (
        "In this model's layout one stands after each branch, on the stream itself; only the first attention reads "
        "the vectors as they came in."
    ),
    "sandwich_norm": (
        "In this model's layout one stands before each branch and another behind it; shown is the one before "
        "attention."
    ),
    "parallel": "In this model's layout one serves all branches of a block, which read the same vector.",
}
_READERS = {
    "pre_norm": "Every branch reads it through a norm.",
    "sandwich_norm": "Every branch reads it through a norm, and a second one sets the size of what it adds.",
    "parallel": "All branches of a block read it side by side, through one norm.",
}


def embedding_section(subject: Subject) -> Section:
    tower = subject.towers[0]
    step = tower.embedding
    vectors, table = step.result[0], step.module
    assert isinstance(table, TokenEmbedding)
    absent = ", times sqrt(D) where `scaled`" if table.factor is None else " where `scaled`"
    shown, twins = _shown_tokens(tower)
    words = (
        f"Each id picks its row of a table of {table.table.shape[0]:,} rows: a vector of "
        f"{vectors.shape[1]} numbers, the token's first meaning. "
    )
    if table.factor is not None:
        words += f"It is multiplied by sqrt({vectors.shape[1]}) = {table.factor:.2f}. "
    words += "With it the residual stream starts, which every block reads and adds to."
    if twins:
        first, second = twins
        words += (
            f" Tokens {first} and {second} are both {tower.labels[first]!r}, so their vectors are equal: so "
            "far nothing tells them apart."
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
        files=file_of(table),
        formula=formula_of(table, absent=(absent,)),
    )


def norm_section(subject: Subject) -> Section:
    tower = subject.decoder
    step = tower.part("attention_norm")
    before, after = step.input[0], step.result[0]
    gain = getattr(step.module, "gain", None)
    words = "RMS (root mean square) is the size of a vector's typical number. "
    if tower.has_norms:
        words += (
            "A norm brings the vectors of all tokens to one size, however large the stream has become, so that "
            f"every branch reads numbers of the same scale. {_NORM_PLACES[tower.layout]}"
        )
    else:
        words += (
            "A norm would bring all tokens' vectors to one size. This model has none: what goes in comes out."
        )
    if isinstance(gain, Tensor):
        low, high = gain.min().item(), gain.max().item()
        words += f" Then each feature is multiplied by a learned gain, here from {low:.3f} to {high:.3f}."
    has_no_bias = isinstance(step.module, LayerNorm) and step.module.bias is None
    sizes = {"before": before, "after": after}
    numbers = {f"mean_{when}": x.mean(dim=-1).tolist() for when, x in sizes.items()}
    numbers |= {f"rms_{when}": [rms(vector) for vector in x] for when, x in sizes.items()}
    columns = ("mean_before", "rms_before", "mean_after", "rms_after")
    rows = tuple(
        (f"{place} {tower.labels[place]}", *(f"{numbers[column][place]:.3f}" for column in columns))
        for place in _spread(len(tower.ids), 3)
    )
    return Section(
        "A norm sets the scale" if tower.has_norms else "No norm sets the scale",
        words,
        {
            "block": tower.layer,
            **numbers,
            "gain": None if not isinstance(gain, Tensor) else [gain.min().item(), gain.max().item()],
        },
        (Table(("token", "mean before", "RMS before", "mean after", "RMS after"), rows),),
        files=file_of(step.module),
        formula=formula_of(step.module, absent=(" and bias", " + b") if has_no_bias else ()),
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
    title, words = _growth(subject.decoder, has_source=len(subject.towers) == 2)
    return Section(
        title,
        words,
        numbers,
        tuple(pictures),
        tuple(remarks),
        files=file_of(subject.decoder.block(subject.decoder.layer).module),
    )


def _growth(tower: Tower, *, has_source: bool) -> tuple[str, str]:
    """What the blocks' layout does to the stream: a title and words."""
    words = f"Every block adds what its attention{'s' if has_source else ''} and its feed-forward layer found"
    if tower.has_norms and tower.layout == "post_norm":
        return "The residual stream keeps its size", (
            f"{words}. In this layout (post-norm) a norm follows each sum: the stream itself is brought back to one "
            "size every time, and needs no final norm."
        )
    words += " and passes the rest on: the stream is the sum of all that was said about a token. "
    if not tower.has_norms:
        return "The residual stream without norms", (
            f"{words}Nothing holds its size: every branch, and the head, reads it as large as it is."
        )
    return "The residual stream grows", f"{words}So it tends to grow with depth. {_READERS[tower.layout]}"


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
