// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command workload is what runs in the test node's containers beside aegis-oci:
// the sandbox of every pod, and an application that holds a model.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const usage = "usage: workload pause | serve DIR | probe DIR"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "pause":
		pause()
		return nil
	case len(args) == 2 && args[0] == "serve":
		if err := report(args[1]); err != nil {
			return err
		}
		pause()
		return nil
	case len(args) == 2 && args[0] == "probe":
		return report(args[1])
	}
	return errors.New(usage)
}

// pause waits for the end and reaps what becomes a child of the pod's first
// process.
func pause() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}

// seen is what the application finds, for a test to judge.
type seen struct {
	UID, GID int
	// Files are the digests of what it may read below its model's directory.
	Files map[string]string
	// Writable are the directories of the container that it can write to.
	Writable []string
	// Environment holds names only.
	Environment []string
	// Status are lines of /proc/self/status: CapEff, NoNewPrivs, Seccomp.
	Status map[string]string
}

func report(dir string) error {
	s := seen{UID: os.Getuid(), GID: os.Getgid(), Files: make(map[string]string)}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		s.Environment = append(s.Environment, name)
	}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		sum, err := digest(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		s.Files[filepath.ToSlash(name)] = sum
		return nil
	})
	if err != nil {
		return err
	}
	s.Writable = writable()
	if s.Status, err = status("CapEff", "NoNewPrivs", "Seccomp"); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

// status reads lines of what the kernel says about this process.
func status(names ...string) (map[string]string, error) {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	found := make(map[string]string)
	for line := range strings.SplitSeq(string(raw), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && slices.Contains(names, name) {
			found[name] = strings.TrimSpace(value)
		}
	}
	return found, nil
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// writable tries to make a file in every directory outside /proc, /sys and /dev.
func writable() []string {
	found := []string{}
	_ = filepath.WalkDir("/", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipDir
		}
		if !entry.IsDir() {
			return nil
		}
		if path == "/proc" || path == "/sys" || path == "/dev" {
			return fs.SkipDir
		}
		probe := filepath.Join(path, ".workload-probe")
		if f, err := os.OpenFile(probe, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err == nil {
			_ = f.Close()
			_ = os.Remove(probe)
			found = append(found, path)
		}
		return nil
	})
	return found
}
