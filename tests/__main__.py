"""Run everything: `python3 -m tests`.

First the pinned clients and the mirror are installed, once.  All tests then
run in the environment "tools", which has the libraries that some tests check
with; without it, in the interpreter that started this.  What needs no client
runs on every other interpreter found, too.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Tuple

from tests import mirror, toolbox

HERE = os.path.dirname(os.path.abspath(__file__))
# Modules that need clients, or whose result is the same on every Python.
ONCE = ("test_clients", "test_mirror", "test_interpreters", "test_layout",
        "test_versions", "test_readme", "test_upload_clients", "test_update",
        "test_update_pip", "test_command_line", "test_recipes", "test_auther",
        "test_client_files", "test_predecessor", "test_trouble",
        "test_servers", "test_image", "test_distribution", "test_benchmark",
        "test_closure_clients", "test_browser", "test_terminal", "test_export",
        "test_scale", "test_scanners", "test_limits", "test_slow",
        "test_requests", "test_exhaustion")
# Of these, the ones that need no clients: they run on the oldest Python too.
OLDEST = ("test_command_line", "test_exhaustion", "test_export",
          "test_requests", "test_terminal", "test_update")
# These take a quarter of the time, for disks that fail, other systems and much
# data: they run on the newest Python and on the oldest, and on no other.
LONG = ("test_check", "test_platforms", "test_upload_faults")
# These start many servers, and take turns: each runs on every third of the
# Pythons between, and on all others.
IN_TURN = ("test_accounts", "test_connections", "test_directories",
           "test_hostile", "test_logging", "test_search", "test_security",
           "test_server", "test_tls", "test_workers")
# A job is a part of the modules, so that the last one to end is short.
PARTS = 10  # of those with clients
INDEPENDENT_PARTS = 3
LIMIT = 20 * 60  # seconds for one job; a test that hangs must not hang CI


class Job(NamedTuple):
    """Modules to run in one interpreter."""

    name: str
    python: str                # path
    modules: Tuple[str, ...]


def main():
    # Shells start what runs in the background with ^C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    install()
    modules = tuple(sorted(
        name[:-3] for name in os.listdir(HERE)
        if name.startswith("test_") and name.endswith(".py")))
    independent = tuple(name for name in modules if name not in ONCE)
    once = tuple(name for name in modules if name in ONCE)
    first = toolbox.describe(toolbox.command("tools") or sys.executable)
    others = [each for each in toolbox.interpreters()
              if each.name != first.name]
    jobs = make_jobs(first.name + " with clients", first.path, once, PARTS)
    for each in others[:1]:
        jobs += make_jobs(each.name + ", commands", each.path, OLDEST, 2)
    between = [each for each in others[1:] if each.name.startswith("cpython")]
    # The shortest jobs come last, so that no core is idle at the end.
    for each in [first] + [each for each in others if each not in between]:
        jobs += make_jobs(
            each.name, each.path,
            [name for name in independent
             if each in (first, *others[:1]) or name not in LONG],
            INDEPENDENT_PARTS)
    for place, each in enumerate(between):
        elsewhere = set(LONG + IN_TURN) - set(IN_TURN[place % 3::3])
        jobs += make_jobs(
            each.name, each.path,
            [name for name in independent if name not in elsewhere], 2)
    # They wait more than they work.
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        totals = list(pool.map(report, jobs))
    passed, failed, skipped = map(sum, zip(*totals))
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return 1 if failed else 0


def make_jobs(name, python, modules, parts):
    return [Job("%s, part %d" % (name, part + 1), python,
                modules[part::parts]) for part in range(parts)]


def install():
    """Install what is missing; say in one sentence each what cannot be."""
    with toolbox.locked():
        names = [name for name in toolbox.ENVIRONMENTS
                 if name not in ("tools", toolbox.LINT, toolbox.PEERS)]
        # The environment "tools" brings the pip that fills the mirror, and
        # tells whether there is a network at all.
        problem = install_one("tools", toolbox.install)
        if problem:
            for name in names + ["mirror"]:
                toolbox.note(name, problem)
            return
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(
                lambda name: install_one(name, toolbox.install), names))
        install_one("mirror", mirror.install)


def install_one(name, function):
    """Install, print what happened, and return what went wrong."""
    start = time.perf_counter()
    problem = toolbox.attempt(function, name)
    seconds = time.perf_counter() - start
    if problem:
        say(problem)
    elif seconds > 1:
        say("installed %s in %d s" % (name, seconds))
    return problem


def report(job):
    """Run a job, print what went wrong in it, and return its counts."""
    summary = run(job)
    lines = ["%s: %d passed, %d failed, %d skipped in %d s" % (
        job.name, summary["passed"], len(summary["failed"]),
        len(summary["skipped"]), summary["seconds"])]
    lines += ["skipped: %s: %s" % (test, reason)
              for test, reason in summary["skipped"]]
    lines += ["%s\nFAILED on %s: %s\n%s" % ("=" * 70, job.name, test, text)
              for test, text in summary["failed"]]
    say("\n".join(lines))
    return (summary["passed"], len(summary["failed"]),
            len(summary["skipped"]))


def run(job):
    """Run a job in a process of its own and return its summary.

    A process that dies or hangs counts as one failed test.
    """
    environment = dict(
        os.environ, PYPI_SERVER_TEST_INTERPRETERS=os.pathsep.join(
            each.path for each in toolbox.interpreters()))
    # Hundreds of servers would be compiled, each anew.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "summary.json")
        command = [job.python, "-W", "error", "-m", "tests.runner", path]
        with open(os.path.join(folder, "output"), "w+") as output:
            process = subprocess.Popen(
                command + ["tests." + name for name in job.modules],
                cwd=os.path.dirname(HERE), env=environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            try:
                process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            output.seek(0)
            printed = output.read()
        try:
            with open(path) as file:
                return json.load(file)
        except (OSError, ValueError):
            return {"passed": 0, "skipped": [], "seconds": 0, "failed": [
                ["the whole run", "exit status %s\n%s" % (
                    process.returncode, printed)]]}


def say(text):
    print(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
