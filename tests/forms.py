"""Upload forms as the released clients send them, and as tests need them."""

import base64
import hashlib
import re
from typing import NamedTuple, Tuple

OCTETS = "application/octet-stream"
BOUNDARY = "5e67fe7d77814ce78c475db5a3475c7e"
DISTUTILS = "--------------GHSKFJDLGDS7543FJKLFHRE75642756743254"


class File(NamedTuple):
    """The value of a field that is a file."""

    filename: str
    data: bytes
    media_type: str = OCTETS  # "" for none


class Style(NamedTuple):
    """How a client writes a form."""

    boundary: str = BOUNDARY
    newline: str = "\r\n"
    before: str = ""     # ahead of the first boundary
    filename: str = '; filename="%s"'
    media_type: str = OCTETS  # of the file
    parameter: str = ""  # of the Content-Type, after the boundary


class Client(NamedTuple):
    """What a client was seen to send."""

    name: str
    style: Style
    headers: Tuple[Tuple[str, str], ...]
    fields: Tuple[str, ...]  # in order; a name twice for a list


def encode(fields, style=Style()):
    """Return the body of a form of (name, str, bytes or File) pairs."""
    newline = style.newline.encode()
    dashes = b"--" + style.boundary.encode()
    parts = [style.before.encode()]
    for name, value in fields:
        head = 'Content-Disposition: form-data; name="%s"' % name
        if isinstance(value, File):
            head += style.filename % value.filename
            if value.media_type:
                head += "%sContent-Type: %s" % (
                    style.newline, value.media_type)
            value = value.data
        elif isinstance(value, str):
            value = value.encode("utf-8")
        parts += [dashes, newline, head.encode("utf-8"), newline, newline,
                  value, newline]
    return b"".join(parts + [dashes, b"--", newline])


def content_type(style=Style()):
    return "multipart/form-data; boundary=%s%s" % (
        style.boundary, style.parameter)


def upload(filename, data, style=Style(), headers=None, **fields):
    """Return (headers, body) of a POST that uploads a file.

    Args:
        fields: further ones by name; "action" instead of ":action".  The
            file comes last, as with most clients.
    """
    pairs = [(":action", fields.pop("action", "file_upload")),
             ("protocol_version", "1")]
    pairs += list(fields.items()) + [
        ("content", File(filename, data, style.media_type))]
    return (dict({"Content-Type": content_type(style)}, **(headers or {})),
            encode(pairs, style))


def post(fields, style=Style(), headers=None):
    """Return (headers, body) of a POST with these (name, value) pairs."""
    return (dict({"Content-Type": content_type(style)}, **(headers or {})),
            encode(fields, style))


def once(make, *arguments, **options):
    """Build an archive, and give the same bytes when it is asked for again.

    Archives have the time in them when they were made.
    """
    key = make.__name__, repr(arguments), hashlib.sha256(
        repr(sorted(options.items())).encode()).digest()
    if key not in MADE:
        MADE[key] = make(*arguments, **options)
    return MADE[key]


MADE = {}


def encode_as(client, fields):
    """Return (headers, body) of a form as a client sends it."""
    return (dict(client.headers, **{
        "Content-Type": content_type(client.style)}),
        encode(fields, client.style))


def credentials(user, password, coding="utf-8"):
    """Return the header of Basic authentication (RFC 7617)."""
    pair = ("%s:%s" % (user, password)).encode(coding)
    return {"Authorization": "Basic " + base64.b64encode(pair).decode()}


def digests(data):
    """Return the digests that clients send, by the name of their field."""
    return {
        "md5_digest": hashlib.md5(data).hexdigest(),
        "sha256_digest": hashlib.sha256(data).hexdigest(),
        "blake2_256_digest": hashlib.blake2b(
            data, digest_size=32).hexdigest()}


def names(text):
    """Split names of fields; "name*2" stands for the same one twice."""
    found = []
    for word in text.split():
        name, _, count = word.partition("*")
        found += [name] * int(count or 1)
    return tuple(found)


# Captured from the clients themselves.  The order of those fields that
# twine, poetry and Python 2.7 send at random is one of many.
CLIENTS = (
    Client("twine 7.0.0", Style(),
           (("User-Agent", "twine/7.0.0 CPython/3.13.0"), ("Accept", "*/*"),
            ("Accept-Encoding", "gzip, deflate")), names(
        "provides_extra metadata_version classifiers*2 summary "
        "requires_python license_file keywords description_content_type "
        "version project_urls*2 license_expression name requires_dist*2 "
        "author_email description pyversion filetype sha256_digest "
        "blake2_256_digest :action protocol_version content")),
    Client("uv 0.13.9", Style(
        "f3caa62cf5af196d-a479b267538d42dc-28b17bf5bae39846-f2d24286dd3c48d7",
        media_type=""),
           (("User-Agent", 'uv/0.13.9 {"installer":{"name":"uv"}}'),
            ("Accept", "application/json;q=0.9, text/plain;q=0.8, "
             "text/html;q=0.7"), ("Accept-Encoding", "zstd,gzip,deflate")),
           names(
        ":action sha256_digest blake2_256_digest protocol_version "
        "metadata_version name version filetype pyversion author_email "
        "description description_content_type keywords license_expression "
        "summary requires_python classifiers*2 license_file project_urls*2 "
        "provides_extra requires_dist*2 content")),
    Client("hatch 1.18.2", Style("e1dfcb307af0b80f30cef66a17b0a1ec"),
           (("User-Agent", 'Hatch/1.18.2 {"ci":null}'), ("Accept", "*/*")),
           names(
        "description metadata_version name version summary keywords "
        "author_email license_expression license_file classifiers*2 "
        "requires_dist*2 requires_python project_urls*2 provides_extra "
        "description_content_type filetype pyversion :action "
        "protocol_version md5_digest sha256_digest blake2_256_digest "
        "content")),
    Client("poetry 2.5.1", Style("2aa4a6616fd44fbc96f029d891e5ba5d"),
           (("User-Agent", "poetry/2.5.1 CPython/3.13.0 Linux/6.18"),
            ("Accept", "*/*")), names(
        "md5_digest sha256_digest blake2_256_digest filetype pyversion "
        "requires_dist*2 keywords classifiers*2 description_content_type "
        "version requires_python name author_email project_urls*2 summary "
        "license_expression license_file provides_extra metadata_version "
        "description :action protocol_version content")),
    Client("pdm 2.29.4", Style("af6cafa0f0e04c97a92f0a77f54f4d60"),
           (("User-Agent", "pdm/2.29.4"), ("Accept", "*/*")), names(
        "name version filetype pyversion metadata_version summary home_page "
        "author author_email maintainer maintainer_email license "
        "description keywords classifiers*2 download_url comment "
        "project_urls*2 requires_dist*2 requires_python provides_extras "
        "description_content_type license_expression sha256_digest "
        "md5_digest blake2_256_digest license_file :action "
        "protocol_version content")),
    Client("flit 4.2.0", Style("9f4931dfd02c686b952d8c7e3f41eaa8",
                               media_type=""),
           (("User-Agent", "python-requests/2.34.2"), ("Accept", "*/*")),
           names(
        ":action name version metadata_version summary author_email "
        "description keywords provides project_urls*2 requires_dist*2 "
        "requires_python description_content_type provides_extra "
        "protocol_version filetype pyversion md5_digest sha256_digest "
        "content")),
    Client("distutils of Python 3.11", Style(
        DISTUTILS, before="\r\n", media_type=""),
           (("User-Agent", "Python-urllib/3.11"),), names(
        ":action protocol_version name version content filetype pyversion "
        "metadata_version summary home_page author author_email license "
        "description keywords platform classifiers*2 download_url provides "
        "requires obsoletes comment md5_digest sha256_digest "
        "blake2_256_digest gpg_signature")),
    Client("distutils of Python 3.6", Style(
        DISTUTILS, before="\r\n", media_type=""),
           (("User-Agent", "Python-urllib/3.6"),), names(
        ":action protocol_version name version content filetype pyversion "
        "md5_digest metadata_version summary home_page author author_email "
        "license description platform classifiers*2 download_url comment")),
    Client("distutils of Python 2.7", Style(
        DISTUTILS, before="\r\n", filename=';filename="%s"', media_type=""),
           (("User-Agent", "Python-urllib/2.7"),), names(
        "comment metadata_version filetype protcol_version author home_page "
        "download_url content platform version description md5_digest "
        ":action classifiers*2 name license pyversion summary "
        "author_email")),
)
REGISTER = Client(
    "register of Python 3.6", Style(
        DISTUTILS, "\n", "\n", parameter="; charset=utf-8"),
    (("User-Agent", "Python-urllib/3.6"),), names(
        ":action metadata_version name version summary home_page author "
        "author_email license description platform classifiers*2 "
        "download_url"))

# What those fields say of the archive in the tests.
VALUES = {
    "protocol_version": "1", "protcol_version": "1", "filetype": "sdist",
    "pyversion": "source", "metadata_version": "2.1", "summary": "Tests \xfc",
    "description": "A text\n\n--with lines\r\n--\nand dashes\n",
    "author_email": "Me <me@example.org>", "keywords": "a, b",
    "requires_python": ">=3.6", "description_content_type": "text/plain",
    "license_expression": "MIT", "license_file": "LICENSE",
    "classifiers": "Topic :: Software Development",
    "requires_dist": "six>=1; extra == \"x\"", "provides_extra": "x",
    "provides_extras": "x", "project_urls": "Home, https://example.org",
    "license": "UNKNOWN", "author": "UNKNOWN", "platform": "UNKNOWN",
    "home_page": "UNKNOWN", "download_url": "UNKNOWN"}


def captured(client, filename, data, **values):
    """Return the fields of a client's form, as (name, value) pairs.

    Args:
        values: of further fields, or other ones than usual.
    """
    known = dict(VALUES, **digests(data))
    known[":action"] = "submit" if client is REGISTER else "file_upload"
    known["content"] = File(filename, data, client.style.media_type)
    known["gpg_signature"] = File(filename + ".asc", b"signed", "")
    name, version = re.match(r"(.+?)-(\d[^-]*?)(?:-|\.tar|\.zip)",
                             filename).groups()
    known.update(name=name, version=version)
    known.update(values)
    return [(name, known.get(name, "")) for name in client.fields]
