// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/transfer"
)

// slowRegistry is a real registry whose connections each give out blobs at a
// bounded rate. sent counts their bytes.
type slowRegistry struct {
	proxy *servertest.Proxy
	sent  atomic.Int64
}

func newSlowRegistry(t *testing.T, host string, perSecond int64) *slowRegistry {
	t.Helper()
	s := &slowRegistry{proxy: servertest.FaultProxy(t, host)}
	s.proxy.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		if err := s.serve(w, r, host, perSecond); err != nil {
			panic(http.ErrAbortHandler)
		}
		return true
	})
	return s
}

func (s *slowRegistry) serve(w http.ResponseWriter, r *http.Request, host string, perSecond int64) error {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+host+r.URL.RequestURI(), nil)
	if err != nil {
		return err
	}
	req.Header = r.Header.Clone()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	n, err := io.Copy(w, transfer.NewThrottle(perSecond, nil).Reader(r.Context(), resp.Body))
	s.sent.Add(n)
	return err
}

// program builds the command as it is released: its memory is measured too.
func program(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "aegis-oci")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", bin, "../../cmd/aegis-oci")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bin
}

// pulling starts a verified pull in a process of its own.
func pulling(t *testing.T, bin, key string, ref registry.Reference, dst string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), bin, "pull", "--quiet", "--key", key, "-o", dst, ref.String())
	var said bytes.Buffer
	cmd.Stderr = &said
	// Nothing of the environment tunes it: GOMEMLIMIT and GOGC above all.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, &said
}

// memoryDir is a directory on a tmpfs where there is one: a kill loses no more
// there than on a disk, and its fsync takes no time.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "aegis-kill-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// kept is the size of everything that a run has left for the next one.
func kept(t *testing.T, parent string) int64 {
	t.Helper()
	var n int64
	err := filepath.WalkDir(parent, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type().IsRegular() && strings.HasSuffix(p, ".bin") || strings.Contains(p, "/blobs/") {
			info, err := d.Info()
			if err != nil {
				return err
			}
			n += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestKilledPullsLeaveNothingWrongAndFetchLittleAgain(t *testing.T) {
	const files, size, kills, mostAgain = 3, 48 << 20, 20, 64 << 20
	dir := t.TempDir()
	for i := range uint64(files) {
		writeWeights(t, filepath.Join(dir, fmt.Sprintf("%d.bin", i)), i, size)
	}
	host, _ := servertest.Distribution(t)
	ref, key := refTo(t, host, "v1"), ecdsaKey(t)
	mustPush(t, newClient(t), ref, dir, key)
	whole := digests(t, dir)
	pem := filepath.Join(writeModel(t, map[string]string{"key.pub": string(key.PEM())}), "key.pub")
	slow := newSlowRegistry(t, host, 12<<20)
	bin, random := program(t), rand.New(rand.NewPCG(1, 2))

	parent, dst, most := "", "", int64(0)
	for killed := 0; killed < kills; {
		if parent == "" {
			parent = memoryDir(t)
			// Every other time a mount, into which files are moved one by one.
			if dst = filepath.Join(parent, "m"); killed%2 == 1 {
				if err := os.Mkdir(dst, 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
		before, sent := kept(t, parent), slow.sent.Load()
		cmd, said := pulling(t, bin, pem, via(slow.proxy, ref), dst)
		timer := time.AfterFunc(time.Duration(random.IntN(450))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		if err == nil {
			sameModel(t, dir, dst)
			parent = ""
			continue
		}
		if cmd.ProcessState.Exited() {
			t.Fatalf("%v: %s", err, said)
		}
		killed++
		time.Sleep(20 * time.Millisecond) // for the proxy to see it
		again := before + slow.sent.Load() - sent - kept(t, parent)
		if most = max(most, again); again > mostAgain {
			t.Errorf("kill %d: %d MiB are fetched again", killed, again>>20)
		}
		wholeOrAbsent(t, whole, dst)
	}
	if parent != "" {
		cmd, said := pulling(t, bin, pem, via(slow.proxy, ref), dst)
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		sameModel(t, dir, dst)
	}
	t.Logf("at most %d MiB were fetched again after a kill", most>>20)
}

// digests are those of a model's files, by name.
func digests(t *testing.T, dir string) map[string]digest.Digest {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]digest.Digest{}
	for _, e := range entries {
		all[e.Name()] = blobOf(t, dir, e.Name())
	}
	return all
}

// wholeOrAbsent fails when a file of the model is at dst with other content.
func wholeOrAbsent(t *testing.T, whole map[string]digest.Digest, dst string) {
	t.Helper()
	for name, want := range whole {
		got, err := fileDigest(filepath.Join(dst, name))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil || got != want {
			t.Errorf("%s is there and wrong (%s, %v)", name, got, err)
		}
	}
}

// The memory of a pull depends neither on the model's size nor on the number of
// its layers, and parallel ranges stay within their budget.
func TestPeakMemoryOfAPullIsBounded(t *testing.T) {
	const limit = 96 << 20
	host, key := servertest.SharedStack(t).Registry, ecdsaKey(t)
	pem := filepath.Join(writeModel(t, map[string]string{"key.pub": string(key.PEM())}), "key.pub")
	bin := program(t)
	many := map[string]string{}
	for i := range 2000 {
		many[fmt.Sprintf("%d/%d.bin", i/100, i)] = string(weights(uint64(i), 8<<10))
	}
	one, both := t.TempDir(), writeModel(t, many)
	writeWeights(t, filepath.Join(one, "a.bin"), 1, 192<<20)
	writeWeights(t, filepath.Join(both, "z.bin"), 2, 128<<20)
	for tag, dir := range map[string]string{"one": one, "many": both} {
		ref := refTo(t, host, tag)
		mustPush(t, newClient(t), ref, dir, key)
		slow := newSlowRegistry(t, host, 16<<20)
		dst := filepath.Join(memoryDir(t), "m")
		cmd, said := pulling(t, bin, pem, via(slow.proxy, ref), dst)
		ended, stop := context.WithCancel(t.Context())
		peak := make(chan int64)
		go func() { peak <- watchMemory(ended, cmd.Process.Pid) }()
		err := cmd.Wait()
		stop()
		if got := <-peak; err != nil || got == 0 || got > limit {
			t.Errorf("%s: %d MiB at the peak, %v: %s", tag, got>>20, err, said)
		} else {
			t.Logf("%s: %.1f MiB at the peak", tag, float64(got)/(1<<20))
		}
		ranges := 0
		for _, r := range slow.proxy.Requests() {
			if r.Method == http.MethodGet && r.Header.Get("Range") != "" {
				ranges++
			}
		}
		if ranges < 12 {
			t.Errorf("%d ranges were asked for: the test shows nothing about them", ranges)
		}
		sameModel(t, dir, dst)
	}
}

// watchMemory returns the largest resident set of a process until ctx ends, in
// bytes. The kernel's count at its end would be that of this process, from which
// it was forked, if that was larger.
func watchMemory(ctx context.Context, pid int) int64 {
	var peak int64
	for ctx.Err() == nil {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		name, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err == nil && filepath.Base(name) == "aegis-oci" {
			_, rest, _ := strings.Cut(string(status), "VmHWM:")
			line, _, _ := strings.Cut(rest, "kB")
			n, _ := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
			peak = max(peak, n<<10)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return peak
}
