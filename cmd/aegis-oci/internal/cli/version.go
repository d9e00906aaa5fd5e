// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

type versionResult struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// buildVersion is set by the linker for a release; otherwise the module's own
// version counts, which go install knows.
var buildVersion string

func buildInfo() versionResult {
	v := versionResult{Version: buildVersion, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v.Version == "" {
			v.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Revision = s.Value
			}
		}
	}
	if v.Version == "" || v.Version == "(devel)" {
		v.Version = "0.0.0-dev"
	}
	return v
}

func userAgent() string { return "aegis-oci/" + buildInfo().Version }

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			v := buildInfo()
			return a.print(v, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "aegis-oci %s (%s, %s)\n", v.Version, v.Go, v.Platform)
				return err
			})
		},
	}
}
