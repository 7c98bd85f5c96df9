"""A data set of the hub over a network that fails: all of its documents come, or a clear error does."""

from __future__ import annotations

import io
import itertools
import multiprocessing
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

hub_library = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
pa = pytest.importorskip("pyarrow", reason="needs pyarrow")

import pyarrow.parquet as pq  # noqa: E402
from tests.integration.hub_server import KINDS, Faults, HubServer  # noqa: E402

from pellucid.data.sources import Reading, documents, remote  # noqa: E402
from pellucid.data.sources.base import Block  # noqa: E402
from pellucid.data.sources.base import Faults as DocumentFaults  # noqa: E402
from pellucid.data.sources.hub import HubSource  # noqa: E402
from pellucid.errors import DataError  # noqa: E402

NAME = "roneneldan/TinyStories"
SPEC = f"hub:{NAME}"
CARD = b"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
---
"""
ROWS, GROUP, NUM_FILES = 120, 30, 3


def _file(seed: int) -> bytes:
    """120 rows of 1,000 random characters in 4 row groups, beside a column that is not read."""
    draw = random.Random(seed)
    texts = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyzé \n", k=1000)) for _ in range(ROWS)]
    other = [draw.randbytes(500) for _ in range(ROWS)]
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "other": other}), sink, row_group_size=GROUP, compression="none")
    return sink.getvalue()


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {"README.md": CARD} | {
        f"data/train-{number}.parquet": _file(number) for number in range(NUM_FILES)
    }


@pytest.fixture(scope="module")
def expected(files) -> list[str]:
    tables = (pq.read_table(io.BytesIO(files[path]))["text"].to_pylist() for path in sorted(files)[1:])
    return [text for table in tables for text in table]


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    patience = remote.Patience(tries=5, first_wait_s=0.002, longest_wait_s=0.01, timeout_s=0.3)
    monkeypatch.setattr(remote, "PATIENCE", patience)
    yield
    remote._tail.cache_clear()
    hub_library.close_session()


@pytest.fixture
def serve(files, monkeypatch) -> Iterator[Any]:
    started: list[HubServer] = []

    def start(**settings: Any) -> HubServer:
        server = HubServer({NAME: files}, **settings)
        server.start()
        started.append(server)
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        return server

    yield start
    hub_library.close_session()
    for server in started:
        server.stop()


def texts(source: HubSource) -> list[str]:
    return [document.text for document in documents(source)]


def test_fifty_bad_networks_change_nothing(files, expected, monkeypatch):
    happened: Counter[str] = Counter()
    for seed in range(50):
        kinds = KINDS if seed % 5 == 0 else tuple(kind for kind in KINDS if kind != "stall")
        faults = Faults(seed, kinds=kinds, stall_s=0.6)
        with HubServer({NAME: files}, faults=faults, page_size=2) as server:
            monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
            source = HubSource(SPEC, Reading())
            if seed % 2:
                found = texts(source)
            else:
                portions = source.portions(50_000)
                assert len(portions) > NUM_FILES
                found = [
                    document.text
                    for portion in portions
                    for block in source.portion_blocks(portion)
                    for document in block.documents(DocumentFaults("strict"))
                ]
            record = source.record()
        happened += faults.happened
        assert found == expected, f"seed {seed}"
        assert [file.size_bytes for file in record.files] == [len(files[file.name]) for file in record.files]
    assert set(happened) == set(KINDS)
    assert happened.total() > 500


def test_three_requests_or_less_a_row_group(serve):
    server = serve()
    source = HubSource(SPEC, Reading())
    asked = server.count("cdn")
    assert asked == 0

    texts(source)

    ranges = [(request.path, request.range) for request in server.requests if "cdn" in request.path]
    groups = NUM_FILES * ROWS // GROUP
    assert len(ranges) <= groups + NUM_FILES  # a request a row group, and one for the footer of a file
    assert len(set(ranges)) == len(ranges)
    bounds = [byte_range.removeprefix("bytes=").split("-") for _, byte_range in ranges]
    fetched = sum(int(stop) - int(start) + 1 for start, stop in bounds)
    stored = sum(file.size_bytes for file in source.record().files)
    assert fetched < 0.9 * stored  # the column that is not read is a third, some of it beside the footer

    texts(source)
    assert server.count("cdn") == 2 * len(ranges) - NUM_FILES  # the footers are known


def test_a_long_footer_is_fetched_once(serve):
    server = serve()
    sink = io.BytesIO()
    table = pa.table({"text": ["x" * 100_000, "y" * 100_000]}).replace_schema_metadata(
        {"note": "z" * 300_000}
    )
    pq.write_table(table, sink, row_group_size=1, compression="none", use_dictionary=False)
    server.commit("o/n", {"train.parquet": sink.getvalue()})
    source = HubSource("hub:o/n", Reading())

    assert [len(text) for text in texts(source) + texts(source)] == [100_000] * 4

    ranges = [request.range for request in server.requests if "cdn" in request.path]
    counts = Counter(ranges)
    footer = [byte_range for byte_range in counts if int(byte_range[6:].split("-")[0]) > 200_000]
    assert len(footer) == 2  # what is usual, and what is missing
    assert {counts[byte_range] for byte_range in footer} == {1}


def test_no_network_at_all_is_said_soon(monkeypatch):
    with HubServer({}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.setattr(remote, "PATIENCE", remote.Patience())
    begun = time.monotonic()

    with pytest.raises(DataError) as caught:
        HubSource(SPEC, Reading())

    assert time.monotonic() - begun < 5
    address = server.endpoint.removeprefix("http://")
    assert str(caught.value).startswith(f"{SPEC}: no answer from {address} after 3 tries in ")
    assert "refused" in str(caught.value)
    assert "hf download" in str(caught.value)


def test_a_network_that_swallows_everything_is_said_too(serve):
    serve(faults=Faults(0, share=1, kinds=("stall",), most_stalls=99, most_in_a_row=99, stall_s=9))

    with pytest.raises(DataError, match=r"no answer from .* after 3 tries in .*ReadTimeout"):
        HubSource(SPEC, Reading())


def test_offline_mode_is_named(serve, monkeypatch):
    server = serve()
    monkeypatch.setattr(hub_library.constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(DataError, match=r"HF_HUB_OFFLINE is set.*hf download"):
        HubSource(SPEC, Reading())
    assert not server.requests


@pytest.mark.parametrize("how", ["refuses", "breaks"])
def test_gone_in_the_middle_and_back_again(serve, expected, how):
    server = serve()
    source = HubSource(SPEC, Reading())
    found: list[str] = []
    faults = DocumentFaults("strict")
    blocks = source.blocks()
    for _ in range(5):
        block = next(blocks)
        found += [document.text for document in block.documents(faults)]
    if how == "refuses":
        server.stop()
    else:
        server.gone_after = 0

    with pytest.raises(DataError) as caught:
        list(itertools.chain.from_iterable(following.documents(faults) for following in blocks))

    message = str(caught.value)
    assert message.startswith(f"{SPEC}@{source.commit[:8]}/data/train-1.parquet, bytes ")
    assert "after 5 tries" in message
    assert "Nothing that is finished is lost" in message
    if how == "refuses":
        server.start()
    else:
        server.gone_after = None
    again = HubSource(source.pinned, Reading())
    found += [text.text for rest in again.blocks(block.end) for text in rest.documents(faults)]
    assert found == expected


def test_retry_after_is_kept_to(serve, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    serve(faults=Faults(1, share=1, kinds=("status 429",), most_in_a_row=1, retry_after_s=7))

    HubSource(SPEC, Reading())

    assert set(waits) == {7.0}
    assert len(waits) == 3  # of the revision, the card and the list


def test_a_hub_that_wants_to_be_left_alone_for_long(serve):
    serve(faults=Faults(1, share=1, kinds=("status 429",), most_in_a_row=99, retry_after_s=3601))

    with pytest.raises(DataError, match=r"left alone for 3,601 s \(status 429\)"):
        HubSource(SPEC, Reading())


def test_waits_grow_and_differ():
    patience = remote.Patience(first_wait_s=1, longest_wait_s=30)

    waits = [patience.wait_s(faults) for faults in range(1, 9)]

    for wait, longest in zip(waits, (1, 2, 4, 8, 16, 30, 30, 30), strict=True):
        assert longest / 2 <= wait <= longest
    assert (
        len({wait / longest for wait, longest in zip(waits, (1, 2, 4, 8, 16, 30, 30, 30), strict=True)}) == 8
    )


def test_a_server_that_always_fails_is_given_up(serve):
    server = serve()
    source = HubSource(SPEC, Reading())
    before = len(server.requests)
    server.faults = Faults(0, share=1, kinds=("status 503",), most_in_a_row=99)

    with pytest.raises(
        DataError, match=r"bytes [\d,]+ to [\d,]+: cannot be read, after 5 tries .*status 503"
    ):
        texts(source)
    assert len(server.requests) - before == 5


def test_what_came_before_a_cut_is_kept(serve, files):
    server = serve()
    data = random.Random(0).randbytes(6_000_000)
    server.commit("o/n", {"train.parquet": data})
    server.faults = Faults(3, share=1, kinds=("cut",), most_in_a_row=99, only="cdn", cut_at=800_000)
    url = f"{server.endpoint}/datasets/o/n/resolve/main/train.parquet"
    file = remote.RemoteFile(url, "n", "w", len(data), "", remote.PATIENCE)

    assert file.read(10, 5_900_000) == data[10:5_900_000]

    starts = [int(request.range[6:].split("-")[0]) for request in server.requests if "cdn" in request.path]
    assert len(starts) == 8 > remote.PATIENCE.tries
    assert starts == sorted(set(starts))


def _read(block: Block, send: Any) -> None:
    send.send([document.text for document in block.documents(DocumentFaults("strict"))])


@pytest.mark.parametrize("method", ["fork", "spawn"] if sys.platform == "linux" else ["spawn"])
def test_another_process_reads_a_block(serve, expected, method):
    serve(faults=Faults(5, kinds=("cut", "no answer", "status 500")))
    source = HubSource(SPEC, Reading())
    blocks = list(source.blocks())
    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context(method).Process(target=_read, args=(blocks[4], send))

    process.start()
    send.close()
    found = receive.recv()
    receive.close()
    process.join()

    assert found == expected[ROWS : ROWS + GROUP]


def test_a_truncated_file_is_no_fault_of_the_network(serve, files):
    server = serve()
    server.commit(NAME, files | {"data/train-1.parquet": files["data/train-1.parquet"][:-200]})
    source = HubSource(SPEC, Reading())

    with pytest.raises(DataError, match=r"train-1\.parquet: broken or truncated Parquet"):
        texts(source)
    ranges = [(request.path, request.range) for request in server.requests if "cdn" in request.path]
    assert len(set(ranges)) == len(ranges)


def test_nothing_is_printed_or_fetched_besides(serve):
    server = serve(faults=Faults(2))
    code = (
        "from pellucid.data.sources import open_source, documents, remote\n"
        "remote.PATIENCE = remote.Patience(first_wait_s=0.002)\n"
        f"print(len([d for d in documents(open_source('{SPEC}'))]))"
    )

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=100, check=False
    )

    assert (done.stdout, done.returncode) == (f"{NUM_FILES * ROWS}\n", 0), done.stderr
    assert server.count("/api/") == server.count(f"/api/datasets/{NAME}")
    assert [line for line in done.stderr.splitlines() if "trying again" not in line] == []


def test_the_client_itself_reads_from_this_server(serve, files, tmp_path):
    """What is tested against is a hub, as far as the client can tell."""
    server = serve()
    file_system = hub_library.HfFileSystem(endpoint=server.endpoint, skip_instance_cache=True)
    path = f"datasets/{NAME}/data/train-0.parquet"

    assert file_system.glob(f"datasets/{NAME}/data/train-*")[0] == path
    assert file_system.info(path)["lfs"]["sha256"]
    with file_system.open(path, "rb", block_size=1 << 12) as file:
        file.seek(1000)
        assert file.read(500) == files["data/train-0.parquet"][1000:1500]
    fetched = hub_library.hf_hub_download(
        NAME, "README.md", repo_type="dataset", endpoint=server.endpoint, cache_dir=tmp_path
    )
    assert Path(fetched).read_bytes() == CARD
