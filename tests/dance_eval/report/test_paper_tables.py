import pytest

from dance_eval.report.paper_tables import TOLERANCE, average, published_tables

PAPER = [table for table in published_tables() if table.title.startswith("Table ")]
AVERAGES = [
    (table, row, column)
    for table in published_tables()
    for row in table.rows
    for column in table.columns
    if column.mean_of
]


def test_all_rows_of_the_papers_tables_are_there():
    assert [len(table.rows) for table in PAPER] == [10, 4, 4, 5, 6, 6]
    by_key = {table.key: {row.name: row for row in table.rows} for table in PAPER}
    ours = by_key["table1"]["Ours"].cells
    assert (ours["body_representation"], ours["overall"]) == (10.0, 8.14)
    assert by_key["table2"]["Mochi"].modality == "T+V"
    # The same measurement is printed in several tables.
    full = by_key["table6"]["Full (Ours)"].cells
    assert by_key["table5"]["Layer Adaptability"].cells == full
    assert by_key["table5"]["Evenly Distributed Layers"].cells == (
        by_key["table6"]["No ZICA Layer Selection"].cells
    )
    for key in ("table2", "table3"):
        cells = by_key[key]["MusicInfuser (Ours)"].cells
        assert cells == {name: full[name] for name in cells}


@pytest.mark.parametrize(
    "table, row, column",
    AVERAGES,
    ids=[f"{table.key}-{row.name}-{column.key}" for table, row, column in AVERAGES],
)
def test_printed_averages_follow_from_the_printed_columns(table, row, column):
    away = abs(average(column, row.cells) - row.cells[column.key])
    half_a_unit = 0.5 * 10**-table.num_digits + 1e-9
    if (row.name, column.key) in table.exceptions:
        # A tie, or more than rounding explains.
        assert away > half_a_unit - 2e-9
    else:
        assert away <= half_a_unit
    if table in PAPER:
        assert away <= TOLERANCE


def test_every_row_of_the_paper_has_its_averages_checked():
    checked = {(table.key, row.name) for table, row, _ in AVERAGES if table in PAPER}
    assert len(checked) == 35
    assert sum(len(table.exceptions) for table in PAPER) == 3


def test_overall_is_not_the_mean_of_the_two_averages():
    [table] = [table for table in PAPER if table.key == "table1"]
    cells = table.rows[0].cells
    [overall] = [column for column in table.columns if column.key == "overall"]
    assert average(overall, cells) == pytest.approx(8.14375)
    two = (cells["dance_quality_average"] + cells["video_quality_average"]) / 2
    assert abs(two - cells["overall"]) > TOLERANCE


def test_an_average_without_one_of_its_columns_is_none():
    [column] = [c for c in PAPER[2].columns if c.mean_of]
    cells = dict(PAPER[2].rows[0].cells)
    assert average(column, cells) == pytest.approx(27.7 / 3)
    assert average(column, cells | {"imaging_quality": None}) is None
    del cells["aesthetic_quality"]
    assert average(column, cells) is None
