package recorder

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	retryFirst = 100 * time.Millisecond
	retryMost  = time.Second
	// opOverheadBytes is charged to the budget for each queued operation.
	opOverheadBytes = 128
)

// writer takes the output of one core without ever blocking; the recorder's
// scribes carry it to the sink. A failing sink is tried again until the recorder
// closes; meanwhile the queue fills up to the budget, and what has no room is
// refused and becomes a gap.
type writer struct {
	// constant after newWriter
	rec  *Recorder
	info recordingInfo
	call string // id of the session

	// owned by the session's owner: what salvage needs
	last      *Manifest // the account handed on last
	open      bool
	rate      int // Hz; of the segments
	segInfo   Segment
	samples   int64
	realEndMS int64 // behind the last audio or account handed on
	audioMS   int64
	over      bool      // published or discarded
	atOnce    bool      // what comes now had waited for consent
	before    *Manifest // what a process before had recorded; nil: nothing
	late      *lateCopies

	// guarded by mu
	mu      sync.Mutex
	queue   []op
	bytes   int64 // of the queue
	charged int64 // of them, to the budget of the call
	lastErr error
	state   writerState
	dropped bool   // discarded: what is queued before that need not be done
	thinned string // why the last audio was refused for want of disk; empty: it was not
	paused  string // why it was refused for want of a key; empty: it was not

	// owned by the scribe that serves it
	sink     Sink
	segment  SegmentWriter
	finished map[int]Segment
	tries    int       // of the operation under way that failed
	failed   bool      // synchronous: given up
	copiesBy time.Time // when copies are waited for no more
}

// errStopped ends the writing of what could not be published in time.
var errStopped = errors.New("the daemon stopped")

type opKind uint8

const (
	opBegin opKind = iota
	opAudio
	opFinish
	opAbandon
	opPublish
	opDiscard
)

type op struct {
	kind    opKind
	info    SegmentInfo
	audio   Audio
	seg     Segment
	account *Manifest
	why     string
	late    *lateCopies // of opPublish
	bytes   int64
	atOnce  bool // bytes are charged to the budget of all calls alone
}

func newWriter(r *Recorder, call string, info recordingInfo, x *resumption) *writer {
	w := &writer{
		rec: r, call: call, info: info, finished: make(map[int]Segment),
	}
	if x != nil {
		w.goOn(x)
	}
	return w
}

// push queues an operation; false when it has no room.
func (w *writer) push(o op, must bool) bool {
	if w.over {
		return false
	}
	w.over = o.kind == opPublish || o.kind == opDiscard
	o.bytes = opOverheadBytes + int64(len(o.audio.Data)) + accountBytes(o.account)
	if w.rec.cfg.Synchronous {
		w.once(&o)
		return true
	}
	w.mu.Lock()
	if o.kind == opDiscard {
		w.dropQueue()
	}
	w.thinned, w.paused = "", ""
	if !must && w.rec.cfg.Room != nil {
		w.thinned = w.rec.cfg.Room(w.info.ID)
	}
	if !must && w.rec.cfg.Paused != nil {
		w.paused = w.rec.cfg.Paused()
	}
	room := w.thinned == "" && w.paused == "" && (w.atOnce || w.charged+o.bytes <= w.rec.cfg.CallBudgetBytes) && w.rec.queued.Load()+o.bytes <= w.rec.cfg.TotalBudgetBytes
	if !room && !must {
		w.mu.Unlock()
		w.rec.stats.FramesRefused.Add(1)
		return false
	}
	o.atOnce = w.atOnce
	w.bytes += o.bytes
	w.charged += o.charge()
	w.rec.queued.Add(o.bytes)
	w.queue = append(w.queue, o)
	was := w.state
	if was == writerNew || was == writerIdle {
		w.state = writerReady
	}
	w.mu.Unlock()
	switch was {
	case writerNew:
		w.rec.scribes.begin(w)
	case writerIdle:
		w.rec.scribes.enqueue(w)
	case writerReady, writerServed, writerParked, writerOver: // somebody will come to it
	}
	return true
}

// released says that what comes until it is taken back comes in one piece, however
// slow the store is: it waited for consent, in memory under a budget of its own, and
// is not to be lost for want of room in that of the call.
func (w *writer) released(on bool) { w.atOnce = on }

// charge is what an operation takes of the budget of its call.
func (o *op) charge() int64 {
	if o.atOnce {
		return 0
	}
	return o.bytes
}

// dropQueue takes out what waits but for the operation under way. w.mu is held.
func (w *writer) dropQueue() {
	w.dropped = true
	for i := 1; i < len(w.queue); i++ {
		w.bytes -= w.queue[i].bytes
		w.charged -= w.queue[i].charge()
		w.rec.queued.Add(-w.queue[i].bytes)
		releaseFrame(w.queue[i].audio.Data)
		w.queue[i] = op{}
	}
	w.queue = w.queue[:min(1, len(w.queue))]
}

func (w *writer) isDropped() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}

// accountBytes estimates what a queued account holds.
func accountBytes(m *Manifest) int64 {
	if m == nil {
		return 0
	}
	const entryBytes = 128
	return entryBytes * int64(8+len(m.Gaps)+len(m.Windows)+len(m.DTMF)+len(m.Streams)+len(m.Segments)+len(m.Signals))
}

func (w *writer) begin(info SegmentInfo) {
	w.moveSegment(&info)
	w.open, w.samples, w.rate = true, 0, info.SampleRate
	w.segInfo = Segment{N: info.N, RealMS: info.RealMS, AudioMS: info.AudioMS, EndRealMS: info.RealMS, Parties: []string{}}
	w.push(op{kind: opBegin, info: info}, true)
}

func (w *writer) audio(a Audio, account *Manifest) bool {
	a, account = w.moveAudio(a), w.stitched(account)
	if !w.push(op{kind: opAudio, audio: a, account: account}, false) {
		return false
	}
	w.samples = max(w.samples, a.SegMS*int64(w.rate)/1000+int64(a.Samples))
	ms := int64(a.Samples) * 1000 / int64(w.rate)
	w.realEndMS, w.audioMS = a.RealMS+ms, a.AudioMS+ms
	w.segInfo.EndRealMS = w.realEndMS
	if account != nil {
		w.last = Complete(w.last, account)
	}
	return true
}

func (w *writer) finish(seg Segment, account *Manifest) {
	account = w.stitched(account)
	seg = w.moveFinished(seg)
	w.finishWith(seg, account)
}

// finishWith is finish with positions in the whole recording.
func (w *writer) finishWith(seg Segment, account *Manifest) {
	w.open = false
	w.last = account
	w.realEndMS, w.audioMS = account.RealMS, account.AudioMS
	w.push(op{kind: opFinish, seg: seg, account: account}, true)
}

func (w *writer) abandon() {
	w.open = false
	w.push(op{kind: opAbandon}, true)
}

func (w *writer) publish(m *Manifest) { w.publishWhole(w.stitched(m)) }

func (w *writer) publishWhole(m *Manifest) {
	w.push(op{kind: opPublish, account: m, late: w.late}, true)
}

// discard gives the recording up; why is for whoever looks for it.
func (w *writer) discard(why string) { w.push(op{kind: opDiscard, why: why}, true) }

// serve carries out what is queued, until nothing is left or something fails.
func (w *writer) serve() {
	for {
		w.mu.Lock()
		if w.rec.scribes.abandoned() {
			w.mu.Unlock()
			w.giveUp()
			return
		}
		if len(w.queue) == 0 {
			w.state = writerIdle
			w.mu.Unlock()
			return
		}
		w.state = writerServed
		o := w.queue[0] // a copy: push moves the queue
		w.mu.Unlock()
		if w.waitsForCopies(&o) {
			return
		}
		err := w.try(&o)
		switch {
		case err == nil && w.tries > 0:
			w.recovered()
		case err == nil:
		case o.kind != opDiscard && w.isDropped(): // whatever it was, it is to be removed
		default:
			w.stuck(err)
			return
		}
		w.tries = 0
		w.taken(&o)
		if o.kind == opPublish || o.kind == opDiscard {
			w.retire()
			return
		}
	}
}

// taken removes the operation that was carried out.
func (w *writer) taken(o *op) {
	w.mu.Lock()
	w.bytes -= o.bytes
	w.charged -= o.charge()
	w.rec.queued.Add(-o.bytes)
	w.queue[0] = op{}
	w.queue = w.queue[1:]
	if len(w.queue) == 0 {
		w.queue = nil // what was its room is behind it
	}
	w.mu.Unlock()
	releaseFrame(o.audio.Data)
}

// try is one attempt; a panic of the sink counts as its error.
func (w *writer) try(o *op) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("sink fault: %v", p)
		}
	}()
	return w.do(o)
}

// once is persist for a synchronous recorder, which has nobody to try again:
// after the first failure nothing more is written and nothing is published, as
// its account would not be true.
func (w *writer) once(o *op) {
	if w.failed {
		return
	}
	err := w.try(o)
	releaseFrame(o.audio.Data)
	if err == nil {
		return
	}
	w.failed = true
	w.rec.note(fmt.Errorf("recording %s: %w", w.info.ID, err))
	if w.sink != nil {
		_ = w.sink.Close() // the first error is the one to report
	}
}

// stuck tells, once, that the sink does not take what it should, and tries
// again later.
func (w *writer) stuck(err error) {
	w.rec.stats.WriteErrors.Add(1)
	if w.tries == 0 {
		w.rec.alarm(w.call, "storage", err)
	}
	wait := min(retryFirst<<min(w.tries, 8), retryMost)
	w.tries++
	w.mu.Lock()
	w.lastErr, w.state = err, writerParked
	w.mu.Unlock()
	w.rec.scribes.later(w, wait)
}

func (w *writer) recovered() {
	w.rec.events.publish(Event{Type: "alarm", At: time.Now(), Call: w.call, Data: map[string]string{"alarm": "storage", "state": "cleared"}})
}

// refusal says, for the account, why audio had no room.
func (w *writer) refusal() (cause, detail string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.paused != "":
		return GapKey, w.paused
	case w.thinned != "":
		return GapDisk, w.thinned
	case errors.Is(w.lastErr, ErrKey):
		return GapKey, "write budget spent: no key was to be had"
	case w.lastErr != nil:
		return GapOverrun, "write budget spent: " + w.lastErr.Error()
	}
	return GapOverrun, "write budget spent"
}

// giveUp ends the writing of what could not be published in time.
func (w *writer) giveUp() {
	w.mu.Lock()
	err := errStopped
	if w.tries > 0 {
		err = w.lastErr
	}
	w.rec.queued.Add(-w.bytes)
	w.bytes, w.charged = 0, 0
	w.queue = nil
	w.mu.Unlock()
	if w.sink != nil && w.isDropped() {
		err = errors.Join(err, w.sink.Discard()) // the last chance: it must not be recovered
	}
	if w.sink != nil {
		_ = w.sink.Close() // what is spooled stays for recovery at the next start
	}
	w.rec.unpublished(w.call, w.info.ID, err)
	w.retire()
}

// retire says that nothing more will be written.
func (w *writer) retire() {
	w.mu.Lock()
	w.state = writerOver
	w.mu.Unlock()
	w.rec.scribes.end(w)
}

// do is one operation on the sink.
func (w *writer) do(o *op) error {
	if w.sink == nil && o.kind != opDiscard {
		sink, err := w.newSink(context.Background())
		if err != nil {
			return fmt.Errorf("open sink: %w", err)
		}
		w.sink = sink
	}
	switch o.kind {
	case opBegin:
		seg, err := w.sink.Begin(o.info)
		if err != nil {
			return fmt.Errorf("begin segment %d: %w", o.info.N, err)
		}
		w.segment = seg
	case opAudio:
		if err := w.segment.Write(o.audio, w.fill(o.account)); err != nil {
			return fmt.Errorf("write segment: %w", err)
		}
	case opFinish:
		res, err := w.segment.Finish(w.fill(o.account))
		if err != nil {
			return fmt.Errorf("finish segment %d: %w", o.seg.N, err)
		}
		w.segment = nil
		seg := o.seg // o itself stays as it is: the owner may be moving the queue
		seg.File, seg.Bytes, seg.SHA256, seg.AudioSHA256 = res.File, res.Bytes, res.SHA256, res.AudioSHA256
		w.finished[seg.N] = seg
		w.rec.segmentDone(w.call, w.info.ID, seg)
	case opAbandon:
		if err := w.segment.Abort(); err != nil {
			return fmt.Errorf("abandon segment: %w", err)
		}
		w.segment = nil
	case opPublish:
		m := w.settled(w.fill(o.account), o.late)
		if err := w.sink.Publish(m); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		if err := w.sink.Close(); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		w.rec.published(w.call, m) // last: what failed before it is tried again as a whole
	case opDiscard:
		if w.sink != nil {
			if err := w.sink.Discard(); err != nil {
				return err
			}
			if err := w.sink.Close(); err != nil {
				return fmt.Errorf("discard: %w", err)
			}
		}
		w.rec.discarded(w.call, w.info, o.why)
	}
	return nil
}

// fill returns an account with what is known of the files of its finished
// segments. The account itself stays as it is: salvage may be reading it.
func (w *writer) fill(m *Manifest) *Manifest {
	if m == nil || len(w.finished) == 0 {
		return m
	}
	c := *m
	c.Segments = slices.Clone(m.Segments)
	for i, s := range c.Segments {
		if f, ok := w.finished[s.N]; ok {
			c.Segments[i].File, c.Segments[i].Bytes = f.File, f.Bytes
			c.Segments[i].SHA256, c.Segments[i].AudioSHA256 = f.SHA256, f.AudioSHA256
		}
	}
	return &c
}
