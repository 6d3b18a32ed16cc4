"""The sentences and numbers on the first screen of a report."""

from dance_eval.report.headlines import headlines


def summary(mean, *, half=0.05, n=96):
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n, "num_failed": 0}


def values(score, *, metrics=("pose_beat_alignment",), **options):
    found = {"drift/colour": summary(0.1)}
    for metric in metrics:
        found[f"{metric}/score"] = summary(score, **options)
        found[f"{metric}/chance"] = summary(0.2, half=0.01)
    return found


def said(systems):
    document = {"confidence": 0.95, "clips": [], "systems": systems}
    return {found["system"]: found for found in headlines(document)}


def test_each_system_stands_beside_chance_ground_truth_and_another_track():
    found = said(
        {
            "ground truth": values(0.9),
            "ours": values(0.76),
            "ours, mismatched audio": values(0.21),
            "ours, silent audio": values(0.2),
            "base": values(0.22),
        }
    )
    assert list(found) == ["ours", "base"]
    assert found["ours"]["rows"] == [
        {
            "score": "pose_beat_alignment",
            "value": "0.760 [0.710, 0.810]",
            "chance": "0.200",
            "ground truth": "0.900 [0.850, 0.950]",
            "another track": "0.210 [0.160, 0.260]",
        }
    ]
    assert " ".join(found["ours"]["sentences"]) == (
        "Pose beat alignment is 0.760 [0.710, 0.810], n = 96: above chance (0.200). That is 80% "
        "of the way from chance to ground truth. With another track it is 0.210 [0.160, 0.260]: the"
        " dance follows its own music."
    )
    assert found["base"]["sentences"] == [
        "Pose beat alignment is 0.220 [0.170, 0.270], n = 96: it cannot be told from chance "
        "(0.200)."
    ]
    assert found["base"]["rows"][0]["another track"] == "-"


def test_what_cannot_be_concluded_is_said():
    names = {"ours": values(0.5), "ours, hears another track": values(0.42)}
    text = " ".join(said(names)["ours"]["sentences"])
    assert "that it follows its own music cannot be said, the intervals overlap" in text
    assert "Without ground truth it cannot be said how much was possible" in text
    text = " ".join(said({"ours": values(0.5, n=8)})["ours"]["sentences"])
    assert "another track it cannot be said that it comes from the music" in text
    assert "8 clips are few" in text
    assert "below chance (0.200)" in said({"ours": values(0.1)})["ours"]["sentences"][0]


def test_five_numbers_at_most_and_none_without_chance():
    metrics = [f"rhythm_{number}" for number in range(7)]
    found = said({"ours": values(0.5, metrics=metrics)})["ours"]
    assert [row["score"] for row in found["rows"]] == metrics[:5]
    found = said({"ours": values(0.5, metrics=())})["ours"]
    assert found["rows"] == [] and "of music nothing can be said" in found["sentences"][0]


def test_ground_truth_alone_has_its_own():
    found = said({"ground_truth": values(0.9)})
    assert "above chance" in found["ground_truth"]["sentences"][0]


def test_a_single_clip_says_nothing():
    one = {"mean": 0.9, "low": None, "high": None, "n": 1, "num_failed": 0}
    systems = {"ours": {"beats/score": one, "beats/chance": one | {"mean": 0.2}}}
    assert said(systems)["ours"]["sentences"] == [
        "Beats is 0.900, n = 1: of one clip nothing can be said."
    ]
