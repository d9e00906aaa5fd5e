// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package buffer

const LargePage = largePage

var AdviseLarge = adviseLarge
