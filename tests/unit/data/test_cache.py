import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from pellucid.config import from_tree
from pellucid.data.cache import prepare_cached
from pellucid.data.config import DataConfig
from pellucid.data.prepare import prepare
from pellucid.data.progress import Progress
from pellucid.data.shards import open_shards
from pellucid.data.sources import Reading, content, open_source
from pellucid.errors import ConfigError, DataError
from pellucid.runtime.files import cache_folder
from pellucid.tokenizers import ByteConfig, ByteTokenizer, CharConfig, GPT2Config

Jsonl = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PELLUCID_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_raw_text_is_prepared_into_the_cache_once(cache: Path, jsonl: Jsonl, stories: list[str]) -> None:
    path = str(jsonl(stories))
    out = prepare_cached(path, ByteConfig())
    assert out.parent == cache / "prepared"
    assert out.name.startswith("stories-byte-")
    before = (out / "manifest.json").stat().st_mtime_ns
    assert prepare_cached(path, ByteConfig()) == out
    assert (out / "manifest.json").stat().st_mtime_ns == before


def test_the_built_in_corpus_can_be_prepared_by_characters() -> None:
    shards = open_shards(prepare_cached("builtin:shakespeare", CharConfig()))
    assert shards.manifest.vocab_size == 64 + 1
    assert shards.manifest.train.documents == 1


def test_whatever_changes_the_shards_has_a_place_of_its_own(jsonl: Jsonl, stories: list[str]) -> None:
    path = jsonl(stories)
    places = {
        prepare_cached(str(path), ByteConfig()),
        prepare_cached(str(path), ByteConfig(special_tokens=("<|pad|>",))),
        prepare_cached(str(path), CharConfig()),
        prepare_cached(str(path), ByteConfig(), val_fraction=0.2),
        prepare_cached(str(path), ByteConfig(), deduplicate=True),
        prepare_cached(str(path), ByteConfig(), reading=Reading(errors="skip")),
        prepare_cached(str(jsonl(stories, field="story")), ByteConfig(), reading=Reading("story")),
    }
    assert len(places) == 7


def test_an_argument_goes_before_the_variable_and_the_variable_before_the_platform(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_folder(tmp_path / "named") == tmp_path / "named"
    assert cache_folder() == cache
    monkeypatch.delenv("PELLUCID_CACHE_DIR")
    assert cache_folder() == Path(platformdirs.user_cache_dir("pellucid", appauthor=False))


def test_a_damaged_entry_is_made_again(jsonl: Jsonl, stories: list[str]) -> None:
    path = str(jsonl(stories))
    out = prepare_cached(path, ByteConfig())
    whole = (out / "train-00000.bin").read_bytes()
    (out / "train-00000.bin").write_bytes(whole[:-1])
    assert prepare_cached(path, ByteConfig()) == out
    assert (out / "train-00000.bin").read_bytes() == whole


def test_an_unfinished_entry_is_gone_on_with(
    cache: Path,
    jsonl: Jsonl,
    stories: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(content, "BLOCK_BYTES", 200)
    path = str(jsonl(stories))

    def stop(progress: Progress) -> None:
        if progress.documents > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_cached(path, ByteConfig(), progress=stop)
    (entry,) = (cache / "prepared").glob("[!.]*")
    assert 0 < json.loads((entry / "unfinished.json").read_text())["source_bytes"] < Path(path).stat().st_size
    assert f"{entry}: stopped; the same call goes on from there" in caplog.text
    with caplog.at_level(logging.INFO, logger="pellucid"):
        assert prepare_cached(path, ByteConfig()) == entry
    assert f"{entry}: going on after " in caplog.text
    open_shards(entry).verify()
    assert [file.name for file in (cache / "prepared").iterdir()] == [entry.name]


def test_raw_text_needs_a_tokenizer(jsonl: Jsonl, stories: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"data\.tokenizer: .* is raw text, and a tokenizer is needed"):
        prepare_cached(str(jsonl(stories)))


def test_bad_input_leaves_the_cache_as_it_was(cache: Path, jsonl: Jsonl) -> None:
    path = jsonl(["one", "two"])
    path.write_text(path.read_text() + "{\n")
    with pytest.raises(DataError, match="line 3: not JSON"):
        prepare_cached(str(path), ByteConfig())
    assert list((cache / "prepared").iterdir()) == []


# A path that is already prepared


def test_a_prepared_directory_is_used_as_it_is(
    tmp_path: Path, cache: Path, jsonl: Jsonl, stories: list[str]
) -> None:
    out = tmp_path / "out"
    prepare(open_source(jsonl(stories)), ByteTokenizer(), out)
    assert prepare_cached(str(out), ByteConfig()) == out
    assert prepare_cached(str(out)) == out
    assert not cache.exists()


def test_a_prepared_directory_of_characters_fits_its_own_config(
    tmp_path: Path, jsonl: Jsonl, stories: list[str]
) -> None:
    config = CharConfig(special_tokens=("<|pad|>",))
    out = tmp_path / "out"
    prepare(open_source(jsonl(stories)), config.build(lambda: stories), out)
    assert prepare_cached(str(out), config) == out
    with pytest.raises(DataError, match="the config makes another of that kind"):
        prepare_cached(str(out), CharConfig())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            GPT2Config(),
            r"was prepared with tokenizer byte \(\w{12}\), the config names gpt2; set data.tokenizer",
        ),
        (
            ByteConfig(special_tokens=("<|pad|>",)),
            r"byte \(\w{12}\), the config makes another of that kind \(\w{12}\)",
        ),
    ],
)
def test_a_directory_prepared_with_another_tokenizer_is_refused(
    tmp_path: Path, jsonl: Jsonl, stories: list[str], config: Any, message: str
) -> None:
    out = tmp_path / "out"
    prepare(open_source(jsonl(stories)), ByteTokenizer(), out)
    with pytest.raises(DataError, match=message):
        prepare_cached(str(out), config)


# Pairs


def test_pairs_are_prepared_into_the_cache_and_wanted_of_a_prepared_directory(
    tmp_path: Path, jsonl: Jsonl, stories: list[str], pair_lines: Jsonl
) -> None:
    pairs = Reading(pair_fields=("source", "target"))
    path = pair_lines([("abc", f"xyz{n}") for n in range(9)])
    out = prepare_cached(str(path), CharConfig(), reading=pairs)
    assert open_shards(out).train.is_paired
    assert open_shards(out).manifest.vocab_size == len(set("abcxyz012345678")) + 1  # targets' characters too
    assert prepare_cached(str(out), reading=pairs) == out
    assert prepare_cached(str(out)) == out
    single = prepare_cached(str(jsonl(stories)), ByteConfig())
    with pytest.raises(
        DataError, match=f"^{single}: was prepared as single texts, and data.objective.kind 'paired'"
    ):
        prepare_cached(str(single), reading=pairs)


# Processes


def test_two_processes_that_prepare_the_same_text_both_end_well(cache: Path) -> None:
    code = (
        "import sys; from pellucid.data.cache import prepare_cached\n"
        "from pellucid.tokenizers import ByteConfig\n"
        "print('ready', flush=True); sys.stdin.read(1)\n"
        "print(prepare_cached('builtin:shakespeare', ByteConfig()), end='')"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("x")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    (entry,) = (cache / "prepared").iterdir()
    assert outputs[0][0] == str(entry)
    open_shards(entry).verify()


# The config


def test_the_config_has_documented_defaults_and_limits() -> None:
    config = DataConfig()
    assert config.path == "builtin:shakespeare"
    assert config.tokenizer == ByteConfig()
    assert all(field.description for field in DataConfig.model_fields.values())
    assert from_tree(DataConfig, {"tokenizer": "gpt2"}).tokenizer == GPT2Config()
    for key, value in {"val_fraction": 0, "shuffle_shards": 0, "tokens_per_epoch": 0}.items():
        with pytest.raises(ConfigError, match=f"^{key}: must be "):
            from_tree(DataConfig, {key: value})
    with pytest.raises(
        ConfigError, match=r"^tokenizer\.kind: there is no kind 'bite'; did you mean 'byte'\?"
    ):
        from_tree(DataConfig, {"tokenizer": "bite"})
