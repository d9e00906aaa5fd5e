// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// cmdStack is "stack NAME FLAG...": a server of the script's own. NAME is set to
// its registry, NAME_VAULT to Vault's address, NAME_ROOT to the root token,
// NAME_CA to its CA file and NAME_PORT to the registry's port.
func cmdStack(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: stack NAME FLAG...")
	}
	r := rigOf(ts)
	s := servertest.Stack(r.tb, args[1:]...)
	r.own[args[0]] = s
	if s.RootToken != "" {
		r.secrets = append(r.secrets, s.RootToken)
	}
	ts.Setenv(args[0], s.Registry)
	ts.Setenv(args[0]+"_VAULT", s.VaultAddr)
	ts.Setenv(args[0]+"_ROOT", s.RootToken)
	ts.Setenv(args[0]+"_CA", s.CAFile)
	_, port, _ := strings.Cut(s.Registry, ":")
	ts.Setenv(args[0]+"_PORT", port)
}

// stack is the server of the script's own that name says, or the shared one.
func (r *rig) stack(ts *testscript.TestScript, name string) *servertest.Server {
	if name == "" {
		return r.vault
	}
	s := r.own[name]
	if s == nil {
		ts.Fatalf("there is no stack %s", name)
	}
	return s
}

// cmdVaultSeal is "vaultseal STACK".
func cmdVaultSeal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: vaultseal STACK")
	}
	r := rigOf(ts)
	r.stack(ts, args[0]).Seal(r.tb)
}

// cmdDistribution is "distribution NAME [USER PASSWORD]": NAME is set to a
// registry without the referrers API, shared unless it asks for a password.
func cmdDistribution(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 && len(args) != 3 {
		ts.Fatalf("usage: distribution NAME [USER PASSWORD]")
	}
	r := rigOf(ts)
	if len(args) == 3 {
		r.secrets = append(r.secrets, args[2])
		addr, dir := servertest.Distribution(r.tb, servertest.Htpasswd(r.tb, args[1], args[2]))
		ts.Setenv(args[0], addr)
		r.dirs[addr] = dir
		return
	}
	ts.Setenv(args[0], r.distribution)
	r.dirs[r.distribution] = r.distributionDir
}

// cmdPullThrough is "pullthrough NAME REGISTRY": NAME is set to distribution's
// pull-through cache of a registry.
func cmdPullThrough(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: pullthrough NAME REGISTRY")
	}
	addr, dir := servertest.Distribution(rigOf(ts).tb, "proxy:\n  remoteurl: http://"+args[1]+"\n")
	ts.Setenv(args[0], addr)
	rigOf(ts).dirs[addr] = dir
}

// cmdVaultKey is "vaultkey NAME TYPE [STACK]": a Transit key and its public key
// as NAME.pub, where it has one. Names are shared by all scripts.
func cmdVaultKey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: vaultkey NAME TYPE [STACK]")
	}
	r := rigOf(ts)
	s := r.stack(ts, strings.Join(args[2:], ""))
	s.TransitKey(r.tb, args[0], args[1])
	if !strings.HasPrefix(args[1], "aes") {
		ts.Check(os.WriteFile(ts.MkAbs(args[0]+".pub"), s.PublicKeyPEM(r.tb, args[0], 0), 0o644))
	}
}

// cmdVaultToken is "vaulttoken NAME [ttl=DURATION] [stack=STACK] [PATH=CAPABILITY...]":
// NAME is set to a token that may do just that.
func cmdVaultToken(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: vaulttoken NAME [ttl=DURATION] [stack=STACK] [PATH=CAPABILITY...]")
	}
	r := rigOf(ts)
	s, ttl := r.vault, "30m"
	var hcl strings.Builder
	for _, a := range args[1:] {
		k, v, ok := strings.Cut(a, "=")
		switch {
		case !ok:
			ts.Fatalf("%s is not of the form name=value", a)
		case k == "ttl":
			ttl = v
		case k == "stack":
			s = r.stack(ts, v)
		default:
			hcl.WriteString("path " + strconv.Quote(k) + " { capabilities = [" + strconv.Quote(v) + "] }\n")
		}
	}
	policy := "script-" + r.script + "-" + strings.ToLower(args[0])
	s.Policy(r.tb, policy, hcl.String())
	token := s.Token(r.tb, map[string]any{"policies": []string{policy}, "no_default_policy": true, "ttl": ttl})
	r.secrets = append(r.secrets, token)
	ts.Setenv(args[0], token)
}

// cmdProxy is "proxy NAME TARGET": NAME is set to the address of a proxy without
// faults in front of TARGET, a host:port or URL.
func cmdProxy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: proxy NAME TARGET")
	}
	r := rigOf(ts)
	p := servertest.FaultProxy(r.tb, args[1])
	r.proxies[args[0]] = p
	ts.Setenv(args[0], p.Addr)
}

func proxyOf(ts *testscript.TestScript, name string) *servertest.Proxy {
	p := rigOf(ts).proxies[name]
	if p == nil {
		ts.Fatalf("there is no proxy %s", name)
	}
	return p
}

// cmdDown is "down PROXY": nobody listens there any more.
func cmdDown(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: down PROXY")
	}
	proxyOf(ts, args[0]).Down()
}

// cmdReset is "reset PROXY": no faults, no requests seen.
func cmdReset(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: reset PROXY")
	}
	proxyOf(ts, args[0]).Reset()
}

// cmdRequests is "requests PROXY METHOD PATH N": so many were seen, where METHOD
// may be "*" and N may end in "+".
func cmdRequests(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: requests PROXY METHOD PATH N[+]")
	}
	number, least := strings.CutSuffix(args[3], "+")
	want, err := strconv.Atoi(number)
	ts.Check(err)
	if n := count(proxyOf(ts, args[0]), args[1], args[2]); n < want || n > want && !least {
		for _, req := range proxyOf(ts, args[0]).Requests() {
			ts.Logf("%s %s", req.Method, req.Path)
		}
		ts.Fatalf("%d requests of %s %s, want %s", n, args[1], args[2], args[3])
	}
}

func count(p *servertest.Proxy, method, path string) int {
	n := 0
	for _, req := range p.Requests() {
		if (method == "*" || method == req.Method) && strings.Contains(req.Path, path) {
			n++
		}
	}
	return n
}

// cmdWaitFor is "waitfor PROXY METHOD PATH": until such a request has come.
func cmdWaitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: waitfor PROXY METHOD PATH")
	}
	p := proxyOf(ts, args[0])
	for end := time.Now().Add(30 * time.Second); count(p, args[1], args[2]) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("no such request came")
		}
	}
}

// cmdWriteOnUpload is "writeonupload PROXY FILE": as soon as an upload begins,
// FILE gets another content of the same size.
func cmdWriteOnUpload(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: writeonupload PROXY FILE")
	}
	path, tb := ts.MkAbs(args[1]), rigOf(ts).tb
	proxyOf(ts, args[0]).Intercept(func(_ http.ResponseWriter, req *http.Request) bool {
		if req.Method == http.MethodPost {
			content, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, flip(content), 0o644)
			}
			if err != nil {
				tb.Error(err)
			}
		}
		return false
	})
}

// cmdFault is "fault PROXY NAME=VALUE...", with the names of servertest.Fault:
// method, path, skip, times, delay, status, body, header (Name:Value, or
// Name: to remove it), cut (bytes of the body after which the connection breaks),
// stall (bytes after which it stays silent), norange, and flip, short (bytes) or file for
// another body.
func cmdFault(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fault PROXY NAME=VALUE...")
	}
	f := servertest.Fault{Header: http.Header{}}
	for _, a := range args[1:] {
		k, v, _ := strings.Cut(a, "=")
		ts.Check(setFault(ts, &f, k, v))
	}
	proxyOf(ts, args[0]).Fail(f)
}

func setFault(ts *testscript.TestScript, f *servertest.Fault, name, value string) (err error) {
	switch name {
	case "method":
		f.Method = value
	case "path":
		f.Path = value
	case "skip":
		f.Skip, err = strconv.Atoi(value)
	case "times":
		f.Times, err = strconv.Atoi(value)
	case "delay":
		f.Delay, err = time.ParseDuration(value)
	case "status":
		f.Status, err = strconv.Atoi(value)
	case "body":
		f.Body = value
	case "header":
		k, v, _ := strings.Cut(value, ":")
		if f.Header.Set(k, v); v == "" {
			f.Header[http.CanonicalHeaderKey(k)] = nil
		}
	case "norange":
		f.NoRange = true
	case "cut":
		f.Cut = true
		f.CutAfter, err = strconv.ParseInt(value, 10, 64)
	case "stall":
		f.Stall = true
		f.CutAfter, err = strconv.ParseInt(value, 10, 64)
	case "flip":
		f.Replace = flip
	case "short":
		var n int
		n, err = strconv.Atoi(value)
		f.Replace = func(body []byte) []byte { return body[:max(0, len(body)-n)] }
	case "file":
		content := []byte(ts.ReadFile(value))
		f.Replace = func([]byte) []byte { return content }
	default:
		ts.Fatalf("a fault has no %s", name)
	}
	return err
}

// cmdTamperBlob is "tamperblob REGISTRY DIGEST [short]": changes one byte of what
// a distribution registry has stored, or takes the last one away.
func cmdTamperBlob(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: tamperblob REGISTRY DIGEST [short]")
	}
	dir := rigOf(ts).dirs[args[0]]
	_, hex, ok := strings.Cut(args[1], ":")
	if dir == "" || !ok {
		ts.Fatalf("%s is no registry of this script, or %s no digest", args[0], args[1])
	}
	path := filepath.Join(dir, "docker", "registry", "v2", "blobs", "sha256", hex[:2], hex, "data")
	content, err := os.ReadFile(path)
	ts.Check(err)
	if len(args) == 3 {
		content = content[:len(content)-1]
	} else {
		content = flip(content)
	}
	ts.Check(os.WriteFile(path, content, 0o644))
}

// cmdTamperLayout is "tamperlayout DIR FILE": changes a bit of the blob that holds
// FILE in an image layout, not its size.
func cmdTamperLayout(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: tamperlayout DIR FILE")
	}
	content, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	path := filepath.Join(ts.MkAbs(args[0]), "blobs", "sha256", digest.FromBytes(content).Encoded())
	_, err = os.Stat(path)
	ts.Check(err)
	ts.Check(os.WriteFile(path, flip(content), 0o644))
}

// cmdVaultWrite is "vaultwrite PATH JSON [wrap=DURATION] [NAME=FIELD...]": writes
// as root and sets NAME to a field, such as data.role_id, of the answer. What is
// called secret or token is looked for in what commands print.
func cmdVaultWrite(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: vaultwrite PATH JSON [wrap=DURATION] [NAME=FIELD...]")
	}
	r, header, fields := rigOf(ts), http.Header{}, args[2:]
	if len(fields) > 0 && strings.HasPrefix(fields[0], "wrap=") {
		header.Set("X-Vault-Wrap-TTL", strings.TrimPrefix(fields[0], "wrap="))
		fields = fields[1:]
	}
	status, answer := r.vault.DoWith(r.tb, http.MethodPut, args[0], r.vault.RootToken, json.RawMessage(args[1]), header)
	if status >= 300 {
		ts.Fatalf("status %d: %v", status, answer["errors"])
	}
	setFields(ts, answer, fields)
}

// cmdVaultRead is "vaultread PATH NAME=FIELD...".
func cmdVaultRead(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: vaultread PATH NAME=FIELD...")
	}
	r := rigOf(ts)
	setFields(ts, r.vault.Read(r.tb, args[0]), args[1:])
}

func setFields(ts *testscript.TestScript, answer map[string]any, fields []string) {
	r := rigOf(ts)
	for _, f := range fields {
		name, path, _ := strings.Cut(f, "=")
		var v any = answer
		for part := range strings.SplitSeq(path, ".") {
			object, _ := v.(map[string]any)
			v = object[part]
		}
		value, ok := v.(string)
		if !ok {
			ts.Fatalf("the answer has no %s", path)
		}
		if strings.Contains(path, "secret") || strings.Contains(path, "token") {
			r.secrets = append(r.secrets, value)
		}
		ts.Setenv(name, value)
	}
}
