"""`train --check` as a call: does it pass where a run would work, and fail where it would not?"""

import io

import pytest
from rich.console import Console

from pellucid.errors import DataError
from pellucid.train import check as check_module
from pellucid.train.check import check_run


@pytest.fixture
def check(tiny_config, workdir):
    return lambda *words: check_run(tiny_config("train.lr=1e-2", *words), console=Console(file=io.StringIO()))


def found(report) -> dict[str, bool]:
    return {finding.what: finding.passed for finding in report.findings}


@pytest.mark.parametrize(
    "words", [[], ["model.dropout=0.1"], ["train.label_smoothing=0.5"], ["data.tokenizer=char"]]
)
def test_a_run_that_would_work_passes_and_nothing_is_written(check, workdir, words):
    report = check(*words)
    assert report.passed, report
    assert found(report) == {"data": True, "first loss": True, "learning": True}
    assert list(workdir.iterdir()) == []


def test_a_rate_too_small_to_learn_with_fails(check):
    report = check("train.lr=1e-9")
    assert not report.passed
    assert found(report) == {"data": True, "first loss": True, "learning": False}


def test_a_model_that_starts_with_opinions_fails(check, monkeypatch):
    import torch

    build = check_module.build_model

    def confident(plan):
        model = build(plan)
        with torch.no_grad():
            model.final_norm.gain.mul_(200)
        return model

    monkeypatch.setattr(check_module, "build_model", confident)
    report = check()
    assert not found(report)["first loss"]


def test_altered_data_is_refused(check, tiny_config, workdir):
    from pellucid.train.opening import open_data

    cache = f"data.cache_dir={workdir / 'cache'}"
    shards = open_data(tiny_config(cache)).shards.directory
    path = shards / "train-00000.bin"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-00000\.bin: the file was altered"):
        check(f"data.path={shards}")
    assert check(cache).passed  # the cache is ours, so a damaged entry is made again


def test_the_report_is_plain_values(check):
    report = check()
    assert report.to_dict()["passed"] is True
    assert report.to_dict()["findings"][1].keys() == {"what", "found", "passed"}
