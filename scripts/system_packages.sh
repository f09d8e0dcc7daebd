# Sourced: install packages with the system's own package manager, without ever asking.
# shellcheck shell=sh

# Succeeds when commands can be run as root without a question.
can_be_root() {
    [ "$(id -u)" -eq 0 ] || { command -v sudo >/dev/null 2>&1 && sudo -n true >/dev/null 2>&1; }
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Prints the name of the package manager; fails when we know none of those here.
package_manager() {
    for manager in apt-get dnf apk pacman zypper; do
        if command -v "$manager" >/dev/null 2>&1; then
            echo "$manager"
            return 0
        fi
    done
    return 1
}

# install_command MANAGER PACKAGE: prints what a person would type.
install_command() {
    case $1 in
    apt-get) echo "apt-get install $2" ;;
    dnf) echo "dnf install $2" ;;
    apk) echo "apk add $2" ;;
    pacman) echo "pacman -S $2" ;;
    zypper) echo "zypper install $2" ;;
    esac
}

# install_package MANAGER PACKAGE: stdin is closed, so that nothing can wait for an answer; the
# package manager speaks only when it fails.
install_package() {
    log=$(mktemp) || return 1
    if _install "$1" "$2" >"$log" 2>&1 </dev/null; then
        rm -f "$log"
        return 0
    fi
    tail -n 15 "$log" >&2
    rm -f "$log"
    return 1
}

_install() {
    case $1 in
    apt-get)
        # A stale list is no reason to give up: the install decides. 120 s for another apt's lock.
        as_root apt-get -q -o Acquire::Retries=2 -o DPkg::Lock::Timeout=120 update ||
            echo "apt-get update failed, trying with the lists that are there"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Acquire::Retries=2 \
            -o DPkg::Lock::Timeout=120 --no-install-recommends install "$2"
        ;;
    dnf) as_root dnf -q -y install "$2" ;;
    apk) as_root apk add --no-cache "$2" ;;
    pacman) as_root pacman -Sy --noconfirm --needed "$2" ;;
    zypper) as_root zypper --non-interactive install "$2" ;;
    esac
}
