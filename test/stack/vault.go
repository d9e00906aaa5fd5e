// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/openbao/openbao/command/server"
	baohttp "github.com/openbao/openbao/http"
	"github.com/openbao/openbao/internalshared/configutil"
	"github.com/openbao/openbao/sdk/v2/logical"
	"github.com/openbao/openbao/sdk/v2/physical"
	"github.com/openbao/openbao/sdk/v2/physical/file"
	"github.com/openbao/openbao/sdk/v2/physical/inmem"
	"github.com/openbao/openbao/vault"
	"github.com/openbao/openbao/version"
)

// keysFile holds the unseal key beside the data of a -vault-storage directory.
const keysFile = "aegis-stack-keys.json"

// keys are what initialising the core gave.
type keys struct {
	RootToken string `json:"rootToken"`
	UnsealKey string `json:"unsealKey"` // hex
}

// bao is a running OpenBao server.
type bao struct {
	url      string
	auditLog string
	keys     keys
	stop     func()
}

// startVault serves an initialised and unsealed core with Transit at transit/ and
// a file audit device. An error of the running server goes to failed.
func startVault(ctx context.Context, opts options, dir string, certs *certificates, failed chan<- error) (*bao, error) {
	core, err := newCore(opts.vaultStorage)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", opts.vaultAddr)
	if err != nil {
		_ = core.Shutdown()
		return nil, fmt.Errorf("starting OpenBao: %w", err)
	}
	started := &bao{auditLog: filepath.Join(dir, "audit.log"), url: "http://" + listener.Addr().String()}
	if opts.vaultStorage != "" {
		// The stored audit table names this path: it must outlive the work directory.
		started.auditLog = filepath.Join(opts.vaultStorage, "audit.log")
	}
	if certs != nil {
		started.url = "https://" + listener.Addr().String()
	}
	srv := &http.Server{
		Handler:           baohttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: &configutil.Listener{}}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	started.stop = func() {
		shutdown(srv)
		_ = core.ShutdownWait()
		_ = listener.Close()
	}
	if started.keys, err = open(ctx, core, opts.vaultStorage, started.auditLog); err != nil {
		started.stop()
		return nil, err
	}
	go serve(srv, listener, certs, "OpenBao", failed)
	return started, nil
}

// newCore makes a sealed core that stores in dir, or in memory if dir is empty.
func newCore(dir string) (*vault.Core, error) {
	logger := hclog.New(&hclog.LoggerOptions{Name: "openbao", Level: hclog.Warn, Output: os.Stderr})
	storage, err := newStorage(dir, logger)
	if err != nil {
		return nil, fmt.Errorf("opening OpenBao's storage: %w", err)
	}
	// Releases get their version at link time; the module's source says 2.0.0-HEAD.
	version.Version, version.VersionPrerelease = "2.4.0", ""
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:           storage,
		LogicalBackends:    secretsEngines(),
		CredentialBackends: authMethods(),
		AuditBackends:      auditDevices(),
		BuiltinRegistry:    catalog{auth: authMethods(), secrets: secretsEngines()},
		Logger:             logger,
		LogLevel:           "warn",
		NumRollbackWorkers: 1,
		// OpenBao takes audit devices from its configuration file only, unless told so.
		RawConfig: &server.Config{UnsafeAllowAPIAuditCreation: true},
	})
	if err != nil {
		return nil, fmt.Errorf("making the OpenBao core: %w", err)
	}
	return core, nil
}

func newStorage(dir string, logger hclog.Logger) (physical.Backend, error) {
	if dir == "" {
		return inmem.NewInmem(nil, logger)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return file.NewFileBackend(map[string]string{"path": filepath.Join(dir, "data")}, logger)
}

// open initialises a new core, or finds the key of an old one, and unseals it.
func open(ctx context.Context, core *vault.Core, storageDir, auditLog string) (keys, error) {
	old, err := core.Initialized(ctx)
	if err != nil {
		return keys{}, fmt.Errorf("asking whether OpenBao is initialised: %w", err)
	}
	if old {
		k, err := readKeys(storageDir)
		if err != nil {
			return keys{}, err
		}
		return k, unseal(core, k)
	}
	barrier := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}
	result, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: barrier, RecoveryConfig: &vault.SealConfig{}})
	if err != nil {
		return keys{}, fmt.Errorf("initialising OpenBao: %w", err)
	}
	k := keys{RootToken: result.RootToken, UnsealKey: hex.EncodeToString(result.SecretShares[0])}
	if err := saveKeys(storageDir, k); err != nil {
		return keys{}, err
	}
	if err := unseal(core, k); err != nil {
		return keys{}, err
	}
	return k, setUp(ctx, core, k.RootToken, auditLog)
}

func unseal(core *vault.Core, k keys) error {
	share, err := hex.DecodeString(k.UnsealKey)
	if err != nil {
		return fmt.Errorf("reading the unseal key: %w", err)
	}
	done, err := core.Unseal(share)
	if err != nil {
		return fmt.Errorf("unsealing OpenBao: %w", err)
	}
	if !done {
		return errors.New("unsealing OpenBao: the key did not open it")
	}
	return nil
}

// setUp enables the audit device and the Transit engine as the root token.
func setUp(ctx context.Context, core *vault.Core, token, auditLog string) error {
	steps := []struct {
		path string
		data map[string]any
	}{
		{"sys/audit/file", map[string]any{"type": "file", "options": map[string]any{"file_path": auditLog}}},
		{"sys/mounts/transit", map[string]any{"type": "transit"}},
	}
	for _, step := range steps {
		resp, err := core.HandleRequest(ctx, &logical.Request{
			Operation:   logical.UpdateOperation,
			Path:        step.path,
			ClientToken: token,
			Data:        step.data,
			Connection:  &logical.Connection{},
		})
		if err == nil && resp.IsError() {
			err = resp.Error()
		}
		if err != nil {
			return fmt.Errorf("setting up OpenBao: writing %s: %w", step.path, err)
		}
	}
	return nil
}

func readKeys(dir string) (keys, error) {
	content, err := os.ReadFile(filepath.Join(dir, keysFile))
	if errors.Is(err, fs.ErrNotExist) {
		return keys{}, fmt.Errorf("%s holds an initialised OpenBao whose unseal key is not there", dir)
	}
	if err != nil {
		return keys{}, fmt.Errorf("reading the unseal key: %w", err)
	}
	var k keys
	if err := json.Unmarshal(content, &k); err != nil {
		return keys{}, fmt.Errorf("reading the unseal key: %w", err)
	}
	return k, nil
}

func saveKeys(dir string, k keys) error {
	if dir == "" {
		return nil
	}
	content, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("keeping the unseal key: %w", err)
	}
	return writeWhole(filepath.Join(dir, keysFile), content)
}
