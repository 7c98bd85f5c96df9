"""The end of the walk: logits become probabilities of the next token."""

from __future__ import annotations

import math

from pellucid.model.interface import Head
from pellucid.report.walkthrough.labels import token_labels
from pellucid.report.walkthrough.sources import file_of, formula_of
from pellucid.report.walkthrough.subject import Subject
from pellucid.report.walkthrough.values import Bars, Section

CANDIDATES = 5


def prediction_section(subject: Subject) -> Section:
    tower = subject.decoder
    logs = subject.observation.logits[0].double().log_softmax(dim=-1)  # [T, V]
    last = logs[-1].exp()
    entropy = -(last * logs[-1]).nan_to_num(0.0).sum().item()
    vocabulary = last.shape[0]
    top = last.topk(min(CANDIDATES, vocabulary))
    labels = token_labels(subject.tokenizer, top.indices.tolist())
    best = list(zip(labels, top.indices.tolist(), top.values.tolist(), strict=True))
    rows = tuple((f"{label}  ({number})", share, f"{share:.2%}") for label, number, share in best)
    is_echo = top.indices[0] == tower.ids[-1] and subject.model.output is None
    head = subject.model.head_parameters()
    is_padded = head.weight.shape[0] != vocabulary
    words = "The last token's vector is multiplied with a vector of every id: the logits, "
    if head.softcap is not None:
        words += f"squeezed between -{head.softcap:g} and {head.softcap:g} (a soft cap), "
    words += "which softmax makes probabilities that add up to 1. "
    words += "To write text is to draw one, append it, and walk again."
    if is_padded:
        words += (
            f" Its table has {head.weight.shape[0]:,} rows, a round number for speed; only the first "
            f"{vocabulary:,} are ids."
        )
    unused = () if is_padded else (", the first vocab_size of them",)
    unused += () if head.softcap is not None else (", soft-capped",)
    surprises = (-logs[:-1].gather(1, tower.ids[1:, None])[:, 0]).tolist()
    remarks = [
        f"Entropy {entropy:.3f} nats: as uncertain as among {math.exp(entropy):,.1f} equally likely tokens, of "
        f"{vocabulary:,}."
    ]
    if subject.origin.is_random and is_echo:
        remarks.append(
            "That it is the token just read is no knowledge: the head is the token table, and untrained blocks have "
            "left the token's own vector in the stream."
        )
    if surprises:
        mean = sum(surprises) / len(surprises)
        remarks.append(
            f"At what came next in the whole {tower.reads} its surprise was {mean:.3f} nats a token; that of blind "
            f"guessing is ln {vocabulary:,} = {math.log(vocabulary):.3f}."
        )
    return Section(
        "The next token",
        words,
        {
            "candidates": [{"token": label, "id": number, "probability": p} for label, number, p in best],
            "entropy_nats": entropy,
            "surprise_nats": surprises,
            "uniform_nats": math.log(vocabulary),
        },
        (Bars(f"likeliest after {tower.labels[-1]!r}", rows, is_written=False),),
        tuple(remarks),
        files=file_of(Head),
        formula=formula_of(Head, absent=unused),
    )
