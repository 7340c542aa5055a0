"""Runs ``train.compare`` with a linear network, and forks its jobs after the imports.

    python -m tests.train.forking_compare <empty folder> <arguments of train.compare>

What ``train.compare`` starts in place of Python hands a job to a process that has imported what it
needs, together with its own standard streams, and ends as the job does. Jobs of the method ``at``
are started by Python itself.
"""

import json
import os
import runpy
import select
import socket
import sys
from pathlib import Path

from tests.train.with_linear_network import build_linear_networks
from train import comparison_job

SOCKET, PID = "socket", "pid"
STARTED = f"""#!/bin/sh
case " $* " in *" at "*) exec "{sys.executable}" "$@";; esac
exec "{sys.executable}" -ISc '
import json, os, socket, sys
folder, *words = sys.argv[1:]
# By its name alone: a path of a socket may have no more than a hundred letters.
os.chdir(folder)
with socket.socket(socket.AF_UNIX) as server:
    server.connect("{SOCKET}")
    socket.send_fds(server, [json.dumps(words).encode()], [0, 1, 2])
    sys.exit(int(server.recv(9)))
' "${{0%/*}}" "$@"
"""


def serve(listening: socket.socket, ended: int) -> None:
    """Forks jobs until the other end of ``ended`` is closed."""
    waiting = []
    while listening in select.select([listening, ended], [], [])[0]:
        connection, _ = listening.accept()
        waiting.append(os.fork())
        if waiting[-1]:
            connection.close()
            continue
        words, streams, *_ = socket.recv_fds(connection, 2**16, 3)
        job = os.fork()
        if not job:
            connection.close()
            for place, stream in enumerate(streams):
                os.dup2(stream, place)
            # As Python -m does it.
            _, _, *arguments = json.loads(words)
            comparison_job.main(arguments)
            return
        connection.send(str(os.waitstatus_to_exitcode(os.waitpid(job, 0)[1])).encode())
        os._exit(0)
    for process in waiting:
        os.waitpid(process, 0)


def main(folder: Path) -> None:
    """Runs the command that ``sys.argv`` holds."""
    build_linear_networks()
    program = folder / "python"
    program.write_text(STARTED, "utf-8")
    program.chmod(0o700)
    (folder / PID).write_text(str(os.getpid()), "utf-8")
    here = Path.cwd()
    os.chdir(folder)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(SOCKET)
        os.chdir(here)
        listening.listen()
        ended, end = os.pipe()
        server = os.fork()
        if not server:
            os.close(end)
            serve(listening, ended)
            return
    sys.executable = str(program)
    try:
        runpy.run_module("train.compare", run_name="__main__", alter_sys=True)
    finally:
        os.close(end)
        os.waitpid(server, 0)


if __name__ == "__main__":
    main(Path(sys.argv.pop(1)))
