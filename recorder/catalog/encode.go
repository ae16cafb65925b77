package catalog

import (
	"bytes"
	"cmp"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/uptrace/bun/dialect"
	"github.com/uptrace/bun/schema"

	"github.com/trunktap/trunktap/recorder"
)

// termsCell are a row's terms in the shape of its database: SQLite has the exact
// ones in a text, and all in an index of their own; PostgreSQL has all in a tsvector.
type termsCell struct{ terms }

var _ schema.QueryAppender = termsCell{}

// AppendQuery implements schema.QueryAppender. Terms hold no quote and no backslash.
func (t termsCell) AppendQuery(gen schema.QueryGen, b []byte) ([]byte, error) {
	if gen.Dialect().Name() != dialect.PG {
		b = append(b, "' "...)
		b = append(b, strings.Join(t.short, " ")...)
		return append(b, " '"...), nil
	}
	b = append(b, "array_to_tsvector('{"...)
	for i, x := range slices.Concat(t.short, t.other, timeTerms(t.key)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, x...)
	}
	return append(b, "}'::text[])"...), nil
}

// measures are what is summed up over lists of a manifest.
type measures struct {
	realMS, audioMS, suppressedMS, gapMS int64
	mos, loss                            float64
	windows                              map[string]int64 // reason → milliseconds
}

func measure(m *recorder.Manifest) measures {
	out := measures{realMS: m.RealMS, audioMS: m.AudioMS, windows: map[string]int64{}}
	for _, w := range m.Windows {
		reason := clean(w.Reason)
		out.windows[reason] += max(w.EndRealMS-w.RealMS, 0)
		out.suppressedMS += max(w.EndRealMS-w.RealMS, 0)
	}
	for _, g := range m.Gaps {
		out.gapMS += max(g.DurationMS, 1)
	}
	for i := range m.Streams {
		s := &m.Streams[i]
		if q := s.Quality; q != nil {
			if q.MOS > 0 && (out.mos == 0 || q.MOS < out.mos) {
				out.mos = q.MOS
			}
			out.loss = max(out.loss, q.LossPct)
		} else if s.Packets+s.Lost > 0 {
			out.loss = max(out.loss, 100*float64(s.Lost)/float64(s.Packets+s.Lost))
		}
	}
	return out
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// origin of a recording, or the start of a call that was never answered.
func origin(m *recorder.Manifest) time.Time {
	if m.Origin.IsZero() {
		return m.Call.Start.UTC()
	}
	return m.Origin.UTC()
}

// micros is the time as a key; keys do not reach as far as times do.
func micros(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64 / 1000
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64 / 1000
	}
	ns := t.UnixNano()
	us := ns / 1000
	if ns%1000 < 0 {
		us--
	}
	return us
}

func (p numberPlan) encodeRow(r *recorder.Row) (row, error) {
	m := &r.Manifest
	js, err := json.Marshal(m)
	if err != nil {
		return row{}, fmt.Errorf("manifest of %s: %w", m.ID, err)
	}
	packed, err := pack(js)
	if err != nil {
		return row{}, fmt.Errorf("manifest of %s: %w", m.ID, err)
	}
	at, sum := origin(m), measure(m)
	windows, err := json.Marshal(sum.windows)
	if err != nil {
		return row{}, fmt.Errorf("windows of %s: %w", m.ID, err)
	}
	out := row{
		Key: micros(at), ID: clean(m.ID), OriginNS: nanos(at), Prefix: clean(r.Prefix),
		FromNumber: p.numberOf(m.Call.From), ToNumber: p.numberOf(m.Call.To),
		RealMS: m.RealMS, AudioMS: m.AudioMS, SuppressedMS: sum.suppressedMS, GapMS: sum.gapMS,
		MOS: sum.mos, Loss: sum.loss, Windows: string(windows),
		usageKey: usageKey{
			Day: at.Format(time.DateOnly), Trunk: clean(m.Trunk), User: clean(m.User), Kind: clean(string(m.Kind)),
			Store: clean(r.Store), Node: clean(r.Node),
		},
		ManifestBytes: r.ManifestBytes, OtherBytes: r.OtherBytes, manifest: packed,
	}
	if r.Spooled {
		out.Spooled = 1
	}
	for _, s := range m.Segments {
		out.Bytes += s.Bytes
	}
	out.Terms.terms = termsOf(r, sum, out.FromNumber, out.ToNumber)
	return out, nil
}

// encodeTerms is what encodeRow makes of terms alone, for a row that is there.
func (p numberPlan) encodeTerms(key int64, r *recorder.Row) row {
	m := &r.Manifest
	out := row{Key: key}
	out.Terms.terms = termsOf(r, measure(m), p.numberOf(m.Call.From), p.numberOf(m.Call.To))
	return out
}

func (f *found) decode() (recorder.Row, error) {
	out := recorder.Row{Prefix: f.Prefix, Node: f.Node, Store: f.Store, ManifestBytes: f.ManifestBytes, OtherBytes: f.OtherBytes, Spooled: f.Spooled != 0}
	js, err := unpack(f.Manifest)
	if err != nil {
		return out, fmt.Errorf("manifest in %s: %w", f.Prefix, err)
	}
	if err := json.Unmarshal(js, &out.Manifest); err != nil {
		return out, fmt.Errorf("manifest in %s: %w", f.Prefix, err)
	}
	return out, nil
}

// Packings of a manifest: its first byte.
const (
	packedPlain = 0
	packedFlate = 1 // raw DEFLATE (RFC 1951) with the dictionary below

	unpackedBytesMax = 64 << 20
)

// dictionary is what manifests are made of, the most usual last. It is part of
// the format: another one takes another first byte.
const dictionary = `"ivr","queue","pause","consent","external_transfer","undecodable","overrun","restart","masked","late","absent","loss","concealed","silence","crash","timeout","cancel",` +
	`"wav-pcm16","wav-pcmu","wav-pcma","flac","outbound","station","consult","adhoc","snippet","opus","G722","PCMA","PCMU","telephone-event",` +
	`"attrs":{"labels":[],"refused":{},"other_sip_call_id":","consent":"granted","user":","other":","signals":[{"event":"hold.start","at":"2026-11-22T,"source":"sdp","late_ms":0,"missed_ms":0,"reasons":["hold"],"flow":","queue":","role":"agent",` +
	`"dtmf":[{"channel":0,"real_ms":,"digit":"],"unrecorded_media":[` +
	`,"quality":{"mos":4.,"mos_lq":4.,"r":9,"no_mos":","loss_pct":0,"discard_pct":0,"burst_pct":0,"gap_pct":0,"burst_ms":0,"gap_ms":0,"bursts":0,"burst_ratio":1,"jitter_ms":0.,"jitter_last_ms":0.,"jitter_max_ms":0.,"delay_step_ms":0.,"jitter_classes":[0,0,0,0,0],"concealed_ms":,"skew_ppm":,"packet_ms":20,"rtt_ms":,"model":"G.107` +
	`"streams":[{"channel":0,"ssrc":,"codec":"PCMU","packets":,"lost":0,"late":0,"duplicate":0,"reordered":0,"skew_ppm":0},{"channel":1,"ssrc":` +
	`"gaps":[{"channel":0,"real_ms":,"audio_ms":,"duration_ms":20,"cause":"loss","filled":"concealed"}],` +
	`"windows":[{"reason":"hold","real_ms":,"end_real_ms":,"audio_ms":,"source":"sdp","late_ms":0,"missed_ms":0}],` +
	`"segments":[{"n":1,"file":"0001.seg","real_ms":0,"audio_ms":0,"end_real_ms":,"duration_ms":,"bytes":,"sha256":","parties":["sip:` +
	`"format":"ogg-opus","sample_rate":8000,"channels":[{"side":"external","party":"sip:+49"},{"side":"internal","party":"sip:"}],"origin":"2026-11-22T,"real_ms":,"audio_ms":,"suppressed":"cut",` +
	`"call":{"sip_call_id":","direction":"inbound","from":"sip:+49@example.net","to":"sip:","start":"2026-,"answer":"2026-,"end":"2026-,"end_cause":"bye"},` +
	`{"version":1,"id":"2026,"conversation":"2026,"kind":"trunk","trunk":"`

var packers = sync.Pool{New: func() any {
	w, err := flate.NewWriterDict(nil, 4, []byte(dictionary))
	if err != nil {
		panic(err) // the level is wrong
	}
	return w
}}

func pack(js []byte) ([]byte, error) {
	buf := bytes.NewBuffer(make([]byte, 0, cmp.Or(len(js)/3, 64)))
	buf.WriteByte(packedFlate)
	w := packers.Get().(*flate.Writer)
	defer packers.Put(w)
	w.Reset(buf)
	if _, err := w.Write(js); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

var unpackers = sync.Pool{New: func() any { return flate.NewReaderDict(bytes.NewReader(nil), []byte(dictionary)) }}

func unpack(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	switch b[0] {
	case packedPlain:
		return b[1:], nil
	case packedFlate:
	default:
		return nil, fmt.Errorf("packing %d is of a newer version", b[0])
	}
	r := unpackers.Get().(io.ReadCloser)
	defer unpackers.Put(r)
	if err := r.(flate.Resetter).Reset(bytes.NewReader(b[1:]), []byte(dictionary)); err != nil {
		return nil, err
	}
	js, err := io.ReadAll(io.LimitReader(r, unpackedBytesMax))
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	return js, nil
}
