"""A mirror of real projects to serve, downloaded once with pip.

About 160 projects: an application with all its dependencies for one
platform, wheels of other platforms and times, and sdists from 2008 to now.
They come from the index that pip is configured to use, and stay in the
cache of tests/toolbox.py.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Tuple

from tests import toolbox

FOLDER = os.path.join(toolbox.CACHE, "mirror")

# What `uv pip compile --python-version 3.12 --python-platform linux` makes
# of jupyter-server.  tests/test_mirror.py asks for it again.
APPLICATION = "jupyter-server"
APPLICATION_PINS = """
    anyio==4.16.0 argon2-cffi-bindings==26.2.0 argon2-cffi==25.1.0
    arrow==1.4.0 attrs==26.1.0 beautifulsoup4==4.15.0 bleach==6.4.0
    cffi==2.1.1 defusedxml==0.7.1 fastjsonschema==2.22.3 fqdn==1.6.0
    idna==3.20 isoduration==20.11.0 jinja2==3.1.6 jsonpointer==3.12
    jsonschema-specifications==2025.9.1 jsonschema==4.26.0
    jupyter-client==8.10.0 jupyter-core==5.9.1 jupyter-events==0.12.1
    jupyter-server-terminals==0.5.4 jupyter-server==2.21.1
    jupyterlab-pygments==0.3.0 lark==1.3.1 markupsafe==3.0.4 mistune==3.4.0
    nbclient==0.11.0 nbconvert==7.17.2 nbformat==5.11.1 packaging==26.3
    pandocfilters==1.5.1 platformdirs==4.14.7 prometheus-client==0.26.0
    ptyprocess==0.7.0 pycparser==3.12 pygments==2.21.0
    python-dateutil==4.0.0 python-json-logger==4.2.0 pyyaml==6.0.3
    pyzmq==27.3.0 referencing==0.37.0 rfc3339-validator==0.1.4
    rfc3986-validator==0.1.1 rfc3987-syntax==1.1.0 rpds-py==2026.9.1
    send2trash==2.2.0 six==1.17.0 soupsieve==4.1.2 terminado==0.18.1
    tinycss2==1.5.1 tornado==6.6.1 traitlets==5.16.1
    typing-extensions==4.16.0 tzdata==2026.6 uri-template==1.3.0
    webcolors==25.10.0 webencodings==0.6.1 websocket-client==1.9.2
"""

# The same for flask, fastapi, celery, pyramid, alembic, pytest and others,
# less what it has in common with the above.
MORE_PINS = """
    aiohappyeyeballs==2.7.1 aiohttp==3.14.5 aiosignal==1.4.0
    alembic==1.20.1 amqp==5.4.2 annotated-doc==0.0.7 annotated-types==0.8.0
    atpublic==9.0.0 backports-zstd==1.8.0 billiard==4.3.2 blinker==1.9.0
    celery==5.7.0 certifi==2026.10.18 charset-normalizer==3.5.2
    click-didyoumean==0.3.1 click-plugins==1.1.1.2 click-repl==0.4.1
    click==8.5.1 cryptography==50.0.2 docutils==0.23 fastapi==0.165.0
    flask-sqlalchemy==3.1.1 flask==3.1.3 flit-core==4.2.0
    flufl-lock==10.0.0 frozenlist==1.8.0 gunicorn==27.0.1 h11==0.16.0
    hatchling==1.33.0 httpcore==1.0.9 httpx==0.28.1 hupper==1.12.1
    id==1.6.1 iniconfig==2.3.1 itsdangerous==2.2.0 jaraco-classes==3.4.0
    jaraco-context==6.1.2 jaraco-functools==4.6.0 jeepney==0.9.0
    keyring==25.7.0 kombu==5.7.0 mako==1.4.3 markdown-it-py==4.3.0
    marshmallow==4.4.0 mdurl==0.1.2 more-itertools==11.2.1 multidict==7.2.1
    nh3==0.3.8 opentelemetry-api==1.45.2 orjson==3.13.0 paste==3.10.1
    pastedeploy==3.1.0 pathspec==1.1.1 plaster-pastedeploy==1.0.1
    plaster==1.1.2 pluggy==1.7.0 poetry-core==2.5.0 prompt-toolkit==3.0.53
    propcache==0.5.4 psutil==7.2.2 pydantic-core==2.50.4 pydantic==2.14.3
    pyopenssl==26.4.0 pyramid==2.0.2 pytest==9.2.0 readme-renderer==46.0
    requests-toolbelt==1.0.0 requests==2.34.2 rfc3986==2.0.0 rich==15.0.0
    ruamel-yaml==0.19.1 secretstorage==3.5.0 setuptools==84.2.1
    shellingham==1.5.4 sqlalchemy==2.1.9 starlette==1.10.0 tomlkit==0.15.2
    tqdm==4.70.1 translationstring==1.4 trove-classifiers==2026.9.21.13
    twine==7.0.0 typer==0.29.2 typing-inspection==0.4.5 tzlocal==5.4.5
    urllib3==2.8.0 uvicorn==0.54.0 venusian==3.1.1 vine==5.1.0
    wcwidth==0.9.4 webob==1.8.11 werkzeug==3.1.9 wheel==0.48.0 yarl==1.25.1
    zc-lockfile==4.0 zope-component==7.1 zope-deprecation==6.0
    zope-event==6.2 zope-hookable==8.4 zope-interface==8.7
"""

MODERN = ("manylinux_2_28", "manylinux_2_17", "manylinux2014",
          "manylinux_2_12", "manylinux2010", "manylinux_2_5", "manylinux1")


class Group(NamedTuple):
    """Archives that one run of pip downloads into one folder."""

    name: str                  # of the folder
    pins: str                  # requirements, between spaces
    options: Tuple[str, ...]   # for `pip download`


def wheels(name, version, platforms, pins, implementation="cp", abi=None):
    options = ["--only-binary=:all:", "--python-version", version,
               "--implementation", implementation]
    for platform in platforms:
        options += ["--platform", platform]
    if abi:
        options += ["--abi", abi]
    return Group(name, pins, tuple(options))


def linux(machine):
    return tuple(name + "_" + machine for name in MODERN)


# sdists: pip asks their build backend for metadata, so each of these was
# chosen because that takes no compiler and little time.
GROUPS = (
    wheels("linux", "3.12", linux("x86_64"),
           APPLICATION_PINS + MORE_PINS),
    wheels("windows", "3.11", ("win_amd64",), """
        argon2-cffi-bindings==26.2.0 cffi==2.1.1 colorama==0.4.6
        markupsafe==3.0.4 multidict==7.2.1 psutil==7.2.2
        pywin32-ctypes==0.2.3 pyyaml==6.0.3 pyzmq==27.3.0
        rpds-py==2026.9.1 tornado==6.6.1"""),
    wheels("windows-32", "3.7", ("win32",), """
        markupsafe==2.1.5 simplejson==3.19.3"""),
    wheels("macos", "3.13", (
        "macosx_11_0_arm64", "macosx_10_13_universal2",
        "macosx_10_9_universal2"), """
        argon2-cffi-bindings==26.2.0 cffi==2.1.1 markupsafe==3.0.4
        multidict==7.2.1 psutil==7.2.2 pyyaml==6.0.3 rpds-py==2026.9.1
        tornado==6.6.1"""),
    wheels("musl", "3.10", ("musllinux_1_2_x86_64", "musllinux_1_1_x86_64"),
           "markupsafe==3.0.4 multidict==7.1.0 pyyaml==6.0.3"),
    wheels("arm", "3.9", linux("aarch64"), """
        cffi==1.17.1 markupsafe==3.0.2 pyyaml==6.0.2 rpds-py==0.20.0"""),
    wheels("python-3.6", "3.6", linux("x86_64"), """
        cffi==1.15.1 click==8.0.4 dataclasses==0.8 flask==2.0.3
        itsdangerous==2.0.1 jinja2==3.0.3 markupsafe==2.0.1
        multidict==5.2.0 pyyaml==5.4.1 werkzeug==2.0.3
        zope.interface==5.5.2"""),
    wheels("python-2.7", "2.7", linux("x86_64"),
           "cffi==1.15.1 markupsafe==1.1.1 simplejson==3.19.3",
           abi="cp27mu"),
    wheels("pypy", "3.9", linux("x86_64"), "rpds-py==0.20.0",
           implementation="pp", abi="pypy39_pp73"),
    # A wheel with a build tag: shiboken2-5.12.0-5.12.0-cp35.cp36....
    wheels("build-tag", "3.6", linux("x86_64"), "shiboken2==5.12.0",
           abi="abi3"),
    Group("sdists", """
        attrs==26.1.0 backports.zstd==1.8.0 click==8.5.1 docopt==0.6.2
        flask-sqlalchemy==2.5.1 flask==0.12.5 future==0.18.3
        humanize==0.5.1 idna==3.20 iniconfig==2.0.0 itsdangerous==0.24
        jaraco.functools==3.9.0 jinja2==3.1.6 packaging==26.3
        pycparser==2.10 python-dateutil==2.9.0.post0 requests==2.34.2
        ruamel.yaml==0.15.100 secretstorage==3.3.3 simplejson==3.6.5
        six==1.17.0 toml==0.10.2 unidecode==0.04.19 zc.lockfile==1.4
        zope.event==4.4 zope.interface==4.1.3""",
          ("--no-binary=:all:",)),
    # .zip, and one .tar.bz2 (twisted)
    Group("sdists-old", """
        colorama==0.3.1 enum34==1.1.6 jinja2==2.8 keyring==3.3 mock==1.0.1
        path.py==5.1 six==1.10.0 twisted==16.6.0""",
          ("--no-binary=:all:",)),
)


# Nobody uploads eggs any more; easy_install still makes them of sdists.
EGGS = ("docopt-0.6.2.tar.gz", "humanize-0.5.1.tar.gz")


def folder(group):
    return os.path.join(FOLDER, group.name)


def text(group):
    """Return what decides the contents of a group's folder."""
    return "\n".join(group.options + tuple(group.pins.split()))


def is_complete():
    return all(toolbox.is_stamped(folder(group), text(group))
               for group in GROUPS)


def install(_):
    """Download what is missing.

    Raises:
        InstallError: pip fails.
    """
    # Twelve runs that mostly wait, for the network or for build backends.
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(download, GROUPS))
    make_eggs()


def download(group):
    """Fill a group's folder, unless it is full; begin anew if it is not.

    Raises:
        InstallError: pip is missing or fails.
    """
    if toolbox.is_stamped(folder(group), text(group)):
        return
    python = toolbox.command("tools")
    if not python:
        raise toolbox.InstallError(
            "cannot download the mirror: pip is not installed")
    shutil.rmtree(folder(group), ignore_errors=True)
    toolbox.run_installer(
        [python, "-m", "pip", "download", "-q", "--no-deps",
         "--disable-pip-version-check", "-d", folder(group)]
        + list(group.options) + group.pins.split(),
        "the mirror (%s)" % group.name)
    toolbox.stamp(folder(group), text(group))


def make_eggs():
    """Add eggs, where there is an interpreter that runs easy_install."""
    target = os.path.join(FOLDER, "eggs")
    python = toolbox.command("easy_install")
    if not python or toolbox.is_stamped(target, "\n".join(EGGS)):
        return
    shutil.rmtree(target, ignore_errors=True)
    os.mkdir(target)
    toolbox.run_installer(
        [python, "-m", "easy_install", "--zip-ok", "--multi-version",
         "--exclude-scripts", "--no-deps", "--install-dir", target]
        + [os.path.join(FOLDER, "sdists", name) for name in EGGS],
        "the mirror (eggs)")
    toolbox.stamp(target, "\n".join(EGGS))
