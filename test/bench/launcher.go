// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// launchFlag as the first argument makes this program run another one, which is
// named after it. A program begins in the memory of the one that starts it, so that
// the kernel reports at least that one's peak: a launcher is small, and what runs
// proxies and registries is not.
const launchFlag = "-launch"

// launched is what a launcher writes to its file descriptor 3.
type launched struct {
	Wall time.Duration
	CPU  time.Duration
	// Peak is at least the launcher's own, of about 7 MiB.
	Peak  int64
	Error string
}

// launch runs a program, measures it, and has its exit code.
func launch(args []string) int {
	// The signal comes when the thread that started the child ends.
	runtime.LockOSThread()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var result launched
	start := time.Now()
	err := cmd.Run()
	result.Wall = time.Since(start)
	code := 1
	if state := cmd.ProcessState; state != nil {
		result.Peak = state.SysUsage().(*syscall.Rusage).Maxrss << 10 // getrusage(2): in kilobytes
		result.CPU = state.UserTime() + state.SystemTime()
		code = max(state.ExitCode(), 0)
	}
	if err != nil {
		result.Error = err.Error()
		code = max(code, 1)
	}
	if err := json.NewEncoder(os.NewFile(3, "result")).Encode(result); err != nil {
		fmt.Fprintln(os.Stderr, "bench: launcher:", err)
		return 1
	}
	return code
}

// viaLauncher makes cmd one that a launcher runs. The function returned gives what it
// measured, once cmd has ended.
func viaLauncher(cmd *exec.Cmd) (func() (sample, error), error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	result, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Args = append([]string{self, launchFlag, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = self
	cmd.ExtraFiles = []*os.File{w}
	return func() (sample, error) {
		w.Close()
		defer result.Close()
		var got launched
		if err := json.NewDecoder(result).Decode(&got); err != nil {
			return sample{}, fmt.Errorf("the launcher's result: %w", err)
		}
		if got.Error != "" {
			return sample{}, errors.New(got.Error)
		}
		return sample{wall: got.Wall, peak: got.Peak, cpu: got.CPU}, nil
	}, nil
}
