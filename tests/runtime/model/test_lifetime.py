"""Sessions in forked children are refused and never torn down; those of daemon threads do not abort the exit.

Every program runs in a process of its own with a time limit, because what is tested used to hang.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lime_edge.errors import DeviceError
from lime_edge.runtime.model import lifetime
from tests.support.paths import ROOT
from tests.support.runtime_models import exported

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
LIMIT = 120  # seconds until a program counts as hanging

HEAD = """
import multiprocessing, os, signal, sys, threading, time
from lime_edge.errors import DeviceError
from lime_edge.runtime import Runtime

def load():
    return Runtime.load(sys.argv[1], threads=2)

def answer(made):
    return made.generate("Hello", max_new_tokens=3).token_ids

def wait_for(child):
    '''The exit code of a child; a child that hangs is killed.'''
    end = time.monotonic() + 30
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"
"""

#: What a child does with the runtime of its parent.
REFUSED = """
made = load()
made.use_skill(None)
stream = made.stream("Hello", max_new_tokens=9)
next(stream, None)
wanted = answer(made)
child = os.fork()
if not child:
    calls = [
        lambda: answer(made), lambda: made.stream("Hello"), lambda: made.choose("Hello", ["yes", "no"]),
        lambda: next(stream), lambda: made.load_skill("none"), lambda: made.unload_skill("none"),
        lambda: made.use_skill(None), made.skills, made.disable_skill, lambda: made.active_skill,
    ]
    refused = 0
    for call in calls:
        try:
            call()
        except DeviceError as error:
            refused += "was forked from it" in str(error) and "forkserver" in str(error)
    stream.close()
    assert (made.device, made.context_length) == ("cpu", 256)
    sys.exit(refused)  # a usual exit: all objects are destroyed
print(wait_for(child), answer(made) == wanted)
"""

#: A parent that generates in another thread while it forks; every third child loads a model of its own.
BUSY = """
made, done = load(), threading.Event()
wanted = answer(made)
worker = threading.Thread(target=lambda: [answer(made) for _ in iter(done.is_set, True)])
worker.start()
codes = []
for number in range(9):
    child = os.fork()
    if not child:
        made = load() if number % 3 == 0 else made
        try:
            sys.exit(0 if answer(made) == wanted else 1)
        except DeviceError:
            sys.exit(7)
    codes.append(wait_for(child))
done.set()
worker.join()
print(codes, answer(made) == wanted)
"""

#: As a server that loads before it forks its workers, and as one whose workers load.
PREFORK = """
def serve(made):
    workers = []
    for _ in range(2):
        child = os.fork()
        if not child:
            try:
                own = made or load()
                sys.exit(len(answer(own)))
            except DeviceError:
                sys.exit(7)
        workers.append(child)
    return [wait_for(child) for child in workers]

print(serve(None), serve(load()))
"""

PROCESSES = """
def work(inbox, outbox, path):
    made = Runtime.load(path, threads=2)
    outbox.put(answer(made))

if __name__ == "__main__":
    made = load()
    wanted = answer(made)
    context = multiprocessing.get_context(sys.argv[2])
    outbox = context.Queue()
    process = context.Process(target=work, args=(None, outbox, sys.argv[1]))
    process.start()
    print(tuple(outbox.get(timeout=100)) == wanted)
    process.join(30)
    print(process.exitcode, answer(made) == wanted)
    process.kill()
"""

INHERITED = """
made = load()

def work(outbox):
    try:
        outbox.put(answer(made))
    except DeviceError as error:
        outbox.put(type(error).__name__)

context = multiprocessing.get_context("fork")
outbox = context.Queue()
process = context.Process(target=work, args=(outbox,))
process.start()
print(outbox.get(timeout=60))
process.join(30)
print(process.exitcode, len(answer(made)))
process.kill()
"""

DAEMON = """
made = load()
started = threading.Event()

def forever():
    while True:
        answer(made)
        started.set()

for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
started.wait()
stream = made.stream("Hello")
next(stream, None)
print("bye")
"""


def output(program: str, *arguments: str, tmp_path: os.PathLike[str]) -> list[str]:
    file = os.path.join(tmp_path, "program.py")
    with open(file, "w", encoding="utf-8") as stream:
        stream.write(HEAD + program)
    # From Python 3.12 on, a fork beside threads is a warning.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", file, str(exported()), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@FORKS
@pytest.mark.parametrize(
    ("program", "wanted"),
    [
        (REFUSED, ["10 True"]),
        (BUSY, ["[0, 7, 7, 0, 7, 7, 0, 7, 7] True"]),
        (PREFORK, ["[3, 3] [7, 7]"]),
        (INHERITED, ["DeviceError", "0 3"]),
    ],
    ids=["refused", "busy", "prefork", "multiprocessing"],
)
def test_a_forked_child_refuses_and_exits(program: str, wanted: list[str], tmp_path: os.PathLike[str]) -> None:
    assert output(program, tmp_path=tmp_path) == wanted


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_ways_to_start_a_process_work(method: str, tmp_path: os.PathLike[str]) -> None:
    assert output(PROCESSES, method, tmp_path=tmp_path) == ["True", "0 True"]


def test_daemon_threads_do_not_abort_the_exit(tmp_path: os.PathLike[str]) -> None:
    assert output(DAEMON, tmp_path=tmp_path) == ["bye"]


def test_the_refusal_names_both_processes_and_what_to_do() -> None:
    lifetime.refuse_fork(os.getpid())
    with pytest.raises(DeviceError, match=rf"loaded in process 1; process {os.getpid()} was forked from it") as caught:
        lifetime.refuse_fork(1)
    assert "load the model in the child (Runtime.load), or start processes with multiprocessing's spawn" in str(
        caught.value
    )
