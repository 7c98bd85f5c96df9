"""benchmarks/generate.py: it runs from end to end, and what is fast and wrong is seen."""

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHAPE = {"d_model": 32, "num_layers": 2, "num_heads": 2, "d_ff": 64, "vocab_size": 300, "max_seq_len": 64}
PROMPT, COUNT = [[5, 260, 17, 3]], 12


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Scripts find what lies beside them; what they import is forgotten again."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(BENCHMARKS / "peers" / "generation")
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def generate():
    return importlib.import_module("generate")


@pytest.fixture
def model():
    return importlib.import_module("generation.model")


@pytest.fixture
def files(model, tmp_path):
    """A tiny model, as every library finds it."""
    model.write(SHAPE, tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_benchmark_gives_rows_with_ratios_and_verdicts(tmp_path):
    pytest.importorskip("transformers")
    wanted = ["transformers bf16", "pellucid bf16", "pellucid fp32", "pellucid bf16, batch 8"]
    sizes = ["--size", "tiny", "--prompt-tokens", "8", "--new-tokens", "6", "--rounds", "2"]
    command = [sys.executable, str(BENCHMARKS / "generate.py"), *sizes, "--threads", "1", "--json"]
    done = subprocess.run(
        [*command, "--only", *wanted], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    rows = {row["name"]: row for row in report["rows"]}
    assert set(rows) == set(wanted)
    assert report["not_measured"] == {}
    assert set(report["read_bandwidth"]["by_way"]) == {"sum", "matrix by vector"}
    assert report["settings"]["rounds"] == len(report["machine"]["load_by_round"]) == 2
    for row in report["rows"]:
        assert row["is_right"]
        assert row["peak_rss_mib"] > 50
        assert row["first_s"]["min"] <= row["first_s"]["median"] <= row["first_s"]["max"]
    assert rows["pellucid fp32"]["same_in_front"] == 6
    assert rows["pellucid fp32"]["weight_bytes"] == 2 * rows["transformers bf16"]["weight_bytes"]
    ours, theirs = rows["pellucid bf16"], rows["transformers bf16"]
    assert ours["ratios"]["transformers bf16"]["tokens_per_s"]["min"] > 0
    assert ours["weight_bytes"] == pytest.approx(theirs["weight_bytes"], rel=0.01)  # the norms are in fp32


ENGINES = {
    "pellucid_decode": ("torch", {"dtype": "fp32"}),
    "transformers_generate": ("transformers", {"dtype": "fp32"}),
    "litgpt_generate": ("litgpt", {"dtype": "fp32"}),
    "llama_cpp_decode": ("llama_cpp", {"number_format": "bf16"}),
    "ctranslate2_generator": ("ctranslate2", {"compute_type": "int8"}),
    "onnx_genai": ("onnxruntime_genai", {}),
}


@pytest.mark.parametrize("name", ENGINES)
def test_every_library_writes_what_the_weights_say(files, model, name):
    package, setting = ENGINES[name]
    pytest.importorskip(package)
    engine_module = importlib.import_module(name)
    if convert := getattr(engine_module, "convert", None):
        convert(files, **setting)
    engine = engine_module.open_engine(files, 1, 64, **setting)
    marks = []
    for _ in range(2):  # a second text begins from nothing
        marks.clear()
        written = engine.write(PROMPT, COUNT, lambda: marks.append(1))
        assert len(marks) == COUNT
        (verdict,) = model.judge(files, [{"prompts": PROMPT, "written": written}])
        assert verdict["shortfall"] < (0.5 if name == "onnx_genai" else 0.05)
    parameters = sum(p.numel() for p in model.random_model(SHAPE).parameters())
    assert 0.4 * parameters < engine.weight_bytes <= 4 * parameters


def test_the_text_is_not_one_id_over_and_over_as_it_is_before_training(model):
    def distinct(one) -> int:
        return len(set(one.generate(torch.tensor(PROMPT), 24)[0, len(PROMPT[0]) :].tolist()))

    drawn = model.random_model(SHAPE)
    assert (distinct(drawn.config.build()), distinct(drawn) > 8) == (1, True)


def test_what_the_weights_do_not_say_falls_short(files, model):
    loaded = model.checkpoint.load(files / "checkpoint").model
    written = loaded.generate(torch.tensor(PROMPT), COUNT)[0, len(PROMPT[0]) :].tolist()
    assert model.shortfall(loaded, PROMPT[0], written) == {"shortfall": 0.0, "same": COUNT}
    wrong = [*written[:5], (written[5] + 1) % 300, *written[6:]]
    found = model.shortfall(loaded, PROMPT[0], wrong)
    assert found["same"] == 5
    assert found["shortfall"] > 0.02
    at_random = model.shortfall(loaded, PROMPT[0], [7] * COUNT)
    assert at_random["shortfall"] > 1.5


def test_the_shortfall_is_what_its_formula_says(model):
    class Alike:
        """The same logits after every id."""

        def hidden(self, ids):
            return argparse.Namespace(states=ids[..., None].float())

        def head(self, states):
            return torch.tensor([1.0, 2.0, 6.0]).expand(1, states.shape[1], 3)

    deviation = torch.tensor([1.0, 2.0, 6.0]).std().item()
    found = model.shortfall(Alike(), [0], [2, 1])
    assert found == {"shortfall": pytest.approx((0 + 4) / 2 / deviation), "same": 1}


def turn(decode, whole, shortfall=0.0):
    verdict = {"shortfall": shortfall, "worst_shortfall": shortfall, "same_in_front": 3}
    speeds = {"decode_tokens_per_s": decode, "tokens_per_s": whole, "first_s": 0.5}
    return {**speeds, "peak_rss_mib": 9.0, "cpu_share": 1.0, "verdict": verdict}


def test_ratios_are_taken_round_by_round_and_bytes_a_step(generate):
    row = generate.Row("mine", "", "torch", "bf16", batch=4, beside=("theirs", "absent"))
    turns = {
        "mine": [turn(30.0, 10.0), turn(40.0, 20.0, 0.5), turn(40.0, 30.0)],
        "theirs": [turn(10.0, 10.0), turn(40.0, 10.0), turn(20.0, 10.0)],
    }
    found = generate.summarise(row, turns, 1000, 20_000.0)
    assert found["ratios"] == {
        "theirs": {
            "decode_tokens_per_s": {"median": 2.0, "min": 1.0, "max": 3.0},
            "tokens_per_s": {"median": 2.0, "min": 1.0, "max": 3.0},
        }
    }
    assert (found["weight_bytes_per_s"], found["bandwidth_share"]) == (10_000.0, 0.5)
    assert (found["shortfall"], found["is_right"]) == (0.5, False)  # one round is enough


def test_what_is_not_installed_is_listed_and_what_fails_says_why(generate, tmp_path):
    options = generate.options_of(["--size", "tiny", "--prompt-tokens", "4", "--new-tokens", "2"])
    absent = generate.Row("nobody's", "", "no_such_package", "bf16")
    failing = generate.Row("failing", "pellucid_decode", "pellucid", "bf16", {"dtype": "fp8"})
    benchmark = generate.Benchmark([absent, failing], options, tmp_path)
    benchmark.open()
    assert benchmark.absent == {"nobody's": "not installed: see benchmarks/requirements.txt"}
    assert benchmark.failed == {"failing": "status 1: KeyError: 'fp8'"}
    assert (benchmark.rows, benchmark.turns) == ([], {})


def test_every_row_is_set_beside_rows_that_there_are(generate):
    names = {row.name for row in (*generate.ROWS, *generate.SETTINGS)}
    assert len(names) == len(generate.ROWS) + len(generate.SETTINGS)
    for row in (*generate.ROWS, *generate.SETTINGS):
        assert set(row.beside) <= names - {row.name}
        assert (BENCHMARKS / "peers" / "generation" / f"{row.engine}.py").is_file()


def test_rows_are_chosen_by_their_whole_names(generate):
    chosen = generate.chosen_rows(generate.options_of(["--only", "pellucid bf16", "llama.cpp q4_0"]))
    assert [row.name for row in chosen] == ["llama.cpp q4_0", "pellucid bf16"]
    with pytest.raises(SystemExit, match="'pellucid': there is no such row; choose from: transformers fp32;"):
        generate.chosen_rows(generate.options_of(["--only", "pellucid"]))


def test_the_command_names_files_without_their_folders(generate, tmp_path):
    shown = generate.shown_command(["--json", str(tmp_path / "x.json"), "--only", "pellucid bf16"])
    assert shown == "python benchmarks/generate.py --json x.json --only 'pellucid bf16'"


@pytest.mark.parametrize("code", ["import os; os.kill(os.getpid(), 11)", "raise OSError('gone')"])
def test_a_process_that_dies_is_told_by_its_signal_or_its_words(code):
    running = importlib.import_module("generation.running")
    with pytest.raises(running.ProcessError, match=r"killed by SIGSEGV|status 1: OSError: gone"):
        running.run([sys.executable, "-c", code], {})


def test_bandwidth_is_bytes_by_the_least_time(monkeypatch):
    bandwidth = importlib.import_module("generation.bandwidth")
    monkeypatch.setattr(bandwidth, "least_time", lambda read: 0.5 if read().dim() else 0.25)
    assert bandwidth.bytes_per_s(1) == {"sum": 4 * 2**20, "matrix by vector": 2 * 2**20}
