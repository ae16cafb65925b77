package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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

// describe is the account of a recording for people. Digits are counted, not
// shown.
func describe(m *recorder.Manifest) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(cells ...any) { // the writer beneath never fails
		for i, c := range cells {
			cells[i] = clean(fmt.Sprint(c))
		}
		_, _ = fmt.Fprintln(w, strings.TrimSuffix(fmt.Sprintf(strings.Repeat("%v\t", len(cells)), cells...), "\t"))
	}
	section := func() { _ = w.Flush(); b.WriteByte('\n') }
	line("recording", m.ID)
	line("conversation", m.Conversation)
	line("kind", m.Kind)
	line("trunk", m.Trunk)
	line("call", fmt.Sprintf("%s, %s to %s", m.Call.Direction, m.Call.From, m.Call.To))
	line("call-id", m.Call.SIPCallID)
	line("started", stamp(m.Call.Start))
	line("answered", stamp(m.Call.Answer))
	line("ended", stamp(m.Call.End)+" ("+m.Call.EndCause+")")
	line("real time", picture.Clock(m.RealMS, true))
	line("audio", fmt.Sprintf("%s, %s, %d Hz, windows %s", picture.Clock(m.AudioMS, true), m.Format, m.SampleRate, m.Suppressed))
	line("digits", fmt.Sprint(len(m.DTMF)))
	section()
	line("SEGMENT", "REAL", "TO", "AUDIO", "BYTES", "PARTIES")
	for _, s := range m.Segments[:min(len(m.Segments), rowsShown)] {
		line(s.N, picture.Clock(s.RealMS, true), picture.Clock(s.EndRealMS, true), picture.Clock(s.DurationMS, true), s.Bytes, strings.Join(s.Parties, ", "))
	}
	if len(m.Windows) > 0 {
		section()
		line("WINDOW", "REAL", "TO", "SOURCE", "LATE MS", "MISSED MS")
	}
	for _, x := range m.Windows[:min(len(m.Windows), rowsShown)] {
		line(x.Reason, picture.Clock(x.RealMS, true), picture.Clock(x.EndRealMS, true), x.Source, x.LateMS, x.MissedMS)
	}
	if len(m.Gaps) > 0 {
		section()
		line("GAP", "CHANNEL", "REAL", "MS", "FILLED WITH", "DETAIL")
	}
	for _, g := range m.Gaps[:min(len(m.Gaps), rowsShown)] {
		line(g.Cause, g.Channel, picture.Clock(g.RealMS, true), g.DurationMS, g.Filled, g.Detail)
	}
	section()
	line("STREAM", "CHANNEL", "CODEC", "PACKETS", "LOST", "LATE", "DUPLICATE", "REORDERED", "SKEW PPM")
	for _, s := range m.Streams[:min(len(m.Streams), rowsShown)] {
		line(fmt.Sprintf("%08x", s.SSRC), s.Channel, s.Codec, s.Packets, s.Lost, s.Late, s.Duplicate, s.Reordered, fmt.Sprintf("%.1f", s.SkewPPM))
	}
	_ = w.Flush()
	if n := max(len(m.Segments), len(m.Windows), len(m.Gaps), len(m.Streams)); n > rowsShown {
		fmt.Fprintf(&b, "(tables cut at %d rows, --json has all)\n", rowsShown)
	}
	return b.String()
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
