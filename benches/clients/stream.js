// Calls BackendService as a stock client does. stream.js PROTO_DIR SOCKET EXTENSION MODE BYTES
// MODE: `down`, `up` print MiB/s; `stalled` prints the p99 of Fetch in µs, alone and beside a stream that is not read.
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [protos, socket, extension, mode, size] = process.argv.slice(2);
const bytes = Number(size);
const definition = loader.loadSync('longshore/v1/backend.proto', { includeDirs: [protos] });
const { v1 } = grpc.loadPackageDefinition(definition).longshore;
const client = new v1.BackendService(`unix:${socket}`, grpc.credentials.createInsecure());
const chunk = Buffer.alloc(256 * 1024);

function ended(call, onData = () => {}) {
  return new Promise((resolve, reject) => {
    call.on('data', onData);
    call.on('end', resolve);
    call.on('error', reject);
  });
}

async function down() {
  let came = 0;
  const call = client.Stream();
  call.write({ head: { extension, path: `/big/${bytes}` } });
  call.end();
  await ended(call, ({ data }) => {
    if (data) came += data.length;
  });
  if (came !== bytes) throw new Error(`${came} bytes came`);
}

async function up() {
  const call = client.Stream();
  const end = ended(call);
  call.write({ head: { extension, method: 'POST', path: '/sink', contentLength: bytes } });
  for (let left = bytes; left > 0; left -= chunk.length) {
    const data = left < chunk.length ? chunk.subarray(0, left) : chunk;
    if (!call.write({ data })) await new Promise((resolve) => call.once('drain', resolve));
  }
  call.end();
  await end;
}

const fetch = () =>
  new Promise((resolve, reject) => {
    client.Fetch({ extension, path: '/small' }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });

async function p99() {
  const took = [];
  for (let i = 0; i < 2000; i += 1) {
    const begun = process.hrtime.bigint();
    await fetch();
    took.push(Number(process.hrtime.bigint() - begun) / 1000);
  }
  return took.sort((a, b) => a - b)[Math.floor(took.length * 0.99)];
}

async function stalled() {
  await p99();
  const alone = await p99();
  const call = client.Stream();
  call.on('error', () => {});
  call.write({ head: { extension, path: `/big/${bytes}` } });
  await new Promise((resolve) => call.once('data', resolve));
  call.pause();
  await new Promise((resolve) => setTimeout(resolve, 300));
  const beside = await p99();
  call.cancel();
  console.log(`${alone} ${beside}`);
}

async function main() {
  if (mode === 'stalled') return stalled();
  await fetch();
  const begun = process.hrtime.bigint();
  await (mode === 'up' ? up() : down());
  const seconds = Number(process.hrtime.bigint() - begun) / 1e9;
  console.log(bytes / 1048576 / seconds);
}

main()
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  })
  .finally(() => client.close());
