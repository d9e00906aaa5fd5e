// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// PushResult is what Push did.
type PushResult struct {
	// Reference is "registry/repository@digest".
	Reference    string        `json:"reference"`
	Tags         []string      `json:"tags"`
	Digest       digest.Digest `json:"digest"`
	MediaType    string        `json:"mediaType"`
	ArtifactType string        `json:"artifactType"`
	// Size is the manifest's length plus that of all blobs, in bytes.
	Size  int64 `json:"size"`
	Files int   `json:"files"`
	// BytesUploaded counts blobs that the registry did not have yet.
	BytesUploaded int64           `json:"bytesUploaded"`
	Signatures    []SignatureMade `json:"signatures"`
	Retries       int             `json:"retries"`
	Durations     Durations       `json:"durations"`
}

// SignResult is what Sign did.
type SignResult struct {
	Reference  string          `json:"reference"`
	Digest     digest.Digest   `json:"digest"`
	MediaType  string          `json:"mediaType"`
	Signatures []SignatureMade `json:"signatures"`
	Durations  Durations       `json:"durations"`
}

// SignatureMade is one signature as it was attached.
type SignatureMade struct {
	Format signature.Format `json:"format"`
	// Digest is that of the referrer's manifest.
	Digest     digest.Digest `json:"digest"`
	MediaType  string        `json:"mediaType"`
	Key        string        `json:"key"`
	KeyVersion int           `json:"keyVersion,omitempty"`
	// SelfVerified is false when no way to check the signature was at hand.
	SelfVerified   bool   `json:"selfVerified"`
	VaultRequestID string `json:"vaultRequestID,omitempty"`

	// Envelope is the signature itself, for --bundle and --signature-dir.
	Envelope []byte `json:"-"`
}

// VerifyResult is a verification that succeeded. A refusal is an error.
type VerifyResult struct {
	Reference  string             `json:"reference"`
	Digest     digest.Digest      `json:"digest"`
	Verified   bool               `json:"verified"`
	Policy     string             `json:"policy,omitempty"`
	Signatures []SignatureCounted `json:"signatures"`
	// Path, Files and Size are set where files were checked too.
	Path  string `json:"path,omitempty"`
	Files int    `json:"files,omitempty"`
	Size  int64  `json:"size,omitempty"`
	// Partial reports that layers of the model are not in the directory.
	Partial   bool      `json:"partial,omitempty"`
	Durations Durations `json:"durations"`
}

// SignatureCounted is one signature that was accepted.
type SignatureCounted struct {
	Format signature.Format `json:"format"`
	// Digest is that of the referrer's manifest.
	Digest     digest.Digest    `json:"digest"`
	Key        string           `json:"key"`
	KeyVersion int              `json:"keyVersion,omitempty"`
	Claims     signature.Claims `json:"claims"`
}

// PullResult is what Pull did. Verified is false only from PullUnverified.
type PullResult struct {
	Reference  string             `json:"reference"`
	Digest     digest.Digest      `json:"digest"`
	Verified   bool               `json:"verified"`
	Policy     string             `json:"policy,omitempty"`
	Signatures []SignatureCounted `json:"signatures"`
	Path       string             `json:"path"`
	Files      int                `json:"files"`
	Size       int64              `json:"size"`
	// BytesFetched came over the network; BytesReused were already on disk and
	// were hashed again.
	BytesFetched int64 `json:"bytesFetched"`
	BytesReused  int64 `json:"bytesReused"`
	// Partial reports that layers of the model are not installed.
	Partial bool `json:"partial,omitempty"`
	// AlreadyThere reports that the same model was installed and whole.
	AlreadyThere bool      `json:"alreadyThere"`
	Retries      int       `json:"retries"`
	Durations    Durations `json:"durations"`
}

// Durations maps a step to the seconds it took.
type Durations map[string]float64

// stopwatch fills Durations; now is the clock.
type stopwatch struct {
	now   func() time.Time
	start time.Time
	last  time.Time
	d     Durations
}

func newStopwatch(now func() time.Time) *stopwatch {
	t := now()
	return &stopwatch{now: now, start: t, last: t, d: Durations{}}
}

// lap records the time since the last lap under name.
func (s *stopwatch) lap(name string) {
	t := s.now()
	s.d[name] = seconds(t.Sub(s.last))
	s.last = t
}

func (s *stopwatch) total() Durations {
	s.d["total"] = seconds(s.now().Sub(s.start))
	return s.d
}

// seconds rounds to the tenth of a millisecond: more digits are noise.
func seconds(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond)) / float64(time.Second)
}

func counted(v verify.Verified) []SignatureCounted {
	accepted := v.Accepted()
	out := make([]SignatureCounted, len(accepted))
	for i, a := range accepted {
		out[i] = SignatureCounted{
			Format:     a.Format,
			Digest:     a.Manifest,
			Key:        a.Key,
			KeyVersion: a.KeyVersion,
			Claims:     a.Claims,
		}
	}
	return out
}
