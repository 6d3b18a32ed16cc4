"""What an adapter was trained with: its audio features, and the frozen weights around it.

It travels with checkpoints, exported folders and the authors' format. Files written before it
did are read as what they were then: what the record of their run beside them says, else the
default, the last hidden state of the encoder.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from musicinfuser.errors import UserError
from musicinfuser.networks.audio_encoder import AudioIdentity
from musicinfuser.networks.combined_audio import audio_encoder_of
from musicinfuser.networks.log_mel import LogMel
from musicinfuser.networks.weights_fingerprint import fingerprint_weights, mapped_weights
from musicinfuser.pretrained_sources import find_local

ORIGIN_KEY = "origin"
"""Among the settings of a checkpoint or an adapter."""
_DEFAULT = "the default when it was written"


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
        return {ORIGIN_KEY: {"audio": self.audio.stored(), "weights": dict(self.weights)}}

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
            return cls(AudioIdentity.from_stored(found["audio"]), dict(found["weights"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"the settings of an adapter hold no {ORIGIN_KEY} as this program writes it "
                f"({found!r}); get the file again."
            ) from error

    @classmethod
    def of_parts(cls, encoders: Any, backbone: Any) -> Self:
        """Of an `EncodersSpec` and a `BackboneSpec`."""
        weights = frozen_weights(encoders.mochi, (backbone.pretrained, backbone.subfolder))
        if backbone.config is not None:
            weights["transformer"] = f"random, seed {backbone.seed}"
        return cls(audio_encoder_of(asdict(encoders)).identity(), weights)

    @classmethod
    def assumed(cls, path: str | Path | None, *, audio_width: int | None = None) -> Self:
        """Of a file that does not say it: what its run recorded, else what runs did by default.

        Args:
            path: Checkpoint, adapter folder or file; None where nobody knows.
            audio_width: Channels of its features; those of log-mel spectrograms tell them apart.
        """
        for record in () if path is None else _records(Path(path)):
            encoders = None
            with suppress(OSError, KeyError, TypeError, ValueError, yaml.YAMLError):
                config = yaml.safe_load(record.read_text(encoding="utf-8"))
                encoders = config["model"]["init_args"]["encoders"]
            if isinstance(encoders, dict) and isinstance(encoders.get("audio"), str):
                return cls(audio_encoder_of(encoders).identity(), assumed_from=str(record))
        features = LogMel.features if audio_width == LogMel.width else "encoder"
        return cls(AudioIdentity(features), assumed_from=_DEFAULT)

    def other_weights(self, now: "Origin") -> dict[str, str]:
        """Frozen parts that have other weights now, as far as both are known: how they differ."""
        return {
            name: f"{name}: weights {theirs} in training, {now.weights[name]} now"
            for name, theirs in self.weights.items()
            if now.weights.get(name, theirs) != theirs
        }

    def notes(
        self,
        now: "Origin",
        *,
        path: Any,
        refuse: type[UserError],
        remedy: str = "set model.encoders to what it was trained with",
    ) -> list[str]:
        """Refuse an adapter that was trained on other audio features; say what else differs.

        Args:
            now: What it is to run with.
            path: Its file, for the sentences.
            refuse: The error to raise.
            remedy: What to do about other features.

        Returns:
            One sentence for everything else that differs or cannot be told.

        Raises:
            UserError: ``refuse``, with what differs.
        """
        source = f", according to {self.assumed_from}" if self.assumed_from else ""
        if self.audio.differs_from(now.audio):
            if self.assumed_from == _DEFAULT:
                remedy += ", or put its run's configuration beside it as config.yaml"
            raise refuse(
                f"{path} was trained on {self.audio.beside(now.audio)}{source}, but would get "
                f"{now.audio.beside(self.audio)}; {remedy}."
            )
        notes = []
        if self.assumed_from:
            notes.append(
                f"{path} does not say which audio features it was trained on; they are taken to be "
                f"{self.audio}{source}."
            )
        elif not self.audio.can_be_told_from(now.audio):
            notes.append(
                f"{path} was trained on {self.audio}; whether {now.audio.encoder or 'this encoder'}"
                " is the same cannot be told from here."
            )
        if other := self.other_weights(now):
            notes.append(
                f"{path} was trained with other frozen weights ({'; '.join(other.values())}); what "
                "it makes of these is not what it was trained to make."
            )
        return notes


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


def _records(path: Path) -> list[Path]:
    """Where the configuration of the run may lie that wrote a file or folder."""
    path = path.absolute()
    folder = path if path.is_dir() else path.parent
    places = (
        folder / "config.yaml",
        folder.parent / "config.yaml",
        folder.parent / "logs" / "config_fit.yaml",
    )
    return [record for record in places if record.is_file()]
