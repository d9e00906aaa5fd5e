// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy_test

import (
	"fmt"

	"github.com/aegis-oci/aegis-oci/pkg/trustpolicy"
)

func ExampleParse() {
	policy, err := trustpolicy.Parse([]byte(`
version: 1
policies:
- name: production
  scopes: ["registry.example.com/models/**"]
  keys:
  - {name: release, key: "hashivault://transit/release", publicKeyFile: release.pub}
- name: tools
  scopes: ["registry.example.com/models/tools/*"]
  keys:
  - {name: tools, key: "hashivault://transit/tools"}
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, repository := range []string{"registry.example.com/models/llama", "registry.example.com/models/tools/convert", "other.example.com/models/llama"} {
		statement, err := policy.Match(repository)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(repository, "needs", statement.Name, statement.Keys[0].Transit)
	}
	_, err = trustpolicy.Parse([]byte("version: 1\npolicies:\n- name: production\n  threshold: 2\n"))
	fmt.Println(err)
	// Output:
	// registry.example.com/models/llama needs production hashivault://transit/release
	// registry.example.com/models/tools/convert needs tools hashivault://transit/tools
	// trust policy: no statement covers other.example.com/models/llama: nothing is allowed by default
	// trust policy: line 4: policies[0]: field "threshold" is not known to this version, which would not enforce it; known are name, scopes, require, formats, timestamps, maxAge, notBefore, requireRepository, annotations, builder, revoked, keys
}
