import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from threadpoolctl import threadpool_info

from npattn.processes import ENDING, interrupts_put_off, results_in_turn, worker_processes

ABORTED = """
    from npattn.processes import worker_processes

    def large():
        return bytes(5_000_000)  # more than a pipe holds

    if __name__ == "__main__":
        with worker_processes(2) as pool:
            results = [pool.submit(large) for _ in range(100)]
            results[1].result()
            raise KeyboardInterrupt
"""
BUSY = """
    import threading
    from npattn.processes import worker_processes

    def wait():
        threading.Event().wait()

    if __name__ == "__main__":
        with worker_processes(2) as pool:
            for _ in range(3):
                pool.submit(wait)
            pool.submit(int)
            raise KeyboardInterrupt
"""

CANCELLED = """
    import threading, time
    from npattn.processes import Workers, worker_processes

    def wait():
        threading.Event().wait()

    def shut_down_late(pool, **options):
        time.sleep(0.5)
        shut_down(pool, **options)

    if __name__ == "__main__":
        shut_down, Workers.shutdown = Workers.shutdown, shut_down_late
        with worker_processes(2) as pool:
            pool.submit(int).result()
            for future in [pool.submit(wait) for _ in range(50)]:
                future.cancel()
            raise KeyboardInterrupt
"""

FORGOTTEN = """
    import concurrent.futures.process, gc, threading, time
    from npattn.processes import worker_processes

    Thread = concurrent.futures.process._ExecutorManagerThread  # which knows the pool by a weak reference
    is_shutting_down = Thread.is_shutting_down

    def look_late(thread):
        time.sleep(0.5)
        return is_shutting_down(thread)

    def wait():
        threading.Event().wait()

    def main():
        with worker_processes(2) as pool:
            futures = []
            while sum(future.running() for future in futures) < 5:  # two, and three that wait at the workers' door
                futures.append(pool.submit(wait))
                time.sleep(0.01)
            futures += [pool.submit(wait) for _ in range(50)]
            Thread.is_shutting_down = look_late
            for future in futures:
                future.cancel()
            raise KeyboardInterrupt

    if __name__ == "__main__":
        try:
            main()
        except KeyboardInterrupt:
            pass
        gc.collect()
        raise KeyboardInterrupt
"""


def run(code, folder):
    """Run a program that ends by an interrupt."""
    path = folder / "program.py"
    path.write_text(textwrap.dedent(code))
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert "Exception in thread" not in done.stderr


def test_results_on_their_way_keep_no_process_from_its_end(tmp_path):
    run(ABORTED, tmp_path)


def test_workers_that_compute_keep_no_process_from_its_end(tmp_path):
    run(BUSY, tmp_path)


def test_cancelled_work_keeps_no_process_from_its_end(tmp_path):
    run(CANCELLED, tmp_path)


def test_nor_does_a_pool_that_nobody_knows_any_more(tmp_path):
    run(FORGOTTEN, tmp_path)


def test_a_worker_multiplies_on_one_thread(monkeypatch):
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "2")
    with worker_processes(1) as pool:
        libraries = pool.submit(threadpool_info).result()
    assert [library["num_threads"] for library in libraries if library["user_api"] == "blas"]
    assert {library["num_threads"] for library in libraries} == {1}


@pytest.mark.parametrize("number", ENDING)
def test_an_interrupt_that_is_put_off_comes_when_the_outermost_block_has_ended(number):
    def interrupt(*_):
        raise KeyboardInterrupt

    before, passed = signal.signal(number, interrupt), []
    try:
        with pytest.raises(KeyboardInterrupt):
            with interrupts_put_off():
                with interrupts_put_off():
                    signal.raise_signal(number)
                    passed.append("inner")
                passed.append("outer")
            passed.append("behind")
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)
    assert passed == ["inner", "outer"]


def test_what_is_handled_otherwise_stays_so():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with interrupts_put_off():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_thread_that_is_interrupted_by_nothing_puts_nothing_off():
    handlers = []

    def look():
        with interrupts_put_off():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]


def test_results_come_in_their_order_and_an_error_in_its_turn():
    with ThreadPoolExecutor(3) as pool:
        times = iter(results_in_turn(pool, lambda i, wait: (time.sleep(wait), 1 / i)[1], [(2, 0.1), (1, 0), (0, 0)]))
        assert [next(times), next(times)] == [0.5, 1]
        with pytest.raises(ZeroDivisionError):
            next(times)
