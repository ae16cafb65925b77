package seal

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/trunktap/trunktap/recorder"
)

// Data keys of form 0 are Tink keysets of one AES-256-GCM key: EncryptedKeyset
// around Keyset (tink.proto). They are taken apart here, because Tink's own
// readers leave copies of the key where they cannot be wiped.

const (
	tinkKeyType = "type.googleapis.com/google.crypto.tink.AesGcmKey"
	tinkEnabled = 1
	tinkPrefix  = 1 // OutputPrefixType TINK
)

// errKeyset says that a keyset is none that this program has made.
var errKeyset = fmt.Errorf("data key is no keyset of one AES-256-GCM key: %w", recorder.ErrTampered)

// protoFields calls f for each field of a message: v is a varint, b the bytes of others.
func protoFields(msg []byte, f func(num protowire.Number, v uint64, b []byte)) error {
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return errKeyset
		}
		msg = msg[n:]
		var v uint64
		var b []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(msg)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(msg)
		default:
			n = protowire.ConsumeFieldValue(num, typ, msg)
		}
		if n < 0 {
			return errKeyset
		}
		msg = msg[n:]
		f(num, v, b)
	}
	return nil
}

// encryptedKeyset returns the ciphertext in an EncryptedKeyset.
func encryptedKeyset(msg []byte) (sealed []byte, err error) {
	err = protoFields(msg, func(num protowire.Number, _ uint64, b []byte) {
		if num == 2 {
			sealed = b
		}
	})
	if err == nil && len(sealed) == 0 {
		err = errKeyset
	}
	return sealed, err
}

// keysetPlain writes the key of a Keyset into dst, in the form of plainBytes.
func keysetPlain(dst, msg []byte) error {
	keys := 0
	var id, status, prefix uint64
	var kind string
	var value []byte
	err := protoFields(msg, func(num protowire.Number, _ uint64, b []byte) {
		if num != 2 {
			return
		}
		keys++
		_ = protoFields(b, func(num protowire.Number, v uint64, b []byte) { // what is broken gives no key
			switch num {
			case 1:
				_ = protoFields(b, func(num protowire.Number, _ uint64, b []byte) { // the same
					switch num {
					case 1:
						kind = string(b)
					case 2:
						_ = protoFields(b, func(num protowire.Number, _ uint64, b []byte) { // the same
							if num == 3 {
								value = b
							}
						})
					default:
					}
				})
			case 2:
				status = v
			case 3:
				id = v
			case 4:
				prefix = v
			default:
			}
		})
	})
	if err != nil || keys != 1 || kind != tinkKeyType || status != tinkEnabled || prefix != tinkPrefix || len(value) != keyBytes {
		return errKeyset
	}
	dst[0] = plainForm
	dst[1], dst[2], dst[3], dst[4] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
	copy(dst[5:], value)
	return nil
}
