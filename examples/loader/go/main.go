// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Command loader shows a model loader in Go that opens nothing which does not
// verify: it verifies a directory that a pull has filled, or pulls a reference,
// and only then reads the model's files.
//
//	loader -key release.pub -ref registry.example.com/models/vad:v1 /models/vad
//	loader -key release.pub -ref registry.example.com/models/vad:v1 -pull /models/vad
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

func main() {
	key := flag.String("key", "", "PEM file of the public key that must have signed")
	ref := flag.String("ref", "", "what the directory must hold")
	pull := flag.Bool("pull", false, "pull the reference into the directory first")
	flag.Parse()
	if *key == "" || *ref == "" || flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(context.Background(), os.Stdout, *key, *ref, flag.Arg(0), *pull); err != nil {
		fmt.Fprintln(os.Stderr, "loader:", err)
		if refused(err) {
			os.Exit(3)
		}
		os.Exit(4)
	}
}

// refused reports that the model was judged and must not be loaded. Any other
// error means that no judgement was reached, which loads nothing either.
func refused(err error) bool {
	var (
		none     *verify.NoSignatureError
		rejected *verify.RejectedError
		files    *model.DirError
		missing  *model.NotInstalledError
		content  *model.ContentError
	)
	return errors.As(err, &none) || errors.As(err, &rejected) || errors.As(err, &files) || errors.As(err, &missing) || errors.As(err, &content)
}

func run(ctx context.Context, out io.Writer, keyFile, reference, dir string, pull bool) error {
	pem, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	key, err := signature.ParsePublicKeys(keyFile, pem)
	if err != nil {
		return err
	}
	trusted := verify.Requirement{Name: "loader", Keys: []signature.Key{key}}
	if pull {
		return pullAndLoad(ctx, out, reference, dir, trusted)
	}
	// Nothing that the directory says of itself is trusted: signatures are judged
	// again, and every file is hashed.
	if _, err := aegis.VerifyDir(ctx, aegis.VerifyDirOptions{Dir: dir, Reference: reference}, trusted); err != nil {
		return err
	}
	return load(out, dir)
}

func pullAndLoad(ctx context.Context, out io.Writer, reference, dir string, trusted verify.Requirement) error {
	ref, err := registry.ParseReference(reference)
	if err != nil {
		return err
	}
	client, err := registry.NewClient(registry.Options{})
	if err != nil {
		return err
	}
	// Resolved once, verified, and only then is a byte of the model fetched.
	if _, err := aegis.New(client, aegis.Options{}).Pull(ctx, aegis.PullOptions{Ref: ref, Dir: dir}, trusted); err != nil {
		return err
	}
	return load(out, dir)
}

// load stands for what a real loader does with the files.
func load(out io.Writer, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if strings.HasPrefix(path, ".aegis") {
				return fs.SkipDir
			}
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "loaded %s (%d bytes)\n", path, info.Size())
		return err
	})
}
