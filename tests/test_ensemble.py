"""Ensembles: each method by hand or against another implementation, and nested evaluation."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

from antpitta.core.errors import UserError
from antpitta.core.types import Classes
from antpitta.scores.cells import CellMatrices, cells_from_matrices
from antpitta.scores.ensemble.blend import (
    MAX_REFERENCE,
    Blend,
    RankReference,
    fit_blend,
    nested_cells,
)
from antpitta.scores.ensemble.members import Member, member_from_table, members_from_cells
from antpitta.scores.ensemble.weights import align_logits, auc_weights, fit_weights
from antpitta.scores.evaluate import evaluate_cells

FROGS = Classes(("coqui", "whistler"))
NAN = np.nan


def rng(seed=0):
    return np.random.default_rng(seed)


def member(name, scores):
    return Member(name, np.array(scores, dtype=float))


def labels_of(truth, known=None):
    truth = np.array(truth, dtype=bool)
    known = np.ones_like(truth) if known is None else np.array(known, dtype=bool)
    names = [f"r{i:04d}" for i in range(len(truth))]
    return CellMatrices(truth, known, np.zeros(truth.shape), names)


def simulate(rows=300, classes=4, skills=(2.0, 1.0, 0.0), seed=1, share=0.3):
    """Complete ground truth, and members whose logits are raised by ``skill`` where present."""
    draw = rng(seed)
    truth = draw.random((rows, classes)) < share
    members = [
        member(f"m{i}", expit(skill * truth + draw.normal(size=truth.shape)))
        for i, skill in enumerate(skills)
    ]
    return members, labels_of(truth), Classes(tuple(f"s{i}" for i in range(classes)))


def blend_members(members, method, weights=None):
    """The scores of an ensemble of members with all cells known."""
    classes = Classes(tuple(f"s{i}" for i in range(members[0].scores.shape[1])))
    cells = labels_of(np.zeros(members[0].scores.shape))
    return fit_blend(members, cells, method, classes, weights).apply(members)


# ------------------------------------------------------------------ mean and rank


def test_mean_is_weighted():
    members = [member("a", [[0.2, 0.4]]), member("b", [[0.6, 0.0]])]
    np.testing.assert_allclose(blend_members(members, "mean"), [[0.4, 0.2]])
    np.testing.assert_allclose(blend_members(members, "mean", np.array([3, 1])), [[0.3, 0.3]])
    by_class = np.array([[1, 0], [0, 1]])
    np.testing.assert_allclose(blend_members(members, "mean", by_class), [[0.6 * 0 + 0.2, 0.0]])


def test_given_weights_are_used_for_the_ensemble_and_in_each_fold():
    members, truth, classes = simulate(rows=40)
    weights = np.array([3.0, 1.0, 0.0])
    fitted = fit_blend(members, truth, "mean", classes, weights)
    expected = 0.75 * members[0].scores + 0.25 * members[1].scores
    np.testing.assert_allclose(fitted.apply(members), expected)
    folds = {name: i % 2 for i, name in enumerate(truth.recordings)}
    cells = nested_cells(members, truth, folds, "mean", classes, weights)
    np.testing.assert_allclose(np.sort(cells["score"]), np.sort(expected.ravel()))


def test_extremized_is_the_mean_with_its_log_odds_times_one_and_a_half():
    members = [member("a", [[0.1], [0.7], [0.5]]), member("b", [[0.3], [0.9], [0.5]])]
    # Odds of 1/4, 4 and 1, to the power of 3/2.
    np.testing.assert_allclose(blend_members(members, "extremized"), [[1 / 9], [8 / 9], [0.5]])
    ends = [member("a", [[0.0], [1.0]]), member("b", [[0.0], [1.0]])]
    np.testing.assert_allclose(blend_members(ends, "extremized"), [[0], [1]], atol=1e-6)


def test_extremized_has_a_lower_brier_score_than_the_mean_of_calibrated_members():
    draw = rng(3)
    parts = draw.normal(size=(2, 20000, 1))  # the evidence that each member has
    truth = draw.random((20000, 1)) < expit(2 * parts.sum(axis=0))

    def calibrated(part):
        model = LogisticRegression(C=1e6).fit(part, truth[:, 0])
        return model.predict_proba(part)[:, 1:]

    members = [member(f"m{i}", calibrated(part)) for i, part in enumerate(parts)]
    mean, extremized = (
        ((blend_members(members, method) - truth) ** 2).mean() for method in ("mean", "extremized")
    )
    assert extremized < mean - 0.01


def test_weight_of_a_species_that_a_member_does_not_score_goes_to_the_others():
    members = [member("a", [[0.2, 0.4]]), member("b", [[0.6, NAN]])]
    np.testing.assert_allclose(blend_members(members, "mean"), [[0.4, 0.4]])
    fitted = fit_blend(members, labels_of([[0, 0]]), "mean", FROGS)
    np.testing.assert_array_equal(fitted.weights, [[0.5, 1], [0.5, 0]])
    assert fitted.missing() == {"b": ("whistler",)}


def test_ranks_are_within_the_class_and_ties_have_one_rank():
    first, second = rng(2).integers(1, 6, (20, 2)) / 7, rng(3).random((20, 2))
    blended = blend_members([member("a", first), member("b", second)], "rank")
    expected = [(rankdata(scores, axis=0) - 0.5) / 20 for scores in (first, second)]
    np.testing.assert_allclose(blended, np.mean(expected, axis=0))


def test_new_score_is_ranked_among_the_reference():
    reference = RankReference.from_scores(
        np.array([[0.2], [0.4], [0.4], [0.8]]), np.ones((4, 1), dtype=bool)
    )
    # Below 0.2 there is none of 4, and half of its own 1; 0.4 has 1 below and 2 equal.
    ranks = reference.rank(np.array([[0.2], [0.4], [0.6], [0.1], [1.0], [0.9]]))[:, 0]
    np.testing.assert_allclose(ranks, [0.125, 0.5, (0.5 + 0.875) / 2, 0.0625, 1, 0.9375])


def test_long_reference_is_thinned_and_hardly_changes():
    scores = rng(4).beta(0.3, 2, (5000, 1))
    reference = RankReference.from_scores(scores, np.ones_like(scores, dtype=bool))
    assert len(reference.scores[0]) <= MAX_REFERENCE + 2
    exact = (rankdata(scores[:, 0]) - 0.5) / 5000
    np.testing.assert_allclose(reference.rank(scores)[:, 0], exact, atol=2 / MAX_REFERENCE)


def test_class_without_reference_is_ranked_by_its_score():
    reference = RankReference.from_scores(np.array([[0.5]]), np.array([[False]]))
    np.testing.assert_allclose(reference.rank(np.array([[0.3], [NAN]])), [[0.3], [NAN]])
    with pytest.raises(ValueError, match="2 classes"):
        reference.rank(np.zeros((1, 2)))


# ------------------------------------------------------------------ alignment and weights


def test_aligned_logits_have_the_mean_and_deviation_of_the_first_member():
    first, second = rng(1).normal(1, 2, (50, 3)), rng(2).normal(-4, 0.5, (50, 3))
    known = rng(3).random((50, 3)) < 0.5
    slopes, offsets = align_logits([member("a", expit(first)), member("b", expit(second))], known)
    aligned = slopes[1] * second + offsets[1]
    assert (slopes[0], offsets[0]) == pytest.approx((1, 0))
    assert aligned[known].mean() == pytest.approx(first[known].mean())
    assert aligned[known].std() == pytest.approx(first[known].std())


def test_alignment_uses_only_species_that_both_score():
    first = expit(rng(1).normal(0, 1, (50, 2)))
    first[:, 1] = NAN
    second = expit(np.stack([rng(2).normal(-4, 1, 50), rng(3).normal(9, 1, 50)], axis=1))
    slopes, offsets = align_logits(
        [member("a", first), member("b", second)], np.ones((50, 2), bool)
    )
    aligned = slopes[1] * logit(second[:, 0]) + offsets[1]
    assert aligned.mean() == pytest.approx(logit(first[:, 0]).mean())


def test_members_without_common_species_or_variation_keep_their_slope():
    disjoint = [member("a", [[0.2, NAN], [0.4, NAN]]), member("b", [[NAN, 0.1], [NAN, 0.3]])]
    slopes, offsets = align_logits(disjoint, np.ones((2, 2), bool))
    assert slopes.tolist() == [1, 1]
    assert offsets.tolist() == [0, 0]
    constant = [member("a", [[0.2], [0.4]]), member("b", [[0.5], [0.5]])]
    slopes, offsets = align_logits(constant, np.ones((2, 1), bool))
    assert slopes.tolist() == [1, 1]
    assert offsets[1] == pytest.approx(logit([0.2, 0.4]).mean())


def test_auc_weights_are_the_auc_above_chance():
    truth = np.array([[1, 1], [0, 1], [1, 1], [0, 1]], dtype=bool)
    members = [
        member("a", [[0.9, 0.1], [0.1, 0.1], [0.8, 0.1], [0.2, 0.1]]),  # AUC 1
        member("b", [[0.9, 0.1], [0.8, 0.1], [0.7, 0.1], [0.1, 0.1]]),  # 3 of 4 pairs
        member("c", [[0.1, 0.1], [0.9, 0.1], [0.2, 0.1], [0.8, 0.1]]),  # AUC 0
    ]
    weights = auc_weights(members, truth, np.ones_like(truth))
    np.testing.assert_allclose(weights[:, 0], [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(weights[:, 1], weights[:, 0])  # always present: the mean


def test_auc_ensemble_by_hand():
    truth = np.array([[1], [0], [1], [0]], dtype=bool)
    first, second = [0.9, 0.1, 0.8, 0.2], [0.9, 0.8, 0.7, 0.1]
    members = [member("a", np.c_[first]), member("b", np.c_[second])]
    blended = fit_blend(members, labels_of(truth), "auc", Classes(("coqui",))).apply(members)
    a, b = logit(first), logit(second)
    aligned = (b - b.mean()) / b.std() * a.std() + a.mean()
    np.testing.assert_allclose(blended[:, 0], expit((2 * a + aligned) / 3))


def test_common_fit_is_a_logistic_regression(monkeypatch):
    monkeypatch.setattr("antpitta.scores.ensemble.weights.LOOSE", 1e-6)  # no species deviates
    members, truth, _ = simulate(rows=400, classes=1, skills=(2.0, 1.2))
    logits = [logit(own.scores) for own in members]
    features = np.concatenate(logits, axis=1)
    expected = LogisticRegression(C=1.0, tol=1e-8).fit(features, truth.truth[:, 0]).coef_[0]
    weights = fit_weights(members, logits, truth.truth, truth.known)
    np.testing.assert_allclose(weights[:, 0], expected / expected.sum(), atol=1e-3)


def test_prevalence_of_a_species_does_not_change_the_weights(monkeypatch):
    monkeypatch.setattr("antpitta.scores.ensemble.weights.LOOSE", 1e-6)
    members, truth, _ = simulate(rows=500, classes=2, skills=(2.0, 1.0))
    logits = [logit(own.scores) for own in members]
    weights = fit_weights(members, logits, truth.truth, truth.known)
    # All logits of the second species raised, like those of a model that finds it everywhere.
    raised = [own + np.array([0.0, 5.0]) for own in logits]
    np.testing.assert_allclose(
        fit_weights(members, raised, truth.truth, truth.known), weights, atol=1e-3
    )


def test_fitted_weights_rise_with_skill_and_are_small_without():
    members, truth, classes = simulate(skills=(2.0, 1.0, 0.0))
    fitted = fit_blend(members, truth, "fit", classes)
    np.testing.assert_allclose(fitted.weights.sum(axis=0), 1)
    assert (fitted.weights >= 0).all()
    assert (fitted.weights[0] > fitted.weights[1]).all()
    assert (fitted.weights[1] > fitted.weights[2]).all()
    assert fitted.weights[2].mean() < 0.08


def test_species_that_a_member_does_not_score_do_not_lower_its_other_weights(monkeypatch):
    monkeypatch.setattr("antpitta.scores.ensemble.weights.LOOSE", 1e-6)
    draw, classes = rng(2), Classes(tuple(f"s{i}" for i in range(6)))
    truth = draw.random((500, 6)) < 0.3
    common = 1.5 * truth + draw.normal(size=truth.shape)  # the noise of each is small beside it
    first, second = (expit(common + 0.3 * draw.normal(size=truth.shape)) for _ in range(2))
    second[:, 1:] = NAN
    fitted = fit_blend([member("a", first), member("b", second)], labels_of(truth), "fit", classes)
    assert 0.4 < fitted.weights[1, 0] < 0.6


def test_species_with_few_cells_keeps_the_common_weights():
    members, truth, classes = simulate(rows=600, classes=2, skills=(2.0, 2.0))
    # The scores of the second member for species 1 are reversed.
    reversed_scores = members[1].scores.copy()
    reversed_scores[:, 1] = 1 - reversed_scores[:, 1]
    members[1] = member("m1", reversed_scores)
    many = fit_blend(members, truth, "fit", classes).weights
    few_known = np.ones_like(truth.truth)
    few_known[12:, 1] = False
    present = truth.truth & few_known
    assert 0 < present[:12, 1].sum() < 12
    few = fit_blend(members, labels_of(present, few_known), "fit", classes).weights
    assert many[1, 1] < 0.1  # enough cells
    assert few[1, 1] > 0.25  # few cells
    assert many[1, 0] > 0.4


def test_absent_cells_alone_give_equal_weights():
    members, truth, classes = simulate(rows=20)
    absent = labels_of(np.zeros_like(truth.truth))
    for method in ("fit", "auc"):
        np.testing.assert_allclose(fit_blend(members, absent, method, classes).weights, 1 / 3)


def test_members_without_skill_have_equal_weights():
    members, truth, classes = simulate(skills=(-3.0, -3.0))
    np.testing.assert_allclose(fit_blend(members, truth, "fit", classes).weights, 0.5)
    np.testing.assert_allclose(fit_blend(members, truth, "auc", classes).weights, 0.5)


def test_unknown_cells_change_nothing():
    members, truth, classes = simulate()
    known = rng(5).random(truth.truth.shape) < 0.5
    known[:4] = True
    part = labels_of(truth.truth & known, known)
    changed = [
        member(own.name, np.where(known, own.scores, rng(6).random(known.shape))) for own in members
    ]
    for method in ("rank", "auc", "fit"):
        first, second = (fit_blend(m, part, method, classes).to_json() for m in (members, changed))
        assert first == second


def test_member_has_no_weight_for_a_species_that_it_does_not_score():
    members, truth, classes = simulate()
    scores = members[1].scores.copy()
    scores[:, 2] = NAN
    members[1] = member("table", scores)
    for method in ("mean", "extremized", "rank", "aligned", "auc", "fit"):
        fitted = fit_blend(members, truth, method, classes)
        assert fitted.weights[1, 2] == 0
        assert fitted.weights[:, 2].sum() == pytest.approx(1)
        assert fitted.missing() == {"table": ("s2",)}
        assert np.isfinite(fitted.apply(members)).all()


# ------------------------------------------------------------------ a saved ensemble


@pytest.mark.parametrize("method", ["mean", "extremized", "rank", "aligned", "auc", "fit"])
def test_ensemble_survives_strict_json_and_scores_one_recording_equally(method):
    members, truth, classes = simulate(rows=80)
    fitted = fit_blend(members, truth, method, classes)
    again = Blend.from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))
    scores = fitted.apply(members)
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_array_equal(again.apply(members[::-1]), scores)  # in any order
    single = np.arange(80) == 7
    np.testing.assert_allclose(again.apply([m.take(single) for m in members]), scores[[7]])


def test_species_that_a_member_no_longer_scores_goes_to_the_others():
    useless, good = [[0.1], [0.9]], [[0.9], [0.1]]
    coqui = Classes(("coqui",))
    fitted = fit_blend(
        [member("a", useless), member("b", good)], labels_of([[1], [0]]), "auc", coqui
    )
    assert fitted.weights[:, 0].tolist() == [0, 1]
    blended = fitted.apply([member("a", useless), member("b", [[NAN], [NAN]])])
    np.testing.assert_allclose(blended, useless)
    with pytest.raises(UserError, match="coqui") as error:
        fitted.apply([member("a", [[NAN]]), member("b", [[NAN]])])
    assert error.value.code == "E_SCORES_MISSING"


def test_no_rows_give_no_scores():
    members, truth, classes = simulate(rows=30)
    none = np.zeros(30, dtype=bool)
    for method in ("mean", "extremized", "rank", "aligned", "auc", "fit"):
        fitted = fit_blend(members, truth, method, classes)
        assert fitted.apply([m.take(none) for m in members]).shape == (0, 4)


def code_of(make):
    with pytest.raises(UserError) as error:
        make()
    return error.value.code


def test_ensembles_that_cannot_be_fitted_are_refused():
    members, truth, classes = simulate(rows=10)
    assert code_of(lambda: blend_members(members, "median")) == "E_ENSEMBLE_METHOD"
    assert code_of(lambda: fit_blend([], truth, "mean", classes)) == "E_ENSEMBLE_MEMBERS"
    assert code_of(lambda: blend_members([members[0]] * 2, "mean")) == "E_ENSEMBLE_MEMBERS"
    assert code_of(lambda: blend_members(members, "fit", np.ones(3))) == "E_ENSEMBLE_WEIGHTS"
    for weights in ([1, -1, 1], [0, 0, 0], [1, 1], [1, 1, np.inf]):
        assert code_of(lambda w=weights: blend_members(members, "mean", np.array(w))) == (
            "E_ENSEMBLE_WEIGHTS"
        )
    unscored = [member(m.name, np.full((10, 4), NAN)) for m in members]
    assert code_of(lambda: fit_blend(unscored, truth, "fit", classes)) == "E_SCORES_MISSING"
    fitted = fit_blend(members, truth, "mean", classes)
    assert code_of(lambda: fitted.apply(members[:2])) == "E_ENSEMBLE_MEMBERS"


def test_members_of_different_shapes_are_refused():
    members, truth, classes = simulate(rows=10)
    half = [m.take(np.arange(10) < 5) for m in members]
    with pytest.raises(ValueError, match="rows and classes"):
        fit_blend([members[0], half[1]], truth, "mean", classes)
    with pytest.raises(ValueError, match="labels"):
        fit_blend(half, truth, "auc", classes)


@pytest.mark.parametrize(
    ("scores", "message"),
    [([0.1], "must be"), ([[1.2]], "probability"), ([[NAN], [0.1]], "some rows")],
)
def test_member_with_other_scores_than_probabilities_is_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        member("a", scores)


# ------------------------------------------------------------------ nested evaluation


def auc_of(cells, classes):
    return evaluate_cells(cells, classes, "", draws=0, rng=rng()).macro_auc.value


@pytest.mark.parametrize("method", ["auc", "fit"])
def test_members_without_skill_look_good_in_sample_and_not_when_nested(method):
    in_sample_auc, nested_auc = [], []
    for seed in range(5):  # one simulation deviates by 0.06
        members, truth, classes = simulate(
            rows=60, classes=3, skills=[0.0] * 12, seed=seed, share=0.5
        )
        folds = {name: i % 3 for i, name in enumerate(truth.recordings)}
        in_sample = cells_from_matrices(
            truth, fit_blend(members, truth, method, classes).apply(members), classes
        )
        in_sample_auc.append(auc_of(in_sample, classes))
        nested_auc.append(auc_of(nested_cells(members, truth, folds, method, classes), classes))
    assert np.mean(in_sample_auc) > np.mean(nested_auc) + 0.07
    assert abs(np.mean(nested_auc) - 0.5) < 0.05


@pytest.mark.parametrize("method", ["auc", "fit"])
def test_member_that_memorised_one_fold_gains_nothing_there(method):
    members, truth, classes = simulate(rows=200, skills=(1.0, 0.0), seed=4)
    folds = {name: i % 4 for i, name in enumerate(truth.recordings)}
    last = np.array([folds[name] == 3 for name in truth.recordings])
    overfit = members[1].scores.copy()
    overfit[last] = np.where(truth.truth[last], 0.99, 0.01)
    members[1] = member("overfit", overfit)
    nested = nested_cells(members, truth, folds, method, classes)
    rows = nested[nested["recording"].map(folds) == 3]
    others = fit_blend(
        [m.take(~last) for m in members], labels_of(truth.truth[~last]), method, classes
    )
    np.testing.assert_allclose(
        rows["score"].to_numpy().reshape(-1, 4),
        others.apply([m.take(last) for m in members]),
    )
    in_sample = fit_blend(members, truth, method, classes).weights[1].mean()
    assert others.weights[1].mean() < in_sample - 0.1


def test_nested_ensemble_of_skilled_members_beats_the_best_of_them():
    members, truth, classes = simulate(rows=400, skills=(1.2, 1.0, 0.0))
    folds = {name: i % 5 for i, name in enumerate(truth.recordings)}
    best = auc_of(nested_cells(members[:1], truth, folds, "mean", classes), classes)
    for method in ("auc", "fit"):
        assert auc_of(nested_cells(members, truth, folds, method, classes), classes) > best + 0.02


def test_nested_cells_are_the_known_cells():
    members, truth, classes = simulate(rows=30)
    known = rng(7).random(truth.truth.shape) < 0.6
    part = labels_of(truth.truth & known, known)
    folds = {name: i % 3 for i, name in enumerate(part.recordings)}
    nested = nested_cells(members, part, folds, "rank", classes)
    assert len(nested) == known.sum()
    assert nested["present"].sum() == part.truth.sum()


def test_nested_cells_without_several_folds_are_refused():
    members, truth, classes = simulate(rows=6)
    with pytest.raises(UserError) as error:
        nested_cells(members, truth, dict.fromkeys(truth.recordings, 0), "auc", classes)
    assert error.value.code == "E_ENSEMBLE_FOLDS"
    with pytest.raises(ValueError, match="r0000"):
        nested_cells(members, truth, {}, "auc", classes)


# ------------------------------------------------------------------ tables and runs as members

TABLE = pd.DataFrame(
    {"owl": [1.0, 1.0, 1.0], "recording_id": ["z", "y", "x"], "whistler": [0.1, 0.2, 0.3]}
)


def test_columns_and_rows_of_a_table_are_found_by_name():
    from_table = member_from_table(TABLE, ["x", "z"], FROGS, name="table")
    np.testing.assert_array_equal(from_table.scores, [[NAN, 0.3], [NAN, 0.1]])
    assert from_table.scored.tolist() == [False, True]


@pytest.mark.parametrize(
    ("table", "code", "value"),
    [
        (TABLE.drop(columns="whistler"), "E_SCORES_MISSING", "owl"),
        (TABLE[["recording_id"]], "E_SCORES_MISSING", "coqui"),
        (TABLE[:2], "E_SCORES_MISSING", "x"),
        (TABLE.assign(whistler=[0.1, 0.2, None]), "E_SCORE_VALUE", "x"),
        (TABLE.assign(whistler=[-2.0, 0.0, 2.0]), "E_SCORE_VALUE", "2 for whistler in x"),
        (pd.concat([TABLE, TABLE]), "E_SCORE_TABLE", "x"),
    ],
)
def test_table_that_cannot_be_a_member_is_refused(table, code, value):
    with pytest.raises(UserError, match=value) as error:
        member_from_table(table, ["x", "y"], FROGS, name="table")
    assert error.value.code == code


def cells(scores):
    return pd.DataFrame(
        {
            "recording": ["b", "a", "b"],
            "species": ["coqui", "coqui", "coqui"],
            "present": [True, False, False],
            "score": scores,
        }
    )


def test_runs_become_members_on_the_same_rows():
    runs = {"run 1": cells([0.9, 0.2, 0.4]), "run 2": cells([0.3, 0.1, 0.8])}
    members, rows = members_from_cells(runs, FROGS)
    assert [own.name for own in members] == ["run 1", "run 2"]
    np.testing.assert_array_equal(members[1].scores, [[0.1, 0], [0.3, 0]])
    assert rows.recordings == ["a", "b"]


def test_runs_with_different_cells_are_refused():
    runs = {"run 1": cells([0.9, 0.2, 0.4]), "run 2": cells([0.3, 0.1, 0.8])[:2]}
    with pytest.raises(UserError, match=r"run 2 and run 1 .*2 and 3") as error:
        members_from_cells(runs, FROGS)
    assert error.value.code == "E_ENSEMBLE_CELLS"
