"""More than one machine, with the real programs: nginx, S3, clients.

The configurations are those of the guide.  Programs that are missing skip
their tests; tests/clients/s3.txt has the object store.
"""

import collections
import glob
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from urllib.parse import urljoin, urlsplit

import pypi_server
from tests import archives, forms, guide, toolbox
from tests.helpers import (
    PROGRAM, ServerProcess, ask, entries, names_in, texts, wait_for,
)
from tests.processes import Process, free_port
from tests.test_clients import (
    CHOSEN, fill, installed, run_isolated, site_packages,
)
from tests.test_recipes import program
from tests.upstream import isolated

SIMPLE_JSON = pypi_server.SIMPLE_JSON
OPEN = ("-a", ".", "-P", ".", "--disable-fallback")
# Headers of real clients, and of none; after each, whether it gets JSON.
ACCEPTS = (
    ("application/vnd.pypi.simple.v1+json, "
     "application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01", True),
    ("application/vnd.pypi.simple.v1+json, "
     "application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01", True),
    ("application/vnd.pypi.simple.v1+json", True),
    ("application/vnd.pypi.simple.latest+json", True),
    ("text/html;q=0.1, APPLICATION/vnd.pypi.simple.v1+json", True),
    ("application/vnd.pypi.simple.v1+json;q=1.0, text/html;q=0.5", True),
    ("application/vnd.pypi.simple.v1+json;q=0.3", True),
    ("", False), ("*/*", False), ("text/html", False),
    ("application/vnd.pypi.simple.v1+html", False),
    ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
     False),
    ("text/html, application/vnd.pypi.simple.v1+json;q=0.5", False),
    ("text/html, application/vnd.pypi.simple.v1+json;q=0", False))


class Nginx:
    """nginx with a configuration of the guide; used in `with`.

    Args:
        places: {text of the recipe: what stands there in this test}.
    """

    def __init__(self, name, **places):
        self.folder = tempfile.mkdtemp()
        self.port = free_port()
        self.url = "http://127.0.0.1:%d/" % self.port
        self.text = guide.recipe(name).replace(
            "listen 80;", "listen 127.0.0.1:%d;" % self.port)
        for old, new in places.pop("places").items():
            if old not in self.text:
                raise AssertionError("%r is not in %s" % (old, name))
            self.text = self.text.replace(old, new)
        temporary = "".join(
            "%s_temp_path %s/%s;\n" % (kind, self.folder, kind) for kind in (
                "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        self.path = os.path.join(self.folder, "nginx.conf")
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0
        with open(self.path, "w") as file:
            file.write("daemon off; %s pid %s/pid; error_log stderr;\n"
                       "events {} http { access_log off; %s %s }" % (
                           "user root;" if is_root else "", self.folder,
                           temporary, self.text))
        self.process = Process(
            [program("nginx", "nginx-light"), "-p", self.folder, "-c",
             self.path, "-g", "error_log stderr;"], self.port, self.folder)

    def __enter__(self):
        self.process.__enter__()
        return self

    def __exit__(self, *exception):
        self.process.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)

    def get(self, path, headers=None):
        return self.process.get(path, headers)


def reader(site):
    return Nginx("site.conf", places={"/srv/site": site})


class ScaleTestCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.root = os.path.join(self.folder, "packages")
        self.site = os.path.join(self.folder, "site")
        self.home = os.path.join(self.folder, "home")
        os.mkdir(self.root)
        os.mkdir(self.home)

    def command(self, *options):
        return [sys.executable, "-W", "error", *PROGRAM, "export",
                "--cache-dir", os.path.join(self.folder, "digests"),
                *options, self.root, self.site]

    def export(self, *options):
        subprocess.check_output(
            self.command(*options), stderr=subprocess.STDOUT,
            env=isolated(self.home), timeout=120)

    def watch(self):
        process = subprocess.Popen(
            self.command("--watch", "--delete"), env=isolated(self.home),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        wait_for(lambda: os.path.exists(os.path.join(
            self.site, "index.html")), "the first export")

    def enter(self, manager):
        found = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return found

    def run_client(self, *command, **options):
        process = run_isolated(self.home, *command, **options)
        self.assertEqual(0, process.returncode, process.stdout)
        return process.stdout

    def check_installers(self, url):
        """Install with pip and uv from this index."""
        index = url + "simple/"
        python = toolbox.require("tools")
        uv = toolbox.require("tools", "uv")
        for name, command in (
                ("pip", [python, "-m", "pip", "install"]),
                ("uv", [uv, "pip", "install", "-p", python])):
            target = os.path.join(self.folder, name)
            self.run_client(*command, "--target", target, "--index-url",
                            index, "app")
            self.assertEqual(CHOSEN, installed(target))

    def check_clients(self, url):
        """Install with pip, uv and poetry from this index."""
        self.check_installers(url)
        poetry = toolbox.require("poetry", "poetry")
        project = os.path.join(self.folder, "project")
        os.mkdir(project)
        with open(os.path.join(project, "pyproject.toml"), "w") as file:
            file.write(
                '[project]\nname = "x"\nversion = "1"\n'
                'requires-python = ">=3.11,<4"\ndependencies = ["app"]\n'
                '[tool.poetry]\npackage-mode = false\n'
                '[[tool.poetry.source]]\nname = "local"\nurl = "%s"\n'
                'priority = "primary"\n' % (url + "simple/"))
        for command in "lock", "install":
            self.run_client(
                poetry, command, "--no-interaction", cwd=project,
                POETRY_VIRTUALENVS_IN_PROJECT="true",
                POETRY_CACHE_DIR=os.path.join(self.home, "poetry"),
                POETRY_CONFIG_DIR=self.home, POETRY_DATA_DIR=self.home)
        self.assertEqual(CHOSEN, installed(site_packages(
            os.path.join(project, ".venv"))))


def make_bucket(url):
    """Make the bucket `pypi` that anybody may read; return the environment.
    """
    environment = {
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": url,
        "AWS_EC2_METADATA_DISABLED": "true"}
    policy = {"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::pypi/*"}]}
    for command in (["s3", "mb", "s3://pypi"],
                    ["s3api", "put-bucket-policy", "--bucket", "pypi",
                     "--policy", json.dumps(policy)]):
        subprocess.check_output(
            [toolbox.require("s3", "aws"), *command],
            env=dict(os.environ, **environment))
    return environment


class TestReaders(ScaleTestCase):
    def test_clients_with_the_origin_down(self):
        fill(self.root)
        self.export()
        os.rename(self.root, self.root + "-away")
        with reader(self.site) as nginx:
            self.check_clients(nginx.url)

    def test_pages_are_negotiated_as_by_the_server(self):
        """By Accept and by ?format=; with gzip; all links lead on."""
        fill(self.root)
        self.export()
        server = self.enter(ServerProcess(*OPEN, self.root))
        wait_for(lambda: len(texts(server.get(
            "simple/lib-one/").body)) > 4, "all are listed")
        nginx = self.enter(reader(self.site))
        for path in "simple/", "simple/lib-one/":
            for accept, is_json in ACCEPTS:
                with self.subTest(path, accept=accept):
                    headers = {"Accept": accept} if accept else {}
                    found = nginx.get("/" + path, headers)
                    expected = server.get(path, headers)
                    self.assertEqual((200, expected.body),
                                     (found.status, found.body))
                    self.assertEqual(is_json, found.headers[
                        "content-type"] == SIMPLE_JSON)
                    self.assertIn("Accept", found.headers["vary"])
            for query in (SIMPLE_JSON, SIMPLE_JSON.replace("+", "%2B"),
                          "text/html", pypi_server.SIMPLE_HTML):
                query = "?format=" + query
                self.assertEqual(server.get(path + query).body,
                                 nginx.get("/" + path + query).body, query)
        packed = nginx.get("/simple/lib-one/", {"Accept-Encoding": "gzip"})
        self.assertEqual("gzip", packed.headers["content-encoding"])
        self.assertEqual(packed.body, server.get("simple/lib-one/", {
            "Accept-Encoding": "gzip"}).body)

    def test_addresses(self):
        fill(self.root)
        archives.put(self.root, "a b/c%d-1.0+x.1.tar.gz",
                     archives.sdist("c", "1.0+x.1"))
        self.export()
        nginx = self.enter(reader(self.site))
        for attributes, _ in entries(nginx.get("/packages/").body):
            url = urlsplit(urljoin(nginx.url + "packages/",
                                   attributes["href"])).path
            answer = nginx.get(url, {"Accept-Encoding": "gzip"})
            self.assertEqual(200, answer.status, url)
            self.assertEqual("application/octet-stream",
                             answer.headers["content-type"])
            self.assertNotIn("content-encoding", answer.headers)
            if url.endswith(".whl"):
                answer = nginx.get(url + ".metadata")
                self.assertEqual(200, answer.status, url)
        for path in "/pypi/app/json", "/pypi/app/1.0/json", "/app/json":
            answer = nginx.get(path)
            self.assertEqual("application/json",
                             answer.headers["content-type"])
            self.assertEqual("app", json.loads(
                answer.body.decode())["info"]["name"])
        for path in ("/.pypi-server/projects/app.json", "/simple/none/",
                     "/.pypi-server/nginx-map.conf", "/none"):
            self.assertEqual(404, nginx.get(path).status, path)
        for path, media_type in (
                ("/packages/", "text/html; charset=utf-8"),
                ("/search/", "text/html; charset=utf-8"),
                ("/withheld/", "text/html; charset=utf-8"),
                ("/withheld/index.json", "application/json"),
                ("/project/app/", "text/html; charset=utf-8"),
                ("/project/app/1.0/", "text/html; charset=utf-8"),
                ("/favicon.ico", "image/svg+xml"),
                ("/-/icon.svg", "image/svg+xml"),
                ("/-/style.css", "text/css; charset=utf-8"),
                ("/-/script.js", "text/javascript; charset=utf-8")):
            answer = nginx.get(path)
            self.assertEqual((200, media_type), (
                answer.status, answer.headers["content-type"]), path)
        for key, value in pypi_server.FOR_PEOPLE:
            self.assertEqual(value, nginx.get("/project/app/").headers[
                key.lower()])
        for path in ("/simple", "/simple/app", "/packages", "/project/app",
                     "/project/app/1.0", "/search"):
            answer = nginx.get(path)
            self.assertEqual((301, path + "/"), (
                answer.status, answer.headers["location"]))
        self.assertEqual("text/html; charset=utf-8", nginx.get(
            "/").headers["content-type"])
        url = "/packages/app-1.0-py3-none-any.whl"
        whole = nginx.get(url)
        part = nginx.get(url, {"Range": "bytes=3-8"})
        self.assertEqual((206, whole.body[3:9]), (part.status, part.body))
        self.assertEqual(304, nginx.get("/simple/app/", {
            "If-None-Match": nginx.get("/simple/app/").headers["etag"]
        }).status)

    def test_an_upload_is_on_all_readers(self):
        """Balancer, two readers, one origin that takes the uploads."""
        origin = self.enter(ServerProcess(*OPEN, self.root))
        fill(self.root)
        self.watch()
        one, two = self.enter(reader(self.site)), self.enter(
            reader(self.site))
        front = self.enter(Nginx("readers.conf", places={
            "127.0.0.1:8081": urlsplit(one.url).netloc,
            "127.0.0.1:8082": urlsplit(two.url).netloc,
            "127.0.0.1:8080": urlsplit(origin.url).netloc}))
        data = archives.wheel("fresh", "1.0")
        headers, body = forms.upload("fresh-1.0-py3-none-any.whl", data,
                                     **forms.digests(data))
        answer = front.process.get("/", headers, "POST", body)
        self.assertEqual(200, answer.status, answer.body)
        for place in one, two, front:
            wait_for(lambda: place.get("/simple/fresh/").status == 200,
                     "it is there")
            self.assertEqual(data, place.get(
                "/packages/fresh-1.0-py3-none-any.whl").body)
            wait_for(lambda: b">fresh<" in place.get("/simple/").body,
                     "it is listed")
        origin.stop(signal.SIGKILL)
        self.check_installers(front.url)

    def test_copies_move_only_changes(self):
        rsync = program("rsync", "rsync")
        fill(self.root)
        self.export()
        copy = os.path.join(self.folder, "copy")

        def run():
            printed = subprocess.check_output(
                [rsync, "-ai", "--modify-window=-1", "--delete-after",
                 self.site + "/", copy])
            return {line.split(None, 1)[1]
                    for line in printed.decode().splitlines()
                    if line.startswith(">f")}
        self.assertIn("simple/app/index.json", run())
        self.assertEqual(set(), run())
        archives.put(self.root, "app-1.1-py3-none-any.whl",
                     archives.wheel("app", "1.1"))
        self.export()
        self.assertEqual(
            {"index.html", "packages/index.html", "search/index.html"},
            {name for name in run()
             if "app" not in name and not name.endswith(".gz")})
        with reader(copy) as nginx:
            self.assertIn(b"app-1.1", nginx.get("/simple/app/").body)


class TestObjectStore(ScaleTestCase):
    def setUp(self):
        super().setUp()
        self.port = free_port()
        self.store = self.enter(Process(
            [toolbox.require("s3", "moto_server"), "-H", "127.0.0.1", "-p",
             str(self.port)], self.port, self.folder))
        self.environment = make_bucket("http://127.0.0.1:%d" % self.port)

    def aws(self, *arguments):
        return self.run_client(toolbox.require("s3", "aws"), *arguments,
                               **self.environment)

    def sync(self):
        """Run the commands of the guide; return what they uploaded."""
        printed = ""
        for command in guide.commands("An object store"):
            printed += self.aws(*[
                word.replace("~/site", self.site)
                for word in shlex.split(command)[1:]])
        return re.findall(r"(?:upload: .* to|delete:) s3://pypi/(\S+)",
                          printed)

    def test_clients_with_the_origin_down(self):
        fill(self.root)
        archives.put(self.root, "loc-1.0+x.1-py3-none-any.whl",
                     archives.wheel("loc", "1.0+x.1"))
        self.export()
        sent = self.sync()
        order = [sent.index(path) for path in (
            "packages/app-1.0-py3-none-any.whl", "simple/app/index.json",
            "simple/app/index.html")]
        self.assertEqual(sorted(order), order)
        self.assertEqual([], self.sync())
        os.rename(self.root, self.root + "-away")
        os.rename(self.site, self.site + "-away")
        cache = os.path.join(self.folder, "cache")
        front = self.enter(Nginx("store.conf", places={
            "/srv/site": self.site + "-away",
            "/var/cache/nginx/pypi": cache,
            "http://s3.amazonaws.com": "http://127.0.0.1:%d" % self.port}))
        self.check_clients(front.url)
        for accept, is_json in ACCEPTS:
            answer = front.get("/simple/app/",
                               {"Accept": accept} if accept else {})
            self.assertEqual((200, is_json), (
                answer.status,
                answer.headers["content-type"] == SIMPLE_JSON), accept)
        for path in ("/", "/simple/", "/search/", "/project/app/",
                     "/project/app/1.0/", "/-/style.css", "/withheld/",
                     "/packages/", "/withheld/index.json",
                     "/packages/loc-1.0%2Bx.1-py3-none-any.whl"):
            self.assertEqual(200, front.get(path).status, path)

    def test_only_changes_are_sent(self):
        fill(self.root)
        self.export()
        self.sync()
        # The store has whole seconds.
        time.sleep(1.1)
        archives.put(self.root, "app-1.1-py3-none-any.whl",
                     archives.wheel("app", "1.1"), age=0)
        os.unlink(os.path.join(self.root, "lib_three-2.0rc1-py3-none-any.whl"))
        self.export("--delete")
        found = {re.sub(r"(\.html|/json|\.json)(\.gz)?$", "", name)
                 for name in self.sync()}
        self.assertEqual(
            {"index", "search/index", "packages/index", "simple/app/index",
             "project/app/index", "project/app/1.1/index",
             "project/lib-three/index", "project/lib-three/2.0rc1/index",
             "pypi/app", "pypi/app/1.1", "packages/app-1.1-py3-none-any.whl",
             "packages/app-1.1-py3-none-any.whl.metadata",
             "simple/lib-three/index", "pypi/lib-three",
             "pypi/lib-three/2.0rc1",
             "packages/lib_three-2.0rc1-py3-none-any.whl",
             "packages/lib_three-2.0rc1-py3-none-any.whl.metadata"}, found)


class TestOrigins(ScaleTestCase):
    """Several servers on one directory behind a balancer."""

    def setUp(self):
        super().setUp()
        self.origins = [self.enter(self.origin()) for _ in range(2)]
        one, two = (urlsplit(origin.url).netloc for origin in self.origins)
        self.front = Nginx("origins.conf", places={
            "127.0.0.1:8081": one, "127.0.0.1:8082": two})
        self.enter(self.front)

    def origin(self):
        # Each with a cache of its own, as on another machine.
        return ServerProcess(*OPEN, self.root)

    def post(self, server, filename, data):
        headers, body = forms.upload(filename, data)
        address = urlsplit(server.url)
        return ask(address.hostname, address.port, "POST", "/", headers,
                   body)

    def at_once(self, *calls):
        """Call all at the same moment; return what they return."""
        found = [None] * len(calls)
        barrier = threading.Barrier(len(calls))

        def run(place):
            barrier.wait()
            found[place] = calls[place]()
        threads = [threading.Thread(target=run, args=(place,))
                   for place in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    def stored(self):
        """Return the files; nothing hidden may be left."""
        names = names_in(self.root)
        self.assertEqual([], [name for name in names
                              if name.startswith(".")])
        return sorted(names)

    def test_an_upload_is_seen_at_the_other_origin(self):
        """Within 2 s (promise 2), though it is not told."""
        for number in range(4):
            filename = "seen-1.%d-py3-none-any.whl" % number
            data = archives.wheel("seen", "1.%d" % number)
            one, other = self.origins[::1 if number % 2 else -1]
            self.assertEqual(200, self.post(one, filename, data).status)
            self.assertIn(filename, texts(one.get("simple/seen/").body))
            wait_for(lambda: filename in texts(
                other.get("simple/seen/").body), "seen", 2)
            self.assertEqual(data, other.get("packages/" + filename).body)

    def test_same_name_at_once(self):
        """One of two contents is stored; nobody is told something else."""
        for number in range(12):
            filename = "race-1.%d-py3-none-any.whl" % number
            contents = [archives.wheel("race", "1.%d" % number, body=body)
                        for body in ("one", "two")]
            answers = self.at_once(*(
                lambda place=place, data=data: self.post(
                    self.origins[place], filename, data)
                for place in (0, 1) for data in contents))
            with open(os.path.join(self.root, filename), "rb") as file:
                stored = file.read()
            expected = [200 if data == stored else 409
                        for _ in (0, 1) for data in contents]
            self.assertEqual(expected, [answer.status for answer in answers])
        self.assertEqual(12, len(self.stored()))

    def test_two_spellings_at_once(self):
        """Of one release there is one sdist, whoever came first."""
        for number in range(15):
            version = "2.%d" % number
            data = archives.sdist("two.names", version)
            names = ["two.names-%s.tar.gz" % version,
                     "two_names-%s.tar.gz" % version,
                     "Two-Names-%s.0.tar.gz" % version]
            answers = self.at_once(*(
                lambda place=place, name=name: self.post(
                    self.origins[place % 2], name, data)
                for place, name in enumerate(names)))
            self.assertEqual([200, 409, 409], sorted(
                answer.status for answer in answers))
        self.assertEqual(15, len(self.stored()))

    def test_two_spellings_in_the_middle_of_each_other(self):
        """Where naming a file takes long, the other one has to wait."""
        strace = program("strace", "strace")
        slow = []
        for _ in range(2):
            server = self.origin()
            # -D: what is started is the server, and strace its child.
            server.command[:0] = [
                strace, "-D", "-f", "-qq", "-o", "/dev/null", "-e",
                "trace=link,linkat", "-e",
                "inject=link,linkat:delay_enter=400000"]
            try:
                slow.append(self.enter(server))
            except AssertionError:
                self.skipTest("strace may not trace here")
        for number in range(3):
            version = "3.%d" % number
            data = archives.sdist("two.names", version)
            answers = self.at_once(*(
                lambda server=server, name=name: self.post(
                    server, name % version, data)
                for server, name in zip(slow, (
                    "two.names-%s.tar.gz", "two_names-%s.tar.gz"))))
            self.assertEqual([200, 409], sorted(
                answer.status for answer in answers))
        self.assertEqual(3, len(self.stored()))

    def test_parallel_uploads_of_clients(self):
        """twine and uv through the balancer: all is there, and once."""
        twine = toolbox.require("tools", "twine")
        uv = toolbox.require("tools", "uv")
        expected = {}
        commands = []
        for number in range(4):
            folder = os.path.join(self.folder, "dist%d" % number)
            for version in range(5):
                name = "p%d" % (number // 2)
                # Each client of a pair has one file that the other has too.
                full = "1.%d.%d" % (number % 2 if version else 9, version)
                filename = archives.wheel_filename(name, full)
                data = archives.wheel(name, full)
                archives.put(folder, filename, data)
                expected[filename] = hashlib.sha256(data).hexdigest()
            files = sorted(glob.glob(os.path.join(folder, "*.whl")))
            commands.append(
                [twine, "upload", "--non-interactive", "--repository-url",
                 self.front.url, "-u", "x", "-p", "y", *files]
                if number % 2 else
                [uv, "publish", "--publish-url", self.front.url, "-u", "x",
                 "-p", "y", *files])
        self.at_once(*(lambda command=command: self.run_client(*command)
                       for command in commands))
        self.assertEqual(sorted(expected), self.stored())
        for filename, digest in expected.items():
            self.assertEqual(digest, pypi_server.sha256_of(
                os.path.join(self.root, filename)))
        for origin in self.origins:
            wait_for(lambda: {
                text for name in ("p0", "p1")
                for text in texts(origin.get("simple/%s/" % name).body)
            } == set(expected), "all are listed")

    def test_an_origin_is_killed_in_the_middle(self):
        """What was answered with 200 is there, whole, and once."""
        noise = os.urandom(300000)
        counts = collections.Counter()
        accepted = {}
        killed = threading.Event()

        def send(worker):
            for number in range(12):
                version = "%d.%d" % (worker, number)
                filename = "kill-%s-py3-none-any.whl" % version
                data = archives.wheel("kill", version, files={
                    "noise": noise[number:]})
                for _ in range(3):  # as a person does after a failure
                    answer = self.post(self.front, filename, data)
                    counts[answer.status] += 1
                    if answer.status == 200:
                        accepted[filename] = hashlib.sha256(data).hexdigest()
                        break
                if worker == 0 and number == 3:
                    self.origins[0].process.send_signal(signal.SIGKILL)
                    killed.set()

        self.at_once(*(lambda worker=worker: send(worker)
                       for worker in range(4)))
        self.assertTrue(killed.is_set())
        self.assertEqual(48, len(accepted), counts)
        self.assertLessEqual(set(counts), {200, 502})
        # What the dead one left is removed by the next that starts.
        with self.origin():
            wait_for(lambda: not [
                name for name in names_in(self.root)
                if name.startswith(".")], "nothing is left")
            self.assertEqual(sorted(accepted), self.stored())
        for filename, digest in accepted.items():
            self.assertEqual(digest, pypi_server.sha256_of(
                os.path.join(self.root, filename)))


if __name__ == "__main__":
    unittest.main()
