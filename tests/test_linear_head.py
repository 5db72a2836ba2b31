"""The linear head: equal to a logistic regression by scipy, and its errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from scipy.optimize import minimize

from antpitta.core.config import BackboneConfig, HeadConfig, Recipe, WindowConfig
from antpitta.core.errors import UserError
from antpitta.core.features import MelConfig
from antpitta.core.stages import LossConfig, MaskConfig, Stage
from antpitta.core.types import Annotation
from antpitta.model.head import box_step_shares
from antpitta.model.losses import CellTargets
from antpitta.model.network import SedNet
from antpitta.train.backbone_features import FeatureCache
from antpitta.train.data import TrainTask
from antpitta.train.linear_head import (
    BoxRows,
    add_weak_negatives,
    collect_box_rows,
    solve_linear_head,
)

FABRIC = Fabric(accelerator="cpu", devices=1)
STAGE = Stage(
    name="s",
    sample="known",
    optimizer="lbfgs",
    weight_decay=0.1,
    masks=MaskConfig(probability=0.0),
    loss=LossConfig(on="boxes", reduction="balanced"),
)
RECIPE = Recipe(
    name="t",
    description="t",
    features=MelConfig(
        sample_rate=8000, n_fft=256, hop_length=80, n_mels=32, fmin=50.0, fmax=4000.0, segment=2.0
    ),
    windows=WindowConfig(frames=64, overlap=0, inference_overlap=0),
    backbone=BackboneConfig(name="test_efficientnet", pretrained=False, frozen=True, reduction=8),
    head=HeadConfig(frequency_pooling="none", background_subtraction=1.0, smoothing_frames=48),
    stages=(STAGE,),
)
BOXES = [
    Annotation(f"r{i}", start, start + 0.3, "ab"[k], (i + k + round(start)) % 3 > 0)
    for i in range(6)
    for k, start in ((0, 0.1), (1, 0.2), (0, 1.0))
]


@pytest.fixture(scope="module")
def training_data(make_training_data):
    return make_training_data(RECIPE, [2.0] * 6, BOXES, species=("a", "b"))


def solve(training_data, stage=STAGE, train=range(6), results=None, **settings):
    torch.manual_seed(1)
    net = SedNet(RECIPE.backbone, RECIPE.head.model_copy(update=settings), 2, bands=32)
    features = FeatureCache().get(net, stage, training_data)
    task = TrainTask(stage, np.array(train), None, (1,), features)
    results = [] if results is None else results
    solve_linear_head(net, task, training_data, FABRIC, results.append)
    return net, features


def rows_by_hand(net, features, training_data):
    """Normalized features, present or absent, and class of every box in every window."""
    rows, present, columns = [], [], []
    windows = training_data.windows
    for window in range(len(windows)):
        segment, first = windows.segment[window], int(windows.start[window])
        for box in training_data.boxes[training_data.recording_index[segment]]:
            frames = training_data.grids[segment].overlapping_frames(box.start, box.stop)
            start, stop = max(frames.start - first, 0), min(frames.stop - first, 64)
            if start < stop:
                by_frame = features.store.gather(np.array([window]))[0].repeat_interleave(
                    net.stride, dim=1
                )
                rows.append(by_frame[:, start:stop].mean(dim=1))
                present.append(box.present)
                columns.append("ab".index(box.label))
    normalizer, normalized = net.head.normalizer, torch.stack(rows)
    if isinstance(normalizer, torch.nn.BatchNorm1d):
        deviation = (normalizer.running_var + normalizer.eps).sqrt()
        normalized = (normalized - normalizer.running_mean) / deviation
    return normalized.double().numpy(), np.array(present), np.array(columns)


@pytest.mark.parametrize("background", [1.0, 0.0])
def test_the_head_equals_a_logistic_regression(training_data, background):
    net, features = solve(training_data, background_subtraction=background)
    rows, present, column = rows_by_hand(net, features, training_data)
    weight = np.where(present, 1 / present.sum(), 1 / (~present).sum())
    has_bias = net.head.class_conv.bias is not None  # only with a normalizer

    def loss_and_gradient(flat):
        head = flat.reshape(2, -1)
        logit = (rows * head[column, :-1]).sum(axis=1) + head[column, -1]
        loss = (weight * np.logaddexp(0, np.where(present, -logit, logit))).sum()
        error = weight * (1 / (1 + np.exp(-logit)) - present)
        gradient = STAGE.weight_decay * np.concatenate([head[:, :-1], np.zeros((2, 1))], axis=1)
        for k in range(2):
            own = column == k
            gradient[k] += np.append(error[own] @ rows[own], has_bias * error[own].sum())
        penalty = np.square(head[:, :-1]).sum()
        return loss + STAGE.weight_decay / 2 * penalty, gradient.ravel()

    best = minimize(loss_and_gradient, np.zeros(2 * (rows.shape[1] + 1)), jac=True, tol=1e-10)
    bias = net.head.class_conv.bias.detach() if has_bias else torch.zeros(2)
    solution = np.concatenate([net.head.class_conv.weight.detach()[:, :, 0], bias[:, None]], axis=1)
    assert loss_and_gradient(solution.ravel())[0] == pytest.approx(best.fun, rel=1e-4)
    np.testing.assert_allclose(solution, best.x.reshape(2, -1), atol=5e-3)


def test_the_head_depends_on_its_training_recordings_only(training_data):
    results = []
    net, _ = solve(training_data, results=results)
    (result,) = results
    assert result.steps > 1
    assert 0 < result.loss < 2 * np.log(2)  # the loss of a head that is 0
    other, _ = solve(training_data, train=range(3))
    assert not torch.equal(net.head.class_conv.weight, other.head.class_conv.weight)


def test_equal_data_give_equal_heads(training_data):
    first, second = (solve(training_data)[0].head.class_conv.weight for _ in range(2))
    assert torch.equal(first, second)


def test_training_without_boxes_is_an_error(make_training_data):
    with pytest.raises(UserError) as error:
        solve(make_training_data(RECIPE, [2.0] * 6, [], species=("a", "b")))
    assert error.value.code == "E_NO_BOXES"


def test_features_that_change_between_epochs_are_an_error(training_data):
    masked = STAGE.model_copy(update={"masks": MaskConfig(probability=0.5)})
    with pytest.raises(UserError) as error:
        solve(training_data, masked)
    assert error.value.code == "E_SOLVER"


@pytest.mark.parametrize(
    "settings",
    [{"loss": {"on": "windows"}}, {"loss": {"on": "boxes"}, "pseudo": {"teacher": "x"}}],
)
def test_lbfgs_without_a_convex_loss_is_an_error(settings):
    with pytest.raises(ValueError, match="lbfgs"):
        Stage(name="s", optimizer="lbfgs", **settings)


def test_shares_of_steps_are_the_shares_of_a_box_in_them():
    box_spans = torch.tensor([[0, 4, 20], [0, 8, 16], [0, 0, 0]])
    expected = [[4 / 16, 8 / 16, 4 / 16], [0, 1, 0], [0, 0, 0]]
    torch.testing.assert_close(box_step_shares(box_spans, 3, 8), torch.tensor(expected))


def test_weak_negatives_are_boxes_of_others_and_windows_without_a_box():
    labels = CellTargets(
        torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 0]]),  # A, A, B; the last is absent A
        torch.tensor([[1.0, 0], [1, 0], [0, 1], [1, 0]]),
    )
    rows, means = torch.arange(4.0)[:, None], torch.tensor([[10.0], [11], [12]])
    boxes = BoxRows(rows, labels, torch.tensor([0, 0, 1, 1]), means, torch.ones(3))
    all_rows, targets = add_weak_negatives(boxes, 0.5)
    assert all_rows.flatten().tolist() == [0, 1, 2, 3, 10, 11, 12]
    positive, negative = targets.positive * 2, targets.negative * 2  # two species share the loss
    assert positive.T.tolist() == [[0.5, 0.5, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0]]
    # windows 0 and 1 have boxes of A, window 1 one of B
    assert negative.T.tolist() == [[0, 0, 0.5, 1, 0, 0, 0.5], [0.25, 0.25, 0, 0, 0.25, 0, 0.25]]


def test_box_in_silence_stays_and_a_window_of_padding_is_no_weak_negative(training_data):
    _, features = solve(training_data)
    complete = collect_box_rows(features, training_data, np.arange(6))
    count, total = features.sums.count.clone(), features.sums.total.clone()
    count[0], total[0] = 0, 0
    silent = replace(features, sums=replace(features.sums, count=count, total=total))
    boxes = collect_box_rows(silent, training_data, np.arange(6))
    assert (boxes.window == 0).any()  # the window has boxes
    assert torch.equal(boxes.rows, complete.rows)
    unknown = CellTargets(boxes.labels.value, torch.zeros_like(boxes.labels.weight))
    _, targets = add_weak_negatives(replace(boxes, labels=unknown), 1.0)
    negative = targets.negative[len(boxes.rows) :]
    assert torch.equal((negative > 0).all(dim=1), count > 0)


def test_head_with_weak_targets_depends_on_its_training_recordings_only(make_training_data):
    weak = STAGE.model_copy(
        update={"loss": LossConfig(on="boxes", reduction="balanced", weak_negatives=1.0)}
    )
    unjudged = [box for box in BOXES if box.recording != "r5"]
    data = make_training_data(RECIPE, [2.0] * 6, unjudged, species=("a", "b"))
    head, again, fewer = (
        solve(data, weak, train)[0].head.class_conv.weight
        for train in (range(6), range(6), range(5))
    )
    assert torch.equal(head, again)
    assert not torch.equal(head, fewer)  # r5 has no box, but weak targets
    other = make_training_data(RECIPE, [2.0] * 6, BOXES, species=("a", "b"))
    assert torch.equal(solve(other, weak, range(5))[0].head.class_conv.weight, fewer)
    plain, few = (solve(data, stage, range(2))[0] for stage in (STAGE, weak))
    assert not torch.equal(plain.head.class_conv.weight, few.head.class_conv.weight)  # of others
