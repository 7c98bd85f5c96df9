"""`pellucid verify-resume`: proves on this machine that a killed and resumed run is the same run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.options import PRESETS_HELP, Json, Words, print_json
from pellucid.runtime.console import message_console


def register(app: typer.Typer) -> None:
    app.command("verify-resume", epilog=PRESETS_HELP)(verify_resume)


def verify_resume(
    words: Words = None,
    steps: Annotated[int, typer.Option("--steps", min=4, help="Updates of each run.")] = 40,
    kills: Annotated[int, typer.Option("--kills", min=1, help="How often the second run is killed.")] = 1,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Decides the moments of the kills.", show_default=False)
    ] = None,
    json: Json = False,
) -> int:
    """Train a preset briefly, twice, kill the second run, resume it, and compare the two to the bit."""
    from pellucid.cli.options import run_config
    from pellucid.experiments.verify_resume import verify_resume as verify

    console = message_console()
    words = words or ["quick"]
    run_config(words)  # a mistake in the words is said before anything starts
    console.print(f"training {' '.join(words)} for {steps} steps, then again with {kills} kill(s) …")
    with tempfile.TemporaryDirectory(prefix="pellucid-verify-") as work:
        verdict = verify(words, work=Path(work), steps=steps, kills=kills, seed=seed)
    for kill in verdict.kills:
        start = "its start" if kill.saved_step is None else f"the checkpoint of step {kill.saved_step}"
        console.print(
            f"killed after {kill.after_seconds:.2f} s, at step {kill.logged_step} of {steps}; resumed from {start}"
        )
    if json:
        print_json(verdict.to_dict())
    for difference in verdict.differences:
        console.print(f"differs: {difference}", style="red")
    if verdict.is_exact:
        console.print(
            "exact: weights, optimizer state and every logged loss of the killed run equal those of the "
            "uninterrupted one to the bit",
            style="green",
        )
        return 0
    return 1
