"""Section Uploads: archives that are refused for what is in them."""

import bz2
import functools
import gzip
import io
import lzma
import os
import random
import struct
import tarfile
import unittest
import warnings
import zipfile

import pypi_server
from tests import archives
from tests.test_uploads import (
    SDIST, WHEEL, UploadTestCase, remove, sdist, wheel,
)


def header(name, size=0, kind=b"0", prefix=b"", gnu=False, signed=False):
    """Return a header of a tar (POSIX, ustar).

    Args:
        gnu: say that it is one of GNU tar, of a sparse file that goes on.
        signed: sum up as signed bytes, as some old programs did.
    """
    block = struct.pack(
        "100s8s8s8s12s12s8ss100s8s32s32s8s8s155s12s", name, b"0000644\0",
        b"0000000\0", b"0000000\0", b"%011o\0" % size, b"00000000000\0",
        b" " * 8, kind, b"", b"ustar\x0000", b"", b"", b"", b"", prefix, b"")
    if gnu:
        block = block[:257] + b"ustar  \0" + block[265:482] + b"\1" \
            + block[483:]
    total = sum(byte - 256 if signed and byte > 127 else byte
                for byte in block)
    return block[:148] + b"%06o\0 " % total + block[156:]


def member(name, data=b"", kind=b"0", **options):
    """Return a member of a tar: its header and its padded data."""
    return header(name, len(data), kind, **options) \
        + data + b"\0" * (-len(data) % 512)


def records(*pairs):
    """Return the data of a pax header: "LENGTH KEY=VALUE\\n" each."""
    found = b""
    for key, value in pairs:
        text = b" %s=%s\n" % (key, value)
        length = len(text)
        while len(text) + len(str(length)) > length:
            length += 1
        found += str(length).encode() + text
    return found


COMPRESS = {".tar.gz": gzip.compress, ".tgz": gzip.compress,
            ".tar.bz2": bz2.compress, ".tar.xz": lzma.compress}
EVIL = b"../evil"
LONG = b"x/" * 60 + b"../" * 62 + b"evil"
TOP = member(b"demo_pkg-1.0/PKG-INFO", archives.metadata("demo_pkg", "1.0"))
# Each has a member that leads upwards for Python's tarfile, with which
# installers unpack.
BAD_TARS = (
    ("upwards", member(EVIL)),
    ("absolute", member(b"/evil")),
    ("upwards in the middle", member(b"demo_pkg-1.0/../../evil")),
    ("upwards at the end", member(b"demo_pkg-1.0/..", kind=b"5")),
    ("behind others", TOP * 3 + member(EVIL)),
    ("behind a large one", member(b"a", b"x" * 600000) + member(EVIL)),
    ("folder", member(EVIL, kind=b"5")),
    ("link", member(EVIL, kind=b"1")),
    ("symbolic link", member(EVIL, kind=b"2")),
    ("of an old tar", member(EVIL, kind=b"\0")),
    ("of an unknown kind", member(EVIL, kind=b"Z")),
    ("prefix", member(b"evil", prefix=b"..")),
    ("prefix and name", member(b"../evil", prefix=b"a")),
    ("GNU long name", member(b"././@LongLink", LONG + b"\0", b"L")
     + member(LONG[:100])),
    ("GNU long name for a short one", member(
        b"././@LongLink", EVIL + b"\0", b"L") + member(b"good")),
    ("pax path", member(b"x", records((b"path", LONG)), b"x")
     + member(b"good")),
    ("pax path among others", member(b"x", records(
        (b"mtime", b"1.5"), (b"path", EVIL), (b"comment", b"c")), b"x")
     + member(b"good")),
    ("two pax paths", member(b"x", records(
        (b"path", b"good"), (b"path", EVIL)), b"x") + member(b"good")),
    ("a pax path inside another record", member(b"x", records(
        (b"comment", b"x\n10 path=a\n"), (b"path", EVIL)), b"x")
     + member(b"good")),
    ("a global pax path", member(b"g", records((b"path", EVIL)), b"g")
     + member(b"x", records((b"mtime", b"1")), b"x") + member(b"good")),
    ("a pax path of Solaris", member(b"x", records((b"path", EVIL)), b"X")
     + member(b"good")),
    ("GNU long name, then pax", member(b"././@LongLink", EVIL + b"\0", b"L")
     + member(b"x", records((b"mtime", b"1")), b"x") + member(b"good")),
    ("GNU long name, then a pax path", member(
        b"././@LongLink", EVIL + b"\0", b"L") + member(b"x", records(
            (b"path", b"good")), b"x") + member(b"good")),
    ("the name of a sparse file", member(b"x", records(
        (b"GNU.sparse.name", EVIL)), b"x") + member(b"good")),
    ("a very long pax header", member(b"x", records(
        (b"comment", b"x" * (11 * 2 ** 20)), (b"path", EVIL)), b"x")
     + member(b"good")),
    ("behind a size in a pax header", member(b"x", records(
        (b"size", b"1024")), b"x") + header(b"good") + b"\0" * 1024
     + member(EVIL)),
    ("behind a folder that states a size", header(b"folder", 1024, b"5")
     + member(EVIL) + member(b"a")),
    ("behind a link that states a size", header(b"link", 1024, b"2")
     + member(EVIL) + member(b"a")),
    ("behind a sparse file of GNU tar", header(
        b"sparse", 0, b"S", gnu=True) + b"\0" * 512 + member(EVIL)),
    # tarfile looks for a prefix in a header of GNU tar as well.
    ("prefix of GNU tar", member(b"good", prefix=b"..", gnu=True)),
    # Of two in a row, the first counts there.
    ("two GNU long names", member(b"././@LongLink", EVIL + b"\0", b"L")
     + member(b"././@LongLink", b"good\0", b"L") + member(b"good")),
    ("behind a signed checksum", header(b"\xff" * 9, signed=True)
     + member(EVIL)),
)


def random_members(dice):
    """Return some members of a tar, most of them odd."""
    found = b""
    names = (b"good", EVIL, b"a/../../e", b"x/" * 40 + b"g", b"")
    for _ in range(dice.randint(1, 4)):
        kind = dice.choice((b"0",) * 4 + tuple(
            b"%c" % byte for byte in b"01234567LLKxxXgSVNMDAZ\0"))
        if kind in (b"L", b"K"):
            block = member(b"././@LongLink", dice.choice(names)
                           + dice.choice((b"\0", b"", b"\0tail")), kind)
        elif kind in (b"x", b"X", b"g"):
            block = member(b"x", records(*(
                (dice.choice((b"path", b"path", b"size", b"comment",
                              b"linkpath", b"GNU.sparse.name",
                              b"GNU.sparse.major", b"GNU.sparse.realsize",
                              b"hdrcharset")),
                 dice.choice(names + (b"0", b"512", b"1\n10 path=x")))
                for _ in range(dice.randint(0, 3))))
                + dice.choice((b"", b"", b"\0", b"junk", b"9 path=a\n",
                               b"99 path=../evil\n")), kind)
        else:
            size = dice.choice((0, 0, 0, 512, 1024))
            block = header(
                dice.choice(names), size, kind,
                dice.choice((b"", b"", b"..", b"p")),
                dice.random() < .1, dice.random() < .1)
            block += b"d" * dice.choice((0, size))
        if dice.random() < .1:
            at = dice.randrange(512)
            block = block[:at] + b"%c" % (block[at] ^ 1 << dice.randrange(
                8)) + block[at + 1:]
        found += block
    return found


BAD_PATHS = (
    "../evil", "a/../../evil", "/evil", "//evil", "..", "a/..", "\\evil",
    "..\\evil", "a\\..\\..\\evil", "C:\\evil", "C:evil", "c:/evil",
    "\\\\host\\share\\evil")


class MemberTest(UploadTestCase):
    """Members that would be unpacked somewhere else."""

    def test_tars(self):
        for what, blocks in BAD_TARS:
            data = TOP + blocks + b"\0" * 1024
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                self.assertTrue([
                    name for name in archive.getnames()
                    if ".." in name.split("/") or name.startswith("/")],
                    what)
            for extension, compress in COMPRESS.items():
                if len(data) > 10 ** 7 and extension != ".tar.gz":
                    continue
                with self.subTest(what=what, extension=extension):
                    remove(self.root, "demo_pkg-1.0" + extension)
                    self.refused(self.send(
                        "demo_pkg-1.0" + extension, compress(data)), 400,
                        "demo_pkg-1.0" + extension)
                    self.assertEqual(self.files(), [])

    def test_tars_at_random(self):
        """Of those that are taken, none unpacks elsewhere."""
        taken = 0
        for seed in range(3000):
            data = TOP + random_members(random.Random(seed)) + b"\0" * 1024
            scanner = pypi_server.TarScanner(functools.partial(
                pypi_server.check_member, "foo-1.0.tar.gz"))
            try:
                scanner.feed(data)
            except (ValueError, pypi_server.HTTPError):
                continue
            try:
                with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                    names = archive.getnames()
            except Exception:  # tarfile raises whatever it likes
                continue
            taken += 1
            self.assertFalse([
                name for name in names
                if ".." in name.split("/") or name.startswith("/")],
                "seed %d: %s" % (seed, names))
        self.assertGreater(taken, 100)

    def test_sizes_below_nothing_end(self):
        """CVE-2025-8194: with one of these, tarfile turns in circles."""
        for size in (b"-0000000512\0", b"\xff" * 11 + b"\0",
                     b"\xff" * 10 + b"\xfe\x00", b"\x80" + b"\xff" * 11):
            block = bytearray(header(b"demo_pkg-1.0/big"))
            block[124:136] = size
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
            answer = self.send(SDIST, gzip.compress(
                TOP + bytes(block) + b"\0" * 2048))
            self.assertIn(answer.status, (200, 400))
            remove(self.root, SDIST)

    def test_tars_of_every_format_are_taken(self):
        """Long names and large numbers alone are no reason."""
        long = "demo_pkg-1.0/" + "folder/" * 30 + "file"
        for number, form in enumerate((
                tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT,
                tarfile.PAX_FORMAT)):
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode="w:gz",
                              format=form) as archive:
                info = archives.metadata("demo_pkg", "1.%d" % number)
                for name, data in (
                        ("demo_pkg-1.0/PKG-INFO", info), (long, b"x" * 700),
                        ("./demo_pkg-1.0/\xfcber", b""),
                        ("demo_pkg-1.0/a..b/..c/d...", b"")):
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mtime = len(data), 1.5
                    entry.uid = 2 ** 31 if form != tarfile.USTAR_FORMAT else 1
                    archive.addfile(entry, io.BytesIO(data))
                entry = tarfile.TarInfo("demo_pkg-1.0/folder")
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
                entry = tarfile.TarInfo("demo_pkg-1.0/link")
                entry.type, entry.linkname = tarfile.SYMTYPE, "../demo"
                archive.addfile(entry)
            self.stored("demo_pkg-1.%d.tar.gz" % number, file.getvalue())

    def test_zips(self):
        for path in BAD_PATHS:
            for filename, info in (
                    (WHEEL, "demo_pkg-1.0.dist-info/METADATA"),
                    ("demo_pkg-1.0.zip", "demo_pkg-1.0/PKG-INFO"),
                    ("demo_pkg-1.0-py3.8.egg", "EGG-INFO/PKG-INFO")):
                with self.subTest(path=path, filename=filename):
                    data = archives.zipped({
                        info: archives.metadata("demo_pkg", "1.0"),
                        path: b"x"})
                    self.refused(self.send(filename, data), 400, filename)
        self.assertEqual(self.files(), [])

    def test_zips_with_twice_the_same_metadata(self):
        """Readers do not agree on which of them counts."""
        for filename, path in (
                (WHEEL, "demo_pkg-1.0.dist-info/METADATA"),
                ("demo_pkg-1.0.zip", "demo_pkg-1.0/PKG-INFO"),
                ("demo_pkg-1.0-py3.8.egg", "EGG-INFO/PKG-INFO")):
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(path, archives.metadata("demo_pkg", "1.0"))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of the second one
                    archive.writestr(path, archives.metadata(
                        "demo_pkg", "1.0", requires=["evil"]))
            with self.subTest(filename=filename):
                self.refused(self.send(filename, file.getvalue()), 400,
                             filename)

    def test_zips_with_odd_but_harmless_paths(self):
        for number, path in enumerate((
                "a..b", "..a", "a/...", ".hidden", "a/.b/c", "\xfcber",
                "a b/c", "data/c:d", "folder/")):
            version = "1.%d" % number
            self.stored("demo_pkg-%s-py3-none-any.whl" % version,
                        wheel(version, files={path: b""}))


class WholeTest(UploadTestCase):

    KINDS = (
        (WHEEL, wheel()), ("demo_pkg-1.0.zip", sdist(extension=".zip")),
        ("demo_pkg-1.0-py3.8.egg", archives.egg("demo_pkg", "1.0"))) + tuple(
            ("demo_pkg-1.0" + extension, sdist(extension=extension))
            for extension in archives.MODES)

    def test_archives_cut_off(self):
        for filename, data in self.KINDS:
            for end in sorted(set(range(0, len(data), 37)).union(
                    (1, 2, 10, 22), range(len(data) - 12, len(data)))):
                with self.subTest(filename=filename, end=end):
                    self.refused(self.send(filename, data[:end]), 400,
                                 filename)
            self.assertEqual(set(), set(self.files()) - {".lock"})
            self.stored(filename, data)
            os.unlink(os.path.join(self.root, filename))

    def test_archives_of_another_kind(self):
        for filename, _ in self.KINDS:
            for other, data in self.KINDS + (("text", b"Hello!\n" * 99),
                                             ("zeros", b"\0" * 2000)):
                if filename == other or filename[-2:] == other[-2:] == "gz":
                    continue
                if filename.endswith(".zip") and other.endswith(".egg"):
                    continue  # its metadata are in a folder, as those of
                    # an sdist
                with self.subTest(filename=filename, other=other):
                    self.refused(self.send(filename, data), 400, filename)
        self.assertEqual(self.files(), [])

    def test_two_archives_in_one(self):
        """A reader from the front sees another one than one from behind."""
        zipped = sdist(extension=".zip")
        for extension in archives.MODES:
            data = sdist(extension=extension)
            for filename in ("demo_pkg-1.0" + extension, "demo_pkg-1.0.zip"):
                for content in (data + zipped, zipped + data):
                    with self.subTest(filename=filename):
                        self.refused(self.send(filename, content), 400,
                                     filename)
        for content in (b"#!/bin/sh\n" + zipped, zipped + b"\n",
                        zipped + zipped):
            self.refused(self.send("demo_pkg-1.0.zip", content), 400)

    def test_compressed_text_is_no_sdist(self):
        for extension, compress in COMPRESS.items():
            for text in (b"", b"Hello!\n", b"Hello!\n" * 999):
                with self.subTest(extension=extension, text=text[:9]):
                    self.refused(self.send(
                        "demo_pkg-1.0" + extension, compress(text)), 400)
        self.assertEqual(self.files(), [])

    def test_zips_that_only_look_like_archives(self):
        info = archives.metadata("demo_pkg", "1.0")
        for filename, contents in (
                (WHEEL, {}), (WHEEL, {"demo.py": b""}),
                (WHEEL, {"demo_pkg-1.0.dist-info/RECORD": b""}),
                (WHEEL, {"METADATA": info}),
                (WHEEL, {"demo_pkg-1.0.dist-info/METADATA": b""}),
                (WHEEL, {"demo_pkg-1.0.dist-info/METADATA": b"\0" * 99}),
                (WHEEL, {"a-1.0.dist-info/METADATA": info,
                         "b-1.0.dist-info/METADATA": info}),
                ("demo_pkg-1.0.zip", {"PKG-INFO": info}),
                ("demo_pkg-1.0-py3.8.egg", {"PKG-INFO": info})):
            with self.subTest(filename=filename, contents=list(contents)):
                self.refused(self.send(
                    filename, archives.zipped(contents)), 400, filename)

    def test_a_metadata_bomb(self):
        """200 MB out of 200 KB are not read into memory."""
        data = archives.zipped({
            "demo_pkg-1.0.dist-info/METADATA": archives.metadata(
                "demo_pkg", "1.0") + b"x" * (50 * 2 ** 20)})
        self.assertLess(len(data), 10 ** 6)
        self.refused(self.send(WHEEL, data), 400, WHEEL)

    def test_corrupt_members(self):
        """What the metadata's own checksum tells."""
        dice = random.Random(3)
        data = wheel(body="text " * 500, compression=zipfile.ZIP_STORED)
        at = data.index(b"text text")
        for _ in range(20):
            damaged = bytearray(data)
            damaged[at + dice.randrange(2000)] ^= 1 + dice.randrange(255)
            self.refused(self.send(WHEEL, bytes(damaged)), 400, WHEEL)

    def test_corrupt_tars(self):
        dice = random.Random(4)
        for extension in archives.MODES:
            data = sdist(extension=extension, files={
                "noise": bytes(dice.randrange(256) for _ in range(3000))})
            for _ in range(20):
                damaged = bytearray(data)
                damaged[dice.randrange(20, len(data))] ^= \
                    1 + dice.randrange(255)
                answer = self.send(
                    "demo_pkg-1.0" + extension, bytes(damaged))
                self.assertEqual(answer.status, 400, extension)
        self.assertEqual(self.files(), [])


if __name__ == "__main__":
    unittest.main()
