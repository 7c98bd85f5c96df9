"""`pellucid replay`: makes a recorded step again and says where its numbers stopped being finite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.cli.options import DeviceName, Json, print_json
from pellucid.runtime.console import message_console

if TYPE_CHECKING:
    from rich.console import Console

    from pellucid.experiments.replay import Replay
    from pellucid.train.origin import Numbers, Origin


def register(app: typer.Typer) -> None:
    app.command("replay")(replay)


def replay(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="What the flight recorder wrote: RUN/bundles/step-….")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]…",
            help="Make it in another way, e.g. train.precision=fp32: would it have been finite?",
            show_default=False,
        ),
    ] = None,
    device: DeviceName = None,
    json: Json = False,
) -> int:
    """Make the step of a flight-recorder bundle again: is it the same to the bit, and what went wrong first?"""
    from pellucid.experiments.replay import replay as replay_bundle

    found = replay_bundle(bundle, overrides or (), device=device)
    if json:
        print_json(found.to_dict())
    else:
        _show(found, message_console())
    return 0 if found.is_reproduced or found.asked else 1


def _show(found: Replay, console: Console) -> None:
    console.print(
        f"step {found.step:,}, learning rate {found.lr:.2e}: loss {found.loss!r}, gradient norm {found.grad_norm!r}"
    )
    recorded = f"loss {found.recorded_loss!r}, gradient norm {found.recorded_grad_norm!r}"
    if found.is_reproduced:
        console.print("reproduced: both are the recorded ones to the bit", style="green")
    elif found.asked:
        console.print(f"with {' '.join(found.asked)}; recorded were {recorded}")
    else:
        console.print(f"not reproduced: recorded were {recorded}", style="red")
    for change in found.changes:
        console.print(f"not the machine it was recorded on: {change}", style="yellow")
    for name in found.bad_weights:
        console.print(f"not finite before the step: {name}")
    for line in _origin_lines(found.origin):
        console.print(line)
    console.print(f"next: {found.advice}", style="bold")


def _origin_lines(origin: Origin | None) -> list[str]:
    if origin is None:
        return ["every module's output, the loss and every gradient are finite"]
    if origin.kind == "loss":
        return ["first: the loss; every module's output is finite"]
    if origin.kind == "gradient":
        return [
            f"first: the gradient of {origin.name}; outputs and loss are finite",
            _row("it", origin.numbers),
        ]
    where = f"{origin.name or 'the model'} ({origin.module})"
    if origin.kind == "inside":
        lines = [f"first: inside {where}, between its modules"]
    else:
        lines = [f"first: the output of {where}"]
    if origin.input is not None:
        lines.append(_row("in", origin.input))
    return [*lines, _row("it" if origin.kind == "inside" else "out", origin.numbers)]


def _row(what: str, numbers: Numbers) -> str:
    shape = " x ".join(map(str, numbers.shape))
    reach = (
        "nothing finite" if numbers.smallest is None else f"{numbers.smallest:.4g} … {numbers.largest:.4g}"
    )
    return f"  {what:<4}{numbers.dtype} [{shape}]  {reach}  {numbers.not_finite:.2%} not finite"
