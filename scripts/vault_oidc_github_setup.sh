#!/bin/sh
# Copyright The aegis-oci Authors
# SPDX-License-Identifier: Apache-2.0
#
# Lets the GitHub Actions jobs of one repository sign models with one Transit key,
# with tokens that live for minutes and no secret in GitHub. Applied with nothing
# but the vault (or bao) command line; may be run again, and then changes nothing.
#
# usage: vault_oidc_github_setup.sh POLICY ROLE OWNER/REPOSITORY
#
# VAULT_ADDR and a token that may do this come from the environment, as always.
# So do, all optional:
#   REF                  full ref that jobs must run on; default refs/heads/main
#   ENVIRONMENT          deployment environment that jobs must use, instead of REF
#   JOB_WORKFLOW_REF     reusable workflow that jobs must come from, instead of REF
#   REPOSITORY_ID, REPOSITORY_OWNER_ID   numbers, so that nobody can take over the
#                        names later: gh api repos/OWNER/REPOSITORY --jq '.id,.owner.id'
#   AUDIENCE             default vault, which aegis-oci asks for; GitHub's own default
#                        is not used, so that no other service's token opens Vault
#   TOKEN_TTL            seconds a token lives; default 600, 3600 at most
#   KEY, TRANSIT_MOUNT, AUTH_MOUNT       default aegis-model-sign, transit, jwt
#   ISSUER, ISSUER_CA    for GitHub Enterprise Server: the issuer's URL, and a PEM
#                        file of its certificate authority
#   VAULT_CLI            default vault, else bao
#
# A policy that is there is left alone, and said to differ if it does. A key that
# cannot sign, or a jwt mount of another issuer, stops the script: nothing is
# deleted or taken away from others.
set -eu

say() { printf '%s\n' "$*"; }
die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}
usage() {
	printf 'error: %s\n' "$*" >&2
	echo "usage: ${0##*/} POLICY ROLE OWNER/REPOSITORY" >&2
	exit 2
}

# must WHAT VALUE PATTERN: all of VALUE matches the extended regular expression.
must() {
	case $2 in
	*'
'*) usage "$1 has a line break in it" ;;
	esac
	printf '%s\n' "$2" | LC_ALL=C grep -Eq "^($3)\$" || usage "$1: '$2' is not of the expected form"
}

[ $# -eq 3 ] || usage "three arguments are needed, not $#"
policy=$1 role=$2 repository=$3
ref=${REF-} environment=${ENVIRONMENT-} workflow=${JOB_WORKFLOW_REF-}
repository_id=${REPOSITORY_ID-} owner_id=${REPOSITORY_OWNER_ID-}
audience=${AUDIENCE:-vault}
ttl=${TOKEN_TTL:-600}
key=${KEY:-aegis-model-sign} transit=${TRANSIT_MOUNT:-transit} auth=${AUTH_MOUNT:-jwt}
issuer=${ISSUER:-https://token.actions.githubusercontent.com} issuer_ca=${ISSUER_CA-}

name='[A-Za-z0-9][A-Za-z0-9._-]*'
# No quotes, no backslashes, and no stars: claims are compared literally.
text='[A-Za-z0-9._/@:+ -]+'
must POLICY "$policy" "$name"
must ROLE "$role" "$name"
must OWNER/REPOSITORY "$repository" '[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+'
case $policy in root | default) usage "POLICY: $policy is Vault's own" ;; esac
[ -z "$ref" ] || must REF "$ref" 'refs/[A-Za-z0-9._/@+-]+'
[ -z "$environment" ] || must ENVIRONMENT "$environment" "$text"
[ -z "$workflow" ] || must JOB_WORKFLOW_REF "$workflow" "$text"
[ -z "$repository_id" ] || must REPOSITORY_ID "$repository_id" '[1-9][0-9]*'
[ -z "$owner_id" ] || must REPOSITORY_OWNER_ID "$owner_id" '[1-9][0-9]*'
must AUDIENCE "$audience" "$text"
must TOKEN_TTL "$ttl" '[1-9][0-9]{1,3}'
{ [ "$ttl" -ge 60 ] && [ "$ttl" -le 3600 ]; } || usage "TOKEN_TTL: $ttl is not between 60 and 3600"
must KEY "$key" "$name"
must TRANSIT_MOUNT "$transit" "$name(/$name)*"
must AUTH_MOUNT "$auth" "$name(/$name)*"
# Over plain HTTP anybody on the way could issue tokens; loopback is for trials.
must ISSUER "$issuer" 'https://[A-Za-z0-9._:/-]+|http://(127\.0\.0\.1|localhost)(:[0-9]+)?'
[ -z "$issuer_ca" ] || [ -r "$issuer_ca" ] || usage "ISSUER_CA: cannot read $issuer_ca"

given=0
for one in "$ref" "$environment" "$workflow"; do
	[ -z "$one" ] || given=$((given + 1))
done
case $given in
0) ref=refs/heads/main ;;
1) ;;
*) usage "give one of REF, ENVIRONMENT, JOB_WORKFLOW_REF" ;;
esac

cli=${VAULT_CLI-}
if [ -z "$cli" ]; then
	for one in vault bao; do
		if command -v "$one" >/dev/null 2>&1; then
			cli=$one
			break
		fi
	done
fi
[ -n "$cli" ] || die "neither vault nor bao is on the PATH"
vault() { command "$cli" "$@"; }

vault token lookup >/dev/null || die "$cli cannot use Vault: is VAULT_ADDR right, and the token valid?"

# squeeze undoes the indentation of the CLI's JSON, so that it can be compared.
squeeze() { sed 's/^ *//' | tr -d '\n'; }

# current FIELD PATH: the field as compact JSON, empty where there is none.
current() { vault read -format=json -field="$1" "$2" 2>/dev/null | squeeze; }

# object NAME VALUE...: JSON of the pairs, sorted as the CLI sorts, without empty
# values. All values have passed must: nothing needs an escape.
object() {
	while [ $# -gt 1 ]; do
		[ -z "$2" ] || printf '"%s": "%s"\n' "$1" "$2"
		shift 2
	done | LC_ALL=C sort | paste -sd, - | sed 's/.*/{&}/'
}

# --- the key
if vault read "sys/mounts/$transit" >/dev/null 2>&1; then
	say "$transit/: there"
else
	vault secrets enable -path="$transit" transit >/dev/null
	say "$transit/: enabled"
fi
type=$(vault read -field=type "$transit/keys/$key" 2>/dev/null) || type=
case $type in
'')
	# Without a type it would be one that encrypts and cannot sign.
	vault write "$transit/keys/$key" type=ecdsa-p256 exportable=false allow_plaintext_backup=false >/dev/null
	say "$transit/keys/$key: made, type ecdsa-p256"
	;;
ecdsa-p256 | ecdsa-p384 | ecdsa-p521 | rsa-2048 | rsa-3072 | rsa-4096 | ed25519)
	say "$transit/keys/$key: there, type $type"
	[ "$type" = ecdsa-p256 ] || say "  note: ecdsa-p256 is the type that every signature format takes"
	;;
*)
	die "$transit/keys/$key is of type $type, which cannot sign, and the type of a key is fixed.
It was left alone, since what it has encrypted would be lost with it. Choose another
name: KEY=$key-signing ${0##*/} $policy $role $repository"
	;;
esac
[ "$(current exportable "$transit/keys/$key")" = false ] || say "  warning: this key can be exported; make another"
if [ "$(current deletion_allowed "$transit/keys/$key")" = true ]; then
	vault write "$transit/keys/$key/config" deletion_allowed=false >/dev/null
	say "$transit/keys/$key: deletion forbidden"
fi

# --- the policy
rules=$(
	cat <<POLICY
# sign and verify with this key, and no other
path "$transit/sign/$key" {
  capabilities = ["update"]
}
path "$transit/verify/$key" {
  capabilities = ["update"]
}
# learn the token's own lifetime, and end the token when the work is done
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
POLICY
)
# plain leaves out comments, line breaks and spaces.
plain() { sed 's/#.*//' | tr -d ' \t\r\n'; }
if there=$(vault policy read "$policy" 2>/dev/null); then
	if [ "$(printf '%s\n' "$there" | plain)" = "$(printf '%s\n' "$rules" | plain)" ]; then
		say "policy $policy: there, as it should be"
	else
		say "policy $policy: there, left alone, and not what this script would write:"
		printf '%s\n' "$rules" | sed 's/^/    /'
	fi
else
	printf '%s\n' "$rules" | vault policy write "$policy" - >/dev/null
	say "policy $policy: written"
fi

# --- whom the jwt method believes
if kind=$(vault read -field=type "sys/auth/$auth" 2>/dev/null); then
	[ "$kind" = jwt ] || [ "$kind" = oidc ] || die "auth/$auth is of type $kind; choose another AUTH_MOUNT"
	say "auth/$auth: there"
else
	vault auth enable -path="$auth" jwt >/dev/null
	say "auth/$auth: enabled"
fi
known=$(vault read -field=oidc_discovery_url "auth/$auth/config" 2>/dev/null) || known=
bound=$(vault read -field=bound_issuer "auth/$auth/config" 2>/dev/null) || bound=
taken="auth/$auth is in use for something else; choose another: AUTH_MOUNT=jwt-github"
[ -z "$known" ] || [ "$known" = "$issuer" ] || die "$taken ($known)"
for one in jwks_url jwt_validation_pubkeys; do
	case $(current "$one" "auth/$auth/config") in
	'' | '""' | '[]' | null) ;;
	*) die "$taken ($one)" ;;
	esac
done
if [ "$known" = "$issuer" ] && [ "$bound" = "$issuer" ]; then
	say "auth/$auth/config: there, issuer $issuer"
else
	set -- oidc_discovery_url="$issuer" bound_issuer="$issuer"
	[ -z "$issuer_ca" ] || set -- "$@" oidc_discovery_ca_pem=@"$issuer_ca"
	vault write "auth/$auth/config" "$@" >/dev/null
	say "auth/$auth/config: written, issuer $issuer"
fi

# --- the role
# Never sub: its form changed for repositories made after 15 July 2026.
claims=$(object repository "$repository" ref "$ref" environment "$environment" \
	job_workflow_ref "$workflow" repository_id "$repository_id" repository_owner_id "$owner_id")
# These show in the audit log beside each request.
mappings=$(object repository repository ref ref workflow_ref workflow_ref run_id run_id actor actor)
same=yes
# expect FIELD JSON
expect() { [ "$(current "$1" "auth/$auth/role/$role")" = "$2" ] || same=no; }
expect role_type '"jwt"'
expect bound_audiences "[\"$audience\"]"
expect bound_claims_type '"string"'
expect bound_claims "$claims"
expect user_claim '"repository"'
expect claim_mappings "$mappings"
expect token_policies "[\"$policy\"]"
expect token_no_default_policy true
expect token_type '"service"'
expect token_ttl "$ttl"
expect token_max_ttl "$ttl"
expect token_period 0
if [ "$same" = yes ]; then
	say "auth/$auth/role/$role: there, as it should be"
else
	vault write "auth/$auth/role/$role" - >/dev/null <<JSON
{
  "role_type": "jwt",
  "bound_audiences": ["$audience"],
  "bound_claims_type": "string",
  "bound_claims": $claims,
  "user_claim": "repository",
  "claim_mappings": $mappings,
  "token_policies": ["$policy"],
  "token_no_default_policy": true,
  "token_type": "service",
  "token_ttl": $ttl,
  "token_max_ttl": $ttl,
  "token_period": 0
}
JSON
	say "auth/$auth/role/$role: written"
fi

say ""
say "Only jobs with $(printf %s "$claims" | tr -d '{}"' | sed 's/: /=/g; s/,/, /g') can log in."
[ -n "$repository_id" ] || say "Whoever takes over the name $repository later could too: set REPOSITORY_ID and REPOSITORY_OWNER_ID."
say "Tokens live $ttl seconds and may sign and verify with $transit/keys/$key, nothing else."
say "In the workflow: audience $audience, role $role, mount $auth; see .github/workflows/sign-model-with-vault.yml"
