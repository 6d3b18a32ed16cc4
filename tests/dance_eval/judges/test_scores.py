import pytest

from dance_eval.judges.scores import authors_score, strict_score


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
