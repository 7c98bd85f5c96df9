"""`pellucid tokenizer train` and `inspect`."""

import json
import shlex

import pytest

from pellucid.report.tokens import MOST_SHOWN
from pellucid.tokenizers import build, load


@pytest.fixture
def trained(cli, corpus, workdir):
    assert cli("tokenizer", "train", corpus, "--vocab-size", 300, "--out", "mine").status == 0
    return workdir / "mine"


def test_from_text_to_a_trained_model_by_the_commands_it_names(cli, tiny, corpus, workdir):
    outcome = cli("tokenizer", "train", corpus, "--vocab-size", 300, "--out", "mine")
    assert (outcome.status, outcome.out) == (0, "")
    assert "mine: 300 tokens, learned in " in outcome.err
    assert "1 texts, 0.0 million characters: learning the merges" in outcome.err
    assert sorted(path.name for path in (workdir / "mine").iterdir()) == ["pellucid.json", "tokenizer.json"]
    last = outcome.err.splitlines()[-1]
    assert last == f"next: pellucid prepare {corpus} --out mine-shards --tokenizer mine"
    prepared = cli(*shlex.split(last)[2:])
    assert prepared.status == 0, prepared.err
    next_words = shlex.split(prepared.err.splitlines()[-1])
    assert next_words[:4] == ["next:", "pellucid", "train", "quick"]
    for tokenizer in (next_words[5:], ["data.tokenizer=mine"], ["data.tokenizer=mine/tokenizer.json"]):
        run = cli("train", *tiny, "data.path=mine-shards", *tokenizer, "--json")
        assert run.status == 0, run.err
    (workdir / "mine" / "tokenizer.json").unlink()  # the run and the shards have their own
    assert cli("generate", "--prompt", "To be", "--max-new-tokens", 3).status == 0


def test_json_says_where_it_is(cli, corpus, workdir):
    words = ["--special-token", "<pad>", "--special-token", "<mask>", "--pattern", "qwen2", "--json"]
    result = cli("tokenizer", "train", corpus, "--vocab-size", 300, "--out", "mine", *words).json
    tokenizer = load(workdir / "mine")
    assert result == {
        "directory": "mine",
        "vocab_size": 300,
        "wanted": 300,
        "fingerprint": tokenizer.fingerprint,
    }
    assert dict(tokenizer.special_tokens) == {"<|endoftext|>": 297, "<pad>": 298, "<mask>": 299}
    assert build("mine").fingerprint == tokenizer.fingerprint


def test_training_again_gives_the_same_files(cli, corpus, trained):
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    cli("tokenizer", "train", corpus, "--vocab-size", 300, "--out", "mine")
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


def test_fields_of_records(cli, workdir):
    lines = [json.dumps({"story": "zebra zebra", "other": "quagga quagga"})] * 9
    (workdir / "a.jsonl").write_text("\n".join(lines))
    outcome = cli(
        "tokenizer", "train", "a.jsonl", "--text-field", "story", "--vocab-size", 262, "--out", "mine"
    )
    assert "next: pellucid prepare a.jsonl --text-field story --out" in outcome.err
    assert [len(build("mine").encode(word)) for word in ("zebra", "quagga")] == [1, 6]


def test_reading_takes_the_options_of_prepare_and_hands_them_on(cli, workdir):
    lines = [json.dumps({"text": "zebra zebra"})] * 9
    options = ["--vocab-size", 262, "--out", "mine"]
    outcome = cli("tokenizer", "train", "-", "--format", "jsonl", *options, stdin="\n".join(lines))
    assert outcome.status == 0, outcome.err
    assert outcome.err.splitlines()[-1] == (
        "next: pellucid prepare FILE --format jsonl --out mine-shards --tokenizer mine"
    )
    assert "9 texts, " in outcome.err
    assert len(build("mine").encode("zebra")) == 1
    (workdir / "a.txt").write_bytes(b"zebra|" * 9 + b"qu\xffagga")
    assert "--errors replace" in cli("tokenizer", "train", "a.txt", *options).error
    marked = ["--document-marker", "|", "--errors", "skip"]
    outcome = cli("tokenizer", "train", "a.txt", *marked, "--vocab-size", 261, "--out", "other")
    assert "9 texts, " in outcome.err
    assert "left out or mended: 1 documents, not UTF-8 (first: a.txt, byte 54)" in outcome.err
    assert "prepare a.txt --document-marker '|' --errors skip --out" in outcome.err.splitlines()[-1]
    assert len(build("other").encode("zebra|")) == 2


def test_another_tokenizer_is_not_overwritten(cli, corpus, trained):
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    said = cli("tokenizer", "train", corpus, "--vocab-size", 301, "--out", "mine")
    assert said.status == 2
    assert said.err.splitlines()[0] == "mine: has a tokenizer.json already, which stays; another is refused"
    assert "mine/tokenizer.json: another tokenizer is here already; name another directory with" in said.err
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


def test_files_without_any_text_are_named(cli, workdir):
    (workdir / "a.json").write_text("[]")
    said = cli("tokenizer", "train", "a.json", "--vocab-size", 300, "--out", "mine").error
    assert "a.json: no document has any text" in said
    assert not (workdir / "mine").exists()


def test_a_text_too_small_for_the_vocabulary_says_what_was_reached(cli, workdir):
    (workdir / "a.txt").write_text("na na na")
    outcome = cli("tokenizer", "train", "a.txt", "--vocab-size", 9000, "--out", "mine")
    assert outcome.status == 0
    assert "too small for 9,000 tokens: it gave 259, after which no pair of tokens comes twice" in outcome.err
    assert load(workdir / "mine").vocab_size == 259


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vocab-size", "200"], "a vocabulary of 200 is too small"),
        (["--vocab-size", "300", "--special-token", ""], "a special token is empty"),
    ],
)
def test_what_cannot_be_trained(cli, corpus, workdir, words, message):
    assert message in cli("tokenizer", "train", corpus, "--out", "mine", *words).error
    assert not (workdir / "mine").exists()


def test_the_text_and_a_row_for_each_tokenizer(cli, trained):
    text = "hello  wörld 语\n\tend"
    outcome = cli("tokenizer", "inspect", "gpt2", "mine", "char", "--text", text, "--ids")
    assert (outcome.status, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["gpt2", str(len(build("gpt2").encode(text))), "tokens"]
    assert lines[1].startswith("hello│␣│␣w│ör│ld│")
    assert lines[1].endswith("\\n│")
    assert lines[2] == "\\t│end│"
    assert lines[3] == " ".join(map(str, build("gpt2").encode(text)))
    rows = {line.split()[0]: line.split()[1:] for line in lines[-3:]}
    count = len(load(trained).encode(text))
    assert rows["mine"] == [
        str(count),
        f"{len(text.encode()) / count:.2f}",
        f"{len(text) / count:.2f}",
        "300",
        "exact",
    ]
    assert rows["char"][:3] == [str(len(text)), f"{len(text.encode()) / len(text):.2f}", "1.00"]


def test_without_words_it_shows_what_is_shipped(cli):
    outcome = cli("tokenizer", "inspect")
    assert outcome.status == 0
    assert [line.split()[0] for line in outcome.out.splitlines()[-3:]] == ["byte", "gpt2", "p50k_base"]


def test_a_file_and_standard_input(cli, corpus):
    text = corpus.read_text(encoding="utf-8")
    by_file = cli("tokenizer", "inspect", "byte", "--file", corpus, "--ids", "--json").json
    assert (by_file["tokens"], by_file["bytes_per_token"], by_file["round_trip"]) == (20_000, 1.0, True)
    assert by_file["ids"] == list(text[:MOST_SHOWN].encode())
    by_input = cli("tokenizer", "inspect", "byte", "--file", "-", "--ids", "--json", stdin=text).json
    assert by_input == by_file
    drawn = cli("tokenizer", "inspect", "byte", "--file", corpus)
    assert f"Drawn: the first {MOST_SHOWN:,} of 20,000 characters." in drawn.out


def test_what_does_not_come_back_is_said(cli, workdir):
    tree = build({"kind": "gpt2", "max_ranks": 300}).tokenizer_json() | {"normalizer": {"type": "Lowercase"}}
    (workdir / "tokenizer.json").write_text(json.dumps(tree))
    for text, is_exact in (("small", True), ("LARGE", False)):
        outcome = cli("tokenizer", "inspect", "tokenizer.json", "--text", text)
        assert outcome.out.split()[-1] == ("exact" if is_exact else "changed")
        result = cli("tokenizer", "inspect", "tokenizer.json", "--text", text, "--json").json
        assert result["round_trip"] is is_exact


def test_nothing_is_no_error(cli):
    assert cli("tokenizer", "inspect", "gpt2", "--text", "").status == 0
    assert cli("tokenizer", "inspect", "gpt2", "--text", "", "--json").json["bytes_per_token"] is None


def test_colours_alternate_where_there_are_colours(cli, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = cli("tokenizer", "inspect", "gpt2", "--text", "one two three").out
    assert "│" not in out
    backgrounds = [part.split("m")[0] for part in out.splitlines()[1].split("48;2;")[1:]]
    assert len(backgrounds) == len(set(backgrounds)) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gtp2"], "did you mean 'gpt2'?"),
        (["nosuch"], "huggingface); or name a path that exists, or OWNER/NAME of the hub"),
        (["./nowhere.json"], "no such file or directory"),
        (["--text", "a", "--file", "b"], "--text and --file: give one of them"),
        (["--file", "nowhere.txt"], "nowhere.txt: cannot be read"),
        (["--file", "latin.txt"], "latin.txt: not UTF-8 text: byte 0xe9 at 3"),
    ],
)
def test_what_cannot_be_inspected(cli, workdir, words, message):
    (workdir / "latin.txt").write_bytes("café".encode("latin-1"))
    assert message in cli("tokenizer", "inspect", *words).error
