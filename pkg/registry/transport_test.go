// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

func TestTLSWithAPrivateAuthority(t *testing.T) {
	s := servertest.Stack(t, "-tls", "-no-vault")
	trusting := registry.Options{CAFile: s.CAFile}
	pushImage(t, newRepo(t, s.Registry+"/m", trusting), "v1", "layer")
	for name, c := range map[string]struct {
		o    registry.Options
		kind registry.Kind
	}{
		"the authority is known":     {trusting, 0},
		"verification is turned off": {registry.Options{InsecureSkipTLS: true}, 0},
		"unknown authority":          {registry.Options{CAFile: otherAuthority(t)}, registry.TLS},
		"asked in plain HTTP":        {registry.Options{PlainHTTP: true}, registry.PlainHTTP},
		"loopback without an option": {registry.Options{}, registry.PlainHTTP},
	} {
		t.Run(name, func(t *testing.T) {
			w := new(waits)
			c.o.Sleep = w.sleep
			_, err := newRepo(t, s.Registry+"/m:v1", c.o).Resolve(t.Context())
			if c.kind == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if wantKind(t, err, c.kind); len(w.all) > 0 {
				t.Errorf("waited %v for what will not pass", w.all)
			}
		})
	}
	plain := servertest.SharedStack(t).Registry
	_, err := newRepo(t, plain+"/m:v1", trusting).Resolve(t.Context())
	wantKind(t, err, registry.PlainHTTP)
}

// otherAuthority is a certificate that signed nothing here.
func otherAuthority(t *testing.T) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	srv.StartTLS()
	defer srv.Close()
	return writeFile(t, "other.pem", string(pemOf(srv.Certificate())), 0o600)
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func TestClientCertificates(t *testing.T) {
	s := servertest.Stack(t, "-tls", "-no-vault")
	ca, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	srv := httptest.NewUnstartedServer(ociserver.New(ocimem.New(), nil))
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "https://")
	o := registry.Options{CAFile: writeFile(t, "ca.pem", string(pemOf(srv.Certificate())), 0o600), Retry: registry.RetryPolicy{Budget: time.Second}}
	_, err = newRepo(t, host+"/m:v1", o).Resolve(t.Context())
	wantKind(t, err, registry.TLS)
	o.CertFile, o.KeyFile = s.ClientCert, s.ClientKey
	pushImage(t, newRepo(t, host+"/m", o), "v1", "layer")

	garbage := writeFile(t, "x.pem", "x", 0o600)
	for name, o := range map[string]registry.Options{
		"no key":         {CertFile: s.ClientCert},
		"no certificate": {KeyFile: s.ClientKey},
		"garbage":        {CertFile: garbage, KeyFile: garbage},
		"no such CA":     {CAFile: garbage + ".none"},
		"CA is garbage":  {CAFile: garbage},
	} {
		var ce *registry.ConfigError
		if _, err := registry.NewClient(o); !errors.As(err, &ce) {
			t.Errorf("%s: %v, want a *ConfigError", name, err)
		}
	}
}

// connectProxy tunnels every CONNECT to one address and counts them.
func connectProxy(t *testing.T, to string, tunnels *atomic.Int32) *url.URL {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodConnect {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		tunnels.Add(1)
		up, err := net.Dial("tcp", to)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer up.Close()
		down, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer down.Close()
		_, _ = io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(up, down); up.Close() }()
		_, _ = io.Copy(down, up)
	}))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// The registry's name cannot be resolved here: only the proxy reaches it.
func TestProxyIsUsedForTheRegistry(t *testing.T) {
	s := servertest.Stack(t, "-tls", "-no-vault")
	var tunnels atomic.Int32
	proxy := connectProxy(t, s.Registry, &tunnels)
	var asked []string
	o := registry.Options{InsecureSkipTLS: true, Proxy: func(req *http.Request) (*url.URL, error) {
		asked = append(asked, req.URL.Host)
		return proxy, nil
	}}
	pushImage(t, newRepo(t, "registry.invalid/m", o), "v1", "layer")
	if tunnels.Load() == 0 || len(asked) == 0 || asked[0] != "registry.invalid" {
		t.Errorf("%d tunnels, asked about %q", tunnels.Load(), asked)
	}
	// NO_PROXY is a Proxy that names none.
	before := tunnels.Load()
	direct := registry.Options{CAFile: s.CAFile, Proxy: func(*http.Request) (*url.URL, error) { return nil, nil }}
	if _, err := newRepo(t, s.Registry+"/m:v1", direct).Resolve(t.Context()); err != nil || tunnels.Load() != before {
		t.Errorf("%v, %d more tunnels", err, tunnels.Load()-before)
	}
}

// A proxy's refusal is no registry that is down, and names the host that was not to be
// reached. Only the proxy's own trouble passes.
func TestAProxyThatRefusesIsNamed(t *testing.T) {
	t.Parallel()
	cdn := func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, "https://cdn.invalid/blob?signature=s3cret", http.StatusTemporaryRedirect)
	}
	registryHost := serve(t, http.HandlerFunc(cdn))
	for status, c := range map[int]struct {
		kind  registry.Kind
		waits bool
	}{
		http.StatusProxyAuthRequired:  {registry.ProxyRefused, false},
		http.StatusForbidden:          {registry.ProxyRefused, false},
		http.StatusBadGateway:         {registry.Unreachable, true},
		http.StatusServiceUnavailable: {registry.Unreachable, true},
	} {
		proxyHost := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		proxy := &url.URL{Scheme: "http", User: url.UserPassword("someone", "pa55word"), Host: proxyHost}
		for ref, failed := range map[string]string{"registry.invalid/m": "registry.invalid:443", registryHost + "/m": "cdn.invalid:443"} {
			w := new(waits)
			r := newRepo(t, ref, registry.Options{Sleep: w.sleep, Proxy: func(req *http.Request) (*url.URL, error) {
				if req.URL.Host == registryHost {
					return nil, nil
				}
				return proxy, nil
			}})
			_, err := r.FetchBlob(t.Context(), descOf([]byte("x")), 10)
			var refused *registry.ProxyError
			e := wantKind(t, err, c.kind)
			if !errors.As(err, &refused) || refused.Proxy != proxyHost || refused.Host != failed || refused.Status != status ||
				e.Retryable() != c.waits || (len(w.all) > 0) != c.waits {
				t.Errorf("%d: %v after %d waits", status, err, len(w.all))
			}
			if text := err.Error(); !strings.Contains(text, refused.Error()) || strings.Contains(text, "pa55word") || strings.Contains(text, "s3cret") {
				t.Error(text)
			}
		}
	}
	// In plain HTTP it answers in the registry's place.
	plain := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusProxyAuthRequired) }))
	_, err := newRepo(t, plain+"/m:v1", registry.Options{}).Resolve(t.Context())
	wantKind(t, err, registry.ProxyRefused)
}

func TestResolveOptionLeadsElsewhere(t *testing.T) {
	s := servertest.Stack(t, "-tls", "-no-vault")
	_, port, _ := strings.Cut(s.Registry, ":")
	o := registry.Options{InsecureSkipTLS: true, Resolve: []string{"registry.invalid:443:127.0.0.1:" + port}}
	pushImage(t, newRepo(t, "registry.invalid/m", o), "v1", "layer")
	for _, bad := range []string{"", "a:b", "host:443:name", "host:0:127.0.0.1", "host:443:127.0.0.1:99999", "[::1:443:127.0.0.1"} {
		var ce *registry.ConfigError
		if _, err := registry.NewClient(registry.Options{Resolve: []string{bad}}); !errors.As(err, &ce) {
			t.Errorf("%q: %v, want a *ConfigError", bad, err)
		}
	}
}

func TestARegistryThatIsNotThereIsNotAwaited(t *testing.T) {
	w := new(waits)
	_, err := newRepo(t, "registry.invalid/m:v1", registry.Options{Sleep: w.sleep}).Resolve(t.Context())
	if e := wantKind(t, err, registry.Unreachable); e.Retryable() || len(w.all) > 0 {
		t.Errorf("waited %v for a name that does not exist: %v", w.all, err)
	}
}

// A redirect out of TLS would send the rest in the clear.
func TestRedirectOutOfTLSIsRefused(t *testing.T) {
	asked := false
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { asked = true }))
	defer plain.Close()
	srv := httptest.NewTLSServer(http.RedirectHandler(plain.URL+"/blob", http.StatusTemporaryRedirect))
	defer srv.Close()
	o := registry.Options{CAFile: writeFile(t, "ca.pem", string(pemOf(srv.Certificate())), 0o600)}
	_, err := newRepo(t, strings.TrimPrefix(srv.URL, "https://")+"/m", o).FetchBlob(t.Context(), descOf([]byte("x")), 10)
	if wantKind(t, err, registry.Protocol); asked {
		t.Error("the plain server was asked")
	}
}

// TestADamagedRecordIsALineThatBroke, and no failure of TLS: another connection is opened.
func TestADamagedRecordIsALineThatBroke(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("x"), 1<<16)
	var asked atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1)%2 == 0 {
			_, _ = w.Write(content)
			return
		}
		conn, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(buf, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nxxxxx", len(content))
		_ = buf.Flush()
		// Application data that nobody has encrypted.
		_, _ = conn.(*tls.Conn).NetConn().Write(append([]byte{23, 3, 3, 0, 40}, make([]byte, 40)...))
		_, _ = io.Copy(io.Discard, conn)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	repo := newRepo(t, strings.TrimPrefix(srv.URL, "https://")+"/m:v1", registry.Options{CAFile: writeFile(t, "ca.pem", string(pemOf(srv.Certificate())), 0o600)})
	body, _, err := repo.OpenBlob(t.Context(), descOf(content), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	n, err := io.Copy(io.Discard, body)
	if e := wantKind(t, err, registry.Unreachable); n != 5 || !e.Retryable() || !strings.Contains(err.Error(), "bad record MAC") {
		t.Errorf("%d bytes, %v", n, err)
	}
	asked.Store(0)
	if got, err := repo.FetchBlob(t.Context(), descOf(content), 1<<20); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
