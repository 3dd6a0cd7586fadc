"""Calls BackendService as a stock client does.

stream.py PROTO_DIR SOCKET EXTENSION MODE BYTES

MODE: `down`, `up` print MiB/s; `stalled` prints the p99 of Fetch in µs, alone and beside a stream that is not read.
"""

import sys
import threading
import time

import grpc

protos, socket, extension, mode, size = sys.argv[1:]
total = int(size)
sys.path.append(protos)
backend, services = grpc.protos_and_services("longshore/v1/backend.proto")
CHUNK = bytes(256 * 1024)


def down(stub):
    head = backend.RequestHead(extension=extension, path=f"/big/{total}")
    came = sum(len(part.data) for part in stub.Stream(iter([backend.StreamRequest(head=head)])))
    assert came == total, came


def up(stub):
    def parts():
        head = backend.RequestHead(extension=extension, method="POST", path="/sink", content_length=total)
        yield backend.StreamRequest(head=head)
        whole = backend.StreamRequest(data=CHUNK)
        for _ in range(total // len(CHUNK)):
            yield whole
        if total % len(CHUNK):
            yield backend.StreamRequest(data=CHUNK[: total % len(CHUNK)])

    for _ in stub.Stream(parts()):
        pass


def fetch(stub):
    return stub.Fetch(backend.FetchRequest(extension=extension, path="/small"))


def p99(stub):
    took = []
    for _ in range(2000):
        begun = time.perf_counter()
        fetch(stub)
        took.append((time.perf_counter() - begun) * 1e6)
    return sorted(took)[int(len(took) * 0.99)]


def stalled(stub):
    p99(stub)
    alone = p99(stub)
    done = threading.Event()

    def parts():
        yield backend.StreamRequest(head=backend.RequestHead(extension=extension, path=f"/big/{total}"))
        done.wait()

    call = stub.Stream(parts())
    next(call)
    time.sleep(0.3)
    beside = p99(stub)
    done.set()
    call.cancel()
    print(alone, beside)


with grpc.insecure_channel(f"unix:{socket}") as channel:
    stub = services.BackendServiceStub(channel)
    if mode == "stalled":
        stalled(stub)
    else:
        fetch(stub)
        begun = time.perf_counter()
        {"down": down, "up": up}[mode](stub)
        print(total / 1048576 / (time.perf_counter() - begun))
