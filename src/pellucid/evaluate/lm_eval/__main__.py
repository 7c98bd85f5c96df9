"""`python -m pellucid.evaluate.lm_eval WORDS`: lm-evaluation-harness's command line, whose default model is ours.

The words are upstream's (`--help` lists them). `--model pellucid` and `--batch_size auto` may be left out, but where a
`--config` file may say otherwise.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from pellucid.errors import PellucidError
from pellucid.evaluate.lm_eval import MODEL
from pellucid.runtime.extras import require

_OTHER_COMMANDS = ("ls", "validate", "-h", "--help")


def with_defaults(words: Sequence[str]) -> list[str]:
    """Upstream's words for these: `run` may be left out, and what is said last counts."""
    if not words or words[0] in _OTHER_COMMANDS:
        return list(words)
    rest = words[1:] if words[0] == "run" else words
    if any(word in ("-C", "--config") or word.startswith("--config=") for word in rest):
        return ["run", *rest]  # whose contents give way to words
    return ["run", "--model", MODEL, "--batch_size", "auto", *rest]


def main(words: Sequence[str]) -> int:
    """Run upstream's command; returns the exit status, 2 where the words or files are at fault."""
    # As our own command sets it, before torch reads it: threads that spin are slow beside a busy neighbour.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        upstream = require("lm_eval.__main__", extra="eval", purpose="python -m pellucid.evaluate.lm_eval")
        sys.argv[1:] = with_defaults(words)  # where upstream reads them
        upstream.cli_evaluate()
    except PellucidError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
