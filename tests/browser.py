"""Chromium, driven by the WebDriver protocol (https://w3.org/TR/webdriver2/).

Both programs are those of the system; the library that finds faults in
accessibility, axe, is in the environment "browser" of the toolbox.
"""

import base64
import contextlib
import glob
import http.client
import json
import os
import shutil
import subprocess
import tempfile
import unittest

from tests import toolbox
from tests.helpers import wait_for
from tests.processes import free_port

# The key under which the protocol hands out elements.
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"Tab": "\ue004", "Enter": "\ue007"}


def require():
    """Skip the running test where there is no Chromium with its driver."""
    for name in "chromium", "chromedriver":
        if not shutil.which(name):
            raise unittest.SkipTest("%s is not installed" % name)


def axe():
    """Return the source of axe, or skip the running test."""
    python = toolbox.require("browser")
    found = glob.glob(os.path.join(
        os.path.dirname(os.path.dirname(python)), "lib", "python*",
        "site-packages", "axe_playwright_python", "axe.min.js"))
    with open(found[0], encoding="utf-8") as file:
        return file.read()


class Browser:
    """One window; use it in a `with` statement."""

    def __init__(self, script=True):
        self.script = script
        self.folder = tempfile.TemporaryDirectory()

    def __enter__(self):
        self.port = free_port()
        self.process = subprocess.Popen(
            ["chromedriver", "--port=%d" % self.port],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=dict(os.environ, HOME=self.folder.name))
        try:
            wait_for(self.is_up, "chromedriver answers", 30)
            options = {
                "binary": shutil.which("chromium"),
                "args": ["--headless=new", "--no-sandbox", "--disable-gpu",
                         "--disable-dev-shm-usage", "--hide-scrollbars",
                         "--no-proxy-server", "--lang=en",
                         "--user-data-dir=" + self.folder.name + "/profile"]}
            if not self.script:
                options["prefs"] = {
                    "profile.managed_default_content_settings.javascript": 2}
            self.session = "/session/" + self.send("POST", "/session", {
                "capabilities": {"alwaysMatch": {
                    "goog:chromeOptions": options,
                    "goog:loggingPrefs": {"browser": "ALL"}}}})["sessionId"]
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception):
        try:
            self.send("DELETE", self.session)
        finally:
            self.stop()

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        # Chromium writes to its profile a moment longer.
        wait_for(self.clean_up, "Chromium is gone", 20)

    def clean_up(self):
        shutil.rmtree(self.folder.name, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.cleanup()
        return not os.path.exists(self.folder.name)

    def is_up(self):
        try:
            return self.send("GET", "/status")["ready"]
        except OSError:
            return False

    def send(self, method, path, values=None):
        """Send a command of the protocol and return its value."""
        client = http.client.HTTPConnection("127.0.0.1", self.port,
                                            timeout=120)
        try:
            client.request(
                method, path,
                json.dumps(values or {}) if method == "POST" else None)
            response = client.getresponse()
            value = json.loads(response.read().decode())["value"]
        finally:
            client.close()
        if response.status != 200:
            raise AssertionError("%s: %s" % (value["error"],
                                             value["message"]))
        return value

    def post(self, command, **values):
        return self.send("POST", self.session + command, values)

    def cdp(self, command, **parameters):
        """Send a command of Chromium's own protocol."""
        return self.post("/goog/cdp/execute", cmd=command, params=parameters)

    def go(self, url):
        self.post("/url", url=url)

    @property
    def url(self):
        return self.send("GET", self.session + "/url")

    def run(self, script, *arguments):
        """Run a function body in the page and return its value."""
        return self.post("/execute/sync", script=script, args=arguments)

    def wait(self, script, seconds=20):
        """Wait until an expression in the page is true; return it."""
        return wait_for(lambda: self.run("return " + script), script,
                        seconds)

    def find(self, query):
        return self.post("/element", using="css selector", value=query)[
            ELEMENT]

    def click(self, query):
        self.post("/element/%s/click" % self.find(query))

    def type(self, query, text):
        self.post("/element/%s/value" % self.find(query), text=text)

    def press(self, *names):
        """Press keys, each after the other, wherever the focus is."""
        actions = []
        for name in names:
            key = KEYS.get(name, name)
            actions += [{"type": "keyDown", "value": key},
                        {"type": "keyUp", "value": key}]
        self.post("/actions", actions=[
            {"type": "key", "id": "keyboard", "actions": actions}])

    def text(self, query="body"):
        return self.run(
            "return document.querySelector(arguments[0]).innerText", query)

    def resize(self, width, height=900):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width,
                 height=height, deviceScaleFactor=1, mobile=width < 600)

    def prefer(self, theme):
        """Prefer a theme: "light" or "dark"."""
        self.cdp("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": theme}])

    def screenshot(self, whole=True):
        """Return the page as a PNG."""
        return base64.b64decode(self.cdp(
            "Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def pdf(self):
        return base64.b64decode(self.post("/print"))

    def messages(self):
        """Return what the console said since the last call."""
        return [entry["message"] for entry in self.post(
            "/se/log", type="browser")]

    def drop(self, query, *paths):
        """Drop files on an element, as a file manager would."""
        box = self.run(
            "const place = document.querySelector(arguments[0]);"
            "place.scrollIntoView({block: 'center'});"
            "const box = place.getBoundingClientRect();"
            "return {x: box.x + box.width / 2, y: box.y + box.height / 2};",
            query)
        data = {"items": [], "files": list(paths), "dragOperationsMask": 1}
        for kind in "dragEnter", "dragOver", "drop":
            self.cdp("Input.dispatchDragEvent", type=kind, data=data, **box)
