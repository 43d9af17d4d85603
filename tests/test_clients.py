"""Released clients install from a server, with cold and with warm caches.

The environments come from tests/toolbox.py; a client that is not installed
skips its test.  Each test has a home of its own, and the network beyond
loopback is out of reach: whatever a client tries goes to a closed port.
"""

import glob
import hashlib
import html
import os
import re
import subprocess
import tempfile
import time
import unittest
import urllib.request

from tests import archives, toolbox
from tests.helpers import ServerProcess, names_in

# An sdist that brings its own build backend, so that building it needs
# nothing from an index (PEP 517, backend-path).
BACKEND = b"""
import base64
import hashlib
import zipfile

INFO = "lib_two-1.5.dist-info/"
FILES = {
    "lib_two.py": "version = '1.5'\\n",
    INFO + "METADATA": open("PKG-INFO").read(),
    INFO + "WHEEL": "Wheel-Version: 1.0\\nGenerator: tests\\n"
                    "Root-Is-Purelib: true\\nTag: py3-none-any\\n"}
FILES[INFO + "RECORD"] = "".join(
    "%s,sha256=%s,%d\\n" % (path, base64.urlsafe_b64encode(
        hashlib.sha256(text.encode()).digest()).decode().rstrip("="),
        len(text.encode())) for path, text in FILES.items())
FILES[INFO + "RECORD"] += INFO + "RECORD,,\\n"


def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "lib_two-1.5-py3-none-any.whl"
    with zipfile.ZipFile(folder + "/" + name, "w") as archive:
        for path, text in FILES.items():
            archive.writestr(path, text)
    return name
"""
PYPROJECT = b"""
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""

EXTENSIONS = (".whl", ".tar.gz", ".zip", ".tar.bz2", ".egg")

# What every client must choose of the files below; `choice` is a file in
# the wheel of lib-one 1.1 that says which of its two wheels this is.
CHOSEN = {"app": "1.0", "lib-one": "1.1", "lib-two": "1.5",
          "lib-three": "1.0"}


def fill(root, foreign=False):
    """Put a project with dependencies, and files not to choose, into root.

    An installer has to pass over a yanked version, one for a Python that
    is yet to come, a pre-release, and a wheel without a build tag beside
    one that has it; and it has to find a newer sdist beside an older wheel.

    Args:
        foreign: add a newer wheel for another system only.  Installers pass
            over it; a lock file for all systems may well name it.
    """
    def put_wheel(name, version, tags="py3-none-any", build=None, **rest):
        filename = archives.wheel_filename(name, version, tags, build)
        archives.put(root, filename, archives.wheel(name, version, **rest))
        return filename

    put_wheel("app", "1.0", requires=[
        "lib-one>=1.0", "Lib.Two", "lib_three>=0.9"], requires_python=">=3.6")
    put_wheel("lib-one", "1.0")
    put_wheel("lib-one", "1.1", files={"choice.txt": b"no build tag"})
    put_wheel("lib-one", "1.1", build="2", files={"choice.txt": b"build 2"})
    yanked = put_wheel("lib-one", "1.2")
    archives.put(root, yanked + ".yanked", b"broken <on> \"Tuesdays\"\n")
    put_wheel("lib-one", "2.0", requires_python=">=4,<5")
    put_wheel("Lib.Two", "1.0")
    archives.put(root, "Lib.Two-1.5.tar.gz", archives.sdist(
        "Lib.Two", "1.5",
        files={"pyproject.toml": PYPROJECT, "backend.py": BACKEND}))
    put_wheel("lib_three", "1.0")
    put_wheel("lib_three", "2.0rc1")
    if foreign:
        put_wheel("lib_three", "1.1", tags="cp27-cp27m-win32")


def installed(folder):
    """Read {normalized name: version} off the folders that installers make.

    Some leave the name as it was written; none leaves out the version.
    """
    found = {}
    for suffix in ("dist-info", "egg-info", "egg"):
        for path in glob.glob(os.path.join(folder, "*." + suffix)):
            stem = os.path.basename(path)[:-len(suffix) - 1]
            name, version = stem.split("-")[:2]
            found[re.sub("[-_.]+", "-", name).lower()] = version
    found.pop("pip", None)  # some put it into each environment they make
    return found


def site_packages(environment):
    """Return the folder that a virtual environment installs into."""
    folders = (glob.glob(os.path.join(environment, "lib", "python3*",
                                      "site-packages"))
               + glob.glob(os.path.join(environment, "Lib",
                                        "site-packages")))
    return folders[0]


def wait_until_listed(url, names):
    """Wait for files that are younger than the server to be listed.

    A server may hold back what was written a moment ago (promise 1), but
    not for long (promise 2).
    """
    wanted = {name for name in names if name.endswith(EXTENSIONS)}
    deadline = time.monotonic() + 10
    while True:
        with urllib.request.urlopen(url + "packages/") as answer:
            page = html.unescape(answer.read().decode("utf-8"))
        missing = {name for name in wanted if ">%s<" % name not in page}
        if not missing:
            return
        if time.monotonic() > deadline:
            raise AssertionError("not listed after 10 s: %s\n%s" % (
                sorted(missing), page))
        time.sleep(0.05)


def run_isolated(home, *command, cwd=None, **environment):
    """Run a client with none of this machine's settings or its network.

    Whatever it asks of another host goes to a port that nobody listens at.
    A request that fails is not repeated, so that none goes unnoticed.
    """
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LANG")
            if name in os.environ}
    closed = "http://127.0.0.1:9"
    kept.update(
        HOME=home, USERPROFILE=home, LC_ALL="C.UTF-8",
        http_proxy=closed, https_proxy=closed, ALL_PROXY=closed,
        no_proxy="127.0.0.1", NO_PROXY="127.0.0.1",
        PIP_CONFIG_FILE=os.devnull, PIP_DISABLE_PIP_VERSION_CHECK="1",
        PIP_NO_INPUT="1", PIP_RETRIES="0", UV_NO_CONFIG="1",
        UV_PYTHON_DOWNLOADS="never", UV_HTTP_RETRIES="0", **environment)
    return subprocess.run(
        command, env=kept, cwd=cwd or home, timeout=300, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, universal_newlines=True)


class ClientTestCase(unittest.TestCase):
    """A server over generated projects, and a home for its client."""

    maxDiff = None
    options = ("-v", "--disable-fallback")

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.temporary = folder.name
        self.root = self.folder("packages")
        self.home = self.folder("home")

    fill = staticmethod(fill)

    def client(self, environment, name="python"):
        """Return the path of a client and start the server; or skip."""
        path = toolbox.require(environment, name)
        self.fill(self.root)
        self.server = ServerProcess(
            *self.options, "--cache-dir", self.folder("digests"), self.root)
        self.server.__enter__()
        self.addCleanup(self.server.stop)
        self.index = self.server.url + "simple/"
        wait_until_listed(self.server.url, names_in(self.root))
        return path

    def folder(self, name):
        path = os.path.join(self.temporary, name)
        os.makedirs(path, exist_ok=True)
        return path

    def write(self, folder, name, text):
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)

    def run_client(self, *command, cwd=None, **environment):
        """Run a client that must succeed; return what it prints."""
        process = run_isolated(
            self.home, *command, cwd=cwd, **environment)
        if process.returncode:
            self.server.stop()
            self.fail("%s\n--- the server:\n%s" % (
                process.stdout, self.server.output))
        return process.stdout

    def requests(self):
        """Stop the server and return [(method, path, status)] of its log."""
        self.server.stop()
        return [(method, path, int(status)) for method, path, status
                in re.findall(r"([A-Z]+) (/\S*) (\d{3})$",
                              self.server.output, re.MULTILINE)]

    def check_locked(self, text):
        """Every digest in a lock file must be that of a file we serve."""
        served = {}
        for name in names_in(self.root):
            with open(os.path.join(self.root, name), "rb") as file:
                served[hashlib.sha256(file.read()).hexdigest()] = name
        named = {served.get(digest) for digest
                 in re.findall(
                     r'(?<!content_)hash ?= ?"?sha256:([0-9a-f]{64})',
                     text)}
        self.assertNotIn(None, named, text)
        self.assertLessEqual(
            {"app-1.0-py3-none-any.whl", "Lib.Two-1.5.tar.gz",
             "lib_one-1.1-2-py3-none-any.whl",
             "lib_three-1.0-py3-none-any.whl"}, named)
        return named


class PipTest(ClientTestCase):
    """Four generations of pip, and pip-tools."""

    @staticmethod
    def fill(root):
        fill(root, foreign=True)

    def check_pip(self, environment, expected, choice="build 2"):
        pip = self.client(environment, "pip")
        for cache in ("cold", "warm"):
            target = os.path.join(self.temporary, cache)
            with self.subTest(cache=cache):
                # Only for a trusted host does pip cache plain HTTP.
                self.run_client(
                    pip, "install", "--target", target, "--index-url",
                    self.index, "--trusted-host", "127.0.0.1", "app")
                self.assertEqual(installed(target), expected)
                if choice:
                    with open(os.path.join(target, "choice.txt")) as file:
                        self.assertEqual(file.read(), choice)

    def test_pip_26_3_installs(self):
        self.check_pip("tools", CHOSEN)
        asked = self.requests()
        statuses = [status for _, path, status in asked
                    if path == "/simple/app/"]
        self.assertEqual(statuses, [200, 304], asked)

    def test_pip_22_0_installs(self):
        self.check_pip("pip_22", CHOSEN)

    def test_pip_20_3_installs(self):
        self.check_pip("pip_20", CHOSEN)

    def test_pip_9_installs(self):
        """pip 9 knows requires-python, but not yanking nor build tags."""
        self.check_pip(
            "pip_9", dict(CHOSEN, **{"lib-one": "1.2"}), choice=None)

    def test_find_links(self):
        """All pips find archives on the page for people as well."""
        pip = self.client("tools", "pip")
        pips = [pip] + list(filter(None, (
            toolbox.command(name, "pip") for name in (
                "pip_22", "pip_20", "pip_9"))))
        for number, pip in enumerate(pips):
            target = self.folder("found%d" % number)
            self.run_client(
                pip, "install", "--target", target, "--no-index",
                "--find-links", self.server.url + "packages/", "lib_three")
            self.assertEqual(installed(target), {"lib-three": "1.0"})
        # Those that know it leave out what is yanked, there too.
        target = self.folder("chosen")
        self.run_client(
            pips[0], "install", "--target", target, "--no-index", "--no-deps",
            "--find-links", self.server.url + "packages/", "lib_one")
        self.assertEqual(installed(target),
                         {"lib-one": dict(CHOSEN)["lib-one"]})
        asked = {path for _, path, _ in self.requests()}
        self.assertEqual({"/packages/"}, {
            path for path in asked if not path.endswith(EXTENSIONS)})

    def test_pip_26_3_takes_the_pinned_yanked_version(self):
        pip = self.client("tools", "pip")
        target = self.folder("target")
        output = self.run_client(
            pip, "install", "--target", target, "--index-url", self.index,
            "lib-one==1.2")
        self.assertEqual(installed(target), {"lib-one": "1.2"})
        self.assertIn("broken <on> \"Tuesdays\"", output)

    def test_pip_26_3_downloads_the_sdist_if_told_to(self):
        pip = self.client("tools", "pip")
        target = self.folder("target")
        self.run_client(
            pip, "download", "-d", target, "--no-deps", "--no-binary",
            ":all:", "--index-url", self.index, "lib-two")
        self.assertEqual(os.listdir(target), ["Lib.Two-1.5.tar.gz"])

    def test_pip_tools_compile_with_hashes(self):
        """pip-tools takes the digests from the legacy JSON at the root."""
        compile_ = self.client("pip_tools", "pip-compile")
        pip = toolbox.command("pip_tools", "pip")
        project = self.folder("project")
        self.write(project, "requirements.in", "app\n")
        texts = []
        for cache in ("cold", "warm"):
            self.run_client(
                compile_, "--generate-hashes", "--no-config", "--no-header",
                "--index-url", self.index, "--output-file", cache + ".txt",
                "requirements.in", cwd=project)
            with open(os.path.join(project, cache + ".txt")) as file:
                texts.append(file.read())
            target = os.path.join(self.temporary, cache)
            self.run_client(
                pip, "install", "--target", target, "--require-hashes",
                "--index-url", self.index, "-r", cache + ".txt", cwd=project)
            self.assertEqual(installed(target), CHOSEN)
        self.assertEqual(texts[0], texts[1])
        self.check_locked(texts[0])
        self.assertIn(("GET", "/app/json", 200), self.requests())


class UvTest(ClientTestCase):

    def setUp(self):
        super().setUp()
        self.uv = self.client("tools", "uv")

    def run_uv(self, *arguments, **options):
        return self.run_client(
            self.uv, *arguments, UV_DEFAULT_INDEX=self.index,
            UV_PYTHON=toolbox.command("tools"), **options)

    def test_uv_pip_installs(self):
        for cache in ("cold", "warm"):
            target = os.path.join(self.temporary, cache)
            self.run_uv("pip", "install", "--target", target, "app")
            self.assertEqual(installed(target), CHOSEN)
            with open(os.path.join(target, "choice.txt")) as file:
                self.assertEqual(file.read(), "build 2")
        asked = self.requests()
        statuses = [status for _, path, status in asked
                    if path == "/simple/app/"]
        self.assertEqual(statuses, [200, 304], asked)

    def test_uv_locks_and_syncs_a_project(self):
        texts = []
        for cache in ("cold", "warm"):
            project = self.folder(cache)
            self.write(project, "pyproject.toml", (
                "[project]\nname = \"user\"\nversion = \"1\"\n"
                "requires-python = \">=3.11\"\n"
                "dependencies = [\"app\"]\n"))
            self.run_uv("lock", cwd=project)
            self.run_uv("sync", "--locked", cwd=project)
            self.assertEqual(
                installed(site_packages(os.path.join(project, ".venv"))),
                CHOSEN)
            with open(os.path.join(project, "uv.lock")) as file:
                texts.append(file.read())
        self.assertEqual(texts[0], texts[1])
        for name in self.check_locked(texts[0]):
            size = os.path.getsize(os.path.join(self.root, name))
            self.assertRegex(texts[0], "%s.*size = %d, upload-time" % (
                re.escape(name), size))

    def test_uv_syncs_a_frozen_lock_from_its_urls_alone(self):
        project = self.folder("project")
        self.write(project, "pyproject.toml", (
            "[project]\nname = \"user\"\nversion = \"1\"\n"
            "requires-python = \">=3.11\"\ndependencies = [\"app\"]\n"))
        self.run_uv("lock", cwd=project)
        self.run_uv("sync", "--frozen", "--no-cache", cwd=project)
        self.assertEqual(
            installed(site_packages(os.path.join(project, ".venv"))), CHOSEN)
        pages = [path for _, path, _ in self.requests()
                 if path.startswith("/simple/")]
        self.assertEqual(sorted(pages), [
            "/simple/%s/" % name for name in sorted(CHOSEN)])


class ProjectManagerTest(ClientTestCase):
    """Clients that keep a lock file and an environment beside a project."""

    def test_poetry_installs_a_project(self):
        poetry = self.client("poetry", "poetry")
        texts = []
        for cache in ("cold", "warm"):
            project = self.folder(cache)
            self.write(project, "pyproject.toml", (
                "[project]\nname = \"user\"\nversion = \"1\"\n"
                "requires-python = \">=3.11,<4\"\n"
                "dependencies = [\"app\"]\n"
                "[tool.poetry]\npackage-mode = false\n"
                "[[tool.poetry.source]]\nname = \"local\"\n"
                "url = \"%s\"\npriority = \"primary\"\n") % self.index)
            for command in ("lock", "install"):
                self.run_client(
                    poetry, command, "--no-interaction", cwd=project,
                    POETRY_VIRTUALENVS_IN_PROJECT="true",
                    POETRY_CACHE_DIR=os.path.join(self.home, "poetry"),
                    POETRY_CONFIG_DIR=self.home, POETRY_DATA_DIR=self.home)
            self.assertEqual(
                installed(site_packages(os.path.join(project, ".venv"))),
                CHOSEN)
            with open(os.path.join(project, "poetry.lock")) as file:
                texts.append(file.read())
        self.assertEqual(texts[0], texts[1])
        self.check_locked(texts[0])

    def test_pdm_installs_a_project(self):
        pdm = self.client("pdm", "pdm")
        texts = []
        for cache in ("cold", "warm"):
            project = self.folder(cache)
            self.write(project, "pyproject.toml", (
                "[project]\nname = \"user\"\nversion = \"1\"\n"
                "requires-python = \">=3.11,<4\"\n"
                "dependencies = [\"app\"]\n"
                "[tool.pdm]\ndistribution = false\n"
                "[[tool.pdm.source]]\nname = \"pypi\"\n"
                "url = \"%s\"\nverify_ssl = false\n") % self.index)
            for command in (["venv", "create", toolbox.command("pdm")],
                            ["lock"], ["sync"]):
                self.run_client(
                    pdm, *command, cwd=project, PDM_CHECK_UPDATE="false",
                    PDM_CACHE_DIR=os.path.join(self.home, "pdm"))
            self.assertEqual(
                installed(site_packages(os.path.join(project, ".venv"))),
                CHOSEN)
            with open(os.path.join(project, "pdm.lock")) as file:
                texts.append(file.read())
        self.assertEqual(texts[0], texts[1])
        self.check_locked(texts[0])


class EasyInstallTest(ClientTestCase):
    """easy_install knows neither requires-python nor yanking."""

    @staticmethod
    def fill(root):
        setup = (b"from setuptools import setup\n"
                 b"setup(name='Old.App', version='1.0',\n"
                 b"      install_requires=['egg_project', 'lib-one'])\n")
        archives.put(root, "Old.App-0.9.tar.gz",
                     archives.sdist("Old.App", "0.9"))
        archives.put(root, "Old.App-1.0.zip", archives.sdist(
            "Old.App", "1.0", ".zip", files={"setup.py": setup}))
        for version in ("0.9", "1.0"):
            archives.put(root, "egg_project-%s.egg" % version,
                         archives.egg("egg_project", version))
            archives.put(
                root, archives.wheel_filename("lib-one", version),
                archives.wheel("lib-one", version))

    def test_easy_install_installs(self):
        python = self.client("easy_install")
        for turn in ("first", "second"):
            target = self.folder(turn)
            # It keeps no cache; the second time the server's is warm.
            self.run_client(
                python, "-m", "easy_install", "--index-url", self.index,
                "--install-dir", target, "Old.App", PYTHONPATH=target)
            self.assertEqual(installed(target), {
                "old-app": "1.0", "egg-project": "1.0", "lib-one": "1.0"})
        target = self.folder("third")
        self.run_client(
            python, "-m", "easy_install", "--index-url", self.server.url
            + "none/", "--find-links", self.server.url + "packages/",
            "--install-dir", target, "lib-one==1.0", PYTHONPATH=target)
        self.assertEqual(installed(target), {"lib-one": "1.0"})
