import json

import pytest

from small_world.experiments.keep_table import main


def test_a_complete_table_is_copied_under_the_sweep_s_name(tmp_path, capsys):
    sweep, results = tmp_path / "runs" / "small_table1", tmp_path / "results"
    sweep.mkdir(parents=True)
    results.mkdir()
    (results / "small_table1_gone.svg").write_text("of a column that is no more")
    with pytest.raises(SystemExit, match="holds no table of a sweep"):
        main([str(sweep), f"--results={results}"])
    (sweep / "rows.json").write_text(json.dumps({"waiting": ["ours_seed3"]}))
    (sweep / "rows.md").write_text("| row |\n\n![beats](rows_beats.svg)\n")
    (sweep / "rows_beats.svg").write_text("<svg/>")
    with pytest.raises(SystemExit, match="1 runs are not finished, such as ours_seed3"):
        main([str(sweep), f"--results={results}"])
    main([str(sweep), f"--results={results}", "--incomplete"])
    assert {path.name for path in results.iterdir()} == {
        "small_table1.md", "small_table1.json", "small_table1_beats.svg",
    }  # fmt: skip
    assert "![beats](small_table1_beats.svg)" in (results / "small_table1.md").read_text()
    assert capsys.readouterr().out.split()[0] == str(results / "small_table1.md")
