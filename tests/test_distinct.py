"""Short names for paths that are all different."""

from pathlib import Path

from antpitta.files.recordings import short_names, short_path_names


def test_as_few_folders_as_tell_paths_apart(tmp_path):
    names = ["seed1/quick", "seed2/quick", "seed1/best", "old/seed1/quick"]
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.mkdir(parents=True)
    home = tmp_path.name
    assert short_path_names(paths[:3]) == ["seed1-quick", "seed2-quick", "best"]
    assert short_path_names(paths) == [
        f"{home}-seed1-quick",
        "seed2-quick",
        "best",
        "old-seed1-quick",
    ]


def test_a_table_loses_its_suffix_and_a_folder_does_not(tmp_path):
    (tmp_path / "v1.2").mkdir()
    assert short_path_names([tmp_path / "theirs.csv", tmp_path / "v1.2"]) == ["theirs", "v1.2"]


def test_what_nothing_tells_apart_keeps_its_last_name():
    assert short_names([["a", "b/a"], ["a", "b/a"], ["a", "c/a"]]) == ["b/a", "b/a", "c/a"]
    assert short_names([]) == []
    twice = short_path_names([Path("/x/run"), Path("/x/run")])
    assert twice == ["x-run", "x-run"]
