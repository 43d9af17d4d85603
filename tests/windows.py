"""Take away what Windows and some other systems do not have, then run.

    python -m tests.windows [--as-nt] ARGUMENTS

runs pypi_server.py with ARGUMENTS in an interpreter without the names of
POSIX.  They are gone before the standard library is imported that looks for
them, as far as this interpreter can live without them.  With --as-nt the
program believes that it is on Windows, where renaming to a name that is
taken fails.
"""

import os
import sys

# Names that the os module of Windows does not have, and link(), which other
# systems lack.  But statvfs() stays: shutil.disk_usage() needs it here.
OS_NAMES = """
    O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_NDELAY O_NOATIME O_NOCTTY
    O_NOFOLLOW O_NONBLOCK O_PATH O_RSYNC O_SYNC O_TMPFILE WNOHANG chown
    chroot confstr copy_file_range ctermid eventfd fchdir fchmod fchown
    fdatasync fork forkpty fpathconf fstatvfs getegid geteuid getgid
    getgrouplist getgroups getloadavg getpgid getpgrp getpriority getresgid
    getresuid getsid getuid getxattr initgroups killpg lchown link lockf
    major makedev memfd_create minor mkfifo mknod nice openpty pathconf
    pipe2 posix_fadvise posix_fallocate posix_openpt posix_spawn
    posix_spawnp pread preadv pwrite pwritev readv register_at_fork
    removexattr sched_getaffinity sched_setaffinity sched_yield sendfile
    setegid seteuid setgid setgroups setpgid setpgrp setpriority setregid
    setresgid setresuid setreuid setsid setuid setxattr splice
    sync sysconf tcgetpgrp tcsetpgrp ttyname uname wait wait3 wait4 waitid
    writev
    """.split()
MODULES = """
    crypt curses fcntl grp nis ossaudiodev posixshmem pty pwd readline
    resource spwd syslog termios tty
    """.split()
SIGNALS = """
    SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGIO SIGKILL SIGPIPE SIGPROF
    SIGPWR SIGQUIT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGUSR1 SIGUSR2
    SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ alarm pause pthread_kill
    pthread_sigmask setitimer sigpending sigtimedwait sigwait sigwaitinfo
    """.split()
SOCKETS = """
    AF_UNIX AF_NETLINK AF_PACKET CMSG_LEN CMSG_SPACE MSG_DONTWAIT
    MSG_NOSIGNAL SCM_RIGHTS SO_PEERCRED SO_REUSEPORT TCP_CORK
    TCP_DEFER_ACCEPT recv_fds send_fds sethostname
    """.split()


def remove(module, names):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)


def prepare(as_nt):
    remove(os, ("sendfile",))
    # These cannot do without some of the others here.
    import hashlib  # noqa: F401
    import subprocess  # noqa: F401
    remove(os, OS_NAMES)
    for name in MODULES:
        sys.modules[name] = None  # then importing it fails
    import signal
    import socket
    remove(signal, SIGNALS)
    remove(socket, SOCKETS)
    if as_nt:
        pretend()


def pretend():
    """Let os.name say "nt", and os.rename refuse a name that is taken."""
    # Modules that would believe it too, and then miss what Windows has.
    import ctypes
    import getpass  # noqa: F401
    import logging.handlers  # noqa: F401
    import platform  # noqa: F401
    import pathlib  # noqa: F401
    import shutil  # noqa: F401
    import sqlite3  # noqa: F401
    import tempfile  # noqa: F401
    import uuid  # noqa: F401
    import zipfile  # noqa: F401
    rename = os.rename

    def load(name, *arguments, **more):
        if name is None:  # there it stands for nothing
            raise TypeError("LoadLibrary() argument 1 must be str, not None")
        raise FileNotFoundError("Could not find module %r" % name)
    ctypes.CDLL = load

    def strict(source, target):
        if os.path.lexists(target):
            raise FileExistsError(17, "it exists", source, None, target)
        rename(source, target)
    os.rename = strict
    os.name = "nt"


def main():
    arguments = sys.argv[1:]
    as_nt = "--as-nt" in arguments
    if as_nt:
        arguments.remove("--as-nt")
    prepare(as_nt)
    import pypi_server
    return pypi_server.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
