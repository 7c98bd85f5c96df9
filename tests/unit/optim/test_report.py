"""What is said of who updates what."""

import torch

from pellucid.model import DecoderConfig
from pellucid.model.stats import on_meta
from pellucid.optim import AdamWConfig, MuonConfig, UpdateRow, group_by_role, report, summary

MODEL = DecoderConfig(vocab_size=13, d_model=8, num_layers=2, num_heads=2, max_seq_len=6)


def rows_of(config) -> list[UpdateRow]:
    model = on_meta(MODEL)
    return report(config.build(group_by_role(model, model.parameter_roles()), lr=0.01))


def test_rows_count_every_parameter_once() -> None:
    model = on_meta(MODEL)
    rows = rows_of(MuonConfig())
    assert sum(row.tensors for row in rows) == len(list(model.parameters()))
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in model.parameters())


def test_a_row_says_role_optimizer_decay_and_rate() -> None:
    rows = {row.role: row for row in rows_of(MuonConfig(lr_scale=2.0, weight_decay=0.3))}
    assert rows["embedding"] == UpdateRow("embedding", "adamw", 1, 13 * 8, 0.0, 1.0)
    assert str(rows["embedding"]) == "embedding by adamw: 104 parameters in 1 tensor, no decay"
    matrix = rows["matrix"]
    assert (matrix.method, matrix.weight_decay, matrix.lr_scale) == ("muon", 0.3, 2.0)
    assert str(matrix).endswith(f"{matrix.tensors} tensors, decay 0.3, rate x 2")


def test_the_summary_puts_together_what_is_updated_alike() -> None:
    groups = rows_of(AdamWConfig())
    decayed = sum(row.parameters for row in groups if row.weight_decay)
    tensors = sum(row.tensors for row in groups if row.weight_decay)
    line = summary(groups)
    assert f"matrix, residual_matrix by adamw: {decayed:,} parameters in {tensors} tensors, decay 0.1" in line
    assert "embedding, gain by adamw: " in line
    assert "\n" not in line


def test_what_is_reported_is_what_the_optimizer_has() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    setting = {"params": [weight], "role": "matrix", "method": "sgd", "lr_scale": 3.0, "weight_decay": 0.25}
    assert report(torch.optim.SGD([setting], lr=1.0)) == [UpdateRow("matrix", "sgd", 1, 4, 0.25, 3.0)]
