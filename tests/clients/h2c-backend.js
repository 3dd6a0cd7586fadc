// A backend on Node's own HTTP/2 server, without TLS: `node h2c-backend.js <socket>`.
'use strict';
const http2 = require('http2');
const [socket] = process.argv.slice(2);

const server = http2.createServer({ settings: { enableConnectProtocol: true } });
server.on('stream', (stream, headers) => {
  stream.on('error', () => {});
  if (headers[':method'] === 'CONNECT') {
    stream.respond({ ':status': 200, 'x-protocol': headers[':protocol'] });
    stream.pipe(stream);
    return;
  }
  if (headers[':path'] === '/echo') {
    stream.additionalHeaders({ ':status': 103, link: '</x>; rel=preload' });
    stream.respond({ 'x-method': headers[':method'], 'x-authority': headers[':authority'] }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-end': 'yes' }));
    stream.pipe(stream);
    return;
  }
  if (headers[':path'] === '/leave') {
    stream.respond({ ':status': 200 });
    stream.end('bye');
    stream.session.close();
    return;
  }
  stream.respond({ ':status': 404 });
  stream.end();
});
server.listen(socket, () => console.log('listening'));
