"""What somebody who means ill may try, and what must not come of it."""

import http.client
import os
import re
import shutil
import subprocess
import threading
import time
import unittest

import pypi_server
from tests import archives, forms
from tests.helpers import (
    SCRIPT, DirectoryTestCase, ServerProcess, Wire, ask, call, listening,
    texts, wait_for,
)
from tests.test_directories import FilesTestCase, detail, unprivileged
from tests.test_upload_faults import (
    ANYONE, FaultTestCase, Mounted, strace_problem,
)

WHEEL = "foo-1.0-py3-none-any.whl"
DATA = archives.wheel("foo", "1.0")
SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="  # of "secret"
JOE = forms.credentials("joe", "secret")


def password_file(folder):
    path = os.path.join(folder, "users")
    with open(path, "w") as file:
        file.write("joe:%s\n" % SHA)
    return path


class SlowAccounts(pypi_server.Accounts):
    """Verifies one password whenever the test lets it."""

    def __init__(self, path):
        super().__init__(path)
        self.turns.free = 1
        self.gate = threading.Semaphore(0)
        self.order = []

    def verify(self, password, digest):
        self.order.append(password)
        self.gate.acquire()
        return password == b"secret"


class TestLogins(DirectoryTestCase):
    """Those of one address do not hold up those of another."""

    def setUp(self):
        super().setUp()
        self.accounts = SlowAccounts(password_file(self.folder))
        self.threads = []
        self.found = []
        self.addCleanup(self.end)

    def end(self):
        for _ in range(1000):
            self.accounts.gate.release()
        for thread in self.threads:
            thread.join()

    def log_in(self, password, client):
        def run():
            try:
                self.found.append(
                    self.accounts.check("joe", password, client))
            except pypi_server.HTTPError as error:
                self.found.append(error.status)
        thread = threading.Thread(target=run)
        thread.start()
        self.threads.append(thread)

    def waiting(self):
        with self.accounts.turns.changed:
            return sum(map(len, self.accounts.turns.waiting.values()))

    def test_addresses_take_turns(self):
        for number in range(20):
            self.log_in("guess %d" % number, "192.0.2.1")
        wait_for(lambda: self.waiting() == 19, "the others wait")
        self.log_in("secret", "192.0.2.2")
        wait_for(lambda: self.waiting() == 20, "the friend waits")
        for _ in range(3):
            self.accounts.gate.release()
        wait_for(lambda: True in self.found, "the friend is in")
        self.assertLessEqual(self.accounts.order.index(b"secret"), 2)

    def test_no_address_waits_with_any_number(self):
        limit = pypi_server.LOGIN_LIMIT
        for number in range(limit + 1):
            self.log_in("guess %d" % number, "192.0.2.1")
        wait_for(lambda: self.waiting() == limit, "all but one wait")
        self.log_in("one more", "192.0.2.1")
        wait_for(lambda: self.found == [429], "it is refused")
        self.log_in("secret", "192.0.2.2")
        wait_for(lambda: self.waiting() == limit + 1, "the friend waits")

    def test_many_requests_of_one_client_are_one_login(self):
        """uv sends fifty at once."""
        for _ in range(50):
            self.log_in("secret", "192.0.2.1")
        wait_for(lambda: self.waiting() == 49, "the others wait")
        self.accounts.gate.release()
        wait_for(lambda: len(self.found) == 50, "all are in")
        self.assertEqual([b"secret"], self.accounts.order)
        self.assertEqual({True}, set(self.found))

    def test_nothing_is_kept_of_who_waited(self):
        self.log_in("secret", "192.0.2.1")
        self.accounts.gate.release()
        wait_for(lambda: self.found, "in")
        self.assertEqual({}, self.accounts.turns.waiting)
        wait_for(lambda: self.accounts.turns.free == 1, "a free place")


class TestRefusals(DirectoryTestCase):
    """Each is in the log, and a flood of them is not."""

    def lines(self, server, words):
        return [line for line in server.logged().splitlines()
                if words in line]

    def post(self, server, message, headers=None):
        fields, body = message
        host, port = server.url.split("/")[2].split(":")
        return ask(host, int(port), "POST", "/",
                   dict(fields, **(headers or {})), body).status

    def test_uploads(self):
        upload = forms.upload(WHEEL, DATA)
        with ServerProcess(
                "-P", password_file(self.folder), "--max-upload-size",
                "100000", self.root) as server:
            wrong = forms.credentials("joe", "wr0ng")
            for message, headers, status in (
                    (upload, {}, 401), (upload, wrong, 401),
                    (upload, dict(JOE, Origin="http://evil"), 403),
                    (forms.upload(WHEEL, b"x"), JOE, 400),
                    (forms.upload(WHEEL, bytes(200000)), JOE, 413),
                    (forms.upload("\x1b[0m", b"x"), JOE, 400)):
                before = len(self.lines(server, "refused an upload"))
                self.assertEqual(
                    status, self.post(server, message, headers))
                found = wait_for(
                    lambda: self.lines(server, "refused an upload")[before:],
                    "a line in the log")
                self.assertEqual(1, len(found), found)
                self.assertIn("at 127.0.0.1 ", found[0])
                self.assertIn(str(status), found[0])
                self.assertTrue(found[0].isprintable())
            self.assertIn("joe at 127.0.0.1", found[0])
            self.assertEqual(
                1, len(self.lines(server, "failed to log in")))
            self.assertNotIn("wr0ng", server.logged())

    def test_switched_off(self):
        with ServerProcess(self.root) as server:
            self.assertEqual(
                403, self.post(server, forms.upload(WHEEL, DATA)))
            wait_for(lambda: self.lines(server, "refused an upload"),
                     "a line in the log")

    def test_a_flood_is_cut_short(self):
        with ServerProcess("-a", "list", "-P", password_file(self.folder),
                           self.root) as server:
            for number in range(40):
                self.assertEqual(401, server.get(
                    "simple/", forms.credentials("joe", str(number))).status)
            # What is missing is no attempt: clients begin without.
            self.assertEqual(401, server.get("simple/").status)
        self.assertEqual(10, server.output.count("failed to log in"))

    def test_what_was_left_out_is_counted(self):
        throttle = pypi_server.Throttle()
        throttle.PERIOD = 0.2
        with self.assertLogs("pypi_server.audit", "INFO") as logs:
            pypi_server.AUDIT.info("a first line, since one is needed")
            for number in range(3000):
                throttle.allows("192.0.2.%d" % number)
            self.assertLessEqual(len(throttle.lines), 1001)
            for _ in range(30):
                throttle.allows("192.0.2.1")
            wait_for(lambda: throttle.allows("192.0.2.1"), "another period")
        self.assertIn("more lines", "".join(logs.output[1:]))


class TestLinks(FilesTestCase):
    """Who may write into a package directory may not read all the rest."""

    def setUp(self):
        super().setUp()
        self.home = os.path.join(self.folder, "home")
        self.put(WHEEL, DATA)
        self.secret = archives.put(self.home, ".netrc", b"secret-word")

    def link(self, target, name):
        os.symlink(target, os.path.join(self.root, name))

    def shown(self, get):
        """Return all that the server tells of the project."""
        return b"".join(get(path).body for path in (
            "/simple/foo/", "/packages/" + WHEEL + ".asc",
            "/packages/" + WHEEL + ".provenance", "/simple/", "/packages/"))

    def test_to_what_is_hidden(self):
        hidden = archives.put(
            os.path.join(self.home, ".ssh"), "id", b"secret-word")
        archive = archives.put(os.path.join(self.home, ".store"),
                               "bar-1.0-py3-none-any.whl",
                               archives.wheel("bar", "1.0"))
        self.link(self.secret, WHEEL + ".asc")
        self.link(hidden, WHEEL + ".provenance")
        self.link(hidden, WHEEL + ".yanked")
        self.link(self.secret, "foo.status")
        self.link(archive, "bar-1.0-py3-none-any.whl")
        with self.assertLogs("pypi_server", "WARNING") as logs:
            get = self.open()
            self.wait_for_names(WHEEL)
            for _ in range(3):
                self.assertNotIn(b"secret-word", self.shown(get))
                self.assertEqual(
                    404, get("/packages/" + WHEEL + ".asc").status)
                time.sleep(pypi_server.CHECK_INTERVAL)
        self.assertEqual(5, len(logs.output), logs.output)
        for line in logs.output:
            self.assertIn("hidden", line)

    def test_to_the_password_file(self):
        """By any way: what links to it, or another name of it."""
        path = password_file(self.folder)
        self.link(path, WHEEL + ".asc")
        os.link(path, os.path.join(self.root, WHEEL + ".provenance"))
        self.link(os.path.join(self.root, WHEEL + ".asc"),
                  WHEEL + ".yanked")
        get = self.open(password_file=path)
        self.wait_for_names(WHEEL)
        self.assertNotIn(b"joe", self.shown(get))
        self.assertNotIn(b"SHA}", self.shown(get))

    def test_archives_that_are_secrets(self):
        """Even such that nothing can be checked of."""
        path = password_file(self.folder)
        names = "foo-2.0.msi", "foo-3.0.msi"
        self.link(path, names[0])
        os.link(path, os.path.join(self.root, names[1]))
        get = self.open(password_file=path)
        self.wait_for_names(WHEEL)
        for name in names:
            answer = get("/packages/" + name)
            self.assertEqual(404, answer.status)
            self.assertIn(b"passwords", answer.body)
            self.assertNotIn(name.encode(), self.shown(get))

    def test_archive_in_a_folder_that_becomes_hidden(self):
        for name, data in ("data", b"harmless"), (".ssh/data", b"secret-word"):
            archives.put(self.home, name, data)
        os.symlink(".", os.path.join(self.home, "folder"))
        self.link(os.path.join(self.home, "folder", "data"), "foo-2.0.msi")
        get = self.open()
        self.wait_for_names(WHEEL, "foo-2.0.msi")
        self.assertEqual(b"harmless", get("/packages/foo-2.0.msi").body)
        os.unlink(os.path.join(self.home, "folder"))
        os.symlink(".ssh", os.path.join(self.home, "folder"))
        self.assertEqual(404, get("/packages/foo-2.0.msi").status)
        wait_for(lambda: b"foo-2.0" not in self.shown(get), "it is withheld")

    def test_by_a_folder_that_becomes_a_link(self):
        """The link itself stays as it was when it was found harmless."""
        folder = os.path.join(self.home, "folder")
        archives.put(folder, ".netrc", b"harmless")
        os.rename(os.path.join(folder, ".netrc"),
                  os.path.join(folder, "users"))
        self.link(os.path.join(folder, "users"), WHEEL + ".asc")
        get = self.open(password_file=password_file(self.folder))
        self.wait_for_names(WHEEL)
        self.assertEqual(
            b"harmless", get("/packages/" + WHEEL + ".asc").body)
        os.rename(folder, folder + ".old")
        os.symlink(self.folder, folder)
        self.assertNotIn(b"SHA}", self.shown(get))

    def test_within_what_is_hidden_itself(self):
        """A package directory may lie below a dot directory."""
        root = os.path.join(self.home, ".local", "packages")
        target = archives.put(
            os.path.join(self.home, ".local", "pool"), "x", DATA)
        os.makedirs(root)
        os.symlink(target, os.path.join(root, WHEEL))
        self.open(root)
        self.wait_for_names(WHEEL)


class TestFallback(FilesTestCase):
    def test_any_file_keeps_its_project_here(self):
        """Whatever it is, and whether it can be served or not."""
        self.put("b-1.0-py3-none-any.WHL")
        self.put("c-1.0.tar.gz.part")
        self.put("d-1.0.zip.asc")
        self.put("e.status", b"quarantined")
        for name, target in (("f-1.0.zip", "not-mounted"),
                             ("g-1.0.zip", ".hidden")):
            os.symlink(target, os.path.join(self.root, name))
        os.mkfifo(os.path.join(self.root, "h-1.0.zip"))
        for name in b"i-1.0\xff.zip", b"j-1.0\x01.zip":
            with open(os.path.join(os.fsencode(self.root), name), "wb"):
                pass
        self.put("k-1.0.zip", b"broken")
        get = self.open(disable_fallback=False)
        for project in "bcdefghijk":
            answer = get("/simple/%s/" % project)
            self.assertNotIn("location", answer.headers, project)
            self.assertIn(answer.status, (200, 404))
        self.assertEqual(302, get("/simple/a/").status)

    def test_project_without_its_last_file(self):
        """It may come back in a moment; a new server knows nothing of it."""
        path = self.put(WHEEL, DATA)
        get = self.open(disable_fallback=False)
        self.wait_for_names(WHEEL)
        os.unlink(path)
        self.wait_for_names()
        self.assertEqual(404, get("/simple/foo/").status)
        self.assertEqual(302, self.open(disable_fallback=False)(
            "/simple/foo/").status)

    def test_links_whose_targets_come_back(self):
        away, there = (os.path.join(self.folder, name)
                       for name in ("away", "there"))
        archives.put(away, WHEEL, DATA)
        os.symlink(os.path.join(there, WHEEL),
                   os.path.join(self.root, WHEEL))
        get = self.open(disable_fallback=False)
        self.assertEqual(404, get("/simple/foo/").status)
        # What was listed long ago is listed again only when it changes.
        time.sleep(pypi_server.RACY + pypi_server.CHECK_INTERVAL)
        self.assertEqual(404, get("/simple/foo/").status)
        os.rename(away, there)
        self.wait_for_names(WHEEL)
        os.rename(there, away)
        self.put("bar-1.0-py3-none-any.whl")  # so that it is listed again
        wait_for(lambda: get("/packages/" + WHEEL).status == 404, "away")
        os.rename(away, there)
        wait_for(lambda: get("/packages/" + WHEEL).status == 200, "back")


class TestQuarantine(FilesTestCase):
    def test_files_are_not_handed_out(self):
        self.put(WHEEL, DATA)
        self.put(WHEEL + ".asc", b"signature")
        self.put("bar-1.0-py3-none-any.whl", archives.wheel("bar", "1.0"))
        get = self.open()
        self.wait_for_names(WHEEL, "bar-1.0-py3-none-any.whl")
        paths = ["/packages/" + WHEEL + suffix
                 for suffix in ("", ".asc", ".metadata")]
        self.assertEqual([200] * 3, [get(path).status for path in paths])
        self.put("foo.status", b"quarantined malware was found\n", age=0)
        wait_for(lambda: [get(path).status for path in paths] == [403] * 3,
                 "they are refused")
        self.assertIn(b"malware", get(paths[0]).body)
        self.assertEqual(
            200, get("/packages/bar-1.0-py3-none-any.whl").status)
        os.unlink(os.path.join(self.root, "foo.status"))
        wait_for(lambda: get(paths[0]).status == 200, "it is back")


class TestForgetting(FilesTestCase):
    """What is noted about files does not grow with those that come and go."""

    def test_notes_and_facts(self):
        self.put(WHEEL, DATA)
        self.open()
        directories = self.app.directories
        for number in range(3):
            self.put("broken-%d.0.tar.gz" % number, b"no archive")
            self.put("new-%d.0-py3-none-any.whl" % number, archives.wheel(
                "new", "%d.0" % number), age=0)
            self.put("odd\x01%d-1.0.tar.gz" % number, b"x")
            self.put("sub/odd\x01%d-1.0.tar.gz" % number, b"x")
        wait_for(lambda: len(self.names()) == 4, "all are read")
        self.app.directories.reader.cache.flush()
        self.assertEqual(3, len(directories.reader.problems))
        self.assertEqual(2, len(directories.tree.reported))
        self.assertEqual(7, self.rows())
        for name in os.listdir(self.root):
            if name != WHEEL and name != "sub":
                os.unlink(os.path.join(self.root, name))
        shutil.rmtree(os.path.join(self.root, "sub"))
        wait_for(lambda: self.names() == [WHEEL], "one is left")
        directories.reader.forget(directories.tree.snapshot)
        directories.forget()
        reader = directories.reader
        self.assertEqual([{}] * 4, [
            reader.problems, reader.changing, reader.failed,
            directories.tree.reported])
        self.assertEqual(1, self.rows())

    def names(self):
        page = call(self.app, "GET", "/packages/")
        return texts(page.body)

    def rows(self):
        return len(self.app.directories.reader.cache.execute(
            "SELECT path FROM facts"))

    def test_each_worker_writes_down_what_it_read(self):
        """Not only the one that reads ahead, or it would keep it all."""
        self.put(WHEEL, DATA)
        self.open()
        self.wait_for_names(WHEEL)
        cache = self.app.directories.reader.cache
        self.assertEqual([os.path.join(self.root, WHEEL)],
                         list(cache.waiting))
        self.app.warmer.is_first = False
        self.app.warmer.start()
        wait_for(lambda: not cache.waiting, "it is written")
        self.put("bar-1.0-py3-none-any.whl", archives.wheel("bar", "1.0"))
        time.sleep(2 * pypi_server.WARM_INTERVAL)
        self.assertEqual(1, self.rows())

    def test_an_empty_root_may_be_a_disk_that_is_not_mounted(self):
        path = self.put(WHEEL, DATA)
        get = self.open()
        self.wait_for_names(WHEEL)
        self.app.directories.reader.cache.flush()
        os.rename(path, os.path.join(self.folder, WHEEL))
        wait_for(lambda: get("/simple/foo/").status == 404, "it is gone")
        self.app.directories.forget()
        self.assertEqual(1, self.rows())


class TestFailingDisk(FaultTestCase):
    def test_a_file_with_a_bad_sector(self):
        """The others are served, and it is tried less and less often."""
        problem = strace_problem()
        if problem:
            self.skipTest(problem)
        archives.put(self.root, WHEEL, DATA)
        bad = archives.put(self.root, "foo-1.1-py3-none-any.whl",
                           archives.wheel("foo", "1.1"))
        log = os.path.join(self.folder, "trace")
        # Started by strace: so no read can come before it looks.
        server = self.start()
        server.get("health")
        with open(log, "w"):
            pass
        os.utime(bad)  # another identity: it is to be read anew
        trace = subprocess.Popen(
            ["strace", "-f", "-qq", "-p", str(server.process.pid), "-P", bad,
             "-e", "trace=read,pread64,readv", "-e",
             "inject=read,pread64,readv:error=EIO", "-o", log],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: "cannot be read" in server.logged(),
                     "a line about the bad file", 20)
            ends = time.monotonic() + 5
            while time.monotonic() < ends:
                page = server.get("simple/foo/")
                self.assertEqual([WHEEL], texts(page.body))
                self.assertEqual(503, server.get(
                    "packages/foo-1.1-py3-none-any.whl").status)
                time.sleep(0.1)
            with open(log) as file:
                tries = file.read().count("EIO")
            self.assertTrue(1 <= tries <= 10, tries)
        finally:
            trace.terminate()
            trace.wait(60)
        wait_for(lambda: len(self.listed_of(server)) == 2, "it is back", 20)
        server.stop()
        self.assertEqual(1, len([
            line for line in server.output.splitlines()
            if "WARNING" in line and "cannot be read" in line]))

    def test_it_fails_within_a_download(self):
        """One line names the file; the client sees that it is cut off."""
        problem = strace_problem()
        if problem:
            self.skipTest(problem)
        path = archives.put(self.root, WHEEL, archives.wheel(
            "foo", "1.0", files={"noise": os.urandom(12 * 2 ** 20)}))
        server = self.start()
        wait_for(lambda: self.listed_of(server), "it is listed", 20)
        log = os.path.join(self.folder, "trace")
        trace = subprocess.Popen(
            ["strace", "-f", "-qq", "-p", str(server.process.pid), "-P", path,
             "-e", "trace=sendfile,read", "-e",
             "inject=sendfile,read:error=EIO", "-o", log],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        try:
            def is_cut_off():
                try:
                    server.get("packages/" + WHEEL)
                except http.client.IncompleteRead:
                    return True
                return False
            wait_for(is_cut_off, "cut off", 30)
        finally:
            trace.terminate()
            trace.wait(60)
        self.assertEqual(200, server.get("packages/" + WHEEL).status)
        server.stop()
        self.assertNotIn("Traceback", server.output)
        self.assertRegex(server.output, r"%s cannot be read, so a download "
                         "of it was cut off" % re.escape(path))

    @staticmethod
    def listed_of(server):
        return texts(server.get("simple/foo/").body)

    def test_overwriting_in_a_folder_of_another_filesystem(self):
        mounted = Mounted(self, "-t", "tmpfs", "-o", "size=4m", "tmpfs")
        folder = os.path.join(self.root, "folder")
        os.mkdir(folder)
        subprocess.run(["mount", "--bind", mounted.path, folder], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", folder])
        archives.put(folder, WHEEL, DATA)
        other = archives.wheel("foo", "1.0", body="other")
        server = self.start("-o", *ANYONE)
        self.assertEqual(200, self.send(server, WHEEL, DATA).status)
        self.assertEqual(200, self.send(server, WHEEL, other).status)
        self.assertEqual(
            other, server.get("packages/folder/" + WHEEL).body)
        self.assertEqual([WHEEL], os.listdir(folder))
        self.assertEqual(["folder"], self.files())


class TestPlainLocale(FilesTestCase):
    def test_names_beyond_ascii(self):
        """As a service manager starts it, on Python 3.6 too."""
        name = "gr\xfc\xdfe-1.0.tar.gz"
        path = os.path.join(os.fsencode(self.root), name.encode("utf-8"))
        with open(path, "wb") as file:
            file.write(archives.sdist("gr\xfc\xdfe", "1.0"))
        with ServerProcess(self.root, environment={
                "LC_ALL": "C", "LANG": "", "PYTHONIOENCODING": ""},
                program=(SCRIPT,)) as server:
            wait_for(lambda: name.encode("utf-8") in server.get(
                "packages/").body, "it is listed")
            self.assertEqual(200, server.get(
                "packages/gr%C3%BC%C3%9Fe-1.0.tar.gz").status)


class TestSettling(FilesTestCase):
    def test_unreadable_folders_are_told_again(self):
        """Once each time, not once for ever."""
        self.put(WHEEL, DATA)
        folder = os.path.join(self.root, "folder")
        self.put("folder/bar-1.0-py3-none-any.whl",
                 archives.wheel("bar", "1.0"))
        with unprivileged(self.folder), self.assertLogs(
                "pypi_server", "WARNING") as logs:
            get = self.open()
            self.wait_for_names(WHEEL, "bar-1.0-py3-none-any.whl")
            for count in (1, 2):
                os.chmod(folder, 0)
                os.utime(self.root)
                wait_for(lambda: get("/simple/") and len([
                    line for line in logs.output
                    if "Permission" in line and "folder/ " in line
                ]) == count, "%d lines" % count)
                self.assertIsNotNone(detail(get, "foo"))
                os.chmod(folder, 0o755)
                self.put("folder/foo-1.%d-py3-none-any.whl" % count,
                         archives.wheel("foo", "1.%d" % count))
                wait_for(lambda: len(texts(get(
                    "/simple/foo/").body)) == count + 1, "it is back")


class TestProtocol(DirectoryTestCase):
    """Methods and targets that are for proxies, and other protocols."""

    def test_statuses(self):
        app = self.make_app()
        with listening(app) as address:
            for head, status in (
                    (b"TRACE / HTTP/1.1", 405), (b"TRACE * HTTP/1.1", 400),
                    (b"CONNECT index.example:80 HTTP/1.1", 400),
                    (b"CONNECT / HTTP/1.1", 405),
                    (b"OPTIONS * HTTP/1.1", 400),
                    (b"OPTIONS / HTTP/1.1", 405),
                    (b"PRI * HTTP/2.0", 505), (b"GET / HTTP/3.0", 505),
                    (b"GET / HTTP/0.9", 505), (b"GET /", 400),
                    (b"PROPFIND / HTTP/1.1", 501), (b"get / HTTP/1.1", 501),
                    (b"GET http://other.example/health HTTP/1.1", 200),
                    (b"GET //other.example/health HTTP/1.1", 404),
                    (b"GET https://a HTTP/1.1", 200),
                    (b"GET https://joe@a/ HTTP/1.1", 400),
                    (b"GET user@host/ HTTP/1.1", 400),
                    (b"GET /health HTTP/1.1\r\nConnection: Upgrade, "
                     b"HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: "
                     b"AAMAAABkAARAAAAAAAIAAAAA", 200),
                    (b"GET /health HTTP/1.1\r\nConnection: Upgrade\r\n"
                     b"Upgrade: websocket\r\nSec-WebSocket-Version: 13",
                     200)):
                with self.subTest(head), Wire(address) as wire:
                    wire.send(head + b"\r\nHost: index.example\r\n\r\n")
                    found, headers, body = wire.answer()
                    self.assertEqual(status, found)
                    self.assertNotIn("upgrade", headers)
                    self.assertNotIn(b"Host", body)
                    if found == 405:
                        self.assertIn("GET", headers["allow"])


# Ways to write a path that leads out of the directory.
UPWARDS = (
    "..", "%2e%2e", "%2E.", ".%2e", "..%2f", "..%2F..", "%2e%2e%2f", "..%5c",
    "..\\", "%5c%2e%2e", "....//", "..;", "%252e%252e", "%c0%ae%c0%ae",
    "%e0%80%ae%e0%80%ae", "%uff0e%uff0e", ".%00.", "..%00", "..%0a",
    "\u2025".encode("utf-8").decode("latin-1"), "~", "%7eroot", "//", "/.",
    "%2f", "%00", "C:", "file:", "\\\\host")


class TestTraversal(FilesTestCase):
    def test_urls(self):
        """Nothing outside, and nothing hidden inside, by any spelling."""
        self.put(WHEEL, DATA)
        outside = archives.put(
            os.path.join(self.folder, "outside"), WHEEL, DATA + b"secret-word")
        self.put(".hidden-1.0-py3-none-any.whl", DATA + b"secret-word")
        self.put(".git/" + WHEEL, DATA + b"secret-word")
        self.put("foo.txt", b"secret-word")
        self.open()
        self.wait_for_names(WHEEL)
        targets = [
            b"/packages/.hidden-1.0-py3-none-any.whl",
            b"/packages/.git/" + WHEEL.encode(), b"/packages/foo.txt",
            b"/packages/./foo.txt", b"/packages//foo.txt",
            b"/packages/" + outside.encode(),
            b"/packages/%2f" + outside.encode()]
        for up in UPWARDS:
            for prefix in "/packages/", "/simple/", "/", "/pypi/":
                for end in ("/outside/" + WHEEL, "/foo.txt",
                            "/.git/" + WHEEL, "/" + outside):
                    targets += [(prefix + up * count + end).encode("latin-1")
                                for count in (1, 3)]
        with listening(self.app) as address:
            for target in targets:
                with self.subTest(target), Wire(address) as wire:
                    wire.send(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n"
                              b"Connection: close\r\n\r\n")
                    status, headers, body = wire.answer()
                    self.assertIn(status, (302, 400, 404))
                    self.assertNotIn(b"secret-word", body)
                    location = headers.get("location", "")
                    self.assertFalse(location.startswith(("//", "/\\")))
                    self.assertNotIn(":", location)


class TestSpace(FaultTestCase):
    def test_no_folder_for_temporary_files_is_needed(self):
        server = ServerProcess(*ANYONE, self.root, environment={
            "TMPDIR": "/nowhere", "TEMP": "/nowhere", "TMP": "/nowhere"})
        with server:
            data = archives.wheel("foo", "1.0", files={
                "noise": os.urandom(3 * 2 ** 20)})
            self.assertEqual(200, self.send(server, WHEEL, data).status)
            self.assertEqual(data, server.get("packages/" + WHEEL).body)

    def test_a_limit_on_the_size_of_files(self):
        if not shutil.which("prlimit"):
            self.skipTest("no program prlimit")
        server = self.start()
        subprocess.run(["prlimit", "--pid", str(server.process.pid),
                        "--fsize=1000000"], check=True)
        data = archives.wheel("foo", "1.0", files={
            "noise": os.urandom(3 * 2 ** 20)})
        self.assertEqual(507, self.send(server, WHEEL, data).status)
        self.assertEqual([], self.files())
        self.assertEqual(200, self.send(server, WHEEL, DATA).status)

    def test_lengths_that_are_only_promised(self):
        """Room is made for what comes, not for what is announced."""
        server = self.start()
        wires = [self.connect(server, (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: "
            + forms.content_type().encode() + b"\r\nContent-Length: "
            b"1000000000\r\n\r\n--x")) for _ in range(20)]
        self.assertEqual(200, server.get("simple/").status)
        path = "/proc/%d/status" % server.process.pid
        if os.path.exists(path):
            with open(path) as file:
                memory = [int(line.split()[1]) for line in file
                          if line.startswith("VmHWM")]
            self.assertLess(memory[0], 150000)
        for wire in wires:
            wire.socket.close()


class TestStopping(FaultTestCase):
    def begin(self, server):
        """Send a half of an upload; return the connection and the rest."""
        headers, body = forms.upload(WHEEL, DATA)
        wire = self.connect(server, (
            "POST / HTTP/1.1\r\nHost: a\r\n" + "".join(
                "%s: %s\r\n" % pair for pair in headers.items())
            + "Content-Length: %d\r\n\r\n" % len(body)).encode()
            + body[:-200])
        wait_for(self.files, "a temporary file")
        return wire, body[-200:]

    def is_refused(self, server):
        try:
            with Wire(self.address(server), 5):
                return False
        except OSError:
            return True

    def test_a_running_upload_is_completed(self):
        server = self.start()
        wire, rest = self.begin(server)
        server.process.terminate()
        wait_for(lambda: self.is_refused(server), "no more are taken")
        wire.send(rest)
        status, headers, _ = wire.answer()
        self.assertEqual((200, "close"), (status, headers["connection"]))
        self.assertEqual(0, server.process.wait(10))
        self.assertEqual([WHEEL], self.files())

    def test_a_second_signal_does_not_wait(self):
        server = self.start()
        self.begin(server)
        server.process.terminate()
        wait_for(lambda: self.is_refused(server), "no more are taken")
        self.assertIsNone(server.process.poll())
        started = time.monotonic()
        server.process.terminate()
        server.process.wait(10)
        self.assertLess(time.monotonic() - started, 5)
        self.assertNotIn(WHEEL, self.files())
        # What it left is removed by the next.
        self.start()
        wait_for(lambda: self.files() == [], "nothing is left")


if __name__ == "__main__":
    unittest.main()
