"""The hooks that act: periodic saves and interruption. And how requests are put together."""

import os
import signal
import threading

import pytest

from pellucid.train.facts import EndFacts, EvaluationFacts, Request, StartFacts, StepFacts
from pellucid.train.hooks import Hook, Interrupt, PeriodicSave, collect

START = StartFacts(0, "runs/x", 2, None, 10, "cpu", "fp32", False, 1, 1, 8)
END = EndFacts(2, "finished", 2.2, 16, 0.3, 1)


def step(number: int) -> StepFacts:
    return StepFacts(number, 1.0, 0.1, 1.0, 8, 0.5, 1.0, 1.0, 0.0)


def evaluation(*, is_best: bool) -> EvaluationFacts:
    return EvaluationFacts(2, 1.0, 2.7, 0.4, 7, is_best, 0.1, 2.1)


def test_requests_add_up():
    assert collect([]) is Request.NOTHING
    assert collect([Request.NOTHING, Request.SAVE, Request.STOP]) == Request.SAVE | Request.STOP


def test_a_plain_hook_asks_for_nothing():
    hook = Hook()
    hook.on_start(START)
    assert hook.on_step(step(1)) is hook.on_evaluation(evaluation(is_best=True)) is Request.NOTHING
    hook.on_end(END)


def test_a_checkpoint_is_asked_for_every_so_many_steps_and_for_the_best():
    hook = PeriodicSave(3)
    assert [n for n in range(1, 10) if hook.on_step(step(n)) == Request.SAVE] == [3, 6, 9]
    assert hook.on_evaluation(evaluation(is_best=True)) == Request.SAVE
    assert hook.on_evaluation(evaluation(is_best=False)) == Request.NOTHING


@pytest.fixture
def interrupt():
    hook = Interrupt()
    hook.on_start(START)
    yield hook
    hook.restore()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_update_finish_and_asks_to_save_and_stop(interrupt, number):
    assert interrupt.on_step(step(1)) == Request.NOTHING
    signal.raise_signal(number)
    assert interrupt.on_step(step(2)) == Request.SAVE | Request.STOP
    assert interrupt.received == number


def test_a_second_signal_leaves_at_once(interrupt):
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_the_handlers_are_put_back_at_the_end():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    hook = Interrupt()
    hook.on_start(START)
    assert signal.getsignal(signal.SIGINT) != before[0]
    hook.on_end(END)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    hook.restore()  # twice is not an error


def test_outside_the_main_thread_it_does_nothing():
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=Interrupt().on_start, args=[START])
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send a signal to itself this way")
def test_a_signal_from_outside_is_received(interrupt):
    os.kill(os.getpid(), signal.SIGTERM)
    assert interrupt.received == signal.SIGTERM
