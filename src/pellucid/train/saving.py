"""Checkpoints are written in the background: training goes on from a copy's moment, not from the disk's."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from types import TracebackType

from rich.console import Console

from pellucid import checkpoint
from pellucid.checkpoint import Contents, layout
from pellucid.errors import StorageError
from pellucid.runtime.memory import available_bytes
from pellucid.train.facts import EndFacts, Request, RollbackFacts, StepFacts
from pellucid.train.hooks import Hook
from pellucid.train.rundir import RunDirectory

_MEMORY_SHARE = 0.5
"""Of the free memory, what the copy for a save may take; the rest is for the peaks of training."""


class Saver(Hook):
    """Writes, marks and prunes the checkpoints of a run, one at a time, in a thread beside training.

    `save` copies every tensor into main memory and returns; it waits first while an earlier checkpoint is still
    being written. Where the copy would take more than half of the free memory, training waits for the disk
    instead, and that is said once. Whatever fails in the thread is raised by the next update, save or `wait`;
    the checkpoints before it are untouched. The end of a run waits for its last checkpoint.

    Use it as a context manager: left by an error, it lets the save under way finish; left by KeyboardInterrupt (a
    second Ctrl-C) it waits for nothing, and what is half-written goes when the run is opened next.
    """

    def __init__(
        self, run: RunDirectory, keep: int, console: Console, *, saved_step: int | None = None
    ) -> None:
        self.run, self.keep, self.console = run, keep, console
        self._saved_step = saved_step
        self._writing: Future[None] | None = None
        self._thread: threading.Thread | None = None
        self._copies = True

    def save(self, contents: Contents, *, step: int, best_step: int | None, good_step: int = -1) -> None:
        """Save the run after `step` updates. Raises StorageError at once when the disk lacks the space.

        Where that step is saved already, by this session or the one before it, only the marks are set anew.
        """
        self.wait()
        if step == self._saved_step:
            self._mark(step, best_step)
            return
        path = layout.step_directory(self.run.path, step)
        checkpoint.make_room(path, contents)
        if not self._fits(contents):
            self._write(contents, step, best_step, good_step)
            return
        snapshot, writing = contents.snapshot(), Future[None]()

        def write() -> None:
            try:
                self._write(snapshot, step, best_step, good_step)
            except BaseException as error:  # which the main thread raises
                writing.set_exception(error)
            else:
                writing.set_result(None)

        thread = threading.Thread(target=write, name="pellucid-saver", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no room for another thread
            write()
        else:
            self._thread = thread
        self._writing = writing

    def wait(self) -> None:
        """Wait for the checkpoint that is being written, if one is, and raise what went wrong with it."""
        if self._thread is not None:
            # Its very end, not its result alone: an interpreter that leaves while a thread frees tensors is aborted.
            self._thread.join()
        writing, self._writing, self._thread = self._writing, None, None
        if writing is not None:
            writing.result()

    def on_step(self, facts: StepFacts) -> Request:
        if self._writing is not None and self._writing.done():
            self.wait()
        return Request.NOTHING

    def on_rollback(self, facts: RollbackFacts) -> None:
        self._saved_step = facts.step

    def on_end(self, facts: EndFacts) -> None:
        self.wait()

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
        elif isinstance(error, Exception):
            try:
                self.wait()
            except (OSError, StorageError) as failure:  # told beside the error that ends the run
                self.console.print(f"the last checkpoint could not be written: {failure}", style="yellow")

    def _write(self, contents: Contents, step: int, best_step: int | None, good_step: int) -> None:
        checkpoint.save(layout.step_directory(self.run.path, step), contents)
        self._saved_step = step
        self._mark(step, best_step)
        self.run.prune(self.keep, step=step, best_step=best_step, good_step=good_step)

    def _mark(self, step: int, best_step: int | None) -> None:
        self.run.mark_latest(step)
        if best_step == step:
            self.run.mark_best(step)

    def _fits(self, contents: Contents) -> bool:
        """Whether there is memory for a copy; says so once where there is not."""
        needed, free = contents.tensor_bytes, available_bytes()
        fits = needed <= _MEMORY_SHARE * free
        if self._copies and not fits:
            self.console.print(
                f"training waits while checkpoints are written: a copy of {needed / 2**20:,.0f} MiB is too much for "
                f"the {free / 2**20:,.0f} MiB of memory that are free",
                style="dim",
            )
        self._copies = self._copies and fits
        return fits
