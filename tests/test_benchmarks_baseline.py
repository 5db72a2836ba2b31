"""The baseline: figures computed again with scikit-learn, and the windows it embeds."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score
from sklearn.preprocessing import StandardScaler

import antpitta as ap
from antpitta.api.data import SILENT
from antpitta.core.errors import UserError
from antpitta.core.features import EmbeddingConfig
from antpitta.core.types import Classes, Dataset
from antpitta.train.out_of_fold import assign_folds
from benchmarks.baseline import (
    EmbeddingWindows,
    embed_windows,
    evaluate_baseline,
    evaluate_zero_shot,
    open_embedding_windows,
)
from benchmarks.test_set import read_test_set


@pytest.fixture(scope="module")
def dataset(simulated):
    return ap.open_data(simulated).dataset


@pytest.fixture(scope="module")
def test_set(simulated, dataset):
    return read_test_set([simulated / "test"], simulated / "test_truth.csv", None, dataset)


def fake_windows(dataset):
    """Embeddings that depend on recording and time; and the starts that were asked for."""
    asked = {}
    index = {recording.id: i for i, recording in enumerate(dataset.recordings)}

    def embed(recordings, starts, progress):
        embeddings = []
        for recording, times in zip(recordings, starts, strict=True):
            asked[recording.id] = list(times)
            number = index.get(recording.id, int(recording.id[-1]) + 50)
            rows = [[np.sin(number), np.cos(1.7 * number + time), time] for time in times]
            embeddings.append(np.array(rows, np.float32).reshape(len(times), 3))
            progress(len(embeddings), len(recordings), float("nan"))
        return embeddings

    return EmbeddingWindows(3.0, embed), asked


def fit(rows):
    """scikit-learn's own regression on rows (recording, species, present, embedding)."""
    scaler = StandardScaler().fit([row[3] for row in rows])
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit(scaler.transform([row[3] for row in rows]), [row[2] for row in rows])
    return lambda value: model.predict_proba(scaler.transform(value))[:, 1]


def test_baseline_is_one_logistic_regression_per_species(simulated, dataset, test_set):
    windows, asked = fake_windows(dataset)
    rows = evaluate_baseline(dataset, test_set, windows, 2, SILENT)
    assert [row["seed"] for row in rows] == [1, 2]
    assert rows[0]["lwlrap"] == rows[1]["lwlrap"]
    assert asked["test0000"] == [0, 1, 2, 3, 4, 5]  # 3 s every second of 8 s
    embeddings = {
        recording.id: windows.embed([recording], [asked[recording.id]], lambda *_: None)[0]
        for recording in (*dataset.recordings, *test_set.recordings)
    }
    boxes = []
    for recording in dataset.recordings:
        own = [box for box in dataset.annotations if box.recording == recording.id]
        for i, box in enumerate(own):
            start = min(max((box.start + box.stop) / 2 - 1.5, 0), 5)
            assert asked[recording.id][i] == pytest.approx(start)
            boxes.append((recording.id, box.label, box.present, embeddings[recording.id][i]))

    truth = pd.read_csv(simulated / "test_truth.csv").set_index("recording_id")
    models = {name: fit([box for box in boxes if box[1] == name]) for name in truth.columns}
    scores = np.array(
        [[model(embeddings[i]).max() for model in models.values()] for i in truth.index]
    )
    present = truth.to_numpy()
    assert rows[0]["lwlrap"] == pytest.approx(
        label_ranking_average_precision_score(present, scores, sample_weight=present.sum(axis=1))
    )
    macro_ap = [
        average_precision_score(present[:, k], scores[:, k])
        for k in range(present.shape[1])
        if 0 < present[:, k].sum() < len(present)
    ]
    assert rows[0]["macro_ap"] == pytest.approx(np.mean(macro_ap))

    ids = [recording.id for recording in dataset.recordings]
    folds = dict(zip(ids, assign_folds(dataset, 3, 1), strict=True))
    per_species = []
    for name in dataset.classes.names:
        own = [box for box in boxes if box[1] == name]
        out_of_fold = []
        for box in own:
            others = [other for other in own if folds[other[0]] != folds[box[0]]]
            both = len({other[2] for other in others}) == 2
            out_of_fold.append(fit(others)([box[3]])[0] if both else 0.5)
        per_species.append(average_precision_score([box[2] for box in own], out_of_fold))
    assert rows[0]["oof_ap"] == pytest.approx(np.mean(per_species))


def test_zero_shot_baseline_uses_the_models_own_logits(dataset, test_set):
    table = test_set.truth.set_index("recording_id").astype(int)
    truth = table.to_numpy()
    count = len(dataset.classes)

    def embed(recordings, starts, progress):
        """Two numbers, then logits: the truth in the last window, and 5 of the last species."""
        values = []
        for recording, times in zip(recordings, starts, strict=True):
            rows = np.full((len(times), 2 + count), -9, dtype=np.float32)
            if recording.id in table.index:
                rows[-1, 2:] += 8 * table.loc[recording.id].to_numpy(dtype=np.float32)
                rows[0, -1] = 5
            values.append(rows)
        return values

    class_map = tuple((column,) for column in range(count))
    rows = evaluate_zero_shot(
        dataset, test_set, EmbeddingWindows(3.0, embed, (*class_map[:-1], ())), 2, SILENT
    )
    assert [row["seed"] for row in rows] == [1, 2]
    assert rows[0]["oof_auc"] == 0.5
    assert 0 < truth[:, -1].sum() < len(truth)
    # A species that the model lacks is last in each recording, with equal scores everywhere.
    value = np.where(truth, 0.27, 0.0)
    value[:, -1] = -1
    expected = label_ranking_average_precision_score(truth, value, sample_weight=truth.sum(axis=1))
    assert rows[0]["lwlrap"] == pytest.approx(expected)
    least = average_precision_score(truth[:, -1], np.zeros(len(truth)))
    perfect = sum(0 < column.sum() < len(truth) for column in truth[:, :-1].T)
    assert rows[0]["macro_ap"] == pytest.approx((perfect + least) / (perfect + 1))
    # With that class, its high first window makes it first in every recording.
    loud = evaluate_zero_shot(dataset, test_set, EmbeddingWindows(3.0, embed, class_map), 1, SILENT)
    value[:, -1] = 1
    expected = label_ranking_average_precision_score(truth, value, sample_weight=truth.sum(axis=1))
    assert loud[0]["lwlrap"] == pytest.approx(expected)


def test_embeddings_are_cached_by_their_windows(simulated, dataset):
    asked = []

    def compute(wave, frames):
        asked.append((len(wave), frames))
        return np.array([[wave.std(), len(asked)]], dtype=np.float16)

    config = EmbeddingConfig(model="x.onnx", sample_rate=16_000, seconds=2.0, model_digest="abc")
    model = SimpleNamespace(embedding=config, width=2, embed=compute)
    starts = [np.array([0.0, 6.0]), np.array([])]
    first = embed_windows(model, dataset.recordings[:2], starts, lambda *_: None)
    assert asked == [(32_000, 1)] * 2
    assert [value.shape for value in first] == [(2, 2), (0, 2)]
    cached = embed_windows(model, dataset.recordings[:2], starts, lambda *_: None)
    assert len(asked) == 2
    np.testing.assert_array_equal(first[0], cached[0])
    embed_windows(model, dataset.recordings[:1], [np.array([1.0, 6.0])], lambda *_: None)
    assert len(asked) == 4  # other windows are not mistaken for these


def test_missing_model_is_refused(monkeypatch):
    monkeypatch.delenv("ANTPITTA_EMBEDDING", raising=False)
    with pytest.raises(UserError, match=r"nowhere\.onnx"):
        open_embedding_windows("nowhere.onnx", Dataset((), (), Classes(())))
