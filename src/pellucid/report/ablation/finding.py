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
    words = f"{name}: {_sentence(short(effect.level), short(effect.reference), effect.difference)}"
    if effect.reach is None:
        return words
    low, high = effect.reach
    return f"{words} By combination of the other keys: {low:+.4f} … {high:+.4f}."


def _cell(result: CellResult, baseline: CellResult) -> str:
    assert result.difference is not None
    return _sentence(result.cell.name, baseline.cell.name, result.difference)


def _sentence(one: str, other: str, difference: Difference) -> str:
    size = f"{abs(difference.mean):.4f}"
    half = f" ± {difference.over_seeds.half:.4f}" if difference.over_seeds else ""
    over = over_what(difference)
    word = "better" if difference.mean < 0 else "worse"
    p = f"p\N{NO-BREAK SPACE}{written_p(difference.corrected_p)}"
    match difference.verdict:
        case "better" | "worse":
            return (
                f"{one} is {word} than {other} by {size}{half} bits/byte over {over}; "
                f"the difference would not be chance ({p})."
            )
        case "seeds only":
            return (
                f"{one} is {word} than {other} by {size}{half} bits/byte over {over}; over seeds that would not be "
                f"chance ({p}); this text is too short to say more."
            )
        case "this text":
            return (
                f"{one} is {word} than {other} by {size}{half} bits/byte over {over} on this text; "
                "the seeds agree, but another text of the kind might say otherwise."
            )
        case "undecided":
            return f"{one} and {other} cannot be told apart: {difference.mean:+.4f}{half} bits/byte over {over} ({p})."
        case "one seed":
            return (
                f"{one} came out {word} than {other} by {size} bits/byte over {over}; whether that is chance cannot be "
                "said from one seed."
            )
        case "other text":
            return (
                f"{one} and {other} do not compare: {difference.mean:+.4f}{half} bits/byte over {over}, but they were "
                "not scored on the same text."
            )


def over_what(difference: Difference) -> str:
    """How many seeds, and of how many combinations of the other keys each is the mean."""
    seeds, least, most = len(difference.values), min(difference.pairs), max(difference.pairs)
    words = f"{seeds} seed{'s' if seeds > 1 else ''}"
    if most == 1:
        return words
    each = " each" if seeds > 1 else ""
    return f"{words}, {most if least == most else f'{least} to {most}'} combinations{each}"


def _best(analysis: Analysis) -> str:
    best = analysis.ranked[0]
    spread = f" ± {best.over_seeds.half:.4f}" if best.over_seeds else ""
    words = (
        f"The lowest mean has {best.cell.name}: {best.mean:.4f}{spread} bits/byte over {len(best.runs)} "
        + ("seeds" if len(best.runs) > 1 else "seed")
    )
    if best.number == analysis.record.baseline:
        return f"{words}. It is the baseline."
    if best.difference is None:
        return f"{words}. It has no run in common with the baseline."
    return f"{words}; {_against_baseline(best.difference, analysis.baseline.cell.name)}."


def _against_baseline(difference: Difference, baseline: str) -> str:
    p = f"p\N{NO-BREAK SPACE}{written_p(difference.corrected_p)}"
    match difference.verdict:
        case "better":
            return f"against the baseline that would not be chance ({p})"
        case "worse":  # runs are missing: its mean is of other seeds
            return f"over the seeds that it shares with the baseline, {baseline}, it is worse ({p})"
        case "seeds only":
            return f"against the baseline that would not be chance over seeds ({p})"
        case "this text":
            return "it and the baseline differ on this text; another text of the kind might say otherwise"
        case "undecided":
            return f"it cannot be told from the baseline, {baseline}"
        case "one seed":
            return "whether it differs from the baseline by chance cannot be said from one seed"
        case "other text":
            return f"the baseline, {baseline}, was not scored on the same text"


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
