// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package kubernetes

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"go.yaml.in/yaml/v3"
)

var root = filepath.Join("..", "..")

// node is the running Kubernetes.
type node struct {
	dir    string
	server string // URL of the API server
	caFile string
	client *http.Client
}

var theNode struct {
	once sync.Once
	node *node
	err  error
	lock *flock.Flock
}

func TestMain(m *testing.M) {
	code := m.Run()
	if theNode.node != nil {
		if out, err := exec.Command("node/down.sh", theNode.node.dir).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "down.sh: %v\n%s", err, out)
			code = 1
		}
	}
	os.Exit(code)
}

// startNode returns the one node of this test binary, which ends with it.
func startNode(t *testing.T) *node {
	t.Helper()
	theNode.once.Do(func() {
		start := time.Now()
		theNode.node, theNode.err = upNode()
		t.Logf("node up after %.1f s", time.Since(start).Seconds())
	})
	if theNode.err != nil {
		t.Fatal(theNode.err)
	}
	return theNode.node
}

func upNode() (*node, error) {
	// A machine holds one node. What a killed test left behind is ended first.
	state := filepath.Join(os.TempDir(), "aegis-test-node")
	theNode.lock = flock.New(state + ".lock")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if _, err := theNode.lock.TryLockContext(ctx, time.Second); err != nil {
		return nil, fmt.Errorf("waiting for another node to end: %w", err)
	}
	if _, err := os.Stat(filepath.Join(state, "run")); err == nil {
		if out, err := exec.Command("node/down.sh", state).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ending an old node: %w\n%s", err, out)
		}
	}
	pause, err := workloadImage(state + "-images")
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(7)
	if err != nil {
		return nil, err
	}
	n := &node{dir: state}
	cmd := exec.Command("node/up.sh", state, pause)
	cmd.Env = append(os.Environ(), "PORTS="+ports)
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = exec.Command("node/down.sh", state).Run()
		return nil, fmt.Errorf("up.sh: %w (make kubernetes builds what it needs)\n%s", err, out)
	}
	return n, n.connect()
}

func freePorts(count int) (string, error) {
	var ports []string
	for range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		defer l.Close() // all at once, or two would be the same
		ports = append(ports, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	return strings.Join(ports, " "), nil
}

func (n *node) kubeconfig() string { return filepath.Join(n.dir, "admin.kubeconfig") }

// connect makes the client that polls: kubectl is too heavy to start so often.
func (n *node) connect() error {
	raw, err := os.ReadFile(n.kubeconfig())
	if err != nil {
		return err
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				Server string
				CA     string `yaml:"certificate-authority-data"`
			}
		}
		Users []struct {
			User struct {
				Cert string `yaml:"client-certificate-data"`
				Key  string `yaml:"client-key-data"`
			}
		}
	}
	if err := yaml.Unmarshal(raw, &config); err != nil {
		return err
	}
	var parts [3][]byte
	for i, s := range []string{config.Clusters[0].Cluster.CA, config.Users[0].User.Cert, config.Users[0].User.Key} {
		if parts[i], err = base64.StdEncoding.DecodeString(s); err != nil {
			return err
		}
	}
	pair, err := tls.X509KeyPair(parts[1], parts[2])
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(parts[0])
	n.server, n.caFile = config.Clusters[0].Cluster.Server, filepath.Join(n.dir, "pki", "ca.crt")
	n.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	}}
	return nil
}

// get decodes what the API server answers to a read.
func (n *node) get(t *testing.T, path string, into any) {
	t.Helper()
	resp, err := n.client.Get(n.server + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s %v\n%s", path, resp.Status, err, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
}

// tryKubectl runs kubectl with stdin.
func (n *node) tryKubectl(stdin []byte, args ...string) (stdout, stderr string, err error) {
	program, err := filepath.Abs(filepath.Join(root, "bin", "node", "kubectl"))
	if err != nil {
		return "", "", err
	}
	cmd := exec.Command(program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + n.dir, "KUBECONFIG=" + n.kubeconfig()}
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// kubectl is tryKubectl; a failure fails the test.
func (n *node) kubectl(t *testing.T, stdin []byte, args ...string) string {
	t.Helper()
	out, errs, err := n.tryKubectl(stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, out, errs)
	}
	return out
}

// ctr runs containerd's own client in Kubernetes' namespace.
func (n *node) ctr(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(n.dir, "ctr"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ctr %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
