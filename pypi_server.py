#!/usr/bin/env python3
"""A PyPI-compatible package server in one file, with no dependencies.

    python3 pypi_server.py run ~/packages
    pip install --index-url http://localhost:8080/simple/ PROJECT

Sections 1-14 are pure: values in, values out.  The others may touch the
disk, the network and the clock.  A section uses only those above it.

     1  Constants     media types, suffixes, limits with their reasons
     2  Data          the NamedTuples that every other section passes around
     3  Errors        HTTPError and UsageError, the two ways to fail
     4  Names         projects, versions, filenames
     5  Headers       negotiation, ranges, validators, credentials, forwarding
     6  Multipart     push parser for multipart/form-data
     7  Htpasswd      lines, hashes, verification
     8  Archives      zips and tars: members, and what is in them
     9  Metadata      core metadata out of archives; is the archive whole
    10  Simple pages  Simple API in HTML and JSON, legacy JSON
    11  Look          stylesheet, script and icon of the pages for people
    12  For people    home, search, errors: what browsers show
    13  Project page  a release, and the grid of all of them
    14  Options       every setting, declared once
    15  Files         identity, locks, names given in one step
    16  Cache         what was read, in memory and in a file
    17  Tree          the names in the package directories
    18  Reading       archives, each read once while it stays the same
    19  Directories   projects: whole files, digests, companions
    20  Warm-up       what nobody has asked for is read ahead of requests
    21  Lists         what is known of all projects at once
    22  Accounts      who may, by a password file that may change
    23  Application   what it is made of, and the kinds of answers
    24  Handlers      pages, downloads, search
    25  Uploads       what is stored, and what is refused
    26  Routing       the route table, from request to response
    27  Wire          bytes of a socket, bodies of requests, heads of answers
    28  Server        the http.server adapter: connections, answers kept ready
    29  Workers       processes, signals, start and stop
    30  WSGI          the application for other servers
    31  Update        newer releases in another index
    32  Yank          companion files that withdraw releases
    33  Inspection    all of an archive is read, on all cores
    34  Target        the Python and the platform that is installed for
    35  Closure       what can be installed out of the directories
    36  Check         what is wrong or missing
    37  Site          plain files that any web server can serve
    38  Export        an index as a site, and only what changed
    39  Command line  parser and main
"""

import argparse
import base64
import collections
import contextlib
import datetime
import email.utils
import errno
import functools
import gc
import getpass
import hashlib
import heapq
import hmac
import html
import http.client
import importlib
import io
import itertools
import json
import logging
import math
import mmap
import operator
import os
import queue
import re
import shlex
import shutil
import signal
import socket
import stat
import struct
import sys
import threading
import time
import zlib
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import (
    AbstractSet, Any, BinaryIO, Callable, Deque, Dict, FrozenSet, Generic,
    Iterable, Iterator, List, Mapping, Match, NamedTuple, Optional, Pattern,
    Sequence, Set, Tuple, TypeVar, Union,
)
from urllib.parse import (
    SplitResult, quote, unquote, unquote_to_bytes, urljoin, urlsplit,
    urlunsplit,
)

__version__ = "0.1.0"
__all__ = ["Config", "app", "default_config", "main", "make_app",
           "paste_app_factory", "wsgi_app"]

Value = TypeVar("Value")

# === 1  Constants ===========================================================

API_VERSION = "1.4"  # PEP 629; 1.4 is PEP 792, project status markers
SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"
SIMPLE_HTML = "application/vnd.pypi.simple.v1+html"
HTML = "text/html"
JSON = "application/json"
TEXT = "text/plain"
BINARY = "application/octet-stream"

CHALLENGE = ("WWW-Authenticate", 'Basic realm="pypi", charset="UTF-8"')
NO_STORE = ("Cache-Control", "no-store")
# Pages change when a file does: clients keep them, and ask before use.
REVALIDATE = ("Cache-Control", "no-cache")

# Companion files: facts about an archive that lie beside it.
SIGNATURE = ".asc"
YANKED = ".yanked"          # PEP 592; the text is the reason
PROVENANCE = ".provenance"  # PEP 740
COMPANIONS = (SIGNATURE, YANKED, PROVENANCE)
STATUS = ".status"          # PROJECT.status; PEP 792
STATUSES = ("active", "archived", "quarantined", "deprecated")
METADATA = ".metadata"      # PEP 658: a URL, never a file

# What copying programs call a file that they have not finished.
UNFINISHED = (".part", ".partial", ".filepart", ".tmp", ".crdownload", "~")

# Extensions of archives that are zip files.
ZIPPED = (".whl", ".egg", ".zip", ".exe")

BLOCK = 256 * 1024               # bytes read from a file at once
XZ_MEMORY = 128 * 1024 ** 2      # bytes; `xz -9` needs 64 MiB
METADATA_LIMIT = 10 * 1024 ** 2  # bytes; the largest on PyPI are below 2 MiB
# Of its head, in which old tools put the description too.  Parsed, a field
# needs hundreds of bytes; and a line that has two compresses to nothing.
METADATA_HEAD_LIMIT = 4 * 1024 ** 2  # bytes
METADATA_FIELDS_LIMIT = 10000
# What a tar may unpack to: so much in any case, and so many times its size.
# bz2 can reach 20,000 times, which a reader would need hours for.
BOMB_SIZE = 1024 ** 3            # bytes
BOMB_RATIO = 100                 # Warehouse allows a zip 50
COMPANION_LIMIT = 64 * 1024      # bytes of a reason that anybody would read
VERSION_LIMIT = 200              # characters; int() refuses 4300 digits
ACCEPT_LIMIT = 2048              # characters; browsers send about 150
GZIP_MINIMUM = 1024              # bytes; below, one packet holds it anyway

# === 2  Data ================================================================


class Filename(NamedTuple):
    """What the name of an archive tells."""

    project: str   # normalized (PEP 503), e.g. "zope-interface"
    version: str   # as in the filename, "_" of wheels as "-"; may be ""
    filetype: str  # as uploads call it: "sdist", "bdist_wheel", ...


class Version(NamedTuple):
    """A version by PEP 440, in parts."""

    epoch: int
    release: Tuple[int, ...]
    pre: Optional[Tuple[str, int]]  # ("a" | "b" | "rc", number)
    post: Optional[int]
    dev: Optional[int]
    local: Tuple[Union[int, str], ...]


class Archive(NamedTuple):
    """A distribution archive in a package directory, by its name alone."""

    root: str       # the package directory, absolute
    directory: str  # below it: "" or "some/folder/"
    filename: str
    project: str    # normalized
    version: str    # as in Filename
    filetype: str

    @property
    def location(self) -> str:
        """The path below the root and below the URL /packages/."""
        return self.directory + self.filename

    @property
    def path(self) -> str:
        return f"{self.root}/{self.directory}{self.filename}"


class Identity(NamedTuple):
    """Changes whenever the content of a file does (see git's racy-git)."""

    size: int      # bytes
    mtime_ns: int  # since the epoch
    ctime_ns: int
    inode: int


class Facts(NamedTuple):
    """What was learned by reading an archive to its end."""

    problem: str                  # why it is withheld; "" when it is whole
    digests: Mapping[str, str]    # hex, by the algorithm's name in hashlib
    metadata_digest: str          # sha256 of a wheel's METADATA, or ""
    requires_python: str          # a specifier, or ""
    summary: str                  # of the metadata, or ""


class File(NamedTuple):
    """An archive that was found whole, with all that pages show of it."""

    archive: Archive
    identity: Identity
    facts: Facts
    yanked: Optional[str]  # the reason, perhaps ""; None: not yanked
    signed: bool
    provenance: bool


class Project(NamedTuple):
    name: str                 # normalized
    files: Tuple[File, ...]   # oldest version first
    status: str               # one of STATUSES, or "" when none was given
    reason: str               # of the status
    withheld: Tuple[Tuple[str, str], ...]  # (filename, why) of the others


class Page(NamedTuple):
    """A rendered page, ready to be sent in either coding."""

    media_type: str
    body: bytes
    compressed: bytes  # with gzip; b"" when that does not pay
    etag: str          # of the body, quoted; the other one derives from it


class FileSlice(NamedTuple):
    """A body that the adapter reads from disk; handlers never open files."""

    path: str
    identity: Identity  # a file that has another by now is not sent
    start: int          # bytes
    length: int         # bytes


class Request(NamedTuple):
    method: str                   # upper case
    path: str                     # percent-decoded, below the prefix
    query: str                    # as sent, without the "?"
    headers: Mapping[str, str]    # names in lower case
    read: Callable[[int], bytes]  # at most n more bytes of the body
    client: str                   # address of the peer, or whom it serves
    base: str                     # URL of the index, e.g. "http://host/pypi/"
    user: str = "-"               # once verified
    # Is called when an account stands for it.
    vouch: Callable[[], None] = lambda: None
    outside: str = ""             # the prefix, if the path is not below it


class Response(NamedTuple):
    status: int
    headers: Tuple[Tuple[str, str], ...] = ()
    body: Union[bytes, FileSlice] = b""
    reason: str = ""  # in the status line; "" stands for the usual phrase


# === 3  Errors ==============================================================


DETAIL_LIMIT = 250  # characters of what was sent that come back in an error


class HTTPError(Exception):
    """The client is told.  Raised by anything below respond()."""

    def __init__(self, status: int, detail: str,
                 headers: Tuple[Tuple[str, str], ...] = ()) -> None:
        super().__init__(status, detail)
        self.status = status    # an HTTP status code, 400-599
        # One sentence, shown to the client.
        self.detail = detail[:DETAIL_LIMIT]
        self.headers = headers  # extra headers, e.g. (("Allow", "GET"),)


class UsageError(Exception):
    """The operator is told: main() prints it and ends with status 2."""


# === 4  Names ===============================================================

# PEP 508: "^([A-Z0-9]|[A-Z0-9][A-Z0-9._-]*[A-Z0-9])$", letters of ASCII only.
PROJECT_NAME = re.compile(
    r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", re.IGNORECASE | re.ASCII)

# PEP 440, appendix B, with the spellings that it normalizes.  ASCII digits
# only: int() would take others, and no client does.
VERSION = re.compile(r"""
    v? (?:(?P<epoch>\d+)!)? (?P<release>\d+(?:\.\d+)*)
    (?:[-_.]? (?P<pre>alpha|a|beta|b|preview|pre|c|rc)
       [-_.]? (?P<pre_number>\d*))?
    (?P<post> - (?P<post_implicit>\d+)
            | [-_.]? (?:post|rev|r) [-_.]? (?P<post_number>\d*))?
    (?P<dev> [-_.]? dev [-_.]? (?P<dev_number>\d*))?
    (?:\+ (?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?
    """, re.VERBOSE | re.IGNORECASE | re.ASCII)
PRE_SPELLINGS = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc",
                 "preview": "rc"}

# PEP 440, "Version specifiers", and what of PEP 508 is about versions.
SPECIFIER = re.compile(r"(~=|===|==|!=|<=|>=|<|>)\s*([^\s,;()]+)")
COMPARISONS = {"==": operator.eq, "<=": operator.le, ">=": operator.ge,
               "<": operator.lt, ">": operator.gt}

# PEP 427: name-version(-build)?-python-abi-platform.whl, no "-" inside a
# part, a build tag starts with a digit.
WHEEL = re.compile(
    r"([^-]+)-([^-]+)(?:-\d[^-]*)?-[^-]+-[^-]+-[^-]+\.whl")
EGG = re.compile(r"([^-]+)-([^-]+)(?:-py\d[\d.]*(?:-.+)?)?\.egg")
TAR_EXTENSIONS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
SDIST_EXTENSIONS = TAR_EXTENSIONS + (".zip",)
# bdist_wininst, bdist_msi and friends, as old setuptools named them.
INSTALLER = re.compile(r"(.+)\.(?:exe|msi)|(.+-py[23]\.\d+)-.+")
# What bdist_dumb and the installers put between version and extension.
BUILT_FOR = re.compile(
    r"(?<=\d)(?:\.(?:linux-\w+|macosx-[\d.]+-\w+|win32|win-\w+))?"
    r"(?:-py\d(?:\.\d+)?(?:-[-.\w]+)?)?$", re.ASCII)


def normalize(name: str) -> str:
    """Return the normalized form of a project name (PEP 503).

    >>> normalize("Zope._.Interface")
    'zope-interface'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_version(text: str) -> Optional[Version]:
    """Take a version apart (PEP 440); None when it is not one.

    >>> parse_version("1!2.0rc1.post3+Ubuntu-1").local
    ('ubuntu', 1)
    >>> parse_version("2.0-final") is None
    True
    """
    if len(text) > VERSION_LIMIT:
        return None
    found = VERSION.fullmatch(text.strip())
    if not found:
        return None
    pre = found.group("pre")
    local = re.split("[-_.]", (found.group("local") or "").lower())
    return Version(
        int(found.group("epoch") or 0),
        tuple(map(int, found.group("release").split("."))),
        (PRE_SPELLINGS.get(pre.lower(), pre.lower()),
         int(found.group("pre_number") or 0)) if pre else None,
        int(found.group("post_implicit") or found.group("post_number") or 0)
        if found.group("post") else None,
        int(found.group("dev_number") or 0) if found.group("dev") else None,
        tuple(int(part) if part.isdigit() else part
              for part in local if part))


def trimmed(version: Version) -> Version:
    """Return a version without final zeros: 1.0 and 1.0.0 are the same."""
    release = version.release
    while len(release) > 1 and not release[-1]:
        release = release[:-1]
    return version._replace(release=release)


FINAL = "z", 0  # a final release follows all of its a, b and rc


@functools.lru_cache(maxsize=2 ** 14)  # pages compare versions again
def version_key(text: str) -> Tuple[Any, ...]:
    """Return what versions are ordered and compared by (PEP 440).

    Legacy versions sort below all others, among themselves as text.

    >>> versions = ["1.0", "1.0.post1", "1.0.dev1", "1.0rc1", "2004-final"]
    >>> sorted(versions, key=version_key)
    ['2004-final', '1.0.dev1', '1.0rc1', '1.0', '1.0.post1']
    >>> version_key("1.0") == version_key("1.0.0")
    True
    """
    version = parse_version(text)
    if version is None:
        return (0, text.strip().lower())
    release = trimmed(version).release
    pre = version.pre or FINAL
    if not version.pre and version.post is None and version.dev is not None:
        pre = ("", 0)  # 1.0.dev1 comes before 1.0a1
    return (1, version.epoch, release, pre,
            -1 if version.post is None else version.post,
            math.inf if version.dev is None else version.dev,
            # Absent sorts first, text before numbers, short before long.
            tuple((1, part, "") if isinstance(part, int) else (0, 0, part)
                  for part in version.local))


def normalize_version(text: str) -> str:
    """Return the normal form of a version; a legacy one as it is.

    >>> normalize_version("v1.0-ALPHA.1-2.dev")
    '1.0a1.post2.dev0'
    """
    version = parse_version(text)
    if version is None:
        return text
    return "".join((
        f"{version.epoch}!" if version.epoch else "",
        ".".join(map(str, version.release)),
        "%s%d" % version.pre if version.pre else "",
        "" if version.post is None else f".post{version.post}",
        "" if version.dev is None else f".dev{version.dev}",
        "+" + ".".join(map(str, version.local)) if version.local else ""))


def is_prerelease(text: str) -> bool:
    key = version_key(text)  # it is remembered
    return len(key) > 2 and (key[3] != FINAL or key[5] != math.inf)


def parse_requirement(text: str
                      ) -> Optional[Tuple[str, Tuple[Tuple[str, str], ...]]]:
    """Split a name and its version specifiers (PEP 508, PEP 440).

    Extras, markers and URLs say nothing about files: they are refused.

    Returns:
        (normalized name, ((operator, version), ...)), or None.

    >>> parse_requirement("Foo.Bar >=1.0, <2")
    ('foo-bar', (('>=', '1.0'), ('<', '2')))
    >>> parse_requirement("foo==1.0.dev1.*") is None
    True
    """
    name = PROJECT_NAME.match(text.strip())
    if not name:
        return None
    rest = text.strip()[name.end():].strip()
    found = [SPECIFIER.fullmatch(part.strip())
             for part in rest.split(",") if rest]
    clauses = tuple((match.group(1), match.group(2))
                    for match in found if match)
    if len(clauses) < len(found) or not all(
            is_specifier(*clause) for clause in clauses):
        return None
    return normalize(name.group()), clauses


def is_specifier(operator: str, wanted: str) -> bool:
    """Tell whether a version may stand behind an operator (PEP 440)."""
    if operator == "===":
        return True
    is_prefix = wanted.endswith(".*")
    version = parse_version(wanted[:-2] if is_prefix else wanted)
    if version is None:
        return False
    if is_prefix:
        return operator in ("==", "!=") and version[2:] == (
            None, None, None, ())
    if version.local:
        return operator in ("==", "!=")
    return operator != "~=" or len(version.release) > 1


def satisfies(version: str, operator: str, wanted: str) -> bool:
    """Compare a version as PEP 440, "Version specifiers", says.

    Pre-releases are compared like others; to leave them out is for who
    chooses one version.  Legacy versions satisfy nothing but === and !=.

    >>> satisfies("1.1rc1", "==", "1.1.*")
    True
    >>> satisfies("2.0rc1", "<", "2.0")
    False
    """
    if operator == "===":
        return version.strip().lower() == wanted.lower()
    if operator == "!=":
        return not satisfies(version, "==", wanted)
    this = parse_version(version)
    prefix = parse_version(wanted[:-2]) if wanted.endswith(".*") else None
    other = prefix or parse_version(wanted)
    if this is None or other is None:
        return False
    if operator == "~=":
        series = ".".join(map(str, other.release[:-1]))
        return satisfies(version, ">=", wanted) and satisfies(
            version, "==", f"{other.epoch}!{series}.*")
    if prefix:
        length = len(prefix.release)
        return prefix[:2] == (this.epoch, (
            this.release + (0,) * length)[:length])
    left, right = version_key(version), version_key(wanted)
    if operator.endswith("="):
        if not other.local:
            left = version_key(version.partition("+")[0])
        return bool(COMPARISONS[operator](left, right))
    return not is_variant(operator, version, wanted) and bool(
        COMPARISONS[operator](left, right))


def is_variant(operator: str, version: str, wanted: str) -> bool:
    """Tell whether <2.0 means all but 2.0rc1, and >2.0 all but 2.0.post1."""
    this, other = parse_version(version), parse_version(wanted)
    if this is None or other is None:
        return False
    if operator == "<":
        bare = this._replace(pre=None, dev=None, local=())
        if other.post is None:
            bare = bare._replace(post=None)
        return is_prerelease(version) and not is_prerelease(wanted) \
            and trimmed(bare) == trimmed(other) and (
                other.post is None or this.pre is None)
    bare = this._replace(local=())
    if this.post is not None and other.post is None and other.dev is None:
        bare = bare._replace(post=None, dev=None)
    return trimmed(bare) == trimmed(other)


def split_stem(stem: str) -> Tuple[str, str]:
    """Split "name-version", either of which may hold further dashes.

    Old sdists wrote foo-1.0-1 and foo-1.0-beta1, and foo-2-1.0: the first
    dash that is followed by a version alone is the one (PEP 440).  For what
    is left, versions have begun with a digit ever since.

    >>> split_stem("foo-2-1.0-beta1")
    ('foo-2', '1.0-beta1')
    >>> split_stem("foo-bar-2004r1-final")
    ('foo-bar', '2004r1-final')
    >>> split_stem("foo-bar")
    ('foo', 'bar')
    """
    dashes = [found.start() for found in re.finditer("-", stem)
              if found.start()]
    for at in dashes:
        if parse_version(stem[at + 1:]):
            return stem[:at], stem[at + 1:]
    for at in dashes:
        if stem[at + 1:at + 2].isdigit():
            return stem[:at], stem[at + 1:]
    if dashes:
        return stem[:dashes[-1]], stem[dashes[-1] + 1:]
    return stem, ""


def parse_filename(filename: str) -> Optional[Filename]:
    """Tell what an archive is from its name (PEP 427, PEP 625, and older).

    Args:
        filename: the last part of its path.

    Returns:
        None when the file is not a distribution archive.

    >>> parse_filename("zope.interface-6.1.tar.gz")
    Filename(project='zope-interface', version='6.1', filetype='sdist')
    >>> parse_filename("foo_bar-1.0-2-py3-none-any.whl").version
    '1.0'
    >>> parse_filename("README.txt") is None
    True
    """
    if filename.endswith(COMPANIONS + UNFINISHED + (METADATA, STATUS)):
        return None
    for pattern, filetype in ((WHEEL, "bdist_wheel"), (EGG, "bdist_egg")):
        found = pattern.fullmatch(filename)
        if found:
            return Filename(normalize(found.group(1)),
                            found.group(2).replace("_", "-"), filetype)
    extension = extension_of(filename)
    if extension:
        stem, filetype = filename[:-len(extension)], "sdist"
        if stem.endswith(".sdist"):
            stem = stem[:-len(".sdist")]
    else:
        found = INSTALLER.fullmatch(filename)
        if not found:
            return None
        stem, filetype = found.group(1) or found.group(2), "bdist_wininst"
        if filename.endswith(".msi"):
            filetype = "bdist_msi"
    # "foo-1.0.win-amd64-py2.7" is a "foo-1.0".
    bare = BUILT_FOR.sub("", stem, 1)
    if extension and not re.fullmatch(r"(-py[\d.]+)?", stem[len(bare):]):
        filetype = "bdist_dumb"
    name, version = split_stem(bare)
    return Filename(normalize(name), version, filetype) if name else None


def project_meant(filename: str) -> str:
    """Return the project that any file seems to belong to, "" for none.

    >>> project_meant("Foo-1.0.ZIP.part"), project_meant("foo.status")
    ('foo', 'foo')
    """
    name = filename.lower()
    if name.endswith(STATUS):
        return normalize(name[:-len(STATUS)])
    for suffix in COMPANIONS + UNFINISHED + (METADATA,):
        if name.endswith(suffix):
            return project_meant(name[:-len(suffix)])
    parsed = parse_filename(name)
    return parsed.project if parsed else ""


def wheel_tags(filename: str) -> Tuple[List[str], List[str], List[str]]:
    """Return the python, abi and platform tags of a wheel (PEP 425)."""
    python, abi, platform = filename[:-len(".whl")].split("-")[-3:]
    return python.split("."), abi.split("."), platform.split(".")


def extension_of(filename: str) -> str:
    """Return the extension of an sdist, e.g. ".tar.gz"; "" of others."""
    for extension in SDIST_EXTENSIONS:
        if filename.endswith(extension):
            return extension
    return ""


# === 5  Headers =============================================================

# RFC 9110, 14.1.2: int-range "first-last?" or suffix-range "-length".
BYTE_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII)
# RFC 9110, 7.2 and RFC 3986, 3.2.2: a name, IPv4 or [IPv6], and a port.
HOST = re.compile(r"(?:[\w.~-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?", re.ASCII)
HOST_LIMIT = 260  # characters; a name in DNS has 253, a port 5


def quality(parameters: Sequence[str]) -> float:
    """Return the weight among the parameters of a media range.

    RFC 9110, 12.4.2; 0.0 when it is not a number.
    """
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            found = re.fullmatch(r"[01](?:\.\d{0,3})?", value.strip(), re.A)
            return min(float(found.group()), 1.0) if found else 0.0
    return 1.0


def weights(text: str) -> List[Tuple[str, float]]:
    """Split an Accept or Accept-Encoding header.

    >>> weights("text/html, */*;q=0.1")
    [('text/html', 1.0), ('*/*', 0.1)]
    """
    found = []
    for part in text[:ACCEPT_LIMIT].split(","):
        name, *parameters = part.split(";")
        if name.strip():
            found.append((name.strip().lower(), quality(parameters)))
    return found


@functools.lru_cache(maxsize=256)  # a fifth of the time of an answer
def choose_media_type(accept: str, offers: Tuple[str, ...]
                      ) -> Optional[str]:
    """Pick the representation for a client (PEP 691, RFC 9110, 12.5.1).

    The highest weight wins, then the more specific range, then the earlier
    offer.  A client that says no more than "*/*" gets the last offer: those
    are curl, old installers and scripts that search the page for links.

    Args:
        accept: the header, "" when there was none.
        offers: media types, the richest first.

    Returns:
        one of the offers; None when the client refuses them all.

    >>> choose_media_type("text/html;q=0.1, application/json",
    ...                   ("application/json", "text/html"))
    'application/json'
    """
    ranges = weights(accept.replace(".simple.latest+", ".simple.v1+"))
    if not ranges:
        return offers[-1]
    found = []
    for place, offer in enumerate(offers):
        scopes = {offer: 3, offer.partition("/")[0] + "/*": 2, "*/*": 1}
        scope, weight = max(((scopes[name], weight) for name, weight in ranges
                             if name in scopes), default=(0, 0.0))
        if weight:
            found.append((weight, scope, -place))
    if not found:
        return None
    if found[-1][2] == 1 - len(offers) and all(
            scope == 1 for _, scope, _ in found):
        return offers[-1]
    return offers[-max(found)[2]]


def accepts_gzip(header: str) -> bool:
    """Tell whether gzip may be sent (RFC 9110, 12.5.3)."""
    codings = dict(weights(header))
    return codings.get("gzip", codings.get("*", 0.0)) > 0


def matches_etag(header: str, etag: str) -> bool:
    """Tell whether a list has an ETag (RFC 9110, 13.1.2; weak compare)."""
    return header.strip() == "*" or etag in re.findall(r'"[^"]*"', header)


def conditional_status(headers: Mapping[str, str], etag: str,
                       modified: int) -> int:
    """Evaluate the conditions of a request for a file (RFC 9110, 13.2.2).

    Returns:
        200, 304 or 412.
    """
    if "if-match" in headers:
        # Of weak tags, none is strong enough for that.
        strong = re.sub(r'W/"[^"]*"', "", headers["if-match"])
        if not matches_etag(strong, etag):
            return 412
    elif "if-unmodified-since" in headers:
        wanted = parse_date(headers["if-unmodified-since"])
        if wanted is not None and modified > wanted:
            return 412
    if "if-none-match" in headers:
        if matches_etag(headers["if-none-match"], etag):
            return 304
    # A file that came with an older time is another file all the same.
    elif "if-modified-since" in headers \
            and parse_date(headers["if-modified-since"]) == modified:
        return 304
    return 200


def parse_date(text: str) -> Optional[int]:
    """Parse the time in a header, in seconds; None if it is none.

    >>> parse_date("Sun, 06 Nov 1994 08:49:37 GMT")
    784111777
    """
    try:
        found = email.utils.parsedate_tz(text)
        return found and email.utils.mktime_tz(found)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def parse_range(text: str, size: int) -> Optional[Tuple[int, int]]:
    """Resolve a Range header against a file (RFC 9110, 14.2).

    Returns:
        (start, length) in bytes; None when the header is to be ignored:
        another unit, several ranges, or not a range at all.

    Raises:
        HTTPError: 416 when no byte of the file is in the range.

    >>> parse_range("bytes=-100", 1000)
    (900, 100)
    """
    found = BYTE_RANGE.fullmatch(text.strip())
    if not found or not (found.group(1) or found.group(2)):
        return None
    if not found.group(1):
        length = min(int(found.group(2)), size)
        start, stop = size - length, size
    else:
        start = int(found.group(1))
        stop = size
        if found.group(2):
            if int(found.group(2)) < start:
                return None
            stop = min(int(found.group(2)) + 1, size)
    if start >= stop:
        raise HTTPError(
            416, f"the file has {size} bytes, none of them in {text!r}",
            (("Content-Range", f"bytes */{size}"),))
    return start, stop - start


@functools.lru_cache(maxsize=64)  # many answers have the same Date
def http_date(seconds: int) -> str:
    """Format a time for a header (RFC 9110, 5.6.7).

    >>> http_date(784111777)
    'Sun, 06 Nov 1994 08:49:37 GMT'
    """
    moment = moment_of(seconds * 10 ** 9)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[moment.weekday()]
    month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep",
             "Oct", "Nov", "Dec")[moment.month - 1]
    return moment.strftime(f"{day}, %d {month} {moment.year:04d} %H:%M:%S GMT")


def moment_of(nanoseconds: int) -> datetime.datetime:
    """Return a time since the epoch, in UTC and without a zone.

    Some filesystems hold times that datetime cannot: they become the
    nearest that it can.
    """
    epoch = datetime.datetime(1970, 1, 1)
    try:
        return epoch + datetime.timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return datetime.datetime.max if nanoseconds > 0 else epoch


def is_host(text: str) -> bool:
    return len(text) <= HOST_LIMIT and bool(HOST.fullmatch(text))


def base_url(scheme: str, host: str, prefix: str) -> str:
    """Return the URL of the index as this client sees it.

    Only what PyPI's formats demand as absolute is built from it: legacy
    JSON and provenance; a client that lies here deceives itself.
    """
    if not is_host(host):
        host = "localhost"
    return f"{scheme}://{host}/{quote(prefix.strip('/'))}".rstrip("/") + "/"


def forwarded(headers: Mapping[str, str], name: str) -> str:
    """Return what the nearest proxy says in an X-Forwarded-* header."""
    return headers.get("x-forwarded-" + name, "").rpartition(",")[2].strip()


# All that quote() shall leave as it is, where nothing is to be decoded.
PRINTABLE = "".join(map(chr, range(0x21, 0x7f)))
# RFC 9112, 3: method SP request-target SP HTTP-version.  The target is any
# visible ASCII: http.server would also split at other white space.
REQUEST_LINE = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([!-~]+) HTTP/(\d)\.(\d)")
# RFC 9112, 5: no space before the colon, no folding, no control characters.
# http.server takes an e-mail parser for this, which silently ends the head
# at a line that it does not like.
# White space around the value is left in it: a pattern that took it off
# would try every way to share it out.
FIELD_LINE = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t -~\x80-\xff]*)")
FIELD_LIMIT = 100  # fields; http.server has the same
# bytes; nginx takes 4 x 8 KiB, gunicorn 100 fields of 8 KiB
HEAD_LIMIT = 32 * 1024
LINE_LIMIT = 8 * 1024
BODY_LENGTH = re.compile("[0-9]{1,15}")
BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
CONTROLS = re.compile("[\x00-\x1f\x7f]")
# Of these a second one is a trick, or a mistake that must not be guessed at.
SINGLE_FIELDS = frozenset((
    "authorization", "content-length", "content-type", "expect", "host",
    "if-range", "range", "transfer-encoding"))


class Head(NamedTuple):
    """The head of an HTTP/1 request."""

    method: str
    target: str               # as sent
    minor: int                # of the HTTP version 1.x
    headers: Dict[str, str]   # names in lower case


def parse_head(data: bytes) -> Head:
    """Parse what comes before the empty line of a request (RFC 9112).

    Raises:
        HTTPError: 400, 414, 431 or 505.
    """
    line, *fields = data.split(b"\r\n")
    if len(line) > LINE_LIMIT:
        raise HTTPError(414, "the request line is too long")
    if len(data) > HEAD_LIMIT or max(map(len, fields), default=0) > LINE_LIMIT:
        raise HTTPError(431, "the request head is too long")
    found = REQUEST_LINE.fullmatch(line)
    if not found:
        raise HTTPError(400, "the request line is not HTTP/1.1")
    method, target, major, minor = found.groups()
    if major != b"1":
        raise HTTPError(505, "this server speaks HTTP/1.1")
    if len(fields) > FIELD_LIMIT:
        raise HTTPError(431, f"more than {FIELD_LIMIT} header fields")
    headers = parse_fields(fields)
    if minor != b"0" and not is_host(headers.get("host", "")):
        raise HTTPError(400, "the Host header is missing or malformed")
    return Head(method.decode(), target.decode(), int(minor), headers)


def parse_fields(lines: Iterable[bytes]) -> Dict[str, str]:
    headers: Dict[str, str] = {}
    for line in lines:
        found = FIELD_LINE.fullmatch(line)
        if not found:
            raise HTTPError(400, "a header line is malformed")
        name = found.group(1).decode().lower()
        value = found.group(2).strip(b" \t").decode("latin-1")
        if name not in headers:
            headers[name] = value
        elif name in SINGLE_FIELDS:
            raise HTTPError(400, f"more than one {name} header")
        else:
            headers[name] += ", " + value
    return headers


def split_target(target: str) -> Tuple[str, str]:
    """Return (path, query) of a request target (RFC 9112, 3.2).

    The path is decoded, the query is not.

    Raises:
        HTTPError: 400 when it is neither a path nor a URL, or when what it
            encodes is not UTF-8 or has control characters.
    """
    path, _, query = target.partition("?")
    if not path.startswith("/"):
        found = re.match("https?://([^/]*)", path, re.IGNORECASE)
        # Not with a user: RFC 9110, 4.2.4.
        if found and is_host(found.group(1)):
            path = path[found.end():] or "/"
    if not path.startswith("/") or "#" in target \
            or BAD_ESCAPE.search(path):
        raise HTTPError(400, "the request target is malformed")
    return check_path(unquote_to_bytes(path)), query


def check_path(path: bytes) -> str:
    """Decode a path that has no escapes any more; see split_target()."""
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        raise HTTPError(400, "the path is not UTF-8")
    if CONTROLS.search(text):
        raise HTTPError(400, "the path has control characters")
    return text


def body_length(head: Head) -> Optional[int]:
    """Return the length of the body in bytes, None when it is chunked.

    Raises:
        HTTPError: 400 or 501 where two readings are possible, which is how
            requests are smuggled (RFC 9112, 6.3 and 11.2).
    """
    coding = head.headers.get("transfer-encoding")
    length = head.headers.get("content-length", "0")
    if coding is not None:
        if "content-length" in head.headers or not head.minor:
            raise HTTPError(400, "both length and chunked coding")
        if coding.lower() != "chunked":
            raise HTTPError(501, "no transfer coding but chunked is known")
        return None
    if not BODY_LENGTH.fullmatch(length):
        raise HTTPError(400, f"Content-Length cannot be {length!r}")
    return int(length)


def decode(data: bytes) -> str:
    """Return what is UTF-8, or else Latin-1, as text."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def printable(text: str) -> str:
    """Make text safe for a status line or a log: no control characters."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "?" for char in text)


# === 6  Multipart ===========================================================

PARTS_LIMIT = 2000         # parts; metadata has a few hundred at the most
PART_HEAD_LIMIT = 8192     # bytes; RFC 7578 allows two headers, 300 bytes
PREAMBLE_LIMIT = 8192      # bytes before the first part; nobody sends any
DISPOSITION = re.compile(
    r';\s*(name|filename)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))',
    re.IGNORECASE)
BOUNDARY = re.compile(
    r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70})\s*(?:;|$))',
    re.IGNORECASE)
# What may stand between a boundary and its line end (RFC 2046, 5.1.1), and
# what may still become that.
PADDING = re.compile(rb"[ \t]{0,64}(\r?\n)")
PADDING_BEGUN = re.compile(rb"[ \t]{0,64}\r?|-")


class Part(NamedTuple):
    """A field of a form; its content follows in pieces."""

    name: str
    filename: Optional[str]  # of a file; None for a text


def boundary_of(content_type: str) -> bytes:
    """Return the boundary of a multipart/form-data body (RFC 7578, 4.1).

    Raises:
        HTTPError: 415 when the body is something else, 400 when it has no
            boundary of 1 to 70 characters.
    """
    if not re.match(r"multipart/form-data\s*(;|$)", content_type, re.I):
        raise HTTPError(415, "uploads are multipart/form-data, not "
                        f"{printable(content_type)!r}")
    found = BOUNDARY.search(content_type)
    if not found:
        raise HTTPError(400, "the form has no boundary of 1 to 70 characters")
    return (found.group(1) or found.group(2)).encode("latin-1")


class MultipartParser:
    """Takes a form apart while it comes in; never holds a file.

    How it works: feed() is given the body in pieces of any size and yields
    a Part for each field, followed by its content as bytes, in order.  Each
    state is a method that takes what it understands off the buffer and
    yields; it returns when it needs more, or after it has set the next
    state.  Some old clients end lines with LF alone; the first line tells.
    """

    def __init__(self, boundary: bytes) -> None:
        self.dashes = b"--" + boundary
        self.newline = b"\r\n"
        self.delimiter = self.newline + self.dashes
        self.buffer = b""
        self.skip = 0  # bytes at the start of the buffer that nobody sent
        self.parts = 0
        self.state: Callable[[], Iterator[Union[Part, bytes]]] = self.preamble

    def feed(self, data: bytes) -> Iterator[Union[Part, bytes]]:
        """Yield what these bytes complete.

        Raises:
            HTTPError: 400 when the body is malformed.
        """
        self.buffer += data
        state = None
        while state != self.state:
            state = self.state
            yield from state()

    def finish(self) -> None:
        """Check that the body came to its end.

        Raises:
            HTTPError: 400 when its closing boundary is missing.
        """
        if self.state != self.epilogue:
            raise HTTPError(400, "the form has no closing boundary; it is "
                            "incomplete")

    def preamble(self) -> Iterator[Union[Part, bytes]]:
        at = self.buffer.find(self.dashes)
        while at >= 0:
            stop = at + len(self.dashes)
            found = PADDING.match(self.buffer, stop)
            if at == 0 or self.buffer[at - 1:at] == b"\n":
                if found:
                    self.newline = found.group(1)
                    self.delimiter = self.newline + self.dashes
                    self.buffer = self.buffer[found.end():]
                    self.state = self.head
                    break
                if self.buffer.startswith(b"--", stop):
                    self.state = self.epilogue
                    break
            at = self.buffer.find(self.dashes, at + 1)
        else:
            if len(self.buffer) > PREAMBLE_LIMIT:
                raise HTTPError(
                    400, "the form does not begin with its boundary")
        return iter(())

    def head(self) -> Iterator[Union[Part, bytes]]:
        head, end, rest = self.buffer.partition(self.newline * 2)
        if len(head) > PART_HEAD_LIMIT:
            raise HTTPError(400, "a part of the form has a head of more than "
                            f"{PART_HEAD_LIMIT} bytes")
        if end:
            self.parts += 1
            if self.parts > PARTS_LIMIT:
                raise HTTPError(400, f"more than {PARTS_LIMIT} form fields")
            # The line end before a boundary belongs to it; before that of
            # an empty part there is none but the one that ends the head.
            self.buffer = self.newline + rest
            self.skip = len(self.newline)
            self.state = self.content
            yield parse_part(head, self.newline)

    def content(self) -> Iterator[Union[Part, bytes]]:
        at = self.buffer.find(self.delimiter)
        while at >= 0:
            stop = at + len(self.delimiter)
            found = PADDING.match(self.buffer, stop)
            if found and found.group(1) != self.newline:
                raise HTTPError(400, "the boundaries of the form have "
                                "different line ends")
            if found:
                yield self.take(at)
                self.buffer = self.buffer[found.end() - at:]
                self.state = self.head
                return
            if self.buffer.startswith(b"--", stop):
                yield self.take(at)
                self.state = self.epilogue
                return
            if PADDING_BEGUN.fullmatch(self.buffer, stop):
                break  # too early to tell
            at = self.buffer.find(self.delimiter, at + 1)
        keep = len(self.delimiter) - 1 if at < 0 else len(self.buffer) - at
        if len(self.buffer) > keep:
            yield self.take(len(self.buffer) - keep)

    def take(self, size: int) -> bytes:
        """Return the start of the buffer, as far as it was sent."""
        data = self.buffer[self.skip:size]
        self.buffer = self.buffer[size:]
        self.skip = max(self.skip - size, 0)
        return data

    def epilogue(self) -> Iterator[Union[Part, bytes]]:
        self.buffer = b""  # to be ignored (RFC 2046, 5.1.1)
        return iter(())


def parse_part(head: bytes, newline: bytes = b"\r\n") -> Part:
    """Parse the headers of a part (RFC 7578, 4.2).

    Raises:
        HTTPError: 400 when they are malformed, or do not name the field.
    """
    values: Dict[str, str] = {}
    for line in head.split(newline):
        found = FIELD_LINE.fullmatch(line)
        if not found:
            raise HTTPError(400, "a part of the form has a malformed head")
        name, data = found.group(1), found.group(2).strip(b" \t")
        if name.lower() == b"content-disposition" \
                and re.match(rb"form-data\s*(;|$)", data, re.IGNORECASE):
            text = decode(data)
            for key, quoted, token in DISPOSITION.findall(text):
                values[key.lower()] = re.sub(
                    r'\\(["\\])', r"\1", quoted) or token
    if "name" not in values:
        raise HTTPError(400, "a part of the form has no name")
    return Part(values["name"], values.get("filename"))


# === 7  Htpasswd ============================================================

PASSWORD_LIMIT = 512  # bytes; so many takes crypt(3)
CRYPT_DIGITS = ("./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                "abcdefghijklmnopqrstuvwxyz")
MD5_CRYPT = re.compile(r"(\$apr1\$|\$1\$)([^$]{1,8})\$([./0-9A-Za-z]{22})")
SHA_CRYPT = re.compile(r"\$([56])\$(?:rounds=(\d{1,9})\$)?([^$]{1,16})\$"
                       r"([./0-9A-Za-z]+)")
# The order in which the bytes of a digest are written.
MD5_ORDER = ((0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5),
             (11,))
ROUNDS = 20000  # of new hashes; 5000 is what crypt(3) takes by default


def parse_htpasswd(text: str) -> Tuple[Dict[str, str], List[str]]:
    """Parse a password file of Apache.

    Returns:
        ({user: hash}, [problem]); what is wrong with a line does not
        concern the others.

    >>> parse_htpasswd("joe:{SHA}x\\n# staff\\njim\\n")[1]
    ['line 3 is not USER:HASH']
    """
    users: Dict[str, str] = {}
    problems = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.lstrip("\ufeff").strip()
        user, _, rest = line.partition(":")
        digest = rest.partition(":")[0]
        if not line or line.startswith("#"):
            continue
        if not user or not digest:
            problems.append(f"line {number} is not USER:HASH")
        elif user in users:
            problems.append(f"line {number} repeats the user {user!r}; the "
                            "first line counts")
        elif not digest.startswith(("$", "{SHA}")):
            problems.append(
                f"line {number}: the password of {user!r} is in plain text "
                "or a DES hash, which is refused; set it anew with the "
                "passwd command")
        elif not re.fullmatch("[!-~]+", digest):
            problems.append(f"line {number}: the hash of {user!r} has "
                            "characters that no hash has")
        else:
            users[user] = digest
    return users, problems


def is_known(digest: str) -> bool:
    """Tell whether verify_password() needs nothing else for this hash."""
    return digest.startswith("{SHA}") or bool(
        MD5_CRYPT.fullmatch(digest) or SHA_CRYPT.fullmatch(digest))


def verify_password(password: bytes, digest: str,
                    elsewhere: Callable[[bytes, str], Optional[bool]]
                    ) -> Optional[bool]:
    """Compare a password with its hash, in constant time.

    Args:
        elsewhere: does the same for the kinds that are not known here.

    Returns:
        None when this machine cannot compute hashes of that kind.
    """
    md5, sha = MD5_CRYPT.fullmatch(digest), SHA_CRYPT.fullmatch(digest)
    computed: Optional[str]
    if digest.startswith("{SHA}"):
        computed = "{SHA}" + base64.b64encode(
            hashlib.sha1(password).digest()).decode()
    elif md5:
        computed = md5_crypt(password, md5.group(2), md5.group(1))
    elif sha:
        computed = sha_crypt(
            password, sha.group(3), sha.group(1),
            int(sha.group(2)) if sha.group(2) else None)
    else:
        return elsewhere(password, digest)
    return hmac.compare_digest(computed.encode(), digest.encode())


def crypt_text(value: int, length: int) -> str:
    """Write a number in the base 64 of crypt(3), low digits first."""
    return "".join(CRYPT_DIGITS[value >> 6 * place & 63]
                   for place in range(length))


def crypt_digest(digest: bytes, order: Iterable[Sequence[int]]) -> str:
    """Write the bytes of a digest three at a time, in a given order."""
    return "".join(
        crypt_text(int.from_bytes(bytes(digest[at] for at in group), "big"),
                   len(group) + 1) for group in order)


def md5_crypt(password: bytes, salt: str, magic: str) -> str:
    """Compute $apr1$ of Apache, or $1$ of FreeBSD: they differ by name."""
    text = salt.encode()
    inner = hashlib.md5(password + text + password).digest()
    start = password + magic.encode() + text
    start += (inner * (len(password) // 16 + 1))[:len(password)]
    length = len(password)
    while length:
        start += b"\0" if length & 1 else password[:1]
        length >>= 1
    digest = hashlib.md5(start).digest()
    for count in range(1000):
        block = password if count & 1 else digest
        if count % 3:
            block += text
        if count % 7:
            block += password
        block += digest if count & 1 else password
        digest = hashlib.md5(block).digest()
    return f"{magic}{salt}${crypt_digest(digest, MD5_ORDER)}"


def sha_crypt(password: bytes, salt: str, kind: str,
              rounds: Optional[int] = None) -> str:
    """Compute $5$ (SHA-256) or $6$ (SHA-512).

    https://www.akkadia.org/drepper/SHA-crypt.txt; the steps are its own.
    """
    make = hashlib.sha256 if kind == "5" else hashlib.sha512
    text = salt.encode()
    size = make().digest_size

    def repeat(digest: bytes, length: int) -> bytes:
        return (digest * (length // size + 1))[:length]

    inner = make(password + text + password).digest()      # steps 4-8
    start = password + text + repeat(inner, len(password))  # 1-3, 9-10
    length = len(password)
    while length:                                          # 11
        start += inner if length & 1 else password
        length >>= 1
    digest = make(start).digest()                          # 12
    p = repeat(make(password * len(password)).digest(), len(password))
    s = repeat(make(text * (16 + digest[0])).digest(), len(text))  # 13-20
    count = 5000 if rounds is None else min(max(rounds, 1000), 999999999)
    for number in range(count):                            # 21
        block = p if number & 1 else digest
        if number % 3:
            block += s
        if number % 7:
            block += p
        block += digest if number & 1 else p
        digest = make(block).digest()
    stated = "" if rounds is None else f"rounds={count}$"
    return f"${kind}${stated}{salt}${crypt_digest(digest, sha_order(size))}"


def sha_order(size: int) -> List[Tuple[int, ...]]:
    """Return the order of bytes in a SHA-crypt of 32 or 64 bytes."""
    third = size // 3
    # Each group is the one before it, rotated and one byte on.
    turn = 1 if size == 64 else 2
    group, order = [0, third, 2 * third], []
    for _ in range(third):
        order.append(tuple(group))
        group = [place + 1 for place in group[turn:] + group[:turn]]
    return order + [(63,) if size == 64 else (31, 30)]


def parse_basic(header: str) -> Optional[Tuple[str, str]]:
    """Return (user, password) of an Authorization header (RFC 7617).

    None when it holds no credentials of that kind.
    """
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        data = base64.b64decode(encoded.strip(), validate=True)
    except ValueError:
        return None
    text = decode(data)  # requests takes Latin-1, and so twine
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


# === 8  Archives ============================================================


def hashed(file: BinaryIO, hashes: Mapping[str, Any]) -> Iterator[bytes]:
    while True:
        block = file.read(BLOCK)
        if not block:
            return
        for found in hashes.values():
            found.update(block)
        yield block


def read_fully(file: BinaryIO, size: int) -> bytes:
    """Read up to the end, or so much: a raw file may give less at once."""
    blocks = []
    while size:
        block = file.read(size)
        if not block:
            break
        blocks.append(block)
        size -= len(block)
    return b"".join(blocks)


# Zip files: wheels, eggs and some sdists.  The module zipfile would hold each
# member of 100,000 in an object of its own, takes what is cut off in the
# comment, and needs more than twice as long.

# Paragraphs of PKWARE's APPNOTE.TXT.
ZIP_END = struct.Struct("<4s4H2LH")            # 4.3.16: the last record
ZIP64_PLACE = struct.Struct("<4sLQL")          # 4.3.15: where the next one is
ZIP64_END = struct.Struct("<4sQ2H2L4Q")        # 4.3.14
ZIP_ENTRY = struct.Struct("<4s4x2H4x3L3H8xL")  # 4.3.12: of the directory
ZIP_LOCAL = struct.Struct("<4s22x2H")          # 4.3.7: before a member
ZIP_COMMENT_LIMIT = 65535  # bytes
# bytes; of 100,000 members with long paths
ZIP_DIRECTORY_LIMIT = 12 * 1024 ** 2
ZIP_STORED, ZIP_DEFLATED = 0, 8
# Flags (4.4.4): of what is encrypted or a patch, and of names in UTF-8.
ZIP_UNREADABLE, ZIP_UTF8 = 0x2061, 0x800


class Member(NamedTuple):
    """A member of a zip, out of its directory."""

    name: bytes
    flags: int
    method: int
    checksum: int  # CRC-32
    packed: int    # bytes
    size: int      # bytes
    offset: int    # in the file

    @property
    def path(self) -> str:
        return self.name.decode("utf-8" if self.flags & ZIP_UTF8 else "cp437")


def zip_members(file: BinaryIO) -> Iterator[Member]:
    """Yield the members of a zip in the order of its directory.

    Raises:
        ValueError: it is no zip, not whole, or contradicts itself.
    """
    data, start, before = zip_directory(file)
    at = 0
    while at < len(data):
        name_at = at + ZIP_ENTRY.size
        if name_at > len(data):
            raise ValueError("its directory is malformed")
        (signature, flags, method, checksum, packed, size, name_size,
         extra_size, comment_size, offset) = ZIP_ENTRY.unpack_from(data, at)
        extra_at = name_at + name_size
        name = data[name_at:extra_at]
        at = extra_at + extra_size + comment_size
        if signature != b"PK\1\2" or at > len(data):
            raise ValueError("its directory is malformed")
        if extra_size:
            size, packed, offset = read_extra(
                data[extra_at:extra_at + extra_size], name,
                (size, packed, offset))
        if flags & ZIP_UTF8:
            name.decode()
        if b"\0" in name:
            raise ValueError(f"the name of its member {name!r} has a zero")
        offset += before
        if offset + packed > start:
            raise ValueError("its directory is malformed")
        yield Member(name, flags, method, checksum, packed, size, offset)


def read_extra(extra: bytes, name: bytes, numbers: Sequence[int]
               ) -> Sequence[int]:
    """Read the extra fields of an entry (4.5).

    Returns:
        the numbers; those that did not fit in are replaced (4.5.3).

    Raises:
        ValueError: a field is malformed, or gives the member another name
            (4.6.9), which some readers use.
    """
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        field = extra[at + 4:at + 4 + size]
        if len(field) < size:
            raise ValueError(f"an extra field of its member {name!r} is "
                             "malformed")
        if kind == 0x7075 and field[5:] not in (
                name, name.decode("cp437").encode()):
            raise ValueError(f"its member {name!r} has two names")
        if kind == 1:
            large = (value for value, in struct.iter_unpack(
                "<Q", field[:size // 8 * 8]))
            numbers = [next(large, number) if number == 0xFFFFFFFF
                       else number for number in numbers]
        at += 4 + size
    return numbers


def zip_directory(file: BinaryIO) -> Tuple[bytes, int, int]:
    """Return the directory of a zip, where it starts in the file, and how
    many bytes are before the zip.

    Raises:
        ValueError: its last record does not stand where the file ends, the
            directory is not right before that, or is too large.
    """
    size = file.seek(0, io.SEEK_END)
    base = max(size - ZIP_END.size - ZIP_COMMENT_LIMIT - ZIP64_PLACE.size
               - ZIP64_END.size, 0)
    file.seek(base)
    tail = read_fully(file, size - base)
    at = len(tail) - ZIP_END.size
    if at < 0 or not tail.startswith(b"PK\5\6", at):
        # Installers take the last one, even if it lies in a comment.
        at = tail.rfind(b"PK\5\6")
    stop = at + ZIP_END.size
    if at < 0 or stop > len(tail) \
            or stop + ZIP_END.unpack_from(tail, at)[-1] != len(tail):
        raise ValueError("it is no zip, or it is cut off")
    length, offset = ZIP_END.unpack_from(tail, at)[5:7]
    place = at - ZIP64_PLACE.size
    if place >= 0 and tail.startswith(b"PK\6\7", place):
        at = place - ZIP64_END.size
        length, offset = zip64_end(tail, place, base, (length, offset))
    if length > ZIP_DIRECTORY_LIMIT:
        raise ValueError("its directory has more than "
                         f"{ZIP_DIRECTORY_LIMIT} bytes")
    start = base + at - length
    if start < offset:
        raise ValueError("its directory is not where its end says")
    if start >= base:
        return tail[start - base:at], start, start - offset
    file.seek(start)
    return read_fully(file, length), start, start - offset


def zip64_end(tail: bytes, place: int, base: int, small: Tuple[int, int]
              ) -> Tuple[int, int]:
    """Return the length and the offset of a directory out of ZIP64 records.

    Args:
        place: of the record that leads to the other one, in the tail.
        base: of the tail, in the file.
        small: the same out of the last record, which may be too small.

    Raises:
        ValueError: the three do not agree.
    """
    at = place - ZIP64_END.size
    # Some readers go where it leads, others to what is right before it.
    leads_to = ZIP64_PLACE.unpack_from(tail, place)[1:]
    if at >= 0 and tail.startswith(b"PK\6\6", at) \
            and leads_to in ((0, base + at, 0), (0, base + at, 1)):
        length, offset = ZIP64_END.unpack_from(tail, at)[-2:]
        if small[0] in (0xFFFFFFFF, length) \
                and small[1] in (0xFFFFFFFF, offset):
            return length, offset
    raise ValueError("its ZIP64 records contradict each other")


def read_member(file: BinaryIO, member: Member, limit: int) -> bytes:
    """Return the content of a member.

    Raises:
        ValueError: it has more bytes than the limit, or see unpacked().
    """
    if member.size > limit:
        raise ValueError(f"{member.path} is larger than {limit} bytes")
    return b"".join(unpacked(file, member))


def unpacked(file: BinaryIO, member: Member) -> Iterator[bytes]:
    """Yield the content of a member, in pieces of bounded size.

    Raises:
        ValueError: it is not what its checksum and its size say, or packed
            in a way that would fill the memory.
    """
    shown = repr(member.path)
    if member.flags & ZIP_UNREADABLE:
        raise ValueError(f"its member {shown} is encrypted, or a patch")
    if member.method not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"its member {shown} is neither stored nor deflated")
    file.seek(member.offset)
    head = read_fully(file, ZIP_LOCAL.size + len(member.name))
    if len(head) < ZIP_LOCAL.size or not head.startswith(b"PK\3\4") \
            or head[ZIP_LOCAL.size:] != member.name \
            or ZIP_LOCAL.unpack_from(head)[1] != len(member.name):
        raise ValueError(f"its member {shown} is not where its directory says")
    file.seek(ZIP_LOCAL.unpack_from(head)[2], io.SEEK_CUR)
    checksum = size = 0
    for piece in (inflated if member.method else stored)(file, member.packed):
        checksum = zlib.crc32(piece, checksum)
        size += len(piece)
        if size > member.size:
            break
        yield piece
    if size != member.size or checksum != member.checksum:
        raise ValueError(f"its member {shown} is corrupt")


def stored(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the next bytes of a file."""
    while size:
        block = file.read(min(size, BLOCK))
        if not block:
            return
        size -= len(block)
        yield block


def inflated(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield what the next bytes of a file decompress to."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    blocks = stored(file, size)
    while not stream.eof:
        block = stream.unconsumed_tail or next(blocks, b"")
        piece = decompress(stream, block)
        if not block and not piece:
            return
        yield piece


def decompressed(blocks: Iterable[bytes], filename: str) -> Iterator[bytes]:
    """Decompress a stream to its end, in pieces of bounded size.

    Raises:
        ValueError: it ends early, something else follows its end, or it is
            made to keep us busy.
    """
    make = decompressor(filename)
    stream = make()
    left = BOMB_SIZE
    for block in blocks:
        left += BOMB_RATIO * len(block)
        while block:
            if stream.eof:  # another stream may follow, and padding
                block = block.lstrip(b"\0")
                if not block:
                    break
                stream = make()
            for piece in pieces(stream, block):
                left -= len(piece)
                if left < 0:
                    raise ValueError("it unpacks to more than "
                                     f"{BOMB_RATIO} times its size")
                yield piece
            block = (stream.unused_data if stream.eof
                     else getattr(stream, "unconsumed_tail", b""))
    if not stream.eof:
        raise ValueError("it is cut off in the middle")


def pieces(stream: Any, block: bytes) -> Iterator[bytes]:
    """Yield what a block decompresses to; zlib hands the rest back, bz2 and
    lzma keep it.
    """
    yield decompress(stream, block)
    while not (stream.eof or getattr(stream, "needs_input", True)):
        yield decompress(stream, b"")


def decompress(stream: Any, block: bytes) -> bytes:
    try:
        return bytes(stream.decompress(block, BLOCK))
    except Exception as error:  # each module has a type of its own
        raise ValueError(f"its compressed data is corrupt: {error}")


def decompressor(filename: str) -> Callable[[], Any]:
    """Return what makes a decompressor of the standard library."""
    if filename.endswith("bz2"):
        import bz2  # late: some builds of Python are without
        return bz2.BZ2Decompressor
    if filename.endswith("xz"):
        import lzma
        # Any other format would take a file of zeros for an empty one.
        return functools.partial(
            lzma.LZMADecompressor, lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
    return lambda: zlib.decompressobj(zlib.MAX_WBITS | 16)  # gzip


# Types of members, in POSIX and in GNU tar: regular files, links and folders,
# and pseudo files with the name (L, K) or facts (x, X, g) of the next one.
TAR_FILES = (b"0", b"\0", b"7")
TAR_LINKS = (b"1", b"2", b"5")
TAR_NAMES = (b"L", b"K", b"x", b"X", b"g")
TAR_NAME_LIMIT = 64 * 1024  # bytes; paths have 4096 at the most
# Of an upload, whose members are looked at one by one; 4 MiB of bz2 can hold
# millions.  The largest sdists on PyPI have some ten thousand.
TAR_MEMBERS_LIMIT = 200000


class TarScanner:
    """Looks for the core metadata in a tar that is pushed in piece by piece.

    How it works: a tar is a sequence of headers of 512 bytes, each followed
    by its file, padded to 512 (POSIX pax, "ustar Interchange Format").
    Files are skipped, but for PKG-INFO and for the pseudo files that hold
    the long name of the next one.  Anything unexpected behind the first
    header ends the search, which is no error: the checksum of the compressed
    stream is what counts, and that no member is cut off.
    """

    def __init__(self, check: Optional[Callable[[str], None]] = None) -> None:
        # Is called with the path of every member, mostly once for each.
        self.check = check and functools.lru_cache(maxsize=1000)(check)
        self.metadata: Optional[bytes] = None
        self.buffer = b""
        self.skip = 0    # bytes until the next header
        self.wanted = 0  # bytes of the file that is collected
        self.kind = b""  # of that file, as in its header
        self.long_name = b""                # of GNU tar, for the next member
        self.pax: Dict[bytes, bytes] = {}   # for the next member
        self.pax_for_all: Dict[bytes, bytes] = {}
        self.members = 0
        self.done = False

    @property
    def is_within(self) -> bool:
        """Whether a member has begun and has not ended."""
        return not self.done and bool(
            self.skip or self.kind or self.buffer)

    def feed(self, data: bytes) -> None:
        if self.done:
            return
        self.buffer += data
        at = 0  # of what is not looked at yet
        while not self.done:
            jump = min(self.skip, len(self.buffer) - at)
            self.skip -= jump
            at += jump
            need = self.wanted if self.kind else 512
            if self.skip or len(self.buffer) - at < need:
                break
            piece = self.buffer[at:at + need]
            at += need
            try:
                if self.kind:
                    self.take_file(piece)
                else:
                    self.read_header(piece)
            except ValueError:
                if self.check:
                    raise
                self.done = True
        self.buffer = b"" if self.done else self.buffer[at:]

    def read_header(self, header: bytes) -> None:
        stated = header[148:156].strip(b" \0")
        counted = header[:148] + header[156:]
        total = sum(counted) + 8 * ord(" ")
        try:
            rest = total - int(stated, 8)
            # Old programs added signed bytes; readers take both.
            self.done = rest != 0 and rest != 256 * sum(
                byte > 127 for byte in counted)
            size = tar_number(header[124:136])
        except ValueError:
            self.done = True
        if self.done:
            return
        self.members += 1
        if self.check and self.members > TAR_MEMBERS_LIMIT:
            raise ValueError(f"it has more than {TAR_MEMBERS_LIMIT} members")
        kind = header[156:157]
        if kind in TAR_NAMES:
            self.collect(kind, size, TAR_NAME_LIMIT)
            return
        facts = {**self.pax_for_all, **self.pax}
        if b"size" in facts:
            size = tar_number(facts[b"size"], 10)
        name = facts.get(b"path") or self.long_name or tar_name(header)
        if self.check:
            # What readers of tar do not agree on is nothing for an sdist.
            if kind not in TAR_FILES + TAR_LINKS or b"sparse" in facts \
                    or (size and kind in TAR_LINKS):
                raise ValueError("it has a member of an unusual kind: "
                                 f"{name!r}")
            # Whatever a reader takes for the name: each must be safe.
            prefix = header[345:500].partition(b"\0")[0]
            self.check_name(name)
            self.check_name(header[:100])
            self.check_name((prefix or b"x") + b"/" + header[:100])
        self.long_name, self.pax = b"", {}
        if kind in TAR_LINKS:
            size = 0  # whatever it says
        if kind in TAR_FILES and self.is_wanted(name):
            self.collect(kind, size, METADATA_LIMIT)
        else:
            self.skip = (size + 511) // 512 * 512

    def check_name(self, path: bytes) -> None:
        if self.check:
            self.check(path.partition(b"\0")[0].decode("utf-8", "replace"))

    def collect(self, kind: bytes, size: int, limit: int) -> None:
        if 0 < size <= limit:
            self.kind, self.wanted = kind, size
        elif self.check:
            raise ValueError("it has an empty or a huge member where names "
                             "or metadata are expected")
        else:
            self.skip = (size + 511) // 512 * 512

    def take_file(self, data: bytes) -> None:
        if self.kind == b"L":
            self.long_name = data.partition(b"\0")[0]
            self.check_name(self.long_name)
        elif self.kind in (b"x", b"X", b"g"):
            facts = parse_pax(data)
            self.check_name(facts.get(b"path", b"x"))
            if self.kind == b"g":
                self.pax_for_all.update(facts)
            else:
                self.pax = facts
        elif self.kind != b"K":
            self.take_wanted(data)
        self.kind = b""
        self.skip = -self.wanted % 512

    def is_wanted(self, name: bytes) -> bool:
        """Tell whether the content of a member is to be collected."""
        return self.metadata is None and bool(
            re.fullmatch(rb"(?:\./)?[^/]+/PKG-INFO", name))

    def take_wanted(self, data: bytes) -> None:
        self.metadata = data


def parse_pax(data: bytes) -> Dict[bytes, bytes]:
    """Parse the records of a pax header: "LENGTH KEY=VALUE\\n".

    Returns:
        the path and the size, and whether there is anything of sparse files.

    Raises:
        ValueError: they are malformed.
    """
    found = {}
    at, end = 0, len(data.rstrip(b"\0"))
    while at < end:
        length = data[at:at + 20].partition(b" ")[0]
        stop = at + tar_number(length, 10)
        key, equals, value = data[
            at + len(length) + 1:stop - 1].partition(b"=")
        if not equals or data[stop - 1:stop] != b"\n":
            raise ValueError("it has a malformed pax header")
        if key.startswith(b"GNU.sparse"):
            key = b"sparse"
        if key in (b"path", b"size", b"sparse"):
            found[key] = value
        at = stop
    return found


def tar_name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and prefix:
        return prefix + b"/" + name
    return name


def tar_number(field: bytes, base: int = 8) -> int:
    """Decode a size: digits, or base 256 with the first bit set.

    Raises:
        ValueError: it is not one.
    """
    if base == 8 and field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0") or b"0"
    if not re.fullmatch(b"[0-9]{1,20}", digits):  # int() takes a sign too
        raise ValueError("a size in the tar is malformed")
    return int(digits, base)


# === 9  Metadata ============================================================


def read_archive(file: BinaryIO, archive: Archive,
                 algorithms: Iterable[str]) -> Facts:
    """Read an archive to its end: is it whole, and what is in it.

    How it works: a sequential copy reaches the end last.  A zip has its
    directory there, a compressed tar its checksum, so that either proves
    that the rest has come.  A tar is decompressed while it is hashed, in
    one pass.

    Args:
        file: at its start.
        algorithms: names of hashlib, of the digests that are wanted.

    Raises:
        OSError: the file cannot be read; it may be whole all the same.
    """
    hashes = {name: make_hash(name) for name in algorithms}
    try:
        metadata = read_metadata(file, archive, hashes)
    except Exception as error:
        if is_read_error(error):
            raise
        return withheld(str(error) or type(error).__name__)
    return make_facts(archive, metadata, {
        name: found.hexdigest() for name, found in hashes.items()})


def make_facts(archive: Archive, metadata: Optional[bytes],
               digests: Mapping[str, str]) -> Facts:
    """Return the facts of an archive that is whole."""
    fields = parse_metadata(metadata or b"")
    is_wheel = archive.filetype == "bdist_wheel"
    return Facts(
        "", digests,
        hashlib.sha256(metadata or b"").hexdigest() if is_wheel else "",
        first(fields, "requires-python"), first(fields, "summary"))


def is_read_error(error: Exception) -> bool:
    """Tell a disk that fails from an archive that is corrupt.

    Of the errors that corruption leads to, bz2 raises some without a number,
    and a corrupt offset leads to a seek that is invalid.
    """
    return isinstance(error, OSError) and \
        error.errno not in (None, errno.EINVAL)


def withheld(problem: str) -> Facts:
    """Return the facts of an archive that is not served."""
    return Facts(problem, {}, "", "", "")


def make_hash(algorithm: str) -> Any:
    """Return a hash by its name in hashlib, or PyPI's "blake2b_256"."""
    if algorithm == "blake2b_256":
        return hashlib.blake2b(digest_size=32)
    return hashlib.new(algorithm)


def read_metadata(file: BinaryIO, archive: Archive,
                  hashes: Mapping[str, Any],
                  check: Optional[Callable[[str], None]] = None
                  ) -> Optional[bytes]:
    """Return the core metadata, having fed the whole file to the hashes.

    Without hashes and without a check, no more is read than is needed.

    Args:
        check: is called with the path of every member.

    Raises:
        Exception: the archive is not whole, or not readable; see
            is_read_error().
    """
    filename = archive.filename
    metadata = None
    if filename.endswith(TAR_EXTENSIONS):
        blocks = hashed(file, hashes)
        metadata = metadata_in_tar(decompressed(blocks, filename), check,
                                   is_all=bool(hashes or check))
    else:
        if filename.endswith(ZIPPED):
            metadata = metadata_in_zip(file, archive, check)
        if hashes:
            file.seek(0)
            for _ in hashed(file, hashes):
                pass
    check_fields(metadata or b"")
    return metadata


def check_fields(metadata: bytes) -> None:
    """Refuse core metadata that would fill the memory when it is parsed."""
    head = metadata_parts(metadata)[0]
    folded = head.count(b"\n ") + head.count(b"\n\t")
    if len(head) > METADATA_HEAD_LIMIT \
            or head.count(b"\n") - folded >= METADATA_FIELDS_LIMIT:
        raise ValueError(
            f"its metadata has more than {METADATA_FIELDS_LIMIT} fields, or "
            f"more than {METADATA_HEAD_LIMIT} bytes of them")


# What the members with core metadata are called, in wheels and in the rest.
METADATA_NAMES = (b"METADATA", b"PKG-INFO")


def metadata_in_zip(file: BinaryIO, archive: Archive,
                    check: Optional[Callable[[str], None]]
                    ) -> Optional[bytes]:
    """Return METADATA or PKG-INFO out of a wheel, egg, zip or installer."""
    found: Dict[str, List[Member]] = {}
    start = 0
    for number, member in enumerate(zip_members(file)):
        start = min(start, member.offset) if number else member.offset
        if check:
            check(member.path)
        if member.name.endswith(METADATA_NAMES):
            found.setdefault(member.path, []).append(member)
    # The end of a zip inside is not the end of the one around it.
    if archive.filetype != "bdist_wininst" and start:
        raise ValueError("it does not begin like a zip")
    path = metadata_member(found, archive)
    if path is None:
        if archive.filetype in ("bdist_wininst", "bdist_dumb"):
            return None
        raise ValueError("it has no core metadata")
    if len(found[path]) > 1:
        raise ValueError(f"it has two members {path}")
    return read_member(file, found[path][0], METADATA_LIMIT)


def metadata_member(names: Iterable[str], archive: Archive) -> Optional[str]:
    """Find the member of a zip that holds the archive's own metadata.

    A wheel may carry .dist-info directories of packages that it vendors,
    and old ones spell their own in another case than their filename.
    """
    if archive.filetype == "bdist_egg":
        return "EGG-INFO/PKG-INFO" if "EGG-INFO/PKG-INFO" in names else None
    if archive.filetype != "bdist_wheel":
        return next((name for name in names
                     if re.fullmatch("[^/]+/PKG-INFO", name)), None)
    found = [name for name in names
             if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
    for name in found:
        if normalize(name.rpartition("-")[0]
                     .rpartition("-")[0]) == archive.project:
            return name
    return found[0] if len(found) == 1 else None


def metadata_in_tar(blocks: Iterable[bytes],
                    check: Optional[Callable[[str], None]],
                    is_all: bool = True) -> Optional[bytes]:
    """Return TOP/PKG-INFO out of a tar.

    Args:
        is_all: consume it to its end, to see that it is whole.

    tarfile is not used: on every Python up to 2025 it can be made to loop
    for ever (CVE-2025-8194).
    """
    scanner = TarScanner(check)
    for block in blocks:
        scanner.feed(block)
        if not is_all and (scanner.done or scanner.metadata is not None):
            break
    if check and not scanner.members:
        raise ValueError("what is compressed in it is no tar")
    if is_all and scanner.is_within:
        raise ValueError("the tar that is compressed in it is cut off")
    return scanner.metadata


def metadata_parts(data: bytes) -> Tuple[bytes, bytes]:
    """Return the head and the body of core metadata."""
    head, _, body = data.replace(b"\r\n", b"\n").partition(b"\n\n")
    return head, body


def parse_metadata(data: bytes) -> Dict[str, List[str]]:
    """Parse core metadata into {lower-case field name: values}.

    The body, which is the description, is under "description" unless a
    header of that name came first.  The format is that of e-mail headers
    (core metadata specification), but never encoded.  Of too many fields,
    see check_fields(), the last are left out.

    >>> parse_metadata(b"Name: a\\nKeywords: b,\\n  c\\n\\nText")
    {'name': ['a'], 'keywords': ['b,\\n  c'], 'description': ['Text']}
    """
    head, body = metadata_parts(data)
    fields: Dict[str, List[str]] = {}
    lines = re.split(r"\n(?![ \t])", decode(head).lstrip("\ufeff"),
                     maxsplit=METADATA_FIELDS_LIMIT)
    for line in lines[:METADATA_FIELDS_LIMIT]:
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip().lower(), []).append(value.strip())
    if body.strip():
        fields.setdefault("description", []).append(decode(body))
    return fields


def first(fields: Mapping[str, Sequence[str]], name: str) -> str:
    """Return the only value of a field on one line; "" for UNKNOWN."""
    value = " ".join(fields.get(name, ("",))[0].split())
    return "" if value == "UNKNOWN" else value


# === 10  Simple pages =======================================================


def escape(text: str) -> str:
    """Make text safe inside HTML, attributes included."""
    return html.escape(text, quote=True)


def make_page(media_type: str, body: bytes) -> Page:
    compressed = b""
    if len(body) >= GZIP_MINIMUM:
        # No time stamp: the same page must have the same bytes, for its ETag.
        stream = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        compressed = stream.compress(body) + stream.flush()
    etag = '"%s"' % hashlib.sha256(body).hexdigest()[:32]
    return Page(media_type, body, compressed, etag)


def json_page(media_type: str, value: Any) -> Page:
    return make_page(media_type, json.dumps(
        value, ensure_ascii=False, separators=(",", ":")).encode("utf-8"))


def html_page(media_type: str, title: str, content: str,
              head: str = "") -> Page:
    """Render a page; pip 22.0 wants its first bytes to be as they are."""
    return make_page(media_type, (
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n"
        "<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width\">\n"
        f"{head}<title>{escape(title)}</title>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{content}</body>\n</html>\n"
    ).encode("utf-8"))


def meta(name: str, content: str) -> str:
    return f'<meta name="{name}" content="{escape(content)}">\n'


def anchor(href: str, text: str, attributes: str = "") -> str:
    """Render a link; `href` is percent-encoded, `attributes` escaped."""
    return f'<a href="{escape(href)}"{attributes}>{escape(text)}</a>'


REPOSITORY_VERSION = meta("pypi:repository-version", API_VERSION)


def project_list_html(media_type: str, names: Iterable[str]) -> Page:
    """Render the project list (PEP 503): relative links to every project."""
    return html_page(media_type, "Simple index", "".join(
        anchor(quote(name) + "/", name) + "<br>\n" for name in names),
        REPOSITORY_VERSION)


def project_list_json(media_type: str, names: Iterable[str]) -> Page:
    return json_page(media_type, {
        "meta": {"api-version": API_VERSION},
        "projects": [{"name": name} for name in names]})


def listed_files(project: Project) -> Tuple[File, ...]:
    """Return what may be offered: nothing in quarantine (PEP 792)."""
    return () if project.status == "quarantined" else project.files


def project_html(media_type: str, project: Project, algorithm: str,
                 base: str, packages: str = "") -> Page:
    """Render project detail (PEP 503, 592, 629, 658, 714, 740, 792).

    Args:
        algorithm: of the digest in the links; "" for none.
        base: URL of the index; PEP 740 wants the provenance absolute.
        packages: URL of the archives when they are elsewhere, see file_url().
    """
    head = REPOSITORY_VERSION
    if project.status:
        head += meta("pypi:project-status", project.status)
    if project.reason:
        head += meta("pypi:project-status-reason", project.reason)
    files = listed_files(project)
    any_signed = any(file.signed for file in files)
    return html_page(media_type, "Links for " + project.name, "".join(
        file_anchor(file, algorithm, base, any_signed, packages) + "<br>\n"
        for file in files), head)


def file_anchor(file: File, algorithm: str, base: str,
                any_signed: bool, packages: str) -> str:
    attributes = []
    if file.facts.metadata_digest:
        digest = "sha256=" + file.facts.metadata_digest
        # The second spelling is for pip 22.3 to 23.1 (PEP 714).
        attributes += [("core-metadata", digest),
                       ("dist-info-metadata", digest)]
    if any_signed:
        attributes.append(("gpg-sig", "true" if file.signed else "false"))
    if file.provenance:
        attributes.append((
            "provenance", file_url(file, base, packages) + PROVENANCE))
    return anchor(
        file_url(file, "../../", packages) + fragment(file, algorithm),
        file.archive.filename, data_attributes(
            file.facts.requires_python, file.yanked, attributes))


def fragment(file: File, algorithm: str) -> str:
    """Return what links have behind the URL of an archive (PEP 503)."""
    return f"#{algorithm}={file.facts.digests[algorithm]}" if algorithm else ""


def data_attributes(requires_python: str, yanked: Optional[str],
                    more: Iterable[Tuple[str, str]] = ()) -> str:
    """Render what a link tells of an archive, in data-* attributes."""
    pairs = [("requires-python", requires_python)] if requires_python else []
    if yanked is not None:
        pairs.append(("yanked", yanked))
    return "".join(f' data-{name}="{escape(value)}"'
                   for name, value in itertools.chain(pairs, more))


def file_url(file: File, base: str, packages: str = "") -> str:
    """Return the percent-encoded URL of an archive.

    Args:
        base: URL of the index.
        packages: URL of the directory that has the archives; "" stands for
            that of the index.
    """
    return (packages or base + "packages/") + quote(file.archive.location)


def project_json(media_type: str, project: Project, base: str,
                 packages: str = "") -> Page:
    """Render project detail (PEP 691, 700, 714, 740, 792)."""
    files = listed_files(project)
    any_signed = any(file.signed for file in files)
    answer = {"meta": {"api-version": API_VERSION}, "name": project.name,
              "versions": versions_of(files),
              "files": [file_json(file, base, any_signed, packages)
                        for file in files]}
    if project.status:
        status = {"status": project.status}
        if project.reason:
            status["reason"] = project.reason
        answer["project-status"] = status
    return json_page(media_type, answer)


def file_json(file: File, base: str, any_signed: bool,
              packages: str) -> Dict[str, Any]:
    """Return one file; keys are left out, never null: uv refuses null."""
    # SHA-256 alone: uv refuses a page with an algorithm it does not know.
    answer: Dict[str, Any] = {
        "filename": file.archive.filename,
        "url": file_url(file, "../../", packages),
        "hashes": {"sha256": file.facts.digests["sha256"]},
        "size": file.identity.size,
        "upload-time": timestamp(file)}
    if file.facts.requires_python:
        answer["requires-python"] = file.facts.requires_python
    if file.facts.metadata_digest:
        # The other spelling crashes pip 22.3 to 23.1 in JSON (PEP 714).
        answer["core-metadata"] = {"sha256": file.facts.metadata_digest}
    if any_signed:
        answer["gpg-sig"] = file.signed
    if file.yanked is not None:
        answer["yanked"] = file.yanked or True
    if file.provenance:
        answer["provenance"] = file_url(file, base, packages) + PROVENANCE
    return answer


def timestamp(file: File) -> str:
    """Return the upload time (PEP 700), always with six digits: pip on
    Python 3.10 understands no other number of them.
    """
    moment = moment_of(file.identity.mtime_ns)
    return moment.isoformat(timespec="microseconds") + "Z"


def versions_of(files: Iterable[File]) -> List[str]:
    """Return the versions of sorted files, each release once."""
    found: Dict[Tuple[Any, ...], str] = {}
    for file in files:
        if file.archive.version:
            found.setdefault(version_key(file.archive.version),
                             normalize_version(file.archive.version))
    return list(found.values())


# Keys of "info" in legacy JSON, and the metadata fields that they show:
# https://docs.pypi.org/api/json/
INFO_TEXTS = tuple((name.replace("-", "_"), name) for name in (
    "author", "author-email", "description", "description-content-type",
    "download-url", "home-page", "keywords", "license", "license-expression",
    "maintainer", "maintainer-email", "platform", "requires-python",
    "summary"))
INFO_LISTS = (("classifiers", "classifier"), ("dynamic", "dynamic"),
              ("license_files", "license-file"),
              ("provides_extra", "provides-extra"),
              ("requires_dist", "requires-dist"))
# Those that PyPI shows as null, not as an empty text or list.
INFO_NULLS = ("description_content_type", "download_url", "dynamic",
              "home_page", "license", "license_expression", "license_files",
              "maintainer", "maintainer_email", "platform", "provides_extra",
              "requires_dist", "requires_python")


def files_of(files: Iterable[File], version: str) -> List[File]:
    """Return the files of a release, however its version is spelled."""
    key = version_key(version)
    return [file for file in files
            if version_key(file.archive.version) == key]


def latest_version(files: Sequence[File]) -> str:
    """Return the version that people mean: final, not yanked, highest."""
    def preference(found: Tuple[bool, str]) -> Tuple[Any, ...]:
        is_offered, version = found
        return is_offered, not is_prerelease(version), version_key(version)
    releases = dict.fromkeys(
        (file.yanked is None, file.archive.version) for file in files)
    return max(releases, key=preference)[1]


def legacy_json(project: Project, version: str, whole: bool,
                metadata: Mapping[str, List[str]], base: str,
                packages: str = "") -> Page:
    """Render legacy JSON in PyPI's shape.

    Args:
        version: of the release that is shown.
        whole: the project was asked for, not one release of it.
        metadata: of a file of that release, see parse_metadata().
    """
    files = listed_files(project)
    shown = files_of(files, version)
    answer = {
        "info": legacy_info(project, version, shown, metadata, base),
        "last_serial": 0,
        "ownership": {"organization": None, "roles": []},
        "urls": [legacy_file(file, base, packages) for file in shown],
        "vulnerabilities": []}
    if whole:
        releases: Dict[str, List[Any]] = {
            found: [] for found in versions_of(files)}
        keys = {version_key(found): found for found in releases}
        for file in files:
            if file.archive.version:
                releases[keys[version_key(file.archive.version)]].append(
                    legacy_file(file, base, packages))
        answer["releases"] = releases
    return json_page(JSON, answer)


def legacy_info(project: Project, version: str, shown: Sequence[File],
                metadata: Mapping[str, List[str]],
                base: str) -> Dict[str, Any]:
    version = normalize_version(version)
    url = f"{base}simple/{quote(project.name)}/"
    reasons = [file.yanked for file in shown]
    links = [text.partition(",") for text in metadata.get("project-url", ())]
    info: Dict[str, Any] = {
        "bugtrack_url": None, "docs_url": None,
        "downloads": {"last_day": -1, "last_month": -1, "last_week": -1},
        "name": first(metadata, "name") or project.name,
        "package_url": url, "project_url": url, "release_url": url,
        "project_urls": {label.strip(): link.strip()
                         for label, _, link in links} or None,
        "version": version,
        "yanked": bool(reasons) and None not in reasons,
        "yanked_reason": next(filter(None, reasons), None)}
    for key, name in INFO_TEXTS:
        info[key] = metadata.get(name, [""])[0]
    for key, name in INFO_LISTS:
        info[key] = list(metadata.get(name, ()))
    for key in INFO_NULLS:
        info[key] = info[key] or None
    return dict(sorted(info.items()))


def legacy_file(file: File, base: str, packages: str) -> Dict[str, Any]:
    digests = file.facts.digests
    parts = file.archive.filename[:-len(".whl")].split("-")
    is_wheel = file.archive.filetype == "bdist_wheel"
    return {
        "comment_text": None,
        "core-metadata": {"sha256": file.facts.metadata_digest}
        if file.facts.metadata_digest else False,
        "digests": {"blake2b_256": digests["blake2b_256"],
                    "md5": digests["md5"], "sha256": digests["sha256"]},
        "downloads": -1,
        "filename": file.archive.filename,
        "has_sig": file.signed,
        "md5_digest": digests["md5"],
        "packagetype": file.archive.filetype,
        "python_version": parts[-3] if is_wheel else "source",
        "requires_python": file.facts.requires_python or None,
        "size": file.identity.size,
        "upload_time": timestamp(file)[:19],
        "upload_time_iso_8601": timestamp(file),
        "url": file_url(file, base, packages),
        "yanked": file.yanked is not None,
        "yanked_reason": file.yanked or None}


def fill_template(template: str, values: Mapping[str, str]) -> str:
    """Fill in {{NAME}} escaped and {{!NAME}} as it is; leave unknown ones.

    Those are the two forms of the predecessor's welcome pages.
    """
    def fill(found: Match[str]) -> str:
        value = values.get(found.group(2), found.group())
        return value if found.group(1) else escape(value)
    return re.sub(r"{{\s*(!?)\s*(\w+)\s*}}", fill, template)


# === 11  Look ===============================================================

# Everything that pages for people load: they ask no other host for anything.
ICON = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
<path fill="#0b5cad" d="M16 1 30 8v16l-14 7L2 24V8z"/>
<path fill="#6cb6ff" d="M16 1 30 8l-14 7L2 8z"/>
<path fill="#ffd343" d="m9 4.5 14 7v6l-3-1.500v-3L6 6z"/>
</svg>
"""

STYLE = """\
:root {
  color-scheme: light dark;
  --back: #ffffff; --raised: #f5f7f9; --line: #d3dae1;
  --text: #1b2127; --soft: #55606b; --link: #0b5cad; --on-link: #ffffff;
  --good: #1a7f37; --half: #8a5a00; --bad: #b3261e; --mark: #fff4d6;
  --shade: #0004;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #10151a; --raised: #1a2129; --line: #36414c;
    --text: #e4e9ee; --soft: #a2adb8; --link: #7cbcff; --on-link: #10151a;
    --good: #46c35f; --half: #e0ab45; --bad: #ff9088; --mark: #3a3118;
    --shade: #fff4;
  }
}
*, ::before { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body {
  margin: 0; background: var(--back); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
    "Liberation Sans", sans-serif;
  overflow-wrap: break-word;
}
a { color: var(--link); text-underline-offset: .15em; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.25rem 0 .75rem; }
h3 { font-size: 1rem; margin: 0 0 .25rem; }
code, pre, .digest {
  font-family: ui-monospace, "Cascadia Mono", Menlo, Consolas,
    "Liberation Mono", monospace;
  font-size: .875rem;
}
.bar, main, footer {
  max-width: 72rem; margin: 0 auto; padding: 0 1.25rem;
}
header { border-bottom: 1px solid var(--line); background: var(--raised); }
.bar {
  display: flex; flex-wrap: wrap; align-items: center; gap: .5rem 1.5rem;
  padding-top: .75rem; padding-bottom: .75rem;
}
.bar nav { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; }
.bar nav a, .brand { text-decoration: none; }
.bar nav a:hover, .brand:hover { text-decoration: underline; }
.bar nav a[aria-current] { color: var(--text); font-weight: 600; }
.brand {
  display: flex; align-items: center; gap: .6rem;
  color: var(--text); font-weight: 700;
}
.brand img { display: block; }
.bar form { margin-left: auto; flex: 0 1 20rem; }
main { padding-top: 2rem; padding-bottom: 1rem; min-height: 60vh; }
footer {
  margin-top: 2rem; padding-top: 1rem; padding-bottom: 2rem;
  border-top: 1px solid var(--line); color: var(--soft); font-size: .875rem;
  display: flex; flex-wrap: wrap; gap: .25rem 1.5rem;
}
.skip { position: absolute; left: -100vw; }
.skip:focus { left: .5rem; top: .5rem; background: var(--back);
  padding: .5rem 1rem; z-index: 1; }
.hidden {
  position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); white-space: nowrap;
}
.lead { font-size: 1.125rem; margin: .25rem 0 1.25rem; max-width: 46rem; }
.soft { color: var(--soft); }
form.search { display: flex; gap: .5rem; min-width: 0; }
form.search input { flex: 1; min-width: 0; }
main form.search { max-width: 46rem; font-size: 1.125rem;
  margin-top: 1rem; }
input, button {
  font: inherit; color: inherit; border-radius: .4rem;
  border: 1px solid var(--soft); padding: .4rem .75rem;
  background: var(--back);
}
button { cursor: pointer; font-weight: 600; }
form > button {
  background: var(--link); border-color: var(--link); color: var(--on-link);
}
button:hover { filter: brightness(1.1); }
.numbers {
  display: flex; flex-wrap: wrap; gap: .75rem 3rem; margin: 1.5rem 0 0;
}
.numbers div { display: flex; flex-direction: column-reverse; }
.numbers dt { color: var(--soft); }
.numbers dd {
  margin: 0; font-size: 1.75rem; font-weight: 700; line-height: 1.2;
  font-variant-numeric: tabular-nums;
}
.cards { columns: 2 27rem; column-gap: 1rem; }
.card {
  break-inside: avoid; margin-bottom: 1rem;
  border: 1px solid var(--line); border-radius: .6rem; padding: 1rem;
  background: var(--raised); min-width: 0;
}
.card p { margin: 0 0 .5rem; color: var(--soft); font-size: .875rem; }
.copy { position: relative; display: block; }
pre {
  margin: 0; padding: .65rem .8rem; overflow-x: auto; border-radius: .4rem;
  border: 1px solid var(--line); background: var(--back);
}
.copy pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.copy span { display: inline-block; max-width: 100%; }
.copy + .copy { margin-top: .5rem; }
.copy button {
  padding: .1rem .5rem; font-size: .8125rem; background: var(--raised);
  border-color: var(--line);
}
.copy pre + button { position: absolute; top: .45rem; right: .45rem; }
.copy pre { padding-right: 4.5rem; }
.rows { list-style: none; margin: 0; padding: 0; }
.rows li { padding: .6rem 0; border-top: 1px solid var(--line); }
.rows li:last-child { border-bottom: 1px solid var(--line); }
.rows p { margin: 0; }
.rows .name { font-weight: 600; }
.meta { color: var(--soft); font-size: .875rem;
  display: flex; flex-wrap: wrap; align-items: center; gap: 0 1rem; }
.digest { display: inline-flex; align-items: center; gap: .5rem; }
.digest code { display: inline-block; max-width: 12ch; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; vertical-align: bottom; }
.badge {
  border: 1px solid currentColor; border-radius: 1rem; padding: 0 .6rem;
  font-size: .8125rem; font-weight: 600; white-space: nowrap;
}
.bad { color: var(--bad); }
.half { color: var(--half); }
.good { color: var(--good); }
.note {
  border-left: .3rem solid var(--half); background: var(--mark);
  padding: .6rem 1rem; margin: 1rem 0; border-radius: .25rem;
}
.note p { margin: 0; }
.pages { display: flex; flex-wrap: wrap; gap: 1.5rem; margin: 1rem 0; }
/* A shadow where there is more to the left or right. */
.scroll {
  overflow-x: auto; background-repeat: no-repeat;
  background-image:
    linear-gradient(to right, var(--back) 40%, transparent),
    linear-gradient(to left, var(--back) 40%, transparent),
    linear-gradient(to right, var(--shade), transparent),
    linear-gradient(to left, var(--shade), transparent);
  background-position: left, right, left, right;
  background-size: 3rem 200%, 3rem 200%, 1rem 100%, 1rem 100%;
  background-attachment: local, local, scroll, scroll;
}
.grid { border-collapse: separate; border-spacing: 2px;
  font-size: .8125rem; line-height: 1.2; }
.grid th { font-weight: 600; text-align: left; padding: .1rem .75rem .1rem 0;
  white-space: nowrap; }
.grid thead th { color: var(--soft); padding: .1rem; vertical-align: bottom;
  white-space: normal; overflow-wrap: normal; }
.grid thead tr + tr th {
  writing-mode: vertical-rl; padding: .1rem 0; text-align: right;
  line-height: 1.1rem; font-weight: 400; white-space: nowrap;
}
.grid tbody th { position: sticky; left: 0; background: var(--back);
  z-index: 1; }
.grid [aria-current] { color: var(--text); text-decoration: none; }
.grid .yanked a { text-decoration: line-through; }
.grid td { padding: 0; color: transparent; font-size: 1px; line-height: 0; }
.grid td::before, .key i {
  content: ""; display: block; width: 1.1rem; height: 1.1rem;
  border-radius: 3px;
}
.grid thead td::before { display: none; }
.grid .first, .grid thead tr th.first { padding-left: .6rem; }
.grid .w::before, .key .w { background: var(--good); }
.grid .s::before, .key .s { border: 3px solid var(--half); }
.grid .e::before, .key .e { border: 3px double var(--soft); }
.grid .n::before, .key .n { border: 1px solid var(--line); }
@media (forced-colors: active) {
  .grid td::before, .key i { forced-color-adjust: none; }
  .grid .w::before, .key .w { background: CanvasText; }
  .grid td:not(.n)::before, .key i:not(.n) { border-color: CanvasText; }
  .grid .n::before, .key .n { border-color: GrayText; }
}
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem;
  color: var(--soft); font-size: .875rem; margin: .5rem 0; }
.key span { display: inline-flex; align-items: center; gap: .4rem; }
.paper { display: none; }
.jump { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; }
summary { cursor: pointer; padding: .25rem 0; }
.columns { display: grid; gap: 0 2.5rem; }
.columns > * { min-width: 0; }
@media (min-width: 60rem) {
  .columns { grid-template-columns: minmax(0, 1fr) 18rem; }
}
.description { white-space: pre-wrap; overflow-wrap: anywhere;
  padding: 1rem; background: var(--raised); line-height: 1.5; }
.plain { list-style: none; padding: 0; margin: 0; }
.plain li { padding: .15rem 0; }
.facts { margin: 0; }
.facts dt { color: var(--soft); font-size: .875rem; }
.facts dd { margin: 0 0 .5rem; }
.drop {
  border: 2px dashed var(--line); border-radius: .6rem; padding: 1.25rem;
  display: flex; flex-wrap: wrap; align-items: center; gap: .75rem 1rem;
}
.drop.over { border-color: var(--link); background: var(--raised); }
.drop input { max-width: 100%; }
.drop label { font-weight: 600; flex: 1 0 100%; }
progress { width: 10rem; max-width: 100%; accent-color: var(--link); }
@media (max-width: 40rem) {
  h1 { font-size: 1.6rem; }
  .bar form { flex: 1 0 100%; }
  .numbers { gap: .75rem 1.75rem; }
}
@media print {
  :root {
    --back: #fff; --raised: #fff; --text: #000; --soft: #333;
    --link: #000; --line: #999;
  }
  header, footer, form.search, .skip, .pages, .jump, .copy button, #upload,
  #upload-title { display: none; }
  .paper { display: block; }
  main { padding: 0; max-width: none; }
  .rows li, pre { break-inside: avoid; }
  .cards { columns: 2; }
  .card { padding: .5rem .75rem; }
  .copy pre { padding: .4rem .6rem; }
  .scroll { overflow: visible; background: none; }
  .grid { border-spacing: 1px; }
  .grid td::before { width: .6rem; height: .6rem; }
  .grid thead tr + tr th { line-height: .6rem; font-size: .6rem; }
  .grid td::before, .key i {
    print-color-adjust: exact; -webkit-print-color-adjust: exact;
  }
}
"""

SCRIPT = """\
"use strict";
// Pages work without this script; it makes them quicker to use.

const all = (query) => Array.from(document.querySelectorAll(query));
const one = (query) => document.querySelector(query);

function make(name, text = "", values = {}) {
  return Object.assign(document.createElement(name),
                       {textContent: text}, values);
}

// Copying.  Browsers have the clipboard on https and on this machine only.
async function copy(text) {
  if (navigator.clipboard) {
    return navigator.clipboard.writeText(text);
  }
  const area = make("textarea", "", {value: text, className: "hidden"});
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done ? undefined : Promise.reject(new Error("copy"));
}

for (const place of all(".copy")) {
  const button = make("button", "Copy", {type: "button"});
  const what = place.dataset.label;
  if (what) {
    button.setAttribute("aria-label", "Copy " + what);
  }
  button.addEventListener("click", () => {
    copy(place.querySelector("code").textContent)
      .then(() => "Copied", () => "Press Ctrl+C")
      .then((answer) => {
        button.textContent = answer;
        button.focus();
        setTimeout(() => { button.textContent = "Copy"; }, 2000);
      });
  });
  place.append(button);
}

// Searching while typing.
const input = one("#query");
if (input) {
  const results = one("#results");
  let timer = 0;
  let last = input.value;
  input.setSelectionRange(last.length, last.length);
  const search = async () => {
    const text = input.value;
    if (text.trim() === last.trim()) {
      return;
    }
    last = text;
    const url = "?q=" + encodeURIComponent(text);
    // Not relative: the address may hold a password, which fetch() refuses.
    const answer = await fetch(location.origin + location.pathname + url);
    if (!answer.ok || text !== input.value) {
      return;
    }
    const page = new DOMParser().parseFromString(
      await answer.text(), "text/html");
    results.replaceChildren(...page.querySelector("#results").childNodes);
    one("#count").textContent = page.querySelector("#count").textContent;
    history.replaceState(null, "", url);
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(search, 150);
  });
}

// Uploading: one file after the other, each with its bar and its answer.
const form = one("#upload");
if (form) {
  const input = form.querySelector("[type=file]");
  const list = one("#uploads");
  let waiting = Promise.resolve();

  const send = (fields, progress) => new Promise((resolve) => {
    const request = new XMLHttpRequest();
    const data = new FormData();
    Object.entries(fields).forEach(([name, value]) => {
      data.append(name, value);
    });
    request.open("POST", form.action);
    request.setRequestHeader("Accept", "text/plain");
    request.upload.addEventListener("progress", (event) => {
      progress.max = event.total || 1;
      progress.value = event.loaded;
    });
    request.addEventListener("loadend", () => resolve({
      ok: request.status === 200,
      text: request.responseText.trim() || request.statusText
        || "the connection was lost; try again",
    }));
    request.send(data);
  });

  const say = (said, isGood, text) => {
    said.textContent = (isGood ? "\\u2713 " : "\\u2717 ") + text;
    said.className = isGood ? "good" : "bad";
  };

  const show = (name) => {
    const row = make("li");
    const said = make("p", "waits", {className: "meta"});
    row.append(make("p", name, {className: "name"}), said);
    list.append(row);
    return said;
  };

  const upload = async (file) => {
    const said = show(file.name);
    const progress = make("progress", "", {value: 0});
    progress.setAttribute("aria-label", "Upload of " + file.name);
    said.before(progress);
    await waiting;
    // A small request first: the browser may have to ask who it is.
    let answer = await send({":action": "verify"}, {});
    if (answer.ok) {
      said.textContent = "is sent";
      answer = await send(
        {":action": "file_upload", content: file}, progress);
    }
    progress.remove();
    say(said, answer.ok, answer.text);
  };

  const take = (files) => {
    for (const file of files) {
      waiting = upload(file);
    }
  };

  input.multiple = true;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    take(Array.from(input.files));
    form.reset();
  });
  // What is dragged may also be a link or a word, or have one beside a file
  // as an image of a page does: those are not ours.
  const onFiles = (kind, react) => {
    document.addEventListener(kind, (event) => {
      if (event.dataTransfer.types.includes("Files")) {
        event.preventDefault();
        react(event.dataTransfer);
      }
    });
  };
  onFiles("dragover", () => { form.classList.add("over"); });
  onFiles("dragleave", () => { form.classList.remove("over"); });
  onFiles("drop", (data) => {
    form.classList.remove("over");
    const isFile = (item) => item.kind === "file";
    for (const item of Array.from(data.items).filter(isFile)) {
      const entry = item.webkitGetAsEntry();
      if (entry && entry.isDirectory) {
        say(show(entry.name), false,
            "this is a folder; drop the files that are in it");
      } else {
        take([item.getAsFile()]);
      }
    }
    form.scrollIntoView();
  });
}
"""


# === 12  For people =========================================================

ROWS = 50                      # entries of a list on one page
DESCRIPTION_LIMIT = 64 * 1024  # characters; the median on PyPI is 3,000
WORDS_LIMIT = 300               # characters of a summary, an author, ...
LIST_LIMIT = 300               # files, dependencies, classifiers
FILES_OPEN = 10                # of a release; more of them are folded
GRID_PYTHONS = 24              # columns of the grid, at the most ...
GRID_PLATFORMS = 12            # ... for each of so many platforms
GRID_PAPER = 50                # columns that fit on a page of paper
# Stands for the address of a site that does not know its own.
NO_ADDRESS = "https://HOST"
# As far as Markdown goes on without it: no brackets, no stop at the end.
LINK = re.compile(
    r"https?://[^\s<>\"'`\\{}|^()\[\]]*[^\s<>\"'`\\{}|^()\[\].,;:!?*_]")


class Html(str):
    """Text that is HTML already; tag() escapes any other."""


def join(*content: str) -> Html:
    return Html("".join(text if isinstance(text, Html) else escape(text)
                        for text in content))


def tag(element: str, *content: str, **attributes: Union[str, bool]) -> Html:
    """Render an element; pages for people are made of nothing else.

    >>> tag("a", "1 < 2", tag("b", "!"), href="?x&y", class_="z")
    '<a href="?x&amp;y" class="z">1 &lt; 2<b>!</b></a>'
    """
    opening = [element]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            opening.append(key)
        elif value is not False:
            opening.append(f'{key}="{escape(value)}"')
    start = Html("<%s>" % " ".join(opening))
    if element in ("br", "img", "input", "link", "meta"):
        return start
    return Html(f"{start}{join(*content)}</{element}>")


class Place(NamedTuple):
    """Where a page is, and what its reader may do there."""

    up: str      # relative URL of the index, e.g. "../../"
    base: str    # its whole URL
    locked: Tuple[str, ...] = ()  # actions that need an account
    uploads: bool = False         # they are possible, perhaps by an account
    is_static: bool = False       # a plain file: nothing answers a query
    packages: str = ""            # URL of the archives; "" for the index's


class Brief(NamedTuple):
    """What lists say about one project."""

    archives: Tuple[Archive, ...]  # that it was made of
    name: str
    version: str    # see latest_version(); "" when nothing is listed
    summary: str
    files: int
    size: int       # bytes of them
    newest: int     # mtime_ns of the newest file
    filename: str   # of that one
    mark: str       # "yanked", or a status that people should see, or ""
    withheld: Tuple[Tuple[str, str], ...]  # see Project


class Totals(NamedTuple):
    """What the home page says about all projects."""

    projects: int
    read: int    # of them, so far
    files: int
    size: int    # bytes
    newest: Tuple[Brief, ...]


class Ignored(NamedTuple):
    """A file that is not served, or a companion without effect."""

    file: str       # path below its package directory
    directory: str  # a label of that one, see directory_labels()
    kind: str       # a key of REMEDIES
    reason: str


REMEDIES = {
    "unfinished": "It is served as soon as the copy has ended.",
    "broken": "Copy it again; if that does not help, build it anew.",
    "shadowed": "Remove one of the two.",
    "orphaned": "Remove it, or bring the archive.",
    "quarantined": "Once the project is known to be harmless, remove its "
                   "status file.",
    "misspelled": "Correct its first word; nothing else of it counts.",
    "unusable": "Let the server read it, or put a file with a plain name in "
                "its place.",
    "unrecognized": "Wheels, sdists and eggs are served: build one, and "
                    "keep the name that it was built with."}


def brief_of(project: Project, archives: Tuple[Archive, ...]) -> Brief:
    files = listed_files(project)
    mark = "" if project.status == "active" else project.status
    if not files:
        return Brief(archives, project.name, "", "", 0, 0, 0, "", mark,
                     project.withheld)
    newest = max(files, key=lambda file: file.identity.mtime_ns)
    version = latest_version(files)
    if not mark and all(file.yanked is not None for file in files):
        mark = "yanked"
    return Brief(
        archives, project.name, normalize_version(version),
        summary_of(files, version)[:WORDS_LIMIT],
        len(files), sum(file.identity.size for file in files),
        newest.identity.mtime_ns, newest.archive.filename, mark,
        project.withheld)


def summary_of(files: Sequence[File], version: str) -> str:
    """Return the summary of a release; that of a wheel, if there is one."""
    return max((file.facts for file in files_of(files, version)),
               key=lambda facts: (bool(facts.summary),
                                  bool(facts.metadata_digest))).summary


def size_text(size: int) -> str:
    """Return a number of bytes for people.

    >>> size_text(1023), size_text(1536), size_text(3 * 1024 ** 4)
    ('1023 bytes', '1.5 KiB', '3,072.0 GiB')
    """
    if size < 1024:
        return f"{size} bytes"
    value, unit = size / 1024, "KiB"
    for unit in ("KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:,.1f} {unit}"


def count_text(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def sentence(text: str) -> str:
    """Return what a client is told in the form that people like.

    >>> sentence("it is cut off"), sentence("foo-1.zip is here")
    ('It is cut off.', 'foo-1.zip is here.')
    """
    if re.match("[a-z]+ ", text):  # not a filename
        text = text[0].upper() + text[1:]
    return text + "." * (not text.endswith("."))


def time_tag(mtime_ns: int) -> Html:
    moment = moment_of(mtime_ns).isoformat(" ", "minutes")
    return tag("time", moment + " UTC", datetime=moment + "Z")


def link_text(text: str) -> Html:
    """Return text in which web addresses are links."""
    parts, at = [], 0
    for found in LINK.finditer(text):
        parts += [text[at:found.start()], outside(found.group())]
        at = found.end()
    return join(*parts, text[at:])


def outside(url: str, text: str = "") -> Html:
    """Render a link that leads elsewhere; plain text if it is no URL."""
    if not re.match("https?://", url):
        return join(f"{text}: {url}" if text else url)
    # RFC 3986, 3.5: a fragment has no "#", as some are written.
    address, mark, fragment = url.partition("#")
    return tag("a", text or url, href=address + mark + fragment.replace(
        "#", "%23"), rel="nofollow noreferrer")


def copyable(text: str, label: str) -> Html:
    """Render a block with a button that copies it, where script runs.

    Words with hyphens, at which browsers would break lines, are kept whole.
    """
    words = re.split(r"([^\s-]*-\S*)", text)
    return tag("div", tag("pre", tag("code", *(
        tag("span", word) if at % 2 else word
        for at, word in enumerate(words)))), class_="copy", data_label=label)


def searching(place: Place, query: str = "", **attributes: Union[str, bool]
              ) -> Html:
    """Render the search box."""
    return tag("form", tag(
        "input", type="search", name="q", value=query, maxlength="200",
        placeholder="Search projects",
        aria_label="Search projects", autocomplete="off", **attributes),
        tag("button", "Search"), role="search", class_="search",
        action=place.up + "search/")


def people_page(place: Place, title: str, *content: str, here: str = ""
                ) -> Page:
    """Render a page with what all of them have in common.

    Args:
        here: address of the page below the index, for the menu and for
            pages that have a search box of their own.
    """
    menu = [tag("a", text, href=place.up + path, **(
        {"aria_current": "page"} if path == here else {}))
        for path, text in (("search/", "Projects"),
                           ("withheld/", "Not served"))]
    brand = tag("a", tag("img", src=place.up + "-/icon.svg", alt="",
                         width="24", height="24"),
                "Package index", href=place.up or "./", class_="brand")
    search = "" if here in ("home", "search/", "packages/") \
        or place.is_static else searching(place)
    return make_page(HTML, join(
        Html("<!DOCTYPE html>\n"), tag(
            "html", tag(
                "head", tag("meta", charset="utf-8"),
                tag("meta", name="viewport",
                    content="width=device-width, initial-scale=1"),
                tag("title", title),
                tag("link", rel="icon", type="image/svg+xml",
                    href=place.up + "-/icon.svg"),
                tag("link", rel="stylesheet",
                    href=place.up + "-/style.css"),
                tag("script", src=place.up + "-/script.js", defer=True)),
            tag("body",
                tag("a", "Skip to content", href="#main", class_="skip"),
                tag("header", tag("div", brand, tag(
                    "nav", *menu, aria_label="Main"), search,
                    class_="bar")), "\n",
                tag("main", *content, id="main"), "\n",
                tag("footer", tag("span", f"pypi_server {__version__}"),
                    tag("span", "Index URL: ", tag(
                        "a", tag("code", place.base + "simple/"),
                        href=place.up + "simple/")),
                    tag("span", tag("a", "All files on one page",
                                    href=place.up + "packages/")))),
            lang="en"), "\n").encode("utf-8", "replace"))


def page_links(page: int, pages: int, query: str = "") -> Html:
    """Render the way to the other pages of a list."""
    if pages < 2:
        return Html("")
    links = [tag("a", text, href=f"?{query}page={number}", rel=rel)
             for number, text, rel in ((page - 1, "← Previous", "prev"),
                                       (page + 1, "Next →", "next"))
             if 1 <= number <= pages]
    return tag("nav", *links[:page > 1],
               tag("span", f"Page {page:,} of {pages:,}", class_="soft"),
               *links[page > 1:], class_="pages", aria_label="Pages")


def cut_page(place: Place, rows: Sequence[Value], page: int
             ) -> Tuple[Sequence[Value], int, int]:
    """Return (rows of a page, its number, number of pages)."""
    if place.is_static:
        return rows, 1, 1
    pages = max(1, -(-len(rows) // ROWS))
    page = min(max(page, 1), pages)
    return rows[(page - 1) * ROWS:page * ROWS], page, pages


def home_page(place: Place, totals: Optional[Totals]) -> Page:
    """Render the home page.

    Args:
        totals: None where the reader has to log in for them.
    """
    content = [
        tag("h1", "Python packages"),
        tag("p", "A package index for pip, uv, poetry, PDM and twine.",
            class_="lead soft"),
        tag("p", tag("a", "All projects", href="search/"))
        if place.is_static else searching(place)]
    if totals:
        content.append(tag("dl", *(
            tag("div", tag("dt", noun), tag("dd", shown))
            for noun, shown in (("projects", f"{totals.projects:,}"),
                                ("files", f"{totals.files:,}"),
                                ("in all", size_text(totals.size)))),
            class_="numbers"))
        content.append(reading_note(totals.read, totals.projects))
    else:
        content.append(tag("p", tag("a", "Log in", href="?login"), " to see "
                           "the projects: your browser asks for your "
                           "account."))
    content += [tag("h2", "Use this index"), *access_notes(place),
                tag("div", *map(config_card, configurations(place)),
                    class_="cards")]
    if not place.uploads and not place.is_static:
        content.append(tag(
            "p", "Nothing can be uploaded here; wheels and sdists are copied "
            "into the package directory.", class_="soft"))
    if totals and totals.newest:
        content += [tag("h2", "Newest uploads"), tag(
            "ul", *(brief_row(place, brief, True)
                    for brief in totals.newest), class_="rows")]
    return people_page(place, "Python packages", *content,
                       upload_form(place), here="home")


def reading_note(read: int, projects: int) -> Html:
    if read >= projects:
        return Html("")
    return tag("p", f"{read:,} of {count_text(projects, 'project')} have "
               "been read so far; the others are counted soon.",
               class_="soft")


def brief_row(place: Place, brief: Brief, is_upload: bool = False) -> Html:
    head: List[str] = [tag(
        "a", brief.name, class_="name",
        href=f"{place.up}project/{quote(brief.name)}/")]
    if brief.version:
        head += [" ", tag("span", brief.version, class_="soft")]
    if brief.mark:
        head += [" ", tag("span", brief.mark, class_="badge " + (
            "half" if brief.mark in ("archived", "deprecated") else "bad"))]
    lines = [tag("p", *head)]
    if brief.summary:
        lines.append(tag("p", brief.summary))
    if is_upload:
        lines.append(tag("p", tag("span", brief.filename),
                         time_tag(brief.newest), class_="meta"))
    return tag("li", *lines)


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def must_be_trusted(place: Place) -> bool:
    """Tell whether clients want to be told that they may use plain HTTP."""
    url = urlsplit(place.base)
    return url.scheme == "http" and not is_loopback(url.hostname or "")


def access_notes(place: Place) -> List[Html]:
    """Return what else clients need: an account, trust."""
    url = urlsplit(place.base)
    notes = []
    if {"list", "download"} & set(place.locked):
        notes.append(join(
            "Installing needs an account: pip asks for it, and a line ",
            tag("code", f"machine {url.hostname} login USER password "
                "PASSWORD"), " in ", tag("code", "~/.netrc"),
            " tells it to pip, uv and PDM; poetry keeps it with ",
            tag("code", "poetry config http-basic.local USER"), "."))
    if place.base.startswith(NO_ADDRESS + "/"):
        notes.append(join("Write the address of this site for ",
                          tag("code", NO_ADDRESS), "."))
    elif url.scheme == "https":
        notes.append(join(
            "If the certificate is not from a public authority, name its CA "
            "to the clients: ", tag("code", "pip --cert CA.pem"), ", and ",
            tag("code", "SSL_CERT_FILE=CA.pem"), " for uv and PDM."))
    elif must_be_trusted(place):
        notes.append(join(
            "The connection is not encrypted, so pip and PDM have to be told "
            "that they may trust this host; what is below does that."))
    return [tag("div", tag("p", note), class_="note") for note in notes]


def configurations(place: Place) -> List[Tuple[str, str, List[str]]]:
    """Return (title, what it is for, texts to copy) for each client."""
    url = shlex.quote(place.base + "simple/")
    conf = f"[global]\nindex-url = {place.base}simple/\n"
    option = pdm_command = pdm_source = ""
    if must_be_trusted(place):
        host = urlsplit(place.base).netloc
        option = f" --trusted-host {host}"
        conf += f"trusted-host = {host}\n"
        pdm_command = "\npdm config pypi.verify_ssl false"
        pdm_source = "verify_ssl = false\n"
    quoted = json.dumps(place.base + "simple/", ensure_ascii=False)
    found = [
        ("pip", "A command, or ~/.config/pip/pip.conf for all of them "
         "(pip.ini on Windows)",
         [f"pip install --index-url {url}{option} PROJECT", conf]),
        ("uv", "A command, or pyproject.toml for a project",
         [f"uv pip install --default-index {url} PROJECT",
          f"[[tool.uv.index]]\nurl = {quoted}\ndefault = true\n"]),
        ("poetry", "In a project",
         [f"poetry source add --priority=primary local {url}"]),
        ("PDM", "For all projects, or pyproject.toml for one",
         [f"pdm config pypi.url {url}{pdm_command}",
          f"[[tool.pdm.source]]\nname = \"pypi\"\nurl = {quoted}\n"
          + pdm_source])]
    if place.uploads:
        upload = shlex.quote(place.base)
        found += [
            ("twine and uv", "Upload what was built",
             [f"twine upload --repository-url {upload} dist/*",
              f"uv publish --publish-url {upload} dist/*"]),
            (".pypirc", "~/.pypirc, then: twine upload -r local dist/*",
             ["[distutils]\nindex-servers = local\n\n[local]\n"
              f"repository = {place.base}\nusername = "
              + ("USER" if "update" in place.locked else "anyone") + "\n"
              + ("" if "update" in place.locked
                 else "password = none\n")])]
    return found


def config_card(entry: Tuple[str, str, List[str]]) -> Html:
    title, purpose, texts = entry
    return tag("section", tag("h3", title), tag("p", purpose), *(
        copyable(text, f"for {title}, {number}")
        for number, text in enumerate(texts, 1)), class_="card")


def upload_form(place: Place) -> Html:
    """Render the form for uploads; script makes a drop zone of it."""
    if not place.uploads:
        return Html("")
    hint = "Drop files anywhere on this page, or choose them."
    if "update" in place.locked:
        hint += "  Your browser asks for your account."
    return join(
        tag("h2", "Upload", id="upload-title"),
        tag("form",
            tag("input", type="hidden", name=":action",
                value="file_upload"),
            tag("label", "Wheels, sdists and eggs", for_="file"),
            tag("input", type="file", id="file", name="content",
                required=True),
            tag("button", "Upload"), tag("span", hint, class_="soft"),
            id="upload", class_="drop", method="post",
            action=place.up or "./", enctype="multipart/form-data"),
        tag("ul", id="uploads", class_="rows", aria_live="polite"))


def rank_all(briefs: Iterable[Brief], terms: Sequence[str]) -> List[Brief]:
    """Return the projects that fit, those first of which the name does.

    Args:
        terms: each must be in the name or in the summary.
    """
    pairs = [(term.lower(), normalize(term) or " ") for term in terms]
    found: List[List[Brief]] = [[], [], [], []]
    for brief in briefs:
        summary = brief.summary.lower()
        best = 3
        for term, name in pairs:
            if name in brief.name:
                best = min(best, 0 if brief.name == name else
                           1 if brief.name.startswith(name) else 2)
            elif term not in summary:
                break
        else:
            found[best].append(brief)
    return [brief for briefs in found for brief in briefs]


def search_page(place: Place, query: str, found: Sequence[Brief], page: int
                ) -> Page:
    """Render a page of the projects that were found, or of all."""
    shown, page, pages = cut_page(place, found, page)
    count = count_text(len(found), "project")
    if query:
        count += f" for “{query}”"
    link = f"q={quote(query)}&" if query else ""
    return people_page(
        place, f"{query} - search" if query else "Projects",
        tag("h1", "Projects"),
        "" if place.is_static
        else searching(place, query, id="query", autofocus=True),
        tag("p", count, id="count", class_="soft", role="status"),
        tag("div", tag("ul", *(brief_row(place, brief) for brief in shown),
                       class_="rows") if shown else tag(
            "p", "Nothing has that in its name or summary. Try one word, "
            "or a part of it." if query else "There are no projects yet: "
            "copy wheels and sdists into the package directory, or upload "
            "them."),
            page_links(page, pages, link), id="results"),
        here="search/")


def withheld_page(place: Place, ignored: Sequence[Ignored], page: int,
                  read: int, projects: int) -> Page:
    """Render the files that are not served, why, and what to do."""
    shown, page, pages = cut_page(place, ignored, page)
    as_json = "index.json" if place.is_static \
        else "?format=" + quote(JSON, safe="")
    rows = [tag("li", tag("p", tag("span", entry.file, class_="name"), " ",
                          tag("span", entry.kind, class_="badge half"),
                          tag("span", " in " + entry.directory, class_="soft")
                          if entry.directory else ""),
                tag("p", sentence(entry.reason)),
                tag("p", REMEDIES[entry.kind], class_="soft"))
            for entry in shown]
    return people_page(
        place, "Not served", tag("h1", "What is not served, and why"),
        tag("p", "Files in the package directories that no client gets to "
            "see, or that have no effect; also ",
            tag("a", "as JSON", href=as_json), ".",
            class_="lead soft"),
        reading_note(read, projects),
        tag("ul", *rows, class_="rows") if rows else tag(
            "p", "Every file is served.", class_="good"),
        page_links(page, pages), here="withheld/")


def withheld_json(ignored: Sequence[Ignored], read: int, projects: int
                  ) -> Page:
    return json_page(JSON, {
        "projects": projects, "projects_read": read,
        "files": [dict(entry._asdict(), remedy=REMEDIES[entry.kind])
                  for entry in ignored]})


class Link(NamedTuple):
    """What the page of all archives tells of one."""

    location: str
    fragment: str
    requires_python: str
    yanked: Optional[str]


def link_of(file: File, algorithm: str) -> Link:
    return Link(file.archive.location, fragment(file, algorithm),
                file.facts.requires_python, file.yanked)


def archive_links(archives: Iterable[Link], packages: str = "") -> str:
    """Render links that installers heed as those on a project's page.

    Args:
        packages: see file_url(); "" for the directory of the page itself.
    """
    return "".join(
        anchor(packages + quote(link.location) + link.fragment,
               link.location.rpartition("/")[2],
               data_attributes(link.requires_python, link.yanked))
        + "<br>\n" for link in archives)


def archives_page(place: Place, links: str) -> Page:
    """Render all archives on one page, for --find-links and for people."""
    return people_page(
        place, "Packages", tag("h1", "All files"),
        tag("p", "For ", tag("code", "--find-links"), ", on one page. Not "
            "all is here: see ", tag("a", "what is not served, and why",
                                     href=place.up + "withheld/"), ".",
            class_="lead soft"),
        tag("p", Html(links)) if links else tag("p", "There is none yet."),
        here="packages/")


# What may help against an error, by its status.
NEXT_STEPS = {
    400: "What was sent cannot be understood; correct it and send it again.",
    401: "Reload the page to log in.  Accounts are made by whoever runs "
         "this index, with the command passwd.",
    403: "Whoever runs this index can allow it.",
    405: "Go back to the page that led here.",
    409: "Raise the version and upload that, or ask whoever runs this index "
         "to allow replacing files.",
    413: "Whoever runs this index can raise the limit.",
    500: "The log of the server says what went wrong.",
    503: "Try again in a moment.",
    507: "Whoever runs this index has to make room on its disk."}


def error_page(place: Place, status: int, title: str, detail: str) -> Page:
    """Render an error, with what to do next."""
    next_step = join(
        "Look at the address again, begin at the ",
        tag("a", "home page", href=place.up or "./"), ", find the project "
        "in the ", tag("a", "list of all", href=place.up + "search/"),
        ", or see whether the file is ",
        tag("a", "not served, and why", href=place.up + "withheld/"), "."
    ) if status == 404 else NEXT_STEPS.get(status, NEXT_STEPS[400])
    return people_page(
        place, f"{status} {title}",
        tag("h1", title), tag("p", sentence(detail), class_="lead"),
        tag("p", next_step), tag("p", f"Status {status}", class_="soft"))


def stored_page(place: Place, text: str) -> Page:
    """Render the answer to an upload without script."""
    return people_page(
        place, "Uploaded", tag("h1", "Uploaded"),
        tag("p", sentence(text), class_="lead"), upload_form(place))


# === 13  Project page =======================================================

# PEP 425, 600 and 656: operating system, versions of it, architecture.
PLATFORM = re.compile(
    r"(manylinux|musllinux|linux|macosx|win|ios|android)\d*(?:_\d+)*_?(.*)")
# In the order of the columns.
SYSTEMS = {"manylinux": "Linux", "linux": "Linux", "macosx": "macOS",
           "win": "Windows", "musllinux": "Linux (musl)",
           "ios": "iOS", "android": "Android"}
ARCHITECTURES = {
    "x86_64": ("x86-64",), "amd64": ("x86-64",), "i686": ("x86",),
    "": ("x86",),  # of win32
    "aarch64": ("ARM64",), "arm64": ("ARM64",),
    "universal2": ("ARM64", "x86-64"), "intel": ("x86-64",)}
CLAUSE = re.compile(
    r"\s*(>=|<=|>|<|===|==|!=|~=)\s*v?(\d+(?:\.\d+)*)(\.\*)?[^,]*")
CLASSIFIED = re.compile(r"Programming Language :: Python :: (\d+)\.(\d+)")
EGG_PYTHON = re.compile(r".*-py(\d)\.(\d+)(?:-.*)?\.\w+")
# What the grid shows where several fit: the first of them.
CELLS = {"w": "wheel", "s": "sdist", "e": "egg", "n": "nothing"}
# The newest CPython, when this was written; wheels and classifiers may name
# newer ones.
NEWEST_PYTHON = (3, 14)


class Python(NamedTuple):
    """An interpreter: a column of the grid."""

    kind: str                 # of its tag, e.g. "cp", or "py" for any
    version: Tuple[int, ...]  # (3, 13); (3,) for any
    abi: str = ""             # "t" without the global lock (PEP 703)

    @property
    def label(self) -> str:
        text = ".".join(map(str, self.version)) + self.abi
        kinds = {"cp": "", "py": "Python ", "pp": "PyPy "}
        return kinds.get(self.kind, self.kind + " ") + text


def python_of(tag_text: str, abis: Sequence[str] = ()) -> Optional[Python]:
    """Return what a python tag names.

    >>> python_of("cp313", ["cp313t"])
    Python(kind='cp', version=(3, 13), abi='t')
    """
    found = re.fullmatch(r"([a-z]+)(\d)_?(\d{0,3})", tag_text)
    if not found:
        return None
    kind, major, minor = found.groups()
    version = (int(major), int(minor)) if minor else (int(major),)
    return Python(kind, version, "t" if abis and all(
        re.fullmatch(r"cp\d+t", abi) for abi in abis) else "")


@functools.lru_cache(maxsize=4096)
def fits(specifier: str, version: Tuple[int, ...]) -> bool:
    """Tell whether some patch of a minor version may be meant (PEP 440).

    >>> fits(">=3.8.1,!=3.9.*,<4", (3, 8)), fits("!=3.9.*", (3, 9))
    (True, False)
    """
    return all(fits_clause(clause, version)
               for clause in specifier.split(",") if clause.strip())


def fits_clause(clause: str, version: Tuple[int, ...]) -> bool:
    found = CLAUSE.fullmatch(clause)
    if not found or len(version) < 2:
        return True  # what is not understood forbids nothing
    sign, text, star = found.groups()
    numbers = tuple(map(int, text.split(".")))
    bound = (numbers + (0,))[:2]
    begins = version[:len(numbers)] == numbers[:2]
    if sign in ("==", "==="):
        return begins if star or len(numbers) > 1 else version == bound
    if sign == "!=":
        return not (star and len(numbers) <= 2 and begins)
    if sign == "~=":
        return version >= bound and version[:min(len(numbers) - 1, 2)] \
            == numbers[:-1][:2]
    if sign in (">=", ">"):
        return version >= bound
    return version < bound or (version == bound and (
        sign == "<=" or any(numbers[2:])))


def runs(found: Python, is_stable: bool, column: Python) -> bool:
    """Tell whether a wheel for one Python runs on another.

    Args:
        is_stable: it uses the stable ABI only (abi3).
    """
    if found.kind == "py":
        return found.version[0] == column.version[0] \
            and found.version <= column.version
    if found.kind != column.kind:
        return False
    if is_stable:
        return not column.abi and found.version[0] == column.version[0] \
            and found.version <= column.version
    return found == column


def platforms_of(platform: str) -> List[str]:
    """Return what people call a platform tag; "" stands for any.

    >>> platforms_of("macosx_11_0_universal2")
    ['macOS ARM64', 'macOS x86-64']
    """
    if platform == "any":
        return [""]
    found = PLATFORM.fullmatch(platform)
    if not found:
        return [platform]
    system, machine = found.groups()
    return [f"{SYSTEMS[system]} {name}" for name in ARCHITECTURES.get(
        machine, (machine.replace("_", " "),))]


def platform_order(platform: str) -> Tuple[int, str]:
    """Return the place of a column; what is rare comes last."""
    systems = list(SYSTEMS.values())
    system, _, machine = platform.rpartition(" ")
    return (systems.index(system) if system in systems else len(systems),
            "" if machine == "x86-64" else platform)


class Build(NamedTuple):
    """What a file is, and where it runs."""

    cell: str          # a key of CELLS
    pythons: Optional[Tuple[Python, ...]]  # None for any
    is_stable: bool    # it uses the stable ABI only, abi3
    platforms: FrozenSet[str]  # see platforms_of()


SOURCE = Build("s", None, False, frozenset([""]))


@functools.lru_cache(maxsize=4096)
def build_of_wheel(tags: str) -> Build:
    """Return what a wheel is, by the end of its filename."""
    pythons, abis, platforms = wheel_tags(tags)
    return Build(
        "w", tuple(filter(None, (python_of(text, abis) for text in pythons))),
        "abi3" in abis, frozenset(name for platform in platforms
                                  for name in platforms_of(platform)))


def build_of(archive: Archive) -> Build:
    """Return what an archive is.

    Eggs and the installers of old setuptools are all called eggs; what they
    have in common is that pip installs none of them.
    """
    if archive.filetype == "sdist":
        return SOURCE
    if archive.filetype == "bdist_wheel":
        return build_of_wheel("-".join(archive.filename.split("-")[-3:]))
    found = EGG_PYTHON.fullmatch(archive.filename)
    return SOURCE._replace(cell="e", pythons=(Python(
        "cp", (int(found.group(1)), int(found.group(2)))),)
        if found else None)


def grid_pythons(files: Sequence[File], classifiers: Iterable[str]
                 ) -> List[Python]:
    """Return the columns, oldest first.

    They are what wheels, eggs or classifiers name; where those name none,
    what releases require tells from where on there is a difference.
    """
    every = {(python, build.is_stable)
             for build in (build_of(file.archive) for file in files)
             for python in build.pythons or ()}
    found = {python for python, is_stable in every
             if python.kind != "py" and len(python.version) > 1}
    for text in classifiers:
        named = CLASSIFIED.fullmatch(text)
        if named:
            found.add(Python("cp", tuple(map(int, named.groups()))))
    last = max((python.version for python in found if python.kind == "cp"),
               default=(0, 0))
    for python, is_stable in every:
        if is_stable and python.version[0] == last[0]:
            found.update(Python("cp", (last[0], minor)) for minor in
                         range(python.version[-1], last[-1]))
    if not found:
        found = required_pythons({
            file.facts.requires_python for file in files}) or {
                Python("py", python.version[:1]) for python, _ in every}
    return sorted(found, key=python_order)


def python_order(python: Python) -> Tuple[Any, ...]:
    return (python.kind != "cp", *python)


def required_pythons(specifiers: Iterable[str]) -> Set[Python]:
    """Return all CPythons from the oldest that a specifier begins with."""
    major, last = NEWEST_PYTHON
    begins = [next((minor for minor in range(last + 1)
                    if fits(text, (major, minor))), 0)
              for text in specifiers]
    oldest = min(filter(None, begins), default=last + 1)
    return {Python("cp", (major, minor))
            for minor in range(oldest, last + 1)}


def release_cells(files: Sequence[File], pythons: Sequence[Python],
                  platforms: Sequence[str]) -> List[str]:
    """Return the cells of a release, keys of CELLS, platform by platform."""
    covered: Dict[Tuple[Any, ...], Set[Python]] = {}
    found: Dict[Tuple[str, str], Set[Python]] = {}  # by cell and platform
    for file in files:
        build = build_of(file.archive)
        key = build[:3], file.facts.requires_python
        if key not in covered:
            covered[key] = {column for column in pythons if fits(
                file.facts.requires_python, column.version) and (
                    build.pythons is None or any(
                        runs(python, build.is_stable, column)
                        for python in build.pythons))}
        for platform in build.platforms:
            found.setdefault((build.cell, platform), set()).update(
                covered[key])
    cells: List[str] = []
    for platform in platforms:
        there = [(cell, found.get((cell, ""), set())
                  | found.get((cell, platform), set())) for cell in CELLS]
        cells += [next((cell for cell, columns in there
                        if column in columns), "n") for column in pythons]
    return cells


def releases_of(files: Sequence[File]) -> List[Tuple[str, List[File]]]:
    """Return (version, files) of each release, the newest first."""
    found: Dict[Tuple[Any, ...], List[File]] = {}
    for file in files:
        found.setdefault(version_key(file.archive.version), []).append(file)
    return [(normalize_version(members[0].archive.version), members)
            for members in reversed(list(found.values()))]


def release_grid(place: Place, name: str, shown: str,
                 releases: Sequence[Tuple[str, List[File]]],
                 classifiers: Sequence[str]) -> Html:
    """Render where wheels exist, where only an sdist, where nothing."""
    shown_files = [file for _, files in releases for file in files]
    pythons = grid_pythons(shown_files, classifiers) or [Python("py", (3,))]
    platforms = sorted(
        {platform for file in shown_files
         for platform in build_of(file.archive).platforms} - {""},
        key=platform_order) or [""]
    notes = list(grid_notes(pythons, platforms))
    pythons, platforms = pythons[-GRID_PYTHONS:], platforms[:GRID_PLATFORMS]
    groups = [tag("th", platform or "any platform", scope="colgroup",
                  class_="first", colspan=str(len(pythons)))
              for platform in platforms]
    heads = [tag("th", python.label, scope="col", class_="first" * (not at))
             for at, python in enumerate(pythons)]
    rows, kinds = [], set()
    for version, files in releases:
        cells = release_cells(files, pythons, platforms)
        kinds.update(cells)
        rows.append(tag("tr", release_head(place, name, version, files,
                                           version == shown), *(
            Html('<td class="%s">%s</td>' % (
                cell + " first" * (at % len(pythons) == 0), CELLS[cell]))
            for at, cell in enumerate(cells))))
    key = tag("p", *(tag("span", tag("i", class_=cell), text)
                     for cell, text in (
                         ("w", "wheel"), ("s", "sdist only"),
                         ("e", "egg or installer"), ("n", "nothing"))
                     if cell != "e" or "e" in kinds), class_="key")
    return join(tag("div", tag(
        "table", tag("caption", "Releases by platform and Python version",
                     class_="hidden"),
        tag("thead", tag("tr", tag("td"), *groups),
            tag("tr", tag("td"), *heads * len(platforms))),
        tag("tbody", *rows), class_="grid"), class_="scroll", tabindex="0",
        role="region", aria_label="Releases"), key, *notes)


def release_head(place: Place, name: str, version: str,
                 files: Sequence[File], is_shown: bool) -> Html:
    """Render the head of a row of the grid."""
    current: Dict[str, Union[str, bool]] = {
        "aria_current": "page"} if is_shown else {}
    link = tag("a", version, href=release_url(place, name, version),
               **current)
    yanked = all(file.yanked is not None for file in files)
    return tag("th", link if is_file_name(version) or not place.is_static
               else version, scope="row",
               class_="yanked" if yanked else "release")


def grid_notes(pythons: Sequence[Python], platforms: Sequence[str]
               ) -> Iterator[Html]:
    """Say what there is no room for in the grid."""
    left_out = [count_text(count, text) for count, text in (
        (len(pythons) - GRID_PYTHONS, "older Python"),
        (len(platforms) - GRID_PLATFORMS, "more platform")) if count > 0]
    if left_out:
        yield tag("p", f"Not shown: {' and '.join(left_out)}.",
                  class_="soft")
    if len(pythons) * len(platforms) > GRID_PAPER:
        yield tag("p", "Not all of the grid fits on paper.",
                  class_="paper soft")


def is_file_name(version: str) -> bool:
    """Tell whether a site can have a directory of that name for a release.

    A version may be any text, such as ".." or the name of a page.
    """
    return version not in ("", ".", "..", "json", "index.html",
                           "index.html.gz")


def release_url(place: Place, name: str, version: str) -> str:
    return f"{place.up}project/{quote(name)}/{quote(version, safe='')}/"


def file_order(file: File) -> Tuple[Any, ...]:
    """Return the place of a file among those of its release.

    Sdists come first, then wheels for any platform, by Python.
    """
    build = build_of(file.archive)
    return (list("swe").index(build.cell),
            [python_order(python) for python in build.pythons or ()],
            sorted(map(platform_order, build.platforms)),
            file.archive.filename)


def files_part(place: Place, project: str, version: str,
               files: Sequence[File]) -> Html:
    """Render the files of a release; folded where they are many."""
    rows = tag("ul", *(file_row(place, file) for file in sorted(
        files, key=file_order)[:LIST_LIMIT]), class_="rows")
    if len(files) > FILES_OPEN:
        size = sum(file.identity.size for file in files)
        rows = tag("details", tag(
            "summary", f"{len(files):,} files, {size_text(size)} in all"),
            rows)
    content = [tag("h2", f"Files of {version}", id="files"), rows]
    if len(files) > LIST_LIMIT:
        content.append(tag("p", tag(
            "a", f"All {len(files):,} files",
            href=f"{place.up}simple/{quote(project)}/")))
    return join(*content)


def file_row(place: Place, file: File) -> Html:
    archive = file.archive
    badges = []
    if file.yanked is not None:
        badges += [" ", tag("span", "yanked", class_="badge bad"), " ",
                   tag("span", file.yanked, class_="bad")]
    kind = {"bdist_wheel": "wheel", "bdist_egg": "egg"}.get(
        archive.filetype, archive.filetype)
    more = []
    if file.facts.metadata_digest:
        more.append(("metadata", METADATA))
    if file.signed:
        more.append(("signature", SIGNATURE))
    if file.provenance:
        more.append(("provenance", PROVENANCE))
    url = file_url(file, place.up, place.packages)
    return tag(
        "li", tag("p", tag("a", archive.filename, href=url, class_="name"),
                  *badges),
        tag("div", tag("span", kind), tag("span", size_text(
            file.identity.size)), time_tag(file.identity.mtime_ns),
            tag("span", "SHA-256 ", tag("code", file.facts.digests[
                "sha256"]), class_="digest copy", data_label="digest"),
            *(tag("a", text, href=url + suffix) for text, suffix in more),
            class_="meta"))


def required_name(requirement: str) -> str:
    """Return the name that a requirement begins with (PEP 508).

    >>> required_name("Zope.Interface[x]>=1; python_version < '4'")
    'Zope.Interface'
    """
    found = PROJECT_NAME.match(requirement)
    return found.group() if found else ""


def dependencies(place: Place, requirements: Sequence[str],
                 hosted: AbstractSet[str]) -> List[Html]:
    """Return a list item for each requirement, with where it leads."""
    if place.is_static:  # its pages do not depend on other projects
        return [tag("li", requirement) for requirement in requirements]
    items = []
    for requirement in requirements:
        name = required_name(requirement)
        if normalize(name) in hosted:
            items.append(tag("li", tag(
                "a", name, href=f"{place.up}project/"
                f"{quote(normalize(name))}/"), requirement[len(name):]))
        else:
            items.append(tag("li", requirement, " ", tag(
                "span", "not here", class_="badge half")))
    return items


def facts_list(metadata: Mapping[str, List[str]]) -> Html:
    """Render the fields of core metadata that have one value."""
    classified = [text.rpartition(" :: ")[2] for text
                  in metadata.get("classifier", ())
                  if text.startswith("License ::")]
    author = first(metadata, "author-email") or first(metadata, "author")
    rows = [(title, text) for title, text in (
        ("Requires Python", first(metadata, "requires-python")),
        ("Licence", first(metadata, "license-expression")
         or first(metadata, "license") or ", ".join(classified)),
        ("Author", author),
        ("Maintainer", first(metadata, "maintainer-email")
         or first(metadata, "maintainer")),
        ("Keywords", first(metadata, "keywords"))) if text]
    return tag("dl", *(part for title, text in rows for part in (
        tag("dt", title), tag("dd", text[:WORDS_LIMIT]))), class_="facts") \
        if rows else Html("")


def aside(place: Place, metadata: Mapping[str, List[str]],
          hosted: AbstractSet[str]) -> Html:
    """Render what core metadata tell besides the description."""
    parts = []
    links = [(label.strip(), url.strip()) for label, _, url in (
        text.partition(",") for text in metadata.get("project-url", ()))]
    if first(metadata, "home-page"):
        links.insert(0, ("Home page", first(metadata, "home-page")))
    facts = facts_list(metadata)
    if facts:
        parts += [tag("h2", "About"), facts]
    for title, items in (
            ("Links", [tag("li", outside(url, label))
                       for label, url in links[:LIST_LIMIT]]),
            ("Dependencies", dependencies(place, metadata.get(
                "requires-dist", [])[:LIST_LIMIT], hosted)),
            ("Classifiers", [tag("li", text) for text in metadata.get(
                "classifier", [])[:LIST_LIMIT]])):
        if items:
            parts += [tag("h2", title), tag("ul", *items, class_="plain")]
    return tag("aside", *parts, aria_label="About this release",
               id="about") if parts else Html("")


def status_note(project: Project) -> Html:
    if project.status in ("", "active"):
        return Html("")
    meanings = {
        "archived": "no further releases are expected",
        "deprecated": "use something else instead",
        "quarantined": "it may be harmful; nothing of it is offered"}
    reason = " " + sentence(project.reason) if project.reason else ""
    return tag("div", tag("p", tag("strong", f"This project is "
                                   f"{project.status}"),
                          f": {meanings[project.status]}.", reason),
               class_="note")


def project_page(place: Place, project: Project, version: str,
                 metadata: Mapping[str, List[str]],
                 hosted: AbstractSet[str], page: Optional[int]) -> Page:
    """Render a release of a project, and the grid of all of them.

    Args:
        version: normalized; "" when there is none to show.
        metadata: of a file of that release, see parse_metadata().
        hosted: normalized names of the projects that are here.
        page: of the grid; 0 for the one that has this release; None for no
            grid and nothing else of other releases.
    """
    releases = releases_of(listed_files(project))
    files = dict(releases).get(version, [])
    title = first(metadata, "name") or project.name
    content = [
        tag("h1", title, " ", tag("span", version, class_="soft")),
        tag("p", first(metadata, "summary")[:WORDS_LIMIT], class_="lead"),
        status_note(project)]
    left = description(metadata)
    right = aside(place, metadata, hosted)
    if files:
        is_latest = page is not None and version_key(version) == version_key(
            latest_version(listed_files(project)))
        content += [copyable(install_command(
            place, project.name + ("" if is_latest else f"=={version}")),
            "command"), contents(left, right)]
        content += [tag("p", tag("a", "All releases", href="../"))] \
            if page is None else release_part(
                place, project.name, version, releases, page,
                metadata.get("classifier", ()))
        left.insert(0, files_part(place, project.name, version, files))
    if project.withheld and page is not None:
        left.insert(1, tag(
            "p", count_text(len(project.withheld), "file"), " of this "
            "project not served: ", tag(
                "a", "see why", href=place.up + "withheld/"), class_="half"))
    return people_page(
        place, f"{title} {version}", *content, tag(
            "div", tag("div", *left), right, class_="columns"),
        upload_form(place))


def contents(left: Sequence[Html], right: Html) -> Html:
    """Render the way to the parts of a long page."""
    return tag("p", *(part for title, there in (
        ("Files", True), ("Description", bool(left)), ("About", bool(right)))
        if there for part in (
            tag("a", title, href="#" + title.lower()), " ")), class_="jump")


def release_part(place: Place, name: str, version: str,
                 releases: Sequence[Tuple[str, List[File]]], page: int,
                 classifiers: Sequence[str]) -> List[Html]:
    """Render a page of all releases; 0 for the one that has this one."""
    if not page:
        page = 1 + next((at for at, (found, _) in enumerate(releases)
                         if found == version), 0) // ROWS
    shown, page, pages = cut_page(place, releases, page)
    return [tag("h2", count_text(len(releases), "release")),
            release_grid(place, name, version, shown, classifiers),
            page_links(page, pages)]


def install_command(place: Place, requirement: str) -> str:
    texts = configurations(place)[0][2]
    return texts[0].replace("PROJECT", shlex.quote(requirement))


def description(metadata: Mapping[str, List[str]]) -> List[Html]:
    """Render the description as it is, whatever markup it has."""
    import unicodedata  # late: it costs every other start a megabyte
    # What HTML may have: no control characters, and composed letters.
    text = unicodedata.normalize("NFC", re.sub(
        "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", "",
        metadata.get("description", [""])[0][:2 * DESCRIPTION_LIMIT])
    ).strip()
    if not text or text == "UNKNOWN":
        return []
    content = [tag("h2", "Description", id="description"),
               tag("pre", link_text(text[:DESCRIPTION_LIMIT]),
                   class_="description")]
    if len(text) > DESCRIPTION_LIMIT:
        content.append(tag("p", "The rest of it is in the metadata of the "
                           "files.", class_="soft"))
    return content


# === 14  Options ============================================================


class Config(NamedTuple):
    """Every setting.  Name, type and default of an option are here only."""

    roots: Tuple[str, ...] = ("~/packages",)
    host: str = "0.0.0.0"
    port: int = 8080
    authenticated: Tuple[str, ...] = ("update",)  # of ACTIONS
    password_file: str = ""  # "." stands for: nobody needs a password
    disable_fallback: bool = False
    fallback_url: str = "https://pypi.org/simple/"
    health_endpoint: str = "/health"
    server: str = "auto"
    overwrite: bool = False
    read_only: bool = False
    max_upload_size: int = 0  # bytes; 0 for no limit
    max_connections: int = 2000  # of one worker
    workers: int = 1  # processes; 0 for one per core
    tls_cert: str = ""
    tls_key: str = ""  # "" when the file of the certificate holds it too
    welcome_file: str = ""
    # Of the Python API only: a template instead of a file, and what verifies
    # (user, password) instead of a password file.
    welcome_msg: str = ""
    auther: Optional[Callable[[str, str], bool]] = None
    cache_control: Optional[int] = None  # seconds
    hash_algo: str = "sha256"  # "" for no digests in links
    backend: str = "auto"
    cache_dir: str = ""  # "" for the user's cache directory
    server_base_url: str = ""
    trusted_proxies: Tuple[str, ...] = ()
    verbosity: int = 0
    index_url: str = "https://pypi.org/simple/"
    allow_unstable: bool = False
    execute: bool = False
    download_directory: str = ""
    ignorelist_file: str = ""
    closure: bool = False
    python: str = ""    # of the closure; "" for the one that runs this
    platform: str = ""  # of the closure; "" for this machine
    json: bool = False
    site: str = ""          # of export, and the next four
    packages_url: str = ""  # with a final slash; "" for the site's own
    copy: bool = False
    delete: bool = False
    watch: bool = False
    log_file: str = ""
    log_stream: str = "stderr"
    log_frmt: str = (
        "%(asctime)s|%(name)s|%(levelname)s|%(thread)d|%(message)s")
    log_req_frmt: str = "%(client)s %(method)s %(path)s"
    log_res_frmt: str = "%(client)s %(method)s %(path)s %(status)s"
    log_err_frmt: str = "%(client)s %(method)s %(path)s %(status)s %(error)s"


class Option(NamedTuple):
    """How one Config field is spelled on the command line."""

    field: str
    flags: Tuple[str, ...]
    metavar: str  # "" for a switch, "+" for a switch that counts
    help: str     # without the default: the parser and the README add it
    parse: Callable[[str], Any] = str
    commands: Tuple[str, ...] = ("run",)  # that understand it; see COMMON
    brief: str = ""  # in --help, which fits a screen; "": in --help-all only


COMMON = ("", "run", "update", "export")  # "" stands for: before the command
ACTIONS = ("download", "list", "update")
LOG_STREAMS = ("stderr", "stdout", "none")
# First parts of addresses that are not for --health-endpoint.
RESERVED = ("simple", "packages", "pypi", "legacy", "RPC2", "favicon.ico",
            "-", "search", "withheld", "project")
BACKENDS = ("auto", "simple-dir", "cached-dir")
SERVERS = ("auto", "wsgiref", "gunicorn", "gevent", "waitress", "cherrypy",
           "twisted", "paste")
# Keys of --log-frmt: the attributes of logging.LogRecord.
LOG_KEYS = tuple(
    "asctime created filename funcName levelname levelno lineno message "
    "module msecs name pathname process processName relativeCreated thread "
    "threadName".split())
# Those of all formats that are numbers; the others are texts.
NUMBER_KEYS = ("created", "levelno", "lineno", "msecs", "process",
               "relativeCreated", "thread", "status", "length")
# Keys of the formats for requests, answers and errors.
REQUEST_KEYS = ("method", "path", "query", "client", "user", "agent")
RESPONSE_KEYS = REQUEST_KEYS + ("status", "type", "length")
ERROR_KEYS = RESPONSE_KEYS + ("error",)


def parse_number(text: str, least: int, most: int, what: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text) \
            or not least <= int(text) <= most:
        raise UsageError(f"{what} must be a number from {least} to {most}, "
                         f"not {text!r}")
    return int(text)


def parse_port(text: str) -> int:
    return parse_number(text, 0, 65535, "the port")


def parse_seconds(text: str) -> int:
    return parse_number(text, 0, 10 ** 10, "--cache-control")


def parse_size(text: str) -> int:
    return parse_number(text, 1, 10 ** 15, "--max-upload-size")


def parse_connections(text: str) -> int:
    return parse_number(text, 1, 10 ** 6, "--max-connections")


def parse_workers(text: str) -> int:
    return parse_number(text, 0, 1000, "--workers")


def parse_choice(text: str, choices: Sequence[str], what: str) -> str:
    if text.lower() not in choices:
        raise UsageError(
            f"{what} must be one of {', '.join(choices)}, not {text!r}")
    return text.lower()


def parse_backend(text: str) -> str:
    return parse_choice(text, BACKENDS, "--backend")


def parse_stream(text: str) -> str:
    return parse_choice(text, LOG_STREAMS, "--log-stream")


def parse_server(text: str) -> str:
    return parse_choice(text, SERVERS, "--server")


def parse_hash_algo(text: str) -> str:
    """Return the name of an algorithm; "" for the ways to say "none"."""
    if text.lower() in ("0", "no", "off", "false"):
        return ""
    try:
        size = hashlib.new(text.lower()).digest_size
    except ValueError:
        size = 0
    if not size:  # unknown, or with a digest of any length, as shake_128
        raise UsageError(
            f"--hash-algo must be an algorithm of Python's hashlib, as "
            f"sha256, or one of 0, no, off, false, not {text!r}")
    return text.lower()


def parse_python(text: str) -> str:
    if not re.fullmatch(r"3\.\d{1,2}(\.\d{1,3})?", text, re.ASCII):
        raise UsageError("--python must be a version of CPython 3, as 3.11 "
                         f"or 3.11.4, not {text!r}")
    return text


def parse_actions(text: str) -> Tuple[str, ...]:
    """Return the actions of -a, sorted; none for "."."""
    found = {part.strip().lower() for part in text.split(",")} - {""}
    if found == {"."}:
        return ()
    unknown = sorted(found - set(ACTIONS))
    if unknown or not found:
        raise UsageError(
            f"-a takes a list of {', '.join(ACTIONS)}, or . alone for no "
            f"authentication, not {text!r}")
    return tuple(sorted(found))


def parse_endpoint(text: str) -> str:
    if not re.fullmatch(r"(?:/[\w.~-]+)+/?", text, re.ASCII) \
            or text.split("/")[1] in RESERVED:
        raise UsageError(
            "--health-endpoint must be a path as /health that is not used "
            f"otherwise, not {text!r}")
    return text


def parse_url(text: str, what: str) -> str:
    try:
        port = urlsplit(text).port
    except ValueError:
        port = -1
    if not re.fullmatch(r"https?://[^\s?#]+", text) or port == -1:
        raise UsageError(f"{what} must be the URL of an index, as "
                         f"https://pypi.org/simple/, not {text!r}")
    return text


def parse_fallback(text: str) -> str:
    return parse_url(text, "--fallback-url")


def parse_index(text: str) -> str:
    return parse_url(text, "--index-url")


def parse_packages(text: str) -> str:
    """Return a URL with a final slash."""
    return parse_url(text, "--packages-url").rstrip("/") + "/"


def parse_base(text: str) -> str:
    """Return a prefix or URL without its final slashes."""
    if not re.fullmatch(r"(?:https?://[^/\s?#]+)?(?:/[^\s?#]*)?", text):
        raise UsageError(
            "--server-base-url must be a path as /pypi, or the URL that "
            f"clients use, as https://example.org/pypi, not {text!r}")
    return text.rstrip("/")


def parse_proxies(text: str) -> Tuple[str, ...]:
    """Return the addresses or networks of --trusted-proxy."""
    import ipaddress  # late: it costs every other start some milliseconds
    found = tuple(part.strip() for part in text.split(","))
    try:
        for part in found:
            ipaddress.ip_network(part, strict=False)
    except ValueError:
        raise UsageError(
            "--trusted-proxy must be addresses or networks, as "
            f"127.0.0.1,10.0.0.0/8, not {text!r}")
    return found


def parse_format(keys: Sequence[str]) -> Callable[[str], str]:
    """Return a parser of a %-format over these keys, or "%s" for all."""
    def parse(text: str) -> str:
        try:
            format_record(text, {
                key: 0 if key in NUMBER_KEYS else "x" for key in keys})
        except (KeyError, ValueError, TypeError) as error:
            raise UsageError(
                f"the log format {text!r} does not work ({error!r}); it "
                f"may hold {', '.join('%%(%s)s' % key for key in keys)}, "
                "or be %s for all of them")
        return text
    return parse


def format_record(frmt: str, values: Mapping[str, Any]) -> str:
    """Apply a format to named values, or to all of them at once.

    >>> format_record("%s", {"method": "GET", "path": "/"})
    'method=GET path=/'
    """
    if "%s" in frmt.replace("%%", ""):
        return frmt % " ".join(f"{key}={value}"
                               for key, value in values.items())
    return frmt % values


def parse_log_format(text: str) -> str:
    if "%(" not in text:
        raise UsageError(f"--log-frmt must hold keys, as %(message)s, "
                         f"not {text!r}")
    return parse_format(LOG_KEYS)(text)


OPTIONS = (
    Option("verbosity", ("-v", "--verbose"), "+",
           "log requests; twice: more of them", commands=COMMON,
           brief="log requests; twice: more of them"),
    Option("log_file", ("--log-file",), "FILE",
           "log into FILE, as well as to the stream", commands=COMMON,
           brief="log into FILE as well"),
    Option("log_stream", ("--log-stream",), "STREAM",
           "log to stderr, stdout or none", parse_stream, COMMON),
    Option("log_frmt", ("--log-frmt",), "FORMAT",
           "format of log lines, with the keys of logging.LogRecord",
           parse_log_format, COMMON),
    Option("hash_algo", ("--hash-algo",), "ALGO",
           "algorithm of hashlib for the digests in links of HTML pages; "
           "one of 0, no, off, false for no digests", parse_hash_algo,
           COMMON),
    Option("backend", ("--backend",), "NAME",
           "auto and cached-dir keep digests in the cache directory, "
           "simple-dir only in memory", parse_backend, COMMON + ("check",)),
    Option("cache_dir", ("--cache-dir",), "DIR",
           "keep digests in DIR instead of the user's cache directory",
           commands=("run", "check", "export")),
    Option("port", ("-p", "--port"), "PORT",
           "listen on TCP port PORT; 0 takes a free one", parse_port,
           brief="TCP port; 0 takes a free one"),
    Option("host", ("-i", "-H", "--interface", "--host"), "HOST",
           "listen on this address or host name",
           brief="address or host name to listen on"),
    Option("authenticated", ("-a", "--authenticate"), "ACTIONS",
           "comma-separated list of the actions that need an account: "
           "download, list, update; . for none, together with -P .",
           parse_actions,
           brief="what needs an account: download, list, update"),
    Option("password_file", ("-P", "--passwords"), "FILE",
           "password file of Apache (htpasswd) with the accounts; without "
           "it, uploads are refused; . lets anyone, together with -a .",
           brief="password file with the accounts"),
    Option("disable_fallback", ("--disable-fallback",), "",
           "answer 404 for projects that are not here, instead of "
           "redirecting to the fallback",
           brief="404, not a redirect, for other projects"),
    Option("fallback_url", ("--fallback-url",), "URL",
           "the index that is asked for projects that are not here",
           parse_fallback,
           brief="index for projects that are not here"),
    Option("health_endpoint", ("--health-endpoint",), "PATH",
           "answer Ok at this path while the service is up",
           parse_endpoint),
    Option("overwrite", ("-o", "--overwrite"), "",
           "let uploads replace files that have other content",
           brief="let uploads replace other content"),
    Option("server", ("--server",), "NAME",
           "serve with the built-in server (auto), or with another one that "
           f"is installed: {', '.join(SERVERS[1:])}", parse_server),
    Option("workers", ("--workers",), "N",
           "serve with N processes; 0 for one per core", parse_workers),
    Option("max_connections", ("--max-connections",), "N",
           "connections that one worker keeps open; beyond them, those that "
           "wait longest for a request are closed", parse_connections),
    Option("tls_cert", ("--tls-cert",), "FILE",
           "serve HTTPS with the certificate in FILE (PEM), with those that "
           "vouch for it; it is loaded again when it changes"),
    Option("tls_key", ("--tls-key",), "FILE",
           "the private key, if it is not in the file of the certificate"),
    Option("read_only", ("--read-only",), "",
           "refuse all uploads and removals",
           brief="refuse all uploads and removals"),
    Option("max_upload_size", ("--max-upload-size",), "BYTES",
           "refuse files that are larger", parse_size),
    Option("welcome_file", ("--welcome",), "HTML_FILE",
           "show this file instead of the home page",
           commands=("run", "export")),
    Option("cache_control", ("--cache-control",), "AGE",
           "let clients keep downloads for AGE seconds without asking",
           parse_seconds),
    Option("server_base_url", ("--server-base-url",), "PREFIX",
           "the path below which a reverse proxy mounts this index, or the "
           "whole URL", parse_base, ("run", "export"),
           brief="path below which a proxy mounts it"),
    Option("trusted_proxies", ("--trusted-proxy",), "ADDRESS",
           "believe X-Forwarded-* headers from these addresses or networks, "
           "separated by commas", parse_proxies),
    Option("log_req_frmt", ("--log-req-frmt",), "FORMAT",
           "format for requests; %s shows all keys",
           parse_format(REQUEST_KEYS)),
    Option("log_res_frmt", ("--log-res-frmt",), "FORMAT",
           "format for answers; %s shows all keys",
           parse_format(RESPONSE_KEYS)),
    Option("log_err_frmt", ("--log-err-frmt",), "FORMAT",
           "format for refused requests; %s shows all keys",
           parse_format(ERROR_KEYS)),
    Option("execute", ("-x", "--execute"), "",
           "run the pip commands instead of only printing them",
           commands=("update",),
           brief="run the commands that are printed"),
    Option("download_directory", ("-d", "--download-directory"), "DIR",
           "put new files into DIR, instead of beside the old ones",
           commands=("update",),
           brief="put new files into DIR"),
    Option("allow_unstable", ("-u", "--allow-unstable"), "",
           "update to pre-releases as well", commands=("update",),
           brief="update to pre-releases as well"),
    Option("ignorelist_file", ("--ignorelist-file", "--blacklist-file"),
           "FILE", "leave alone the projects that FILE names, one on each "
           "line: upstream is not even asked for them",
           commands=("update",),
           brief="leave alone the projects that FILE names"),
    Option("index_url", ("--index-url",), "URL",
           "the index that has the newer releases", parse_index,
           ("update",),
           brief="the index that has newer releases"),
    Option("closure", ("--closure",), "",
           "find what is missing to install all that is here",
           commands=("check",),
           brief="find what is missing to install all"),
    Option("python", ("--python",), "VERSION",
           "of the closure, a CPython, as 3.11 or 3.11.4, instead of this "
           "one",
           parse_python, ("check",), brief="of the closure, as 3.11"),
    Option("platform", ("--platform",), "TAG",
           "of the closure, as wheels name it (manylinux_2_28_x86_64), "
           "instead of this machine", commands=("check",),
           brief="of the closure, as wheels name it"),
    Option("json", ("--json",), "", "print JSON, for programs",
           commands=("check",), brief="print JSON, for programs"),
    Option("packages_url", ("--packages-url",), "URL",
           "link to archives below URL, and put none into SITE",
           parse_packages, ("export",), "link to archives below URL"),
    Option("copy", ("--copy",), "",
           "copy archives; otherwise they are hard links wherever that is "
           "possible", commands=("export",),
           brief="copy archives instead of linking them"),
    Option("delete", ("--delete",), "",
           "remove from SITE what is no longer in the package directories",
           commands=("export",), brief="remove what is gone from SITE"),
    Option("watch", ("--watch",), "",
           "go on, and bring every change to SITE", commands=("export",),
           brief="go on, and bring every change to SITE"),
)


# === 15  Files ==============================================================

LOG = logging.getLogger("pypi_server")
# Changes of what is served; they are logged at any level.
AUDIT = logging.getLogger("pypi_server.audit")
# A file is read when it has not changed for this long: while it is copied,
# every look would read it in vain, and times can stand still for a tick.
SETTLED = 0.5
# The same on filesystems that keep whole seconds (or two of them, on FAT).
SETTLED_COARSE = 1.1
# Seconds that an upload waits for another server to give a name; the other
# one may have been stopped in the middle of that.
LOCK_PATIENCE = 20
# Threads wait for each other here, by directory; to wait for a file they would
# have to ask again and again.
NAMING: Dict[str, threading.Lock] = {}
HAND_OVER = 8 * 1024 ** 2  # bytes of an upload that are written out at once
TEMPORARY = ".upload-"  # prefix of files on their way; dots are not scanned
# What link() says on filesystems without hard links: FAT, some of FUSE, SMB.
WITHOUT_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS,
                 errno.EMLINK, errno.EINVAL)


def identify(found: os.stat_result) -> Identity:
    return Identity(found.st_size, found.st_mtime_ns, found.st_ctime_ns,
                    found.st_ino)


def look(path: str) -> Optional[Identity]:
    """Return the identity of a regular file; None when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return identify(found) if stat.S_ISREG(found.st_mode) else None


def settling_time(identity: Identity) -> float:
    """Return for how many seconds this identity must be seen unchanged."""
    is_coarse = identity.ctime_ns % 10 ** 9 == 0
    return SETTLED_COARSE if is_coarse else SETTLED


def open_whole(path: str, identity: Identity) -> BinaryIO:
    """Open a file that is the one that was looked at.

    Raises:
        OSError: it cannot be read, or it is another file by now.
    """
    # Not blocking: a FIFO may have taken the name meanwhile.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) \
        | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    file = open(os.open(path, flags), "rb", buffering=0)
    if identify(os.fstat(file.fileno())) != identity:
        file.close()
        raise OSError(errno.ESTALE, "it changed meanwhile")
    return file


def give_back_memory() -> None:
    """Return to the system what was needed for a while only.

    glibc keeps it otherwise: a third of all after this file was compiled,
    20 MiB after 100,000 archives were read, or ever more while large pages
    are made by one thread and another.
    """
    # TypeError: on Windows no library is without a name.
    with contextlib.suppress(ImportError, OSError, AttributeError,
                             TypeError):
        import ctypes  # late: it costs every other start a millisecond
        ctypes.CDLL(None).malloc_trim(0)


def leads_to_hidden(link: str) -> bool:
    """Tell whether a link leads to a dot file, or into a dot directory that
    it does not lie in.
    """
    here = os.path.realpath(os.path.dirname(link)).split(os.sep)
    there = os.path.realpath(link).split(os.sep)
    apart = itertools.dropwhile(
        lambda pair: pair[0] == pair[1],
        itertools.zip_longest(there, here, fillvalue=""))
    return any(part.startswith(".") for part, _ in apart)


def read_text(path: str, identity: Optional[Identity] = None) -> str:
    """Read a companion file; on one line, since headers may carry it.

    Args:
        identity: that it must have; None for any file.
    """
    for _ in range(1 if identity else 100):  # it may be replaced just now
        wanted = identity or look(path)
        if wanted is None:
            break
        with contextlib.suppress(OSError), open_whole(path, wanted) as file:
            data = read_fully(file, COMPANION_LIMIT)
            return " ".join(data.decode("utf-8", "replace").split())
    return ""


def in_memory(file: BinaryIO, size: int) -> BinaryIO:
    """Return a file at its start; a small one is read into memory, since a
    dozen small reads cost more.
    """
    file.seek(0)
    return io.BytesIO(read_fully(file, BLOCK)) if size <= BLOCK else file


def sha256_of(path: str) -> str:
    """Return the digest of a file, "" when it is none or cannot be read."""
    found = {"sha256": make_hash("sha256")}
    identity = look(path)
    if identity is None:  # a FIFO or a device has no end
        return ""
    try:
        with open_whole(path, identity) as file:
            for _ in hashed(file, found):
                pass
    except OSError:
        return ""
    return str(found["sha256"].hexdigest())


def sync_directory(path: str) -> None:
    """Make names in a directory survive a power cut."""
    if os.name == "nt":
        return  # directories cannot be opened there
    descriptor = os.open(path or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_last(path: str) -> None:
    """Sync a file whose upload may have been cut off after its link.

    Raises:
        OSError: it may not last.
    """
    if os.name == "nt":
        return  # a file that is open for reading cannot be synced there
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    sync_directory(os.path.dirname(path))


def remove_files(paths: Iterable[str]) -> List[str]:
    """Remove those that are there; return their paths."""
    removed = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
            removed.append(path)
    for directory in sorted(set(map(os.path.dirname, removed))):
        sync_directory(directory)
    return removed


@contextlib.contextmanager
def set_aside(paths: Iterable[str]) -> Iterator[List[str]]:
    """Remove files, those that are there, unless what follows fails.

    Where it never ends they are gone, as hidden files that nobody needs.

    Yields:
        the paths of those that are removed.
    """
    aside = {}
    try:
        for path in paths:
            hidden = temporary_path(os.path.dirname(path))
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, hidden)
                aside[path] = hidden
        for directory in set(map(os.path.dirname, aside)):
            sync_directory(directory)
        yield list(aside)
    except BaseException:
        for path, hidden in aside.items():
            with contextlib.suppress(OSError):
                os.rename(hidden, path)
        raise
    remove_files(aside.values())


def temporary_path(directory: str) -> str:
    """Return a hidden path that remove_leftovers() knows as ours."""
    return os.path.join(
        directory, f"{TEMPORARY}{os.getpid()}-{os.urandom(8).hex()}")


def lock_file(descriptor: int, wait: bool = False) -> Optional[bool]:
    """Lock a file as long as it is open; False when another process has.

    Returns:
        None where there are no locks: on Windows, where an open file cannot
        be removed instead, and on some network filesystems.
    """
    try:
        import fcntl
        fcntl.flock(descriptor,
                    fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def is_still(path: str, file: BinaryIO) -> bool:
    """Tell whether an open file still has its path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def open_lock(path: str, mode: int) -> BinaryIO:
    """Open a file that is locked and written, and nothing that it links to.

    Raises:
        OSError: it cannot be opened, or is something else than a file.
    """
    for name in "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC":
        mode |= getattr(os, name, 0)
    no_file = OSError(errno.EINVAL, "it is no file", path)
    try:
        descriptor = os.open(path, mode, 0o666)
    except OSError as error:
        raise no_file if error.errno in (errno.EISDIR, errno.ELOOP) else error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise no_file
    return open(descriptor, "rb+" if mode & os.O_RDWR else "rb", buffering=0)


def busy_names() -> HTTPError:
    return HTTPError(503, "another upload takes its time",
                     (("Retry-After", "5"),))


def lock_soon(file: BinaryIO, deadline: float) -> Optional[bool]:
    """Wait for the lock on a file; see lock_file().

    Raises:
        HTTPError: 503 when another process keeps it until the deadline.
    """
    pause = 0.001
    while True:
        is_locked = lock_file(file.fileno())
        if is_locked is not False:
            return is_locked
        if time.monotonic() >= deadline:
            raise busy_names()
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


@functools.lru_cache(maxsize=None)
def holder(process: int) -> bytes:
    """Return what tells a process from others that lock a directory, on this
    host and on others.
    """
    return f"{process} {os.urandom(8).hex()}".encode()


@contextlib.contextmanager
def lock_names(directory: str) -> Iterator[bool]:
    """Let one process at a time give names to uploads in a directory.

    Yields:
        whether another process may have done so since this one did.

    Raises:
        HTTPError: 503 when that takes too long.
    """
    deadline = time.monotonic() + LOCK_PATIENCE
    turn = NAMING.setdefault(directory, threading.Lock())
    if not turn.acquire(timeout=LOCK_PATIENCE):
        raise busy_names()
    try:
        with lock_directory(directory, deadline) as others_came:
            yield others_came
    finally:
        turn.release()


@contextlib.contextmanager
def lock_directory(directory: str, deadline: float) -> Iterator[bool]:
    """Do what lock_names() does, for a process with a single thread.

    The file that is locked has the mark of its last holder, so that the
    names need not be listed again for each of many uploads.
    """
    path = os.path.join(directory, ".lock")
    mark = holder(os.getpid())
    while True:
        try:
            file, is_ours = open_lock(path, os.O_RDWR | os.O_CREAT), True
        except PermissionError:
            if not os.path.exists(path):
                raise
            # Of another user: it goes when it was used, as none can mark it.
            file, is_ours = open_lock(path, os.O_RDONLY), False
        with file:
            is_locked = lock_soon(file, deadline)
            # The last holder removed it: others may lock a new one by now.
            if is_locked and not is_still(path, file):
                continue
            file.seek(0)
            is_known = bool(is_locked) and file.read(100) == mark
            if is_ours and not is_known:
                file.seek(0)
                file.truncate()
                file.write(mark)
                # A network filesystem then shows its names as they are.
                os.utime(directory)
            try:
                yield not is_known
            finally:
                if not is_ours:
                    # Where it stays, the names are listed once more.
                    with contextlib.suppress(OSError):
                        os.unlink(path)
            return


def move_new(path: str, final: str) -> None:
    """Give a file a name that is free, in one step.

    Raises:
        FileExistsError: it is taken.
    """
    if os.name == "nt":
        os.rename(path, final)  # refuses a name that is taken
        return
    try:
        os.link(path, final)
    except FileExistsError:
        raise
    except (OSError, AttributeError) as error:  # some have no link()
        if getattr(error, "errno", errno.ENOSYS) not in WITHOUT_LINKS:
            raise
        # Whoever calls this has locked the directory, see lock_names().
        if os.path.lexists(final):
            raise FileExistsError(
                errno.EEXIST, "it exists", final) from None
        os.rename(path, final)
    else:
        os.unlink(path)


class Incoming:
    """A file on its way into a directory, hidden until it is complete.

    It lies in the directory where it will end, so that giving it its name
    is one step, and the disk that is full is the right one.
    """

    def __init__(self, directory: str) -> None:
        self.size = 0  # bytes
        self.handed_over = 0  # of them
        self.is_placed = False
        self.hashes = {"sha256": make_hash("sha256")}
        self.path = temporary_path(directory)
        self.file = open(os.open(
            self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL
            | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0),
            0o666), "r+b", buffering=0)
        lock_file(self.file.fileno())

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:  # a disk that is nearly full takes a part
            view = view[self.file.write(view):]
        self.size += len(data)
        for found in self.hashes.values():
            found.update(data)
        if self.size - self.handed_over >= HAND_OVER:
            self.hand_over()

    def hand_over(self) -> None:
        """Let the system begin to write; sync() has less to wait for then.
        """
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):  # that is only advice
                os.posix_fadvise(
                    self.file.fileno(), self.handed_over,
                    self.size - self.handed_over, os.POSIX_FADV_DONTNEED)
        self.handed_over = self.size

    def digest(self, algorithm: str) -> str:
        """Return a digest in hex; read again for one not begun in time."""
        if algorithm not in self.hashes:
            found = {algorithm: make_hash(algorithm)}
            self.file.seek(0)
            for _ in hashed(self.file, found):
                pass
            self.hashes.update(found)
        return str(self.hashes[algorithm].hexdigest())

    def sync(self) -> None:
        """Wait until the content is on the disk."""
        os.fsync(self.file.fileno())
        if os.name == "nt":
            self.file.close()  # an open file keeps its name there

    def place(self, final: str, overwrite: bool) -> Identity:
        """Give the file its path, in one step.

        It lasts once its directory is synced.

        Raises:
            FileExistsError: that path is taken, and no `overwrite`.
        """
        if overwrite:
            os.replace(self.path, final)
        else:
            move_new(self.path, final)
        self.is_placed = True
        return identify(os.stat(final))

    def close(self) -> None:
        """Remove the file, unless it has got its name."""
        self.file.close()
        if not self.is_placed:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


# === 16  Cache ==============================================================

# seconds; the cache is worth no longer wait for another server's writing
BUSY_TIMEOUT = 0.2
BUSY_PAUSE = 5.0  # seconds until a cache that could not be opened is tried


class Recent(Generic[Value]):
    """Keeps the values that were put last, up to a total weight."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.weight = 0
        self.found: Dict[Any, Tuple[Value, int]] = {}
        self.lock = threading.Lock()

    def get(self, key: Any) -> Optional[Value]:
        entry = self.found.get(key)
        return entry[0] if entry else None

    def put(self, key: Any, value: Value, weight: int) -> None:
        with self.lock:
            if key in self.found:
                self.weight -= self.found.pop(key)[1]
            self.found[key] = value, weight
            self.weight += weight
            # Dictionaries keep the order of insertion: the oldest go.
            while self.weight > self.limit and len(self.found) > 1:
                self.weight -= self.found.pop(next(iter(self.found)))[1]


def parse_identity(text: str) -> Identity:
    return Identity(*map(int, json.loads(text)))


def parse_digests(text: str) -> Dict[str, str]:
    """Parse what FactCache wrote; ValueError when it did not."""
    found = json.loads(text)
    if not isinstance(found, dict) or not all(
            re.fullmatch("(?:[0-9a-f]{2})+", str(digest))
            for digest in found.values()):
        raise ValueError(text)
    return found


class FactCache:
    """Facts by path and identity, in a file that may be lost any time.

    Every error of the database makes it a cache in memory: nothing but
    time depends on it.
    """

    # Other columns, or other facts in them, are another file.
    VERSION = 1
    SCHEMA = ("CREATE TABLE IF NOT EXISTS facts (path TEXT PRIMARY KEY, "
              "identity TEXT, problem TEXT, digests TEXT, "
              "metadata_digest TEXT, requires_python TEXT, summary TEXT)")

    def __init__(self, directory: Optional[str]) -> None:
        self.directory = directory
        self.lock = threading.Lock()
        self.waiting: Dict[str, Tuple[Identity, Facts]] = {}
        self.database: Any = None
        self.opened = False
        self.open_at = 0.0  # monotonic: not before that

    @property
    def is_private(self) -> bool:
        """Whether other workers cannot see what is in it."""
        return self.directory is None

    def connect(self, directory: Optional[str]) -> Any:
        """Open the database of a directory, or one in memory for None."""
        try:
            import sqlite3  # late: some builds of Python are without
        except ImportError:
            self.directory = None
            return None
        where = ":memory:"
        if directory is not None:
            where = os.path.join(directory, f"facts-{self.VERSION}.sqlite3")
        database = None
        try:
            if directory is not None:
                os.makedirs(directory, mode=0o700, exist_ok=True)
            # In one database per user, several servers take turns.
            database = sqlite3.connect(
                where, timeout=BUSY_TIMEOUT, check_same_thread=False)
            with contextlib.suppress(sqlite3.Error):  # readers need not wait
                database.execute("PRAGMA journal_mode=WAL").close()
            database.execute(self.SCHEMA)
            # It may be lost, so there is no need to wait for the disk.
            database.execute("PRAGMA synchronous=OFF")
            return database
        except (sqlite3.Error, OSError) as error:
            if database is not None:
                database.close()
            if "locked" in str(error):  # another server is at work in it
                self.opened = False
                self.open_at = time.monotonic() + BUSY_PAUSE
                return None
            LOG.warning("digests are kept in memory only: %s: %s; choose "
                        "another directory with --cache-dir", where, error)
            self.directory = None
            return self.connect(None) if directory is not None else None

    def open(self) -> None:
        # Late: a connection does not survive the fork of a worker.
        if not self.opened and time.monotonic() >= self.open_at:
            self.opened = True
            self.database = self.connect(self.directory)

    def get(self, paths: Sequence[str]) -> Dict[str, Tuple[Any, Facts]]:
        """Return {path: (identity, facts)} of those that are known."""
        with self.lock:
            self.open()
            found = {path: self.waiting[path] for path in paths
                     if path in self.waiting}
            for at in range(0, len(paths), 500):  # SQLite takes 999 at once
                found.update(self.select(paths[at:at + 500]))
        return found

    def select(self, paths: Sequence[str]
               ) -> Dict[str, Tuple[Any, Facts]]:
        marks = ",".join("?" * len(paths))
        query = f"SELECT * FROM facts WHERE path IN ({marks})"  # noqa: S608
        found = {}
        for path, identity, problem, digests, *rest in self.execute(
                query, paths) or ():
            if path not in self.waiting:
                # It may be corrupt, in any way.
                with contextlib.suppress(
                        ValueError, TypeError, RecursionError):
                    found[path] = parse_identity(identity), Facts(
                        str(problem), parse_digests(digests), *map(str, rest))
        return found

    def put(self, path: str, identity: Identity, facts: Facts) -> None:
        """Remember facts; they reach the file with the next flush()."""
        with self.lock:
            self.waiting[path] = identity, facts

    def forget(self, root: str, there: AbstractSet[str]) -> None:
        """Remove the facts of files below a root that are gone."""
        with self.lock:
            self.open()
            # "0" comes next after "/".
            rows = self.execute(
                "SELECT path FROM facts WHERE path > ? AND path < ?",
                (root + "/", root + "0"))
            # Another server may serve what is hidden from this one.
            gone = [path for path, in rows or ()
                    if path not in there and not os.path.lexists(path)]
            self.write("DELETE FROM facts WHERE path = ?",
                       [(path,) for path in gone])

    def write(self, statement: str, rows: Sequence[Tuple[str, ...]]) -> bool:
        """Execute for each row, all or nothing; False for nothing."""
        if not rows:
            return False
        if all(self.execute(statement, row) is not None for row in rows) \
                and self.execute("COMMIT") is not None:
            return True
        if self.database is not None:
            self.database.rollback()
        return False

    def flush(self) -> None:
        """Write what waits; it goes on waiting while others write."""
        with self.lock:
            if self.waiting:
                self.open()
            if self.database is None:
                return
            rows = [(path, json.dumps(identity), facts.problem,
                     json.dumps(facts.digests)) + facts[2:]
                    for path, (identity, facts) in self.waiting.items()]
            if self.write("REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?, ?)",
                          rows):
                self.waiting.clear()

    def execute(self, statement: str, values: Iterable[str] = ()
                ) -> Optional[List[Any]]:
        """Return the rows; None when there was an error."""
        if self.database is None:
            return None
        try:
            return list(self.database.execute(statement, tuple(values)))
        except Exception as error:  # sqlite3.Error; corrupt rows
            if "locked" not in str(error):
                LOG.warning("digests are kept in memory only: %s", error)
                self.database.close()
                self.database = self.directory = None
            return None

    def close(self) -> None:
        self.flush()
        with self.lock:
            if self.database is not None:
                self.database.close()
                self.database = None


# === 17  Tree ===============================================================

# A directory may change again within the tick of its own time stamp, so it
# is listed again until the stamp has been seen for this long ...
RACY = 2.1
# ... for certain after this long, where times are finer than a second ...
TICK = 0.05
# ... but not where the stamp is older than any wrong clock would make it.
LONG_AGO = 60


# Why a name does not count.
NO_FILE = "it is no file; links are followed to files only"
TO_HIDDEN = "it is a link to something hidden"
# What filesystems keep at their top for themselves, closed to others.
SYSTEM_FOLDERS = ("lost+found", "System Volume Information", "$RECYCLE.BIN")


class Listing(NamedTuple):
    """A directory as it was last listed."""

    stamp: Tuple[int, int, int]  # mtime_ns, ctime_ns, inode
    since: float           # monotonic; when this stamp was first seen
    listed: float          # monotonic
    names: FrozenSet[str]  # of files
    folders: Tuple[str, ...]
    broken: Tuple[str, ...]  # paths of links that lead nowhere


def stamp_of(found: os.stat_result) -> Tuple[int, int, int]:
    # rsync and tar set the modification time back when they are done.
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def is_final(listing: Listing, racy: float) -> bool:
    """Tell whether a listing has all that its time stamp stands for."""
    return listing.listed - listing.since > racy \
        or time.time() - max(listing.stamp[:2]) / 1e9 > LONG_AGO


class Snapshot(NamedTuple):
    """What lies in the package directories, by name; never changed."""

    archives: Dict[str, Archive]               # by filename
    projects: Dict[str, Tuple[Archive, ...]]   # by normalized name
    companions: FrozenSet[str]                 # paths
    statuses: Dict[str, Tuple[Tuple[int, str], ...]]  # (root's place, path)
    unreadable: str                            # why a root cannot be served
    closed: Dict[str, str]  # folders that cannot be read, and why
    # Another one for other names: who must know later whether they changed
    # keeps this, not all the names of that moment.
    mark: object = None

    def hidden(self) -> str:
        """Return what keeps this from being all there is, "" if it is."""
        return self.unreadable or ", ".join(
            f"{path}: {problem}" for path, problem in self.closed.items())


class Draft:
    """The next snapshot, while it is made out of the last one.

    A filename is served once: from the directory that comes first, by the
    order of the roots and then by name.  The others wait in its shadow.
    """

    def __init__(self, last: Snapshot, order: Mapping[str, int],
                 shadowed: Dict[str, List[Archive]]) -> None:
        self.last = last
        self.order = order
        self.shadowed = shadowed
        self.archives = dict(last.archives)
        self.companions = set(last.companions)
        self.statuses = dict(last.statuses)
        self.changed: Dict[str, Dict[str, Archive]] = {}  # projects
        self.meant: Set[str] = set()  # projects, by names of no archive

    def add(self, root: str, directory: str, name: str) -> None:
        if name.endswith(COMPANIONS):
            self.companions.add(f"{root}/{directory}{name}")
            self.touch(name)
        elif name.endswith(STATUS):
            project = normalize(name[:-len(STATUS)])
            self.statuses[project] = tuple(sorted({
                *self.statuses.get(project, ()),
                (self.order[root], f"{root}/{directory}{name}")}))
            self.touch(name)
        else:
            parsed = parse_filename(name)
            if parsed:
                self.add_archive(Archive(root, directory, name, *parsed))
                return
        if name.rpartition(".")[0] not in self.archives:
            self.meant.add(project_meant(name))

    def add_archive(self, archive: Archive) -> None:
        other = self.archives.get(archive.filename)
        if other == archive:
            return
        if other is not None:
            archive, loser = sorted((archive, other), key=self.place)
            LOG.warning("%s is not served: %s comes first", loser.path,
                        archive.path)
            self.shadowed.setdefault(loser.filename, []).append(loser)
        self.archives[archive.filename] = archive
        self.members(archive.project)[archive.filename] = archive

    def remove(self, root: str, directory: str, name: str) -> None:
        path = f"{root}/{directory}{name}"
        self.companions.discard(path)
        self.touch(name)
        if name.endswith(STATUS):
            project = normalize(name[:-len(STATUS)])
            self.statuses[project] = tuple(
                entry for entry in self.statuses[project] if entry[1] != path)
        shadowed = [archive for archive in self.shadowed.pop(name, ())
                    if archive.path != path]
        archive = self.archives.get(name)
        if archive is not None and archive.path == path:
            del self.archives[name]
            del self.members(archive.project)[name]
        for other in shadowed:
            self.add_archive(other)

    def touch(self, name: str) -> None:
        """Let the project that a companion is about count as changed."""
        archive = self.archives.get(name.rpartition(".")[0])
        project = archive.project if archive else normalize(
            name[:-len(STATUS)])
        if project in self.last.projects:
            self.members(project)

    def place(self, archive: Archive) -> Tuple[int, str]:
        return self.order[archive.root], archive.directory

    def members(self, project: str) -> Dict[str, Archive]:
        """Return the archives of a project, by filename, to be changed."""
        if project not in self.changed:
            self.changed[project] = {
                archive.filename: archive
                for archive in self.last.projects.get(project, ())}
        return self.changed[project]

    def finish(self) -> Snapshot:
        projects = dict(self.last.projects)
        for name, members in self.changed.items():
            if members:
                projects[name] = tuple(members.values())
            else:
                projects.pop(name, None)
        return self.last._replace(
            archives=self.archives, projects=projects, mark=object(),
            companions=frozenset(self.companions), statuses=self.statuses)


def entry_problem(entry: "os.DirEntry[str]") -> str:
    """Return why a name in a directory counts for nothing, or ""."""
    if not entry.name.isprintable():  # nor valid UTF-8, perhaps
        return "its name has characters that cannot be shown"
    if entry.is_dir(follow_symlinks=False):
        return ""
    try:
        is_file = entry.is_file()
    except OSError:  # a link to itself, for example
        is_file = False
    if not is_file:
        return NO_FILE
    if entry.is_symlink() and leads_to_hidden(entry.path):
        return TO_HIDDEN
    return ""


class Tree:
    """The names in the package directories, as of the last refresh.

    How it works: the time stamp of a directory changes whenever a name in
    it comes or goes, so a refresh looks at directories and lists only those
    that changed; what changes inside a file is not its concern.
    """

    def __init__(self, roots: Sequence[str]) -> None:
        self.order = {root: place for place, root in enumerate(roots)}
        self.listings: Dict[Tuple[str, str], Listing] = {}
        self.shadowed: Dict[str, List[Archive]] = {}
        self.snapshot = Snapshot({}, {}, frozenset(), {}, "", {})
        # By directory: {name: what is wrong with it}.
        self.reported: Dict[str, Dict[str, str]] = {}
        self.seen: Set[str] = set()  # all projects that any name ever meant

    def refresh(self) -> None:
        """Make the snapshot agree with the disk.

        A root that cannot be read takes nothing away: an index that is
        suddenly empty would send clients elsewhere.
        """
        listings: Dict[Tuple[str, str], Listing] = {}
        closed: Dict[str, str] = {}
        try:
            for root in self.order:
                self.walk(root, listings, closed)
        except OSError as error:
            unreadable = f"{error.filename}: {error.strerror}"
            if unreadable != self.snapshot.unreadable:
                LOG.error("a package directory cannot be read: %s",
                          unreadable)
                self.snapshot = self.snapshot._replace(unreadable=unreadable)
            return
        nothing: FrozenSet[str] = frozenset()
        changes = []
        for key in {**self.listings, **listings}:
            before = self.listings[key].names if key in self.listings \
                else nothing
            now = listings[key].names if key in listings else nothing
            if before is not now:
                changes.append((key, before - now, now - before))
        for root, directory in self.listings.keys() - listings.keys():
            self.reported.pop(f"{root}/{directory}", None)
        self.listings = listings
        if self.snapshot.unreadable or self.snapshot.closed != closed:
            self.snapshot = self.snapshot._replace(
                unreadable="", closed=closed)
        if changes:
            self.change(changes)

    def change(self, changes: Iterable[Tuple[
            Tuple[str, str], AbstractSet[str], AbstractSet[str]]]) -> None:
        """Make the next snapshot: ((root, directory), removed, added)."""
        draft = Draft(self.snapshot, self.order, self.shadowed)
        for (root, directory), removed, added in changes:
            for name in removed:
                draft.remove(root, directory, name)
            for name in sorted(added):
                draft.add(root, directory, name)
        self.seen.update(draft.changed, draft.meant)
        self.snapshot = draft.finish()

    def patch(self, root: str, directory: str, added: FrozenSet[str],
              removed: FrozenSet[str]) -> None:
        """Make a change known before the next refresh finds it."""
        known = self.listings.get((root, directory))
        if known is not None:
            # Among 100,000 names each copy takes some milliseconds.
            names = known.names | added if added else known.names
            self.listings[root, directory] = known._replace(
                names=names - removed if removed else names)
            self.change([((root, directory), removed & known.names,
                          added - known.names)])

    def walk(self, root: str, listings: Dict[Tuple[str, str], Listing],
             closed: Dict[str, str]) -> None:
        """Add the listings of a root, and the folders that have none."""
        listings[root, ""] = self.listing(root, "")
        queue = [""]
        while queue:
            directory = queue.pop()
            for folder in listings[root, directory].folders:
                below = f"{directory}{folder}/"
                if f"{root}/{directory}{folder}" in self.order:
                    continue  # it has its turn by itself
                try:
                    listings[root, below] = self.listing(root, below)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except OSError as error:
                    closed[f"{root}/{below}"] = str(error.strerror)
                    self.report(f"{root}/{below}", {"": str(error.strerror)})
                    if (root, below) not in self.listings:
                        continue
                    # What was in it is still local, see promise 6.
                    listings[root, below] = self.listings[root, below]
                queue.append(below)

    def listing(self, root: str, directory: str) -> Listing:
        """Return the listing of a directory, read anew if it changed."""
        path = f"{root}/{directory}"
        found = os.stat(path)
        stamp = stamp_of(found)
        known = self.listings.get((root, directory))
        listed = since = time.monotonic()
        if known and known.stamp == stamp:
            # What a link leads to comes and goes without a trace here.
            if is_final(known, RACY) \
                    and not any(map(os.path.exists, known.broken)):
                return known
            since = known.since
        names, folders, broken = self.scan(path)
        if known and known.names == names:
            names = known.names
        return Listing(stamp, since, listed, names, folders, broken)

    def is_current(self, root: str) -> bool:
        """Tell, at the cost of one look, whether a root has no new names.

        What comes and goes below it is not looked at.
        """
        known = self.listings.get((root, ""))
        try:
            stamp = stamp_of(os.stat(root))
        except OSError:
            return False
        is_coarse = stamp[1] % 10 ** 9 == 0
        return known is not None and known.stamp == stamp \
            and is_final(known, RACY if is_coarse else TICK)

    def scan(self, path: str
             ) -> Tuple[FrozenSet[str], Tuple[str, ...], Tuple[str, ...]]:
        """List one directory: files, directories and broken links.

        Links to files are followed, links to directories are not.
        """
        names, folders, broken = [], [], []
        problems = {}
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(".") or name in SYSTEM_FOLDERS:
                    continue
                problem = entry_problem(entry)
                if problem:
                    self.seen.add(project_meant(name))
                    problems[name if name.isprintable() else ascii(name)] = \
                        problem
                    if problem == NO_FILE and not os.path.exists(entry.path):
                        broken.append(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                else:
                    names.append(name)
        self.report(path, problems)
        return frozenset(names), tuple(folders), tuple(broken)

    def report(self, directory: str, problems: Mapping[str, str]) -> None:
        """Log what is wrong in a directory now and was not before."""
        before = self.reported.pop(directory, {})
        for name, problem in problems.items():
            if name not in before:
                LOG.warning("%s%s is not served: %s", directory, name,
                            problem)
        if problems:
            self.reported[directory] = dict(problems)

    def problems(self) -> List[Tuple[str, str]]:
        """Return what is not served, and why: (path, problem)."""
        return [(directory + name, problem)
                for directory, problems in list(self.reported.items())
                for name, problem in problems.items()]


# === 18  Reading ============================================================

UNSETTLED = "it is still being written"  # why a file is withheld
# seconds until a file that could not be read is tried again, twice as many
# each time
RETRY_FIRST = 1.0
RETRY_LATEST = 60.0
READERS = 8  # threads that read the archives of one project
READ_ALONE = 16 * 1024 ** 2  # bytes for which other threads do not pay ...
READ_ALONE_EACH = 256 * 1024  # ... and the same for an archive on average


def together(function: Callable[[Any], Value], arguments: Sequence[Any],
             others: int) -> List[Value]:
    """Call a function for each argument, with the help of other threads.

    They are daemons: a process that ends does not wait for them.
    """
    waiting = collections.deque(enumerate(arguments))
    results: Dict[int, Value] = {}

    def work() -> None:
        while True:
            try:
                place, argument = waiting.popleft()
            except IndexError:
                return
            results[place] = function(argument)
    threads = [threading.Thread(target=work, daemon=True)
               for _ in range(min(others, len(arguments) - 1))]
    with contextlib.suppress(RuntimeError):  # there are no more threads
        for thread in threads:
            thread.start()
    work()
    for thread in threads:
        if thread.ident is not None:
            thread.join()
    return [results[place] if place in results else function(argument)
            for place, argument in enumerate(arguments)]


class Reader:
    """Reads archives, each once for as long as it stays the same."""

    def __init__(self, cache: FactCache, secrets: Iterable[str] = ()
                 ) -> None:
        self.cache = cache
        self.secrets = tuple(secrets)  # paths that no name may lead to
        # Files that have not settled: identity, and when it was first seen.
        self.changing: Dict[str, Tuple[Identity, float]] = {}
        # Those that could not be read: identity, until when they are left
        # alone (monotonic), for how many seconds.
        self.failed: Dict[str, Tuple[Identity, float, float]] = {}
        self.problems: Dict[str, str] = {}  # logged already, by path
        self.sharing = threading.Lock()  # held while other cores help

    def forbidden(self, path: str, identity: Identity) -> str:
        """Return why nobody may see what a name leads to, "" if they may.

        What it links to may have changed since its name was found.
        """
        if identity in map(look, self.secrets):
            return "it holds passwords or a private key"
        if os.path.islink(path) and leads_to_hidden(path):
            return TO_HIDDEN
        return ""

    def settles_in(self, path: str, identity: Identity,
                   known: Mapping[str, Tuple[Any, Facts]]) -> float:
        """Return for how many seconds a file must still stay as it is.

        Where clocks agree, its age tells.  Where they do not (a file server
        with another time, a time stamp in the future), a file that is seen
        unchanged for long enough has settled too.
        """
        if path in known and known[path][0] == identity:
            return 0.0
        need = settling_time(identity)
        changed = max(identity.mtime_ns, identity.ctime_ns) / 1e9
        age = time.time() - changed
        if age >= need:
            self.changing.pop(path, None)
            return 0.0
        now = time.monotonic()
        first = self.changing.get(path)
        if first is None or first[0] != identity:
            self.changing[path] = first = identity, now
        rest = first[1] + need - now
        return min(rest, need - age) if age > 0 else rest

    def pause(self, path: str, identity: Optional[Identity],
              known: Mapping[str, Tuple[Any, Facts]]) -> float:
        """Return for how many seconds it is worth to wait for a file.

        A client that comes just after a file was replaced waits a moment
        rather than find none; for one that is seen growing nobody waits.
        """
        before = self.changing.get(path)
        if identity is None:
            return 0.0
        rest = self.settles_in(path, identity, known)
        return 0.0 if before and before[0] != identity else rest

    def all_facts(self, sights: Sequence[Tuple[Any, ...]],
                  known: Mapping[str, Tuple[Any, Facts]],
                  algorithms: FrozenSet[str]) -> List[Tuple[Facts, bool]]:
        """Return facts() of many files; large ones are hashed on all cores.

        Args:
            sights: see Directories.look_at().
        """
        def facts(sight: Tuple[Any, ...]) -> Tuple[Facts, bool]:
            return self.facts(sight[0], sight[1], known, algorithms)
        unread = sum(identity.size for archive, identity, *_ in sights
                     if identity and (archive.path not in known or
                                      known[archive.path][0] != identity))
        others = min(os.cpu_count() or 1, READERS) - 1
        # Small ones are Python's work, which is that of one core, and some
        # take too much memory to be unpacked side by side.
        if unread > READ_ALONE and unread > len(sights) * READ_ALONE_EACH \
                and not any(sight[0].filename.endswith(("xz", "bz2"))
                            for sight in sights) \
                and self.sharing.acquire(blocking=False):
            try:
                return together(facts, sights, others)
            finally:
                self.sharing.release()
        return list(map(facts, sights))

    def facts(self, archive: Archive, identity: Optional[Identity],
              known: Mapping[str, Tuple[Any, Facts]],
              algorithms: FrozenSet[str]) -> Tuple[Facts, bool]:
        """Return the facts of a file, and whether they are final."""
        if identity is None:
            return withheld("it cannot be looked at"), True
        path = archive.path
        problem = self.forbidden(path, identity)
        if problem:
            self.note(path, problem)
            return withheld(problem), True
        if path in known and known[path][0] == identity:
            facts = known[path][1]
            if facts.problem or algorithms <= facts.digests.keys():
                self.note(path, facts.problem)
                return facts, True
        if self.settles_in(path, identity, known) > 0:
            return withheld(UNSETTLED), False
        failed = self.failed.get(path)
        if failed and failed[0] == identity and time.monotonic() < failed[1]:
            return withheld(self.problems.get(path, "it cannot be read")), \
                False
        try:
            facts = self.read(archive, identity, algorithms)
        except OSError as error:
            problem = f"it cannot be read: {error.strerror or error}"
            # A disk that fails takes long to say so.
            pause = min(2 * failed[2], RETRY_LATEST) \
                if failed and failed[0] == identity else RETRY_FIRST
            self.failed[path] = identity, time.monotonic() + pause, pause
            self.note(path, problem)
            return withheld(problem), False
        self.failed.pop(path, None)
        self.note(path, facts.problem)
        self.cache.put(path, identity, facts)
        return facts, True

    def read(self, archive: Archive, identity: Identity,
             algorithms: Iterable[str]) -> Facts:
        """Read a file that stays the same from beginning to end.

        Raises:
            OSError: it cannot be read, or it changed meanwhile.
        """
        with open_whole(archive.path, identity) as file:
            facts = read_archive(
                in_memory(file, identity.size), archive, algorithms)
            if identify(os.fstat(file.fileno())) != identity:
                raise OSError(errno.ESTALE, "it changed meanwhile")
        return facts

    def note(self, path: str, problem: str) -> None:
        """Log once why a file is withheld, and once that it is no more."""
        if problem and self.problems.get(path) != problem:
            self.problems[path] = problem
            LOG.warning("%s is not served: %s", path, problem)
        elif not problem and path in self.problems:
            del self.problems[path]
            LOG.warning("%s is whole now, and served", path)

    def forget(self, snapshot: Snapshot) -> None:
        """Forget what was noted about files that are gone."""
        there = snapshot.companions.union(
            path for paths in snapshot.statuses.values()
            for _, path in paths)
        noted: Tuple[Dict[str, Any], ...] = (
            self.changing, self.failed, self.problems)
        for found in noted:
            for path in list(found):
                archive = snapshot.archives.get(path.rpartition("/")[2])
                if path not in there and (
                        archive is None or archive.path != path):
                    found.pop(path, None)

    def metadata(self, file: File) -> bytes:
        """Return the core metadata of an archive, b"" when it has none.

        Raises:
            HTTPError: 503 when the file changed since it was looked at.
        """
        try:
            with open_whole(file.archive.path, file.identity) as stream:
                return read_metadata(stream, file.archive, {}) or b""
        except Exception:  # it was whole: so it is another by now
            raise HTTPError(503, f"{file.archive.filename} is changing",
                            (("Retry-After", "1"),))


# === 19  Directories ========================================================

CHECK_INTERVAL = 0.3  # seconds that an answer may be older than the disk
SLOW_INTERVAL = 0.7   # the same where it takes long to look
# Files whose answers are kept in memory; each costs about 1 KiB with its
# share of the rendered pages.
KEEP_FILES = 20000


def next_look(started: float) -> float:
    """Return when (monotonic) to look again after a look that has just ended.

    A slow disk is asked less often.
    """
    now = time.monotonic()
    return now + max(CHECK_INTERVAL, min(5 * (now - started), SLOW_INTERVAL))


def status_problem(word: str) -> str:
    """Return what is wrong with the first word of a status file, or ""."""
    return "" if word.lower() in STATUSES else (
        f"its first word must be one of {', '.join(STATUSES)}, "
        f"not {word[:WORDS_LIMIT]!r}")


class Changes:
    """Counts what workers change, in memory that they share.

    Each has a place of its own there, so that none needs a lock.
    """

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 8)
        self.place = 0
        self.lock = threading.Lock()  # of the threads of one worker

    def share(self, workers: int) -> None:
        """Make room for workers; called before they are forked."""
        self.memory = mmap.mmap(-1, 8 * workers)

    def seen(self) -> bytes:
        """Return what differs after each change."""
        return self.memory[:]

    def others(self) -> bytes:
        """Return what differs after each change by another worker."""
        memory = self.memory[:]
        return memory[:8 * self.place] + memory[8 * self.place + 8:]

    def note(self) -> None:
        with self.lock:
            count, = struct.unpack_from("Q", self.memory, 8 * self.place)
            struct.pack_into("Q", self.memory, 8 * self.place, count + 1)


class State(NamedTuple):
    """A project, and what makes it out of date."""

    project: Project
    files: Dict[str, File]  # those of the project, by filename
    mark: object            # of the snapshot
    seen: Tuple[Any, ...]   # identities of all that it was made from
    until: float            # monotonic; it is right at least so long
    settled: bool           # nothing in it is still to be read
    algorithms: FrozenSet[str]  # of the digests that its files have


class Directories:
    """The package directories: what is in them, whole and up to date.

    How it works: three layers, each made from the one before only when that
    changed.  The tree has the names.  A state has what pages show of one
    project; it holds for CHECK_INTERVAL, then the identities of its files
    are compared.  Facts, which take reading a file, are kept by identity.
    """

    def __init__(self, roots: Sequence[str], cache: FactCache,
                 algorithms: Iterable[str], secrets: Iterable[str] = ()
                 ) -> None:
        self.roots = roots
        self.tree = Tree(roots)
        self.reader = Reader(cache, secrets)
        self.algorithms = frozenset(algorithms)
        self.states: Recent[State] = Recent(KEEP_FILES)
        self.briefs: Dict[str, Brief] = {}  # of projects that were examined
        self.noted = object()  # another one with each change of them
        self.lock = threading.Lock()  # held to change the tree
        self.check_at = 0.0           # monotonic
        self.changes = Changes()
        self.known = self.changes.others()  # when the tree was looked at
        self.counting = threading.Lock()
        # By key: a lock, and how many threads hold it or wait for it.
        self.locks: Dict[str, Tuple[threading.Lock, int]] = {}

    # The names

    def fresh(self) -> Snapshot:
        """Return a snapshot that is at most a moment older than the disk.

        One thread at a time looks; the others go on with what there is,
        unless another worker changed it.
        """
        must = self.must_look()
        if (must or time.monotonic() >= self.check_at) \
                and self.lock.acquire(blocking=must):
            try:
                if not must or self.must_look():
                    self.look_again()
            finally:
                self.lock.release()
        return self.tree.snapshot

    def must_look(self) -> bool:
        """Tell whether what there is must not be used any more."""
        return not self.check_at or self.known != self.changes.others()

    def look_again(self) -> None:
        started = time.monotonic()
        known = self.changes.others()
        self.tree.refresh()
        if known != self.known:
            self.known = known
            self.tree.change(())  # files may have been replaced
        self.check_at = next_look(started)

    def catch_up(self) -> None:
        """See at once what processes without shared memory have changed.

        They leave a mark, see changed(); what is put into directories by
        hand shows a moment later, as always.
        """
        if not self.tree.is_current(self.roots[0]):
            with self.lock:
                self.tree.refresh()
                self.tree.change(())  # files may have been replaced

    def index(self) -> Snapshot:
        """Return a snapshot that is complete.

        Raises:
            HTTPError: 503 while a package directory cannot be read.
        """
        snapshot = self.fresh()
        if snapshot.unreadable:
            raise HTTPError(
                503, "a package directory cannot be read at the moment",
                (("Retry-After", "5"),))
        return snapshot

    def whole(self) -> Snapshot:
        """Return a snapshot that tells also what is not here.

        Raises:
            HTTPError: 503 while any folder cannot be read.
        """
        snapshot = self.index()
        if snapshot.closed:
            raise HTTPError(
                503, "a folder of a package directory cannot be read at the "
                "moment", (("Retry-After", "5"),))
        return snapshot

    def refresh(self) -> None:
        """Make the snapshot agree with the disk as it is now."""
        with self.lock:
            self.look_again()

    def find(self, location: str) -> Optional[Archive]:
        """Return the archive at a path below /packages/."""
        archive = self.index().archives.get(location.rpartition("/")[2])
        return archive if archive and archive.location == location else None

    # The projects

    def project(self, name: str, algorithms: Iterable[str] = ()
                ) -> Optional[Project]:
        """Return a project with all files that are whole.

        Args:
            name: normalized.
            algorithms: of digests that are needed besides the usual.

        Returns:
            None when there is no file of that project, whole or not.

        Raises:
            HTTPError: 503 while a package directory cannot be read.
        """
        snapshot = self.index()
        if name not in snapshot.projects:
            return None
        return self.state(name, snapshot, self.algorithms.union(
            algorithms)).project

    def state(self, name: str, snapshot: Snapshot,
              algorithms: FrozenSet[str]) -> State:
        def is_right(state: Optional[State]) -> bool:
            return state is not None and state.mark is snapshot.mark \
                and time.monotonic() < state.until \
                and algorithms <= state.algorithms
        state = self.states.get(name)
        if state is None or not is_right(state):
            with self.alone(name):
                state = self.states.get(name)
                if state is None or not is_right(state):
                    state = self.examine(name, snapshot, algorithms, state)
                    self.states.put(name, state, len(state.files) + 1)
        return state

    @contextlib.contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Let one thread at a time do what many may have asked for."""
        with self.counting:
            lock, count = self.locks.get(key, (threading.Lock(), 0))
            self.locks[key] = lock, count + 1
        try:
            with lock:
                yield
        finally:
            with self.counting:
                lock, count = self.locks.pop(key)
                if count > 1:
                    self.locks[key] = lock, count - 1

    def examine(self, name: str, snapshot: Snapshot,
                algorithms: FrozenSet[str], last: Optional[State]) -> State:
        """Look at every file of a project, and read those that changed."""
        until = time.monotonic() + CHECK_INTERVAL
        archives = snapshot.projects[name]
        seen = self.look_at(name, snapshot)
        if last and last.settled and last.seen == seen \
                and algorithms <= last.algorithms:
            if not self.is_noted(name, archives):  # see changed()
                self.note(brief_of(last.project, archives))
            return last._replace(mark=snapshot.mark, until=until)
        known = self.reader.cache.get([archive.path for archive in archives])
        pause = max(self.reader.pause(archive.path, identity, known)
                    for archive, identity, *_ in seen[:len(archives)])
        if pause > 0:
            time.sleep(pause)
            until = time.monotonic() + CHECK_INTERVAL
            seen = self.look_at(name, snapshot)
        files: List[File] = []
        refused: List[Tuple[str, str]] = []
        settled = True
        sights = seen[:len(archives)]
        for sight, (facts, final) in zip(sights, self.reader.all_facts(
                sights, known, algorithms)):
            archive, identity, yanked, signed, provenance = sight
            settled = settled and final
            if facts.problem:
                refused.append((archive.filename, facts.problem))
            else:
                files.append(File(
                    archive, identity, facts,
                    read_text(archive.path + YANKED, yanked)
                    if yanked else None,
                    signed, provenance))
        files.sort(key=lambda file: (version_key(file.archive.version),
                                     file.archive.filename))
        status, reason = self.status(name, snapshot)
        project = Project(name, tuple(files), status, reason, tuple(refused))
        self.note(brief_of(project, archives))
        return State(
            project, {file.archive.filename: file for file in files},
            snapshot.mark, seen, until, settled, algorithms)

    def look_at(self, name: str, snapshot: Snapshot) -> Tuple[Any, ...]:
        """Return all that a state depends on, besides the files' content.

        One tuple for each archive: itself, its identity, that of its
        .yanked, and whether there is a signature and a provenance.  Then
        the identities of the status files.
        """
        companions = snapshot.companions
        return tuple(
            (archive, look(path),
             self.companion(path + YANKED)
             if path + YANKED in companions else None,
             path + SIGNATURE in companions,
             path + PROVENANCE in companions)
            for archive in snapshot.projects[name]
            for path in (archive.path,)
        ) + tuple(self.companion(path)
                  for _, path in snapshot.statuses.get(name, ()))

    def companion(self, path: str) -> Optional[Identity]:
        """Return the identity of a companion file, None when there is none.
        """
        identity = look(path)
        if identity is None:
            return None
        problem = self.reader.forbidden(path, identity)
        if problem and problem != TO_HIDDEN:  # of those, the tree has told
            self.reader.note(path, problem)
        return None if problem else identity

    def status(self, name: str, snapshot: Snapshot) -> Tuple[str, str]:
        """Return (status, reason) of a project, out of its status file."""
        entries = snapshot.statuses.get(name)
        if not entries:
            return "", ""
        path = entries[0][1]
        identity = self.companion(path)
        if identity is None:
            return "", ""
        word, _, reason = read_text(path, identity).partition(" ")
        problem = status_problem(word)
        if problem:
            self.reader.note(path, problem)
            return "", ""
        return word.lower(), reason

    def file(self, archive: Archive) -> File:
        """Return one archive, without reading the others of its project.

        Its companions are left out.

        Raises:
            HTTPError: 404 when it is not whole, 503 while it is written.
        """
        snapshot = self.tree.snapshot
        state = self.states.get(archive.project)
        identity = look(archive.path)
        if state and state.mark is snapshot.mark:
            file = state.files.get(archive.filename)
            if file and file.identity == identity:
                return file
        with self.alone(archive.path):
            identity = look(archive.path)
            known = self.reader.cache.get([archive.path])
            pause = self.reader.pause(archive.path, identity, known)
            if pause > 0:
                time.sleep(pause)
                identity = look(archive.path)
            facts, final = self.reader.facts(
                archive, identity, known, self.algorithms)
        if identity is None or facts.problem:
            raise HTTPError(
                404 if final else 503,
                f"{archive.filename} is not served: {facts.problem}",
                () if final else (("Retry-After", "1"),))
        return File(archive, identity, facts, None, False, False)

    def forget(self) -> None:
        """Take out of the cache what is gone from the disk."""
        snapshot = self.tree.snapshot
        if snapshot.hidden():
            return
        there = {archive.path for archive in snapshot.archives.values()}
        for root in self.tree.order:
            # An empty one may be a disk that is not mounted.
            if any(path.startswith(root + "/") for path in there):
                self.reader.cache.forget(root, there)

    # For lists

    def note(self, brief: Brief) -> None:
        self.briefs[brief.name] = brief
        self.noted = object()

    def is_noted(self, name: str, archives: Tuple[Archive, ...]) -> bool:
        """Tell whether the brief of a project is of these archives."""
        brief = self.briefs.get(name)
        return brief is not None and brief.archives is archives

    def pack(self, names: Iterable[str]) -> None:
        """Let briefs of projects lie side by side in memory.

        They were made among much that is gone, and a few bytes of them hold
        back a block of 16 KiB each: half of the memory of 10,000 projects.
        """
        found = [self.briefs[name] for name in names if name in self.briefs]
        copies = json.loads(json.dumps([brief[1:] for brief in found]))
        for brief, values in zip(found, copies):
            if self.briefs.get(brief.name) is brief:
                self.briefs[brief.name] = Brief._make(
                    [brief.archives] + values[:-1]
                    + [tuple(map(tuple, values[-1]))])

    def is_read(self, archives: Sequence[Archive]) -> bool:
        """Tell whether the facts of all these are known as they are now."""
        known = self.reader.cache.get([archive.path for archive in archives])
        nothing = (None, None)

        def is_known(path: str) -> bool:
            identity = look(path)
            return identity is not None and (
                known.get(path, nothing)[0] == identity
                or bool(self.reader.forbidden(path, identity)))
        return all(is_known(archive.path) for archive in archives)

    # The changes that this server makes

    def store(self, archive: Archive, facts: Facts,
              place: Callable[[], Identity]) -> None:
        """Show an archive in the next request.

        Args:
            place: gives the file its path; nobody looks at it before its
                facts are known, and has to wait until it has settled.
        """
        with self.alone(archive.project), self.alone(archive.path):
            self.reader.cache.put(archive.path, place(), facts)
            # Other processes would wait until the file has settled.
            self.reader.cache.flush()
            self.reader.note(archive.path, "")
            self.changed(archive, {archive.filename})

    def changed(self, archive: Archive, added: Iterable[str],
                removed: Iterable[str] = ()) -> None:
        """Show new names beside an archive, and do without some paths."""
        if (archive.root, archive.directory) != (self.roots[0], ""):
            with contextlib.suppress(OSError):
                os.utime(self.roots[0])  # the mark for catch_up()
        self.fresh()
        with self.lock:
            self.tree.patch(archive.root, archive.directory, frozenset(added),
                            frozenset(map(os.path.basename, removed)))
        self.briefs.pop(archive.project, None)
        self.noted = object()
        self.changes.note()


# === 20  Warm-up ============================================================

# seconds between two looks at what there is to read
WARM_INTERVAL = 1.0
# seconds between two looks for what is left of files and of uploads
FORGET_INTERVAL = 3600.0
GIVE_BACK_INTERVAL = 10.0  # seconds; a look takes some milliseconds
PACK = 500  # projects that are read before it is written down
# Seconds.  A temporary file so young may belong to a server that has not
# locked it yet; one so old belongs to nobody, where there are no locks.
YOUNG = 2
STALE = 36 * 3600


def remove_leftovers(roots: Iterable[str]) -> None:
    """Remove the temporary files of servers that died during an upload.

    Those of living servers are locked.
    """
    for folder, folders, names in itertools.chain.from_iterable(
            map(os.walk, roots)):
        for name in folders:  # of `update`
            path = os.path.join(folder, name)
            if name.startswith(TEMPORARY) and is_stale(path):
                LOG.warning("removing %s, left by an update that was killed",
                            path)
                shutil.rmtree(path, ignore_errors=True)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = os.path.join(folder, name)
            if name.startswith(TEMPORARY) and is_abandoned(path):
                with contextlib.suppress(OSError):  # another was faster
                    os.unlink(path)
                    LOG.warning("removing %s, left by an upload that was cut "
                                "off", path)


def is_stale(path: str) -> bool:
    try:
        return time.time() - os.lstat(path).st_mtime > STALE
    except OSError:  # it was removed meanwhile
        return False


def is_abandoned(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        age = time.time() - os.fstat(descriptor).st_mtime
        if 0 <= age < YOUNG:  # its server may be about to lock it
            time.sleep(YOUNG - age)
        is_locked = lock_file(descriptor)
        return age > STALE if is_locked is None else is_locked
    finally:
        os.close(descriptor)


class Warmer:
    """A thread that reads what was never asked for, ahead of requests.

    It also writes down what was read, and forgets and removes what is of no
    use any more.
    """

    def __init__(self, directories: Directories, tidies: bool = True) -> None:
        self.directories = directories
        self.tidies = tidies  # removes leftovers too
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        # Is told, while it reads all projects for the first time, of the
        # seconds that have passed, the projects read, and all projects.
        self.watch: Optional[Callable[[float, int, int], None]] = None
        self.is_first = True  # of several workers
        # Whether to look at what others have read: once lists are asked for.
        self.follows = False
        self.thread: Optional[threading.Thread] = None

    @property
    def reads(self) -> bool:
        """Whether to read what nobody has read: one does it for all workers.
        """
        return self.is_first or self.directories.reader.cache.is_private

    def start(self) -> None:
        """Begin, once; not before a worker is forked, which has no threads.
        """
        if self.thread is None:
            with self.lock:
                if self.thread is None:
                    self.thread = threading.Thread(
                        target=self.run, name="warm-up", daemon=True)
                    self.thread.start()

    def stop(self) -> None:
        self.stopping.set()
        if self.thread is not None:
            self.thread.join(1)  # it may be reading a large file
        self.directories.reader.cache.close()

    def run(self) -> None:
        done: Dict[str, Tuple[Archive, ...]] = {}
        forget_at = time.monotonic()
        give_back_at = forget_at + GIVE_BACK_INTERVAL
        while not self.stopping.wait(WARM_INTERVAL):
            try:
                if self.reads or self.follows:
                    self.run_once(done)
                self.directories.reader.forget(self.directories.fresh())
                if self.reads and time.monotonic() >= forget_at:
                    self.directories.forget()
                    if self.tidies:
                        remove_leftovers(self.directories.roots)
                    forget_at = time.monotonic() + FORGET_INTERVAL
                self.directories.reader.cache.flush()
            except Exception:
                LOG.exception("reading ahead failed")
            if time.monotonic() >= give_back_at:
                give_back_memory()
                give_back_at = time.monotonic() + GIVE_BACK_INTERVAL

    def run_once(self, done: Dict[str, Tuple[Archive, ...]]) -> None:
        """Examine the projects whose archives are not those in `done`."""
        snapshot = self.directories.fresh()
        if not snapshot.unreadable:
            for name in done.keys() - snapshot.projects.keys():
                del done[name]
        begun, watch, self.watch = time.monotonic(), self.watch, None
        count = 0
        batch: List[str] = []
        for name, archives in snapshot.projects.items():
            if done.get(name) is archives or not (
                    self.reads or self.directories.is_read(archives)):
                continue
            started = time.monotonic()
            with self.directories.alone(name):
                state = self.directories.examine(
                    name, snapshot, self.directories.algorithms, None)
            if state.settled:
                done[name] = archives
            count += 1
            batch.append(name)
            if len(batch) == PACK:
                self.directories.reader.cache.flush()
                self.directories.pack(batch)
                batch.clear()
            if watch:
                watch(started - begun, count, len(snapshot.projects))
            # At most half of one core, and requests come first.
            if self.stopping.wait(min(time.monotonic() - started, 1.0)):
                return
        if count >= PACK:
            self.directories.pack(batch)


# === 21  Lists ==============================================================

# Projects that a request may bring up to date in lists; the thread that reads
# ahead does it with the others.
CATCH_UP = 20
NEWEST = 8  # uploads on the home page


class Catalogue(NamedTuple):
    """What lists show, of one moment."""

    snapshot: Snapshot
    noted: object  # of Directories, before
    briefs: Tuple[Brief, ...]  # of all projects, by name
    totals: Totals


class WithoutEffect(NamedTuple):
    """A file that is there, and neither served nor heeded."""

    path: str
    kind: str        # a key of REMEDIES
    reason: str
    other: str = ""  # the path of what counts instead


def without_effect(tree: Tree, read: Callable[[str], Optional[str]]
                   ) -> Iterator[WithoutEffect]:
    """Yield what its name alone, or what a status says, keeps from counting.

    Args:
        read: returns the text of a status file, None when it must not.
    """
    served = tree.snapshot.archives
    for (root, directory), listing in sorted(tree.listings.items()):
        for name in sorted(listing.names):
            path = f"{root}/{directory}{name}"
            archive = served.get(name)
            if archive and archive.path != path:
                yield WithoutEffect(
                    path, "shadowed", "another file of that name comes first",
                    archive.path)
            elif not archive:
                problem = name_problem(name, listing.names)
                if problem:
                    yield WithoutEffect(path, *problem)
    for path, reason in sorted(tree.problems()):
        yield WithoutEffect(path, "unusable", reason)
    yield from statuses_without_effect(tree.snapshot, read)


def statuses_without_effect(
        snapshot: Snapshot, read: Callable[[str], Optional[str]]
        ) -> Iterator[WithoutEffect]:
    """Yield the status files among those that without_effect() does."""
    for project, entries in sorted(snapshot.statuses.items()):
        for _, path in entries:
            if project not in snapshot.projects:
                yield WithoutEffect(path, "orphaned", "there is no archive "
                                    f"of a project {project}")
            elif path != entries[0][1]:
                yield WithoutEffect(
                    path, "shadowed", "another status of the project comes "
                    "first", entries[0][1])
            else:
                text = read(path)
                kind, problem = (
                    "unusable", "it cannot be read, or leads to something "
                    "hidden") if text is None else (
                    "misspelled", status_problem(text.partition(" ")[0]))
                if problem:
                    yield WithoutEffect(path, kind, problem)


def name_problem(name: str, beside: AbstractSet[str]
                 ) -> Optional[Tuple[str, str]]:
    """Return (kind, reason) of a name that stands for nothing."""
    if name.endswith(COMPANIONS):
        of = name[:name.rindex(".")]
        return None if of in beside and parse_filename(of) else (
            "orphaned", f"there is no archive {of!r} beside it")
    if name.endswith(STATUS) or parse_filename(name):
        return None
    if name.endswith(UNFINISHED):
        return "unfinished", "it has the name of a copy that is not finished"
    if name.endswith(".whl"):
        return "unrecognized", ("the name of a wheel is NAME-VERSION-PYTHON-"
                                "ABI-PLATFORM.whl (PEP 427)")
    return "unrecognized", "it is neither an archive nor a companion file"


class Lists:
    """What is known of all projects; made anew when something has changed.

    How it works: whenever a project is examined, a brief of it is noted.  It
    is right for as long as the snapshot has the same archives for it.  A
    request makes up for a few that are not, such as an upload, if it need
    not read archives for that; the thread that reads ahead does the others.
    A file that was replaced in place shows when its project is asked for.
    """

    def __init__(self, directories: Directories, warmer: Warmer) -> None:
        self.directories = directories
        self.warmer = warmer
        self.kept = Catalogue(
            directories.tree.snapshot, None, (), Totals(0, 0, 0, 0, ()))
        # By project: a hash of all that its links depend on, and these.
        self.linked: Dict[str, Tuple[Optional[int], str]] = {}
        self.kept_links: List[str] = []
        self.links_mark: object = None  # of the snapshot that they are of
        self.links_until = 0.0          # monotonic

    def catalogue(self) -> Catalogue:
        """Return what lists show.

        Raises:
            HTTPError: 503 while a package directory cannot be read.
        """
        directories = self.directories
        snapshot = directories.index()
        kept = self.kept
        if kept.snapshot is snapshot and kept.noted == directories.noted:
            return kept
        self.catch_up(snapshot)
        noted = directories.noted
        known = dict(directories.briefs)
        for name in known.keys() - snapshot.projects.keys():
            directories.briefs.pop(name, None)
        briefs = tuple(
            known.get(name) or Brief(
                archives, name, "", "", 0, 0, 0, "", "", ())
            for name, archives in sorted(snapshot.projects.items()))
        self.kept = Catalogue(snapshot, noted, briefs, Totals(
            len(briefs), len(known.keys() & snapshot.projects.keys()),
            sum(brief.files for brief in briefs),
            sum(brief.size for brief in briefs), tuple(heapq.nlargest(
                NEWEST, (brief for brief in briefs if brief.files),
                key=lambda brief: brief.newest))))
        return self.kept

    def catch_up(self, snapshot: Snapshot) -> None:
        """Bring up to date what takes no time, and let others do the rest."""
        directories = self.directories
        behind = [name for name, archives in snapshot.projects.items()
                  if not directories.is_noted(name, archives)]
        if len(behind) > CATCH_UP:
            self.warmer.follows = True
            return
        for name in behind:
            if directories.is_read(snapshot.projects[name]):
                directories.state(name, snapshot, directories.algorithms)

    def links(self, algorithm: str) -> List[str]:
        """Return the links to all archives, a text for each project.

        It is the same object for as long as none of them has changed.  Only
        one thread at a time may ask.
        """
        started = time.monotonic()
        snapshot = self.directories.index()
        if self.links_mark is snapshot.mark and started < self.links_until:
            return self.kept_links
        linked: Dict[str, Tuple[Optional[int], str]] = {}
        for name in sorted(snapshot.projects):
            known = self.linked.get(name)
            if known is None or known[0] != hash(
                    self.directories.look_at(name, snapshot)):
                state = self.directories.state(
                    name, snapshot, self.directories.algorithms)
                known = hash(state.seen) if state.settled else None, \
                    archive_links(link_of(file, algorithm) for file in
                                  listed_files(state.project))
            linked[name] = known
        links = [text for _, text in linked.values()]
        if links != self.kept_links:
            self.kept_links = links
        self.linked, self.links_mark = linked, snapshot.mark
        self.links_until = next_look(started)
        return self.kept_links

    def ignored(self, catalogue: Catalogue) -> List[Ignored]:
        """Return what is not served, or has no effect."""
        roots = self.directories.roots
        labels = directory_labels(roots)

        def below(path: str) -> Tuple[str, str]:
            root = max((root for root in roots
                        if path.startswith(root + "/")), key=len)
            return path[len(root) + 1:], labels[root]
        found = []
        for path, kind, reason, other in itertools.chain(
                self.withheld(catalogue),
                without_effect(self.directories.tree, self.status_text)):
            if other:
                location, label = below(other)
                reason += f": {location}" + f" in {label}" * bool(label)
            found.append(Ignored(*below(path), kind, reason))
        return found

    def status_text(self, path: str) -> Optional[str]:
        """Return what a status file says; None when nobody may know."""
        identity = self.directories.companion(path)
        return None if identity is None else read_text(path, identity)

    def withheld(self, catalogue: Catalogue) -> Iterator[WithoutEffect]:
        """Yield the archives that are not offered."""
        snapshot = catalogue.snapshot
        for brief in catalogue.briefs:
            for filename, problem in brief.withheld:
                if filename in snapshot.archives:  # it may just have gone
                    yield WithoutEffect(
                        snapshot.archives[filename].path, "unfinished"
                        if problem == UNSETTLED else "broken", problem)
            if brief.files or brief.name not in snapshot.statuses:
                continue
            status, reason = self.directories.status(brief.name, snapshot)
            if status == "quarantined":
                told = {filename for filename, _ in brief.withheld}
                for archive in sorted(snapshot.projects[brief.name]):
                    if archive.filename not in told:
                        yield WithoutEffect(
                            archive.path, status, "its project is in "
                            "quarantine" + f": {reason}" * bool(reason))


def directory_labels(roots: Sequence[str]) -> Dict[str, str]:
    """Return what pages call the package directories: not by their paths.

    >>> directory_labels(["/a/one", "/b/two", "/c/two"])["/c/two"]
    'two (directory 3)'
    >>> directory_labels(["/a"])
    {'/a': ''}
    """
    if len(roots) == 1:
        return dict.fromkeys(roots, "")
    names = [root.rpartition("/")[2] for root in roots]
    return {root: name + f" (directory {place})" * (names.count(name) > 1)
            for place, (root, name) in enumerate(zip(roots, names), 1)}


# === 22  Accounts ===========================================================

# Verified pairs that are remembered; more users nobody has in one file.
KEEP_PAIRS = 10000
# Seconds that a login waits for its turn while others are being verified.
LOGIN_PATIENCE = 10
# Logins of one address that wait; uv sends 50 requests at once.
LOGIN_LIMIT = 100


@functools.lru_cache(maxsize=None)
def system_crypt() -> Optional[Callable[[bytes, bytes], bytes]]:
    """Return crypt(3) of this system; None where there is none."""
    try:
        import ctypes
    except ImportError:
        return None
    lock = threading.Lock()
    function: Any = None
    for name in ("libcrypt.so.2", "libcrypt.so.1", None):
        with contextlib.suppress(OSError, AttributeError, TypeError):
            function = ctypes.CDLL(name).crypt
            break
    else:
        return None
    function.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
    function.restype = ctypes.c_char_p

    def crypt(password: bytes, setting: bytes) -> bytes:
        with lock:  # its result is in one place for all threads
            return function(password, setting) or b""
    return crypt


def verify_here(password: bytes, digest: str) -> Optional[bool]:
    """Verify with crypt(3) what it knows, which is fast, or by ourselves."""
    crypt = system_crypt()
    computed = crypt(password, digest.encode("utf-8", "replace")) \
        if crypt and digest.startswith("$") else b""
    # Unknown kinds give nothing, or a text that begins with "*".
    if computed.startswith(digest[:3].encode("utf-8", "replace")):
        return hmac.compare_digest(computed, digest.encode())
    return verify_password(password, digest, verify_with_passlib)


def verify_with_passlib(password: bytes, digest: str) -> Optional[bool]:
    try:
        # Late, and whatever it raises: some releases of it fail with some
        # of bcrypt's, and that must concern nobody who has no such hash.
        from passlib.hash import bcrypt  # type: ignore[import-untyped]
        return bool(bcrypt.verify(password, digest))
    except Exception:
        return None


class Turns:
    """Lets a few threads work at once, the addresses in turn.

    However many logins one address sends, another waits for one of them.
    """

    def __init__(self, places: int) -> None:
        self.free = places
        self.changed = threading.Condition()
        # By address, the one whose turn is next first: those that wait.
        self.waiting: Dict[str, List[object]] = {}

    @contextlib.contextmanager
    def take(self, client: str) -> Iterator[None]:
        """Work when it is the turn of this address.

        Raises:
            HTTPError: 429 or 503 when too many are waiting.
        """
        ticket = object()
        with self.changed:
            queue = self.waiting.setdefault(client, [])
            if len(queue) >= LOGIN_LIMIT:
                raise HTTPError(429, "too many logins from one address",
                                (("Retry-After", "5"),))
            queue.append(ticket)
            is_next = self.changed.wait_for(
                lambda: self.is_next(ticket), LOGIN_PATIENCE)
            queue.remove(ticket)
            del self.waiting[client]
            if queue:  # behind all other addresses
                self.waiting[client] = queue
            self.changed.notify_all()
            if not is_next:
                raise HTTPError(503, "too many logins at once",
                                (("Retry-After", "5"),))
            self.free -= 1
        try:
            yield
        finally:
            with self.changed:
                self.free += 1
                self.changed.notify_all()

    def is_next(self, ticket: object) -> bool:
        first = next(iter(self.waiting.values()))
        return self.free > 0 and first[0] is ticket


class Accounts:
    """The users of a password file, which is read again when it changes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.users: Dict[str, str] = {}
        self.identity: Optional[Identity] = None
        self.lock = threading.Lock()
        self.problems: List[str] = []  # those that were logged
        # A digest of each pair that was verified, with the hash that it was
        # verified by: a changed line is another pair.  The key makes it
        # worthless outside this process.
        self.key = os.urandom(32)
        self.pairs: Recent[bool] = Recent(KEEP_PAIRS)
        # Slow hashes are slow on purpose: one core must stay for others.
        self.turns = Turns(max((os.cpu_count() or 1) - 1, 1))

    def refresh(self) -> None:
        """Read the file if it changed.

        Without the file there are no users: a door whose list is lost stays
        shut.
        """
        with self.lock:
            identity = look(self.path)
            if identity is not None and identity == self.identity:
                return
            try:
                with open(self.path, encoding="utf-8",
                          errors="surrogateescape") as file:
                    text = file.read()
            except OSError as error:
                self.users, self.identity = {}, None
                self.report([
                    f"the password file {self.path} cannot be read "
                    f"({error.strerror}); nobody can log in"])
                return
            changed = max(identity.mtime_ns, identity.ctime_ns) / 1e9 \
                if identity else 0
            is_recent = abs(time.time() - changed) < SETTLED_COARSE
            if is_recent and self.users and not text.endswith("\n"):
                return  # an editor is in the middle of it
            self.users, problems = parse_htpasswd(text)
            # What was written within the tick of its time stamp may change
            # once more without a trace.
            self.identity = None if is_recent else identity
            self.report([f"{self.path}: {problem}"
                         for problem in problems + self.unverifiable()])

    def unverifiable(self) -> List[str]:
        """Tell which users cannot log in on this machine, and the remedy."""
        kinds: Dict[str, Optional[bool]] = {}
        found = []
        for user, digest in self.users.items():
            kind = digest[:4]
            if kind not in kinds:
                # A probe with the least cost; the result does not matter.
                kinds[kind] = is_known(digest) or verify_here(
                    b"", re.sub(r"^(\$2[abxy]?\$)\d\d", r"\g<1>04", digest))
            if kinds[kind] is None:
                found.append(
                    f"the hash of {user!r} cannot be verified here; install "
                    "libpass and bcrypt for this Python, or set the "
                    "password anew with the passwd command")
        return found

    def report(self, problems: List[str]) -> None:
        """Log what was not wrong when the file was last read."""
        for problem in problems:
            if problem not in self.problems:
                LOG.warning("%s", problem)
        self.problems = problems

    def check(self, user: str, password: str, client: str = "") -> bool:
        """Tell whether this is a user with that password.

        Args:
            client: the address of who says so.

        Raises:
            HTTPError: 429 or 503 while too many others are being verified.
        """
        self.refresh()
        digest = self.users.get(user)
        data = password.encode("utf-8", "surrogateescape")
        if len(data) > PASSWORD_LIMIT or b"\0" in data:
            return False
        pair = hmac.new(self.key, "\0".join(
            (user, password, digest or "")).encode(
                "utf-8", "surrogateescape"), hashlib.sha256).digest()
        known = self.pairs.get(pair)
        if known is not None:
            return known
        against = digest or self.stand_in(user)
        with self.turns.take(client):
            known = self.pairs.get(pair)  # clients send many at once
            if known is None:
                known = self.verify(data, against) and digest is not None
                self.pairs.put(pair, known, 1)
        return known

    def stand_in(self, user: str) -> str:
        """Return a hash to verify an unknown user against.

        It takes as long as that of some user, the same one each time: time
        tells nothing, even where hashes of several costs are in the file.
        """
        digests = list(self.users.values())
        number = int.from_bytes(hmac.new(self.key, user.encode(
            "utf-8", "surrogateescape"), hashlib.sha256).digest(), "big")
        return digests[number % len(digests)] if digests else ""

    def verify(self, password: bytes, digest: str) -> bool:
        """Verify a password in UTF-8, or a file made where that was not."""
        if not digest:
            return False
        if verify_here(password, digest):
            return True
        text = password.decode("utf-8", "surrogateescape")
        if len(text) == len(password):  # ASCII: the same in both
            return False
        latin = text.encode("latin-1", "replace")
        return bool(verify_here(latin, digest))


def new_hash(password: str) -> str:
    """Return a hash that Apache and nginx on Linux understand as well."""
    salt = "".join(CRYPT_DIGITS[byte & 63] for byte in os.urandom(16))
    return sha_crypt(password.encode("utf-8", "surrogateescape"), salt, "6",
                     ROUNDS)


def change_password(path: str, user: str, digest: Optional[str]) -> None:
    """Write the line of a user, or remove it; keep all the others.

    Args:
        digest: None to remove the user.

    Raises:
        UsageError: the user cannot be, or is not in the file.
        OSError: the file cannot be read or written.
    """
    if not user or ":" in user or not user.isprintable() \
            or user != user.strip() or user.startswith("#"):
        raise UsageError(f"a user name cannot be {user!r}")
    with alone_in(os.path.dirname(os.path.realpath(path))):
        rewrite_passwords(path, user, digest)


@contextlib.contextmanager
def alone_in(path: str) -> Iterator[None]:
    """Let one process at a time change what it read in a directory."""
    if os.name == "nt":
        yield  # directories cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        lock_file(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def replace_text(path: str, text: str) -> None:
    """Write a file of secrets so that readers see the old or the new one."""
    path = os.path.realpath(path)
    temporary = f"{path}.{os.urandom(8).hex()}.tmp"
    found = os.stat(path) if os.path.exists(path) else None
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL,
                         0o600)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="",
                  errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if found:
            os.chmod(temporary, stat.S_IMODE(found.st_mode))
            with contextlib.suppress(OSError, AttributeError):
                os.chown(temporary, found.st_uid, found.st_gid)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_directory(os.path.dirname(path))


def rewrite_passwords(path: str, user: str, digest: Optional[str]) -> None:
    lines: List[str] = []
    if os.path.lexists(path):
        with open(path, encoding="utf-8", errors="surrogateescape",
                  newline="") as file:
            lines = re.findall("[^\n]*\n|[^\n]+", file.read())
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    kept = [line for line in lines
            if line.lstrip("\ufeff").partition(":")[0].strip() != user]
    if digest is None and len(kept) == len(lines):
        raise UsageError(f"no user {user!r} in {path}")
    if digest is not None:
        at = next((place for place, line in enumerate(lines)
                   if line not in kept), len(kept))
        kept.insert(at, f"{user}:{digest}\n")
    replace_text(path, "".join(kept))


# === 23  Application ========================================================

PAGES_LIMIT = 64 * 1024 ** 2  # bytes of rendered pages that are kept ...
PAGE_OVERHEAD = 1024  # ... with what Python needs for each
# Pages for people load nothing from elsewhere, and hold no script themselves.
FOR_PEOPLE = (
    ("Content-Security-Policy",
     "default-src 'none'; style-src 'self'; script-src 'self'; "
     "img-src 'self'; connect-src 'self'; form-action 'self'; "
     "base-uri 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "same-origin"))
NO_SNIFFING = ("X-Content-Type-Options", "nosniff")


class Throttle:
    """Keeps a flood of refusals from becoming a flood of log lines."""

    LIMIT = 10     # lines of one address in a period
    PERIOD = 60    # seconds
    CLIENTS = 1000  # addresses that are told apart

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ends = 0.0  # monotonic
        self.lines: Dict[str, int] = {}  # of this period, by address
        self.left_out = 0

    def allows(self, client: str) -> bool:
        """Tell whether one more line about an address may be logged."""
        with self.lock:
            now = time.monotonic()
            if now >= self.ends:
                if self.left_out:
                    AUDIT.info("%d more lines about refused requests were "
                               "left out", self.left_out)
                self.ends = now + self.PERIOD
                self.lines, self.left_out = {}, 0
            if client not in self.lines and len(self.lines) >= self.CLIENTS:
                client = ""
            self.lines[client] = self.lines.get(client, 0) + 1
            if self.lines[client] <= self.LIMIT:
                return True
            self.left_out += 1
            return False


class App(NamedTuple):
    """What a handler may use.  One value per server; no globals."""

    config: Config
    directories: Directories
    warmer: Warmer
    lists: Lists
    # (user, password, address of the client); None: there are no accounts
    check: Optional[Callable[[str, str, str], bool]]
    welcome: str                      # template of the home page, or ""
    pages: Recent[Tuple[Any, Page]]   # with what they were rendered from
    throttle: Throttle                # of what is logged of refusals


def make_app(config: Config) -> App:
    """Build an application; no package is read yet.

    Raises:
        UsageError: the configuration cannot work.
    """
    AUDIT.setLevel(logging.INFO)
    roots = tuple(package_directory(root) for root in config.roots)
    config = config._replace(roots=tuple(sorted(set(roots), key=roots.index)))
    directories = Directories(
        config.roots, FactCache(cache_directory(config)),
        {"sha256", config.hash_algo} - {""},
        [os.path.expanduser(path) for path in (
            config.password_file, config.tls_cert, config.tls_key) if path])
    welcome = config.welcome_msg
    if config.welcome_file:
        welcome = read_setting("--welcome", config.welcome_file)
    warmer = Warmer(directories, not config.read_only)
    app = App(config, directories, warmer, Lists(directories, warmer),
              checker(config), welcome, Recent(PAGES_LIMIT), Throttle())
    if takes_uploads(app) and not os.access(config.roots[0], os.W_OK):
        LOG.warning("uploads will fail: the package directory %s is not "
                    "writable; change that, or start the server with "
                    "--read-only", config.roots[0])
    return app


def takes_uploads(app: App) -> bool:
    """Tell whether there is anybody who may upload."""
    return not app.config.read_only and (
        "update" not in app.config.authenticated or app.check is not None)


def checker(config: Config) -> Optional[Callable[[str, str, str], bool]]:
    """Return what verifies credentials; None when there are no accounts.

    Raises:
        UsageError: -a and -P contradict each other.
    """
    auther = config.auther
    if auther is not None:
        return lambda user, password, client: auther(user, password)
    if not config.password_file:
        if config.authenticated not in ((), ("update",)):
            raise UsageError(
                f"-a {','.join(config.authenticated)} needs accounts: add "
                "-P FILE with a password file")
        if not config.authenticated:
            raise UsageError("-a . lets anyone upload; say so with -P . too")
        return None
    if config.password_file == ".":
        if config.authenticated:
            raise UsageError(
                f"-a {','.join(config.authenticated)} asks for accounts, but "
                "-P . has none; write -a . -P . to let anyone upload, or "
                "-P FILE with a password file")
        return None
    if not config.authenticated:
        raise UsageError(
            f"-a . asks for no accounts, so -P {config.password_file} has no "
            "effect; leave -a away to protect uploads")
    path = os.path.abspath(os.path.expanduser(config.password_file))
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise UsageError(f"-P: the password file {path!r} cannot be read: "
                         f"{error.strerror}") from error
    accounts = Accounts(path)
    accounts.refresh()
    return accounts.check


def package_directory(path: str) -> str:
    """Return a package directory, absolute, made if its parent exists.

    Raises:
        UsageError: it cannot be made, or not be read.
    """
    path = os.path.abspath(os.path.expanduser(path))
    try:
        if not os.path.lexists(path):
            os.mkdir(path)
            LOG.warning("made the package directory %s", path)
        with os.scandir(path):
            pass
    except OSError as error:
        raise UsageError(
            f"the package directory {path!r} cannot be read "
            f"({error.strerror}); name one that exists, or whose parent does")
    return path.replace(os.sep, "/").rstrip("/") or "/"


def cache_directory(config: Config) -> Optional[str]:
    """Return where digests are kept; None stands for memory."""
    if config.cache_dir:
        return os.path.abspath(os.path.expanduser(config.cache_dir))
    if config.backend == "simple-dir":
        return None
    home = os.environ.get("XDG_CACHE_HOME") or (
        os.environ.get("LOCALAPPDATA") if os.name == "nt"
        else os.path.expanduser("~/.cache"))
    return os.path.join(home, "pypi-server") if home else None


def read_setting(flag: str, path: str) -> str:
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        problem = error.strerror or str(error)
    except ValueError:
        problem = "it is not text in UTF-8"
    raise UsageError(f"{flag}: {path!r} cannot be read: {problem}")


def content_type(media_type: str) -> Tuple[str, str]:
    charset = "; charset=utf-8" if media_type.startswith("text/") else ""
    return "Content-Type", media_type + charset


def redirect(location: str, request: Optional[Request] = None) -> Response:
    """Redirect for now: pip keeps what is called permanent for ever.

    Args:
        request: whose query is passed on.
    """
    if request and request.query:
        location += "?" + quote(request.query, safe=PRINTABLE)
    return Response(302, (("Location", location), content_type(TEXT),
                          NO_STORE), b"")


def wanted_type(request: Request, offers: Tuple[str, ...]) -> str:
    """Return the media type that ?format= or Accept ask for (PEP 691).

    Raises:
        HTTPError: 406 when it is none of the offers.
    """
    for pair in request.query.split("&"):
        name, _, value = pair.partition("=")
        if name == "format" and value:
            # A "+" that was not encoded may have become a space.
            accept = unquote(value).replace(" ", "+")
            break
    else:
        accept = request.headers.get("accept", "")
    found = choose_media_type(accept, offers)
    if found is None:
        raise HTTPError(406, f"this page comes as {', '.join(offers)}",
                        (("Vary", "Accept"),))
    return found


def kept_page(app: App, key: Any, source: Any, render: Callable[[], Page],
              is_same: Callable[[Any, Any], bool] = operator.is_) -> Page:
    """Return the page under a key, rendered anew if its source changed.

    The key may be as long as clients like.  The source is kept: it shall be
    small, or last anyway.
    """
    kept = app.pages.get(key)
    if kept is not None and is_same(kept[0], source):
        return kept[1]
    page = render()
    app.pages.put(key, (source, page), len(page.body) + len(page.compressed)
                  + len(repr(key)) + PAGE_OVERHEAD)
    return page


def reply_page(request: Request, page: Page,
               headers: Tuple[Tuple[str, str], ...] = ()) -> Response:
    """Answer with a page, or with 304 to a client that has it already."""
    body, etag = page.body, page.etag
    if page.compressed and accepts_gzip(
            request.headers.get("accept-encoding", "")):
        body = page.compressed
        etag = etag[:-1] + '-gzip"'  # strong, so one for each coding
        headers += (("Content-Encoding", "gzip"),)
    validators = (("ETag", etag), REVALIDATE,
                  ("Vary", "Accept, Accept-Encoding"))
    if matches_etag(request.headers.get("if-none-match", ""), etag):
        return Response(304, validators)
    return Response(200, (content_type(page.media_type),) + validators
                    + (NO_SNIFFING,) + headers, body)


def reply_file(app: App, request: Request, path: str, identity: Identity,
               etag: str) -> Response:
    """Answer with a file or a range of it (RFC 9110, 13 and 14)."""
    age = app.config.cache_control
    scope = "private, " if "download" in app.config.authenticated else ""
    headers: Tuple[Tuple[str, str], ...] = (
        ("ETag", etag),
        ("Cache-Control", scope + (
            "no-cache" if age is None else f"max-age={age}")))
    # Not later than now, although a clock may have been (RFC 9110, 8.8.2).
    modified = int(min(identity.mtime_ns / 1e9, time.time()))
    status = conditional_status(request.headers, etag, modified)
    if status == 412:
        raise HTTPError(412, "the file is not the one that was asked for")
    if status == 304:
        return Response(304, headers)
    headers += (content_type(BINARY), NO_SNIFFING,
                ("Last-Modified", http_date(modified)),
                ("Accept-Ranges", "bytes"))
    wanted = None
    if request.method == "GET" and \
            request.headers.get("if-range", etag).strip() == etag:
        wanted = parse_range(
            request.headers.get("range", ""), identity.size)
    if wanted is None:
        return Response(200, headers, FileSlice(
            path, identity, 0, identity.size))
    start, length = wanted
    return Response(206, headers + ((
        "Content-Range",
        f"bytes {start}-{start + length - 1}/{identity.size}"),),
        FileSlice(path, identity, start, length))


def place_of(request: Request, app: Optional[App] = None) -> Place:
    """Return what a page for people must know of its surroundings."""
    up = "../" * (request.path.count("/") - 1)
    if request.outside:
        up += quote(request.outside[1:]) + "/"
    if app is None:
        return Place(up, request.base)
    if app.config.site:
        return Place(up, request.base, is_static=True,
                     packages=app.config.packages_url)
    return Place(up, request.base, app.config.authenticated,
                 takes_uploads(app))


def error_response(request: Request, error: HTTPError) -> Response:
    """Render an error as the client likes it, and in the reason phrase.

    twine shows only the phrase, uv only the body.
    """
    title = phrase(error.status)
    media_type = choose_media_type(
        request.headers.get("accept", ""), (JSON, HTML, TEXT)) or TEXT
    if media_type == JSON:
        text = json.dumps({
            "message": error.detail, "title": title,
            "code": f"{error.status} {error.detail}"})
    elif media_type == HTML:
        text = error_page(place_of(request), error.status, title,
                          error.detail).body.decode()
    else:
        text = error.detail + "\n"
    return Response(
        error.status, (content_type(media_type), NO_STORE, NO_SNIFFING)
        + FOR_PEOPLE * (media_type == HTML) + error.headers,
        text.encode("utf-8", "replace"),
        printable(error.detail)[:200].encode(
            "latin-1", "replace").decode("latin-1"))


def phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


# === 24  Handlers ===========================================================


def home(app: App, request: Request) -> Response:
    """Answer with the home page, or with the one of --welcome."""
    if app.welcome:
        snapshot = app.directories.index()
        return reply_page(request, make_page(HTML, fill_template(
            app.welcome, {
                "URL": request.base, "VERSION": __version__,
                "NUMPKGS": str(len(snapshot.archives)),
                "PACKAGES": "packages/", "SIMPLE": "simple/"}
        ).encode("utf-8")))
    place = place_of(request, app)
    totals = None if "list" in place.locked and request.user == "-" \
        else app.lists.catalogue().totals
    return reply_page(request, home_page(place, totals), FOR_PEOPLE)


def look_of_pages(app: App, request: Request, name: str) -> Response:
    """Answer with what the pages for people load."""
    kinds = {"icon.svg": ("image/svg+xml", ICON),
             "style.css": ("text/css", STYLE),
             "script.js": ("text/javascript", SCRIPT)}
    if name not in kinds:
        raise HTTPError(404, "nothing at this address")
    media_type, text = kinds[name]
    return reply_page(request, kept_page(
        app, ("look", name), text,
        lambda: make_page(media_type, text.encode("utf-8"))))


def values_of(text: str) -> Dict[str, str]:
    """Return the values in a query, or in a form that is sent like one."""
    pairs = (pair.replace("+", " ").partition("=")
             for pair in text.split("&"))
    return {unquote(name): unquote(value) for name, _, value in pairs}


def page_number(values: Mapping[str, str]) -> int:
    """Return the page of a list that is asked for; 0 when none is."""
    text = values.get("page", "")
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else 0


def find_projects(app: App, request: Request) -> Response:
    """Answer with the projects of which something is searched, or all."""
    values = values_of(request.query)
    query = " ".join(values.get("q", "").split())[:QUERY_LIMIT]
    found: Sequence[Brief] = app.lists.catalogue().briefs
    if query:
        found = rank_all(found, query.split()[:TERMS_LIMIT])
    return reply_page(request, search_page(
        place_of(request, app), query, found, page_number(values)),
        FOR_PEOPLE)


def not_served(app: App, request: Request) -> Response:
    """Answer with the files that are not served, and why; also as JSON."""
    media_type = wanted_type(request, (HTML, JSON))
    catalogue = app.lists.catalogue()
    counts = catalogue.totals.read, catalogue.totals.projects
    place = place_of(request, app)
    page = page_number(values_of(request.query))
    shown = (place, page) if media_type == HTML else ()

    def render() -> Page:
        ignored = app.lists.ignored(catalogue)
        if media_type == JSON:
            return withheld_json(ignored, *counts)
        return withheld_page(place, ignored, page, *counts)
    # These are mostly written in place, which the catalogue does not notice.
    statuses = [look(path) for entries in catalogue.snapshot.statuses.values()
                for _, path in entries]
    return reply_page(request, kept_page(
        app, ("withheld", media_type, shown),
        (catalogue.snapshot.mark, catalogue.noted, statuses), render,
        operator.eq),
        FOR_PEOPLE * (media_type == HTML))


def project_for_people(app: App, request: Request, project: str,
                       version: str = "") -> Response:
    """Answer with a release of a project, the latest if none is named."""
    name = normalize(project)
    found = app.directories.project(name)
    if found is None:
        raise HTTPError(404, f"no project named {project!r}")
    if name != project:
        return redirect("../" * (2 if version else 1) + quote(name) + "/"
                        + (quote(version, safe="") + "/") * bool(version),
                        request)
    listed = listed_files(found)
    files = files_of(listed, version or latest_version(listed)) \
        if listed else []
    if version and not files:
        raise HTTPError(404, f"no release {version!r} of {name!r}")
    shown = normalize_version(files[0].archive.version) if files else ""
    place = place_of(request, app)
    page = None if place.is_static and version \
        else page_number(values_of(request.query))
    hosted = app.directories.tree.snapshot.projects
    # Of other projects, the page only shows which dependencies are here.
    needs: Dict[str, bool] = {}

    def render() -> Page:
        metadata = release_metadata(app, files)
        needs.update((need, need in hosted) for need in (
            normalize(required_name(requirement))
            for requirement in metadata.get("requires-dist", ())))
        return project_page(place, found, shown, metadata, {
            need for need, is_here in needs.items() if is_here}, page)
    return reply_page(request, kept_page(
        app, ("people", name, shown, page, place), (found, needs), render,
        lambda kept, new: kept[0] is found and all(
            (need in hosted) == is_here
            for need, is_here in kept[1].items())), FOR_PEOPLE)


def release_metadata(app: App, files: Sequence[File]) -> Dict[str, List[str]]:
    """Return the core metadata of a release, see parse_metadata()."""
    if not files:
        return {}
    # A wheel says most; an sdist of old tools says nothing of dependencies.
    best = max(files, key=lambda file: bool(file.facts.metadata_digest))
    return parse_metadata(app.directories.reader.metadata(best))


def project_list(app: App, request: Request) -> Response:
    """Answer with the names of all projects."""
    media_type = wanted_type(request, (SIMPLE_JSON, SIMPLE_HTML, HTML))
    render = project_list_json if media_type == SIMPLE_JSON \
        else project_list_html
    snapshot = app.directories.index()
    return reply_page(request, kept_page(
        app, ("list", media_type), snapshot.mark,
        lambda: render(media_type, sorted(snapshot.projects))))


def project_detail(app: App, request: Request, project: str) -> Response:
    """Answer with the files of a project, or with a redirect."""
    media_type = wanted_type(request, (SIMPLE_JSON, SIMPLE_HTML, HTML))
    name = normalize(project)
    found = app.directories.project(name)
    if found is None:
        return elsewhere(app, project)
    if name != project:
        return redirect(f"../{quote(name)}/", request)
    # Only provenance is absolute, see file_url(): one page for all hosts.
    base = request.base if any(file.provenance for file in found.files) \
        else ""
    if media_type == SIMPLE_JSON:
        render = functools.partial(
            project_json, media_type, found, base, app.config.packages_url)
    else:
        render = functools.partial(
            project_html, media_type, found, app.config.hash_algo, base,
            app.config.packages_url)
    return reply_page(request, kept_page(
        app, ("project", name, media_type, base), found, render))


def elsewhere(app: App, project: str) -> Response:
    """Answer for a project of which nothing is here."""
    app.directories.whole()  # else nobody knows
    # A file that is being replaced may be gone for a moment.
    if app.config.disable_fallback or not PROJECT_NAME.fullmatch(project) \
            or normalize(project) in app.directories.tree.seen:
        raise HTTPError(404, f"no project named {project!r}")
    fallback = app.config.fallback_url.rstrip("/")
    return redirect(f"{fallback}/{normalize(project)}/")


def archives(app: App, request: Request) -> Response:
    """Answer with all archives that are whole."""
    # One page for whatever name somebody calls this host by: it is large.
    place = place_of(request, app)._replace(base="")
    with app.directories.alone(" archives"):  # as no project is called
        links = app.lists.links(app.config.hash_algo)
        return reply_page(request, kept_page(
            app, ("archives", place), links,
            lambda: archives_page(place, "".join(links))), FOR_PEOPLE)


def read_all(app: App) -> Catalogue:
    """Return what is known of all projects, when each was read once."""
    directories = app.directories
    with directories.alone(" all"):
        for name, found in directories.index().projects.items():
            if not directories.is_noted(name, found):
                directories.project(name)
    return app.lists.catalogue()


def check_offered(app: App, archive: Archive) -> None:
    """Refuse what a project in quarantine has (PEP 792).

    Raises:
        HTTPError: 403.
    """
    status, reason = app.directories.status(
        archive.project, app.directories.index())
    if status == "quarantined":
        raise HTTPError(403, f"the project {archive.project} is quarantined"
                        f"{': ' * bool(reason)}{reason}")


def download(app: App, request: Request, location: str) -> Response:
    """Answer with an archive, or with a companion file of one."""
    archive = app.directories.find(location)
    if archive is not None:
        check_offered(app, archive)
        file = app.directories.file(archive)
        return reply_file(
            app, request, archive.path, file.identity,
            f'"{file.facts.digests["sha256"]}"')
    for suffix in (SIGNATURE, PROVENANCE):
        archive = app.directories.find(location[:-len(suffix)]) \
            if location.endswith(suffix) else None
        if archive is not None:
            check_offered(app, archive)
            path = archive.path + suffix
            identity = app.directories.companion(path)
            if identity is not None:
                return reply_file(app, request, path, identity,
                                  '"%x-%x-%x-%x"' % identity)
    raise HTTPError(404, f"no file named {location!r}")


def core_metadata(app: App, request: Request, location: str) -> Response:
    """Answer with METADATA out of a wheel, to the byte (PEP 658)."""
    archive = app.directories.find(location)
    if archive is None:
        raise HTTPError(404, f"no file named {location!r}")
    check_offered(app, archive)
    file = app.directories.file(archive)
    if not file.facts.metadata_digest:
        raise HTTPError(404, f"{archive.filename} is not a wheel")
    return reply_page(request, kept_page(
        app, ("metadata", location), file.identity,
        lambda: make_page(BINARY, app.directories.reader.metadata(file)),
        operator.eq))


def legacy_project(app: App, request: Request, project: str,
                   version: str = "") -> Response:
    """Answer legacy JSON; for any spelling, since upip cannot redirect."""
    found = app.directories.project(
        normalize(project), ("md5", "sha256", "blake2b_256"))
    if found is None or not listed_files(found):
        raise HTTPError(404, f"no project named {project!r}")
    shown = version or latest_version(found.files)
    files = files_of(found.files, shown)
    if not files:
        raise HTTPError(404, f"no release {version!r} of {found.name!r}")
    return reply_page(request, legacy_json(
        found, shown, not version, release_metadata(app, files),
        request.base, app.config.packages_url),
        (("Access-Control-Allow-Origin", "*"),))


def short_address(app: App, request: Request, project: str) -> Response:
    """Answer with a redirect, for an index URL without /simple."""
    up = "../" if request.path.endswith("/") else ""
    return redirect(f"{up}simple/{quote(normalize(project))}/", request)


def add_slash(app: App, request: Request, **arguments: str) -> Response:
    """Answer with a redirect to the same address with a final slash."""
    # At the prefix itself, the path below it is empty.
    url = quote(request.path) or request.base.rstrip("/")
    return redirect(url.rpartition("/")[2] + "/", request)


def health(app: App, request: Request) -> Response:
    """Answer with Ok while all package directories can be read."""
    app.directories.index()
    return Response(200, (content_type(TEXT), NO_STORE), b"Ok")


def icon(app: App, request: Request) -> Response:
    """Answer with an icon, which browsers ask for; it is no project."""
    return Response(200, (
        content_type("image/svg+xml"), ("Cache-Control", "max-age=86400"),
        NO_SNIFFING), ICON.encode("ascii"))


XML = "text/xml"
SEARCH_LIMIT = 64 * 1024  # bytes of a search; pip sends 300
QUERY_LIMIT = 200         # characters of a search by people
TERMS_LIMIT = 20          # each is looked for in every project
HITS_LIMIT = 1000         # projects that `pip search` is told; PyPI told 100


def search(app: App, request: Request) -> Response:
    """Answer `pip search`, up to 1000 projects; it is all of XML-RPC."""
    names, summaries, combine = parse_search(request)
    hits = []
    for brief in read_all(app).briefs:
        found = [any(term in text.lower() for term in terms)
                 for terms, text in ((names, brief.name),
                                     (summaries, brief.summary)) if terms]
        if brief.files and combine(found):
            # XML 1.0 has no characters for what printable() replaces.
            hits.append({"name": brief.name, "version": brief.version,
                         "summary": printable(brief.summary),
                         "_pypi_ordering": 0})
            if len(hits) == HITS_LIMIT:
                break
    import xmlrpc.client  # late: it costs every other start some milliseconds
    body = xmlrpc.client.dumps((hits,), methodresponse=True,
                               allow_none=True).encode("utf-8")
    return Response(200, (content_type(XML), NO_STORE), body)


def read_body(request: Request, limit: int, kind: str) -> bytes:
    """Read a body that is small.

    Raises:
        HTTPError: 413 when it is not.
    """
    body = b""
    for block in iter(lambda: request.read(BLOCK), b""):
        body += block
        if len(body) > limit:
            raise HTTPError(413, f"more than {limit} bytes {kind}")
    return body


def parse_search(request: Request) -> Tuple[
        List[str], List[str], Callable[[Iterable[bool]], bool]]:
    """Return (terms for the name, terms for the summary, all or any).

    Raises:
        HTTPError: 400 or 413.
    """
    body = read_body(request, SEARCH_LIMIT, "of XML")
    # No document type, so no entities that grow or lead elsewhere.
    if b"<!" in body or b"\0" in body:
        raise HTTPError(400, "XML with declarations is refused")
    import xmlrpc.client
    try:
        parameters, method = xmlrpc.client.loads(body)
        if method != "search":
            raise HTTPError(400, "search is the only method here")
        spec: Any = parameters[0]
        names, summaries = (
            [str(term).lower() for term in
             ([spec[key]] if isinstance(spec.get(key), str)
              else spec.get(key, ()))] for key in ("name", "summary"))
        combine = any if "or" in parameters[1:] else all
        if len(names) + len(summaries) > TERMS_LIMIT:
            raise HTTPError(400, f"more than {TERMS_LIMIT} search terms")
    except HTTPError:
        raise
    except Exception as error:  # whatever the parser makes of it
        raise HTTPError(400, f"the search cannot be understood: "
                        f"{printable(str(error))}") from error
    return names, summaries, combine


# === 25  Uploads ============================================================

# bytes of all text fields; long descriptions on PyPI are about 1 MiB
FORM_LIMIT = 16 * 1024 ** 2
SIGNATURE_LIMIT = 64 * 1024  # bytes; a signature has some hundred
URLENCODED = "application/x-www-form-urlencoded"
URLENCODED_LIMIT = 64 * 1024  # bytes of a form that is sent like that
# What a form may weigh besides its file.
FORM_ALLOWANCE = 1024 ** 2
# The digests that uploads bring, and their names in hashlib.
UPLOAD_DIGESTS = (("md5_digest", "md5", 32), ("sha256_digest", "sha256", 64),
                  ("blake2_256_digest", "blake2b_256", 64))


def text_of(data: Union[bytes, bytearray]) -> str:
    """Return the text of a form field; "" for one that says nothing."""
    text = data.decode("utf-8", "replace").strip()
    return "" if text == "UNKNOWN" else text


class Form:
    """The fields of an upload; its file is on the disk already."""

    def __init__(self, directory_of: Callable[[str], str],
                 size_limit: int) -> None:
        self.directory_of = directory_of  # a filename
        self.size_limit = size_limit  # bytes of the file; 0 for none
        self.fields: Dict[str, List[bytearray]] = {}
        self.weight = 0  # bytes of all fields
        self.filename = ""  # of the file in "content"
        self.incoming: Optional[Incoming] = None
        self.part = Part("", None)

    def begin(self, part: Part) -> None:
        self.part = part
        if part.name == "content" and part.filename is not None:
            if self.incoming is not None:
                raise HTTPError(400, "more than one file in 'content'")
            self.filename = part.filename
            self.incoming = Incoming(self.directory_of(part.filename))
            for field, algorithm, _ in UPLOAD_DIGESTS:
                if self.value(field):
                    self.incoming.hashes[algorithm] = make_hash(algorithm)
        else:
            self.fields.setdefault(part.name, []).append(bytearray())

    def add(self, data: bytes) -> None:
        """Take a piece of the content of the part that was begun last."""
        if self.part.name == "content" and self.incoming is not None \
                and self.part.filename is not None:
            self.incoming.write(data)
            if 0 < self.size_limit < self.incoming.size:
                raise too_large(self.size_limit)
            return
        self.weight += len(data)
        if self.weight > FORM_LIMIT:
            raise HTTPError(413, "the text fields of the form have more than "
                            f"{FORM_LIMIT} bytes")
        self.fields[self.part.name][-1] += data

    def value(self, name: str) -> str:
        """Return a text field; "" for one that says nothing."""
        return text_of(self.fields.get(name, [bytearray()])[0])

    def close(self) -> None:
        if self.incoming is not None:
            self.incoming.close()


def upload(app: App, request: Request) -> Response:
    """Answer with what became of an upload, or of another :action."""
    form = Form(functools.partial(upload_directory, app),
                app.config.max_upload_size)
    try:
        text = take_upload(app, request, form)
    except HTTPError as error:
        audit_refusal(app, request, "was refused an upload:",
                      form.filename or "-", str(error.status), error.detail)
        raise
    finally:
        form.close()
    if choose_media_type(
            request.headers.get("accept", ""), (HTML, TEXT)) == HTML:
        return Response(
            200, (content_type(HTML), NO_STORE, NO_SNIFFING) + FOR_PEOPLE,
            stored_page(place_of(request, app), text).body)
    return Response(200, (content_type(TEXT), NO_STORE),
                    (text + "\n").encode("utf-8"))


def take_upload(app: App, request: Request, form: Form) -> str:
    """Receive a form and do what it asks for; return what was done."""
    try:
        check_upload(app.config, request)
        receive_form(form, request)
        action = form.value(":action")
        if action not in UPLOAD_ACTIONS:
            raise HTTPError(400, f"unknown :action {action!r}; known are "
                            f"{', '.join(sorted(UPLOAD_ACTIONS))}")
        if form.value("protocol_version") not in ("", "1"):
            raise HTTPError(400, "unknown protocol_version")
        return UPLOAD_ACTIONS[action](app, request, form)
    except OSError as error:
        raise storage_error(app.config.roots[0], error) from error


def upload_directory(app: App, filename: str) -> str:
    """Return where an uploaded file is to be written.

    Beside the file that it may replace: a folder can be another filesystem.
    """
    root = app.config.roots[0]
    archive = app.directories.tree.snapshot.archives.get(filename)
    if archive is not None and archive.root == root:
        return os.path.dirname(archive.path)
    return root


READ_ONLY = "this index is read-only"


def check_upload(config: Config, request: Request) -> None:
    """Refuse at once what would be refused after gigabytes.

    Raises:
        HTTPError: 403, 413 or 507.
    """
    if config.read_only:
        raise HTTPError(403, READ_ONLY)
    length = request.headers.get("content-length", "")
    size = int(length) if re.fullmatch("[0-9]+", length) else 0
    limit = config.max_upload_size
    if limit and size > limit + FORM_ALLOWANCE:
        raise too_large(limit)
    if size > shutil.disk_usage(config.roots[0]).free:
        raise storage_error(config.roots[0], OSError(errno.ENOSPC, ""))


def too_large(limit: int) -> HTTPError:
    return HTTPError(413, f"the file is larger than {limit} bytes, which is "
                     "the limit of this index")


def storage_error(root: str, error: OSError) -> HTTPError:
    """Tell apart what an operator must do about a failed write."""
    if error.errno in (errno.ENOSPC, errno.EFBIG,
                       getattr(errno, "EDQUOT", errno.ENOSPC)):
        LOG.error("no space is left for uploads in %s", root)
        return HTTPError(507, "no space is left for uploads on the server")
    LOG.error("an upload cannot be stored in %s: %s", root, error)
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return HTTPError(503, "the package directory of the server is not "
                         "writable")
    return HTTPError(500, "the upload could not be stored: "
                     f"{error.strerror or error}")


def receive_form(form: Form, request: Request) -> None:
    """Read the body of a request into a form.

    Raises:
        HTTPError: 400, 408, 413 or 415.
        OSError: the file cannot be written.
    """
    content_type = request.headers.get("content-type", "")
    # As scripts send it, and curl -d, when there is no file.
    if content_type.partition(";")[0].strip().lower() == URLENCODED:
        body = read_body(request, URLENCODED_LIMIT, "of a form without a file")
        for name, text in values_of(body.decode("latin-1")).items():
            form.begin(Part(name, None))
            form.add(text.encode())
        return
    parser = MultipartParser(boundary_of(content_type))
    while True:
        block = request.read(BLOCK)
        for event in parser.feed(block):
            if isinstance(event, Part):
                form.begin(event)
            else:
                form.add(event)
        if not block:
            parser.finish()
            return


def file_upload(app: App, request: Request, form: Form) -> str:
    """Store a file, its signature, or both."""
    name, incoming = form.filename, form.incoming
    if incoming is None:
        raise HTTPError(400, "the form has no file in 'content'")
    signature = bytes(form.fields.get("gpg_signature", [bytearray()])[0])
    check_digests(form, incoming)
    if name.endswith(SIGNATURE):
        name = name[:-len(SIGNATURE)]
        incoming.file.seek(0)
        signature = read_fully(incoming.file, SIGNATURE_LIMIT + 1)
        if not signature:
            raise HTTPError(400, f"{form.filename} is empty")
        archive = app.directories.index().archives.get(name)
        if archive is None:
            raise HTTPError(400, f"there is no {name!r} to be signed")
    else:
        archive = upload_archive(app, name)
    check_status(app, archive.project)
    if len(signature) > SIGNATURE_LIMIT:
        raise HTTPError(413, "the signature is larger than "
                        f"{SIGNATURE_LIMIT} bytes")
    with signed(archive, signature) as companion:
        if name == form.filename:
            return store_archive(
                app, request, form, incoming, archive, companion)
        if companion:
            with app.directories.alone("upload " + archive.project):
                store_signature(app, request, archive, companion,
                                look(archive.path))
    return f"stored {form.filename}"


@contextlib.contextmanager
def signed(archive: Archive, signature: bytes) -> Iterator[Optional[Incoming]]:
    """Let a signature lie ready beside an archive; None for an empty one."""
    if not signature:
        yield None
        return
    with contextlib.closing(Incoming(os.path.dirname(archive.path))) as file:
        file.write(signature)
        file.sync()
        yield file


def upload_archive(app: App, filename: str) -> Archive:
    """Return where an uploaded file goes.

    Raises:
        HTTPError: 400 when the name cannot be that of an archive.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+!~-]{0,239}", filename):
        raise HTTPError(400, f"bad file name {filename!r}")
    parsed = parse_filename(filename)
    # Nothing can be checked of other kinds, nor filed without a version.
    if not parsed or not PROJECT_NAME.fullmatch(parsed.project) \
            or not filename.endswith(TAR_EXTENSIONS + ZIPPED) \
            or not (parsed.version[:1].isdigit()
                    or parse_version(parsed.version)):
        raise HTTPError(400, f"the file name {filename!r} is not that of a "
                        "wheel, sdist or egg: NAME-VERSION and an extension")
    root = app.config.roots[0]
    existing = app.directories.index().archives.get(filename)
    if existing is not None and existing.root == root:
        return existing
    return Archive(root, "", filename, *parsed)


def store_archive(app: App, request: Request, form: Form, incoming: Incoming,
                  archive: Archive, signature: Optional[Incoming]) -> str:
    """Check an uploaded archive; give it and its signature their names.

    Raises:
        HTTPError: 400, 403 or 409; nothing is stored then.
    """
    overwrite = app.config.overwrite
    facts = check_archive(app, form, archive, incoming)
    digest = incoming.digest("sha256")
    incoming.sync()
    with app.directories.alone("upload " + archive.project):
        taken = check_twins(app, archive)
        same = identity_of(taken, digest) if overwrite else None
        try:
            if same or (taken != archive.path and not overwrite):
                raise FileExistsError
            give_names(app, request, archive, facts, incoming, signature)
            sync_directory(os.path.dirname(archive.path))
        except (FileExistsError, IsADirectoryError):
            same = same or identity_of(taken, digest)
            if not same:
                raise HTTPError(
                    409, f"File already exists: {archive.filename} has other "
                    "content here; raise the version, or let the server "
                    "--overwrite") from None
            make_last(taken)
            text = f"{archive.filename} is here already, with the same content"
            if signature and taken != archive.path:
                return text + "; its directory takes no signatures"
            if signature:
                store_signature(app, request, archive, signature, same)
            return text
    return f"stored {archive.filename}"


def identity_of(path: str, digest: str) -> Optional[Identity]:
    """Return the identity of a file that has this content, or None."""
    identity = look(path)
    return identity if sha256_of(path) == digest else None


def give_names(app: App, request: Request, archive: Archive, facts: Facts,
               incoming: Incoming, signature: Optional[Incoming]) -> None:
    """Give an uploaded archive its name, unless another took it meanwhile.

    Raises:
        HTTPError: 409 when the same archive is here, spelled otherwise, or
            another signature.
        FileExistsError: the name is taken, and no --overwrite.
    """
    overwrite = app.config.overwrite
    # What is stored is logged when the lock is free, whatever comes then.
    with contextlib.ExitStack() as later, \
            lock_names(archive.root) as others_came:
        if others_came:  # another server on this directory stores as well
            app.directories.refresh()
            check_twins(app, archive)
        if not overwrite and os.path.lexists(archive.path):
            raise FileExistsError
        if signature:
            check_signature(archive, signature, overwrite)
        # What was said of the old file is not true of the new one.
        with set_aside([archive.path + suffix for suffix in (
                SIGNATURE, PROVENANCE)] if overwrite else []) as removed:
            if removed:
                app.directories.changed(archive, (), removed)
            app.directories.store(archive, facts, lambda: incoming.place(
                archive.path, overwrite))
        later.callback(audit, request, "uploaded", archive.path,
                       "sha256=" + incoming.digest("sha256"))
        if signature:
            place_signature(app, request, archive, signature)


def check_signature(archive: Archive, signature: Incoming,
                    overwrite: bool) -> None:
    """Make sure that a signature can have its place.

    Raises:
        HTTPError: 409 when something else has it.
    """
    path = archive.path + SIGNATURE
    if os.path.isdir(path) or (
            not overwrite and os.path.lexists(path)
            and sha256_of(path) != signature.digest("sha256")):
        raise HTTPError(
            409, f"File already exists: {archive.filename}{SIGNATURE} has "
            "other content here; remove it, or let the server --overwrite")


def place_signature(app: App, request: Request, archive: Archive,
                    signature: Incoming) -> None:
    """Give a signature that was checked its name, unless it is there."""
    try:
        signature.place(archive.path + SIGNATURE, app.config.overwrite)
    except FileExistsError:
        return
    app.directories.changed(archive, {archive.filename + SIGNATURE})
    audit(request, "uploaded", archive.path + SIGNATURE,
          "sha256=" + signature.digest("sha256"))


def check_digests(form: Form, incoming: Incoming) -> None:
    """Compare every digest that was sent with the file that came.

    Raises:
        HTTPError: 400.
    """
    for field, algorithm, length in UPLOAD_DIGESTS:
        received = ""
        for data in form.fields.get(field, ()):
            sent = text_of(data).lower()
            if not sent:
                continue
            received = received or incoming.digest(algorithm)
            check_digest(field, sent, received, length)


def check_digest(field: str, sent: str, received: str, length: int) -> None:
    """Compare two digests in hex.

    Raises:
        HTTPError: 400.
    """
    if not re.fullmatch(f"[0-9a-f]{{{length}}}", sent):
        raise HTTPError(400, f"{field} is not {length} hex digits")
    if not hmac.compare_digest(sent, received):
        raise HTTPError(400, f"{field} does not match the file: sent "
                        f"{sent}, received {received}")


def check_archive(app: App, form: Form, archive: Archive,
                  incoming: Incoming) -> Facts:
    """Check that an archive is whole, and that it is what it is called.

    Raises:
        HTTPError: 400.
    """
    filename = archive.filename
    try:
        metadata = read_metadata(
            in_memory(incoming.file, incoming.size), archive, {},
            functools.partial(check_member, filename))
    except HTTPError:
        raise
    except Exception as error:
        if is_read_error(error):
            raise
        raise HTTPError(
            400, f"{filename} is not a whole archive: {error}") from error
    fields = parse_metadata(metadata or b"")
    for source, name, version in (
            ("the form", form.value("name"), form.value("version")),
            ("its metadata", first(fields, "name"),
             first(fields, "version"))):
        if name and normalize(name) != archive.project:
            raise HTTPError(400, f"{filename} does not belong to the "
                            f"project {name!r} that {source} names")
        if version and not is_same_version(version, archive.version):
            raise HTTPError(400, f"{filename} is not of the version "
                            f"{version!r} that {source} names")
    if metadata is not None and not first(fields, "name"):
        raise HTTPError(400, f"the metadata of {filename} has no Name")
    return make_facts(archive, metadata, {
        algorithm: incoming.digest(algorithm)
        for algorithm in app.directories.algorithms})


def check_status(app: App, project: str) -> None:
    """Refuse files for a project that takes none any more (PEP 792).

    Raises:
        HTTPError: 403.
    """
    found = app.directories.status(project, app.directories.index())
    if found[0] in ("archived", "quarantined"):
        raise HTTPError(403, f"the project {project} is {found[0]} and takes "
                        f"no files{': ' * bool(found[1])}{found[1]}")


def check_twins(app: App, archive: Archive) -> str:
    """Return the path of the file that has this name, or would have it.

    Raises:
        HTTPError: 409 when the same archive is here, spelled otherwise.
    """
    snapshot = app.directories.index()
    for other in snapshot.projects.get(archive.project, ()):
        if other.filename == archive.filename:
            return other.path
        if spelling(other) == spelling(archive):
            raise HTTPError(409, "File already exists, with its name spelled "
                            f"otherwise: {other.filename}")
    return archive.path


def spelling(archive: Archive) -> Tuple[Any, ...]:
    """Return what two spellings of the same filename have in common."""
    kind = extension_of(archive.filename)
    if archive.filetype == "bdist_wheel":
        kind = archive.filename.split("-", 2)[2].lower()
    return archive.filetype, version_key(archive.version), \
        kind or archive.filename


def store_signature(app: App, request: Request, archive: Archive,
                    signature: Incoming, identity: Optional[Identity]
                    ) -> None:
    """Store a signature of an archive that is here.

    Args:
        identity: that the archive must have.

    Raises:
        HTTPError: 409 when there is another, or the archive is another.
    """
    with lock_names(archive.root):
        if look(archive.path) != identity:
            raise HTTPError(409, f"{archive.filename} was replaced meanwhile; "
                            "upload it once more")
        check_signature(archive, signature, app.config.overwrite)
        place_signature(app, request, archive, signature)
    sync_directory(os.path.dirname(archive.path))


def is_same_version(one: str, other: str) -> bool:
    """Compare versions; legacy ones as old tools wrote them in filenames."""
    if parse_version(one) or parse_version(other):
        return version_key(one) == version_key(other)
    return normalize(re.sub("[^a-zA-Z0-9]+", "-", one)) == \
        normalize(re.sub("[^a-zA-Z0-9]+", "-", other))


def check_member(filename: str, name: str) -> None:
    """Refuse an archive with a member that would be unpacked elsewhere.

    Raises:
        HTTPError: 400 when its path is absolute, or leads upwards.
    """
    parts = re.split(r"[/\\]", name)
    if ".." in parts or not parts[0] or re.match("[A-Za-z]:", name) \
            or "\0" in name:
        raise HTTPError(400, f"{filename} is refused: it has a member with "
                        f"the unsafe path {name!r}")


def register(app: App, request: Request, form: Form) -> str:
    """Answer `setup.py register`: projects come into being by uploads."""
    return "projects need not be registered here"


def doc_upload(app: App, request: Request, form: Form) -> str:
    """Check documentation and say that it is not kept."""
    if form.incoming is None:
        raise HTTPError(400, "the form has no file in 'content'")
    try:
        zip_directory(form.incoming.file)
    except ValueError as error:
        raise HTTPError(400, "documentation is uploaded as a zip archive: "
                        f"{error}")
    return "the documentation is a zip archive; this index does not keep it"


def remove_pkg(app: App, request: Request, form: Form) -> str:
    """Remove all archives of a release, with their companions."""
    name, version = form.value("name"), form.value("version")
    if not name or not version:
        raise HTTPError(400, "to remove a release, send name and version")
    removed: List[str] = []
    while True:
        # Once more: another file of that name may have been in its shadow.
        snapshot = app.directories.index()
        found = [archive
                 for archive in snapshot.projects.get(normalize(name), ())
                 if is_same_version(archive.version, version)]
        if not found:
            break
        for archive in found:
            remove_archive(app, request, archive)
            removed.append(archive.filename)
    if not removed:
        raise HTTPError(404, f"no release {version!r} of {name!r}")
    return "removed " + ", ".join(removed)


def remove_archive(app: App, request: Request, archive: Archive) -> None:
    digest = sha256_of(archive.path)
    removed = remove_files([archive.path + suffix
                            for suffix in ("", *COMPANIONS)])
    app.directories.changed(archive, (), [archive.path, *removed])
    audit(request, "removed", archive.path, "sha256=" + digest)


UPLOAD_ACTIONS: Dict[str, Callable[[App, Request, Form], str]] = {
    "file_upload": file_upload, "submit": register, "verify": register,
    "doc_upload": doc_upload, "remove_pkg": remove_pkg}


def audit(request: Request, verb: str, *details: str) -> None:
    """Log a change of what is served, whatever the log level is."""
    AUDIT.info("%s", printable(" ".join(
        (request.user, "at", request.client, verb) + details)))


def audit_refusal(app: App, request: Request, verb: str,
                  *details: str) -> None:
    """Log what somebody tried, unless it is one of many such lines."""
    if app.throttle.allows(request.client):
        audit(request, verb, *details)


# === 26  Routing ============================================================


class Route(NamedTuple):
    method: str
    pattern: str  # "{name}": a segment, "{name:path}": several, "[/]": or not
    handler: Callable[..., Response]
    action: str   # "list", "download", "update"; "" for everybody
    consumes: str = ""  # media type of the body; "" for any


ROUTES = (
    Route("GET", "/", home, ""),
    Route("GET", "", add_slash, ""),
    Route("GET", "/favicon.ico", icon, ""),
    Route("GET", "/health", health, ""),
    Route("GET", "/-/{name}", look_of_pages, ""),
    Route("GET", "/search", add_slash, "list"),
    Route("GET", "/search/", find_projects, "list"),
    Route("GET", "/withheld", add_slash, "list"),
    Route("GET", "/withheld/", not_served, "list"),
    Route("GET", "/project/{project}", add_slash, "list"),
    Route("GET", "/project/{project}/", project_for_people, "list"),
    Route("GET", "/project/{project}/{version}", add_slash, "list"),
    Route("GET", "/project/{project}/{version}/", project_for_people, "list"),
    Route("GET", "/simple", add_slash, "list"),
    Route("GET", "/simple/", project_list, "list"),
    Route("GET", "/simple/{project}", add_slash, "list"),
    Route("GET", "/simple/{project}/", project_detail, "list"),
    Route("GET", "/packages", add_slash, "list"),
    Route("GET", "/packages/", archives, "list"),
    Route("GET", "/packages/{location:path}.metadata", core_metadata, "list"),
    Route("GET", "/packages/{location:path}", download, "download"),
    Route("GET", "/pypi/{project}/json[/]", legacy_project, "list"),
    Route("GET", "/pypi/{project}/{version}/json[/]", legacy_project, "list"),
    Route("GET", "/{project}/json[/]", legacy_project, "list"),
    Route("GET", "/{project}[/]", short_address, "list"),
    Route("POST", "[/]", search, "list", XML),
    Route("POST", "/pypi[/]", search, "list", XML),
    Route("POST", "/RPC2[/]", search, "list", XML),
    Route("POST", "[/]", upload, "update"),
    Route("POST", "/legacy[/]", upload, "update"),
    Route("POST", "/simple[/]", upload, "update"),
    Route("POST", "/pypi[/]", upload, "update"),
)


# RFC 9110, 9 and RFC 5789
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS",
           "TRACE", "PATCH")


@functools.lru_cache(maxsize=None)
def compile_routes(health_endpoint: str
                   ) -> Tuple[Tuple[Pattern[str], Route], ...]:
    """Make the route table into (pattern, route) pairs."""
    return tuple(
        (compile_pattern(health_endpoint if route.handler is health
                         else route.pattern), route) for route in ROUTES)


def compile_pattern(pattern: str) -> Pattern[str]:
    parts = []
    for part in re.split(r"({.*?}|\[/\])", pattern):
        if part.startswith("{"):
            name, _, several = part[1:-1].partition(":")
            part = f"(?P<{name}>{'.+' if several else '[^/]+'})"
        elif part == "[/]":
            part = "/?"
        else:
            part = re.escape(part)
        parts.append(part)
    return re.compile("".join(parts))


def find_route(app: App, method: str, path: str, media_type: str = ""
               ) -> Tuple[Route, Dict[str, str]]:
    """Return the route for a request and its path arguments.

    Raises:
        HTTPError: 404 when no pattern matches the path; 405, with Allow,
            when one does but not with this method (RFC 9110, 15.5.6).
    """
    allowed = set()
    for pattern, route in compile_routes(app.config.health_endpoint):
        found = pattern.fullmatch(path)
        if found:
            allowed.add(route.method)
            if route.method == ("GET" if method == "HEAD" else method) \
                    and route.consumes in ("", media_type):
                return route, found.groupdict()
    if "GET" in allowed:
        allowed.add("HEAD")
    if method in allowed:
        raise HTTPError(415, f"nothing here takes {media_type!r}")
    if method not in METHODS:
        raise HTTPError(501, f"there is no method {method}")
    if allowed:
        raise HTTPError(405, f"{method} is not possible here",
                        (("Allow", ", ".join(sorted(allowed))),))
    raise HTTPError(404, "nothing at this address")


def respond(app: App, request: Request) -> Response:
    """Answer any request.  Never raises: a bug becomes a logged 500."""
    try:
        request = localize(app.config, request)
        log_request(app.config, request)
        if request.outside:
            raise HTTPError(404, f"this index is at {request.outside}/")
        media_type, _, _ = request.headers.get(
            "content-type", "").partition(";")
        route, arguments = find_route(
            app, request.method, request.path,
            media_type.strip().lower().replace("application/xml", XML))
        try:
            if route.handler is home:
                request = greet(app, request)
            request = authorize(app, request, route.action)
        except HTTPError as error:
            if route.action == "update":
                audit_refusal(app, request, "was refused an upload:", "-",
                              str(error.status), error.detail)
            raise
        response = route.handler(app, request, **arguments)
    except HTTPError as error:
        response = error_response(request, error)
    except Exception:
        LOG.exception("%s %s", request.method, printable(request.path))
        response = error_response(request, HTTPError(
            500, "internal server error"))
    log_response(app.config, request, response)
    return response


def greet(app: App, request: Request) -> Request:
    """Return a request for the home page with its user, if it names one.

    The page is for everybody, and shows more to those whom it knows.

    Raises:
        HTTPError: 401 for a reader who wants to log in and did not yet.
    """
    if request.query == "login":
        return authorize(app, request, "list")
    if "authorization" in request.headers:
        with contextlib.suppress(HTTPError):
            return authorize(app, request, "list")
    return request


def authorize(app: App, request: Request, action: str) -> Request:
    """Return the request with its user, if it may be answered.

    Raises:
        HTTPError: 401 when credentials are missing or wrong, 403 when no
            credentials would help.
    """
    if request.method == "POST" and is_cross_site(request):
        raise HTTPError(403, "requests from other sites are refused")
    if action not in app.config.authenticated:
        return request
    if app.config.read_only and action == "update":
        raise HTTPError(403, READ_ONLY)
    if app.check is None:
        raise HTTPError(403, "uploads are switched off: start the server "
                        "with -P FILE for accounts, or with -a . -P . to "
                        "let anyone upload")
    credentials = parse_basic(request.headers.get("authorization", ""))
    if credentials is None:
        raise HTTPError(401, "a valid user name and password are needed",
                        (CHALLENGE,))
    if not app.check(*credentials, request.client):
        # Without the name: some type their password there.
        audit_refusal(app, request, "failed to log in for", action)
        raise HTTPError(401, "a valid user name and password are needed",
                        (CHALLENGE,))
    request.vouch()
    return request._replace(user=credentials[0])


def is_cross_site(request: Request) -> bool:
    """Tell whether a browser sends this for the page of another site."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and not (request.base + "/").startswith(
        origin + "/")


@functools.lru_cache(maxsize=None)
def prefix_of(server_base_url: str) -> str:
    """Return its path, "" for the root of a host."""
    return re.sub("^https?://[^/]+", "", server_base_url)


def localize(config: Config, request: Request) -> Request:
    """Take the prefix off the path, and find out who really asks."""
    scheme, _, rest = request.base.partition("://")
    host, _, mounted = rest.partition("/")
    if config.trusted_proxies and is_trusted(
            request.client, config.trusted_proxies):
        headers = request.headers
        scheme = forwarded(headers, "proto") or scheme
        # The predecessor's guide told proxies to send the prefix with it.
        host, _, behind = (forwarded(headers, "host") or host).partition("/")
        mounted = forwarded(headers, "prefix") or behind or mounted
        request = request._replace(
            client=forwarded(headers, "for") or request.client)
    path, outside = request.path, ""
    prefix = prefix_of(config.server_base_url)
    if prefix and (path + "/").startswith(prefix + "/"):
        path = path[len(prefix):]
        mounted = prefix
    elif config.server_base_url.startswith("/"):
        mounted = outside = prefix
    if scheme not in ("http", "https"):
        scheme = "http"
    base = base_url(scheme, host, mounted)
    if config.server_base_url.startswith("http"):
        base = config.server_base_url + "/"
    return request._replace(path=path, base=base, outside=outside)


@functools.lru_cache(maxsize=1024)
def is_trusted(client: str, proxies: Tuple[str, ...]) -> bool:
    import ipaddress
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(proxy, strict=False)
               for proxy in proxies)


def request_values(request: Request) -> Dict[str, Any]:
    return {"method": request.method, "path": printable(request.path),
            "query": printable(request.query),
            "client": printable(request.client),
            "user": printable(request.user),
            "agent": printable(request.headers.get("user-agent", "-"))}


def log_request(config: Config, request: Request) -> None:
    if LOG.isEnabledFor(logging.DEBUG):
        LOG.debug("%s", format_record(
            config.log_req_frmt, request_values(request)))


def log_response(config: Config, request: Request,
                 response: Response) -> None:
    if not LOG.isEnabledFor(logging.INFO):
        return
    body = response.body
    values = dict(
        request_values(request), status=response.status,
        type=dict(response.headers).get("Content-Type", "-"),
        length=body.length if isinstance(body, FileSlice) else len(body))
    if response.status < 400:
        LOG.info("%s", format_record(config.log_res_frmt, values))
    else:
        values["error"] = response.reason
        LOG.info("%s", format_record(config.log_err_frmt, values))


# === 27  Wire ===============================================================

# Seconds.  Clients reuse a connection within moments; uv keeps 20 for later.
IDLE_TIMEOUT = 60
HEAD_TIMEOUT = 10     # for a whole head, from its first byte
BODY_TIMEOUT = 20     # for each piece of a body
BODY_RATE = 500       # bytes per second, that a body must have on average
BODY_CLAIM = 2        # after the head; then a body gives way, see Wire
SEND_TIMEOUT = 60     # without any progress
HANDSHAKE_TIMEOUT = 10  # of TLS, as a whole
FILE_BLOCK = 64 * 1024  # bytes of a file that are copied at once
SENDFILE_LIMIT = 2 ** 30  # bytes; some systems take no more at once
LINGER_TIMEOUT = 30   # to read on after an early answer; nginx has 30 too
LINGER_REFUSED = 3    # the same after what was no request
# Bytes.  A file or a page up to here goes out in one piece with its head.
SMALL_FILE = 64 * 1024
HEAD_BLOCK = 8 * 1024  # bytes received at once while a request is awaited
# A send that does not wait needs no look at the socket before; not on
# Windows, where all sends have a timeout.
NO_WAIT = getattr(socket, "MSG_DONTWAIT", 0)
CORK = getattr(socket, "TCP_CORK", 0)  # on Linux
# Held for such a send.  Who sends gives the interpreter away, and all threads
# that have a request want it; most of them wait here instead, which is fairer:
# with 32 connections the 99th percentile is a third of what it was.
TURN = threading.Lock()
# What ends a recv() and lets an answer on its way pass; Windows needs more.
END_OF_WAIT = socket.SHUT_RD if os.name != "nt" else socket.SHUT_RDWR
TLS_HANDSHAKE = b"\x16\x03"  # RFC 8446, 5.1: type and version of a record
# A body that nobody read is thrown away up to here, to keep the connection.
DRAIN_LIMIT = 64 * 1024
DRAIN_TIMEOUT = 2  # seconds
STOPPING = (signal.SIGTERM, signal.SIGINT)
THREADS = 16  # of servers by others that have a pool of them


class Wire:
    """A socket with what was received but not used yet.

    Where there are too many, one that waits for its client is ended: for a
    request, for a client to take its leave, or for a body that no account
    stands for.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock: Any = sock  # or an ssl.SSLSocket
        self.is_secured = False
        self.buffer = b""
        self.at = 0  # of what is not used yet
        # Since when it waits in such a way, monotonic; 0 while it must not be
        # ended, and in the future for a body that has a claim so far.
        self.waits_since = time.monotonic()
        self.has_request = False  # that is not answered, or not to its end
        self.is_ended = False
        self.body_until = 0.0  # monotonic; 0 before a body is waited for
        self.body_claim = 0.0  # monotonic: until when it has one

    def secure(self, context: Any) -> None:
        """Go on with TLS; the socket that was given is of no use then.

        Raises:
            HTTPError: 400; the client speaks plain HTTP.
            OSError: it did not come about, or not in time.
        """
        self.sock.settimeout(HANDSHAKE_TIMEOUT)
        # Letters are not the start of a record.
        if re.fullmatch(b"[A-Z]+", self.sock.recv(3, socket.MSG_PEEK)):
            raise HTTPError(400, "this is HTTPS, not HTTP")
        self.sock = context.wrap_socket(
            self.sock, server_side=True, do_handshake_on_connect=False)
        self.is_secured = True
        self.sock.do_handshake()
        if not self.sock.version():  # CVE-2023-40217
            raise ConnectionAbortedError("no handshake")
        self.sock.settimeout(None)

    def wait(self) -> bool:
        """Wait for a request; False when none will come.

        It has no timeout: Server.service_actions() ends waits that take too
        long, and a socket without one needs half as many calls of the system.
        """
        if self.at == len(self.buffer):
            self.at = 0
            try:
                self.buffer = self.sock.recv(HEAD_BLOCK)
            except OSError:  # the client, or the way to it, is gone
                self.buffer = b""
        return self.buffer != b""

    def receive(self, deadline: float) -> None:
        """Add more bytes to the buffer.

        Raises:
            EOFError: no more will come.
            socket.timeout: none came before the deadline (monotonic).
        """
        with self.patience(max(deadline - time.monotonic(), 0.001)):
            data = self.sock.recv(BLOCK)
        if not data:
            raise EOFError
        self.buffer = self.buffer[self.at:] + data
        self.at = 0

    def read_head(self) -> Optional[bytes]:
        """Return the next head without its empty line; None at the end.

        Raises:
            HTTPError: 400, 408, 414 or 431.
        """
        deadline = time.monotonic() + HEAD_TIMEOUT
        self.body_until = 0.0
        while True:
            # One empty line may come before a request (RFC 9112, 2.2).
            start = self.at + 2 * self.buffer.startswith(b"\r\n", self.at)
            end = self.buffer.find(b"\r\n\r\n", start)
            if end >= 0:
                self.at = end + 4
                self.begin_request()
                return self.buffer[start:end]
            self.check_begun(start)
            try:
                self.receive(deadline)
            except EOFError:
                return None
            except socket.timeout:
                raise HTTPError(408, "the request head took too long")

    def begin_request(self) -> None:
        self.waits_since = 0.0
        self.has_request = True
        self.body_claim = time.monotonic() + BODY_CLAIM

    def vouch(self) -> None:
        """Let the body of this request take its time."""
        self.body_claim = math.inf

    def end_request(self) -> None:
        self.waits_since = time.monotonic()
        self.has_request = False

    def check_begun(self, start: int) -> None:
        """Refuse what will not become a head."""
        if self.buffer.startswith(TLS_HANDSHAKE, start):
            raise HTTPError(400, "this is HTTP, not HTTPS")
        if self.buffer.count(b"\n", start) > self.buffer.count(
                b"\r\n", start):
            raise HTTPError(400, "a line ends without a carriage return")
        size = len(self.buffer) - start
        if size >= LINE_LIMIT and self.buffer.find(
                b"\r\n", start, start + LINE_LIMIT) < 0:
            raise HTTPError(414, "the request line is too long")
        if size > HEAD_LIMIT:
            raise HTTPError(431, "the request head is too long")

    def read(self, size: int) -> bytes:
        """Return at least one and at most `size` bytes of a body.

        Raises:
            HTTPError: 400 or 408 when it ends before its time.
        """
        if self.at == len(self.buffer):
            self.wait_for_body()
        data = self.buffer[self.at:self.at + size]
        self.at += len(data)
        return data

    def wait_for_body(self) -> None:
        now = time.monotonic()
        self.body_until = self.body_until or now + BODY_TIMEOUT
        self.waits_since = self.body_claim
        try:
            self.receive(min(self.body_until, now + BODY_TIMEOUT))
            self.body_until += (len(self.buffer) - self.at) / BODY_RATE
        except socket.timeout:
            raise HTTPError(408, "the body of the request stalled")
        except (EOFError, OSError):  # the client is gone, or TLS is broken
            if self.is_ended:
                raise HTTPError(503, "too many connections",
                                (("Retry-After", "1"),))
            raise HTTPError(400, "the body of the request is incomplete")
        finally:
            self.waits_since = 0.0

    def invite(self) -> None:
        """Ask for a body that waits to be asked for (RFC 9110, 10.1.1)."""
        try:
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        except OSError:
            raise HTTPError(400, "the body of the request is incomplete")

    def read_line(self) -> bytes:
        """Return a line of chunked coding, without its end."""
        while True:
            end = self.buffer.find(b"\r\n", self.at, self.at + LINE_LIMIT)
            if end >= 0:
                break
            if len(self.buffer) - self.at >= LINE_LIMIT:
                raise HTTPError(400, "a chunk size is too long")
            self.wait_for_body()
        line = self.buffer[self.at:end]
        self.at = end + 2
        return line

    def send(self, data: bytes) -> None:
        """Send it all; only progress matters, not the time it takes."""
        sent = 0
        # With a timeout it would wait, and all others for it.
        if NO_WAIT and not self.is_secured and self.sock.gettimeout() is None:
            with contextlib.suppress(BlockingIOError), TURN:
                sent = self.sock.send(data, NO_WAIT)
        if sent < len(data):
            view = memoryview(data)
            with self.patience(1 if self.is_ended else SEND_TIMEOUT):
                while sent < len(data):
                    sent += self.sock.send(view[sent:])

    @contextlib.contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """Wait no longer for the client, each time, as long as this lasts."""
        self.sock.settimeout(seconds)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # it is closed
                self.sock.settimeout(None)

    def send_file(self, file: BinaryIO, start: int, length: int) -> bool:
        """Send a part of a file; False when the file shrank meanwhile.

        Raises:
            OSError: the file cannot be read, or the client is gone, or takes
                nothing for SEND_TIMEOUT.
        """
        end = start + length
        with self.patience(SEND_TIMEOUT), self.full_segments():
            while start < end:
                start += self.pass_on(file, start, end)
                if start < end:  # there is no space, or it cannot be done
                    file.seek(start)
                    block = file.read(min(end - start, FILE_BLOCK))
                    if not block:
                        return False
                    start += self.sock.send(block)  # as soon as there is
        return True

    def pass_on(self, file: BinaryIO, start: int, end: int) -> int:
        """Let the system send what it can at once, and return how much.

        With socket.sendfile() a wheel of 5 MiB takes 1.4 times the CPU.
        """
        if self.is_secured or not hasattr(os, "sendfile"):
            return 0
        try:
            return os.sendfile(self.sock.fileno(), file.fileno(), start,
                               min(end - start, SENDFILE_LIMIT))
        except OSError:  # of a client that is gone, send() will tell
            return 0

    @contextlib.contextmanager
    def full_segments(self) -> Iterator[None]:
        """Hold back what fills no segment, as long as this lasts, on Linux."""
        with contextlib.suppress(OSError):  # it is closed
            if CORK:
                self.sock.setsockopt(socket.IPPROTO_TCP, CORK, 1)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if CORK:
                    self.sock.setsockopt(socket.IPPROTO_TCP, CORK, 0)

    def shut(self, how: int) -> None:
        """Shut the connection below TLS: a socket with TLS would go on
        without it.
        """
        with contextlib.suppress(OSError):  # the client was faster
            socket.socket.shutdown(self.sock, how)

    def end_wait(self) -> None:
        """End a wait for the client, in whatever thread it is."""
        self.is_ended = True
        self.shut(END_OF_WAIT)

    def end_tls(self) -> None:
        """Say that nothing follows, and do not wait for the client."""
        if self.is_secured:
            with contextlib.suppress(OSError, ValueError):
                self.sock.settimeout(0)
                self.sock.unwrap()

    def linger(self, seconds: float) -> None:
        """Read on for a while: closing now would destroy the answer on its
        way to a client that is still sending (RFC 9112, 9.6).
        """
        self.waits_since = time.monotonic()
        deadline = self.waits_since + seconds
        self.end_tls()
        self.shut(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            self.sock.settimeout(2)
            # Without TLS, which may be over: it is all thrown away.
            while time.monotonic() < deadline \
                    and socket.socket.recv(self.sock, BLOCK):
                pass


class Body:
    """The body of one request, as the handler asks for it."""

    def __init__(self, wire: Wire, head: Head) -> None:
        length = body_length(head)
        expected = head.headers.get("expect", "").lower()
        if expected not in ("", "100-continue"):
            raise HTTPError(417, "nothing but 100-continue can be expected")
        self.wire = wire
        self.is_chunked = length is None
        self.left = length or 0  # bytes, of the body or of this chunk
        self.ended = length == 0
        self.started = False
        self.is_broken = False  # a read failed: where the body ends is open
        # Sent at the first read, so never before the account was checked.
        self.must_invite = bool(
            expected and head.minor and not self.ended)

    def read(self, size: int) -> bytes:
        """Return at most `size` more bytes; b"" at the end of the body."""
        if self.must_invite:
            self.must_invite = False
            self.wire.invite()
        was_broken, self.is_broken = self.is_broken, True
        if was_broken:
            raise HTTPError(400, "the body of the request is incomplete")
        if self.is_chunked and not self.ended and not self.left:
            self.next_chunk()
        data = b"" if self.ended else self.wire.read(min(size, self.left))
        self.left -= len(data)
        if not self.is_chunked:
            self.ended = not self.left
        self.is_broken = False
        return data

    def next_chunk(self) -> None:
        """Read a chunk size, and the line end after the chunk before it.

        RFC 9112, 7.1; extensions and trailers are not for us.
        """
        if self.started and self.wire.read_line():
            raise HTTPError(400, "a chunk does not end where it should")
        self.started = True
        found = re.fullmatch(rb"([0-9A-Fa-f]{1,8})(?:;[\t -~]*)?",
                             self.wire.read_line())
        if not found:
            raise HTTPError(400, "a chunk size is malformed")
        self.left = int(found.group(1), 16)
        if not self.left:
            if self.wire.read_line():
                raise HTTPError(400, "trailers are not understood")
            self.ended = True

    def drain(self) -> bool:
        """Throw away what was not read; False when it is too much, or slow.
        """
        self.wire.body_until = time.monotonic() + DRAIN_TIMEOUT
        try:
            for _ in range(DRAIN_LIMIT // 1024):
                if self.ended:
                    return True
                if self.must_invite or self.is_broken \
                        or self.left > DRAIN_LIMIT:
                    return False
                self.read(DRAIN_LIMIT)
        except HTTPError:
            return False
        return self.ended


class Tls:
    """The certificate of this server, loaded again when it changes."""

    def __init__(self, certificate: str, key: str) -> None:
        self.paths = [os.path.abspath(os.path.expanduser(path))
                      for path in (certificate, key or certificate)]
        self.lock = threading.Lock()
        self.seen = self.look()
        self.look_at = 0.0  # monotonic
        self.problem = ""
        try:
            self.context = self.load()
        except (OSError, ValueError) as error:
            raise UsageError(
                f"--tls-cert {certificate!r}{' --tls-key ' * bool(key)}"
                f"{repr(key) * bool(key)} cannot be used: {error}; they must "
                "be a certificate and its key without a passphrase, in PEM")

    def look(self) -> Tuple[Any, ...]:
        return tuple(map(look, self.paths))

    def load(self) -> Any:
        """Return an ssl.SSLContext.

        Raises:
            OSError, ValueError: the files are not those of a key and its
                certificate.
        """
        try:
            import ssl  # late: some builds of Python are without
        except ImportError as error:
            raise UsageError(
                f"--tls-cert needs ssl, which {sys.executable} was built "
                "without; run this with another Python") from error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # https://wiki.mozilla.org/Security/Server_Side_TLS, intermediate
        if sys.version_info >= (3, 7):
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.options |= getattr(ssl, "OP_NO_RENEGOTIATION", 0)
        else:
            context.options |= ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1
        context.options |= ssl.OP_NO_COMPRESSION
        context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
        context.set_alpn_protocols(["http/1.1"])
        # Without a function, it would be asked for on the terminal.
        certificate, key = self.paths
        context.load_cert_chain(certificate, key, password=lambda: "")
        return context

    def current(self) -> Any:
        """Return the context for another connection."""
        with self.lock:
            now = time.monotonic()
            if now < self.look_at:
                return self.context
            self.look_at = now + CHECK_INTERVAL
            seen = self.look()
            if seen == self.seen:
                return self.context
            try:
                self.context = self.load()
            except (OSError, ValueError) as error:
                problem = f"{seen} {error}"
                # The other of two files may be about to follow.
                if problem == self.problem:
                    self.seen = seen
                    LOG.error("the new certificate cannot be used, so the old "
                              "one stays: %s", error)
                self.problem = problem
            else:
                self.seen = seen
                LOG.warning("the certificate was loaded again")
            return self.context


def make_tls(config: Config) -> Optional[Tls]:
    """Return what speaks TLS, None for plain HTTP.

    Raises:
        UsageError: it cannot.
    """
    if config.tls_cert:
        return Tls(config.tls_cert, config.tls_key)
    if config.tls_key:
        raise UsageError("--tls-key needs --tls-cert FILE as well")
    return None


def is_large(response: Response) -> bool:
    return isinstance(response.body, FileSlice) \
        and response.body.length > SMALL_FILE


def wants_more(head: Head) -> bool:
    """Tell whether the connection stays open (RFC 9112, 9.3)."""
    options = head.headers.get("connection", "").lower()
    if head.minor:
        return "close" not in options
    return "keep-alive" in options


def answer(app: App, request: Request
           ) -> Tuple[Response, Optional[BinaryIO]]:
    """Return the response to a request, and the large file that it sends.

    A file may be replaced after the response was made: then another one is.
    """
    for _ in range(3):
        response = respond(app, request)
        body = response.body
        if not isinstance(body, FileSlice) or request.method == "HEAD":
            return response, None
        try:
            file = open_whole(body.path, body.identity)
            if is_large(response):
                return response, file
            with file:
                return response._replace(body=read_part(file, body)), None
        except OSError as error:
            problem = error
            LOG.info("%s cannot be read: %s", body.path, error)
    return error_response(request, HTTPError(
        503, f"the file cannot be read: {problem.strerror}",
        (("Retry-After", "1"),))), None


def read_part(file: BinaryIO, part: FileSlice) -> bytes:
    """Return a part of a file.

    Raises:
        OSError: the file shrank meanwhile.
    """
    file.seek(part.start)
    data = file.read(part.length)
    if len(data) < part.length:
        raise OSError(errno.ESTALE, "it changed meanwhile")
    return data


def headers_of(response: Response) -> Iterator[Tuple[str, str]]:
    """Yield the headers with what only the adapters know."""
    yield from response.headers
    if response.status != 304:
        body = response.body
        yield "Content-Length", str(
            body.length if isinstance(body, FileSlice) else len(body))


def message(request: Request, head: Optional[Head], response: Response,
            keep: bool) -> bytes:
    """Format a response, without its body when that is large.

    Raises:
        ValueError: a header would end before its end.
    """
    reason = response.reason or phrase(response.status)
    lines = [f"HTTP/1.1 {response.status} {reason}",
             "Server: pypi_server", f"Date: {http_date(int(time.time()))}"]
    lines += [f"{name}: {value}" for name, value in headers_of(response)]
    if not keep:
        lines.append("Connection: close")
    elif head and not head.minor:
        lines.append("Connection: keep-alive")
    text = "\r\n".join(lines)
    if text.count("\r") + text.count("\n") != 2 * len(lines) - 2 \
            or "\0" in text:
        raise ValueError(f"a header has a line break: {lines!r}")
    data = (text + "\r\n\r\n").encode("latin-1", "replace")
    if request.method != "HEAD" and isinstance(response.body, bytes) \
            and not large_page(request, response):
        data += response.body
    return data


def large_page(request: Request, response: Response) -> bytes:
    """Return a body that is sent after its head; b"" if that is no page, or
    a small one.

    All who read a page slowly have the same bytes, not a copy each.
    """
    body = response.body
    if isinstance(body, bytes) and len(body) > SMALL_FILE \
            and request.method != "HEAD":
        return body
    return b""


# === 28  Server =============================================================

# Seconds
POLL_INTERVAL = 0.2  # to notice that the server shall stop
GRACE = 30           # for running answers, when the server is stopped
TEND_INTERVAL = 1    # between two looks for connections that wait too long
# Seconds that an answer serves for the same request again, and those that it
# does so at most, while a thread makes it anew.
REPEAT = 0.1
REPEAT_AT_MOST = 0.2
REPEAT_LIMIT = 32 * 1024 ** 2  # bytes of all such answers ...
REPEAT_OVERHEAD = 512          # ... with what Python needs for each
COMPLAIN_INTERVAL = 60  # between two lines about a lack of resources
REFUSED_LIMIT = 100  # connections that are closed a moment after a 503
# Connections that wait to be accepted; uv opens 80 at once.
BACKLOG = 1024
BUSY = (b"HTTP/1.1 503 too many connections\r\nRetry-After: 1\r\n"
        b"Content-Length: 0\r\nConnection: close\r\n\r\n")


class Ready:
    """An answer that goes once more to who sends the same head."""

    __slots__ = ("changes", "data", "page", "renew_at", "until")

    def __init__(self, changes: Any, made: float, data: bytes, page: bytes
                 ) -> None:
        self.changes = changes  # before it was made, see Server.seen()
        self.renew_at = made + REPEAT  # monotonic
        self.until = made + REPEAT_AT_MOST
        self.data = data  # its head, and its body unless that is ...
        self.page = page  # ... a large page

    def holds(self, now: float, changes: Any) -> bool:
        """Tell whether it may be sent once more.

        The first that comes after a while makes it anew; the others do not
        wait for that.
        """
        if now >= self.until or changes != self.changes:
            return False
        if now < self.renew_at:
            return True
        self.renew_at = self.until
        return False


class Connection(BaseHTTPRequestHandler):
    """Translates HTTP/1.1 on a socket to Request and Response."""

    server: "Server"

    def setup(self) -> None:
        # Head and body go out at once anyway; what follows shall not wait.
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request.settimeout(None)
        self.wire = Wire(self.request)
        self.ready = self.server.ready_for(self.client_address[0])
        self.server.register(self)

    def handle(self) -> None:
        """Answer the requests of a client, one after the other.

        How it works: who sends the very head that somebody sent a moment
        ago gets the very bytes that he got.  That takes a tenth of the time
        of making the answer anew.
        """
        if not self.begin_tls():
            return
        wire, ready = self.wire, self.ready
        seen = self.server.seen
        while wire.wait():
            now = time.monotonic()
            # What came together with other things is not a head alone.
            known = None if wire.at else ready.get(wire.buffer)
            if known is not None and known.holds(now, seen()):
                wire.waits_since = 0.0
                wire.at = len(wire.buffer)
                wire.send(known.data)
                if known.page:
                    wire.send(known.page)
            elif not self.handle_request():
                return
            wire.end_request()
            if self.server.is_stopping:  # it may have looked before
                return

    def begin_tls(self) -> bool:
        """Go on with TLS if it is wanted; False when that is impossible."""
        client = self.client_address[0]
        if self.server.tls is None:
            return True
        try:
            self.wire.secure(self.server.tls.current())
        except HTTPError as error:
            self.refuse(Request("GET", "/", "", {}, self.wire.read, client,
                                ""), error)
            return False
        except OSError as error:
            LOG.info("%s made no TLS connection: %s", client, error)
            return False
        return True

    def refuse(self, request: Request, error: HTTPError) -> None:
        """Answer what cannot be read, and close the connection."""
        LOG.info("%s sent a bad request: %s", request.client, error.detail)
        self.wire.begin_request()
        self.wire.send(message(request, None, error_response(request, error),
                               False))
        self.wire.linger(LINGER_REFUSED)

    def finish(self) -> None:
        if self.wire.is_secured:  # nobody else has this socket
            self.wire.end_tls()
            self.wire.sock.close()
        self.server.forget(self)

    def handle_request(self) -> bool:
        """Answer one request; tell whether another may follow."""
        client = self.client_address[0]
        request = Request("GET", "/", "", {}, self.wire.read, client, "")
        try:
            data = self.wire.read_head()
            if data is None:
                return False
            if data.startswith(b"HEAD "):
                request = request._replace(method="HEAD")
            head = parse_head(data)
            body = Body(self.wire, head)
            path, query = split_target(head.target)
            host = head.headers.get("host", "localhost")
            scheme = "https" if self.wire.is_secured else "http"
            request = Request(head.method, path, query, head.headers,
                              body.read, client, f"{scheme}://{host}/",
                              vouch=self.wire.vouch)
        except HTTPError as error:
            self.refuse(request, error)
            return False
        # All of it is a head: the request has no body, and none follows.
        is_alone = body.ended and len(self.wire.buffer) == len(data) + 4
        return self.reply(request, head, body,
                          self.wire.buffer if is_alone else b"")

    def reply(self, request: Request, head: Head, body: Body,
              sole_head: bytes) -> bool:
        """Send the answer to a request; tell whether another may follow."""
        changes = self.server.seen()
        started = time.monotonic()
        response, file = answer(self.server.app, request)
        drained = body.drain()
        keep = drained and wants_more(head) and not self.server.is_stopping
        with contextlib.ExitStack() as files:
            if file:
                files.enter_context(file)
            data = message(request, head, response, keep)
            page = large_page(request, response)
            if keep and sole_head and is_repeatable(
                    self.server.app.config, request, response):
                self.ready.put(
                    sole_head, Ready(changes, started, data, page),
                    len(sole_head) + len(data) + len(page) + REPEAT_OVERHEAD)
            self.wire.send(data)
            if page:
                self.wire.send(page)
            if file and isinstance(response.body, FileSlice):
                keep = self.send_file(file, response.body) and keep
        if not drained:
            self.wire.linger(LINGER_TIMEOUT)
        return keep and not self.server.is_stopping

    def send_file(self, file: BinaryIO, part: FileSlice) -> bool:
        """Send a part of a file; False when it cannot be read to its end.

        The connection must be closed then, since no answer can follow.
        """
        try:
            return self.wire.send_file(file, part.start, part.length)
        except OSError as error:
            if is_network_error(error):
                raise
            LOG.error("%s cannot be read, so a download of it was cut off: "
                      "%s", part.path, error.strerror)
            return False


def is_network_error(error: OSError) -> bool:
    """Tell a client that is gone from a disk that fails."""
    return isinstance(error, (ConnectionError, TimeoutError, socket.timeout)
                      ) or type(error).__module__ == "ssl"


def is_repeatable(config: Config, request: Request,
                  response: Response) -> bool:
    """Tell whether an answer may go to the same request a moment later."""
    return request.method in ("GET", "HEAD") \
        and response.status in (200, 206, 302, 304) \
        and (request.method == "HEAD" or not is_large(response)) \
        and not (config.auther and "authorization" in request.headers) \
        and not LOG.isEnabledFor(logging.INFO)  # each request has its line


if sys.version_info >= (3, 7):
    from http.server import ThreadingHTTPServer
else:
    class ThreadingHTTPServer(ThreadingMixIn, HTTPServer):
        daemon_threads = True


def resolve(host: str, port: int) -> Tuple[socket.AddressFamily, Any]:
    """Return the address family and the address to listen on.

    Raises:
        UsageError: no such host is known.
    """
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host {host!r} is not an address of this "
                         f"machine: {error}")
    # "localhost" is both; what knows only one of them knows IPv4.
    family, _, _, _, address = min(
        found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, address


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UsageError: that address cannot be had.
    """
    family, address = resolve(host, port)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # On Windows it would let another program take the port as well.
        if os.name != "nt":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and hasattr(socket, "IPV6_V6ONLY"):
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot listen on {host!r} port {port} ({error.strerror}); "
            "choose others with --host and --port")
    return listener


def adopt(server: Any, listener: socket.socket) -> None:
    """Let a server of socketserver use a socket that is bound already.

    It asks no name service, as HTTPServer would, which may take long.
    """
    server.socket.close()
    server.socket = listener
    server.server_address = listener.getsockname()
    server.server_name, server.server_port = server.server_address[:2]


def banner(app: App, listener: socket.socket) -> str:
    """Return the line that tells what is served, and where."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    if ":" in host:
        host = f"[{host}]"
    prefix = prefix_of(app.config.server_base_url)
    scheme = "https" if app.config.tls_cert else "http"
    return (f"Serving {len(app.directories.fresh().projects)} projects from "
            f"{', '.join(app.config.roots)} at "
            f"{scheme}://{host}:{port}{prefix}/")


def on_signals(stop: Callable[[], None], is_worker: bool = False) -> None:
    """Let SIGTERM and ^C call `stop`; a second signal does not wait.

    A worker gets it twice when all processes get it, from a terminal or a
    service manager: what a second one means, its supervisor says.
    """
    def begin(number: int, frame: Any) -> None:
        if not told:
            told.append(number)
            begun.set()
        elif not is_worker:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def wait() -> None:
        begun.wait()
        stop()  # it may wait for the loop that the main thread is in
    told: List[int] = []
    begun = threading.Event()
    # Now, since there may be no thread to be had when it is needed.
    threading.Thread(target=wait, daemon=True).start()
    for number in STOPPING:
        signal.signal(number, begin)


class Server(ThreadingHTTPServer):
    """Accepts connections, each in a thread of its own."""

    request_queue_size = BACKLOG

    def __init__(self, app: App) -> None:
        self.app = app
        self.connections: Set[Connection] = set()
        self.changed = threading.Condition()
        self.count = 0  # of connections, with those that only just began
        self.refused: Deque[socket.socket] = collections.deque()
        self.tend_at = 0.0  # monotonic
        self.complain_at = 0.0  # monotonic
        self.is_stopping = False
        self.parent = 0  # of a worker: its supervisor
        # For clients, and for trusted proxies: they get other answers.
        self.ready: Tuple[Recent[Ready], Recent[Ready]] = (
            Recent(REPEAT_LIMIT), Recent(REPEAT_LIMIT))
        self.tls = make_tls(app.config)
        self.passwords = "" if app.config.password_file == "." \
            else os.path.expanduser(app.config.password_file)
        self.listener = listen(app.config.host, app.config.port)
        super().__init__(self.listener.getsockname(), Connection)

    def server_bind(self) -> None:
        adopt(self, self.listener)
        # Another worker may be faster to accept what is waiting.
        self.socket.setblocking(False)

    def seen(self) -> Any:
        """Return what differs after each change by this server, and after
        each of the password file: what an account may ends at once.
        """
        changes = self.app.directories.changes.seen()
        return (changes, look(self.passwords)) if self.passwords else changes

    def ready_for(self, client: str) -> "Recent[Ready]":
        proxies = self.app.config.trusted_proxies
        return self.ready[bool(proxies) and is_trusted(client, proxies)]

    def get_request(self) -> Tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                self.complain(str(error.strerror))
                with self.changed:
                    self.make_room()
                time.sleep(0.1)  # the caller would try again at once
            raise

    def complain(self, problem: str) -> None:
        """Log that clients have to wait, now and then while that lasts."""
        now = time.monotonic()
        if now >= self.complain_at:
            self.complain_at = now + COMPLAIN_INTERVAL
            LOG.error("who connects waits or is refused: %s", problem)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):  # of the socket: all others are caught
            LOG.debug("%s: %s", client_address[0], error)
        else:
            LOG.exception("the connection of %s failed", client_address[0])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own, or not at all."""
        with self.changed:
            self.count += 1
            is_full = self.count > self.app.config.max_connections \
                and not self.make_room()
        if is_full:
            self.refuse(request)
            return
        try:
            super().process_request(request, client_address)
        except (RuntimeError, MemoryError) as error:
            self.complain(str(error) or "no memory")
            with self.changed:
                self.make_room(1.0)  # for who tries it next
            self.refuse(request)

    def refuse(self, request: socket.socket) -> None:
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.send(BUSY)
            request.shutdown(socket.SHUT_WR)
        # Closed at once, what the client still sends would destroy it.
        self.refused.append(request)
        if len(self.refused) > REFUSED_LIMIT:
            self.refused.popleft().close()
        with self.changed:
            self.count -= 1

    def make_room(self, least: float = 0.0) -> bool:
        """End the connection that waits longest; False when none waits.

        Args:
            least: seconds that it has waited.
        """
        latest = time.monotonic() - least
        # Each is asked once, since it may get a request meanwhile.
        waiting = [(connection.wire.waits_since, id(connection), connection)
                   for connection in self.connections
                   if not connection.wire.is_ended]
        waiting = [entry for entry in waiting if 0 < entry[0] <= latest]
        if not waiting:
            return False
        min(waiting)[2].wire.end_wait()
        return True

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self.changed:
            self.count -= 1

    def service_actions(self) -> None:
        """End connections that wait too long; called every POLL_INTERVAL."""
        now = time.monotonic()
        if now < self.tend_at:
            return
        self.tend_at = now + TEND_INTERVAL
        if self.parent and self.parent != os.getppid():
            LOG.error("stopping: the supervisor is gone")
            os.kill(os.getpid(), signal.SIGTERM)
        while self.refused:
            self.refused.popleft().close()
        with self.changed:
            for connection in self.connections:
                wire = connection.wire
                since = wire.waits_since
                if since and not wire.has_request \
                        and now - since > IDLE_TIMEOUT:
                    wire.end_wait()

    def register(self, connection: Connection) -> None:
        with self.changed:
            self.connections.add(connection)
            if self.is_stopping:
                connection.wire.end_wait()

    def forget(self, connection: Connection) -> None:
        with self.changed:
            self.connections.discard(connection)
            self.changed.notify_all()

    def stop(self) -> None:
        """Accept no more, let running answers end, close the others."""
        self.server_close()
        while self.refused:
            self.refused.popleft().close()
        with self.changed:
            self.is_stopping = True
            for connection in self.connections:
                wire = connection.wire
                if wire.waits_since and not wire.has_request:
                    wire.end_wait()
            self.changed.wait_for(lambda: not self.connections, GRACE)


# === 29  Workers ============================================================

MANY_FILES = 65536  # as many as anybody needs
# Seconds that a thread waits for the interpreter before it insists.  With the
# usual 5 ms, one that reads archives would make others wait so long, and 32
# connections get a third less through.
SWITCH_INTERVAL = 0.0005


def serve(app: App, announce: Callable[[str], None],
          watch: Callable[[float, int, int], None]) -> None:
    """Serve until SIGTERM or ^C; tell when it is up, in one line.

    Args:
        watch: see Warmer.

    Raises:
        UsageError: the address cannot be used, or there are no processes.
    """
    workers = app.config.workers or os.cpu_count() or 1
    if workers > 1 and not hasattr(os, "fork"):
        raise UsageError(
            f"--workers {workers} needs fork(), which this system does not "
            "have; leave it away")
    allow_many_files()
    server = Server(app)
    if not app.config.read_only:
        remove_leftovers(app.config.roots)
    line = banner(app, server.socket)
    if hasattr(gc, "freeze"):  # from Python 3.7
        # What stays need not be looked through again, nor copied by workers.
        gc.collect()
        gc.freeze()
    give_back_memory()
    app.warmer.watch = watch
    if workers == 1:
        serve_alone(server, lambda: announce(line))
    else:
        app.directories.changes.share(workers)
        Supervisor(server, workers).run(lambda: announce(line))


def serve_alone(server: Server, announce: Callable[[], None],
                is_first: bool = True) -> None:
    """Serve in this process; `is_first` of those that share a socket."""
    on_signals(server.shutdown, bool(server.parent))
    sys.setswitchinterval(SWITCH_INTERVAL)
    server.app.warmer.is_first = is_first
    server.app.warmer.start()
    announce()
    server.serve_forever(POLL_INTERVAL)
    LOG.info("stopping")
    server.stop()
    server.app.warmer.stop()


class Supervisor:
    """Keeps a number of workers alive that accept from one socket."""

    def __init__(self, server: Server, workers: int) -> None:
        self.server = server
        self.idle = set(range(workers))    # places that have no worker
        self.busy: Dict[int, Tuple[int, float]] = {}  # by process id
        self.is_stopping = False

    def run(self, announce: Callable[[], None]) -> None:
        """Return when the last worker ended after a signal."""
        self.server.parent = os.getpid()
        # Else, where it is ignored, nobody can wait for a worker.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in STOPPING:
            signal.signal(number, self.stop)
        if hasattr(signal, "SIGHUP"):
            reopen = signal.getsignal(signal.SIGHUP)
            signal.signal(signal.SIGHUP, functools.partial(
                self.reopen_log, reopen))
        self.start()
        announce()
        while self.busy:
            process, status = os.waitpid(-1, 0)
            place, started = self.busy.pop(process, (None, 0.0))
            if place is None:
                continue
            self.idle.add(place)
            if not self.is_stopping:
                LOG.error("worker %d ended with status %d; another takes "
                          "its place", process, status)
                if time.monotonic() - started < 1:
                    time.sleep(1)  # it would fail again at once
            self.start()
            if not (self.is_stopping or self.server.app.config.read_only):
                remove_leftovers(self.server.app.config.roots)

    def start(self) -> None:
        """Fork what is missing."""
        while self.idle and not self.is_stopping:
            try:
                self.fork(min(self.idle))
            except OSError as error:
                LOG.error("no process for a worker: %s; trying again",
                          error.strerror)
                time.sleep(1)

    def fork(self, place: int) -> None:
        """Start a worker, while no signal can come between.

        Raises:
            OSError: there are too many processes, or too little memory.
        """
        flush_log()  # its thread would not come along, but its locks
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            process = os.fork()
            if not process:
                self.work(place)
            self.idle.remove(place)
            self.busy[process] = place, time.monotonic()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    def work(self, place: int) -> None:
        """Be a worker; never return."""
        def begin() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        status = 1
        try:
            self.busy.clear()  # they are no children of this process
            self.server.app.directories.changes.place = place
            serve_alone(self.server, begin, place == 0)
            status = 0
        except Exception:
            LOG.exception("a worker failed")
        finally:
            leave(status)

    def stop(self, number: int, frame: Any) -> None:
        self.server.server_close()  # or connections would go on to queue
        self.tell(signal.SIGKILL if self.is_stopping else signal.SIGTERM)
        self.is_stopping = True

    def reopen_log(self, reopen: Any, number: int, frame: Any) -> None:
        reopen(number, frame)
        self.tell(number)

    def tell(self, number: int) -> None:
        for process in self.busy:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)


def leave(status: int) -> None:
    """End this process, at once.

    Threads may still write to a client that does not read.  Where they
    meet a Python that takes itself apart, it aborts instead of ending.
    """
    flush_log()  # what is printed was flushed at once
    os._exit(status)


def flush_log() -> None:
    for handler in LOG.handlers:
        handler.flush()


def allow_many_files() -> None:
    """Raise the limit of open files, which is often 1024, to the maximum."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = hard if 0 < hard < MANY_FILES else MANY_FILES
        if 0 < soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# === 30  WSGI ===============================================================


class FileBlocks:
    """The body of a WSGI response that sends a part of a file."""

    def __init__(self, file: BinaryIO, body: FileSlice) -> None:
        self.file = file
        self.left = body.length
        file.seek(body.start)

    def __iter__(self) -> "FileBlocks":
        return self

    def __next__(self) -> bytes:
        block = self.file.read(min(BLOCK, self.left))
        if not block:
            raise StopIteration
        self.left -= len(block)
        return block

    def close(self) -> None:
        self.file.close()


def wsgi_app(app: App) -> Callable[..., Iterable[bytes]]:
    """Return a WSGI application (PEP 3333) that serves `app`."""
    def application(environ: Dict[str, Any],
                    start_response: Callable[..., Any]) -> Iterable[bytes]:
        app.warmer.start()
        app.directories.catch_up()
        file = None
        try:
            request = wsgi_request(environ)
            response, file = answer(app, request)
        except HTTPError as error:
            path = environ.get("PATH_INFO", "").encode("latin-1")
            request = Request(
                environ["REQUEST_METHOD"], path.decode("utf-8", "replace"),
                "", {}, io.BytesIO().read, environ.get("REMOTE_ADDR", ""), "")
            response = error_response(request, error)
            log_response(app.config, request, response)
        reason = response.reason or phrase(response.status)
        start_response(f"{response.status} {reason}",
                       list(headers_of(response)))
        if file is not None and isinstance(response.body, FileSlice):
            return FileBlocks(file, response.body)
        is_sent = request.method != "HEAD" and isinstance(
            response.body, bytes)
        return [response.body] if is_sent else []  # type: ignore[list-item]
    return application


def wsgi_request(environ: Mapping[str, Any]) -> Request:
    """Translate the environment of a WSGI request.

    Raises:
        HTTPError: 400 when its path is malformed.
    """
    # PEP 3333 hands over bytes dressed as latin-1 text; undress them.
    path = check_path(environ.get("PATH_INFO", "").encode("latin-1"))
    headers = {
        re.sub("^HTTP_", "", name).replace("_", "-").lower(): text
        for name, text in environ.items() if text and (
            name.startswith("HTTP_")
            # CGI left these two without the prefix (RFC 3875, 4.1).
            or name in ("CONTENT_TYPE", "CONTENT_LENGTH"))}
    host = headers.get("host") or "{SERVER_NAME}:{SERVER_PORT}".format(
        **environ)
    script = environ.get("SCRIPT_NAME", "").encode("latin-1")
    return Request(
        environ["REQUEST_METHOD"], path if path or script else "/",
        environ.get("QUERY_STRING", ""), headers, wsgi_reader(environ),
        environ.get("REMOTE_ADDR", ""),
        f"{environ['wsgi.url_scheme']}://{host}{check_path(script)}/")


def wsgi_reader(environ: Mapping[str, Any]) -> Callable[[int], bytes]:
    """Return what reads the body, and never beyond its end."""
    if environ.get("wsgi.input_terminated"):  # the server ends the stream
        return lambda size: bytes(environ["wsgi.input"].read(size))
    text = environ.get("CONTENT_LENGTH") or "0"
    if environ.get("HTTP_TRANSFER_ENCODING") and text == "0":
        raise HTTPError(411, "this server takes no chunked bodies")
    left = int(text) if re.fullmatch("[0-9]+", text) else 0

    def read(size: int) -> bytes:
        nonlocal left
        data: bytes = environ["wsgi.input"].read(min(size, left))
        if left and not data:
            raise HTTPError(400, "the body of the request is incomplete")
        left -= len(data)
        return data
    return read


# The Python API


# Names of settings in the predecessor, and how they are called here.
SETTINGS = {"root": "roots", "passwords": "password_file",
            "authenticate": "authenticated", "interface": "host",
            "server_method": "server", "backend_arg": "backend",
            "redirect_to_fallback": "disable_fallback"}
BOOLEANS = {"1": True, "true": True, "yes": True, "on": True,
            "0": False, "false": False, "no": False, "off": False}


def default_config(**settings: Any) -> Config:
    """Return a configuration, the defaults but for these settings.

    Args:
        settings: fields of Config, by these names or the predecessor's.
            Texts are understood as on the command line, several roots one
            on each line.

    Raises:
        UsageError: a setting is unknown, or has a value that cannot be.
    """
    found: Dict[str, Any] = {}
    for name, value in settings.items():
        field = SETTINGS.get(name, name)
        if field not in Config._fields:
            raise UsageError(f"there is no setting {name!r}; settings are "
                             f"{', '.join(sorted(Config._fields))}")
        if field in found:
            raise UsageError(f"{field} is set twice, as {name!r} too")
        try:
            found[field] = read_value(field, value)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{name} cannot be {value!r}: {error}") from error
        if name == "redirect_to_fallback" and value != "":
            found[field] = not found[field]
    return Config(**found)


def read_value(field: str, value: Any) -> Any:
    """Return the value of a field of Config, from a program or a file.

    Raises:
        UsageError, TypeError, ValueError: it cannot be.
    """
    default = getattr(Config(), field)
    if field == "roots":
        return read_roots(value)
    if field == "auther":
        return read_auther(value)
    if field in FOR_NONE and value in (None, ""):
        return FOR_NONE[field]
    if value == "" and not isinstance(default, tuple):
        return default
    if isinstance(default, bool):
        if isinstance(value, str):
            value = BOOLEANS.get(value.strip().lower(), value)
        if not isinstance(value, bool):
            raise TypeError("it must be true or false")
        return value
    if isinstance(default, tuple):
        value = ",".join(re.split(r"[\s,]+", value.strip())
                         if isinstance(value, str) else value)
    elif isinstance(default, int) or default is None:
        value = read_number(value, default)
    return parse_setting(field, value, default)


# What None stands for, as in the predecessor, and an empty text.
FOR_NONE = dict(
    dict.fromkeys((
        "password_file", "hash_algo", "log_file", "welcome_msg",
        "welcome_file", "cache_dir", "server_base_url"), ""),
    fallback_url=Config().fallback_url, server=Config().server,
    log_stream=Config().log_stream)


def read_roots(value: Any) -> Tuple[str, ...]:
    if isinstance(value, (str, os.PathLike)):
        value = os.fspath(value).splitlines()
    found = tuple(filter(None, (os.fspath(root).strip() for root in value)))
    if not found:
        raise ValueError("name a package directory")
    return found


def read_auther(value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError("it must be callable")
    return value


def read_number(value: Any, default: Any) -> Any:
    """Return a number as text, to be parsed; a default as it is."""
    if value == default:
        return default
    if not isinstance(value, (int, str)) or isinstance(value, bool):
        raise TypeError("it must be a number")
    return str(value)


def parse_setting(field: str, value: Any, default: Any) -> Any:
    """Parse a text as on the command line; a default needs no parsing."""
    if isinstance(default, tuple) and not value:
        return ()
    if value == default and type(value) is type(default):
        return value
    if not isinstance(value, str):
        raise TypeError("it must be a text")
    for option in OPTIONS:
        if option.field == field:
            return int(value) if option.metavar == "+" \
                else option.parse(value)
    return value


def app(**settings: Any) -> Callable[..., Iterable[bytes]]:
    """Return a WSGI application; see default_config() for the settings."""
    return wsgi_app(make_app(default_config(**settings)))


def paste_app_factory(global_config: Mapping[str, Any],
                      **settings: Any) -> Callable[..., Iterable[bytes]]:
    """Return a WSGI application for a section of a paste configuration."""
    return app(**settings)


# Other servers


# Those that only the built-in server heeds.
OWN_SETTINGS = ("workers", "max_connections")


def serve_elsewhere(config: Config, announce: Callable[[str], None]) -> None:
    """Serve with one of the WSGI servers that may be installed.

    Raises:
        UsageError: it is not, or cannot do what the options ask for.
    """
    name, start = WSGI_SERVERS[config.server]
    if config.tls_cert:
        raise UsageError(f"--server {config.server} serves no HTTPS: leave "
                         "away either --server or --tls-cert")
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"--server {config.server} needs {name.partition('.')[0]} for "
            f"this Python ({error}); install it, or leave --server away"
        ) from error
    for field in OWN_SETTINGS:
        if getattr(config, field) != getattr(Config(), field):
            raise UsageError(
                f"--{field.replace('_', '-')} is for the built-in server; "
                f"leave it away, or --server {config.server}")
    if config.server == "gunicorn" and sys.implementation.name == "pypy":
        # It takes a socket that it is given for one of Unix there.
        raise UsageError("--server gunicorn does not work on PyPy; start "
                         "gunicorn itself, with 'pypi_server:app(...)'")
    app = make_app(config)
    # Those that bring no handler end by this, as at ^C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        listener = listen(config.host, config.port)
        if not config.read_only:
            remove_leftovers(app.config.roots)
        announce(banner(app, listener))
        start(module, wsgi_app(app), listener)
    app.warmer.stop()


def serve_wsgiref(module: Any, application: Any, listener: socket.socket
                  ) -> None:
    class Server(ThreadingMixIn, module.WSGIServer):  # type: ignore[misc]
        daemon_threads = True

        def server_bind(self) -> None:
            adopt(self, listener)
            self.setup_environ()

    class Handler(module.WSGIRequestHandler):  # type: ignore[misc]
        def log_request(self, *arguments: Any) -> None:
            """Leave it to the application."""

    server = Server(listener.getsockname(), Handler)
    server.set_app(application)
    on_signals(server.shutdown)  # it would take the exception for a bug
    server.serve_forever(POLL_INTERVAL)


def serve_waitress(module: Any, application: Any, listener: socket.socket
                   ) -> None:
    # Its limit of 1 GiB is for others; here it is --max-upload-size.
    module.serve(application, sockets=[listener], threads=THREADS,
                 max_request_body_size=2 ** 62)


def serve_gunicorn(module: Any, application: Any, listener: socket.socket
                   ) -> None:
    descriptor = listener.detach()
    reopen: Any = getattr(signal, "SIGHUP", None) and signal.getsignal(
        signal.SIGHUP)

    class Standalone(module.BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:  # again at SIGHUP
            self.cfg.set("bind", f"fd://{descriptor}")
            self.cfg.set("worker_class", "gthread")
            self.cfg.set("on_reload", lambda arbiter: reopen(0, None))
            self.cfg.set("threads", THREADS)

        def load(self) -> Any:
            return application
    Standalone().run()


def serve_gevent(module: Any, application: Any, listener: socket.socket
                 ) -> None:
    gevent = importlib.import_module("gevent")
    listener.setblocking(False)
    server = module.WSGIServer(listener, application, log=None)
    for number in STOPPING:
        gevent.signal_handler(number, server.stop)
    server.serve_forever()


def serve_cherrypy(module: Any, application: Any, listener: socket.socket
                   ) -> None:
    class Server(module.Server):  # type: ignore[misc]
        def bind(self, *arguments: Any) -> socket.socket:
            self.socket = listener
            return listener

    server = Server(listener.getsockname()[:2], application,
                    numthreads=THREADS, request_queue_size=BACKLOG)
    on_signals(server.stop)
    server.start()


def serve_twisted(module: Any, application: Any, listener: socket.socket
                  ) -> None:
    loop: Any = importlib.import_module("twisted.internet.reactor")
    site = importlib.import_module("twisted.web.server").Site

    def with_end(environ: Dict[str, Any],
                 start_response: Callable[..., Any]) -> Iterable[bytes]:
        # It reads a body to its end first, and does not say so.
        environ["wsgi.input_terminated"] = True
        found: Iterable[bytes] = application(environ, start_response)
        return found
    listener.setblocking(False)
    loop.adoptStreamPort(listener.fileno(), listener.family, site(
        module.WSGIResource(loop, loop.getThreadPool(), with_end)))
    loop.run()


def serve_paste(module: Any, application: Any, listener: socket.socket
                ) -> None:
    class Server(module.WSGIThreadPoolServer):  # type: ignore[misc]
        def server_bind(self) -> None:
            adopt(self, listener)

    Server(application, listener.getsockname(), module.WSGIHandler,
           nworkers=THREADS, daemon_threads=True).serve_forever()


# The modules that they need, by the names of --server.
WSGI_SERVERS: Dict[str, Tuple[str, Callable[
        [Any, Any, socket.socket], None]]] = {
    "wsgiref": ("wsgiref.simple_server", serve_wsgiref),
    "gunicorn": ("gunicorn.app.base", serve_gunicorn),
    "gevent": ("gevent.pywsgi", serve_gevent),
    "waitress": ("waitress", serve_waitress),
    "cherrypy": ("cheroot.wsgi", serve_cherrypy),
    "twisted": ("twisted.web.wsgi", serve_twisted),
    "paste": ("paste.httpserver", serve_paste)}


# === 31  Update =============================================================

CONNECTIONS = 8        # to the upstream index at once; pip has one, uv 50
UPSTREAM_TIMEOUT = 30  # seconds
REDIRECTS = 5
ANSWER_LIMIT = 256 * 1024 ** 2  # bytes; the largest on PyPI have 30 MiB
ANY_PYTHON = "--ignore-requires-python"  # `pip download` has it since 21.0
# "manylinux_2_17_x86_64" and "manylinux2014_x86_64" are one kind of platform.
PLATFORM_VERSION = re.compile(r"^(manylinux|musllinux|macosx)(?:_\d+_\d+|\d+)")


class Offer(NamedTuple):
    """A file upstream."""

    filename: str
    parsed: Filename
    digest: str  # sha256 in hex, or ""


class Update(NamedTuple):
    """A release upstream that is newer than what is here."""

    project: str
    current: str  # version
    version: str
    offers: Tuple[Offer, ...]  # all of that release
    wanted: Tuple[str, ...]    # filenames of those that are to be fetched
    missing: Tuple[str, ...]   # filenames here that have no like upstream
    directory: str             # where new files go


def read_answer(response: http.client.HTTPResponse) -> bytes:
    """Read the body of an answer, without its coding.

    Raises:
        ValueError: it is cut off, or larger than ANSWER_LIMIT.
    """
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16) \
        if response.headers.get("Content-Encoding") == "gzip" else None
    found: List[bytes] = []
    left = ANSWER_LIMIT
    while True:
        # In blocks: up to Python 3.9, read(n) makes room for n bytes.
        block = response.read(BLOCK)
        if unpacker is not None and block:
            try:
                data = unpacker.decompress(block, left)
            except zlib.error:
                raise ValueError("its gzip coding is broken")
        else:
            data = block
        found.append(data)
        left -= len(data)
        if left <= 0:
            raise ValueError("the answer is too large")
        if not block:
            break
    if response.length or (unpacker is not None and not unpacker.eof):
        raise ValueError("the answer is cut off")
    return b"".join(found)


def check_answer(response: http.client.HTTPResponse) -> None:
    """Refuse what is not an answer of an index.

    Raises:
        ValueError: that is so.
    """
    if response.status != 200:
        raise ValueError(f"{response.status} {response.reason}")
    if response.headers.get_content_type() != SIMPLE_JSON:
        raise ValueError("the index does not speak JSON (PEP 691)")


def check_redirect(origin: str, url: str) -> str:
    """Return the target of a redirect.

    Raises:
        ValueError: it is not HTTP, or leads from HTTPS to HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname \
            or re.search(r"[^!-~]", url) or (
                origin.startswith("https:") and parts.scheme != "https"):
        raise ValueError(f"it redirects to {printable(url)}")
    return url


def find_proxy(parts: SplitResult) -> Optional[SplitResult]:
    """Return the proxy that the environment names for a URL, if any."""
    import urllib.request  # late: nothing else needs it
    proxy = urllib.request.getproxies().get(parts.scheme, "")
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urlsplit(proxy if "://" in proxy else "//" + proxy)


def proxy_headers(proxy: SplitResult) -> Dict[str, str]:
    credentials = basic(proxy.netloc.rpartition("@")[0])
    return {"Proxy-Authorization": credentials} if credentials else {}


def basic(userinfo: str) -> str:
    """Return credentials out of a URL as those of HTTP (RFC 7617)."""
    return "Basic " + base64.b64encode(
        unquote_to_bytes(userinfo)).decode() if userinfo else ""


class Upstream:
    """Persistent connections to an index that speaks JSON (PEP 691)."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        userinfo, _, host = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc=host)).rstrip("/") + "/"
        self.host = host
        self.headers = {"Accept": SIMPLE_JSON, "Accept-Encoding": "gzip",
                        "User-Agent": f"pypi_server/{__version__}"}
        self.credentials = basic(userinfo)
        self.connections: Dict[Tuple[str, str],
                               http.client.HTTPConnection] = {}

    def project(self, name: str) -> Optional[Dict[str, Any]]:
        """Return the detail of a project, None when there is none.

        Raises:
            OSError, http.client.HTTPException: the index cannot be reached.
            ValueError: it answers something else.
        """
        response, data = self.follow(f"{self.url}{name}/", read_answer)
        if response.status == 404:
            return None
        check_answer(response)
        try:
            found = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError):
            raise ValueError("what it answers is not JSON")
        if not isinstance(found, dict):
            raise ValueError("what it answers is no project detail")
        return found

    def check(self) -> None:
        """Make sure that there is an index: it has a list of its projects.

        Raises:
            OSError, http.client.HTTPException, ValueError: see project().
        """
        # That list has tens of megabytes on PyPI, and nobody needs them.
        response, _ = self.follow(self.url, lambda response: b"")
        self.close()
        check_answer(response)

    def follow(self, url: str, read: Callable[
            [http.client.HTTPResponse], bytes]
               ) -> Tuple[http.client.HTTPResponse, bytes]:
        """Return the answer to a GET, after redirects, and what is read."""
        for _ in range(REDIRECTS):
            response, data = self.get(url, read)
            location = response.headers.get("Location")
            if not 300 <= response.status < 400 or not location:
                return response, data
            url = check_redirect(url, urljoin(url, location))
        raise ValueError("too many redirects")

    def get(self, url: str, read: Callable[
            [http.client.HTTPResponse], bytes]
            ) -> Tuple[http.client.HTTPResponse, bytes]:
        """Return the answer to a GET, and what is read of its body."""
        parts = urlsplit(url)
        proxy = find_proxy(parts)
        target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        headers = dict(self.headers, Host=parts.netloc)
        if self.credentials and parts.netloc == self.host:
            headers["Authorization"] = self.credentials
        if proxy and parts.scheme == "http":  # RFC 9112, 3.2.2
            target = url
            headers.update(proxy_headers(proxy))
        for is_last in (False, True):
            connection = self.connect(parts, proxy)
            try:
                connection.request("GET", target, headers=headers)
                response = connection.getresponse()
                data = read(response)
                break
            except (http.client.HTTPException, ConnectionError):
                # It may have been idle for too long: then once more.
                self.connections.pop((parts.scheme, parts.netloc)).close()
                if is_last:
                    raise
        return response, data

    def connect(self, parts: SplitResult, proxy: Optional[SplitResult]
                ) -> http.client.HTTPConnection:
        """Return the connection to a host, made when it is needed first."""
        key = parts.scheme, parts.netloc
        if key not in self.connections:
            if parts.scheme == "https" \
                    and not hasattr(http.client, "HTTPSConnection"):
                raise ValueError(f"this Python was built without ssl, which "
                                 f"{parts.netloc} needs")
            kind = http.client.HTTPSConnection if parts.scheme == "https" \
                else http.client.HTTPConnection
            hop = proxy or parts
            connection = kind(hop.hostname or "", hop.port,
                              timeout=UPSTREAM_TIMEOUT)
            if proxy and parts.scheme == "https":
                connection.set_tunnel(parts.hostname or "", parts.port,
                                      proxy_headers(proxy))
            self.connections[key] = connection
        return self.connections[key]

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()


def read_offers(found: Mapping[str, Any], project: str,
                allow_unstable: bool) -> List[Offer]:
    """Return the files of a project upstream that may be installed.

    Raises:
        KeyError, TypeError, AttributeError: the detail is malformed.
    """
    offers = []
    for file in found["files"]:
        filename = file["filename"]
        parsed = parse_filename(filename)
        if parsed and parsed.project == project \
                and parse_version(parsed.version) \
                and re.fullmatch(r"[\w.+!-]+", filename, re.ASCII) \
                and not file.get("yanked") \
                and (allow_unstable or not is_prerelease(parsed.version)):
            offers.append(Offer(
                filename, parsed, file["hashes"].get("sha256", "")))
    return offers


def find_update(project: str, archives: Sequence[Archive],
                offers: Sequence[Offer], directory: str) -> Optional[Update]:
    """Compare what is here with what is upstream; None when it is current.

    Args:
        directory: where new files go; "" stands for beside the old ones.
    """
    current = max((archive.version for archive in archives), key=version_key)
    newest = max((offer.parsed.version for offer in offers), key=version_key,
                 default=current)
    if version_key(newest) <= version_key(current):
        return None
    ours = [archive for archive in archives
            if version_key(archive.version) == version_key(current)]
    theirs = tuple(offer for offer in offers
                   if version_key(offer.parsed.version)
                   == version_key(newest))
    wanted, missing = [], []
    for archive in ours:
        like = next((offer.filename for offer in theirs
                     if is_alike(archive, offer)), None)
        if like:
            wanted.append(like)
        else:
            missing.append(archive.filename)
    return Update(project, current, normalize_version(newest), theirs,
                  tuple(wanted), tuple(missing),
                  directory or os.path.dirname(ours[0].path))


def is_alike(archive: Archive, offer: Offer) -> bool:
    """Tell whether two files are of the same kind, in different releases."""
    if archive.filetype != offer.parsed.filetype:
        return False
    if archive.filetype != "bdist_wheel":
        return archive.filetype == "sdist"
    python, abi, platforms = wheel_kind(archive.filename)
    other_python, other_abi, other_platforms = wheel_kind(offer.filename)
    return (python, abi) == (other_python, other_abi) and bool(
        platforms & other_platforms)


def wheel_kind(filename: str) -> Tuple[str, str, FrozenSet[str]]:
    """Return what stays the same from release to release of such a wheel.

    >>> wheel_kind("a-1.0-cp311-cp311-manylinux_2_17_x86_64.whl")
    ('cp311', 'cp311', frozenset({'manylinux_x86_64'}))
    """
    pythons, abis, platforms = wheel_tags(filename)
    python, abi = pythons[-1], abis[-1]
    if abi in ("none", "abi3"):  # then the lowest Python that it runs on
        python = python.rstrip("0123456789")
    return python, abi, frozenset(
        PLATFORM_VERSION.sub(r"\1", platform) for platform in platforms)


def pip_commands(update: Update, index: str, directory: str
                 ) -> List[Tuple[str, ...]]:
    """Return what makes pip download an update, without its own name."""
    found = [("-q", "download", "--no-deps", "-i", index, "-d", directory,
              *pip_kind(update.project, filename),
              f"{update.project}=={update.version}")
             for filename in update.wanted]
    return list(dict.fromkeys(found))


def pip_kind(project: str, filename: str) -> List[str]:
    """Return options of pip that make it download this kind of file."""
    if not filename.endswith(".whl"):
        # Of this project only: what builds it may well be a wheel.
        return ["--no-binary", project, ANY_PYTHON]
    pythons, abis, platforms = wheel_tags(filename)
    implementation = pythons[-1].rstrip("0123456789")
    # The Python that the tag names is the lowest; who needs it, has it.
    options = ["--only-binary", ":all:", ANY_PYTHON,
               "--implementation", implementation,
               "--python-version", pythons[-1][len(implementation):]]
    for abi in abis:
        options += ["--abi", abi]
    for platform in platforms:
        options += ["--platform", platform]
    return options


class Progress:
    """A bar on the terminal; nothing where there is none."""

    WIDTH = 40

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.is_shown = sys.stderr.isatty() and total > 0

    def step(self) -> None:
        self.done += 1
        # A thousand lines are enough for any bar.
        if self.is_shown and self.done * 1000 // self.total \
                > (self.done - 1) * 1000 // self.total:
            full = self.WIDTH * self.done // self.total
            end = "\n" if self.done == self.total else ""
            print(f"\r[{'#' * full:<{self.WIDTH}}] {self.done}/{self.total}",
                  end=end, file=sys.stderr, flush=True)


@contextlib.contextmanager
def as_failures() -> Iterator[None]:
    """Make all that can go wrong with an index a ValueError that tells it.
    """
    try:
        yield
    except http.client.HTTPException:
        raise ValueError("what it answers is not HTTP")
    except OSError as error:
        raise ValueError(error.strerror or str(error) or "no answer")


def look_up(upstream: Upstream, name: str, archives: Sequence[Archive],
            config: Config) -> Tuple[bool, Optional[Update]]:
    """Tell whether a project is upstream, and return its update, if any.

    Raises:
        ValueError: it cannot be told.
    """
    with as_failures():
        found = upstream.project(name)
    if found is None:
        return False, None
    try:
        offers = read_offers(found, name, config.allow_unstable)
    except (KeyError, TypeError, AttributeError):
        raise ValueError("what it answers is no project detail")
    return True, find_update(
        name, archives, offers, config.download_directory)


class Answers(NamedTuple):
    """What an index says of all projects; filled by several threads."""

    updates: List[Update]
    failures: Dict[str, str]  # by project
    absent: List[str]


def ask_upstream(config: Config, projects: Mapping[str, Sequence[Archive]]
                 ) -> Answers:
    """Look all projects up, over a few connections."""
    answers = Answers([], {}, [])
    progress = Progress(len(projects))
    lock = threading.Lock()
    idle: List[Upstream] = []  # those that no thread uses

    def ask(name: str) -> None:
        try:
            upstream = idle.pop()
        except IndexError:
            upstream = Upstream(config.index_url)
        try:
            is_there, update = look_up(upstream, name, projects[name], config)
            if update:
                answers.updates.append(update)
            if not is_there:
                answers.absent.append(name)
        except ValueError as error:
            answers.failures[name] = str(error)
        idle.append(upstream)
        with lock:
            progress.step()

    together(ask, sorted(projects), CONNECTIONS - 1)
    for upstream in idle:
        upstream.close()
    answers.updates.sort()
    return answers


def read_ignored(path: str) -> FrozenSet[str]:
    """Return the normalized names of an ignore list, one on each line."""
    if not path:
        return frozenset()
    lines = read_setting("--ignorelist-file", path).lstrip("\ufeff")
    names = [line.partition("#")[0].strip() for line in lines.splitlines()]
    for name in filter(None, names):
        if not PROJECT_NAME.fullmatch(name):
            raise UsageError(f"--ignorelist-file: {name!r} is not the name "
                             "of a project; write one on each line")
    return frozenset(normalize(name) for name in names if name)


def update_all(config: Config) -> int:
    """Print or run what brings all projects to their newest release.

    Returns:
        the exit status: 1 when something failed.
    """
    directory = config.download_directory
    if directory and os.path.exists(directory) \
            and not os.path.isdir(directory):
        raise UsageError(f"-d: {directory!r} is not a directory")
    ignored = read_ignored(config.ignorelist_file)
    tree = Tree([package_directory(root) for root in config.roots])
    tree.refresh()
    projects = {name: archives
                for name, archives in tree.snapshot.projects.items()
                # Others can be nowhere else, and pip could take them for
                # an option.
                if name not in ignored and PROJECT_NAME.fullmatch(name)}
    answers = ask_upstream(config, projects)
    updates = answers.updates
    failed = bool(tree.snapshot.closed) or not print_answers(
        config, answers, len(projects))
    for path, problem in tree.snapshot.closed.items():
        complain(f"{path} cannot be read ({problem}): what is in it was not "
                 "looked up")
    pip = pip_version() if config.execute and updates else 0
    for update in updates:
        show_update(config, update)
        if pip:
            failed |= not execute(config, update, pip)
    if config.execute and updates and not pip:
        complain(f"-x needs pip for {sys.executable}; install it, or run "
                 "these commands with another one")
        failed = True
    return 1 if failed else 0


def complain(text: str) -> None:
    print(f"pypi-server: {text}", file=sys.stderr)


def print_answers(config: Config, answers: Answers, total: int) -> bool:
    """Tell what there is besides updates; False when that is a failure."""
    updates, failures, absent = answers
    if failures:
        print_failures(config, failures, total)
    if absent and len(absent) == total and not is_index(config):
        return False
    if not updates and len(failures) < max(total, 1):
        more = f"; {len(absent)} are not upstream" if absent else ""
        print(f"# nothing to update among {total - len(failures)} "
              f"projects{more}")
    elif absent:
        print(f"# {len(absent)} of {total} projects are not upstream")
    return not failures


def print_failures(config: Config, failures: Mapping[str, str],
                   total: int) -> None:
    """Tell which projects could not be looked up; once, when none could."""
    reasons = set(failures.values())
    if len(failures) == total and len(reasons) == 1:
        url = re.sub("//[^/]*@", "//", config.index_url)
        complain(f"{url} cannot be asked: {reasons.pop()}")
        return
    for name in sorted(failures):
        complain(f"{name} could not be looked up: {failures[name]}")


def is_index(config: Config) -> bool:
    """Tell whether an index is where none of the projects was found."""
    upstream = Upstream(config.index_url)
    try:
        with as_failures(), contextlib.closing(upstream):
            upstream.check()
    except ValueError as error:
        complain(f"{upstream.url} has none of the projects that are here, "
                 f"and no list of others ({error}); name another --index-url")
        return False
    return True


def show_update(config: Config, update: Update) -> None:
    print(f"# update {update.project} from {update.current} "
          f"to {update.version}")
    for filename in update.missing:
        print(f"# {update.version} has no file of the kind of {filename}")
    for command in pip_commands(update, config.index_url, update.directory):
        print(" ".join(map(shlex.quote, ("pip",) + command)), flush=True)


def pip_version() -> int:
    """Return the major version of this Python's pip; 0 when it has none."""
    try:
        pip = importlib.import_module("pip")
    except ImportError:
        return 0
    found = re.match(r"\d+", getattr(pip, "__version__", ""))
    return int(found.group()) if found else 0


def execute(config: Config, update: Update, pip: int) -> bool:
    """Fetch an update with pip; False when a part of it failed.

    What pip brings is hidden beside its destination until it is checked.
    """
    import subprocess  # late: nothing but update needs it
    folder = temporary_path(update.directory)
    try:
        os.makedirs(folder)
        is_fine = True
        for command in pip_commands(update, config.index_url, folder):
            status = subprocess.call(  # noqa: S603  names out of filenames
                [sys.executable, "-m", "pip"] + [
                    word for word in command
                    if word != ANY_PYTHON or pip >= 21])
            if status:
                complain(f"{update.project} could not be fetched: pip ended "
                         f"with status {status}")
                is_fine = False
        for filename in sorted(os.listdir(folder)):
            problem = keep(update, os.path.join(folder, filename))
            if problem:
                complain(f"{filename} {problem}")
                is_fine = False
        return is_fine
    except ProcessLookupError:  # up to 3.8, when a signal ends both at once
        raise KeyboardInterrupt
    except OSError as error:
        complain(f"{update.project} cannot be updated: {error}")
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def keep(update: Update, path: str) -> str:
    """Give a file that pip brought its place; return why it is refused."""
    digests = {offer.filename: offer.digest for offer in update.offers}
    filename = os.path.basename(path)
    digest = sha256_of(path)
    if digests.get(filename) not in ("", digest):
        return "is not the file that upstream has; it was removed"
    final = os.path.join(update.directory, filename)
    try:
        with lock_names(update.directory):
            move_new(path, final)
    except HTTPError as error:
        return f"was not stored: {error.detail}"
    except FileExistsError:
        return "" if sha256_of(final) == digest \
            else "is here already, with other content"
    make_last(final)
    return ""


# === 32  Yank ===============================================================


def read_tree(roots: Sequence[str]) -> Tree:
    """Return the names in package directories that exist.

    Raises:
        UsageError: one does not exist, or cannot be read.
    """
    paths = []
    for root in roots:
        path = os.path.abspath(os.path.expanduser(root))
        if not os.path.isdir(path):
            raise UsageError(f"there is no package directory {path!r}")
        paths.append(package_directory(path))
    tree = Tree(sorted(set(paths), key=paths.index))
    logging.disable(logging.ERROR)  # who calls this reports what is withheld
    try:
        tree.refresh()
    finally:
        logging.disable(logging.NOTSET)
    if tree.snapshot.unreadable:
        raise UsageError("a package directory cannot be read: "
                         f"{tree.snapshot.unreadable}")
    return tree


def all_archives(tree: Tree) -> List[Archive]:
    """Return the archives that are served, and those in their shadow."""
    return sorted(tree.snapshot.archives.values()) + sorted(
        archive for shadowed in tree.shadowed.values()
        for archive in shadowed)


def find_archives(root: str, requirement: str) -> List[Archive]:
    """Return the archives that a filename or a requirement means.

    Those in the shadow of others count: they would come to light unyanked.

    Raises:
        UsageError: it is neither, or no archive is meant.
    """
    archives = all_archives(read_tree([root]))
    wanted = parse_requirement(requirement)
    if parse_filename(requirement):
        found = [archive for archive in archives
                 if archive.filename == requirement]
    elif wanted:
        found = [archive for archive in archives
                 if archive.project == wanted[0] and all(
                     satisfies(archive.version, *clause)
                     for clause in wanted[1])]
    else:
        raise UsageError(
            f"{requirement!r} is not the name of a project with versions, as "
            "'foo==1.2' or 'foo>=1,<2', nor the name of an archive")
    if not found:
        raise UsageError(f"no archive in {root!r} is meant by "
                         f"{requirement!r}; nothing was changed")
    return found


def check_reason(reason: str) -> None:
    """Refuse a reason that pages would not show as it is.

    Raises:
        UsageError: it has more than one line, or too many bytes.
    """
    if not reason.isprintable():
        raise UsageError(f"a reason is one line of text, not {reason!r}")
    if len(reason.encode("utf-8")) >= COMPANION_LIMIT:
        raise UsageError("a reason has at most "
                         f"{COMPANION_LIMIT - 1} bytes")


def yank(root: str, requirement: str, reason: Optional[str]) -> None:
    """Write the companion files that withdraw archives (PEP 592).

    Args:
        reason: None leaves one that was given before.

    Raises:
        UsageError: nothing is meant, or it cannot be written.
    """
    check_reason(reason or "")
    for archive in find_archives(root, requirement):
        path = archive.path + YANKED
        before = read_text(path) if os.path.exists(path) else None
        now = (before or "") if reason is None else " ".join(reason.split())
        if now == before:
            print(f"already yanked {archive.path}")
            continue
        try:
            write_companion(path, now + "\n" if now else "")
        except OSError as error:
            raise UsageError(f"{path!r} cannot be written: {error.strerror}")
        print(f"yanked {archive.path}")


def unyank(root: str, requirement: str) -> None:
    """Remove the companion files that withdraw archives.

    Raises:
        UsageError: nothing is meant, or it cannot be removed.
    """
    for archive in find_archives(root, requirement):
        path = archive.path + YANKED
        try:
            removed = remove_files([path])
        except OSError as error:
            raise UsageError(f"{path!r} cannot be removed: {error.strerror}")
        print(f"unyanked {archive.path}" if removed
              else f"not yanked {archive.path}")


def write_companion(path: str, text: str) -> None:
    """Write a companion file in one step, replacing another.

    Raises:
        OSError: it cannot be written; then nothing has changed.
    """
    incoming = Incoming(os.path.dirname(path))
    try:
        incoming.write(text.encode("utf-8"))
        incoming.sync()
        incoming.place(path, overwrite=True)
    finally:
        incoming.close()
    sync_directory(os.path.dirname(path))


# === 33  Inspection =========================================================

# A wheel that grows more than this is not unpacked: text of one letter grows
# a thousandfold, code and data less than twentyfold.
GROWTH_LIMIT = 100
UNPACKED_ALWAYS = 256 * 1024 ** 2  # bytes; so much takes a second at most
RECORD_LIMIT = 2 * ZIP_DIRECTORY_LIMIT  # bytes; a digest for each member
SPARE_LINES = 1000  # of a RECORD; some list what was left out
PYPROJECT_LIMIT = 1024 ** 2  # bytes; large ones have 50 KiB
# RECORD and its signatures have no digests (PEP 427, 376).
UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")
RECORD_HASHES = ("sha256", "sha384", "sha512")
SHOWN = 3  # problems of one kind that are told of one archive
# What an sdist is built with when it does not say (PEP 517).
SETUPTOOLS = ("setuptools>=40.8.0",)
# Members of an sdist that tell what it requires.
SDIST_MEMBER = re.compile(
    rb"(?:\./)?[^/]+/(?:(pyproject\.toml)"
    rb"|(?:[^/]+/)?[^/]+\.egg-info/(requires\.txt))")
REQUIREMENTS_LIMIT = 20000  # of one archive; the most on PyPI are 7000
BATCH = 16  # archives that a process is given at once
WORTHWHILE = 200  # archives, or MiB, that a further process pays for


class Job(NamedTuple):
    """An archive that is to be inspected."""

    archive: Archive
    identity: Identity
    algorithms: Tuple[str, ...]  # of its digests
    with_requirements: bool


class Reading(NamedTuple):
    """What the inspection of an archive found."""

    facts: Facts
    problems: Tuple[Tuple[str, str], ...] = ()  # (kind, sentence)
    requires: Tuple[str, ...] = ()              # PEP 508
    build_requires: Tuple[str, ...] = ()        # of an sdist


def inspect_archive(job: Job) -> Reading:
    """Read all of an archive; never raises for what is in it."""
    try:
        with open_whole(job.archive.path, job.identity) as file:
            reading = inspect_file(file, job)
            if identify(os.fstat(file.fileno())) != job.identity:
                raise OSError(errno.ESTALE, "it changed meanwhile")
            return reading
    except Exception as error:
        problem = str(error) or type(error).__name__
        if isinstance(error, OSError) and is_read_error(error):
            problem = f"it cannot be read: {error.strerror or error}"
        return Reading(withheld(problem))


def inspect_file(file: BinaryIO, job: Job) -> Reading:
    archive = job.archive
    hashes = {name: make_hash(name) for name in job.algorithms}
    metadata = read_metadata(file, archive, hashes)
    facts = make_facts(archive, metadata, {
        name: found.hexdigest() for name, found in hashes.items()})
    problems: List[Tuple[str, str]] = []
    fields = parse_metadata(metadata or b"")
    if metadata is not None:
        problems += unlike_metadata(archive, fields)
    if archive.filename.endswith((".whl", ".egg", ".zip")):
        problems += unpack_zip(file, archive)
    requires = fields.get("requires-dist", [])
    build_requires: Sequence[str] = ()
    if job.with_requirements and archive.filetype == "sdist":
        try:
            members = read_sdist(file, archive)
            requires = requires or parse_requires(
                members.get("requires.txt", b""))
            build_requires = parse_build(members.get("pyproject.toml"))
        except ValueError as error:
            problems.append(("requirement", str(error)))
    if len(requires) > REQUIREMENTS_LIMIT:
        problems.append(("requirement", f"it has {len(requires)}; the first "
                         f"{REQUIREMENTS_LIMIT} count here"))
    return Reading(facts, tuple(problems),
                   tuple(requires[:REQUIREMENTS_LIMIT]),
                   tuple(build_requires[:REQUIREMENTS_LIMIT]))


def unlike_metadata(archive: Archive, fields: Mapping[str, List[str]]
                    ) -> Iterator[Tuple[str, str]]:
    """Yield where a filename and the metadata differ, as problems."""
    name, version = first(fields, "name"), first(fields, "version")
    if not name:
        yield "name", "its metadata has no Name"
    elif normalize(name) != archive.project:
        yield "name", f"its metadata is that of {name!r}"
    if not version:
        yield "version", "its metadata has no Version"
    elif not is_same_version(version, archive.version):
        yield "version", f"its metadata is that of version {version!r}"
    elif not parse_version(version):
        yield "version", (f"{version!r} is no version (PEP 440); installers "
                          "pass over it")


# Members of zip files


def unpack_zip(file: BinaryIO, archive: Archive) -> List[Tuple[str, str]]:
    """Unpack all members, and compare those of a wheel with its RECORD.

    Returns:
        problems; the first of each kind, and how many more there are.
    """
    size = file.seek(0, io.SEEK_END)
    members = [member for member in zip_members(file)
               if not member.path.endswith("/")]
    whole = sum(member.size for member in members)
    if sum(member.packed for member in members) > size:
        return [("broken", "its members overlap")]
    if whole > GROWTH_LIMIT * size + UNPACKED_ALWAYS:
        return [("broken", f"its {size} bytes unpack to {whole}; its "
                 "members were not read")]
    record = None
    if archive.filetype == "bdist_wheel":
        metadata = metadata_member(
            [member.path for member in members], archive) or ""
        place = metadata.rpartition("/")[0] + "/"
        try:
            record = read_record(file, members, place + "RECORD")
        except ValueError as error:
            return [("record", str(error))] + first_of_each(
                unpack_members(file, members, None, ""))
    return first_of_each(unpack_members(
        file, members, record, place if record else ""))


def first_of_each(problems: Iterable[Tuple[str, str]]
                  ) -> List[Tuple[str, str]]:
    """Return the first problems of each kind, and the number of the rest."""
    found: List[Tuple[str, str]] = []
    counts: Dict[str, int] = collections.Counter()
    for kind, problem in problems:
        counts[kind] += 1
        if counts[kind] <= SHOWN:
            found.append((kind, problem))
    return found + [(kind, f"and {count - SHOWN} more of that kind")
                    for kind, count in sorted(counts.items())
                    if count > SHOWN]


def read_record(file: BinaryIO, members: Sequence[Member], path: str
                ) -> Dict[str, Tuple[str, str]]:
    """Return {path: (digest as ALGORITHM=TEXT, size)} of a RECORD.

    Raises:
        ValueError: there is none, or it cannot be understood.
    """
    import csv  # late: nothing else needs it
    record = next((member for member in members if member.path == path), None)
    if record is None:
        raise ValueError("it has no RECORD")
    data = read_member(file, record, RECORD_LIMIT)
    found = {}
    try:
        for number, row in enumerate(csv.reader(io.StringIO(
                data.decode("utf-8-sig"), newline=""))):
            if number > 2 * len(members) + SPARE_LINES:
                raise ValueError("its RECORD has far more lines than there "
                                 "are members")
            if len(row) > 2:
                found[row[0]] = row[1], row[2]
    except (UnicodeDecodeError, csv.Error):
        raise ValueError("its RECORD is not a table in UTF-8")
    return found


def unpack_members(file: BinaryIO, members: Iterable[Member],
                   record: Optional[Dict[str, Tuple[str, str]]], place: str
                   ) -> Iterator[Tuple[str, str]]:
    """Yield the problems of members.

    Args:
        record: what they should be; None when nothing says so.
        place: of RECORD, with its final slash.
    """
    seen: Set[str] = set()
    unrecorded = {place + name for name in UNRECORDED}
    for member in members:
        path = member.path
        if path in seen:
            yield "broken", f"it has two members {path!r}"
        seen.add(path)
        expected, size = ("", "") if record is None \
            else record.get(path, ("", ""))
        algorithm, _, text = expected.partition("=")
        known = algorithm if algorithm in RECORD_HASHES else "sha256"
        found = make_hash(known)
        try:
            for piece in unpacked(file, member):
                found.update(piece)
        except ValueError as error:
            yield "broken", str(error)
            continue
        digest = base64.urlsafe_b64encode(found.digest()).decode().rstrip("=")
        if record is None or path in unrecorded:
            continue
        if path not in record:
            yield "record", f"its RECORD lacks {path!r}"
        elif algorithm != known:
            yield "record", (f"its RECORD has no digest of {path!r} that is "
                             f"one of {', '.join(RECORD_HASHES)}")
        elif text.rstrip("=") != digest or size not in (
                "", str(member.size)):
            yield "record", f"{path!r} is not what its RECORD says"
    for path in sorted((record or {}).keys() - seen - unrecorded):
        yield "record", f"its RECORD lists {path!r}, which it does not have"


# Requirements of sdists


def read_sdist(file: BinaryIO, archive: Archive) -> Dict[str, bytes]:
    """Return pyproject.toml and requires.txt of setuptools, if there are."""
    file.seek(0)
    if archive.filename.endswith(TAR_EXTENSIONS):
        scanner = SdistScanner()
        for block in decompressed(hashed(file, {}), archive.filename):
            scanner.feed(block)
        return scanner.found
    found: Dict[str, bytes] = {}
    for member in zip_members(file):
        name = sdist_member(member.path.encode("utf-8", "replace"))
        if name and name not in found:
            found[name] = read_member(file, member, METADATA_LIMIT)
    return found


def sdist_member(path: bytes) -> str:
    """Return what a member of an sdist is, "" for one of no interest."""
    found = SDIST_MEMBER.fullmatch(path)
    return (found.group(1) or found.group(2)).decode() if found else ""


class SdistScanner(TarScanner):
    """Collects the members of an sdist that tell what it requires."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Dict[str, bytes] = {}
        self.wanted_name = ""

    def is_wanted(self, name: bytes) -> bool:
        self.wanted_name = sdist_member(name)
        return bool(self.wanted_name) and self.wanted_name not in self.found

    def take_wanted(self, data: bytes) -> None:
        self.found[self.wanted_name] = data


def parse_requires(data: bytes) -> List[str]:
    """Return what requires.txt of setuptools says, as PEP 508 does.

    >>> parse_requires(b"a>1\\n\\n[x:os_name=='nt']\\nb\\n")
    ['a>1', "b ; (os_name=='nt') and extra == 'x'"]
    """
    found, marker = [], ""
    for line in data.decode("utf-8", "replace").splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            extra, _, condition = line[1:-1].partition(":")
            marker = " and ".join(filter(None, (
                f"({condition})" if condition else "",
                f"extra == '{extra}'" if extra else "")))
        elif line and not line.startswith("#"):
            found.append(f"{line} ; {marker}" if marker else line)
    return found


def parse_build(data: Optional[bytes]) -> Sequence[str]:
    """Return the build requirements in a pyproject.toml (PEP 518).

    Args:
        data: None when there is no such file.

    Raises:
        ValueError: they cannot be told.
    """
    if data is None:
        return SETUPTOOLS
    if len(data) > PYPROJECT_LIMIT:
        raise ValueError("its pyproject.toml has more than "
                         f"{PYPROJECT_LIMIT} bytes")
    try:
        system = parse_toml(data.decode("utf-8")).get("build-system")
    except Exception as error:  # each library has a type of its own
        raise ValueError(f"its pyproject.toml cannot be read: {error}")
    if system is None:
        return SETUPTOOLS
    requires = system.get("requires") if isinstance(system, dict) else None
    if not isinstance(requires, list) or not all(
            isinstance(each, str) for each in requires):
        raise ValueError("its pyproject.toml has a build-system without a "
                         "list that it requires")
    return requires


def parse_toml(text: str) -> Dict[str, Any]:
    for name in ("tomllib", "tomli", "pip._vendor.tomli",
                 "pip._vendor.toml", "pip._vendor.pytoml"):
        try:
            library = importlib.import_module(name)
        except ImportError:
            continue
        found: Dict[str, Any] = library.loads(text)
        return found
    raise ValueError("this Python has no library for TOML; that of 3.11 has, "
                     "and any pip")


# Processes


def inspect_all(jobs: Sequence[Job]) -> Iterator[Tuple[Job, Reading]]:
    """Yield what was found in each archive, in any order, on all cores."""
    weight = len(jobs) + sum(job.identity.size for job in jobs) // 1024 ** 2
    count = min(cores(), weight // WORTHWHILE + 1, len(jobs))
    waiting = collections.deque(
        list(jobs[at:at + BATCH]) for at in range(0, len(jobs), BATCH))
    if count > 1:
        yield from inspect_in_processes(waiting, count)
    for batch in waiting:
        for job in batch:
            yield job, inspect_archive(job)


def cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only on Linux
        return os.cpu_count() or 1


def inspect_in_processes(waiting: "collections.deque[List[Job]]", count: int
                         ) -> Iterator[Tuple[Job, Reading]]:
    """Let processes take batches; leave what they cannot.

    A process that an archive takes down costs no more than that archive:
    its batch is done once more, one by one.
    """
    import multiprocessing.connection  # late: nothing else needs it
    team: Dict[Any, Tuple[Any, Optional[List[Job]]]] = {}
    try:
        for _ in range(count):
            with contextlib.suppress(OSError):
                process, pipe = start_inspector()
                team[pipe] = process, None
        while team:
            ready: List[Any] = multiprocessing.connection.wait(list(team))
            for pipe in ready:
                process, batch = team.pop(pipe)
                try:
                    readings = pipe.recv()
                except (EOFError, OSError):
                    if batch is None:
                        continue  # it cannot even start
                    if len(batch) == 1:
                        yield batch[0], Reading(withheld(
                            "the process that read it came to an end"))
                    else:
                        waiting.extend([job] for job in batch)
                    # Without another one, others do its work.
                    with contextlib.suppress(OSError):
                        process, pipe = start_inspector()
                        team[pipe] = process, None
                    continue
                yield from zip(batch or (), readings)
                if not waiting:
                    pipe.close()
                    continue
                team[pipe] = process, waiting.popleft()
                with contextlib.suppress(OSError):  # that shows above
                    pipe.send(team[pipe][1])
    finally:
        for process, _ in team.values():
            process.terminate()


def start_inspector() -> Tuple[Any, Any]:
    """Start a process that inspects; return it, and the pipe to it."""
    import multiprocessing  # late: nothing else needs it
    # Not forked: it would hold the pipes of those before it.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=inspect_for, args=(there,), daemon=True)
    with uninterrupted():
        process.start()
    there.close()
    return process, here


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let ^C wait; a process that is started meanwhile never sees it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    with contextlib.suppress(ImportError):  # new in Python 3.8
        from multiprocessing import resource_tracker
        resource_tracker.ensure_running()  # its start would let ^C through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def inspect_for(pipe: Any) -> None:
    """Inspect the archives that come over a pipe, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this ends it
    with contextlib.suppress(EOFError, OSError):
        pipe.send([])
        while True:
            pipe.send([inspect_archive(job) for job in pipe.recv()])


# === 34  Target =============================================================

# PEP 513, 571, 599: what these were called before PEP 600, by glibc 2.N.
LEGACY_LINUX = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
MAC_FORMATS = {"x86_64": ("x86_64", "intel", "fat64", "fat3", "universal2",
                          "universal"),
               "arm64": ("arm64", "universal2")}
WINDOWS_MACHINES = {"win32": "x86", "win_amd64": "AMD64",
                    "win_arm64": "ARM64"}


class Target(NamedTuple):
    """The Python that is to be installed for; CPython."""

    python: str               # its whole version
    platform: str             # tag of wheels
    markers: Dict[str, str]   # PEP 508, "Environment Markers"
    ranks: Dict[str, int]     # by tag of wheels; the best has 0


def linux_tags(minor: int, machine: str) -> List[str]:
    """Return the tags that glibc 2.MINOR takes, the best first (PEP 600)."""
    oldest = 5 if machine in ("x86_64", "i686") else 17
    found = []
    for each in range(minor, oldest - 1, -1):
        found.append(f"manylinux_2_{each}_{machine}")
        if each in LEGACY_LINUX:
            found.append(f"{LEGACY_LINUX[each]}_{machine}")
    return found + [f"linux_{machine}"]


def mac_tags(major: int, minor: int, machine: str) -> List[str]:
    """Return the tags that a macOS takes, the best first."""
    versions = [(each, 0) for each in range(major, 10, -1)]
    tenth = [(10, each) for each in range(
        16 if major > 10 else minor, 3, -1)]
    formats = MAC_FORMATS[machine]
    # Of the time before 11, Arm takes what was built for both.
    older = ("universal2",) if machine == "arm64" else formats
    return [f"macosx_{each}_{part}_{name}"
            for each, part in versions for name in formats] + [
        f"macosx_{each}_{part}_{name}"
        for each, part in tenth for name in older]


def platform_tags(platform: str) -> List[str]:
    """Return the platform tags that a platform takes, the best first.

    Raises:
        UsageError: it is none that is known.

    >>> platform_tags("manylinux2014_aarch64")[1:]
    ['manylinux2014_aarch64', 'linux_aarch64']
    """
    found = re.fullmatch(
        r"manylinux(1|2010|2014|_2_(\d{1,3}))_([a-z]\w+)", platform)
    if found:
        minor = int(found.group(2) or {
            name: each for each, name in LEGACY_LINUX.items()}[
                "manylinux" + found.group(1)])
        return linux_tags(minor, found.group(3))
    found = re.fullmatch(r"musllinux_1_(\d{1,3})_([a-z]\w+)", platform)
    if found:
        return [f"musllinux_1_{each}_{found.group(2)}" for each in range(
            int(found.group(1)), -1, -1)] + [f"linux_{found.group(2)}"]
    found = re.fullmatch(r"macosx_(1\d|2\d)_(\d{1,2})_(x86_64|arm64)",
                         platform)
    if found:
        return mac_tags(int(found.group(1)), int(found.group(2)),
                        found.group(3))
    if platform in WINDOWS_MACHINES:
        return [platform]
    raise UsageError(
        "--platform must be a platform tag of wheels, as "
        "manylinux_2_28_x86_64, musllinux_1_2_x86_64, macosx_14_0_arm64 or "
        f"win_amd64, not {platform!r}")


def tag_ranks(minor: int, platforms: Sequence[str]) -> Dict[str, int]:
    """Return the tags that CPython 3.MINOR takes, and their order (PEP 425).
    """
    this = f"cp3{minor}"
    pairs = [(this, this + "m" * (minor < 8)), (this, "abi3"), (this, "none")]
    pairs += [(f"cp3{each}", "abi3") for each in range(minor - 1, 1, -1)]
    pure = [f"py3{minor}", "py3"] + [
        f"py3{each}" for each in range(minor - 1, -1, -1)]
    tags = [f"{python}-{abi}-{platform}"
            for python, abi in pairs + [(python, "none") for python in pure]
            for platform in platforms]
    tags += [f"{python}-none-any" for python in [this] + pure]
    return {tag: rank for rank, tag in enumerate(tags)}


def make_target(python: str, platform: str) -> Target:
    """Return a target.

    Args:
        python: "3.11" stands for the oldest of them, 3.11.0.

    Raises:
        UsageError: the platform is not known.
    """
    parts = python.split(".")
    full = ".".join((parts + ["0"])[:3])
    if platform.startswith("win"):
        system = "nt", "win32", "Windows", WINDOWS_MACHINES.get(platform, "")
    elif platform.startswith("macosx"):
        system = ("posix", "darwin", "Darwin",
                  "arm64" if platform.endswith("arm64") else "x86_64")
    else:
        machine = re.sub(r"^[a-z]+(\d+|(_\d+){2})_", "", platform)
        system = "posix", "linux", "Linux", machine
    markers = dict(zip(("os_name", "sys_platform", "platform_system",
                        "platform_machine"), system))
    markers.update(
        python_version=".".join(parts[:2]), python_full_version=full,
        implementation_name="cpython", implementation_version=full,
        platform_python_implementation="CPython", platform_release="",
        platform_version="")
    return Target(full, platform, markers,
                  tag_ranks(int(parts[1]), platform_tags(platform)))


def this_platform() -> str:
    """Return the platform tag of this machine.

    Raises:
        UsageError: nothing here tells it.
    """
    import sysconfig  # late: nothing else needs it
    name = re.sub("[-.]", "_", sysconfig.get_platform())
    if name.startswith("win"):
        return name
    with contextlib.suppress(AttributeError, ValueError, OSError):
        library = os.confstr("CS_GNU_LIBC_VERSION") or ""
        found = re.match(r"glibc 2\.(\d+)", library)
        if found and name.startswith("linux_"):
            return f"manylinux_2_{found.group(1)}_{name[len('linux_'):]}"
    raise UsageError("name the platform, with --platform")


def load_packaging() -> Any:
    """Return packaging.requirements, as pip carries it or by itself.

    Raises:
        UsageError: there is neither.
    """
    for name in ("pip._vendor.packaging", "packaging"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name + ".requirements")
    raise UsageError("--closure needs the library packaging, which pip "
                     f"carries: {sys.executable} has neither; try `python3 "
                     "-m ensurepip`, or install packaging")


# === 35  Closure ============================================================

# Releases that are tried for one, before it is given up as undecided.
TRIES = 2000
EXTRA = re.compile(r"(\bextra\s*==\s*['\"])([\w.-]+)")
REQUIREMENT_LIMIT = 10000  # characters; with all its markers
# With one of these, a pre-release is asked for (PEP 440); in packaging.
WITH_PRERELEASES = ("==", ">=", "<=", "~=", "===")

# A release, or one of its extras: (project, version, extra or "").
Node = Tuple[str, str, str]
# The nodes that together meet a requirement, for each release that does.
Choices = List[Tuple[Node, ...]]


class Need(NamedTuple):
    """A requirement that counts on the target."""

    text: str                # without its marker
    project: str             # normalized; "" when it is none (PEP 508)
    extras: Tuple[str, ...]  # normalized
    specifier: Any           # a SpecifierSet of packaging
    versions: str            # the same as text
    url: str


class Candidate(NamedTuple):
    """The file that installers take for a release on the target."""

    archive: Archive
    reading: Reading
    yanked: bool


class Missing(NamedTuple):
    requirement: str
    problem: str
    requirers: Tuple[str, ...]  # "NAME VERSION", or "NAME VERSION (build)"


class Outcome(NamedTuple):
    """What of the directories can be installed on a target."""

    total: int                              # releases
    missing: Tuple[Missing, ...]
    conflicts: Tuple[Tuple[str, str], ...]  # ("NAME VERSION", problem)
    blocked: Tuple[Tuple[str, str], ...]  # the same of all that cannot be
    absent: Tuple[str, ...]   # projects without any file for the target


def wheel_order(filename: str, ranks: Mapping[str, int]
                ) -> Optional[Tuple[int, int, str]]:
    """Return what wheels of a release are chosen by, the lowest first.

    None when the target does not take it.
    """
    pythons, abis, platforms = wheel_tags(filename)
    found = [ranks[tag] for tag in (
        f"{python}-{abi}-{platform}" for python in pythons for abi in abis
        for platform in platforms) if tag in ranks]
    parts = filename.split("-")
    build = re.match(r"\d+", parts[2]) if len(parts) > 5 else None
    return (min(found), -int(build.group()[:18]) if build else 0,
            filename) if found else None


def suitable(specifier: Any, versions: Iterable[str]) -> List[str]:
    """Return the versions that any pip takes for a specifier.

    Pre-releases count where one is named, or where all that there is are
    such and any will do.  From packaging 26 on, they do as well where no
    other version meets the specifier; older ones know better.
    """
    found = [version for version in versions
             if specifier.contains(version, prereleases=True)]
    if any(each.operator in WITH_PRERELEASES
           and is_prerelease(each.version) for each in specifier):
        return found
    final = [version for version in found if not is_prerelease(version)]
    return final if final or len(specifier) else found


class Stock:
    """The releases in the directories, as installers on a target see them."""

    def __init__(self, target: Target, packaging: Any) -> None:
        self.target = target
        self.packaging = packaging
        # By project and version: the best file with its order.
        self.best: Dict[str, Dict[str, Tuple[Any, Candidate]]] = {}
        # By project and version: why a file of it is of no use; "" if one is
        self.excuses: Dict[str, Dict[str, str]] = {}
        self.parsed: Dict[str, Tuple[Need, Any]] = {}
        self.selected: Dict[Any, Tuple[str, ...]] = {}
        self.needed: Dict[Node, List[Need]] = {}

    def add(self, archive: Archive, reading: Reading, yanked: bool) -> None:
        version = normalize_version(archive.version)
        excuses = self.excuses.setdefault(archive.project, {})
        excuse = self.excuse(archive, reading)
        if excuse:
            excuses.setdefault(version, excuse)
            return
        order = self.order(archive)
        excuses[version] = ""
        releases = self.best.setdefault(archive.project, {})
        found = order, Candidate(archive, reading, yanked)
        # An installer passes over a file that is yanked, not its release.
        if version not in releases or (yanked, order) < (
                releases[version][1].yanked, releases[version][0]):
            releases[version] = found

    def order(self, archive: Archive) -> Any:
        """Return what files of a release are chosen by; None for no use."""
        if archive.filetype == "bdist_wheel":
            return wheel_order(archive.filename, self.target.ranks)
        return (math.inf, 0, archive.filename) \
            if archive.filetype == "sdist" else None

    def excuse(self, archive: Archive, reading: Reading) -> str:
        """Say why installers on the target pass over a file, "" if not."""
        if reading.facts.problem or not parse_version(archive.version):
            return "it is withheld"
        for kind, problem in reading.problems:
            if kind in ("name", "version"):
                return problem
        if not self.order(archive):
            return "for other Pythons or platforms only"
        if not self.takes(reading.facts.requires_python):
            return f"for Python {reading.facts.requires_python} only"
        return ""

    def takes(self, requires_python: str) -> bool:
        """Tell whether the Python suits; what is malformed does, as in pip.
        """
        if not requires_python:
            return True
        try:
            need = self.packaging.Requirement("x" + requires_python)
            return bool(need.specifier.contains(
                self.target.python, prereleases=True))
        except Exception:
            return True

    def parse(self, text: str) -> Tuple[Need, Any]:
        """Return (need, its marker or None)."""
        if text not in self.parsed:
            try:
                if len(text) > REQUIREMENT_LIMIT:
                    raise ValueError("too long")
                # Until packaging 22, markers compared spellings.
                found = self.packaging.Requirement(EXTRA.sub(
                    lambda match: match.group(1) + normalize(match.group(2)),
                    text))
                extras = sorted(map(normalize, found.extras))
                versions, url = str(found.specifier), found.url or ""
                self.parsed[text] = Need(
                    found.name + (f"[{','.join(extras)}]" if extras else "")
                    + (f" @ {url}" if url else versions),
                    normalize(found.name), tuple(extras), found.specifier,
                    versions, url), found.marker
            except Exception:  # of packaging, and of what it parses with
                self.parsed[text] = Need(
                    text[:DETAIL_LIMIT], "", (), None, "", ""), None
        return self.parsed[text]

    def applies(self, marker: Any, extra: str) -> bool:
        try:
            return bool(marker.evaluate(dict(
                self.target.markers, extra=extra)))
        except Exception:  # it compares what cannot be compared
            return True

    def needs(self, node: Node) -> List[Need]:
        """Return what a release requires, or one of its extras besides."""
        if node not in self.needed:
            project, version, extra = node
            found = []
            for text in self.best[project][version][1].reading.requires:
                need, marker = self.parse(text)
                applies = marker is None or self.applies(marker, "")
                if extra:
                    applies = not applies and self.applies(marker, extra)
                if applies:
                    found.append(need)
            self.needed[node] = found
        return self.needed[node]

    def build_needs(self, project: str, version: str) -> List[Need]:
        """Return what it takes to build a release; nothing for a wheel."""
        reading = self.best[project][version][1].reading
        return [need for need, marker in map(
            self.parse, reading.build_requires)
            if marker is None or self.applies(marker, "")]

    def select(self, project: str, needs: Iterable[Need]) -> Tuple[str, ...]:
        """Return the versions that meet all needs, the newest first."""
        texts = frozenset(need.versions for need in needs)
        key = project, texts
        if key not in self.selected:
            specifier = self.packaging.SpecifierSet(",".join(
                filter(None, sorted(texts))))
            releases = self.best.get(project, {})
            offered = [version for version in releases
                       if not releases[version][1].yanked]
            found = suitable(specifier, offered)
            if not found and any(
                    each.operator in ("==", "===")
                    and not each.version.endswith(".*")
                    for each in specifier):  # PEP 592
                found = suitable(specifier, releases)
            self.selected[key] = tuple(sorted(
                found, key=version_key, reverse=True))
        return self.selected[key]

    def choices(self, need: Need) -> Choices:
        """Return what meets a need, the newest release first."""
        if need.url or not need.project:
            return []
        return [tuple((need.project, version, extra)
                      for extra in ("",) + need.extras)
                for version in self.select(need.project, [need])]

    def why_missing(self, need: Need) -> str:
        """Say why there are no choices."""
        if not need.project:
            return "it is no requirement (PEP 508)"
        if need.url:
            return "it is at a URL, not in the directories"
        excuses = self.excuses.get(need.project)
        if not excuses:
            return "no file of it is here"
        versions = sorted(excuses, key=version_key, reverse=True)
        for version in versions:
            if parse_version(version) and need.specifier.contains(
                    version, prereleases=True):
                excuse = excuses[version] or (
                    "it is yanked"
                    if self.best[need.project][version][1].yanked else
                    "it is a pre-release, which older pips pass over where "
                    "no requirement names one")
                return f"{version} is here, but {excuse}"
        more = f" and {len(versions) - 5} older" if len(versions) > 5 else ""
        return f"there is only {', '.join(versions[:5])}{more}"


# Which releases can be installed


def label(node: Node) -> str:
    project, version, extra = node
    return f"{project}{f'[{extra}]' * bool(extra)} {version}"


class Closure:
    """Which releases can be installed out of a stock.

    How it works: nodes are releases and the extras that others ask for.
    One of whose requirements no living node meets is dead, and may take
    others with it.  Sdists come to life once there is what builds them,
    wheels first.  What lives may still contradict itself: that takes a
    search, see Search.
    """

    def __init__(self, stock: Stock) -> None:
        self.stock = stock
        self.roots: List[Node] = [
            (project, version, "") for project in sorted(stock.best)
            for version in sorted(stock.best[project], key=version_key)
            if not stock.best[project][version][1].yanked]
        self.links: Dict[Node, List[Choices]] = {}
        self.build_links: Dict[Node, List[Choices]] = {}
        self.users: Dict[Node, Set[Node]] = {}
        self.discover()
        self.dead = self.settle()

    def discover(self) -> None:
        """Find all nodes that the roots lead to, and the links between."""
        waiting = list(self.roots)
        while waiting:
            node = waiting.pop()
            if node in self.links:
                continue
            links = [self.stock.choices(need)
                     for need in self.stock.needs(node)]
            builds = [] if node[2] else [
                self.stock.choices(need)
                for need in self.stock.build_needs(*node[:2])]
            self.links[node] = links
            if builds:
                self.build_links[node] = builds
            for choice in (choice for choices in links + builds
                           for choice in choices):
                for other in choice:
                    self.users.setdefault(other, set()).add(node)
                    waiting.append(other)

    def spread(self, dead: AbstractSet[Node],
               links: Mapping[Node, List[Choices]]) -> Set[Node]:
        """Return the dead nodes, and all that cannot live without them."""
        found = set(dead)
        waiting = list(links)
        for node in dead:
            waiting.extend(self.users.get(node, ()))
        while waiting:
            node = waiting.pop()
            if node not in found and not are_met(
                    links.get(node, ()), found):
                found.add(node)
                waiting.extend(self.users.get(node, ()))
        return found

    def settle(self) -> Set[Node]:
        """Return the nodes that cannot be installed, by themselves."""
        unbuilt = set(self.build_links)
        while True:
            dead = self.spread(unbuilt, self.links)
            built = {node for node in unbuilt
                     if are_met(self.build_links[node], dead)}
            if not built:
                return dead
            unbuilt -= built

    def disputed(self) -> Set[Node]:
        """Return the nodes that take a search.

        The others can be installed with the newest release of everything.
        """
        newest = {}
        for project in self.stock.best:
            alive = [version for version in self.stock.select(project, ())
                     if (project, version, "") not in self.dead]
            newest[project] = alive[0] if alive else ""

        def with_newest(links: List[Choices]) -> List[Choices]:
            return [[choice for choice in choices
                     if choice[0][1] == newest[choice[0][0]]]
                    for choices in links]

        found = self.spread(self.dead, {
            node: with_newest(links) for node, links in self.links.items()})
        found.update(node for node, links in self.build_links.items()
                     if not are_met(with_newest(links), found))
        # An older release may need itself, by way of others, as the newest.
        circles = self.circles()
        return found.union(
            node for node in self.roots
            if node[0] in circles and node[1] != newest[node[0]])

    def circles(self) -> Set[str]:
        """Return the projects that may need themselves, and few others."""
        pairs = {(user[0], node[0]) for node, users in self.users.items()
                 for user in users}
        while True:
            inner = {user for user, _ in pairs} & {used for _, used in pairs}
            kept = {pair for pair in pairs if inner.issuperset(pair)}
            if len(kept) == len(pairs):
                return inner
            pairs = kept

    def missing(self) -> Iterator[Missing]:
        """Yield the requirements that nothing meets."""
        found: Dict[str, Tuple[Need, List[str]]] = {}
        for node in sorted(self.links):
            for need in self.stock.needs(node):
                if not self.stock.choices(need):
                    found.setdefault(need.text, (need, []))[1].append(
                        label(node))
            if node in self.build_links:
                for need in self.stock.build_needs(*node[:2]):
                    if not self.stock.choices(need):
                        found.setdefault(need.text, (need, []))[1].append(
                            label(node) + " (build)")
        for text, (need, requirers) in sorted(found.items()):
            yield Missing(text, self.stock.why_missing(need),
                          tuple(requirers))

    def blocked(self) -> Iterator[Tuple[Node, str]]:
        """Yield what cannot be installed, and for want of what."""
        for node in self.roots:
            for need, choices in zip(
                    self.stock.needs(node) + self.stock.build_needs(
                        *node[:2]) if node in self.dead else (),
                    self.links[node] + self.build_links.get(node, [])):
                if not are_met([choices], self.dead):
                    yield node, need.text
                    break

    def circular(self) -> Iterator[Tuple[str, str]]:
        """Yield the sdists that wait for themselves to be built."""
        explained = self.spread(set(), {
            node: links + self.build_links.get(node, [])
            for node, links in self.links.items()})
        for node in sorted(self.dead - explained):
            if node in self.build_links:
                yield label(node), "to be built, it needs itself in the end"

    def contradictions(self) -> Iterator[Tuple[Node, str]]:
        """Yield what cannot be installed though there is all that it needs.
        """
        disputed = self.disputed()
        for node in self.roots:
            if node in self.dead or node not in disputed:
                continue
            project, version, _ = node
            specifier = self.stock.packaging.SpecifierSet("===" + version)
            problem = Search(self).run([Need(
                f"{project}==={version}", project, (), specifier,
                str(specifier), "")])
            if not problem:
                problem = Search(self).run(
                    self.stock.build_needs(project, version))
                problem = problem and "to be built: " + problem
            if problem:
                yield node, problem

    def outcome(self) -> Outcome:
        stock = self.stock
        contradictions = [(label(node), problem)
                          for node, problem in self.contradictions()]
        blocked = [(label(node), f"for want of {text}")
                   for node, text in self.blocked()]
        return Outcome(
            len(self.roots), tuple(self.missing()),
            tuple(contradictions) + tuple(self.circular()),
            tuple(blocked + contradictions),
            tuple(sorted(stock.excuses.keys() - stock.best.keys())))


def are_met(links: Iterable[Choices], dead: AbstractSet[Node]) -> bool:
    """Tell whether each requirement has a choice that lives."""
    return all(any(dead.isdisjoint(choice) for choice in choices)
               for choices in links)


class Plan(NamedTuple):
    """What a search has come to."""

    chosen: Dict[str, str]         # versions, by project
    options: Dict[str, List[str]]  # of others that are needed
    # By project: what is needed of it, and the projects that need it.
    wanted: Dict[str, Tuple[Tuple[Need, str], ...]]


class Step:
    """A choice in a search, and the choices that it has left."""

    def __init__(self, plan: Plan, project: str) -> None:
        self.plan = plan  # before it
        self.project = project
        self.versions = iter(plan.options[project])
        self.culprits = {by for _, by in plan.wanted[project]}


class Search:
    """Looks for releases that can be installed together.

    How it works: the newest release is chosen for the project that leaves
    the fewest, and so on.  Where two requirements contradict each other,
    the last choice that has to do with it is made anew (conflict-directed
    backjumping: Prosser, 1993).
    """

    def __init__(self, closure: Closure) -> None:
        self.stock, self.dead = closure.stock, closure.dead
        self.problem = ""  # the first, which is that of the newest releases

    def run(self, needs: Sequence[Need]) -> str:
        """Return why not all needs can be met at once; "" if they can."""
        plan = Plan({}, {}, {})
        if self.extend(plan, [(need, "") for need in needs]):
            return self.problem
        steps: List[Step] = []
        for _ in range(TRIES):
            if not plan.options:
                return ""
            options = plan.options
            project = min(options, key=lambda name: len(options[name]))
            steps.append(Step(plan, project))
            found = self.advance(steps)
            if found is None:
                return self.problem
            plan = found
        return f"undecided after {TRIES} choices; {self.problem}"

    def advance(self, steps: List[Step]) -> Optional[Plan]:
        """Make the next choice that contradicts nothing, if there is one."""
        while steps:
            step = steps[-1]
            version = next(step.versions, None)
            if version is None:
                steps.pop()
                while steps and steps[-1].project not in step.culprits:
                    steps.pop()
                if steps:
                    steps[-1].culprits |= step.culprits - {
                        steps[-1].project}
                continue
            plan = Plan(dict(step.plan.chosen), dict(step.plan.options),
                        dict(step.plan.wanted))
            plan.chosen[step.project] = version
            del plan.options[step.project]
            extras = {""}.union(*(
                need.extras for need, _ in plan.wanted[step.project]))
            culprits = self.extend(plan, [
                (need, step.project) for extra in sorted(extras)
                for need in self.stock.needs((step.project, version, extra))])
            if not culprits:
                return plan
            step.culprits |= culprits - {step.project}
        return None

    def versions(self, project: str, plan: Plan) -> List[str]:
        """Return the versions that all who need a project can live with."""
        needs = [need for need, _ in plan.wanted[project]]
        extras = {""}.union(*(need.extras for need in needs))
        return [version for version in self.stock.select(project, needs)
                if not any((project, version, extra) in self.dead
                           for extra in extras)]

    def extend(self, plan: Plan, needs: List[Tuple[Need, str]]) -> Set[str]:
        """Add needs to a plan; return the projects that contradict them."""
        while needs:
            need, by = needs.pop()
            before = plan.wanted.get(need.project, ())
            if (need, by) in before:
                continue
            plan.wanted[need.project] = before + ((need, by),)
            version = plan.chosen.get(need.project)
            versions = self.versions(need.project, plan)
            if not versions or (version and version not in versions):
                self.problem = self.problem or self.describe(
                    need.project, plan)
                return {by for _, by in plan.wanted[need.project]} | {
                    need.project}
            if not version:
                plan.options[need.project] = versions
            else:
                needs.extend(
                    (other, need.project) for extra in need.extras
                    for other in self.stock.needs(
                        (need.project, version, extra)))
        return set()

    def describe(self, project: str, plan: Plan) -> str:
        return "its requirements contradict each other: " + ", ".join(
            need.text + (f" of {by} {plan.chosen[by]}" if by else "")
            for need, by in plan.wanted[project])


# === 36  Check ==============================================================

# What findings can be, in the order in which they are told.
KINDS = {
    "broken": "not whole, or not readable",
    "changed": "other bytes than the cache has seen, with the same times",
    "name": "the metadata names another project",
    "version": "the metadata names another version",
    "record": "members are not what the wheel says of them",
    "requirement": "what it requires cannot be told",
    "shadowed": "not served, since another file has the same name",
    "unrecognized": "neither an archive nor a companion file",
    "companion": "a companion file that has no effect",
    "missing": "a requirement that nothing here meets",
    "conflict": "a release that cannot be installed all the same",
}


class Finding(NamedTuple):
    kind: str     # of KINDS
    subject: str  # a path, a release or a requirement
    problem: str  # one sentence


class Report(NamedTuple):
    """What `check` tells."""

    directories: Tuple[str, ...]
    archives: int
    projects: int
    findings: Tuple[Finding, ...]
    target: Optional[Target]    # of the closure, if it was asked for
    outcome: Optional[Outcome]


def check_archive_files(tree: Tree, cache: FactCache,
                        with_requirements: bool
                        ) -> Tuple[Dict[Archive, Reading], List[Finding]]:
    """Inspect all archives, and compare them with what the cache has seen.

    What was never seen before goes into the cache, so that the next check
    has something to compare with.
    """
    archives = all_archives(tree)
    known = cache.get([archive.path for archive in archives])
    jobs, findings = [], []
    readings: Dict[Archive, Reading] = {}
    for archive in archives:
        identity = look(archive.path)
        if identity is None:
            findings.append(Finding("broken", archive.path,
                                    "it cannot be looked at"))
            continue
        digests = known[archive.path][1].digests \
            if archive.path in known else {}
        jobs.append(Job(
            archive, identity, tuple({"sha256"}.union(
                hashlib.algorithms_available & digests.keys())),
            with_requirements))
    progress = Progress(len(jobs))
    for job, reading in inspect_all(jobs):
        progress.step()
        archive, path = job.archive, job.archive.path
        readings[archive] = reading
        problems = list(reading.problems)
        if reading.facts.problem:
            problems.append(("broken", reading.facts.problem))
        if path in known and known[path][0] == job.identity:
            problems += bit_rot(known[path][1], reading.facts)
        elif not reading.facts.problem and time.time() - max(
                job.identity.mtime_ns, job.identity.ctime_ns) / 1e9 \
                > settling_time(job.identity):
            cache.put(path, job.identity, reading.facts)
        findings += [Finding(kind, path, problem)
                     for kind, problem in problems]
    return readings, findings


def bit_rot(before: Facts, now: Facts) -> Iterator[Tuple[str, str]]:
    """Yield what changed in a file that has the same size and times."""
    if before.problem:
        if not now.problem:
            yield "changed", (
                "it is whole, but was not when the cache saw it, and is not "
                f"served ({before.problem}); touch it to have it read again")
    elif now.problem:
        yield "changed", ("it was whole when the cache saw it, with the same "
                          "size and times: the disk has changed it")
    else:
        for name in sorted(before.digests.keys() & now.digests.keys()):
            if now.digests[name] != before.digests[name]:
                yield "changed", (
                    f"its {name} is {now.digests[name]}, but was "
                    f"{before.digests[name]} when the cache saw it, with the "
                    "same size and times: the disk has changed it")
                return


def check_names(tree: Tree) -> Iterator[Finding]:
    """Yield what is wrong with names, and with status files."""
    for path, kind, reason, other in without_effect(tree, read_text):
        if path in tree.snapshot.closed:
            kind = "broken"
        elif kind in ("orphaned", "misspelled") or path.endswith(STATUS):
            kind = "companion"
        elif kind != "shadowed":
            kind = "unrecognized"
        yield Finding(kind, path, f"{other} comes first" if other else reason)


def check_closure(tree: Tree, readings: Mapping[Archive, Reading],
                  target: Target) -> Outcome:
    """Tell what can be installed on a target.

    Raises:
        UsageError: packaging is missing.
    """
    stock = Stock(target, load_packaging())
    snapshot = tree.snapshot
    for archive in sorted(snapshot.archives.values()):
        reading = readings.get(archive, Reading(withheld("it is gone")))
        entries = snapshot.statuses.get(archive.project)
        if entries and read_text(entries[0][1]).lower().split()[:1] == [
                "quarantined"]:
            reading = reading._replace(facts=withheld("in quarantine"))
        stock.add(archive, reading,
                  archive.path + YANKED in snapshot.companions)
    return Closure(stock).outcome()


def check_directories(config: Config) -> Report:
    """Find all that is wrong or missing in package directories.

    Raises:
        UsageError: the settings cannot work.
    """
    target = None
    if config.closure:
        load_packaging()  # before the work that would be lost
        target = make_target(
            config.python or "{}.{}.{}".format(*sys.version_info),
            config.platform or this_platform())
    elif config.python or config.platform:
        raise UsageError("--python and --platform are for --closure, which "
                         "is not there")
    tree = read_tree(config.roots)
    cache = FactCache(cache_directory(config))
    with contextlib.closing(cache):
        readings, findings = check_archive_files(
            tree, cache, config.closure)
    findings += check_names(tree)
    outcome = check_closure(tree, readings, target) if target else None
    if outcome:
        findings += [
            Finding("missing", missing.requirement, missing.problem)
            for missing in outcome.missing]
        findings += [Finding("conflict", name, problem)
                     for name, problem in outcome.conflicts]
    order = list(KINDS)
    return Report(
        tuple(tree.order), len(readings), len(tree.snapshot.projects),
        tuple(sorted(findings, key=lambda finding: (
            order.index(finding.kind), finding[1:]))), target, outcome)


def report_text(report: Report) -> Iterator[str]:
    """Yield the lines that people read."""
    needed_by = {missing.requirement: missing.requirers for missing in (
        report.outcome.missing if report.outcome else ())}
    kind = ""
    for finding in report.findings:
        if finding.kind != kind:
            kind = finding.kind
            yield f"{kind}: {KINDS[kind]}"
        yield printable(f"  {finding.subject}: {finding.problem}")
        if kind == "missing":
            names = needed_by[finding.subject]
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            yield printable(f"    for {', '.join(names[:10])}{more}")
    yield (f"{count_text(report.archives, 'archive')} of "
           f"{count_text(report.projects, 'project')}: "
           + (count_text(len(report.findings), "finding")
              if report.findings else "no findings"))
    if report.outcome and report.target:
        outcome, target = report.outcome, report.target
        yield (f"Python {target.python} on {target.platform}: "
               f"{outcome.total - len(outcome.blocked)} of "
               f"{count_text(outcome.total, 'release')} can be installed")
        for name, problem in outcome.blocked:
            yield printable(f"  not {name}: {problem}")
        if outcome.absent:
            yield f"  no file for it have {', '.join(outcome.absent)}"


def report_json(report: Report) -> str:
    """Return the report as JSON, for programs."""
    found: Dict[str, Any] = {
        "directories": report.directories, "archives": report.archives,
        "projects": report.projects,
        "findings": [finding._asdict() for finding in report.findings]}
    if report.outcome and report.target:
        found["closure"] = {
            "python": report.target.python,
            "platform": report.target.platform,
            "releases": report.outcome.total,
            "missing": [missing._asdict()
                        for missing in report.outcome.missing],
            "blocked": [{"release": name, "problem": problem}
                        for name, problem in report.outcome.blocked],
            "without_files": report.outcome.absent}
    return json.dumps(found, indent=2)


def check_all(config: Config) -> int:
    """Print what is wrong or missing in package directories.

    Returns:
        the exit status: 1 when there is a finding.
    """
    report = check_directories(config)
    if config.json:
        print(report_json(report))
    else:
        for line in report_text(report):
            print(line)
    return 1 if report.findings else 0


# === 37  Site ===============================================================

# In the site, hidden: what was written and from what, settings for nginx,
# and files on their way.  Everything else in the site can be looked at.
STATE = ".pypi-server"
SITE_PARTS = ("simple", "packages", "pypi", "project", "search", "withheld",
              "-")
NGINX_MAPS = """\
# Which file is the page: by ?format=, else by Accept.  For the http block.
map $http_accept $pypi_accepted {
    default html;
    "~*simple\\.(v1|latest)\\+json *(;(?! *q=) *[^,]*)?(,|$)" json;
    "~*simple\\.(v1|latest)\\+json *; *q=1" json;
    "~*^(?!.*(html|\\*/\\*)).*simple\\.(v1|latest)\\+json *; *q=0?\\.0*[1-9]"
        json;
}
map $arg_format $pypi_format {
    default $pypi_accepted;
    "~*^application/vnd\\.pypi\\.simple\\.(v1|latest)(\\+|%2B|%20| )json$"
        json;
    "~*html$" html;
}
map $pypi_format $pypi_index {
    default index.html;
    json index.json;
}
"""
NGINX_LOCATIONS = """\
# How the files of a site are served.  For the server block, beside `root`.
absolute_redirect off;
sendfile on;
tcp_nopush on;
open_file_cache max=10000 inactive=60s;
open_file_cache_valid 1s;

location ~ /\\. {
    return 404;
}
location ~ ^/simple/([^/]+/)?$ {
    types {
        text/html html;
        application/vnd.pypi.simple.v1+json json;
    }
    charset utf-8;
    gzip_static on;
    add_header Cache-Control no-cache;
    add_header Vary "Accept, Accept-Encoding";
    add_header X-Content-Type-Options nosniff;
    try_files $uri$pypi_index =404;
}
location ~ ^/pypi/.+/json/?$ {
    rewrite ^(.+)/$ $1;
    types { }
    default_type application/json;
    gzip_static on;
    add_header Cache-Control no-cache;
    add_header Access-Control-Allow-Origin *;
    try_files $uri =404;
}
location ~ ^/(?!project/)([^/]+)/json/?$ {
    rewrite ^/([^/]+)/json/?$ /pypi/$1/json last;
}
location ~ ^/packages/.+\\.metadata$ {
    types { }
    default_type application/octet-stream;
    gzip_static on;
    add_header Cache-Control no-cache;
}
location ~ ^/packages/(?!index\\.html$). {
    types { }
    default_type application/octet-stream;
    add_header X-Content-Type-Options nosniff;
}
location / {
    types {
        text/html html;
        text/css css;
        text/javascript js;
        image/svg+xml ico svg;
        application/json json;
    }
    charset utf-8;
    charset_types text/css text/javascript;
    gzip_static on;
    add_header Cache-Control no-cache;
    add_header X-Content-Type-Options nosniff;
%s}
""" % "".join(map('    add_header {0[0]} "{0[1]}";\n'.format, FOR_PEOPLE))


class Record(NamedTuple):
    """What was written for a project."""

    sources: str  # fingerprint of what it was made from; "": not for good
    files: Mapping[str, int]     # paths in the site; bytes
    archives: Mapping[str, str]  # sha256 by location
    links: Sequence[Link]        # oldest first
    # By version: a fingerprint of what it was made from, and its own files.
    releases: Mapping[str, Tuple[str, Mapping[str, int]]]
    brief: Sequence[Any]  # a Brief without its archives


UNKNOWN = Record("", {}, {}, (), {}, ())
# Of a Brief without its archives, in a record.
BRIEF_TYPES = list(map(type, json.loads(json.dumps(
    brief_of(Project("", (), "", "", ()), ())[1:]))))


def paths_of(record: Record) -> Set[str]:
    """Return the paths of all files that were written for a project."""
    return set(record.files).union(
        *(files for _, files in record.releases.values()))


def are_sizes(value: Any) -> bool:
    """Tell whether this is {path in the site: bytes}."""
    return isinstance(value, dict) and all(
        isinstance(size, int) and ".." not in path.split("/")
        and path.split("/")[0] in SITE_PARTS for path, size in value.items())


def is_record(record: Record) -> bool:
    """Tell whether a record has the types of one; any disk may fail."""
    return isinstance(record.sources, str) and are_sizes(record.files) \
        and isinstance(record.archives, dict) \
        and all(isinstance(text, str) for text in record.archives.values()) \
        and isinstance(record.links, list) \
        and all(map(is_link, record.links)) \
        and isinstance(record.releases, dict) and all(
            isinstance(release, list) and len(release) == 2
            and isinstance(release[0], str) and are_sizes(release[1])
            for release in record.releases.values()) \
        and isinstance(record.brief, list) \
        and list(map(type, record.brief)) == BRIEF_TYPES \
        and all(isinstance(pair, list) and list(map(type, pair)) == [str, str]
                for pair in record.brief[-1])


def is_link(value: Any) -> bool:
    """Tell whether this is a Link that JSON has kept."""
    return isinstance(value, list) and len(value) == len(Link._fields) \
        and all(isinstance(text, str) for text in value[:-1]) \
        and isinstance(value[-1], (str, type(None)))


def fingerprint(*values: Any) -> str:
    """Return a digest of values that JSON knows."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


class Site:
    """A directory of plain files, each written whole and only if it changed.

    Raises:
        UsageError: it cannot be made, or somebody else made it.
    """

    def __init__(self, path: str, roots: Sequence[str]) -> None:
        self.root = os.path.abspath(os.path.expanduser(path))
        self.state = os.path.join(self.root, STATE)
        check_apart(self.root, roots)
        for part in SITE_PARTS + (STATE, f"{STATE}/projects"):
            if os.path.islink(self.path(part)):
                raise UsageError(
                    f"{self.path(part)!r} is a link, and a site must hold "
                    "all of its files itself; remove it")
            check_apart(self.path(part), roots)
        try:
            if os.path.lexists(self.root) and os.listdir(self.root) \
                    and not os.path.isdir(self.state):
                raise UsageError(
                    f"{path!r} holds other files than those of an export; "
                    "name a directory that is empty or not there yet")
            os.makedirs(os.path.join(self.state, "projects"), exist_ok=True)
        except OSError as error:
            raise UsageError(f"the site {path!r} cannot be made: "
                             f"{error.strerror}")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let one process at a time write the site.

        Raises:
            UsageError: another one does.
        """
        path = os.path.join(self.state, "lock")
        try:
            file = open(path, "ab")
        except OSError as error:
            raise UsageError(
                f"the site {self.root!r} cannot be written ({path}: "
                f"{error.strerror}); name another one, or run this as the "
                "user whose it is")
        with file:
            if lock_file(file.fileno()) is False:
                raise UsageError(f"another export writes to {self.root!r}; "
                                 "wait for its end, or stop it")
            with contextlib.suppress(OSError):  # they hinder nobody
                for name in os.listdir(self.state):
                    if name.startswith("new-"):  # of one that was killed
                        os.unlink(os.path.join(self.state, name))
            yield

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def has(self, files: Mapping[str, int]) -> bool:
        """Tell whether all files are there, in their size."""
        try:
            return all(os.stat(f"{self.root}/{name}").st_size == size
                       for name, size in files.items())
        except OSError:
            return False

    def check_inside(self, name: str) -> None:
        """Make sure that a name is that of a file in the site.

        Raises:
            OSError: a link on the way leads to where others have theirs.
        """
        folder = os.path.dirname(name)
        while folder:
            if os.path.islink(self.path(folder)):
                raise OSError(
                    errno.ELOOP, "it is a link, and a site must hold all of "
                    "its files itself; remove it", self.path(folder))
            folder = os.path.dirname(folder)

    @contextlib.contextmanager
    def replacing(self, name: str) -> Iterator[str]:
        """Yield a path to be filled; it takes the name in one step.

        Raises:
            OSError: it cannot; it tells of the name, not of that path.
        """
        self.check_inside(name)
        path = self.path(name)
        temporary = os.path.join(self.state, "new-" + os.urandom(8).hex())
        try:
            yield temporary
            try:
                os.replace(temporary, path)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.replace(temporary, path)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    def write(self, name: str, data: bytes) -> Dict[str, int]:
        """Write a file; return its size by name."""
        try:
            with open(self.path(name), "rb") as file:
                is_same = file.read(len(data) + 1) == data
        except OSError:
            is_same = False
        if not is_same:
            with self.replacing(name) as temporary, \
                    open(temporary, "xb") as file:
                file.write(data)
        return {name: len(data)}

    def write_page(self, name: str, body: bytes, compressed: bytes
                   ) -> Dict[str, int]:
        """Write a page, and beside it what gzip makes of it, if anything."""
        files = self.write(name, body)
        if compressed:
            files.update(self.write(name + ".gz", compressed))
        else:  # an old one would be preferred by clients that take gzip
            self.remove([name + ".gz"])
        return files

    def remove(self, names: Iterable[str]) -> None:
        """Remove files that are there, and directories that become empty."""
        for name in names:
            self.check_inside(name)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(self.path(name))
            folder = os.path.dirname(name)
            while folder.startswith(SITE_PARTS):
                try:
                    os.rmdir(self.path(folder))
                except OSError:
                    break
                folder = os.path.dirname(folder)

    def place(self, name: str, file: File, known: str, is_linking: bool
              ) -> Identity:
        """Make an archive a file of the site, unless it is one.

        Args:
            known: sha256 of the copy that is there, if that is recorded.

        Returns:
            its identity, which has another time when a link came or went.

        Raises:
            OSError: it changed meanwhile; or links cannot be made here.
        """
        path, source = self.path(name), file.archive.path
        is_linked = is_same_file(source, path)
        if is_linking and not is_linked:
            with self.replacing(name) as temporary:
                os.link(os.path.realpath(source), temporary)
        elif not is_linking and (
                is_linked or not self.has_copy(path, file, known)):
            self.copy(name, file)
        found, expected = identify(os.stat(source)), file.identity
        if is_linking != is_linked:
            expected = expected._replace(ctime_ns=found.ctime_ns)
        if found != expected:
            raise OSError(errno.ESTALE, "it changed meanwhile")
        return found

    def has_copy(self, path: str, file: File, known: str) -> bool:
        found, digest = look(path), file.facts.digests["sha256"]
        return found is not None and found.size == file.identity.size \
            and (known or sha256_of(path)) == digest

    def copy(self, name: str, file: File) -> None:
        with self.replacing(name) as temporary:
            hashes = {"sha256": make_hash("sha256")}
            with open_whole(file.archive.path, file.identity) as source, \
                    open(temporary, "xb") as target:
                for block in hashed(source, hashes):
                    target.write(block)
            if hashes["sha256"].hexdigest() != file.facts.digests["sha256"]:
                raise OSError(errno.ESTALE, "it changed meanwhile")
            # Whatever compares copies by their times takes it for the same.
            times = os.stat(temporary).st_atime_ns, file.identity.mtime_ns
            os.utime(temporary, ns=times)

    def is_swept(self) -> bool:
        """Tell whether every file in the site is on record."""
        return os.path.exists(os.path.join(self.state, "swept"))

    def mark(self, is_swept: bool) -> None:
        path = os.path.join(self.state, "swept")
        if is_swept:
            with open(path, "wb"):
                pass
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def strangers(self, known: AbstractSet[str]) -> List[str]:
        """Return the files below the parts of a site that are not known."""
        found = []
        for part in SITE_PARTS:
            if os.path.islink(self.path(part)):
                continue  # what it leads to is not of the site
            for folder, _, names in os.walk(self.path(part)):
                below = folder[len(self.root) + 1:].replace(os.sep, "/")
                found += [f"{below}/{name}" for name in names
                          if f"{below}/{name}" not in known]
        return sorted(found)

    def record_path(self, project: str) -> str:
        return f"{STATE}/projects/{project}.json"

    def recorded(self) -> List[str]:
        """Return the projects that have records."""
        return sorted(name[:-len(".json")] for name in os.listdir(
            os.path.join(self.state, "projects")))

    def record(self, project: str) -> Record:
        """Return what was written for a project; an empty one if unknown."""
        try:
            with open(self.path(self.record_path(project)), "rb") as file:
                record = Record(**json.loads(file.read().decode()))
        except (OSError, ValueError, TypeError, RecursionError):
            return UNKNOWN
        return record._replace(links=list(map(Link._make, record.links))) \
            if is_record(record) else UNKNOWN


def is_same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def lies_in(path: str, folder: str) -> bool:
    """Tell whether a path leads into a folder, by links or mounts too."""
    path = os.path.realpath(path)
    while not is_same_file(path, folder):
        path, name = os.path.split(path)
        if not name:
            return False
    return True


def check_apart(place: str, roots: Sequence[str]) -> None:
    """Refuse a site that would be served, or whose files would be removed.

    Args:
        place: the site, or a part of it.

    Raises:
        UsageError: it lies in a package directory, or one lies in it.
    """
    for root in roots:
        if lies_in(place, root) or lies_in(root, place):
            raise UsageError(
                f"the site {place!r} and the package directory {root!r} must "
                "not lie in one another; name another place for the site")


# === 38  Export =============================================================

NAMES_INTERVAL = 1.0  # seconds between two looks at names, in --watch
LOOK_SHARE = 10       # all files are looked at in one part of so many
# Pages that show whole addresses of the site, and not only links.
PEOPLE_PARTS = ("/project/", "/search/", "/withheld/")

# What all pages for people load, the pages of a project, and those of the
# index: (path, Accept, file of the site).
LOOK_PAGES = (
    ("/-/icon.svg", "", "-/icon.svg"),
    ("/-/style.css", "", "-/style.css"),
    ("/-/script.js", "", "-/script.js"))
PROJECT_PAGES = (
    ("/pypi/{project}/json", JSON, "pypi/{project}/json"),
    ("/simple/{project}/", SIMPLE_JSON, "simple/{project}/index.json"),
    ("/simple/{project}/", HTML, "simple/{project}/index.html"),
    ("/project/{project}/", HTML, "project/{project}/index.html"))
INDEX_PAGES = (
    ("/simple/", SIMPLE_JSON, "simple/index.json"),
    ("/simple/", HTML, "simple/index.html"),
    ("/favicon.ico", "", "favicon.ico"),
    ("/withheld/", JSON, "withheld/index.json"),
    ("/withheld/", HTML, "withheld/index.html"),
    ("/search/", HTML, "search/index.html"),
    ("/", HTML, "index.html"))


# What concerns one path only: others can be written all the same.
OF_ONE_PATH = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY,
               errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM)


def describe(error: OSError) -> str:
    """Return what went wrong, and with which path."""
    problem = error.strerror or str(error)
    return f"{error.filename}: {problem}" if error.filename else problem


class Still(Directories):
    """Package directories that stand still while an export reads them.

    Pages that are made one after the other so speak of the same files.
    """

    def __init__(self, roots: Sequence[str], cache: FactCache,
                 algorithms: Iterable[str]) -> None:
        super().__init__(roots, cache, algorithms)
        self.held = self.tree.snapshot

    def fresh(self) -> Snapshot:
        return self.held

    def move(self) -> Snapshot:
        """Let pass what happened since the last time."""
        self.refresh()
        self.held = self.tree.snapshot
        return self.held

    def hold(self, name: str) -> State:
        """Return a project as it is, and as it is shown until the next call.

        Raises:
            OSError: an archive has gone, perhaps with the whole directory;
                which of both it is, the next names tell.
        """
        with self.alone(name):
            state = self.examine(name, self.held, self.algorithms, None)
            for archive, identity, *_ in state.seen[
                    :len(self.held.projects[name])]:
                if identity is None:
                    raise OSError(errno.ENOENT, "it has gone", archive.path)
            return self.keep(state._replace(until=math.inf))

    def keep(self, state: State) -> State:
        self.states.put(state.project.name, state, len(state.files) + 1)
        return state

    def touch(self, state: State, found: Mapping[str, Identity]) -> State:
        """Let files have other identities, by filename; same content."""
        files = tuple(
            file._replace(identity=found.get(
                file.archive.filename, file.identity))
            for file in state.project.files)
        for file in files:  # so that nobody reads it again
            if file.archive.filename in found:
                self.reader.cache.put(
                    file.archive.path, file.identity, file.facts)
        project = state.project._replace(files=files)
        return self.keep(state._replace(
            project=project,
            files={file.archive.filename: file for file in files},
            seen=tuple(
                (sight[0], found.get(sight[0].filename, sight[1])) + sight[2:]
                if sight and isinstance(sight[0], Archive) else sight
                for sight in state.seen)))


class Exporter:
    """Writes an index as plain files, and only those that changed."""

    def __init__(self, config: Config) -> None:
        for root in config.roots:
            if not os.path.isdir(os.path.expanduser(root)):
                raise UsageError(f"there is no package directory {root!r} "
                                 "to be exported")
        app = make_app(config)
        self.config = app.config
        self.directories = Still(
            self.config.roots, app.directories.reader.cache,
            {"sha256", "md5", "blake2b_256", self.config.hash_algo} - {""})
        self.app = app._replace(
            directories=self.directories,
            lists=Lists(self.directories, app.warmer))
        self.site = Site(config.site, self.config.roots)
        # The same files under other settings, or by another program, make
        # other pages.
        self.settings = fingerprint(
            sha256_of(__file__), self.config.hash_algo, self.config.copy,
            self.config.server_base_url, self.config.packages_url)
        # Projects that are as they should be: sources, and their archives.
        self.done: Dict[str, Tuple[str, Sequence[Link]]] = {}
        self.failures: Dict[str, str] = {}  # why a project must wait
        self.told: Dict[str, str] = {}  # of these, what is in the log
        self.gone: Set[str] = set()  # paths that no page shows any more
        self.is_linking = not self.config.copy
        self.is_indexed = False  # the pages of the index are up to date,
        self.indexed = self.directories.held  # with these names
        self.is_swept = self.site.is_swept()

    # Pages

    def page(self, name: str, path: str, accept: str) -> Dict[str, int]:
        """Write the page that a server would answer with; return its sizes.

        Raises:
            HTTPError: what an archive holds cannot be read at the moment.
            OSError: the site cannot be written.
        """
        base = self.config.server_base_url + "/"
        if path == "/" or path.startswith(PEOPLE_PARTS):
            if not base.startswith("http"):
                base = NO_ADDRESS + base
        elif not self.config.server_base_url:
            base = "../" * (path.count("/") - 1)
        route, arguments = find_route(self.app, "GET", path)
        response = route.handler(self.app, Request(
            "GET", path, "", {"accept": accept, "accept-encoding": "gzip"},
            lambda size: b"", "", base), **arguments)
        if response.status != 200 or isinstance(response.body, FileSlice):
            raise HTTPError(response.status, f"{path} is no page")
        if ("Content-Encoding", "gzip") not in response.headers:
            return self.site.write_page(name, response.body, b"")
        return self.site.write_page(
            name, zlib.decompress(response.body, zlib.MAX_WBITS | 16),
            response.body)

    # One project

    def sources(self, seen: Sequence[Any]) -> str:
        """Return what tells whether a project must be exported again."""
        return fingerprint(self.settings, seen)

    def is_current(self, name: str) -> bool:
        """Tell whether a project has changed neither here nor in the site."""
        sources = self.sources(self.directories.look_at(
            name, self.directories.held))
        if name in self.done:
            return self.done[name][0] == sources
        record = self.site.record(name)
        if record.sources != sources or not self.site.has(record.files) \
                or not all(self.site.has(files)
                           for _, files in record.releases.values()):
            return False
        self.done[name] = sources, record.links
        *brief, refused = record.brief
        self.directories.note(Brief._make((
            self.directories.held.projects[name], *brief,
            tuple(map(tuple, refused)))))
        return True

    def export(self, name: str) -> None:
        """Write a project: first its files, then the pages that name them.

        Raises:
            HTTPError, OSError: see page().
        """
        before = self.site.record(name)
        state = self.export_archives(self.directories.hold(name), before)
        files = listed_files(state.project)
        releases: Dict[str, Tuple[str, Mapping[str, int]]] = {}
        for _, group in itertools.groupby(
                files, lambda file: version_key(file.archive.version)):
            release = list(group)
            version = normalize_version(release[0].archive.version)
            releases[version] = self.export_release(
                version, release, state.project, before)
        shown: Dict[str, int] = {}
        for path, accept, page in PROJECT_PAGES[0 if files else 1:]:
            shown.update(self.page(
                page.format(project=name), path.format(project=name),
                accept))
        record = Record(
            self.sources(state.seen) if state.settled else "", shown,
            {file.archive.location: file.facts.digests["sha256"]
             for file in files},
            [link_of(file, self.config.hash_algo) for file in files],
            releases, brief_of(state.project, ())[1:])
        self.site.write(self.site.record_path(name), json.dumps(
            record._asdict()).encode())
        self.gone |= paths_of(before) - paths_of(record)
        if not state.settled:
            raise HTTPError(503, "; ".join(
                ": ".join(pair) for pair in state.project.withheld))
        self.done[name] = record.sources, record.links

    def export_archives(self, state: State, before: Record) -> State:
        """Write the archives of a project; return it as links leave it."""
        if self.config.packages_url:
            return state
        # A file may have several names: each link changes it for all.
        now: Dict[Identity, Identity] = {}
        files = listed_files(state.project)
        for file in files:
            now[file.identity] = self.export_archive(
                file._replace(identity=now.get(file.identity, file.identity)),
                before.archives.get(file.archive.location, ""))
        found = {file.archive.filename: now[file.identity] for file in files
                 if now[file.identity] != file.identity}
        return self.directories.touch(state, found) if found else state

    def export_archive(self, file: File, known: str) -> Identity:
        """Write an archive; return its identity, which a link changes."""
        name = "packages/" + file.archive.location
        if self.is_linking:
            try:
                return self.site.place(name, file, known, True)
            except OSError as error:
                if error.errno not in (errno.EXDEV, *WITHOUT_LINKS):
                    raise
                self.is_linking = False
        return self.site.place(name, file, known, False)

    def export_release(self, version: str, files: Sequence[File],
                       project: Project, before: Record
                       ) -> Tuple[str, Mapping[str, int]]:
        """Write what is told of a release and its archives alone.

        Returns:
            a fingerprint of what it was made from, {path in the site: bytes}.
        """
        made_from = fingerprint(
            self.settings, project.status, project.reason, [
                (file.archive.location, file.identity.size,
                 file.identity.mtime_ns, sorted(file.facts.digests.items()),
                 file.yanked, file.signed, file.provenance)
                for file in files])
        known = before.releases.get(version)
        if known and known[0] == made_from and self.site.has(known[1]):
            return known
        found: Dict[str, int] = {}
        for file in files:
            found.update(self.export_facts(file))
        if is_file_name(version):
            name = f"pypi/{project.name}/{version}/json"
            found.update(self.page(name, "/" + name, JSON))
            path = f"project/{project.name}/{version}/"
            found.update(self.page(path + "index.html", "/" + path, HTML))
        return made_from, found

    def export_facts(self, file: File) -> Dict[str, int]:
        """Write the metadata and the companions of an archive."""
        name = "packages/" + file.archive.location
        found: Dict[str, int] = {}
        if not self.config.packages_url:
            found[name] = file.identity.size
            for suffix, is_there in ((SIGNATURE, file.signed),
                                     (PROVENANCE, file.provenance)):
                if is_there:
                    with open(file.archive.path + suffix, "rb") as companion:
                        found.update(self.site.write(
                            name + suffix, companion.read()))
        if file.facts.metadata_digest:
            name += METADATA
            found.update(self.page(name, "/" + name, ""))
        return found

    def try_export(self, name: str) -> None:
        """Export a project, or note why it must wait.

        Raises:
            OSError: no file can be written, or a directory is away.
        """
        self.done.pop(name, None)
        self.failures.pop(name, None)
        try:
            self.export(name)
        except HTTPError as error:
            self.failures[name] = error.detail
        except OSError as error:
            if error.errno in OF_ONE_PATH:
                self.failures[name] = describe(error)
                return
            if error.errno not in (errno.ESTALE, errno.ENOENT) or not all(
                    map(os.path.isdir, (self.site.state, *self.config.roots))):
                raise
            self.failures[name] = "it changes while it is exported"

    # All projects

    def export_look(self) -> None:
        """Write what pages load, before the first of them."""
        if not self.is_indexed:
            for path, accept, name in LOOK_PAGES:
                self.page(name, path, accept)

    def export_all(self, names: Sequence[str], progress: Progress) -> None:
        """Export those projects that changed.

        Raises:
            OSError: the site cannot be written.
        """
        problems: List[Exception] = []
        lock = threading.Lock()

        def export(name: str) -> None:
            try:
                if not problems and not self.is_current(name):
                    self.is_indexed = False
                    self.site.mark(False)
                    self.try_export(name)
            except Exception as error:
                problems.append(error)
            with lock:
                progress.step()

        together(export, names, cores() - 1)
        self.directories.reader.cache.flush()
        if problems:
            raise problems[0]

    def export_index(self) -> None:
        """Write the pages of the index, when those that they name are there.
        """
        snapshot = self.directories.held
        self.directories.held = snapshot._replace(mark=object(), projects={
            name: archives for name, archives in snapshot.projects.items()
            if name in self.done or os.path.isfile(
                self.site.path(f"simple/{name}/index.html"))})
        try:
            for path, accept, name in INDEX_PAGES:
                self.page(name, path, accept)
            place = Place(  # without an address, as that of a server
                "../", "", is_static=True, packages=self.config.packages_url)
            page = archives_page(place, archive_links((
                link for name in sorted(self.directories.held.projects)
                for link in (self.done[name][1] if name in self.done
                             else self.site.record(name).links)
            ), place.packages))
            self.site.write_page(
                "packages/index.html", page.body, page.compressed)
        finally:
            self.directories.held = snapshot
        self.indexed = snapshot
        for name, text in (("nginx-map.conf", NGINX_MAPS),
                           ("nginx-locations.conf", NGINX_LOCATIONS)):
            self.site.write(f"{STATE}/{name}", text.encode())
        self.is_indexed = True

    def remove_gone(self) -> None:
        """Remove what is no longer there: pages before their files."""
        there = self.directories.held.projects.keys()
        known = {path + end for path in (
            "packages/index.html",
            *(path for _, _, path in LOOK_PAGES + INDEX_PAGES))
            for end in ("", ".gz")}
        is_sweeping = not self.is_swept and not self.failures
        for name in self.site.recorded():
            if name not in there:
                self.gone |= paths_of(self.site.record(name)) | {
                    self.site.record_path(name)}
            elif is_sweeping:
                record = self.site.record(name)
                known |= paths_of(record)
                if record is UNKNOWN:  # just written, and cannot be read
                    is_sweeping = False
        if is_sweeping:
            self.gone |= set(self.site.strangers(known))
            self.is_swept = True
        self.site.remove(sorted(self.gone, key=lambda path: (
            path.startswith(STATE), path.startswith("packages/"),
            not path.startswith("project/"), not path.startswith("simple/"),
            path.count("/"), path)))

    def run(self, names: Sequence[str], progress: Progress) -> None:
        """Bring the site up to date with these projects.

        Raises:
            UsageError: that would empty it.
            OSError: a directory cannot be read, or the site not be written.
        """
        snapshot = self.directories.held
        if snapshot.hidden():  # who knows what is in there
            raise OSError(errno.EIO, "not all can be read: "
                          + snapshot.hidden())
        if not snapshot.projects and self.site.recorded():
            raise UsageError(
                f"{', '.join(self.config.roots)} has no archive at all, and "
                f"the site has; remove {self.site.root!r} if that is meant")
        self.export_look()
        self.export_all(names, progress)
        for lost in (self.done, self.failures):
            for name in lost.keys() - snapshot.projects.keys():
                del lost[name]
                self.is_indexed = False
        if not self.is_indexed or self.indexed is not snapshot:
            self.export_index()
        if self.failures:  # who knows what is half done
            self.is_swept = False
        if self.config.delete:
            self.remove_gone()
            if self.is_swept:
                self.site.mark(True)
        self.gone.clear()

    def tell_failures(self, before: Mapping[str, str]) -> None:
        """Log why projects wait, once, if that was so before."""
        self.told = {name: why for name, why in self.told.items()
                     if name in self.failures}
        for name, why in sorted(self.failures.items()):
            if before.get(name) == why != self.told.get(name):
                self.told[name] = why
                LOG.warning("%s is not exported as it is: %s", name, why)

    def watch(self) -> None:
        """Bring changes to the site for ever.

        New names are there within moments; each look at all files, for
        those that were replaced, is followed by ten times as long a pause.
        """
        look_at = 0.0
        problem = ""
        last: Mapping[str, Any] = {}
        while True:
            time.sleep(NAMES_INTERVAL)
            started = time.monotonic()
            projects = self.directories.move().projects
            names = [name for name, archives in projects.items()
                     if started >= look_at or name in self.failures
                     or last.get(name) is not archives]
            before, problem = problem, ""
            waiting = dict(self.failures)
            try:
                self.run(names, Progress(0))
                last = projects
            except UsageError as error:
                problem = text = str(error)
            except OSError as error:
                # Of many paths with one problem, any may be the first.
                problem, text = error.strerror or str(error), describe(error)
            if problem and problem != before:
                LOG.error("the site is not up to date: %s", text)
            self.tell_failures(waiting)
            now = time.monotonic()
            if started >= look_at:
                look_at = now + LOOK_SHARE * (now - started)


def export_site(config: Config, announce: Callable[[str], None]) -> int:
    """Export package directories; tell when they are exported, in one line.

    Returns:
        the exit status: 1 when the site lacks something.
    """
    exporter = Exporter(config)
    site, directories = exporter.site, exporter.directories
    with site.alone(), contextlib.closing(directories.reader.cache):
        names = sorted(directories.move().projects)
        try:
            exporter.run(names, Progress(len(names)))
        except OSError as error:
            LOG.error("the site %s is not complete: %s; run the same "
                      "command again once that is mended", site.root,
                      describe(error))
            if not config.watch:
                return 1
        exporter.tell_failures(exporter.failures)
        announce(f"Exported {len(names)} projects from "
                 f"{', '.join(exporter.config.roots)} to {site.root}")
        if config.watch:
            exporter.watch()
    return 1 if exporter.failures else 0


# === 39  Command line =======================================================

# Runs the code in a file that is open as if it had been imported.
AS_MODULE = (
    "import marshal, os, sys, types; del sys.argv[0]; "
    "code = marshal.loads(os.read({file}, {size})); os.close({file}); "
    "module = sys.modules['pypi_server'] = types.ModuleType('pypi_server'); "
    "module.__file__ = sys.argv[0]; exec(code, module.__dict__); "
    "sys.exit(module.main())")


class HelpFormatter(argparse.HelpFormatter):
    """Shows an option as "-p, --port PORT", and no more than two flags."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        shown = list(action.option_strings)
        if not shown:
            return super()._format_action_invocation(action)
        short = [flag for flag in shown[:-1] if len(flag) == 2][-1:]
        metavar = f" {action.metavar}" if action.metavar else ""
        return ", ".join(short + shown[-1:]) + metavar


def make_parser(full: bool = False) -> argparse.ArgumentParser:
    """Make the parser of command lines.

    Args:
        full: its help has all options, and all that is to say of them.
    """
    looks: Any = {
        "formatter_class": argparse.HelpFormatter if full else HelpFormatter,
        "epilog": None if full else "--help-all shows all options, and says "
        "more of each."}
    parser = argparse.ArgumentParser(
        prog="pypi-server", description=(__doc__ or "").partition("\n")[0],
        **looks)
    add_options(parser, "", full)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True  # the keyword of the same name needs 3.7
    for name, summary in (
            ("run", "serve package directories as a Python package index"),
            ("update", "print pip commands that bring package directories "
             "to the newest releases of another index"),
            ("check", "tell what is wrong or missing in package "
             "directories")):
        command = commands.add_parser(
            name, help=summary,
            usage=f"pypi-server {name} [OPTIONS] [DIRECTORY ...]",
            description=f"{summary[0].upper()}{summary[1:]}.", **looks)
        more = ("; of several files with the same name, that in the first "
                "directory counts") * full
        command.add_argument(
            "roots", nargs="*", metavar="DIRECTORY",
            default=argparse.SUPPRESS, help=f"package directory{more} "
            f"(default: {Config().roots[0]})")
        add_options(command, name, full)
    add_yank(commands)
    add_export(commands, full, looks)
    passwd = commands.add_parser(
        "passwd", help="add, change or remove a user of a password file",
        description="Add, change or remove a user of a password file.  The "
        "password is asked for, or read from the first line of the input "
        "when that is no terminal.")
    passwd.add_argument("password_file", metavar="FILE", help="the password "
                        "file, which is made if it does not exist")
    passwd.add_argument("user", metavar="USER", help="name of the user")
    passwd.add_argument("-D", "--delete", action="store_true",
                        help="remove the user")
    return parser


def add_export(commands: Any, full: bool, looks: Mapping[str, Any]) -> None:
    """Add the command that writes a site."""
    command = commands.add_parser(
        "export", help="write an index as plain files for any web server",
        usage="pypi-server export [OPTIONS] DIRECTORY ... SITE", **looks,
        description="Write an index as plain files, which any web server, "
        "object store or CDN can serve.  Only what changed is written.")
    command.add_argument("roots", nargs="+", metavar="DIRECTORY",
                         help="package directory")
    command.add_argument("site", metavar="SITE", help="directory of the "
                         "files; it is made if it is not there")
    add_options(command, "export", full)


def add_yank(commands: Any) -> None:
    """Add the commands that withdraw archives, and take that back."""
    for name, summary in (
            ("yank", "withdraw archives: installers pass over them, unless "
             "exactly their version is asked for"),
            ("unyank", "take yank back")):
        command = commands.add_parser(
            name, help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.")
        command.add_argument("root", metavar="DIRECTORY",
                             help="package directory")
        command.add_argument(
            "requirement", metavar="REQUIREMENT", help="a project, with or "
            "without versions, as 'foo==1.2' or 'foo<2', or the name of an "
            "archive")
        if name == "yank":
            command.add_argument(
                "--reason", metavar="TEXT", help="one line that installers "
                "show")


def add_options(parser: argparse.ArgumentParser, command: str, full: bool
                ) -> None:
    """Add the options of a command, without defaults: those are in Config.

    So an option before the command is not undone by its default after it.
    """
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {__version__}",
        help="show the version" if full else argparse.SUPPRESS)
    parser.add_argument("--help-all", action="help", help=argparse.SUPPRESS)
    for option in OPTIONS:
        if command not in option.commands:
            continue
        settings: Dict[str, Any] = {}
        if option.metavar == "+":
            settings["action"] = "count"
        elif not option.metavar:
            settings["action"] = "store_true"
        else:
            settings.update(metavar=option.metavar, type=option.parse)
        # Counted before the command and after it, -v adds up.
        place = "_before" if option.metavar == "+" and not command else ""
        parser.add_argument(*option.flags, dest=option.field + place,
                            help=help_text(option, full),
                            default=argparse.SUPPRESS, **settings)


def help_text(option: Option, full: bool) -> str:
    """Return what the help says of an option, with its default."""
    if not full and not option.brief:
        return argparse.SUPPRESS
    text = option.help if full else option.brief
    default = getattr(Config(), option.field)
    # The short help has room for one line.
    if default and option.metavar and (full or len(str(default)) < 8):
        shown = ",".join(default) if isinstance(default, tuple) else default
        text += f" (default: {shown})"
    return text.replace("%", "%%")


class LogWriter(logging.Handler):
    """Writes in a thread of its own: whoever reads the log may be slow.

    A pipe that nobody reads would otherwise stop the server.
    """

    LIMIT = 10000  # lines that wait; more are counted and lost

    def __init__(self, handlers: Sequence[logging.Handler]) -> None:
        super().__init__()
        self.handlers = handlers
        self.waiting: "queue.Queue[Optional[logging.LogRecord]]" = \
            queue.Queue(self.LIMIT)
        self.lost = 0
        self.process = 0  # that has the thread, if any

    def emit(self, record: logging.LogRecord) -> None:
        if self.process not in (0, os.getpid()):
            # The fork has the locks of a thread that it does not have.
            self.waiting, self.process = queue.Queue(self.LIMIT), 0
        try:
            self.waiting.put_nowait(record)
        except queue.Full:
            self.lost += 1
        if not self.process:
            thread = threading.Thread(target=self.run, daemon=True)
            # Where no more threads can be had, it waits for the next line.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self.thread, self.process = thread, os.getpid()

    def run(self) -> None:
        while True:
            record = self.waiting.get()
            if record is None:
                return
            for handler in self.handlers:
                # Its file may be impossible to open after SIGHUP.
                with contextlib.suppress(OSError):
                    handler.handle(record)
            lost, self.lost = self.lost, 0
            if lost:
                LOG.warning("%d lines of the log were lost", lost)

    def flush(self) -> None:
        """Wait a little for what was logged; called at the end."""
        with contextlib.suppress(queue.Full):
            self.waiting.put(None, timeout=1)
            if self.process == os.getpid():
                self.thread.join(1)
                self.process = 0
            else:  # there was no thread to be had, or nothing to write
                self.run()


def reopen_log(handlers: Sequence[logging.Handler], number: int,
               frame: Any) -> None:
    """Let go of the log file; the next line opens it, where it is then."""
    for handler in handlers:
        handler.close()


def start_logging(config: Config) -> None:
    """Send the log where the options say.

    Raises:
        UsageError: the log file cannot be written.
    """
    handlers: List[logging.Handler] = []
    if config.log_stream != "none":
        handlers.append(logging.StreamHandler(
            getattr(sys, config.log_stream)))
    if config.log_file:
        try:
            handlers.append(logging.FileHandler(
                os.path.expanduser(config.log_file), encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"--log-file {config.log_file!r} cannot be "
                             f"written: {error.strerror}")
    for handler in handlers:
        handler.setFormatter(logging.Formatter(config.log_frmt))
    LOG.handlers[:] = [LogWriter(handlers)]
    if hasattr(signal, "SIGHUP"):  # not on Windows
        signal.signal(signal.SIGHUP, functools.partial(reopen_log, handlers))
    LOG.propagate = False
    logging.raiseExceptions = False  # a full disk is no news at each line
    LOG.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[
        min(config.verbosity, 2)])


def make_config(found: Mapping[str, Any]) -> Config:
    """Return the settings of a command line, and start the log."""
    settings = dict(found)
    before = settings.pop("verbosity_before", 0)
    config = Config(**dict(
        settings, roots=tuple(found.get("roots") or Config().roots),
        verbosity=found.get("verbosity", 0) + before))
    for root in config.roots:
        if root in COMMANDS and not os.path.isdir(root):
            raise UsageError(
                f"there is no directory {root!r}; if the command is meant, "
                f"it comes first: pypi-server {root} ...")
    start_logging(config)
    return config


def announce(line: str) -> None:
    """Print where the server listens; the address stands out on a terminal.
    """
    if sys.stdout.isatty() and os.name != "nt" \
            and "NO_COLOR" not in os.environ:
        text, _, url = line.rpartition(" ")
        line = f"{text} \033[1m{url}\033[0m"
    with contextlib.suppress(OSError):  # who serves need not be heard
        print(line, flush=True)


def show_reading(seconds: float, read: int, projects: int) -> None:
    """Show how far the first reading is, when it takes longer than that of
    a small directory.  The next line of the log writes over it.
    """
    if seconds > 1 and sys.stderr.isatty():
        text = f"Reading files: {read:,} of {projects:,} projects" \
            if read < projects else ""
        print(f"{text:60}", end="\r", file=sys.stderr, flush=True)


def run(found: Mapping[str, Any]) -> int:
    """Serve, as the options say."""
    config = make_config(found)
    if config.server == "auto":
        serve(make_app(config), announce, show_reading)
    else:
        serve_elsewhere(config, announce)
    return 0


def update(found: Mapping[str, Any]) -> int:
    """Look for newer releases upstream."""
    # Leave no temporary files, as at ^C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return update_all(make_config(found))


def check(found: Mapping[str, Any]) -> int:
    """Tell what is wrong or missing."""
    return check_all(make_config(found))


def export(found: Mapping[str, Any]) -> int:
    """Write an index as plain files."""
    return export_site(make_config(found),
                       lambda line: print(line, flush=True))


def passwd(found: Mapping[str, Any]) -> int:
    """Change a password file."""
    path = os.path.expanduser(found["password_file"])
    digest = None if found["delete"] else new_hash(
        ask_password(found["user"]))
    try:
        change_password(path, found["user"], digest)
    except OSError as error:
        raise UsageError(f"the password file {path!r} cannot be written: "
                         f"{error.strerror}") from error
    return 0


def yank_command(found: Mapping[str, Any]) -> int:
    """Withdraw archives."""
    yank(found["root"], found["requirement"], found["reason"])
    return 0


def unyank_command(found: Mapping[str, Any]) -> int:
    """Take the withdrawal of archives back."""
    unyank(found["root"], found["requirement"])
    return 0


def ask_password(user: str) -> str:
    """Return a new password, typed twice, or a line of the input.

    Raises:
        UsageError: it is empty or too long, or the two are not the same.
    """
    if sys.stdin.isatty():
        password = getpass.getpass(f"New password of {user}: ")
        if getpass.getpass("Once more: ") != password:
            raise UsageError("the passwords are not the same; nothing was "
                             "changed")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password or "\0" in password \
            or len(password.encode("utf-8", "replace")) > PASSWORD_LIMIT:
        raise UsageError("a password has at least one character, and at "
                         f"most {PASSWORD_LIMIT} bytes")
    return password


COMMANDS: Dict[str, Callable[[Mapping[str, Any]], int]] = {
    "run": run, "update": update, "export": export,
    "check": check, "passwd": passwd,
    "yank": yank_command, "unyank": unyank_command}


def check_word(word: str) -> None:
    """Refuse what is no directory, but may be a command in other letters.

    Raises:
        UsageError: there is nothing of that name.
    """
    if os.path.basename(word) != word or word[:1] in "-~." \
            or word in COMMANDS or os.path.exists(word):
        return
    import difflib  # late: nothing else needs it
    near = difflib.get_close_matches(word, COMMANDS, 1)
    remedy = f"the nearest command is {near[0]}" if near \
        else f"the commands are {', '.join(COMMANDS)}"
    raise UsageError(
        f"there is no command or directory {word!r}: {remedy}; to make such "
        f"a directory, write: pypi-server run {shlex.quote(word)}")


def with_command(arguments: Sequence[str]) -> Sequence[str]:
    """Return a command line of the predecessor as one that names a command.

    >>> with_command(["-p", "80", "packages"])
    ['run', '-p', '80', 'packages']
    >>> with_command(["-Ux"])
    ['update', '-x']
    """
    takes_value = {flag: bool(option.metavar.strip("+"))
                   for option in OPTIONS if "" in option.commands
                   for flag in option.flags}
    first = iter(arguments)
    for argument in first:
        if argument in (*COMMANDS, "-h", "--help", "--help-all",
                        "--version"):
            return arguments
        if argument.partition("=")[0] not in takes_value \
                and not re.fullmatch("-v+", argument):
            check_word(argument)
            break
        if takes_value.get(argument):
            next(first, None)
    kept, command = [], "run"
    for argument in arguments:
        if re.fullmatch("-[vuxU]*U[vuxU]*d?", argument):
            command = "update"
            argument = argument.replace("U", "")
        if argument != "-":
            kept.append(argument)
    return [command] + kept


def leave_plain_locale() -> None:
    """Start anew where names of files can be anything but ASCII.

    Since Python 3.7 the interpreter itself does so (PEP 538).
    """
    if sys.getfilesystemencoding() != "ascii":
        return
    import locale
    for name in ("C.UTF-8", "en_US.UTF-8"):
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, name)
            if os.environ.get("LC_ALL") != name:
                os.environ["LC_ALL"] = name
                os.execv(sys.executable, [  # noqa: S606
                    sys.executable, *("-W" + each for each in sys.warnoptions),
                    *sys.argv])


def leave_main_script() -> None:
    """Start anew, in the same process, with this file as a module.

    CPython keeps the syntax tree of a script for as long as it runs: 23 MiB
    of this one, half of what an idle server needs, against 0.1 s.  The code
    goes along, so that it is not compiled again.
    """
    given: List[str] = getattr(sys, "orig_argv", [])  # from Python 3.10
    place = len(given) - len(sys.argv)
    code = sys._getframe(2).f_code  # of the script that called main()
    # Not in a debugger.
    if sys.implementation.name != "cpython" or not sys.executable \
            or place < 1 or given[place:] != sys.argv \
            or {"-m", "-c"} & set(given[:place]) \
            or not sys.argv[0].endswith(".py") \
            or code.co_name != "<module>" \
            or not hasattr(os, "memfd_create"):  # but on Linux
        return
    import marshal  # late: nothing else needs it
    data = marshal.dumps(code)
    with contextlib.suppress(OSError):
        file = os.memfd_create("pypi_server")
        os.write(file, data)
        os.lseek(file, 0, os.SEEK_SET)
        os.set_inheritable(file, True)
        os.execv(sys.executable, [  # noqa: S606
            *given[:place], "-c", AS_MODULE.format(file=file, size=len(data)),
            *sys.argv])


def open_standard_streams() -> None:
    """Give those that were closed a place, or some file would be in it."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number
            os.set_inheritable(descriptor, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(
                descriptor, "r+" if name == "stdin" else "w", closefd=False))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a command line; return the exit status, 2 for a usage error."""
    if argv is None:
        open_standard_streams()
        leave_plain_locale()
    given = sys.argv[1:] if argv is None else argv
    try:
        arguments = with_command(given)
        if __name__ == "__main__" and "run" in arguments:
            leave_main_script()
        found = vars(make_parser(
            "--help-all" in arguments).parse_args(arguments))
        if arguments is not given:
            for root in found.get("roots", ()):
                check_word(root)
            print("pypi-server: warning: name the command: pypi-server "
                  f"{arguments[0]} ...", file=sys.stderr, flush=True)
        command = found.pop("command")
        status = COMMANDS[command](found)
        if argv is None and command == "run":
            leave(status)
        return status
    except UsageError as error:
        print(f"pypi-server: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # nobody reads on, as in `update | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
