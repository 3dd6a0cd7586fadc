"""Streams and connects with default settings, to the backend of backend.js.

stream.py PROTO_DIR SOCKET EXTENSION
"""

import base64
import hashlib
import importlib
import itertools
import json
import os
import queue
import sys
import tempfile
import time

import grpc

from client import generate

MIB = 1 << 20


def main(proto_dir, socket, extension):
    with tempfile.TemporaryDirectory() as out:
        generate(proto_dir, out)
        pb = importlib.import_module("longshore.v1.backend_pb2")
        backend_grpc = importlib.import_module("longshore.v1.backend_pb2_grpc")

    def head(method, path, **more):
        return pb.StreamRequest(head=pb.RequestHead(extension=extension, method=method, path=path, **more))

    with grpc.insecure_channel(f"unix://{socket}") as channel:
        backends = backend_grpc.BackendServiceStub(channel)
        upload(pb, backends, head)
        download(backends, head)
        events(backends, head)
        websocket(pb, backends, extension)
    print("python: all as expected")


def whole(call):
    """Status and body; the end comes last."""
    parts = list(call)
    kinds = [part.WhichOneof("part") for part in parts]
    assert kinds[0] == "head" and kinds[-1] == "end" and set(kinds[1:-1]) <= {"data"}, kinds
    return parts[0].head.status, b"".join(part.data for part in parts[1:-1])


def upload(pb, backends, head):
    blocks = [bytes([number]) * (MIB // 4) for number in range(80)]
    sent = itertools.chain([head("POST", "/upload")], (pb.StreamRequest(data=block) for block in blocks))
    status, body = whole(backends.Stream(sent))
    expected = {"bytes": 20 * MIB, "sha256": hashlib.sha256(b"".join(blocks)).hexdigest()}
    assert (status, json.loads(body)) == (200, expected), body


def download(backends, head):
    call = backends.Stream(iter([head("GET", "/download")]))
    time.sleep(0.5)  # Nobody reads; the backend waits.
    status, body = whole(call)
    assert status == 200 and body == b"".join(bytes([n % 256]) * (64 << 10) for n in range(320)), len(body)


def events(backends, head):
    call = backends.Stream(iter([head("GET", "/events")]))
    assert next(call).head.status == 200
    for number in range(5):
        # Each comes by itself, before the next is sent.
        assert next(call).data == f"data: {number}\n\n".encode()
    call.cancel()
    for _ in range(100):
        _, left = whole(backends.Stream(iter([head("GET", "/left")])))
        if int(left) > 0:
            return
        time.sleep(0.05)
    raise AssertionError("the backend is not told")


def websocket(pb, backends, extension):
    key = base64.b64encode(os.urandom(16)).decode()
    headers = [pb.Header(name="Sec-WebSocket-Key", value=key), pb.Header(name="Sec-WebSocket-Version", value="13")]
    request = pb.RequestHead(extension=extension, path="/ws", headers=headers)
    sending = queue.Queue()
    sending.put(pb.ConnectRequest(head=pb.ConnectHead(request=request)))
    call = backends.Connect(iter(sending.get, None))
    switched = next(call).head
    accept = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    lines = {line.name: line.value for line in switched.headers}
    assert (switched.status, lines["sec-websocket-accept"]) == (101, base64.b64encode(accept).decode()), switched
    for text in [b"hello", b"x" * 60_000, b"\xff\0"]:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
        length = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
        sending.put(pb.ConnectRequest(data=b"\x82" + length + mask + masked))
        wanted = b"\x82" + (bytes([len(text)]) if len(text) < 126 else b"\x7e" + len(text).to_bytes(2, "big")) + text
        came = b""
        while len(came) < len(wanted):
            came += next(call).data
        assert came == wanted, came[:20]
    # Close, and the answer to it; then the backend says no more, and neither do we.
    sending.put(pb.ConnectRequest(data=b"\x88\x80" + bytes(4)))
    assert next(call).data[:1] == b"\x88"
    assert next(call).end
    sending.put(None)
    assert list(call) == []


if __name__ == "__main__":
    main(*sys.argv[1:])
