// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"go.yaml.in/yaml/v3"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// formats are the names that --signature-format takes, without its aliases: a
// policy has one spelling for one thing.
var formats = []string{"sigstore", "notary", "notary-cose", "cosign-tag", "oms"}

// readConstraints reads what a statement asks for besides its keys, which are in
// s already.
func readConstraints(o object, s *Statement) error {
	var err error
	if s.Require, err = o.integer("require", maxVersion); err != nil {
		return err
	}
	if s.Require == 0 {
		s.Require = 1
	}
	if s.Require > len(s.Keys) {
		return fault(o.fields["require"], o.at("require"), "%d signers cannot be had from %d keys: each counts once", s.Require, len(s.Keys))
	}
	names, err := o.optionalTexts("formats", func(f string) string {
		if !slices.Contains(formats, f) {
			return fmt.Sprintf("%q is not a signature format; known are %s", clip(f), strings.Join(formats, ", "))
		}
		return ""
	})
	if err != nil {
		return err
	}
	for _, f := range names {
		s.Formats = append(s.Formats, signature.Format(f))
	}
	if err := readTimes(o, s); err != nil {
		return err
	}
	if s.RequireRepository, err = o.boolean("requireRepository"); err != nil {
		return err
	}
	if s.Annotations, err = o.texts("annotations"); err != nil {
		return err
	}
	if s.Builder, err = o.texts("builder"); err != nil {
		return err
	}
	if n, found := o.fields["revoked"]; found {
		s.Revoked, err = readRevoked(n, o.at("revoked"), s.Keys)
	}
	return err
}

// readTimes reads what a statement asks for about when signatures were made.
func readTimes(o object, s *Statement) error {
	var err error
	if s.Timestamps, err = readTimestamps(o); err != nil {
		return err
	}
	if s.MaxAge, err = readMaxAge(o); err != nil {
		return err
	}
	s.NotBefore, err = o.time("notBefore")
	return err
}

func readTimestamps(o object) (Timestamps, error) {
	n, found := o.fields["timestamps"]
	if !found {
		return Timestamps{}, nil
	}
	in, err := objectOf(n, o.at("timestamps"))
	if err != nil {
		return Timestamps{}, err
	}
	if err := in.knowsOnly("certificatesFile", "required", "revocation"); err != nil {
		return Timestamps{}, err
	}
	if _, found := in.fields["certificatesFile"]; !found {
		return Timestamps{}, fault(n, in.path, "field \"certificatesFile\" is missing")
	}
	var t Timestamps
	if t.CertificatesFile, err = in.optional("certificatesFile", checkFile); err != nil {
		return Timestamps{}, err
	}
	if t.Required, err = in.boolean("required"); err != nil {
		return Timestamps{}, err
	}
	t.Revocation, err = in.revocation()
	return t, err
}

// revocation reads the field of that name.
func (o object) revocation() (Revocation, error) {
	text, err := o.optional("revocation", func(s string) string {
		if s != string(Enforce) && s != string(Log) {
			return fmt.Sprintf("%q is neither enforce nor log", clip(s))
		}
		return ""
	})
	return Revocation(text), err
}

// duration is what maxAge.is may be: hours, minutes and seconds, as Go writes
// them.
var duration = regexp.MustCompile(`^([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$`)

func readMaxAge(o object) (MaxAge, error) {
	n, found := o.fields["maxAge"]
	if !found {
		return MaxAge{}, nil
	}
	in, err := objectOf(n, o.at("maxAge"))
	if err != nil {
		return MaxAge{}, err
	}
	if err := in.knowsOnly("of", "is"); err != nil {
		return MaxAge{}, err
	}
	for _, field := range []string{"of", "is"} {
		if _, found := in.fields[field]; !found {
			return MaxAge{}, fault(n, in.path, "field %q is missing", field)
		}
	}
	of, err := in.optional("of", func(s string) string {
		if s != OfClaim && s != OfTimestamp {
			return fmt.Sprintf("%q is neither claim nor timestamp", clip(s))
		}
		return ""
	})
	if err != nil {
		return MaxAge{}, err
	}
	var is time.Duration
	_, err = in.optional("is", func(s string) string {
		var err error
		if is, err = time.ParseDuration(s); !duration.MatchString(s) || err != nil || is <= 0 {
			return fmt.Sprintf("%q is not a time such as 2160h or 1h30m", clip(s))
		}
		return ""
	})
	return MaxAge{Of: of, Is: is}, err
}

// ParseRevoked reads a document that is the field revoked of a statement and
// nothing else. Names in its keys are those in known; any other is an error.
func ParseRevoked(data []byte, known ...string) (Revoked, error) {
	root, err := readDocument(data)
	if err != nil {
		return Revoked{}, err
	}
	keys := make([]Key, len(known))
	for i, name := range known {
		keys[i] = Key{Name: name}
		if checkTransit(name) == "" {
			keys[i].Transit = name
		}
	}
	return readRevoked(root, "", keys)
}

func readRevoked(n *yaml.Node, path string, keys []Key) (Revoked, error) {
	o, err := objectOf(n, path)
	if err != nil {
		return Revoked{}, err
	}
	if err := o.knowsOnly("subjects", "keys"); err != nil {
		return Revoked{}, err
	}
	if len(o.fields) == 0 {
		return Revoked{}, fault(n, path, "it is empty")
	}
	subjects, err := o.optionalTexts("subjects", checkDigest)
	if err != nil {
		return Revoked{}, err
	}
	var r Revoked
	for _, s := range subjects {
		r.Subjects = append(r.Subjects, digest.Digest(s))
	}
	_, err = o.optionalTexts("keys", func(s string) string {
		if checkDigest(s) == "" {
			r.Keys = append(r.Keys, digest.Digest(s))
			return ""
		}
		v, reason := keyVersion(s, keys)
		if reason == "" {
			r.Versions = append(r.Versions, v)
		}
		return reason
	})
	return r, err
}

var sha256Digest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func checkDigest(s string) string {
	if !sha256Digest.MatchString(s) {
		return fmt.Sprintf("%q is not sha256: and 64 hexadecimal digits in lower case", clip(s))
	}
	return ""
}

var nameAtVersion = regexp.MustCompile(`^(.+)@([1-9][0-9]{0,8})$`)

// keyVersion reads NAME@VERSION. A name that no entry has, and one whose versions
// nobody could tell, would revoke nothing: both are errors.
func keyVersion(s string, keys []Key) (KeyVersion, string) {
	m := nameAtVersion.FindStringSubmatch(s)
	if m == nil {
		return KeyVersion{}, fmt.Sprintf("%q is neither NAME@VERSION nor sha256: and the digest of a public key", clip(s))
	}
	i := slices.IndexFunc(keys, func(k Key) bool { return k.Name == m[1] })
	switch {
	case i < 0:
		return KeyVersion{}, fmt.Sprintf("no key here is named %q", clip(m[1]))
	case keys[i].Transit == "":
		return KeyVersion{}, fmt.Sprintf("%q is no Transit key, and its versions have no numbers: revoke it by sha256:", clip(m[1]))
	}
	version := 0
	for _, d := range m[2] {
		version = version*10 + int(d-'0')
	}
	return KeyVersion{Name: m[1], Version: version}, ""
}
