"""Calls Fetch and Run with default settings, and reads an error's details.

client.py PROTO_DIR SOCKET EXTENSION
"""

import importlib.resources
import pathlib
import sys
import tempfile

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from grpc_tools import protoc


def generate(proto_dir, out):
    """Makes modules of the protos, as `python -m grpc_tools.protoc` does."""
    files = sorted(str(path) for path in pathlib.Path(proto_dir).rglob("*.proto"))
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    options = [f"-I{proto_dir}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main(["protoc", *options, *files]) == 0
    sys.path.insert(0, out)


def main(proto_dir, socket, extension):
    with tempfile.TemporaryDirectory() as out:
        generate(proto_dir, out)
        backend_pb2 = importlib.import_module("longshore.v1.backend_pb2")
        backend_grpc = importlib.import_module("longshore.v1.backend_pb2_grpc")
        exec_pb2 = importlib.import_module("longshore.v1.exec_pb2")
        exec_grpc = importlib.import_module("longshore.v1.exec_pb2_grpc")

    with grpc.insecure_channel(f"unix://{socket}") as channel:
        backends = backend_grpc.BackendServiceStub(channel)
        answer = backends.Fetch(backend_pb2.FetchRequest(extension=extension, path="/hello?name=Python"))
        assert (answer.status, answer.body) == (200, b"Hello, Python!\n"), answer

        echoed = bytes(range(256)) * 4096
        request = backend_pb2.FetchRequest(extension=extension, method="POST", path="/echo", body=echoed)
        assert backends.Fetch(request).body == echoed

        program = ["sh", "-c", "echo out; echo err >&2; exit 3"]
        run = exec_pb2.RunRequest(extension=extension, target=exec_pb2.EXEC_TARGET_HOST, argv=program)
        events = list(exec_grpc.ExecServiceStub(channel).Run(run))
        kinds = [event.WhichOneof("event") for event in events]
        assert kinds[0] == "started" and kinds[-1] == "drained", kinds
        written = {}
        for event in events:
            if event.HasField("output"):
                written.setdefault(event.output.stream, bytearray()).extend(event.output.data)
        assert written == {backend_pb2.OUTPUT_STREAM_STDOUT: b"out\n", backend_pb2.OUTPUT_STREAM_STDERR: b"err\n"}, written
        assert [event.exited.code for event in events if event.HasField("exited")] == [3]

        try:
            backends.Fetch(backend_pb2.FetchRequest(extension="no/such", path="/"))
            raise AssertionError("it is not installed")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
            (detail,) = rpc_status.from_call(error).details
            info = error_details_pb2.ErrorInfo()
            assert detail.Unpack(info)
            assert (info.domain, info.reason) == ("longshore.dev", "EXTENSION_NOT_FOUND"), info
            assert (info.metadata["subject"], info.metadata["retry"]) == ("no/such", "false"), info
    print("python: all as expected")


if __name__ == "__main__":
    main(*sys.argv[1:])
