"""A user's file is never replaced or deleted: manifests, digests and locks of output folders."""

import json
import subprocess
import sys

import pytest

from antpitta.core.errors import UserError
from antpitta.files.locks import lock_folder
from antpitta.files.manifest import (
    MANIFEST,
    check_own_files,
    check_own_folder,
    replace_files,
    write_manifest,
)


def write(folder, *, complete=True, merged=(), **texts):
    with replace_files(folder, "prediction", complete=complete, merged=merged) as new:
        for name, text in texts.items():
            (new / f"{name}.csv").write_text(text)


def code_of(function, *arguments, **options):
    with pytest.raises(UserError) as error:
        function(*arguments, **options)
    return error.value.code


def listing(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.suffix == ".csv"}


def test_own_files_are_replaced_and_obsolete_ones_deleted(tmp_path):
    write(tmp_path, a="1", b="1")
    write(tmp_path, a="2")
    assert listing(tmp_path) == {"a.csv": "2"}
    assert not list(tmp_path.glob(".unfinished-*"))
    assert list(json.loads((tmp_path / MANIFEST).read_text())["files"]) == ["a.csv"]


def test_files_that_are_not_the_whole_output_leave_the_others(tmp_path):
    write(tmp_path, a="1", b="1")
    write(tmp_path, complete=False, a="2")
    assert listing(tmp_path) == {"a.csv": "2", "b.csv": "1"}
    check_own_folder(tmp_path, "prediction")


def test_edited_file_is_neither_replaced_nor_deleted(tmp_path):
    write(tmp_path, a="1", b="1")
    (tmp_path / "a.csv").write_text("mine")
    assert code_of(check_own_files, tmp_path, "prediction") == "E_OUTPUT_EDITED"
    assert code_of(write, tmp_path, a="2", b="2") == "E_OUTPUT_EDITED"
    assert listing(tmp_path) == {"a.csv": "mine", "b.csv": "1"}
    write(tmp_path, b="2")  # a.csv is no longer part of the output, and stays
    assert listing(tmp_path) == {"a.csv": "mine", "b.csv": "2"}


def test_file_that_a_user_added_is_neither_replaced_nor_deleted(tmp_path):
    (tmp_path / "a.csv").write_text("mine")
    assert code_of(check_own_files, tmp_path, "prediction", ["a.csv"]) == "E_OUTPUT_EDITED"
    assert code_of(write, tmp_path, a="1") == "E_OUTPUT_EDITED"
    write(tmp_path, b="1")
    assert listing(tmp_path) == {"a.csv": "mine", "b.csv": "1"}
    assert code_of(check_own_folder, tmp_path, "prediction") == "E_OUTPUT_EDITED"


def test_link_is_not_followed(tmp_path):
    (tmp_path / "target.csv").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.csv").symlink_to(tmp_path / "target.csv")
    assert code_of(write, tmp_path / "out", a="1") == "E_OUTPUT_EDITED"
    assert (tmp_path / "target.csv").read_text() == "mine"


def test_error_in_the_block_leaves_everything_as_it_was(tmp_path):
    write(tmp_path, a="1")
    blocks = replace_files(tmp_path, "prediction")
    (blocks.__enter__() / "a.csv").write_text("2")
    assert not blocks.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert listing(tmp_path) == {"a.csv": "1"}
    assert not list(tmp_path.glob(".unfinished-*"))


def test_killed_move_leaves_no_file_that_looks_like_a_users(tmp_path, monkeypatch):
    write(tmp_path, a="1", b="1")
    moved = []
    rename = type(tmp_path).replace

    def move_one_table(self, target):
        if target.suffix == ".csv":
            if moved:
                raise KeyboardInterrupt
            moved.append(target)
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "replace", move_one_table)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, a="2", b="2")
    assert sorted(listing(tmp_path).values()) == ["1", "2"]
    check_own_folder(tmp_path, "prediction")
    write(tmp_path, a="3", b="3")
    assert listing(tmp_path) == {"a.csv": "3", "b.csv": "3"}


def test_merged_file_may_be_edited(tmp_path):
    write(tmp_path, a="1")
    (tmp_path / "a.csv").write_text("mine")
    check_own_files(tmp_path, "prediction", merged=("a.csv",))
    with replace_files(tmp_path, "prediction", merged=("a.csv",)) as new:
        (new / "a.csv").write_text((new / "a.csv").read_text() + " and yours")
    assert listing(tmp_path) == {"a.csv": "mine and yours"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "prediction", "files": 3}', "\0"])
def test_damaged_manifest_makes_no_file_ours(tmp_path, text):
    write(tmp_path, a="1")
    (tmp_path / MANIFEST).write_text(text)
    assert code_of(check_own_folder, tmp_path, "prediction") == "E_OUTPUT_EDITED"


def test_folder_of_another_kind_is_not_replaced(tmp_path):
    (tmp_path / "a.csv").write_text("1")
    write_manifest(tmp_path, "model")
    check_own_folder(tmp_path, "model")
    assert code_of(check_own_folder, tmp_path, "ensemble") == "E_OUTPUT_EDITED"
    check_own_folder(tmp_path / "missing", "ensemble")
    assert code_of(check_own_folder, tmp_path / "a.csv", "ensemble") == "E_OUTPUT_EDITED"


def test_locked_folder_is_refused_until_its_command_ends(tmp_path):
    with lock_folder(tmp_path / "out"):
        assert code_of(lock_folder(tmp_path / "out").__enter__) == "E_OUTPUT_LOCKED"
        code = (
            "import sys, pathlib; from antpitta.files.locks import lock_folder;"
            "lock_folder(pathlib.Path(sys.argv[1])).__enter__()"
        )
        child = [sys.executable, "-c", code, str(tmp_path / "out")]
        done = subprocess.run(child, capture_output=True, text=True, check=False)
        assert "another command is writing" in done.stderr
    with lock_folder(tmp_path / "out"):
        pass


def test_folder_that_cannot_be_made_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert code_of(lock_folder(tmp_path / "file" / "x").__enter__) == "E_OUTPUT_NOT_WRITABLE"
