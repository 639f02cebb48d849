"""Crafted packages write nothing outside the folder, leave no link, and fill no disk."""

from __future__ import annotations

import io
import lzma
import os
import shutil
import tarfile

import pytest

from taichu_jax.data import fetch
from taichu_jax.data.archive import Limits, unpack_deb
from taichu_jax.errors import UserError
from tests.data.files import deb, tar

FILE, LINK, HARD = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
SMALL = Limits(total=10_000, one=6_000, members=20)


@pytest.fixture
def unpack(tmp_path):
    """Unpacks members; returns ({name: content} of what came out, what was left out)."""

    def run(*members, package=None, limits=SMALL):
        (tmp_path / "a.deb").write_bytes(package or deb(tar(*members)))
        skipped = unpack_deb(tmp_path / "a.deb", tmp_path / "in" / "out", limits)
        assert {path.name for path in tmp_path.iterdir()} == {"a.deb", "in"}
        assert [path.name for path in (tmp_path / "in").iterdir()] == ["out"]
        found = [path for path in (tmp_path / "in" / "out").rglob("*") if not path.is_dir()]
        assert not any(path.is_symlink() or path.stat().st_nlink > 1 for path in found)
        out = {str(path.relative_to(tmp_path / "in" / "out")): path.read_bytes() for path in found}
        return out, [entry.path for entry in skipped]

    return run


@pytest.mark.parametrize("name", [b"data.tar.gz", b"data.tar.xz", b"data.tar.zst", b"data.tar"])
def test_packages_of_every_compression(unpack, name, monkeypatch):
    if name not in (b"data.tar.gz", b"data.tar.xz"):
        monkeypatch.setattr(shutil, "which", lambda _: None)
        with pytest.raises(
            UserError, match=r"cannot unpack data\.tar.* without dpkg; install dpkg"
        ):
            unpack(package=deb(b"", name))
        return
    mode = {b"data.tar.gz": "w:gz", b"data.tar.xz": "w:xz"}[name]
    package = deb(
        tar(("./usr/a.txt", FILE, b"A."), ("usr/b/c", FILE, b"x" * 5000), mode=mode), name
    )
    assert unpack(package=package) == ({"usr/a.txt": b"A.", "usr/b/c": b"x" * 5000}, [])


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_what_python_cannot_unpack_goes_through_dpkg_and_the_same_checks(unpack):
    package = deb(tar(("a", FILE, b"A."), ("../b", FILE, b"B."), mode="w"), b"data.tar")
    package = package.replace(b"control.tar.xz", b"control.tar   ")
    assert unpack(package=package) == ({"a": b"A."}, ["../b"])


@pytest.mark.parametrize(
    "name", ["/etc/evil", "../evil", "a/../../evil", "./../evil", "a\nb", "a\x1b[2J", "a\udcffb"]
)
def test_names_that_lead_out_or_cannot_be_shown(unpack, name):
    out, skipped = unpack((name, FILE, b"evil"), ("good", FILE, b"good"))
    assert out == {"good": b"good"} and skipped == [ascii(name)[1:-1]]


@pytest.mark.parametrize("kind", [LINK, HARD])
@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../../etc/passwd", "..", ".", "nothing", "self"]
)
def test_links_that_lead_out_are_left_out(unpack, kind, target):
    out, skipped = unpack(
        ("self", kind, target), ("self/evil", FILE, b"evil"), ("x/y", kind, target)
    )
    assert set(out) <= {"self/evil"} and {"self", "x/y"} <= set(skipped)


def test_links_within_the_archive_become_copies(unpack):
    members = [("d/b", LINK, "../a"), ("c", HARD, "a"), ("./a", FILE, b"A."), ("e", LINK, "d/b")]
    out, skipped = unpack(*members)
    assert out == {"a": b"A.", "c": b"A.", "d/b": b"A.", "e": b"A."} and skipped == []


def test_devices_pipes_and_second_members_are_left_out(unpack):
    members = [("a", kind, b"") for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)]
    out, skipped = unpack(*members, ("b", FILE, b"1"), ("b", FILE, b"2"))
    assert out == {"b": b"1"} and skipped == ["a", "a", "a", "b"]


def test_modes_and_owners_are_those_of_any_new_file(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("a")
        member.mode, member.uid = 0o6777, 4242
        archive.addfile(member)
    (tmp_path / "a.deb").write_bytes(deb(buffer.getvalue()))
    unpack_deb(tmp_path / "a.deb", tmp_path / "out")
    stat = (tmp_path / "out" / "a").stat()
    assert not stat.st_mode & 0o7111 and stat.st_uid == os.getuid()


@pytest.mark.parametrize(
    "members, reason",
    [
        ([("a", FILE, bytes(6001))], "more than 6,000 bytes in a file"),
        ([(f"{i}", FILE, bytes(5000)) for i in range(3)], "10,000 in all"),
        ([("a", FILE, bytes(4000)), *((f"{i}", LINK, "a") for i in range(3))], "10,000 in all"),
        ([(f"{i}", FILE, b"") for i in range(21)], "more than 20 members"),
        ([("x" * 2_000_000, FILE, b"")], "absurdly long"),
        ([("a", tarfile.FIFOTYPE, b""), ("b", b"Z", bytes(60_000))], "more than|larger than"),
    ],
)
def test_bombs_are_stopped(unpack, members, reason):
    with pytest.raises(UserError, match=reason):
        unpack(*members)


def test_a_bomb_is_never_held_at_once(tmp_path):
    import tracemalloc

    body = lzma.compress(tar(("a", FILE, bytes(60_000_000)), mode="w"), preset=0)
    (tmp_path / "a.deb").write_bytes(deb(body, b"data.tar.xz"))
    tracemalloc.start()
    with pytest.raises(UserError, match="in a file"):
        unpack_deb(tmp_path / "a.deb", tmp_path / "out", SMALL)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_half_a_package_is_named(tmp_path):
    body = deb(lzma.compress(tar(("a", FILE, os.urandom(3000)), mode="w")), b"data.tar.xz")
    for size in (0, 5, 60, 140, len(body) // 2, len(body) - 20):
        (tmp_path / "a.deb").write_bytes(body[:size])
        with pytest.raises(
            UserError, match=r"a\.deb: cannot be unpacked .*; delete it and try again"
        ):
            unpack_deb(tmp_path / "a.deb", tmp_path / f"out{size}")


# ------------------------------------------------------------------------------------ download


APT = """#!/bin/sh
case "$*" in
*print-uris*) echo "'http://x/y' {name} {size} SHA256:{digest}";;
*" download tux"*) {download};;
esac
"""


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """A made-up apt-get; returns what `fetch.collection` finds."""
    import hashlib

    stamps = str(fetch.INSIDE / "animals")
    package = deb(tar((f"{stamps}/a.txt", FILE, b"A."), (f"{stamps}/../../evil", FILE, b"")))
    (tmp_path / "whole.deb").write_bytes(package)
    work = tmp_path / "data" / "downloads" / fetch.PACKAGE

    def run(
        download=f"cp {tmp_path}/whole.deb {{name}}", name=f"{fetch.PACKAGE}_1_all.deb", digest=None
    ):
        known = digest or hashlib.sha256(package).hexdigest()
        facts = {"name": name, "size": len(package), "digest": known}
        script = APT.format(download=download.format(name=name), **facts)
        (tmp_path / "apt-get").write_text(script)
        (tmp_path / "apt-get").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return fetch.collection(tmp_path / "data"), work

    return run


def test_a_package_is_downloaded_checked_and_unpacked(apt, capsys):
    found, work = apt()
    assert found.kind == "package" and (found.path / "animals/a.txt").read_text() == "A."
    assert "left out of the package:" in capsys.readouterr().out
    again, _ = apt(download="exit 1")  # nothing is asked for a second time
    assert again == found and (work / "unpacked").is_dir()


def test_another_checksum_is_named_and_nothing_is_used(apt, tmp_path):
    with pytest.raises(UserError, match=r"SHA256 is \w{64}, the index says 0{64}; deleted"):
        apt(digest="0" * 64)
    work = tmp_path / "data" / "downloads" / fetch.PACKAGE
    assert not list(work.glob("*.deb")) and not (work / "unpacked").exists()


def test_half_a_download_is_not_taken_as_whole_and_goes_on(apt, tmp_path):
    half, work = apt(download=f"head -c 300 {tmp_path}/whole.deb > {{name}}; echo E: broken")
    assert half.kind == "sample" and "broken" in half.message and not (work / "unpacked").exists()
    (work / "unpacked.partial").mkdir()
    (work / "unpacked.partial" / "old").write_text("of a process that was killed")
    whole, _ = apt()
    assert whole.kind == "package" and not (whole.path.parents[3] / "old").exists()


@pytest.mark.parametrize("name", ["../../evil.deb", "/tmp/evil.deb", "other_1.deb"])
def test_an_index_cannot_say_where_to_write(apt, name, tmp_path):
    found, _ = apt(name=name, download="exit 7")
    assert found.kind == "sample" and "names no package" in found.message
