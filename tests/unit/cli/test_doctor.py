"""`pellucid doctor`: a table, JSON, and the exit status."""

import json

import pytest

from pellucid.experiments.doctor import NEVER_RUN
from pellucid.train import numerics


def test_the_tables_name_every_part(cli):
    outcome = cli("doctor", "--device", "cpu")
    assert outcome.status == 0
    for title in ("machine", "libraries", "what is used, and why", "self-test", "never run by this project"):
        assert f"{title}\n" in outcome.out
    assert outcome.out.count("  ok ") >= 5
    assert "FAIL" not in outcome.out


def test_json_is_one_object(cli):
    values = cli("doctor", "--device", "cpu", "--json").json
    assert values["passed"] is True
    assert values["never_run"] == list(NEVER_RUN)
    assert {choice["what"] for choice in values["choices"]} >= {"device", "precision", "determinism"}


def test_a_failed_self_test_ends_with_1(cli, monkeypatch):
    monkeypatch.setattr(numerics, "TOLERANCE_FP32", 1e-12)
    outcome = cli("doctor", "--device", "cpu", "--json")
    assert outcome.status == 1
    values = json.loads(outcome.out)
    assert values["passed"] is False
    failed = [c["what"] for c in values["self_test"]["comparisons"] if not c["passed"]]
    assert failed == ["logits, cpu fp32 against CPU fp64", "gradients, cpu fp32 against CPU fp64"]


@pytest.mark.parametrize("name", ["gpu", "tpu"])
def test_a_device_that_is_not_there_is_refused(cli, name):
    assert "there is no such device" in cli("doctor", "--device", name).error
