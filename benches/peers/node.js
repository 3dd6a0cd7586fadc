// A proxy as Node.js programs have it: its own `http`, kept connections, pipes. node.js DIR
const http = require('node:http');
const { pipeline } = require('node:stream');

const directory = process.argv[2];
const agent = new http.Agent({ keepAlive: true, maxFreeSockets: 128 });

const server = http.createServer((request, response) => {
  const { method, url: path, headers } = request;
  const outgoing = http.request({ socketPath: `${directory}/backend-http.sock`, method, path, headers, agent }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    pipeline(answer, response, () => {});
  });
  outgoing.on('error', () => response.destroy());
  if (headers['content-length'] === undefined && headers['transfer-encoding'] === undefined) outgoing.end();
  else pipeline(request, outgoing, () => {});
});
server.keepAliveTimeout = 0;
server.requestTimeout = 0;
server.listen(`${directory}/node-http.sock`);
