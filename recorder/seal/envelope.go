package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/locked"
)

// Forms of a wrapped data key; see FORMAT.md.
const (
	formTink         = 0 // a Tink keyset, encrypted by the key-encryption key
	formDirect       = 1 // plainBytes, encrypted by the key-encryption key
	formIntermediate = 2 // plainBytes, encrypted by the intermediate key
)

// Limits of what is read from outside.
const (
	wrappedBytesMax      = 16 << 10 // a wrapped data key has about 180 bytes
	intermediateBytesMax = 16 << 10
)

// bindKey, bindPlain and bindIntermediate are the associated data of wrapped keys.
func bindKey(recording string) []byte   { return []byte("trunktap data key 1\x00" + recording) }
func bindPlain(recording string) []byte { return []byte("trunktap data key 2\x00" + recording) }

var bindIntermediate = []byte("trunktap intermediate key 1\x00")

// Source is a KEK and the name of its kind, which begins the names of its keys
// where they are stored: "vault:…". The kind without a name is `local`.
type Source struct {
	Mode string
	KEK  KEK
}

// stored is the name of a key as it is stored.
func (s Source) stored(name string) string {
	if s.Mode == "" {
		return name
	}
	return s.Mode + ":" + name
}

// EnvelopeConfig is what an Envelope needs.
type EnvelopeConfig struct {
	Active Source
	Former []Source // of keys from before the active source was configured; they only unwrap

	// Direct: the key-encryption key is in this process, so each data key is
	// wrapped by it, there is no intermediate key and Start does nothing.
	Direct bool

	Caching Caching
	// Tell hears of the events below, in order; it must not wait. Nil: nobody does.
	Tell func(event string, data map[string]string)
}

// Stats counts what an Envelope asked of keys.
type Stats struct {
	Wraps, Unwraps Results // requests to the key-encryption key
	Made, Opened   atomic.Int64
	CacheHits      atomic.Int64 // data keys opened without asking
	Renewed        atomic.Int64 // intermediate keys made
}

// Results counts requests by what came of them.
type Results struct{ OK, Unreachable, Revoked, Failed atomic.Int64 }

func (r *Results) count(err error) {
	switch {
	case err == nil:
		r.OK.Add(1)
	case errors.Is(err, ErrRevoked):
		r.Revoked.Add(1)
	case errors.Is(err, ErrUnreachable):
		r.Unreachable.Add(1)
	default:
		r.Failed.Add(1)
	}
}

// Envelope makes and opens the data keys of recordings by a KEK. Between the two
// stands an intermediate key that is made here, wrapped by the KEK, and wraps the
// data keys of many recordings: so no call waits for a key service, and recording
// goes on for a while when that is away. Safe for concurrent use.
type Envelope struct {
	cfg    EnvelopeConfig
	memory *locked.Pool
	stats  Stats
	opened cache

	turns   sync.Mutex // held while the key service is asked about the intermediate key; before mu
	stopped bool       // it was told; guarded by turns
	since   time.Time  // when the key service began to fail; guarded by turns

	mu      sync.RWMutex // guards all following
	stand   standing
	now     *intermediate   // nil: there is none yet
	used    map[string]bool // stored names of key-encryption keys used since the start
	rotated bool            // the intermediate key is to be replaced

	wake  chan struct{} // one slot
	stop  context.CancelFunc
	ended chan struct{} // closed when the owner has ended; nil: there is none
}

// intermediate is a key that wraps data keys.
type intermediate struct {
	key     *dataKey
	name    string // of the key-encryption key, as it is stored
	wrapped []byte
	keys    atomic.Int64 // data keys wrapped with it
}

var _ recorder.Sealer = (*Envelope)(nil)

// NewEnvelope returns an Envelope that opens keys at once; it makes none before
// Start, unless it is direct.
func NewEnvelope(cfg EnvelopeConfig) *Envelope {
	cfg.Caching = cfg.Caching.withDefaults()
	e := &Envelope{cfg: cfg, memory: newMemory(), stand: standing{cfg: cfg.Caching}, used: map[string]bool{}, wake: make(chan struct{}, 1)}
	e.opened.keysMax, e.opened.keepFor = cfg.Caching.OpenMax, cfg.Caching.OpenFor
	return e
}

// Stats returns the counters.
func (e *Envelope) Stats() *Stats { return &e.stats }

// Memory returns how many keys are open in locked memory, and how many may be.
func (e *Envelope) Memory() (keys, keysMax int) { return e.memory.Used() }

// Mode is the kind of the active source.
func (e *Envelope) Mode() string {
	if e.cfg.Active.Mode == "" {
		return "local"
	}
	return e.cfg.Active.Mode
}

// NewKey implements recorder.Sealer. It does not ask a key service. Errors are
// recorder.ErrKey, or tell that no memory can be locked.
func (e *Envelope) NewKey(ctx context.Context, recording string) (recorder.DataKey, error) {
	k, err := makeKey(e.memory)
	if err != nil {
		return nil, fmt.Errorf("make data key: %w", err)
	}
	if k.wrapped, err = e.wrap(ctx, recording, k); err != nil {
		k.Close()
		return nil, fmt.Errorf("wrap data key: %w", err)
	}
	e.stats.Made.Add(1)
	return k, nil
}

// wrap wraps a data key with what is active.
func (e *Envelope) wrap(ctx context.Context, recording string, k *dataKey) (w recorder.WrappedKey, err error) {
	if e.cfg.Direct {
		err = k.plain(func(plain []byte) error {
			name, b, err := e.cfg.Active.KEK.Wrap(ctx, plain, bindPlain(recording))
			w = recorder.WrappedKey{KEK: e.cfg.Active.stored(name), Bytes: b, Form: formDirect}
			return err
		})
		e.stats.Wraps.count(err)
		e.note(w.KEK)
		return w, err
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	if err := e.stand.refuse(time.Now()); err != nil {
		return w, err
	}
	m := e.now
	err = k.plain(func(plain []byte) error {
		b, err := m.key.Seal(plain, bindPlain(recording))
		w = recorder.WrappedKey{KEK: m.name, Bytes: b, Intermediate: m.wrapped, Form: formIntermediate}
		return err
	})
	if m.keys.Add(1) == int64(e.cfg.Caching.KeysMax) {
		e.kick()
	}
	return w, err
}

// note keeps the name of a key that was used.
func (e *Envelope) note(name string) {
	e.mu.RLock()
	known := e.used[name]
	e.mu.RUnlock()
	if !known && name != "" {
		e.mu.Lock()
		e.used[name] = true
		e.mu.Unlock()
	}
}

// UsedSinceStart tells whether a key-encryption key, by its stored name, has
// wrapped something in this process, which may be about to be written.
func (e *Envelope) UsedSinceStart(name string) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.used[name]
}

// OpenKey implements recorder.Sealer.
func (e *Envelope) OpenKey(ctx context.Context, recording string, w recorder.WrappedKey) (recorder.DataKey, error) {
	k, err := e.unwrap(ctx, recording, w)
	if err != nil {
		return nil, fmt.Errorf("unwrap data key: %w%s", err, remedy(w.KEK, err))
	}
	k.wrapped = w
	e.stats.Opened.Add(1)
	return k, nil
}

// remedy says what to do about a key that is not at hand.
func remedy(kek string, err error) string {
	mode, _, elsewhere := strings.Cut(kek, ":")
	switch {
	case errors.Is(err, ErrRevoked) && !elsewhere:
		return " (restore the key file that has the key)"
	case errors.Is(err, ErrRevoked):
		return " (enable the key again at the service of mode " + mode + ", or allow this daemon to use it)"
	case errors.Is(err, ErrUnreachable):
		return " (see that the service of mode " + mode + " runs and can be reached)"
	}
	return ""
}

func (e *Envelope) unwrap(ctx context.Context, recording string, w recorder.WrappedKey) (*dataKey, error) {
	if len(w.Bytes) > wrappedBytesMax || len(w.Intermediate) > intermediateBytesMax {
		return nil, fmt.Errorf("%d and %d bytes: %w", len(w.Bytes), len(w.Intermediate), recorder.ErrTampered)
	}
	switch w.Form {
	case formTink:
		sealed, err := encryptedKeyset(w.Bytes)
		if err != nil {
			return nil, err
		}
		set, err := e.ask(ctx, w.KEK, sealed, bindKey(recording))
		if err != nil {
			return nil, err
		}
		defer clear(set)
		plain := make([]byte, plainBytes)
		if err := keysetPlain(plain, set); err != nil {
			return nil, err
		}
		return plainKey(e.memory, plain)
	case formDirect:
		plain, err := e.ask(ctx, w.KEK, w.Bytes, bindPlain(recording))
		if err != nil {
			return nil, err
		}
		return plainKey(e.memory, plain)
	case formIntermediate:
		return e.unwrapBy(ctx, recording, w)
	}
	return nil, fmt.Errorf("form %d of a wrapped key is not known to this version: %w", w.Form, recorder.ErrKey)
}

// unwrapBy opens a data key by its intermediate key.
func (e *Envelope) unwrapBy(ctx context.Context, recording string, w recorder.WrappedKey) (*dataKey, error) {
	if k, err := e.byCurrent(recording, w); k != nil || err != nil {
		e.stats.CacheHits.Add(1)
		return k, err
	}
	var plain []byte
	hit, err := e.opened.use(ctx, w.KEK, w.Intermediate, func(ctx context.Context) (*dataKey, error) {
		b, err := e.ask(ctx, w.KEK, w.Intermediate, bindIntermediate)
		if err != nil {
			return nil, err
		}
		return plainKey(e.memory, b)
	}, func(k *dataKey) (err error) {
		plain, err = k.Open(w.Bytes, bindPlain(recording))
		return err
	})
	if hit {
		e.stats.CacheHits.Add(1)
	}
	if err != nil {
		return nil, err
	}
	return plainKey(e.memory, plain)
}

// byCurrent opens a data key that the current intermediate key wraps; nil: it is
// another one. A key that was revoked opens nothing any more, unless that is wanted.
func (e *Envelope) byCurrent(recording string, w recorder.WrappedKey) (*dataKey, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.now == nil || e.now.name != w.KEK || !bytes.Equal(e.now.wrapped, w.Intermediate) {
		return nil, nil
	}
	if e.stand.revoked() && e.cfg.Caching.OnRevoked == PolicyStop {
		return nil, e.stand.err
	}
	plain, err := e.now.key.Open(w.Bytes, bindPlain(recording))
	if err != nil {
		return nil, err
	}
	return plainKey(e.memory, plain)
}

// ask has a KEK open what it wrapped.
func (e *Envelope) ask(ctx context.Context, stored string, wrapped, bind []byte) ([]byte, error) {
	source, name, ok := e.sourceOf(stored)
	if !ok {
		return nil, fmt.Errorf("%w: key-encryption key %q is of no source that is configured (keys.mode, keys.former)", recorder.ErrKey, stored)
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Caching.Timeout)
	defer cancel()
	b, err := source.KEK.Unwrap(ctx, name, wrapped, bind)
	err = asKeyError(err)
	e.stats.Unwraps.count(err)
	return b, err
}

// asKeyError takes what a KEK does not know how to name for silence.
func asKeyError(err error) error {
	if err == nil || errors.Is(err, recorder.ErrKey) || errors.Is(err, recorder.ErrTampered) || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// sourceOf finds the source of a key by the name that is stored.
func (e *Envelope) sourceOf(stored string) (Source, string, bool) {
	mode, name, ok := strings.Cut(stored, ":")
	if !ok {
		mode, name = "", stored
	}
	for _, s := range append([]Source{e.cfg.Active}, e.cfg.Former...) {
		if s.Mode == mode {
			return s, name, true
		}
	}
	return Source{}, "", false
}

// Unsealed tells whether a wrapped key can be opened by whoever can read it: its
// recording is neither secret nor authenticated.
func Unsealed(w recorder.WrappedKey) bool { return strings.HasPrefix(w.KEK, ModeNone+":") }

// Rewrap wraps a data key anew with what is active. Nothing changes when that has
// wrapped it already.
func (e *Envelope) Rewrap(ctx context.Context, recording string, w recorder.WrappedKey) (recorder.WrappedKey, error) {
	if active, err := e.ActiveKey(ctx); err == nil && active == w.KEK && w.Form != formTink {
		return w, nil
	}
	k, err := e.unwrap(ctx, recording, w)
	if err != nil {
		return w, fmt.Errorf("unwrap data key: %w", err)
	}
	defer k.Close()
	again, err := e.wrap(ctx, recording, k)
	if err != nil {
		return w, fmt.Errorf("wrap data key: %w", err)
	}
	return again, nil
}

// ActiveKey returns the stored name of the key-encryption key that wraps what is
// new. It asks nobody.
func (e *Envelope) ActiveKey(context.Context) (string, error) {
	if e.cfg.Direct {
		if a, ok := e.cfg.Active.KEK.(interface{ Active() string }); ok {
			return e.cfg.Active.stored(a.Active()), nil
		}
		return "", nil
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.now == nil {
		return "", e.stand.refuse(time.Now())
	}
	return e.now.name, nil
}
