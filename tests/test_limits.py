"""Large, slow and scarce: what a machine runs out of, and for how long.

Each of these takes seconds, so they are run on one interpreter only.
"""

import bz2
import contextlib
import gzip
import io
import os
import shutil
import socket
import subprocess
import tarfile
import time
import unittest
import zipfile
from urllib.parse import urlsplit

from tests import archives, forms, soak
from tests.helpers import (
    DirectoryTestCase, ServerProcess, Wire, ask, texts, wait_for,
)
from tests.test_accounts import cpu_seconds
from tests.test_upload_faults import ANYONE, SDIST, FaultTestCase, Mounted
from tests.test_upload_faults import sdist as small_sdist

WHEEL = "foo-1.0-py3-none-any.whl"
DATA = archives.wheel("foo", "1.0")
MEGABYTE = 2 ** 20


def most_memory(process):
    """Return the most memory that a process ever had, in bytes."""
    with open("/proc/%d/status" % process.pid) as file:
        for line in file:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


@unittest.skipUnless(os.path.exists("/proc/self/status"),
                     "no /proc to look at processes through")
class LimitTestCase(FaultTestCase):
    def limit(self, server, option):
        """Take something away from a running server; return the old value."""
        if not shutil.which("prlimit"):
            self.skipTest("no program prlimit")
        subprocess.run(
            ["prlimit", "--pid", str(server.process.pid), option],
            check=True)

    def crowd(self, server, count):
        """Connect so often, and say nothing."""
        wires = []
        for _ in range(count):
            wire = socket.create_connection(self.address(server), 30)
            self.addCleanup(wire.close)
            wires.append(wire)
        return wires

    def is_served(self, server, seconds=30):
        """Tell whether a client gets an answer, if it keeps trying."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            with contextlib.suppress(OSError, AssertionError):
                with Wire(self.address(server), 5) as wire:
                    wire.send(b"GET /simple/ HTTP/1.1\r\nHost: a\r\n\r\n")
                    if wire.answer()[0] == 200:
                        return True
            time.sleep(.05)
        return False


PYTHON = "/usr/bin/python3"  # that other users can run
NOBODY = 61234               # has no other process, which would count


class Limited(ServerProcess):
    """A server of another user, who may have few threads."""

    def __init__(self, *arguments):
        super().__init__(*arguments, python=PYTHON)
        self.command = ["setpriv", "--reuid=%d" % NOBODY,
                        "--regid=%d" % NOBODY, "--clear-groups", "prlimit",
                        "--nproc=40:40"] + self.command


class TestScarcity(LimitTestCase):
    def check(self, kind=ServerProcess, option=""):
        archives.put(self.root, WHEEL, DATA)
        server = kind("-v", "--cache-dir", self.cache, *ANYONE + (self.root,))
        server.__enter__()
        self.addCleanup(server.stop)
        self.assertTrue(self.is_served(server))
        if option:
            self.limit(server, option)
        wires = self.crowd(server, 120)
        self.assertTrue(self.is_served(server), server.logged()[-2000:])
        before = cpu_seconds(server.process)
        time.sleep(2)
        # It does not turn in circles.
        self.assertLess(cpu_seconds(server.process) - before, 1)
        for wire in wires:
            wire.close()
        self.assertTrue(self.is_served(server))
        self.assertEqual(200, self.send(
            server, SDIST, small_sdist()).status)
        server.stop()
        self.assertNotIn("Traceback", server.output)
        self.assertLessEqual(server.output.count("is refused"), 2)

    def test_no_more_descriptors(self):
        self.check(option="--nofile=60:60")

    def test_no_more_threads(self):
        """Counted for each user, and root has as many as it likes."""
        if not hasattr(os, "getuid") or os.getuid():
            self.skipTest("only root may become somebody else")
        if not shutil.which("setpriv") or not os.path.exists(PYTHON):
            self.skipTest("no program setpriv, or no %s" % PYTHON)
        for path in self.folder, self.root:
            os.chown(path, NOBODY, NOBODY)
        self.check(Limited)


class TestLargeArchives(LimitTestCase):
    def test_a_hundred_thousand_members(self):
        names = ["foo/folder/%d/module.py" % number
                 for number in range(100000)]
        info = archives.metadata("foo", "1.0")
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(name), b"")
            archive.writestr("foo-1.0.dist-info/METADATA", info)
        archives.put(self.root, WHEEL, file.getvalue())
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name in ["foo-1.0/PKG-INFO"] + names:
                member = tarfile.TarInfo(
                    name if "PKG" in name else "foo-1.0/" + name)
                member.size = len(info) if "PKG" in name else 0
                archive.addfile(member, io.BytesIO(info))
        archives.put(self.root, "foo-1.0.tar.gz", file.getvalue())
        server = self.start()
        wait_for(lambda: len(texts(server.get("simple/foo/").body)) == 2,
                 "both are listed", 60)
        self.assertEqual(info, server.get(
            "packages/" + WHEEL + ".metadata").body)
        self.assertLess(most_memory(server.process), 250 * MEGABYTE)


class TestBombs(LimitTestCase):
    """Little that unpacks to a lot: neither memory nor hours."""

    def zeros(self, megabytes):
        """Return a tar with PKG-INFO and then zeros."""
        data = archives.sdist("foo", "1.0")
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as tar:
            info = tar.getmembers()[0]
            content = tar.extractfile(info).read()
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            tar.addfile(info, io.BytesIO(content))
            large = tarfile.TarInfo("foo-1.0/zeros")
            large.size = megabytes * MEGABYTE
            file.write(large.tobuf())
        return file.getvalue(), megabytes

    def packed(self, compressor, start, megabytes):
        pieces = [compressor.compress(start)]
        block = bytes(16 * MEGABYTE)
        for _ in range(megabytes // 16):
            pieces.append(compressor.compress(block))
        pieces.append(compressor.flush())
        return b"".join(pieces)

    def test_tars(self):
        start, megabytes = self.zeros(1280)
        import zlib
        data = self.packed(zlib.compressobj(9, zlib.DEFLATED, 31), start,
                           megabytes)
        self.assertLess(len(data), 2 * MEGABYTE)
        archives.put(self.root, "foo-1.0.tar.gz", data)
        server = self.start()
        wait_for(lambda: "times its size" in server.logged(), "withheld", 120)
        answer = self.send(server, "foo-1.0.tar.gz", data)
        self.assertEqual(400, answer.status)
        self.assertIn(b"times its size", answer.body)
        self.assertLess(most_memory(server.process), 120 * MEGABYTE)

    def test_what_compresses_well_is_no_bomb(self):
        """A data set of half a gigabyte, for example."""
        start, megabytes = self.zeros(512)
        data = self.packed(bz2.BZ2Compressor(1), start, megabytes)
        server = self.start()
        self.assertEqual(
            200, self.send(server, "foo-1.0.tar.bz2", data).status)

    def test_metadata_in_zips(self):
        """zipfile unpacks bz2 and lzma as they come."""
        info = archives.metadata("foo", "1.0")
        for method in zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, \
                zipfile.ZIP_LZMA:
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w", method) as archive, \
                    archive.open("foo-1.0.dist-info/METADATA", "w",
                                 force_zip64=True) as member:
                member.write(info)
                for _ in range(200):
                    member.write(bytes(MEGABYTE))
            with self.subTest(method):
                server = self.start()
                answer = self.send(server, WHEEL, file.getvalue())
                self.assertEqual(400, answer.status)
                self.assertLess(most_memory(server.process), 250 * MEGABYTE)
                server.stop()


class TestSlowness(LimitTestCase):
    def test_a_body_that_trickles(self):
        """It is not enough that another byte comes now and then."""
        archives.put(self.root, WHEEL, DATA)
        server = self.start()
        _, body = forms.upload(WHEEL, DATA)
        wire = Wire(self.address(server), 60)
        self.addCleanup(wire.socket.close)
        wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n"
                  b"Content-Type: " + forms.content_type().encode()
                  + b"\r\n\r\n")
        started = time.monotonic()
        wire.socket.settimeout(.2)
        for byte in body:
            with contextlib.suppress(OSError):
                wire.send(bytes([byte]))
            with contextlib.suppress(socket.timeout):
                wire.receive()
            if wire.buffer:
                break
        took = time.monotonic() - started
        self.assertTrue(15 < took < 30, took)
        self.assertEqual(408, wire.answer()[0])
        wait_for(lambda: self.files() == [WHEEL], "nothing is left")


class TestClocks(DirectoryTestCase):
    """A clock that is wrong, and one that jumps."""

    def setUp(self):
        super().setUp()
        if not shutil.which("faketime"):
            self.skipTest("no program faketime")
        found = subprocess.run(
            ["faketime", "-f", "+0", "printenv", "LD_PRELOAD"],
            stdout=subprocess.PIPE, universal_newlines=True)
        if found.returncode:
            self.skipTest("faketime does not work here")
        self.clock = os.path.join(self.folder, "clock")
        self.set("+0")
        self.environment = {
            "LD_PRELOAD": found.stdout.strip(), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_TIMESTAMP_FILE": self.clock,
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # What the file system says stays true.
            "NO_FAKE_STAT": "1"}

    def set(self, offset):
        with open(self.clock + ".new", "w") as file:
            file.write(offset + "\n")
        os.replace(self.clock + ".new", self.clock)

    def check(self, server, number):
        """Files and uploads show at once, with headers that make sense."""
        name = "p%d-1.0-py3-none-any.whl" % number
        archives.put(self.root, name, archives.wheel("p%d" % number, "1.0"),
                     age=0)
        wait_for(lambda: name in texts(server.get(
            "simple/p%d/" % number).body), name, 5)
        answer = server.get("packages/" + name)
        self.assertEqual(200, answer.status)
        headers, body = forms.upload(
            "u%d-1.0-py3-none-any.whl" % number,
            archives.wheel("u%d" % number, "1.0"))
        address = urlsplit(server.url)
        self.assertEqual(200, ask(address.hostname, address.port, "POST",
                                  "/", headers, body).status)
        self.assertEqual(200, server.get(
            "packages/u%d-1.0-py3-none-any.whl" % number).status)
        return answer.headers

    def test_it_jumps(self):
        with ServerProcess(*ANYONE, self.root,
                           environment=self.environment) as server:
            self.check(server, 0)
            for number, (offset, year) in enumerate((
                    ("+5000d", "2040"), ("-15000d", "1985"),
                    ("+0", str(time.gmtime().tm_year))), 1):
                self.set(offset)
                headers = wait_for(
                    lambda: self.check_year(server, year), offset)
                with self.subTest(offset):
                    headers = self.check(server, number)
                    self.assertIn(year, headers["date"])

    def check_year(self, server, year):
        found = server.get("health").headers["date"].split()[3]
        return abs(int(found) - int(year)) <= 1


class TestCoarseTimes(FaultTestCase):
    """A filesystem that keeps whole seconds."""

    def test_replaced_within_a_second(self):
        if not shutil.which("mkfs.ext2"):
            self.skipTest("no program mkfs.ext2")
        image = os.path.join(self.folder, "image")
        with open(image, "wb") as file:
            file.truncate(16 * MEGABYTE)
        subprocess.run(["mkfs.ext2", "-q", "-F", "-I", "128", image],
                       check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        mounted = Mounted(self, "-o", "loop", image)
        self.root = os.path.join(mounted.path, "packages")
        os.mkdir(self.root)
        if os.stat(self.root).st_mtime_ns % 10 ** 9:
            self.skipTest("this filesystem keeps more than seconds")
        server = self.start()
        for number in range(4):
            data = archives.wheel("foo", "1.0", body=str(number))
            archives.put(self.root, WHEEL, data, age=0)
            wait_for(lambda: server.get("packages/" + WHEEL).body == data,
                     "number %d" % number, 5)
            self.assertIn(forms.digests(data)["sha256_digest"].encode(),
                          server.get("simple/foo/").body)


class TestPowerCut(FaultTestCase):
    def test_what_was_answered_is_on_the_disk(self):
        """The image of the disk has what was flushed, and nothing else."""
        if not shutil.which("mkfs.ext4"):
            self.skipTest("no program mkfs.ext4")
        image = os.path.join(self.folder, "image")
        with open(image, "wb") as file:
            file.truncate(32 * MEGABYTE)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True,
                       stderr=subprocess.DEVNULL)
        mounted = Mounted(self, "-o", "loop", image)
        self.root = os.path.join(mounted.path, "packages")
        os.mkdir(self.root)
        subprocess.run(["sync", "-f", self.root], check=True)
        server = self.start("-o", *ANYONE)
        data = archives.wheel("foo", "1.0", files={
            "noise": os.urandom(3 * MEGABYTE)})
        for each in archives.wheel("foo", "1.0"), data:
            self.assertEqual(200, self.send(server, WHEEL, each).status)
            shutil.copy(image, image + ".cut")
            self.assertEqual(each, self.content(image + ".cut"))

    def content(self, image):
        """Return the archive as it is after the power is back."""
        folder = image + ".mounted"
        os.makedirs(folder, exist_ok=True)
        subprocess.run(["mount", "-o", "loop", image, folder], check=True)
        try:
            with open(os.path.join(folder, "packages", WHEEL), "rb") as file:
                return file.read()
        finally:
            subprocess.run(["umount", folder], check=True)


class TestSoak(unittest.TestCase):
    @unittest.skipUnless(os.path.exists("/proc/self/status"),
                         "no /proc to look at processes through")
    def test_nothing_grows(self):
        self.check()

    def test_workers_with_tls(self):
        self.check(workers=2, is_secured=True)

    def check(self, workers=1, is_secured=False):
        before, after, threads, statuses, log = soak.soak(
            8, lambda line: None, workers, is_secured)
        self.assertLessEqual(after[0], before[0] + 2)
        self.assertLessEqual(after[1], before[1] + 1)
        self.assertLess(after[2] - before[2], 30 * workers * MEGABYTE)
        self.assertLessEqual(threads, soak.most_threads(workers))
        self.assertNotIn("Traceback", log)
        for what in ("page", "download", "upload", "bad login", "other host",
                     "slow reader"):
            self.assertIn(what, statuses)
        for found in statuses.values():
            self.assertNotIn(500, found, statuses)


if __name__ == "__main__":
    unittest.main()
