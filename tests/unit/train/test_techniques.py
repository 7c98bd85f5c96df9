"""What makes training faster changes no more than rounding, is chosen by the device, and can be turned off."""

import pytest

from pellucid.runtime.device import Device, Machine, choose_device
from pellucid.train import building, techniques
from pellucid.train.building import build_model, build_state, build_updater
from pellucid.train.opening import open_data, plan_run
from pellucid.train.run_files import read_facts
from pellucid.train.techniques import LOSS_TILE, Techniques


def device(kind):
    return Device(kind, "for tests", has_bf16=kind != "mps", can_compile=False, compile_reason="for tests")


@pytest.mark.parametrize(
    ("kind", "on"), [("cpu", {"tiled_loss", "kept_memory"}), ("cuda", set()), ("mps", set())]
)
def test_what_is_left_out_is_chosen_for_the_device(kind, on, monkeypatch):
    monkeypatch.setattr(techniques, "can_keep_memory", lambda: True)
    resolved = Techniques().resolved(device(kind))
    assert {name for name, is_on in resolved if is_on} == on
    assert all(is_on is not None for _, is_on in resolved)


def test_another_c_library_keeps_no_memory_and_that_is_said(monkeypatch):
    monkeypatch.setattr(techniques, "can_keep_memory", lambda: False)
    for asked in (Techniques(), Techniques(kept_memory=True)):
        resolved = asked.resolved(device("cpu"))
        assert resolved.kept_memory is False
        assert resolved.line == "techniques: tiled loss (off: kept memory)"


def test_what_is_asked_for_is_kept(monkeypatch):
    monkeypatch.setattr(techniques, "can_keep_memory", lambda: True)
    for asked in (
        Techniques(tiled_loss=True, kept_memory=False),
        Techniques(tiled_loss=False, kept_memory=True),
    ):
        assert asked.resolved(device("cuda")) == asked


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), None),
        (("model.max_seq_len=1024", "train.batch_tokens=4096"), "windows are longer than 512 tokens"),
        (("train.precision=fp32",), "it is for bf16 on a CPU"),
        (("model.attention.kernel=sdpa",), "another kernel is asked for"),
        (("model.attention.dropout=0.1",), "attention has dropout"),
        (("model.position.kind=alibi",), "it is for the plain causal mask"),
        (("data.objective.kind=prefix",), "it is for the plain causal mask"),
    ],
)
def test_a_run_says_whether_its_attention_is_the_short_one(workdir, tiny_config, words, why):
    config = tiny_config("train.precision=bf16", *words)
    plan, _ = plan_run(config, open_data(config), choose_device("cpu"))
    said = [reason for reason in plan.reasons if reason.startswith("short attention")]
    assert said == ["short attention on" if why is None else f"short attention off ({why})"]


@pytest.mark.parametrize(
    "change",
    [
        "train.techniques.tiled_loss=false",
        "model.attention.kernel=sdpa",
        "train.optimizer.fused=false",
    ],
)
def test_the_plain_way_has_the_same_losses_to_rounding(train_tiny, change, monkeypatch):
    """In bf16, whose numbers have 8 bits: a loss of 3 nats is kept to 0.01 over twenty updates."""
    monkeypatch.setattr(building, "LOSS_TILE", 64)  # of 257 ids
    same = ("train.precision=bf16", "train.steps=20")
    fast, plain = (losses_of(train_tiny(*same, *words)) for words in ((), (change,)))
    assert fast == pytest.approx(plain, abs=1e-2)


@pytest.mark.slow  # the C++ compiler takes its time
@pytest.mark.skipif(Machine.probe().compiler is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # while it compiles, torch warns of its own doings
def test_compiled_blocks_and_kernels_have_the_same_losses_to_rounding(train_tiny):
    same = ("train.precision=bf16", "train.steps=20", "train.techniques.tiled_loss=true")
    built, plain = (losses_of(train_tiny(*same, f"train.compile={word}")) for word in ("true", "false"))
    assert built == pytest.approx(plain, abs=1e-2)


def losses_of(result):
    return [f["loss"] for f in read_facts(result.directory / "metrics.jsonl") if f["event"] == "step"]


@pytest.mark.parametrize(("word", "tile"), [("true", LOSS_TILE), ("false", None)])
def test_a_run_is_built_with_what_was_chosen(tiny_config, word, tile):
    config = tiny_config("train.precision=bf16", f"train.techniques.tiled_loss={word}")
    plan, _ = plan_run(config, open_data(config), choose_device("cpu"))
    model = build_model(plan)
    assert build_updater(plan, model, build_state(plan, model)).loss.tile_ids == tile


def test_kept_memory_changes_no_bit(train_tiny):
    kept, given_back = (train_tiny(f"train.techniques.kept_memory={word}") for word in ("true", "false"))
    assert losses_of(kept) == losses_of(given_back)
