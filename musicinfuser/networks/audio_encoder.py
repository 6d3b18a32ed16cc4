"""Audio encoders: what one states, how it is chosen, and what tells its features from others'."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self

import torch
from torch import Tensor, nn

from musicinfuser.errors import UserError
from musicinfuser.pretrained_sources import looks_local

BUILT_IN = {
    "encoder": "musicinfuser.networks.transformers_audio.TransformersAudio",
    "log_mel": "musicinfuser.networks.log_mel.LogMel",
    "rhythm": "musicinfuser.networks.rhythm.Rhythm",
    "mert": "musicinfuser.networks.mert.Mert",
    "muq": "musicinfuser.networks.muq.MuQ",
}
COMBINED = "combined"
"""Features of several encoders; configs give a list of these instead."""


BEATS: Final = "beats"
AudioLayer = int | Literal["all", "beats"] | None
"""Which hidden state: its number, None for the last, or ``all``, which are mixed in training; or
``beats``: what its head says of beats (`beat_positions`)."""


@dataclass(frozen=True)
class AudioPart:
    """One of several kinds of features that are used together."""

    features: str
    """As ``encoders.audio_features``: ``encoder``, ``rhythm``, ... or a class path."""
    source: str | None = None
    """Hub id or folder of its weights; null takes ``encoders.audio`` and its subfolder."""
    subfolder: str | None = None
    """Folder of the weights inside ``source``."""
    layer: AudioLayer = None
    """Its hidden state, as ``encoders.audio_layer``; null is the last."""


@dataclass(frozen=True)
class AudioTimes:
    """When features are: feature k is made of ``window_seconds`` from ``k * hop_seconds`` on."""

    hop_seconds: float = 0.02
    """Between the starts of two features (wav2vec 2.0: 20 ms)."""
    window_seconds: float = 0.025
    """Of sound that a feature is made of (wav2vec 2.0: 25 ms)."""


@dataclass(frozen=True)
class AudioIdentity:
    """Which audio features an adapter is conditioned on; None is not known."""

    features: str = "encoder"
    """As ``encoders.audio_features``."""
    layer: AudioLayer = None
    """As ``encoders.audio_layer``: None is the last hidden state."""
    encoder: str | None = None
    """Hub id, or a folder, which then is absolute or starts with a dot."""
    kind: str | None = None
    """Of the encoder, as transformers calls it: ``wav2vec2``, ``hubert``."""
    weights: str | None = None
    """`fingerprint_weights` of the encoder."""
    rate_hz: float | None = None
    """Features per second."""
    width: int | None = None
    """Channels of a feature."""
    normalises: bool | None = None
    """Whether waveforms get unit variance first (``do_normalize`` of the feature extractor)."""
    window_seconds: float | None = None
    """Of sound that a feature is made of."""
    context_seconds: float = 0.0
    """Of sound encoded before and after the clip: ``encoders.audio_context_seconds``."""
    parts: tuple["AudioIdentity", ...] = ()
    """Of combined features: what each of them is, in the order of the channels."""

    def stored(self) -> dict[str, Any]:
        """As plain values; a single encoder's without context are as they always were."""
        found = asdict(self)
        del found["parts"]
        if not self.context_seconds:
            del found["context_seconds"]
        return found | ({"parts": [part.stored() for part in self.parts]} if self.parts else {})

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """What `stored` made; names that younger versions may add are passed over."""
        names = {f.name for f in fields(cls)}
        known = {name: value for name, value in stored.items() if name in names}
        return cls(**known | {"parts": tuple(map(cls.from_stored, stored.get("parts", ())))})

    @property
    def of_transformers(self) -> "AudioIdentity | None":
        """Itself or its part that is an encoder of transformers; None unless there is just one."""
        found = [part for part in self.parts or (self,) if part.features == "encoder"]
        return found[0] if len(found) == 1 else None

    @property
    def times(self) -> AudioTimes:
        """When its features are; wav2vec 2.0's where that is not known."""
        known = AudioTimes()
        return AudioTimes(
            1 / self.rate_hz if self.rate_hz else known.hop_seconds,
            self.window_seconds or known.window_seconds,
        )

    def __str__(self) -> str:
        """In a few words, for a sentence."""
        if self.context_seconds:
            alone = replace(self, context_seconds=0.0)
            return f"{alone}, with {self.context_seconds:g} s of context before and after"
        if self.parts:
            return " with ".join(map(str, self.parts))
        if self.features == "log_mel":
            return f"log-mel spectrograms of {self.width or 80} bands"
        if self.features != "encoder" and self.kind is None:
            weights = f", weights {self.weights}" if self.weights else ""
            return f"{self.features} ({self.rate_hz:g} Hz, {self.width} channels{weights})"
        names: dict[Any, str] = {
            None: "the last hidden state",
            "all": "all hidden states",
            "beats": "positions in beat and bar",
        }
        layer = names.get(self.layer, f"layer {self.layer}")
        as_is = "waveforms as they are" if self.normalises is False else None
        known = (self.kind, self.weights and f"weights {self.weights}", as_is)
        marks = ", ".join(filter(None, known))
        return f"{layer} of {self.encoder or 'an encoder'}{f' ({marks})' if marks else ''}"

    def beside(self, other: "AudioIdentity") -> str:
        """As `str`, with the numbers that differ from another's where both read the same."""
        if str(self) != str(other):
            return str(self)
        titles = {"width": "channels", "rate_hz": "per second", "window_seconds": "s of sound each"}
        pairs = zip(self.parts or (self,), other.parts or (other,), strict=False)
        numbers = [
            f"{own:g} {title}"
            for mine, theirs in pairs
            for name, title in titles.items()
            if (own := getattr(mine, name)) is not None and own != getattr(theirs, name)
        ]
        return f"{self}, {', '.join(numbers)}" if numbers else str(self)

    @property
    def is_authors(self) -> bool:
        """Whether the authors' code may use the same: their file names no features."""
        if self.context_seconds:
            return False
        return (self.features, self.layer) == ("encoder", None) and self.kind in (None, "wav2vec2")

    def differs_from(self, other: "AudioIdentity") -> bool:
        """Whether the same sound gives other features, as far as both are known."""
        if (self.features, self.layer) != (other.features, other.layer):
            return True
        if self.context_seconds != other.context_seconds:
            return True
        if len(self.parts) != len(other.parts):
            return True
        if self.parts:
            return any(a.differs_from(b) for a, b in zip(self.parts, other.parts, strict=True))
        names = ("kind", "rate_hz", "width", "normalises", "window_seconds", "weights")
        pairs = [(getattr(self, name), getattr(other, name)) for name in names]
        if None in pairs[-1]:
            # Two names of the Hub tell what weights would.
            sources = (self.encoder, other.encoder)
            pairs[-1] = sources if all(n and not looks_local(n) for n in sources) else (None, None)
        return any(mine != theirs for mine, theirs in pairs if mine is not None is not theirs)

    def can_be_told_from(self, other: "AudioIdentity") -> bool:
        """Whether enough is known of both to tell that they are the same encoder."""
        if self.parts and len(self.parts) == len(other.parts):
            pairs = zip(self.parts, other.parts, strict=True)
            return all(a.can_be_told_from(b) for a, b in pairs)
        has_weights = self.features == "encoder" or self.kind is not None
        if not has_weights or None not in (self.weights, other.weights):
            return True
        names = [Path(source or "").name for source in (self.encoder, other.encoder)]
        return names[0] != "" and names[0] == names[1]


class AudioEncoder(ABC):
    """Waveforms to features, frozen.

    A subclass states the four numbers below and writes `encode`; with weights, also `module`.
    """

    features: ClassVar[str]
    """Its name in ``encoders.audio_features``; a class path unless it is `BUILT_IN`."""
    takes_layer: ClassVar[bool] = False
    """Whether ``encoders.audio_layer`` has a meaning for it."""
    rate_hz: int
    """Samples per second of the sound it takes."""
    hop: int
    """Samples between the starts of two features."""
    window: int
    """Samples that a feature is made of; the sound is not padded."""
    width: int
    """Channels of a feature (``model.audio_width``)."""
    context_seconds: float = 0.0
    """Of sound before and after a clip that its features are made with (`InContext`)."""

    def __init_subclass__(cls) -> None:
        """Name a class that is not built in by its path."""
        cls.features = cls.__dict__.get("features", f"{cls.__module__}.{cls.__qualname__}")

    def __init__(
        self, source: str = "", subfolder: str | None = None, *, layer: AudioLayer = None
    ) -> None:
        """Note where weights are, if it has any; none are read yet.

        Args:
            source: ``encoders.audio``: Hub id or folder.
            subfolder: ``encoders.audio_subfolder``.
            layer: ``encoders.audio_layer``.
        """
        self.source, self.subfolder, self.layer = source, subfolder, layer

    @abstractmethod
    def encode(self, waveforms: Tensor, *, device: torch.device) -> Tensor:
        """Features ``(B, S, width)`` fp32 on ``device``.

        Args:
            waveforms: ``(B, num_samples)`` at `rate_hz` in [-1, 1].
            device: Where to compute; `module` is there.
        """

    def encode_span(
        self, sound: Tensor, first: int, num_samples: int, *, device: torch.device
    ) -> Tensor:
        """Features ``(B, S, width)`` of a part of a sound, as many as it gives by itself.

        Args:
            sound: ``(B, num)`` at `rate_hz` in [-1, 1].
            first: Where the part begins, in samples.
            num_samples: Its length.
            device: Where to compute; `module` is there.
        """
        return self.encode(sound[:, first : first + num_samples], device=device)

    @property
    def parts(self) -> "tuple[AudioEncoder, ...]":
        """What it is made of: itself, unless it combines several."""
        return (self,)

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """How its channels are made up: ``(1, width)``, or hidden states and the width of each."""
        return ((1, self.width),)

    @property
    def module(self) -> nn.Module | None:
        """Its network, loaded when first asked for; None of an encoder without weights."""
        return None

    @property
    def times(self) -> AudioTimes:
        """When its features are."""
        return AudioTimes(self.hop / self.rate_hz, self.window / self.rate_hz)

    def num_features(self, num_samples: int) -> int:
        """How many a sound gives: 2.5 s give 124 of wav2vec 2.0's."""
        return max((num_samples - self.window) // self.hop + 1, 0)

    def identity(self) -> AudioIdentity:
        """What tells its features from others'; checkpoints and adapters keep it."""
        return AudioIdentity(
            self.features,
            rate_hz=self.rate_hz / self.hop,
            width=self.width,
            window_seconds=self.times.window_seconds,
        )

    def require(self) -> None:  # noqa: B027 - most need nothing
        """Refuse what cannot be used on this machine; no weights are read.

        Raises:
            UserError: A package or a folder is missing; says which.
        """

    def fingerprint(self) -> str:
        """The same in one line, for the clips of a cache."""
        return str(self.identity())


class InContext(AudioEncoder):
    """Another encoder, given what comes before and after a clip as well.

    Features are as many and at the same times as without; those of sound that has nothing around
    it are the same.
    """

    def __init__(self, encoder: AudioEncoder, context_seconds: float) -> None:
        """Give ``encoder`` up to ``context_seconds`` on each side."""
        super().__init__(encoder.source, encoder.subfolder, layer=encoder.layer)
        self._encoder, self.context_seconds = encoder, context_seconds
        self.rate_hz, self.hop = encoder.rate_hz, encoder.hop
        self.window, self.width = encoder.window, encoder.width

    def encode(self, waveforms: Tensor, *, device: torch.device) -> Tensor:
        """As the encoder: all of a sound."""
        return self._encoder.encode(waveforms, device=device)

    def num_features(self, num_samples: int) -> int:
        """As many as the encoder gives."""
        return self._encoder.num_features(num_samples)

    def encode_span(
        self, sound: Tensor, first: int, num_samples: int, *, device: torch.device
    ) -> Tensor:
        """As of every encoder, with what ``sound`` has around the part."""
        most = round(self.context_seconds * self.rate_hz)
        hops_before = min(first, most) // self.hop
        last = min(first + num_samples + most, sound.shape[1])
        features = self.encode(sound[:, first - hops_before * self.hop : last], device=device)
        return features[:, hops_before : hops_before + self.num_features(num_samples)]

    @property
    def parts(self) -> tuple[AudioEncoder, ...]:
        """Those of the encoder."""
        return self._encoder.parts

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """Those of the encoder."""
        return self._encoder.layers

    @property
    def module(self) -> nn.Module | None:
        """That of the encoder."""
        return self._encoder.module

    @property
    def times(self) -> AudioTimes:
        """Those of the encoder."""
        return self._encoder.times

    def identity(self) -> AudioIdentity:
        """That of the encoder, and the context."""
        return replace(self._encoder.identity(), context_seconds=self.context_seconds)

    def fingerprint(self) -> str:
        """That of the encoder, and the context."""
        return f"{self._encoder.fingerprint()}, {self.context_seconds:g} s around"


def mixed_layers(encoder: AudioEncoder) -> list[list[int]] | None:
    """`AudioEncoder.layers` as plain values where there are hidden states to mix, else None."""
    layers = [list(group) for group in encoder.layers]
    return layers if any(number > 1 for number, _ in layers) else None


def audio_encoder_class(features: str) -> type[AudioEncoder]:
    """The class that ``encoders.audio_features`` names.

    Raises:
        UserError: It names none.
    """
    module, _, name = BUILT_IN.get(features, features).rpartition(".")
    try:
        found = getattr(import_module(module), name)
        if issubclass(found, AudioEncoder):
            return found
        reason = "is no AudioEncoder"
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        reason = f"cannot be imported ({error})"
    raise UserError(
        f"encoders.audio_features: {features!r} {reason}; give {' or '.join(BUILT_IN)}, or the "
        "class path of an AudioEncoder."
    )
