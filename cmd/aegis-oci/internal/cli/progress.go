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
	if f, ok := a.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) && !a.debug && a.logFormat != "json" {
		p = display.NewBars(f, 0)
	} else {
		p = display.NewLines(a.notice, progressInterval, time.Now)
	}
	a.stopProgress = p.Close
	a.cleanup = append(a.cleanup, func(context.Context) { a.endProgress() })
	return p
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
