#!/usr/bin/env bash
# Copyright The aegis-oci Authors
# SPDX-License-Identifier: Apache-2.0
#
# Ends what up.sh started in DIR, by process id, unmounts what it mounted, and
# removes DIR; KEEP=1 leaves the logs. down.sh may be run twice.
#
# usage: down.sh DIR
set -uo pipefail

if [ $# != 1 ] || ! [ -d "$1/run" ]; then
	echo "usage: $0 DIR" >&2
	exit 2
fi
dir=$(cd "$1" && pwd)

# An id from a file counts only while its process is still ours.
ours() { # PID WORD
	[ -n "$1" ] && [ -r "/proc/$1/cmdline" ] && tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -qF -- "$2"
}
pid_of() { cat "$dir/run/$1.pid" 2>/dev/null; }
ask() { # NAME
	local pid
	pid=$(pid_of "$1") && ours "$pid" "$1" && kill "$pid" 2>/dev/null
}
end() { # NAME
	local pid
	pid=$(pid_of "$1") && ours "$pid" "$1" || return 0
	kill "$pid" 2>/dev/null
	for _ in $(seq 100); do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.1
	done
	kill -9 "$pid" 2>/dev/null
	rm -f "$dir/run/$1.pid"
}

for name in kubelet kube-scheduler kube-controller-manager; do ask $name; done
for name in kubelet kube-scheduler kube-controller-manager; do end $name; done
# Pods go through containerd, so that runc and the shims clean up.
if [ -x "$dir/ctr" ]; then
	for task in $(timeout 10 "$dir/ctr" tasks ls -q 2>/dev/null); do
		timeout 10 "$dir/ctr" tasks rm -f "$task" >/dev/null 2>&1
	done
fi
for process in /proc/[0-9]*; do
	[ "$(cat "$process/comm" 2>/dev/null)" = containerd-shim ] || continue
	ours "${process#/proc/}" "-address $dir/run/containerd.sock" && kill -9 "${process#/proc/}" 2>/dev/null
done
for name in containerd kube-apiserver etcd; do end $name; done

for _ in 1 2 3; do # the deepest first
	awk -v d="$dir/" 'index($2, d) == 1 { print $2 }' /proc/mounts | sort -r | while read -r mount; do
		umount "$mount" 2>/dev/null || umount -l "$mount"
	done
done
for group in /sys/fs/cgroup/kubepods /sys/fs/cgroup/*/kubepods; do
	[ -d "$group" ] && find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
done
[ -f "$dir/run/sysctl" ] && while read -r name value; do echo "$value" >"/proc/sys/$name"; done <"$dir/run/sysctl"
find /var/log/containers -xtype l -lname "$dir/*" -delete 2>/dev/null
if [ -n "${KEEP:-}" ]; then
	rm -rf "$dir"/{pki,run,cni,containerd,kubelet,etcd} "$dir"/*.kubeconfig
else
	rm -rf "$dir"
fi
exit 0
