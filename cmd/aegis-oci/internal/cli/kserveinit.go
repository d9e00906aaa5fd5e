// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

const kserveScheme = "aegis://"

// What KServe's webhook sets on a storage container.
const (
	kserveCABundleName = "CA_BUNDLE_CONFIGMAP_NAME"
	kserveCABundleDir  = "CA_BUNDLE_VOLUME_MOUNT_POINT"
	kserveCABundleFile = "cabundle.crt"
	kserveDockerConfig = "KSERVE_OCI_DOCKER_CONFIG"
	kserveDefaultCADir = "/etc/ssl/custom-certs"
	kserveMaxModels    = 64
	kserveTrustHint    = "the container of a ClusterStorageContainer: set AEGIS_KEY or AEGIS_POLICY=env://NAME there"
)

type kserveInitOptions struct {
	registryFlags
	vaultFlags
	trustFlags
	unpackFlags
}

func (a *app) kserveInitCmd() *cobra.Command {
	o := &kserveInitOptions{}
	cmd := &cobra.Command{
		Use:   "kserve-init [flags] URI DIR [URI DIR...]",
		Short: "Be KServe's storage initializer: verify models, then fetch them",
		Long: `Fetch each model into the directory beside it, as pull does, for a
ClusterStorageContainer of KServe: the arguments are those that KServe gives. A URI
is aegis://REGISTRY/REPOSITORY[:TAG][@DIGEST]. There is no way to leave the
verification out. What to trust comes from the container's environment, AEGIS_KEY
or AEGIS_POLICY=env://NAME, for KServe gives it no volume of its own.

KServe's CA bundle is trusted by the registry's client besides the system's
authorities, and by Vault's in their place, and KServe's docker configuration is
read, unless flags or Vault's own variables name others.

Example - what KServe runs:
  aegis-oci kserve-init aegis://registry.example.com/models/vad:v1 /mnt/models`,
		Args: minArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runKServeInit(cmd, o, args) },
	}
	f := cmd.Flags()
	o.unpackFlags.register(f)
	o.trustFlags.register(f)
	o.registryFlags.register(f)
	o.registerMirrors(f)
	o.registerRate(f)
	o.vaultFlags.register(f)
	return cmd
}

// kserveInitResult is what kserve-init did, one entry for each URI.
type kserveInitResult struct {
	Models []aegis.PullResult `json:"models"`
}

func (a *app) runKServeInit(cmd *cobra.Command, o *kserveInitOptions, args []string) error {
	if !o.trustFlags.given() {
		return &usageError{msg: "kserve-init verifies, and needs to know what to trust", hint: kserveTrustHint}
	}
	if o.policy == "-" {
		// Each model reads it, and there is nobody at a container's standard input.
		return &usageError{msg: "kserve-init takes no policy from standard input", hint: kserveTrustHint}
	}
	pulls, err := kservePulls(args)
	if err != nil {
		return err
	}
	if err := o.fromKServe(a); err != nil {
		return err
	}
	client, err := o.registryFlags.workflows(a, cmd)
	if err != nil {
		return err
	}
	unpack, err := o.unpackFlags.options(a)
	if err != nil {
		return err
	}
	r := kserveInitResult{Models: []aegis.PullResult{}}
	for _, p := range pulls {
		req, err := o.trustFlags.requirement(cmd.Context(), a, &o.vaultFlags, p.Ref.Name())
		if err != nil {
			return err
		}
		p.Unpack = unpack
		got, err := client.Pull(cmd.Context(), p, req)
		if err != nil {
			return err
		}
		r.Models = append(r.Models, got)
	}
	return a.print(r, func(w io.Writer) error {
		for _, m := range r.Models {
			if err := pullText(w, m); err != nil {
				return err
			}
		}
		return nil
	})
}

// kservePulls reads the pairs of URI and directory.
func kservePulls(args []string) ([]aegis.PullOptions, error) {
	if len(args)%2 != 0 {
		return nil, usagef("kserve-init takes pairs of URI and directory, and %s has no directory", args[len(args)-1])
	}
	if len(args)/2 > kserveMaxModels {
		return nil, usagef("kserve-init takes at most %d models", kserveMaxModels)
	}
	var pulls []aegis.PullOptions
	for i := 0; i < len(args); i += 2 {
		ref, err := parseKServeURI(args[i])
		if err != nil {
			return nil, err
		}
		dir := filepath.Clean(args[i+1])
		if args[i+1] == "" {
			return nil, usagef("the directory of %s is empty", args[i])
		}
		for _, p := range pulls {
			// Each directory holds exactly what one signature covers.
			if within(p.Dir, dir) || within(dir, p.Dir) {
				return nil, usagef("two models cannot share a directory: %s and %s", p.Dir, dir)
			}
		}
		pulls = append(pulls, aegis.PullOptions{Ref: ref, Dir: dir})
	}
	return pulls, nil
}

func within(parent, dir string) bool {
	rel, err := filepath.Rel(parent, dir)
	return err == nil && filepath.IsLocal(rel)
}

func parseKServeURI(uri string) (registry.Reference, error) {
	rest, ok := strings.CutPrefix(uri, kserveScheme)
	if !ok {
		return registry.Reference{}, &usageError{
			msg:  fmt.Sprintf("kserve-init: %q is no %s URI", uri, kserveScheme),
			hint: "storageUri: " + kserveScheme + "REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST]",
		}
	}
	return parseRef(rest)
}

// fromKServe takes over what KServe's webhook says about certificate authorities
// and registry credentials, where no flag says otherwise.
func (o *kserveInitOptions) fromKServe(a *app) error {
	if config := a.env[kserveDockerConfig]; config != "" && len(o.configs) == 0 {
		o.configs = []string{config}
	}
	if a.env[kserveCABundleName] == "" {
		return nil
	}
	bundle := filepath.Join(first(a.env[kserveCABundleDir], kserveDefaultCADir), kserveCABundleFile)
	// A bundle that was promised and is not there would show much later, as a
	// registry whose certificate nobody knows.
	if _, err := os.Stat(bundle); err != nil {
		return &usageError{
			msg:  fmt.Sprintf("KServe's CA bundle: %v", err),
			hint: fmt.Sprintf("the ConfigMap %s must have the key %s", a.env[kserveCABundleName], kserveCABundleFile),
		}
	}
	if o.caFile == "" {
		o.caFile = bundle
	}
	if o.caCert == "" && a.env.first("VAULT_CACERT", "BAO_CACERT", "VAULT_CAPATH", "BAO_CAPATH") == "" {
		o.caCert = bundle
	}
	return nil
}
