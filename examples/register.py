#!/usr/bin/env python3
"""A backend in Python that registers, with no library but gRPC's (`pip install grpcio grpcio-tools`).

    register.py PROTO_DIR SOCKET

PROTO_DIR holds Longshore's protos; SOCKET is where it takes calls, in a container a path in /run/guest-services. It
registers where $LONGSHORE_SOCKET says: in an extension's container that is set; on the host, where it stands in for the
containers, take `registration_socket` from `longshore inspect --json EXTENSION`.
"""

import http.server
import os
import queue
import socketserver
import sys
import threading
import time
import uuid

import grpc

sys.path.insert(0, sys.argv[1])
messages, services = grpc.protos_and_services("longshore/v1/registration.proto")


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers GET /hello."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"hello from Python\n" if self.path == "/hello" else b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "broker"  # a Unix socket's peer has no address


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def register(socket, instance):
    """Holds one lease, and prints what is told, until it is lost."""
    said = queue.Queue()
    # In a container it is told by its name there, on the host by its path.
    directory, name = os.path.split(os.path.abspath(socket))
    told_as = name if directory == "/run/guest-services" else os.path.abspath(socket)
    endpoint = messages.Endpoint(name="api", protocol="ENDPOINT_PROTOCOL_HTTP1", socket=told_as)
    hello = messages.Hello(instance=instance, software="register.py", endpoints=[endpoint])
    said.put(messages.RegisterRequest(hello=hello))
    place = os.environ.get("LONGSHORE_SOCKET", "/run/longshore/longshore.sock")
    with grpc.insecure_channel("unix:" + place) as channel:
        # The requests have no end: the lease ends with the stream.
        for told in services.RegistrationServiceStub(channel).Register(iter(said.get, None)):
            print(told.WhichOneof("part"), flush=True)


def is_final(error):
    """Whether coming back is of no use: this is refused or wrong, what is removed, or a newer instance has come."""
    if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
        # Its reason is in the details; other reasons pass.
        details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        return b"REGISTRATION_SUPERSEDED" in details or b"VERSION_UNSUPPORTED" in details
    return error.code() in (
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.NOT_FOUND,
    )


def main():
    socket = sys.argv[2]
    if os.path.exists(socket):
        os.unlink(socket)
    server = Server(socket, Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    instance, pause = str(uuid.uuid4()), 0.1
    while True:
        begun = time.monotonic()
        try:
            register(socket, instance)
        except grpc.RpcError as error:
            print(error.code().name, error.details(), file=sys.stderr, flush=True)
            if is_final(error):
                sys.exit(1)
        pause = 0.1 if time.monotonic() - begun > 10 else min(pause * 2, 10)
        time.sleep(pause)


main()
