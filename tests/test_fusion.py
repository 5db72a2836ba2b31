"""First layers for grey images and fused batch norms, against the networks they replace."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from antpitta.core.config import BackboneConfig, HeadConfig
from antpitta.model.export import to_int8, to_openvino
from antpitta.model.fusion import (
    GreyConv,
    GreyStem,
    fuse_conv_bn,
    with_grey_stem,
    with_trainable_grey_stem,
)
from antpitta.model.inputs import Mixup
from antpitta.model.network import SedNet

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225])
BANDS = 32
BACKBONES = ["test_resnet", "tf_efficientnet_lite0", "resnet18d"]


def pixels_of(frames=50, bands=BANDS):
    rng = np.random.default_rng(1)
    return torch.from_numpy(rng.integers(1, 256, (2, frames, bands)).astype(np.uint8))


def net_of(backbone, bands=BANDS, **settings):
    torch.manual_seed(0)
    config = BackboneConfig(name=backbone, pretrained=False, **settings)
    return SedNet(config, HeadConfig(), 3, bands=bands).eval()


def relative_difference(net, other, pixels):
    """Return the largest difference of the feature maps, as a share of the largest value."""
    with torch.inference_mode():
        maps, other_maps = (n.feature_maps(n.prepare(pixels)) for n in (net, other))
    return float((maps - other_maps).abs().max() / maps.abs().max())


# ---- first layer ----


@pytest.mark.parametrize(
    "mean", [MEAN, torch.full((3,), 0.5).double()], ids=["different means", "equal means"]
)
@pytest.mark.parametrize(("size", "padding", "bias"), [(7, 3, False), (5, 2, True), (3, 1, True)])
def test_grey_stem_equals_the_convolution_of_three_channels(size, padding, bias, mean):
    torch.manual_seed(2)
    conv = nn.Conv2d(3, 8, size, 2, padding, bias=bias)
    pixels = pixels_of()
    channels = (pixels[:, None] / 255 - mean.view(3, 1, 1)) / STD.view(3, 1, 1)
    stem = GreyStem(conv, mean, STD.double())
    with torch.inference_mode():
        expected, maps = conv(channels.float()), stem(stem.prepare(pixels))
    torch.testing.assert_close(maps, expected, atol=1e-4, rtol=0)  # the edges included
    equal = bool((mean == mean[0]).all())
    assert stem.prepare(pixels).shape == (2, 4 if equal else 5, 25, 16)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_with_grey_stem_gives_the_same_feature_maps(backbone):
    net = net_of(backbone)
    grey = with_grey_stem(net, 64, BANDS)
    assert grey is not net
    assert relative_difference(net, grey, pixels_of(64)) < 1e-4
    assert any(isinstance(module, GreyStem) for module in grey.modules())
    assert not any(isinstance(module, GreyStem) for module in net.modules())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_with_trainable_grey_stem_has_the_same_weights_and_gradients(backbone):
    net = net_of(backbone)
    grey = with_trainable_grey_stem(net, 64, BANDS)
    assert any(isinstance(module, GreyConv) for module in grey.modules())
    assert grey.state_dict().keys() == net.state_dict().keys()
    assert [name for name, _ in grey.named_parameters()] == [n for n, _ in net.named_parameters()]
    assert relative_difference(net, grey, pixels_of(64)) < 1e-4
    mixup = Mixup(torch.tensor([1, 0]), torch.tensor(0.7))
    for n in (net, grey):
        n.extract_features(pixels_of(64), mixup).square().mean().backward()
    expected, gradient = (next(iter(n.backbone.parameters())).grad for n in (net, grey))
    assert expected.abs().max() > 0
    torch.testing.assert_close(gradient, expected, atol=1e-3 * float(expected.abs().max()), rtol=0)


def test_with_trainable_grey_stem_follows_changed_weights():
    net = net_of("test_resnet")
    changed = deepcopy(with_trainable_grey_stem(net, 64, BANDS))
    with torch.no_grad():
        next(iter(changed.backbone.parameters())).mul_(2)
    assert relative_difference(net, changed, pixels_of(64)) > 0.01
    net.load_state_dict(changed.state_dict())
    assert relative_difference(net, changed, pixels_of(64)) < 1e-4


@pytest.mark.parametrize(
    ("backbone", "bands"), [("convnext_atto", 32), ("vgg11", 32), ("test_resnet", 33)]
)
def test_first_layer_of_another_kind_is_left_alone(backbone, bands):
    net = net_of(backbone, bands)
    assert with_grey_stem(net, 64, bands) is net
    assert with_trainable_grey_stem(net, 64, bands) is net


def test_first_layer_whose_copy_differs_is_left_alone():
    net = net_of("test_resnet")
    with torch.no_grad():
        net.std *= 2
    assert with_grey_stem(net, 64, BANDS) is not net
    conv = next(module for module in net.backbone.modules() if isinstance(module, nn.Conv2d))
    conv.register_forward_hook(lambda layer, inputs, output: output + 1)  # as a subclass might
    assert with_grey_stem(net, 64, BANDS) is net


def test_without_constant_channel_only_the_edges_change():
    torch.manual_seed(3)
    conv = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
    stem = GreyStem(conv, MEAN, STD.double())
    pixels = pixels_of()
    with torch.inference_mode():
        exact = stem(stem.prepare(pixels))
        stem.drop_constant_channel()
        maps = stem(stem.prepare(pixels))
    assert stem.prepare(pixels).shape == (2, 4, 25, 16)
    difference = (maps - exact).abs()
    assert difference[:, :, 2:-2, 2:-2].max() < 1e-4
    assert 1e-3 < difference.max() < 0.5
    # It equals the original convolution of an image in a frame of grey.
    grey = torch.full((3, 1, 1), stem.offset / 255)
    framed = nn.functional.pad((pixels[:, None] / 255).expand(-1, 3, -1, -1) - grey, [3] * 4)
    channels = ((framed + grey - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)).float()
    with torch.inference_mode():
        expected = nn.functional.conv2d(channels, conv.weight, stride=2)
    torch.testing.assert_close(maps, expected, atol=1e-4, rtol=0)


def test_with_grey_stem_without_exact_edges_saves_a_channel_where_means_differ():
    net = net_of("resnet18")
    approximate = with_grey_stem(net, 64, BANDS, exact_edges=False)
    assert 1e-6 < relative_difference(net, approximate, pixels_of(64)) < 0.1
    [stem] = [module for module in approximate.modules() if isinstance(module, GreyStem)]
    assert stem.conv.weight.shape[1] == 4
    equal_means = net_of("tf_efficientnet_lite0")  # there is no channel to save
    approximate = with_grey_stem(equal_means, 64, BANDS, exact_edges=False)
    assert relative_difference(equal_means, approximate, pixels_of(64)) < 1e-4


def test_int8_networks_that_share_their_input_start_with_int8_convolutions():
    nets = [net_of("test_resnet"), net_of("test_resnet")]
    with torch.no_grad():
        next(iter(nets[1].backbone.parameters())).mul_(0.5)
    exact = to_openvino(nets, BANDS, 128)
    approximate = to_openvino(nets, BANDS, 128, exact_edges=False)
    segments = [pixels.numpy() for pixels in pixels_of(128)]
    for model in (exact, approximate, to_int8(exact, segments), to_int8(approximate, segments)):
        convolutions = [op for op in model.get_ops() if op.get_type_name() == "Convolution"]
        inputs = [op.input_value(0).get_node().get_type_name() for op in convolutions]
        assert len(convolutions) > 4
        assert "Pad" not in inputs
    assert set(inputs) <= {"FakeQuantize", "MaxPool"}  # the pooling passes int8 on


# ---- batch norms ----


def trained_net(backbone, **settings):
    """Return a network whose norms have statistics and weights of no round number."""
    torch.manual_seed(0)
    config = BackboneConfig(name=backbone, pretrained=False, **settings)
    net = SedNet(config, HeadConfig(), 3, bands=BANDS, load_weights=False)
    for module in net.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_()
    return net.eval()


def count_norms(net):
    return sum(isinstance(module, nn.BatchNorm2d) for module in net.backbone.modules())


@pytest.mark.parametrize(
    ("backbone", "settings"),
    [("resnet18", {}), ("tf_efficientnet_lite0", {"reduction": (4, 8), "frozen": True})],
)
@torch.no_grad()
def test_fuse_conv_bn_removes_norms_and_keeps_features(backbone, settings):
    net = trained_net(backbone, **settings)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fused = fuse_conv_bn(net)
    assert count_norms(fused) < count_norms(net)
    if not settings:
        assert count_norms(fused) == 0
    pixels = pixels_of(96)
    expected = net.extract_features(pixels)
    assert expected.std() > 0
    torch.testing.assert_close(
        fused.extract_features(pixels), expected, atol=1e-5 * float(expected.abs().max()), rtol=0
    )
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@torch.no_grad()
def test_fuse_conv_bn_after_a_grey_first_layer_removes_its_norm():
    net = with_trainable_grey_stem(trained_net("resnet18"), 96, BANDS)
    assert type(net.backbone.conv1) is GreyConv
    fused = fuse_conv_bn(net)
    assert count_norms(fused) == 0
    pixels = pixels_of(96)
    torch.testing.assert_close(fused(pixels).framewise, net(pixels).framewise, atol=2e-5, rtol=1e-4)


def test_fuse_conv_bn_of_a_network_in_training_leaves_it_in_training():
    net = trained_net("resnet18").train()
    fused = fuse_conv_bn(net)
    assert fused is not net
    assert net.training
    assert not fused.training


def test_fuse_conv_bn_without_norms_returns_the_network():
    net = trained_net("test_convnext")
    assert count_norms(net) == 0
    assert fuse_conv_bn(net) is net


class SharedOutput(nn.Module):
    """The output of the convolution goes to the norm and to something else."""

    def __init__(self, *, functional: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.other = nn.Identity()
        self.functional = functional

    def forward(self, image):
        output = self.conv(image)
        return self.norm(output) + (output if self.functional else self.other(output))


@pytest.mark.parametrize("functional", [False, True])
@torch.no_grad()
def test_fuse_conv_bn_convolution_with_a_second_consumer_is_left_alone(functional):
    net = trained_net("resnet18")
    net.backbone = SharedOutput(functional=functional).eval()
    net.backbone.norm.running_mean.fill_(0.5)
    assert fuse_conv_bn(net) is net


@pytest.mark.parametrize("mixed", [False, True])
def test_trainable_grey_stem_takes_marked_padding_as_the_mean(mixed):
    net = trained_net("resnet18").eval()
    grey = with_trainable_grey_stem(net, 96, BANDS).eval()
    assert grey is not net
    pixels = pixels_of(96)
    inside = torch.arange(96)[None] < torch.tensor([[96], [70]])[: len(pixels)]
    mixup = Mixup(torch.tensor([1, 0]), torch.tensor(0.7)) if mixed else None
    with torch.inference_mode():
        expected, features = (n.extract_features(pixels, mixup, inside=inside) for n in (net, grey))
        black = net.extract_features(pixels * inside[:, :, None], mixup)
    largest = float(expected.abs().max())
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-4 * largest)
    assert (black - expected).abs().max() > 1e-3 * largest
