"""Turns of `pellucid generate` on a terminal: live settings, history, what is said of a wrong word, and leaving."""

import json
import sys

import pytest

from pellucid import checkpoint
from pellucid.generate import SamplingConfig, generate_text
from pellucid.generate.transcript import Transcript

pytestmark = pytest.mark.usefixtures("run_directory")

START = ("generate", "--max-new-tokens", 4, "--preset", "greedy")


@pytest.fixture
def loaded(run_directory):
    return checkpoint.load(checkpoint.find_checkpoint(run_directory)[0])


@pytest.fixture
def talk(cli):
    """Type these lines, then Ctrl-D; the texts as JSON objects, and what was said."""

    def run(*lines, words=START):
        outcome = cli(*words, "--json", typed=lines)
        assert outcome.status == 0, outcome
        return [json.loads(line) for line in outcome.out.splitlines()], outcome.err

    return run


def test_each_line_is_continued_and_only_the_text_is_the_output(cli, loaded):
    outcome = cli(*START, typed=["To be", "or not"])
    greedy = SamplingConfig(temperature=0, max_new_tokens=4)
    texts = [generate_text(loaded.model, loaded.tokenizer, line, greedy).text for line in ("To be", "or not")]
    assert (outcome.status, outcome.out) == (0, "".join(f"{text}\n" for text in texts))
    assert outcome.err.count("4 tokens, ") == 2
    assert outcome.err.count("> ") == 3
    assert "/help lists what can be changed" in outcome.err


def test_the_nth_text_draws_by_the_seed_and_n_from_its_last_change_on(talk):
    lines = ["x", "x", "/set top_k 9", "x", "/set seed 3", "x", "x"]
    texts, said = talk(*lines, words=("generate", "--max-new-tokens", 4, "--seed", 7))
    assert [each["seed"] for each in texts] == [7, 8, 9, 3, 4]
    assert "seed 9; history off" in said
    assert "seed 3; history off" in said


def test_settings_change_what_is_written_next(talk, loaded):
    texts, said = talk(
        "x",
        "/set max-new-tokens 7",
        "/set repetition_penalty=1e6",
        '/set ban "a b" c',
        "x",
        "/set ban",
        "/set stop e  a",
        "x",
        "/reset",
        "x",
    )
    first, changed, stopping, again = texts
    assert first["ids"] == again["ids"]
    assert changed["settings"] == {
        "temperature": 0.0,
        "repetition_penalty": 1e6,
        "banned": [list(b"a b"), list(b"c")],
        "max_new_tokens": 7,
    }
    assert len(set(changed["ids"])) == changed["new_tokens"] == 7
    assert stopping["settings"]["stop"] == ["e", "a"]
    assert "banned" not in stopping["settings"]
    assert again["settings"] == first["settings"] == {"temperature": 0.0, "max_new_tokens": 4}
    assert "preset greedy: temperature 0.0, repetition_penalty 1000000.0, max_new_tokens 7" in said


def test_another_preset_or_strategy_keeps_lengths_and_stops(talk):
    texts, said = talk("/set temperature 2", "/set stop q", "/preset creative", "x", "/strategy top_k", "x")
    settings = [each["settings"] for each in texts]
    assert settings[0] == {"top_p": 0.98, "stop": ["q"], "max_new_tokens": 4}
    assert settings[1] == {"top_k": 50, "stop": ["q"], "max_new_tokens": 4}
    assert "strategy top_k: top_k 50, " in said


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/histroy", "there is no command /histroy; did you mean '/history'? (/help lists them"),
        ("/", "there is no command / (/help lists them; a prompt that begins so is typed //)"),
        ("/set top_p 7", "top_p: must be more than 0 and at most 1, not 7"),
        ("/set temprature 1", "temprature: there is no such key; did you mean 'temperature'?"),
        ("/set top_k many", "top_k: must be a whole number, not 'many'"),
        ("/set", "name a setting and its value: /set temperature 0.9"),
        ("/set ban 'half", "'half: no closing quotation; close the quotes"),
        ("/set ban ''", "a banned text is empty"),
        ("/set banned.x 3", "banned: must be a list"),
        ("/set logit_bias.9999 1", "logit_bias: there is no id 9999; the vocabulary has"),
        ("/set min_new_tokens 99", "min_new_tokens is 99 and max_new_tokens only 4"),
        ("/preset wild", "there is no sampling preset 'wild'"),
        ("/strategy topk", "there is no sampling strategy 'topk'; did you mean 'top_k'?"),
        ("/history maybe", "write /history on or /history off"),
        ("/forget", "nothing is remembered; /history on"),
    ],
)
def test_a_wrong_word_is_explained_and_changes_nothing(talk, line, message):
    texts, said = talk("x", line, "x", words=(*START, "--seed", 2))
    assert message in said
    assert texts[0]["settings"] == texts[1]["settings"]
    assert texts[0]["ids"] == texts[1]["ids"]
    assert texts[1]["seed"] == 3


def test_help_lists_every_command(talk):
    _, said = talk("/help")
    for name in (
        "set NAME VALUE",
        "preset NAME",
        "strategy NAME",
        "show",
        "reset",
        "history on|off",
        "forget",
        "quit",
    ):
        assert f"  /{name} " in said
    assert "greedy, precise, balanced" in said
    assert "top_k_top_p" in said


def test_two_slashes_begin_a_prompt_with_one(talk):
    texts, _ = talk("//help", "// x")
    assert [each["prompt"] for each in texts] == ["/help", "/ x"]


def test_quit_leaves_and_reads_no_further(talk):
    assert [each["prompt"] for each in talk("x", "/quit", "y")[0]] == ["x"]


def test_lines_that_are_piped_are_prompts_whatever_they_begin_with(cli):
    outcome = cli(*START, "--json", stdin="/help\n//x\n")
    assert [json.loads(line)["prompt"] for line in outcome.out.splitlines()] == ["/help", "//x"]


# History --------------------------------------------------------------------------------------------


def test_with_history_a_line_continues_all_that_was_said(talk, loaded):
    texts, said = talk("/history on", "ab", "cd", "", "/forget", "ab", "/history off", "cd", words=START)
    transcript, greedy = Transcript(loaded.tokenizer), SamplingConfig(temperature=0, max_new_tokens=4)
    for line, written in zip(("ab", "cd", ""), texts, strict=False):
        prompt = transcript.prompt(line)
        expected = generate_text(loaded.model, loaded.tokenizer, prompt, greedy, before=tuple(transcript.ids))
        assert (written["prompt"], tuple(written["ids"])) == (prompt, expected.ids)
        transcript.add(prompt, expected)
    assert [each["prompt_tokens"] for each in texts] == [2, 2 + 4 + 3, 2 + 4 + 3 + 4, 2, 2]
    assert texts[3]["ids"] == texts[0]["ids"]
    assert said.count("history on (0 tokens)") == 2


def test_a_history_longer_than_the_context_is_read_in_part_and_that_is_said(talk):
    texts, said = talk("/history on", "abcdefghij", "k", "/show")
    assert (texts[1]["prompt_tokens"], texts[1]["prompt_tokens_read"]) == (16, 16)
    texts, said = talk("/history on", "abcdefghij", "kl", "/show")
    assert (texts[1]["prompt_tokens"], texts[1]["prompt_tokens_read"]) == (17, 8)
    assert "what was said so far has 17 tokens and the context 16: only the last 8 were read" in said
    assert "history on (21 tokens)" in said


def test_where_the_context_may_not_roll_a_history_that_is_full_says_what_to_do(talk):
    texts, said = talk(
        "/history on", "abcdefghij", "klmno", "/forget", "x", words=(*START, "--when-full", "stop")
    )
    assert [each["prompt"] for each in texts] == ["abcdefghij", "x"]
    assert "the prompt has 20 tokens and the context only 16; " in said
    assert "; or /forget what was said" in said


def test_beams_take_turns_with_history_too(talk):
    words = ("generate", "--max-new-tokens", 3, "--num-beams", 2)
    texts, said = talk(
        "/history on", "ab", "", "/set temperature 1", "/preset plain", "/set min_new_tokens 1", words=words
    )
    assert [each["prompt_tokens"] for each in texts] == [2, 2 + texts[0]["new_tokens"]]
    assert "beams are searched, not drawn: temperature has no effect" in said
    assert "beams are searched, not drawn: preset has no effect" in said
    assert "beams: min_new_tokens 1, max_new_tokens 3; history on" in said


def test_several_results_have_no_history(cli):
    outcome = cli("generate", "--max-new-tokens", 3, "--num-results", 2, typed=["/history on", "x"])
    assert "history goes on from one text; start without --num-results" in outcome.err
    assert "2 texts, " in outcome.err
    assert outcome.status == 0


def test_an_encoder_decoder_answers_and_has_no_history(cli, encoder_decoder):
    outcome = cli(*START, encoder_decoder, typed=["/history on", "x"])
    assert "an encoder-decoder answers a prompt and does not continue it" in outcome.err
    assert outcome.err.count(" tokens/s") == 1


# What goes wrong ------------------------------------------------------------------------------------


def test_a_prompt_that_the_tokenizer_cannot_read_is_said_and_the_next_is_asked_for(cli, train_tiny):
    train_tiny("data.tokenizer.kind=char", "run.dir=runs/char")
    outcome = cli(*START, "runs/char", "--json", typed=["\u65e5", "x", "\x00"])
    assert [json.loads(line)["prompt"] for line in outcome.out.splitlines()] == ["x"]
    assert "\u65e5" in outcome.err
    assert "a zero byte is no text; type the line again" in outcome.err


def test_ctrl_c_at_the_prompt_sign_leaves_with_130(cli, monkeypatch):
    class Interrupted:
        def isatty(self):
            return True

        def readline(self):
            raise KeyboardInterrupt

    from pellucid.cli.main import main

    cli("generate", "--help")
    monkeypatch.setattr(sys, "stdin", Interrupted())
    assert main(["generate"]) == 130
