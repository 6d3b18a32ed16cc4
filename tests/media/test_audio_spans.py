"""Spans anywhere in long sound, and which of several tracks is heard."""

from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
import torch

from musicinfuser.media import audio_decoding, decoding
from musicinfuser.media.audio import read_audio
from musicinfuser.media.errors import MediaError

RATE_HZ = 16000


def interleaved(path, *, seconds, codec, rate_hz=RATE_HZ, options=None, faststart=False):
    """A video with a sound that never repeats, muxed second by second; or the sound alone."""
    noise = np.random.default_rng(0)
    muxing = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=muxing) as container:
        if path.suffix not in (".wav", ".mp3", ".flac", ".m4a", ".ogg"):
            picture = container.add_stream("mpeg4", rate=5, options={"g": "10"})
            picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        sound = container.add_stream(codec, rate=rate_hz, layout="mono", options=options or {})
        for second in range(seconds):
            if container.streams.video:
                for number in range(5):
                    image = np.full((32, 32, 3), (5 * second + number) % 250, np.uint8)
                    frame = av.VideoFrame.from_ndarray(image).reformat(format="yuv420p")
                    frame.pts, frame.time_base = 5 * second + number, Fraction(1, 5)
                    container.mux(picture.encode(frame))
            at = second + np.arange(rate_hz) / rate_hz
            block = 0.2 * np.sin(2 * np.pi * (200 + 3 * at) * at)
            block[: rate_hz // 10] += noise.uniform(-0.4, 0.4, rate_hz // 10)
            frame = av.AudioFrame.from_ndarray(
                block[None].astype(np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
            frame.pts = second * rate_hz
            container.mux(sound.encode(frame))
        for stream in container.streams:
            container.mux(stream.encode(None))
    return path


NO_NOISE = {"aac_pns": "0"}  # AAC's noise is drawn anew at every decoding


FILES = [
    (".mp4", "aac", NO_NOISE),
    (".mkv", "aac", NO_NOISE),
    (".avi", "aac", NO_NOISE),
    (".ts", "aac", NO_NOISE),
    (".m4a", "aac", NO_NOISE),
    (".mp4", "mp3", {}),
    (".mkv", "mp3", {}),
    (".avi", "mp3", {}),
    (".mp3", "mp3", {}),
    (".mkv", "pcm_s16le", {}),
    (".avi", "pcm_s16le", {}),
    (".wav", "pcm_s16le", {}),
    (".wav", "adpcm_ima_wav", {}),
    (".wav", "adpcm_ms", {}),
    (".mkv", "flac", {}),
    (".flac", "flac", {}),
    (".mp4", "libopus", {}),
    (".mkv", "libopus", {}),
    (".ogg", "libopus", {}),
]
# Opus is always of 48 kHz.
AT_RATES = [(*file, rate) for file in FILES for rate in (44100, 48000)]
AT_RATES = [case for case in AT_RATES if case[1] != "libopus" or case[3] == 48000]


@pytest.mark.parametrize(("suffix", "codec", "options", "rate_hz"), AT_RATES)
def test_a_late_span_is_the_same_samples_as_decoding_from_the_start(
    tmp_path, suffix, codec, options, rate_hz
):
    path = interleaved(
        tmp_path / f"long{suffix}", seconds=24, codec=codec, rate_hz=rate_hz, options=options
    )
    whole = read_audio(path, rate_hz=rate_hz)
    for start in (11.25, 18.5):
        span = read_audio(path, rate_hz=rate_hz, start_seconds=start, duration_seconds=2.5)
        first = round(start * rate_hz)
        assert len(span) == round(2.5 * rate_hz)
        assert torch.equal(span, whole[first : first + len(span)])
    assert len(read_audio(path, start_seconds=100.0, duration_seconds=2.5)) == 0


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "aac"), (".mkv", "ac3")])
def test_a_late_span_differs_by_the_codecs_noise_alone(tmp_path, suffix, codec):
    path = interleaved(tmp_path / f"long{suffix}", seconds=24, codec=codec, rate_hz=48000)
    whole = read_audio(path)
    span = read_audio(path, start_seconds=18.5, duration_seconds=2.5)
    wanted = whole[round(18.5 * RATE_HZ) :][: len(span)]
    assert np.corrcoef(span, wanted)[0, 1] > 0.995


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "mp3"), (".mkv", "flac"), (".avi", "mp3")])
def test_a_span_costs_the_same_wherever_it_lies(tmp_path, monkeypatch, suffix, codec):
    path = interleaved(tmp_path / f"long{suffix}", seconds=100, codec=codec)
    counts = []
    for start in (8.0, 90.0):
        read_packets, decoded = [], []
        watch(monkeypatch, audio_decoding, "_mono", decoded)
        watch(monkeypatch, decoding.Deadline, "check", read_packets)
        read_audio(path, start_seconds=start, duration_seconds=2.5)
        counts.append((len(read_packets), len(decoded)))
        monkeypatch.undo()
    (early_packets, early_frames), (late_packets, late_frames) = counts
    assert late_frames < 1.1 * early_frames
    assert late_packets < 1.5 * early_packets


def test_sound_that_is_cut_off_before_the_span_is_said_to_be(tmp_path):
    path = interleaved(tmp_path / "long.mp4", seconds=40, codec="mp3", faststart=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert len(read_audio(path, start_seconds=12.0, duration_seconds=2.0)) == 2 * RATE_HZ
    with pytest.raises(MediaError, match=r"is cut off before second 35.00; .* until second 40\.\d"):
        read_audio(path, start_seconds=35.0, duration_seconds=2.0)


def watch(monkeypatch, owner, name, calls):
    function = getattr(owner, name)

    def watched(*arguments):
        calls.append(name)
        return function(*arguments)

    monkeypatch.setattr(owner, name, watched)


@pytest.mark.parametrize("rate_hz", [44100, 32000])
@pytest.mark.parametrize("suffix", [".ogg", ".mkv"])
def test_vorbis_is_what_libvorbis_reads(tmp_path, rate_hz, suffix):
    noise, at = np.random.default_rng(0), np.arange(rate_hz // 4) / rate_hz
    hits = [
        0.6 * np.exp(-30 * at) * (np.sin(2 * np.pi * 60 * at) + noise.uniform(-0.5, 0.5, at.size))
        for _ in range(64)
    ]
    path = tmp_path / "drums.ogg"
    with soundfile.SoundFile(path, "w", rate_hz, 1, format="OGG", subtype="VORBIS") as file:
        for hit in hits:
            file.write(hit)
    wanted = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    if suffix != ".ogg":
        with av.open(str(path)) as source, av.open(str(tmp_path / "drums.mkv"), "w") as target:
            copied = target.add_stream_from_template(source.streams.audio[0])
            for packet in source.demux():
                if packet.size:
                    packet.stream = copied
                    target.mux(packet)
        path = tmp_path / "drums.mkv"
    heard = read_audio(path, rate_hz=rate_hz)
    assert len(heard) == len(wanted)
    assert (heard - wanted).abs().max() < 1e-6
    late = read_audio(path, rate_hz=rate_hz, start_seconds=9.5, duration_seconds=2.5)
    assert torch.equal(late, heard[round(9.5 * rate_hz) : round(12 * rate_hz)])


# Tracks


def test_a_track_without_a_decoder_does_not_hide_one_with(tmp_path):
    path = tmp_path / "two.mkv"
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32) / 2
    with av.open(str(path), "w") as container:
        tracks = [("flac", "5.1", 6), ("pcm_s16le", "mono", 1)]
        streams = [container.add_stream(c, rate=RATE_HZ, layout=layout) for c, layout, _ in tracks]
        for stream, (_, layout, copies) in zip(streams, tracks, strict=True):
            samples = np.tile(tone, (copies, 1))
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.sample_rate, frame.time_base, frame.pts = RATE_HZ, Fraction(1, RATE_HZ), 0
            container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"A_FLAC", b"A_XYZW"))
    with av.open(str(path)) as container:
        assert container.streams.best("audio").codec_context is None
    assert (read_audio(path) - torch.from_numpy(tone)).abs().max() < 1e-4
    path.write_bytes(path.read_bytes().replace(b"A_PCM/INT/LIT", b"A_XYZ/INT/LIT"))
    with pytest.raises(MediaError, match=r"two\.mkv: has no audio stream that can be decoded"):
        read_audio(path)
