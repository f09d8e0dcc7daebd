# The recorder of a tmux server's death, and what a tmux server runs when its program ends.
# Plain POSIX sh: it must cost next to nothing for months, and outlive the daemon and its Python.
# The lines above this one are written by script.py: root, run, log, deaths, shown, python, tmux.
#
#   canary.sh watch <channel> <socket> <server> <started> <identity> <session> <file> <kills>
#   canary.sh late  ... the same: the server is gone already and nobody has recorded it
#   canary.sh exit  <identity> <session> <pane> <tmux session> <status> <signal>
#
# <file> and <kills>: the counter of out-of-memory kills of the server's cgroup, and where it stood.

# Set $start to what identifies process $1 beside its pid; fail when it is gone or a zombie.
start_of() {
    if [ -r /proc/self/stat ]; then
        { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
        # The name in parentheses may hold blanks ("tmux: server"); fields count from after it.
        set -- ${stat##*) }
        case $1 in [ZXx]) return 1 ;; esac
        start=${20}
    else
        stat=$(ps -o stat= -o lstart= -p "$1") || return 1
        case $stat in Z*) return 1 ;; esac
        set -- $stat
        start=$2_$3_$4_$5_$6
    fi
}

alive() {
    start_of "$1" && [ "$start" = "$2" ]
}

# Dismissed: nothing is recorded from now on.
leave() {
    trap '' HUP INT TERM
    # Between its fork and its exec a child has our handlers: another signal would be lost there.
    [ -z "$client" ] || kill -KILL "$client" 2>/dev/null
    [ -z "$pause" ] || kill -KILL "$pause" 2>/dev/null
    rm -f "$run/$session.pid"
    exit 0
}

named() {
    channel=$1 socket=$2 server=$3 born=$4 identity=$5 session=$6 file=$7 kills=$8
}

now() {
    seen=$(date -u '+%Y-%m-%dT%H:%M:%SZ %s')
    # Before anything is freed: what the machine looked like at that moment.
    quick=$(cat /proc/loadavg /proc/meminfo /proc/pressure/memory 2>/dev/null)
}

watch() {
    named "$@"
    client='' pause=''
    trap leave HUP INT TERM
    # ps tells seconds where there is no /proc, the caller something finer: compare like with like.
    [ -r /proc/self/stat ] || { start_of "$server" && born=$start; }
    "$tmux" -N -S "$socket" wait-for "$channel" </dev/null >/dev/null 2>&1 &
    client=$!
    start_of $$ && mine=$start
    start_of "$client" || start=gone
    printf 'recorder %s %s\nclient %s %s\ncounter %s %s\n' \
        $$ "$mine" "$client" "$start" "$kills" "$file" >"$run/.$session.new" &&
        mv -f "$run/.$session.new" "$run/$session.pid"
    wait "$client"
    rc=$?
    client=''
    now
    # Whatever the client's status is: a dismissal that is under way wins.
    sleep 2 &
    pause=$!
    wait "$pause"
    pause=''
    trap '' HUP INT TERM
    if alive "$server" "$born"; then
        rm -f "$run/$session.pid"
        exit 0
    fi
    if [ "$rc" -eq 0 ]; then
        cause=signaled-server-gone
    elif [ "$rc" -ge 128 ]; then
        cause=client-killed-server-gone
    else
        cause=server-vanished
    fi
    record ''
}

late() {
    named "$@"
    trap '' HUP INT TERM
    now
    rc='' cause=server-vanished
    record ' by=daemon'
}

record() {
    when=${seen% *} name=$identity-${seen#* }
    # Two in one second: the name alone is no longer enough.
    [ ! -e "$deaths/$name.txt" ] || name=$name-$server
    report=$deaths/$name.txt
    facts="identity=$identity ts=$when server_pid=$server wait_rc=$rc cause=$cause session=$session"
    printf 'server-death %s\n--- at-once\n%s\n' "$facts" "$quick" >"$report"
    # Names a path as the other logs would: in quotes when it needs them.
    case $shown in
        '"'*) path="$shown/$name.txt\"" ;;
        *) path=$shown/$name.txt ;;
    esac
    printf 'ts=%s ev=server-exit identity=%s server_pid=%s wait_rc=%s cause=%s forensics=%s session=%s%s\n' \
        "$when" "$identity" "$server" "$rc" "$cause" "$path" "$session" "$1" >>"$log"
    rm -f "$run/$session.pid"
    "$python" -P -m iapeer.sessions.forensics "$root" "$report" "$session" "$file" "$kills" \
        </dev/null >/dev/null 2>>"$report" ||
        { printf '%s\n' '--- top-memory'; ps -A -o pid,ppid,rss,etime,comm; } >>"$report" 2>/dev/null
}

signal_named() {
    number='' short=''
    case $1 in
        '') ;;
        *[!0-9]*)
            short=${1#SIG} number=1
            while [ "$(kill -l $number 2>/dev/null)" != "$short" ]; do
                number=$((number + 1))
                [ $number -lt 65 ] || { number=$short && break; }
            done
            ;;
        *)
            number=$1
            short=$(kill -l "$1" 2>/dev/null)
            ;;
    esac
}

exited() {
    # The daemon ends the server as soon as it sees the claim, and tmux its jobs with it.
    trap '' HUP INT TERM
    identity=$1 session=$2 pane=$3 part=''
    case $pane in
        %0) ;;
        # A second pane of a person who attached is no business of ours.
        *) [ "$4" != "$identity" ] || exit 0 && part=' part=own-server' ;;
    esac
    if [ -z "$part" ]; then
        (set -C && : >"$run/$session.exit") 2>/dev/null || exit 0
    fi
    signal_named "$6"
    printf 'ts=%s ev=session-exit identity=%s dead_status=%s dead_signal=%s signal_name=%s session=%s%s\n' \
        "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$identity" "$5" "$number" "$short" "$session" "$part" \
        >>"$log"
    [ -z "$part" ] && [ -r "$run/$session.pid" ] || exit 0
    while read -r what pid born; do
        [ "$what" != recorder ] || { alive "$pid" "$born" && kill -TERM "$pid"; }
    done <"$run/$session.pid"
}

umask 077
cd /
mode=$1
shift
case $mode in
    watch) watch "$@" ;;
    late) late "$@" ;;
    exit) exited "$@" ;;
esac
exit 0
