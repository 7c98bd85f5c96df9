"""`pellucid reproduce`: trains a recipe and checks what came out against what should."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pellucid.cli.options import DeviceName, Json, print_json
from pellucid.runtime.console import message_console

if TYPE_CHECKING:
    from pellucid.experiments.reproduce import Checked, Recipe


def register(app: typer.Typer) -> None:
    app.command("reproduce")(reproduce)


def reproduce(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A file of recipes/.", show_default=False)],
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="Where the run goes, or a run of this recipe that is there already; default: runs/reproduce-NAME.",
            show_default=False,
        ),
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Train also what we have not run ourselves.")
    ] = False,
    device: DeviceName = None,
    json: Json = False,
) -> int:
    """Train a recipe and check its numbers: exit status 0 where all lie in their bands, 1 where one does not.

    \b
    pellucid reproduce recipes/quick.toml

    The same command again goes on after an interruption. A recipe with the status "not run here" shows its targets
    and what it would cost.
    """
    from pellucid.experiments.reproduce import check, read_recipe
    from pellucid.experiments.reproduce import reproduce as train_recipe

    console = message_console()
    found = read_recipe(recipe)
    _introduce(found, console)
    directory = run or Path("runs") / f"reproduce-{recipe.stem}"
    if found.status == "not run here" and not anyway:
        return _plan(found, device, console, json)
    signal = train_recipe(found, directory, device=device, console=console)
    if signal is not None:
        console.print(f"saved; go on with: pellucid reproduce {recipe} --run {directory}", style="bold")
        return 128 + signal
    return _judge(check(found, directory), directory, json)


def _introduce(recipe: Recipe, console: Console) -> None:
    console.print(recipe.title, style="bold")
    console.print(
        f"preset {' '.join([recipe.preset, *recipe.overrides])}; {recipe.status}: {recipe.provenance}"
    )
    for expected in recipe.expected:
        console.print(f"  expected: {expected}")
    for target in recipe.target:
        console.print(f"  target: {target.what} ({target.source})")


def _plan(recipe: Recipe, device: str | None, console: Console, json: bool) -> int:
    """What the recipe would cost on this machine."""
    from pellucid.runtime.device import choose_device
    from pellucid.train.cost import estimate_cost

    cost = estimate_cost(recipe.config(), choose_device(device))
    if json:
        print_json({**recipe.model_dump(mode="json"), "cost": cost.to_dict()})
    else:
        console.print("what it needs, by the planner:")
        for name, value in cost.rows():
            console.print(f"  {name:<17} {value}")
    console.print(
        f"next: pellucid plan {recipe.preset}, or this command with --anyway to train it", style="bold"
    )
    return 0


def _judge(checked: list[Checked], directory: Path, json: bool) -> int:
    holds = all(one.holds for one in checked)
    if json:
        print_json(
            {"run": str(directory), "reproduced": holds, "checked": [one.to_dict() for one in checked]}
        )
    else:
        out = Console(highlight=False, markup=False, soft_wrap=True)
        for one in checked:
            word = "as expected" if one.holds else "NOT as expected"
            number = "no finite number" if one.found is None else f"{one.found:.4f}"
            out.print(f"{word}: found {number}; {one.expected}", style="green" if one.holds else "red")
    return 0 if holds else 1
