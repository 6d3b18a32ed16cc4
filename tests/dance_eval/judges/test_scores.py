import math

import pytest

from dance_eval.judges.scores import authors_score, expected_score, strict_score


@pytest.mark.parametrize(
    ("text", "authors", "strict"),
    [
        ("8", 8, 8),
        (" 7.5\n", 7.5, 7.5),
        ("0", 0, 0),
        ("10", 10, 10),
        ("8.", 8, 8),
        ("**9**", 9, 9),
        ("8/10", 8, 8),
        ("8 out of 10.", 8, 8),
        # Where the authors' rule takes something else for the score.
        ("-3", 3, None),
        (".5", 5, None),
        ("I rate it 0-10: 8", 0, None),
        ("The score is 8", 8, None),
        ("5 or 6", 5, None),
        ("1e5", 1, None),
        ("11", None, None),
        ("10.5", None, None),
        ("85/100", None, None),
        ("", None, None),
        ("eight", None, None),
        ("八", None, None),
    ],
)
def test_what_each_rule_reads(text, authors, strict):
    assert authors_score(text) == authors
    assert strict_score(text) == strict


def logs(**chances):
    return {name.removeprefix("t"): math.log(chance) for name, chance in chances.items()}


def test_digits_are_weighted_by_their_chances():
    positions = [logs(t8=0.6, t7=0.3, t9=0.1)]
    assert expected_score("8", positions) == pytest.approx(0.6 * 8 + 0.3 * 7 + 0.1 * 9)


def test_what_is_no_number_does_not_count():
    positions = [{"8": math.log(0.5), "6": math.log(0.25), "The": math.log(0.25)}]
    assert expected_score("8", positions) == pytest.approx((0.5 * 8 + 0.25 * 6) / 0.75)


def test_tokens_with_white_space_are_the_same_digit():
    positions = [{"\n": 0.0}, {"8": math.log(0.4), " 8": math.log(0.2), "2": math.log(0.4)}]
    assert expected_score("\n8", positions) == pytest.approx(0.6 * 8 + 0.4 * 2)


def test_ten_takes_the_second_position():
    positions = [logs(t1=0.8, t9=0.2), {"0": math.log(0.75), "<end>": math.log(0.25)}]
    # P(10) = 0.8 * 0.75, P(1) = 0.8 * 0.25, P(9) = 0.2.
    assert expected_score("10", positions) == pytest.approx(0.6 * 10 + 0.2 * 1 + 0.2 * 9)
    likelier_one = [positions[0], {"<end>": math.log(0.9), "0": math.log(0.1)}]
    assert expected_score("1", likelier_one) == pytest.approx(0.08 * 10 + 0.72 + 1.8)


@pytest.mark.parametrize("answer", ["1", "10"])
def test_it_is_withheld_where_the_second_position_is_missing(answer):
    assert expected_score(answer, [logs(t1=0.8, t9=0.2)]) is None
    assert expected_score(answer, [logs(t1=0.8, t9=0.2), {}]) is None


def test_it_is_withheld_where_a_one_was_likely_but_not_answered():
    # The position after "8" says nothing about what would follow a "1".
    positions = [logs(t8=0.7, t1=0.3), {"0": math.log(0.9), "<end>": math.log(0.1)}]
    assert expected_score("8", positions) is None


def test_a_one_that_could_change_nothing_does_not_withhold_it():
    positions = [logs(t8=0.999, t1=0.001)]
    assert expected_score("8", positions) == pytest.approx(7.993, abs=0.01)


def test_ten_may_be_a_token_of_its_own():
    positions = [{"10": math.log(0.5), "1": math.log(0.25), "4": math.log(0.25)}]
    assert expected_score("10", positions) == pytest.approx(5 + 0.25 + 1)


@pytest.mark.parametrize("text", ["I think 8", "7.5", "11", ""])
def test_answers_that_are_no_whole_number_have_none(text):
    assert expected_score(text, [logs(t8=0.9, t7=0.1)]) is None


def test_numbers_must_hold_half_of_the_probability():
    assert expected_score("8", [{"8": math.log(0.3), "Well": math.log(0.29)}]) is None


def test_without_log_probabilities_there_is_none():
    assert expected_score("8", []) is None
    assert expected_score("8", [{}]) is None
