// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package kubernetes

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	aegisImage    = "aegis.test/aegis-oci:1"
	workloadName  = "aegis.test/workload:1"
	vaultImage    = "aegis.test/vault:1"
	caRoots       = "/etc/ssl/certs/ca-certificates.crt"
	versionInTest = "1.2.3-test"
)

// buildah runs buildah with a store of its own below dir.
func buildah(dir string, args ...string) error {
	all := append([]string{"--root", filepath.Join(dir, "store"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}, args...)
	if out, err := exec.Command("buildah", all...).CombinedOutput(); err != nil {
		return fmt.Errorf("buildah %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// image builds an image and returns the archive that holds it.
func image(dir, name string, args ...string) (string, error) {
	archive := filepath.Join(dir, strings.NewReplacer("/", "-", ":", "-").Replace(name)+".tar")
	if err := os.Remove(archive); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if err := buildah(dir, append([]string{"build", "--quiet", "--isolation", "chroot", "--tag", name}, args...)...); err != nil {
		return "", err
	}
	return archive, buildah(dir, "push", "--quiet", name, "docker-archive:"+archive+":"+name)
}

func goBuild(out, pkg string, flags ...string) error {
	cmd := exec.Command("go", append(append([]string{"build", "-trimpath", "-buildvcs=false"}, flags...), "-o", out, pkg)...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, output)
	}
	return nil
}

// workloadImage builds what the pods run beside aegis-oci.
func workloadImage(dir string) (string, error) {
	context := filepath.Join(dir, "workload")
	if err := os.MkdirAll(context, 0o755); err != nil {
		return "", err
	}
	if err := goBuild(filepath.Join(context, "workload"), "./test/kubernetes/workload"); err != nil {
		return "", err
	}
	return image(dir, workloadName, "--file", "workload/Dockerfile", context)
}

// dockerfileRun returns the command of the Dockerfile's build stage.
func dockerfileRun(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?ms)^RUN (.*?[^\\])$`).FindSubmatch(raw)
	if m == nil {
		t.Fatal("the Dockerfile has no RUN")
	}
	return string(m[1])
}

// aegisImageArchive builds the product's image from the Dockerfile: the build
// stage's own command runs here, for its base image cannot be pulled, with /out as
// the only thing changed, and buildah does the rest.
func aegisImageArchive(t *testing.T, dir string) string {
	t.Helper()
	stage := filepath.Join(dir, "stage")
	if err := os.MkdirAll(stage, 0o755); err != nil {
		t.Fatal(err)
	}
	source, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	command := strings.ReplaceAll(dockerfileRun(t), "/out", stage+"/out")
	cmd := exec.Command("/bin/sh", "-euc", command)
	cmd.Dir, cmd.Env = source, append(os.Environ(), "VERSION="+versionInTest)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	archive, err := image(dir, aegisImage, "--build-context", "build="+stage, "--build-arg", "VERSION="+versionInTest, "--build-arg", "REVISION=abc", source)
	if err != nil {
		t.Fatal(err)
	}
	return archive
}

// TestImageHoldsTheProgramAndNothingElse reads the image's own layers.
func TestImageHoldsTheProgramAndNothingElse(t *testing.T) {
	files, config := unpackImage(t, aegisImageArchive(t, t.TempDir()))
	want := []string{"aegis-oci", "etc/ssl/certs/ca-certificates.crt"}
	if names := sortedKeys(files); !slices.Equal(names, want) {
		t.Errorf("the image holds %v, want %v", names, want)
	}
	if config.Config.User != "65532:65532" || !slices.Equal(config.Config.Entrypoint, []string{"/aegis-oci"}) {
		t.Errorf("user %q, entry point %q", config.Config.User, config.Config.Entrypoint)
	}
	for _, name := range []string{"title", "description", "source", "documentation", "licenses", "version", "revision"} {
		if config.Config.Labels["org.opencontainers.image."+name] == "" {
			t.Errorf("no label %s", name)
		}
	}
	if v := config.Config.Labels["org.opencontainers.image.version"]; v != versionInTest {
		t.Errorf("label version is %q", v)
	}
	roots, err := os.ReadFile(caRoots)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(files["etc/ssl/certs/ca-certificates.crt"], roots) {
		t.Error("the CA roots are not the system's")
	}
	for _, secret := range [][]byte{[]byte("VAULT_TOKEN="), []byte("-----BEGIN EC PRIVATE KEY-----\nM"), []byte("hvs.CAES")} {
		if bytes.Contains(files["aegis-oci"], secret) {
			t.Errorf("the program holds %q", secret)
		}
	}
	program := filepath.Join(t.TempDir(), "aegis-oci")
	if err := os.WriteFile(program, files["aegis-oci"], 0o755); err != nil {
		t.Fatal(err)
	}
	// Without a dynamic linker it runs in an empty root, and knows its version.
	if out, err := exec.Command(program, "version").CombinedOutput(); err != nil || !bytes.Contains(out, []byte(versionInTest)) {
		t.Errorf("version: %v\n%s", err, out)
	}
	if out, _ := exec.Command("ldd", program).CombinedOutput(); !bytes.Contains(out, []byte("not a dynamic executable")) {
		t.Errorf("ldd: %s", out)
	}
	prove(t, noSecretKept, "the image is %d files, %d MiB, with no token and no private key in them or in its environment", len(files), len(files["aegis-oci"])>>20)
}

type imageConfig struct {
	Config struct {
		User       string
		Entrypoint []string
		Labels     map[string]string
		Env        []string
	} `json:"config"`
}

// unpackImage reads the regular files of a docker archive's layers.
func unpackImage(t *testing.T, archive string) (map[string][]byte, imageConfig) {
	t.Helper()
	members := untar(t, archive, nil)
	var manifest []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(members["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	var config imageConfig
	if err := json.Unmarshal(members[manifest[0].Config], &config); err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for _, layer := range manifest[0].Layers {
		for name, content := range untar(t, layer, members[layer]) {
			files[name] = content
		}
	}
	return files, config
}

func untar(t *testing.T, name string, content []byte) map[string][]byte {
	t.Helper()
	if content == nil {
		var err error
		if content, err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	files := make(map[string][]byte)
	for r := tar.NewReader(bytes.NewReader(content)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}
