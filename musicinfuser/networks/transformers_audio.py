"""Audio encoders of transformers: wav2vec 2.0 (section 5.1), its like, and w2v-BERT."""

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from musicinfuser.errors import UserError
from musicinfuser.fingerprint import fingerprint_folder
from musicinfuser.networks.audio_encoder import BEATS, AudioEncoder, AudioIdentity, AudioLayer
from musicinfuser.networks.beat_positions import (
    CYCLES_BEATS,
    SPEEDS,
    at_own_speed,
    at_speed,
    follow_beats,
)
from musicinfuser.networks.weights_fingerprint import fingerprint_weights, mapped_weights
from musicinfuser.pretrained_sources import (
    find_local,
    load_pretrained,
    looks_local,
    missing_folder,
)

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

WAV2VEC_HUB_ID = "facebook/wav2vec2-base-960h"
BEATS_WIDTH = 2 * len(CYCLES_BEATS)
SPECTRUM_MS, SPECTRUM_HOP_MS = 25, 10
"""Of the feature extractor of w2v-BERT (`SeamlessM4TFeatureExtractor`)."""


class TransformersAudio(AudioEncoder):
    """A hidden state of wav2vec 2.0, HuBERT, WavLM, data2vec or w2v-BERT, in fp32.

    With the layer ``beats``: six channels, the position in the beat, the pair of beats and the bar,
    of an encoder with a head that was trained for it (transformers' audio frame classifier).
    """

    features = "encoder"
    takes_layer = True
    # Of wav2vec 2.0 base, where no config is at hand.
    rate_hz, hop, window, width = 16_000, 320, 400, 768

    def __init__(
        self,
        source: str = WAV2VEC_HUB_ID,
        subfolder: str | None = None,
        *,
        layer: AudioLayer = None,
        model: "PreTrainedModel | None" = None,
        extractor: Any = None,
    ) -> None:
        """Read its configs where they are on this machine; weights are loaded when first used.

        Args:
            source: Hub id or folder.
            subfolder: Folder of the encoder inside.
            layer: Which hidden state; None is the last one, normalised; ``all`` are every one side
                by side, the one before the first layer at first; ``beats`` is its head.
            model: One in memory, in place of ``source``.
            extractor: Its feature extractor.
        """
        super().__init__(source, subfolder, layer=layer)
        self._folder: Path | None = None
        if model is not None:
            self.__dict__ |= {"module": model, "extractor": extractor}
            self.source = model.config.name_or_path
            self._config = model.config.to_dict()
            prepared = {"do_normalize": getattr(extractor, "do_normalize", None)}
            prepared["sampling_rate"] = getattr(extractor, "sampling_rate", None)
            prepared["stride"] = getattr(extractor, "stride", None)
        else:
            self._folder = find_local(source, subfolder)
            self._config = config_in(self._folder, "config.json")
            prepared = config_in(self._folder, "preprocessor_config.json")
        self._normalises = prepared.get("do_normalize")
        self._stacked = prepared.get("stride")
        self.rate_hz = prepared.get("sampling_rate") or self.rate_hz
        self._hidden_width = self._config.get("hidden_size", self.width)
        self.width = BEATS_WIDTH if layer == BEATS else self._num_states * self._hidden_width
        if strides := self._config.get("conv_stride"):
            self.hop, self.window = prod(strides), 1
            for kernel, stride in zip(
                self._config["conv_kernel"][::-1], strides[::-1], strict=True
            ):
                self.window = (self.window - 1) * stride + kernel
        elif stacked := self._stacked:
            # w2v-BERT: spectra of 25 ms every 10 ms, `stride` of them to a token.
            self.hop = stacked * self.rate_hz // 100
            self.window = self.hop + (self.rate_hz // 1000) * (SPECTRUM_MS - SPECTRUM_HOP_MS)

    @property
    def _num_states(self) -> int:
        """Of its channels: one, or what enters the first layer and what each layer gives."""
        return self._config.get("num_hidden_layers", 12) + 1 if self.layer == "all" else 1

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """The hidden states that its channels are, and the width of each."""
        return (
            ((1, self.width),) if self.layer == BEATS else ((self._num_states, self._hidden_width),)
        )

    @cached_property
    def module(self) -> nn.Module:
        """The network, frozen.

        Raises:
            MissingWeightsError: Nothing loadable there.
            UserError: It takes no waveforms, or has no such layer or head.
        """
        if self._config:
            self._check_head(self.network_config(self._config))
        model, found = load_pretrained(
            self._auto_class(),
            self.source,
            self.subfolder,
            dtype=torch.float32,
            output_loading_info=True,
        )
        if any(name.startswith("classifier.") for name in found["missing_keys"]):
            raise _no_head(self.source)
        check_audio_encoder(model, self.source, layer=self.layer)
        return model.eval().requires_grad_(False)

    @cached_property
    def extractor(self) -> Any:
        """What prepares waveforms for it."""
        from transformers import AutoFeatureExtractor

        return load_pretrained(AutoFeatureExtractor, self.source, self.subfolder)

    def encode(self, waveforms: Tensor, *, device: torch.device) -> Tensor:
        """Hidden states ``(B, S, width)``; 2.5 s at 16 kHz give 124 of wav2vec 2.0."""
        with torch.autocast(device.type, enabled=False):
            if self.layer == BEATS:
                return follow_beats(
                    self.beat_points(waveforms, device=device), self.hop / self.rate_hz
                )
            values = self._values(waveforms, device)
            network = without_head(self.module)
            if self.layer is None:
                return network(values).last_hidden_state
            states = network(values, output_hidden_states=True).hidden_states
            return torch.cat(states, dim=-1) if self.layer == "all" else states[self.layer]

    def beat_points(
        self, waveforms: Tensor, *, device: torch.device, speeds: Sequence[float] = SPEEDS
    ) -> Tensor:
        """What the head says of each token, ``(B, S, 3, 2)``: the mean of several speeds."""
        num_tokens, found = self.num_features(waveforms.shape[1]), []
        if num_tokens == 0:
            return torch.zeros(len(waveforms), 0, len(CYCLES_BEATS), 2, device=device)
        for speed in speeds:
            sound = at_speed(waveforms, speed, rate_hz=self.rate_hz)
            if self.num_features(sound.shape[1]) > 0:
                logits = self.module(self._values(sound, device)).logits
                points = logits.unflatten(-1, (len(CYCLES_BEATS), 2))
                first = self.window / 2 / self.hop
                found.append(at_own_speed(points, speed, num_tokens, first=first))
        return torch.stack(found).mean(dim=0)

    def _values(self, waveforms: Tensor, device: torch.device) -> Tensor:
        """What the network takes, of waveforms ``(B, num_samples)``."""
        if self._stacked:  # samples beyond the last token would make one that is half of padding
            num_tokens = self.num_features(waveforms.shape[1])
            waveforms = waveforms[:, : self.window + (num_tokens - 1) * self.hop]
        extracted = self.extractor(
            [waveform.numpy() for waveform in waveforms.cpu()],
            sampling_rate=self.rate_hz,
            return_tensors="pt",
        )
        return extracted[self.module.main_input_name].to(device, self.module.dtype)

    def identity(self) -> AudioIdentity:
        """What its files say, and a fingerprint of its weights; of weights little is read."""
        is_known = "conv_stride" in self._config or self._stacked is not None
        name = f"{self.source}/{self.subfolder}" if self.subfolder else self.source
        if Path(name).is_dir() and not looks_local(name):
            name = f"./{name}"  # a folder can be told from a Hub id
        return AudioIdentity(
            self.features,
            layer=self.layer,
            encoder=name or None,
            kind=self._config.get("model_type"),
            weights=self._weights(),
            rate_hz=self.rate_hz / self.hop if is_known else None,
            width=self.width if "hidden_size" in self._config else None,
            normalises=self._normalises,
            window_seconds=self.window / self.rate_hz if is_known else None,
        )

    def fingerprint(self) -> str:
        """A hash of its files where they are local, else its source; and the layer."""
        if self._folder is None and looks_local(self.source):
            raise missing_folder("audio_encoder", self.source, self.subfolder)
        found = fingerprint_folder(self._folder) if self._folder else self.source
        if self.layer == BEATS:
            return f"{found}, layer {self.layer}, at speeds {SPEEDS}"
        return found if self.layer is None else f"{found}, layer {self.layer}"

    def _auto_class(self) -> Any:
        """The class that builds the network, with the head where that is its features."""
        from transformers import AutoModel, AutoModelForAudioFrameClassification

        return AutoModelForAudioFrameClassification if self.layer == BEATS else AutoModel

    def skeleton(self, config: dict[str, Any]) -> nn.Module:
        """The network that a ``config.json`` describes, without its weights.

        Raises:
            UserError: transformers does not know it, or it has no such layer or head.
        """
        network = self.network_config(config)
        self._check_head(network)
        built = self._auto_class().from_config(network)
        check_audio_encoder(built, self.source, layer=self.layer)
        return built

    def _check_head(self, config: "PreTrainedConfig") -> None:
        """Refuse a kind of network that transformers has no head for, where one is asked for."""
        if self.layer == BEATS and type(config) not in self._auto_class()._model_mapping:
            raise _no_head(self.source)

    def network_config(self, config: dict[str, Any]) -> "PreTrainedConfig":
        """Of the network that a ``config.json`` describes.

        Raises:
            UserError: transformers does not know it.
        """
        from transformers import CONFIG_MAPPING

        kind = config.get("model_type")
        if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
            raise UserError(
                f"audio_encoder: its config.json names the model_type {kind!r}, which transformers "
                "does not know; give a wav2vec 2.0, HuBERT, WavLM or data2vec (encoders.audio)."
            )
        return CONFIG_MAPPING[kind].from_dict(config)

    def _weights(self) -> str | None:
        if self._folder is None:
            model = self.__dict__.get("module")
            if model is None:
                return None
            if self.layer != BEATS:
                model = without_head(model)
            return fingerprint_weights(model.state_dict())
        # Whoever needs the weights says what is wrong with them.
        with suppress(UserError, KeyError, ValueError):
            # In files of a model with a head, names start with what the model calls its base.
            from transformers.models.auto.modeling_auto import MODEL_MAPPING

            base = MODEL_MAPPING[type(self.network_config(self._config))]
            prefix = "" if self.layer == BEATS else f"{base.base_model_prefix}."
            return fingerprint_weights(mapped_weights(self._folder), prefix=prefix)
        return None


def without_head(model: Any) -> Any:
    """The network itself, of one of transformers' classes with a head or without."""
    return getattr(model, model.base_model_prefix, model)


def _no_head(source: str) -> UserError:
    return UserError(
        f"the audio encoder {source} has no head for positions in beat, pair of beats and bar, "
        "which encoders.audio_layer: beats asks for; give one that "
        "configs/small_world/parts/audio_encoder.yaml has trained (encoders.audio), or set "
        "audio_layer to null."
    )


def check_audio_encoder(part: "PreTrainedModel", source: str, *, layer: AudioLayer) -> None:
    """Refuse a model that takes no waveforms or has no such layer.

    Raises:
        UserError: Says which.
    """
    from transformers import Wav2Vec2BertModel

    is_bert = isinstance(without_head(part), Wav2Vec2BertModel)
    if part.main_input_name != "input_values" and not is_bert:
        raise UserError(
            f"the audio encoder {source} takes {part.main_input_name}, no waveforms; give a "
            "wav2vec 2.0, HuBERT, WavLM, data2vec or w2v-BERT (encoders.audio)."
        )
    if layer == BEATS:
        head = getattr(part, "classifier", None)
        if head is None or head.out_features != BEATS_WIDTH:
            raise _no_head(source)
    num_layers = part.config.num_hidden_layers
    if isinstance(layer, int) and layer > num_layers:
        raise UserError(
            f"encoders.audio_layer is {layer}, but {source} has {num_layers} layers; use 0 to "
            f"{num_layers}, there or as the layer of its part."
        )


def config_in(folder: Path | None, name: str) -> dict[str, Any]:
    """A config of a model on this machine; empty where there is none that can be read."""
    try:
        found = json.loads((folder / name).read_text()) if folder else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
