"""The Python API: an application for programs that bring their own server."""

import base64
import hashlib
import io
import json
import logging
import os
import pathlib
import subprocess
import sys
import textwrap
import threading
import unittest
from urllib.parse import unquote_to_bytes
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pypi_server
from tests import archives, forms, toolbox
from tests.helpers import DirectoryTestCase, wait_for
from tests.upstream import isolated

TOP = os.path.dirname(pypi_server.__file__)
WHEEL = "foo-1.0-py3-none-any.whl"
DATA = archives.wheel("foo", "1.0")


def ask(application, method, target, headers=None, body=b"", script=""):
    """Return (status, headers, body), with the referee watching."""
    path, _, query = target.partition("?")
    environ = {
        "REQUEST_METHOD": method, "SCRIPT_NAME": script,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query, "HTTP_HOST": "index.example",
        "REMOTE_ADDR": "127.0.0.1", "wsgi.input": io.BytesIO(body)}
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))
    for name, text in (headers or {}).items():
        name = name.upper().replace("-", "_")
        environ[name if name == "CONTENT_TYPE" else "HTTP_" + name] = text
    setup_testing_defaults(environ)
    started = []
    blocks = validator(application)(
        environ, lambda *arguments: started.append(arguments))
    try:
        data = b"".join(blocks)
    finally:
        blocks.close()
    status, found = started[0][:2]
    return int(status[:3]), dict(found), data


class ApiTestCase(DirectoryTestCase):
    def app(self, **settings):
        settings.setdefault("cache_dir", os.path.join(self.folder, "cache"))
        if not {"root", "roots", "packages"} & set(settings):
            settings["root"] = self.root
        return self.stopping(pypi_server.app(**settings))

    def stopping(self, application):
        """Have what reads ahead in a thread stop with the test."""
        for cell in application.__closure__:
            if isinstance(cell.cell_contents, pypi_server.App):
                self.addCleanup(cell.cell_contents.warmer.stop)
        return application

    def put(self, filename=WHEEL, data=DATA, root=None):
        archives.put(root or self.root, filename, data)

    def listed(self, application, name="foo", headers=None):
        wait_for(lambda: ask(application, "GET", "/simple/%s/" % name,
                             headers)[0] == 200, name + " is listed")


class TestImport(unittest.TestCase):
    def run_code(self, code, *arguments):
        process = subprocess.run(
            [sys.executable, "-B", "-W", "error", "-c", textwrap.dedent(code)]
            + list(arguments), cwd=TOP, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=60)
        self.assertEqual(b"ok\n", process.stdout)

    def test_nothing_happens(self):
        self.run_code("""
            import logging, os, signal, sys, threading
            def state():
                signals = [getattr(signal, name, None) for name in
                           ("SIGTERM", "SIGINT", "SIGHUP", "SIGPIPE")]
                return [
                    threading.active_count(), logging.getLogger().handlers,
                    logging.getLogger().level, sys.stdout, sys.stderr,
                    os.getcwd(), sys.path[:], dict(os.environ),
                    [signal.getsignal(found) for found in signals if found],
                    sys.getswitchinterval(), sys.getrecursionlimit()]
            before = state()
            import pypi_server
            assert state() == before
            for name in "pypi_server", "pypi_server.audit":
                log = logging.getLogger(name)
                assert not log.handlers and log.propagate, name
                assert log.level == logging.NOTSET, name
            print("ok")
            """)

    @unittest.skipIf(sys.version_info < (3, 8) or not hasattr(
        sys, "addaudithook"), "this Python has no audit hooks")
    def test_nothing_is_opened(self):
        """No file but modules, no socket, no process, no thread."""
        self.run_code("""
            import sys
            found = []
            def hook(event, arguments):
                if event == "open":
                    path = str(arguments[0])
                    if not path.endswith((".py", ".pyc", ".so", ".pyd")) \\
                            and ".pyc." not in path:
                        found.append((event, arguments))
                elif event.startswith((
                        "socket.", "subprocess.", "os.", "tempfile.",
                        "shutil.", "sqlite3.", "_thread.", "urllib.")) \\
                        and event not in ("os.listdir", "os.scandir",
                                          "os.mkdir", "os.rename",
                                          "os.putenv", "os.unsetenv"):
                    found.append((event, arguments))
            # These are the standard library's own affairs.
            import ctypes, http.server, logging, lzma, bz2, sqlite3, uuid
            import getpass, html, hmac, importlib, queue, shutil, signal
            import socketserver, zipfile, argparse, urllib.parse, hashlib
            sys.addaudithook(hook)
            import pypi_server
            assert not found, found
            print("ok")
            """)

    def test_star_import(self):
        self.run_code("""
            from pypi_server import *
            assert callable(app) and callable(default_config)
            assert callable(paste_app_factory) and callable(main)
            print("ok")
            """)


# Names of the predecessor, and what they mean here.
NAMES = (
    ({"root": "/a"}, {"roots": ("/a",)}),
    ({"root": ["/a", "/b"]}, {"roots": ("/a", "/b")}),
    ({"roots": ["/a"]}, {"roots": ("/a",)}),
    ({"roots": ("/a",)}, {"roots": ("/a",)}),
    ({"roots": [pathlib.Path("/a")]}, {"roots": (os.fspath(
        pathlib.Path("/a")),)}),
    ({"root": pathlib.Path("/a")}, {"roots": (os.fspath(
        pathlib.Path("/a")),)}),
    ({"root": "\n /a\n\n /b\n"}, {"roots": ("/a", "/b")}),
    ({"root": ["", "/a"]}, {"roots": ("/a",)}),
    ({"password_file": "x"}, {"password_file": "x"}),
    ({"passwords": "x"}, {"password_file": "x"}),
    ({"password_file": None}, {"password_file": ""}),
    ({"authenticated": ["update", "list"]},
     {"authenticated": ("list", "update")}),
    ({"authenticate": ["download"]}, {"authenticated": ("download",)}),
    ({"authenticated": "Update, List"}, {"authenticated":
                                         ("list", "update")}),
    ({"authenticated": []}, {"authenticated": ()}),
    ({"authenticated": "."}, {"authenticated": ()}),
    ({"authenticated": ""}, {"authenticated": ()}),
    ({"redirect_to_fallback": True}, {"disable_fallback": False}),
    ({"redirect_to_fallback": False}, {"disable_fallback": True}),
    ({"disable_fallback": True}, {"disable_fallback": True}),
    ({"fallback_url": "http://a/"}, {"fallback_url": "http://a/"}),
    ({"health_endpoint": "/up"}, {"health_endpoint": "/up"}),
    ({"server": "waitress"}, {"server": "waitress"}),
    ({"server_method": "gunicorn"}, {"server": "gunicorn"}),
    ({"overwrite": True}, {"overwrite": True}),
    ({"welcome_msg": "<p>hi"}, {"welcome_msg": "<p>hi"}),
    ({"welcome_file": "x.html"}, {"welcome_file": "x.html"}),
    ({"cache_control": 60}, {"cache_control": 60}),
    ({"cache_control": None}, {"cache_control": None}),
    ({"hash_algo": "md5"}, {"hash_algo": "md5"}),
    ({"hash_algo": None}, {"hash_algo": ""}),
    ({"hash_algo": ""}, {"hash_algo": ""}),
    ({"hash_algo": "off"}, {"hash_algo": ""}),
    ({"backend": "simple-dir"}, {"backend": "simple-dir"}),
    ({"backend_arg": "cached-dir"}, {"backend": "cached-dir"}),
    ({"verbosity": 2}, {"verbosity": 2}),
    ({"log_file": "x"}, {"log_file": "x"}),
    ({"log_file": None}, {"log_file": ""}),
    ({"fallback_url": None}, {}), ({"server": None}, {}),
    ({"log_stream": None}, {}),
    # An empty text is no setting.
    (dict.fromkeys((
        "host", "port", "fallback_url", "health_endpoint", "server",
        "overwrite", "max_upload_size", "workers", "cache_control", "backend",
        "server_base_url", "verbosity", "index_url", "log_stream", "log_frmt",
        "redirect_to_fallback",
        "log_req_frmt", "password_file", "trusted_proxies"), ""), {}),
    ({"log_frmt": "%(message)s"}, {"log_frmt": "%(message)s"}),
    ({"log_req_frmt": "%s", "log_res_frmt": "%s", "log_err_frmt": "%s"},
     {"log_req_frmt": "%s", "log_res_frmt": "%s", "log_err_frmt": "%s"}),
    ({"server_base_url": "/pypi/"}, {"server_base_url": "/pypi"}),
    ({"host": "::1", "port": 80}, {"host": "::1", "port": 80}),
    ({"interface": "::1", "port": "80"}, {"host": "::1", "port": 80}),
)

# Settings that cannot be, and what the error must name.
WRONG = (
    ({"rot": "/a"}, "'rot'"), ({"Root": "/a"}, "'Root'"),
    ({"root": "/a", "password": "x"}, "'password'"),
    ({"root": "/a", "roots": ["/b"]}, "roots"),
    ({"root": 5}, "root"), ({"root": None}, "root"), ({"root": []}, "root"),
    ({"root": " \n"}, "root"), ({"root": [""]}, "root"),
    ({"port": "http"}, "'http'"), ({"port": 70000}, "70000"),
    ({"port": -1}, "-1"), ({"port": None}, "port"), ({"port": 1.5}, "port"),
    ({"authenticated": ["upload"]}, "upload"),
    ({"authenticated": "upload"}, "upload"), ({"authenticated": 5}, "5"),
    ({"hash_algo": "md17"}, "md17"), ({"hash_algo": 5}, "hash_algo"),
    ({"fallback_url": "x"}, "'x'"), ({"fallback_url": 5}, "fallback_url"),
    ({"health_endpoint": "x"}, "'x'"), ({"server": "x"}, "'x'"),
    ({"backend": "x"}, "'x'"), ({"cache_control": "x"}, "'x'"),
    ({"cache_control": -1}, "-1"), ({"max_upload_size": "x"}, "'x'"),
    ({"verbosity": "x"}, "verbosity"), ({"overwrite": "maybe"}, "maybe"),
    ({"overwrite": 5}, "overwrite"), ({"log_frmt": "x"}, "'x'"),
    ({"log_req_frmt": "%(x)s"}, "%(x)s"),
    ({"trusted_proxies": "x"}, "'x'"), ({"trusted_proxies": ["x"]}, "x"),
    ({"server_base_url": "x"}, "'x'"), ({"disable_fallback": "x"}, "x"),
    ({"redirect_to_fallback": "maybe"}, "maybe"),
    ({"index_url": "x"}, "'x'"), ({"log_stream": "x"}, "'x'"),
    ({"auther": 5}, "auther"), ({"welcome_msg": 5}, "welcome_msg"),
)


class TestSettings(unittest.TestCase):
    def test_defaults(self):
        self.assertEqual(pypi_server.Config(), pypi_server.default_config())

    def test_fields_keep_their_names(self):
        """What a Config says is understood when given back."""
        config = pypi_server.default_config(
            roots=["/a", "/b"], authenticated=["list", "update"], port=1,
            password_file="x", hash_algo="md5", trusted_proxies=["::1"])
        self.assertEqual(config, pypi_server.default_config(
            **config._asdict()))

    def test_names_of_the_predecessor(self):
        for settings, fields in NAMES:
            with self.subTest(settings):
                self.assertEqual(
                    pypi_server.Config(**fields),
                    pypi_server.default_config(**settings))

    def test_wrong_ones_are_named(self):
        for settings, named in WRONG:
            for function in pypi_server.default_config, pypi_server.app:
                with self.subTest(settings, function=function.__name__):
                    with self.assertRaises(pypi_server.UsageError) as caught:
                        function(**settings)
                    self.assertIn(named, str(caught.exception))
                    self.assertGreater(len(str(caught.exception)), 20)

    def test_auther_in_the_configuration(self):
        """As the predecessor's guide shows it."""
        def auther(user, password):
            return user == password
        pypi_server.default_config(auther=auther)


class TestApp(ApiTestCase):
    def test_pages_and_downloads(self):
        self.put()
        application = self.app()
        self.listed(application)
        for path, status in (("/", 200), ("/simple/", 200), ("/health", 200),
                             ("/packages/" + WHEEL, 200), ("/a/b/c", 404),
                             ("/simple/Foo/", 302), ("/foo/json", 200),
                             ("/pypi/foo/json", 200), ("/packages/", 200)):
            with self.subTest(path):
                found = ask(application, "GET", path)
                self.assertEqual(status, found[0])
                head = ask(application, "HEAD", path)
                self.assertEqual((status, b""), head[::2])
                self.assertEqual(found[1].get("Content-Length"),
                                 head[1].get("Content-Length"))
        self.assertEqual(DATA, ask(
            application, "GET", "/packages/" + WHEEL)[2])
        status, _, data = ask(application, "GET", "/packages/" + WHEEL,
                              {"Range": "bytes=5-9"})
        self.assertEqual((206, DATA[5:10]), (status, data))

    def test_mounted_below_a_path(self):
        self.put()
        application = self.app()
        self.listed(application)
        found = json.loads(ask(
            application, "GET", "/pypi/foo/json", script="/my index")[2]
            .decode())
        self.assertEqual("http://index.example/my%20index/packages/" + WHEEL,
                         found["urls"][0]["url"])
        self.assertEqual(302, ask(application, "GET", "", script="/a")[0])

    def test_old_keywords_at_work(self):
        archives.put(self.folder, "htpasswd", b"joe:{SHA}%s\n" % (
            base64.b64encode(hashlib.sha1(b"pw").digest())))
        self.put()
        application = self.app(
            root=[self.root], password_file=os.path.join(
                self.folder, "htpasswd"), authenticated=["update", "list"],
            redirect_to_fallback=True, fallback_url="http://f.example/s/",
            welcome_msg="<p>{{NUMPKGS}}</p>", hash_algo="md5",
            overwrite=True, cache_control=77)
        self.assertEqual(401, ask(application, "GET", "/simple/")[0])
        joe = forms.credentials("joe", "pw")
        self.listed(application, headers=joe)
        page = ask(application, "GET", "/simple/foo/", joe)[2]
        self.assertIn(b"#md5=" + hashlib.md5(DATA).hexdigest().encode(),
                      page)
        self.assertEqual("http://f.example/s/bar/", ask(
            application, "GET", "/simple/bar/", joe)[1]["Location"])
        self.assertIn("max-age=77", ask(
            application, "GET", "/packages/" + WHEEL)[1]["Cache-Control"])
        other = archives.wheel("foo", "1.0", body="other")
        headers, body = forms.upload(WHEEL, other, headers=joe)
        self.assertEqual(200, ask(
            application, "POST", "/", headers, body)[0])
        self.assertEqual(other, ask(
            application, "GET", "/packages/" + WHEEL)[2])

    def test_welcome_as_text(self):
        application = self.app(welcome_msg="<p>Hello, people</p>")
        self.assertIn(b"<p>Hello, people</p>", ask(
            application, "GET", "/")[2])

    def test_no_digests(self):
        self.put()
        for algorithm in None, "", "off":
            application = self.app(hash_algo=algorithm)
            self.listed(application)
            self.assertNotIn(b"#", ask(
                application, "GET", "/simple/foo/")[2].partition(b"<body")[2])

    def test_two_apps_share_nothing(self):
        other = os.path.join(self.folder, "other")
        os.mkdir(other)
        self.put("one-1.0.tar.gz", archives.sdist("one", "1.0"))
        self.put("two-1.0.tar.gz", archives.sdist("two", "1.0"), other)
        first = self.app(welcome_msg="FIRST", hash_algo="md5")
        second = self.app(root=other, welcome_msg="SECOND",
                          health_endpoint="/up", disable_fallback=True,
                          auther=lambda user, password: user == "second",
                          authenticated=["list"])
        second_user = forms.credentials("second", "x")
        self.listed(first, "one")
        self.listed(second, "two", second_user)
        self.assertEqual(302, ask(first, "GET", "/simple/two/")[0])
        self.assertEqual(404, ask(second, "GET", "/simple/one/",
                                  second_user)[0])
        self.assertIn(b"FIRST", ask(first, "GET", "/")[2])
        self.assertIn(b"SECOND", ask(second, "GET", "/")[2])
        self.assertEqual(200, ask(first, "GET", "/simple/")[0])
        self.assertEqual(401, ask(second, "GET", "/simple/")[0])
        self.assertEqual(b"Ok", ask(second, "GET", "/up")[2])
        self.assertEqual(b"Ok", ask(first, "GET", "/health")[2])
        self.assertNotEqual(200, ask(first, "GET", "/up")[0])
        self.assertIn(b"#md5=", ask(first, "GET", "/simple/one/")[2])
        self.assertIn(b"#sha256=", ask(
            second, "GET", "/simple/two/", second_user)[2])

    def test_logging_is_the_programs_affair(self):
        before = (list(pypi_server.LOG.handlers), pypi_server.LOG.level,
                  pypi_server.LOG.propagate, logging.getLogger().handlers[:])
        ask(self.app(verbosity=2, log_file=os.path.join(
            self.folder, "log")), "GET", "/")
        self.assertEqual(before, (
            pypi_server.LOG.handlers, pypi_server.LOG.level,
            pypi_server.LOG.propagate, logging.getLogger().handlers))

    def test_no_thread_before_the_first_request(self):
        """A server may fork in between."""
        before = threading.active_count()
        application = self.app()
        self.assertEqual(before, threading.active_count())
        ask(application, "GET", "/")

    def test_missing_directory_is_named(self):
        with self.assertRaises(pypi_server.UsageError) as caught:
            self.app(root=os.path.join(self.folder, "none", "deeper"))
        self.assertIn("none/deeper", str(caught.exception))

    def test_parallel_requests(self):
        self.put()
        application = self.app()
        self.listed(application)
        answers = []

        def run():
            for _ in range(20):
                answers.append(ask(application, "GET",
                                   "/packages/" + WHEEL)[2])
        threads = [threading.Thread(target=run) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([DATA] * 100, answers)


class Pam:
    """Called as python-pam is: pam.authenticate(user, password, ...)."""

    def authenticate(self, username, password, service="login",
                     resetcreds=True):
        self.code = 0 if (username, password) == ("joe", "pw") else 7
        return self.code == 0


class LdapError(Exception):
    pass


class Ldap:
    """Binds as the user; a refusal is an exception, as with python-ldap."""

    def __init__(self):
        self.is_down = False
        self.calls = []

    def __call__(self, user, password):
        self.calls.append((user, password))
        if self.is_down:
            raise LdapError("Can't contact LDAP server")
        try:
            self.simple_bind("uid=%s,dc=example" % user, password)
        except LdapError:
            return False
        return True

    def simple_bind(self, name, password):
        if password != "pw\u20ac:x":
            raise LdapError("Invalid credentials")


class TestAuther(ApiTestCase):
    def status(self, application, user=None, password="", target="/simple/"):
        headers = {} if user is None else forms.credentials(user, password)
        return ask(application, "GET", target, headers)[0]

    def test_pam(self):
        application = self.app(auther=Pam().authenticate,
                               authenticated=["list", "update"])
        self.assertEqual(401, self.status(application))
        self.assertEqual(401, self.status(application, "joe", "no"))
        self.assertEqual(200, self.status(application, "joe", "pw"))
        headers, body = forms.upload(WHEEL, DATA)
        self.assertEqual(401, ask(
            application, "POST", "/", headers, body)[0])
        headers.update(forms.credentials("joe", "pw"))
        self.assertEqual(200, ask(
            application, "POST", "/", headers, body)[0])
        with open(os.path.join(self.root, WHEEL), "rb") as file:
            self.assertEqual(DATA, file.read())

    def test_ldap(self):
        directory = Ldap()
        application = self.app(auther=directory, authenticated=["list"])
        self.assertEqual(401, self.status(application, "joe", "wrong"))
        self.assertEqual(200, self.status(application, "joe", "pw\u20ac:x"))
        self.assertIn(("joe", "pw\u20ac:x"), directory.calls)
        # No access while it cannot be asked, and no crash.
        directory.is_down = True
        self.assertGreaterEqual(
            self.status(application, "joe", "pw\u20ac:x"), 500)
        directory.is_down = False
        self.assertEqual(200, self.status(application, "joe", "pw\u20ac:x"))

    def test_uploads_are_what_it_protects_by_default(self):
        application = self.app(auther=lambda user, password: user == "joe")
        self.assertEqual(200, self.status(application))
        headers, body = forms.upload(WHEEL, DATA)
        self.assertEqual(401, ask(
            application, "POST", "/", headers, body)[0])
        headers.update(forms.credentials("joe", "x"))
        self.assertEqual(200, ask(
            application, "POST", "/", headers, body)[0])

    def test_whatever_is_true_or_false(self):
        for found, status in ((True, 200), (1, 200), ("yes", 200),
                              (False, 401), (None, 401), (0, 401), ("", 401)):
            application = self.app(auther=lambda *pair: found,
                                   authenticated=["list"])
            self.assertEqual(status, self.status(application, "a", "b"))

    def test_it_replaces_the_password_file(self):
        application = self.app(
            auther=lambda user, password: user == "joe",
            password_file="/none", authenticated=["list"])
        self.assertEqual(200, self.status(application, "joe", "x"))


PASTE = """\
[composite:main]
use = egg:Paste#urlmap
/unstable/ = unstable
/ = stable

[app:stable]
paste.app_factory = pypi_server:paste_app_factory
root = {folder}/stable
cache_dir = {folder}/cache
overwrite = true
authenticate = update list
password_file = {folder}/htpasswd
cache_control = 60
verbosity = 1
redirect_to_fallback = no
welcome_msg = STABLE

[app:unstable]
paste.app_factory = pypi_server:paste_app_factory
root = {folder}/stable
    {folder}/unstable
cache_dir = {folder}/cache
fallback_url = http://f.example/simple/
"""
PASTE_CODE = """
import base64, json, sys, time
from paste.deploy import loadapp
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator
application = loadapp("config:" + sys.argv[1])
def ask(path, user=""):
    environ = {"PATH_INFO": path, "QUERY_STRING": "", "SCRIPT_NAME": "",
               "REMOTE_ADDR": "::1"}
    if user:
        environ["HTTP_AUTHORIZATION"] = "Basic " + base64.b64encode(
            user.encode()).decode()
    setup_testing_defaults(environ)
    started = []
    blocks = validator(application)(
        environ, lambda *arguments: started.append(arguments))
    data = b"".join(blocks)
    blocks.close()
    return [started[0][0][:3], dict(started[0][1]), data.decode("latin-1")]
deadline = time.monotonic() + 10
while "foo" not in ask("/unstable/simple/foo/")[2] \\
        and time.monotonic() < deadline:
    time.sleep(0.05)
print(json.dumps([ask(path, user) for path, user in (
    ("/simple/", ""), ("/simple/", "joe:pw"), ("/simple/bar/", "joe:pw"),
    ("/unstable/simple/", ""), ("/unstable/simple/bar/", ""),
    ("/unstable/pypi/foo/json", ""), ("/", ""))]))
"""


class TestPaste(ApiTestCase):
    def test_factory(self):
        self.put()
        application = self.stopping(pypi_server.paste_app_factory(
            {"here": "/", "__file__": "/paste.ini"}, root=self.root,
            cache_dir=os.path.join(self.folder, "cache"),
            authenticated="update list", password_file=self.passwords(),
            cache_control="60", overwrite="yes", disable_fallback="on",
            verbosity="0"))
        self.assertEqual(401, ask(application, "GET", "/simple/")[0])
        self.listed(application, headers=forms.credentials("joe", "pw"))

    def passwords(self):
        return archives.put(self.folder, "htpasswd", b"joe:{SHA}" + (
            base64.b64encode(hashlib.sha1(b"pw").digest())))

    def test_real_paste_deploy(self):
        python = toolbox.require("servers")
        self.passwords()
        for name in "stable", "unstable":
            os.mkdir(os.path.join(self.folder, name))
        self.put(root=os.path.join(self.folder, "unstable"))
        path = os.path.join(self.folder, "paste.ini")
        with open(path, "w") as file:
            file.write(PASTE.format(folder=self.folder))
        process = subprocess.run(
            [python, "-c", PASTE_CODE, path], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, timeout=60,
            env=isolated(self.folder, PYTHONPATH=TOP))
        self.assertEqual(0, process.returncode, process.stderr.decode())
        (closed, stable, nothing, unstable, fallback, legacy,
         home) = json.loads(process.stdout.decode())
        self.assertEqual("401", closed[0])
        self.assertEqual("200", stable[0])
        self.assertNotIn("foo", stable[2])
        self.assertEqual("404", nothing[0])
        self.assertIn("foo", unstable[2])
        self.assertEqual(["302", "http://f.example/simple/bar/"],
                         [fallback[0], fallback[1]["Location"]])
        self.assertIn("/unstable/packages/" + WHEEL, legacy[2])
        self.assertIn("STABLE", home[2])


if __name__ == "__main__":
    unittest.main()
