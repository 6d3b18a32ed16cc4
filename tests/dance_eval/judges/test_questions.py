import hashlib

import pytest

from dance_eval.judges.questions import GROUPS, averages, key_of, questions

ALL = [name for names in GROUPS.values() for name in names]


def test_table_10_is_asked_to_the_letter():
    texts = {question.name: question.text for question in questions("spinning {fast}")}
    assert list(texts) == [
        "Style Alignment", "Beat Alignment", "Body Representation", "Movement Realism",
        "Choreography Complexity", "Imaging Quality", "Aesthetic Quality", "Overall Consistency",
        "Style Capture", "Creative Interpretation", "Overall Prompt Satisfaction",
    ]  # fmt: skip
    assert texts["Body Representation"] == (
        "Rate the body representation of the dancer where: 0 means unrealistic/distorted "
        "proportions of the dancer, 5 means minor anatomical issues of the dancer, and 10 means "
        "anatomically perfect representation of the dancer. Output only the number."
    )
    assert texts["Creative Interpretation"] == (
        "Based on the prompt 'spinning {fast}', rate the creativity in interpreting the prompt "
        "0-10 where: 0 means generic/standard interpretation, 5 means moderate creativity, and 10 "
        "means highly creative and unique interpretation. Output only the number."
    )
    # The digest of all eleven as the paper prints them, with {prompt} as the prompt.
    whole = "\n".join(question.text for question in questions("{prompt}"))
    assert hashlib.sha256(whole.encode()).hexdigest() == (
        "070de189310de151260b84d6e2d18b019406535cd71fd10ade089d6c93e55358"
    )


def test_the_authors_wording_names_the_range_in_the_eight_questions_without_one():
    paper, authors = (questions("p", wording=wording) for wording in ("paper", "authors"))
    for printed, asked in zip(paper, authors, strict=True):
        if printed.name in GROUPS["Prompt Alignment"]:
            assert printed == asked
        else:
            assert asked.text == printed.text.replace(" where:", " 0-10 where:")
            assert asked.text != printed.text
    assert authors[1].text.startswith("Rate the beat alignment of the dance to music 0-10 where: ")


def test_without_a_prompt_eight_questions_are_left():
    assert [question.name for question in questions(None)] == ALL[:8]


def test_an_unknown_wording_is_refused():
    with pytest.raises(ValueError, match="wording"):
        questions(None, wording="ours")


def test_overall_is_the_mean_of_eight_scores_not_of_two_averages():
    scores = dict(zip(ALL, [10, 10, 10, 10, 10, 0, 0, 0, 1, 2, 3], strict=True))
    assert averages(scores) == {
        "dance_quality": 10, "video_quality": 0, "prompt_alignment": 2, "overall": 50 / 8
    }  # fmt: skip


def test_an_average_needs_all_its_scores():
    scores = dict.fromkeys(ALL[:8], 6.0)
    assert averages(scores).keys() == {"dance_quality", "video_quality", "overall"}
    del scores["Imaging Quality"]
    assert averages(scores).keys() == {"dance_quality"}


def test_names_in_files():
    assert key_of("Overall Prompt Satisfaction") == "overall_prompt_satisfaction"
