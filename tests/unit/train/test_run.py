"""Whole runs in this process: what they leave on disk, what decides their numbers, how they end and begin."""

import json
import math
import os
import signal
import threading
import time

import pytest
import torch
from torch.nn import functional as F

from pellucid import checkpoint
from pellucid.config import from_tree, override, to_tree
from pellucid.data.loader import TrainingLoader
from pellucid.errors import CheckpointError, ConfigError, DataError, StorageError, TrainingError
from pellucid.evaluate.perplexity import Perplexity
from pellucid.experiments.verify_resume import compare_runs
from pellucid.model import stack
from pellucid.runtime.device import choose_device
from pellucid.train import resume
from pellucid.train.building import build_model
from pellucid.train.config import RunConfig
from pellucid.train.facts import Request
from pellucid.train.hooks import Hook
from pellucid.train.opening import open_data, plan_run
from pellucid.train.run_files import read_facts


def facts(result, event: str) -> list[dict]:
    return [fact for fact in read_facts(result.directory / "metrics.jsonl") if fact["event"] == event]


def losses(result) -> list[float]:
    return [fact["loss"] for fact in facts(result, "step")]


def steps_left(result) -> list[str]:
    return sorted(path.name for path in (result.directory / "checkpoints").iterdir())


class At(Hook):
    """Does something after an update."""

    def __init__(self, step: int, act) -> None:
        self.step, self.act = step, act

    def on_step(self, facts):
        return self.act() if facts.step == self.step else Request.NOTHING


# What a run leaves -----------------------------------------------------------------------------------


def test_a_run_leaves_its_config_facts_environment_and_checkpoints(train_tiny):
    result = train_tiny()
    assert result.directory.as_posix() == "runs/debug-001"
    assert {path.name for path in result.directory.iterdir()} == {
        "config.toml", "metrics.jsonl", "environment.json", "data.json", "checkpoints", "latest", "best",
    }  # fmt: skip
    assert [fact["event"] for fact in read_facts(result.directory / "metrics.jsonl")] == [
        "start", *["step"] * 4, "evaluation", *["step"] * 4, "evaluation", "end",
    ]  # fmt: skip
    assert steps_left(result) == ["step-00000004", "step-00000008"]
    environment = json.loads((result.directory / "environment.json").read_text())
    assert environment["threads"] == 1
    assert environment["torch"] == torch.__version__
    assert result.signal is None


def test_it_learns_and_its_facts_add_up(train_tiny):
    result = train_tiny("train.steps=30", "train.lr=1e-2")
    told = facts(result, "step")
    assert told[0]["loss"] == pytest.approx(math.log(257), abs=0.1)
    assert told[-1]["loss"] < told[0]["loss"] - 1
    assert [fact["tokens"] for fact in told] == [128 * n for n in range(1, 31)]
    assert told[-1]["progress"] == 1
    assert all(0 <= fact["waited_seconds"] <= fact["step_seconds"] for fact in told)
    (end,) = facts(result, "end")
    assert end["peak_memory_bytes"] > 50_000_000
    assert end["best_loss"] == min(fact["val_loss"] for fact in facts(result, "evaluation"))


def test_the_validation_loss_is_that_of_the_saved_weights_on_the_stated_part(train_tiny):
    from pellucid.runtime.precision import choose_precision
    from pellucid.train.score import score_loaded

    result = train_tiny("model.dropout=0.3", "train.label_smoothing=0.2")
    last = facts(result, "evaluation")[-1]
    assert last["val_tokens"] == 64
    path = result.directory / "checkpoints/step-00000008"
    precision = choose_precision("fp32", choose_device("cpu"))
    _, score = score_loaded(checkpoint.load(path), precision=precision, max_tokens=64)
    assert score.loss == pytest.approx(last["val_loss"], rel=1e-6)


def test_the_newest_and_the_best_checkpoint_stay(train_tiny, monkeypatch):
    scores = iter(Perplexity(loss, math.exp(loss), loss, 1, 1) for loss in (3.0, 1.0, 2.0, 2.5))
    monkeypatch.setattr("pellucid.train.session.evaluate_split", lambda *_, **__: next(scores))
    result = train_tiny("train.checkpoint_every=1", "train.eval_every=2", "train.keep_checkpoints=2")
    assert steps_left(result) == ["step-00000004", "step-00000007", "step-00000008"]
    assert (result.directory / "best").read_text() == "step-00000004\n"
    assert (result.directory / "latest").read_text() == "step-00000008\n"


def test_a_sample_is_written_at_each_evaluation(train_tiny):
    result = train_tiny("train.sample_tokens=5", 'train.sample_prompt="To be"')
    lines = [json.loads(line) for line in (result.directory / "samples.jsonl").read_text().splitlines()]
    assert [(line["step"], line["prompt"]) for line in lines] == [(4, "To be"), (8, "To be")]
    assert result.sample == lines[-1]["text"] != ""


def test_samples_change_no_number(train_tiny):
    without, with_samples = train_tiny(), train_tiny("train.sample_tokens=5")
    assert compare_runs(without.directory, with_samples.directory) == []


def test_a_hook_of_ones_own_may_save_and_stop(train_tiny):
    result = train_tiny(hooks=[At(3, lambda: Request.SAVE | Request.STOP)])
    assert (result.end.step, result.end.reason, result.signal) == (3, "interrupted", None)
    assert steps_left(result) == ["step-00000003"]


# What decides the numbers ----------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_run_to_the_bit_and_another_seed_another(train_tiny):
    words = ("model.dropout=0.1", "train.micro_batch=4")
    first, second, other = train_tiny(*words), train_tiny(*words), train_tiny(*words, "train.seed=1")
    assert compare_runs(first.directory, second.directory) == []
    assert not set(losses(first)) & set(losses(other))


@pytest.mark.parametrize("mode", ["full", "selective"])
@pytest.mark.parametrize("dropout", [0, 0.2])
def test_activation_checkpointing_changes_no_bit(train_tiny, dropout, mode):
    words = (f"model.dropout={dropout}", "train.micro_batch=4")
    kept, recomputed = train_tiny(*words), train_tiny(*words, f"train.activation_checkpointing={mode}")
    assert compare_runs(kept.directory, recomputed.directory) == []


@pytest.mark.parametrize(("mode", "recomputes"), [("none", False), ("full", True), ("selective", True)])
def test_activations_are_recomputed_where_that_is_asked_for(train_tiny, monkeypatch, mode, recomputes):
    calls = []
    for name, run in stack._CHECKPOINTS.items():
        counted = lambda *a, name=name, run=run, **k: calls.append(name) or run(*a, **k)  # noqa: E731
        monkeypatch.setitem(stack._CHECKPOINTS, name, counted)
    train_tiny(f"train.activation_checkpointing={mode}", "model.num_layers=2")
    assert calls == [mode] * (8 * 2 if recomputes else 0)


def test_dropout_is_drawn_from_the_runs_seed(train_tiny, monkeypatch):
    drawn = []
    monkeypatch.setattr("pellucid.train.step.seed_torch", lambda *purpose: drawn.append(purpose))
    train_tiny("train.seed=5", "train.steps=2", "train.micro_batch=4")
    assert drawn == [(5, "dropout", step, micro) for step in (0, 1) for micro in (0, 1)]


def test_accumulation_changes_only_rounding(train_tiny):
    whole, parts = train_tiny(), train_tiny("train.micro_batch=1")
    assert facts(parts, "start")[0]["accumulation"] == 8
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-5)
    assert losses(parts) != losses(whole)


@pytest.mark.parametrize("change", ["train.label_smoothing=0.3", "train.z_loss=0.3"])
def test_the_loss_told_is_the_plain_cross_entropy_whatever_is_learned(train_tiny, tiny_config, change):
    config = tiny_config(change)
    data = open_data(config)
    plan, order = plan_run(config, data, choose_device("cpu"))
    with TrainingLoader(data.shards.train, order, batch_windows=8, micro_batch=8) as loader:
        (batch,) = loader.step(0)
    logits = build_model(plan)(batch.inputs).flatten(0, 1)
    expected = F.cross_entropy(logits, batch.targets.flatten()).item()
    changed, plain = losses(train_tiny(change)), losses(train_tiny())
    assert changed[0] == plain[0] == pytest.approx(expected, rel=1e-6)
    assert changed[-1] != plain[-1]


def test_dropout_changes_training_and_another_seed_changes_dropout(train_tiny):
    without, with_dropout = train_tiny(), train_tiny("model.dropout=0.5")
    assert losses(without)[0] != losses(with_dropout)[0]
    again = train_tiny("model.dropout=0.5")
    assert losses(again) == losses(with_dropout)


def test_an_epoch_is_every_window_once(train_tiny, tiny_config):
    result = train_tiny(
        "train.steps=", "train.epochs=0.25", "train.eval_every=1000", "train.checkpoint_every=1000"
    )
    windows = 18_000 // 16  # 90 % of the characters are for training
    assert result.end.step == math.ceil(0.25 * windows / 8)


# How it ends -----------------------------------------------------------------------------------------


def test_a_run_by_time_ends_near_it_with_its_rate_decayed(train_tiny):
    began = time.monotonic()
    result = train_tiny(
        "train.steps=", "train.max_seconds=1.5", "train.eval_every=1000", "train.checkpoint_every=1000",
        "train.schedule.final_fraction=0", "train.lr=1e-3",
    )  # fmt: skip
    assert result.end.reason == "time is up"
    assert 1.5 <= result.end.elapsed_seconds < 3
    assert time.monotonic() - began < 10
    rates = [fact["lr"] for fact in facts(result, "step")]
    assert max(rates) > 0.9e-3
    assert rates[-1] < 0.05e-3


def test_a_signal_saves_stops_and_is_passed_on(train_tiny):
    def interrupt() -> Request:
        signal.raise_signal(signal.SIGTERM)
        return Request.NOTHING

    result = train_tiny(hooks=[At(3, interrupt)])
    assert (result.signal, result.end.reason) == (signal.SIGTERM, "interrupted")
    assert steps_left(result)[-1] == f"step-{result.end.step:08}"
    assert 3 <= result.end.step <= 4  # it came after the loop had asked the interrupt hook


@pytest.mark.parametrize("step", [4, 8])
def test_a_signal_before_an_evaluation_leaves_it_to_the_resumed_run(train_tiny, step):
    """It may be long, and who sends the signal may not wait: the save comes first."""

    def interrupt() -> Request:
        signal.raise_signal(signal.SIGINT)
        return Request.NOTHING

    words = ("train.sample_tokens=3",)
    whole, result = train_tiny(*words), train_tiny(*words, hooks=[At(step, interrupt)])
    assert (result.signal, result.end.reason, result.end.step) == (signal.SIGINT, "interrupted", step)
    assert steps_left(result)[-1] == f"step-{step:08}"
    assert len(facts(result, "evaluation")) == step // 4 - 1
    assert resume(result.directory).end.reason == "finished"
    assert [fact["val_loss"] for fact in facts(result, "evaluation")] == [
        fact["val_loss"] for fact in facts(whole, "evaluation")
    ]
    for name in ("samples.jsonl", "best", "latest"):
        assert (result.directory / name).read_bytes() == (whole.directory / name).read_bytes()


def test_an_evaluation_that_was_left_is_logged_once_however_often_the_run_is_resumed(
    train_tiny, cut_off_after
):
    """Cut off after it was made up for, and before the next save: it comes again."""
    words = ("train.sample_tokens=3", "train.checkpoint_every=1000")
    whole = train_tiny(*words)
    result = train_tiny(*words, hooks=[At(4, lambda: signal.raise_signal(signal.SIGTERM) or Request.NOTHING)])
    cut_off_after(5, lambda hooks: resume(result.directory, hooks=hooks))
    assert len(facts(result, "evaluation")) == 1
    resume(result.directory)
    assert compare_runs(whole.directory, result.directory) == []
    assert (result.directory / "samples.jsonl").read_bytes() == (
        whole.directory / "samples.jsonl"
    ).read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send a signal to itself this way")
@pytest.mark.parametrize("saves", [5, 1000], ids=["saved before", "not saved before"])
def test_a_signal_while_data_is_awaited_saves_without_it(train_tiny, monkeypatch, workdir, saves):
    """As with a stream that has stalled."""
    words = ("train.eval_every=1000", f"train.checkpoint_every={saves}")
    whole, log = train_tiny(*words), workdir / "broken/metrics.jsonl"
    ended, make = threading.Event(), TrainingLoader._make

    def stall(self, step, *words):
        if step == 5:
            while log.read_text().count('"event": "step"') < 5:
                time.sleep(0.001)
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGTERM)
            assert ended.wait(60)
        return make(self, step, *words)

    class End(Hook):
        def on_end(self, facts):
            ended.set()

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoader, "_make", stall)
        result = train_tiny(*words, "run.dir=broken", hooks=[End()])
    assert (result.signal, result.end.reason, result.end.step) == (signal.SIGTERM, "interrupted", 5)
    assert steps_left(result) == ["step-00000005"]
    resume(result.directory)
    assert compare_runs(whole.directory, result.directory) == []


def test_a_run_that_blows_up_keeps_what_was_saved_before(train_tiny, workdir):
    with pytest.raises(TrainingError, match=r"step \d+: the (validation )?loss is"):
        train_tiny("train.lr=1e38", "train.grad_clip=1e38", "train.schedule.warmup_steps=7", "run.dir=wild",
                   "train.checkpoint_every=1", "train.optimizer.weight_decay=1e3")  # fmt: skip
    saved = list((workdir / "wild/checkpoints").iterdir())
    assert saved
    for path in saved:
        checkpoint.verify(path)
    assert list(read_facts(workdir / "wild/metrics.jsonl"))[-1]["event"] != "end"


# How it begins ---------------------------------------------------------------------------------------


def test_too_little_validation_text_is_found_before_training(train_tiny, workdir):
    with pytest.raises(DataError, match=r"val: 1 token.*needs two"):
        train_tiny("data.val_fraction=0.00001", "run.dir=short")
    assert not (workdir / "short").exists()


def test_a_sample_prompt_without_ids_is_found_before_training(train_tiny, workdir):
    words = ("data.tokenizer=char", "train.sample_prompt=☃")
    message = r"^train\.sample_prompt: '☃' cannot be encoded by data\.tokenizer\.kind 'char' \(.*☃.*\); give another"
    with pytest.raises(ConfigError, match=message):
        train_tiny(*words, "train.sample_tokens=5", "run.dir=new")
    assert not (workdir / "new").exists()
    train_tiny(*words, "run.dir=new")  # no sample, no prompt


def test_sentinels_in_the_sample_prompt_of_an_encoder_decoder_need_no_letters(tiny_config):
    """What generation parses, a check must parse too."""
    words = ("data.tokenizer=char", 'data.tokenizer.special_tokens=["☃"]', "train.sample_prompt=☃")
    config = tiny_config(*words, "train.sample_tokens=5")
    data = open_data(config)
    with pytest.raises(ConfigError, match=r"train\.sample_prompt: "):
        plan_run(config, data, choose_device("cpu"))
    other = from_tree(
        RunConfig,
        override(
            to_tree(config),
            ["model.kind=encoder_decoder", "model.max_seq_len=16", "data.objective.kind=prefix"],
        ),
    )
    plan_run(other, data, choose_device("cpu"))


def test_a_full_disk_is_found_before_training(train_tiny, workdir, monkeypatch):
    train_tiny()  # the data is prepared
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 50_000})())
    with pytest.raises(StorageError, match=r"runs: the first checkpoint needs .* MB .* 0\.1 MB free"):
        train_tiny()
    assert [path.name for path in (workdir / "runs").iterdir()] == ["debug-001"]


def test_init_starts_from_the_best_weights_of_a_run(train_tiny):
    first = train_tiny("train.steps=30", "train.lr=1e-2")
    second = train_tiny(init=first.directory)
    assert losses(second)[0] < losses(first)[0] - 0.5
    best = checkpoint.load(checkpoint.find_checkpoint(first.directory)[0])
    third = train_tiny("train.lr=1e-30", "train.steps=1", "train.optimizer.weight_decay=0", init=best.path)
    after = checkpoint.load(third.directory / "checkpoints/step-00000001")
    assert all(
        torch.equal(a, b) for a, b in zip(best.model.parameters(), after.model.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["model.d_model=8"],
            r"--init .*does not fit the model: embedding\.table: .*\[257, 16\].*\[257, 8\]",
        ),
        (["model.num_layers=2"], r"does not fit the model: missing: blocks\.1\."),
        (["data.tokenizer=char"], r"its tokenizer \(<byte .*\) is not the one of the data \(<char "),
    ],
)
def test_init_from_weights_that_do_not_fit_leaves_nothing_behind(train_tiny, workdir, words, message):
    first = train_tiny()
    with pytest.raises(CheckpointError, match=message):
        train_tiny(*words, "run.dir=new", init=first.directory)
    assert not (workdir / "new").exists()


def test_a_run_from_weights_cut_off_before_its_first_save_starts_from_them_again(
    train_tiny, cut_off_after, workdir
):
    first = train_tiny("train.steps=30", "train.lr=1e-2")
    whole = train_tiny(init=first.directory)
    cut_off_after(2, lambda hooks: train_tiny("run.dir=broken", init=first.directory, hooks=hooks))
    assert losses(resume(workdir / "broken"))[0] == losses(whole)[0]
    assert compare_runs(whole.directory, workdir / "broken") == []
