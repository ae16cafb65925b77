package recorder

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media"
)

// sender is a Copier that sends what it hears half a second later, to one server,
// until that is gone.
type sender struct {
	ear
	mu     sync.Mutex
	ended  time.Time
	silent bool // it never says that it is done
	goneMS int64
	total  int64
	sent   int64
}

var copyServers = []string{"sip:a@192.0.2.1", "sip:b@192.0.2.2"}

func (s *sender) Audio(realMS int64, rate int, ch [2][]int16) {
	s.ear.Audio(realMS, rate, ch)
	s.mu.Lock()
	defer s.mu.Unlock()
	ms := int64(len(ch[0]) * 1000 / rate)
	if s.total = realMS + ms; s.total <= s.goneMS {
		s.sent = s.total
	}
}

func (s *sender) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended.IsZero() {
		s.ended = time.Now()
	}
}

func (s *sender) done() bool {
	return !s.silent && !s.ended.IsZero() && time.Since(s.ended) >= 400*time.Millisecond
}

func (s *sender) Settled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done()
}

func (s *sender) Changes() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := uint64(0)
	if s.sent > 0 {
		n++
	}
	if s.total > s.sent {
		n++
	}
	return n
}

func (s *sender) Copies() []Copy {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := Copy{Servers: copyServers, ThroughMS: -1}
	add := func(side int, from, to int64, server, why string) {
		if to > from {
			c.Spans = append(c.Spans, CopySpan{Side: media.Side(side).String(), RealMS: from, EndRealMS: to, Server: server, Unsent: why})
		}
	}
	until := s.total
	if !s.done() {
		until = max(0, s.total-500)
		c.ThroughMS = until
	}
	for side := range 2 {
		c.SentMS[side], c.UnsentMS[side] = min(s.sent, until), max(0, until-s.sent)
		add(side, 0, min(s.sent, until), copyServers[0], "")
	}
	for side := range 2 {
		add(side, s.sent, until, "", "no_server")
	}
	return []Copy{c}
}

// copied plays a call of five seconds to a live recorder, and returns what was published.
func copied(t *testing.T, s *sender) (*Manifest, *memSink, []Event) {
	t.Helper()
	s.heard = map[int64][2]int16{}
	var m *Manifest
	var sink *memSink
	var events []Event
	synctest.Test(t, func(t *testing.T) {
		var seen <-chan Event
		sink, m, _ = recordedLive(t, Config{
			Policy: fixedPolicy{testPlan()}, Monitor: func(media.Session) Monitor { return s },
		}, append([]step{{at: at(-500), do: func(c *testCall) { seen, _ = c.tap.(*session).rec.Subscribe() }}}, plainCall(5000)...))
		for e := range seen {
			events = append(events, e)
		}
	})
	return m, sink, events
}

func eventsOf(all []Event, kind string) (out []Event) {
	for _, e := range all {
		if e.Type == kind {
			out = append(out, e)
		}
	}
	return out
}

func copySpansOf(server, why string, from, to int64) (out []CopySpan) {
	for _, side := range [2]string{"external", "internal"} {
		out = append(out, CopySpan{Side: side, RealMS: from, EndRealMS: to, Server: server, Unsent: why})
	}
	return out
}

// What a copy lacks stands in the recording's account, with what was still to be sent
// when the call ended, and the events tell of it while it happens.
func TestCopiesAreAccountedFor(t *testing.T) {
	m, _, events := copied(t, &sender{goneMS: 3000})
	want := []Copy{{
		Servers: copyServers, SentMS: [2]int64{3000, 3000}, UnsentMS: [2]int64{2000, 2000}, ThroughMS: 5000,
		Spans: append(copySpansOf(copyServers[0], "", 0, 3000), copySpansOf("", "no_server", 3000, 5000)...),
	}}
	if d := cmp.Diff(want, m.Copies); d != "" {
		t.Errorf("copies (-want +got): %s", d)
	}
	changed := eventsOf(events, "copy.changed")
	if len(changed) != 2 {
		t.Fatalf("told %+v", changed)
	}
	published := eventsOf(events, "recording.published")
	if len(published) != 1 || cmp.Diff(published[0].Data.(map[string]any)["copies"], []map[string]any{
		{"servers": copyServers, "sent_ms": [2]int64{3000, 3000}, "unsent_ms": [2]int64{2000, 2000}, "through_ms": int64(5000)},
	}) != "" {
		t.Errorf("published %+v", published)
	}
}

// A recording does not wait for ever for who does not say what became of its copy.
func TestCopyThatDoesNotSettle(t *testing.T) {
	m, _, _ := copied(t, &sender{goneMS: 10_000, silent: true})
	if m == nil || len(m.Copies) != 1 || m.Copies[0].ThroughMS != 4500 || m.Copies[0].SentMS != [2]int64{4500, 4500} {
		t.Errorf("published %+v", m)
	}
}

// When the copy fails, what follows was not sent.
func TestCopyThatFails(t *testing.T) {
	m, sink, _ := copied(t, &sender{ear: ear{panicAt: 3000}, goneMS: 10_000})
	if m.AudioMS != 5000 || len(m.Copies) != 1 {
		t.Fatalf("%d ms recorded, copies %+v", m.AudioMS, m.Copies)
	}
	c := m.Copies[0]
	last := c.Spans[len(c.Spans)-2:]
	if d := cmp.Diff(copySpansOf("", CopyFault, last[0].RealMS, 5000), last); d != "" || c.ThroughMS != 5000 || c.SentMS[0]+c.UnsentMS[0] != 5000 || last[0].RealMS > 3000 {
		t.Errorf("copy %+v", c)
	}
	checkAccount(t, m, sink)
}

// Accounts of a recording that went on after a restart are joined; what was on its way
// when the daemon died nobody knows.
func TestCopiesOverARestart(t *testing.T) {
	a, b := copyServers[:1], copyServers[1:]
	before := &Manifest{RealMS: 1000, Copies: []Copy{
		{Servers: a, SentMS: [2]int64{800, 800}, ThroughMS: 800, Spans: copySpansOf(a[0], "", 0, 800)},
		{Servers: b, UnsentMS: [2]int64{1000, 1000}, ThroughMS: 1000, Spans: copySpansOf("", "no_server", 0, 1000)},
	}}
	after := &Manifest{RealMS: 500, Copies: []Copy{
		{Servers: b, SentMS: [2]int64{500, 500}, ThroughMS: 500, Spans: copySpansOf(b[0], "", 0, 500)},
		{Servers: a, SentMS: [2]int64{400, 300}, UnsentMS: [2]int64{100, 200}, ThroughMS: 500, Spans: copySpansOf(a[0], "", 100, 500), Unlisted: 2},
	}}
	want := []Copy{
		{
			Servers: a, SentMS: [2]int64{1200, 1100}, UnsentMS: [2]int64{300, 400}, ThroughMS: 1500, Unlisted: 2,
			Spans: append(append(copySpansOf(a[0], "", 0, 800), copySpansOf("", CopyUnknown, 800, 1000)...), copySpansOf(a[0], "", 1100, 1500)...),
		},
		{
			Servers: b, SentMS: [2]int64{500, 500}, UnsentMS: [2]int64{1000, 1000}, ThroughMS: 1500,
			Spans: append(copySpansOf("", "no_server", 0, 1000), copySpansOf(b[0], "", 1000, 1500)...),
		},
	}
	if d := cmp.Diff(want, Stitch(before, after).Copies); d != "" {
		t.Errorf("copies (-want +got): %s", d)
	}
	if len(before.Copies[0].Spans) != 2 || after.Copies[1].Spans[0].RealMS != 100 {
		t.Error("what was joined is changed")
	}
}
