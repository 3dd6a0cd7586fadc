// A backend as authors write them, for the clients to stream through: Node's own server, and `ws` for WebSocket.
//
// backend.js SOCKET
"use strict";

const { createHash } = require("node:crypto");
const http = require("node:http");
const { WebSocketServer } = require("ws");

const [socket] = process.argv.slice(2);
let left = 0; // how many event streams were left by their readers

const routes = {
  // Tells how much came.
  "POST /upload": async (request, response) => {
    const hash = createHash("sha256");
    let bytes = 0;
    for await (const chunk of request) {
      hash.update(chunk);
      bytes += chunk.length;
    }
    response.end(JSON.stringify({ bytes, sha256: hash.digest("hex") }));
  },
  // Blocks that count up, written no faster than they are read.
  "GET /download": async (request, response) => {
    for (let number = 0; number < 320; number++) {
      if (!response.write(Buffer.alloc(64 << 10, number))) await new Promise((go) => response.once("drain", go));
    }
    response.end();
  },
  // Server-sent events, without end.
  "GET /events": (request, response) => {
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    let number = 0;
    const timer = setInterval(() => response.write(`data: ${number++}\n\n`), 20);
    response.on("close", () => {
      clearInterval(timer);
      left++;
    });
  },
  "GET /left": (request, response) => response.end(String(left)),
};

const server = http.createServer((request, response) => routes[`${request.method} ${request.url}`](request, response));
new WebSocketServer({ server, path: "/ws" }).on("connection", (connection) => {
  connection.on("message", (data, isBinary) => connection.send(data, { binary: isBinary }));
});
server.listen(socket, () => console.log("listening"));
