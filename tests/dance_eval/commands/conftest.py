import json
import shutil

import pytest

from musicinfuser.fingerprint import file_digest
from tests.scored_dances import NUM_CLIPS, Brightness, known_beats, metrics_file, write_dance


@pytest.fixture(scope="module")
def dances(tmp_path_factory):
    """Two systems of eight clips over one track: on its beats, and anywhere between them."""
    folder = tmp_path_factory.mktemp("dances")
    known_beats(folder / "song.json", [0.5 * k for k in range(40)])
    for system in ("on_beat", "off_beat"):
        lines = []
        for index in range(NUM_CLIPS):
            offset = 0.3 * index
            # The track's beats on the clip's clock, then moved by eighths of a beat or not at all.
            phase = -offset % 0.5 + (0.0 if system == "on_beat" else 0.5 * index / NUM_CLIPS)
            file = folder / system / f"clip{index}.mp4"
            write_dance(file, phase_seconds=phase)
            lines.append(
                {
                    "file": file.name,
                    "system": system,
                    "track": "../song.wav",
                    "track_offset_seconds": offset,
                    "num_frames": 73,
                    "fps": 30.0,
                    "sha256": file_digest(file),
                }
            )
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / system / "manifest.jsonl").write_text(text)
    return folder


@pytest.fixture
def few(dances, tmp_path):
    """A folder of two clips, without lists, with known beats beside the clips."""
    folder = tmp_path / "few"
    folder.mkdir()
    for index in range(2):
        shutil.copy(dances / "on_beat" / f"clip{index}.mp4", folder)
        known_beats(folder / f"clip{index}.json", [0.1 * index + 0.5 * k for k in range(8)])
    return folder


@pytest.fixture
def brightness(tmp_path):
    Brightness.scored.clear()

    def write(**init_args):
        name = "tests.scored_dances.Brightness"
        return metrics_file(tmp_path / "brightness.yaml", name, **{name: init_args})

    return write
