"""Section Uploads: sequences, and what is refused for its form.

Archives that are refused for what is in them: test_upload_archives.py.
"""

import contextlib
import hashlib
import io
import json
import os
import random
import re
import tarfile
import unittest
import zipfile
from urllib.parse import urlencode
from wsgiref.util import setup_testing_defaults

import pypi_server
from tests import archives, forms
from tests.helpers import (
    WAYS, DirectoryTestCase, call, call_socket, listed, texts,
)

WHEEL = "demo_pkg-1.0-py3-none-any.whl"
SDIST = "demo_pkg-1.0.tar.gz"
ANYONE = {"authenticated": (), "password_file": "."}


def wheel(version="1.0", name="demo_pkg", **options):
    return forms.once(archives.wheel, name, version, **options)


def sdist(version="1.0", name="demo_pkg", extension=".tar.gz", **options):
    return forms.once(archives.sdist, name, version, extension, **options)


class UploadTestCase(DirectoryTestCase):
    """An index that anyone may upload to."""

    def setUp(self):
        super().setUp()
        self.app = self.make_app(**ANYONE)

    def send(self, filename, data, way=call, target="/", app=None,
             headers=None, **fields):
        """Upload a file; return the Answer."""
        headers, body = forms.upload(
            filename, data, headers=headers, **fields)
        return way(app or self.app, "POST", target, headers, body)

    def post(self, pairs, app=None, headers=None, way=call):
        """Send a form of (name, value) pairs; return the Answer."""
        headers, body = forms.post(pairs, headers=headers)
        return way(app or self.app, "POST", "/", headers, body)

    def act(self, action, app=None, **fields):
        return self.post([(":action", action)] + list(fields.items()), app)

    def files(self):
        """Return the paths of all files but the lock, hidden ones too."""
        return sorted(
            os.path.relpath(os.path.join(folder, name), self.root)
            for folder, _, names in os.walk(self.root) for name in names
            if name != ".lock")

    def content(self, path):
        with open(os.path.join(self.root, path), "rb") as file:
            return file.read()

    def stored(self, filename, data, **options):
        """Upload what must be taken."""
        answer = self.send(filename, data, **options)
        self.assertEqual(answer.status, 200, answer)
        return answer

    def refused(self, answer, status, *words):
        """Check a refusal, and that it is said in one sentence."""
        self.assertEqual(answer.status, status, answer)
        sentence = answer.body.decode("utf-8")
        self.assertRegex(sentence, r"\A[^\r\n]+\n\Z")
        self.assertEqual(
            answer.reason, sentence[:-1][:200].encode(
                "latin-1", "replace").decode("latin-1"))
        for word in words:
            self.assertIn(word, sentence)


class SequenceTest(UploadTestCase):

    def test_the_life_of_a_file(self):
        for way in WAYS:
            with self.subTest(way=way.__name__):
                self.live(way)

    def live(self, way):
        app = self.make_app(disable_fallback=True, **ANYONE)
        data, other = sdist(), sdist(files={"more": b"x"})

        def get(target):
            return way(app, "GET", target)
        for target in ("/simple/demo-pkg/", "/packages/" + SDIST,
                       "/pypi/demo-pkg/json"):
            self.assertEqual(get(target).status, 404)
        answer = self.send(SDIST, data, way, app=app, sha256_digest="0" * 64)
        self.refused(answer, 400, "sha256_digest", "0" * 64,
                     hashlib.sha256(data).hexdigest())
        self.assertEqual(get("/simple/demo-pkg/").status, 404)
        self.assertEqual(self.files(), [])
        answer = self.send(SDIST, data, way, app=app, **forms.digests(data))
        self.assertEqual(answer.status, 200, answer)
        # The very next request.
        page = get("/simple/demo-pkg/")
        self.assertEqual((page.status, texts(page.body)), (200, [SDIST]))
        self.assertIn(b"demo-pkg", get("/simple/").body)
        self.assertIn(SDIST.encode(), get("/packages/").body)
        self.assertEqual(get("/packages/" + SDIST).body, data)
        release = json.loads(get("/pypi/demo-pkg/json").body.decode())
        self.assertEqual(release["urls"][0]["digests"]["sha256"],
                         hashlib.sha256(data).hexdigest())
        answer = self.send(SDIST, data, way, app=app, **forms.digests(data))
        self.assertEqual(answer.status, 200, answer)
        answer = self.send(SDIST, other, way, app=app,
                           **forms.digests(other))
        self.refused(answer, 409, "File already exists", SDIST)
        self.assertEqual(get("/packages/" + SDIST).body, data)
        overwriting = self.make_app(overwrite=True, disable_fallback=True,
                                    **ANYONE)
        answer = self.send(SDIST, other, way, app=overwriting,
                           **forms.digests(other))
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual(
            way(overwriting, "GET", "/packages/" + SDIST).body, other)
        page = way(overwriting, "GET", "/simple/demo-pkg/")
        self.assertIn(hashlib.sha256(other).hexdigest().encode(), page.body)
        self.assertEqual(self.files(), [SDIST])
        headers, body = forms.post([
            (":action", "remove_pkg"), ("name", "demo_pkg"),
            ("version", "1.0")])
        answer = way(overwriting, "POST", "/", headers, body)
        self.assertEqual(answer.status, 200, answer)
        for target in ("/simple/demo-pkg/", "/packages/" + SDIST):
            self.assertEqual(way(overwriting, "GET", target).status, 404)
        self.assertEqual(self.files(), [])

    def test_every_path_that_takes_uploads(self):
        version = 0
        for prefix in ("", "/some/index"):
            app = self.make_app(server_base_url=prefix, **ANYONE)
            for target in ("/", "/legacy", "/legacy/", "/simple", "/simple/",
                           "/pypi", "/pypi/", ""):
                for way in WAYS:
                    if not prefix + target:
                        continue
                    version += 1
                    filename = "demo_pkg-%d.tar.gz" % version
                    with self.subTest(target=prefix + target,
                                      way=way.__name__):
                        answer = self.send(
                            filename, sdist(str(version)), way,
                            prefix + target, app)
                        self.assertEqual(answer.status, 200, answer)
                        self.assertIn(filename, self.files())

    def test_paths_that_take_none(self):
        for target in ("/packages/", "/packages/" + SDIST, "/legacy/x",
                       "/simple/demo-pkg/", "/demo-pkg/", "/RPC2", "/health",
                       "//", "/legacy//"):
            with self.subTest(target=target):
                answer = self.send(SDIST, sdist(), target=target)
                self.assertIn(answer.status, (404, 405, 415))
                if answer.status == 405:
                    self.assertIn("allow", answer.headers)
        self.assertEqual(self.files(), [])

    def test_the_forms_of_clients(self):
        for client in forms.CLIENTS:
            for way in WAYS:
                data = sdist(files={"who": client.name.encode()})
                fields = forms.captured(client, SDIST, data)
                headers, body = forms.encode_as(client, fields)
                with self.subTest(client=client.name, way=way.__name__):
                    answer = way(self.app, "POST", "/", headers, body)
                    self.assertEqual(answer.status, 200, answer)
                    self.assertEqual(self.content(SDIST), data)
                    self.act("remove_pkg", name="demo-pkg", version="1.0")
                    self.assertEqual(self.files(), [])

    def test_register(self):
        for way in WAYS:
            headers, body = forms.encode_as(forms.REGISTER, forms.captured(
                forms.REGISTER, SDIST, b""))
            answer = way(self.app, "POST", "/", headers, body)
            self.assertEqual(answer.status, 200, answer)
            self.assertEqual(self.files(), [])

    def test_kinds_of_archives(self):
        for filename, data in (
                (WHEEL, wheel()), ("demo_pkg-1.0.tar.gz", sdist()),
                ("demo_pkg-1.1.tgz", sdist("1.1", extension=".tgz")),
                ("demo_pkg-1.2.tar.bz2", sdist("1.2", extension=".tar.bz2")),
                ("demo_pkg-1.3.tar.xz", sdist("1.3", extension=".tar.xz")),
                ("demo_pkg-1.4.zip", sdist("1.4", extension=".zip")),
                ("demo_pkg-1.0-py3.8.egg", archives.egg("demo_pkg", "1.0")),
                ("demo_pkg-1.0.win32.exe", b"MZ" * 40 + archives.zipped(
                    {"PURELIB/demo.py": b""})),
                ("demo_pkg-1.0.linux-x86_64.tar.gz", sdist(
                    files={"usr/demo.py": b""}))):
            with self.subTest(filename=filename):
                self.stored(filename, data)
                self.assertEqual(self.content(filename), data)
                self.assertIn(filename, listed(self.app))

    def test_uploads_go_to_the_first_directory(self):
        second = os.path.join(self.folder, "second")
        os.mkdir(second)
        app = self.make_app(self.root, second, **ANYONE)
        self.stored(SDIST, sdist(), app=app)
        self.assertEqual((self.files(), os.listdir(second)), ([SDIST], []))

    def test_a_file_of_another_directory_is_not_shadowed(self):
        second = os.path.join(self.folder, "second")
        archives.put(second, SDIST, sdist())
        app = self.make_app(self.root, second, **ANYONE)
        self.stored(SDIST, sdist(), app=app)
        self.refused(self.send(SDIST, sdist(files={"x": b""}), app=app), 409)
        self.assertEqual(self.files(), [])

    def test_a_file_in_a_folder_is_found(self):
        archives.put(self.root, "some/folder/" + SDIST, sdist())
        self.stored(SDIST, sdist())
        self.refused(self.send(SDIST, sdist(files={"x": b""})), 409)
        app = self.make_app(overwrite=True, **ANYONE)
        self.stored(SDIST, sdist(files={"x": b""}), app=app)
        self.assertEqual(self.files(), ["some/folder/" + SDIST])

    def test_a_file_that_was_copied_a_moment_ago_is_not_replaced(self):
        """Not even when no request has seen it yet."""
        other = sdist(files={"x": b""})
        self.assertEqual(listed(self.app), [])
        archives.put(self.root, SDIST, other)
        self.refused(self.send(SDIST, sdist()), 409)
        self.assertEqual(self.content(SDIST), other)

    def test_something_else_of_that_name(self):
        os.mkdir(os.path.join(self.root, SDIST))
        os.symlink("nowhere", os.path.join(self.root, WHEEL))
        for settings in ({}, {"overwrite": True}):
            app = self.make_app(**dict(ANYONE, **settings))
            self.refused(self.send(SDIST, sdist(), app=app), 409)
        self.refused(self.send(WHEEL, wheel()), 409)
        self.assertTrue(os.path.isdir(os.path.join(self.root, SDIST)))
        self.assertTrue(os.path.islink(os.path.join(self.root, WHEEL)))
        self.assertEqual(self.files(), [WHEEL])

    def test_overwriting_replaces_a_link_not_its_target(self):
        outside = archives.put(self.folder, "outside", sdist())
        for make in (os.symlink, os.link):
            make(outside, os.path.join(self.root, SDIST))
            app = self.make_app(overwrite=True, **ANYONE)
            data = sdist(files={"x": b""})
            self.stored(SDIST, data, app=app)
            self.assertEqual(self.content(SDIST), data)
            with open(outside, "rb") as file:
                self.assertEqual(file.read(), sdist())
            os.unlink(os.path.join(self.root, SDIST))

    def test_overwriting_takes_the_old_signature_away(self):
        """It would be one of other bytes."""
        self.stored(SDIST, sdist(), gpg_signature=forms.File("x.asc", b"old"))
        app = self.make_app(overwrite=True, **ANYONE)
        self.stored(SDIST, sdist(), app=app)
        self.assertEqual(self.content(SDIST + ".asc"), b"old")
        self.stored(SDIST, sdist(files={"x": b""}), app=app)
        self.assertEqual(self.files(), [SDIST])
        self.stored(SDIST, sdist(), app=app,
                    gpg_signature=forms.File("x.asc", b"new"))
        self.assertEqual(self.content(SDIST + ".asc"), b"new")

    def test_modes_follow_the_umask(self):
        if os.name == "nt":
            self.skipTest("Windows has no umask")
        before = os.umask(0o027)
        try:
            self.stored(SDIST, sdist())
        finally:
            os.umask(before)
        mode = os.stat(os.path.join(self.root, SDIST)).st_mode
        self.assertEqual(mode & 0o777, 0o640)


class DigestTest(UploadTestCase):

    def test_each_digest_is_compared(self):
        data, right = sdist(), forms.digests(sdist())
        for field, digest in right.items():
            for value, status in (
                    (digest, 200), (digest.upper(), 200),
                    (" %s \r\n" % digest, 200), ("", 200), ("UNKNOWN", 200),
                    (digest[:-1] + ("0" if digest[-1] != "0" else "1"), 400),
                    ("0" * len(digest), 400), (digest[:-1], 400),
                    (digest + "0", 400), ("x" * len(digest), 400),
                    ("sha256:" + digest, 400), ("\xfc" * len(digest), 400),
                    (digest[:-1] + "\u0661", 400)):
                for before in (True, False):
                    with self.subTest(field=field, value=value,
                                      before=before):
                        pairs = [
                            (":action", "file_upload"),
                            ("content", forms.File(SDIST, data))]
                        pairs.insert(1 if before else 2, (field, value))
                        answer = self.post(pairs)
                        self.assertEqual(answer.status, status, answer)
                        self.assertEqual(
                            self.files(), [SDIST] if status == 200 else [])
                        if status == 200:
                            os.unlink(os.path.join(self.root, SDIST))
                        else:
                            self.refused(answer, 400, field)

    def test_one_wrong_digest_among_right_ones(self):
        right = forms.digests(sdist())
        for field in right:
            wrong = dict(right, **{field: right[field][::-1]})
            self.refused(self.send(SDIST, sdist(), **wrong), 400, field)
        self.assertEqual(self.files(), [])
        self.stored(SDIST, sdist(), **right)
        # Nor is a file taken for the same because it has the same name.
        self.refused(self.send(SDIST, sdist(), **wrong), 400, field)

    def test_digests_of_a_signature(self):
        self.stored(SDIST, sdist())
        wrong = {"sha256_digest": "0" * 64}
        self.refused(self.send(SDIST + ".asc", b"signed", **wrong), 400,
                     "sha256_digest")
        self.assertEqual(self.files(), [SDIST])
        self.stored(SDIST + ".asc", b"signed", **forms.digests(b"signed"))

    def test_a_digest_sent_twice(self):
        """One of the two is wrong: which, is not for us to choose."""
        right, wrong = forms.digests(sdist())["sha256_digest"], "0" * 64
        for pair in ((right, wrong), (wrong, right)):
            answer = self.post(
                [(":action", "file_upload")]
                + [("sha256_digest", digest) for digest in pair]
                + [("content", forms.File(SDIST, sdist()))])
            self.refused(answer, 400, "sha256_digest")
        self.assertEqual(self.files(), [])


class AgreementTest(UploadTestCase):
    """File name, form and metadata speak of the same release."""

    def test_the_form(self):
        for fields, status in (
                ({"name": "demo_pkg", "version": "1.0"}, 200),
                ({"name": "Demo.Pkg", "version": "1.0.0"}, 200),
                ({"name": "DEMO--PKG", "version": "v1.0"}, 200),
                ({"name": "demo-pkg", "version": " 1.0 "}, 200),
                ({"name": "", "version": ""}, 200),
                ({"name": "UNKNOWN", "version": "UNKNOWN"}, 200),
                ({"version": "1.0"}, 200),
                ({"name": "demo"}, 400), ({"name": "demo-pkg-1"}, 400),
                ({"name": "demopkg"}, 400), ({"name": "../demo-pkg"}, 400),
                ({"version": "1.1"}, 400), ({"version": "1"}, 200),
                ({"version": "1.0.post1"}, 400), ({"version": "1.0a1"}, 400),
                ({"version": "1.0+x"}, 400), ({"version": "1!1.0"}, 400),
                ({"version": "nonsense"}, 400)):
            with self.subTest(fields=fields):
                answer = self.send(WHEEL, wheel(), **fields)
                self.assertEqual(answer.status, status, answer)
                if status == 400:
                    self.refused(answer, 400, WHEEL)
                    self.assertEqual(self.files(), [])
                else:
                    os.unlink(os.path.join(self.root, WHEEL))

    def metadata(self, name, version):
        return archives.metadata(name, version)

    def test_the_metadata(self):
        for name, version, status in (
                ("demo_pkg", "1.0", 200), ("Demo.Pkg", "1.0.0", 200),
                ("demo-pkg", "1", 200), ("other", "1.0", 400),
                ("demo-pkg", "1.1", 400), ("", "1.0", 400),
                ("demo-pkg", "1.0.dev1", 400)):
            data = self.metadata(name, version)
            for filename, content in (
                    (WHEEL, archives.zipped(
                        {"demo_pkg-1.0.dist-info/METADATA": data})),
                    (SDIST, sdist(files={"PKG-INFO": data})),
                    ("demo_pkg-1.0.zip", archives.zipped(
                        {"demo_pkg-1.0/PKG-INFO": data})),
                    ("demo_pkg-1.0-py3.8.egg", archives.zipped(
                        {"EGG-INFO/PKG-INFO": data}))):
                with self.subTest(name=name, version=version,
                                  filename=filename):
                    answer = self.send(filename, content)
                    self.assertEqual(answer.status, status, answer)
                    if status == 400:
                        self.assertEqual(self.files(), [])
                    else:
                        os.unlink(os.path.join(self.root, filename))

    def test_spellings_of_the_same_file(self):
        self.stored("demo_pkg-1.0.tar.gz", sdist())
        self.stored(WHEEL, wheel())
        for filename, data in (
                ("demo-pkg-1.0.tar.gz", sdist()),
                ("Demo.Pkg-1.0.tar.gz", sdist()),
                ("demo_pkg-1.0.0.tar.gz", sdist("1.0.0")),
                ("demo__pkg-1.tar.gz", sdist("1")),
                ("Demo_Pkg-1.0-py3-none-any.whl", wheel()),
                ("demo_pkg-1.0.0-py3-none-any.whl", wheel("1.0.0"))):
            for settings in ({}, {"overwrite": True}):
                app = self.make_app(**dict(ANYONE, **settings))
                with self.subTest(filename=filename, **settings):
                    self.refused(self.send(filename, data, app=app), 409,
                                 "File already exists", "demo_pkg-1.0")
        self.assertEqual(self.files(), sorted([SDIST, WHEEL]))

    def test_other_files_of_the_same_release(self):
        names = [WHEEL, SDIST, "demo_pkg-1.0-2-py3-none-any.whl",
                 "demo_pkg-1.0-py2-none-any.whl",
                 "demo_pkg-1.0-cp311-cp311-linux_x86_64.whl"]
        for name in names:
            self.stored(name, sdist() if name == SDIST else wheel())
        self.stored("demo_pkg-1.0.zip", sdist(extension=".zip"))
        self.assertEqual(len(self.files()), 6)


# Security reference, rows 30 to 36.
BAD_NAMES = (
    ".evil-1.0.tar.gz", ".evil-1.0-py3-none-any.whl", "..tar.gz", ".tar.gz",
    "-1.0.tar.gz", "evil.tar.gz", "e-x.tar.gz", "--help-1.0.tar.gz",
    "-r-1.0.tar.gz", "_-1.0.tar.gz", "--1.0.tar.gz", "evil", "", " ",
    "../evil-1.0.tar.gz", "../../evil-1.0.tar.gz", "a/../evil-1.0.tar.gz",
    "/abs-1.0.tar.gz", "/tmp/abs-1.0.tar.gz", "sub/evil-1.0.tar.gz",
    "..\\evil-1.0.tar.gz", "C:\\evil-1.0.tar.gz", "C:evil-1.0.tar.gz",
    "a\\b-1.0.tar.gz", "\\\\host\\share\\evil-1.0.tar.gz",
    "%2e%2e%2fevil-1.0.tar.gz", "..%2fevil-1.0.tar.gz",
    "evil-1.0.tar.gz ", " evil-1.0.tar.gz", "evil-1.0.tar.gz\n",
    "evil-1.0.tar.gz\r\n", "evil\r\n-1.0.tar.gz", "ev\til-1.0.tar.gz",
    "evil-1.0.tar.gz\0", "evil\0-1.0.tar.gz", "evil-1.0\x1b[1m.tar.gz",
    "evil-1.0.tar.gz\x7f", "\xe9vil-1.0.tar.gz", "evil-1.0\xe9.tar.gz",
    "evil-1.0-py3-none-\xe9.whl", "evil-\u0661.0.tar.gz",
    "evil-1.0\u202e.tar.gz", "evil-1.0\u2028.tar.gz", "evil-\xb2.tar.gz",
    "evil\u2215-1.0.tar.gz", "evil-1.0 x.tar.gz", "evil-1.0<b>.tar.gz",
    "evil-1.0\"onload=\".tar.gz", "evil-1.0%2f..%2fx.tar.gz",
    "evil-1.0?x=.tar.gz", "evil-1.0#.tar.gz", "evil-1.0:stream.tar.gz",
    "evil-1.0*.tar.gz", "evil-1.0|x.tar.gz", "evil-1.0$(id).tar.gz",
    "evil-1.0;id.tar.gz", "evil-1.0&x.tar.gz",
    "e" * 300 + "-1.0.tar.gz", "evil-1." + "0" * 300 + ".tar.gz",
    "evil-1.0.tar", "evil-1.0.rar", "evil-1.0.py", "evil-1.0.whl",
    "evil-1.0-py3-none.whl", "evil-1.0-py3-none-any.whl.exe.txt",
    "evil-1.0.tar.gz.part", "evil-1.0.tar.gz~", "evil-1.0.tar.gz.tmp",
    "evil-1.0.tar.gz.yanked", "evil-1.0.tar.gz.metadata", "evil.status",
    "evil-1.0.tar.gz.provenance", "evil-1.0.tar.gz.asc", "index.html",
    "evil-.tar.gz", "evil-..tar.gz", "CON", ".lock",
)


def plain_sdist(name="evil", version="1.0"):
    """Return an sdist without metadata, as old tools made them."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("%s-%s/setup.py" % (name, version)))
    return file.getvalue()


class NameTest(UploadTestCase):

    def test_bad_names(self):
        """Whatever the archive holds: only the name is wrong."""
        for filename in BAD_NAMES:
            data = wheel(name="evil") if ".whl" in filename \
                else plain_sdist()
            for way in WAYS[:2]:
                with self.subTest(filename=filename, way=way.__name__):
                    answer = self.send(
                        filename.replace('"', '\\"'), data, way)
                    self.assertEqual(answer.status, 400, answer)
                    self.assertLess(len(answer.body), 1000)
                    self.assertNotIn("\n", answer.reason)
        self.assertEqual(self.files(), [])
        self.assertLessEqual(set(os.listdir(self.folder)),
                             {"cache", "packages"})

    def test_names_with_line_breaks_split_no_header(self):
        for filename in ("x\r\nSet-Cookie: a=b\r\n-1.0.tar.gz",
                         "x\nSet-Cookie: a=b\n-1.0.tar.gz"):
            for fields in ({}, {"name": filename}, {"version": filename},
                           {"action": filename}, {"sha256_digest": filename}):
                for name in (filename, SDIST):
                    with self.subTest(fields=fields, name=name):
                        answer = self.send(name, sdist(), call_socket,
                                           **fields)
                        if fields or name != SDIST:
                            self.assertEqual(answer.status, 400)
                        self.assertNotIn("set-cookie", answer.headers)
                        self.assertNotRegex(answer.reason, r"[\r\n]")
                        remove(self.root, SDIST)

    def test_long_names(self):
        """As long as a name with its companions can be on every disk."""
        for length, status in ((200, 200), (236, 200), (260, 400)):
            name = "d" * (length - len("-1.0.tar.gz"))
            answer = self.send(name + "-1.0.tar.gz", sdist(name=name),
                               gpg_signature=forms.File("x.asc", b"signed"))
            self.assertEqual(answer.status, status, answer)

    def test_names_that_look_odd_but_are_right(self):
        for filename, data in (
                ("zope.interface-6.1.tar.gz", sdist("6.1", "zope.interface")),
                ("demo-1.0+local.1.tar.gz", sdist("1.0+local.1", "demo")),
                ("demo-1!2.0.tar.gz", sdist("1!2.0", "demo")),
                ("Demo-2004d.zip", sdist("2004d", "Demo", ".zip")),
                ("d-1.tar.gz", sdist("1", "d")),
                ("0x-1.tar.gz", sdist("1", "0x")),
                ("demo-1.0rc1.dev3.tar.gz", sdist("1.0rc1.dev3", "demo")),
                ("demo-1.0-1.tar.gz", sdist("1.0-1", "demo"))):
            with self.subTest(filename=filename):
                self.stored(filename, data)
                self.assertIn(filename, listed(self.app))


def remove(*parts):
    """Remove a file that may be there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(*parts))


class FieldTest(UploadTestCase):

    def test_attestations_and_unknown_fields(self):
        self.stored(SDIST, sdist(), attestations='[{"version": 1}]',
                    some_future_field="x" * 100000, description="\0\xff",
                    classifiers="Topic :: x")
        self.assertEqual(self.files(), [SDIST])

    def test_fields_that_are_missing(self):
        data = forms.File(SDIST, sdist())
        for pairs, word in (
                ([], ":action"), ([("content", data)], ":action"),
                ([(":action", "")], ":action"),
                ([(":action", "nonsense")], "nonsense"),
                ([(":action", "file_upload")], "content"),
                ([(":action", "file_upload"), ("content", "text")],
                 "content"),
                ([(":action", "file_upload"), ("other", data)], "content"),
                ([(":action", "file_upload"), ("protocol_version", "2"),
                  ("content", data)], "protocol_version"),
                ([(":action", "file_upload"), ("content", data),
                  ("content", data)], "content"),
                ([(":action", "doc_upload")], "content"),
                ([(":action", "remove_pkg")], "name"),
                ([(":action", "remove_pkg"), ("name", "x")], "version"),
                ([(":action", "remove_pkg"), ("version", "1")], "name")):
            with self.subTest(pairs=pairs):
                self.refused(self.post(pairs), 400, word)
        self.assertEqual(self.files(), [])

    def test_a_text_and_a_file_of_one_name(self):
        """The text is not put behind the file."""
        for filename, data in ((SDIST, sdist()),
                               ("demo_pkg-1.0.win32.msi", b"whatever")):
            for order in (1, -1):
                pairs = [("content", "text"),
                         ("content", forms.File(filename, data))][::order]
                answer = self.post([(":action", "file_upload")] + pairs)
                self.assertIn(answer.status, (200, 400))
                if answer.status == 200:
                    self.assertEqual(self.content(filename), data)
                    os.unlink(os.path.join(self.root, filename))

    def test_the_order_of_fields_does_not_matter(self):
        dice = random.Random(2)
        for _ in range(20):
            pairs = [(":action", "file_upload"), ("protocol_version", "1"),
                     ("name", "demo-pkg"), ("version", "1.0"),
                     ("content", forms.File(SDIST, sdist())),
                     ("gpg_signature", forms.File("x", b"signed"))] \
                + list(forms.digests(sdist()).items())
            dice.shuffle(pairs)
            self.assertEqual(self.post(pairs).status, 200)
            self.assertEqual(self.files(), [SDIST, SDIST + ".asc"])
            self.act("remove_pkg", name="demo-pkg", version="1.0")

    def test_sizes_of_text_fields(self):
        limit = pypi_server.FORM_LIMIT
        self.stored(SDIST, sdist(), description="x" * (limit - 1000))
        self.refused(self.send(WHEEL, wheel(), description="x" * limit), 413)
        many = [("f%d" % number, "x" * (limit // 100))
                for number in range(101)]
        self.refused(self.post(many), 413)
        self.refused(self.post([("a", "")] * 3000), 400)
        self.assertEqual(self.files(), [SDIST])

    def test_bodies_that_are_no_form(self):
        for media_type, status in (
                ("application/x-www-form-urlencoded", 400),
                ("application/octet-stream", 415), ("", 415),
                ("multipart/mixed; boundary=x", 415),
                ("multipart/form-data", 400),
                ("multipart/form-data; boundary=" + "x" * 71, 400),
                ("multipart/form-data; boundary=x", 400),
                ("multipart/form-data; boundary=\xfc", 400)):
            for way in WAYS:
                with self.subTest(type=media_type, way=way.__name__):
                    answer = way(
                        self.app, "POST", "/", {"Content-Type": media_type},
                        b":action=file_upload")
                    self.assertEqual(answer.status, status, answer)

    def test_wsgi_input_that_ends_early(self):
        """A server behind the application lost its client."""
        headers, body = forms.upload(SDIST, sdist())
        for end in range(0, len(body), 97):
            environ = {
                "REQUEST_METHOD": "POST", "PATH_INFO": "/",
                "CONTENT_TYPE": headers["Content-Type"],
                "CONTENT_LENGTH": str(len(body)),
                "wsgi.input": io.BytesIO(body[:end])}
            setup_testing_defaults(environ)
            started = []
            blocks = pypi_server.wsgi_app(self.app)(
                environ, lambda *arguments: started.append(arguments))
            self.assertIn(b"incomplete", b"".join(blocks))
            self.assertEqual(started[0][0][:4], "400 ")
        self.assertEqual(self.files(), [])

    def test_no_body(self):
        for way in WAYS:
            answer = way(self.app, "POST", "/",
                         {"Content-Type": forms.content_type()})
            self.assertEqual(answer.status, 400, answer)


class SignatureTest(UploadTestCase):

    def signed(self):
        page = call(self.app, "GET", "/simple/demo-pkg/",
                    {"Accept": pypi_server.SIMPLE_JSON})
        file, = json.loads(page.body.decode())["files"]
        return file.get("gpg-sig"), call(
            self.app, "GET", "/packages/%s.asc" % SDIST)

    def test_in_the_same_request(self):
        self.stored(SDIST, sdist(),
                    gpg_signature=forms.File(SDIST + ".asc", b"signed"))
        self.assertEqual(self.files(), [SDIST, SDIST + ".asc"])
        told, answer = self.signed()
        self.assertEqual((told, answer.body), (True, b"signed"))

    def test_later(self):
        self.stored(SDIST, sdist())
        self.assertEqual(self.signed()[1].status, 404)
        self.stored(SDIST + ".asc", b"signed", name="demo-pkg",
                    version="1.0")
        told, answer = self.signed()
        self.assertEqual((told, answer.body), (True, b"signed"))

    def test_with_the_same_archive_again(self):
        self.stored(SDIST, sdist())
        self.stored(SDIST, sdist(),
                    gpg_signature=forms.File(SDIST + ".asc", b"signed"))
        self.assertEqual(self.signed()[1].body, b"signed")

    def test_another_signature_that_was_left(self):
        """Then nothing is stored: it would be beside the wrong archive."""
        path = os.path.join(self.root, SDIST + ".asc")
        archives.put(self.root, SDIST + ".asc", b"old")
        new = forms.File(SDIST + ".asc", b"new")
        self.refused(self.send(SDIST, sdist(), gpg_signature=new), 409,
                     SDIST + ".asc", "remove it")
        self.assertEqual(self.files(), [SDIST + ".asc"])
        self.assertEqual(self.content(SDIST + ".asc"), b"old")
        os.unlink(path)
        os.mkdir(path)
        for app in self.app, self.make_app(overwrite=True, **ANYONE):
            self.refused(self.send(SDIST, sdist(), app=app,
                                   gpg_signature=new), 409, SDIST + ".asc")
            self.assertEqual(self.files(), [])
            self.assertTrue(os.path.isdir(path))
        os.rmdir(path)
        self.stored(SDIST, sdist(), gpg_signature=new)
        self.assertEqual(self.signed()[1].body, b"new")

    def test_of_other_content(self):
        """Then it is the content that is told of."""
        one, other = (forms.File(SDIST + ".asc", data)
                      for data in (b"one", b"other"))
        self.stored(SDIST, sdist(), gpg_signature=one)
        self.refused(self.send(SDIST, sdist(files={"x": b""}),
                               gpg_signature=other), 409,
                     "raise the version")
        self.assertEqual(self.content(SDIST + ".asc"), b"one")
        self.refused(self.send(SDIST, sdist(), gpg_signature=other), 409,
                     SDIST + ".asc")

    def test_of_an_archive_in_another_directory(self):
        other = os.path.join(self.folder, "other")
        archives.put(other, SDIST, sdist())
        app = self.make_app(self.root, other, **ANYONE)
        answer = self.send(SDIST, sdist(), app=app, gpg_signature=forms.File(
            SDIST + ".asc", b"signed"))
        self.assertEqual(200, answer.status)
        self.assertIn(b"takes no signatures", answer.body)
        self.assertEqual(self.files(), [])

    def test_alone(self):
        self.refused(self.send(SDIST + ".asc", b"signed"), 400, SDIST)
        for name in ("../x.asc", ".asc", "/etc/passwd.asc", "x.asc", "\0.asc",
                     SDIST + ".asc.asc"):
            self.assertEqual(self.send(name, b"signed").status, 400, name)
        self.assertEqual(self.files(), [])

    def test_twice(self):
        self.stored(SDIST, sdist())
        for data, status in ((b"signed", 200), (b"signed", 200),
                             (b"other", 409)):
            answer = self.send(SDIST + ".asc", data)
            self.assertEqual(answer.status, status, answer)
        self.assertEqual(self.content(SDIST + ".asc"), b"signed")
        app = self.make_app(overwrite=True, **ANYONE)
        self.stored(SDIST + ".asc", b"other", app=app)
        self.assertEqual(self.content(SDIST + ".asc"), b"other")

    def test_too_large(self):
        """It is refused, not stored in part."""
        large = b"x" * (pypi_server.SIGNATURE_LIMIT + 1)
        self.refused(self.send(SDIST, sdist(), gpg_signature=forms.File(
            "x", large)), 413)
        self.assertEqual(self.files(), [])
        self.stored(SDIST, sdist())
        self.refused(self.send(SDIST + ".asc", large), 413)
        self.assertEqual(self.files(), [SDIST])

    def test_for_a_project_that_takes_no_files(self):
        self.stored(SDIST, sdist())
        with open(os.path.join(self.root, "demo_pkg.status"), "w") as file:
            file.write("archived")
        app = self.make_app(**ANYONE)
        self.refused(self.send(SDIST + ".asc", b"signed", app=app), 403,
                     "archived")


class OtherActionTest(UploadTestCase):

    def test_submit_and_verify(self):
        for action in ("submit", "verify"):
            answer = self.act(action, name="new", version="1.0")
            self.assertEqual(answer.status, 200, answer)
        self.assertEqual(self.files(), [])
        self.assertEqual(call(
            self.make_app(disable_fallback=True, **ANYONE), "GET",
            "/simple/new/").status, 404)

    def test_documentation(self):
        answer = self.send("docs.zip", archives.zipped({"index.html": b"x"}),
                           action="doc_upload", name="demo")
        self.assertEqual(answer.status, 200, answer)
        self.assertIn(b"not keep", answer.body)
        for data in (b"", b"x", sdist()):
            self.refused(self.send("docs.zip", data, action="doc_upload",
                                   name="demo"), 400, "zip")
        self.assertEqual(self.files(), [])

    def fill(self):
        for version in ("1.0", "1.1"):
            self.stored("demo_pkg-%s.tar.gz" % version, sdist(version),
                        gpg_signature=forms.File("x", b"signed"))
            self.stored("demo_pkg-%s-py3-none-any.whl" % version,
                        wheel(version))
        for suffix in (".yanked", ".provenance"):
            with open(os.path.join(self.root, WHEEL + suffix), "w") as file:
                file.write("{}")
        self.stored("demo-1.0.tar.gz", sdist(name="demo"))
        return ["demo-1.0.tar.gz", "demo_pkg-1.1-py3-none-any.whl",
                "demo_pkg-1.1.tar.gz", "demo_pkg-1.1.tar.gz.asc"]

    def test_removing_a_release(self):
        for name, version in (("demo-pkg", "1.0"), ("Demo.Pkg", "1.0.0"),
                              ("DEMO__PKG", "v1"), ("demo_pkg", "01.0")):
            kept = self.fill()
            with self.subTest(name=name, version=version):
                answer = self.act("remove_pkg", name=name, version=version)
                self.assertEqual(answer.status, 200, answer)
                self.assertIn(SDIST.encode(), answer.body)
                self.assertEqual(self.files(), kept)
                self.assertEqual(texts(call(
                    self.app, "GET", "/simple/demo-pkg/").body), [
                        "demo_pkg-1.1-py3-none-any.whl",
                        "demo_pkg-1.1.tar.gz"])

    def test_removing_by_a_form_without_a_file(self):
        """As curl -d and requests.post(data=...) send it."""
        media_type = {"Content-Type": "application/x-www-form-urlencoded"}
        for way in WAYS:
            self.fill()
            answer = way(self.app, "POST", "/", media_type, urlencode(
                {":action": "remove_pkg", "name": "Demo.Pkg",
                 "version": "1.0"}).encode())
            self.assertEqual(answer.status, 200, answer)
            self.assertNotIn(SDIST, self.files())
        self.refused(call(
            self.app, "POST", "/", media_type,
            b":action=file_upload&name=demo&content=x"), 400, "no file")
        self.refused(call(self.app, "POST", "/", media_type, b"a" * 70000),
                     413, "65536")

    def test_removing_what_is_not_there(self):
        before = self.fill() and self.files()
        for name, version in (("demo-pkg", "2.0"), ("nosuch", "1.0"),
                              ("demo-pkg", "1.0.post1"), ("demo", "1.1"),
                              ("../demo-pkg", "1.0"), ("demo-pkg", "*"),
                              ("demo-pkg", "")):
            answer = self.act("remove_pkg", name=name, version=version)
            self.assertIn(answer.status, (400, 404), (name, version))
        self.assertEqual(self.files(), before)

    def test_removing_from_folders_and_from_every_directory(self):
        """What is said to be removed is not served any more."""
        second = os.path.join(self.folder, "second")
        for folder in (self.root, os.path.join(self.root, "sub"), second):
            archives.put(folder, SDIST, sdist())
            archives.put(folder, SDIST + ".asc", b"signed")
        app = self.make_app(self.root, second, disable_fallback=True,
                            **ANYONE)
        answer = self.act("remove_pkg", app, name="demo-pkg", version="1.0")
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual(
            call(app, "GET", "/simple/demo-pkg/").status, 404)
        self.assertEqual((self.files(), os.listdir(second)), ([], []))

    def test_the_file_can_come_again(self):
        self.stored(SDIST, sdist())
        self.act("remove_pkg", name="demo-pkg", version="1.0")
        self.stored(SDIST, sdist(files={"x": b""}))


class SwitchTest(UploadTestCase):

    def test_read_only(self):
        self.stored(SDIST, sdist())
        app = self.make_app(read_only=True, **ANYONE)
        self.refused(self.send(WHEEL, wheel(), app=app), 403, "read-only")
        closed = self.make_app(read_only=True)  # there are no accounts, too
        self.refused(self.send(WHEEL, wheel(), app=closed), 403, "read-only")
        self.refused(self.send(SDIST, sdist(), app=app), 403, "read-only")
        for action in ("remove_pkg", "submit", "doc_upload"):
            self.refused(self.act(action, app, name="demo-pkg",
                                  version="1.0"), 403, "read-only")
        self.assertEqual(self.files(), [SDIST])
        self.assertEqual(call(app, "GET", "/packages/" + SDIST).status, 200)

    def test_the_largest_file(self):
        data = wheel(files={"zeros": b"\0" * 100000},
                     compression=zipfile.ZIP_STORED)
        for size, status in ((len(data), 200), (len(data) - 1, 413),
                             (1, 413)):
            app = self.make_app(max_upload_size=size, **ANYONE)
            for way in WAYS:
                with self.subTest(size=size, way=way.__name__):
                    answer = self.send(WHEEL, data, way, app=app)
                    self.assertEqual(answer.status, status, answer)
                    if status == 413:
                        self.refused(answer, 413, "limit", str(size))
                        self.assertEqual(self.files(), [])
            if status == 200:
                os.unlink(os.path.join(self.root, WHEEL))

    def test_switched_off(self):
        app = self.make_app()
        for way in WAYS:
            for action in ("file_upload", "submit", "remove_pkg", "verify"):
                answer = self.send(SDIST, sdist(), way, app=app,
                                   action=action)
                self.refused(answer, 403, "-P FILE", "-a . -P .")
        self.assertEqual(self.files(), [])

    def test_other_sites(self):
        """A page of another site may let a browser post with the user's
        credentials."""
        for headers, status in (
                ({"Origin": "http://evil.example"}, 403),
                ({"Origin": "null"}, 403),
                ({"Origin": "http://index.example.evil.example"}, 403),
                ({"Origin": "http://index.example:81"}, 403),
                ({"Sec-Fetch-Site": "cross-site"}, 403),
                ({"Sec-Fetch-Site": "same-site"}, 403),
                ({"Sec-Fetch-Site": "nonsense"}, 403),
                ({"Sec-Fetch-Site": "cross-site",
                  "Origin": "http://index.example"}, 403),
                ({}, 200), ({"Origin": "http://index.example"}, 200),
                ({"Sec-Fetch-Site": "same-origin"}, 200),
                ({"Sec-Fetch-Site": "none"}, 200)):
            for way in WAYS:
                with self.subTest(headers=headers, way=way.__name__):
                    answer = self.send(SDIST, sdist(), way, headers=headers)
                    self.assertEqual(answer.status, status, answer)
                    self.assertEqual(
                        self.files(), [SDIST] if status == 200 else [])
                    if status == 200:
                        os.unlink(os.path.join(self.root, SDIST))

    def test_projects_that_take_no_files(self):
        for status, reason, expected in (
                ("archived", "use other", 403), ("quarantined", "", 403),
                ("deprecated", "use other", 200), ("active", "", 200),
                ("nonsense", "", 200)):
            path = os.path.join(self.root, "Demo.Pkg.status")
            with open(path, "w") as file:
                file.write("%s %s\n" % (status, reason))
            app = self.make_app(**ANYONE)
            with self.subTest(status=status):
                answer = self.send(SDIST, sdist(), app=app)
                self.assertEqual(answer.status, expected, answer)
                if expected == 403:
                    self.refused(answer, 403, status, reason)
                else:
                    os.unlink(os.path.join(self.root, SDIST))


# As uv sends it.
UV = "application/json;q=0.9, text/plain;q=0.8, text/html;q=0.7"


class ErrorFormTest(UploadTestCase):
    """Errors come as the client shows them."""

    def errors(self, way, **headers):
        """Yield (status, Answer) of some refusals."""
        self.stored(SDIST, sdist())
        yield 409, self.send(SDIST, sdist(files={"x": b""}), way,
                             headers=headers)
        yield 400, self.send(WHEEL, b"x", way, headers=headers)
        yield 403, self.send(WHEEL, wheel(), way, app=self.make_app(),
                             headers=headers)
        yield 413, self.send(WHEEL, wheel(), way, headers=headers,
                             app=self.make_app(max_upload_size=1, **ANYONE))
        yield 400, self.send("\xfc\u20ac\x1b-1.0.tar.gz", sdist(), way,
                             headers=headers)

    def test_json(self):
        for way in WAYS:
            for status, answer in self.errors(way, Accept=UV):
                with self.subTest(way=way.__name__, status=status):
                    self.assertEqual(answer.status, status)
                    self.assertEqual(answer.headers["content-type"],
                                     "application/json")
                    found = json.loads(answer.body.decode("utf-8"))
                    self.assertEqual(sorted(found),
                                     ["code", "message", "title"])
                    self.assertEqual(found["code"], "%d %s" % (
                        status, found["message"]))

    def test_text(self):
        for way in WAYS:
            for headers in ({"Accept": "*/*"}, {}, {"Accept": "text/plain"}):
                for status, answer in self.errors(way, **headers):
                    with self.subTest(way=way.__name__, status=status):
                        self.refused(answer, status)
                        self.assertEqual(answer.headers["content-type"],
                                         "text/plain; charset=utf-8")

    def test_html(self):
        for status, answer in self.errors(call, Accept="text/html"):
            self.assertEqual(answer.headers["content-type"],
                             "text/html; charset=utf-8")
            self.assertIn("%d " % status, answer.body.decode("utf-8"))
        answer = self.send("<script>-1.0.tar.gz", sdist(),
                           headers={"Accept": "text/html"})
        self.assertNotIn(b"<script>", answer.body)

    def test_sentences_begin_as_twine_expects(self):
        self.stored(SDIST, sdist())
        answer = self.send(SDIST, sdist(files={"x": b""}))
        self.assertTrue(answer.reason.startswith("File already exists"))
        self.assertTrue(re.search("already exist", answer.reason))


if __name__ == "__main__":
    unittest.main()
