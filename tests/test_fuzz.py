"""Inputs that nobody thought of, for everything that parses.

Hypothesis looks for them where it is installed, the same ones in each run;
PYPI_SERVER_FUZZ=10000 makes it look at so many, and others each time.  What
it ever found is in corpus.json, {check: [input]}, and tried everywhere.
"""

import contextlib
import io
import json
import os
import re
import socket
import struct
import unittest

import pypi_server
from pypi_server import HTTPError
from tests import archives
from tests.helpers import SharedTestCase, listening
from tests.test_multipart import TOKENS, FuzzTest

try:
    import hypothesis
    from hypothesis import strategies
except ImportError:
    hypothesis = None

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLES = int(os.environ.get("PYPI_SERVER_FUZZ", "300"))
WHEEL = "foo-1.0-py3-none-any.whl"
DATA = archives.wheel("foo", "1.0")
SDIST = "foo-1.0.tar.gz"
TAR = archives.sdist("foo", "1.0")
# Pieces that grammars are made of.
HEAD_WORDS = (
    b"GET", b"POST", b"HEAD", b" ", b"/", b"/simple/", b"/health", b"%2e",
    b"%00", b"?a=b", b"#", b"http://a", b" HTTP/1.1", b" HTTP/1.0",
    b" HTTP/2.0", b"\r\n", b"\n", b"\r", b"\t", b":", b"Host: a",
    b"Host:", b"Content-Length: 3", b"Content-Length: 0",
    b"Content-Length: ", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: ", b"Expect: 100-continue", b"Connection: close",
    b"X: y", b"\0", b"\xff", b"\r\n\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n",
    b"0;x\r\n", b"-", b"+", b"_", b",", b"chunked", b"3",
    b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
TEXT_WORDS = tuple(
    "a 1 . - _ + ! 0 rc post dev v py3 none any cp311 win32 .whl .tar.gz "
    ".zip .egg .exe .msi \0 / \\ .. % é \ud800 \u202e ; , q= = * / text/html "
    "application/json gzip bytes 999999999999999999999 $apr1$ $6$ {SHA} "
    "rounds=1000 : # \n \r \t \" ' Name Version Metadata-Version "
    "Basic xmlrpc".split(" ")) + (" ", "")
XML_WORDS = (b"<?xml version='1.0'?>", b"<methodCall>", b"<methodName>",
             b"search", b"</methodName>", b"<params>", b"<param>", b"<value>",
             b"<struct>", b"<member>", b"<name>", b"name", b"</name>",
             b"<array>", b"<data>", b"<string>", b"x", b"</string>",
             b"<int>", b"9" * 5000, b"</int>", b"<nil/>", b"</value>",
             b"</member>", b"</struct>", b"</param>", b"</params>",
             b"</methodCall>", b"&lt;", b"&x;", b"<!ENTITY", b"\xff")


def no_address():
    return pypi_server.Archive("/root", "", WHEEL, "foo", "1.0",
                               "bdist_wheel")


class Checks:
    """What holds for any input; each method takes one."""

    def head(self, data):
        try:
            head = pypi_server.parse_head(data)
        except HTTPError as error:
            assert error.status in (400, 414, 431, 505), error
            return
        assert re.fullmatch("[!-~]+", head.target)
        for name, text in head.headers.items():
            assert re.fullmatch("[!-~]+", name) and ":" not in name
            assert not re.search("[\0-\x08\x0a-\x1f\x7f]", text)
        try:
            length = pypi_server.body_length(head)
        except HTTPError as error:
            assert error.status in (400, 501)
        else:
            assert length is None or length >= 0
            assert not ("content-length" in head.headers
                        and "transfer-encoding" in head.headers)

    def target(self, text):
        try:
            path, _ = pypi_server.split_target(text)
        except HTTPError as error:
            assert error.status == 400
        else:
            assert path.startswith("/")
            assert not re.search("[\0-\x1f\x7f]", path)
            path.encode("utf-8")

    def accept(self, text):
        offers = (pypi_server.SIMPLE_JSON, pypi_server.HTML)
        assert pypi_server.choose_media_type(text, offers) in (*offers, None)
        assert pypi_server.accepts_gzip(text) in (True, False)
        pypi_server.matches_etag(text, '"x"')

    def ranges(self, text):
        for size in (0, 1, 1000):
            try:
                found = pypi_server.parse_range("bytes=" + text, size)
            except HTTPError as error:
                assert error.status == 416
            else:
                assert found is None or (
                    found[0] >= 0 and found[1] > 0
                    and sum(found) <= size), found

    def filename(self, text):
        found = pypi_server.parse_filename(text)
        if found is not None:
            assert found.project == pypi_server.normalize(found.project)
            pypi_server.version_key(found.version)
            pypi_server.spelling(pypi_server.Archive(
                "/root", "", text, *found))

    def version(self, text):
        normal = pypi_server.normalize_version(text)
        assert pypi_server.normalize_version(normal) == normal
        assert pypi_server.version_key(normal) == \
            pypi_server.version_key(text)
        # All versions can be ordered.
        sorted([text, normal, "1.0", "1.0+a.1", "1.0rc1", "x"],
               key=pypi_server.version_key)

    def metadata(self, data):
        fields = pypi_server.parse_metadata(data)
        for name in ("name", "version", "summary", "requires-python"):
            text = pypi_server.first(fields, name)
            assert "\n" not in text and "\r" not in text
        pypi_server.make_facts(no_address(), data, {})

    def htpasswd(self, text):
        users, problems = pypi_server.parse_htpasswd(text)
        for user, digest in users.items():
            assert user and ":" not in user + digest
            if not re.search("rounds=[0-9]{5}", digest):
                assert pypi_server.verify_password(
                    b"secret", digest, lambda *_: None) in (True, False, None)
        assert all(isinstance(problem, str) for problem in problems)

    def basic(self, text):
        found = pypi_server.parse_basic("Basic " + text)
        assert found is None or ":" not in found[0]
        pypi_server.parse_basic(text)

    def boundary(self, text):
        try:
            found = pypi_server.boundary_of("multipart/form-data" + text)
        except HTTPError as error:
            assert error.status in (400, 415)
        else:
            assert 1 <= len(found) <= 70

    def form(self, data):
        FuzzTest().check(data, 1)

    def tar(self, data):
        for check in (None, lambda name: None):
            scanner = pypi_server.TarScanner(check)
            try:
                scanner.feed(data)
            except ValueError:
                assert check
            assert len(scanner.buffer) <= len(data)

    def zip_end(self, data):
        with contextlib.suppress(ValueError):
            file = io.BytesIO(data)
            for member in pypi_server.zip_members(file):
                b"".join(pypi_server.unpacked(file, member))

    def damaged(self, data):
        """(where, what) pairs: bytes that replace those of an archive."""
        for filename, whole, kind in ((WHEEL, DATA, "bdist_wheel"),
                                      (SDIST, TAR, "sdist")):
            damaged = bytearray(whole)
            for at in range(0, len(data) - 3, 3):
                where, what = struct.unpack_from("HB", data, at)
                damaged[where % len(damaged)] = what
            archive = no_address()._replace(filename=filename, filetype=kind)
            facts = pypi_server.read_archive(
                io.BytesIO(bytes(damaged)), archive, ["sha256"])
            assert facts.problem or facts.digests

    def xml(self, data):
        request = pypi_server.Request(
            "POST", "/RPC2", "", {}, io.BytesIO(data).read, "", "")
        try:
            names, summaries, combine = pypi_server.parse_search(request)
        except HTTPError as error:
            assert error.status in (400, 413)
        else:
            assert combine in (any, all)
            assert all(isinstance(term, str) for term in names + summaries)

    def seconds(self, text):
        for number in re.findall("-?[0-9]{1,30}", text):
            pypi_server.http_date(int(number))
            pypi_server.moment_of(int(number))

    def cached(self, text):
        for parse in (pypi_server.parse_identity, pypi_server.parse_digests):
            with contextlib.suppress(
                    ValueError, TypeError, RecursionError):
                parse(text)

    def host(self, text):
        text = text.encode("latin-1", "replace").decode("latin-1")
        base = pypi_server.base_url("http", text, text)
        assert re.fullmatch("[!-~]+/", base), base
        assert not re.search("[\"<>\\\\]", base), base


BYTES = ("head", "metadata", "form", "tar", "zip_end", "damaged", "xml")
NAMES = sorted(name for name in vars(Checks) if not name.startswith("_"))


class TestCorpus(unittest.TestCase):
    def test_what_was_ever_found(self):
        with open(os.path.join(HERE, "corpus.json")) as file:
            corpus = json.load(file)
        self.assertEqual([], sorted(set(corpus) - set(NAMES)))
        for name, inputs in corpus.items():
            for text in inputs:
                with self.subTest(name, text=text[:99]):
                    getattr(Checks(), name)(
                        text.encode("latin-1") if name in BYTES else text)


def joined(words, empty):
    return strategies.lists(
        strategies.one_of(
            strategies.sampled_from(words),
            strategies.binary(max_size=4) if empty == b""
            else strategies.text(max_size=4)),
        max_size=40).map(empty.join)


def inputs_of(name):
    """Return the strategy that makes inputs of a check."""
    if name == "head":
        return joined(HEAD_WORDS, b"")
    if name == "form":
        return joined(TOKENS, b"")
    if name == "xml":
        return joined(XML_WORDS, b"")
    if name == "metadata":
        return joined(tuple(word.encode("utf-8", "replace")
                            for word in TEXT_WORDS), b"")
    if name in BYTES:
        return strategies.binary(max_size=1200)
    return joined(TEXT_WORDS, "")


def settings():
    return hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, database=None,
        derandomize="PYPI_SERVER_FUZZ" not in os.environ,
        suppress_health_check=list(hypothesis.HealthCheck))


@unittest.skipUnless(hypothesis, "hypothesis is not installed")
class TestSearch(unittest.TestCase):
    def test_each_check(self):
        for name in NAMES:
            with self.subTest(name):
                settings()(hypothesis.given(inputs_of(name))(
                    getattr(Checks(), name)))()


@unittest.skipUnless(hypothesis, "hypothesis is not installed")
class TestConnections(SharedTestCase):
    """One reading of a stream of bytes, in whatever pieces it arrives."""

    @classmethod
    def fill(cls, root):
        archives.put(root, WHEEL, DATA)
        return [WHEEL]

    def statuses(self, address, pieces):
        with socket.create_connection(address, 30) as wire:
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            received = b""
            try:
                for piece in pieces:
                    wire.sendall(piece)
                wire.shutdown(socket.SHUT_WR)
                while True:
                    data = wire.recv(65536)
                    if not data:
                        break
                    received += data
            except ConnectionError:
                pass
        return re.findall(rb"HTTP/1\.1 (\d+) ", received)

    def test_the_same_answers_to_any_pieces(self):
        with listening(self.app) as address:
            def check(data, size):
                # Whole requests before and behind it.
                good = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
                data = good + data
                whole = self.statuses(address, [data])
                torn = self.statuses(address, [
                    data[at:at + size] for at in range(0, len(data), size)])
                self.assertEqual(whole, torn, data)
                self.assertEqual(b"200", whole[0])
                self.assertNotIn(b"500", whole)
            settings()(hypothesis.given(
                joined(HEAD_WORDS, b""), strategies.integers(1, 30))(check))()


if __name__ == "__main__":
    unittest.main()
