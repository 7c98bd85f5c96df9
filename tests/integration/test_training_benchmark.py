"""benchmarks/train.py: what it counts is right, and it runs from end to end."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pellucid.model import DecoderConfig
from pellucid.model.feedforward import SwiGLUConfig
from pellucid.model.stats import count_flops, count_parameters, on_meta

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SIZES = {"d_model": 96, "num_layers": 2, "num_heads": 2, "vocab_size": 512, "seq_len": 32}


@pytest.fixture(scope="module")
def peers():
    """peers/training.py, which is a script."""
    sys.path.insert(0, str(BENCHMARKS / "peers"))
    spec = importlib.util.spec_from_file_location("peers_training", BENCHMARKS / "peers" / "training.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(BENCHMARKS / "peers"))
    del sys.modules[spec.name]


@pytest.fixture
def shape(peers):
    return peers.Shape(**SIZES, d_ff=256, batch=2)


@pytest.mark.parametrize("name", ["llama", "gpt2", "nanogpt", "x-transformers", "litgpt"])
def test_a_peers_flops_are_those_that_torch_counts(peers, shape, name):
    pytest.importorskip({"llama": "transformers", "gpt2": "transformers"}.get(name, name).replace("-", "_"))
    model, loss_of = peers.MODELS[name](shape, "default")
    ids = torch.randint(shape.vocab_size, (shape.batch, shape.seq_len))
    # The tolerance is for what a rotation makes its angles with.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss_of(ids, ids).backward()
    assert peers.flops_per_token(model, shape) * ids.numel() == pytest.approx(
        counter.get_total_flops(), rel=0.01
    )


def test_a_peer_of_our_shape_has_our_parameters_and_flops(peers, shape):
    model, _ = peers.llama(shape, "default")
    sizes = {name: size for name, size in SIZES.items() if name != "seq_len"}
    config = DecoderConfig(**sizes, max_seq_len=shape.seq_len, feed_forward=SwiGLUConfig(d_ff=256))
    ours = on_meta(config)
    assert sum(p.numel() for p in model.parameters()) == count_parameters(ours).total
    assert peers.flops_per_token(model, shape) == count_flops(ours, shape.seq_len).training / shape.seq_len


@pytest.mark.slow
def test_the_benchmark_gives_rows_with_ratios_to_the_base(tmp_path):
    rows_wanted = ["nanoGPT style, defaults", "pellucid, forward only"]
    command = [
        sys.executable,
        str(BENCHMARKS / "train.py"),
        "--size",
        "tiny",
        "--rounds",
        "1",
        "--steps",
        "1",
    ]
    done = subprocess.run(
        [*command, "--only", *rows_wanted, "--json"], cwd=tmp_path, capture_output=True, check=True
    )
    report = json.loads(done.stdout)
    base, forward = report["rows"]
    assert base["name"] == report["settings"]["base"] == "nanoGPT style, defaults"
    assert (base["ratio"], forward["ratio"]) == (1, None)
    assert all(row["is_sane"] and row["mfu"] > 0 and row["peak_rss_mib"] > 50 for row in report["rows"])
    assert set(report["peaks"]["flops_per_s"]) == {"fp32", "bf16"}
    assert len(report["machine"]["load_by_round"]) == report["settings"]["rounds"] == 1


@pytest.fixture
def benchmark(monkeypatch):
    """train.py, which is a script."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location("benchmark_train", BENCHMARKS / "train.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def turns(*speeds):
    same = {
        "peak_rss_mib": 100.0,
        "flops_per_token": 5.0,
        "dtype": "fp32",
        "parameters": 7,
        "cpu_share": 1.0,
    }
    return [
        {**same, "tokens_per_s": s, "first_step_s": s, "first_loss": 2.0, "last_loss": 1.0} for s in speeds
    ]


def test_ratios_are_taken_round_by_round(benchmark):
    base, other = turns(10.0, 40.0, 20.0), turns(30.0, 40.0, 40.0)
    row = benchmark.summarise("x", other, base, fastest={"fp32": 800.0}, batch_tokens=80, threads=1)
    assert (row["min_ratio"], row["ratio"], row["max_ratio"]) == (1.0, 2.0, 3.0)
    assert (row["tokens_per_s"], row["ms_per_step"], row["mfu"]) == (40.0, 2000.0, 0.25)
    assert (row["first_step_cold_s"], row["first_step_warm_s"]) == (30.0, 40.0)


def test_a_loss_that_rose_or_is_none_is_marked(benchmark):
    turn = {
        "tokens_per_s": 1.0,
        "peak_rss_mib": 1.0,
        "flops_per_token": 1.0,
        "dtype": "fp32",
        "parameters": 1,
    }
    turn |= {"cpu_share": 1.0, "first_step_s": 1.0, "first_loss": 2.0}

    def is_sane(last: float) -> bool:
        turns = [{**turn, "last_loss": last}]
        row = benchmark.summarise("x", turns, turns, fastest={"fp32": 1.0}, batch_tokens=1, threads=1)
        return row["is_sane"]

    assert [is_sane(1.9), is_sane(2.1), is_sane(float("nan"))] == [True, False, False]


def test_what_is_not_installed_is_listed_with_where_its_installation_is_described(benchmark):
    options = benchmark.argparse.Namespace(size="tiny", steps=None, threads=1, device="cpu")
    absent = benchmark.Peer("nobody's, defaults", "llama", "default", "no_such_package")
    found = benchmark.Benchmark([absent, benchmark.Ours("pellucid")], benchmark.SIZES["tiny"], options)
    assert found.absent == {"nobody's, defaults": "not installed: see benchmarks/requirements.txt"}
    assert [variant.name for variant in found.variants] == ["pellucid"]


@dataclass(frozen=True)
class Said:
    """A variant whose process prints something, or fails."""

    name: str
    code: str
    is_training: bool = True
    package: str = "pellucid"

    def command(self, size, steps, device):
        return [sys.executable, "-c", self.code]

    @staticmethod
    def read(output):
        return json.loads(output)


@pytest.fixture
def play(benchmark, monkeypatch, tmp_path):
    """The report of one round of variants, with matrix products of a given rate in each of some rounds."""

    def play(*variants, rates=(800.0,)):
        options = benchmark.argparse.Namespace(size="tiny", steps=None, threads=2, device="cpu")
        played = benchmark.Benchmark(list(variants), benchmark.SIZES["tiny"], options)
        for rate in rates:
            monkeypatch.setattr(played, "_peaks", lambda rate=rate: {"fp32": {"1x1x1": rate}})
            played.round(tmp_path)
        return played.report()

    return play


def good(name, speed, **more):
    return Said(name, f"print({json.dumps(turns(speed)[0])!r})", **more)


def test_without_its_base_no_row_has_a_ratio(benchmark, play):
    report = play(Said("first", "raise OSError('gone')"), good("second", 10.0), good("third", 20.0))
    assert report["settings"]["base"] == "first"
    assert report["not_measured"] == {"first": "status 1: OSError: gone"}
    assert [row["ratio"] for row in report["rows"]] == [None, None]
    assert benchmark.draw(report).row_count == 3


def test_a_forward_pass_has_no_ratio_and_is_no_base(benchmark, play):
    report = play(good("scoring", 10.0, is_training=False), good("training", 20.0))
    assert report["settings"]["base"] == "training"
    assert [row["ratio"] for row in report["rows"]] == [None, 1.0]
    assert [v.name for v in benchmark.VARIANTS if not v.is_training] == ["pellucid, forward only"]


def test_the_peak_is_the_best_of_all_rounds(play):
    report = play(good("x", 40.0), rates=(500.0, 800.0, 700.0))
    assert report["peaks"] == {"flops_per_s": {"fp32": 800.0}, "by_shape": {"fp32": {"1x1x1": 800.0}}}
    assert report["rows"][0]["mfu"] == 0.25


def test_every_process_has_the_same_threads_that_wait_in_the_same_way(benchmark, play, monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    words = "OMP_NUM_THREADS", "GOMP_SPINCOUNT"
    report = play(Said("x", f"import os, sys; sys.exit(str([os.environ[w] for w in {words}]))"))
    assert report["not_measured"] == {"x": f"status 1: ['2', '{benchmark.SPIN_COUNT}']"}
    assert report["settings"]["environment"] == dict(zip(words, ("2", benchmark.SPIN_COUNT), strict=True))


@pytest.mark.parametrize(
    ("code", "status"), [("raise OSError", 1), (f"print({json.dumps(turns(1.0)[0])!r})", 0)]
)
def test_the_exit_status_says_whether_what_is_installed_was_measured(benchmark, monkeypatch, code, status):
    monkeypatch.setattr(benchmark, "VARIANTS", [Said("x", code), Said("y", "", package="no_such_package")])
    monkeypatch.setattr(benchmark.Benchmark, "_peaks", lambda _: {"fp32": {"1x1x1": 1.0}})
    monkeypatch.setattr(sys, "argv", ["train.py", "--size", "tiny", "--rounds", "1"])
    assert benchmark.main() == status


HINT = "\n\nSet TORCHDYNAMO_VERBOSE=1 for the internal stack trace\n"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("Traceback (most recent call last):\n  File\nE: one" + HINT, "E: one"),
        ("Traceback (most\n  a\nE: one\n\nDuring\n\nTraceback (most\n  b\nF: two\n  more" + HINT, "F: two"),
        ("Traceback (most\n  a\nF: b='c' raised:\nE: one" + HINT, "F: b='c' raised: E: one"),
        ("a warning\nerror: no such key\nmore about it\n", "error: no such key"),
        ("usage: x\nx: error: no such option\n", "x: error: no such option"),
        ("", "it said nothing"),
    ],
    ids=["one", "chained", "in two lines", "ours", "argparse", "nothing"],
)
def test_a_failure_is_told_by_the_line_that_names_it(benchmark, said, wanted):
    assert benchmark.what_happened(said) == wanted
