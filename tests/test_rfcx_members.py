"""The recipes of the competition's other team members: they build, train, and keep their formulas.

There are no numbers of their original code. Formulas are compared with values worked out by hand;
each network takes a training step on random spectrograms of its own size.
"""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import antpitta as ap
from antpitta.core.config import BackboneConfig, HeadConfig
from antpitta.core.errors import UserError
from antpitta.core.stages import LossConfig
from antpitta.core.types import Annotation, Targets
from antpitta.files.bundle import read_bundle
from antpitta.files.recipes import read_recipe, shipped_recipes
from antpitta.model.backbones import build_backbone, timm
from antpitta.model.head import SedHead
from antpitta.model.losses import CellTargets, masked_loss
from antpitta.model.network import SedNet, interpolation_weights
from antpitta.train.batches import epoch_batches, prepare_batch
from antpitta.train.loop import batch_loss

CPU = torch.device("cpu")
SPECIES = tuple(f"s{i}" for i in range(24))
MEMBERS = [name for name in shipped_recipes() if name.startswith("rfcx-")]
SECOND = "rfcx-10s-efficientnet_b2"
LN2, LN3 = math.log(2), math.log(3)


# ---- recipes


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("rfcx-densenet121", "densenet121.tv_in1k"),
        ("rfcx-efficientnet_b0", "efficientnet_b0.ra_in1k"),
        ("rfcx-resnest50d", "resnest50d.in1k"),
    ],
)
def test_first_members_other_recipes_differ_from_rfcx_in_the_backbone_alone(name, backbone):
    first, other = read_recipe("rfcx"), read_recipe(name)
    assert other.backbone.name == backbone
    kept = {"name": first.name, "description": first.description, "backbone": first.backbone}
    assert other.model_copy(update=kept) == first


def test_second_members_recipes_differ_in_the_backbone_alone():
    first, other = read_recipe(SECOND), read_recipe("rfcx-10s-resnest50d")
    kept = {"name": first.name, "description": first.description, "backbone": first.backbone}
    assert other.model_copy(update=kept) == first
    assert other.backbone == first.backbone.model_copy(update={"name": "resnest50d.in1k"})


def test_second_member_has_six_clips_of_ten_seconds_a_minute(make_training_data):
    recipe = read_recipe(SECOND)
    training_data = make_training_data(recipe, [60.0], [], SPECIES)
    assert training_data.windows.start.tolist() == [0, 400, 800, 1200, 1600, 2000]
    assert recipe.windows.frames * recipe.features.hop_length / 48_000 == pytest.approx(
        10, rel=1e-3
    )


@pytest.mark.parametrize("name", MEMBERS)
def test_member_takes_a_training_step_with_finite_loss_and_gradients(name, make_training_data):
    recipe = read_recipe(name)
    boxes = [Annotation("r0", 2.0, 3.0, "s3"), Annotation("r1", 2.0, 3.0, "s5", present=False)]
    boxes.append(Annotation("r1", 5.0, 6.0, "s0", present=name.startswith("rfcx-10s")))
    seconds = recipe.windows.frames * recipe.features.hop_length / recipe.features.sample_rate
    training_data = make_training_data(recipe, [seconds - 0.05] * 2, boxes, SPECIES)
    assert len(training_data.windows) == 2
    torch.manual_seed(0)
    net = SedNet(recipe.backbone, recipe.head, 24, bands=recipe.features.n_mels, load_weights=False)
    stage = recipe.stage("pseudo")
    value = np.eye(2, 24, 10, dtype=np.float32)
    rng = np.random.default_rng(0)
    (batch,) = epoch_batches(stage, training_data, np.arange(2), Targets(value, value), rng)
    device_batch = prepare_batch(batch, training_data, stage, rng, CPU)
    assert device_batch.n_windows == 2
    loss = batch_loss(net, device_batch, stage, None)
    loss.backward()
    gradients = [weight.grad for weight in net.parameters() if weight.requires_grad]
    assert torch.isfinite(loss)
    assert loss > 0
    assert all(gradient is not None for gradient in gradients)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert net.head.class_conv.weight.grad.abs().max() > 0


def test_weights_behind_the_feature_map_are_not_trained():
    net = SedNet(
        BackboneConfig(name="test_efficientnet", pretrained=False, reduction=32), HeadConfig(), 2
    )
    frozen = {name for name, weight in net.named_parameters() if not weight.requires_grad}
    assert frozen == {
        "backbone.model.conv_head.weight",
        "backbone.model.bn2.weight",
        "backbone.model.bn2.bias",
    }


# ---- the ranking loss of stage 1


def targets(value, weight):
    return CellTargets(torch.tensor(value, dtype=torch.float), torch.tensor(weight).float())


@pytest.mark.parametrize(
    ("logits", "value", "weight", "unknown", "expected"),
    [
        ([[0, LN2, LN3]], [[1, 0, 0]], [[1, 1, 1]], "masked", math.log(1 + 2 + 3)),
        ([[0, LN2, LN3]], [[1, 1, 0]], [[1, 1, 1]], "masked", math.log(1 + 3 + 3 / 2)),
        ([[0, LN2, LN3]], [[1, 0, 0]], [[1, 1, 0]], "masked", math.log(1 + 2)),
        ([[0, LN2, LN3]], [[1, 0, 0]], [[1, 1, 0]], "absent", math.log(1 + 2 + 3)),
        ([[0, LN2, LN3]], [[0, 0, 0]], [[1, 1, 1]], "masked", 0),
        ([[0, LN2, LN3]], [[1, 1, 1]], [[1, 1, 1]], "masked", 0),
        ([[-300, 300, 0]], [[1, 0, 0]], [[1, 1, 1]], "masked", 600),
        ([[300, -300, 0]], [[1, 0, 0]], [[1, 1, 1]], "masked", 0),
        ([[0, LN2], [LN2, 0]], [[1, 0], [1, 0]], [[1, 1]] * 2, "masked", (LN3 + math.log(1.5)) / 2),
    ],
)
def test_lsep_equals_its_formula(logits, value, weight, unknown, expected):
    config = LossConfig(kind="lsep", unknown=unknown)
    loss = masked_loss(torch.tensor(logits).float(), targets(value, weight), None, config)
    assert float(loss) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_lsep_gradient_equals_the_share_of_each_pair():
    logits = torch.tensor([[0.0, LN2, LN3], [0.0, 0.0, 0.0]], requires_grad=True)
    labels = targets([[1, 0, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]])
    masked_loss(logits, labels, None, LossConfig(kind="lsep")).backward()
    expected = [[-5 / 12, 2 / 12, 3 / 12], [0, 0, 0]]  # 5/6, 2/6, 3/6, over two windows
    np.testing.assert_allclose(logits.grad, expected, rtol=1e-6)


def test_lsep_of_parts_adds_up_to_that_of_the_batch():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    labels = targets(np.eye(5, 4), np.ones((5, 4)))
    config = LossConfig(kind="lsep")
    parts = [
        masked_loss(logits[rows], labels.take(rows), None, config, None, (labels, None))
        for rows in (slice(0, 2), slice(2, 5))
    ]
    assert float(sum(parts)) == pytest.approx(float(masked_loss(logits, labels, None, config)))


@pytest.mark.parametrize(
    "change",
    [
        "mixup=0.1",
        "manifold_mixup=0.1",
        "loss.on=boxes",
        "loss.focal_gamma=2",
        "loss.class_weights=1",
    ],
)
def test_lsep_refuses_what_it_does_not_have(change):
    with pytest.raises(UserError) as error:
        read_recipe(SECOND, (f"stages.crops.{change}",))
    assert error.value.code == "E_SETTING_VALUE"
    assert "stages.crops" in error.value.what


# ---- the loss of stage 3


def test_second_members_last_loss_equals_its_formula():
    loss = read_recipe(SECOND).stage("pseudo").loss
    # present, absent, pseudo-label, two unknown; sigmoid(ln 3) = 3/4: BCE+ = ln 4/3, BCE- = ln 4
    logits = torch.tensor([[LN3, LN3, -LN3, 0.0, LN3]])
    labels = targets([[1, 0, 0, 0, 0]], [[1, 1, 0, 0, 0]])
    pseudo_labels = targets([[0, 0, 1, 0, 0]], [[0, 0, 1, 0, 0]])
    positive = 2 * (1 / 4) ** 2 * math.log(4 / 3) + 2 * (3 / 4) ** 2 * math.log(4)
    unknown = LN2 + 0.45 * math.log(4 / 3) + 0.55 * math.log(4)
    expected = positive + math.log(4) + unknown
    assert float(masked_loss(logits, labels, pseudo_labels, loss)) == pytest.approx(expected)


def test_unlabelled_cells_stay_a_mean_where_other_cells_are_divided():
    labels = targets([[1, 0, 0]], [[1, 0, 0]])
    logits = torch.zeros(1, 3)
    losses = [
        float(masked_loss(logits, labels, None, LossConfig(reduction=reduction, **unlabelled)))
        for reduction in ("mean", "sum")
        for unlabelled in ({}, {"unlabelled_target": 0.45, "unlabelled_weight": 1.0})
    ]
    assert losses == pytest.approx([LN2, 2 * LN2, LN2, 3 * LN2])


# ---- balanced batches


@pytest.mark.parametrize(("absent", "draws"), [(7, {1, 2}), (20, {0, 1}), (0, set())])
def test_balanced_batches_are_half_present_and_half_absent(make_training_data, absent, draws):
    recipe = read_recipe(SECOND, ("features.n_mels=16", "features.n_fft=64"))
    stage = recipe.stage("masked")
    boxes = [Annotation(f"r{i}", 2.0, 3.0, "s3") for i in range(12)]
    boxes += [Annotation(f"r{i}", 4.0, 5.0, "s4", present=False) for i in range(4)]  # both: present
    boxes += [Annotation(f"r{12 + i}", 2.0, 3.0, "s3", present=False) for i in range(absent)]
    count = 12 + absent + 3  # three without a box
    training_data = make_training_data(recipe, [9.9] * count, boxes, SPECIES)
    rng = np.random.default_rng(0)
    batches = epoch_batches(stage, training_data, np.arange(count), None, rng)
    present = [int((batch.indices < 12).sum()) for batch in batches]
    shown = np.bincount(np.concatenate([batch.indices for batch in batches]), minlength=count)
    assert present == [8, 4]
    assert [len(batch.windows) for batch in batches] == ([16, 8] if absent else [8, 4])
    assert shown[:12].tolist() == [1] * 12
    assert set(shown[12 : 12 + absent].tolist()) == draws
    assert shown[12 + absent :].sum() == 0


def test_balanced_batches_without_present_labels_are_none(make_training_data):
    recipe = read_recipe(SECOND, ("features.n_mels=16", "features.n_fft=64"))
    boxes = [Annotation("r0", 2.0, 3.0, "s3", present=False)]
    training_data = make_training_data(recipe, [9.9] * 2, boxes, SPECIES)
    stage, rng = recipe.stage("masked"), np.random.default_rng(0)
    assert epoch_batches(stage, training_data, np.arange(2), None, rng) == []


# ---- images


def test_interpolation_weights_equal_those_of_the_formula():
    # band j of the image lies at (j + 0.5) * 2 / 4 - 0.5 = -0.25, 0.25, 0.75, 1.25
    expected = [[1, 0.75, 0.25, 0], [0, 0.25, 0.75, 1]]
    np.testing.assert_allclose(interpolation_weights(2, 4), expected, atol=1e-7)


def test_second_members_images_have_224_bands_from_0_to_1():
    config = BackboneConfig(
        name="test_efficientnet", pretrained=False, image_bands=224, normalize=False
    )
    net = SedNet(config, HeadConfig(), 2, bands=128)
    pixels = torch.randint(0, 256, (2, 64, 128), generator=torch.Generator().manual_seed(1))
    images = net.prepare(pixels.to(torch.uint8))
    assert images.shape == (2, 3, 64, 224)
    grey = pixels / 255
    at = (np.arange(224) + 0.5) * 128 / 224 - 0.5
    low = np.floor(at).astype(int)
    share = torch.tensor(at - low).float()
    below, above = grey[:, :, np.clip(low, 0, 127)], grey[:, :, np.clip(low + 1, 0, 127)]
    for channel in range(3):
        torch.testing.assert_close(images[:, channel], below * (1 - share) + above * share)


# ---- the dense head


def make_head(**settings):
    head = SedHead(HeadConfig(layers="dense", **settings), 1, 1, 32)
    with torch.no_grad():
        for layer, weight, bias in (
            (head.dense.dense, 1.0, -3.0),
            (head.class_conv, 2.0, 0.5),
            (head.attention_conv, 1.0, -1.0),
        ):
            layer.weight.fill_(weight)
            layer.bias.fill_(bias)
    return head.eval()


FEATURES = torch.tensor([[[0.0, 3.0, 0.0, -3.0]]])
# maximum over three steps 3, 3, 3, 0 and mean 1, 1, 0, -1; dense: relu(x - 3) = 1, 1, 0, 0
FRAMEWISE = [2.5, 2.5, 0.5, 0.5]
ATTENTION = [math.exp(math.tanh(a)) for a in (0, 0, -1, -1)]
CLIPWISE = sum(z * a for z, a in zip(FRAMEWISE, ATTENTION, strict=True)) / sum(ATTENTION)


def test_dense_head_equals_its_formula():
    logits = make_head()(FEATURES)
    np.testing.assert_allclose(logits.framewise[0, :, 0].detach(), FRAMEWISE, rtol=1e-6)
    assert float(logits.clipwise.detach()) == pytest.approx(CLIPWISE)


def test_clipwise_scores_are_the_clipwise_logit_in_every_step_in_prediction_only():
    head = make_head(scores="clipwise")
    framewise = head(FEATURES).framewise.detach()
    assert framewise.flatten().tolist() == pytest.approx([CLIPWISE] * 4)
    head.train()
    head.dense.dropout.p = 0.0
    np.testing.assert_allclose(head(FEATURES).framewise[0, :, 0].detach(), FRAMEWISE, rtol=1e-6)


def test_dense_head_drops_half_of_its_inputs_twice_in_training():
    head = make_head().train()
    torch.manual_seed(0)
    draws = [head(FEATURES).framewise.detach().flatten().tolist() for _ in range(50)]
    values = {round(z, 4) for draw in draws for z in draw}
    # 4 or 0 after the first dropout, doubled; relu(8 - 3) doubled; 2 x + 0.5
    assert {0.5, 20.5} <= values


@pytest.mark.parametrize(
    "change",
    [
        "stages.masked.loss.on=boxes",
        "head.background_subtraction=0.5",
        "head.frequency_pooling=none",
    ],
)
def test_dense_head_refuses_settings_of_a_linear_one(change):
    with pytest.raises(UserError) as error:
        read_recipe(SECOND, (change,))
    assert error.value.code == "E_SETTING_VALUE"
    assert change.partition("=")[0].rpartition(".")[2] in error.value.what


# ---- the transformer


@pytest.mark.parametrize("size", [(512, 128), (400, 224), (501, 120)])
def test_transformers_map_has_each_patch_in_its_place(size):
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(name="test_vit", pretrained=False), bands=128)
    assert (backbone.stride, backbone.height, backbone.needs_windows) == (16, 8, True)
    images = torch.rand(2, 3, *size)
    model = backbone.module.eval()
    with torch.no_grad():
        expected = model.model.forward_intermediates(
            images, indices=1, norm=True, intermediates_only=True
        )[0]
        maps = model(images)
    assert maps.shape[2:] == (-(-size[0] // 16), -(-size[1] // 16))
    torch.testing.assert_close(maps, expected)


def test_transformer_takes_weights_from_a_file(tmp_path):
    donor = timm.create_model("test_vit", num_classes=7)
    save_file(donor.state_dict(), tmp_path / "vit.safetensors")
    config = BackboneConfig(name="test_vit", weights=str(tmp_path / "vit.safetensors"))
    backbone = build_backbone(config)
    assert backbone.origin == "the file vit.safetensors"
    assert torch.equal(backbone.module.model.pos_embed, donor.pos_embed)


def test_transformer_has_no_other_reductions():
    with pytest.raises(UserError) as error:
        build_backbone(BackboneConfig(name="test_vit", pretrained=False, reduction=8))
    assert error.value.code == "E_BACKBONE_REDUCTION"


# ---- from training to scores


SMALL = (
    "backbone.pretrained=false",
    "folds=2",
    "features.sample_rate=16000",
    "features.n_fft=512",
    "features.fmax=7000",
    "features.segment=8",
    "stages.masked.epochs=1",
    "stages.pseudo.epochs=1",
    "stages.pseudo.pseudo.threshold=0.3",
)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (
            SECOND,
            (
                *(
                    "backbone.name=test_efficientnet",
                    "backbone.image_bands=64",
                    "features.n_mels=32",
                ),
                *("features.hop_length=400", "windows.frames=80", "stages.crops.epochs=1"),
                "stages.crops.crop_shifts=[0, 20]",
            ),
        ),
        (
            "rfcx-vit",
            (
                *("backbone.name=test_vit", "features.hop_length=250", "features.n_mels=32"),
                *("windows.frames=128", "windows.overlap=0", "windows.inference_overlap=64"),
            ),
        ),
    ],
)
def test_member_is_trained_and_always_scores_windows(name, changes, simulated, tmp_path):
    data = ap.open_data(simulated)
    run = ap.train(data, recipe=name, out=tmp_path / "run", changes=(*SMALL, *changes))
    assert read_bundle(run.model).networks == {}
    sound = sorted((simulated / "test").iterdir())[:2]
    full, sliding = (ap.predict(run.model, *sound, inference=mode) for mode in ("full", "sliding"))
    assert len(full) > 0
    assert np.isfinite(full.to_numpy()).all()
    assert full.equals(sliding)
