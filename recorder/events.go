package recorder

import (
	"fmt"
	"sync"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

// subscriberEventsMax is how many events a subscriber may lag behind.
const subscriberEventsMax = 1024

// hub hands events to subscribers without waiting for any of them.
type hub struct {
	mu     sync.Mutex
	seq    uint64
	subs   map[*subscriber]struct{}
	closed bool
}

type subscriber struct {
	ch     chan Event
	missed uint64
}

func newHub() *hub { return &hub{subs: make(map[*subscriber]struct{})} }

func (h *hub) publish(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.seq++
	e.Seq = h.seq
	e.At = e.At.UTC().Round(0)
	for s := range h.subs {
		x := e
		x.Missed = s.missed
		select {
		case s.ch <- x:
			s.missed = 0
		default:
			s.missed++
		}
	}
}

func (h *hub) subscribe() (<-chan Event, func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &subscriber{ch: make(chan Event, subscriberEventsMax)}
	if h.closed {
		close(s.ch)
		return s.ch, func() {}
	}
	h.subs[s] = struct{}{}
	return s.ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if _, ok := h.subs[s]; ok {
			delete(h.subs, s)
			close(s.ch)
		}
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.subs {
		close(s.ch)
	}
	clear(h.subs)
}

// signalled tells what a signal did. Attributes and users are the operator's
// own words; digits and audio are never part of an event.
func (r *Recorder) signalled(s *session, sig suppress.Signal, e effect) {
	r.stats.Signals.Add(1)
	if !r.cfg.Synchronous {
		r.stats.SignalLatency.Observe(r.eventTime().Sub(sig.At))
	}
	if e.hidden {
		return
	}
	if e.orphaned {
		r.stats.PausesOrphaned.Add(1)
		r.alarm(s.info.ID, "pause-source-lost", fmt.Errorf("%s began the secure pause and cannot end it: it stays", sig.Source))
	}
	if e.LateMS > 0 {
		r.stats.LateSignals.Add(1)
	}
	r.stats.MissedMS.Add(e.MissedMS)
	r.events.publish(Event{Type: "signal", At: sig.At, Call: s.info.ID, Data: struct {
		Event   suppress.Event `json:"event"`
		Source  string         `json:"source"`
		Applied Applied        `json:"applied"`
	}{sig.Event, sig.Source, applied(e)}})
	if e.MissedMS > 0 {
		r.events.publish(Event{Type: "alarm", At: sig.At, Call: s.info.ID, Data: map[string]any{
			"alarm": "late-signal", "event": sig.Event, "missed_ms": e.MissedMS,
		}})
	}
}

func (r *Recorder) segmentDone(call, recording string, s Segment) {
	r.stats.SegmentsDone.Add(1)
	r.events.publish(Event{Type: "segment.complete", At: r.eventTime(), Call: call, Data: struct {
		Recording string `json:"recording"`
		Segment
	}{recording, s}})
}

func (r *Recorder) published(call string, m *Manifest) {
	r.stats.Published.Add(1)
	if r.cfg.Published != nil {
		r.cfg.Published(m)
	}
	if r.cfg.Synchronous {
		r.mu.Lock()
		r.done = append(r.done, m)
		r.mu.Unlock()
	}
	data := map[string]any{
		"recording": m.ID, "kind": m.Kind, "user": m.User,
		"real_ms": m.RealMS, "audio_ms": m.AudioMS, "segments": len(m.Segments), "gaps": len(m.Gaps), "windows": len(m.Windows),
	}
	if len(m.Copies) > 0 {
		data["copies"] = copySums(m)
	}
	r.events.publish(Event{Type: "recording.published", At: m.Call.End, Call: call, Data: data})
}

// discarded tells that a recording is not kept.
func (r *Recorder) discarded(call string, info recordingInfo, why string) {
	r.stats.Discarded.Add(1)
	r.events.publish(Event{Type: "recording.discarded", At: r.eventTime(), Call: call, Data: map[string]any{
		"recording": info.ID, "kind": info.Kind, "user": info.User, "why": why,
	}})
}

// failed tells that the rest of a call is not recorded.
func (r *Recorder) failed(s *session, why string, stack []byte) {
	r.stats.Failed.Add(1)
	r.cfg.Log.Error("recording failed; the call goes on", "call", s.info.ID, "why", why, "stack", string(stack))
	r.events.publish(Event{Type: "recording.failed", At: r.eventTime(), Call: s.info.ID, Data: map[string]string{"why": why}})
}

// unpublished tells that a recording stays in the spool.
func (r *Recorder) unpublished(call, recording string, err error) {
	r.cfg.Log.Error("recording left in the spool", "call", call, "recording", recording, "error", err)
	r.events.publish(Event{Type: "recording.failed", At: r.eventTime(), Call: call, Data: map[string]string{"recording": recording, "why": err.Error()}})
}

func (r *Recorder) alarm(id, name string, err error) {
	r.cfg.Log.Warn("alarm", "alarm", name, "call", id, "error", err)
	r.events.publish(Event{Type: "alarm", At: r.eventTime(), Call: id, Data: map[string]string{"alarm": name, "error": err.Error()}})
}

// eventTime stamps events of the recorder itself; they are no part of the account.
func (r *Recorder) eventTime() time.Time { return time.Now() }

// note keeps an error of a synchronous recorder.
func (r *Recorder) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, err)
}
