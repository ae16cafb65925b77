package pkcs11

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"github.com/trunktap/trunktap/recorder/seal"
)

const (
	keyBytes  = 32
	idBytes   = 16
	findMax   = 256  // objects that one C_FindObjects returns
	keysMax   = 4096 // AES keys on a token that are looked at
	idsMax    = 64   // bytes of CKA_ID
	firstMade = 1
)

// key is a key-encryption key on the token. The name `label.vN:id` finds it
// again; version 0 is one that the operator made, with the bare label.
type key struct {
	label   string // without the version
	version uint64
	id      string // CKA_ID in hexadecimal digits
	handle  p11.ObjectHandle
}

func (k key) name() string { return fmt.Sprintf("%s.v%d:%s", k.label, k.version, k.id) }

// object is the label that the key has on the token.
func (k key) object() string {
	if k.version == 0 {
		return k.label
	}
	return fmt.Sprintf("%s.v%d", k.label, k.version)
}

var (
	labelPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	namePattern  = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]{0,63})\.v(0|[1-9][0-9]{0,8}):((?:[0-9a-f]{2}){1,64})$`)
)

// parseName reverses name.
func parseName(name string) (key, bool) {
	m := namePattern.FindStringSubmatch(name)
	if m == nil {
		return key{}, false
	}
	v, err := strconv.ParseUint(m[2], 10, 32)
	return key{label: m[1], version: v, id: m[3]}, err == nil
}

// ofLabel tells which version of the configured key an object's label is.
func ofLabel(label, object string) (uint64, bool) {
	if object == label {
		return 0, true
	}
	digits, ok := strings.CutPrefix(object, label+".v")
	if !ok || digits == "" || digits[0] == '0' {
		return 0, false
	}
	v, err := strconv.ParseUint(digits, 10, 32)
	return v, err == nil
}

var aesKeys = []*p11.Attribute{
	p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
	p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_AES),
	p11.NewAttribute(p11.CKA_TOKEN, true),
}

// find returns the objects that template tells, at most limit.
func find(c *p11.Ctx, s p11.SessionHandle, template []*p11.Attribute, limit int) (found []p11.ObjectHandle, err error) {
	if err := c.FindObjectsInit(s, template); err != nil {
		return nil, fmt.Errorf("find keys: %w", err)
	}
	defer func() {
		if e := c.FindObjectsFinal(s); err == nil && e != nil {
			err = fmt.Errorf("find keys: %w", e)
		}
	}()
	for len(found) < limit {
		h, _, err := c.FindObjects(s, min(findMax, limit-len(found)))
		if err != nil {
			return nil, fmt.Errorf("find keys: %w", err)
		}
		if len(h) == 0 {
			break
		}
		found = append(found, h...)
	}
	return found, nil
}

// versions lists the versions of the configured key, the newest first. Of two
// that were made at once the one with the lower id comes first, for everybody.
func versions(c *p11.Ctx, s p11.SessionHandle, label string) ([]key, error) {
	handles, err := find(c, s, aesKeys, keysMax)
	if err != nil {
		return nil, err
	}
	var keys []key
	for _, h := range handles {
		a, err := c.GetAttributeValue(s, h, []*p11.Attribute{p11.NewAttribute(p11.CKA_LABEL, nil), p11.NewAttribute(p11.CKA_ID, nil)})
		if err != nil {
			continue // destroyed since, or none of ours
		}
		v, ok := ofLabel(label, string(a[0].Value))
		if !ok {
			continue
		}
		k := key{label: label, version: v, id: hex.EncodeToString(a[1].Value), handle: h}
		if err := suits(c, s, k, len(a[1].Value)); err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(b.version, a.version), cmp.Compare(a.id, b.id))
	})
	return keys, nil
}

// suits refuses keys that could leave the token, and those that cannot be told apart.
func suits(c *p11.Ctx, s p11.SessionHandle, k key, id int) error {
	if id < 1 || id > idsMax {
		return fmt.Errorf("%w: key %q has a CKA_ID of %d bytes (give it one of 1 to %d)", seal.ErrRevoked, k.object(), id, idsMax)
	}
	a, err := c.GetAttributeValue(s, k.handle, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_SENSITIVE, nil), p11.NewAttribute(p11.CKA_EXTRACTABLE, nil), p11.NewAttribute(p11.CKA_VALUE_LEN, nil),
	})
	if err != nil {
		return fmt.Errorf("look at key %q: %w", k.object(), err)
	}
	if !truth(a[0].Value) || truth(a[1].Value) {
		return fmt.Errorf("%w: key %q can leave the token (make one with CKA_SENSITIVE true and CKA_EXTRACTABLE false, or set create: true and another label)", seal.ErrRevoked, k.object())
	}
	if len(a[2].Value) == 0 || a[2].Value[0] != keyBytes {
		return fmt.Errorf("%w: key %q is not of 256 bits (make an AES-256 key)", seal.ErrRevoked, k.object())
	}
	return nil
}

func truth(b []byte) bool { return len(b) > 0 && b[0] != 0 }

// generate makes a key on the token that never leaves it.
func generate(c *p11.Ctx, s p11.SessionHandle, mech mechanism, k key) (key, error) {
	id := make([]byte, idBytes)
	_, _ = rand.Read(id) // never fails
	k.id = hex.EncodeToString(id)
	template := append(slices.Clone(aesKeys),
		p11.NewAttribute(p11.CKA_VALUE_LEN, keyBytes),
		p11.NewAttribute(p11.CKA_LABEL, k.object()),
		p11.NewAttribute(p11.CKA_ID, id),
		p11.NewAttribute(p11.CKA_PRIVATE, true),
		p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
		p11.NewAttribute(p11.CKA_ENCRYPT, mech == gcm),
		p11.NewAttribute(p11.CKA_DECRYPT, mech == gcm),
		p11.NewAttribute(p11.CKA_WRAP, mech == keyWrap),
		p11.NewAttribute(p11.CKA_UNWRAP, mech == keyWrap),
	)
	h, err := c.GenerateKey(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, template)
	if err != nil {
		return key{}, fmt.Errorf("make key %q: %w", k.object(), err)
	}
	k.handle = h
	return k, nil
}

// newest returns the newest version, made now if there is none and create says so.
func (t *token) newest(ctx context.Context, mech mechanism) (key, error) {
	keys, err := use(ctx, t, false, func(c *p11.Ctx, s p11.SessionHandle) ([]key, error) { return versions(c, s, t.cfg.Label) })
	switch {
	case err != nil:
		return key{}, err
	case len(keys) > 0:
		t.remember(keys[0])
		return keys[0], nil
	case !t.cfg.Create:
		return key{}, fmt.Errorf("%w: no AES key %q on the token%s (make one, or set create: true)", seal.ErrRevoked, t.cfg.Label, t.cfg.which())
	}
	return t.make(ctx, mech, firstMade)
}

// make adds a version.
func (t *token) make(ctx context.Context, mech mechanism, version uint64) (key, error) {
	k, err := use(ctx, t, true, func(c *p11.Ctx, s p11.SessionHandle) (key, error) {
		return generate(c, s, mech, key{label: t.cfg.Label, version: version})
	})
	if err == nil {
		t.remember(k)
	}
	return k, err
}

func (t *token) remember(k key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.keys) >= keysMax {
		clear(t.keys)
	}
	t.keys[k.name()] = k.handle
}

func (t *token) forget(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.keys, name)
}

// handle returns the object that name tells, looked up unless it is known.
func (t *token) handle(c *p11.Ctx, s p11.SessionHandle, name string) (p11.ObjectHandle, error) {
	t.mu.Lock()
	h, ok := t.keys[name]
	t.mu.Unlock()
	if ok {
		return h, nil
	}
	k, ok := parseName(name)
	if !ok {
		return 0, fmt.Errorf("%w: %.80q is no key of a token", seal.ErrRevoked, name)
	}
	id, err := hex.DecodeString(k.id)
	if err != nil {
		return 0, fmt.Errorf("%w: %.80q is no key of a token", seal.ErrRevoked, name)
	}
	found, err := find(c, s, append(slices.Clone(aesKeys), p11.NewAttribute(p11.CKA_LABEL, k.object()), p11.NewAttribute(p11.CKA_ID, id)), 1)
	if err != nil {
		return 0, err
	}
	if len(found) == 0 {
		return 0, fmt.Errorf("%w: key %s is not on the token%s", seal.ErrRevoked, name, t.cfg.which())
	}
	k.handle = found[0]
	t.remember(k)
	return k.handle, nil
}
