// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"
)

const (
	linkHere  = "10.213.77.1"
	linkThere = "10.213.77.2"
)

// link is a network namespace that is reached over a line of its own, on which every
// packet takes its time. The line is two tun devices with this program between them,
// so that it needs no netem in the kernel.
type link struct {
	name        string // of the namespace
	here, there *os.File
	delay       atomic.Int64 // of one direction, in nanoseconds
	cancel      context.CancelFunc
}

// newLink needs root.
func newLink(ctx context.Context) (*link, error) {
	l := &link{name: fmt.Sprintf("aegis-bench-%d", os.Getpid())}
	ctx, l.cancel = context.WithCancel(ctx)
	if err := l.setUp(ctx); err != nil {
		l.close()
		return nil, err
	}
	go l.carry(ctx, l.here, l.there)
	go l.carry(ctx, l.there, l.here)
	return l, nil
}

func (l *link) setUp(ctx context.Context) error {
	here, there := fmt.Sprintf("abh%d", os.Getpid()%1e6), fmt.Sprintf("abt%d", os.Getpid()%1e6)
	var err error
	if l.here, err = openTun(here); err != nil {
		return err
	}
	if l.there, err = openTun(there); err != nil {
		return err
	}
	for _, args := range []string{
		"netns add " + l.name,
		"link set " + there + " netns " + l.name,
		"addr add " + linkHere + " peer " + linkThere + " dev " + here,
		"link set " + here + " up",
		"-n " + l.name + " addr add " + linkThere + " peer " + linkHere + " dev " + there,
		"-n " + l.name + " link set lo up",
		"-n " + l.name + " link set " + there + " up",
	} {
		if out, err := exec.CommandContext(ctx, "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
	}
	return nil
}

// close takes everything away again.
func (l *link) close() {
	l.cancel()
	for _, f := range []*os.File{l.here, l.there} {
		if f != nil {
			f.Close()
		}
	}
	_ = exec.Command("ip", "netns", "del", l.name).Run()
}

// within is a program and its arguments that run it in the namespace.
func (l *link) within(program string, args ...string) []string {
	return append([]string{"netns", "exec", l.name, program}, args...)
}

// carry takes packets from one device to the other.
func (l *link) carry(ctx context.Context, from, to *os.File) {
	type packet struct {
		due  time.Time
		data []byte
	}
	line := make(chan packet, 4096)
	go func() {
		defer close(line)
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			select {
			case line <- packet{time.Now().Add(time.Duration(l.delay.Load())), append([]byte(nil), buf[:n]...)}:
			case <-ctx.Done():
				return
			}
		}
	}()
	for p := range line {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.data); err != nil && (ctx.Err() != nil || errors.Is(err, os.ErrClosed)) {
			return
		}
	}
}
