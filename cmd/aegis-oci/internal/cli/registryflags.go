// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// registryFlags say how to reach a registry. Their names are those of oras.
type registryFlags struct {
	plainHTTP   bool
	insecure    bool
	caFile      string
	certFile    string
	keyFile     string
	configs     []string
	username    string
	password    string
	passStdin   bool
	tokenStdin  bool
	resolve     []string
	concurrency int
	prefix      string // of the flags' names: "from-", "to-"
	limitRate   string
	mirrors     []string
	hostsDir    string
}

func (r *registryFlags) register(f *flagSet) {
	f.BoolVar(&r.plainHTTP, "plain-http", false, "speak HTTP to the registry (loopback registries need no flag)")
	f.BoolVar(&r.insecure, "insecure", false, "do not check the registry's TLS certificate")
	f.StringVar(&r.caFile, "ca-file", "", "PEM file of certificate authorities to trust besides the system's")
	f.StringVar(&r.certFile, "cert-file", "", "client certificate for the registry")
	f.StringVar(&r.keyFile, "key-file", "", "private key of the client certificate")
	f.StringArrayVar(&r.configs, "registry-config", nil, "docker config file with credentials, or the .dockerconfigjson of a pull secret (repeatable)")
	f.StringArrayVar(&r.resolve, "resolve", nil, "connect to another address: host:port:address[:port] (repeatable)")
	f.IntVar(&r.concurrency, "concurrency", 4, "files that move at once")
	r.registerCredentials(f)
}

// registerSide registers the flags of one end of a copy, as oras names them.
func (r *registryFlags) registerSide(f *flagSet, prefix, side string) {
	r.prefix, r.concurrency = prefix, 4
	f.BoolVar(&r.plainHTTP, prefix+"plain-http", false, "speak HTTP to the "+side+" registry")
	f.BoolVar(&r.insecure, prefix+"insecure", false, "do not check the "+side+" registry's TLS certificate")
	f.StringVar(&r.caFile, prefix+"ca-file", "", "PEM file of certificate authorities for the "+side+" registry")
	f.StringVar(&r.certFile, prefix+"cert-file", "", "client certificate for the "+side+" registry")
	f.StringVar(&r.keyFile, prefix+"key-file", "", "private key of the client certificate")
	f.StringArrayVar(&r.configs, prefix+"registry-config", nil, "docker config file with credentials for the "+side+" registry (repeatable)")
	f.StringArrayVar(&r.resolve, prefix+"resolve", nil, "connect to another address: host:port:address[:port] (repeatable)")
	f.StringVar(&r.username, prefix+"username", "", "user name for the "+side+" registry")
	f.StringVar(&r.password, prefix+"password", "", "password for the "+side+" registry; others on this machine can see it")
	f.BoolVar(&r.passStdin, prefix+"password-stdin", false, "read the password from standard input")
	f.BoolVar(&r.tokenStdin, prefix+"identity-token-stdin", false, "read an identity token from standard input")
}

// registerMirrors is for the commands that only read.
func (r *registryFlags) registerMirrors(f *flagSet) {
	f.StringArrayVar(&r.mirrors, r.prefix+"mirror", nil, "ask this http(s)://HOST[:PORT][/PATH] for content first, and trust nothing of it (repeatable, in order)")
	f.StringVar(&r.hostsDir, r.prefix+"hosts-dir", "", "directory of mirrors in containerd's form, such as /etc/containerd/certs.d")
}

// registerRate is for the commands that move blobs.
func (r *registryFlags) registerRate(f *flagSet) {
	f.StringVar(&r.limitRate, "limit-rate", "", "bytes a second for all files together, with K, M or G for powers of 1024")
}

// reaching are the flags that say how to reach a registry, without the prefix of a side.
var reaching = []string{
	"plain-http", "insecure", "ca-file", "cert-file", "key-file", "registry-config", "resolve",
	"username", "password", "password-stdin", "identity-token-stdin", "mirror", "hosts-dir",
}

// noRegistry is for what is no registry's. Whoever says on the command line how to reach
// one has mistaken what is asked; what variables say is for other commands, and no
// secret of theirs is read.
func (r *registryFlags) noRegistry(cmd *cobra.Command, why string) error {
	for _, name := range reaching {
		if f := cmd.Flags().Lookup(r.prefix + name); onCommandLine(f) && f.Value.String() != f.DefValue {
			return usagef("--%s says how to reach a registry, and %s", f.Name, why)
		}
	}
	*r = registryFlags{prefix: r.prefix, concurrency: r.concurrency, limitRate: r.limitRate}
	return nil
}

// parseRate reads a number of bytes a second; 0 is no limit.
func parseRate(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	number, unit := s, int64(1)
	if i := strings.IndexByte("KMG", s[len(s)-1]&^0x20); i >= 0 {
		number, unit = s[:len(s)-1], 1<<(10*(i+1))
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/unit {
		return 0, usagef("--limit-rate %q is no number of bytes a second such as 500K, 20M or 1G", s)
	}
	return n * unit, nil
}

func (r *registryFlags) registerCredentials(f *flagSet) {
	f.StringVarP(&r.username, "username", "u", "", "user name for the registry")
	f.StringVarP(&r.password, "password", "p", "", "password for the registry; others on this machine can see it, prefer --password-stdin")
	f.BoolVar(&r.passStdin, "password-stdin", false, "read the password from standard input")
	f.BoolVar(&r.tokenStdin, "identity-token-stdin", false, "read an identity token from standard input")
}

// credentials reads what standard input was promised for.
func (r *registryFlags) credentials(a *app) (user, pass, token string, err error) {
	if r.passStdin && r.tokenStdin || (r.password != "" && (r.passStdin || r.tokenStdin)) {
		return "", "", "", usagef("give one of --%[1]spassword, --%[1]spassword-stdin and --%[1]sidentity-token-stdin", r.prefix)
	}
	user, pass = r.username, r.password
	if r.passStdin || r.tokenStdin {
		flag := "--password-stdin"
		if r.tokenStdin {
			flag = "--identity-token-stdin"
		}
		if err := a.takeStdin(flag); err != nil {
			return "", "", "", err
		}
		secret, err := readSecret(a.stdin)
		if err != nil {
			return "", "", "", err
		}
		if r.tokenStdin {
			return "", "", secret, nil
		}
		pass = secret
	}
	if user == "" && pass != "" {
		return "", "", "", usagef("a password needs --%susername", r.prefix)
	}
	return user, pass, "", nil
}

// takeStdin promises standard input to one flag: a second one would find it empty.
func (a *app) takeStdin(flag string) error {
	if a.stdinFor != "" && a.stdinFor != flag {
		return usagef("%s and %s both read standard input", a.stdinFor, flag)
	}
	a.stdinFor = flag
	return nil
}

func readSecret(in io.Reader) (string, error) {
	const limit = 64 << 10
	b, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return "", fmt.Errorf("read the secret from standard input: %w", err)
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" || len(b) > limit {
		return "", usagef("standard input holds no secret")
	}
	return s, nil
}

// client makes the registry client.
func (r *registryFlags) client(a *app) (*registry.Client, error) {
	user, pass, token, err := r.credentials(a)
	if err != nil {
		return nil, err
	}
	return r.clientWith(a, registry.CredentialOptions{
		Username:        user,
		Password:        pass,
		IdentityToken:   token,
		ConfigFiles:     r.configs,
		DockerConfigDir: a.dockerConfigDir(),
	})
}

func (r *registryFlags) clientWith(a *app, credentials registry.CredentialOptions) (*registry.Client, error) {
	if (r.certFile == "") != (r.keyFile == "") {
		return nil, usagef("--%[1]scert-file and --%[1]skey-file go together", r.prefix)
	}
	if r.concurrency < 1 || r.concurrency > 256 {
		return nil, usagef("--concurrency must be between 1 and 256")
	}
	if r.insecure {
		a.warn("--" + r.prefix + "insecure: whoever is between here and the registry can read the credentials; signatures still hold")
	}
	var mirrors []registry.Mirror
	for _, url := range r.mirrors {
		m, err := registry.ParseMirror(url)
		if err != nil {
			return nil, &usageError{msg: err.Error(), hint: "--" + r.prefix + "mirror https://mirror.example.com"}
		}
		mirrors = append(mirrors, m)
	}
	c, err := registry.NewClient(registry.Options{
		Mirrors:         mirrors,
		HostsDir:        r.hostsDir,
		Warn:            a.warn,
		PlainHTTP:       r.plainHTTP,
		InsecureSkipTLS: r.insecure,
		CAFile:          r.caFile,
		CertFile:        r.certFile,
		KeyFile:         r.keyFile,
		Credentials:     credentials,
		Resolve:         r.resolve,
		Proxy:           http.ProxyFromEnvironment,
		UserAgent:       userAgent(),
		Concurrency:     r.concurrency,
		Retry:           registry.RetryPolicy{Budget: a.retryTimeout},
		Logger:          a.logger,
	})
	if err != nil {
		return nil, &usageError{msg: err.Error()}
	}
	return c, nil
}

// dockerConfigDir follows docker: DOCKER_CONFIG, or .docker in the home
// directory if there is one.
func (a *app) dockerConfigDir() string {
	if d := a.env["DOCKER_CONFIG"]; d != "" {
		return d
	}
	if home := a.home(); home != "" {
		return filepath.Join(home, ".docker")
	}
	return ""
}

// home is empty where there is none, as in a scratch container.
func (a *app) home() string {
	return a.env.first("HOME", "USERPROFILE")
}

// workflows makes the client for the workflows of package aegis.
func (r *registryFlags) workflows(a *app, cmd *cobra.Command) (*aegis.Client, error) {
	limit, err := parseRate(r.limitRate)
	if err != nil {
		return nil, err
	}
	reg, err := r.client(a)
	if err != nil {
		return nil, err
	}
	return aegis.New(reg, aegis.Options{
		Concurrency: r.concurrency,
		RetryBudget: a.retryTimeout,
		LimitRate:   limit,
		Progress:    a.progress(cmd),
		Warn:        a.warn,
		Logger:      a.logger,
	}), nil
}

func parseRef(s string) (registry.Reference, error) {
	ref, err := registry.ParseReference(s)
	if err != nil {
		return registry.Reference{}, err
	}
	return ref, nil
}

func readFileBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f, path, limit)
}

// readInput reads the file that name names, or standard input for "-". what is the
// flag or argument that has the name.
func (a *app) readInput(what, name string, limit int64) ([]byte, error) {
	if name == "-" {
		if err := a.takeStdin(what + " -"); err != nil {
			return nil, err
		}
		return readBounded(a.stdin, "standard input", limit)
	}
	return readFileBounded(name, limit)
}

// readBounded reads r, which name describes.
func readBounded(r io.Reader, name string, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", name, limit)
	}
	return b, nil
}
