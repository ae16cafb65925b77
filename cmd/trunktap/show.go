package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/trunktap/trunktap/cmd/trunktap/picture"
	"github.com/trunktap/trunktap/recorder"
)

type showCmd struct {
	configFlag
	ID        string `arg:"" help:"Id of the recording."`
	JSON      bool   `help:"Print the manifest as JSON." name:"json"`
	PNG       string `help:"Write the waveforms to a PNG file." name:"png" placeholder:"FILE"`
	NoPicture bool   `help:"Print no waveforms."`
	Columns   int    `help:"Width of the waveforms; without it, that of the terminal." placeholder:"N"`
	Progress  bool   `help:"Show progress even when standard error is no terminal."`
}

const (
	pictureBinMS   = 10
	defaultColumns = 100
	rowsShown      = 50 // of windows and gaps in a table
)

// Run shows one recording.
func (c *showCmd) Run(e *env) (err error) {
	src, err := c.source(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	m, err := src.get(e.ctx, c.ID)
	var gone *recorder.ShreddedError
	if errors.As(err, &gone) {
		return c.tombstone(e, gone)
	}
	if err != nil {
		return fmt.Errorf("show recording %s: %w", c.ID, err)
	}
	wantText := !c.JSON && !c.NoPicture
	var peaks picture.Peaks
	if len(m.Segments) > 0 && (wantText || c.PNG != "") {
		if peaks, err = readPeaks(e, src, m, c.Progress); err != nil {
			return fmt.Errorf("show recording %s: %w", c.ID, err)
		}
	}
	if c.PNG != "" {
		draw := func(w io.Writer) error { return picture.PNG(w, m, peaks) }
		if err := writeFile(c.PNG, draw); err != nil {
			return fmt.Errorf("write picture: %w", err)
		}
	}
	if c.JSON {
		enc := json.NewEncoder(e.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(m)
	}
	text := describe(m)
	if wantText {
		text += "\n" + picture.Terminal(printable(m), peaks, c.width(e))
	}
	if _, err = io.WriteString(e.stdout, text); err != nil || len(m.Segments) == 0 || !wantText && c.PNG == "" {
		return err
	}
	return damage(e, src, c.ID, c.Progress, "drawn as silence")
}

// tombstone shows what is left of a shredded recording.
func (c *showCmd) tombstone(e *env, gone *recorder.ShreddedError) error {
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(map[string]any{"id": c.ID, "shredded": gone.Shredded})
	}
	a := &account{}
	a.w = tabwriter.NewWriter(&a.b, 0, 0, 2, ' ', 0)
	a.line("recording", c.ID)
	a.line("shredded", stamp(gone.At))
	a.line("reason", gone.Reason)
	a.maybe("by", gone.By)
	_ = a.w.Flush() // never fails
	_, err := io.WriteString(e.stdout, a.b.String())
	return err
}

func (c *showCmd) width(e *env) int {
	if n, ok := columns(e.stdout); c.Columns == 0 && ok {
		return n
	}
	if c.Columns > 0 {
		return c.Columns
	}
	return defaultColumns
}

// readPeaks fetches the audio and reduces it to waveforms.
func readPeaks(e *env, src source, m *recorder.Manifest, force bool) (picture.Peaks, error) {
	r, size, err := src.media(e.ctx, m.ID, recorder.FormatWAVPCM16)
	if err != nil {
		return picture.Peaks{}, err
	}
	p := newProgress(e.stderr, force)
	defer p.done()
	peaks, err := picture.ReadWAV(&counted{r: r, size: size, tell: func(n, size int64) { p.tell("reading audio: %s bytes", of(n, size)) }}, pictureBinMS)
	return peaks, errors.Join(err, r.Close())
}

// printable is a manifest without what a terminal might obey.
func printable(m *recorder.Manifest) *recorder.Manifest {
	out := *m
	out.Windows = append([]recorder.Window(nil), m.Windows...)
	for i := range out.Windows {
		out.Windows[i].Reason = clean(out.Windows[i].Reason)
	}
	out.Channels = append([]recorder.Channel(nil), m.Channels...)
	for i := range out.Channels {
		out.Channels[i].Side = clean(out.Channels[i].Side)
	}
	return &out
}

// account writes the tables of a recording for people.
type account struct {
	b strings.Builder
	w *tabwriter.Writer
}

// line writes a row. The writer beneath never fails.
func (a *account) line(cells ...any) {
	for i, c := range cells {
		cells[i] = clean(fmt.Sprint(c))
	}
	_, _ = fmt.Fprintln(a.w, strings.TrimSuffix(fmt.Sprintf(strings.Repeat("%v\t", len(cells)), cells...), "\t"))
}

// maybe writes a row about something that not every recording has.
func (a *account) maybe(name, value string) {
	if value != "" {
		a.line(name, value)
	}
}

// table begins a table of n rows; one without any is left out. It returns how
// many of them to show.
func (a *account) table(n int, head ...any) int {
	if n > 0 {
		_ = a.w.Flush() // never fails
		a.b.WriteByte('\n')
		a.line(head...)
	}
	return min(n, rowsShown)
}

// describe is the account of a recording for people. Digits are counted, not
// shown.
func describe(m *recorder.Manifest) string {
	a := &account{}
	a.w = tabwriter.NewWriter(&a.b, 0, 0, 2, ' ', 0)
	a.head(m)
	for _, s := range m.Segments[:a.table(len(m.Segments), "SEGMENT", "REAL", "TO", "AUDIO", "BYTES", "PARTIES")] {
		a.line(s.N, picture.Clock(s.RealMS, true), picture.Clock(s.EndRealMS, true), picture.Clock(s.DurationMS, true), s.Bytes, strings.Join(s.Parties, ", "))
	}
	for _, x := range m.Windows[:a.table(len(m.Windows), "WINDOW", "CHANNEL", "REAL", "TO", "SOURCE", "LATE MS", "MISSED MS")] {
		a.line(x.Reason, channelOf(x), picture.Clock(x.RealMS, true), picture.Clock(x.EndRealMS, true), x.Source, x.LateMS, x.MissedMS)
	}
	for _, x := range m.Signals[:a.table(len(m.Signals), "SIGNAL", "REAL", "SOURCE", "ABOUT", "LATE MS", "MISSED MS", "DID", "ACTIVE")] {
		a.line(x.Event, position(m, x.At), x.Source, about(x), x.LateMS, x.MissedMS, did(x), dash(strings.Join(x.Reasons, ",")))
	}
	for _, g := range m.Gaps[:a.table(len(m.Gaps), "GAP", "CHANNEL", "REAL", "MS", "FILLED WITH", "DETAIL")] {
		a.line(g.Cause, g.Channel, picture.Clock(g.RealMS, true), g.DurationMS, g.Filled, g.Detail)
	}
	for _, s := range m.Streams[:a.table(len(m.Streams), "STREAM", "CHANNEL", "CODEC", "PACKETS", "LOST", "LATE", "DUPLICATE", "REORDERED", "RECOVERED", "SKEW PPM")] {
		a.line(fmt.Sprintf("%08x", s.SSRC), s.Channel, s.Codec, s.Packets, s.Lost, s.Late, s.Duplicate, s.Reordered, s.Recovered, fmt.Sprintf("%.1f", s.SkewPPM))
	}
	a.quality(m)
	most := a.copies(m)
	_ = a.w.Flush() // never fails
	if n := max(len(m.Segments), len(m.Windows), len(m.Signals), len(m.Gaps), len(m.Streams), most); n > rowsShown {
		fmt.Fprintf(&a.b, "(tables cut at %d rows, --json has all)\n", rowsShown)
	}
	return a.b.String()
}

// copies are what other recorders were sent. It returns the rows of the longest table.
func (a *account) copies(m *recorder.Manifest) (most int) {
	for _, c := range m.Copies {
		most = max(most, len(c.Spans))
		for _, s := range c.Spans[:a.table(len(c.Spans), "COPY", "REAL", "TO", "SENT TO", "NOT SENT")] {
			a.line(s.Side, picture.Clock(s.RealMS, true), picture.Clock(s.EndRealMS, true), dash(s.Server), dash(s.Unsent))
		}
	}
	return most
}

// copied says how much of a recording a copy has.
func copied(m *recorder.Manifest, c *recorder.Copy) string {
	sent := func(side int) string {
		return fmt.Sprintf("%s of %s", picture.Clock(c.SentMS[side], true), picture.Clock(c.SentMS[side]+c.UnsentMS[side], true))
	}
	out := fmt.Sprintf("%s: external %s, internal %s", strings.Join(c.Servers, ", "), sent(0), sent(1))
	if c.ThroughMS < m.RealMS {
		out += "; what follows " + picture.Clock(c.ThroughMS, true) + " is not known"
	}
	return out
}

// quality is how the streams arrived, one row a source.
func (a *account) quality(m *recorder.Manifest) {
	var rated []recorder.Stream
	for _, s := range m.Streams {
		if s.Quality != nil {
			rated = append(rated, s)
		}
	}
	for _, s := range rated[:a.table(len(rated), "QUALITY", "CHANNEL", "MOS", "LOST %", "TOO LATE %", "BURSTS", "JITTER MS", "MOST", "ROUND TRIP MS", "FAR END LOST %")] {
		q, mos, trip, far := s.Quality, "-", "-", "-"
		if q.MOS > 0 {
			mos = fmt.Sprintf("%.2f", q.MOS)
		}
		if q.RTTMS > 0 {
			trip = fmt.Sprintf("%.0f", q.RTTMS)
		}
		if q.Remote != nil {
			far = fmt.Sprintf("%.2f", q.Remote.LossPct)
		}
		a.line(fmt.Sprintf("%08x", s.SSRC), s.Channel, mos, fmt.Sprintf("%.2f", q.LossPct), fmt.Sprintf("%.2f", q.DiscardPct), q.Bursts,
			fmt.Sprintf("%.1f", q.JitterMS), fmt.Sprintf("%.1f", q.JitterMaxMS), trip, far)
	}
}

// head is what there is one of.
func (a *account) head(m *recorder.Manifest) {
	a.line("recording", m.ID)
	a.line("conversation", m.Conversation)
	a.line("kind", m.Kind)
	a.maybe("user", m.User)
	a.maybe("other", m.Other)
	a.maybe("consent", m.Consent)
	a.line("trunk", m.Trunk)
	a.line("call", fmt.Sprintf("%s, %s to %s", m.Call.Direction, m.Call.From, m.Call.To))
	a.line("call-id", m.Call.SIPCallID)
	a.maybe("other call-id", m.Call.OtherSIPCallID)
	a.line("started", stamp(m.Call.Start))
	a.line("answered", stamp(m.Call.Answer))
	if !m.Origin.IsZero() && !m.Origin.Equal(m.Call.Answer) {
		a.line("recorded from", stamp(m.Origin))
	}
	a.line("ended", stamp(m.Call.End)+" ("+m.Call.EndCause+")")
	a.line("real time", picture.Clock(m.RealMS, true))
	a.line("audio", fmt.Sprintf("%s, %s, %d Hz, windows %s", picture.Clock(m.AudioMS, true), m.Format, m.SampleRate, m.Suppressed))
	if m.Unsealed {
		a.line("sealed", "no: its key lies in the open (keys.mode none)")
	}
	for i, c := range m.Channels {
		a.line(fmt.Sprintf("channel %d", i), strings.TrimSuffix(c.Side+", "+c.Party, ", "))
	}
	a.line("digits", len(m.DTMF))
	for i := range m.Copies {
		a.line("sent to", copied(m, &m.Copies[i]))
	}
	for _, key := range slices.Sorted(maps.Keys(m.Refused)) {
		a.line("not listed", fmt.Sprintf("%d of %s: beyond a limit", m.Refused[key], key))
	}
}

// channelOf names what a window suppresses.
func channelOf(w recorder.Window) string {
	if w.Channel == nil {
		return "all"
	}
	return strconv.Itoa(*w.Channel)
}

// position is where a moment lies in a recording: before its origin with a sign.
func position(m *recorder.Manifest, at time.Time) string {
	if m.Origin.IsZero() {
		return "-"
	}
	ms := at.Sub(m.Origin).Milliseconds()
	if ms < 0 {
		return "-" + picture.Clock(-ms, true)
	}
	return picture.Clock(ms, true)
}

// about is what a signal says of whom, by the words of the vocabulary.
func about(s recorder.ManifestSignal) string {
	var out []string
	for _, f := range []struct{ name, value string }{
		{"flow", s.Flow}, {"queue", s.Queue}, {"user", s.User}, {"role", string(s.Role)}, {"party", s.Party}, {"other", s.Other},
	} {
		if f.value != "" {
			out = append(out, f.name+"="+f.value)
		}
	}
	return dash(strings.Join(out, " "))
}

// did is what a signal did beside windows.
func did(s recorder.ManifestSignal) string {
	switch {
	case s.Refused != "":
		return "refused: " + s.Refused
	case s.Recording != "":
		if strings.HasSuffix(string(s.Event), ".end") {
			return "ended " + s.Recording
		}
		return "began " + s.Recording
	}
	return "-"
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05.000 MST")
}

// counted counts what is read.
type counted struct {
	r    io.Reader
	n    int64
	size int64
	tell func(n, size int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.tell(c.n, c.size)
	return n, err
}

// writeFile writes a file aside and puts it into place once it is whole. Only
// its owner may read it: it may hold speech.
func writeFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
