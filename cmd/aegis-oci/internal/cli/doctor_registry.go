// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// registry checks the way to a reference. The error is a usage error, or what
// ended the command.
func (d *doctor) registry(ctx context.Context, text string) error {
	ref, err := parseRef(text)
	if err != nil {
		return err
	}
	client, err := d.o.registryFlags.client(d.a)
	if err != nil {
		return err
	}
	repo, err := client.Repository(ref)
	if err != nil {
		return err
	}
	start := time.Now()
	p, err := repo.Probe(ctx)
	took := time.Since(start)
	var e *registry.Error
	denied := errors.As(err, &e) && (e.Kind == registry.Unauthorized || e.Kind == registry.Denied)
	if err != nil && !denied {
		return d.failed(ctx, "registry", err)
	}
	d.add("registry", checkOK, p.URL, "")
	d.registryTLS(p, denied)
	if err := d.credentials(ctx, repo, err); err != nil || denied {
		return err
	}
	d.clock("registry clock", p.Date, took)
	return d.reference(ctx, repo)
}

func (d *doctor) registryTLS(p registry.Probe, denied bool) {
	switch {
	case denied:
		d.add("registry tls", checkSkipped, "the registry did not let us in", "")
	case p.TLS == "":
		d.add("registry tls", checkWarn, "plain HTTP: credentials and models cross the network in the clear; signatures still hold", "fine on this machine; elsewhere give the registry a certificate")
	case d.o.registryFlags.insecure:
		d.add("registry tls", checkWarn, p.TLS+", and --insecure does not check the certificate", "--ca-file FILE with the registry's certificate authority")
	case time.Until(p.Expires) < 12*time.Hour:
		d.add("registry tls", checkWarn, p.TLS+", certificate good until "+p.Expires.UTC().Format(time.RFC3339), "renew the registry's certificate")
	default:
		d.add("registry tls", checkOK, p.TLS+", certificate good until "+p.Expires.UTC().Format(time.RFC3339), "")
	}
}

// credentials judges the answer of the base endpoint, refused or not.
func (d *doctor) credentials(ctx context.Context, repo *registry.Repository, refusal error) error {
	const name = "registry credentials"
	has, err := repo.HasCredential(ctx)
	switch {
	case err != nil:
		return d.failed(ctx, name, err)
	case refusal != nil && has:
		d.add(name, checkFail, refusal.Error(), "aegis-oci login "+repo.Reference().Registry+" with other credentials")
	case refusal != nil:
		return d.failed(ctx, name, refusal)
	case has:
		d.add(name, checkOK, "accepted", "")
	default:
		d.add(name, checkOK, "none known, and none asked for", "")
	}
	return nil
}

// reference resolves REF and finds out how its referrers are listed.
func (d *doctor) reference(ctx context.Context, repo *registry.Repository) error {
	const name, list = "reference", "referrers"
	skip := func(why string) { d.add(list, checkSkipped, why, "") }
	ref := repo.Reference()
	if ref.Tag == "" && ref.Digest == "" {
		d.add(name, checkSkipped, "REF has neither tag nor digest", "")
		skip("there is no manifest to ask about")
		return nil
	}
	pinned, err := repo.Resolve(ctx)
	var e *registry.Error
	if errors.As(err, &e) && e.Kind == registry.NotFound {
		d.add(name, checkWarn, ref.String()+" is not there, or not for these credentials", "push it, or check repository and tag")
		skip("there is no manifest to ask about")
		return nil
	}
	if err != nil {
		skip("there is no manifest to ask about")
		return d.failed(ctx, name, err)
	}
	d.add(name, checkOK, pinned.Reference(), "")
	has, err := repo.HasReferrersAPI(ctx, pinned.Subject())
	if err != nil {
		return d.failed(ctx, list, err)
	}
	n := 0
	for _, err := range repo.Referrers(ctx, pinned.Subject()) {
		if err != nil {
			return d.failed(ctx, list, err)
		}
		n++
	}
	how := "by the referrers API"
	if !has {
		how = "by a tag, since the registry has no referrers API"
		var itself *registry.FallbackError
		if err := repo.Listable(ctx, pinned.Subject()); errors.As(err, &itself) {
			d.add(list, checkWarn, err.Error(), "sign with --signature-format cosign-tag, which needs no list")
			return nil
		} else if err != nil {
			return d.failed(ctx, list, err)
		}
	}
	d.add(list, checkOK, count(n, "referrer")+" attached, listed "+how, "")
	return nil
}
