"""Weak targets: the highest moments of windows, their rows of features, and their probabilities."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from antpitta.core.config import HeadConfig
from antpitta.core.types import Annotation, Classes, Targets
from antpitta.model.head import SedHead
from antpitta.model.normalizer import StepSums
from antpitta.scores.prevalence import estimate_prevalence, posterior_shifts
from antpitta.train.weak_targets import SHARPNESS, WEIGHT, compute_weak_targets, find_peak_rows

CLASSES = Classes(("a", "b", "c"))


@pytest.fixture
def head():
    torch.manual_seed(0)
    config = HeadConfig(smoothing_frames=(1, 3, 4), zero_shot_weight=0.7)
    head = SedHead(config, 5 + 3, 3, stride=1, is_embedding=True, has_zero_shot=True)
    head.fit_normalizer(StepSums.of(torch.randn(4, 8, 9)))
    return head.eval()


def test_row_of_a_peak_gives_its_logit(head):
    features = torch.randn(8, 12)
    rows, logits = find_peak_rows(head, features)
    assert rows.shape == (3, 8)
    framewise = head(features[None]).framewise[0]
    torch.testing.assert_close(logits, framewise.amax(dim=0))
    torch.testing.assert_close(head.classify_rows_of_classes(rows[:, None])[:, 0], logits)
    step = int(framewise[:, 0].argmax())
    torch.testing.assert_close(rows[0], features[:, step])  # not smoothed
    middle = int(framewise[:, 1].argmax())
    near = features[:, max(0, middle - 1) : middle + 2]
    torch.testing.assert_close(rows[1], near.mean(dim=1))


def test_padding_is_no_peak(head):
    features = torch.randn(8, 12)
    padded = torch.cat([features, torch.zeros(8, 5)], dim=1)
    for own, other in zip(
        find_peak_rows(head, features), find_peak_rows(head, padded), strict=True
    ):
        torch.testing.assert_close(own, other)


def test_rows_of_classes_have_the_logits_of_plain_rows(head):
    rows = torch.randn(3, 6, 8)
    plain = torch.stack([head.classify_rows(own)[:, k] for k, own in enumerate(rows)])
    torch.testing.assert_close(head.classify_rows_of_classes(rows), plain)


def windows_of(boxes, recordings):
    """As many windows of one recording each, and what the boxes say about them."""
    weight = np.zeros((recordings, 3))
    for box in boxes:
        weight[int(box.recording[1:]), CLASSES.columns(box.label)] = 1
    dataset = SimpleNamespace(
        recordings=[SimpleNamespace(id=f"r{i}") for i in range(recordings)],
        annotations=boxes,
        classes=CLASSES,
    )
    return SimpleNamespace(
        dataset=dataset,
        boxes=[[box for box in boxes if box.recording == f"r{i}"] for i in range(recordings)],
        recording_index=np.arange(recordings),
        windows=SimpleNamespace(segment=np.arange(recordings)),
        labels=Targets(np.zeros_like(weight), weight),
    )


def test_weak_targets_are_for_windows_without_a_box_of_the_class():
    boxes = [
        Annotation("r0", 0, 1, "a", True),
        Annotation("r1", 0, 1, "a", False),
        Annotation("r2", 0, 1, "b", True),
    ]
    logits = np.random.default_rng(1).normal(size=(8, 3))
    targets = compute_weak_targets(logits, np.arange(8), windows_of(boxes, 8), weight=0.5)
    weight = targets.weight.numpy() * 3 / (WEIGHT * 0.5)
    np.testing.assert_allclose(weight[:, 0], [0, 0, *[1 / 6] * 6], rtol=1e-6)
    np.testing.assert_allclose(weight[:, 1], [1 / 7, 1 / 7, 0, *[1 / 7] * 5], rtol=1e-6)
    np.testing.assert_allclose(weight[:, 2], [1 / 8] * 8, rtol=1e-6)
    # few boxes: a and b lie in one of eight recordings each, which holds for all species
    posterior = expit(logit(targets.value.numpy()) / SHARPNESS)
    np.testing.assert_allclose(posterior.mean(axis=0), [1 / 8] * 3, rtol=1e-4)
    assert (posterior.argsort(axis=0) == logits.argsort(axis=0)).all()


def test_weak_targets_follow_the_prevalence_where_boxes_are_enough():
    rng = np.random.default_rng(0)
    present = rng.random((200, 3)) < [0.05, 0.3, 0.8]
    logits = np.where(present, 2.0, -2.0) + rng.normal(size=(200, 3))
    boxes = [
        Annotation(f"r{i}", 0, 1, "abc"[k], True)
        for k in range(3)
        for i in np.flatnonzero(present[:, k])[:10]
    ]
    targets = compute_weak_targets(logits, np.arange(200), windows_of(boxes, 200), weight=1.0)
    assert (targets.value.numpy() > 0.5).mean(axis=0) == pytest.approx([0.05, 0.3, 0.8], abs=0.15)
    names, few = [f"r{i}" for i in range(200)], boxes[::10]
    shifts = posterior_shifts(expit(logits), names, few, CLASSES, supported=False)
    assert expit(logits + shifts).mean(axis=0) == pytest.approx([1 / 200] * 3)


def test_part_of_enough_boxes_is_enough():
    rng = np.random.default_rng(0)
    scores, names = rng.random((50, 3)), [f"r{i}" for i in range(50)]
    part = [Annotation(f"r{i}", 0, 1, label, True) for i in range(8) for label in "abc"]
    shifts = posterior_shifts(scores, names, part, CLASSES, supported=True)
    expected = logit(estimate_prevalence(scores, names, part, CLASSES))
    np.testing.assert_allclose(shifts, expected)
