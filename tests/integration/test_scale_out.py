"""Preparing with datatrove's executors: whatever runs the tasks, and whatever kills them, equals `prepare`."""

import errno
import gzip
import importlib.util
import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("datatrove", reason="datatrove (the extra `cluster`) is not installed")

from datatrove.executor import LocalPipelineExecutor

from pellucid import tokenizers
from pellucid.data import scale_out
from pellucid.data.assembly import Assembler
from pellucid.data.manifest import read_manifest
from pellucid.data.prepare import prepare
from pellucid.data.scale_out import AssembleShards, EncodePortions, Job, plan_job, prepare_scaled
from pellucid.data.sources import open_source
from pellucid.data.sources.base import Reading, texts
from pellucid.errors import ConfigError, DataError, StorageError, WorkerError

SETTINGS = {"shard_tokens": 20_000, "portion_bytes": 20_000}
HERE = ("shard_tokens", "val_fraction", "deduplicate")
IN_THIS_PROCESS = {"executor": "local", "tasks": 2, "workers": 1}
PAGE = Path(__file__).parents[2] / "docs/how-to/prepare-on-a-cluster.md"


WORDS = ["ein", "Bär", "möchte", "the", "honey", "蜂蜜", "🍯", "and", "12", "34", "<|endoftext|>"]


def story(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(1, 60)))


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two files that can be cut and one that cannot, with documents that come again or are empty."""
    folder, rng = tmp_path_factory.mktemp("scale") / "stories", random.Random(0)
    folder.mkdir()
    for name in ("a.jsonl", "b.jsonl", "c.jsonl.gz"):
        texts = [story(rng) for _ in range(300)] + ["again and again", "", "met twice"]
        rng.shuffle(texts)
        data = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
        (folder / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def assert_as_here(out: Path, source: Path | str, *, reading: Reading | None = None, **settings) -> None:
    """`out` has the same files, to the byte, as a preparation in one process."""
    reference = out.with_name("reference")
    tokenizer = settings.pop("tokenizer", "byte")
    kept = {name: value for name, value in settings.items() if name in HERE}
    reading = reading or Reading()
    opened = open_source(source, **vars(reading))
    prepare(opened, tokenizers.build(tokenizer), reference, **kept)
    there, here = contents(out), contents(reference)
    assert sorted(there) == sorted(here)
    assert [name for name in here if there[name] != here[name]] == []
    assert sorted(path.name for path in out.parent.glob(f"*{out.name}*")) == [out.name, f"{out.name}.logs"]


# What comes of it


@pytest.mark.parametrize("deduplicate", [pytest.param(False, marks=pytest.mark.slow), True])
def test_three_tasks_on_two_workers_equal_one_process(stories, tmp_path, capfd, deduplicate):
    manifest = prepare_scaled(
        [stories], "byte", tmp_path / "out", executor="local", tasks=3, workers=2, deduplicate=deduplicate, **SETTINGS
    )  # fmt: skip
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert "3/3 tasks completed" in (tmp_path / "out.logs/launch.log").read_text()
    assert manifest == read_manifest(tmp_path / "out")
    all_texts = list(texts(open_source(stories)))
    assert len(all_texts) > len(set(all_texts))
    assert len(manifest.train.shards) > 3
    assert manifest.train.duplicates + manifest.val.duplicates == deduplicate * (
        len(all_texts) - len(set(all_texts))
    )
    assert manifest.left_out == {"empty": 3}
    assert_as_here(tmp_path / "out", stories, deduplicate=deduplicate, **SETTINGS)


@pytest.mark.parametrize("tasks", [1, 2, 100])
def test_the_number_of_tasks_changes_nothing(stories, tmp_path, tasks):
    prepare_scaled([stories], "byte", tmp_path / "out", executor="local", tasks=tasks, workers=1, **SETTINGS)
    assert_as_here(tmp_path / "out", stories, **SETTINGS)


def stripping_tokenizer(folder: Path) -> str:
    """One that gives other ids when a text is cut at the ends of words: it strips what it is given."""
    tree = json.loads((Path(__file__).parents[1] / "contracts/tokenizer.json").read_text(encoding="utf-8"))
    tree["normalizer"] = {"type": "Strip", "strip_left": True, "strip_right": True}
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    return str(folder / "tokenizer.json")


@pytest.mark.parametrize("kind", ["byte", pytest.param("gpt2", marks=pytest.mark.slow), "stripping"])
def test_a_single_text_is_one_part_and_split_by_its_tail(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("pellucid.data.sources.text.PIECE_BYTES", 5000)
    tokenizer = stripping_tokenizer(tmp_path) if kind == "stripping" else kind
    text = tmp_path / "plays.txt"
    text.write_text(" ".join(story(random.Random(seed)) for seed in range(900)), encoding="utf-8")
    job = plan_job([text], tokenizer, tmp_path / "out", portion_bytes=1000)
    assert len(job.portions) == 1
    prepare_scaled([text], tokenizer, tmp_path / "out", portion_bytes=1000, **IN_THIS_PROCESS)
    assert_as_here(tmp_path / "out", text, tokenizer=tokenizer)


def test_pairs_and_faults_that_are_left_out(tmp_path):
    file, rng = tmp_path / "pairs.jsonl", random.Random(1)
    pairs = [{"from": f"<|endoftext|> {story(rng)}", "to": story(rng)} for _ in range(400)]
    lines = [json.dumps(pair).encode() for pair in pairs]
    lines[7] = lines[300] = b'{"from": "no target"}'
    lines[200] = b'{"from": "\xff", "to": "x"}'
    file.write_bytes(b"\n".join(lines))
    reading = Reading(pair_fields=("from", "to"), errors="skip")
    prepare_scaled([file], "byte", tmp_path / "out", reading=reading, **IN_THIS_PROCESS, **SETTINGS)
    assert_as_here(tmp_path / "out", file, reading=reading, **SETTINGS)
    manifest = read_manifest(tmp_path / "out")
    assert sum(manifest.left_out.values()) == 3
    stats = (tmp_path / "out.logs/encode/stats.json").read_text()
    assert all(f"left out or mended: {reason}" in stats for reason in manifest.left_out)


def test_the_steps_in_executors_of_ones_own_wherever_they_run(stories, tmp_path, monkeypatch):
    monkeypatch.chdir(stories.parent)
    job = plan_job(["stories"], "byte", os.path.relpath(tmp_path / "out"), **SETTINGS)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    job = pickle.loads(pickle.dumps(job))
    logs = str(tmp_path / "out.logs")
    encode = LocalPipelineExecutor([EncodePortions(job)], tasks=4, workers=1, logging_dir=f"{logs}/encode")
    last = LocalPipelineExecutor([AssembleShards(job)], tasks=1, logging_dir=f"{logs}/last", depends=encode)
    last.run()
    monkeypatch.undo()
    assert_as_here(tmp_path / "out", stories, **SETTINGS)


def test_what_is_prepared_already_is_used_and_leftovers_go(stories, tmp_path, monkeypatch):
    made = prepare_scaled([stories], "byte", tmp_path / "out", **IN_THIS_PROCESS, **SETTINGS)
    (tmp_path / "out.parts").mkdir()
    monkeypatch.setattr(scale_out.EncodePortions, "run", None)
    assert prepare_scaled([stories], "byte", tmp_path / "out", **IN_THIS_PROCESS, **SETTINGS) == made
    assert not (tmp_path / "out.parts").exists()
    with pytest.raises(DataError, match="holds data prepared in another way"):
        prepare_scaled([stories], "byte", tmp_path / "out", val_fraction=0.2, **IN_THIS_PROCESS)


# Killed, and run again


SCRIPT = """
import sys
from pellucid.data.scale_out import prepare_scaled

settings = {"executor": "local", "tasks": 3, "workers": 2, "shard_tokens": 20_000, "portion_bytes": 1000}
prepare_scaled([sys.argv[1]], "byte", sys.argv[2], **settings)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="this system has no process groups")
@pytest.mark.parametrize("parts", [pytest.param(1, marks=pytest.mark.slow), 30])
def test_killed_while_encoding_and_run_again(stories, tmp_path, wait_until, parts):
    out, settings = tmp_path / "out", {"shard_tokens": 20_000, "portion_bytes": 1000}
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", stories, out],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    there = tmp_path / "out.parts"
    wait_until(lambda: process.poll() is not None or len(list(there.glob("*.blocks"))) >= parts)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {file.name: file.stat().st_mtime_ns for file in there.glob("*.blocks")}
    job = plan_job([stories], "byte", out, **settings)
    assert parts <= len(finished) < len(job.portions)
    assert not list(there.glob(".*"))
    for rank in range(2):
        EncodePortions(job).run(rank=rank, world_size=2)
    assert {name: (there / name).stat().st_mtime_ns for name in finished} == finished
    prepare_scaled([stories], "byte", out, **IN_THIS_PROCESS, **settings)
    assert_as_here(out, stories, **settings)


def test_a_task_that_fails_once_leaves_whole_parts_alone(stories, tmp_path, monkeypatch):
    fsync, left = os.fsync, 4

    def full(descriptor: int) -> None:
        nonlocal left
        if ".blocks." in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            left -= 1
            if left == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("only Linux says which file a descriptor is of")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no space left on device"):
        prepare_scaled([stories], "byte", tmp_path / "out", **IN_THIS_PROCESS, **SETTINGS)
    names = sorted(file.name for file in (tmp_path / "out.parts").glob("*.blocks"))
    assert names == ["000000.blocks", "000002.blocks", "000004.blocks"]  # of task 0 of 2
    assert not list((tmp_path / "out.parts").glob(".*"))
    prepare_scaled([stories], "byte", tmp_path / "out", **IN_THIS_PROCESS, **SETTINGS)
    assert_as_here(tmp_path / "out", stories, **SETTINGS)


class PowerCutError(BaseException):
    pass


@pytest.mark.parametrize(
    ("blocks", "deduplicate"),
    [
        (1, True),
        (3, False),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((1, False), (3, True), (5, True))),
    ],
)
def test_cut_off_while_assembling_and_run_again(stories, tmp_path, monkeypatch, blocks, deduplicate):
    settings = {**SETTINGS, "shard_tokens": 5000, "deduplicate": deduplicate}
    add, left, added = Assembler.add, blocks, []

    def cut_off(self: Assembler, block) -> None:
        nonlocal left
        if left == 0:
            raise PowerCutError
        left -= 1
        added.append(block.end)
        add(self, block)

    with monkeypatch.context() as patch:
        patch.setattr(Assembler, "add", cut_off)
        with pytest.raises(PowerCutError):
            prepare_scaled([stories], "byte", tmp_path / "out", **IN_THIS_PROCESS, **settings)
        assert (tmp_path / "out/unfinished.json").is_file()
        left = 1000
        prepare_scaled([stories], "byte", tmp_path / "out", **IN_THIS_PROCESS, **settings)
    assert len(added) == len(set(added))  # no block again: each had finished a shard
    assert_as_here(tmp_path / "out", stories, **settings)


def test_what_one_machine_began_inside_a_block_is_not_gone_on_with(stories, tmp_path, monkeypatch):
    tokenizer, out = tokenizers.build("byte"), tmp_path / "out"
    monkeypatch.setattr("pellucid.data.sources.content.BLOCK_BYTES", 5000)
    with monkeypatch.context() as patch:
        add = Assembler.add
        patch.setattr(Assembler, "add", lambda self, block: add(self, block) if block.end.file < 1 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(open_source(stories), tokenizer, out, shard_tokens=500)
    journal = json.loads((out / "unfinished.json").read_text())
    journal["next"][1] -= 1
    (out / "unfinished.json").write_text(json.dumps(journal))
    with pytest.raises(DataError, match="was begun by a preparation on one machine"):
        prepare_scaled([stories], "byte", out, shard_tokens=500, **IN_THIS_PROCESS)


# Refused


@pytest.fixture
def encoded(stories, tmp_path) -> Job:
    job = plan_job([stories], "byte", tmp_path / "out", **SETTINGS)
    EncodePortions(job).run()
    assert job.missing() == []
    return job


@pytest.mark.parametrize("place", [0.3, 0.6, 0.99])
def test_a_damaged_part_is_named_and_made_again_when_it_is_removed(encoded, stories, tmp_path, place):
    part = encoded.part(2).path
    data = bytearray(part.read_bytes())
    data[int(len(data) * place)] ^= 1
    part.write_bytes(data)
    with pytest.raises(DataError, match=r"000002\.blocks: damaged"):
        AssembleShards(encoded).run()
    part.unlink()
    with pytest.raises(WorkerError, match=r"1 of \d+ parts are missing \(the first: 000002\.blocks\)"):
        AssembleShards(encoded).run()
    prepare_scaled([stories], "byte", tmp_path / "out", **IN_THIS_PROCESS, **SETTINGS)
    assert_as_here(tmp_path / "out", stories, **SETTINGS)


def test_a_part_that_was_cut_off_is_damaged(encoded):
    part = encoded.part(0).path
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"000000\.blocks: damaged"):
        AssembleShards(encoded).run()


def test_a_part_of_which_blocks_were_lost_is_damaged(encoded):
    head = encoded.part(0).path.read_bytes().partition(b"\n")[0]
    encoded.part(0).path.write_bytes(head + b'\n{"blocks":1}\n')
    with pytest.raises(
        DataError, match=r"000000\.blocks: damaged in or behind block 0 \(a block is missing\)"
    ):
        AssembleShards(encoded).run()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"val_fraction": 0.3}, "split: content-hash 0.1 there, content-hash 0.3 asked for"),
        ({"portion_bytes": 9000}, "portion_bytes: 20,000 there, 9,000 asked for"),
    ],
)
def test_parts_of_another_preparation_are_kept(encoded, stories, tmp_path, changed, named):
    with pytest.raises(DataError, match="holds parts of another preparation") as caught:
        prepare_scaled([stories], "byte", tmp_path / "out", **IN_THIS_PROCESS, **(SETTINGS | changed))
    assert named in str(caught.value)
    assert encoded.missing() == []


def test_parts_under_a_wrong_number_count_as_missing(encoded):
    encoded.part(1).path.replace(encoded.part(0).path)
    assert encoded.missing() == [0, 1]


@pytest.fixture
def bad(tmp_path) -> Path:
    """A folder with a line that is not JSON, behind what is looked at before the tasks begin."""
    folder = tmp_path / "bad"
    folder.mkdir()
    lines = [json.dumps({"text": f"{number} " + "word " * 5000}) + "\n" for number in range(60)]
    (folder / "a.jsonl").write_text("".join(lines))
    (folder / "b.jsonl").write_text("".join(lines[:40]) + '{"text": \n')
    return folder


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_bad_input_is_said_and_what_was_encoded_stays(bad, tmp_path, workers):
    with pytest.raises(DataError, match=r"b\.jsonl, line 41: not JSON"):
        prepare_scaled([bad], "byte", tmp_path / "out", executor="local", tasks=2, workers=workers)
    assert not (tmp_path / "out").exists()
    there = [file.name for file in (tmp_path / "out.parts").glob("*.blocks")]
    assert there == ["000000.blocks"] or workers == 2  # datatrove ends the others with the one that fails


@pytest.mark.parametrize(
    ("paths", "changed", "said"),
    [
        (["-"], {}, "standard input cannot be read on several machines"),
        (["builtin:shakespeare"], {"tasks": 0}, "tasks: wanted at least 1"),
        (["builtin:shakespeare"], {"executor": "slrum"}, "executor: wanted one of local, ray, slurm"),
        (["builtin:shakespeare"], {"portion_bytes": 0}, "portion_bytes: wanted at least 1"),
    ],
)
def test_words_that_cannot_be_used(tmp_path, paths, changed, said):
    with pytest.raises(ConfigError, match=said):
        prepare_scaled(paths, "byte", tmp_path / "out", **(IN_THIS_PROCESS | changed))
    assert not list(tmp_path.iterdir())


def test_slurm_where_it_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="slurm wants the command sbatch"):
        prepare_scaled(["builtin:shakespeare"], "byte", tmp_path / "out", executor="slurm", tasks=2)


def test_without_datatrove_one_line_says_what_to_install():
    code = "import sys; sys.modules['datatrove'] = None; import pellucid.data.scale_out"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert done.stderr.splitlines()[-1] == (
        "pellucid.errors.MissingLibraryError: preparing data on several machines needs the library datatrove, which is "
        "not installed: pip install 'pellucid[cluster]'"
    )


def test_shards_are_assembled_by_one_task(encoded):
    with pytest.raises(ConfigError, match="wanted tasks=1, not 2"):
        AssembleShards(encoded).run(rank=0, world_size=2)


# Clusters


SBATCH = """\
#!{python}
import os, re, subprocess, sys
from pathlib import Path

*options, script = sys.argv[1:]
jobs = Path({folder!r}) / "jobs"
for option in options:
    if option.startswith("--dependency=afterok:"):
        assert option.rpartition(":")[2] in jobs.read_text().split(), "a job that failed, or that there is not"
text = Path(script).read_text()
last = int(re.search(r"#SBATCH --array=0-(\\d+)", text)[1])
for number in range(last + 1):
    env = os.environ | {{"SLURM_ARRAY_TASK_ID": str(number), "SLURM_NODELIST": "here", "RUN_OFFSET": "0"}}
    done = subprocess.run(["bash", script], env=env, stdout=sys.stderr)
    if done.returncode:
        print("Submitted batch job 99")
        raise SystemExit
count = len(jobs.read_text().split()) + 1 if jobs.exists() else 1
with jobs.open("a") as file:
    file.write(f"{{count}}\\n")
print("Submitted batch job", count)
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """Stand-ins for Slurm's commands: jobs run at once, here, one task after the other."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    launcher = "datatrove.tools.launch_pickled_pipeline"
    commands = {
        "sbatch": SBATCH.format(python=sys.executable, folder=str(folder)),
        "srun": '#!/bin/sh\nwhile [ "$1" != launch_pickled_pipeline ]; do shift; done\nexec "$@"\n',
        "scontrol": "#!/bin/sh\necho here\n",
        "merge_stats": "#!/bin/sh\n",
        "launch_pickled_pipeline": f"#!/bin/sh\nexec '{sys.executable}' -m {launcher} \"$@\"\n",
    }
    for name, text in commands.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


@pytest.mark.skipif(os.name == "nt", reason="Slurm's commands are shell scripts here")
@pytest.mark.slow
def test_jobs_that_are_submitted_to_slurm(stories, tmp_path, slurm, capfd):
    options = {"time": "1:00:00", "partition": "cpu"}
    out = tmp_path / "out"
    done = prepare_scaled([stories], "byte", out, executor="slurm", tasks=2, options=options, **SETTINGS)
    assert done is None
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    log = (tmp_path / "out.logs/launch.log").read_text()
    assert (slurm / "jobs").read_text().split() == ["1", "2", "3", "4"], (
        log
    )  # each with a job for its statistics
    script = (tmp_path / "out.logs/encode/launch_script.slurm").read_text()
    assert "#SBATCH --array=0-1\n" in script
    assert "#SBATCH --partition=cpu\n" in script
    assert_as_here(tmp_path / "out", stories, **SETTINGS)


RAY = """
import sys

import ray
from ray.cluster_utils import Cluster

from pellucid.data.scale_out import prepare_scaled
from pellucid.errors import WorkerError

stories, bad, out = sys.argv[1:]
node = {"num_cpus": 1, "memory": 1 << 30, "object_store_memory": 80 << 20}
cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
try:
    cluster.add_node(**node)
    cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    assert len(ray.nodes()) == 3
    settings = {
        "executor": "ray",
        "tasks": 3,
        "workers": 2,  # of the three CPUs one stays free
        "options": {"mem_per_cpu_gb": 0.25},
        "shard_tokens": 20_000,
        "portion_bytes": 20_000,
    }
    prepare_scaled([stories], "byte", out, deduplicate=True, **settings)
    try:
        prepare_scaled([bad], "byte", out + "-bad", **settings | {"portion_bytes": 64 << 20})
    except WorkerError as error:
        print(error)
finally:
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Ray has no clusters on Windows")
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray (the extra `cluster`) is not installed"
)
def test_a_ray_cluster_of_three_nodes(stories, bad, tmp_path):
    (tmp_path / "script.py").write_text(RAY)
    with tempfile.TemporaryDirectory(prefix="pr-") as short:  # Ray's sockets want a short path
        home = Path(short) / "home"
        home.mkdir()
        environment = {
            "HOME": str(home),
            "TMPDIR": short,
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        done = subprocess.run(
            [sys.executable, tmp_path / "script.py", stories, bad, tmp_path / "out"],
            env=os.environ | environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=240,
        )
        left = [path.name for path in home.iterdir()]
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"1 of 2 parts are missing .* out-bad\.logs/encode says why",
        done.stdout.replace(str(tmp_path) + "/", ""),
    )
    assert "line 41" in (tmp_path / "out-bad.logs/encode/logs/task_00001.log").read_text()
    assert left == []
    for name in ("out-bad.parts", "out-bad.logs"):
        shutil.rmtree(tmp_path / name)
    assert_as_here(tmp_path / "out", stories, deduplicate=True, **SETTINGS)


# The page


def test_the_local_example_of_the_page_runs_as_it_stands(stories, tmp_path):
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(examples) == 4
    (local,) = [text for text in examples if 'executor="local"' in text]
    for text in examples:
        compile(text, str(PAGE), "exec")
    shutil.copytree(stories, tmp_path / "corpus")
    (tmp_path / "local.py").write_text(textwrap.dedent(local))
    subprocess.run([sys.executable, "local.py"], cwd=tmp_path, check=True, timeout=60)
    assert_as_here(tmp_path / "prepared", tmp_path / "corpus", tokenizer="gpt2")
