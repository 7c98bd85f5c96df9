"""SmolLM2 in its smallest size: a deep and narrow Llama.  Source: Allal et al. 2025, arXiv:2502.02737."""

from pellucid.model import DecoderConfig
from pellucid.model.feedforward import SwiGLUConfig
from pellucid.model.norms import RMSNormConfig
from pellucid.model.positions import RotaryPositionConfig


def smollm2_135m() -> DecoderConfig:
    """134,515,008 parameters, as HuggingFaceTB/SmolLM2-135M."""
    return DecoderConfig(
        vocab_size=49152,
        d_model=576,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        max_seq_len=8192,
        norm=RMSNormConfig(eps=1e-5),
        position=RotaryPositionConfig(theta=100_000),
        feed_forward=SwiGLUConfig(d_ff=1536),
    )
