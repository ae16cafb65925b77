package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestBencode(t *testing.T) {
	got := string(bencode([]byte("c1 "), map[string]any{
		"command": "offer", "flags": []any{"trust-address"}, "n": -3, "empty": map[string]any{}, "call-id": "ä",
	}))
	want := "c1 d7:call-id2:ä7:command5:offer5:emptyde5:flagsl13:trust-addresse1:ni-3ee"
	if got != want {
		t.Error(cmp.Diff(want, got))
	}
}

// anything draws values as bdecode returns them.
func anything() *rapid.Generator[any] {
	return rapid.Deferred(func() *rapid.Generator[any] {
		return rapid.OneOf(
			rapid.String().AsAny(), rapid.Int().AsAny(),
			rapid.SliceOfN(rapid.OneOf(rapid.String().AsAny(), rapid.Int().AsAny()), 0, 3).AsAny(),
			rapid.MapOfN(rapid.String(), rapid.OneOf(rapid.String().AsAny(), rapid.Int().AsAny()), 0, 3).AsAny(),
		)
	})
}

func TestBencodeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := map[string]any{"v": anything().Draw(t, "v")}
		out, err := bdecode(bencode(nil, in))
		if d := cmp.Diff(any(in), out); d != "" || err != nil {
			t.Fatal(d, err)
		}
	})
}

// TestBdecodeUnsorted: rtpengine does not sort its keys.
func TestBdecodeUnsorted(t *testing.T) {
	got, err := bdecode([]byte("d6:result2:ok3:sdp3:v=0e"))
	if d := cmp.Diff(any(map[string]any{"result": "ok", "sdp": "v=0"}), got); d != "" || err != nil {
		t.Error(d, err)
	}
}

var badBencode = []string{
	"", "x", "i12", "ixe", "5:abc", "-1:a", "l", "li1e", "d", "d3:abc", "di1ei2ee", "i1ei2e", "9999999999999999999:a",
	strings.Repeat("l", 40) + strings.Repeat("e", 40),
}

func TestBdecodeFaults(t *testing.T) {
	for _, s := range badBencode {
		if v, err := bdecode([]byte(s)); !errors.Is(err, errBencode) {
			t.Errorf("%q: %v, %v", s, v, err)
		}
	}
}

func FuzzBdecode(f *testing.F) {
	for _, s := range append(badBencode, "d6:result2:ok3:sdp3:v=0e", "le", "i0e") {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := bdecode(b)
		if err != nil {
			return
		}
		again, err := bdecode(bencode(nil, v))
		if d := cmp.Diff(v, again); d != "" || err != nil {
			t.Error(d, err)
		}
	})
}
