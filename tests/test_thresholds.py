"""Thresholds from labelled cells: by hand, against trying every score, and never degenerate."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from antpitta.core.thresholds import (
    LOWEST,
    Estimate,
    OperatingPoint,
    SpeciesThreshold,
    unsupported_threshold,
)
from antpitta.core.types import Classes
from antpitta.scores.thresholds import DEFAULT, PRECISION, FoldScores, choose_thresholds

FROGS = Classes(("coqui", "whistler"))
NO_CLIPS = FoldScores(np.array([], dtype=object), np.array([], dtype=int), np.empty((0, 2)))


def cells(species, present, scores, recordings=None):
    return pd.DataFrame(
        {
            "recording": recordings or [f"r{i}" for i in range(len(present))],
            "species": species,
            "present": np.array(present, dtype=bool),
            "score": np.array(scores, dtype=np.float32).astype(float),
        }
    )


def choose(table, clips=NO_CLIPS, seed=0):
    return choose_thresholds(table, FROGS, clips, rng=np.random.default_rng(seed))


def clips_of(value, folds=None):
    """Recordings r0, r1 ... with scores of the whistler; the coqui has 0."""
    value = np.array(value, dtype=float)
    table = np.stack([np.zeros(len(value)), value], axis=1)
    folds = np.zeros(len(value), int) if folds is None else np.array(folds)
    return FoldScores(np.array([f"r{i}" for i in range(len(value))], object), folds, table)


# 12 present from 0.95 down to 0.4, 12 absent from 0.5 down to 0
PRESENT = [0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.48, 0.44, 0.4]
ABSENT = [0.5, 0.46, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02, 0]
COQUI = cells("coqui", [1] * 12 + [0] * 12, PRESENT + ABSENT)


def test_own_threshold_has_the_best_f1_of_the_precise_ones():
    # Accepting 10 of 11 has a precision of 0.909 and an F1 of 20/23; 11 of 13 only 0.846.
    own = choose(COQUI)["coqui"]
    assert (own.origin, own.reason, own.present, own.absent) == ("own", "", 12, 12)
    assert own.value == pytest.approx((0.48 + 0.46) / 2)
    assert own.precision.value == pytest.approx(10 / 11)
    assert own.recall.value == pytest.approx(10 / 12)


def test_intervals_hold_the_value_and_do_not_depend_on_the_order_of_boxes():
    own = choose(COQUI)["coqui"]
    low, high = own.interval
    assert low < own.value < high
    for estimate in (own.precision, own.recall):
        assert estimate.low < estimate.value <= estimate.high
    again = choose(COQUI.sample(frac=1, random_state=1))["coqui"]
    assert again == own


def test_many_present_boxes_do_not_buy_a_threshold_that_accepts_everything():
    noisy = np.linspace(0.1, 0.9, 200)  # 200 present, and 20 absent at the same heights
    table = cells(
        "coqui", [1] * 200 + [0] * 20 + [1] * 60, [*noisy, *np.linspace(0.1, 0.8, 20), *[0.95] * 60]
    )
    own = choose(table)["coqui"]
    assert own.origin == "own"
    assert own.value > 0.7  # all 280 boxes together have a precision of 0.93


def test_no_other_precise_threshold_has_a_better_f1():
    rng = np.random.default_rng(8)
    supported = 0
    for _ in range(20):
        present = rng.random(60) < 0.3
        scores = np.clip(np.round(present * 0.5 + rng.random(60) * 0.7, 1), 0, 1)
        own = choose(cells("coqui", present, scores))["coqui"]
        if not own.supported:
            continue
        supported += 1
        levels = cells("coqui", present, scores)["score"].to_numpy()
        best = 0.0
        for level in np.unique(levels):
            hits, accepted = (present & (levels >= level)).sum(), (levels >= level).sum()
            if hits >= 5 and hits >= PRECISION * accepted:
                best = max(best, 2 * hits / (accepted + present.sum()))
        hits, accepted = (present & (levels >= own.value)).sum(), (levels >= own.value).sum()
        assert 2 * hits / (accepted + present.sum()) == pytest.approx(best)
        assert own.precision.value == pytest.approx(hits / accepted)
    assert supported > 5


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (COQUI.iloc[3:], "few boxes"),  # 9 present
        (COQUI.iloc[:21], "few boxes"),  # 9 absent
        (COQUI.assign(recording=["one"] * 12 + [f"r{i}" for i in range(12)]), "one recording"),
        (COQUI.assign(score=COQUI["score"].to_numpy()[::-1]), "no better than chance"),
        (COQUI.assign(score=6.8e-26), "no better than chance"),  # a ROC without a point
        (COQUI.assign(score=np.tile(PRESENT, 2)), "no better than chance"),
        (COQUI.assign(score=COQUI["score"] * 1e-20), "imprecise"),  # no event could show it
        (
            cells("coqui", [0] * 3 + [1] * 12 + [0] * 12, [0.99] * 3 + PRESENT + ABSENT),
            "imprecise",
        ),
        (COQUI.iloc[12:], "no present"),
    ],
)
def test_species_without_enough_evidence_has_no_threshold_of_its_own(table, reason):
    own = choose(table)["coqui"]
    assert own.reason == reason
    assert own.origin == ("none" if reason == "no present" else "shared")
    assert own.value == own.conservative
    assert own.value is None or own.value >= DEFAULT
    assert (own.interval, own.precision, own.recall) == (None, None, None)


def test_shared_threshold_reaches_the_precision_on_all_boxes():
    few = cells("whistler", [1, 0], [0.9, 0.2], ["r30", "r31"])
    table = pd.concat([COQUI, few], ignore_index=True)
    whistler = choose(table)["whistler"]
    assert (whistler.origin, whistler.present, whistler.absent) == ("shared", 1, 1)
    # 11 of 12 boxes down to 0.48; below, 0.46 would make it 11 of 13
    assert whistler.value == pytest.approx(max((0.48 + 0.46) / 2, DEFAULT))
    higher = table.assign(score=table["score"] ** 0.5)
    assert choose(higher)["whistler"].value == pytest.approx((0.48**0.5 + 0.46**0.5) / 2)


def test_conservative_threshold_lies_above_the_species_own_absent_boxes():
    few = cells("whistler", [1, 0], [0.9, 0.97], ["r30", "r31"])
    whistler = choose(pd.concat([COQUI, few], ignore_index=True))["whistler"]
    assert np.float32(0.97) < whistler.value < 0.9701


def test_conservative_threshold_lies_above_the_usual_scores_of_every_fold():
    few = cells("whistler", [1, 1, 0], [0.9, 0.9, 0.2], ["r0", "r1", "r2"])
    table = pd.concat([COQUI.assign(recording="x" + COQUI["recording"]), few], ignore_index=True)
    # Two of twelve recordings have a present box: at most a sixth of the ten others is found.
    value = [0.1, 0.1, *(0.7 + i / 100 for i in range(10))]
    assert choose(table, clips_of(value))["whistler"].value == pytest.approx(0.78, abs=1e-6)
    found = np.array(value) >= choose(table, clips_of(value))["whistler"].value
    assert found.sum() == 1
    folds = [0] * 6 + [1] * 6  # by the model of the second fold all of its recordings are alike
    loud = [0.1, 0.1, 0.2, 0.2, 0.2, 0.2, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
    assert choose(table, clips_of(loud, folds))["whistler"].value == pytest.approx(0.6, abs=1e-6)


def test_species_that_always_scores_1_is_not_found():
    few = cells("whistler", [1, 1, 1], [1, 1, 1], ["r0", "r1", "r2"])
    table = pd.concat([COQUI, few], ignore_index=True)
    whistler = choose(table, clips_of([1.0] * 26))["whistler"]
    assert (whistler.origin, whistler.value) == ("shared", None)


def test_boxes_of_one_verdict_share_the_default():
    table = cells("whistler", [1, 1], [1e-12, 1e-3])
    assert choose(table)["whistler"].value == DEFAULT
    empty = choose(table.iloc[:0])
    assert [own.origin for own in empty.values()] == ["none", "none"]


def test_operating_points_give_the_lowest_threshold_of_each_precision():
    own = choose(COQUI)["coqui"]
    scores, present = COQUI["score"].to_numpy(), COQUI["present"].to_numpy()
    for wanted in (0.55, 0.8, 0.9, 1.0):
        point = own.at_precision(wanted)
        accepted = scores >= point.threshold
        assert present[accepted].mean() == pytest.approx(point.precision)
        assert point.precision >= wanted
        assert present[accepted].sum() == point.recall * 12
        lower = scores[scores < point.threshold]
        assert all(present[scores >= level].mean() < wanted for level in lower[lower > 0])
    assert choose(COQUI.assign(score=1 - COQUI["score"]))["coqui"].at_precision(0.5) is None


def test_precision_that_is_never_reached_has_no_point():
    loud = cells("coqui", [0] * 3 + [1] * 12 + [0] * 12, [0.99] * 3 + PRESENT + ABSENT)
    own = choose(loud)["coqui"]
    assert own.at_precision(0.9) is None
    assert own.at_precision(0.7).precision == pytest.approx(12 / 17, abs=0.08)


def test_threshold_between_neighbouring_floats_is_the_upper_one():
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    table = cells("coqui", [1] * 10 + [0] * 10, [high] * 10 + [low] * 10)
    assert choose(table)["coqui"].value == float(high)


OWN = {
    **{"value": 0.5, "origin": "own", "present": 10, "absent": 10, "interval": (0.4, 0.6)},
    **{"precision": Estimate(0.9, 0.8, 1.0), "recall": Estimate(0.5, 0.4, 0.6)},
    "points": (OperatingPoint(0.4, 0.8, 0.9), OperatingPoint(0.5, 0.9, 0.5)),
}


@pytest.mark.parametrize(
    "changes",
    [
        {"value": 6.8e-26},
        {"value": LOWEST / 2},
        {"value": 0.0},
        {"value": float("nan")},
        {"value": 1.1},
        {"value": None},
        {"present": 9},
        {"absent": 9},
        {"interval": None},
        {"interval": (0.6, 0.4)},
        {"precision": None},
        {"precision": Estimate(0.0, 0.0, 0.0)},
        {"recall": Estimate(0.5, float("nan"), 0.6)},
        {"points": OWN["points"][::-1]},
        {"origin": "shared"},
        {"origin": "none"},
        {"reason": "few boxes"},
        {"reason": "few boxes", "origin": "shared"},  # with operating points
        {"reason": "no present", "origin": "none"},
        {"conservative": 1e-9},
    ],
)
def test_degenerate_threshold_cannot_be_made(changes):
    SpeciesThreshold(**OWN)
    with pytest.raises(ValidationError):
        SpeciesThreshold(**{**OWN, **changes})


def test_threshold_survives_json():
    for own in (SpeciesThreshold(**OWN), unsupported_threshold("no present", 0, 3, None)):
        assert SpeciesThreshold.model_validate_json(own.model_dump_json()) == own
