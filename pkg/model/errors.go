// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import "fmt"

// PathError is a name that may not be in a model, whichever side met it: one that
// leaves its directory, means something else on another system, is reserved, or
// cannot stand beside another name of the same model.
type PathError struct{ Path, Reason string }

func (e *PathError) Error() string { return fmt.Sprintf("refusing the path %q: %s", e.Path, e.Reason) }
