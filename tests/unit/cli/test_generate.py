"""`pellucid generate`: prompts given, piped and from files, seeds, long prompts, beams, drafts, JSON."""

import json
import math
import re
from pathlib import Path

import pytest

from pellucid import checkpoint
from pellucid.generate import SamplingConfig, generate_text
from pellucid.generate.beam import BeamConfig
from pellucid.generate.sampling.presets import TABLE
from pellucid.generate.strategies import STRATEGIES
from pellucid.generate.text import generate_texts

pytestmark = pytest.mark.usefixtures("run_directory")

SHORT = ("--max-new-tokens", 8)
TO_BE = ("generate", "--prompt", "To be", *SHORT)


@pytest.fixture
def loaded(run_directory):
    return checkpoint.load(checkpoint.find_checkpoint(run_directory)[0])


@pytest.fixture
def prompts(workdir):
    path = workdir / "prompts.txt"
    path.write_bytes("\ufeffTo be\r\n\n  \nor not to be\nx".encode())
    return path


def lines(outcome):
    assert outcome.status == 0, outcome
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_the_prompt_and_its_continuation_are_the_output(cli):
    outcome = cli("generate", "--prompt", "To be", *SHORT)
    assert outcome.status == 0
    assert outcome.out.startswith("To be")
    assert len(outcome.out) > len("To be\n")
    assert "(the run's best by validation loss); device cpu (no GPU found" in outcome.err
    assert "weights in fp32" in outcome.err
    assert "8 tokens, " in outcome.err


def test_json_holds_the_text_and_how_it_came_about(cli):
    result = cli("generate", "--prompt", "To be", *SHORT, "--json").json
    assert (result["prompt"], result["prompt_tokens"], result["new_tokens"]) == ("To be", 5, 8)
    assert result["stop_reason"] in ("length", "end of text")
    assert len(result["text"]) > 0


def test_greedy_text_is_reproducible_and_needs_no_seed(cli):
    texts = {
        cli("generate", "--prompt", "To be", "--preset", "greedy", "--seed", seed, *SHORT).out
        for seed in (0, 0, 1)
    }
    assert len(texts) == 1


def test_the_seed_decides_drawn_text(cli):
    def text(seed: int) -> str:
        return cli("generate", "--prompt", "To be", "--preset", "creative", "--seed", seed, *SHORT).out

    assert text(1) == text(1) != text(2)


@pytest.mark.parametrize(
    "setting", [("--temperature", 0), ("--top-k", 1), ("--top-p", 1e-9)], ids=lambda setting: setting[0]
)
def test_a_setting_given_wins_over_the_preset(cli, setting):
    greedy = cli("generate", "--prompt", "To be", "--preset", "greedy", *SHORT).out
    assert cli("generate", "--prompt", "To be", "--preset", "creative", *setting, *SHORT).out == greedy


def test_a_repetition_penalty_stops_the_stutter(cli):
    text = cli(
        "generate", "--prompt", "e", "--preset", "greedy", "--repetition-penalty", 1e6, *SHORT, "--json"
    ).json
    assert len(set(text["text"])) == len(text["text"])


def test_piped_prompts_are_answered_one_by_one(cli):
    outcome = cli("generate", *SHORT, "--json", stdin="To be\r\nor not\n\nlast, without a newline")
    results = [json.loads(line) for line in outcome.out.splitlines()]
    assert [result["prompt"] for result in results] == ["To be", "or not", "", "last, without a newline"]


def test_each_piped_prompt_has_a_seed_of_its_own(cli):
    outcome = cli("generate", "--preset", "creative", *SHORT, "--json", stdin="To be\nTo be\n")
    first, second = (json.loads(line)["text"] for line in outcome.out.splitlines())
    assert first != second
    assert (
        first == cli("generate", "--preset", "creative", *SHORT, "--json", "--prompt", "To be").json["text"]
    )


def test_nothing_piped_is_nothing_written(cli):
    outcome = cli("generate", stdin="")
    assert (outcome.status, outcome.out) == (0, "")


def test_of_a_prompt_longer_than_the_context_the_end_is_read_and_that_is_said(cli):
    outcome = cli("generate", "--prompt", "x" * 40, *SHORT, "--json")
    assert (outcome.json["prompt_tokens"], outcome.json["prompt_tokens_read"]) == (40, 8)
    assert "the prompt has 40 tokens and the context 16: only the last 8 were read" in outcome.err


def test_text_may_be_longer_than_the_context(cli):
    result = cli("generate", "--prompt", "To be", "--max-new-tokens", 50, "--json").json
    assert result["new_tokens"] == 50 or result["stop_reason"] == "end of text"


def test_a_checkpoint_stands_for_itself(cli, run_directory):
    path = run_directory / "checkpoints/step-00000004"
    outcome = cli("generate", path, "--prompt", "x", *SHORT)
    assert outcome.status == 0
    assert outcome.err.startswith(f"{path};")


def test_bf16_weights_can_be_asked_for(cli):
    assert "weights in bf16" in cli("generate", "--prompt", "x", *SHORT, "--dtype", "bf16").err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--temperature", "-1"], "temperature: "),
        (["--top-p", "0"], "top_p: "),
        (["--top-k", "0"], "top_k: "),
        (["--max-new-tokens", "0"], "max_new_tokens: "),
        (["--seed", "-1"], "seed: "),
        (["--device", "cuda"], "--device cuda: not available"),
        (["--device", "tpu"], "--device tpu: there is no such device"),
    ],
)
def test_a_setting_out_of_range_is_named(cli, words, message):
    assert message in cli("generate", "--prompt", "x", *words).error


def test_help_lists_every_preset_and_strategy(cli):
    shown = cli("generate", "--help").out.splitlines()
    about = [(name, preset.summary) for name, preset in TABLE.items()]
    about += [(name, strategy.description) for name, strategy in STRATEGIES.items()]
    for name, summary in about:
        assert any(line.split()[:1] == [name] and summary in line for line in shown), name


def test_an_unknown_preset_gets_the_nearest_name(cli):
    message = cli("generate", "--prompt", "x", "--preset", "blanced").error
    assert "there is no sampling preset 'blanced'; did you mean 'balanced'? (presets: greedy, " in message


@pytest.mark.parametrize("data", [b"\x00\x01\x02\n", b"\xff\xfe text\n"])
def test_bytes_that_are_no_text_are_refused(cli, data):
    assert "standard input is not text" in cli("generate", *SHORT, stdin=data).error


def test_half_a_character_in_the_prompt_is_refused(cli):
    assert "surrogate" in cli("generate", "--prompt", "caf\udce9", *SHORT).error


# Settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["--min-p", 0.2], {"min_p": 0.2}),
        (["--typical-p", 0.5], {"typical_p": 0.5}),
        (["--frequency-penalty", 1.5], {"frequency_penalty": 1.5}),
        (["--presence-penalty", -1], {"presence_penalty": -1}),
        (["--no-repeat-ngram-size", 2], {"no_repeat_ngram_size": 2}),
        (["--stop", "e", "--stop", "a"], {"stop": ("e", "a")}),
        (["--min-new-tokens", 5], {"min_new_tokens": 5}),
        (["--ban", "e", "--ban", "th"], {"banned": ((101,), (116, 104))}),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_every_setting_reaches_the_text(cli, loaded, words, settings):
    settings = {"top_p": 0.95, **settings, "max_new_tokens": 8, "seed": 3}
    expected = generate_text(loaded.model, loaded.tokenizer, "To be", SamplingConfig.model_validate(settings))
    found = cli(*TO_BE, "--strategy", "top_p", "--seed", 3, *words, "--json").json
    assert (found["ids"], found["text"]) == (list(expected.ids), expected.text)
    assert found["seed"] == 3
    written = SamplingConfig.model_validate({**found["settings"], "seed": 3})
    assert written == SamplingConfig.model_validate(settings)


def test_a_strategy_sets_what_its_name_says_and_no_more(cli):
    found = cli(*TO_BE, "--strategy", "top_k_top_p", "--top-k", 7, "--json").json
    assert found["settings"] == {"top_k": 7, "top_p": 0.95, "max_new_tokens": 8}


@pytest.mark.parametrize("search", [(), ("--num-beams", 2)], ids=["drawn", "beams"])
def test_all_tokens_banned_leaves_nothing_to_choose(cli, train_tiny, search):
    train_tiny("data.tokenizer.kind=char", "run.dir=runs/char")
    tokenizer = checkpoint.load(checkpoint.find_checkpoint(Path("runs/char"))[0]).tokenizer
    texts = {tokenizer.decode([number]) for number in range(tokenizer.vocab_size)} - {"", "\ufffd"}
    bans = [word for text in texts - set(tokenizer.special_tokens) for word in ("--ban", text)]
    outcome = cli("generate", "runs/char", "--prompt", "x", "--min-new-tokens", 8, *SHORT, *bans, *search)
    assert outcome.status == 2
    assert re.search(
        r"^error: the s\w+ leave no id to choose.*; (loosen banned|ban less)", outcome.err, re.MULTILINE
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--preset", "greedy", "--strategy", "top_k"],
            "--preset greedy and --strategy top_k exclude each other",
        ),
        (["--strategy", "topk"], "there is no sampling strategy 'topk'; did you mean 'top_k'?"),
        (["--min-p", "2"], "min_p: must be at least 0 and at most 1, not 2.0"),
        (["--typical-p", "0"], "typical_p: "),
        (["--repetition-penalty", "0"], "repetition_penalty: "),
        (["--no-repeat-ngram-size", "0"], "no_repeat_ngram_size: "),
        (["--min-new-tokens", "9"], "min_new_tokens is 9 and max_new_tokens only 8"),
        (["--ban", ""], "a banned text is empty"),
        (["--stop", ""], "stop.0: "),
        (["--num-beams", "2", "--temperature", "1"], "leave out --temperature, or --num-beams"),
        (
            ["--num-beams", "2", "--seed", "1", "--preset", "plain"],
            "leave out --preset and --seed, or --num-beams",
        ),
        (["--num-beams", "2", "--draft", "ngram"], "--num-beams and --draft exclude each other"),
        (["--num-beams", "2", "--logprobs", "1"], "--num-beams and --logprobs exclude each other"),
        (["--num-beams", "2", "--when-full", "stop"], "--num-beams and --when-full stop exclude each other"),
        (["--num-beams", "2", "--num-results", "3"], "3 results cannot come of 2 beams"),
        (
            ["--num-beams", "2", "--length-penalty", "11"],
            "length_penalty: must be at least -10 and at most 10",
        ),
        (["--length-penalty", "1"], "--length-penalty: of beams alone; give --num-beams N too"),
        (["--early-stopping", "yes"], "--early-stopping: of beams alone"),
        (["--draft", "ngram", "--num-results", "2"], "--draft and --num-results exclude each other"),
        (["--draft", "ngram", "--logprobs", "0"], "--draft and --logprobs exclude each other"),
        (["--draft", "nowhere"], "nowhere: no such run or checkpoint"),
        (["--prompts", "prompts.txt"], "--prompt and --prompts exclude each other"),
        (["--batch-size", "2"], "--batch-size is for many prompts"),
        (["--temperature", "0", "--num-results", "2"], "every result would be the same text"),
        (["--quantize", "q4", "--dtype", "bf16"], "--dtype bf16 and --quantize q4 exclude each other"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_what_does_not_go_together_or_out_of_range_is_one_message(cli, words, message):
    assert message in cli(*TO_BE, *words).error


def test_a_long_prompt_is_refused_where_the_context_may_not_roll(cli):
    message = cli("generate", "--prompt", "x" * 17, "--when-full", "stop").error
    assert "the prompt: 17 tokens, and the context has only 16; shorten it" in message


def test_text_ends_where_the_context_may_not_roll(cli):
    words = ("generate", "--prompt", "To be", "--when-full", "stop", "--min-new-tokens", 50)
    outcome = cli(*words, "--json")
    assert (outcome.json["stop_reason"], outcome.json["new_tokens"]) == ("context", 16 - 5 + 1)
    assert "; the context is full" in cli(*words).err


# Results --------------------------------------------------------------------------------------------


def test_results_are_those_of_the_seeds_that_follow(cli):
    results = lines(cli(*TO_BE, "--seed", 5, "--num-results", 3, "--json"))
    assert [(each["result"], each["seed"]) for each in results] == [(0, 5), (1, 6), (2, 7)]
    for each in results:
        assert each["text"] == cli(*TO_BE, "--seed", each["seed"], "--json").json["text"]


def test_several_results_are_the_output_one_after_another(cli):
    outcome = cli(*TO_BE, "--num-results", 2, "--min-new-tokens", 8)
    words = ("--num-results", 2, "--min-new-tokens", 8, "--json")
    texts = [each["text"] for each in lines(cli(*TO_BE, *words))]
    assert outcome.out == "".join(f"To be{text}\n" for text in texts)
    assert "2 texts, 16 tokens, " in outcome.err


def test_beams_are_those_of_the_search(cli, loaded):
    words = ("--num-beams", 4, "--num-results", 2, "--length-penalty", 0.5, "--early-stopping", "yes")
    results = lines(cli(*TO_BE, *words, "--repetition-penalty", 1.5, "--json"))
    beams = BeamConfig(num_beams=4, num_results=2, length_penalty=0.5, early_stopping=True)
    sampling = SamplingConfig(max_new_tokens=8, repetition_penalty=1.5)
    (expected,) = generate_texts(loaded.model, loaded.tokenizer, ["To be"], sampling, beams=beams)
    assert [(each["text"], each["score"]) for each in results] == [
        (each.text, each.score) for each in expected
    ]
    assert results[0]["score"] >= results[1]["score"]
    assert results[0]["settings"] == {
        **beams.model_dump(),
        "repetition_penalty": 1.5,
        "max_new_tokens": 8,
    }


def test_log_probabilities_are_named(cli):
    result = cli(*TO_BE, "--preset", "greedy", "--logprobs", 2, "--json").json
    assert [each["id"] for each in result["log_probabilities"]] == result["ids"]
    for each in result["log_probabilities"]:
        best, second = each["alternatives"]
        assert best["id"] == each["id"]
        assert best["log_probability"] == each["log_probability"] >= second["log_probability"]
    text = "".join(each["text"] for each in result["log_probabilities"])
    assert text.isascii()
    assert text == result["text"]


def test_log_probabilities_are_a_table_beside_the_text(cli):
    result = cli(*TO_BE, "--preset", "greedy", "--logprobs", 1, "--json").json
    outcome = cli(*TO_BE, "--preset", "greedy", "--logprobs", 1)
    assert outcome.out == f"To be{result['text']}\n"
    heading = next(n for n, line in enumerate(outcome.err.splitlines()) if line.startswith("token "))
    rows = outcome.err.splitlines()[heading + 1 :][:8]
    for row, each in zip(rows, result["log_probabilities"], strict=True):
        name = json.dumps(each["text"])
        share = f"{math.exp(each['log_probability']):.1%}"
        assert row.startswith(name)
        assert row.endswith(f"{each['log_probability']:.3f} {share:>7}   {name} {share}")


@pytest.mark.parametrize("draft", ["ngram", "runs/mine"])
def test_drafts_change_no_greedy_text(cli, draft):
    words = (
        "generate",
        "--prompt",
        "the the",
        "--preset",
        "greedy",
        "--max-new-tokens",
        9,
        "--min-new-tokens",
        9,
    )
    plain, drafted = cli(*words, "--json").json, cli(*words, "--draft", draft, "--json").json
    assert drafted["ids"] == plain["ids"]
    assert 0 < drafted["accepted"] <= drafted["drafted"]
    said = f"; {drafted['accepted']} of {drafted['drafted']} drafted tokens accepted"
    assert said in cli(*words, "--draft", draft).err


def test_who_drafts_must_have_the_same_ids(cli, train_tiny):
    train_tiny("data.tokenizer.kind=char", "run.dir=runs/char")
    message = cli(*TO_BE, "--draft", "runs/char", "runs/mine").error
    assert "--draft runs/char: its ids are not the model's (char, " in message


@pytest.mark.parametrize("form", ["q8", "q4"])
def test_quantised_weights_come_with_their_cost(cli, form):
    outcome = cli(*TO_BE, "--quantize", form, "--json")
    assert outcome.json["weights"] == form
    assert f"weights in {form}" in outcome.err
    assert f"{form} costs: perplexity " in outcome.err


def test_a_cost_that_cannot_be_measured_is_said_and_text_is_written(cli, encoder_decoder):
    (Path.cwd() / "lines.txt").unlink()
    outcome = cli(*TO_BE, "--quantize", "q8", encoder_decoder)
    assert outcome.status == 0
    assert "what q8 costs cannot be measured: " in outcome.err


def test_an_encoder_decoder_answers_its_prompt(cli, encoder_decoder):
    outcome = cli(*TO_BE, encoder_decoder, "--num-results", 2)
    results = lines(cli(*TO_BE, encoder_decoder, "--num-results", 2, "--json"))
    assert outcome.out == "".join(f"{each['text']}\n" for each in results)
    assert [each["score"] for each in lines(cli(*TO_BE, encoder_decoder, "--num-beams", 2, "--json"))] < [0]


# Many prompts ---------------------------------------------------------------------------------------


def test_many_prompts_are_written_in_their_order_each_as_if_alone(cli, prompts):
    results = lines(cli("generate", "--prompts", prompts, "--batch-size", 2, *SHORT, "--seed", 2, "--json"))
    assert [each["prompt"] for each in results] == ["To be", "or not to be", "x"]
    for each in results:
        alone = cli("generate", "--prompt", each["prompt"], *SHORT, "--seed", 2, "--json").json
        assert (each["text"], each["seed"]) == (alone["text"], 2)


def test_many_prompts_and_their_texts_are_the_output(cli, prompts):
    outcome = cli("generate", "--prompts", prompts, "--num-results", 2, *SHORT)
    results = lines(cli("generate", "--prompts", prompts, "--num-results", 2, *SHORT, "--json"))
    assert [each["result"] for each in results] == [0, 1] * 3
    assert outcome.out == "".join(f"{each['prompt']}{each['text']}\n" for each in results)
    assert "6 texts, " in outcome.err


def test_prompts_are_strings_and_objects_of_json_lines(cli, workdir):
    (workdir / "prompts.jsonl").write_text('"To\\nbe"\n\n{"prompt": "", "name": 1}\n', encoding="utf-8")
    results = lines(cli("generate", "--prompts", "prompts.jsonl", *SHORT, "--json"))
    assert [each["prompt"] for each in results] == ["To\nbe", ""]


def test_many_prompts_are_drafted_one_by_one(cli, prompts):
    words = ("generate", "--prompts", prompts, "--preset", "greedy", *SHORT, "--json")
    drafted = lines(cli(*words, "--draft", "ngram"))
    assert [each["ids"] for each in drafted] == [each["ids"] for each in lines(cli(*words))]


def test_of_long_prompts_the_line_is_named(cli, workdir):
    (workdir / "long.txt").write_text(f"x\n{'y' * 20}\n")
    outcome = cli("generate", "--prompts", "long.txt", *SHORT)
    assert "long.txt:2: the prompt has 20 tokens and the context 16: only the last 8 were read" in outcome.err
    message = cli("generate", "--prompts", "long.txt", *SHORT, "--when-full", "stop").error
    assert "long.txt:2: 20 tokens, and the context has only 16" in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, "none.txt: no such file of prompts"),
        ("empty.txt", b"", "empty.txt: has no prompt in it; write one a line"),
        ("blank.txt", b"\n \n", "blank.txt: has no prompt in it"),
        ("latin.txt", b"x\ncaf\xe9\n", "latin.txt:2: not UTF-8 text"),
        ("zero.txt", b"x\n\n\x00\n", "zero.txt:3: a zero byte"),
        ("cut.jsonl", b'"x"\n{"prompt": "y\n', "cut.jsonl:2: not JSON ("),
        (
            "other.jsonl",
            b'{"text": "x"}\n',
            'other.jsonl:1: each line is a string or an object with a "prompt", not {"',
        ),
        ("half.jsonl", b'"x"\n"\\ud800"\n', "half.jsonl:2: "),
    ],
)
def test_a_file_that_holds_no_prompts_is_named_with_its_line(cli, workdir, name, content, message):
    if content is not None:
        (workdir / name).write_bytes(content)
    assert message in cli("generate", "--prompts", name, *SHORT).error


def test_a_folder_is_no_file_of_prompts(cli, workdir):
    assert "runs: cannot be read: " in cli("generate", "--prompts", "runs", *SHORT).error
