// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import "github.com/aegis-oci/aegis-oci/pkg/model"

// selectFlags pick layers of a model.
type selectFlags struct{ include, exclude, kinds []string }

func (s *selectFlags) register(f *flagSet, verb string) {
	f.StringArrayVar(&s.include, "include", nil, verb+" only what matches this pattern, by the rules of .dockerignore (repeatable)")
	f.StringArrayVar(&s.exclude, "exclude", nil, verb+" nothing that matches this pattern (repeatable)")
	f.StringSliceVar(&s.kinds, "kind", nil, verb+" only weight, config, code, doc or dataset (repeatable)")
}

func (s *selectFlags) selection() model.Selection {
	return model.Selection{Include: s.include, Exclude: s.exclude, Kinds: s.kinds}
}
