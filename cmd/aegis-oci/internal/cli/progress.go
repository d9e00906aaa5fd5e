// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/aegis-oci/aegis-oci/cmd/aegis-oci/internal/display"
	"github.com/aegis-oci/aegis-oci/pkg/model"
)

// progressInterval is how often a log gets a line.
const progressInterval = 5 * time.Second

// progress picks bars for a terminal, lines for anything else, nothing when
// quiet or when debug lines would tear the bars.
func (a *app) progress(*cobra.Command) model.Progress {
	if a.quiet {
		return nil
	}
	var p display.Progress
	if f, ok := a.stderr.(*os.File); ok && hasSize(f) && !a.debug && a.logFormat != "json" {
		p = display.NewBars(f, 0)
	} else {
		p = display.NewLines(a.notice, progressInterval, time.Now)
	}
	a.stopProgress = p.Close
	a.cleanup = append(a.cleanup, func(context.Context) { a.endProgress() })
	return p
}

// hasSize reports that f is a terminal with room for bars; one that says it has
// none, as in some CI systems, gets lines.
func hasSize(f *os.File) bool {
	width, height, err := term.GetSize(int(f.Fd()))
	return err == nil && width > 0 && height > 1
}

// endProgress takes the bars away, once, so that the result stands alone.
func (a *app) endProgress() {
	if a.stopProgress != nil {
		a.stopProgress()
		a.stopProgress = nil
	}
}

// print ends the progress and prints the result.
func (a *app) print(result any, text textFunc) error {
	a.endProgress()
	return a.out.Print(result, text)
}
