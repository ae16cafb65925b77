package seal

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Events that Tell hears of.
const (
	EventUnreachable = "key.unreachable" // data: error, and stops_in when recording goes on for so long
	EventRevoked     = "key.revoked"     // the same
	EventStopped     = "key.stopped"     // nothing is recorded any more. Data: error
	EventRestored    = "key.restored"    // after any of these. Data: away, for how long
	EventRotated     = "key.rotated"     // another key-encryption key wraps what is new. Data: key, before
)

// startWait bounds how long Start waits for the first intermediate key: calls come
// in behind it.
const startWait = 3 * time.Second

// Start begins to ask the key service for intermediate keys in a goroutine of its
// own, and waits a while for the first. When there is none by then that is no error:
// Check tells, and it is tried again.
func (e *Envelope) Start(ctx context.Context) {
	if e.cfg.Direct {
		return
	}
	own, stop := context.WithCancel(context.Background())
	e.stop, e.ended = stop, make(chan struct{})
	first := make(chan struct{})
	go e.keep(own, first)
	patience := time.NewTimer(startWait)
	defer patience.Stop()
	select {
	case <-first:
	case <-patience.C:
	case <-ctx.Done():
	}
}

// keep does what is due until ctx ends; first is closed when the first request was
// answered, or not.
func (e *Envelope) keep(ctx context.Context, first chan<- struct{}) {
	defer close(e.ended)
	due := e.turn(ctx)
	close(first)
	for {
		wait := time.NewTimer(due)
		select {
		case <-wait.C:
		case <-e.wake:
		case <-ctx.Done():
			wait.Stop()
			return
		}
		wait.Stop()
		due = e.turn(ctx)
	}
}

// Close ends the owner, wipes all keys that are its own, and closes the sources.
// Data keys stay open until they are closed.
func (e *Envelope) Close() error {
	if e.ended != nil {
		e.stop()
		<-e.ended
	}
	e.opened.clear()
	e.mu.Lock()
	if e.now != nil {
		e.now.key.Close()
		e.now, e.stand.made = nil, time.Time{}
	}
	e.mu.Unlock()
	err := e.cfg.Active.KEK.Close()
	for _, s := range e.cfg.Former {
		err = errors.Join(err, s.KEK.Close())
	}
	return err
}

// kick has the owner look now.
func (e *Envelope) kick() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// turn does what is due and returns when the next thing is.
func (e *Envelope) turn(ctx context.Context) time.Duration {
	e.turns.Lock()
	defer e.turns.Unlock()
	now := time.Now()
	e.opened.tidy(now)
	e.mu.RLock()
	spent := e.rotated || e.now != nil && e.now.keys.Load() >= int64(e.cfg.Caching.KeysMax)
	renew, check, wait := e.stand.due(now, spent)
	e.mu.RUnlock()
	var err error
	switch {
	case renew:
		err = e.renew(ctx)
	case check:
		err = e.confirm(ctx)
	default:
		return min(wait, e.stopping(now), e.cfg.Caching.OpenFor)
	}
	if ctx.Err() == nil {
		e.settle(err)
	}
	return 0
}

// stopping tells, once, that nothing is recorded any more, and returns when that
// is to be looked at again. turns is held.
func (e *Envelope) stopping(now time.Time) time.Duration {
	e.mu.RLock()
	err, wait := e.stand.refuse(now), e.stand.untilStop(now)
	e.mu.RUnlock()
	switch {
	case err != nil && !e.stopped:
		e.stopped = true
		e.tell(EventStopped, map[string]string{"error": err.Error()})
		return time.Hour
	case err != nil || wait < 0:
		return time.Hour
	}
	return max(wait, time.Millisecond)
}

// settle notes what became of a request and tells of a change. turns is held.
func (e *Envelope) settle(err error) {
	now := time.Now()
	e.mu.Lock()
	was, wasRevoked := e.stand.err, e.stand.revoked()
	if err == nil {
		e.stand.answered(now)
	} else {
		e.stand.failed(now, err)
	}
	revoked, until := e.stand.revoked(), e.stand.untilStop(now)
	e.mu.Unlock()
	if was == nil && err != nil {
		e.since = now
	}
	data := map[string]string{}
	if err != nil {
		data["error"] = err.Error()
		if until > 0 {
			data["stops_in"] = until.Round(time.Second).String()
		}
	}
	switch {
	case err == nil && was != nil:
		e.stopped = false
		e.tell(EventRestored, map[string]string{"away": now.Sub(e.since).Round(time.Second).String()})
	case err == nil:
	case revoked && !wasRevoked:
		e.opened.clear()
		e.tell(EventRevoked, data)
	case !revoked && was == nil:
		e.tell(EventUnreachable, data)
	}
	e.stopping(now)
}

func (e *Envelope) tell(event string, data map[string]string) {
	if e.cfg.Tell == nil {
		return
	}
	data["mode"] = e.Mode()
	e.cfg.Tell(event, data)
}

// renew makes a new intermediate key the current one. It is opened again before:
// a key that cannot be opened must never wrap anything.
func (e *Envelope) renew(ctx context.Context) error {
	k, err := makeKey(e.memory)
	if err != nil {
		return err
	}
	m := &intermediate{key: k}
	err = k.plain(func(plain []byte) error {
		ctx, cancel := context.WithTimeout(ctx, e.cfg.Caching.Timeout)
		defer cancel()
		name, wrapped, err := e.cfg.Active.KEK.Wrap(ctx, plain, bindIntermediate)
		err = asKeyError(err)
		e.stats.Wraps.count(err)
		if len(wrapped) > intermediateBytesMax {
			err = errors.Join(err, fmt.Errorf("wrapped intermediate key of %d bytes: at most %d", len(wrapped), intermediateBytesMax))
		}
		m.name, m.wrapped = e.cfg.Active.stored(name), wrapped
		return err
	})
	if err == nil {
		err = e.opens(ctx, m)
	}
	if err != nil {
		k.Close()
		return fmt.Errorf("wrap an intermediate key: %w", err)
	}
	e.mu.Lock()
	old := e.now
	e.now, e.rotated = m, false
	e.used[m.name] = true
	e.stand.made = time.Now() // settle notes the answer
	e.mu.Unlock()
	e.stats.Renewed.Add(1)
	if old == nil {
		return nil
	}
	old.key.Close()
	if old.name != m.name {
		e.tell(EventRotated, map[string]string{"key": m.name, "before": old.name})
	}
	return nil
}

// confirm asks whether the current intermediate key still opens.
func (e *Envelope) confirm(ctx context.Context) error {
	e.mu.RLock()
	m := e.now
	e.mu.RUnlock()
	if err := e.opens(ctx, m); err != nil {
		return fmt.Errorf("open the intermediate key: %w", err)
	}
	return nil
}

// opens asks the key service to open an intermediate key. The turn is held, so
// nobody closes it meanwhile.
func (e *Envelope) opens(ctx context.Context, m *intermediate) error {
	b, err := e.ask(ctx, m.name, m.wrapped, bindIntermediate)
	if err != nil {
		return err
	}
	again, err := plainKey(e.memory, b)
	if err != nil {
		return err
	}
	defer again.Close()
	if again.id() != m.key.id() {
		return errors.New("the key service opened it to something else")
	}
	return nil
}

// Check tells whether a data key could be made now. It asks nobody.
func (e *Envelope) Check() error {
	if n, most := e.memory.Used(); n >= most {
		return fmt.Errorf("%d keys are open in locked memory, which is all that may be", n)
	}
	if e.cfg.Direct {
		return nil
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.stand.refuse(time.Now())
}

// Paused says why what goes on is not to be sealed now, though its data key is at
// hand: the key service does not answer or has revoked the key, and the policy is to
// stop. Empty before the first key was got, too: what has begun waits for it.
func (e *Envelope) Paused() string {
	if e.cfg.Direct {
		return ""
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.stand.made.IsZero() || e.stand.refuse(time.Now()) == nil {
		return ""
	}
	return e.stand.why()
}

// Status is how an Envelope stands.
type Status struct {
	Mode      string
	Active    string        // stored name of the key-encryption key that wraps what is new; empty: not known
	Up        bool          // the last request to the key service was answered
	Revoked   bool          // it was answered that the key may not be used
	Stopped   bool          // nothing is recorded
	Err       error         // of the last request
	Age       time.Duration // of the intermediate key; 0: there is none
	UntilStop time.Duration // negative: for ever
	Open      int           // intermediate keys kept open for reading
}

// Status returns how it stands. It asks nobody.
func (e *Envelope) Status(ctx context.Context) Status {
	active, _ := e.ActiveKey(ctx) // Err tells
	s := Status{Mode: e.Mode(), Active: active, Up: true, UntilStop: -1, Open: e.opened.size()}
	if e.cfg.Direct {
		return s
	}
	now := time.Now()
	e.mu.RLock()
	defer e.mu.RUnlock()
	s.Err, s.Revoked, s.UntilStop = e.stand.err, e.stand.revoked(), e.stand.untilStop(now)
	s.Stopped = s.UntilStop == 0
	s.Up = s.Err == nil && !e.stand.made.IsZero()
	if !e.stand.made.IsZero() {
		s.Age = now.Sub(e.stand.made)
	}
	return s
}

// ErrRotateElsewhere says that a key service rotates its keys by itself, or by
// its own tools.
var ErrRotateElsewhere = errors.New("the key service does not let keys be rotated from here; the intermediate key was renewed")

// Rotate makes a new key-encryption key the active one, where the source can do
// that, and has the next data keys wrapped by it; it returns the stored name.
func (e *Envelope) Rotate(ctx context.Context) (string, error) {
	r, can := e.cfg.Active.KEK.(Rotator)
	before, _ := e.ActiveKey(ctx) // empty: there is none yet
	var name string
	if can {
		n, err := r.Rotate(ctx)
		if err != nil {
			return "", fmt.Errorf("rotate: %w", err)
		}
		name = e.cfg.Active.stored(n)
	}
	if e.cfg.Direct {
		if !can {
			return "", ErrRotateElsewhere
		}
		e.tell(EventRotated, map[string]string{"key": name, "before": before})
		return name, nil
	}
	e.turns.Lock()
	defer e.turns.Unlock()
	defer e.kick() // its next check is due at another time
	e.mu.Lock()
	e.rotated = true // should the following fail, the owner goes on with it
	e.mu.Unlock()
	err := e.renew(ctx)
	e.settle(err)
	switch {
	case err != nil:
		return name, fmt.Errorf("rotate: %w", err)
	case !can:
		return "", ErrRotateElsewhere
	}
	return name, nil
}

// Renew replaces the intermediate key now: should the service have rotated its
// keys, the newest wraps it. Nothing happens when there is none.
func (e *Envelope) Renew(ctx context.Context) error {
	if e.cfg.Direct {
		return nil
	}
	e.turns.Lock()
	defer e.turns.Unlock()
	defer e.kick()
	err := e.renew(ctx)
	e.settle(err)
	return err
}
