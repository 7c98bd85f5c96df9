import pytest
from pydantic import TypeAdapter

from pellucid.config import Config, from_tree, key_paths, members, override, to_tree
from pellucid.errors import ConfigError, TokenizerError
from pellucid.tokenizers import ByteConfig, CharConfig, GPT2Config, TokenizerConfig, build

KINDS = {"byte", "char", "gpt2", "p50k_base", "cl100k_base", "o200k_base", "huggingface"}


class Data(Config):
    tokenizer: TokenizerConfig = ByteConfig()
    other: TokenizerConfig | None = None


class Run(Config):
    data: Data = Data()


def test_the_union_is_the_registry() -> None:
    assert set(members(TokenizerConfig)) == KINDS
    assert set(members(Data.model_fields["tokenizer"].annotation)) == KINDS
    assert set(members(Data.model_fields["other"].annotation)) == KINDS


@pytest.mark.parametrize("value", ["gpt2", {"kind": "gpt2"}, GPT2Config()])
def test_a_bare_string_a_mapping_and_a_config_are_the_same(value: object) -> None:
    run = from_tree(Run, {"data": {"tokenizer": value, "other": value}})
    assert run.data.tokenizer == run.data.other == GPT2Config()


def test_overrides_reach_below_a_bare_string() -> None:
    tree = override({}, ["data.tokenizer=gpt2", "data.tokenizer.max_ranks=300"])
    assert from_tree(Run, tree).data.tokenizer == GPT2Config(max_ranks=300)


def test_a_config_survives_the_trip_through_a_tree() -> None:
    run = Run(data=Data(tokenizer=CharConfig(alphabet="a\n\x00é", special_tokens=("<pad>",))))
    assert from_tree(Run, to_tree(run)) == run


def test_every_key_has_a_path() -> None:
    below = {path.removeprefix("data.tokenizer.") for path in key_paths(Run) if path.startswith("data.tok")}
    assert below == {
        "kind",
        "special_tokens",
        "alphabet",
        "max_ranks",
        "ranks_file",
        "path",
        "revision",
        "end_of_text",
    }


@pytest.mark.parametrize("value", ["gpt3", {"kind": "gpt3"}])
def test_an_unknown_kind_is_named_with_the_nearest_and_all_kinds(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        from_tree(Run, {"data": {"tokenizer": value}})
    message = str(caught.value)
    assert message.startswith("data.tokenizer.kind: there is no kind 'gpt3'; did you mean 'gpt2'?")
    assert all(kind in message for kind in KINDS)


def test_build_takes_a_kind_a_mapping_or_a_config() -> None:
    assert build("byte").fingerprint == build({"kind": "byte"}).fingerprint == build(ByteConfig()).fingerprint


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("gtp2", r"no kind 'gtp2'; did you mean 'gpt2'\?"),
        ({"kind": "gpt2", "max_rank": 300}, r"max_rank: there is no such key.*did you mean 'max_ranks'\?"),
        ({"kind": "gpt2", "max_ranks": 255}, "max_ranks: .*256"),
        ({"kind": "gpt2", "max_ranks": 50257}, "max_ranks: .*50256"),
        ({"kind": "p50k_base", "max_ranks": 300}, "max_ranks: there is no such key"),
        ({"kind": "gpt2", "ranks_file": "x"}, "ranks_file: there is no such key"),
    ],
)
def test_build_explains_what_it_cannot_take(value: object, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        build(value)  # pyright: ignore[reportArgumentType]


def test_the_json_schema_allows_the_bare_string() -> None:
    schema = TypeAdapter(TokenizerConfig).json_schema()
    assert {"type": "string"} in schema["anyOf"]


def test_fields_have_descriptions() -> None:
    for cls in members(TokenizerConfig).values():
        described = {name for name, field in cls.model_fields.items() if field.description}
        assert described == set(cls.model_fields) - {"kind"}
