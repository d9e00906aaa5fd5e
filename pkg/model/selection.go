// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/patternmatcher"
)

// Selection picks layers of a model. The zero Selection picks all.
type Selection struct {
	// Include and Exclude are patterns by the rules of .dockerignore, relative to
	// the model's root: "**" spans directories, a directory stands for all below
	// it, the last pattern that matches wins and "!" takes back. A layer is picked
	// that Include matches, if there is any, and Exclude does not. An archive is
	// matched by its layer's name and picked as a whole.
	Include, Exclude []string
	// Kinds are weight, config (or weight.config), code, doc and dataset. The
	// media type tells a layer's kind; where it does not, the file's name does.
	Kinds []string
}

// IsZero reports that everything is picked.
func (s Selection) IsZero() bool { return len(s.Include)+len(s.Exclude)+len(s.Kinds) == 0 }

// names reports that only what is named is picked.
func (s Selection) names() bool { return len(s.Include)+len(s.Kinds) > 0 }

// SelectionError means that a selection picks no layer of a model.
type SelectionError struct{ Layers int }

func (e *SelectionError) Error() string {
	return fmt.Sprintf("the selection matches none of the model's %d layers", e.Layers)
}

// PartialError means that a directory holds some layers of a model and a layer
// that was asked for is not among them.
type PartialError struct {
	Dir           string
	Layers, Of    int
	Missing       string // the first layer that was asked for
	MissingLayers int
}

func (e *PartialError) Error() string {
	return fmt.Sprintf("%s holds a part of the model, %d of %d layers: %d are missing, the first of which is %q",
		e.Dir, e.Layers, e.Of, e.MissingLayers, e.Missing)
}

// selectedKinds maps what a user may write to the kinds in media types: those of
// ModelPack and, after them, of KitOps.
var selectedKinds = map[string][]string{
	"weight":        {string(Weight), "model", "modelpart"},
	"config":        {string(WeightConfig)},
	"weight.config": {string(WeightConfig)},
	"code":          {string(Code)},
	"doc":           {string(Doc), "docs"},
	"dataset":       {string(Dataset)},
}

// Check returns an *OptionError for a malformed pattern or an unknown kind.
func (s Selection) Check() error {
	_, err := s.picker()
	return err
}

func (s Selection) picker() (*picker, error) {
	p := &picker{all: len(s.Include) == 0, anyKind: len(s.Kinds) == 0}
	var err error
	if p.include, err = selectPatterns("include", s.Include); err != nil {
		return nil, err
	}
	if p.exclude, err = selectPatterns("exclude", s.Exclude); err != nil {
		return nil, err
	}
	for _, k := range s.Kinds {
		kinds, ok := selectedKinds[k]
		if !ok {
			return nil, &OptionError{Option: "kind", Reason: fmt.Sprintf("%q is none of weight, config, code, doc and dataset", k)}
		}
		p.kinds = append(p.kinds, kinds...)
	}
	return p, nil
}

func selectPatterns(option string, patterns []string) (*patternmatcher.PatternMatcher, error) {
	parsed, err := givenPatterns(option, patterns)
	if err != nil {
		return nil, err
	}
	m, err := patternmatcher.New(parsed)
	if err != nil {
		return nil, &OptionError{Option: option, Reason: err.Error()}
	}
	return m, nil
}

type picker struct {
	all, anyKind     bool
	include, exclude *patternmatcher.PatternMatcher
	kinds            []string
}

func (p *picker) picks(l Layer) (bool, error) {
	if !p.anyKind && !slices.Contains(p.kinds, l.kind()) {
		return false, nil
	}
	if !p.all {
		if in, err := p.include.MatchesOrParentMatches(l.Path); err != nil || !in {
			return false, err
		}
	}
	out, err := p.exclude.MatchesOrParentMatches(l.Path)
	return !out, err
}

// kind is what the media type says, else what Pack would have made of the name.
func (l Layer) kind() string {
	if l.Kind != "" || l.Archive {
		return l.Kind
	}
	k, _ := kindOf(l.Path, l.Descriptor.Size, nil)
	return string(k)
}

// choose returns the layers of m that s picks.
func (s Selection) choose(m Manifest) (layerSet, error) {
	p, err := s.picker()
	if err != nil {
		return nil, err
	}
	set := make(layerSet, m.layerCount)
	for _, l := range m.layers {
		if set[l.index], err = p.picks(l); err != nil {
			return nil, &OptionError{Option: "include", Reason: err.Error()}
		}
	}
	if set.count() == 0 {
		return nil, &SelectionError{Layers: m.layerCount}
	}
	return set, nil
}

// layerSet says of each layer of a manifest whether it is in the set.
type layerSet []bool

// allLayers is the set of everything that can be unpacked.
func (m Manifest) allLayers() layerSet {
	set := make(layerSet, m.layerCount)
	for _, l := range m.layers {
		set[l.index] = true
	}
	return set
}

// only is the manifest with no other layers than those in set.
func (m Manifest) only(set layerSet) Manifest {
	m.layers = slices.DeleteFunc(slices.Clone(m.layers), func(l Layer) bool { return !set[l.index] })
	return m
}

func (s layerSet) count() int {
	n := 0
	for _, in := range s {
		if in {
			n++
		}
	}
	return n
}

// with is the union of two sets, without what s has and other has not.
func (s layerSet) with(other layerSet) layerSet {
	u := slices.Clone(s)
	for i, in := range other {
		u[i] = u[i] || in
	}
	return u
}

func (s layerSet) without(other layerSet) layerSet {
	u := slices.Clone(s)
	for i, in := range other {
		u[i] = u[i] && !in
	}
	return u
}

// String writes the numbers of the layers, with ranges: "0-2,5".
func (s layerSet) String() string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if !s[i] {
			continue
		}
		last := i
		for last+1 < len(s) && s[last+1] {
			last++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(i))
		if last > i {
			fmt.Fprintf(&b, "-%d", last)
		}
		i = last
	}
	return b.String()
}

// parseLayerSet reads what String wrote for m. Numbers of layers that cannot be
// unpacked or are not there make it malformed.
func parseLayerSet(text string, m Manifest) (layerSet, error) {
	all, set := m.allLayers(), make(layerSet, m.layerCount)
	next := 0
	for part := range strings.SplitSeq(text, ",") {
		from, to, ranged := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		last := first
		if err == nil && ranged {
			last, err = strconv.Atoi(to)
		}
		if err != nil || first < next || last < first || last >= len(set) {
			return nil, fmt.Errorf("%q does not name layers of the model", text)
		}
		for i := first; i <= last; i++ {
			set[i] = all[i]
		}
		next = last + 1
	}
	return set, nil
}
