"""Ctrl-C and SIGTERM: leave the work under way at the next good moment, save, end. A second Ctrl-C ends at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from pellucid.train.facts import EndFacts, EvaluationFacts, Request, StartFacts, StepFacts
from pellucid.train.hooks.base import Hook


class InterruptedWorkError(Exception):
    """Work that may be left half-done, such as an evaluation, was left because of a signal."""


class Interrupt(Hook):
    """Turns the first signal into a request to save and stop. Outside the main thread it does nothing.

    What lasts long (the micro-batches of an update, an evaluation, a sample, waiting for data) calls `check` now and
    then, so that the save comes soon after the signal. What it leaves is done when the run is resumed, but for a
    sample, which is left out.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def on_start(self, facts: StartFacts) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is not None:
            self.restore()
            raise KeyboardInterrupt
        self.received = number
        os.write(2, b"\nstopping: saving (once more to leave at once)\n")

    def check(self) -> None:
        """Raise InterruptedWorkError once a signal has come."""
        if self.received is not None:
            raise InterruptedWorkError

    def on_step(self, facts: StepFacts) -> Request:
        return self._request()

    def on_evaluation(self, facts: EvaluationFacts) -> Request:
        return self._request()

    def _request(self) -> Request:
        return Request.NOTHING if self.received is None else Request.SAVE | Request.STOP

    def on_end(self, facts: EndFacts) -> None:
        self.restore()

    def restore(self) -> None:
        """Put the process's own signal handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
