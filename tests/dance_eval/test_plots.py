import xml.etree.ElementTree as ElementTree

import pytest

from dance_eval.plots import Axis, PlotRow, interval_plot, scatter_plot
from dance_eval.report.value_plots import chance_name, value_plots
from tests.scored_numbers import document, record

SVG = "{http://www.w3.org/2000/svg}"


def of_class(root, name):
    return [node for node in root.iter() if node.get("class") == name]


@pytest.mark.parametrize(
    "values, ticks",
    [
        ([0.03, 0.97], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ([-3.0, 11.0], [-5.0, 0.0, 5.0, 10.0, 15.0]),
        ([7.0, 7.0], [6.4, 6.6, 6.8, 7.0, 7.2, 7.4, 7.6]),
        ([0.0, 1000.0], [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]),
    ],
)
def test_an_axis_has_round_marks_around_all_values(values, ticks):
    axis = Axis.over(values, start_px=10, end_px=110)
    assert axis.ticks == pytest.approx(ticks)
    assert (axis.px(ticks[0]), axis.px(ticks[-1])) == (10, 110)
    assert axis.px((ticks[0] + ticks[-1]) / 2) == pytest.approx(60)


def test_a_plot_shows_dots_interval_mean_and_chance_where_they_belong():
    rows = [
        PlotRow("<ours>", 1, 0.6, 0.5, 0.75, [(0.0, "a"), (1.0, "b<")], 0.2),
        PlotRow("none", 9),
    ]
    root = ElementTree.fromstring(interval_plot("score", rows))
    start, end = 14, 360 - 14
    xs = [float(dot.get("cx")) for dot in of_class(root, "dot")]
    assert xs == [start, end]
    [mean], [interval], [chance] = (of_class(root, n) for n in ("mean", "interval", "chance"))
    place = lambda value: pytest.approx(start + value * (end - start), abs=0.01)  # noqa: E731
    assert float(mean.get("cx")) == place(0.6)
    assert (float(interval.get("x1")), float(interval.get("x2"))) == (place(0.5), place(0.75))
    assert float(chance.get("x1")) == place(0.2)
    assert root.get("aria-label") == "score. <ours>: 0.600 [0.500, 0.750]; none: no value"
    assert "b<: 1.000" in [title.text for title in root.iter(f"{SVG}title")]
    # Colours are counted on from the first.
    assert len(of_class(root, "s1")) == 2
    assert interval_plot("score", [PlotRow("none", 0)]) == ""


def test_clips_above_the_diagonal_are_better_than_chance():
    clips = [(0.2, 0.9, "good"), (0.3, 0.1, "bad")]
    options = {"x_label": "chance", "said": "1 of 2"}
    root = ElementTree.fromstring(scatter_plot("score", [("ours", 0, clips)], **options))
    [line] = of_class(root, "chance")
    x1, y1, x2, y2 = (float(line.get(name)) for name in ("x1", "y1", "x2", "y2"))
    for dot, is_above in zip(of_class(root, "dot"), (True, False), strict=True):
        x, y = float(dot.get("cx")), float(dot.get("cy"))
        diagonal = y1 + (x - x1) / (x2 - x1) * (y2 - y1)
        assert (y < diagonal) == is_above
    assert root.get("aria-label") == "1 of 2"
    assert scatter_plot("score", [("ours", 0, [])], **options) == ""


def test_the_chance_level_of_a_value_is_found_by_its_name():
    names = ["m/score", "m/chance", "m/z", "n/hit", "n/miss", "n/miss_chance", "o/chance"]
    found = {name: chance_name(name, names) for name in names}
    assert {name: level for name, level in found.items() if level} == {
        "m/score": "m/chance",
        "n/miss": "n/miss_chance",
    }


def test_every_value_that_varies_is_plotted_once_with_its_clips():
    clips = [
        record(system, n, {"m": {"score": 0.1 * n, "chance": 0.2 + 0.1 * n, "flat": 1.0}})
        for system in ("base", "ours")
        for n in range(3)
    ]
    scores = document(clips)
    # Averages of a whole set, without a value per clip.
    for system in scores["systems"]:
        scores["systems"][system]["distance/value"] = {
            "mean": 3.0, "low": 2.0, "high": 4.0, "n": 3, "num_failed": 0
        }  # fmt: skip
    found = value_plots(scores, {"base": 0, "ours": 1})
    assert list(found) == ["m", "distance"]
    roots = [ElementTree.fromstring(plot) for drawn in found.values() for plot in drawn]
    titles = [of_class(root, "title")[0].text for root in roots]
    assert titles == ["score", "score against chance", "value"]
    assert [len(of_class(root, "dot")) for root in roots] == [6, 6, 0]
    assert roots[1].get("aria-label") == (
        "base: 0 of 3 clips above chance; ours: 0 of 3 clips above chance"
    )
