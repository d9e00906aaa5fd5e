// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/internal/testtsa"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// cmdStamped is "stamped REF": a notary signature of two hours ago, stamped then,
// whose certificate expired an hour ago and names a responder that is not there. It
// leaves ca.pem, tsa.pem and the root of another authority, othertsa.pem.
func cmdStamped(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: stamped REF")
	}
	ref, err := registry.ParseReference(args[0])
	ts.Check(err)
	client, err := registry.NewClient(registry.Options{})
	ts.Check(err)
	tb, now := rigOf(ts).tb, time.Now()
	k, ca := testkey.New(tb, signature.ECDSAP256), testkey.New(tb, signature.ECDSAP256)
	authority, leaf := testkey.Authority(now, "ca"), testkey.Leaf(now, "signer")
	authority.NotBefore = now.Add(-4 * time.Hour)
	leaf.NotBefore, leaf.NotAfter, leaf.OCSPServer = now.Add(-3*time.Hour), now.Add(-time.Hour), []string{"http://127.0.0.1:1/"}
	root := ca.Issue(tb, authority, nil, nil)
	tsa := testtsa.Start(tb)
	tsa.Time = now.Add(-2 * time.Hour)
	clock := aegis.Options{Now: func() time.Time { return tsa.Time }}
	_, err = aegis.New(client, clock).Sign(tb.Context(), ref, aegis.Signing{
		Signer: k, Formats: []signature.Format{signature.Notary}, Certificates: []*x509.Certificate{k.Issue(tb, leaf, ca, root), root}, Timestamper: tsa,
	})
	ts.Check(err)
	for name, content := range map[string][]byte{
		"ca.pem": testkey.CertificatePEM(root), "tsa.pem": tsa.RootPEM(), "othertsa.pem": testtsa.Start(tb).RootPEM(),
	} {
		ts.Check(os.WriteFile(ts.MkAbs(name), content, 0o644))
	}
}
