"""What was said so far: as ids, so that it is continued exactly and nothing of it is read twice."""

import pytest
import torch

from pellucid.errors import ConfigError, TokenizerError
from pellucid.generate.engine import Options
from pellucid.generate.prefixes import Prefixes
from pellucid.generate.sampling import SamplingConfig
from pellucid.generate.text import Generation, generate_text, generate_texts
from pellucid.generate.transcript import Transcript
from pellucid.model import DecoderConfig, EncoderDecoderConfig
from pellucid.tokenizers import ByteTokenizer

TOKENIZER = ByteTokenizer()
END = TOKENIZER.end_of_text_id
GREEDY = SamplingConfig(temperature=0, max_new_tokens=6, min_new_tokens=6)
SIZES = {"vocab_size": 257, "d_model": 16, "num_heads": 2, "max_seq_len": 128}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return DecoderConfig(**SIZES, num_layers=2).build().eval()


def written(prompt, text, ids, reason):
    return Generation(prompt, text, tuple(ids), 1, 1, reason, 1.0)


def ids(text):
    return list(text.encode())


@pytest.mark.parametrize(
    ("text", "new", "reason", "kept"),
    [
        ("cd", ids("cd"), "length", ids("cd")),
        ("c\ufffd", [99, 0xC3], "length", [99, 0xC3]),
        ("cd", ids("cd"), "context", ids("cd")),
        ("cd", [*ids("cd"), END], "end of text", ids("cd")),
        ("c", ids("c. x"), "stop", ids("c")),
    ],
)
def test_what_only_ended_a_text_is_left_out(text, new, reason, kept):
    transcript = Transcript(TOKENIZER)
    transcript.add("ab", written("ab", text, new, reason))
    assert transcript.ids == ids("ab") + kept


def test_a_line_begins_a_line_and_an_empty_one_lets_the_text_go_on():
    transcript = Transcript(TOKENIZER)
    assert transcript.prompt("ab") == "ab"
    transcript.add_text("ab", "cd")
    assert transcript.prompt("ef") == "\nef"
    assert transcript.prompt("") == ""
    transcript.add_text("\nef", "")
    assert TOKENIZER.decode(transcript.ids) == "abcd\nef"


def test_an_empty_beginning_is_the_end_of_another_text():
    transcript = Transcript(TOKENIZER)
    transcript.add_text("", "ab")
    assert transcript.ids == [END, *ids("ab")]


def test_without_a_newline_lines_follow_each_other():
    class Words(ByteTokenizer):
        def encode(self, text, *, allow_special=False):
            if "\n" in text:
                raise TokenizerError("there is no newline")
            return super().encode(text, allow_special=allow_special)

    transcript = Transcript(Words())
    transcript.add_text("ab", "cd")
    assert transcript.prompt("ef") == "ef"


def test_what_stands_before_a_prompt_is_continued_as_if_it_were_its_beginning(model):
    whole = generate_text(model, TOKENIZER, "abcdef", GREEDY)
    parted = generate_text(model, TOKENIZER, "def", GREEDY, before=ids("abc"))
    assert (parted.ids, parted.prompt, parted.prompt_tokens) == (whole.ids, "def", 6)
    assert generate_text(model, TOKENIZER, "", GREEDY, before=ids("abcdef")).ids == whole.ids


def test_it_stands_before_every_prompt_of_a_batch(model):
    found = generate_texts(model, TOKENIZER, ["def", "x"], GREEDY, before=ids("abc"))
    alone = generate_texts(model, TOKENIZER, ["abcdef", "abcx"], GREEDY)
    assert [[each.ids for each in results] for results in found] == [
        [each.ids for each in results] for results in alone
    ]


def test_nothing_stands_before_the_source_of_an_encoder_decoder():
    pair = EncoderDecoderConfig(**SIZES, num_encoder_layers=1, num_decoder_layers=1).build().eval()
    with pytest.raises(ConfigError, match="an encoder-decoder reads its prompt alone"):
        generate_text(pair, TOKENIZER, "x", GREEDY, before=ids("abc"))


def test_nothing_that_was_said_is_read_twice(model, monkeypatch):
    read, hidden = [], model.hidden
    monkeypatch.setattr(
        model, "hidden", lambda new, **inputs: read.append(new.shape[1]) or hidden(new, **inputs)
    )
    options = Options(prefixes=Prefixes(2**20))
    transcript, texts = Transcript(TOKENIZER), []
    for line in ("a line of twenty ids", "another", "", "and the last"):
        prompt, before = transcript.prompt(line), tuple(transcript.ids)
        new = generate_text(model, TOKENIZER, prompt, GREEDY, before=before, options=options)
        texts.append((before, prompt, new.ids))
        transcript.add(prompt, new)
    assert sum(read) == len(transcript.ids) - 1, "all but the last, which nothing has followed yet"
    for before, prompt, new in texts:
        assert generate_text(model, TOKENIZER, prompt, GREEDY, before=before).ids == new


def test_a_text_that_is_broken_off_leaves_the_model_as_it_was(model):
    model.train()

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_text(model, TOKENIZER, "ab", GREEDY, on_text=stop)
    assert model.training
