package seal

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// fakeKEK is a key service in memory that can fail.
type fakeKEK struct {
	mu      sync.Mutex
	version int
	err     error
	wraps   int
	unwraps int
	slow    time.Duration
}

func (f *fakeKEK) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fakeKEK) asked() (wraps, unwraps int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wraps, f.unwraps
}

var fakeAEAD = func() *dataKey {
	k, err := makeKey(newMemory())
	if err != nil {
		panic(err)
	}
	return k
}()

func (f *fakeKEK) Wrap(ctx context.Context, plaintext, aad []byte) (string, []byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.slow > 0 {
		<-ctx.Done()
		return "", nil, ctx.Err()
	}
	f.wraps++
	if f.err != nil {
		return "", nil, f.err
	}
	name := fmt.Sprintf("v%d", f.version)
	b, err := fakeAEAD.Seal(plaintext, append([]byte(name), aad...))
	return name, b, err
}

func (f *fakeKEK) Unwrap(_ context.Context, name string, wrapped, aad []byte) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unwraps++
	if f.err != nil {
		return nil, f.err
	}
	return fakeAEAD.Open(wrapped, append([]byte(name), aad...))
}

func (f *fakeKEK) Rotate(context.Context) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	return fmt.Sprintf("v%d", f.version), f.err
}

func (f *fakeKEK) Close() error { return nil }

func started(t testing.TB, k KEK, c Caching) *Envelope {
	t.Helper()
	e := NewEnvelope(EnvelopeConfig{Active: Source{"fake", k}, Caching: c})
	e.Start(context.Background())
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// TestKeyServiceIsNotAskedPerRecording: a thousand recordings cost one request to
// wrap and, here and elsewhere, one to open.
func TestKeyServiceIsNotAskedPerRecording(t *testing.T) {
	f := &fakeKEK{}
	e := started(t, f, Caching{})
	keys := make([]recorder.DataKey, 1000)
	for i := range keys {
		keys[i] = mustKey(t, e, fmt.Sprintf("rec-%d", i))
	}
	if wraps, _ := f.asked(); wraps != 1 {
		t.Errorf("%d requests to wrap", wraps)
	}
	_, before := f.asked()
	elsewhere := NewEnvelope(EnvelopeConfig{Active: Source{"fake", f}})
	var all sync.WaitGroup
	for i, k := range keys {
		all.Go(func() {
			sealed, err := k.Seal([]byte("speech"), nil)
			if err != nil {
				t.Error(err)
				return
			}
			again, err := elsewhere.OpenKey(context.Background(), fmt.Sprintf("rec-%d", i), k.Wrapped())
			if err != nil {
				t.Error(err)
				return
			}
			defer again.Close()
			if got, err := again.Open(sealed, nil); err != nil || string(got) != "speech" {
				t.Errorf("opened to %q, %v", got, err)
			}
			k.Close()
		})
	}
	all.Wait()
	if _, unwraps := f.asked(); unwraps != before+1 {
		t.Errorf("%d requests to open", unwraps-before)
	}
	if n, _ := e.Memory(); n != 1 {
		t.Errorf("%d keys are open after all were closed, want the intermediate alone", n)
	}
	if _, err := elsewhere.OpenKey(context.Background(), "rec-2", keys[1].Wrapped()); !errors.Is(err, recorder.ErrTampered) {
		t.Errorf("the key of another recording: %v", err)
	}
}

// TestStanding: the policy, at every moment.
func TestStanding(t *testing.T) {
	away, gone := fmt.Errorf("x: %w", ErrUnreachable), fmt.Errorf("x: %w", ErrRevoked)
	for name, c := range map[string]struct {
		unreachable, revoked Policy
		err                  error
		after                time.Duration
		refused              error
	}{
		"fine":                       {PolicyStop, PolicyStop, nil, 1000 * time.Hour, nil},
		"away, at once":              {PolicyStop, PolicyStop, away, time.Second, ErrUnreachable},
		"away, within the time":      {PolicyContinue, PolicyStop, away, 23 * time.Hour, nil},
		"away, beyond the time":      {PolicyContinue, PolicyStop, away, 24 * time.Hour, ErrUnreachable},
		"away, as it comes":          {"", "", away, 23 * time.Hour, nil},
		"revoked":                    {PolicyContinue, PolicyStop, gone, time.Second, ErrRevoked},
		"revoked, as it comes":       {"", "", gone, time.Second, ErrRevoked},
		"revoked, go on":             {PolicyStop, PolicyContinue, gone, 23 * time.Hour, nil},
		"revoked, go on for a while": {PolicyStop, PolicyContinue, gone, 25 * time.Hour, ErrRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			s := standing{cfg: Caching{OnUnreachable: c.unreachable, OnRevoked: c.revoked}.withDefaults()}
			now := time.Unix(1e9, 0)
			if err := s.refuse(now); !errors.Is(err, ErrUnreachable) {
				t.Fatalf("before the first key: %v", err)
			}
			s.made, s.confirmed = now, now
			if now = now.Add(c.after); c.err != nil {
				s.failed(now, c.err)
			}
			if err := s.refuse(now); !errors.Is(err, c.refused) || c.refused == nil && err != nil {
				t.Errorf("refuse = %v, want %v", err, c.refused)
			}
			if until := s.untilStop(now); (until == 0) != (c.refused != nil) {
				t.Errorf("%s until recording stops", until)
			}
			s.answered(now)
			if err := s.refuse(now); err != nil {
				t.Errorf("restored: %v", err)
			}
		})
	}
}

// TestDueMakesProgress: whatever happens, something is due within the retry or
// the check, and never twice at once.
func TestDueMakesProgress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := standing{cfg: Caching{}.withDefaults()}
		now := time.Unix(1e9, 0)
		for range 100 {
			renew, check, wait := s.due(now, rapid.Bool().Draw(t, "spent"))
			if renew && check || !renew && !check && (wait <= 0 || wait > time.Minute) {
				t.Fatalf("renew %v, check %v, wait %s", renew, check, wait)
			}
			if check && s.made.IsZero() {
				t.Fatal("asks to open what was never made")
			}
			switch {
			case !renew && !check:
				now = now.Add(wait)
			case rapid.Bool().Draw(t, "fails"):
				s.failed(now, ErrUnreachable)
			case renew:
				s.made = now
				s.answered(now)
			default:
				s.answered(now)
			}
		}
	})
}

// TestLifeOfAKeyService: one that goes away, comes back, revokes and allows again,
// by the hours.
func TestLifeOfAKeyService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeKEK{}
		var mu sync.Mutex
		var told []string
		e := NewEnvelope(EnvelopeConfig{Active: Source{"fake", f}, Tell: func(event string, _ map[string]string) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, event)
		}})
		want := func(events ...string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(told, events) {
				t.Errorf("told %q, want %q", told, events)
			}
			told = nil
		}
		e.Start(context.Background())
		defer func() { _ = e.Close() }()
		first := mustKey(t, e, rec)
		time.Sleep(61 * time.Minute)
		second := mustKey(t, e, rec)
		if bytes.Equal(first.Wrapped().Intermediate, second.Wrapped().Intermediate) {
			t.Error("the intermediate key was not renewed in an hour")
		}
		want()

		f.set(ErrUnreachable)
		time.Sleep(20 * time.Hour)
		third := mustKey(t, e, rec)
		want(EventUnreachable)
		if s := e.Status(context.Background()); s.Up || s.UntilStop <= 3*time.Hour || s.UntilStop > 5*time.Hour {
			t.Errorf("status %+v", s)
		}
		if _, err := e.OpenKey(context.Background(), rec, first.Wrapped()); !errors.Is(err, ErrUnreachable) {
			t.Errorf("open an older one meanwhile: %v", err)
		}
		if _, err := e.OpenKey(context.Background(), rec, third.Wrapped()); err != nil {
			t.Errorf("open what the current one wraps: %v", err)
		}
		time.Sleep(5 * time.Hour)
		if _, err := e.NewKey(context.Background(), rec); !errors.Is(err, ErrUnreachable) || !errors.Is(e.Check(), ErrUnreachable) {
			t.Errorf("after 25 h: %v", err)
		}
		want(EventStopped)
		if why := e.Paused(); why != "no key for longer than 24h0m0s, keys.cache.for" {
			t.Errorf("what goes on: %q", why)
		}
		f.set(nil)
		time.Sleep(time.Minute)
		mustKey(t, e, rec)
		want(EventRestored)

		f.set(ErrRevoked)
		time.Sleep(2 * time.Minute)
		want(EventRevoked, EventStopped)
		if _, err := e.NewKey(context.Background(), rec); !errors.Is(err, ErrRevoked) {
			t.Errorf("revoked: %v", err)
		}
		if _, err := e.OpenKey(context.Background(), rec, third.Wrapped()); !errors.Is(err, ErrRevoked) {
			t.Errorf("open while revoked: %v", err)
		}
		if _, err := third.Seal([]byte("speech"), nil); err != nil {
			t.Errorf("a recording that goes on: %v", err)
		}
		if why := e.Paused(); why != "the key was revoked, and keys.on_revoked is stop" {
			t.Errorf("what goes on: %q", why)
		}
		f.set(nil)
		time.Sleep(time.Minute)
		want(EventRestored)
		if why := e.Paused(); why != "" {
			t.Errorf("what goes on: %q", why)
		}
		name, err := e.Rotate(context.Background())
		if err != nil || name != "fake:v1" || mustKey(t, e, rec).Wrapped().KEK != name {
			t.Errorf("rotated to %q, %v", name, err)
		}
		want(EventRotated)
	})
}

// TestSlowKeyServiceHoldsNobodyUp: a start without an answer ends in the time of
// one request, and NewKey never waits.
func TestSlowKeyServiceHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := NewEnvelope(EnvelopeConfig{Active: Source{"fake", &fakeKEK{slow: time.Hour}}})
		began := time.Now()
		e.Start(context.Background())
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("the start took %s", d)
		}
		if _, err := e.NewKey(context.Background(), rec); !errors.Is(err, recorder.ErrKey) {
			t.Errorf("NewKey: %v", err)
		}
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("NewKey waited, %s after the start", d)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestKeysMaxRenews: so many data keys, and a new intermediate key.
func TestKeysMaxRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := NewEnvelope(EnvelopeConfig{Active: Source{"fake", &fakeKEK{}}, Caching: Caching{KeysMax: 10}})
		e.Start(context.Background())
		defer func() { _ = e.Close() }()
		before := mustKey(t, e, rec).Wrapped().Intermediate
		for range 10 {
			mustKey(t, e, rec).Close()
		}
		synctest.Wait()
		if bytes.Equal(before, mustKey(t, e, rec).Wrapped().Intermediate) {
			t.Error("the same intermediate key after ten")
		}
	})
}

// TestRewrap: the data key stays, what wraps it changes, over every form.
func TestRewrap(t *testing.T) {
	f := &fakeKEK{}
	l := mustOpen(t, vfstest.NewMem(), "/k/kek.json")
	e := NewEnvelope(EnvelopeConfig{Active: Source{"fake", f}, Former: []Source{{"", l.KEK()}, {ModeNone, None{}}}})
	e.Start(context.Background())
	defer func() { _ = e.Close() }()
	bare := NewEnvelope(EnvelopeConfig{Active: Source{ModeNone, None{}}, Direct: true})
	for name, s := range map[string]recorder.Sealer{"local": l, "none": bare, "itself": e} {
		k := mustKey(t, s, rec)
		sealed, err := k.Seal([]byte("speech"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := Unsealed(k.Wrapped()); got != (name == "none") {
			t.Errorf("%s: unsealed: %v", name, got)
		}
		w, err := e.Rewrap(context.Background(), rec, k.Wrapped())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if w.KEK != "fake:v0" {
			t.Errorf("%s: wrapped by %s", name, w.KEK)
		}
		again, err := e.OpenKey(context.Background(), rec, w)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := again.Open(sealed, nil); err != nil || string(got) != "speech" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if _, err := l.OpenKey(context.Background(), rec, w); !errors.Is(err, recorder.ErrKey) {
			t.Errorf("%s: opened without the key service: %v", name, err)
		}
	}
}

// TestUnsealedIsNotTakenForSealed: who can write the store cannot make up a
// recording, unless the mode says that anybody may.
func TestUnsealedIsNotTakenForSealed(t *testing.T) {
	l := mustOpen(t, vfstest.NewMem(), "/k/kek.json")
	forged := make([]byte, plainBytes)
	forged[0] = plainForm
	_, _ = rand.Read(forged[1:])
	w := recorder.WrappedKey{KEK: "none:unsealed", Bytes: forged, Form: formDirect}
	if _, err := l.OpenKey(context.Background(), rec, w); !errors.Is(err, recorder.ErrKey) {
		t.Errorf("opened: %v", err)
	}
}

// TestCacheIsBounded in entries and in time.
func TestCacheIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeKEK{}
		var wrapped []recorder.WrappedKey
		for range 20 {
			e := NewEnvelope(EnvelopeConfig{Active: Source{"fake", f}})
			e.Start(context.Background())
			wrapped = append(wrapped, mustKey(t, e, rec).Wrapped())
			_ = e.Close()
		}
		e := NewEnvelope(EnvelopeConfig{Active: Source{"fake", f}, Caching: Caching{OpenMax: 5, OpenFor: time.Minute}})
		open := func(w recorder.WrappedKey) {
			k, err := e.OpenKey(context.Background(), rec, w)
			if err != nil {
				t.Fatal(err)
			}
			k.Close()
		}
		for _, w := range wrapped {
			open(w)
		}
		synctest.Wait()
		if n, _ := e.Memory(); e.Status(context.Background()).Open != 5 || n != 5 {
			t.Errorf("%d keys are open", n)
		}
		_, before := f.asked()
		open(wrapped[19])
		if _, n := f.asked(); n != before {
			t.Error("asked for a key that is open")
		}
		time.Sleep(2 * time.Minute)
		open(wrapped[19])
		if _, n := f.asked(); n != before+1 {
			t.Errorf("asked %d times for a key that was open two minutes ago", n-before)
		}
	})
}
