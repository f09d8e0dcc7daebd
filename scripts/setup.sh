#!/bin/sh
# Make .venv hold exactly what the lock says, and iapeer itself as an editable install.
# .venv/.stamp remembers what it was made from; when that still holds, nothing is done.
set -eu
cd "$(dirname "$0")/.."
. scripts/system_packages.sh

stamp=.venv/.stamp
range="3.11, 3.12 or 3.13"
mkdir -p .cache

# The place is part of the key: a copied .venv points back to where it was made.
key() {
    .venv/bin/python -I - requirements/dev.txt pyproject.toml scripts/setup.sh src/iapeer/__init__.py <<'PY'
import hashlib, pathlib, sys
state = hashlib.sha256(f"{pathlib.Path.cwd()}\n{sys.version}\n".encode())
for name in sys.argv[1:]:
    state.update(pathlib.Path(name).read_bytes())
print(state.hexdigest())
PY
}

# venv notes its own command, which ends with the absolute place.
made_here() {
    case $(sed -n 's/^command = //p' .venv/pyvenv.cfg 2>/dev/null) in
    *" $(pwd -P)/.venv") return 0 ;;
    *) return 1 ;;
    esac
}

fits() {
    "$1" -I -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

has_venv() {
    "$1" -I -c 'import ensurepip, venv' >/dev/null 2>&1
}

# Prints the first interpreter that really runs, fits and can make environments; else the first
# that fits. A name on PATH proves nothing: version managers leave names that only print an error.
pick_python() {
    first=
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        fits "$candidate" || continue
        if has_venv "$candidate"; then
            echo "$candidate"
            return 0
        fi
        first=${first:-$candidate}
    done
    [ -n "$first" ] && echo "$first"
}

# Debian and Ubuntu ship Python without ensurepip; it comes as pythonX.Y-venv.
add_venv_module() {
    package=python$("$1" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv
    manager=$(package_manager) || manager=none
    if [ "$manager" != apt-get ]; then
        echo "setup: $1 lacks the modules venv and ensurepip; install them or name another with PYTHON=..." >&2
        exit 1
    fi
    if ! can_be_root; then
        echo "setup: $1 can't make environments; run: sudo $(install_command apt-get "$package")" >&2
        exit 1
    fi
    echo "==> installing $package (apt-get)"
    install_package apt-get "$package" && has_venv "$1" && return 0
    echo "setup: $1 can't make environments, and installing $package did not help" >&2
    exit 1
}

if [ -x .venv/bin/python ] && [ -f "$stamp" ] && [ "$(key 2>/dev/null)" = "$(cat "$stamp")" ]; then
    exit 0
fi

# An environment is kept when it was made in this very place by a Python that still runs and fits.
if ! { fits .venv/bin/python && made_here; }; then
    python=$(pick_python) || python=
    if [ -z "$python" ]; then
        echo "setup: Python $range is needed and none was found on PATH; install one or name it: make setup PYTHON=/path/to/python3" >&2
        exit 1
    fi
    has_venv "$python" || add_venv_module "$python"
    echo "==> making .venv with $("$python" -V 2>&1)"
    "$python" -I -m venv --clear .venv
fi

# A user's pip configuration may say where to fetch from; what is fetched is settled by the hashes.
pip() {
    PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 .venv/bin/python -m pip --disable-pip-version-check --no-input "$@"
}

rm -f "$stamp"
echo "==> installing $(grep -c '^[a-z0-9]' requirements/dev.txt) locked packages (a minute or two the first time)"
pip install --quiet --require-hashes --requirement requirements/dev.txt
pip install --quiet --no-deps --no-build-isolation --editable .
key >"$stamp.new"
mv "$stamp.new" "$stamp"
echo "==> .venv is ready"
