// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// TestScriptsThatMount runs testdata/mounting, whose scripts fill small volumes
// and write to read-only ones. Who is not root gets a user namespace for it.
func TestScriptsThatMount(t *testing.T) {
	if os.Geteuid() == 0 {
		runScripts(t, filepath.Join("testdata", "mounting"), commands{
			"fillonrequest": cmdFillOnRequest, "readonly": cmdReadonly, "tmpfs": cmdTmpfs,
		})
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestScriptsThatMount$")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("in a user namespace: %v\n%s", err, out)
	}
}

// cmdTmpfs is "tmpfs DIR SIZE": mounts an empty volume.
func cmdTmpfs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: tmpfs DIR SIZE")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+args[1]))
	ts.Defer(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// cmdReadonly is "readonly DIR", for a mounted one.
func cmdReadonly(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: readonly DIR")
	}
	ts.Check(unix.Mount("", ts.MkAbs(args[0]), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
}

// cmdFillOnRequest is "fillonrequest PROXY METHOD PATH FILE": when such a request
// comes, FILE takes all that is left on its volume.
func cmdFillOnRequest(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: fillonrequest PROXY METHOD PATH FILE")
	}
	path, tb := ts.MkAbs(args[3]), rigOf(ts).tb
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	proxyOf(ts, args[0]).Intercept(func(_ http.ResponseWriter, req *http.Request) bool {
		if req.Method == args[1] && strings.Contains(req.URL.Path, args[2]) {
			if err := os.WriteFile(path, make([]byte, 1<<20), 0o644); !errors.Is(err, syscall.ENOSPC) {
				tb.Errorf("filling the volume: %v", err)
			}
		}
		return false
	})
}
