"""Minutes on two CPU cores: a byte-level encoder-decoder that fills in what was cut out of the built-in corpus.

In that time it learns to name the gaps in order and to spell what could stand there; what is written around a gap
begins to tell only towards the end, and counts for much in longer runs alone.
"""

from pellucid.data.config import DataConfig
from pellucid.data.objectives import SpanCorruptionConfig, sentinel_names
from pellucid.model import EncoderDecoderConfig
from pellucid.model.positions import LearnedPositionConfig
from pellucid.optim import AdamWConfig, CosineConfig
from pellucid.tokenizers import ByteConfig
from pellucid.train.config import RunConfig, RunDirectoryConfig, TrainConfig


def encdec_quick() -> RunConfig:
    return RunConfig(
        model=EncoderDecoderConfig(
            d_model=128,
            num_encoder_layers=2,
            num_decoder_layers=2,
            num_heads=4,
            max_seq_len=128,
            position=LearnedPositionConfig(),  # gaps come in order, so a place in the target hints at one in the source
        ),
        data=DataConfig(
            tokenizer=ByteConfig(special_tokens=sentinel_names(100)), objective=SpanCorruptionConfig()
        ),
        train=TrainConfig(
            steps=1000,
            batch_tokens=4096,
            lr=2e-3,
            optimizer=AdamWConfig(beta2=0.98),
            schedule=CosineConfig(warmup_steps=50, final_fraction=0.02),
            eval_every=250,
            checkpoint_every=250,
            sample_prompt="ROMEO:\nBut, soft! what <extra_id_0> through yonder <extra_id_1> breaks?\n<extra_id_2>",
            sample_tokens=27,  # a target's length: no later place in one was ever learned
        ),
        run=RunDirectoryConfig(name="encdec-quick"),
    )
