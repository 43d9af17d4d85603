"""XML-RPC: `pip search`, and what else may be sent to its address."""

import os
import random
import tempfile
import threading
import time
import unittest
import xmlrpc.client
from unittest import mock

import pypi_server
from tests import archives, forms, toolbox
from tests.helpers import (
    WAYS, DirectoryTestCase, call, call_socket, listening,
)
from tests.test_clients import run_isolated

# project, version, summary
PROJECTS = (
    ("Demo-Pkg", "1.0", "The demo of <everything> & more"),
    ("demo.two", "0.9", "An older one"),
    ("demo.two", "1.10", "Another \xfcberblick"),
    ("demo.two", "1.9", "An old one"),
    ("other", "2.0", "Not a DEMO at all"),
    ("pre", "1.0", "Stable"),
    ("pre", "2.0rc1", "Release candidate"),
    ("silent", "3", "UNKNOWN"),
)


def request(spec=None, operator="or", method="search"):
    """Return the body of a call as pip sends it."""
    return xmlrpc.client.dumps(
        ({"name": ["demo"]} if spec is None else spec, operator),
        method).encode("utf-8")


def post(app, body, way=call, target="/pypi", **headers):
    headers.setdefault("Content-Type", "text/xml")
    return way(app, "POST", target, headers, body)


class SearchTestCase(DirectoryTestCase):

    def setUp(self):
        super().setUp()
        self.app = self.make_app(authenticated=(), password_file=".")
        for name, version, summary in PROJECTS:
            self.add(name, version, summary)

    def add(self, name, version, summary):
        data = archives.zipped({
            "%s-%s.dist-info/METADATA" % (
                name.replace("-", "_"), version): (
                "Metadata-Version: 2.1\nName: %s\nVersion: %s\nSummary: %s\n"
                % (name, version, summary)).encode("utf-8")})
        headers, body = forms.upload(
            archives.wheel_filename(name, version), data)
        answer = call(self.app, "POST", "/", headers, body)
        self.assertEqual(answer.status, 200, answer)


class CostTest(SearchTestCase):
    """Many projects cost little, once they were read: anybody may ask."""

    def looked_at(self, action):
        """Return the archives that are looked at meanwhile."""
        found = []
        look = pypi_server.look

        def note(path):
            found.append(path)
            return look(path)
        with mock.patch.object(pypi_server, "look", note):
            action()
        return [path for path in found if path.endswith(".whl")]

    def test_no_file_is_looked_at_again(self):
        def search():
            body = post(self.app, request({"name": ["demo"]})).body
            self.assertIn(b"1.10", body)
        search()
        with mock.patch.object(pypi_server, "CHECK_INTERVAL", 0):
            self.app.directories.refresh()
            time.sleep(0.4)  # longer than what was known then holds
            self.assertEqual([], self.looked_at(search))

    def test_the_list_of_all_archives_is_rendered_once(self):
        rendered = []
        render = pypi_server.archives_page

        def note(place, links):
            rendered.append(1)
            time.sleep(0.3)
            return render(place, links)
        with mock.patch.object(pypi_server, "archives_page", note):
            threads = [threading.Thread(target=call, args=(
                self.app, "GET", "/packages/")) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual([1], rendered)
            self.add("last", "1", "The last one")
            self.assertIn(b"last-1-", call(
                self.app, "GET", "/packages/").body)
        self.assertEqual([1, 1], rendered)

    def test_hits_are_counted(self):
        with mock.patch.object(pypi_server, "HITS_LIMIT", 3):
            (hits,), _ = xmlrpc.client.loads(post(
                self.app, request({}, "and")).body)
        self.assertEqual(["demo-pkg", "demo-two", "other"],
                         [hit["name"] for hit in hits])


class SearchTest(SearchTestCase):

    def test_queries(self):
        table = (
            # spec, operator, names of the hits
            ({"name": ["demo"]}, "or", ["demo-pkg", "demo-two"]),
            ({"name": "demo"}, "or", ["demo-pkg", "demo-two"]),
            ({"name": ["DEMO-P"]}, "or", ["demo-pkg"]),
            ({"summary": ["demo"]}, "or", ["demo-pkg", "other"]),
            ({"name": ["demo"], "summary": ["demo"]}, "or",
             ["demo-pkg", "demo-two", "other"]),
            ({"name": ["demo"], "summary": ["demo"]}, "and", ["demo-pkg"]),
            ({"name": ["pkg", "two"]}, "or", ["demo-pkg", "demo-two"]),
            ({"name": ["pkg", "other"], "summary": ["all"]}, "and",
             ["other"]),
            ({"summary": ["\xdcBER"]}, "or", ["demo-two"]),
            ({"summary": ["<everything> &"]}, "or", ["demo-pkg"]),
            ({"name": ["nothing"]}, "or", []),
            ({"name": []}, "or", []),
            ({}, "or", []),
        )
        with listening(self.app) as address:
            for path in ("/pypi", "/RPC2", "/"):
                with xmlrpc.client.ServerProxy(
                        "http://%s:%d%s" % (address + (path,))) as proxy:
                    for spec, operator, expected in table:
                        with self.subTest(spec=spec, path=path):
                            self.assertEqual(
                                [hit["name"] for hit in
                                 proxy.search(spec, operator)], expected)

    def test_hits_are_what_pip_shows(self):
        with listening(self.app) as address, xmlrpc.client.ServerProxy(
                "http://%s:%d/pypi" % address) as proxy:
            hits = {hit["name"]: hit for hit in proxy.search({"name": [""]})}
        self.assertEqual(
            {name: (hit["version"], hit["summary"])
             for name, hit in hits.items()}, {
                "demo-pkg": ("1.0", "The demo of <everything> & more"),
                "demo-two": ("1.10", "Another \xfcberblick"),
                "other": ("2.0", "Not a DEMO at all"),
                "pre": ("1.0", "Stable"), "silent": ("3", "")})

    def test_a_summary_that_is_no_xml_does_not_hide_the_others(self):
        self.add("strange", "1.0", "a\x08\x1b[1mbell\uffff]]>")
        with listening(self.app) as address, xmlrpc.client.ServerProxy(
                "http://%s:%d/pypi" % address) as proxy:
            names = [hit["name"] for hit in proxy.search({"name": ["e"]})]
        self.assertEqual(names, [
            "demo-pkg", "demo-two", "other", "pre", "silent", "strange"])

    def test_other_methods_do_not_exist(self):
        with listening(self.app) as address, xmlrpc.client.ServerProxy(
                "http://%s:%d/pypi" % address) as proxy:
            for name in ("list_packages", "package_releases", "search.x",
                         "system.listMethods", "changelog", ""):
                with self.assertRaises(xmlrpc.client.ProtocolError) as caught:
                    getattr(proxy, name)({"name": ["demo"]})
                self.assertEqual(caught.exception.errcode, 400)
                self.assertIn("search", caught.exception.errmsg)

    def test_the_list_permission_is_needed(self):
        with open(os.path.join(self.folder, "users"), "w") as file:
            file.write("joe:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n")
        for actions, status in ((("update",), 200), (("list",), 401),
                                (("download", "list"), 401)):
            app = self.make_app(authenticated=actions,
                                password_file=file.name)
            for target in ("/", "/pypi", "/pypi/", "/RPC2", "/RPC2/"):
                with self.subTest(actions=actions, target=target):
                    self.assertEqual(post(
                        app, request(), target=target).status, status)
                    self.assertEqual(post(
                        app, request(), target=target,
                        **forms.credentials("joe", "secret")).status, 200)


BOMB = (b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'>"
        + b"".join(b"<!ENTITY %c '%s'>" % (98 + n, b"&%c;" % (97 + n) * 10)
                   for n in range(9)) + b"]>" + request().replace(
            b"demo", b"&j;"))
EXTERNAL = (b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a SYSTEM "
            b"'file:///etc/hostname'>]>" + request().replace(b"demo", b"&a;"))
DECLARED = (
    BOMB, EXTERNAL, b"<!DOCTYPE x>" + request(),
    b"<!doctype x>" + request(),
    b"<?xml version='1.0'?>\n<!DOCTYPE x SYSTEM 'http://127.0.0.1:9/'>"
    + request(),
    b"<?xml version='1.0'?><!DOCTYPE x PUBLIC 'a' 'http://127.0.0.1:9/'>"
    + request(),
    b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY % p SYSTEM 'x'> %p;]>"
    + request(),
)


def in_other_codings(body):
    """Yield a document in codings that hide its declarations."""
    text = body.decode("ascii").partition("?>")[2]
    for coding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7",
                   "cp037", "cp500", "utf-8-sig", "iso2022_jp"):
        for name in (coding, coding.replace("-le", "").replace("-be", "")):
            head = "<?xml version='1.0' encoding='%s'?>" % name
            yield (head + text).encode(coding)
            yield head.encode("ascii") + text.encode(coding)


class AttackTest(SearchTestCase):

    def test_declarations_are_refused(self):
        for body in DECLARED:
            for way in WAYS:
                with self.subTest(body=body[:60], way=way.__name__):
                    self.assertEqual(
                        post(self.app, body, way).status, 400)

    def test_declarations_in_disguise_are_refused(self):
        for body in (BOMB, EXTERNAL):
            for disguised in in_other_codings(body):
                answer = post(self.app, disguised)
                self.assertEqual(answer.status, 400, disguised[:60])
                self.assertLess(len(answer.body), 1000)

    def test_size(self):
        limit = pypi_server.SEARCH_LIMIT
        small = request({"name": ["x" * (limit - 400)]})
        self.assertLess(len(small), limit)
        large = request({"name": ["x" * limit]})
        for way in WAYS:
            self.assertEqual(post(self.app, small, way).status, 200)
            self.assertEqual(post(self.app, large, way).status, 413)
        self.assertEqual(
            post(self.app, b"x" * 10 ** 7, call_socket).status, 413)

    def test_deep_and_wide(self):
        deep, wide = [], {}
        for _ in range(150):
            deep = [deep]
        for number in range(500):
            wide["n%d" % number] = 1
        for body in (
                request({"name": deep}), request(wide),
                request({"name": ["x"] * 1500}),
                b"<methodCall>" + b"<a>" * 20000,
                b"<methodCall>" + b"<value><array><data>" * 3000,
                request({"name": []}).replace(
                    b"<data>", b"<data>" + b"<value><array><data>" * 900, 1)
                .replace(b"</data>", b"</data></array></value>" * 900
                         + b"</data>", 1),
                b"<methodCall><methodName>" + b"search" * 10000,
                b"<a " + b"b='' " * 10000 + b">"):
            with self.subTest(body=body[:40]):
                self.assertIn(post(self.app, body).status, (200, 400))

    def test_junk(self):
        whole = request()
        for body in (
                b"", b"x", b"<", b"<>", b"<methodCall/>", b"\0", b"\xff\xfe",
                b"<methodCall><methodName>search</methodName></methodCall>",
                b"<methodCall><methodName/></methodCall>",
                xmlrpc.client.dumps((1,), methodresponse=True).encode(),
                xmlrpc.client.dumps(xmlrpc.client.Fault(1, "x")).encode(),
                request([]), request(1), request(""), request("demo"),
                request(True), request({"name": 1}), request({"name": {}}),
                request({"name": [1, 2.5, True, b"x", [], {}]}),
                request({"summary": 0}), request(["name"]),
                request().replace(b"<string>demo</string>", b"<int>x</int>"),
                request().replace(b"string", b"nosuch"),
                request().replace(b"<string>demo</string>",
                                  b"<int>%s</int>" % (b"9" * 60000)),
                request().replace(b"<string>demo</string>", b"<nil/>"),
                request().replace(b"<string>demo</string>",
                                  b"<base64>!</base64>"),
                request().replace(b"<string>demo</string>",
                                  b"<dateTime.iso8601>x</dateTime.iso8601>"),
                request().replace(b"demo", b"&lt;!DOCTYPE&amp;"),
                request().replace(b"demo", b"&nosuch;"),
                request().replace(b"demo", b"\xff"),
                whole * 2, whole[:-5], whole + b"<", b" " + whole,
                b"<?xml version='1.0' encoding='nosuch'?>" + whole):
            for way in WAYS[:2]:
                with self.subTest(body=body[:99], way=way.__name__):
                    answer = post(self.app, body, way)
                    self.assertIn(answer.status, (200, 400))
                    if answer.status == 400:
                        self.assertNotIn(b"\n", answer.body.rstrip(b"\n"))

    def test_damaged_calls(self):
        dice = random.Random(6)
        body = request({"name": ["demo"], "summary": ["x", "y"]}, "and")
        for _ in range(1000):
            damaged = bytearray(body)
            for _ in range(dice.randint(1, 5)):
                at = dice.randrange(len(damaged))
                if dice.random() < .5:
                    damaged[at] = dice.randrange(256)
                else:
                    del damaged[at:at + dice.randint(1, 9)]
            self.assertIn(post(self.app, bytes(damaged)).status, (200, 400),
                          damaged)

    def test_other_types_are_no_search(self):
        for media_type in ("application/json", "text/plain", "",
                           "application/x-www-form-urlencoded"):
            answer = post(self.app, request(), target="/RPC2",
                          **{"Content-Type": media_type})
            self.assertIn(answer.status, (405, 415))


class PipTest(SearchTestCase):
    """The pips that had a search."""

    def check(self, environment):
        python = toolbox.require(environment)
        with listening(self.app) as address:
            for path in ("/pypi", "/", ""):
                for query, expected in (("demo", 3), ("nothing", 0)):
                    home = tempfile.mkdtemp(dir=self.folder)
                    process = run_isolated(
                        home, python, "-m", "pip", "search", "--index",
                        "http://%s:%d%s" % (address + (path,)),
                        "--trusted-host", "127.0.0.1", query)
                    output = process.stdout
                    self.assertEqual(output.count(" - "), expected, output)
                    # "Nothing found" has a status of its own.
                    self.assertEqual(process.returncode,
                                     0 if expected else 23, output)
                    if expected:
                        self.assertRegex(
                            output, r"demo-two \(1\.10\) +- Another")

    def test_pip_20_3(self):
        self.check("pip_20")

    def test_pip_9(self):
        self.check("pip_9")


if __name__ == "__main__":
    unittest.main()
