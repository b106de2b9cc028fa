# The stock cluster as dev/bench sees it: a control plane on the host cp, nodes n1 and n2, each a set of namespaces on this machine. A part of dev/bench.

stock_lab=${LAB:-$HOME/.cache/holdfast-lab}
stock_control_plane=10.90.0.10 stock_service_range=10.96.0.0/16  # as `reference` sets them
stock_image=registry.k8s.io/pause:3.10.2
stock_programs=(kube-apiserver etcd kube-controller-manager kube-scheduler kubelet kube-proxy coredns)

# Adds the stock cluster where it is built; refuses to take over one that runs.
stock_check() {
  local program
  [ -x "$HOLDFAST_LAB/reference" ] && [ -x "$HOLDFAST_LAB/hosts" ] || die "HOLDFAST_LAB=$HOLDFAST_LAB holds no scripts reference and hosts"
  for program in "${stock_programs[@]}" kubectl containerd; do
    [ -x "$stock_lab/bin/$program" ] || { say "no column for the stock cluster: $stock_lab/bin/$program is not built ($HOLDFAST_LAB/build)"; return; }
  done
  [ -d "$stock_lab/registry" ] || { say "no column for the stock cluster: its images are not built ($HOLDFAST_LAB/images)"; return; }
  if compgen -G "$stock_lab/hosts/*.pid" >/dev/null; then
    die "the stock cluster's hosts are in use ($stock_lab/hosts). End them ($HOLDFAST_LAB/hosts down), or unset HOLDFAST_LAB"
  fi
  export LAB=$stock_lab
  systems+=(stock)
}

# These hosts have no default route, and without any route a Service's address is refused before a rule turns it into a Pod's.
stock_up() {
  timeout 180 "$HOLDFAST_LAB/reference" up >&2
  stock_on_node ip route replace "$stock_service_range" via "$stock_control_plane"
}
stock_down() {
  compgen -G "$stock_lab/hosts/*.pid" >/dev/null || return 0
  timeout 60 "$HOLDFAST_LAB/reference" down >&2
}

stock_kubeconfig() { echo "$stock_lab/reference/admin.conf"; }
stock_on() { "$HOLDFAST_LAB/hosts" run cp "$@"; }
stock_on_node() { "$HOLDFAST_LAB/hosts" run n1 "$@"; }
stock_kubectl() { timeout 30 "$HOLDFAST_LAB/reference" kubectl "$@"; }

# The same application on an image that this cluster's registry has: it answers on the same port and path, and needs more memory.
stock_first_app() {
  local tags=$stock_lab/registry/docker/registry/v2/repositories/e2e-test-images/agnhost/_manifests/tags tag
  tag=$(find "$tags" -mindepth 1 -maxdepth 1 -printf '%f\n' 2>/dev/null | sort -V | tail -n 1)
  [ -n "$tag" ] || { say "the stock cluster's registry has no agnhost image"; return 1; }
  sed -E -e "s|^( *)image: .*|\1image: registry.k8s.io/e2e-test-images/agnhost:$tag\n\1args: [netexec, --http-port=8080]|" \
    -e 's|memory: 32Mi|memory: 128Mi|' examples/first-app.yaml
}

stock_etcd_version() { "$stock_lab/bin/etcd" --version | awk '/^etcd Version/ { print $3 }'; }

stock_version() {
  local runtime
  runtime=$("$stock_lab/bin/containerd" --version | awk '{ print $3 }')
  echo "$("$stock_lab/bin/kube-apiserver" --version | awk '{ print $2 }'), etcd $(stock_etcd_version), containerd $runtime"
}

# The control plane and one of the two nodes: as much as Holdfast's one node has.
stock_processes() {
  local here=$PWD/bench/processes
  stock_on timeout $(($1 + 30)) bash "$here" "$1" stock > "$work/cp.processes" &
  stock_on_node timeout $(($1 + 30)) bash "$here" "$1" stock > "$work/n1.processes"
  wait $!
  cat "$work/cp.processes" "$work/n1.processes"
}

stock_binaries() { printf "$stock_lab/bin/%s\n" "${stock_programs[@]}"; }
stock_store_directory() { echo "$stock_lab/reference/etcd"; }
