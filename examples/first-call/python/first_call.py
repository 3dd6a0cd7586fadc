# Usage, in the checkout: python3 examples/first-call/python/first_call.py [EXTENSION]
import os
import sys

import grpc

sys.path.append("proto")
backend, backend_services = grpc.protos_and_services("longshore/v1/backend.proto")
exec_, exec_services = grpc.protos_and_services("longshore/v1/exec.proto")

extension = sys.argv[1] if len(sys.argv) > 1 else "longshore/hello-extension"
# Where this user's broker listens, else the machine's. $LONGSHORE_SOCKET names another.
own = os.environ.get("XDG_RUNTIME_DIR", "/run") + "/longshore/longshore.sock"
usual = own if os.path.exists(own) else "/run/longshore/longshore.sock"
socket = os.environ.get("LONGSHORE_SOCKET", usual)

with grpc.insecure_channel(f"unix:{socket}") as channel:
    # An HTTP request to the extension's backend. Any status is an answer; an RpcError says why there is none.
    backends = backend_services.BackendServiceStub(channel)
    response = backends.Fetch(backend.FetchRequest(extension=extension, path="/hello?name=Python"))
    print("fetch:", response.status, response.body.decode().strip())

    # A program on this machine: output as it comes, then how it ended.
    programs = exec_services.ExecServiceStub(channel)
    request = exec_.RunRequest(extension=extension, target=exec_.EXEC_TARGET_HOST, argv=["hello.sh", "Python"])
    for event in programs.Run(request):
        if event.HasField("output"):
            sys.stdout.buffer.write(event.output.data)
            sys.stdout.flush()
        if event.HasField("exited"):
            print("run: exit code", event.exited.code)
