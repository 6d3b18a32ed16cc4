"""Several audio encoders as one: their features side by side, on one grid of times."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from musicinfuser.errors import UserError
from musicinfuser.media.audio import resample
from musicinfuser.networks.audio_encoder import (
    BEATS,
    COMBINED,
    AudioEncoder,
    AudioIdentity,
    AudioPart,
    AudioTimes,
    InContext,
    audio_encoder_class,
)


class CombinedAudio(AudioEncoder):
    """The features of several encoders, concatenated at the times of the first one's.

    Sound comes at the highest rate that a part takes, and is resampled for the others. Features of
    the others are interpolated linearly between the seconds at which theirs are centred; before
    the first and after the last of them, that one stands. So any rates and hops go together.
    """

    features = COMBINED

    def __init__(self, parts: Sequence[AudioEncoder]) -> None:
        """Combine at least one encoder; the first says when features are."""
        super().__init__()
        self._parts = tuple(parts)
        first = self._parts[0]
        self.rate_hz = max(part.rate_hz for part in self._parts)
        # In samples of the sound it takes; `times` has them exactly.
        self.hop, self.window = (
            round(samples * self.rate_hz / first.rate_hz) for samples in (first.hop, first.window)
        )
        self.width = sum(part.width for part in self._parts)

    @property
    def parts(self) -> tuple[AudioEncoder, ...]:
        """What it is made of, in the order of its channels."""
        return self._parts

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """Those of its parts, in order."""
        return tuple(group for part in self._parts for group in part.layers)

    @cached_property
    def module(self) -> nn.Module | None:  # type: ignore[override]
        """The networks of its parts; None if none has weights."""
        found = [part.module for part in self._parts]
        networks = nn.ModuleList(module for module in found if module is not None)
        return networks if len(networks) else None

    @property
    def times(self) -> AudioTimes:
        """Of the first part."""
        return self._parts[0].times

    def num_features(self, num_samples: int) -> int:
        """As many as the first part gives."""
        return self._parts[0].num_features(self._num_samples(num_samples, self._parts[0]))

    def encode(self, waveforms: Tensor, *, device: torch.device) -> Tensor:
        """Features ``(B, S, width)`` fp32 of ``(B, num_samples)`` at the highest rate.

        Raises:
            UserError: The sound is too short for a feature of each part.
        """
        grid = self.times
        found: list[Tensor] = []
        for part in self._parts:
            sound = waveforms
            if part.rate_hz != self.rate_hz:
                change = partial(resample, from_hz=self.rate_hz, to_hz=part.rate_hz)
                sound = torch.stack([change(waveform) for waveform in waveforms.float().cpu()])
            if not part.num_features(sound.shape[1]):
                raise UserError(
                    f"{waveforms.shape[1] / self.rate_hz:.2f} s of sound are too short for "
                    f"{part.features}, whose features are of {part.times.window_seconds:g} s each."
                )
            own = part.encode(sound, device=device)
            num = found[0].shape[1] if found else own.shape[1]
            found.append(at_times(own.float(), part.times, grid, num))
        return torch.cat(found, dim=-1)

    def identity(self) -> AudioIdentity:
        """That of every part, in order."""
        times = self.times
        return AudioIdentity(
            self.features,
            rate_hz=1 / times.hop_seconds,
            width=self.width,
            window_seconds=times.window_seconds,
            parts=tuple(part.identity() for part in self._parts),
        )

    def fingerprint(self) -> str:
        """Those of its parts, for the clips of a cache."""
        return " + ".join(part.fingerprint() for part in self._parts)

    def _num_samples(self, num_samples: int, part: AudioEncoder) -> int:
        """Samples at a part's rate, as `resample` makes them."""
        return round(num_samples * part.rate_hz / self.rate_hz)


def at_times(features: Tensor, have: AudioTimes, want: AudioTimes, num: int) -> Tensor:
    """Features ``(B, S, width)`` at other times, ``(B, num, width)``: linear, edges held.

    Args:
        features: At least one.
        have: When they are.
        want: When those asked for are.
        num: How many are asked for.
    """
    count = features.shape[1]
    if have == want and count == num:
        return features
    # In fp64, so that times that are the same in decimals meet their own feature exactly.
    seconds = torch.arange(num, dtype=torch.float64) * want.hop_seconds + want.window_seconds / 2
    place = ((seconds - have.window_seconds / 2) / have.hop_seconds).clamp(0, count - 1)
    before = place.floor().long().clamp(max=max(count - 2, 0))
    after = (before + 1).clamp(max=count - 1)
    share = (place - before).to(features)[:, None]
    return torch.lerp(features[:, before], features[:, after], share)


def chosen_parts(encoders: Mapping[str, Any]) -> list[AudioPart]:
    """What ``encoders.audio_features`` of a config names, each with its place and layer.

    Args:
        encoders: The group ``encoders`` as plain values: ``audio``, and as far as they are there
            ``audio_subfolder``, ``audio_features`` and ``audio_layer``.

    Raises:
        UserError: No part, one that is none, or a layer of something that has none.
    """
    place = encoders["audio"], encoders.get("audio_subfolder")
    features, layer = encoders.get("audio_features", "encoder"), encoders.get("audio_layer")
    if not features:
        raise UserError("encoders.audio_features names nothing; give at least one.")
    if isinstance(features, str) and features.lstrip().startswith("["):
        raise UserError(
            "encoders.audio_features is a list of names, and of groups with features and, if need "
            f"be, source, subfolder and layer, not {features}."
        )
    parts, takes_layer = [], False
    for given in features if isinstance(features, list | tuple) else [features]:
        if isinstance(given, str):
            own = layer if audio_encoder_class(given).takes_layer else None
            takes_layer |= audio_encoder_class(given).takes_layer
            parts.append(AudioPart(given, *place, own))
            continue
        part = given if isinstance(given, AudioPart) else AudioPart(**given)
        if part.source is None:
            source, subfolder = place
            part = replace(part, source=source, subfolder=part.subfolder or subfolder)
        parts.append(part)
    named = ", ".join(part.features for part in parts)
    if layer is not None and not takes_layer:
        hint = "set it to null"
        if any(audio_encoder_class(part.features).takes_layer for part in parts):
            hint += ", and layer of the part instead"
        raise UserError(f"encoders.audio_layer has no effect with {named}; {hint}.")
    for part in parts:
        where = "encoders.audio_layer" if part.layer == layer else f"the layer of {part.features}"
        if part.layer is not None and not audio_encoder_class(part.features).takes_layer:
            raise UserError(f"{where} has no effect with {part.features}; set it to null.")
        if part.layer == BEATS and part.features != "encoder":
            raise UserError(
                f"{where} is beats, which only an encoder of transformers with a head has, not "
                f"{part.features}; give a number or null."
            )
        if isinstance(part.layer, int) and part.layer < 0:
            raise UserError(f"{where} is {part.layer}; use 0 or more, or null for the last.")
    return parts


def audio_encoder_of(encoders: Mapping[str, Any]) -> AudioEncoder:
    """What turns sound into features, as a config says; arguments and errors of `chosen_parts`."""
    made = [
        audio_encoder_class(part.features)(part.source or "", part.subfolder, layer=part.layer)
        for part in chosen_parts(encoders)
    ]
    return _together(made, encoders.get("audio_context_seconds", 0.0))


def audio_encoder_again(
    identity: AudioIdentity, *, given: AudioEncoder | None = None
) -> AudioEncoder:
    """The encoder that an identity is of, from where its weights were then.

    Args:
        identity: Of a trained adapter.
        given: One in place of the only part that is an encoder of transformers.
    """
    only = identity.of_transformers
    made = [
        given
        if given is not None and part is only
        else audio_encoder_class(part.features)(part.encoder or "", layer=part.layer)
        for part in identity.parts or (identity,)
    ]
    return _together(made, identity.context_seconds)


def _together(made: list[AudioEncoder], context_seconds: float) -> AudioEncoder:
    encoder = made[0] if len(made) == 1 else CombinedAudio(made)
    return InContext(encoder, context_seconds) if context_seconds else encoder
