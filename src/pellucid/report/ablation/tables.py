"""The tables of an ablation's page."""

from __future__ import annotations

import math

from pellucid.evaluate.interval import Interval
from pellucid.report.ablation.analysis import Analysis, CellResult, Difference, Effect
from pellucid.report.ablation.finding import key_names, over_what, short, written_p
from pellucid.report.run.figures import duration, memory
from pellucid.report.tables import Cell, Table


def results_table(analysis: Analysis) -> Table:
    """Every cell that has runs, the best first."""
    rows = tuple(
        (
            Cell(result.cell.name, "baseline" if result.number == analysis.record.baseline else ""),
            *(Cell(short(result.cell.values[key])) for key in analysis.record.vary),
            _mean(result, is_best=place == 0),
            *_difference(result.difference),
            Cell(f"{len(result.runs)} of {len(analysis.record.seeds)}", is_number=True),
        )
        for place, result in enumerate(analysis.ranked)
    )
    return Table(
        "Cells, the best first",
        (
            "cell",
            *key_names(analysis.record.vary).values(),
            "bits/byte",
            "less baseline",
            "over the text",
            "p",
            "seeds",
        ),
        rows,
        note="bits/byte: the mean over seeds, of the last model on the validation text. less baseline: the mean "
        "difference of runs with the same seed; negative is better. Under a value: its 95 % interval over seeds, by "
        f"Student's t. over the text: that interval by resampling the text's units ({analysis.units}). p: paired t "
        "test over seeds, by Holm's method for the whole column; none for one seed, nor where texts differ.",
    )


def effects_table(analysis: Analysis) -> Table:
    rows = tuple(
        (
            Cell(effect.key),
            Cell(short(effect.level)),
            Cell(short(effect.reference)),
            *_difference(effect.difference),
            Cell(_reach(effect), is_number=True),
            Cell(str(len(effect.difference.values)), _combinations(effect.difference), is_number=True),
        )
        for effect in analysis.effects
    )
    return Table(
        "Main effects",
        ("key", "value", "against", "difference", "over the text", "p", "by combination", "seeds"),
        rows,
        note="Each value of a key against the baseline's value, by pairs of runs that are alike in the seed and in all "
        "other keys: averaged over the other keys first, then over seeds. Runs of one seed share data order and random "
        "draws, so that a seed is one value, of however many combinations. Under the difference: its 95 % interval "
        "over seeds, by Student's t. p: of the same test, by Holm's method for the whole column; an interval is of one "
        "row alone, and may leave out 0 where p is above 0.05. by combination: the lowest and the highest of the "
        "differences at each combination of the other keys, averaged over seeds; where they lie far apart, keys may "
        "act on each other: look at the cells.",
    )


def _reach(effect: Effect) -> str:
    return f"{effect.reach[0]:+.4f} … {effect.reach[1]:+.4f}" if effect.reach else "–"


def _combinations(difference: Difference) -> str:
    """Under the number of seeds."""
    return over_what(difference).partition(", ")[2]


def _mean(result: CellResult, *, is_best: bool) -> Cell:
    return Cell(f"{result.mean:.4f}", _ends(result.over_seeds, "{:.4f}"), is_number=True, is_best=is_best)


def _difference(difference: Difference | None) -> tuple[Cell, Cell, Cell]:
    if difference is None:
        return Cell("–", is_number=True), Cell("–", is_number=True), Cell("–", is_number=True)
    return (
        Cell(f"{difference.mean:+.4f}", _ends(difference.over_seeds, "{:+.4f}"), is_number=True),
        Cell(_ends(difference.over_text, "{:+.4f}") or "–", is_number=True),
        Cell(written_p(difference.corrected_p).removeprefix("=\N{NO-BREAK SPACE}"), is_number=True),
    )


def _ends(interval: Interval | None, form: str) -> str:
    return f"{form.format(interval.low)} … {form.format(interval.high)}" if interval else ""


MATCHED = {
    "steps": "the number of steps",
    "flops": "training FLOPs",
    "params": "the number of parameters",
    "time": "training time",
}


def budgets_table(analysis: Analysis) -> Table:
    """What each cell was given and what it took, on average over its runs."""
    rows = tuple(_budget(result) for result in analysis.results)
    return Table(
        "Budgets, speed and memory",
        (
            "cell", "parameters", "steps", "tokens", "training FLOPs", "time", "tokens a second", "peak memory",
        ),
        rows,
        note=f"Made equal: {MATCHED[analysis.record.match]}. Times and speeds are means over seeds of what the runs "
        "took, and compare only where nothing else ran beside them.",
    )  # fmt: skip


def _budget(result: CellResult) -> tuple[Cell, ...]:
    cell, runs = result.cell, [scored.run for scored in result.runs]
    tokens = result.average([run.tokens for run in runs])
    flops = result.average([run.flops_per_token * run.tokens or math.nan for run in runs])
    if math.isnan(flops) and cell.flops is not None:
        flops = cell.flops
    steps = result.average([float(run.step) for run in runs])
    return (
        Cell(cell.name),
        _number(cell.parameters, "{:,.0f}"),
        _number(steps if runs else float(cell.steps or math.nan), "{:,.0f}"),
        _number(tokens, "{:,.0f}"),
        _number(flops, "{:.4g}"),
        Cell(duration(result.average([run.seconds for run in runs])), is_number=True),
        _number(result.average([run.tokens_per_second for run in runs]), "{:,.0f}"),
        Cell(memory(result.average([run.peak_memory_bytes for run in runs])), is_number=True),
    )


def _number(value: float, form: str) -> Cell:
    return Cell("–" if math.isnan(value) else form.format(value), is_number=True)


def missing_table(analysis: Analysis) -> Table | None:
    """A row a reason, with the runs that it holds for."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for run in sorted(analysis.missing, key=lambda run: run.why != "failed"):
        by_reason.setdefault((run.why, _last_line(run.log)), []).append(run.name)
    if not by_reason:
        return None
    return Table(
        "Runs without a score",
        ("why", "number", "runs"),
        tuple(
            (Cell(why), Cell(str(len(names)), is_number=True), Cell(", ".join(names), said))
            for (why, said), names in by_reason.items()
        ),
        note="They are in no mean and no pair. pellucid ablate with the same words makes those that are missing.",
    )


def _last_line(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def seeds_table(analysis: Analysis) -> Table:
    """Every run's own score."""
    by_run = {(run.cell.name, run.seed): run.bits_per_byte for run in analysis.runs}
    return Table(
        "",
        ("cell", *(f"seed {seed}" for seed in analysis.record.seeds)),
        tuple(
            (
                Cell(cell.name),
                *(
                    Cell(
                        f"{by_run[cell.name, seed]:.4f}" if (cell.name, seed) in by_run else "–",
                        is_number=True,
                    )
                    for seed in analysis.record.seeds
                ),
            )
            for cell in analysis.record.cells
        ),
    )
