// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import "testing"

func TestPackLeavesOutWhatToolsLeaveBehind(t *testing.T) {
	dir := packTree(t, map[string]string{
		"model.bin": "w", "sub/config.json": "{}", ".gitattributes": "x",
		".git/HEAD": "x", "sub/.git": "gitdir: x", ".cache/huggingface/x": "x", "a/__pycache__/m.pyc": "x",
		".ipynb_checkpoints/n.ipynb": "x", "node_modules/p/index.js": "x", ".venv/bin/python": "x",
		"README.md~": "x", ".README.md.swp": "x", "sub/x.swp": "x", ".#lock": "x", "#save#": "x",
		".DS_Store": "x", "sub/._model.bin": "x", "Thumbs.db": "x", ".vscode/s.json": "x", "lost+found/x": "x", ".snapshot/x": "x",
	})
	wantPaths(t, mustPack(t, PackOptions{}, dir), ".gitattributes", "model.bin", "sub/config.json")
}

func TestPackIgnoreFileHasTheRulesOfDockerignore(t *testing.T) {
	dir := packTree(t, map[string]string{
		".aegisignore": "# a comment\n*.log\n**/*.tmp\n/checkpoints\n!checkpoints/best\n!.aegisignore\n!**/.cache\n",
		"model.bin":    "w", "a.log": "x", "sub/a.log": "kept: * does not cross a slash", "sub/deep/b.tmp": "x",
		"checkpoints/1": "x", "checkpoints/best": "w", "sub/.aegisignore": "kept: only the root's is special",
		".cache/kept": "x",
	})
	wantPaths(t, mustPack(t, PackOptions{}, dir), ".cache/kept", "checkpoints/best", "model.bin", "sub/.aegisignore", "sub/a.log")
	wantPaths(t, mustPack(t, PackOptions{Exclude: []string{"sub", ".cache", "!a.log"}}, dir), "a.log", "checkpoints/best", "model.bin")
}

func TestPackExcludesArguments(t *testing.T) {
	dir := packTree(t, map[string]string{"a.bin": "1", "b.log": "2", "c~": "3"})
	wantPaths(t, mustPack(t, PackOptions{Exclude: []string{"*.log"}}, dir+"/a.bin", dir+"/b.log", dir+"/c~"), "a.bin", "c~")
}

// Only a file has comments: whoever names "#secret" means that it stays here.
func TestPackExcludesWhatLooksLikeAComment(t *testing.T) {
	dir := packTree(t, map[string]string{".aegisignore": "#kept\n", "#kept": "1", "#secret": "2", "#two": "3", "model.bin": "w"})
	wantPaths(t, mustPack(t, PackOptions{Exclude: []string{"#secret", "*.log\n#two"}}, dir), "#kept", "model.bin")
	wantPaths(t, mustPack(t, PackOptions{Exclude: []string{"#*", "!#two"}}, dir), "#two", "model.bin")
	wantPaths(t, mustPack(t, PackOptions{Exclude: []string{"#secret"}}, dir+"/#secret", dir+"/model.bin"), "model.bin")
}

// What is left out is not judged: it may have any name.
func TestPackDoesNotJudgeWhatIsLeftOut(t *testing.T) {
	dir := packTree(t, map[string]string{"model.bin": "w", "junk/con.txt": "x", "junk/a\nb": "x"})
	packLink(t, "nowhere", dir+"/junk/gone")
	wantPaths(t, mustPack(t, PackOptions{Exclude: []string{"junk"}}, dir), "model.bin")
}
