// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"regexp"
	"strings"
)

const (
	gigabyte = 1000 * 1000 * 1000
	mebibyte = 1 << 20
)

// LayerLimit returns the largest layer, in bytes, that the service behind a
// registry host documents, and the service's name; zero and "" where none is
// known. GitHub: "Working with the Container registry" (10 GB a layer); AWS:
// "Amazon ECR service quotas" (52,000 MiB) and "Amazon ECR Public service
// quotas" (10,000 MiB).
func LayerLimit(registryHost string) (bytes int64, name string) {
	host, _, _ := strings.Cut(strings.ToLower(registryHost), ":")
	switch {
	case host == "ghcr.io":
		return 10 * gigabyte, "GitHub Container Registry"
	case host == "public.ecr.aws":
		return 10000 * mebibyte, "Amazon ECR Public"
	case isPrivateECR(host):
		return 52000 * mebibyte, "Amazon ECR"
	}
	return 0, ""
}

// quayPiece keeps requests below the 20 GB that quay.io takes in one.
const quayPiece = 4 << 30

// uploadRules knows the services that do not take a blob of unknown digest in a
// request of any length. Amazon ECR wants chunks of its own sizes, Google Artifact
// Registry knows none, GitHub's answers 416 to one of more than 4 MiB.
func uploadRules(registryHost string) UploadRules {
	host, _, _ := strings.Cut(strings.ToLower(registryHost), ":")
	switch {
	case host == "ghcr.io", host == "public.ecr.aws", isPrivateECR(host), isGoogle(host):
		return UploadRules{Whole: true}
	case host == "quay.io":
		return UploadRules{Piece: quayPiece}
	}
	return UploadRules{}
}

// privateECR has the partitions and the dual-stack names that kubelet's credential
// provider for Amazon ECR knows: ACCOUNT.dkr.ecr[-fips].REGION.amazonaws.com and others.
var privateECR = regexp.MustCompile(`^[^.]+\.dkr[.-]ecr(-fips)?\.[a-z0-9-]+\.` +
	`(amazonaws\.(com(\.cn)?|eu)|on\.(aws|amazonwebservices\.com\.cn)|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)

func isPrivateECR(host string) bool { return privateECR.MatchString(host) }

// NoEmptyLayers returns the name of the service behind a registry host that takes no
// layer of zero bytes, "" where none is known.
func NoEmptyLayers(registryHost string) string {
	host, _, _ := strings.Cut(strings.ToLower(registryHost), ":")
	switch {
	case host == "public.ecr.aws":
		return "Amazon ECR Public"
	case isPrivateECR(host):
		return "Amazon ECR"
	case isGoogle(host):
		return "Google Artifact Registry"
	}
	return ""
}

func isGoogle(host string) bool {
	return host == "gcr.io" || strings.HasSuffix(host, ".gcr.io") || strings.HasSuffix(host, ".pkg.dev")
}
