"""A dropout rate that moves over a run: where it begins and ends, and that a resumed run goes on with it."""

from pellucid.experiments.verify_resume import compare_runs
from pellucid.train import resume
from pellucid.train.run_files import read_facts

WORDS = ("model.dropout=0.5", "model.attention.dropout=0.3")


def losses(run):
    return [fact["loss"] for fact in read_facts(run.directory / "metrics.jsonl") if fact["event"] == "step"]


def test_a_rate_that_moves_nowhere_changes_no_number(train_tiny):
    constant = losses(train_tiny("model.dropout=0.5"))
    assert losses(train_tiny("model.dropout=0.5", "train.final_dropout=0.5")) == constant


def test_the_rate_begins_at_the_models_own_and_leaves_it(train_tiny):
    constant = losses(train_tiny(*WORDS))
    moving = losses(train_tiny(*WORDS, "train.final_dropout=0.0"))
    assert moving[0] == constant[0]
    assert moving[1] != constant[1]


def test_a_resumed_run_goes_on_with_the_rate_to_the_bit(train_tiny, cut_off_after, workdir):
    words = (*WORDS, "train.final_dropout=0.0")
    whole = train_tiny(*words)
    cut_off_after(6, lambda hooks: train_tiny(*words, "run.dir=killed", hooks=hooks))
    resume(workdir / "killed")
    assert compare_runs(whole.directory, workdir / "killed") == []
