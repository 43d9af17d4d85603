"""Target and Closure, as any Python runs them."""

import contextlib
import io
import json
import os
import subprocess
import sys
import textwrap
import unittest

import pypi_server
from tests import archives
from tests.helpers import SCRIPT, DirectoryTestCase

LINUX = "manylinux_2_28_x86_64"


class TestSources(DirectoryTestCase):
    """Where requirements are found, without any client."""

    def closure(self, *options):
        try:
            pypi_server.load_packaging()
        except pypi_server.UsageError as error:
            raise unittest.SkipTest(str(error))
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            pypi_server.main((
                "check", "--json", "--backend", "simple-dir", "--closure",
                "--python", "3.11", "--platform", LINUX, self.root) + options)
        return json.loads(output.getvalue())

    def missing(self):
        return {missing["requirement"]: missing["requirers"] for missing
                in self.closure()["closure"]["missing"]}

    def test_sdists(self):
        for name, files, expected in (
                ("bare", {}, ["setuptools>=40.8.0"]),
                ("project", {"pyproject.toml": b"[project]\n"},
                 ["setuptools>=40.8.0"]),
                ("system", {"pyproject.toml": b"[build-system]\nrequires = "
                            b"['x', 'y>1 ; python_version < \"3\"']\n"},
                 ["x"]),
                ("nothing", {"pyproject.toml":
                             b"[build-system]\nrequires = []\n"}, [])):
            for extension in ".tar.gz", ".zip":
                with self.subTest(name + extension):
                    filename = name + "-1.0" + extension
                    path = archives.put(
                        self.root, filename, archives.sdist(
                            name, "1.0", extension, files=files))
                    self.assertEqual(
                        {text: [name + " 1.0 (build)"] for text in expected},
                        self.missing())
                    os.unlink(path)

    def test_setuptools_writes_requires_txt(self):
        for place in "", "src/":
            with self.subTest(place):
                archives.put(
                    self.root, "demo-1.0.tar.gz", archives.sdist(
                        "demo", "1.0", files={
                            "pyproject.toml":
                                b"[build-system]\nrequires = []\n",
                            place + "demo.egg-info/requires.txt":
                                textwrap.dedent("""
                                a>=1
                                [:sys_platform == "win32"]
                                b
                                [:sys_platform == "linux"]
                                c
                                [extra]
                                d
                                """).encode()}))
                self.assertEqual({"a>=1": ["demo 1.0"], "c": ["demo 1.0"]},
                                 self.missing())

    def test_what_cannot_be_told(self):
        for text, problem in (
                ("[build-system]\n", "without a list"),
                ("build-system = 3\n", "without a list"),
                ("[build-system]\nrequires = 'x'\n", "without a list"),
                ("[build-system]\nrequires = [3]\n", "without a list"),
                ("[build-system\n", "cannot be read"),
                ("x = '\udcff'", "cannot be read")):
            with self.subTest(text):
                archives.put(self.root, "demo-1.0.tar.gz", archives.sdist(
                    "demo", "1.0", files={"pyproject.toml": text.encode(
                        "utf-8", "surrogateescape")}))
                finding, = self.closure()["findings"]
                self.assertEqual("requirement", finding["kind"])
                self.assertIn(problem, finding["problem"])

    def test_why_it_is_of_no_use(self):
        wheel = "b-1.0-py3-none-any.whl"
        archives.put(self.root, "a-1.0-py3-none-any.whl",
                     archives.wheel("a", "1.0", ["b"]))
        path = archives.put(self.root, wheel, archives.wheel("b", "1.0"))
        self.assertEqual({}, self.missing())
        for filename, data, problem in (
                (wheel + ".yanked", b"", "1.0 is here, but it is yanked"),
                ("b.status", b"quarantined", "it is withheld"),
                (wheel, b"broken", "it is withheld")):
            with self.subTest(filename):
                more = archives.put(self.root, filename, data)
                missing, = self.closure()["closure"]["missing"]
                self.assertIn(problem, missing["problem"])
                if more != path:
                    os.unlink(more)

    def test_pre_releases_count_as_for_the_oldest_pips(self):
        """With any packaging: (requirement, versions, what is missing)."""
        passed_over = "is a pre-release"
        for text, versions, problem in (
                ("b", "2.0rc1", None), ("b>=1", "2.0rc1", passed_over),
                ("b>1", "2.0rc1 0.9", passed_over), ("b!=1", "1.0 2.0.dev1",
                                                     passed_over),
                ("b>=2.0rc1", "2.0rc1", None), ("b>1.0a1", "1.0rc1",
                                                passed_over),
                ("b~=2.0rc1", "2.0rc2", None), ("b==2.0rc1", "2.0rc1", None),
                ("b==2.*", "2.0rc1", passed_over), ("b<2", "2.0rc1 1.0",
                                                    None),
                ("b===2.0rc1", "2.0rc1", None), ("b>=1", "1.0 2.0rc1", None)):
            with self.subTest(text, versions=versions):
                paths = [archives.put(
                    self.root, "b-%s-py3-none-any.whl" % version,
                    archives.wheel("b", version))
                    for version in versions.split()]
                archives.put(self.root, "a-1.0-py3-none-any.whl",
                             archives.wheel("a", "1.0", [text]))
                missing = self.closure()["closure"]["missing"]
                self.assertEqual(
                    [text] if problem else [],
                    [found["requirement"] for found in missing])
                for found in missing:
                    self.assertIn(problem, found["problem"])
                for path in paths:
                    os.unlink(path)

    def test_yanked_release_is_there_for_who_names_it(self):
        archives.put(self.root, "a-1.0-py3-none-any.whl",
                     archives.wheel("a", "1.0", ["b==1.0"]))
        archives.put(self.root, "b-1.0-py3-none-any.whl",
                     archives.wheel("b", "1.0"))
        archives.put(self.root, "b-1.0-py3-none-any.whl.yanked", b"")
        self.assertEqual({}, self.missing())

    def test_projects_without_a_file_for_the_target(self):
        archives.put(self.root, "a-1.0-py3-none-win_amd64.whl",
                     archives.wheel("a", "1.0"))
        closure = self.closure()["closure"]
        self.assertEqual(["a"], closure["without_files"])
        self.assertEqual(0, closure["releases"])

    def test_text(self):
        self.closure()  # or skip
        archives.put(self.root, "a-1.0-py3-none-any.whl",
                     archives.wheel("a", "1.0", ["b>=2 ; os_name != 'nt'"]))
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            status = pypi_server.main((
                "check", "--closure", "--python", "3.11.4", "--platform",
                "win_arm64", self.root, "--backend", "simple-dir"))
        self.assertEqual((0, "1 archive of 1 project: no findings\nPython "
                          "3.11.4 on win_arm64: 1 of 1 release can be "
                          "installed\n"), (status, output.getvalue()))
        output.truncate(0)
        output.seek(0)
        with contextlib.redirect_stdout(output):
            status = pypi_server.main((
                "check", "--closure", "--python", "3.11", "--platform",
                "macosx_14_0_arm64", self.root, "--backend", "simple-dir"))
        self.assertEqual((1, (
            "missing: a requirement that nothing here meets\n"
            "  b>=2: no file of it is here\n"
            "    for a 1.0\n"
            "1 archive of 1 project: 1 finding\n"
            "Python 3.11.0 on macosx_14_0_arm64: 0 of 1 release can be "
            "installed\n"
            "  not a 1.0: for want of b>=2\n")), (status, output.getvalue()))

    def test_many_releases_take_no_search(self):
        """Each needs five others, of which there are ten releases."""
        readings = []
        for number in range(200):
            name = "p%d" % number
            requires = tuple("p%d>=1" % (number * 7 % other)
                             for other in range(1, min(number, 6)))
            for minor in range(10):
                archive = pypi_server.Archive(
                    "/", "", "%s-1.%d-py3-none-any.whl" % (name, minor),
                    name, "1.%d" % minor, "bdist_wheel")
                readings.append((archive, pypi_server.Reading(
                    pypi_server.withheld(""), (), requires)))
        try:
            stock = pypi_server.Stock(
                pypi_server.make_target("3.11", LINUX),
                pypi_server.load_packaging())
        except pypi_server.UsageError as error:
            raise unittest.SkipTest(str(error))
        for archive, reading in readings:
            stock.add(archive, reading, False)
        closure = pypi_server.Closure(stock)
        self.assertEqual(set(), closure.disputed())
        self.assertEqual(2000, closure.outcome().total)

    def test_without_packaging(self):
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", SCRIPT, "check", "--closure",
             self.root], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            universal_newlines=True)
        output, errors = process.communicate(timeout=60)
        self.assertEqual((2, ""), (process.returncode, output))
        self.assertIn("--closure needs the library packaging", errors)
        self.assertEqual(1, errors.count("\n"))


class TestTags(unittest.TestCase):
    """The tags of a target are those of packaging."""

    def test_agrees_with_packaging(self):
        try:
            from packaging import tags
        except ImportError:
            raise unittest.SkipTest("packaging is not installed")
        for minor, platform in (
                (11, "manylinux_2_28_x86_64"), (13, "win_amd64"),
                (7, "manylinux2014_aarch64"), (6, "musllinux_1_2_x86_64"),
                (12, "macosx_14_0_arm64"), (9, "macosx_12_0_x86_64"),
                (8, "macosx_10_15_x86_64")):
            with self.subTest(platform, minor=minor):
                platforms = pypi_server.platform_tags(platform)
                found = re_platform(platform)
                if found and hasattr(tags, "mac_platforms"):
                    # Once misspelled there.
                    expected = [tag.replace("fat32", "fat3")
                                for tag in tags.mac_platforms(
                                    (found[0], found[1]), found[2])]
                    self.assertEqual(expected, platforms)
                abi = "cp3%d%s" % (minor, "m" if minor < 8 else "")
                expected = [str(tag) for tag in tags.cpython_tags(
                    (3, minor), [abi], platforms)] + [
                    str(tag) for tag in tags.compatible_tags(
                        (3, minor), "cp3%d" % minor, platforms)]
                ranks = pypi_server.tag_ranks(minor, platforms)
                self.assertEqual(expected, sorted(ranks, key=ranks.get))

    def test_platforms(self):
        for platform, count in (
                ("manylinux_2_28_x86_64", 24 + 3 + 1),
                ("manylinux1_i686", 1 + 1 + 1),
                ("manylinux_2_17_armv7l", 1 + 1 + 1),
                ("musllinux_1_2_x86_64", 3 + 1), ("win32", 1)):
            with self.subTest(platform):
                found = pypi_server.platform_tags(platform)
                self.assertEqual(count, len(found))
                if platform != "manylinux1_i686":
                    self.assertEqual(platform, found[0])
        for platform in ("any", "linux_x86_64", "manylinux_2_28", "win64",
                         "macosx_14_0_ppc", "x86_64", ""):
            with self.assertRaises(pypi_server.UsageError):
                pypi_server.platform_tags(platform)

    def test_markers(self):
        for platform, expected in (
                ("manylinux_2_28_x86_64", "posix linux Linux x86_64"),
                ("manylinux2014_aarch64", "posix linux Linux aarch64"),
                ("musllinux_1_2_armv7l", "posix linux Linux armv7l"),
                ("macosx_14_0_arm64", "posix darwin Darwin arm64"),
                ("macosx_12_0_x86_64", "posix darwin Darwin x86_64"),
                ("win_amd64", "nt win32 Windows AMD64"),
                ("win32", "nt win32 Windows x86")):
            markers = pypi_server.make_target("3.11", platform).markers
            self.assertEqual(expected, " ".join(markers[name] for name in (
                "os_name", "sys_platform", "platform_system",
                "platform_machine")))
            self.assertEqual("3.11.0", markers["python_full_version"])


def re_platform(platform):
    """Return (major, minor, machine) of a macOS."""
    parts = platform.split("_", 3)
    return (int(parts[1]), int(parts[2]), parts[3]) \
        if parts[0] == "macosx" else None


if __name__ == "__main__":
    unittest.main()
