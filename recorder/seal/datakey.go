package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/locked"
)

// Sizes of what Tink's AES-GCM puts around a ciphertext: the key's prefix and a
// random nonce before it, the tag behind it.
const (
	prefixBytes = 5
	nonceBytes  = 12
	tagBytes    = 16
)

// plainBytes is the size of a data key before it is wrapped: plainForm, the id of
// the key, big-endian, and the key.
const (
	plainBytes = 1 + 4 + keyBytes
	plainForm  = 2
	keyBytes   = 32 // AES-256
	slotBytes  = 64 // of locked memory, for plainBytes
	slotsMax   = 1 << 16
)

// newMemory returns the memory for the keys of a process: 65,536 of them, 4 MiB
// when all are in use.
func newMemory() *locked.Pool { return locked.NewPool(slotBytes, slotsMax) }

// dataKey is an open key: its bytes in locked memory, and Go's AES-GCM over them,
// which gives the same ciphertexts as Tink's and needs no buffer for each. What
// AES makes of the key lies on the heap as long as the key is open, and is wiped
// with it.
type dataKey struct {
	wrapped recorder.WrappedKey
	memory  *locked.Pool

	mu     sync.RWMutex // guards all following; held while they are used, so that nothing is sealed with a wiped key
	slot   []byte       // nil after Close
	gcm    cipher.AEAD
	prefix [prefixBytes]byte // of ciphertexts
}

// makeKey makes a fresh key.
func makeKey(memory *locked.Pool) (*dataKey, error) {
	slot, err := memory.Take()
	if err != nil {
		return nil, err
	}
	slot[0] = plainForm
	_, _ = rand.Read(slot[1:plainBytes]) // never fails: it ends the program rather
	return openSlot(memory, slot)
}

// plainKey opens a key in the form of plainBytes, and wipes what it was given.
func plainKey(memory *locked.Pool, plain []byte) (*dataKey, error) {
	defer clear(plain)
	if len(plain) != plainBytes || plain[0] != plainForm {
		return nil, fmt.Errorf("data key of %d bytes: %w", len(plain), recorder.ErrTampered)
	}
	slot, err := memory.Take()
	if err != nil {
		return nil, err
	}
	copy(slot, plain)
	return openSlot(memory, slot)
}

func openSlot(memory *locked.Pool, slot []byte) (*dataKey, error) {
	k := &dataKey{memory: memory, slot: slot}
	k.prefix[0] = 1 // Tink's, of keys that have an id
	copy(k.prefix[1:], slot[1:5])
	block, err := aes.NewCipher(slot[5:plainBytes])
	if err == nil {
		k.gcm, err = cipher.NewGCM(block)
		wipe(block) // GCM has a copy
	}
	if err != nil {
		memory.Give(slot)
		return nil, fmt.Errorf("use data key: %w", err)
	}
	return k, nil
}

// wipe zeroes what a pointer points to.
func wipe(p any) {
	if v := reflect.ValueOf(p); v.Kind() == reflect.Pointer && !v.IsNil() {
		v.Elem().SetZero()
	}
}

// id names the key in its ciphertexts.
func (k *dataKey) id() uint32 { return binary.BigEndian.Uint32(k.prefix[1:]) }

// plain calls f with the key as it is wrapped; f keeps nothing of it.
func (k *dataKey) plain(f func([]byte) error) error {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.slot == nil {
		return errClosed
	}
	return f(k.slot[:plainBytes])
}

// Wrapped implements recorder.DataKey.
func (k *dataKey) Wrapped() recorder.WrappedKey { return k.wrapped }

// errClosed is given to calls after Close.
var errClosed = fmt.Errorf("%w: data key is closed", recorder.ErrKey)

// Seal implements recorder.DataKey.
func (k *dataKey) Seal(plaintext, bind []byte) ([]byte, error) {
	return k.AppendSeal(nil, plaintext, bind)
}

// AppendSeal appends to dst what Seal returns. Dst and plaintext do not overlap.
func (k *dataKey) AppendSeal(dst, plaintext, bind []byte) ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.slot == nil {
		return dst, errClosed
	}
	dst = slices.Grow(dst, prefixBytes+nonceBytes+len(plaintext)+tagBytes)
	dst = append(dst, k.prefix[:]...)
	at := len(dst)
	dst = dst[:at+nonceBytes]
	_, _ = rand.Read(dst[at:]) // never fails: it ends the program rather
	return k.gcm.Seal(dst, dst[at:], plaintext, bind), nil
}

// Open implements recorder.DataKey.
func (k *dataKey) Open(sealed, bind []byte) ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.slot == nil {
		return nil, errClosed
	}
	if len(sealed) < prefixBytes+nonceBytes+tagBytes || !bytes.Equal(sealed[:prefixBytes], k.prefix[:]) {
		return nil, recorder.ErrTampered
	}
	nonce, rest := sealed[prefixBytes:prefixBytes+nonceBytes], sealed[prefixBytes+nonceBytes:]
	b, err := k.gcm.Open(nil, nonce, rest, bind)
	if err != nil {
		return nil, recorder.ErrTampered // GCM says no more than that it failed, on purpose
	}
	return b, nil
}

// Close implements recorder.DataKey: the key is wiped.
func (k *dataKey) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.slot == nil {
		return
	}
	wipe(k.gcm)
	k.memory.Give(k.slot)
	k.gcm, k.slot = nil, nil
}
