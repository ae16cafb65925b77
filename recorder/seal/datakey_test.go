package seal

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// tinkKey makes a Tink keyset and opens it as this package does.
func tinkKey(t testing.TB, template *tinkpb.KeyTemplate) (tink.AEAD, *dataKey, error) {
	t.Helper()
	h, err := keyset.NewHandle(template)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := aead.New(h)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewBinaryWriter(&b)); err != nil {
		t.Fatal(err)
	}
	plain := make([]byte, plainBytes)
	if err := keysetPlain(plain, b.Bytes()); err != nil {
		return nil, nil, err
	}
	k, err := plainKey(newMemory(), plain)
	if !bytes.Equal(plain, make([]byte, plainBytes)) {
		t.Error("the key that was handed over is not wiped")
	}
	return theirs, k, err
}

// TestSealAsTinkDoes: what is appended is what Tink opens, and what Tink seals
// is opened.
func TestSealAsTinkDoes(t *testing.T) {
	theirs, k, err := tinkKey(t, aead.AES256GCMKeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		before := rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "before")
		plain := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "plain")
		bind := rapid.SliceOfN(rapid.Byte(), 0, 80).Draw(t, "bind")
		out, err := k.AppendSeal(bytes.Clone(before), plain, bind)
		if err != nil || !bytes.HasPrefix(out, before) {
			t.Fatalf("AppendSeal: %v", err)
		}
		ref, err := theirs.Encrypt(plain, bind)
		if err != nil || len(ref) != len(out)-len(before) {
			t.Fatalf("%d bytes, Tink's %d, %v", len(out)-len(before), len(ref), err)
		}
		if got, err := theirs.Decrypt(out[len(before):], bind); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("opened by Tink: %v", err)
		}
		if got, err := k.Open(ref, bind); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("sealed by Tink: %v", err)
		}
		if _, err := k.Open(out[len(before):], append(bind, 1)); !errors.Is(err, recorder.ErrTampered) {
			t.Fatalf("bound to something else: %v", err)
		}
	})
	k.Close()
	k.Close()
	if _, err := k.AppendSeal(nil, nil, nil); !errors.Is(err, recorder.ErrKey) {
		t.Errorf("AppendSeal after Close: %v", err)
	}
	if _, err := k.Open(make([]byte, 100), nil); !errors.Is(err, recorder.ErrKey) {
		t.Errorf("Open after Close: %v", err)
	}
}

// TestOtherKeysetsAreRefused: only what this program makes is opened.
func TestOtherKeysetsAreRefused(t *testing.T) {
	for name, template := range map[string]*tinkpb.KeyTemplate{
		"AES128-GCM": aead.AES128GCMKeyTemplate(), "no prefix": aead.AES256GCMNoPrefixKeyTemplate(), "ChaCha20": aead.ChaCha20Poly1305KeyTemplate(),
	} {
		if _, _, err := tinkKey(t, template); !errors.Is(err, recorder.ErrTampered) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzKeyset(f *testing.F) {
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewBinaryWriter(&b)); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{0x12, 2, 0x0a, 0})
	f.Fuzz(func(t *testing.T, msg []byte) {
		plain := make([]byte, plainBytes)
		if err := keysetPlain(plain, msg); err == nil && plain[0] != plainForm {
			t.Error("no error, and no key")
		}
		_, _ = encryptedKeyset(msg) // it may fail, and must not panic
	})
}

// TestNoncesDiffer: two seals of the same never are the same.
func TestNoncesDiffer(t *testing.T) {
	k := anyKey(t)
	seen := map[string]bool{}
	for range 5000 {
		b, err := k.Seal([]byte("x"), nil)
		if err != nil || seen[string(b)] {
			t.Fatalf("seal: %v, or the same bytes again", err)
		}
		seen[string(b)] = true
	}
}

func anyKey(t testing.TB) *dataKey {
	t.Helper()
	l, err := OpenLocal(LocalConfig{Path: "/keys/kek.json", FS: vfstest.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	k, err := l.NewKey(context.Background(), "rec")
	if err != nil {
		t.Fatal(err)
	}
	return k.(*dataKey)
}

func TestAppendSealAllocatesNothing(t *testing.T) {
	k := anyKey(t)
	plain, bind, dst := make([]byte, 8028), make([]byte, 60), make([]byte, 0, 10_000)
	n := testing.AllocsPerRun(100, func() {
		if _, err := k.AppendSeal(dst, plain, bind); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAppendSeal(b *testing.B) {
	k := anyKey(b)
	plain, bind, dst := make([]byte, 8028), make([]byte, 60), make([]byte, 0, 10_000)
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.AppendSeal(dst, plain, bind); err != nil {
			b.Fatal(err)
		}
	}
}
