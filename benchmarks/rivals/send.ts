// One durable send to a daemon's unix socket: send SOCKET TO FROM TEXT
const [socket, to, from, message] = process.argv.slice(2);
const answer = await fetch("http://localhost/api/v1/send", {
  unix: socket,
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ to, message, from }),
});
const result = await answer.json();
console.log(result.message_id ?? JSON.stringify(result));
process.exit(answer.ok ? 0 : 1);
