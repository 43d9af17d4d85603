"""`export`: an index as plain files, as its users run and look at it."""

import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from http.server import SimpleHTTPRequestHandler
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pypi_server
from tests import archives
from tests.helpers import (
    PROGRAM, DirectoryTestCase, ServerProcess, anchors, ask, entries, names_in,
    texts, wait_for,
)
from tests.test_directories import unprivileged
from tests.test_people import Parsed, core, with_metadata

STATE = ".pypi-server"
SIMPLE_JSON = pypi_server.SIMPLE_JSON
FILES = {
    "foo-1.0-py3-none-any.whl": archives.wheel(
        "foo", "1.0", requires_python=">=3.6", body="word " * 1000),
    "foo-1.0+local.1-py3-none-any.whl": archives.wheel("foo", "1.0+local.1"),
    "deep/er/foo-1.1.tar.gz": archives.sdist("foo", "1.1"),
    "a b/foo-1.2.tar.gz": archives.sdist("foo", "1.2"),
    "50%25/foo-1.3.tar.gz": archives.sdist("foo", "1.3"),
    "x#y?z/foo-1.4.tar.gz": archives.sdist("foo", "1.4"),
    "Bar_Baz-0.1-py3-none-any.whl": archives.wheel("Bar_Baz", "0.1"),
    "old-2004r1-final.zip": archives.sdist("old", "2004r1", ".zip")}
COMPANIONS = {
    "foo-1.0-py3-none-any.whl.asc": b"-----BEGIN PGP SIGNATURE-----\n",
    "foo-1.0-py3-none-any.whl.provenance": b'{"version": 1}',
    "deep/er/foo-1.1.tar.gz.yanked": b"broken <on> Tuesdays\n",
    "bar-baz.status": b"deprecated use foo\n"}
RELEASES = ("foo/1.0", "foo/1.0+local.1", "foo/1.1", "foo/1.2", "foo/1.3",
            "foo/1.4", "bar-baz/0.1", "old/2004r1-final")
PEOPLE = {path + "index.html" for path in (
    "", "search/", "withheld/", "project/foo/", "project/bar-baz/",
    "project/old/", *("project/%s/" % release for release in RELEASES))}


def put_all(root):
    for path, data in list(FILES.items()) + list(COMPANIONS.items()):
        archives.put(root, path, data)


def links(page):
    """Return all that a page leads to or loads, and where its forms go."""
    return [value for _, attributes in Parsed(page.decode()).found
            for key, value in attributes.items()
            if key in ("href", "src", "action")]


def tree(folder, state=False):
    """Return {path: bytes} of all files, those of the state only if asked."""
    found = {}
    for place, folders, names in os.walk(folder):
        if not state and STATE in folders:
            folders.remove(STATE)
        for name in names:
            path = os.path.join(place, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = file.read()
    return found


class ExportTestCase(DirectoryTestCase):
    def setUp(self):
        super().setUp()
        self.site = os.path.join(self.folder, "site")
        self.environment = dict(
            os.environ, XDG_CACHE_HOME=os.path.join(self.folder, "cache"))

    def command(self, *arguments, site=None):
        return [sys.executable, "-W", "error", *PROGRAM, "export",
                *arguments, self.root, site or self.site]

    def run_export(self, *arguments, status=0, site=None):
        """Export once; return what was printed."""
        process = subprocess.run(
            self.command(*arguments, site=site), env=self.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=120, universal_newlines=True)
        self.assertEqual(status, process.returncode, process.stdout)
        self.assertNotIn("Traceback", process.stdout)
        return process.stdout

    def start(self, *arguments):
        process = subprocess.Popen(
            self.command(*arguments), env=self.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def put(self, name, version, **rest):
        filename = archives.wheel_filename(name, version)
        archives.put(self.root, filename,
                     archives.wheel(name, version, **rest))
        return filename

    def read(self, *path):
        with open(os.path.join(self.site, *path), "rb") as file:
            return file.read()


class Host:
    """A static host that knows nothing of us: `python -m http.server`."""

    def __init__(self, folder):
        class Handler(SimpleHTTPRequestHandler):
            def translate_path(self, path):
                path = unquote(urlsplit(path).path)
                slash = "/" if path.endswith("/") else ""
                return os.path.join(folder, *filter(
                    None, path.split("/"))) + slash

            def log_message(self, *arguments):
                pass
        self.server = pypi_server.ThreadingHTTPServer(
            ("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d/" % self.server.server_address[1]

    def __enter__(self):
        self.thread = threading.Thread(
            target=functools.partial(self.server.serve_forever, 0.01))
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def get(self, url):
        parts = urlsplit(url)
        return ask(parts.hostname, parts.port, "GET", parts.path)


class TestPages(ExportTestCase):
    def setUp(self):
        super().setUp()
        put_all(self.root)

    def test_pages_are_those_of_the_server(self):
        """To the byte; and no page of the server is missing."""
        options = "--server-base-url", "https://pypi.example"
        with ServerProcess(*options, self.root) as server:
            self.run_export(*options)
            wait_for(lambda: len(texts(server.get("packages/").body)) == len(
                FILES), "all are listed")
            paths = [("favicon.ico", "", None),
                     ("packages/", "", "packages/index.html"),
                     ("-/style.css", "", None), ("-/script.js", "", None),
                     ("-/icon.svg", "", None),
                     ("withheld/", "application/json",
                      "withheld/index.json")]
            for path in ("simple/", "simple/foo/", "simple/bar-baz/",
                         "simple/old/"):
                paths += [(path, "text/html", path + "index.html"),
                          (path, SIMPLE_JSON, path + "index.json")]
            paths += [("pypi/%s/json" % name, "", None) for name in (
                "foo", "bar-baz", "old", *RELEASES)]
            paths += [("packages/" + path, "", None)
                      for path in list(FILES) + [
                          name for name in COMPANIONS
                          if not name.endswith((".yanked", ".status"))]]
            paths += [("packages/" + path + ".metadata", "", None)
                      for path in FILES if path.endswith(".whl")]
            for path, accept, name in paths:
                with self.subTest(path, accept=accept):
                    answer = server.get(pypi_server.quote(path),
                                        {"Accept": accept} if accept else {})
                    self.assertEqual(200, answer.status)
                    self.assertEqual(answer.body, self.read(name or path))
                    packed = server.get(pypi_server.quote(path), {
                        "Accept-Encoding": "gzip",
                        **({"Accept": accept} if accept else {})})
                    packed_path = os.path.join(
                        self.site, name or path) + ".gz"
                    is_packed = "content-encoding" in packed.headers
                    self.assertEqual(is_packed, os.path.exists(packed_path))
                    if is_packed:
                        self.assertEqual(
                            packed.body, self.read((name or path) + ".gz"))
        expected = {name or path for path, _, name in paths}
        self.assertEqual(expected | PEOPLE, {
            name for name in tree(self.site)
            if not name.endswith(".gz") or name.endswith(".tar.gz")})

    def test_every_link_leads_to_its_file(self):
        """On a static host, below any prefix, also without an address."""
        self.run_export(site=os.path.join(self.site, "some", "prefix"))
        with Host(self.site) as host:
            start = host.url + "some/prefix/"
            home = host.get(start)
            self.assertEqual(200, home.status)
            self.assertIn("simple/", [
                attributes["href"] for attributes, _ in anchors(home.body)])
            index = start + "simple/"
            seen = set()
            for attributes, _ in anchors(host.get(index).body):
                page = urljoin(index, attributes["href"])
                for attributes, text in anchors(host.get(page).body):
                    self.check_file(host, page, attributes)
                    seen.add(text)
            self.assertEqual({path.rpartition("/")[2] for path in FILES},
                             seen)
            self.assertEqual(len(FILES), sum(
                host.get(urljoin(start + "packages/", attributes["href"])
                         ).body in FILES.values()
                for attributes, _ in anchors(
                    host.get(start + "packages/").body)))
            for path in "pypi/foo/json", "pypi/foo/1.3/json":
                found = json.loads(host.get(start + path).body.decode())
                for file in found["urls"]:
                    self.assertIn(host.get(urljoin(
                        start + path, file["url"])).body, FILES.values())

    def check_file(self, host, page, attributes):
        url, fragment = urldefrag(urljoin(page, attributes["href"]))
        answer = host.get(url)
        self.assertEqual(200, answer.status, url)
        self.assertEqual(fragment, "sha256=" + hashlib.sha256(
            answer.body).hexdigest())
        if "data-core-metadata" in attributes:
            found = host.get(url + ".metadata").body
            self.assertEqual(
                attributes["data-core-metadata"],
                "sha256=" + hashlib.sha256(found).hexdigest())
        if attributes.get("data-gpg-sig") == "true":
            self.assertEqual(200, host.get(url + ".asc").status)
        if "data-provenance" in attributes:
            self.assertEqual(200, host.get(urljoin(
                page, attributes["data-provenance"])).status)

    def test_archives_elsewhere(self):
        url = "https://files.example.org/a%20b/"
        self.run_export("--packages-url", url.rstrip("/"))
        self.assertEqual(set(), {
            name for name in tree(self.site) if name.endswith(
                pypi_server.SDIST_EXTENSIONS + (".whl", ".asc"))})
        expected = {url + pypi_server.quote(path) for path in FILES}
        found = set()
        for name in "foo", "bar-baz", "old":
            found |= {urldefrag(attributes["href"])[0]
                      for attributes, _ in anchors(self.read(
                          "simple", name, "index.html"))}
            page = json.loads(self.read(
                "simple", name, "index.json").decode())
            self.assertLessEqual(
                {file["url"] for file in page["files"]}, expected)
        self.assertEqual(expected, found)
        self.assertEqual(expected, {
            urldefrag(attributes["href"])[0] for attributes, _ in entries(
                self.read("packages", "index.html"))})
        self.assertEqual(
            expected | {url + "foo-1.0-py3-none-any.whl" + suffix
                        for suffix in (".metadata", ".asc", ".provenance")},
            {link for release in RELEASES for link in links(self.read(
                "project", release, "index.html"))
             if link.startswith("http")}
            - {url + pypi_server.quote(path) + ".metadata" for path in FILES
               if not path.startswith("foo-1.0-")})
        # It belongs beside the archives, but they are not ours.
        self.assertTrue(self.read(
            "packages", "foo-1.0-py3-none-any.whl.metadata"))

    def test_archives_are_links_or_copies(self):
        name = "foo-1.0-py3-none-any.whl"
        source = os.path.join(self.root, name)
        target = os.path.join(self.site, "packages", name)
        for options, is_link in ((), True), (("--copy",), False), ((), True):
            with self.subTest(options):
                self.run_export(*options)
                self.assertEqual(is_link, os.path.samefile(source, target))
                self.assertEqual(os.stat(source).st_mtime_ns,
                                 os.stat(target).st_mtime_ns)

    def test_names_of_one_file(self):
        """Each link changes the file, for all of its names."""
        first = self.put("one-file", "1.0")
        path = os.path.join(self.root, first)
        os.link(path, path.replace("-1.0-", "-1.0-1-"))
        os.symlink(first, path.replace("-1.0-", "-1.0-2-"))
        for _ in range(2):
            self.run_export()
            self.assertEqual(3, len(entries(self.read(
                "simple", "one-file", "index.html"))))

    def test_links_make_nobody_read_archives_again(self):
        """A link changes the time of the inode, by which files are known."""
        cache = os.path.join(self.folder, "cache", "pypi-server")
        with ServerProcess("--cache-dir", cache, self.root) as server:
            wait_for(lambda: len(texts(server.get("packages/").body)) == len(
                FILES), "all are listed")
        self.run_export()
        app = self.make_app(cache_dir=cache)
        reads = []
        app.directories.reader.read = lambda *all: reads.append(all)
        found = app.directories.project("foo", ("md5",))
        self.assertEqual((6, []), (len(found.files), reads))

    def test_only_whole_files(self):
        archives.put(self.root, "foo-9.0.tar.gz",
                     archives.sdist("foo", "9.0")[:-20])
        archives.put(self.root, "broken-1.0.zip", b"PK")
        archives.put(self.root, "secret.status", b"quarantined\n")
        self.put("secret", "1.0")
        printed = self.run_export()
        self.assertIn("foo-9.0.tar.gz is not served", printed)
        for name in tree(self.site):
            self.assertNotRegex(name, "9.0|broken-1|secret-1")
        self.assertEqual([], anchors(self.read(
            "simple", "secret", "index.html")))

    def test_names_that_lead_elsewhere(self):
        """A version may be any text: it must not leave its directory."""
        archives.put(self.root, "foo-...tar.gz", archives.sdist("foo", "1"))
        archives.put(self.root, "foo-json.tar.gz", archives.sdist("foo", "1"))
        self.run_export()
        self.assertEqual(
            {"bar-baz", "foo", "old"},
            set(os.listdir(os.path.join(self.site, "pypi"))))
        self.assertTrue(json.loads(self.read("pypi", "foo", "json").decode()))
        self.assertTrue(self.read("packages", "foo-...tar.gz"))


class TestPeople(ExportTestCase):
    """The pages for people, where nothing answers but a static host."""

    def test_every_link_of_every_page(self):
        """No dead link, no form, and every page can be found from home."""
        put_all(self.root)
        archives.put(self.root, "notes.txt", b"x")
        archives.put(self.root, "foo-9.0-py3-none-any.whl", b"broken")
        self.run_export(site=os.path.join(self.site, "some", "prefix"))
        seen = set()
        with Host(self.site) as host:
            start = host.url + "some/prefix/"
            waiting = [start]
            while waiting:
                url = waiting.pop()
                answer = host.get(url)
                self.assertEqual(200, answer.status, url)
                self.assertNotIn("?", url)
                self.assertTrue(url.startswith(start), url)
                seen.add(unquote(url[len(start):]))
                if not url.endswith("/") or "/simple/" in url:
                    continue  # see test_every_link_leads_to_its_file
                self.assertNotIn(b"<form", answer.body)
                self.assertNotIn(b"<input", answer.body)
                waiting += {urldefrag(urljoin(url, link))[0] for link
                            in links(answer.body)} - set(waiting) - {
                                start + pypi_server.quote(path)
                                for path in seen}
            for kind, name in (("text/css", "style.css"),
                               ("image/svg+xml", "icon.svg")):
                self.assertIn(kind, host.get(
                    start + "-/" + name).headers["content-type"])
        self.assertEqual(
            {name[:-len("index.html")] for name in PEOPLE}
            | {"simple/", "packages/", "withheld/index.json", "-/style.css",
               "-/script.js", "-/icon.svg"}
            | {"packages/" + path for path in FILES},
            {path for path in seen if not path.endswith(
                (".metadata", ".asc", ".provenance"))})

    def test_addresses(self):
        self.put("foo", "1.0")
        for options, base in (
                ((), "https://HOST/"),
                (("--server-base-url", "/x"), "https://HOST/x/"),
                (("--server-base-url", "http://pypi.example/x"),
                 "http://pypi.example/x/")):
            self.run_export(*options)
            for path in "", "project/foo/", "project/foo/1.0/", "search/":
                with self.subTest(path, options=options):
                    page = Parsed(self.read(path, "index.html").decode())
                    self.assertIn(base + "simple/", page.text)
                    self.assertNotIn("HOST" if "example" in base else
                                     "pypi.example", page.text)
            home = Parsed(self.read("index.html").decode())
            self.assertEqual("HOST" in base, "Write the address of this "
                             "site for https://HOST ." in home.text)
            self.assertNotIn("twine upload", home.text)

    def test_counts_of_what_was_written_before(self):
        """Home tells of all projects, also of those it did not look into."""
        put_all(self.root)
        archives.put(self.root, "foo-9.0-py3-none-any.whl", b"broken")
        self.run_export()
        self.put("new", "1.0")
        self.run_export()
        other = os.path.join(self.folder, "other")
        self.run_export(site=other)
        self.assertEqual(tree(other), tree(self.site))
        home = Parsed(self.read("index.html").decode()).text
        self.assertIn("projects 4 files 9 in all", home)
        self.assertIn("bar-baz 0.1 deprecated Bar_Baz for tests", Parsed(
            self.read("search", "index.html").decode()).text)
        self.assertIn("foo-9.0-py3-none-any.whl", [
            file["file"] for file in json.loads(self.read(
                "withheld", "index.json").decode())["files"]])

    def test_a_release_has_one_page_that_others_do_not_change(self):
        for number in range(60):
            self.put("foo", "1.%d" % number)
        self.run_export()
        page = self.read("project", "foo", "index.html")
        for number in range(60):
            self.assertIn("../../project/foo/1.%d/" % number, links(page))
        before = tree(os.path.join(self.site, "project", "foo"))
        self.put("foo", "2.0")
        self.run_export()
        after = tree(os.path.join(self.site, "project", "foo"))
        self.assertEqual({"index.html", "index.html.gz"}, {
            name for name in before if before[name] != after[name]})
        self.assertIn(b"foo==1.59<", after["1.59/index.html"])
        self.assertIn(b"/simple/ foo<", after["index.html"])
        archives.put(self.root, "foo.status", b"archived enough\n")
        self.run_export()
        self.assertIn(b"enough", self.read(
            "project", "foo", "1.59", "index.html"))

    def test_nothing_depends_on_other_projects(self):
        """Else a page would lead to one that is written later, or gone."""
        for name, other in ("a", "b"), ("b", "a"):
            archives.put(
                self.root, archives.wheel_filename(name, "1.0"),
                with_metadata(name, "1.0", core(
                    name, "1.0", "Requires-Dist: %s>=1" % other)))
        self.run_export()
        page = self.read("project", "a", "index.html")
        self.assertIn("b>=1", Parsed(page.decode()).text)
        self.assertNotIn(b"not here", page)
        self.assertEqual([], [link for link in links(page)
                              if "project/b" in link])

    def test_versions_that_are_no_names_of_directories(self):
        for version in "..", "index.html", "index.html.gz", "json", "1.0":
            archives.put(self.root, "foo-%s.tar.gz" % version,
                         archives.sdist("foo", "1"))
        self.run_export()
        self.assertEqual(
            {"index.html", "1.0/index.html"}, {
                name for name in tree(os.path.join(
                    self.site, "project", "foo"))
                if not name.endswith(".gz")})
        self.assertEqual(["../../project/foo/1.0/"], [
            link for link in links(self.read("project", "foo", "index.html"))
            if link.startswith("../../project/")])

    def test_quarantine(self):
        self.put("foo", "1.0")
        self.run_export()
        archives.put(self.root, "foo.status", b"quarantined malware\n")
        self.run_export("--delete")
        self.assertFalse(os.path.exists(os.path.join(
            self.site, "project", "foo", "1.0")))
        page = self.read("project", "foo", "index.html")
        self.assertIn(b"malware", page)
        self.assertNotIn(b"foo-1.0", page)


class TestChanges(ExportTestCase):
    def times(self):
        return {name: os.stat(os.path.join(self.site, name)).st_mtime_ns
                for name in tree(self.site)}

    def test_nothing_is_written_twice(self):
        put_all(self.root)
        self.run_export()
        before = self.times()
        self.run_export("--delete")
        self.assertEqual(before, self.times())

    def test_same_input_same_bytes(self):
        put_all(self.root)
        self.run_export()
        other = os.path.join(self.folder, "other")
        self.run_export("--copy", site=other)
        self.assertEqual(tree(self.site), tree(other))
        packed = self.read("simple", "foo", "index.html.gz")
        self.assertEqual(bytes(4), packed[4:8])  # no time stamp

    def test_only_what_changed_is_written(self):
        put_all(self.root)
        self.run_export()
        before = self.times()
        self.put("foo", "3.0")
        self.run_export()
        after = self.times()
        self.assertEqual(
            {"index.html", "packages/index.html", "search/index.html",
             "project/foo/index.html"}, {
                name for name in before if before[name] != after[name]
                and not name.startswith(("simple/foo/", "pypi/foo/json"))
                and not name.endswith(".gz")})
        self.assertIn("simple/foo/index.html", {
            name for name in before if before[name] != after[name]})

    def test_companions_change_pages(self):
        name = self.put("foo", "1.0")
        self.run_export()
        self.assertNotIn(b"yanked", self.read("simple", "foo", "index.html"))
        archives.put(self.root, name + ".yanked", b"bad")
        self.run_export()
        self.assertIn(b'data-yanked="bad"', self.read(
            "simple", "foo", "index.html"))
        self.assertTrue(json.loads(self.read(
            "pypi", "foo", "1.0", "json").decode())["info"]["yanked"])

    def test_replaced_archive(self):
        """With the same size and modification time, which rsync keeps."""
        name = self.put("foo", "1.0", body="one")
        for options in (), ("--copy",):
            self.run_export(*options)
            found = os.stat(os.path.join(self.root, name))
            data = archives.wheel(
                "foo", "1.0", body="two" if not options else "six")
            path = archives.put(self.folder, "new", data)
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
            os.rename(path, os.path.join(self.root, name))
            self.run_export(*options)
            self.assertEqual(data, self.read("packages", name))
            self.assertIn(hashlib.sha256(data).hexdigest().encode(),
                          self.read("simple", "foo", "index.html"))

    def test_what_is_gone(self):
        put_all(self.root)
        self.put("foo", "3.0")
        self.run_export()
        for name in names_in(self.root):
            if name.startswith(("Bar_Baz", "bar-baz", "foo-3.0")):
                os.unlink(os.path.join(self.root, name))
        self.run_export()
        kept = tree(self.site)
        self.assertNotIn(b"foo-3.0", kept["simple/foo/index.html"])
        self.assertNotIn(b"bar-baz", kept["simple/index.html"])
        self.assertIn("simple/bar-baz/index.html", kept)
        archives.put(self.site, "packages/left/by-somebody.whl", b"x")
        self.run_export("--delete")
        other = os.path.join(self.folder, "other")
        self.run_export("--delete", site=other)
        self.assertEqual(tree(other, True).keys(), tree(
            self.site, True).keys())
        self.assertEqual(tree(other), tree(self.site))

    def test_damage_is_mended(self):
        put_all(self.root)
        self.run_export()
        expected = tree(self.site)
        for name in ("simple/foo/index.json", "pypi/foo/1.1/json",
                     "packages/deep/er/foo-1.1.tar.gz", "index.html"):
            os.unlink(os.path.join(self.site, name))
        archives.put(self.site, "simple/bar-baz/index.html", b"")
        self.run_export()
        self.assertEqual(expected, tree(self.site))
        shutil.rmtree(os.path.join(self.site, STATE, "projects"))
        self.run_export()
        self.assertEqual(expected, tree(self.site))

    def test_small_pages_leave_no_packed_ones(self):
        """A host would go on sending the old one."""
        for number in range(20):
            self.put("foo", "1.%d" % number)
        self.run_export()
        packed = os.path.join(self.site, "simple", "foo", "index.html.gz")
        self.assertTrue(os.path.exists(packed))
        for number in range(1, 20):
            os.unlink(os.path.join(
                self.root, archives.wheel_filename("foo", "1.%d" % number)))
        self.run_export()
        self.assertFalse(os.path.exists(packed))

    def test_other_settings_make_other_pages(self):
        self.put("foo", "1.0")
        self.run_export()
        self.run_export("--hash-algo", "sha512")
        self.assertIn(b"#sha512=", self.read("simple", "foo", "index.html"))
        self.run_export("--server-base-url", "https://example.org/x")
        self.assertIn(b"https://example.org/x/packages/",
                      self.read("pypi", "foo", "json"))


class TestFaults(ExportTestCase):
    def test_usage(self):
        self.put("foo", "1.0")
        inside = os.path.join(self.root, "site")
        around = self.folder
        strange = os.path.join(self.folder, "strange")
        archives.put(strange, "mine.txt", b"x")
        archives.put(self.folder, "file", b"x")
        link = os.path.join(self.folder, "link")
        os.symlink(self.root, link)
        for site, text in (
                (inside, "must not lie in one another"),
                (around, "must not lie in one another"),
                (os.path.join(link, "x"), "must not lie in one another"),
                (strange, "name a directory that is empty"),
                (os.path.join(self.folder, "file"), "cannot be made")):
            with self.subTest(site):
                printed = self.run_export("--delete", site=site, status=2)
                self.assertEqual(1, printed.count("\n"), printed)
                self.assertIn(text, printed)
        self.assertEqual(["mine.txt"], os.listdir(strange))
        self.assertEqual(1, len(names_in(self.root)))

    def test_part_that_leads_to_the_packages(self):
        """By a link, or by a mount: nothing there is removed or written."""
        self.put("foo", "1.0")
        archives.put(self.root, "sub/bar-1.0.tar.gz",
                     archives.sdist("bar", "1.0"))
        before = tree(self.root)
        places = [(part, self.root) for part in (
            "simple", "packages", "pypi", "project", "search", "withheld",
            "-", STATE, STATE + "/projects")]
        places += [("packages", os.path.join(self.root, "sub")),
                   ("packages", self.folder)]
        options = "--delete", "--packages-url", "https://example.org/"
        self.run_export(*options)
        for part, target in places:
            with self.subTest(part, target=target):
                path = os.path.join(self.site, part)
                away = os.path.join(self.folder, "away")
                os.rename(path, away) if os.path.exists(path) \
                    else os.mkdir(away)
                os.symlink(target, path)
                printed = self.run_export(*options, status=2)
                self.assertIn(repr(path), printed)
                self.assertEqual(1, printed.count("\n"))
                self.assertEqual(before, tree(self.root))
                os.unlink(path)
                os.rename(away, path)

    @unittest.skipUnless(hasattr(os, "geteuid") and os.geteuid() == 0,
                         "needs root for a mount")
    def test_part_that_is_a_mount_of_the_packages(self):
        self.put("foo", "1.0")
        before = tree(self.root)
        path = os.path.join(self.site, "packages")
        for target in self.root, self.folder:
            self.run_export()
            shutil.rmtree(path)
            os.mkdir(path)
            if subprocess.call(["mount", "--bind", target, path],
                               stderr=subprocess.DEVNULL):
                self.skipTest("cannot mount here")
            try:
                printed = self.run_export("--delete", status=2)
            finally:
                subprocess.check_call(["umount", path])
            self.assertIn("must not lie in one another", printed)
            self.assertEqual(before, tree(self.root))

    def test_link_below_a_part(self):
        """Also one that is made while the site is kept up to date."""
        archives.put(self.root, "sub/bar-1.0-py3-none-any.whl",
                     archives.wheel("bar", "1.0"))
        self.put("foo", "1.0")
        self.run_export("--delete")
        before = tree(self.root)
        path = os.path.join(self.site, "packages", "sub")
        shutil.rmtree(path)
        os.symlink(os.path.join(self.root, "sub"), path)
        archives.put(self.root, "sub/bar-1.1-py3-none-any.whl",
                     archives.wheel("bar", "1.1"))
        before = tree(self.root)
        printed = self.run_export("--delete", status=1)
        self.assertIn(path, printed)
        self.assertEqual(before, tree(self.root))
        exporter = pypi_server.Exporter(pypi_server.default_config(
            roots=(self.root,), site=self.site, delete=True,
            cache_dir=os.path.join(self.folder, "cache")))
        self.addCleanup(exporter.directories.reader.cache.close)
        os.unlink(path)
        shutil.rmtree(os.path.join(self.site, "packages"))
        os.symlink(self.root, os.path.join(self.site, "packages"))
        self.assertEqual([], [
            name for name in exporter.site.strangers(set())
            if name.startswith("packages/")])
        with self.assertRaises(OSError):
            exporter.site.remove(["packages/sub/bar-1.0-py3-none-any.whl"])
        with self.assertRaises(OSError):
            exporter.site.write("packages/index.html", b"")
        self.assertEqual(before, tree(self.root))

    def test_missing_package_directory(self):
        """It may be a disk that is not mounted: the site stays."""
        self.put("foo", "1.0")
        self.run_export()
        before = tree(self.site)
        os.rename(self.root, self.root + "-away")
        printed = self.run_export("--delete", status=2)
        self.assertIn("there is no package directory", printed)
        os.mkdir(self.root)
        printed = self.run_export("--delete", status=2)
        self.assertIn("no archive at all", printed)
        self.assertEqual(before, tree(self.site))

    def test_folder_that_cannot_be_read(self):
        """Nobody knows what is in it, so all of it stays in the site."""
        self.put("foo", "1.0")
        archives.put(self.root, "sub/bar-1.0.tar.gz",
                     archives.sdist("bar", "1.0"))
        path = os.path.join(self.root, "sub")
        config = pypi_server.Config(
            roots=(self.root,), site=self.site, delete=True,
            cache_dir=os.path.join(self.folder, "cache"))
        said = []
        self.assertEqual(0, pypi_server.export_site(config, said.append))
        before = tree(self.site, True)
        with unprivileged(self.folder):
            os.chmod(path, 0)
            try:
                with self.assertLogs("pypi_server", "ERROR") as logs:
                    self.assertEqual(1, pypi_server.export_site(
                        config, said.append))
            finally:
                os.chmod(path, 0o755)
        self.assertEqual(1, len(logs.output))
        self.assertIn(path, logs.output[0])
        self.assertEqual(1, len(said))
        self.assertEqual(before, tree(self.site, True))

    def test_one_at_a_time(self):
        self.put("foo", "1.0")
        self.run_export()
        with open(os.path.join(self.site, STATE, "lock")) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            printed = self.run_export(status=2)
        self.assertIn("another export writes to", printed)

    @unittest.skipIf(os.name == "nt", "modes of POSIX")
    def test_site_that_cannot_be_written(self):
        """Of another user; or with something else in the place of a file.
        """
        self.put("foo", "1.0")
        self.run_export()
        before = tree(self.site)
        lock = os.path.join(self.site, STATE, "lock")
        os.chmod(self.folder, 0o755)
        os.chmod(lock, 0o400)
        with self.assertRaises(pypi_server.UsageError) as caught:
            with unprivileged(self.root):
                with pypi_server.Site(self.site, ()).alone():
                    self.fail("it can be written")
        self.assertIn(lock, str(caught.exception))
        os.unlink(lock)
        os.mkdir(lock)
        printed = self.run_export(status=2)
        self.assertIn(lock, printed)
        self.assertEqual(1, printed.count("\n"))
        os.rmdir(lock)
        os.mkdir(os.path.join(self.site, STATE, "new-0"))
        self.run_export()
        self.assertEqual(before, tree(self.site))

    def test_records_of_any_type(self):
        """Projects that have such a record are exported anew."""
        victim = archives.put(self.folder, "mine.txt", b"x")
        values = [(key, value) for key, several in (
            ("sources", (5, None, [])),
            ("files", (5, [], {"simple/foo/index.html": "x"},
                       {"../mine.txt": 1}, {"simple/../../mine.txt": 1})),
            ("archives", (5, [], {"foo": 5})),
            ("links", (5, {}, [5], [["a", "b", "c"]], [["a", 5, "c", "d"]],
                       [["a", "b", "c", 5]])),
            ("releases", (5, [], {"1.0": 5}, {"1.0": ["x"]},
                          {"1.0": ["x", 5]}, {"1.0": ["x", {victim: 1}]})),
            ("brief", (5, {}, [], [5] * 8, [""] * 9)))
            for value in several]
        texts = ["[]", "5", "[" * 100000, "{}", "\udcff"]
        for number in range(len(values) + len(texts)):
            self.put("p%d" % number, "1.0")
        self.run_export()
        before = tree(self.site)
        folder = os.path.join(self.site, STATE, "projects")
        records = tree(folder)
        for number, (key, value) in enumerate(values):
            name = "p%d.json" % number
            texts.insert(number, json.dumps(dict(json.loads(
                records[name].decode()), **{key: value})))
        for number, text in enumerate(texts):
            with open(os.path.join(folder, "p%d.json" % number), "w",
                      errors="surrogateescape") as file:
                file.write(text)
        self.run_export("--delete")
        self.assertEqual(records, tree(folder))
        self.assertEqual(before, tree(self.site))
        self.assertTrue(os.path.exists(victim))

    def test_path_that_cannot_be_written(self):
        """It costs that project, and no other; the log tells which."""
        for name in "bar", "foo", "zoo":
            self.put(name, "1.0")
        page = os.path.join(self.site, "simple", "foo", "index.html")
        for make in (lambda: os.makedirs(os.path.join(page, "x")),
                     lambda: archives.put(self.site, "simple/foo", b"")):
            with self.subTest():
                self.run_export()
                shutil.rmtree(self.site)
                make()
                os.makedirs(os.path.join(self.site, STATE))
                printed = self.run_export("--delete", status=1)
                self.assertIn("foo is not exported as it is: %s: " % page,
                              printed.replace(".json", ".html"))
                self.assertNotIn("new-", printed)
                self.assertEqual(["bar", "zoo"], texts(
                    self.read("simple", "index.html")))
                shutil.rmtree(self.site)
        # Of two files, one has the name of a folder of the other's.
        second = os.path.join(self.folder, "second")
        archives.put(second, "foo-2.0.tar.gz/red-1.0.tar.gz",
                     archives.sdist("red", "1.0"))
        archives.put(self.root, "foo-2.0.tar.gz",
                     archives.sdist("foo", "2.0"))
        printed = self.run_export(second, status=1)
        self.assertRegex(printed, "(foo|red) is not exported as it is: "
                         "%s/packages/foo-2.0.tar.gz" % self.site)
        self.assertEqual(3, len(texts(self.read("simple", "index.html"))))
        # The pages of the index belong to no project.
        os.unlink(os.path.join(self.site, "simple", "index.html"))
        os.mkdir(os.path.join(self.site, "simple", "index.html"))
        printed = self.run_export(status=1)
        self.assertIn("is not complete: %s/simple/index.html: " % self.site,
                      printed)

    @unittest.skipUnless(os.path.exists("/dev/full") and hasattr(
        os, "geteuid") and os.geteuid() == 0, "needs root for a small disk")
    def test_full_disk(self):
        os.mkdir(self.site)
        if subprocess.call(["mount", "-t", "tmpfs", "-o", "size=200k",
                            "tmpfs", self.site], stderr=subprocess.DEVNULL):
            self.skipTest("cannot mount a small disk here")
        self.addCleanup(subprocess.call, ["umount", self.site])
        for number in range(40):
            self.put("foo%d" % number, "1.0", files={
                "noise": os.urandom(8000)})
        printed = self.run_export(status=1)
        self.assertIn("No space left on device", printed)
        self.assertEqual(1, printed.count("is not complete"))
        self.assertFalse(os.path.exists(os.path.join(
            self.site, "simple", "index.html")))
        subprocess.check_call(["mount", "-o", "remount,size=20m", self.site])
        self.run_export()
        self.assertEqual(40, len(texts(self.read("simple", "index.html"))))

    def test_copies_where_links_are_not_possible(self):
        """On another filesystem."""
        if not os.path.isdir("/dev/shm") or os.stat(
                "/dev/shm").st_dev == os.stat(self.folder).st_dev:
            self.skipTest("there is no other filesystem")
        put_all(self.root)
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            site = os.path.join(folder, "site")
            self.run_export(site=site)
            self.run_export("--copy")
            self.assertEqual(tree(self.site), tree(site))


class TestOrder(ExportTestCase):
    """Whatever a page names is there, at any moment."""

    def check(self):
        """Follow all links that are there now."""
        names = []
        if os.path.exists(os.path.join(self.site, "simple", "index.html")):
            names = texts(self.read("simple", "index.html"))
        folder = os.path.join(self.site, "simple")
        pages = set(os.listdir(folder) if os.path.isdir(folder) else ())
        self.assertLessEqual(set(names), pages)
        for name in sorted(pages - {"index.html", "index.json"}):
            for kind in "index.html", "index.json":
                try:
                    page = self.read("simple", name, kind)
                except FileNotFoundError:
                    self.assertNotIn(name, names)
                    continue
                found = re.findall(
                    rb'"\.\./\.\./packages/([^"#]+\.whl)["#]', page)
                for filename in found:
                    path = os.path.join("packages", filename.decode())
                    self.assertTrue(os.path.exists(os.path.join(
                        self.site, path)), path)
                    self.assertTrue(self.read(path + ".metadata"))
        self.check_people()
        return len(pages)

    def check_people(self):
        """The links that lead up are to pages that come last."""
        for name, page in tree(self.site).items():
            if not name.startswith(("project/", "search/", "index.html")) \
                    or not name.endswith("html"):
                continue
            for link in links(page):
                path = os.path.normpath(unquote(os.path.join(
                    os.path.dirname(name), urldefrag(link)[0])))
                is_up = name.startswith(path + "/") or path == "packages"
                if link.endswith("/"):
                    path += "/index.html"
                if path.startswith(("project/p", "packages/", "-/")) \
                        and not is_up:
                    self.assertTrue(os.path.exists(os.path.join(
                        self.site, path)), (name, link))

    def test_killed_and_resumed(self):
        """After each kill -9 the site is sound, and the end is the same."""
        for number in range(60):
            for version in "1.0", "1.1":
                self.put("p%d" % number, version)
        other = os.path.join(self.folder, "other")
        self.run_export(site=other)
        counts = [0]
        for least in 5, 20, 40:
            process = self.start()
            folder = os.path.join(self.site, "simple")
            wait_for(lambda: os.path.isdir(folder) and len(
                os.listdir(folder)) >= least, "it has written")
            process.send_signal(signal.SIGKILL)
            process.wait()
            counts.append(self.check())
        self.assertEqual(sorted(counts), counts)
        self.run_export("--delete")
        self.assertEqual(tree(other), tree(self.site))
        self.assertEqual([], [name for name in os.listdir(os.path.join(
            self.site, STATE)) if name.startswith("new-")])

    def test_links_while_the_site_is_kept_up_to_date(self):
        self.put("p", "1.0")
        self.start("--watch", "--delete")
        wait_for(lambda: os.path.exists(os.path.join(
            self.site, "index.html")), "the first export")
        removed = []
        for number in range(8):
            name = self.put("q%d" % number, "1.0")
            self.put("p", "1.%d" % number)
            if number % 2:
                os.unlink(os.path.join(self.root, name))
                removed.append("q%d" % number)
            # As a reader does, that looks again when something vanished.
            for _ in range(40):
                self.follow()
                time.sleep(0.005)
        wait_for(lambda: not set(removed) & set(os.listdir(
            os.path.join(self.site, "simple"))), "what is gone is removed")
        wait_for(lambda: b"p-1.7-" in self.read(
            "simple", "p", "index.html"), "the newest is there")

    def follow(self):
        for name in texts(self.read("simple", "index.html")):
            try:
                page = self.read("simple", name, "index.html")
            except FileNotFoundError:
                self.assertNotIn(name, texts(self.read(
                    "simple", "index.html")))
                continue
            for text in texts(page):
                if not os.path.exists(os.path.join(
                        self.site, "packages", text)):
                    try:
                        again = self.read("simple", name, "index.html")
                    except FileNotFoundError:
                        continue
                    self.assertNotIn(text, texts(again))

    @unittest.skipUnless(shutil.which("strace"), "strace is not installed")
    def test_order_of_names(self):
        """Archives, metadata, pages, index; away in the other direction."""
        name = self.put("foo", "1.0")
        printed = self.traced()
        order = [self.place(printed, path) for path in (
            "-/style.css", "packages/" + name,
            "packages/" + name + ".metadata", "project/foo/1.0/index.html",
            "simple/foo/index.json", "simple/foo/index.html",
            "project/foo/index.html", "simple/index.html",
            "search/index.html", "index.html")]
        self.assertEqual(sorted(order), order)
        self.put("bar", "1.0")
        os.unlink(os.path.join(self.root, name))
        printed = self.traced("--delete")
        order = [self.place(printed, path) for path in (
            "simple/index.html", "search/index.html", "index.html",
            "project/foo/index.html", "project/foo/1.0/index.html",
            "simple/foo/index.html", "packages/" + name)]
        self.assertEqual(sorted(order), order)

    def traced(self, *options):
        log = os.path.join(self.folder, "strace.log")
        process = subprocess.run(
            ["strace", "-f", "-qq", "-o", log, "-e",
             "trace=rename,renameat,renameat2,unlink,unlinkat",
             *self.command(*options)], env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if b"ptrace" in process.stdout:
            self.skipTest("strace may not trace here")
        self.assertEqual(0, process.returncode, process.stdout)
        with open(log) as file:
            return [line for line in file if line.rstrip().endswith("= 0")]

    def place(self, lines, path):
        """Return when a file got its name, or lost it."""
        found = [number for number, line in enumerate(lines)
                 if '/site/%s"' % path in line]
        self.assertTrue(found, path)
        return found[0]


class TestWatch(ExportTestCase):
    def test_uploads_and_replacements(self):
        self.put("foo", "1.0")
        self.start("--watch")

        def page(text, name="foo"):
            try:
                return text in self.read("simple", name, "index.html")
            except FileNotFoundError:
                return False
        wait_for(lambda: page(b"foo-1.0"), "the first export")
        self.put("foo", "1.1")
        wait_for(lambda: page(b"foo-1.1"), "a new file")
        self.put("new", "1.0")
        wait_for(lambda: page(b"new-1.0", "new"), "a new project")
        wait_for(lambda: b">new<" in self.read("simple", "index.html"),
                 "it is listed")
        archives.put(self.root, "notes.txt", b"x")
        wait_for(lambda: b"notes.txt" in self.read("withheld", "index.html"),
                 "a file that is not served is told")
        name = self.put("foo", "1.0", body="other")
        digest = hashlib.sha256(self.read("packages", name)).hexdigest()
        wait_for(lambda: page(digest.encode()), "a file was replaced")
        archives.put(self.root, name + ".yanked", b"bad")
        wait_for(lambda: page(b"data-yanked"), "a file was yanked")
        os.unlink(os.path.join(self.root, name))
        wait_for(lambda: not page(b"foo-1.0"), "a file was removed")

    def test_each_problem_is_told_once(self):
        for name in "bar", "foo":
            self.put(name, "1.0")
        page = os.path.join(self.site, "simple", "foo", "index.json")
        os.makedirs(page)
        index = os.path.join(self.site, "simple", "index.json")
        os.makedirs(os.path.join(self.site, STATE))
        log = os.path.join(self.folder, "log")
        self.start("--watch", "-v", "--log-file", log)

        def told(*paths):
            with open(log) as file:
                lines = file.read().splitlines()
            return [sum(path in line for line in lines) for path in paths]
        wait_for(lambda: os.path.exists(log) and told(page) == [1],
                 "a project waits")
        os.unlink(index)
        os.mkdir(index)
        self.put("bar", "1.1")
        wait_for(lambda: told(index) == [1], "the site waits")
        # Each look writes the pages of the index, down to the one that fails.
        for version in "1.2", "1.3":
            self.put("bar", version)
            wait_for(lambda: os.path.exists(os.path.join(
                self.site, "project", "bar", version)), "one more look")
        os.rmdir(index)
        os.rmdir(page)
        wait_for(lambda: "foo" in texts(self.read("simple", "index.html")),
                 "all is well")
        self.assertEqual([1, 1, 0], told(page, index, "new-"))

    def test_a_directory_that_goes_away_for_a_while(self):
        self.put("foo", "1.0")
        self.start("--watch", "--delete")
        wait_for(lambda: os.path.exists(os.path.join(
            self.site, STATE, "swept")), "the last file of the export")
        before = tree(self.site)
        os.rename(self.root, self.root + "-away")
        time.sleep(1.5)
        self.assertEqual(before, tree(self.site))
        os.rename(self.root + "-away", self.root)
        self.put("bar", "1.0")
        wait_for(lambda: os.path.exists(os.path.join(
            self.site, "simple", "bar", "index.html")), "it goes on")


class TestWhatGoesDuringAnExport(ExportTestCase):
    """Names are known first; what they stand for may be gone a moment later.
    """

    def setUp(self):
        super().setUp()
        self.put("foo", "1.0")
        self.put("bar", "1.0")
        self.exporter = pypi_server.Exporter(pypi_server.default_config(
            roots=(self.root,), site=self.site, delete=True,
            cache_dir=os.path.join(self.folder, "cache")))
        self.addCleanup(self.exporter.directories.reader.cache.close)
        self.run_once()
        self.before = tree(self.site)

    def run_once(self, between=lambda: None):
        """Export what there is now, after something happens to it."""
        names = sorted(self.exporter.directories.move().projects)
        between()
        self.exporter.run(names, pypi_server.Progress(len(names)))

    def test_the_directory(self):
        away = self.root + "-away"
        with self.assertRaises(OSError):
            self.run_once(lambda: os.rename(self.root, away))
        self.assertEqual(self.before, tree(self.site))
        with self.assertLogs(pypi_server.LOG, "ERROR"):  # it tells where
            with self.assertRaises(OSError):
                self.run_once()
        self.assertEqual(self.before, tree(self.site))
        os.rename(away, self.root)
        self.run_once()
        self.assertEqual(self.before, tree(self.site))

    def test_one_archive(self):
        path = os.path.join(self.root, archives.wheel_filename("foo", "1.0"))
        self.run_once(lambda: os.unlink(path))
        self.assertEqual({"foo"}, set(self.exporter.failures))
        for name, data in self.before.items():
            if name.startswith(("simple", "packages", "project")):
                self.assertEqual(data, tree(self.site)[name], name)
        self.run_once()
        self.assertEqual({}, self.exporter.failures)
        self.assertEqual({"simple/bar/index.html"}, {
            name for name in tree(self.site)
            if name.startswith("simple/") and name.count("/") == 2
            and name.endswith(".html")})


class TestTerminal(ExportTestCase):
    def test_progress(self):
        import pty
        for number in range(30):
            self.put("p%d" % number, "1.0")
        master, slave = pty.openpty()
        process = subprocess.Popen(
            self.command(), env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=slave)
        os.close(slave)
        shown = b""
        while b"30/30" not in shown:
            shown += os.read(master, 4096)
        printed, _ = process.communicate(timeout=60)
        os.close(master)
        self.assertEqual(0, process.returncode)
        self.assertIn(b"#] 30/30", shown)
        self.assertEqual("Exported 30 projects from %s to %s\n" % (
            self.root, self.site), printed.decode())


if __name__ == "__main__":
    unittest.main()
