// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// cmdTokenRegistry is "tokenregistry NAME USER PASSWORD": NAME is set to the proxy
// of a registry that takes the tokens of an endpoint of its own.
func cmdTokenRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: tokenregistry NAME USER PASSWORD")
	}
	r := rigOf(ts)
	k := servertest.Tokens(r.tb, args[1], args[2], args[2]+"-identity")
	addr, _ := servertest.Distribution(r.tb, k.Section)
	r.tokens[args[0]], r.proxies[args[0]] = k, servertest.FaultProxy(r.tb, addr)
	r.secrets = append(r.secrets, k.Password, k.IdentityToken)
	ts.Setenv(args[0], r.proxies[args[0]].Addr)
}

// cmdNeverSaw is "neversaw NAME OTHER": neither the registry NAME nor its token
// endpoint has been sent a password or a token of OTHER's, and both were asked with
// their own.
func cmdNeverSaw(ts *testscript.TestScript, neg bool, args []string) {
	r := rigOf(ts)
	if neg || len(args) != 2 || r.tokens[args[0]] == nil || r.tokens[args[1]] == nil {
		ts.Fatalf("usage: neversaw NAME OTHER, both of tokenregistry")
	}
	own, other := r.tokens[args[0]], r.tokens[args[1]]
	seen := fmt.Sprintf("%v %v", own.Requests(), r.proxies[args[0]].Requests())
	secrets := func(k *servertest.TokenService) []string {
		return append(k.Issued(), k.Password, url.QueryEscape(k.Password), k.IdentityToken,
			base64.StdEncoding.EncodeToString([]byte(k.User+":"+k.Password)))
	}
	for _, s := range secrets(other) {
		if strings.Contains(seen, s) {
			ts.Fatalf("%s was sent a secret of %s", args[0], args[1])
		}
	}
	if len(own.Issued()) == 0 || !strings.Contains(seen, own.Issued()[len(own.Issued())-1]) {
		ts.Fatalf("%s was not asked with its own token", args[0])
	}
}
