// Usage, in the checkout: node examples/first-call/node/talk.js [EXTENSION]
const { existsSync } = require('node:fs');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const extension = process.argv[2] ?? 'longshore/hello-extension';
// Where this user's broker listens, else the machine's. $LONGSHORE_SOCKET names another.
const own = `${process.env.XDG_RUNTIME_DIR ?? '/run'}/longshore/longshore.sock`;
const socket = process.env.LONGSHORE_SOCKET ?? (existsSync(own) ? own : '/run/longshore/longshore.sock');
const files = loader.loadSync('longshore/v1/exec.proto', { includeDirs: ['proto'] });
const { v1 } = grpc.loadPackageDefinition(files).longshore;
const programs = new v1.ExecService(`unix:${socket}`, grpc.credentials.createInsecure());

// A program in the backend, and this process's input as its input.
const talk = programs.Exec();
talk.write({ start: { extension, target: 'EXEC_TARGET_BACKEND', argv: ['/hello-backend', 'shout'], stdin: true } });
process.stdin.on('data', (data) => talk.write({ stdin: data }));
process.stdin.on('end', () => talk.end({ closeStdin: {} }));
talk.on('error', (error) => console.error(`exec: ${error.details}`));
talk.on('data', ({ output, exited }) => {
  if (output) process.stdout.write(output.data);
  if (exited) console.log(`exec: exit code ${exited.code}`);
});
talk.on('end', () => process.stdin.pause());
