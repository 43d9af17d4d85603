"""The recipes of the guide, with the real programs where they are installed.

A program that is missing skips its tests and names the package of Debian.
"""

import configparser
import hashlib
import http.client
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
from urllib.parse import urljoin, urlsplit

import pypi_server
from tests import archives, forms, toolbox
from tests.guide import recipe
from tests.helpers import (
    SCRIPT, Answer, ServerProcess, SharedTestCase, anchors, wait_for,
)
from tests.processes import Process, free_port

PLACES = os.environ.get("PATH", "").split(os.pathsep) + [
    "/usr/sbin", "/sbin", "/usr/local/sbin"]
FILES = {
    "foo-1.0-py3-none-any.whl": archives.wheel(
        "foo", "1.0", files={"zeros": bytes(2 ** 20)}),
    "foo-1.0+local.1-py3-none-any.whl": archives.wheel("foo", "1.0+local.1"),
    "deep/er/foo-1.1.tar.gz": archives.sdist("foo", "1.1"),
    "a b/foo-1.2.tar.gz": archives.sdist("foo", "1.2"),
    "50%25/foo-1.3.tar.gz": archives.sdist("foo", "1.3"),
    "x#y?z/foo-1.4.tar.gz": archives.sdist("foo", "1.4")}


def program(name, package):
    """Return the path of a program, or skip the test."""
    path = shutil.which(name, path=os.pathsep.join(PLACES))
    if not path:
        raise unittest.SkipTest("%s is not installed: apt-get install %s"
                                % (name, package))
    return path


class Proxy:
    """A reverse proxy in front of a pypi_server; used in `with`."""

    def __init__(self, upstream, name, text=None):
        self.folder = tempfile.mkdtemp()
        self.port = free_port()
        self.text = (text or recipe(name)).replace(
            "127.0.0.1:8080", urlsplit(upstream.url).netloc)
        self.url = "http://127.0.0.1:%d" % self.port
        self.process = Process(self.command(), self.port, self.folder)

    def __enter__(self):
        self.process.__enter__()
        return self

    def __exit__(self, *exception):
        self.process.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)
        return self.path(name)

    def ask(self, method, path, headers=None, body=b""):
        client = http.client.HTTPConnection("127.0.0.1", self.port,
                                            timeout=30)
        try:
            client.request(method, path, body or None, headers or {})
            response = client.getresponse()
            # A proxy may add a second Server, so no helpers.fields().
            return Answer(response.status, response.reason, {
                name.lower(): text for name, text in response.getheaders()
            }, response.read())
        finally:
            client.close()


class Nginx(Proxy):
    def command(self):
        server = self.text.replace(
            "listen 80;", "listen 127.0.0.1:%d;" % self.port).replace(
            "listen 443 ", "listen 127.0.0.1:%d " % self.port)
        # As root it would serve as a user that cannot read the folder.
        user = "user root;" if hasattr(os, "geteuid") \
            and os.geteuid() == 0 else ""
        temporary = "".join(
            "%s_temp_path %s;\n" % (kind, self.path(kind)) for kind in (
                "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        path = self.write("nginx.conf", """
            daemon off; %s pid %s; error_log stderr;
            events {} http { access_log off; %s %s }""" % (
            user, self.path("pid"), temporary, server))
        return [program("nginx", "nginx-light"), "-p", self.folder, "-c",
                path, "-g", "error_log stderr;"]


class Apache(Proxy):
    MODULES = ("mpm_event", "authz_core", "alias", "headers", "proxy",
               "proxy_http")

    def command(self):
        binary = program("apache2", "apache2")
        site = self.text.replace("*:80", "127.0.0.1:%d" % self.port)
        loads = "".join(
            "LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n"
            % (name, name) for name in self.MODULES)
        path = self.write("apache.conf", """
ServerRoot %s
ServerName localhost
PidFile pid
DefaultRuntimeDir %s
ErrorLog /dev/stderr
Listen 127.0.0.1:%d
%s
%s""" % (self.folder, self.folder, self.port, loads, site))
        return [binary, "-f", path, "-D", "FOREGROUND"]


class Caddy(Proxy):
    def command(self):
        site = re.sub(r"(?m)^\w[\w.]+ \{", "http://127.0.0.1:%d {"
                      % self.port, self.text)
        path = self.write("Caddyfile", "{\n  admin off\n}\n" + site)
        return [program("caddy", "caddy"), "run", "--config", path,
                "--adapter", "caddyfile"]


FRONTS = ((Nginx, "nginx.conf", ""), (Nginx, "nginx-prefix.conf", "/pypi"),
          (Apache, "apache.conf", ""), (Apache, "apache-prefix.conf", "/pypi"),
          (Caddy, "Caddyfile", ""), (Caddy, "Caddyfile-prefix", "/pypi"))


class TestProxies(SharedTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.log = os.path.join(cls.folder, "log")
        passwords = archives.put(
            cls.folder, "htpasswd",
            b"joe:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=\n")  # "123456"
        cls.server = ServerProcess(
            "--trusted-proxy", "127.0.0.1", "-P", passwords, "--log-file",
            cls.log, "--disable-fallback", cls.root)
        try:
            cls.server.__enter__()
            wait_for(lambda: len(anchors(
                cls.server.get("simple/foo/").body)) == len(FILES), "listed")
        except BaseException:
            cls.server.__exit__()
            super().tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()
        super().tearDownClass()

    @classmethod
    def fill(cls, root):
        for path, data in FILES.items():
            archives.put(root, path, data)
        return [path.rpartition("/")[2] for path in FILES]

    def fronts(self):
        """Return what can be started; skip when it is nothing."""
        found, reasons = [], set()
        for kind, name, prefix in FRONTS:
            try:
                found.append((kind(self.server, name), name, prefix))
            except unittest.SkipTest as reason:
                reasons.add(str(reason))
        if not found:
            self.skipTest("; ".join(sorted(reasons)))
        return found

    def test_every_link_leads_to_its_file(self):
        for front, name, prefix in self.fronts():
            with self.subTest(name), front:
                for start in "/simple/foo/", "/packages/":
                    page = front.ask("GET", prefix + start)
                    self.assertEqual(200, page.status)
                    links = [attributes["href"] for attributes, text
                             in anchors(page.body)
                             if text.rpartition("/")[2].startswith("foo-1")]
                    self.assertEqual(len(FILES), len(links), start)
                    for link in links:
                        url = urlsplit(urljoin(front.url + prefix + start,
                                               link))
                        answer = front.ask("GET", url.path)
                        self.assertEqual(200, answer.status, url.path)
                        self.assertIn(answer.body, FILES.values())
                        if url.fragment:
                            digest = url.fragment.partition("=")[2]
                            self.assertEqual(
                                digest, hashlib.sha256(
                                    answer.body).hexdigest())

    def test_pages_and_redirects(self):
        for front, name, prefix in self.fronts():
            with self.subTest(name), front:
                for path in "/", "/simple/", "/health", "/foo/json":
                    self.assertEqual(
                        200, front.ask("GET", prefix + path).status, path)
                for path, target in (
                        ("/simple", "/simple/"), ("/simple/foo",
                                                  "/simple/foo/"),
                        ("/simple/Foo/", "/simple/foo/"),
                        ("/foo/", "/simple/foo/"), ("", "/")):
                    if not prefix and not path:
                        continue
                    answer = front.ask("GET", prefix + path)
                    self.assertIn(answer.status, (301, 302), path)
                    where = urlsplit(urljoin(
                        front.url + prefix + path,
                        answer.headers["location"]))
                    self.assertEqual(
                        (urlsplit(front.url).netloc, prefix + target),
                        (where.netloc, where.path))
                self.assertEqual(404, front.ask(
                    "GET", prefix + "/simple/none/").status)
                self.assertIn(front.ask(
                    "GET", prefix + "/simple/%FF%00/").status, (400, 404))

    def test_ranges_and_validators(self):
        wheel = "foo-1.0-py3-none-any.whl"
        for front, name, prefix in self.fronts():
            with self.subTest(name), front:
                file = prefix + "/packages/" + wheel
                answer = front.ask("GET", file, {"Range": "bytes=5-20"})
                self.assertEqual((206, FILES[wheel][5:21]),
                                 (answer.status, answer.body))
                for path in file, prefix + "/simple/foo/":
                    etag = front.ask("GET", path).headers["etag"]
                    self.assertEqual(304, front.ask("GET", path, {
                        "If-None-Match": etag}).status)

    def test_legacy_json_has_the_address_of_the_proxy(self):
        for front, name, prefix in self.fronts():
            with self.subTest(name), front:
                for path in "/pypi/foo/json", "/pypi/foo/1.0/json":
                    found = json.loads(front.ask(
                        "GET", prefix + path).body.decode())
                    for file in found["urls"]:
                        self.assertTrue(file["url"].startswith(
                            front.url + prefix + "/packages/"), file["url"])
                        answer = front.ask("GET", urlsplit(file["url"]).path)
                        self.assertEqual(200, answer.status, file["url"])
                        self.assertEqual(file["size"], len(answer.body))

    def test_uploads(self):
        joe = forms.credentials("joe", "123456")
        for number, (front, name, prefix) in enumerate(self.fronts()):
            with self.subTest(name), front:
                version = "2.%d" % number
                filename = "foo-%s-py3-none-any.whl" % version
                data = archives.wheel("foo", version, files={
                    "noise": os.urandom(3 * 2 ** 20)})
                headers, body = forms.upload(filename, data,
                                             **forms.digests(data))
                # What a client claims about itself is not believed.
                headers["X-Forwarded-For"] = "192.0.2.66"
                for path in "/", "/legacy/":
                    answer = front.ask("POST", prefix + path, headers, body)
                    self.assertEqual(401, answer.status)
                    answer = front.ask("POST", prefix + path,
                                       dict(headers, **joe), body)
                    self.assertEqual(200, answer.status, answer.body)
                self.assertEqual(data, front.ask(
                    "GET", prefix + "/packages/" + filename).body)
                # twine shows the reason phrase.
                other = archives.wheel("foo", version, body="other")
                headers, body = forms.upload(filename, other, headers=joe)
                answer = front.ask("POST", prefix + "/", headers, body)
                self.assertEqual(409, answer.status)
                self.assertIn("File already exists",
                              answer.reason + answer.body.decode())
                with open(self.log) as file:
                    line, = [line for line in file
                             if filename in line and " uploaded " in line]
                self.assertIn("joe at 127.0.0.1 uploaded", line)

    def test_prefix_that_is_passed_on(self):
        """--server-base-url, for proxies that leave the path as it is."""
        text = recipe("nginx-prefix.conf").replace(
            "8080/;", "8080;").replace(
            "proxy_set_header X-Forwarded-Prefix /pypi;", "")
        with ServerProcess("--server-base-url", "/pypi", "--trusted-proxy",
                           "127.0.0.1", self.root) as server:
            wait_for(lambda: server.get("simple/foo/").status == 200, "up")
            with Nginx(server, "", text) as front:
                page = front.ask("GET", "/pypi/simple/foo/")
                self.assertEqual(200, page.status)
                link = anchors(page.body)[0][0]["href"]
                self.assertEqual(200, front.ask("GET", urlsplit(urljoin(
                    front.url + "/pypi/simple/foo/", link)).path).status)
                found = json.loads(front.ask(
                    "GET", "/pypi/pypi/foo/json").body.decode())
                self.assertTrue(found["urls"][0]["url"].startswith(
                    front.url + "/pypi/packages/"))

    def test_proxy_recipe_of_the_predecessor(self):
        """X-Forwarded-Host with the prefix in it."""
        text = """server { listen 80; location /pypi/ {
            proxy_set_header X-Forwarded-Host 127.0.0.1:$server_port/pypi;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_pass http://127.0.0.1:8080/; } }"""
        with Nginx(self.server, "", text) as front:
            self.assertEqual(200, front.ask("GET", "/pypi/simple/").status)
            found = json.loads(front.ask(
                "GET", "/pypi/pypi/foo/json").body.decode())
            url = found["urls"][0]["url"]
            self.assertTrue(url.startswith(front.url + "/pypi/packages/"),
                            url)

    def test_headers_of_strangers_are_not_believed(self):
        """Without --trusted-proxy nothing that is forwarded counts."""
        with ServerProcess(self.root) as server:
            wait_for(lambda: server.get("simple/foo/").status == 200, "up")
            found = json.loads(server.get("foo/json", {
                "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto":
                "https", "X-Forwarded-Prefix": "/x"}).body.decode())
        self.assertNotIn("evil", found["urls"][0]["url"])


class TestWindows(unittest.TestCase):
    def test_commands_of_nssm(self):
        """Parsed only: the options are those of the program."""
        first, *settings = recipe("nssm.cmd").splitlines()
        words = first.split()
        self.assertEqual(["nssm", "install", "pypi-server"], words[:3])
        self.assertTrue(words[4].endswith("\\pypi_server.py"))
        found = pypi_server.make_parser().parse_args(words[5:])
        self.assertEqual(("run", 8080), (found.command, found.port))
        for line in settings:
            self.assertRegex(line, r"^nssm (set|start) pypi-server")


class TestSystemd(unittest.TestCase):
    def unit(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        text = recipe("pypi-server.service").replace(
            "/usr/bin/python3", os.path.realpath(sys.executable)).replace(
            "/opt/pypi_server.py", SCRIPT)
        path = os.path.join(folder.name, "pypi-server.service")
        with open(path, "w") as file:
            file.write(text)
        return path

    def analyze(self, *arguments):
        process = subprocess.run(
            [program("systemd-analyze", "systemd")] + list(arguments),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, timeout=60,
            env=dict(os.environ, SYSTEMD_COLORS="0", LC_ALL="C"))
        return process.returncode, process.stdout.decode()

    def test_unit_is_valid(self):
        status, printed = self.analyze("verify", self.unit())
        self.assertEqual((0, ""), (status, "".join(
            line for line in printed.splitlines()
            if "pypi-server" in line)), printed)

    def test_unit_is_hardened(self):
        """Exposure below 2.0, where a unit without options has 9.6."""
        status, printed = self.analyze(
            "security", "--offline=yes", "--threshold=20", "--no-pager",
            self.unit())
        if "unrecognized option" in printed:
            self.skipTest("this systemd-analyze knows no --offline")
        self.assertEqual(0, status, printed[-300:])

    def test_command_of_the_unit(self):
        """Its options are known, and reload is a SIGHUP."""
        text = re.sub(r"\\\n", " ", recipe("pypi-server.service"))
        command = shlex.split(re.search("ExecStart=(.*)", text).group(1))
        found = vars(pypi_server.make_parser().parse_args(command[2:]))
        self.assertEqual("run", found["command"])
        self.assertIn("-HUP", text)


class TestSupervisor(unittest.TestCase):
    def test_configuration_is_parsed(self):
        parser = configparser.RawConfigParser()
        parser.read_string(recipe("supervisor.conf"))
        section = parser["program:pypi-server"]
        command = shlex.split(section["command"])
        found = vars(pypi_server.make_parser().parse_args(command[2:]))
        self.assertEqual("run", found["command"])
        self.assertEqual("TERM", section["stopsignal"])

    def test_real_supervisor(self):
        """It starts the server, and stops it when it stops itself."""
        supervisord = program("supervisord", "supervisor")
        with tempfile.TemporaryDirectory() as folder:
            port = free_port()
            os.mkdir(os.path.join(folder, "packages"))
            text = recipe("supervisor.conf")
            for old, new in (
                    ("/usr/bin/python3", sys.executable),
                    ("/opt/pypi_server.py", SCRIPT),
                    ("8080", "%d -H 127.0.0.1" % port),
                    ("-P /srv/pypi/htpasswd", ""), ("/srv/pypi", folder),
                    ("/var/log", folder), ("user=pypi\n", "")):
                text = text.replace(old, new)
            path = os.path.join(folder, "supervisord.conf")
            with open(path, "w") as file:
                file.write("[supervisord]\nlogfile=%s/supervisord.log\n"
                           "pidfile=%s/pid\n\n%s" % (folder, folder, text))
            with Process([supervisord, "-n", "-c", path], port,
                         folder) as server:
                self.assertEqual(200, server.get("/health").status)
                self.assertLess(server.stop(), 15)
                wait_for(lambda: not is_listening(port), "it is stopped")
            with open(os.path.join(folder, "pypi-server.log")) as file:
                self.assertNotIn("Traceback", file.read())


def is_listening(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class TestContainers(unittest.TestCase):
    def instructions(self):
        text = re.sub(r"\\\n\s*", " ", recipe("Dockerfile"))
        return [line.split(None, 1) for line in text.splitlines()
                if line and not line.startswith("#")]

    def test_image_recipe(self):
        found = dict(self.instructions())
        self.assertRegex(found["FROM"], r":[\w.-]+$")
        self.assertRegex(found["USER"], r"^[1-9]\d*:[1-9]\d*$")
        command = json.loads(found["ENTRYPOINT"]) + json.loads(found["CMD"])
        parsed = vars(pypi_server.make_parser().parse_args(command[2:]))
        self.assertEqual("run", parsed["command"])
        self.assertEqual("/data/packages", found["VOLUME"])
        self.assertIn("HOME=/data", found["ENV"])
        self.assertEqual(str(pypi_server.Config().port), found["EXPOSE"])
        known = {"FROM", "COPY", "RUN", "ENV", "WORKDIR", "USER", "VOLUME",
                 "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
        self.assertLessEqual({name for name, _ in self.instructions()},
                             known)

    def test_health_check(self):
        """Its command tells a server that is up from one that is not."""
        check = dict(self.instructions())["HEALTHCHECK"]
        command = json.loads(check[check.index("["):])
        with tempfile.TemporaryDirectory() as folder, \
                ServerProcess(folder) as server:
            command = [sys.executable] + [
                part.replace("127.0.0.1:8080", urlsplit(server.url).netloc)
                for part in command[1:]]
            environment = {name: text for name, text in os.environ.items()
                           if not name.lower().endswith("_proxy")}
            self.assertEqual(0, subprocess.call(command, env=environment))
            server.stop()
            self.assertEqual(1, subprocess.call(
                command, env=environment, stderr=subprocess.DEVNULL))

    def test_compose_file(self):
        python = toolbox.require("tools")  # which has a parser of YAML
        code = ("import json, sys, yaml; "
                "print(json.dumps(yaml.safe_load(sys.stdin)))")
        found = json.loads(subprocess.check_output(
            [python, "-c", code],
            input=recipe("compose.yml").encode()).decode())
        services = found["services"]
        self.assertEqual({"open", "closed"}, set(services))
        for service in services.values():
            self.assertEqual(".", service["build"])
            self.assertTrue(service["read_only"])
            self.assertEqual(["ALL"], service["cap_drop"])
            vars(pypi_server.make_parser().parse_args(
                shlex.split(service["command"])))
        self.assertIn("-P /data/accounts/", services["closed"]["command"])
        for service in services.values():
            for volume in service["volumes"]:
                name = volume.partition(":")[0]
                self.assertTrue(name.startswith("./")
                                or name in found["volumes"], volume)


if __name__ == "__main__":
    unittest.main()
