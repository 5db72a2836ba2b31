"""Names of species: tables of them, labels of embedding models, and how both are matched."""

import pytest

import antpitta as ap
from antpitta.core.errors import UserError
from antpitta.core.features import EmbeddingConfig
from antpitta.core.types import Classes, Dataset
from antpitta.files.known_models import KNOWN
from antpitta.files.species_names import (
    match_embedding_classes,
    match_species,
    read_labels,
    read_species_names,
)

LABELS = "Acris crepitans_Northern Cricket Frog\nAnaxyrus fowleri_Fowler's Toad\nnoise\n"


def write(path, text):
    path.write_text(text)
    return path


def dataset_of(*names, **aliases):
    return Dataset((), (), Classes(names), aliases)


def test_every_column_but_the_species_is_a_name_and_rows_of_a_species_add_up(tmp_path):
    table = write(
        tmp_path / "n.csv",
        "common,species_id,scientific\n"
        "gray treefrog,7,Dryophytes versicolor\n,7,Dryophytes chrysoscelis\n,8,\n",
    )
    assert read_species_names(table) == {
        "7": ("gray treefrog", "Dryophytes versicolor", "Dryophytes chrysoscelis"),
        "8": (),
    }


@pytest.mark.parametrize("header", ["name,scientific", "species"])
def test_table_of_names_without_a_species_or_name_column_is_an_error(tmp_path, header):
    with pytest.raises(UserError) as error:
        read_species_names(write(tmp_path / "n.csv", f"{header}\n"))
    assert error.value.code == "E_MISSING_COLUMN"
    assert header.replace(",", ", ") in error.value.what


def test_names_are_assigned_to_species_by_id_or_class_name(tmp_path, simulated):
    boxes = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\ntrain0000,3,1,1,100,2,200"
    write(tmp_path / "tp.csv", boxes)
    write(tmp_path / "n.csv", "species,name\n3,wood frog\ns3,Lithobates sylvaticus\n9,newt\n")
    write(
        tmp_path / "antpitta.toml",
        f'audio = "{simulated}/train"\npresent = "tp.csv"\nnames = "n.csv"\n',
    )
    opened = ap.open_data(tmp_path)
    assert opened.dataset.aliases == {"s3": ("wood frog", "Lithobates sylvaticus")}
    (finding,) = [finding for finding in opened.findings if finding.file.endswith("n.csv")]
    assert finding.code == "W_UNKNOWN_SPECIES"
    assert "'9'" in finding.what


def test_names_match_without_case_hyphens_and_apostrophes(tmp_path):
    classes = read_labels(write(tmp_path / "l.txt", LABELS))
    species = [
        ("fowlers-toad",),
        ("a", "ACRIS crepitans"),
        ("cricket",),
        ("x", "noise", "Fowler\u2019s toad"),
    ]
    assert match_species(classes, species) == ((1,), (0,), (), (1, 2))
    table = write(tmp_path / "l.csv", "code,name\nnocfro,Cricket Frog\n?,?\nfowtoa,Toad\n")
    assert match_species(read_labels(table), [("toad",), ("nocfro",)]) == ((2,), (0,))
    with pytest.raises(UserError) as error:
        read_labels(write(tmp_path / "l.txt", "\n"))
    assert error.value.code == "E_NO_LABELS"


def test_labels_of_a_recipe_fill_in_the_class_map(tmp_path):
    labels = write(tmp_path / "l.txt", LABELS)
    embedding = EmbeddingConfig(model="x.onnx", labels=str(labels))
    data = dataset_of("s0", "s1", s1=("noise",))
    matched = match_embedding_classes(embedding, data)
    assert (matched.class_map, matched.n_model_classes) == (((), (2,)), 3)
    assert match_embedding_classes(matched, data) == matched
    assert EmbeddingConfig.model_validate_json(matched.model_dump_json()) == matched
    with pytest.raises(UserError) as error:
        match_embedding_classes(embedding, dataset_of("s0"))
    assert error.value.code == "E_LABELS_WITHOUT_SPECIES"
    assert "s0" in error.value.what
    assert "--names" in error.value.remedy


def test_embedding_without_labels_is_unchanged():
    unused = EmbeddingConfig(model="x.onnx", labels=None)
    assert match_embedding_classes(unused, dataset_of("noise")) is unused
    unnamed = EmbeddingConfig(model="x.onnx")
    assert match_embedding_classes(unnamed, dataset_of("noise")) is unnamed
    assert not {"labels", "class_map", "n_model_classes"} & set(unnamed.model_dump())
    assert EmbeddingConfig.model_validate(unused.model_dump()).labels is None


def test_labels_beside_a_known_model_are_used_where_they_name_a_species(tmp_path, monkeypatch):
    file = tmp_path / KNOWN["birdnet"].file
    file.write_bytes(b"network")
    monkeypatch.setenv("ANTPITTA_EMBEDDING", str(file))
    birdnet = EmbeddingConfig(model="birdnet")
    assert match_embedding_classes(birdnet, dataset_of("noise")) is birdnet  # no labels beside it
    write(tmp_path / KNOWN["birdnet"].labels, LABELS)
    assert match_embedding_classes(birdnet, dataset_of("noise")).class_map == ((2,),)
    assert match_embedding_classes(birdnet, dataset_of("s0")) is birdnet
