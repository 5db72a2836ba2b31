"""The tables of results: medians, spreads and rank correlations."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from benchmarks.tables import LearnResult


def result_of(rows):
    runs = pd.DataFrame(rows, columns=["variant", "seed", "oof_ap", "oof_auc", "lwlrap"])
    runs = runs.assign(stage="-", macro_ap=-runs["lwlrap"], event_f1=np.nan, seconds=10.4)
    return LearnResult(runs, pd.DataFrame(), {}, ("bird",), "a machine")


def test_rank_correlation_uses_medians_without_baselines():
    result = result_of(
        [
            *(("a", k, 0.1 * k, 0.5, 0.6) for k in (1, 2, 9)),  # median 0.2
            *(("b", k, 0.3, 0.6, 0.5) for k in (1, 2, 9)),
            *(("c", k, 0.4, 0.7, 0.8) for k in (1, 2, 9)),
            *(("d", k, 0.5, 0.9, 0.7) for k in (1, 2, 9)),
            *(("bird", k, 0.9, 0.1, 0.1) for k in (1, 2, 9)),
        ]
    )
    table = result.correlations.set_index(["out_of_fold", "test"])
    expected = spearmanr([0.2, 0.3, 0.4, 0.5], [0.6, 0.5, 0.8, 0.7]).statistic
    assert expected == pytest.approx(0.6)  # 1 - 6 * (1 + 1 + 1 + 1) / (4 * 15)
    assert table.loc[("oof_ap", "lwlrap"), "correlation"] == pytest.approx(expected)
    assert table.loc[("oof_auc", "macro_ap"), "correlation"] == pytest.approx(-expected)
    assert (table["rows"] == 4).all()
    assert any(line.endswith("+0.600, 4 rows") for line in result.correlation_lines)


def test_two_rows_have_no_correlation_and_a_missing_figure_is_a_dash():
    result = result_of([("a", 1, 0.1, 0.5, 0.6), ("a", 2, 0.3, 0.5, 0.6), ("b", 1, 0.2, 0.6, 0.5)])
    assert result.correlations["correlation"].isna().all()
    first = result.table.iloc[0]
    assert first["out-of-fold AP"] == "0.200 (0.100-0.300)"
    assert first["event F1"] == "-"
    assert first["seconds"] == "10"
    assert first["test LWLRAP"] == "0.600"
