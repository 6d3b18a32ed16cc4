from itertools import product
from pathlib import Path

import pytest

from datamodules.aist_names import (
    AISTName,
    aistpp_split,
    dancers_of,
    is_held_out,
    music_of,
    parse_name,
    tables,
)


def test_parses_a_solo_video():
    expected = AISTName("BR", "BM", "c01", ("d04",), "mBR0", "ch01", None)
    for name in (
        "gBR_sBM_c01_d04_mBR0_ch01.mp4",
        "gBR_sBM_c01_d04_mBR0_ch01",
        "/some folder/10M.x/gBR_sBM_c01_d04_mBR0_ch01.MOV",
        Path("a/gBR_sBM_c01_d04_mBR0_ch01.mp4"),
    ):
        assert parse_name(name) == expected


def test_parses_three_dancers_in_order():
    name = parse_name("gLO_sGR_c01_d15_d13_d14_mLO0_ch07.mp4")
    assert name is not None
    assert name.dancers == ("d15", "d13", "d14")
    assert (name.situation, name.music, name.choreography) == ("GR", "mLO0", "ch07")


@pytest.mark.parametrize(
    ("text", "situation", "dancers", "variation"),
    [
        ("sSH_c01_v0.mp4", "SH", (), "v0"),
        ("sCY_c10_v3.mp4", "CY", (), "v3"),
        ("sBT_c02_d21_d31_v5.mp4", "BT", ("d21", "d31"), "v5"),
        ("sBT_c02_v12.mp4", "BT", (), "v12"),
    ],
)
def test_parses_names_with_a_variation(text, situation, dancers, variation):
    name = parse_name(text)
    assert name is not None
    assert (name.situation, name.dancers, name.variation) == (situation, dancers, variation)
    assert name.genre is name.music is name.choreography is None


@pytest.mark.parametrize(
    "text",
    [
        "gBR_sBM_c01_d04_mBR0_ch01.mp4",
        "gMH_sMM_c10_d22_mMH5_ch12.mp4",
        "gLO_sGR_c01_d13_d14_d15_mLO0_ch01.mp4",
        "gKR_sFM_cAll_d28_mKR2_ch03",
        "sSH_c01_v0.mp4",
        "sBT_c02_d21_d31_v5.mp4",
    ],
)
def test_a_name_is_written_back_as_it_was_read(text):
    assert str(parse_name(text)) == text.removesuffix(".mp4")


@pytest.mark.parametrize(
    "text",
    [
        "dance.mp4",
        "",
        "gBR_sBM_c01_mBR0_ch01.mp4",  # no dancer
        "gXX_sBM_c01_d04_mBR0_ch01.mp4",  # no such genre
        "gBR_sXX_c01_d04_mBR0_ch01.mp4",  # no such situation
        "gBR_sSH_c01_d04_mBR0_ch01.mp4",  # a showcase has no such form
        "gBR_sBM_c11_d04_mBR0_ch01.mp4",  # no such camera
        "gBR_sBM_c01_d36_mBR0_ch01.mp4",  # no such dancer
        "gBR_sBM_c01_d04_mBR6_ch01.mp4",  # no such music
        "gBR_sBM_c01_d04_mBR0_ch01.seg0.mp4",  # a cut clip is not a recording
        "xgBR_sBM_c01_d04_mBR0_ch01.mp4",
        "gbr_sbm_c01_d04_mbr0_ch01.mp4",
        "sBM_c01_v0.mp4",
        "sSH_v0.mp4",
    ],
)
def test_other_names_give_none(text):
    assert parse_name(text) is None


def test_sequence_replaces_the_camera():
    name = parse_name("gWA_sFM_c07_d25_mWA3_ch20.mp4")
    assert name is not None
    assert name.sequence == "gWA_sFM_cAll_d25_mWA3_ch20"


def test_tables_have_the_published_sizes():
    known = tables()
    assert [len(t) for t in (known.genres, known.situations, known.cameras)] == [10, 7, 10]
    genders = list(known.dancers.values())
    assert (genders.count("male"), genders.count("female")) == (20, 15)
    assert list(known.dancers) == [f"d{number:02d}" for number in range(1, 36)]
    assert set(known.music_bpm) == {f"m{g}{n}" for g, n in product(known.genres, range(6))}


def test_tempo_follows_the_number_of_the_piece():
    for music, bpm in tables().music_bpm.items():
        number = int(music[-1])
        assert bpm == (110 + 5 * number if music.startswith("mHO") else 80 + 10 * number), music


def test_held_out_music_is_one_piece_per_genre():
    held_out = tables().held_out_music
    assert sorted(music[1:3] for music in held_out) == sorted(tables().genres)
    # Tempi of Table 7's pieces.
    tempi = {"mLH4": 120, "mKR2": 100, "mBR0": 80, "mLO2": 100, "mJB5": 130}
    tempi |= {"mWA0": 80, "mJS3": 110, "mMH3": 110, "mHO5": 135, "mPO1": 90}
    assert {music: tables().music_bpm[music] for music in held_out} == tempi


@pytest.mark.parametrize(
    ("text", "held_out"),
    [
        ("gBR_sBM_c01_d04_mBR0_ch05.mp4", True),
        ("gBR_sFM_c01_d04_mBR0_ch15.mp4", True),
        ("gBR_sBM_c01_d04_mBR1_ch02.mp4", False),
        ("sSH_c01_v0.mp4", False),
        ("sCY_c01_v3.mp4", True),  # mLO2 and mHO5 are played in it
        ("sBT_c01_d20_d33_v6.mp4", False),
        ("sBT_c01_v9.mp4", True),  # its pieces are not listed
        ("sSH_c01_v5.mp4", True),  # v5 is a battle
    ],
)
def test_held_out(text, held_out):
    name = parse_name(text)
    assert name is not None
    assert is_held_out(name) is held_out


def test_music_and_dancers_of_a_variation():
    showcase, battle = parse_name("sSH_c01_v1.mp4"), parse_name("sBT_c01_v5.mp4")
    unlisted = parse_name("sBT_c01_v8.mp4")
    assert showcase is not None and battle is not None and unlisted is not None
    assert music_of(showcase) == ("mLH2",)
    assert len(dancers_of(showcase) or ()) == 10
    assert dancers_of(battle) == ("d21", "d31")
    assert music_of(unlisted) is None and dancers_of(unlisted) is None


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("gBR_sBM_cAll_d04_mBR0_ch02", "test"),
        ("gPO_sBM_c09_d11_mPO1_ch02.mp4", "test"),
        ("gBR_sBM_cAll_d04_mBR0_ch01", "val"),
        ("gBR_sBM_cAll_d04_mBR1_ch03", "train"),
        ("gBR_sBM_c03_d04_mBR1_ch10.mp4", "train"),
        ("gBR_sFM_cAll_d04_mBR1_ch01", "train"),
        ("gBR_sBM_cAll_d04_mBR1_ch02", None),  # other song, but a test choreography number
        ("gBR_sBM_cAll_d06_mBR0_ch02", None),  # not the dancer of the list
        ("gBR_sBM_cAll_d04_mBR0_ch03", None),
        ("gBR_sFM_cAll_d04_mBR0_ch20", None),
        ("gMH_sMM_c10_d22_mMH1_ch12.mp4", None),
        ("gLO_sGR_c01_d13_d14_d15_mLO0_ch05.mp4", None),
        ("gBR_sBM_c10_d04_mBR1_ch03.mp4", None),  # AIST++ has no moving camera
        ("sSH_c01_v0.mp4", None),
        ("dance.mp4", None),
    ],
)
def test_membership_in_aistpp(name, split):
    parsed = parse_name(name)
    assert (parsed and aistpp_split(parsed)) == split


@pytest.mark.parametrize(("split", "choreography"), [("val", 1), ("test", 2)])
def test_aistpp_val_and_test_have_twenty_sequences(split, choreography):
    every_name = (
        f"g{music[1:3]}_sBM_cAll_{dancer}_{music}_ch{number:02d}"
        for dancer, music, number in product(tables().dancers, tables().music_bpm, range(1, 11))
    )
    names = [name for name in every_name if aistpp_split(parse_name(name)) == split]
    assert len(names) == 20
    assert {name[-4:] for name in names} == {f"ch{choreography:02d}"}
    assert {name.split("_")[4] for name in names} == tables().held_out_music
