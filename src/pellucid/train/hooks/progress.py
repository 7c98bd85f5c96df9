"""What a person sees while a run goes on: loss, speed, time left, evaluations, samples. On standard error."""

from __future__ import annotations

import math

from rich.console import Console
from rich.text import Text

from pellucid.generate.text import printable
from pellucid.runtime.console import StatusLine
from pellucid.train.facts import EndFacts, EvaluationFacts, Request, RollbackFacts, StartFacts, StepFacts
from pellucid.train.hooks.base import Hook


class Progress(Hook):
    """One line that is rewritten on a terminal; a line every ten seconds where output goes to a file."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._status = StatusLine(console)
        self._speed: float | None = None
        self._tokens: int | None = None
        self._steps: int | None = None
        self._session_start: tuple[float, float] | None = None
        self._in_spike = False
        self._building: float | None = None
        """Seconds of the first step where it builds kernels, until the second one shows how much of it that was."""

    def on_start(self, facts: StartFacts) -> None:
        self._steps = facts.steps
        self._building = math.inf if facts.compiled else None

    def on_step(self, facts: StepFacts) -> Request:
        if self._building is not None:
            self._tell_what_building_took(self._building, facts.step_seconds)
        if self._session_start is None:
            self._session_start = (facts.progress, facts.elapsed_seconds)
        if self._tokens is not None:
            speed = (facts.tokens - self._tokens) / max(facts.step_seconds, 1e-9)
            self._speed = speed if self._speed is None else 0.95 * self._speed + 0.05 * speed
        self._tokens = facts.tokens
        self._status.show(self._line(facts))
        if facts.is_skipped:
            look = f"; look into it: pellucid replay {facts.bundle}" if facts.bundle else ""
            self._warn(
                f"step {facts.step:,}: loss {facts.loss:.4f}, gradient norm {facts.grad_norm:.2f}: no update was "
                f"made{look}"
            )
        if facts.is_spike and not self._in_spike:
            self._warn(f"step {facts.step:,}: the loss has jumped to {facts.loss:.4f}")
        self._in_spike = facts.is_spike
        return Request.NOTHING

    def on_evaluation(self, facts: EvaluationFacts) -> Request:
        self._status.clear()
        best = "  (best so far)" if facts.is_best else ""
        weights = " of the averaged weights" if facts.is_averaged else ""
        self.console.print(
            f"evaluation{weights} at step {facts.step:,}: loss {facts.val_loss:.4f}, perplexity "
            f"{facts.perplexity:.2f}, {facts.bits_per_byte:.4f} bits/byte over {facts.val_tokens:,} tokens{best}",
        )
        return Request.NOTHING

    def on_rollback(self, facts: RollbackFacts) -> None:
        self._tokens = None
        self._warn(
            f"step {facts.from_step:,}: {facts.reason}; back to the checkpoint of step {facts.step:,}, and on from "
            f"there with {facts.lr_factor:g} of the learning rate"
        )

    def on_end(self, facts: EndFacts) -> None:
        self._status.clear()
        self.console.print(
            f"{facts.reason} after {facts.step:,} steps, {facts.tokens:,} tokens, {duration(facts.elapsed_seconds)}; "
            f"peak memory {facts.peak_memory_bytes / 2**30:.2f} GiB; {facts.waited_share:.1%} of the time went into "
            "waiting for data",
        )
        if mishaps := _mishaps(facts):
            self._warn(f"on the way: {mishaps}")

    def note(self, text: str) -> None:
        """Show a line that is no fact of the loop."""
        self._status.clear()
        self.console.print(text, style="yellow")

    def sample(self, text: str) -> None:
        """Show a sample of text, indented."""
        self._status.clear()
        for line in printable(text).split("\n"):
            self.console.print(Text("  │ " + line, style="dim"))

    def _tell_what_building_took(self, before: float, now: float) -> None:
        self._building = now if before == math.inf else None
        if 1 < before - now < math.inf:
            self._status.clear()
            self.console.print(
                f"kernels: {before - now:.0f} s to build or load them; torch.compile keeps them for the next run",
                style="dim",
            )

    def _warn(self, text: str) -> None:
        self._status.clear()
        self.console.print(text, style="yellow")

    def _line(self, facts: StepFacts) -> str:
        of = f"/{self._steps:,}" if self._steps else ""
        speed = f"{self._speed:,.0f} tokens/s" if self._speed else "warming up"
        return (
            f"step {facts.step:,}{of}  loss {facts.loss:.4f}  lr {facts.lr:.2e}  "
            f"grad norm {facts.grad_norm:.2f}  {speed}  {self._left(facts)}"
        )

    def _left(self, facts: StepFacts) -> str:
        """Time left, from the share of the run that this session has done since its first update."""
        assert self._session_start is not None
        done, spent = facts.progress - self._session_start[0], facts.elapsed_seconds - self._session_start[1]
        if done <= 0:
            return ""
        return f"{duration((1 - facts.progress) * spent / done)} left"


def _mishaps(facts: EndFacts) -> str:
    """What went wrong in the run and was dealt with, counted; nothing where nothing did."""
    counts = {
        "update skipped": facts.skipped,
        "overflow of the gradient scaler": facts.overflows,
        "spike of the loss": facts.spikes,
        "rollback": facts.rollbacks,
    }

    def plural(what: str) -> str:
        first, space, rest = what.partition(" ")
        return f"{first}s{space}{rest}"

    return ", ".join(f"{n:,} {what if n == 1 else plural(what)}" for what, n in counts.items() if n)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
