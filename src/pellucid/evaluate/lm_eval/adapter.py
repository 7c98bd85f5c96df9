"""A checkpoint as lm-evaluation-harness sees a model: continuations are scored, texts summed up, prompts continued.

Source: Gao et al. 2024, "The language model evaluation harness", doi:10.5281/zenodo.12608602; its `TemplateLM`.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Any, cast

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, simple_parse_args_string

from pellucid import checkpoint
from pellucid.config import from_tree
from pellucid.errors import ConfigError
from pellucid.evaluate.continuations import Progress, score_encoded
from pellucid.evaluate.rows import Encoded
from pellucid.generate.opening import open_writer
from pellucid.generate.sampling import SamplingConfig
from pellucid.generate.text import generate_texts, start_ids
from pellucid.model.interface import LanguageModel
from pellucid.runtime.console import StatusLine, message_console
from pellucid.runtime.device import choose_device
from pellucid.runtime.precision import PrecisionName, choose_precision

DTYPES: Mapping[str, PrecisionName] = {
    "auto": "auto",
    **dict.fromkeys(("fp32", "float32"), "fp32"),
    **dict.fromkeys(("bf16", "bfloat16"), "bf16"),
    **dict.fromkeys(("fp16", "float16"), "fp16"),
}
"""Ours by our names and by torch's."""

_ANY_DEVICE = (None, "auto", "cuda:0")
"""The last is what upstream's command line says where its user says nothing."""

_WRITTEN_AT_ONCE = 16

_Pair = tuple[tuple[str, str] | None, list[int], list[int]]


class PellucidLM(TemplateLM):
    """A run or checkpoint for `lm_eval.simple_evaluate(model=…)`.

    pretrained: the path; a run stands for its best checkpoint. dtype: fp32 (the most exact), bf16, fp16 or auto.
    device: cuda, mps or cpu; left out: the best one here. batch_tokens: tokens that are scored at once.
    batch_size: prompts that are continued together. max_gen_toks: new tokens where a task says nothing.

    Contexts that do not fit are cut at the left. Special tokens in a text are ordinary text. Raises ConfigError for
    words that it does not know, and CheckpointError as `find_checkpoint` does.
    """

    def __init__(
        self,
        pretrained: str,
        dtype: str = "fp32",
        device: str | None = None,
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,
        batch_tokens: int | None = None,
        max_gen_toks: int = 256,
        **unknown: object,
    ) -> None:
        super().__init__()
        if unknown:
            known = "pretrained, dtype, device, batch_size, batch_tokens, max_gen_toks"
            raise ConfigError(f"model_args: pellucid has no {', '.join(unknown)}; it has {known}")
        if dtype not in DTYPES:
            raise ConfigError(f"model_args: dtype={dtype}: choose one of {', '.join(DTYPES)}")
        self._dtype: PrecisionName = DTYPES[dtype]
        self._batch_tokens = None if batch_tokens is None else _count("batch_tokens", batch_tokens)
        self._written_at_once = _rows(batch_size, max_batch_size)
        self.max_gen_toks = _count("max_gen_toks", max_gen_toks)
        chosen = choose_device(None if device in _ANY_DEVICE else device)
        self._precision = choose_precision(self._dtype, chosen)
        path, self._why = checkpoint.find_checkpoint(Path(str(pretrained)))  # upstream makes a number of 12
        loaded = checkpoint.load(path, device=chosen.torch, is_verified=True)
        self._path, self._model, self._tokenizer = path, loaded.model, loaded.tokenizer
        self._device = chosen.torch
        self.backend = "causal" if self._model.continues_prompt else "seq2seq"

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> PellucidLM:
        """From "pretrained=…,dtype=…"."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> PellucidLM:
        """From model_args, which count before what the command line says elsewhere."""
        elsewhere = {name: value for name, value in (additional_config or {}).items() if value is not None}
        return cls(**{**elsewhere, **arg_dict})

    @property
    def eot_token_id(self) -> int:
        """What a text begins after: the end-of-text id, or a newline where the tokenizer has none."""
        return start_ids(self._tokenizer, "", allow_special=False)[0]

    @property
    def max_length(self) -> int:
        return self._model.max_seq_len

    @property
    def tokenizer_name(self) -> str:
        return f"{self._tokenizer.kind}-{self._tokenizer.fingerprint}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        return self._tokenizer.encode(string).tolist()

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes beside its results."""
        return {
            "model_num_parameters": sum(parameter.numel() for parameter in self._model.parameters()),
            "model_dtype": self._precision.name,
            "model_sha": checkpoint.weights_hash(self._path),
            "model_source": self._why,
        }

    def _loglikelihood_tokens(
        self, requests: Sequence[_Pair], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        encoded = [Encoded(tuple(context), tuple(continuation)) for _, context, continuation in requests]
        show = _nothing if disable_tqdm else _status("scoring")
        scored = score_encoded(
            self._model, encoded, self._precision, batch_tokens=self._batch_tokens, progress=show
        )
        answers = [(each.log_probability, each.is_greedy) for each in scored]
        for (texts, *_), answer in zip(requests, answers, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each text, by upstream's windows: every id once, the first after the end-of-text id.

        Raises ConfigError for an encoder-decoder, which answers a source and gives no text a probability of its own.
        """
        if not self._model.continues_prompt:
            raise ConfigError(
                f"{self._path} is an encoder-decoder, which holds no text likely without a source: "
                "it has no perplexity of plain texts; choose tasks of questions and answers"
            )
        texts = [cast("str", request.args[0]) for request in requests]
        windows: list[_Pair] = []
        owners: list[int] = []
        for number, text in enumerate(texts):
            for pair in get_rolling_token_windows(
                self.tok_encode(text), self.prefix_token_id, self.max_length, context_len=1
            ):
                windows.append((None, *make_disjoint_window(pair)))
                owners.append(number)
        sums = [0.0] * len(texts)
        scored = self._loglikelihood_tokens(windows, disable_tqdm=disable_tqdm)
        for number, (log_probability, _) in zip(owners, scored, strict=True):
            sums[number] += log_probability
        for text, total in zip(texts, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, up to a stop text, which is left out."""
        alike: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for number, request in enumerate(requests):
            context, settings = cast("tuple[str, dict[str, Any]]", request.args)
            alike[json.dumps(settings, sort_keys=True)][context].append(number)
        texts = [""] * len(requests)
        show, done = _nothing if disable_tqdm else _status("writing"), 0
        for settings, waiting in alike.items():
            sampling = self._sampling(json.loads(settings))
            copies = 1 if sampling.temperature == 0 else max(map(len, waiting.values()))
            for context, written in self._written(list(waiting), sampling, copies):
                for number, text in zip(waiting[context], cycle(written), strict=False):
                    texts[number] = text
                    self.cache_hook.add_partial("generate_until", requests[number].args, text)
                done += len(waiting[context])
                show(done, len(requests))
        return texts

    @cached_property
    def _writer(self) -> LanguageModel:
        """The same model once more, its weights stored as writing is fastest."""
        return open_writer(self._path, self._precision.device, self._dtype).loaded.model

    def _sampling(self, settings: dict[str, Any]) -> SamplingConfig:
        """Greedy unless asked for otherwise; draws follow torch's seed, which the harness has set.

        Raises ConfigError for a setting that `SamplingConfig` has not.
        """
        wanted: dict[str, Any] = {**normalize_gen_kwargs(settings, self.max_gen_toks)}
        is_drawn = wanted.pop("do_sample")
        named = {
            "temperature": wanted.pop("temperature", 1.0) if is_drawn else 0.0,
            "max_new_tokens": wanted.pop("max_gen_toks"),
            "stop": [text for text in wanted.pop("until") if text],
        }
        seed = torch.initial_seed() % 2**32
        return from_tree(SamplingConfig, {"seed": seed, **wanted, **named}, where="generation_kwargs")

    def _written(
        self, contexts: Sequence[str], sampling: SamplingConfig, num_results: int
    ) -> Iterator[tuple[str, list[str]]]:
        """The texts of each context, longest contexts first. One that leaves no room for new ids is cut at the left."""
        room = max(self.max_length - sampling.max_new_tokens, self.max_length // 2)
        fitting, long = list[str](), list[tuple[str, list[int]]]()
        for context in sorted(contexts, key=len, reverse=True):
            ids = self.tok_encode(context) if self._model.continues_prompt else []
            if len(ids) > room:
                long.append((context, ids[-room:]))
            else:
                fitting.append(context)
        for context, ids in long:
            (results,) = generate_texts(
                self._writer, self._tokenizer, [""], sampling, before=ids, num_results=num_results
            )
            yield context, [each.text for each in results]
        written = generate_texts(
            self._writer,
            self._tokenizer,
            fitting,
            sampling,
            num_results=num_results,
            batch_size=self._written_at_once,
        )
        for context, results in zip(fitting, written, strict=True):
            yield context, [each.text for each in results]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Raises ConfigError: a checkpoint says nothing of how a conversation is written down."""
        raise ConfigError(
            f"{self._path}: checkpoints of Pellucid have no chat template; leave out --apply_chat_template"
        )

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Raises ConfigError where one is wanted."""
        return self.apply_chat_template([]) if chat_template else None


def _nothing(done: int, total: int) -> None:
    """Say nothing of it."""


def _status(what: str) -> Progress:
    """Tell how much is done, and how long the rest may take by what it took so far."""
    console = message_console()
    line, began = StatusLine(console, after_s=2), time.monotonic()

    def show(done: int, total: int) -> None:
        left = (time.monotonic() - began) * (total / done - 1)
        line.show(f"{what}: {done / total:.0%}, {left:,.0f} s left")
        if done == total:
            line.clear()

    return show


def _rows(batch_size: int | str, most: int | None) -> int:
    """Prompts that are continued together: a number, or "auto" and what upstream may append to it."""
    if isinstance(batch_size, str) and batch_size.partition(":")[0] == "auto":
        return _WRITTEN_AT_ONCE if most is None else min(_WRITTEN_AT_ONCE, _count("max_batch_size", most))
    return _count("batch_size", batch_size, ", or auto")


def _count(name: str, value: object, other: str = "") -> int:
    """A number from 1 on, of which upstream makes an int, a float or text, as its word looks."""
    if not re.fullmatch("[1-9][0-9]{0,8}", str(value)):
        raise ConfigError(f"model_args: {name}={value}: give a number from 1 on{other}")
    return int(str(value))
