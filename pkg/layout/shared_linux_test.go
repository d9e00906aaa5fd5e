// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package layout_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/aegis-oci/aegis-oci/pkg/layout"
)

// TestUsersShareALayout through their group: as the umask has it, and through an index
// and a lock that were made under another umask. It is not parallel: the umask is the
// process's.
func TestUsersShareALayout(t *testing.T) {
	if os.Geteuid() != 0 {
		return // there is no second user
	}
	const group = 20000
	defer syscall.Umask(syscall.Umask(0o002))
	dir := filepath.Join(t.TempDir(), "layout")
	letIn(t, filepath.Dir(dir))
	if err := errors.Join(os.Mkdir(dir, 0o775), os.Chown(dir, 10001, group), os.Chmod(dir, 0o775|os.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	index, lock := filepath.Join(dir, "index.json"), filepath.Join(dir, ".aegis.lock")
	for i, uid := range []int{10001, 10002, 10001, 10003} {
		if err := as(uid, group, func() error { return addModel(t, dir, fmt.Sprintf("application/vnd.model.%d", i)) }); err != nil {
			t.Fatalf("writer %d, user %d: %v", i, uid, err)
		}
		info, err := os.Stat(index)
		if err != nil {
			t.Fatal(err)
		}
		if gid := info.Sys().(*syscall.Stat_t).Gid; info.Mode().Perm() != 0o664 || gid != group {
			t.Errorf("writer %d: index.json has mode %o and group %d", i, info.Mode().Perm(), gid)
		}
		syscall.Umask(0o022)
		if err := os.Chmod(lock, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAnIndexOfAGroupThatIsNotOurs is not opened to ours.
func TestAnIndexOfAGroupThatIsNotOurs(t *testing.T) {
	if os.Geteuid() != 0 {
		return // there is no second user
	}
	dir := t.TempDir()
	if err := addModel(t, dir, "application/vnd.model.0"); err != nil {
		t.Fatal(err)
	}
	letIn(t, dir)
	index := filepath.Join(dir, "index.json")
	err := errors.Join(os.Chown(index, 10001, 20000), os.Chmod(index, 0o664))
	for _, name := range []string{dir, filepath.Join(dir, "blobs/sha256")} {
		err = errors.Join(err, os.Chmod(name, fs.ModePerm))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := as(10002, 20002, func() error { return addModel(t, dir, "application/vnd.model.1") }); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(index); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%o %v", info.Mode().Perm(), err)
	}
}

// TestRootLeavesAnIndexToItsOwner, who alone may read it.
func TestRootLeavesAnIndexToItsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		return // there is no second user
	}
	dir := t.TempDir()
	if err := addModel(t, dir, "application/vnd.model.0"); err != nil {
		t.Fatal(err)
	}
	index := filepath.Join(dir, "index.json")
	err := errors.Join(os.Chown(index, 10001, 20000), os.Chmod(index, 0o600), addModel(t, dir, "application/vnd.model.1"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(index)
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 10001 || st.Gid != 20000 || info.Mode().Perm() != 0o600 {
		t.Errorf("user %d, group %d, mode %o", st.Uid, st.Gid, info.Mode().Perm())
	}
}

// TestALayoutThatMayNotBeWritten says so, and not that its lock is not there.
func TestALayoutThatMayNotBeWritten(t *testing.T) {
	if os.Geteuid() != 0 {
		return // there is no second user
	}
	dir := t.TempDir()
	if err := addModel(t, dir, "application/vnd.model"); err != nil {
		t.Fatal(err)
	}
	letIn(t, dir)
	if err := os.Remove(filepath.Join(dir, ".aegis.lock")); err != nil {
		t.Fatal(err)
	}
	if err := as(10001, 10001, func() error { return addModel(t, dir, "application/vnd.model") }); !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
}

// TestATarThatMayNotBeWritten is named as it was given.
func TestATarThatMayNotBeWritten(t *testing.T) {
	if os.Geteuid() != 0 {
		return // there is no second user
	}
	dir := t.TempDir()
	letIn(t, dir)
	path := filepath.Join(dir, "m.tar")
	err := as(10001, 10001, func() error { return addModel(t, path, "application/vnd.model") })
	var at *fs.PathError
	if !errors.As(err, &at) || at.Path != path || !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
}

// letIn opens the test's own directories to all users.
func letIn(t *testing.T, dir string) {
	for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// as runs write on a thread that is another user to the file system.
func as(uid, gid int, write func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := errors.Join(syscall.Setfsgid(gid), syscall.Setfsuid(uid))
		if err == nil {
			err = write()
		}
		done <- err
	}()
	return <-done
}

func addModel(t *testing.T, dir, artifactType string) error {
	l, err := layout.Create(dir)
	if err != nil {
		return err
	}
	desc, raw := manifest(artifactType)
	_, err = l.PushManifest(t.Context(), desc.MediaType, raw)
	return errors.Join(err, l.Close())
}
