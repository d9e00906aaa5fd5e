#!/usr/bin/env bash
# Copyright The aegis-oci Authors
# SPDX-License-Identifier: Apache-2.0
#
# Starts a Kubernetes of one node on loopback: etcd, API server, controller
# manager, scheduler, containerd, kubelet, runc. Takes about 10 s. down.sh ends it.
#
# usage: up.sh DIR PAUSE_IMAGE_TAR
#
# DIR gets everything that the node writes; DIR/admin.kubeconfig and DIR/ctr
# reach it. PAUSE_IMAGE_TAR holds the image aegis.test/workload:1, which keeps
# every pod's sandbox open. bin/node (build.sh) comes first in PATH.
#
# It needs root. Pods need hostNetwork, for there is no network plugin. No image
# is ever pulled: what a pod runs is imported with DIR/ctr images import. One
# node a machine: the kubelet's cgroups and containerd's sockets have fixed names.
set -euo pipefail

[ $# = 2 ] || { echo "usage: $0 DIR PAUSE_IMAGE_TAR" >&2; exit 2; }
bin=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../../bin/node" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)
pause=$(realpath "$2")
export PATH="$bin:$PATH"
node=127.0.0.1 # a node named by its address needs no other interface
cd "$dir"
mkdir -p pki run log cni containerd/certs.d/_default podlogs
chmod 700 pki

# PORTS: seven free ones, else these.
read -r api etcd etcdpeer kubelet kubelethealth manager scheduler \
	<<<"${PORTS:-16443 12379 12380 10250 10248 10257 10259}"

# --- keys and certificates
key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 -new "${key[@]}" -keyout pki/ca.key -out pki/ca.crt -days 30 -subj /CN=node-ca \
	-addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature 2>log/openssl.log
openssl genrsa -out pki/sa.key 2048 2>>log/openssl.log
openssl rsa -in pki/sa.key -pubout -out pki/sa.pub 2>>log/openssl.log
cert() { # NAME SUBJECT [SAN]
	openssl req -x509 -new "${key[@]}" -keyout "pki/$1.key" -out "pki/$1.crt" \
		-CA pki/ca.crt -CAkey pki/ca.key -days 30 -subj "$2" -addext basicConstraints=critical,CA:FALSE \
		-addext extendedKeyUsage=clientAuth,serverAuth ${3:+-addext "subjectAltName=$3"} 2>>log/openssl.log
}
kubeconfig() { # NAME
	cat >"$1.kubeconfig" <<-Y
		apiVersion: v1
		kind: Config
		clusters: [{name: node, cluster: {server: "https://127.0.0.1:$api", certificate-authority-data: $(base64 -w0 pki/ca.crt)}}]
		users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "pki/$1.crt"), client-key-data: $(base64 -w0 "pki/$1.key")}}]
		contexts: [{name: node, context: {cluster: node, user: $1}}]
		current-context: node
	Y
	chmod 600 "$1.kubeconfig"
}
cert apiserver /CN=kube-apiserver "IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc"
cert apiserver-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client
cert kubelet-serving "/O=system:nodes/CN=system:node:$node" "IP:127.0.0.1"
cert admin /O=system:masters/CN=admin
cert kubelet "/O=system:nodes/CN=system:node:$node"
cert kube-controller-manager /CN=system:kube-controller-manager
cert kube-scheduler /CN=system:kube-scheduler
for name in admin kubelet kube-controller-manager kube-scheduler; do kubeconfig $name; done
export KUBECONFIG="$dir/admin.kubeconfig"

# --- start
start() { # NAME COMMAND...
	local name=$1
	shift
	setsid nohup "$@" >>"log/$name.log" 2>&1 </dev/null &
	echo $! >"run/$name.pid"
}
wait_for() { # WHAT COMMAND...
	local what=$1 end=$((SECONDS + 120))
	shift
	until "$@" >/dev/null 2>&1; do
		if [ $SECONDS -ge $end ]; then
			echo "up.sh: $what: not ready" >&2
			tail -n 20 log/*.log >&2
			exit 1
		fi
		sleep 0.2
	done
	echo "up.sh: $what: ready after $SECONDS s" >&2
}

# The kubelet sets these, panic_on_oops among them; they are put back below.
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
	echo "$name $(cat /proc/sys/$name)"
done >run/sysctl

start etcd etcd --data-dir "$dir/etcd" --unsafe-no-fsync \
	--listen-client-urls "http://127.0.0.1:$etcd" --advertise-client-urls "http://127.0.0.1:$etcd" \
	--listen-peer-urls "http://127.0.0.1:$etcdpeer" --initial-advertise-peer-urls "http://127.0.0.1:$etcdpeer" \
	--initial-cluster "default=http://127.0.0.1:$etcdpeer"

# The services' range begins at 127.0.0.1: without kube-proxy any other address
# would leave the machine.
start kube-apiserver kube-apiserver --etcd-servers="http://127.0.0.1:$etcd" \
	--bind-address=127.0.0.1 --secure-port="$api" --endpoint-reconciler-type=none \
	--service-cluster-ip-range=127.0.0.0/24 --external-hostname=127.0.0.1 \
	--tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key --client-ca-file=pki/ca.crt \
	--kubelet-client-certificate=pki/apiserver-kubelet.crt --kubelet-client-key=pki/apiserver-kubelet.key \
	--kubelet-certificate-authority=pki/ca.crt --kubelet-preferred-address-types=InternalIP,Hostname \
	--service-account-issuer=https://kubernetes.default.svc --service-account-key-file=pki/sa.pub \
	--service-account-signing-key-file=pki/sa.key --authorization-mode=Node,RBAC \
	--enable-admission-plugins=NodeRestriction --profiling=false

cat >containerd/config.toml <<Y
version = 3
root = "$dir/containerd/root"
state = "$dir/containerd/state"
[grpc]
  address = "$dir/run/containerd.sock"
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = "$dir/containerd/certs.d"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "aegis.test/workload:1"
[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = true
  # Without CAP_SYS_RESOURCE runc cannot lower it, and every sandbox fails with
  # "can't get final child's PID from pipe: EOF".
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["$dir/cni/bin"]
    conf_dir = "$dir/cni"
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = "$(command -v runc)"
        SystemdCgroup = false
Y
# Only makes the node Ready: the plugin's program does not exist.
echo '{"cniVersion": "0.4.0", "name": "none", "plugins": [{"type": "loopback"}]}' >cni/10-none.conflist
# Whatever a pull asks for is asked of a port where nothing listens.
echo 'server = "http://127.0.0.1:1"' >containerd/certs.d/_default/hosts.toml
start containerd containerd --config "$dir/containerd/config.toml"
cat >ctr <<Y
#!/bin/sh
exec "$bin/ctr" -a "$dir/run/containerd.sock" -n k8s.io "\$@"
Y
chmod +x ctr
wait_for containerd ./ctr version
./ctr images import "$pause" >log/import.log 2>&1

wait_for kube-apiserver kubectl get --raw /readyz
start kube-controller-manager kube-controller-manager --kubeconfig=kube-controller-manager.kubeconfig \
	--bind-address=127.0.0.1 --secure-port="$manager" --leader-elect=false --use-service-account-credentials=true \
	--service-account-private-key-file=pki/sa.key --root-ca-file=pki/ca.crt --profiling=false
start kube-scheduler kube-scheduler --kubeconfig=kube-scheduler.kubeconfig \
	--bind-address=127.0.0.1 --secure-port="$scheduler" --leader-elect=false --profiling=false

# A container that keeps failing waits at most 2 s here, not 5 minutes.
cat >kubelet.yaml <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
port: $kubelet
healthzBindAddress: 127.0.0.1
healthzPort: $kubelethealth
tlsCertFile: $dir/pki/kubelet-serving.crt
tlsPrivateKeyFile: $dir/pki/kubelet-serving.key
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $dir/pki/ca.crt}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix://$dir/run/containerd.sock
podLogsDir: $dir/podlogs
featureGates: {KubeletCrashLoopBackOffMax: true}
crashLoopBackOff: {maxContainerRestartPeriod: 2s}
registerNode: true
failSwapOn: false
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupsPerQOS: true
enforceNodeAllocatable: []
makeIPTablesUtilChains: false
oomScoreAdj: 0
imageGCHighThresholdPercent: 100
# Or an image that was imported, and so was never pulled, can be refused.
imagePullCredentialsVerificationPolicy: NeverVerify
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%, imagefs.inodesFree: 1%}
syncFrequency: 2s
Y
start kubelet kubelet --config="$dir/kubelet.yaml" --kubeconfig=kubelet.kubeconfig \
	--root-dir="$dir/kubelet" --cert-dir="$dir/kubelet/pki" --hostname-override=$node
wait_for node kubectl wait --for=condition=Ready --timeout=1s node/$node
while read -r name value; do echo "$value" >"/proc/sys/$name"; done <run/sysctl
wait_for serviceaccount kubectl -n default get serviceaccount default
wait_for root-ca kubectl -n default get configmap kube-root-ca.crt
