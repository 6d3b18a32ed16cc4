"""MuQ, an encoder of music, by the package of its authors."""

from functools import cached_property
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from musicinfuser.errors import UserError
from musicinfuser.networks.audio_encoder import AudioEncoder, AudioIdentity, AudioLayer
from musicinfuser.networks.transformers_audio import config_in
from musicinfuser.networks.weights_fingerprint import fingerprint_weights
from musicinfuser.pretrained_sources import (
    find_local,
    looks_local,
    missing_folder,
    missing_weights_named,
)

MUQ_HUB_ID = "OpenMuQ/MuQ-large-msd-iter"
WIDTH, DEPTH = 1_024, 12
"""Channels and layers of the published one."""


class MuQ(AudioEncoder):
    """A hidden state of MuQ (arXiv 2501.01108), in fp32: 25 per second at 24 kHz, 1,024 channels.

    Channels and layers are those of its ``config.json`` where it is on this machine.

    Needs ``pip install muq`` (code MIT, weights CC BY-NC 4.0). Its spectra are centred and padded;
    the first feature, half of which is padding, is left out, so feature k is centred at
    40 (k + 1) ms, as `times` says.
    """

    features = "muq"
    takes_layer = True
    rate_hz, hop, window, width = 24_000, 960, 1_920, WIDTH

    def __init__(
        self, source: str = MUQ_HUB_ID, subfolder: str | None = None, *, layer: AudioLayer = None
    ) -> None:
        """Note where its weights are; arguments as those of `AudioEncoder`."""
        super().__init__(source or MUQ_HUB_ID, subfolder, layer=layer)
        config = config_in(find_local(self.source, subfolder), "config.json")
        depth = config.get("encoder_depth", DEPTH)
        self._num_states = depth + 1 if layer == "all" else 1
        self._hidden_width = config.get("encoder_dim", WIDTH)
        self.width = self._num_states * self._hidden_width

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """The hidden states that its channels are, and the width of each."""
        return ((self._num_states, self._hidden_width),)

    @cached_property
    def module(self) -> nn.Module:  # type: ignore[override]
        """The network, frozen.

        Raises:
            UserError: The package is not installed, or it has no such layer.
            MissingWeightsError: Nothing loadable there.
        """
        self.require()
        import muq

        source = self.source
        with missing_weights_named("MuQ", source, self.subfolder):
            model: Any = muq.MuQ.from_pretrained(
                f"{source}/{self.subfolder}" if self.subfolder else source
            )
        model.model.conformer = _Conformer(model.model.conformer)
        depth = model.config.encoder_depth
        if isinstance(self.layer, int) and self.layer > depth:
            raise UserError(
                f"encoders.audio_layer is {self.layer}, but {source} has {depth} layers; use 0 to "
                f"{depth}."
            )
        return model.float().eval().requires_grad_(False)

    def require(self) -> None:
        """The package and, where they are said to be on this machine, the weights."""
        if find_spec("muq") is None:
            raise UserError("encoders.audio_features: muq needs the package muq; pip install muq.")
        if looks_local(self.source) and find_local(self.source, self.subfolder) is None:
            raise missing_folder("MuQ", self.source, self.subfolder)

    def encode(self, waveforms: Tensor, *, device: torch.device) -> Tensor:
        """Hidden states ``(B, S, width)`` of ``(B, num_samples)`` at 24 kHz in [-1, 1]."""
        with torch.autocast(device.type, enabled=False):
            found = self.module(waveforms.to(device).float(), output_hidden_states=True)
        if self.layer == "all":
            chosen = torch.cat(found.hidden_states, dim=-1)
        else:
            chosen = found.hidden_states[-1 if self.layer is None else self.layer]
        return chosen[:, 1 : 1 + self.num_features(waveforms.shape[1])]

    def identity(self) -> AudioIdentity:
        """Its source and layer, and a fingerprint of its weights once they are loaded."""
        loaded = self.__dict__.get("module")
        return AudioIdentity(
            self.features,
            layer=self.layer,
            encoder=self.source,
            kind="muq",
            weights=None if loaded is None else fingerprint_weights(loaded.state_dict()),
            rate_hz=self.rate_hz / self.hop,
            width=self.width,
            window_seconds=self.times.window_seconds,
        )


class _Conformer(nn.Module):
    """MuQ's encoder; transformers 5 gives hidden states to models of its own only (muq 0.1.0)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        encoder.config._attn_implementation = "eager"  # type: ignore[union-attr]
        self.encoder = encoder

    def forward(
        self, x: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = True
    ) -> dict[str, Any]:
        """What transformers 4 gave: the input of each layer, and the normalised output."""
        states: list[Tensor] = []
        layers: Any = self.encoder.layers
        hooks = [
            layer.register_forward_pre_hook(
                lambda _, given, named: states.append(
                    given[0] if given else named["hidden_states"]
                ),
                with_kwargs=True,
            )
            for layer in layers
        ]
        try:
            last = self.encoder(x, attention_mask=attention_mask).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        return {"hidden_states": (*states, last), "last_hidden_state": last}
