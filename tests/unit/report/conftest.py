"""Small models and their walks. Everything is random but the structure."""

from html.parser import HTMLParser

import pytest
import torch

from pellucid.config import from_tree
from pellucid.model import DecoderConfig, EncoderDecoderConfig
from pellucid.report.walkthrough import Origin, walk
from pellucid.tokenizers import build

SIZES = {"vocab_size": 257, "d_model": 16, "num_heads": 4, "num_kv_heads": 2, "max_seq_len": 40}
TEXT = "To be, or not"


@pytest.fixture
def byte_tokenizer():
    return build("byte")


@pytest.fixture
def decoder():
    def make(**settings):
        model = from_tree(DecoderConfig, {**SIZES, "num_layers": 2, **settings}).build()
        return _livelier(model)

    return make


@pytest.fixture
def encoder_decoder():
    def make(**settings):
        layers = {"num_encoder_layers": 1, "num_decoder_layers": 2}
        return _livelier(from_tree(EncoderDecoderConfig, {**SIZES, **layers, **settings}).build())

    return make


@pytest.fixture
def stroll(byte_tokenizer):
    """Walk TEXT through a model."""

    def run(model, text=TEXT, **settings):
        settings.setdefault("origin", Origin.random("a small model", seed=0))
        return walk(model, byte_tokenizer, text, **settings)

    return run


@torch.no_grad()
def _livelier(model):
    """Weights ten times as large, so that attention and logits are far from even."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.mul_(10)
    return model


class Page(HTMLParser):
    """Checks that every tag is closed, and collects what the page consists of."""

    VOID = frozenset({"meta", "br", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside: dict[str, list[str]] = {}
        self._places: list[tuple[str, int]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
            self._places.append((tag, len(self.inside.setdefault(tag, []))))
            self.inside[tag].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self._places.pop()

    def handle_data(self, data):
        self.texts.append(data)
        for tag, place in self._places:
            self.inside[tag][place] += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture
def read_page():
    """An HTML page's parts, once every tag is known to be closed."""
    return Page
