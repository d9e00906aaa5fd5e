// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer/buffertest"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// ownNamespace runs the calling test again as root of a user namespace where it
// is not root, since mounting needs that, and reports that it did.
func ownNamespace(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() == 0 {
		return false
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("in a user namespace: %v\n%s", err, out)
	}
	return true
}

// asUser runs the calling test again as a user whom permissions bind where it is root,
// and reports that it did. In a namespace of its own the user has root's id outside, so
// that the test's binary can be read.
func asUser(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return false
	}
	const user = 65534
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: user, HostID: 0, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: user, HostID: os.Getgid(), Size: 1}},
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as a user: %v\n%s", err, out)
	}
	return true
}

// mountTmpfs mounts a small file system, to fill it or make it read-only.
func mountTmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount a small tmpfs (needs CAP_SYS_ADMIN): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

func remountReadOnly(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
}

func TestUnpackRefusesWhatDoesNotFitBeforeTheFirstByte(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	a := newArtifact().file("a", random(900<<10)).file("b", random(300<<10))
	v, m := a.decode(t)
	volume := mountTmpfs(t, "1m")
	for _, dst := range []string{volume, filepath.Join(volume, "m")} {
		f := a.fetcher()
		_, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
		var space *SpaceError
		if !errors.As(err, &space) || space.Need != 1200<<10 || space.Free <= 0 || space.Free > 1<<20 {
			t.Fatalf("error %v, want a SpaceError with the figures", err)
		}
		if len(f.calls) != 0 {
			t.Error("something was fetched")
		}
		wantOnly(t, volume)
	}
}

// Somebody else fills the volume while a model is fetched: nothing of it stays,
// so that what filled the disk is not us.
func TestUnpackLeavesNothingOnAFullDisk(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	a := newArtifact().file("a", random(700<<10))
	v, m := a.decode(t)
	volume := mountTmpfs(t, "1m")
	for _, dst := range []string{volume, filepath.Join(volume, "m")} {
		f := a.fetcher()
		filler := filepath.Join(volume, "lost+found", "filler")
		mkdir(t, filepath.Dir(filler))
		f.serve = func(_ ocispec.Descriptor, content []byte, offset int64) (io.ReadCloser, error) {
			if err := os.WriteFile(filler, make([]byte, 600<<10), 0o644); err != nil {
				return nil, err
			}
			return io.NopCloser(strings.NewReader(string(content[offset:]))), nil
		}
		_, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
		var space *SpaceError
		if !errors.As(err, &space) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("error %v, want a SpaceError for ENOSPC", err)
		}
		must(t, os.RemoveAll(filepath.Dir(filler)))
		wantOnly(t, volume)
	}
}

// Somebody else fills the volume while an archive is unpacked: that is no word
// about the archive.
func TestUnpackEntryOnAFullDiskIsNoJudgement(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	root, err := os.OpenRoot(mountTmpfs(t, "64k"))
	must(t, err)
	defer root.Close()
	content := random(200 << 10)
	rec := newTarRecorder(bytes.NewReader(content), Layer{}, nil)
	rec.expandTo(1<<20, 1<<20, 1<<20, "dst")
	err = (&tree{root: root}).unpackEntry(tarEntry{path: "a", kind: tarFile, size: int64(len(content))}, rec, rec)
	if !errors.Is(err, syscall.ENOSPC) || rejected(err) {
		t.Errorf("error %v", err)
	}
	must(t, root.Remove("a"))
	cut := newTarRecorder(bytes.NewReader(content[:10]), Layer{}, nil)
	cut.expandTo(1<<20, 1<<20, 1<<20, "dst")
	if err := (&tree{root: root}).unpackEntry(tarEntry{path: "b", kind: tarFile, size: 11}, cut, cut); !rejected(err) {
		t.Errorf("an archive that is cut short: %v", err)
	}
}

// goesOnAfter unpacks a in two runs, the first of which is cut.
func goesOnAfter(t testing.TB, cut int64, a *artifact, dst string) verify.Verified {
	t.Helper()
	v, m := a.decode(t)
	f := a.fetcher()
	f.serve = cutAfter(cut)
	if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	f.serve = nil
	if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestUnpackCountsKeptBytesAgainstTheSpaceNeeded(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	volume := mountTmpfs(t, "1m")
	v := goesOnAfter(t, 600<<10, newArtifact().file("a", random(700<<10)), volume)
	checkInstalled(t, volume, v, 1)
}

// Blocks that an interrupted run has reserved are neither free nor needed once more.
func TestUnpackCountsReservedBlocksAgainstTheSpaceNeeded(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	a := newArtifact().file("a", random(700<<10))
	v, m := a.decode(t)
	volume := mountTmpfs(t, "1m")
	f := a.fetcher()
	f.serve = cutAfter(100 << 10)
	if _, err := Unpack(t.Context(), f, v, m, volume, UnpackOptions{}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	// What is done on a disk, and not on a tmpfs.
	staged, err := filepath.Glob(filepath.Join(volume, stagingName, filepath.FromSlash(blobsDir), "*"))
	if err != nil || len(staged) != 1 {
		t.Fatal(staged, err)
	}
	file, err := os.OpenFile(staged[0], os.O_RDWR, 0)
	must(t, err, preallocate(file, 700<<10), file.Close())
	f.serve = nil
	before := f.bytes
	if _, err := Unpack(t.Context(), f, v, m, volume, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := f.bytes - before; n != 600<<10 {
		t.Errorf("%d bytes were fetched again", n)
	}
	checkInstalled(t, volume, v, 1)
}

// A full disk leaves the evidence that is there, when newer signatures would replace it.
func TestUnpackOnAFullVolumeKeepsTheOlderEvidence(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	a := newArtifact().file("a", []byte("a"))
	volume := mountTmpfs(t, "1m")
	dst := filepath.Join(volume, "m")
	v, m := a.decode(t)
	if _, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, dst)
	if err := os.WriteFile(filepath.Join(volume, "filler"), make([]byte, 2<<20), 0o644); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the volume was not filled: %v", err)
	}
	later, m := a.decodeSignedAt(t, testNow.Add(time.Hour))
	var warned []string
	res, err := Unpack(t.Context(), a.fetcher(), later, m, dst, UnpackOptions{Warn: func(s string) { warned = append(warned, s) }})
	if err != nil || !res.AlreadyThere || len(warned) != 1 || !strings.Contains(warned[0], "keeping the older evidence") {
		t.Fatalf("%+v, %v, warned %q", res, err, warned)
	}
	if after := snapshot(t, dst); !maps.Equal(after, before) {
		t.Errorf("there is %q, was %q", keys(after), keys(before))
	}
	checkInstalled(t, dst, v, 1)
	// With room again it is replaced, and nothing of the attempt is left.
	must(t, os.Remove(filepath.Join(volume, "filler")))
	if _, err := Unpack(t.Context(), a.fetcher(), later, m, dst, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	checkInstalled(t, dst, later, 1)
	wantOnly(t, filepath.Join(dst, evidenceDir), slices.Sorted(maps.Keys(topNames(before, evidenceDir)))...)
}

// topNames are the names right below dir.
func topNames(all map[string]string, dir string) map[string]bool {
	top := make(map[string]bool)
	for name := range all {
		if rest, ok := strings.CutPrefix(name, dir+"/"); ok && rest != "" {
			first, _, _ := strings.Cut(rest, "/")
			top[first] = true
		}
	}
	return top
}

// Killed between the steps, the next run repairs it, and the guard against older
// signatures holds.
func TestUnpackRepairsEvidenceThatWasHalfRenewed(t *testing.T) {
	for _, step := range []func(dst string) error{
		func(dst string) error { return os.RemoveAll(filepath.Join(dst, filepath.FromSlash(signaturesDir))) },
		func(dst string) error {
			return os.WriteFile(filepath.Join(dst, filepath.FromSlash(newReceipt)), []byte("{"), 0o644)
		},
	} {
		a, dst := newArtifact().file("a", []byte("a")), filepath.Join(t.TempDir(), "m")
		install(t, a, dst)
		must(t, step(dst))
		older := newArtifact().file("a", []byte("b"))
		ov, om := older.decodeSignedAt(t, testNow.Add(-time.Hour))
		var rollback *RollbackError
		if _, err := Unpack(t.Context(), older.fetcher(), ov, om, dst, UnpackOptions{Replace: true}); !errors.As(err, &rollback) {
			t.Errorf("error %v, want a RollbackError", err)
		}
		v, m := a.decodeSignedAt(t, testNow.Add(time.Hour))
		if res, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{}); err != nil || !res.AlreadyThere {
			t.Fatalf("%+v, %v", res, err)
		}
		checkInstalled(t, dst, v, 1)
	}
}

// Killed right before the receipt changed: it is renewed, though the signatures are the
// new ones already, and the model that is older than these does not replace it.
func TestUnpackRenewsTheReceiptOfNewerSignatures(t *testing.T) {
	a, dst, newer := newArtifact().file("a", []byte("a")), filepath.Join(t.TempDir(), "m"), filepath.Join(t.TempDir(), "m")
	install(t, a, dst)
	v, m := a.decodeSignedAt(t, testNow.Add(time.Hour))
	_, err := Unpack(t.Context(), a.fetcher(), v, m, newer, UnpackOptions{})
	must(t, err, os.RemoveAll(filepath.Join(dst, filepath.FromSlash(signaturesDir))),
		os.Rename(filepath.Join(newer, filepath.FromSlash(signaturesDir)), filepath.Join(dst, filepath.FromSlash(signaturesDir))))
	if res, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{}); err != nil || !res.AlreadyThere {
		t.Fatalf("%+v, %v", res, err)
	}
	between := newArtifact().file("a", []byte("b"))
	bv, bm := between.decodeSignedAt(t, testNow.Add(time.Minute))
	var rollback *RollbackError
	if _, err := Unpack(t.Context(), between.fetcher(), bv, bm, dst, UnpackOptions{Replace: true}); !errors.As(err, &rollback) {
		t.Errorf("error %v, want a RollbackError", err)
	}
}

func TestUnpackFromAReadOnlyVolumeThatIsReady(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	a := sample()
	dst := mountTmpfs(t, "16m")
	install(t, a, dst)
	remountReadOnly(t, dst)
	v, m := a.decode(t)
	f := a.fetcher()
	res, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
	if err != nil || !res.AlreadyThere || len(f.calls) != 0 {
		t.Errorf("%+v, %v after %d fetches", res, err, len(f.calls))
	}
}

// What is there needs no room, wherever the room for staging ends.
func TestUnpackFromAFullVolumeThatIsReady(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	a, other := sample(), newArtifact().file("w", random(10))
	volume := mountTmpfs(t, "16m,nr_inodes=100")
	for _, dst := range []string{volume, filepath.Join(volume, "m")} {
		install(t, a, dst)
		v, m := a.decode(t)
		ov, om := other.decode(t)
		var filled []*os.File // whose names are gone
		for {
			f, err := os.CreateTemp(dst, "filler")
			if err != nil {
				break
			}
			must(t, os.Remove(f.Name()))
			filled = append(filled, f)
		}
		for range 3 {
			before := snapshot(t, dst)
			f := a.fetcher()
			res, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
			if err != nil || !res.AlreadyThere || len(f.calls) != 0 {
				t.Errorf("%+v, %v after %d fetches", res, err, len(f.calls))
			}
			_, err = Unpack(t.Context(), other.fetcher(), ov, om, dst, UnpackOptions{})
			var space *SpaceError
			var installed *InstalledError
			if !errors.As(err, &space) && !errors.As(err, &installed) {
				t.Errorf("error %v", err)
			}
			if after := snapshot(t, dst); !maps.Equal(before, after) {
				t.Errorf("%q are there, were %q", keys(after), keys(before))
			}
			// One file more can be made.
			must(t, filled[len(filled)-1].Close())
			filled = filled[:len(filled)-1]
		}
		for _, f := range filled {
			must(t, f.Close())
		}
	}
}

// Who only has to check waits for nobody else's staging.
func TestUnpackBesideAnotherUsersStaging(t *testing.T) {
	if os.Geteuid() != 0 {
		return // there is no second user
	}
	a, other, dst := sample(), newArtifact().file("w", random(10)), filepath.Join(t.TempDir(), "m")
	install(t, a, dst)
	staging := filepath.Join(dst, stagingName)
	must(t, os.Mkdir(staging, 0o700), os.Chown(staging, 65534, 65534))
	v, m := a.decode(t)
	f := a.fetcher()
	res, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
	if err != nil || !res.AlreadyThere || len(f.calls) != 0 {
		t.Errorf("%+v, %v after %d fetches", res, err, len(f.calls))
	}
	for _, o := range []UnpackOptions{{}, {Replace: true}} {
		v, m := other.decode(t)
		var locked *LockedError
		if _, err := Unpack(t.Context(), other.fetcher(), v, m, dst, o); !errors.As(err, &locked) {
			t.Errorf("error %v", err)
		}
	}
	writeFile(t, filepath.Join(dst, "extra"), "1")
	var locked *LockedError
	if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{}); !errors.As(err, &locked) {
		t.Errorf("error %v", err)
	}
}

const killedDir = "AEGIS_TEST_KILLED_DIR"

// TestMain runs this binary as the process that is killed.
func TestMain(m *testing.M) {
	if dst := os.Getenv(killedDir); dst != "" {
		unpackUntilKilled(dst)
	}
	os.Exit(buffertest.Run(m))
}

// killedArtifact is the same in both processes.
func killedArtifact() *artifact {
	return newArtifact().file("dir/b", random(8<<20)).file("a", random(9<<20))
}

// unpackUntilKilled prints how far it is and stops in the middle of a layer.
func unpackUntilKilled(dst string) {
	a := killedArtifact()
	raw, err := json.Marshal(a.manifest)
	if err != nil {
		panic(err)
	}
	s, err := signature.SubjectOf(ocispec.MediaTypeImageManifest, raw)
	if err != nil {
		panic(err)
	}
	m, err := DecodeUnverified(s, raw)
	if err != nil {
		panic(err)
	}
	f := a.fetcher()
	f.serve = func(_ ocispec.Descriptor, content []byte, offset int64) (io.ReadCloser, error) {
		// The larger one is fetched first, and whole.
		if len(content) > 8<<20 {
			return io.NopCloser(bytes.NewReader(content[offset:])), nil
		}
		stop := reader(func([]byte) (int, error) {
			// What came is written meanwhile.
			for stagedBytes(dst) < (9+3)<<20 {
				time.Sleep(time.Millisecond)
			}
			fmt.Println("stopped")
			select {}
		})
		return io.NopCloser(io.MultiReader(bytes.NewReader(content[offset:offset+3<<20]), stop)), nil
	}
	_, err = UnpackUnverified(context.Background(), f, m, dst, UnpackOptions{Concurrency: 1})
	fmt.Println(err)
	os.Exit(1)
}

// stagedBytes is how much is staged for dst, inside of it or beside it.
func stagedBytes(dst string) (n int64) {
	for _, dir := range []string{dst, filepath.Dir(dst)} {
		staged, err := filepath.Glob(filepath.Join(dir, stagingName+"*", blobsDir, "*"))
		if err != nil {
			panic(err)
		}
		for _, name := range staged {
			if info, err := os.Stat(name); err == nil {
				n += info.Size()
			}
		}
	}
	return n
}

type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }

func TestUnpackResumesAfterAKill(t *testing.T) {
	for _, inside := range []bool{false, true} {
		parent := t.TempDir()
		dst := filepath.Join(parent, "m")
		if inside {
			mkdir(t, dst)
		}
		killChild(t, dst)
		if !inside && exists(dst) || inside && exists(filepath.Join(dst, "a")) {
			t.Error("a final name exists after the kill")
		}
		a := killedArtifact()
		v, m := a.decode(t)
		res, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if res.BytesReused != (9+3)<<20 || res.BytesFetched != 5<<20 {
			t.Errorf("inside %v: %+v", inside, res)
		}
		wantOnly(t, parent, "m")
		checkInstalled(t, dst, v, 2)
	}
}

// killChild starts this binary on dst and kills it when it says that it is in
// the middle.
func killChild(t *testing.T, dst string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), killedDir+"="+dst)
	out, err := cmd.StdoutPipe()
	must(t, err, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "stopped\n" {
		t.Errorf("the child said %q, %v", line, err)
	}
	must(t, cmd.Process.Kill())
	cmd.Wait() //nolint:errcheck // it was killed
}

func TestFreeSpaceIsPlausible(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	free, err := freeSpace(mountTmpfs(t, "1m"))
	if err != nil || free != 1<<20 {
		t.Errorf("%d, %v", free, err)
	}
	free, err = freeSpace(t.TempDir())
	if err != nil || free <= 0 || free == math.MaxInt64 {
		t.Errorf("%d, %v", free, err)
	}
}

// TestAnArchiveOfSmallFilesNeedsTwice its size, which is found out while it comes, and not
// when all of it has come.
func TestAnArchiveOfSmallFilesNeedsTwice(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	var entries []tarIn
	for i := range 3000 {
		entries = append(entries, tarFileOf(strconv.Itoa(i), string(random(4000))))
	}
	raw := tarOf(t, entries...)
	a := newArtifact().layer(tarType, raw, nil)
	v, m := a.decode(t)
	f := a.fetcher()
	volume := mountTmpfs(t, "18m")
	var space *SpaceError
	if _, err := Unpack(t.Context(), f, v, m, volume, UnpackOptions{}); !errors.As(err, &space) || space.Need <= space.Free {
		t.Fatalf("error %v", err)
	}
	if f.bytes > int64(len(raw))*3/4 {
		t.Errorf("%d of %d bytes were fetched", f.bytes, len(raw))
	}
	wantOnly(t, volume)
	volume = mountTmpfs(t, "40m")
	if _, err := Unpack(t.Context(), f, v, m, volume, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	checkInstalled(t, volume, v, 3000)
}

// twoSources serves from the second fetcher once what the first one sent is in doubt.
type twoSources struct {
	*fetcher
	second *fetcher
}

func (s *twoSources) Doubt(ocispec.Descriptor, bool) bool {
	if s.second == nil {
		return false
	}
	s.fetcher, s.second = s.second, nil
	return true
}

// TestASourceThatNeedsRoomIsDoubted: the archive that does not fit is not the one that is
// wanted, which does.
func TestASourceThatNeedsRoomIsDoubted(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	raw := tarOf(t, tarFileOf("a", string(random(12<<20))))
	a := newArtifact().layer(tarType, raw, nil)
	v, m := a.decode(t)
	volume := mountTmpfs(t, "18m")
	liar := a.fetcher()
	liar.serve = serveAs(func(b []byte) []byte { return random(len(b)) })
	if _, err := Unpack(t.Context(), &twoSources{liar, a.fetcher()}, v, m, volume, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	checkInstalled(t, volume, v, 1)
	// Kept bytes may be what is wrong.
	volume = mountTmpfs(t, "18m")
	cut := a.fetcher()
	cut.serve = func(_ ocispec.Descriptor, content []byte, _ int64) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(random(300)), errReader{errCut})), nil
	}
	if _, err := Unpack(t.Context(), cut, v, m, volume, UnpackOptions{}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	if _, err := Unpack(t.Context(), a.fetcher(), v, m, volume, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	checkInstalled(t, volume, v, 1)
	// Where there is no other source, it is asked once.
	volume = mountTmpfs(t, "18m")
	var space *SpaceError
	if _, err := Unpack(t.Context(), liar, v, m, volume, UnpackOptions{}); !errors.As(err, &space) || rejected(err) {
		t.Errorf("error %v", err)
	}
	if n := len(liar.calls); n != 2 {
		t.Errorf("it was asked %d times", n-1)
	}
	wantOnly(t, volume)
}

// TestRoomIsAskedBetweenFiles: what is reserved for a file is not free, and needed no more.
func TestRoomIsAskedBetweenFiles(t *testing.T) {
	t.Parallel()
	dst := t.TempDir()
	s, err := openSite(t.Context(), dst, silent)
	must(t, err)
	defer s.leave(true)
	p := &pieces{site: s, split: newSplitter(1 << 60), copied: 2 * roomStep}
	for index, fits := range []bool{false, true} {
		p.index, p.asked = index, 0
		if err := p.askRoom(); (err == nil) != fits {
			t.Errorf("in piece %d: %v", index, err)
		}
	}
}

// TestAFullDiskWhereAPieceBegins: somebody else fills the volume meanwhile.
func TestAFullDiskWhereAPieceBegins(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	raw := tarOf(t, tarFileOf("first", string(random(minPiece))), tarFileOf("second", string(random(writeWindow))))
	a := newArtifact().layer(tarType, raw, nil)
	v, m := a.decode(t)
	volume := mountTmpfs(t, "20m")
	filler := filepath.Join(volume, "filler")
	f := a.fetcher()
	f.serve = func(_ ocispec.Descriptor, content []byte, offset int64) (io.ReadCloser, error) {
		writeFile(t, filler, string(random(10<<20)))
		return io.NopCloser(bytes.NewReader(content[offset:])), nil
	}
	var space *SpaceError
	if _, err := Unpack(t.Context(), f, v, m, filepath.Join(volume, "m"), UnpackOptions{}); !errors.As(err, &space) {
		t.Fatalf("error %v", err)
	}
	wantOnly(t, volume, "filler")
}

// TestPiecesCountForWhatTheyHold, and not for the blocks that they are rounded up to.
func TestPiecesCountForWhatTheyHold(t *testing.T) {
	t.Parallel()
	var entries []tarIn
	for i := range 30 {
		entries = append(entries, tarFileOf(strconv.Itoa(i), string(random(minPiece+1))))
	}
	raw := tarOf(t, entries...)
	a := newArtifact().layer(tarType, raw, nil)
	v, m := a.decode(t)
	dst := t.TempDir()
	f := a.fetcher()
	f.serve = cutAfter(1_000_000)
	if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	s, err := openSite(t.Context(), dst, silent)
	must(t, err)
	defer s.leave(true)
	u := newUnpacking(f, v, m, dst, UnpackOptions{})
	if got := u.blobs()[0].allocated(s); got != 1_000_000 {
		t.Errorf("%d bytes count, want 1000000", got)
	}
}

// TestAnArchiveWhosePiecesAreDroppedLeavesNoFileOpen.
func TestAnArchiveWhosePiecesAreDroppedLeavesNoFileOpen(t *testing.T) {
	raw, _ := pieceTar(t)
	a := newArtifact().layer(tarType, raw, nil)
	v, m := a.decode(t)
	parent := t.TempDir()
	dst := filepath.Join(parent, "m")
	f := a.fetcher()
	f.serve = cutAfter(500_000)
	if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, stagingBeside("m"), piecesDir(digest.FromBytes(raw)))
	must(t, os.Truncate(filepath.Join(dir, "1"), 410_000))
	f.serve = func(ocispec.Descriptor, []byte, int64) (io.ReadCloser, error) {
		open, err := filepath.Glob("/proc/self/fd/*")
		must(t, err)
		for _, name := range open {
			if to, _ := os.Readlink(name); strings.HasPrefix(to, dir+"/") {
				t.Errorf("%s is open", to)
			}
		}
		return nil, errCut
	}
	if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
}

// TestAnArchiveNeedsItsSizeOnce: its files are pieces of what is staged. A compressed one
// is unpacked beside it.
func TestAnArchiveNeedsItsSizeOnce(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	raw := tarOf(t, tarFileOf("a", string(random(500<<10))), tarFileOf("b", string(random(300<<10))))
	volume := mountTmpfs(t, "1m")
	a := newArtifact().layer(gzipType, gzipped(t, raw), nil)
	v, m := a.decode(t)
	var space *SpaceError
	if _, err := Unpack(t.Context(), a.fetcher(), v, m, volume, UnpackOptions{}); !errors.As(err, &space) {
		t.Fatalf("compressed: %v", err)
	}
	wantOnly(t, volume)
	v = goesOnAfter(t, 600<<10, newArtifact().layer(tarType, raw, nil), volume)
	checkInstalled(t, volume, v, 2)
}

// TestAnOldModelThatNeedsRoomIsNotUsed: what was put beside it is not what is wanted, and
// has more than there is room for.
func TestAnOldModelThatNeedsRoomIsNotUsed(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	raw := tarOf(t, tarFileOf("a", string(random(12<<20))))
	old := newArtifact().file("version", []byte("one")).layer(tarType, raw, nil)
	next := newArtifact().layer(tarType, raw, nil)
	dst := filepath.Join(mountTmpfs(t, "42m"), "m")
	install(t, old, dst)
	must(t, os.WriteFile(skeletonOf(dst), append(make([]byte, 1024), random(12<<20)...), 0o644))
	v, m := next.decodeSignedAt(t, testNow.Add(time.Minute))
	res, err := Unpack(t.Context(), next.fetcher(), v, m, dst, UnpackOptions{Replace: true})
	if err != nil || res.BytesFetched != int64(len(raw)) {
		t.Fatalf("%+v, %v", res, err)
	}
	checkInstalled(t, dst, v, 1)
}
