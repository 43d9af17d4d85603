"""The released clients that tests drive, and the interpreters to test on.

Every client lives in a virtual environment below one cache directory,
`PYPI_SERVER_TEST_CACHE` or ~/.cache/pypi-server-tests.  Only
`python3 -m tests` installs anything; a test asks with `command` and skips
itself when the client is not there.  An environment is described by a file
of pins in tests/clients/, and made anew when that file changes.
"""

import contextlib
import functools
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

try:
    import fcntl
except ImportError:  # Windows: two runs at once are not guarded there
    fcntl = None

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.abspath(
    os.environ.get("PYPI_SERVER_TEST_CACHE")
    or os.path.expanduser("~/.cache/pypi-server-tests"))
NO_NETWORK = "connection broken by"  # what pip prints of each retry
BIN = "Scripts" if os.name == "nt" else "bin"

# What the newest clients run on, the best first.  3.14 comes last because
# the pins were not made with it.
RECENT = ("cpython-3.13", "cpython-3.12", "cpython-3.11", "cpython-3.14")
# twine 4.0.2 imports cgi, which Python 3.13 removed.
WITH_CGI = ("cpython-3.12", "cpython-3.11")
# pip 9 and 20.3 and easy_install import collections.MutableMapping, which
# Python 3.10 removed; pip 22.0 imports pkgutil.ImpImporter, gone in 3.12.
OLD = ("cpython-3.8", "cpython-3.7", "cpython-3.9", "cpython-3.6",
       "pypy-3.9", "pypy-3.8", "pypy-3.7", "pypy-3.6")
MIDDLE = ("cpython-3.8", "cpython-3.9", "cpython-3.10", "cpython-3.11",
          "cpython-3.7", "pypy-3.9", "pypy-3.10", "pypy-3.11", "pypy-3.8")

# {name of tests/clients/NAME.txt: interpreters that its pins work on}
ENVIRONMENTS = {
    "tools": RECENT,
    "poetry": RECENT,
    "pdm": RECENT,
    "hatch_flit": RECENT,
    "pip_tools": RECENT,
    "twine_4": WITH_CGI,
    "pip_22": MIDDLE,
    "pip_20": OLD,
    "pip_9": OLD,
    "easy_install": OLD,
    "setuptools_40": OLD,
    "servers": RECENT,
    "accounts": RECENT,
    "pypi_uploader": RECENT,
    "images": RECENT,
    "browser": RECENT,
    "s3": RECENT,
    "scanners": RECENT,
    "lint": RECENT,
    "peers": RECENT,
}
LINT = "lint"  # not a client: .ci/run installs it with this file's main
PEERS = "peers"  # nor these: the benchmark installs them


class InstallError(Exception):
    """One sentence on why a client or the mirror could not be installed."""


class Interpreter(NamedTuple):
    """A Python of this machine."""

    name: str  # implementation and minor version, e.g. "cpython-3.8"
    path: str  # of the executable


def command(environment, name="python"):
    """Return the path of an installed command, or None."""
    home = os.path.join(CACHE, environment)
    path = os.path.join(home, BIN, name + (".exe" if os.name == "nt" else ""))
    installed = os.path.exists(path) and is_stamped(home, pins(environment))
    return path if installed else None


def require(environment, name="python"):
    """Return the path of an installed command, or skip the running test."""
    path = command(environment, name)
    if not path:
        raise unittest.SkipTest(why_missing(environment))
    return path


def why_missing(what):
    """Say what would install something, or why that failed last time."""
    try:
        with open(os.path.join(CACHE, what + ".failed")) as file:
            return file.read()
    except OSError:
        return "%r is not installed: run `python3 -m tests` once" % what


def attempt(install_one, what):
    """Call install_one(what); note and return the reason if it fails."""
    try:
        install_one(what)
        note(what, None)
        return None
    except InstallError as error:
        note(what, str(error))
        return str(error)


def note(what, problem):
    """Keep the reason why something is missing, for skipped tests."""
    path = os.path.join(CACHE, what + ".failed")
    if problem:
        with open(path, "w") as file:
            file.write(problem)
    elif os.path.exists(path):
        os.remove(path)


def pins(environment):
    with open(pins_path(environment)) as file:
        return file.read()


def pins_path(environment):
    return os.path.join(HERE, "clients", environment + ".txt")


def digest(folder, text):
    """Digest what is to be in a folder; scripts there know their path."""
    return hashlib.sha256((folder + "\n" + text).encode()).hexdigest()


def is_stamped(folder, text):
    """Tell whether a folder was finished, and from the same pins."""
    try:
        with open(os.path.join(folder, "stamp")) as file:
            return file.read() == digest(folder, text)
    except OSError:
        return False


def stamp(folder, text):
    """Mark a folder as finished, at once and as the last thing done."""
    path = os.path.join(folder, "stamp")
    with open(path + ".part", "w") as file:
        file.write(digest(folder, text))
    os.replace(path + ".part", path)


@contextlib.contextmanager
def locked():
    """Let one test run at a time install."""
    os.makedirs(CACHE, exist_ok=True)
    with open(os.path.join(CACHE, "lock"), "w") as file:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def install(environment):
    """Make a virtual environment, unless it is there.

    Raises:
        InstallError: no interpreter suits, or pip fails.
    """
    home = os.path.join(CACHE, environment)
    if command(environment):
        return
    supported = ENVIRONMENTS[environment]
    found = {interpreter.name: interpreter.path
             for interpreter in interpreters()}
    suitable = [found[name] for name in supported if name in found]
    if not suitable:
        raise InstallError("cannot install %s: it needs one of %s" % (
            environment, ", ".join(supported)))
    shutil.rmtree(home, ignore_errors=True)
    run_installer([suitable[0], "-m", "venv", home], environment)
    # The pins are complete; a resolver would only find fault with them
    # (pdm asks for a certifi of the day it was released).
    run_installer(
        [os.path.join(home, BIN, "python"), "-m", "pip", "install", "-q",
         "--no-deps", "--disable-pip-version-check", "-r",
         pins_path(environment)], environment)
    stamp(home, pins(environment))


def run_installer(arguments, what):
    """Run venv or pip; InstallError gives the last thing it said."""
    process = subprocess.run(
        arguments, check=False, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True)
    if process.returncode:
        lines = process.stdout.strip().splitlines() or ["no output"]
        errors = [line for line in lines if re.match("(?i)error", line)]
        hint = " (no network?)" if NO_NETWORK in process.stdout else ""
        raise InstallError("cannot install %s: %s%s" % (
            what, (errors or lines)[-1], hint))


PROBE = """
import json, platform, sys
print(json.dumps([platform.python_implementation().lower(),
                  sys.version_info[0], sys.version_info[1], sys.executable]))
"""


@functools.lru_cache(maxsize=None)
def interpreters():
    """Find one interpreter of each kind and minor version, oldest first.

    The one that runs this comes before others of its version, then those
    on PATH, then those of pyenv.
    """
    names = re.compile(r"(python|pypy)3?(\.\d+)?(\.exe)?")
    paths = [sys.executable]
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if os.path.isdir(folder):
            paths += [os.path.join(folder, name)
                      for name in sorted(os.listdir(folder), reverse=True)
                      if names.fullmatch(name)]
    paths += glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/python"))
    found = {}
    with ThreadPoolExecutor(8) as pool:
        for interpreter in pool.map(describe, paths):
            if interpreter:
                found.setdefault(interpreter.name, interpreter)
    return sorted(found.values(), key=lambda each: [
        int(part) if part.isdigit() else part
        for part in re.split("[-.]", each.name)])


def describe(path):
    """Ask an executable what it is; None if it is no Python from 3.6 on."""
    try:
        process = subprocess.run(
            [path, "-c", PROBE], check=False, timeout=60,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL)
        kind, major, minor, executable = json.loads(process.stdout.decode())
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None  # not there, or a shim that leads nowhere
    if (major, minor) < (3, 6):
        return None
    return Interpreter("%s-%d.%d" % (kind, major, minor), executable)


def main():
    """Install one environment; print the folder of its commands."""
    environment, = sys.argv[1:]
    with locked():
        install(environment)
    print(os.path.dirname(command(environment)))


if __name__ == "__main__":
    main()
