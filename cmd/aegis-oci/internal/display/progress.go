// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package display

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// Progress shows how far files are. It satisfies model.Planner.
type Progress interface {
	Plan(total int64)
	Start(name string, total int64)
	Add(name string, n int64)
	Done(name string)
	// Close stops the display. Nothing may follow it.
	Close()
}

// maxBars bounds the files that have a bar at once; the total has one always.
const maxBars = 6

// Bars draws a bar for each file and one for the whole, on a terminal.
type Bars struct {
	mu    sync.Mutex
	pool  *mpb.Progress
	total *mpb.Bar
	whole whole
	files map[string]*file
	shown int
}

// whole is the size of a stage: as planned, or as far as it was heard of.
type whole struct{ planned, started int64 }

func (w whole) size() int64 { return max(w.planned, w.started) }

type file struct {
	bar  *mpb.Bar
	size int64
	done int64
}

// NewBars returns bars on w, which is width columns wide; 0 asks the terminal.
func NewBars(w io.Writer, width int) *Bars {
	opts := []mpb.ContainerOption{mpb.WithOutput(w), mpb.WithRefreshRate(150 * time.Millisecond), mpb.WithAutoRefresh()}
	if width > 0 {
		opts = append(opts, mpb.WithWidth(width))
	}
	b := &Bars{pool: mpb.New(opts...), files: make(map[string]*file)}
	b.total = b.totalBar(0)
	return b
}

func (b *Bars) totalBar(size int64) *mpb.Bar {
	bar := b.pool.AddBar(0, append(decorators("total"), mpb.BarPriority(1<<30))...)
	bar.SetTotal(size, false)
	return bar
}

// Plan begins a stage of total bytes, with a bar and a rate of its own.
func (b *Bars) Plan(total int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total.Abort(true)
	b.whole = whole{planned: total}
	b.total = b.totalBar(total)
}

func decorators(name string) []mpb.BarOption {
	return []mpb.BarOption{
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(shorten(name, 32), decor.WC{W: 33, C: decor.DindentRight})),
		mpb.AppendDecorators(
			decor.CountersKibiByte("% .1f / % .1f", decor.WC{W: 24}),
			decor.AverageSpeed(decor.SizeB1024(0), "% .1f", decor.WC{W: 12}),
			decor.Name(" "),
			decor.AverageETA(decor.ET_STYLE_GO, decor.WC{W: 7}),
		),
	}
}

func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return "..." + string(r[len(r)-n+3:])
}

// Start adds name to the whole and, while there is room, a bar.
func (b *Bars) Start(name string, total int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := &file{size: total}
	if b.shown < maxBars {
		f.bar = b.pool.AddBar(total, decorators(name)...)
		b.shown++
	}
	b.files[name] = f
	b.whole.started += total
	b.total.SetTotal(b.whole.size(), false)
}

// Add moves name's bar and the whole's.
func (b *Bars) Add(name string, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.files[name]
	if f == nil {
		return
	}
	f.done += n
	b.total.IncrInt64(n)
	if f.bar != nil {
		f.bar.IncrInt64(n)
	}
}

// Done takes name's bar away. What was not moved, since it was there already,
// counts as moved.
func (b *Bars) Done(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.files[name]
	if f == nil {
		return
	}
	delete(b.files, name)
	b.total.IncrInt64(f.size - f.done)
	if f.bar != nil {
		f.bar.Abort(true)
		b.shown--
	}
}

// Close removes the bars.
func (b *Bars) Close() {
	b.total.Abort(true)
	b.mu.Lock()
	for _, f := range b.files {
		if f.bar != nil {
			f.bar.Abort(true)
		}
	}
	b.mu.Unlock()
	b.pool.Wait()
}

// Lines prints one line every few seconds, for logs.
type Lines struct {
	mu      sync.Mutex
	print   func(string)
	now     func() time.Time
	started time.Time
	files   map[string]*file
	whole   whole
	done    int64
	stop    chan struct{}
	stopped sync.WaitGroup
}

// NewLines prints through print, every interval.
func NewLines(print func(string), interval time.Duration, now func() time.Time) *Lines {
	l := &Lines{print: print, now: now, started: now(), files: make(map[string]*file), stop: make(chan struct{})}
	l.stopped.Add(1)
	go func() {
		defer l.stopped.Done()
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-l.stop:
				return
			case <-tick.C:
				if s := l.line(); s != "" {
					l.print(s)
				}
			}
		}
	}()
	return l
}

// Plan begins a stage of total bytes, with a rate of its own.
func (l *Lines) Plan(total int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.whole, l.done, l.started = whole{planned: total}, 0, l.now()
}

// Start adds name to the whole.
func (l *Lines) Start(name string, total int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files[name] = &file{size: total}
	l.whole.started += total
}

// Add counts n bytes of name.
func (l *Lines) Add(name string, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.files[name]; f != nil {
		f.done += n
		l.done += n
	}
}

// Done counts the rest of name.
func (l *Lines) Done(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.files[name]; f != nil {
		l.done += f.size - f.done
		delete(l.files, name)
	}
}

// line is empty while nothing is under way.
func (l *Lines) line() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.files) == 0 {
		return ""
	}
	rate := float64(l.done) / max(l.now().Sub(l.started).Seconds(), 0.001)
	s := fmt.Sprintf("%s of %s, %s/s", Bytes(l.done), Bytes(l.whole.size()), Bytes(int64(rate)))
	if rate > 0 {
		left := time.Duration(float64(l.whole.size()-l.done) / rate * float64(time.Second))
		s += ", " + left.Round(time.Second).String() + " left"
	}
	return fmt.Sprintf("%s (%d files under way)", s, len(l.files))
}

// Close ends the lines.
func (l *Lines) Close() {
	close(l.stop)
	l.stopped.Wait()
}
