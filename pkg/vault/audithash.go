// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/aegis-oci/aegis-oci/pkg/internal/lazyregexp"
)

var hashForm = lazyregexp.New(`^hmac-[a-z0-9]{1,20}:[0-9a-f]{1,256}$`)

// AuditHash returns what the audit device called device writes in place of value.
// It needs "update" on sys/audit-hash/DEVICE. Errors are *Error.
func (s *Session) AuditHash(ctx context.Context, device, value string) (string, error) {
	op := "hash as the audit device " + clip(device, 100) + " does"
	device = strings.Trim(device, "/")
	if !isPath(device) {
		return "", &Error{Op: op, Kind: BadConfig, Detail: "this is no name of an audit device"}
	}
	path := "sys/audit-hash/" + device
	a, err := s.do(ctx, call{op: op, path: path, namespace: s.cfg.Namespace, capability: "update", body: map[string]string{"input": value}})
	if err != nil {
		return "", err
	}
	var d struct {
		Hash string `json:"hash"`
	}
	if json.Unmarshal(a.Data, &d) != nil || !hashForm().MatchString(d.Hash) {
		return "", &Error{Op: op, Path: path, Kind: Malformed, Detail: "it holds no hash", RequestID: a.RequestID}
	}
	return d.Hash, nil
}
