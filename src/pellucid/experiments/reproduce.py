"""A recipe says what to train and what should come out; reproducing it trains, and checks the one against the other."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from rich.console import Console

from pellucid.config import Config, differences, from_tree, override, read_toml, to_tree
from pellucid.errors import ConfigError, DataError
from pellucid.presets import run_preset
from pellucid.train import resume, train
from pellucid.train.config import RunConfig
from pellucid.train.opening import open_data
from pellucid.train.run_files import CONFIG, METRICS, is_complete, read_facts
from pellucid.train.rundir import RunDirectory

METRIC_NAMES = {
    "val_loss": "validation loss (nats a token)",
    "perplexity": "validation perplexity",
    "bits_per_byte": "validation bits/byte",
}


_OF_NO_NUMBER = ("run.", "data.path", "train.sample_", "train.checkpoint_every", "train.keep_checkpoints")
"""Keys that may differ between a recipe and a run of it; the data is told by its fingerprint, not by its path."""


class Expectation(Config):
    """One number that the run should come to: within `tolerance` of `value`, or `below` something."""

    metric: Literal["val_loss", "perplexity", "bits_per_byte"]
    after_steps: int = Field(gt=0)
    """The update after which it is looked at; there has to be an evaluation."""
    value: float | None = None
    tolerance: float | None = Field(default=None, gt=0)
    below: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.value is None) != (self.tolerance is None) or (self.value is None) == (self.below is None):
            raise ValueError("give value and tolerance, or below")
        return self

    def holds(self, found: float) -> bool:
        if self.below is not None:
            return found < self.below
        assert self.value is not None
        assert self.tolerance is not None
        return abs(found - self.value) <= self.tolerance

    def __str__(self) -> str:
        band = f"< {self.below:g}" if self.below is not None else f"{self.value:g} ± {self.tolerance:g}"
        return f"{METRIC_NAMES[self.metric]} {band} after {self.after_steps:,} steps"


class Target(Config):
    """A number that has not been reached here, for the reader: it is shown and never checked."""

    what: str
    source: str
    """Who has reached it, and where that is written."""


class Recipe(Config):
    """A file of `recipes/`: one run, what is known of its outcome, and how that is known."""

    title: str
    preset: str
    overrides: tuple[str, ...] = ()
    status: Literal["measured", "not run here"]
    """`measured`: the bands below were seen by us. `not run here`: they are aims, and nobody promises them."""
    provenance: str
    """Where the numbers come from: machine, date, how many runs."""
    expected: tuple[Expectation, ...]
    target: tuple[Target, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.expected:
            raise ValueError(
                "expected: a recipe without an expectation has nothing to check; give [[expected]]"
            )
        return self

    def config(self) -> RunConfig:
        """The run. Raises ConfigError where the preset or an override is not known, or no evaluation is due."""
        run = from_tree(RunConfig, override(to_tree(run_preset(self.preset)), self.overrides))
        last = run.train.steps
        for expected in self.expected:
            step = expected.after_steps
            if step != last and (step % run.train.eval_every or (last is not None and step > last)):
                raise ConfigError(
                    f"after_steps = {step}: no evaluation is due there; it is after every {run.train.eval_every} steps "
                    f"(train.eval_every)" + (f" and after the last, {last}" if last else "")
                )
        return run


def read_recipe(path: Path) -> Recipe:
    """Raises ConfigError, with the file's name, for a file that is no recipe."""
    return from_tree(Recipe, read_toml(path), where=str(path))


@dataclass(frozen=True)
class Checked:
    """One expectation beside what was found."""

    expected: str
    found: float | None
    """None where the run's number was not finite."""
    holds: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def reproduce(
    recipe: Recipe, run: Path, *, device: str | None = None, console: Console | None = None
) -> int | None:
    """Train the recipe's run into the directory, or go on with what is there; the signal that cut it off, if any.

    Raises ConfigError where the directory holds a run of another config.
    """
    if (run / CONFIG).is_file():
        require_same_run(recipe, run)
        if is_complete(run):
            return None
        return resume(run, [], device=device, console=console).signal
    config = recipe.config()
    placed = config.model_copy(update={"run": config.run.model_copy(update={"dir": str(run)})})
    return train(placed, device=device, console=console).signal


def require_same_run(recipe: Recipe, run: Path) -> None:
    """Raise ConfigError unless the run in the directory was trained as the recipe says, on its data.

    What a plan fills in for the machine (micro-batch, precision, compilation, …) is not part of a recipe, nor is what
    the run writes on its way.
    """
    config = recipe.config()
    wanted, found = to_tree(config), read_toml(run / CONFIG)
    lines = differences(wanted, _like(wanted, found))
    faults = [line for line in lines if not line.startswith(_OF_NO_NUMBER) and ": auto →" not in line]
    trained_on, expected = (
        RunDirectory(run).read_environment().get("data"),
        open_data(config).shards.fingerprint,
    )
    if trained_on != expected:
        faults.append(f"data: {expected[:12]} → {str(trained_on)[:12]}")
    if faults:
        told = "\n".join(f"  {line}" for line in faults)
        raise ConfigError(f"{run}: was not trained by this recipe\n{told}")


def check(recipe: Recipe, run: Path) -> list[Checked]:
    """Every expectation beside the run's own log. Raises DataError where the log has no such evaluation yet."""
    found = {f["step"]: f for f in read_facts(run / METRICS) if f["event"] == "evaluation"}
    checked: list[Checked] = []
    for expected in recipe.expected:
        if expected.after_steps not in found:
            raise DataError(
                f"{run}: has no evaluation after {expected.after_steps:,} steps; is the run complete?"
            )
        value: float | None = found[expected.after_steps][expected.metric]
        checked.append(Checked(str(expected), value, value is not None and expected.holds(value)))
    return checked


def _like(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """`found` without the keys that `wanted` does not have."""
    return {
        key: _like(value, found[key])
        if isinstance(value, dict) and isinstance(found.get(key), dict)
        else found[key]
        for key, value in wanted.items()
        if key in found
    }
