// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package auditlog

import (
	"encoding/json"
	"strings"
)

// Event is one signature that Transit made, as the log has it: who asked for it,
// with which token, from where and when. One request may make several.
type Event struct {
	RequestID string `json:"requestID"`
	// Time is the log's own text.
	Time string `json:"time"`
	// Key is "MOUNT/NAME", without the namespace.
	Key        string `json:"key"`
	Namespace  string `json:"namespace,omitempty"`
	KeyVersion int    `json:"keyVersion,omitempty"`
	// DisplayName, Role, Metadata and EntityID say who; a login method fills
	// Metadata, a JWT role by its claim_mappings.
	DisplayName string            `json:"displayName,omitempty"`
	Role        string            `json:"role,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	EntityID    string            `json:"entityID,omitempty"`
	Policies    []string          `json:"policies,omitempty"`
	TokenType   string            `json:"tokenType,omitempty"`
	// TokenTTL is in seconds; zero is a token that never expires, or a log that
	// does not say.
	TokenTTL    int64  `json:"tokenTTL"`
	TokenIssued string `json:"tokenIssued,omitempty"`
	// RemoteAddress is what Vault saw; behind a proxy, the proxy's.
	RemoteAddress string `json:"remoteAddress,omitempty"`
	// Log is the name of the log that was read.
	Log string `json:"log,omitempty"`

	item    int    // which of the request's signatures
	value   string // as it stands in the log
	foreign bool   // hashed under another salt
}

// id tells one signature of one request from all others.
func (e Event) id() eventID { return eventID{e.RequestID, e.item} }

type eventID struct {
	request string
	item    int
}

// entry is what is read of one line.
type entry struct {
	Time string `json:"time"`
	Type string `json:"type"`
	// Error may have any form; only its presence counts.
	Error json.RawMessage `json:"error"`
	Auth  struct {
		DisplayName string            `json:"display_name"`
		EntityID    string            `json:"entity_id"`
		Policies    []string          `json:"policies"`
		Metadata    map[string]string `json:"metadata"`
		TokenType   string            `json:"token_type"`
		TokenTTL    int64             `json:"token_ttl"`
		TokenIssued string            `json:"token_issue_time"`
	} `json:"auth"`
	Request struct {
		ID        string `json:"id"`
		Operation string `json:"operation"`
		Data      struct {
			Hash json.RawMessage `json:"hash_algorithm"`
		} `json:"data"`
		Path          string `json:"path"`
		MountPoint    string `json:"mount_point"`
		MountType     string `json:"mount_type"`
		RemoteAddress string `json:"remote_address"`
		Namespace     struct {
			Path string `json:"path"`
		} `json:"namespace"`
	} `json:"request"`
	Response struct {
		Data json.RawMessage `json:"data"`
		// Wrap means that the answer went into a wrapping token.
		Wrap json.RawMessage `json:"wrap_info"`
	} `json:"response"`
}

// made is one signature in an answer. transit/sign answers with one, or with a
// list for a batch; a field of a failed item may be absent or an empty text.
type made struct {
	Signature  string `json:"signature"`
	KeyVersion int    `json:"key_version"`
}

func (e *entry) failed() bool { return given(e.Error) }

func given(raw json.RawMessage) bool {
	text := string(raw)
	return text != "" && text != "null" && text != `""`
}

// key returns the Transit key that the entry asks to sign. PKI and SSH have a
// path called sign too. mount_type is in every log since Vault 1.5.
func (e *entry) key() (key string, ok bool) {
	r := &e.Request
	if r.MountType != "" && r.MountType != "transit" {
		return "", false
	}
	path := strings.TrimPrefix(r.Path, r.Namespace.Path)
	mount := strings.TrimPrefix(r.MountPoint, r.Namespace.Path)
	rest, found := strings.CutPrefix(path, mount+"sign/")
	if mount == "" || !found {
		// The last one: a mount may have a segment of this name, a key has no slash.
		i := strings.LastIndex(path, "/sign/")
		if i < 0 {
			return "", false
		}
		mount, rest = path[:i+1], path[i+len("/sign/"):]
	}
	// MOUNT/sign/NAME/HASH is an older way to name the hash.
	name, _, _ := strings.Cut(rest, "/")
	return strings.TrimSuffix(mount, "/") + "/" + name, name != ""
}

// signatures returns what the answer holds, failed items left out and counted by
// their place all the same.
func (e *entry) signatures() (list []made, items []int, err error) {
	if len(e.Response.Data) == 0 {
		return nil, nil, nil
	}
	var data struct {
		made
		Batch []made `json:"batch_results"`
	}
	if err := json.Unmarshal(e.Response.Data, &data); err != nil {
		return nil, nil, err
	}
	if data.Signature != "" {
		return []made{data.made}, []int{0}, nil
	}
	for i, m := range data.Batch {
		if m.Signature != "" && m.KeyVersion > 0 {
			list, items = append(list, m), append(items, i)
		}
	}
	return list, items, nil
}

// hashed reports that Vault logged a hash in place of text.
func hashed(text string) bool { return !strings.HasPrefix(text, "vault:v") }

// hashName is the name of the message's hash as it stands in the log, "" where
// it was left out or is logged in the clear.
func (e *entry) hashName() string {
	var s string
	if json.Unmarshal(e.Request.Data.Hash, &s) != nil || !strings.HasPrefix(s, "hmac-") {
		return ""
	}
	return s
}

func (e *entry) event(key, log string) Event {
	return Event{
		RequestID: e.Request.ID, Time: e.Time, Key: key, Namespace: strings.Trim(e.Request.Namespace.Path, "/"),
		DisplayName: e.Auth.DisplayName, Role: e.Auth.Metadata["role"], Metadata: e.Auth.Metadata,
		EntityID: e.Auth.EntityID, Policies: e.Auth.Policies,
		TokenType: e.Auth.TokenType, TokenTTL: e.Auth.TokenTTL, TokenIssued: e.Auth.TokenIssued,
		RemoteAddress: e.Request.RemoteAddress, Log: log,
	}
}
