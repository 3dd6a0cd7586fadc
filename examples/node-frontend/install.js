// Installs an extension with its user's consent: shows what it would be granted, asks, and installs it with what was given.
// Usage, in the checkout: node examples/node-frontend/install.js IMAGE
const { createInterface } = require('node:readline/promises');
const { Broker } = require('./broker');

async function main([reference]) {
  const broker = new Broker();
  const answers = createInterface({ input: process.stdin });
  const lines = answers[Symbol.asyncIterator]();
  // Everything that is needed, before anything of it runs.
  const { title, needed_grants: needed } = await broker.inspect(reference);
  console.log(`${title}: ${reference}`);
  const accepted = [];
  for (let missing = needed; ; ) {
    accepted.push(...(await ask(lines, missing)));
    try {
      const { id, version, state } = await broker.install(reference, accepted);
      console.log(`installed ${id} ${version}: ${state.replace('EXTENSION_STATE_', '').toLowerCase()}`);
      return answers.close();
    } catch (error) {
      // What is needed can have changed since it was shown, and what was given can lead to more. Asked is for what is new.
      missing = error.missing?.filter(({ name }) => !accepted.includes(name)) ?? [];
      if (missing.length === 0) throw error;
    }
  }
}

/** The names of the grants that the user gives, which are all that is missing. */
async function ask(lines, missing) {
  if (missing.length === 0) return [];
  // Names in it come out of the extension's files: a page shows them as text, never as HTML.
  for (const { name, summary, origin } of missing) console.log(`* ${summary}\n    ${name}, asked for in ${origin}`);
  console.log('Grant this? [y/N]');
  const { value } = await lines.next();
  if (!/^y(es)?$/i.test(value?.trim() ?? '')) throw new Error('not granted; nothing was installed');
  return missing.map(({ name }) => name);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`${error.reason ? `${error.reason}: ` : ''}${error.message}`);
  process.exitCode = 1;
}).finally(() => process.exit());
