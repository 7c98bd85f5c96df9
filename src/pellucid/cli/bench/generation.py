"""`pellucid bench generate`: what the key/value cache saves on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pellucid.cli.options import PRESETS_HELP, ConfigFile, DeviceName, Json, Words, print_json, run_config
from pellucid.errors import ConfigError
from pellucid.presets import MODELS, RUNS
from pellucid.runtime.console import StatusLine, message_console

if TYPE_CHECKING:
    from pellucid.experiments.bench.generation import CacheSpeed
    from pellucid.model import Transformer
    from pellucid.model.packed import Format
    from pellucid.runtime.device import Device

DEFAULT = ("tinystories-22m",)
LENGTHS = "64,128,256,512,1024"
FORMATS: tuple[Format, ...] = ("fp32", "fp16", "bf16", "q8", "q4")


def register(group: typer.Typer) -> None:
    group.command("generate", epilog=PRESETS_HELP)(generate)


def generate(
    words: Words = None,
    config_file: ConfigFile = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            "--lengths", metavar="N,N…", help=f"New tokens; default: {LENGTHS}.", show_default=False
        ),
    ] = None,
    batch_sizes: Annotated[str, typer.Option("--batch-sizes", metavar="N,N…", help="Rows at once.")] = "1,8",
    dtypes: Annotated[
        str | None,
        typer.Option(
            "--dtypes",
            metavar="NAME,NAME…",
            help=f"Of the weights: {', '.join(FORMATS)}; default: fp32, and bf16 where the device has it.",
            show_default=False,
        ),
    ] = None,
    prompt_tokens: Annotated[
        int, typer.Option("--prompt-tokens", min=1, help="Random ids to begin with.")
    ] = 16,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="Texts of each kind; a time is the median.")
    ] = 1,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw it too: .png, .svg or .pdf.", show_default=False),
    ] = None,
    device: DeviceName = None,
    json: Json = False,
) -> int:
    """Write text with the key/value cache and without it, from 64 to 1,024 new tokens: times, and where they cross.

    \b
    pellucid bench generate
    pellucid bench generate sota-125m --dtypes bf16 --lengths 64,256 --plot cache.png
    pellucid bench generate runs/quick-001

    Without words and --config: tinystories-22m. A preset's weights are random and its context is made long enough; of
    a run or checkpoint, the lengths that fit are taken. Without the cache all positions are computed again for every
    token, by the same model and kernels; that is measured for the first 16 tokens and every 32nd, and interpolated.
    Where other work shares the machine, take several --rounds.
    """
    if plot is not None:
        from pellucid.report.cache_speed import require_drawable

        require_drawable(plot)
    sizes = _numbers("--lengths", LENGTHS if lengths is None else lengths)
    batches = _numbers("--batch-sizes", batch_sizes)

    from pellucid.experiments.bench.generation import measure_cache
    from pellucid.runtime.device import choose_device

    console, chosen = message_console(), choose_device(device)
    formats = _formats(dtypes, chosen)
    model, sizes, what = _model(words or [], config_file, sizes, prompt_tokens, is_asked=lengths is not None)
    console.print(f"{what}; device {chosen.type} ({chosen.reason})", style="dim")
    model = model.to(chosen.torch)
    line, speeds = StatusLine(console), list["CacheSpeed"]()
    for form in formats:
        for batch_size in batches:
            label = f"{form}, batch {batch_size}"
            speeds.append(
                measure_cache(
                    model,
                    form,
                    batch_size,
                    sizes,
                    prompt_tokens=prompt_tokens,
                    rounds=rounds,
                    on_progress=lambda n, of, label=label: line.show(f"{label}: {n:,} of {of:,} new tokens"),
                )
            )
    line.clear()
    if plot is not None:
        _plot(speeds, plot, what)
        console.print(f"written: {plot}")
    if json:
        print_json({"model": what, "rows": [speed.to_dict() for speed in speeds]})
    else:
        _draw(speeds)
    return 0


def _numbers(option: str, text: str) -> list[int]:
    """Raises ConfigError for what is no list of numbers from 1 on."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError(f"{option} {text!r}: give numbers from 1 on with commas between, such as {LENGTHS}")
    return sorted({int(part) for part in parts})


def _formats(text: str | None, device: Device) -> list[Format]:
    if text is None:
        return ["fp32", "bf16"] if device.has_bf16 else ["fp32"]
    names = [part.strip() for part in text.split(",")]
    if unknown := [name for name in names if name not in FORMATS]:
        raise ConfigError(f"--dtypes {text!r}: {unknown[0]!r} is none of {', '.join(FORMATS)}")
    return [form for form in FORMATS if form in names]


def _model(
    words: list[str], config_file: Path | None, lengths: list[int], prompt_tokens: int, *, is_asked: bool
) -> tuple[Transformer, list[int], str]:
    """The model, the lengths that it is measured for, and what it is in words."""
    from pellucid.experiments.bench.generation import random_model, room_of

    if _is_checkpoint(words):
        from pellucid import checkpoint

        path, why = checkpoint.find_checkpoint(Path(words[0]))
        model = checkpoint.load(path, is_verified=True).model
        room = room_of(model, prompt_tokens)
        fitting = [length for length in lengths if length <= room]
        if not is_asked and room > 0:
            lengths = fitting or [room]
        return model, lengths, f"{why}, {model.max_seq_len:,} positions"
    words = words or ([] if config_file else list(DEFAULT))
    model = random_model(run_config(words, config_file=config_file), prompt_tokens + lengths[-1])
    name = next((word for word in words if "=" not in word), str(config_file))
    return model, lengths, f"{name}, random weights, {model.max_seq_len:,} positions"


def _is_checkpoint(words: Sequence[str]) -> bool:
    """Whether a path is meant: anything that no preset is called and that is there, or is written like a path."""
    if len(words) != 1 or "=" in words[0] or words[0] in MODELS | RUNS:
        return False
    return "/" in words[0] or Path(words[0]).exists()


def _plot(speeds: Sequence[CacheSpeed], path: Path, title: str) -> None:
    from pellucid.report.cache_speed import Curve, draw_cache_speed

    curves = [
        Curve(f"{speed.form}, batch {speed.batch_size}", speed.cached_s, speed.recomputed_s, speed.crossover)
        for speed in speeds
    ]
    draw_cache_speed(curves, path, title=title)


def _draw(speeds: Sequence[CacheSpeed]) -> None:
    console, first = Console(highlight=False), speeds[0]
    console.print(
        f"new tokens behind a prompt of {first.prompt_tokens} random ids: with the cache (its MiB last) and with none; "
        f"{first.threads} thread(s)\n",
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False)
    for name in ("", "tokens", "cache, s", "none, s", "speed-up", "tokens/s", "none", "MiB"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for speed in speeds:
        for row in speed.lengths:
            table.add_row(
                f"{speed.form}, batch {speed.batch_size}",
                f"{row.new_tokens:,}",
                f"{row.cached_s:.2f}",
                f"{row.recomputed_s:.2f}",
                f"{row.speedup:.1f}",
                f"{row.cached_tokens_per_s:,.0f}",
                f"{row.recomputed_tokens_per_s:,.0f}",
                f"{row.cache_bytes / 2**20:,.1f}",
            )
    console.print(table)
    console.print()
    for speed in speeds:
        where = f"from {speed.crossover} new tokens on" if speed.crossover else "never here"
        console.print(
            f"{speed.form}, batch {speed.batch_size}: the cache is ahead {where}; logits with and without it differ "
            f"by up to {speed.largest_difference:.1g}",
            soft_wrap=True,
        )
