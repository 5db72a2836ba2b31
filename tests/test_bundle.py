"""The bundle: written completely or not at all, read back equal, and free of pickle."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from antpitta.core.errors import UserError
from antpitta.core.thresholds import unsupported_threshold
from antpitta.files.bundle import (
    Bundle,
    bundle_from_bytes,
    bundle_to_bytes,
    read_bundle,
    write_bundle,
)
from antpitta.files.bundle_schema import LAYOUT
from antpitta.files.own_files import save_tensors
from antpitta.files.recipes import read_recipe

INF = float("inf")
FILLED = (  # as after training
    "head.background_subtraction=0.5",
    "head.smoothing_frames=8",
    "head.class_band_limits=null",
)


def weights(folder, count=2, fill=0.0):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"weights{k}.safetensors" for k in range(count)]
    for k, path in enumerate(paths):
        save_tensors({"a": torch.full((3,), k + fill)}, path)
    return paths


def few_boxes(value):
    return unsupported_threshold("few boxes", 3, 4, value)


def bundle(path, **more):
    return Bundle(
        path,
        **{
            "name": "mine",
            "species": ("coqui", "owl, the"),
            "recipe": read_recipe("quick", FILLED).model_dump(),
            "weights": ("fold0.safetensors", "fold1.safetensors"),
            "thresholds": {"coqui": few_boxes(0.31), "owl, the": few_boxes(0.5)},
            "bands": {"coqui": (1000.0, 3000.0), "owl, the": (0.0, INF)},
            "provenance": {"data": "abc", "counts": {"present": 3}},
            **more,
        },
    )


def test_written_bundle_reads_back_from_its_folder_and_from_the_run(tmp_path):
    made = bundle(tmp_path / "run" / "model")
    written = write_bundle(made, weights(tmp_path / "w"), "# card\né")
    for read in (written, read_bundle(tmp_path / "run" / "model"), read_bundle(tmp_path / "run")):
        assert read.path == tmp_path / "run" / "model"
        for key in ("name", "species", "weights", "thresholds", "bands", "members", "provenance"):
            assert getattr(read, key) == getattr(made, key)
        assert read.classes.names == made.species
        assert read.digest
        assert [float(state["a"][0]) for state in read.states()] == [0, 1]
    assert (made.path / "MODEL_CARD.md").read_text(encoding="utf-8") == "# card\né"


def test_model_with_removed_settings_is_too_old_and_names_them(tmp_path):
    recipe = read_recipe("quick", FILLED).model_dump() | {"overlay": {"copies": 0}}
    with pytest.raises(UserError) as error:
        write_bundle(bundle(tmp_path / "model", recipe=recipe), weights(tmp_path / "w"), "card")
    assert error.value.code == "E_MODEL_TOO_OLD"
    assert error.value.what.endswith("overlay")


def test_bundle_has_no_executable_file(tmp_path):
    write_bundle(bundle(tmp_path / "model"), weights(tmp_path / "w"), "card")
    names = sorted(path.name for path in (tmp_path / "model").rglob("*") if path.is_file())
    assert names == [
        ".antpitta.json",
        "MODEL_CARD.md",
        "bundle.json",
        "fold0.safetensors",
        "fold1.safetensors",
    ]


def test_digest_changes_with_the_weights_and_with_the_content(tmp_path):
    def digest(fill=0.0, **more):
        made = bundle(tmp_path / "model", **more)
        return write_bundle(made, weights(tmp_path / "w", fill=fill), "card").digest

    first = digest()
    assert digest() == first
    assert digest(fill=0.25) != first
    thresholds = bundle(tmp_path).thresholds
    assert digest(thresholds={**thresholds, "coqui": few_boxes(0.4)}) != first
    more = {**thresholds, "frog": few_boxes(0.5)}
    assert digest(species=("coqui", "owl, the", "frog"), thresholds=more) != first


def test_newer_bundle_replaces_all_of_the_older_one(tmp_path):
    write_bundle(bundle(tmp_path / "model"), weights(tmp_path / "w"), "old")
    newer = bundle(tmp_path / "model", weights=("only.safetensors",))
    write_bundle(newer, weights(tmp_path / "w", 1), "new")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {".antpitta.json", "MODEL_CARD.md", "bundle.json", "only.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == {"model", "w"}


def test_folder_with_other_files_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"x")
    with pytest.raises(UserError) as error:
        write_bundle(bundle(tmp_path / "photos"), weights(tmp_path / "w"), "card")
    assert error.value.code == "E_OUTPUT_EDITED"
    assert (tmp_path / "photos" / "one.jpg").exists()


def test_bundle_that_was_edited_is_not_replaced(tmp_path):
    for name in ("MODEL_CARD.md", "my_notes.txt"):
        path = tmp_path / name / "model"
        write_bundle(bundle(path), weights(tmp_path / "w"), "old")
        (path / name).write_text("mine")
        with pytest.raises(UserError) as error:
            write_bundle(bundle(path), weights(tmp_path / "w", 1), "new")
        assert error.value.code == "E_OUTPUT_EDITED"
        assert str(path / name) in error.value.what
        assert (path / name).read_text() == "mine"
        assert len(read_bundle(path).states()) == 2


def test_digest_is_that_of_the_content_and_not_of_the_name(tmp_path):
    written = [
        write_bundle(bundle(tmp_path / name, name=name), weights(tmp_path / "w"), "card")
        for name in ("a", "b")
    ]
    assert written[0].digest == written[1].digest
    assert written[0].name != written[1].name


def test_failed_write_leaves_the_old_bundle(tmp_path):
    write_bundle(bundle(tmp_path / "model"), weights(tmp_path / "w"), "old")
    with pytest.raises(UserError) as error:
        write_bundle(bundle(tmp_path / "model"), [tmp_path / "gone"] * 2, "new")
    assert error.value.code == "E_OUTPUT_NOT_WRITABLE"
    assert (tmp_path / "model" / "MODEL_CARD.md").read_text() == "old"
    assert len(read_bundle(tmp_path / "model").states()) == 2


def test_number_of_weight_files_must_fit(tmp_path):
    with pytest.raises(ValueError):
        write_bundle(bundle(tmp_path / "model"), weights(tmp_path / "w", 1), "card")


def test_ensemble_contains_its_members(tmp_path):
    for name in ("one", "two"):
        made = bundle(tmp_path / name, name=name)
        write_bundle(made, weights(tmp_path / f"w{name}", fill=len(name)), "card")
    blend = {
        **{"method": "mean", "members": ["one", "two"], "classes": ["coqui", "owl, the"]},
        **{"weights": [[0.5, 0.5], [0.5, 0.5]], "slopes": [1.0, 1.0], "offsets": [0.0, 0.0]},
        **{"scored": [[True, True], [True, True]], "ranks": []},
    }
    both = bundle(
        tmp_path / "both", name="both", recipe={}, weights=(), members=("one", "two"), blend=blend
    )
    written = write_bundle(both, [tmp_path / "one", tmp_path / "two"], "card")
    shutil.rmtree(tmp_path / "one")
    assert written.blend == blend
    assert [part.name for part in written.parts()] == ["one", "two"]
    assert all(len(part.states()) == 2 for part in written.parts())
    assert written.states() == []
    sent = bundle_from_bytes(bundle_to_bytes(written), tmp_path / "there")
    assert sent.digest == written.digest
    assert [part.digest for part in sent.parts()] == [part.digest for part in written.parts()]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "E_MODEL_DAMAGED"),
        ("[]", "E_MODEL_DAMAGED"),
        ('"text"', "E_MODEL_DAMAGED"),
        ("{}", "E_MODEL_DAMAGED"),
        ('{"layout": 3, "species": []}', "E_MODEL_TOO_OLD"),
        (f'{{"layout": {LAYOUT}, "species": []}}', "E_MODEL_DAMAGED"),
        ('{"layout": "one"}', "E_MODEL_DAMAGED"),
        (f'{{"layout": {LAYOUT + 1}, "new": 1}}', "E_MODEL_TOO_NEW"),
    ],
)
def test_damaged_or_newer_bundle_is_an_error(tmp_path, text, code):
    (tmp_path / "bundle.json").write_text(text)
    with pytest.raises(UserError) as error:
        read_bundle(tmp_path)
    assert error.value.code == code


def test_unknown_key_in_a_bundle_is_damage(tmp_path):
    write_bundle(bundle(tmp_path / "model"), weights(tmp_path / "w"), "card")
    file = tmp_path / "model" / "bundle.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"extra": 1}))
    with pytest.raises(UserError) as error:
        read_bundle(tmp_path / "model")
    assert error.value.code == "E_MODEL_DAMAGED"


def test_folder_without_a_bundle_is_an_error(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError) as error:
            read_bundle(folder)
        assert error.value.code == "E_NO_MODEL"
        assert str(folder) in error.value.what


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"\x08\0\0\0\0\0\0\0{}      "[:12]])
def test_missing_or_damaged_weights_are_an_error(tmp_path, content):
    written = write_bundle(bundle(tmp_path / "model"), weights(tmp_path / "w"), "card")
    file = tmp_path / "model" / "fold1.safetensors"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError) as error:
        written.states()
    assert error.value.code == "E_MODEL_DAMAGED"


def test_pickled_weights_are_refused(tmp_path):
    written = write_bundle(bundle(tmp_path / "model"), weights(tmp_path / "w"), "card")
    torch.save({"a": torch.ones(3)}, tmp_path / "model" / "fold0.safetensors")
    with pytest.raises(UserError) as error:
        written.states()
    assert error.value.code == "E_MODEL_DAMAGED"
    save_file({"a": torch.ones(3)}, tmp_path / "model" / "fold0.safetensors")
    assert len(written.states()) == 2


def test_repr_of_a_bundle_is_one_short_line(tmp_path):
    assert repr(bundle(tmp_path)) == "Bundle('mine': 2 species, 2 folds)"
