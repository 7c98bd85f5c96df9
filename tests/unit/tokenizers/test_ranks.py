import base64
import hashlib
import lzma
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from pellucid.errors import TokenizerError
from pellucid.tokenizers import Cl100kBaseConfig, O200kBaseConfig, ranks
from pellucid.tokenizers.ranks import RanksFile


def as_file(content: bytes, path: Path) -> RanksFile:
    path.write_bytes(content)
    return RanksFile(path.name, hashlib.sha256(content).hexdigest())


def test_gpt2_begins_with_the_bytes_in_its_own_order() -> None:
    first = list(ranks.gpt2_ranks(256))
    assert first[:3] == [b"!", b'"', b"#"]
    assert first[220] == b" "  # the id by which GPT-2's leading spaces are known
    assert sorted(first) == [bytes([byte]) for byte in range(256)]


def test_gpt2_has_a_rank_for_every_id_below_end_of_text() -> None:
    found = ranks.gpt2_ranks()
    assert list(found.values()) == list(range(50256))
    assert found[b" the"] == 262
    assert found[b" gazed"] == 50255


def test_fewer_ranks_are_the_first_ranks() -> None:
    assert list(ranks.gpt2_ranks(1000).items()) == list(ranks.gpt2_ranks().items())[:1000]


@pytest.mark.parametrize("limit", [255, 50257])
def test_a_number_of_ranks_that_cannot_be(limit: int) -> None:
    with pytest.raises(TokenizerError, match=f"256 to 50256 ranks, not {limit}"):
        ranks.gpt2_ranks(limit)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"not xz", "cannot be read"),
        (lzma.compress(b"#version: 0.2\n"), "are damaged"),
    ],
)
def test_a_broken_installation_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, message: str
) -> None:
    monkeypatch.setattr(resources, "files", lambda _package: tmp_path)
    (tmp_path / "vocabularies").mkdir()
    if content is not None:
        (tmp_path / "vocabularies" / "gpt2_vocab.bpe.xz").write_bytes(content)
    with pytest.raises(
        TokenizerError, match=rf"gpt2_vocab\.bpe\.xz: the merges shipped with Pellucid {message}"
    ):
        ranks.gpt2_ranks()


def test_p50k_adds_runs_of_spaces() -> None:
    added = dict(ranks.p50k_ranks().items() - ranks.gpt2_ranks().items())
    assert added == {b" " * (number - 50255): number for number in range(50257, 50281)}


def test_a_named_file_is_read(tmp_path: Path) -> None:
    content = b"".join(b"%s %d\n" % (base64.b64encode(bytes([b])), b + 3) for b in range(256))
    wanted = as_file(content, tmp_path / "own.tiktoken")
    found = ranks.read_ranks("cl100k_base", wanted, tmp_path / "own.tiktoken")
    assert found == {bytes([b]): b + 3 for b in range(256)}
    assert ranks.dump_ranks(found) == content


@pytest.mark.parametrize("variable", ["TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"])
def test_without_a_named_file_the_cache_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.setenv("DATA_GYM_CACHE_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv(variable, str(tmp_path))
    wanted = as_file(b"YQ== 0\n", tmp_path / "0123abcd")
    assert ranks.read_ranks("cl100k_base", wanted) == {b"a": 0}


def test_the_cache_is_in_the_temporary_directory_by_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert ranks.cached_file(ranks.CL100K_FILE) == tmp_path / "data-gym-cache" / ranks.CL100K_FILE.cache_name


@pytest.mark.parametrize("config", [Cl100kBaseConfig(), O200kBaseConfig()])
def test_missing_ranks_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Cl100kBaseConfig | O200kBaseConfig
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(TokenizerError) as caught:
        config.build()
    message = str(caught.value)
    assert message.startswith(f"{config.kind}: its ranks are not on this machine ({tmp_path}")
    assert "data.tokenizer.ranks_file=FILE" in message
    assert "set TIKTOKEN_CACHE_DIR" in message
    assert f"python -c \"import tiktoken; tiktoken.get_encoding('{config.kind}')\"" in message
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_is_switched_off_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    with pytest.raises(TokenizerError, match="TIKTOKEN_CACHE_DIR is empty"):
        Cl100kBaseConfig().build()


def test_a_named_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"nowhere\.tiktoken: No such file"):
        Cl100kBaseConfig(ranks_file=tmp_path / "nowhere.tiktoken").build()


def test_a_damaged_file_is_refused_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "x.tiktoken"
    file.write_bytes(b"YQ== 0\n")
    with pytest.raises(
        TokenizerError, match=r"x\.tiktoken: damaged, or not the ranks of cl100k_base: .*SHA-256"
    ):
        Cl100kBaseConfig(ranks_file=file).build()
    assert file.exists()


def test_one_vocabulary_is_not_taken_for_the_other(cache_with: Callable[[str], Path]) -> None:
    file = cache_with("cl100k_base") / ranks.CL100K_FILE.cache_name
    with pytest.raises(TokenizerError, match="not the ranks of o200k_base"):
        O200kBaseConfig(ranks_file=file).build()
