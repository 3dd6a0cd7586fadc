"""gRPC through the broker: a grpcio server as a backend, a grpcio client with default settings before the broker.

Usage: through.py BACKEND_SOCKET BROKER_SOCKET EXTENSION
"""

import sys
import threading
import time
from concurrent import futures

import grpc
from grpc_status import rpc_status
from google.protobuf import any_pb2
from google.rpc import code_pb2, status_pb2

BACKEND, BROKER, EXTENSION = sys.argv[1:4]
cancelled = threading.Event()
seen = {}


def unary(request, context):
    seen["metadata"] = list(context.invocation_metadata())
    seen["remaining"] = context.time_remaining()
    seen["authority"] = None
    context.send_initial_metadata((("x-first", "1"), ("x-bytes-bin", b"\x00\xff"), ("x-first", "2")))
    context.set_trailing_metadata((("x-last", "z"), ("x-last-bin", b"\xfe")))
    return request[::-1]


def client_stream(requests, context):
    return b"|".join(requests)


def server_stream(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def bidi(requests, context):
    for request in requests:
        yield b"<" + request + b">"


def fail(request, context):
    detail = any_pb2.Any()
    detail.Pack(status_pb2.Status(message="inner"))
    status = status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message="ü 100%\n", details=[detail])
    context.abort_with_status(rpc_status.to_status(status))


def hang(request, context):
    context.add_callback(cancelled.set)
    while context.is_active():
        time.sleep(0.01)
        yield b"tick"


def large(request, context):
    return request * 4096


def compressed(request, context):
    context.set_compression(grpc.Compression.Gzip)
    return request


class Backend(grpc.GenericRpcHandler):
    """Serves plain bytes under /test.Echo."""

    def service(self, details):
        return {
            "/test.Echo/Unary": grpc.unary_unary_rpc_method_handler(unary),
            "/test.Echo/Client": grpc.stream_unary_rpc_method_handler(client_stream),
            "/test.Echo/Server": grpc.unary_stream_rpc_method_handler(server_stream),
            "/test.Echo/Bidi": grpc.stream_stream_rpc_method_handler(bidi),
            "/test.Echo/Fail": grpc.unary_unary_rpc_method_handler(fail),
            "/test.Echo/Hang": grpc.unary_stream_rpc_method_handler(hang),
            "/test.Echo/Large": grpc.unary_unary_rpc_method_handler(large),
            "/test.Echo/Compressed": grpc.unary_unary_rpc_method_handler(compressed),
            "/longshore.v1.SystemService/GetInfo": grpc.unary_unary_rpc_method_handler(unary),
        }.get(details.method)


def refused(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("answered")


def main():
    server = grpc.server(futures.ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers((Backend(),))
    server.add_insecure_port("unix:" + BACKEND)
    server.start()
    channel = grpc.insecure_channel("unix:" + BROKER)
    through = (("longshore-extension", EXTENSION),)

    echo = channel.unary_unary("/test.Echo/Unary")
    sent = through + (("x-a", "1"), ("x-bin", b"\x00\xff\x80"), ("x-a", "2"), ("longshore-secret", "token"))
    answer, call = echo.with_call(b"abc\x00", metadata=sent, timeout=20)
    assert answer == b"\x00cba", answer
    heard = [pair for pair in seen["metadata"] if pair[0].startswith(("x-", "longshore"))]
    # Only values of one name have an order.
    assert sorted(heard, key=lambda pair: pair[0]) == [("x-a", "1"), ("x-a", "2"), ("x-bin", b"\x00\xff\x80")], heard
    assert 10 < seen["remaining"] <= 20, seen
    initial = [pair for pair in call.initial_metadata() if pair[0].startswith("x-")]
    assert sorted(initial) == [("x-bytes-bin", b"\x00\xff"), ("x-first", "1"), ("x-first", "2")], initial
    trailing = [pair for pair in call.trailing_metadata() if pair[0].startswith("x-")]
    assert sorted(trailing) == [("x-last", "z"), ("x-last-bin", b"\xfe")], trailing

    joined = channel.stream_unary("/test.Echo/Client")(iter([b"a", b"", b"b"]), metadata=through)
    assert joined == b"a||b", joined
    numbers = list(channel.unary_stream("/test.Echo/Server")(b"1000", metadata=through))
    assert numbers == [b"%d" % number for number in range(1000)]

    # Each message is answered before the next is sent.
    turn = threading.Semaphore(1)
    def questions():
        for word in (b"one", b"two", b"three"):
            turn.acquire()
            yield word
    answers = []
    for answer in channel.stream_stream("/test.Echo/Bidi")(questions(), metadata=through):
        answers.append(answer)
        turn.release()
    assert answers == [b"<one>", b"<two>", b"<three>"], answers

    large = channel.unary_unary("/test.Echo/Large")(b"x" * 1000, metadata=through)
    assert len(large) == 4096 * 1000
    options = {"metadata": through, "compression": grpc.Compression.Gzip}
    assert channel.unary_unary("/test.Echo/Compressed")(b"x" * 100000, **options) == b"x" * 100000

    failure = refused(lambda: channel.unary_unary("/test.Echo/Fail")(b"", metadata=through))
    assert failure.code() == grpc.StatusCode.FAILED_PRECONDITION and failure.details() == "ü 100%\n", failure
    assert rpc_status.from_call(failure).details[0].type_url.endswith("google.rpc.Status")
    unknown = refused(lambda: channel.unary_unary("/test.Echo/Unknown")(b"", metadata=through))
    assert unknown.code() == grpc.StatusCode.UNIMPLEMENTED, unknown
    assert "broker" not in unknown.details(), unknown

    # A caller that goes, and a deadline, end the call at the backend.
    hanging = channel.unary_stream("/test.Echo/Hang")(b"", metadata=through)
    assert next(hanging) == b"tick"
    hanging.cancel()
    assert cancelled.wait(10), "the backend never heard that the caller is gone"
    cancelled.clear()
    late = refused(lambda: list(channel.unary_stream("/test.Echo/Hang")(b"", metadata=through, timeout=0.3)))
    assert late.code() == grpc.StatusCode.DEADLINE_EXCEEDED, late
    assert cancelled.wait(10), "the backend never heard of the deadline"

    # Ours stays ours, whatever the header says.
    info = channel.unary_unary("/longshore.v1.SystemService/GetInfo")(b"", metadata=through)
    assert BROKER.encode() in info, info
    nobody = refused(lambda: echo(b"", metadata=(("longshore-extension", "no/body"),)))
    assert nobody.code() == grpc.StatusCode.NOT_FOUND, nobody
    # Without the header it is the broker that has no such method.
    ours = refused(lambda: echo(b""))
    assert ours.code() == grpc.StatusCode.UNIMPLEMENTED and "broker" in ours.details(), ours

    # More calls that stay open than a connection carries, and one more.
    open_calls = [channel.unary_stream("/test.Echo/Hang")(b"", metadata=through) for _ in range(20)]
    assert echo(b"ab", metadata=through, timeout=20) == b"ba"
    for call in open_calls:
        call.cancel()
    server.stop(None)
    gone = refused(lambda: echo(b"", metadata=through))
    assert gone.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION), gone
    print("through: all as expected")


main()
