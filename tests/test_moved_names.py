import importlib

import pytest
import yaml

from dance_eval.commands.options import read_metrics
from dance_eval.loading import EvaluationError
from dance_eval.report.origin import meanings
from musicinfuser.moved_names import MOVED, new_name


@pytest.mark.parametrize("name", MOVED.values())
def test_what_moved_is_there(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, kind = name.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), kind), type)


def test_the_longest_name_counts():
    old = "musicinfuser.metrics.torso_beat.TorsoBeatCorrelation"
    assert new_name(old) == "small_world.metrics.torso_beat_correlation.TorsoBeatCorrelation"
    assert new_name("musicinfuser.metrics.clip.ClipMetric") == "dance_eval.metrics.clip.ClipMetric"
    assert new_name("musicinfuser.metricsx") is new_name("callbacks.AdapterEMA") is None


def test_a_list_of_metrics_of_an_earlier_version_is_told_the_new_name(tmp_path):
    old = "musicinfuser.metrics.beat_alignment.BeatAlignment"
    path = tmp_path / "metrics.yaml"
    path.write_text(yaml.safe_dump([{"class_path": old}]))
    with pytest.raises(EvaluationError, match=f"{old} is called dance_eval.metrics.beat_al.* now"):
        read_metrics(path)


def test_a_report_of_an_earlier_version_is_explained():
    spec = {"class_path": "musicinfuser.metrics.beat_alignment.BeatAlignment"}
    [(names, summary, _)] = meanings({"metrics": [spec]})
    assert names == "BeatAlignment" and summary
