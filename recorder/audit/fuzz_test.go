package audit

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// signedOf returns a link, a checkpoint, a statement and an entry with its proof.
func signedOf(tb testing.TB) (ring *Ring, link, point, statement, line, proof []byte) {
	tb.Helper()
	mem := vfstest.NewMem()
	l := mustLog(tb, mem, nil)
	signed := fill(tb, l, 3)["r1"]
	if err := l.Close(); err != nil {
		tb.Fatal(err)
	}
	epochs, err := l.Dir().Epochs()
	if err != nil {
		tb.Fatal(err)
	}
	e := l.Dir().Epoch(epochs[0])
	point, err = e.Latest()
	if err != nil {
		tb.Fatal(err)
	}
	line, err = e.Entry(3)
	if err != nil {
		tb.Fatal(err)
	}
	p, err := e.Prove(3)
	if err != nil {
		tb.Fatal(err)
	}
	ring = l.Identity().Ring()
	return ring, []byte(signed), point, []byte(ring.Keys[0].Statement), line, p.Text()
}

func FuzzParseLink(f *testing.F) {
	ring, signed, _, _, _, _ := signedOf(f)
	text, err := LinkText(signed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(strings.Replace(text, "files: 1", "files: 9", 1))
	f.Add(strings.Replace(text, "file: ", "file: a ", 1))
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLink(text)
		if err != nil {
			return
		}
		if l.text() != text || l.SHA256 != hexSum([]byte(text)) {
			t.Errorf("%q is read as %q", text, l.text())
		}
		if _, err := ring.OpenLink([]byte(text)); err == nil {
			t.Errorf("%q has no signature and is taken", text)
		}
	})
}

func FuzzOpenCheckpoint(f *testing.F) {
	ring, _, point, _, _, _ := signedOf(f)
	f.Add(point)
	f.Add(bytes.Replace(point, []byte("\n7\n"), []byte("\n8\n"), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ring.OpenCheckpoint(b)
		if err == nil && !bytes.Equal(b, point) {
			t.Errorf("%q is taken as %+v", b, c)
		}
		_, _ = peekCheckpoint(b) // it must not panic
		_, _ = splitPoints(b)    // as above
	})
}

func FuzzParseRing(f *testing.F) {
	_, _, _, statement, _, _ := signedOf(f)
	f.Add(statement, statement)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		r, err := ParseRing([][]byte{a, b})
		if err == nil && len(r.Keys) != 2 {
			t.Errorf("%q %q: %+v", a, b, r)
		}
	})
}

func FuzzParseProof(f *testing.F) {
	ring, _, _, _, line, proof := signedOf(f)
	f.Add(proof, line)
	f.Fuzz(func(t *testing.T, text, entry []byte) {
		p, err := ParseProof(text)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Text(), text) {
			t.Errorf("%q is read as %q", text, p.Text())
		}
		if _, err := p.Check(ring, entry); err == nil && !(bytes.Equal(text, proof) && bytes.Equal(entry, line)) {
			t.Errorf("%q proves %q", text, entry)
		}
	})
}

// FuzzChecker: whatever stands in an object of a log, it is checked in bounded time,
// and only what was signed is fine.
func FuzzChecker(f *testing.F) {
	ring, _, point, _, line, _ := signedOf(f)
	f.Add(append(append(bytes.Clone(line), "\n\n"...), point...))
	f.Add([]byte(`{"n":9,"kind":"x","node":"rec-a"}` + "\n" + `{"n":3,"kind":"x","node":"rec-a"}` + "\n\n"))
	f.Add(fmt.Appendf(nil, `{"n":%d,"kind":"x","node":"rec-a"}`+"\n"+`{"n":5,"kind":"x","node":"rec-a"}`+"\n\n", int64(math.MaxInt64)))
	f.Fuzz(func(t *testing.T, b []byte) {
		found := 0
		c := NewChecker(Rings{ring}, "rec-a/x", nil, func(Finding) { found++ })
		lines, points := splitChunk(b)
		for _, l := range lines {
			_ = c.Line(l) // it never fails
		}
		for _, p := range points {
			_ = c.Point(p) // as above
		}
		c.flush()
		if c.Points > 0 {
			t.Errorf("%q has a checkpoint of log rec-a/x", b)
		}
	})
}
