// Both ends of agent-relay 1.6.0, by the client class the package brings:
// relay_driver.mjs CLIENT SOCKET RESULT SAMPLES SINGLE SENDERS EACH
// What the client prints goes to standard output; the figures go into the file RESULT, as JSON.
import fs from 'node:fs';

const [client, socketPath, result, ...numbers] = process.argv.slice(2);
const [samples, single, senders, each] = numbers.map(Number);
const QUIET_MS = 30000; // its daemon tries again every 5 s, five times
const { RelayClient } = await import(client);

const now = () => Number(process.hrtime.bigint()) / 1e9;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const body = (mark) => `<m:${mark}> `.padEnd(1024, 'x');
const errors = [];

async function connect(agentName) {
  const found = new RelayClient({ socketPath, agentName, quiet: true });
  found.onError = (error) => errors.push(String(error.message ?? error));
  await found.connect();
  return found;
}

let came = new Map();
let doubled = 0;
let arrived = () => {};
const reader = await connect('reader');
reader.onMessage = (_from, payload) => {
  const mark = /<m:([\w-]+)>/.exec(payload.body)?.[1];
  if (mark === undefined) return;
  if (came.has(mark)) doubled += 1;
  else came.set(mark, now());
  arrived(mark);
};

const writers = [];
for (let who = 0; who < senders; who += 1) writers.push(await connect(`writer${who}`));

const sent = [];
const seen = [];
for (let number = 0; number < samples + 3; number += 1) {
  const mark = `s-${number}`;
  const there = new Promise((done) => { arrived = (found) => { if (found === mark) done(); }; });
  const began = now();
  writers[0].sendMessage('reader', body(mark));
  sent.push(now() - began);
  await Promise.race([there, pause(10000)]);
  if (!came.has(mark)) throw new Error('a single message did not arrive within 10 s');
  seen.push(came.get(mark) - began);
}
arrived = () => {};

async function burst(count, number) {
  came = new Map();
  doubled = 0;
  errors.length = 0;
  let yes = 0;
  let no = 0;
  const began = now();
  for (let turn = 0; turn < number; turn += 1) {
    for (let who = 0; who < count; who += 1) {
      if (writers[who].sendMessage('reader', body(`b${count}-${who}-${turn}`))) yes += 1;
      else no += 1;
    }
    await pause(0); // so that what was handed over is written
  }
  const calls = now() - began;
  let last = now();
  for (let known = -1; came.size < count * number && now() - last < QUIET_MS / 1000;) {
    if (came.size !== known) {
      known = came.size;
      last = now();
    }
    await pause(50);
  }
  const times = [...came.values()];
  return {
    senders: count,
    sent: yes,
    refused: no,
    calls_s: calls,
    arrived: came.size,
    doubled,
    arrived_s: times.length ? Math.max(...times) - began : 0,
    error: errors[0] ?? '',
  };
}

const one = await burst(1, single);
const many = await burst(senders, each);
const found = { sent_s: sent.slice(3), seen_s: seen.slice(3), one, many };
fs.writeFileSync(result, JSON.stringify(found));
process.exit(0);
