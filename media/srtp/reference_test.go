package srtp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
)

// The reference is SRTP written down from the RFCs with the standard library
// alone. It is held to the RFCs' vectors, and the package to it.

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// refDerive is RFC 3711 section 4.3.1 with a key derivation rate of zero.
func refDerive(t testing.TB, master, salt []byte, label byte, n int) []byte {
	t.Helper()
	var iv [16]byte
	copy(iv[:], salt)
	iv[7] ^= label
	out := make([]byte, n)
	refCTR(t, master, iv, out)
	return out
}

func refCTR(t testing.TB, key []byte, iv [16]byte, b []byte) {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	cipher.NewCTR(block, iv[:]).XORKeyStream(b, b)
}

// refCM is RFC 3711 section 4.1.1.
func refCM(t testing.TB, key, salt []byte, ssrc uint32, index uint64, b []byte) {
	t.Helper()
	var iv, mask [16]byte
	copy(iv[:], salt)
	binary.BigEndian.PutUint32(mask[4:], ssrc)
	binary.BigEndian.PutUint64(mask[6:], binary.BigEndian.Uint64(mask[6:])|index)
	binary.BigEndian.PutUint32(mask[4:], ssrc)
	for i := range iv {
		iv[i] ^= mask[i]
	}
	refCTR(t, key, iv, b)
}

func refGCM(t testing.TB, key, salt []byte, ssrc, roc uint32, seq uint16, plain, aad []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	var iv [12]byte
	binary.BigEndian.PutUint32(iv[2:], ssrc)
	binary.BigEndian.PutUint32(iv[6:], roc)
	binary.BigEndian.PutUint16(iv[10:], seq)
	for i := range iv {
		iv[i] ^= salt[i]
	}
	return aead.Seal(nil, iv[:], plain, aad)
}

// refRTP protects a packet whose header has 12 bytes.
func refRTP(t testing.TB, s Suite, master Key, roc uint32, plain, mki []byte) []byte {
	t.Helper()
	info := suites[s]
	mk, ms := master.bytes()[:info.key], master.bytes()[info.key:]
	key := refDerive(t, mk, ms, 0, info.key)
	salt := refDerive(t, mk, ms, 2, info.salt)
	ssrc, seq := binary.BigEndian.Uint32(plain[8:]), binary.BigEndian.Uint16(plain[2:])
	head, body := plain[:12], bytes.Clone(plain[12:])
	if info.aead {
		return append(append(bytes.Clone(head), refGCM(t, key, salt, ssrc, roc, seq, body, head)...), mki...)
	}
	refCM(t, key, salt, ssrc, uint64(roc)<<16|uint64(seq), body)
	out := append(bytes.Clone(head), body...)
	mac := hmac.New(sha1.New, refDerive(t, mk, ms, 1, 20))
	mac.Write(out)
	mac.Write(binary.BigEndian.AppendUint32(nil, roc))
	tag := 10
	if strings.HasSuffix(s.String(), "32") {
		tag = 4
	}
	return append(append(out, mki...), mac.Sum(nil)[:tag]...)
}

// refRTCP protects a compound packet.
func refRTCP(t testing.TB, s Suite, master Key, index uint32, plain, mki []byte) []byte {
	t.Helper()
	info := suites[s]
	mk, ms := master.bytes()[:info.key], master.bytes()[info.key:]
	key := refDerive(t, mk, ms, 3, info.key)
	salt := refDerive(t, mk, ms, 5, info.salt)
	ssrc := binary.BigEndian.Uint32(plain[4:])
	word := binary.BigEndian.AppendUint32(nil, index|1<<31)
	head, body := plain[:8], bytes.Clone(plain[8:])
	if info.aead {
		aad := append(bytes.Clone(head), word...)
		sealed := refGCM(t, key, salt, ssrc, index>>16, uint16(index), body, aad)
		return append(append(append(bytes.Clone(head), sealed...), word...), mki...)
	}
	refCM(t, key, salt, ssrc, uint64(index), body)
	out := append(append(bytes.Clone(head), body...), word...)
	mac := hmac.New(sha1.New, refDerive(t, mk, ms, 4, 20))
	mac.Write(out)
	return append(append(out, mki...), mac.Sum(nil)[:10]...)
}

func TestReferenceMeetsRFCs(t *testing.T) {
	same := func(what string, got []byte, want string) {
		t.Helper()
		if w := unhex(t, want); !bytes.Equal(got, w) {
			t.Errorf("%s: %x, want %x", what, got, w)
		}
	}
	stream := func(key, salt string) []byte {
		b := make([]byte, 48)
		refCM(t, unhex(t, key), unhex(t, salt), 0, 0, b)
		return b
	}
	same("RFC 3711 B.2", stream("2B7E151628AED2A6ABF7158809CF4F3C", "F0F1F2F3F4F5F6F7F8F9FAFBFCFD"),
		"E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0")
	same("RFC 6188 7.1", stream("57f82fe3613fd170a85ec93c40b1f0922ec4cb0dc025b58272147cc438944a98", "F0F1F2F3F4F5F6F7F8F9FAFBFCFD"),
		"92bdd28a93c3f52511c677d08b5515a4 9da71b2378a854f67050756ded165bac 63c4868b7096d88421b563b8c94c9a31")

	mk, ms := unhex(t, "E1F97A0D3E018BE0D64FA32C06DE4139"), unhex(t, "0EC675AD498AFEEBB6960B3AABE6")
	same("RFC 3711 B.3 cipher key", refDerive(t, mk, ms, 0, 16), "C61E7A93744F39EE10734AFE3FF7A087")
	same("RFC 3711 B.3 salt", refDerive(t, mk, ms, 2, 14), "30CBBC08863D8C85D49DB34A9AE1")
	same("RFC 3711 B.3 auth key", refDerive(t, mk, ms, 1, 20), "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4")
	mk = unhex(t, "f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6")
	ms = unhex(t, "3b04803de51ee7c96423ab5b78d2")
	same("RFC 6188 7.4 cipher key", refDerive(t, mk, ms, 0, 32), "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4")
	same("RFC 6188 7.4 salt", refDerive(t, mk, ms, 2, 14), "fa31791685ca444a9e07c6c64e93")
	same("RFC 6188 7.4 auth key", refDerive(t, mk, ms, 1, 20), "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05")

	head := unhex(t, "8040f17b 8041f8d3 5501a0b2")
	same("RFC 7714 16.1.1", refGCM(t, unhex(t, "000102030405060708090a0b0c0d0e0f"), []byte("Quid pro quo"), 0x5501a0b2, 0, 0xf17b,
		[]byte("Gallia est omnis divisa in partes tres"), head),
		`f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b
		 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce`)
	same("RFC 7714 16.2.1", refGCM(t, unhex(t, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"), []byte("Quid pro quo"),
		0x5501a0b2, 0, 0xf17b, []byte("Gallia est omnis divisa in partes tres"), head),
		`32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 76ffae0f
		 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13`)
}

// The packet that libsrtp is validated with.
func TestKnownPacket(t *testing.T) {
	key := NewKey(unhex(t, "e1f97a0d3e018be0d64fa32c06de4139 0ec675ad498afeebb6960b3aabe6"))
	plain := unhex(t, "800f1234decafbadcafebabe abababababababababababababababab")
	want := unhex(t, "800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb")
	if got := refRTP(t, AESCM128SHA1x80, key, 0, plain, nil); !bytes.Equal(got, want) {
		t.Errorf("reference: %x, want %x", got, want)
	}
	got, err := protector(t, line(AESCM128SHA1x80, key)).RTP(make([]byte, 100), plain)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, %v; want %x", got, err, want)
	}
}
