// Starts a program again and again and waits for its end. spawn.js SECONDS PROGRAM; prints the p50 in µs.
const { spawn } = require('node:child_process');

const [seconds, program] = process.argv.slice(2);
const WARM_UP = 20;

function once() {
  return new Promise((resolve, reject) => {
    const child = spawn(program, { stdio: 'ignore' });
    child.on('error', reject);
    child.on('close', (code) => (code === 0 ? resolve() : reject(new Error(`${program} ended with ${code}`))));
  });
}

(async () => {
  for (let count = 0; count < WARM_UP; count += 1) await once();
  const took = [];
  const end = performance.now() + Number(seconds) * 1e3;
  while (performance.now() < end) {
    const begun = performance.now();
    await once();
    took.push((performance.now() - begun) * 1e3);
  }
  took.sort((a, b) => a - b);
  console.log(took[Math.floor(took.length / 2)]);
})();
