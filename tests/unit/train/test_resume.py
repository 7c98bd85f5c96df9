"""Going on with a run: the same run to the bit, longer, past damage; and what is refused."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pellucid.errors import CheckpointError, ConfigError, DataError, ResumeError
from pellucid.evaluate.perplexity import Perplexity
from pellucid.experiments.verify_resume import compare_runs
from pellucid.train import resume
from pellucid.train.facts import Request
from pellucid.train.hooks import Hook
from pellucid.train.run_files import read_facts
from pellucid.train.session import Session


@pytest.fixture
def killed_at(train_tiny, cut_off_after, workdir):
    """A run that was cut off after an update."""

    def run(step: int, *words: str) -> Path:
        cut_off_after(step, lambda hooks: train_tiny("run.dir=killed", *words, hooks=hooks))
        return workdir / "killed"

    return run


def said_by(directory: Path, *changes: str) -> str:
    """Resume, and return what was said."""
    said = io.StringIO()
    resume(directory, changes, console=Console(file=said, width=1000))
    return said.getvalue()


def damage(checkpoint: Path, file: str = "model.safetensors") -> None:
    content = bytearray((checkpoint / file).read_bytes())
    content[-1] ^= 1
    (checkpoint / file).write_bytes(content)


# The same run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "saved"), [(1, 0), (4, 0), (5, 4), (8, 4)])
def test_a_run_cut_off_anywhere_goes_on_from_its_last_save_to_the_bit(train_tiny, killed_at, step, saved):
    whole, killed = train_tiny().directory, killed_at(step)
    said = said_by(killed)
    assert f"resuming {killed} from step {saved}" in said
    assert "changed:" not in said
    assert compare_runs(whole, killed) == []


@pytest.mark.parametrize("step", [2, 4, 7])
def test_so_does_one_with_dropout_accumulation_and_odd_evaluations(train_tiny, killed_at, step):
    words = ("model.dropout=0.2", "train.micro_batch=2", "train.eval_every=3", "train.keep_checkpoints=1")
    whole, killed = train_tiny(*words).directory, killed_at(step, *words)
    said_by(killed)
    assert compare_runs(whole, killed) == []


def test_a_checkpoint_is_not_taken_for_a_run(run_directory):
    saved = run_directory / "checkpoints/step-00000004"
    with pytest.raises(ResumeError, match=r"is a checkpoint, and what goes on is a run: .*--init"):
        resume(saved)
    assert not (saved / "checkpoints").exists()
    assert not (saved / "metrics.jsonl").exists()


def test_a_finished_run_stays_finished(train_tiny):
    result = train_tiny()
    before = {path: path.read_bytes() for path in result.directory.rglob("*.safetensors")}
    said = said_by(result.directory)
    assert "finished after 8 steps" in said
    assert {path: path.read_bytes() for path in result.directory.rglob("*.safetensors")} == before
    logged = [fact["event"] for fact in read_facts(result.directory / "metrics.jsonl")]
    assert logged.count("step") == 8
    assert logged.count("end") == 1


def test_time_goes_on_where_it_was(train_tiny):
    result = train_tiny()
    values = result.directory / "checkpoints/step-00000008/train_state/values.json"
    spent = json.loads(values.read_text())["elapsed_seconds"]
    longer = resume(result.directory, ["train.steps=9"], console=Console(file=io.StringIO()))
    assert longer.end.elapsed_seconds > spent > 0


def test_the_number_of_threads_is_that_of_the_first_session(train_tiny):
    run = train_tiny().directory
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "threads": 2}))
    said_by(run, "train.steps=9")
    assert torch.get_num_threads() == 2


def test_another_machine_is_said(train_tiny):
    run = train_tiny().directory
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "torch": "1.13.1"}))
    said = said_by(run, "train.steps=9")
    assert f"not the machine or the processes it began with (torch: 1.13.1 → {torch.__version__})" in said
    assert "finished after 9 steps" in said


def test_a_run_can_be_resumed_from_another_directory(train_tiny, corpus, workdir, monkeypatch):
    shutil.copy(corpus, "own.txt")
    run = train_tiny("data.path=own.txt").directory.absolute()
    (workdir / "elsewhere").mkdir()
    monkeypatch.chdir(workdir / "elsewhere")
    assert "finished after 9 steps" in said_by(run, "train.steps=9")


def test_marks_that_a_kill_left_behind_are_set_right(train_tiny):
    """It comes between the rename of a checkpoint and the writing of `latest` and `best`."""
    run = train_tiny().directory
    for name in ("latest", "best"):
        assert (run / name).read_text() == "step-00000008\n"
        (run / name).write_text("step-00000004\n")
    said_by(run)
    assert (run / "latest").read_text() == (run / "best").read_text() == "step-00000008\n"


def test_samples_that_come_again_are_forgotten(train_tiny, cut_off_after, workdir, monkeypatch):
    """An evaluation that was no best left a sample, and no checkpoint: the run goes through it again."""
    scores = {2: 1.0}
    monkeypatch.setattr(
        Session, "evaluate", lambda self: Perplexity(scores.get(self.state.step, 2.0), 1, 1, 1, 1)
    )
    words = ("train.eval_every=2", "train.checkpoint_every=1000", "train.sample_tokens=3", "run.dir=killed")
    cut_off_after(5, lambda hooks: train_tiny(*words, hooks=hooks))
    samples = workdir / "killed/samples.jsonl"
    assert [fact["step"] for fact in read_facts(samples)] == [2, 4]
    assert "from step 2" in said_by(workdir / "killed")
    assert [fact["step"] for fact in read_facts(samples)] == [2, 4, 6, 8]


# A longer run ----------------------------------------------------------------------------------------


def test_more_steps_extend_a_run_and_it_says_what_becomes_of_the_schedule(train_tiny):
    result = train_tiny()
    said = said_by(result.directory, "train.steps=12")
    assert "changed: train.steps: 8 → 12" in said
    assert "the cosine schedule now spans 12 steps: at step 8 the learning rate goes on at" in said
    assert "where it would have been 3.00e-04" in said  # the end of the old schedule: a tenth of the peak
    logged = [fact for fact in read_facts(result.directory / "metrics.jsonl") if fact["event"] == "step"]
    assert [fact["step"] for fact in logged] == list(range(1, 13))
    assert logged[8]["lr"] > 2 * 3e-4
    assert "\nsteps = 12\n" in (result.directory / "config.toml").read_text()


def test_more_tokens_extend_a_run_and_it_says_so_too(train_tiny):
    result = train_tiny("train.steps=", "train.tokens=1024")
    said = said_by(result.directory, "train.tokens=1500")
    assert "the cosine schedule now spans 12 steps: at step 8 the learning rate goes on at" in said
    assert "where it would have been 3.00e-04" in said


def test_another_word_for_the_same_length_says_nothing_of_the_schedule(train_tiny):
    result = train_tiny("train.steps=", "train.tokens=1024", "train.max_seconds=600")
    said = said_by(result.directory, "train.tokens=1020")
    assert "changed: train.tokens: 1024 → 1020" in said
    assert "schedule now spans" not in said


@pytest.mark.parametrize(
    ("word", "change"),
    [
        ("train.eval_every=2", "train.eval_every: 4 → 2"),
        ("train.checkpoint_every=3", "train.checkpoint_every: 4 → 3"),
        ("train.lr=2e-3", "train.lr: 0.003 → 0.002"),
        ("train.grad_clip=2.5", "train.grad_clip: 1.0 → 2.5"),
    ],
)
def test_what_leaves_it_the_same_run_may_change_and_is_said(train_tiny, word, change):
    assert f"changed: {change}\n" in said_by(train_tiny().directory, word, "train.steps=10")


# Damage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file", ["model.safetensors", "train_state/tensors.safetensors", "train_state/values.json", "config.toml"]
)
def test_a_damaged_newest_checkpoint_is_named_and_passed_over(train_tiny, workdir, file):
    whole = train_tiny().directory
    shutil.copytree(whole, workdir / "damaged")
    damage(workdir / "damaged/checkpoints/step-00000008", file)
    said = said_by(workdir / "damaged")
    assert (
        f"passed over: {workdir / 'damaged/checkpoints/step-00000008' / file}: truncated or altered" in said
    )
    assert "from step 4" in said
    assert compare_runs(whole, workdir / "damaged") == []


def test_a_truncated_checkpoint_is_passed_over_too(train_tiny):
    run = train_tiny().directory
    weights = run / "checkpoints/step-00000008/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "from step 4" in said_by(run)


def test_good_checkpoints_outlive_damaged_later_ones(train_tiny, cut_off_after):
    """The run is cut off again before it comes to the damaged step: what it saved meanwhile must be there."""
    run = train_tiny(
        "train.checkpoint_every=2", "train.keep_checkpoints=1", "train.eval_every=1000"
    ).directory
    shutil.copytree(run / "checkpoints/step-00000008", run / "checkpoints/step-00000020")
    damage(run / "checkpoints/step-00000020")
    console = Console(file=io.StringIO())
    cut_off_after(11, lambda hooks: resume(run, ["train.steps=30"], console=console, hooks=hooks))
    assert "from step 10" in said_by(run)


def test_when_every_checkpoint_is_damaged_nothing_is_begun_anew(train_tiny):
    run = train_tiny().directory
    for saved in (run / "checkpoints").iterdir():
        damage(saved)
    logged = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="no whole checkpoint is left") as error:
        resume(run, console=Console(file=io.StringIO()))
    assert all(name in str(error.value) for name in ("step-00000004", "step-00000008"))
    assert (run / "metrics.jsonl").read_bytes() == logged


# Another run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "difference"),
    [
        ("train.seed=7", "train.seed: 0 → 7"),
        ("model.d_model=32", "model.d_model: 16 → 32"),
        ("model.norm.kind=layernorm", "model.norm.kind: rmsnorm → layernorm"),
        ("data.tokenizer=char", "data.tokenizer.kind: byte → char"),
        ("train.batch_tokens=256", "train.batch_tokens: 128 → 256"),
        ("train.seq_len=8", "train.seq_len: 16 → 8"),
        ("data.tokens_per_epoch=100", r"data.tokens_per_epoch: (left out) → 100"),
        ("data.shuffle_shards=2", "data.shuffle_shards: 5 → 2"),
    ],
)
def test_what_would_be_another_run_is_refused_with_the_difference(train_tiny, word, difference):
    run = train_tiny().directory
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ResumeError, match="would continue another run") as error:
        resume(run, [word], console=Console(file=io.StringIO()))
    assert difference in str(error.value)
    assert "--init" in str(error.value)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_other_text_under_the_same_name_is_refused(train_tiny, workdir, corpus):
    own = workdir / "own.txt"
    own.write_text(corpus.read_text())
    run = train_tiny(f"data.path={own}").directory
    own.write_text(corpus.read_text().replace("the", "teh"))
    with pytest.raises(
        ResumeError, match=r"trained on data with fingerprint \w{12}, and .*own\.txt now has \w{12}"
    ) as error:
        resume(run, console=Console(file=io.StringIO()))
    assert re.search(r"\n  source\.files\.own\.txt: \w{64} → \w{64}", str(error.value))


def test_a_run_is_trained_by_one_process_at_a_time(train_tiny):
    class Second(Hook):
        said = ""

        def on_step(self, facts):
            if facts.step == 3:
                with pytest.raises(ResumeError) as error:
                    resume(Path("runs/debug-001"), console=Console(file=io.StringIO()))
                self.said = str(error.value)
            return Request.NOTHING

    second = Second()
    run = train_tiny(hooks=[second]).directory
    assert second.said == f"{run}: another process is training this run; wait for it, or stop it"
    assert not (run / ".lock").exists()
    resume(run, ["train.steps=9"], console=Console(file=io.StringIO()))


def test_the_same_text_under_another_name_is_the_same_run(train_tiny, workdir, corpus):
    run = train_tiny().directory
    shutil.copy(corpus, workdir / "moved.txt")
    assert "changed: data.path" in said_by(run, f"data.path={workdir / 'moved.txt'}", "train.steps=9")


@pytest.mark.parametrize("altered", [False, True])
def test_a_tokenizer_may_be_moved_and_not_altered(train_tiny, workdir, altered):
    stored = Path(__file__).parents[2] / "contracts/tokenizer.json"
    shutil.copy(stored, "one.json")
    run = train_tiny("data.tokenizer.kind=huggingface", "data.tokenizer.path=one.json").directory
    tree = json.loads(Path("one.json").read_text(encoding="utf-8"))
    if altered:
        vocabulary = tree["model"]["vocab"]
        first, second, *_ = (word for word in vocabulary if len(word) == 1)
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    Path("two.json").write_text(json.dumps(tree), encoding="utf-8")
    Path("one.json").unlink()
    words = ("data.tokenizer.path=two.json", "train.steps=9")
    if altered:
        with pytest.raises(ResumeError, match="trained on data with fingerprint"):
            resume(run, words, console=Console(file=io.StringIO()))
    else:
        assert "changed: data.tokenizer.path: one.json → two.json" in said_by(run, *words)


def test_text_that_has_gone_is_named(train_tiny, workdir, corpus):
    own = workdir / "own.txt"
    own.write_text(corpus.read_text())
    run = train_tiny(f"data.path={own}").directory
    own.unlink()
    with pytest.raises(DataError, match=r"own\.txt: no such file"):
        resume(run, console=Console(file=io.StringIO()))


def test_a_key_that_is_none_is_refused(train_tiny):
    run = train_tiny().directory
    with pytest.raises(ConfigError, match=r"train\.stepz: there is no such key"):
        resume(run, ["train.stepz=9"], console=Console(file=io.StringIO()))


def test_a_checkpoint_of_weights_alone_cannot_be_resumed(train_tiny):
    from pellucid.checkpoint import load_train_state

    saved = train_tiny().directory / "checkpoints/step-00000008"
    shutil.rmtree(saved / "train_state")
    with pytest.raises(CheckpointError, match="holds weights only; start from it with --init"):
        load_train_state(saved)
