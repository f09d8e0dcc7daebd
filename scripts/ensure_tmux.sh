#!/bin/sh
# Make sure that tmux >= 3.2 is there (window hooks and control-mode flags we use came with it).
# Silent when it is. Never asks a question: it installs when that needs none, else says how.
set -eu
. "$(dirname "$0")/system_packages.sh"

need="tmux 3.2 or newer is needed"

# Succeeds for "tmux 3.2", "tmux 3.3a", "tmux next-3.6"; names without a number are newer builds.
is_new_enough() {
    version=$(printf '%s\n' "$1" | sed -n 's/^tmux [a-z-]*\([0-9][0-9]*\.[0-9][0-9]*\).*/\1/p')
    [ -n "$version" ] || return 0
    major=${version%%.*}
    minor=${version#*.}
    [ "$major" -gt 3 ] || { [ "$major" -eq 3 ] && [ "$minor" -ge 2 ]; }
}

if ! command -v tmux >/dev/null 2>&1; then
    if ! manager=$(package_manager); then
        hint="install it with your system's package manager"
        if command -v brew >/dev/null 2>&1; then hint="run: brew install tmux"; fi
        echo "$need; $hint" >&2
        exit 1
    fi
    how=$(install_command "$manager" tmux)
    if ! can_be_root; then
        echo "$need; run: sudo $how" >&2
        exit 1
    fi
    echo "==> installing tmux ($manager)"
    if ! install_package "$manager" tmux; then
        echo "$need, and '$how' failed (its last words are above)" >&2
        exit 1
    fi
    hash -r
fi

if ! found=$(tmux -V 2>&1); then
    echo "$need, and the one on PATH does not run: $found" >&2
    exit 1
fi
if ! is_new_enough "$found"; then
    echo "$need, and this is $found; install a newer one and put it first on PATH" >&2
    exit 1
fi
