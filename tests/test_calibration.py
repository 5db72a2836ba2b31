"""The levels of species: one shift for each, in the scores and in the weights."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Annotation, Classes, Dataset, Recording, Scores
from antpitta.files.own_files import load_tensors, save_tensors
from antpitta.train.calibration import SHIFT, calibrate

CLASSES = Classes(("a", "b"))


@pytest.fixture
def dataset(tmp_path):
    recordings = [Recording(f"r{i}", tmp_path / f"r{i}.wav", 8000, 80_000) for i in range(20)]
    boxes = [Annotation(f"r{i}", 0, 1, label) for i in range(4) for label in "ab"]
    return Dataset(tuple(recordings), tuple(boxes), CLASSES)


def scores_of(logits):
    """Scores of recordings from logits (recordings, frames, classes)."""
    return [
        Scores(f"r{i}", TimeGrid(1.0, len(own)), CLASSES, expit(own).astype(np.float32), "m")
        for i, own in enumerate(logits)
    ]


def test_scores_and_weights_get_the_same_shift(dataset, tmp_path):
    logits = np.random.default_rng(0).normal([-6.0, 2.0], 1.0, (20, 5, 2))
    path = tmp_path / "fold0.safetensors"
    save_tensors({SHIFT: torch.full((2,), 7.0), "other": torch.ones(1)}, path, {"stage": "s"})
    shifted = calibrate(scores_of(logits), dataset, [path])
    state, metadata = load_tensors(path)
    assert metadata["stage"] == "s"
    assert torch.equal(state["other"], torch.ones(1))
    for score, own in zip(shifted, logits, strict=True):
        moved = logit(score.value.astype(float)) - own
        np.testing.assert_allclose(moved, state[SHIFT].numpy()[None].repeat(5, 0), atol=1e-3)
    highest = logits.max(axis=1) + 2 * state[SHIFT].numpy()
    means = expit(highest).mean(axis=0)  # too few boxes for prevalences: half way to one mean
    assert means[0] == pytest.approx(means[1], rel=1e-2)


def test_scores_of_exactly_one_and_zero_have_finite_shifts(dataset, tmp_path):
    path = tmp_path / "fold0.safetensors"
    save_tensors({SHIFT: torch.zeros(2)}, path)
    logits = np.zeros((20, 3, 2))
    logits[..., 0], logits[:10, :, 1] = 60.0, -200.0
    shifted = calibrate(scores_of(logits), dataset, [path])
    assert torch.isfinite(load_tensors(path)[0][SHIFT]).all()
    assert all(np.isfinite(score.value).all() for score in shifted)
