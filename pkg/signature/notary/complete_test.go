// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package notary_test

import (
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
)

func TestComplete(t *testing.T) {
	t.Parallel()
	at := time.Now()
	k, mid, top := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	root := top.Issue(t, testkey.Authority(at, "root"), nil, nil)
	between := mid.Issue(t, testkey.Authority(at, "intermediate"), top, root)
	leaf := k.Issue(t, testkey.Leaf(at, "signer"), mid, between)
	whole := []*x509.Certificate{leaf, between, root}
	// Others of the same names, which have issued nothing here.
	fake := testkey.New(t, signature.ECDSAP256)
	fakeRoot := fake.Issue(t, testkey.Authority(at, "root"), nil, nil)
	fakeBetween := fake.Issue(t, testkey.Authority(at, "intermediate"), fake, fakeRoot)
	own := k.Issue(t, testkey.Leaf(at, "own"), nil, nil)
	for name, row := range map[string]struct {
		chain, store, want []*x509.Certificate
		reason             string
	}{
		"a leaf":                      {whole[:1], []*x509.Certificate{root, between}, whole, ""},
		"all but the root":            {whole[:2], []*x509.Certificate{root}, whole, ""},
		"all, and the root is there":  {whole, []*x509.Certificate{root}, whole, ""},
		"others of the same name":     {whole[:1], []*x509.Certificate{fakeBetween, fakeRoot, between, root}, whole, ""},
		"nothing but the store":       {nil, []*x509.Certificate{root, leaf, between}, whole, ""},
		"a self-signed one there":     {nil, []*x509.Certificate{own}, []*x509.Certificate{own}, ""},
		"the intermediate is missing": {whole[:1], []*x509.Certificate{root}, nil, "is not in the trust store"},
		"only others of the name":     {whole[:1], []*x509.Certificate{fakeBetween, fakeRoot}, nil, "is not in the trust store"},
		"another root":                {whole, []*x509.Certificate{fakeRoot}, nil, "neither it nor any other"},
		"nothing of the key":          {nil, []*x509.Certificate{root, between}, nil, "of the key that signs"},
		"a root as leaf":              {[]*x509.Certificate{root}, []*x509.Certificate{root}, nil, "cannot sign artifacts"},
	} {
		got, err := notary.Complete(row.chain, row.store, k.ID().SPKI)
		var bad *notary.ChainError
		switch {
		case row.reason == "" && (err != nil || !slices.EqualFunc(got, row.want, (*x509.Certificate).Equal)):
			t.Errorf("%s: %d certificates, %v", name, len(got), err)
		case row.reason != "" && (!errors.As(err, &bad) || !strings.Contains(bad.Reason, row.reason) || got != nil):
			t.Errorf("%s: %v, %v, want a reason with %q", name, got, err, row.reason)
		}
	}
}
