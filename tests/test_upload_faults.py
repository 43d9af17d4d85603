"""Uploads that go wrong: cut off, killed, at once, on a full disk.

Whatever happens, a name is absent or has a whole file, and trying again
works.
"""

import contextlib
import http.client
import os
import platform
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest
import zipfile
from unittest import mock
from urllib.parse import urlsplit

import pypi_server
from tests import archives, forms
from tests.helpers import (
    HOST, SCRIPT, Answer, DirectoryTestCase, ServerProcess, Wire, ask,
    call, names_in, texts, wait_for,
)
from tests.load import memory

SDIST = "demo_pkg-1.0.tar.gz"
WHEEL = "demo_pkg-1.0-py3-none-any.whl"
ANYONE = ("-a", ".", "-P", ".", "--disable-fallback")
SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="  # of "secret"
JOE = forms.credentials("joe", "secret")
NOISE = random.Random(9).getrandbits(8 * 2 ** 20).to_bytes(2 ** 20, "big")
BIG = 20 * 2 ** 20


def sdist(text=b"", version="1.0"):
    return forms.once(archives.sdist, "demo_pkg", version,
                      files={"text": text})


def wheel_of(size, text=b""):
    """Return a wheel of about this size."""
    data = NOISE * (size // len(NOISE)) + NOISE[:size % len(NOISE)]
    return forms.once(archives.wheel, "demo_pkg", "1.0", files={
        "noise": data, "text": text}, compression=zipfile.ZIP_STORED)


def head(length=None, *lines, target="/"):
    """Return the head of an upload as bytes."""
    found = ["POST %s HTTP/1.1" % target, "Host: " + HOST,
             "Content-Type: " + forms.content_type()] + list(lines)
    found.append("Transfer-Encoding: chunked" if length is None
                 else "Content-Length: %d" % length)
    return "\r\n".join(found + ["", ""]).encode("latin-1")


class FaultTestCase(DirectoryTestCase):

    def setUp(self):
        super().setUp()
        self.cache = os.path.join(self.folder, "cache")

    def start(self, *arguments, root=None):
        """Start a server that anyone may upload to, unless it is said."""
        server = ServerProcess("-v", "--cache-dir", self.cache, *(
            arguments or ANYONE) + (root or self.root,))
        server.__enter__()
        self.addCleanup(server.stop)
        return server

    def accounts(self):
        """Return the arguments for a server with the user joe."""
        path = os.path.join(self.folder, "users")
        with open(path, "w") as file:
            file.write("joe:%s\n" % SHA)
        return "-P", path

    @staticmethod
    def address(server):
        address = urlsplit(server.url)
        return address.hostname, address.port

    def connect(self, server, data=b"", timeout=60):
        wire = Wire(self.address(server), timeout)
        self.addCleanup(wire.socket.close)
        wire.send(data)
        return wire

    def send(self, server, filename, data, **fields):
        """Upload a file; return the Answer."""
        headers, body = forms.upload(filename, data, **fields)
        return ask(*self.address(server), "POST", "/", headers, body)

    def remove(self, server):
        headers, body = forms.post([
            (":action", "remove_pkg"), ("name", "demo-pkg"),
            ("version", "1.0")])
        return ask(*self.address(server), "POST", "/", headers, body).status

    def files(self, root=None):
        """Return the names of all files but the lock, hidden ones too."""
        return names_in(root or self.root)

    def content(self, name):
        with open(os.path.join(self.root, name), "rb") as file:
            return file.read()

    def listed(self, server):
        """Return the files on the project's page."""
        page = server.get("simple/demo-pkg/")
        return texts(page.body) if page.status == 200 else []

    def check_absent(self, server, filename=SDIST):
        """Check that neither the index nor the disk has any of a file."""
        self.assertEqual(self.listed(server), [])
        self.assertEqual(server.get("packages/" + filename).status, 404)
        self.assertEqual(self.files(), [])

    def check_stored(self, server, data, filename=SDIST):
        self.assertEqual(self.listed(server), [filename])
        self.assertEqual(server.get("packages/" + filename).body, data)
        self.assertEqual(self.files(), [filename])


class EarlyAnswerTest(FaultTestCase):
    """An answer reaches a client that is still sending 20 MB."""

    def cases(self):
        """Yield (server, [(status, Content-Length or None, headers)])."""
        yield self.start(*self.accounts()), (
            (401, BIG, {}), (401, None, {}),
            (401, BIG, forms.credentials("joe", "wrong")))
        yield self.start("-a", "update"), ((403, BIG, {}),)
        yield self.start("--read-only", *ANYONE), ((403, BIG, {}),)
        yield self.start("--max-upload-size", "1000", *ANYONE), (
            (413, BIG, {}),
            # Not known before so much of it has come.
            (413, 900000, {}), (413, None, {}))
        yield self.start(), (
            # No disk has 100 TB free.
            (507, 10 ** 14, {}), (403, BIG, {"Sec-Fetch-Site": "cross-site"}),
            (415, BIG, {"Content-Type": "text/plain"}))

    def body(self):
        """Return a form whose file goes on for 20 MB."""
        _, body = forms.upload(WHEEL, b"")
        return body[:body.rindex(b"\r\n--")] + NOISE * (BIG // len(NOISE))

    def test_early_answers(self):
        body = self.body()
        for server, cases in self.cases():
            for status, length, headers in cases:
                with self.subTest(status=status, length=length):
                    self.send_raw(server, status, length, headers, body)
                    self.check_alive(server)
                if length and length <= BIG:
                    with self.subTest(status=status, client="http.client"):
                        self.send_over_http_client(
                            server, status, headers, body[:length])
                        self.check_alive(server)
            server.stop()

    def send_raw(self, server, status, length, headers, body):
        """Send it all, and only then look for an answer."""
        start = head(length, *map(": ".join, headers.items()))
        if "Content-Type" in headers:
            start = start.replace(
                b"Content-Type: %s\r\n" % forms.content_type().encode(), b"")
        sent = body[:length]
        if length is None:
            sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(sent), sent)
        with self.connect(server, start) as wire:
            wire.send(sent)
            self.assertEqual(wire.answer()[0], status)

    def send_over_http_client(self, server, status, headers, body):
        with contextlib.closing(http.client.HTTPConnection(
                *self.address(server), timeout=60)) as client:
            client.request("POST", "/", body, dict(
                {"Content-Type": forms.content_type()}, **headers))
            answer = client.getresponse()
            text = answer.read().decode("utf-8")
        self.assertEqual(answer.status, status)
        self.assertEqual(answer.reason + "\n", text)

    def check_alive(self, server):
        self.assertEqual(server.get("simple/").status, 200)
        self.assertEqual(self.files(), [])
        self.assertNotIn("Traceback", server.logged())

    def test_a_body_that_is_no_form(self):
        """20 MB follow after the sentence is due."""
        server = self.start()
        for body in (NOISE * 20, b"--%s\r\n" % forms.BOUNDARY.encode()
                     + b"x" * BIG):
            wire = self.connect(server, head(len(body)) + body)
            self.assertEqual(wire.answer()[0], 400)
            self.check_alive(server)


class ExpectTest(FaultTestCase):
    """RFC 9110, 10.1.1: the body is asked for when it is wanted."""

    def ask(self, server, *lines, length=None):
        _, body = forms.upload(SDIST, sdist())
        wire = self.connect(server, head(
            length or len(body), "Expect: 100-continue", *lines))
        return wire, body

    def test_the_account_is_checked_first(self):
        server = self.start(*self.accounts())
        for lines in ((), ("Authorization: Basic eDp4",),
                      ("Authorization: nonsense",)):
            wire, _ = self.ask(server, *lines)
            self.assertEqual(wire.answer()[0], 401)
            self.assertEqual(wire.buffer, b"")
        wire, body = self.ask(
            server, "Authorization: " + JOE["Authorization"])
        self.assertEqual(wire.answer()[0], 100)
        wire.send(body)
        self.assertEqual(wire.answer()[0], 200)
        self.check_stored(server, sdist())

    def test_what_would_be_refused_is_not_asked_for(self):
        for server, length, status in (
                (self.start("--read-only", *ANYONE), None, 403),
                (self.start("--max-upload-size", "10", *ANYONE),
                 2 * 2 ** 20, 413),
                (self.start("-a", "update"), None, 403),
                (self.start(), 10 ** 14, 507)):
            wire, _ = self.ask(server, length=length)
            self.assertEqual(wire.answer()[0], status)
        wire, _ = self.ask(self.start(), "Origin: http://evil.example")
        self.assertEqual(wire.answer()[0], 403)

    def test_a_client_that_does_not_wait(self):
        server = self.start()
        _, body = forms.upload(SDIST, sdist())
        wire = self.connect(server, head(
            len(body), "Expect: 100-continue") + body)
        statuses = [wire.answer()[0]]
        if statuses == [100]:
            statuses.append(wire.answer()[0])
        self.assertEqual(statuses[-1], 200)

    def test_chunked(self):
        server = self.start()
        _, body = forms.upload(SDIST, sdist())
        wire = self.connect(server, head(None, "Expect: 100-continue"))
        self.assertEqual(wire.answer()[0], 100)
        wire.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        self.assertEqual(wire.answer()[0], 200)
        self.check_stored(server, sdist())


def chunked(body, sizes, form=b"%x"):
    """Return a body in chunked coding (RFC 9112, 7.1)."""
    found, at = [], 0
    while at < len(body):
        piece = body[at:at + next(sizes)]
        at += len(piece)
        found += [form % len(piece), b"\r\n", piece, b"\r\n"]
    return b"".join(found) + b"0\r\n\r\n"


def always(size):
    while True:
        yield size


def at_random(seed, most):
    dice = random.Random(seed)
    while True:
        yield dice.randint(1, most)


class ChunkedTest(FaultTestCase):

    def test_chunks_of_any_size(self):
        server = self.start()
        for text in (b"", NOISE[:150000]):
            data = sdist(text)
            _, body = forms.upload(SDIST, data, **forms.digests(data))
            for sizes, form in (
                    (always(1 if len(body) < 9999 else 700), b"%x"),
                    (always(10), b"%X"), (always(1000), b"000%x"),
                    (always(65536), b"%x;name=value"),
                    (always(10 ** 6), b"%X;name"), (at_random(1, 30), b"%x"),
                    (at_random(2, 5000), b"%x")):
                wire = self.connect(
                    server, head(None) + chunked(body, sizes, form))
                self.assertEqual(wire.answer()[0], 200)
                self.check_stored(server, data)
                self.assertEqual(self.remove(server), 200)

    def test_malformed_chunks(self):
        server = self.start()
        _, body = forms.upload(SDIST, sdist())
        whole = chunked(body, always(500))
        for broken in (
                whole.replace(b"\r\n", b"\n", 1),
                whole.replace(b"1f4\r\n", b"1f3\r\n", 1),
                whole.replace(b"1f4\r\n", b"1f5\r\n", 1),
                whole.replace(b"1f4\r\n", b"0x1f4\r\n", 1),
                whole.replace(b"1f4\r\n", b"+1f4\r\n", 1),
                whole.replace(b"1f4\r\n", b" 1f4\r\n", 1),
                whole.replace(b"1f4\r\n", b"\r\n", 1),
                whole.replace(b"1f4\r\n", b"-1\r\n", 1),
                whole.replace(b"1f4\r\n", b"1" * 20 + b"\r\n", 1),
                b"x" * 100000, b"\0" * 1000, body):
            with self.subTest(broken=broken[:20]):
                wire = self.connect(server, head(None) + broken)
                wire.socket.shutdown(socket.SHUT_WR)
                self.assertEqual(wire.answer()[0], 400)
                self.assertTrue(wire.is_closed())
        self.check_absent(server)

    def test_a_whole_coding_of_half_a_form(self):
        server = self.start()
        _, body = forms.upload(SDIST, sdist())
        for end in range(0, len(body) - 2, 61):
            wire = self.connect(server, head(None) + chunked(
                body[:end], always(100)))
            self.assertEqual(wire.answer()[0], 400, end)
        self.check_absent(server)


class CutOffTest(FaultTestCase):
    """The connection ends too early, in one way or another."""

    def cut(self, server, data, how):
        """Send some bytes and end the connection; return the status."""
        wire = Wire(self.address(server), 60)
        with wire:
            if how == "reset":
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                       struct.pack("ii", 1, 0))
            wire.send(data)
            if how == "half":  # and waits for what the server says
                wire.socket.shutdown(socket.SHUT_WR)
                return wire.answer()[0]
        return None

    def test_bodies_cut_at_many_places(self):
        server = self.start()
        _, body = forms.upload(SDIST, sdist(), **forms.digests(sdist()))
        start = head(len(body))
        cuts = 0
        for how in ("close", "half", "reset"):
            for end in sorted(set(range(0, len(body), 41)).union(
                    range(len(body) - 50, len(body), 7), (len(body) - 1,))):
                status = self.cut(server, start + body[:end], how)
                cuts += 1
                self.assertEqual(status, 400 if how == "half" else None)
            # Each is noticed, and told once.
            wait_for(lambda: server.logged().count("POST") >= cuts,
                     "%d lines about cut bodies" % cuts)
            self.check_absent(server)
        answer = self.send(server, SDIST, sdist())
        self.assertEqual(answer.status, 200, answer)
        self.check_stored(server, sdist())
        server.stop()
        self.assertEqual(server.output.count("POST / 400 "), cuts)
        # At any level, so not all of them.
        self.assertEqual(server.output.count("refused an upload"), 10)
        for words in ("Traceback", "cannot be stored"):
            self.assertNotIn(words, server.output)

    def test_large_files_cut_in_the_middle(self):
        server = self.start()
        data = wheel_of(4 * 2 ** 20)
        _, body = forms.upload(WHEEL, data)
        for number, how in enumerate(("close", "half", "reset"), 1):
            self.cut(server, head(len(body)) + body[:len(body) // 2], how)
            wait_for(lambda: server.logged().count("POST") >= number,
                     "the cut is noticed")
            self.check_absent(server, WHEEL)
        self.assertEqual(self.send(server, WHEEL, data).status, 200)
        self.check_stored(server, data, WHEEL)

    def test_a_file_that_was_stored_stays_when_another_is_cut_off(self):
        server = self.start("-o", *ANYONE)
        self.assertEqual(self.send(server, SDIST, sdist()).status, 200)
        _, body = forms.upload(SDIST, sdist(b"new"))
        for end in range(len(body) - 200, len(body), 20):
            self.cut(server, head(len(body)) + body[:end], "half")
            self.check_stored(server, sdist())


class RaceTestCase(FaultTestCase):

    COUNT = 20

    def race(self, jobs):
        """Run (server, filename, data) uploads at once; return Answers."""
        barrier = threading.Barrier(len(jobs))
        answers = [None] * len(jobs)

        def run(number, server, filename, data):
            barrier.wait()
            answers[number] = self.send(
                server, filename, data, **forms.digests(data))
        threads = [threading.Thread(target=run, args=(number,) + job)
                   for number, job in enumerate(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    def check_one_wins(self, servers, settings=()):
        datas = [sdist(b"%d" % number + NOISE[:50000])
                 for number in range(self.COUNT)]
        answers = self.race([
            (servers[number % len(servers)], SDIST, data)
            for number, data in enumerate(datas)])
        winners = [data for data, answer in zip(datas, answers)
                   if answer.status == 200]
        self.assertEqual(
            sorted(answer.status for answer in answers),
            [200] + [409] * (self.COUNT - 1))
        for answer in answers:
            if answer.status == 409:
                self.assertIn("File already exists", answer.reason)
        for server in servers:
            wait_for(lambda: self.listed(server) == [SDIST],
                     "the file is listed everywhere")
            self.check_stored(server, winners[0])

    def check_all_win(self, servers):
        data = sdist(NOISE[:50000])
        answers = self.race([
            (servers[number % len(servers)], SDIST, data)
            for number in range(self.COUNT)])
        self.assertEqual([answer.status for answer in answers],
                         [200] * self.COUNT)
        for server in servers:
            wait_for(lambda: self.listed(server) == [SDIST],
                     "the file is listed everywhere")
            self.check_stored(server, data)


class ParallelTest(RaceTestCase):

    def test_other_bytes_under_one_name(self):
        server = self.start()
        self.check_one_wins([server])

    def test_the_same_bytes(self):
        server = self.start()
        self.check_all_win([server])

    def test_two_servers_over_one_directory(self):
        servers = [self.start(), self.start()]
        self.check_one_wins(servers)
        os.unlink(os.path.join(self.root, SDIST))
        for server in servers:
            wait_for(lambda: self.listed(server) == [], "it is gone")
        self.check_all_win(servers)

    def test_archives_and_signatures_of_several_uploads(self):
        """They stay together, in one server and in several."""
        signatures = {sdist(b"%d" % number): b"signature %d" % number
                      for number in range(4)}
        servers = [self.start("-o", *ANYONE, "--workers", "2"),
                   self.start("-o", *ANYONE)]
        for _ in range(8):
            barrier = threading.Barrier(len(signatures))
            statuses = []

            def run(number, data, signature):
                barrier.wait()
                statuses.append(self.send(
                    servers[number % 2], SDIST, data,
                    gpg_signature=forms.File("x", signature)).status)
            threads = [threading.Thread(target=run, args=(number,) + pair)
                       for number, pair in enumerate(signatures.items())]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertLessEqual(set(statuses), {200, 409})
            self.assertIn(200, statuses)
            self.assertEqual(signatures[self.content(SDIST)],
                             self.content(SDIST + ".asc"))

    def test_names_are_known_until_another_server_stores(self):
        """So that an upload need not list the directory."""
        def others_came():
            with pypi_server.lock_names(self.root) as found:
                return found
        self.assertEqual([True, False, False],
                         [others_came() for _ in range(3)])
        self.assertEqual(
            self.send(self.start(), SDIST, sdist()).status, 200)
        self.assertEqual([True, False], [others_came() for _ in range(2)])

    def test_two_spellings_on_two_servers(self):
        """Each server has seen the last upload of the other."""
        servers = [self.start(), self.start()]
        for number in range(10):
            version = "1.%d" % number
            names = ["demo_pkg-%s.tar.gz" % version,
                     "demo_pkg-%s.0.tar.gz" % version]
            datas = [sdist(b"", version), sdist(b"", version + ".0")]
            if number % 2:
                names.reverse()
                datas.reverse()
            answers = [self.send(*job) for job in zip(servers, names, datas)] \
                if number < 5 else self.race(list(zip(servers, names, datas)))
            self.assertEqual([200, 409], sorted(
                answer.status for answer in answers), answers)
        self.assertEqual(10, len(self.files()))

    @unittest.skipUnless(hasattr(os, "geteuid") and os.geteuid() == 0,
                         "only root can be another user")
    def test_a_lock_that_another_user_left(self):
        server = self.start()
        path = os.path.join(self.root, ".lock")
        mine = """if True:
            import fcntl, os, sys
            import pypi_server
            os.setuid(65534)
            for _ in range(2):
                with pypi_server.lock_names(sys.argv[1]) as others_came:
                    print(others_came, os.path.exists(sys.argv[1] + "/.lock"))
            """
        os.chmod(self.folder, 0o755)
        os.chmod(self.root, 0o777)
        self.assertEqual(
            self.send(server, SDIST, sdist()).status, 200)
        os.chmod(path, 0o600)
        for mode, of_folder, expected in (
                (0o644, 0o777, "True True\nTrue True\n"),
                (0o644, 0o1777, "True True\nTrue True\n"),
                (0o600, 0o777, "")):
            os.chmod(self.root, of_folder)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            with open(path, "xb"):
                os.chmod(path, mode)
            process = subprocess.run(
                [sys.executable, "-c", mine, self.root],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                cwd=os.path.dirname(SCRIPT), universal_newlines=True)
            self.assertEqual(expected, process.stdout, process.stderr)
            self.assertEqual(bool(expected), process.returncode == 0)
            self.assertEqual(
                self.send(server, SDIST, sdist()).status, 200)

    def test_a_lock_that_somebody_keeps(self):
        """A server that was stopped then stops no others for ever."""
        try:
            import fcntl
        except ImportError:
            self.skipTest("no locks here")
        app = self.make_app(authenticated=(), password_file=".")
        headers, body = forms.upload(SDIST, sdist())
        with open(os.path.join(self.root, ".lock"), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with mock.patch.object(pypi_server, "LOCK_PATIENCE", 0.3):
                answer = call(app, "POST", "/", headers, body)
            self.assertEqual(503, answer.status)
            self.assertIn("retry-after", answer.headers)
            self.assertEqual([], self.files())
            thread = threading.Timer(0.3, file.close)
            thread.start()
            answer = call(app, "POST", "/", headers, body)
            thread.join()
        self.assertEqual(200, answer.status)

    @unittest.skipUnless(hasattr(os, "mkfifo"), "no FIFOs here")
    def test_a_lock_that_is_no_file(self):
        path = os.path.join(self.root, ".lock")
        victim = os.path.join(self.folder, "victim")
        for make in (lambda: os.mkfifo(path), lambda: os.mkdir(path),
                     lambda: os.symlink("/dev/zero", path),
                     lambda: os.symlink(victim, path)):
            server = self.start()
            with open(victim, "w") as file:
                file.write("precious")
            make()
            answer = self.send(server, SDIST, sdist())
            self.assertEqual(500, answer.status)
            self.assertEqual([], self.files())
            self.assertIn(path, server.logged())
            (os.rmdir if os.path.isdir(path) else os.unlink)(path)
            self.assertEqual(200, self.send(server, SDIST, sdist()).status)
            os.unlink(os.path.join(self.root, SDIST))
            os.unlink(path)
            server.stop()
            self.assertNotIn("Traceback", server.output)
            with open(victim) as file:
                self.assertEqual("precious", file.read())

    @unittest.skipUnless(hasattr(os, "mkfifo"), "no FIFOs here")
    def test_a_name_that_something_else_has(self):
        """A FIFO is never opened, a device never read to its end."""
        server = self.start()
        os.mkfifo(os.path.join(self.root, SDIST))
        zero = "demo_pkg-1.1.tar.gz"
        os.symlink("/dev/zero", os.path.join(self.root, zero))
        other = "demo_pkg-1.2.tar.gz"
        self.assertEqual(200, self.send(
            server, other, sdist(b"", "1.2")).status)
        os.mkfifo(os.path.join(self.root, other + ".asc"))
        for name, data in ((SDIST, sdist()), (zero, sdist(b"", "1.1")),
                           (other + ".asc", b"signature")):
            with self.subTest(name):
                self.assertEqual(409, self.send(server, name, data).status)
        self.assertEqual(0, server.stop())

    def test_other_names(self):
        server = self.start()
        jobs = [(server, "demo_pkg-1.%d.tar.gz" % number,
                 sdist(b"", "1.%d" % number))
                for number in range(self.COUNT)]
        answers = self.race(jobs)
        self.assertEqual([answer.status for answer in answers],
                         [200] * self.COUNT)
        self.assertEqual(sorted(self.listed(server)),
                         sorted(filename for _, filename, _ in jobs))


class KillTestCase(RaceTestCase):

    def check_restart(self, data):
        """Start again: nothing partial is listed, served or left."""
        self.age()
        server = self.start()
        self.assertIn(self.files(), ([], [SDIST]))
        if SDIST in self.files():
            self.assertEqual(self.listed(server), [SDIST])
            self.assertEqual(server.get("packages/" + SDIST).body, data)
        else:
            self.assertEqual(self.listed(server), [])
            self.assertEqual(server.get("packages/" + SDIST).status, 404)
        return server

    def age(self):
        """Make what is hidden so old that nobody waits for it."""
        for name in self.files():
            if name.startswith("."):
                then = time.time() - 3600
                os.utime(os.path.join(self.root, name), (then, then))

    def check_end(self, data):
        """A retry works."""
        server = self.check_restart(data)
        answer = self.send(server, SDIST, data, **forms.digests(data))
        self.assertEqual(answer.status, 200, answer)
        self.check_stored(server, data)


class KillTest(KillTestCase):
    """kill -9 of the server, at any moment of an upload."""

    def test_after_so_many_bytes(self):
        data = sdist(NOISE[:400000])
        _, body = forms.upload(SDIST, data, **forms.digests(data))
        start = body.index(data[:100])
        for end in (100, start + 1, start + len(data) // 2,
                    start + len(data), len(body) - 3):
            server = self.check_restart(data)
            before = set(self.files())
            wire = self.connect(server, head(len(body)) + body[:end])
            # What it may still hold back: it could be the boundary.
            wanted = end - start - 50

            def has_come():
                sizes = [os.path.getsize(os.path.join(self.root, name))
                         for name in set(self.files()) - before]
                return sizes and sizes[0] >= min(wanted, len(data) - 50)
            if wanted > 0:
                wait_for(has_come, "the bytes are on the disk")
            server.process.kill()
            server.stop()
            wire.socket.close()
            self.assertNotIn(SDIST, self.files())
        self.check_end(data)

    def test_leftovers(self):
        """Those that a server has locked stay; see below."""
        for name in (".upload-1-a", "sub/.upload-2-b"):
            archives.put(self.root, name, b"half", age=7 * 24 * 3600)
        archives.put(self.root, ".upload-3-young", b"half", age=0)
        archives.put(self.root, ".hidden/.upload-4-c", b"mine", age=10 ** 6)
        archives.put(self.root, ".other", b"mine", age=10 ** 6)
        server = self.start("--read-only", *ANYONE)
        self.assertIn(".upload-1-a", self.files())
        server.stop()
        server = self.start()
        self.assertEqual(self.files(), [".hidden", ".other", "sub"])
        self.assertEqual(os.listdir(os.path.join(self.root, "sub")), [])
        wait_for(lambda: len(re.findall(
            r"removing \S+", server.logged())) == 3, "each is named")

    def test_leftovers_in_all_directories_and_later(self):
        other = os.path.join(self.folder, "other")
        os.mkdir(other)
        path = archives.put(other, ".upload-1-a", b"half", age=10 ** 6)
        with mock.patch.object(pypi_server, "FORGET_INTERVAL", 0):
            app = self.make_app(self.root, other)
            app.warmer.start()
            wait_for(lambda: not os.path.exists(path), "removed")
            path = archives.put(other, ".upload-2-b", b"half", age=10 ** 6)
            wait_for(lambda: not os.path.exists(path), "removed, too")
        path = archives.put(other, ".upload-3-c", b"half", age=10 ** 6)
        with ServerProcess(self.root, other):
            self.assertFalse(os.path.exists(path))

    def test_what_a_living_server_is_writing_is_not_removed(self):
        """However long it takes to come in."""
        first = self.start()
        data = sdist(NOISE[:100000])
        _, body = forms.upload(SDIST, data)
        wire = self.connect(first, head(len(body)) + body[:50000])
        wait_for(lambda: self.files() and os.path.getsize(
            os.path.join(self.root, self.files()[0])) > 10000,
            "a part of it is on the disk")
        before = self.files()
        self.age()
        second = self.start()
        self.assertEqual(self.files(), before)
        self.assertEqual(self.listed(second), [])
        wire.send(body[50000:])
        self.assertEqual(wire.answer()[0], 200)
        self.check_stored(first, data)
        wait_for(lambda: self.listed(second) == [SDIST], "it is listed")


def strace_problem():
    """Tell why strace cannot be used here; None when it can."""
    if not shutil.which("strace"):
        return "no program strace"
    process = subprocess.run(
        ["strace", "-f", "-qq", "-e", "trace=fsync", "-e",
         "inject=fsync:error=EIO", "true"], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if process.returncode:
        return "strace does not work here: %s" % (
            process.stdout.decode().strip().splitlines() or [""])[-1]
    return None


class Strace:
    """Injects faults into the system calls of a process.

    Counters are those of each thread, and each connection has its own.
    """

    def __init__(self, process, calls, fault):
        self.command = ["strace", "-f", "-p", str(process.pid), "-e",
                        "trace=" + calls, "-e",
                        "inject=%s:%s" % (calls, fault)]

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        line = self.process.stderr.readline()
        if b"attached" not in line:
            self.__exit__()
            raise AssertionError(line)
        # It fills a pipe with what it traces; nobody needs that.
        self.reader = threading.Thread(target=self.process.stderr.read)
        self.reader.start()
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)
        if hasattr(self, "reader"):
            self.reader.join()
        self.process.stderr.close()


LINK, UNLINK = "?link,linkat", "?unlink,unlinkat"
RENAME = "?rename,?renameat,renameat2"
# The first openat is the temporary file; PyPy opens /dev/urandom before.
OPEN = 2 if platform.python_implementation() == "PyPy" else 1


class InjectionTest(KillTestCase):
    """The same, at each system call, and errors from each of them."""

    @classmethod
    def setUpClass(cls):
        problem = strace_problem()
        if problem:
            raise unittest.SkipTest(problem)

    def inject(self, server, calls, fault):
        return Strace(server.process, calls, fault)

    def test_killed_at_each_step(self):
        data = sdist(NOISE[:600000])
        for calls, when in (
                ("openat", OPEN), ("flock", 1), ("write", 1), ("write", 2),
                ("fsync", 1), (LINK, 1), (UNLINK, 1), ("fsync", 2),
                ("sendto", 1)):
            server = self.check_restart(data)
            if SDIST in self.files():
                self.assertEqual(self.send(server, SDIST, data).status, 200)
                self.assertEqual(self.remove(server), 200)
            with self.subTest(calls=calls, when=when):
                with self.inject(server, calls,
                                 "signal=KILL:when=%d" % when):
                    with self.assertRaises((ConnectionError,
                                            http.client.HTTPException)):
                        self.send(server, SDIST, data)
                    server.process.wait(60)
                server.stop()
        self.check_end(data)

    def test_killed_while_overwriting(self):
        old, new = sdist(b"old"), sdist(b"new")
        arguments = ("-o",) + ANYONE
        archives.put(self.root, SDIST, old)
        for calls in ("write", "fsync", RENAME):
            self.age()
            server = self.start(*arguments)
            with self.inject(server, calls, "signal=KILL:when=1"):
                with self.assertRaises((ConnectionError,
                                        http.client.HTTPException)):
                    self.send(server, SDIST, new)
                server.process.wait(60)
            server.stop()
            with open(os.path.join(self.root, SDIST), "rb") as file:
                self.assertEqual(file.read(), old, calls)

    def test_killed_while_overwriting_what_is_signed(self):
        """The new file never lies beside the signature of the old one."""
        pairs = [(sdist(b"old"), b"old"), (sdist(b"new"), b"new")]
        for calls, when in ((RENAME, 1), (RENAME, 2), (RENAME, 3),
                            (UNLINK, 1)):
            for name, data in zip((SDIST, SDIST + ".asc"), pairs[0]):
                archives.put(self.root, name, data)
            self.age()
            server = self.start("-o", *ANYONE)
            signature = forms.File("x", pairs[1][1])
            with self.inject(server, calls, "signal=KILL:when=%d" % when):
                with self.assertRaises((ConnectionError,
                                        http.client.HTTPException)):
                    self.send(server, SDIST, pairs[1][0],
                              gpg_signature=signature)
                server.process.wait(60)
            server.stop()
            found = tuple(self.content(name) if name in self.files() else b""
                          for name in (SDIST, SDIST + ".asc"))
            with self.subTest(calls=calls, when=when):
                self.assertIn(found, pairs + [
                    (data, b"") for data, _ in pairs])
            self.age()
            server = self.start("-o", *ANYONE)
            self.assertEqual(200, self.send(
                server, SDIST, pairs[1][0], gpg_signature=signature).status)
            self.assertEqual(pairs[1], (
                self.content(SDIST), self.content(SDIST + ".asc")))
            server.stop()

    def test_errors_of_each_step(self):
        """Nothing is left, the answer is no success, and a retry is one."""
        server = self.start()
        data = sdist(NOISE[:600000])
        for calls, error, when, status in (
                ("openat", "ENOSPC", OPEN, 507), ("write", "ENOSPC", 1, 507),
                ("write", "ENOSPC", 2, 507), ("write", "EDQUOT", 1, 507),
                ("write", "EFBIG", 1, 507), ("write", "EIO", 1, 500),
                ("openat", "EROFS", OPEN, 503),
                ("openat", "EACCES", OPEN, 503),
                ("fsync", "EIO", 1, 500), ("fsync", "ENOSPC", 1, 507),
                (LINK, "EIO", 1, 500), (LINK, "ENOSPC", 1, 507)):
            with self.subTest(calls=calls, error=error, when=when):
                with self.inject(server, calls, "error=%s:when=%d" % (
                        error, when)):
                    answer = self.send(server, SDIST, data)
                self.assertEqual(answer.status, status, answer)
                self.assertNotIn("\n", answer.reason)
                self.check_absent(server)
                self.assertEqual(self.send(server, SDIST, data).status, 200)
                self.check_stored(server, data)
                self.assertEqual(self.remove(server), 200)

    def test_a_directory_that_cannot_be_synced(self):
        """The file has its name, but may lose it: that is no success."""
        server = self.start()
        with self.inject(server, "fsync", "error=EIO:when=2"):
            answer = self.send(server, SDIST, sdist())
        self.assertEqual(answer.status, 500, answer)
        with self.inject(server, "fsync", "error=EIO:when=1"):
            answer = self.send(server, SDIST, sdist())
        self.assertEqual(answer.status, 500, answer)
        with self.inject(server, "fsync", "error=EIO:when=2"):
            answer = self.send(server, SDIST, sdist())
        self.assertEqual(answer.status, 500, answer)
        self.assertEqual(self.send(server, SDIST, sdist()).status, 200)
        self.check_stored(server, sdist())

    def test_a_disk_that_fails_while_overwriting(self):
        server = self.start("-o", *ANYONE)
        self.assertEqual(self.send(server, SDIST, sdist()).status, 200)
        for calls, error in (("write", "ENOSPC"), ("fsync", "EIO"),
                             (RENAME, "EIO")):
            with self.inject(server, calls, "error=%s:when=1" % error):
                answer = self.send(server, SDIST, sdist(b"new"))
            self.assertIn(answer.status, (500, 507))
            self.check_stored(server, sdist())

    def test_a_disk_that_fails_while_what_is_signed_is_replaced(self):
        """The file that stays keeps its signature, in the same place."""
        archives.put(self.root, SDIST, sdist())
        archives.put(self.root, SDIST + ".asc", b"signed")
        server = self.start("-o", *ANYONE)
        for when in 1, 2:  # of the signature, and of the archive
            with self.inject(server, RENAME, "error=EIO:when=%d" % when):
                answer = self.send(server, SDIST, sdist(b"new"),
                                   gpg_signature=forms.File("x", b"other"))
            self.assertEqual(500, answer.status)
            self.assertEqual(sdist(), self.content(SDIST))
            self.assertEqual(b"signed", self.content(SDIST + ".asc"))
            self.assertEqual(2, len(self.files()))
            self.assertEqual(200, server.get(
                "packages/" + SDIST + ".asc").status)
        self.assertEqual(200, self.send(
            server, SDIST, sdist(b"new"),
            gpg_signature=forms.File("x", b"other")).status)
        self.assertEqual(b"other", self.content(SDIST + ".asc"))

    def test_an_archive_that_is_stored_is_in_the_log(self):
        """Also when its signature is not."""
        server = self.start()
        with self.inject(server, LINK, "error=ENOSPC:when=2"):
            answer = self.send(server, SDIST, sdist(),
                               gpg_signature=forms.File("x", b"signed"))
        self.assertEqual(answer.status, 507, answer)
        self.check_stored(server, sdist())
        self.assertIn("uploaded " + os.path.join(self.root, SDIST) + " ",
                      server.logged())
        self.assertIn("was refused an upload", server.logged())

    def test_a_signature_that_cannot_be_stored(self):
        server = self.start()
        self.assertEqual(self.send(server, SDIST, sdist()).status, 200)
        with self.inject(server, LINK, "error=ENOSPC:when=1"):
            answer = self.send(server, SDIST + ".asc", b"signed")
        self.assertEqual(answer.status, 507, answer)
        self.check_stored(server, sdist())

    def test_races_with_a_slow_disk(self):
        """All of them are checked before the first has its name."""
        server = self.start()
        with self.inject(server, "fsync", "delay_enter=15000"):
            self.check_one_wins([server])
            self.remove(server)
            self.check_all_win([server])

    def test_races_of_two_spellings(self):
        """They are the same release, so the second is refused."""
        server = self.start()
        names = ["demo_pkg-1.0.tar.gz", "Demo.Pkg-1.0.tar.gz",
                 "demo_pkg-1.0.0.tar.gz", "demo-pkg-1.tar.gz"]
        with self.inject(server, "fsync", "delay_enter=300000"):
            answers = self.race([(server, name, sdist()) for name in names])
        self.assertEqual(sorted(answer.status for answer in answers),
                         [200, 409, 409, 409])
        self.assertEqual(len(self.files()), 1, self.files())

    def test_races_of_two_spellings_that_begin_one_after_the_other(self):
        """While one is stored another waits, and a third comes later."""
        server = self.start()
        self.assertEqual(self.send(server, SDIST, sdist()).status, 200)
        self.assertEqual(self.remove(server), 200)
        answers = {}

        def run(filename, version):
            answers[filename] = self.send(
                server, filename, sdist(b"", version)).status
        with self.inject(server, "fsync", "delay_enter=400000"):
            threads = [threading.Thread(target=run, args=arguments)
                       for arguments in (("demo_pkg-0.9.tar.gz", "0.9"),
                                         ("demo_pkg-1.0.tar.gz", "1.0"),
                                         ("Demo.Pkg-1.0.tar.gz", "1.0"))]
            threads[0].start()
            wait_for(lambda: len(self.files()) == 1, "the first is coming")
            threads[1].start()
            threads[0].join()
            threads[2].start()
            for thread in threads[1:]:
                thread.join()
        self.assertEqual(sorted(answers.values()), [200, 200, 409], answers)
        self.assertEqual(len(self.files()), 2, self.files())

    def test_filesystems_without_hard_links(self):
        servers = [self.start(), self.start()]
        with self.inject(servers[0], LINK, "error=EPERM"), \
                self.inject(servers[1], LINK, "error=EOPNOTSUPP"):
            self.check_one_wins(servers)
            self.assertEqual(self.send(
                servers[0], SDIST, sdist(b"x")).status, 409)
            self.remove(servers[0])
            wait_for(lambda: self.listed(servers[1]) == [], "it is gone")
            self.check_all_win(servers)


class Mounted:
    """A filesystem of its own, or a skipped test where that cannot be."""

    def __init__(self, test, *arguments):
        self.test = test
        self.path = os.path.join(test.folder, "mounted")
        os.mkdir(self.path)
        if not hasattr(os, "getuid") or os.getuid():
            test.skipTest("only root may mount")
        if not shutil.which("mount"):
            test.skipTest("no program mount")
        process = subprocess.run(
            ("mount",) + arguments + (self.path,),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)
        if process.returncode:
            test.skipTest("cannot mount: %s" % (
                process.stdout.decode().strip().splitlines() or [""])[0])
        test.addCleanup(subprocess.run, ["umount", "-l", self.path])

    def remount(self, options):
        subprocess.run(["mount", "-o", "remount," + options, self.path],
                       check=True)


class FullDiskTest(FaultTestCase):

    def mount(self, options="size=2m"):
        mounted = Mounted(self, "-t", "tmpfs", "-o", options, "tmpfs")
        self.root = os.path.join(mounted.path, "packages")
        os.mkdir(self.root)
        return mounted

    def send_chunked(self, server, filename, data):
        """Upload without saying how much it will be."""
        _, body = forms.upload(filename, data)
        wire = self.connect(server, head(None) + chunked(
            body, always(60000)))
        status, headers, body = wire.answer()
        return Answer(status, "", headers, body)

    def test_no_space(self):
        self.mount()
        server = self.start()
        self.assertEqual(self.send(server, SDIST, sdist()).status, 200)
        large = wheel_of(5 * 2 ** 20)
        for send in (self.send, self.send_chunked):
            answer = send(server, WHEEL, large)
            self.assertEqual(answer.status, 507, answer)
            self.check_stored(server, sdist())
        # Space is freed, and what was refused is taken.
        wait_for(lambda: shutil.disk_usage(self.root).free > 1.1 * len(NOISE),
                 "space is freed")
        filler = archives.put(self.root, ".filler", NOISE)
        medium = wheel_of(1200000)
        for send in (self.send, self.send_chunked):
            self.assertEqual(send(server, WHEEL, medium).status, 507)
        self.assertEqual(self.files(), [".filler", SDIST])
        os.unlink(filler)
        self.assertEqual(self.send(server, WHEEL, medium).status, 200)
        self.assertEqual(self.files(), sorted([SDIST, WHEEL]))
        self.assertEqual(server.get("packages/" + WHEEL).body, medium)

    def test_no_space_to_overwrite(self):
        self.mount()
        server = self.start("-o", *ANYONE)
        old = wheel_of(1200000, b"old")
        self.assertEqual(self.send(server, WHEEL, old).status, 200)
        for send in (self.send, self.send_chunked):
            answer = send(server, WHEEL, wheel_of(1200000, b"new"))
            self.assertEqual(answer.status, 507, answer)
            self.check_stored(server, old, WHEEL)

    def test_no_inodes(self):
        self.mount("size=2m,nr_inodes=5")
        server = self.start()
        statuses = [self.send(server, "demo_pkg-1.%d.tar.gz" % number, sdist(
            b"", "1.%d" % number)).status for number in range(5)]
        self.assertEqual(statuses[0], 200)
        self.assertEqual(statuses[-1], 507)
        self.assertEqual(len(self.files()), statuses.count(200))
        self.assertEqual(len(self.listed(server)), statuses.count(200))

    def test_a_disk_that_becomes_read_only(self):
        mounted = self.mount()
        server = self.start()
        self.assertEqual(self.send(server, SDIST, sdist()).status, 200)
        mounted.remount("ro")
        answer = self.send(server, WHEEL, wheel_of(1000))
        self.assertEqual(answer.status, 503, answer)
        self.assertIn("not writable", answer.reason)
        self.check_stored(server, sdist())
        mounted.remount("rw")
        self.assertEqual(
            self.send(server, WHEEL, wheel_of(1000)).status, 200)

    def test_a_disk_that_is_read_only_at_the_start(self):
        """It is said to the operator then, not only to who uploads."""
        line = "uploads will fail: the package directory %s is not writable"
        mounted = self.mount()
        for options, expected in ((ANYONE, True), ((), False), (
                ANYONE + ("--read-only",), False)):
            mounted.remount("ro")
            with ServerProcess(self.root, *options) as server:
                self.assertEqual(200, server.get("simple/").status)
                self.assertEqual(expected, line % self.root
                                 in server.logged(), options)
            mounted.remount("rw")
            with ServerProcess(self.root, *options) as server:
                self.assertEqual("", server.logged())


@unittest.skipUnless(os.path.exists("/proc/self/status"),
                     "memory is measured in /proc")
class LargeTest(FaultTestCase):

    def test_memory(self):
        """A file is written while it comes, and never held."""
        size = 100 * 2 ** 20
        data = archives.wheel("demo", "1.0", files={"zeros": bytes(size)},
                              compression=zipfile.ZIP_STORED)
        server = self.start()
        self.assertEqual(
            200, self.send(server, WHEEL, wheel_of(1000)).status)
        process = server.process.pid
        before = memory(process, "VmHWM")
        name = archives.wheel_filename("demo", "1.0")
        self.assertEqual(200, self.send(server, name, data).status)
        # MiB; PyPy lets its garbage lie for a while.
        self.assertLess(memory(process, "VmHWM") - before, 16 if
                        sys.implementation.name == "cpython" else 60)
        self.assertEqual(sorted((WHEEL, name)), self.files())


class FatTest(ParallelTest):
    """A filesystem that has no hard links indeed."""

    def setUp(self):
        super().setUp()
        if not shutil.which("mkfs.vfat"):
            self.skipTest("no program mkfs.vfat")
        image = os.path.join(self.folder, "image")
        with open(image, "wb") as file:
            file.truncate(16 * 2 ** 20)
        subprocess.run(["mkfs.vfat", image], check=True,
                       stdout=subprocess.DEVNULL)
        mounted = Mounted(self, "-t", "vfat", "-o", "loop", image)
        self.root = os.path.join(mounted.path, "packages")
        os.mkdir(self.root)


class SlowDownloadTest(FaultTestCase):

    def test_overwriting_a_file_that_is_being_sent(self):
        """It comes to its end as it began."""
        server = self.start("-o", *ANYONE)
        old, new = (wheel_of(BIG, text) for text in (b"old", b"new"))
        self.assertEqual(self.send(server, WHEEL, old).status, 200)
        wire = Wire(self.address(server), 60)
        self.addCleanup(wire.socket.close)
        wire.send(b"GET /packages/%s HTTP/1.1\r\nHost: a\r\n\r\n"
                  % WHEEL.encode())
        status, headers = wire.head()
        self.assertEqual(status, 200)
        self.assertEqual(self.send(server, WHEEL, new).status, 200)
        self.assertEqual(server.get("packages/" + WHEEL).body, new)
        received = [wire.buffer]
        missing = int(headers["content-length"]) - len(wire.buffer)
        while missing:
            data = wire.socket.recv(2 ** 20)
            self.assertTrue(data, "cut off")
            received.append(data)
            missing -= len(data)
        self.assertEqual(b"".join(received), old)


if __name__ == "__main__":
    unittest.main()
