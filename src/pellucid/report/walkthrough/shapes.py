"""The shapes that the numbers take on their way through the model."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from pellucid.model import interface
from pellucid.report.walkthrough.attended import attend_again
from pellucid.report.walkthrough.subject import Subject, Tower
from pellucid.report.walkthrough.values import Section, Table

Row = tuple[str, str, Tensor | tuple[int, ...]]


def shapes_section(subject: Subject) -> Section:
    is_pair = len(subject.towers) == 2
    rows: list[Row] = []
    for tower in subject.towers:
        rows += _rows(
            tower, "S" if tower.name == "encoder" else "T", name=f"{tower.name} " if is_pair else ""
        )
    rows.append(("logits", "[B, T, V]", subject.observation.logits))
    shown = [(what, letters, [*(x.shape if isinstance(x, Tensor) else x)]) for what, letters, x in rows]
    others = subject.decoder.num_layers - 1
    inside = "F features inside the feed-forward layer, " if subject.decoder.has("feed_forward.down") else ""
    words = (
        "A transformer is a chain of tensors. Letters say what an axis counts: B sentences, T tokens "
        f"({'S of the source' if is_pair else 'S of them as keys'}), D features of a token, H heads and K key/value "
        f"heads of E features each, {inside}V ids."
    )
    if others:
        words += (
            f" Block {subject.decoder.layer} is shown; the others have the same shapes and other weights."
        )
    return Section(
        "The shapes on the way",
        words,
        {"steps": [{"step": what, "letters": letters, "shape": shape} for what, letters, shape in shown]},
        (
            Table(
                ("step", "axes", "shape"),
                tuple((what, letters, " x ".join(map(str, shape))) for what, letters, shape in shown),
                num_words=2,
            ),
        ),
        files=(f"src/{interface.__name__.replace('.', '/')}.py",),
    )


def _rows(tower: Tower, time: str, *, name: str) -> Iterator[Row]:
    block = f"{name}block {tower.layer}"
    stream = f"[B, {time}, D]"
    yield f"{name}ids", f"[B, {time}]", tower.embedding.input
    yield f"{name}token vectors", stream, tower.embedding.result
    norm: Row = f"{block} norm", stream, tower.part("attention_norm").result
    is_behind = tower.layout == "post_norm"
    if tower.has_norms and not is_behind:
        yield norm
    yield from _attention_rows(tower, "attention", block, time, keys_time="S")
    if tower.has_norms and is_behind:
        yield norm
    if tower.has("cross_attention"):
        yield from _attention_rows(tower, "cross_attention", block, time, keys_time="S")
    if tower.has("feed_forward.down"):
        yield f"{block} feed-forward inside", f"[B, {time}, F]", tower.part("feed_forward.down").input
    yield f"{block} feed-forward adds", stream, tower.part("feed_forward").result
    if tower.final_norm is not None:
        yield f"{name}final norm", stream, tower.final_norm.result


def _attention_rows(tower: Tower, part: str, block: str, time: str, *, keys_time: str) -> Iterator[Row]:
    seen = attend_again(tower.observation, tower.part_name(part))
    block = f"{block} {'cross-' if part == 'cross_attention' else ''}"
    yield f"{block}queries", f"[B, H, {time}, E]", seen.queries
    yield f"{block}keys, values", f"[B, K, {keys_time}, E]", seen.keys
    yield f"{block}scores, weights", f"[B, H, {time}, {keys_time}]", seen.weights
    yield f"{block}mixed values", f"[B, {time}, H·E]", seen.mixed
    yield f"{block}attention adds", f"[B, {time}, D]", seen.step.result
