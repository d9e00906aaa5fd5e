// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"io"
	"path"
	"regexp"
	"strings"
)

// maxLicense bounds what is read of a licence or a README, in bytes.
const maxLicense = 256 << 10

// learnLicense reads a licence's text, or the front matter of a README.
func (d *detector) learnLicense(p string, r io.Reader) {
	name := strings.ToLower(path.Base(p))
	readme := name == "readme.md"
	if !readme && !strings.HasPrefix(name, "licen") && !strings.HasPrefix(name, "copying") && !strings.HasPrefix(name, "unlicense") {
		return
	}
	raw, err := io.ReadAll(io.LimitReader(r, maxLicense))
	if err != nil {
		return
	}
	if !readme {
		d.addLicense(licenseOfText(string(raw)))
		return
	}
	for _, id := range frontMatterLicenses(string(raw)) {
		d.addLicense(spdxOf(id))
	}
}

var (
	spdxTag      = regexp.MustCompile(`SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+-]+)`)
	notWordOrDot = regexp.MustCompile(`[^a-z0-9.]+`)
)

// licenseOfText names the licence whose text this is, or returns "". Licences of
// one family quote each other, so a title counts only at the beginning.
func licenseOfText(text string) string {
	if m := spdxTag.FindStringSubmatch(text); m != nil && len(m[1]) <= maxText {
		return m[1]
	}
	words := strings.TrimSpace(notWordOrDot.ReplaceAllString(strings.ToLower(text), " "))
	head := words[:min(len(words), 400)]
	for _, l := range licenseTitles {
		if strings.Contains(head, l.text) {
			return l.id
		}
	}
	for _, l := range licenseSentences {
		if strings.Contains(words, l.text) {
			return l.id
		}
	}
	if strings.Contains(words, "redistribution and use in source and binary forms") {
		if strings.Contains(words, "neither the name of") || strings.Contains(words, "may not be used to endorse or promote") || strings.Contains(words, "may be used to endorse or promote") {
			return "BSD-3-Clause"
		}
		return "BSD-2-Clause"
	}
	return ""
}

type licenseRule struct{ text, id string }

// The longer title comes before one that it contains. The texts of the GNU
// licences do not say "or later", so -only is all that they tell.
var licenseTitles = []licenseRule{
	{"apache license version 2.0", "Apache-2.0"},
	{"gnu affero general public license version 3", "AGPL-3.0-only"},
	{"gnu lesser general public license version 3", "LGPL-3.0-only"},
	{"gnu lesser general public license version 2.1", "LGPL-2.1-only"},
	{"gnu general public license version 3", "GPL-3.0-only"},
	{"gnu general public license version 2", "GPL-2.0-only"},
	{"mozilla public license version 2.0", "MPL-2.0"},
	{"creative commons attribution noncommercial sharealike 4.0", "CC-BY-NC-SA-4.0"},
	{"creative commons attribution noncommercial noderivatives 4.0", "CC-BY-NC-ND-4.0"},
	{"creative commons attribution noncommercial 4.0", "CC-BY-NC-4.0"},
	{"creative commons attribution sharealike 4.0", "CC-BY-SA-4.0"},
	{"creative commons attribution noderivatives 4.0", "CC-BY-ND-4.0"},
	{"creative commons attribution 4.0", "CC-BY-4.0"},
	{"attribution noncommercial sharealike 4.0 international", "CC-BY-NC-SA-4.0"},
	{"attribution noncommercial noderivatives 4.0 international", "CC-BY-NC-ND-4.0"},
	{"attribution noncommercial 4.0 international", "CC-BY-NC-4.0"},
	{"attribution sharealike 4.0 international", "CC-BY-SA-4.0"},
	{"attribution noderivatives 4.0 international", "CC-BY-ND-4.0"},
	{"attribution 4.0 international", "CC-BY-4.0"},
	{"cc0 1.0 universal", "CC0-1.0"},
	{"boost software license version 1.0", "BSL-1.0"},
}

var licenseSentences = []licenseRule{
	{"this is free and unencumbered software released into the public domain", "Unlicense"},
	{"permission is hereby granted free of charge to any person obtaining a copy", "MIT"},
	{"permission to use copy modify and or distribute this software for any purpose with or without fee is hereby granted", "ISC"},
}

// frontMatterLicenses reads "license:" from the YAML block at the top of a model
// card: a word, a list in brackets or one item a line. That is all of YAML that
// model cards use for it, and all that is read.
func frontMatterLicenses(text string) []string {
	text = strings.TrimPrefix(text, "\ufeff")
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	if strings.TrimRight(lines[0], " ") != "---" {
		return nil
	}
	for i := 1; i < len(lines) && strings.TrimRight(lines[i], " ") != "---"; i++ {
		value, ok := strings.CutPrefix(lines[i], "license:")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		if value != "" && !strings.HasPrefix(value, "#") {
			return yamlWords(value)
		}
		var items []string
		for _, line := range lines[i+1:] {
			item, ok := strings.CutPrefix(strings.TrimSpace(line), "- ")
			if !ok {
				break
			}
			items = append(items, yamlWords(item)...)
		}
		return items
	}
	return nil
}

func yamlWords(value string) []string {
	value, _, _ = strings.Cut(value, " #")
	value = strings.TrimSpace(value)
	if list, ok := strings.CutPrefix(value, "["); ok {
		value = strings.TrimSuffix(list, "]")
	}
	var words []string
	for w := range strings.SplitSeq(value, ",") {
		if w = strings.Trim(strings.TrimSpace(w), `"'`); w != "" {
			words = append(words, w)
		}
	}
	return words
}

// hubLicenses maps the identifiers of huggingface.co/docs/hub/repositories-licenses
// that differ from SPDX's by more than case.
var hubLicenses = map[string]string{
	"apache-2.0": "Apache-2.0", "mit": "MIT", "bsd": "BSD-2-Clause", "bsd-2-clause": "BSD-2-Clause",
	"bsd-3-clause": "BSD-3-Clause", "bsd-3-clause-clear": "BSD-3-Clause-Clear", "isc": "ISC", "zlib": "Zlib",
	"gpl-2.0": "GPL-2.0-only", "gpl-3.0": "GPL-3.0-only", "agpl-3.0": "AGPL-3.0-only", "lgpl-2.1": "LGPL-2.1-only",
	"lgpl-3.0": "LGPL-3.0-only", "mpl-2.0": "MPL-2.0", "bsl-1.0": "BSL-1.0", "unlicense": "Unlicense", "wtfpl": "WTFPL",
	"cc0-1.0": "CC0-1.0", "cc-by-2.0": "CC-BY-2.0", "cc-by-3.0": "CC-BY-3.0", "cc-by-4.0": "CC-BY-4.0",
	"cc-by-sa-3.0": "CC-BY-SA-3.0", "cc-by-sa-4.0": "CC-BY-SA-4.0", "cc-by-nc-2.0": "CC-BY-NC-2.0",
	"cc-by-nc-3.0": "CC-BY-NC-3.0", "cc-by-nc-4.0": "CC-BY-NC-4.0", "cc-by-nd-4.0": "CC-BY-ND-4.0",
	"cc-by-nc-nd-3.0": "CC-BY-NC-ND-3.0", "cc-by-nc-nd-4.0": "CC-BY-NC-ND-4.0",
	"cc-by-nc-sa-3.0": "CC-BY-NC-SA-3.0", "cc-by-nc-sa-4.0": "CC-BY-NC-SA-4.0",
	"artistic-2.0": "Artistic-2.0", "ecl-2.0": "ECL-2.0", "afl-3.0": "AFL-3.0", "epl-2.0": "EPL-2.0", "eupl-1.1": "EUPL-1.1",
	"eupl-1.2": "EUPL-1.2", "ofl-1.1": "OFL-1.1", "ms-pl": "MS-PL", "ncsa": "NCSA", "osl-3.0": "OSL-3.0", "pddl": "PDDL-1.0",
	"odc-by": "ODC-By-1.0", "odbl": "ODbL-1.0", "postgresql": "PostgreSQL", "cdla-permissive-2.0": "CDLA-Permissive-2.0",
}

var notInRef = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// spdxOf turns an identifier of the Hugging Face hub into an SPDX expression. A
// licence that SPDX does not list becomes a LicenseRef (SPDX 2.3, annex D), and
// "other" and "unknown" say nothing.
func spdxOf(id string) string {
	lower := strings.ToLower(strings.TrimSpace(id))
	if spdx, ok := hubLicenses[lower]; ok {
		return spdx
	}
	if lower == "" || lower == "other" || lower == "unknown" || len(lower) > maxText {
		return ""
	}
	ref := strings.Trim(notInRef.ReplaceAllString(lower, "-"), "-")
	if ref == "" {
		return ""
	}
	return "LicenseRef-" + ref
}
