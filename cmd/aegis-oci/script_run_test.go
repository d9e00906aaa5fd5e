// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdExitcode is "exitcode 0 aegis-oci ...": a run that succeeds, and that
// prints no secret.
func cmdExitcode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || args[0] != "0" {
		ts.Fatalf("usage: exitcode 0 command...; for failures there is fails")
	}
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		ts.Fatalf("%s: %v", strings.Join(args[1:3], " "), err)
	}
	rigOf(ts).noSecrets(ts)
}

// cmdFails is "fails N CODE aegis-oci ...": the run must end with exit code N and
// error code CODE, say why on stderr, and print no result.
func cmdFails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: fails EXIT CODE command...")
	}
	ts.Check(removeIfThere(ts.MkAbs(".termination-log")))
	err := ts.Exec(args[2], args[3:]...)
	var exit *exec.ExitError
	if err == nil {
		ts.Fatalf("it succeeds")
	}
	if !errors.As(err, &exit) {
		ts.Fatalf("%v", err)
	}
	rigOf(ts).failed(ts, args[0], args[1], exit.ExitCode())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// failed checks a run that has just failed.
func (r *rig) failed(ts *testscript.TestScript, wantExit, wantCode string, exit int) {
	r.noSecrets(ts)
	if strconv.Itoa(exit) != wantExit {
		ts.Fatalf("exit code %d, want %s", exit, wantExit)
	}
	line, err := os.ReadFile(terminationLog(ts.Getenv("WORK")))
	ts.Check(err)
	code, message, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), ": ")
	if code != wantCode {
		ts.Fatalf("error code %s, want %s", code, wantCode)
	}
	if strings.Contains(message, "\n") || message == "" {
		ts.Fatalf("the termination log must hold one line: %q", line)
	}
	if out := ts.ReadFile("stdout"); out != "" {
		checkJSONError(ts, out, wantCode)
	}
	said := ts.ReadFile("stderr")
	if !strings.Contains(said, "aegis-oci: error: ") && !strings.Contains(said, `"level":"ERROR"`) {
		ts.Fatalf("stderr names no error")
	}
	r.table.saw(r.script, wantExit, wantCode, said)
}

// checkJSONError: what stdout holds after a failure can only be the error.
func checkJSONError(ts *testscript.TestScript, out, code string) {
	var got struct {
		Error struct {
			Code, Message string
			Retryable     *bool
		}
	}
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&got); err != nil {
		ts.Fatalf("stdout must be empty or hold the error: %v", err)
	}
	if got.Error.Code != code || got.Error.Message == "" || got.Error.Retryable == nil {
		ts.Fatalf("the error on stdout is not complete, or another than %s", code)
	}
}

func (r *rig) noSecrets(ts *testscript.TestScript) {
	for _, stream := range []string{"stdout", "stderr"} {
		text := ts.ReadFile(stream)
		for _, secret := range r.secrets {
			if strings.Contains(text, secret) {
				ts.Fatalf("%s holds a secret", stream)
			}
		}
	}
}

// running is a background command that a signal was sent to.
type running struct{ cmd *exec.Cmd }

// cmdInterrupt is "interrupt INT|TERM": sends the signal to the one background
// command.
func cmdInterrupt(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM}
	background := ts.BackgroundCmds()
	if neg || len(args) != 1 || signals[args[0]] == 0 || len(background) != 1 {
		ts.Fatalf("usage: interrupt INT|TERM, with one command in the background")
	}
	rigOf(ts).background = &running{background[0]}
	ts.Check(background[0].Process.Signal(signals[args[0]]))
}

// cmdExited is "exited N CODE", after "wait": what fails checks, for the command
// that was interrupted.
func cmdExited(ts *testscript.TestScript, neg bool, args []string) {
	r := rigOf(ts)
	if neg || len(args) != 2 || r.background == nil || r.background.cmd.ProcessState == nil {
		ts.Fatalf("usage: interrupt ..., wait, exited EXIT CODE")
	}
	r.failed(ts, args[0], args[1], r.background.cmd.ProcessState.ExitCode())
}

// cmdStdout2env is "stdout2env NAME": the last command's output, trimmed.
func cmdStdout2env(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: stdout2env NAME")
	}
	value := strings.TrimSpace(ts.ReadFile("stdout"))
	if value == "" {
		ts.Fatalf("stdout is empty")
	}
	ts.Setenv(args[0], value)
}

// cmdJSONField is "jsonfield PATH PATTERN": the field, such as signatures.0.key,
// of the JSON on stdout must match the whole pattern; "! jsonfield PATH" says that
// there is no such field.
func cmdJSONField(ts *testscript.TestScript, neg bool, args []string) {
	if neg && len(args) != 1 || !neg && len(args) != 2 {
		ts.Fatalf("usage: jsonfield PATH PATTERN, ! jsonfield PATH")
	}
	var v any
	d := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	d.UseNumber()
	ts.Check(d.Decode(&v))
	found := true
	for part := range strings.SplitSeq(args[0], ".") {
		switch at := v.(type) {
		case map[string]any:
			v, found = at[part]
		case []any:
			n, err := strconv.Atoi(part)
			if found = err == nil && n < len(at); found {
				v = at[n]
			}
		default:
			found = false
		}
		if !found {
			break
		}
	}
	if neg {
		if found {
			ts.Fatalf("there is a field %s: %v", args[0], v)
		}
		return
	}
	if !found {
		ts.Fatalf("there is no field %s", args[0])
	}
	text, err := json.Marshal(v)
	ts.Check(err)
	if s, ok := v.(string); ok {
		text = []byte(s)
	}
	if !regexp.MustCompile(`^(?:` + args[1] + `)$`).Match(text) {
		ts.Fatalf("%s is %s", args[0], text)
	}
}

// cmdHolds is "holds DIR NAME...": the directory has exactly these entries,
// hidden ones too.
func cmdHolds(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: holds DIR NAME...")
	}
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := slices.Sorted(slices.Values(args[1:]))
	if !slices.Equal(names, want) {
		ts.Fatalf("%s holds %q, want %q", args[0], names, want)
	}
}

// cmdTruncate is "truncate FILE SIZE": a file of zeros, sparse where that works.
func cmdTruncate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: truncate FILE SIZE")
	}
	size, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(f.Truncate(size))
	ts.Check(f.Close())
}

// cmdMany is "many DIR N": N empty files.
func cmdMany(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: many DIR N")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	for i := range n {
		ts.Check(os.WriteFile(dir+string(os.PathSeparator)+strconv.Itoa(i), nil, 0o644))
	}
}

// cmdSleep is "sleep DURATION".
func cmdSleep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sleep DURATION")
	}
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	time.Sleep(d)
}

// flip changes one byte in the middle and keeps the size.
func flip(content []byte) []byte {
	content = bytes.Clone(content)
	content[len(content)/2] ^= 1
	return content
}

// cmdTokenFile is "tokenfile FILE TOKEN".
func cmdTokenFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: tokenfile FILE TOKEN")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(args[1]+"\n"), 0o600))
}
