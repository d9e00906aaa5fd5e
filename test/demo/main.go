// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Command demo runs the main job of aegis-oci for a reader: it starts a real
// OpenBao and a real OCI registry (aegis-stack), signs a real model, pulls it and
// shows three refusals. It ends with 0 only if every step did what it says.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/term"
)

const (
	signKey  = "aegis-model-sign"
	otherKey = "somebody-else"
)

type demo struct {
	ctx   context.Context
	cli   string
	model string
	work  string
	stack *stack

	ciToken, runtimeToken, otherToken string
	publicKey                         string
}

func main() {
	cli := flag.String("cli", "bin/aegis-oci", "the aegis-oci program")
	stackBin := flag.String("stack", "bin/aegis-stack", "the aegis-stack program")
	model := flag.String("model", "examples/models/silero-vad", "directory of the model")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *cli, *stackBin, *model); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo: FAILED:", err)
		os.Exit(1)
	}
	fmt.Println("\ndemo: every step did what it said.")
}

func run(ctx context.Context, cli, stackBin, model string) error {
	cli, err := filepath.Abs(cli)
	if err != nil {
		return err
	}
	if info, err := os.Stat(model); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is not a directory with a model", model)
	}
	work, err := os.MkdirTemp("", "aegis-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	s, err := startStack(ctx, stackBin, work)
	if err != nil {
		return err
	}
	defer s.stop()
	d := &demo{ctx: ctx, cli: cli, model: model, work: work, stack: s}
	for _, step := range []func() error{
		d.prepareVault, d.pushAndSign, d.show, d.pull, d.verifyDir, d.audit,
		d.refuseUnsigned, d.refuseOtherKey, d.refuseTampered,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func title(format string, args ...any) {
	// Bold on a terminal, plain in a log (https://no-color.org).
	if term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == "" {
		format = "\x1b[1m" + format + "\x1b[0m"
	}
	fmt.Printf("\n== "+format+"\n", args...)
}

// prepareVault makes what an operator would: keys, a policy for CI that may only
// sign, one for the pods that may only verify, and short-lived tokens.
func (d *demo) prepareVault() error {
	title("A Vault with a signing key and two tokens that live ten minutes")
	for _, key := range []string{signKey, otherKey} {
		if err := d.stack.write("transit/keys/"+key, map[string]any{"type": "ecdsa-p256"}, nil); err != nil {
			return err
		}
	}
	for _, t := range []struct {
		token *string
		name  string
		path  string
	}{
		{&d.ciToken, "CI may sign", "transit/sign/" + signKey},
		{&d.runtimeToken, "the pod may verify", "transit/verify/" + signKey},
		{&d.otherToken, "somebody else may sign", "transit/sign/" + otherKey},
	} {
		var err error
		if *t.token, err = d.stack.token(t.path); err != nil {
			return err
		}
		fmt.Printf("   %-24s update on %s and nothing else\n", t.name, t.path)
	}
	pem, err := d.stack.publicKey(signKey)
	if err != nil {
		return err
	}
	d.publicKey = filepath.Join(d.work, "release.pub")
	fmt.Println("   release.pub              the public key, for who may not ask Vault")
	return os.WriteFile(d.publicKey, pem, 0o644)
}

func (d *demo) ref(tag string) string { return d.stack.Registry + "/models/demo:" + tag }

func (d *demo) pushAndSign() error {
	title("CI: push the model, sign its digest, move the tag last")
	return d.expect(0, d.ciToken, "", "push", "--sign", "--key", "hashivault://"+signKey, "--public-key", d.publicKey, d.ref("v1"), d.model)
}

func (d *demo) show() error {
	title("What is in the registry")
	return d.expect(0, d.runtimeToken, "", "inspect", "--key", "hashivault://"+signKey, d.ref("v1"))
}

func (d *demo) pull() error {
	title("The pod: resolve once, verify, and only then extract")
	out := filepath.Join(d.work, "model")
	if err := d.expect(0, d.runtimeToken, "", "pull", "--verify", "--key", "hashivault://"+signKey, "-o", out, d.ref("v1")); err != nil {
		return err
	}
	n, err := sameFiles(d.model, out)
	if err != nil {
		return err
	}
	fmt.Printf("   compared with the original: %d files, equal to the byte\n", n)
	return nil
}

func (d *demo) verifyDir() error {
	title("A loader, later, without registry and Vault: is this still the signed model?")
	return d.expect(0, "", "", "verify", "--dir", filepath.Join(d.work, "model"), "--key", d.publicKey)
}

// audit shows what Vault recorded of the two tokens.
func (d *demo) audit() error {
	title("Vault's audit log")
	lines, err := d.stack.auditLines()
	if err != nil {
		return err
	}
	var signs, verifies int
	for _, l := range lines {
		fmt.Println("   " + l)
		if strings.Contains(l, "transit/sign/"+signKey) {
			signs++
		}
		if strings.Contains(l, "transit/verify/"+signKey) {
			verifies++
		}
	}
	if signs == 0 || verifies == 0 {
		return fmt.Errorf("the audit log shows %d sign and %d verify requests", signs, verifies)
	}
	return nil
}

func (d *demo) refuseUnsigned() error {
	title("Refusal 1: a model that nobody signed")
	if err := d.expect(0, "", "", "push", "-a", "note=unsigned", d.ref("unsigned"), d.model); err != nil {
		return err
	}
	return d.refuse("no signature attached", d.ref("unsigned"))
}

func (d *demo) refuseOtherKey() error {
	title("Refusal 2: signed, by somebody else's key")
	if err := d.expect(0, d.otherToken, "", "push", "--sign", "--key", "hashivault://"+otherKey, "-a", "note=other", d.ref("other"), d.model); err != nil {
		return err
	}
	return d.refuse("the key does not accept the signature", d.ref("other"))
}

// refuseTampered changes one byte of a signed model in the registry's storage.
// The file's size stays the same.
func (d *demo) refuseTampered() error {
	title("Refusal 3: signed, and one byte of a file changed in the registry's storage")
	file, err := d.largestLayer()
	if err != nil {
		return err
	}
	if err := flipByte(file); err != nil {
		return err
	}
	fmt.Printf("   flipped one bit of blob %s\n", filepath.Base(file)[:12])
	return d.refuse("the content is", d.ref("v1"))
}

// refuse pulls ref and expects exit code 3, the reason, and that nothing is left.
func (d *demo) refuse(reason, ref string) error {
	out := filepath.Join(d.work, "refused")
	if err := d.expect(3, d.runtimeToken, reason, "pull", "--verify", "--key", "hashivault://"+signKey, "-o", out, ref); err != nil {
		return err
	}
	if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the refused pull left %s behind", out)
	}
	fmt.Println("   exit code 3, and nothing was left on disk")
	return nil
}

// expect runs aegis-oci, prints the command and what it says, and checks the exit
// code and, when reason is not empty, the text on stderr.
func (d *demo) expect(code int, token, reason string, args ...string) error {
	shown := strings.Join(append([]string{"aegis-oci"}, args...), " ")
	fmt.Println("$ " + strings.ReplaceAll(shown, d.work+"/", "/tmp/"))
	cmd := exec.CommandContext(d.ctx, d.cli, args...)
	cmd.Env = []string{"VAULT_ADDR=" + d.stack.VaultAddr, "VAULT_TOKEN=" + token, "PATH=" + os.Getenv("PATH")}
	var errOut bytes.Buffer
	out, err := func() ([]byte, error) { cmd.Stderr = &errOut; return cmd.Output() }()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	for l := range strings.Lines(strings.ReplaceAll(string(out)+errOut.String(), d.work+"/", "/tmp/")) {
		fmt.Print("   " + l)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		return fmt.Errorf("%s: exit code %d, expected %d", shown, got, code)
	}
	if !strings.Contains(errOut.String(), reason) {
		return fmt.Errorf("%s: the reason %q is not given", shown, reason)
	}
	return nil
}

// sameFiles reports how many files two directories share, or how they differ. The
// receipt that pull writes does not count, nor what push leaves out by default:
// every pulled file must equal its original.
func sameFiles(want, got string) (int, error) {
	n := 0
	err := filepath.WalkDir(got, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if e.Name() == ".aegis" {
				return fs.SkipDir
			}
			return nil
		}
		rel, err := filepath.Rel(got, path)
		if err != nil {
			return err
		}
		a, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(filepath.Join(want, rel))
		if err != nil {
			return err
		}
		if !bytes.Equal(a, b) {
			return fmt.Errorf("%s differs from the original", rel)
		}
		n++
		return nil
	})
	if err == nil && n == 0 {
		err = errors.New("nothing was pulled")
	}
	return n, err
}

// largestLayer is the largest blob in the registry's storage.
func (d *demo) largestLayer() (string, error) {
	var files []string
	size := make(map[string]int64)
	err := filepath.WalkDir(d.stack.registryDir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil && len(e.Name()) == 64 {
			files = append(files, path)
			size[path] = info.Size()
		}
		return err
	})
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", errors.New("the registry holds no blob")
	}
	return slices.MaxFunc(files, func(a, b string) int { return int(size[a]/1024 - size[b]/1024) }), nil
}

func flipByte(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	at := info.Size() / 2
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = f.WriteAt(b, at)
	return err
}
