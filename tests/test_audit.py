"""Estimates of audits: by hand, against Jeffreys' interval, and how often intervals are right."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import beta

from antpitta.core.errors import UserError
from antpitta.scores import audit
from antpitta.scores.audit import (
    AuditPin,
    audit_all,
    audit_species,
    cluster_labels,
    cluster_weights,
)
from antpitta.scores.audit_thresholds import audit_threshold, estimates_at

NAN = float("nan")


def items(score, present, stratum, inclusion_p, site=None, species="coqui"):
    count = len(score)
    return pd.DataFrame(
        {
            "species": species,
            "recording": [f"r{i}" for i in range(count)],
            "site": [f"site {i}" for i in range(count)] if site is None else site,
            "stratum": stratum,
            "inclusion_p": inclusion_p,
            "score": np.array(score, dtype=float),
            "present": np.array(present, dtype=float),
        }
    )


# 4 of 40 low candidates and 4 of 8 high ones: verdicts stand for 10 and for 2 candidates.
BY_HAND = items(
    [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9],
    [0, 0, 1, 0, 0, 1, 1, 1],
    [*["low"] * 4, *["high"] * 4],
    [*[0.1] * 4, *[0.5] * 4],
)
TWICE = pd.concat(
    [BY_HAND, BY_HAND.assign(recording="again", site=BY_HAND["site"] + " too")], ignore_index=True
)


def test_estimates_weigh_verdicts_by_their_inclusion_probability():
    found = audit_species(BY_HAND, np.random.default_rng(0))
    curve = found.curve.set_index("score")
    assert (found.judged, found.present, found.unjudged) == (8, 4, 0)
    assert found.candidates == pytest.approx(48)
    assert found.prevalence.value == pytest.approx(16 / 48)  # 10 low calls, 6 high ones
    assert curve.loc[0.7, ["precision", "missed", "recall", "above"]].tolist() == pytest.approx(
        [1, 10, 6 / 16, 6]
    )
    assert curve.loc[0.6, ["precision", "missed", "recall"]].tolist() == pytest.approx(
        [6 / 8, 10, 6 / 16]
    )
    assert curve.loc[0.3, ["precision", "missed", "recall", "above"]].tolist() == pytest.approx(
        [16 / 28, 0, 1, 28]
    )


def test_estimates_equal_sums_over_all_verdicts():
    rng = np.random.default_rng(1)
    table = items(rng.integers(0, 20, 60), rng.random(60) < 0.4, rng.integers(0, 4, 60), [0.5] * 60)
    table["inclusion_p"] = table["stratum"].map({0: 0.1, 1: 0.25, 2: 0.8, 3: 1.0})
    curve = audit_species(table, rng).curve
    for row in curve.itertuples():
        above = table["score"] >= row.score
        weight = 1 / table["inclusion_p"]
        calls = (weight * table["present"])[above].sum()
        assert row.precision == pytest.approx(calls / weight[above].sum())
        assert row.missed == pytest.approx((weight * table["present"])[~above].sum())
        assert row.judged == above.sum()


def test_items_without_a_verdict_stay_in_the_number_of_candidates():
    table = BY_HAND.copy()
    table.loc[table["score"].isin([0.1, 0.2]), "present"] = NAN
    found = audit_species(table, np.random.default_rng(0))
    assert (found.judged, found.unjudged) == (6, 2)
    assert found.candidates == pytest.approx(48)
    assert found.prevalence.value == pytest.approx((20 + 6) / 48)  # half of the low ones are calls


def test_stratum_without_any_verdict_leaves_unknown_what_depends_on_it():
    table = BY_HAND.copy()
    table.loc[table["stratum"] == "low", "present"] = NAN
    found = audit_species(table, np.random.default_rng(0))
    assert np.isnan(found.prevalence.value)
    assert np.isnan(found.curve["missed"]).all()
    assert found.curve["precision"].tolist() == pytest.approx([3 / 4, 1, 1, 1])


def test_estimates_of_rescored_items_keep_the_weights_of_their_old_strata():
    table = BY_HAND.assign(score=[0.9, 0.2, 0.8, 0.4, 0.1, 0.7, 0.6, 0.3])
    curve = audit_species(table, np.random.default_rng(0)).curve.set_index("score")
    assert curve.loc[0.7, "precision"] == pytest.approx(12 / 22)
    assert curve.loc[0.7, "missed"] == pytest.approx(4)


@pytest.mark.parametrize("calls", [0, 1, 30, 99, 100])
def test_interval_of_independent_verdicts_is_that_of_jeffreys(calls):
    table = items(np.full(100, 0.5), np.arange(100) < calls, ["one"] * 100, [0.01] * 100)
    interval = audit_species(table, np.random.default_rng(0)).prevalence
    low, high = beta.ppf([0.025, 0.975], calls + 0.5, 100 - calls + 0.5)
    low, high = min(low, calls / 100), max(high, calls / 100)
    assert interval.low == pytest.approx(low, abs=0.008)
    assert interval.high == pytest.approx(high, abs=0.008)


def test_interval_of_sites_that_differ_is_that_of_their_number():
    # 20 verdicts at each of 10 sites, all alike within a site: 10 independent verdicts.
    site = np.repeat([f"s{i}" for i in range(10)], 20)
    table = items(np.full(200, 0.5), np.repeat(np.arange(10) < 5, 20), ["one"] * 200, [0.1] * 200)
    alone = audit_species(table, np.random.default_rng(0)).prevalence
    together = audit_species(table.assign(site=site), np.random.default_rng(0)).prevalence
    assert alone.high - alone.low == pytest.approx(0.137, abs=0.01)
    # Student's interval of a mean of 10 values, 5 of them 1
    assert together.high - together.low == pytest.approx(2 * 2.262 * 0.527 / 10**0.5, abs=0.1)


def test_weights_of_clusters_have_the_variance_of_a_mean_and_of_students_distribution():
    values = np.arange(12.0)
    weights = cluster_weights(np.full(12, 4), np.random.default_rng(0))
    means = (weights * values).sum(axis=1) / weights.sum(axis=1)
    ratio = 2.201 / 1.960
    assert means.std() == pytest.approx(ratio * values.std(ddof=1) / 12**0.5, rel=0.05)


def test_weights_of_unequal_clusters_have_a_larger_variance():
    rng = np.random.default_rng(0)
    equal, unequal = (cluster_weights(np.array(n), rng).var() for n in ([4] * 8, [25, *[1] * 7]))
    assert unequal > 1.5 * equal


def test_stratum_without_a_call_is_not_taken_for_certain():
    table = items(
        [*np.linspace(0, 0.4, 20), *np.linspace(0.6, 0.9, 20)],
        [*[0] * 20, *[1] * 20],
        [*["low"] * 20, *["high"] * 20],
        [*[0.01] * 20, *[0.5] * 20],
    )
    at = estimates_at(audit_species(table, np.random.default_rng(0)), 0.55)
    assert at["missed"].value == 0
    # Jeffreys' limit of 0 in 20 is 0.117, of 2000 candidates
    assert at["missed"].high == pytest.approx(2000 * beta.ppf(0.975, 0.5, 20.5), rel=0.15)
    assert at["recall"].low < 0.3
    assert at["precision"].low == pytest.approx(beta.ppf(0.025, 20.5, 0.5), abs=0.02)


def test_too_few_sites_make_the_recordings_the_clusters():
    assert cluster_labels(BY_HAND)[0] == "site"
    kind, cluster = cluster_labels(BY_HAND.assign(site=list("aabbccdd")))
    assert kind == "recording"
    assert len(set(cluster)) == 8


def test_verdict_without_a_site_is_a_cluster_by_its_recording():
    kind, cluster = cluster_labels(
        BY_HAND.assign(site=[*"aabcde", "", None], recording=[*"rrrrrr", "a", "a"])
    )
    assert kind == "site"
    assert cluster[0] == cluster[1]
    assert cluster[6] == cluster[7]
    assert len(set(cluster)) == 6


def simulate(rng, sites=25, candidates=2000, verdicts=100):
    """A season's candidates, a stratified audit of them, and the truth about sites like these."""
    site = rng.choice(sites, candidates, p=rng.dirichlet(np.full(sites, 2.0)))
    logit = rng.normal(-1, 1.8, candidates)
    score, effect = expit(logit), rng.normal(0, 0.5, sites)
    nodes, weight = np.polynomial.hermite_e.hermegauss(15)
    share = (expit((logit - 1)[:, None] + 0.5 * nodes) * weight).sum(axis=1) / weight.sum()
    present = rng.random(candidates) < expit(logit - 1 + effect[site])
    stratum = np.searchsorted(np.quantile(score, [0.5, 0.7, 0.85, 0.95]), score)
    drawn = []
    for number in range(5):
        own = np.flatnonzero(stratum == number)
        drawn.append(rng.choice(own, verdicts // 5, replace=False))
    p = np.array([verdicts / 5 / (stratum == number).sum() for number in range(5)])
    rows = np.concatenate(drawn)
    table = items(score[rows], present[rows], stratum[rows], p[stratum[rows]])
    return table.assign(site=[f"s{i}" for i in site[rows]]), score, share, present


def test_intervals_hold_the_truth_in_92_to_98_of_100_audits(monkeypatch):
    monkeypatch.setattr(audit, "DRAWS", 400)
    rng = np.random.default_rng(20)
    held, held_here = {}, {}
    for _ in range(500):
        table, score, share, present = simulate(rng)
        found = audit_species(table, rng)
        for truth, counts in ((share, held), (present, held_here)):
            known = [("prevalence", found.prevalence, truth.mean())]
            for threshold in (0.4, 0.6):
                above = score >= threshold
                at = estimates_at(found, threshold)
                values = (
                    truth[above].mean(),
                    truth[~above].sum(),
                    truth[above].sum() / truth.sum(),
                )
                for (name, interval), value in zip(at.items(), values, strict=True):
                    known.append((f"{name} at {threshold}", interval, value))
            chosen = audit_threshold(found, 0.7)
            above = score >= chosen.threshold
            known.append(("precision at the threshold", chosen.precision, truth[above].mean()))
            for name, interval, value in known:
                counts.setdefault(name, []).append(interval.low <= value <= interval.high)
    coverage = {name: np.mean(flags) for name, flags in held.items()}
    assert all(0.92 <= share <= 0.98 for share in coverage.values()), coverage
    here = {name: np.mean(flags) for name, flags in held_here.items()}
    assert min(here.values()) >= 0.92, here  # of the audited candidates themselves


def test_audits_of_several_species_leave_out_one_without_a_verdict():
    whistler = BY_HAND.assign(species="whistler", present=NAN)
    audits = audit_all(pd.concat([whistler, BY_HAND]), np.random.default_rng(0))
    assert list(audits) == ["coqui"]


@pytest.mark.parametrize(
    ("column", "value"), [("inclusion_p", 0.0), ("score", NAN), ("present", 0.5)]
)
def test_items_that_are_no_audit_are_refused(column, value):
    with pytest.raises(ValueError, match=r"audit|probability|verdict"):
        audit_all(BY_HAND.assign(**{column: value}), np.random.default_rng(0))
    with pytest.raises(ValueError, match=column):
        audit_all(BY_HAND.drop(columns=column), np.random.default_rng(0))


def test_pin_refuses_another_model_and_other_recordings():
    pin = AuditPin("a" * 32, frozenset({"r1", "r2"}))
    pin.check(AuditPin("a" * 32, frozenset({"r2", "r1"})), "out")
    with pytest.raises(UserError) as error:
        pin.check(AuditPin("b" * 32, pin.recordings), "out")
    assert error.value.code == "E_AUDIT_MODEL"
    for recordings in ({"r1"}, {"r1", "r2", "r3"}):
        with pytest.raises(UserError) as error:
            pin.check(AuditPin("a" * 32, frozenset(recordings)), "out")
        assert error.value.code == "E_AUDIT_RECORDINGS"


def test_threshold_of_a_precision_lies_below_the_lowest_score_that_gives_it():
    found = audit_species(TWICE, np.random.default_rng(0))
    threshold = audit_threshold(found, 0.75)
    assert threshold.reached
    assert threshold.threshold == pytest.approx(0.5)  # between 0.4 and 0.6
    assert threshold.precision.value == pytest.approx(0.75)
    assert threshold.missed.value == pytest.approx(20)
    assert audit_threshold(found, 1.0).threshold == pytest.approx(0.65)


@pytest.mark.parametrize("judged", range(1, 5))
def test_few_verdicts_give_no_threshold_but_ask_for_more(judged):
    table = items(np.arange(9) / 10, [1] * judged + [NAN] * (9 - judged), ["one"] * 9, [0.5] * 9)
    threshold = audit_threshold(audit_species(table, np.random.default_rng(0)), 0.9)
    assert np.isnan(threshold.threshold)
    assert np.isnan(threshold.precision.value)
    assert (threshold.reached, threshold.enough) == (False, False)
    assert threshold.sentence().startswith(f"too few verdicts for a threshold ({judged}); ")
    assert threshold.sentence().endswith(f"; check {5 - judged} more")


def test_few_candidates_that_are_all_judged_ask_for_recordings():
    found = audit_species(items([0.7], [1], ["one"], [1.0]), np.random.default_rng(0))
    assert audit_threshold(found, 0.9).sentence() == (
        "too few verdicts for a threshold (1); every candidate is judged, predict more recordings"
    )


def test_threshold_has_five_verdicts_at_or_above_it():
    found = audit_species(
        items(np.arange(9) / 10, [0] * 4 + [1] * 5, ["one"] * 9, [0.5] * 9),
        np.random.default_rng(0),
    )
    threshold = audit_threshold(found, 0.9)
    assert (threshold.reached, threshold.threshold) == (True, pytest.approx(0.35))
    few = audit_species(
        items(np.arange(9) / 10, [0] * 5 + [1] * 4, ["one"] * 9, [0.5] * 9),
        np.random.default_rng(0),
    )
    threshold = audit_threshold(few, 0.9)
    assert not threshold.reached
    assert threshold.precision.value == pytest.approx(0.8)


def test_precision_that_no_threshold_gives_is_marked_and_the_best_one_is_taken():
    present = [0, 0, 1, 0, 0, 0, 0, 1, 1, 1]
    table = items(np.arange(10) / 10, present, ["one"] * 10, [0.1] * 10)
    table = pd.concat([table, table], ignore_index=True)
    found = audit_species(table, np.random.default_rng(0))
    assert audit_threshold(found, 0.9).threshold == pytest.approx(0.65)
    loud = audit_species(table.assign(present=2 * [*present[:9], 0]), np.random.default_rng(0))
    top = audit_threshold(loud, 0.9)
    assert not top.reached
    assert top.precision.value == pytest.approx(2 / 3)
    assert "no threshold gives 90 %" in top.sentence()


def test_sentence_tells_the_interval_and_what_to_check():
    found = audit_species(TWICE, np.random.default_rng(0))
    threshold = audit_threshold(found, 0.75)
    assert not threshold.enough
    assert threshold.more > 0
    low, high = (round(100 * x) for x in (threshold.precision.low, threshold.precision.high))
    assert threshold.sentence() == (
        f"0.5 gives 75 %, {low} to {high}; "
        f"check {threshold.more} more between {threshold.low:.3g} and {threshold.high:.3g}"
    )


def test_more_verdicts_as_asked_for_end_with_enough():
    rng = np.random.default_rng(4)

    def judged(count):
        score = rng.random(count)
        present = rng.random(count) < expit(12 * (score - 0.4))
        return items(score, present, ["one"] * count, [count / 20000] * count)

    asked = [60]
    while not (threshold := audit_threshold(audit_species(judged(sum(asked)), rng), 0.9)).enough:
        asked.append(threshold.more)
        assert len(asked) < 6
    assert asked[1] > 50
    assert sum(asked) < 600
    assert threshold.precision.high - threshold.precision.low <= 0.1
    assert threshold.sentence().endswith("; enough")


def test_sites_that_differ_ask_for_other_sites_and_not_for_more_verdicts():
    site = np.repeat([f"s{i}" for i in range(10)], 100)
    present = np.repeat(np.arange(10) < 9, 100)
    table = items(np.full(1000, 0.5), present, ["one"] * 1000, [0.1] * 1000, site)
    threshold = audit_threshold(audit_species(table, np.random.default_rng(0)), 0.9)
    assert not threshold.enough
    assert threshold.more == 0
    assert threshold.sentence().endswith("audit recordings of more sites")


def test_audit_of_every_candidate_asks_for_no_more_verdicts():
    table = items(np.arange(20) / 20, np.arange(20) >= 8, ["one"] * 20, [1.0] * 20)
    threshold = audit_threshold(audit_species(table, np.random.default_rng(0)), 0.9)
    assert (threshold.enough, threshold.left, threshold.more) == (False, 0, 0)
    assert threshold.sentence().endswith("is judged")
    half = audit_threshold(
        audit_species(table.assign(inclusion_p=0.5), np.random.default_rng(0)), 0.9
    )
    assert 0 < half.more <= half.left < 20


def test_threshold_refuses_what_is_no_precision():
    found = audit_species(BY_HAND, np.random.default_rng(0))
    with pytest.raises(ValueError, match="precision"):
        audit_threshold(found, 0)
    assert np.isnan(estimates_at(found, 0.95)["precision"].value)
