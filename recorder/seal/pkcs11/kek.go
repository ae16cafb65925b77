// Package pkcs11 keeps key-encryption keys in a hardware security module, by
// PKCS#11: AES-256 keys that never leave the token wrap the data keys.
package pkcs11

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/service"
)

// Limits and defaults.
const (
	sessionsDefault = 4
	sessionsMax     = 64
	refreshDefault  = 30 * time.Second
	closeWait       = 5 * time.Second
)

// Config says which token and key to use.
type Config struct {
	Module      string // absolute path of the vendor's library
	TokenLabel  string // which token; at least one of the two
	TokenSerial string
	PINFile     string // file with the PIN of the user, not readable by everybody
	Label       string // of the key: letters, digits, . _ -; at most 64; versions are called label.v1, label.v2, …
	Create      bool   // make the key when there is none
	Mechanism   string // "auto" (also ""): AES-GCM, or else key wrap; "aes-gcm"; "aes-key-wrap-pad"
	Sessions    int    // at most at once; 0: 4, at most 64
	Attempts    service.Attempts
	// Refresh is how soon a key that another process made is used for wrapping;
	// 0: 30 s.
	Refresh time.Duration
}

func (c Config) sessions() int {
	if c.Sessions == 0 {
		return sessionsDefault
	}
	return c.Sessions
}

// which names the token for people.
func (c Config) which() string {
	s := ""
	if c.TokenLabel != "" {
		s = fmt.Sprintf(" with the label %q", c.TokenLabel)
	}
	if c.TokenSerial != "" {
		s += fmt.Sprintf(" with the serial number %q", c.TokenSerial)
	}
	return s
}

// Check returns everything that is wrong with the configuration.
func (c Config) Check() service.Faults {
	var f service.Faults
	f.Add(!filepath.IsAbs(c.Module), "module", "%q, must be the absolute path of the PKCS#11 library, e.g. /usr/lib/softhsm/libsofthsm2.so", c.Module)
	f.Add(c.TokenLabel == "" && c.TokenSerial == "", "token_label", "is missing, as is token_serial: say which token by one of them or both")
	f.Add(c.PINFile == "", "pin_file", "is missing: the file that holds the PIN of the token's user")
	f.Add(!labelPattern.MatchString(c.Label), "label", "%q, must be 1 to 64 letters, digits, '.', '_' or '-'", c.Label)
	switch c.Mechanism {
	case "", "auto", "aes-gcm", "aes-key-wrap-pad":
	default:
		f.Add(true, "mechanism", "%q, must be auto, aes-gcm or aes-key-wrap-pad", c.Mechanism)
	}
	f.Add(c.Sessions < 0 || c.Sessions > sessionsMax, "sessions", "%d, must be 1 to %d", c.Sessions, sessionsMax)
	f.Add(c.Refresh < 0, "refresh", "%s, must not be negative", c.Refresh)
	c.Attempts.Check(&f)
	return f
}

// KEK wraps data keys on a token. It is safe for concurrent use.
type KEK struct {
	cfg   Config
	token *token
	calls *service.Caller

	mu     sync.Mutex // guards the following
	mech   mechanism  // 0: the token was not there yet
	active key
	looked time.Time // when active was found
}

var (
	_ seal.KEK     = (*KEK)(nil)
	_ seal.Rotator = (*KEK)(nil)
)

// Open finds the key, or makes it. When the token is not there that is no error:
// it is looked for again when it is needed.
func Open(ctx context.Context, cfg Config) (*KEK, error) {
	if err := cfg.Check().Err(); err != nil {
		return nil, err
	}
	m, err := openModule(cfg.Module)
	if err != nil {
		return nil, err
	}
	k := &KEK{cfg: cfg, token: newToken(cfg, m), calls: service.NewCaller(cfg.Attempts)}
	if err := k.start(ctx); err != nil && !errors.Is(err, seal.ErrUnreachable) {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

func (k *KEK) start(ctx context.Context) error {
	return k.cfg.Attempts.Do(ctx, "open token", func(ctx context.Context) error {
		_, _, err := k.current(ctx)
		return err
	})
}

// choose takes the mechanism that the configuration asks for, if the token has it.
func (k *KEK) choose(ctx context.Context) (mechanism, error) {
	return use(ctx, k.token, false, func(c *p11.Ctx, s p11.SessionHandle) (mechanism, error) {
		info, err := c.GetSessionInfo(s)
		if err != nil {
			return 0, fmt.Errorf("look at session: %w", err)
		}
		if k.cfg.Mechanism != "aes-key-wrap-pad" && supports(c, info.SlotID, p11.CKM_AES_GCM, p11.CKF_ENCRYPT|p11.CKF_DECRYPT) {
			return gcm, nil
		}
		if k.cfg.Mechanism != "aes-gcm" && supports(c, info.SlotID, p11.CKM_AES_KEY_WRAP_PAD, p11.CKF_WRAP|p11.CKF_UNWRAP) {
			return keyWrap, nil
		}
		return 0, fmt.Errorf("%w: mechanism: the token has no such (auto needs CKM_AES_GCM or CKM_AES_KEY_WRAP_PAD)", seal.ErrRevoked)
	})
}

// current returns the active key and the mechanism, and looks now and then whether
// there is a newer key.
func (k *KEK) current(ctx context.Context) (active key, mech mechanism, err error) {
	refresh := k.cfg.Refresh
	if refresh == 0 {
		refresh = refreshDefault
	}
	k.mu.Lock()
	active, mech = k.active, k.mech
	fresh := !k.looked.IsZero() && time.Since(k.looked) < refresh
	k.mu.Unlock()
	if fresh {
		return active, mech, nil
	}
	if mech == 0 {
		if mech, err = k.choose(ctx); err != nil {
			return key{}, 0, err
		}
		k.mu.Lock()
		k.mech = mech
		k.mu.Unlock()
	}
	if active, err = k.token.newest(ctx, mech); err == nil {
		k.setActive(active)
	}
	return active, mech, err
}

func (k *KEK) setActive(a key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.active, k.looked = a, time.Now()
}

// Wrap implements seal.KEK.
func (k *KEK) Wrap(ctx context.Context, plaintext, aad []byte) (string, []byte, error) {
	return k.calls.Wrap(ctx, plaintext, aad, func(ctx context.Context) (string, []byte, error) {
		active, mech, err := k.current(ctx)
		if err != nil {
			return "", nil, err
		}
		own, bound := bytes.Clone(plaintext), bytes.Clone(aad) // a call that hangs outlives this one
		wrapped, err := withKey(ctx, k.token, active.name(), func(c *p11.Ctx, s p11.SessionHandle, h p11.ObjectHandle) ([]byte, error) {
			return wrap(c, s, mech, h, own, bound)
		})
		if err == nil {
			clear(own)
		}
		if errors.Is(err, seal.ErrRevoked) {
			k.mu.Lock()
			k.looked = time.Time{} // perhaps it was replaced
			k.mu.Unlock()
		}
		return active.name(), wrapped, err
	})
}

// Unwrap implements seal.KEK.
func (k *KEK) Unwrap(ctx context.Context, name string, wrapped, aad []byte) ([]byte, error) {
	if _, ok := parseName(name); !ok {
		return nil, fmt.Errorf("unwrap data key: %w: %.80q is no key of a token", seal.ErrRevoked, name)
	}
	if err := wellFormed(wrapped); err != nil {
		return nil, fmt.Errorf("unwrap data key: %w", err)
	}
	wrapped, aad = bytes.Clone(wrapped), bytes.Clone(aad) // a call that hangs outlives this one
	return k.calls.Unwrap(ctx, name, wrapped, aad, func(ctx context.Context) ([]byte, error) {
		open := func(c *p11.Ctx, s p11.SessionHandle, h p11.ObjectHandle) ([]byte, error) {
			return unwrap(c, s, h, wrapped, aad)
		}
		plaintext, err := withKey(ctx, k.token, name, open)
		if !codeOf(err, vagueCodes) || !k.works(ctx, name, mechanism(wrapped[1])) {
			return plaintext, err
		}
		if plaintext, err = withKey(ctx, k.token, name, open); codeOf(err, vagueCodes) {
			return nil, fmt.Errorf("%w: the key works, but not on this", recorder.ErrTampered)
		}
		return plaintext, err
	})
}

// works tries the key on a data key of its own.
func (k *KEK) works(ctx context.Context, name string, m mechanism) bool {
	ok, err := withKey(ctx, k.token, name, func(c *p11.Ctx, s p11.SessionHandle, h p11.ObjectHandle) (bool, error) {
		b, err := wrap(c, s, m, h, make([]byte, keyBytes), nil)
		if err != nil {
			return false, err
		}
		_, err = unwrap(c, s, h, b, nil)
		return err == nil, err
	})
	return err == nil && ok
}

// withKey runs f with the key, looked for once more when its handle was stale.
func withKey[T any](ctx context.Context, t *token, name string, f func(*p11.Ctx, p11.SessionHandle, p11.ObjectHandle) (T, error)) (T, error) {
	run := func(c *p11.Ctx, s p11.SessionHandle) (T, error) {
		var none T
		h, err := t.handle(c, s, name)
		if err != nil {
			return none, err
		}
		return f(c, s, h)
	}
	v, err := use(ctx, t, false, run)
	if codeOf(err, goneCodes) {
		t.forget(name)
		v, err = use(ctx, t, false, run)
	}
	return v, err
}

// Rotate implements seal.Rotator: a new version of the key.
func (k *KEK) Rotate(ctx context.Context) (name string, err error) {
	err = k.calls.Once(ctx, "rotate key", func(ctx context.Context) error {
		k.mu.Lock()
		k.looked = time.Time{} // another process may have rotated just now
		k.mu.Unlock()
		newest, mech, err := k.current(ctx)
		if err != nil {
			return err
		}
		made, err := k.token.make(ctx, mech, newest.version+1)
		if err != nil {
			return err
		}
		k.setActive(made)
		name = made.name()
		return nil
	})
	return name, err
}

// Close implements seal.KEK. It waits 5 s for calls into the library; one that
// hangs longer keeps it loaded.
func (k *KEK) Close() error {
	if !k.calls.Close() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	return k.token.close(ctx)
}
