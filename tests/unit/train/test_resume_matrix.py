"""Exact resume is not a property of the default recipe: every choice that carries state, or draws, goes on to the bit.

Each run is cut off after an update between two checkpoints, as by a power cut, and resumed. Real kills of real
processes are in tests/integration/test_exact_resume.py.
"""

import io
import json

import pytest
import torch
from rich.console import Console

from pellucid.cli.options import run_config
from pellucid.experiments.verify_resume import compare_runs
from pellucid.runtime.precision import Precision
from pellucid.train import resume, train

SPANS = (
    "model.kind=encoder_decoder",
    "model.num_encoder_layers=1",
    "model.num_decoder_layers=1",
    "data.objective.kind=span_corruption",
    "data.tokenizer.special_tokens=[" + ", ".join(f"'<extra_id_{n}>'" for n in range(8)) + "]",
)

RECIPES = {
    "adamw": ("train.optimizer.kind=adamw",),
    "muon": ("train.optimizer.kind=muon",),
    "adafactor": ("train.optimizer.kind=adafactor",),
    "sgd": ("train.optimizer.kind=sgd", "train.optimizer.momentum=0.9"),
    "cosine": ("train.schedule.kind=cosine",),
    "linear": ("train.schedule.kind=linear",),
    "constant": ("train.schedule.kind=constant",),
    "wsd": ("train.schedule.kind=wsd",),
    "inverse sqrt": ("train.schedule.kind=inverse_sqrt",),
    "tokens": ("train.steps=", "train.tokens=1024"),
    "epochs": ("train.steps=", "train.epochs=0.06"),
    "bf16": ("train.precision=bf16",),
    "bf16, plain": (
        "train.precision=bf16",
        "train.techniques.tiled_loss=false",
        "model.attention.kernel=sdpa",
    ),
    "accumulation": ("train.micro_batch=2",),
    "averaged weights": ("train.weight_average=0.9",),
    "dropout": ("model.dropout=0.2", "model.attention.dropout=0.1"),
    "moving dropout": ("model.dropout=0.2", "train.final_dropout=0.0"),
    "smoothing and z-loss": ("train.label_smoothing=0.1", "train.z_loss=1e-3"),
    "recomputed": ("train.activation_checkpointing=full", "model.dropout=0.2"),
    "recomputed in part": ("train.activation_checkpointing=selective",),
    "prefix": ("data.objective.kind=prefix",),
    "experts": ("model.feed_forward.kind=moe",),
    "encoder-decoder, spans": SPANS,
    "encoder-decoder, everything": (
        *SPANS,
        "train.optimizer.kind=muon",
        "train.schedule.kind=wsd",
        "train.precision=bf16",
        "train.micro_batch=2",
        "train.weight_average=0.9",
        "model.dropout=0.2",
        "train.final_dropout=0.0",
        "train.label_smoothing=0.1",
    ),
}


def resumed(directory, *changes):
    resume(directory, changes, console=Console(file=io.StringIO()))
    return directory


@pytest.fixture
def start(tiny, workdir):
    """Train the tiny run with further words, of which kinds come first: they reset their tables."""

    def run(*words, **settings):
        preset, *usual = tiny
        kinds = [word for word in words if ".kind=" in word]
        given = {word.partition("=")[0] for word in words}
        left_out = {"model.num_layers"} if "model.num_encoder_layers" in given else set[str]()
        left_out |= {"data.path"} if "data.mixture" in given else set[str]()
        usual = [word for word in usual if word.partition("=")[0] not in given | left_out]
        rest = [word for word in words if word not in kinds]
        config = run_config([preset, *kinds, *usual, *rest])
        return train(config, console=Console(file=io.StringIO()), **settings).directory

    return run


@pytest.fixture
def cut_off(start, cut_off_after, workdir):
    """A run that was cut off after its sixth update, two after a checkpoint."""

    def run(*words):
        cut_off_after(6, lambda hooks: start("run.dir=killed", *words, hooks=hooks))
        return workdir / "killed"

    return run


@pytest.mark.parametrize("words", RECIPES.values(), ids=RECIPES)
def test_every_recipe_goes_on_to_the_bit(start, cut_off, words):
    whole = start(*words)
    assert compare_runs(whole, resumed(cut_off(*words))) == []


class HalfPrecision(Precision):
    """fp16 as on a GPU without bf16, on this CPU, with a scale that is too high now and then."""

    def gradient_scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=2.0**19, growth_interval=2)


@pytest.mark.parametrize("words", [(), SPANS], ids=["decoder", "encoder-decoder"])
def test_so_does_fp16_with_its_scaler(start, cut_off, monkeypatch, words):
    monkeypatch.setattr(
        "pellucid.train.plan.choose_precision",
        lambda wanted, device, *, tf32=False: HalfPrecision("fp16", device, "a test's"),
    )
    words = (*words, "train.steps=16")
    whole = start(*words)
    assert compare_runs(whole, resumed(cut_off(*words))) == []
    overflows = [fact["is_overflow"] for fact in facts(whole) if fact["event"] == "step"]
    assert 0 < sum(overflows[:6]) < 6
    assert any(overflows[6:]), "the scale was never raised again"


def test_so_does_a_mixture(start, cut_off, corpus, workdir):
    other = workdir / "other.txt"
    other.write_text(corpus.read_text(encoding="utf-8").upper(), encoding="utf-8")
    members = ", ".join(
        f"{{path = '{path}', weight = {weight}}}" for path, weight in ((corpus, 2), (other, 1))
    )
    words = (f"data.mixture=[{members}]",)
    whole = start(*words)
    assert compare_runs(whole, resumed(cut_off(*words))) == []


def test_so_do_documents_packed_whole(start, cut_off, workdir):
    lines = [json.dumps({"text": f"{n} is a number, " * (1 + n % 5)}) for n in range(300)]
    (workdir / "documents.jsonl").write_text("\n".join(lines), encoding="utf-8")
    words = ("data.path=documents.jsonl", "data.objective.packing=best_fit", "model.max_seq_len=96")
    words = (*words, "train.batch_tokens=384")
    whole = start(*words)
    assert compare_runs(whole, resumed(cut_off(*words))) == []


def test_so_do_pairs(start, cut_off, workdir):
    lines = [json.dumps({"source": f"{n}", "target": f"{n}"[::-1]}) for n in range(600)]
    (workdir / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    words = ("data.path=pairs.jsonl", "data.objective.kind=paired", *SPANS[:3], "model.max_seq_len=16")
    whole = start(*words)
    assert compare_runs(whole, resumed(cut_off(*words))) == []


@pytest.mark.parametrize("words", [(), SPANS], ids=["decoder", "encoder-decoder"])
def test_another_micro_batch_goes_on_to_rounding(start, cut_off, words):
    whole = start(*words)
    killed = resumed(cut_off(*words), "train.micro_batch=2")
    losses = [[f["loss"] for f in facts(run) if f["event"] == "step"] for run in (whole, killed)]
    assert losses[0][:4] == losses[1][:4]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def facts(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
