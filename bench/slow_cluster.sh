# A whole cluster on one store whose disk is slow: the syncs of the store's file system take 800 ms each for a minute, while an application is asked
# without a pause and kubectl reads and writes once a second. A part of dev/bench; the slow file system is that of slow_disk.sh.

slow_cluster_seconds=60

section_slow-cluster() { # SYSTEM
  local system=$1 address before after
  store_dir=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/holdfast-bench-disk.XXXXXX")
  trap "slow_cluster_down $system" EXIT
  slow_store_up "$("${system}_store_directory")"
  "${system}_up"
  "${system}_first_app" | "${system}_kubectl" apply -f - >&2
  address=$("${system}_kubectl" get service hello -o 'jsonpath={.spec.clusterIP}')
  "${system}_kubectl" rollout status deployment/hello --timeout 25s >&2
  before=$(cluster_trace "$system")
  echo 800ms > "$store_dir/delay"
  ask_application "$system" "http://$address/" > "$work/$system.asked" &
  ask_kubectl "$system" > "$work/$system.kubectl"
  wait $!
  echo 0s > "$store_dir/delay"
  after=$(cluster_trace "$system")
  slow_cluster_figures "$system" "$before" "$after"
}

slow_store_up() { # DIRECTORY: becomes the mount point of a file system whose syncs $store_dir/delay delays
  local try
  mkdir -p "$store_dir/disk" "$1"
  echo 0s > "$store_dir/delay"
  "$stock_lab/bin/slowfs" -data "$store_dir/disk" -mount "$1" -delay "$store_dir/delay" >/dev/null 2>&1 &
  disk_pids=($!) slow_mount=$1
  for try in $(seq 100); do ! mountpoint -q "$1" || return 0; sleep 0.05; done
  say "the slow file system does not mount"
  return 1
}

# The mount goes first: ending a cluster removes the directory that it lies on.
slow_cluster_down() { # SYSTEM
  local pid
  echo 0s > "$store_dir/delay"
  umount -l "$slow_mount" 2>/dev/null || true
  "${1}_down"
  for pid in "${disk_pids[@]}"; do kill -KILL "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
  rm -rf "$store_dir"
}

# What must not change while the disk is slow: since when each node is Ready, which Pods there are and how often their containers began.
cluster_trace() { # SYSTEM
  "${1}_kubectl" get nodes -o 'jsonpath={range .items[*]}node {.metadata.name} {.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].lastTransitionTime}{"\n"}{end}'
  "${1}_kubectl" get pods -o 'jsonpath={range .items[*]}pod {.metadata.name} {.status.containerStatuses[0].restartCount}{"\n"}{end}'
}

# One request after the other: `CODE SECONDS` a line.
ask_application() { # SYSTEM URL
  "${1}_on_node" timeout $((slow_cluster_seconds + 30)) bash -c '
    end=$((SECONDS + $1))
    while [ $SECONDS -lt $end ]; do
      curl --silent --max-time 5 --output /dev/null --write-out "%{http_code} %{time_total}\n" "$0" || true
      sleep 0.01
    done' "$2" "$slow_cluster_seconds"
}

# A read and a write a second, each `KIND MILLISECONDS ok|failed`.
ask_kubectl() { # SYSTEM
  local end=$((SECONDS + slow_cluster_seconds)) n=0
  while [ $SECONDS -lt $end ]; do
    n=$((n + 1))
    timed get "${1}_kubectl" get pods
    timed create "${1}_kubectl" create configmap "slow-$n" --from-literal n=$n
    sleep 0.5
  done
}

timed() { # KIND COMMAND...
  local kind=$1 began verdict=ok
  shift
  began=$(now_ms)
  "$@" >/dev/null 2>&1 || verdict=failed
  echo "$kind $(($(now_ms) - began)) $verdict"
}

slow_cluster_figures() { # SYSTEM BEFORE AFTER
  local kind name
  for kind in get create; do
    name="whole cluster, store's disk at 800 ms: kubectl $kind"
    figure "$1" "$name, p50" ms "$(awk -v k=$kind '$1 == k && $3 == "ok" { print $2 }' "$work/$1.kubectl" | median)"
    figure "$1" "$name, slowest" ms "$(awk -v k=$kind '$1 == k && $2 > m { m = $2 } END { print m + 0 }' "$work/$1.kubectl")"
    figure "$1" "$name, failed" calls "$(grep -c "^$kind.*failed" "$work/$1.kubectl" || true) of $(grep -c "^$kind" "$work/$1.kubectl")"
  done
  name="whole cluster, store's disk at 800 ms:"
  figure "$1" "$name requests to the application, failed" requests "$(awk '$1 != 200' "$work/$1.asked" | wc -l) of $(wc -l < "$work/$1.asked")"
  figure "$1" "$name nodes that changed their readiness" nodes "$(changed_lines node "$2" "$3")"
  figure "$1" "$name Pods evicted, new or with a restarted container" Pods "$(changed_lines pod "$2" "$3")"
}

changed_lines() { # WORD BEFORE AFTER
  comm -3 <(grep "^$1 " <<<"$2" | sort) <(grep "^$1 " <<<"$3" | sort) | awk '{ print $2 }' | sort -u | wc -l
}
