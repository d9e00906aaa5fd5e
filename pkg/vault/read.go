// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
)

// Read returns the data at an API path of the session's namespace, for comparing
// what a Vault has with what it should have. found is false when nothing is there;
// any other lack of an answer is an *Error.
func (s *Session) Read(ctx context.Context, path string) (data map[string]any, found bool, err error) {
	op := "read " + path
	if !isPath(path) {
		return nil, false, &Error{Op: op, Kind: BadConfig, Detail: "this is no path of the API"}
	}
	a, err := s.do(ctx, call{op: op, path: path, namespace: s.cfg.Namespace, capability: "read"})
	var e *Error
	if errors.As(err, &e) && notThere(e) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if len(a.Data) == 0 {
		return nil, false, nil
	}
	if json.Unmarshal(a.Data, &data) != nil {
		return nil, false, &Error{Op: op, Path: path, Kind: Malformed, Detail: "its data is no object", RequestID: a.RequestID}
	}
	return data, data != nil, nil
}

// notThere: 404, and the 400 with which sys/mounts and sys/auth answer for a mount
// that does not exist.
func notThere(e *Error) bool {
	if e.Kind == KeyNotFound {
		return true
	}
	text := strings.ToLower(e.Detail)
	return e.Status == http.StatusBadRequest && (strings.Contains(text, "no secret engine mount") || strings.Contains(text, "no auth engine"))
}
