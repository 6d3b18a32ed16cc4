import pytest

from musicinfuser.app.options import SHIPPED_ADAPTER, SHIPPED_MODEL, parse


def test_it_stays_on_this_machine_and_limits_what_it_takes():
    options = parse(["--adapter", "some/where", "other=else/where"])
    assert options.host == "127.0.0.1" and options.port is None
    assert options.max_seconds == 5.0 and options.max_megabytes == 50.0
    assert options.adapter == {"where": "some/where", "other": "else/where"}
    assert options.model == str(SHIPPED_MODEL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=elsewhere"], "no adapter for elsewhere.*--adapter FOLDER"),
        (["--adapter", "a/b", "c/b"], "a/b and c/b both 'b'"),
        (["--adapter", "=b"], "NAME=FOLDER"),
    ],
)
def test_what_contradicts_itself_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse(arguments)


@pytest.mark.parametrize("option", ["--max_megabytes=-1", "--max_seconds=nan", "--dtype=int8"])
def test_what_is_no_value_is_refused(option, capsys):
    with pytest.raises(SystemExit):
        parse(["--adapter", "a", option])
    assert option.partition("=")[0] in capsys.readouterr().err


def test_the_small_mochi_dances_out_of_the_box():
    assert parse([]).adapter == {SHIPPED_ADAPTER.name: str(SHIPPED_ADAPTER)}
