// What a front end needs of the broker, as promises: lists, installs, views with their session, calls, programs, events.
const fs = require('node:fs');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const protobuf = require('protobufjs');

// In an application that is shipped, the files of proto/ are shipped with it.
const protos = path.join(__dirname, '../../proto');
const files = ['backend', 'event', 'exec', 'extension', 'session'].map((name) => `longshore/v1/${name}.proto`);
const options = { keepCase: true, includeDirs: [protos], longs: Number, enums: String, oneofs: true, defaults: true };
const { v1 } = grpc.loadPackageDefinition(loader.loadSync(files, options)).longshore;

/** Where `longshore serve` of the same user listens, else that of the machine. $LONGSHORE_SOCKET names another. */
function usualSocket() {
  if (process.env.LONGSHORE_SOCKET) return process.env.LONGSHORE_SOCKET;
  const usual = process.getuid() === 0 ? '/run' : `/run/user/${process.getuid()}`;
  const own = path.join(process.env.XDG_RUNTIME_DIR ?? usual, 'longshore/longshore.sock');
  return fs.existsSync(own) ? own : '/run/longshore/longshore.sock';
}

// How a status carries its details: google.rpc.Status with a google.rpc.ErrorInfo in it, and what else there is to tell.
const rpc = protobuf.parse(`syntax = "proto3";
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message NeededGrant { string name = 1; string summary = 2; string origin = 3; bool held = 4; }
  message GrantsRequired { repeated NeededGrant grants = 1; }`, { keepCase: true }).root;

/** The detail of that type, such as `google.rpc.ErrorInfo`; undefined where there is none. */
function detail(bytes, type) {
  const { details } = rpc.lookupType('Status').decode(bytes);
  const found = details.find(({ type_url: url }) => url.endsWith(`/${type}`));
  return found && rpc.lookupType(type.split('.').at(-1)).decode(found.value);
}

/** A failed call in a form to act upon: reason, subject, whether to retry, which grants are missing. */
function failure(error) {
  const told = (name) => error.metadata?.get(name)[0];
  const bytes = told('grpc-status-details-bin');
  const { reason, metadata } = (bytes && detail(bytes, 'google.rpc.ErrorInfo')) ?? {};
  return Object.assign(new Error(error.details || error.message), {
    code: grpc.status[error.code],
    reason,
    missing: (bytes && detail(bytes, 'longshore.v1.GrantsRequired')?.grants) ?? [],
    subject: metadata?.subject,
    retry: metadata?.retry === 'true',
    callId: told('longshore-call-id'),
  });
}

class Broker {
  constructor(socket = usualSocket()) {
    const service = (Service) => new Service(`unix:${socket}`, grpc.credentials.createInsecure());
    this.extensions = service(v1.ExtensionService);
    this.backends = service(v1.BackendService);
    this.sessions = service(v1.SessionService);
    this.programs = service(v1.ExecService);
    this.events = service(v1.EventService);
  }

  /** All installed extensions, and the token of the place in the stream of events that the list is at. */
  async list() {
    const all = [];
    let watchToken;
    for (let page = ''; ; ) {
      const request = { page_token: page };
      const answer = await call(this.extensions, 'List', request);
      watchToken ??= answer.watch_token;
      all.push(...answer.extensions);
      page = answer.next_page_token;
      if (!page) return { extensions: all, watchToken };
    }
  }

  /** What an image is, what it would be granted and what is wrong with it. Nothing of it runs, nothing is installed. */
  inspect(reference) {
    return call(this.extensions, 'Inspect', { source: { image: { reference } } });
  }

  /** Installs an image. `accept` are the names of the grants that the user was shown and gave; `heard` is told how far it is. */
  install(reference, accept, heard = () => {}) {
    return new Promise((resolve, reject) => {
      const install = this.extensions.Install({ source: { image: { reference } }, accept_grants: accept });
      install.on('data', (told) => {
        if (told.event === 'progress') heard(told.progress);
        if (told.event === 'installed') resolve(told.installed);
      });
      install.on('error', (error) => reject(failure(error)));
    });
  }

  /** Tells `heard` what happens to extensions from that place on. Ends with `close()`, or with an error. */
  watch(watchToken, heard, failed) {
    let token = watchToken;
    const stream = this.events.Watch({ resume_token: token });
    stream.on('data', (told) => {
      token = told.resume_token || token;
      if (told.event === 'extension') heard(told.extension);
    });
    stream.on('error', (error) => {
      if (error.code !== grpc.status.CANCELLED) failed(failure(error), token);
    });
    return { close: () => stream.cancel() };
  }

  /** Opens a view of an extension. What is done through it ends with it, at the latest with this process. */
  async openView(extension) {
    const stream = this.sessions.Open({ extension });
    const opened = await new Promise((resolve, reject) => {
      stream.once('data', resolve);
      stream.once('error', (error) => reject(failure(error)));
    });
    return new View(this, stream, opened);
  }
}

class View {
  #broker;
  #stream;
  #metadata = new grpc.Metadata();

  constructor(broker, stream, { session_id: id, token, generation }) {
    this.#broker = broker;
    this.#stream = stream;
    this.id = id;
    this.generation = generation;
    // The token stays here: a page that had it could call the broker as this view.
    this.#metadata.set('longshore-session', token);
    /** Settles when the view is over: closed, or its extension was removed or updated. */
    this.ended = new Promise((resolve) => {
      stream.on('error', (error) => resolve(failure(error)));
      stream.on('end', () => resolve());
    });
    stream.on('data', () => {});
  }

  /** An HTTP request to the extension's backend. Any status is an answer. */
  fetch(path, { method = 'GET', headers = {}, body } = {}) {
    const lines = Object.entries(headers).map(([name, value]) => ({ name, value }));
    return call(this.#broker.backends, 'Fetch', { path, method, headers: lines, body }, this.#metadata);
  }

  /** Runs a program; `output` is told its output as it comes. Settles with how it ended. */
  run(target, argv, output) {
    return new Promise((resolve, reject) => {
      const run = this.#broker.programs.Run({ target, argv }, this.#metadata);
      let exited;
      run.on('data', (told) => {
        if (told.event === 'output') output(told.output);
        if (told.event === 'exited') exited = told.exited;
      });
      run.on('error', (error) => reject(failure(error)));
      run.on('end', () => resolve(exited));
    });
  }

  close() {
    this.#stream.cancel();
  }
}

function call(service, method, request, metadata = new grpc.Metadata()) {
  return new Promise((resolve, reject) => {
    service[method](request, metadata, (error, answer) => (error ? reject(failure(error)) : resolve(answer)));
  });
}

module.exports = { Broker, failure };
