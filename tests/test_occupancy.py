"""Tables of sites, days and species: what is 0, what is unknown, and shares by hand."""

import numpy as np
import pandas as pd
import pytest

from antpitta.scores.occupancy import detection_histories, naive_occupancy, site_days

SURVEYS = pd.DataFrame(
    [
        ("a1", "north", "2025-06-01"),
        ("a2", "north", "2025-06-01"),
        ("a3", "north", "2025-06-03"),
        ("b1", "south", "2025-06-01"),
    ],
    columns=["recording", "site", "day"],
)
DETECTIONS = pd.DataFrame(
    [
        ("a1", "wren", 0.9),
        ("a2", "wren", 0.7),
        ("a2", "wren", 0.5),
        ("a3", "wren", 0.6),
        ("b1", "owl", 0.8),
        ("b1", "kite", 0.9),  # has no threshold
        ("zz", "wren", 0.9),  # lies at no site
    ],
    columns=["recording", "species", "score"],
)
THRESHOLDS = {"owl": 0.8, "wren": 0.7}
TABLE = site_days(SURVEYS, DETECTIONS, THRESHOLDS)


def test_day_with_recordings_has_a_row_for_each_species_with_a_threshold():
    rows = TABLE.set_index(["site", "day", "species"])
    assert len(rows) == 6
    assert rows.loc[("north", "2025-06-01", "wren")].tolist() == [2, 2, 1, 0.9]
    assert rows.loc[("north", "2025-06-03", "wren")].tolist() == [1, 0, 0, 0.6]
    assert rows.loc[("south", "2025-06-01", "owl"), "present"] == 1
    assert rows.loc[("south", "2025-06-01", "wren"), "present"] == 0


def test_day_without_recordings_is_unknown_in_a_history():
    histories = detection_histories(TABLE).set_index(["species", "site"])
    assert list(histories.columns) == ["2025-06-01", "2025-06-02", "2025-06-03"]
    assert histories.loc[("wren", "north")].tolist() == [1, pd.NA, 0]
    assert histories.loc[("wren", "south")].tolist() == [0, pd.NA, pd.NA]
    assert histories.to_csv(na_rep="NA").splitlines()[1] == "owl,north,0,NA,0"


def test_naive_occupancy_is_the_share_of_sites_with_a_detection():
    occupancy = naive_occupancy(TABLE).set_index("species")
    assert occupancy.loc["wren"].tolist() == [2, 1, 0.5, 3, 1, 0.5]
    never = naive_occupancy(site_days(SURVEYS, DETECTIONS, {"wren": 0.95})).iloc[0]
    assert never["naive_occupancy"] == 0
    assert np.isnan(never["detection_rate"])


@pytest.mark.parametrize("thresholds", [{}, THRESHOLDS])
def test_no_survey_or_no_threshold_gives_empty_tables(thresholds):
    table = site_days(SURVEYS.iloc[: len(thresholds) * 0], DETECTIONS, thresholds)
    assert len(table) == 0
    assert len(detection_histories(table)) == 0
    assert len(naive_occupancy(table)) == 0
