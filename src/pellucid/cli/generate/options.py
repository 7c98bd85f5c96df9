"""What can be asked of `pellucid generate` besides what other commands share. Left out is None: see `settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def _option(name: str, about: str, metavar: str | None = None, **more: Any) -> Any:
    return typer.Option(name, help=about, metavar=metavar, show_default=False, **more)


# What to continue -----------------------------------------------------------------------------------

Prompt = Annotated[
    str | None,
    _option(
        "--prompt", "The text to continue. Left out: lines that are piped in, or turns on a terminal.", "TEXT"
    ),
]
Prompts = Annotated[
    Path | None,
    _option(
        "--prompts",
        "Many prompts, written together: one a line, blank lines apart; of a .jsonl file strings or objects with a "
        "'prompt'. Each text draws by --seed, whatever stands beside it.",
        "FILE",
    ),
]
BatchSize = Annotated[
    int | None, _option("--batch-size", "How many of --prompts are written together; default: 8.", "N", min=1)
]

# How ids are chosen ---------------------------------------------------------------------------------

Preset = Annotated[
    str | None,
    _option("--preset", "How to choose the next id: one of those below; default: balanced.", "NAME"),
]
Strategy = Annotated[
    str | None,
    _option("--strategy", "Instead of a preset, a classic way by name: one of those below.", "NAME"),
]
Temperature = Annotated[float | None, _option("--temperature", "0 is greedy; 1 the model's own.", "X")]
TopK = Annotated[int | None, _option("--top-k", "Draw from the k likeliest ids.", "K")]
TopP = Annotated[float | None, _option("--top-p", "Draw from the likeliest ids of this share.", "P")]
MinP = Annotated[
    float | None, _option("--min-p", "Draw from ids at least so many times as likely as the likeliest.", "P")
]
TypicalP = Annotated[
    float | None, _option("--typical-p", "Draw from the ids of this share whose surprise is usual.", "P")
]
RepetitionPenalty = Annotated[float | None, _option("--repetition-penalty", "Above 1: repeat less.", "X")]
FrequencyPenalty = Annotated[
    float | None,
    _option("--frequency-penalty", "Taken from a logit for each time that its id was written.", "X"),
]
PresencePenalty = Annotated[
    float | None, _option("--presence-penalty", "Taken once from the logit of each id that was written.", "X")
]
NoRepeatNgramSize = Annotated[
    int | None, _option("--no-repeat-ngram-size", "No run of so many ids comes twice.", "N")
]
Ban = Annotated[
    list[str] | None,
    _option(
        "--ban",
        "Never write this text, spelt with the ids that it has alone (' so' and 'so' differ); may be repeated.",
        "TEXT",
    ),
]
Stop = Annotated[
    list[str] | None, _option("--stop", "End before this text, which is left out; may be repeated.", "TEXT")
]
MinNewTokens = Annotated[int | None, _option("--min-new-tokens", "Do not end before so many ids.", "N")]
MaxNewTokens = Annotated[
    int | None, _option("--max-new-tokens", "Length of the continuation; default: 256.", "N")
]
Seed = Annotated[
    int | None,
    _option(
        "--seed",
        "Equal seeds give equal text; default: 0. The n-th further result, turn or piped line takes seed + n.",
        "N",
    ),
]

# How many, how searched, and how written ------------------------------------------------------------

NumResults = Annotated[int | None, _option("--num-results", "Texts for each prompt; default: 1.", "N", min=1)]
NumBeams = Annotated[
    int | None, _option("--num-beams", "Draw nothing: search for the likeliest text, N abreast.", "N", min=1)
]
LengthPenalty = Annotated[
    float | None,
    _option("--length-penalty", "Of beams: above 0 favours long texts, below 0 short; default: 1.", "X"),
]
EarlyStopping = Annotated[
    Literal["no", "yes", "never"] | None,
    _option(
        "--early-stopping",
        "Of beams: end once N texts have (yes), when no better one is likely (no, the default) or possible (never).",
    ),
]
Draft = Annotated[
    str | None,
    _option(
        "--draft",
        "Who drafts ids, of which the model accepts what changes nothing: a small model's run or checkpoint, or "
        "'ngram' for what the text has said before. One text at a time.",
        "PATH|ngram",
    ),
]
Logprobs = Annotated[
    int | None,
    _option(
        "--logprobs", "Show the log-probability of each id, and the N likeliest in its place.", "N", min=0
    ),
]
WhenFull = Annotated[
    Literal["roll", "stop"],
    typer.Option(
        "--when-full",
        help="At the end of the context forget its older half, or end; stop refuses a prompt that is too long.",
    ),
]
Quantize = Annotated[
    Literal["q8", "q4"] | None,
    _option(
        "--quantize", "Weights in 8 or 4 bits: less memory, faster on CPUs, slightly worse; says by how much."
    ),
]
