package archive

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// resume makes the manifest of a recording that has none: from its last
// account and the audio that is durable. It leaves it sealed in the spool, so
// that a crash from here on changes nothing any more.
func (r *recovery) resume() (*recorder.Manifest, []byte, error) {
	if err := r.readStore(); err != nil {
		return nil, nil, err
	}
	if err := r.finishParts(); err != nil {
		return nil, nil, err
	}
	m := r.lastAccount()
	if m == nil {
		if m = r.withoutAccount(); m == nil {
			// It was begun and nothing of it became durable.
			r.empty = true
			return nil, nil, errors.Join(r.a.dropSpool(r.ID), errNothing)
		}
	}
	closeManifest(m, r.parts)
	if r.marker.Version >= markerQueued { // its manifest says from now on that all is well
		if err := r.a.tidy(r.ID, m); err != nil {
			return nil, nil, err
		}
		r.renamed()
	}
	if err := r.ensureKey(); err != nil {
		return nil, nil, err
	}
	k, err := r.keys().OpenKey(r.ctx, r.ID, r.marker.Key)
	if err != nil {
		return nil, nil, err
	}
	defer k.Close()
	m.Unsealed = seal.Unsealed(k.Wrapped())
	content, err := r.a.sealManifest(r.ctx, k, r.at, m, audit.ReasonRecovered, "")
	if err != nil {
		return nil, nil, err
	}
	return m, content, vfs.WriteFile(r.a.fsys, r.a.spool(r.ID, segment.ManifestFile), content)
}

// errNothing says that a recording left nothing behind.
var errNothing = errors.New("nothing of it was durable")

// readStore adds the segments that are published already.
func (r *recovery) readStore() error {
	if r.marker.Version >= markerQueued {
		return nil // the spool has all
	}
	prefix := r.Prefix + "/"
	var names []string
	err := r.at.store.List(r.ctx, prefix, func(i recorder.BlobInfo) error {
		if strings.HasSuffix(i.Name, ".seg") {
			names = append(names, i.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		p, err := r.readPublished(name)
		switch {
		case errors.Is(err, recorder.ErrTampered):
			continue // the manifest names it if it knows it; verify tells
		case err != nil:
			return err
		}
		if !slices.ContainsFunc(r.parts, func(q part) bool { return q.n == p.n }) {
			r.parts = append(r.parts, p)
		}
	}
	slices.SortFunc(r.parts, func(a, b part) int { return cmp.Compare(a.n, b.n) })
	return nil
}

func (r *recovery) readPublished(name string) (part, error) {
	b, err := r.at.store.Open(r.ctx, name)
	if err != nil {
		return part{}, err
	}
	defer func() { _ = b.Close() }() // only read
	s, err := segment.Salvage(r.ctx, b, r.keys())
	if err != nil {
		return part{}, err
	}
	if s.Header.Recording != r.ID || path.Base(name) != segment.FileName(s.Header.N) {
		return part{}, fmt.Errorf("%s: %w", name, recorder.ErrTampered)
	}
	p := part{n: s.Header.N, s: s}
	p.bytes, p.sha256, err = segment.Sum(b)
	return p, err
}

// finishParts gives each spooled segment with audio its last frame, and its sum.
func (r *recovery) finishParts() error {
	for i := range r.parts {
		p := &r.parts[i]
		if p.spool == "" || p.empty() {
			continue
		}
		if !p.s.Complete || p.s.Torn > 0 {
			if err := segment.Repair(r.ctx, r.a.fsys, p.spool, r.keys(), p.s); err != nil {
				return err
			}
			p.s.Complete, p.s.Torn = true, 0
			r.Repaired++
		}
		b, err := segment.OpenFile(r.a.fsys, p.spool)
		if err != nil {
			return err
		}
		p.bytes, p.sha256, err = segment.Sum(b)
		_ = b.Close() // only read
		if err != nil {
			return err
		}
	}
	return nil
}

// renamed follows tidy.
func (r *recovery) renamed() {
	for i := range r.parts {
		if p := &r.parts[i]; p.spool != "" {
			p.spool = r.a.spool(r.ID, segment.FileName(p.n))
		}
	}
}

// lastAccount returns the account that knows most.
func (r *recovery) lastAccount() *recorder.Manifest {
	for i := len(r.parts) - 1; i >= 0; i-- {
		if m := r.parts[i].s.Account; m != nil && m.ID == r.ID {
			c := *m
			return &c
		}
	}
	return nil
}

// withoutAccount makes a manifest of what the headers tell; nil without audio.
func (r *recovery) withoutAccount() *recorder.Manifest {
	for _, p := range r.parts {
		if p.empty() {
			continue
		}
		h := p.s.Header
		m := &recorder.Manifest{
			Version: recorder.Version, ID: r.ID, Kind: recorder.KindOf(r.ID), Format: h.Format, SampleRate: h.SampleRate,
			Channels: []recorder.Channel{{Side: "external"}, {Side: "internal"}}[:h.Channels],
			Origin:   h.Start.Add(-time.Duration(h.RealMS) * time.Millisecond), Suppressed: "cut",
			Streams: []recorder.Stream{},
		}
		m.Call.Start = m.Origin
		return m
	}
	return nil
}

// closeManifest ends an account where the durable audio ends: windows are cut
// there, and gaps and digits behind it are dropped. The identity of the account
// holds after it: audio and windows are the real time.
func closeManifest(m *recorder.Manifest, parts []part) {
	m.Segments = mergeSegments(m.Segments, parts)
	known := m.AudioMS
	m.AudioMS = 0
	for _, s := range m.Segments {
		m.AudioMS = max(m.AudioMS, s.AudioMS+s.DurationMS)
	}
	addUnknownWindows(m, parts)
	bridgeRemainder(m, known)
	t := newTimeline(m)
	// A window that follows the last sample is known as far as the account goes.
	_, end := t.real(m.AudioMS)
	m.RealMS = end
	m.Windows = slices.DeleteFunc(slices.Clone(m.Windows), func(w recorder.Window) bool { return w.RealMS > end })
	for i := range m.Windows {
		m.Windows[i].EndRealMS = min(m.Windows[i].EndRealMS, end)
	}
	m.Gaps = slices.DeleteFunc(slices.Clone(m.Gaps), func(g recorder.Gap) bool { return g.AudioMS >= m.AudioMS })
	for i := range m.Gaps {
		m.Gaps[i].DurationMS = min(m.Gaps[i].DurationMS, m.AudioMS-m.Gaps[i].AudioMS)
	}
	m.DTMF = slices.DeleteFunc(slices.Clone(m.DTMF), func(d recorder.Digit) bool { return d.RealMS > end })
	for i := range m.Segments {
		s := &m.Segments[i]
		if first, _ := t.real(s.AudioMS + s.DurationMS); s.EndRealMS == 0 || s.EndRealMS > end {
			s.EndRealMS = min(first, end)
		}
	}
	for ch := range m.Channels {
		m.Gaps = append(m.Gaps, recorder.Gap{Channel: ch, RealMS: end, AudioMS: m.AudioMS, Cause: recorder.GapRestart, Filled: "silence"})
	}
	if m.Windows == nil {
		m.Windows = []recorder.Window{}
	}
	if m.DTMF == nil {
		m.DTMF = []recorder.Digit{}
	}
	m.Call.EndCause = string(media.CauseCrash)
	from := m.Origin
	if from.IsZero() {
		from = m.Call.Start
	}
	m.Call.End = from.Add(time.Duration(end) * time.Millisecond)
}

// remainderMS is the most that an encoder holds back of audio that its account
// tells of: two packets of 20 ms.
const remainderMS = 40

// bridgeRemainder makes a window of what an encoder held back before a window
// that the account knows. Without it the recording would end before that
// window, however long it had lasted when the daemon died.
func bridgeRemainder(m *recorder.Manifest, known int64) {
	if known <= m.AudioMS || known > m.AudioMS+remainderMS {
		return
	}
	t := newTimeline(m)
	_, from := t.real(m.AudioMS)
	to, next := t.real(known)
	if to == next {
		return // no window follows: the recording ends here
	}
	m.Windows = append(slices.Clone(m.Windows), recorder.Window{
		Reason: "unknown", RealMS: from, EndRealMS: to, AudioMS: m.AudioMS, Source: "recovery",
	})
	for i := range m.Windows {
		m.Windows[i].AudioMS = min(m.Windows[i].AudioMS, m.AudioMS)
	}
	slices.SortStableFunc(m.Windows, func(a, b recorder.Window) int { return cmp.Compare(a.RealMS, b.RealMS) })
}

// mergeSegments returns the list of segments with what was found of each.
// Those that the account knows as finished stay as they are.
func mergeSegments(known []recorder.Segment, parts []part) []recorder.Segment {
	out := []recorder.Segment{}
	for _, s := range known {
		if s.SHA256 != "" {
			out = append(out, s)
		}
	}
	for _, p := range parts {
		if p.empty() || slices.ContainsFunc(out, func(s recorder.Segment) bool { return s.N == p.n }) {
			continue
		}
		h := p.s.Header
		s := recorder.Segment{
			N: p.n, File: segment.FileName(p.n), RealMS: h.RealMS, AudioMS: h.AudioMS, DurationMS: p.s.EndMS,
			Bytes: p.bytes, SHA256: p.sha256, AudioSHA256: p.s.AudioSHA256, Parties: []string{},
		}
		if i := slices.IndexFunc(known, func(k recorder.Segment) bool { return k.N == p.n }); i >= 0 {
			s.Format, s.Parties = known[i].Format, known[i].Parties
			if known[i].DurationMS == s.DurationMS {
				s.EndRealMS = known[i].EndRealMS
			}
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b recorder.Segment) int { return cmp.Compare(a.N, b.N) })
	return out
}

// addUnknownWindows makes a window of every leap in real time that the account
// does not tell of. The writer states windows before the audio behind them, so
// this happens only when accounts were lost.
func addUnknownWindows(m *recorder.Manifest, parts []part) {
	if m.Suppressed == suppressedSilence {
		return
	}
	for _, p := range parts {
		for _, run := range p.s.Runs {
			_, next := newTimeline(m).real(run.AudioMS)
			if run.RealMS > next+1 {
				m.Windows = append(slices.Clone(m.Windows), recorder.Window{
					Reason: "unknown", RealMS: next, EndRealMS: run.RealMS, AudioMS: run.AudioMS, Source: "recovery",
				})
			}
		}
	}
}
