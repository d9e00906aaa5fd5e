// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package nodecache

import (
	"errors"
	"io/fs"
	"os"
)

// cause drops the path that an os error repeats.
func cause(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}
