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

// writer takes the output of one core without ever blocking and carries it to
// the sink in a goroutine of its own. A failing sink is tried again until the
// recorder closes; meanwhile the queue fills up to the budget, and what has no
// room is refused and becomes a gap.
type writer struct {
	// constant after newWriter
	rec  *Recorder
	info recordingInfo
	call string // id of the session

	// owned by the session's owner: what salvage needs
	last      *Manifest // the account handed on last
	open      bool
	segInfo   Segment
	samples   int64
	realEndMS int64 // behind the last audio or account handed on
	audioMS   int64
	over      bool // published or discarded

	// guarded by mu
	mu      sync.Mutex
	queue   []op
	bytes   int64
	lastErr error
	started bool
	dropped bool // discarded: what is queued before that need not be done

	wake chan struct{} // one slot
	done chan struct{}

	// owned by the writing goroutine
	sink     Sink
	segment  SegmentWriter
	finished map[int]Segment
	failed   bool // synchronous: given up
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
	bytes   int64
}

func newWriter(r *Recorder, call string, info recordingInfo) *writer {
	return &writer{
		rec: r, call: call, info: info, wake: make(chan struct{}, 1), done: make(chan struct{}), finished: make(map[int]Segment),
	}
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
	room := w.bytes+o.bytes <= w.rec.cfg.CallBudgetBytes && w.rec.queued.Load()+o.bytes <= w.rec.cfg.TotalBudgetBytes
	if !room && !must {
		w.mu.Unlock()
		w.rec.stats.FramesRefused.Add(1)
		return false
	}
	w.bytes += o.bytes
	w.rec.queued.Add(o.bytes)
	w.queue = append(w.queue, o)
	if !w.started {
		w.started = true
		w.rec.writers.Add(1)
		go w.run()
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return true
}

// dropQueue takes out what waits but for the operation under way. w.mu is held.
func (w *writer) dropQueue() {
	w.dropped = true
	for i := 1; i < len(w.queue); i++ {
		w.bytes -= w.queue[i].bytes
		w.rec.queued.Add(-w.queue[i].bytes)
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
	w.open, w.samples = true, 0
	w.segInfo = Segment{N: info.N, RealMS: info.RealMS, AudioMS: info.AudioMS, EndRealMS: info.RealMS, Parties: []string{}}
	w.push(op{kind: opBegin, info: info}, true)
}

func (w *writer) audio(a Audio, account *Manifest) bool {
	if !w.push(op{kind: opAudio, audio: a, account: account}, false) {
		return false
	}
	w.samples = max(w.samples, a.SegMS*int64(w.info.head.SampleRate)/1000+int64(a.Samples))
	ms := int64(a.Samples) * 1000 / int64(w.info.head.SampleRate)
	w.realEndMS, w.audioMS = a.RealMS+ms, a.AudioMS+ms
	w.segInfo.EndRealMS = w.realEndMS
	if account != nil {
		w.last = Complete(w.last, account)
	}
	return true
}

func (w *writer) finish(seg Segment, account *Manifest) {
	w.open = false
	w.last = account
	w.realEndMS, w.audioMS = account.RealMS, account.AudioMS
	w.push(op{kind: opFinish, seg: seg, account: account}, true)
}

func (w *writer) abandon() {
	w.open = false
	w.push(op{kind: opAbandon}, true)
}

func (w *writer) publish(m *Manifest) { w.push(op{kind: opPublish, account: m}, true) }

// discard gives the recording up; why is for whoever looks for it.
func (w *writer) discard(why string) { w.push(op{kind: opDiscard, why: why}, true) }

// run is the writing goroutine. It ends when the recording is published,
// discarded or given up.
func (w *writer) run() {
	defer w.rec.writers.Done()
	defer close(w.done)
	for {
		w.mu.Lock()
		var o *op
		if len(w.queue) > 0 {
			next := w.queue[0] // a copy: push moves the queue
			o = &next
		}
		w.mu.Unlock()
		if o == nil {
			select {
			case <-w.wake:
				continue
			case <-w.rec.abandon:
				w.giveUp(errStopped)
				return
			}
		}
		if err := w.persist(o); err != nil {
			w.giveUp(err)
			return
		}
		last := o.kind == opPublish || o.kind == opDiscard
		w.mu.Lock()
		w.bytes -= o.bytes
		w.rec.queued.Add(-o.bytes)
		w.queue[0] = op{}
		w.queue = w.queue[1:]
		w.mu.Unlock()
		if last {
			return
		}
	}
}

// persist carries out one operation, again and again while the sink fails. An
// error means that the recorder does not wait any longer.
func (w *writer) persist(o *op) error {
	wait := retryFirst
	for try := 0; ; try++ {
		if !w.rec.acquireDisk() {
			return errStopped
		}
		err := w.try(o)
		w.rec.releaseDisk()
		if err == nil {
			if try > 0 {
				w.recovered()
			}
			return nil
		}
		if o.kind != opDiscard && w.isDropped() {
			return nil // whatever it was, it is to be removed
		}
		w.stuck(err, try)
		select {
		case <-time.After(wait):
		case <-w.rec.abandon:
			return err
		}
		wait = min(2*wait, retryMost)
	}
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
	if err == nil {
		return
	}
	w.failed = true
	w.rec.note(fmt.Errorf("recording %s: %w", w.info.ID, err))
	if w.sink != nil {
		_ = w.sink.Close() // the first error is the one to report
	}
}

// stuck tells, once, that the sink does not take what it should.
func (w *writer) stuck(err error, try int) {
	w.rec.stats.WriteErrors.Add(1)
	w.mu.Lock()
	w.lastErr = err
	w.mu.Unlock()
	if try == 0 {
		w.rec.alarm(w.call, "storage", err)
	}
}

func (w *writer) recovered() {
	w.rec.events.publish(Event{Type: "alarm", At: time.Now(), Call: w.call, Data: map[string]string{"alarm": "storage", "state": "cleared"}})
}

// refusal says, for the account, why audio had no room.
func (w *writer) refusal() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lastErr != nil {
		return "write budget spent: " + w.lastErr.Error()
	}
	return "write budget spent"
}

func (w *writer) giveUp(err error) {
	w.mu.Lock()
	w.rec.queued.Add(-w.bytes)
	w.bytes = 0
	w.queue = nil
	w.mu.Unlock()
	if w.sink != nil && w.isDropped() {
		err = errors.Join(err, w.sink.Discard()) // the last chance: it must not be recovered
	}
	if w.sink != nil {
		_ = w.sink.Close() // what is spooled stays for recovery at the next start
	}
	w.rec.unpublished(w.call, w.info.ID, err)
}

// do is one operation on the sink.
func (w *writer) do(o *op) error {
	if w.sink == nil && o.kind != opDiscard {
		sink, err := w.rec.cfg.NewSink(context.Background(), w.info.ID, w.info.Prefix)
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
		seg.File, seg.Bytes, seg.SHA256 = res.File, res.Bytes, res.SHA256
		w.finished[seg.N] = seg
		w.rec.segmentDone(w.call, w.info.ID, seg)
	case opAbandon:
		if err := w.segment.Abort(); err != nil {
			return fmt.Errorf("abandon segment: %w", err)
		}
		w.segment = nil
	case opPublish:
		m := w.fill(o.account)
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
			c.Segments[i].File, c.Segments[i].Bytes, c.Segments[i].SHA256 = f.File, f.Bytes, f.SHA256
		}
	}
	return &c
}
