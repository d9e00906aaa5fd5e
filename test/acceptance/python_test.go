// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package acceptance

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func python(t *testing.T) string {
	t.Helper()
	return debian(t, "python3", "python3")
}

const loaderAPI = "../../examples/loader/api"

// copyAPI copies the modules, so that no __pycache__ is left in the tree.
func copyAPI(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(loaderAPI)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// runPython runs a program in dir with the built aegis-oci, and env.
func runPython(t *testing.T, dir string, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(python(t), args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + filepath.Dir(builtProgram(t)) + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "PYENV_VERSION=" + os.Getenv("PYENV_VERSION")}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), log.String()
}

// driver calls the two functions and prints what came of each as a line of JSON.
const driver = `
import inspect, json, sys
import model_signing as m

def outcome(call):
    try:
        r = call()
        print(json.dumps({"ok": type(r).__name__, "digest": r.digest, "signatures": len(r.signatures), "claims": r.signatures[0].get("claims")}))
    except m.ModelSigningError as e:
        print(json.dumps({"error": type(e).__name__, "code": e.code, "message": e.message, "exit": e.exit_code, "retryable": e.retryable}))

functions = sorted(n for n, v in vars(m).items() if inspect.isfunction(v) and v.__module__ == m.__name__ and not n.startswith("_"))
print(json.dumps({"functions": functions}))
key, ref, public, other, plain, unsigned = sys.argv[1:]
outcome(lambda: m.verify_model_artifact(ref, key=public))
outcome(lambda: m.sign_model_artifact(ref, key, annotations={"stage": "prod"}, expiry="1h"))
outcome(lambda: m.verify_model_artifact(ref, key=key, annotations={"stage": "prod"}))
outcome(lambda: m.verify_model_artifact(ref, key=public, annotations={"stage": "test"}))
outcome(lambda: m.verify_model_artifact(ref, key=other))
outcome(lambda: m.verify_model_artifact(unsigned, key=public))
outcome(lambda: m.verify_model_artifact(directory=plain, key=public))
outcome(lambda: m.verify_model_artifact(ref))
outcome(lambda: m.verify_model_artifact("--help", key=public))
outcome(lambda: m.verify_model_artifact(ref, key=public, program="/nowhere/aegis-oci"))
outcome(lambda: m.sign_model_artifact(ref, key, env={"VAULT_ADDR": "http://127.0.0.1:1", "AEGIS_RETRY_TIMEOUT": "1ms", "VAULT_TOKEN": "hvs.none"}))
outcome(lambda: m.verify_model_artifact(ref, key=public, program="/bin/true"))
outcome(lambda: m.verify_model_artifact(ref, key=public, timeout=0.0001))
`

func TestPythonSignsVerifiesAndRaises(t *testing.T) {
	t.Parallel()
	v := newCIVault(t)
	env := v.job(t, "somebody")
	repo, dir := v.host+"/models/python", copyAPI(t)
	if code, _, log := runPython(t, dir, nil, "-W", "error", "-m", "py_compile", "model_signing.py", "load_model.py"); code != 0 {
		t.Fatalf("does not compile: %s", log)
	}
	aegis(t, nil, 0, "push", "-q", repo+":v1", writeModel(t))
	aegis(t, nil, 0, "push", "-q", "-a", "tag=unsigned", repo+":unsigned", writeModel(t))
	public, other := filepath.Join(dir, "key.pem"), filepath.Join(dir, "other.pem")
	v.TransitKey(t, "other", "ecdsa-p256")
	for file, key := range map[string]string{public: "aegis-model-sign", other: "other"} {
		if err := os.WriteFile(file, v.PublicKeyPEM(t, key, 1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, out, log := runPython(t, dir, env, "-c", driver, "hashivault://aegis-model-sign", repo+":v1", public, other, writeModel(t), repo+":unsigned")
	if code != 0 {
		t.Fatalf("%s", log)
	}
	if strings.Contains(out+log, env["VAULT_TOKEN"]) {
		t.Error("the token is printed")
	}
	want := []string{
		`"functions":["sign_model_artifact","verify_model_artifact"]`,
		`"error":"ModelRejectedError" "code":"unsigned" "exit":3 "retryable":false`,
		`"ok":"SignedModel" "signatures":1`,
		`"ok":"VerifiedModel" "signatures":1 "stage":"prod"`,
		`"error":"ModelRejectedError" "code":"annotation_differs" "exit":3`,
		`"error":"ModelRejectedError" "code":"rejected" "exit":3`,
		`"error":"ModelRejectedError" "code":"unsigned" "exit":3`,
		`"error":"ModelRejectedError" "code":"not_installed" "exit":3`,
		`"error":"ModelSigningError" "code":"usage" "exit":2`,
		`"error":"ModelSigningError" "code":"reference_invalid" "exit":2`,
		`"error":"ModelSigningError" "code":"not_installed" "exit":1`,
		`"error":"ModelSigningError" "code":"vault_unreachable" "exit":4 "retryable":true`,
		`"error":"ModelSigningError" "code":"malformed"`,
		`"error":"ModelSigningError" "code":"timeout" "exit":4 "retryable":true`,
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want), out)
	}
	for i, line := range lines {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			t.Fatal(err)
		}
		tight, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		for part := range strings.SplitSeq(want[i], " ") {
			if !strings.Contains(string(tight), part) {
				t.Errorf("call %d: %s is not in %s", i, part, tight)
			}
		}
	}
}

// TestPythonLoaderLoadsNothingUnsigned runs the loader on a signed model, on one
// that was changed after the pull, and on one that was never signed.
func TestPythonLoaderLoadsNothingUnsigned(t *testing.T) {
	t.Parallel()
	v := newCIVault(t)
	env := v.job(t, "somebody")
	repo, dir := v.host+"/models/loader", copyAPI(t)
	const key = "hashivault://aegis-model-sign"
	aegis(t, env, 0, "push", "-q", "--sign", "--key", key, repo+":v1", writeModel(t))
	model := filepath.Join(t.TempDir(), "model")
	aegis(t, env, 0, "pull", "-q", "--key", key, "-o", model, repo+":v1")
	args := []string{"load_model.py", "--key", key, "--ref", repo + ":v1", model}
	if code, out, log := runPython(t, dir, env, args...); code != 0 || out != "loaded config.json (22 bytes)\n" {
		t.Fatalf("exit code %d: %s%s", code, out, log)
	}
	if err := os.WriteFile(filepath.Join(model, "config.json"), []byte(`{"model_type": "evil"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, log := runPython(t, dir, env, args...); code != 3 || out != "" || !strings.Contains(log, "refused: directory_differs") {
		t.Errorf("a changed model: exit code %d: %s%s", code, out, log)
	}

	aegis(t, nil, 0, "push", "-q", "-a", "tag=unsigned", repo+":unsigned", writeModel(t))
	unsigned := filepath.Join(t.TempDir(), "unsigned")
	aegis(t, nil, 0, "pull", "-q", "--verify=false", "-o", unsigned, repo+":unsigned")
	args[len(args)-1] = unsigned
	if code, out, log := runPython(t, dir, env, args...); code != 3 || out != "" || !strings.Contains(log, "refused: not_installed") {
		t.Errorf("an unsigned model: exit code %d: %s%s", code, out, log)
	}
	// No judgement loads nothing either.
	args[len(args)-1] = model
	if code, out, log := runPython(t, dir, map[string]string{"VAULT_ADDR": v.VaultAddr, "VAULT_TOKEN": "hvs.none"}, args...); code != 4 || out != "" || !strings.Contains(log, "not loaded: vault_") {
		t.Errorf("no valid token: exit code %d: %s%s", code, out, log)
	}
}
