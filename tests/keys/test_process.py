"""Forks, and the end of the interpreter: each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from keys_support import PATIENCE, respond

#: What every script begins with.
PRELUDE = """
import asyncio, atexit, gc, os, sys, threading, urllib.request

# Registered before those of the package, so it runs after them.
@atexit.register
def look():
    left = [thread for thread in threading.enumerate() if thread.name == "fastguard-keys"]
    if left:
        print("left running", left, file=sys.stderr)

from mcp_fastguard.keys import Fetched, KeyService, KeySource, Pace, key_service

ISSUER = "https://auth.example.com"

class Sink:
    def __init__(self):
        self.sets, self.came = [], threading.Event()
    def replace_keys(self, issuer, jwks, fresh):
        self.sets.append(jwks)
        self.came.set()
    def keys_failed(self, issuer, reason, retry_after):
        print("failed", reason, flush=True)

def ends(child, status=0):
    _, found = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(found) == status, found

sink = Sink()
source = KeySource(ISSUER, sys.argv[1], allow_http_loopback=True)
"""

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def run(script, url="", options=()):
    """Runs a script to its end, which must come by itself; gives what it printed."""
    # From 3.12 every fork of a process with threads warns, which is what is tested here.
    command = [
        sys.executable,
        *options,
        "-W",
        "ignore::DeprecationWarning",
        "-c",
        PRELUDE + textwrap.dedent(script),
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


def test_import_starts_no_thread():
    assert run("print(threading.active_count())") == ["1"]


@forks
def test_child_fetches_by_itself_on_a_thread_of_its_own(loopback):
    loopback.routes["/jwks"] = respond()
    script = """
    watch = key_service().watch([source], sink)
    assert sink.came.wait(10)
    worker = watch.worker
    child = os.fork()
    if child == 0:
        assert threading.active_count() == 1
        asyncio.run(watch.fetched(ISSUER, timeout=10))
        assert len(sink.sets) == 2
        assert watch.worker is not worker
        assert watch.status()[ISSUER]["fetches"] == 1
        print("child", flush=True)
        os._exit(0)
    ends(child)
    asyncio.run(watch.fetched(ISSUER, timeout=10))
    assert watch.worker is worker and len(sink.sets) == 2
    print("parent")
    """

    assert run(script, f"{loopback.url}/jwks") == ["child", "parent"]
    assert loopback.paths == ["/jwks"] * 3


@forks
def test_child_that_misses_no_key_fetches_once_it_is_revived(loopback):
    loopback.routes["/jwks"] = respond()
    script = """
    watch = key_service().watch([source], sink)
    assert sink.came.wait(10)
    child = os.fork()
    if child == 0:
        sink.came.clear()
        watch.revive()
        assert sink.came.wait(10)
        os._exit(0)
    ends(child)
    worker = watch.worker
    watch.revive()
    assert watch.worker is worker
    """

    run(script, f"{loopback.url}/jwks")

    assert loopback.paths == ["/jwks"] * 2


@forks
def test_fork_during_a_fetch_and_under_the_lock_holds_up_neither(loopback):
    def held(handler):
        if len(loopback.requests) == 1:
            loopback.wait(2)
        respond()(handler)

    loopback.routes["/jwks"] = held
    script = """
    service = key_service()
    watch = service.watch([source], sink)
    holding, release = threading.Event(), threading.Event()
    def hold():
        with service._lock:
            holding.set()
            release.wait()
    holder = threading.Thread(target=hold)
    holder.start()
    holding.wait()
    child = os.fork()
    if child == 0:
        # The first request is the parent's; it is answered once the child's has come.
        asyncio.run(watch.fetched(ISSUER, timeout=10))
        assert len(sink.sets) == 1
        os._exit(0)
    release.set()
    holder.join()
    ends(child)
    assert sink.came.wait(10)
    """

    run(script, f"{loopback.url}/jwks")


@forks
def test_child_leaves_the_sockets_of_a_fetch_under_way_to_its_parent(loopback):
    begun, over = threading.Event(), threading.Event()

    def keys(handler):
        # The first is the parent's. It is answered when the child has come and gone.
        if not begun.is_set():
            begun.set()
            over.wait(PATIENCE)
        respond()(handler)

    def once_begun(handler):
        begun.wait(PATIENCE)
        respond()(handler)

    def at_the_end(handler):
        over.set()
        respond()(handler)

    loopback.routes.update({"/jwks": keys, "/begun": once_begun, "/over": at_the_end})
    script = """
    def call(path):
        urllib.request.urlopen(sys.argv[1].replace("/jwks", path)).close()

    service = KeyService(pace=Pace(deadline=15.0))
    watch = service.watch([source], sink)
    call("/begun")
    child = os.fork()
    if child == 0:
        watch.revive()
        assert sink.came.wait(10)
        gc.collect()
        os._exit(0)
    ends(child)
    call("/over")
    assert sink.came.wait(10)
    assert watch.status()[ISSUER]["failures"] == 0
    """

    run(script, f"{loopback.url}/jwks", options=["-W", "error::ResourceWarning"])

    assert sorted(loopback.paths) == ["/begun", "/jwks", "/jwks", "/over"]


@forks
def test_fork_waits_for_a_step_of_the_fetch_so_that_no_lock_is_copied_held():
    script = """
    lock, is_held = threading.Lock(), threading.Event()
    async def fetch(source, known):
        # As an import or the reading of certificates does: all in one step, and not at once.
        with lock:
            is_held.set()
            threading.Event().wait(0.2)
        return Fetched(b"{}")
    watch = KeyService(fetch=fetch).watch([source], sink)
    is_held.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if lock.acquire(timeout=5) else 1)
    ends(child)
    assert sink.came.wait(10)
    """

    run(script)


@forks
def test_child_of_a_child_fetches_too_and_their_interpreters_end_cleanly(loopback):
    loopback.routes["/jwks"] = respond()
    script = """
    watch = key_service().watch([source], sink)
    assert sink.came.wait(10)
    for generation in range(2):
        child = os.fork()
        if child:
            ends(child)
            break
        asyncio.run(watch.fetched(ISSUER, timeout=10))
        assert len(sink.sets) == generation + 2
    """

    run(script, f"{loopback.url}/jwks")

    assert loopback.paths == ["/jwks"] * 3


@forks
def test_child_closes_what_its_parent_began_without_harm(loopback):
    loopback.routes["/jwks"] = respond()
    script = """
    watch = key_service().watch([source], sink)
    assert sink.came.wait(10)
    child = os.fork()
    if child == 0:
        watch.close()
        key_service().close()
        assert threading.active_count() == 1
        os._exit(0)
    ends(child)
    asyncio.run(watch.fetched(ISSUER, timeout=10))
    assert len(sink.sets) == 2
    """

    run(script, f"{loopback.url}/jwks")


def test_end_of_the_interpreter_does_not_wait_for_an_issuer(loopback):
    loopback.routes["/jwks"] = lambda _: loopback.released.wait()
    began = time.monotonic()

    run(
        """
        service = KeyService(pace=Pace(deadline=3600.0))
        watch = service.watch([source], sink)
        asyncio.run(watch.fetched(ISSUER, timeout=0.2))
        """,
        f"{loopback.url}/jwks",
        options=["-W", "error::ResourceWarning"],
    )

    assert time.monotonic() - began < 10.0


def test_end_of_the_interpreter_does_not_wait_for_a_silent_name_server():
    run(
        """
        import socket
        asked = threading.Event()
        def silent(*_):
            asked.set()
            threading.Event().wait()
        socket.getaddrinfo = silent
        watch = key_service().watch([source], sink)
        assert asked.wait(10)
        """,
        "https://auth.example.com/jwks",
    )
