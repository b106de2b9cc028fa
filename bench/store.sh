# The store alone: `holdfast etcd` beside etcd, both under etcd's own load tool and with the same flags. A part of dev/bench.
#
# Members listen on loopback: client ports 12379, 22379, 32379, peer ports one above. Their data lies in $BENCH_DIR (default: the directory for
# temporary files), so that both systems sync to the same disk.

store_quota=$((8 << 30))
store_dir='' store_urls='' store_pids=()

# What these sections need beside the two systems.
store_check() {
  local program
  [ -n "${HOLDFAST_LAB:-}" ] || die "the sections store, store-space and slow-disk use etcd's load tool and a slow file system: name their folder by HOLDFAST_LAB"
  for program in etcd etcdctl etcd-benchmark putload slowfs; do
    [ -x "$stock_lab/bin/$program" ] || die "$stock_lab/bin/$program is not built ($HOLDFAST_LAB/build)"
  done
  systems=(holdfast stock)
}

holdfast_store_program() { echo "$HOLDFAST etcd"; }
stock_store_program() { echo "$stock_lab/bin/etcd"; }

# Starts so many members of a new cluster, each on its directory, and returns when they answer. Ended by members_down.
members_up() { # SYSTEM COUNT DIRECTORY-OF-MEMBER
  local system=$1 count=$2 directory=$3 i cluster=''
  store_urls='' store_pids=()
  for i in $(seq "$count"); do
    cluster+=${cluster:+,}m$i=http://127.0.0.1:${i}2380
    store_urls+=${store_urls:+,}http://127.0.0.1:${i}2379
  done
  for i in $(seq "$count"); do member_up "$system" "$i" "$cluster" "$("$directory" "$i")"; done
  members_answer
}

member_up() { # SYSTEM NUMBER CLUSTER DIRECTORY
  local program client=http://127.0.0.1:${2}2379 peer=http://127.0.0.1:${2}2380
  read -ra program <<<"$("${1}_store_program")"
  "${program[@]}" --name "m$2" --data-dir "$4" --listen-client-urls "$client" --advertise-client-urls "$client" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "$3" --quota-backend-bytes "$store_quota" \
    > "$work/member$2.log" 2>&1 &
  store_pids[$2]=$!
}

# Deleting half a million keys takes etcd longer than etcdctl waits for by itself.
etcdctl() { timeout "${patience:-60}" "$stock_lab/bin/etcdctl" --command-timeout 55s --endpoints "$store_urls" "$@"; }

members_answer() {
  local try
  for try in $(seq 600); do
    ! patience=5 etcdctl endpoint health >/dev/null 2>&1 || return 0
    sleep 0.05
  done
  say "the members do not answer: $(tail -n 2 "$work"/member*.log)"
  return 1
}

members_down() {
  local pid
  for pid in "${store_pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${store_pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  store_pids=()
}

plain_directory() { echo "$store_dir/m$1"; }

section_store() { # SYSTEM
  local system=$1 members
  own_directory
  for members in 1 3; do
    members_up "$system" "$members" plain_directory
    store_puts "$system" "$members"
    store_reads "$system" "$members"
    members_down
    rm -rf "${store_dir:?}"/*
  done
}

section_store-space() { # SYSTEM
  own_directory
  store_space "$1"
  store_restart "$1"
}

# Until the end of this section's shell.
own_directory() {
  store_dir=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/holdfast-bench-store.XXXXXX")
  trap 'members_down; rm -rf "$store_dir"' EXIT
}

# etcd's load tool on all members.
load_tool() { # CLIENTS ARGUMENT...
  local clients=$1
  shift
  timeout 300 "$stock_lab/bin/etcd-benchmark" --endpoints "$store_urls" --clients "$clients" --conns $((clients < 100 ? clients : 100)) "$@" 2>/dev/null
}

members_of() { [ "$1" = 1 ] && echo '1 member' || echo "$1 members"; }

# The tool's rate and percentiles as figures. Its report has "Requests/sec: R" and "P% in S secs".
figures_of_report() { # SYSTEM NAME REPORT
  figure "$1" "$2" '1/s' "$(awk '/Requests\/sec/ { printf "%.0f", $2; exit }' <<<"$3")"
  percentiles_of_report "$@"
}

percentiles_of_report() { # SYSTEM NAME REPORT
  local percent
  for percent in 50 99; do
    figure "$1" "$2, p$percent" ms "$(awk -v p="$percent%" '$1 == p { printf "%.2f", $3 * 1000; exit }' <<<"$3")"
  done
}

store_puts() { # SYSTEM MEMBERS
  local clients n
  load_tool 100 put --total "$(count 20000)" --key-space-size 100000 --val-size 256 >/dev/null  # warm
  for clients in 1 10 100 1000; do
    case $clients in 1) n=5000 ;; 10) n=30000 ;; 100) n=100000 ;; *) n=200000 ;; esac
    figures_of_report "$1" "puts of 256 bytes, $(members_of "$2"), $(clients_of $clients)" \
      "$(load_tool $clients put --total "$(count $n)" --key-space-size 100000 --val-size 256)"
  done
}

store_reads() { # SYSTEM MEMBERS
  local kind flag of
  of=$(members_of "$2")
  etcdctl put range-of-one x >/dev/null
  for kind in linearizable serializable; do
    flag=$([ $kind = linearizable ] && echo l || echo s)
    figures_of_report "$1" "$kind gets of one key, $of, 100 clients" \
      "$(load_tool 100 range range-of-one --consistency $flag --total "$(count 100000)")"
  done
  figures_of_report "$1" "ranges of 1,000 keys, $of, 10 clients" "$(load_tool 10 range $'\x01' $'\xff' --limit 1000 --total "$(count 2000)")"
  store_watches "$1" "$of"
}

store_watches() { # SYSTEM MEMBERS-IN-WORDS
  local report
  report=$(load_tool 1 watch-latency --streams 100 --watchers-per-stream 10 --put-rate 100 --put-total "$(count 500)" --val-size 256)
  # Two summaries: of the puts, then of the watches.
  report=$(awk '/Watch events summary/ { on = 1 } on' <<<"$report")
  percentiles_of_report "$1" "1,000 watchers of one key, $2, write to arrival" "$report"
}

rss_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }
space_mb() { du -sk "$store_dir" | awk '{ printf "%.0f", $1 * 1024 / 1e6 }'; }

# Memory of a key and space on disk, with many small keys; then half of them are deleted and the history is compacted.
store_space() { # SYSTEM
  local before n revision
  n=$(count 1000000)
  members_up "$1" 1 plain_directory
  before=$(rss_kib "${store_pids[1]}")
  load_tool 1000 put --total "$n" --sequential-keys --key-space-size "$n" --val-size 256 >/dev/null
  figure "$1" "memory (RSS) of one key with 256 bytes, of 1,000,000" bytes "$(awk -v a="$before" -v b="$(rss_kib "${store_pids[1]}")" -v n="$n" 'BEGIN { printf "%.0f", (b - a) * 1024 / n }')"
  figure "$1" "disk space with these keys" MB "$(space_mb)"
  # The tool's keys are little-endian numbers: this range holds every second one.
  etcdctl del --range $'\x80' $'\xc0' >/dev/null
  revision=$(etcdctl get none -w json | jq .header.revision)
  etcdctl compact "$revision" --physical >/dev/null
  settled
  figure "$1" "disk space after half of them are deleted and compacted" MB "$(space_mb)"
  members_down
  rm -rf "${store_dir:?}"/*
}

# Waits, at most a minute, until the space has not changed for ten seconds.
settled() {
  local last='' now same=0
  for _ in $(seq 60); do
    now=$(space_mb)
    if [ "$now" = "$last" ]; then same=$((same + 1)); else same=0; fi
    [ $same -lt 10 ] || return 0
    last=$now
    sleep 1
  done
}

store_restart() { # SYSTEM
  local began
  members_up "$1" 1 plain_directory
  load_tool 100 put --total "$(count 250000)" --sequential-keys --key-space-size 250000 --val-size 4096 >/dev/null
  kill -KILL "${store_pids[1]}"
  wait "${store_pids[1]}" 2>/dev/null || true
  began=$(now_ms)
  member_up "$1" 1 m1=http://127.0.0.1:12380 "$(plain_directory 1)"
  until (exec 3<>/dev/tcp/127.0.0.1/12379) 2>/dev/null; do sleep 0.01; [ $(($(now_ms) - began)) -lt 60000 ] || return 1; done
  members_answer
  figure "$1" "from start to answer after a kill, 1 GB of data" s "$(echo $(($(now_ms) - began)) | as_seconds)"
  members_down
}
