package replay

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/media/pcap"
)

const fixtures = "../../../shared/fixtures"

// outcome is one row: calls, and for each its cause, codecs and packets by side.
func outcome(b *notebook, s Stats) string {
	rows := []string{fmt.Sprintf("%d calls, %d orphans", s.Calls, s.OrphanRTP)}
	for _, c := range b.calls {
		seconds := c.end.Sub(c.session.Start).Seconds()
		rows = append(rows, fmt.Sprintf("%s %.1fs %s/%s rtp %d/%d rtcp %d/%d", c.cause, seconds,
			c.codecs[0], c.codecs[1], c.rtp[0], c.rtp[1], c.rtcp[0], c.rtcp[1]))
	}
	return strings.Join(rows, "; ")
}

func replayFile(t testing.TB, name string, cfg Config) (*notebook, Stats) {
	t.Helper()
	r, err := pcap.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b := &notebook{}
	stats, err := Run(context.Background(), r, cfg, b, nil)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := b.err(); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return b, stats
}

// What comes out of captures that nobody here wrote. Packets of the external
// and the internal side.
func TestFixtures(t *testing.T) {
	want := map[string]string{}
	names, err := filepath.Glob(filepath.Join(fixtures, "*/*.pcap"))
	if err != nil {
		t.Fatal(err)
	}
	for _, glob := range []string{"public/*/*.pcap", "public/*/*.pcapng"} {
		more, err := filepath.Glob(filepath.Join(fixtures, glob))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, more...)
	}
	if len(names) == 0 {
		t.Skip("the captures of ../shared/fixtures are not here")
	}
	for _, name := range names {
		b, s := replayFile(t, name, Config{})
		base := filepath.Base(name)
		got := outcome(b, s)
		t.Logf("%s: %s %+v", base, got, s)
		if w, ok := want[base]; ok && got != w {
			t.Errorf("%s: %s, want %s", base, got, w)
		}
	}
}
