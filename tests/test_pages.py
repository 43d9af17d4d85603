"""Section Pages: pure, so no directory and no server."""

import gzip
import json
import unittest
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

from pypi_server import (
    API_VERSION, HTML, JSON, SIMPLE_HTML, SIMPLE_JSON, Archive,
    Facts, File, Identity, Link, Place, Project, archive_links, archives_page,
    fill_template,
    latest_version, legacy_json, make_page, parse_filename, parse_metadata,
    project_html, project_json, project_list_html, project_list_json,
)
from tests import archives
from tests.helpers import anchors, entries

BASE = "http://index.example/pypi/"
PLACE = Place("../", BASE)
PAGE = "http://index.example/pypi/simple/foo/"
NASTY = "<i>&amp;\"'</i> \xe4 --> </body> \u2028"
SHA256, MD5, BLAKE = "ab" * 32, "cd" * 16, "ef" * 32
# Filenames of one project that URLs and HTML must escape.
NASTY_NAMES = (
    "foo-1.0+local-py3-none-any.whl", "foo-1!2.0.tar.gz",
    "foo-1 0&\"<b>.tar.gz", "foo-%41.tar.gz", "foo-1#2.tar.gz",
    "foo-1?2.tar.gz", "foo-1'2.tar.gz", "foo-\xe4\u4f60.tar.gz",
    "foo-1;2=3,4.tar.gz", "foo-a:b@c.tar.gz", "foo-a\\b.tar.gz",
    "foo-[1]{2}|^`.tar.gz",
)


def file(filename="foo-1.0-py3-none-any.whl", *, directory="", size=5,
         mtime_ns=0, yanked=None, signed=False, provenance=False, **facts):
    """Return a File with what matters to a test."""
    facts.setdefault("digests", {
        "sha256": SHA256, "md5": MD5, "blake2b_256": BLAKE})
    return File(
        Archive("/root", directory, filename, *parse_filename(filename)),
        Identity(size, mtime_ns, 0, 0),
        Facts(**dict(dict.fromkeys(Facts._fields, ""), **facts)),
        yanked, signed, provenance)


def project(*files, name="foo", status="", reason=""):
    return Project(name, files, status, reason, ())


def html_links(*files, algorithm="sha256", **rest):
    """Return [(attributes, text)] of the links on a project page."""
    return anchors(project_html(
        HTML, project(*files, **rest), algorithm, BASE).body)


def detail(*files, **rest):
    """Return project detail in JSON, parsed."""
    return json.loads(project_json(
        SIMPLE_JSON, project(*files, **rest), BASE).body.decode())


class Elements(HTMLParser):
    """Collects all elements, and checks that they are properly nested."""

    EMPTY = ("meta", "br", "link")

    def __init__(self, page):
        super().__init__()
        self.stack = []
        self.found = []
        self.feed(page.body.decode("utf-8"))
        self.close()
        if self.stack:
            raise AssertionError("never closed: %r" % self.stack)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        if self.stack.pop() != tag:
            raise AssertionError("%s is not closed in turn" % tag)

    def metas(self):
        return {found["name"]: found["content"]
                for tag, found in self.found
                if tag == "meta" and "name" in found}


class TestPage(unittest.TestCase):
    def test_same_body_same_page(self):
        self.assertEqual(make_page(HTML, b"a" * 9999),
                         make_page(HTML, b"a" * 9999))

    def test_etag_is_strong_and_of_the_body(self):
        tags = {make_page(HTML, body).etag for body in (b"", b"a", b"b")}
        self.assertEqual(3, len(tags))
        for tag in tags:
            self.assertRegex(tag, r'\A"[!#-~]+"\Z')

    def test_compressed_when_it_pays(self):
        self.assertEqual(b"", make_page(HTML, b"a" * 500).compressed)
        page = make_page(HTML, b"a" * 5000)
        self.assertEqual(page.body, gzip.decompress(page.compressed))
        self.assertLess(len(page.compressed), 500)


class TestProjectList(unittest.TestCase):
    NAMES = ("a", "zope-interface", "a b", "a&<b>\"'", "a#b?c%41", "\xe4")

    def test_html(self):
        page = project_list_html(HTML, self.NAMES)
        self.assertEqual(HTML, page.media_type)
        self.assertTrue(page.body.startswith(b"<!DOCTYPE html>"))
        self.assertEqual({"pypi:repository-version": API_VERSION}, {
            name: text for name, text in Elements(page).metas().items()
            if name.startswith("pypi:")})
        found = anchors(page.body)
        self.assertEqual(self.NAMES, tuple(text for _, text in found))
        for (attributes, name) in found:
            # Relative, below the list: poetry takes the name from there.
            self.assertEqual(["href"], list(attributes))
            self.assertEqual(name + "/", unquote(attributes["href"]))
            self.assertEqual(
                "/simple/" + name + "/", unquote(urlsplit(urljoin(
                    "http://host/simple/", attributes["href"])).path))

    def test_json(self):
        page = project_list_json(SIMPLE_JSON, self.NAMES)
        self.assertEqual(SIMPLE_JSON, page.media_type)
        self.assertEqual(
            {"meta": {"api-version": "1.4"},
             "projects": [{"name": name} for name in self.NAMES]},
            json.loads(page.body.decode("utf-8")))

    def test_empty(self):
        self.assertEqual([], anchors(project_list_html(HTML, ()).body))
        self.assertEqual([], json.loads(project_list_json(
            SIMPLE_JSON, ()).body.decode())["projects"])


class TestProjectHtml(unittest.TestCase):
    def test_least(self):
        page = project_html(SIMPLE_HTML, project(file()), "sha256", BASE)
        self.assertEqual(SIMPLE_HTML, page.media_type)
        self.assertTrue(page.body.startswith(b"<!DOCTYPE html>"))
        self.assertIn(b"<title>Links for foo</title>", page.body)
        elements = Elements(page)
        self.assertEqual("1.4", elements.metas()["pypi:repository-version"])
        self.assertEqual([({
            "href": "../../packages/foo-1.0-py3-none-any.whl#sha256="
                    + SHA256}, "foo-1.0-py3-none-any.whl")],
            anchors(page.body))

    def test_all_attributes(self):
        self.assertEqual([({
            "href": "../../packages/sub/foo-1.0-py3-none-any.whl#sha256="
                    + SHA256,
            "data-requires-python": ">=3.6,<4",
            "data-core-metadata": "sha256=" + MD5,
            "data-dist-info-metadata": "sha256=" + MD5,
            "data-gpg-sig": "true", "data-yanked": "broken",
            "data-provenance": BASE + "packages/sub/"
            "foo-1.0-py3-none-any.whl.provenance"},
            "foo-1.0-py3-none-any.whl")],
            html_links(file(
                directory="sub/", requires_python=">=3.6,<4",
                metadata_digest=MD5, yanked="broken", signed=True,
                provenance=True)))

    def test_angle_brackets_are_escaped_as_the_standard_says(self):
        body = project_html(HTML, project(
            file(requires_python=">=3.6,<4")), "sha256", BASE).body
        self.assertIn(
            b'data-requires-python="&gt;=3.6,&lt;4"', body)

    def test_yanked_without_reason(self):
        links = html_links(file(yanked=""))
        self.assertEqual("", links[0][0]["data-yanked"])
        self.assertNotIn("data-yanked", html_links(file())[0][0])

    def test_signature_of_one_is_told_for_all(self):
        links = html_links(file(signed=True), file("foo-2.tar.gz"))
        self.assertEqual(["true", "false"], [
            attributes["data-gpg-sig"] for attributes, _ in links])

    def test_digest_algorithm(self):
        for algorithm, fragment in (
                ("sha256", "sha256=" + SHA256), ("md5", "md5=" + MD5),
                ("", "")):
            links = html_links(file(), algorithm=algorithm)
            self.assertEqual(
                fragment, urlsplit(links[0][0]["href"]).fragment)

    def test_status(self):
        for status in ("active", "archived", "deprecated"):
            metas = Elements(project_html(HTML, project(
                file(), status=status, reason=NASTY), "", BASE)).metas()
            self.assertEqual(status, metas["pypi:project-status"])
            self.assertEqual(NASTY, metas["pypi:project-status-reason"])
        metas = Elements(project_html(HTML, project(
            file(), status="archived"), "", BASE)).metas()
        self.assertNotIn("pypi:project-status-reason", metas)
        metas = Elements(project_html(HTML, project(file()), "", BASE))
        self.assertNotIn("pypi:project-status", metas.metas())

    def test_nothing_is_offered_in_quarantine(self):
        page = project_html(HTML, project(
            file(), status="quarantined"), "sha256", BASE)
        self.assertEqual([], anchors(page.body))
        self.assertEqual("quarantined",
                         Elements(page).metas()["pypi:project-status"])

    def test_order_is_that_of_the_project(self):
        files = [file("foo-%d.tar.gz" % number) for number in (1, 2, 10)]
        self.assertEqual([each.archive.filename for each in files],
                         [text for _, text in html_links(*files)])

    def test_links_lead_to_their_files(self):
        for filename in NASTY_NAMES:
            for directory in ("", "a b/", "<&>'\"/%#?+/", "\xfc/x/"):
                with self.subTest(filename, directory=directory):
                    (attributes, text), = html_links(
                        file(filename, directory=directory))
                    url = urlsplit(urljoin(PAGE, attributes["href"]))
                    self.assertEqual(filename, text)
                    self.assertEqual(
                        "/pypi/packages/" + directory + filename,
                        unquote(url.path))
                    self.assertEqual("sha256=" + SHA256, url.fragment)
                    self.assertEqual("", url.query)
                    self.assertRegex(attributes["href"], r"\A[!-~]+\Z")

    def test_every_part_is_escaped(self):
        page = project_html(HTML, project(
            file("foo-1<i>&\"'.zip", yanked=NASTY, requires_python=NASTY,
                 directory="<i>\"'&/", provenance=True),
            name="foo<i>&\"'", status="archived", reason=NASTY),
            "sha256", BASE)
        elements = Elements(page)
        self.assertNotIn("i", [tag for tag, _ in elements.found])
        (attributes, text), = anchors(page.body)
        self.assertEqual("foo-1<i>&\"'.zip", text)
        self.assertEqual(NASTY, attributes["data-yanked"])
        self.assertEqual(NASTY, attributes["data-requires-python"])
        self.assertNotIn(b"<i>", page.body)
        self.assertIn(b"<title>Links for foo&lt;i&gt;", page.body)

    def test_pages_of_all_kinds_are_well_formed(self):
        for page in (
                project_list_html(HTML, NASTY_NAMES),
                project_html(HTML, project(
                    *map(file, NASTY_NAMES), name=NASTY), "md5", BASE)):
            elements = Elements(page)
            self.assertEqual("html", elements.found[0][0])
            self.assertIn(("meta", {"charset": "utf-8"}), elements.found)


class TestProjectJson(unittest.TestCase):
    def test_least(self):
        self.assertEqual({
            "meta": {"api-version": "1.4"}, "name": "foo",
            "versions": ["1.0"],
            "files": [{
                "filename": "foo-1.0-py3-none-any.whl",
                "url": "../../packages/foo-1.0-py3-none-any.whl",
                "hashes": {"sha256": SHA256}, "size": 5,
                "upload-time": "1970-01-01T00:00:00.000000Z"}]},
            detail(file()))

    def test_all_keys(self):
        self.assertEqual({
            "meta": {"api-version": "1.4"}, "name": "foo",
            "versions": ["1.0"],
            "project-status": {"status": "deprecated", "reason": NASTY},
            "files": [{
                "filename": "foo-1.0-py3-none-any.whl",
                "url": "../../packages/a%20b/foo-1.0-py3-none-any.whl",
                "hashes": {"sha256": SHA256}, "size": 5,
                "upload-time": "2009-02-13T23:31:30.123456Z",
                "requires-python": ">=3.6,<4", "gpg-sig": True,
                "core-metadata": {"sha256": MD5}, "yanked": NASTY,
                "provenance": BASE + "packages/a%20b/"
                "foo-1.0-py3-none-any.whl.provenance"}]},
            detail(file(
                directory="a b/", requires_python=">=3.6,<4",
                metadata_digest=MD5, yanked=NASTY, signed=True,
                provenance=True, mtime_ns=1234567890123456789),
                status="deprecated", reason=NASTY))

    def test_no_value_is_null_and_yanked_not_empty(self):
        """uv refuses a page with null or with an empty reason."""
        answer = detail(
            file(), file("foo-2.tar.gz", yanked="", signed=True),
            status="archived")
        self.assertIs(True, answer["files"][1]["yanked"])
        self.assertNotIn("yanked", answer["files"][0])
        self.assertEqual({"status": "archived"}, answer["project-status"])
        self.assertEqual([False, True], [
            found["gpg-sig"] for found in answer["files"]])
        for found in answer["files"]:
            self.assertNotIn(None, found.values())
            # It crashes pip 22.3 to 23.1 (PEP 714).
            self.assertNotIn("dist-info-metadata", found)
            self.assertEqual({"sha256"}, set(found["hashes"]))

    def test_versions_are_unique_and_normalized(self):
        answer = detail(*map(file, (
            "foo-1.0.tar.gz", "foo-1.0-py3-none-any.whl",
            "foo-1.0.0-py3-none-any.whl", "foo-v2.0-ALPHA.1.tar.gz",
            "foo-2.0-1.tar.gz", "foo-1!1.tar.gz", "foo-3+Ubuntu-1.zip",
            "foo-2004-final.tar.gz", "foo.zip")))
        self.assertEqual(
            ["1.0", "2.0a1", "2.0.post1", "1!1", "3+ubuntu.1",
             "2004-final"], answer["versions"])
        self.assertEqual(9, len(answer["files"]))

    def test_nothing_is_offered_in_quarantine(self):
        answer = detail(file(), status="quarantined", reason="bad")
        self.assertEqual([], answer["files"])
        self.assertEqual([], answer["versions"])
        self.assertEqual({"status": "quarantined", "reason": "bad"},
                         answer["project-status"])

    def test_empty_project(self):
        self.assertEqual(
            {"meta": {"api-version": "1.4"}, "name": "foo",
             "versions": [], "files": []}, detail())

    def test_upload_time_has_six_digits(self):
        """pip on Python 3.10 understands none and six, no other number."""
        for mtime_ns, wanted in (
                (0, "1970-01-01T00:00:00.000000Z"),
                (1500000000 * 10 ** 9, "2017-07-14T02:40:00.000000Z"),
                (1500000000500000000, "2017-07-14T02:40:00.500000Z"),
                (999, "1970-01-01T00:00:00.000000Z"),
                (1000, "1970-01-01T00:00:00.000001Z"),
                (-1000, "1969-12-31T23:59:59.999999Z"),
                (4000000000 * 10 ** 9, "2096-10-02T07:06:40.000000Z"),
                (2 ** 63 - 1, "2262-04-11T23:47:16.854775Z"),
                (-2 ** 63, None), (2 ** 62 * 10 ** 9, None),
                (-2 ** 62 * 10 ** 9, None), (10 ** 40, None)):
            with self.subTest(mtime_ns):
                found = detail(file(mtime_ns=mtime_ns))
                time = found["files"][0]["upload-time"]
                self.assertRegex(
                    time, r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z")
                if wanted:
                    self.assertEqual(wanted, time)

    def test_links_lead_to_their_files(self):
        for filename in NASTY_NAMES:
            found = detail(file(filename, directory="a&b #/"))["files"][0]
            self.assertEqual(filename, found["filename"])
            self.assertEqual(
                "/pypi/packages/a&b #/" + filename,
                unquote(urlsplit(urljoin(PAGE, found["url"])).path))


class TestArchives(unittest.TestCase):
    def test_links_lead_to_their_files(self):
        """Not every link is to an archive at the top: --find-links."""
        locations = [directory + filename for filename in NASTY_NAMES
                     for directory in ("", "a b/", "<&>'\"/%#?+/")]
        page = archives_page(PLACE, archive_links(
            Link(location, "#sha256=0", "", None) for location in locations)
            ).body
        self.assertIn("../withheld/", [
            attributes["href"] for attributes, _ in anchors(page)])
        found = entries(page)
        self.assertEqual(len(locations), len(found))
        for location, (attributes, text) in zip(locations, found):
            self.assertEqual(location.rpartition("/")[2], text)
            self.assertEqual("/packages/" + location, unquote(urlsplit(
                urljoin("http://host/packages/", attributes["href"])).path))

    def test_links_tell_what_installers_heed(self):
        (attributes, _), (other, _) = entries(archive_links((
            Link("a-1.0.zip", "#md5=1", "<4,>=3.8", "<b>"),
            Link("a-1.1.zip", "", "", ""))).encode())
        self.assertEqual({
            "href": "a-1.0.zip#md5=1", "data-requires-python": "<4,>=3.8",
            "data-yanked": "<b>"}, attributes)
        self.assertEqual({"href": "a-1.1.zip", "data-yanked": ""}, other)


METADATA = parse_metadata((
    "Metadata-Version: 2.4\nName: Foo\nVersion: 1.0\nSummary: <s>\n"
    "Author: A\nAuthor-email: a@b\nMaintainer: M\nMaintainer-email: m@b\n"
    "Home-page: http://home/\nDownload-URL: http://down/\nLicense: L\n"
    "License-Expression: MIT\nLicense-File: LICENSE\nKeywords: a,b\n"
    "Platform: any\nRequires-Python: >=3.6\nProvides-Extra: x\n"
    "Requires-Dist: a>1\nRequires-Dist: b; extra == 'x'\nDynamic: Version\n"
    "Classifier: C :: D\nDescription-Content-Type: text/plain\n"
    "Project-URL: Docs, http://docs/?a,b\nProject-URL: Code , http://c/\n"
    "\n\xdcber alles\n").encode())
INFO_KEYS = set(
    "author author_email bugtrack_url classifiers description "
    "description_content_type docs_url download_url downloads dynamic "
    "home_page keywords license license_expression license_files "
    "maintainer maintainer_email name package_url platform project_url "
    "project_urls provides_extra release_url requires_dist requires_python "
    "summary version yanked yanked_reason".split())
FILE_KEYS = set(
    "comment_text digests downloads filename has_sig md5_digest packagetype "
    "python_version requires_python size upload_time upload_time_iso_8601 "
    "url yanked yanked_reason".split())


class TestLegacyJson(unittest.TestCase):
    def answer(self, *files, version="1.0", whole=True, metadata=METADATA,
               **rest):
        page = legacy_json(project(*files, **rest), version, whole,
                           metadata, BASE)
        self.assertEqual(JSON, page.media_type)
        return json.loads(page.body.decode())

    def test_keys(self):
        answer = self.answer(file())
        self.assertEqual({"info", "last_serial", "ownership", "releases",
                          "urls", "vulnerabilities"}, set(answer))
        self.assertEqual(INFO_KEYS, set(answer["info"]))
        self.assertLessEqual(FILE_KEYS, set(answer["urls"][0]))
        self.assertEqual({"roles", "organization"},
                         set(answer["ownership"]))
        self.assertEqual([], answer["vulnerabilities"])
        self.assertIsInstance(answer["last_serial"], int)

    def test_info(self):
        info = self.answer(file())["info"]
        for key, wanted in {
                "name": "Foo", "version": "1.0", "summary": "<s>",
                "author": "A", "author_email": "a@b", "maintainer": "M",
                "maintainer_email": "m@b", "home_page": "http://home/",
                "download_url": "http://down/", "license": "L",
                "license_expression": "MIT", "license_files": ["LICENSE"],
                "keywords": "a,b", "platform": "any",
                "requires_python": ">=3.6", "provides_extra": ["x"],
                "requires_dist": ["a>1", "b; extra == 'x'"],
                "dynamic": ["Version"], "classifiers": ["C :: D"],
                "description_content_type": "text/plain",
                "description": "\xdcber alles\n", "bugtrack_url": None,
                "docs_url": None, "yanked": False, "yanked_reason": None,
                "downloads": {"last_day": -1, "last_month": -1,
                              "last_week": -1},
                "project_urls": {"Docs": "http://docs/?a,b",
                                 "Code": "http://c/"}}.items():
            with self.subTest(key):
                self.assertEqual(wanted, info[key])
        for key in ("package_url", "project_url", "release_url"):
            self.assertTrue(info[key].startswith(BASE), key)

    def test_info_without_metadata(self):
        info = self.answer(file(), metadata={})["info"]
        self.assertEqual(INFO_KEYS, set(info))
        self.assertEqual("foo", info["name"])
        for key in ("project_urls", "requires_dist", "requires_python",
                    "provides_extra"):
            self.assertIsNone(info[key], key)
        self.assertEqual([], info["classifiers"])
        for key in ("author", "summary", "description", "keywords"):
            self.assertIn(info[key], ("", None), key)

    def test_file(self):
        found = self.answer(file(
            directory="a b/", size=7, mtime_ns=1234567890123456789,
            requires_python=">=3", yanked=NASTY, signed=True))["urls"][0]
        for key, wanted in {
                "filename": "foo-1.0-py3-none-any.whl", "size": 7,
                "url": BASE + "packages/a%20b/foo-1.0-py3-none-any.whl",
                "digests": {"md5": MD5, "sha256": SHA256,
                            "blake2b_256": BLAKE}, "md5_digest": MD5,
                "packagetype": "bdist_wheel", "python_version": "py3",
                "requires_python": ">=3", "has_sig": True, "downloads": -1,
                "upload_time": "2009-02-13T23:31:30",
                "upload_time_iso_8601": "2009-02-13T23:31:30.123456Z",
                "yanked": True, "yanked_reason": NASTY}.items():
            with self.subTest(key):
                self.assertEqual(wanted, found[key])

    def test_kinds(self):
        for filename, kind, python in (
                ("foo-1.0-1-cp39-abi3-any.whl", "bdist_wheel", "cp39"),
                ("foo-1.0-py2.py3-none-any.whl", "bdist_wheel", "py2.py3"),
                ("foo-1.0.tar.gz", "sdist", "source"),
                ("foo-1.0.zip", "sdist", "source"),
                ("foo-1.0-py2.7.egg", "bdist_egg", None),
                ("foo-1.0.win32-py2.7.exe", "bdist_wininst", None)):
            with self.subTest(filename):
                found = self.answer(file(filename))["urls"][0]
                self.assertEqual(kind, found["packagetype"])
                self.assertEqual(python or found["python_version"],
                                 found["python_version"])
                self.assertIsNone(found["requires_python"])
                self.assertIsNone(found["yanked_reason"])

    def test_releases_only_for_the_project(self):
        files = [file("foo-0.9.tar.gz"), file(), file("foo-1.0.0.zip"),
                 file("foo-2.0a1.tar.gz")]
        answer = self.answer(*files)
        self.assertEqual(
            {"0.9": 1, "1.0": 2, "2.0a1": 1},
            {version: len(found)
             for version, found in answer["releases"].items()})
        self.assertEqual(["foo-1.0-py3-none-any.whl", "foo-1.0.0.zip"], [
            found["filename"] for found in answer["urls"]])
        answer = self.answer(*files, whole=False, version="0.9.0")
        self.assertNotIn("releases", answer)
        self.assertEqual(["foo-0.9.tar.gz"], [
            found["filename"] for found in answer["urls"]])

    def test_release_is_yanked_when_all_its_files_are(self):
        yanked = file("foo-1.0.zip", yanked="bad")
        info = self.answer(yanked)["info"]
        self.assertEqual((True, "bad"),
                         (info["yanked"], info["yanked_reason"]))
        self.assertFalse(self.answer(yanked, file())["info"]["yanked"])
        info = self.answer(file(yanked=""))["info"]
        self.assertTrue(info["yanked"])

    def test_latest_version(self):
        for names, wanted in (
                (("foo-1.0.zip", "foo-2.0a1.zip"), "1.0"),
                (("foo-1.0.zip", "foo-1.10.zip", "foo-1.9.zip"), "1.10"),
                (("foo-1.0a1.zip", "foo-1.0.dev1.zip"), "1.0a1"),
                (("foo-1.0.zip", "Y foo-2.0.zip"), "1.0"),
                (("foo-1.0a1.zip", "Y foo-2.0.zip"), "1.0a1"),
                (("Y foo-1.0.zip", "Y foo-2.0.zip"), "2.0"),
                (("Y foo-1.0.zip", "Y foo-2.0a1.zip"), "1.0"),
                (("foo-0.1.zip", "foo-2004-final.zip"), "0.1"),
                (("foo-1.0.zip", "foo-1!0.1.zip"), "1!0.1"),
                (("foo.zip",), "")):
            with self.subTest(names):
                files = [file(name[2:], yanked="") if name[0] == "Y"
                         else file(name) for name in names]
                self.assertEqual(wanted, latest_version(files))

    def test_real_metadata(self):
        metadata = parse_metadata(archives.metadata(
            "Foo", "1.0", ["a", "b>1"], ">=3.6", "Text\n"))
        info = self.answer(file(), metadata=metadata)["info"]
        self.assertEqual(["a", "b>1"], info["requires_dist"])
        self.assertEqual("Text\n", info["description"])


TEMPLATES = (
    ("{{URL}}", NASTY, "&lt;i&gt;&amp;amp;&quot;&#x27;&lt;/i&gt; \xe4 --&gt;"
     " &lt;/body&gt; \u2028"),
    ("{{!URL}}", NASTY, NASTY), ("{{ URL }}", "a", "a"),
    ("{{! URL}}", "<", "<"), ("{{URL}}{{URL}}", "a", "aa"),
    ("{{OTHER}}", "a", "{{OTHER}}"), ("{URL}", "a", "{URL}"),
    ("{{url}}", "a", "{{url}}"), ("{{}} {{ }} {{!}}", "a", None),
    ("%(URL)s %s {} \\1", "a", "%(URL)s %s {} \\1"),
    ("{{URL}}", "\\1 {{URL}} %s", "\\1 {{URL}} %s"),
)


class TestTemplates(unittest.TestCase):
    def test_variables(self):
        for template, value, wanted in TEMPLATES:
            with self.subTest(template):
                self.assertEqual(
                    template if wanted is None else wanted,
                    fill_template(template, {"URL": value}))

    def test_unknown_variable_is_escaped_too(self):
        self.assertNotIn("<", fill_template("{{OTHER}}", {}))


if __name__ == "__main__":
    unittest.main()
