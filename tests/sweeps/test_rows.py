"""Every row of the shipped sweeps: its overlay changes one thing of the fully parsed config."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from musicinfuser.setting_differences import flatten
from sweeps.plan import merged, option_arguments, plan_runs
from sweeps.settings import SweepSpec, all_rows, read_sweep
from tests.conftest import ROOT
from tests.sweeps.parsing import ABLATIONS, ParsingCLI

M, D = "model.init_args", "data.init_args"
# Overlay -> all that differs from base.yaml, and how.
ONE_THING: dict[str, dict[str, Any]] = {
    **{
        f"layers_{name}": {f"{M}.layers.strategy": name}
        for name in ("all", "even", "first", "middle", "last")
    },
    "feature_addition": {f"{M}.zica.form": "feature_addition"},
    "uniform_noise": {"beta_annealing.initial": 1.0, "beta_annealing.mode": "fixed"},
    "no_wild": {f"{D}.ratio.youtube": 0},
    "zica_random": {f"{M}.zica.init": "random"},
    "lora_rank_16": {f"{M}.lora.rank": 16, f"{M}.lora.alpha": 16.0},
    "no_lora": {f"{M}.lora": None},
    "base_prompt_0": {f"{D}.base_prompt_probability": 0.0},
    "base_prompt_100": {f"{D}.base_prompt_probability": 1.0},
    "half_life_50": {"beta_annealing.half_life_steps": 50},
    "half_life_800": {"beta_annealing.half_life_steps": 800},
    "initial_beta_2": {"beta_annealing.initial": 2.0},
    "initial_beta_6": {"beta_annealing.initial": 6.0},
    "zica_one_head": {f"{M}.zica.num_heads": 1},
    "zica_scale_width": {f"{M}.zica.scale": "width"},
    "zica_eq6": {
        f"{M}.zica.num_heads": 1,
        f"{M}.zica.bias": False,
        f"{M}.zica.scale": "width",
    },
    "zica_rotary": {f"{M}.zica.positions": "rotary"},
    "zica_aligned": {f"{M}.zica.positions": "aligned"},
    "zica_no_positions": {},  # base.yaml has none; small.yaml does
    "zica_frame_window_1": {f"{M}.zica.frame_window": 1},
    "zica_query_norm": {f"{M}.zica.query_norm": True},
    "lora_visual": {f"{M}.lora.streams": "visual"},
    "music_dropout": {f"{D}.music_dropout": 0.1, f"{D}.both_dropout": 0.05},
    "counterfactual": {f"{M}.objective.counterfactual.weight": 1.0},
    "mask": {f"{M}.objective.mask.weight": 3.0},
    "music_guidance_3": {f"{M}.sampling.music_guidance_scale": 3.0},
    "data_half": {f"{D}.training_share": 0.5},
    "data_quarter": {f"{D}.training_share": 0.25},
    # Features are cached, so other features mean another cache; their width is the projector's.
    "audio_layer_6": {
        f"{M}.encoders.audio_layer": 6,
        f"{D}.cache_dir": "cache/audio_layer_6",
    },
    "audio_log_mel": {
        f"{M}.encoders.audio_features": "log_mel",
        f"{M}.audio_width": 80,
        f"{D}.cache_dir": "cache/audio_log_mel",
    },
    "audio_rhythm": {
        f"{M}.encoders.audio_features": "rhythm",
        f"{M}.audio_width": 35,
        f"{D}.cache_dir": "cache/audio_rhythm",
    },
    "audio_rhythm_and_wav2vec": {
        f"{M}.encoders.audio_features": ("encoder", "rhythm"),
        f"{M}.audio_width": 803,
        f"{D}.cache_dir": "cache/audio_rhythm_and_wav2vec",
    },
    "audio_layer_mixture": {
        f"{M}.encoders.audio_layer": "all",
        f"{M}.audio_width": 9984,
        f"{D}.cache_dir": "cache/audio_layer_mixture",
    },
    "audio_mert": {
        f"{M}.encoders.audio_features": "mert",
        f"{M}.encoders.audio": "m-a-p/MERT-v1-95M",
        f"{D}.cache_dir": "cache/audio_mert",
    },
    "audio_muq": {
        f"{M}.encoders.audio_features": "muq",
        f"{M}.encoders.audio": "OpenMuQ/MuQ-large-msd-iter",
        f"{M}.audio_width": 1024,
        f"{D}.cache_dir": "cache/audio_muq",
    },
    "audio_hubert": {
        f"{M}.encoders.audio": "facebook/hubert-base-ls960",
        f"{D}.cache_dir": "cache/audio_hubert",
    },
}
# Overlay -> all that differs from small.yaml under the options of the small sweeps.
SMALL_THING: dict[str, dict[str, Any]] = {
    "small/half_life_short": {"beta_annealing.half_life_steps": 2},
    "small/half_life_long": {"beta_annealing.half_life_steps": 32},
    "small/lora_rank_2": {f"{M}.lora.rank": 2, f"{M}.lora.alpha": 2.0},
    "small/resampling_nearest": {f"{M}.audio_resampling": "nearest"},
    "small/resampling_average": {f"{M}.audio_resampling": "average"},
    "small/audio_layer_1": {
        f"{M}.encoders.audio_layer": 1,
        f"{M}.audio_width": 96,
        f"{D}.cache_dir": "runs/ablations/cache_audio_layer_1",
    },
    "small/audio_hidden_states": {
        f"{M}.encoders.audio_layer": None,
        f"{M}.audio_width": 96,
        f"{D}.cache_dir": "runs/audio/cache_audio_hidden_states",
    },
    "small/audio_log_mel": {
        f"{M}.encoders.audio_features": "log_mel",
        f"{M}.encoders.audio_layer": None,
        f"{M}.audio_width": 80,
        f"{D}.cache_dir": "runs/ablations/cache_audio_log_mel",
    },
    "small/audio_log_mel_played": {
        f"{M}.encoders.audio_features": "log_mel",
        f"{M}.encoders.audio_layer": None,
        f"{M}.audio_width": 80,
        f"{M}.audio_resampling": "average",
        f"{D}.cache_dir": "runs/audio/cache_audio_log_mel",
    },
    "small/audio_rhythm_average": {
        f"{M}.encoders.audio_features": "rhythm",
        f"{M}.encoders.audio_layer": None,
        f"{M}.audio_width": 35,
        f"{M}.audio_resampling": "average",
        f"{D}.cache_dir": "runs/audio/cache_audio_rhythm",
    },
    "small/audio_rhythm": {
        f"{M}.encoders.audio_features": "rhythm",
        f"{M}.encoders.audio_layer": None,
        f"{M}.audio_width": 35,
        f"{D}.cache_dir": "runs/audio/cache_audio_rhythm",
    },
    "small/audio_rhythm_and_wav2vec": {
        f"{M}.encoders.audio_features": ("encoder", "rhythm"),
        f"{M}.encoders.audio_layer": None,
        f"{M}.audio_width": 131,
        f"{M}.audio_resampling": "average",
        f"{D}.cache_dir": "runs/audio/cache_audio_rhythm_and_wav2vec",
    },
    # Without attention there are no positions to know.
    "feature_addition": {
        f"{M}.zica.form": "feature_addition",
        f"{M}.zica.positions": "none",
    },
    "zica_no_positions": {f"{M}.zica.positions": "none"},
    "small/zica_frame_window_no_positions": {
        f"{M}.zica.positions": "none",
        f"{M}.zica.frame_window": 1,
    },
    # There, the measured layers are named by their file.
    **{
        f"layers_{name}": {f"{M}.layers.strategy": name, f"{M}.layers.scores": None}
        for name in ("all", "even", "first", "middle", "last")
    },
}
SAME_KIND = {f"layers_{name}" for name in ("even", "first", "middle", "last")}  # as layers_all
SWEEPS = sorted(path.stem for path in (ROOT / "configs" / "sweeps").glob("*.yaml"))


def sweep(name: str) -> SweepSpec:
    with contextlib.chdir(ROOT):
        return read_sweep(Path("configs") / "sweeps" / f"{name}.yaml")


def in_small_sweeps() -> list[str]:
    """The ablations of the sweeps on the small world; another base is none."""
    small, folder = "configs/small_world/small.yaml", Path("configs/ablations")
    specs = [spec for spec in map(sweep, SWEEPS) if small in spec.configs]
    rows = [row for spec in specs for row in all_rows(spec)]
    paths = [Path(path) for row in rows for path in row.overlays]
    names = [p.relative_to(folder).with_suffix("") for p in paths if p.is_relative_to(folder)]
    return list(dict.fromkeys(name.as_posix() for name in names))


def under_small() -> list[str]:
    """What all rows of the sweeps on the small world share."""
    table1, extra = sweep("small_table1"), sweep("small_extra")
    assert (table1.configs, table1.options) == (extra.configs, extra.options)
    return [f"--config={ROOT}/{path}" for path in table1.configs] + option_arguments(table1.options)


UNDER = {"base": [f"--config={ROOT}/configs/base.yaml"], "small": under_small()}


@pytest.fixture(scope="module")
def parse():
    parser = ParsingCLI(UNDER["base"]).parser
    parsed: dict[str, dict] = {}

    def leaves(base: str, overlay: str = "") -> dict[str, Any]:
        more = [f"--config={ABLATIONS}/{overlay}.yaml"] if overlay else []
        config = parser.parse_args([*UNDER[base], *more]).as_dict()
        for name in [name for name in config if name == "config"]:
            del config[name]
        return flatten(config)

    def differing(base: str, overlay: str) -> dict[str, Any]:
        before = parsed.setdefault(base, leaves(base))
        now = leaves(base, overlay)
        return {
            name: now.get(name)
            for name in sorted(before.keys() | now.keys())
            if before.get(name, "absent") != now.get(name, "absent")
        }

    return differing


def test_no_overlay_is_untested() -> None:
    found = {p.relative_to(ABLATIONS).with_suffix("").as_posix() for p in ABLATIONS.rglob("*.yaml")}
    encode = {name for name in found if "encode" in name}
    assert found - encode == ONE_THING.keys() | SMALL_THING.keys()
    assert {name for name in SMALL_THING if name.startswith("small/")} <= set(in_small_sweeps())


NO_LORA = {f"{M}.lora": None} | {
    f"{M}.lora.{name}": None
    for name in ("rank", "alpha", "targets", "streams", "ranks", "dora", "share_qkv_a")
}


@pytest.mark.parametrize("overlay", ONE_THING)
def test_an_overlay_changes_one_thing(parse, overlay: str) -> None:
    expected = NO_LORA if overlay == "no_lora" else ONE_THING[overlay]
    assert parse("base", overlay) == expected


@pytest.mark.parametrize("overlay", [n for n in SMALL_THING if n not in SAME_KIND])
def test_on_the_small_world_too(parse, overlay: str) -> None:
    assert parse("small", overlay) == SMALL_THING[overlay]


def test_rows_of_the_small_sweeps_change_one_thing_of_what_they_share() -> None:
    """Without the parser, which takes longer: defaults are left out."""
    shared = sweep("small_table1")
    for overlay in in_small_sweeps():
        layers = [([f"{ROOT}/{path}" for path in shared.configs], shared.options)]
        before = flatten(merged(layers))
        now = flatten(merged([*layers, ([f"{ABLATIONS}/{overlay}.yaml"], {})]))
        found = {
            name: now.get(name)
            for name in before.keys() | now.keys()
            if before.get(name) != now.get(name)
        }
        expected = NO_LORA if overlay == "no_lora" else SMALL_THING.get(overlay)
        expected = ONE_THING[overlay] if expected is None else expected
        assert found.items() <= expected.items() and found, overlay


@pytest.mark.parametrize(
    ("encode", "name"), [("encode", "small_table1"), ("encode_played", "small_audio")]
)
def test_small_caches_are_where_the_rows_look(encode: str, name: str) -> None:
    overlay = yaml.safe_load((ABLATIONS / "small" / f"{encode}.yaml").read_text())
    encoded = overlay["data"]["init_args"]
    assert encoded["cache_dir"] == sweep(name).options[f"{D}.cache_dir"]
    said = (ROOT / "configs" / "sweeps" / f"{name}.yaml").read_text()
    world = encoded["sources"][0]["init_args"]["root"].removesuffix("/aist")
    assert f"small_world.generator {world} " in said


@pytest.mark.parametrize("name", SWEEPS)
def test_shipped_sweeps_plan_what_they_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    spec = sweep(name)
    rows, runs = all_rows(spec), plan_runs(spec)
    whole = {row.name for row in rows if row.train and not row.overlays}
    assert spec.reference in whole or (spec.axes and spec.reference is None)
    assert len({run.folder for run in runs}) == len(runs)
    # A row is one overlay, one option, or one way to come by clips; or one of a grid.
    for row in rows:
        assert len(row.overlays) + len(row.options) <= max(1, len(spec.axes))
    for run in runs:
        row = next(row for row in rows if row.name == run.row)
        trains = row.train and row.adapters_of is None and row.clips is None
        assert [s.name for s in run.stages][-1] == "score"
        assert (run.stages[0].name == "fit") == trains
        if trains:  # rows are judged by `predict`; samples would cost each a few per cent more
            config = flatten(run.stages[0].settings["config"])
            assert config["sample_generation.every_n_steps"] == 0
    trained = {run.row for run in runs if run.stages[0].name == "fit"}
    if name in ("table1", "small_table1"):
        published = yaml.safe_load((ROOT / "dance_eval/report/paper_tables.yaml").read_text())
        of_table = next(t for k, t in published["tables"].items() if t["title"] == "Table 1")
        assert trained == {row["row"] for row in of_table["rows"]}
    if name.startswith("small"):
        assert spec.seeds == [1, 2, 3] and spec.options["trainer.max_steps"] == 150
        # Three times its training rows, and no more for what does not train.
        assert sum(run.row == "Ours" for run in runs) == 3
