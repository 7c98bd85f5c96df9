"""The harness asks, our model answers: each number against a plain forward pass, one request at a time."""

import math

import pytest
import torch

from pellucid import checkpoint
from pellucid.errors import CheckpointError, ConfigError
from pellucid.evaluate.documents import Passage, evaluate_documents
from pellucid.generate import SamplingConfig, generate_text
from pellucid.runtime.device import choose_device
from pellucid.runtime.precision import choose_precision

pytest.importorskip("lm_eval", reason="lm_eval is not installed: the extra `eval`")

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

from pellucid.evaluate.lm_eval import PellucidLM

CONTEXT, END = 48, 256
QUESTIONS = [
    {"question": "What do cows drink?", "endings": ["water", "milk and honey", "w"], "answer": 0},
    {"question": "Where is Paris?", "endings": ["in France", "in Texas, too", "where?"], "answer": 1},
    {"question": "", "endings": ["a beginning", "an end", "é"], "answer": 2},
    {"question": "Too long a question " * 4, "endings": ["yes", "no", "perhaps"], "answer": 2},
    {"question": "One byte?", "endings": ["a", "b", "c"], "answer": 0},
]
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{endings}}",
    "doc_to_target": "answer",
    "metric_list": [
        {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
    ],
}
TEXTS = [
    {"text": text}
    for text in ("Short.", "a b " * 11 + "abc", "The quick brown fox is quick. " * 6 + "So?", "é")
]
ROLLING = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "metric_list": [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
}
PROMPTS = [{"prompt": text} for text in ("To be, or", "é", "Once upon a time", "To be, or")]
WRITING = {
    "output_type": "generate_until",
    "doc_to_text": "{{prompt}}",
    "doc_to_target": "",
    "metric_list": [{"metric": "exact_match"}],
}


@torch.no_grad()
def summed(model, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """log p of the continuation and whether it is the likeliest, by one forward pass over the last window."""
    ids = torch.tensor([[*context, *continuation]])[:, -(CONTEXT + 1) :]
    logs = model(ids[:, :-1])[0, -len(continuation) :].log_softmax(-1)
    wanted = ids[0, -len(continuation) :]
    return float(logs.gather(1, wanted[:, None]).sum()), bool((logs.argmax(-1) == wanted).all())


def ask(lm: PellucidLM, kind: str, *arguments) -> list:
    requests = [Instance(kind, {}, each, number) for number, each in enumerate(arguments)]
    return getattr(lm, kind)(requests, disable_tqdm=True)


@pytest.fixture
def lm(checkpoints) -> PellucidLM:
    return PellucidLM(str(checkpoints["decoder"]), device="cpu", max_gen_toks=8)


def test_the_harness_knows_the_name():
    assert get_model("pellucid") is PellucidLM
    assert get_model("dummy").__name__ == "DummyLM"  # and still its own


def test_choices_are_those_of_a_forward_pass_each(evaluate, write_task, loaded):
    results, samples = evaluate(write_task("questions", QUESTIONS, **CHOICE))
    model, tokenizer = loaded
    right = {"acc": 0, "acc_norm": 0}
    for item, sample in zip(QUESTIONS, samples, strict=True):
        context = tokenizer.encode(item["question"].rstrip()).tolist() or [END]
        spaces = item["question"][len(item["question"].rstrip()) :]
        by_hand = [
            summed(model, context, tokenizer.encode(f"{spaces} {ending}").tolist())
            for ending in item["endings"]
        ]
        logs = [log for log, _ in by_hand]
        assert [log for log, _ in sample["filtered_resps"]] == pytest.approx(logs, abs=1e-4)
        assert [greedy for _, greedy in sample["filtered_resps"]] == [greedy for _, greedy in by_hand]
        per_character = [log / len(ending) for log, ending in zip(logs, item["endings"], strict=True)]
        right["acc"] += logs.index(max(logs)) == item["answer"]
        right["acc_norm"] += per_character.index(max(per_character)) == item["answer"]
    assert {name: results[f"{name},none"] * len(QUESTIONS) for name in right} == pytest.approx(right)


def test_perplexities_of_texts_are_those_of_their_windows(evaluate, write_task, loaded):
    results, samples = evaluate(write_task("texts", TEXTS, **ROLLING))
    model, tokenizer = loaded
    logs, words, size = 0.0, 0, 0
    for item, sample in zip(TEXTS, samples, strict=True):
        ids = [END, *tokenizer.encode(item["text"]).tolist()]
        by_hand = 0.0
        for first in range(1, len(ids), CONTEXT):
            end = min(len(ids), first + CONTEXT)  # the last window is a whole one, too
            by_hand += summed(model, ids[max(0, end - 1 - CONTEXT) : first], ids[first:end])[0]
        assert sample["filtered_resps"] == pytest.approx([by_hand], rel=1e-6)
        logs += by_hand
        words += len(item["text"].split())
        size += len(item["text"].encode())
    assert results["bits_per_byte,none"] == pytest.approx(-logs / math.log(2) / size, rel=1e-6)
    assert results["byte_perplexity,none"] == pytest.approx(math.exp(-logs / size), rel=1e-6)
    assert results["word_perplexity,none"] == pytest.approx(math.exp(-logs / words), rel=1e-5)


def test_texts_that_fit_the_context_have_the_bits_per_byte_of_our_own_call(evaluate, write_task, checkpoints):
    texts = [{"text": f"{number} {'fits well ' * (number % 4)}é"} for number in range(24)]
    results, samples = evaluate(write_task("short", texts, **ROLLING))
    found = checkpoint.load(checkpoints["decoder"])
    own = evaluate_documents(
        found.model,
        found.tokenizer,
        [Passage(item["text"]) for item in texts],
        choose_precision("fp32", choose_device("cpu")),
    )
    assert own.unit == "document"
    logs = [log for sample in samples for log in sample["filtered_resps"]]
    assert (-own.units.losses).tolist() == pytest.approx(logs, rel=1e-6)
    assert results["bits_per_byte,none"] == pytest.approx(own.bits_per_byte, rel=1e-6)


def test_texts_are_continued_as_our_own_call_does(evaluate, write_task, checkpoints):
    settings = {"until": ["\n", "a"], "max_gen_toks": 12}
    _, samples = evaluate(write_task("writing", PROMPTS, **WRITING, generation_kwargs=settings))
    found = checkpoint.load(checkpoints["decoder"])
    sampling = SamplingConfig(temperature=0, max_new_tokens=12, stop=("\n", "a"))
    for item, sample in zip(PROMPTS, samples, strict=True):
        own = generate_text(found.model, found.tokenizer, item["prompt"], sampling)
        assert sample["filtered_resps"] == [own.text]


def test_an_encoder_decoder_reads_the_context_as_its_source(evaluate, write_task, checkpoints):
    items = [item for item in QUESTIONS if 0 < len(item["question"]) < CONTEXT]
    _, samples = evaluate(write_task("questions", items, **CHOICE), "encoder_decoder")
    found = checkpoint.load(checkpoints["encoder_decoder"])
    model, tokenizer = found.model.double(), found.tokenizer
    for item, sample in zip(items, samples, strict=True):
        source = torch.tensor([tokenizer.encode(item["question"]).tolist()])
        for ending, (log, _) in zip(item["endings"], sample["filtered_resps"], strict=True):
            target = tokenizer.encode(f" {ending}").tolist()
            with torch.no_grad():
                logits = model(source, torch.tensor([[END, *target[:-1]]]))
            logs = logits[0].log_softmax(-1).gather(1, torch.tensor(target)[:, None])
            assert log == pytest.approx(float(logs.sum()), abs=1e-4)


def test_an_encoder_decoder_has_no_perplexity_of_plain_texts(checkpoints):
    lm = PellucidLM(str(checkpoints["encoder_decoder"]), device="cpu")
    with pytest.raises(ConfigError, match=r"encoder-decoder.*without a source"):
        ask(lm, "loglikelihood_rolling", ("some text",))


def test_a_text_of_no_ids_costs_nothing(lm):
    assert ask(lm, "loglikelihood_rolling", ("",), ("é",))[0] == 0


def test_a_context_without_room_for_what_is_written_is_cut_at_the_left(lm, loaded):
    long = "x" * 100 + "To be, or not to be, that is"
    model, tokenizer = loaded
    half = CONTEXT // 2  # 40 new ids would leave less
    (text,) = ask(lm, "generate_until", (long, {"until": [], "max_gen_toks": 40}))
    sampling = SamplingConfig(temperature=0, max_new_tokens=40)
    assert text == generate_text(model.float(), tokenizer, long[-half:], sampling).text
    (text,) = ask(lm, "generate_until", (long, {"until": [], "max_gen_toks": 8}))
    sampling = SamplingConfig(temperature=0, max_new_tokens=8)
    assert text == generate_text(model, tokenizer, long[-(CONTEXT - 8) :], sampling).text


def test_equal_requests_are_drawn_apart_and_follow_the_seed(lm):
    drawn = ("To be", {"until": [], "do_sample": True, "temperature": 1.5})
    greedy = ("To be", {"until": []})
    torch.manual_seed(7)
    first = ask(lm, "generate_until", drawn, greedy, drawn, greedy)
    assert first[0] != first[2]
    assert first[1] == first[3]
    assert ask(lm, "generate_until", drawn, greedy, drawn, greedy) == first
    torch.manual_seed(8)
    assert ask(lm, "generate_until", drawn)[0] != first[0]


def test_a_setting_of_generation_that_is_not_known_is_named(lm):
    with pytest.raises(ConfigError, match=r"generation_kwargs.*num_beams"):
        ask(lm, "generate_until", ("To be", {"until": [], "num_beams": 4}))


def test_answers_are_kept_by_the_harness_and_found_again(evaluate, write_task, tmp_path, monkeypatch):
    folder = write_task("questions", QUESTIONS, **CHOICE)
    first, _ = evaluate(folder, use_cache=str(tmp_path / "answers"))
    monkeypatch.setattr(
        PellucidLM, "_loglikelihood_tokens", lambda *words, **more: pytest.fail("asked again")
    )
    again, _ = evaluate(folder, use_cache=str(tmp_path / "answers"))
    assert again == first


def test_narrow_products_move_the_numbers_little(lm, checkpoints):
    narrow = PellucidLM(str(checkpoints["decoder"]), dtype="bfloat16", device="cpu")
    ((exact, _),) = ask(lm, "loglikelihood", ("What do cows", " drink?"))
    ((near, _),) = ask(narrow, "loglikelihood", ("What do cows", " drink?"))
    assert near != exact
    assert near == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("use", ["apply_chat_template", "chat_template"])
def test_a_chat_template_is_refused(lm, use):
    with pytest.raises(ConfigError, match="have no chat template; leave out --apply_chat_template"):
        getattr(lm, use)([] if use == "apply_chat_template" else True)
    assert lm.chat_template(False) is None


def test_the_harness_asks_for_no_template_without_being_told(evaluate, write_task):
    folder = write_task("questions", QUESTIONS, **CHOICE)
    with pytest.raises(ConfigError, match="have no chat template"):
        evaluate(folder, apply_chat_template=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"revision": "main"}, r"pellucid has no revision; it has pretrained, dtype"),
        ({"dtype": "int8"}, r"dtype=int8: choose one of"),
        ({"device": "cuda:7"}, r"--device cuda:7: there is no such device"),
        ({"batch_size": "many"}, r"batch_size=many: give a number"),
        ({"batch_size": 0}, r"batch_size=0: give a number from 1 on, or auto"),
        ({"max_batch_size": "few"}, r"max_batch_size=few: give a number from 1 on"),
        ({"batch_tokens": "abc"}, r"model_args: batch_tokens=abc: give a number from 1 on$"),
        ({"batch_tokens": 0}, r"batch_tokens=0: give"),
        ({"batch_tokens": True}, r"batch_tokens=True: give"),
        ({"max_gen_toks": "abc"}, r"max_gen_toks=abc: give a number"),
        ({"max_gen_toks": 1.5}, r"max_gen_toks=1\.5: give a number"),
        ({"max_gen_toks": None}, r"max_gen_toks=None: give a number"),
    ],
)
def test_words_that_are_not_known_are_refused(checkpoints, words, message):
    with pytest.raises(ConfigError, match=message):
        PellucidLM(str(checkpoints["decoder"]), **words)


def test_a_run_may_be_named_by_a_number():
    with pytest.raises(CheckpointError, match=r"^12: no such run or checkpoint"):
        PellucidLM.create_from_arg_string("pretrained=12,device=cpu")


def test_numbers_may_be_quoted(checkpoints):
    lm = PellucidLM.create_from_arg_string(
        f"pretrained={checkpoints['decoder']},device=cpu,batch_tokens='40',max_gen_toks=\"3\""
    )
    assert lm.max_gen_toks == 3
    assert len(ask(lm, "loglikelihood", *[("a question", f" {n}") for n in range(60)])) == 60


def test_what_model_args_say_counts_before_the_command_line(checkpoints):
    lm = PellucidLM.create_from_arg_string(
        f"pretrained={checkpoints['decoder']},device=cpu,dtype=bf16",
        {"device": "cuda:0", "batch_size": "auto", "max_batch_size": None},
    )
    assert (lm.device.type, lm.get_model_info()["model_dtype"]) == ("cpu", "bf16")


def test_results_say_which_weights_they_are_of(lm, checkpoints):
    info = lm.get_model_info()
    assert info["model_sha"] == checkpoint.weights_hash(checkpoints["decoder"])
    assert info["model_num_parameters"] == sum(
        parameter.numel() for parameter in checkpoint.load(checkpoints["decoder"]).model.parameters()
    )
