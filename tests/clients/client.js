// Calls Fetch and Run with default settings.
//
// client.js PROTO_DIR SOCKET EXTENSION
"use strict";

const assert = require("node:assert/strict");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [protoDir, socket, extension] = process.argv.slice(2);
const files = ["longshore/v1/backend.proto", "longshore/v1/exec.proto"];
const { v1 } = grpc.loadPackageDefinition(loader.loadSync(files, { includeDirs: [protoDir] })).longshore;
const address = `unix://${socket}`;

const fetch = (client, request) =>
  new Promise((resolve, reject) => client.Fetch(request, (error, answer) => (error ? reject(error) : resolve(answer))));

const collect = (stream) =>
  new Promise((resolve, reject) => {
    const events = [];
    stream.on("data", (event) => events.push(event));
    stream.on("end", () => resolve(events));
    stream.on("error", reject);
  });

async function main() {
  const backends = new v1.BackendService(address, grpc.credentials.createInsecure());
  const answer = await fetch(backends, { extension, path: "/hello?name=Node" });
  assert.equal(answer.status, 200);
  assert.equal(answer.body.toString(), "Hello, Node!\n");

  const body = Buffer.alloc(1 << 20, 7);
  const echoed = await fetch(backends, { extension, method: "POST", path: "/echo", body });
  assert.ok(echoed.body.equals(body));

  const programs = new v1.ExecService(address, grpc.credentials.createInsecure());
  const argv = ["sh", "-c", "echo out; echo err >&2; exit 3"];
  const events = await collect(programs.Run({ extension, target: "EXEC_TARGET_HOST", argv }));
  assert.ok(events[0].started && events.at(-1).drained);
  const written = (stream) =>
    Buffer.concat(events.filter((e) => e.output?.stream === stream).map((e) => e.output.data)).toString();
  assert.equal(written(1), "out\n");
  assert.equal(written(2), "err\n");
  assert.deepEqual(events.filter((e) => e.exited).map((e) => e.exited.code), [3]);

  const refused = await fetch(backends, { extension: "no/such", path: "/" }).then(assert.fail, (error) => error);
  assert.equal(refused.code, grpc.status.NOT_FOUND);
  assert.equal(refused.metadata.get("grpc-status-details-bin").length, 1);

  backends.close();
  programs.close();
  console.log("node: all as expected");
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
