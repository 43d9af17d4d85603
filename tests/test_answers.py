"""Black box: the same requests through every way in, and every link."""

import gzip
import hashlib
import io
import json
import os
import re
import unittest
import zipfile
from urllib.parse import unquote, urljoin, urlsplit

import pypi_server
from tests import archives
from tests.helpers import (
    HOST, TRANSPORT, WAYS, SharedTestCase, anchors, ask, call, call_socket,
    entries,
    call_wsgi, listening, texts,
)

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"
PIP = JSON + ", " + HTML + "; q=0.1, text/html; q=0.01"
BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"

WHEEL = "Foo.Bar-1.0-py3-none-any.whl"
SDIST = "foo_bar-1.0.tar.gz"
CONTENTS = {
    WHEEL: archives.wheel("Foo.Bar", "1.0", ["other>=1"], ">=3.6,<4",
                          body="Stra\xdfe\n" * 3),
    SDIST: archives.sdist("foo_bar", "1.0"),
    "foo_bar-2.0a1-py3-none-any.whl": archives.wheel("foo_bar", "2.0a1"),
    "sub/dir/other-1.0.zip": archives.sdist("other", "1.0", ".zip"),
    "other-0.9-py2.7.egg": archives.egg("other", "0.9"),
}
CONTENTS.update(("many-%d.0-py3-none-any.whl" % number, archives.wheel(
    "many", "%d.0" % number)) for number in range(12))
OTHERS = {
    SDIST + ".asc": b"-----BEGIN PGP SIGNATURE-----\n",
    "foo_bar-2.0a1-py3-none-any.whl.yanked": b"broken <on> \"Tuesdays\"\n",
    "foo_bar-2.0a1-py3-none-any.whl.provenance": b'{"version": 1}',
    "foo-bar.status": b"deprecated use other & be happy",
    "broken-1.0-py3-none-any.whl": CONTENTS[WHEEL][:-9],
    "broken-1.1.tar.gz": CONTENTS[SDIST][:-9],
    "quarantined.status": b"quarantined",
    "quarantined-1.0.tar.gz": archives.sdist("quarantined", "1.0"),
    ".hidden-1.0.tar.gz": b"hidden", ".dot/in-1.0.tar.gz": b"hidden",
    "README.txt": b"no archive",
    "../outside-1.0.tar.gz": b"outside",
}
SIZE = len(CONTENTS[SDIST])


def digest(data):
    return hashlib.sha256(data).hexdigest()


def core_metadata(data):
    """Return METADATA out of a wheel."""
    with zipfile.ZipFile(io.BytesIO(data)) as wheel:
        name, = (name for name in wheel.namelist()
                 if name.endswith(".dist-info/METADATA"))
        return wheel.read(name)


def page(media_type, text=b"", **headers):
    """Return what a row expects of a page."""
    if media_type.startswith("text/"):
        media_type += "; charset=utf-8"
    return 200, dict({
        "content-type": media_type, "cache-control": "no-cache",
        "vary": "Accept, Accept-Encoding", "content-encoding": None,
        "x-content-type-options": "nosniff"}, **headers), text


def moved(location):
    """Temporary: pip keeps a permanent redirect for ever."""
    return 302, {"location": location, "cache-control": "no-store"}, b""


def missing(text=b""):
    return 404, {"content-type": "text/plain; charset=utf-8",
                 "cache-control": "no-store", "etag": None,
                 "location": None}, text


def whole(data, **headers):
    return 200, dict({
        "content-type": "application/octet-stream",
        "content-length": str(len(data)), "accept-ranges": "bytes",
        "content-encoding": None, "content-range": None,
        "cache-control": "no-cache"}, **headers), data


def part(start, stop, name=SDIST):
    data = CONTENTS[name]
    return 206, {
        "content-range": "bytes %d-%d/%d" % (start, stop - 1, len(data)),
        "content-length": str(stop - start), "accept-ranges": "bytes",
        "etag": '"%s"' % digest(data),
        "content-type": "application/octet-stream"}, data[start:stop]


NOT_ACCEPTABLE = (406, {"vary": "Accept"}, b"")
UNSATISFIABLE = (416, {"content-range": "bytes */%d" % SIZE}, b"")
FORMAT = "?format=application/vnd.pypi.simple.v1%2Bjson"

# target, request headers, (status, headers: None if absent, text in it)
ANSWERS = (
    ("/", {}, page("text/html", b'<a href="simple/">')),
    ("/", {"Accept": JSON}, page("text/html")),
    ("/?x=y", {}, page("text/html")),
    ("/health", {}, (200, {
        "content-type": "text/plain; charset=utf-8",
        "cache-control": "no-store"}, b"Ok")),
    ("/favicon.ico", {}, (
        200, {"content-type": "image/svg+xml"}, b"<svg ")),
    # The project list.
    ("/simple", {}, moved("simple/")),
    ("/simple?x=1&y", {}, moved("simple/?x=1&y")),
    ("/simple/", {}, page("text/html", b'<a href="foo-bar/">')),
    ("/simple/", {"Accept": "*/*"}, page("text/html")),
    ("/simple/", {"Accept": BROWSER}, page("text/html")),
    ("/simple/", {"Accept": PIP}, page(JSON, b'{"name":"foo-bar"}')),
    ("/simple/", {"Accept": HTML}, page(HTML, b'<a href="foo-bar/">')),
    ("/simple/" + FORMAT, {}, page(JSON)),
    ("/simple/?format=application/vnd.pypi.simple.v1+json", {}, page(JSON)),
    ("/simple/?format=application%2Fvnd.pypi.simple.latest%2Bhtml", {},
     page(HTML)),
    ("/simple/?a=b&format=text/html&c", {"Accept": PIP}, page("text/html")),
    ("/simple/?format=", {"Accept": PIP}, page(JSON)),
    ("/simple/?formats=text/html", {"Accept": PIP}, page(JSON)),
    ("/simple/?format=json", {"Accept": PIP}, NOT_ACCEPTABLE),
    ("/simple/", {"Accept": "image/png"}, NOT_ACCEPTABLE),
    ("/simple/", {"Accept": "application/vnd.pypi.simple.v2+json"},
     NOT_ACCEPTABLE),
    # Project detail.
    ("/simple/foo-bar/", {}, page("text/html", WHEEL.encode())),
    ("/simple/foo-bar/", {"Accept": PIP}, page(JSON, WHEEL.encode())),
    ("/simple/foo-bar/", {"Accept": "image/png"}, NOT_ACCEPTABLE),
    ("/simple/foo-bar", {}, moved("foo-bar/")),
    ("/simple/Foo.Bar", {}, moved("Foo.Bar/")),
    ("/simple/foo-bar" + FORMAT, {}, moved("foo-bar/" + FORMAT)),
    ("/simple/a%20b%3F%22", {}, moved("a%20b%3F%22/")),
    ("/simple/Foo.Bar/", {}, moved("../foo-bar/")),
    ("/simple/foo__bar/" + FORMAT, {}, moved("../foo-bar/" + FORMAT)),
    # Elsewhere.
    ("/simple/none/", {}, moved("https://pypi.org/simple/none/")),
    ("/simple/none/", {"Accept": PIP},
     moved("https://pypi.org/simple/none/")),
    ("/simple/None.Such/", {}, moved("https://pypi.org/simple/none-such/")),
    ("/simple/a%20b/", {}, missing(b"no project named 'a b'")),
    ("/simple/%C3%A4/", {}, missing()),
    ("/simple/%2E%2E/", {}, missing()),
    ("/simple/-/", {}, missing()),
    ("/simple/%E2%84%AA/", {}, missing()),  # the Kelvin sign, lower: k
    ("/simple/a/b/", {}, missing()),
    ("/simple/a%2Fb/", {}, missing()),
    # Withheld, so neither listed nor elsewhere.
    ("/simple/broken/", {}, page("text/html", b"Links for broken")),
    ("/simple/broken/", {"Accept": PIP}, page(JSON, b'"files":[]')),
    ("/packages/broken-1.0-py3-none-any.whl", {}, missing(b"not served")),
    ("/packages/broken-1.0-py3-none-any.whl.metadata", {}, missing()),
    ("/packages/broken-1.1.tar.gz", {}, missing(b"cut off")),
    ("/pypi/broken/json", {}, missing()),
    ("/simple/quarantined/", {"Accept": JSON}, page(JSON, b'"files":[]')),
    ("/pypi/quarantined/json", {}, missing()),
    # Archives and their companions.
    ("/packages", {}, moved("packages/")),
    ("/packages/", {}, page("text/html", b'"sub/dir/other-1.0.zip#sha256=')),
    ("/packages/" + WHEEL, {}, whole(CONTENTS[WHEEL])),
    ("/packages/" + SDIST, {"Accept-Encoding": "gzip"}, whole(
        CONTENTS[SDIST], etag='"%s"' % digest(CONTENTS[SDIST]))),
    ("/packages/foo%5Fbar-1.0.tar.g%7A", {}, whole(CONTENTS[SDIST])),
    ("/packages/" + SDIST + "?x=y", {}, whole(CONTENTS[SDIST])),
    ("/packages/sub/dir/other-1.0.zip", {}, whole(
        CONTENTS["sub/dir/other-1.0.zip"])),
    ("/packages/" + SDIST + ".asc", {}, whole(OTHERS[SDIST + ".asc"])),
    ("/packages/foo_bar-2.0a1-py3-none-any.whl.provenance", {}, whole(
        b'{"version": 1}', **{"content-type": None})),
    ("/packages/" + WHEEL + ".metadata", {}, page(
        "application/octet-stream", core_metadata(CONTENTS[WHEEL]))),
    ("/packages/" + SDIST + ".metadata", {}, missing()),
    ("/packages/other-0.9-py2.7.egg.metadata", {}, missing()),
    ("/packages/" + WHEEL + ".asc", {}, missing()),
    ("/packages/" + WHEEL + ".provenance", {}, missing()),
    ("/packages/" + WHEEL + ".metadata.metadata", {}, missing()),
    ("/packages/.asc", {}, missing()),
    ("/packages/foo_bar-2.0a1-py3-none-any.whl.yanked", {}, missing()),
    ("/packages/foo-bar.status", {}, missing()),
    ("/packages/none-1.0.tar.gz", {}, missing(b"no file named")),
    ("/packages/README.txt", {}, missing()),
    # Ways out of the directory, and into hidden ones.
    ("/packages/.hidden-1.0.tar.gz", {}, missing()),
    ("/packages/.dot/in-1.0.tar.gz", {}, missing()),
    ("/packages/other-1.0.zip", {}, missing()),
    ("/packages/sub/dir/", {}, missing()), ("/packages/sub", {}, missing()),
    ("/packages//" + SDIST, {}, missing()),
    ("/packages/./" + SDIST, {}, missing()),
    ("/packages/sub/../" + SDIST, {}, missing()),
    ("/packages/../outside-1.0.tar.gz", {}, missing()),
    ("/packages/%2e%2e/outside-1.0.tar.gz", {}, missing()),
    ("/packages/..%2Foutside-1.0.tar.gz", {}, missing()),
    ("/packages/..%5Coutside-1.0.tar.gz", {}, missing()),
    ("/packages//etc/passwd", {}, missing()),
    ("/packages/%2Fetc/passwd", {}, missing()),
    ("//packages/" + SDIST, {}, missing()),
    ("//etc/passwd", {}, missing()),
    # Ranges.
    ("/packages/" + SDIST, {"Range": "bytes=0-0"}, part(0, 1)),
    ("/packages/" + SDIST, {"Range": "bytes=5-9"}, part(5, 10)),
    ("/packages/" + SDIST, {"Range": "bytes=9-"}, part(9, SIZE)),
    ("/packages/" + SDIST, {"Range": "bytes=0-"}, part(0, SIZE)),
    ("/packages/" + SDIST, {"Range": "bytes=-7"}, part(SIZE - 7, SIZE)),
    ("/packages/" + SDIST, {"Range": "bytes=-99999"}, part(0, SIZE)),
    ("/packages/" + SDIST, {"Range": "bytes=1-99999"}, part(1, SIZE)),
    ("/packages/" + SDIST, {"Range": "bytes=%d-" % SIZE}, UNSATISFIABLE),
    ("/packages/" + SDIST, {"Range": "bytes=-0"}, UNSATISFIABLE),
    ("/packages/" + SDIST, {"Range": "bytes=5-2"}, whole(CONTENTS[SDIST])),
    ("/packages/" + SDIST, {"Range": "bytes=0-0,5-5"},
     whole(CONTENTS[SDIST])),
    ("/packages/" + SDIST, {"Range": "lines=0-1"}, whole(CONTENTS[SDIST])),
    ("/packages/" + SDIST, {
        "Range": "bytes=5-9", "If-Range": '"%s"' % digest(CONTENTS[SDIST])},
     part(5, 10)),
    ("/packages/" + SDIST, {"Range": "bytes=5-9", "If-Range": '"x"'},
     whole(CONTENTS[SDIST])),
    ("/packages/" + SDIST, {
        "Range": "bytes=5-9",
        "If-Range": 'W/"%s"' % digest(CONTENTS[SDIST])},
     whole(CONTENTS[SDIST])),
    ("/packages/" + SDIST, {
        "Range": "bytes=5-9",
        "If-Range": "Sun, 06 Nov 1994 08:49:37 GMT"},
     whole(CONTENTS[SDIST])),
    ("/packages/" + SDIST, {"If-Range": '"x"'}, whole(CONTENTS[SDIST])),
    ("/packages/" + SDIST, {
        "Range": "bytes=5-9",
        "If-None-Match": '"%s"' % digest(CONTENTS[SDIST])},
     (304, {"content-range": None}, b"")),
    ("/packages/" + SDIST + ".asc", {"Range": "bytes=0-4"},
     (206, {"content-length": "5"}, b"-----")),
    # Legacy JSON, for any spelling, without a redirect.
    ("/pypi/foo-bar/json", {}, page("application/json", b'"releases":{', **{
        "access-control-allow-origin": "*"})),
    ("/pypi/foo-bar/json/", {}, page("application/json", b'"releases":{')),
    ("/pypi/Foo.Bar/json", {}, page("application/json")),
    ("/pypi/foo__BAR/json/", {"Accept": "text/html"},
     page("application/json")),
    ("/pypi/foo-bar/1.0/json", {}, page("application/json", b'"1.0"', **{
        "access-control-allow-origin": "*"})),
    ("/pypi/Foo.Bar/1.0.0/json/", {}, page("application/json")),
    ("/pypi/foo-bar/2.0-ALPHA1/json", {}, page("application/json")),
    ("/foo-bar/json", {}, page("application/json", b'"releases":{')),
    ("/Foo.Bar/json/", {}, page("application/json", b'"releases":{')),
    ("/pypi/none/json", {}, missing()), ("/none/json/", {}, missing()),
    ("/pypi/foo-bar/9/json", {}, missing(b"no release")),
    ("/pypi/foo-bar/x/json/", {}, missing()),
    # An index URL without /simple.
    ("/foo-bar", {}, moved("simple/foo-bar/")),
    ("/foo-bar/", {}, moved("../simple/foo-bar/")),
    ("/Foo.Bar", {}, moved("simple/foo-bar/")),
    ("/none/", {}, moved("../simple/none/")),
    ("/a%20b%3F", {}, moved("simple/a%20b%3F/")),
    ("/foo-bar/" + FORMAT, {}, moved("../simple/foo-bar/" + FORMAT)),
    # Nothing.
    ("/a/b/c", {}, missing(b"nothing at this address")),
    ("/_/oidc/audience", {}, missing()),
    ("/.well-known/pytp", {}, missing()),
    ("/pypi/a/b/c/json", {}, missing()),
    ("/healthy/x", {}, missing()),
)

# method, target, status, Allow
REFUSED = (
    ("POST", "/packages/" + SDIST, 405, "GET, HEAD"),
    ("POST", "/simple/foo-bar/", 405, "GET, HEAD"),
    ("PUT", "/packages/" + SDIST, 405, "GET, HEAD"),
    ("DELETE", "/packages/" + SDIST, 405, "GET, HEAD"),
    ("DELETE", "/packages/none-1.0.tar.gz", 405, "GET, HEAD"),
    ("OPTIONS", "/health", 405, "GET, HEAD"),
    ("PATCH", "/simple/foo-bar/", 405, "GET, HEAD"),
    ("TRACE", "/health", 405, "GET, HEAD"),
    ("DELETE", "/a/b/c", 404, None),
    ("POST", "/a/b/c", 404, None),
    ("BREW", "/health", 501, None),
    ("BREW", "/a/b/c", 501, None),
)


class AnswersTestCase(SharedTestCase):
    maxDiff = None

    @classmethod
    def fill(cls, root):
        for path, data in list(CONTENTS.items()) + list(OTHERS.items()):
            archives.put(root, path, data)
        return [os.path.basename(path) for path in CONTENTS]

    def assert_answer(self, wanted, answer):
        status, headers, text = wanted
        self.assertEqual(status, answer.status)
        for name, value in headers.items():
            if name == "content-type" and value is None:
                continue
            self.assertEqual(value, answer.headers.get(name), name)
        self.assertIn(text, answer.body)


class TestAnswers(AnswersTestCase):
    def test_answers(self):
        with listening(self.app) as address:
            for target, headers, wanted in ANSWERS:
                with self.subTest(target, headers=headers):
                    answer = call(self.app, "GET", target, headers)
                    self.assert_answer(wanted, answer)
                    for other in (
                            call_wsgi(self.app, "GET", target, headers),
                            ask(*address, "GET", target, headers)):
                        self.assertEqual(answer, plain(other))

    def test_head_is_get_without_a_body(self):
        with listening(self.app) as address:
            for target, headers, _ in ANSWERS:
                if "Range" in headers:
                    continue
                with self.subTest(target, headers=headers):
                    answer = call(self.app, "GET", target, headers)
                    answer = answer._replace(body=b"")
                    for head in (
                            call(self.app, "HEAD", target, headers),
                            call_wsgi(self.app, "HEAD", target, headers),
                            ask(*address, "HEAD", target, headers)):
                        self.assertEqual(answer, plain(head))

    def test_head_ignores_ranges(self):
        for way in WAYS:
            for text in "bytes=0-0", "bytes=99999-":
                answer = way(self.app, "HEAD", "/packages/" + SDIST,
                             {"Range": text})
                self.assertEqual(200, answer.status)
                self.assertEqual(str(SIZE), answer.headers["content-length"])

    def test_refused_methods(self):
        for way in WAYS:
            for method, target, status, allow in REFUSED:
                with self.subTest(way=way.__name__, method=method,
                                  target=target):
                    answer = way(self.app, method, target)
                    self.assertEqual(status, answer.status)
                    self.assertEqual(allow, answer.headers.get("allow"))

    def test_allow_is_sorted_and_complete(self):
        for target in "/", "/simple/", "/pypi/":
            allow = call(self.app, "DELETE", target).headers["allow"]
            self.assertEqual("GET, HEAD, POST", allow)

    def test_redirects_stay_on_this_server(self):
        """Relative, so that a proxy may mount the index anywhere."""
        for target, headers, wanted in ANSWERS:
            if wanted[0] == 302 and "pypi.org" not in str(wanted):
                location = call(
                    self.app, "GET", target, headers).headers["location"]
                parts = urlsplit(location)
                self.assertEqual(("", ""), (parts.scheme, parts.netloc))
                self.assertFalse(location.startswith("/"), location)
                self.assertRegex(location, r"\A[!-~]+\Z")
                self.assertNotIn("\\", location)

    def test_redirects_lead_to_pages(self):
        for target in ("/simple", "/simple/foo-bar", "/simple/Foo.Bar",
                       "/simple/Foo.Bar/", "/packages", "/foo-bar",
                       "/Foo.Bar/", "/simple/broken"):
            with self.subTest(target):
                for _ in range(3):
                    answer = call(self.app, "GET", target)
                    if answer.status == 200:
                        break
                    self.assertEqual(302, answer.status)
                    target = urljoin(target, answer.headers["location"])
                self.assertEqual(200, answer.status)
                self.assertIn(target, (
                    "/simple/", "/packages/", "/simple/foo-bar/",
                    "/simple/broken/"))

    def test_bug_is_a_logged_500(self):
        app = self.app._replace(pages=None)
        for way in (call, call_socket):
            with self.assertLogs("pypi_server", "ERROR") as logs:
                answer = way(app, "GET", "/simple/?secret")
            self.assertEqual(500, answer.status)
            self.assertEqual(b"internal server error\n", answer.body)
            self.assertIn("Traceback", logs.output[0])


def plain(answer):
    """Return an answer without the headers that only a socket has."""
    return answer._replace(headers={
        name: text for name, text in answer.headers.items()
        if name not in TRANSPORT})


class TestPages(AnswersTestCase):
    def json(self, target, **headers):
        answer = call(self.app, "GET", target, headers)
        self.assertEqual(200, answer.status)
        return json.loads(answer.body.decode("utf-8"))

    def test_html_and_json_agree(self):
        for name in texts(call(self.app, "GET", "/simple/").body):
            target = "/simple/%s/" % name
            found = self.json(target, Accept=JSON)
            links = anchors(call(self.app, "GET", target).body)
            self.assertEqual(len(links), len(found["files"]))
            for (attributes, text), file in zip(links, found["files"]):
                url, _, fragment = attributes["href"].partition("#")
                self.assertEqual((text, url),
                                 (file["filename"], file["url"]))
                self.assertEqual(
                    fragment, "sha256=" + file["hashes"]["sha256"])
                for key in ("requires-python", "provenance"):
                    self.assertEqual(attributes.get("data-" + key),
                                     file.get(key))

    def test_detail(self):
        found = self.json("/simple/foo-bar/", Accept=PIP)
        self.assertEqual("foo-bar", found["name"])
        self.assertEqual(["1.0", "2.0a1"], found["versions"])
        self.assertEqual(
            {"status": "deprecated", "reason": "use other & be happy"},
            found["project-status"])
        files = {file["filename"]: file for file in found["files"]}
        self.assertEqual(
            [WHEEL, SDIST, "foo_bar-2.0a1-py3-none-any.whl"], list(files))
        for name, file in files.items():
            self.assertEqual(len(CONTENTS[name]), file["size"])
            self.assertEqual({"sha256": digest(CONTENTS[name])},
                             file["hashes"])
        self.assertEqual(">=3.6,<4", files[WHEEL]["requires-python"])
        self.assertEqual(
            {"sha256": digest(core_metadata(CONTENTS[WHEEL]))},
            files[WHEEL]["core-metadata"])
        self.assertNotIn("core-metadata", files[SDIST])
        self.assertTrue(files[SDIST]["gpg-sig"])
        last = found["files"][2]
        self.assertFalse(last["gpg-sig"])
        self.assertEqual('broken <on> "Tuesdays"', last["yanked"])
        self.assertEqual(
            "http://%s/packages/%s.provenance" % (HOST, last["filename"]),
            last["provenance"])

    def test_upload_time_is_the_modification_time(self):
        file = self.json("/simple/foo-bar/", Accept=JSON)["files"][0]
        path = os.path.join(self.root, WHEEL)
        moment = pypi_server.moment_of(os.stat(path).st_mtime_ns)
        self.assertEqual(moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                         file["upload-time"])

    def test_legacy_json(self):
        found = self.json("/pypi/foo-bar/json")
        self.assertEqual("1.0", found["info"]["version"])
        self.assertEqual("Foo.Bar", found["info"]["name"])
        self.assertEqual(["other>=1"], found["info"]["requires_dist"])
        self.assertIn("Stra\xdfe", found["info"]["description"])
        self.assertEqual(["1.0", "2.0a1"], list(found["releases"]))
        for file in sum(found["releases"].values(), []):
            data = CONTENTS[file["filename"]]
            self.assertEqual({
                "md5": hashlib.md5(data).hexdigest(),
                "sha256": digest(data),
                "blake2b_256": hashlib.blake2b(
                    data, digest_size=32).hexdigest()}, file["digests"])
            self.assertEqual(
                "http://%s/packages/%s" % (HOST, file["filename"]),
                file["url"])
        found = self.json("/pypi/foo-bar/2.0a1/json")
        self.assertEqual("2.0a1", found["info"]["version"])
        self.assertTrue(found["info"]["yanked"])
        self.assertNotIn("releases", found)
        self.assertEqual(1, len(found["urls"]))

    def test_nothing_is_offered_in_quarantine(self):
        """PEP 792: such files must not be offered, on any page."""
        for target in ("/packages/", "/simple/quarantined/"):
            self.assertNotIn(b"quarantined-1.0", call(
                self.app, "GET", target).body)

    def test_withheld_files_are_on_no_list(self):
        for target in ("/packages/", "/simple/broken/"):
            for accept in ("text/html", PIP):
                self.assertNotIn(b"broken-1", call(
                    self.app, "GET", target, {"Accept": accept}).body)

    def test_all_archives(self):
        links = entries(call(self.app, "GET", "/packages/").body)
        self.assertEqual(
            sorted("%s#sha256=%s" % (
                location, hashlib.sha256(CONTENTS[location]).hexdigest())
                for location in CONTENTS),
            sorted(attributes["href"] for attributes, _ in links))


class TestCaching(AnswersTestCase):
    PAGES = ("/", "/simple/", "/simple/many/", "/packages/",
             "/pypi/many/json", "/packages/" + WHEEL + ".metadata")

    def get(self, target, **headers):
        return call(self.app, "GET", target, {
            name.replace("_", "-"): text for name, text in headers.items()})

    def test_not_modified(self):
        for way in WAYS:
            for target in self.PAGES + ("/packages/" + WHEEL,):
                for coding in "identity", "gzip":
                    with self.subTest(target, way=way.__name__):
                        headers = {"Accept-Encoding": coding}
                        first = way(self.app, "GET", target, headers)
                        for text in (first.headers["etag"], "*",
                                     'W/' + first.headers["etag"],
                                     '"x", ' + first.headers["etag"]):
                            headers["If-None-Match"] = text
                            again = way(self.app, "GET", target, headers)
                            self.assertEqual((304, b""),
                                             (again.status, again.body))
                            for name in "etag", "cache-control", "vary":
                                self.assertEqual(first.headers.get(name),
                                                 again.headers.get(name))
                            for name in ("content-type", "content-length",
                                         "content-encoding"):
                                self.assertNotIn(name, again.headers)
                        headers["If-None-Match"] = '"x"'
                        self.assertEqual(200, way(
                            self.app, "GET", target, headers).status)

    def test_times_of_archives(self):
        """As `curl -z` and `wget -N` ask, which know no ETag."""
        target = "/packages/" + WHEEL
        first = self.get(target)
        then = first.headers["last-modified"]
        early, late = ("Thu, 01 Jan 1998 00:00:00 GMT",
                       "Thu, 01 Jan 2099 00:00:00 GMT")
        tag = first.headers["etag"]
        for headers, status in (
                ({"If-Modified-Since": then}, 304),
                # With its first time, a file may have come back.
                ({"If-Modified-Since": late}, 200),
                ({"If-Modified-Since": early}, 200),
                ({"If-Modified-Since": "yesterday"}, 200),
                ({"If-Modified-Since": then, "If-None-Match": '"x"'}, 200),
                ({"If-Match": tag}, 200), ({"If-Match": "*"}, 200),
                ({"If-Match": '"x"'}, 412),
                ({"If-Match": 'W/"x", W/' + tag}, 412),
                ({"If-Match": '"x"', "Range": "bytes=5-"}, 412),
                ({"If-Unmodified-Since": then}, 200),
                ({"If-Unmodified-Since": late, "Range": "bytes=5-"}, 206),
                ({"If-Unmodified-Since": early}, 412),
                ({"If-Unmodified-Since": "x"}, 200),
                ({"If-Unmodified-Since": early, "If-Match": tag}, 200)):
            for way in WAYS:
                with self.subTest(headers, way=way.__name__):
                    answer = way(self.app, "GET", target, headers)
                    self.assertEqual(status, answer.status)
                    if status == 304:
                        self.assertEqual(b"", answer.body)
                        self.assertEqual(tag, answer.headers["etag"])

    def test_one_etag_for_each_representation(self):
        for target in "/simple/", "/simple/many/":
            tags = {}
            for accept in JSON, "text/html":
                for coding in "identity", "gzip":
                    answer = self.get(target, Accept=accept,
                                      Accept_Encoding=coding)
                    tag = answer.headers["etag"]
                    self.assertRegex(tag, r'\A"[!#-~]+"\Z')
                    tags.setdefault(tag, answer.body)
                    self.assertEqual(tags[tag], answer.body)
            self.assertEqual(
                4 if target == "/simple/many/" else len(set(tags.values())),
                len(tags))

    def test_etag_of_another_representation_does_not_match(self):
        tag = self.get("/simple/many/", Accept=JSON).headers["etag"]
        self.assertEqual(200, self.get(
            "/simple/many/", Accept="text/html", If_None_Match=tag).status)
        self.assertEqual(200, self.get(
            "/simple/many/", Accept=JSON, Accept_Encoding="gzip",
            If_None_Match=tag).status)

    def test_etags_survive_a_restart(self):
        app = self.make_app()
        for target in self.PAGES[1:]:
            self.assertEqual(
                self.get(target).headers["etag"],
                call(app, "GET", target).headers["etag"], target)

    def test_gzip(self):
        for target in self.PAGES[2:5]:
            for accept in "*/*", JSON:
                with self.subTest(target, accept=accept):
                    whole = self.get(target, Accept=accept)
                    for way in WAYS:
                        answer = way(self.app, "GET", target, {
                            "Accept": accept,
                            "Accept-Encoding": "gzip, deflate"})
                        self.assertEqual(
                            "gzip", answer.headers["content-encoding"])
                        self.assertEqual(
                            str(len(answer.body)),
                            answer.headers["content-length"])
                        self.assertLess(len(answer.body), len(whole.body))
                        self.assertEqual(
                            whole.body, gzip.decompress(answer.body))
                        self.assertEqual(whole.headers["vary"],
                                         answer.headers["vary"])
                    for coding in "identity", "gzip;q=0", "br", "":
                        answer = self.get(target, Accept=accept,
                                          Accept_Encoding=coding)
                        self.assertEqual(whole, answer)

    def test_archives_are_never_encoded(self):
        for name, data in CONTENTS.items():
            answer = self.get("/packages/" + name,
                              Accept_Encoding="gzip, br, *")
            self.assertEqual(data, answer.body)
            self.assertNotIn("content-encoding", answer.headers)

    def test_cache_control_of_downloads(self):
        app = self.make_app(cache_control=3600)
        for target, wanted in (
                ("/packages/" + WHEEL, "max-age=3600"),
                ("/packages/" + SDIST, "max-age=3600"),
                ("/simple/", "no-cache"), ("/simple/foo-bar/", "no-cache")):
            self.assertEqual(wanted, call(
                app, "GET", target).headers["cache-control"])
        answer = call(app, "GET", "/packages/" + WHEEL,
                      {"If-None-Match": "*"})
        self.assertEqual("max-age=3600", answer.headers["cache-control"])

    def test_last_modified(self):
        answer = self.get("/packages/" + WHEEL)
        seconds = os.path.getmtime(os.path.join(self.root, WHEEL))
        self.assertEqual(pypi_server.http_date(seconds),
                         answer.headers["last-modified"])


class TestErrors(AnswersTestCase):
    TARGET = "/packages/%3Cb%3E%22%C3%A4%E4%BD%A0-1.0.tar.gz"

    def test_as_the_client_accepts_them(self):
        for way in WAYS:
            for accept, media_type in (
                    ("", "text/plain; charset=utf-8"),
                    ("*/*", "text/plain; charset=utf-8"),
                    (BROWSER, "text/html; charset=utf-8"),
                    ("application/json", "application/json"),
                    ("image/png", "text/plain; charset=utf-8")):
                with self.subTest(way=way.__name__, accept=accept):
                    answer = way(self.app, "GET", self.TARGET,
                                 {"Accept": accept} if accept else {})
                    self.assertEqual(404, answer.status)
                    self.assertEqual(
                        media_type, answer.headers["content-type"])
                    self.assertEqual(str(len(answer.body)),
                                     answer.headers["content-length"])
                    if media_type.startswith("text/html"):
                        self.assertNotIn(b"<b>", answer.body)
                        self.assertIn(b"&lt;b&gt;", answer.body)
                    else:
                        self.assertLess(len(answer.body), 300)

    def test_sentence_is_in_reason_and_body(self):
        for way in WAYS:
            answer = way(self.app, "GET", "/pypi/foo-bar/9/json",
                         {"Accept": "application/json"})
            sentence = "no release '9' of 'foo-bar'"
            self.assertEqual(sentence, answer.reason)
            self.assertEqual(
                {"message": sentence, "title": "Not Found",
                 "code": "404 " + sentence},
                json.loads(answer.body.decode()))
            answer = way(self.app, "GET", "/pypi/foo-bar/9/json")
            self.assertEqual(sentence + "\n", answer.body.decode())

    def test_long_name_makes_no_long_status_line(self):
        for way in WAYS:
            answer = way(self.app, "GET", "/packages/" + "x" * 5000)
            self.assertEqual(404, answer.status)
            self.assertLessEqual(len(answer.reason), 200)


class TestSettings(AnswersTestCase):
    def test_fallback(self):
        for url, wanted in (
                ("https://mirror.example/root/simple",
                 "https://mirror.example/root/simple/none/"),
                ("http://mirror.example/x/", "http://mirror.example/x/none/")
                ):
            app = self.make_app(fallback_url=url)
            self.assertEqual(wanted, call(
                app, "GET", "/simple/none/").headers["location"])

    def test_no_fallback(self):
        app = self.make_app(disable_fallback=True)
        for way in WAYS:
            answer = way(app, "GET", "/simple/none/", {"Accept": PIP})
            self.assertEqual(404, answer.status)
            self.assertNotIn("location", answer.headers)
            self.assertEqual(200, way(app, "GET", "/simple/broken/").status)
            self.assertEqual(302, way(app, "GET", "/simple/Foo.Bar/").status)

    def test_health_endpoint(self):
        app = self.make_app(health_endpoint="/alive/and.well")
        for way in WAYS:
            self.assertEqual(b"Ok", way(app, "GET", "/alive/and.well").body)
            self.assertEqual(302, way(app, "GET", "/health").status)
            self.assertEqual(404, way(app, "GET", "/alive/and-well").status)

    def test_hash_algo(self):
        for algorithm, wanted in (
                ("md5", "md5=" + hashlib.md5(CONTENTS[SDIST]).hexdigest()),
                ("sha512", "sha512=" + hashlib.sha512(
                    CONTENTS[SDIST]).hexdigest()), ("", "")):
            app = self.make_app(hash_algo=algorithm)
            for attributes, text in anchors(call(
                    app, "GET", "/simple/foo-bar/").body):
                if text == SDIST:
                    self.assertEqual(
                        wanted, urlsplit(attributes["href"]).fragment)
            found = json.loads(call(app, "GET", "/simple/foo-bar/", {
                "Accept": JSON}).body.decode())
            self.assertEqual({"sha256"}, set(found["files"][0]["hashes"]))

    def test_prefix(self):
        app = self.make_app(server_base_url="/a/b")
        for target, status in (
                ("/a/b/", 200), ("/a/b/simple/", 200), ("/a/b/health", 200),
                ("/a/b/packages/" + WHEEL, 200), ("/a/b/simple", 302),
                ("/a/b/pypi/foo-bar/json", 200), ("/", 404), ("/a/", 404),
                ("/simple/", 404), ("/a/bsimple/", 404), ("/health", 404)):
            with self.subTest(target):
                answer = call(app, "GET", target)
                self.assertEqual(status, answer.status)
                for way in WAYS[1:]:
                    self.assertEqual(answer, plain(way(app, "GET", target)))
        found = json.loads(call(
            app, "GET", "/a/b/pypi/foo-bar/json").body.decode())
        self.assertEqual("http://%s/a/b/packages/%s" % (HOST, WHEEL),
                         found["urls"][0]["url"])

    def test_base_url(self):
        app = self.make_app(
            server_base_url="https://public.example:8443/pypi")
        for way in WAYS:
            found = json.loads(way(
                app, "GET", "/pypi/pypi/foo-bar/json").body.decode())
            self.assertEqual(
                "https://public.example:8443/pypi/packages/" + WHEEL,
                found["urls"][0]["url"])

    def test_wsgi_mount_point(self):
        answer = call_wsgi(
            self.app, "GET", "/pypi/foo-bar/json", script="/mount/here")
        self.assertEqual(
            "http://%s/mount/here/packages/%s" % (HOST, WHEEL),
            json.loads(answer.body.decode())["urls"][0]["url"])

    def test_forwarding_proxy(self):
        headers = {"X-Forwarded-Proto": "https",
                   "X-Forwarded-Host": "liar.example, public.example:444",
                   "X-Forwarded-Prefix": "/below",
                   "X-Forwarded-For": "10.9.8.7"}
        public = "https://public.example:444/below/"
        for proxies, wanted in (
                (("127.0.0.1",), public), (("127.0.0.0/8", "::1"), public),
                ((), "http://%s/" % HOST),
                (("10.0.0.0/8", "192.168.1.1"), "http://%s/" % HOST)):
            app = self.make_app(trusted_proxies=proxies)
            for way in WAYS:
                with self.subTest(proxies, way=way.__name__):
                    found = json.loads(way(
                        app, "GET", "/pypi/foo-bar/json", headers
                    ).body.decode())
                    self.assertEqual(wanted + "packages/" + WHEEL,
                                     found["urls"][0]["url"])
                    self.assertEqual("../foo-bar/", way(
                        app, "GET", "/simple/Foo.Bar/", headers
                    ).headers["location"])

    def test_lies_of_a_trusted_proxy_do_no_harm(self):
        app = self.make_app(trusted_proxies=("127.0.0.1",))
        for name, text in (("Host", "a\"><b"), ("Host", "a b"),
                           ("Proto", "javascript"), ("Prefix", "/\"><b>")):
            answer = call(app, "GET", "/",
                          {"X-Forwarded-" + name: text})
            self.assertEqual(200, answer.status)
            self.assertNotIn(b"<b>", answer.body)
            self.assertNotIn(b"javascript", answer.body)

    def test_host_is_escaped(self):
        answer = call(self.app, "GET", "/", {"Host": "x\"><b>y"})
        self.assertNotIn(b"<b>", answer.body)

    def test_welcome_file(self):
        path = os.path.join(self.folder, "welcome.html")
        with open(path, "w", encoding="utf-8") as file:
            file.write("<p>\xdcber {{NUMPKGS}} in {{VERSION}} at {{URL}} and "
                       "{{!URL}}, <a href='{{SIMPLE}}'>a</a>, "
                       "<a href='{{PACKAGES}}'>b</a> {{OTHER}} { } %s</p>")
        app = self.make_app(welcome_file=path)
        answer = call(app, "GET", "/")
        for way in WAYS[1:]:
            self.assertEqual(answer, plain(way(app, "GET", "/")))
        self.assertEqual("text/html; charset=utf-8",
                         answer.headers["content-type"])
        count = len(CONTENTS) + 3  # two broken, one in quarantine
        url = "http://%s/" % HOST
        text = answer.body.decode("utf-8")
        self.assertTrue(re.match(
            r"<p>\xdcber (%d|%d) in %s at %s and %s, " % (
                count, len(CONTENTS), re.escape(pypi_server.__version__),
                url, url), text), text)
        self.assertTrue(text.endswith(" {{OTHER}} { } %s</p>"), text)
        self.assertEqual(["/simple/", "/packages/"], [
            urlsplit(urljoin(url, attributes["href"])).path
            for attributes, _ in anchors(answer.body)])


COMPANIONS = pypi_server.COMPANIONS + (pypi_server.METADATA,)
# Names that URLs and HTML must escape, in directories of such names.
FOLDERS = ("", "a b/", "<&>'\"/", "100%/#?+!/", "\xfc\u4f60/", "x:y;z=@,$/",
           "%41/", "_...~^[]{}|`\\/")
STEMS = ("plain-1.0", "plus-1.0+local.1", "epoch-1!2.0", "per%cent-1%41",
         "ha#sh-1#2", "que?ry-1?2=3&4", "am&p-1&amp;2", "quo'te-1'2",
         "dou\"ble-1\"2", "less<b>-1<i>2", "s p a c e-1 0 ", "semi;-1;2",
         "col:on-1:2", "\xfcml\xe4ut-1.0", "\u4f60\u597d-1.0",
         "e\u0301-1.0", "back\\slash-1\\2", "bra[ck]et{s}-1",
         "tilde~-1~2", "json-1.0", "simple-1.0", "packages-1.0",
         "pypi-1.0", "health-1.0", "Mixed.Case_and-dash-1.0",
         "dol$lar,com=ma-1", "a@b-1@2", "\U0001f40d-1.0")


class TestEveryLink(SharedTestCase):
    """Walk the pages as a client does: each link gives its own file."""

    @classmethod
    def fill(cls, root):
        cls.contents = {}
        for number, stem in enumerate(STEMS):
            for place in (number, number * 3 + 1):
                folder = FOLDERS[place % len(FOLDERS)]
                for kind in (".tar.gz", ".zip"):
                    path = folder + "%s-%d" % (stem, place) + kind
                    cls.contents[path] = archives.sdist(
                        "x", "1", kind, files={"path": path.encode()})
        for folder in FOLDERS:
            for build in ("", "-1"):
                path = "%sWh.eel-%d+lo.cal%s-py3-none-any.whl" % (
                    folder, FOLDERS.index(folder), build)
                cls.contents[path] = archives.wheel(
                    "Wh.eel", "1", body=path)
        for path, data in cls.contents.items():
            archives.put(root, path, data)
        archives.put(root, path + ".provenance", b"{}")
        archives.put(root, path + ".asc", b"sig")
        return [path.rpartition("/")[2] for path in cls.contents]

    def walk(self, get, start):
        """Follow every link; return {path: (body, fragment)} of files."""
        files, queue, done = {}, [start], set()
        while queue:
            url = queue.pop()
            target, _, fragment = url.partition("#")
            parts = urlsplit(target)
            self.assertEqual(HOST, parts.netloc)
            if url in done:
                continue
            done.add(url)
            answer = get(target[len("http://" + HOST):])
            if answer.status == 302:
                queue.append(urljoin(target, answer.headers["location"]))
                continue
            self.assertEqual(200, answer.status, url)
            if not answer.headers["content-type"].startswith("text/html"):
                path = unquote(parts.path).partition("/packages/")[2]
                if path and not path.endswith(COMPANIONS):
                    files.setdefault(path, []).append(
                        (answer.body, fragment))
                continue
            for attributes, text in anchors(answer.body):
                link = urljoin(target, attributes["href"])
                if link.startswith("https://"):  # of a description
                    continue
                name = unquote(urlsplit(link).path.rpartition("/")[2])
                if "/packages/" in link and name \
                        and not name.endswith(COMPANIONS):
                    self.assertEqual(text, name)
                queue.append(link)
        return files

    def assert_complete(self, files):
        self.assertEqual(set(self.contents), set(files))
        for path, found in files.items():
            # From the project page, with its digest, from that for people
            # and from the list of all archives, which is one address.
            self.assertEqual(2, len(found), path)
            for body, fragment in found:
                self.assertEqual(self.contents[path], body)
                self.assertIn(fragment, ("", "sha256=" + digest(body)))
            self.assertNotEqual("", found[0][1] or found[1][1])

    def test_from_the_home_page(self):
        with listening(self.app) as address:
            for get in (
                    lambda target: call(self.app, "GET", target),
                    lambda target: call_wsgi(self.app, "GET", target),
                    lambda target: ask(*address, "GET", target)):
                self.assert_complete(self.walk(get, "http://%s/" % HOST))

    def test_below_a_prefix(self):
        app = self.make_app(server_base_url="/a/b")
        for start in "/a/b/", "/a/b":
            with self.subTest(start):
                self.assert_complete(self.walk(
                    lambda target: call(app, "GET", target),
                    "http://%s%s" % (HOST, start)))

    def test_below_a_wsgi_mount_point(self):
        def get(target):
            self.assertTrue((target + "/").startswith("/mount/"), target)
            return call_wsgi(self.app, "GET", target[6:], script="/mount")
        for start in "/mount/", "/mount":
            with self.subTest(start):
                self.assert_complete(self.walk(
                    get, "http://%s%s" % (HOST, start)))

    def test_json(self):
        """What JSON names is there: files, metadata, provenance."""
        def fetch(url):
            return call(self.app, "GET", url[len("http://" + HOST):])
        start = "http://%s/simple/" % HOST
        names = json.loads(call(self.app, "GET", "/simple/", {
            "Accept": JSON}).body.decode("utf-8"))["projects"]
        found = set()
        for name in names:
            page = urljoin(start, pypi_server.quote(name["name"]) + "/")
            files = json.loads(call(self.app, "GET", urlsplit(page).path, {
                "Accept": JSON}).body.decode("utf-8"))["files"]
            for file in files:
                url = urljoin(page, file["url"])
                data = fetch(url).body
                self.assertEqual(file["hashes"]["sha256"], digest(data))
                self.assertEqual(file["size"], len(data))
                path = unquote(urlsplit(url).path)[len("/packages/"):]
                self.assertEqual(self.contents[path], data)
                self.assertEqual(file["filename"], path.rpartition("/")[2])
                found.add(path)
                if "core-metadata" in file:
                    metadata = fetch(url + ".metadata").body
                    self.assertEqual(core_metadata(data), metadata)
                    self.assertEqual({"sha256": digest(metadata)},
                                     file["core-metadata"])
                if "provenance" in file:
                    self.assertEqual(b"{}", fetch(file["provenance"]).body)
                if file.get("gpg-sig"):
                    self.assertEqual(b"sig", fetch(url + ".asc").body)
        self.assertEqual(set(self.contents), found)

    def test_legacy_json(self):
        for name in texts(call(self.app, "GET", "/simple/").body):
            for pattern in "/pypi/%s/json", "/%s/json/":
                if pattern % name in ("/packages/json/", "/simple/json/"):
                    continue  # those are a file and a project
                answer = call(self.app, "GET",
                              pattern % pypi_server.quote(name))
                self.assertEqual(200, answer.status, name)
                for file in sum(json.loads(answer.body.decode("utf-8"))
                                ["releases"].values(), []):
                    target = file["url"][len("http://" + HOST):]
                    self.assertEqual(file["digests"]["sha256"], digest(
                        call(self.app, "GET", target).body))

    def test_redirects_keep_the_name(self):
        for name in texts(call(self.app, "GET", "/simple/").body):
            quoted = pypi_server.quote(name)
            for target in "/simple/" + quoted, "/%s" % quoted:
                if name in ("simple", "packages", "health"):
                    continue
                answer = call(self.app, "GET", target)
                self.assertEqual("/simple/%s/" % quoted, urljoin(
                    target, answer.headers["location"]))


if __name__ == "__main__":
    unittest.main()
