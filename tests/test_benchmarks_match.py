"""The benchmark of template matching correlates as much sound as it says."""

import pytest

import antpitta as ap
from antpitta.api import Progress
from antpitta.core.errors import UserError
from benchmarks.match import benchmark_match


def test_every_hour_is_correlated_and_timed(simulated, recipe):
    done = []
    progress = Progress(lambda text: None, lambda *figures: done.append(figures[1:3]))
    result = benchmark_match(
        ap.open_data(simulated), templates=5, hours=0.1, recipe=str(recipe), progress=progress
    )
    assert done[-1] == (45, 45)  # 360 s in spectrograms of 8 s
    assert result.table["step"].tolist()[0] == "correlation and peaks"
    assert "5 templates of 5 species" in result.lines[0]


def test_nothing_to_correlate_is_an_error(simulated, recipe):
    with pytest.raises(UserError) as error:
        benchmark_match(ap.open_data(simulated), hours=0.0, recipe=str(recipe))
    assert error.value.code == "E_BENCHMARK_EMPTY"
