// Package kektest holds every seal.KEK to its contract.
package kektest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
)

// patience bounds a whole subtest; stalled machines are no faults.
const patience = 60 * time.Second

// Harness is one key service with keys of its own. What is nil the service does
// not have, and is not tested.
type Harness struct {
	// Open connects to the service; each result sees the same keys.
	Open func(t *testing.T) seal.KEK
	// Outage makes the service not answer until restore is called.
	Outage func(t *testing.T) (restore func())
	// Revoke disables or destroys the key that name tells.
	Revoke func(t *testing.T, name string)
	// Allow undoes Revoke.
	Allow func(t *testing.T, name string)
	// Rotate makes a new active key at the service, where the KEK is no Rotator.
	Rotate func(t *testing.T)
	// Lag is how long another KEK may go on wrapping under the old key after a
	// rotation; the suite does not wait for it, it only expects no more when 0.
	Lag time.Duration
	// AnyVersion: the service finds the version in what was wrapped, whatever name tells.
	AnyVersion bool
	// InProcess keys are never away, and whoever asks keeps to the limits.
	InProcess bool
}

// Run holds the services that harness gives to the contract of seal.KEK.
func Run(t *testing.T, harness func(t *testing.T) Harness) {
	tests := []struct {
		name string
		run  func(*testing.T, context.Context, Harness)
	}{
		{"round trip", roundTrip},
		{"limits", limits},
		{"other aad", otherAAD},
		{"altered", altered},
		{"unknown key", unknownKey},
		{"concurrent", concurrent},
		{"cancelled", cancelled},
		{"opened again", openedAgain},
		{"closed", closed},
		{"outage", outage},
		{"revoked", revoked},
		{"rotated", rotated},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, before) }) // runs last: after the harness' own
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			test.run(t, ctx, harness(t))
		})
	}
}

// open opens a KEK that the end of the test closes.
func open(t *testing.T, h Harness) seal.KEK {
	t.Helper()
	k := h.Open(t)
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return k
}

func mustWrap(t *testing.T, ctx context.Context, k seal.KEK, plaintext, aad []byte) (string, []byte) {
	t.Helper()
	name, wrapped, err := k.Wrap(ctx, plaintext, aad)
	if err != nil {
		t.Fatalf("wrap %d bytes bound to %d: %v", len(plaintext), len(aad), err)
	}
	return name, wrapped
}

func mustUnwrap(t *testing.T, ctx context.Context, k seal.KEK, name string, wrapped, aad, want []byte) {
	t.Helper()
	got, err := k.Unwrap(ctx, name, wrapped, aad)
	if err != nil {
		t.Fatalf("unwrap with %s: %v", name, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("unwrap with %s: %d bytes that are not what was wrapped (%d)", name, len(got), len(want))
	}
}

// refused expects one kind of error and none of the others.
func refused(t *testing.T, what string, b []byte, err error, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
	for _, other := range []error{seal.ErrUnreachable, seal.ErrRevoked, recorder.ErrTampered} {
		if !errors.Is(want, other) && errors.Is(err, other) {
			t.Errorf("%s: error %v is also %v", what, err, other)
		}
	}
	if len(b) > 0 {
		t.Errorf("%s: %d bytes came with the error", what, len(b))
	}
}

func filled(n int, first byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

var (
	key   = filled(184, 3)
	bound = []byte("trunktap data key 1\x00conversation/recording-1")
)

func roundTrip(t *testing.T, ctx context.Context, h Harness) {
	k := open(t, h)
	for _, n := range []int{16, 32, 33, 184, 4096} {
		for _, aad := range [][]byte{nil, bound[:1], bound, filled(1024, 0)} {
			p := filled(n, byte(n))
			given := bytes.Clone(p)
			name, wrapped := mustWrap(t, ctx, k, p, aad)
			if !bytes.Equal(p, given) {
				t.Error("Wrap changed what it was given")
			}
			if name == "" || len(name) > 512 || strings.ContainsAny(name, " \n\x00") {
				t.Errorf("name %q", name)
			}
			if bytes.Contains(wrapped, p[:16]) {
				t.Error("wrapped holds the key")
			}
			w := bytes.Clone(wrapped)
			mustUnwrap(t, ctx, k, name, wrapped, aad, p)
			if !bytes.Equal(w, wrapped) {
				t.Error("Unwrap changed what it was given")
			}
		}
	}
}

func limits(t *testing.T, ctx context.Context, h Harness) {
	k := open(t, h)
	for _, bad := range []struct{ key, aad int }{{0, 5}, {15, 5}, {4097, 5}, {32, 1025}} {
		if h.InProcess {
			break
		}
		if _, _, err := k.Wrap(ctx, filled(bad.key, 1), filled(bad.aad, 1)); err == nil || errors.Is(err, recorder.ErrKey) {
			t.Errorf("wrap %d bytes bound to %d: error %v, want one of the caller", bad.key, bad.aad, err)
		}
	}
	name, wrapped := mustWrap(t, ctx, k, key, bound)
	for _, n := range []int{0, 1, 11, len(wrapped) - 1, len(wrapped) + 1, 64 << 10} {
		w := append(bytes.Clone(wrapped), make([]byte, 64<<10)...)[:n]
		b, err := k.Unwrap(ctx, name, w, bound)
		refused(t, fmt.Sprintf("unwrap %d bytes", n), b, err, recorder.ErrTampered)
	}
	b, err := k.Unwrap(ctx, name, wrapped, make([]byte, 64<<10))
	refused(t, "unwrap with 64 KiB of aad", b, err, recorder.ErrTampered)
}

func otherAAD(t *testing.T, ctx context.Context, h Harness) {
	k := open(t, h)
	name, wrapped := mustWrap(t, ctx, k, key, bound)
	for what, aad := range map[string][]byte{
		"none": nil, "shorter": bound[:len(bound)-1], "longer": append(bytes.Clone(bound), 0), "of another recording": []byte("trunktap data key 1\x00conversation/recording-2"),
	} {
		b, err := k.Unwrap(ctx, name, wrapped, aad)
		refused(t, what, b, err, recorder.ErrTampered)
	}
	name, wrapped = mustWrap(t, ctx, k, key, nil)
	b, err := k.Unwrap(ctx, name, wrapped, bound)
	refused(t, "bound to nothing", b, err, recorder.ErrTampered)
}

func altered(t *testing.T, ctx context.Context, h Harness) {
	k := open(t, h)
	name, wrapped := mustWrap(t, ctx, k, filled(32, 9), bound)
	for i := range wrapped {
		if len(wrapped) > 64 && i >= 24 && i < len(wrapped)-24 && i%7 != 0 {
			continue
		}
		w := bytes.Clone(wrapped)
		w[i] ^= 1 << (i % 8)
		b, err := k.Unwrap(ctx, name, w, bound)
		refused(t, fmt.Sprintf("bit %d of byte %d", i%8, i), b, err, recorder.ErrTampered)
	}
	mustUnwrap(t, ctx, k, name, wrapped, bound, filled(32, 9))
}

func unknownKey(t *testing.T, ctx context.Context, h Harness) {
	k := open(t, h)
	name, wrapped := mustWrap(t, ctx, k, key, bound)
	for _, other := range []string{"", "x", name + "9", name[:len(name)-1], "a\nb", "../../etc/passwd", strings.Repeat("n", 4000), "\x00", "ключ"} {
		if h.AnyVersion && other == name+"9" {
			continue
		}
		b, err := k.Unwrap(ctx, other, wrapped, bound)
		refused(t, fmt.Sprintf("key %.40q", other), b, err, seal.ErrRevoked)
	}
}

func concurrent(t *testing.T, ctx context.Context, h Harness) {
	k := open(t, h)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 5 {
				p, aad := filled(32+g, byte(i)), fmt.Appendf(nil, "recording %d/%d", g, i)
				name, wrapped, err := k.Wrap(ctx, p, aad)
				if err != nil {
					t.Errorf("wrap: %v", err)
					return
				}
				if got, err := k.Unwrap(ctx, name, wrapped, aad); err != nil || !bytes.Equal(got, p) {
					t.Errorf("unwrap: %d bytes, error %v", len(got), err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func cancelled(t *testing.T, ctx context.Context, h Harness) {
	if h.InProcess {
		t.Skip("does not wait for anything")
	}
	k := open(t, h)
	name, wrapped := mustWrap(t, ctx, k, key, bound)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, _, err := k.Wrap(gone, key, bound)
	refused(t, "wrap", nil, err, seal.ErrUnreachable)
	b, err := k.Unwrap(gone, name, wrapped, bound)
	refused(t, "unwrap", b, err, seal.ErrUnreachable)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v hides that the caller gave up", err)
	}
	mustUnwrap(t, ctx, k, name, wrapped, bound, key)
}

func openedAgain(t *testing.T, ctx context.Context, h Harness) {
	k := h.Open(t)
	name, wrapped := mustWrap(t, ctx, k, key, bound)
	if err := k.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	again := open(t, h)
	mustUnwrap(t, ctx, again, name, wrapped, bound, key)
	if n, _ := mustWrap(t, ctx, again, key, bound); n != name {
		t.Errorf("active key %s, was %s", n, name)
	}
}

func closed(t *testing.T, ctx context.Context, h Harness) {
	k := h.Open(t)
	name, wrapped := mustWrap(t, ctx, k, key, bound)
	for range 2 {
		if err := k.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	if h.InProcess {
		return // nothing was closed
	}
	if _, _, err := k.Wrap(ctx, key, bound); !errors.Is(err, recorder.ErrKey) {
		t.Errorf("Wrap after Close: %v", err)
	}
	if _, err := k.Unwrap(ctx, name, wrapped, bound); !errors.Is(err, recorder.ErrKey) {
		t.Errorf("Unwrap after Close: %v", err)
	}
	if r, ok := k.(seal.Rotator); ok {
		if _, err := r.Rotate(ctx); !errors.Is(err, recorder.ErrKey) {
			t.Errorf("Rotate after Close: %v", err)
		}
	}
}

func outage(t *testing.T, ctx context.Context, h Harness) {
	if h.Outage == nil {
		t.Skip("has no outages")
	}
	k := open(t, h)
	name, wrapped := mustWrap(t, ctx, k, key, bound)
	for range 2 {
		restore := h.Outage(t)
		_, _, err := k.Wrap(ctx, key, bound)
		refused(t, "wrap", nil, err, seal.ErrUnreachable)
		b, err := k.Unwrap(ctx, name, wrapped, bound)
		refused(t, "unwrap", b, err, seal.ErrUnreachable)
		restore()
		recovered(t, ctx, func() error { _, err := k.Unwrap(ctx, name, wrapped, bound); return err })
		recovered(t, ctx, func() error { _, _, err := k.Wrap(ctx, key, bound); return err })
	}
}

// recovered gives a service that is back time to be noticed.
func recovered(t *testing.T, ctx context.Context, call func() error) {
	t.Helper()
	for {
		err := call()
		if err == nil {
			return
		}
		if !errors.Is(err, seal.ErrUnreachable) || ctx.Err() != nil {
			t.Fatalf("after the outage: %v", err)
		}
	}
}

func revoked(t *testing.T, ctx context.Context, h Harness) {
	if h.Revoke == nil {
		t.Skip("keys cannot be revoked")
	}
	k := open(t, h)
	name, wrapped := mustWrap(t, ctx, k, key, bound)
	h.Revoke(t, name)
	b, err := k.Unwrap(ctx, name, wrapped, bound)
	refused(t, "unwrap", b, err, seal.ErrRevoked)
	if n, _, err := k.Wrap(ctx, key, bound); err == nil && n == name {
		t.Error("a revoked key wraps")
	} else if err != nil && !errors.Is(err, seal.ErrRevoked) {
		t.Errorf("wrap: %v", err)
	}
	b, err = open(t, h).Unwrap(ctx, name, wrapped, bound)
	refused(t, "unwrap by another", b, err, seal.ErrRevoked)
	if h.Allow == nil {
		return
	}
	h.Allow(t, name)
	mustUnwrap(t, ctx, k, name, wrapped, bound, key)
}

func rotated(t *testing.T, ctx context.Context, h Harness) {
	k, other := open(t, h), open(t, h)
	old, wrapped := mustWrap(t, ctx, k, key, bound)
	_, _ = mustWrap(t, ctx, other, key, bound)
	now := ""
	switch r, ok := k.(seal.Rotator); {
	case ok:
		var err error
		if now, err = r.Rotate(ctx); err != nil {
			t.Fatalf("Rotate: %v", err)
		}
	case h.Rotate != nil:
		h.Rotate(t)
	default:
		t.Skip("keys cannot be rotated")
	}
	name, again := mustWrap(t, ctx, k, key, bound)
	if name == old || now != "" && name != now {
		t.Errorf("after the rotation from %s to %s the key %s wraps", old, now, name)
	}
	if n, _ := mustWrap(t, ctx, other, key, bound); n != name && h.Lag == 0 {
		t.Errorf("another goes on wrapping under %s", n)
	}
	for _, x := range []seal.KEK{k, other, open(t, h)} {
		mustUnwrap(t, ctx, x, old, wrapped, bound, key)
		mustUnwrap(t, ctx, x, name, again, bound, key)
	}
	if h.AnyVersion {
		return
	}
	b, err := k.Unwrap(ctx, old, again, bound)
	refused(t, "with the other key's name", b, err, recorder.ErrTampered)
}
