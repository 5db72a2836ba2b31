"""The linear head: the same as a plain regression, its whitening, and what cannot be solved."""

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
from antpitta.model.network import SedNet
from antpitta.train.data import FeatureCache, TrainTask
from antpitta.train.linear_head import WithinClassWhitening, solve_linear_head

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


def solved(training_data, stage=STAGE, train=range(6), results=None, **settings):
    torch.manual_seed(1)
    net = SedNet(RECIPE.backbone, RECIPE.head.model_copy(update=settings), 2, bands=32)
    features_of = FeatureCache().get(net, stage, training_data)
    task = TrainTask(stage, np.array(train), None, (1,), features_of)
    solve_linear_head(
        net, task, training_data, FABRIC, (results if results is not None else []).append
    )
    return net, features_of


def rows_of(net, features_of, training_data):
    """Features, levelled, and label of every box in every window it touches, by hand."""
    rows, labels, classes = [], [], []
    for window in range(len(training_data.windows)):
        image, first = (
            training_data.windows.segment[window],
            int(training_data.windows.start[window]),
        )
        for box in training_data.boxes[training_data.recording_index[image]]:
            touched = training_data.grids[image].overlapping_frames(box.start, box.stop)
            span = max(touched.start - first, 0), min(touched.stop - first, 64)
            if span[0] < span[1]:
                frames = features_of[window].float().repeat_interleave(net.stride, dim=1)
                rows.append(frames[:, span[0] : span[1]].mean(dim=1))
                labels.append(box.present)
                classes.append("ab".index(box.label))
    level, features = net.head.normalizer, torch.stack(rows)
    if isinstance(level, torch.nn.BatchNorm1d):
        features = (features - level.running_mean) / (level.running_var + level.eps).sqrt()
    return features.double().numpy(), np.array(labels), np.array(classes)


@pytest.mark.parametrize(("whitening", "background"), [(0.0, 1.0), (0.3, 1.0), (0.3, 0.0)])
def test_the_head_is_that_of_a_plain_regression(training_data, whitening, background):
    net, features_of = solved(
        training_data, within_class_whitening=whitening, background_subtraction=background
    )
    features, present, column = rows_of(net, features_of, training_data)
    metric = np.eye(features.shape[1])
    if whitening:
        apart = [features[present & (column == k)] for k in range(2)]
        apart = np.concatenate([own - own.mean(axis=0) for own in apart])
        apart = apart.T @ apart
        metric = (1 - whitening) * metric + whitening * apart / np.diag(apart).mean()
    weight = np.where(present, 1 / present.sum(), 1 / (~present).sum())
    biased = net.head.class_conv.bias is not None  # without a level there is none

    def value(flat):
        head = flat.reshape(2, -1)
        logit = (features * head[column, :-1]).sum(axis=1) + head[column, -1]
        loss = (weight * np.logaddexp(0, np.where(present, -logit, logit))).sum()
        error = weight * (1 / (1 + np.exp(-logit)) - present)
        slope = STAGE.weight_decay * np.concatenate(
            [head[:, :-1] @ metric, np.zeros((2, 1))], axis=1
        )
        for k in range(2):
            mine = column == k
            slope[k] += np.append(error[mine] @ features[mine], biased * error[mine].sum())
        size = (head[:, :-1] @ metric * head[:, :-1]).sum()
        return loss + STAGE.weight_decay / 2 * size, slope.ravel()

    best = minimize(value, np.zeros(2 * (features.shape[1] + 1)), jac=True, tol=1e-10)
    bias = net.head.class_conv.bias.detach() if biased else torch.zeros(2)
    mine = np.concatenate([net.head.class_conv.weight.detach()[:, :, 0], bias[:, None]], axis=1)
    assert value(mine.ravel())[0] == pytest.approx(best.fun, rel=1e-4)
    np.testing.assert_allclose(mine, best.x.reshape(2, -1), atol=5e-3)


def test_the_head_depends_on_its_training_recordings_only(training_data):
    epochs = []
    net, _ = solved(training_data, results=epochs)
    (progress,) = epochs
    assert progress.steps > 1
    assert 0 < progress.loss < 2 * np.log(2)  # what no head at all would lose
    other, _ = solved(training_data, train=range(3))
    assert not torch.equal(net.head.class_conv.weight, other.head.class_conv.weight)


def test_equal_data_give_equal_heads(training_data):
    one, two = solved(training_data)[0], solved(training_data)[0]
    assert torch.equal(one.head.class_conv.weight, two.head.class_conv.weight)


def test_without_boxes_or_fixed_features_is_an_error(training_data, make_training_data):
    with pytest.raises(UserError) as error:
        solved(make_training_data(RECIPE, [2.0] * 6, [], species=("a", "b")))
    assert error.value.code == "E_NO_BOXES"
    masked = STAGE.model_copy(update={"masks": MaskConfig(probability=0.5)})
    with pytest.raises(UserError) as error:
        solved(training_data, masked)
    assert error.value.code == "E_SOLVER"


@pytest.mark.parametrize(
    "settings",
    [{"loss": {"on": "windows"}}, {"loss": {"on": "boxes"}, "pseudo": {"teacher": "x"}}],
)
def test_lbfgs_without_a_convex_loss_is_refused(settings):
    with pytest.raises(ValueError, match="lbfgs"):
        Stage(name="s", optimizer="lbfgs", **settings)


def test_a_span_covers_its_steps_by_their_share():
    focus = torch.tensor([[0, 4, 20], [0, 8, 16], [0, 0, 0]])
    expected = [[4 / 16, 8 / 16, 4 / 16], [0, 1, 0], [0, 0, 0]]
    torch.testing.assert_close(box_step_shares(focus, 3, 8), torch.tensor(expected))


# ---- whitening

PRESENT = torch.tensor([[True, False]] * 5 + [[False, True]] * 4 + [[False, False]] * 3)


@pytest.fixture
def rows():
    return torch.randn(12, 20, generator=torch.Generator().manual_seed(0))


def test_whitening_multiplies_by_the_root_of_the_mixed_covariance(rows):
    metric = WithinClassWhitening.from_boxes(rows, PRESENT, 0.4)
    apart = torch.cat([rows[own] - rows[own].mean(dim=0) for own in PRESENT.T])
    covariance = apart.T @ apart
    mixed = 0.4 * covariance / covariance.diagonal().mean() + 0.6 * torch.eye(20)
    size, basis = torch.linalg.eigh(mixed)
    weight = torch.randn(2, 20, 1, generator=torch.Generator().manual_seed(1))
    expected = weight[:, :, 0] @ (basis * size.rsqrt()) @ basis.T
    torch.testing.assert_close(metric.apply(weight)[:, :, 0], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(metric.invert(metric.apply(weight)), weight, atol=1e-5, rtol=1e-4)


def test_inputs_that_differ_within_a_species_get_smaller_weights(rows):
    rows[:, 3] = 0
    rows[:9, 3] = torch.tensor([5.0] * 5 + [-5.0] * 4)  # differs between species only
    rows[:, 4] *= 9
    scaled = WithinClassWhitening.from_boxes(rows, PRESENT, 0.4).apply(torch.eye(20)[:, :, None])[
        :, :, 0
    ]
    assert scaled[4, 4] < scaled[3, 3] / 2


def test_unused_inputs_change_nothing(rows):
    wide = torch.cat([rows, torch.zeros(12, 30)], dim=1)
    one, other = (
        WithinClassWhitening.from_boxes(rows, PRESENT, 0.4),
        WithinClassWhitening.from_boxes(wide, PRESENT, 0.4),
    )
    torch.testing.assert_close(one.factor, other.factor)
    assert not other.basis[20:].any()


def test_boxes_that_do_not_differ_have_no_whitening(rows):
    assert WithinClassWhitening.from_boxes(rows[:0], PRESENT[:0], 0.4) is None
    assert WithinClassWhitening.from_boxes(rows, PRESENT & False, 0.4) is None
    assert WithinClassWhitening.from_boxes(torch.ones(12, 20), PRESENT, 0.4) is None
