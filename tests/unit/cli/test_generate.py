"""`pellucid generate`: prompts given and piped, seeds, long prompts, JSON."""

import json

import pytest

from pellucid.generate.sampling.presets import TABLE

pytestmark = pytest.mark.usefixtures("run_directory")

SHORT = ("--max-new-tokens", 8)


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


def test_help_lists_every_preset(cli):
    lines = cli("generate", "--help").out.splitlines()
    for name, preset in TABLE.items():
        assert any(line.split()[:1] == [name] and preset.summary in line for line in lines), name


def test_an_unknown_preset_gets_the_nearest_name(cli):
    message = cli("generate", "--prompt", "x", "--preset", "blanced").error
    assert "there is no sampling preset 'blanced'; did you mean 'balanced'? (presets: greedy, " in message


@pytest.mark.parametrize("data", [b"\x00\x01\x02\n", b"\xff\xfe text\n"])
def test_bytes_that_are_no_text_are_refused(cli, data):
    assert "standard input is not text" in cli("generate", *SHORT, stdin=data).error


def test_half_a_character_in_the_prompt_is_refused(cli):
    assert "surrogate" in cli("generate", "--prompt", "caf\udce9", *SHORT).error
