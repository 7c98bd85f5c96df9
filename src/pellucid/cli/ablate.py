"""`pellucid ablate`: what does a part give? Matched runs and one report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from pellucid.cli.options import PRESETS_HELP, ConfigFile, DeviceName, Json, Words, print_json
from pellucid.errors import ConfigError
from pellucid.runtime.console import StatusLine, message_console

if TYPE_CHECKING:
    from pellucid.experiments.ablation import Progress
    from pellucid.report.ablation.record import AblationRecord


def register(app: typer.Typer) -> None:
    app.command("ablate", epilog=PRESETS_HELP)(ablate)


def ablate(
    words: Words = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="KEY=A,B,…",
            help="A key and its values, which are compared with the first of them; repeat for combinations. "
            "The key preset varies the preset itself.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of each combination.")] = 3,
    match: Annotated[
        Literal["steps", "flops", "params", "time"],
        typer.Option(
            "--match",
            help="What is equal: updates; FLOPs (train.steps follows); parameters (d_ff follows); "
            "seconds (train.max_seconds).",
        ),
    ] = "flops",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Where the runs and the report go; default: runs/ablations/…", show_default=False
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, help="Runs at a time, which share the machine's threads.")
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the runs and their cost; train nothing.")
    ] = False,
    config_file: ConfigFile = None,
    device: DeviceName = None,
    json: Json = False,
) -> int:
    """Train every combination of some values at equal budgets, over several seeds, and report what each gives.

    \b
    pellucid ablate quick --vary model.norm.kind=rmsnorm,layernorm --vary model.feed_forward.kind=swiglu,gelu,relu2
    pellucid ablate quick train.steps=300 --vary train.lr=1e-3,2e-3,4e-3 --match steps --seeds 2
    pellucid ablate --vary preset=sota-16m,sota-16m-classic --match time train.max_seconds=600

    The same command again goes on with what is not finished; more --seeds add to it.
    """
    from pellucid.experiments.ablation import ablate as run_all
    from pellucid.experiments.ablation import plan_ablation
    from pellucid.experiments.ablation.ablate import merged, waiting_runs
    from pellucid.experiments.ablation.estimate import estimate_seconds
    from pellucid.experiments.ablation.vary import parse_vary
    from pellucid.report.ablation.write import write_report
    from pellucid.runtime.device import choose_device

    console = message_console()
    varied = parse_vary(vary or [])
    preset = _start(words or [], config_file, varied)
    record = plan_ablation(
        preset,
        [word for word in words or [] if "=" in word],
        varied,
        seeds=seeds,
        match=match,
        device=choose_device(device),
    )
    directory = out or Path("runs/ablations") / _name(preset, varied)
    record = merged(record, directory)
    waiting = waiting_runs(record, directory)
    _show(record, len(waiting), console)
    seconds = estimate_seconds(record, waiting.values(), device=device)
    if waiting:
        how = "" if match == "time" else ", by a few updates of the first cell"
        console.print(f"about {_duration(seconds)} here, one after another{how}; scoring comes on top")
    if dry_run:
        if json:
            print_json({**record.to_dict(), "waiting": len(waiting), "seconds": seconds})
        return 0
    console.print(f"runs go to {directory}/runs; the same command goes on after an interruption", style="dim")
    line = StatusLine(console)
    end = run_all(record, directory, jobs=jobs, device=device, progress=lambda now: line.show(_words(now)))
    line.clear()
    page, *others = write_report(directory)
    for name in end.failed:
        console.print(f"failed: {name} (see {directory / 'runs' / name / 'failed.txt'})", style="red")
    if json:
        print_json(
            {"directory": str(directory), "ended": end.ended, "failed": list(end.failed), "report": str(page)}
        )
    console.print(
        f"report: {page}, {others[0].name}; made anew by: pellucid report {directory}", style="bold"
    )
    return 1 if end.failed else 0


def _start(words: list[str], config_file: Path | None, varied: dict[str, tuple[str, ...]]) -> str:
    """The preset or the file that every cell starts from."""
    names = [word for word in words if "=" not in word] + ([str(config_file)] if config_file else [])
    if "preset" in varied:
        if names:
            raise ConfigError(
                f"{names[0]}: the presets are what varies; name them in --vary preset=A,B alone"
            )
        return varied["preset"][0]
    if len(names) != 1:
        raise ConfigError("name one preset, or give --config FILE, e.g. pellucid ablate quick --vary KEY=A,B")
    return names[0]


def _name(preset: str, varied: dict[str, tuple[str, ...]]) -> str:
    from pellucid.experiments.ablation.vary import cell_names

    keys = [key.removesuffix(".kind").rpartition(".")[2] for key in varied if key != "preset"]
    presets = cell_names([{"preset": name} for name in varied.get("preset", (preset,))])
    return "-".join([*presets, *keys])


def _show(record: AblationRecord, waiting: int, console: Console) -> None:
    """The runs and what they cost, before anything is spent."""
    width = max(len(cell.name) for cell in record.cells)
    for number, cell in enumerate(record.cells):
        length = f"{cell.steps:,} steps" if cell.steps else f"{cell.max_seconds:g} s"
        work = "" if cell.flops is None else f", {cell.flops:.3g} FLOPs"
        mark = "  (what the others are compared with)" if number == record.baseline else ""
        console.print(f"  {cell.name:<{width}}  {cell.parameters:>12,} parameters, {length}{work}{mark}")
    runs, flops = len(record.cells) * len(record.seeds), sum(cell.flops or 0 for cell in record.cells)
    total = f", {flops * len(record.seeds):.3g} FLOPs" if flops else ""
    console.print(
        f"{runs} runs ({len(record.cells)} cells x {len(record.seeds)} seeds){total}; equal: {record.match}"
    )


def _words(now: Progress) -> str:
    left = "" if now.left_s is None else f", about {_duration(now.left_s)} left"
    failed = f", {len(now.failed)} failed" if now.failed else ""
    return f"{now.ended} of {now.total} runs{failed}{left} · {' · '.join(now.running)}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
