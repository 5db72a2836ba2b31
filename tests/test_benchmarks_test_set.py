"""The test set of a benchmark: what does not fit is refused, blanks are unknown."""

import shutil

import pandas as pd
import pytest

import antpitta as ap
from antpitta.core.errors import UserError
from antpitta.core.types import Classes
from benchmarks.test_set import read_test_set, read_truth


@pytest.fixture(scope="module")
def dataset(simulated):
    return ap.open_data(simulated).dataset


@pytest.mark.parametrize(
    ("change", "value"),
    [
        (lambda truth: truth.rename(columns={"recording_id": "id"}), "recording_id"),
        (lambda truth: truth.assign(s99=1), "s99"),
        (lambda truth: truth.drop(columns=["s2", "s5"]), r"s2, s5 \(2\)"),
        (lambda truth: truth.replace({"recording_id": {"test0001": "x"}}), r"x \(1\)"),
    ],
)
def test_truth_that_does_not_fit_is_refused(simulated, dataset, tmp_path, change, value):
    path = tmp_path / "truth.csv"
    change(pd.read_csv(simulated / "test_truth.csv")).to_csv(path, index=False)
    with pytest.raises(UserError, match=value) as error:
        read_test_set([simulated / "test"], path, None, dataset)
    assert error.value.code == "E_TEST_SET_TRUTH"


def test_value_other_than_0_and_1_is_refused(simulated, dataset, tmp_path):
    path = tmp_path / "truth.csv"
    pd.read_csv(simulated / "test_truth.csv").assign(s3="yes").to_csv(path, index=False)
    with pytest.raises(UserError, match="yes"):
        read_test_set([simulated / "test"], path, None, dataset)


def test_blank_is_unknown_and_a_recording_without_truth_is_noted(simulated, dataset, tmp_path):
    path = tmp_path / "truth.csv"
    truth = pd.read_csv(simulated / "test_truth.csv").iloc[1:].astype({"s0": object})
    truth.iloc[0, 1] = ""
    truth.to_csv(path, index=False)
    test_set = read_test_set([simulated / "test"], path, None, dataset)
    assert [note.split()[0] for note in test_set.notes] == ["1"]
    scores = truth.assign(**dict.fromkeys(test_set.classes.names, 0.5))
    assert test_set.evaluate(scores, "flat").cells == 3 * 8 - 1


def test_training_recording_under_another_name_is_refused(simulated, dataset, tmp_path):
    shutil.copytree(simulated / "test", tmp_path / "test")
    shutil.copy(simulated / "train" / "train0000.flac", tmp_path / "test" / "renamed.flac")
    with pytest.raises(UserError, match="renamed") as error:
        read_test_set([tmp_path / "test"], simulated / "test_truth.csv", None, dataset)
    assert error.value.code == "E_TEST_SET_TRAINED_ON"


def test_events_of_other_recordings_are_refused(simulated, dataset):
    truth, events = simulated / "test_truth.csv", simulated / "train_events.csv"
    with pytest.raises(UserError, match=r"train_events\.csv") as error:
        read_test_set([simulated / "test"], truth, events, dataset)
    assert error.value.code == "E_TEST_SET_TRUTH"


def test_columns_of_the_truth_have_the_order_of_the_classes(tmp_path):
    (tmp_path / "t.csv").write_text("b,recording_id,a\n1,r0,\n")
    table = read_truth(tmp_path / "t.csv", Classes(("a", "b")))
    assert list(table.columns) == ["recording_id", "a", "b"]
    assert table["a"].isna().all()
