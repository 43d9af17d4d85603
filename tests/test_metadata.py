"""Section Metadata: archives whole, cut off, corrupt and odd."""

import bz2
import functools
import gc
import gzip
import hashlib
import io
import lzma
import os
import random
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import unittest
import zipfile
import zlib
from unittest import mock

import pypi_server
from pypi_server import (
    METADATA_LIMIT, Archive, first, parse_filename, parse_metadata,
    read_archive, read_metadata, unpacked, zip_members,
)
from tests import archives

NOISE = random.Random(8).getrandbits(8 * 3000).to_bytes(3000, "big")
TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
COMPRESS = {".tar.gz": gzip.compress, ".tgz": gzip.compress,
            ".tar.bz2": bz2.compress,
            # To undo a larger preset takes 8 MiB, which PyPy keeps a while.
            ".tar.xz": functools.partial(lzma.compress, preset=0)}
WHEEL = "Foo.Bar-1.0-py3-none-any.whl"
SDIST = "Foo.Bar-1.0.tar.gz"

KINDS = {
    WHEEL: archives.wheel("Foo.Bar", "1.0", requires_python=">=3.6",
                          files={"noise": NOISE}),
    "Foo.Bar-1.0-py2-none-any.whl": archives.wheel(
        "Foo.Bar", "1.0", compression=zipfile.ZIP_STORED),
    "Foo.Bar-1.0-py2.7.egg": archives.egg("Foo.Bar", "1.0"),
    "Foo.Bar-1.0.zip": archives.sdist("Foo.Bar", "1.0", ".zip"),
}
KINDS.update(("Foo.Bar-1.0" + extension, COMPRESS[extension](
    gzip.decompress(archives.sdist("Foo.Bar", "1.0",
                                   files={"noise": NOISE}))))
    for extension in TARS)


def archive_of(filename):
    return Archive("/root", "", filename, *parse_filename(filename))


READS = [0]  # so far


def read(filename, data, algorithms=("sha256",)):
    """Read an archive from memory."""
    READS[0] += 1
    if sys.implementation.name == "pypy" and READS[0] % 100 == 0:
        # PyPy does not know that each decompressor holds 8 MiB: thousands
        # of them leave no room to start a process.
        gc.collect()
    return read_archive(io.BytesIO(data), archive_of(filename), algorithms)


def metadata_of(filename, data):
    return read_metadata(io.BytesIO(data), archive_of(filename), {})


def tar(*members, top="Foo.Bar-1.0/", **settings):
    """Return a plain tar of (name below the top, data)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **settings) as made:
        for name, data in members:
            member = tarfile.TarInfo(top + name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return file.getvalue()


def header(name, size=b"%011o\0" % 0, kind=b"0", checksum=None):
    """Return a tar header with fields as they are given."""
    data = (name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2
            + size.ljust(12, b"\0") + b"%011o\0" % 0 + b" " * 8 + kind)
    data = data.ljust(257, b"\0") + b"ustar\x0000"
    data = data.ljust(512, b"\0")
    if checksum is None:
        checksum = b"%06o\0 " % sum(data)
    return data[:148] + checksum.ljust(8, b"\0") + data[156:]


def pax(records, kind=b"x"):
    """Return a pax header, as it comes before the header of a file."""
    return header(b"pax", b"%011o\0" % len(records), kind) + records.ljust(
        -(-len(records) // 512) * 512, b"\0")


INFO = archives.metadata("Foo.Bar", "1.0", requires_python=">=3.7")


class TestWhole(unittest.TestCase):
    def test_digests_and_metadata(self):
        names = ("sha256", "md5", "blake2b_256", "sha512")
        for filename, data in KINDS.items():
            with self.subTest(filename):
                facts = read(filename, data, names)
                self.assertEqual("", facts.problem)
                self.assertEqual({
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "md5": hashlib.md5(data).hexdigest(),
                    "sha512": hashlib.sha512(data).hexdigest(),
                    "blake2b_256": hashlib.blake2b(
                        data, digest_size=32).hexdigest()}, facts.digests)
                self.assertEqual("Foo.Bar", first(parse_metadata(
                    metadata_of(filename, data)), "name"))

    def test_metadata_digest_is_that_of_the_member(self):
        facts = read(WHEEL, KINDS[WHEEL])
        with zipfile.ZipFile(io.BytesIO(KINDS[WHEEL])) as wheel:
            data = wheel.read("Foo_Bar-1.0.dist-info/METADATA")
        self.assertEqual(data, metadata_of(WHEEL, KINDS[WHEEL]))
        self.assertEqual(
            hashlib.sha256(data).hexdigest(), facts.metadata_digest)
        self.assertEqual(">=3.6", facts.requires_python)

    def test_only_wheels_have_a_metadata_digest(self):
        for filename, data in KINDS.items():
            self.assertEqual(filename.endswith(".whl"),
                             bool(read(filename, data).metadata_digest))

    def test_requires_python_of_sdists(self):
        for extension in TARS + (".zip",):
            data = archives.sdist(
                "foo", "1", extension, requires_python=">=3.7, <4")
            self.assertEqual(
                ">=3.7, <4", read("foo-1" + extension, data).requires_python)

    def test_installer_need_not_have_metadata(self):
        data = b"MZ" + b"\0" * 500 + archives.zipped({"PURELIB/a.py": b""})
        facts = read("foo-1.0.win32.exe", data)
        self.assertEqual("", facts.problem)
        self.assertEqual(
            hashlib.sha256(data).hexdigest(), facts.digests["sha256"])

    def test_large_archive_is_read_in_blocks(self):
        """Larger than a block, and blocks that expand a thousandfold."""
        noise = random.Random(1).getrandbits(8 * 700000).to_bytes(
            700000, "big")
        files = {"noise": noise, "zeros": b"\0" * 3000000, "more": noise}
        for extension in TARS:
            with self.subTest(extension):
                data = archives.sdist("foo", "1", extension, ">=3", files)
                facts = read("foo-1" + extension, data)
                self.assertEqual(("", ">=3"),
                                 (facts.problem, facts.requires_python))
                self.assertEqual(hashlib.sha256(data).hexdigest(),
                                 facts.digests["sha256"])


class TestCutOff(unittest.TestCase):
    def tearDown(self):
        gc.collect()  # PyPy keeps what liblzma has taken, gigabytes of it

    def assert_broken(self, filename, data, message):
        facts = read(filename, data)
        self.assertTrue(facts.problem, message)
        self.assertFalse(any(facts[1:]), message)

    def test_every_truncation_is_found(self):
        for filename, data in KINDS.items():
            with self.subTest(filename):
                for length in range(len(data)):
                    self.assert_broken(filename, data[:length], length)

    def test_every_hole_at_the_end_is_found(self):
        """Some programs make a file as long as it will be, and then fill."""
        for filename, data in KINDS.items():
            with self.subTest(filename):
                for length in range(0, len(data) - 1, 7):
                    if data[length:].strip(b"\0"):
                        self.assert_broken(
                            filename, data[:length].ljust(len(data), b"\0"),
                            length)

    def test_wheel_within_a_wheel(self):
        """The end of an inner wheel is not the end of the outer one."""
        inner = archives.wheel("Foo.Bar", "1.0")
        contents = {"foo.py": b"", "vendor/inner.whl": inner}
        data = archives.wheel("Foo.Bar", "1.0", files=contents,
                              compression=zipfile.ZIP_STORED)
        self.assertEqual("", read(WHEEL, data).problem)
        for length in range(len(data)):
            self.assert_broken(WHEEL, data[:length], length)

    def test_archive_with_a_comment(self):
        file = io.BytesIO(KINDS[WHEEL])
        with zipfile.ZipFile(file, "a") as wheel:
            wheel.comment = b"some comment " * 100
        data = file.getvalue()
        self.assertEqual("", read(WHEEL, data).problem)
        for length in range(0, len(data), 3):
            self.assert_broken(WHEEL, data[:length], length)

    def test_streams_in_a_row(self):
        """As pigz, pbzip2 and `xz --block-size` write; zeros may follow."""
        plain = tar(("noise", NOISE), ("PKG-INFO", INFO))
        for extension, compress in COMPRESS.items():
            with self.subTest(extension):
                parts = [compress(plain[at:at + 1500])
                         for at in range(0, len(plain), 1500)]
                data = b"".join(parts)
                # A tar need not have an end, only whole members.
                ends = {sum(map(len, parts[:count]))
                        for count in range(len(parts))
                        if not plain[1500 * count:].strip(b"\0")}
                for padding in (0, 1, 4, 512, 300000):
                    facts = read(
                        "Foo.Bar-1.0" + extension, data + b"\0" * padding)
                    self.assertEqual(
                        ("", ">=3.7"),
                        (facts.problem, facts.requires_python), padding)
                for length in set(range(len(data))) - ends:
                    self.assert_broken(
                        "Foo.Bar-1.0" + extension, data[:length], length)

    def test_tar_that_is_cut_off_before_it_is_compressed(self):
        plain = tar(("noise", NOISE), ("PKG-INFO", INFO), ("empty", b""))
        end = len(plain.rstrip(b"\0")) // 512 * 512 + 512
        for length in range(1, end + 512, 7):
            data = gzip.compress(plain[:length], 1)
            message = read(SDIST, data).problem
            if length < end and length not in (512 * 7, end - 512):
                self.assertTrue(message, length)
                if length > 512:
                    self.assertIn("cut off", message)
        self.assertEqual("", read(SDIST, gzip.compress(plain[:end])).problem)

    def test_garbage_behind_the_end(self):
        for extension in TARS:
            filename = "Foo.Bar-1.0" + extension
            for garbage in (b"x", b"\0\0x", NOISE, b"\x1f\x8b", b"BZh9",
                            KINDS[filename][:20]):
                with self.subTest(extension, garbage=garbage[:9]):
                    self.assert_broken(
                        filename, KINDS[filename] + garbage, "garbage")

    def test_another_format_than_its_name(self):
        files = {"nothing": b"", "text": b"not an archive\n" * 99,
                 "page": b"<!DOCTYPE html><title>404</title>",
                 "zeros": b"\0" * 9999, "noise": NOISE}
        for filename in KINDS:
            for name, data in files.items():
                with self.subTest(filename, data=name):
                    self.assert_broken(filename, data, name)
        for extension in TARS:
            self.assert_broken(
                "Foo.Bar-1.0" + extension, KINDS[WHEEL], extension)
        for filename in (WHEEL, "Foo.Bar-1.0-py2.7.egg", "Foo.Bar-1.0.zip"):
            self.assert_broken(filename, KINDS[SDIST], filename)


class TestZip(unittest.TestCase):
    """The module zipfile, which installers read with, tells what is so."""

    PATH = "Foo_Bar-1.0.dist-info/METADATA"

    def contents(self):
        return {"foo/__init__.py": b"x" * 300, "foo/dat\u00e4.txt": NOISE,
                self.PATH: INFO * 20, "empty": b"", "folder/": b""}

    def assert_same(self, data):
        with zipfile.ZipFile(io.BytesIO(data)) as expected:
            file = io.BytesIO(data)
            found = list(zip_members(file))
            self.assertEqual(expected.namelist(),
                             [member.path for member in found])
            for member in found:
                self.assertEqual(expected.read(member.path),
                                 b"".join(unpacked(file, member)))

    def test_same_members(self):
        for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            data = archives.zipped(self.contents(), kind)
            self.assert_same(data)
            self.assert_same(b"#!/bin/sh\n" + data)
        large = dict(self.contents(), big=bytes(3 * 2 ** 20), noise=bytes(
            random.Random(3).getrandbits(8 * 10 ** 6).to_bytes(
                10 ** 6, "big")))
        self.assert_same(archives.zipped(large))
        self.assert_same(archives.zipped({}))
        # More directory than is read with the end of the file.
        self.assert_same(archives.zipped(
            {"%04d" % number + "x" * 100: b"" for number in range(1000)}))

    def test_zip64(self):
        """Of members and of archives that are larger than 4 GiB."""
        for limit in (10, 2000):
            with mock.patch.object(zipfile, "ZIP64_LIMIT", limit):
                data = archives.zipped(self.contents(), zipfile.ZIP_STORED)
            self.assertIn(b"PK\6\6", data)
            self.assert_same(data)
            self.assertEqual("", read(WHEEL, data).problem)

    def test_written_without_knowing_the_size(self):
        """Sizes follow the data then; the directory has them too."""
        class Pipe(io.BytesIO):
            def seekable(self):
                return False

            def seek(self, *_):
                raise io.UnsupportedOperation

            tell = seek
        file = Pipe()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, data in self.contents().items():
                archive.writestr(path, data)
        self.assert_same(file.getvalue())

    def test_encrypted(self):
        data = bytearray(archives.zipped({self.PATH: INFO}))
        data[6] |= 1
        data[data.index(b"PK\1\2") + 8] |= 1
        self.assertIn("encrypted", read(WHEEL, bytes(data)).problem)

    def test_names_that_readers_cut_or_replace(self):
        """One whose name ends at a zero, and one that has a second name."""
        data = archives.zipped({self.PATH: INFO, "foo/x.txt": b"x"})
        other = b"foo/x.txt"
        self.assertIn("zero", read(WHEEL, data.replace(
            other, b"foo/\0.txt")).problem)
        second = struct.pack("<BL", 1, zlib.crc32(other)) + self.PATH.encode()
        for name, expected in ((second, "two names"), (
                second[:5] + other, ""), (second + b"x", "two names")):
            info = zipfile.ZipInfo("foo/x.txt")
            info.extra = struct.pack("<2H", 0x7075, len(name)) + name
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(self.PATH, INFO)
                archive.writestr(info, b"x")
            problem = read(WHEEL, file.getvalue()).problem
            self.assertIn(expected, problem)
            self.assertEqual(bool(expected), bool(problem))

    def test_a_directory_in_the_comment(self):
        """Installers take the last record, whether it fits or not."""
        hidden = archives.zipped({self.PATH: b"Name: evil\n"})
        data = archives.zipped({self.PATH: INFO})
        self.assertEqual("", read(WHEEL, data).problem)
        for rest in b"", b"x", bytes(30):
            comment = hidden + rest
            evil = data[:-2] + struct.pack("<H", len(comment)) + comment
            self.assertTrue(read(WHEEL, evil).problem, rest)

    def test_two_readings(self):
        """No file is taken of which installers read something else."""
        chance = random.Random(12)
        whole = [archives.zipped(self.contents(), kind)
                 for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]
        with mock.patch.object(zipfile, "ZIP64_LIMIT", 10):
            whole.append(archives.zipped(self.contents()))
        taken = 0
        refused = set()
        for number in range(3000):
            data = bytearray(whole[number % len(whole)])
            start = data.index(b"PK\1\2")
            for _ in range(chance.randint(1, 3)):
                # Mostly in the directory, where all is decided.
                at = chance.randrange(start, len(data)) \
                    if chance.random() < 0.8 else chance.randrange(start)
                data[at] = chance.choice((0, 1, 255, data[at] ^ 1))
            file = io.BytesIO(bytes(data))
            try:
                metadata = metadata_of(WHEEL, bytes(data))
            except Exception:
                continue
            taken += 1
            try:
                with zipfile.ZipFile(file) as expected:
                    self.assertEqual(expected.read(self.PATH), metadata)
            except (NotImplementedError, zipfile.BadZipFile) as error:
                refused.add(re.sub("'.*'|[0-9]", "", str(error)))
        self.assertGreater(taken, 300)
        # What it refuses, nobody reads otherwise.
        self.assertLessEqual(refused, {
            "zip file version .", "Overlapped entries:  (possible zip bomb)",
            "zipfiles that span multiple disks are not supported"})


class TestCorrupt(unittest.TestCase):
    """Whatever is in a file: facts or OSError, nothing else, and soon."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "archive")

    def read(self, filename, data):
        # From a real file: its errors are not those of BytesIO.
        with open(self.path, "wb") as file:
            file.write(data)
        with open(self.path, "rb", buffering=0) as file:
            return read_archive(file, archive_of(filename), ("sha256",))

    def test_flipped_bytes(self):
        chance = random.Random(9)
        for filename, data in KINDS.items():
            for _ in range(150):
                broken = bytearray(data)
                for _ in range(chance.choice((1, 1, 2, 8))):
                    # Most of the traps are in the directory, at the end.
                    place = chance.choice((
                        chance.randrange(len(data)),
                        len(data) - chance.randint(1, min(300, len(data)))))
                    broken[place] = chance.choice(
                        (0, 255, 128, chance.randrange(256)))
                with self.subTest(filename, data=bytes(broken[-80:])):
                    facts = self.read(filename, bytes(broken))
                    self.assertEqual(not facts.problem, bool(facts.digests))

    def test_corrupt_stream_is_found(self):
        """Each of them has a checksum over what it holds."""
        for extension in TARS:
            filename = "Foo.Bar-1.0" + extension
            data = bytearray(KINDS[filename])
            data[len(data) // 2] ^= 1
            self.assertTrue(self.read(filename, bytes(data)).problem)

    def test_corrupt_metadata_is_found(self):
        for name in ("STORED", "DEFLATED"):
            with self.subTest(name):
                data = archives.zipped(
                    {"Foo_Bar-1.0.dist-info/METADATA": INFO * 3},
                    getattr(zipfile, "ZIP_" + name))
                self.assertEqual("", self.read(WHEEL, data).problem)
                broken = bytearray(data)
                for place in range(90, 130):
                    broken[place] ^= 0x55
                self.assertTrue(self.read(WHEEL, bytes(broken)).problem)

    def test_metadata_that_would_fill_the_memory(self):
        """A few bytes of these unpack to gigabytes."""
        for name in ("BZIP2", "LZMA"):
            with self.subTest(name):
                data = archives.zipped(
                    {"Foo_Bar-1.0.dist-info/METADATA": INFO},
                    getattr(zipfile, "ZIP_" + name))
                self.assertIn("neither stored nor deflated",
                              self.read(WHEEL, data).problem)

    def test_xz_that_asks_for_4_gib_of_memory(self):
        """A header can ask for any dictionary; `xz -9` takes 64 MiB."""
        plain = tar(("PKG-INFO", INFO))
        data = bytearray(lzma.compress(plain))
        stop = 12 + (data[12] + 1) * 4 - 4  # of the block header
        at = data.index(b"\x21\x01", 12, stop) + 2
        data[at] = 40
        data[stop:stop + 4] = struct.pack("<L", zlib.crc32(data[12:stop]))
        self.assertTrue(self.read("Foo.Bar-1.0.tar.xz", bytes(data)).problem)
        data = lzma.compress(plain, preset=9)
        self.assertEqual("", self.read("Foo.Bar-1.0.tar.xz", data).problem)

    def test_directory_that_points_elsewhere(self):
        data = KINDS[WHEEL]
        start = data.rindex(b"PK\5\6")
        for offset in (0, 1, 99, len(data), 2 ** 31, 2 ** 32 - 1):
            for size in (0, 1, 46, len(data), 2 ** 31, 2 ** 32 - 1):
                end = data[:start + 12] + struct.pack("<LL", size, offset) \
                    + data[start + 20:]
                with self.subTest(offset=offset, size=size):
                    self.assertTrue(self.read(WHEEL, end).problem)

    def test_encrypted_metadata(self):
        data = bytearray(KINDS[WHEEL])
        entry = data.rindex(b"PK\1\2", 0, data.rindex(b"METADATA"))
        local = data.index(b"PK\3\4", data.index(b"METADATA") - 80)
        data[entry + 8] |= 1
        data[local + 6] |= 1
        self.assertIn("encrypted", self.read(WHEEL, bytes(data)).problem)

    def test_unknown_compression(self):
        data = bytearray(KINDS[WHEEL])
        entry = data.rindex(b"PK\1\2", 0, data.rindex(b"METADATA"))
        local = data.index(b"PK\3\4", data.index(b"METADATA") - 80)
        data[entry + 10] = data[local + 8] = 99
        self.assertTrue(self.read(WHEEL, bytes(data)).problem)


class TestZipMetadata(unittest.TestCase):
    def assert_metadata(self, wanted, filename, contents):
        data = archives.zipped(contents)
        if wanted is None:
            self.assertIn("metadata", read(filename, data).problem)
        else:
            self.assertEqual("", read(filename, data).problem)
            self.assertEqual(wanted, metadata_of(filename, data))

    def test_own_dist_info_among_vendored_ones(self):
        other = archives.metadata("other", "2")
        for contents in (
                {"other-2.dist-info/METADATA": other,
                 "Foo_Bar-1.0.dist-info/METADATA": INFO},
                {"Foo_Bar-1.0.dist-info/METADATA": INFO,
                 "other-2.dist-info/METADATA": other},
                {"foo/_vendor/other-2.dist-info/METADATA": other,
                 "foo_bar-1.0.dist-info/METADATA": INFO,
                 "foo_bar_extras-1.0.dist-info/METADATA": other}):
            self.assert_metadata(INFO, WHEEL, contents)

    def test_other_spelling_of_dist_info(self):
        for name in ("foo_bar-1.0", "Foo.Bar-1.0", "FOO_BAR-1.0",
                     "Foo-Bar-1.0", "foo__bar-1.0", "Foo_Bar-1.0.0",
                     "odd"):
            with self.subTest(name):
                self.assert_metadata(
                    INFO, WHEEL, {name + ".dist-info/METADATA": INFO})

    def test_none(self):
        for contents in (
                {}, {"foo.py": b""}, {"METADATA": INFO},
                {"dist-info/METADATA": INFO},
                {"sub/Foo_Bar-1.0.dist-info/METADATA": INFO},
                {"Foo_Bar-1.0.dist-info/metadata": INFO},
                {"Foo_Bar-1.0.dist-info/PKG-INFO": INFO},
                {"Foo_Bar-1.0.dist-info/WHEEL": b""}):
            self.assert_metadata(None, WHEEL, contents)
        for contents in ({}, {"PKG-INFO": INFO}, {"EGG-INFO": INFO},
                         {"sub/EGG-INFO/PKG-INFO": INFO}):
            self.assert_metadata(None, "Foo.Bar-1.0-py2.7.egg", contents)

    def test_two_strangers_are_none(self):
        self.assert_metadata(None, WHEEL, {
            "other-2.dist-info/METADATA": INFO,
            "another-3.dist-info/METADATA": INFO})

    def test_zip_sdist(self):
        self.assert_metadata(INFO, "Foo.Bar-1.0.zip", {
            "Foo.Bar-1.0/foo.egg-info/PKG-INFO": b"Name: inner\n",
            "Foo.Bar-1.0/PKG-INFO": INFO})

    def test_largest_metadata(self):
        name = "Foo_Bar-1.0.dist-info/METADATA"
        for extra, is_read in ((0, True), (1, False), (10 ** 6, False)):
            data = archives.zipped(
                {name: INFO.ljust(METADATA_LIMIT + extra, b"x")})
            problem = read(WHEEL, data).problem
            self.assertEqual(is_read, not problem)
            if not is_read:
                self.assertIn(str(METADATA_LIMIT), problem)

    def test_empty_metadata(self):
        facts = read(WHEEL, archives.zipped(
            {"Foo_Bar-1.0.dist-info/METADATA": b""}))
        self.assertIn(facts.problem, ("", "it has no core metadata"))


class TestTarMetadata(unittest.TestCase):
    def assert_metadata(self, wanted, plain):
        data = gzip.compress(plain)
        self.assertEqual("", read(SDIST, data).problem)
        self.assertEqual(wanted, metadata_of(SDIST, data))

    def test_places(self):
        rest = [("f%d" % number, NOISE[:number * 9]) for number in range(99)]
        for place in (0, 1, 50, 99):
            members = rest[:place] + [("PKG-INFO", INFO)] + rest[place:]
            self.assert_metadata(INFO, tar(*members))
        self.assert_metadata(None, tar(*rest))
        self.assert_metadata(INFO, tar(("PKG-INFO", INFO), top="./a/"))
        self.assert_metadata(None, tar(("PKG-INFO", INFO), top=""))
        self.assert_metadata(INFO, tar(
            ("a.egg-info/PKG-INFO", b"Name: inner\n"), ("PKG-INFO", INFO)))

    def test_formats(self):
        """GNU long names, pax headers, old headers: PKG-INFO is found."""
        long_name = "very/" * 60 + "long.py"
        for number in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT,
                       tarfile.PAX_FORMAT):
            name = "n" * 80 if number == tarfile.USTAR_FORMAT else long_name
            with self.subTest(number):
                self.assert_metadata(INFO, tar(
                    (name, b"x" * 600), ("\xe4" * 9, b"y"),
                    ("PKG-INFO", INFO), format=number))

    def test_pax_headers_before_the_file_itself(self):
        for number in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode="w", format=number,
                              pax_headers={"comment": "some"}) as made:
                member = tarfile.TarInfo("Foo.Bar-1.0/PKG-INFO")
                member.size = len(INFO)
                member.mtime = 1234567890.123
                member.uname = "\xfcser"
                made.addfile(member, io.BytesIO(INFO))
            self.assert_metadata(INFO, file.getvalue())

    def test_empty_and_endless(self):
        self.assert_metadata(None, b"")
        self.assert_metadata(None, b"\0" * 10240)
        # No end marker.
        self.assert_metadata(INFO, header(
            b"a/PKG-INFO", b"%011o\0" % len(INFO)) + INFO.ljust(
                (len(INFO) + 511) // 512 * 512, b"\0"))
        # A file that the tar does not hold to its end.
        self.assertIn("cut off", read(SDIST, gzip.compress(header(
            b"a/PKG-INFO", b"%011o\0" % 99999) + INFO)).problem)

    def test_odd_sizes_and_checksums(self):
        """They end the search; the stream is whole all the same, unless it
        should have more.
        """
        wanted = header(b"a/PKG-INFO", b"%011o\0" % 3) + b"abc".ljust(
            512, b"\0")
        for name, head in (
                ("huge", header(b"x", b"77777777777\0")),
                ("base 256", header(b"x", b"\x80".ljust(11, b"\0") + b"\0")),
                ("huge base 256", header(b"x", b"\x80" + b"\xff" * 11)),
                ("negative base 256", header(b"x", b"\xff" * 12)),
                ("not a number", header(b"x", b"xyz")),
                ("not octal", header(b"x", b"00000000999")),
                ("8 bit", header(b"x", b"\x31\xe4\xf6")),
                ("blank", header(b"x", b" " * 12)),
                ("no checksum", header(b"x", checksum=b"")),
                ("wrong checksum", header(b"x", checksum=b"000001\0 ")),
                ("odd checksum", header(b"x", checksum=b"zzzzzz\0 ")),
                ("long checksum", header(b"x", checksum=b"99999999")),
                ("a link", header(b"a/PKG-INFO", kind=b"2")),
                ("a directory", header(b"a/PKG-INFO", kind=b"5")),
                ("a sparse file", header(b"a/PKG-INFO", kind=b"S")),
                ("too large", header(b"a/PKG-INFO", b"77777777777\0")),
                ("malformed pax", pax(b"nonsense")),
                ("cut off pax", pax(b"99 path=a/b\n")),
                ("endless pax", pax(b"0 path=a/b\n")),
                ("negative pax", pax(b"-9 path=a/b\n")),
                ("odd pax size", pax(b"14 size=a/b/c\n")),
                ("huge pax size", pax(b"17 size=99999999\n")),
                ("empty pax", pax(b"")),
                ("pax for all", pax(b"12 path=a/b\n", b"g")),
                ("GNU long name", pax(b"some/name", b"L")),
                ("GNU long link", pax(b"some/name", b"K")),
                ("no tar", b"What is this?" * 99)):
            with self.subTest(name):
                data = gzip.compress(head + wanted)
                problem = read(SDIST, data).problem
                self.assertEqual(
                    "cut off" if name in (
                        "huge", "huge base 256", "negative base 256",
                        "too large", "huge pax size") else "", problem[-7:])
                self.assertIn(metadata_of(SDIST, data), (None, b"", b"abc"))

    def test_negative_sizes_do_not_loop(self):
        """int("-1750", 8) is a number: as CVE-2025-8194 in tarfile."""
        for size in (b"-1750", b"-1", b"-1000", b"-777777777"):
            data = gzip.compress(
                header(b"x", size) + header(b"a/PKG-INFO", size) * 3)
            code = ("import io, pypi_server as p; print(p.read_archive("
                    "io.BytesIO(%r), p.Archive('', '', 'a-1.tgz', 'a', '1', "
                    "'sdist'), ()).problem)" % data)
            with self.subTest(size):
                try:
                    subprocess.run(
                        [sys.executable, "-c", code], timeout=10, check=True,
                        stdout=subprocess.DEVNULL,
                        cwd=os.path.dirname(pypi_server.__file__))
                except subprocess.TimeoutExpired:
                    self.fail("it loops for ever")

    def test_header_bytes_at_random(self):
        chance = random.Random(10)
        plain = tar(("noise", NOISE), ("PKG-INFO", INFO))
        for _ in range(300):
            broken = bytearray(plain)
            place = chance.randrange(100, 200)
            broken[place] = chance.choice((0, 255, 32, 45, 55))
            with self.subTest(bytes(broken[:512])):
                self.assertEqual("", read(SDIST, gzip.compress(
                    bytes(broken), 1)).problem)


# core metadata, {field: values}
METADATA = (
    (b"", {}), (b"\n\n", {}), (b"no field here", {}),
    (b"Name: a\nVersion: 1\n", {"name": ["a"], "version": ["1"]}),
    (b"Name: a\n\nThe text\n", {"name": ["a"],
                                "description": ["The text\n"]}),
    (b"Name: a\r\nVersion: 1\r\n\r\nOne\r\nTwo\r\n",
     {"name": ["a"], "version": ["1"], "description": ["One\nTwo\n"]}),
    (b"\xef\xbb\xbfName: a\n", {"name": ["a"]}),
    (b"Name: \xc3\xa4\n", {"name": ["\xe4"]}),
    (b"Author: \xe4\n", {"author": ["\xe4"]}),  # latin-1
    (b"NAME:a\nname : b\n", {"name": ["a", "b"]}),
    (b"Classifier: A :: B\nClassifier: C\n",
     {"classifier": ["A :: B", "C"]}),
    (b"Keywords: a,\n  b,\n\tc\nName: x\n",
     {"keywords": ["a,\n  b,\n\tc"], "name": ["x"]}),
    (b"License: one\n        two\n\ntext",
     {"license": ["one\n        two"], "description": ["text"]}),
    (b"Description: UNKNOWN\n\n\n", {"description": ["UNKNOWN"]}),
    (b"Project-URL: Home, http://x:1/y\n",
     {"project-url": ["Home, http://x:1/y"]}),
    (b"Requires-Python: >=3.6\nX\nName: a\n",
     {"requires-python": [">=3.6"], "name": ["a"]}),
    (b"Name: a\n\nName: no field\n\nmore", {
        "name": ["a"], "description": ["Name: no field\n\nmore"]}),
)

FIRST = (
    ([], ""), (["a"], "a"), (["UNKNOWN"], ""), (["a", "b"], "a"),
    ([" a\n  b "], "a b"), ([""], ""), (["unknown"], "unknown"),
    ([">=3.6,\n <4"], ">=3.6, <4"),
)


class TestParse(unittest.TestCase):
    def test_fields(self):
        for data, wanted in METADATA:
            with self.subTest(data):
                found = parse_metadata(data)
                self.assertEqual(wanted, {
                    name: values for name, values in found.items()
                    if values != [""]})

    def test_description_in_the_head_comes_first(self):
        found = parse_metadata(b"Description: head\nName: a\n\nbody\n")
        self.assertEqual("head", first(found, "description"))

    def test_first(self):
        for values, wanted in FIRST:
            with self.subTest(values):
                found = {"x": values} if values else {}
                self.assertEqual(wanted, first(found, "x"))

    def test_requires_python_is_on_one_line(self):
        """It goes into an attribute and must not hold what ends a line."""
        data = archives.zipped({"Foo_Bar-1.0.dist-info/METADATA":
                                b"Requires-Python: >=3.6,\r\n  <4\r\n"})
        self.assertEqual(">=3.6, <4", read(WHEEL, data).requires_python)

    def test_anything_is_parsed(self):
        chance = random.Random(11)
        for _ in range(500):
            parse_metadata(bytes(chance.choice(b"a:\n\r \t\xff\xc3\0")
                                 for _ in range(30)))

    def test_broken_archives_raise_what_is_declared(self):
        with self.assertRaises(ValueError):
            metadata_of(WHEEL, b"")


if __name__ == "__main__":
    unittest.main()
