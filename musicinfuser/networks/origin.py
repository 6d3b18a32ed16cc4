"""What an adapter was trained with: the features it hears, and the frozen weights around it.

It travels with checkpoints, exported folders and the authors' format. Files written before it
did are read as what they were then: what the record of their run beside them says, else the
default, the last hidden state of the encoder.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Self

import yaml
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from musicinfuser.errors import UserError
from musicinfuser.networks.log_mel import HOP_SECONDS, NUM_BANDS
from musicinfuser.networks.waveform_features import AUDIO_RATE_HZ
from musicinfuser.networks.weights_fingerprint import fingerprint_weights, mapped_weights
from musicinfuser.pretrained_sources import find_local, looks_local

LOG_MEL = "log_mel"
ORIGIN_KEY = "origin"
"""Among the settings of a checkpoint or an adapter."""
_DEFAULT = "the default when it was written"


@dataclass(frozen=True)
class AudioIdentity:
    """Which audio features an adapter hears; None is not known."""

    features: str = "encoder"
    """As ``encoders.audio_features``."""
    layer: int | None = None
    """As ``encoders.audio_layer``: None is the last hidden state."""
    encoder: str | None = None
    """Hub id, or a folder, which then is absolute or starts with a dot."""
    kind: str | None = None
    """Of the encoder, as transformers calls it: ``wav2vec2``, ``hubert``."""
    weights: str | None = None
    """`fingerprint_weights` of the encoder."""
    rate_hz: float | None = None
    """Tokens per second."""
    width: int | None = None
    """Channels of a token."""
    normalises: bool | None = None
    """Whether waveforms get unit variance first (``do_normalize`` of the feature extractor)."""

    @classmethod
    def of_encoder(
        cls, source: str, subfolder: str | None, *, features: str, layer: int | None
    ) -> Self:
        """Of an encoder on disk, of which only what tells it from others is read.

        Args:
            source: Hub id or folder.
            subfolder: Folder of the encoder inside.
            features: As ``encoders.audio_features``.
            layer: As ``encoders.audio_layer``.
        """
        if features == LOG_MEL:
            return cls(features, rate_hz=1 / HOP_SECONDS, width=NUM_BANDS)
        folder = find_local(source, subfolder)
        name = _name(f"{source}/{subfolder}" if subfolder else source)
        config = _json(folder / "config.json") if folder else {}
        kind = config.get("model_type")
        extractor = _json(folder / "preprocessor_config.json") if folder else {}
        known = cls(
            layer=layer,
            encoder=name,
            kind=kind,
            rate_hz=_rate_hz(config),
            width=config.get("hidden_size"),
            normalises=extractor.get("do_normalize"),
        )
        if folder is None or kind is None:
            return known
        # Whoever needs the weights says what is wrong with them.
        with suppress(UserError):
            weights = fingerprint_weights(mapped_weights(folder), prefix=_prefix(kind))
            return dataclasses.replace(known, weights=weights)
        return known

    @classmethod
    def of_loaded(cls, encoder: Any, extractor: Any = None, *, layer: int | None) -> Self:
        """Of an encoder of transformers and its feature extractor in memory."""
        config = encoder.config.to_dict()
        return cls(
            layer=layer,
            encoder=_name(encoder.config.name_or_path) or None,
            kind=config.get("model_type"),
            weights=fingerprint_weights(encoder.state_dict()),
            rate_hz=_rate_hz(config),
            width=config.get("hidden_size"),
            normalises=getattr(extractor, "do_normalize", None),
        )

    def __str__(self) -> str:
        """In a few words, for a sentence."""
        if self.features == LOG_MEL:
            return f"log-mel spectrograms of {self.width or NUM_BANDS} bands"
        layer = "the last hidden state" if self.layer is None else f"layer {self.layer}"
        as_is = "waveforms as they are" if self.normalises is False else None
        known = (self.kind, self.weights and f"weights {self.weights}", as_is)
        marks = ", ".join(filter(None, known))
        return f"{layer} of {self.encoder or 'an encoder'}{f' ({marks})' if marks else ''}"

    @property
    def is_authors(self) -> bool:
        """Whether the authors' code may hear the same: their file names no features."""
        return (self.features, self.layer) == ("encoder", None) and self.kind in (None, "wav2vec2")

    def differs_from(self, other: "AudioIdentity") -> bool:
        """Whether the same sound gives other features, as far as both are known."""
        if (self.features, self.layer) != (other.features, other.layer):
            return True
        pairs = [
            (getattr(self, name), getattr(other, name))
            for name in ("kind", "rate_hz", "width", "normalises", "weights")
        ]
        if None in pairs[-1]:
            # Two names of the Hub tell what weights would.
            names = (self.encoder, other.encoder)
            pairs[-1] = names if all(n and not looks_local(n) for n in names) else (None, None)
        return any(mine != theirs for mine, theirs in pairs if mine is not None is not theirs)

    def can_be_told_from(self, other: "AudioIdentity") -> bool:
        """Whether enough is known of both to tell that they are the same encoder."""
        if self.features == LOG_MEL:
            return True
        return None not in (self.weights, other.weights) or (
            self.encoder is not None and _last(self.encoder) == _last(other.encoder)
        )


@dataclass(frozen=True)
class Origin:
    """What an adapter was trained with."""

    audio: AudioIdentity
    weights: dict[str, str] = field(default_factory=dict)
    """`fingerprint_weights` of ``transformer``, ``text_encoder`` and ``vae``, as far as known."""
    assumed_from: str = ""
    """Where the file does not say it itself: what this was taken from."""

    def stored(self) -> dict[str, Any]:
        """Under its key as plain values, for a checkpoint or json; nothing if nobody said it."""
        if self.assumed_from == _DEFAULT:
            return {}
        return {ORIGIN_KEY: {"audio": asdict(self.audio), "weights": dict(self.weights)}}

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self | None:
        """What `stored` is part of; None of what does not say it.

        Raises:
            UserError: It is there, but no such thing.
        """
        found = stored.get(ORIGIN_KEY)
        if found is None:
            return None
        try:
            names = {f.name for f in dataclasses.fields(AudioIdentity)}
            audio = {name: value for name, value in found["audio"].items() if name in names}
            return cls(AudioIdentity(**audio), dict(found["weights"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"the settings of an adapter hold no {ORIGIN_KEY} as this program writes it "
                f"({found!r}); get the file again."
            ) from error

    @classmethod
    def of_parts(cls, encoders: Any, backbone: Any) -> Self:
        """Of an `EncodersSpec` and a `BackboneSpec`."""
        audio = AudioIdentity.of_encoder(
            encoders.audio,
            encoders.audio_subfolder,
            features=encoders.audio_features,
            layer=encoders.audio_layer,
        )
        weights = frozen_weights(encoders.mochi, (backbone.pretrained, backbone.subfolder))
        if backbone.config is not None:
            weights["transformer"] = f"random, seed {backbone.seed}"
        return cls(audio, weights)

    @classmethod
    def assumed(cls, path: str | Path | None, *, audio_width: int | None = None) -> Self:
        """Of a file that does not say it: what its run recorded, else what runs did by default.

        Args:
            path: Checkpoint, adapter folder or file; None where nobody knows.
            audio_width: Channels it hears; those of log-mel spectrograms tell that it heard them.
        """
        for record in () if path is None else _records(Path(path)):
            encoders = _encoders_of(record)
            if encoders is not None:
                audio = AudioIdentity.of_encoder(
                    encoders["audio"],
                    encoders.get("audio_subfolder"),
                    features=encoders.get("audio_features", "encoder"),
                    layer=encoders.get("audio_layer"),
                )
                return cls(audio, assumed_from=str(record))
        features = LOG_MEL if audio_width == NUM_BANDS else "encoder"
        return cls(AudioIdentity(features), assumed_from=_DEFAULT)

    def other_weights(self, now: "Origin") -> dict[str, str]:
        """Frozen parts that have other weights now, as far as both are known: how they differ."""
        return {
            name: f"{name}: weights {theirs} in training, {now.weights[name]} now"
            for name, theirs in self.weights.items()
            if now.weights.get(name, theirs) != theirs
        }


def frozen_weights(
    mochi: str, transformer: tuple[str | None, str | None] | None = None
) -> dict[str, str]:
    """`fingerprint_weights` of the parts of a Mochi; without those that are not on this machine.

    Args:
        mochi: Hub id or folder with ``vae``, ``text_encoder`` and ``transformer``.
        transformer: Source and subfolder of another transformer.
    """
    sources: dict[str, tuple[str | None, str | None]] = {
        "transformer": transformer or (mochi, "transformer"),
        "text_encoder": (mochi, "text_encoder"),
        "vae": (mochi, "vae"),
    }
    found = {}
    for name, (source, subfolder) in sources.items():
        folder = find_local(source, subfolder) if source else None
        # Whoever needs them says what is wrong with them.
        with suppress(UserError):
            found[name] = fingerprint_weights(mapped_weights(folder)) if folder else None
    return {name: value for name, value in found.items() if value}


def hearing_problems(
    trained: Origin, now: AudioIdentity, *, path: Any, remedy: str
) -> tuple[str, str]:
    """What is wrong with the features an adapter will hear, and what cannot be told.

    Args:
        trained: Of the adapter.
        now: What it will hear.
        path: The adapter's file, for the sentences.
        remedy: What to do about a difference.

    Returns:
        A sentence to refuse with, and one to say; either may be empty.
    """
    source = f", according to {trained.assumed_from}" if trained.assumed_from else ""
    if trained.audio.differs_from(now):
        if trained.assumed_from == _DEFAULT:
            remedy += ", or put its run's configuration beside it as config.yaml"
        return (
            f"{path} was trained to hear {trained.audio}{source}, but would hear {now}; {remedy}.",
            "",
        )
    if trained.assumed_from:
        return "", (
            f"{path} does not say what it was trained to hear; it is taken to be {trained.audio}"
            f"{source}."
        )
    if not trained.audio.can_be_told_from(now):
        return "", (
            f"{path} was trained to hear {trained.audio}; whether {now.encoder or 'this encoder'} "
            "is the same cannot be told from here."
        )
    return "", ""


def _records(path: Path) -> Iterable[Path]:
    """Where the configuration of the run may lie that wrote a file or folder."""
    path = path.absolute()
    folder = path if path.is_dir() else path.parent
    places = (folder, folder.parent, folder.parent / "logs")
    names = ("config.yaml", "config.yaml", "config_fit.yaml")
    found = (place / name for place, name in zip(places, names, strict=True))
    return (record for record in found if record.is_file())


def _encoders_of(record: Path) -> dict[str, Any] | None:
    try:
        config = yaml.safe_load(record.read_text(encoding="utf-8"))
        encoders = config["model"]["init_args"]["encoders"]
        return encoders if isinstance(encoders["audio"], str) else None
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _rate_hz(config: dict[str, Any]) -> float | None:
    strides = config.get("conv_stride")
    return AUDIO_RATE_HZ / prod(strides) if strides else None


def _prefix(kind: str) -> str:
    """What names start with in files of a model of this kind with a head."""
    try:
        model = MODEL_MAPPING[type(AutoConfig.for_model(kind))]
    except (KeyError, ValueError):
        return ""
    return f"{model.base_model_prefix}."


def _name(source: str) -> str:
    """A source as it is stored: a folder can be told from a Hub id."""
    return f"./{source}" if Path(source).is_dir() and not looks_local(source) else source


def _last(name: str | None) -> str:
    return Path(name or "").name
