package pkcs11

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal/service"
)

// mechanism is how a key wraps; it is the second byte of what it wrapped.
type mechanism byte

const (
	gcm     mechanism = 1 // CKM_AES_GCM, aad as its associated data
	keyWrap mechanism = 2 // CKM_AES_KEY_WRAP_PAD (RFC 5649) of a hash of aad, a length and the data key
)

const (
	wrappedVersion = 1
	headerBytes    = 2 // version, mechanism
	nonceBytes     = 12
	tagBits        = 128
	tagBytes       = tagBits / 8
	keyWrapBlock   = 8 // bytes
	lengthBytes    = 2 // before a data key that key wrap wraps
)

// supports tells whether the token has the mechanism.
func supports(c *p11.Ctx, slot uint, id, flags uint) bool {
	info, err := c.GetMechanismInfo(slot, []*p11.Mechanism{p11.NewMechanism(id, nil)})
	return err == nil && info.Flags&flags == flags
}

// wrap encrypts a data key under h.
func wrap(c *p11.Ctx, s p11.SessionHandle, m mechanism, h p11.ObjectHandle, plaintext, aad []byte) ([]byte, error) {
	header := []byte{wrappedVersion, byte(m)}
	if m == keyWrap {
		b, err := keyWrapSeal(c, s, h, plaintext, aad)
		return append(header, b...), err
	}
	nonce := make([]byte, nonceBytes)
	_, _ = rand.Read(nonce) // never fails
	params := p11.NewGCMParams(nonce, aad, tagBits)
	defer params.Free()
	if err := c.EncryptInit(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_GCM, params)}, h); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	b, err := c.Encrypt(s, plaintext)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if nonce = params.IV(); len(nonce) != nonceBytes { // some tokens choose their own
		return nil, fmt.Errorf("encrypt: the token used a nonce of %d bytes, want %d", len(nonce), nonceBytes)
	}
	return append(append(header, nonce...), b...), nil
}

// unwrap reverses wrap.
func unwrap(c *p11.Ctx, s p11.SessionHandle, h p11.ObjectHandle, wrapped, aad []byte) ([]byte, error) {
	body := wrapped[headerBytes:]
	if mechanism(wrapped[1]) == keyWrap {
		return keyWrapOpen(c, s, h, body, aad)
	}
	params := p11.NewGCMParams(body[:nonceBytes], aad, tagBits)
	defer params.Free()
	if err := c.DecryptInit(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_GCM, params)}, h); err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	b, err := c.Decrypt(s, body[nonceBytes:])
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	return b, nil
}

// wellFormed refuses what wrap cannot have made.
func wellFormed(wrapped []byte) error {
	n := len(wrapped) - headerBytes
	ok := n > 0 && wrapped[0] == wrappedVersion
	if ok {
		switch mechanism(wrapped[1]) {
		case gcm:
			ok = n >= nonceBytes+service.PlaintextBytesMin+tagBytes
		case keyWrap:
			ok = n%keyWrapBlock == 0 && n >= 32+service.PlaintextBytesMin+keyWrapBlock
		default:
			ok = false
		}
	}
	if !ok {
		return fmt.Errorf("no data key that a token wrapped: %w", recorder.ErrTampered)
	}
	return nil
}

// Tokens wrap objects with CKM_AES_KEY_WRAP_PAD, not bytes: the data key passes
// through an object of the session.
var sessionSecret = []*p11.Attribute{
	p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
	p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_GENERIC_SECRET),
	p11.NewAttribute(p11.CKA_TOKEN, false),
	p11.NewAttribute(p11.CKA_PRIVATE, true),
	p11.NewAttribute(p11.CKA_SENSITIVE, false),
	p11.NewAttribute(p11.CKA_EXTRACTABLE, true),
}

var keyWrapMechanism = []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_WRAP_PAD, nil)}

func keyWrapSeal(c *p11.Ctx, s p11.SessionHandle, h p11.ObjectHandle, plaintext, aad []byte) (b []byte, err error) {
	bound := service.Bind(append(binary.BigEndian.AppendUint16(nil, uint16(len(plaintext))), plaintext...), aad)
	defer clear(bound)
	o, err := c.CreateObject(s, append(sessionSecret[:len(sessionSecret):len(sessionSecret)], p11.NewAttribute(p11.CKA_VALUE, bound)))
	if err != nil {
		return nil, fmt.Errorf("wrap: %w", err)
	}
	defer func() { err = errors.Join(err, c.DestroyObject(s, o)) }()
	if b, err = c.WrapKey(s, keyWrapMechanism, h, o); err != nil {
		return nil, fmt.Errorf("wrap: %w", err)
	}
	return b, nil
}

func keyWrapOpen(c *p11.Ctx, s p11.SessionHandle, h p11.ObjectHandle, body, aad []byte) (b []byte, err error) {
	o, err := c.UnwrapKey(s, keyWrapMechanism, h, body, sessionSecret)
	if err != nil {
		return nil, fmt.Errorf("unwrap: %w", err)
	}
	defer func() { err = errors.Join(err, c.DestroyObject(s, o)) }()
	a, err := c.GetAttributeValue(s, o, []*p11.Attribute{p11.NewAttribute(p11.CKA_VALUE, nil)})
	if err != nil {
		return nil, fmt.Errorf("unwrap: %w", err)
	}
	b, err = service.Unbind(a[0].Value, aad)
	if err != nil {
		return nil, err
	}
	// Some tokens give back the padding too.
	n := int(binary.BigEndian.Uint16(b))
	if b = b[lengthBytes:]; n > len(b) || len(b)-n >= keyWrapBlock {
		return nil, fmt.Errorf("unwrap: %d bytes, want %d: %w", len(b), n, recorder.ErrTampered)
	}
	return b[:n], nil
}
