"""ablation.json: written, read again, and refused where it is damaged."""

import json
import re

import pytest

from pellucid.errors import DataError
from pellucid.report.ablation.record import ABLATION, AblationRecord, Cell


def record(**changes):
    cells = tuple(
        Cell(name=kind, values={"model.norm.kind": kind}, overrides=(f"model.norm.kind={kind}",),
             parameters=1000 + number, flops=1e12, steps=300)
        for number, kind in enumerate(("rmsnorm", "layernorm"))
    )  # fmt: skip
    return AblationRecord(
        **{"preset": "quick", "overrides": ("train.steps=300",), "match": "flops", "seeds": (0, 1),
           "vary": {"model.norm.kind": ("rmsnorm", "layernorm")}, "cells": cells, **changes}
    )  # fmt: skip


def test_a_record_is_read_as_it_was_written(tmp_path):
    written = record(created="2026-01-02T03:04:05Z", baseline=1)
    written.write(tmp_path)
    assert AblationRecord.read(tmp_path) == written
    tree = json.loads((tmp_path / ABLATION).read_text())
    assert tree["format_version"] == 1
    assert tree["cells"][1]["parameters"] == 1001


def test_values_keep_their_types(tmp_path):
    levels = (2, 0.5, True, "x")
    cells = tuple(
        Cell(name=f"c{n}", values={"k": level}, overrides=(), parameters=1, flops=1.0)
        for n, level in enumerate(levels)
    )
    record(vary={"k": levels}, cells=cells).write(tmp_path)
    read = AblationRecord.read(tmp_path).vary["k"]
    assert read == levels
    assert [type(value) for value in read] == [int, float, bool, str]


def test_where_a_run_lies(tmp_path):
    made = record()
    assert made.run_directory(tmp_path, made.cells[1], 7) == tmp_path / "runs" / "layernorm-s7"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format_version": 2}, "wanted format version 1, found 2"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "a seed stands twice"),
        ({"baseline": 2}, "baseline is cell 2 of 2"),
        ({"match": "luck"}, "match"),
        ({"cells": []}, "cells"),
        ({"vary": {"model.norm.kind": ["rmsnorm"]}}, "'layernorm' for model.norm.kind"),
        ({"surprise": 1}, "surprise: there is no such key"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, change, says):
    (tmp_path / ABLATION).write_text(json.dumps({**record().to_dict(), **change}))
    with pytest.raises(DataError, match=re.escape(says)) as error:
        AblationRecord.read(tmp_path)
    assert str(tmp_path / ABLATION) in str(error.value)


@pytest.mark.parametrize("text", ['{"format_version": 1, ', "[]", '"x"', "\udcff"])
def test_what_is_no_record_is_refused(tmp_path, text):
    (tmp_path / ABLATION).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=re.escape(ABLATION)):
        AblationRecord.read(tmp_path)


def test_a_folder_without_one_says_how_to_make_one(tmp_path):
    with pytest.raises(DataError, match="make one with `pellucid ablate`"):
        AblationRecord.read(tmp_path)


def test_a_cell_cannot_leave_the_folder(tmp_path):
    tree = record().to_dict()
    tree["cells"][0]["name"] = "../../elsewhere"
    (tmp_path / ABLATION).write_text(json.dumps(tree))
    with pytest.raises(DataError, match="name"):
        AblationRecord.read(tmp_path)


def test_two_cells_of_one_name_are_refused(tmp_path):
    tree = record().to_dict()
    tree["cells"][0]["name"] = "layernorm"
    (tmp_path / ABLATION).write_text(json.dumps(tree))
    with pytest.raises(DataError, match="two cells have the name 'layernorm'"):
        AblationRecord.read(tmp_path)
