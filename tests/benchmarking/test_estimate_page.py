"""docs/estimate.md shows what the code says today."""

from pathlib import Path

import pytest

from mobile_avatar.benchmarking.estimate_page import calibration_table, family_table, save_chart, unit_table
from mobile_avatar.images import read_photo

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "estimate.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", [unit_table, calibration_table])
def test_units_sources_and_residuals_of_the_page_are_those_of_the_table(table):
    lines = table()
    assert len(lines) > 30
    assert [line for line in lines if line not in PAGE] == []


@pytest.mark.slow
def test_the_family_of_the_page_is_estimated_as_it_says(tmp_path):
    lines = family_table()
    assert all("ESTIMATE" in cell for cell in lines[0].split(" | ")[2:])
    assert [line for line in lines if line not in PAGE] == []
    save_chart(tmp_path / "chart.png")
    drawn, shown = read_photo(tmp_path / "chart.png"), read_photo(DOCS / "images" / "estimate.png")
    assert drawn.shape == shown.shape
