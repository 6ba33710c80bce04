"""`uvicorn main:app` in processes that are killed, starved of disk, doubled and stopped."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .conftest import Process, ipn

Make = Callable[..., Process]


def post(url: str, message: dict[str, Any], timeout_s: float = 10.0) -> tuple[int, dict[str, str]]:
    body = json.dumps(message).encode()
    request = urllib.request.Request(f"{url}/ipn", body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_documents_program_works_with_one_changed_line(process: Make) -> None:
    service = process()
    service.start()
    assert post(service.url, ipn()) == (200, {"code": "00", "message": "success"})
    service.until(lambda: service.lines("end") == ["00017-058-0001"])
    assert service.stop() in (0, -signal.SIGTERM, 143)


def test_a_kill_after_the_200_loses_nothing_and_runs_the_hook_again(process: Make) -> None:
    service = process(HOOK_S="30")
    service.start()
    assert post(service.url, ipn())[0] == 200
    assert post(service.url, ipn(requestId="second"))[0] == 200  # waits for the first: same order
    service.until(lambda: service.lines("begin"))
    service.kill()
    assert service.lines("end") == []
    service.environ["HOOK_S"] = "0"
    service.start()
    service.until(lambda: service.lines("end") == ["00017-058-0001", "second"])
    assert post(service.url, ipn())[0] == 200
    time.sleep(0.3)
    assert service.lines("begin") == ["00017-058-0001", "00017-058-0001", "second"]


def test_killed_under_load_every_acknowledged_ipn_reaches_the_hook(process: Make) -> None:
    service = process()
    acknowledged: set[str] = set()
    for turn in range(6):
        service.start()
        stop = threading.Event()

        def send(worker: int, turn: int = turn, stop: threading.Event = stop) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                name = f"{turn}-{worker}-{number}"
                try:
                    status, _ = post(service.url, ipn(requestId=name, orderId=name), 2.0)
                except (OSError, http.client.HTTPException):
                    return
                if status == 200:
                    acknowledged.add(name)

        with ThreadPoolExecutor(8) as pool:
            sending = [pool.submit(send, worker) for worker in range(8)]
            time.sleep(0.4)
            service.kill()
            stop.set()
            for one in sending:
                one.result()
    service.start()
    service.until(lambda: acknowledged <= set(service.lines("end")), 30)
    assert len(acknowledged) > 50
    # Only what ran, or was about to be marked, when a process died may have run twice.
    twice = len(service.lines("end")) - len(set(service.lines("end")))
    assert twice <= 6 * 300
    counts = [sys.executable, "-m", "tillgate.integrations.atom_ipn", "counts"]
    done = subprocess.run(counts, env=service.environ, capture_output=True, check=True, timeout=30)
    assert json.loads(done.stdout)["dead"] == 0


def test_two_processes_share_a_journal_and_run_each_hook_once(process: Make) -> None:
    service = process(HOOK_S="0.05")
    service.start("--workers", "3")
    with ThreadPoolExecutor(16) as pool:
        sent = [pool.submit(post, service.url, ipn(requestId=f"r-{n % 10}")) for n in range(100)]
        assert {one.result()[0] for one in sent} == {200}
    service.until(lambda: len(service.lines("end")) >= 10)
    time.sleep(0.5)
    assert sorted(service.lines("begin")) == sorted(f"r-{n}" for n in range(10))


def test_a_full_disk_is_answered_99_and_heals(process: Make) -> None:
    service = process()
    service.start()
    assert post(service.url, ipn(requestId="before"))[0] == 200
    assert service.process is not None
    size = max(path.stat().st_size for path in service.directory.glob("ipn.db*"))
    limit = (size + 20_000, resource.RLIM_INFINITY)
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, limit)
    big = "x" * 4_000
    answers = [post(service.url, ipn(requestId=f"r-{n}", narrative=big)) for n in range(40)]
    full = [body for status, body in answers if status != 200]
    assert full
    assert {(status, body["code"]) for status, body in answers} <= {(200, "00"), (503, "99")}
    infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, infinite)
    for n in range(40):
        assert post(service.url, ipn(requestId=f"r-{n}", narrative=big))[0] == 200
    service.until(lambda: set(service.lines("end")) == {"before", *(f"r-{n}" for n in range(40))})
    assert len(service.lines("end")) == 41


def test_a_stop_lets_running_hooks_end(process: Make) -> None:
    service = process(HOOK_S="1")
    service.start()
    post(service.url, ipn())
    service.until(lambda: service.lines("begin"))
    service.stop()
    assert service.lines("end") == ["00017-058-0001"]
    service.environ["HOOK_S"] = "0"
    service.start()
    time.sleep(0.5)
    assert service.lines("begin") == ["00017-058-0001"]


def test_a_hook_named_in_the_environment(process: Make) -> None:
    main = "from tillgate.integrations.atom_ipn import app\n"
    service = process(main=main, TILLGATE_PROCESS_IPN="work:take")
    (service.directory / "work.py").write_text(
        "import os\n"
        "async def take(ipn):\n"
        "    open(os.environ['SEEN'], 'a').write(f'end {ipn.requestId}\\n')\n"
    )
    service.start()
    post(service.url, ipn())
    service.until(lambda: service.lines("end") == ["00017-058-0001"])


def test_a_hook_that_is_not_there_is_said_at_the_start(process: Make) -> None:
    service = process(
        main="from tillgate.integrations.atom_ipn import app\n", TILLGATE_PROCESS_IPN="work:take"
    )
    with contextlib.suppress(AssertionError):
        service.start()
    assert service.process is not None
    assert service.process.wait(10) != 0
    assert "TILLGATE_PROCESS_IPN=work:take" in service.log


def test_run_as_a_script_the_hook_is_found_once(process: Make) -> None:
    main = """
import os
import uvicorn
from tillgate.integrations.atom_ipn import app

def process_ipn(ipn_request):
    open(os.environ["SEEN"], "a").write(f"end {ipn_request.requestId}\\n")

if __name__ == "__main__":
    uvicorn.run("main:app", host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
"""
    service = process(main=main)
    service.environ["PORT"] = str(service.port)
    script = subprocess.Popen([sys.executable, "main.py"], cwd=service.directory, env=service.environ)
    try:
        end = time.monotonic() + 20
        while True:
            try:
                assert post(service.url, ipn())[0] == 200
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.05)
        service.until(lambda: service.lines("end") == ["00017-058-0001"])
    finally:
        script.terminate()
        script.wait(20)


def test_dead_letters_are_listed_and_replayed_from_the_command_line(process: Make) -> None:
    main = """
import os
from pathlib import Path
from tillgate.integrations.atom_ipn import app

def process_ipn(ipn_request):
    if not Path(os.environ["SEEN"] + ".healed").exists():
        raise ValueError("the ledger is closed")
    open(os.environ["SEEN"], "a").write(f"end {ipn_request.requestId}\\n")
"""
    service = process(main=main, TILLGATE_IPN_TRIES="2")

    def command(*words: str) -> tuple[int, Any]:
        line = [sys.executable, "-m", "tillgate.integrations.atom_ipn", *words]
        done = subprocess.run(line, env=service.environ, capture_output=True, check=False, timeout=30)
        assert b"Traceback" not in done.stderr
        return done.returncode, json.loads(done.stdout or b"null")

    service.start()
    post(service.url, ipn())
    service.until(lambda: command("counts")[1]["dead"] == 1)
    [dead] = command("dead")[1]
    assert "the ledger is closed" in dead["error"]
    (service.directory / "seen.healed").touch()
    assert command("replay", str(dead["id"])) == (0, None)
    service.until(lambda: service.lines("end") == ["00017-058-0001"])
    assert command("replay", "999")[0] == 1
    service.environ["TILLGATE_IPN_DATABASE"] = "/proc/no/such.db"
    assert command("counts")[0] == 1
