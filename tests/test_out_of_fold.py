"""Folds: what they never split, and that each gets its share of every species."""

from pathlib import Path

import numpy as np
import pytest

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation, Classes, Dataset, Recording
from antpitta.train.out_of_fold import assign_folds, group_recordings

CLASSES = Classes(("a", "b", "c"))


def make_dataset(sites, boxes=()):
    recordings = tuple(
        Recording(f"r{i}", Path(f"r{i}.wav"), 8000, 8000, site=site) for i, site in enumerate(sites)
    )
    annotations = tuple(
        Annotation(f"r{i}", 0.0, 1.0, label, present) for i, label, present in boxes
    )
    return Dataset(recordings, annotations, CLASSES)


def test_a_site_is_never_split():
    rng = np.random.default_rng(0)
    sites = [f"s{k}" for k in rng.integers(0, 12, 90)]
    boxes = [(i, "abc"[int(rng.integers(3))], bool(rng.integers(2))) for i in range(90)]
    dataset = make_dataset(sites, boxes)
    folds = assign_folds(dataset, 4, seed=1)
    assert set(folds) == {0, 1, 2, 3}
    for site in set(sites):
        assert len({fold for fold, own in zip(folds, sites, strict=True) if own == site}) == 1


def test_recordings_without_a_site_are_groups_of_their_own():
    sites = ["s0"] * 5 + ["s1"] * 5 + [None] * 10
    dataset = make_dataset(sites)
    assert len(set(group_recordings(dataset, 2))) == 12
    folds = assign_folds(dataset, 2, seed=1)
    assert len(set(folds[:5])) == len(set(folds[5:10])) == 1


def test_every_recording_has_one_fold_whatever_its_boxes():
    boxes = [(i, label, present) for i in range(20) for label in "abc" for present in (True, False)]
    folds = assign_folds(make_dataset([None] * 20, boxes), 5, seed=1)
    assert folds.shape == (20,)
    assert np.bincount(folds).tolist() == [4] * 5


def test_every_fold_gets_its_share_of_present_and_absent_boxes():
    present = {"a": range(10), "b": range(10, 15), "c": range(50, 90)}
    absent = {"a": range(20, 50), "b": range(60, 80), "c": range(5)}
    boxes = [(i, label, True) for label, rows in present.items() for i in rows]
    boxes += [(i, label, False) for label, rows in absent.items() for i in rows]
    for seed in range(5):
        folds = assign_folds(make_dataset([None] * 100, boxes), 5, seed=seed)
        for table in (present, absent):
            for rows in table.values():
                shares = np.bincount(folds[list(rows)], minlength=5)
                assert shares.min() >= 0.6 * len(rows) / 5
                assert shares.max() <= 1.6 * len(rows) / 5


def test_fewer_sites_than_folds_are_split():
    sites = ["s0"] * 10 + ["s1"] * 10
    assert set(assign_folds(make_dataset(sites), 5, seed=1)) == set(range(5))
    assert len(set(group_recordings(make_dataset(sites), 5))) == 20


def test_fewer_recordings_than_folds_are_an_error():
    with pytest.raises(UserError) as error:
        assign_folds(make_dataset([None] * 3), 5, seed=1)
    assert error.value.code == "E_FEW_RECORDINGS"


@pytest.mark.parametrize("count", [5, 6, 7])
def test_every_fold_gets_recordings_without_any_labels(count):
    for seed in range(5):
        assert set(assign_folds(make_dataset([None] * count), 5, seed=seed)) == set(range(5))


def test_equal_seeds_give_equal_folds_and_other_seeds_others():
    dataset = make_dataset([None] * 60, [(i, "abc"[i % 3], True) for i in range(60)])
    np.testing.assert_array_equal(
        assign_folds(dataset, 5, seed=1), assign_folds(dataset, 5, seed=1)
    )
    assert (assign_folds(dataset, 5, seed=1) != assign_folds(dataset, 5, seed=2)).any()
