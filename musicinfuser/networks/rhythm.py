"""Rhythm, timbre and harmony of music as 35 plain numbers, by librosa."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from musicinfuser.media.librosa_import import import_librosa
from musicinfuser.networks.audio_encoder import AudioEncoder

NUM_MFCC, NUM_CHROMA = 20, 12
FLOOR = 1e-5
"""Power in a mel band that counts as silence; decibels are those above it."""
# A rise is seen where the end of a window is the first to reach it, and about 34 samples deep,
# as a Hann window starts near zero. From there on, windows of this length end in the middle of
# a feature's own, half a hop later at most.
_ONSET_WINDOW, _ONSET_FROM = 960, 34
# Measured on 12 pieces of game music and 4 of the small world: with these, standard deviations
# are between 0.2 and 1.5.
_ONSET_DB, _FIRST_MFCC_DB, _OTHER_MFCC_DB = 5.0, 500.0, 50.0


class Rhythm(AudioEncoder):
    """The 35 channels of Wan-Dancer, 50 times per second.

    In this order: onset envelope (1), MFCC (20), chroma (12), whether an onset peaks here (1) and
    whether a beat is here (1). Wan-Dancer computes them once per frame of its video, 30 times per
    second. Here they come every 20 ms, as wav2vec 2.0's do: beside those they need no resampling,
    and the frame rate of no video is built in.

    All of it is of 100 ms of sound without padding, so feature k is centred at 20 k + 50 ms, where
    `times` says, and onsets are where they sound within half a hop, beats within one. Sound of the
    first 60 ms has nothing before it and is no onset. The tracker of beats (librosa's, with its
    prior of 120 per minute) sees no more than the excerpt: its first and last beat may lie beside
    an onset.

    Scales: the envelope is the mean rise of 128 mel bands, 5 dB are 1. MFCC are of decibels above
    1e-5, 500 dB of the first and 50 dB of the others are 1. The largest chroma is 1, all are 0 to
    1. Silence is zero throughout.
    """

    features = "rhythm"
    rate_hz, hop, window, width = 16_000, 320, 1_600, 1 + NUM_MFCC + NUM_CHROMA + 1 + 1

    def encode(self, waveforms: Tensor, *, device: torch.device) -> Tensor:
        """Features ``(B, S, 35)`` fp32 of ``(B, num_samples)`` at 16 kHz in [-1, 1]."""
        found = [self._channels(waveform) for waveform in waveforms.cpu().float().numpy()]
        return torch.from_numpy(np.stack(found)).to(device)

    def _channels(self, waveform: np.ndarray) -> np.ndarray:
        """``(S, 35)`` fp32."""
        librosa = import_librosa()
        grid: dict[str, Any] = {"sr": self.rate_hz, "hop_length": self.hop}
        num = self.num_features(len(waveform))
        found = np.zeros((num, self.width), dtype=np.float32)
        if num == 0:
            return found
        power = self._power(waveform, self.window)[:, :num]
        ears = self._power(waveform[_ONSET_FROM:], _ONSET_WINDOW)[:, :num]
        envelope = librosa.onset.onset_strength(S=self._decibels(ears), center=False, **grid)
        mfcc = librosa.feature.mfcc(S=self._decibels(power), n_mfcc=NUM_MFCC)
        # The tuning is given: an estimate would depend on the rest of the excerpt.
        chroma = librosa.feature.chroma_stft(S=power, tuning=0.0, **grid)
        found[:, 0] = envelope / _ONSET_DB
        found[:, 1] = mfcc[0] / _FIRST_MFCC_DB
        found[:, 2 : 1 + NUM_MFCC] = mfcc[1:].T / _OTHER_MFCC_DB
        found[:, 1 + NUM_MFCC : -2] = chroma.T
        if envelope.any():
            onsets = librosa.onset.onset_detect(onset_envelope=envelope, **grid)
            # Trimming would drop soft beats at both ends, where clips often start.
            _, beats = librosa.beat.beat_track(onset_envelope=envelope, trim=False, **grid)
            found[onsets, -2] = 1
            found[beats, -1] = 1
        return found

    def _power(self, waveform: np.ndarray, window: int) -> np.ndarray:
        """Of the frequencies of each window, ``(F, S)``."""
        spectra = import_librosa().stft(waveform, n_fft=window, hop_length=self.hop, center=False)
        return np.abs(spectra) ** 2

    def _decibels(self, power: np.ndarray) -> np.ndarray:
        """Of 128 mel bands above silence, 0 or more, ``(128, S)``."""
        mel = import_librosa().feature.melspectrogram(S=power, sr=self.rate_hz)
        return 10 * np.log10(np.maximum(mel, FLOOR) / FLOOR)
