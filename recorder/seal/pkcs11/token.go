package pkcs11

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"

	p11 "github.com/miekg/pkcs11"

	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/service"
)

// token is one token with its sessions. Calls into the library cannot be
// stopped: one that does not return keeps its place among the sessions, so as
// many hang as there may be sessions, and no more.
type token struct {
	cfg Config
	mod *module

	places chan struct{} // one for each session

	mu     sync.Mutex // guards the following
	idle   []session
	life   uint64 // raised when sessions were lost
	closed bool
	keys   map[string]p11.ObjectHandle // by name
	wrong  [sha256.Size]byte           // hash of a PIN that was refused
}

type session struct {
	h    p11.SessionHandle
	life uint64
	era  uint64
}

func newToken(cfg Config, m *module) *token {
	return &token{cfg: cfg, mod: m, places: make(chan struct{}, cfg.sessions()), keys: map[string]p11.ObjectHandle{}}
}

// call is what runs with a session, and may use the library.
type call[T any] func(*p11.Ctx, p11.SessionHandle) (T, error)

// use runs f with a session, at the latest until ctx ends: then f goes on alone.
func use[T any](ctx context.Context, t *token, writable bool, f call[T]) (T, error) {
	type result struct {
		v   T
		err error
	}
	var none T
	select {
	case t.places <- struct{}{}:
	case <-ctx.Done():
		return none, fmt.Errorf("%w: all %d sessions are in use: %w", seal.ErrUnreachable, cap(t.places), context.Cause(ctx))
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-t.places }()
		v, err := with(t, writable, f)
		done <- result{v, class(err)}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		return none, fmt.Errorf("%w: the library does not return: %w", seal.ErrUnreachable, context.Cause(ctx))
	}
}

// with runs f with a session of the pool, or one that may write.
func with[T any](t *token, writable bool, f call[T]) (v T, err error) {
	s, err := attempt(t, writable, func(s session) (err error) { v, err = f(t.mod.ctx, s.h); return err })
	if !codeOf(err, revokedCodes) && !codeOf(err, tamperedCodes) && !codeOf(err, goneCodes) && isCode(err) {
		t.lost(s, err)
	}
	return v, err
}

func isCode(err error) bool {
	var e p11.Error
	return errors.As(err, &e)
}

// attempt holds the library while it gets a session and runs f.
func attempt(t *token, writable bool, f func(session) error) (session, error) {
	t.mod.calls.RLock()
	defer t.mod.calls.RUnlock()
	s, err := t.take(writable)
	if err != nil {
		return session{life: s.life, era: t.mod.era}, err
	}
	err = f(s)
	if writable || err != nil || !t.giveBack(s) {
		_ = t.mod.ctx.CloseSession(s.h) // it may be gone with its token
	}
	return s, err
}

// take returns an idle session or opens one.
func (t *token) take(writable bool) (session, error) {
	t.mu.Lock()
	life := t.life
	for !writable && len(t.idle) > 0 {
		s := t.idle[len(t.idle)-1]
		t.idle = t.idle[:len(t.idle)-1]
		if s.era == t.mod.era {
			t.mu.Unlock()
			return s, nil
		}
	}
	t.mu.Unlock()
	s := session{life: life, era: t.mod.era}
	slot, err := t.slot()
	if err != nil {
		return s, err
	}
	flags := uint(p11.CKF_SERIAL_SESSION)
	if writable {
		flags |= p11.CKF_RW_SESSION
	}
	if s.h, err = t.mod.ctx.OpenSession(slot, flags); err != nil {
		return s, fmt.Errorf("open session: %w", err)
	}
	if err := t.login(s.h, slot); err != nil {
		_ = t.mod.ctx.CloseSession(s.h) // the login says what is wrong
		return s, err
	}
	return s, nil
}

// giveBack keeps the session for others, unless it is of a life that is over.
func (t *token) giveBack(s session) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || s.life != t.life {
		return false
	}
	t.idle = append(t.idle, s)
	return true
}

// lost ends all sessions and forgets all handles: the token may have been pulled.
func (t *token) lost(s session, cause error) {
	t.mu.Lock()
	if s.life != t.life {
		t.mu.Unlock()
		return // another call has seen to it
	}
	t.life++
	idle := t.idle
	t.idle = nil
	clear(t.keys)
	t.mu.Unlock()
	t.mod.calls.RLock()
	for _, s := range idle {
		if s.era == t.mod.era {
			_ = t.mod.ctx.CloseSession(s.h) // it is gone already, or goes now
		}
	}
	t.mod.calls.RUnlock()
	if !errors.Is(cause, p11.Error(p11.CKR_SESSION_COUNT)) {
		_ = t.mod.restart(s.era) // the next call says so if it did not help
	}
}

// slot finds the slot that holds the token.
func (t *token) slot() (uint, error) {
	slots, err := t.mod.ctx.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("list slots: %w", err)
	}
	for _, s := range slots {
		info, err := t.mod.ctx.GetTokenInfo(s)
		if err != nil {
			continue // pulled since, or broken: not ours then
		}
		if t.cfg.TokenLabel != "" && strings.TrimRight(info.Label, " \x00") != t.cfg.TokenLabel {
			continue
		}
		if t.cfg.TokenSerial != "" && strings.TrimRight(info.SerialNumber, " \x00") != t.cfg.TokenSerial {
			continue
		}
		return s, nil
	}
	return 0, fmt.Errorf("no token%s in %d slots: %w", t.cfg.which(), len(slots), p11.Error(p11.CKR_TOKEN_NOT_PRESENT))
}

// login logs the user in, for all sessions of the process. A PIN that was refused
// is not tried again: a few such tries lock the token for good.
func (t *token) login(h p11.SessionHandle, slot uint) error {
	if info, err := t.mod.ctx.GetSessionInfo(h); err == nil && (info.State == p11.CKS_RO_USER_FUNCTIONS || info.State == p11.CKS_RW_USER_FUNCTIONS) {
		return nil
	}
	pin, err := service.ReadSecret(t.cfg.PINFile)
	if err != nil {
		return fmt.Errorf("%w: pin_file: %w", seal.ErrRevoked, err)
	}
	defer clear(pin)
	sum := sha256.Sum256(pin)
	t.mu.Lock()
	wrong := t.wrong == sum
	t.mu.Unlock()
	if wrong {
		return fmt.Errorf("%w: the token refused this PIN (write the right one to %s; the wrong one is not tried again)", seal.ErrRevoked, t.cfg.PINFile)
	}
	if info, err := t.mod.ctx.GetTokenInfo(slot); err == nil && info.Flags&p11.CKF_USER_PIN_FINAL_TRY != 0 {
		return fmt.Errorf("%w: one more wrong PIN locks the token%s (log in once with the vendor's tool, then start again)", seal.ErrRevoked, t.cfg.which())
	}
	switch err = t.mod.ctx.Login(h, p11.CKU_USER, string(pin)); {
	case err == nil, errors.Is(err, p11.Error(p11.CKR_USER_ALREADY_LOGGED_IN)):
		return nil
	case errors.Is(err, p11.Error(p11.CKR_PIN_INCORRECT)):
		t.mu.Lock()
		t.wrong = sum
		t.mu.Unlock()
	}
	return fmt.Errorf("log in with the PIN of %s: %w", t.cfg.PINFile, err)
}

// close waits for calls until ctx ends and closes the sessions.
func (t *token) close(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	idle := t.idle
	t.idle = nil
	t.mu.Unlock()
	hang := false
	for range cap(t.places) {
		select {
		case t.places <- struct{}{}:
		case <-ctx.Done():
			hang = true
		}
	}
	if hang {
		return t.mod.leave()
	}
	t.mod.calls.RLock()
	for _, s := range idle {
		if s.era == t.mod.era {
			_ = t.mod.ctx.CloseSession(s.h) // it may be gone with its token
		}
	}
	t.mod.calls.RUnlock()
	return t.mod.leave()
}
