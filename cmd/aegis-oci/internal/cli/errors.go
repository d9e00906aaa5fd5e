// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"syscall"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/auditlog"
	"github.com/aegis-oci/aegis-oci/pkg/layout"
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
	"github.com/aegis-oci/aegis-oci/pkg/signature/oms"
	"github.com/aegis-oci/aegis-oci/pkg/timestamp"
	"github.com/aegis-oci/aegis-oci/pkg/transfer"
	"github.com/aegis-oci/aegis-oci/pkg/trustpolicy"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// The exit codes.
const (
	exitOK        = 0
	exitInternal  = 1
	exitUsage     = 2
	exitRejected  = 3
	exitUndecided = 4
)

// outcome is what an error means to the caller. docs/errors.md has one row for
// each code.
type outcome struct {
	exit      int
	code      string
	message   string
	hint      string
	retryable bool
	printed   bool // the result is on stdout
}

// classify is the one place that turns errors into exit codes, codes and hints.
// A signal and the command's own time limit come first: what they cut short
// fails in many ways, all beside the point.
func classify(ctx context.Context, err error) outcome {
	o := outcome{exit: exitInternal, code: "internal", message: err.Error()}
	var sig *signalError
	var timeout *timeoutError
	cause := context.Cause(ctx)
	switch {
	case errors.As(cause, &sig) || errors.As(err, &sig):
		o.exit, o.code, o.message = 128+int(sig.sig), "interrupted", "interrupted: "+sig.Error()
		o.retryable = true
		return o
	case errors.As(err, &timeout):
		o.exit, o.code, o.message, o.retryable = exitUndecided, "timeout", timeout.Error(), true
		return o
	}
	var late *lateError
	o.printed = errors.As(err, &late)
	for _, c := range []func(error, *outcome) bool{printed, usage, fromAuditLog, source, trust, content, destination, fromVault, fromRegistry, fromLayout, fromTransfer, local} {
		if c(err, &o) {
			break
		}
	}
	return o
}

func (o *outcome) set(exit int, code, hint string) bool {
	o.exit, o.code = exit, code
	if hint != "" {
		o.hint = hint
	}
	return true
}

func printed(err error, o *outcome) bool {
	var p *printedError
	if !errors.As(err, &p) {
		return false
	}
	o.printed = true
	return o.set(p.exit, p.code, p.hint)
}

func fromAuditLog(err error, o *outcome) bool {
	var l *auditlog.LogError
	if !errors.As(err, &l) {
		return false
	}
	return o.set(exitUndecided, "audit_log_unreadable", "give the file of a Vault audit device in JSON form, plain or gzip")
}

func usage(err error, o *outcome) bool {
	var (
		u      *usageError
		ref    *registry.ReferenceError
		place  *layout.ReferenceError
		conf   *registry.ConfigError
		format *aegis.FormatError
		option *aegis.OptionError
		pack   *model.OptionError
		empty  *model.SelectionError
		policy *trustpolicy.ParseError
		key    *signature.KeyFileError
		shared *verify.DuplicateKeyError
		certs  *aegis.CertificateError
		record *aegis.RecordError
		claim  *signature.ClaimError
		noCert *aegis.NoCertificateError
		chain  *notary.ChainError
		files  *oms.ModelError
	)
	switch {
	case errors.As(err, &u):
		return o.set(exitUsage, "usage", u.hint)
	case errors.As(err, &ref):
		return o.set(exitUsage, "reference_invalid", "a reference is REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST]")
	case errors.As(err, &place):
		return o.set(exitUsage, "reference_invalid", "a manifest in a layout is PATH[:TAG][@sha256:DIGEST]")
	case errors.As(err, &format):
		return o.set(exitUsage, "format_unknown", "--signature-format sigstore, notary, notary-cose, cosign-tag or oms; an ecdsa-p256 key takes all")
	case errors.As(err, &policy), errors.As(err, &shared), errors.As(err, &certs):
		return o.set(exitUsage, "policy_invalid", "")
	case errors.As(err, &record):
		return o.set(exitUsage, "record_invalid", "aegis-oci policy explain --format json ... writes records")
	case errors.As(err, &claim):
		return o.set(exitUsage, "claim_unsupported", "leave the claim out, or sign in a format that carries it")
	case errors.As(err, &noCert), errors.As(err, &chain):
		return o.set(exitUsage, "certificate_unsuitable", "aegis-oci key certificate makes one that Notary verifiers take")
	case errors.As(err, &files):
		return o.set(exitUsage, "source_refused", "push the model and sign its manifest: --signature-format sigstore takes any number of files")
	case errors.As(err, &empty):
		return o.set(exitUsage, "selection_empty", "aegis-oci inspect REF lists the files and their kinds")
	case errors.As(err, &conf), errors.As(err, &option), errors.As(err, &pack), errors.As(err, &key):
		return o.set(exitUsage, "usage", "")
	}
	return false
}

// content is a judgement about what a registry or a directory holds.
func content(err error, o *outcome) bool {
	var (
		bad     *model.ContentError
		dir     *model.DirError
		short   *model.ShortError
		cut     *transfer.ShortError
		path    *model.PathError
		layers  *model.LayerError
		archive *model.TarError
		index   *aegis.IndexError
		index2  *model.IndexError
	)
	switch {
	case errors.As(err, &bad):
		return o.set(exitRejected, "content_differs", "the registry, a mirror or the disk changed the content: push it again")
	case errors.As(err, &dir):
		return o.set(exitRejected, "directory_differs", "fetch it again: aegis-oci pull --replace -o "+dir.Dir+" REF")
	case errors.As(err, &short), errors.As(err, &cut):
		return o.set(exitRejected, "content_short", "the registry holds less than the manifest says: push it again")
	case errors.As(err, &layers):
		return o.set(exitRejected, "layer_unknown", "--skip-unknown goes on without these layers")
	case errors.As(err, &archive):
		return o.set(exitRejected, "archive_invalid", "")
	case errors.As(err, &index), errors.As(err, &index2):
		return o.set(exitRejected, "index", "aegis-oci pull ... REPOSITORY@DIGEST of one manifest")
	case errors.As(err, &path):
		return o.set(exitRejected, "path_refused", "")
	}
	return false
}

// destination is what stands in the way on disk.
func destination(err error, o *outcome) bool {
	var (
		space     *model.SpaceError
		notEmpty  *model.NotEmptyError
		installed *model.InstalledError
		rollback  *model.RollbackError
		locked    *model.LockedError
		missing   *model.NotInstalledError
		uncheck   *model.UncheckableError
		part      *model.PartialError
	)
	switch {
	case errors.As(err, &space):
		return o.set(exitInternal, "disk_full", "free space on the destination's volume, or raise the emptyDir's sizeLimit")
	case errors.As(err, &notEmpty):
		return o.set(exitUsage, "destination_not_empty", "choose an empty or a new directory")
	case errors.As(err, &installed):
		return o.set(exitUsage, "destination_holds_another", "--replace")
	case errors.As(err, &rollback):
		return o.set(exitRejected, "rollback", "--allow-rollback if the older model is meant")
	case errors.As(err, &locked):
		return o.set(exitInternal, "destination_locked", "")
	case errors.As(err, &missing):
		return o.set(exitRejected, "not_installed", "only a directory that a verified pull has filled can be verified")
	case errors.As(err, &part):
		return o.set(exitRejected, "partial", "name what must be there with --include, --exclude or --kind, or pull the rest")
	case errors.As(err, &uncheck):
		return o.set(exitUndecided, "uncheckable", "pull it again to another directory and compare, or push it with raw layers")
	}
	return false
}

// source is what stands in the way of packing.
func source(err error, o *outcome) bool {
	var (
		bad     *model.SourceError
		clash   *model.CollisionError
		changed *model.ChangedError
		sent    *registry.ChangedError
		empty   *model.EmptyError
		many    *model.TooManyFilesError
		limit   *aegis.LayerLimitError
		none    *aegis.EmptyLayerError
		links   *aegis.LinkError
		pack    *aegis.PackError
		path    *model.PathError
	)
	switch {
	case errors.As(err, &pack) && errors.As(err, &path):
		return o.set(exitUsage, "path_refused", "rename it, or leave it out with --exclude or .aegisignore")
	case errors.As(err, &clash):
		return o.set(exitUsage, "name_collision", "push their common directory instead")
	case errors.As(err, &bad) && bad.Argument:
		return o.set(exitUsage, "source_refused", "name one directory, or files, that are there")
	case errors.As(err, &bad):
		return o.set(exitUsage, "source_refused", "leave it out with --exclude or .aegisignore")
	case errors.As(err, &empty):
		return o.set(exitUsage, "source_empty", "")
	case errors.As(err, &changed), errors.As(err, &sent):
		return o.set(exitInternal, "source_changed", "run it again when nothing writes to the model")
	case errors.As(err, &many):
		return o.set(exitUsage, "too_many_files", "pack small files into an archive")
	case errors.As(err, &links):
		return o.set(exitUsage, "source_refused", "replace them by what they lead to, or leave them out with --ignore-path")
	case errors.As(err, &limit):
		return o.set(exitUsage, "layer_too_large", "split the file into shards below the limit")
	case errors.As(err, &none):
		return o.set(exitUsage, "layer_empty", "put a newline into the file, or leave it out with --exclude or .aegisignore")
	}
	return false
}

func fromTransfer(err error, o *outcome) bool {
	var stamp *timestamp.Error
	if errors.As(err, &stamp) {
		o.retryable = true
		return o.set(exitUndecided, "timestamp_failed", "is the authority up, and its root given with --timestamp-root-cert?")
	}
	var stalled *transfer.StalledError
	if errors.As(err, &stalled) {
		o.retryable = true
		return o.set(exitUndecided, "registry_unreachable", "is the registry up, and what is between?")
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		o.retryable = true
		return o.set(exitUndecided, "timeout", "")
	}
	return false
}

func local(err error, o *outcome) bool {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return o.set(exitInternal, "disk_full", "free space on the destination's volume")
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return o.set(exitInternal, "local_denied", "")
	}
	return o.set(exitInternal, "internal", "")
}
