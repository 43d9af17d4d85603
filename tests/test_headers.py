"""Section Headers: pure tables; what a request says, and how to read it."""

import datetime
import unittest

from pypi_server import (
    BINARY, HTML, JSON, SIMPLE_HTML, SIMPLE_JSON, TEXT, HTTPError,
    accepts_gzip, base_url, body_length, choose_media_type, forwarded,
    http_date, matches_etag, moment_of, parse_head, parse_range,
    split_target,
)

SIMPLE = (SIMPLE_JSON, SIMPLE_HTML, HTML)
PIP = (SIMPLE_JSON + ", " + SIMPLE_HTML + "; q=0.1, text/html; q=0.01")
LATEST = "application/vnd.pypi.simple.latest"

# What clients send: Accept, and the page they get.
ACCEPTED = (
    ("", HTML),                                       # easy_install
    ("   ", HTML),
    ("text/html", HTML),                              # pip before 22.2
    (PIP, SIMPLE_JSON),                               # pip, pdm, renovate
    (SIMPLE_JSON + ", " + SIMPLE_HTML + ";q=0.2, text/html;q=0.01",
     SIMPLE_JSON),                                    # uv
    (SIMPLE_JSON + ", */*;q=0.1", SIMPLE_JSON),       # poetry
    (SIMPLE_JSON + ", " + SIMPLE_HTML + ", text/html;q=0.01",
     SIMPLE_JSON),                                    # pypi-simple, any
    (SIMPLE_HTML + ", text/html;q=0.5, " + SIMPLE_JSON + ";q=0.1",
     SIMPLE_HTML),                                    # pypi-simple, HTML
    ("*/*", HTML),                                    # hatch, curl
    ("*/*;q=0.5", HTML),
    ("text/html,application/xhtml+xml,application/xml;q=0.9,"
     "image/avif,image/webp,*/*;q=0.8", HTML),        # browsers
    # Each alone.
    (SIMPLE_JSON, SIMPLE_JSON), (SIMPLE_HTML, SIMPLE_HTML),
    (LATEST + "+json", SIMPLE_JSON), (LATEST + "+html", SIMPLE_HTML),
    (SIMPLE_JSON.upper(), SIMPLE_JSON), ("Text/HTML", HTML),
    ("text/html;charset=utf-8", HTML),
    # Wildcards: the most specific range decides.
    ("application/*", SIMPLE_JSON), ("text/*", HTML),
    ("*/*, text/html;q=0", SIMPLE_JSON),
    ("*/*, application/*;q=0", HTML),
    ("application/*;q=0.5, " + SIMPLE_JSON + ";q=0", SIMPLE_HTML),
    ("text/*;q=0.9, text/html;q=0.1, " + SIMPLE_HTML + ";q=0.5",
     SIMPLE_HTML),
    ("*/*, application/json", HTML),
    # Weights.
    (SIMPLE_JSON + ";q=0.1, text/html;q=0.2", HTML),
    (SIMPLE_JSON + ";q=0, text/html", HTML),
    (SIMPLE_JSON + ";q=0.000, text/html;q=0.001", HTML),
    (SIMPLE_JSON + ";q=1.000, text/html", SIMPLE_JSON),
    (SIMPLE_JSON + " ; Q=0.1 , text/html ; q = 0.2", HTML),
    (SIMPLE_JSON + ";q=nan, text/html;q=0.1", HTML),
    (SIMPLE_JSON + ";q=, text/html;q=0.1", HTML),
    (SIMPLE_JSON + ";q=-1, text/html;q=0.1", HTML),
    (SIMPLE_JSON + ";q=1e9, text/html;q=0.1", HTML),
    (SIMPLE_JSON + ";q=0x1, text/html;q=0.1", HTML),
    (", ,text/html,,", HTML),
    ("application/xml, " + SIMPLE_HTML, SIMPLE_HTML),
    # Refused.
    ("application/vnd.pypi.simple.v2+json", None),
    ("application/json", None), ("application/xml", None),
    ("text/html;q=0", None), ("*/*;q=0", None), ("image/*", None),
    ("nonsense", None), (";q=1", HTML), ("text/html;q=nan", None),
    # Too much to read: what comes first counts.
    ("text/html, " + "x/y, " * 10000 + SIMPLE_JSON, HTML),
)

GZIP = (
    ("gzip", True), ("gzip, deflate, br", True), ("GZIP", True),
    ("deflate, gzip;q=0.1", True), ("*", True), ("*;q=0.1", True),
    ("br, *;q=0.5", True), ("gzip;q=1.0, identity;q=0.5", True),
    ("", False), ("identity", False), ("deflate, br", False),
    ("gzip;q=0", False), ("gzip;q=0.000", False), ("*;q=0", False),
    ("gzip;q=0, *", False), ("xgzip", False), ("gzip;q=nan", False),
)

ETAG = '"abc"'
MATCHES = (
    ('"abc"', True), ('W/"abc"', True), ('"x", "abc"', True),
    ('"x","abc","y"', True), ('W/"x", W/"abc"', True), ("*", True),
    (" * ", True), ('"abc" ', True),
    ("", False), ('"x"', False), ("abc", False), ('"abc', False),
    ('"ab"', False), ('"abcd"', False), ('"xabc"', False), ('"*"', False),
    ('"ABC"', False), ('"abc-gzip"', False),
)

# Range, size of the file, (start, length); None: ignored; 416: none of it.
RANGES = (
    ("bytes=0-499", 1000, (0, 500)), ("bytes=500-999", 1000, (500, 500)),
    ("bytes=0-0", 1000, (0, 1)), ("bytes=999-", 1000, (999, 1)),
    ("bytes=999-999", 1000, (999, 1)), ("bytes=0-", 1000, (0, 1000)),
    ("bytes=-1", 1000, (999, 1)), ("bytes=-1000", 1000, (0, 1000)),
    ("bytes=-5000", 1000, (0, 1000)), ("bytes=900-5000", 1000, (900, 100)),
    ("bytes= 0-1 ", 1000, (0, 2)), ("bytes=00-01", 1000, (0, 2)),
    ("bytes=0-99999999999999999", 1000, (0, 1000)),
    ("bytes=1000-", 1000, 416), ("bytes=1000-1001", 1000, 416),
    ("bytes=5000-", 1000, 416), ("bytes=-0", 1000, 416),
    ("bytes=0-", 0, 416), ("bytes=-1", 0, 416), ("bytes=0-0", 0, 416),
    ("", 1000, None), ("bytes", 1000, None), ("bytes=", 1000, None),
    ("bytes=-", 1000, None), ("bytes=5-2", 1000, None),
    ("bytes=0-0,5-5", 1000, None), ("bytes=0-,-1", 1000, None),
    ("bytes=a-b", 1000, None), ("bytes=+1-2", 1000, None),
    ("bytes=1 - 2", 1000, None), ("bytes=0x0-0x9", 1000, None),
    ("bytes=1_0-2_0", 1000, None), ("bytes=--1", 1000, None),
    ("bytes=0--1", 1000, None), ("bytes=\u0661-\u0662", 1000, None),
    ("bytes=0-" + "9" * 5000, 1000, None), ("items=0-1", 1000, None),
    ("0-499", 1000, None), ("junk", 1000, None),
)

DATES = (
    (784111777, "Sun, 06 Nov 1994 08:49:37 GMT"),
    (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
    (951782400.9, "Tue, 29 Feb 2000 00:00:00 GMT"),
    (4102444799, "Thu, 31 Dec 2099 23:59:59 GMT"),
    (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
    (-62135596800, "Mon, 01 Jan 0001 00:00:00 GMT"),
)

HEADS = (
    (b"GET / HTTP/1.1\r\nHost: a", ("GET", "/", 1, {"host": "a"})),
    (b"GET / HTTP/1.0", ("GET", "/", 0, {})),
    (b"GET / HTTP/1.9\r\nHost: a", ("GET", "/", 9, {"host": "a"})),
    (b"FOO /a%20b?c=d HTTP/1.1\r\nHost: a:80",
     ("FOO", "/a%20b?c=d", 1, {"host": "a:80"})),
    (b"get / HTTP/1.1\r\nHost: a", ("get", "/", 1, {"host": "a"})),
    (b"GET http://b/x HTTP/1.1\r\nHost: [::1]:8080",
     ("GET", "http://b/x", 1, {"host": "[::1]:8080"})),
    (b"GET / HTTP/1.1\r\nHOST:a\r\naCCept:\t text/html \t",
     ("GET", "/", 1, {"host": "a", "accept": "text/html"})),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
     ("GET", "/", 1, {"host": "a", "x": ""})),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nx: 2",
     ("GET", "/", 1, {"host": "a", "x": "1, 2"})),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: \xc3\xb6 : \"x\"",
     ("GET", "/", 1, {"host": "a", "x": "\xc3\xb6 : \"x\""})),
    (b"GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+.^_`|~-09aZ: 1",
     ("GET", "/", 1, {"host": "a", "!#$%&'*+.^_`|~-09az": "1"})),
)


def get(*lines):
    return b"\r\n".join((b"GET / HTTP/1.1", b"Host: a") + lines)


# The names are those of the usual collections of such probes.
BAD_HEADS = (
    # The request line.
    ("empty", b"", 400), ("blank first", b"\r\n" + get(), 400),
    ("no version", b"GET /", 400), ("HTTP/0.9", b"GET / HTTP/0.9", 505),
    ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: a", 505),
    ("HTTP/2 preface", b"PRI * HTTP/2.0", 505),
    ("1.1.1", b"GET / HTTP/1.1.1\r\nHost: a", 400),
    ("HTTP/1", b"GET / HTTP/1\r\nHost: a", 400),
    ("HTTP/1.10", b"GET / HTTP/1.10\r\nHost: a", 400),
    ("lower case", b"GET / http/1.1\r\nHost: a", 400),
    ("superscript", b"GET / HTTP/1.\xb9\r\nHost: a", 400),
    ("tabs", b"GET\t/\tHTTP/1.1\r\nHost: a", 400),
    ("two spaces", b"GET  / HTTP/1.1\r\nHost: a", 400),
    ("two spaces behind", b"GET /  HTTP/1.1\r\nHost: a", 400),
    ("leading space", b" GET / HTTP/1.1\r\nHost: a", 400),
    ("trailing space", b"GET / HTTP/1.1 \r\nHost: a", 400),
    ("four words", b"GET / x HTTP/1.1\r\nHost: a", 400),
    ("no target", b"GET HTTP/1.1\r\nHost: a", 400),
    ("odd method", b"G(T / HTTP/1.1\r\nHost: a", 400),
    ("long method", b"G" * 33 + b" / HTTP/1.1\r\nHost: a", 400),
    ("raw 8 bit", b"GET /\xff HTTP/1.1\r\nHost: a", 400),
    ("raw NUL", b"GET /\0 HTTP/1.1\r\nHost: a", 400),
    ("raw DEL", b"GET /\x7f HTTP/1.1\r\nHost: a", 400),
    ("form feed", b"GET /\x0c HTTP/1.1\r\nHost: a", 400),
    ("bare CR", b"GET / HTTP/1.1\rX: y\r\nHost: a", 400),
    ("bare LF", b"GET / HTTP/1.1\nHost: a", 400),
    ("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00", 400),
    # Header lines.
    ("space before colon", get(b"X : 1"), 400),
    ("tab before colon", get(b"X\t: 1"), 400),
    ("no colon", get(b"X"), 400), ("empty name", get(b": 1"), 400),
    ("empty line", get(b""), 400), ("odd name", get(b"X(y): 1"), 400),
    ("8 bit name", get(b"X\xe4: 1"), 400), ("NUL name", get(b"X\0: 1"), 400),
    ("space in name", get(b"X Y: 1"), 400),
    ("folded", get(b"X: 1", b" 2"), 400),
    ("folded first", b"GET / HTTP/1.1\r\n Host: a", 400),
    ("folded by tab", get(b"X: 1", b"\t2"), 400),
    ("CR in value", get(b"X: 1\r2"), 400),
    ("LF in value", get(b"X: 1\n2"), 400),
    ("LF only", b"GET / HTTP/1.1\nHost: a\n", 400),
    ("NUL in value", get(b"X: 1\x002"), 400),
    ("form feed in value", get(b"X: 1\x0c2"), 400),
    ("DEL in value", get(b"X: 1\x7f2"), 400),
    ("101 fields", get(*[b"X: 1"] * 100), 431),
    # Host.
    ("no Host", b"GET / HTTP/1.1", 400),
    ("empty Host", b"GET / HTTP/1.1\r\nHost:", 400),
    ("two Hosts", get(b"Host: a"), 400),
    ("other Hosts", get(b"hoST: b"), 400),
    ("Host with space", b"GET / HTTP/1.1\r\nHost: a b", 400),
    ("Host with path", b"GET / HTTP/1.1\r\nHost: a/c", 400),
    ("Host with user", b"GET / HTTP/1.1\r\nHost: u@a", 400),
    ("Host list", b"GET / HTTP/1.1\r\nHost: a, b", 400),
    ("Host with quote", b"GET / HTTP/1.1\r\nHost: a\"b", 400),
    ("Host with bad port", b"GET / HTTP/1.1\r\nHost: a:b", 400),
    # Twins of what must not be guessed at.
    ("two lengths", get(b"Content-Length: 3", b"Content-Length: 4"), 400),
    ("equal lengths", get(b"Content-Length: 3", b"Content-Length: 3"), 400),
    ("two codings", get(b"Transfer-Encoding: chunked",
                        b"Transfer-Encoding: chunked"), 400),
    ("two logins", get(b"Authorization: Basic YTpi",
                       b"Authorization: Basic YTpj"), 400),
    ("two types", get(b"Content-Type: a/b", b"Content-Type: a/c"), 400),
    ("two Ranges", get(b"Range: bytes=0-0", b"Range: bytes=1-1"), 400),
)

# The status instead of a length: the request cannot be read on.
LENGTHS = (
    ((), 0), ((b"Content-Length: 0",), 0), ((b"Content-Length: 3",), 3),
    ((b"Content-Length: 0003",), 3), ((b"Content-Length:\t3 ",), 3),
    ((b"Content-Length: 999999999999999",), 999999999999999),
    ((b"Transfer-Encoding: chunked",), None),
    ((b"Transfer-Encoding: CHUNKED",), None),
) + tuple(((b"Content-Length: " + text,), HTTPError) for text in (
    b"+3", b"-1", b"0x3", b"3_0", b"", b"3 0", b"3.0", b"\xb3", b"3,3",
    b"3, 3", b"3;", b"abc", b"\xd9\xa3", b"9" * 16, b"9" * 5000,
)) + tuple(((b"Transfer-Encoding: " + text,), HTTPError) for text in (
    b"", b"identity", b"gzip", b"gzip, chunked", b"chunked, identity",
    b"chunked, chunked", b"chunked;x=1", b"xchunked", b"notchunked",
    b"\xa0chunked", b"\"chunked\"", b"chunked,",
)) + (
    ((b"Content-Length: 3", b"Transfer-Encoding: chunked"), HTTPError),
    ((b"Transfer-Encoding: chunked", b"Content-Length: 3"), HTTPError),
    ((b"Content-Length: 0", b"Transfer-Encoding: identity"), HTTPError),
)

TARGETS = (
    ("/", ("/", "")), ("/simple/", ("/simple/", "")),
    ("/a?b=c", ("/a", "b=c")), ("/a?b?c", ("/a", "b?c")),
    ("/a?", ("/a", "")), ("/a%20b", ("/a b", "")),
    ("/a+b%2Bc", ("/a+b+c", "")), ("/%C3%A4", ("/\xe4", "")),
    ("/%c3%a4", ("/\xe4", "")), ("/%2e%2e/%2Fx", ("/..//x", "")),
    ("/%23%3f", ("/#?", "")), ("/%2541", ("/%41", "")),
    ("/a?%zz%00", ("/a", "%zz%00")), ("//evil/x", ("//evil/x", "")),
    ("/a\\b", ("/a\\b", "")),
    ("http://host/a/b?c", ("/a/b", "c")), ("HTTPS://h:1/a", ("/a", "")),
    ("http://host/", ("/", "")), ("http://host", ("/", "")),
    ("http://host:80?a=b", ("/", "a=b")), ("http://[::1]/a", ("/a", "")),
)
BAD_TARGETS = (
    "", "a", "simple/", "*", "evil:80", "?a", "http:/a", "ftp://h/a",
    "http://", "http:///a", "http://a@host/", "http://a:b@host/", "http://a b",
    "http://%41/", "http://host:x/", "http://" + "h" * 300 + "/",
    "/a#b", "#x", "/a?b#c", "/%", "/%4", "/%zz", "/%u1234", "/%-1", "/%+1",
    "/%00", "/a%0d%0aX:1", "/%0A", "/%7f", "/%1b", "/%ff", "/%c3",
    "/%c0%af", "/%ed%a0%80", "/%f5%80%80%80",
)

BASES = (
    (("http", "host", ""), "http://host/"),
    (("https", "host:8443", "/pypi"), "https://host:8443/pypi/"),
    (("http", "host", "/a/b/"), "http://host/a/b/"),
    (("http", "host", "a b"), "http://host/a%20b/"),
    (("http", "[::1]:80", ""), "http://[::1]:80/"),
    (("http", "", ""), "http://localhost/"),
    (("http", "a/b", ""), "http://localhost/"),
    (("http", "a\r\nX: y", ""), "http://localhost/"),
    (("http", "a\"><b", ""), "http://localhost/"),
    (("http", "user@evil", ""), "http://localhost/"),
)

FORWARDED = (
    ({}, ""), ({"x-forwarded-host": "a"}, "a"),
    ({"x-forwarded-host": "liar, a"}, "a"),
    ({"x-forwarded-host": "liar,liar , a "}, "a"),
    ({"x-forwarded-host": ""}, ""), ({"x-forwarded-host": "a,"}, ""),
    ({"x-forwarded-proto": "a"}, ""),
)


class TestNegotiation(unittest.TestCase):
    def test_media_type(self):
        for accept, wanted in ACCEPTED:
            with self.subTest(accept[:100]):
                self.assertEqual(wanted, choose_media_type(accept, SIMPLE))

    def test_media_type_of_errors(self):
        offers = (JSON, HTML, TEXT)
        for accept, wanted in (
                ("", TEXT), ("*/*", TEXT), ("application/json", JSON),
                ("text/html, */*;q=0.8", HTML), ("text/plain", TEXT),
                ("application/json;q=0.5, text/html", HTML),
                (PIP, HTML), ("image/png", None)):
            with self.subTest(accept):
                self.assertEqual(wanted, choose_media_type(accept, offers))

    def test_one_offer_is_enough(self):
        self.assertEqual(BINARY, choose_media_type("*/*", (BINARY,)))
        self.assertIsNone(choose_media_type("text/html", (BINARY,)))

    def test_gzip(self):
        for header, accepted in GZIP:
            with self.subTest(header):
                self.assertEqual(accepted, accepts_gzip(header))


class TestValidators(unittest.TestCase):
    def test_if_none_match(self):
        for header, matches in MATCHES:
            with self.subTest(header):
                self.assertEqual(matches, matches_etag(header, ETAG))

    def test_ranges(self):
        for text, size, wanted in RANGES:
            with self.subTest(text[:40], size=size):
                if wanted != 416:
                    self.assertEqual(wanted, parse_range(text, size))
                    continue
                with self.assertRaises(HTTPError) as caught:
                    parse_range(text, size)
                self.assertEqual(416, caught.exception.status)
                self.assertEqual(
                    (("Content-Range", "bytes */%d" % size),),
                    caught.exception.headers)

    def test_dates(self):
        for seconds, text in DATES:
            with self.subTest(seconds):
                self.assertEqual(text, http_date(seconds))

    def test_absurd_times_are_the_nearest_possible(self):
        self.assertEqual(datetime.datetime.max, moment_of(10 ** 30))
        self.assertEqual(datetime.datetime.max, moment_of(2 ** 63 * 10 ** 9))
        self.assertLessEqual(
            moment_of(-10 ** 30), datetime.datetime(1970, 1, 1))


class TestHeads(unittest.TestCase):
    def test_good_heads(self):
        for data, wanted in HEADS:
            with self.subTest(data):
                self.assertEqual(wanted, tuple(parse_head(data)))

    def test_bad_heads_are_refused(self):
        for name, data, status in BAD_HEADS:
            with self.subTest(name):
                with self.assertRaises(HTTPError) as caught:
                    parse_head(data)
                self.assertEqual(status, caught.exception.status)

    def test_hundred_fields_are_taken(self):
        head = parse_head(get(*[b"X-%d: 1" % number for number in range(99)]))
        self.assertEqual(100, len(head.headers))

    def test_lengths(self):
        for lines, wanted in LENGTHS:
            with self.subTest(lines):
                head = parse_head(get(*lines))
                if wanted is not HTTPError:
                    self.assertEqual(wanted, body_length(head))
                    continue
                with self.assertRaises(HTTPError) as caught:
                    body_length(head)
                self.assertIn(caught.exception.status, (400, 501))

    def test_chunked_needs_http_1_1(self):
        head = parse_head(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked")
        with self.assertRaises(HTTPError):
            body_length(head)

    def test_control_characters_are_refused_in_any_place(self):
        """None of 31 bytes passes, wherever it is put."""
        good = b"GET /simple/ HTTP/1.1\r\nHost: a\r\nX-Some: thing"
        for code in set(range(32)) - set(b"\t\r\n") | {127}:
            for place in range(len(good) + 1):
                with self.assertRaises(HTTPError, msg=(code, place)):
                    parse_head(
                        good[:place] + bytes([code]) + good[place:])


class TestTargets(unittest.TestCase):
    def test_good_targets(self):
        for target, wanted in TARGETS:
            with self.subTest(target):
                self.assertEqual(wanted, split_target(target))

    def test_bad_targets_are_refused(self):
        for target in BAD_TARGETS:
            with self.subTest(target):
                with self.assertRaises(HTTPError) as caught:
                    split_target(target)
                self.assertEqual(400, caught.exception.status)

    def test_base_url(self):
        for arguments, wanted in BASES:
            with self.subTest(arguments):
                self.assertEqual(wanted, base_url(*arguments))

    def test_forwarded_is_what_the_nearest_proxy_says(self):
        for headers, wanted in FORWARDED:
            with self.subTest(headers):
                self.assertEqual(wanted, forwarded(headers, "host"))


if __name__ == "__main__":
    unittest.main()
