#!/bin/bash
# A real Kubernetes cluster for tests, or parts of one, from Go modules, as root, without systemd.
#   cluster.sh gomod              make tools/<name>/go.mod+go.sum anew (needs the Go module proxy)
#   cluster.sh build              build what is missing into $SL_CACHE/bin (one build at a time, others wait)
#   cluster.sh start DIR          start a cluster below DIR; prints KUBECONFIG=, CONTAINERD_SOCKET_n= and CERTS_D_n=
#   cluster.sh containerd DIR     start one containerd only; prints CONTAINERD_SOCKET_1= and CERTS_D_1=
#   cluster.sh registry DIR PORT  start Debian's docker-registry on 127.0.0.1:PORT; prints REGISTRY=
#   cluster.sh kill DIR NAME      kill one process (names: the files in DIR/pid), as a crash would
#   cluster.sh signal DIR NAME SIGNAL  send it a signal (STOP, CONT)
#   cluster.sh cut DIR            cut the nodes' power: kubelets, containerds, shims and containers die at once, mounts are gone
#   cluster.sh restart DIR NAME   start it again as it was started; does not wait for it
#   cluster.sh stop DIR           end only what was started below DIR, unmount, remove bridges and cgroups; DIR stays
#   cluster.sh rss DIR            RSS of each process
# Env: SL_CACHE (binaries; default $SEALIFT_CACHE, $XDG_CACHE_HOME/sealift, ~/.cache/sealift)
#      SL_TOOLS (default: tools beside this script)
#      SL_NODES=1   SL_PORT=16400 (ports SL_PORT .. SL_PORT+9+SL_NODES)   SL_NET=10.245 (node n has SL_NET.n.0/24)
#      SL_NAME=sl (prefix of bridges and cgroups, <= 8 characters)   SL_CONTAINERD=v2|debian
#      SL_ETCD=debian|built|auto    SL_PROXY=0|1 (kube-proxy, changes the host's iptables)
#      SL_API=current|oldest (API server and kubelet of 1.28, controllers and scheduler of 1.34)
# Two clusters at once need different SL_NAME, SL_NET and SL_PORT.
# DIR/n<node>/certs.d/<host>/hosts.toml tells that node's containerd where to pull from instead; it is read at each pull.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${SL_TOOLS:=$HERE/tools}" "${SL_NODES:=1}" "${SL_PORT:=16400}" "${SL_NET:=10.245}" "${SL_NAME:=sl}"
: "${SL_CACHE:=${SEALIFT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sealift}}" "${SL_CONTAINERD:=v2}" "${SL_ETCD:=auto}" "${SL_PROXY:=0}" "${SL_API:=current}"
K8S=1.34.4 OLDEST=1.28.15 HELM3=3.20.2 HELM4=4.3.1 CTRD=2.2.9 ETCD=3.6.16 CRANE=0.22.1
SVC_CIDR=10.152.183.0/24
TAGS="urfave_cli_no_docs no_btrfs no_devmapper no_zfs"
now() { date +%s.%N; }
since() { echo "$(now) - $1" | bc; }
die() { echo "cluster.sh: $*" >&2; exit 1; }
locked() { # function : one at a time, whoever shares the cache
  mkdir -p "$SL_CACHE"; ( flock 9; "$@" ) 9> "$SL_CACHE/lock"; }

# ---------------------------------------------------------------- go.mod files
kubernetes() { # dir version program...
  local v=$2 f m; cd "$SL_TOOLS/$1"; shift 2
  f=$(go mod download -json k8s.io/kubernetes@v$v | sed -n 's/.*"GoMod": "\(.*\)",/\1/p')
  # k8s.io/kubernetes requires its staging modules as v0.0.0 and replaces them by folders: map 1.34.4 to v0.34.4
  sed -n 's#^\t*\(replace \)\?\(k8s.io/[a-z-]*\) => ./staging/src/.*#\2#p' "$f" | sort -u | while read -r m; do
    go mod edit -replace="$m=$m@v0.${v#1.}"; done
  go mod edit -require=k8s.io/kubernetes@v$v
  set -- "${@/#/k8s.io/kubernetes/cmd/}"; go get -tool "${@/%/@v$v}"
}
gomod() {
  export GOFLAGS=-mod=mod GOTOOLCHAIN=local
  local d
  for d in k8s k8s-oldest helm3 helm4 containerd etcd crane; do
    mkdir -p "$SL_TOOLS/$d"; rm -f "$SL_TOOLS/$d"/go.{mod,sum}
    (cd "$SL_TOOLS/$d" && go mod init sealift.test/tools/$d 2>/dev/null && go mod edit -go=1.24.0)  # go get raises it where needed
  done
  kubernetes k8s $K8S kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl
  kubernetes k8s-oldest $OLDEST kube-apiserver kubelet
  cd "$SL_TOOLS/helm3" && go get -tool helm.sh/helm/v3/cmd/helm@v$HELM3
  cd "$SL_TOOLS/helm4" && go get -tool helm.sh/helm/v4/cmd/helm@v$HELM4
  cd "$SL_TOOLS/containerd" && go get -tool github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}@v$CTRD
  cd "$SL_TOOLS/etcd" && go get -tool go.etcd.io/etcd/server/v3@v$ETCD
  cd "$SL_TOOLS/crane" && go get -tool github.com/google/go-containerregistry/cmd/crane@v$CRANE
}

# ---------------------------------------------------------------- build
one() { # name module-dir package tags ldflags [gcflags]
  local name=$1 dir=$SL_TOOLS/$2 pkg=$3 tags=$4 ld=$5 gc=${6:-} out=$SL_CACHE/bin/$1 stamp
  stamp="$(go env GOVERSION) $pkg $tags $ld ${gc:+$gc }$(cat "$dir/go.mod" "$dir/go.sum" | sha256sum | cut -c1-16)"
  if [ -x "$out" ] && [ "$(cat "$out.stamp" 2>/dev/null)" = "$stamp" ]; then echo "$name cached"; return; fi
  (cd "$dir" && CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS="-mod=readonly -buildvcs=false" \
     /usr/bin/time -f "$name %e s wall %U s user %M KB peak" go build -trimpath -tags "$tags" -gcflags "$gc" -ldflags "-s -w $ld" -o "$out.tmp" "$pkg")
  mv "$out.tmp" "$out"; echo "$stamp" > "$out.stamp"
}
version() { # linker flags of a Kubernetes version
  local p=k8s.io/component-base/version m=${1#1.}
  echo "-X $p.gitVersion=v$1 -X $p.gitMajor=1 -X $p.gitMinor=${m%.*} -X $p.gitTreeState=clean -X $p.gitCommit=$(printf '%040d' 0) -X $p.buildDate=2026-01-01T00:00:00Z"
}
build() {
  mkdir -p "$SL_CACHE/bin"; command -v go > /dev/null || die "Go is not installed: it builds the servers"
  local t0 b c=github.com/containerd/containerd/v2 vl h3 h4
  t0=$(now); vl=$(version $K8S)
  for b in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
    one $b k8s k8s.io/kubernetes/cmd/$b "" "$vl"; done
  # not optimized: that takes a third less to build
  for b in kube-apiserver kubelet; do one $b-oldest k8s-oldest k8s.io/kubernetes/cmd/$b "" "$(version $OLDEST)" "all=-N -l -dwarf=false"; done
  h3="-X helm.sh/helm/v3/internal/version.version=v$HELM3 -X helm.sh/helm/v3/internal/version.metadata= -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=35 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=35"
  h4="-X helm.sh/helm/v4/internal/version.version=v$HELM4 -X helm.sh/helm/v4/internal/version.metadata="
  one helm3 helm3 helm.sh/helm/v3/cmd/helm "" "$h3"
  one helm4 helm4 helm.sh/helm/v4/cmd/helm "" "$h4"
  for b in containerd ctr; do one $b containerd $c/cmd/$b "$TAGS" "-X $c/version.Version=v$CTRD -X $c/version.Package=$c"; done
  one containerd-shim-runc-v2 containerd $c/cmd/containerd-shim-runc-v2 "$TAGS no_grpc" "-X $c/version.Version=v$CTRD -X $c/version.Package=$c"
  one etcd etcd go.etcd.io/etcd/server/v3 "" ""
  one crane crane github.com/google/go-containerregistry/cmd/crane "" ""
  echo "build total $(since "$t0") s"
}

# ---------------------------------------------------------------- processes
spawn() { # name command... : own session, log in DIR/log, pid and start time in DIR/pid, command in DIR/cmd
  local n=$1; shift
  printf '%q ' "$@" > "$D/cmd/$n"
  setsid "$@" >> "$D/log/$n.log" 2>&1 < /dev/null &
  local p=$!
  echo "$p $(cut -d' ' -f22 /proc/$p/stat)" > "$D/pid/$n"
}
alive() { # name : is it still the process we started? (pid and start time)
  local p s x; [ -f "$D/pid/$1" ] || return 1; read -r p s < "$D/pid/$1"
  { read -r -a x < /proc/$p/stat; } 2>/dev/null && [ "${x[21]}" = "$s" ] && [ "${x[2]}" != Z ]
}
end() { # signal name... : send it, wait up to 3 s, then KILL
  local sig=$1 n p s i; shift
  for n in "$@"; do ! alive $n || { read -r p s < "$D/pid/$n"; kill -$sig $p 2>/dev/null || true; }; done
  for n in "$@"; do
    for i in $(seq 1 60); do alive $n || break; sleep 0.05; done
    ! alive $n || { read -r p s < "$D/pid/$n"; kill -9 $p 2>/dev/null || true; }
    rm -f "$D/pid/$n"
  done
}
wait_for() { # seconds what command... ; the process $what must stay alive
  local t=$1 what=$2 i; shift 2
  for i in $(seq 1 $((t * 10))); do "$@" >/dev/null 2>&1 && return 0
    alive "$what" || { tail -5 "$D/log/$what.log" >&2; die "$what ended"; }; sleep 0.1; done
  die "$what: not ready after $t s: $*"
}

pki() {
  ( mkdir -p "$D/pki"; cd "$D/pki"; umask 077
  openssl ecparam -name prime256v1 -genkey -noout -out ca.key
  openssl req -x509 -new -key ca.key -subj /CN=test-ca -days 3650 -out ca.crt \
    -addext keyUsage=critical,keyCertSign,cRLSign
  openssl ecparam -name prime256v1 -genkey -noout -out server.key
  openssl req -new -key server.key -subj /CN=kube-apiserver -out server.csr
  printf 'subjectAltName=IP:127.0.0.1,IP:10.152.183.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc\nextendedKeyUsage=serverAuth\n' > ext
  openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out server.crt -extfile ext
  openssl genrsa -out sa.key 2048
  openssl rsa -in sa.key -pubout -out sa.pub ) > "$D/log/pki.log" 2>&1
  { echo 'admin-token,admin,admin,"system:masters"'
    echo 'kcm-token,system:kube-controller-manager,kcm,'
    echo "sched-token,system:kube-scheduler,sched${sched:-,}"
    echo 'proxy-token,system:kube-proxy,proxy,'
    for n in $(seq 1 $SL_NODES); do echo "node$n-token,system:node:node$n,node$n,\"system:nodes\""; done; } > "$D/tokens.csv"
}
kubeconfig() { cat > "$D/$1.conf" <<EOC
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:$((SL_PORT+2))", certificate-authority-data: $(base64 -w0 "$D/pki/ca.crt")}}]
users: [{name: u, user: {token: $1-token}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
EOC
chmod 600 "$D/$1.conf"; }

images() { # busybox images pause and app, once per cache
  local O=$SL_CACHE/img a
  [ -f "$O/app.tar" ] && return 0
  rm -rf "$O"; mkdir -p "$O"/rootfs/{bin,tmp,etc,www}
  cp /bin/busybox "$O/rootfs/bin/busybox"
  for a in sh sleep httpd cat echo ls wget true false env ip nc date mkdir; do ln -s busybox "$O/rootfs/bin/$a"; done
  echo root:x:0:0:root:/:/bin/sh > "$O/rootfs/etc/passwd"; echo hello > "$O/rootfs/www/index.html"
  umoci init --layout "$O/lay" > /dev/null
  for a in pause app; do umoci new --image "$O/lay:$a"; umoci insert --image "$O/lay:$a" "$O/rootfs" /; done
  umoci config --image "$O/lay:pause" --config.entrypoint /bin/sleep --config.cmd 1000000
  umoci config --image "$O/lay:app" --config.cmd /bin/httpd --config.cmd -f --config.cmd -p --config.cmd 8080 --config.cmd -h --config.cmd /www --config.env PATH=/bin --config.stopsignal SIGKILL
  umoci gc --layout "$O/lay"
  skopeo copy -q "oci:$O/lay:pause" "oci-archive:$O/pause.tar:registry.k8s.io/pause:3.10"
  skopeo copy -q "oci:$O/lay:app" "oci-archive:$O/app.tar:docker.io/library/app:1"
}

containerd_config() { # n
  local N=$D/n$1
  if [ "$SL_CONTAINERD" = debian ]; then cat > "$N/containerd.toml" <<EOC
version = 2
root = "$N/root"
state = "$N/state"
[grpc]
  address = "$N/containerd.sock"
[debug]
  address = "$N/debug.sock"
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = true
  sandbox_image = "registry.k8s.io/pause:3.10"
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$N/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$N/certs.d"
[plugins."io.containerd.internal.v1.opt"]
  path = "$N/opt"
EOC
  else cat > "$N/containerd.toml" <<EOC
version = 3
root = "$N/root"
state = "$N/state"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "$N/containerd.sock"
[debug]
  address = "$N/debug.sock"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "registry.k8s.io/pause:3.10"
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = "$N/certs.d"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  enable_unprivileged_ports = false
  enable_unprivileged_icmp = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "$N/cni"
[plugins.'io.containerd.grpc.v1.cri']
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[plugins.'io.containerd.internal.v1.opt']
  path = "$N/opt"
EOC
  fi
}
cni_config() { # n
  local N=$D/n$1; cat > "$N/cni/10-net.conflist" <<EOC
{"cniVersion":"1.0.0","name":"$SL_NAME-node$1","plugins":[{"type":"bridge","bridge":"$SL_NAME$1","isGateway":false,"ipMasq":false,"hairpinMode":true,
 "ipam":{"type":"host-local","dataDir":"$N/ipam","routes":[{"dst":"$SVC_CIDR","gw":"$SL_NET.$1.1"},{"dst":"$SL_NET.0.0/16","gw":"$SL_NET.$1.1"}],
  "ranges":[[{"subnet":"$SL_NET.$1.0/24","rangeStart":"$SL_NET.$1.10","rangeEnd":"$SL_NET.$1.250"}]]}}]}
EOC
}
kubelet_config() { # n
  local N=$D/n$1; cat > "$N/kubelet.yaml" <<EOC
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
port: $((SL_PORT+9+$1))
readOnlyPort: 0
healthzPort: 0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix://$N/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$SL_NAME-node$1
enforceNodeAllocatable: []
failSwapOn: false
oomScoreAdj: 0
makeIPTablesUtilChains: false
resolvConf: ""
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
imageGCHighThresholdPercent: 100
localStorageCapacityIsolation: false
serializeImagePulls: false
podLogsDir: $N/podlogs
volumePluginDir: $N/volumeplugins
nodeStatusUpdateFrequency: 2s
EOC
}
ctrd_path() { if [ "$SL_CONTAINERD" = debian ]; then echo /usr/sbin:/usr/bin:/sbin:/bin; else echo "$SL_CACHE/bin:/usr/sbin:/usr/bin:/sbin:/bin"; fi; }
nctr() { local n=$1; shift; PATH=$(ctrd_path) ctr -a "$D/n$n/containerd.sock" -n k8s.io "$@"; }
import() { # n tar : both names (repo:tag and repo@digest)
  local name dig
  nctr $1 images import "$2" > /dev/null
  name=$(tar xOf "$2" index.json | sed -n 's/.*"org.opencontainers.image.ref.name":"\([^"]*\)".*/\1/p')
  dig=$(tar xOf "$2" index.json | sed -n 's/.*"digest":"\(sha256:[0-9a-f]*\)".*/\1/p')
  nctr $1 images tag --force "$name" "${name%:*}@$dig" > /dev/null
}

folder() { # DIR kind nodes : sets D, writes what `stop` has to know
  D=$(mkdir -p "$1" && cd "$1" && pwd); [ -z "$(ls -A "$D")" ] || die "$D is not empty"
  mkdir -p "$D"/{log,pid,cmd}
  printf 'KIND=%s SL_NODES=%s SL_NAME=%s SL_PORT=%s SL_CONTAINERD=%s SL_PROXY=%s ROUTE_LOCALNET=%s\n' "$2" "$3" "$SL_NAME" "$SL_PORT" \
    "$SL_CONTAINERD" "$SL_PROXY" "$(sysctl -n net.ipv4.conf.all.route_localnet)" > "$D/env"
  trap '[ $? = 0 ] || stop "$D"' EXIT
}
node() { # n : one containerd, not waited for
  local N=$D/n$1; mkdir -p "$N"/{cni,certs.d,volumeplugins,podlogs}; containerd_config $1
  spawn containerd$1 env PATH="$(ctrd_path)" containerd -c "$N/containerd.toml"
}
sockets() { for n in $(seq 1 $SL_NODES); do echo "CONTAINERD_SOCKET_$n=$D/n$n/containerd.sock"; echo "CERTS_D_$n=$D/n$n/certs.d"; done; }
only_containerd() {
  folder "$1" containerd 1; SL_NODES=1
  node 1; wait_for 15 containerd1 nctr 1 version; sockets
}
registry() { # DIR PORT
  folder "$1" registry 0
  ! (: < /dev/tcp/127.0.0.1/$2) 2>/dev/null || die "port $2 is in use"
  command -v docker-registry > /dev/null || die "docker-registry is not installed: apt-get install docker-registry"
  cat > "$D/config.yml" <<EOC
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $D/data}, delete: {enabled: true}}
http: {addr: "127.0.0.1:$2"}
EOC
  spawn registry docker-registry serve "$D/config.yml"
  wait_for 15 registry curl -sf "http://127.0.0.1:$2/v2/"
  echo "REGISTRY=127.0.0.1:$2"
}

start() {
  local n N t0 t etcd api kubelet gates= sched= b; t0=$(now)
  for n in $(seq 1 $SL_NODES); do
    ! ip link show $SL_NAME$n > /dev/null 2>&1 && [ -z "$(find /sys/fs/cgroup -maxdepth 2 -name $SL_NAME-node$n)" ] || die "bridge or cgroup of $SL_NAME node $n is there already"; done
  for n in $(seq $SL_PORT $((SL_PORT+9+SL_NODES))); do ! (: < /dev/tcp/127.0.0.1/$n) 2>/dev/null || die "port $n is in use"; done
  folder "$1" cluster "$SL_NODES"; B=$SL_CACHE/bin
  case $SL_API in
    current) api=$B/kube-apiserver kubelet=$B/kubelet;;
    # its roles do not allow what later schedulers ask for, and it lacks a kind that they wait for
    oldest) api=$B/kube-apiserver-oldest kubelet=$B/kubelet-oldest sched=',"system:masters"' gates=--feature-gates=DynamicResourceAllocation=false;;
    *) die "SL_API is current or oldest";;
  esac
  pki; for b in admin kcm sched proxy $(seq -f node%g 1 $SL_NODES); do kubeconfig $b; done; locked images
  etcd=$B/etcd; case $SL_ETCD in debian) etcd=/usr/bin/etcd;; auto) [ -x "$etcd" ] || etcd=/usr/bin/etcd;; esac
  mkdir -m 700 "$D/etcd"
  spawn etcd "$etcd" --data-dir "$D/etcd" --unsafe-no-fsync --logger=zap --log-level=warn --listen-client-urls http://127.0.0.1:$SL_PORT \
    --advertise-client-urls http://127.0.0.1:$SL_PORT --listen-peer-urls http://127.0.0.1:$((SL_PORT+1)) \
    --initial-advertise-peer-urls http://127.0.0.1:$((SL_PORT+1)) --initial-cluster default=http://127.0.0.1:$((SL_PORT+1))
  # the API server gets a hosts file of its own, so that node names lead to loopback and nothing asks DNS
  { echo 127.0.0.1 localhost; for n in $(seq 1 $SL_NODES); do echo 127.0.0.1 node$n; done; } > "$D/hosts"
  echo nameserver 127.0.0.1 > "$D/resolv.conf"
  wait_for 10 etcd curl -sf http://127.0.0.1:$SL_PORT/health
  t=$(now)
  spawn kube-apiserver unshare -m sh -c 'mount --bind "$1/hosts" /etc/hosts; mount --bind "$1/resolv.conf" /etc/resolv.conf; shift; exec "$@"' sh "$D" \
    "$api" --etcd-servers=http://127.0.0.1:$SL_PORT --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --secure-port=$((SL_PORT+2)) \
    --tls-cert-file="$D/pki/server.crt" --tls-private-key-file="$D/pki/server.key" --client-ca-file="$D/pki/ca.crt" \
    --service-account-issuer=https://127.0.0.1:$((SL_PORT+2)) --service-account-signing-key-file="$D/pki/sa.key" --service-account-key-file="$D/pki/sa.pub" \
    --token-auth-file="$D/tokens.csv" --authorization-mode=Node,RBAC --service-cluster-ip-range=$SVC_CIDR --endpoint-reconciler-type=none \
    --allow-privileged=true --cert-dir="$D/apiserver" --kubelet-preferred-address-types=Hostname --profiling=false
  # nodes come up beside the API server
  for n in $(seq 1 $SL_NODES); do
    mkdir -p "$D/n$n/cni"; cni_config $n; kubelet_config $n
    ip link add $SL_NAME$n type bridge; ip addr add $SL_NET.$n.1/24 dev $SL_NAME$n; ip link set $SL_NAME$n up
    # forwarding for our bridges only, not for the machine (ClusterIPs, pods of the other node)
    [ "$SL_PROXY$SL_NODES" = 01 ] || sysctl -qw net.ipv4.conf.$SL_NAME$n.forwarding=1
    if [ -f /sys/fs/cgroup/cgroup.controllers ]; then mkdir -p /sys/fs/cgroup/$SL_NAME-node$n
    else for b in /sys/fs/cgroup/*/; do [ "$b" = /sys/fs/cgroup/unified/ ] || mkdir -p "$b$SL_NAME-node$n"; done; fi
    node $n
  done
  for n in $(seq 1 $SL_NODES); do
    wait_for 15 containerd$n nctr $n version
    import $n "$SL_CACHE/img/pause.tar"; import $n "$SL_CACHE/img/app.tar"
  done
  echo "nodes' containerd ready after $(since $t0) s"
  wait_for 60 kube-apiserver curl -sf --cacert "$D/pki/ca.crt" -H 'Authorization: Bearer admin-token' https://127.0.0.1:$((SL_PORT+2))/readyz
  echo "kube-apiserver ready in $(since $t) s"
  spawn kube-controller-manager "$B/kube-controller-manager" --kubeconfig="$D/kcm.conf" --bind-address=127.0.0.1 --secure-port=$((SL_PORT+3)) \
    --cert-dir="$D/kcm" --leader-elect=false --kube-api-qps=300 --kube-api-burst=600 --use-service-account-credentials=true --service-account-private-key-file="$D/pki/sa.key" \
    --root-ca-file="$D/pki/ca.crt" --flex-volume-plugin-dir="$D/flex" \
    --controllers='*,-node-ipam-controller,-node-route-controller,-cloud-node-lifecycle-controller,-service-lb-controller,-ttl-controller'
  spawn kube-scheduler "$B/kube-scheduler" --kubeconfig="$D/sched.conf" --bind-address=127.0.0.1 --secure-port=$((SL_PORT+4)) --cert-dir="$D/sched" --leader-elect=false --kube-api-qps=300 --kube-api-burst=600 $gates
  for n in $(seq 1 $SL_NODES); do N=$D/n$n
    spawn kubelet$n env AWS_EC2_METADATA_DISABLED=true "$kubelet" --config="$N/kubelet.yaml" --kubeconfig="$D/node$n.conf" \
      --hostname-override=node$n --node-ip=$SL_NET.$n.1 --root-dir="$N/kubelet" --cert-dir="$N/kubelet-certs"
  done
  [ "$SL_PROXY" = 0 ] || spawn kube-proxy "$B/kube-proxy" --kubeconfig="$D/proxy.conf" --bind-address=127.0.0.1 --healthz-bind-address=127.0.0.1:$((SL_PORT+5)) \
      --metrics-bind-address=127.0.0.1:$((SL_PORT+6)) --proxy-mode="${SL_PROXY_MODE:-iptables}" --hostname-override=node1 --cluster-cidr=$SL_NET.0.0/16 --nodeport-addresses=127.0.0.0/8 \
      --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0s --conntrack-tcp-timeout-close-wait=0s
  t=$(now)
  for n in $(seq 1 $SL_NODES); do wait_for 60 kubelet$n "$B/kubectl" --kubeconfig="$D/admin.conf" wait --for=condition=Ready node/node$n --timeout=1s; done
  echo "nodes Ready $(since $t) s after kubelet start"
  wait_for 20 kube-controller-manager "$B/kubectl" --kubeconfig="$D/admin.conf" get sa default -n default
  echo "start total $(since $t0) s"
  echo "KUBECONFIG=$D/admin.conf"
  sockets
}

ours() { # pids below DIR: shims (by their socket), what they started, and container processes (by our cgroup)
  local f shims=
  for f in $(grep -lsF -- "$D/n" /proc/[0-9]*/cmdline); do
    case $(readlink "${f%/cmdline}/exe" 2>/dev/null) in */containerd-shim-runc-v2) f=${f%/cmdline}; shims="$shims ${f#/proc/}";; esac; done
  for f in $shims; do echo $f; cat /proc/$f/task/*/children 2>/dev/null || true; done
  [ "$KIND" = cluster ] || return 0
  for f in $(grep -lsE ":/$SL_NAME-node[0-9]+(/|$)" /proc/[0-9]*/cgroup); do f=${f%/cgroup}
    readlink "$f/exe" > /dev/null 2>&1 && echo "${f#/proc/}"; done; true   # a zombie has no exe
}
opened() { # DIR : sets D and what start wrote down
  D=$(cd "$1" 2>/dev/null && pwd) || die "no $1"; [ -f "$D/env" ] || die "$D was not made by this script"
  KIND=cluster; . "$D/env"; B=$SL_CACHE/bin
}
crash() { opened "$1"; alive "$2" || die "no process $2 is running below $D"; end KILL "$2"; }
tell() { local p s; opened "$1"; alive "$2" || die "no process $2 is running below $D"; read -r p s < "$D/pid/$2"; kill -s "$3" $p; }
unmount() { cut -d' ' -f5 /proc/self/mountinfo | grep "^$1/" | sort -r | while read -r m; do umount -l "$m" 2>/dev/null || true; done; }
cut_power() { local n b p s all; opened "$1"; set +e +o pipefail
  all=$(ours); for n in $(seq 1 $SL_NODES); do for b in kubelet$n containerd$n; do
    alive $b && { read -r p s < "$D/pid/$b"; all="$p $all"; rm "$D/pid/$b"; }; done; done
  kill -9 $all 2>/dev/null
  while all=$(ours); [ -n "$all" ]; do kill -9 $all 2>/dev/null; sleep 0.05; done
  # what a node keeps in memory
  for n in $(seq 1 $SL_NODES); do unmount "$D/n$n"; rm -rf "$D/n$n/state"; done; true; }
restart() { local n=$2; opened "$1"; ! alive $n || die "$n is running"; [ -f "$D/cmd/$n" ] || die "no $n was started below $D"
  eval "spawn $n $(cat "$D/cmd/$n")"; }
stop() {
  local n p i m; opened "$1"
  set +e +o pipefail # best effort from here on
  end KILL kube-proxy; [ "$SL_PROXY" = 0 ] || "$SL_CACHE/bin/kube-proxy" --cleanup > "$D/log/proxy-cleanup.log" 2>&1 || true
  if [ "$SL_PROXY" != 0 ]; then for m in iptables ip6tables; do # --cleanup leaves this chain and the sysctl
    for p in "-D INPUT -j KUBE-FIREWALL" "-D OUTPUT -j KUBE-FIREWALL" "-F KUBE-FIREWALL" "-X KUBE-FIREWALL"; do $m $p 2>/dev/null || true; done; done
    sysctl -qw net.ipv4.conf.all.route_localnet=$ROUTE_LOCALNET; fi
  end KILL $(seq -f kubelet%g 1 $SL_NODES) kube-scheduler kube-controller-manager kube-apiserver etcd registry
  # shim sockets have a fixed place, /run/containerd/s: remember ours (address in 1.x, bootstrap.json in 2.x)
  m=$(cat "$D"/n*/state/io.containerd.runtime.v2.task/*/*/{address,bootstrap.json} 2>/dev/null | grep -o '/run/containerd/s/[0-9a-f]*' | sort -u || true)
  for i in 1 2 3; do p=$(ours); [ -n "$p" ] || break; kill -9 $p 2>/dev/null || true; sleep 0.1; done
  [ -z "$m" ] || rm -f $m
  end TERM $(seq -f containerd%g 1 $SL_NODES)
  unmount "$D"
  [ "$KIND" = cluster ] && for n in $(seq 1 $SL_NODES); do
    ip link del $SL_NAME$n 2>/dev/null || true
    find /sys/fs/cgroup -depth -type d -path "*/$SL_NAME-node$n*" -exec rmdir {} + 2>/dev/null || true
    rm -f /var/lib/cni/results/$SL_NAME-node$n-*   # libcni's cache has a fixed place
    for m in "$D"/n$n/root/io.containerd.grpc.v1.cri/sandboxes/*/; do rm -f "/var/lib/cni/results/cni-loopback-$(basename "$m")-lo"; done
  done
  find /var/log/containers -lname "$D/*" -delete 2>/dev/null || true
  p=$(ours); [ -z "$p" ] || echo "still running: $p" >&2
}
rss() { local f p s; opened "$1"
  for f in "$D"/pid/*; do read -r p s < $f; echo "$(basename $f) $(awk '/VmRSS/{print int($2/1024)}' /proc/$p/status) MB"; done
  for p in $(ours); do case $(readlink /proc/$p/exe) in */containerd-shim-runc-v2) ;; *) continue;; esac; echo "shim $(awk '/VmRSS/{print int($2/1024)}' /proc/$p/status) MB"; done; true; }

case ${1:-} in
  gomod) gomod;;
  build) locked build;;
  start|stop|rss) "$1" "${2:?DIR}";;
  containerd) only_containerd "${2:?DIR}";;
  registry|restart) "$1" "${2:?DIR}" "${3:?PORT or NAME}";;
  kill) crash "${2:?DIR}" "${3:?NAME}";;
  signal) tell "${2:?DIR}" "${3:?NAME}" "${4:?SIGNAL}";;
  cut) cut_power "${2:?DIR}";;
  *) sed -n '2,/^set -e/p' "$0" | grep '^#'; exit 2;;
esac
