"""Data sets by name: which files they are, at which commit, and how they are cut."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

hub_library = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
pa = pytest.importorskip("pyarrow", reason="needs pyarrow")

import pyarrow.parquet as pq  # noqa: E402
from tests.integration.hub_server import HubServer  # noqa: E402

from pellucid.data.sources import Reading, documents, open_source, remote  # noqa: E402
from pellucid.data.sources.base import Faults, Place  # noqa: E402
from pellucid.data.sources.hub import HubSource  # noqa: E402
from pellucid.errors import DataError, HubError  # noqa: E402

EDU = """---
license: odc-by
configs:
- config_name: default
  features:
  - name: text
    dtype: string
  data_files:
  - split: train
    path: data/*/*
- config_name: sample-10BT
  data_files:
  - split: train
    path: sample/10BT/*
- config_name: CC-MAIN-2013-20
  data_files:
  - split: train
    path: data/CC-MAIN-2013-20/*
---
# FineWeb-Edu
"""
STORIES = """---
license: cdla-sharing-1.0
dataset_info:
  features:
  - name: text
    dtype: string
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: validation
    path: data/validation-*
---
Short stories.
"""


def parquet(*texts: str, group: int = 2) -> bytes:
    """A file with the texts and a number in each row, in row groups of `group`."""
    sink = io.BytesIO()
    rows = {"text": list(texts), "id": list(range(len(texts)))}
    pq.write_table(pa.table(rows), sink, row_group_size=group)
    return sink.getvalue()


def files(*paths: str, card: str | None = None) -> dict[str, bytes]:
    """Each Parquet file holds its own path, and each other one a line."""
    made = {path: parquet(path) if path.endswith(".parquet") else b"{}\n" for path in paths}
    return made | ({"README.md": card.encode()} if card is not None else {})


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., HubServer]]:
    started: list[HubServer] = []
    monkeypatch.setattr(remote, "PATIENCE", remote.Patience(first_wait_s=0.001, timeout_s=5))

    def start(repositories: Mapping[str, Mapping[str, bytes]], **settings: Any) -> HubServer:
        server = HubServer(repositories, **settings)
        server.start()
        started.append(server)
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        return server

    yield start
    hub_library.close_session()
    for server in started:
        server.stop()


def paths(spec: str) -> list[str]:
    return [file.name for file in HubSource(spec, Reading()).record().files]


def texts(source: Any) -> list[str]:
    return [document.text for document in documents(source)]


EDU_FILES = files(
    "data/CC-MAIN-2013-20/train-00000-of-00002.parquet",
    "data/CC-MAIN-2013-20/train-00001-of-00002.parquet",
    "data/CC-MAIN-2024-10/train-00000-of-00001.parquet",
    "sample/10BT/000_00000.parquet",
    "sample/10BT/001_00000.parquet",
    "sample/100BT/000_00000.parquet",
    "classifier/config.json",
    card=EDU,
)
STORY_FILES = files(
    "data/train-00000-of-00002-2d5a1467fff1081b.parquet",
    "data/train-00001-of-00002-5852b56a2bd28fd9.parquet",
    "data/validation-00000-of-00001-869c898b519ad725.parquet",
    "TinyStories-train.txt",
    card=STORIES,
)


def test_config_of_fineweb_edu_is_its_sample(serve):
    serve({"HuggingFaceFW/fineweb-edu": EDU_FILES})

    assert paths("hub:HuggingFaceFW/fineweb-edu:sample-10BT") == [
        "sample/10BT/000_00000.parquet",
        "sample/10BT/001_00000.parquet",
    ]
    assert paths("hub:HuggingFaceFW/fineweb-edu") == sorted(p for p in EDU_FILES if p.startswith("data/"))


def test_train_split_of_tiny_stories(serve):
    serve({"roneneldan/TinyStories": STORY_FILES})

    source = open_source("hub:roneneldan/TinyStories")

    assert texts(source) == sorted(path for path in STORY_FILES if "/train-" in path)
    assert source.name == "roneneldan/TinyStories"
    assert not source.is_single_text


def test_only_folders_that_are_needed_are_listed(serve):
    server = serve({"HuggingFaceFW/fineweb-edu": EDU_FILES})

    HubSource("hub:HuggingFaceFW/fineweb-edu:sample-10BT", Reading())

    assert server.count("/tree/") == server.count("/tree/[0-9a-f]{40}/sample%2F10BT$") == 1
    assert server.count("agent") == 0


def test_a_long_list_comes_in_pages(serve):
    many = files(*(f"data/train-{number:05}.parquet" for number in range(12)), card=STORIES)
    server = serve({"o/n": many}, page_size=5)

    assert paths("hub:o/n") == sorted(set(many) - {"README.md"})
    assert server.count("/tree/") == 3


@pytest.mark.parametrize(
    ("data_files", "wanted"),
    [
        ("data_files: a.parquet", ["a.parquet"]),
        ("data_files: ['b/*.parquet', a.parquet]", ["b/1.parquet", "b/2.parquet", "a.parquet"]),
        ("data_files: {train: ['b/[2]*'], test: a.parquet}", ["b/2.parquet"]),
        (
            "data_files: [{split: train, path: [b/2.parquet, './b/1.parquet']}]",
            ["b/2.parquet", "b/1.parquet"],
        ),
        ("data_files: '**/deep.parquet'", ["c/d/deep.parquet"]),
        ("data_files: '*/*.parquet'", ["b/1.parquet", "b/2.parquet"]),
        ("data_files: '*.parquet'\n  data_dir: b", ["b/1.parquet", "b/2.parquet"]),
        ("data_dir: b", ["b/1.parquet", "b/2.parquet"]),
    ],
)
def test_data_files_are_read_as_the_datasets_library_reads_them(serve, data_files, wanted):
    card = f"---\nconfigs:\n- config_name: one\n  {data_files}\n---\n"
    serve({"o/n": files("a.parquet", "b/1.parquet", "b/2.parquet", "c/d/deep.parquet", card=card)})

    assert paths("hub:o/n:one") == paths("hub:o/n") == wanted


def test_config_that_is_marked_as_default(serve):
    first, second = (
        "config_name: x, data_files: a.parquet",
        "config_name: y, default: true, data_files: b.parquet",
    )
    card = f"---\nconfigs:\n- {{{first}}}\n- {{{second}}}\n---"
    serve({"o/n": files("a.parquet", "b.parquet", card=card)})

    assert paths("hub:o/n") == ["b.parquet"]
    assert paths("hub:o/n:x") == ["a.parquet"]


@pytest.mark.parametrize(
    ("spec", "listed", "wanted"),
    [
        ("hub:o/n", ["data/train-0.parquet", "data/test-0.parquet", "x.parquet"], ["data/train-0.parquet"]),
        ("hub:o/n", ["a.parquet", "b.parquet", "c/d.parquet"], ["a.parquet", "b.parquet"]),
        ("hub:o/n", ["a_train.parquet", "b.parquet"], ["a_train.parquet"]),
        ("hub:o/n", ["constraint.parquet", "valid.parquet"], ["constraint.parquet"]),
        ("hub:o/n", ["train/0.parquet", "test/0.parquet"], ["train/0.parquet"]),
        ("hub:o/n", ["default/train/0000.parquet", "x/train/0000.parquet"], ["default/train/0000.parquet"]),
        (
            "hub:o/n:x",
            ["y/train/0000.parquet", "x/partial-train/0000.parquet"],
            ["x/partial-train/0000.parquet"],
        ),
        ("hub:o/n:x", ["data/x/train-0.parquet", "data/x/test-0.parquet"], ["data/x/train-0.parquet"]),
    ],
)
@pytest.mark.parametrize("card", [None, "no front matter", "---\nlicense: mit\n---\n"])
def test_without_configs_in_the_card_names_decide(serve, spec, listed, wanted, card):
    serve({"o/n": files(*listed, card=card)})

    assert paths(spec) == wanted


def test_the_branch_with_parquet(serve):
    serve({"o/n": files("train.csv"), "o/n@refs/convert/parquet": files("default/train/0000.parquet")})

    with pytest.raises(DataError, match=r"found: 1 \.csv.*hub:o/n:default@refs/convert/parquet"):
        HubSource("hub:o/n", Reading())
    assert paths("hub:o/n:default@refs/convert/parquet") == ["default/train/0000.parquet"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hub:", "wanted hub:OWNER/NAME"),
        ("hub:a/b/c", "wanted hub:OWNER/NAME"),
        (
            "hub:HuggingFaceFW/fineweb-edu:sample-10TB",
            "no config 'sample-10TB'; did you mean 'sample-10BT'.*default",
        ),
        ("hub:HuggingFaceFW/fineweb-edu@no-such", r"no such revision \(status 404\)"),
        (
            "hub:HuggingFaceFW/fineweb",
            r"knows no such data set \(status 401\).*is the name right.*hf auth login",
        ),
        ("hub:several/configs", r"several configs: name one.*\(x, y\)"),
        ("hub:several/folders", r"several folders.*\(x, y\)"),
        ("hub:several/folders:z", r"no config 'z' \(folders with \.parquet files: x, y\)"),
        ("hub:only/test", r"no split 'train' \(splits: test\)"),
        ("hub:other/place", "lie elsewhere"),
        ("hub:no/match", r"no file matches.*\(nowhere/\*\)"),
        ("hub:broken/card", "data set card cannot be read"),
        ("hub:no/parquet", r"no Parquet files \(found: 2 \.jsonl, 1 \.md\)"),
        ("hub:gated/set", r"gated \(status 403\).*hf auth login"),
        ("hub:forbidden/set", r"refuses it \(status 403\).*hf auth login"),
    ],
)
def test_what_cannot_be_read_is_said_at_once(serve, spec, message):
    def card(configs: str) -> dict[str, bytes]:
        return files("x.parquet", card=f"---\nconfigs: {configs}\n---\n")

    server = serve(
        {
            "HuggingFaceFW/fineweb-edu": EDU_FILES,
            "several/configs": card("[{config_name: x, data_dir: a}, {config_name: y, data_dir: b}]"),
            "several/folders": files("x/0.parquet", "y/0.parquet"),
            "only/test": card("[{data_files: [{split: test, path: x.parquet}]}]"),
            "other/place": card("[{data_files: 'hf://datasets/a/b/c.parquet'}]"),
            "no/match": card("[{data_files: 'nowhere/*'}]"),
            "broken/card": card("[{data_files: [{split: train}]}]"),
            "no/parquet": files("a.jsonl", "b.jsonl", "c.md"),
            "gated/set": files("x.parquet"),
            "forbidden/set": files("x.parquet"),
        },
        refused={"gated/set": "gated", "forbidden/set": "forbidden"},
    )

    with pytest.raises(DataError, match=f"^{re.escape(spec)}: .*{message}"):
        HubSource(spec, Reading())
    asked = [request.path for request in server.requests]
    assert len(asked) == len(set(asked))


def test_column_that_is_not_there(serve):
    serve({"o/n": files("x.parquet")})

    with pytest.raises(
        DataError, match=r"hub:o/n@[0-9a-f]{8}/x\.parquet: there is no field 'body'.*text, id"
    ):
        texts(HubSource("hub:o/n", Reading(text_field="body")))


def test_a_pinned_name_reads_the_same_bytes_for_ever(serve):
    server = serve({"o/n": {"train.parquet": parquet("before")}})
    source = HubSource("hub:o/n", Reading())
    server.commit("o/n", {"train.parquet": parquet("after")})

    again = HubSource(source.pinned, Reading())

    assert source.pinned == f"hub:o/n@{source.commit}" == again.pinned
    assert texts(source) == texts(again) == ["before"]
    assert texts(HubSource("hub:o/n", Reading())) == ["after"]
    assert again.record() == source.record()


def test_record_is_of_the_listing_alone(serve):
    server = serve({"o/n": STORY_FILES})
    source = HubSource("hub:o/n", Reading())
    asked = len(server.requests)

    record = source.record()

    assert len(server.requests) == asked
    assert (record.revision, record.text_field, record.errors) == (source.commit, "text", "strict")
    for file in record.files:
        data = STORY_FILES[file.name]
        assert (file.size_bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert source.size_bytes == sum(file.size_bytes for file in record.files)


def test_a_file_without_a_sha256_has_its_blob_id(serve, monkeypatch):
    from tests.integration import hub_server

    with_lfs = hub_server._entry
    monkeypatch.setattr(
        hub_server, "_entry", lambda path, data: {k: v for k, v in with_lfs(path, data).items() if k != "lfs"}
    )
    data = parquet("x")
    serve({"o/n": {"train.parquet": data}})

    (file,) = HubSource("hub:o/n", Reading()).record().files

    assert file.sha256 == "git:" + hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.fixture
def numbered(serve) -> HubSource:
    """Three files of 7 row groups, 20 rows."""
    card = STORIES
    made = {
        f"data/train-{file}.parquet": parquet(*(f"{file}.{row}" for row in range(20)), group=3)
        for file in range(3)
    }
    serve({"o/n": {"README.md": card.encode(), **made}})
    return HubSource("hub:o/n", Reading())


@pytest.mark.parametrize("parts", [1, 2, 7, 30])
def test_portions_hold_what_blocks_hold(numbered, parts):
    size = numbered.record().files[0].size_bytes

    portions = numbered.portions(-(-size // parts))

    assert len(portions) >= 3 * (parts if parts <= 7 else 20)
    found = [
        document
        for portion in portions
        for block in numbered.portion_blocks(portion)
        for document in block.documents(Faults("strict"))
    ]
    assert found == list(documents(numbered))
    assert [document.text for document in found] == [
        f"{file}.{row}" for file in range(3) for row in range(20)
    ]


def test_reading_goes_on_at_any_block(numbered):
    blocks = list(numbered.blocks())
    every = [document.text for block in blocks for document in block.documents(Faults("strict"))]
    done = 0
    for block in blocks:
        assert [d.text for b in numbered.blocks(block.begin) for d in b.documents(Faults("strict"))] == every[
            done:
        ]
        done += len(list(block.documents(Faults("strict"))))
    assert blocks[-1].end == Place(3, 0)


def test_a_block_is_read_wherever_it_is_sent(numbered):
    for block in numbered.blocks():
        sent = pickle.loads(pickle.dumps(block))
        assert list(sent.documents(Faults("strict"))) == list(block.documents(Faults("strict")))
        assert len(pickle.dumps(block)) < 4000


def test_pairs_from_two_columns(serve):
    sink = io.BytesIO()
    pq.write_table(pa.table({"en": ["one"], "de": ["eins"]}), sink)
    serve({"o/n": {"train.parquet": sink.getvalue()}})

    (document,) = documents(HubSource("hub:o/n", Reading(pair_fields=("en", "de"))))

    assert document.texts == ("one", "eins")


def test_token_goes_to_the_hub(serve, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server = serve({"o/n": files("train.parquet")})

    texts(HubSource("hub:o/n", Reading()))

    assert {request.token for request in server.requests} == {"Bearer hf_secret"}


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)

    with pytest.raises(Exception, match=r"huggingface_hub.*pip install 'pellucid\[data\]'"):
        HubSource("hub:o/n", Reading())


def test_address_that_is_none(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "localhost:80")

    with pytest.raises(HubError, match="HF_ENDPOINT: an address"):
        HubSource("hub:o/n", Reading())
