"""`pellucid data inspect`."""

import json

import pytest

TEXTS = [f"Story {number}: the ox went home." for number in range(40)]


@pytest.fixture
def directory(cli, workdir):
    lines = [json.dumps({"text": text}) for text in [*TEXTS, "", TEXTS[3], "long " * 100]]
    (workdir / "a.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert cli("prepare", "a.jsonl", "--out", "out", "--deduplicate", "--shard-tokens", 500).status == 0
    return workdir / "out"


def test_the_passport_is_verified_and_shown(cli, directory):
    outcome = cli("data", "inspect", directory, "--documents", 2)
    assert (outcome.status, outcome.out) == (0, "")
    said = outcome.err.splitlines()
    assert said[0].endswith("out: every file is what the manifest says (SHA-256)")
    manifest = json.loads((directory / "manifest.json").read_text())
    file = manifest["source"]["files"][0]
    assert f"source      a.jsonl, {file['size_bytes']:,} bytes, SHA-256 {file['sha256'][:16]}…" in said
    assert "tokenizer   byte, 257 ids (uint16)" in said
    assert "split       content-hash, 0.1 for validation" in said
    assert any(line.startswith(f"train: {manifest['train']['documents']:,} documents, ") for line in said)
    assert any("duplicates dropped" in line for line in said)
    assert any(line.startswith("left out or mended: 1 documents, empty (first: ") for line in said)
    headings = [line for line in said if line.startswith("document ")]
    assert len(headings) == 2
    assert all(" of the training split, " in line for line in headings)
    assert sum(line.startswith(("  │ Story ", "  │ long ")) for line in said) == 2


def test_json_has_the_passport_the_numbers_and_the_samples(cli, directory):
    result = cli("data", "inspect", directory, "--documents", 100, "--tokens", 40, "--json").json
    manifest = json.loads((directory / "manifest.json").read_text())
    assert result["verified"] is True
    assert len(result["fingerprint"]) == 64
    assert result["source"]["files"] == {"a.jsonl": manifest["source"]["files"][0]["sha256"]}
    assert result["train"]["tokens"] == manifest["train"]["tokens"]
    assert result["train"]["duplicates"] + result["val"]["duplicates"] == 1
    assert result["left_out"]["empty"]["documents"] == 1
    samples = result["samples"]
    assert [sample["number"] for sample in samples] == list(range(manifest["train"]["documents"]))
    known = {f"{text}<|endoftext|>" for text in TEXTS}
    assert all(sample["text"] in known for sample in samples if not sample["is_cut"])
    assert [sample["text"] for sample in samples if sample["is_cut"]] == ["long " * 8]


def test_the_seed_chooses_the_documents(cli, directory):
    def numbers(seed):
        samples = cli("data", "inspect", directory, "--seed", seed, "--json").json["samples"]
        return tuple(sample["number"] for sample in samples)

    assert len(numbers(0)) == 3
    assert numbers(0) == numbers(0)
    assert len({numbers(seed) for seed in range(5)}) > 1


@pytest.mark.parametrize(("option", "value"), [("--documents", -1), ("--tokens", 0)])
def test_numbers_that_are_too_small_are_refused(cli, directory, option, value):
    outcome = cli("data", "inspect", directory, option, value)
    assert outcome.status == 2
    said = f"Invalid value for '{option}': Input should be greater than or equal to {value + 1}"
    assert said in outcome.err
    assert cli("data", "inspect", directory, option, value + 1).status == 0


@pytest.mark.parametrize("name", ["train-00001.bin", "train-00000.starts", "val-00000.bin"])
def test_an_altered_file_is_refused(cli, directory, name):
    data = bytearray((directory / name).read_bytes())
    data[0] ^= 1
    (directory / name).write_bytes(data)
    said = cli("data", "inspect", directory).error
    assert f"{name}: the file was altered: the manifest has SHA-256 " in said


def test_what_is_no_prepared_directory_is_refused(cli, directory, workdir):
    assert "it has no manifest.json" in cli("data", "inspect", workdir).error
    (directory / "train-00000.bin").unlink()
    assert "train-00000.bin: the file is missing" in cli("data", "inspect", directory).error
