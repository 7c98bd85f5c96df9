"""What an ablation found, in plain sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pellucid.report.ablation.analysis import Analysis, CellResult, Difference, Effect


def findings(analysis: Analysis) -> list[str]:
    """The main effects where several keys vary, else the cells; then the best cell, and what is missing.

    p-values are corrected for all comparisons of their kind at once.
    """
    if not analysis.runs:
        return ["No run is finished yet, so nothing can be said."]
    sentences: list[str] = []
    if len(analysis.record.vary) > 1:
        names = key_names(analysis.record.vary)
        sentences += [_effect(effect, names[effect.key]) for effect in analysis.effects]
    else:
        sentences += [
            _cell(result, analysis.baseline)
            for result in analysis.results
            if result.difference is not None and len(analysis.results) <= 8
        ]
    sentences.append(_best(analysis))
    if analysis.missing:
        sentences.append(
            f"{len(analysis.missing)} of {len(analysis.missing) + len(analysis.runs)} runs have no score; what is said "
            "here is of the others."
        )
    if not analysis.is_one_text:
        sentences.append(
            "The runs were not scored on the same text: their differences are of texts too, and no interval over "
            "the text is given."
        )
    return sentences


def _effect(effect: Effect, name: str) -> str:
    words = _sentence(short(effect.level), short(effect.reference), effect.difference, "pairs of runs")
    return f"{name}: {words}"


def _cell(result: CellResult, baseline: CellResult) -> str:
    assert result.difference is not None
    return _sentence(result.cell.name, baseline.cell.name, result.difference, "seeds")


def _sentence(one: str, other: str, difference: Difference, what: str) -> str:
    size = f"{abs(difference.mean):.4f}"
    half = f" ± {difference.over_seeds.half:.4f}" if difference.over_seeds else ""
    count = len(difference.values)
    word = "better" if difference.mean < 0 else "worse"
    p = f"p\N{NO-BREAK SPACE}{written_p(difference.corrected_p)}"
    match difference.verdict:
        case "better" | "worse":
            return (
                f"{one} is {word} than {other} by {size}{half} bits/byte over {count} {what}; "
                f"the difference would not be chance ({p})."
            )
        case "this text":
            return (
                f"{one} is {word} than {other} by {size}{half} bits/byte over {count} {what} on this text; "
                "the seeds agree, but another text of the kind might say otherwise."
            )
        case "undecided":
            return (
                f"{one} and {other} cannot be told apart: {difference.mean:+.4f}{half} bits/byte over {count} {what} "
                f"({p})."
            )
        case "one pair":
            return (
                f"{one} came out {word} than {other} by {size} bits/byte in one pair of runs; whether that is chance "
                "cannot be said from one seed."
            )


def _best(analysis: Analysis) -> str:
    best = analysis.ranked[0]
    spread = f" ± {best.over_seeds.half:.4f}" if best.over_seeds else ""
    words = (
        f"The lowest mean has {best.cell.name}: {best.mean:.4f}{spread} bits/byte over {len(best.runs)} "
        + ("seeds" if len(best.runs) > 1 else "seed")
    )
    if best.number == analysis.record.baseline:
        return f"{words}. It is the baseline."
    difference = best.difference
    if difference is None:
        return f"{words}. It has no run in common with the baseline."
    p = f"p\N{NO-BREAK SPACE}{written_p(difference.corrected_p)}"
    if difference.verdict in ("better", "worse"):
        return f"{words}; against the baseline that would not be chance ({p})."
    if difference.verdict == "one pair":
        return f"{words}."
    return f"{words}; it cannot be told from the baseline, {analysis.baseline.cell.name}."


def short(value: Any) -> str:
    """A value of a key as words; an empty one puts the default back."""
    return str(value) if str(value).strip() else "(default)"


def key_names(vary: Mapping[str, Any]) -> dict[str, str]:
    """What people call each key: model.feed_forward.kind → feed_forward; the whole key where two would be the same."""
    last = {key: key.removesuffix(".kind").rpartition(".")[2] for key in vary}
    count = Counter(last.values())
    return {key: name if count[name] == 1 else key for key, name in last.items()}


def written_p(p: float | None) -> str:
    if p is None:
        return "–"
    return "<\N{NO-BREAK SPACE}0.0001" if p < 1e-4 else f"=\N{NO-BREAK SPACE}{p:.2g}"
