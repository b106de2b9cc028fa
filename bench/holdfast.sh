# Holdfast as dev/bench sees it: a cluster of one node on this machine with directories of its own, or one that runs already. A part of dev/bench.

holdfast_data=/var/lib/holdfast-bench
holdfast_run_dir=/run/holdfast-bench
holdfast_image=registry.holdfast.internal/demo:1

# Refuses what would disturb a cluster that is not ours, before anything is touched. Its own leavings it removes.
holdfast_check() {
  if [ -n "$use_running" ]; then holdfast_run_dir=/run/holdfast; holdfast_adopt; systems+=(holdfast); return; fi
  local refuse="; dev/bench starts clusters of its own. Stop it, or give --use-running"
  [ "$(id -u)" = 0 ] || die "run it as root: it starts a cluster"
  command -v kubectl >/dev/null || die "kubectl is missing: dev/setup installs it"
  is_stopped /run/holdfast || die "a Holdfast cluster runs on this machine$refuse"
  is_stopped "$holdfast_run_dir" ||
    die "an earlier dev/bench runs or was killed; end its cluster: $HOLDFAST down --data-dir $holdfast_data --run-dir $holdfast_run_dir"
  ! (exec 3<>/dev/tcp/127.0.0.1/6443) 2>/dev/null || die "something listens on port 6443$refuse"
  holdfast_down
  [ -z "$(find /var/lib/kubelet -mindepth 1 -print -quit 2>/dev/null)" ] ||
    die "/var/lib/kubelet holds the state of a node, and ending the measured cluster would remove it; end that node first (make down)"
  systems+=(holdfast)
}

# An instance holds the lock of its run directory for life.
is_stopped() { [ ! -e "$1/holdfast.lock" ] || flock --shared --nonblock "$1/holdfast.lock" true; }

holdfast_adopt() {
  if [ -z "$kubeconfig" ]; then
    kubeconfig=$work/running.kubeconfig
    "${via[@]}" timeout 10 "$HOLDFAST" kubeconfig > "$kubeconfig" || die "no Holdfast cluster runs here"
  fi
  timeout 30 "${via[@]}" kubectl --kubeconfig "$kubeconfig" get --raw /readyz >/dev/null || die "the running cluster does not answer"
  if [ -n "${HOLDFAST_LAB:-}" ]; then say "the running cluster takes its share of the machine while the stock cluster is measured"; fi
}

# Returns when the node is Ready.
holdfast_up() {
  [ -z "$use_running" ] || return 0
  local args
  read -ra args <<<"${HOLDFAST_UP_ARGS:-}"
  timeout 90 "$HOLDFAST" up --data-dir "$holdfast_data" --run-dir "$holdfast_run_dir" --no-kubeconfig "${args[@]}" >&2
}

# Ends what holdfast_up began, also half of it; of a running cluster it removes what was measured with.
holdfast_down() {
  if [ -n "$use_running" ]; then load holdfast clean >&2; return; fi
  [ -e "$holdfast_data" ] || [ -e "$holdfast_run_dir" ] || return 0
  KUBECONFIG=$work/none timeout 120 "$HOLDFAST" down --data-dir "$holdfast_data" --run-dir "$holdfast_run_dir" >&2
}

holdfast_kubeconfig() { if [ -n "$kubeconfig" ]; then echo "$kubeconfig"; else echo "$holdfast_data/admin.kubeconfig"; fi; }
holdfast_on() { "${via[@]}" "$@"; }
# Where Services can be reached.
holdfast_on_node() { holdfast_on "$@"; }
holdfast_kubectl() { holdfast_on timeout 30 kubectl --kubeconfig "$(holdfast_kubeconfig)" "$@"; }
holdfast_first_app() { cat examples/first-app.yaml; }

holdfast_version() {
  local version commit runtime
  # What runs says itself what it is.
  if [ -n "$use_running" ]; then
    version=$(holdfast_kubectl get --raw /version 2>/dev/null | sed -nE 's/.*"gitVersion": *"([^"]*)".*/\1/p')
    commit=running
  else
    version=$("$HOLDFAST" --version | awk '{ print $2 }')
    commit=$(git rev-parse --short HEAD 2>/dev/null || echo 'no git')
    [ -z "$(git status --porcelain --untracked-files=no 2>/dev/null)" ] || commit+=' changed'
  fi
  runtime=$(containerd --version 2>/dev/null | awk '{ print $3 }')
  echo "$version ($commit), ${BACKEND:-embedded store}, containerd ${runtime:-unknown}"
}

holdfast_processes() { holdfast_on timeout $(($1 + 30)) bash "$PWD/bench/processes" "$1" holdfast "$holdfast_run_dir"; }
holdfast_binaries() { echo "$HOLDFAST"; }
holdfast_store_directory() { echo "$holdfast_data/store"; }
