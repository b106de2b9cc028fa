# The sections of dev/bench: each measures one SYSTEM (holdfast, stock) through that system's own functions, the same way. A part of dev/bench.

# The work of one step, made smaller by --scale.
count() { echo $((($1 + scale - 1) / scale)); }

clients_of() { [ "$1" = 1 ] && echo '1 client' || echo "$1 clients"; }

now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }
as_seconds() { awk '{ printf "%.2f", $1 / 1000 }'; }

# Runs the measuring program where the cluster is and prints its lines.
load() { # SYSTEM ARGUMENT...
  local system=$1
  shift
  "${system}_on" timeout 420 "$LOAD" --kubeconfig "$("${system}_kubeconfig")" --seconds 180 "$@"
}

# Its line that starts with a word; fails if there is none.
line_of() { # WORD TEXT
  grep -E "^$1[ :]" <<<"$2"
}

# Cold: no data, no certificates, no images imported. To the return of the command that starts the cluster, then to the application's first answer.
section_start() { # SYSTEM
  local system=$1 round rounds began ready answered address
  rounds=$([ "$scale" = 1 ] && echo 5 || echo 1)
  for round in $(seq "$rounds"); do
    began=$(now_ms)
    "${system}_up"
    ready=$(now_ms)
    "${system}_first_app" | "${system}_kubectl" apply -f - >&2
    address=$("${system}_kubectl" get service hello -o 'jsonpath={.spec.clusterIP}')
    "${system}_on_node" timeout 90 bash -c 'until curl --silent --fail --max-time 1 --output /dev/null "$0"; do sleep 0.02; done' "http://$address/"
    answered=$(now_ms)
    echo $((ready - began)) >> "$work/$system.ready"
    echo $((answered - began)) >> "$work/$system.answered"
    say "  round $round: Ready after $((ready - began)) ms, first answer after $((answered - began)) ms"
    "${system}_down"
  done
  figure "$system" "cold start to Ready, median of $rounds" s "$(median < "$work/$system.ready" | as_seconds)"
  figure "$system" "cold start to the first answer of the first app, median of $rounds" s "$(median < "$work/$system.answered" | as_seconds)"
}

section_pods() { # SYSTEM
  local system=$1 image clients n out
  image=${system}_image
  image=${!image}
  load "$system" start -n "$(count 16)" --clients 8 --image "$image" >/dev/null  # so that every node has the image
  for clients in 1 8; do
    n=$(count $((clients == 1 ? 40 : 120)))
    out=$(load "$system" start -n "$n" --clients "$clients" --image "$image")
    figures_of_line "$system" "$(line_of start "$out")" \
      "Pod create to Ready, warm image, $clients at once, p50" p50 "Pod create to Ready, warm image, $clients at once, p99" p99
    figures_of_line "$system" "$(line_of gone "$out")" \
      "Pod delete to gone, $clients at once, p50" p50 "Pod delete to gone, $clients at once, p99" p99
  done
}

section_api() { # SYSTEM
  local system=$1 clients n out line
  for clients in 1 16 128; do
    case $clients in 1) n=3000 ;; 16) n=10000 ;; *) n=20000 ;; esac
    line=$(load "$system" create -n "$(count $n)" --clients "$clients")
    figures_of_line "$system" "$line" \
      "ConfigMap creates, $(clients_of "$clients")" rate "ConfigMap create, $(clients_of "$clients"), p99" p99
  done
  line=$(load "$system" get -n "$(count 20000)" --clients 16)
  figures_of_line "$system" "$line" "gets of one object, 16 clients" rate "get of one object, 16 clients, p99" p99
  out=$(load "$system" --connections 16 watch -n "$(count 200)" --watchers "$(count 1000)" --clients 16)
  figures_of_line "$system" "$(line_of watch "$out")" \
    "1,000 watchers, write to last delivery, p50" p50 "1,000 watchers, write to last delivery, p99" p99
  figures_of_line "$system" "$(line_of deliveries "$out")" "1,000 watchers, events delivered" rate
}

section_list() { # SYSTEM
  local system=$1 line form clients bytes flag
  line=$(load "$system" pods -n "$(count 10000)" --clients 32)
  figures_of_line "$system" "$line" "Pod creates, 32 clients" rate "Pod create, 32 clients, p99" p99
  for form in JSON protobuf; do
    flag=$([ $form = JSON ] || echo --protobuf)
    for clients in 1 8; do
      line=$(load "$system" list -n "$(count $((clients == 1 ? 20 : 80)))" --clients "$clients" $flag)
      figures_of_line "$system" "$line" \
        "list of 10,000 Pods, $form, $(clients_of "$clients"), p50" p50 "list of 10,000 Pods, $form, $(clients_of "$clients"), p99" p99
    done
    bytes=$(word_of "$line" bytes)
    figure "$system" "size of that list, $form" MB "$(awk -v b="$bytes" 'BEGIN { printf "%.1f", b / 1e6 }')"
  done
  "${system}_processes" 1 > "$work/$system.processes"
  figure "$system" "memory (RSS) after those lists, control plane and one node" MB "$(sum_of "$work/$system.processes" rss without_runtime)"
}

# Thirty seconds of rest, then the processor time of sixty.
section_memory() { # SYSTEM
  local system=$1 file=$work/$1.processes set what
  [ "$scale" != 1 ] || sleep 30
  "${system}_processes" "$(count 60)" > "$file"
  sed 's/^/    /' "$file" >&2
  for set in without_runtime runtime; do
    what=$([ $set = runtime ] && echo 'containerd and its shims of one node' || echo 'control plane and one node, without containerd')
    figure "$system" "idle memory (RSS), $what" MB "$(sum_of "$file" rss $set)"
    figure "$system" "idle memory (PSS), $what" MB "$(sum_of "$file" pss $set)"
    figure "$system" "idle processor time, $what" '% of a core' "$(sum_of "$file" cpu $set)"
  done
}

# MB (10^6 bytes) or percent over the lines of bench/processes.
sum_of() { # FILE rss|pss|cpu runtime|without_runtime
  awk -v what="$2" -v set="$3" '
    { runtime = $1 ~ /^containerd/; if (runtime != (set == "runtime")) next
      sum += what == "rss" ? $3 * 1024 / 1e6 : what == "pss" ? $4 * 1024 / 1e6 : $5 }
    END { printf what == "cpu" ? "%.2f" : "%.1f", sum }' "$1"
}

section_size() { # SYSTEM
  figure "$1" "programs of a whole cluster, without containerd" MB "$("$1_binaries" | xargs stat -L -c %s | awk '{ sum += $1 } END { printf "%.1f", sum / 1e6 }')"
}
