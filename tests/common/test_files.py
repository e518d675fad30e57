"""Files are written atomically."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import (
    atomic_write,
    decoded,
    read_json,
    read_text,
    read_tsv,
    sha256,
    write_json,
    write_text,
    write_tsv,
)


def test_atomic_write_keeps_only_the_old_file_if_the_block_fails(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "table.csv"
    write_text(file, "old")
    with pytest.raises(KeyboardInterrupt), atomic_write(file) as temporary:
        temporary.write_text("half of the new")
        assert file.read_text() == "old"
        raise KeyboardInterrupt
    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file]


def test_a_reader_of_the_old_file_reads_it_to_its_end(tmp_path: Path) -> None:
    """The new file takes the old one's name, not its place on the disk."""
    file = tmp_path / "table.csv"
    write_text(file, "old")
    with file.open() as reader:
        write_text(file, "new")
        assert reader.read() == "old"
    assert file.read_text() == "new"


def test_atomic_write_leaves_no_file_if_the_first_write_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError), atomic_write(tmp_path / "table.csv"):
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_the_temporary_file_has_the_suffix_of_the_file(tmp_path: Path) -> None:
    """Writers such as nibabel and matplotlib take the format from the ending."""
    with atomic_write(tmp_path / "figure.svg") as temporary:
        assert temporary.suffix == ".svg"
        assert temporary.parent == tmp_path


def test_atomic_write_gives_files_the_rights_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "table.csv", "a")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "table.csv").stat().st_mode) == 0o640


def test_numbers_read_from_json_are_bit_identical(tmp_path: Path) -> None:
    content = {"score": 0.1 + 0.2, "trials": ["ä", None, True], "n": 2**53 + 1}
    write_json(tmp_path / "recipe.json", content)
    assert read_json(tmp_path / "recipe.json") == content


def test_write_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "recipe.json", {"score": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_sha256_is_the_hash_of_the_content(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_table_with_any_cells_is_read_back(tmp_path: Path) -> None:
    rows = [{"case": 'a "b"\tc', "notes": "two\nlines"}, {"case": "", "notes": "ä; 1,5"}]
    write_tsv(tmp_path / "table.tsv", ["case", "notes"], rows)
    assert (tmp_path / "table.tsv").read_text().startswith("case\tnotes\n")
    assert read_tsv(tmp_path / "table.tsv") == rows


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_text_is_read_with_and_without_a_byte_order_mark(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "text"
    path.write_bytes(mark + "ä\r\nb\r\n".encode())
    assert decoded(path) == read_text(path, "a text", "check the path") == "ä\nb\n"
    path.write_bytes(mark + b'{"a": 1}')
    assert read_json(path) == {"a": 1}
    path.write_bytes(mark + b"case\tn\r\none\t1\r\n")
    assert read_tsv(path) == [{"case": "one", "n": "1"}]


def test_text_that_cannot_be_read_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file") as caught:
        read_text(tmp_path / "none", "a table", "correct `folds.file`")
    assert (caught.value.expected, caught.value.fix) == ("a table", "correct `folds.file`")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_text(tmp_path, "a table", "check the path")
    (tmp_path / "latin").write_bytes("ä".encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8 text") as caught:
        read_text(tmp_path / "latin", "a table", "check the path")
    assert caught.value.fix == "save the file as UTF-8"
