// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/aegis-oci/aegis-oci/pkg/vaultsetup"
)

type vaultSetupOptions struct {
	vaultFlags
	plan     vaultsetup.Options
	output   string
	check    bool
	checkJWT string
	claims   []string
	issuerCA string
	k8sCA    string
}

// vaultSetupResult is the JSON of vault setup.
type vaultSetupResult struct {
	Method   string   `json:"method"`
	Notices  []string `json:"notices"`
	Output   string   `json:"output,omitempty"`
	Document string   `json:"document,omitempty"`
	// Verdict is that of the checks: same, differs or unknown.
	Verdict string             `json:"verdict,omitempty"`
	Checks  []vaultsetup.Check `json:"checks,omitempty"`
}

func (a *app) vaultSetupCmd() *cobra.Command {
	o := &vaultSetupOptions{}
	cmd := &cobra.Command{
		Use:   "setup [flags] github|kubernetes|approle|jwt",
		Short: "Print what Vault needs for one login method, or compare it with what it has",
		Long: `Print what Vault needs so that one kind of client can use one Transit key, and
nothing else: the key, a policy, an auth mount and a role. Nothing is changed: run
the output (cli), give it to Terraform, or write the policy (hcl) yourself.

With --check, what Vault has is compared with that; it is only read. With --check-jwt
a token is compared, claim by claim, with what the role wants; its signature is not
checked, and it is sent nowhere. Exit codes of both: 0 as planned, 3 something
differs or is missing, 4 something could not be read.

Example:
  aegis-oci vault setup github --repository acme/models | sh

Example - is it still so?
  aegis-oci vault setup github --repository acme/models --check

Example - why does Vault refuse this token?
  aegis-oci vault setup github --repository acme/models --check-jwt token.jwt`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runVaultSetup(cmd, o, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.output, "output", "cli", "cli (a shell script), hcl (the policy) or terraform")
	f.BoolVar(&o.check, "check", false, "compare with what Vault has, instead of printing")
	f.StringVar(&o.checkJWT, "check-jwt", "", "compare this file's token with the role, instead of printing; - is standard input")
	o.registerNames(f)
	o.registerBindings(f)
	o.vaultFlags.register(f)
	return cmd
}

func (o *vaultSetupOptions) registerNames(f *flagSet) {
	f.StringVar(&o.plan.TransitMount, "transit-mount", "transit", "mount of the Transit engine")
	f.StringVar(&o.plan.Key, "key-name", "aegis-model-sign", "name of the Transit key")
	f.StringVar(&o.plan.KeyType, "key-type", "ecdsa-p256", "type of the Transit key")
	f.StringVar(&o.plan.Policy, "policy-name", "", "name of the policy (default aegis-transit-policy, with --verify-only aegis-transit-verify-policy)")
	f.BoolVar(&o.plan.VerifyOnly, "verify-only", false, "a policy that verifies and does not sign, for run time")
	f.StringVar(&o.plan.AuthMount, "auth-mount", "", "mount of the auth method (default jwt, kubernetes or approle)")
	f.StringVar(&o.plan.Role, "role", "", "name of the role (default aegis-github-role, aegis-k8s-role, aegis-approle-role or aegis-jwt-role)")
	f.DurationVar(&o.plan.TokenTTL, "token-ttl", 10*time.Minute, "how long a token lives, 1h at most")
}

// ofMethod lists the flags that only some methods have.
var ofMethod = map[string][]vaultsetup.Method{
	"repository": {vaultsetup.GitHub}, "git-ref": {vaultsetup.GitHub}, "environment": {vaultsetup.GitHub},
	"job-workflow-ref": {vaultsetup.GitHub}, "repository-id": {vaultsetup.GitHub}, "repository-owner-id": {vaultsetup.GitHub},
	"issuer": {vaultsetup.GitHub, vaultsetup.JWT}, "issuer-ca": {vaultsetup.GitHub, vaultsetup.JWT}, "audience": {vaultsetup.GitHub, vaultsetup.JWT},
	"bound-claim": {vaultsetup.JWT}, "user-claim": {vaultsetup.JWT},
	"service-account": {vaultsetup.Kubernetes}, "service-account-namespace": {vaultsetup.Kubernetes}, "service-account-audience": {vaultsetup.Kubernetes},
	"kubernetes-host": {vaultsetup.Kubernetes}, "kubernetes-ca": {vaultsetup.Kubernetes},
	"secret-id-ttl": {vaultsetup.AppRole}, "secret-id-uses": {vaultsetup.AppRole}, "bound-cidr": {vaultsetup.AppRole},
}

func (o *vaultSetupOptions) registerBindings(f *flagSet) {
	p := &o.plan
	f.StringVar(&p.Repository, "repository", "", "github: OWNER/REPOSITORY whose jobs may log in")
	f.StringVar(&p.Ref, "git-ref", "", "github: full ref that a job must run on (default refs/heads/main)")
	f.StringVar(&p.Environment, "environment", "", "github: deployment environment that a job must use, instead of a ref")
	f.StringVar(&p.JobWorkflowRef, "job-workflow-ref", "", "github: reusable workflow that a job must come from, instead of a ref")
	f.StringVar(&p.RepositoryID, "repository-id", "", "github: number of the repository, so that its name cannot be taken over")
	f.StringVar(&p.RepositoryOwnerID, "repository-owner-id", "", "github: number of the repository's owner")
	f.StringVar(&p.Issuer, "issuer", "", "github, jwt: URL of the tokens' issuer (default of github "+vaultsetup.GitHubIssuer+")")
	f.StringVar(&o.issuerCA, "issuer-ca", "", "github, jwt: PEM file of the issuer's certificate authority")
	f.StringVar(&p.Audience, "audience", "", "github, jwt: audience that a token must name (default of github vault)")
	f.StringArrayVar(&o.claims, "bound-claim", nil, "jwt: NAME=VALUE that a token must carry as text, literally (repeatable, all must hold)")
	f.StringVar(&p.UserClaim, "user-claim", "sub", "jwt: claim that names the client in Vault")
	f.StringVar(&p.ServiceAccount, "service-account", "aegis-app", "kubernetes: service account that may log in")
	f.StringVar(&p.ServiceAccountNamespace, "service-account-namespace", "default", "kubernetes: its namespace")
	f.StringVar(&p.ServiceAccountAudience, "service-account-audience", "vault", "kubernetes: audience of the projected token")
	f.StringVar(&p.KubernetesHost, "kubernetes-host", "https://kubernetes.default.svc", "kubernetes: URL of the API server, as Vault reaches it")
	f.StringVar(&o.k8sCA, "kubernetes-ca", "", "kubernetes: PEM file of the API server's certificate authority; needed where Vault runs outside")
	f.DurationVar(&p.SecretIDTTL, "secret-id-ttl", 10*time.Minute, "approle: how long a secret_id can be used")
	f.IntVar(&p.SecretIDUses, "secret-id-uses", 1, "approle: how often a secret_id can be used")
	f.StringArrayVar(&p.BoundCIDRs, "bound-cidr", nil, "approle: network that may log in and use the token (repeatable)")
}

// setupPlan turns flags into a plan.
func (a *app) setupPlan(cmd *cobra.Command, o *vaultSetupOptions, method string) (vaultsetup.Plan, error) {
	m := vaultsetup.Method(method)
	if !slices.Contains([]vaultsetup.Method{vaultsetup.GitHub, vaultsetup.Kubernetes, vaultsetup.AppRole, vaultsetup.JWT}, m) {
		return vaultsetup.Plan{}, &usageError{msg: fmt.Sprintf("%q is no method", oneLine(method)), hint: cmd.UseLine()}
	}
	var foreign error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if methods := ofMethod[f.Name]; foreign == nil && onCommandLine(f) && methods != nil && !slices.Contains(methods, m) {
			foreign = usagef("--%s does not go with %s", f.Name, m)
		}
	})
	if foreign != nil {
		return vaultsetup.Plan{}, foreign
	}
	o.plan.BoundClaims = make(map[string]string)
	for _, c := range o.claims {
		name, value, ok := strings.Cut(c, "=")
		if _, twice := o.plan.BoundClaims[name]; !ok || twice {
			return vaultsetup.Plan{}, usagef("--bound-claim %s: give NAME=VALUE, each name once", oneLine(c))
		}
		o.plan.BoundClaims[name] = value
	}
	for file, pem := range map[string]*string{o.issuerCA: &o.plan.IssuerCA, o.k8sCA: &o.plan.KubernetesCA} {
		if file == "" {
			continue
		}
		raw, err := readFileBounded(file, maxKeyFile)
		if err != nil {
			return vaultsetup.Plan{}, &usageError{msg: err.Error()}
		}
		*pem = string(raw)
	}
	plan, err := vaultsetup.New(m, o.plan)
	return plan, setupUsage(err)
}

func setupUsage(err error) error {
	var option *vaultsetup.OptionError
	if errors.As(err, &option) {
		return &usageError{msg: option.Error(), hint: "aegis-oci vault setup --help"}
	}
	return err
}

func (a *app) runVaultSetup(cmd *cobra.Command, o *vaultSetupOptions, method string) error {
	render := map[string]func(vaultsetup.Plan) string{"cli": vaultsetup.Plan.CLI, "hcl": vaultsetup.Plan.HCL, "terraform": vaultsetup.Plan.Terraform}[o.output]
	if render == nil {
		return usagef("--output must be cli, hcl or terraform, not %q", o.output)
	}
	plan, err := a.setupPlan(cmd, o, method)
	if err != nil {
		return err
	}
	r := vaultSetupResult{Method: method, Notices: plan.Notices()}
	if !o.check && o.checkJWT == "" {
		for _, n := range r.Notices {
			a.notice(n)
		}
		r.Output, r.Document = o.output, render(plan)
		return a.print(r, func(w io.Writer) error {
			_, err := io.WriteString(w, r.Document)
			return err
		})
	}
	if r.Checks, err = a.setupChecks(cmd.Context(), o, plan); err != nil {
		return err
	}
	verdict := vaultsetup.Verdict(r.Checks)
	r.Verdict = verdictName(verdict)
	if err := a.print(r, func(w io.Writer) error { return checksText(w, r) }); err != nil {
		return err
	}
	return setupVerdict(verdict, r)
}

func (a *app) setupChecks(ctx context.Context, o *vaultSetupOptions, plan vaultsetup.Plan) ([]vaultsetup.Check, error) {
	var all []vaultsetup.Check
	var token []byte
	var err error
	if o.checkJWT != "" {
		// Before the login, which may want standard input too.
		if token, err = a.readInput("--check-jwt", o.checkJWT, maxJWT); err != nil {
			return nil, &usageError{msg: fmt.Sprintf("--check-jwt: %v", err)}
		}
	}
	if o.check {
		s, err := a.session(ctx, &o.vaultFlags)
		if err != nil {
			return nil, err
		}
		if all, err = plan.Check(ctx, s); err != nil {
			return nil, err
		}
	}
	if o.checkJWT == "" {
		return all, nil
	}
	claims, err := plan.CheckToken(string(token), time.Now())
	if errors.Is(err, vaultsetup.ErrNoToken) {
		return nil, usagef("--check-jwt %s: %v", o.checkJWT, err)
	}
	return append(all, claims...), setupUsage(err)
}

// maxJWT bounds a file with an identity token.
const maxJWT = 64 << 10

func verdictName(err error) string {
	switch {
	case err == nil:
		return string(vaultsetup.Same)
	case errors.Is(err, vaultsetup.ErrDiffers):
		return string(vaultsetup.Differs)
	}
	return string(vaultsetup.Unknown)
}

func checksText(w io.Writer, r vaultSetupResult) error {
	for _, c := range r.Checks {
		if c.Status == vaultsetup.Same {
			continue
		}
		fmt.Fprintf(w, "%-8s %s %s\n", c.Status, c.Path, c.Field)
		if c.Status == vaultsetup.Differs || c.Want != "" {
			fmt.Fprintf(w, "         want  %s\n         have  %s\n", oneLine(c.Want), oneLine(c.Have))
		}
		if c.Detail != "" {
			fmt.Fprintf(w, "         %s\n", oneLine(c.Detail))
		}
	}
	_, err := fmt.Fprintf(w, "%s: %d of %d as planned\n", r.Verdict, countStatus(r.Checks, vaultsetup.Same), len(r.Checks))
	return err
}

func countStatus(checks []vaultsetup.Check, s vaultsetup.Status) int {
	n := 0
	for _, c := range checks {
		if c.Status == s {
			n++
		}
	}
	return n
}

func setupVerdict(err error, r vaultSetupResult) error {
	wrong := len(r.Checks) - countStatus(r.Checks, vaultsetup.Same)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, vaultsetup.ErrDiffers):
		return &printedError{exit: exitRejected, code: "vault_setup_differs", message: fmt.Sprintf("%d of %d settings are not as planned", wrong, len(r.Checks)),
			hint: "aegis-oci vault setup " + r.Method + ", with the same flags and no check, prints what they should be"}
	}
	return &printedError{exit: exitUndecided, code: "vault_setup_unknown", message: fmt.Sprintf("%d of %d settings could not be read", wrong, len(r.Checks)),
		hint: "use a token that may read the paths above"}
}
