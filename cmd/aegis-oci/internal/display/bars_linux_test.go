// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package display_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/aegis-oci/aegis-oci/cmd/aegis-oci/internal/display"
)

// terminal is a pseudo-terminal of 120 columns: what is written to tty appears
// in what screen reads.
type terminal struct {
	tty *os.File

	mu     sync.Mutex
	shown  bytes.Buffer
	closed chan struct{}
}

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(pty.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(pty.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 120}); err != nil {
		t.Fatal(err)
	}
	s := &terminal{tty: tty, closed: make(chan struct{})}
	go func() {
		defer close(s.closed)
		buf := make([]byte, 4096)
		for {
			n, err := pty.Read(buf)
			s.mu.Lock()
			s.shown.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { tty.Close(); pty.Close(); <-s.closed })
	return s
}

func (s *terminal) screen() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

func (s *terminal) await(t *testing.T, parts ...string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for _, part := range parts {
		for !strings.Contains(s.screen(), part) {
			if time.Now().After(deadline) {
				t.Fatalf("%q never appeared:\n%q", part, s.screen())
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func TestBarsOnATerminal(t *testing.T) {
	s := openTerminal(t)
	if !term.IsTerminal(int(s.tty.Fd())) {
		t.Fatal("it is no terminal")
	}
	b := display.NewBars(s.tty, 0)
	b.Plan(5 << 20)
	b.Start("hashed before", 5<<20)
	b.Done("hashed before")
	b.Plan(300 << 20)
	b.Start("weights.bin", 100<<20)
	b.Start("config.json", 1<<10)
	b.Add("weights.bin", 25<<20)
	b.Done("config.json")
	s.await(t, "weights.bin", "25.0 MiB / 100.0 MiB", "total", "iB/s")
	s.await(t, "/ 300.0 MiB") // the whole, not what was begun
	b.Add("weights.bin", 75<<20)
	b.Done("weights.bin")
	b.Close()
	if _, err := s.tty.WriteString("the result\n"); err != nil {
		t.Fatal(err)
	}
	// The bars are gone: what is on the screen at the end is the result alone.
	s.await(t, "the result")
	all := s.screen()
	if after := all[strings.LastIndex(all, "the result"):]; strings.Contains(after, "total") {
		t.Errorf("bars after the end: %q", after)
	}
}
