"""MERT, an encoder of music: a HuBERT at 24 kHz, read without the code in its repository."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from musicinfuser.errors import UserError
from musicinfuser.networks.transformers_audio import TransformersAudio, check_audio_encoder
from musicinfuser.networks.weights_fingerprint import UNUSED
from musicinfuser.pretrained_sources import load_pretrained, missing_weights_named

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_OF_THE_REPOSITORY = ("model_type", "architectures", "auto_map", "transformers_version")


class Mert(TransformersAudio):
    """A hidden state of MERT (arXiv 2306.00107), in fp32: 75 per second at 24 kHz.

    ``m-a-p/MERT-v1-95M`` (12 layers, 768 channels) and its like; weights CC BY-NC 4.0. Their
    repositories bring code of their own and ask to run it. None of it is run: without a constant-Q
    transform and DeepNorm, what that code builds is a HuBERT, and transformers has that.
    """

    features = "mert"
    rate_hz = 24_000

    @cached_property
    def module(self) -> nn.Module:
        """The network, frozen.

        Raises:
            MissingWeightsError: Nothing loadable there.
            UserError: HuBERT cannot express it, its weights are not HuBERT's, or it has no such
                layer.
        """
        from transformers import HubertModel, PreTrainedConfig

        config = self._config
        if not config:
            with missing_weights_named("MERT", self.source, self.subfolder):
                place = {"subfolder": self.subfolder or ""}
                config, _ = PreTrainedConfig.get_config_dict(self.source, **place)
        model, found = load_pretrained(
            HubertModel, self.source, self.subfolder, config=self.network_config(config),
            dtype=torch.float32, output_loading_info=True,
        )  # fmt: skip
        different = {*found["missing_keys"], *found["unexpected_keys"]} - UNUSED
        if different or found["mismatched_keys"]:
            raise UserError(
                f"{self.source} does not hold the weights of a MERT: e.g. "
                f"{min(map(str, different or found['mismatched_keys']))} differs; get it again."
            )
        check_audio_encoder(model, self.source, layer=self.layer)
        return model.eval().requires_grad_(False)

    def network_config(self, config: dict[str, Any]) -> "PreTrainedConfig":
        """Of the HuBERT that a MERT's ``config.json`` describes.

        Raises:
            UserError: It is no MERT, or one that HuBERT cannot express.
        """
        from transformers import HubertConfig

        kind = config.get("model_type")
        if kind != "mert_model":
            raise UserError(
                f"{self.source} is a {kind}, no MERT; give m-a-p/MERT-v1-95M, or set "
                "encoders.audio_features to encoder."
            )
        for name in ("feature_extractor_cqt", "deepnorm"):
            if config.get(name):
                raise UserError(
                    f"{self.source} has {name}: true in its config.json, which HuBERT cannot "
                    "express; give a MERT without it, such as m-a-p/MERT-v1-95M."
                )
        known = {name: value for name, value in config.items() if name not in _OF_THE_REPOSITORY}
        return HubertConfig(**known)
