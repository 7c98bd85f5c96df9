"""Models of a hub: what is fetched of a repository, what is pushed to one, and what is said when neither can be."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

library = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")

from tests.integration.model_hub import TOKEN, ModelHub, Repository  # noqa: E402

from pellucid.errors import CheckpointError, HubError  # noqa: E402
from pellucid.interop import hub  # noqa: E402
from pellucid.interop.huggingface import read_hf, write_hf  # noqa: E402
from pellucid.interop.receipt import FILE, Finding, Receipt  # noqa: E402
from pellucid.model import DecoderConfig  # noqa: E402
from pellucid.tokenizers import build  # noqa: E402

# The client's own way to upload without hf-xet, which wants a server of another kind.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

CARD = '---\ntags: [pellucid]\n---\n# mine\nmodel = AutoModelForCausalLM.from_pretrained("mine")\n'
PASSED = Receipt("another program", (Finding("logits", "the same", passed=True),))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as an export leaves it, with the weights in one file."""
    return export(tmp_path_factory.mktemp("exported") / "mine")


def export(directory: Path, *, seed: int = 1, shard_bytes: int = 1 << 30) -> Path:
    tokenizer = build({"kind": "gpt2", "max_ranks": 300})
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size, d_model=16, num_heads=2, num_layers=2, max_seq_len=16
    )
    directory.mkdir(parents=True)
    write_hf(directory, config.build(seed=seed), tokenizer, shard_bytes=shard_bytes)
    PASSED.of(directory).write(directory / FILE)
    (directory / "README.md").write_text(CARD, encoding="utf-8")
    return directory


@pytest.fixture
def mine(exported: Path, tmp_path: Path) -> Path:
    """A copy of it of one's own."""
    return Path(shutil.copytree(exported, tmp_path / "mine"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModelHub]:
    """An empty hub, to which one is logged in."""
    with ModelHub() as running:
        running.log_in(monkeypatch, tmp_path)
        yield running


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def said(error: pytest.ExceptionInfo[Exception]) -> str:
    """The one line of an error, without a token in it."""
    assert TOKEN not in str(error.value)
    (line,) = str(error.value).splitlines()
    return line


# Pulling ----------------------------------------------------------------------------------------------


def test_what_was_pushed_comes_back_to_the_bit(server: ModelHub, mine: Path):
    hub.push(mine, "me/mine")
    before, after = read_hf(mine), read_hf(hub.pull("me/mine"))
    assert before.config == after.config
    assert before.weights.keys() == after.weights.keys()
    assert all(torch.equal(tensor, after.weights[name]) for name, tensor in before.weights.items())
    assert before.tokenizer.fingerprint == after.tokenizer.fingerprint


def test_weights_in_several_files_come_back_to_the_bit(server: ModelHub, tmp_path: Path):
    directory = export(tmp_path / "many", shard_bytes=8000)
    assert len(list(directory.glob("model-*.safetensors"))) > 2
    hub.push(directory, "me/many")
    before, after = read_hf(directory), read_hf(hub.pull("me/many"))
    assert all(torch.equal(tensor, after.weights[name]) for name, tensor in before.weights.items())


def test_nothing_is_fetched_that_import_does_not_read(server: ModelHub, mine: Path):
    others = (
        "consolidated.safetensors",
        "pytorch_model.bin",
        "model.gguf",
        "original/model.safetensors",
        "code.py",
    )
    server.add("me/mine", contents(mine) | dict.fromkeys(others, b"x"))
    directory = hub.pull("me/mine")
    read = {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    }
    assert server.fetched() == read
    assert {path.name for path in directory.iterdir()} == read


def test_a_revision_is_fetched_and_names_the_directory(server: ModelHub, mine: Path):
    repository = server.add("me/mine", contents(mine))
    old = repository.head
    repository.files["config.json"] = b"{}"
    assert repository.head != old
    assert hub.pull("me/mine", old).name == old
    assert (hub.pull("me/mine", old) / "config.json").read_bytes() == (mine / "config.json").read_bytes()


@pytest.mark.parametrize(
    ("source", "asked"), [("me/mine", "me/mine None"), ("me/mine@v1", "me/mine v1"), ("me/a@b/c", "me/a b/c")]
)
def test_a_name_that_is_no_path_is_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, workdir: Path, source: str, asked: str
):
    monkeypatch.setattr(hub, "pull", lambda name, revision: f"{name} {revision}")
    assert hub.locate(source) == asked


@pytest.mark.parametrize(
    "source", ["here/mine", "/abs/mine", "./mine", "mine", "a/b/c", "gone/model.gguf", "a/.."]
)
def test_a_path_is_a_path(monkeypatch: pytest.MonkeyPatch, workdir: Path, source: str):
    (workdir / "here/mine").mkdir(parents=True)
    monkeypatch.setattr(hub, "pull", lambda *_: pytest.fail("the hub was asked"))
    assert hub.locate(source) == Path(source)


def test_pickles_are_refused_and_not_fetched(server: ModelHub, mine: Path):
    files = contents(mine)
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    server.add("me/old", files)
    with pytest.raises(CheckpointError, match=r"me/old: pytorch_model.bin: is a pickle.*save_pretrained"):
        hub.pull("me/old")
    assert server.fetched() == {"config.json"}


def test_an_unknown_architecture_is_refused_before_its_weights_are_fetched(server: ModelHub, mine: Path):
    server.add("me/new", contents(mine) | {"config.json": b'{"model_type": "mamba"}'})
    with pytest.raises(CheckpointError, match="'mamba' is no family that can be read here"):
        hub.pull("me/new")
    assert server.fetched() == {"config.json"}


@pytest.mark.parametrize(
    "name", ["../../x.safetensors", "/etc/x.safetensors", "a\\x.safetensors", "C:x.safetensors"]
)
def test_an_index_that_names_a_path_fetches_nothing(server: ModelHub, mine: Path, name: str):
    files = contents(mine)
    files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": name}}).encode()
    del files["model.safetensors"]
    server.add("me/evil", files)
    with pytest.raises(CheckpointError, match="names the file"):
        hub.pull("me/evil")
    assert server.fetched() == {"config.json", "model.safetensors.index.json"}


def test_a_file_that_the_index_names_and_the_repository_lacks(server: ModelHub, tmp_path: Path):
    files = contents(export(tmp_path / "many", shard_bytes=8000))
    gone = next(name for name in files if name.startswith("model-00002"))
    del files[gone]
    server.add("me/torn", files)
    with pytest.raises(CheckpointError, match=f"names {gone}, and there is no such file"):
        hub.pull("me/torn")


def test_a_repository_without_a_config(server: ModelHub):
    server.add("me/empty", {"README.md": b""})
    with pytest.raises(CheckpointError, match=r"me/empty: no config.json in it"):
        hub.pull("me/empty")
    server.add("me/packed", {"small.q8.gguf": b""})
    with pytest.raises(CheckpointError, match=r"`hf download me/packed small.q8.gguf"):
        hub.pull("me/packed")


@pytest.mark.parametrize(
    ("name", "repository", "words"),
    [
        (
            "me/gone",
            None,
            "me/gone: the hub knows no such repository (status 401): is the name right? If it is private",
        ),
        (
            "me/closed",
            Repository({}, gated=True),
            "me/closed: the repository is gated (status 403): ask for access",
        ),
        ("me/..", None, "me/..: no name of a repository; OWNER/NAME is wanted"),
    ],
)
def test_a_repository_that_cannot_be_read(
    server: ModelHub, name: str, repository: Repository | None, words: str
):
    if repository is not None:
        server.add(name, repository)
    with pytest.raises(HubError) as error:
        hub.pull(name)
    assert said(error).startswith(words)


def test_a_revision_that_is_not_there(server: ModelHub, mine: Path):
    server.add("me/mine", contents(mine))
    with pytest.raises(HubError) as error:
        hub.pull("me/mine", "v9")
    assert said(error).startswith(
        "me/mine@v9: the repository has no such revision (status 404): name a branch"
    )


def test_a_private_repository_is_read_with_the_token_and_unknown_without(
    server: ModelHub, mine: Path, monkeypatch: pytest.MonkeyPatch
):
    server.add("me/mine", Repository(contents(mine), private=True))
    assert hub.pull("me/mine").is_dir()
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="If it is private, log in with `hf auth login`, or set HF_TOKEN"):
        hub.pull("me/mine")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((503, b"down"), "the hub cannot answer now (status 503"),
        ((200, b"<html>Welcome to the hotel</html>"), "that cannot be read"),
        ((200, b"{}"), "that cannot be read"),
        ((200, b"[]"), "that cannot be read"),
    ],
)
def test_a_hub_that_answers_nonsense(server: ModelHub, answer: tuple[int, bytes], words: str):
    server.answer_with = answer
    with pytest.raises(HubError) as error:
        hub.pull("me/mine")
    assert words in said(error)


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a hub that has gone."""
    with ModelHub() as gone:
        address = gone.endpoint
    monkeypatch.setenv("HF_ENDPOINT", address)
    return address


def test_no_network(server: ModelHub, nobody: str):
    with pytest.raises(HubError) as error:
        hub.pull("me/mine")
    assert said(error).startswith(f"me/mine: no answer from {nobody.removeprefix('http://')} (ConnectError: ")


def test_without_a_network_the_cache_serves_and_says_so(
    server: ModelHub, mine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    server.add("me/mine", contents(mine))
    directory = hub.pull("me/mine")
    monkeypatch.setattr(library.constants, "HF_HUB_OFFLINE", True)
    with caplog.at_level(logging.WARNING):
        assert hub.pull("me/mine") == directory
    assert f"me/mine: no hub answers; taken from the cache: commit {directory.name}" in caplog.text
    with pytest.raises(HubError, match="me/other: the hub is not asked, since HF_HUB_OFFLINE is set"):
        hub.pull("me/other")


@pytest.mark.parametrize("address", ["huggingface.co", "ftp://x", "https://", "http://[::1"])
def test_an_address_that_is_none(server: ModelHub, monkeypatch: pytest.MonkeyPatch, address: str):
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(HubError, match="HF_ENDPOINT: an address such as https://HOST is wanted"):
        hub.pull("me/mine")


def test_a_password_in_the_address_is_not_shown(
    server: ModelHub, nobody: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_ENDPOINT", nobody.replace("//", "//user:secret@"))
    with pytest.raises(HubError) as error:
        hub.pull("me/mine")
    assert "secret" not in said(error)


@pytest.mark.parametrize("token", ["hf_sec\x00ret", "hf_secret…"])
def test_a_broken_token_is_not_shown(
    server: ModelHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, token: str
):
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "token").write_text(token, encoding="utf-8")
    with pytest.raises(HubError, match="look whether HF_TOKEN and HF_ENDPOINT have characters") as error:
        hub.pull("me/mine")
    assert "hf_sec" not in said(error)


# Pushing ----------------------------------------------------------------------------------------------


def test_a_push_is_one_commit_of_the_files_of_the_model(server: ModelHub, mine: Path):
    for name in (".env", "notes.txt", "run.py", "optimizer.pt"):
        (mine / name).write_text("mine alone", encoding="utf-8")
    (mine / "checkpoints").mkdir()
    address = hub.push(mine, "me/mine")
    pushed = server.repositories["me/mine"]
    assert address == f"{server.endpoint}/me/mine/commit/{pushed.head}"
    assert not pushed.private
    assert set(pushed.files) == {
        *("README.md", "config.json", "generation_config.json", "parity.json", "tokenizer.json"),
        *("tokenizer_config.json", "model.safetensors", ".gitattributes"),
    }
    assert pushed.files.pop("README.md").decode() == CARD.replace('("mine")', '("me/mine")')
    assert all((mine / name).read_bytes() == data for name, data in pushed.files.items() if name[0] != ".")
    assert sum(request.endswith("/commit/main") for request in server.requests) == 1


def test_old_weights_leave_with_the_commit_that_replaces_them(server: ModelHub, mine: Path, tmp_path: Path):
    hub.push(export(tmp_path / "many", seed=2, shard_bytes=8000), "me/mine")
    server.repositories["me/mine"].files |= {"notes.md": b"stays", "special_tokens_map.json": b"{}"}
    hub.push(mine, "me/mine")
    left = {name for name in server.repositories["me/mine"].files if "safetensors" in name}
    assert left == {"model.safetensors"}
    assert "special_tokens_map.json" not in server.repositories["me/mine"].files
    assert server.repositories["me/mine"].files["notes.md"] == b"stays"


def test_a_private_push(server: ModelHub, mine: Path):
    hub.push(mine, "me/secret", private=True)
    assert server.repositories["me/secret"].private


def test_what_was_to_be_private_is_not_pushed_where_everybody_reads(server: ModelHub, mine: Path):
    server.add("me/open", {"README.md": b""})
    with pytest.raises(HubError, match="me/open: is public already"):
        hub.push(mine, "me/open", private=True)
    assert server.repositories["me/open"].files == {"README.md": b""}


def test_a_push_over_somebody_elses_is_refused(server: ModelHub, mine: Path):
    files = server.add("me/mine", {"README.md": b"old"}).files
    server.before_commit = lambda: files.update({"README.md": b"theirs"})
    with pytest.raises(HubError) as error:
        hub.push(mine, "me/mine")
    assert said(error).startswith("me/mine: somebody else has changed the repository meanwhile (status 412")
    assert server.repositories["me/mine"].files == {"README.md": b"theirs"}


@pytest.mark.parametrize("private", [False, True])
def test_a_push_to_others_is_refused_with_the_hubs_words(server: ModelHub, mine: Path, private: bool):
    with pytest.raises(HubError) as error:
        hub.push(mine, "others/mine", private=private)
    assert "the hub refuses it (status 403" in said(error)
    assert "namespace" in said(error)
    assert "with a token that may do this" in said(error)


def test_weights_that_are_not_taken_leave_the_repository_as_it_was(server: ModelHub, mine: Path):
    server.add("me/mine", {"README.md": b"old"})
    server.stores = False
    with pytest.raises(HubError) as error:
        hub.push(mine, "me/mine")
    assert said(error).startswith("me/mine: the hub refuses it (status 403: Your storage is full.)")
    assert server.repositories["me/mine"].files == {"README.md": b"old"}


def test_a_push_with_a_token_that_is_not_known(server: ModelHub, mine: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_somebody")
    with pytest.raises(HubError) as error:
        hub.push(mine, "me/mine")
    assert "log in with `hf auth login`" in said(error)
    assert "hf_somebody" not in str(error.value)
    assert server.repositories == {}


def test_a_push_without_a_token_asks_nothing(server: ModelHub, mine: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(
        HubError, match="me/mine: no token to push with; log in with `hf auth login`, or set HF_TOKEN"
    ):
        hub.push(mine, "me/mine")
    assert server.requests == []


def test_a_push_without_a_network(server: ModelHub, mine: Path, nobody: str):
    with pytest.raises(HubError, match="me/mine: no answer from"):
        hub.push(mine, "me/mine")


FAILED = Receipt("another program", (Finding("logits", "others", passed=False),))
UNCOMPARED = Receipt("transformers", not_compared="transformers is not installed here")


@pytest.mark.parametrize(
    ("receipt", "words"),
    [
        (None, "there is no parity.json in it"),
        (json.dumps(FAILED.to_dict()), "its parity.json has not passed"),
        (json.dumps(UNCOMPARED.to_dict()), "not compared (transformers is not installed here)"),
        ("[]", "its parity.json cannot be read"),
        ("{", "its parity.json cannot be read"),
        ('{"passed": true}', "its parity.json cannot be read"),
    ],
)
def test_what_is_not_proved_is_pushed_on_demand_only(
    server: ModelHub, mine: Path, receipt: str | None, words: str
):
    (mine / FILE).unlink()
    if receipt is not None:
        (mine / FILE).write_text(receipt)
    with pytest.raises(CheckpointError) as error:
        hub.push(mine, "me/mine")
    assert words in said(error)
    assert "--unproven" in said(error)
    assert server.requests == []
    hub.push(mine, "me/mine", unproven=True)
    assert "model.safetensors" in server.repositories["me/mine"].files


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_what_was_changed_since_it_was_proved_is_not_pushed(server: ModelHub, mine: Path, name: str):
    (mine / "notes.json").write_text("not of the model")
    hub.files_to_push(mine)
    (mine / name).write_bytes((mine / name).read_bytes() + b" ")
    with pytest.raises(CheckpointError, match=rf"parity\.json is of another {name}; .*--unproven"):
        hub.push(mine, "me/mine")
    assert server.requests == []


def test_a_directory_that_is_not_whole_is_not_pushed(server: ModelHub, mine: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match="no such directory"):
        hub.push(tmp_path / "gone", "me/mine")
    (mine / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="there are no weights in it"):
        hub.push(mine, "me/mine")
    (mine / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config.json in it"):
        hub.push(mine, "me/mine")
    torn = export(tmp_path / "torn", shard_bytes=8000)
    next(torn.glob("model-00002*")).unlink()
    with pytest.raises(CheckpointError, match="names model-00002"):
        hub.push(torn, "me/mine")
    assert server.requests == []
