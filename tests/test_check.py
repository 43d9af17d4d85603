"""Inspection and Check: what is found in package directories."""

import base64
import collections
import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
import unittest
import zipfile
from unittest import mock

try:
    import resource
except ImportError:  # Windows
    resource = None

import pypi_server
from tests import archives
from tests.helpers import PROGRAM, SCRIPT, DirectoryTestCase, wait_for
from tests.upstream import isolated

DEMO = "demo-1.0-py2.py3-none-any.whl"
INFO = "demo-1.0.dist-info/"
MEBIBYTE = 1024 ** 2
# Runs a command, and tells how many KiB it took at the most.
MEASURED = """if True:
    import resource, subprocess, sys
    status = subprocess.call(sys.argv[1:])
    sys.stderr.write("%d\\n" % resource.getrusage(
        resource.RUSAGE_CHILDREN).ru_maxrss)
    sys.exit(status)
    """


def members(data):
    """Return {path: bytes} of a zip."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(**changes):
    """Return a wheel whose members are not those of its RECORD."""
    found = members(archives.wheel("demo", "1.0"))
    for path, data in changes.items():
        found[path.replace("__", "/").replace("_py", ".py")] = data
    return archives.zipped({path: data for path, data in found.items()
                            if data is not None})


def recorded(record):
    """Return a wheel with another RECORD, made by a function of its lines.
    """
    found = members(archives.wheel("demo", "1.0"))
    found[INFO + "RECORD"] = "\n".join(record(
        found[INFO + "RECORD"].decode().splitlines())).encode()
    return archives.zipped(found)


def corrupt(data, needle):
    """Change one byte of a stored member."""
    at = data.index(needle)
    return data[:at] + b"?" + data[at + 1:]


class CheckTestCase(DirectoryTestCase):
    def put(self, filename, data, age=60):
        return archives.put(self.root, filename, data, age)

    def check(self, *more, options=()):
        """Return {path below the root: [(kind, problem)]}, and the rest."""
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), \
                contextlib.redirect_stderr(errors):
            found = pypi_server.main(
                ("check", "--json") + (options or (
                    "--cache-dir", os.path.join(self.folder, "cache")))
                + (self.root,) + more)
        self.assertEqual("", errors.getvalue())
        report = json.loads(output.getvalue())
        self.assertEqual(1 if report["findings"] else 0, found)
        findings = {}
        for finding in report["findings"]:
            findings.setdefault(os.path.relpath(
                finding["subject"], self.root), []).append(
                    (finding["kind"], finding["problem"]))
        return findings, report

    def start(self, *arguments, wrapper=()):
        return subprocess.Popen(
            [*wrapper, sys.executable, "-W", "error", *PROGRAM, "check",
             "--cache-dir",
             os.path.join(self.folder, "cache"), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=isolated(self.folder), universal_newlines=True,
            start_new_session=True)


class TestFindings(CheckTestCase):
    def test_nothing(self):
        self.put(DEMO, archives.wheel("demo", "1.0"))
        self.put("demo-1.0.tar.gz", archives.sdist("demo", "1.0"))
        self.put("demo-1.0.zip", archives.sdist("demo", "1.0", ".zip"))
        self.put("demo-1.0-py3.9.egg", archives.egg("demo", "1.0"))
        self.put(DEMO + ".asc", b"x")
        self.put(DEMO + ".yanked", b"")
        self.put("Demo.status", b"archived it is old")
        self.put(".hidden", b"x")
        findings, report = self.check()
        self.assertEqual({}, findings)
        self.assertEqual({
            "directories": [self.root], "archives": 4, "projects": 1,
            "findings": []}, report)

    def test_each_kind(self):
        """(filename, content, kind, what the problem tells)."""
        wheel = archives.wheel("demo", "1.0")
        cases = (
            ("cut-1.0.tar.gz", archives.sdist("cut", "1.0")[:-9], "broken",
             "cut off"),
            ("cut-1.0-py3-none-any.whl", wheel[:-9], "broken", "cut off"),
            ("bare-1.0-py3-none-any.whl", archives.zipped({"a.py": b""}),
             "broken", "no core metadata"),
            ("other-1.0-py3-none-any.whl", wheel, "name", "'demo'"),
            ("demo-1.1-py3-none-any.whl", wheel, "version", "'1.0'"),
            ("old-2004r-final.tar.gz", archives.sdist("old", "2004r-final"),
             "version", "PEP 440"),
            ("nameless-1.0.zip", archives.zipped(
                {"nameless-1.0/PKG-INFO": b"Version: 1.0\n"}), "name",
             "no Name"),
            ("versionless-1.0.zip", archives.zipped(
                {"versionless-1.0/PKG-INFO": b"Name: versionless\n"}),
             "version", "no Version"),
            ("notes.txt", b"x", "unrecognized", "neither"),
            ("demo.whl", wheel, "unrecognized", "PEP 427"),
            ("demo-1.0.tar.gz.part", b"x", "unrecognized", "not finished"),
            (DEMO + ".metadata", b"x", "unrecognized", "neither"),
            ("gone-1.0.tar.gz.asc", b"x", "companion",
             "no archive 'gone-1.0.tar.gz'"),
            ("gone-1.0.tar.gz.yanked", b"", "companion", "no archive"),
            ("notes.txt.provenance", b"", "companion", "no archive"),
            ("gone.status", b"archived", "companion", "project gone"),
            ("demo.status", b"strange", "companion", "'strange'"))
        self.put(DEMO, wheel)
        for filename, data, _, _ in cases:
            self.put(filename, data)
        findings, report = self.check()
        for filename, _, kind, text in cases:
            with self.subTest(filename):
                self.assertEqual([kind], [
                    found[0] for found in findings.get(filename, ())])
                self.assertIn(text, findings[filename][0][1])
        self.assertEqual({case[0] for case in cases}, set(findings))
        self.assertEqual(9, report["archives"])

    def test_shadows(self):
        second = os.path.join(self.folder, "second")
        archives.put(self.root, "b/" + DEMO, archives.wheel("demo", "1.0"))
        archives.put(self.root, "a/" + DEMO, archives.wheel("demo", "1.0"))
        archives.put(second, DEMO, b"broken")
        archives.put(self.root, "demo.status", b"archived")
        archives.put(second, "Demo.status", b"archived")
        findings, report = self.check(second)
        self.assertEqual([("shadowed", "%s/a/%s comes first" % (
            self.root, DEMO))], findings["b/" + DEMO])
        self.assertEqual(["broken", "shadowed"], [
            kind for kind, _ in findings["../second/" + DEMO]])
        self.assertIn("comes first", findings["../second/Demo.status"][0][1])
        self.assertEqual((3, 1), (report["archives"], report["projects"]))

    def test_directory_in_another(self):
        """Each file is one file, whatever the order."""
        sub = os.path.join(self.root, "sub")
        archives.put(sub, DEMO, archives.wheel("demo", "1.0"))
        archives.put(sub, "deep/notes.txt", b"x")
        for more in ((sub,), (sub, os.path.join(sub, "deep"))):
            findings, report = self.check(*more)
            self.assertEqual({"sub/deep/notes.txt": [(
                "unrecognized", "it is neither an archive nor a companion "
                "file")]}, findings)
            self.assertEqual(1, report["archives"])

    @unittest.skipIf(os.name == "nt", "names and links of POSIX")
    def test_what_is_no_file(self):
        os.symlink("/nowhere", os.path.join(self.root, DEMO))
        os.symlink(self.folder, os.path.join(self.root, "folder"))
        os.mkfifo(os.path.join(self.root, "demo-1.0.tar.gz"))
        os.mkdir(os.path.join(self.root, "fine"))
        self.put("\x1b.whl", b"x")
        findings, _ = self.check()
        self.assertEqual({DEMO, "folder", "demo-1.0.tar.gz"},
                         {name for name, found in findings.items()
                          if "it is no file" in found[0][1]})
        self.assertEqual(4, len(findings))

    @unittest.skipUnless(hasattr(os, "geteuid") and os.geteuid() == 0,
                         "needs to be root, to be somebody else")
    def test_what_cannot_be_read(self):
        os.chmod(self.folder, 0o755)
        os.chmod(self.put(DEMO, archives.wheel("demo", "1.0")), 0)
        os.mkdir(os.path.join(self.root, "closed"), 0o700)
        os.seteuid(65534)
        try:
            findings, _ = self.check(
                    options=("--backend", "simple-dir"))
        finally:
            os.seteuid(0)
        self.assertEqual({
            DEMO: [("broken", "it cannot be read: Permission denied")],
            "closed": [("broken", "Permission denied")]}, findings)

    def test_text(self):
        self.put(DEMO, b"x")
        self.put("notes.txt", b"x")
        process = self.start(self.root)
        output, errors = process.communicate(timeout=60)
        self.assertEqual((1, ""), (process.returncode, errors))
        self.assertEqual(
            "broken: not whole, or not readable\n"
            "  %s/%s: it is no zip, or it is cut off\n"
            "unrecognized: neither an archive nor a companion file\n"
            "  %s/notes.txt: it is neither an archive nor a companion file\n"
            "1 archive of 1 project: 2 findings\n" % (
                self.root, DEMO, self.root), output)

    def test_usage(self):
        missing = os.path.join(self.folder, "missing")
        for arguments, message in (
                ((missing,), "there is no package directory"),
                (("--python", "3.11", self.root), "--closure"),
                (("--platform", "win_amd64", self.root), "--closure"),
                (("--closure", "--python", "2.7", self.root),
                 "a version of CPython 3"),
                (("--closure", "--platform", "linux_x86_64", self.root),
                 "manylinux_2_28_x86_64"),
                (("--closure", "--platform", "win_x", self.root),
                 "win_amd64")):
            with self.subTest(arguments):
                errors = io.StringIO()
                with contextlib.redirect_stderr(errors):
                    status = pypi_server.main(("check",) + arguments)
                self.assertEqual(2, status)
                self.assertIn(message, errors.getvalue())
                self.assertEqual(1, errors.getvalue().count("\n"))
        self.assertFalse(os.path.exists(missing))


class TestRecord(CheckTestCase):
    def test_wheels(self):
        """(wheel, expected problems)."""
        extra = {"more%d.py" % number: b"" for number in range(5)}
        weak = "demo.py,md5=%s,16" % base64.urlsafe_b64encode(
            hashlib.md5(b"version = '1.0'\n").digest()).decode()
        strong = "demo.py,sha512=%s,16" % base64.urlsafe_b64encode(
            hashlib.sha512(b"version = '1.0'\n").digest()).decode()
        signed = members(archives.wheel("demo", "1.0"))
        signed[INFO + "RECORD.jws"] = b"{}"
        double = io.BytesIO(archives.wheel("demo", "1.0"))
        with self.assertWarns(UserWarning), \
                zipfile.ZipFile(double, "a") as archive:
            archive.writestr("demo.py", b"version = '1.0'\n")
        stored = archives.wheel("demo", "1.0",
                                compression=zipfile.ZIP_STORED)
        cases = (
            (archives.wheel("demo", "1.0"), ()),
            (stored, ()),
            (archives.zipped(signed), ()),
            (recorded(lambda lines: [strong] + lines[1:]), ()),
            (recorded(lambda lines: lines + ['"with, comma.py",,']), (
                "record: its RECORD lists 'with, comma.py', which it does "
                "not have",)),
            (changed(demo_py=b"version = '1.1'\n"), (
                "record: 'demo.py' is not what its RECORD says",)),
            (recorded(lambda lines: [lines[0] + "1"] + lines[1:]), (
                "record: 'demo.py' is not what its RECORD says",)),
            (recorded(lambda lines: [weak] + lines[1:]), (
                "record: its RECORD has no digest of 'demo.py' that is one "
                "of sha256, sha384, sha512",)),
            (recorded(lambda lines: ["demo.py,,"] + lines[1:]), (
                "record: its RECORD has no digest of 'demo.py' that is one "
                "of sha256, sha384, sha512",)),
            (changed(demo_py=None), (
                "record: its RECORD lists 'demo.py', which it does not "
                "have",)),
            (changed(**extra), tuple(
                "record: its RECORD lacks 'more%d.py'" % number
                for number in range(3)) + (
                    "record: and 2 more of that kind",)),
            (archives.zipped({path: data for path, data in signed.items()
                              if not path.endswith("RECORD")}), (
                "record: it has no RECORD",)),
            (archives.zipped(dict(signed, **{
                INFO + "RECORD": b"\n" * 10 ** 7})), (
                    "record: its RECORD has far more lines than there are "
                    "members",)),
            (archives.zipped(dict(signed, **{INFO + "RECORD": b"\xff"})), (
                "record: its RECORD is not a table in UTF-8",)),
            (double.getvalue(), ("broken: it has two members 'demo.py'",)),
            (corrupt(stored, b"version = "), (
                "broken: its member 'demo.py' is corrupt",)))
        for number, (data, expected) in enumerate(cases):
            with self.subTest(number):
                self.put(DEMO, data)
                findings, _ = self.check(
                    options=("--backend", "simple-dir"))
                self.assertEqual(sorted(expected), sorted(
                    "%s: %s" % found for found in findings.get(DEMO, ())))

    def test_a_large_file_of_an_sdist_makes_it_no_less_whole(self):
        self.put("demo-1.0.zip", archives.zipped({
            "demo-1.0/PKG-INFO": archives.metadata("demo", "1.0"),
            "demo-1.0/pyproject.toml": bytes(11 * 2 ** 20)}))
        findings, _ = self.check(options=("--closure",))
        self.assertEqual(["requirement"], [
            kind for kind, _ in findings["demo-1.0.zip"]])

    def test_other_zips_are_unpacked(self):
        data = archives.zipped({
            "demo-1.0/PKG-INFO": archives.metadata("demo", "1.0"),
            "demo-1.0/a.py": b"version"}, zipfile.ZIP_STORED)
        self.put("demo-1.0.zip", corrupt(data, b"version\x50"))
        findings, _ = self.check()
        self.assertEqual([("broken", "its member 'demo-1.0/a.py' is corrupt")],
                         findings["demo-1.0.zip"])


class TestRot(CheckTestCase):
    """The disk changes a byte, and no time stamp tells of it."""

    def remember(self):
        """Check until the cache knows the digests."""
        wait_for(lambda: self.check()[0] == {} and self.rows(), "it settles")

    def rows(self):
        path = os.path.join(self.folder, "cache", "facts-%d.sqlite3"
                            % pypi_server.FactCache.VERSION)
        with contextlib.closing(sqlite3.connect(path)) as database:
            return list(database.execute("SELECT path FROM facts"))

    def rot(self, path, data):
        """Write other bytes; let the cache believe that it saw their times.
        """
        with open(path, "r+b") as file:
            file.write(data)
        name = os.path.join(self.folder, "cache", "facts-%d.sqlite3"
                            % pypi_server.FactCache.VERSION)
        with contextlib.closing(sqlite3.connect(name)) as database:
            database.execute("UPDATE facts SET identity = ?", (
                json.dumps(pypi_server.look(path)),))
            database.commit()

    def test_digest(self):
        before = archives.wheel("demo", "1.0", files={"x": b"a" * 10},
                                compression=zipfile.ZIP_STORED)
        after = archives.wheel("demo", "1.0", files={"x": b"b" * 10},
                               compression=zipfile.ZIP_STORED)
        path = self.put(DEMO, before)
        self.remember()
        self.rot(path, after)
        for _ in range(2):  # the cache still knows the right one
            findings, _ = self.check()
            (kind, problem), = findings[DEMO]
            self.assertEqual("changed", kind)
            for data in before, after:
                self.assertIn(hashlib.sha256(data).hexdigest(), problem)

    def test_end(self):
        data = archives.wheel("demo", "1.0")
        path = self.put(DEMO, data)
        self.remember()
        self.rot(path, b"\0" * len(data))
        findings, _ = self.check()
        self.assertEqual(["broken", "changed"], [
            kind for kind, _ in findings[DEMO]])

    def test_replaced_file_is_no_rot(self):
        self.put(DEMO, archives.wheel("demo", "1.0"))
        self.remember()
        self.put(DEMO, archives.wheel("demo", "1.0", body="other"))
        self.assertEqual({}, self.check()[0])

    def test_what_the_cache_holds_back(self):
        path = self.put(DEMO, archives.wheel("demo", "1.0"))
        cache = pypi_server.FactCache(os.path.join(self.folder, "cache"))
        cache.get([path])
        cache.put(path, pypi_server.look(path),
                  pypi_server.withheld("it was bad"))
        cache.close()
        findings, _ = self.check()
        self.assertIn("it was bad", findings[DEMO][0][1])


class TestHostile(CheckTestCase):
    @unittest.skipUnless(resource, "no limits here")
    def test_bombs(self):
        """Little memory, little time, and a sentence for each."""
        zeros = b"\0" * MEBIBYTE
        growing = io.BytesIO()
        with zipfile.ZipFile(growing, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, data in members(archives.wheel("demo", "1.0")).items():
                archive.writestr(path, data)
            for number in range(350):
                archive.writestr("z%d" % number, zeros)
        self.put("demo-1.0-py3-none-any.whl", growing.getvalue())
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_BZIP2) as archive:
            archive.writestr("demo-1.1.dist-info/METADATA", zeros * 30)
        self.put("demo-1.1-py3-none-any.whl", packed.getvalue())
        self.put("demo-1.2-py3-none-any.whl", self.overlapping())
        self.put("demo-1.3.tar.gz", archives.sdist("demo", "1.3", files={
            "pyproject.toml": b"a = " + b"[" * 100000}))
        self.put("demo-1.4.tar.gz", archives.sdist("demo", "1.4", files={
            "pyproject.toml": b"#" * 2 * MEBIBYTE}))
        self.put("demo-1.6.tar.gz", archives.sdist("demo", "1.6", files={
            "demo.egg-info/requires.txt": "\n".join(
                "a>%d" % number for number in range(20001)).encode()}))
        self.put("demo-1.5-py3-none-any.whl", archives.wheel(
            "demo", "1.5", ["x" * 20000, "y ; " + "(" * 5000, "z @ file:///",
                            "\x1b[31m"]))
        before = time.monotonic()
        process = self.start("--json", "--closure", "--platform",
                             "manylinux_2_28_x86_64", self.root,
                             wrapper=(sys.executable, "-c", MEASURED))
        output, errors = process.communicate(timeout=120)
        self.assertRegex(errors, "^[0-9]+\n$")
        self.assertEqual(1, process.returncode)
        self.assertLess(time.monotonic() - before, 60)
        problems = "\n".join("%(subject)s: %(problem)s" % found for found
                             in json.loads(output)["findings"])
        for text in ("demo-1.0-py3-none-any.whl: its ", "unpack to 3",
                     "demo-1.1.dist-info/METADATA is larger than",
                     "demo-1.2-py3-none-any.whl: its members overlap",
                     "demo-1.3.tar.gz: its pyproject.toml cannot be read",
                     "demo-1.4.tar.gz: its pyproject.toml has more",
                     "it has 20001; the first", "x" * 100,
                     "it is no requirement", "z @ file:///"):
            self.assertIn(text, problems)
        if sys.implementation.name == "cpython":
            self.assertLess(int(errors), 400 * 1024)

    def overlapping(self):
        """Return a wheel with one member under a hundred names."""
        found = members(archives.wheel("demo", "1.2"))
        found["big"] = os.urandom(100000)
        file = io.BytesIO(archives.zipped(found))
        with zipfile.ZipFile(file, "a") as archive:
            kernel = archive.getinfo("big")
            for number in range(100):
                info = zipfile.ZipInfo("big%d" % number)
                for name in ("compress_type", "CRC", "compress_size",
                             "file_size", "header_offset"):
                    setattr(info, name, getattr(kernel, name))
                archive.filelist.append(info)
                archive.NameToInfo[info.filename] = info
            archive._didModify = True
        return file.getvalue()


@unittest.skipUnless(os.path.isdir("/proc/self/task"), "reads /proc")
class TestProcesses(CheckTestCase):
    COUNT = 450

    def setUp(self):
        super().setUp()
        if pypi_server.cores() < 2:
            self.skipTest("one core")
        data = archives.wheel("demo", "1.0", files={
            "x%d" % number: b"x" * 1000 for number in range(30)})
        first = self.put("demo-1.0-0-py3-none-any.whl", data)
        for number in range(1, self.COUNT):
            os.link(first, first.replace("-0-", "-%d-" % number))

    def workers(self, process):
        """Return the processes that a check has started."""
        found = []
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError, IndexError):
                with open("/proc/%d/stat" % int(name)
                          if name.isdigit() else os.devnull) as file:
                    if file.read().rpartition(")")[2].split()[1] != str(
                            process.pid):
                        continue
                with open("/proc/%s/cmdline" % name) as file:
                    if "spawn_main" in file.read():
                        found.append(int(name))
        return found

    def test_one_is_killed(self):
        process = self.start("--json", self.root)
        try:
            os.kill(wait_for(lambda: self.workers(process), "a process",
                             pause=0.005)[0], signal.SIGKILL)
        finally:
            output, errors = process.communicate(timeout=120)
        self.assertEqual((0, ""), (process.returncode, errors), output)
        self.assertEqual(self.COUNT, json.loads(output)["archives"])

    def test_none_can_take_the_place_of_one_that_ended(self):
        pipe, end = multiprocessing.Pipe()
        end.send([])  # it is ready, and then it ends
        end.close()
        waiting = collections.deque([["one", "two"]])
        with mock.patch.object(pypi_server, "start_inspector", side_effect=[
                (mock.Mock(), pipe), OSError("no more processes")]):
            self.assertEqual([], list(
                pypi_server.inspect_in_processes(waiting, 1)))
        self.assertEqual([["one"], ["two"]], list(waiting))
        pipe.close()

    def test_interrupt_ends_all(self):
        process = self.start(self.root)
        workers = wait_for(
            lambda: self.workers(process), "a process", pause=0.005)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        output, errors = process.communicate(timeout=60)
        self.assertEqual((130, "", ""), (process.returncode, output, errors))
        wait_for(lambda: not any(
            os.path.exists("/proc/%d" % worker) for worker in workers),
            "they end")

    def test_progress_on_a_terminal(self):
        import pty
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, SCRIPT, "check", "--backend", "simple-dir",
             self.root], stdout=subprocess.PIPE, stderr=theirs,
            env=isolated(self.folder), universal_newlines=True)
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while True:
                data = os.read(ours, 65536)
                if not data:
                    break
                shown += data
        os.close(ours)
        output, _ = process.communicate(timeout=60)
        self.assertIn(b"] 1/%d" % self.COUNT, shown)
        self.assertTrue(shown.endswith(b"%d/%d\r\n" % (
            self.COUNT, self.COUNT)), shown[-100:])
        self.assertEqual("%d archives of 1 project: no findings\n"
                         % self.COUNT, output)


if __name__ == "__main__":
    unittest.main()
