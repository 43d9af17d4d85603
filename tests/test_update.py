"""Section Update: newer releases in another index, on loopback."""

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
import urllib.request  # noqa: F401  it may be out of reach for nobody
import zlib
from typing import NamedTuple, Tuple
from unittest import mock

try:
    import resource
except ImportError:  # Windows
    resource = None

import pypi_server
from tests import archives
from tests.helpers import (
    PROGRAM, SCRIPT, DirectoryTestCase, ServerProcess, wait_for, without,
)
from tests.test_directories import unprivileged
from tests.upstream import JSON, Upstream, detail, empty, isolated, sha256


class Result(NamedTuple):
    """What `update` printed."""

    status: int
    lines: Tuple[str, ...]
    errors: str


class Row(NamedTuple):
    """A project here and upstream, and what shall come of it."""

    project: str
    ours: str          # filenames without the project, in one text
    theirs: str
    fetched: str = ""  # what the printed commands download
    missing: str = ""  # files here that have no like there
    unstable: str = ""  # what they download with --allow-unstable


# The names of the files begin with the project; "Y:" marks a yanked one.
KINDS = (
    Row("pure", "-1.0-py3-none-any.whl",
        "-1.1-py3-none-any.whl -1.1.tar.gz", "-1.1-py3-none-any.whl"),
    Row("both", "-1.0-py3-none-any.whl -1.0.tar.gz",
        "-1.1-py3-none-any.whl -1.1.tar.gz",
        "-1.1-py3-none-any.whl -1.1.tar.gz"),
    Row("source", "-1.0.tar.gz", "-1.1-py3-none-any.whl -1.1.tar.gz",
        "-1.1.tar.gz"),
    Row("zipped", "-1.0.zip", "-1.1.tar.gz", "-1.1.tar.gz"),
    Row("old-kind", "-0.9.tar.gz -1.0-py3-none-any.whl",
        "-1.1-py3-none-any.whl -1.1.tar.gz", "-1.1-py3-none-any.whl"),
    Row("dropped-2", "-1.0-py2.py3-none-any.whl",
        "-1.1-py3-none-any.whl", "-1.1-py3-none-any.whl"),
    Row("cpython", "-1.0-cp311-cp311-manylinux2014_x86_64.whl",
        "-1.1-cp310-cp310-manylinux_2_28_x86_64.whl "
        "-1.1-cp311-cp311-manylinux_2_28_aarch64.whl "
        "-1.1-cp311-cp311-musllinux_1_2_x86_64.whl "
        "-1.1-cp311-cp311-win_amd64.whl -1.1.tar.gz "
        "-1.1-cp311-cp311-manylinux_2_28_x86_64.whl",
        "-1.1-cp311-cp311-manylinux_2_28_x86_64.whl"),
    Row("spellings", "-1.0-cp312-cp312-manylinux1_x86_64.whl",
        "-1.1-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "-1.1-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"),
    Row("stable", "-1.0-cp37-abi3-manylinux2014_x86_64.whl",
        "-1.1-cp39-abi3-manylinux_2_28_x86_64.whl "
        "-1.1-cp39-abi3-win_amd64.whl",
        "-1.1-cp39-abi3-manylinux_2_28_x86_64.whl"),
    Row("program", "-1.0-py3-none-manylinux_2_17_x86_64.whl",
        "-1.1-py3-none-win_amd64.whl "
        "-1.1-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "-1.1-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"),
    Row("mac", "-1.0-cp311-cp311-macosx_10_9_x86_64.whl",
        "-1.1-cp311-cp311-macosx_11_0_arm64.whl "
        "-1.1-cp311-cp311-macosx_10_13_x86_64.whl",
        "-1.1-cp311-cp311-macosx_10_13_x86_64.whl"),
    Row("windows", "-1.0-cp311-cp311-win32.whl",
        "-1.1-cp311-cp311-win32.whl -1.1-cp311-cp311-win_amd64.whl",
        "-1.1-cp311-cp311-win32.whl"),
    Row("pypy", "-1.0-pp39-pypy39_pp73-manylinux2014_x86_64.whl",
        "-1.1-pp39-pypy39_pp73-manylinux2014_x86_64.whl "
        "-1.1-pp310-pypy310_pp73-manylinux2014_x86_64.whl",
        "-1.1-pp39-pypy39_pp73-manylinux2014_x86_64.whl"),
    Row("free", "-1.0-cp313-cp313t-win_amd64.whl",
        "-1.1-cp313-cp313-win_amd64.whl -1.1-cp313-cp313t-win_amd64.whl",
        "-1.1-cp313-cp313t-win_amd64.whl"),
    Row("many", "-1.0-cp311-cp311-win32.whl -1.0-cp311-cp311-win_amd64.whl "
        "-1.0-cp312-cp312-win_amd64.whl",
        "-1.1-cp311-cp311-win_amd64.whl -1.1-cp312-cp312-win_amd64.whl",
        "-1.1-cp311-cp311-win_amd64.whl -1.1-cp312-cp312-win_amd64.whl",
        "-1.0-cp311-cp311-win32.whl"),
    Row("build-tag", "-1.0-1-py3-none-any.whl", "-1.1-2-py3-none-any.whl",
        "-1.1-2-py3-none-any.whl"),
    Row("no-wheel", "-1.0-py3-none-any.whl", "-1.1.tar.gz", "",
        "-1.0-py3-none-any.whl"),
    Row("no-source", "-1.0.tar.gz", "-1.1-py3-none-any.whl", "",
        "-1.0.tar.gz"),
    Row("egged", "-1.0-py2.7.egg", "-1.1-py3-none-any.whl", "",
        "-1.0-py2.7.egg"),
    Row("yanked", "-1.0.tar.gz", "-1.1.tar.gz Y:-1.2.tar.gz",
        "-1.1.tar.gz"),
    Row("yanked-all", "-1.0.tar.gz", "-1.0.tar.gz Y:-1.1.tar.gz"),
    Row("pre", "-1.0.tar.gz", "-1.1.tar.gz -1.2rc1.tar.gz", "-1.1.tar.gz",
        unstable="-1.2rc1.tar.gz"),
    Row("dev", "-1.0.tar.gz", "-1.1.dev3.tar.gz",
        unstable="-1.1.dev3.tar.gz"),
    Row("is-pre", "-1.0rc1.tar.gz", "-1.0rc2.tar.gz",
        unstable="-1.0rc2.tar.gz"),
    Row("was-pre", "-1.0rc1.tar.gz", "-1.0.tar.gz", "-1.0.tar.gz",
        unstable="-1.0.tar.gz"),
    Row("post", "-1.0.tar.gz", "-1.0.post1.tar.gz", "-1.0.post1.tar.gz"),
    Row("epoch", "-9.0.tar.gz", "-1!0.1.tar.gz", "-1!0.1.tar.gz"),
    Row("current", "-1.0.tar.gz", "-1.0.tar.gz -0.9.tar.gz"),
    Row("spelled", "-1.0.tar.gz", "-1.0.0.tar.gz"),
    Row("newer", "-2.0.tar.gz", "-1.9.tar.gz"),
    Row("numbers", "-1.9.tar.gz", "-1.10.tar.gz", "-1.10.tar.gz"),
    Row("unknown", "-1.0.tar.gz", ""),
)

# An sdist that builds without anything from an index (PEP 517, backend-path).
BACKEND = {
    "pyproject.toml": b'[build-system]\nrequires = []\n'
                      b'build-backend = "backend"\nbackend-path = ["."]\n',
    "backend.py": b"""
import os

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    text = open("PKG-INFO").read()
    lines = dict(line.split(": ", 1) for line in text.split("\\n\\n")[0]
                 .splitlines())
    name = "%s-%s.dist-info" % (lines["Name"].replace("-", "_"),
                                lines["Version"])
    os.mkdir(os.path.join(folder, name))
    with open(os.path.join(folder, name, "METADATA"), "w") as file:
        file.write(text)
    return name

def build_wheel(folder, config_settings=None, metadata_directory=None):
    raise SystemExit("only downloaded, not built")
"""}


def filenames(row, text):
    """Return the filenames of a part of a row."""
    return [(row.project if name.endswith((".tar.gz", ".zip"))
             else row.project.replace("-", "_")) + name.replace("Y:", "")
            for name in text.split()]


def fill(directory, row):
    """Make real archives of what a row has upstream."""
    for name, filename in zip(row.theirs.split(),
                              filenames(row, row.theirs)):
        version = pypi_server.parse_filename(filename).version
        if filename.endswith(".whl"):
            data = archives.wheel(row.project, version,
                                  requires_python=">=3.6")
        else:
            data = archives.sdist(row.project, version, files=BACKEND)
        archives.put(directory, filename, data)
        if name.startswith("Y:"):
            archives.put(directory, filename + ".yanked", b"broken")


class UpdateTestCase(DirectoryTestCase):
    def update(self, url, *arguments, limit=None, program=PROGRAM, **more):
        """Run `update` over the package directory of the test.

        Args:
            limit: bytes of memory that it may take.
            more: its environment.
        """
        def restrict():
            if limit:
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        process = subprocess.run(
            [sys.executable, "-W", "error", *program, "update",
             "--index-url", url, *(arguments or (self.root,))],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120,
            stdin=subprocess.DEVNULL, cwd=self.folder,
            env=isolated(self.folder, **more),
            preexec_fn=restrict if limit else None)
        errors = process.stderr.decode("utf-8")
        self.assertNotIn("Traceback", errors)
        return Result(process.returncode, tuple(
            process.stdout.decode("utf-8").splitlines()), errors)

    def upstream(self):
        upstream = Upstream()
        upstream.__enter__()
        self.addCleanup(upstream.__exit__)
        return upstream

    def commands(self, result):
        return [shlex.split(line) for line in result.lines
                if not line.startswith("#")]


class KindsTestCase(UpdateTestCase):
    """Against a pypi_server that has the newer releases."""

    @classmethod
    def setUpClass(cls):
        cls.top = tempfile.mkdtemp()
        cls.theirs = os.path.join(cls.top, "theirs")
        os.mkdir(cls.theirs)
        for row in KINDS:
            fill(cls.theirs, row)
        cls.server = ServerProcess("--disable-fallback", cls.theirs)
        try:
            cls.server.__enter__()
            cls.url = cls.server.url + "simple/"
            wait_for(lambda: all(
                cls.server.get("simple/%s/" % row.project).body.count(b"<a ")
                == len(row.theirs.split()) for row in KINDS if row.theirs),
                "everything is listed")
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()
        shutil.rmtree(cls.top)

    def setUp(self):
        super().setUp()
        for row in KINDS:
            empty(self.root, *filenames(row, row.ours))


class TestKinds(KindsTestCase):
    def check_printed(self, result, unstable):
        printed = {}
        for command in self.commands(result):
            self.assertEqual("pip", command[0])
            self.assertIn("--no-deps", command)
            self.assertEqual(self.url, command[command.index("-i") + 1])
            project, _, version = command[-1].partition("==")
            printed.setdefault(project, []).append(version)
        for row in KINDS:
            text = (unstable and row.unstable) or row.fetched
            versions = [pypi_server.parse_filename(filename).version
                        for filename in filenames(row, text)]
            with self.subTest(row.project, unstable=unstable):
                self.assertEqual(versions, printed.pop(row.project, []))
                for filename in filenames(row, row.missing):
                    self.assertTrue([line for line in result.lines
                                     if line.startswith("# ")
                                     and filename in line], filename)
        self.assertEqual({}, printed)

    def test_what_is_printed(self):
        result = self.update(self.url)
        self.assertEqual((0, ""), (result.status, result.errors))
        self.check_printed(result, unstable=False)
        self.assertIn("# update pre from 1.0 to 1.1", result.lines)

    def test_what_is_printed_with_allow_unstable(self):
        for option in "-u", "--allow-unstable":
            result = self.update(self.url, option, self.root)
            self.assertEqual((0, ""), (result.status, result.errors))
            self.check_printed(result, unstable=True)


class TestDirectories(UpdateTestCase):
    def setUp(self):
        super().setUp()
        self.other = os.path.join(self.folder, "other")
        os.mkdir(self.other)
        self.index = self.upstream()

    def directories(self, *arguments):
        """Return {project: directory} of the printed commands."""
        result = self.update(self.index.url, *arguments)
        self.assertEqual((0, ""), (result.status, result.errors))
        return {command[-1].partition("==")[0]:
                command[command.index("-d") + 1]
                for command in self.commands(result)}

    def test_new_files_go_beside_the_newest_old_ones(self):
        for name in "a", "b", "c", "d":
            self.index.has(name, name + "-3.0.tar.gz")
        empty(self.root, "a-1.0.tar.gz", "b-1.0.tar.gz", "c-2.0.tar.gz")
        empty(self.other, "b-2.0.tar.gz", "c-1.0.tar.gz")
        empty(os.path.join(self.other, "deep", "er"), "d-1.0.tar.gz")
        self.assertEqual(
            {"a": self.root, "b": self.other, "c": self.root,
             "d": os.path.join(self.other, "deep", "er")},
            self.directories(self.root, self.other))
        self.assertEqual(["/simple/%s/" % name for name in "abcd"],
                         self.index.asked())

    def test_download_directory(self):
        empty(self.root, "a-1.0.tar.gz")
        empty(self.other, "b-1.0.tar.gz")
        for name in "a", "b":
            self.index.has(name, name + "-3.0.tar.gz")
        for option in "-d", "--download-directory":
            self.assertEqual(
                {"a": "new", "b": "new"},
                self.directories(option, "new", self.root, self.other))

    def test_newest_release_in_any_directory_counts(self):
        empty(self.root, "a-1.0.tar.gz")
        empty(self.other, "a-3.0.tar.gz")
        self.index.has("a", "a-3.0.tar.gz")
        self.assertEqual({}, self.directories(self.root, self.other))

    def test_names_with_spaces_are_quoted(self):
        folder = os.path.join(self.folder, "a b'c$d")
        empty(folder, "a-1.0.tar.gz")
        self.index.has("a", "a-3.0.tar.gz")
        self.assertEqual({"a": folder}, self.directories(folder))

    def test_hidden_files_and_others_are_not_asked_for(self):
        empty(self.root, ".a-1.0.tar.gz", ".hidden/b-1.0.tar.gz", "c.txt",
              "README")
        result = self.update(self.index.url)
        self.assertEqual(0, result.status)
        self.assertEqual([], self.index.asked())

    def test_default_directory(self):
        """As with `run`: ~/packages."""
        home = os.path.join(self.folder, "packages")
        empty(home, "a-1.0.tar.gz")
        self.index.has("a", "a-3.0.tar.gz")
        result = self.update(self.index.url, "-v")
        self.assertEqual(home, self.commands(result)[0][
            self.commands(result)[0].index("-d") + 1])


class TestIgnored(UpdateTestCase):
    def test_ignored_projects_are_not_even_asked_for(self):
        index = self.upstream()
        names = ("mine", "my-secret-thing", "two-words", "public")
        for name in names:
            empty(self.root, name + "-1.0.tar.gz")
            index.has(name, name + "-66.0.tar.gz")
        path = os.path.join(self.folder, "ignored")
        with open(path, "wb") as file:
            file.write(b"# what is ours\r\nmine  # not theirs\r\n\r\n"
                       b"  My_Secret.Thing\t\nTwo.Words")
        for option in "--blacklist-file", "--ignorelist-file":
            del index.requests[:]
            result = self.update(index.url, option, path, self.root)
            self.assertEqual(["/simple/public/"], index.asked())
            self.assertEqual(1, len(self.commands(result)))
            self.assertEqual((0, ""), (result.status, result.errors))
            for name in names[:3]:
                self.assertNotIn(name, "".join(result.lines))

    def test_byte_order_mark(self):
        """Editors on Windows begin a file with one."""
        index = self.upstream()
        empty(self.root, "mine-1.0.tar.gz")
        path = os.path.join(self.folder, "ignored")
        with open(path, "wb") as file:
            file.write(b"\xef\xbb\xbfmine\r\n")
        self.update(index.url, "--ignorelist-file", path, self.root)
        self.assertEqual([], index.asked())

    def test_line_that_is_no_name_is_refused(self):
        """An entry that would protect nothing is a mistake."""
        index = self.upstream()
        empty(self.root, "mine-1.0.tar.gz")
        path = os.path.join(self.folder, "ignored")
        for text in "mine==1.0", "mine >= 1", "mine, yours", "mi*ne":
            with open(path, "w") as file:
                file.write("other\n%s\n" % text)
            with self.subTest(text):
                result = self.update(index.url, "--ignorelist-file", path,
                                     self.root)
                self.assertEqual([], index.asked())
                self.assertEqual(2, result.status)
                self.assertIn(text, result.errors)

    def test_missing_list_is_a_mistake(self):
        """Told before all that is wrong with files, and in one line."""
        index = self.upstream()
        empty(self.root, "mine-1.0.tar.gz", "sub/mine-1.0.tar.gz")
        path = os.path.join(self.folder, "none")
        result = self.update(index.url, "--ignorelist-file", path, self.root)
        self.assertEqual((2, ()), result[:2])
        self.assertEqual(
            "pypi-server: error: --ignorelist-file: %r cannot be read: No "
            "such file or directory\n" % path, result.errors)
        self.assertEqual([], index.asked())


# Answers that are no project, by the name of the project.
BROKEN = {
    "error": (500, {}, b"oops"),
    "forbidden": (403, {"Content-Type": JSON}, b"{}"),
    "html": (200, {"Content-Type": "text/html"}, b"<a href='x'>y</a>"),
    "garbage": (200, {"Content-Type": JSON}, b"{"),
    "empty": (200, {"Content-Type": JSON}, b""),
    "binary": (200, {"Content-Type": JSON}, b"\xff\xfe\0"),
    "a-list": (200, {"Content-Type": JSON}, b"[]"),
    "a-null": (200, {"Content-Type": JSON}, b"null"),
    "no-files": (200, {"Content-Type": JSON}, b"{}"),
    "files-text": (200, {"Content-Type": JSON}, b'{"files": "abc"}'),
    "files-null": (200, {"Content-Type": JSON}, b'{"files": null}'),
    "file-number": (200, {"Content-Type": JSON}, b'{"files": [1]}'),
    "file-empty": (200, {"Content-Type": JSON}, b'{"files": [{}]}'),
    "file-name": (200, {"Content-Type": JSON},
                  b'{"files": [{"filename": 5, "hashes": {}}]}'),
    "hashes-null": (200, {"Content-Type": JSON}, b'{"files": [{"filename": '
                    b'"hashes-null-2.0.tar.gz", "hashes": null}]}'),
    "deep": (200, {"Content-Type": JSON}, b"[" * 200000),
    "no-gzip": (200, {"Content-Type": JSON, "Content-Encoding": "gzip"},
                b"no gzip"),
    "cut-gzip": (200, {"Content-Type": JSON, "Content-Encoding": "gzip"},
                 bytes.fromhex("1f8b0800000000000003ab564a")),
    "loop": (302, {"Location": "/simple/loop/"}, b""),
    "nowhere": (302, {"Location": ""}, b""),
    "to-a-file": (302, {"Location": "file:///etc/passwd"}, b""),
    "to-ftp": (302, {"Location": "ftp://127.0.0.1/simple/"}, b""),
    "to-a-bad-port": (302, {"Location": "http://127.0.0.1:99999/"}, b""),
    "to-a-space": (302, {"Location": "/a b\tc/"}, b""),
    "dropped": "drop",
}


class TestFailures(UpdateTestCase):
    def test_each_failure_concerns_one_project(self):
        index = self.upstream()
        index.answers.update({
            "/simple/%s/" % name: answer if answer == "drop" else
            (lambda handler, answer=answer: (
                answer[0], dict(answer[1]), answer[2]))
            for name, answer in BROKEN.items()})
        for name in BROKEN:
            empty(self.root, name + "-1.0.tar.gz")
        good = ["good%d" % number for number in range(20)]
        for name in good:
            empty(self.root, name + "-1.0.tar.gz")
            index.has(name, name + "-2.0.tar.gz")
        result = self.update(index.url)
        self.assertEqual(1, result.status)
        self.assertEqual(sorted(name + "==2.0" for name in good), sorted(
            command[-1] for command in self.commands(result)))
        errors = result.errors.splitlines()
        for name in sorted(BROKEN):
            with self.subTest(name):
                about = [line for line in errors if " %s " % name in line]
                self.assertEqual(1, len(about), result.errors)
                self.assertRegex(about[0], r"^pypi-server: .*: .{4,}")
                # Words, not what Python calls its exceptions.
                self.assertNotRegex(
                    about[0], r"[a-z]Error\b|NoneType|object is not|"
                    r"indices must|<class|: '\w+'$")
        self.assertEqual(len(BROKEN), len(errors), result.errors)

    def test_answer_that_is_cut_off(self):
        index = self.upstream()
        index.has("a", "a-2.0.tar.gz")
        body = index.answers["/simple/a/"][2]

        def cut(handler):
            handler.close_connection = True
            return 200, {"Content-Type": JSON, "Content-Length":
                         str(len(body) + 5)}, body
        index.answers["/simple/a/"] = cut
        empty(self.root, "a-1.0.tar.gz")
        result = self.update(index.url)
        self.assertEqual((1, ()), result[:2])
        self.assertEqual(1, result.errors.count("\n"))

    @unittest.skipUnless(resource, "cannot limit memory here")
    def test_compressed_bomb_is_not_unpacked(self):
        """2 MiB that would become 2 GiB, where there is but 1."""
        packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        head = packer.compress(b"[") + packer.flush(zlib.Z_FULL_FLUSH)
        block = packer.compress(b" " * 2 ** 20) + packer.flush(
            zlib.Z_FULL_FLUSH)
        index = self.upstream()
        index.answers["/simple/a/"] = lambda handler: (
            200, {"Content-Type": JSON, "Content-Encoding": "gzip"},
            head + block * 2048)
        empty(self.root, "a-1.0.tar.gz")
        result = self.update(index.url, limit=2 ** 30)
        self.assertEqual((1, ()), result[:2])
        self.assertEqual(1, result.errors.count("\n"), result.errors)

    def test_upstream_down(self):
        empty(self.root, "a-1.0.tar.gz", "b-1.0.tar.gz", "c-1.0.tar.gz")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            result = self.update(
                "http://joe:s3cret@127.0.0.1:%d/simple/" % port)
        self.assertEqual((1, ()), result[:2])
        self.assertEqual(1, result.errors.count("\n"), result.errors)
        self.assertIn("127.0.0.1:%d" % port, result.errors)
        self.assertNotIn("s3cret", result.errors)

    def test_host_unknown(self):
        empty(self.root, "a-1.0.tar.gz")
        result = self.update("http://no-such-host.invalid/simple/")
        self.assertEqual((1, ()), result[:2])
        self.assertEqual(1, result.errors.count("\n"), result.errors)

    def test_python_without_ssl(self):
        empty(self.root, "a-1.0.tar.gz", "b-1.0.tar.gz")
        result = self.update("https://index.example/simple/",
                             program=without("ssl"))
        self.assertEqual((1, ()), result[:2])
        self.assertIn("https://index.example/simple/ cannot be asked: this "
                      "Python was built without ssl", result.errors)

    def test_nothing_to_do(self):
        index = self.upstream()
        result = self.update(index.url)
        self.assertEqual((0, ""), (result.status, result.errors))
        self.assertEqual(1, len(result.lines))
        empty(self.root, "a-1.0.tar.gz", "b-1.0.tar.gz")
        index.has("a", "a-1.0.tar.gz")
        result = self.update(index.url)
        self.assertEqual((0, ""), (result.status, result.errors))
        self.assertEqual(1, len(result.lines))
        self.assertRegex(result.lines[0], "^# nothing to update .*2 proj")

    def test_url_that_is_no_index(self):
        """No project is found, as if all were private: look for a list."""
        index = self.upstream()
        empty(self.root, "a-1.0.tar.gz", "b-1.0.tar.gz")
        html = 200, {"Content-Type": "text/html"}, b"<h1>Welcome</h1>"
        for answer, why in ((None, "404"), (html, "PEP 691"),
                            ("drop", "not HTTP"),
                            ((302, {"Location": "/simple/"}, b""),
                             "redirects")):
            with self.subTest(why):
                index.answers["/simple/"] = answer
                result = self.update(index.url.replace("//", "//joe:pw@"))
                self.assertEqual((1, ()), result[:2])
                self.assertEqual(1, result.errors.count("\n"))
                for text in index.url, why, "--index-url":
                    self.assertIn(text, result.errors)
                self.assertNotIn("pw", result.errors)
        # The list itself is not read: on PyPI it has 30 MiB.
        index.answers["/simple/"] = 200, {
            "Content-Type": JSON, "Content-Length": "1000000000000"}, b"{"
        result = self.update(index.url)
        self.assertEqual((0, ""), (result.status, result.errors))
        self.assertEqual(("# nothing to update among 2 projects; 2 are not "
                          "upstream",), result.lines)
        index.answers["/simple/"] = None
        index.has("a", "a-2.0.tar.gz")
        result = self.update(index.url)
        self.assertEqual((0, ""), (result.status, result.errors))
        self.assertIn("# 1 of 2 projects are not upstream", result.lines)

    def test_ignored_by_the_shell(self):
        """What is no command is a comment, so the output is a script."""
        index = self.upstream()
        index.has("a", "a-2.0.tar.gz", "a-2.0-py3-none-any.whl")
        empty(self.root, "a-1.0.tar.gz", "a-1.0-cp36-cp36m-win32.whl",
              "b-1.0.tar.gz")
        result = self.update(index.url)
        for line in result.lines:
            self.assertRegex(line, "^(# |pip )")

    def test_hostile_names_upstream_cannot_become_commands(self):
        index = self.upstream()
        index.answers["/simple/a/"] = lambda handler: detail("a", [
            {"filename": name, "url": "x", "hashes": {}} for name in (
                "a-2.0;touch x.tar.gz", "a-2.0\nrm -rf x.tar.gz",
                "a-3.0-py3-none-any\n.whl", "a-4.0-py3-none-$(id).whl",
                "../../a-5.0.tar.gz", "a-6.0`id`.tar.gz", "\x1b[31m-7.tar.gz",
                "a-8.0-;id-none-any.whl", "a-9.0+$(id).tar.gz",
                "other-99.0.tar.gz", "a-2.5.tar.gz")])
        empty(self.root, "a-1.0.tar.gz", "a-1.0-py3-none-any.whl")
        result = self.update(index.url)
        for line in result.lines:
            self.assertTrue(line.isprintable(), ascii(line))
            self.assertRegex(line, "^(# |pip )")
        for command in self.commands(result):
            self.assertRegex(command[-1], r"\Aa==[0-9.]+\Z")

    def test_names_that_pip_would_take_for_options(self):
        empty(self.root, "_rreqs-1.0-py3-none-any.whl")
        upstream = self.upstream()
        upstream.has("-rreqs", "_rreqs-2.0-py3-none-any.whl")
        result = self.update(upstream.url)
        self.assertEqual([], self.commands(result))
        self.assertEqual(0, result.status, result)

    def test_files_of_other_projects_do_not_count(self):
        index = self.upstream()
        index.has("a", "a-2.0.tar.gz", "other-99.0.tar.gz")
        empty(self.root, "a-1.0.tar.gz")
        result = self.update(index.url)
        self.assertEqual(["a==2.0"], [command[-1] for command
                                      in self.commands(result)])


class TestConnections(UpdateTestCase):
    def test_thousand_projects_over_few_connections(self):
        index = self.upstream()
        for number in range(1000):
            name = "p%d" % number
            empty(self.root, name + "-1.0.tar.gz")
            index.has(name, name + "-%d.0.tar.gz" % (1 + number % 2))
        result = self.update(index.url)
        self.assertEqual((0, ""), (result.status, result.errors))
        self.assertEqual(500, len(self.commands(result)))
        self.assertEqual(sorted("/simple/p%d/" % number
                                for number in range(1000)), index.asked())
        self.assertLessEqual(index.connections, 8)
        self.assertGreater(index.connections, 1)

    def test_order_does_not_change_from_run_to_run(self):
        index = self.upstream()
        for number in range(30):
            name = "p%d" % number
            empty(self.root, name + "-1.0.tar.gz")
            index.has(name, name + "-2.0.tar.gz")
        self.assertEqual(self.update(index.url).lines,
                         self.update(index.url).lines)

    def test_connections_that_upstream_closes(self):
        """An idle connection may be closed at any time: once more, then."""
        index = self.upstream()
        for number in range(60):
            name = "p%d" % number
            empty(self.root, name + "-1.0.tar.gz")
            index.has(name, name + "-2.0.tar.gz")
            answer = index.answers["/simple/%s/" % name]

            def close(handler, answer=answer, number=number):
                # Without having said so.
                handler.close_connection = number % 3 == 0
                return answer
            index.answers["/simple/%s/" % name] = close
        result = self.update(index.url)
        self.assertEqual((0, ""), (result.status, result.errors))
        self.assertEqual(60, len(self.commands(result)))

    def test_redirects(self):
        index, other = self.upstream(), self.upstream()
        for name, where in (
                ("a", "../../elsewhere/a/"), ("b", "/elsewhere/b/"),
                ("c", index.url.replace("simple", "elsewhere") + "c/"),
                ("d", other.url + "d/"), ("e", "/elsewhere/e/?x=y")):
            empty(self.root, name + "-1.0.tar.gz")
            index.answers["/simple/%s/" % name] = (
                lambda handler, where=where: (
                    301, {"Location": where}, b"moved"))
            index.answers[
                "/elsewhere/%s/%s" % (name, "?x=y" * (name == "e"))
            ] = detail(name, [{"filename": name + "-2.0.tar.gz", "url": "",
                               "hashes": {}}])
        other.has("d", "d-2.0.tar.gz")
        result = self.update(index.url.replace("//", "//joe:s3cret@"))
        self.assertEqual((0, ""), (result.status, result.errors))
        self.assertEqual(["a", "b", "c", "d", "e"], [
            command[-1][:-5] for command in self.commands(result)])
        for _, headers in index.requests:
            self.assertIn("authorization", headers)
        # Whom the index redirects to gets no password.
        self.assertEqual([("/simple/d/", False)], [
            (path, "authorization" in headers)
            for path, headers in other.requests])

    def test_credentials_in_the_url(self):
        index = self.upstream()
        index.has("a", "a-2.0.tar.gz")
        empty(self.root, "a-1.0.tar.gz")
        for userinfo, header in (
                ("joe:s3cret", "Basic am9lOnMzY3JldA=="),
                ("j%40e:p%3Aw%2F", "Basic akBlOnA6dy8="),
                ("token:", "Basic dG9rZW46")):
            del index.requests[:]
            self.update(index.url.replace("//", "//%s@" % userinfo))
            (path, headers), = index.requests
            self.assertEqual("/simple/a/", path)
            self.assertEqual(header, headers["authorization"])
            self.assertNotIn("@", headers["host"])

    def test_password_is_not_shown_when_refused(self):
        index = self.upstream()
        for name in "a", "b":
            empty(self.root, name + "-1.0.tar.gz")
            index.answers["/simple/%s/" % name] = lambda handler: (
                401, {"WWW-Authenticate": "Basic realm=x"}, b"")
        result = self.update(index.url.replace("//", "//joe:s3cret@"), "-vv",
                             self.root)
        self.assertEqual(1, result.status)
        self.assertIn("401", result.errors)
        self.assertNotIn("s3cret", result.errors + "".join(result.lines))

    def test_final_slash_of_the_index_does_not_matter(self):
        index = self.upstream()
        index.has("a", "a-2.0.tar.gz")
        empty(self.root, "a-1.0.tar.gz")
        for url in index.url, index.url.rstrip("/"):
            self.assertEqual(1, len(self.commands(self.update(url))))
        self.assertEqual(["/simple/a/"] * 2, index.asked())

    def test_json_is_asked_for(self):
        index = self.upstream()
        index.has("a", "a-2.0.tar.gz")
        empty(self.root, "a-1.0.tar.gz")
        self.update(index.url)
        self.assertIn(JSON, index.requests[0][1]["accept"])

    def test_proxy_of_the_environment(self):
        """http_proxy gets whole URLs; no_proxy is heeded."""
        index, proxy = self.upstream(), self.upstream()
        empty(self.root, "a-1.0.tar.gz")
        index.has("a", "a-2.0.tar.gz")
        proxy.answers["http://index.example/simple/a/"] = \
            index.answers["/simple/a/"]
        where = proxy.url.replace("/simple/", "")
        result = self.update("http://index.example/simple/",
                             http_proxy=where)
        self.assertEqual(1, len(self.commands(result)), result)
        result = self.update(index.url, http_proxy=where,
                             no_proxy="127.0.0.1")
        self.assertEqual(1, len(self.commands(result)), result)
        self.assertEqual(1, len(proxy.requests))
        self.update("http://index.example/simple/",
                    http_proxy=where.replace("//", "//joe:pass%20word@"))
        _, headers = proxy.requests[1]
        self.assertEqual("Basic am9lOnBhc3Mgd29yZA==",
                         headers["proxy-authorization"])


class TestProgress(UpdateTestCase):
    def setUp(self):
        super().setUp()
        self.index = self.upstream()
        for number in range(12):
            name = "p%d" % number
            empty(self.root, name + "-1.0.tar.gz")
            self.index.has(name, name + "-2.0.tar.gz")

    @unittest.skipUnless(hasattr(os, "openpty"), "has no pseudo-terminals")
    def test_bar_on_a_terminal(self):
        master, slave = os.openpty()
        try:
            process = subprocess.run(
                [sys.executable, SCRIPT, "update", "--index-url",
                 self.index.url, self.root], stdout=subprocess.PIPE,
                stderr=slave, stdin=subprocess.DEVNULL, timeout=60,
                env=isolated(self.folder))
            shown = os.read(master, 10 ** 6).decode()
        finally:
            os.close(master)
            os.close(slave)
        self.assertEqual(0, process.returncode)
        for text in "1/12", "7/12", "12/12", "\r", "#":
            self.assertIn(text, shown)
        self.assertTrue(shown.endswith("\n"))
        for line in re.split("[\r\n]+", shown):
            self.assertLess(len(line), 80)
        # What is piped into a shell stays clean.
        self.assertNotIn(b"\r", process.stdout)
        self.assertEqual(12, process.stdout.count(b"\npip "))

    def test_no_bar_without_a_terminal(self):
        result = self.update(self.index.url)
        self.assertEqual("", result.errors)


def has_pip():
    return not subprocess.call(
        [sys.executable, "-m", "pip", "--version"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def has_old_pip():
    """Tell whether its `download` has no --ignore-requires-python."""
    return pypi_server.pip_version() < 21


class TestClosed(UpdateTestCase):
    def test_folder_that_cannot_be_read(self):
        """The others are looked up; the exit status tells."""
        empty(self.root, "a-1.0.tar.gz", "sub/b-1.0.tar.gz")
        index = self.upstream()
        index.has("a", "a-2.0.tar.gz")
        path = os.path.join(self.root, "sub")
        output, errors = io.StringIO(), io.StringIO()
        with mock.patch.dict(os.environ, isolated(self.folder), clear=True), \
                unprivileged(self.folder):
            os.chmod(path, 0)
            try:
                with contextlib.redirect_stdout(output), \
                        contextlib.redirect_stderr(errors):
                    status = pypi_server.update_all(pypi_server.Config(
                        roots=(self.root,), index_url=index.url))
            finally:
                os.chmod(path, 0o755)
        self.assertEqual(1, status)
        self.assertIn("a==2.0", output.getvalue())
        self.assertIn(path + "/ cannot be read", errors.getvalue())


class TestExecute(UpdateTestCase):
    """pip of the interpreter that runs this really downloads."""

    def setUp(self):
        super().setUp()
        if not has_pip():
            self.skipTest("this interpreter has no pip")
        self.index = self.upstream()

    def publish(self, name, filename, data, digest=None, requires=""):
        """Have a file upstream: in JSON for us, in HTML for pip.

        Args:
            digest: that the JSON claims, instead of the true one.
            requires: Requires-Python, which the HTML tells.
        """
        path = "/files/" + filename
        self.index.answers[path] = lambda handler: (
            200, {"Content-Type": "application/octet-stream"}, data)
        files = self.__dict__.setdefault("files", {}).setdefault(name, [])
        files.append({"filename": filename, "url": "../../files/" + filename,
                      "hashes": {"sha256": digest or sha256(data)}})
        html = "<!DOCTYPE html>" + "".join(
            '<a href="%s" data-requires-python="%s">%s</a>\n' % (
                file["url"], requires.replace(">", "&gt;"), file["filename"])
            for file in files)

        def answer(handler):
            if "pip/" in handler.headers.get("User-Agent", ""):
                return 200, {"Content-Type": "text/html"}, html.encode()
            return detail(name, files)
        self.index.answers["/simple/%s/" % name] = answer

    def sdist(self, name, version, files=None):
        if sys.version_info < (3, 7) and files is None:
            # Its pip knows no backend-path, but setup.py.
            return archives.sdist(name, version)
        return archives.sdist(name, version, files=files or BACKEND)

    def listing(self, folder=None):
        # What serializes the names of uploads may stay.
        return sorted(set(os.listdir(folder or self.root)) - {".lock"})

    def test_new_files_are_downloaded(self):
        """-i names the index: what PIP_INDEX_URL names is not asked."""
        other = self.upstream()
        wheel, source = archives.wheel("a", "2.0"), self.sdist("b", "2.0")
        # The directory has wheels of it, so some client can use them.
        newer = archives.wheel("c", "2.0", requires_python=">=3.99")
        self.publish("a", "a-2.0-py3-none-any.whl", wheel)
        self.publish("b", "b-2.0.tar.gz", source)
        self.publish("c", "c-2.0-py3-none-any.whl", newer)
        empty(self.root, "a-1.0-py3-none-any.whl")
        if not has_old_pip():
            empty(self.root, "c-1.0-py3-none-any.whl")
        empty(os.path.join(self.root, "deep"), "b-1.0.tar.gz")
        result = self.update(self.index.url, "-x", self.root,
                             PIP_INDEX_URL=other.url)
        self.assertEqual((0, ""), (result.status, result.errors))
        expected = {"a-2.0-py3-none-any.whl": wheel,
                    "c-2.0-py3-none-any.whl": newer,
                    "deep/b-2.0.tar.gz": source}
        if has_old_pip():
            del expected["c-2.0-py3-none-any.whl"]
        for name, data in expected.items():
            with open(os.path.join(self.root, name), "rb") as file:
                self.assertEqual(data, file.read())
        self.assertEqual([], other.asked())
        for _, folders, names in os.walk(self.root):
            self.assertLessEqual({name for name in folders + names
                                  if name.startswith(".")}, {".lock"})

    def test_sdists_are_downloaded(self):
        """The part of this that the oldest pip can do as well."""
        source = self.sdist("b", "2.0")
        self.publish("b", "b-2.0.tar.gz", source)
        empty(self.root, "b-1.0.tar.gz")
        out = os.path.join(self.folder, "new")
        result = self.update(self.index.url, "-x", "-d", out, self.root)
        self.assertEqual((0, ""), (result.status, result.errors))
        self.assertEqual(["b-2.0.tar.gz"], self.listing(out))
        # And then there is nothing more to do.
        result = self.update(self.index.url, "-x", self.root, out)
        self.assertRegex(result.lines[0], "^# nothing to update")

    def test_sdist_for_newer_pythons_is_downloaded(self):
        """As a wheel of that kind is: who needs it has such a Python."""
        if has_old_pip():
            self.skipTest("its pip cannot")
        files = dict(BACKEND, **{"PKG-INFO": archives.metadata(
            "b", "2.0", requires_python=">=3.99")})
        source = archives.sdist("b", "2.0", files=files)
        self.publish("b", "b-2.0.tar.gz", source, requires=">=3.99")
        empty(self.root, "b-1.0.tar.gz")
        result = self.update(self.index.url, "-x", self.root)
        self.assertEqual((0, ""), (result.status, result.errors))
        self.assertEqual(["b-1.0.tar.gz", "b-2.0.tar.gz"], self.listing())

    def test_what_goes_wrong_is_reported(self):
        """A file with another digest is removed; the others are updated."""
        for name, digest in (("a", "1" * 64), ("b", None), ("c", None)):
            empty(self.root, name + "-1.0.tar.gz")
            self.publish(name, name + "-2.0.tar.gz",
                         self.sdist(name, "2.0"), digest)
        self.index.answers["/files/b-2.0.tar.gz"] = lambda handler: (
            404, {}, b"gone")
        result = self.update(self.index.url, "--execute", self.root)
        self.assertEqual(1, result.status)
        said = [line for line in result.errors.splitlines()
                if line.startswith("pypi-server: ")]
        self.assertTrue([line for line in said if " a-2.0.tar.gz " in line])
        self.assertTrue([line for line in said if " b " in line])
        self.assertNotIn("c-2.0", result.errors)
        self.assertEqual(["a-1.0.tar.gz", "b-1.0.tar.gz", "c-1.0.tar.gz",
                          "c-2.0.tar.gz"], self.listing())

    def test_file_from_elsewhere_is_removed(self):
        """Settings of pip may name other places; they do not count."""
        self.publish("a", "a-2.0.tar.gz", self.sdist("a", "2.0"))
        empty(self.root, "a-1.0.tar.gz")
        links = os.path.join(self.folder, "links")
        foreign = archives.sdist("a", "2.0", ".zip", files=BACKEND) \
            if sys.version_info >= (3, 7) else archives.sdist(
                "a", "2.0", ".zip")
        archives.put(links, "a-2.0.zip", foreign)
        result = self.update(self.index.url, "-x", self.root,
                             PIP_FIND_LINKS=links)
        for filename in self.listing():
            self.assertIn(filename, ("a-1.0.tar.gz", "a-2.0.tar.gz"))
        self.assertEqual("a-2.0.tar.gz" in self.listing(),
                         result.status == 0)

    def test_file_that_is_there_stays(self):
        """What was put there meanwhile is not replaced."""
        wheel = archives.wheel("a", "2.0")
        name = "a-2.0-py3-none-any.whl"
        self.publish("a", name, wheel)
        empty(self.root, "a-1.0-py3-none-any.whl")
        out = os.path.join(self.folder, "new")
        for data, status in (wheel, 0), (b"other", 1):
            path = archives.put(out, name, data)
            result = self.update(self.index.url, "-x", "-d", out, self.root)
            self.assertEqual(status, result.status, result)
            self.assertEqual(status, result.errors.count(
                "a-2.0-py3-none-any.whl is here already, with other"))
            with open(path, "rb") as file:
                self.assertEqual(data, file.read())
            self.assertEqual([name], self.listing(out))

    def test_nothing_is_left_after_a_signal(self):
        """pip is waiting for the file; nothing of it stays."""
        self.publish("a", "a-2.0-py3-none-any.whl", archives.wheel("a", "2"))
        asked, done = threading.Event(), threading.Event()
        self.addCleanup(done.set)

        def answer(handler):
            asked.set()
            done.wait(30)
            return "drop"
        self.index.answers["/files/a-2.0-py3-none-any.whl"] = answer
        empty(self.root, "a-1.0-py3-none-any.whl")
        for number in signal.SIGTERM, signal.SIGINT:
            asked.clear()
            process = subprocess.Popen(
                [sys.executable, SCRIPT, "update", "--index-url",
                 self.index.url, "-x", self.root], stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, env=isolated(self.folder),
                start_new_session=True)
            self.assertTrue(asked.wait(30))
            self.assertEqual(2, len(self.listing()))
            os.killpg(process.pid, number)
            _, errors = process.communicate(timeout=30)
            self.assertEqual(130, process.returncode, errors)
            self.assertNotIn(b"Traceback", errors)
            self.assertEqual(["a-1.0-py3-none-any.whl"], self.listing())

    def test_destination_that_cannot_be_written(self):
        if not hasattr(os, "geteuid"):
            self.skipTest("for POSIX")
        self.publish("a", "a-2.0-py3-none-any.whl", archives.wheel("a", "2"))
        empty(self.root, "a-1.0-py3-none-any.whl")
        file = archives.put(self.folder, "file", b"")
        result = self.update(self.index.url, "-x", "-d",
                             os.path.join(file, "deeper"), self.root)
        self.assertEqual(1, result.status)
        self.assertIn("a cannot be updated: ", result.errors)
        self.assertEqual(1, result.errors.count("\n"))

    def test_sdist_whose_backend_is_a_wheel(self):
        """`--no-binary :all:` would forbid pip the backend as well."""
        if sys.version_info < (3, 7):
            self.skipTest("its pip knows no build backends")
        backend = archives.wheel("thebackend", "1.0", files={
            "thebackend_api.py": BACKEND["backend.py"]})
        self.publish("thebackend", "thebackend-1.0-py3-none-any.whl",
                     backend)
        self.publish("a", "a-2.0.tar.gz", self.sdist("a", "2.0", {
            "pyproject.toml": b'[build-system]\nrequires = ["thebackend"]\n'
                              b'build-backend = "thebackend_api"\n'}))
        empty(self.root, "a-1.0.tar.gz")
        result = self.update(self.index.url, "-x", self.root)
        self.assertIn("a-2.0.tar.gz", self.listing(), result)
        self.assertEqual(0, result.status)

    def test_without_pip(self):
        """One sentence on what to install."""
        self.publish("a", "a-2.0.tar.gz", self.sdist("a", "2.0"))
        empty(self.root, "a-1.0.tar.gz")
        # A package of that name that is no program stands for none.
        archives.put(self.folder, "nopip/pip/__init__.py", b"")
        result = self.update(
            self.index.url, "-x", self.root,
            PYTHONPATH=os.path.join(self.folder, "nopip"))
        self.assertEqual(1, result.status)
        self.assertIn("pip", result.errors)
        self.assertEqual(1, result.errors.count("\n"))
        self.assertEqual(1, len(self.commands(result)))


class TestKeep(DirectoryTestCase):
    def test_names_that_an_upload_keeps_locked(self):
        path = archives.put(self.folder, "a-2.0.tar.gz", b"x")
        offer = pypi_server.Offer(
            "a-2.0.tar.gz", pypi_server.parse_filename("a-2.0.tar.gz"), "")
        update = pypi_server.Update(
            "a", "1.0", "2.0", (offer,), (), (), self.root)
        with mock.patch.object(pypi_server, "LOCK_PATIENCE", 0.1), \
                pypi_server.lock_names(self.root):
            self.assertIn("another upload", pypi_server.keep(update, path))
        self.assertTrue(os.path.exists(path))


class TestMistakes(UpdateTestCase):
    def test_bad_values(self):
        empty(self.root, "a-1.0.tar.gz")
        archives.put(self.folder, "file", b"")
        closed = "http://127.0.0.1:1/"
        for url, arguments, named in (
                ("ftp://a/", (), "ftp://a/"),
                ("pypi.org/simple", (), "pypi.org/simple"),
                ("http://a:port/", (), "http://a:port/"),
                ("http://a:99999/", (), "http://a:99999/"),
                ("http://[::1/", (), "http://[::1/"),
                ("http://a/?x", (), "http://a/?x"),
                (closed, ("none/deeper",), "none/deeper"),
                (closed, ("packages", "--ignorelist-file", "none"), "none"),
                (closed, ("packages", "--ignorelist-file", "packages"),
                 "packages"),
                (closed, ("packages", "-d", "file"), "file")):
            with self.subTest(url, arguments=arguments):
                result = self.update(url, *arguments)
                self.assertEqual((2, ()), result[:2], result)
                self.assertIn(named, result.errors)
                self.assertEqual(1, result.errors.count("\n"))


class TestTags(unittest.TestCase):
    """What comes out of filenames; the names were seen on PyPI."""

    def test_kinds(self):
        for ours, theirs, alike in (
                ("cp311-cp311-manylinux1_x86_64",
                 "cp311-cp311-manylinux_2_28_x86_64", True),
                ("cp311-cp311-manylinux_2_5_i686.manylinux1_i686",
                 "cp311-cp311-manylinux2014_i686", True),
                ("cp311-cp311-linux_x86_64",
                 "cp311-cp311-manylinux1_x86_64", False),
                ("cp311-cp311-musllinux_1_1_x86_64",
                 "cp311-cp311-musllinux_1_2_x86_64", True),
                ("cp311-cp311-musllinux_1_1_x86_64",
                 "cp311-cp311-manylinux2014_x86_64", False),
                ("cp36-abi3-win32", "cp310-abi3-win32", True),
                ("cp36-abi3-win32", "cp36-cp36m-win32", False),
                ("py2-none-any", "py3-none-any", True),
                ("py3-none-any", "py2.py3-none-any", True),
                ("py38-none-any", "py39-none-any", True),
                ("py3-none-any", "cp311-none-any", False),
                ("py3-none-any", "py3-none-win32", False),
                ("cp39-cp39-macosx_10_9_universal2",
                 "cp39-cp39-macosx_11_0_universal2", True),
                ("cp39-cp39-win_arm64", "cp39-cp39-win_amd64", False)):
            with self.subTest(ours, theirs=theirs):
                one = pypi_server.wheel_kind("a-1.0-%s.whl" % ours)
                other = pypi_server.wheel_kind("a-1.1-%s.whl" % theirs)
                self.assertEqual(alike, one[:2] == other[:2] and bool(
                    one[2] & other[2]))


if __name__ == "__main__":
    unittest.main()
