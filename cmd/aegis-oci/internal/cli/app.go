// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line: flags in, one workflow, result out. What it
// decides is limited to which exit code and hint belong to which error.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/aegis-oci/aegis-oci/cmd/aegis-oci/internal/display"
	"github.com/aegis-oci/aegis-oci/pkg/revocation"
	"github.com/aegis-oci/aegis-oci/pkg/trustpolicy"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
)

// app is one run of the command line.
type app struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	env    environment

	format         string
	debug          bool
	logFormat      string
	quiet          bool
	timeout        time.Duration
	retryTimeout   time.Duration
	terminationLog string

	out      display.Printer
	prepared bool
	logger   *slog.Logger
	cleanup  []func(context.Context)
	warned   sync.Mutex
	// stdinFor is the flag that standard input was read for.
	stdinFor string

	vault        *vault.Session
	login        *vaultLogin
	jwt          *vault.JWT                           // set when it was what logged in
	vaults       map[trustpolicy.Vault]*vault.Session // of policy entries that name their own
	stopProgress func()

	checker *revocation.Checker
}

// Main runs the program and returns its exit code.
func Main() int {
	boundMemory()
	ctx, stop := withSignals(context.Background())
	defer stop()
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: newEnvironment(os.Environ())}
	return a.run(ctx, os.Args[1:])
}

// signalError is the cause of a context that a signal has ended.
type signalError struct{ sig syscall.Signal }

func (e *signalError) Error() string { return e.sig.String() }

// withSignals ends the context on SIGINT or SIGTERM. As PID 1 of a container
// nobody else would. The second signal ends the program at once.
func withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM)
	go func() {
		for n := 0; ; n++ {
			s, ok := <-ch
			if !ok {
				return
			}
			sig, _ := s.(syscall.Signal)
			if n > 0 {
				os.Exit(128 + int(sig))
			}
			cancel(&signalError{sig})
		}
	}()
	return ctx, func() {
		signal.Stop(ch)
		close(ch)
		cancel(nil)
	}
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCmd()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(ctx)
	// Revoking and closing must happen on every way out, also after a signal.
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for _, f := range a.cleanup {
		f(closing)
	}
	if err == nil {
		return exitOK
	}
	if !a.prepared {
		// A command line that does not parse is reported as the variables ask; one
		// that is wrong itself is not worth a second error.
		_ = a.env.applyTwins(root)
		err = asUsage(err)
	}
	return a.report(ctx, err)
}

func (a *app) rootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "aegis-oci",
		Short: "Sign models in OCI registries with Vault, and open only what verifies",
		Long: `aegis-oci keeps models as OCI artifacts, signs them with a Vault Transit key and
verifies the signature before a single byte of a model reaches its final name.

Every flag has a twin in the environment: --signature-format is
AEGIS_SIGNATURE_FORMAT. A flag beats a variable.

Exit codes: 0 ok, 1 internal or local error, 2 usage, 3 rejected (unsigned,
tampered, expired, wrong key), 4 could not judge or finish (registry, Vault,
network), 130 and 143 interrupted.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: a.prepare,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{msg: err.Error(), hint: cmd.CommandPath() + " --help"}
	})
	f := root.PersistentFlags()
	f.StringVar(&a.format, "format", "text", "result as text, json or go-template=TEMPLATE")
	f.BoolVar(&a.debug, "debug", false, "log what is done, without secrets, on stderr")
	f.StringVar(&a.logFormat, "log-format", "text", "log lines as text or json")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no progress and no notices on stderr; warnings and errors stay")
	f.DurationVar(&a.timeout, "timeout", 0, "give up the whole command after this time (0 = never)")
	f.DurationVar(&a.retryTimeout, "retry-timeout", 2*time.Minute, "how long an unreachable registry or Vault is tried again")
	f.StringVar(&a.terminationLog, "termination-log", "", "file for the one-line reason of a failure (default /dev/termination-log where it exists)")
	root.AddCommand(
		a.pushCmd(), a.pullCmd(), a.signCmd(), a.verifyCmd(),
		a.inspectCmd(), a.tagCmd(), a.copyCmd(), a.keyCmd(), a.kserveInitCmd(), a.loginCmd(), a.logoutCmd(), a.versionCmd(),
		a.vaultCmd(), a.doctorCmd(),
		a.policyCmd(),
	)
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.HasSubCommands() && !c.Runnable() {
			c.Args, c.RunE = cobra.ArbitraryArgs, onlyGroups
		}
	}
	return root
}

// onlyGroups refuses a misspelt subcommand, to which cobra prints the help and
// calls it success.
func onlyGroups(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{msg: fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath()), hint: cmd.CommandPath() + " --help"}
	}
	return cmd.Help()
}

// prepare runs before every command.
func (a *app) prepare(cmd *cobra.Command, _ []string) error {
	a.prepared = true
	if err := a.env.applyTwins(cmd); err != nil {
		return err
	}
	var err error
	if a.out, err = display.NewPrinter(a.stdout, a.format); err != nil {
		a.format = "text"
		return &usageError{msg: err.Error(), hint: "--format text, --format json or --format 'go-template={{.digest}}'"}
	}
	if a.logger, err = a.newLogger(); err != nil {
		return err
	}
	for _, w := range a.env.unknownTwins(cmd.Root()) {
		a.warn(w)
	}
	if a.timeout < 0 {
		return usagef("--timeout must not be negative")
	}
	if a.retryTimeout <= 0 {
		// Who gives 0 means no second try, or no end, and got the default.
		return &usageError{msg: "--retry-timeout must be more than 0", hint: "--retry-timeout 1s gives up soon, 24h late; without it, it is 2m"}
	}
	if a.timeout > 0 {
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), a.timeout, &timeoutError{a.timeout})
		a.cleanup = append(a.cleanup, func(context.Context) { cancel() })
		cmd.SetContext(ctx)
	}
	return nil
}

type timeoutError struct{ after time.Duration }

func (e *timeoutError) Error() string { return fmt.Sprintf("gave up after --timeout %s", e.after) }

func (a *app) newLogger() (*slog.Logger, error) {
	if !a.debug && a.logFormat != "json" && a.logFormat != "text" {
		return nil, usagef("--log-format must be text or json, not %q", a.logFormat)
	}
	level := slog.LevelWarn
	if a.debug {
		level = slog.LevelDebug
	}
	o := &slog.HandlerOptions{Level: level}
	if a.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(a.stderr, o)), nil
	}
	return slog.New(slog.NewTextHandler(a.stderr, o)), nil
}

// warn prints a warning; it is safe for concurrent use.
func (a *app) warn(msg string) { a.line("warning", msg) }

// notice prints what a person may want to know and --quiet leaves out.
func (a *app) notice(msg string) {
	if !a.quiet {
		a.line("", msg)
	}
}

func (a *app) line(kind, msg string) {
	a.warned.Lock()
	defer a.warned.Unlock()
	if a.logFormat == "json" && a.logger != nil {
		level := slog.LevelInfo
		if kind != "" {
			level = slog.LevelWarn
		}
		// Straight to the handler: notices are printed whatever the log's level.
		r := slog.NewRecord(time.Now(), level, msg, 0)
		_ = a.logger.Handler().Handle(context.Background(), r)
		return
	}
	if kind != "" {
		kind += ": "
	}
	fmt.Fprintf(a.stderr, "aegis-oci: %s%s\n", kind, msg)
}

// defaultTerminationLog is where Kubernetes reads the reason of a failure.
const defaultTerminationLog = "/dev/termination-log"

// report prints err and returns its exit code.
func (a *app) report(ctx context.Context, err error) int {
	o := classify(ctx, err)
	if a.logFormat == "json" && a.logger != nil {
		a.logger.Error(o.message, "code", o.code, "hint", o.hint)
	} else {
		fmt.Fprintf(a.stderr, "aegis-oci: error: %s\n", o.message)
		if o.hint != "" {
			fmt.Fprintf(a.stderr, "aegis-oci: hint: %s\n", o.hint)
		}
	}
	if a.format == "json" && !o.printed {
		_ = display.Error(a.stdout, o.code, o.message, o.retryable)
	}
	a.writeTermination(o)
	return o.exit
}

// writeTermination leaves the reason where an orchestrator shows it. It is best
// effort: the exit code has the last word.
func (a *app) writeTermination(o outcome) {
	path := a.terminationLog
	if path == "" {
		path = defaultTerminationLog
		// Only Kubernetes' own file, never a new one in a root user's /dev.
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			return
		}
	}
	line := o.code + ": " + oneLine(o.message) + "\n"
	if len(line) > maxTermination {
		line = line[:maxTermination-1] + "\n"
	}
	if err := os.WriteFile(path, []byte(line), 0o644); err != nil && a.terminationLog != "" {
		a.warn("write --termination-log: " + err.Error())
	}
}

// maxTermination is what Kubernetes keeps of one container's message.
const maxTermination = 4096

// usageError is a command line that cannot be carried out.
type usageError struct{ msg, hint string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error {
	return &usageError{msg: fmt.Sprintf(format, args...)}
}

// asUsage is for what cobra says before a command runs, such as of one that there
// is not: in one line, its suggestions too.
func asUsage(err error) error {
	var u *usageError
	if errors.As(err, &u) {
		return err
	}
	return &usageError{msg: strings.Join(strings.Fields(err.Error()), " "), hint: "aegis-oci --help"}
}

// exactArgs and minArgs are cobra's, with usage errors.
func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.ExactArgs(n)(cmd, args); err != nil {
			return &usageError{msg: err.Error(), hint: cmd.UseLine()}
		}
		return nil
	}
}

func minArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.MinimumNArgs(n)(cmd, args); err != nil {
			return &usageError{msg: err.Error(), hint: cmd.UseLine()}
		}
		return nil
	}
}

// flagSet is what a group of flags registers itself on.
type flagSet = pflag.FlagSet
