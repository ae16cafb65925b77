package segment

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/recorder"
)

// TestAccountSizes: accounts of all sizes are read as they were written,
// whether they are stored or compressed.
func TestAccountSizes(t *testing.T) {
	for n := range 300 {
		m := testAccount(n % 7)
		m.Attrs = map[string]string{"note": strings.Repeat(fmt.Sprint(n, " "), n*n/8)}
		b, err := encodeAccount(m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeAccount(b)
		if err != nil || cmp.Diff(m, got) != "" {
			t.Fatalf("%d bytes: %v\n%s", len(b), err, cmp.Diff(m, got))
		}
		if len(b) > storedBytesMax+5 {
			t.Fatalf("an account takes %d bytes", len(b))
		}
	}
}

// TestAccountBad: what is cut short or is no DEFLATE is an error, and the next
// account is read as if nothing had been.
func TestAccountBad(t *testing.T) {
	good, err := encodeAccount(testAccount(1))
	if err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := decodeAccount(good[:n]); err == nil {
			t.Errorf("cut to %d of %d bytes: it is read", n, len(good))
		}
		if _, err := decodeAccount(good); err != nil {
			t.Fatalf("after a bad one: %v", err)
		}
	}
}

func BenchmarkAccount(b *testing.B) {
	m := testAccount(1)
	m.Streams = []recorder.Stream{{Codec: "PCMU", SSRC: 1, Packets: 3000}, {Channel: 1, Codec: "PCMU", SSRC: 2, Packets: 3000}}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := encodeAccount(m); err != nil {
				b.Fatal(err)
			}
		}
	})
	p, err := encodeAccount(m)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeAccount(p); err != nil {
				b.Fatal(err)
			}
		}
	})
}
