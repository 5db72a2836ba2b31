"""The network: geometry, features, mixup, frozen and shared backbones."""

import numpy as np
import pytest
import torch
from torch import nn

from antpitta.core.config import BackboneConfig, HeadConfig
from antpitta.model.inputs import FeatureStore, Mixup
from antpitta.model.network import MultiHeadNet, SedNet, share_backbone
from antpitta.model.torch_inference import predict_sliding

RESNET = BackboneConfig(name="test_resnet", pretrained=False)
EFFICIENTNET = {"name": "test_efficientnet", "pretrained": False, "reduction": 16}
FROZEN = (
    BackboneConfig(**EFFICIENTNET, frozen=True),
    HeadConfig(frequency_pooling="none", background_subtraction=1.0, smoothing_frames=48),
)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return SedNet(RESNET, HeadConfig(), 3).eval()


def pixels_of(batch=4, frames=128, bands=64, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(1, 256, (batch, frames, bands), dtype=np.uint8))


def test_window_of_512_frames_gives_16_steps(net):
    with torch.inference_mode():
        logits = net(pixels_of(1, 512, 128))
    assert logits.framewise.shape == (1, 16, 3)
    assert net.stride == 32


def test_first_axis_of_the_input_is_time(net):
    steps = {}
    for frames, bands in ((128, 64), (256, 64), (128, 128)):
        with torch.inference_mode():
            steps[frames, bands] = net(pixels_of(1, frames, bands)).framewise.shape[1]
    assert steps == {(128, 64): 4, (256, 64): 8, (128, 128): 4}


def test_prepare_standardizes_pixels_per_channel(net):
    images = net.prepare(torch.tensor([[[0, 255]]], dtype=torch.uint8))
    assert images.shape == (1, 3, 1, 2)
    mean, std = net.mean.flatten().numpy(), net.std.flatten().numpy()
    np.testing.assert_allclose(images[0, :, 0, 0].numpy(), -mean / std, rtol=1e-5)
    np.testing.assert_allclose(images[0, :, 0, 1].numpy(), (1 - mean) / std, rtol=1e-5)


def test_manifold_mixup_mixes_feature_maps_before_the_relu(net):
    pixels = pixels_of()
    mixup = Mixup(torch.tensor([1, 2, 3, 0]), torch.tensor(0.7))
    share = mixup.share
    with torch.inference_mode():
        maps = net.feature_maps(net.prepare(pixels))
        # timm's networks end in an activation, so negative values are made here
        shifted = 20 * (maps - maps.mean())
        assert (shifted < 0).any()
        logits = net.head(net.pool_frequency(mixup(shifted)))
        before_relu = share * shifted + (1 - share) * shifted[mixup.partner]
        after_relu = share * shifted.relu() + (1 - share) * shifted.relu()[mixup.partner]
        expected = net.head(before_relu.relu().mean(dim=3))
        other = net.head(after_relu.mean(dim=3))
        from_pixels = net(pixels, manifold_mixup=mixup)
        mixed = net.head(net.pool_frequency(share * maps + (1 - share) * maps[mixup.partner]))
    torch.testing.assert_close(logits.clipwise, expected.clipwise)
    assert (logits.clipwise - other.clipwise).abs().max() > 1e-3
    torch.testing.assert_close(from_pixels.clipwise, mixed.clipwise)


def test_mixup_mixes_the_standardized_input(net):
    pixels = pixels_of()
    mixup = Mixup(torch.tensor([3, 0, 1, 2]), torch.tensor(0.7))
    share = mixup.share
    with torch.inference_mode():
        images = net.prepare(pixels)
        mixed = share * images + (1 - share) * images[mixup.partner]
        expected = net.head(net.pool_frequency(net.feature_maps(mixed)))
        logits = net(pixels, mixup)
    torch.testing.assert_close(logits.clipwise, expected.clipwise)


def test_features_computed_before_give_the_same_logits_as_pixels(net):
    mixup = Mixup(torch.tensor([1, 0]), torch.tensor(0.7))
    frozen = SedNet(*FROZEN, 3, bands=64).eval()
    pixels = pixels_of(2)
    features = frozen.extract_features(pixels)
    assert torch.equal(frozen(None, features=features).framewise, frozen(pixels).framewise)
    mixed = frozen(None, manifold_mixup=mixup, features=features)
    assert torch.equal(mixed.framewise, frozen.head(mixup(features)).framewise)
    with pytest.raises(ValueError, match="neither"):
        frozen(None)


def test_state_dict_holds_all_but_the_constants(net):
    copy = SedNet(RESNET, HeadConfig(), 3, load_weights=False).eval()
    copy.load_state_dict(net.state_dict())
    assert not {"mean", "std"} & set(net.state_dict())
    with torch.inference_mode():
        assert torch.equal(copy(pixels_of()).clipwise, net(pixels_of()).clipwise)


def test_embedding_input_has_no_backbone_weights():
    net = SedNet(BackboneConfig(name="embedding"), HeadConfig(), 2, bands=5)
    assert net.stride == 1
    assert not any(name.startswith("backbone") for name in net.state_dict())


# ---- frozen backbones ----


def test_without_frequency_pooling_each_height_has_its_own_weights():
    net = SedNet(*FROZEN, 3, bands=32)
    features = net.extract_features(pixels_of(2, 64, 32))
    pooled = SedNet(BackboneConfig(**EFFICIENTNET), HeadConfig(), 3, bands=32)
    # 32 bands at a reduction of 16
    assert features.shape[1] == 2 * pooled.head.class_conv.in_channels
    assert features.shape[2] == 64 // 16
    assert net.stride == 16


def test_background_subtraction_leaves_padding_out():
    net = SedNet(*FROZEN, 3, bands=32).eval()
    features = net.extract_features(pixels_of(2, 64, 32))
    assert torch.allclose(features.mean(dim=2), torch.zeros(()), atol=1e-4)
    padded = pixels_of(2, 64, 32)
    padded[:, 32:] = 0
    features = net.extract_features(padded)
    assert torch.equal(features[:, :, 2:], torch.zeros_like(features[:, :, 2:]))
    assert torch.allclose(features[:, :, :2].mean(dim=2), torch.zeros(()), atol=1e-4)


def test_frozen_backbone_in_training_keeps_weights_and_statistics():
    net = SedNet(*FROZEN, 3, bands=32).train()
    before = {name: value.clone() for name, value in net.backbone.state_dict().items()}
    net(pixels_of(2, 64, 32)).clipwise.sum().backward()
    for name, value in net.backbone.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(weight.requires_grad for weight in net.backbone.parameters())
    assert net.head.class_conv.weight.grad is not None
    assert not net.head.class_conv.weight.any()  # the head starts at 0


def test_smoothing_over_three_steps_averages_the_unsmoothed_network():
    net = SedNet(*FROZEN, 1, bands=32).eval()
    with torch.no_grad():
        net.head.class_conv.weight.normal_()
    unsmoothed = FROZEN[1].model_copy(update={"smoothing_frames": 1})
    plain = SedNet(FROZEN[0], unsmoothed, 1, bands=32).eval()
    plain.load_state_dict(net.state_dict())
    pixels = pixels_of(1, 64, 32)
    with torch.no_grad():
        steps, smoothed = (n(pixels).framewise[0, :, 0] for n in (plain, net))
    expected = [steps[:2].mean(), steps[:3].mean(), steps[1:4].mean(), steps[2:].mean()]
    assert torch.allclose(smoothed, torch.stack(expected), atol=1e-5)


# ---- shared backbones ----


def nets_of(backbone, head, count):
    torch.manual_seed(1)
    nets = [SedNet(backbone, head, 2).eval() for _ in range(count)]
    for net in nets:
        nn.init.normal_(net.head.class_conv.weight)
    return nets


SHARED = (
    BackboneConfig(reduction=16, frozen=True),
    HeadConfig(frequency_pooling="none", background_subtraction=1.0),
)


def test_multi_head_net_gives_the_scores_of_each_network():
    nets = nets_of(*SHARED, 3)
    pixels = torch.randint(0, 256, (400, 128), dtype=torch.uint8)
    store = FeatureStore(pixels, np.array([400]))
    segments = np.array([0])
    alone = [predict_sliding(net, store, segments, 256, 128, 4)[0] for net in nets]
    together = predict_sliding(MultiHeadNet(nets), store, segments, 256, 128, 4)[0]
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), atol=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 0.01  # the heads differ


def test_share_backbone_needs_frozen_backbones_of_equal_weights():
    nets = nets_of(*SHARED, 2)
    assert share_backbone(nets)
    assert share_backbone(nets[:1])
    with torch.no_grad():
        next(nets[1].backbone.parameters()).add_(1)
    assert not share_backbone(nets)
    assert not share_backbone(nets_of(BackboneConfig(reduction=16), HeadConfig(), 2))
