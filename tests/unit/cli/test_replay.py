"""What `pellucid replay` prints, and its exit status."""

import io
import json

import pytest
from rich.console import Console

from pellucid.errors import TrainingError
from pellucid.train import resume


@pytest.fixture
def bundle(run_directory):
    """The bundle of a run that went on at a rate too high by far."""
    changes = ["train.lr=1e30", "train.steps=16", "train.guard.max_rollbacks=0"]
    with pytest.raises(TrainingError):
        resume(run_directory, changes, console=Console(file=io.StringIO()))
    (path,) = (run_directory / "bundles").iterdir()
    return path


def test_it_says_that_it_is_the_same_step_what_went_wrong_first_and_what_is_next(cli, bundle):
    outcome = cli("replay", bundle)
    assert outcome.status == 0
    assert outcome.out == ""
    said = outcome.err.splitlines()
    assert said[0].startswith("step 10, learning rate ")
    assert said[1] == "reproduced: both are the recorded ones to the bit"
    assert said[2].startswith("first: the gradient of ")
    assert said[3].startswith("  it  float32 [")
    assert said[3].endswith("% not finite")
    assert said[-1].startswith("next: ")


def test_json_is_one_object_with_the_module_and_its_numbers(cli, bundle):
    found = cli("replay", bundle, "--json").json
    assert found["is_reproduced"] is True
    assert found["grad_norm"] == found["recorded_grad_norm"] == "nan"
    assert found["origin"]["kind"] == "gradient"
    assert set(found["origin"]["numbers"]) == {"shape", "dtype", "smallest", "largest", "not_finite"}


def test_a_step_that_comes_out_otherwise_is_exit_status_1(cli, bundle):
    values = json.loads((bundle / "step.json").read_text())
    (bundle / "step.json").write_text(json.dumps({**values, "grad_norm": 1.0}))
    outcome = cli("replay", bundle)
    assert outcome.status == 1
    assert "not reproduced: recorded were loss" in outcome.err


def test_what_is_no_bundle_is_the_users_mistake(cli, run_directory):
    assert "not a flight-recorder bundle" in cli("replay", run_directory).error


def test_with_other_choices_it_is_another_step_and_says_so(cli, bundle):
    values = json.loads((bundle / "step.json").read_text())
    (bundle / "step.json").write_text(json.dumps({**values, "grad_norm": 1.0}))
    outcome = cli("replay", bundle, "train.precision=bf16", "train.compile=false")
    assert outcome.status == 0
    assert outcome.err.splitlines()[1].startswith(
        "with train.precision=bf16 train.compile=false; recorded were loss "
    )
    refused = cli("replay", bundle, "train.lr=1").error
    assert "train.lr=1: it does not enter the loss and the gradient of a given batch" in refused
