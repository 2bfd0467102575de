"""Archives: the same bytes from the same files, and nothing but plain files out of them."""

import gzip
import hashlib
import io
import json
import os
import tarfile

import pytest

from llama_exp.errors import InputError, StorageError
from llama_exp.files.archive import MANIFEST, unpack_archive, write_archive

FILES = {"a.txt": b"one", "data/0/b.txt": b"two" * 1000, "empty": b""}


@pytest.fixture
def archive(tmp_path):
    write_archive(tmp_path / "run.tar.gz", FILES, {"schema": 1})
    return tmp_path / "run.tar.gz"


def test_what_goes_in_comes_out(archive, tmp_path):
    manifest = unpack_archive(archive, tmp_path / "out")
    assert manifest["schema"] == 1 and set(manifest["files"]) == set(FILES)
    found = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }  # noqa: E501
    assert found == FILES


def test_the_same_files_make_the_same_bytes(archive, tmp_path):
    (tmp_path / "b.txt").write_bytes(FILES["data/0/b.txt"])
    os.utime(tmp_path / "b.txt", (1, 1))
    again = {"empty": b"", "data/0/b.txt": tmp_path / "b.txt", "a.txt": b"one"}
    write_archive(tmp_path / "other name.tar.gz", again, {"schema": 1})
    assert (tmp_path / "other name.tar.gz").read_bytes() == archive.read_bytes()


def test_tar_reads_it_too(archive):
    with tarfile.open(archive) as tar:
        assert tar.getnames() == [MANIFEST, *sorted(FILES)]
        assert {member.mtime for member in tar} == {0} and {member.uname for member in tar} == {""}


def packed(path, members):
    """A tar.gz of (TarInfo, content) as tarfile writes them."""
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def member(name, content=b"x", kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, content if kind == tarfile.REGTYPE else b""


def manifest_of(**files):
    entries = {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in files.items()}
    return member(MANIFEST, json.dumps({"files": entries}).encode())


HOSTILE = {
    "a link": [manifest_of(a=b"x"), member("a", kind=tarfile.SYMTYPE, target="/etc/passwd")],
    "a hard link": [manifest_of(a=b"x"), member("a", kind=tarfile.LNKTYPE, target="b")],
    "a device": [manifest_of(a=b"x"), member("a", kind=tarfile.CHRTYPE)],
    "a pipe": [manifest_of(a=b"x"), member("a", kind=tarfile.FIFOTYPE)],
    "a folder": [manifest_of(a=b"x"), member("a", kind=tarfile.DIRTYPE)],
    "an absolute name": [manifest_of(a=b"x"), member("/tmp/a")],
    "a name above": [manifest_of(a=b"x"), member("../a")],
    "a name above inside": [manifest_of(a=b"x"), member("b/../../a")],
    "a long name": [manifest_of(a=b"x"), member("a" * 300)],
    "a name of control characters": [manifest_of(a=b"x"), member("a\x1b[2J")],
    "such a name in the manifest": [manifest_of(**{"../a": b"x"}), member("a")],
    "a file that is not listed": [manifest_of(a=b"x"), member("a"), member("b")],
    "a file twice": [manifest_of(a=b"x"), member("a"), member("a")],
    "a file that is lacking": [manifest_of(a=b"x", b=b"y"), member("a")],
    "another content": [manifest_of(a=b"x"), member("a", b"y")],
    "no manifest": [member("a")],
    "a manifest that is none": [member(MANIFEST, b"[]"), member("a")],
    "a manifest without files": [member(MANIFEST, b'{"files": 3}'), member("a")],
    "nothing": [],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_plain_file_refuses_the_whole_archive(tmp_path, name):
    packed(tmp_path / "bad.tar.gz", HOSTILE[name])
    with pytest.raises(InputError):
        unpack_archive(tmp_path / "bad.tar.gz", tmp_path / "out" / "run")
    assert not (tmp_path / "out" / "run").exists() and list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("cut", [0, 1, 10, 40, -200, -30])
def test_a_cut_archive_is_refused(archive, tmp_path, cut):
    archive.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(InputError, match="cut short|damaged|no archive"):
        unpack_archive(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_flipped_byte_is_noticed_or_harmless(archive, tmp_path):
    content = archive.read_bytes()
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        archive.write_bytes(bytes(damaged))
        try:
            unpack_archive(archive, tmp_path / "out")
        except InputError:
            continue
        assert (tmp_path / "out" / "a.txt").read_bytes() == b"one"  # a byte of gzip's own header


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path):
    with gzip.open(tmp_path / "bomb.tar.gz", "wb") as file:
        (info, content), big = manifest_of(a=b"x"), tarfile.TarInfo("a")
        info.size, big.size = len(content), 1 << 32
        file.write(info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512))
        file.write(big.tobuf(tarfile.USTAR_FORMAT))
    with pytest.raises(InputError, match="too large"):
        unpack_archive(tmp_path / "bomb.tar.gz", tmp_path / "out", max_bytes=1 << 20)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.tar.gz")
    for name in ("pipe.tar.gz", "absent.tar.gz", "."):
        with pytest.raises(InputError):
            unpack_archive(tmp_path / name, tmp_path / "out")


def test_names_that_cannot_be_unpacked_are_not_packed(tmp_path):
    for name in ("../a", "/a", "ä", "a" * 101, "a\nb", ""):
        with pytest.raises(ValueError, match="no name"):
            write_archive(tmp_path / "x.tar.gz", {name: b""}, {})


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_archive(tmp_path / "file" / "x.tar.gz", FILES, {})
