"""Released clients upload: a new file, the same again, and what is refused.

Each client goes through the same steps, on an index with accounts and on
one without.  The environments come from tests/toolbox.py; a client that is
not installed skips its tests.
"""

import glob
import os
import re
import shutil
import subprocess
import tempfile
import unittest

from tests import archives, forms, toolbox
from tests.helpers import (
    DirectoryTestCase, ServerProcess, names_in, texts, wait_for,
)
from tests.test_clients import run_isolated

WHEEL = "demo_pkg-1.0-py3-none-any.whl"
SDIST = "demo_pkg-1.0.tar.gz"
SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="  # of "secret"
JOE = forms.credentials("joe", "secret")
EXISTS = "File already exists"
UNSAFE = "unsafe path"
DENIED = "a valid user name and password are needed"
PYPROJECT = """
[build-system]
requires = ["flit_core >=3.2,<4"]
build-backend = "flit_core.buildapi"
[project]
name = "demo_pkg"
version = "1.0"
description = "For tests"
requires-python = ">=3.6"
"""
MODULE = '"""For tests."""\n'
# `old FILE` makes `upload` send a file that was built before.
SETUP = """
import os
from %s import setup
from distutils.cmd import Command

class Old(Command):
    user_options = []
    def initialize_options(self):
        pass
    def finalize_options(self):
        pass
    def run(self):
        for name in sorted(os.listdir("dist")):
            kind = "sdist" if name.endswith(".gz") else "bdist_wheel"
            self.distribution.dist_files.append(
                (kind, "", os.path.join("dist", name)))

setup(name="demo_pkg", version="1.0", py_modules=["demo_pkg"],
      description="For tests", author="Me", author_email="me@example.org",
      url="http://example.org", cmdclass={"old": Old},
      classifiers=["Programming Language :: Python"])
"""


def write(folder, name, data):
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode("utf-8"))


class Client:
    """The steps; a class for each client says how they are taken."""

    # toolbox environment and command
    environment = ""
    name = "python"
    path = ""        # of the upload URL, below the server's
    files = (WHEEL, SDIST)
    # What must be shown, by what is refused: a word of the server's answer.
    shown = {"exists": EXISTS, "unsafe": UNSAFE, "denied": DENIED}

    def publish(self, folder, url, user, password):
        """Upload what is in folder/dist; return the finished process."""
        raise NotImplementedError

    def test_without_accounts(self):
        self.take_steps("-a", ".", "-P", ".")

    def test_with_accounts(self):
        users = os.path.join(self.folder, "users")
        write(self.folder, "users", "joe:%s\n" % SHA)
        server = self.take_steps("-P", users, "-a", "list,update")
        self.assertEqual(server.get("simple/").status, 401)

    def setUp(self):
        super().setUp()
        self.home = os.path.join(self.folder, "home")
        os.mkdir(self.home)
        self.command = self.find()

    def find(self):
        return toolbox.require(self.environment, self.name)

    def project(self, **files):
        """Return a new folder with a project, and archives in dist."""
        folder = tempfile.mkdtemp(dir=self.folder)
        os.mkdir(os.path.join(folder, "dist"))
        write(folder, "pyproject.toml", PYPROJECT)
        write(folder, "demo_pkg.py", MODULE + files.pop("text", ""))
        for name in self.files:
            data = forms.once(
                archives.wheel if name == WHEEL else archives.sdist,
                "demo_pkg", "1.0", files=files.get("files"))
            write(os.path.join(folder, "dist"), name, data)
        return folder

    def take_steps(self, *arguments):
        server = ServerProcess("-v", "--disable-fallback", self.root,
                               *arguments)
        server.__enter__()
        self.addCleanup(server.stop)
        url = server.url + self.path
        first = self.project()
        self.succeed(first, url)
        page = server.get("simple/demo-pkg/", JOE)
        self.assertEqual(sorted(texts(page.body)), sorted(self.files))
        before = self.content()
        self.check_content(first, before)
        # A CI job that runs again succeeds.
        self.succeed(first, url)
        self.fail_with("exists", self.project(
            text="other = 1\n", files={"other": b""}), url)
        self.assertEqual(self.content(), before)
        if "-P" in arguments and "." not in arguments:
            self.fail_with("denied", first, url, password="wrong")
            self.assertEqual(self.content(), before)
        if self.shown.get("unsafe"):
            for name in os.listdir(self.root):
                os.unlink(os.path.join(self.root, name))
            wait_for(lambda: server.get("simple/demo-pkg/", JOE).status
                     == 404, "the files are gone")
            self.fail_with(
                "unsafe", self.project(files={"../../../evil": b""}), url)
            self.assertEqual(self.content(), {})
        self.assertNotIn("Traceback", server.logged())
        return server

    def check_content(self, folder, found):
        for name in self.files:
            with open(os.path.join(folder, "dist", name), "rb") as file:
                self.assertEqual(found[name], file.read())

    def content(self):
        found = {}
        for name in names_in(self.root):
            with open(os.path.join(self.root, name), "rb") as file:
                found[name] = file.read()
        return found

    def succeed(self, folder, url):
        process = self.publish(folder, url, "joe", "secret")
        self.assertEqual(process.returncode, 0, process.stdout)
        return process.stdout

    def fail_with(self, what, folder, url, password="secret"):
        """Be refused, and check that the user sees the server's sentence."""
        process = self.publish(folder, url, "joe", password)
        self.assertNotEqual(process.returncode, 0, process.stdout)
        # Terminals break lines anywhere, and draw boxes around them.
        shown = re.sub(r"[\s\u2500-\u257f]+", " ", process.stdout)
        self.assertIn(self.shown[what], shown)
        return process.stdout

    def run_in(self, folder, *arguments, **environment):
        return run_isolated(
            self.home, self.command, *arguments, cwd=folder, COLUMNS="300",
            SOURCE_DATE_EPOCH="1600000000", **environment)

    def dist(self, folder):
        return [os.path.join(folder, "dist", name) for name in self.files]


class Twine7(Client, DirectoryTestCase):
    """What twine shows is the reason phrase."""

    environment, name, path = "tools", "twine", "legacy/"

    def publish(self, folder, url, user, password):
        return self.run_in(
            folder, "upload", "--non-interactive", "--disable-progress-bar",
            "--repository-url", url, "-u", user, "-p", password,
            *self.extra(folder))

    def extra(self, folder):
        return self.dist(folder)

    def test_register(self):
        with ServerProcess("-a", ".", "-P", ".", self.root) as server:
            folder = self.project()
            process = self.run_in(
                folder, "register", "--repository-url", server.url, "-u",
                "joe", "-p", "secret", self.dist(folder)[0])
            self.assertEqual(process.returncode, 0, process.stdout)

    def test_a_signature(self):
        with ServerProcess("-a", ".", "-P", ".", self.root) as server:
            folder = self.project()
            write(os.path.join(folder, "dist"), WHEEL + ".asc", b"signed")
            for _ in range(2):
                process = self.run_in(
                    folder, "upload", "--non-interactive",
                    "--disable-progress-bar", "--repository-url", server.url,
                    "-u", "joe", "-p", "secret", *self.dist(folder)
                    + [self.dist(folder)[0] + ".asc"])
                self.assertEqual(process.returncode, 0, process.stdout)
        self.assertEqual(self.content()[WHEEL + ".asc"], b"signed")


class Twine4(Twine7):

    environment, path = "twine_4", ""

    def test_skip_existing(self):
        with ServerProcess("-a", ".", "-P", ".", self.root) as server:
            self.succeed(self.project(), server.url)
            self.extra = lambda folder: ["--skip-existing"] + self.dist(
                folder)
            self.assertIn("Skipping", self.succeed(
                self.project(files={"other": b""}), server.url))


class Uv(Client, DirectoryTestCase):
    """What uv shows is the "code" of the JSON."""

    environment, name, path = "tools", "uv", "legacy/"
    arguments = ()

    def publish(self, folder, url, user, password):
        return self.run_in(
            folder, "publish", "--publish-url", url, "-u", user, "-p",
            password, "--trusted-publishing", "never",
            *self.more(url, user, password) + self.dist(folder))

    def more(self, url, user, password):
        return []


class UvWithCheckUrl(Uv):
    """It asks the index first, and after a failure once more."""

    shown = {"exists": "Local file and index file do not match",
             "unsafe": UNSAFE, "denied": DENIED}

    def more(self, url, user, password):
        check = url.replace("/legacy/", "/simple/").replace(
            "://", "://%s:%s@" % (user, password))
        return ["--check-url", check]


class Poetry(Client, DirectoryTestCase):

    environment, name, path = "poetry", "poetry", "legacy/"

    def publish(self, folder, url, user, password, *arguments):
        return self.run_in(
            folder, "publish", "--no-interaction", "-r", "local", *arguments,
            POETRY_REPOSITORIES_LOCAL_URL=url,
            POETRY_HTTP_BASIC_LOCAL_USERNAME=user,
            POETRY_HTTP_BASIC_LOCAL_PASSWORD=password,
            POETRY_CACHE_DIR=os.path.join(self.home, "poetry"),
            POETRY_CONFIG_DIR=self.home, POETRY_DATA_DIR=self.home,
            POETRY_VIRTUALENVS_CREATE="false")

    def test_skip_existing(self):
        with ServerProcess("-a", ".", "-P", ".", self.root) as server:
            self.succeed(self.project(), server.url)
            process = self.publish(
                self.project(files={"other": b""}), server.url, "joe", "x",
                "--skip-existing")
            self.assertEqual(process.returncode, 0, process.stdout)


class Pdm(Client, DirectoryTestCase):

    environment, name, path = "pdm", "pdm", "legacy/"

    def publish(self, folder, url, user, password, *arguments):
        return self.run_in(
            folder, "publish", "--no-build", "-r", url, "-u", user, "-P",
            password, *arguments, PDM_CHECK_UPDATE="false",
            PDM_USE_VENV="false", PDM_CACHE_DIR=os.path.join(
                self.home, "pdm"))

    def test_skip_existing(self):
        with ServerProcess("-a", ".", "-P", ".", self.root) as server:
            self.succeed(self.project(), server.url)
            process = self.publish(
                self.project(files={"other": b""}), server.url, "joe", "x",
                "--skip-existing")
            self.assertEqual(process.returncode, 0, process.stdout)


class Hatch(Client, DirectoryTestCase):

    environment, name = "hatch_flit", "hatch"

    def publish(self, folder, url, user, password):
        return self.run_in(
            folder, "publish", "-r", url, "-u", user, "-a", password, "-n",
            *self.dist(folder))


class Flit(Client, DirectoryTestCase):
    """It builds what it uploads.  Its classifiers it would look up."""

    environment, name, path = "hatch_flit", "flit", "legacy/"
    # Other statuses than 400 end it with a traceback, which has the reason.
    shown = {"exists": EXISTS, "denied": DENIED}

    def publish(self, folder, url, user, password):
        return self.run_in(
            folder, "publish", FLIT_INDEX_URL=url, FLIT_USERNAME=user,
            FLIT_PASSWORD=password)


class Distutils(Client, DirectoryTestCase):
    """`setup.py upload` and `register`, as Python had them up to 3.11."""

    environment, module = "pip_9", "distutils.core"

    def project(self, **files):
        folder = super().project(**files)
        write(folder, "setup.py", SETUP % self.module)
        return folder

    def publish(self, folder, url, user, password):
        return self.setup(folder, url, user, password, "old", "upload")

    def setup(self, folder, url, user, password, *commands):
        write(self.home, ".pypirc", (
            "[distutils]\nindex-servers = local\n[local]\nrepository: %s\n"
            "username: %s\npassword: %s\n" % (url, user, password)))
        return self.run_in(folder, "setup.py", *commands + ("-r", "local"))

    def test_building_and_registering_at_once(self):
        write(self.folder, "users", "joe:%s\n" % SHA)
        with ServerProcess("-P", os.path.join(self.folder, "users"),
                           self.root) as server:
            for command in ("sdist", "bdist_dumb"):
                process = self.setup(
                    self.project(), server.url, "joe", "secret", command,
                    "upload")
                self.assertEqual(process.returncode, 0, process.stdout)
                self.assertIn("Server response (200): OK", process.stdout)
            self.assertEqual(len(self.content()), 2)
            for password, answer in (("secret", "(200): OK"),
                                     ("wrong", "(401): " + DENIED)):
                process = self.setup(
                    self.project(), server.url, "joe", password, "register")
                self.assertIn("Server response " + answer, process.stdout)


class Setuptools(Distutils):

    environment, module = "setuptools_40", "setuptools"


class Python27(Distutils):
    """It sends but an MD5 digest, and `protcol_version`."""

    def find(self):
        for path in [shutil.which("python2.7")] + glob.glob(
                os.path.expanduser("~/.pyenv/versions/2.7*/bin/python")):
            # A shim of pyenv may lead nowhere.
            if path and not subprocess.run(
                    [path, "-c", ""], stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL).returncode:
                return path
        return self.skipTest("no Python 2.7 on this machine")


class Curl(Client, DirectoryTestCase):

    files = SDIST,
    options = ()

    def find(self):
        return shutil.which("curl") or self.skipTest("no program curl")

    def publish(self, folder, url, user, password):
        return self.run_in(
            folder, "--silent", "--show-error", "--fail-with-body", "--user",
            "%s:%s" % (user, password), *self.options + (
                "-F", ":action=file_upload", "-F",
                "content=@dist/" + SDIST, url))


class CurlThatExpects(Curl):

    options = "-H", "Expect: 100-continue"


class CurlInChunks(Curl):

    options = "-H", "Transfer-Encoding: chunked"


class CurlOverHttp10(Curl):

    options = "--http1.0",


if __name__ == "__main__":
    unittest.main()
