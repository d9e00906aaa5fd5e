// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vaultsetup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Reader reads one path of Vault's API.
type Reader interface {
	// Read returns the answer's data; found is false when nothing is there. An
	// error means that it could not be told.
	Read(ctx context.Context, path string) (data map[string]any, found bool, err error)
}

// Status is what a comparison found.
type Status string

// The statuses.
const (
	Same    Status = "same"
	Differs Status = "differs"
	Missing Status = "missing"
	Unknown Status = "unknown" // it could not be read
)

// Check is one setting, planned and real.
type Check struct {
	Path   string `json:"path"`
	Field  string `json:"field,omitempty"`
	Status Status `json:"status"`
	Want   string `json:"want,omitempty"`
	Have   string `json:"have,omitempty"`
	// Detail says what is wrong where the values alone do not.
	Detail string `json:"detail,omitempty"`
}

// Check compares the plan with what r reads. It changes nothing, and goes on after
// a path that cannot be read: an error is a check of status unknown, unless ctx is
// done.
func (p Plan) Check(ctx context.Context, r Reader) ([]Check, error) {
	var all []Check
	for _, res := range p.Resources {
		data, found, err := r.Read(ctx, res.Path)
		switch {
		case ctx.Err() != nil:
			return nil, err
		case err != nil:
			detail := err.Error()
			if res.Kind == Auth {
				detail += `; Vault wants "sudo" beside "read" for looking at one auth mount`
			}
			all = append(all, Check{Path: res.Path, Status: Unknown, Detail: detail})
			continue
		case !found:
			all = append(all, Check{Path: res.Path, Status: Missing, Detail: title(res)})
			continue
		}
		for _, f := range res.Fields {
			all = append(all, compare(res, f, data))
		}
	}
	return all, nil
}

func compare(res Resource, f Field, data map[string]any) Check {
	c := Check{Path: res.Path, Field: f.Name, Status: Same}
	have, there := data[f.Name]
	if res.Kind == Policy {
		return comparePolicy(c, f.Value.(string), fmt.Sprint(have))
	}
	c.Want, c.Have = canonical(f.Value), canonical(have)
	if !there && f.Name == "allow_plaintext_backup" {
		c.Have = "false" // answers leave out what is not so
	}
	if c.Want == c.Have {
		return c
	}
	c.Status = Differs
	if res.Kind == Key && f.Name == "type" && !slices.Contains(SigningKeyTypes, c.Have) {
		c.Detail = "a key of this type cannot sign, and the type of a key is fixed: do not delete it, choose another --key-name"
	}
	return c
}

// canonical makes planned and real values comparable: order in lists does not
// count, durations are seconds, an empty list is the same as none.
func canonical(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return strings.TrimSpace(v)
	case time.Duration:
		return strconv.FormatInt(int64(v/time.Second), 10)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case []string:
		return strings.Join(slices.Sorted(slices.Values(v)), ", ")
	case []any:
		var items []string
		for _, item := range v {
			items = append(items, canonical(item))
		}
		slices.Sort(items)
		return strings.Join(items, ", ")
	case map[string]string:
		return describe(v)
	case map[string]any:
		flat := make(map[string]string, len(v))
		for k, item := range v {
			flat[k] = canonical(item)
		}
		return describe(flat)
	case json.Number:
		return v.String()
	}
	return fmt.Sprint(v)
}

// ErrDiffers means that something in Vault or in a token is not as planned.
var ErrDiffers = errors.New("it is not as planned")

// ErrUnknown means that nothing was found to differ, and not all could be read.
var ErrUnknown = errors.New("it could not be told")

// Verdict is nil when all checks are Same.
func Verdict(checks []Check) error {
	unknown := len(checks) == 0
	for _, c := range checks {
		switch c.Status {
		case Differs, Missing:
			return ErrDiffers
		case Unknown:
			unknown = true
		}
	}
	if unknown {
		return ErrUnknown
	}
	return nil
}
