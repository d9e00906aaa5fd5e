// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// longUpload is a session by AppRole whose clock a test moves on.
type longUpload struct {
	*world
	srv    *servertest.Server
	proxy  *servertest.Proxy
	s      *Session
	signer *Signer
	mount  string
}

// uploading opens it. rules beside signing and revoking are pairs of path and
// capability; role is what the role has beside a TTL of ten minutes.
func uploading(t *testing.T, role map[string]any, wrapped bool, rules ...string) *longUpload {
	t.Helper()
	u := &longUpload{world: &world{}, srv: servertest.SharedStack(t), mount: name(t)}
	u.proxy = servertest.FaultProxy(t, u.srv.VaultAddr)
	u.srv.TransitKey(t, u.mount, "ecdsa-p256")
	rules = append(rules, "transit/sign/"+u.mount, "update", "auth/token/revoke-self", "update")
	var hcl strings.Builder
	for i := 0; i < len(rules); i += 2 {
		fmt.Fprintf(&hcl, "path %q { capabilities = [%q] }\n", rules[i], rules[i+1])
	}
	u.srv.Policy(t, u.mount, hcl.String())
	u.srv.Write(t, "sys/auth/"+u.mount, map[string]any{"type": "approle"})
	all := map[string]any{"token_policies": []string{u.mount}, "token_no_default_policy": true, "token_ttl": "10m"}
	for k, v := range role {
		all[k] = v
	}
	u.srv.Write(t, "auth/"+u.mount+"/role/ci", all)
	data, _ := u.srv.Read(t, "auth/"+u.mount+"/role/ci/role-id")["data"].(map[string]any)
	src := AppRole{Login: Login{Mount: u.mount}, RoleID: data["role_id"].(string)}
	if wrapped {
		_, a := u.srv.DoWith(t, http.MethodPut, "auth/"+u.mount+"/role/ci/secret-id", u.srv.RootToken, nil, http.Header{"X-Vault-Wrap-Ttl": {"60s"}})
		src.Wrapping = NewSecret(a["wrap_info"].(map[string]any)["token"].(string))
	} else {
		data, _ := u.srv.Write(t, "auth/"+u.mount+"/role/ci/secret-id", nil)["data"].(map[string]any)
		src.SecretID = NewSecret(data["secret_id"].(string))
	}
	var err error
	if u.s, err = Open(t.Context(), u.config(u.proxy.URL), src); err != nil {
		t.Fatal(err)
	}
	if u.signer, err = u.s.Signer(t.Context(), KeyRef{Mount: "transit", Name: u.mount}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.s.Close(t.Context()) })
	u.proxy.Reset()
	return u
}

// after signs when so much of the token's life has passed, and returns what Vault
// was asked.
func (u *longUpload) after(t *testing.T, d time.Duration) []string {
	t.Helper()
	u.clock.Sleep(d, nil)
	if _, err := u.signer.Sign(t.Context(), messages("m")); err != nil {
		t.Fatal(err)
	}
	var asked []string
	for _, q := range u.proxy.Requests() {
		asked = append(asked, strings.ReplaceAll(strings.TrimPrefix(q.Path, "/v1/"), u.mount, "K"))
	}
	u.proxy.Reset()
	return asked
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("requests %q, want %q", got, want)
	}
}

func TestATokenIsRenewedJustBeforeItsUse(t *testing.T) {
	u := uploading(t, nil, false, "auth/token/renew-self", "update")
	want(t, u.after(t, 7*time.Minute), "transit/sign/K")
	want(t, u.after(t, 2*time.Minute), "auth/token/renew-self", "transit/sign/K")
	want(t, u.after(t, 7*time.Minute), "transit/sign/K") // renewed for ten minutes
	if len(u.warns) != 0 {
		t.Errorf("warnings %q", u.warns)
	}
}

// The roles that we recommend name no renew-self: a new login it is, and the older
// token must not live on unseen.
func TestATokenThatMayNotRenewItselfIsReplacedAndRevoked(t *testing.T) {
	u := uploading(t, nil, false)
	old := u.s.currentToken().secret()
	want(t, u.after(t, 9*time.Minute), "auth/token/renew-self", "auth/K/login", "auth/token/revoke-self", "transit/sign/K")
	fresh := u.s.currentToken().secret()
	if fresh == old || alive(t, u.srv, old) || !alive(t, u.srv, fresh) {
		t.Error("the older token lives on, or the new one does not")
	}
	want(t, u.after(t, time.Minute), "transit/sign/K")
	u.s.Close(t.Context())
	if alive(t, u.srv, fresh) || len(u.warns) != 0 {
		t.Errorf("the new token lives on; warnings %q", u.warns)
	}
}

// A renewal up to the token's maximal lifetime may be no renewal at all.
func TestARenewalThatIsTooShortIsFollowedByALogin(t *testing.T) {
	u := uploading(t, nil, false, "auth/token/renew-self", "update")
	u.proxy.Fail(servertest.Fault{Path: "renew-self", Replace: func(b []byte) []byte {
		return []byte(strings.Replace(string(b), `"lease_duration":600`, `"lease_duration":30`, 1))
	}})
	want(t, u.after(t, 9*time.Minute), "auth/token/renew-self", "auth/K/login", "auth/token/revoke-self", "transit/sign/K")
}

// A role that was changed meanwhile, or a lying server, must not slip in what was
// refused at the beginning.
func TestALoginThatYieldsALongLivedTokenReplacesNothing(t *testing.T) {
	u := uploading(t, nil, false)
	u.s.cfg.RequireShortLived = true
	old := u.s.currentToken().secret()
	srv := u.srv
	srv.Write(t, "auth/"+u.mount+"/role/ci", map[string]any{"token_ttl": "24h", "token_max_ttl": "24h", "token_policies": []string{u.mount}, "token_no_default_policy": true})
	want(t, u.after(t, 9*time.Minute), "auth/token/renew-self", "auth/K/login", "auth/token/revoke-self", "transit/sign/K")
	if now := u.s.currentToken().secret(); now != old || !alive(t, srv, old) {
		t.Error("the session's token is another one, or gone")
	}
	if said := strings.Join(u.warns, "\n"); !strings.Contains(said, "lives for another") {
		t.Errorf("warnings %q", u.warns)
	}
}

func TestABatchTokenIsReplacedWithoutRenewal(t *testing.T) {
	u := uploading(t, map[string]any{"token_type": "batch"}, false)
	want(t, u.after(t, 9*time.Minute), "auth/K/login", "transit/sign/K")
	if len(u.warns) != 0 {
		t.Errorf("warnings %q", u.warns)
	}
}

// A wrapped secret_id logs in once: what is left of the token is used, with one
// warning.
func TestATokenThatCannotBeMadeAnewIsUsedUp(t *testing.T) {
	u := uploading(t, nil, true)
	want(t, u.after(t, 9*time.Minute), "auth/token/renew-self", "transit/sign/K")
	want(t, u.after(t, 0), "transit/sign/K")
	if len(u.warns) != 1 || !strings.Contains(u.warns[0], "ends in 1m0s and could not be renewed") {
		t.Errorf("warnings %q", u.warns)
	}
}

// Somebody revokes the token during the upload, or Vault has lost it.
func TestALostTokenIsReplacedOnce(t *testing.T) {
	u := uploading(t, nil, false)
	u.srv.Write(t, "auth/token/revoke", map[string]any{"token": u.s.currentToken().secret()})
	want(t, u.after(t, 0), "transit/sign/K", "auth/K/login", "auth/token/revoke-self", "transit/sign/K")
	if len(u.warns) != 0 {
		t.Errorf("warnings %q", u.warns)
	}
	// Vault keeps refusing: no login for each try.
	u.proxy.Fail(servertest.Fault{Path: "transit/sign/", Status: 403, Body: `{"errors":["permission denied"]}`})
	for range 2 * maxLogins {
		_, err := u.signer.Sign(t.Context(), messages("m"))
		wantKind(t, err, Denied)
	}
	if n := u.proxy.Count("/login"); n >= maxLogins {
		t.Errorf("%d further logins", n)
	}
	for _, tok := range []string{u.s.currentToken().secret()} {
		u.s.Close(t.Context())
		if alive(t, u.srv, tok) {
			t.Error("the last token lives on")
		}
	}
}

// A token that lacks a capability is not made anew: the next one would lack it too.
func TestAMissingCapabilityCausesNoLogin(t *testing.T) {
	u := uploading(t, nil, false)
	_, err := u.s.Signer(t.Context(), KeyRef{Mount: "transit", Name: "another"})
	wantKind(t, err, Denied)
	if n := u.proxy.Count("/login"); n != 0 {
		t.Errorf("%d logins", n)
	}
}

func TestOneOfManyMakesTheTokenAnew(t *testing.T) {
	u := uploading(t, nil, false)
	u.clock.Sleep(9*time.Minute, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := u.signer.Sign(t.Context(), messages("m")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if u.proxy.Count("/login") != 1 || u.proxy.Count("revoke-self") != 1 {
		t.Errorf("%d logins, %d revocations", u.proxy.Count("/login"), u.proxy.Count("revoke-self"))
	}
}
