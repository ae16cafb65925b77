package keyserver

import (
	"bytes"
	"encoding/json"
	"testing"
)

func FuzzConfig(f *testing.F) {
	f.Add([]byte("listen: 127.0.0.1:1\n" + everything))
	f.Add([]byte("window: 3h\nrevoked_keys: ['1']"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if c, err := parse(b); err == nil {
			_ = c.check()
		}
	})
}

func FuzzPurpose(f *testing.F) {
	f.Add([]byte("trunktap data key 1\x00rec"))
	f.Fuzz(func(t *testing.T, aad []byte) {
		var l Line
		l.purpose(aad)
		if b, err := json.Marshal(l); err != nil || l.For == "" || bytes.ContainsRune(b, '\n') {
			t.Errorf("%s %v", b, err)
		}
	})
}
