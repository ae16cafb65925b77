package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/aesgcm"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/trunktap/trunktap/recorder"
)

// Sizes of what Tink's AES-GCM puts around a ciphertext: behind the key's
// prefix a random nonce, at the end the tag.
const (
	nonceBytes = 12
	tagBytes   = 16
)

// dataKey is an open data key. Tink's AEAD gives each ciphertext a buffer of its
// own, which for frames is most of the garbage of a recording; so they are sealed
// with the same key, in the same format, by Go's AES-GCM, which is also what
// Tink uses.
type dataKey struct {
	wrapped recorder.WrappedKey

	mu     sync.RWMutex   // guards all following
	handle *keyset.Handle // nil after Close
	gcm    cipher.AEAD    // nil: the keyset is none that New makes
	prefix []byte         // of gcm's ciphertexts
	aead   tink.AEAD      // nil until it is needed
}

func newDataKey(h *keyset.Handle, w recorder.WrappedKey) (*dataKey, error) {
	k := &dataKey{wrapped: w, handle: h}
	e, err := h.Primary()
	if err != nil {
		return nil, fmt.Errorf("use data key: %w", err)
	}
	if raw, ok := plainGCM(e); ok {
		block, err := aes.NewCipher(raw.KeyBytes().Data(insecuresecretdataaccess.Token{}))
		if err != nil {
			return nil, fmt.Errorf("use data key: %w", err)
		}
		if k.gcm, err = cipher.NewGCM(block); err != nil {
			return nil, fmt.Errorf("use data key: %w", err)
		}
		k.prefix = raw.OutputPrefix()
		return k, nil
	}
	if k.aead, err = aead.New(h); err != nil {
		return nil, fmt.Errorf("use data key: %w", err)
	}
	return k, nil
}

// plainGCM returns the AES-GCM key of an entry, if it is one of the usual sizes.
func plainGCM(e *keyset.Entry) (*aesgcm.Key, bool) {
	k, ok := e.Key().(*aesgcm.Key)
	if !ok || e.KeyStatus() != keyset.Enabled {
		return nil, false
	}
	p, ok := k.Parameters().(*aesgcm.Parameters)
	return k, ok && p.IVSizeInBytes() == nonceBytes && p.TagSizeInBytes() == tagBytes
}

// Wrapped implements recorder.DataKey.
func (k *dataKey) Wrapped() recorder.WrappedKey { return k.wrapped }

// errClosed is given to calls after Close.
var errClosed = fmt.Errorf("%w: data key is closed", recorder.ErrKey)

// tink returns Tink's view of the key.
func (k *dataKey) tink() (tink.AEAD, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.handle == nil {
		return nil, errClosed
	}
	if k.aead == nil {
		a, err := aead.New(k.handle)
		if err != nil {
			return nil, fmt.Errorf("use data key: %w", err)
		}
		k.aead = a
	}
	return k.aead, nil
}

// Seal implements recorder.DataKey.
func (k *dataKey) Seal(plaintext, bind []byte) ([]byte, error) {
	return k.AppendSeal(nil, plaintext, bind)
}

// AppendSeal appends to dst what Seal returns. Dst and plaintext do not overlap.
func (k *dataKey) AppendSeal(dst, plaintext, bind []byte) ([]byte, error) {
	k.mu.RLock()
	gcm, prefix, open := k.gcm, k.prefix, k.handle != nil
	k.mu.RUnlock()
	if !open {
		return dst, errClosed
	}
	if gcm == nil {
		a, err := k.tink()
		if err != nil {
			return dst, err
		}
		b, err := a.Encrypt(plaintext, bind)
		return append(dst, b...), err
	}
	dst = slices.Grow(dst, len(prefix)+nonceBytes+len(plaintext)+tagBytes)
	dst = append(dst, prefix...)
	at := len(dst)
	dst = dst[:at+nonceBytes]
	_, _ = rand.Read(dst[at:]) // never fails: it ends the program rather
	return gcm.Seal(dst, dst[at:], plaintext, bind), nil
}

// Open implements recorder.DataKey.
func (k *dataKey) Open(sealed, bind []byte) ([]byte, error) {
	a, err := k.tink()
	if err != nil {
		return nil, err
	}
	b, err := a.Decrypt(sealed, bind)
	if err != nil {
		// Tink says no more than that it failed, on purpose.
		return nil, recorder.ErrTampered
	}
	return b, nil
}

// Close implements recorder.DataKey. Go offers no way to wipe what it holds; the
// key is left to the garbage collector.
func (k *dataKey) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.handle, k.gcm, k.aead = nil, nil, nil
}
