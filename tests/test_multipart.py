"""Section Multipart: bodies whole, in pieces, cut off, and made up."""

import random
import re
import sys
import unittest

import pypi_server
from pypi_server import HTTPError, MultipartParser, Part, boundary_of
from tests import archives, forms

SDIST = "demo_pkg-1.0.tar.gz"
ENDS = "\r\n", "\n"


def parse(boundary, pieces):
    """Return [(name, filename, content)] of a body that comes in pieces."""
    parser = MultipartParser(boundary)
    found = []
    for piece in pieces:
        for event in parser.feed(piece):
            if isinstance(event, Part):
                found.append((event.name, event.filename, []))
            else:
                found[-1][2].append(event)
    parser.finish()
    return [(name, filename, b"".join(contents))
            for name, filename, contents in found]


def single(body):
    """Yield a body byte by byte."""
    return (body[at:at + 1] for at in range(len(body)))


def blocks(body, size):
    return (body[at:at + size] for at in range(0, len(body), size))


def torn(body, seed, longest=40):
    """Yield a body in random pieces, some of them empty."""
    dice = random.Random(seed)
    at = 0
    while at < len(body):
        size = dice.randint(0, longest)
        yield body[at:at + size]
        at += size


def as_parsed(fields):
    """Return what parse() finds in a form of (name, value) pairs."""
    return [
        (name, value.filename, value.data) if isinstance(value, forms.File)
        else (name, None, value.encode("utf-8")) for name, value in fields]


def outcome(boundary, pieces):
    """Return what parse() finds, or "refused"; nothing else may happen."""
    try:
        return parse(boundary, pieces)
    except HTTPError as error:
        if error.status != 400:
            raise
        return "refused"


class ClientFormTest(unittest.TestCase):
    """The bodies that released clients send."""

    @classmethod
    def setUpClass(cls):
        data = archives.sdist("demo_pkg", "1.0")
        cls.cases = []
        for client in forms.CLIENTS + (forms.REGISTER,):
            fields = forms.captured(client, SDIST, data)
            cls.cases.append((
                client.name, boundary_of(forms.content_type(client.style)),
                forms.encode(fields, client.style), as_parsed(fields)))

    def check(self, cut):
        for name, boundary, body, expected in self.cases:
            with self.subTest(client=name):
                self.assertEqual(parse(boundary, cut(body)), expected)

    def test_bodies_at_once(self):
        self.check(lambda body: [body])

    def test_bodies_byte_by_byte(self):
        self.check(single)

    def test_bodies_in_blocks(self):
        for size in (2, 3, 7, 64, 509, 512):
            self.check(lambda body: blocks(body, size))

    def test_bodies_in_random_pieces(self):
        for seed in range(20):
            self.check(lambda body: torn(body, seed))

    def test_bodies_with_something_behind(self):
        """RFC 2046, 5.1.1: an epilogue is to be ignored."""
        for extra in (b"x", b"\r\n", b"\0" * 9999, b"\r\n--", b"--" * 99):
            self.check(lambda body: [body + extra])
            self.check(lambda body: torn(body + extra, 1))

    def test_the_last_line_end_may_be_missing(self):
        self.check(lambda body: [body.rstrip(b"\r\n")])

    def test_bodies_cut_off_are_incomplete(self):
        """Whatever is missing, at least the closing dashes are."""
        for name, boundary, body, _ in self.cases:
            with self.subTest(client=name):
                for end in range(0, len(body.rstrip(b"\r\n")), 5):
                    self.assertEqual(
                        outcome(boundary, [body[:end]]), "refused", end)

    def test_bodies_cut_at_any_byte_are_incomplete(self):
        for name, boundary, body, _ in self.cases:
            with self.subTest(client=name):
                parser = MultipartParser(boundary)
                for byte in single(body.rstrip(b"\r\n")):
                    with self.assertRaises(HTTPError):
                        parser.finish()
                    for _ in parser.feed(byte):
                        pass
                parser.finish()

    def test_other_orders_of_the_fields(self):
        dice = random.Random(5)
        data = b"\r\n--" + archives.sdist("demo_pkg", "1.0") + b"\r\n--"
        for turn in range(50):
            fields = forms.captured(forms.CLIENTS[0], SDIST, data)
            dice.shuffle(fields)
            self.assertEqual(
                parse(forms.BOUNDARY.encode(),
                      torn(forms.encode(fields), turn, 300)),
                as_parsed(fields))


def one(content, boundary=b"b", newline=b"\r\n"):
    """Return a form with one part, "a"."""
    return newline.join((
        b"--" + boundary, b'Content-Disposition: form-data; name="a"', b"",
        content, b"--" + boundary + b"--", b""))


# Contents that a careless search takes for the end of a part, or loses an
# end of.  The boundary is "b".
CONTENTS = (
    b"", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\r", b"-", b"--",
    b"\r\n-", b"\r\n--", b"\r\n--a", b"\r\n--bb", b"\r\n--B", b"\r\n-b",
    b"--b", b"--b--", b"--b\r\n", b"-\r\n--bx", b"\r\n--b-", b"\r\n--b-x",
    b"\r\n--b x", b"\r\n--b \t x", b"\r\n--b\r", b"\r\n--b\rx", b"\r--b",
    b"\n--b", b"\n--b--", b"\r\n --b", b"\r\n--\r\n--\r\n--",
    b"\r\n--bx\r\n--by\r\n--bz", b"\r\r\n--bx", b"\r\n\r\n--bx",
    b"\r\n--b" + b"\r\n--bx", b"\r\n--b" + b"-" + b"\r\n--b-" * 3,
    b"\0" * 100, bytes(range(256)), b"--bx", b"--bx\r\n", b"--b-x", b"--b x",
)


def ends(content, newline):
    """Tell whether a content has the boundary in it."""
    return re.search(newline + rb"--b(?:--|[ \t]*\r?\n)",
                     newline + content + newline)


class ContentTest(unittest.TestCase):

    def test_contents_come_back_to_the_byte(self):
        for content in CONTENTS:
            if ends(content, b"\r\n"):
                continue
            body = one(content)
            expected = [("a", None, content)]
            with self.subTest(content=content):
                self.assertEqual(parse(b"b", [body]), expected)
                self.assertEqual(parse(b"b", single(body)), expected)
                for end in range(len(body)):
                    self.assertEqual(
                        parse(b"b", [body[:end], body[end:]]), expected)

    def test_contents_with_bare_line_feeds(self):
        for content in CONTENTS:
            content = content.replace(b"\r\n", b"\n")
            if ends(content, b"\n"):
                continue
            body = one(content, newline=b"\n")
            expected = [("a", None, content)]
            with self.subTest(content=content):
                self.assertEqual(parse(b"b", [body]), expected)
                self.assertEqual(parse(b"b", single(body)), expected)

    def test_near_boundaries_at_every_edge_of_a_block(self):
        """A boundary in two blocks is found, what resembles one is kept."""
        boundary = forms.DISTUTILS.encode()
        near = b"\r\n--" + boundary
        for content in (b"x" * 100 + near[:-1], near[:-1] * 3,
                        near + b"-x" + near + b"\r" + near + b"\t-",
                        near[:5] + near[:20] + near):
            body = one(content + b".", boundary)
            for size in range(1, len(near) + 4):
                self.assertEqual(
                    parse(boundary, blocks(body, size)),
                    [("a", None, content + b".")], (content, size))

    def test_spaces_behind_a_boundary(self):
        """RFC 2046, 5.1.1: transport padding is no part of anything.

        However many there are, and however they come: the same.
        """
        for count in (1, 2, 60, 69, 70, 71, 100, 500):
            padding = b" \t"[:count] + b" " * (count - 2)
            body = one(b"x")[:-4] + padding + b"\r\n" + one(b"y")[5:]
            found = [outcome(b"b", cut) for cut in (
                [body], single(body), blocks(body, 13), torn(body, count))]
            self.assertEqual(found, found[:1] * len(found), count)
            if count < 60:
                self.assertEqual(
                    found[0], [("a", None, b"x"), ("a", None, b"y")])

    def test_empty_parts(self):
        for count in (1, 2, 50):
            for end in ENDS:
                fields = [("n%d" % number, "") for number in range(count)]
                style = forms.Style("b", end)
                body = forms.encode(fields, style)
                for cut in ([body], single(body)):
                    self.assertEqual(parse(b"b", cut), as_parsed(fields))

    def test_a_form_without_parts(self):
        for body in (b"--b--", b"--b--\r\n", b"\r\n--b--\r\n"):
            for cut in ([body], single(body)):
                self.assertEqual(parse(b"b", cut), [])

    def test_no_form_at_all(self):
        for body in (b"", b"--b", b"--b\r\n", b"--b-", b"x", b"\r\n" * 99,
                     b"--c--", b"-b--", b"b--"):
            for cut in ([body], single(body)):
                self.assertEqual(outcome(b"b", cut), "refused", body)

    def test_a_part_without_an_end_of_its_head(self):
        """The next part is not swallowed as a header of this one."""
        body = (b'--b\r\nContent-Disposition: form-data; name="a"\r\n' * 2
                + b"\r\nvalue\r\n--b--\r\n")
        self.assertEqual(outcome(b"b", [body]), "refused")
        self.assertEqual(outcome(b"b", single(body)), "refused")


HEADS = (
    # head of a part, name, filename
    (b'Content-Disposition: form-data; name="a"', "a", None),
    (b'content-disposition:form-data;name="a"', "a", None),
    (b'CONTENT-DISPOSITION: FORM-DATA; NAME="a"', "a", None),
    (b'Content-Disposition: form-data; name=a', "a", None),
    (b'Content-Disposition: form-data; name=":action"', ":action", None),
    (b'Content-Disposition: form-data; name=""', "", None),
    (b'Content-Disposition: form-data; name="a"; filename="f"', "a", "f"),
    (b'Content-Disposition: form-data; name="a";filename="f"', "a", "f"),
    (b'Content-Disposition: form-data; filename="f"; name="a"', "a", "f"),
    (b'Content-Disposition: form-data; name="a"; filename=f', "a", "f"),
    (b'Content-Disposition: form-data; name="a"; filename=""', "a", ""),
    (b'Content-Disposition: form-data; name="a"; filename="x; name=y"',
     "a", "x; name=y"),
    (b'Content-Disposition: form-data; name="a"; filename="q\\"q"',
     "a", 'q"q'),
    (b'Content-Disposition: form-data; name="a"; filename="b\\\\s"',
     "a", "b\\s"),
    # Internet Explorer sent the path, with backslashes of its own.
    (b'Content-Disposition: form-data; name="a"; filename="C:\\f"',
     "a", "C:\\f"),
    ('Content-Disposition: form-data; name="a"; filename="\xfc"'.encode(),
     "a", "\xfc"),
    (b'Content-Disposition: form-data; name="a"; filename="\xfc"',
     "a", "\xfc"),
    (b'Content-Type: text/plain\r\nContent-Disposition: form-data; name="a"',
     "a", None),
    (b'Content-Disposition: form-data; name="a"\r\n'
     b"Content-Transfer-Encoding: binary\r\nContent-Length: 3\r\nX: y",
     "a", None),
    # Not said at all which field it is.
    (b"Content-Type: text/plain", None, None),
    (b"Content-Disposition: form-data", None, None),
    (b'Content-Disposition: form-data; filename="f"', None, None),
    (b'Content-Disposition: attachment; name="a"', None, None),
    (b'X-Content-Disposition: form-data; name="a"', None, None),
    (b"", None, None),
    (b"nonsense", None, None),
)
BOUNDARIES = (
    # Content-Type, boundary or the status of its refusal
    ("multipart/form-data; boundary=x", b"x"),
    ("Multipart/Form-Data; Boundary=x", b"x"),
    ("multipart/form-data;boundary=x", b"x"),
    ("multipart/form-data ; boundary=x", b"x"),
    ("multipart/form-data; boundary=x; charset=utf-8", b"x"),
    ("multipart/form-data; boundary=x;charset=utf-8", b"x"),
    ("multipart/form-data; charset=utf-8; boundary=x", b"x"),
    ('multipart/form-data; boundary="x"', b"x"),
    ('multipart/form-data; boundary="x y:/=?"; charset=utf-8', b"x y:/=?"),
    ("multipart/form-data; boundary=" + forms.DISTUTILS,
     forms.DISTUTILS.encode()),
    ("multipart/form-data; boundary=" + "x" * 70, b"x" * 70),
    ("multipart/form-data; boundary=" + "x" * 71, 400),
    ('multipart/form-data; boundary="%s"' % ("x" * 71), 400),
    ("multipart/form-data; boundary=" + "x" * 5000, 400),
    ("multipart/form-data; boundary=", 400),
    ('multipart/form-data; boundary=""', 400),
    ("multipart/form-data", 400),
    ("multipart/form-data; charset=utf-8", 400),
    ("multipart/mixed; boundary=x", 415),
    ("multipart/form-data-x; boundary=x", 415),
    ("application/x-www-form-urlencoded", 415),
    ("text/xml", 415),
    ("", 415),
)


class HeadTest(unittest.TestCase):

    def test_heads(self):
        for head, name, filename in HEADS:
            body = b"--b\r\n" + head + b"\r\n\r\ncontent\r\n--b--\r\n"
            expected = "refused" if name is None \
                else [(name, filename, b"content")]
            with self.subTest(head=head):
                self.assertEqual(outcome(b"b", [body]), expected)
                self.assertEqual(outcome(b"b", single(body)), expected)

    def test_boundaries(self):
        for header, expected in BOUNDARIES:
            with self.subTest(header=header[:99]):
                if isinstance(expected, bytes):
                    self.assertEqual(boundary_of(header), expected)
                    continue
                with self.assertRaises(HTTPError) as caught:
                    boundary_of(header)
                self.assertEqual(caught.exception.status, expected)

    def test_quoted_boundaries_delimit(self):
        boundary = boundary_of('multipart/form-data; boundary="x y:/=?"')
        self.assertEqual(parse(boundary, single(one(b"z", boundary))),
                         [("a", None, b"z")])


class LimitTest(unittest.TestCase):

    def parts(self, count):
        return forms.encode([("a", "")] * count, forms.Style("b"))

    def test_number_of_parts(self):
        limit = pypi_server.PARTS_LIMIT
        self.assertEqual(len(parse(b"b", [self.parts(limit)])), limit)
        self.assertEqual(
            outcome(b"b", [self.parts(limit + 1)]), "refused")
        self.assertEqual(
            outcome(b"b", blocks(self.parts(limit + 1), 1000)), "refused")

    def head(self, size):
        head = b'Content-Disposition: form-data; name="a"\r\nX: '
        head += b"x" * (size - len(head))
        return b"--b\r\n" + head + b"\r\n\r\n\r\n--b--\r\n"

    def test_size_of_a_head(self):
        limit = pypi_server.PART_HEAD_LIMIT
        for body, is_taken in ((self.head(limit), True),
                               (self.head(limit + 1), False),
                               (self.head(1000 * limit), False)):
            for cut in ([body], blocks(body, 700)):
                found = outcome(b"b", cut)
                self.assertEqual(found != "refused", is_taken, len(body))

    def test_a_head_without_end_is_refused_before_it_is_kept(self):
        parser = MultipartParser(b"b")
        with self.assertRaises(HTTPError):
            for _ in range(1000):
                for _ in parser.feed(b"--b\r\n" + b"x" * 1000):
                    pass
                self.assertLess(len(parser.buffer),
                                2 * pypi_server.PART_HEAD_LIMIT)

    def test_size_of_a_preamble(self):
        limit = pypi_server.PREAMBLE_LIMIT
        preamble = b"x" * (limit - 100) + b"\r\n"
        self.assertEqual(parse(b"b", blocks(preamble + one(b"y"), 99)),
                         [("a", None, b"y")])
        for body in (b"x" * 2 * limit + b"\r\n" + one(b"y"), b"\n" * 10 ** 5):
            self.assertEqual(outcome(b"b", blocks(body, 99)), "refused")

    def test_content_is_passed_on_at_once(self):
        """Memory does not grow with the file, whatever is in it."""
        for block in (b"x" * 1000, b"\r\n" * 500, b"\n" * 1000,
                      b"\r\n--" * 250, b"\r\n--bb" * 150, b"-" * 1000,
                      b"\r\n--b" + b" " * 994 + b"x"):
            parser = MultipartParser(b"b")
            size = 0
            for _ in parser.feed(one(b"x")[:-9]):
                pass
            for _ in range(50):
                for data in parser.feed(block):
                    size += len(data)
                self.assertLess(len(parser.buffer), 100, block[:9])
            self.assertGreater(size, 50 * len(block) - 100)


def work(feed, boundary=b"b"):
    """Count what a parser does with pieces: (lines run, bytes at hand).

    Each line may touch the whole buffer once, at the worst; so neither
    number may grow faster than the body.
    """
    parser = MultipartParser(boundary)
    code = {method.__code__ for method in vars(MultipartParser).values()
            if hasattr(method, "__code__")}
    counts = [0, 0]

    def trace(frame, event, argument):
        if frame.f_code not in code:
            return None
        if event == "call":
            counts[1] += len(parser.buffer)
        elif event == "line":
            counts[0] += 1
        return trace
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for piece in feed:
            for _ in parser.feed(piece):
                pass
    except HTTPError:
        pass
    finally:
        sys.settrace(before)
    return counts


class LinearTest(unittest.TestCase):
    """Twice the body is at most twice the work; quadratic would be 4."""

    PATTERNS = (
        b"\n", b"\r\n", b"\r", b"-", b"--", b"--b\r\n", b"--bx\r\n",
        b"\r\n--bx", b"\r\n--b", b"\r\n--b-", b"\r\n--b ", b"x" * 99,
        b" ")

    def check(self, head, size):
        for pattern in self.PATTERNS:
            once, twice = (work(blocks(
                head + pattern * (count * 24576 // len(pattern)), size))
                for count in (1, 2))
            with self.subTest(pattern=pattern):
                for less, more in zip(once, twice):
                    self.assertLessEqual(more, 2.2 * less + 20000)

    def test_contents(self):
        for size in (50000, 4096, 100):
            self.check(one(b"")[:-9], size)

    def test_bodies_without_a_beginning(self):
        for size in (50000, 4096, 100):
            self.check(b"", size)

    def test_contents_byte_by_byte(self):
        for pattern in (b"\n", b"\r\n--bx", b" ", b"\r\n--b -"):
            once, twice = (work(single(
                one(b"")[:-9] + pattern * (size // len(pattern))))
                for size in (4096, 8192))
            with self.subTest(pattern=pattern):
                for less, more in zip(once, twice):
                    self.assertLessEqual(more, 2.2 * less + 2000)

    def test_megabytes_of_boundaries_and_of_newlines(self):
        block = pypi_server.BLOCK
        self.assertEqual(outcome(
            b"x", blocks(b"--x\r\n" * (2 * 2 ** 20 // 5), block)), "refused")
        for content in (b"\n" * 6 * 2 ** 20, b"--x\n" * 2 ** 19):
            self.assertEqual(
                parse(b"b", blocks(one(content), block)),
                [("a", None, content)])
        head = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
        self.assertEqual(outcome(
            b"x", blocks(head + b"--x\r\n" * (2 * 2 ** 20 // 5), block)),
            "refused")


def reference(boundary, body):
    """Parse a form in the plainest way, holding it all: RFC 2046, 5.1.1.

    Returns what parse() does, "refused" for what is no complete form.
    """
    dashes = b"--" + boundary
    first = re.search(rb"(?:^|\n)" + re.escape(dashes)
                      + rb"(--|[ \t]*(\r?\n))", body)
    if not first:
        return "refused"
    newline = first.group(2)
    if newline is None:
        return []
    delimiter = re.compile(newline + re.escape(dashes)
                           + rb"(?:(--)|[ \t]*\r?\n)")
    found, at = [], first.end()
    while True:
        stop = body.find(newline * 2, at)
        head = body[at:stop]
        # The line end of the head is also that before the next boundary,
        # if there is nothing between them.
        end = delimiter.search(body, stop + len(newline))
        if stop < 0 or not end or newline + dashes in newline + head:
            return "refused"
        try:
            part = pypi_server.parse_part(head)
        except HTTPError:
            return "refused"
        found.append((part.name, part.filename,
                      body[stop + 2 * len(newline):end.start()]))
        if end.group(1):
            return found
        at = end.end()


TOKENS = (
    b"--b", b"--b\r\n", b"--b--", b"\r\n--b\r\n", b"\r\n--b--\r\n", b"\r\n",
    b"\n", b"\r", b"-", b" ", b"\t", b"b", b"x", b"\0", b"\xff", b"\r\n\r\n",
    b"\n--b\n", b"\n\n", b'Content-Disposition: form-data; name="a"',
    b'Content-Disposition: form-data; name="a"\r\n\r\n',
    b'\r\n--b\r\nContent-Disposition: form-data; name="c"; filename="f"'
    b"\r\n\r\n",
    b'--b\nContent-Disposition: form-data; name="d"\n\n')


class FuzzTest(unittest.TestCase):

    def check(self, body, seed):
        expected = reference(b"b", body)
        for cut in ([body], single(body), torn(body, seed, 9)):
            found = outcome(b"b", cut)
            self.assertEqual(found, expected, body)

    def test_tokens_in_any_order(self):
        dice = random.Random(20)
        for seed in range(3000):
            self.check(b"".join(
                dice.choice(TOKENS) for _ in range(dice.randint(1, 12))),
                seed)

    def test_forms_of_any_contents(self):
        dice = random.Random(21)
        for seed in range(1500):
            style = forms.Style("b", dice.choice(ENDS))
            self.check(forms.encode([
                ("n", b"".join(dice.choice(TOKENS)
                               for _ in range(dice.randint(0, 6))))
                for _ in range(dice.randint(0, 4))], style), seed)

    def test_damaged_forms(self):
        dice = random.Random(22)
        body = forms.encode([
            ("a", ""), ("b", "--bb\r\n--"), ("c", forms.File("f", b"\r\n")),
            ("d", "text\r\n\r\ntext")], forms.Style("b"))
        for seed in range(2000):
            damaged = bytearray(body)
            for _ in range(dice.randint(1, 4)):
                at = dice.randrange(len(damaged))
                what = dice.randrange(3)
                if what == 0:
                    damaged[at] = dice.randrange(256)
                elif what == 1:
                    del damaged[at:at + dice.randint(1, 20)]
                else:
                    damaged[at:at] = dice.choice(TOKENS)
            self.check(bytes(damaged), seed)

    def test_noise(self):
        dice = random.Random(23)
        for _ in range(500):
            body = bytes(dice.randrange(256)
                         for _ in range(dice.randint(0, 200)))
            self.assertEqual(outcome(b"b", [body]), "refused")


if __name__ == "__main__":
    unittest.main()
