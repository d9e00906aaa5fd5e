// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import "strings"

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
	case host == "ghcr.io", host == "public.ecr.aws", isPrivateECR(host),
		host == "gcr.io", strings.HasSuffix(host, ".gcr.io"), strings.HasSuffix(host, ".pkg.dev"):
		return UploadRules{Whole: true}
	case host == "quay.io":
		return UploadRules{Piece: quayPiece}
	}
	return UploadRules{}
}

// isPrivateECR matches ACCOUNT.dkr.ecr[-fips].REGION.amazonaws.com[.cn].
func isPrivateECR(host string) bool {
	host = strings.TrimSuffix(host, ".cn")
	rest, found := strings.CutSuffix(host, ".amazonaws.com")
	if !found {
		return false
	}
	labels := strings.Split(rest, ".")
	return len(labels) == 4 && labels[1] == "dkr" && (labels[2] == "ecr" || labels[2] == "ecr-fips")
}
