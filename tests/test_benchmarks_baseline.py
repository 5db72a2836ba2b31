"""Baselines: an embedding model's own classes, judged like the models of antpitta."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score

import antpitta as ap
from antpitta.core.progress import Progress
from benchmarks.baseline import EmbeddingWindows, evaluate_zero_shot
from benchmarks.test_set import read_test_set

SILENT = Progress(lambda text: None, lambda *update: None)


def test_embedding_model_is_judged_by_its_own_logits(scapes):
    data = ap.open_data(scapes).dataset
    test_set = read_test_set([scapes / "test"], scapes / "test_truth.csv", None, data)
    table = test_set.truth.set_index("recording_id").astype(int)
    truth = table.to_numpy()
    count = len(data.classes)

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
        data, test_set, EmbeddingWindows(3.0, embed, (*class_map[:-1], ())), 2, SILENT
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
    loud = evaluate_zero_shot(data, test_set, EmbeddingWindows(3.0, embed, class_map), 1, SILENT)
    value[:, -1] = 1
    expected = label_ranking_average_precision_score(truth, value, sample_weight=truth.sum(axis=1))
    assert loud[0]["lwlrap"] == pytest.approx(expected)
