"""`pellucid demo`: which model is taken, what is written where, and what is refused."""

import json

import pytest

pytestmark = pytest.mark.usefixtures("workdir")

SMALL = ("debug", "model.d_model=16", "model.num_heads=4")


def test_a_fresh_directory_shows_the_quick_preset_and_says_that_its_weights_are_random(cli):
    outcome = cli("demo")
    assert outcome.status == 0
    assert "no trained run is there yet: preset quick, random weights" in outcome.err
    assert "This is preset quick with random weights (seed 0)" in " ".join(outcome.out.split())
    assert "To be" in cli("demo", "--json").json["text"]


def test_the_newest_run_is_the_default_and_that_is_said(cli, run_directory):
    outcome = cli("demo", "--json")
    best = (run_directory / "best").read_text().strip()
    assert f"runs/mine/checkpoints/{best} (the run's best by validation loss)" in outcome.err
    origin = outcome.json["sections"][0]["numbers"]["origin"]
    values = json.loads((run_directory / "checkpoints" / best / "train_state/values.json").read_text())
    assert origin["name"] == f"runs/mine/checkpoints/{best}"
    assert (origin["step"], origin["validation_loss"]) == (values["step"], values["best_loss"])
    assert not origin["is_random"]


def test_a_run_and_a_checkpoint_can_be_named(cli, run_directory):
    whole = cli("demo", run_directory, "--json").json
    one = cli("demo", run_directory / "checkpoints/step-00000004", "--json").json
    assert one["sections"][0]["numbers"]["origin"]["step"] == 4
    assert whole["sections"][0]["numbers"]["parameters"] == one["sections"][0]["numbers"]["parameters"]


def test_a_preset_can_be_named_beside_a_run_and_its_parts_changed(cli, run_directory):
    outcome = cli("demo", *SMALL, "model.norm.kind=layernorm", "--json").json
    files = [file for section in outcome["sections"] for file in section["files"]]
    assert "src/pellucid/model/norms/layernorm.py" in files
    assert outcome["sections"][0]["numbers"]["origin"]["is_random"]


def test_a_model_preset_brings_a_tokenizer(cli):
    outcome = cli("demo", "llama-tiny", "--json").json
    assert outcome["sections"][1]["files"] == ["src/pellucid/tokenizers/byte.py"]


def test_a_preset_with_characters_reads_them_from_its_corpus(cli):
    ids = cli("demo", "shakespeare-char", "--text", "To", "--json").json["sections"][1]["numbers"]
    assert ids["sentence"]["tokens"] == ["T", "o"]


def test_an_encoder_decoder_has_a_source_and_a_target(cli):
    words = ("model.d_model=16", "model.num_heads=4")
    outcome = cli("demo", "encdec-quick", *words, "--text", "To be", "--target", "or not", "--json").json
    assert set(outcome["sections"][1]["numbers"]) == {"source", "target"}
    assert outcome["sections"][1]["numbers"]["target"]["tokens"] == ["<begin>", *"or␣not"]


def test_an_encoder_decoders_text_may_have_gaps_as_generation_reads_them(cli):
    words = ("model.d_model=16", "model.num_heads=4", "--text", "a<extra_id_0>b")
    assert cli("demo", "encdec-quick", *words, "--json").json["sections"][1]["numbers"]["source"]["ids"] == [
        97,
        257,
        98,
    ]
    decoder = cli("demo", "debug", "--text", "<|endoftext|>", "--json").json
    assert len(decoder["sections"][1]["numbers"]["sentence"]["ids"]) == len("<|endoftext|>")


def suggested(outcome) -> list[str]:
    """The commands below "What to try next", without their reasons."""
    lines = outcome.out[outcome.out.index("What to try next") :].splitlines()[1:]
    return [line.strip().split("  ")[0] for line in lines]


@pytest.mark.parametrize(
    ("words", "commands"),
    [
        (
            ["quick"],
            [
                "pellucid train quick",
                "pellucid demo quick model.position.kind=learned",
                "pellucid demo encdec-quick",
            ],
        ),
        (
            ["encdec-quick"],
            [
                "pellucid train encdec-quick",
                "pellucid demo encdec-quick model.position.kind=rope",
                "pellucid demo quick",
            ],
        ),
        (
            ["debug", "model.norm.kind=none"],
            [
                "pellucid train debug model.norm.kind=none",
                "pellucid demo debug model.position.kind=learned",
                "pellucid demo encdec-quick",
            ],
        ),
    ],
)
def test_what_is_suggested_belongs_to_what_was_shown(cli, words, commands):
    found = suggested(cli("demo", *words))
    assert found[2:] == commands
    assert f"pellucid demo {' '.join(words)}" not in found  # the command just run


def test_without_a_name_the_default_is_what_is_suggested(cli):
    assert "pellucid train quick" in suggested(cli("demo"))


def test_pairs_have_to_be_given_to_be_trained_on(cli):
    assert "pellucid train pairs-quick data.path=FILE" in suggested(cli("demo", "pairs-quick"))
    given = suggested(cli("demo", "pairs-quick", "data.path=mine.jsonl"))
    assert "pellucid train pairs-quick data.path=mine.jsonl" in given


def test_the_sentence_layer_head_and_seed_are_those_given(cli):
    def section(number: int, *words: object) -> dict:
        return cli("demo", *SMALL, *words, "--json").json["sections"][number]["numbers"]

    assert section(1, "--text", "ab")["sentence"]["ids"] == [97, 98]
    attention = section(6, "--layer", 1, "--head", 3)
    assert (attention["block"], attention["head"]) == (1, 3)
    assert section(2, "--seed", 1) == section(2, "--seed", 1) != section(2, "--seed", 2)


def test_html_is_written_to_the_file_alone(cli, workdir):
    outcome = cli("demo", *SMALL, "--html", "pages/walk.html")
    assert (outcome.status, outcome.out) == (0, "")
    assert "wrote pages/walk.html: open it in a browser" in outcome.err.replace("\\", "/")
    assert (workdir / "pages/walk.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_html_and_json_can_be_had_together(cli, workdir):
    assert len(cli("demo", *SMALL, "--html", "walk.html", "--json").json["sections"]) == 10
    assert (workdir / "walk.html").exists()


def test_the_text_is_80_columns_wide_when_it_is_piped(cli):
    outcome = cli("demo", "quick")
    assert max(map(len, outcome.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["quik"],
            "there is no preset, run or checkpoint 'quik'; did you mean 'quick'? (presets: debug, quick",
        ),
        (["quick", "debug"], "'debug': one model at a time ('quick' came first)"),
        (["runs/none"], "runs/none: no such run or checkpoint"),
        (["debug", "--text", ""], "--text: the text is empty"),
        (
            ["debug", "--text", "x" * 65],
            "--text: the text has 65 tokens, more than the 64 of the model's context",
        ),
        (["debug", "--layer", "2"], "--layer 2: the model has 2 blocks, 0 to 1"),
        (["debug", "--head", "2"], "--head 2: the model has 2 attention heads, 0 to 1"),
        (["debug", "--target", "x"], "--target is what an encoder-decoder writes"),
        (["debug", "model.norm.kind=rms"], "model.norm.kind: there is no kind 'rms'"),
        (["debug", "model.vocab_size=99"], "the tokenizer (byte) has 257 ids and the model only 99"),
        (["--text", "caf\udce9"], "surrogate"),
    ],
)
def test_what_cannot_be_shown_is_said(cli, words, message):
    outcome = cli("demo", *words)
    assert outcome.status == 2
    assert outcome.out == ""
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_the_parts_of_a_checkpoint_cannot_be_changed(cli, run_directory):
    assert "model.norm.kind=layernorm: a checkpoint's model is as it was trained" in (
        cli("demo", run_directory, "model.norm.kind=layernorm").error
    )


def test_a_damaged_run_is_an_error_and_no_reason_to_show_something_else(cli, run_directory):
    for weights in run_directory.glob("checkpoints/*/model.safetensors"):
        weights.write_bytes(b"")
    assert "truncated or altered" in cli("demo").err


def test_a_page_that_cannot_be_written_is_an_error(cli, workdir):
    (workdir / "file").write_text("")
    assert "file" in cli("demo", *SMALL, "--html", "file/walk.html").err
    assert cli("demo", *SMALL, "--html", "file/walk.html").status == 2
