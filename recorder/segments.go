package recorder

import (
	"fmt"

	"github.com/trunktap/trunktap/media/codec"
)

// segmentState is the open segment and the audio that waits for a frame.
type segmentState struct {
	n       int // number of the open or last segment
	open    bool
	enc     codec.Encoder
	info    Segment
	samples int64 // of the open segment, coded
	audio   int64 // of the recording, coded and waiting, in samples
	done    []Segment

	data       []byte     // what waits for a frame, where each sample is coded for itself
	coded      int        // samples in data
	pend       [2][]int16 // what waits and is not coded
	pendSpans  []span     // real-time spans of what waits, in samples
	lastFlush  int64      // ns
	lastStated int64      // ns of the last account written
	stated     bool       // an account was written into the open segment
	statedMS   int64      // real time that it covers
}

// append adds samples that lie together in real time from realMS on.
func (g *segmentState) append(r *recording, realMS int64, ch [2][]int16) {
	if len(ch[0]) > 0 && r.owedMS > 0 {
		g.settle(r, realMS)
	}
	for len(ch[0]) > 0 {
		if g.open && g.empty() && g.info.RealMS != realMS {
			g.abandon(r)
		}
		if !g.open {
			g.begin(r, realMS)
		}
		room := r.plan.SegmentMax.Milliseconds()*r.perMS - g.samples - int64(g.waiting())
		n := min(len(ch[0]), int(room))
		g.keep(r, [2][]int16{ch[0][:n], ch[1][:n]})
		ch[0], ch[1] = ch[0][n:], ch[1][n:]
		from := realMS * r.perMS
		if k := len(g.pendSpans); k > 0 && g.pendSpans[k-1].to == from {
			g.pendSpans[k-1].to += int64(n)
		} else {
			g.pendSpans = append(g.pendSpans, span{from, from + int64(n)})
		}
		g.audio += int64(n)
		realMS += int64(n) / r.perMS
		g.info.EndRealMS = realMS
		if int64(n) == room {
			r.finishSegment()
		}
	}
}

// waiting is how many samples wait for a frame.
func (g *segmentState) waiting() int { return g.coded + len(g.pend[0]) }

// keep takes samples that the next frame gets: coded at once where the coding
// knows no neighbours, which spares a copy of them and half its memory.
func (g *segmentState) keep(r *recording, ch [2][]int16) {
	if g.enc != nil && g.enc.Granule() == 1 && len(g.pend[0]) == 0 {
		if g.data == nil {
			g.data = newFrame(g.frameBytes(r, int(frameMS+chunkMS)*int(r.perMS)))
		}
		data, err := g.enc.Encode(g.data, ch)
		if err == nil {
			g.data = data
			g.coded += len(ch[0])
			return
		}
	}
	for i := range ch {
		g.pend[i] = append(g.pend[i], ch[i]...)
	}
}

// frameBytes is the room that so many samples need in the largest coding.
func (g *segmentState) frameBytes(r *recording, samples int) int {
	n := r.channels() * samples
	switch r.plan.Format {
	case FormatWAVPCM16:
		return 2 * n
	case FormatOggOpus:
		return n / 4
	}
	return n
}

// settle makes up for the silence before consent, of which nothing was written
// then. Only the last of it in each segment is coded: what is missing before a
// frame is silence.
func (g *segmentState) settle(r *recording, realMS int64) {
	owed := r.owedMS * r.perMS
	r.owedMS = 0
	for owed > 0 {
		from := realMS - owed/r.perMS
		if !g.open {
			g.begin(r, from)
		}
		n := min(owed, r.plan.SegmentMax.Milliseconds()*r.perMS-g.samples-int64(g.waiting()))
		owed -= n
		last := min(n, chunkMS*r.perMS)
		if g.enc != nil && g.empty() {
			last = min(n, last+n%int64(g.enc.Granule()))
			g.samples += n - last
			g.audio += n - last
			n = last
		}
		g.append(r, realMS-(owed+n)/r.perMS, [2][]int16{make([]int16, n), make([]int16, n)})
	}
}

// begin opens a segment at a position.
func (g *segmentState) begin(r *recording, realMS int64) {
	g.n++
	g.open, g.samples, g.stated = true, 0, false
	g.lastFlush = r.now
	g.info = Segment{N: g.n, RealMS: realMS, AudioMS: g.audio / r.perMS, EndRealMS: realMS, Parties: r.parties.names()}
	enc, err := r.newEncoder()
	if err != nil {
		r.account.fault = fmt.Sprintf("encoder: %v", err)
	}
	g.enc = enc
	r.account.dirty = true // goes with the first audio, for recovery
	r.out.begin(SegmentInfo{
		Recording: r.id, Prefix: r.prefix, N: g.n, Format: r.plan.Format,
		SampleRate: r.plan.SampleRate, Channels: r.channels(), RealMS: realMS, AudioMS: g.info.AudioMS,
		Start: r.msTime(realMS),
	})
}

func (g *segmentState) empty() bool { return g.samples == 0 && g.waiting() == 0 }

// stale says that something changed at a position: an account that would not
// reach back so far must be whole.
func (g *segmentState) stale(ms int64) {
	if ms < g.statedMS-accountTailMS {
		g.stated = false
	}
}

// abandon gives up an open segment without audio.
func (g *segmentState) abandon(r *recording) {
	if g.enc != nil {
		g.enc.Close()
	}
	g.open, g.enc = false, nil
	g.n--
	r.out.abandon()
}

// tick writes a frame when enough has gathered, or when the account must be
// stated again.
func (g *segmentState) tick(r *recording) {
	if !g.open {
		return
	}
	still := r.now-g.lastFlush >= frameMS*2e6
	switch {
	case int64(g.waiting()) >= frameMS*r.perMS:
		g.flush(r, flushFrame)
		return
	case still && (g.enc == nil || g.waiting() >= g.enc.Granule()):
		g.flush(r, flushGranules)
		return
	}
	since := r.now - g.lastStated
	if (r.account.dirty || still) && since >= frameMS*2e6 || since >= int64(accountEvery) {
		g.flush(r, flushFrame)
		if g.lastStated != r.now {
			g.state(r)
		}
	}
}

// state writes the account alone: inside a window there is no audio to go with it.
func (g *segmentState) state(r *recording) {
	a := Audio{RealMS: r.sealedMS, AudioMS: g.audio / r.perMS, SegMS: g.samples / r.perMS}
	if !r.out.audio(a, r.journalled()) {
		g.stated, r.account.dirty = false, true
	}
}

// flush codes what waits, whole granules unless last, and hands it on.
func (g *segmentState) flush(r *recording, how flushing) {
	if g.enc == nil {
		g.lose(r, g.waiting(), GapOverrun, r.account.fault)
		return
	}
	n := g.ready(how)
	if n == 0 {
		return
	}
	data, err := g.encode(r, n, how == flushLast)
	if err != nil {
		g.lose(r, n, GapOverrun, fmt.Sprintf("encoder: %v", err))
		return
	}
	a := Audio{
		RealMS: g.pendSpans[0].from / r.perMS, AudioMS: (g.audio - int64(g.waiting())) / r.perMS,
		SegMS: g.samples / r.perMS, Samples: n, Data: data,
	}
	var account *Manifest
	if r.account.dirty || r.now-g.lastStated >= int64(accountEvery) {
		account = r.journalled()
	}
	if !r.out.audio(a, account) {
		g.stated = g.stated && account == nil // what was refused must be said again
		releaseFrame(data)
		cause, why := r.out.refusal()
		g.lose(r, n, cause, why)
		return
	}
	g.drop(r, n)
}

// flushing says how much of what waits goes into a frame.
type flushing uint8

const (
	flushFrame    flushing = iota // whole granules but the last: the end of a segment needs audio to carry what the encoder still holds
	flushGranules                 // all whole granules: nothing more may come for long
	flushLast                     // everything: the segment ends
)

// ready is how many of the waiting samples a frame takes.
func (g *segmentState) ready(how flushing) int {
	n, gran := g.waiting(), g.enc.Granule()
	switch how {
	case flushFrame:
		if gran > 1 {
			n = max(0, (n-1)/gran*gran)
		}
	case flushGranules:
		n -= n % gran
	case flushLast:
	}
	return n
}

// encode gives the coded form of the first n waiting samples.
func (g *segmentState) encode(r *recording, n int, last bool) ([]byte, error) {
	data := g.data
	g.data = nil
	if data == nil {
		data = newFrame(g.frameBytes(r, n))
	}
	n -= g.coded
	whole := n - n%g.enc.Granule()
	data, err := g.enc.Encode(data, [2][]int16{g.pend[0][:whole], g.pend[1][:whole]})
	if err == nil && last {
		data, err = g.enc.Flush(data, [2][]int16{g.pend[0][whole:n], g.pend[1][whole:n]})
	}
	return data, err
}

// lose makes a gap of the first n waiting samples: they were captured but
// could not be kept.
func (g *segmentState) lose(r *recording, n int, cause, detail string) {
	left := int64(n)
	for _, s := range g.pendSpans {
		take := min(left, s.to-s.from)
		for i := range r.account.gaps {
			for _, k := range r.keptSpans(i, span{s.from, s.from + take}) {
				r.account.gaps[i].cover(k, cause, detail)
			}
		}
		r.seg.stale(s.from / r.perMS)
		if left -= take; left == 0 {
			break
		}
	}
	r.account.dirty = true
	g.drop(r, n)
}

// drop takes the first n waiting samples away and wipes where they lay.
func (g *segmentState) drop(r *recording, n int) {
	g.samples += int64(n)
	g.lastFlush = r.now
	releaseFrame(g.data)
	coded := g.coded
	g.data, g.coded = nil, 0
	for i := range g.pend {
		rest := copy(g.pend[i], g.pend[i][n-coded:])
		clear(g.pend[i][rest:])
		g.pend[i] = g.pend[i][:rest]
	}
	left := int64(n)
	k := 0
	for left > 0 && k < len(g.pendSpans) {
		s := &g.pendSpans[k]
		take := min(left, s.to-s.from)
		s.from += take
		left -= take
		if s.from == s.to {
			k++
		}
	}
	g.pendSpans = append(g.pendSpans[:0], g.pendSpans[k:]...)
}

// finishSegment ends the open segment, if there is one.
func (r *recording) finishSegment() {
	g := &r.seg
	if !g.open {
		return
	}
	if g.empty() {
		g.abandon(r)
		return
	}
	g.flush(r, flushLast)
	if g.enc != nil {
		g.enc.Close()
	}
	g.open, g.enc = false, nil
	g.info.DurationMS = g.samples / r.perMS
	g.done = append(g.done, g.info)
	r.account.dirty = false
	g.lastStated = r.now
	r.out.finish(g.info, r.manifest())
}
