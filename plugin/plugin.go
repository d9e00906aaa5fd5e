// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package plugin speaks the plugin contract 1.0 of the Notary Project
// (plugin-extensibility specification) over keys that somebody else holds: one
// command, one JSON request, one JSON answer.
//
// Keys come from a Keys, so that the package knows no key server. It writes
// nothing but JSON to either stream: notation takes any other byte on the error
// stream for a malformed plugin.
package plugin

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

const (
	// Name is the plugin's: its program is notation-aegis.
	Name = "aegis"
	// ContractVersion is the only one there is.
	ContractVersion = "1.0"
	// maxRequest bounds what is read of a request, in bytes: payloads are
	// descriptors, and an envelope's are not much larger.
	maxRequest = 1 << 20
)

// Code is an error code of the contract.
type Code string

// The codes.
const (
	Validation         Code = "VALIDATION_ERROR"
	UnsupportedVersion Code = "UNSUPPORTED_CONTRACT_VERSION"
	AccessDenied       Code = "ACCESS_DENIED"
	Timeout            Code = "TIMEOUT"
	Throttled          Code = "THROTTLED"
	Generic            Code = "ERROR"
)

// Error is an answer that is a failure.
type Error struct {
	Code     Code              `json:"errorCode"`
	Message  string            `json:"errorMessage,omitempty"`
	Metadata map[string]string `json:"errorMetadata,omitempty"`
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

func invalid(format string, args ...any) *Error {
	return &Error{Code: Validation, Message: fmt.Sprintf(format, args...)}
}

// Key is a key that can sign.
type Key struct {
	Signer signature.Signer
	// Type is the key's, or its certificate's where the key may not be read.
	Type signature.KeyType
	// Chain is the key's certificate and its issuers, leaf first; nil where
	// nobody has it.
	Chain []*x509.Certificate
	// Warning is something to be said beside a success.
	Warning string
}

// Keys opens keys. config is the plugin configuration, which holds no secret.
type Keys interface {
	// Describe returns the key's type and chain with as little as possible:
	// what config says may be enough. The signer may be nil.
	Describe(ctx context.Context, id string, config map[string]string) (Key, error)
	// Open returns a key that can sign.
	Open(ctx context.Context, id string, config map[string]string) (Key, error)
	// Classify maps an error of either to a code, "" for one it does not know.
	Classify(err error) Code
	// Revoked returns the SHA-256 fingerprints, in lower-case hexadecimal, of the
	// certificates that config calls revoked, and false when it names no list.
	Revoked(config map[string]string) (map[string]bool, bool, error)
}

// Plugin answers requests.
type Plugin struct {
	Keys    Keys
	Version string
	// URL is where the plugin is described.
	URL string
	// Agent names the program in envelopes.
	Agent string
	// Now is the clock.
	Now func() time.Time
	// LookUp looks certificates up at the OCSP responders and in the CRLs that they
	// name, leaf first and root last, and returns what it found for each; nil asks
	// nobody.
	LookUp func(ctx context.Context, chain []*x509.Certificate) []Status
}

// Status is what was found about a certificate. The zero Status says that nobody
// could tell.
type Status struct {
	// Unnamed means that the certificate names nobody who could tell.
	Unnamed bool
	// Good and Revoked are what was said; neither where nobody could tell.
	Good, Revoked bool
	// By is who said so, or why nobody could.
	By string
}

// Run answers one invocation: args are those after the program's name. It returns
// the exit code.
func (p *Plugin) Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	answer, warning, err := p.answer(ctx, args, stdin)
	if err == nil {
		var text []byte
		if text, err = json.Marshal(answer); err == nil {
			if _, err = stdout.Write(append(text, '\n')); err == nil {
				if warning != "" {
					_ = json.NewEncoder(stderr).Encode(map[string]string{"warning": warning})
				}
				return 0
			}
		}
	}
	// The answer of last resort: it cannot fail to encode.
	_ = json.NewEncoder(stderr).Encode(p.failure(ctx, err))
	return 1
}

// failure gives an error its code.
func (p *Plugin) failure(ctx context.Context, err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	code := p.Keys.Classify(err)
	switch {
	case code != "":
	case errors.Is(err, context.DeadlineExceeded), errors.Is(ctx.Err(), context.DeadlineExceeded):
		code = Timeout
	default:
		code = Generic
	}
	return &Error{Code: code, Message: err.Error()}
}

func (p *Plugin) answer(ctx context.Context, args []string, stdin io.Reader) (answer any, warning string, err error) {
	if len(args) != 1 {
		return nil, "", invalid("one command is expected, not %d", len(args))
	}
	handle := map[string]func(context.Context, []byte) (any, string, error){
		"get-plugin-metadata": p.metadata,
		"describe-key":        p.describeKey,
		"generate-signature":  p.generateSignature,
		"generate-envelope":   p.generateEnvelope,
		"verify-signature":    p.verifySignature,
	}[args[0]]
	if handle == nil {
		return nil, "", invalid("%q is no command of the plugin contract", args[0])
	}
	data, err := io.ReadAll(io.LimitReader(stdin, maxRequest+1))
	if err != nil {
		return nil, "", fmt.Errorf("read the request: %w", err)
	}
	if len(data) > maxRequest {
		return nil, "", invalid("a request of more than %d bytes", maxRequest)
	}
	return handle(ctx, data)
}

// decode reads a request. Fields that later versions of the contract may add are
// passed over.
func decode(data []byte, into any) error {
	if len(data) == 0 {
		return invalid("the request is empty")
	}
	for i, b := range data {
		// JSON may hold any Unicode, but the contract's texts are ASCII, and what
		// looks like another key or identity must not pass for it.
		if b >= 0x80 {
			return invalid("the request is not ASCII at byte %d", i)
		}
	}
	if err := json.Unmarshal(data, into); err != nil {
		return invalid("the request is not the JSON that is expected: %v", err)
	}
	return nil
}

func version(v string) error {
	switch v {
	case ContractVersion:
		return nil
	case "":
		return invalid("contractVersion is missing")
	}
	return &Error{Code: UnsupportedVersion, Message: fmt.Sprintf("contract version %q is not supported; %s is", v, ContractVersion),
		Metadata: map[string]string{"supportedVersions": ContractVersion}}
}

type metadataAnswer struct {
	Name         string   `json:"name"`
	Description  string   `json:"description"`
	Version      string   `json:"version"`
	URL          string   `json:"url"`
	Versions     []string `json:"supportedContractVersions"`
	Capabilities []string `json:"capabilities"`
}

func (p *Plugin) metadata(_ context.Context, data []byte) (any, string, error) {
	var request struct {
		Config map[string]string `json:"pluginConfig"`
	}
	if err := decode(data, &request); err != nil {
		return nil, "", err
	}
	return metadataAnswer{
		Name:        Name,
		Description: "Sign with keys in HashiCorp Vault or OpenBao Transit",
		Version:     p.Version,
		URL:         p.URL,
		Versions:    []string{ContractVersion},
		Capabilities: []string{"SIGNATURE_GENERATOR.RAW", "SIGNATURE_GENERATOR.ENVELOPE",
			"SIGNATURE_VERIFIER.TRUSTED_IDENTITY", "SIGNATURE_VERIFIER.REVOCATION_CHECK"},
	}, "", nil
}
