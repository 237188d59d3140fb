"""Files are the old ones or the new ones, whole."""

import os

import pytest

from fdl.files import write_whole


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_kill_while_writing_leaves_the_old_file_whole(tmp_path, monkeypatch, broken):
    path = tmp_path / "file"
    write_whole(path, b"old")
    with monkeypatch.context() as patched:
        where = os if broken == "fsync" else type(path)
        patched.setattr(where, broken, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["file"]
    write_whole(path, "t\u00e4xt\n")
    assert path.read_bytes() == b"t\xc3\xa4xt\n" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "no" / "file", b"new")
    assert not any(tmp_path.iterdir())
