// Usage, in the checkout: node examples/first-call/node/first-call.js [EXTENSION]
const { existsSync } = require('node:fs');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const extension = process.argv[2] ?? 'longshore/hello-extension';
// Where this user's broker listens, else the machine's. $LONGSHORE_SOCKET names another.
const own = `${process.env.XDG_RUNTIME_DIR ?? '/run'}/longshore/longshore.sock`;
const socket = process.env.LONGSHORE_SOCKET ?? (existsSync(own) ? own : '/run/longshore/longshore.sock');
const files = ['longshore/v1/backend.proto', 'longshore/v1/exec.proto'];
const { v1 } = grpc.loadPackageDefinition(loader.loadSync(files, { includeDirs: ['proto'] })).longshore;
const backends = new v1.BackendService(`unix:${socket}`, grpc.credentials.createInsecure());
const programs = new v1.ExecService(`unix:${socket}`, grpc.credentials.createInsecure());

// An HTTP request to the extension's backend. Any status is an answer; an error says why there is none.
backends.Fetch({ extension, path: '/hello?name=Node' }, (error, response) => {
  if (error) return console.error(`fetch: ${error.details}`);
  console.log(`fetch: ${response.status} ${String(response.body).trim()}`);
});

// A program on this machine: output as it comes, then how it ended.
const run = programs.Run({ extension, target: 'EXEC_TARGET_HOST', argv: ['hello.sh', 'Node'] });
run.on('error', (error) => console.error(`run: ${error.details}`));
run.on('data', ({ output, exited }) => {
  if (output) process.stdout.write(output.data);
  if (exited) console.log(`run: exit code ${exited.code}`);
});
