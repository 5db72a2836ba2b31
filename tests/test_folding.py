"""Batch norms that are part of the convolutions before them say what they said."""

import pytest
import torch
from torch import nn

from antpitta.core.config import BackboneConfig, HeadConfig
from antpitta.model.fusion import fuse_conv_bn, with_trainable_grey_stem
from antpitta.model.network import SedNet


def trained(backbone, **more):
    """A net whose norms have seen something: statistics and weights of no round number."""
    torch.manual_seed(0)
    net = SedNet(
        BackboneConfig(name=backbone, pretrained=False, **more),
        HeadConfig(),
        3,
        bands=32,
        load_weights=False,
    )
    for module in net.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_()
    return net.eval()


def norms(net):
    return sum(isinstance(module, nn.BatchNorm2d) for module in net.backbone.modules())


@pytest.fixture
def pixels():
    return torch.randint(1, 256, (2, 96, 32), generator=torch.Generator().manual_seed(1)).byte()


@pytest.mark.parametrize(
    ("backbone", "more"),
    [("resnet18", {}), ("tf_efficientnet_lite0", {"reduction": (4, 8), "frozen": True})],
)
@torch.no_grad()
def test_norms_go_and_the_features_stay(backbone, more, pixels):
    net = trained(backbone, **more)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = fuse_conv_bn(net)
    assert norms(found) < norms(net)
    if not more:
        assert norms(found) == 0
    wanted = net.extract_features(pixels)
    assert wanted.std() > 0
    torch.testing.assert_close(
        found.extract_features(pixels), wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0
    )
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@torch.no_grad()
def test_a_grey_first_layer_takes_its_norm_in_too(pixels):
    net = with_trainable_grey_stem(trained("resnet18"), 96, 32)
    assert type(net.backbone.conv1).__name__ == "GreyConv"
    found = fuse_conv_bn(net)
    assert norms(found) == 0
    torch.testing.assert_close(found(pixels).framewise, net(pixels).framewise, atol=2e-5, rtol=1e-4)


def test_a_net_that_learns_keeps_learning():
    net = trained("resnet18").train()
    assert fuse_conv_bn(net) is not net
    assert net.training
    assert not fuse_conv_bn(net).training


def test_without_norms_there_is_no_copy():
    net = trained("test_convnext")
    assert norms(net) == 0
    assert fuse_conv_bn(net) is net


class Twice(nn.Module):
    """What its convolution makes is taken by the norm and by somebody else."""

    def __init__(self, *, hidden: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.other = nn.Identity()
        self.hidden = hidden

    def forward(self, image):
        made = self.conv(image)
        return self.norm(made) + (made if self.hidden else self.other(made))


@pytest.mark.parametrize("hidden", [False, True])
@torch.no_grad()
def test_a_convolution_that_others_hear_is_left_alone(hidden):
    net = trained("resnet18")
    net.backbone = Twice(hidden=hidden).eval()
    net.backbone.norm.running_mean.fill_(0.5)
    assert fuse_conv_bn(net) is net
