import math
import os
import wave
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from musicinfuser.media.audio import (
    clip_audio_seconds,
    fit_length,
    loudness_dbfs,
    read_audio,
    write_wav,
)
from musicinfuser.media.errors import MediaError
from musicinfuser.media.video import read_clip

TIMES = [k / 30 for k in range(60)]
RATE_HZ = 16000


def click_track(at_seconds, seconds, rate_hz):
    sound = np.zeros(round(seconds * rate_hz))
    first = round(at_seconds * rate_hz)
    sound[first : first + rate_hz // 500] = 0.8  # 2 ms
    return sound


def peak_seconds(waveform, rate_hz=RATE_HZ):
    """Centre of the loudest 2 ms, minus the 1 ms to its onset."""
    energy = torch.nn.functional.avg_pool1d(
        waveform.square()[None], rate_hz // 500, stride=1
    ).squeeze()
    return int(energy.argmax()) / rate_hz


@pytest.mark.parametrize(
    ("num_frames", "seconds"), [(73, 2.5), (145, 4.9), (1, 0.1), (30, 1.1), (163, 5.5)]
)
def test_clip_audio_seconds_is_the_authors_printf(num_frames, seconds):
    assert clip_audio_seconds(num_frames) == seconds


def test_clip_audio_seconds_knows_the_rate():
    assert clip_audio_seconds(73, fps=24) == 3.1


# Decoding and channels


def test_wav_is_read_back_exactly(tmp_path):
    path = tmp_path / "new" / "tone.wav"
    stereo = torch.rand(2, 5001, generator=torch.Generator().manual_seed(0)) * 2 - 1
    write_wav(path, stereo, rate_hz=44100)
    first = read_audio(path, rate_hz=44100, channel="first")
    assert first.shape == (5001,) and first.dtype == torch.float32
    assert (first - stereo[0]).abs().max() < 1.01 / 16384
    mean = read_audio(path, rate_hz=44100, channel="mean")
    assert (mean - stereo.mean(0)).abs().max() < 1.01 / 16384


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
def test_sample_formats_share_one_scale(media, codec):
    tone = media.sine(440, 0.2, amplitude=0.75)
    path = media.write("tone.wav", audio=tone, audio_codec=codec)
    samples_read = read_audio(path, rate_hz=media.rate_hz)
    tolerance = 0.012 if codec == "pcm_u8" else 1e-4
    assert (samples_read - torch.from_numpy(tone)).abs().max() < tolerance


def test_mean_weighs_the_six_channels_of_surround_equally(media):
    frequencies = [200, 400, 600, 800, 1000, 1200]
    channels = np.stack([media.sine(f, 0.5) for f in frequencies])
    path = media.write("surround.flac", audio=channels, audio_codec="flac", layout="5.1")
    mean = read_audio(path, rate_hz=media.rate_hz)
    assert (mean - torch.from_numpy(channels.mean(0))).abs().max() < 1e-4
    first = read_audio(path, rate_hz=media.rate_hz, channel="first")
    assert (first - torch.from_numpy(channels[0])).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("song.wav", "pcm_s16le"),
        ("song.flac", "flac"),
        ("song.mp3", "mp3"),
        ("song.ogg", "libopus"),
        ("song.m4a", "aac"),
        ("song.mkv", "aac"),
    ],
)
def test_songs_keep_pitch_phase_and_length(media, name, codec):
    tone = np.stack([media.sine(440, 2.0), media.sine(440, 2.0)])
    path = media.write(name, audio=tone, audio_codec=codec, layout="stereo")
    samples_read = read_audio(path, rate_hz=RATE_HZ)
    assert abs(len(samples_read) - 2 * RATE_HZ) <= 0.05 * RATE_HZ
    wanted = torch.from_numpy(media.sine(440, 2.0, RATE_HZ)).float()
    inside = slice(2000, 30000)
    assert (samples_read[inside] - wanted[inside]).abs().max() < 0.03


def test_a_cover_image_does_not_move_the_clock(media):
    tone = media.sine(440, 1.0)
    plain = media.write("plain.mp3", audio=tone, audio_codec="mp3")
    covered = media.write("covered.mp3", audio=tone, audio_codec="mp3", cover=True)
    assert torch.equal(read_audio(plain), read_audio(covered))


@pytest.mark.parametrize("rate_hz", [44100, 48000, 22050, 8000])
def test_resampling_is_exact_in_length_and_phase(tmp_path, media, rate_hz):
    path = tmp_path / "tone.wav"
    write_wav(path, torch.from_numpy(media.sine(300, 4.0, rate_hz)), rate_hz=rate_hz)
    samples_read = read_audio(path, rate_hz=RATE_HZ)
    assert len(samples_read) == 4 * RATE_HZ
    wanted = torch.from_numpy(media.sine(300, 4.0, RATE_HZ))
    assert (samples_read - wanted)[100:-100].abs().max() < 2e-3
    assert samples_read[-20:].abs().max() > 0


# Spans


def test_a_span_is_a_slice_of_the_whole(tmp_path):
    path = tmp_path / "noise.wav"
    noise = torch.rand(44100 * 6, generator=torch.Generator().manual_seed(1)) - 0.5
    write_wav(path, noise, rate_hz=44100)
    whole = read_audio(path)
    assert len(whole) == 6 * RATE_HZ
    with av.open(str(path)) as container:
        ends = np.cumsum([frame.samples for frame in container.decode(audio=0)]) / 44100
    frame_ends = [(0.0, float(end)) for end in ends[5:9]]
    # The last spans end where a decoded frame ends.
    for start, duration in [(0.0, 2.5), (1.2345, 0.7), (3.0, 2.99), *frame_ends]:
        span = read_audio(path, start_seconds=start, duration_seconds=duration)
        first = round(start * RATE_HZ)
        assert len(span) == round(duration * RATE_HZ)
        assert torch.equal(span, whole[first : first + len(span)])
    assert len(read_audio(path, start_seconds=5.5, duration_seconds=2.5)) == RATE_HZ // 2
    assert len(read_audio(path, start_seconds=9.0, duration_seconds=1.0)) == 0


# The clock


@pytest.mark.parametrize("codec", ["mp3", "mp2", "aac", "ac3", "pcm_s16le"])
@pytest.mark.parametrize("frames_between", ["0", "3"])
@pytest.mark.parametrize("fps", [24, 30, 60])
def test_click_and_flash_coincide_in_avi(media, codec, frames_between, fps):
    path = media.write(
        "clap.avi",
        times=[k / fps for k in range(2 * fps)],
        time_base=Fraction(1, fps),
        options={"bf": frames_between},
        draw=lambda k, w, h: np.full((h, w, 3), 230 if k == fps else 20, np.uint8),
        audio=click_track(1.0, 2.0, media.rate_hz),
        audio_codec=codec,
    )
    clip = read_clip(
        path, start_seconds=0, num_frames=2 * fps - 4, height=48, width=64, fps=fps, crop=None
    )
    flash = int(clip.float().mean((1, 2, 3)).argmax()) / fps
    assert peak_seconds(read_audio(path)) == pytest.approx(flash, abs=0.002)


def test_late_sound_begins_with_silence(media):
    sound = click_track(0.25, 1.0, media.rate_hz)
    path = media.write(times=TIMES, audio=sound, audio_start_seconds=0.5)
    samples_read = read_audio(path)
    assert samples_read[: int(0.45 * RATE_HZ)].abs().max() == 0
    assert peak_seconds(samples_read) == pytest.approx(0.75, abs=0.002)
    assert len(samples_read) == pytest.approx(1.5 * RATE_HZ, abs=0.03 * RATE_HZ)
    span = read_audio(path, start_seconds=0.7, duration_seconds=0.5)
    assert peak_seconds(span) == pytest.approx(0.05, abs=0.002)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("late", [0.0, 0.6])
def test_click_and_flash_coincide(media, suffix, late):
    """The picture flashes on frame 30 and the sound clicks with it, wherever each stream starts."""
    flash_seconds = late + 1.0
    path = media.write(
        "clap" + suffix,
        times=[late + t for t in TIMES],
        draw=lambda k, w, h: np.full((h, w, 3), 230 if k == 30 else 20, np.uint8),
        audio=click_track(flash_seconds, 2.6, media.rate_hz),
    )
    clip = read_clip(path, start_seconds=0, num_frames=60, height=48, width=64, crop=None)
    assert int(clip.float().mean((1, 2, 3)).argmax()) == 30
    assert peak_seconds(read_audio(path)) == pytest.approx(1.0, abs=0.003)


@pytest.mark.parametrize("name", ["hole.mkv", "hole.mp4"])
def test_a_hole_in_the_sound_is_silent_and_moves_nothing(media, name):
    sound = media.sine(440, 3.0, amplitude=0.2) + click_track(2.5, 3.0, media.rate_hz)
    path = media.write(name, times=TIMES, audio=sound, audio_codec="libopus", audio_hole=(0.5, 1.5))
    samples_read = read_audio(path)
    assert len(samples_read) == pytest.approx(3 * RATE_HZ, abs=0.05 * RATE_HZ)
    assert samples_read[int(0.6 * RATE_HZ) : int(1.4 * RATE_HZ)].abs().max() < 1e-3
    assert samples_read[int(0.2 * RATE_HZ) : int(0.4 * RATE_HZ)].abs().max() > 0.18
    assert samples_read[int(1.6 * RATE_HZ) : int(2.4 * RATE_HZ)].abs().max() > 0.18
    assert peak_seconds(samples_read) == pytest.approx(2.5, abs=0.002)


# What goes wrong


def test_bad_files_are_one_clear_sentence(bad_file):
    with pytest.raises(MediaError, match=bad_file.name) as caught:
        read_audio(bad_file)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_a_silent_film_has_no_audio_stream(media):
    with pytest.raises(MediaError, match=r"clip\.mp4: has no audio stream"):
        read_audio(media.write(times=TIMES))


def test_damage_counts_only_before_the_span(media):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * media.rate_hz)
    path = media.write("damaged.m4a", audio=noise)
    good = read_audio(path)
    assert 2.4 < media.damage_packet(path, "audio", 118, whole=True) < 2.6
    before = read_audio(path, start_seconds=0.0, duration_seconds=1.0)
    assert torch.equal(before, good[:RATE_HZ])
    cut = read_audio(path, start_seconds=1.0, duration_seconds=3.0)
    assert 1.4 * RATE_HZ < len(cut) < 1.6 * RATE_HZ
    inside = len(cut) - 100
    assert torch.equal(cut[:inside], good[RATE_HZ : RATE_HZ + inside])
    with pytest.raises(MediaError, match=r"damaged\.m4a: its sound is damaged near second 2\.\d\d"):
        read_audio(path, start_seconds=3.0, duration_seconds=1.0)


@pytest.mark.parametrize(
    "wrong",
    [{"start_seconds": -1.0}, {"rate_hz": 0}, {"duration_seconds": -1.0}, {"channel": "left"}],
)
def test_impossible_requests_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        read_audio("unread.wav", **wrong)


# Waveforms


def test_fit_length_cuts_and_fills_the_last_axis():
    waveform = torch.arange(1.0, 5.0)
    assert fit_length(waveform, 2).tolist() == [1, 2]
    assert fit_length(waveform, 6).tolist() == [1, 2, 3, 4, 0, 0]
    assert fit_length(torch.ones(2, 3), 4).tolist() == [[1, 1, 1, 0]] * 2


def test_loudness_is_rms_of_full_scale(media):
    assert loudness_dbfs(torch.ones(100)) == 0
    assert loudness_dbfs(-0.1 * torch.ones(2, 50)) == pytest.approx(-20)
    tone = torch.from_numpy(media.sine(100, 1.0, amplitude=1.0))
    assert loudness_dbfs(tone) == pytest.approx(-3.01, abs=0.01)
    assert loudness_dbfs(torch.zeros(10)) == -math.inf
    assert loudness_dbfs(torch.zeros(0)) == -math.inf


def test_wav_is_plain_pcm_and_clips(tmp_path):
    path = tmp_path / "clipped.wav"
    write_wav(path, torch.tensor([[2.0, 0.0], [-3.0, 0.5]]), rate_hz=16000)
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 16000)
        samples = np.frombuffer(file.readframes(9), "<i2")
    assert samples.tolist() == [32767, -32767, 0, 16384]
    assert os.listdir(tmp_path) == ["clipped.wav"]


def test_unfit_waveforms_are_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(ValueError, match="waveform must be float"):
        write_wav(tmp_path / "bad.wav", torch.zeros(5, dtype=torch.int16), rate_hz=16000)
    with pytest.raises(ValueError, match="waveform must be float"):
        write_wav(tmp_path / "bad.wav", torch.zeros(1, 2, 5), rate_hz=16000)
    assert os.listdir(tmp_path) == []
