// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

var update = flag.Bool("update", false, "write what scripts compare with into the scripts")

// TestMain makes this binary the command aegis-oci for scripts.
func TestMain(m *testing.M) {
	servertest.TempOnDisk()
	// The race detector lets every process linger for a second at its end.
	if os.Getenv("GORACE") == "" {
		_ = os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	testscript.Main(m, map[string]func(){"aegis-oci": main})
}

// TestScripts runs testdata/script, each script against the real servers in a
// repository of its own. When all of them ran, the rows of docs/errors.md that
// name them must have been seen.
func TestScripts(t *testing.T) { runScripts(t, filepath.Join("testdata", "script"), nil) }

func runScripts(t *testing.T, dir string, more commands) {
	table := errorTable(t, dir)
	t.Cleanup(func() {
		// A filter leaves out scripts, and rows with them.
		if run := flag.Lookup("test.run").Value.String(); !strings.Contains(run, "/") {
			table.allSeen(t)
		}
	})
	testscript.Run(t, scripts(t, dir, table, more))
}

type commands = map[string]func(*testscript.TestScript, bool, []string)

func scripts(t *testing.T, dir string, table *errorRows, more commands) testscript.Params {
	world := newWorld(t)
	cmds := commands{
		"artifact":      cmdArtifact,
		"copysignature": cmdCopySignature,
		"fallbacktag":   cmdFallbackTag,
		"distribution":  cmdDistribution,
		"down":          cmdDown,
		"exited":        cmdExited,
		"exitcode":      cmdExitcode,
		"fails":         cmdFails,
		"fault":         cmdFault,
		"holds":         cmdHolds,
		"interrupt":     cmdInterrupt,
		"jsonfield":     cmdJSONField,
		"many":          cmdMany,
		"movereferrer":  cmdMoveReferrer,
		"neversaw":      cmdNeverSaw,
		"proxy":         cmdProxy,
		"pullthrough":   cmdPullThrough,
		"putmanifest":   cmdPutManifest,
		"requests":      cmdRequests,
		"reset":         cmdReset,
		"stack":         cmdStack,
		"stdout2env":    cmdStdout2env,
		"tamperblob":    cmdTamperBlob,
		"tamperlayout":  cmdTamperLayout,
		"tokenfile":     cmdTokenFile,
		"tokenregistry": cmdTokenRegistry,
		"truncate":      cmdTruncate,
		"signedago":     cmdSignedAgo,
		"stamped":       cmdStamped,
		"sleep":         cmdSleep,
		"vaultkey":      cmdVaultKey,
		"vaultseal":     cmdVaultSeal,
		"vaultread":     cmdVaultRead,
		"vaultwrite":    cmdVaultWrite,
		"vaulttoken":    cmdVaultToken,
		"waitfor":       cmdWaitFor,
		"writeonupload": cmdWriteOnUpload,
	}
	maps.Copy(cmds, more)
	return testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Setup:               func(env *testscript.Env) error { return setUp(env, world, table) },
		Cmds:                cmds,
	}
}

// world is what scripts share.
type world struct {
	vault *servertest.Server
	// signer and verifier are tokens that may do that one thing with the keys
	// release and other, which is what the documentation recommends.
	signer, verifier string
	keys             map[string][]byte // public keys by name
	// distribution is a registry without the referrers API, and its storage.
	distribution, distributionDir string
}

func newWorld(t *testing.T) *world {
	// Not the shared one: a second run must find the repositories empty.
	w := &world{vault: servertest.Stack(t), keys: map[string][]byte{}}
	w.distribution, w.distributionDir = servertest.Distribution(t)
	for _, name := range []string{"release", "other"} {
		w.vault.TransitKey(t, name, "ecdsa-p256")
		w.keys[name] = w.vault.PublicKeyPEM(t, name, 0)
	}
	w.signer = w.token(t, "script-sign", "transit/sign/release", "transit/sign/other")
	w.verifier = w.token(t, "script-verify", "transit/verify/release", "transit/verify/other")
	return w
}

func (w *world) token(t testing.TB, policy string, paths ...string) string {
	var hcl strings.Builder
	for _, p := range paths {
		fmt.Fprintf(&hcl, "path %q { capabilities = [\"update\"] }\n", p)
	}
	w.vault.Policy(t, policy, hcl.String())
	return w.vault.Token(t, map[string]any{"policies": []string{policy}, "no_default_policy": true, "ttl": "30m"})
}

// rig is one script's own part.
type rig struct {
	*world
	tb      testing.TB
	script  string
	table   *errorRows
	proxies map[string]*servertest.Proxy
	// dirs are the storage directories of distribution registries, by address.
	dirs map[string]string
	// tokens are the token endpoints of registries, by the name of their proxy.
	tokens map[string]*servertest.TokenService
	// secrets must not be in anything that a command prints.
	secrets []string
	// own are stacks of the script's own, by the variable that names them.
	own map[string]*servertest.Server
	// background is what interrupt has sent a signal to.
	background *running
}

type rigKey struct{}

func rigOf(ts *testscript.TestScript) *rig { return ts.Value(rigKey{}).(*rig) }

func setUp(env *testscript.Env, w *world, table *errorRows) error {
	tb := env.T().(testing.TB)
	_, script, _ := strings.Cut(tb.Name(), "/")
	script = script[strings.LastIndex(script, "/")+1:]
	r := &rig{world: w, tb: tb, script: script, table: table,
		proxies: map[string]*servertest.Proxy{}, dirs: map[string]string{}, own: map[string]*servertest.Server{}, tokens: map[string]*servertest.TokenService{},
		secrets: []string{w.signer, w.verifier, w.vault.RootToken}}
	env.Values[rigKey{}] = r

	home := filepath.Join(env.WorkDir, ".home")
	if err := os.Mkdir(home, 0o755); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"HOME":                  home,
		"REG":                   w.vault.Registry,
		"REPO":                  w.vault.Registry + "/" + script,
		"VAULT_ADDR":            w.vault.VaultAddr,
		"VAULT_TOKEN":           w.signer,
		"SIGN_TOKEN":            w.signer,
		"VERIFY_TOKEN":          w.verifier,
		"ROOT_TOKEN":            w.vault.RootToken,
		"KEY":                   "hashivault://release",
		"OTHER_KEY":             "hashivault://other",
		"AEGIS_TERMINATION_LOG": terminationLog(env.WorkDir),
	} {
		env.Setenv(name, value)
	}
	for name, pem := range w.keys {
		if err := os.WriteFile(filepath.Join(env.WorkDir, name+".pub"), pem, 0o644); err != nil {
			return err
		}
	}
	return writeModel(filepath.Join(env.WorkDir, "model"), script)
}

func terminationLog(work string) string { return filepath.Join(work, ".termination-log") }

// writeModel leaves a model of three files that differs from script to script.
func writeModel(dir, script string) error {
	var seed [32]byte
	copy(seed[:], script)
	weights := make([]byte, 100<<10)
	_, _ = rand.NewChaCha8(seed).Read(weights)
	for name, content := range map[string]string{
		"config.json":     `{"model_type": "test"}` + "\n",
		"README.md":       "# " + script + "\n",
		"weights/all.bin": string(weights),
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}
