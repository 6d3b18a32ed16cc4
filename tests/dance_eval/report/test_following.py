"""The table that says whether a system follows its music."""

from dance_eval.metrics.following import FOLLOWS, following_rows, is_controlled
from dance_eval.tables import latex_table
from musicinfuser.tables import markdown_table


def summary(mean, n=4):
    low, high = (None, None) if mean is None else (mean - 0.1, mean + 0.1)
    return {"mean": mean, "low": low, "high": high, "n": n, "num_failed": 0}


def values(slope=None, energy=1.0, score=0.2, ratio=None):
    return {
        "lag/slope": summary(slope),
        "energy/at_beats": summary(energy),
        "tempo/median_ratio_x0.75": summary(ratio),
        "beats/score": summary(score),
        "beats/chance": summary(0.22),
    }


DOCUMENT = {
    "confidence": 0.95,
    "clips": [],
    "systems": {
        "base": values(),
        "ours": values(slope=0.9, energy=0.5, score=0.8, ratio=1.02),
        "ours, shifted audio": values(),
        "ours, silent audio": values(energy=0.97),
        "ours, mismatched audio": values(score=0.23),
        "ours at tempo 0.75": values(),
    },
}


def test_every_control_has_a_row_and_every_system_a_column():
    rows = {row[FOLLOWS].split(":")[0]: row for row in following_rows(DOCUMENT)}
    assert list(rows) == ["lag", "silence", "tempo 0.75", "another track"]
    assert all(
        list(row) == [FOLLOWS, "follows", "ignores it", "base", "ours"] for row in rows.values()
    )
    assert {name: row["ours"] for name, row in rows.items()} == {
        "lag": "0.900 [0.800, 1.000] (n = 4)",
        "silence": (
            "0.970 [0.870, 1.070] (n = 4); own sound 0.500 [0.400, 0.600] (n = 4)"
        ),
        "tempo 0.75": "1.020 [0.920, 1.120] (n = 4)",
        "another track": (
            "0.230 [0.130, 0.330] (n = 4), chance 0.220; own sound 0.800 [0.700, 0.900] (n = 4)"
        ),
    }  # fmt: skip
    assert {name: row["base"] for name, row in rows.items()} == {
        "lag": "- (no shifted audio)",
        "silence": "- (no silent audio)",
        "tempo 0.75": "- (no other tempo)",
        "another track": "- (no mismatched audio)",
    }
    assert (rows["lag"]["follows"], rows["lag"]["ignores it"]) == ("1", "0")
    assert (rows["tempo 0.75"]["follows"], rows["tempo 0.75"]["ignores it"]) == ("1", "1.33")
    assert is_controlled(following_rows(DOCUMENT))
    assert "0.900" in markdown_table(list(rows.values()))
    assert "0.900" in latex_table(list(rows.values()))


def test_without_the_metrics_it_says_so():
    document = {"confidence": 0.95, "clips": [], "systems": {"a": {"beats/score": summary(0.2)}}}
    rows = following_rows(document)
    assert [row["a"] for row in rows] == ["- (not measured)"] * 4
    assert not is_controlled(rows)


def test_names_of_earlier_versions():
    systems = {"a": values(score=0.7), "a, hears another track": values(score=0.3)}
    rows = following_rows({"confidence": 0.95, "clips": [], "systems": systems})
    assert "a, hears another track" not in rows[-1]
    assert rows[-1]["a"].startswith("0.300")


def clip(system, track, energy, folder="a"):
    return {
        "system": system, "folder": folder, "track": track, "track_offset_seconds": 0.4,
        "prompt": "p", "seed": 0, "values": {"energy": {"at_beats": energy}},
    }  # fmt: skip


def test_own_sound_is_that_of_the_same_requests():
    """Clips of other controls' folders are of other requests, or the same one again."""
    clips = [
        clip("ours", "a.wav", 0.2), clip("ours", "b.wav", 0.4), clip("ours", "a.wav", 0.2, "lag"),
        clip("ours", "a_tempo_0.75.wav", 1.5), clip("ours, silent audio", "a.wav", 1.0),
        clip("ours, silent audio", "b.wav", 1.0),
    ]  # fmt: skip
    document = DOCUMENT | {"clips": clips, "seed": 0}
    rows = {row[FOLLOWS].split(":")[0]: row["ours"] for row in following_rows(document)}
    assert rows["silence"].partition("own sound ")[2].startswith("0.300 [")
    assert rows["silence"].endswith("(n = 2)")


def test_clips_of_which_nothing_can_be_told_are_no_missing_clips():
    system = values() | {"lag/num_without_slope": summary(2.0, n=2)}
    rows = following_rows({"confidence": 0.95, "clips": [], "systems": {"ours": system}})
    assert rows[0]["ours"] == "- (none of 2: too short, of unlike length, or still)"
    assert is_controlled(rows)
