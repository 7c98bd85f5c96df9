"""What an ablation will run: a cell for each combination, its budget matched to the first one's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pellucid.config import Tree, from_tree, override, read_toml, to_tree
from pellucid.errors import ConfigError
from pellucid.experiments.ablation.vary import PRESET, cell_names, combinations
from pellucid.presets import MODELS, RUNS, run_preset
from pellucid.report.ablation.record import AblationRecord, Cell, Match, Scalar
from pellucid.runtime.device import Device
from pellucid.train.config import RunConfig
from pellucid.train.cost import Cost, estimate_cost

WIDTH = "model.feed_forward.d_ff"
WIDTH_MULTIPLE = 8
"""Feed-forward layers are widened by whole multiples of this, which matrix products like."""
_LENGTHS = ("train.tokens=", "train.epochs=", "train.max_seconds=")


def plan_ablation(
    preset: str,
    overrides: Sequence[str],
    vary: Mapping[str, Sequence[str]],
    *,
    seeds: int,
    match: Match,
    device: Device,
) -> AblationRecord:
    """Count what every combination costs and give each the budget of the first one.

    preset: a preset's name or a TOML file, that cells start from unless the key `preset` varies. The match:

    - `steps`: nothing is changed, each has the updates of the preset.
    - `flops`: train.steps is changed, so that each trains for as many FLOPs of matrix products.
    - `params`: model.feed_forward.d_ff is changed, so that each has as many parameters.
    - `time`: each trains for train.max_seconds, which has to be given.

    Raw text is prepared into the cache. Raises ConfigError, naming the cell, for what cannot be trained.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: give at least 1; intervals need 2 or more")
    if any(word.startswith("train.seed=") for word in overrides) or "train.seed" in vary:
        raise ConfigError("train.seed: --seeds says how many there are, from 0 on; leave the key out")
    values = combinations(vary)
    cells: list[Cell] = []
    wanted: Cost | None = None
    for name, value in zip(cell_names(values), values, strict=True):
        try:
            cell = _Matching(start_of(preset, value), overrides, value, device, match)
            wanted = wanted or cell.cost
            cells.append(cell.matched(name, wanted))
        except ConfigError as error:
            raise ConfigError(f"cell {name}: {error}") from None
    return AblationRecord(
        preset=preset,
        overrides=tuple(overrides),
        vary={key: tuple(found) for key, found in vary.items()},
        seeds=tuple(range(seeds)),
        match=match,
        cells=tuple(cells),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def start_of(preset: str, values: Mapping[str, Scalar]) -> Tree:
    """The config that a cell starts from. Raises ConfigError where there is no such preset or file."""
    name = str(values.get(PRESET, preset))
    is_file = name.endswith(".toml") or (name not in RUNS | MODELS and Path(name).is_file())
    return read_toml(Path(name)) if is_file else to_tree(run_preset(name))


def cell_config(record: AblationRecord, cell: Cell) -> RunConfig:
    """The run of a cell, but for its seed and its directory."""
    return from_tree(RunConfig, override(start_of(record.preset, cell.values), cell.overrides))


class _Matching:
    """A cell on the way to its budget."""

    def __init__(
        self,
        tree: Tree,
        overrides: Sequence[str],
        values: Mapping[str, str],
        device: Device,
        match: Match,
    ) -> None:
        self.tree, self.values, self.device, self.match = tree, values, device, match
        # The varied values come first: a kind that resets its table leaves what was asked for below it.
        varied = [f"{key}={value}" for key, value in values.items() if key != PRESET]
        kinds = [word for word in varied if word.partition("=")[0].endswith("kind")]
        self.words = [*kinds, *overrides, *(word for word in varied if word not in kinds)]
        has_clock = override(tree, self.words).get("train", {}).get("max_seconds") is not None
        if match == "time":
            if not has_clock:
                raise ConfigError("--match time: say how long with train.max_seconds=SECONDS")
            self.words += ["train.steps=", "train.tokens=", "train.epochs="]  # the clock alone ends a run
        elif has_clock:
            raise ConfigError(
                f"--match {match}: train.max_seconds may end a run before the others; take it out with "
                "train.max_seconds= and give train.steps, or match time"
            )
        self.cost = self._count(self.words)

    def matched(self, name: str, wanted: Cost) -> Cell:
        words, cost = self.words, self.cost
        if self.match == "flops":
            words, cost = self._same_flops(wanted)
        elif self.match == "params":
            words, cost = self._same_parameters(wanted)
        train = from_tree(RunConfig, override(self.tree, words)).train
        return Cell(
            name=name,
            values=dict(self.values),
            overrides=tuple(words),
            parameters=cost.parameters,
            flops=cost.flops,
            steps=cost.steps,
            max_seconds=train.max_seconds,
        )

    def _count(self, words: Sequence[str]) -> Cost:
        return estimate_cost(from_tree(RunConfig, override(self.tree, words)), self.device)

    def _same_flops(self, wanted: Cost) -> tuple[list[str], Cost]:
        assert wanted.flops
        assert self.cost.flops
        assert self.cost.steps
        steps = max(1, round(wanted.flops / (self.cost.flops / self.cost.steps)))
        if steps == self.cost.steps:
            return self.words, self.cost
        words = [*self.words, *_LENGTHS, f"train.steps={steps}"]
        return words, self._count(words)

    def _same_parameters(self, wanted: Cost) -> tuple[list[str], Cost]:
        """Parameters grow by the same number with every unit of width, so two counts give the width."""
        short = wanted.parameters - self.cost.parameters
        if short == 0:
            return self.words, self.cost
        if WIDTH in self.values:
            raise ConfigError(f"--match params changes {WIDTH}, which varies here; match flops or steps")
        try:
            one, two = (self._count([*self.words, f"{WIDTH}={n * WIDTH_MULTIPLE}"]) for n in (1, 2))
        except ConfigError as error:
            raise ConfigError(f"--match params changes {WIDTH}: {error}") from None
        width = 1 + round((wanted.parameters - one.parameters) / (two.parameters - one.parameters))
        if width < 1:
            raise ConfigError(
                f"--match params: has {-short:,} parameters more than the first cell ({wanted.parameters:,}), and "
                f"{WIDTH} cannot take so many away; match flops or steps"
            )
        words = [*self.words, f"{WIDTH}={width * WIDTH_MULTIPLE}"]
        cost = self._count(words)
        # Rounded to whole multiples, the width may miss by more than was missing.
        return (
            (words, cost)
            if abs(wanted.parameters - cost.parameters) < abs(short)
            else (self.words, self.cost)
        )
