package b2bua

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// observer writes down what it is told.
type observer struct {
	mu      sync.Mutex
	err     error
	delay   time.Duration
	panics  string
	none    bool
	session []media.Session
	taps    []*tapLog
}

func (o *observer) SessionStarted(ctx context.Context, s media.Session) (media.SessionTap, error) {
	if o.delay > 0 {
		time.Sleep(o.delay)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.panics == "start" {
		panic("no recorder today")
	}
	o.session = append(o.session, s)
	if o.err != nil || o.none {
		return nil, o.err
	}
	t := &tapLog{panics: o.panics}
	o.taps = append(o.taps, t)
	return t, nil
}

func (o *observer) log(i int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if i >= len(o.taps) {
		return "no tap"
	}
	return o.taps[i].String()
}

type tapLog struct {
	mu      sync.Mutex
	panics  string
	lines   []string
	streams []media.Stream
	ended   time.Time
	packets [2]int
}

func (l *tapLog) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
	if l.panics != "" && strings.HasPrefix(format, l.panics) {
		panic("the recorder broke")
	}
}

func (l *tapLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

func (l *tapLog) StreamStarted(s media.Stream) media.Tap {
	l.note("stream %s sending=%v early=%v from %s to %s", s.Side, s.Sending, s.Early, s.Source, s.Local)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.streams = append(l.streams, s)
	return packetCount{l, s.Side}
}
func (l *tapLog) StreamEnded(id media.StreamID, _ time.Time) { l.note("stream %d ended", id) }
func (l *tapLog) Answered(time.Time)                         { l.note("answered") }
func (l *tapLog) Signal(s suppress.Signal)                   { l.note("signal %s %s", s.Event, s.Party) }

func (l *tapLog) OtherMedia(_ time.Time, all []media.OtherMedia) {
	var list []string
	for _, m := range all {
		list = append(list, fmt.Sprintf("%d %s %s %s", m.Line, m.Kind, m.Proto, m.Formats))
	}
	l.note("beside: %s", strings.Join(list, "; "))
}

func (l *tapLog) Ended(at time.Time, c media.Cause) {
	l.mu.Lock()
	l.ended = at
	l.mu.Unlock()
	l.note("ended %s", c)
}

type packetCount struct {
	l    *tapLog
	side media.Side
}

func (p packetCount) Put(time.Time, []byte) {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	p.l.packets[p.side]++
}

// has checks the recorder's log.
func (w *bench) has(i int, want ...string) {
	w.t.Helper()
	synctest.Wait()
	if got := w.obs.log(i); got != strings.Join(want, "\n") {
		w.t.Errorf("recorder %d was told:\n%s\nwant:\n%s", i, got, strings.Join(want, "\n"))
	}
}
