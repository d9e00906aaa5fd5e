// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package jitter

import (
	"testing"
	"time"
)

func TestAfterSpreadsWhatIsAskedFor(t *testing.T) {
	const s = time.Second
	for _, c := range []struct{ asked, room, most time.Duration }{
		{3 * s, time.Hour, 4 * s},
		{100 * s, time.Hour, 110 * s},
		{100 * s, 102 * s, 102 * s},
		{100 * s, 100 * s, 100 * s},
		{100 * s, s, 100 * s}, // what does not fit is its caller's to refuse
		{0, time.Hour, 0},
	} {
		least, most := time.Hour, time.Duration(0)
		for range 1000 {
			d := After(c.asked, c.room)
			least, most = min(least, d), max(most, d)
		}
		if room := c.most - c.asked; least < c.asked || most > c.most || least > c.asked+room/4 || most < c.most-room/4 {
			t.Errorf("asked for %v with room for %v: from %v to %v, want up to %v", c.asked, c.room, least, most, c.most)
		}
	}
}
