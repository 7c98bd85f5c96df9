"""benchmarks/train.py: what it counts is right, and it runs from end to end."""

import importlib.util
import json
import subprocess
import sys
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
def test_the_benchmark_gives_rows_with_ratios_to_the_first(tmp_path):
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
    first, forward = report["rows"]
    assert [first["name"], forward["name"]] == ["nanoGPT style, defaults", "pellucid, forward only"]
    assert first["ratio"] == 1
    assert forward["ratio"] == pytest.approx(forward["tokens_per_s"] / first["tokens_per_s"])
    assert all(row["is_sane"] and row["mfu"] > 0 and row["peak_rss_mib"] > 50 for row in report["rows"])
    assert set(report["peaks"]["flops_per_s"]) == {"fp32", "bf16"}
    assert len(report["machine"]["load_by_round"]) == report["settings"]["rounds"] == 1


@pytest.fixture
def benchmark():
    """train.py, which is a script."""
    spec = importlib.util.spec_from_file_location("benchmark_train", BENCHMARKS / "train.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_ratios_are_taken_round_by_round(benchmark):
    def turns(*speeds):
        same = {
            "peak_rss_mib": 100.0,
            "flops_per_token": 5.0,
            "dtype": "fp32",
            "parameters": 7,
            "cpu_share": 1.0,
        }
        return [
            {**same, "tokens_per_s": s, "first_step_s": s, "first_loss": 2.0, "last_loss": 1.0}
            for s in speeds
        ]

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


def test_what_is_not_installed_is_listed_with_the_words_that_install_it(benchmark):
    options = benchmark.argparse.Namespace(size="tiny", steps=None, threads=1, device="cpu")
    absent = benchmark.Peer("nobody's, defaults", "llama", "default", "no_such_package")
    found = benchmark.Benchmark([absent, benchmark.Ours("pellucid")], benchmark.SIZES["tiny"], options)
    assert found.absent == {"nobody's, defaults": "not installed: pip install -r benchmarks/requirements.txt"}
    assert [variant.name for variant in found.variants] == ["pellucid"]
