"""Small archives, made in memory, that real installers accept."""

import base64
import bz2
import gzip
import hashlib
import io
import lzma
import os
import re
import tarfile
import zipfile



def gzipped(data):
    """Compress without a time stamp: the same input gives the same bytes."""
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as stream:
        stream.write(data)
    return file.getvalue()


MODES = {".tar.gz": gzipped, ".tgz": gzipped, ".tar.bz2": bz2.compress,
            ".tar.xz": lzma.compress}


def metadata(name, version, requires=(), requires_python=None, body=""):
    """Return core metadata 2.1 as bytes."""
    lines = ["Metadata-Version: 2.1", "Name: " + name, "Version: " + version,
             "Summary: " + name + " for tests"]
    if requires_python:
        lines.append("Requires-Python: " + requires_python)
    lines += ["Requires-Dist: " + requirement for requirement in requires]
    lines += ["Provides-Extra: " + extra for extra in re.findall(
        "extra == '([^']+)'", " ".join(requires))]
    return ("\n".join(lines) + "\n\n" + body).encode("utf-8")


def wheel(name, version, requires=(), requires_python=None, files=None,
          body="", compression=zipfile.ZIP_DEFLATED):
    """Return the bytes of an installable pure wheel (PEP 427).

    Args:
        files: {path: bytes} to add beside the module; a large random value
            makes a large wheel.
    """
    module = re.sub("[-.]", "_", name).lower()
    info = "%s-%s.dist-info/" % (re.sub("[-.]+", "_", name), version)
    contents = {module + ".py": ("version = %r\n" % version).encode()}
    contents.update(files or {})
    contents[info + "METADATA"] = metadata(
        name, version, requires, requires_python, body)
    contents[info + "WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
        b"Tag: py2-none-any\nTag: py3-none-any\n")
    record = ["%s,sha256=%s,%d" % (
        path, base64.urlsafe_b64encode(hashlib.sha256(data).digest())
        .rstrip(b"=").decode(), len(data))
        for path, data in contents.items()]
    contents[info + "RECORD"] = "\n".join(
        record + [info + "RECORD,,", ""]).encode()
    return zipped(contents, compression)


def zipped(contents, compression=zipfile.ZIP_DEFLATED):
    """Return a zip archive of {path: bytes}."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for path, data in contents.items():
            archive.writestr(path, data)
    return file.getvalue()


def wheel_filename(name, version, tags="py2.py3-none-any", build=None):
    parts = [re.sub("[-.]+", "_", name), version.replace("-", "_")]
    return "-".join(parts + ([build] if build else []) + [tags]) + ".whl"


def egg(name, version):
    """Return the bytes of an egg that easy_install takes."""
    module = re.sub("[-.]", "_", name).lower()
    return zipped({
        module + ".py": ("version = %r\n" % version).encode(),
        "EGG-INFO/PKG-INFO": metadata(name, version),
        "EGG-INFO/SOURCES.txt": b"",
        "EGG-INFO/top_level.txt": module.encode() + b"\n",
        "EGG-INFO/dependency_links.txt": b"\n",
        "EGG-INFO/zip-safe": b"\n"})


def sdist(name, version, extension=".tar.gz", requires_python=None,
          files=None):
    """Return the bytes of an sdist with a setup.py."""
    module = re.sub("[-.]", "_", name).lower()
    top = "%s-%s/" % (name, version)
    contents = {
        top + "PKG-INFO": metadata(
            name, version, requires_python=requires_python),
        top + "setup.py": (
            "from setuptools import setup\n"
            "setup(name=%r, version=%r, py_modules=[%r])\n"
            % (name, version, module)).encode(),
        top + module + ".py": ("version = %r\n" % version).encode()}
    contents.update({top + path: data
                     for path, data in (files or {}).items()})
    if extension == ".zip":
        return zipped(contents)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for path, data in contents.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return MODES[extension](file.getvalue())


def put(directory, filename, data, age=60):
    """Write a file as if it had been there for `age` seconds.

    Only the modification time can be set; a server that was already
    running still sees a file that has just arrived.
    """
    path = os.path.join(directory, filename)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    if age:
        then = os.path.getmtime(path) - age
        os.utime(path, (then, then))
    return path
