// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
)

// counter passes requests on and counts them.
type counter struct {
	requests, signing atomic.Int64
	proxy             *httputil.ReverseProxy
}

func newCounter(target string) (*counter, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	c := &counter{}
	c.proxy = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host
	}}
	return c, nil
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.requests.Add(1)
	if strings.HasPrefix(r.URL.Path, "/v1/transit/sign/") {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		// An empty batch asks whether the token may sign, and signs nothing.
		if !bytes.Contains(body, []byte(`"batch_input":[]`)) {
			c.signing.Add(1)
		}
	}
	c.proxy.ServeHTTP(w, r)
}

// counted runs f with a counter in front of target. What is measured is not run
// through it.
func counted(target string, f func(address string) error) (requests, signing int64, err error) {
	c, err := newCounter(target)
	if err != nil {
		return 0, 0, err
	}
	server := httptest.NewServer(c)
	defer server.Close()
	err = f(server.Listener.Addr().String())
	return c.requests.Load(), c.signing.Load(), err
}

// sign measures signing one reference in three formats at once, and beside it the
// other programs, which sign in one each.
func (b *bench) sign(ctx context.Context) error {
	rounds := b.verifies
	dir := filepath.Join(b.dir, "signed")
	if err := makeModel(dir, 1<<20); err != nil {
		return err
	}
	if err := b.prepareNotation(ctx); err != nil {
		return err
	}
	// The certificate is read from the key, which the small token may not do.
	token := b.vault.token
	defer func() { b.vault.token = token }()
	b.vault.token = b.vault.root
	for _, on := range []struct{ kind, addr, forceTag string }{
		{"olareg, which has the referrers API", b.olareg, "false"},
		{"distribution, which has none", b.distribution, "true"},
	} {
		ref := on.addr + "/bench/sign:v1"
		push := func() error {
			// Another manifest each time, so that no list of signatures grows.
			b.pushes++
			_, err := b.output(ctx, "aegis-oci", "push", "-q", "-a", fmt.Sprintf("n=%d", b.pushes), ref, dir)
			return err
		}
		contenders := []contender{
			{name: "aegis-oci sign, 3 formats", program: "aegis-oci", before: push,
				args: []string{"sign", "-q", "--key", keyURI, "--signature-format", "sigstore,cosign-tag,notary", ref}},
			{name: "aegis-oci sign, sigstore", program: "aegis-oci", before: push, args: []string{"sign", "-q", "--key", keyURI, ref}},
			{name: "cosign sign", program: "tools/cosign", before: push,
				args: []string{"sign", "--key", keyURI, "--tlog-upload=false", "--use-signing-config=false", "--allow-http-registry", "-y", ref}},
			{name: "notation sign with notation-aegis", program: "tools/notation", before: push,
				args: []string{"sign", "--insecure-registry", "--force-referrers-tag=" + on.forceTag, "--plugin", "aegis", "--id", keyName, ref}},
		}
		rows, err := b.interleave(ctx, rounds, contenders)
		if err != nil {
			return err
		}
		table(fmt.Sprintf("Sign a reference on %s (%d runs each)", on.kind, rounds), rows, "cosign sign")
		if err := b.countVault(ctx, contenders); err != nil {
			return err
		}
	}
	return nil
}

// countVault runs each once more with a counter in front of Vault.
func (b *bench) countVault(ctx context.Context, contenders []contender) error {
	fmt.Printf("\n| | requests to Vault | of them with something to sign |\n|---|---|---|\n")
	direct := b.vault.addr
	defer func() { b.vault.addr = direct }()
	for _, c := range contenders {
		if err := c.before(); err != nil {
			return err
		}
		requests, signing, err := counted(direct, func(address string) error {
			b.vault.addr = "http://" + address
			_, err := b.measure(ctx, "", c.program, c.args...)
			return err
		})
		if err != nil {
			return err
		}
		fmt.Printf("| %s | %d | %d |\n", c.name, requests, signing)
	}
	return nil
}

// prepareNotation certifies the key and installs the plugin.
func (b *bench) prepareNotation(ctx context.Context) error {
	token := b.vault.token
	defer func() { b.vault.token = token }()
	b.vault.token = b.vault.root
	cert := filepath.Join(b.dir, "bench.crt")
	if _, err := b.output(ctx, "aegis-oci", "key", "certificate", "--self-signed", "--subject", "C=US, ST=WA, O=Acme, CN=bench",
		"--days", "2", "--install", "-o", cert, keyURI); err != nil {
		return err
	}
	dir := filepath.Join(b.home, ".config", "notation", "plugins", "aegis")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	from, err := os.Open(filepath.Join(b.bin, "notation-aegis"))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(dir, "notation-aegis"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

// candidates measures verifying a reference that has many signatures, of which
// one, the newest, is of the key. The others are good ones of another key.
func (b *bench) candidates(ctx context.Context) error {
	rounds := b.verifies
	dir := filepath.Join(b.dir, "candidates")
	if err := makeModel(dir, 1<<20); err != nil {
		return err
	}
	if _, err := b.asRoot(ctx, "transit/keys/stranger", map[string]any{"type": "ecdsa-p256"}); err != nil {
		return err
	}
	fmt.Printf("\nVerify a reference that has many signatures, on olareg (%d runs each)\n\n"+
		"| signatures | median | peak memory | requests to the registry | time beside 1 |\n|---|---|---|---|---|\n", rounds)
	var base float64
	for _, count := range []int{1, 10, 1000} {
		ref := fmt.Sprintf("%s/bench/candidates:%d", b.olareg, count)
		if err := b.signTimes(ctx, ref, dir, count); err != nil {
			return err
		}
		args := []string{"verify", "-q", "--key", b.vault.publicKey, ref}
		rows, err := b.interleave(ctx, rounds, []contender{{name: "verify", program: "aegis-oci", args: args}})
		if err != nil {
			return err
		}
		requests, _, err := counted("http://"+b.olareg, func(address string) error {
			_, err := b.output(ctx, "aegis-oci", append(args[:4:4], strings.Replace(ref, b.olareg, address, 1))...)
			return err
		})
		if err != nil {
			return err
		}
		var peak int64
		for _, s := range rows[0].samples {
			peak = max(peak, s.peak)
		}
		middle := median(rows[0].samples)
		if base == 0 {
			base = middle.Seconds()
		}
		fmt.Printf("| %d | %s | %s | %d | %.2f |\n", count, seconds(middle), mib(peak), requests, middle.Seconds()/base)
	}
	return nil
}

// signTimes pushes a model and signs it count-1 times with another key, then with
// the key.
func (b *bench) signTimes(ctx context.Context, ref, dir string, count int) error {
	token := b.vault.token
	defer func() { b.vault.token = token }()
	b.vault.token = b.vault.root
	if _, err := b.output(ctx, "aegis-oci", "push", "-q", "-a", fmt.Sprintf("count=%d", count), ref, dir); err != nil {
		return err
	}
	for i := range count {
		key := "hashivault://stranger"
		if i == count-1 {
			key = keyURI
		}
		if _, err := b.output(ctx, "aegis-oci", "sign", "-q", "--key", key, ref); err != nil {
			return err
		}
	}
	out, err := b.output(ctx, "tools/oras", "discover", "--plain-http", "--format", "json", ref)
	if err != nil {
		return err
	}
	var listed struct{ Referrers []json.RawMessage }
	if err := json.Unmarshal([]byte(out), &listed); err != nil {
		return err
	}
	if len(listed.Referrers) != count {
		return fmt.Errorf("%d signatures are listed, not %d", len(listed.Referrers), count)
	}
	return nil
}
