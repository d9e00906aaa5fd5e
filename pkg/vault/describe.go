// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/aegis-oci/aegis-oci/pkg/internal/lazyregexp"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Health is what a server says of itself to anybody.
type Health struct {
	Version     string
	Initialized bool
	Sealed      bool
	// Standby nodes pass requests on; a performance standby serves some itself.
	Standby bool
	// Date is the server's clock, zero when it does not say.
	Date time.Time
	// TLS reports that the connection was encrypted and the server's certificate
	// checked as cfg says.
	TLS bool
}

// healthCodes makes sys/health answer 200 in every state, so that a state is an
// answer and only the lack of one an error.
var healthCodes = map[string][]string{
	"standbyok": {"true"}, "perfstandbyok": {"true"}, "sealedcode": {"200"}, "uninitcode": {"200"},
	"drsecondarycode": {"200"}, "performancestandbycode": {"200"},
}

// CheckHealth asks the server that cfg names, without any token, once. Errors are
// *Error.
func CheckHealth(ctx context.Context, cfg Config) (Health, error) {
	c, err := newClient(cfg.withDefaults())
	if err != nil {
		return Health{}, err
	}
	defer c.base.CloseIdleConnections()
	cl := call{op: "ask for Vault's health", path: "sys/health"}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	resp, err := c.api.WithNamespace("").Logical().ReadRawWithDataWithContext(ctx, cl.path, healthCodes)
	if resp != nil {
		defer resp.Body.Close()
	}
	var refusal *api.ResponseError
	switch {
	case errors.As(err, &refusal):
		_, _, e := c.refused(cl, resp, refusal)
		if e == nil {
			e = &Error{Op: cl.op, Path: cl.path, Kind: Malformed, Status: refusal.StatusCode}
		}
		return Health{}, e
	case err != nil:
		return Health{}, c.broken(cl, err)
	}
	return decodeHealth(cl, resp, c.endpoint.url.Scheme == "https")
}

var versionForm = lazyregexp.New(`^[0-9A-Za-z.+-]{1,60}$`)

func decodeHealth(cl call, resp *api.Response, tls bool) (Health, error) {
	var h struct {
		Version     string  `json:"version"`
		Initialized *bool   `json:"initialized"`
		Sealed      bool    `json:"sealed"`
		Standby     bool    `json:"standby"`
		Time        float64 `json:"server_time_utc"`
	}
	if json.NewDecoder(resp.Body).Decode(&h) != nil || h.Initialized == nil || !versionForm().MatchString(h.Version) {
		return Health{}, &Error{Op: cl.op, Path: cl.path, Kind: Malformed, Status: resp.StatusCode,
			Detail: "it is not of the API's form; is this address a Vault server?"}
	}
	out := Health{Version: h.Version, Initialized: *h.Initialized, Sealed: h.Sealed, Standby: h.Standby, TLS: tls}
	if t, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		out.Date = t
	} else if h.Time > 0 && h.Time < 1<<40 {
		out.Date = time.Unix(int64(h.Time), 0)
	}
	return out, nil
}

// TokenInfo is what is known of a session's token.
type TokenInfo struct {
	// Origin says where it came from or by which method it was obtained.
	Origin   string
	Obtained bool
	// Type is "service" or "batch", "" when it is not known.
	Type string
	// TTL is what is left of its life, zero when it never expires or when that is
	// not known.
	TTL          time.Duration
	NeverExpires bool
	Root         bool
	// NumUses is how many requests it was good for, zero for any number.
	NumUses int
}

// TokenInfo describes the token. A given token that may not look itself up is
// described by its origin alone.
func (s *Session) TokenInfo(ctx context.Context) (TokenInfo, error) {
	const op = "look the Vault token up"
	t := s.currentToken()
	info := TokenInfo{Origin: t.Origin, Obtained: t.Obtained, NumUses: t.NumUses}
	if t.Obtained {
		info.TTL, info.Type = t.TTL, "service"
		if t.Batch {
			info.Type = "batch"
		}
		info.judge(t.policies, t.TTL == 0)
		return info, nil
	}
	a, err := s.do(ctx, call{op: op, path: lookupSelf, namespace: s.cfg.AuthNamespace, capability: "read", optional: true})
	if isRefusal(err) {
		return info, nil
	}
	if err != nil {
		return info, err
	}
	var l struct {
		lookup
		Type string `json:"type"`
	}
	if json.Unmarshal(a.Data, &l) != nil {
		return info, &Error{Op: op, Path: lookupSelf, Kind: Malformed}
	}
	info.Type, info.NumUses = clip(l.Type, 40), l.NumUses
	info.TTL = time.Duration(min(max(l.TTL, 0), maxLease)) * time.Second
	info.judge(l.Policies, l.TTL == 0 && l.ExpireTime == nil)
	return info, nil
}

func (i *TokenInfo) judge(policies []string, endless bool) {
	i.NeverExpires, i.Root = endless, slices.Contains(policies, "root")
}

// SignPath is the API path that signing needs "update" on.
func (r KeyRef) SignPath() string { return r.path("sign") }

// VerifyPath is the API path that verifying needs "update" on.
func (r KeyRef) VerifyPath() string { return r.path("verify") }

// ReadPath is the API path of the key's description and public keys.
func (r KeyRef) ReadPath() string { return r.path("keys") }

// Capabilities asks which capabilities the token has on paths in the key's
// namespace. It needs "update" on sys/capabilities-self, which the default policy
// grants and ours do not; the error is then of Kind Denied.
func (s *Session) Capabilities(ctx context.Context, ref KeyRef, paths ...string) (map[string][]string, error) {
	const op = "ask for the token's capabilities"
	path := "sys/capabilities-self"
	a, err := s.do(ctx, call{op: op, path: path, namespace: s.namespace(ref), capability: "update", optional: true, body: map[string]any{"paths": paths}})
	if err != nil {
		return nil, err
	}
	var d map[string]json.RawMessage
	if json.Unmarshal(a.Data, &d) != nil {
		return nil, &Error{Op: op, Path: path, Kind: Malformed}
	}
	out := make(map[string][]string, len(paths))
	for _, p := range paths {
		var list []string
		if json.Unmarshal(d[p], &list) != nil {
			return nil, &Error{Op: op, Path: path, Kind: Malformed, Detail: "it does not answer for " + p}
		}
		for i := range list {
			list[i] = clip(list[i], 40)
		}
		out[p] = list
	}
	return out, nil
}

// MaySign finds out, without signing anything, whether the token may sign and the
// key can. Errors are those of Signer.
func (s *Session) MaySign(ctx context.Context, ref KeyRef) error {
	_, err := s.Signer(ctx, ref)
	return err
}

// nobodysSignature is encoded as ECDSA has it and fits no key: r and s are 1.
var nobodysSignature = []byte{0x30, 6, 2, 1, 1, 2, 1, 1}

// MayVerify is MaySign for verifying. It asks about a signature that no key made:
// to be told that it is wrong takes the policy, the key, and a type that verifies,
// which an empty batch would not find out.
func (s *Session) MayVerify(ctx context.Context, ref KeyRef) error {
	a := &asking{k: s.Key(ref), op: "verify with " + ref.String()}
	check := signature.Check{Format: signature.Sigstore, Message: []byte("aegis-oci"), Signature: nobodysSignature}
	set := paramsFor(signature.Sigstore, signature.KeyUnknown)[0]
	results, err := a.send(ctx, set, []item{{q: &question{check: check}, version: max(1, ref.Version)}})
	if err != nil {
		return err
	}
	if judgeItem(results[0]) == failed {
		return a.unanswered(results[0].Error)
	}
	return nil
}

// KeyDescription is what the server says of a key.
type KeyDescription struct {
	Type      string
	Latest    int
	MinSign   int
	MinVerify int
}

// DescribeKey reads the key. The error is of Kind Denied when the token may not,
// and of KeyUnsuitable, with the description beside it, when the key cannot sign.
func (s *Session) DescribeKey(ctx context.Context, ref KeyRef) (KeyDescription, error) {
	op := "read " + ref.String()
	info, err := s.info(ctx, op, ref)
	if err != nil {
		return KeyDescription{}, err
	}
	if info == nil {
		return KeyDescription{}, &Error{Op: op, Path: ref.path("keys"), Kind: Denied, Status: http.StatusForbidden, Capability: "read"}
	}
	d := KeyDescription{Type: info.typ, Latest: info.latest, MinSign: info.minSign, MinVerify: info.minVerify}
	if err := info.suitable(op, ref); err != nil {
		return d, err
	}
	if ref.Version > info.latest {
		return d, noVersion(op, ref, info)
	}
	return d, nil
}
