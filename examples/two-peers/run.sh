#!/bin/sh
# Two agents and a script, by hand: the same story as `make demo`, in commands you can type.
# Needs `iapeer` and the Python it is installed in (`python3`) on PATH, and tmux.
set -eu

base=$(mktemp -d /tmp/iap-XXXXXX) # short: a unix socket's path holds 107 bytes
export IAPEER_ROOT="$base/root"
echo "root: $IAPEER_ROOT"

daemon=
finish() {
    status=$?
    trap - EXIT
    if [ -n "$daemon" ]; then
        iapeer stop --all >/dev/null 2>&1 || true # sessions outlive a daemon, so they go first
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" || true
    fi
    [ "$status" -eq 0 ] || tail -n 15 "$base/daemon.log" >&2 || true
    rm -rf "$base"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

iapeer daemon --port 0 2>"$base/daemon.log" &
daemon=$!
tries=0
until iapeer status >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] && kill -0 "$daemon" || exit 1
    sleep 0.1
done

iapeer create alice --runtime demo --description "Knows whom to ask"
iapeer create bob --runtime demo --description "Knows the build"
iapeer create me --runtime api

# alice sleeps: the message wakes her. She asks bob, and tells us what he said.
iapeer send alice "ASK bob REPLY The build is green." --from api-me

# A program is a peer too: read our inbox until the answer is there.
message=$(
    python3 - <<'PYTHON'
import asyncio
from contextlib import aclosing

from iapeer.client.peer import Peer


async def first():
    async with aclosing(Peer("me").inbox(auto_ack=False)) as inbox:
        async for message in inbox:
            await message.ack()
            return message


message = asyncio.run(asyncio.wait_for(first(), 30))
print(message.id, message.body)
PYTHON
)
echo "alice answers: ${message#* }"

iapeer trace "${message%% *}"
iapeer list
