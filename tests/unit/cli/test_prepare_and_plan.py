"""`pellucid prepare`, and `pellucid plan`."""

import json
import shlex

import pytest


def test_text_becomes_shards_that_a_run_is_trained_on(cli, tiny, corpus, workdir):
    outcome = cli("prepare", corpus, "--out", "shards", "--tokenizer", "char")
    assert (outcome.status, outcome.out) == (0, "")
    assert "train: 1 documents, 18,000 tokens, 18,000 bytes (1.00 bytes a token)" in outcome.err
    next_command = outcome.err.splitlines()[-1]
    assert next_command == "next: pellucid train quick data.path=shards data.tokenizer.kind=char"
    trained = cli("train", *tiny, "data.path=shards", "data.tokenizer=char")
    assert trained.status == 0
    assert "18,000 training tokens" in trained.err


def test_json_gives_the_counts(cli, corpus, workdir):
    result = cli("prepare", corpus, "--out", "shards", "--json").json
    assert result["directory"] == "shards"
    assert result["train"] == {
        "documents": 1,
        "tokens": 18_000,
        "bytes": 18_000,
        "shards": 1,
        "bytes_per_token": 1.0,
        "median_tokens": 18_000,
        "longest_tokens": 18_000,
        "duplicates": 0,
        "windows": {"256": 70, "1024": 17, "4096": 4},
    }
    assert (result["val"]["tokens"], result["val"]["bytes"], result["left_out"]) == (2_000, 2_000, {})
    assert len(result["fingerprint"]) == 64


def test_several_sources_are_documents_of_one(cli, workdir):
    for name in ("a", "b", "c", "d"):
        (workdir / f"{name}.txt").write_text(f"The text of {name}.\n")
    (workdir / "more.jsonl").write_text(
        "".join(json.dumps({"story": f"Story {n}."}) + "\n" for n in range(40))
    )
    result = cli("prepare", "a.txt", "b.txt", "c.txt", "d.txt", "more.jsonl", "--text-field", "story", "--out", "out",
                 "--val-fraction", 0.3, "--json").json  # fmt: skip
    assert result["train"]["documents"] + result["val"]["documents"] == 44
    assert result["val"]["documents"] > 3


def test_preparing_again_uses_what_is_there(cli, corpus, workdir):
    first = cli("prepare", corpus, "--out", "shards", "--json").json
    written = (workdir / "shards/train-00000.bin").stat().st_mtime_ns
    assert cli("prepare", corpus, "--out", "shards", "--json").json == first
    assert (workdir / "shards/train-00000.bin").stat().st_mtime_ns == written


def test_a_plan_is_a_table_of_what_a_run_needs(cli, tiny, workdir):
    outcome = cli("plan", *tiny)
    assert outcome.status == 0
    assert "8,256 (4,144 without embeddings)" in outcome.out
    assert all(
        word in outcome.out for word in ("optimizer state", "MiB of the device's", "8 steps, 1,024 tokens")
    )
    assert list(workdir.iterdir()) == []


def test_a_plan_as_json_has_bare_numbers(cli, tiny):
    plan = cli("plan", *tiny, "--json").json
    assert (plan["parameters"], plan["steps"], plan["micro_batch"]) == (8256, 8, 8)
    assert plan["total_bytes"] == 16 * 8256 + plan["activations_bytes"] + plan["buffers_bytes"]


@pytest.mark.parametrize("preset", ["sota-125m", "sota-250m"])
def test_large_models_are_planned_without_being_built(cli, preset):
    plan = cli("plan", preset, "--json").json
    assert plan["weights_bytes"] == 4 * plan["parameters"] > 400_000_000


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [("gpt2-xl", "1,557,611,200"), ("encdec-large", "747,884,800"), ("t5-small", "76,961,152")],
)
def test_a_model_preset_is_planned_by_its_name_with_its_true_size(cli, preset, parameters):
    outcome = cli("plan", preset)
    assert outcome.status == 0
    assert f"{parameters} (" in outcome.out


def test_an_encoder_decoders_plan_says_what_it_reads_and_what_it_writes(cli):
    outcome = cli("plan", "encdec-quick")
    assert outcome.status == 0
    rows = {line[:17].strip(): line[17:].strip() for line in outcome.out.splitlines()}
    assert rows["model"] == "encoder-decoder"
    assert rows["window"] == "115 source tokens, 27 target tokens"
    assert rows["cache"].endswith("MiB to generate 128 tokens")


def test_a_mixture_of_experts_states_what_works_on_a_token(cli, tiny):
    plan = cli("plan", *tiny, "model.feed_forward.kind=moe", "--json").json
    assert 0 < plan["active_parameters"] < plan["parameters"]
    assert "active, " in cli("plan", *tiny, "model.feed_forward.kind=moe").out


def test_pairs_are_prepared_with_added_tokens_and_trained_by_the_command_that_is_named(cli, workdir):
    lines = [json.dumps({"from": f"a<extra_id_0>{i}", "to": f"{i}b"}) for i in range(40)]
    (workdir / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    fields = ("--source-field", "from", "--target-field", "to", "--sentinels", 2, "--special-token", "<pad>")
    outcome = cli("prepare", "pairs.jsonl", "--out", "pairs", *fields)
    assert outcome.status == 0
    named = shlex.split(outcome.err.splitlines()[-1].removeprefix("next: pellucid "))
    small = ("model.d_model=16", "train.steps=1", "train.batch_tokens=64", "train.sample_tokens=0")
    assert cli(*named, *small, "run.dir=run").status == 0
    assert cli("plan", *named[1:], *small, "--json").json["vocab_size"] == 256 + 1 + 2 + 1


def test_one_side_of_a_pair_is_not_enough(cli, workdir):
    outcome = cli("prepare", "pairs.jsonl", "--out", "pairs", "--source-field", "from")
    assert outcome.status == 2
    assert "--source-field and --target-field" in outcome.err
