"""What readers, a balancer and an object store cost, asked by wrk.

    python3 -m tests.benchmark_scale

nginx has the configurations of the guide, with one process each.  All of it
shares one machine, wrk included: compare the figures of one run.
"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from tests import archives, toolbox
from tests.helpers import SCRIPT, ServerProcess, wait_for
from tests.processes import Process, free_port
from tests.test_recipes import program
from tests.test_scale import SIMPLE_JSON, Nginx, make_bucket, reader

SECONDS = 5
CONNECTIONS = 32
PAGE = "simple/demo/"
WHEEL = "packages/" + archives.wheel_filename("demo", "1.0")


def ask(url):
    """Return the requests per second that are answered."""
    printed = subprocess.check_output([
        program("wrk", "wrk"), "-t", "1", "-c", str(CONNECTIONS), "-d",
        "%ds" % SECONDS, "-H", "Accept: " + SIMPLE_JSON, "-H",
        "Accept-Encoding: gzip", url]).decode()
    if "Non-2xx" in printed:
        raise AssertionError(printed)
    return float(re.search(r"Requests/sec: *([\d.]+)", printed).group(1))


def show(name, *urls):
    """Ask all at once; print what they answer together."""
    with ThreadPoolExecutor(len(urls)) as pool:
        found = sum(pool.map(ask, urls))
    print("%-48s %8d requests/s" % (name, found))
    sys.stdout.flush()


def show_store(stack, folder, site):
    port = free_port()
    store = stack.enter_context(Process(
        [toolbox.require("s3", "moto_server"), "-H", "127.0.0.1", "-p",
         str(port)], port, folder))
    environment = make_bucket("http://127.0.0.1:%d" % port)
    subprocess.check_output(
        [toolbox.require("s3", "aws"), "s3", "sync", site, "s3://pypi"],
        env=dict(os.environ, **environment))
    front = stack.enter_context(Nginx("store.conf", places={
        "/srv/site": site,
        "/var/cache/nginx/pypi": os.path.join(folder, "cache"),
        "http://s3.amazonaws.com": "http://127.0.0.1:%d" % port}))
    show("page, object store behind a caching nginx", front.url + PAGE)
    show("wheel, the same", front.url + WHEEL)
    show("page, the object store of the tests (moto) alone",
         "http://127.0.0.1:%d/pypi/%sindex.json" % (store.port, PAGE))


def main():
    with tempfile.TemporaryDirectory() as folder, \
            contextlib.ExitStack() as stack:
        root = os.path.join(folder, "packages")
        site = os.path.join(folder, "site")
        for number in range(10):
            name = archives.wheel_filename("demo", "1.%d" % number)
            archives.put(root, name, archives.wheel("demo", "1.%d" % number))
        origin = stack.enter_context(ServerProcess(root))
        wait_for(lambda: origin.get(PAGE).body.count(b"<a ") == 10, "listed")
        subprocess.check_call(
            [sys.executable, SCRIPT, "export", "--backend", "simple-dir",
             root, site])
        one, two = (stack.enter_context(reader(site)) for _ in range(2))
        front = stack.enter_context(Nginx("readers.conf", places={
            "127.0.0.1:8081": urlsplit(one.url).netloc,
            "127.0.0.1:8082": urlsplit(two.url).netloc,
            "127.0.0.1:8080": urlsplit(origin.url).netloc}))
        show("page, origin (the built-in server)", origin.url + PAGE)
        show("page, one reader", one.url + PAGE)
        show("page, two readers together", one.url + PAGE, two.url + PAGE)
        show("wheel, one reader", one.url + WHEEL)
        show("page, two readers behind the balancer", front.url + PAGE)
        show_store(stack, folder, site)


if __name__ == "__main__":
    main()
