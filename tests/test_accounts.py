"""Section Accounts: who may, and the commands that decide it."""

import contextlib
import io
import itertools
import os
import re
import stat
import subprocess
import sys
import threading
import unittest
from unittest import mock
from urllib.parse import urlsplit

import pypi_server
from pypi_server import Accounts, UsageError, parse_actions
from tests import archives, forms
from tests.helpers import (
    PROGRAM, SCRIPT, WAYS, DirectoryTestCase, ServerProcess, ask, call,
    names_in, wait_for,
)

try:
    import pty
except ImportError:  # Windows
    pty = None

WHEEL = "demo_pkg-1.0-py3-none-any.whl"
SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="  # of "secret", as the others
APR1 = "$apr1$62hlEIbK$utJrIUBiL0k8mUVC74gCf."
BCRYPT = "$2y$12$9sG/BzAPvCogpoG3sJKVyOJW/K4y96xDdTDLud8En91TWY/z3Dfxu"
UNKNOWN = "$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA"
JOE = forms.credentials("joe", "secret")
WRONG = forms.credentials("joe", "wrong")
NOBODY = forms.credentials("nobody", "secret")


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def run(*arguments, program=PROGRAM, **options):
    """Run the script; return (status, output, errors)."""
    process = subprocess.run(
        (sys.executable, "-W", "error") + program + arguments,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, **options)
    return (process.returncode, process.stdout.decode("utf-8", "replace"),
            process.stderr.decode("utf-8", "replace"))


ACTIONS = "download", "list", "update"
SUBSETS = [subset for size in range(1, 4)
           for subset in itertools.combinations(ACTIONS, size)]
REFUSED = ("", ",", " ", "nonsense", "update,nonsense", ".,update",
           "update,.", "..", "download;list", "download list", "up date",
           "updates", "-", "*", "all", "none")


class ActionsTest(unittest.TestCase):
    """The texts that -a takes."""

    def test_every_combination_in_any_order(self):
        for subset in SUBSETS:
            for order in itertools.permutations(subset):
                for text in (",".join(order), ", ".join(order),
                             " %s " % " , ".join(order).upper(),
                             ",".join(order).title(),
                             ",".join(order + order), ",".join(order) + ","):
                    with self.subTest(text=text):
                        self.assertEqual(parse_actions(text), subset)

    def test_none(self):
        for text in (".", " . ", ".,", ".,."):
            self.assertEqual(parse_actions(text), ())

    def test_refused(self):
        for text in REFUSED:
            with self.subTest(text=text):
                with self.assertRaises(UsageError) as caught:
                    parse_actions(text)
                for action in ACTIONS:
                    self.assertIn(action, str(caught.exception))


class CommandLineTest(DirectoryTestCase):

    def setUp(self):
        super().setUp()
        self.users = write(os.path.join(self.folder, "users"),
                           "joe:%s\n" % SHA)

    def test_combinations_that_cannot_be_meant(self):
        """Each is refused with what to write instead."""
        missing = os.path.join(self.folder, "missing")
        table = (
            (("-a", "."), "-P ."),
            (("-P", "."), "-a . -P ."),
            (("-a", "update", "-P", "."), "-a . -P ."),
            (("-a", "download", "-P", "."), "-a . -P ."),
            (("-a", "download,list,update", "-P", "."), "-a . -P ."),
            (("-a", ".", "-P", self.users), "-a"),
            (("-a", "download"), "-P FILE"),
            (("-a", "list"), "-P FILE"),
            (("-a", "list,update"), "-P FILE"),
            (("-a", "nonsense", "-P", self.users), "update"),
            (("-a", "", "-P", self.users), "update"),
            (("-P", missing), missing),
            (("-P", self.folder), self.folder),
        )
        for arguments, words in table:
            with self.subTest(arguments=arguments):
                with self.assertRaises(UsageError) as caught:
                    self.start(*arguments)
                self.assertIn(words, str(caught.exception))

    def start(self, *arguments):
        """Make an application as the command line would."""
        found = vars(pypi_server.make_parser().parse_args(
            ("run",) + arguments + (self.root,)))
        del found["command"]
        return pypi_server.make_app(pypi_server.Config(**found))

    def test_a_combination_that_is_refused_ends_with_status_2(self):
        for arguments in (("-a", "."), ("-a", "x"), ("-P", "missing")):
            status, output, errors = run(
                "run", "-p", "0", *arguments + (self.root,))
            self.assertEqual(status, 2, errors)
            self.assertEqual(output, "")
            self.assertRegex(errors, r"\Apypi-server: error: .+\n\Z")

    def test_combinations_that_start(self):
        table = (
            # arguments, status of a GET, an upload, and one with account
            ((), 200, 403, 403),
            (("-a", "update"), 200, 403, 403),
            (("-a", ".", "-P", "."), 200, 400, 400),
            (("-P", self.users), 200, 401, 400),
            (("-a", " LIST , Download", "-P", self.users), 401, 400, 400),
        )
        for arguments, page, upload, known in table:
            with self.subTest(arguments=arguments):
                with ServerProcess(*arguments + (self.root,)) as server:
                    headers, body = forms.post([(":action", "nonsense")])
                    self.assertEqual(server.get("simple/").status, page)
                    self.assertEqual(
                        self.post(server, headers, body), upload)
                    self.assertEqual(self.post(
                        server, dict(headers, **JOE), body), known)

    @staticmethod
    def post(server, headers, body):
        address = urlsplit(server.url)
        return ask(address.hostname, address.port, "POST", "/", headers,
                   body).status

    def test_without_accounts_the_answer_says_how_to_get_them(self):
        app = self.make_app()
        headers, body = forms.upload(WHEEL, archives.wheel("demo-pkg", "1.0"))
        answer = call(app, "POST", "/", dict(headers, **JOE), body)
        self.assertEqual(answer.status, 403)
        self.assertIn("-P FILE", answer.reason)
        self.assertEqual(names_in(self.root), [])

    def test_a_password_file_that_is_not_utf_8(self):
        """Apache reads bytes: a comment is no reason not to start."""
        with open(self.users, "ab") as file:
            file.write(b"# J\xf6rg left\nJ\xf6rg:{SHA}x\n")
        with ServerProcess("-a", "list", "-P", self.users,
                           self.root) as server:
            self.assertEqual(server.get("simple/", JOE).status, 200)
            self.assertEqual(server.get("simple/").status, 401)


def examples(route):
    """Return targets for which a route is taken."""
    target = route.pattern.replace("{location:path}", WHEEL) \
        .replace("{project}", "demo-pkg").replace("{version}", "1.0")
    return {target.replace("[/]", "/"), target.replace("[/]", "")} - {""}


class ProtectionTest(DirectoryTestCase):
    """What -a protects, it protects on every route."""

    def setUp(self):
        super().setUp()
        self.users = write(os.path.join(self.folder, "users"),
                           "joe:%s\n" % SHA)
        app = self.make_app(authenticated=(), password_file=".")
        headers, body = forms.upload(WHEEL, archives.wheel("demo-pkg", "1.0"))
        self.assertEqual(call(app, "POST", "/", headers, body).status, 200)
        app.directories.reader.cache.flush()

    def requests(self):
        """Yield (route, method, target, headers) for every route."""
        for route in pypi_server.ROUTES:
            headers = {}
            if route.method == "POST":
                headers["Content-Type"] = route.consumes \
                    or forms.content_type()
            for target in examples(route):
                yield route, route.method, target, headers
                if route.method == "GET":
                    yield route, "HEAD", target, headers

    def test_every_route_under_every_combination(self):
        for subset in SUBSETS:
            app = self.make_app(authenticated=subset,
                                password_file=self.users)
            for route, method, target, headers in self.requests():
                with self.subTest(subset=subset, method=method,
                                  target=target, type=headers):
                    self.check(app, method, target, headers,
                               route.action in subset)

    def check(self, app, method, target, headers, is_protected, way=call):
        answers = [way(app, method, target, dict(headers, **extra))
                   for extra in ({}, WRONG, NOBODY)]
        for answer in answers:
            self.assertEqual(answer.status == 401, is_protected, answer)
        if not is_protected:
            return
        for answer in answers:
            self.assertTrue(answer.headers["www-authenticate"].startswith(
                'Basic realm="pypi"'))
            for name in ("date", "connection"):
                answer.headers.pop(name, None)
        # Missing and wrong look alike, to the byte.
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(answers[0], answers[2])
        answer = way(app, method, target, dict(headers, **JOE))
        self.assertNotIn(answer.status, (401, 403))

    def test_every_way_into_the_application(self):
        app = self.make_app(authenticated=ACTIONS, password_file=self.users)
        for way in WAYS:
            for method, target in (
                    ("GET", "/simple/"), ("GET", "/packages/" + WHEEL),
                    ("POST", "/legacy/"), ("POST", "/RPC2")):
                headers = {"Content-Type": forms.content_type() if
                           target == "/legacy/" else "text/xml"}
                with self.subTest(way=way.__name__, target=target):
                    self.check(app, method, target, headers, True, way)

    def test_a_function_in_place_of_a_password_file(self):
        config = pypi_server.Config(
            roots=(self.root,), authenticated=("list",),
            cache_dir=os.path.join(self.folder, "cache"),
            auther=lambda user, password: (user, password) == ("a", "b:c"))
        app = pypi_server.make_app(config)
        self.addCleanup(app.warmer.stop)
        for headers, status in ((forms.credentials("a", "b:c"), 200),
                                (JOE, 401), ({}, 401)):
            self.assertEqual(
                call(app, "GET", "/simple/", headers).status, status)

    def test_what_is_not_there_is_not_told_to_strangers(self):
        app = self.make_app(authenticated=ACTIONS, password_file=self.users,
                            disable_fallback=True)
        for target in ("/simple/nosuch/", "/simple/nosuch", "/nosuch/json",
                       "/packages/nosuch-1.0.tar.gz", "/pypi/nosuch/json",
                       "/packages/%s.metadata" % WHEEL.replace("1", "2"),
                       "/packages/%s.asc" % WHEEL):
            with self.subTest(target=target):
                for headers in ({}, WRONG):
                    self.assertEqual(
                        call(app, "GET", target, headers).status, 401)
                self.assertIn(
                    call(app, "GET", target, JOE).status, (404, 302))

    def test_the_fallback_is_not_for_strangers(self):
        """A private name must not leave through a redirect either."""
        app = self.make_app(authenticated=("list",),
                            password_file=self.users)
        self.assertEqual(call(app, "GET", "/simple/private/").status, 401)

    def test_health_and_home_are_for_everybody(self):
        app = self.make_app(authenticated=ACTIONS, password_file=self.users)
        for target in ("/health", "/favicon.ico"):
            self.assertEqual(call(app, "GET", target).status, 200)

    def test_credentials_that_nobody_needs_are_not_looked_at(self):
        app = self.make_app(authenticated=("update",),
                            password_file=self.users)
        for headers in (WRONG, NOBODY, {"Authorization": "Basic \xfc"},
                        {"Authorization": "nonsense"}):
            self.assertEqual(
                call(app, "GET", "/simple/", headers).status, 200)


# user, password; the credentials are sent in both codings
PAIRS = (("joe", "secret"), ("J\xf6rg", "p\xe4ssw\xf6rd"), ("col", "a:b:"),
         ("spaces in name", " x "), ("\u4e2d", "\u20ac" * 9),
         ("long", "x" * 512), ("__token__", "pypi-AgEI"))
DENIED = (
    forms.credentials("joe", ""), forms.credentials("", ""),
    forms.credentials("", "secret"), forms.credentials("joe", "secret\0"),
    forms.credentials("joe\0", "secret"), forms.credentials("JOE", "secret"),
    forms.credentials("joe ", "secret"), forms.credentials("joe", "secret "),
    forms.credentials("joe", "x" * 40000), forms.credentials("joe:", "secret"),
    forms.credentials("#joe", "secret"), forms.credentials("joe", SHA),
    {"Authorization": ""}, {"Authorization": "Basic"},
    {"Authorization": "Basic !"}, {"Authorization": "Basic \xe4"},
    {"Authorization": "Bearer secret"}, {"Authorization": "joe:secret"},
    {"X-Authorization": JOE["Authorization"]},
)


class CredentialsTest(DirectoryTestCase):

    def setUp(self):
        super().setUp()
        users = "".join("%s:%s\n" % (user, pypi_server.md5_crypt(
            password.encode("utf-8"), "salt", "$apr1$"))
            for user, password in PAIRS)
        self.app = self.make_app(
            authenticated=("list",), password_file=write(
                os.path.join(self.folder, "users"), users))

    def test_pairs(self):
        for way in WAYS:
            for user, password in PAIRS:
                for coding in ("utf-8", "latin-1"):
                    with self.subTest(way=way.__name__, user=user,
                                      coding=coding):
                        try:
                            headers = forms.credentials(
                                user, password, coding)
                        except UnicodeEncodeError:
                            continue
                        self.assertEqual(way(
                            self.app, "GET", "/simple/", headers).status, 200)
                        headers = forms.credentials(user, password + "x")
                        self.assertEqual(way(
                            self.app, "GET", "/simple/", headers).status, 401)

    def test_denied(self):
        for headers in DENIED:
            with self.subTest(headers=str(headers)[:99]):
                self.assertEqual(call(
                    self.app, "GET", "/simple/", headers).status, 401)

    def test_a_file_that_was_made_in_latin_1(self):
        """Old tools hashed what the terminal sent them."""
        path = write(os.path.join(self.folder, "old"), "joe:%s\n" % (
            pypi_server.md5_crypt("p\xe4ss".encode("latin-1"), "salt",
                                  "$apr1$")))
        accounts = Accounts(path)
        self.assertTrue(accounts.check("joe", "p\xe4ss"))
        self.assertFalse(accounts.check("joe", "p?ss"))


class PasswordFileTest(DirectoryTestCase):
    """The file may change at any time, in any way."""

    def setUp(self):
        super().setUp()
        self.path = write(os.path.join(self.folder, "users"),
                          "joe:%s\njim:%s\n" % (SHA, APR1))

    def server(self, *arguments, **options):
        server = ServerProcess("-a", "list", "-P", self.path, self.root,
                               *arguments, **options)
        server.__enter__()
        self.addCleanup(server.stop)
        return server

    @staticmethod
    def said(server):
        """Stop a server; return all that it has logged but failed logins."""
        server.stop()
        return "".join(line for line in server.output.splitlines(True)
                       if "failed to log in" not in line)

    def test_changes_count_from_the_next_request_on(self):
        server = self.server()

        def statuses():
            return [server.get("simple/", forms.credentials(
                user, "secret")).status for user in ("joe", "jim", "eve")]
        self.assertEqual(statuses(), [200, 200, 401])
        write(self.path, "joe:%s\n" % SHA)
        self.assertEqual(statuses(), [200, 401, 401])
        with open(self.path, "a") as file:
            file.write("eve:%s\n" % SHA)
        self.assertEqual(statuses(), [200, 401, 200])
        os.replace(write(self.path + ".new", "eve:%s\n" % APR1), self.path)
        self.assertEqual(statuses(), [401, 401, 200])
        # The size and the time of modification tell nothing.
        before = os.stat(self.path)
        write(self.path, "jim:%s\n" % APR1)
        os.utime(self.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.assertEqual(os.stat(self.path).st_size, before.st_size)
        self.assertEqual(statuses(), [401, 200, 401])
        self.assertEqual(self.said(server), "")

    def test_many_changes_within_one_second(self):
        accounts = Accounts(self.path)
        for number in range(100):
            digest = pypi_server.md5_crypt(
                b"%d" % number, "salt", "$apr1$")
            write(self.path, "joe:%s\n" % digest)
            self.assertTrue(accounts.check("joe", str(number)), number)
            self.assertFalse(accounts.check("joe", str(number - 1)), number)

    def test_a_file_that_is_removed_locks_out(self):
        server = self.server()
        self.assertEqual(server.get("simple/", JOE).status, 200)
        os.rename(self.path, self.path + ".away")
        for _ in range(5):
            self.assertEqual(server.get("simple/", JOE).status, 401)
            self.assertEqual(server.get("simple/").status, 401)
        # What needs no account goes on.
        self.assertEqual(server.get("").status, 200)
        self.assertEqual(server.get("health").status, 200)
        wait_for(lambda: server.logged().count(self.path) == 1,
                 "it is said once")
        os.rename(self.path + ".away", self.path)
        self.assertEqual(server.get("simple/", JOE).status, 200)
        os.unlink(self.path)
        self.assertEqual(server.get("simple/", JOE).status, 401)
        log = self.said(server)
        self.assertEqual(log.count(self.path), 2, log)
        self.assertNotIn("Traceback", log)

    def test_a_directory_in_its_place_locks_out(self):
        server = self.server()
        os.unlink(self.path)
        os.mkdir(self.path)
        self.assertEqual(server.get("simple/", JOE).status, 401)
        self.assertEqual(server.get("simple/", JOE).status, 401)
        self.assertRegex(self.said(server), r"\A[^\n]+\n\Z")

    def test_an_editor_in_the_middle_of_it(self):
        """A file that an editor has begun to write is not taken for whole.
        """
        accounts = Accounts(self.path)
        whole = "eve:%s\njoe:%s\n" % (SHA, SHA)
        self.assertTrue(accounts.check("joe", "secret"))
        for end in (0, 3, 8, 20, len(whole) - 2):
            write(self.path, whole[:end])
            self.assertTrue(accounts.check("joe", "secret"), end)
        write(self.path, whole)
        self.assertTrue(accounts.check("eve", "secret"))

    def test_malformed_lines_are_skipped_and_named(self):
        write(self.path, "garbage\njoe:%s\n\njim:plain\n:\njoe:%s\n" % (
            SHA, APR1))
        server = self.server()
        self.assertEqual(server.get("simple/", JOE).status, 200)
        self.assertEqual(server.get("simple/", forms.credentials(
            "jim", "plain")).status, 401)
        time_of = os.stat(self.path).st_mtime_ns
        os.utime(self.path, ns=(time_of, time_of + 1))
        server.get("simple/", JOE)
        log = self.said(server)
        for number in (1, 4, 5, 6):  # each once, not at every request
            self.assertEqual(
                len(re.findall(r"\bline %d\b" % number, log)), 1, log)
        for number in (2, 3):
            self.assertNotRegex(log, r"\bline %d\b" % number)
        self.assertIn(self.path, log)
        self.assertNotIn("plain\n", log)

    def test_a_file_of_windows(self):
        with open(self.path, "wb") as file:
            file.write(b"\xef\xbb\xbfjoe:%s\r\njim:%s\r\n" % (
                SHA.encode(), APR1.encode()))
        accounts = Accounts(self.path)
        self.assertTrue(accounts.check("joe", "secret"))
        self.assertTrue(accounts.check("jim", "secret"))

    def test_an_empty_file_lets_nobody_in(self):
        write(self.path, "")
        accounts = Accounts(self.path)
        for pair in (("joe", "secret"), ("", ""), ("joe", "")):
            self.assertFalse(accounts.check(*pair))

    def test_a_hash_that_cannot_be_verified_is_named_at_start(self):
        write(self.path, "joe:%s\nann:%s\n" % (SHA, UNKNOWN))
        server = self.server()
        wait_for(lambda: "'ann'" in server.logged(), "she is named")
        self.assertEqual(server.get("simple/", JOE).status, 200)
        for _ in range(2):
            self.assertEqual(server.get("simple/", forms.credentials(
                "ann", "secret")).status, 401)
        log = self.said(server)
        self.assertEqual(log.count("'ann'"), 1, log)
        self.assertIn("passwd", log)
        self.assertNotIn("'joe'", log)

    def test_a_passlib_that_is_broken_does_not_stop_the_start(self):
        """passlib 1.7.4 fails at import with bcrypt 5."""
        write(self.path, "joe:%s\nann:%s\n" % (SHA, UNKNOWN))
        for code in ("raise ValueError('bcrypt 5')\n", "def\n",
                     "import nonexistent_module\n"):
            with self.subTest(code=code):
                folder = os.path.join(self.folder, "modules")
                os.makedirs(os.path.join(folder, "passlib"), exist_ok=True)
                write(os.path.join(folder, "passlib", "__init__.py"), code)
                server = self.server(environment={
                    "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"})
                self.assertEqual(server.get("simple/", JOE).status, 200)
                self.assertEqual(server.get("simple/", forms.credentials(
                    "ann", "secret")).status, 401)
                log = self.said(server)
                self.assertIn("'ann'", log)
                self.assertNotIn("Traceback", log)

    def test_passlib_verifies_what_the_system_does_not(self):
        """Any module of that name and interface: here one of ten lines."""
        write(self.path, "ann:$2z$secret\n")
        folder = os.path.join(self.folder, "modules")
        os.makedirs(os.path.join(folder, "passlib"))
        write(os.path.join(folder, "passlib", "__init__.py"), "")
        write(os.path.join(folder, "passlib", "hash.py"), (
            "class bcrypt:\n"
            "    @staticmethod\n"
            "    def verify(password, digest):\n"
            "        return password == digest[4:].encode()\n"))
        server = self.server(environment={"PYTHONPATH": folder})
        for password, status in (("secret", 200), ("wrong", 401)):
            self.assertEqual(server.get("simple/", forms.credentials(
                "ann", password)).status, status)
        self.assertEqual(self.said(server), "")

    def test_passwords_are_in_no_log(self):
        write(self.path, "joe:%s\n" % SHA)
        server = self.server("-v", "-v", "--log-req-frmt", "%s",
                             "--log-res-frmt", "%s", "--log-err-frmt", "%s",
                             "--log-file", os.path.join(self.folder, "log"))
        wrong = forms.credentials("joe", "wr0ng-passw0rd")
        for headers in (JOE, wrong, {"Authorization": "Basic !wr0ng"},
                        {"Authorization": "wr0ng"}):
            server.get("simple/", headers)
        log = self.said(server)
        with open(os.path.join(self.folder, "log")) as file:
            log += file.read()
        self.assertGreaterEqual(log.count("401"), 6)
        for word in ("secret", "wr0ng", JOE["Authorization"][6:],
                     wrong["Authorization"][6:], SHA[5:]):
            self.assertNotIn(word, log)


class CountingAccounts(Accounts):
    """Counts the hashes that are computed, by the hash compared with."""

    def __init__(self, path):
        super().__init__(path)
        self.asked = []

    def verify(self, password, digest):
        self.asked.append(digest)
        return super().verify(password, digest)


class GuessTest(DirectoryTestCase):

    def setUp(self):
        super().setUp()
        self.accounts = CountingAccounts(write(
            os.path.join(self.folder, "users"),
            "joe:%s\njim:%s\n" % (APR1, SHA)))

    def test_unknown_users_cost_a_hash_as_well(self):
        """So the time that an answer takes does not tell who exists."""
        for user in ("nobody", "", "\xfc"):
            self.assertFalse(self.accounts.check(user, "secret"))
        self.assertEqual(len(self.accounts.asked), 3)

    def test_unknown_users_cost_as_much_as_some_user(self):
        """Also where users have hashes of different costs."""
        names = ["x%d" % number for number in range(60)]
        for name in names:
            self.accounts.check(name, "a")
        self.assertEqual({APR1, SHA}, set(self.accounts.asked))
        first = list(self.accounts.asked)
        for name in names:  # the same each time, as for who is known
            self.accounts.check(name, "b")
        self.assertEqual(first, self.accounts.asked[60:])

    def test_each_pair_costs_one_hash(self):
        for _ in range(9):
            self.assertTrue(self.accounts.check("joe", "secret"))
            self.assertFalse(self.accounts.check("joe", "wrong"))
            self.assertFalse(self.accounts.check("jim", "wrong"))
        self.assertEqual(len(self.accounts.asked), 3)

    def test_a_changed_line_costs_another(self):
        self.assertTrue(self.accounts.check("joe", "secret"))
        write(self.accounts.path, "joe:%s\n" % SHA)
        self.assertTrue(self.accounts.check("joe", "secret"))
        self.assertEqual(self.accounts.asked, [APR1, SHA])

    def test_what_cannot_be_a_password_costs_nothing(self):
        for password in ("x" * 5000, "\u20ac" * 2000, "secret\0"):
            self.assertFalse(self.accounts.check("joe", password))
        self.assertEqual(self.accounts.asked, [])

    def test_passwords_are_not_kept(self):
        self.assertTrue(self.accounts.check("joe", "secret"))
        kept = repr(vars(self.accounts)) + repr(vars(self.accounts.pairs))
        self.assertNotIn("secret", kept)


def cpu_seconds(process):
    """Return the processor time that a process has used."""
    with open("/proc/%d/stat" % process.pid) as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class CostTest(DirectoryTestCase):
    """A slow hash costs those who do not know the password."""

    def setUp(self):
        super().setUp()
        crypt = pypi_server.system_crypt()
        if not crypt or not crypt(b"x", BCRYPT.replace(
                "$12$", "$04$").encode()).startswith(b"$2y$"):
            self.skipTest("crypt(3) of this system does not know bcrypt")
        users = write(os.path.join(self.folder, "users"),
                      "joe:%s\n" % BCRYPT)
        self.server = ServerProcess("-a", "list", "-P", users, self.root)
        self.server.__enter__()
        self.addCleanup(self.server.stop)

    def test_a_pair_is_hashed_once(self):
        if not os.path.exists("/proc/self/stat"):
            self.skipTest("no /proc to read processor times from")
        for _ in range(30):  # PyPy compiles meanwhile
            self.assertEqual(self.server.get("simple/").status, 401)
        times = [cpu_seconds(self.server.process)]
        for count in (1, 40):
            for _ in range(count):
                self.assertEqual(
                    self.server.get("simple/", JOE).status, 200)
            times.append(cpu_seconds(self.server.process))
        first, others = times[1] - times[0], times[2] - times[1]
        self.assertGreater(first, 0.05)
        self.assertLess(others, 40 * first / 4)

    def test_a_flood_of_wrong_passwords_stops_nobody(self):
        """Those whose password is known do not wait behind those who guess.

        Counted in guesses, since each takes the same time on any machine.
        """
        self.assertEqual(self.server.get("simple/", JOE).status, 200)
        guesses, ending = [], threading.Event()

        def guess(thread):
            for number in itertools.count():
                if ending.is_set():
                    return
                guesses.append(self.server.get("simple/", forms.credentials(
                    "joe" if number % 2 else "nobody",
                    "%d-%d" % (thread, number))).status)
        threads = [threading.Thread(target=guess, args=(number,))
                   for number in range(6)]
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: guesses, "a first guess", 60)
            before = len(guesses)
            for _ in range(20):
                self.assertEqual(self.server.get("").status, 200)
                self.assertEqual(
                    self.server.get("simple/", JOE).status, 200)
            meanwhile = len(guesses) - before
        finally:
            ending.set()
            for thread in threads:
                thread.join()
        self.assertLess(meanwhile, 20)
        self.assertLessEqual(set(guesses), {401, 503})


class TurnsTest(unittest.TestCase):
    def test_who_gives_up_keeps_nobody_from_a_free_place(self):
        turns = pypi_server.Turns(1)
        # Its turn has come, but it does not run yet.
        turns.waiting["a"] = [object()]
        served = threading.Event()

        def work(client):
            with contextlib.suppress(pypi_server.HTTPError):
                with turns.take(client):
                    served.set()
        with mock.patch.object(pypi_server, "LOGIN_PATIENCE", 60):
            behind = threading.Thread(target=work, args=("b",), daemon=True)
            behind.start()
            wait_for(lambda: "b" in turns.waiting, "it waits")
        self.assertFalse(served.is_set())
        with mock.patch.object(pypi_server, "LOGIN_PATIENCE", 0):
            work("a")
        self.assertTrue(served.wait(10))
        behind.join()


class PasswdTest(DirectoryTestCase):
    """The command that writes password files."""

    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.folder, "users")

    def passwd(self, *arguments, typed="secret\n", **options):
        """Run the command, the password on standard input."""
        return run("passwd", *(arguments or (self.path, "joe")),
                   input=typed.encode("utf-8"), **options)

    def passwd_here(self, name="joe", typed="secret\n"):
        """Run the command in this process, which is faster."""
        before, errors = sys.stdin, io.StringIO()
        sys.stdin = io.TextIOWrapper(
            io.BytesIO(typed.encode("utf-8")), "utf-8")
        try:
            with contextlib.redirect_stderr(errors), \
                    contextlib.redirect_stdout(errors):
                status = pypi_server.main(["passwd", "--", self.path, name])
        finally:
            sys.stdin = before
        return status, errors.getvalue()

    def content(self):
        with open(self.path, "rb") as file:
            return file.read()

    def check(self, user="joe", password="secret"):
        self.assertTrue(Accounts(self.path).check(user, password))
        self.assertFalse(Accounts(self.path).check(user, password + "x"))

    def test_a_new_file_is_private(self):
        before = os.umask(0)
        try:
            self.assertEqual(self.passwd()[0], 0)
        finally:
            os.umask(before)
        self.check()
        if os.name != "nt":
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertRegex(self.content(), rb"\Ajoe:\$6\$\S+\n\Z")
        self.assertEqual(sorted(os.listdir(self.folder)),
                         ["packages", "users"])

    def test_passwords_from_standard_input(self):
        for typed, password in (
                ("secret", "secret"), ("secret\n", "secret"),
                ("secret\r\n", "secret"), ("a:b \n", "a:b "),
                ("p\xe4ss\u20ac\n", "p\xe4ss\u20ac"), ("one\ntwo\n", "one"),
                ("x" * 512 + "\n", "x" * 512)):
            with self.subTest(typed=typed[:20]):
                status, output = self.passwd_here(typed=typed)
                self.assertEqual(status, 0, output)
                self.assertNotIn(password, output)
                self.check("joe", password)

    def test_passwords_in_a_plain_locale(self):
        """What the terminal sends is UTF-8, whatever LANG says."""
        status, _, errors = self.passwd(
            typed="p\xe4ss\n", program=(SCRIPT,),
            env=dict(os.environ, LC_ALL="C"))
        self.assertEqual(status, 0, errors)
        self.check("joe", "p\xe4ss")

    def test_passwords_that_are_refused(self):
        for typed in ("", "\n", "\r\n", "a\0b\n", "x" * 4097 + "\n"):
            with self.subTest(typed=typed[:9]):
                status, errors = self.passwd_here(typed=typed)
                self.assertEqual(status, 2, errors)
                self.assertFalse(os.path.exists(self.path))

    def test_names_that_are_refused(self):
        """They could not be read back as that user."""
        for name in ("", "a:b", ":", "a\nb", "a\rb", "#joe", " joe", "joe ",
                     " ", "\tjoe", "\ufeffjoe", "a\x0cb", "a\u2028b", "\x7f"):
            with self.subTest(name=name):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path)
                status, errors = self.passwd_here(name)
                self.assertEqual(status, 2, errors)
                self.assertIn("user name", errors)
                self.assertFalse(os.path.exists(self.path))

    def test_names_that_are_taken(self):
        for name in ("joe", "J\xf6rg", "joe doe", "joe@example.org", "-joe",
                     "\u4e2d", "__token__", "joe#1"):
            with self.subTest(name=name):
                status, errors = self.passwd_here(name)
                self.assertEqual(status, 0, errors)
                self.check(name)

    def test_names_beyond_ascii_from_the_command_line(self):
        status, _, errors = self.passwd(self.path, "J\xf6rg \u4e2d")
        self.assertEqual(status, 0, errors)
        self.check("J\xf6rg \u4e2d")

    LINES = [b"\xef\xbb\xbf# caf\xe9\x0c, \xe2\x80\xa8 and \x85\r\n",
             b"\r\n", b"  jim:%s:Jim:x  \r\n" % APR1.encode(),
             b"garbage \xff\n", b"\n", b"#joe:off\n",
             b"joe:{SHA}old\r\n", b"joey:{SHA}x\n", b"last:{SHA}x"]

    def put_lines(self):
        with open(self.path, "wb") as file:
            file.write(b"".join(self.LINES))

    def test_other_lines_stay_as_they_are_to_the_byte(self):
        self.put_lines()
        self.assertEqual(self.passwd()[0], 0)
        found = self.content().split(b"\n")
        expected = b"".join(self.LINES).split(b"\n")
        self.assertEqual(found[:6], expected[:6])
        self.assertEqual(found[7:9], expected[7:])
        self.assertRegex(found[6], rb"\Ajoe:\$6\$\S+\r?\Z")
        self.check()

    def test_a_new_user_comes_last(self):
        self.put_lines()
        self.assertEqual(self.passwd(self.path, "ann")[0], 0)
        before = b"".join(self.LINES) + b"\n"
        self.assertEqual(self.content()[:len(before)], before)
        self.assertRegex(self.content()[len(before):],
                         rb"\Aann:\$6\$\S+\n\Z")
        self.check("ann")

    def test_removing_a_user(self):
        self.put_lines()
        status, output, errors = self.passwd("-D", self.path, "joe", typed="")
        self.assertEqual((status, errors), (0, ""))
        lines = self.LINES[:6] + self.LINES[7:]
        self.assertEqual(self.content().rstrip(b"\n"),
                         b"".join(lines))

    def test_removing_nobody(self):
        self.put_lines()
        for name in ("nobody", "#joe", "JOE", "jo"):
            status, _, errors = self.passwd("-D", self.path, name, typed="")
            self.assertEqual(status, 2, name)
            self.assertIn(repr(name), errors)
            self.assertEqual(self.content(), b"".join(self.LINES))
        os.unlink(self.path)
        status, _, errors = self.passwd("-D", self.path, "joe", typed="")
        self.assertEqual(status, 2)
        self.assertFalse(os.path.exists(self.path))

    def test_all_lines_of_a_user_go(self):
        """Else an older password would count again."""
        write(self.path, "joe:{SHA}x\njim:{SHA}y\njoe:%s\n" % SHA)
        self.assertEqual(self.passwd(typed="new\n")[0], 0)
        self.assertEqual(self.content().count(b"joe:"), 1)
        self.check("joe", "new")
        self.assertEqual(self.passwd("-D", self.path, "joe", typed="")[0], 0)
        self.assertEqual(self.content(), b"jim:{SHA}y\n")

    def test_a_user_behind_a_byte_order_mark(self):
        with open(self.path, "wb") as file:
            file.write(b"\xef\xbb\xbfjoe:{SHA}x\r\n")
        self.assertEqual(self.passwd()[0], 0)
        self.check()
        self.assertEqual(self.passwd("-D", self.path, "joe", typed="")[0], 0)
        self.assertFalse(Accounts(self.path).check("joe", "secret"))

    def test_the_file_is_replaced_in_one_step(self):
        write(self.path, "jim:%s\n" % SHA)
        os.chmod(self.path, 0o640)
        before = os.stat(self.path)
        with open(self.path, "rb") as reader:
            self.assertEqual(self.passwd()[0], 0)
            self.assertEqual(reader.read(), b"jim:%s\n" % SHA.encode())
        after = os.stat(self.path)
        if os.name != "nt":
            self.assertNotEqual(after.st_ino, before.st_ino)
            self.assertEqual(stat.S_IMODE(after.st_mode), 0o640)
        self.assertEqual(sorted(os.listdir(self.folder)),
                         ["packages", "users"])

    def test_the_file_keeps_its_owner(self):
        """Root changes a password; the server must still read the file."""
        if not hasattr(os, "getuid") or os.getuid():
            self.skipTest("only root may give files away")
        write(self.path, "jim:%s\n" % SHA)
        os.chown(self.path, 65534, 65533)
        self.assertEqual(self.passwd()[0], 0)
        found = os.stat(self.path)
        self.assertEqual((found.st_uid, found.st_gid), (65534, 65533))

    def test_a_link_stays_one(self):
        write(self.path, "jim:%s\n" % SHA)
        link = os.path.join(self.folder, "link")
        os.symlink("users", link)
        self.assertEqual(self.passwd(link, "joe")[0], 0)
        self.assertEqual(os.readlink(link), "users")
        self.check()
        self.check("jim")

    def test_files_that_cannot_be_written(self):
        for path in (self.root, os.path.join(self.folder, "no", "users")):
            status, _, errors = self.passwd(path, "joe")
            self.assertEqual(status, 2, errors)
            self.assertIn(path, errors)
            self.assertNotIn("Traceback", errors)

    def test_leftovers_of_another_process_do_not_matter(self):
        """Whatever number this process has: in a container always the same.
        """
        write(self.path, "jim:%s\n" % SHA)
        process = subprocess.Popen(
            [sys.executable, SCRIPT, "passwd", self.path, "joe"],
            stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        write("%s.%d.tmp" % (self.path, process.pid), "")
        _, errors = process.communicate(b"secret\n", timeout=60)
        self.assertEqual(process.returncode, 0, errors)
        self.check()


@unittest.skipUnless(pty, "no terminals on this system")
class TerminalTest(DirectoryTestCase):
    """The same, asked on a terminal."""

    LAUNCHER = ("import fcntl, os, sys, termios\n"
                "os.setsid()\n"
                "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
                "os.execv(sys.argv[1], sys.argv[1:])\n")

    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.folder, "users")

    def dialog(self, *typed):
        """Answer each question; return (status, all that was shown)."""
        here, there = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", self.LAUNCHER, sys.executable, "-W",
             "error", SCRIPT, "passwd", self.path, "joe"],
            stdin=there, stdout=there, stderr=there)
        os.close(there)
        shown = b""
        questions = 0
        with contextlib.suppress(OSError):  # the end of a terminal
            while True:
                data = os.read(here, 1000)
                if not data:
                    break
                shown += data
                if shown.count(b": ") > questions < len(typed):
                    os.write(here, typed[questions].encode("utf-8") + b"\n")
                    questions += 1
        os.close(here)
        return process.wait(60), shown.decode("utf-8")

    def test_the_password_is_asked_twice_without_echo(self):
        for password in ("secret", "p\xe4ss \u20ac"):
            status, shown = self.dialog(password, password)
            self.assertEqual(status, 0, shown)
            self.assertNotIn(password, shown)
            self.assertEqual(shown.count(": "), 2, shown)
            self.assertIn("joe", shown)
            self.assertTrue(Accounts(self.path).check("joe", password))

    def test_two_that_differ_change_nothing(self):
        write(self.path, "jim:%s\n" % SHA)
        status, shown = self.dialog("secret", "secrte")
        self.assertEqual(status, 2, shown)
        self.assertNotIn("secr", shown)
        self.assertNotIn("Traceback", shown)
        with open(self.path) as file:
            self.assertEqual(file.read(), "jim:%s\n" % SHA)
        os.unlink(self.path)
        self.dialog("secret", "")
        self.assertFalse(os.path.exists(self.path))

    def test_interrupted_it_changes_nothing(self):
        status, shown = self.dialog("secret", "\x03")
        self.assertEqual(status, 130, shown)
        self.assertNotIn("Traceback", shown)
        self.assertFalse(os.path.exists(self.path))


if __name__ == "__main__":
    unittest.main()
