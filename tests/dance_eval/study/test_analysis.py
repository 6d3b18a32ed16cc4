"""Simulated raters with a known preference, through the command and all its files."""

import itertools
import json
import xml.etree.ElementTree

import numpy as np
import pytest

from dance_eval.study.design import plan_trials
from dance_eval.study.key import ClipRecord, Item, StudyError, StudyKey
from dance_eval.study.preferences import win_rates
from dance_eval.study.report import headline, readable_tables
from dance_eval.study.vote_statistics import Resampling
from dance_eval.study.votes import Vote
from evaluate import main
from tests.dance_eval.study.conftest import vote_rows, write_votes

STRENGTHS = {"weak": -0.8, "middle": 0.0, 'str<ng, "x"': 0.8}
NUM_TRACKS, NUM_RATERS = 8, 12


def simulated_key(systems=tuple(STRENGTHS), num_tracks=NUM_TRACKS, num_raters=NUM_RATERS):
    clips = {
        f"{system[0]}{track}": ClipRecord(
            system, "folder", f"{track}.mp4", f"sha-{system}-{track}", f"t{track}.wav", 0.0,
            None, None, 9, system,
        )
        for system in systems
        for track in range(num_tracks)
    }  # fmt: skip
    clips |= {
        f"s{kind}": ClipRecord(
            systems[0], "folder", "0.mp4", "", None, 0.0, None, None, 9, "", kind
        )
        for kind in ("frozen", "coarse")
    }
    pairs = {
        f"{one[0]}{other[0]}{track}": (
            Item("pair", f"{one[0]}{track}", f"{other[0]}{track}"),
            f"{one}/{other}",
        )
        for one, other in itertools.combinations(systems, 2)
        for track in range(num_tracks)
    }
    catches = {
        "c1": Item("catch", f"{systems[0][0]}0", "sfrozen", expected=("music", "complexity")),
        "c2": Item("catch", f"{systems[0][0]}0", "scoarse", expected=("quality",)),
    }
    plan, repeats = plan_trials(
        pairs,
        catches,
        num_raters=num_raters,
        pairs_per_rater=None,
        num_repeats=3,
        repeat_name=lambda pair: f"again{pair}",
        seed=0,
    )
    items = {name: item for name, (item, _) in pairs.items()} | catches | repeats
    return StudyKey(
        study="abcd1234", seed=0, secret="s", request="r", is_forced=False,
        systems=list(systems), form={"height": 48, "width": 64, "fps": 30.0},
        clips=clips, items=items, plan=plan,
    )  # fmt: skip


def voter(key, rng, *, seed_of_repeats, caught):
    """Quality follows the strengths, music is a coin, the others are ties; catches are caught."""

    def choose(item, question):
        if item.kind == "catch":
            return caught
        name = next(n for n, i in key.items.items() if i == item)
        first, second = key.systems_of(name)
        if question == "quality":
            gap = STRENGTHS[first] - STRENGTHS[second]
            draws = np.random.default_rng(
                [seed_of_repeats, sum(map(ord, item.first + item.second))]
            )
            return int(draws.random() < 1 / (1 + np.exp(-gap)))
        return int(rng.random() < 0.5) if question == "music" else 0.5

    return choose


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    """A study of three systems, its votes, two metrics and the command's output."""
    root = tmp_path_factory.mktemp("analysed")
    key = simulated_key()
    key.write(root / "key.json")
    rng = np.random.default_rng(0)
    for rater in key.plan:
        choose = voter(key, rng, seed_of_repeats=int(rater), caught=0 if rater == "12" else 1)
        write_votes(root / "votes" / f"{rater}.csv", vote_rows(key, rater, choose))
    clips = [
        {
            "system": clip.system,
            "sha256": clip.sha256,
            "values": {
                "good": {"score": STRENGTHS[clip.system] + 0.01 * number},
                "noise": {"score": float(rng.normal())},
                "partial": {"score": 1.0 * number} if number else {},
            },
        }
        for number, clip in enumerate(c for c in key.clips.values() if not c.spoiling)
    ]
    (root / "metrics.json").write_text(
        json.dumps({"systems": {}, "clips": clips, "seed": 0, "confidence": 0.95, "complete": True})
    )
    run(root, "out", "--leave_out=catches", "--metrics", str(root / "metrics.json"))
    return root, key, json.loads((root / "out" / "analysis.json").read_text())


def run(root, output, *arguments):
    main(
        [
            "study", "analyse", str(root / "votes"), f"--key={root / 'key.json'}",
            f"--output={root / output}", "--resamples=300", *arguments,
        ]
    )  # fmt: skip


def test_who_prefers_what_is_found_again(analysed):
    _, _, document = analysed
    rates = {(r["system"], r["against"], r["question"]): r for r in document["win_rates"]}
    names = list(STRENGTHS)
    clear = rates[names[0], names[2], "quality"]
    assert clear["win_rate"] == pytest.approx(1 / (1 + np.exp(1.6)), abs=0.1)
    assert clear["wins"] + clear["ties"] + clear["losses"] == 11 * NUM_TRACKS
    assert clear["wilson"][1] < 0.5 and clear["raters_interval"][1] < 0.5
    assert clear["both_interval"][1] - clear["both_interval"][0] > 0
    assert clear["p_votes_holm"] < 0.01 and clear["p_raters_holm"] < 0.05
    assert clear["p_votes_holm"] == pytest.approx(min(4 * clear["p_votes"], 1))
    coin = rates[names[0], names[2], "music"]
    assert coin["wilson"][0] < 0.5 < coin["wilson"][1]
    assert rates[names[0], names[2], "realism"]["ties"] == 11 * NUM_TRACKS
    assert rates[names[0], names[2], "realism"]["p_votes_holm"] == 1.0


def test_strengths_agreement_and_sides(analysed):
    _, _, document = analysed
    quality = {r["system"]: r for r in document["strengths"] if r["question"] == "quality"}
    for name, true in STRENGTHS.items():
        low, high = quality[name]["interval"]
        assert low < quality[name]["strength"] < high
        assert quality[name]["strength"] == pytest.approx(true, abs=0.35)
    alphas = {row["question"]: row["alpha"] for row in document["agreement"]}
    assert alphas["quality"] > 0.03
    assert abs(alphas["music"]) < 0.08
    assert alphas["realism"] is None
    low, high = document["left_side"]["wilson"]
    assert low < document["left_side"]["share"] < high


def test_metrics_that_see_what_people_see_stand_out(analysed):
    _, _, document = analysed
    rows = {(r["metric"], r["question"]): r for r in document["correlations"]}
    good, noise = rows["good/score", "quality"], rows["noise/score", "quality"]
    assert good["pairs"] == 3 * NUM_TRACKS and good["spearman"] > 0.6
    assert good["spearman_interval"][0] > 0.3
    assert good["pairwise_accuracy"] > 0.8
    assert abs(noise["spearman"]) < good["spearman"]
    assert (good["system_spearman"], good["system_kendall"]) == (pytest.approx(1), pytest.approx(1))
    assert good["system_accuracy"] == 1.0
    assert rows["good/score", "all"]["pairs"] == 3 * NUM_TRACKS
    assert rows["partial/score", "quality"]["pairs"] < 3 * NUM_TRACKS
    said = [p for p in document["problems"] if p["kind"] == "unscored"]
    assert [p["where"] for p in said] == ["partial/score"]
    assert said[0]["text"] == "has no value for 1 of 24 clips of the study."


def test_a_rater_who_fails_catches_is_reported_and_left_out_by_option(analysed, capsys):
    root, _, document = analysed
    assert document["raters_left_out"] == ["12"]
    row = document["raters"][-1]
    assert (row["rater"], row["num_caught"], row["num_catches"]) == ("12", 0, 3)
    assert row["failed"][:1] == ["catches"]
    run(root, "all")
    whole = json.loads((root / "all" / "analysis.json").read_text())
    assert whole["raters_left_out"] == []
    assert whole["votes"] == document["votes"] * 12 // 11
    assert whole["raters"][-1]["failed"][:1] == ["catches"]
    assert "count all the same" in headline(whole).partition(";")[0]
    assert "12 (catches" in headline(whole) and headline(whole) in capsys.readouterr().out
    assert "12 (catches" not in headline(document)


def test_columns_of_intervals_say_so(analysed):
    _, _, document = analysed
    names = list(readable_tables(document)["win_rates"][0])
    assert [name for name in names if "interval" in name] == [
        "95% interval, votes (Wilson)",
        "95% interval, raters drawn",
        "95% interval, pairs drawn",
        "95% interval, both drawn",
    ]
    assert "raters" not in names and "pairs" not in names


def test_tables_plots_and_page_are_written(analysed):
    root, _, document = analysed
    out = root / "out"
    for name in ("win_rates", "agreement", "strengths", "correlations", "raters", "problems"):
        assert (out / f"{name}.md").read_text().startswith("| ")
        num_lines = len((out / f"{name}.csv").read_text().splitlines())
        assert num_lines == 1 + len(document[name])
    plots = sorted(p.name for p in (out / "plots").iterdir())
    assert plots == [
        "correlations.svg", "metric_01.svg", "metric_02.svg", "metric_03.svg", "strengths.svg",
        "win_rates_1.svg", "win_rates_2.svg", "win_rates_3.svg",
    ]  # fmt: skip
    for plot in (out / "plots").iterdir():
        tree = xml.etree.ElementTree.parse(plot)
        assert tree.findall(".//{http://www.w3.org/2000/svg}circle")
    page = (out / "index.html").read_text()
    assert page.count("<svg") == len(plots) and "://" not in page.replace("http://www.w3.org", "")
    assert "str&lt;ng" in page and "str<ng" not in page


def test_rows_that_do_not_count_stop_the_command_unless_accepted(tmp_path, capsys):
    key = simulated_key(("one", "two"), num_tracks=3, num_raters=2)
    key.write(tmp_path / "key.json")
    rows = vote_rows(key, "1", lambda item, question: 1)
    edited = next(row for row in rows if key.items[row[4]].kind == "pair")
    edited[8] = "tie"
    write_votes(tmp_path / "votes" / "1.csv", rows)
    with pytest.raises(StudyError, match=r"1 rows or files do not count: edited \(1\)"):
        run(tmp_path, "out")
    assert "edited: was changed after it was downloaded" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "analysis.json").read_text())["votes"] == 12 - 1
    run(tmp_path, "out", "--despite_problems=true")
    write_votes(tmp_path / "votes" / "1.csv", [])
    with pytest.raises(StudyError, match="No vote of the study abcd1234 is left"):
        run(tmp_path, "out")


def test_thousands_of_pairs_are_analysed():
    """A hundred raters on 3,000 pairs; counts and memory stay those of the votes."""
    key = simulated_key(("one", "two"), num_tracks=3000, num_raters=1)
    rng = np.random.default_rng(0)
    names = [name for name, item in key.items.items() if item.kind == "pair"]
    votes = [
        Vote(str(rater), names[int(n)], "quality", float(rng.random() < 0.6), True, 1.0)
        for rater in range(100)
        for n in rng.choice(len(names), 60, replace=False)
    ]
    (row,) = win_rates(votes, key, Resampling(num_resamples=100))
    assert row["win_rate"] == pytest.approx(0.6, abs=0.03)
    assert row["pairs"] > 2000
    for name in ("wilson", "raters_interval", "items_interval", "both_interval"):
        assert row[name][0] < 0.6 < row[name][1]
