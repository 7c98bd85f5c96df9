"""What a person sees while a run goes on: loss, speed, time left, evaluations, samples. On standard error."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from pellucid.generate.text import printable
from pellucid.runtime.console import StatusLine
from pellucid.train.facts import EndFacts, EvaluationFacts, Request, StartFacts, StepFacts
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

    def on_start(self, facts: StartFacts) -> None:
        self._steps = facts.steps

    def on_step(self, facts: StepFacts) -> Request:
        if self._session_start is None:
            self._session_start = (facts.progress, facts.elapsed_seconds)
        if self._tokens is not None:
            speed = (facts.tokens - self._tokens) / max(facts.step_seconds, 1e-9)
            self._speed = speed if self._speed is None else 0.95 * self._speed + 0.05 * speed
        self._tokens = facts.tokens
        self._status.show(self._line(facts))
        return Request.NOTHING

    def on_evaluation(self, facts: EvaluationFacts) -> Request:
        self._status.clear()
        best = "  (best so far)" if facts.is_best else ""
        self.console.print(
            f"evaluation at step {facts.step:,}: loss {facts.val_loss:.4f}, perplexity "
            f"{facts.perplexity:.2f}, {facts.bits_per_byte:.4f} bits/byte over {facts.val_tokens:,} tokens{best}",
        )
        return Request.NOTHING

    def on_end(self, facts: EndFacts) -> None:
        self._status.clear()
        self.console.print(
            f"{facts.reason} after {facts.step:,} steps, {facts.tokens:,} tokens, {duration(facts.elapsed_seconds)}; "
            f"peak memory {facts.peak_memory_bytes / 2**30:.2f} GiB; {facts.waited_share:.1%} of the time went into "
            "waiting for data",
        )

    def sample(self, text: str) -> None:
        """Show a sample of text, indented."""
        self._status.clear()
        for line in printable(text).split("\n"):
            self.console.print(Text("  │ " + line, style="dim"))

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


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
