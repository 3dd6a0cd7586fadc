// A minimal front end: lists extensions, opens a view of one, calls its backend, runs its program, tells what happens.
// Usage, in the checkout: node examples/node-frontend/main.js [EXTENSION [--watch]]
const { Broker } = require('./broker');

async function main([extension = 'longshore/hello-extension', ...flags]) {
  const broker = new Broker();
  const { extensions, watchToken } = await broker.list();
  for (const { id, version, state, ui } of extensions) {
    // Titles are written by strangers: a page shows them as text, never as HTML.
    console.log(`${id} ${version}: ${state.replace('EXTENSION_STATE_', '').toLowerCase()}, ${ui?.title ?? 'no UI'}`);
  }
  // From where the list is at, so that nothing is missed in between.
  let gone;
  const removed = new Promise((resolve) => (gone = resolve));
  const watch = broker.watch(
    watchToken,
    (event) => {
      told(event);
      if (event.extension === extension && event.kind === 'EXTENSION_EVENT_KIND_UNINSTALL_BEGAN') gone();
    },
    fail,
  );

  const view = await broker.openView(extension);
  const { status, body } = await view.fetch('/hello?name=front%20end');
  console.log(`fetch: ${status} ${body.toString().trim()}`);
  const headers = { 'content-type': 'text/x-greeting' };
  const echoed = await view.fetch('/echo', { method: 'POST', headers, body: Buffer.from('ahoy') });
  const type = echoed.headers.find(({ name }) => name === 'content-type')?.value;
  console.log(`echo: ${type} ${echoed.body}`);
  const exited = await view.run('EXEC_TARGET_HOST', ['hello.sh', 'you'], ({ data }) => process.stdout.write(data));
  console.log(`run: exit code ${exited.code}`);

  if (flags.includes('--watch')) {
    process.once('SIGINT', () => view.close());
    const why = await view.ended;
    console.log(`view: ${why?.reason ?? 'closed'}`);
    // Events come by a stream of their own: what ended the view may be told a moment after its end.
    if (why) await Promise.race([removed, new Promise((resolve) => setTimeout(resolve, 1000))]);
  }
  view.close();
  watch.close();
}

function told({ extension, kind, state, state_reason: reason }) {
  const what = kind.replace('EXTENSION_EVENT_KIND_', '').toLowerCase();
  const now = kind.endsWith('_STATE') ? ` ${state.replace('EXTENSION_STATE_', '')} ${reason}`.trimEnd() : '';
  console.log(`event: ${extension} ${what}${now}`);
}

function fail(error) {
  console.error(`${error.reason ?? error.code}: ${error.message}${error.retry ? ' (try again)' : ''}`);
  process.exitCode = 1;
}

main(process.argv.slice(2)).catch(fail).finally(() => process.exit());
