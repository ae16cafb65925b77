package seal

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// TestSealAsTinkDoes: what is appended is what Tink opens, and what Tink seals
// is opened, whatever the keyset's kind.
func TestSealAsTinkDoes(t *testing.T) {
	for name, template := range map[string]func() *keyset.Handle{
		"AES256-GCM": func() *keyset.Handle { h, _ := keyset.NewHandle(aead.AES256GCMKeyTemplate()); return h },
		"AES128-GCM": func() *keyset.Handle { h, _ := keyset.NewHandle(aead.AES128GCMKeyTemplate()); return h },
		"no prefix":  func() *keyset.Handle { h, _ := keyset.NewHandle(aead.AES256GCMNoPrefixKeyTemplate()); return h },
		"ChaCha20":   func() *keyset.Handle { h, _ := keyset.NewHandle(aead.ChaCha20Poly1305KeyTemplate()); return h },
	} {
		h := template()
		k, err := newDataKey(h, recorder.WrappedKey{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if own := name != "ChaCha20"; (k.gcm != nil) != own {
			t.Errorf("%s: sealed by Go's GCM: %v", name, !own)
		}
		theirs, err := aead.New(h)
		if err != nil {
			t.Fatal(err)
		}
		rapid.Check(t, func(t *rapid.T) {
			before := rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "before")
			plain := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "plain")
			bind := rapid.SliceOfN(rapid.Byte(), 0, 80).Draw(t, "bind")
			out, err := k.AppendSeal(bytes.Clone(before), plain, bind)
			if err != nil || !bytes.HasPrefix(out, before) {
				t.Fatalf("%s: AppendSeal: %v", name, err)
			}
			ref, err := theirs.Encrypt(plain, bind)
			if err != nil || len(ref) != len(out)-len(before) {
				t.Fatalf("%s: %d bytes, Tink's %d, %v", name, len(out)-len(before), len(ref), err)
			}
			if got, err := theirs.Decrypt(out[len(before):], bind); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("%s: opened by Tink: %v", name, err)
			}
			if got, err := k.Open(ref, bind); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("%s: sealed by Tink: %v", name, err)
			}
			if _, err := k.Open(out[len(before):], append(bind, 1)); !errors.Is(err, recorder.ErrTampered) {
				t.Fatalf("%s: bound to something else: %v", name, err)
			}
		})
		k.Close()
		if _, err := k.AppendSeal(nil, nil, nil); !errors.Is(err, recorder.ErrKey) {
			t.Errorf("%s: AppendSeal after Close: %v", name, err)
		}
	}
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
