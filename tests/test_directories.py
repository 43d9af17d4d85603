"""What lies in the directories is what is served, soon."""

import contextlib
import glob
import gzip
import hashlib
import importlib
import json
import lzma
import os
import random
import shutil
import sqlite3
import tempfile
import threading
import time
import unittest
import zipfile
from unittest import mock

import pypi_server
from tests import archives
from tests.helpers import (
    Answer, DirectoryTestCase, ServerProcess, anchors, call, listed, names_in,
    texts, wait_for,
)

JSON = "application/vnd.pypi.simple.v1+json"
NOBODY = 65534  # user id
SEEN_WITHIN = 2.0  # seconds; a promise of the README
NOISE = random.Random(4).getrandbits(8 * 3 * 2 ** 20).to_bytes(
    3 * 2 ** 20, "big")


def wheel(name, body="", version="1.0"):
    return archives.wheel(name, version, body=body)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def detail(get, name):
    """Return project detail as JSON has it; None when there is none."""
    answer = get("/simple/%s/" % name, {"Accept": JSON})
    if answer.status != 200:
        return None
    return json.loads(answer.body.decode("utf-8"))


def digests(get, name):
    """Return {filename: sha256} of a project."""
    return {file["filename"]: file["hashes"]["sha256"]
            for file in (detail(get, name) or {"files": ()})["files"]}


def getter(app):
    return lambda target, headers=None: call(app, "GET", target, headers)


def server_getter(server):
    return lambda target, headers=None: server.get(target[1:], headers)


@contextlib.contextmanager
def unprivileged(folder):
    """Be a user to whom file modes apply, also when root runs this."""
    with contextlib.suppress(ImportError):  # or nobody may not find it
        importlib.import_module("unittest._log")
    if os.geteuid():
        yield
        return
    for path, _, names in os.walk(folder):
        for name in [""] + names:
            os.chown(os.path.join(path, name), NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


class FilesTestCase(DirectoryTestCase):
    """Puts small wheels into the directory, and waits until they show."""

    def put(self, path, data=None, age=60, root=None):
        if data is None:
            data = wheel("foo", path)
        return archives.put(root or self.root, path, data, age)

    def open(self, *roots, **settings):
        """Make an App and return what gets from it."""
        settings.setdefault("disable_fallback", True)
        self.app = self.make_app(*roots, **settings)
        return getter(self.app)

    def wait_for_names(self, *names):
        wait_for(lambda: listed(self.app) == sorted(names), names, 5)

    def name(self, project, version="1.0"):
        return "%s-%s-py3-none-any.whl" % (project, version)


class TestRoots(FilesTestCase):
    def setUp(self):
        super().setUp()
        self.other = os.path.join(self.folder, "other")
        os.mkdir(self.other)

    def test_first_root_wins_and_it_is_logged(self):
        first = wheel("foo", "first")
        self.put("foo-1.0-py3-none-any.whl", first)
        self.put("foo-1.0-py3-none-any.whl", wheel("foo", "second"),
                 root=self.other)
        self.put("deep/foo-2.0-py3-none-any.whl", root=self.other)
        self.put("b/bar-1.0-py3-none-any.whl", first)
        self.put("a/bar-1.0-py3-none-any.whl", wheel("bar", "a"))
        with self.assertLogs("pypi_server", "WARNING") as logs:
            get = self.open(self.root, self.other)
            self.wait_for_names(
                "bar-1.0-py3-none-any.whl", "foo-1.0-py3-none-any.whl",
                "foo-2.0-py3-none-any.whl")
        self.assertEqual(digest(first), digests(get, "foo")[
            "foo-1.0-py3-none-any.whl"])
        self.assertEqual(
            first, get("/packages/foo-1.0-py3-none-any.whl").body)
        # In one root, the directory that comes first by name.
        self.assertEqual(200, get(
            "/packages/a/bar-1.0-py3-none-any.whl").status)
        self.assertEqual(404, get(
            "/packages/b/bar-1.0-py3-none-any.whl").status)
        for hidden in (self.other + "/foo-1.0", self.root + "/b/bar-1.0"):
            self.assertEqual(1, sum(
                hidden in line and "not served" in line.split(hidden)[1]
                for line in logs.output), logs.output)

    def test_shadow_takes_over_and_gives_back(self):
        filename = "foo-1.0-py3-none-any.whl"
        first, second = wheel("foo", "first"), wheel("foo", "second")
        self.put(filename, second, root=self.other)
        get = self.open(self.root, self.other)
        for data, change in (
                (second, lambda: None),
                (first, lambda: self.put(filename, first)),
                (second, lambda: os.remove(
                    os.path.join(self.root, filename))),
                (first, lambda: self.put("deep/" + filename, first)),
                (second, lambda: shutil.rmtree(
                    os.path.join(self.root, "deep")))):
            change()
            wait_for(lambda: digests(get, "foo") == {
                filename: digest(data)}, "its digest", SEEN_WITHIN)

    def test_one_directory_named_twice_is_one(self):
        self.put("foo-1.0-py3-none-any.whl")
        with self.assertLogs("pypi_server", "WARNING") as logs:
            pypi_server.LOG.warning("at least one line")
            self.open(self.root, self.root + "/", os.path.join(
                self.root, "..", "packages"))
            self.wait_for_names("foo-1.0-py3-none-any.whl")
        self.assertEqual(1, len(logs.output), logs.output)

    def test_first_status_counts_whatever_came_first(self):
        """The directory is the state: the past of the server is not."""
        self.put("foo-1.0-py3-none-any.whl")
        self.put("foo.status", b"archived", root=self.other)
        get = self.open(self.root, self.other)
        self.wait_for_names("foo-1.0-py3-none-any.whl")

        def status():
            return detail(get, "foo").get("project-status")
        self.assertEqual({"status": "archived"}, status())
        self.put("foo.status", b"deprecated")
        wait_for(lambda: status() == {"status": "deprecated"},
                 "that of the first directory", SEEN_WITHIN)
        os.remove(os.path.join(self.root, "foo.status"))
        wait_for(lambda: status() == {"status": "archived"},
                 "that of the other directory", SEEN_WITHIN)

    def test_missing_root_is_made_if_its_parent_exists(self):
        path = os.path.join(self.folder, "new")
        with self.assertLogs("pypi_server", "WARNING") as logs:
            get = self.open(path)
        self.assertTrue(os.path.isdir(path))
        self.assertIn(path, logs.output[0])
        self.assertEqual(200, get("/simple/").status)
        for bad in (os.path.join(path, "a", "b"),
                    self.put("a file"), self.put("a file") + "/x"):
            with self.assertRaises(pypi_server.UsageError):
                self.open(bad)

    def test_vanished_root_is_503_until_it_is_back(self):
        """Never an empty index: clients would look elsewhere."""
        filename = "foo-1.0-py3-none-any.whl"
        self.put(filename)
        self.put("bar-1.0-py3-none-any.whl", root=self.other)
        get = self.open(self.root, self.other, disable_fallback=False)
        self.wait_for_names("bar-1.0-py3-none-any.whl", filename)
        pages = ("/simple/", "/simple/foo/", "/simple/bar/", "/packages/",
                 "/packages/" + filename, "/simple/none/", "/health", "/",
                 "/pypi/foo/json", "/packages/%s.metadata" % filename)
        away = os.path.join(self.folder, "away")
        for replace in (lambda: None, lambda: open(self.root, "w").close()):
            with self.assertLogs("pypi_server", "ERROR") as logs:
                os.rename(self.root, away)
                replace()
                wait_for(lambda: get("/simple/").status == 503, "503",
                         SEEN_WITHIN)
                for page in pages * 3:
                    answer = get(page)
                    self.assertEqual(503, answer.status, page)
                    self.assertIn("retry-after", answer.headers)
                    self.assertNotIn("location", answer.headers)
            self.assertEqual(1, len(logs.output))
            self.assertIn(self.root, logs.output[0])
            if os.path.exists(self.root):
                os.remove(self.root)
            os.rename(away, self.root)
            wait_for(lambda: get("/simple/").status == 200, "200",
                     SEEN_WITHIN)
            for page in pages:
                self.assertEqual(
                    302 if page == "/simple/none/" else 200,
                    get(page).status, page)

    def test_root_that_is_away_sends_nobody_elsewhere(self):
        """Not even when other workers report changes all the time."""
        self.put("foo-1.0-py3-none-any.whl")
        app = self.make_app()
        directories = app.directories
        wait_for(lambda: call(app, "GET", "/simple/foo/").status == 200,
                 "it is listed")
        os.rename(self.root, self.root + ".away")
        wait_for(lambda: call(app, "GET", "/health").status == 503,
                 "it is noticed", SEEN_WITHIN)
        for _ in range(20):
            directories.catch_up()
            directories.tree.change(())
            for target in "/simple/private/", "/simple/foo/", "/health":
                self.assertEqual(503, call(app, "GET", target).status)
        os.rename(self.root + ".away", self.root)
        wait_for(lambda: call(app, "GET", "/simple/foo/").status == 200,
                 "it is back", SEEN_WITHIN)

    def test_unreadable_folder_sends_nobody_elsewhere(self):
        """What was in it is still local: no redirect to the fallback."""
        self.put("sub/foo-1.0-py3-none-any.whl")
        self.put("bar-1.0-py3-none-any.whl")
        get = self.open(disable_fallback=False)
        self.wait_for_names("bar-1.0-py3-none-any.whl",
                            "foo-1.0-py3-none-any.whl")
        path = os.path.join(self.root, "sub")
        with unprivileged(self.folder):
            self.put("bar-1.1-py3-none-any.whl")
            os.chmod(path, 0)
            try:
                wait_for(lambda: get("/simple/bar/").status == 503
                         or len(digests(get, "bar")) == 2, "a look",
                         SEEN_WITHIN)
                self.assertIn(get("/simple/foo/").status, (200, 404, 503))
            finally:
                os.chmod(path, 0o755)
            wait_for(lambda: digests(get, "foo"), "foo again", SEEN_WITHIN)

    def test_leftovers_that_cannot_be_looked_at(self):
        """As when a folder vanishes while it is looked through."""
        path = os.path.join(self.root, "sub")
        os.makedirs(os.path.join(path, ".upload-1-a"))
        with unprivileged(self.folder):
            os.chmod(path, 0o444)  # names can be listed, and no more
            try:
                pypi_server.remove_leftovers([self.root])
            finally:
                os.chmod(path, 0o755)
        self.assertEqual([".upload-1-a"], os.listdir(path))

    def test_folder_that_was_never_readable_sends_nobody_elsewhere(self):
        """Nobody knows what is in it; the rest is served all the same."""
        self.put("sub/deep/foo-1.0-py3-none-any.whl")
        self.put("bar-1.0-py3-none-any.whl", wheel("bar"))
        os.mkdir(os.path.join(self.root, "lost+found"), 0)
        for folder in "sub", "sub/deep":
            path = os.path.join(self.root, folder)
            with self.subTest(folder), unprivileged(self.folder):
                os.chmod(path, 0)
                try:
                    with self.assertLogs("pypi_server", "WARNING") as logs:
                        get = self.open(disable_fallback=False)
                        answer = get("/simple/foo/")
                        self.assertEqual(503, answer.status)
                        self.assertIn("retry-after", answer.headers)
                        self.assertNotIn("location", answer.headers)
                        self.assertTrue(digests(get, "bar"))
                        for target in ("/simple/", "/packages/", "/",
                                       "/packages/bar-1.0-py3-none-any.whl",
                                       "/health"):
                            self.assertEqual(200, get(target).status)
                        get = self.open(disable_fallback=True)
                        self.assertEqual(503, get("/simple/foo/").status)
                    self.assertEqual(2, len(logs.output), logs.output)
                finally:
                    os.chmod(path, 0o755)
                wait_for(lambda: digests(get, "foo"), "foo", SEEN_WITHIN)
                get = self.open(disable_fallback=False)
                self.assertEqual(302, get("/simple/none/").status)


class TestEntries(FilesTestCase):
    GOOD = "good-1.0-py3-none-any.whl"

    def test_names_that_are_not_served(self):
        for path in (".foo-1.0-py3-none-any.whl", ".git/foo-1.0.zip",
                     "a/.b/c/foo-1.0.zip", "foo.txt", "foo-1.0.zip.part",
                     "foo-1.0.tar.gz.asc", "foo-1.0.zip.tmp",
                     "foo-1.0.zip.yanked", "foo-1.0-py3-none-any.whl~"):
            self.put(path)
        self.put(self.GOOD)
        get = self.open()
        self.wait_for_names(self.GOOD)
        self.assertEqual(["good"], texts(get("/simple/").body))
        self.assertEqual([self.GOOD], texts(get("/packages/").body))

    def test_links(self):
        """Links to files are followed, links to directories are not."""
        outside = os.path.join(self.folder, "outside")
        archives.put(outside, "linked-1.0-py3-none-any.whl", wheel("linked"))
        archives.put(outside, "other-1.0-py3-none-any.whl", wheel("other"))
        self.put(self.GOOD)

        def link(target, name):
            os.symlink(target, os.path.join(self.root, name))
        link(outside + "/linked-1.0-py3-none-any.whl",
             "linked-1.0-py3-none-any.whl")
        link(outside, "folder")
        link(outside, "folder-1.0.zip")
        link(".", "loop")
        link("..", "up")
        link("nowhere", "broken-1.0.zip")
        link("/dev/zero", "zero-1.0.zip")
        self.open()
        self.wait_for_names(self.GOOD, "linked-1.0-py3-none-any.whl")

    def test_link_to_itself_hides_nothing(self):
        self.put(self.GOOD)
        for path in "self-1.0.zip", "sub/one-1.0.zip":
            path = os.path.join(self.root, path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(os.path.basename(path), path)
        self.put("sub/fine-1.0-py3-none-any.whl", wheel("fine"))
        self.open()
        self.wait_for_names("fine-1.0-py3-none-any.whl", self.GOOD)

    def test_what_is_no_regular_file(self):
        self.put(self.GOOD)
        os.mkdir(os.path.join(self.root, "folder-1.0.tar.gz"))
        self.put("inner-1.0.tar.gz/inner-1.0-py3-none-any.whl",
                 wheel("inner"))
        os.mkfifo(os.path.join(self.root, "fifo-1.0.tar.gz"))
        self.put("yanked-1.0-py3-none-any.whl", wheel("yanked"))
        for suffix in ".yanked", ".asc", ".provenance":
            os.mkfifo(os.path.join(
                self.root, "yanked-1.0-py3-none-any.whl" + suffix))
            os.mkdir(os.path.join(self.root, self.GOOD + suffix))
        get = self.open()
        self.wait_for_names(self.GOOD, "inner-1.0-py3-none-any.whl",
                            "yanked-1.0-py3-none-any.whl")
        for file in detail(get, "good")["files"] + detail(
                get, "yanked")["files"]:
            for key in "yanked", "gpg-sig", "provenance":
                self.assertNotIn(key, file)

    def test_file_that_becomes_a_fifo(self):
        """Opening it must not wait for somebody who writes."""
        path = self.put("foo-1.0-py3-none-any.whl")
        self.put("foo-1.1-py3-none-any.whl")
        self.put("bar-1.0-py3-none-any.whl.asc", b"sig")
        self.put("bar-1.0-py3-none-any.whl")
        get = self.open()
        self.wait_for_names(
            "bar-1.0-py3-none-any.whl", "foo-1.0-py3-none-any.whl",
            "foo-1.1-py3-none-any.whl")
        for each in path, path.replace("foo", "bar") + ".asc":
            os.remove(each)
            os.mkfifo(each)
        for _ in range(3):
            for target in ("/packages/foo-1.0-py3-none-any.whl",
                           "/packages/bar-1.0-py3-none-any.whl.asc",
                           "/packages/foo-1.0-py3-none-any.whl.metadata"):
                self.assertIn(get(target).status, (404, 503))
        wait_for(lambda: list(digests(get, "foo")) == [
            "foo-1.1-py3-none-any.whl"], "only 1.1", SEEN_WITHIN)

    def test_unreadable_file_hides_no_other(self):
        path = self.put("foo-1.0-py3-none-any.whl")
        self.put("foo-1.1-py3-none-any.whl")
        self.put("foo-1.1-py3-none-any.whl.yanked", b"reason")
        os.chmod(path, 0)
        os.chmod(os.path.join(
            self.root, "foo-1.1-py3-none-any.whl.yanked"), 0)
        with unprivileged(self.folder), self.assertLogs(
                "pypi_server", "WARNING") as logs:
            get = self.open()
            self.wait_for_names("foo-1.1-py3-none-any.whl")
            for _ in range(3):
                self.assertEqual(200, get("/simple/foo/").status)
                self.assertIn(
                    get("/packages/foo-1.0-py3-none-any.whl").status,
                    (403, 404, 503))
            # Its reason cannot be read, but that it is yanked is known.
            self.assertIs(True, detail(get, "foo")["files"][0]["yanked"])
            os.chmod(path, 0o644)
            wait_for(lambda: len(digests(get, "foo")) == 2, "both",
                     SEEN_WITHIN)
        lines = [line for line in logs.output if path in line]
        self.assertEqual(2, len(lines), lines)  # withheld, and back
        self.assertIn("cannot be read", lines[0])

    def test_names_that_cannot_be_shown_are_logged_once(self):
        self.put(self.GOOD)
        names = (b"\xff\xfe-1.0.tar.gz", b"new\nline-1.0.tar.gz",
                 b"esc\x1b[31m-1.0.tar.gz", b"nul\x01-1.0.tar.gz",
                 "rtl\u202e-1.0.tar.gz".encode(), b"sub\xff/x-1.0.tar.gz")
        for name in names:
            path = os.path.join(os.fsencode(self.root), name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(b"x")
        with self.assertLogs("pypi_server", "WARNING") as logs:
            get = self.open()
            self.wait_for_names(self.GOOD)
            self.put("more-1.0-py3-none-any.whl", wheel("more"))
            self.wait_for_names(self.GOOD, "more-1.0-py3-none-any.whl")
            for target in "/simple/", "/packages/", "/", "/simple/good/":
                self.assertEqual(200, get(target).status)
        self.assertEqual(len(names), len(logs.output), logs.output)
        for line in logs.output:
            self.assertTrue(line.isprintable(), ascii(line))
            self.assertIn("not served", line)


class Change:
    """Something done to a directory, and how its project shows it.

    prepare() comes before change(); `show` tells what matters of detail(),
    and `wanted` how that will be: None when there is no such project.
    """

    is_listed = True  # before the change

    def __init__(self, root):
        self.root = root
        self.name = type(self).__name__.lower()
        self.filename = self.name + "-1.0-py3-none-any.whl"
        self.old, self.new = (wheel(self.name, text)
                              for text in ("old", "new"))

    def put(self, data, suffix="", folder="", age=60):
        return archives.put(os.path.join(self.root, folder),
                            self.filename + suffix, data, age)

    def path(self, suffix=""):
        return os.path.join(self.root, self.filename + suffix)

    def prepare(self):
        self.put(self.old)

    def change(self):
        raise NotImplementedError

    def show(self, found):
        return {file["filename"]: file["hashes"]["sha256"]
                for file in found["files"]}

    def is_seen(self, get):
        found = detail(get, self.name)
        return (self.show(found) if found else None) == self.wanted()

    def wanted(self):
        return {self.filename: digest(self.new)}


class Appears(Change):
    is_listed = False

    def prepare(self):
        pass

    def change(self):
        self.put(self.new, age=0)


class AppearsOld(Appears):
    """As `cp -p` and rsync make it."""

    def change(self):
        self.put(self.new, age=10 ** 8)


class AppearsBelow(Appears):
    def change(self):
        self.put(self.new, folder="appears/below/deep")


class AppearsByRename(Appears):
    def change(self):
        os.rename(self.put(self.new, ".part"), self.path())


class AppearsAsLink(Appears):
    def change(self):
        target = self.put(self.new, folder="../elsewhere")
        os.symlink(target, self.path())


class AppearsFromTheFuture(Appears):
    def change(self):
        os.utime(self.put(self.new), (4 * 10 ** 9, 4 * 10 ** 9))


class AppearsFromLongAgo(Appears):
    def change(self):
        os.utime(self.put(self.new), (0, 0))


class AppearsInOldFolder(Appears):
    """As `tar -x` and `rsync -a` do: the folder's time is set back."""

    def prepare(self):
        os.mkdir(os.path.join(self.root, "oldfolder"))
        self.set_back()

    def set_back(self):
        os.utime(os.path.join(self.root, "oldfolder"), (10 ** 9, 10 ** 9))

    def change(self):
        self.put(self.new, folder="oldfolder")
        self.set_back()


class ReplacedInPlace(Change):
    def change(self):
        self.put(self.new, age=0)


class ReplacedByRename(Change):
    def change(self):
        os.replace(self.put(self.new, ".tmp"), self.path())


class ReplacedByOlder(Change):
    def change(self):
        os.replace(self.put(self.new, ".tmp", age=10 ** 7), self.path())


class ReplacedWithSameSizeAndTime(Change):
    def prepare(self):
        self.old, self.new = (archives.wheel(
            self.name, "1.0", body=text, compression=zipfile.ZIP_STORED)
            for text in ("old", "new"))
        super().prepare()
        os.utime(self.path(), (10 ** 9, 10 ** 9))

    def change(self):
        with open(self.path(), "r+b") as file:
            file.write(self.new)
        os.utime(self.path(), (10 ** 9, 10 ** 9))


class Removed(Change):
    def change(self):
        os.remove(self.path())

    def wanted(self):
        return None


class RemovedByRename(Removed):
    def change(self):
        os.rename(self.path(), self.path(".bak~"))


class OneOfTwoRemoved(Change):
    def prepare(self):
        self.put(self.new)
        self.other = self.path().replace("1.0", "2.0")
        shutil.copy(self.path(), self.other)

    def change(self):
        os.remove(self.other)


class Restored(Change):
    """Gone and back before anybody looked."""

    def change(self):
        os.remove(self.path())
        self.put(self.new, age=0)


class FolderRemoved(Removed):
    def prepare(self):
        self.put(self.old, folder="folderremoved/deep")

    def change(self):
        shutil.rmtree(os.path.join(self.root, "folderremoved"))


class FolderHidden(Removed):
    def prepare(self):
        self.put(self.old, folder="folderhidden/deep")

    def change(self):
        os.rename(os.path.join(self.root, "folderhidden"),
                  os.path.join(self.root, ".folderhidden"))


class Moved(Change):
    """To another place: the links must follow."""

    def prepare(self):
        self.put(self.old, folder="moved")

    def change(self):
        os.rename(os.path.join(self.root, "moved"),
                  os.path.join(self.root, "moved to"))

    def show(self, found):
        return [file["url"] for file in found["files"]]

    def wanted(self):
        return ["../../packages/moved%20to/" + self.filename]


class MovedUp(Moved):
    def prepare(self):
        self.put(self.old, folder="movedup")

    def change(self):
        os.rename(os.path.join(self.root, "movedup", self.filename),
                  self.path())

    def wanted(self):
        return ["../../packages/" + self.filename]


class Broken(Change):
    def change(self):
        with open(self.path(), "r+b") as file:
            file.truncate(99)

    def wanted(self):
        return {}


class Repaired(Change):
    is_listed = False

    def prepare(self):
        self.put(self.new[:-30])

    def change(self):
        with open(self.path(), "ab") as file:
            file.write(self.new[-30:])


class Touched(Change):
    """The upload time is the modification time, so `touch` corrects it."""

    def change(self):
        os.utime(self.path(), (1234567890, 1234567890))

    def show(self, found):
        return [file["upload-time"] for file in found["files"]]

    def wanted(self):
        return ["2009-02-13T23:31:30.000000Z"]


class Yanked(Change):
    key, suffix, text = "yanked", ".yanked", b"some reason\n"

    def change(self):
        self.put(self.text, self.suffix, age=0)

    def show(self, found):
        return [file.get(self.key) for file in found["files"]]

    def wanted(self):
        return ["some reason"]


class YankedByTouch(Yanked):
    text = b""

    def wanted(self):
        return [True]


class YankedForAnotherReason(Yanked):
    def prepare(self):
        super().prepare()
        self.put(b"that reason\n", self.suffix)


class YankedInPlaceOfSameSize(Yanked):
    def prepare(self):
        super().prepare()
        os.utime(self.put(b"that reason\n", self.suffix), (10 ** 9,) * 2)

    def change(self):
        with open(self.path(self.suffix), "r+b") as file:
            file.write(self.text)
        os.utime(self.path(self.suffix), (10 ** 9,) * 2)


class Unyanked(Yanked):
    def prepare(self):
        super().prepare()
        self.put(self.text, self.suffix)

    def change(self):
        os.remove(self.path(self.suffix))

    def wanted(self):
        return [None]


class Signed(Yanked):
    key, suffix = "gpg-sig", ".asc"

    def wanted(self):
        return [True]


class Unsigned(Unyanked):
    key, suffix = "gpg-sig", ".asc"


class Proven(Yanked):
    key, suffix = "provenance", ".provenance"

    def show(self, found):
        return [file.get(self.key, "-").rpartition("/")[2]
                for file in found["files"]]

    def wanted(self):
        return [self.filename + ".provenance"]


class Unproven(Unyanked):
    key, suffix = "provenance", ".provenance"


class Archived(Change):
    def status(self, data):
        archives.put(self.root, self.name.upper() + ".status", data)

    def change(self):
        self.status(b"ARCHIVED moved to\n another place\n")

    def show(self, found):
        return found.get("project-status")

    def wanted(self):
        return {"status": "archived", "reason": "moved to another place"}


class NoMoreArchived(Archived):
    def prepare(self):
        super().prepare()
        self.status(b"archived")

    def change(self):
        os.remove(os.path.join(self.root, self.name.upper() + ".status"))

    def wanted(self):
        return None


class Deprecated(NoMoreArchived):
    def change(self):
        self.status(b"deprecated")

    def wanted(self):
        return {"status": "deprecated"}


class OddStatus(NoMoreArchived):
    def change(self):
        self.status(b"retired for good")


class Quarantined(Archived):
    def change(self):
        self.status(b"quarantined")

    def show(self, found):
        return found["files"], found.get("project-status")

    def wanted(self):
        return [], {"status": "quarantined"}


CHANGES = tuple(
    kind for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Change)
    and kind is not Change)


class TestChanges(FilesTestCase):
    """All of them at once, each in a project of its own."""

    def check(self, get, changes):
        for change in changes:
            change.change()
        waiting = set(changes)
        deadline = time.monotonic() + SEEN_WITHIN
        while waiting and time.monotonic() < deadline:
            waiting = {change for change in waiting
                       if not change.is_seen(get)}
        for change in waiting:
            with self.subTest(type(change).__name__):
                self.fail("not %r but %r" % (
                    change.wanted(), detail(get, change.name)))
        self.check_links(get)

    def check_links(self, get):
        """Everything that the pages name is there, with that digest."""
        for name in texts(get("/simple/").body):
            for file in detail(get, name)["files"]:
                target = file["url"].replace("../..", "")
                answer = get(target)
                self.assertEqual(200, answer.status, target)
                self.assertEqual(
                    file["hashes"]["sha256"], digest(answer.body))

    def prepare(self):
        changes = [kind(self.root) for kind in CHANGES]
        for change in changes:
            change.prepare()
        return changes

    def is_prepared(self, get, changes):
        return all(
            bool((detail(get, change.name) or {"files": 0})["files"])
            == change.is_listed for change in changes)

    def test_in_process(self):
        changes = self.prepare()
        get = self.open()
        wait_for(lambda: self.is_prepared(get, changes), "all files")
        self.check(get, changes)

    def test_by_a_server(self):
        changes = self.prepare()
        with ServerProcess("--disable-fallback", self.root) as server:
            get = server_getter(server)
            wait_for(lambda: self.is_prepared(get, changes), "all files")
            self.check(get, changes)
        self.assertNotIn("Traceback", server.output)
        self.assertEqual(1, server.output.count("'retired'"))


class SlowCopy:
    """A file that is written in steps, with pauses that look like an end."""

    STEPS, PAUSE = 4, 0.7  # seconds

    def __init__(self, root, filename, data, is_reserved=False):
        self.name = filename.partition("-")[0]
        self.filename = filename
        self.path = os.path.join(root, filename)
        self.data = data
        self.step = 0
        with open(self.path, "wb") as file:
            if is_reserved:  # as long as it will be, before it is filled
                file.truncate(len(data))

    def write(self):
        """Write the next piece."""
        length = len(self.data)
        start = length * self.step // self.STEPS
        self.step += 1
        stop = length * self.step // self.STEPS
        with open(self.path, "r+b") as file:
            file.seek(start)
            file.write(self.data[start:stop])

    def traces(self, get):
        """Return where this file can be seen."""
        pages = ["/simple/%s/" % self.name, "/packages/",
                 "/pypi/%s/json" % self.name]
        found = [page for page in pages
                 if self.filename.encode() in get(page).body]
        if self.filename in digests(get, self.name):
            found.append("JSON")
        for suffix in "", ".metadata":
            answer = get("/packages/" + self.filename + suffix)
            if answer.status not in (404, 503):
                found.append(self.filename + suffix)
        return found


class TestSlowCopy(FilesTestCase):
    def test_never_seen_before_it_is_whole(self):
        files = {"noise": NOISE}
        large_wheel = archives.wheel("large", "1.0", files=files)
        large = archives.sdist("large", "1.0", ".tar.gz", files=files)
        stored = lzma.compress(gzip.decompress(large), preset=0)
        copies = [
            SlowCopy(self.root, "wheel-1.0-py3-none-any.whl", large_wheel),
            SlowCopy(self.root, "sdist-1.0.tar.gz", large),
            SlowCopy(self.root, "xz-1.0.tar.xz", stored),
            SlowCopy(self.root, "reservedwheel-1.0-py3-none-any.whl",
                     large_wheel, True),
            SlowCopy(self.root, "reserved-1.0.tar.gz", large, True),
            SlowCopy(self.root, "reservedxz-1.0.tar.xz", stored, True)]
        with ServerProcess("--disable-fallback", self.root) as server:
            get = server_getter(server)
            early = {}
            for _ in range(SlowCopy.STEPS):
                for copy in copies:
                    self.look(early, copy, get)
                    copy.write()
                until = time.monotonic() + SlowCopy.PAUSE
                while copies[0].step < SlowCopy.STEPS \
                        and time.monotonic() < until:
                    for copy in copies:
                        self.look(early, copy, get)
            ended = time.monotonic()
            waiting = list(copies)
            while waiting and time.monotonic() < ended + SEEN_WITHIN:
                waiting = [copy for copy in waiting if digests(
                    get, copy.name) != {copy.filename: digest(copy.data)}]
            for copy in copies:
                with self.subTest(copy.filename):
                    self.assertEqual({}, early.get(copy.filename, {}))
                    self.assertNotIn(copy, waiting)
                    self.assertEqual(copy.data, get(
                        "/packages/" + copy.filename).body)
            wait_for(lambda: len(texts(get("/packages/").body)) == len(
                copies), "all archives", SEEN_WITHIN)

    def look(self, early, copy, get):
        """Note what shows although the file is not whole."""
        for place in copy.traces(get):
            early.setdefault(copy.filename, {}).setdefault(place, copy.step)


class TestReplacing(FilesTestCase):
    FILENAME = "foo-1.0-py3-none-any.whl"

    def setUp(self):
        super().setUp()
        self.versions = [wheel("foo", "version %d" % number)
                         for number in range(4)]
        self.put(self.FILENAME, self.versions[0])

    def replace(self, data):
        temporary = self.put(".new", data, age=0)
        os.replace(temporary, os.path.join(self.root, self.FILENAME))

    def test_by_rename_leaves_no_gap(self):
        with ServerProcess("--disable-fallback", self.root) as server:
            get = server_getter(server)
            wait_for(lambda: digests(get, "foo"), "foo")
            for data in self.versions[1:]:
                self.replace(data)
                deadline = time.monotonic() + SEEN_WITHIN
                while digests(get, "foo") != {self.FILENAME: digest(data)}:
                    self.assertLess(time.monotonic(), deadline)
                    found = digests(get, "foo")
                    self.assertEqual([self.FILENAME], list(found))
                    self.assertIn(found[self.FILENAME], map(
                        digest, self.versions))
                    answer = get("/packages/" + self.FILENAME)
                    if answer.status == 503:
                        self.assertIn("retry-after", answer.headers)
                    else:
                        self.assertIn(answer.body, self.versions)

    def test_by_rename_leaves_no_gap_for_a_first_request(self):
        """It makes no difference that nobody had asked before."""
        self.put("other-1.0-py3-none-any.whl", wheel("other"))
        get = self.open()
        wait_for(lambda: digests(get, "other"), "the other project")
        self.replace(self.versions[1])
        self.assertEqual([self.FILENAME], list(digests(get, "foo")))

    def test_digest_is_that_of_the_download(self):
        """Page and download are of one time, when nothing changes."""
        get = self.open()
        for data in self.versions[:3:2]:
            self.put(self.FILENAME, data)
            wait_for(lambda: digests(get, "foo") == {
                self.FILENAME: digest(data)}, "the new one", SEEN_WITHIN)
            answer = get("/packages/" + self.FILENAME)
            self.assertEqual(data, answer.body)
            self.assertEqual('"%s"' % digest(data), answer.headers["etag"])


class TestBusy(FilesTestCase):
    def test_files_that_come_and_go_break_no_page(self):
        """Nothing but 200, 404 and 503, whatever happens meanwhile."""
        data = wheel("foo")
        self.put("foo-0-py3-none-any.whl", data)
        self.put("sub/bar-0-py3-none-any.whl", data)
        get = self.open()
        statuses, ended = [], threading.Event()

        def ask():
            chance = random.Random(threading.get_ident())
            while not ended.is_set():
                name = "foo-%d-py3-none-any.whl" % chance.randrange(3)
                statuses.append(get(chance.choice((
                    "/simple/", "/simple/foo/", "/simple/bar/", "/packages/",
                    "/pypi/foo/json", "/packages/" + name,
                    "/packages/%s.metadata" % name, "/"))).status)
        threads = [threading.Thread(target=ask) for _ in range(6)]
        with self.assertLogs("pypi_server", "ERROR") as logs:
            pypi_server.LOG.error("the only one")
            for thread in threads:
                thread.start()
            chance = random.Random(5)
            until = time.monotonic() + 2
            # Many answers wait half a second for a file to settle.
            while time.monotonic() < until or (
                    len(statuses) <= 20 and time.monotonic() < until + 10):
                name = "foo-%d-py3-none-any.whl" % chance.randrange(3)
                path = os.path.join(self.root, name)
                with contextlib.suppress(FileNotFoundError):
                    chance.choice((
                        lambda: self.put(name, data, age=0),
                        lambda: self.put(name, data[:-9]),
                        lambda: os.remove(path),
                        lambda: os.rename(path, path + ".part"),
                        lambda: os.rename(path + ".part", path),
                        lambda: self.put(name + ".yanked", b"x"),
                        lambda: os.remove(path + ".yanked"),
                        lambda: os.rename(self.root + "/sub",
                                          self.root + "/below"),
                        lambda: os.rename(self.root + "/below",
                                          self.root + "/sub")))()
                time.sleep(0.005)
            ended.set()
            for thread in threads:
                thread.join()
        self.assertEqual(1, len(logs.output), logs.output[1:])
        self.assertGreater(len(statuses), 20)
        self.assertLessEqual(set(statuses), {200, 404, 503})

    def test_file_that_is_written_all_the_time_delays_nobody_for_long(self):
        """Each client may wait a moment for it, but not one by one."""
        path = self.put(self.name("foo"))
        self.put(self.name("foo", "2.0"))
        get = self.open()
        self.wait_for_names(self.name("foo"), self.name("foo", "2.0"))
        ended, taken = threading.Event(), []

        def write():
            with open(path, "wb", buffering=0) as file:
                while not ended.wait(0.05):
                    file.write(b"x")

        def ask():
            started = time.monotonic()
            self.assertIn(self.name("foo", "2.0"), digests(get, "foo"))
            taken.append(time.monotonic() - started)
        writer = threading.Thread(target=write)
        writer.start()
        wait_for(lambda: 9 < os.path.getsize(path) < 99, "some bytes")
        threads = [threading.Thread(target=ask) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended.set()
        writer.join()
        self.assertEqual(10, len(taken))
        self.assertLess(max(taken), 2)


class TestBroken(FilesTestCase):
    def test_withheld_and_logged_once(self):
        good = wheel("foo")
        tar = archives.sdist("foo", "1.2")
        paths = [self.put(name, data) for name, data in (
            ("foo-1.0-py3-none-any.whl", good[:-1]),
            ("foo-1.1-py3-none-any.whl", b"<!DOCTYPE html>"),
            ("foo-1.2.tar.gz", tar[:-1]), ("foo-1.3.zip", b""),
            ("deep/bar-1.0-py3-none-any.whl", archives.zipped({"x": b""})))]
        self.put("foo-2.0-py3-none-any.whl", good)
        with ServerProcess(self.root) as server:
            get = server_getter(server)
            wait_for(lambda: digests(get, "foo"), "the good one")
            for _ in range(3):
                for target in ("/simple/foo/", "/simple/bar/", "/packages/",
                               "/packages/foo-1.2.tar.gz",
                               "/pypi/foo/json"):
                    get(target)
            self.assertEqual(["foo-2.0-py3-none-any.whl"],
                             list(digests(get, "foo")))
            answer = get("/simple/bar/")
            self.assertEqual((200, []), (answer.status,
                                         anchors(answer.body)))
            answer = get("/packages/foo-1.2.tar.gz")
            self.assertEqual(404, answer.status)
            self.assertIn("cut off", answer.reason)
            # The thread that reads ahead sees them too.
            wait_for(lambda: all(path in server.logged() for path in paths),
                     "all in the log")
            self.put("foo-1.2.tar.gz", tar)
            wait_for(lambda: "foo-1.2.tar.gz" in digests(get, "foo"),
                     "it is repaired", SEEN_WITHIN)
        for path in paths:
            lines = [line for line in server.output.splitlines()
                     if path in line and "not served" in line]
            self.assertEqual(1, len(lines), lines)
            self.assertRegex(lines[0], "not served: .{10}")
        self.assertEqual(1, server.output.count("foo-1.2.tar.gz is whole"))


class TestCores(FilesTestCase):
    """Large archives of a project are read by several threads."""

    def setUp(self):
        super().setUp()
        self.expected = {}
        for number in range(8):
            version = "1.%d" % number
            data = archives.wheel(
                "foo", version, files={"noise": NOISE[number:]},
                compression=zipfile.ZIP_STORED)
            self.put(self.name("foo", version), data)
            self.expected[self.name("foo", version)] = digest(data)
        patch = mock.patch("os.cpu_count", lambda: 4)
        patch.start()
        self.addCleanup(patch.stop)

    def read(self):
        directories = pypi_server.Directories(
            [self.root], pypi_server.FactCache(None), ["sha256"])
        self.addCleanup(directories.reader.cache.close)
        return {file.archive.filename: file.facts.digests["sha256"]
                for file in directories.project("foo").files}

    def test_several_read(self):
        threads = set()
        reads = pypi_server.Reader.read

        def read(*arguments):
            threads.add(threading.get_ident())
            return reads(*arguments)
        with mock.patch.object(pypi_server.Reader, "read", read):
            self.assertEqual(self.expected, self.read())
        self.assertGreater(len(threads), 1)

    def test_one_is_broken(self):
        broken = sorted(self.expected)[3]
        self.put(broken, b"broken" * 10 ** 6)
        del self.expected[broken]
        self.assertEqual(self.expected, self.read())

    def test_no_more_threads(self):
        with mock.patch.object(threading.Thread, "start",
                               side_effect=RuntimeError("no more threads")):
            self.assertEqual(self.expected, self.read())


class TestCache(FilesTestCase):
    """A new cache for each test, but one file, which has settled."""

    FILENAME = "foo-1.0-py3-none-any.whl"
    FAKE = "f" * 64

    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.data = wheel("foo")
        cls.right = {cls.FILENAME: digest(cls.data)}
        archives.put(cls.temporary.name, cls.FILENAME, cls.data)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def setUp(self):
        super().setUp()
        self.root = self.temporary.name
        self.cache = os.path.join(self.folder, "cache")

    def fill(self):
        """Let a server read the files and end; return its database."""
        get = self.open()
        wait_for(lambda: digests(get, "foo") == self.right, "foo")
        self.app.warmer.stop()
        path, = glob.glob(os.path.join(self.cache, "*"))
        return path

    def edit(self, path, statement, *values):
        database = sqlite3.connect(path)
        changed = database.execute(statement, values).rowcount
        database.commit()
        database.close()
        return changed

    def test_next_start_reads_nothing_again(self):
        path = self.fill()
        self.assertEqual(1, self.edit(
            path, "UPDATE facts SET digests = replace(digests, ?, ?)",
            self.right[self.FILENAME], self.FAKE))
        get = self.open()
        self.assertEqual({self.FILENAME: self.FAKE}, digests(get, "foo"))
        # Until the file changes.
        self.put(self.FILENAME, self.data)
        wait_for(lambda: digests(get, "foo") == self.right, "the right one",
                 SEEN_WITHIN)

    def test_next_server_process_reads_nothing_again(self):
        with ServerProcess("--cache-dir", self.cache, self.root) as server:
            wait_for(lambda: digests(server_getter(server), "foo"), "foo")
        path, = glob.glob(os.path.join(self.cache, "*"))
        self.edit(path, "UPDATE facts SET digests = replace(digests, ?, ?)",
                  self.right[self.FILENAME], self.FAKE)
        with ServerProcess("--cache-dir", self.cache, self.root) as server:
            self.assertEqual({self.FILENAME: self.FAKE},
                             digests(server_getter(server), "foo"))

    def test_withheld_files_are_remembered(self):
        self.addCleanup(os.remove, self.put(
            "foo-1.1-py3-none-any.whl", self.data[:-1]))
        self.put("foo-1.2-py3-none-any.whl", self.data)
        self.addCleanup(os.remove, os.path.join(
            self.root, "foo-1.2-py3-none-any.whl"))
        self.right = dict(self.right, **{
            "foo-1.2-py3-none-any.whl": digest(self.data)})
        path = self.fill()
        self.assertEqual(1, self.edit(
            path, "UPDATE facts SET problem = 'remembered' "
            "WHERE problem <> ''"))
        with self.assertLogs("pypi_server", "WARNING") as logs:
            self.assertEqual(self.right, digests(self.open(), "foo"))
        self.assertEqual(1, len(logs.output))
        self.assertIn("foo-1.1", logs.output[0])

    def test_corrupt_file_costs_only_time(self):
        path = self.fill()
        with open(path, "rb") as file:
            whole = file.read()
        for data in (b"", b"no database", b"\0" * 5000, whole[:-100],
                     whole[:1000], whole[:100] + b"\xff" * 3000,
                     whole[:4096] + b"\xff" * (len(whole) - 4096)):
            with self.subTest(data[:20], length=len(data)):
                with open(path, "wb") as file:
                    file.write(data)
                self.assert_right()

    def assert_right(self):
        get = self.open()
        self.assertEqual(self.right, digests(get, "foo"))
        self.assertEqual(self.data, get("/packages/" + self.FILENAME).body)
        self.app.warmer.stop()

    def test_corrupt_rows_cost_only_time(self):
        path = self.fill()
        for column, values in (
                ("identity", (None, "", "x", 5, "5", "{}", "[]", "[1]",
                              "[1,2,3,4,5]", "null")),
                ("digests", (None, "", "x", 5, "5", "{}", "[]", "null",
                             '"x"', "[" * 100000))):
            for value in values:
                with self.subTest(column, value=value):
                    self.assertEqual(1, self.edit(
                        path, "UPDATE facts SET %s = ?" % column, value))
                    self.assert_right()

    def test_database_that_is_a_directory(self):
        path = self.fill()
        os.remove(path)
        os.mkdir(path)
        with self.assertLogs("pypi_server", "WARNING") as logs:
            self.assert_right()
        self.assertIn("memory only", logs.output[0])

    def test_cache_that_cannot_be_written_is_said(self):
        file = self.put("a file", b"", root=self.folder)
        for path in os.path.join(file, "below"), file:
            with self.assertLogs("pypi_server", "WARNING") as logs:
                get = self.open(cache_dir=path)
                wait_for(lambda: digests(get, "foo") == self.right, "foo")
            self.assertEqual(1, len(logs.output), logs.output)
            self.assertIn(path, logs.output[0])
            self.assertIn("--cache-dir", logs.output[0])

    def test_broken_cache_is_said_in_one_line(self):
        path = self.fill()
        with open(path, "wb") as file:
            file.write(b"no database" * 99)
        with ServerProcess("--cache-dir", self.cache, self.root) as server:
            self.assertEqual(
                self.right, digests(server_getter(server), "foo"))
        self.assertEqual(1, server.output.count("\n"), server.output)
        self.assertIn("memory only", server.output)

    def test_cache_that_is_removed_while_it_runs(self):
        get = self.open()
        wait_for(lambda: digests(get, "foo") == self.right, "foo")
        shutil.rmtree(self.cache)
        changed = wheel("foo", "changed")
        self.put(self.FILENAME, changed)
        self.addCleanup(self.put, self.FILENAME, self.data)
        wait_for(lambda: digests(get, "foo") == {
            self.FILENAME: digest(changed)}, "the new one", SEEN_WITHIN)
        self.app.warmer.stop()

    def test_two_servers_share_one(self):
        with ServerProcess("--cache-dir", self.cache, self.root) as one, \
                ServerProcess("--cache-dir", self.cache, self.root) as two:
            for server in one, two, one, two:
                get = server_getter(server)
                wait_for(lambda: digests(get, "foo") == self.right, "foo")
        for server in one, two:
            self.assertEqual("", server.output)

    def test_backends(self):
        for backend, count in (("auto", 1), ("cached-dir", 1),
                               ("simple-dir", 0)):
            with self.subTest(backend), \
                    tempfile.TemporaryDirectory() as home:
                with ServerProcess(
                        "--backend", backend, self.root,
                        environment={"XDG_CACHE_HOME": home,
                                     "HOME": home}) as server:
                    wait_for(lambda: digests(
                        server_getter(server), "foo") == self.right, "foo")
                found = [name for _, _, names in os.walk(home)
                         for name in names]
                self.assertEqual(count, len(found), found)
                self.assertEqual("", server.output)

    def test_nothing_is_left_in_the_package_directory(self):
        self.fill()
        self.assertEqual([self.FILENAME], names_in(self.root))


class TestAges(FilesTestCase):
    def test_fresh_files_are_soon_seen_whatever_their_times(self):
        """Whole seconds, the future, long ago, and a 32 bit clock's end."""
        times = (10 ** 9, 0, 2 ** 31 - 1, 2 ** 32, 4 * 10 ** 9,
                 int(time.time()), int(time.time()) + 3600)
        get = self.open()
        self.assertEqual([], listed(self.app))
        for number, seconds in enumerate(times):
            os.utime(self.put("foo-%d-py3-none-any.whl" % number, age=0),
                     (seconds, seconds))
        wait_for(lambda: len(digests(get, "foo")) == len(times), "all",
                 SEEN_WITHIN)
        for target in texts(get("/packages/").body):
            answer = get("/packages/" + target)
            self.assertIsInstance(answer, Answer)
            self.assertEqual(200, answer.status)
            self.assertLessEqual(
                time.strptime(answer.headers["last-modified"],
                              "%a, %d %b %Y %H:%M:%S GMT"), time.gmtime())


if __name__ == "__main__":
    unittest.main()
