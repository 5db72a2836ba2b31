"""The bundle: what was put in comes out, whole or not at all, and nothing in it can run."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from antpitta.core.errors import UserError
from antpitta.files.bundle import LAYOUT, Bundle, read_bundle, write_bundle
from antpitta.files.recipes import read_recipe
from antpitta.files.runs import save_tensors

INF = float("inf")


def weights(folder, count=2, fill=0.0):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"weights{k}.safetensors" for k in range(count)]
    for k, path in enumerate(paths):
        save_tensors({"a": torch.full((3,), k + fill)}, path)
    return paths


def bundle(path, **more):
    return Bundle(
        path,
        **{
            "name": "mine",
            "species": ("coqui", "owl, the"),
            "recipe": read_recipe("quick").model_dump(),
            "weights": ("fold0.safetensors", "fold1.safetensors"),
            "thresholds": {"coqui": 0.31, "owl, the": 0.5},
            "bands": {"coqui": (1000.0, 3000.0), "owl, the": (0.0, INF)},
            "provenance": {"data": "abc", "counts": {"present": 3}},
            **more,
        },
    )


def test_what_was_put_in_comes_out(tmp_path):
    given = bundle(tmp_path / "run" / "model")
    written = write_bundle(given, weights(tmp_path / "w"), "# card\né")
    for found in (written, read_bundle(tmp_path / "run" / "model"), read_bundle(tmp_path / "run")):
        assert found.path == tmp_path / "run" / "model"
        for key in ("name", "species", "weights", "thresholds", "bands", "members", "provenance"):
            assert getattr(found, key) == getattr(given, key)
        assert found.classes.names == given.species
        assert found.digest
        assert [float(state["a"][0]) for state in found.states()] == [0, 1]
    assert (given.path / "MODEL_CARD.md").read_text(encoding="utf-8") == "# card\né"


def test_a_bundle_holds_no_file_that_could_run(tmp_path):
    write_bundle(bundle(tmp_path / "model"), weights(tmp_path / "w"), "card")
    names = sorted(path.name for path in (tmp_path / "model").rglob("*") if path.is_file())
    assert names == [
        "MODEL_CARD.md",
        "bundle.json",
        "fold0.safetensors",
        "fold1.safetensors",
    ]


def test_the_digest_changes_with_the_weights_and_with_what_is_said(tmp_path):
    def digest(fill=0.0, **more):
        made = bundle(tmp_path / "model", **more)
        return write_bundle(made, weights(tmp_path / "w", fill=fill), "card").digest

    one = digest()
    assert digest() == one
    assert digest(fill=0.25) != one
    assert digest(thresholds={"coqui": 0.4}) != one
    assert digest(species=("coqui", "owl")) != one


def test_a_newer_bundle_replaces_the_older_one_whole(tmp_path):
    write_bundle(bundle(tmp_path / "model"), weights(tmp_path / "w"), "old")
    one = bundle(tmp_path / "model", weights=("only.safetensors",))
    write_bundle(one, weights(tmp_path / "w", 1), "new")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"MODEL_CARD.md", "bundle.json", "only.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == {"model", "w"}


def test_a_folder_that_holds_something_else_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="no model"):
        write_bundle(bundle(tmp_path / "photos"), weights(tmp_path / "w"), "card")
    assert (tmp_path / "photos" / "one.jpg").exists()


def test_a_write_that_fails_leaves_the_bundle_that_was_there(tmp_path):
    write_bundle(bundle(tmp_path / "model"), weights(tmp_path / "w"), "old")
    with pytest.raises(OSError):
        write_bundle(bundle(tmp_path / "model"), [tmp_path / "gone"] * 2, "new")
    assert (tmp_path / "model" / "MODEL_CARD.md").read_text() == "old"
    assert len(read_bundle(tmp_path / "model").states()) == 2


def test_weights_that_are_not_all_given_are_a_mistake_of_ours(tmp_path):
    with pytest.raises(ValueError):
        write_bundle(bundle(tmp_path / "model"), weights(tmp_path / "w", 1), "card")


def test_an_ensemble_carries_its_members(tmp_path):
    for name in ("one", "two"):
        made = bundle(tmp_path / name, name=name)
        write_bundle(made, weights(tmp_path / f"w{name}", fill=len(name)), "card")
    blend = {"by": "mean", "weights": [0.5, 0.5]}
    both = bundle(
        tmp_path / "both", name="both", recipe={}, weights=(), members=("one", "two"), blend=blend
    )
    found = write_bundle(both, [tmp_path / "one", tmp_path / "two"], "card")
    shutil.rmtree(tmp_path / "one")
    assert found.blend == blend
    assert [part.name for part in found.parts()] == ["one", "two"]
    assert all(len(part.states()) == 2 for part in found.parts())
    assert found.states() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged"),
        ("[]", "is damaged"),
        ('"text"', "is damaged"),
        ("{}", "is damaged"),
        ('{"layout": 1, "species": []}', "is damaged"),
        ('{"layout": "one"}', "is damaged"),
        (f'{{"layout": {LAYOUT + 1}, "new": 1}}', "a later antpitta wrote this model"),
    ],
)
def test_a_bundle_that_cannot_be_read_is_the_users_mistake(tmp_path, text, message):
    (tmp_path / "bundle.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_bundle(tmp_path)


def test_a_key_that_nobody_knows_is_damage(tmp_path):
    write_bundle(bundle(tmp_path / "model"), weights(tmp_path / "w"), "card")
    file = tmp_path / "model" / "bundle.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"extra": 1}))
    with pytest.raises(UserError, match="is damaged"):
        read_bundle(tmp_path / "model")


def test_no_bundle_is_the_users_mistake(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="is no model"):
            read_bundle(place)


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"\x08\0\0\0\0\0\0\0{}      "[:12]])
def test_missing_or_damaged_weights_are_the_users_mistake(tmp_path, content):
    found = write_bundle(bundle(tmp_path / "model"), weights(tmp_path / "w"), "card")
    file = tmp_path / "model" / "fold1.safetensors"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match="weights cannot be read"):
        found.states()


def test_pickled_weights_are_refused(tmp_path):
    found = write_bundle(bundle(tmp_path / "model"), weights(tmp_path / "w"), "card")
    torch.save({"a": torch.ones(3)}, tmp_path / "model" / "fold0.safetensors")
    with pytest.raises(UserError, match="weights cannot be read"):
        found.states()
    save_file({"a": torch.ones(3)}, tmp_path / "model" / "fold0.safetensors")
    assert len(found.states()) == 2
