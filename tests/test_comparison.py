"""The stage that ships: better by more than the noise, else the simpler one."""

import numpy as np
import pandas as pd
import pytest

from antpitta.core.thresholds import unsupported_threshold
from antpitta.core.types import Classes
from antpitta.report.results import StageResult
from antpitta.report.warnings import StageChoice, describe_choice, list_warnings
from antpitta.scores.comparison import choose_stage
from antpitta.scores.evaluate import evaluate_cells

FROGS = Classes(("coqui", "whistler"))
BOXES = 40  # of each species, in as many recordings


def stage(quality, seed):
    """Cells whose scores follow the labels by a share."""
    rng = np.random.default_rng(seed)
    present = np.tile(np.arange(BOXES) % 2 == 0, 2)
    return pd.DataFrame(
        {
            "recording": [f"r{i}" for i in range(BOXES)] * 2,
            "species": np.repeat(FROGS.names, BOXES),
            "present": present,
            "score": quality * present + (1 - abs(quality)) * rng.random(2 * BOXES) + (quality < 0),
        }
    )


def choose(*tables):
    return choose_stage(tables, FROGS, draws=300, rng=np.random.default_rng(0))


def test_much_better_stage_ships():
    best, [comparison] = choose(stage(0.1, 1), stage(0.6, 2))
    assert best == 1
    assert comparison.is_better
    assert 0 < comparison.difference.low < comparison.difference.value


def test_worse_equal_and_hardly_better_stages_do_not_ship():
    good = stage(0.4, 1)
    for later in (stage(0.05, 2), good, stage(0.42, 4)):
        best, [comparison] = choose(good, later)
        assert best == 0
        assert not comparison.is_better


def test_every_later_stage_is_compared_with_the_best_before_it():
    best, comparisons = choose(stage(0.3, 1), stage(0.0, 2), stage(0.8, 3))
    assert best == 2
    assert [(own.earlier, own.later) for own in comparisons] == [(0, 1), (0, 2)]


def test_difference_is_that_of_the_reports():
    tables = stage(0.1, 1), stage(0.6, 2)
    reports = [
        evaluate_cells(table, FROGS, "", draws=0, rng=np.random.default_rng(0)) for table in tables
    ]
    _, [comparison] = choose(*tables)
    expected = reports[1].macro_ap.value - reports[0].macro_ap.value
    assert comparison.difference.value == pytest.approx(expected)


def test_pairs_are_sharper_than_two_intervals():
    first = stage(0.2, 1)
    second = first.assign(score=first["score"] + 0.08 * first["present"])
    reports = [
        evaluate_cells(table, FROGS, "", draws=300, rng=np.random.default_rng(0))
        for table in (first, second)
    ]
    assert reports[1].macro_ap.low < reports[0].macro_ap.high  # the two overlap
    assert choose(first, second)[0] == 1


def test_boxes_of_one_verdict_leave_the_first_stage():
    tables = [stage(0.1, 1), stage(0.9, 2)]
    best, [comparison] = choose(*(table[table["present"]] for table in tables))
    assert best == 0
    assert np.isnan(comparison.difference.value)
    choice = StageChoice("a", ("a", "b"), (comparison,))
    assert "cannot be compared" in describe_choice(choice)


def test_stages_of_different_boxes_are_refused():
    with pytest.raises(ValueError, match="different cells"):
        choose(stage(0.1, 1), stage(0.1, 1).iloc[1:])


def results(*tables):
    return [
        StageResult(
            name, "", evaluate_cells(t, FROGS, name, draws=300, rng=np.random.default_rng(0))
        )
        for name, t in zip("abc", tables, strict=False)
    ]


def warn(*tables, thresholds=None):
    best, comparisons = choose(*tables)
    names = tuple("abc"[: len(tables)])
    choice = StageChoice(names[best], names, comparisons)
    return choice, list_warnings(results(*tables), choice, thresholds or {})


def test_good_stages_have_no_warning():
    choice, lines = warn(stage(0.3, 1), stage(0.8, 2))
    assert lines == ()
    assert "stage b" in describe_choice(choice)
    assert "b is better than a" in describe_choice(choice)


def test_worse_than_chance_and_a_losing_stage_are_a_line_each():
    _, lines = warn(stage(-0.3, 1), stage(-0.9, 2))
    assert len(lines) == 3
    assert "macro AUC" in lines[0]
    assert "coqui, whistler" in lines[1]
    assert "b loses against a" in lines[2]


def test_one_species_worse_than_chance_is_named_alone():
    table = stage(0.8, 1)
    upside_down = table["species"] == "whistler"
    table.loc[upside_down, "score"] = 1 - table.loc[upside_down, "score"]
    _, [line] = warn(table)
    assert line.startswith("1 species is worse")
    assert "whistler" in line
    assert "coqui" not in line


def test_species_that_are_not_learnable_or_unsupported_say_what_they_lack():
    thresholds = {
        "coqui": unsupported_threshold("no present", 0, 7, None),
        "whistler": unsupported_threshold("few boxes", 3, 7, 0.6),
    }
    _, lines = warn(stage(0.8, 1), thresholds=thresholds)
    assert "not learnable" in lines[0]
    assert "present boxes" in lines[0]
    assert "coqui" in lines[0]
    assert "fewer than 10" in lines[1]
    assert "whistler" in lines[1]
