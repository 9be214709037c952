"""Hostile zip files."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mlhf.core.errors import DataError
from mlhf_service.datasets.archives import check_sizes, unpack_images

SUFFIXES = (".png", ".jpg")


def _zip(entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return out


def _unpack(file: Any, tmp_path: Path, entries: int = 100, size: int = 10**6) -> list[str]:
    target = tmp_path / "target"
    target.mkdir()
    unpack_images(file, target, SUFFIXES, entries, size)
    return sorted(p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file())


def test_folders_are_kept_and_rubbish_is_left_out(tmp_path: Path) -> None:
    names = ["train/a/1.png", "val/b/2.JPG", "__MACOSX/train/a/1.png", "train/.DS_Store", "test/"]
    assert _unpack(_zip(dict.fromkeys(names, b"x")), tmp_path) == ["train/a/1.png", "val/b/2.JPG"]


def test_what_systems_add_is_counted(tmp_path: Path) -> None:
    names = ["train/a/1.png", "train/a/._1.png", "__MACOSX/", "__MACOSX/train/a/._1.png"]
    names += ["__MACOSX/._train", ".DS_Store", "train/.DS_Store", "train/a/Thumbs.db"]
    others = unpack_images(_zip(dict.fromkeys(names, b"x")), tmp_path, SUFFIXES, 100, 10**6)
    assert others == [
        ".DS_Store: 2 files",
        "Thumbs.db: 1 files",
        "__MACOSX: 2 files",
        "train/a/._1.png",
    ]


def _windows_zip(names: list[str], system: int) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name
            info.create_system = system
            archive.writestr(info, b"x" * (not name.endswith("\\")))
    return file


@pytest.mark.parametrize("system", [0, 3, 10])
def test_backslashes_of_windows_are_between_folders(tmp_path: Path, system: int) -> None:
    names = ["set\\", "set\\train\\a\\1.png", "set\\val\\b\\2.png", "README.txt"]
    if system != 3:
        names.append("set/train/b\\3.png")
    found = _unpack(_windows_zip(names, system), tmp_path)
    assert found == ["train/a/1.png", *["train/b/3.png"] * (system != 3), "val/b/2.png"]


@pytest.mark.parametrize("system", [0, 3])
@pytest.mark.parametrize(
    "name", ["train\\..\\..\\a.png", "\\a.png", "\\\\host\\a.png", "C:\\a.png"]
)
def test_backslashes_do_not_lead_out_of_the_folder(tmp_path: Path, name: str, system: int) -> None:
    with pytest.raises(DataError, match="not a name that is unpacked"):
        _unpack(_windows_zip(["train\\a\\1.png", name], system), tmp_path)
    assert not list(tmp_path.rglob("*.png"))


def test_a_backslash_among_slashes_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"backslash in its name.*pack the folder again"):
        _unpack(_windows_zip(["train/a/1.png", "train/a/b\\2.png"], 3), tmp_path)


def test_what_is_no_image_stays_packed_and_is_named(tmp_path: Path) -> None:
    names = ["train/a/1.png", "README.txt", "train/a/b.sh", "train/a/.png", "train/.x/1.png"]
    others = unpack_images(_zip(dict.fromkeys(names, b"x")), tmp_path, SUFFIXES, 100, 10**6)
    assert others == names[1:]
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["1.png"]
    with pytest.raises(DataError, match="holds no image"):
        unpack_images(_zip({"README.txt": b"x"}), tmp_path, SUFFIXES, 100, 10**6)


def test_one_folder_around_classes_is_left_out(tmp_path: Path) -> None:
    assert _unpack(_zip({"pets/a/1.png": b"x", "pets/b/1.png": b"y"}), tmp_path) == [
        "a/1.png",
        "b/1.png",
    ]


def test_one_folder_around_everything_is_left_out(tmp_path: Path) -> None:
    found = _unpack(_zip({"my set/train/a/1.png": b"x", "my set/val/a/1.png": b"y"}), tmp_path)
    assert found == ["train/a/1.png", "val/a/1.png"]


@pytest.mark.parametrize(
    "name",
    [
        "../a.png",
        "train/../../a.png",
        "/etc/a.png",
        "train\\..\\a.png",
        "C:/a.png",
        "train/a.png\0.sh",
        "a\n/b.png",
        "/".join("abcdefghij") + ".png",
        "train/" + "a" * 300 + ".png",
    ],
)
def test_names_that_are_refused(tmp_path: Path, name: str) -> None:
    file = _zip({"train/a/ok.png": b"x", "REPLACED": b"y"})
    content = file.getvalue()
    if len(name) != len("REPLACED"):  # writestr would clean the name: patch it in raw
        info = zipfile.ZipInfo("x")
        info.filename = info.orig_filename = name
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("train/a/ok.png", b"x")
            archive.writestr(info, b"y")
    else:
        file = io.BytesIO(content.replace(b"REPLACED", name.encode()))
    with pytest.raises(DataError):
        _unpack(file, tmp_path)
    assert not list(tmp_path.parent.glob("a.png"))
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("kind", [0o120777, 0o060644, 0o010644])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    file = io.BytesIO()
    info = zipfile.ZipInfo("train/a/link.png")
    info.create_system, info.external_attr = 3, kind << 16
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(info, b"/etc/passwd")
    with pytest.raises(DataError, match="link"):
        _unpack(file, tmp_path)


def test_empty_images_are_refused_before_any_is_unpacked(tmp_path: Path) -> None:
    entries = {"train/a/0.png": b"x"} | {f"train/a/{i}.png": b"" for i in range(1, 50)}
    with pytest.raises(DataError, match="is empty"):
        _unpack(_zip(entries), tmp_path)
    assert not list((tmp_path / "target").rglob("*.png"))


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    bomb = _zip({"train/a/1.png": bytes(80 * 2**20)})
    assert len(bomb.getvalue()) < 10**5
    with pytest.raises(DataError, match="suspicious"):
        _unpack(bomb, tmp_path, size=10**9)
    assert not list((tmp_path / "target").rglob("*.png"))


def test_limits(tmp_path: Path) -> None:
    many = _zip({f"train/a/{i}.png": b"x" for i in range(11)})
    with pytest.raises(DataError, match="more than 10 entries"):
        check_sizes(many, 10, 10**6)
    check_sizes(many, 11, 10**6)
    with pytest.raises(DataError, match="at most 10"):
        check_sizes(many, 11, 10)


def test_sizes_that_lie_are_found_out(tmp_path: Path) -> None:
    content = bytearray(_zip({"train/a/1.png": b"x" * 1000}).getvalue())
    at = content.rfind(b"PK\x01\x02")
    content[at + 24 : at + 28] = (10).to_bytes(4, "little")  # the size after unpacking
    with pytest.raises(DataError):
        _unpack(io.BytesIO(bytes(content)), tmp_path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_rare_compressions_are_refused(tmp_path: Path, compression: int) -> None:
    with pytest.raises(DataError, match="deflate"):
        _unpack(_zip({"train/a/1.png": b"x" * 100}, compression), tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"not a zip" * 100, b"PK\x05\x06" + bytes(18), b"PK\x05\x06" + b"\xff" * 18],
)
def test_what_is_no_zip(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError):
        _unpack(io.BytesIO(content), tmp_path)


def test_a_damaged_zip_never_raises_anything_else(tmp_path: Path) -> None:
    whole = _zip({f"train/{c}/{i}.png": bytes([i]) * 50 for i in range(3) for c in "ab"}).getvalue()
    for at in range(0, len(whole), 3):
        for damaged in (whole[:at], whole[:at] + b"\xff" + whole[at + 1 :]):
            target = tmp_path / f"{at}-{len(damaged)}"
            target.mkdir()
            try:
                unpack_images(io.BytesIO(damaged), target, SUFFIXES, 100, 10**6)
            except DataError:
                continue
