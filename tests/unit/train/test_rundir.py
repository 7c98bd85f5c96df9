"""The run directory: names, what may not be overwritten, which checkpoints stay."""

import pytest

from pellucid.errors import ResumeError, StorageError
from pellucid.train.rundir import RunDirectory


def save_at(run: RunDirectory, *steps: int) -> None:
    for step in steps:
        folder = run.path / f"checkpoints/step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()


def steps_left(run: RunDirectory) -> list[int]:
    return sorted(int(path.name[5:]) for path in (run.path / "checkpoints").iterdir())


def test_a_run_without_a_directory_takes_the_next_number(workdir, tiny_config):
    (workdir / "runs/debug-007").mkdir(parents=True)
    (workdir / "runs/debug-old").mkdir()
    (workdir / "runs/other-009").mkdir()
    names = [
        RunDirectory.create(tiny_config(word)).path.as_posix() for word in ("run.name=debug", "run.name=new")
    ]
    assert names == ["runs/debug-008", "runs/new-001"]
    assert RunDirectory.create(tiny_config()).path.as_posix() == "runs/debug-009"


def test_a_number_that_another_process_takes_meanwhile_is_passed_over(workdir, tiny_config, monkeypatch):
    (workdir / "runs/debug-001").mkdir(parents=True)
    monkeypatch.setattr("pathlib.Path.glob", lambda self, pattern: iter(()))  # as it was a moment ago
    assert RunDirectory.create(tiny_config()).path.as_posix() == "runs/debug-002"


def test_a_named_directory_is_made_with_those_above_it(workdir, tiny_config):
    run = RunDirectory.create(tiny_config("run.dir=a/b c"))
    assert (workdir / "a/b c/checkpoints").is_dir()
    assert run.file("x") == run.path / "x"


def test_a_directory_that_holds_a_run_is_not_overwritten(workdir, tiny_config):
    config = tiny_config("run.dir=mine")
    RunDirectory.create(config).write_config(config)
    with pytest.raises(StorageError, match=r"mine: already holds a run; continue it with .*--resume mine"):
        RunDirectory.create(config)


def test_a_directory_with_checkpoints_alone_is_not_overwritten_either(workdir, tiny_config):
    config = tiny_config("run.dir=mine")
    save_at(RunDirectory.create(config), 5)
    with pytest.raises(StorageError, match="already holds a run"):
        RunDirectory.create(config)


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_in_the_way_is_named(workdir, tiny_config, name):
    (workdir / "file").write_text("precious")
    with pytest.raises(StorageError, match=r"file: .*in the way"):
        RunDirectory.create(tiny_config(f"run.dir={name}"))
    assert (workdir / "file").read_text() == "precious"


def test_only_a_run_can_be_resumed(workdir):
    with pytest.raises(ResumeError, match=r"nowhere: there is no run to resume \(no config\.toml"):
        RunDirectory.existing(workdir / "nowhere")


def test_what_a_killed_save_left_is_removed(workdir, tiny_config):
    config = tiny_config("run.dir=mine")
    run = RunDirectory.create(config)
    run.write_config(config)
    leftover = run.path / "checkpoints/.step-00000004.abc.partial"
    leftover.mkdir()
    (leftover / "model.safetensors").touch()
    save_at(run, 4)
    with RunDirectory.existing(run.path).alone():
        pass
    assert steps_left(run) == [4]


@pytest.mark.parametrize(
    ("saved", "keep", "best", "left"),
    [
        ([1, 2, 3, 4], 2, None, [3, 4]),
        ([1, 2, 3, 4], 1, 2, [2, 4]),
        ([1, 2, 3, 4], 2, 4, [3, 4]),
        ([1, 2], 5, 1, [1, 2]),
        ([99_999_998, 99_999_999, 100_000_000], 1, None, [100_000_000]),
    ],
)
def test_the_newest_and_the_best_checkpoint_stay(workdir, tiny_config, saved, keep, best, left):
    run = RunDirectory.create(tiny_config())
    save_at(run, *saved)
    run.prune(keep, step=saved[-1], best_step=best, good_step=-1)
    assert steps_left(run) == left


@pytest.mark.parametrize(
    ("good", "left"), [(-1, [4]), (0, [4]), (1, [1, 4]), (2, [2, 4]), (3, [3, 4]), (4, [4]), (9, [4])]
)
def test_the_newest_checkpoint_that_is_known_to_be_good_stays(workdir, tiny_config, good, left):
    run = RunDirectory.create(tiny_config())
    save_at(run, 1, 2, 3, 4)
    run.prune(1, step=4, best_step=None, good_step=good)
    assert steps_left(run) == left


def test_a_good_checkpoint_need_not_be_of_the_step_that_was_judged(workdir, tiny_config):
    run = RunDirectory.create(tiny_config())
    save_at(run, 10, 20, 30)
    run.prune(1, step=30, best_step=None, good_step=27)
    assert steps_left(run) == [20, 30]


def test_later_damaged_checkpoints_do_not_push_out_the_one_just_saved(workdir, tiny_config):
    run = RunDirectory.create(tiny_config())
    save_at(run, 4, 6, 20, 30)
    run.prune(1, step=6, best_step=None, good_step=-1)
    assert steps_left(run) == [6, 20, 30]


def test_the_pointers_are_plain_text(workdir, tiny_config):
    run = RunDirectory.create(tiny_config())
    run.mark_latest(8)
    run.mark_best(4)
    assert (run.path / "latest").read_text() == "step-00000008\n"
    assert (run.path / "best").read_text() == "step-00000004\n"


def test_the_environment_is_read_back(workdir, tiny_config):
    run = RunDirectory.create(tiny_config())
    assert run.read_environment() == {}
    run.write_environment({"threads": 3})
    assert run.read_environment() == {"threads": 3}
