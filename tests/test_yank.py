"""Yank: releases that installers pass over."""

import contextlib
import io
import itertools
import json
import os
import subprocess
import tempfile
import threading
import unittest

import pypi_server
from tests import archives, toolbox
from tests.helpers import DirectoryTestCase, ServerProcess, wait_for
from tests.upstream import isolated

JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}
VERSIONS = (
    "1.0", "1", "1.0.0", "1.0.dev1", "1.0a1", "1.0a1.post1", "1.0a2.dev1",
    "1.0rc1", "1.0.post1", "1.0.post1.dev2", "1.0.post2", "1.0+x", "1.0+x.1",
    "1.0.post1+x", "1.1", "1.1.1", "1.10", "1.9rc2", "2.0", "2.0.dev1",
    "2.0rc1", "2.0rc1.post1", "2.0.post1", "1!1.0", "1!0.5", "0", "0.0.1",
    "2.2.3", "2.2", "2!2.2")
OPERATORS = ("~=", "==", "!=", "<=", ">=", "<", ">", "===")


class TestSpecifiers(unittest.TestCase):
    def test_requirements(self):
        for text, expected in (
                ("foo", ("foo", ())),
                (" Foo_Bar ", ("foo-bar", ())),
                ("foo==1.0", ("foo", (("==", "1.0"),))),
                ("foo >= 1.0 , < 2", ("foo", ((">=", "1.0"), ("<", "2")))),
                ("foo===weird", ("foo", (("===", "weird"),))),
                ("foo==1.*", ("foo", (("==", "1.*"),))),
                ("", None), ("==1", None), ("foo=1", None),
                ("foo==", None), ("foo 1.0", None), ("foo==1,", None),
                ("foo[x]==1", None), ("foo ; os_name == 'nt'", None),
                ("foo @ file:///x", None), ("foo>=1.*", None),
                ("foo~=1", None), ("foo>1.0+x", None), ("foo==x", None),
                ("-foo", None), ("foo\n==1\nbar", None)):
            with self.subTest(text):
                self.assertEqual(
                    expected, pypi_server.parse_requirement(text))

    def test_agrees_with_packaging(self):
        """The newest one: it is the reference for all installers."""
        try:
            from packaging.specifiers import InvalidSpecifier, SpecifierSet
            from packaging import __version__ as release
        except ImportError:
            raise unittest.SkipTest("packaging is not installed")
        if int(release.split(".")[0]) < 26:
            raise unittest.SkipTest("packaging is too old")
        for operator, wanted in itertools.product(
                OPERATORS, VERSIONS + tuple(v + ".*" for v in VERSIONS)):
            with self.subTest(operator + wanted):
                parsed = pypi_server.parse_requirement(
                    "x" + operator + wanted)
                try:
                    reference = SpecifierSet(operator + wanted)
                except InvalidSpecifier:
                    self.assertIsNone(parsed)
                    continue
                for version in VERSIONS:
                    self.assertEqual(
                        reference.contains(version, prereleases=True),
                        all(pypi_server.satisfies(version, *clause)
                            for clause in parsed[1]), version)

    def test_legacy_versions_equal_themselves_only(self):
        for clause, expected in (
                (("==", "2004r1-final"), False), (("===", "2004R1-final"),
                                                  True),
                (("<", "3000"), False), (("!=", "1.0"), True)):
            self.assertEqual(expected, pypi_server.satisfies(
                "2004r1-final", *clause), clause)


class YankTestCase(DirectoryTestCase):
    def put(self, name, version, folder="", data=None):
        return archives.put(
            os.path.join(self.root, folder),
            archives.wheel_filename(name, version),
            data or archives.wheel(name, version))

    def run_command(self, *arguments, status=0):
        """Return what the command printed on its output and as errors."""
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), \
                contextlib.redirect_stderr(errors):
            found = pypi_server.main(arguments)
        self.assertEqual(status, found, output.getvalue() + errors.getvalue())
        return output.getvalue(), errors.getvalue()

    def yanked(self):
        """Return {archive: reason} by the files on the disk."""
        found = {}
        for folder, _, names in os.walk(self.root):
            for name in names:
                if name.endswith(".yanked"):
                    with open(os.path.join(folder, name)) as file:
                        found[name[:-len(".yanked")]] = file.read()
        return found


class TestCommands(YankTestCase):
    def test_what_is_meant(self):
        for version in "1.0", "1.1", "2.0rc1", "2.0":
            self.put("Foo.Bar", version)
        archives.put(self.root, "foo-bar-1.1.tar.gz",
                     archives.sdist("foo-bar", "1.1"))
        self.put("foo", "1.0")
        wheel = "Foo_Bar-%s-py2.py3-none-any.whl"
        for requirement, expected in (
                ("foo_bar==1.0.0", [wheel % "1.0"]),
                ("FOO-bar<2", [wheel % "1.0", wheel % "1.1",
                               "foo-bar-1.1.tar.gz"]),
                ("foo.bar>1,!=1.1", [wheel % "2.0", wheel % "2.0rc1"]),
                ("foo-bar-1.1.tar.gz", ["foo-bar-1.1.tar.gz"]),
                (wheel % "2.0", [wheel % "2.0"]),
                ("foo", ["foo-1.0-py2.py3-none-any.whl"])):
            with self.subTest(requirement):
                output, _ = self.run_command("yank", self.root, requirement)
                self.assertEqual(expected, sorted(self.yanked()))
                self.assertEqual(
                    ["yanked %s/%s" % (self.root, name) for name in expected],
                    sorted(output.splitlines()))
                output, _ = self.run_command(
                    "unyank", self.root, requirement)
                self.assertEqual({}, self.yanked())
                self.assertEqual(
                    ["unyanked %s/%s" % (self.root, name)
                     for name in expected], sorted(output.splitlines()))

    def test_reason(self):
        path = self.put("foo", "1.0")
        name = os.path.basename(path)
        for arguments, expected, printed in (
                ((), "", "yanked"),
                ((), "", "already yanked"),
                (("--reason", "it  <breaks> ünder"), "it <breaks> ünder\n",
                 "yanked"),
                ((), "it <breaks> ünder\n", "already yanked"),
                (("--reason", "other"), "other\n", "yanked"),
                (("--reason", ""), "", "yanked")):
            with self.subTest(arguments):
                output, _ = self.run_command(
                    "yank", self.root, "foo==1.0", *arguments)
                self.assertEqual("%s %s\n" % (printed, path), output)
                self.assertEqual({name: expected}, self.yanked())
        self.assertEqual([name, name + ".yanked"],
                         sorted(os.listdir(self.root)))
        self.run_command("unyank", self.root, "foo")
        output, _ = self.run_command("unyank", self.root, "foo")
        self.assertEqual("not yanked %s\n" % path, output)

    def test_what_is_in_the_shadow_of_another_file(self):
        self.put("foo", "1.0", "a")
        self.put("foo", "1.0", "b")
        self.run_command("yank", self.root, "foo==1.0")
        for folder in "ab":
            self.assertEqual(2, len(os.listdir(
                os.path.join(self.root, folder))))

    def test_refusals(self):
        self.put("foo", "1.0")
        missing = os.path.join(self.folder, "missing")
        for arguments, message in (
                (("yank", self.root, "bar"), "is meant by 'bar'"),
                (("yank", self.root, "foo==2"), "is meant by 'foo==2'"),
                (("unyank", self.root, "foo>1"), "is meant by 'foo>1'"),
                (("yank", self.root, "foo-2.0.tar.gz"), "is meant by"),
                (("yank", self.root, "foo[x]"), "'foo==1.2'"),
                (("yank", self.root, "foo~=1"), "'foo==1.2'"),
                (("yank", missing, "foo"), "there is no package directory"),
                (("yank", self.root, "foo", "--reason", "a\nb"), "one line"),
                (("yank", self.root, "foo", "--reason", "x" * 70000),
                 "65535 bytes")):
            with self.subTest(arguments[:3]):
                output, errors = self.run_command(*arguments, status=2)
                self.assertEqual("", output)
                self.assertEqual(1, errors.count("\n"), errors)
                self.assertIn(message, errors)
        self.assertEqual({}, self.yanked())
        self.assertFalse(os.path.exists(missing))

    def test_what_cannot_be_written(self):
        path = self.put("foo", "1.0")
        os.mkdir(path + ".yanked")
        _, errors = self.run_command(
            "yank", self.root, "foo", "--reason", "x", status=2)
        self.assertIn("cannot be written", errors)
        self.assertEqual(2, len(os.listdir(self.root)))


class TestServer(YankTestCase):
    def files(self, server):
        answer = server.get("simple/foo/", JSON)
        return {file["filename"].split("-")[1]: file.get("yanked", False)
                for file in json.loads(answer.body.decode())["files"]}

    def test_seen_within_two_seconds(self):
        self.put("foo", "1.0")
        self.put("foo", "2.0")
        with ServerProcess(self.root) as server:
            wait_for(lambda: self.files(server) == {
                "1.0": False, "2.0": False}, "both are listed")
            for arguments, expected in (
                    (("yank", "--reason", "it breaks"), "it breaks"),
                    (("yank", "--reason", "worse"), "worse"),
                    (("yank", "--reason", ""), True),
                    (("unyank",), False)):
                self.run_command(arguments[0], self.root, "foo==2.0",
                                 *arguments[1:])
                wait_for(lambda: self.files(server) == {
                    "1.0": False, "2.0": expected}, arguments, seconds=2)

    def test_readers_see_the_old_or_the_new_reason(self):
        path = self.put("foo", "1.0")
        reasons = ["a" * 30000, "b" * 20000]
        pypi_server.write_companion(path + ".yanked", reasons[0])
        ended, seen = threading.Event(), set()

        def read():
            while not ended.is_set():
                seen.add(pypi_server.read_text(path + ".yanked"))
        reader = threading.Thread(target=read)
        reader.start()
        try:
            for number in range(100):
                pypi_server.write_companion(
                    path + ".yanked", reasons[number % 2])
        finally:
            ended.set()
            reader.join()
        self.assertLessEqual(seen, set(reasons))

    def test_pip_and_uv_pass_over_it(self):
        python = toolbox.require("tools")
        uv = toolbox.require("tools", "uv")
        self.put("foo", "1.0")
        self.put("foo", "2.0")
        with ServerProcess(self.root) as server:
            self.run_command("yank", self.root, "foo==2.0", "--reason",
                             "it breaks")
            wait_for(lambda: self.files(server).get("2.0") == "it breaks",
                     "it is yanked")
            self.install(python, uv, server, "foo", "1.0", "")
            self.install(python, uv, server, "foo==2.0", "2.0", "it breaks")
            self.run_command("unyank", self.root, "foo")
            wait_for(lambda: not any(self.files(server).values()),
                     "it is not yanked")
            self.install(python, uv, server, "foo", "2.0", "")

    def install(self, python, uv, server, requirement, version, warning):
        url = server.url + "simple/"
        target = tempfile.mkdtemp(dir=self.folder)
        for command in (
                [python, "-m", "pip", "download", "--no-deps", "-d", target,
                 "-i", url, "--no-cache-dir", requirement],
                [uv, "pip", "install", "--no-cache", "--default-index", url,
                 "--python", python, "--target", target, requirement]):
            process = subprocess.Popen(
                command, env=isolated(self.folder, NO_COLOR="1"),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                universal_newlines=True)
            output, _ = process.communicate(timeout=120)
            self.assertEqual(0, process.returncode, output)
            self.assertRegex(output, r"foo(-|==)%s" % version)
            self.assertIn(warning, output)


if __name__ == "__main__":
    unittest.main()
