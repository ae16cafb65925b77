package pkcs11

import (
	"bytes"
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/kektest"
	"github.com/trunktap/trunktap/recorder/seal/pkcs11/softhsm"
	"github.com/trunktap/trunktap/recorder/seal/service"
)

func configOf(token softhsm.Token, mechanism string) Config {
	return Config{
		Module: softhsm.Module, TokenLabel: token.Label, PINFile: token.PINFile, Label: "trunktap", Create: true, Mechanism: mechanism,
		Attempts: service.Attempts{Timeout: 20 * time.Second}, Refresh: time.Nanosecond,
	}
}

func mustOpen(t *testing.T, cfg Config) *KEK {
	t.Helper()
	k, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return k
}

// onToken runs f with a session that may write.
func onToken[T any](t *testing.T, k *KEK, f call[T]) T {
	t.Helper()
	v, err := use(t.Context(), k.token, true, f)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// destroy takes the key that name tells off the token.
func destroy(t *testing.T, k *KEK, name string) {
	t.Helper()
	onToken(t, k, func(c *p11.Ctx, s p11.SessionHandle) (struct{}, error) {
		h, err := k.token.handle(c, s, name)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, c.DestroyObject(s, h)
	})
}

func TestConformance(t *testing.T) {
	for _, mechanism := range []string{"aes-gcm", "aes-key-wrap-pad"} {
		t.Run(mechanism, func(t *testing.T) {
			kektest.Run(t, func(t *testing.T) kektest.Harness {
				token := softhsm.New(t)
				cfg := configOf(token, mechanism)
				return kektest.Harness{
					Open: func(t *testing.T) seal.KEK {
						k, err := Open(t.Context(), cfg)
						if err != nil {
							t.Fatalf("Open: %v", err)
						}
						return k
					},
					Outage: func(t *testing.T) func() { return pull(t, token) },
					Revoke: func(t *testing.T, name string) {
						another := mustOpen(t, cfg)
						destroy(t, another, name)
					},
				}
			})
		})
	}
}

// pull takes the token out of its slot.
func pull(t *testing.T, token softhsm.Token) func() {
	t.Helper()
	if err := os.Rename(token.Dir, token.Dir+".pulled"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(token.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.RemoveAll(token.Dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(token.Dir+".pulled", token.Dir); err != nil {
			t.Fatal(err)
		}
	}
}

// The promise of an HSM: nobody reads the key, the daemon included.
func TestKeyStaysOnTheToken(t *testing.T) {
	k := mustOpen(t, configOf(softhsm.New(t), "auto"))
	name, _, err := k.Wrap(t.Context(), make([]byte, 32), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = use(t.Context(), k.token, false, func(c *p11.Ctx, s p11.SessionHandle) ([]*p11.Attribute, error) {
		h, err := k.token.handle(c, s, name)
		if err != nil {
			return nil, err
		}
		return c.GetAttributeValue(s, h, []*p11.Attribute{p11.NewAttribute(p11.CKA_VALUE, nil)})
	})
	if !errors.Is(err, p11.Error(p11.CKR_ATTRIBUTE_SENSITIVE)) {
		t.Errorf("reading CKA_VALUE: %v, want CKR_ATTRIBUTE_SENSITIVE", err)
	}
	_, err = use(t.Context(), k.token, true, func(c *p11.Ctx, s p11.SessionHandle) (struct{}, error) {
		h, err := k.token.handle(c, s, name)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, c.SetAttributeValue(s, h, []*p11.Attribute{p11.NewAttribute(p11.CKA_EXTRACTABLE, true)})
	})
	if err == nil {
		t.Error("the key can be made extractable")
	}
}

// ownKey makes a key as an operator would.
func ownKey(t *testing.T, k *KEK, label string, id []byte, extractable bool, n int) {
	t.Helper()
	onToken(t, k, func(c *p11.Ctx, s p11.SessionHandle) (p11.ObjectHandle, error) {
		return c.GenerateKey(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, []*p11.Attribute{
			p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY), p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_AES), p11.NewAttribute(p11.CKA_TOKEN, true),
			p11.NewAttribute(p11.CKA_VALUE_LEN, n), p11.NewAttribute(p11.CKA_LABEL, label), p11.NewAttribute(p11.CKA_ID, id),
			p11.NewAttribute(p11.CKA_SENSITIVE, !extractable), p11.NewAttribute(p11.CKA_EXTRACTABLE, extractable),
			p11.NewAttribute(p11.CKA_ENCRYPT, true), p11.NewAttribute(p11.CKA_DECRYPT, true),
		})
	})
}

func TestKeysOfTheOperator(t *testing.T) {
	cfg := configOf(softhsm.New(t), "auto")
	k := mustOpen(t, cfg)
	ownKey(t, k, "good", []byte{7}, false, 32)
	ownKey(t, k, "loose", []byte{8}, true, 32)
	ownKey(t, k, "short", []byte{9}, false, 16)
	ownKey(t, k, "nameless", nil, false, 32)
	for label, want := range map[string]string{
		"good": "", "loose": "can leave the token", "short": "not of 256 bits", "nameless": "CKA_ID", "none": "set create: true",
	} {
		cfg.Label, cfg.Create = label, false
		own, err := Open(t.Context(), cfg)
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, seal.ErrRevoked) {
				t.Errorf("key %q: error %v, want %q", label, err, want)
			}
			continue
		}
		if err != nil {
			t.Fatalf("key %q: %v", label, err)
		}
		name, wrapped, err := own.Wrap(t.Context(), make([]byte, 32), nil)
		if err != nil || name != "good.v0:07" {
			t.Errorf("name %q, error %v", name, err)
		}
		if next, err := own.Rotate(t.Context()); err != nil || !strings.HasPrefix(next, "good.v1:") {
			t.Errorf("rotated to %q, error %v", next, err)
		}
		if _, err := own.Unwrap(t.Context(), name, wrapped, nil); err != nil {
			t.Errorf("the operator's own key after a rotation: %v", err)
		}
		if err := own.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A few wrong PINs lock a token for good: one is tried once.
func TestWrongPIN(t *testing.T) {
	token := softhsm.New(t)
	cfg := configOf(token, "auto")
	m, err := openModule(cfg.Module) // keeps the library in memory, as another user would
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.leave() }()
	token.SetPIN(t, "0815")
	tok := newToken(cfg, m)
	m.users++
	k := &KEK{cfg: cfg, token: tok, calls: service.NewCaller(cfg.Attempts)}
	defer func() { _ = k.Close() }()
	for i, want := range []string{"CKR_PIN_INCORRECT", "not tried again", "not tried again"} {
		if err := k.start(t.Context()); !errors.Is(err, seal.ErrRevoked) || !strings.Contains(err.Error(), want) {
			t.Errorf("try %d: %v, want %s", i, err, want)
		}
	}
	token.SetPIN(t, "4711")
	if err := k.start(t.Context()); err != nil {
		t.Errorf("with the right PIN: %v", err)
	}
	if err := os.Chmod(token.PINFile, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := service.ReadSecret(token.PINFile); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a PIN that everybody can read: %v", err)
	}
}

// A call that hangs in the library holds its session and nobody else's time.
func TestLibraryHangs(t *testing.T) {
	cfg := configOf(softhsm.New(t), "auto")
	cfg.Sessions = 1
	k := mustOpen(t, cfg)
	release := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for _, want := range []string{"does not return", "all 1 sessions"} {
		_, err := use(ctx, k.token, false, func(*p11.Ctx, p11.SessionHandle) (int, error) { <-release; return 0, nil })
		if !errors.Is(err, seal.ErrUnreachable) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	close(release)
	if _, _, err := k.Wrap(t.Context(), make([]byte, 32), nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Sessions that the token closed are opened again.
func TestSessionsLost(t *testing.T) {
	k := mustOpen(t, configOf(softhsm.New(t), "auto"))
	for range 3 {
		name, wrapped, err := k.Wrap(t.Context(), make([]byte, 32), nil)
		if err != nil {
			t.Fatal(err)
		}
		slots, err := k.token.mod.ctx.GetSlotList(true)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range slots {
			_ = k.token.mod.ctx.CloseAllSessions(s) // some slots have none
		}
		if _, err := k.Unwrap(t.Context(), name, wrapped, nil); err != nil {
			t.Errorf("after all sessions were closed: %v", err)
		}
	}
}

func TestConfig(t *testing.T) {
	err := Config{Module: "lib.so", Label: "a b", Mechanism: "rot13", Sessions: 65, Refresh: -1, Attempts: service.Attempts{Timeout: -1, Tries: 11}}.Check().Err()
	for _, key := range []string{"module", "token_label", "pin_file", "label", "mechanism", "sessions", "refresh", "timeout", "tries"} {
		if err == nil || !regexp.MustCompile(`(?m)^`+key+`: `).MatchString(err.Error()) {
			t.Errorf("no fault of %s in %v", key, err)
		}
	}
	if _, err := Open(t.Context(), Config{Module: "/nowhere/lib.so", TokenLabel: "x", PINFile: "x", Label: "x"}); err == nil || !strings.Contains(err.Error(), "cannot be loaded") {
		t.Errorf("library that is not there: %v", err)
	}
}

func TestNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := key{
			label:   rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._-]{0,63}`).Draw(t, "label"),
			version: uint64(rapid.Uint32Range(0, 999_999_999).Draw(t, "version")),
			id:      rapid.StringMatching(`([0-9a-f]{2}){1,64}`).Draw(t, "id"),
		}
		if got, ok := parseName(k.name()); !ok || got != k {
			t.Fatalf("%+v became %+v", k, got)
		}
		if v, ok := ofLabel(k.label, k.object()); !ok || v != k.version {
			t.Fatalf("version %d of %q became %d", k.version, k.object(), v)
		}
	})
}

func FuzzName(f *testing.F) {
	f.Add("trunktap.v1:00ff", []byte{1, 1})
	f.Add("a.v0:aa", append([]byte{1, 2}, make([]byte, 56)...))
	f.Fuzz(func(t *testing.T, name string, wrapped []byte) {
		if k, ok := parseName(name); ok && k.name() != name {
			t.Errorf("%q is also called %q", name, k.name())
		}
		if err := wellFormed(wrapped); err != nil && !errors.Is(err, recorder.ErrTampered) || err == nil && len(bytes.TrimLeft(wrapped, "\x01\x02")) > len(wrapped) {
			t.Errorf("error %v", err)
		}
	})
}
