"""Closure: what pip and uv say of the same directories."""

import functools
import json
import os
import shutil
import subprocess
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Tuple

import pypi_server
from tests import archives, toolbox
from tests.helpers import DirectoryTestCase
from tests.mirror import FOLDER, is_complete
from tests.upstream import isolated

LINUX = "manylinux_2_28_x86_64"
# Requirements that no requirer names are those of the release that is asked
# for; "sdist" has a build backend within, and requires what it says.
BACKEND = """
import os, zipfile
REQUIRES = %r
def prepare_metadata_for_build_wheel(folder, settings=None):
    name = %r
    os.mkdir(os.path.join(folder, name))
    with open(os.path.join(folder, name, "METADATA"), "wb") as file:
        file.write(%r)
    with open(os.path.join(folder, name, "WHEEL"), "w") as file:
        file.write("Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\n"
                   "Tag: py3-none-any\\n")
    return name
def get_requires_for_build_wheel(settings=None):
    return []
def build_wheel(folder, settings=None, metadata=None):
    name = %r
    with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
        archive.writestr(%r, %r)
        archive.writestr(%r, "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\n"
                             "Tag: py3-none-any\\n")
        archive.writestr(%r, "")
    return name
"""


class Case(NamedTuple):
    name: str
    files: str        # one on each line: NAME VERSION KIND; REQUIREMENT; ...
    fine: str = ""    # releases that can be installed, NAME==VERSION
    blocked: str = ""
    missing: Tuple[str, ...] = ()  # as `check` prints them
    python: str = ""  # "" for that of the environment "tools"


# KIND is "any" or the tags of a wheel, perhaps with "as" and what its
# metadata says, or "sdist" with "<" before each
# build requirement; ">=3.x" is Requires-Python.
CASES = (
    Case("met", "a 1.0 any; b>=1\nb 1.5 any", "a==1.0 b==1.5"),
    Case("absent", "a 1.0 any; b>=1", "", "a==1.0",
         ("b>=1: no file of it is here",)),
    Case("too-old", "a 1.0 any; b>=2\nb 1.0 any\nb 1.5 any",
         "b==1.0", "a==1.0", ("b>=2: there is only 1.5, 1.0",)),
    Case("indirect", "a 1.0 any; b\nb 1.0 any; c\nc 1.0 any; d==1",
         "", "a==1.0 b==1.0 c==1.0", ("d==1: no file of it is here",)),
    Case("older-helps", "a 1.0 any; b\nb 2.0 any; c\nb 1.0 any",
         "a==1.0 b==1.0", "b==2.0", ("c: no file of it is here",)),
    Case("contradiction",
         "a 1.0 any; b; c<2\nb 1.0 any; c>=2\nc 1.0 any\nc 2.0 any",
         "b==1.0 c==1.0 c==2.0", "a==1.0"),
    Case("contradiction-avoided",
         "a 1.0 any; b; c<2\nb 1.0 any; c>=2\nb 0.9 any; c\nc 1.0 any\n"
         "c 2.0 any", "a==1.0 b==1.0 b==0.9"),
    Case("deep-search",
         "a 1.0 any; b; c; d; e\nb 1.0 any\nb 2.0 any\nc 1.0 any; e<2\n"
         "c 2.0 any; e<2\nd 1.0 any; e<3\nd 2.0 any; e>=2\ne 1.0 any\n"
         "e 2.0 any\ne 3.0 any", "a==1.0 d==2.0"),
    Case("circle", "a 1.0 any; b\nb 1.0 any; a\nb 2.0 any; a>=1",
         "a==1.0 b==1.0 b==2.0"),
    Case("circle-in-step",
         "a 1.0 any; b==1.0\nb 1.0 any; a==1.0\na 2.0 any; b==2.0\n"
         "b 2.0 any; a==2.0", "a==1.0 b==1.0 a==2.0 b==2.0"),
    Case("circle-out-of-step",
         "a 1.0 any; b\na 2.0 any; b\nb 1.0 any; a>=2",
         "a==2.0 b==1.0", "a==1.0"),
    Case("extras", "a 1.0 any; b[x]\nb 1.0 any; c ; extra == 'x'; "
         "d ; extra == 'y'\nc 1.0 any", "a==1.0 b==1.0"),
    Case("extras-missing", "a 1.0 any; b[X_Y]\nb 1.0 any; "
         "c ; extra == 'x-y'", "b==1.0", "a==1.0",
         ("c: no file of it is here",)),
    Case("extras-unknown", "a 1.0 any; b[x]\nb 1.0 any", "a==1.0"),
    Case("markers", "a 1.0 any; b ; sys_platform == 'win32'; "
         "c ; python_version < '3'; d ; platform_machine == 'x86_64'\n"
         "d 1.0 any", "a==1.0"),
    Case("marker-counts", "a 1.0 any; b ; sys_platform == 'linux' and "
         "os_name == 'posix'", "", "a==1.0",
         ("b: no file of it is here",)),
    Case("pre-release", "a 1.0 any; b\na 1.1 any; b>=2.0rc1\n"
         "b 2.0rc1 any\nc 1.0 any; d\nd 1.0 any; e>=2\nd 1.1rc1 any\n"
         "e 2.0 any", "a==1.0 a==1.1 b==2.0rc1 c==1.0"),
    Case("unlike-its-metadata", "a 1.0 any; b\nb 1.0 any as b 1.1\n"
         "c 1.0 any; d\nd 1.0 any as e 1.0\nf 1.0 any; b<1",
         "", "a==1.0 c==1.0 f==1.0",
         ("b: 1.0 is here, but its metadata is that of version '1.1'",
          "b<1: there is only 1.0",
          "d: 1.0 is here, but its metadata is that of 'e'")),
    Case("pre-release-passed-over", "a 1.0 any; b<1.5\na 2.0 any; b>=1\n"
         "b 1.0 any; c\nb 2.0rc1 any", "b==2.0rc1", "a==1.0 a==2.0 b==1.0",
         ("c: no file of it is here",)),
    Case("local", "a 1.0 any; b==1.0\nb 1.0+cpu any", "a==1.0"),
    Case("wildcard", "a 1.0 any; b==1.*,!=1.2; c~=1.4\nb 1.9 any\n"
         "b 1.2 any\nc 1.3 any", "b==1.9", "a==1.0",
         ("c~=1.4: there is only 1.3",)),
    Case("epoch", "a 1.0 any; b<2\nb 1!1.0 any", "b==1!1.0", "a==1.0"),
    Case("requires-python", "a 1.0 any; b\nb 1.0 any >=3.99\n"
         "c 1.0 any; b<1\nb 0.9 any >=3.6", "a==1.0 c==1.0"),
    Case("requires-python-missing", "a 1.0 any; b\nb 1.0 any >=3.99", "",
         "a==1.0", ("b: 1.0 is here, but for Python >=3.99 only",)),
    Case("platforms", "a 1.0 any; b; c; d; e\n"
         "b 1.0 py3-none-manylinux_2_28_x86_64\n"
         "c 1.0 py3-none-manylinux2014_x86_64\n"
         "d 1.0 py3-none-manylinux1_x86_64\n"
         "e 1.0 cp36-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64",
         "a==1.0"),
    Case("platform-too-new", "a 1.0 any; b\n"
         "b 1.0 py3-none-manylinux_2_34_x86_64", "", "a==1.0",
         ("b: 1.0 is here, but for other Pythons or platforms only",)),
    Case("platform-other", "a 1.0 any; b\nb 1.0 py3-none-win_amd64\n"
         "b 1.0 py3-none-musllinux_1_1_x86_64\n"
         "b 1.0 py3-none-manylinux_2_17_aarch64", "", "a==1.0"),
    Case("python-tags", "a 1.0 py2-none-any\nb 1.0 cp27-none-any; a",
         "", ""),
    Case("requirements-of-the-best-wheel",
         "a 1.0 py3-none-manylinux_2_17_x86_64\na 1.0 any; b", "a==1.0"),
    # What counts there is not what counts here.
    Case("older-python", "a 1.0 any; b ; python_version < '3.12'; "
         "c ; python_full_version >= '3.12'\nb 1.0 cp311-cp311-" + LINUX,
         "a==1.0 b==1.0", python="3.11"),
    Case("older-python-missing", "a 1.0 any; b ; python_version < '3.12'\n"
         "b 1.0 cp312-cp312-" + LINUX, "", "a==1.0", python="3.11"),
    Case("python-3.11.0", "a 1.0 any; b\nb 1.0 any >=3.11.1\nc 1.0 any >=3.9"
         "; d ; python_full_version == '3.11.0'\nd 1.0 any", "c==1.0",
         "a==1.0", python="3.11"),
)


def archive(line):
    """Return (filename, content) of a line of a case."""
    words, *requirements = [part.strip() for part in line.split(";")]
    # A marker begins with its name, not with a requirement.
    requires = []
    for part in requirements:
        if " == '" in part or " < '" in part or " >= '" in part:
            requires[-1] += " ; " + part
        else:
            requires.append(part)
    words, _, truth = words.partition(" as ")
    name, version, kind, *python = words.split()
    if kind != "sdist":
        tags = "py3-none-any" if kind == "any" else kind
        return archives.wheel_filename(name, version, tags), archives.wheel(
            *(truth.split() or (name, version)), requires,
            python[0] if python else None)
    builds = [each[1:] for each in requires if each.startswith("<")]
    return "%s-%s.tar.gz" % (name, version), sdist(
        name, version, [each for each in requires if each[0] != "<"], builds)


def sdist(name, version, requires, builds):
    """Return an sdist that brings its build backend with it."""
    metadata = archives.metadata(name, version, requires)
    info = "%s-%s.dist-info" % (name, version)
    return archives.sdist(name, version, files={
        "PKG-INFO": metadata, "backend.py": (BACKEND % (
            requires, info, metadata, "%s-%s-py3-none-any.whl" % (
                name, version), info + "/METADATA", metadata,
            info + "/WHEEL", info + "/RECORD")).encode(),
        "pyproject.toml": (
            "[build-system]\nrequires = %s\nbuild-backend = 'backend'\n"
            "backend-path = ['.']\n" % json.dumps(builds)).encode()})


def check(root, python="", platform=""):
    """Return (blocked, findings); releases as NAME==VERSION."""
    try:
        report = pypi_server.check_directories(pypi_server.Config(
            roots=(root,), backend="simple-dir", closure=True, python=python,
            platform=platform))
    except pypi_server.UsageError as error:
        raise unittest.SkipTest(str(error))  # this Python has no pip
    return {"==".join(name.split()) for name, _ in report.outcome.blocked}, \
        report


def run(command, folder, stdin=""):
    """Return whether a client finds what it was asked for."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=isolated(folder, NO_COLOR="1"),
        universal_newlines=True)
    output, _ = process.communicate(stdin, timeout=240)
    return process.returncode == 0, output


def pip(root, folder, requirement, *options):
    with tempfile.TemporaryDirectory() as got:
        return run([toolbox.require("tools"), "-m", "pip", "download", "-q",
                    "--no-cache-dir", "--no-index", "--find-links", root,
                    "-d", got, requirement] + list(options), folder)


def uv(root, folder, requirement, python, platform="x86_64-manylinux_2_28"):
    return run([toolbox.require("tools", "uv"), "pip", "compile", "-q",
                "--no-cache", "--no-index", "--find-links", root,
                "--python-version", python, "--python-platform", platform,
                "--only-binary", ":all:", "-"], folder, requirement + "\n")


class TestCases(DirectoryTestCase):
    """What `check` says of each case is what pip and uv find."""

    def test_wheels(self):
        toolbox.require("tools")
        with ThreadPoolExecutor(2) as pool:
            for case, problems in zip(CASES, pool.map(self.judge, CASES)):
                with self.subTest(case.name):
                    self.assertEqual([], problems)

    def judge(self, case):
        """Return what is not as expected, for one of the three."""
        root = os.path.join(self.root, case.name)
        for line in case.files.split("\n"):
            filename, data = archive(line)
            archives.put(root, filename, data)
        blocked, report = check(root, case.python or self.python(), LINUX)
        problems = []
        for requirement in (case.fine + " " + case.blocked).split():
            expected = requirement in case.fine.split()
            if (requirement in blocked) == expected:
                problems.append("check: %s" % requirement)
            found, output = self.ask(root, requirement, case.python)
            if found != expected:
                problems.append("client: %s: %s" % (requirement, output))
        texts = tuple("%s: %s" % finding[1:] for finding in report.findings
                      if finding.kind == "missing")
        if case.missing and texts != case.missing:
            problems.append("missing: %r" % (texts,))
        if not case.blocked and report.findings:
            problems.append("findings: %r" % (report.findings,))
        return problems

    def ask(self, root, requirement, python):
        # pip compares markers with the Python that it runs on.
        if python:
            return uv(root, self.folder, requirement, python)
        options = ["--only-binary", ":all:", "--python-version",
                   self.python(), "--implementation", "cp"]
        for tag in pypi_server.platform_tags(LINUX):
            options += ["--platform", tag]
        return pip(root, self.folder, requirement, *options)

    @staticmethod
    @functools.lru_cache(maxsize=None)
    def python():
        """Return the minor version of the Python that the clients run on."""
        return toolbox.describe(toolbox.require("tools")).name.split("-")[1]

    @staticmethod
    def running():
        """Return the whole version of that Python."""
        return subprocess.check_output(
            [toolbox.require("tools"), "-c", "import platform; "
             "print(platform.python_version())"]).decode().strip()

    def test_sdists(self):
        """Built by pip, on this machine."""
        toolbox.require("tools")
        for line in (
                "a 1.0 sdist; <helper>=2; b",   # fine
                "b 1.0 sdist",
                "helper 2.0 any; less",
                "less 1.0 sdist; <tool",
                "tool 1.0 any",
                "c 1.0 sdist; <helper>=3",      # nothing builds it
                "d 1.0 any; c",
                "e 1.0 sdist; <e",              # it builds itself
                "f 1.0 sdist; g",               # nothing to run it
                "h 1.0 sdist; <helper>=3",      # never built
                "h 1.0 any"):
            archives.put(self.root, *archive(line))
        blocked, report = check(self.root, self.running())
        expected = {"c==1.0", "d==1.0", "e==1.0", "f==1.0"}
        self.assertEqual(expected, blocked)
        self.assertEqual([
            ("missing", "g", "no file of it is here"),
            ("missing", "helper>=3", "there is only 2.0"),
            ("conflict", "e 1.0", "to be built, it needs itself in the end"),
        ], list(map(tuple, report.findings)))
        self.assertEqual([("f 1.0",), ("c 1.0 (build)",)], [
            missing.requirers for missing in report.outcome.missing])
        names = ["a==1.0", "c==1.0", "d==1.0", "e==1.0", "f==1.0", "h==1.0"]
        with ThreadPoolExecutor(2) as pool:
            for name, (found, output) in zip(names, pool.map(
                    lambda name: pip(self.root, self.folder, name), names)):
                self.assertEqual(name not in expected, found,
                                 name + "\n" + output)

    @unittest.skipUnless(is_complete(), "the mirror is not installed")
    def test_real_projects(self):
        """An application with all that it needs, and without a part."""
        linux = os.path.join(FOLDER, "linux")
        blocked, _ = check(linux, "3.12", LINUX)
        # Its pin of python-dateutil is not that of the others.
        self.assertEqual({"celery==5.7.0"}, blocked)
        for name in os.listdir(linux):
            if not name.startswith("rpds"):
                shutil.copy(os.path.join(linux, name), self.root)
        blocked, report = check(self.root, "3.12", LINUX)
        self.assertEqual(
            {"rpds-py>=0.25.0", "rpds-py>=0.7.0",
             "python-dateutil==2.9.0.post0"},
            {missing.requirement for missing in report.outcome.missing})
        self.assertIn("jupyter-server==2.21.1", blocked)
        for name, expected in (("jupyter-server", False), ("flask", True),
                               ("celery", False)):
            self.assertEqual(expected, not any(
                each.startswith(name + "==") for each in blocked))
            found, output = uv(self.root, self.folder, name, "3.12")
            self.assertEqual(expected, found, output)


if __name__ == "__main__":
    unittest.main()
