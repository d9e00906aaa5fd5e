// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

const (
	user     = "ci"
	password = "correct horse"
)

func writeFile(t testing.TB, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// TestCredentialsComeFromManyPlaces is against the real registry with basic
// authentication.
func TestCredentialsComeFromManyPlaces(t *testing.T) {
	host, _ := servertest.Distribution(t, servertest.Htpasswd(t, user, password))
	auths := func(key, auth string) string { return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, key, auth) }
	good, bad := basic(user, password), basic(user, "wrong")
	port := host[strings.LastIndexByte(host, ':'):]
	pullSecret := filepath.Dir(writeFile(t, ".dockerconfigjson", auths(host, good), 0o600))
	dockerDir := filepath.Dir(writeFile(t, "config.json", auths("https://"+host+"/v1/", good), 0o600))
	for name, c := range map[string]struct {
		o    registry.CredentialOptions
		kind registry.Kind
	}{
		"given":                       {registry.CredentialOptions{Username: user, Password: password}, 0},
		"a file":                      {registry.CredentialOptions{ConfigFiles: []string{writeFile(t, "c.json", auths(host, good), 0o600)}}, 0},
		"a pull secret's folder":      {registry.CredentialOptions{ConfigFiles: []string{pullSecret}}, 0},
		"docker's folder, old key":    {registry.CredentialOptions{DockerConfigDir: dockerDir}, 0},
		"the second file":             {registry.CredentialOptions{ConfigFiles: []string{writeFile(t, "c.json", auths("other.example", bad), 0o600), writeFile(t, "d.json", auths(host, good), 0o600)}}, 0},
		"the repository's own entry":  {registry.CredentialOptions{ConfigFiles: []string{writeFile(t, "c.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q},%q:{"auth":%q}}}`, host, bad, host+"/team", good), 0o600)}}, 0},
		"a pattern":                   {registry.CredentialOptions{ConfigFiles: []string{writeFile(t, "c.json", auths("127.*.0.?"+port, good), 0o600)}}, 0},
		"a pattern and a path":        {registry.CredentialOptions{ConfigFiles: []string{authsFile(t, "*.*.*.*"+port, bad, "*.0.0.1"+port+"/team", bad, "127.*.*.*"+port+"/team/m", good)}}, 0},
		"a name before a pattern":     {registry.CredentialOptions{ConfigFiles: []string{authsFile(t, "127.*.0.1"+port, bad, host, good)}}, 0},
		"a name in another file":      {registry.CredentialOptions{ConfigFiles: []string{authsFile(t, "127.*.0.1"+port, bad), authsFile(t, host, good)}}, 0},
		"a pattern of fewer labels":   {registry.CredentialOptions{ConfigFiles: []string{authsFile(t, "*"+port, good, "127.*"+port, good)}}, registry.Unauthorized},
		"a pattern without the port":  {registry.CredentialOptions{ConfigFiles: []string{authsFile(t, "127.*.0.1", good)}}, registry.Unauthorized},
		"a pattern for another path":  {registry.CredentialOptions{ConfigFiles: []string{authsFile(t, "127.*.0.1"+port+"/te", good)}}, registry.Unauthorized},
		"separate fields":             {registry.CredentialOptions{ConfigFiles: []string{writeFile(t, "c.json", fmt.Sprintf(`{"auths":{%q:{"username":%q,"password":%q}}}`, host, user, password), 0o600)}}, 0},
		"given beats a file":          {registry.CredentialOptions{Username: user, Password: password, ConfigFiles: []string{writeFile(t, "c.json", auths(host, bad), 0o600)}}, 0},
		"none":                        {registry.CredentialOptions{}, registry.Unauthorized},
		"a docker folder that is not": {registry.CredentialOptions{DockerConfigDir: "/nonexistent"}, registry.Unauthorized},
		"a wrong password":            {registry.CredentialOptions{Username: user, Password: "wrong"}, registry.Unauthorized},
		"another registry's":          {registry.CredentialOptions{ConfigFiles: []string{writeFile(t, "c.json", auths("other.example", good), 0o600)}}, registry.Unauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t, host+"/team/m:v1", registry.Options{Credentials: c.o})
			up, err := r.PushBlob(t.Context(), descOf([]byte(name)), opener([]byte(name)))
			if c.kind == 0 && (err != nil || !up) {
				t.Fatalf("pushed %v, %v", up, err)
			}
			if c.kind != 0 {
				wantKind(t, err, c.kind)
				noSecret(t, err)
			}
		})
	}
}

func noSecret(t *testing.T, err error) {
	t.Helper()
	for _, s := range []string{password, "wrong", basic(user, password), basic(user, "wrong")} {
		if strings.Contains(fmt.Sprintf("%v %+v", err, err), s) {
			t.Errorf("the error holds a secret: %v", err)
		}
	}
}

func TestCredentialFilesThatCannotBeRead(t *testing.T) {
	for name, file := range map[string]string{
		"missing":    filepath.Join(t.TempDir(), "none.json"),
		"no JSON":    writeFile(t, "c.json", `{"auths": "`+password, 0o600),
		"too large":  writeFile(t, "c.json", strings.Repeat(" ", 5<<20), 0o600),
		"wrong type": writeFile(t, "c.json", `{"auths":["`+password+`"]}`, 0o600),
	} {
		_, err := registry.NewClient(registry.Options{Credentials: registry.CredentialOptions{ConfigFiles: []string{file}}})
		var ce *registry.ConfigError
		if !errors.As(err, &ce) || ce.Path != file {
			t.Errorf("%s: error %v, want a *ConfigError of the file", name, err)
		}
		noSecret(t, err)
	}
	host, _ := servertest.Distribution(t, servertest.Htpasswd(t, user, password))
	for name, auth := range map[string]string{"no base64": "%%" + password, "no colon": base64.StdEncoding.EncodeToString([]byte(password))} {
		file := writeFile(t, "c.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, auth), 0o600)
		r := newRepo(t, host+"/m:v1", registry.Options{Credentials: registry.CredentialOptions{ConfigFiles: []string{file}}})
		_, err := r.Resolve(t.Context())
		var ce *registry.ConfigError
		if !errors.As(err, &ce) {
			t.Errorf("%s: %v", name, err)
		}
		noSecret(t, err)
	}
}

// helper puts a docker-credential-NAME into PATH that knows one server.
func helper(t *testing.T, name, script string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Fatal("the helper is a shell script")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func TestCredentialHelpers(t *testing.T) {
	host, _ := servertest.Distribution(t, servertest.Htpasswd(t, user, password))
	helper(t, "aegistest", fmt.Sprintf(`read server
if [ "$1" = get ] && [ "$server" = %q ]; then
	printf '{"ServerURL":"%%s","Username":%q,"Secret":%q}' "$server"
	exit 0
fi
echo "credentials not found in native keychain"
exit 1
`, host, user, password))
	helper(t, "aegisbroken", "echo 'keychain is locked' >&2; exit 3\n")
	for name, c := range map[string]struct {
		config string
		ok     bool
	}{
		"for the registry": {fmt.Sprintf(`{"credHelpers":{%q:"aegistest"}}`, host), true},
		"for all":          {`{"credsStore":"aegistest"}`, true},
		"helper knows nothing, file does": {fmt.Sprintf(`{"credHelpers":{%q:"aegistest"},"auths":{%q:{"auth":%q}}}`,
			"other.example", host, basic(user, password)), true},
		"broken":                 {fmt.Sprintf(`{"credHelpers":{%q:"aegisbroken"}}`, host), false},
		"not there":              {fmt.Sprintf(`{"credHelpers":{%q:"aegisnowhere"}}`, host), false},
		"a path to a program":    {fmt.Sprintf(`{"credHelpers":{%q:"/../../../bin/sh"}}`, host), false},
		"a path in Windows' way": {fmt.Sprintf(`{"credHelpers":{%q:"x\\y"}}`, host), false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t, host+"/m:v1", registry.Options{Credentials: registry.CredentialOptions{ConfigFiles: []string{writeFile(t, "config.json", c.config, 0o600)}}})
			_, err := r.PushBlob(t.Context(), descOf([]byte(name)), opener([]byte(name)))
			if c.ok && err != nil {
				t.Fatal(err)
			}
			var ce *registry.ConfigError
			if !c.ok && (!errors.As(err, &ce) || !strings.Contains(ce.Option, "docker-credential-")) {
				t.Errorf("error %v, want a *ConfigError that names the helper", err)
			}
		})
	}
}

func TestLoginAndLogout(t *testing.T) {
	host, _ := servertest.Distribution(t, servertest.Htpasswd(t, user, password))
	client := func(o registry.CredentialOptions) *registry.Client {
		c, err := registry.NewClient(registry.Options{Credentials: o, Sleep: new(waits).sleep})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if err := client(registry.CredentialOptions{Username: user, Password: password}).Ping(t.Context(), host); err != nil {
		t.Error(err)
	}
	err := client(registry.CredentialOptions{Username: user, Password: "wrong"}).Ping(t.Context(), host)
	wantKind(t, err, registry.Unauthorized)
	noSecret(t, err)

	config := writeFile(t, "config.json", fmt.Sprintf(`{"x-kept":1,"auths":{"https://%s/v1/":{"auth":"b2xkOm9sZA=="}}}`, host), 0o644)
	saved, err := registry.SaveCredential(t.Context(), config, host, registry.Credential{Username: user, Password: password})
	if err != nil || !saved.PlainText || saved.Where != config {
		t.Fatalf("%+v, %v", saved, err)
	}
	if err := client(registry.CredentialOptions{ConfigFiles: []string{config}}).Ping(t.Context(), host); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(config); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the file with the secret has mode %v, %v", info.Mode(), err)
	}
	if _, err := registry.RemoveCredential(t.Context(), config, host); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(config)
	if err != nil || !strings.Contains(string(raw), "x-kept") || strings.Contains(string(raw), host) {
		t.Errorf("after the logout: %s, %v", raw, err)
	}
	wantKind(t, client(registry.CredentialOptions{ConfigFiles: []string{config}}).Ping(t.Context(), host), registry.Unauthorized)
	if _, err := registry.RemoveCredential(t.Context(), config, host); err != nil {
		t.Errorf("nothing to remove is no error: %v", err)
	}
}

const identityToken = "refresh-me"

func tokenEndpoint(t *testing.T) *servertest.TokenService {
	t.Helper()
	return servertest.Tokens(t, user, password, identityToken)
}

func TestBearerTokens(t *testing.T) {
	for name, c := range map[string]struct {
		o     registry.CredentialOptions
		grant string
		kind  registry.Kind
	}{
		"password":             {registry.CredentialOptions{Username: user, Password: password}, "basic", 0},
		"identity token":       {registry.CredentialOptions{IdentityToken: identityToken}, "refresh_token", 0},
		"anonymous":            {registry.CredentialOptions{}, "anonymous", registry.Unauthorized},
		"wrong password":       {registry.CredentialOptions{Username: user, Password: "wrong"}, "", registry.Unauthorized},
		"wrong identity token": {registry.CredentialOptions{IdentityToken: "wrong"}, "", registry.Unauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			front := tokenEndpoint(t)
			host, _ := servertest.Distribution(t, front.Section)
			r := newRepo(t, host+"/team/m:v1", registry.Options{Credentials: c.o})
			_, err := r.PushBlob(t.Context(), descOf([]byte("x")), opener([]byte("x")))
			if c.kind != 0 {
				wantKind(t, err, c.kind)
				noSecret(t, err)
			} else if err != nil {
				t.Fatal(err)
			} else {
				pushImage(t, r, "v1", "layer")
			}
			if len(front.Grants()) > 3 || (c.grant != "") != slices.Contains(front.Grants(), c.grant) {
				t.Errorf("tokens were asked for with %q", front.Grants())
			}
			for _, s := range front.Scopes() {
				if !strings.HasPrefix(s, "repository:team/m:") {
					t.Errorf("asked for the scope %q", s)
				}
			}
		})
	}
}

// A pull asks for a token that can only pull.
func TestAPullAsksForNoMoreThanPull(t *testing.T) {
	front := tokenEndpoint(t)
	host, _ := servertest.Distribution(t, front.Section)
	o := registry.Options{Credentials: registry.CredentialOptions{Username: user, Password: password}}
	pushImage(t, newRepo(t, host+"/team/m", o), "v1", "layer")
	front.Reset()
	r := newRepo(t, host+"/team/m:v1", o)
	if _, err := r.Resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.FetchBlob(t.Context(), descOf([]byte("layer")), 100); err != nil {
		t.Fatal(err)
	}
	if len(front.Scopes()) != 1 || front.Scopes()[0] != "repository:team/m:pull" {
		t.Errorf("scopes %q", front.Scopes())
	}
}

// decodedPart is a token's claims.
func decodedPart(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
	return string(raw)
}

// TestDockerHubsNames: podman writes docker.io, docker index.docker.io.
func TestDockerHubsNames(t *testing.T) {
	wrong := basic(user, "wrong")
	for name, file := range map[string]string{
		"podman":       authsFile(t, "docker.io", basic(user, password)),
		"docker":       authsFile(t, "https://index.docker.io/v1/", basic(user, password)),
		"the API":      authsFile(t, "registry-1.docker.io", basic(user, password)),
		"a path":       authsFile(t, "docker.io/team", basic(user, password)),
		"both":         authsFile(t, "docker.io", wrong, "https://index.docker.io/v1/", basic(user, password), "registry-1.docker.io", wrong),
		"without path": authsFile(t, "docker.io", wrong, "index.docker.io", basic(user, password)),
	} {
		seen := new(headersSeen)
		hub := httptest.NewTLSServer(seen.wrap(askedForPassword(http.NotFoundHandler())))
		t.Cleanup(hub.Close)
		r := newRepo(t, "docker.io/team/m:v1", registry.Options{
			InsecureSkipTLS: true,
			Credentials:     registry.CredentialOptions{ConfigFiles: []string{file}},
			Resolve:         []string{"registry-1.docker.io:443:" + hub.Listener.Addr().String()},
		})
		_, err := r.Resolve(t.Context())
		wantKind(t, err, registry.NotFound)
		if got, want := seen.values("Authorization"), []string{"Basic " + basic(user, password)}; !slices.Equal(got, want) {
			t.Errorf("%s: the registry saw %q, want %q", name, got, want)
		}
	}
}
