// Streams with default settings, to the backend of backend.js, and speaks WebSocket to it through Connect.
//
// stream.js PROTO_DIR SOCKET EXTENSION
"use strict";

const assert = require("node:assert/strict");
const { createHash, randomBytes } = require("node:crypto");
const { once } = require("node:events");
const { setTimeout: sleep } = require("node:timers/promises");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [protoDir, socket, extension] = process.argv.slice(2);
const { v1 } = grpc.loadPackageDefinition(
  loader.loadSync("longshore/v1/backend.proto", { includeDirs: [protoDir] }),
).longshore;
const backends = new v1.BackendService(`unix://${socket}`, grpc.credentials.createInsecure());

function call(method, path) {
  const stream = backends.Stream();
  stream.write({ head: { extension, method, path } });
  return stream;
}

// Status and body; the end comes last.
async function whole(stream) {
  const [data, ended] = [[], []];
  let status;
  for await (const part of stream) {
    assert.equal(ended.length, 0);
    if (part.head) status = part.head.status;
    else if (part.data) data.push(part.data);
    else ended.push(part.end);
  }
  assert.equal(ended.length, 1);
  return { status, body: Buffer.concat(data) };
}

async function upload() {
  const stream = call("POST", "/upload");
  const answer = whole(stream);
  const hash = createHash("sha256");
  for (let number = 0; number < 80; number++) {
    const data = Buffer.alloc(256 << 10, number);
    hash.update(data);
    if (!stream.write({ data })) await once(stream, "drain");
  }
  stream.end();
  const { status, body } = await answer;
  assert.equal(status, 200);
  assert.deepEqual(JSON.parse(body), { bytes: 20 << 20, sha256: hash.digest("hex") });
}

async function download() {
  const stream = call("GET", "/download");
  stream.end();
  await sleep(500); // nobody reads; the backend waits
  const { body } = await whole(stream);
  assert.equal(body.length, 20 << 20);
  for (let number = 0; number < 320; number++) {
    const block = body.subarray(number << 16, (number + 1) << 16);
    assert.ok(block.equals(Buffer.alloc(64 << 10, number)));
  }
}

async function events() {
  const stream = call("GET", "/events");
  stream.end();
  stream.on("error", (error) => assert.equal(error.code, grpc.status.CANCELLED));
  let number = -1;
  await new Promise((resolve) =>
    stream.on("data", (part) => {
      if (part.data) assert.equal(part.data.toString(), `data: ${number}\n\n`);
      if (++number === 5) resolve();
    }),
  );
  stream.cancel();
  for (let tries = 0; tries < 100; tries++) {
    const left = call("GET", "/left");
    left.end();
    if (Number((await whole(left)).body) > 0) return;
    await sleep(50);
  }
  assert.fail("the backend is not told");
}

async function websocket() {
  const stream = backends.Connect();
  const headers = [
    { name: "Sec-WebSocket-Key", value: randomBytes(16).toString("base64") },
    { name: "Sec-WebSocket-Version", value: "13" },
  ];
  stream.write({ head: { request: { extension, path: "/ws", headers } } });
  const parts = stream[Symbol.asyncIterator]();
  const next = async () => (await parts.next()).value;
  assert.equal((await next()).head.status, 101);
  stream.write({ data: Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0x68, 0x69]) });
  assert.deepEqual((await next()).data, Buffer.from([0x81, 2, 0x68, 0x69]));
  stream.write({ data: Buffer.from([0x88, 0x80, 0, 0, 0, 0]) });
  assert.equal((await next()).data[0], 0x88);
  assert.equal((await next()).end, true);
  stream.end();
  assert.equal(await next(), undefined);
}

async function main() {
  await upload();
  await download();
  await events();
  await websocket();
  backends.close();
  console.log("node: all as expected");
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
