# One slow disk: members of `holdfast etcd` and of etcd, each on a file system whose syncs can be delayed, under 1,000 puts a second spread over
# all members and timed from when each was due. From t = 10 s to 40 s the syncs of one disk, or of all, take so long; then it is healthy again.
# A part of dev/bench. Each case leaves a line a second in $work, of which bench/picture.awk draws docs/pictures/slow-disk-CASE.svg.

# Name, members, whose disk (leader, follower, all), time of a sync (slowfs' words).
slow_disk_cases='
leader-800ms 3 leader 800ms
leader-5s 3 leader 5s
leader-stuck 3 leader stuck
follower-800ms 3 follower 800ms
follower-5s 3 follower 5s
follower-stuck 3 follower stuck
all-800ms 3 all 800ms
all-5s 3 all 5s
all-stuck 3 all stuck
single-800ms 1 leader 800ms
'

section_slow-disk() { # SYSTEM
  local name members whose delay
  store_dir=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/holdfast-bench-disk.XXXXXX")
  trap slow_disks_down EXIT
  while read -r name members whose delay; do
    [ -n "$name" ] || continue
    if [ -n "${SLOW_DISK_CASES:-}" ] && [[ " $SLOW_DISK_CASES " != *" $name "* ]]; then continue; fi
    slow_disk_case "$1" "$name" "$members" "$whose" "$delay" < /dev/null || say "  $name: not measured"
    slow_disks_end
  done <<<"$slow_disk_cases"
}

slow_directory() { echo "$store_dir/m$1/mount/data"; }
disk_pids=()

slow_disks_up() { # COUNT
  local i try
  disk_pids=()
  for i in $(seq "$1"); do
    mkdir -p "$store_dir/m$i/disk" "$store_dir/m$i/mount"
    echo 0s > "$store_dir/m$i/delay"
    "$stock_lab/bin/slowfs" -data "$store_dir/m$i/disk" -mount "$store_dir/m$i/mount" -delay "$store_dir/m$i/delay" >/dev/null 2>&1 &
    disk_pids[i]=$!
    for try in $(seq 100); do ! mountpoint -q "$store_dir/m$i/mount" || break; sleep 0.05; done
  done
}

# A member that waits for a stuck disk ends only when its file system has; what has ended cannot be found by name any more.
slow_disks_end() {
  local pid i
  for pid in "${store_pids[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
  for i in "${!disk_pids[@]}"; do umount -l "$store_dir/m$i/mount" 2>/dev/null || true; done
  for pid in "${disk_pids[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
  for pid in "${store_pids[@]}" "${disk_pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  store_pids=() disk_pids=()
  rm -rf "${store_dir:?}"/*
}

slow_disks_down() { slow_disks_end; rm -rf "$store_dir"; }

# The number of the member that leads, as the members see it.
leader_number() {
  patience=5 etcdctl endpoint status -w json 2>/dev/null |
    jq -r '[.[] | select(.Status.leader == .Status.header.member_id)][0].Endpoint' | sed -nE 's/.*:([0-9])2379$/\1/p'
}

slow_disk_case() { # SYSTEM NAME MEMBERS WHOSE DELAY
  local system=$1 name=$2 members=$3 whose=$4 delay=$5 leader slow lines=$work/$1.$2.lines
  slow_disks_up "$members"
  members_up "$system" "$members" slow_directory
  leader=$(leader_number)
  case $whose in leader) slow=$leader ;; follower) slow=$((leader % members + 1)) ;; all) slow=$(seq "$members") ;; esac
  (
    sleep 10
    for i in $slow; do echo "$delay" > "$store_dir/m$i/delay"; done
    sleep 30
    for i in $slow; do echo 0s > "$store_dir/m$i/delay"; done
  ) &
  timeout 90 "$stock_lab/bin/putload" -endpoints "$store_urls" -rate 1000 -seconds 50 > "$lines"
  slow_disk_figures "$system" "$name" "$lines"
}

# Of the seconds before, and of those with the slow disk.
slow_disk_figures() { # SYSTEM CASE LINES
  local name="slow disk, $2:" healthy p50 p99 worst failed stalled
  read -r healthy p50 p99 worst failed stalled < <(awk -f bench/putload.awk -f <(echo '
    { failed += v["failed"] }
    v["t"] > 3 && v["t"] <= 10 { before[++n] = v["p99"] }
    v["t"] > 10 && v["t"] <= 40 { fifty[++m] = v["p50"]; high[m] = v["p99"]; if (v["p99"] > worst) worst = v["p99"]; if (v["ended"] < 500) stalled++ }
    END { printf "%.1f %.1f %.1f %.1f %d %d\n", median(before, n), median(fifty, m), median(high, m), worst, failed, stalled }
    function median(a, n,   i, j, x) {
      for (i = 2; i <= n; i++) { x = a[i]; for (j = i - 1; j > 0 && a[j] > x; j--) a[j + 1] = a[j]; a[j + 1] = x }
      return a[int((n + 1) / 2)]
    }') "$3")
  figure "$1" "$name p99 before, median of 7 s" ms "$healthy"
  figure "$1" "$name p50 during, median of 30 s" ms "$p50"
  figure "$1" "$name p99 during, median of 30 s" ms "$p99"
  figure "$1" "$name p99 during, worst second" ms "$worst"
  figure "$1" "$name seconds with less than half of the puts answered" s "$stalled"
  figure "$1" "$name failed puts of 50,000" puts "$failed"
}

# Draws every case that was measured.
slow_disk_pictures() {
  local name rest
  mkdir -p docs/pictures
  while read -r name rest; do
    [ -s "$work/holdfast.$name.lines" ] && [ -s "$work/stock.$name.lines" ] || continue
    awk -v title="Slow disk, $name: latency of puts" -v caption="$(machine), $(date -u +%Y-%m-%d); Holdfast $(holdfast_version | sed 's/, containerd.*//'); etcd $(stock_etcd_version)" \
      -f bench/putload.awk -f bench/picture.awk "$work/holdfast.$name.lines" "$work/stock.$name.lines" > "docs/pictures/slow-disk-$name.svg"
  done <<<"$slow_disk_cases"
}
