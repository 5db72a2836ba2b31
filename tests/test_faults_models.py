"""Bundles that are not what they seem: each is refused with one message, and none runs code.

Every bundle goes through `antpitta predict` itself. Most are sealed anew after the change, with the
digests of what they hold now, as somebody who means harm would do.
"""

import json
import os
import pickle
import re
import shutil
import socket
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import soundfile as sf
import torch
from safetensors.torch import load_file, save_file

from antpitta import cli
from antpitta.core.config import parse_recipe
from antpitta.core.errors import UserError
from antpitta.core.thresholds import unsupported_threshold
from antpitta.files.bundle import Bundle, read_bundle, write_bundle
from antpitta.files.dataset import read_source
from antpitta.files.recipes import read_recipe, shipped_recipes
from antpitta.files.runs import save_tensors
from antpitta.model.backbones import build_backbone
from antpitta.model.export import to_openvino
from antpitta.model.network import SedNet
from antpitta.scores.ensemble.blend import Blend
from antpitta.train.stages import run_stages
from tests.sealed_bundles import change, seal

SPECIES = ("a", "b", "c")
SETTINGS = {
    "name": "tiny",
    "description": "tests",
    "folds": 2,
    "features": {
        **{"sample_rate": 8000, "n_fft": 256, "hop_length": 200, "n_mels": 16},
        **{"fmax": 4000.0, "segment": 2.0},
    },
    "windows": {"frames": 64, "overlap": 16, "inference_overlap": 32},
    "backbone": {"name": "test_efficientnet", "pretrained": False},
    "stages": [{"name": "masked"}],
}
FLOAT, INT8, SLIDING = (), ("--precision", "int8"), ("--inference", "sliding")
RAN = []  # what a pickle that is loaded would add to


class Evil:
    """A pickle that runs code when it is loaded."""

    def __reduce__(self):
        return (RAN.append, ("pickle",))


def few_boxes(value):
    return unsupported_threshold("few boxes", 3, 4, value)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model, two models in an ensemble, and a recording."""
    home = tmp_path_factory.mktemp("bundles")
    recipe = parse_recipe(json.loads(json.dumps(SETTINGS)), "tiny")
    torch.manual_seed(0)
    nets = [SedNet(recipe.backbone, recipe.head, 3, bands=16).eval() for _ in range(2)]
    for fold, net in enumerate(nets):
        save_tensors(net.state_dict(), home / f"fold{fold}.safetensors")
    weights = [home / f"fold{fold}.safetensors" for fold in range(2)]
    networks = dict.fromkeys(
        ("float", "int8"), to_openvino(nets, 16, recipe.features.n_frames(2.0))
    )
    for name in ("model", "other"):
        bundle = Bundle(
            path=home / name,
            name=name,
            species=SPECIES,
            recipe=recipe.model_dump(mode="json"),
            weights=("fold0.safetensors", "fold1.safetensors"),
            thresholds=dict.fromkeys(SPECIES, few_boxes(0.5 if name == "model" else 0.4)),
            bands={"a": (100.0, 900.0), "b": (0.0, float("inf"))},
            provenance={"antpitta": "0"},
        )
        write_bundle(bundle, weights, "card", networks)
        save_tensors(nets[1].state_dict(), weights[0])
    levels = {"scores": [[0.0, 1.0]] * 3, "ranks": [[0.0, 1.0]] * 3}
    blend = {
        **{"method": "rank", "members": ["model", "other"], "classes": list(SPECIES)},
        **{"weights": [[0.5] * 3] * 2, "slopes": [1.0] * 2, "offsets": [0.0] * 2},
        **{"scored": [[True] * 3] * 2, "ranks": [levels] * 2},
    }
    thresholds = dict.fromkeys(SPECIES, few_boxes(0.5))
    both = Bundle(
        *(home / "ens", "ens", SPECIES),
        thresholds=thresholds,
        members=("model", "other"),
        blend=blend,
    )
    write_bundle(both, [home / "model", home / "other"], "card")
    sf.write(home / "sound.wav", np.random.default_rng(0).normal(0, 0.1, 24000), 8000)
    return home


@pytest.fixture
def predict(home, tmp_path, monkeypatch, capsys):
    """A function that runs the command: exit code and what it writes to stderr."""

    def refuse(*address):
        raise AssertionError(f"a connection was tried: {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    def run(folder, options=()):
        arguments = ["predict", folder, home / "sound.wav", "-o", tmp_path / "out", *options]
        monkeypatch.setattr(sys, "argv", ["antpitta", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, capsys.readouterr().err

    return run


def setting(**values):
    """Change settings of the recipe."""

    def edit(recipe):
        for key, value in values.items():
            table, _, name = key.partition("__")
            if name:
                recipe[table] = {**(recipe.get(table) or {}), name: value}
            else:
                recipe[table] = value
        return recipe

    return lambda folder: change(folder, recipe=edit)


def keys(**values):
    return lambda folder: change(folder, **values)


def put(name, content):
    """Replace the content of a file."""
    return lambda folder: (folder / name).write_bytes(content)


def edited(name, old, new):
    def edit(folder):
        content = (folder / name).read_bytes()
        assert re.search(old, content)
        (folder / name).write_bytes(re.sub(old, new, content))

    return edit


def marked(name, value):
    """Another value of a mark that the export leaves in a network."""
    old, new = f'<{name} value="\\d+"', f'<{name} value="{value}"'
    return edited("network-float.xml", old.encode(), new.encode())


def tensors(edit):
    def rewrite(folder):
        file = folder / "fold1.safetensors"
        save_file(edit(load_file(file)), file)

    return rewrite


def link(name, target="/etc/hostname"):
    def make(folder):
        source = folder / name
        if target is None:
            source.rename(folder / "moved")
        else:
            source.unlink()
        source.symlink_to(target or folder / "moved")

    return make


def fifo(folder):
    (folder / "fold1.safetensors").unlink()
    os.mkfifo(folder / "fold1.safetensors")


def as_folder(folder):
    (folder / "fold1.safetensors").unlink()
    (folder / "fold1.safetensors").mkdir()


def sparse(name, size=2 << 30):
    return lambda folder: os.truncate(folder / name, size)


def renamed(new):
    """The weights of the second fold under another name, listed as such."""

    def rename(folder):
        shutil.copy(folder / "fold1.safetensors", folder / "spare")
        change(
            folder,
            weights=["fold0.safetensors", new],
            files=lambda files: {
                (new if name == "fold1.safetensors" else name): record
                for name, record in files.items()
            },
        )

    return rename


def network(name):
    """Another file as the exported network."""

    def make(folder):
        change(folder, networks={"float": name})
        if not name.startswith(("/", "..")):
            (folder / name).write_bytes(pickle.dumps(Evil()))

    return make


def raw(text):
    return lambda folder: (folder / "bundle.json").write_bytes(
        text.encode() if isinstance(text, str) else text
    )


def replaced(old, new):
    return edited("bundle.json", old.encode(), new.encode())


def without(key):
    def drop(folder):
        content = json.loads((folder / "bundle.json").read_text())
        del content[key]
        (folder / "bundle.json").write_text(json.dumps(content))

    return drop


def blend(**values):
    return keys(blend=lambda content: {**content, **values})


def member_is_ensemble(folder):
    shutil.rmtree(folder / "members" / "other")
    shutil.copytree(folder, folder.with_name("copy"))
    shutil.move(folder.with_name("copy"), folder / "members" / "other")


def member_link(folder):
    shutil.move(folder / "members" / "other", folder.with_name("elsewhere"))
    (folder / "members" / "other").symlink_to(folder.with_name("elsewhere"))


def threshold(species, **values):
    return keys(thresholds=lambda own: {**own, species: {**own[species], **values}})


def copied_from(other, name):
    return lambda folder: shutil.copy(folder.parent / other / name, folder / name)


EVIL = pickle.dumps(Evil())
DEEP = "[" * 100_000 + "]" * 100_000
DIGITS = "9" * 5000
# name: (change of a copy of the model, options)
UNSEALED = {
    **{f"{key}_{value!r:.9}": (keys(**{key: value}), FLOAT)
       for key in ("species", "weights", "thresholds", "members", "networks", "bands", "recipe",
                   "files")
       for value in (5, "abc", [1, 2], {"a": 1}, None)},
    **{f"without_{key}": (without(key), FLOAT) for key in ("layout", "name", "blend", "digest")},
    **{f"layout_{value!r}": (keys(layout=value), FLOAT) for value in (True, 4.5, "4", 3, 99, -1)},
    "digest": (keys(digest="0" * 32), FLOAT),
    "thresholds_edited": (threshold("a", value=0.9), FLOAT),
    "extra_key": (keys(extra=1), FLOAT),
    "deep": (raw(DEEP), FLOAT),
    "deep_recipe": (replaced('"recipe": {', f'"recipe": {{"x": {DEEP}, '), FLOAT),
    "empty": (raw(""), FLOAT),
    "null": (raw("null"), FLOAT),
    "number": (raw(DIGITS), FLOAT),
    "list": (raw("[]"), FLOAT),
    "no_utf8": (raw(b'{"layout": 4, "name": "\xff\xfe"}'), FLOAT),
    "surrogate": (replaced('"name": "model"', r'"name": "\\ud800"'), FLOAT),
    "json_sparse": (sparse("bundle.json", 3 << 30), FLOAT),
    "json_link": (link("bundle.json", None), FLOAT),
    "json_nan": (replaced('"value": 0.5', '"value": NaN'), FLOAT),
    "json_inf": (replaced('"value": 0.5', '"value": 1e999'), FLOAT),
    "json_digits": (replaced('"value": 0.5', f'"value": {DIGITS}'), FLOAT),
    "provenance_digits": (replaced('"antpitta": "0"', f'"antpitta": {DIGITS}'), FLOAT),
    "wone": (tensors(lambda state: {k: torch.ones_like(v) for k, v in state.items()}), SLIDING),
    "weights_missing": (lambda folder: (folder / "fold1.safetensors").unlink(), FLOAT),
    "weights_link": (link("fold1.safetensors"), FLOAT),
    "weights_link_inside": (link("fold1.safetensors", None), FLOAT),
    "weights_fifo": (fifo, SLIDING),
    "weights_folder": (as_folder, SLIDING),
    "weights_sparse": (sparse("fold1.safetensors"), SLIDING),
    "weights_swapped": (copied_from("other", "fold0.safetensors"), FLOAT),
    "network_swapped": (put("network-float.bin", b"0" * 900), FLOAT),
    "xmiss": (lambda folder: (folder / "network-float.xml").unlink(), FLOAT),
    "btrunc": (sparse("network-float.bin", 100), FLOAT),
    "nint8": (lambda folder: (folder / "network-int8.xml").unlink(), INT8),
}  # fmt: skip
SEALED = {
    "sp2": (keys(species=["a", "b"], thresholds={}), FLOAT),
    "sp4": (keys(species=["a", "b", "c", "d"]), FLOAT),
    "sp0": (keys(species=[], thresholds={}, bands={}), FLOAT),
    "spdup": (keys(species=["a", "b", "b"]), FLOAT),
    "spblank": (keys(species=["a", "b", "c "[1:]]), FLOAT),
    "spint": (keys(species=[1, 2, 3]), FLOAT),
    "splist": (keys(species=[["a"], ["b"], ["c"]]), FLOAT),
    "name_number": (keys(name=1), FLOAT),
    "threshold_2": (threshold("a", value=2), FLOAT),
    "threshold_true": (threshold("a", value=True), FLOAT),
    "threshold_number": (keys(thresholds=lambda own: {**own, "a": 0.5}), FLOAT),
    "threshold_tiny": (threshold("a", value=6.8e-26), FLOAT),
    "threshold_own_of_few_boxes": (threshold("a", origin="own", reason=""), FLOAT),
    "threshold_of_no_present_box": (threshold("a", origin="none", reason="no present"), FLOAT),
    "threshold_unknown": (keys(thresholds=lambda own: {**own, "x": own["a"]}), FLOAT),
    "threshold_missing": (keys(thresholds=lambda own: {"a": own["a"]}), FLOAT),
    "band_text": (keys(bands={"a": ["low", "high"]}), FLOAT),
    "band_reversed": (keys(bands={"a": [900, 100]}), FLOAT),
    "band_negative": (keys(bands={"a": [-1, 100]}), FLOAT),
    "band_three": (keys(bands={"a": [1, 2, 3]}), FLOAT),
    "blend_alone": (keys(blend={}), FLOAT),
    "w0": (
        keys(weights=[], files=lambda f: {k: v for k, v in f.items() if "fold" not in k}),
        FLOAT,
    ),
    "w_one_less": (
        keys(weights=["fold0.safetensors"],
             files=lambda f: {k: v for k, v in f.items() if "fold1" not in k}),
        FLOAT,
    ),
    "wnan": (tensors(lambda state: {k: v * torch.nan if v.is_floating_point() else v
                                    for k, v in state.items()}), SLIDING),
    "winf": (tensors(lambda state: {k: v / 0 for k, v in state.items()}), SLIDING),
    "wlarge": (tensors(lambda state: {k: v * 0 + 3e38 if v.is_floating_point() else v
                                      for k, v in state.items()}), SLIDING),
    "wshape": (tensors(lambda state: {k: v[..., None] for k, v in state.items()}), SLIDING),
    "wnames": (tensors(lambda state: {f"x{k}": v for k, v in state.items()}), SLIDING),
    "wempty": (put("fold1.safetensors", b"\0"), SLIDING),
    "wheader": (put("fold1.safetensors", b"\xff" * 8 + b"{}"), SLIDING),
    "wpickle": (put("fold1.safetensors", EVIL), SLIDING),
    "xempty": (put("network-float.xml", b" "), FLOAT),
    "xpickle": (put("network-float.xml", EVIL), FLOAT),
    "x_onnx": (put("network-float.xml", b"\x08\x08\x12\x07pytorch"), FLOAT),
    "xbomb": (
        put("network-float.xml", b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b '
            b'"&a;&a;&a;&a;&a;&a;&a;&a;">]><net name="&b;" version="11"><layers/></net>'),
        FLOAT,
    ),
    "xop": (edited("network-float.xml", b'type="Convolution"', b'type="Strange"'), FLOAT),
    "xoff": (edited("network-float.xml", b'offset="[1-9]\\d*"', b'offset="99999999"'), FLOAT),
    "xoff_negative": (edited("network-float.xml", b'offset="[1-9]\\d*"', b'offset="-9"'), FLOAT),
    "xbands": (edited("network-float.xml", b'shape="1,\\?,16"', b'shape="1,?,32"'), FLOAT),
    "xstride": (edited("network-float.xml", b'<stride value="\\d+" />', b""), FLOAT),
    "xstride0": (marked("stride", "0"), FLOAT),
    "xstride_text": (marked("stride", "x"), FLOAT),
    "xstride1": (marked("stride", "9999999"), FLOAT),
    "xsegment": (marked("segment", "99999999"), FLOAT),
    "bempty": (put("network-float.bin", b"\0"), FLOAT),
    "bnan": (lambda folder: (folder / "network-float.bin").write_bytes(
        b"\x00\x7e" * ((folder / "network-float.bin").stat().st_size // 2)), FLOAT),
    "int8_junk": (put("network-int8.xml", b"<?xml version='1.0'?><net/>"), INT8),
    "hub": (setting(backbone__name="hf-hub:evil/model"), SLIDING),
    "hub2": (setting(backbone__name="hf_hub:evil/model"), FLOAT),
    "local_dir": (setting(backbone__name="local-dir:/etc"), SLIDING),
    "backbone_url": (setting(backbone__name="https://evil.example/x"), SLIDING),
    "backbone_path": (setting(backbone__name="../../etc/passwd"), SLIDING),
    "backbone_unknown": (setting(backbone__name="evil"), SLIDING),
    "bands1e6": (setting(features__n_mels=100_000), FLOAT),
    "nfft": (setting(features__n_fft=2**30), FLOAT),
    "nfft1": (setting(features__n_fft=1), FLOAT),
    "hop0": (setting(features__hop_length=0), FLOAT),
    "rate1e9": (setting(features__sample_rate=10**9), FLOAT),
    "segment_tiny": (setting(features__segment=1e-9), FLOAT),
    "windows_large": (setting(windows__frames=10**7), SLIDING),
    "subtraction_duration": (setting(head__background_subtraction="duration"), FLOAT),
    "smoothing_boxes": (setting(head__smoothing_frames="boxes"), SLIDING),
    "smoothing_two": (setting(head__smoothing_frames=[1, 2]), SLIDING),
    "recipe_extra": (setting(extra=1), FLOAT),
    "recipe_stage": (setting(stages=[]), FLOAT),
    "recipe_of_ensemble": (keys(recipe={}), FLOAT),
    "embedding": (setting(embedding={"model": "/dev/zero"}), FLOAT),
    "embedding_share": (
        setting(backbone={"name": "embedding"}, windows={"frames": 8, "overlap": 0,
                                                         "inference_overlap": 0},
                embedding={"model": r"\\evil\share\x.onnx", "model_digest": "0" * 40},
                stages=[{"name": "masked", "masks": {"probability": 0}}]),
        FLOAT,
    ),
    "embedding_device": (
        setting(backbone={"name": "embedding"}, windows={"frames": 8, "overlap": 0,
                                                         "inference_overlap": 0},
                embedding={"model": "/dev/zero", "model_digest": "0" * 40},
                stages=[{"name": "masked", "masks": {"probability": 0}}]),
        FLOAT,
    ),
}  # fmt: skip
NAMES = [
    *("/etc/passwd", "/dev/zero", "../other/fold1.safetensors", "./fold1.safetensors", "."),
    *("..\\fold1.safetensors", "C:fold1.safetensors", "\\\\evil\\share\\fold1.safetensors"),
    *("fold1.safetensors:stream", "CON.safetensors", "fold1.safetensors ", "fold1.safetensors."),
    *("FOLD0.safetensors", "fold0.safetensors", "fold1.pt", "fold1.pkl", "", "\u202efold1.st"),
    *("fo\0ld1.safetensors", "x" * 300 + ".safetensors", "https://evil.example/x.safetensors"),
]
NETWORKS = [
    *("/etc/passwd", "/dev/zero", "../other/network-float.xml", "evil.so", "evil.pkl"),
    *("evil.pdmodel", "evil.tflite", "evil.onnx", "evil.npy", "evil.xml", "network-int8.xml"),
]
ENSEMBLES = {
    "weights_of_another_shape": blend(weights=[[0.5] * 3]),
    "weights_negative": blend(weights=[[1.0] * 3, [-1.0] * 3]),
    "ranks_empty": blend(ranks=[]),
    "ranks_fall": blend(ranks=[{"scores": [[1.0, 0.0]] * 3, "ranks": [[0.0, 1.0]] * 3}] * 2),
    "two_classes": blend(classes=["a", "b"]),
    "other_classes": blend(classes=["a", "b", "x"]),
    "slopes_text": blend(slopes=["1", "1"]),
    "slopes_huge": blend(slopes=[1e300, 1.0]),
    "method": blend(method="exec"),
    "no_blend": keys(blend=None),
    "members_text": keys(members="abc"),
    "members_itself": keys(members=[".", "other"]),
    "members_parent": keys(members=["..", "other"]),
    "members_absolute": keys(members=["/etc", "other"]),
    "members_missing": keys(members=["model", "gone"]),
    "members_twice": keys(members=["model", "model"]),
    "member_with_other_species": lambda folder: change(
        folder / "members" / "other", species=["c", "b", "a"]
    ),
    "member_is_ensemble": member_is_ensemble,
    "member_link": member_link,
}
CASES = {
    **{name: ("model", *case, False) for name, case in UNSEALED.items()},
    **{f"sealed_{name}": ("model", *case, True) for name, case in SEALED.items()},
    **{f"weights_{name!r:.30}": ("model", renamed(name), SLIDING, False) for name in NAMES},
    **{f"network_{name}": ("model", network(name), FLOAT, False) for name in NETWORKS},
    **{f"ensemble_{name}": ("ens", edit, FLOAT, True) for name, edit in ENSEMBLES.items()},
}


@pytest.mark.parametrize("name", CASES)
def test_hostile_bundle_is_refused_with_one_message(home, tmp_path, predict, name):
    source, edit, options, sealed = CASES[name]
    for folder in ("model", "other", "ens"):
        shutil.copytree(home / folder, tmp_path / folder)
    edit(tmp_path / source)
    if sealed:
        with suppress(KeyError, TypeError, OSError, UserError):  # where nothing can be sealed
            seal(tmp_path / source)
    code, text = predict(tmp_path / source, options)
    assert code == 2, text
    assert re.fullmatch(r"antpitta: [^\n]+ \[E_[A-Z_]+\]\n", text), text
    assert "Traceback" not in text
    assert len(text) < 1500
    assert not RAN
    assert not list(tmp_path.glob("out/*.csv"))


@pytest.mark.parametrize("options", [FLOAT, INT8, SLIDING])
def test_model_and_ensemble_that_are_whole_predict(home, tmp_path, predict, options):
    for folder in ("model", "ens"):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        code, text = predict(home / folder, options)
        assert code == 0, text


def test_bundle_that_is_sealed_anew_reads_back(home, tmp_path):
    for name in ("model", "ens"):
        shutil.copytree(home / name, tmp_path / name)
        seal(tmp_path / name)
        assert read_bundle(tmp_path / name).digest == read_bundle(home / name).digest


def test_blend_of_another_shape_is_an_error(home):
    content = read_bundle(home / "ens").blend
    for key, value in (("weights", [[0.5] * 3]), ("ranks", []), ("slopes", [1.0]), ("method", 1)):
        with pytest.raises(UserError) as error:
            Blend.from_json({**content, key: value})
        assert error.value.code in ("E_MODEL_DAMAGED", "E_ENSEMBLE_METHOD")
    with pytest.raises(UserError):
        Blend.from_json({})


@pytest.mark.parametrize("name", ["hf-hub:evil/model", "hf_hub:x", "local-dir:/etc", "a/b", "évil"])
def test_backbone_is_an_architecture_and_never_an_address(name, predict):
    with pytest.raises(UserError) as error:
        read_recipe("demo", (f"backbone.name={name}",))
    assert error.value.code == "E_SETTING_VALUE"
    backbone = read_recipe("demo").backbone.model_copy(update={"name": name})
    with pytest.raises(UserError) as error:
        build_backbone(backbone, load_weights=False)
    assert error.value.code == "E_BACKBONE_UNKNOWN"


# ---- settings

DEEP_TOML = "a = " + "[" * 5000 + "]" * 5000


@pytest.mark.parametrize(
    "change",
    [
        *("seed=99999999999999999999999", "seed=9223372036854775807", "seed=-1", "seed=" + DIGITS),
        *("split_seed=4294967296", "features.segment=1e-9", "features.segment=1e300"),
        *("features.n_mels=5000", "features.n_fft=1", "features.n_fft=1000000007"),
        *(
            "features.n_fft=64",
            "features.n_fft=1023",
            "features.hop_length=0",
            "features.hop_length=1",
        ),
        *("features.top_db=1e300", "features.fmin=7999.9999", "features.fmax=NaN"),
        *("windows.frames=10000000", "windows.frames=65536", "head.smoothing_frames=1000000"),
        *("head.class_band_limits=[[5,5]]", "head.class_band_limits=[[0,999]]"),
        *("head.class_band_limits=[[-1,4]]", "backbone.reduction=1000000", "backbone.name=a/b"),
        *("stages.masked.lr=1e30", "stages.masked.lr=Infinity", "stages.masked.weight_decay=1e300"),
        *("stages.masked.epochs=1000000000", "stages.masked.batch_size=1000000000"),
        *("stages.masked.loss.focal_gamma=1e300", "stages.masked.loss.soft_weight=1e300"),
        *("stages.masked.mixup=1e300", "stages.masked.crop_shifts=[99999999999]"),
        *("stages.masked.masks.max_frames=99999999999", "stages.pseudo.pseudo.cycles=1000000"),
        *("head.zero_shot_weight=1e300", "folds=1000000000"),
        *("features.sample_rate=1000000000", "folds=" + "[" * 5000 + "]" * 5000),
        *("a" + ".a" * 5000 + "=1", "name=" + "[" * 90 + "]" * 90),
    ],
)
def test_setting_beyond_its_bounds_is_one_message(change):
    with pytest.raises(UserError) as error:
        read_recipe("demo", (change,))
    assert error.value.code in ("E_SETTING_VALUE", "E_UNKNOWN_SETTING")
    assert change[:4] in error.value.what


def test_shipped_recipes_are_within_the_bounds():
    for name in shipped_recipes():
        assert read_recipe(name).stages


@pytest.mark.parametrize("text", [DEEP_TOML, f"seed = {DIGITS}", "a" + ".a" * 2000 + " = 1"])
def test_deep_toml_is_one_message(tmp_path, text):
    (tmp_path / "deep.toml").write_text(text)
    with pytest.raises(UserError):
        read_recipe(str(tmp_path / "deep.toml"))
    (tmp_path / "antpitta.toml").write_text(text)
    with pytest.raises(UserError):
        read_source(tmp_path)


def test_loss_that_is_no_number_names_stage_fold_and_epoch(
    tmp_path, staged_recipe, staged_data, make_run
):
    stages = [s.model_copy(update={"lr": 1e30}) for s in staged_recipe.stages]
    run = make_run(tmp_path / "run")
    recipe = staged_recipe.model_copy(update={"stages": tuple(stages)})
    with pytest.raises(UserError) as error:
        run_stages(replace(run, plan=replace(run.plan, recipe=recipe)))
    assert error.value.code == "E_LOSS_NOT_FINITE"
    assert re.search(r"stage crops, fold 1: .*epoch \d", error.value.what)
