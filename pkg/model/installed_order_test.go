// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// watcher notes in which order files are begun, and how many are open at once.
type watcher struct {
	mu         sync.Mutex
	begun      []int64
	open, most int
	meet       chan struct{} // two files at once meet here
}

func (w *watcher) Start(_ string, total int64) {
	w.mu.Lock()
	w.begun = append(w.begun, total)
	w.open++
	w.most = max(w.most, w.open)
	w.mu.Unlock()
	if w.meet == nil {
		return
	}
	select {
	case w.meet <- struct{}{}:
	case <-w.meet:
	case <-time.After(10 * time.Second):
	}
}

func (w *watcher) Add(string, int64) {}

func (w *watcher) Done(string) {
	w.mu.Lock()
	w.open--
	w.mu.Unlock()
}

func TestCheckTakesTheLargestFilesFirstAndSeveralAtOnce(t *testing.T) {
	a := newArtifact()
	for i, size := range []int{10, 3000, 200, 0, 1 << 20, 77} {
		a.file(string(rune('a'+i)), random(size))
	}
	dst := filepath.Join(t.TempDir(), "m")
	install(t, a, dst)
	v, _ := a.decode(t)
	i, err := OpenInstalled(dst)
	must(t, err)
	w := &watcher{}
	if _, err := i.Check(t.Context(), v, CheckOptions{Concurrency: 1, Progress: w}); err != nil {
		t.Fatal(err)
	}
	if want := []int64{1 << 20, 3000, 200, 77, 10, 0}; !slices.Equal(w.begun, want) || w.most != 1 {
		t.Errorf("with one worker: %v, %d at once; want %v", w.begun, w.most, want)
	}
	w = &watcher{meet: make(chan struct{})}
	if _, err := i.Check(t.Context(), v, CheckOptions{Concurrency: 2, Progress: w}); err != nil {
		t.Fatal(err)
	}
	if w.most != 2 || w.begun[len(w.begun)-1] > 10 {
		t.Errorf("with two workers: %v, %d at once", w.begun, w.most)
	}
}
