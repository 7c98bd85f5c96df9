"""A mixture of experts: which experts a token goes to (routing), what they compute (experts), the layer (layer)."""

from pellucid.model.feedforward.moe.layer import MoE, MoEConfig

__all__ = ["MoE", "MoEConfig"]
