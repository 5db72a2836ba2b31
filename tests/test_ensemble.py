"""Ensembles: each way of blending by hand or against an oracle, and honesty when fitted."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

from antpitta.core.errors import UserError
from antpitta.core.types import Classes
from antpitta.scores.cells import CellMatrices, judged_cell_scores
from antpitta.scores.ensemble.blend import (
    POINTS,
    Blend,
    RankReference,
    blend_members,
    fit_blend,
    nested_cells,
    plain_blend,
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


def judged(truth, known=None):
    truth = np.array(truth, dtype=bool)
    known = np.ones_like(truth) if known is None else np.array(known, dtype=bool)
    names = [f"r{i:04d}" for i in range(len(truth))]
    return CellMatrices(truth, known, np.zeros(truth.shape), names)


def world(rows=300, classes=4, skills=(2.0, 1.0, 0.0), seed=1, share=0.3):
    """Whole truth, and members of different skill: how far a presence lifts the logit."""
    draw = rng(seed)
    truth = draw.random((rows, classes)) < share
    members = [
        member(f"m{i}", expit(skill * truth + draw.normal(size=truth.shape)))
        for i, skill in enumerate(skills)
    ]
    return members, judged(truth), Classes(tuple(f"s{i}" for i in range(classes)))


# ------------------------------------------------------------------ mean and rank


def test_a_mean_is_weighted():
    members = [member("a", [[0.2, 0.4]]), member("b", [[0.6, 0.0]])]
    np.testing.assert_allclose(blend_members(members, "mean"), [[0.4, 0.2]])
    np.testing.assert_allclose(blend_members(members, "mean", np.array([3, 1])), [[0.3, 0.3]])
    by_class = np.array([[1, 0], [0, 1]])
    np.testing.assert_allclose(blend_members(members, "mean", by_class), [[0.6 * 0 + 0.2, 0.0]])


def test_weights_are_those_of_the_kept_blend_and_of_each_fold():
    members, whole, classes = world(rows=40)
    weights = np.array([3.0, 1.0, 0.0])
    fitted = fit_blend(members, whole, "mean", classes, weights)
    wanted = 0.75 * members[0].scores + 0.25 * members[1].scores
    np.testing.assert_allclose(fitted.apply(members), wanted)
    folds = {name: i % 2 for i, name in enumerate(whole.recordings)}
    cells = nested_cells(members, whole, folds, "mean", classes, weights)
    np.testing.assert_allclose(np.sort(cells["score"]), np.sort(wanted.ravel()))


def test_a_sharp_blend_is_the_mean_with_more_certainty():
    members = [member("a", [[0.1], [0.7], [0.5]]), member("b", [[0.3], [0.9], [0.5]])]
    # odds 1/4, 4 and 1, to the power of 3/2
    np.testing.assert_allclose(blend_members(members, "extremized"), [[1 / 9], [8 / 9], [0.5]])
    ends = [member("a", [[0.0], [1.0]]), member("b", [[0.0], [1.0]])]
    np.testing.assert_allclose(blend_members(ends, "extremized"), [[0], [1]], atol=1e-6)


def test_a_sharp_blend_is_nearer_the_truth_than_a_mean_of_calibrated_members():
    draw = rng(3)
    parts = draw.normal(size=(2, 20000, 1))  # what each member alone knows of
    truth = draw.random((20000, 1)) < expit(2 * parts.sum(axis=0))

    def calibrated(part):
        model = LogisticRegression(C=1e6).fit(part, truth[:, 0])
        return model.predict_proba(part)[:, 1:]

    members = [member(f"m{i}", calibrated(part)) for i, part in enumerate(parts)]
    mean, sharp = (
        ((blend_members(members, method) - truth) ** 2).mean() for method in ("mean", "extremized")
    )
    assert sharp < mean - 0.01


def test_a_member_that_does_not_know_a_species_leaves_it_to_the_others():
    members = [member("a", [[0.2, 0.4]]), member("b", [[0.6, NAN]])]
    np.testing.assert_allclose(blend_members(members, "mean"), [[0.4, 0.4]])
    kept = plain_blend(members, FROGS, "mean")
    np.testing.assert_array_equal(kept.weights, [[0.5, 1], [0.5, 0]])
    assert kept.missing() == {"b": ("whistler",)}


def test_ranks_are_within_the_class_and_ties_share_theirs():
    first, second = rng(2).integers(1, 6, (20, 2)) / 7, rng(3).random((20, 2))
    found = blend_members([member("a", first), member("b", second)], "rank")
    twin = [(rankdata(scores, axis=0) - 0.5) / 20 for scores in (first, second)]
    np.testing.assert_allclose(found, np.mean(twin, axis=0))


def test_a_new_recording_is_ranked_among_the_kept_ones():
    reference = RankReference.of(np.array([[0.2], [0.4], [0.4], [0.8]]))
    # below 0.2 lies 0 of 4, half of its own 1; 0.4 has 1 below and 2 of its own
    found = reference.rank(np.array([[0.2], [0.4], [0.6], [0.1], [1.0], [0.9]]))[:, 0]
    np.testing.assert_allclose(found, [0.125, 0.5, (0.5 + 0.875) / 2, 0.0625, 1, 0.9375])


def test_a_long_reference_is_thinned_and_hardly_moves():
    scores = rng(4).beta(0.3, 2, (5000, 1))
    reference = RankReference.of(scores)
    assert len(reference.scores[0]) <= POINTS + 2
    exact = (rankdata(scores[:, 0]) - 0.5) / 5000
    np.testing.assert_allclose(reference.rank(scores)[:, 0], exact, atol=2 / POINTS)


def test_a_class_without_reference_ranks_by_its_score():
    reference = RankReference.of(np.array([[0.5]]), known=np.array([[False]]))
    np.testing.assert_allclose(reference.rank(np.array([[0.3], [NAN]])), [[0.3], [NAN]])
    with pytest.raises(ValueError, match="2 classes against 1"):
        reference.rank(np.zeros((1, 2)))


# ------------------------------------------------------------------ alignment and weights


def test_aligned_logits_have_the_first_members_mean_and_deviation():
    first, second = rng(1).normal(1, 2, (50, 3)), rng(2).normal(-4, 0.5, (50, 3))
    known = rng(3).random((50, 3)) < 0.5
    slopes, offsets = align_logits([member("a", expit(first)), member("b", expit(second))], known)
    moved = slopes[1] * second + offsets[1]
    assert (slopes[0], offsets[0]) == pytest.approx((1, 0))
    assert moved[known].mean() == pytest.approx(first[known].mean())
    assert moved[known].std() == pytest.approx(first[known].std())


def test_alignment_looks_only_at_species_that_both_know():
    first = expit(rng(1).normal(0, 1, (50, 2)))
    first[:, 1] = NAN
    second = expit(np.stack([rng(2).normal(-4, 1, 50), rng(3).normal(9, 1, 50)], axis=1))
    slopes, offsets = align_logits(
        [member("a", first), member("b", second)], np.ones((50, 2), bool)
    )
    moved = slopes[1] * logit(second[:, 0]) + offsets[1]
    assert moved.mean() == pytest.approx(logit(first[:, 0]).mean())


def test_members_without_a_common_species_or_without_spread_keep_their_slope():
    nothing_shared = [member("a", [[0.2, NAN], [0.4, NAN]]), member("b", [[NAN, 0.1], [NAN, 0.3]])]
    slopes, offsets = align_logits(nothing_shared, np.ones((2, 2), bool))
    assert slopes.tolist() == [1, 1]
    assert offsets.tolist() == [0, 0]
    constant = [member("a", [[0.2], [0.4]]), member("b", [[0.5], [0.5]])]
    slopes, offsets = align_logits(constant, np.ones((2, 1), bool))
    assert slopes.tolist() == [1, 1]
    assert offsets[1] == pytest.approx(logit([0.2, 0.4]).mean())


def test_weights_by_auc_are_what_lies_above_chance():
    truth = np.array([[1, 1], [0, 1], [1, 1], [0, 1]], dtype=bool)
    members = [
        member("a", [[0.9, 0.1], [0.1, 0.1], [0.8, 0.1], [0.2, 0.1]]),  # AUC 1
        member("b", [[0.9, 0.1], [0.8, 0.1], [0.7, 0.1], [0.1, 0.1]]),  # 3 of 4 pairs
        member("c", [[0.1, 0.1], [0.9, 0.1], [0.2, 0.1], [0.8, 0.1]]),  # upside down
    ]
    weights = auc_weights(members, truth, np.ones_like(truth))
    np.testing.assert_allclose(weights[:, 0], [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(weights[:, 1], weights[:, 0])  # always present: as elsewhere


def test_an_ensemble_by_auc_worked_out_by_hand():
    truth = np.array([[1], [0], [1], [0]], dtype=bool)
    first, second = [0.9, 0.1, 0.8, 0.2], [0.9, 0.8, 0.7, 0.1]
    members = [member("a", np.c_[first]), member("b", np.c_[second])]
    found = fit_blend(members, judged(truth), "auc", Classes(("coqui",))).apply(members)
    a, b = logit(first), logit(second)
    aligned = (b - b.mean()) / b.std() * a.std() + a.mean()
    np.testing.assert_allclose(found[:, 0], expit((2 * a + aligned) / 3))


def test_the_common_fit_is_a_logistic_regression(monkeypatch):
    monkeypatch.setattr("antpitta.scores.ensemble.weights.LOOSE", 1e-6)  # no species leaves it
    members, whole, _ = world(rows=400, classes=1, skills=(2.0, 1.2))
    logits = [logit(one.scores) for one in members]
    heard = np.concatenate(logits, axis=1)
    twin = LogisticRegression(C=1.0, tol=1e-8).fit(heard, whole.truth[:, 0]).coef_[0]
    found = fit_weights(members, logits, whole.truth, whole.known)
    np.testing.assert_allclose(found[:, 0], twin / twin.sum(), atol=1e-3)


def test_how_common_a_species_is_does_not_enter_the_weights(monkeypatch):
    monkeypatch.setattr("antpitta.scores.ensemble.weights.LOOSE", 1e-6)
    members, whole, _ = world(rows=500, classes=2, skills=(2.0, 1.0))
    logits = [logit(one.scores) for one in members]
    found = fit_weights(members, logits, whole.truth, whole.known)
    # the second species' logits all shifted, as of a model that finds it everywhere
    shifted = [one + np.array([0.0, 5.0]) for one in logits]
    again = fit_weights(members, shifted, whole.truth, whole.known)
    np.testing.assert_allclose(again, found, atol=1e-3)


def test_a_fit_finds_who_is_good_and_gives_noise_next_to_nothing():
    members, whole, classes = world(skills=(2.0, 1.0, 0.0))
    fitted = fit_blend(members, whole, "fit", classes)
    np.testing.assert_allclose(fitted.weights.sum(axis=0), 1)
    assert (fitted.weights >= 0).all()
    assert (fitted.weights[0] > fitted.weights[1]).all()
    assert (fitted.weights[1] > fitted.weights[2]).all()
    assert fitted.weights[2].mean() < 0.08


def test_species_that_a_member_lacks_do_not_count_against_it_elsewhere(monkeypatch):
    monkeypatch.setattr("antpitta.scores.ensemble.weights.LOOSE", 1e-6)
    draw, classes = rng(2), Classes(tuple(f"s{i}" for i in range(6)))
    truth = draw.random((500, 6)) < 0.3
    heard = 1.5 * truth + draw.normal(size=truth.shape)  # by both; their own noise is small
    ours, theirs = (expit(heard + 0.3 * draw.normal(size=truth.shape)) for _ in range(2))
    theirs[:, 1:] = NAN
    fitted = fit_blend([member("a", ours), member("b", theirs)], judged(truth), "fit", classes)
    assert 0.4 < fitted.weights[1, 0] < 0.6


def test_a_species_with_few_cells_keeps_to_the_common_weights():
    members, whole, classes = world(rows=600, classes=2, skills=(2.0, 2.0))
    # in species 1 the second member is upside down
    upside = members[1].scores.copy()
    upside[:, 1] = 1 - upside[:, 1]
    members[1] = member("m1", upside)
    many = fit_blend(members, whole, "fit", classes).weights
    few_known = np.ones_like(whole.truth)
    few_known[12:, 1] = False
    truth = whole.truth & few_known
    assert 0 < truth[:12, 1].sum() < 12
    few = fit_blend(members, judged(truth, few_known), "fit", classes).weights
    assert many[1, 1] < 0.1  # enough cells: told apart
    assert few[1, 1] > 0.25  # few cells: near the common ones
    assert many[1, 0] > 0.4


def test_cells_of_one_kind_fit_nothing_and_members_weigh_the_same():
    members, whole, classes = world(rows=20)
    nothing = judged(np.zeros_like(whole.truth))
    for method in ("fit", "auc"):
        np.testing.assert_allclose(fit_blend(members, nothing, method, classes).weights, 1 / 3)


def test_useless_members_weigh_the_same():
    members, whole, classes = world(skills=(-3.0, -3.0))
    np.testing.assert_allclose(fit_blend(members, whole, "fit", classes).weights, 0.5)
    np.testing.assert_allclose(fit_blend(members, whole, "auc", classes).weights, 0.5)


def test_unknown_cells_have_no_say():
    members, whole, classes = world()
    known = rng(5).random(whole.truth.shape) < 0.5
    known[:4] = True
    part = judged(whole.truth & known, known)
    scrambled = [
        member(one.name, np.where(known, one.scores, rng(6).random(known.shape))) for one in members
    ]
    for method in ("rank", "auc", "fit"):
        one, other = (fit_blend(m, part, method, classes).to_json() for m in (members, scrambled))
        assert one == other


def test_a_species_that_an_outside_member_lacks_weighs_nothing_there():
    members, whole, classes = world()
    scores = members[1].scores.copy()
    scores[:, 2] = NAN
    members[1] = member("outside", scores)
    for method in ("mean", "extremized", "rank", "auc", "fit"):
        fitted = fit_blend(members, whole, method, classes)
        assert fitted.weights[1, 2] == 0
        assert fitted.weights[:, 2].sum() == pytest.approx(1)
        assert fitted.missing() == {"outside": ("s2",)}
        assert np.isfinite(fitted.apply(members)).all()


# ------------------------------------------------------------------ a blend that is kept


@pytest.mark.parametrize("method", ["mean", "extremized", "rank", "auc", "fit"])
def test_a_blend_survives_strict_json_and_scores_one_recording_alike(method):
    members, whole, classes = world(rows=80)
    fitted = fit_blend(members, whole, method, classes)
    again = Blend.from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))
    everything = fitted.apply(members)
    assert ((everything >= 0) & (everything <= 1)).all()
    np.testing.assert_array_equal(again.apply(members[::-1]), everything)  # in any order
    alone = np.arange(80) == 7
    np.testing.assert_allclose(again.apply([m.take(alone) for m in members]), everything[[7]])


def test_a_species_lost_later_goes_to_those_who_have_it():
    useless, good = [[0.1], [0.9]], [[0.9], [0.1]]
    one = Classes(("coqui",))
    fitted = fit_blend([member("a", useless), member("b", good)], judged([[1], [0]]), "auc", one)
    assert fitted.weights[:, 0].tolist() == [0, 1]
    found = fitted.apply([member("a", useless), member("b", [[NAN], [NAN]])])
    np.testing.assert_allclose(found, useless)
    with pytest.raises(UserError, match="no member scores species coqui"):
        fitted.apply([member("a", [[NAN]]), member("b", [[NAN]])])


def test_no_rows_are_no_scores():
    members, whole, classes = world(rows=30)
    nothing = np.zeros(30, dtype=bool)
    for method in ("mean", "extremized", "rank", "auc", "fit"):
        fitted = fit_blend(members, whole, method, classes)
        assert fitted.apply([m.take(nothing) for m in members]).shape == (0, 4)


def test_what_cannot_be_blended_is_refused():
    members, whole, classes = world(rows=10)
    with pytest.raises(UserError, match="fitted on judged cells"):
        blend_members(members, "auc")
    with pytest.raises(UserError, match="no ensemble by 'median'"):
        blend_members(members, "median")
    with pytest.raises(UserError, match="no members"):
        blend_members([], "mean")
    with pytest.raises(UserError, match=r"two members have one name: m0 \(1\)"):
        blend_members([members[0], members[0]], "mean")
    with pytest.raises(UserError, match="finds its weights itself"):
        fit_blend(members, judged(np.eye(10, 4)), "fit", classes, np.ones(3))
    with pytest.raises(UserError, match="weights must be"):
        blend_members(members, "mean", np.array([1, -1, 1]))
    with pytest.raises(ValueError, match="same rows and classes"):
        blend_members([members[0], members[1].take(np.arange(10) < 5)], "mean")
    with pytest.raises(ValueError, match="judged"):
        fit_blend([m.take(np.arange(10) < 5) for m in members], whole, "auc", classes)
    with pytest.raises(UserError, match="the blend is of"):
        plain_blend(members, classes, "mean").apply(members[:2])
    unknown = [member(m.name, np.full((10, 4), NAN)) for m in members]
    with pytest.raises(UserError, match=r"no member scores species s0, s1, s2, \.\.\. \(4\)"):
        fit_blend(unknown, whole, "fit", classes)


@pytest.mark.parametrize(
    ("scores", "message"),
    [([0.1], "must be"), ([[1.2]], "no probability"), ([[NAN], [0.1]], "some rows and not")],
)
def test_a_member_refuses_scores_that_are_none(scores, message):
    with pytest.raises(ValueError, match=message):
        member("a", scores)


# ------------------------------------------------------------------ an honest report


def auc_of(cells, classes):
    return evaluate_cells(cells, classes, "", draws=0, rng=rng()).macro_auc.value


@pytest.mark.parametrize("method", ["auc", "fit"])
def test_random_members_look_good_in_sample_and_like_chance_nested(method):
    flattered, honest = [], []
    for seed in range(5):  # one world's chance alone strays by 0.06
        members, whole, classes = world(rows=60, classes=3, skills=[0.0] * 12, seed=seed, share=0.5)
        folds = {name: i % 3 for i, name in enumerate(whole.recordings)}
        in_sample = judged_cell_scores(
            whole, fit_blend(members, whole, method, classes).apply(members), classes
        )
        flattered.append(auc_of(in_sample, classes))
        honest.append(auc_of(nested_cells(members, whole, folds, method, classes), classes))
    assert np.mean(flattered) > np.mean(honest) + 0.07
    assert abs(np.mean(honest) - 0.5) < 0.05


@pytest.mark.parametrize("method", ["auc", "fit"])
def test_who_has_memorised_one_fold_does_not_shine_in_it(method):
    members, whole, classes = world(rows=200, skills=(1.0, 0.0), seed=4)
    folds = {name: i % 4 for i, name in enumerate(whole.recordings)}
    third = np.array([folds[name] == 3 for name in whole.recordings])
    cheat = members[1].scores.copy()
    cheat[third] = np.where(whole.truth[third], 0.99, 0.01)
    members[1] = member("cheat", cheat)
    nested = nested_cells(members, whole, folds, method, classes)
    of_third = nested[nested["recording"].map(folds) == 3]
    honest = fit_blend(
        [m.take(~third) for m in members], judged(whole.truth[~third]), method, classes
    )
    np.testing.assert_allclose(
        of_third["score"].to_numpy().reshape(-1, 4),
        honest.apply([m.take(third) for m in members]),
    )
    flattered = fit_blend(members, whole, method, classes).weights[1].mean()
    assert honest.weights[1].mean() < flattered - 0.1


def test_a_nested_fit_of_real_skill_beats_its_best_member():
    members, whole, classes = world(rows=400, skills=(1.2, 1.0, 0.0))
    folds = {name: i % 5 for i, name in enumerate(whole.recordings)}
    best = auc_of(nested_cells(members[:1], whole, folds, "mean", classes), classes)
    for method in ("auc", "fit"):
        assert auc_of(nested_cells(members, whole, folds, method, classes), classes) > best + 0.02


def test_nested_cells_are_the_judged_cells():
    members, whole, classes = world(rows=30)
    known = rng(7).random(whole.truth.shape) < 0.6
    part = judged(whole.truth & known, known)
    folds = {name: i % 3 for i, name in enumerate(part.recordings)}
    nested = nested_cells(members, part, folds, "rank", classes)
    assert len(nested) == known.sum()
    assert nested["present"].sum() == part.truth.sum()


def test_nesting_needs_folds():
    members, whole, classes = world(rows=6)
    with pytest.raises(UserError, match="two or more"):
        nested_cells(members, whole, dict.fromkeys(whole.recordings, 0), "auc", classes)
    with pytest.raises(ValueError, match="no fold for recordings r0000"):
        nested_cells(members, whole, {}, "auc", classes)


# ------------------------------------------------------------------ where members come from

TABLE = pd.DataFrame(
    {"owl": [1.0, 1.0, 1.0], "recording_id": ["z", "y", "x"], "whistler": [0.1, 0.2, 0.3]}
)


def test_a_table_of_anyone_becomes_a_member_by_name():
    found = member_from_table(TABLE, ["x", "z"], FROGS, name="theirs")
    np.testing.assert_array_equal(found.scores, [[NAN, 0.3], [NAN, 0.1]])
    assert found.knows.tolist() == [False, True]


def test_logits_are_taken_for_logits_only_if_asked():
    table = TABLE.assign(whistler=[-2.0, 0.0, 2.0])
    with pytest.raises(UserError, match="holds 2 for whistler in x, which is no probability"):
        member_from_table(table, ["x"], FROGS, name="theirs")
    found = member_from_table(table, ["x", "y"], FROGS, name="theirs", logits=True)
    np.testing.assert_allclose(found.scores[:, 1], expit([2, 0]))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            TABLE.drop(columns="whistler"),
            r"none of the species coqui, whistler \(2\), but owl \(1\)",
        ),
        (TABLE[["recording_id"]], "but none"),
        (TABLE[:2], r"lacks recordings x \(1\)"),
        (TABLE.assign(whistler=[0.1, 0.2, None]), "no finite number at recording x"),
        (pd.concat([TABLE, TABLE]), "recordings in two rows"),
    ],
)
def test_a_table_that_is_no_member_is_the_users_to_mend(table, message):
    with pytest.raises(UserError, match=message):
        member_from_table(table, ["x", "y"], FROGS, name="theirs")


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
    assert [one.name for one in members] == ["run 1", "run 2"]
    np.testing.assert_array_equal(members[1].scores, [[0.1, 0], [0.3, 0]])
    assert rows.recordings == ["a", "b"]
    members, rows = members_from_cells(runs, FROGS, merge=False)
    np.testing.assert_array_equal(members[1].scores[:, 0], [0.3, 0.1, 0.8])
    assert rows.truth[:, 0].tolist() == [True, False, False]


def test_runs_judged_on_other_cells_do_not_mix():
    runs = {"run 1": cells([0.9, 0.2, 0.4]), "run 2": cells([0.3, 0.1, 0.8])[:2]}
    with pytest.raises(UserError, match=r"run 2 and run 1 .* same cells \(2 and 3 rows\)"):
        members_from_cells(runs, FROGS)
    with pytest.raises(UserError, match="no run"):
        members_from_cells({}, FROGS)
