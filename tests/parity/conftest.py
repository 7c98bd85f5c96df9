"""What comparisons with transformers share: their code in float64, weights far from their initial values, files."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from pellucid.model import DecoderConfig, DecoderLM, EncoderDecoderConfig


class Float64Throughout(TorchFunctionMode):
    """Every float32 that torch functions are asked for becomes float64.

    transformers computes norms, angles and softmax in float32 whatever the model's dtype, which alone is an
    error of 1e-8. To compare formulas and not roundings, its own unchanged code runs under this mode.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        def widen(value):
            return torch.float64 if value is torch.float32 else value

        if function is torch.Tensor.float:
            function = torch.Tensor.double
        return function(*map(widen, args), **{name: widen(value) for name, value in (kwargs or {}).items()})


@pytest.fixture(scope="session")
def float64_throughout() -> type[Float64Throughout]:
    """`with float64_throughout(): …` runs transformers' unchanged code in float64."""
    return Float64Throughout


@torch.no_grad()
def _randomise(model: nn.Module) -> None:
    """Large enough that every part matters: gains around 1, biases and matrices far from 0.

    The numbers are float32's, so that a float64 model can add 1 to them and take it away without rounding.
    """
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        noise = torch.empty(parameter.shape).normal_(generator=generator)
        is_gain = any(word in name for word in ("norm", "ln_")) and not name.endswith("bias")
        parameter.copy_(1 + 0.4 * noise if is_gain else 0.3 * noise)


@pytest.fixture(scope="session")
def randomise() -> Callable[[nn.Module], None]:
    return _randomise


@pytest.fixture(scope="session")
def same_weights() -> Callable[
    [ModuleType, DecoderConfig | EncoderDecoderConfig], tuple[nn.Module, nn.Module]
]:
    """The same random weights in our model and in theirs, which no id of its config ends, both in float64."""

    def build(maps: ModuleType, config: DecoderConfig | EncoderDecoderConfig) -> tuple[nn.Module, nn.Module]:
        with Float64Throughout():
            theirs_config = AutoConfig.for_model(**maps.config_to_hf(config))
            cls = AutoModelForCausalLM if isinstance(config, DecoderConfig) else AutoModelForSeq2SeqLM
            theirs = cls.from_config(theirs_config, dtype=torch.float64, attn_implementation="eager").eval()
            if isinstance(config, EncoderDecoderConfig):
                theirs.lm_head.weight = nn.Parameter(theirs.shared.weight.clone())
            _randomise(theirs)
        theirs.generation_config.eos_token_id = None
        ours = config.build().double().eval()
        ours.load_state_dict(maps.weights_from_hf(theirs.state_dict(), config))
        return ours, theirs

    return build


@pytest.fixture(scope="session")
def some_ids() -> Tensor:
    """[2, 40] ids of a vocabulary of 61."""
    return torch.randint(0, 61, (2, 40), generator=torch.Generator().manual_seed(1))


_PLAIN = {"dtype": torch.float64, "experts_implementation": "eager"}
"""torch's grouped product of experts knows no float64."""


class Exchange:
    """Ours and theirs of one decoder config, in float64, with a directory in their format between them."""

    def __init__(self, folder: Path, ids: Tensor) -> None:
        self.folder, self.ids = folder, ids

    @torch.no_grad()
    def theirs_to_ours(self, maps: ModuleType, cls: type, config: DecoderConfig, attention: str) -> None:
        """Their random weights, written by their code, give their logits in our model, and come back to the bit."""
        with Float64Throughout():
            theirs = cls._from_config(
                cls.config_class(**maps.config_to_hf(config)),
                attn_implementation=attention,
                **_PLAIN,
            ).eval()
            _randomise(theirs)
            expected = theirs(input_ids=self.ids).logits
            theirs.save_pretrained(self.folder)
        written, weights = self.read()
        # How many rows pad our tables is no part of the model.
        assert maps.config_from_hf(written) == config.model_copy(update={"vocab_multiple": 1})
        ours = DecoderLM(config).double()
        ours.load_state_dict(maps.weights_from_hf(weights, config))
        assert expected.std() > 0.1
        assert (ours(self.ids) - expected).abs().max() <= 1e-10
        back = maps.weights_to_hf(ours.state_dict(), config)
        assert back.keys() == weights.keys()
        assert all(torch.equal(back[name], weights[name]) for name in weights)

    @torch.no_grad()
    def ours_to_theirs(self, maps: ModuleType, cls: type, config: DecoderConfig) -> None:
        """Our random weights, read by their code, give our logits in their model, and come back to the bit."""
        ours = DecoderLM(config).double()
        _randomise(ours)
        for name, role in ours.parameter_roles().items():
            if role in ("embedding", "head"):
                ours.get_parameter(name)[config.vocab_size :] = 0  # rows that pad, as they are initialised
        (self.folder / "config.json").write_text(json.dumps(maps.config_to_hf(config)))
        weights = maps.weights_to_hf(ours.state_dict(), config)
        save_file(weights, self.folder / "model.safetensors", metadata={"format": "pt"})
        with Float64Throughout():
            theirs, loading = cls.from_pretrained(
                self.folder, attn_implementation="eager", output_loading_info=True, **_PLAIN
            )
            expected = theirs.eval()(input_ids=self.ids).logits
        assert not any(loading.values()), loading
        assert (ours(self.ids) - expected).abs().max() <= 1e-10
        back = maps.weights_from_hf(self.read()[1], config)
        assert all(torch.equal(back[name], tensor) for name, tensor in ours.state_dict().items())

    def read(self) -> tuple[dict, dict[str, Tensor]]:
        """(config.json, weights): all that our side gets to see."""
        config = json.loads((self.folder / "config.json").read_text())
        return config, load_file(self.folder / "model.safetensors")


@pytest.fixture
def exchange(tmp_path: Path, some_ids: Tensor) -> Exchange:
    return Exchange(tmp_path, some_ids)
