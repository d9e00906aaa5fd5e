// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/vectors"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
	"github.com/aegis-oci/aegis-oci/pkg/signature/simplesigning"
)

func (g *gen) makeKeys() {
	g.p256 = ec("p256", signature.ECDSAP256, p256)
	g.other = ec("other", signature.ECDSAP256, p256)
	g.p384 = ec("p384", signature.ECDSAP384, p384)
	g.p521 = ec("p521", signature.ECDSAP521, p521)
	g.ed25519 = ed("ed25519")
	g.rsa2048 = rsaKey("rsa2048", signature.RSA2048, 2048)
	g.rsa3072 = rsaKey("rsa3072", signature.RSA3072, 3072)
	g.ca = ec("ca", signature.ECDSAP256, p256)
	g.strangerCA = ec("stranger ca", signature.ECDSAP256, p256)
	g.tsa = ec("tsa", signature.ECDSAP256, p256)
}

func descriptor(mediaType string, content []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
}

// made signs one draft.
func made(k key, d signature.Draft) signature.Attachment {
	return must(signature.Sign(context.Background(), k, d))[0]
}

// attached is the referrer that a holds.
func attached(a signature.Attachment, to signature.Subject) vectors.Manifest {
	return vectors.Manifest{Text: string(must(a.Manifest(to))), Blobs: []vectors.Blob{bytesOf(a.Envelope)}}
}

// bundleReferrer attaches any blob as cosign attaches a bundle.
func bundleReferrer(to signature.Subject, blob vectors.Blob) vectors.Manifest {
	return referrer(to, sigstore.MediaType, sigstore.MediaType, blob, map[string]string{
		sigstore.AnnotationContent: "dsse-envelope", sigstore.AnnotationPredicateType: sigstore.PredicateType,
	})
}

// notaryReferrer attaches any blob as notation attaches an envelope.
func notaryReferrer(to signature.Subject, layerType string, envelope []byte) vectors.Manifest {
	return referrer(to, notary.ArtifactType, layerType, bytesOf(envelope), map[string]string{notary.AnnotationThumbprints: "[]"})
}

func referrer(to signature.Subject, artifactType, layerType string, blob vectors.Blob, annotations map[string]string) vectors.Manifest {
	subject := to.Descriptor()
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType, Config: emptyConfig(),
		Layers: []ocispec.Descriptor{descriptor(layerType, must(blob.Bytes()))}, Subject: &subject, Annotations: annotations,
	}
	m.SchemaVersion = 2
	return vectors.Manifest{Text: string(encode(m)), Blobs: []vectors.Blob{blob}}
}

func emptyConfig() ocispec.Descriptor {
	return descriptor(ocispec.MediaTypeEmptyJSON, []byte("{}"))
}

// classicManifest is cosign's manifest of signatures; subject may be nil.
func classicManifest(subject *ocispec.Descriptor, layers ...signature.Attachment) vectors.Manifest {
	config := []byte(`{"architecture":"","created":"0001-01-01T00:00:00Z","history":[],"os":"","rootfs":{"type":"layers","diff_ids":[]},"config":{}}`)
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: descriptor(ocispec.MediaTypeImageConfig, config), Subject: subject}
	m.SchemaVersion = 2
	out := vectors.Manifest{Blobs: []vectors.Blob{bytesOf(config)}}
	for _, a := range layers {
		m.Layers = append(m.Layers, a.Layer())
		out.Blobs = append(out.Blobs, bytesOf(a.Envelope))
	}
	out.Text = string(encode(m))
	return out
}

// classicLayer is a layer over any payload and signature.
func classicLayer(payload []byte, annotation string) signature.Attachment {
	return signature.Attachment{
		Format: signature.CosignTag, MediaType: simplesigning.MediaType, Envelope: payload,
		LayerAnnotations: map[string]string{simplesigning.AnnotationSignature: annotation},
	}
}
