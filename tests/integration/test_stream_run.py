"""Training straight from a hub over a bad network: the run that the fully prepared data gives, killed or not."""

import io
import json
import random
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from rich.console import Console
from tests.integration.hub_server import Faults, HubServer

from pellucid.cli.options import run_config
from pellucid.data.cache import open_stream
from pellucid.data.sources import remote
from pellucid.train.run_files import read_facts

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("huggingface_hub")

STREAM = (
    "data.path=hub:someone/pages",
    "data.stream.enabled=true",
    "data.stream.shard_bytes=4000",
    "data.stream.cache_bytes=60000",
    "data.stream.val_documents=20",
    "data.shuffle_shards=2",
    "train.batch_tokens=512",
    "train.steps=200",
    "train.eval_every=50",
    "train.checkpoint_every=20",
)


@pytest.fixture(scope="module")
def pages() -> dict[str, bytes]:
    words, draw = [f"w{number}" for number in range(400)], random.Random(0)
    files: dict[str, bytes] = {}
    for number in range(3):
        texts = [" ".join(draw.choices(words, k=draw.randint(10, 80))) for _ in range(400)]
        sink = io.BytesIO()
        pq.write_table(pa.table({"text": texts}), sink, row_group_size=20)
        files[f"data/train-{number:05}-of-00003.parquet"] = sink.getvalue()
    return files


@pytest.fixture
def hub(pages, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(
        remote, "PATIENCE", remote.Patience(first_tries=8, first_wait_s=0.002, longest_wait_s=0.01)
    )
    remote._tail.cache_clear()
    with HubServer(
        {"someone/pages": pages}, faults=Faults(3, kinds=("cut", "status 503", "short"))
    ) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def losses(run: Path) -> list[tuple[int, float]]:
    return [
        (fact["step"], fact["loss"]) for fact in read_facts(run / "metrics.jsonl") if fact["event"] == "step"
    ]


def final_weights(run: Path) -> str:
    return sha256((run / "checkpoints/step-00000200/model.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def reference(hub, tiny, train_tiny, workdir, tmp_path):
    """The run on the same shards, all of them made first."""
    data = run_config([*tiny, *STREAM]).data
    everything = data.stream.model_copy(update={"cache_bytes": 10**9})
    stream = open_stream(data.path, data.tokenizer, everything, cache_dir=tmp_path / "full")
    stream.complete()
    stream.close()
    assert stream.bytes_here > 4 * data.stream.cache_bytes
    prepared = ("data.stream.enabled=false", f"data.path={stream.directory}", "run.dir=runs/prepared")
    return train_tiny(*STREAM, *prepared).directory


def test_a_streamed_run_is_the_run_on_prepared_data(hub, reference, train_tiny):
    said = io.StringIO()
    streamed = train_tiny(*STREAM, "run.dir=runs/streamed", console=Console(file=said, width=200)).directory
    assert re.search(r"stream: shard \d+ of \d+, [\d,]+ tokens in ", said.getvalue())
    assert losses(streamed) == losses(reference)
    assert final_weights(streamed) == final_weights(reference)
    assert hub.faults.happened.total() > 10

    config = (streamed / "config.toml").read_text()
    commit = json.loads((streamed / "data.json").read_text())["source"]["revision"]
    assert f'path = "hub:someone/pages@{commit}"' in config  # so that a resumed run reads the same bytes


@pytest.mark.slow
def test_a_streamed_run_that_is_killed_goes_on_with_the_same_batches(
    hub, reference, tiny, workdir, start, wait_until
):
    hub.faults = Faults(4, share=0.05, kinds=("cut",))  # other processes wait half a second after each
    killed = workdir / "runs/killed"

    def kill_after(step: int, process) -> None:
        def has_come() -> bool:
            return process.poll() is not None or any(at >= step for at, _ in losses(killed))

        wait_until(has_come)
        process.kill()
        process.wait()

    kill_after(47, start("train", *tiny, *STREAM, f"run.dir={killed}"))
    kill_after(113, start("train", "--resume", killed))
    process = start("train", "--resume", killed)
    _, messages = process.communicate()
    assert process.returncode == 0, messages
    assert losses(killed) == losses(reference)
    assert final_weights(killed) == final_weights(reference)
