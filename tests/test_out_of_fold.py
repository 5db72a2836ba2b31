"""Folds: what is never split, and that every fold gets its share."""

from pathlib import Path

import numpy as np
import pytest

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation, Classes, Dataset, Recording
from antpitta.train.out_of_fold import assign_folds, group_recordings

CLASSES = Classes(("a", "b", "c"))


def dataset(sites, boxes=()):
    recordings = tuple(
        Recording(f"r{i}", Path(f"r{i}.wav"), 8000, 8000, site=site) for i, site in enumerate(sites)
    )
    annotations = tuple(Annotation(f"r{i}", 0.0, 1.0, label, there) for i, label, there in boxes)
    return Dataset(recordings, annotations, CLASSES)


def test_a_site_is_never_split():
    rng = np.random.default_rng(0)
    sites = [f"s{k}" for k in rng.integers(0, 12, 90)]
    boxes = [(i, "abc"[int(rng.integers(3))], bool(rng.integers(2))) for i in range(90)]
    data = dataset(sites, boxes)
    folds = assign_folds(data, 4, seed=1)
    assert set(folds) == {0, 1, 2, 3}
    for site in set(sites):
        assert len({fold for fold, its in zip(folds, sites, strict=True) if its == site}) == 1


def test_recordings_without_a_site_are_dealt_by_themselves_beside_sites():
    sites = ["s0"] * 5 + ["s1"] * 5 + [None] * 10
    data = dataset(sites)
    assert len(set(group_recordings(data, 2))) == 12
    folds = assign_folds(data, 2, seed=1)
    assert len(set(folds[:5])) == len(set(folds[5:10])) == 1


def test_one_fold_for_each_recording_whatever_was_said_of_it():
    boxes = [(i, label, there) for i in range(20) for label in "abc" for there in (True, False)]
    folds = assign_folds(dataset([None] * 20, boxes), 5, seed=1)
    assert folds.shape == (20,)
    assert np.bincount(folds).tolist() == [4] * 5


def test_every_fold_gets_its_share_of_presents_and_absents():
    present = {"a": range(10), "b": range(10, 15), "c": range(50, 90)}
    absent = {"a": range(20, 50), "b": range(60, 80), "c": range(5)}
    boxes = [(i, label, True) for label, rows in present.items() for i in rows]
    boxes += [(i, label, False) for label, rows in absent.items() for i in rows]
    for seed in range(5):
        folds = assign_folds(dataset([None] * 100, boxes), 5, seed=seed)
        for table in (present, absent):
            for rows in table.values():
                shares = np.bincount(folds[list(rows)], minlength=5)
                assert shares.min() >= 0.6 * len(rows) / 5
                assert shares.max() <= 1.6 * len(rows) / 5


def test_fewer_sites_than_folds_are_split_by_recording():
    sites = ["s0"] * 10 + ["s1"] * 10
    assert set(assign_folds(dataset(sites), 5, seed=1)) == set(range(5))
    assert len(set(group_recordings(dataset(sites), 5))) == 20


def test_too_few_recordings_are_the_users_mistake():
    with pytest.raises(UserError, match="3 recordings cannot be dealt to 5 folds"):
        assign_folds(dataset([None] * 3), 5, seed=1)


@pytest.mark.parametrize("count", [5, 6, 7])
def test_a_handful_without_labels_is_dealt_to_every_fold(count):
    for seed in range(5):
        assert set(assign_folds(dataset([None] * count), 5, seed=seed)) == set(range(5))


def test_equal_seeds_deal_alike_and_others_do_not():
    data = dataset([None] * 60, [(i, "abc"[i % 3], True) for i in range(60)])
    np.testing.assert_array_equal(assign_folds(data, 5, seed=1), assign_folds(data, 5, seed=1))
    assert (assign_folds(data, 5, seed=1) != assign_folds(data, 5, seed=2)).any()
